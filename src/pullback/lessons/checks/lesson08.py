"""The exercises of lesson 8: Jacobian-vector products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import pullback as pb

from ..._torch import load_forward_mode
from ..checking import (
    Case,
    CrashedError,
    Exercise,
    Misconception,
    Outcome,
    Own,
    called,
    generator,
    right,
    same_function,
    wrong,
)
from ..values import difference, shown
from .several import fresh, given

load_forward_mode()  # a lesson does not begin with torch's warning of its own deprecation

Function = Callable[[Tensor], Tensor]

_MIX = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]], dtype=torch.float64)


def _functions() -> list[tuple[str, Function, Tensor]]:
    """Tall, wide and square; every point is a matrix, so that an index has two numbers."""
    square = torch.tensor([[0.5, -1.0], [1.5, 0.25]]).double()
    wide = torch.arange(1.0, 7.0, dtype=torch.float64).reshape(3, 2) / 4
    return [
        ("f = (x + 10).pow(3).t() at eye(4, 5)", lambda x: (x + 10).pow(3).t(), torch.eye(4, 5)),
        ("f = x.cumsum(0) * x.t() at a (2, 2)", lambda x: x.cumsum(0) * x.t(), square),
        ("f = A @ x.exp(), A (2, 3), at a (3, 2)", lambda x: _MIX @ x.exp(), wide),
        ("f = (x @ x.t()).sin() at a (3, 2)", lambda x: (x @ x.t()).sin(), wide),
    ]


def _columns(f: Function, x: Tensor) -> Tensor:
    """The truth, shape (*out.shape, *x.shape): by reverse mode, where answers go forward."""
    tensor: Tensor = torch.func.jacrev(f)(x.detach())
    return tensor


def _column(f: Function, x: Tensor, index: tuple[int, int]) -> Tensor:
    return _columns(f, x)[(..., *index)]


def _column_cases(own: Own) -> list[Case]:
    return [
        Case(f"{text}, index {index}", fresh(f, x, index))
        for text, f, x in _functions()
        for index in ((1, 0), (0, 1))
    ]


_COLUMN = Exercise(
    same_function(
        _column_cases,
        _column,
        (
            Misconception(
                lambda f, x, index: _columns(f, x).flatten(-2).sum(-1),
                "that is the sum of all columns: every entry of x moved. The tangent is 1 at "
                "`index` and 0 elsewhere.",
            ),
            Misconception(
                lambda f, x, index: _column(f, x, index[::-1]),
                "that is the column of the entry with its indices swapped: `index` counts in x.",
            ),
            Misconception(
                lambda f, x, index: _columns(f, x)[index],
                "that is a row: how the one output f(x)[index] depends on every input. A column "
                "has the shape of f(x).",
            ),
            Misconception(
                lambda f, x, index: f(x) + _column(f, x, index),
                "that is where the outputs get to, f(x) + J t; asked is how they move, J t.",
            ),
            Misconception(
                lambda f, x, index: f(x),
                "that is f(x): a JVP returns (value, motion); take the second.",
            ),
        ),
        hint="a one-hot tangent, 1 at `index`, of the shape of x; then one JVP.",
        praise="A one-hot tangent gives a column.",
    ),
    crashes=(("has shape", "the tangent has the shape of x, since it says how x moves."),),
)

_SHAPES = ((1, 1000), (1000, 1), (200, 3), (3, 200), (20, 20), (5, 6), (6, 5), (1, 1))


def _judge_cheaper(answer: Any, own: Own) -> Outcome:
    came = {(m, n): called(answer, (m, n), f"On ({m}, {n}), it") for m, n in _SHAPES}
    apt = {(m, n): {"forward"} if n < m else {"reverse"} for m, n in _SHAPES if m != n}
    names = {str(word) for word in came.values()}
    if not names <= {"forward", "reverse"}:
        return wrong('the answer is "forward" or "reverse".', f"It gave {sorted(names)}.")
    failing = [shape for shape, allowed in apt.items() if came[shape] not in allowed]
    if not failing:
        return right("n JVPs or m VJPs, whichever are fewer.")
    m, n = failing[0]
    word, other = came[failing[0]], next(iter(apt[failing[0]]))
    told = f"On m = {m}, n = {n}, it gave {word!r}: {max(m, n)} products; {other}: {min(m, n)}."
    if len(names) == 1:
        hint = f"{word} mode is not always the one: it depends on which of m and n is larger."
    elif len(failing) == len(apt):
        hint = "it is the other way around: a JVP gives a column, a VJP a row."
    else:
        hint = "compare n columns, one JVP each, with m rows, one VJP each."
    return wrong(hint, told)


def _pushed(f: Function, x: Tensor, t: Tensor) -> Tensor:
    return (_columns(f, x).flatten(-x.ndim) * t.reshape(-1)).sum(-1)


def _double_cases(own: Own) -> list[Case]:
    draw = generator(8)
    cases = []
    for text, f, x in _functions():
        t = torch.randn(x.shape, generator=draw, dtype=torch.float64).to(x.dtype)
        cases.append(Case(f"{text}, t random", fresh(f, x, t)))
    return cases


_DOUBLE = Exercise(
    same_function(
        _double_cases,
        _pushed,
        (
            Misconception(
                lambda f, x, t: f(x) + _pushed(f, x, t),
                "that is f(x) + J t; asked is J t alone.",
            ),
            Misconception(
                lambda f, x, t: _columns(f, x).flatten(-x.ndim).sum(-1),
                "that is J times ones: t has not been used.",
            ),
            Misconception(
                lambda f, x, t: _vjp_of_output(f, x),
                "that is a VJP, weighing outputs. Differentiate once more: the first VJP, as a "
                "function of its cotangent u, with t as the weights.",
            ),
        ),
        hint="first back = J' u, with create_graph=True, for any u that requires grad; then the "
        "gradient of back with respect to u, weighed with t.",
        praise="Two backward passes make one forward product.",
    ),
    crashes=(
        (
            "does not require grad",
            "the first pass must leave a graph: torch.autograd.grad(..., create_graph=True), with "
            "a cotangent u that requires grad.",
        ),
        ("has shape", "t weighs J' u, which has the shape of x; u has the shape of f(x)."),
        ("Mismatch in shape", "t weighs J' u, which has the shape of x; u that of f(x)."),
    ),
)


def _vjp_of_output(f: Function, x: Tensor) -> Tensor:
    out = f(x)
    return (_columns(f, x).flatten(0, out.ndim - 1)).sum(0)


def _energies() -> list[tuple[str, Function, Tensor]]:
    x = torch.tensor([0.5, -1.0, 2.0, 0.25], dtype=torch.float64)
    return [
        ("f = (x[1:] - x[:-1] ** 2).square().sum()", _rosenbrock, x),
        ("f = x.prod()", torch.prod, x),
        ("f = (x * x).sum().sin()", lambda x: (x * x).sum().sin(), x / 2),
        ("f = (x.t() @ x).exp().sum() at a (2, 2)", _exponential, x.reshape(2, 2) / 2),
    ]


def _rosenbrock(x: Tensor) -> Tensor:
    return (x[1:] - x[:-1] ** 2).square().sum()


def _exponential(x: Tensor) -> Tensor:
    return (x.t() @ x).exp().sum()


def _hessian(f: Function, x: Tensor) -> Tensor:
    """The truth, (n, n): reverse over reverse."""
    tensor: Tensor = torch.func.jacrev(torch.func.jacrev(f))(x.detach())
    return tensor.reshape(x.numel(), x.numel())


def _times_hessian(f: Function, x: Tensor, t: Tensor) -> Tensor:
    return (_hessian(f, x) @ t.reshape(-1)).reshape(x.shape)


def _hvp_cases(own: Own) -> list[Case]:
    cases = []
    for text, f, x in _energies():
        t = torch.linspace(-1, 2, x.numel(), dtype=torch.float64).reshape(x.shape)
        cases.append(Case(f"{text}, t from -1 to 2", fresh(f, x, t)))
    return cases


_HVP = Exercise(
    same_function(
        _hvp_cases,
        _times_hessian,
        (
            Misconception(
                lambda f, x, t: _hessian(f, x).diag().reshape(x.shape) * t,
                "that uses the diagonal of H alone: entries of x act on each other, too.",
            ),
            Misconception(
                lambda f, x, t: torch.func.grad(f)(x) * t,
                "that is the gradient times t, entry by entry: the first derivative. Push t "
                "through the gradient function instead.",
            ),
            Misconception(
                lambda f, x, t: (torch.func.grad(f)(x) * t).sum(),
                "that is <gradient, t>, how f changes along t; asked is how the gradient does.",
            ),
            Misconception(
                lambda f, x, t: torch.func.grad(f)(x),
                "that is the gradient: a JVP returns (value, motion); take the second.",
            ),
            Misconception(
                lambda f, x, t: torch.func.grad(f)(x + t) - torch.func.grad(f)(x),
                "that is the change over the whole step t. H t is its rate at the start: a JVP of "
                "the gradient.",
            ),
            Misconception(
                lambda f, x, t: _times_hessian(f, x, t) / 2,
                "half of it is the second-order term of Taylor's series; H t itself has no 1/2.",
            ),
        ),
        hint="a JVP, with tangent t, of the function torch.func.grad(f).",
        praise="H has never been formed.",
    ),
)


def _judge_mine(answer: Any, own: Own) -> Outcome:
    f, x, mode = given(answer, "my_f", "my_x", "my_mode")
    if not isinstance(x, Tensor) or x.dtype != torch.float64:
        told = f"my_x is {x.dtype if isinstance(x, Tensor) else shown(x)}."
        return wrong("give a float64 tensor.", told)
    x = x.detach().clone()
    out = called(f, (x.clone(),), "On my_x, my_f")
    if not isinstance(out, Tensor) or out.numel() == 0:
        return wrong("my_f returns one tensor.", f"It gave {shown(out)}.")
    if not out.is_floating_point() or not bool(out.isfinite().all()):
        told = f"It gave {shown(out)}, of {out.dtype}."
        return wrong("my_f returns real, finite numbers at my_x.", told)
    m, n = out.numel(), x.numel()
    if mode not in ("forward", "reverse"):
        return wrong('my_mode is "forward" or "reverse".', f"It is {mode!r}.")
    better = "forward" if n < m else "reverse" if m < n else mode
    if mode != better:
        return wrong(
            f"{better} mode gives your Jacobian with fewer products: "
            + ("a JVP is a column." if better == "forward" else "a VJP is a row."),
            f"my_f takes {n} numbers to {m}: {n} JVPs or {m} VJPs.",
        )
    return _adjoint(f, x, out)


def _adjoint(f: Function, x: Tensor, out: Tensor) -> Outcome:
    """<w, J t> and <J' w, t> with J t by forward alone and J' w by the tape."""
    draw = generator(1)
    t = torch.randn(x.shape, generator=draw, dtype=x.dtype)
    w = torch.randn(out.shape, generator=draw, dtype=torch.float64).to(out.dtype)
    try:
        moved = _by_forward(f, x, t)
        there = (w.to(moved.dtype) * moved).sum().detach()
        back = (pb.vjp(f, x.clone())[1](w)[0] * t).sum()
    except Exception as error:
        raise CrashedError(error, "On my_x, forward ran; one of the two products") from error
    if there == 0 and back == 0:
        return wrong(
            "J is zero there: my_f is cut off from x (.detach(), .item()), or flat at my_x.",
            f"For a random w and t, <w, J t> = <J' w, t> = {shown(there)}.",
        )
    if difference(there, back):
        told = f"<w, J t> = {shown(there)}, <J' w, t> = {shown(back)}"
        return wrong(
            "forward and backward see different functions: a custom Function or a hook changes "
            "the backward, or my_f gives other numbers each time.",
            told,
        )
    count = min(x.numel(), out.numel())
    return right(
        f"J has shape ({out.numel()}, {x.numel()}), so {count} products give all of it; and "
        f"<w, J t> = <J' w, t> = {shown(there)} on yours."
    )


def _by_forward(f: Function, x: Tensor, t: Tensor) -> Tensor:
    """J t by torch's forward mode; for what has none, by differences, in the dtype that lets the
    comparison allow for what they are off by."""
    try:
        moved: Tensor = torch.func.jvp(f, (x.clone(),), (t,))[1]
    except Exception:
        with torch.no_grad():
            moved = ((f(x + 1e-6 * t) - f(x - 1e-6 * t)) / 2e-6).float()
    return moved


EXERCISES = {
    "column": _COLUMN,
    "cheaper": Exercise(_judge_cheaper),
    "double": _DOUBLE,
    "hvp": _HVP,
    "mine": Exercise(_judge_mine),
}
