from __future__ import annotations

import torch

import pullback as pb

from . import Right, Wrong


def grad_of(number):
    """The answer that differentiates ``number(f(x), v)``."""

    def answer(f, x, v):
        number(f(x), v).backward()
        return x.grad

    return answer


def by_matrix(f, x, v):
    J = pb.jacobian(f)(x.detach()).reshape(v.numel(), x.numel())
    return (v.reshape(-1) @ J).reshape(x.shape)


def row_by_row(f, x, v):
    total = torch.zeros_like(x)
    for place in [tuple(i) for i in torch.ones_like(v).nonzero().tolist()]:
        total = total + v[place] * torch.autograd.grad(f(x)[place], x)[0]
    return total.detach()


def with_graph(out, target):
    leaf = out.detach().requires_grad_()
    return torch.autograd.grad(((leaf - target) ** 2).mean(), leaf)[0]


def of_kept(out, target):
    out.retain_grad()
    (out - target).square().mean().backward()
    return out.grad


WRONG = [
    Wrong(
        "by-sum",
        "weighed gradient",
        lambda f, x, v: v * grad_of(lambda y, _: y.sum())(f, x, v),
        "put it in before",
    ),
    Wrong(
        "upstream",
        "by target",
        lambda y, t: torch.autograd.grad(((y - t) ** 2).mean(), t)[0],
        "differentiate by out",
    ),
    Wrong("by-sum", "sum", grad_of(lambda y, v: y.sum()), "v was not used"),
    Wrong("by-sum", "mean", grad_of(lambda y, v: (v * y).mean()), "does not divide"),
    Wrong("by-sum", "sums", grad_of(lambda y, v: v.sum() * y.sum()), "its own weight"),
    Wrong("by-sum", "value", lambda f, x, v: (v * f(x)).sum(), "v . f(x) itself"),
    Wrong("by-sum", "matrix product", grad_of(lambda y, v: (v.t() @ y).sum()), "entry by entry"),
    Wrong(
        "by-sum",
        "transposed",
        lambda f, x, v: v.t() * grad_of(lambda y, _: y.sum())(f, x, v),
        "only where every output entry",
    ),
    Wrong("by-sum", "no weight", grad_of(lambda y, v: y), "needs a cotangent"),
    Wrong(
        "by-sum",
        "weighed input",
        lambda f, x, v: torch.autograd.grad(f(v * x).sum(), x)[0],
        "shape of f(x), not of x",
    ),
    Wrong("by-sum", "detached", grad_of(lambda y, v: (v * y.detach()).sum()), "was detached"),
    Wrong("by-sum", "doubled", lambda f, x, v: 2 * by_matrix(f, x, v), "add all entries up"),
    Wrong("by-sum", "tuple", lambda f, x, v: torch.autograd.grad(f(x), x, v), "add all entries up"),
    Wrong("by-sum", "nothing written", lambda f, x, v: x.grad + v, "None until a backward"),
    Wrong("upstream", "sum of squares", lambda y, t: 2 * (y - t), "divides by the number"),
    Wrong("upstream", "no two", lambda y, t: (y - t) / y.numel(), "a factor 2"),
    Wrong("upstream", "sign", lambda y, t: 2 * (t - y) / y.numel(), "turned around"),
    Wrong(
        "upstream",
        "rows",
        lambda y, t: 2 * (y - t) / (y.shape[0] if y.ndim else 1),
        "number of rows",
    ),
    Wrong("upstream", "rows, no axis", lambda y, t: 2 * (y - t) / y.shape[0], "number of rows"),
    Wrong("upstream", "ones", lambda y, t: torch.ones_like(y), "cotangent of out.sum()"),
    Wrong("upstream", "loss", lambda y, t: ((y - t) ** 2).mean(), "the loss itself"),
    Wrong(
        "upstream", "square", lambda y, t: (y - t) ** 2 / y.numel(), "the derivative of the loss"
    ),
]

RIGHT = [
    Right("by-sum", "backward(v)", lambda f, x, v: torch.autograd.grad(f(x), x, v)[0]),
    Right("by-sum", "pb.vjp", lambda f, x, v: pb.vjp(f, x)[1](v)[0]),
    Right("by-sum", "matrix", by_matrix),
    Right("by-sum", "row by row", row_by_row),
    Right("by-sum", "flattened", grad_of(lambda y, v: v.reshape(-1) @ y.reshape(-1))),
    Right("upstream", "with its graph", lambda y, t: 2 * (y - t) / y.numel()),
    Right("upstream", "differentiated", with_graph),
    Right("upstream", "numpy", lambda y, t: (2 * (y - t) / y.numel()).detach().numpy()),
    Right("upstream", "numpy", lambda out, t: 2 * (out.detach() - t).numpy() / out.numel()),
    Right("upstream", "kept", of_kept),
]
