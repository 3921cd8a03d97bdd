# %% [markdown]
# # 9. Sparse Jacobians and coloring
#
# A Jacobian of m rows takes m backward passes, one of n columns takes n forward ones. For a grid of
# 512 x 512 points that is 262,144 of them. But at each point such a program looks at its neighbors
# and at nothing else, so nearly all of J is zero, at every input. If you know *where* it is zero, a
# handful of products give all of it. This lesson does it by hand first.

# %%
import torch

import pullback as pb
from pullback.lessons import open_lesson

lesson = open_lesson(9)

# %% [markdown]
# ## A pattern
#
# `f` mixes each entry with its left and right neighbor. Row i of J can be nonzero in columns i -
# 1, i and i + 1 only: J is *tridiagonal*. `pb.plan_jacobian` finds this out from what backward
# does.


# %% code pattern
def f(x):
    left = torch.nn.functional.pad(x[:-1], (1, 0))
    right = torch.nn.functional.pad(x[1:], (0, 1))
    return x**3 + left * x - right**2


x = torch.arange(-3, 3, 0.5, dtype=torch.float64)
plan = pb.plan_jacobian(f, x, lift=False)
lesson.show(plan.pattern)
print(plan.pattern.nnz, "places of", 12 * 12, "may be nonzero")

# %% proof pattern
assert plan.pattern.nnz == 3 * 12 - 2 == 34
band = (plan.pattern.rows - plan.pattern.cols).abs()
assert int(band.max()) == 1

# %% [markdown]
# ## Several columns in one product
#
# Push a tangent that is 1 at entries 0, 3, 6 and 9, all at once. `J t` is then the sum of columns
# 0, 3, 6 and 9. Sums usually lose something. These do not: no row has an entry in two of them.

# %% code together
J = pb.jacobian(f)(x)
t = torch.zeros(12, dtype=torch.float64)
t[[0, 3, 6, 9]] = 1
sums = pb.jvp(f, (x,), (t,))[1]
picked = J[:, [0, 3, 6, 9]]
lesson.show({"columns 0, 3, 6, 9 of J; J t (each as a row)": torch.stack([*picked.T, sums])})
print("nonzeros of those columns in each row:", (picked != 0).sum(1).tolist())

# %% proof together
assert int((picked != 0).sum(1).max()) == 1
assert torch.allclose(picked.sum(1), sums)
assert 512 * 512 == 262_144

# %% [markdown]
# Columns that share no row may share a product. Give each column a **color**, so that two columns
# that share a row get different ones: the number of colors is the number of products.

# %% predict products [markdown]
# **Predict.** How many products does the tridiagonal Jacobian of 1000 rows and columns take, done
# in this way?
#
# - a) 1000
# - b) 334, a third
# - c) 3

# %% reveal products
large = pb.plan_jacobian(f, torch.linspace(-1, 1, 1000), mode="fwd", lift=False)
print(large)
count = large.num_products
lesson.reveal("products", a=count == 1000, b=count == 334, c=count == 3)

# %% [markdown]
# Three, however large it is. All rows but the first and the last have entries in three columns,
# which need three colors, so coloring cannot do with fewer.

# %% exercise colors [markdown]
# **Exercise.** Write `colors(n)`: a list of n colors, numbers from 0, for the columns of a
# tridiagonal n x n matrix. Columns that share a row get different colors, and there are no more
# than 3.


# %% solution colors
def colors(n):
    return [column % 3 for column in range(n)]


# %% check colors
lesson.check("colors", colors)

# %% exercise compress [markdown]
# **Exercise.** Write `compress(f, x, colors)`: the matrix `B` of shape (m, k), k the number of
# colors; its column c is the product of J with the tangent that is 1 at the entries of color c.


# %% solution compress
def compress(f, x, colors):
    colors = torch.as_tensor(colors)
    tangents = [(colors == c).to(x.dtype) for c in range(int(colors.max()) + 1)]
    return torch.stack([pb.jvp(f, (x,), (t,))[1] for t in tangents], dim=1)


# %% check compress
lesson.check("compress", compress)

