# %% [markdown]
# # 1. From one number to many
#
# You know the everyday case: a model ends in one number, the loss; you call `loss.backward()`, and
# every parameter finds its gradient in `.grad`.
#
# But many computations end in a *tensor*: a field, an image, a batch of predictions. What is the
# gradient of twenty numbers? This lesson gives the answer that the other twelve build on.

# %%
import torch

import pullback as pb
from pullback.lessons import open_lesson

lesson = open_lesson(1)

# %% [markdown]
# ## One number has one gradient
#
# Start where all is well. `inp` has ones on its diagonal and zeros elsewhere. With
# `requires_grad=True`, torch writes down every operation that `inp` goes into from now on, so that
# it can later walk back through them.

# %% code eye
inp = torch.eye(4, 5, requires_grad=True)
print(inp)

loss = (inp + 1).pow(2).sum()
loss.backward()
print("loss =", loss.item())
print(inp.grad)

# %% proof eye
assert inp.detach().tolist() == [[float(i == j) for j in range(5)] for i in range(4)]
assert loss.item() == 32
assert torch.equal(inp.grad, 2 * (inp.detach() + 1))
assert inp.grad.shape == inp.shape

# %% [markdown]
# The gradient has the shape of `inp`, one partial derivative per entry: the derivative of the loss
# by `inp[i, j]` stands at `[i, j]`. Here it is `2 (inp + 1)`: 4 on the diagonal, 2 elsewhere.
#
# You passed nothing to `backward()`. Torch did not do without: it filled something in.

# %% predict implicit [markdown]
# **Predict.** `loss.backward(w)` also works, with a number `w` in a tensor. Which `w` gives the
# same gradient as `loss.backward()` without an argument?
#
# - a) `w = 0`
# - b) `w = 1`
# - c) `w = loss`

# %% reveal implicit
gradients = {}
for name, w in {"none": None, "0": 0.0, "1": 1.0, "loss": loss.item()}.items():
    inp.grad = None
    loss = (inp + 1).pow(2).sum()
    loss.backward(None if w is None else torch.tensor(w))
    gradients[name] = inp.grad
    print(f"w = {name:4}  inp.grad[0] = {inp.grad[0].tolist()}")
lesson.reveal(
    "implicit",
    a=torch.equal(gradients["0"], gradients["none"]),
    b=torch.equal(gradients["1"], gradients["none"]),
    c=torch.equal(gradients["loss"], gradients["none"]),
)

# %% [markdown]
# A weight of 1 is assumed. It may be assumed because there is one number, and its weight only
# scales the answer. Keep this weight in mind: for a tensor output it grows into the *cotangent*
# `v`, which other texts call the upstream gradient.

# %% [markdown]
# ## Many numbers
#
# Now drop the `.sum()` and turn the result around. Three operations: add 1 to every entry, square
# every entry (this one is not linear), transpose.

# %% predict shape [markdown]
# **Predict.** `inp` has shape `(4, 5)`. What is the shape of `out = (inp + 1).pow(2).t()`, and how
# many different values does it hold?
#
# - a) `(4, 5)`, with the values 1 and 2
# - b) `(5, 4)`, with the values 1 and 4
# - c) `()`, one value: it is a loss

# %% reveal shape
inp = torch.eye(4, 5, requires_grad=True)
out = (inp + 1).pow(2).t()
print(out)
values = out.unique().tolist()
lesson.reveal(
    "shape",
    a=out.shape == (4, 5) and values == [1, 2],
    b=out.shape == (5, 4) and values == [1, 4],
    c=out.shape == (),
)

# %% [markdown]
# `t()` swaps the axes, so `out[i, j]` is `(inp[j, i] + 1) ** 2`. Row 0 of `out` is column 0 of
# `inp`. That small turn will matter each time we ask where a gradient lands.

# %% predict refused [markdown]
# **Predict.** What does `out.backward()` do?
#
# - a) it puts twenty gradients into `inp.grad`
# - b) it differentiates the sum of `out`
# - c) it raises an error

# %% reveal refused
error = None
try:
    out.backward()
except RuntimeError as raised:
    error = raised
print("error:", error)
print("inp.grad:", inp.grad)
lesson.reveal(
    "refused",
    a=inp.grad is not None and inp.grad.shape == (20, 4, 5),
    b=inp.grad is not None and inp.grad.shape == (4, 5),
    c=error is not None,
)

# %% proof refused
assert str(error) == "grad can be implicitly created only for scalar outputs"
assert inp.grad is None

# %% [markdown]
# It refuses, and touches nothing. "Implicitly created" is the weight 1 from above: for twenty
# numbers torch would have to make up twenty weights, and will not guess. (`out.sum()` would have
# meant "weight 1 for each". That is a choice, and it is yours to make.)
#
# What torch calls a scalar here is a tensor of *one element*; it may have axes:

