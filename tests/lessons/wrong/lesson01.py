from __future__ import annotations

import math

import torch

import pullback as pb

from . import Right, Wrong


def backward_of(make):
    """An answer that calls backward on what ``make`` returns, and reads ``x.grad``."""

    def answer(f, x, index):
        make(f(x), index).backward()
        return x.grad

    return answer


def on_the_input(f, x, index):
    f(x).sum().backward()
    return torch.zeros_like(x).index_put_(tuple(torch.tensor(i) for i in index), x.grad[index])


WRONG = [
    Wrong("size", "sum", lambda a, b: math.prod(a) + math.prod(b), "multiplied"),
    Wrong("size", "rows only", lambda a, b: math.prod(a), "number of rows"),
    Wrong("size", "columns only", lambda a, b: math.prod(b), "length of one row"),
    Wrong("size", "first axes", lambda a, b: a[0] * b[0], "(5, 4) has 20"),
    Wrong("size", "axes", lambda a, b: len(a) * len(b), "number of axes"),
    Wrong("size", "square", lambda a, b: math.prod(a) ** 2, "a row per output entry"),
    Wrong(
        "size",
        "no axes counted as none",
        lambda a, b: (math.prod(a) if a else 0) * (math.prod(b) if b else 0),
        "shape of no axes",
    ),
    Wrong("size", "text", lambda a, b: "400", "a row per output entry"),
    Wrong("entry", "sum", backward_of(lambda y, i: y.sum()), "all entries added up"),
    Wrong("entry", "row", backward_of(lambda y, i: y[i[0]].sum()), "a whole row"),
    Wrong("entry", "turned", backward_of(lambda y, i: y[i[::-1]]), "turned around"),
    Wrong("entry", "value", lambda f, x, i: f(x)[i], "that is the value"),
    Wrong("entry", "place in the input", on_the_input, "place in the output"),
    Wrong(
        "entry",
        "one entry",
        lambda f, x, i: pb.vjp(f, x)[1](torch.ones_like(f(x)))[0][i],
        "one entry of the sum's gradient",
    ),
    Wrong("entry", "no pick", backward_of(lambda y, i: y), "needs a cotangent"),
    Wrong(
        "entry", "double", lambda f, x, i: 2 * torch.autograd.grad(f(x)[i], x)[0], "a single number"
    ),
    Wrong(
        "entry", "grad before backward", lambda f, x, i: x.grad + f(x)[i], "None until a backward"
    ),
    Wrong("entry", "detached", backward_of(lambda y, i: y[i].detach()), "no graph"),
    Wrong("entry", "own error", lambda f, x, i: f(x)[99, 99], "read the error's last line"),
]

RIGHT = [
    Right("size", "by hand", lambda a, b: math.prod(a) * math.prod(b)),
    Right("size", "float", lambda a, b: float(torch.ones(a).numel() * torch.ones(b).numel())),
    Right(
        "entry",
        "one-hot cotangent",
        lambda f, x, i: pb.vjp(f, x)[1](pb.cotangents.one_hot(f(x), i))[0],
    ),
    Right("entry", "a row of J", lambda f, x, i: pb.jacobian(f)(x)[i]),
    Right("entry", "numpy", lambda f, x, i: torch.func.jacrev(f)(x)[i].detach().numpy()),
]
