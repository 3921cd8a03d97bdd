"""Answers to lesson 11 whose verdict is known."""

from __future__ import annotations

import numpy as np
import torch

from . import Right, Wrong


def why(
    order="frozen leaf graph reach",
    unused=None,
    empty="zero",
    count=torch.any,
    retain=True,
    ones=True,
):
    """The lesson's verdict, with something wrong about it."""

    def verdict(out, x):
        for step in order.split():
            if step == "frozen" and not x.requires_grad:
                return "frozen"
            if step == "leaf" and not x.is_leaf:
                return "not a leaf"
            if step == "graph" and not out.requires_grad:
                return "no graph"
        v = torch.ones_like(out) if ones else None
        (found,) = torch.autograd.grad(out, x, v, retain_graph=retain, allow_unused=True)
        if found is None:
            return unused or "not reached"
        return "arrives" if count(found) else empty

    return verdict


def by_backward(out, x):
    if not x.requires_grad:
        return "frozen"
    if not x.is_leaf:
        return "not a leaf"
    if not out.requires_grad:
        return "no graph"
    out.backward(torch.ones_like(out), retain_graph=True)
    if x.grad is None:
        return "not reached"
    return "arrives" if x.grad.any() else "zero"


def by_backward_and_back(out, x):
    kind = by_backward(out, x)
    if x.is_leaf:
        x.grad = None
    return kind


def hidden(x):
    y = x.exp()
    y.data += 1
    keep = torch.ones_like(y)
    keep[0] = 0
    return (y * keep) ** 2


def still_in_place(x):
    y = x.exp()
    y += 1
    y[0] = 0.0
    return y * y


def writes_to_the_saved(x):
    y = x.exp() + 1
    z = y * y
    y[0] = 0.0
    z[0] = 0.0
    return z


def first_forgotten(x):
    y = x.exp() + 1
    return y * y


def writes_to_x(x):
    value = (x.exp() + 1) ** 2
    keep = torch.ones_like(value)
    keep[0] = 0
    value = value * keep
    x.data[1] += 0.5
    return value


def broken(x):
    return still_in_place(x.detach())


def masked(x):
    y = x.exp() + 1
    mask = torch.arange(len(x)) > 0
    return torch.where(mask, y * y, 0.0)


def joined(x):
    return torch.cat([torch.zeros(1, dtype=x.dtype), (x[1:].exp() + 1) ** 2])


def sent(node):
    return sum(e.contribution.stats.nonfinite for e in node.edges if e.contribution is not None)


def received(node):
    return sum(c.stats.nonfinite for c in node.upstream if c is not None)


def first(record, holds):
    return next((node.name for node in record.nodes if holds(node)), "nowhere")


def last_sender(record):
    return next((n.name for n in reversed(record.nodes) if sent(n)), "nowhere")


def by_values(record):
    for node in record.nodes:
        if all(c is None or bool(c.values.isfinite().all()) for c in node.upstream):
            parts = [e.contribution for e in node.edges if e.contribution is not None]
            if any(not bool(c.values.isfinite().all()) for c in parts):
                return node.name
    return "nowhere"


def scattered_root(x):
    positive = x > 0
    return torch.zeros_like(x).masked_scatter(positive, x[positive].sqrt())


def indexed_root(x):
    found = torch.zeros_like(x)
    found[x > 0] = x[x > 0].sqrt()
    return found


def mended(x):
    x = x * 1
    x.register_hook(lambda g: torch.nan_to_num(g, 0.0, 0.0))
    return torch.where(x > 0, x.sqrt(), 0.0)


def slope_of_one(x):
    flat = torch.where(x > 0, x, 0.0)
    return flat + (x.detach().clamp(min=0).sqrt() - flat.detach())


def zero_alone(x):
    return torch.where(x == 0, 1.0, x).sqrt() * (x != 0)


def set_behind(x):
    z = (x.exp() + 1) ** 2
    z.data[0] = 0.0
    return z


def with_a_grad(values, scale):
    w = (torch.tensor(values) * scale).requires_grad_()
    w.grad = torch.ones_like(w)
    return w


def written_afterwards(x):
    y = x.clamp(min=0).sqrt()
    y[x <= 0] = 0
    return y


def on_another_leaf(x):
    x = x.detach().requires_grad_()
    return torch.where(x > 0, torch.where(x > 0, x, 1.0).sqrt(), 0.0)


