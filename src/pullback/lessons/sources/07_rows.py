# %% [markdown]
# # 7. Rows of J and whole Jacobians
#
# A scalar has a gradient. A tensor of 20 entries has 20 of them, one per entry. Write each as a
# row, put the rows below one another, and you have the **Jacobian** J: a row per output entry, a
# column per input entry. Every backward pass is a product with that matrix, `v' J` (`v'` is v laid
# out as one row; lesson 2 wrote `v . J`), though nobody ever writes the matrix down. In this lesson
# we do write it down, and see that it is true:
#
# 1. one row of J is one backward pass with a one-hot cotangent;
# 2. all rows together are J;
# 3. `v' J` by matrix, by adding up what the backward pass moved, and by wiggling the input, are the
#    same numbers.

# %%
import torch

import pullback as pb
from pullback.lessons import open_lesson

lesson = open_lesson(7)

# %% code out
inp = torch.eye(4, 5, requires_grad=True)
out = (inp + 10).pow(3).t()
print("inp", tuple(inp.shape), "-> out", tuple(out.shape))

# %% [markdown]
# ## One row
#
# `out[0, 1]` is a single number, so it has an ordinary gradient with respect to all 20 entries of
# `inp`. To ask for it, put weight 1 on that entry and 0 on the others: a **one-hot** cotangent.

# %% predict row-nonzeros [markdown]
# **Predict.** How many entries of `inp` does `out[0, 1]` depend on?
#
# - a) 1
# - b) 4
# - c) 20

# %% reveal row-nonzeros
one_hot = pb.cotangents.one_hot(out, (0, 1))
record = pb.record(out, one_hot, inputs={"inp": inp})
print("v =", one_hot, sep="\n")
print("row of J, laid out as inp:", record.deposits["inp"], sep="\n")
nonzeros = int(record.deposits["inp"].count_nonzero())
lesson.reveal("row-nonzeros", a=nonzeros == 1, b=nonzeros == 4, c=nonzeros == 20)

# %% [markdown]
# One: `out[0, 1]` is `(inp[1, 0] + 10) ** 3`, because `.t()` swapped the indices, and its
# derivative there is `3 * 10 ** 2 = 300`. Row 0 of `out` is *column* 0 of `inp`: the transpose has
# not changed a number, but it has changed where the gradients land.

# %% proof
assert record.deposits["inp"][1, 0] == 3 * (inp[1, 0] + 10) ** 2 == 300

# %% exercise row [markdown]
# **Exercise.** Write `row(f, x, index)`: the gradient of the one entry `f(x)[index]`, with the
# shape of `x`. One backward pass is enough.


# %% solution row
def row(f, x, index):
    out, pull = pb.vjp(f, x)
    return pull(pb.cotangents.one_hot(out, index))[0]


# %% check row
lesson.check("row", row)

# %% [markdown]
# ## All rows
#
# `out` has 20 entries, so J has 20 rows; `inp` has 20 entries, so it has 20 columns. The rule that
# turns tensors into a matrix is: count entries in C order, last index fastest. Entry `out[i, j]` is
# row `4 i + j`; entry `inp[j, i]` is column `5 j + i`.

# %% predict places [markdown]
# **Predict.** Row 1 of J belongs to `out[0, 1]`. In which column is its nonzero?
#
# - a) 1
# - b) 4
# - c) 5


# %% reveal places
def f(t):
    return (t + 10).pow(3).t()


point = inp.detach()
_, pull = pb.vjp(f, point)
rows = pull.batched(pb.cotangents.basis(out))[0]  # (20, 4, 5): 20 rows, each laid out as inp
J = rows.reshape(20, 20)
print(pb.SparsityPattern.from_torch(J))
print("row 1 is nonzero in column", J[1].nonzero().flatten().tolist())
print("values:", {value: int(J.eq(value).sum()) for value in (300.0, 363.0)})
column = int(J[1].nonzero())
lesson.reveal("places", a=column == 1, b=column == 4, c=column == 5)

# %% code picture
lesson.show({"J as a 20 x 20 matrix": J})

