# %% [markdown]
# # 12. Your own Function
#
# Sometimes torch cannot see what you compute: a solver in NumPy, a kernel in C, a formula that is
# only stable when written by hand. Then you write a `torch.autograd.Function`: the forward, and the
# backward beside it. From that moment on, *you* are the chain rule at this node. Nobody checks your
# backward. This lesson shows what it has to be, and how to prove that it is.

# %%
import numpy as np
import torch
from torch.autograd import Function, gradcheck, gradgradcheck

import pullback as pb
from pullback.lessons import open_lesson

lesson = open_lesson(12)

# %% [markdown]
# ## Two methods
#
# Here is `(x + 10).pow(3).t()` once more, as one node instead of three. `forward` also saves what
# `backward` will need. v has the shape of the *output*; backward returns what belongs to the
# *input*.


# %% code cubed
class Cubed(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x + 10).pow(3).t()

    @staticmethod
    def backward(ctx, v):
        (x,) = ctx.saved_tensors
        return 3 * (x + 10).pow(2) * v.t()


inp = torch.eye(4, 5, requires_grad=True)
out = Cubed.apply(inp)
first = pb.cotangents.rows(out, {0: 1.0})
record = pb.record(out, first, inputs={"inp": inp})
print(record)
print("column 0:", record.deposits["inp"][:, 0].tolist())

# %% [markdown]
# Column 0 of `inp` gets 363, 300, 300, 300, as before. A second Function has the same forward, but
# a factor 2 has slipped into its backward. Torch has no opinion on that:


# %% code doubled
class Doubled(Cubed):
    @staticmethod
    def backward(ctx, v):
        return 2 * Cubed.backward(ctx, v)


(came,) = torch.autograd.grad(Doubled.apply(inp), inp, first)
print("column 0:", came[:, 0].tolist())

# %% proof doubled
by_torch = torch.autograd.grad((inp + 10).pow(3).t(), inp, first)[0]
assert torch.equal(record.deposits["inp"], by_torch)
assert by_torch[:, 0].tolist() == [363, 300, 300, 300]

# %% [markdown]
# ## What backward has to be
#
# Forward has a Jacobian J at x, written down or not. Backward must return `J' v`, for every v. The
# map `v -> J' v` is called the **adjoint** of `t -> J t`.
#
# Not the inverse! If forward adds things up, backward hands v to each of them.

# %% exercise running [markdown]
# **Exercise.** Forward is the running sum along the first axis, `y = x.cumsum(0)`. Write its
# backward, `running_backward(v)`. v may have any number of axes. Ask for each `x[k]`: in which y
# does it take part?


# %% solution running
def running_backward(v):
    return v.flip(0).cumsum(0).flip(0)


# %% check running
lesson.check("running", running_backward)

# %% [markdown]
# ## The dot-product test
#
# Lesson 8 had the adjoint identity: `<w, J t> = <J' w, t>`, for every w and t. The right side is
# your backward. For the left side you need a witness that does *not* know your backward: central
# differences call forward alone.


# %% code sides
def two_sides(f, x, w, t, h=1e-5):
    moved = (f(x + h * t) - f(x - h * t)) / (2 * h)
    _, pull = pb.vjp(f, x)
    return float((w * moved).sum()), float((pull(w)[0] * t).sum())


