"""Lesson 3: which tensors a backward writes to, and how to make a leaf."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..checking import (
    Case,
    Exercise,
    Misconception,
    Outcome,
    Own,
    called,
    right,
    same_function,
    wrong,
)
from ..values import shown

Named = dict[str, Tensor]


def _leaf(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, requires_grad=True)


def _all_kinds() -> tuple[Tensor, Named]:
    weight, bias, spare, x = _leaf(2, 3), _leaf(1, 1), _leaf(5, 5), torch.tensor([10.0, 20.0])
    hidden = weight * x
    out = hidden + bias
    return out, {"weight": weight, "bias": bias, "spare": spare, "x": x, "hidden": hidden}


def _zero_derivative() -> tuple[Tensor, Named]:
    a, b = _leaf(1, 2), _leaf(3, 4)
    return a.square() + 0 * b, {"a": a, "b": b}


def _detached() -> tuple[Tensor, Named]:
    kept, cut = _leaf(1, 2, 3), _leaf(4, 5, 6)
    return kept * cut.detach(), {"kept": kept, "cut": cut}


def _only_constants_asked() -> tuple[Tensor, Named]:
    a = _leaf(1, 2)
    c = torch.tensor([1.0, 2.0])
    return a * c, {"c": c}


def _single_number() -> tuple[Tensor, Named]:
    a, b = _leaf(1, 2), _leaf(3, 4)
    early = a.double()
    return (early * 2).sum(), {"early": early, "b": b, "a": a}


_GRAPHS: tuple[tuple[str, Callable[[], tuple[Tensor, Named]]], ...] = (
    (
        "out = hidden + bias, hidden = weight * x, spare not used, x without requires_grad",
        _all_kinds,
    ),
    ("out = a.square() + 0 * b", _zero_derivative),
    ("out = kept * cut.detach()", _detached),
    ("out = (early * 2).sum(), early = a.double(), b not used", _single_number),
    ("out = a * c, where only the constant c is asked about", _only_constants_asked),
)


def _graph_cases(own: Own) -> list[Case]:
    return [Case(text, make) for text, make in _GRAPHS]


def _reached(out: Tensor, named: Named) -> Named:
    """The tensors that ``out`` was computed from, found by walking the graph."""
    seen: set[Any] = set()
    stack = [out.grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            stack += [child for child, _ in node.next_functions]
    held = {id(node.variable) for node in seen if hasattr(node, "variable")}
    return {k: t for k, t in named.items() if id(t) in held or t.grad_fn in seen}


def _receivers(out: Tensor, tensors: Named) -> dict[str, bool]:
    reached = _reached(out, tensors)
    return {k: k in reached and t.is_leaf and t.requires_grad for k, t in tensors.items()}


def _non_zero(out: Tensor, tensors: Named) -> set[str]:
    asked = {k: t for k, t in tensors.items() if t.is_leaf and t.requires_grad}
    found = torch.autograd.grad(
        out, list(asked.values()), torch.ones_like(out), retain_graph=True, allow_unused=True
    )
    return {k for k, g in zip(asked, found, strict=True) if g is not None and bool(g.any())}


def _names(truth: dict[str, bool]) -> set[str]:
    return {name for name, holds in truth.items() if holds}


_IDEAS: tuple[tuple[Callable[[Tensor, Named], set[str]], str], ...] = (
    (
        lambda out, ts: {k for k, t in ts.items() if t.requires_grad},
        "a computed tensor requires grad too, but keeps none: only leaves are written to. And a "
        "leaf that out does not come from gets nothing.",
    ),
    (
        lambda out, ts: {k for k, t in ts.items() if t.is_leaf},
        "a constant is a leaf as well; it must also require grad, and out must come from it.",
    ),
    (
        lambda out, ts: {k for k, t in ts.items() if t.is_leaf and t.requires_grad},
        "a leaf that out was not computed from (spare, or behind a detach) keeps its None: ask "
        "whether it is reached.",
    ),
    (
        lambda out, ts: {k for k, t in _reached(out, ts).items() if t.requires_grad},
        "hidden is reached, but it was computed: what flows through it is passed on, not kept. "
        "Only leaves are written to.",
    ),
    (
        _non_zero,
        "a derivative of 0 is written as well: the leaf is reached, and gets zeros, not None.",
    ),
)


def _judge_receivers(answer: Any, own: Own) -> Outcome:
    given = [_come(answer, case) for case in _graph_cases(own)]
    for case, came in zip(_graph_cases(own), given, strict=True):
        expected = _names(_receivers(*case.make()))
        if came != expected:
            told = f"On {case.text}:\n  it gave   {_set(came)}\n  right is  {_set(expected)}"
            return wrong(_idea_behind(given), told)
    return right(f"Tried on {len(given)} graphs.")


def _come(answer: Any, case: Case) -> Any:
    came = called(answer, case.make(), f"On {case.text}, it")
    return set(came) if isinstance(came, set | frozenset | list | tuple | dict) else came


def _idea_behind(given: list[Any]) -> str:
    for idea, hint in _IDEAS:
        cases = [case.make() for case in _graph_cases(())]
        found = [_safely(idea, out, tensors) for out, tensors in cases]
        if all(a == b for a, b in zip(given, found, strict=True)):
            return hint
    return (
        "a name belongs in the set if its tensor is a leaf, requires grad, and out comes from it."
    )


def _safely(idea: Callable[[Tensor, Named], set[str]], out: Tensor, tensors: Named) -> set[str]:
    try:
        return idea(out, tensors)
    except (RuntimeError, ValueError):  # nothing to differentiate by
        return set()


def _set(names: Any) -> str:
    if not isinstance(names, set):
        return repr(names)
    return "{" + ", ".join(sorted(map(repr, names))) + "}" if names else "the empty set"


_RECEIVERS = Exercise(
    _judge_receivers,
    crashes=(
        (
            "appears to not have been used in the graph",
            "a tensor that out was not computed from is an error there by default; with "
            "allow_unused=True it gives None.",
        ),
        (
            "One of the differentiated Tensors does not require grad",
            "a constant cannot be asked for: leave tensors that do not require grad out first.",
        ),
        (
            "does not require a gradient. Leave it out",
            "pb.record's inputs are tensors that may receive something: leave those out that do "
            "not require grad.",
        ),
        (
            "`inputs` holds no tensors",
            "where no tensor may receive anything, the answer is the empty set.",
        ),
        (
            "cannot be empty",
            "where no tensor may receive anything, the answer is the empty set.",
        ),
    ),
)


def _value_cases(own: Own) -> list[Case]:
    lists = ([1.0, 2.0, 3.0], [[0.5, -4.0]], [3, 5], [0.1])
    return [Case(f"values = {values}", lambda v=values: (v,)) for values in lists]  # type: ignore[misc]


def _half(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64) / 2


_NUMBERS = same_function(
    _value_cases,
    _half,
    (
        Misconception(
            lambda values: torch.tensor(values, dtype=torch.float32).double() / 2,
            "0.1 was rounded to float32 before it became float64; give the dtype when the tensor "
            "is made.",
        ),
        Misconception(
            lambda values: torch.tensor(values, dtype=torch.float64),
            "the values should be halved.",
        ),
        Misconception(lambda values: torch.tensor(values) // 2, "// rounds down; / halves."),
    ),
    hint="the numbers are half of `values`, whatever the list holds.",
)


def _judge_leaf(answer: Any, own: Own) -> Outcome:
    for case in _value_cases(own):
        came = called(answer, case.make(), f"On {case.text}, it")
        told = f"On {case.text}, it gave {shown(came)}"
        if not isinstance(came, Tensor):
            return wrong("return a tensor.", told)
        if not came.is_floating_point() or came.dtype != torch.float64:
            return wrong(
                "the dtype should be float64; cast before the tensor requires grad.",
                f"{told}, of dtype {came.dtype}",
            )
        if not came.requires_grad:
            return wrong(
                "it does not require grad: end with requires_grad_().",
                f"{told}, with requires_grad False",
            )
        if not came.is_leaf:
            kept = (
                " retain_grad() fills .grad, but an optimizer still refuses it."
                if came.retains_grad
                else ""
            )
            return wrong(
                "it was computed from the leaf, and the leaf is out of reach. Halve and cast "
                f"first; let the result require grad last.{kept}",
                f"{told}, with is_leaf False, made by {type(came.grad_fn).__name__}",
            )
    outcome = _NUMBERS(answer, own)
    return right("It is a leaf, and holds the right numbers.") if outcome.ok else outcome


EXERCISES: dict[str, Exercise] = {
    "receivers": _RECEIVERS,
    "leaf": Exercise(
        _judge_leaf,
        crashes=(
            (
                "only Tensors of floating point",
                "[3, 5] is a list of integers, which cannot require grad: give dtype=torch.float64 "
                "when the tensor is made.",
            ),
            (
                "Only Tensors of floating point",
                "[3, 5] is a list of integers, which cannot require grad: give dtype=torch.float64 "
                "when the tensor is made.",
            ),
            (
                "a leaf Variable that requires grad",
                "a leaf that requires grad may not be written in place: halve first.",
            ),
        ),
    ),
}
