from __future__ import annotations

import torch

import pullback as pb

from . import Right, Wrong


def by_backward(reset, copy, retain=True):
    def answer(out, inp, vs):
        found = []
        for v in vs:
            reset(inp)
            out.backward(v, retain_graph=retain)
            found.append(copy(inp.grad))
        return found

    return answer


def to_none(x):
    x.grad = None


def to_zero(x):
    if x.grad is not None:
        x.grad.zero_()


def keep(x):
    pass


def same(g):
    return g


def freed_last(out, inp, vs):
    return [
        torch.autograd.grad(out, inp, v, retain_graph=k < len(vs) - 1)[0] for k, v in enumerate(vs)
    ]


def put_back(out, inp, vs):
    old = inp.grad
    inp.grad = None
    found = by_backward(to_none, torch.clone)(out, inp, vs)
    inp.grad = old
    return found


def batched(out, inp, vs):
    return torch.autograd.grad(out, inp, torch.stack(vs), retain_graph=True, is_grads_batched=True)[
        0
    ]


def by_sensitivity(out, inp, vs):
    found = pb.sensitivity(out, inp, {str(k): v for k, v in enumerate(vs)})
    return tuple(found.grads.values())


def steps(cut=lambda h: h.detach(), reset=to_none, copy=same, loss=lambda h: h**2, **options):
    def answer(w, xs):
        h = torch.zeros(())
        found = []
        for x in xs:
            h = torch.tanh(w * cut(h) + x)
            reset(w)
            loss(h).backward(**options)
            found.append(copy(w.grad))
        return found

    return answer


def cut_too_early(w, xs):
    h = torch.zeros(())
    found = []
    for x in xs:
        h = torch.tanh(w * h + x).detach()
        (h**2).backward()
        found.append(w.grad)
    return found


def zeroed_after(w, xs):
    h = torch.zeros(())
    found = []
    for x in xs:
        h = torch.tanh(w * h.detach() + x)
        (h**2).backward()
        found.append(w.grad)
        w.grad.zero_()
    return found


RETAIN = {"retain_graph": True}

WRONG = [
    Wrong(
        "several", "no retain", by_backward(to_none, same, retain=False), "freed what the second"
    ),
    Wrong("several", "accumulated", by_backward(keep, torch.clone), "ones before it added in"),
    Wrong("several", "accumulated alias", by_backward(keep, same), "the same tensor"),
    Wrong("several", "zeroed alias", by_backward(to_zero, same), "the same tensor"),
    Wrong("several", "grad changed", by_backward(to_none, torch.clone), "inp.grad was changed"),
    Wrong("several", "freed", freed_last, "retain it in the last call"),
    Wrong(
        "several",
        "sum",
        lambda o, i, vs: torch.autograd.grad(o, i, sum(vs), retain_graph=True)[0],
        "sum of all products",
    ),
    Wrong(
        "several",
        "detached",
        lambda o, i, vs: [torch.autograd.grad(o.detach(), i, v)[0] for v in vs],
        "has no graph",
    ),
    Wrong(
        "several",
        "ones",
        lambda o, i, vs: [torch.autograd.grad(o.sum(), i, retain_graph=True)[0] for v in vs],
        "that v alone",
    ),
    Wrong("steps", "as it was", steps(cut=same, reset=keep), "h.detach()"),
    Wrong("steps", "retained", steps(cut=same, **RETAIN), "flows through all steps before"),
    Wrong(
        "steps",
        "retained, not reset",
        steps(cut=same, reset=keep, copy=torch.clone, **RETAIN),
        "the past is in it twice",
    ),
    Wrong("steps", "not reset", steps(reset=keep, copy=torch.clone), "gradients of earlier steps"),
    Wrong("steps", "not reset, alias", steps(reset=keep), "with everything added up"),
    Wrong("steps", "zeroed alias", steps(reset=to_zero), "append a clone"),
    Wrong("steps", "zeroed after", zeroed_after, "every gradient is 0"),
    Wrong("steps", "h reset", steps(cut=lambda h: h.detach() * 0), "every gradient is 0"),
    Wrong("steps", "gradient of h", steps(loss=lambda h: h), "the loss of a step is"),
    Wrong("steps", "cut before backward", cut_too_early, "until backward has run"),
    Wrong("steps", "half", steps(loss=lambda h: h**2 / 2.5), "in each step"),
]


def by_hand(w, xs):
    h, found = 0.0, []
    for x in xs.tolist():
        before, h = h, float(torch.tanh(w.detach() * h + x))
        found.append(2 * h * (1 - h * h) * before)
    return found


def with_autograd(w, xs):
    h, found = torch.zeros(()), []
    for x in xs:
        h = torch.tanh(w * h.detach() + x)
        found += torch.autograd.grad(h**2, w)
    return torch.stack(found)


RIGHT = [
    Right("several", "put back", put_back),
    Right("several", "batched", batched),
    Right("several", "sensitivity", by_sensitivity),
    Right("steps", "by hand", by_hand),
    Right("steps", "autograd.grad", with_autograd),
    Right("steps", "clone", steps(reset=to_zero, copy=torch.clone)),
]