x = inp.detach().double()
w, t = torch.randn(2, 20, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
w, t = w.reshape(5, 4), t.reshape(4, 5)
sides = {one.__name__: two_sides(one.apply, x, w, t) for one in (Cubed, Doubled)}
for name, (forward, backward) in sides.items():
    print(f"{name:8} <w, J t> = {forward:.6f}   <J' w, t> = {backward:.6f}")

# %% proof sides
np.testing.assert_allclose(sides["Cubed"][0], sides["Cubed"][1], rtol=1e-8)
np.testing.assert_allclose(2 * sides["Doubled"][0], sides["Doubled"][1], rtol=1e-8)

# %% predict witness [markdown]
# **Predict.** Two forward calls and one backward, and there stands the factor 2. Now a more elegant
# witness: `pb.jvp` gives `J t` to the last digit, without differences. Put it on the left side of
# the test. What does the test say about `Doubled`?
#
# - a) it still finds the factor 2
# - b) both sides agree, and the mistake goes through

# %% reveal witness
_, exact = pb.jvp(Doubled.apply, (x,), (t,))
elegant, backward = float((w * exact).sum()), sides["Doubled"][1]
print(f"<w, J t> = {elegant:.6f}   <J' w, t> = {backward:.6f}")
agree = abs(elegant - backward) < 1e-9 * abs(backward)
lesson.reveal("witness", a=not agree, b=agree)

# %% [markdown]
# `pb.jvp` makes `J t` out of two VJPs, that is, out of your backward. Both sides carry the same
# mistake. A witness must share no code with the accused: forward alone can testify.
#
# ## gradcheck, and what it does not ask
#
# Torch brings a test. `gradcheck` forms all of J twice, from backward and from differences. It
# finds `Doubled` at once; for a small float64 input it is the one to run first. But here someone
# was afraid of exploding gradients, and clipped v on its way through:


# %% code clipped
class Clipped(Cubed):
    @staticmethod
    def backward(ctx, v):
        return Cubed.backward(ctx, v.clamp(-1, 1))


# %% predict clipped [markdown]
# **Predict.** Who notices: `gradcheck`, or the dot-product test with the random w from above?
#
# - a) the dot-product test alone
# - b) `gradcheck` alone
# - c) both

# %% reveal clipped
point = x.clone().requires_grad_()
seen = not gradcheck(Clipped.apply, point, raise_exception=False)
forward, backward = two_sides(Clipped.apply, x, w, t)
dots = abs(forward - backward) > 1e-6 * abs(forward)
print(f"gradcheck notices: {seen}; dot-product test: {forward:.4f} against {backward:.4f}")
lesson.reveal("clipped", a=dots and not seen, b=seen and not dots, c=dots and seen)

# %% [markdown]
# `gradcheck` asks for the rows of J, each with a cotangent of a single 1. To those, the clipping
# does nothing. But a product with a matrix is **linear** in v, and this backward is not: twice the
# v does not give twice the gradient. A Jacobian put together from few products depends on that, so
# `pullback` refuses it:


# %% code linear
def attempt(call):
    try:
        return call()
    except RuntimeError as error:
        return error


refusal = attempt(lambda: pb.plan_jacobian(Clipped.apply, x))
print(refusal)

# %% proof linear
assert "not linear in its cotangent at clamp" in str(refusal)
assert not gradcheck(Doubled.apply, point, raise_exception=False)
assert gradcheck(Cubed.apply, point)

# %% exercise test [markdown]
# **Exercise.** Write `is_adjoint(f, x)`: True if the backward of `f` is the adjoint of its
# derivative at `x`, else False. `x` is float64. The check hands you honest Functions and false
# ones: with a factor, a forgotten permutation, a single wrong entry, a clipped or an absolute v.
# Think about which w and t to give `two_sides`, and how equal is equal: values may be of any size.


# %% solution test
def is_adjoint(f, x):
    w = torch.randn(f(x).shape, dtype=x.dtype)
    t = torch.randn(x.shape, dtype=x.dtype)
    forward, backward = two_sides(f, x, w, t)
    return abs(forward - backward) <= 1e-6 * max(abs(forward), abs(backward))


# %% check test
lesson.check("test", is_adjoint)

# %% [markdown]
# ## A sum that nobody asked for
#
# Scale each *row* of x with its own number: `x * s[:, None]`. `s[i]` meets all of row i, so its
# gradient is a sum over that row. In this backward the sum was forgotten:


# %% code scaled
class RowScale(Function):
    @staticmethod
    def forward(ctx, x, s):
        ctx.save_for_backward(x, s)
        return x * s[:, None]

    @staticmethod
    def backward(ctx, v):
        x, s = ctx.saved_tensors
        return v * s[:, None], v * x


def gradient_of_s(x):
    s = torch.ones(len(x), requires_grad=True)
    return torch.autograd.grad(RowScale.apply(x, s).sum(), s)[0]


# %% predict silent-sum [markdown]
# **Predict.** For x of shape (3, 4) torch objects: a gradient of (3, 4) does not fit an s of (3,).
# And for x of shape (4, 4), with s of (4,)?
#
# - a) it objects as well
# - b) a gradient of shape (4,), with the right numbers
# - c) a gradient of shape (4,), with wrong numbers

# %% reveal silent-sum
print("(3, 4):", attempt(lambda: gradient_of_s(torch.ones(3, 4))))
square = torch.arange(1.0, 17.0).reshape(4, 4)
came = attempt(lambda: gradient_of_s(square))
print("(4, 4):", came, "  row sums:", square.sum(1))
fits = isinstance(came, torch.Tensor)
equal = fits and torch.equal(came, square.sum(1))
lesson.reveal("silent-sum", a=not fits, b=equal, c=fits and not equal)

# %% proof silent-sum
assert came.tolist() == square.sum(0).tolist() == [28, 32, 36, 40]
assert square.sum(1).tolist() == [10, 26, 42, 58]

# %% [markdown]
# As if it came from broadcasting, torch sums the gradient down to the shape of the input, along
# *leading* axes: column sums, 28 to 40, where row sums, 10 to 58, were right. So test on inputs
# whose axes all have *different* lengths.
#
# ## What was saved
#
# `save_for_backward` notes the version of each tensor. A plain attribute, `ctx.x = x`, also keeps
# the tensor alive, and seems to do.


# %% code kept
class Kept(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.x = x
        return (x + 10).pow(3).t()

    @staticmethod
    def backward(ctx, v):
        return 3 * (ctx.x + 10).pow(2) * v.t()


# %% predict kept [markdown]
# **Predict.** Between forward and backward, someone sets the Function's input to zero in place.
# What does `Kept` give for the diagonal, where 363 is right?
#
# - a) 363
# - b) 300
# - c) an error


# %% reveal kept
def after_a_write(function):
    hidden = inp.clone()
    out = function.apply(hidden)
    hidden.zero_()
    return float(torch.autograd.grad(out, inp, torch.ones_like(out))[0][0, 0])


came, proper = (attempt(lambda f=f: after_a_write(f)) for f in (Kept, Cubed))
print("Kept:", came, "  Cubed:", str(proper).partition(":")[0])
lesson.reveal("kept", a=came == 363, b=came == 300, c=isinstance(came, RuntimeError))

# %% [markdown]
# 300 is the derivative at a point that forward never saw. `Cubed` saved the same tensor properly,
# and refuses: an error instead of a wrong number. The second trap is to save an *intermediate*.
# Forward runs without a graph, so what it computes is a constant to autograd:


# %% code slope
class Slope(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(3 * (x + 10).pow(2))
        return (x + 10).pow(3).t()

    @staticmethod
    def backward(ctx, v):
        return ctx.saved_tensors[0] * v.t()


twice = gradgradcheck(Slope.apply, point, raise_exception=False)
print("gradcheck:", gradcheck(Slope.apply, point), "  gradgradcheck:", twice)

# %% proof slope
assert not twice
assert "modified by an inplace operation" in str(proper)

# %% [markdown]
# The slope is right; differentiated once more, it gives nothing, and only `gradgradcheck` says so.
# Save inputs or outputs, and compute the slope in backward.

# %% exercise function [markdown]
# **Exercise.** Write the Function `Gain`: `y[i, j] = a * x[i, j] ** 2 * s[i]`, x of shape (m, n), s
# of shape (m,), `a` a plain number. Backward returns one thing per input of forward: None for `a`,
# which is no tensor. It should survive all of the above: any m and n, a write in place, a second
# derivative.


# %% solution function
class Gain(Function):
    @staticmethod
    def forward(ctx, x, s, a):
        # your code
        ctx.save_for_backward(x, s)
        ctx.a = a
        # end of your code
        return a * x**2 * s[:, None]

    @staticmethod
    def backward(ctx, v):
        # your code
        x, s = ctx.saved_tensors
        return 2 * ctx.a * x * s[:, None] * v, (ctx.a * x**2 * v).sum(1), None
        # end of your code


# %% check function
lesson.check("function", Gain)

# %% [markdown]
# ## Your own
#
# J as backward has it, and as forward has it, for your function at a float64 point.

# %% yours
own_function = Doubled.apply
own_x = torch.tensor([[-1.0, 0.5, 2.0], [0.0, 3.0, -0.5]], dtype=torch.float64)
A = np.array([[4.0, 1.0, 0.0], [-2.0, 5.0, 1.0], [0.0, 3.0, 6.0]])  # of the exercise

# %% code own
result, pull = pb.vjp(own_function, own_x)
rows = pull.batched(pb.cotangents.basis(result))[0].reshape(result.numel(), -1)
steps = 1e-5 * torch.eye(own_x.numel(), dtype=torch.float64).reshape(-1, *own_x.shape)
moved = torch.stack([own_function(own_x + s) - own_function(own_x - s) for s in steps]) / 2e-5
lesson.show({"J from backward": rows, "J from forward": moved.reshape(len(steps), -1).T})

# %% exercise mine [markdown]
# **Exercise.** Give a Function of your own, `MyFunction`, of one tensor, and a float64 point
# `my_x`; input and output have at least two entries. The check compares all of J, and tries large
# and small w. For instance, let NumPy solve `A y = x`: J is the inverse of A, so backward solves
# with A transposed.


# %% solution mine
class MyFunction(Function):
    @staticmethod
    def forward(ctx, x):
        return torch.from_numpy(np.linalg.solve(A, x.numpy()))

    @staticmethod
    def backward(ctx, v):
        return torch.from_numpy(np.linalg.solve(A.T, v.numpy()))


my_x = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)

# %% check mine
lesson.check("mine", (MyFunction, my_x))

# %% [markdown]
# ## What to keep
#
# - Backward is the adjoint: `v -> J' v`. Linear in v, in the shape of each input.
# - `<w, J t> = <J' w, t>` with random w and t, in float64, with `J t` from forward alone.
# - `gradcheck` for all of J at a small point, `gradgradcheck` if it will be differentiated twice.
# - Test with axes of different lengths; save inputs and outputs, with `save_for_backward`.

# %%
lesson.summary()
