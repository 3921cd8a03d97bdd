# %% [markdown]
# # 3. Leaves, and where gradients land
#
# You call `out.backward(v)`, and the result turns up on *another* tensor, in `inp.grad`. At first
# that is odd. It stops being odd with one change of question. `backward` does not ask "what is the
# gradient of this tensor?" It asks "how did this output depend on the tensors it came from?"

# %%
import warnings

import torch

import pullback as pb
from pullback.lessons import open_lesson

lesson = open_lesson(3)

inp = torch.eye(4, 5, requires_grad=True)
out = (inp + 1).pow(2).t()

# %% predict where [markdown]
# **Predict.** After `out.backward(torch.ones_like(out))`, what do `inp.grad` and `out.grad` hold?
#
# - a) `inp.grad` a `(4, 5)` tensor, `out.grad` None
# - b) `inp.grad` None, `out.grad` a `(5, 4)` tensor
# - c) both hold a tensor

# %% reveal where
out.backward(torch.ones_like(out), retain_graph=True)
with warnings.catch_warnings(record=True) as heard:
    warnings.simplefilter("always")
    on_out = out.grad
print("inp.grad:", inp.grad, sep="\n")
print("out.grad:", on_out)
lesson.reveal(
    "where",
    a=inp.grad is not None and inp.grad.shape == (4, 5) and on_out is None,
    b=inp.grad is None and on_out is not None,
    c=inp.grad is not None and on_out is not None,
)

# %% [markdown]
# Torch also warns whoever reads `out.grad`: `out` is not a leaf. (Once; we have caught the
# warning.)
#
# ## What a leaf is
#
# Every tensor in a graph is either a **leaf**, which you made, or was computed from others by an
# operation that torch recorded. A computed tensor knows that operation: it is its `grad_fn`. A leaf
# has none.

# %% code leaf
print("inp: is_leaf", inp.is_leaf, " grad_fn", inp.grad_fn)
print("out: is_leaf", out.is_leaf, " grad_fn", type(out.grad_fn).__name__)
print("a plain tensor: is_leaf", torch.ones(2).is_leaf)

# %% proof leaf
assert inp.is_leaf
assert inp.grad_fn is None
assert not out.is_leaf
assert type(out.grad_fn).__name__ == "TBackward0"
assert torch.ones(2).is_leaf
assert len(heard) == 1
assert "not a leaf" in str(heard[0].message)

# %% [markdown]
# "Backward fills the leaves" needs two more words to be exact. A backward adds to the `.grad` of
# each leaf that **requires grad** and that the output **was computed from**. A constant is a leaf
# and gets nothing; a parameter that this output did not use gets nothing either, and its `.grad`
# stays None, which is not the same as zeros.

# %% predict who [markdown]
# **Predict.** Four leaves. `y = weight * x + 0 * bias` (and `spare` is not used). `x` does not
# require grad; the other three do. After `y.sum().backward()`, whose `.grad` is a tensor?
#
# - a) `weight` only: the others do not matter for y
# - b) `weight` and `bias`
# - c) `weight`, `bias` and `spare`
# - d) all four

# %% reveal who
weight = torch.tensor([2.0, 3.0], requires_grad=True)
bias = torch.tensor([1.0, 1.0], requires_grad=True)
spare = torch.tensor([5.0, 5.0], requires_grad=True)
x = torch.tensor([10.0, 20.0])
y = weight * x + 0 * bias
y.sum().backward()
got = set()
for name, tensor in {"weight": weight, "bias": bias, "spare": spare, "x": x}.items():
    print(f"{name:6} requires_grad {tensor.requires_grad!s:5}  .grad {tensor.grad}")
    if tensor.grad is not None:
        got.add(name)
lesson.reveal(
    "who",
    a=got == {"weight"},
    b=got == {"weight", "bias"},
    c=got == {"weight", "bias", "spare"},
    d=got == {"weight", "bias", "spare", "x"},
)

# %% proof who
assert bias.grad.tolist() == [0.0, 0.0]
assert spare.grad is None
assert x.is_leaf
assert x.grad is None

# %% [markdown]
# `bias` was reached, and its derivative happens to be 0: zeros. `spare` was not reached: None.
# Lesson 11 comes back to this difference.

# %% exercise receivers [markdown]
# **Exercise.** Write `receivers(out, tensors)`: the set of the names in `tensors` (a dict from name
# to tensor) whose `.grad` a backward from `out` would write to. No tensor in it retains its
# gradient. How you find out is up to you; `torch.autograd.grad(..., allow_unused=True)` and
# `pb.record(out, v).deposits` are two ways.


# %% solution receivers
def receivers(out, tensors):
    asked = {name: t for name, t in tensors.items() if t.is_leaf and t.requires_grad}
    if not asked:
        return set()
    found = torch.autograd.grad(
        out, list(asked.values()), torch.ones_like(out), retain_graph=True, allow_unused=True
    )
    return {name for name, gradient in zip(asked, found, strict=True) if gradient is not None}


# %% check receivers
lesson.check("receivers", receivers)

# %% [markdown]
# ## Computed a moment too early
#
# The most common way to lose a gradient: something is done to the tensor *after* it began to
# require grad. Then the name you hold is the result of an operation, not the leaf.

# %% predict early [markdown]
# **Predict.** Which of these is a leaf?
#
# - a) `torch.ones(3, requires_grad=True) * 0.1`
# - b) `torch.ones(3, requires_grad=True).double()`
# - c) `(torch.ones(3) * 0.1).double().requires_grad_()`

