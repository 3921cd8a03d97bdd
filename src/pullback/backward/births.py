"""``pb.find_nonfinite``: where the first inf or nan of a backward pass was born, and of what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _torch
from .._names import CallerNames
from .._trees import Tree
from .birth import Birth, place_of, value_text
from .birth_backward import Hooks, backward_birth
from .birth_forward import forward_birth, is_written
from .birth_words import label
from .birthlog import BirthLog
from .finite import Bad, all_finite, first_bad, plain
from .graph import Port
from .looks import collector_paused, look
from .outcome import Job, hooks_on_nodes
from .passlog import Keeper
from .recorder import explain_failure, job_of
from .watch import Watcher, prehook_names

_CALLER = "pb.find_nonfinite"
_TOLD_ELSEWHERE = 8


def find_nonfinite(outputs: Tree, cotangents: Tree = None, *, inputs: Tree = None) -> Birth | None:
    """Run one backward pass and say where its first inf or nan was born, and of what.

    A pass multiplies and adds. One entry that is not finite spreads, so most nodes that handle nan
    have only received it. This finds the first that had received finite numbers; at its first such
    entry it shows the upstream, the operands that the node saved and the local derivative, and
    tries a rewrite on these very numbers. Inf is found as nan is.

    It looks as ``pb.record`` does: no ``.grad`` changes, the graph is kept, the user's tensor hooks
    run. Under ``pb.trace()`` the certificate names the line.

    Args:
        outputs: a tensor with a graph, or a pytree of them.
        cotangents: the same structure and shapes; None for outputs of one element.
        inputs: what to differentiate with respect to, as in ``pb.record``; None: every leaf.

    Returns:
        A `Birth`, or None where the outputs and every cotangent of the pass are finite.

    Raises:
        ArgumentError, CotangentError, GraphError, TreeError, UnsupportedError: as in ``pb.record``.

    Example:
        >>> import torch, pullback as pb
        >>> x = torch.tensor([0.0, 4.0], requires_grad=True)
        >>> y = torch.where(x > 0, x.sqrt(), 0 * x)
        >>> birth = pb.find_nonfinite(y, torch.ones(2))
        >>> birth.code, birth.node, birth.element, birth.upstream, birth.derivative
        ('zero_times_infinity', 'SqrtBackward0', (0,), 0.0, inf)
        >>> birth.proof.holds
        True

    Source: the product rule of IEEE 754 (0 * inf is nan) at the nodes of ``torch.autograd``; the
    rewrites are the "double where" and its kin.
    """
    return first_birth(_CALLER, outputs, cotangents, inputs)


def first_birth(caller: str, outputs: Tree, cotangents: Tree, inputs: Tree) -> Birth | None:
    """What ``find_nonfinite`` finds, for the public function ``caller``."""
    job = job_of(caller, outputs, cotangents, inputs, CallerNames(caller))
    seen = _looked(job)
    whole = all_finite_of(job.out.tensors) and all_finite_of(job.values)
    if whole and seen.log.first is None:
        return None
    with torch.no_grad(), _torch.untouched(job.graph.children_of):
        return _told(job, seen)


def all_finite_of(tensors: Sequence[Tensor]) -> bool:
    return all(all_finite(tensor.detach()) for tensor in tensors)


class _Seen(NamedTuple):
    log: BirthLog
    hooks: Hooks


def _looked(job: Job) -> _Seen:
    watcher = Watcher(job.graph, Keeper("stats", total=0), BirthLog)
    with torch.no_grad(), collector_paused():
        watcher.seed(job.values)
        try:
            with _torch.untouched(job.graph.children_of) as watched:
                look(job, watcher)
        except RuntimeError as error:
            explain_failure(job.caller, error, job.out, job.graph)
            raise
        finally:
            watcher.unwatch()
    log = watcher.own
    assert isinstance(log, BirthLog)
    if log.first is None:
        return _Seen(log, Hooks((), ()))
    node, port = log.first.node, Port(log.first.node, log.first.slot)
    leaf = _torch.leaf_of(node)
    before = hooks_on_nodes(watched.hooked).get(port, ()) + watcher.node_hooks.get(node, ())
    before += () if leaf is None else _torch.tensor_hook_names(leaf)
    names = dict.fromkeys((*before, *prehook_names(node)))
    return _Seen(log, Hooks(tuple(names), watcher.sending_hooks.get(node, ())))


def _told(job: Job, seen: _Seen) -> Birth | None:
    """In the order of the program: the forward pass, the cotangent, the backward pass."""
    log = seen.log
    elsewhere = tuple(dict.fromkeys(map(label, log.others)))[:_TOLD_ELSEWHERE]
    strange = [k for k, t in enumerate(job.out.tensors) if not all_finite(t.detach())]
    written = None
    if strange:
        first = () if log.first is None else (label(log.first.node),)
        found = _of_output(job, strange[0], tuple(dict.fromkeys((*first, *elsewhere))))
        if log.first is None or not is_written(found):
            return found
        written = found  # an inf that is meant, as in a mask, is no birth where there is another
    for k, value in enumerate(job.values):
        bad = first_bad(plain(value))
        if bad is not None:
            return _of_cotangent(job, k, bad, elsewhere)
    if log.first is None:
        return written
    birth = backward_birth(log.first, seen.hooks, log.sent_by, elsewhere)
    if birth.code != "born_in_forward":
        return birth
    met = f"In the backward pass it was met first at {birth.node}, whose upstream is finite."
    return forward_birth(job, birth.kind, met, elsewhere) or birth


def _of_output(job: Job, k: int, also: tuple[str, ...]) -> Birth:
    nans = [j for j, t in enumerate(job.out.tensors) if bool(plain(t).isnan().any())]
    k = nans[0] if nans else k
    bad = first_bad(plain(job.out.tensors[k]))
    assert bad is not None
    name = job.out.names[k]
    many = f"{bad.count} such entr{'y' if bad.count == 1 else 'ies'}"
    met = f"{name} holds {many}: no cotangent is to blame."
    birth = forward_birth(job, "nan" if nans else "inf", met, also)
    assert birth is not None  # the output itself is among the known values
    at = place_of(birth.call)
    own = f"{birth.node} at {at}" if at else birth.node
    return replace(birth, also=tuple(place for place in also if place != own))


def _of_cotangent(job: Job, k: int, bad: Bad, also: tuple[str, ...]) -> Birth:
    name, place = job.out.names[k], list(bad.element)
    return Birth(
        "poisoned_cotangent",
        _torch.node_name(job.graph.roots[k].node),
        bad.kind,
        k,
        bad.element,
        bad.count,
        f"The cotangent v of {name} holds {value_text(bad.value)} at {place}: the pass was given "
        f"it, and no node made it.",
        upstream=bad.value,
        evidence=(
            ("v", f"of {name}"),
            ("not finite", f"{bad.count} of {job.values[k].numel()} entries"),
        ),
        fix=f"Look at how v of {name} is computed; {name} itself is finite.",
        also=also,
    )
