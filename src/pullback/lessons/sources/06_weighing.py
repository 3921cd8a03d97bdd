# %% [markdown]
# # 6. Weighing outputs
#
# A model seldom has one output, and you seldom care about all of them alike. This lesson is an
# exercise: build a v that stresses one part of the output, send it back, and read what arrives.
# Then three questions, each answered by computation; and a claim about sums that sounds mysterious
# until one line of algebra makes it exact.

# %%
import torch

import pullback as pb
from pullback.lessons import open_lesson

lesson = open_lesson(6)

inp = torch.eye(4, 5, requires_grad=True)
out = (inp + 10).pow(3).t()
print(out.detach())

# %% proof setup
assert sorted(out.unique().tolist()) == [1000.0, 1331.0]
assert out.shape == (5, 4)

# %% [markdown]
# `out[i, j]` is `(inp[j, i] + 10) ** 3`: 1331 where `inp` is 1, and 1000 where it is 0.
#
# And an output of your own, which the checks and the end of the lesson use as well. Change it if
# you like.

# %% yours
mine = torch.tensor([[0.2, 1.0, -0.5], [0.7, 0.1, 0.9]], requires_grad=True)
own_out = (mine.t() @ mine).tanh()

# %% [markdown]
# ## The exercise

# %% exercise first-row [markdown]
# **Exercise.** Write `weigh(out)`: a v of the shape of `out` (one or more axes) that gives every
# entry of the *first row*, `out[0]`, more weight than any entry elsewhere. Elsewhere the weight may
# be lower or zero. There are many right answers.


# %% solution first-row
def weigh(out):
    v = torch.zeros_like(out)
    v[0] = 1.0
    return v


# %% check first-row
lesson.check("first-row", weigh, own_out)

# %% [markdown]
# `pb.cotangents.rows(out, {0: 1.0})` builds the same v. From here on, this one:

# %% predict lands [markdown]
# **Predict.** Weight 1 on the first row of `out`, 0 elsewhere. What is in `inp.grad` after
# `out.backward(v)`?
#
# - a) 363, 300, 300, 300 in column 0; zeros elsewhere
# - b) 363, 300, 300, 300, 300 in row 0; zeros elsewhere
# - c) 363 on the whole diagonal; zeros elsewhere

# %% reveal lands
v = pb.cotangents.rows(out, {0: 1.0})
out.backward(v, retain_graph=True)
print(inp.grad)
column, row, diagonal = torch.zeros(4, 5), torch.zeros(4, 5), 363 * torch.eye(4, 5)
column[:, 0] = torch.tensor([363.0, 300.0, 300.0, 300.0])
row[0] = torch.tensor([363.0, 300.0, 300.0, 300.0, 300.0])
lesson.reveal(
    "lands",
    a=torch.equal(inp.grad, column),
    b=torch.equal(inp.grad, row),
    c=torch.equal(inp.grad, diagonal),
)

# %% code picture
lesson.show(pb.record(out, v, inputs={"inp": inp}))

# %% [markdown]
# The first row of `out` came from the first *column* of `inp`, because of `.t()`. The values are `3
# (inp + 10) ** 2`: 3 * 11 * 11 = 363 where `inp` is 1, and 3 * 10 * 10 = 300 where it is 0.
#
# ## Question 1: how does changing v change inp.grad?

# %% predict change [markdown]
# **Predict.** v is 1 everywhere. Now you double the weights on the first row. How does `inp.grad`
# change?
#
# - a) all of it doubles
# - b) column 0 doubles, the rest stays
# - c) column 0 doubles, the rest shrinks

# %% reveal change
before = pb.record(out, torch.ones_like(out), inputs={"inp": inp}).deposits["inp"]
heavier = torch.ones_like(out)
heavier[0] *= 2
after = pb.record(out, heavier, inputs={"inp": inp}).deposits["inp"]
ratio = after / before
print("after / before", ratio, sep="\n")
lesson.reveal(
    "change",
    a=(ratio == 2).all(),
    b=(ratio[:, 0] == 2).all() and (ratio[:, 1:] == 1).all(),
    c=(ratio[:, 0] == 2).all() and (ratio[:, 1:] < 1).all(),
)