# %% reveal early
made = {
    "a": torch.ones(3, requires_grad=True) * 0.1,
    "b": torch.ones(3, requires_grad=True).double(),
    "c": (torch.ones(3) * 0.1).double().requires_grad_(),
}
for letter, tensor in made.items():
    made_by = tensor.grad_fn.name() if tensor.grad_fn else "nothing: you made it"
    print(f"{letter}) is_leaf {tensor.is_leaf!s:5}  computed by {made_by}")
lesson.reveal("early", **{letter: tensor.is_leaf for letter, tensor in made.items()})

# %% [markdown]
# Scaling, casting, moving to a device, reshaping: each of them is an operation. Do them first, and
# let the finished tensor require grad last.

# %% exercise leaf [markdown]
# **Exercise.** Someone wrote this, and `x.grad` is None after the backward:
#
#     def parameter(values):
#         x = torch.tensor(values, requires_grad=True)
#         return x.double() / 2
#
# Write `parameter(values)` so that it returns the same numbers in float64, half of `values` (a
# list), as a leaf that requires grad.


# %% solution leaf
def parameter(values):
    return (torch.tensor(values, dtype=torch.float64) / 2).requires_grad_()


# %% check leaf
lesson.check("leaf", parameter)

# %% [markdown]
# ## Why the inputs, and not the output
#
# Two reasons are usually given: the output is nothing you would update, the inputs (weights,
# parameters) are; and a gradient *belongs* to an input: it says which of the earlier values to
# change, and which way, to move the result.
#
# There is a third, and it is the plainest. `out.grad` would be the gradient of `v . out` by `out`
# itself: that is v, which you passed in. There is nothing to compute. Ask for it, and see.

# %% code retain
inp = torch.eye(4, 5, requires_grad=True)
shifted = inp + 1
out = shifted.pow(2).t()
out.retain_grad()
shifted.retain_grad()
v = pb.cotangents.rows(out, {0: 1.0})
out.backward(v)
print("out.grad is v:", torch.equal(out.grad, v))
print("shifted.grad:", shifted.grad, sep="\n")

# %% proof retain
assert torch.equal(out.grad, v)
assert torch.equal(shifted.grad, inp.grad)

# %% [markdown]
# `retain_grad()` makes a computed tensor keep what passes through it. On `shifted` it is a real
# gradient, and here the same as on `inp`, since `inp + 1` passes it on unchanged.
#
# ## Where in the leaf?
#
# The gradient of a number L by a matrix X is again a matrix, of the same shape, with the derivative
# of L by `X[i, j]` at `[i, j]`. So the *shape* is that of the leaf. Which entries are filled
# depends on where v is.

# %% predict row [markdown]
# **Predict.** Above, v is 1 on row 0 of `out` and 0 elsewhere. Which part of `inp.grad` is filled?
# (Mind the `.t()`.)
#
# - a) row 0
# - b) column 0
# - c) all of it

# %% reveal row
filled = inp.grad != 0
print(inp.grad)
lesson.reveal(
    "row",
    a=filled[0].all() and not filled[1:].any(),
    b=filled[:, 0].all() and not filled[:, 1:].any(),
    c=filled.all(),
)

# %% proof row
assert inp.grad.shape == inp.shape
assert inp.grad[:, 0].tolist() == [4.0, 2.0, 2.0, 2.0]

# %% [markdown]
# Row 0 of `out` is column 0 of `inp`. `pb.explain` finds out such things by trying each row, on
# whatever you computed:

# %% code rows
again = (inp + 1).pow(2).t()
told = pb.explain(again, torch.ones_like(again), inputs={"inp": inp})
print(told.about("rows")[0].text)
print(told.about("grad")[0].text)

# %% proof rows
assert "row i of again depends on inp[:, i]" in told.about("rows")[0].text
assert "stays None" in told.about("grad")[0].text

# %% [markdown]
# ## Without depositing anything
#
# If you want gradients but no change of any `.grad`, there are three ways:
# `torch.autograd.grad(out, inp, v)` returns them; `out.backward(v, inputs=[...])` deposits on the
# tensors you list only; `pb.record(out, v)` looks, and shows what would be deposited where.

# %% code look
before = inp.grad.clone()
record = pb.record(again, torch.ones_like(again), inputs={"inp": inp})
print("unchanged:", torch.equal(inp.grad, before), "  would deposit on:", list(record.deposits))
lesson.show(record)

# %% proof look
assert torch.equal(inp.grad, before)
assert list(record.deposits) == ["inp"]

# %% [markdown]
# ## Your own tensors
#
# Build something from several leaves. Which of them will receive what?

# %% yours
first = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
second = torch.tensor([0.5, -0.5], requires_grad=True)
mine = torch.tanh(first @ second.detach()) + second

# %% code own
record = pb.record(mine, torch.ones_like(mine), inputs={"first": first, "second": second})
print(record)
for name, deposit in record.deposits.items():
    print(name, deposit)

# %% [markdown]
# ## What to keep
#
# - A leaf was made by you; it has no `grad_fn`. Everything else was computed.
# - Backward adds to `.grad` of the leaves that require grad *and* were reached. The others keep
#   None.
# - Let a tensor require grad *after* it has been scaled, cast and moved.
# - `out.grad` would be v. `retain_grad()` keeps what flows through a computed tensor.

# %%
lesson.summary()