# %% [markdown]
# ## Read the entries back
#
# All entries of J are now in B. Entry (i, j) is in row i, and in the column that belongs to the
# color of column j. There is no more to it: coloring is bookkeeping, and the values are exact.

# %% exercise read-back [markdown]
# **Exercise.** Write `read_back(B, rows, cols, colors)`: the values of the entries at `rows[e]`,
# `cols[e]`, as a vector. All four are tensors; `rows` and `cols` as a `SparsityPattern` has them.


# %% solution read-back
def read_back(B, rows, cols, colors):
    return B[rows, colors[cols]]


# %% check read-back
lesson.check("read-back", read_back)

# %% [markdown]
# ## Columns, rows, or both
#
# With VJPs the same is done for rows: rows that share no column may share one. It depends on the
# pattern which is better. Here is one on which both fail: an arrow, with a full row *and* a full
# column.


# %% code arrow
def arrow(x):
    return torch.cat([x.square().sum()[None], x[1:] ** 3 * x[0]])


arrow_pattern = pb.plan_jacobian(arrow, x).pattern
lesson.show(arrow_pattern)

# %% predict arrow [markdown]
# **Predict.** The full row puts all columns into one row, the full column all rows into one column.
# So columns alone take 12 products, and rows alone take 12. And some columns *and* some rows
# together?
#
# - a) 12
# - b) 3
# - c) 2

# %% reveal arrow
needed = {by: pb.color(arrow_pattern, by).num_colors for by in ("columns", "rows", "bidirectional")}
print(needed)
count = needed["bidirectional"]
lesson.reveal("arrow", a=count == 12, b=count == 3, c=count == 2)

# %% proof arrow
assert needed == {"columns": 12, "rows": 12, "bidirectional": 3}

# %% [markdown]
# One VJP for the full row; one JVP for the full column; one more JVP for the diagonal, whose
# columns share no row once the full row is out of the way. `pb.plan_jacobian` tries all of this,
# and more.

# %% [markdown]
# ## What lifting does
#
# `(x[1:] - x[:-1]) ** 2` has two nonzeros in each row, so coloring needs 2 products. But look at
# how it is made: first differences, `d = D x`, with a matrix D that never changes; then a square,
# entry by entry. By the chain rule `J = F D`, and F, the Jacobian of the square, is *diagonal*. All
# that depends on x are its 11 numbers, and one product gives them. The rest of J was known
# beforehand.

# %% predict lifted [markdown]
# **Predict.** A plan that takes such fixed parts out of the derivative is *lifted*. How many
# products does a lifted plan take for `(x[1:] - x[:-1]) ** 2`?
#
# - a) 1
# - b) 2
# - c) 11

# %% reveal lifted
lifted_plan = pb.plan_jacobian(lambda x: (x[1:] - x[:-1]) ** 2, x)
print(lifted_plan)
count = lifted_plan.num_products
lesson.reveal("lifted", a=count == 1, b=count == 2, c=count == 11)

# %% proof lifted
assert lifted_plan.lifted
assert pb.plan_jacobian(lambda x: (x[1:] - x[:-1]) ** 2, x, lift=False).num_products == 2
assert pb.plan_jacobian(f, x).num_products == 1

# %% exercise lifted [markdown]
# **Exercise.** `f(x) = F(D @ x)` with a fixed matrix `D` and a function `F` that acts entry by
# entry. Write `lifted(F, D, x)`: the Jacobian of `f` at `x`, by one VJP of F and D.


# %% solution lifted
def lifted(F, D, x):
    value, pull = pb.vjp(F, D @ x)
    (diagonal,) = pull(torch.ones_like(value))
    return diagonal[:, None] * D


# %% check lifted
lesson.check("lifted", lifted)

# %% [markdown]
# Programs of this form are everywhere: stencils, graphs, finite elements. The tridiagonal `f` above
# takes 1 product lifted, and 3 by coloring.

# %% [markdown]
# ## A zero that is not always zero
#
# Why not take a pattern from the numbers: compute J once, look where it is zero?


# %% code product
def g(x):
    return x * x.roll(1)


