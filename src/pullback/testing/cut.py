"""``assert_no_cut``: no value on the way to these outputs lost its graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath

import torch
from torch import Tensor, nn

from .. import _checks, _torch
from .._checks import Leaves
from .._names import CallerNames
from .._trees import Tree
from ..backward.cuts import cuts_of
from ..backward.cuttext import REASONS, at, fix_of_cut
from ..backward.cutways import Way, way_before, way_to
from ..backward.events import UserCall
from ..backward.origins import AnyOrigin, Cut
from ..backward.question import Question
from ..backward.verdict import Verdict
from ..backward.whynone import of_undelivered
from .failure import ANY, failure
from .given import outputs_given, tensors_given

_CALLER = "pb.assert_no_cut"
_CUTS = tuple(reason for reason in REASONS if reason != "read")


def assert_no_cut(
    outputs: Tree,
    inputs: Tree | nn.Module = None,
    *,
    allow: Sequence[str] = (),
) -> None:
    """Assert that no value on the way to ``outputs`` was cut off from what it was computed from.

    A cut is a value computed from a tensor that requires a gradient, which itself has no graph:
    by ``detach()``, ``.data``, ``torch.no_grad()``, ``torch.inference_mode()``, or an operation
    without a derivative, as an index or a comparison. The forward pass must have run inside
    ``with pb.trace():``.

    Not seen are values that left torch (``item()``, ``numpy()``), and those that went into the
    ``apply`` of an ``autograd.Function``: `assert_reaches` finds what they cost.

    Args:
        outputs: a tensor or a pytree of them.
        inputs: only ways from these count: a module (its parameters that require a gradient), a
            tensor, or a sequence or mapping of them. An input from which no way leads to the
            outputs fails, too.
        allow: the cuts that are meant: reasons (``"detach"``, ``"data"``, ``"no_grad"``,
            ``"inference_mode"``, ``"copied"``, ``"not_differentiable"``) and places
            (``"train.py:12"``).

    Raises:
        GradientAssertionError: with a `Verdict` on every cut, by its place.
        GraphError: (a part of) the forward pass did not run inside ``pb.trace()``, so cuts in it
            cannot be known.
        ArgumentError, TreeError, UnsupportedError: arguments that cannot be used; more cuts
            behind a value than are noted; a torch.func transform.

    Example:
        >>> import torch, pullback as pb
        >>> x, w = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
        >>> with pb.trace():
        ...     loss = (x.detach() * w).sum()
        >>> pb.assert_no_cut(loss, w)
        >>> pb.assert_no_cut(loss, allow="detach")
        >>> try:
        ...     pb.assert_no_cut(loss)
        ... except AssertionError as error:
        ...     print([dict(v.evidence)["reason"] for v in error.verdicts.values()])
        ['detach']

    Source: what ``pb.trace`` notes of every torch call that returns values without a graph.
    """
    __tracebackhide__ = True
    names = CallerNames(_CALLER)
    reasons = _checks.allowed_cuts(_CALLER, allow, _CUTS)
    with _torch.function_modes_off(), torch.inference_mode(False):
        out = outputs_given(_CALLER, outputs, names)
        given = {} if inputs is None else tensors_given(_CALLER, "inputs", inputs, names)
        if given:
            leaves = _checks.leaves_of(_CALLER, "inputs", given)
            _checks.differentiable_inputs(_CALLER, "inputs", leaves)
        verdicts = _verdicts(out, given, reasons)
    if verdicts:
        raise failure(
            f"{_CALLER}: the way to {_checks.listed(out.names)} is cut.",
            verdicts,
            'Allow what is meant by its reason or its place: allow=("detach", "train.py:12").',
        )


def _verdicts(out: Leaves, given: Mapping[str, Tensor], allow: Sequence[str]) -> dict[str, Verdict]:
    way = way_to(out.tensors)
    targets = [Question(_CALLER, ANY, tensor, out).origin() for tensor in given.values()]
    cuts = [cut for cut in _concerning(way, targets) if not _allowed(cut.call, cut.reason, allow)]
    found = {at(cut.call): _verdict(cut) for cut in cuts}
    for (name, tensor), target in zip(given.items(), targets, strict=True):
        if not way.leads_to(target):
            verdict = of_undelivered(Question(_CALLER, ANY, tensor, out))
            if verdict is not None:
                found[name] = verdict
    if not found:
        _sure(out, way, allow)
    return found


def _sure(out: Leaves, way: Way, allow: Sequence[str]) -> None:
    """Refuse to pass what cannot be known."""
    pairs = zip(out.names, out.tensors, strict=True)
    unknown = [name for name, t in pairs if not (t.requires_grad or cuts_of(t))]
    if unknown:
        raise _checks.no_trace(_CALLER, unknown)
    untraced = way.untraced
    if untraced:
        nodes = [origin.name for origin in untraced]
        raise _checks.partly_traced(_CALLER, out.names, nodes, len(way.origins))
    if any(cut.reason not in allow for cuts in way.crowded for cut in cuts):
        raise _checks.more_cuts_than_noted(_CALLER, out.names)


def _concerning(way: Way, targets: Sequence[AnyOrigin]) -> list[Cut]:
    """The cuts behind which one of ``targets`` lies, or may lie."""
    if not targets:
        return way.cuts
    crowded = {id(cut) for cuts in way.crowded for cut in cuts}
    found = []
    for cut in way.cuts:
        before = way_before(cut)
        if before is None or id(cut) in crowded or any(map(before.leads_to, targets)):
            found.append(cut)
    return found


def _allowed(call: UserCall, reason: str, allow: Sequence[str]) -> bool:
    return reason in allow or any(_is_at(call, place) for place in allow)


def _is_at(call: UserCall, place: str) -> bool:
    """Whether ``place``, a line of a file named by the end of its path, is that of ``call``."""
    name, _, line = place.rpartition(":")
    parts = PurePath(name).parts
    return line == str(call.line) and PurePath(call.file).parts[-len(parts) :] == parts


def _verdict(cut: Cut) -> Verdict:
    return Verdict(
        "cut",
        f"A value lost its graph in {at(cut.call)}: {REASONS[cut.reason]}.",
        (("reason", cut.reason),),
        fix_of_cut(cut),
    )