# %% [markdown]
# Column 5: `inp[1, 0]`. Each row holds one number: 300 for the 16 entries of `inp` that are 0, and
# 363 for the 4 ones on its diagonal. That is 21 % more, a difference and no dominance. A matrix of
# 400 numbers of which 20 are not zero is a waste to form; this is why autograd multiplies with it
# instead. `pb.jacobian(f)` gives J with the shape `(*out.shape, *inp.shape)`, as
# `torch.func.jacrev` does:

# %%
tensor = pb.jacobian(f)(point)
print(tuple(tensor.shape), torch.equal(tensor.reshape(20, 20), J))

# %% proof
assert J.shape == (20, 20)
assert torch.equal(J.count_nonzero(dim=1), torch.ones(20, dtype=torch.long))
assert (int((J == 300).sum()), int((J == 363).sum())) == (16, 4)
assert 363 / 300 == 1.21
assert all(J[4 * i + j, 5 * j + i] > 0 for i in range(5) for j in range(4))

# %% exercise full [markdown]
# **Exercise.** Write `full(f, x)`: the Jacobian as a matrix, with `f(x).numel()` rows and
# `x.numel()` columns. Try it with torch alone: one backward pass per entry of the output.


# %% solution full
def full(f, x):
    x = x.detach().requires_grad_()
    out = f(x)
    rows = []
    for entry in out.reshape(-1):
        (gradient,) = torch.autograd.grad(entry, x, retain_graph=True)
        rows.append(gradient.reshape(-1))
    return torch.stack(rows)


# %% check full
lesson.check("full", full)

# %% [markdown]
# ## First way: the matrix
#
# With J in hand, `v' J` is school algebra: lay `v` out as a vector, multiply, lay the result out as
# the input. Whoever writes `v^T out` for tensors means the same laying out: the sum over all
# entries of `v * out`.

# %%
v = pb.cotangents.rows(out, {0: 1.0, 1: 0.5})
by_matrix = (v.reshape(-1) @ J).reshape(point.shape)
by_backward = pull(v)[0]
print(by_matrix)
print("equal to backward(v):", torch.equal(by_matrix, by_backward))

# %% exercise weigh [markdown]
# **Exercise.** `J` is a matrix (m, n), `v` a tensor with m entries, of any shape, and `x` the input
# with n entries. Write `weigh(v, J, x)`: `v' J`, laid out as `x`.


# %% solution weigh
def weigh(v, J, x):
    return (v.reshape(-1) @ J).reshape(x.shape)


# %% check weigh
lesson.check("weigh", weigh)

# %% [markdown]
# ## Second way: the ledger of the pass
#
# Backward never sees J. It sends the cotangent from node to node, each node multiplies with its own
# small Jacobian, and where two paths meet their contributions are added. Here `inp` is used twice:

# %%
inp = torch.eye(4, 5, requires_grad=True)
with pb.trace():
    out = (inp + 1).pow(2).t() @ inp
v = torch.arange(25.0).reshape(5, 5)
record = pb.record(out, v, inputs={"inp": inp}, keep="tensors")
print(record)

# %% predict contributions [markdown]
# **Predict.** How many contributions are added up to make the deposit on `inp`?
#
# - a) 1
# - b) 2
# - c) 4

# %% reveal contributions
leaf = record.leaf("inp").node
arrived = record.incoming()[leaf]
for edge in arrived:
    print("from", record.nodes[edge.source].name)
    print(edge.contribution.values)
lesson.reveal("contributions", a=len(arrived) == 1, b=len(arrived) == 2, c=len(arrived) == 4)

# %% [markdown]
# Two, one for each use: from the matrix product directly, and through the square. Their sum is the
# deposit, to the last bit; that is what "conserved" under the record says, for every node of it.

# %% proof
assert torch.equal(sum(e.contribution.values for e in arrived), record.deposits["inp"])
assert record.conserved
assert record.conservation_error == 0

# %% exercise ledger [markdown]
# **Exercise.** Write `from_ledger(record, name)`: for a record made with `keep="tensors"`, the sum
# of what arrived at the leaf of that name. (`record.deposits[name]` would be right, and would teach
# you nothing: get there from the contributions.)


# %% solution ledger
def from_ledger(record, name):
    arrived = record.incoming()[record.leaf(name).node]
    return sum(edge.contribution.values for edge in arrived)


# %% check ledger
lesson.check("ledger", from_ledger)

