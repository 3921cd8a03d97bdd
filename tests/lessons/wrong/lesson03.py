from __future__ import annotations

import torch

import pullback as pb

from . import Right, Wrong


def by_grad(**options):
    """The answer that asks autograd.grad for every tensor it is given."""

    def answer(out, tensors):
        found = torch.autograd.grad(
            out, list(tensors.values()), torch.ones_like(out), retain_graph=True, **options
        )
        return {name for name, g in zip(tensors, found, strict=True) if g is not None}

    return answer


def by_backward(out, tensors):
    out.backward(torch.ones_like(out), retain_graph=True)
    return {name for name, t in tensors.items() if t.is_leaf and t.grad is not None}


def by_record(out, tensors):
    record = pb.record(out, torch.ones_like(out))
    held = [t for t in tensors.values() if t.is_leaf and t.requires_grad]
    if not held:
        return []
    asked = pb.record(out, torch.ones_like(out), inputs=tensors_that_may(tensors))
    assert asked.conserved
    assert record.conserved
    return list(asked.deposits)


def tensors_that_may(tensors):
    return {k: t for k, t in tensors.items() if t.is_leaf and t.requires_grad}


def not_zero(out, tensors):
    asked = tensors_that_may(tensors)
    if not asked:
        return set()
    found = torch.autograd.grad(out, list(asked.values()), torch.ones_like(out), allow_unused=True)
    return {k for k, g in zip(asked, found, strict=True) if g is not None and g.any()}


def reached_ones(out, tensors):
    asked = {k: t for k, t in tensors.items() if t.requires_grad}
    return by_grad(allow_unused=True)(out, asked) if asked else set()


def retained(values):
    x = torch.tensor(values, dtype=torch.float64, requires_grad=True) / 2
    x.retain_grad()
    return x


def in_place(values):
    x = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    x /= 2
    return x


def recorded(out, tensors):
    asked = {k: t for k, t in tensors.items() if t.is_leaf and t.requires_grad}
    return set(pb.record(out, torch.ones_like(out), inputs=asked).deposits)


WRONG = [
    Wrong(
        "leaf",
        "shifted",
        lambda v: (torch.tensor(v, dtype=torch.float64) / 2 + 1).requires_grad_(),
        "half of `values`",
    ),
    Wrong(
        "receivers",
        "all that require grad",
        lambda o, ts: {k for k, t in ts.items() if t.requires_grad},
        "keeps none",
    ),
    Wrong(
        "receivers",
        "all leaves",
        lambda o, ts: {k for k, t in ts.items() if t.is_leaf},
        "a constant is a leaf",
    ),
    Wrong(
        "receivers",
        "leaves that require grad",
        lambda o, ts: set(tensors_that_may(ts)),
        "not computed from",
    ),
    Wrong("receivers", "computed ones too", reached_ones, "passed on, not kept"),
    Wrong("receivers", "only other than 0", not_zero, "gets zeros, not None"),
    Wrong("receivers", "all", lambda o, ts: set(ts), "is a leaf, requires grad, and"),
    Wrong("receivers", "none", lambda o, ts: set(), "is a leaf, requires grad, and"),
    Wrong(
        "receivers",
        "constants asked for",
        by_grad(allow_unused=True),
        "leave tensors that do not require grad out",
    ),
    Wrong(
        "receivers",
        "unused refused",
        lambda o, ts: by_grad()(o, tensors_that_may(ts)),
        "allow_unused=True",
    ),
    Wrong(
        "receivers",
        "nothing to ask",
        lambda o, ts: by_grad(allow_unused=True)(o, tensors_that_may(ts)),
        "the empty set",
    ),
    Wrong("receivers", "no v", lambda o, ts: o.backward(), "needs a cotangent"),
    Wrong(
        "leaf",
        "as it was",
        lambda v: torch.tensor(v, dtype=torch.float32, requires_grad=True).double() / 2,
        "let the result require grad last",
    ),
    Wrong("leaf", "retain_grad", retained, "an optimizer still refuses"),
    Wrong(
        "leaf",
        "no grad",
        lambda v: torch.tensor(v, dtype=torch.float64) / 2,
        "does not require grad",
    ),
    Wrong("leaf", "float32", lambda v: (torch.tensor(v) / 2).requires_grad_(), "should be float64"),
    Wrong(
        "leaf",
        "not halved",
        lambda v: torch.tensor(v, dtype=torch.float64).requires_grad_(),
        "should be halved",
    ),
    Wrong(
        "leaf",
        "rounded",
        lambda v: (torch.tensor(v, dtype=torch.float32).double() / 2).requires_grad_(),
        "rounded to float32",
    ),
    Wrong(
        "leaf",
        "integers",
        lambda v: (torch.tensor(v, requires_grad=True).double() / 2).detach().requires_grad_(),
        "list of integers",
    ),
    Wrong("leaf", "in place", in_place, "may not be written in place"),
    Wrong("leaf", "list", lambda v: [x / 2 for x in v], "return a tensor"),
    Wrong(
        "receivers",
        "all of them recorded",
        lambda out, ts: set(pb.record(out, torch.ones_like(out), inputs=ts).deposits),
        "leave those out",
    ),
    Wrong("receivers", "nothing recorded", recorded, "the empty set"),
]

RIGHT = [
    Right("receivers", "by backward", by_backward),
    Right("receivers", "by a record", by_record),
    Right(
        "leaf",
        "detached",
        lambda v: (torch.tensor(v, dtype=torch.float64) / 2).detach().requires_grad_(True),
    ),
    Right(
        "leaf",
        "parameter",
        lambda v: torch.nn.Parameter(
            torch.tensor(v).double() / 2 if v != [0.1] else torch.tensor([0.05]).double() * 0 + 0.05
        ),
    ),
    Right(
        "leaf",
        "made anew",
        lambda v: torch.tensor(
            (torch.tensor(v, dtype=torch.float64) / 2).tolist(),
            dtype=torch.float64,
            requires_grad=True,
        ),
    ),
]
