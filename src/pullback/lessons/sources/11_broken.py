# %% [markdown]
# # 11. None, in-place, NaN
#
# Three things go wrong most often: `.grad` is None, backward refuses because something was
# modified, or the gradient is NaN. Each has few causes, and leaves evidence. The way is the same
# every time: **break it, read the verdict, repair it, check the repair against something else.**

# %%
import warnings

import torch

import pullback as pb
from pullback.lessons import open_lesson

lesson = open_lesson(11)

# %% [markdown]
# ## None
#
# None means: *nothing has been written here*. It is no gradient of zero. Four ways to get it.
#
# ### 1. It is not a leaf
#
# You want small random weights. So you draw some, ask for gradients, and scale them:

# %% predict scaled [markdown]
# **Predict.** `w = torch.ones(3, requires_grad=True) * 0.1`, then `(w * w).sum().backward()`. What
# is `w.grad`?
#
# - a) `[0.2, 0.2, 0.2]`
# - b) None
# - c) `[0.02, 0.02, 0.02]`

# %% reveal scaled
w = torch.ones(3, requires_grad=True) * 0.1
(w * w).sum().backward()
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    held = w.grad
print("w.grad:", held)
print("w.is_leaf:", w.is_leaf)
print("torch says:", str(said[0].message).split(". Its")[0])
lesson.reveal(
    "scaled",
    a=held is not None and bool((held > 0.1).all()),
    b=held is None,
    c=held is not None and bool((held < 0.1).all()),
)

# %% [markdown]
# `w` was *computed*, from a tensor of ones that has no name any more. That one is the leaf, and
# that one has the gradient. **Rebinding** a name does the same, and is harder to see, since the
# tensor that had the name before lives on somewhere:

# %% code rebound
weight = torch.ones(4, requires_grad=True)
first = weight
weight = weight.view(2, 2)  # the same name, another tensor
weight.sum().backward()
print("weight is a leaf:", weight.is_leaf)
print("the tensor that was called weight before:", first.grad)

# %% [markdown]
# `.view` and `* 0.1` make another tensor, and so do `.to`, `.cuda` and `.double()`, unless there is
# nothing to convert. So do the arithmetic first, and make the result a leaf as the last thing.

# %% exercise leaf [markdown]
# **Exercise.** Write `scaled_leaf(values, scale)`: a float32 tensor that holds `scale * values` (a
# list of numbers), requires grad, and will find its gradient in its own `.grad`.


# %% solution leaf
def scaled_leaf(values, scale):
    return (torch.tensor(values, dtype=torch.float32) * scale).requires_grad_()


# %% check leaf
lesson.check("leaf", scaled_leaf)

# %% [markdown]
# ### 2. It was cut off
#
# `.detach()`, `.data`, `.item()`, `torch.no_grad()` and whole numbers leave the graph: what follows
# depends on the numbers, and autograd does not know it. Values are right, so nothing looks wrong.
# (`.numpy()` asks you to detach first.) `pb.record` names the tensors that outputs do *not* reach:

# %% code detached
a = torch.tensor([1.0, 2.0], requires_grad=True)
b = torch.tensor([3.0, 4.0], requires_grad=True)
out = a.detach() * b
record = pb.record(out, torch.ones(2), inputs={"a": a, "b": b})
print("deposits:", dict(record.deposits))
print("verdict:", *record.notes)

# %% [markdown]
# If *everything* is cut off there is no graph at all, and backward itself complains. Beware of the
# "repair" that makes the message go away: `out.requires_grad_()` makes `out` a leaf of its own.
# Backward runs then, and no parameter ever learns anything.

# %% code cut
with torch.no_grad():
    out = (a * b).sum()
for run in (out.backward, lambda: pb.record(out)):
    try:
        run()
    except (RuntimeError, pb.GraphError) as error:
        print(type(error).__name__, "--", error)
out.requires_grad_()
out.backward()
print("after the false repair: a.grad =", a.grad, " out.grad =", out.grad)

# %% proof cut
assert (weight.is_leaf, first.grad.tolist()) == (False, [1, 1, 1, 1])
assert list(record.deposits) == ["b"]
assert record.notes == ("a is not reached from the outputs: no deposit, its .grad stays as it is.",)
assert (a.grad, b.grad, out.grad.item(), a.float() is a) == (None, None, 1, True)

# %% [markdown]
# ### 3. It is not behind this output, or 4. nobody asked
#
# A layer that was never called, a branch that was not taken: no path, no gradient. And
# `torch.autograd.grad`, or a backward with other `inputs=`, write to no `.grad`: nobody asked.
#
# ### Zero is something else

# %% predict zero [markdown]
# **Predict.** `y = x.max() + 0 * z` and `u` is not used. After `y.backward()`, with `x = [3, 7,
# 5]`, which of the three gradients is None?
#
# - a) `z.grad` and `u.grad`; and `x.grad` has None at the entries that are not the maximum
# - b) `z.grad` and `u.grad`
# - c) `u.grad` alone

