"""Lesson 2: a VJP as the gradient of a weighed sum, and the cotangent that a loss sends."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..checking import Case, Exercise, Misconception, Own, generator, same_function

Function = Callable[[Tensor], Tensor]


def _mixing(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=generator(1), dtype=torch.float64)


def _vjp_cases(own: Own) -> list[Case]:
    matrix, eye = _mixing(4, 3), torch.eye(4, 5)
    drawn = torch.randn(3, 2, generator=generator(), dtype=torch.float64)
    functions: list[tuple[str, Function, Tensor]] = [
        ("f = (x + 1).pow(2).t(), x = torch.eye(4, 5), v random", _tutorial, eye),
        ("f = M @ x.sin(), M random of 4 x 3, v random", lambda x: matrix @ x.sin(), drawn),
        ("f = x.exp(), x a vector of 3, v random", lambda x: x.exp(), drawn[:, 0]),
        ("f = x.prod(), a single number, v random", lambda x: x.prod(), drawn),
        ("f = x[None] * x[:, None], three axes, v random", lambda x: x[None] * x[:, None], drawn),
    ]

    def case(text: str, f: Function, x: Tensor) -> Case:
        v = torch.randn(f(x).shape, generator=generator(2), dtype=x.dtype)
        return Case(text, lambda: (f, x.clone().requires_grad_(), v.clone()))

    return [case(*each) for each in functions]


def _tutorial(x: Tensor) -> Tensor:
    return (x + 1).pow(2).t()


def _vjp(f: Function, x: Tensor, v: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(f(x), x, v)
    return found


def _of_matrix_product(f: Function, x: Tensor, v: Tensor) -> Tensor:
    (found,) = torch.autograd.grad((v.t() @ f(x)).sum(), x)
    return found


_BY_SUM = Exercise(
    same_function(
        _vjp_cases,
        _vjp,
        (
            Misconception(
                lambda f, x, v: _vjp(f, x, torch.ones_like(v)),
                "v was not used: that is the gradient of f(x).sum(), every weight 1.",
            ),
            Misconception(
                lambda f, x, v: _vjp(f, x, v / v.numel()),
                "that is the gradient of the mean of v * f(x); backward(v) adds up, it does not "
                "divide by the number of entries.",
            ),
            Misconception(
                lambda f, x, v: _vjp(f, x, torch.full_like(v, float(v.sum()))),
                "the sum of v times the sum of f(x) is another number: weigh each entry with its "
                "own weight before you add up.",
            ),
            Misconception(
                _of_matrix_product,
                "v.t() @ f(x) is a matrix of sums over one axis only; multiply entry by entry, "
                "v * f(x), then sum all.",
            ),
            Misconception(
                lambda f, x, v: (v * f(x)).sum(),
                "that is the number v . f(x) itself; its gradient by x is asked for.",
            ),
            Misconception(
                lambda f, x, v: v.t() * _vjp(f, x, torch.ones_like(v)),
                "v weighs the output, not the gradient: that is right only where every output "
                "entry depends on one input entry.",
            ),
            Misconception(
                lambda f, x, v: v * _vjp(f, x, torch.ones_like(v)),
                "v weighs the output, not the gradient: put it in before you differentiate.",
            ),
        ),
        hint="weigh f(x) with v entry by entry, add all entries up, and differentiate that number.",
    ),
    crashes=(
        (
            "element 0 of tensors does not require grad",
            "something on the way to x was detached; f(x) itself has a graph.",
        ),
        (
            "must match the size of tensor",
            "v has the shape of f(x), not of x: multiply it with f(x).",
        ),
    ),
)


def _loss_cases(own: Own) -> list[Case]:
    x = torch.randn(2, 3, generator=generator(), dtype=torch.float64)
    shapes = ((5, 4), (3,), (), (2, 2, 2), (1, 6))

    def case(shape: tuple[int, ...]) -> Case:
        target = torch.randn(shape, generator=generator(3), dtype=torch.float64)

        def make() -> tuple[Tensor, Tensor]:
            leaf = x.clone().requires_grad_()
            return (leaf.sum() * torch.ones(shape, dtype=torch.float64)).sin(), target.clone()

        return Case(f"out and target of shape {shape}, random", make)

    return [case(shape) for shape in shapes]


def _upstream(out: Tensor, target: Tensor) -> Tensor:
    return 2 * (out.detach() - target) / out.numel()


def _scaled(factor: Callable[[Tensor], float]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda out, target: factor(out) * (out.detach() - target)


def _loss(out: Tensor, target: Tensor) -> Tensor:
    return (out.detach() - target).square().mean()


_UPSTREAM = Exercise(
    same_function(
        _loss_cases,
        _upstream,
        (
            Misconception(
                _scaled(lambda out: 2.0),
                "that is the cotangent of the sum of squares; a mean also divides by the number "
                "of entries.",
            ),
            Misconception(
                _scaled(lambda out: 1 / out.numel()),
                "the derivative of a square is twice its base: a factor 2 is missing.",
            ),
            Misconception(
                _scaled(lambda out: -2 / out.numel()),
                "the sign is turned around: more out, where out is above target, is more loss.",
            ),
            Misconception(
                _scaled(lambda out: 2 / out.shape[0]),
                "the mean divides by the number of all entries, out.numel(), not by the number of "
                "rows.",
            ),
            Misconception(
                lambda out, target: torch.ones_like(out),
                "ones would be the cotangent of out.sum(); here the loss weighs each entry with "
                "its own error.",
            ),
            Misconception(
                _loss,
                "that is the loss itself; v is the derivative of the loss by each entry of out.",
            ),
        ),
        hint="v[i, j] is the derivative of the loss by out[i, j], for out and target as they are.",
    ),
    crashes=(("One of the differentiated Tensors", "differentiate by out, which is in the loss."),),
)

EXERCISES: dict[str, Exercise] = {"by-sum": _BY_SUM, "upstream": _UPSTREAM}