# %% [markdown]
# v changes nothing about the function or its derivatives: J stays as it is. v says how much each
# *row of J* counts, and J has a row per *entry* of `out`. The gradient is the sum of those rows, so
# weights amplify or mute. Here each entry of `out` depends on a single entry of `inp`, so each
# weight can be seen in one place: `inp.grad` is `v.t()` times the local derivative.

# %% code local
local = 3 * (inp.detach() + 10) ** 2
print("inp.grad is v.t() * 3 (inp + 10)^2:", torch.equal(after, heavier.t() * local))

# %% proof local
assert torch.equal(after, heavier.t() * local)

# %% [markdown]
# In general one entry of the input feeds many outputs, and then the weights add up there. Compare
# several v at once with `pb.sensitivity`: all go through the same graph in one batch, and no
# `.grad` is touched.

# %% code compare
normalized = pb.cotangents.normalized
named = {
    "uniform": normalized(torch.ones_like(out)),
    "first row": normalized(pb.cotangents.rows(out, {0: 1.0})),
    "last row": normalized(pb.cotangents.rows(out, {-1: 1.0})),
}
s = pb.sensitivity(out, {"inp": inp}, named)
lesson.show(s)

# %% [markdown]
# (Each v was divided by its sum, `normalized(v)`, so its weights add up to 1. Why that is wise
# comes below.)
#
# ## Question 2: which entries of inp is the weighed output most sensitive to?
#
# The ones with the largest gradients. It is tempting to say "the diagonal dominates, for there the
# function is strongest". How much stronger is it?

# %% predict ratio [markdown]
# **Predict.** With uniform weights: the gradient on the diagonal, divided by the gradient off the
# diagonal.
#
# - a) 1.21
# - b) 2
# - c) 11

# %% reveal ratio
uniform = s.grads["uniform"]["inp"]
ratio = (uniform[0, 0] / uniform[0, 1]).item()
share = (uniform.diagonal().sum() / uniform.sum()).item()
print(f"diagonal / off the diagonal: {ratio:.4f};  the diagonal's share of it all: {share:.1%}")
lesson.reveal("ratio", a=abs(ratio - 1.21) < 1e-3, b=abs(ratio - 2) < 1e-3, c=ratio > 10)

# %% proof ratio
assert abs(share - 4 * 363 / (4 * 363 + 16 * 300)) < 1e-6
assert round(100 * share, 1) == 23.2
near = (torch.eye(4, 5) + 1) * 2
assert (near[0, 0].item(), near[0, 1].item()) == (4.0, 2.0)

# %% [markdown]
# The diagonal is ahead by 21 %, and the four entries make up 23 % of the whole. That is a lead, not
# dominance. All entries go through the *same* function; the slope of the cube is larger at 11 than
# at 10, that is all. (Near zero it would be another story: for `(inp + 1) ** 2` the slopes are 4
# and 2.) And the slope is only half of it.

# %% predict beats [markdown]
# **Predict.** v is 2 on the first row of `out` and 1 elsewhere. Which is larger?
#
# - a) `inp.grad[1, 1]`: on the diagonal, weight 1
# - b) `inp.grad[1, 0]`: off the diagonal, weight 2
# - c) they are equal

# %% reveal beats
on, off = after[1, 1].item(), after[1, 0].item()
print(f"on the diagonal, weight 1: {on};  off the diagonal, weight 2: {off}")
lesson.reveal("beats", a=on > off, b=on < off, c=on == off)

# %% [markdown]
# 600 beats 363. What counts is weight *times* derivative. So the exact answer is: the most
# sensitive entries are those where the weighed derivative is largest. With this v, in front is the
# diagonal entry with a heavy output, then come *all* other entries with heavy outputs, and only
# then the diagonal entries with light ones. (A first row only 1.2 times as heavy would not do: 360
# is less than 363.) `top` lists them:

# %% code top
weighed = pb.sensitivity(out, {"inp": inp}, {"first row twice": heavier})
for name, index, value in weighed.top("first row twice", 6):
    print(name, list(index), value)

