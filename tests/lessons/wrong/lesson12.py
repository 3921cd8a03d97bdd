"""Answers to lesson 12 whose verdict is known."""

from __future__ import annotations

import numpy as np
import torch
from torch.autograd import Function, gradcheck
from torch.autograd.function import once_differentiable

import pullback as pb

from . import Right, Wrong


def _sides(f, x, w, t, h=1e-5):
    moved = (f(x + h * t) - f(x - h * t)) / (2 * h)
    return float((w * moved).sum()), float((pb.vjp(f, x)[1](w)[0] * t).sum())


def dot_test(draw_w=torch.randn_like, draw_t=torch.randn_like, relative=1e-6, absolute=0.0):
    """The dot-product test, with these weights and this much of a gap allowed."""

    def is_adjoint(f, x):
        forward, backward = _sides(f, x, draw_w(f(x)), draw_t(x))
        allowed = absolute + relative * max(abs(forward), abs(backward))
        return abs(forward - backward) <= allowed

    return is_adjoint


def _first(like):
    unit = torch.zeros_like(like)
    unit[(0,) * unit.ndim] = 1
    return unit


def by_jvp(f, x):
    w, t = torch.randn_like(f(x)), torch.randn_like(x)
    forward = (w * pb.jvp(f, (x,), (t,))[1]).sum()
    return bool(torch.isclose(forward, (pb.vjp(f, x)[1](w)[0] * t).sum()))


def by_gradcheck(f, x):
    return gradcheck(f, x.requires_grad_(), raise_exception=False)


def by_matrix(f, x):
    """All of J from forward, weighed with a large random w."""
    steps = 1e-5 * torch.eye(x.numel(), dtype=x.dtype).reshape(-1, *x.shape)
    columns = torch.stack([(f(x + s) - f(x - s)).reshape(-1) / 2e-5 for s in steps])
    w = 10 * torch.randn_like(f(x))
    found = pb.vjp(f, x)[1](w)[0].reshape(-1)
    right = columns @ w.reshape(-1)
    return bool((found - right).abs().max() <= 1e-6 * right.abs().max())


class _Keeps:
    """What the Functions below have in common, where they do not say otherwise."""

    @staticmethod
    def forward(x, s, a):
        return a * x**2 * s[:, None]

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, s, ctx.a = inputs
        ctx.save_for_backward(x, s)


def gain(backward):
    """A Function with that backward, of (ctx, x, s, v)."""

    class Gain(_Keeps, Function):
        @staticmethod
        def backward(ctx, v):
            return backward(ctx, *ctx.saved_tensors, v)

    return Gain


def _parts(ctx, x, s, v):
    return 2 * ctx.a * x * s[:, None] * v, ctx.a * x**2 * v


def _in_place(ctx, x, s, v):
    to_s = (ctx.a * x**2 * v).sum(1)
    v *= 2 * ctx.a * x * s[:, None]
    return v, to_s, None


def _into_row(ctx, x, s, v):
    to_x, to_s = _parts(ctx, x, s, v)
    return to_x, to_s.sum(1), None


class Attributes(_Keeps, Function):
    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.x, ctx.s, ctx.a = inputs

    @staticmethod
    def backward(ctx, v):
        return _into_row(ctx, ctx.x, ctx.s, v)


class HalfSaved(_Keeps, Function):
    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.s, ctx.a = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx, v):
        return _into_row(ctx, *ctx.saved_tensors, ctx.s, v)


class HalfUnpacked(_Keeps, Function):
    @staticmethod
    def setup_context(ctx, inputs, output):
        x, _, ctx.a = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx, v):
        x, s = ctx.saved_tensors
        return _into_row(ctx, x, s, v)


class Slopes(Function):
    @staticmethod
    def forward(ctx, x, s, a):
        ctx.save_for_backward(2 * a * x * s[:, None], a * x**2)
        return a * x**2 * s[:, None]

    @staticmethod
    def backward(ctx, v):
        to_x, to_s = ctx.saved_tensors
        return to_x * v, (to_s * v).sum(1), None


class Once(_Keeps, Function):
    @staticmethod
    @once_differentiable
    def backward(ctx, v):
        return _into_row(ctx, *ctx.saved_tensors, v)


class SavesNumber(_Keeps, Function):
    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, v):
        x, s, ctx.a = ctx.saved_tensors
        return _into_row(ctx, x, s, v)


class OtherForward(_Keeps, Function):
    @staticmethod
    def forward(x, s, a):
        return a * x**2 * s[0]

    @staticmethod
    def backward(ctx, v):
        return _into_row(ctx, *ctx.saved_tensors, v)


class OldForm(Function):
    """Without setup_context, and asking what is needed."""

    @staticmethod
    def forward(ctx, x, s, a):
        ctx.a = a
        ctx.save_for_backward(x, s)
        return torch.einsum("ij,i->ij", a * x * x, s)

    @staticmethod
    def backward(ctx, v):
        x, s = ctx.saved_tensors
        to_x = to_s = None
        if ctx.needs_input_grad[0]:
            to_x = torch.einsum("ij,i,ij->ij", 2 * ctx.a * x, s, v)
        if ctx.needs_input_grad[1]:
            to_s = torch.einsum("ij,ij->i", ctx.a * x * x, v)
        return to_x, to_s, None