WRONG = [
    Wrong("leaf", "not empty", with_a_grad, "of this backward alone"),
    Wrong("verdict", "frozen", lambda out, x: "frozen", "entries that are not 0 arrives"),
    Wrong("verdict", "none arrives", why(unused="arrives"), "gives None here"),
    Wrong("verdict", "zero arrives", why(empty="arrives"), "a tensor of zeros here"),
    Wrong("in-place", "set behind", set_behind, "its gradient is 0"),
    Wrong("in-place", "no slope", lambda x: broken(x) + 0 * x, "not that of the values"),
    Wrong("safe-root", "slope of one", slope_of_one, "exactly 0 elsewhere"),
    Wrong("safe-root", "picked", lambda x: x[x > 0].sqrt(), "of the shape of x"),
    Wrong("safe-root", "zero alone", zero_alone, "root of a negative number"),
    Wrong(
        "leaf", "computed", lambda v, s: torch.tensor(v, requires_grad=True) * s, "arithmetic first"
    ),
    Wrong("leaf", "plain", lambda v, s: torch.tensor(v) * s, "Ask for that last"),
    Wrong(
        "leaf",
        "detached",
        lambda v, s: (torch.tensor(v, requires_grad=True) * s).detach(),
        "Ask for that last",
    ),
    Wrong("leaf", "not scaled", lambda v, s: torch.tensor(v).requires_grad_(), "scale * values"),
    Wrong(
        "leaf",
        "copied",
        lambda v, s: (torch.tensor(v) * s).requires_grad_().clone(),
        "arithmetic first",
    ),
    Wrong("verdict", "zero for none", why(unused="zero"), "no path is not a gradient of zero"),
    Wrong("verdict", "none for zero", why(empty="not reached"), "a path that multiplies by 0"),
    Wrong("verdict", "sum", why(count=torch.sum), "any entry is not 0"),
    Wrong("verdict", "all", why(count=torch.all), "any entry is not 0"),
    Wrong("verdict", "graph first", why("graph frozen leaf"), "Ask for it earlier"),
    Wrong("verdict", "leaves not asked", why("frozen graph"), "is_leaf is False"),
    Wrong("verdict", "freed", why(retain=False), "retain_graph=True"),
    Wrong("verdict", "backward", by_backward, "writes nothing"),
    Wrong("verdict", "no weights", why(ones=False), "needs a cotangent"),
    Wrong("verdict", "other words", lambda out, x: "None", "the answer is one of"),
    Wrong("verdict", "no graph for unreached", why(unused="no graph"), "does not lead to x"),
    Wrong("in-place", "the same", still_in_place, "overwritten"),
    Wrong("in-place", "hidden", hidden, "hidden from the version counter"),
    Wrong("in-place", "detached", lambda x: still_in_place(x.detach()), "silence the error"),
    Wrong("in-place", "first forgotten", first_forgotten, "the first entry is 0"),
    Wrong("in-place", "after the product", writes_to_the_saved, "Make a new tensor"),
    Wrong("in-place", "writes to x", writes_to_x, "the caller's"),
    Wrong("in-place", "another value", lambda x: x.exp() + 1, "what the broken program computes"),
    Wrong("birthplace", "receiver", lambda r: first(r, received), "its sender made it"),
    Wrong("birthplace", "sender", lambda r: first(r, sent), "passed them on"),
    Wrong("birthplace", "last", last_sender, "born at the first"),
    Wrong("birthplace", "always the root", lambda r: "SqrtBackward0", "in order"),
    Wrong("birthplace", "leaf", lambda r: r.nodes[-1].name, "in order"),
    Wrong("safe-root", "one where", lambda x: torch.where(x > 0, x.sqrt(), 0.0), "comes too late"),
    Wrong("safe-root", "clamp", lambda x: x.clamp(min=0).sqrt(), "slope is infinite"),
    Wrong("safe-root", "shift", lambda x: (x.clamp(min=0) + 1e-6).sqrt(), "Mask, do not shift"),
    Wrong("safe-root", "plain", torch.sqrt, "slope is infinite"),
    Wrong("safe-root", "nan to num", lambda x: torch.nan_to_num(x.sqrt()), "slope is infinite"),
    Wrong("safe-root", "no graph", lambda x: x.detach().clamp(min=0).sqrt(), "no graph"),
    Wrong("safe-root", "one at zero", lambda x: torch.where(x > 0, x, 1.0).sqrt(), "0 elsewhere"),
    Wrong(
        "leaf", "float64", lambda v, s: torch.tensor(v).double().mul(s).requires_grad_(), "float32"
    ),
    Wrong("leaf", "whole", lambda v, s: (torch.tensor(v) * s).requires_grad_(), "whole numbers"),
    Wrong("safe-root", "written afterwards", written_afterwards, "torch.where"),
    Wrong("safe-root", "another leaf", on_another_leaf, "must come from x"),
    Wrong("verdict", "an array", lambda out, x: np.ones(3), "the answer is one of"),
]

RIGHT = [
    Right(
        "leaf", "detach", lambda v, s: (torch.tensor(v).float() * s).detach().requires_grad_(True)
    ),
    Right("leaf", "list", lambda v, s: torch.nn.Parameter(torch.tensor(v).float() * s)),
    Right("verdict", "backward and back", by_backward_and_back),
    Right("verdict", "count", why(count=lambda g: g.count_nonzero() > 0)),
    Right("in-place", "masked", masked),
    Right("in-place", "joined", joined),
    Right("birthplace", "by values", by_values),
    Right("birthplace", "first", lambda r: first(r, lambda n: sent(n) and not received(n))),
    Right("safe-root", "scattered", scattered_root),
    Right("safe-root", "indexed", indexed_root),
    Right("safe-root", "hook", mended),
]
