# %% [markdown]
# # 4. Accumulation and zeroing
#
# A backward pass does not *set* `.grad`. It *adds* to it. That is meant, it is useful, and it is
# behind a good part of all wrong gradients ever debugged. This lesson makes the adding visible, and
# shows when and how to start again from nothing.

# %%
import torch

import pullback as pb
from pullback.lessons import open_lesson

lesson = open_lesson(4)

inp = torch.eye(4, 5, requires_grad=True)
out = (inp + 1).pow(2).t()
ones = torch.ones_like(out)
out.backward(ones, retain_graph=True)
print("First call", inp.grad, sep="\n")

# %% [markdown]
# (`retain_graph=True` lets us use the same graph again below. Lesson 5 is about it.)

# %% predict second [markdown]
# **Predict.** The same line again: `out.backward(ones, retain_graph=True)`. What is `inp.grad`
# then?
#
# - a) the same as before: the same gradient was computed
# - b) exactly twice as much
# - c) roughly twice as much, up to rounding

# %% reveal second
first = inp.grad.clone()
out.backward(ones, retain_graph=True)
second = inp.grad.clone()
print("Second call", second, sep="\n")
twice = torch.equal(second, 2 * first)
lesson.reveal(
    "second",
    a=torch.equal(second, first),
    b=twice,
    c=not twice and torch.allclose(second, 2 * first),
)

# %% [markdown]
# The same gradient was computed, and added to what was there: g + g. Doubling a floating-point
# number only raises its exponent by one, so this is exact, to the last bit. `pb.explain` says what
# the next call would do, before you make it:

# %% code told
print(pb.explain(out, ones, inputs={"inp": inp}).about("accumulation")[0].text)

# %% code zero
inp.grad.zero_()
out.backward(ones, retain_graph=True)
print("Call after zeroing", inp.grad, sep="\n")
print("the first call's gradient again:", torch.equal(inp.grad, first))

# %% proof zero
assert torch.equal(inp.grad, first)

# %% [markdown]
# `zero_()` sets every entry of the tensor in `.grad` to zero. Before the first backward there is no
# such tensor: `.grad` is None, and None has no `zero_`. Hence the guard that you will see in
# careful code: `if inp.grad is not None: inp.grad.zero_()`.

# %% proof guard
assert torch.eye(4, 5, requires_grad=True).grad is None
assert not hasattr(None, "zero_")

# %% [markdown]
# ## The name you kept
#
# A small trap, and a nasty one.

# %% predict alias [markdown]
# **Predict.** You keep the first gradient under a name, and call backward again:
#
#     inp.grad = None
#     out.backward(ones, retain_graph=True)
#     kept = inp.grad
#     out.backward(ones, retain_graph=True)
#
# What does `kept` hold now?
#
# - a) the first gradient
# - b) twice the first gradient
# - c) None

# %% reveal alias
inp.grad = None
out.backward(ones, retain_graph=True)
kept = inp.grad
out.backward(ones, retain_graph=True)
print("kept[0]    :", kept[0])
print("inp.grad[0]:", inp.grad[0], "  the same tensor:", kept is inp.grad)
lesson.reveal(
    "alias",
    a=kept is not None and torch.equal(kept, first),
    b=kept is not None and torch.equal(kept, 2 * first),
    c=kept is None,
)

# %% [markdown]
# `kept` is not a copy. It is the tensor in `.grad`, and backward adds to that tensor in place.
# Write `kept = inp.grad.clone()` for a gradient that stays.
#
# The two ways of starting again differ in just this:

# %% predict none [markdown]
# **Predict.** Again `kept = inp.grad` after one backward. Then `inp.grad = None`, and one more
# backward. What do `kept` and `inp.grad` hold? (And with `inp.grad.zero_()` in its place?)
#
# - a) with None, `kept` still holds the first gradient; with `zero_()`, `kept` was zeroed and
#   filled again with the second one
# - b) `kept` holds the first gradient either way
# - c) with None, `kept` becomes None too