class Copies(_Keeps, Function):
    """Attributes again, of copies: no write can reach them."""

    @staticmethod
    def forward(ctx, x, s, a):
        ctx.a = a
        ctx.save_for_backward(x, s)
        return a * x.square() * s.unsqueeze(1)

    setup_context = Function.setup_context

    @staticmethod
    def backward(ctx, v):
        x, s = ctx.saved_tensors
        return 2 * ctx.a * x * s.unsqueeze(1) * v, ctx.a * (x.square() * v).sum(-1), None


def of_one(forward, backward):
    """A Function of one tensor, with ``backward(x, v)``."""

    class One(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return forward(x)

        @staticmethod
        def backward(ctx, v):
            return backward(*ctx.saved_tensors, v)

    return One


X = torch.tensor([0.5, 2.0, -1.0], dtype=torch.float64)
M = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0], [4.0, 0.0, 1.0]], dtype=torch.float64)
SINE = of_one(torch.sin, lambda x, v: x.cos() * v)


def one_off(x, v):
    return x.cos() * v * torch.tensor([1.0, 1.0, 1.1], dtype=v.dtype)


class InNumpy(Function):
    @staticmethod
    def forward(ctx, x, s, a):
        ctx.save_for_backward(x, s)
        ctx.a = a
        return a * x**2 * s[:, None]

    @staticmethod
    def backward(ctx, v):
        x, s = (t.numpy() for t in ctx.saved_tensors)
        of_s = ctx.a * x**2 * v.numpy()
        return 2 * ctx.a * torch.from_numpy(x * s[:, None]) * v, torch.from_numpy(of_s.sum(1)), None


