"""The exercises of lesson 7: rows of J, all of J, and v'J three ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import pullback as pb

from ..._torch import load_forward_mode
from ..checking import (
    Case,
    Exercise,
    Misconception,
    Own,
    same_function,
)
from .several import fresh
from .threeways import judge_mine

load_forward_mode()  # a lesson does not begin with torch's warning of its own deprecation

Function = Callable[[Tensor], Tensor]

_MIX = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]], dtype=torch.float64)


def _used_twice(x: Tensor) -> Tensor:
    return (x + 1).pow(2).t() @ x


def _functions() -> list[tuple[str, Function, Tensor]]:
    """What an answer is tried on: how it is written, the function, and where."""
    eye, small = torch.eye(4, 5).double(), torch.eye(2, 3).double()
    square = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75], [3.0, -2.0, 1.0]]).double()
    return [
        ("f = (x + 10).pow(3).t() at eye(4, 5)", lambda x: (x + 10).pow(3).t(), eye),
        ("f = (x + 1).pow(2).t() @ x at eye(2, 3)", _used_twice, small),
        ("f = x.cumsum(0) * x.t() at a (3, 3)", lambda x: x.cumsum(0) * x.t(), square),
        ("f = (A @ x.sin()).outer(x), A (2, 3), at [0, 1, 2]", _outer, torch.arange(3.0).double()),
    ]


def _outer(x: Tensor) -> Tensor:
    return (_MIX @ x.sin()).outer(x)


def _rows(f: Function, x: Tensor) -> Tensor:
    """The truth, shape (m, *x.shape): by forward mode, where answers go backward."""
    with torch.no_grad():
        tensor: Tensor = torch.func.jacfwd(f)(x.detach())
    return tensor.reshape(-1, *x.shape)


def _row(f: Function, x: Tensor, index: tuple[int, ...]) -> Tensor:
    out = f(x.detach())
    return _rows(f, x).reshape(*out.shape, *x.shape)[index]


def _row_cases(own: Own) -> list[Case]:
    cases = []
    for held in (None, 100.0):
        for text, f, x in _functions():
            before = "" if held is None else " whose x.grad is full of 100s"
            cases.append(
                Case(
                    f"{text}{before}, index (0, 1)",
                    _with_leaf(f, x, held),
                )
            )
    return cases


def _with_leaf(f: Function, x: Tensor, held: float | None) -> Callable[[], tuple[Any, ...]]:
    def make() -> tuple[Any, ...]:
        leaf = x.clone().requires_grad_()
        leaf.grad = None if held is None else torch.full_like(x, held)
        return f, leaf, (0, 1)

    return make


def _onto_grad(f: Function, x: Tensor, index: tuple[int, ...]) -> Tensor:
    found = _row(f, x, index)
    return found if x.grad is None else found + x.grad


_ROW = Exercise(
    same_function(
        _row_cases,
        _row,
        (
            Misconception(
                lambda f, x, index: _rows(f, x).sum(0),
                "that is the sum of all rows, what v = ones gives. Here v is 1 at `index` and 0 "
                "elsewhere.",
            ),
            Misconception(
                lambda f, x, index: _row(f, x, index[::-1]),
                "that is the row of the entry with its indices swapped: `index` counts in f(x), "
                "not in x.",
            ),
            Misconception(
                lambda f, x, index: _row(f, x, index) * f(x.detach())[index],
                "that is the row times f(x)[index]: a cotangent holds weights, not values of f(x).",
            ),
            Misconception(
                _onto_grad,
                "x.grad held something, and the row was added to it: backward accumulates. Clear "
                "x.grad first, or use torch.autograd.grad or pb.vjp, which write to no .grad.",
            ),
        ),
        hint="send a one-hot cotangent, 1 at `index`, through one backward pass.",
        praise="One backward pass with a one-hot cotangent is one row of J.",
    )
)


def _matrix(f: Function, x: Tensor) -> Tensor:
    return _rows(f, x).reshape(-1, x.numel())


def _full_cases(own: Own) -> list[Case]:
    return [Case(text, fresh(f, x)) for text, f, x in _functions()]


_FULL = Exercise(
    same_function(
        _full_cases,
        _matrix,
        (
            Misconception(
                lambda f, x: _matrix(f, x).T,
                "that is J transposed: a row belongs to an entry of f(x), a column to one of x.",
            ),
            Misconception(
                lambda f, x: _rows(f, x).reshape(*f(x).shape, *x.shape),
                "the numbers are right, the layout is not: reshape to (f(x).numel(), x.numel()).",
            ),
            Misconception(
                _rows,
                "the numbers are right; lay each row out as a vector, with .reshape(-1).",
            ),
            Misconception(
                lambda f, x: _matrix(f, x).cumsum(0),
                "row k is the sum of rows 0 to k: the passes added up in x.grad. Clear it between "
                "them, or use torch.autograd.grad.",
            ),
        ),
        hint="row k is the gradient of entry k of f(x).reshape(-1), laid out as a vector.",
        praise="m entries, m backward passes, m rows.",
    )
)


def _weigh(v: Tensor, matrix: Tensor, x: Tensor) -> Tensor:
    return (v.reshape(-1, 1) * matrix).sum(0).reshape(x.shape)


def _weigh_cases(own: Own) -> list[Case]:
    cases = []
    for text, f, x in _functions():
        v = _counted(f(x))
        cases.append(Case(f"J of {text}, v = 1, 2, 3...", fresh(v, _matrix(f, x), x)))
    return cases


def _counted(out: Tensor) -> Tensor:
    return torch.arange(1.0, out.numel() + 1, dtype=out.dtype).reshape(out.shape)


_WEIGH = Exercise(
    same_function(
        _weigh_cases,
        _weigh,
        (
            Misconception(
                lambda v, J, x: J.sum(0).reshape(x.shape),
                "that gives every row weight 1: v has not been used.",
            ),
            Misconception(
                lambda v, J, x: _weigh(v.t(), J, x),
                "v was transposed before it was laid out. Rows of J are in C order of the output: "
                "v.reshape(-1), as it is.",
            ),
            Misconception(
                lambda v, J, x: (J @ v.reshape(-1)).reshape(x.shape),
                "J v asks for one weight per column; v has one per row, and stands on the left.",
            ),
            Misconception(
                lambda v, J, x: v.reshape(-1) @ J,
                "the numbers are right; lay them out as x, with .reshape(x.shape).",
            ),
        ),
        hint="v belongs to the rows of J, so it stands on the left: v.reshape(-1) @ J.",
        praise="That is all that backward(v) means.",
    ),
    crashes=(("mat1 and mat2", "lay v out as a vector first: v.reshape(-1) @ J."),),
)


def _passes() -> list[tuple[str, pb.BackwardRecord]]:
    a = torch.eye(2, 3, dtype=torch.float64).requires_grad_()
    b = torch.arange(6.0, dtype=torch.float64).reshape(3, 2).requires_grad_()
    programs = [
        ("(a + 1).pow(2).t() @ a", (a + 1).pow(2).t() @ a, {"a": a}),
        ("a * a * a", a * a * a, {"a": a}),
        ("a.t() * b + b", a.t() * b + b, {"a": a, "b": b}),
    ]
    return [
        (text, pb.record(out, _counted(out.detach()), inputs=inputs, keep="tensors"))
        for text, out, inputs in programs
    ]


def _ledger_cases(own: Own) -> list[Case]:
    return [
        Case(f"the record of {text}, {leaf.label}", fresh(record, leaf.key))
        for text, record in _passes()
        for leaf in record.leaves
    ]


def _contributions(record: pb.BackwardRecord, name: str) -> list[Tensor]:
    node = record.leaf(name).node
    assert node is not None
    arrived = [edge.contribution for edge in record.incoming()[node]]
    return [c.values for c in arrived if c is not None and c.values is not None]


_LEDGER = Exercise(
    same_function(
        _ledger_cases,
        lambda record, name: record.deposits[name].clone(),
        (
            Misconception(
                lambda record, name: _contributions(record, name)[0],
                "that is the first contribution alone: a leaf that is used several times is "
                "reached on several paths. Add them up.",
            ),
            Misconception(
                lambda record, name: _contributions(record, name)[-1],
                "that is the last contribution alone: a leaf that is used several times is "
                "reached on several paths. Add them up.",
            ),
            Misconception(
                lambda record, name: sum(c.norm() for c in _contributions(record, name)),
                "norms do not add up, tensors do: edge.contribution.values.",
            ),
            Misconception(
                lambda record, name: record.deposits[0].clone(),
                "that belongs to the first leaf of the record, whatever `name` says.",
            ),
        ),
        hint="record.incoming()[record.leaf(name).node] lists the edges into the leaf; each has "
        "edge.contribution.values.",
        praise="Nothing is lost on the way: a deposit is the sum of what arrived.",
    )
)


def _weighed(f: Function, x: Tensor, v: Tensor) -> Tensor:
    return _weigh(v, _matrix(f, x), x)


def _difference_cases(own: Own) -> list[Case]:
    cases = []
    for text, f, x in _functions():
        v = _counted(f(x)) - 2.5
        cases.append(Case(f"{text}, v = -1.5, -0.5...", fresh(f, x, v)))
    return cases


def _rounded(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """In float32, which lets the comparison allow for what differences are off by."""
    return lambda *args: function(*args).float()


_DIFFERENCES = Exercise(
    same_function(
        _difference_cases,
        _rounded(_weighed),
        (
            Misconception(
                _rounded(lambda f, x, v: 2 * _weighed(f, x, v)),
                "that is twice the derivative: the two points are 2 h apart, so divide by 2 h.",
            ),
            Misconception(
                _rounded(lambda f, x, v: -_weighed(f, x, v)),
                "the sign is turned: it is phi(x + step) - phi(x - step).",
            ),
            Misconception(
                _rounded(lambda f, x, v: _rows(f, x).sum(0)),
                "that is the gradient of f(x).sum(): v has not been used.",
            ),
            Misconception(
                _rounded(lambda f, x, v: _weighed(f, x, v).sum().expand(x.shape)),
                "all entries of x were moved at once. Each needs a wiggle of its own, the others "
                "staying where they are.",
            ),
        ),
        hint="wiggle one entry at a time, to both sides, in float64, with h near 1e-5: to one side "
        "only, the error is of the size of h; a large h sees the curve bend, a tiny one drowns in "
        "rounding.",
        praise="And no graph was needed.",
    )
)


EXERCISES = {
    "row": _ROW,
    "full": _FULL,
    "weigh": _WEIGH,
    "ledger": _LEDGER,
    "differences": _DIFFERENCES,
    "mine": Exercise(judge_mine),
}
