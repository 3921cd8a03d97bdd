# %% [markdown]
# # 2. Why backward needs v
#
# In lesson 1, `out.backward()` refused: `out` holds twenty numbers, so there are twenty gradients.
# Now we give torch the argument it asks for, and find out exactly what comes back. There is one
# idea in this lesson, and it is worth having precisely: **backward(v) is the gradient of one
# number, the sum of all entries of out, each weighed with v.**

# %%
import torch

import pullback as pb
from pullback.lessons import open_lesson

lesson = open_lesson(2)

inp = torch.eye(4, 5, requires_grad=True)
out = (inp + 1).pow(2).t()

# %% [markdown]
# ## What you may have meant
#
# Leave v away with `pullback`, and the refusal offers three choices, each with what it would give:

# %% code offers
try:
    pb.explain(out)
except pb.CotangentError as refusal:
    offered = str(refusal)
print(offered)

# %% proof offers
assert "torch.ones_like(out)" in offered
assert "the gradient of out.sum()" in offered
assert "the gradient of out.mean()" in offered
assert "(0, 0)" in offered

# %% [markdown]
# The sum, the mean, a single entry: three different questions, three different answers. None of
# them is *the* gradient of `out`. The argument v says which one you want.
#
# v has one weight per entry of `out`. It is called the **cotangent** (also: upstream gradient).

# %% predict shape [markdown]
# **Predict.** `inp` is `(4, 5)`, `out` is `(5, 4)`. Which of these does `out.backward(v,
# retain_graph=True)` accept?
#
# - a) a single number, `torch.tensor(1.0)`: it is spread over all entries
# - b) ones of the shape of `inp`, `(4, 5)`: one weight per entry of the gradient
# - c) ones of the shape of `out`, `(5, 4)`: one weight per entry of the output

# %% reveal shape
accepted = {}
for name, v in {"a": torch.tensor(1.0), "b": torch.ones(4, 5), "c": torch.ones(5, 4)}.items():
    try:
        out.backward(v, retain_graph=True)
        accepted[name] = True
        print(f"{name}) {tuple(v.shape)} is accepted")
    except RuntimeError as refusal:
        accepted[name] = False
        print(f"{name}) {tuple(v.shape)}: {refusal}")
lesson.reveal("shape", **accepted)

# %% [markdown]
# v belongs to the *output*: it is paired with `out` entry by entry, and nothing is broadcast. The
# gradient that comes back belongs to the *input* and has its shape.
#
# ## What comes back
#
# `torch.ones_like(out)` weighs every entry with 1.

# %% code ones
inp.grad = None
out.backward(torch.ones_like(out), retain_graph=True)
print(inp.grad)

# %% predict ones [markdown]
# **Predict.** Which single number has this gradient?
#
# - a) `out.sum()`
# - b) `out.mean()`
# - c) `out.max()`

# %% reveal ones
by_ones = inp.grad
of_number = {}
for name, number in {"sum": out.sum(), "mean": out.mean(), "max": out.max()}.items():
    (of_number[name],) = torch.autograd.grad(number, inp, retain_graph=True)
    print(f"out.{name}(): row 0 of its gradient is {of_number[name][0]}")
lesson.reveal(
    "ones",
    a=torch.equal(of_number["sum"], by_ones),
    b=torch.equal(of_number["mean"], by_ones),
    c=torch.equal(of_number["max"], by_ones),
)

# %% [markdown]
# And so for every v. Multiply `out` by v entry by entry, add everything up, and you hold one
# number:
#
#     v . out = sum over all i, j of v[i, j] * out[i, j]
#
# `backward(v)` computes the gradient of that number, with v held constant. In many texts you will
# read `v^T out`. For vectors that is the same. For matrices, mind the difference: the matrix
# product `v.t() @ out` is a 4 x 4 matrix, not a number. What is meant is the sum over *all*
# entries, as if both had been flattened into vectors first.

# %% code any-v
v = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
(by_backward,) = torch.autograd.grad(out, inp, v, retain_graph=True)
(by_sum,) = torch.autograd.grad((v * out).sum(), inp, retain_graph=True)
print("equal to the last bit:", torch.equal(by_backward, by_sum))
print("v.t() @ out has shape", tuple((v.t() @ out).shape))
flat = v.flatten() @ out.flatten()
print(f"flattened, v . out = {flat.item():.4f};  (v * out).sum() = {(v * out).sum().item():.4f}")

# %% proof any-v
assert torch.equal(by_backward, by_sum)
assert (v.t() @ out).shape == (4, 4)
torch.testing.assert_close(flat, (v * out).sum())

# %% exercise by-sum [markdown]
# **Exercise.** Write `vjp(f, x, v)`: what `f(x).backward(v)` would put into `x.grad`, returned as a
# tensor. You may do it without passing v to `backward` at all. `x` requires grad, `v` has the shape
# of `f(x)`, and neither is always a matrix.


# %% solution by-sum
def vjp(f, x, v):
    weighed = (v * f(x)).sum()
    weighed.backward()
    return x.grad


# %% check by-sum
lesson.check("by-sum", vjp)

