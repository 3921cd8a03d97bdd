"""Answers to lesson 10 whose verdict is known."""

from __future__ import annotations

import torch

import pullback as pb

from . import Right, Wrong


def chosen(out, wet, column=1, weight=1.0):
    v = torch.zeros_like(out)
    v[wet, column] = weight
    return v


def scaled(f, x):
    return pb.jacobian(f)(x) * x


def elastic(f, x):
    return scaled(f, x) / f(x)[:, None]


def by_log(f, x):
    """d log|y| / d log|x|, by autograd alone."""
    return pb.jacobian(lambda z: f(x * z.exp()).abs().log())(torch.zeros_like(x))


def by_columns(f, x):
    eye = torch.eye(len(x), dtype=x.dtype)
    return torch.stack([pb.jvp(f, (x,), (e * x,))[1] / f(x) for e in eye], dim=1)


def gradient(f, x, v):
    return pb.vjp(f, x)[1](v)[0]


def forecast(f, x, v, factors):
    return (gradient(f, x, v) * x * (factors - 1)).sum()


def new_point(f, x, v, factors):
    return (gradient(f, x * factors, v) * x * factors * (factors - 1)).sum()


def new_slope(f, x, v, factors):
    return (gradient(f, x * factors, v) * x * (factors - 1)).sum()


def second_run(f, x, v, factors):
    return (v * (f(x * factors) - f(x))).sum()


X = torch.tensor([20.0, 1.0, 0.5], dtype=torch.float64)


def stop(x):
    return torch.stack([x[0] * x[1], x[0] ** 2 / (20 * x[2])])


def slowing(x):
    """Entry 2 has the steepest slope, entry 1 the largest value, entry 0 the largest response."""
    return x[0] ** 3 + x[1] / 100 + 200 * x[2]


S = torch.tensor([5.0, 100.0, 0.5], dtype=torch.float64)


def falling(x):
    return -10 * x[0] + 2 * x[1] + x[2]


F = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)


def detached(x):
    return x[0].detach() * x[1] + x[0] ** 2