# %% reveal zero
x = torch.tensor([3.0, 7.0, 5.0], requires_grad=True)
z = torch.tensor(2.0, requires_grad=True)
u = torch.tensor(1.0, requires_grad=True)
y = x.max() + 0 * z
y.backward()
print("x.grad:", x.grad, " z.grad:", z.grad, " u.grad:", u.grad)
none = "".join(name for name, t in (("x", x), ("z", z), ("u", u)) if t.grad is None)
lesson.reveal("zero", a="x" in none, b=none == "zu", c=none == "u")

# %% proof zero
assert (x.grad.tolist(), z.grad.item()) == ([0, 1, 0], 0)

# %% [markdown]
# A path is a path, even if it multiplies by 0. Tell three things apart:
#
# - **None**: no path from the output to this tensor was taken. Nothing was written.
# - a **structural zero**: there is a path to the tensor, but this entry of the Jacobian is zero at
#   every point. `out[0]` does not look at `inp[3]`.
# - a **numeric zero**: the derivative happens to be zero *here*. `relu` at -1. Elsewhere it is not.
#
# The numbers cannot tell the last two apart. A pattern can: it holds at every point.

# %% code structural
point = torch.tensor([-1.0, 2.0])
numbers = pb.jacobian(torch.relu)(point)
may_be = pb.plan_jacobian(torch.relu, point).pattern.to_scipy().toarray()
print("[0, 0] is a numeric zero, [0, 1] a structural one")
lesson.show({"numbers": numbers, "places": torch.tensor(may_be).float()})

# %% proof structural
assert numbers.tolist() == [[0, 0], [0, 1]]
assert may_be.tolist() == [[True, False], [False, True]]

# %% [markdown]
# ### Write the verdict yourself
#
# You now know enough to say why a gradient is missing, from evidence: `requires_grad`, `is_leaf`,
# and `torch.autograd.grad(..., allow_unused=True)`, which gives None where there is no path.

# %% exercise verdict [markdown]
# **Exercise.** Write `verdict(out, x)`: what a backward from the tensor `out`, weighed with ones,
# does for `x.grad`. Ask in this order, and return the first that holds:
#
# - `"frozen"`: `x` does not require grad
# - `"not a leaf"`: `x` was computed
# - `"no graph"`: `out` does not require grad
# - `"not reached"`: no path leads from `out` to `x`
# - `"zero"`: a gradient arrives, and all its entries are 0
# - `"arrives"`: a gradient arrives
#
# Leave `.grad` and the graph as they are.


# %% solution verdict
def verdict(out, x):
    if not x.requires_grad:
        return "frozen"
    if not x.is_leaf:
        return "not a leaf"
    if not out.requires_grad:
        return "no graph"
    v = torch.ones_like(out)
    (found,) = torch.autograd.grad(out, x, v, retain_graph=True, allow_unused=True)
    if found is None:
        return "not reached"
    return "arrives" if found.any() else "zero"


# %% check verdict
lesson.check("verdict", verdict)

# %% [markdown]
# ## In place
#
# Backward needs numbers from the way there. If they have been overwritten by then, it refuses.
# Which numbers it needs depends on the operation: `exp` saves its *result*, since that is its
# derivative; `sin` saves its *input*, whose cosine it takes.

# %% predict saved [markdown]
# **Predict.** `y = x.exp()` and `z = x.sin()`. Then `y += 1` and `z += 1`. Which backward fails?
#
# - a) both
# - b) that of `y` alone
# - c) that of `z` alone
# - d) neither: `x` has not been modified

# %% reveal saved
failed = {}
for name in ("exp", "sin"):
    x = torch.tensor([0.0, 1.0], requires_grad=True)
    result = getattr(x, name)()
    result += 1
    try:
        result.sum().backward()
        print(name, "is fine:", x.grad)
    except RuntimeError as error:
        failed[name] = str(error)
        print(name, "fails:", str(error).split(" Hint:")[0])
names = " ".join(failed)
lesson.reveal("saved", a=names == "exp sin", b=names == "exp", c=names == "sin", d=names == "")

# %% proof saved
assert "output 0 of Exp, is at version 1; expected version 0" in failed["exp"]

# %% [markdown]
# Read it like this. *output 0 of Exp*: whose numbers were needed. *is at version 1; expected
# version 0*: every tensor counts the writes into it (`y._version`), and there was one since `exp`
# saved it. So look for the `+=`, `[...] =`, `relu_()`, after the exp. The repair is to write `y = y
# + 1`.
#
# What is no repair: to hide the write from the counter.

# %% predict hidden [markdown]
# **Predict.** `y = x.exp()`, then `y.data += 1`, then `y.sum().backward()`, at x = 0, where the
# derivative of `exp(x) + 1` is 1. What happens?
#
# - a) the same error
# - b) no error, and the gradient is 1
# - c) no error, and the gradient is 2

# %% reveal hidden
x = torch.zeros(1, requires_grad=True)
y = x.exp()
y.data += 1
error = None
try:
    y.sum().backward()
except RuntimeError as raised:
    error = raised
