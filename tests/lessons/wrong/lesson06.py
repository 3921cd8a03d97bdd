from __future__ import annotations

import numpy as np
import torch

import pullback as pb

from . import Right, Wrong


def filled(index, value, start=0.0):
    def weigh(out):
        v = torch.full_like(out, start)
        v[index] = value
        return v

    return weigh


def in_place(out):
    v = out.detach()
    v[:] = 0
    v[0] = 1
    return v


def matrix(f, x):
    J = pb.jacobian(f)(x)
    return J.reshape(-1, x.numel())


def ends(t):
    return t.min(), t.max()


def shares(diagonal, other=None, rest=0.0):
    v = torch.full((5, 4), rest)
    v[0, 0] = diagonal
    v[0, 1] = 1 - diagonal if other is None else other
    return v


def by_products(f, x):
    out, _ = pb.vjp(f, x)
    _, sums = pb.jvp(f, (x,), (torch.ones_like(x),))
    assert sums.shape == out.shape
    return float(sums.min()), float(sums.max())


def by_sensitivity(f, x):
    x = x.clone().requires_grad_()
    out = f(x)
    return pb.sensitivity(out, x, {"any": torch.ones_like(out)}).row_sum_range


def every_one_hot(f, x):
    out, pull = pb.vjp(f, x)
    totals = [float(pull(v)[0].sum()) for v in pb.cotangents.basis(out)]
    return min(totals), max(totals)


EXACT = 30 / 63


def with_graph(out):
    v = torch.zeros_like(out, requires_grad=True)
    v[0] = 1
    return v


def heavy_spot(out):
    v = filled(0, 0.75)(out)
    v[(-1,) * v.ndim] = 1
    return v


WRONG = [
    Wrong("first-row", "one heavy spot", heavy_spot, "not entry by entry"),
    Wrong("first-row", "with a graph", with_graph, "needs no graph"),
    Wrong("first-row", "column", filled((slice(None), 0), 1.0), "first column"),
    Wrong("first-row", "uniform", torch.ones_like, "all weights are equal"),
    Wrong("first-row", "last row", filled(-1, 1.0), "index 0 is the first"),
    Wrong(
        "first-row", "second last", filled(slice(-1, None), 1.0, start=0.5), "index 0 is the first"
    ),
    Wrong("first-row", "turned", filled(0, 0.0, start=1.0), "it is turned around"),
    Wrong(
        "first-row",
        "shape of inp",
        lambda out: filled(0, 1.0)(out.t()) if out.ndim == 2 else out,
        "the shape of inp",
    ),
    Wrong("first-row", "one row", lambda out: torch.ones_like(out[0]), "does not broadcast"),
    Wrong("first-row", "one column", lambda out: torch.eye(len(out))[:, :1], "does not broadcast"),
    Wrong("first-row", "scalar", lambda out: torch.tensor(1.0), "does not broadcast"),
    Wrong("first-row", "other shape", lambda out: torch.ones(7, 7), "exactly the shape of out"),
    Wrong(
        "first-row",
        "one entry",
        lambda out: pb.cotangents.one_hot(out, (0,) * out.ndim),
        "only a part of the first row",
    ),
    Wrong(
        "first-row",
        "only matrices",
        lambda out: filled((0, slice(None)), 1.0)(out),
        "may have one axis",
    ),
    Wrong("first-row", "in place", in_place, "wrote into out itself"),
    Wrong("first-row", "nan", lambda out: torch.full_like(out, float("nan")), "finite"),
    Wrong("first-row", "values of out", lambda out: out.detach().clone(), "set v[0] to more"),
    Wrong(
        "first-row",
        "rising",
        lambda out: torch.arange(float(out.numel())).reshape(out.shape),
        "it is turned around",
    ),
    Wrong("first-row", "row of a tensor v", torch.ones(4, 5), "the shape of inp"),
    Wrong("hit", "uniform", torch.full((5, 4), 1 / 20), "share of weight"),
    Wrong("hit", "row", filled(0, 0.25)(torch.zeros(5, 4)), "share of weight"),
    Wrong("hit", "not normalized", torch.ones(5, 4), "divide v by"),
    Wrong("hit", "negative", shares(1.5, -0.5), "negative"),
    Wrong("hit", "total by scale", shares(0.0, 330 / 300), "divide v by"),
    Wrong("hit", "half", shares(0.5), "300 + 63 times that share"),
    Wrong("hit", "turned", shares(EXACT).t(), "the shape of out"),
    Wrong("hit", "text", "330", "a tensor of weights"),
    Wrong("range", "entries", lambda f, x: ends(matrix(f, x)), "entries of J"),
    Wrong("range", "columns", lambda f, x: ends(matrix(f, x).sum(0)), "column sums"),
    Wrong("range", "turned", lambda f, x: by_products(f, x)[::-1], "turned around"),
    Wrong(
        "range", "uniform", lambda f, x: (matrix(f, x).sum(1).mean(),) * 2, "uniform weights only"
    ),
    Wrong("range", "abs", lambda f, x: ends(matrix(f, x).abs().sum(1)), "no abs"),
    Wrong("range", "values", lambda f, x: ends(f(x)), "values of f"),
    Wrong("range", "zero", lambda f, x: (0.0, matrix(f, x).sum(1).max()), "cannot all be zero"),
    Wrong(
        "range",
        "not normalized",
        lambda f, x: (0.0, matrix(f, x).sum()),
        "smallest and the largest row sum",
    ),
    Wrong("hit", "nan", torch.full((5, 4), torch.nan), "finite numbers"),
]

RIGHT = [
    Right("first-row", "rows", lambda out: pb.cotangents.rows(out, {0: 3.0})),
    Right("first-row", "all some weight", filled(0, 1.0, start=0.9)),
    Right("first-row", "negative elsewhere", filled(0, 0.0, start=-1.0)),
    Right("first-row", "normalized", lambda out: pb.cotangents.normalized(filled(0, 1.0)(out))),
    Right(
        "first-row",
        "falling",
        lambda out: torch.arange(float(out.numel()), 0, -1).reshape(out.shape),
    ),
    Right(
        "first-row",
        "boolean",
        lambda out: filled(0, True)(torch.zeros(out.shape, dtype=torch.bool)),
    ),
    Right("first-row", "a tensor for the lesson's out", filled(0, 1.0)(torch.zeros(5, 4))),
    Right("first-row", "a list", lambda out: filled(0, 1.0)(out).tolist()),
    Right("hit", "float64", shares(EXACT).double()),
    Right(
        "hit",
        "spread",
        0.7 * shares(EXACT)
        + 0.3 * (EXACT * torch.eye(5, 4) / 4 + (1 - EXACT) * (1 - torch.eye(5, 4)) / 16),
    ),
    Right("hit", "function", lambda out: shares(EXACT)),
    Right("range", "one product", by_products),
    Right("range", "sensitivity", by_sensitivity),
    Right("range", "every one-hot", every_one_hot),
    Right("hit", "numpy", shares(EXACT).numpy()),
    Right("range", "an array", lambda f, x: np.array([float(end) for end in by_products(f, x)])),
]
