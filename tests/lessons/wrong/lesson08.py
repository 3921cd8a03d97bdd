"""Answers to lesson 8 whose verdict is known."""

from __future__ import annotations

import torch

import pullback as pb

from . import Right, Wrong

X = torch.tensor([0.5, 2.0, -1.0], dtype=torch.float64)


def _hot(x, index):
    tangent = torch.zeros_like(x)
    tangent[index] = 1
    return tangent


def _jvp(f, x, t):
    return pb.jvp(f, (x,), (t,))


def _row(f, x, index):
    return pb.vjp(f, x)[1](pb.cotangents.one_hot(f(x), index))[0]


def _no_second_graph(f, x, t):
    x = x.requires_grad_()
    out = f(x)
    u = torch.zeros_like(out, requires_grad=True)
    (back,) = torch.autograd.grad(out, x, u)
    return torch.autograd.grad(back, u, t)[0]


def _weighs_output_with_t(f, x, t):
    x = x.requires_grad_()
    return torch.autograd.grad(f(x), x, t)[0]


def _ones(f, x):
    return pb.vjp(f, x)[1](torch.ones_like(f(x)))[0]


def _diagonal(f, x, t):
    h = torch.func.hessian(f)(x).reshape(x.numel(), x.numel())
    return h.diag().reshape(x.shape) * t


_grad = torch.func.grad


class _Doubled(torch.autograd.Function):
    """A backward that is not the adjoint of its forward mode."""

    @staticmethod
    def forward(x):
        return x.sin()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, v):
        (x,) = ctx.saved_tensors
        return 2 * v * x.cos()

    @staticmethod
    def jvp(ctx, t):
        (x,) = ctx.saved_tensors
        return t * x.cos()


def _overwritten(x):
    y = x.exp()
    y += 1
    return y


