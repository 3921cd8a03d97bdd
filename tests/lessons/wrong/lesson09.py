"""Answers to lesson 9 whose verdict is known."""

from __future__ import annotations

import torch

import pullback as pb

from . import Right, Wrong

X = torch.linspace(-1, 2, 12, dtype=torch.float64)
Z = torch.tensor([1.0, 0.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64)


def dense(f, x):
    return torch.func.jacrev(f)(x)


def tangents(x, colors):
    colors = torch.tensor(colors)
    return [(colors == c).to(x.dtype) for c in range(int(colors.max()) + 1)]


def pushed(f, x, colors):
    return torch.stack([pb.jvp(f, (x,), (t,))[1] for t in tangents(x, colors)], dim=1)


def by_rows(f, x, colors):
    out, pull = pb.vjp(f, x)
    return torch.stack([pull(t)[0] for t in tangents(out, colors[: len(out)])])


def one_of_each(f, x, colors):
    first = [colors.index(c) for c in range(max(colors) + 1)]
    return dense(f, x)[:, first]


def slope(F, d):
    return pb.vjp(F, d)[1](torch.ones_like(d))[0]


class Noisy:
    """Sparse, and another function each time."""

    def __call__(self, x):
        return x * torch.rand_like(x)


WRONG = [
    Wrong("colors", "one", lambda n: [0] * n, "one color for all"),
    Wrong("colors", "two", lambda n: [k % 2 for k in range(n)], "two colors are too few"),
    Wrong("colors", "blocks", lambda n: [k * 3 // n for k in range(n)], "blocks of columns"),
    Wrong("colors", "all", lambda n: list(range(n)), "valid, and wasteful"),
    Wrong("colors", "four", lambda n: [k % 4 for k in range(n)], "valid, and wasteful"),
    Wrong("colors", "zigzag", lambda n: [(0, 1, 2, 1)[k % 4] for k in range(n)], "three colors"),
    Wrong("colors", "count", lambda n: 3, "a list of n whole numbers"),
    Wrong("compress", "transposed", lambda f, x, c: pushed(f, x, c).T, "columns of B"),
    Wrong("compress", "rows", by_rows, "VJPs"),
    Wrong("compress", "one column", one_of_each, "at *all* entries"),
    Wrong("compress", "all of J", lambda f, x, c: dense(f, x), "J itself"),
    Wrong("compress", "sum", lambda f, x, c: dense(f, x).sum(1, keepdim=True), "for each color c"),
    Wrong(
        "read-back",
        "color of the row",
        lambda B, rows, cols, colors: B[rows, colors[rows]],
        "color of the row",
    ),
    Wrong(
        "read-back",
        "modulo",
        lambda B, rows, cols, colors: B[rows, cols % B.shape[1]],
        "modulo k",
    ),
    Wrong("read-back", "columns", lambda B, rows, cols, colors: B[rows, cols], "are the colors"),
    Wrong("read-back", "all", lambda B, rows, cols, colors: B.reshape(-1), "one value per"),
    Wrong("read-back", "sum", lambda B, rows, cols, colors: B[rows].sum(1), "one place of it"),
    Wrong(
        "read-back",
        "swapped",
        lambda B, r, c, colors: B[c % len(B), colors[r % 5]],
        "B[i, colors[j]]",
    ),
    Wrong("lifted", "at x", lambda F, D, x: slope(F, x)[:, None] * D, "that is where"),
    Wrong("lifted", "F alone", lambda F, D, x: slope(F, D @ x).diag(), "D has to follow"),
    Wrong("lifted", "columns of D", lambda F, D, x: D * slope(F, D @ x), "*rows* of D"),
    Wrong("lifted", "vector", lambda F, D, x: D.T @ slope(F, D @ x), "a VJP with ones"),
    Wrong("lifted", "values", lambda F, D, x: F(D @ x)[:, None] * D, "gives the whole diagonal"),
    Wrong("blind", "ones", torch.ones(6), "make one of those 0"),
    Wrong("blind", "origin", torch.zeros(6), "that is the origin"),
    Wrong("blind", "shape", torch.zeros(5), "6 entries"),
    Wrong("blind", "nan", Z / Z * 0, "no points"),
    Wrong("mine", "dense", (lambda x: torch.softmax(x, 0), X), "the pattern is full"),
    Wrong(
        "mine",
        "large blocks",
        (lambda x: x.reshape(2, 6).softmax(1), X),
        "fewer inputs",
    ),
    Wrong("mine", "noise", (Noisy(), X), "other numbers each time"),
    Wrong("mine", "small", (torch.sin, X[:4]), "at least 8 entries"),
    Wrong("mine", "float32", (torch.sin, X.float()), "float64"),
    Wrong("mine", "number", (torch.sum, X), "at least 8 entries"),
    Wrong(
        "mine",
        "constant",
        (lambda x: torch.ones(12, dtype=x.dtype) + 0 * x.detach(), X),
        "no entry of J",
    ),
    Wrong("mine", "not finite", (lambda x: (-x.exp()).log(), X), "where my_f is finite"),
]

RIGHT = [
    Right("colors", "other numbers", lambda n: [(2 * k + 1) % 3 for k in range(n)]),
    Right("colors", "tensor", lambda n: torch.arange(n) % 3),
    Right(
        "colors",
        "found by pullback",
        lambda n: (
            pb.color(
                pb.SparsityPattern.from_torch(torch.ones(n, n).tril(1).triu(-1)), "columns"
            ).colors
        ),
    ),
    Right("compress", "of J", lambda f, x, c: dense(f, x) @ torch.stack(tangents(x, c), dim=1)),
    Right(
        "compress",
        "operator",
        lambda f, x, c: pb.JacobianOperator(f, x) @ torch.stack(tangents(x, c), dim=1),
    ),
    Right(
        "read-back",
        "gather",
        lambda B, rows, cols, colors: B[rows].gather(1, colors[cols][:, None]).squeeze(1),
    ),
    Right(
        "read-back",
        "loop",
        lambda B, rows, cols, colors: [
            float(B[i, colors[j]]) for i, j in zip(rows, cols, strict=True)
        ],
    ),
    Right("lifted", "diag", lambda F, D, x: slope(F, D @ x).diag() @ D),
    Right("lifted", "autograd", lambda F, D, x: dense(lambda t: F(D @ t), x)),
    Right("blind", "list", [0, 0, 0, 0, 0, 1.0]),
    Right("blind", "float32", torch.tensor([1.0, 2, 0, 3, 0, -1])),
    Right("mine", "pointwise", (torch.sin, X)),
    Right("mine", "blocks", (lambda x: (x.reshape(4, 3) ** 2).cumsum(1), X)),
]