WRONG = [
    Wrong("running", "forward again", lambda v: v.cumsum(0), "forward once more"),
    Wrong(
        "running", "inverse", lambda v: torch.cat([v[:1], v[1:] - v[:-1]]), "that is the *inverse*"
    ),
    Wrong("running", "identity", lambda v: v, "its own y[k]"),
    Wrong("running", "not turned back", lambda v: v.flip(0).cumsum(0), "in reverse order"),
    Wrong("running", "without itself", lambda v: v.flip(0).cumsum(0).flip(0) - v, "begins with v"),
    Wrong("running", "total", lambda v: v.sum(0).expand_as(v), "the adjoint of y = x.sum(0)"),
    Wrong("running", "last axis", lambda v: v.flip(-1).cumsum(-1).flip(-1), "first axis, 0"),
    Wrong("running", "zeros", torch.zeros_like, "to the end of the first axis"),
    Wrong("test", "pb.jvp", by_jvp, "the backward that is on trial"),
    Wrong("test", "always", lambda f, x: True, "a factor 2 went through"),
    Wrong("test", "never", lambda f, x: False, "differences are not exact"),
    Wrong("test", "exact", dot_test(relative=0), "differences are not exact"),
    Wrong("test", "ones for w", dot_test(torch.ones_like), "a permutation went through"),
    Wrong("test", "ones for t", dot_test(draw_t=torch.ones_like), "a permutation went through"),
    Wrong("test", "one entry", dot_test(_first, _first), "off by 1 %"),
    Wrong("test", "wide", dot_test(relative=0.2), "off by 1 %"),
    Wrong("test", "gradcheck", by_gradcheck, "both signs"),
    Wrong("test", "rand", dot_test(torch.rand_like), "both signs"),
    Wrong("test", "small", dot_test(lambda o: torch.rand_like(o) - 0.5), "stayed within [-1, 1]"),
    Wrong("test", "absolute", dot_test(relative=0, absolute=1e-6), "of any size"),
    Wrong("test", "absolute, wider", dot_test(relative=0, absolute=1e-4), "of any size"),
    Wrong("test", "shape of x", dot_test(lambda o: torch.randn(4, 5).double()), "they differ here"),
    Wrong("test", "gap", lambda f, x: 0.0, "True or False"),
    Wrong("function", "not summed", gain(lambda *a: (*_parts(*a), None)), "sum over each row"),
    Wrong(
        "function",
        "columns",
        gain(lambda *a: (_parts(*a)[0], _parts(*a)[1].sum(0), None)),
        "one number per row",
    ),
    Wrong("function", "two returned", gain(lambda *a: _into_row(*a)[:2]), "returns three things"),
    Wrong(
        "function",
        "gradient for a",
        gain(lambda *a: (*_into_row(*a)[:2], _parts(*a)[1].sum())),
        "return None for it",
    ),
    Wrong(
        "function",
        "no a",
        gain(lambda ctx, *a: (*(g / ctx.a for g in _into_row(ctx, *a)[:2]), None)),
        "the factor a is missing",
    ),
    Wrong(
        "function",
        "no 2",
        gain(lambda *a: (_parts(*a)[0] / 2, *_into_row(*a)[1:])),
        "the 2 is missing",
    ),
    Wrong(
        "function",
        "no v",
        gain(lambda ctx, x, s, v: _into_row(ctx, x, s, torch.ones_like(v))),
        "v has not been used",
    ),
    Wrong(
        "function",
        "nothing for s",
        gain(lambda *a: (_parts(*a)[0], None, None)),
        "s gets nothing",
    ),
    Wrong(
        "function",
        "mean",
        gain(lambda *a: (_parts(*a)[0], _parts(*a)[1].mean(1), None)),
        "a mean over the row",
    ),
    Wrong(
        "function",
        "swapped",
        gain(lambda *a: (_into_row(*a)[1], _into_row(*a)[0], None)),
        "the gradient of x comes first",
    ),
    Wrong(
        "function",
        "sign",
        gain(lambda *a: (-_parts(*a)[0], *_into_row(*a)[1:])),
        "s gets a x ** 2 v, summed",
    ),
    Wrong(
        "function",
        "s as a row",
        gain(lambda ctx, x, s, v: (2 * ctx.a * x * s * v, (ctx.a * x**2 * v).sum(1), None)),
        "the column that scales the rows",
    ),
    Wrong("function", "half unpacked", HalfUnpacked, "is not what backward unpacks"),
    Wrong("function", "writes into v", gain(_in_place), "never into it"),
    Wrong("function", "attributes", Attributes, "ctx.save_for_backward"),
    Wrong("function", "half saved", HalfSaved, "s was kept as an attribute"),
    Wrong("function", "slopes", Slopes, "counts as a constant"),
    Wrong("function", "once", Once, "counts as a constant"),
    Wrong("function", "saves a", SavesNumber, "only tensors"),
    Wrong("function", "forward", OtherForward, "forward was given"),
    Wrong("function", "apply", Copies.apply, "the class itself"),
    Wrong("mine", "apply", (SINE.apply, X), "the class itself"),
    Wrong("mine", "float32", (SINE, X.float()), "float64"),
    Wrong(
        "mine", "one number", (of_one(torch.sum, lambda x, v: v.expand_as(x)), X), "at least two"
    ),
    Wrong("mine", "factor", (of_one(torch.sin, lambda x, v: 2 * x.cos() * v), X), "same factor, 2"),
    Wrong("mine", "sign", (of_one(torch.sin, lambda x, v: -x.cos() * v), X), "same factor, -1"),
    Wrong("mine", "transpose", (of_one(lambda x: M @ x, lambda x, v: M @ v), X), "transpose"),
    Wrong(
        "mine", "straight through", (of_one(torch.round, lambda x, v: v), X + 0.2), "useful, but"
    ),
    Wrong("mine", "one entry", (of_one(torch.sin, one_off), X), "weighed with v"),
    Wrong(
        "mine",
        "clipped",
        (of_one(torch.sin, lambda x, v: x.cos() * v.clamp(-1, 1)), X),
        "not linear in v",
    ),
    Wrong("mine", "kink", (of_one(torch.abs, lambda x, v: x.sign() * v), X - 0.5), "off the kink"),
    Wrong("mine", "crash", (of_one(torch.sin, lambda x, v: M[:, :2] @ v), X), "your own code's"),
    Wrong("mine", "nan backward", (of_one(torch.sin, lambda x, v: v * torch.nan), X), "inf or NaN"),
    Wrong("mine", "nan", (of_one(lambda x: x * torch.nan, lambda x, v: v), X), "is finite"),
    Wrong(
        "mine", "writes x", (of_one(lambda x: x.mul_(2), lambda x, v: 2 * v), X), "x is the caller"
    ),
    Wrong(
        "mine", "writes v", (of_one(lambda x: 2 * x, lambda x, v: v.mul_(2)), X), "v is the caller"
    ),
    Wrong("function", "numpy", InNumpy, "leaves no graph"),
]

RIGHT = [
    Right("running", "total less what went before", lambda v: v.sum(0) - v.cumsum(0) + v),
    Right(
        "running",
        "matrix",
        lambda v: torch.tensordot(torch.ones(len(v), len(v)).triu(), v, 1),
    ),
    Right("running", "of torch", lambda v: torch.func.vjp(lambda x: x.cumsum(0), v)[1](v)[0]),
    Right("test", "larger w", dot_test(lambda o: 5 * torch.randn_like(o))),
    Right("test", "whole matrix", by_matrix),
    Right("test", "three draws", lambda f, x: all(dot_test()(f, x) for _ in range(3))),
    Right("function", "old form", OldForm),
    Right("function", "unsqueezed", Copies),
    Right("mine", "sine", (SINE, X)),
    Right("mine", "matrix", (of_one(lambda x: M[:2] @ x, lambda x, v: M[:2].T @ v), X)),
    Right("mine", "constant", (of_one(lambda x: torch.ones_like(x), lambda x, v: 0 * v), X)),
    Right("running", "numpy", lambda v: np.cumsum(v.numpy()[::-1], 0)[::-1]),
]