origin = torch.zeros(6, dtype=torch.float64)
numbers = pb.jacobian(g)(origin)
print("nonzero numbers at the origin:", int(numbers.count_nonzero()))

# %% predict everywhere [markdown]
# **Predict.** Each output of `g` is a product of two entries. At the origin every derivative is 0.
# How many places does the *plan* have that is made at the origin?
#
# - a) 0: the matrix is zero there
# - b) 12: two in each row
# - c) 36: nothing can be known at such a point

# %% reveal everywhere
at_origin = pb.plan_jacobian(g, origin)
places = at_origin.pattern.nnz
print(at_origin.pattern)
lesson.reveal("everywhere", a=places == 0, b=places == 12, c=places == 36)

# %% code elsewhere
point = torch.arange(1.0, 7.0, dtype=torch.float64)
J = pb.jacobian(g, plan=at_origin)(point).to_dense()
print("the plan of the origin, used elsewhere:", torch.equal(J, pb.jacobian(g)(point)))

# %% proof everywhere
assert int(numbers.count_nonzero()) == 0
assert torch.equal(J, pb.jacobian(g)(point))

# %% [markdown]
# A plan says where J **may** be nonzero, at any point of these shapes. A weight that happens to be
# zero today does not cut an entry. Where `pullback` cannot know, it takes the entry in: a zero too
# few costs time, a zero too many would be a wrong matrix. What a pattern of numbers at one unlucky
# point does:

# %% exercise blind [markdown]
# **Exercise.** Give `blind`, a float64 point of 6 entries at which `g` has *fewer* than 12 nonzero
# derivatives, but not none. (A pattern taken from the numbers there would be wrong elsewhere.)

# %% solution blind
blind = torch.tensor([1.0, 0.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64)

# %% check blind
lesson.check("blind", blind)

# %% [markdown]
# If you bring a pattern of your own, `pb.verify` tries it against autograd. This one has the
# diagonal alone:

# %% code verify
diagonal = pb.plan_jacobian(f, x, pattern=torch.eye(12, dtype=torch.bool))
try:
    pb.verify(f, x, plan=diagonal)
except pb.ArgumentError as error:
    print(error)
pb.verify(f, x, plan=plan)
print("the plan's own pattern holds")

# %% [markdown]
# ## Your own
#
# A function and a point of yours. If the pattern turns out full, `pattern.why()` names the call
# that made it so.

# %% yours
own_x = torch.linspace(0, 1, 16, dtype=torch.float64)


def own_function(x):
    grid = x.reshape(4, 4)
    return (grid - grid.roll(1, 0)).sin() * grid + grid.roll(1, 1)


# %% code own
own_plan = pb.plan_jacobian(own_function, own_x)
lesson.show(own_plan.pattern)
print(own_plan.num_products, "product(s);", own_plan.reason)
print(own_plan.pattern.why() or "the pattern is not full")

# %% exercise mine [markdown]
# **Exercise.** Write a function `my_f` and give a float64 point `my_x`, of at least 8 entries, such
# that the plan takes at most a quarter of the products that rows or columns one by one would. It
# should mean something to you: a chain of springs, a picture and its neighbors, a batch of small
# models.


# %% solution mine
def my_f(x):
    """Springs between neighbors on a ring, that grow stiffer the more they are pulled."""
    pulled = x.roll(-1) - x
    force = pulled + pulled**3
    return force - force.roll(1)


my_x = torch.linspace(0, 3, 12, dtype=torch.float64).cos()

# %% check mine
lesson.check("mine", (my_f, my_x))

# %% [markdown]
# ## What to keep
#
# - Columns that share no row can share a JVP; rows that share no column can share a VJP. The number
#   of colors is the number of products. For a stencil it does not grow with the grid.
# - The entries are read back exactly; nothing is approximated.
# - Lifting first takes out what is the same at every point; what is left is often diagonal.
# - A pattern has to hold at *every* point. Numbers at one point do not give it; the program does.
# - In practice: `plan = pb.plan_jacobian(f, x)` once, `jac = pb.jacobian(f, plan=plan)`, then
#   `jac(x)` at as many points as you like.

# %%
lesson.summary()