WRONG = [
    Wrong("weigh", "sum", chosen, "ask about the *sum*"),
    Wrong(
        "weigh",
        "both",
        lambda out, wet: pb.cotangents.normalized(wet[:, None] * torch.ones_like(out)),
        "column 0, has weight",
    ),
    Wrong(
        "weigh",
        "both, unweighed",
        lambda out, wet: chosen(out, wet, slice(None), 1 / wet.sum()),
        "column 0, has weight",
    ),
    Wrong(
        "weigh",
        "reaction",
        lambda out, wet: pb.cotangents.normalized(chosen(out, wet, 0)),
        "braking is column 1",
    ),
    Wrong(
        "weigh",
        "all",
        lambda out, wet: pb.cotangents.normalized(chosen(out, wet | True)),
        "mean over all situations",
    ),
    Wrong(
        "weigh", "by n", lambda out, wet: chosen(out, wet) / len(out), "number of all situations"
    ),
    Wrong("weigh", "by 2 n", lambda out, wet: chosen(out, wet) / out.numel(), "of all entries"),
    Wrong(
        "weigh",
        "values",
        lambda out, wet: pb.cotangents.normalized(chosen(out, wet)) * out,
        "v holds weights",
    ),
    Wrong("weigh", "the mean", lambda out, wet: out[wet, 1].mean(), "the mean itself"),
    Wrong(
        "weigh",
        "dry",
        lambda out, wet: chosen(out, ~wet, weight=1 / wet.sum()),
        "how many are wet",
    ),
    Wrong("elasticity", "J", lambda f, x: pb.jacobian(f)(x), "which has units"),
    Wrong("elasticity", "scaled", scaled, "in units of y"),
    Wrong(
        "elasticity",
        "relative",
        lambda f, x: pb.jacobian(f)(x) / f(x)[:, None],
        "for one unit of x",
    ),
    Wrong(
        "elasticity",
        "turned around",
        lambda f, x: pb.jacobian(f)(x) * f(x)[:, None] / x,
        "changed places",
    ),
    Wrong("elasticity", "absolute", lambda f, x: elastic(f, x).abs(), "the sign is lost"),
    Wrong(
        "elasticity",
        "x by rows",
        lambda f, x: pb.jacobian(f)(x) * x[:, None] / f(x)[:, None],
        "belongs to column j",
    ),
    Wrong("elasticity", "y by columns", lambda f, x: scaled(f, x) / f(x), "belongs to row i"),
    Wrong("elasticity", "transposed", lambda f, x: elastic(f, x).T, "this is transposed"),
    Wrong("elasticity", "hundred", lambda f, x: 100 * elastic(f, x), "the two hundreds cancel"),
    Wrong(
        "elasticity",
        "transposed, then divided",
        lambda f, x: scaled(f, x).T / f(x)[:, None],
        "y[i] belongs to row i",
    ),
    Wrong("elasticity", "row sums", lambda f, x: elastic(f, x).sum(1), "J[i, j] * x[j] / y[i]"),
    Wrong("predicted", "second run", second_run, "the true change"),
    Wrong(
        "predicted",
        "no - 1",
        lambda f, x, v, k: (gradient(f, x, v) * x * k).sum(),
        "a factor of 1 is no change",
    ),
    Wrong(
        "predicted",
        "no x",
        lambda f, x, v, k: (gradient(f, x, v) * (k - 1)).sum(),
        "multiply it by x",
    ),
    Wrong(
        "predicted",
        "no factors",
        lambda f, x, v, k: (gradient(f, x, v) * x).sum(),
        "factors have not been used",
    ),
    Wrong(
        "predicted",
        "no v",
        lambda f, x, v, k: forecast(f, x, torch.ones_like(v), k),
        "v has not been used",
    ),
    Wrong(
        "predicted",
        "new value",
        lambda f, x, v, k: (v * f(x)).sum() + forecast(f, x, v, k),
        "the change alone",
    ),
    Wrong("predicted", "new slope", new_slope, "take it at x"),
    Wrong("predicted", "new point", new_point, "take it at x"),
    Wrong(
        "predicted",
        "logarithm",
        lambda f, x, v, k: (gradient(f, x, v) * x * k.log()).sum(),
        "log(factors)",
    ),
    Wrong("predicted", "not summed", lambda f, x, v, k: gradient(f, x, v) * x * (k - 1), "one VJP"),
    Wrong("predicted", "factors for v", lambda f, x, v, k: gradient(f, x, k), "belongs to x"),
    Wrong("mine", "steepest", (slowing, S, 2), "the steepest slope"),
    Wrong("mine", "largest", (slowing, S, 1), "the largest entry of x"),
    Wrong("mine", "sign", (falling, F, 1), "a decrease is a change"),
    Wrong("mine", "other", (lambda x: 10 * x[0] + x[1] ** 3 + x[2], F.flip(0), 2), "abs(x"),
    Wrong("mine", "float32", (slowing, S.float(), 0), "float64"),
    Wrong("mine", "zero", (slowing, S * torch.tensor([1, 0, 1]), 0), "without zeros"),
    Wrong("mine", "position", (slowing, S, 3), "from 0 to 2"),
    Wrong("mine", "constant", (lambda x: 0 * x + 1, S, 0), "does not move"),
    Wrong("mine", "number", (lambda x: 3.0, S, 0), "your own code's"),
    Wrong("mine", "detached", (detached, X[:2], 0), "autograd has other slopes"),
    Wrong("mine", "infinite", (lambda x: x / 0, S, 0), "no finite value"),
]

RIGHT = [
    Right("weigh", "mask", lambda out, wet: chosen(out, wet) / wet.sum()),
    Right(
        "weigh",
        "by autograd",
        lambda out, wet: torch.func.grad(lambda o: o[wet, 1].mean())(out),
    ),
    Right("elasticity", "logarithms", by_log),
    Right("elasticity", "columns", by_columns),
    Right(
        "predicted", "forward", lambda f, x, v, k: (v * pb.jvp(f, (x,), (x * (k - 1),))[1]).sum()
    ),
    Right("predicted", "number", lambda f, x, v, k: float(forecast(f, x, v, k))),
    Right("mine", "stop", (stop, X, 0)),
    Right("mine", "slowing", (slowing, S, 0)),
    Right("mine", "tie", (lambda x: x[0] * x[1], F[:2], 1)),
    Right("mine", "falling", (falling, F, 0)),
]