# %% reveal none
double = 2 * ones
after = {}
for way in ("None", "zero_()"):
    inp.grad = None
    out.backward(ones, retain_graph=True)
    kept = inp.grad
    if way == "None":
        inp.grad = None
    else:
        inp.grad.zero_()
    out.backward(double, retain_graph=True)
    after[way] = kept
    print(f"{way:8}  kept[0]: {kept[0]}   inp.grad[0]: {inp.grad[0]}")
old = {way: torch.equal(kept, first) for way, kept in after.items()}
new = {way: torch.equal(kept, 2 * first) for way, kept in after.items()}
lesson.reveal(
    "none",
    a=old["None"] and new["zero_()"],
    b=old["None"] and old["zero_()"],
    c=after["None"] is None,
)

# %% [markdown]
# Even the v that you passed may be affected. Look at an `out` where going back only moves numbers:

# %% predict passed [markdown]
# **Predict.** `moved = (inp + 1).t()`, `v = torch.ones_like(moved)`, and twice `moved.backward(v,
# retain_graph=True)` from `inp.grad = None`. What does `v` hold afterwards?
#
# - a) ones: backward only reads it
# - b) twos
# - c) zeros: it was used up

# %% reveal passed
inp.grad = None
moved = (inp + 1).t()
v = torch.ones_like(moved)
moved.backward(v, retain_graph=True)
moved.backward(v, retain_graph=True)
print("v[0]:", v[0], "  shares its memory with inp.grad:", v.data_ptr() == inp.grad.data_ptr())
lesson.reveal("passed", a=(v == 1).all(), b=(v == 2).all(), c=(v == 0).all())

# %% [markdown]
# The first gradient is `v.t()`, a view of your v. Torch saw that nobody else held that view, and
# made it `.grad` without a copy; the second call added in place. This has been known for years
# and happens only where the whole way back is views. It is harmless for a v
# written in the call, as in `backward(torch.ones_like(out))`. Clone a v that you keep.

# %% exercise fresh [markdown]
# **Exercise.** Write `fresh_gradient(out, v, inp)`: the gradient of this one weighing alone,
# whatever `inp.grad` held before. It may also hold nothing. And what you return must not change
# when someone calls backward later.


# %% solution fresh
def fresh_gradient(out, v, inp):
    inp.grad = None
    out.backward(v)
    return inp.grad.clone()


# %% check fresh
lesson.check("fresh", fresh_gradient)

# %% [markdown]
# ## What accumulation is for
#
# **Several terms of a loss.** `a.backward()` and then `b.backward()` leave what `(a +
# b).backward()` leaves, because derivatives add up:

# %% code terms
w = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
w.square().sum().backward()
w.abs().sum().backward()
in_two = w.grad.clone()
w.grad = None
(w.square().sum() + w.abs().sum()).backward()
print("in two calls:", in_two, "  in one:", w.grad)

# %% proof terms
assert torch.equal(in_two, w.grad)

# %% [markdown]
# **A batch that does not fit.** Send it through in chunks, one backward each, and step once at the
# end. But the usual loss is a *mean*, and the mean of a batch is not the sum of the means of its
# chunks.

# %% predict chunks [markdown]
# **Predict.** A batch of 6 samples is cut into chunks of 4 and 2. Each chunk's `loss.mean()` gets a
# backward, nothing is zeroed in between. How must each chunk's loss be scaled, so that `.grad` ends
# as the gradient of the mean of all 6?
#
# - a) not at all
# - b) by 1/2, as there are two chunks
# - c) by 4/6 and 2/6, the share of the samples

# %% reveal chunks
samples = torch.tensor([1.0, 2.0, 3.0, 4.0, 50.0, 60.0])
w = torch.tensor(0.5, requires_grad=True)
(whole,) = torch.autograd.grad((w * samples).square().mean(), w)
found = {}
for name, scales in {"a": (1, 1), "b": (1 / 2, 1 / 2), "c": (4 / 6, 2 / 6)}.items():
    w.grad = None
    for chunk, scale in zip(samples.split([4, 2]), scales, strict=True):
        (scale * (w * chunk).square().mean()).backward()
    found[name] = w.grad
    print(f"{name}) {w.grad.item():9.2f}    all at once: {whole.item():9.2f}")
