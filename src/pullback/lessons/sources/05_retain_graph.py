# %% [markdown]
# # 5. retain_graph and freed graphs
#
# You have seen `retain_graph=True` in every lesson so far. It has a single purpose: to let a
# *second* backward run through the same graph. Why would a second one fail, when does it not, and
# what do you do about it?

# %%
import torch

import pullback as pb
from pullback.lessons import open_lesson

lesson = open_lesson(5)

inp = torch.eye(4, 5, requires_grad=True)
out = (inp + 1).pow(2).t()
ones = torch.ones_like(out)

# %% predict second [markdown]
# **Predict.** Twice in a row, without `retain_graph`: `out.backward(ones)` and again
# `out.backward(ones)`. What does the second call do?
#
# - a) it raises an error, and `inp.grad` stays what it was
# - b) it doubles `inp.grad`, as lesson 4 taught
# - c) it does nothing

# %% reveal second
out.backward(ones)
first = inp.grad.clone()
error = None
try:
    out.backward(ones)
except RuntimeError as raised:
    error = raised
    print(str(error).partition("(")[0])
print("inp.grad is what it was:", torch.equal(inp.grad, first))
lesson.reveal(
    "second",
    a=error is not None and torch.equal(inp.grad, first),
    b=error is None and torch.equal(inp.grad, 2 * first),
    c=error is None and torch.equal(inp.grad, first),
)

# %% proof second
assert "a second time" in str(error)

# %% [markdown]
# ## What is freed
#
# The derivative of a square is twice its base. To multiply by it on the way back, the backward of
# `pow` needs the base again: the forward pass put it aside. These put-aside tensors are most of the
# memory of a graph, so torch frees each of them as soon as backward has used it. The second call
# then finds the steps of the graph, but not the values they need.
#
# Which operations put something aside?

# %% code saved
saved = {}


def watched(name, operation, x):
    """Run an operation, and note the shapes of the tensors that autograd keeps for its backward."""
    kept = []

    def keep(tensor):
        kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = operation(x)
    saved[name] = kept
    print(f"{name:14} keeps {kept or 'nothing'}")
    return result


x = inp
x = watched("x + 1", lambda x: x + 1, x)
x = watched("x.pow(2)", lambda x: x.pow(2), x)
x = watched("x.t()", lambda x: x.t(), x)
x = watched("x.exp()", lambda x: x.exp(), x)
x = watched("x @ x.t()", lambda x: x @ x.t(), x)

# %% proof saved
assert saved["x + 1"] == []
assert saved["x.t()"] == []
assert len(saved["x.pow(2)"]) == len(saved["x.exp()"]) == 1
assert len(saved["x @ x.t()"]) == 2

# %% predict linear [markdown]
# **Predict.** `linear = (inp + 1).t()`, and twice `linear.backward(torch.ones_like(linear))`,
# without `retain_graph`. The second call ...
#
# - a) raises the same error
# - b) works, but adds zeros
# - c) works, and doubles `inp.grad`

# %% reveal linear
inp.grad = None
linear = (inp + 1).t()
linear.backward(torch.ones_like(linear))
once = inp.grad.clone()
try:
    linear.backward(torch.ones_like(linear))
    raised = False
except RuntimeError:
    raised = True
print("raised:", raised, "  inp.grad[0] before and after:", once[0], inp.grad[0])
lesson.reveal(
    "linear",
    a=raised,
    b=not raised and torch.equal(inp.grad, once),
    c=not raised and torch.equal(inp.grad, 2 * once),
)

# %% [markdown]
# Adding and transposing keep nothing, so there is nothing to free. "Backward runs only once per
# graph" is a good habit, not the rule. The rule: *a backward fails where it needs a saved tensor
# that an earlier backward has freed.* `pb.explain` tells you in advance which node that would be:

# %% code told
again = (inp + 1).pow(2).t()
print(pb.explain(again, ones, inputs={"inp": inp}).about("retain_graph")[0].text)
print(pb.explain((inp + 1).t(), ones, inputs={"inp": inp}).about("retain_graph")[0].text)

# %% proof told
assert "PowBackward0" in pb.explain(again, ones).about("retain_graph")[0].text
assert "No node" in pb.explain((inp + 1).t(), ones).about("retain_graph")[0].text

# %% [markdown]
# ## Keeping the graph
#
# With `retain_graph=True` nothing is freed by *this* call. The last call of a series can do
# without, and then the memory is given back. (`pb.record`, `pb.explain` and `pb.sensitivity` only
# look, and keep the graph. `pb.record(..., accumulate=True)` is a real backward, and frees it.)

# %% code keep
inp.grad = None
out = (inp + 1).pow(2).t()
for retain in (True, True, False):
    out.backward(ones, retain_graph=retain)
print("three calls:", torch.equal(inp.grad, 3 * first))

# %% proof keep
assert torch.equal(inp.grad, 3 * first)
looked = (inp + 1).pow(2).t()
for accumulate in (False, False, True):
    pb.record(looked, ones, inputs={"inp": inp}, accumulate=accumulate)
freed = False
try:
    looked.backward(ones)
except RuntimeError as raised:
    freed = "a second time" in str(raised)
assert freed

# %% [markdown]
# It has nothing to do with the need for v. Lesson 2 tried all four combinations: v is needed
# because `out` is not a single number; `retain_graph` is needed because there will be another
# backward.
#
# ## Halfway
#
# In the first prediction `inp.grad` came out of the failed call unharmed. Do not rely on it.
# Backward works node by node and deposits as it goes.

