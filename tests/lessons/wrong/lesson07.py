"""Answers to lesson 7 whose verdict is known."""

from __future__ import annotations

import torch

import pullback as pb

from . import Right, Wrong

V = torch.tensor([1.0, 2.0], dtype=torch.float64)
X = torch.tensor([0.5, 2.0], dtype=torch.float64)


def _pulled(f, x, v):
    return pb.vjp(f, x)[1](v)[0]


def _accumulated(f, x, index):
    f(x)[index].backward()
    return x.grad


def _full(f, x):
    return pb.jacobian(f)(x).reshape(-1, x.numel())


def _accumulated_rows(f, x):
    x.requires_grad_()
    out, rows = f(x), []
    for entry in out.reshape(-1):
        entry.backward(retain_graph=True)
        rows.append(x.grad.reshape(-1).clone())
    return torch.stack(rows)


def _freed(f, x):
    x.requires_grad_()
    out = f(x).reshape(-1)
    return torch.stack([torch.autograd.grad(entry, x)[0].reshape(-1) for entry in out])


def _arrived(record, name):
    return [e.contribution.values for e in record.incoming()[record.leaf(name).node]]


def _wiggled(f, x, v, h=1e-5, both=True, divide=2.0):
    steps = torch.eye(x.numel(), dtype=x.dtype).reshape(-1, *x.shape) * h
    ends = [(f(x + s), f(x - s) if both else f(x)) for s in steps]
    return torch.stack([(v * (a - b)).sum() / (divide * h) for a, b in ends]).reshape(x.shape)


def _at_once(f, x, v):
    h = torch.full_like(x, 1e-5)
    return ((v * (f(x + h) - f(x - h))).sum() / 2e-5).expand(x.shape)


def _detached(x):
    return x * x.detach()


class _Noisy:
    def __call__(self, x):
        return x * torch.rand(())


def _overwritten(x):
    y = x.exp()
    y += 1
    return y


WRONG = [
    Wrong("row", "ones", lambda f, x, i: _pulled(f, x, torch.ones_like(f(x))), "sum of all rows"),
    Wrong(
        "row",
        "swapped",
        lambda f, x, i: _pulled(f, x, pb.cotangents.one_hot(f(x), i[::-1])),
        "swapped",
    ),
    Wrong(
        "row",
        "value",
        lambda f, x, i: _pulled(f, x, pb.cotangents.one_hot(f(x), i) * f(x)[i]),
        "not values of f(x)",
    ),
    Wrong("row", "accumulated", _accumulated, "backward accumulates"),
    Wrong(
        "row",
        "column",
        lambda f, x, i: pb.jvp(f, (x,), (torch.ones_like(x),))[1],
        "one-hot cotangent",
    ),
    Wrong("row", "no cotangent", lambda f, x, i: f(x).backward(), "needs a cotangent"),
    Wrong("full", "transposed", lambda f, x: _full(f, x).T, "J transposed"),
    Wrong("full", "four axes", lambda f, x: pb.jacobian(f)(x), "reshape to"),
    Wrong(
        "full",
        "rows not laid out",
        lambda f, x: _full(f, x).reshape(-1, *x.shape),
        "lay each row out",
    ),
    Wrong("full", "accumulated", _accumulated_rows, "Clear it between"),
    Wrong("full", "freed", _freed, "retain_graph=True"),
    Wrong("full", "one row", lambda f, x: _full(f, x)[:1], "row k is the gradient"),
    Wrong("weigh", "unweighed", lambda v, J, x: J.sum(0).reshape(x.shape), "v has not been used"),
    Wrong(
        "weigh",
        "transposed",
        lambda v, J, x: (v.t().reshape(-1) @ J).reshape(x.shape),
        "v was transposed",
    ),
    Wrong("weigh", "flat", lambda v, J, x: v.reshape(-1) @ J, "lay them out as x"),
    Wrong("weigh", "J v", lambda v, J, x: (J @ v.reshape(-1)).reshape(x.shape), "on the left"),
    Wrong("weigh", "v as it is", lambda v, J, x: v @ J, "lay v out as a vector"),
    Wrong(
        "weigh",
        "elementwise",
        lambda v, J, x: (v.reshape(-1, 1) * J).mean(0).reshape(x.shape),
        "on the left",
    ),
    Wrong("ledger", "first", lambda r, n: _arrived(r, n)[0], "first contribution alone"),
    Wrong("ledger", "last", lambda r, n: _arrived(r, n)[-1], "last contribution alone"),
    Wrong(
        "ledger", "norms", lambda r, n: sum(c.norm() for c in _arrived(r, n)), "norms do not add up"
    ),
    Wrong("ledger", "first leaf", lambda r, n: r.deposits[0], "whatever `name` says"),
    Wrong(
        "ledger",
        "upstream of the output",
        lambda r, n: r.outputs[0].cotangent.values,
        "lists the edges",
    ),
    Wrong("differences", "by h", lambda f, x, v: _wiggled(f, x, v, divide=1.0), "divide by 2 h"),
    Wrong(
        "differences",
        "sign",
        lambda f, x, v: _wiggled(f, x, v, h=-1e-5, divide=-2.0),
        "sign is turned",
    ),
    Wrong(
        "differences",
        "no v",
        lambda f, x, v: _wiggled(f, x, torch.ones_like(v)),
        "v has not been used",
    ),
    Wrong("differences", "all at once", _at_once, "wiggle of its own"),
    Wrong(
        "differences",
        "one side, large",
        lambda f, x, v: _wiggled(f, x, v, 1e-2, both=False, divide=1.0),
        "to one side",
    ),
    Wrong(
        "differences", "too small", lambda f, x, v: _wiggled(f, x, v, h=1e-15), "drowns in rounding"
    ),
    Wrong("mine", "float32", (torch.sin, X.float(), V.float()), "float64"),
    Wrong("mine", "one entry", (torch.sum, X, torch.ones((), dtype=torch.float64)), "no matrix"),
    Wrong("mine", "noise", (_Noisy(), X, V), "other numbers each time"),
    Wrong("mine", "shape of v", (torch.sin, X, V[:1]), "the same shape"),
    Wrong("mine", "no graph", (lambda x: x.detach() * 2, X, V), "sees no x at all"),
    Wrong("mine", "cut", (_detached, X, V), "cut off from"),
    Wrong("mine", "kink", (torch.relu, X * 0, V), "kink"),
    Wrong("mine", "overwritten", (_overwritten, X, V), "not y += 1"),
    Wrong("mine", "not finite", (lambda x: (-x.exp()).log(), X, V), "where my_f is finite"),
    Wrong("mine", "weights not finite", (torch.sin, X, V * torch.nan), "finite numbers"),
    Wrong("mine", "complex", (lambda x: x * 1j, X, V), "real numbers"),
    Wrong("mine", "no entries", (lambda x: V * x.sum(), X[:0], V), "at least one"),
]