class _Cube(torch.autograd.Function):
    """As many have it: without a setup_context, so that torch.func refuses it."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, v):
        return 3 * ctx.saved_tensors[0] ** 2 * v


WRONG = [
    Wrong(
        "column", "ones", lambda f, x, i: _jvp(f, x, torch.ones_like(x))[1], "sum of all columns"
    ),
    Wrong("column", "swapped", lambda f, x, i: _jvp(f, x, _hot(x, i[::-1]))[1], "indices swapped"),
    Wrong("column", "row", _row, "that is a row"),
    Wrong(
        "column",
        "moved there",
        lambda f, x, i: sum(_jvp(f, x, _hot(x, i))),
        "where the outputs get to",
    ),
    Wrong("column", "value", lambda f, x, i: _jvp(f, x, _hot(x, i))[0], "take the second"),
    Wrong("column", "both", lambda f, x, i: _jvp(f, x, _hot(x, i)), "one-hot tangent"),
    Wrong(
        "column",
        "shape of the output",
        lambda f, x, i: _jvp(f, x, _hot(f(x), (0, 0))),
        "how x moves",
    ),
    Wrong("cheaper", "reverse", lambda m, n: "reverse", "not always the one"),
    Wrong("cheaper", "forward", lambda m, n: "forward", "not always the one"),
    Wrong("cheaper", "swapped", lambda m, n: "forward" if m < n else "reverse", "other way around"),
    Wrong(
        "cheaper", "scalar", lambda m, n: "reverse" if m == 1 else "forward", "compare n columns"
    ),
    Wrong("cheaper", "short", lambda m, n: "fwd" if n < m else "rev", '"forward" or "reverse"'),
    Wrong("double", "no graph", _no_second_graph, "must leave a graph"),
    Wrong("double", "t on the output", _weighs_output_with_t, "shape of x"),
    Wrong("double", "one VJP", lambda f, x, t: _ones(f, x), "that is a VJP"),
    Wrong("double", "moved there", lambda f, x, t: sum(_jvp(f, x, t)), "J t alone"),
    Wrong(
        "double", "ones", lambda f, x, t: _jvp(f, x, torch.ones_like(x))[1], "t has not been used"
    ),
    Wrong("double", "value", lambda f, x, t: f(x), "create_graph=True"),
    Wrong("hvp", "diagonal", _diagonal, "the diagonal of H alone"),
    Wrong("hvp", "gradient times t", lambda f, x, t: _grad(f)(x) * t, "the first derivative"),
    Wrong("hvp", "slope", lambda f, x, t: (_grad(f)(x) * t).sum(), "how f changes along t"),
    Wrong("hvp", "gradient", lambda f, x, t: _jvp(_grad(f), x, t)[0], "take the second"),
    Wrong("hvp", "whole step", lambda f, x, t: _grad(f)(x + t) - _grad(f)(x), "the whole step"),
    Wrong("hvp", "t", lambda f, x, t: 2 * t, "of the function torch.func.grad"),
    Wrong("double", "pull of t", lambda f, x, t: pb.vjp(f, x)[1](t)[0], "u has the shape of f(x)"),
    Wrong("hvp", "half", lambda f, x, t: _jvp(_grad(f), x, t)[1] / 2, "no 1/2"),
    Wrong("hvp", "jvp of f", lambda f, x, t: _jvp(f, x, t)[1], "how f changes along t"),
    Wrong("mine", "float32", (torch.sin, X.float(), "reverse"), "float64"),
    Wrong("mine", "word", (torch.sin, X, "fwd"), '"forward" or "reverse"'),
    Wrong("mine", "tall", (lambda x: torch.outer(x, x), X, "reverse"), "forward mode gives"),
    Wrong("mine", "wide", (torch.sum, X, "forward"), "reverse mode gives"),
    Wrong("mine", "backward is another", (_Doubled.apply, X, "forward"), "different functions"),
    Wrong("mine", "two outputs", (lambda x: (x, x), X, "forward"), "one tensor"),
    Wrong("mine", "overwritten", (_overwritten, X, "forward"), "not y += 1"),
    Wrong("mine", "not finite", (lambda x: (-x.exp()).log(), X, "forward"), "finite"),
    Wrong("mine", "whole numbers", (lambda x: x.long(), X, "forward"), "real, finite"),
    Wrong("mine", "cut", (lambda x: x.detach() * 2, X, "forward"), "cut off from x"),
]

RIGHT = [
    Right(
        "column", "torch's forward mode", lambda f, x, i: torch.func.jvp(f, (x,), (_hot(x, i),))[1]
    ),
    Right("column", "of J", lambda f, x, i: torch.func.jacrev(f)(x)[(..., *i)]),
    Right("cheaper", "strict", lambda m, n: "forward" if n < m else "reverse"),
    Right("cheaper", "min", lambda m, n: min([(m, "reverse"), (n, "forward")])[1]),
    Right("double", "forward mode", lambda f, x, t: torch.func.jvp(f, (x,), (t,))[1]),
    Right("double", "pb.jvp", lambda f, x, t: _jvp(f, x, t)[1]),
    Right(
        "double",
        "vjp of vjp",
        lambda f, x, t: torch.func.vjp(torch.func.vjp(f, x)[1], f(x))[1]((t,))[0],
    ),
    Right("hvp", "reverse over reverse", lambda f, x, t: torch.func.vjp(_grad(f), x)[1](t)[0]),
    Right("hvp", "matrix", lambda f, x, t: torch.tensordot(torch.func.hessian(f)(x), t, t.ndim)),
    Right("hvp", "gradient of <g, t>", lambda f, x, t: _grad(lambda y: (_grad(f)(y) * t).sum())(x)),
    Right("mine", "wide", (lambda x: x[:1] * x.sum(), X, "reverse")),
    Right("mine", "square, either", (torch.sin, X, "forward")),
    Right("mine", "square, or", (torch.sin, X, "reverse")),
    Right("mine", "no forward mode", (_Cube.apply, X, "forward")),
]
