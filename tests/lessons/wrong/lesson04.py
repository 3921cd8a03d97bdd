from __future__ import annotations

import torch

import pullback as pb

from . import Right, Wrong


def fresh(before, after=lambda g: g.clone()):
    def answer(out, v, inp):
        before(inp)
        out.backward(v)
        return after(inp.grad)

    return answer


def to_none(inp):
    inp.grad = None


def zero(inp):
    inp.grad.zero_()


def zero_late(out, v, inp):
    out.backward(v)
    inp.grad.zero_()
    return inp.grad.clone()


def unweighed(out, v, inp):
    inp.grad = None
    out.sum().backward(retain_graph=True)
    return inp.grad.clone()


def old_one(out, v, inp):
    old = None if inp.grad is None else inp.grad.clone()
    out.backward(v)
    return inp.grad - inp.grad if old is None else old


def old_first(out, v, inp):
    kept = inp.grad.clone()
    out.backward(v)
    return kept


def subtracted(out, v, inp):
    old = 0 if inp.grad is None else inp.grad.clone()
    out.backward(v)
    return inp.grad - old


def chunked(scale, zero=False, only=None):
    def answer(losses_of, chunks, w):
        for chunk in chunks if only is None else [chunks[only]]:
            if zero:
                w.grad = None
            (losses_of(w, chunk).sum() * scale(chunk, chunks)).backward()
        return w.grad

    return answer


def count(chunks):
    return sum(len(chunk) for chunk in chunks)


def old_if_there(out, v, inp):
    return inp.grad.clone() if inp.grad is not None else torch.autograd.grad(out, inp, v)[0]


WRONG = [
    Wrong("fresh", "old if there", old_if_there, "that is the old gradient"),
    Wrong("fresh", "not zeroed", fresh(lambda inp: None), "the old gradient is still in it"),
    Wrong("fresh", "alias", fresh(to_none, lambda g: g), "Return a clone"),
    Wrong("fresh", "detached alias", fresh(to_none, lambda g: g.detach()), "Return a clone"),
    Wrong("fresh", "None has no zero_", fresh(zero), "if inp.grad is not None"),
    Wrong("fresh", "zeroed after", zero_late, "zero first"),
    Wrong("fresh", "no v", lambda out, v, inp: out.backward(), "needs a cotangent"),
    Wrong("fresh", "ones", unweighed, "v was not used"),
    Wrong("fresh", "old", old_one, "zeroed after the backward"),
    Wrong("fresh", "copied before", old_first, "copy it after"),
    Wrong("fresh", "halved", fresh(to_none, lambda g: g / 2), "start from no gradient"),
    Wrong("chunks", "means", chunked(lambda c, cs: 1 / len(c)), "adds up the mean of each chunk"),
    Wrong(
        "chunks",
        "mean of means",
        chunked(lambda c, cs: 1 / len(c) / len(cs)),
        "share of the samples",
    ),
    Wrong("chunks", "sum", chunked(lambda c, cs: 1.0), "gradient of the sum over all samples"),
    Wrong("chunks", "zeroed", chunked(lambda c, cs: 1 / count(cs), zero=True), "zeroed between"),
    Wrong("chunks", "zeroed, mean", chunked(lambda c, cs: 1 / len(c), zero=True), "zeroed between"),
    Wrong("chunks", "first", chunked(lambda c, cs: 1 / len(c), only=0), "only the first chunk"),
    Wrong(
        "chunks",
        "share too often",
        chunked(lambda c, cs: len(cs) / count(cs)),
        "too much by the number of chunks",
    ),
    Wrong("chunks", "square", chunked(lambda c, cs: 1 / count(cs) ** 2), "give every sample"),
    Wrong("chunks", "no sum", lambda f, cs, w: f(w, cs[0]).backward(), "needs a cotangent"),
]


def with_cotangent(losses_of, chunks, w):
    for chunk in chunks:
        losses = losses_of(w, chunk)
        losses.backward(torch.full_like(losses, 1 / count(chunks)))
    return w.grad


RIGHT = [
    Right("fresh", "autograd.grad", lambda out, v, inp: torch.autograd.grad(out, inp, v)[0]),
    Right(
        "fresh", "a look", lambda out, v, inp: pb.record(out, v, inputs={"x": inp}).deposits["x"]
    ),
    Right("fresh", "guarded zero_", fresh(lambda inp: zero(inp) if inp.grad is not None else None)),
    Right("fresh", "subtracted", subtracted),
    Right(
        "chunks", "at once", lambda f, cs, w: torch.autograd.grad(f(w, torch.cat(cs)).mean(), w)[0]
    ),
    Right("chunks", "share of means", chunked(lambda c, cs: len(c) / count(cs) / len(c))),
    Right("chunks", "cotangent", with_cotangent),
]