# %% proof top
top = weighed.top("first row twice", 6)
assert top[0] == ("inp", (0, 0), 726.0)
assert {index for _, index, _ in top[1:4]} == {(1, 0), (2, 0), (3, 0)}
assert top[4][2] == 363.0
assert 1.2 * 300 == 360.0 < 363

# %% [markdown]
# ## Question 3: what does inp.grad mean here?
#
# "If I nudge each entry of `inp` a little, how much does the weighed sum of `out` change?" Nudge
# and see: one entry at a time, in double precision, with v on the first row.

# %% code nudge
step = 1e-4
x = torch.eye(4, 5, dtype=torch.float64)
v64 = v.double()


def weighed_sum(x):
    return (v64 * (x + 10).pow(3).t()).sum()


nudged = torch.zeros(4, 5, dtype=torch.float64)
for i in range(4):
    for j in range(5):
        e = torch.zeros_like(x)
        e[i, j] = step
        nudged[i, j] = (weighed_sum(x + e) - weighed_sum(x - e)) / (2 * step)
print("change per unit of nudge", nudged.round(decimals=3), sep="\n")

# %% proof nudge
torch.testing.assert_close(nudged, column.double(), rtol=1e-6, atol=1e-5)

# %% [markdown]
# The same numbers. You may read that `inp.grad` is here "not the gradient of a single scalar". Take
# that as: not of a loss you have somewhere in your program. It *is* the gradient of one number, `v
# . out`, the sum of all entries weighed with v. That number exists as soon as you choose v.
#
# ## The claim about sums
#
# Add up all entries of each gradient above, and look:

# %% code totals
for name, total in s.totals.items():
    print(f"{name:10} {total:.4f}")

# %% proof totals
assert [round(total, 4) for total in s.totals.values()] == [312.6, 315.75, 300.0]

# %% [markdown]
# 312.6, 315.75, 300: close together. So one is led to say "the total stays the same, whatever the
# weights; only its distribution changes". Is that a law?

# %% predict raw [markdown]
# **Predict.** Now without dividing by the sum: ones everywhere against ones on the first row only.
# How do the totals compare?
#
# - a) nearly equal again
# - b) about 5 to 1
# - c) about 20 to 1

# %% reveal raw
raw = pb.sensitivity(
    out,
    {"inp": inp},
    {"ones": torch.ones_like(out), "row of ones": pb.cotangents.rows(out, {0: 1.0})},
)
print(raw.totals)
quotient = raw.totals["ones"] / raw.totals["row of ones"]
lesson.reveal("raw", a=quotient < 1.1, b=4 < quotient < 6, c=18 < quotient < 22)

# %% proof raw
assert raw.totals == {"ones": 6252.0, "row of ones": 1263.0}

# %% [markdown]
# 6252 against 1263. Without normalizing, the total mostly counts how much weight you put in. So
# normalizing matters. And with it? One line of algebra. Write 1 for a vector of ones, one per entry
# of the input. The total of a gradient is the gradient times 1:
#
#     total = (v . J) . 1 = v . (J 1)
#
# `J 1` has an entry per entry of `out`: the sum of that *row of J*. So **a total is the row sums of
# J, weighed with v.** If no weight is negative and they add up to 1, it is an average of row sums.
# An average lies between the smallest and the largest, and that is all that can be said.

# %% code rowsums
print("row sums of J, laid out as out", s.row_sums.reshape(5, 4), sep="\n")
print("smallest and largest:", s.row_sum_range)

# %% proof rowsums
assert s.row_sum_range == (300.0, 363.0)
assert int((s.row_sums == 363).sum()) == 4
assert (4 * 363 + 16 * 300) / 20 == 312.6
assert (363 + 3 * 300) / 4 == 315.75
picked = pb.cotangents.one_hot(out, (0, 0))
assert pb.sensitivity(out, inp, {"one": picked}).totals["one"] == 363.0