lesson.reveal("chunks", **{name: torch.allclose(g, whole) for name, g in found.items()})

# %% exercise chunks [markdown]
# **Exercise.** Write `mean_gradient(losses_of, chunks, w)`. `losses_of(w, chunk)` gives a tensor
# with one loss per sample of the chunk; `chunks` is a list of tensors, of unequal length, cut from
# a batch along axis 0. Return the gradient by `w` of the *mean over all samples*. `w` is a leaf;
# its `.grad` is None at the start.


# %% solution chunks
def mean_gradient(losses_of, chunks, w):
    count = sum(len(chunk) for chunk in chunks)
    for chunk in chunks:
        (losses_of(w, chunk).sum() / count).backward()
    return w.grad


# %% check chunks
lesson.check("chunks", mean_gradient)

# %% [markdown]
# ## Zero is not None, for an optimizer
#
# In a training loop you write `optimizer.zero_grad()` before each backward. It sets `.grad` to
# None; with `set_to_none=False` it writes zeros. Does it matter? Most optimizers skip a parameter
# whose `.grad` is None, and do *not* skip one whose gradient is zero.

# %% predict decay [markdown]
# **Predict.** SGD with `lr=0.1` and `weight_decay=0.5`. The parameter is 1.0 and takes no part in
# the loss. What is it after one step, first with a gradient of zeros, then with None?
#
# - a) 1.0 and 1.0: no gradient, no change
# - b) 0.95 and 1.0
# - c) 0.95 and 0.95: weight decay needs no gradient

# %% reveal decay
ends = {}
for name, gradient in {"zeros": torch.zeros(()), "None": None}.items():
    p = torch.nn.Parameter(torch.tensor(1.0))
    p.grad = gradient
    torch.optim.SGD([p], lr=0.1, weight_decay=0.5).step()
    ends[name] = round(p.item(), 4)
    print(f"{name:6} -> {ends[name]}")
lesson.reveal(
    "decay",
    a=ends == {"zeros": 1.0, "None": 1.0},
    b=ends == {"zeros": 0.95, "None": 1.0},
    c=ends == {"zeros": 0.95, "None": 0.95},
)

# %% proof decay
p = torch.nn.Parameter(torch.ones(2))
p.grad = torch.ones(2)
optimizer = torch.optim.SGD([p], lr=0.1)
optimizer.zero_grad()
assert p.grad is None
p.grad = torch.ones(2)
optimizer.zero_grad(set_to_none=False)
assert p.grad.tolist() == [0.0, 0.0]

# %% [markdown]
# ## Your own tensors
#
# `pb.record(..., accumulate=True)` deposits as `backward` does, bit for bit, and keeps what it
# added. Watch `.grad` grow on tensors of your own.

# %% yours
mine = torch.tensor([[0.1, 0.2], [0.3, 0.4]], requires_grad=True)
own_out = mine.exp() * torch.tensor([1.0, -1.0])

# %% code own
own_v = torch.ones_like(own_out)
after_call = {}
for call in ("first", "second", "third"):
    record = pb.record(own_out, own_v, inputs={"mine": mine}, accumulate=True, retain_graph=True)
    after_call[f".grad after the {call} call"] = mine.grad.clone()
print("deposit of each call:", record.deposits["mine"], sep="\n")
lesson.show(after_call)

# %% proof own
grads = list(after_call.values())
assert torch.equal(grads[1], 2 * grads[0])
assert torch.equal(record.deposits["mine"], grads[0])

# %% [markdown]
# ## What to keep
#
# - Backward adds to `.grad`. A second equal call doubles it, exactly.
# - Zeroing is your task: `.grad = None` or `.grad.zero_()`, before the backward, or
#   `optimizer.zero_grad()`.
# - `.grad` is one tensor that changes in place. `clone()` what you want to keep.
# - Adding is what makes several losses and chunked batches work; a mean needs each chunk's share.

# %%
lesson.summary()