# %% code one-element
one = (inp[:1, :1] + 1).pow(2)
one.backward()
print("shape", tuple(one.shape), "is accepted; inp.grad[0, 0] =", inp.grad[0, 0].item())

# %% proof one-element
assert one.shape == (1, 1)
assert inp.grad[0, 0] == 4
assert int((inp.grad != 0).sum()) == 1

# %% [markdown]
# ## So does a tensor have a gradient?
#
# People say that the gradient of a tensor "is not defined". More exactly: *one* gradient is not
# enough. Every entry of `out` is a number, so every entry has an ordinary gradient, of the shape of
# `inp`. Written as rows below one another they make the **Jacobian** matrix J: a row per entry of
# the output, a column per entry of the input. It is perfectly well defined. It is just large.

# %% predict size [markdown]
# **Predict.** `out` has 20 entries and `inp` has 20. How many numbers does J hold?
#
# - a) 20
# - b) 40
# - c) 400

# %% reveal size
J = pb.jacobian(lambda x: (x + 1).pow(2).t())(inp.detach())
print("torch's layout:", tuple(J.shape), "  as a matrix:", tuple(J.reshape(20, 20).shape))
print("entries:", J.numel(), "  not zero:", int((J != 0).sum()))
lesson.reveal("size", a=J.numel() == 20, b=J.numel() == 40, c=J.numel() == 400)

# %% proof size
assert J.shape == (5, 4, 4, 5)
assert int((J != 0).sum()) == 20
picture = 256 * 256
assert picture == 65_536
assert 17 < picture * picture * 4 / 1e9 < 17.2
assert 0.25 < picture * 4 / 1e6 < 0.27

# %% [markdown]
# 400, of which 20 are not zero: every output entry looks at one input entry. For an operation on
# 256 x 256 pictures, J has 65,536 rows and as many columns, and takes 17 gigabytes in float32,
# though the picture itself takes a quarter of a megabyte. That is why `backward` does not build it.
# What it does instead is lesson 2.

# %% code heat
lesson.show({"J as a 20 x 20 matrix": J.reshape(20, 20)})

# %% exercise size [markdown]
# **Exercise.** Write `jacobian_size(out_shape, inp_shape)`: how many numbers the Jacobian holds,
# for shapes given as tuples such as `(5, 4)`. Shapes may have any number of axes; `()` is the shape
# of a single number.


# %% solution size
def jacobian_size(out_shape, inp_shape):
    return torch.Size(out_shape).numel() * torch.Size(inp_shape).numel()


# %% check size
lesson.check("size", jacobian_size)

# %% [markdown]
# ## Your own tensors
#
# Change the tensor, the function, or both. The function may return any shape you like.

# %% yours
mine = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.0, 3.0]])


def own_function(x):
    return x.exp() @ x.t()


# %% code own
result = own_function(mine)
print(f"in {tuple(mine.shape)}, out {tuple(result.shape)}")
J = pb.jacobian(own_function)(mine)
print("J has", J.numel(), "entries;", int((J != 0).sum()), "are not zero at this point")
lesson.show({"J": J.reshape(result.numel(), mine.numel())})

# %% [markdown]
# ## One entry at a time
#
# If a tensor has a gradient per entry, you can ask for one of them with what you already know: pick
# the entry, and you hold a single number again.

# %% code pick
inp = torch.eye(4, 5, requires_grad=True)
out = (inp + 1).pow(2).t()
out[0, 0].backward()
print(inp.grad)

# %% proof pick
assert inp.grad[0, 0] == 4
assert int((inp.grad != 0).sum()) == 1

# %% exercise entry [markdown]
# **Exercise.** Write `gradient_of_entry(f, x, index)`: the gradient of the one number `f(x)[index]`
# by `x`, as a tensor of the shape of `x`. `f` takes a tensor and returns a tensor; `index` is a
# tuple with one number per axis of `f(x)`; `x` requires grad, and its `.grad` is still None.


# %% solution entry
def gradient_of_entry(f, x, index):
    f(x)[index].backward()
    return x.grad


# %% check entry
lesson.check("entry", gradient_of_entry, own_function, mine)

# %% [markdown]
# ## What to keep
#
# - One number has one gradient, of the shape of the input; its weight 1 is filled in for you.
# - A tensor has a gradient *per entry*. All of them together are the Jacobian, `out.numel()` rows
#   and `inp.numel()` columns.
# - `backward()` without an argument refuses a tensor of more than one element, because it would
#   have to guess how to weigh the entries.

# %%
lesson.summary()