# %% [markdown]
# Four row sums are 363, sixteen are 300. Uniform weights average them all: 312.6. The first row of
# `out` holds one 363 and three 300: 315.75. The last row holds none: 300 exactly. A one-hot v on
# `out[0, 0]` reaches 363. The totals are close because 300 and 363 are close, not because of a law.

# %% predict far [markdown]
# **Predict.** Which total can *no* v reach, whose weights are not negative and add up to 1?
#
# - a) 300
# - b) 350
# - c) 400

# %% reveal far
low, high = s.row_sum_range
reachable = {total: low <= total <= high for total in (300, 350, 400)}
print(reachable)
lesson.reveal("far", a=not reachable[300], b=not reachable[350], c=not reachable[400])

# %% exercise hit [markdown]
# **Exercise.** Find a `v330` of the shape of `out`, no weight negative, all weights adding up to 1,
# whose total is **330** (for this `inp`, up to rounding). There are many.

# %% solution hit
v330 = torch.zeros(5, 4)
v330[0, 0] = (330 - 300) / (363 - 300)  # the share of an entry whose row sum is 363
v330[0, 1] = 1 - v330[0, 0]

# %% check hit
lesson.check("hit", v330)

# %% [markdown]
# A way out of the range; a function whose range is wider; and a case in which the claim *is* a law:

# %% code edges
signed = torch.zeros_like(out)
signed[0, 0], signed[0, 1] = 2.0, -1.0  # adds up to 1, but one weight is negative
total = pb.sensitivity(out, inp, {"signed": signed}).totals["signed"]
print("with a negative weight:", total)

near = (inp + 1).pow(2).t()
around = pb.sensitivity(near, inp, named)
print("(inp + 1)^2:", {k: round(t, 4) for k, t in around.totals.items()}, around.row_sum_range)

flat = torch.zeros(4, 5, requires_grad=True)
level = pb.sensitivity((flat + 10).pow(3).t(), flat, named)
print("at zeros   :", {k: round(t, 4) for k, t in level.totals.items()}, level.row_sum_range)

# %% proof edges
assert total == 426.0
assert [round(total, 4) for total in around.totals.values()] == [2.4, 2.5, 2.0]
assert around.row_sum_range == (2.0, 4.0)
assert {round(t, 3) for t in level.totals.values()} == {300.0}
assert level.row_sum_range == (300.0, 300.0)

# %% [markdown]
# With a negative weight, 426, though the weights add up to 1. For `(inp + 1) ** 2` the row sums are
# 2 and 4, so totals can differ by a factor of two. At an `inp` of zeros all row sums are equal, and
# every normalized v has the total 300: *equal row sums* are exactly what the claim needs.

# %% exercise range [markdown]
# **Exercise.** Write `total_range(f, x)`: the smallest and the largest total, as a pair of numbers,
# that any v can reach whose weights are not negative and add up to 1. The total is the sum of all
# entries of the gradient of `v . f(x)` by `x`.


# %% solution range
def total_range(f, x):
    J = pb.jacobian(f)(x)
    outputs = J.ndim - x.ndim
    row_sums = J.flatten(outputs).sum(-1)
    return row_sums.min(), row_sums.max()


# %% check range
lesson.check("range", total_range)

# %% [markdown]
# ## Your own tensors
#
# The output from the top of the lesson, weighed in three ways. Add weighings of your own to the
# dict.

# %% code own
own_named = {
    "uniform": normalized(torch.ones_like(own_out)),
    "first row": normalized(pb.cotangents.rows(own_out, {0: 1.0})),
    "largest entry": pb.cotangents.mask(own_out, own_out == own_out.max()),
}
own = pb.sensitivity(own_out, {"mine": mine}, own_named)
print(own)
lesson.show(own)

# %% [markdown]
# ## What to keep
#
# - v weighs the entries of the output; each is a row of J. Doubling a weight doubles that row's
#   part.
# - Sensitive is where weight times derivative is large.
# - `inp.grad` is the gradient of the one number `v . out`.
# - A total is `v . (J 1)`. For v >= 0 that adds up to 1 it lies between the smallest and the
#   largest row sum of J, and only equal row sums make it constant.

# %%
lesson.summary()
