"""``assert_reaches``: a gradient of these outputs is defined at each of these tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .. import _checks, _torch
from .._checks import Leaves
from .._errors import GraphError
from .._names import CallerNames
from .._trees import Tree
from ..backward.graph import walk
from ..backward.outcome import Job
from ..backward.question import Question
from ..backward.recorder import run_pass
from ..backward.targets import targets_of
from ..backward.verdict import Verdict
from ..backward.whyheld import of_zero_deposit
from ..backward.whynone import of_undelivered
from .failure import ANY, failure
from .given import outputs_given, tensors_given

_CALLER = "pb.assert_reaches"
# Each is a search of its own through the graph; the others are named.
_MOST_ASKED = 40
_NOT_ASKED = Verdict(
    "not_asked",
    f"No gradient reaches {ANY} either; so many are missing that this one was not asked why.",
)

_UNDEFINED = Verdict(
    "undefined", f"A way leads to {ANY}, but no gradient is defined there. None is not a zero."
)
_ZERO = Verdict("numeric_zero", f"All entries of the gradient of {ANY} are zero at this point.")


def assert_reaches(outputs: Tree, params: Tree | nn.Module, *, nonzero: bool = False) -> None:
    """Assert that a gradient of ``outputs`` is defined at every one of ``params``.

    Defined means that a way through the graph leads there and that one backward pass, a look that
    changes nothing, brings a tensor. A gradient of zeros is defined; None is not. Call it before
    ``backward()``, which frees the graph.

    Args:
        outputs: a tensor or a pytree of them.
        params: a module (its parameters that require a gradient: frozen ones are left out), a
            tensor, or a sequence or mapping of tensors and modules; a tensor that is given by
            itself must require a gradient.
        nonzero: also refuse gradients all of whose entries are zero: for outputs of several
            elements, with positive cotangents drawn at random, the same ones each time.

    Raises:
        GradientAssertionError: with the name of every tensor that gets none, the `Verdict` on it,
            and what mends it. Under ``pb.trace()`` the line that cut it off is named.
        GraphError: the graph was freed by an earlier backward.
        ArgumentError, TreeError, UnsupportedError: nothing to assert, or no tensors; a
            torch.func transform.

    Example:
        >>> import torch, pullback as pb
        >>> encoder, head = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
        >>> with pb.trace():
        ...     loss = head(encoder(torch.ones(1, 2)).detach()).sum()
        >>> pb.assert_reaches(loss, head)
        >>> try:
        ...     pb.assert_reaches(loss, encoder)
        ... except AssertionError as error:
        ...     print({name: verdict.code for name, verdict in error.verdicts.items()})
        {'weight': 'cut', 'bias': 'cut'}

    Source: the reachability of ``AccumulateGrad`` nodes, and undefined gradients; "Autograd
    mechanics" of the PyTorch documentation.
    """
    __tracebackhide__ = True
    _checks.flag(_CALLER, "nonzero", nonzero)
    names = CallerNames(_CALLER)
    with _torch.function_modes_off(), torch.inference_mode(False):
        out = outputs_given(_CALLER, outputs, names)
        given = tensors_given(_CALLER, "params", params, names)
        verdicts = _verdicts(out, given, nonzero)
    if verdicts:
        what = "a gradient other than zeros" if nonzero else "a gradient"
        raise failure(
            f"{_CALLER}: {what} from {_checks.listed(out.names)} is missing at {len(verdicts)} of "
            f"{len(given)} tensor{'' if len(given) == 1 else 's'}.",
            verdicts,
        )


def _verdicts(out: Leaves, given: Mapping[str, Tensor], nonzero: bool) -> dict[str, Verdict]:
    """Why, for each tensor that gets no gradient."""
    seen = _look(out, given, nonzero)
    missing = [name for name in given if name not in seen.defined]
    if seen.freed is not None and not missing:
        raise seen.freed
    found = dict.fromkeys(missing[_MOST_ASKED:], _NOT_ASKED)
    for name in missing[:_MOST_ASKED]:
        asked = Question(_CALLER, ANY, given[name], out)
        found[name] = of_undelivered(asked) or _UNDEFINED
    for name in seen.zero if nonzero else ():
        asked = Question(_CALLER, ANY, given[name], out)
        found[name] = of_zero_deposit(asked) or _ZERO
    return {name: found[name] for name in given if name in found}


class _Seen(NamedTuple):
    """``defined``: what a gradient came to; where the graph was freed, what a way leads to."""

    defined: frozenset[str]
    zero: tuple[str, ...] = ()
    freed: GraphError | None = None


def _look(out: Leaves, given: Mapping[str, Tensor], generic: bool) -> _Seen:
    kept = [k for k, output in enumerate(out.tensors) if output.requires_grad]
    if not kept:
        return _Seen(frozenset())
    tensors, shown = tuple(out.tensors[k] for k in kept), tuple(out.names[k] for k in kept)
    graph = walk(tensors)
    targets = targets_of(dict(given.items()), graph, asked=True)
    reached = frozenset(item.label for item in targets.items if item.port is not None)
    if not reached:
        return _Seen(reached)
    values = tuple(map(_generic if generic else torch.ones_like, tensors))
    job = Job(_CALLER, graph, Leaves(tensors, out.structure, shown), values, targets)
    try:
        deposits = run_pass(job).deposits
    except GraphError as error:
        return _Seen(reached, freed=error)
    named = {name: deposits[name] for name in given if name in deposits}
    zero = (name for name, deposit in named.items() if deposit.numel() and not _any(deposit))
    return _Seen(frozenset(named), tuple(zero))


def _generic(output: Tensor) -> Tensor:
    """Weights under which no gradient cancels by chance; 1 for one element."""
    if output.numel() == 1 or output.layout is not torch.strided:
        return torch.ones_like(output)
    drawn = torch.Generator(output.device).manual_seed(0)
    weights = torch.rand(output.shape, generator=drawn, device=output.device, dtype=torch.float64)
    return (weights + 0.5).to(output.dtype)


def _any(gradient: Tensor) -> bool:
    dense = gradient if gradient.layout is torch.strided else gradient.to_dense()
    return bool((dense != 0).any())
