"""The graph behind a record, while it lives: asked again, with other cotangents.

A record is plain data and must not keep a graph alive, so all references here are weak.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .. import _checks, _torch
from .._checks import Leaves
from .._trees import flatten
from .asking import ENTRY_BYTES, GoneError, answers, passed
from .document import DRAWN
from .events import Key
from .graph import walk
from .looks import run_looks
from .outcome import Job
from .quantities import quantities_of
from .record import BackwardRecord, remember
from .responses import Responses, Vector
from .structure import drawn, plan_of
from .targets import targets_of

_CALLER = "record.to_html"


class Live:
    """What a record was made of, held weakly."""

    def __init__(self, job: Job) -> None:
        self._names = job.out.names
        self._outputs = [weakref.ref(tensor) for tensor in job.out.tensors]
        self._targets = [(target.key, weakref.ref(target.tensor)) for target in job.targets.items]
        self._asked = job.targets.asked

    def stand_behind(self, record: BackwardRecord) -> None:
        remember(record, self)

    def responses(self, record: BackwardRecord, budget: int, anyway: bool) -> Responses:
        """As much as ``budget`` bytes hold: every quantity for every output element, or only the
        deposits, or all for a few cotangents."""
        try:
            self._askable(record, anyway)
            job = self._job(record)
            with _torch.untouched(job.graph.children_of):
                known = plan_of(job, budget // ENTRY_BYTES)
                found = answers(job, record, budget, known)
        except GoneError as reason:
            return Responses("none", reason=str(reason))
        except RuntimeError as error:
            return Responses("none", reason=_why(error))
        return replace(found, structure=None if known is None else drawn(job, known.plan))

    def answer(self, record: BackwardRecord, cotangents: Sequence[Tensor]) -> dict[int, Vector]:
        """Every quantity of the pass with these cotangents, by its number in ``record``.

        Raises:
            GraphError: the graph is gone, or is another one than was recorded.
        """
        known = quantities_of(record)
        found: dict[int, Vector] = {}

        def take(seen: BackwardRecord) -> None:
            found.update(passed(record, known, seen))

        try:
            run_looks(self._job(record)._replace(keep="tensors"), [cotangents], take)
        except GoneError as reason:
            raise _checks.graph_is_gone(_CALLER, str(reason)) from None
        except RuntimeError as error:
            raise _checks.graph_is_gone(_CALLER, _why(error)) from error
        return found

    def _askable(self, record: BackwardRecord, anyway: bool) -> None:
        if record.hooks and not anyway:
            raise GoneError(
                f"the user's own hooks ran in this pass ({', '.join(record.hooks[:3])}) and would "
                f"run again for every cotangent of a basis; to_html(path, editable=True) lets them"
            )
        if any(math.prod(output.shape) > DRAWN for output in record.outputs):
            raise GoneError(f"an output has more than {DRAWN:,} entries, which no page draws")
        dtypes = [o.dtype for o in record.outputs] + [leaf.dtype for leaf in record.leaves]
        if any("complex" in dtype for dtype in dtypes):
            raise GoneError(
                "a complex tensor takes part, and its backward is linear over the reals only"
            )

    def _job(self, record: BackwardRecord) -> Job:
        tensors = [reference() for reference in self._outputs]
        alive = [tensor for tensor in tensors if tensor is not None]
        if len(alive) < len(tensors):
            raise GoneError(
                "the outputs no longer exist: keep them in a variable until the page is written"
            )
        out = Leaves(tuple(alive), flatten(list(alive))[1], self._names)
        _checks.has_graph(_CALLER, out)
        graph = walk(out.tensors)
        named: dict[Key, Tensor] = {}
        for key, reference in self._targets:
            tensor = reference()
            if tensor is None:
                raise GoneError(
                    f"the input {key!r} no longer exists: keep it until the page is written"
                )
            named[key] = tensor
        targets = targets_of(named, graph, asked=self._asked)
        zeros = tuple(torch.zeros_like(tensor) for tensor in alive)
        return Job(_CALLER, graph, out, zeros, targets, retain=True, keep="tensors")


def _why(error: RuntimeError) -> str:
    text = str(error)
    if "a second time" in text or "already been freed" in text:
        return (
            "the graph was freed: record with retain_graph=True, or write the page before backward"
        )
    if "modified by an inplace operation" in text:
        return "a tensor that the backward needs was written to in place since"
    return f"the pass could not be run again ({_checks.first_line(error)})"