print("error:", error, " x.grad:", x.grad)
lesson.reveal("hidden", a=error is not None, b=x.grad == 1, c=x.grad == 2)

# %% [markdown]
# The worst of all: a wrong number, and silence. `.data` writes into memory and leaves the counter
# alone. Exp then takes `exp(x) + 1` for its result. An error would have been the better outcome.


# %% code broken
def broken(x):
    y = x.exp()
    y += 1
    y[0] = 0.0
    return y * y


# %% exercise in-place [markdown]
# **Exercise.** Write `repaired(x)`: the values that `broken(x)` computes, for a vector `x`, and
# with the gradient that belongs to them. `x` stays as it is.


# %% solution in-place
def repaired(x):
    y = x.exp() + 1
    y[0] = 0.0  # the sum saved nothing of its result, so this may be written
    return y * y


# %% check in-place
lesson.check("in-place", repaired)

# %% [markdown]
# ## NaN
#
# A masked square root: where x is not positive, the result is to be 0.

# %% predict masked [markdown]
# **Predict.** `y = torch.where(x > 0, x.sqrt(), 0 * x)`, weighed with ones. What arrives at an
# entry where x is 0?
#
# - a) 0, since the mask takes the other branch
# - b) inf, the slope of the root at 0
# - c) NaN

# %% reveal masked
x = torch.tensor([0.0, 1.0, 4.0], requires_grad=True)
with pb.trace():
    y = torch.where(x > 0, x.sqrt(), 0 * x)
record = pb.record(y, torch.ones(3), inputs={"x": x})
print(record)
arrived = record.deposits["x"]
print(arrived)
lesson.reveal("masked", a=arrived[0] == 0, b=torch.isinf(arrived[0]), c=torch.isnan(arrived[0]))

# %% [markdown]
# Follow the cotangent down the record. `where` did its duty: it sent 0 into the branch not taken.
# The root multiplied that by its slope, which is infinite: `0 * inf` is NaN. And at the leaf NaN
# plus 0 is NaN. Forward, everything was finite. A mask on the *result* does not protect the way
# back.
#
# The record can be asked where it was born: the first node that received finite numbers and sent
# others. Each `node` of `record.nodes` has `upstream` (a cotangent per slot) and `edges` (each with
# its `contribution`); a cotangent's `.stats.nonfinite` counts inf and NaN. Any of them may be None.

# %% exercise birthplace [markdown]
# **Exercise.** Write `birthplace(record)`: the name of the first node, in the order of
# `record.nodes`, whose upstream is finite, and that sends a contribution that is not. `"nowhere"`
# if there is none.


# %% solution birthplace
def birthplace(record):
    for node in record.nodes:
        received = sum(c.stats.nonfinite for c in node.upstream if c is not None)
        sent = [edge.contribution for edge in node.edges if edge.contribution is not None]
        if received == 0 and any(c.stats.nonfinite for c in sent):
            return node.name
    return "nowhere"


# %% check birthplace
lesson.check("birthplace", birthplace)

# %% [markdown]
# The repair is to keep the infinite slope from being computed at all: mask the **input** as well,
# so that the root sees a harmless number where it is not wanted. (It is called the double where.)

# %% exercise safe-root [markdown]
# **Exercise.** Write `safe_root(x)`: the root of x where x > 0, and 0 elsewhere; its gradient is `1
# / (2 * sqrt(x))` where x > 0, and exactly 0 elsewhere, at 0 and at negative numbers.


# %% solution safe-root
def safe_root(x):
    positive = x > 0
    harmless = torch.where(positive, x, 1.0)
    return torch.where(positive, harmless.sqrt(), 0.0)


# %% check safe-root
lesson.check("safe-root", safe_root)

# %% [markdown]
# ## Your own
#
# Name the tensors of a program of yours, and read what a backward would do to each.

# %% yours
scale = torch.tensor([1.0, 2.0, 0.5], requires_grad=True)
shift = torch.tensor([0.0, 1.0, 0.0], requires_grad=True)
spare = torch.ones(3, requires_grad=True)
own_out = (scale * shift).relu() + scale.detach()
own_tensors = {"scale": scale, "shift": shift, "spare": spare}

# %% code own
own_record = pb.record(own_out, torch.ones_like(own_out), inputs=own_tensors)
for name, deposit in own_record.deposits.items():
    strange = int((~deposit.isfinite()).sum())
    zeros = int((deposit == 0).sum())
    print(f"{name}: {deposit.numel()} entries arrive, {zeros} of them 0, {strange} not finite")
print(*own_record.notes, sep="\n")
lesson.show(own_record)

# %% [markdown]
# ## What to keep
#
# - None: not a leaf, cut off, not behind this output, or nobody asked. Zero: a path, and a zero on
#   it.
# - Make leaves last: arithmetic first, then `requires_grad_()`.
# - "modified by an inplace operation" names whose numbers were needed and how often they were
#   written. Write `y = y + 1`; never hide a write behind `.data`.
# - A NaN has a birthplace: the node that received finite numbers and sent others. Mask the input,
#   not only the result.

# %%
lesson.summary()
