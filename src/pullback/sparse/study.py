"""What planning finds out about a function at its sample arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .. import _checks, _torch
from .._adjoint import probe
from .._named import notes_of
from .arguments import Arguments
from .backward_graph import backward_graph, content_digest, structure_key
from .capture import capture
from .captured import Captured, NotCaptured
from .coloring.graph import is_symmetric
from .detect import Detection, TooManyEntriesError, detect
from .draws import generators_kept
from .gradient import Gradient, result_name, written
from .leaf import Leaf, values_dtype
from .pattern import SparsityPattern
from .products import Existing, Function, Replay, Source
from .state import Reading, State
from .story import Story
from .trial import perturbed, shuffled


@dataclass
class Study:
    """``captured`` is the graph that stands for the function, or None, and ``reason`` why not.

    ``facts`` maps the names of tensors whose content was relied on to digests of it; ``opaque``
    says why not even the backward could be recorded: then only products with unit cotangents count.
    """

    caller: str
    func: Callable[..., Any]
    arguments: Arguments
    has_aux: bool
    state: State
    reading: Reading
    captured: Captured | None
    reason: str
    outputs: tuple[Leaf, ...]
    key: str
    detection: Detection | None = None
    facts: dict[str, str] = field(default_factory=dict)
    opaque: str = ""

    @cached_property
    def pattern(self) -> SparsityPattern:
        """What was detected; of a symmetric matrix, an entry without its mirror is none."""
        assert self.detection is not None
        found = self.detection.pattern
        if not isinstance(self.func, Gradient) or is_symmetric(found) or self.asymmetry:
            return found
        return found.mirrored()

    def tensors(self, arguments: Arguments, reading: Reading) -> list[Tensor]:
        """The inputs of the captured graph, cotangents left out."""
        assert self.captured is not None
        owned = [reading.tensors[path] for path in self.captured.owned]
        return self.captured.inputs(owned, arguments.primals, arguments.others)

    def source(self, arguments: Arguments, reading: Reading) -> Source:
        """Products at ``arguments``, by the captured graph where there is one."""
        if self.captured is None:
            return Function(self.caller, self.func, arguments, self.has_aux)
        return Replay(self.captured, self.tensors(arguments, reading), arguments.primals)

    @cached_property
    def forward_refusal(self) -> str:
        """Why there are no products J t of the backward's J, or nothing where they hold.

        They must pair with the products v J at the sample and at a point near by.
        """
        if self.opaque:
            return self.opaque
        if self.captured is not None and self.captured.in_where_form:
            return "what a mask leaves out may be nan, and a transposed choice would spread it"
        here = self.arguments
        with no_trace(self.state, self.func):
            for primals in (here.primals, [perturbed(t) for t in here.primals]):
                try:
                    refusal = _pairs_up(self._trial(primals))
                except Exception as error:  # the user's function may have no value there
                    refusal = _checks.first_line(error)
                if refusal:
                    return refusal
        return ""

    @cached_property
    def asymmetry(self) -> str:
        """Why this Jacobian is not known to be symmetric, or nothing where it is: that of the
        gradient of a function, whose products agree at three points with those of its transpose.

        A function that cuts its gradients may pass for symmetric at these points and not be.
        """
        if not isinstance(self.func, Gradient):
            return "it is no Hessian"
        if self.captured is None:
            return "there is no captured graph"
        if self.captured.cuts:
            return self.captured.cuts
        here = self.arguments.primals
        with no_trace(self.state, self.func):
            for primals in (here, [*map(perturbed, here)], [shuffled(t, flip=True) for t in here]):
                try:
                    agree = _is_symmetric_at(self._trial(primals))
                except RuntimeError:  # outside the domain of a call: a point that says nothing
                    continue
                if not agree:
                    return "random products with it and with its transpose differ"
        return ""

    def _trial(self, primals: Sequence[Tensor]) -> Source:
        arguments = self.arguments.with_primals(primals)
        if self.captured is None:
            return Function(self.caller, self.func, arguments, self.has_aux)
        tensors = self.tensors(arguments, self.reading)
        cut = len(self.captured.owned)
        owned = [t.clone() for t in tensors[:cut]]
        return Replay(self.captured, [*owned, *tensors[cut:]], arguments.primals)

    @property
    def bytes_per_product(self) -> int:
        if self.captured is not None:
            return max(1, self.captured.graph.bytes_per_product)
        leaves = (*self.inputs, *self.outputs)
        return max(1, sum(leaf.numel * leaf.dtype.itemsize for leaf in leaves))

    @property
    def inputs(self) -> tuple[Leaf, ...]:
        return self.arguments.inputs

    @property
    def dtype(self) -> torch.dtype:
        """Of the values: what the dtypes of inputs and outputs promote to, real."""
        return values_dtype(self.inputs, self.outputs)

    @property
    def notes(self) -> list[str]:
        notes: list[str] = [*notes_of(self.func)]
        if self.captured is None:
            notes.append(
                f"no captured graph stands for the function: {self.reason}. It runs itself at "
                f"every call, and the pattern is found anew where its backward is another"
            )
        if self.detection is not None:
            notes += [
                f"{name} is taken as dense: {why}"
                for name, why in self.detection.pessimistic.items()
            ]
            if self.detection.widened:
                notes.append("sets of dependences grew too large to store and were widened")
        return notes


def study(
    caller: str,
    func: Callable[..., Any],
    arguments: Arguments,
    *,
    has_aux: bool = False,
    frozen: Sequence[str] = (),
    detecting: bool = True,
    known: str = "",
) -> Study:
    """Capture ``func`` at ``arguments`` and find its pattern; leaves no trace in what it owns.

    A graph whose key is ``known`` has the pattern of an earlier study: it is not sought again.
    """
    state = State.of(written(func), extra=arguments.objects)
    with _torch.versions_kept([owned.tensor for owned in state.leaves]):
        return _studied(caller, func, arguments, state, has_aux, frozen, detecting, known)


def _studied(
    caller: str,
    func: Callable[..., Any],
    arguments: Arguments,
    state: State,
    has_aux: bool,
    frozen: Sequence[str],
    detecting: bool,
    known: str,
) -> Study:
    reading = state.read()
    named = _frozen_names(caller, frozen, reading, arguments)
    reason, once = "", None
    captured: Captured | None = None
    try:
        with generators_kept(written(func)):
            captured = capture(caller, func, arguments, state, has_aux=has_aux, frozen=named)
    except NotCaptured as refusal:
        reason, once = str(refusal), refusal.graph
    changed = state.read().changes(reading.without_tensors()) if captured is not None else ()
    if changed or state.unseen:
        captured = None
        reason = reason or (
            f"a call changes what it reads: {changed[0]}" if changed else state.unseen[0]
        )
    if captured is None:
        found = _study_of_one_point(
            caller, func, arguments, has_aux, state, reading, reason, detecting
        )
        if once is not None and found.detection is not None:
            found.detection = _wider(detect(caller, once), found.detection)
        return found
    out_names = [f"{result_name(func)}{path}" for path in captured.out.paths]
    outputs = tuple(
        Leaf(name, meta.shape, meta.dtype)
        for name, meta in zip(out_names, captured.returned, strict=True)
    )
    found = Study(
        caller, func, arguments, has_aux, state, reading, captured, "", outputs,
        structure_key(captured.graph),
    )  # fmt: skip
    if detecting and found.key != known:
        found.detection = detect(caller, captured.graph)
        found.detection.pattern._story = Story(
            caller, captured.graph, found.outputs, arguments.inputs
        )
    found.facts = {
        name: content_digest(tensor_named(name, arguments, reading))
        for name in sorted(found.detection.relied if found.detection else ())
    }
    return found


def _study_of_one_point(
    caller: str,
    func: Callable[..., Any],
    arguments: Arguments,
    has_aux: bool,
    state: State,
    reading: Reading,
    reason: str,
    detecting: bool,
) -> Study:
    with no_trace(state, func):
        source = Function(caller, func, arguments, has_aux)
        pattern, key, note = pattern_here(caller, source) if detecting else (None, "", "")
    outputs = tuple(source.returned)
    reason = f"{reason}; {note}" if note else reason
    return Study(
        caller, func, arguments, has_aux, state, reading, None, reason, outputs, key, pattern,
        opaque=note,
    )  # fmt: skip


def _wider(whole: Detection, here: Detection) -> Detection:
    """The pattern of the whole graph of the sample, if it covers that of the backward alone.

    It lets indices that follow from the arguments take every value, which makes it hold at more
    points.
    """
    return whole if whole.pattern.contains(here.pattern) else here


def pattern_here(
    caller: str, source: Function | Existing, at_most: int | None = None
) -> tuple[Detection, str, str]:
    """The pattern of the backward at this point, its key, and why it could not be read, if so.

    Raises TooManyEntriesError for more than ``at_most`` entries.
    """
    outputs = list(source.outputs)
    m = sum(t.numel() for t in outputs)
    n = sum(t.numel() for t in source.primals)
    products = source.products
    reason = "its backward is not in sight"
    try:
        if products is not None:
            found = backward_graph(caller, outputs, products.inputs, source.primals)
            return detect(caller, found.graph, at_most), found.key, ""
    except NotCaptured as refusal:
        reason = str(refusal)
    if at_most is not None and m * n > at_most:
        raise TooManyEntriesError
    return Detection(SparsityPattern.full((m, n))), "", reason


def tensor_named(name: str, arguments: Arguments, reading: Reading) -> Tensor:
    if name in arguments.other_names:
        return arguments.others[arguments.other_names.index(name)]
    return reading.tensors[name]


def _frozen_names(
    caller: str, frozen: Sequence[str], reading: Reading, arguments: Arguments
) -> frozenset[str]:
    """Full names of the tensors that the caller froze by a short name."""
    known = [*arguments.other_names, *reading.tensors]
    found: set[str] = set()
    for wanted in frozen:
        matching = [name for name in known if name == wanted or name.rpartition(" (")[0] == wanted]
        if not matching:
            raise _checks.unknown_frozen(caller, wanted, known)
        found.update(matching)
    return frozenset(found)


def _is_symmetric_at(source: Source) -> bool:
    """Whether u · H w is w · H u for random u and w; where H is not finite, nothing is said."""
    u, w = (torch.cat([probe(p).detach().reshape(-1) for p in source.primals]) for _ in range(2))
    pulled = source.rev(torch.stack([u, w])).detach()
    left, right = torch.dot(pulled[0], w), torch.dot(pulled[1], u)
    terms = (pulled[0] * w).abs().sum() + (pulled[1] * u).abs().sum()
    loose = {torch.float64: 1e-9, torch.float32: 1e-4}.get(u.dtype, 0.05)
    return not torch.isfinite(terms) or bool(abs(left - right) <= loose * terms)


def _pairs_up(source: Source) -> str:
    """Why <v, J t> and <v J, t> differ, or nothing where they agree."""
    v = torch.cat([probe(t).detach().reshape(-1) for t in source.outputs])
    t = torch.cat([probe(p).detach().reshape(-1) for p in source.primals])
    try:
        across = source.rev(v[None])[0].detach()
        along = source.fwd(t[None])[0].detach()
    except (RuntimeError, NotImplementedError) as error:
        return _checks.first_line(error)
    left, right = torch.dot(v, along.to(v.dtype)), torch.dot(across.to(t.dtype), t)
    terms = (v * along).abs().sum() + (across * t).abs().sum()
    loose = 1e-9 if v.dtype == torch.float64 else 1e-4
    if not torch.isfinite(terms):
        return "" if torch.isnan(left) == torch.isnan(right) else "<v, J t> is not <v J, t>"
    return "" if abs(left - right) <= loose * terms else "<v, J t> is not <v J, t>"


@contextmanager
def no_trace(state: State, func: Callable[..., Any]) -> Iterator[None]:
    """Put back the content and the ``.grad`` of all that the function owns, and the generators."""
    kept = [(o.tensor, o.tensor.detach().clone(), o.tensor.grad if o.tensor.is_leaf else None)
            for o in state.leaves]  # fmt: skip
    with generators_kept(written(func)):
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, before, grad in kept:
                    if not _equal(tensor, before):
                        tensor.detach().copy_(before)
                    if tensor.is_leaf and tensor.grad is not grad:
                        tensor.grad = grad


def _equal(left: Tensor, right: Tensor) -> bool:
    if left.layout is not torch.strided:
        return True
    return bool(torch.equal(left, right)) or bool(left.isnan().any())