# %% predict half [markdown]
# **Predict.** `s = (b.pow(2) + (a + 1)).sum()`. The first `s.backward()` works. The second one
# raises at `pow`. What do `a.grad` and `b.grad` hold after the error?
#
# - a) both what the first call left
# - b) `a.grad` twice as much, `b.grad` what the first call left
# - c) both twice as much

# %% reveal half
a = torch.ones(3, requires_grad=True)
b = torch.ones(3, requires_grad=True)
s = (b.pow(2) + (a + 1)).sum()
s.backward()
a_first, b_first = a.grad.clone(), b.grad.clone()
try:
    s.backward()
except RuntimeError:
    print("the second call raised")
print("a.grad", a.grad, " b.grad", b.grad)
a_twice, b_twice = torch.equal(a.grad, 2 * a_first), torch.equal(b.grad, 2 * b_first)
lesson.reveal(
    "half",
    a=not a_twice and not b_twice,
    b=a_twice and not b_twice,
    c=a_twice and b_twice,
)

# %% [markdown]
# `a + 1` was computed last, so its backward ran first, found all it needs (nothing), and deposited
# on `a`. Then `pow` failed. After an error in the middle of a backward, set every `.grad` to None
# and start again.
#
# ## Several products from one graph

# %% exercise several [markdown]
# **Exercise.** Write `products(out, inp, vs)`: a list with `v . J` for each v in the list `vs`,
# each of the shape of `inp`. `out` was expensive, so it cannot be computed again. Leave `inp.grad`
# as it was (it may hold something), and leave the graph fit for use.


# %% solution several
def products(out, inp, vs):
    return [torch.autograd.grad(out, inp, v, retain_graph=True)[0] for v in vs]


# %% check several
lesson.check("several", products)

# %% [markdown]
# ## When retain_graph is the wrong cure
#
# The error's own text suggests `retain_graph=True`, and often it does silence the error. Look
# twice. In a training loop each step has a *new* graph, and the error means that this step's graph
# hangs on to the last one's: some state was carried over with its history.

# %% code loop
w = torch.tensor(0.5, requires_grad=True)
h = torch.tensor(0.0)
raised_at = None
for step, x in enumerate((1.0, 2.0, 3.0)):
    h = torch.tanh(w * h + x)
    try:
        (h**2).backward()
    except RuntimeError:
        raised_at = step
        break
print("raised at step", raised_at)

# %% proof loop
assert raised_at == 1

# %% predict carried [markdown]
# **Predict.** The same loop with `retain_graph=True`, which raises nothing. What does the backward
# of step number n walk through?
#
# - a) the operations of step n only
# - b) the operations of all steps from the first to n

# %% reveal carried
w = torch.tensor(0.5, requires_grad=True)
h = torch.tensor(0.0)
walked = []
for x in (1.0, 2.0, 3.0, 4.0):
    h = torch.tanh(w * h + x)
    walked.append(len(pb.record(h**2, inputs={"w": w}).nodes))
    (h**2).backward(retain_graph=True)
print("nodes in the backward of each step:", walked)
lesson.reveal("carried", a=len(set(walked)) == 1, b=walked == sorted(set(walked)))

# %% [markdown]
# Each backward is longer than the one before, and its gradient is another one: it flows through the
# whole past. If that is what you want, compute all steps first and call backward once. If not, cut:
# `h = h.detach()` keeps the number and drops the history.

# %% exercise steps [markdown]
# **Exercise.** Repair this, so that it returns for each step the gradient of *that step's* loss `h
# ** 2` by `w`, with the `h` of the step before taken as a constant. (There is more than one mistake
# in it. Lesson 4 helps.)
#
#     def step_gradients(w, xs):
#         h = torch.zeros(())
#         gradients = []
#         for x in xs:
#             h = torch.tanh(w * h + x)
#             (h ** 2).backward()
#             gradients.append(w.grad)
#         return gradients


# %% solution steps
def step_gradients(w, xs):
    h = torch.zeros(())
    gradients = []
    for x in xs:
        h = torch.tanh(w * h.detach() + x)
        w.grad = None
        (h**2).backward()
        gradients.append(w.grad)
    return gradients


# %% check steps
lesson.check("steps", step_gradients)

# %% [markdown]
# ## Gradients of gradients
#
# `create_graph=True` records the backward itself, so that it can be differentiated. That needs the
# saved tensors too, so `retain_graph` is then True unless you say otherwise.

# %% code create
x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
y = x.pow(3)
(slope,) = torch.autograd.grad(y, x, torch.ones_like(y), create_graph=True)
(curvature,) = torch.autograd.grad(slope, x, torch.ones_like(slope))
print("3 x^2:", slope.detach(), "  6 x:", curvature)

# %% proof create
assert slope.tolist() == [3.0, 12.0, 27.0]
assert curvature.tolist() == [6.0, 12.0, 18.0]
kept = x.pow(3)
torch.autograd.grad(kept, x, torch.ones_like(kept), create_graph=True)
torch.autograd.grad(kept, x, torch.ones_like(kept))

# %% [markdown]
# ## Your own tensors
#
# What would a second backward on your own output need?

# %% yours
mine = torch.tensor([[0.1, 0.2], [0.3, 0.4]], requires_grad=True)
own_out = (mine @ mine).exp()

# %% code own
told = pb.explain(own_out, torch.ones_like(own_out), inputs={"mine": mine})
print(told.about("retain_graph")[0].text)
lesson.show(told.record)

# %% [markdown]
# ## What to keep
#
# - Backward frees what the forward pass saved, as it goes. A second backward fails where it needs
#   that.
# - `retain_graph=True` on every call but the last. It is unrelated to v.
# - After an error inside a backward, `.grad` may be half written.
# - In a loop, the error usually means state that was carried over: `detach()` it.

# %%
lesson.summary()