RIGHT = [
    Right("row", "of the entry", lambda f, x, i: torch.autograd.grad(f(x)[i], x)[0]),
    Right("row", "of J", lambda f, x, i: torch.func.jacfwd(f)(x.detach())[i]),
    Right(
        "row",
        "record",
        lambda f, x, i: pb.record(f(x), pb.cotangents.one_hot(f(x), i), inputs={"x": x}).deposits[
            "x"
        ],
    ),
    Right("full", "pb.jacobian", _full),
    Right("full", "forward", lambda f, x: torch.func.jacfwd(f)(x).reshape(-1, x.numel())),
    Right(
        "full",
        "by columns",
        lambda f, x: pb.JacobianOperator(f, x) @ torch.eye(x.numel(), dtype=x.dtype),
    ),
    Right("weigh", "transposed product", lambda v, J, x: (J.T @ v.flatten()).view_as(x)),
    Right(
        "weigh",
        "sum of weighed rows",
        lambda v, J, x: sum(w * r for w, r in zip(v.flatten(), J, strict=True)).reshape(x.shape),
    ),
    Right("weigh", "numpy", lambda v, J, x: (v.numpy().reshape(-1) @ J.numpy()).reshape(x.shape)),
    Right("ledger", "deposit", lambda r, n: r.deposits[n]),
    Right("ledger", "upstream", lambda r, n: r.nodes[r.leaf(n).node].upstream[0].values),
    Right(
        "ledger",
        "edges of all nodes",
        lambda r, n: sum(
            e.contribution.values
            for node in r.nodes
            for e in node.edges
            if e.target == r.leaf(n).node
        ),
    ),
    Right(
        "differences",
        "small steps to one side",
        lambda f, x, v: _wiggled(f, x, v, 1e-7, both=False, divide=1.0),
    ),
    Right("differences", "autograd", _pulled),
    Right("differences", "other h", lambda f, x, v: _wiggled(f, x, v, h=1e-4)),
    Right(
        "mine",
        "matrix function",
        (lambda x: x.outer(x).exp(), X, torch.ones(2, 2, dtype=torch.float64)),
    ),
    Right("mine", "negative weights", (lambda x: x.cumsum(0).sin(), X, -V)),
    Right("mine", "v of another dtype", (torch.sin, X, V.float())),
]