# %% [markdown]
# ## Third way: wiggle the input
#
# `v' J` is the gradient of one scalar, `phi(x) = sum(v * f(x))`. So wiggle one entry of x by a
# small h, up and down, and divide by 2 h. This needs no calculus and no graph, only that the
# function can be evaluated: it is the witness that shares no code with autograd. Use float64: in
# float32 the difference of two nearly equal numbers has hardly a digit left.


# %%
def phi(x):
    return float((v.double() * ((x + 1).pow(2).t() @ x)).sum())


x = inp.detach().double()
e = torch.zeros_like(x)
e[1, 1] = 1.0
for h in (1e-1, 1e-5, 1e-13):
    print(h, (phi(x + h * e) - phi(x - h * e)) / (2 * h))
print("backward:", float(record.deposits["inp"][1, 1]))

# %% [markdown]
# A large h sees the curve bend (97.06), a tiny one drowns in rounding; for central differences in
# float64, h near 1e-5 serves well. There, ten digits are right.

# %% proof
wiggled = {h: (phi(x + h * e) - phi(x - h * e)) / (2 * h) for h in (1e-1, 1e-5, 1e-13)}
assert record.deposits["inp"][1, 1] == 97
assert abs(wiggled[1e-1] - 97.06) < 1e-6
assert abs(wiggled[1e-5] - 97) < 97e-10
assert abs(wiggled[1e-13] - 97) > 1e-3

# %% exercise differences [markdown]
# **Exercise.** Write `differences(f, x, v)`: `v' J`, laid out as `x`, by central differences alone.
# `x` and `v` are float64.


# %% solution differences
def differences(f, x, v):
    h = 1e-5
    gradient = torch.zeros_like(x)
    for k in range(x.numel()):
        step = torch.zeros_like(x)
        step.view(-1)[k] = h
        gradient.view(-1)[k] = (v * (f(x + step) - f(x - step))).sum() / (2 * h)
    return gradient


# %% check differences
lesson.check("differences", differences)

# %% [markdown]
# ## Your own
#
# Now a function that you care about. It takes one float64 tensor and returns a tensor of more than
# one entry; `own_v` has the shape of what it returns. Change all three, and look at what the three
# ways give, side by side.


# %% yours
def own_function(x):
    return torch.softmax(x, dim=1) * x.sum(dim=0)


own_x = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4)
own_v = pb.cotangents.rows(own_function(own_x), {0: 5.0, 1: 1.0})

# %% code three
matrix = pb.jacobian(own_function)(own_x).reshape(own_v.numel(), own_x.numel())
leaf = own_x.clone().requires_grad_()
seen = pb.record(own_function(leaf), own_v, inputs={"x": leaf}, keep="tensors")
steps = 1e-5 * torch.eye(own_x.numel(), dtype=torch.float64).reshape(-1, *own_x.shape)
wiggles = [(own_v * (own_function(own_x + s) - own_function(own_x - s))).sum() for s in steps]
three = {
    "matrix": (own_v.reshape(-1) @ matrix).reshape(own_x.shape),
    "ledger": sum(e.contribution.values for e in seen.incoming()[seen.leaf("x").node]),
    "differences": torch.stack(wiggles).reshape(own_x.shape) / 2e-5,
}
lesson.show(three)
print("largest gap:", float((three["matrix"] - three["differences"]).abs().max()))

# %% exercise mine [markdown]
# **Exercise.** Find another function, and let the check compare the three ways: give `my_f`, `my_x`
# (float64) and `my_v`. If backward and differences disagree on it, you have found something worth
# knowing about your function.


# %% solution mine
def my_f(x):
    return (x.outer(x) + 1).log()


my_x = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
my_v = pb.cotangents.one_hot(my_f(my_x), (0, 2))

# %% check mine
lesson.check("mine", (my_f, my_x, my_v))

# %% [markdown]
# ## What to keep
#
# - Row k of J is one backward pass with a one-hot cotangent; J costs as many passes as `out` has
#   entries. (The next lesson: or as many forward products as the input has.)
# - `backward(v)` is `v' J` without J: one pass, whatever the size of J.
# - What arrives at a leaf is a sum over the paths that lead to it.
# - Central differences in float64 are the independent witness.

# %%
lesson.summary()