# %% [markdown]
# ## Where the name comes from
#
# Flatten `out` and `inp` into vectors of 20, and let J be the Jacobian of lesson 1, 20 x 20. The
# gradient of `v . out` is the row vector v times the matrix J: a **vector-Jacobian product**, VJP
# for short. Row k of J is the gradient of entry k of `out`, so `v . J` adds up the rows of J, each
# with its weight.

# %% code matrix
J = pb.jacobian(lambda x: (x + 1).pow(2).t())(inp.detach()).reshape(20, 20)
by_matrix = (v.flatten() @ J).reshape(4, 5)
print("largest difference:", (by_matrix - by_backward).abs().max().item())
lesson.show({"v": v, "v . J, laid out as inp": by_backward})

# %% proof matrix
torch.testing.assert_close(by_matrix, by_backward)
assert torch.equal(by_backward, v.t() * 2 * (inp.detach() + 1))

# %% [markdown]
# Look at the two pictures: at `[j, i]` below stands `v[i, j]`, times 4 on the diagonal and times 2
# elsewhere. `backward` got there without the 400 numbers of J. It went back through the three
# operations, and each one turned a tensor of 20 into a tensor of 20:

# %% code tree
print(pb.record(out, v, inputs={"inp": inp}))

# %% [markdown]
# ## Twice the weight, twice the gradient
#
# A product with a matrix is *linear* in v, however curved `f` may be.

# %% predict linear [markdown]
# **Predict.** `v` gives the gradient g, `w` gives h. What does `3 * v - w` give?
#
# - a) `3 * g - h`
# - b) `9 * g - h`, because `f` squares
# - c) one cannot tell without another backward

# %% reveal linear
w = torch.ones_like(out)
(g,) = torch.autograd.grad(out, inp, v, retain_graph=True)
(h,) = torch.autograd.grad(out, inp, w, retain_graph=True)
(both,) = torch.autograd.grad(out, inp, 3 * v - w, retain_graph=True)
as_sum = torch.allclose(both, 3 * g - h, atol=1e-5)
as_square = torch.allclose(both, 9 * g - h, atol=1e-5)
print("3 g - h:", (3 * g - h)[0])
print("found  :", both[0])
lesson.reveal("linear", a=as_sum, b=as_square, c=not (as_sum or as_square))

# %% [markdown]
# The squaring made J; once J stands, v meets it linearly. So `out.mean()` is `v = 1/20` everywhere,
# and a thousand questions about one output can be answered from 20 products.
#
# ## Where v comes from in training
#
# In a training loop you never write v, and yet every layer receives one. Let a loss follow: `L =
# loss(out)`. By the chain rule the gradient of L by `inp` is `v . J` with `v = dL/dout`. The
# backward pass of the loss computes this v, and hands it up the stream: hence "upstream gradient".

# %% exercise upstream [markdown]
# **Exercise.** Write `upstream(out, target)`: the v for which `out.backward(v)` does the same as
# `((out - target) ** 2).mean().backward()`. Both tensors have the same shape, any shape.


# %% solution upstream
def upstream(out, target):
    return 2 * (out - target).detach() / out.numel()


# %% check upstream
lesson.check("upstream", upstream)

# %% [markdown]
# ## What v has nothing to do with
#
# A common guess: "I need an argument because I want to call `backward` several times", or "because
# of `retain_graph=True`". Try all four.

# %% predict retain [markdown]
# **Predict.** Which calls on a fresh `out` go through?
#
# - a) those with `retain_graph=True`, with or without v
# - b) those with v, with or without `retain_graph=True`
# - c) only the one with both

# %% reveal retain
works = {}
for given in (True, False):
    for retain in (True, False):
        fresh = (inp + 1).pow(2).t()
        try:
            fresh.backward(torch.ones_like(fresh) if given else None, retain_graph=retain)
            works[given, retain] = True
        except RuntimeError:
            works[given, retain] = False
        print(f"v given: {given!s:5}  retain_graph: {retain!s:5}  works: {works[given, retain]}")
lesson.reveal(
    "retain",
    a=all(works[given, retain] == retain for given, retain in works),
    b=all(works[given, retain] == given for given, retain in works),
    c=all(works[given, retain] == (given and retain) for given, retain in works),
)

# %% [markdown]
# v is needed because `out` is not a single number, and for no other reason. What `retain_graph` is
# for is lesson 5.
#
# ## Your own tensors
#
# Change the tensor, the function, the weights.

# %% yours
mine = torch.tensor([0.5, 1.0, 2.0], requires_grad=True)
own_out = torch.stack([mine.sin(), mine.exp()])
own_v = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])

# %% code own
told = pb.explain(own_out, own_v, inputs={"mine": mine})
for topic in ("meaning", "deposits", "rows"):
    for statement in told.about(topic):
        print("-", statement.text)
lesson.show(told.record)

# %% [markdown]
# ## What to keep
#
# - v has the shape of the output: a weight per entry.
# - `backward(v)` computes the gradient of `(v * out).sum()`, that is `v . J`, without forming J.
# - `ones` means the sum, `ones / n` the mean, a one-hot v a single entry (a row of J).
# - It is linear in v. It is not about calling `backward` twice.

# %%
lesson.summary()
