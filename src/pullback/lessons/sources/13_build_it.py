# %% [markdown]
# # 13. Build it yourself
#
# Everything so far was seen from outside. Now build the machine: an engine that records what you do
# with arrays and sends a cotangent back through it. NumPy, about 80 lines, nothing hidden. At the
# end it does what the first lessons did, number for number as torch does. What is needed:
#
# 1. for each operation a **rule**: upstream cotangent in, one cotangent per operand out;
# 2. the adjoint of **broadcasting**;
# 3. an **order** in which to visit the operations;
# 4. a **sweep** in that order, which adds up contributions, and frees what was saved;
# 5. a **deposit** into `.grad`, which adds to what is there.

# %%
import numpy as np
import torch

from pullback.lessons import open_lesson

lesson = open_lesson(13)

# %% [markdown]
# ## Rules
#
# `y = a * b`, entry by entry. Wiggle `a` by `da`: `y` moves by `b * da`. Weigh the outputs with v:
# the sum of `v * b * da` is the sum of `(v * b) * da`, so the cotangent of `a` is `v * b`. All
# rules are found like this: see how the output moves, weigh it, bring `da` to the outside.
#
# Now a matrix product, `y = a @ b`, which moves by `da @ b`. `a` is (m, k), `b` is (k, n), v is (m,
# n): the shapes leave one way to write the cotangent of `a`.

# %% predict matmul [markdown]
# **Predict.** `a` is (2, 3), `b` is (3, 4), v is (2, 4). What is the cotangent of `a`?
#
# - a) `v @ b`
# - b) `v @ b.T`
# - c) `b.T @ v`

# %% reveal matmul
a = torch.arange(6.0).reshape(2, 3).requires_grad_()
b = torch.arange(12.0).reshape(3, 4)
v = torch.tensor([[1.0, 0, 2, 0], [0, 1, 0, -1]])
(arrived,) = torch.autograd.grad(a @ b, a, v)
print(arrived)
options = {"a": (v, b), "b": (v, b.T), "c": (b.T, v)}
fit = {k: p @ q for k, (p, q) in options.items() if p.shape[1] == len(q)}
equal = {k: k in fit and torch.equal(fit[k], arrived) for k in options}
lesson.reveal("matmul", **equal)

# %% exercise matmul-rule [markdown]
# **Exercise.** Write `matmul_rule(v, a, b)`: the cotangents of `a` and of `b`, a pair. All are
# NumPy matrices.


# %% solution matmul-rule
def matmul_rule(v, a, b):
    return v @ b.T, a.T @ v


# %% check matmul-rule
lesson.check("matmul-rule", matmul_rule)

# %% [markdown]
# **Indexing** picks: `y = x[index]`. An entry of x that was not picked gets 0. One that was picked
# gets what its place in y got. And one that was picked *twice*?

# %% predict twice [markdown]
# **Predict.** `y = x[[0, 0, 2]]` of `x` with 4 entries, and v = (1, 10, 100). What arrives at x?
#
# - a) (1, 0, 100, 0)
# - b) (10, 0, 100, 0)
# - c) (11, 0, 100, 0)

# %% reveal twice
x = torch.zeros(4, requires_grad=True)
(arrived,) = torch.autograd.grad(x[[0, 0, 2]], x, torch.tensor([1.0, 10, 100]))
print(arrived)
found = arrived.tolist()
lesson.reveal("twice", a=found[0] == 1, b=found[0] == 10, c=found[0] == 11)

# %% [markdown]
# Both copies moved with it, so both count: gather forward, **scatter-add** backward. NumPy has a
# trap here: `g[[0, 0, 2]] += v` adds only the last of the repeated ones.

# %% exercise index-rule [markdown]
# **Exercise.** Write `index_rule(v, shape, index)`: the cotangent, of that shape, of `x` in `y =
# x[index]`. `index` may be a number, a slice, a list with repeats, or a tuple of such.


# %% solution index-rule
def index_rule(v, shape, index):
    cotangent = np.zeros(shape)
    np.add.at(cotangent, index, v)
    return cotangent


# %% check index-rule
lesson.check("index-rule", index_rule)

# %% [markdown]
# ## The adjoint of broadcasting
#
# `(3, 1) + (4,)` is `(3, 4)`: NumPy repeats each operand until the shapes agree. A repeated entry
# is one that was picked several times, so backward must add up over the repetitions, and give back
# the shape there was before: **a copy forward is a sum backward**.

# %% exercise unbroadcast [markdown]
# **Exercise.** Write `unbroadcast(v, shape)`: sum `v` over whatever broadcasting repeated, so that
# the result has that shape. Axes that were put in front disappear; axes of length 1 that were
# stretched come back with length 1.


# %% solution unbroadcast
def unbroadcast(v, shape):
    in_front = v.ndim - len(shape)
    v = v.sum(axis=tuple(range(in_front)))
    stretched = tuple(k for k, n in enumerate(shape) if n == 1)
    return v.sum(axis=stretched, keepdims=True)


# %% check unbroadcast
lesson.check("unbroadcast", unbroadcast)

# %% [markdown]
# ## A tensor that remembers
#
# Now the class. A tensor holds its numbers and, if an operation made it, the operands (`parents`),
# the `rule`, and what the rule needs to know later (`saved`). A tensor that no operation made is a
# **leaf**. Read which rules save something: a product needs both operands, a power its base, a sum
# and a transpose nothing at all.


# %% code tensor
class Tensor:
    def __init__(self, data, requires_grad=False, parents=(), rule=None, saved=()):
        self.data, self.grad = np.array(data, dtype=np.float64), None
        self.shape = self.data.shape
        self.parents, self.rule, self.saved = parents, rule, saved
        self.requires_grad = requires_grad or any(p.requires_grad for p in parents)

    def __add__(self, other):
        a, b = self, constant(other)
        return Tensor(a.data + b.data, False, (a, b), lambda v: (v, v))

    def __mul__(self, other):
        a, b = self, constant(other)
        saved = (a.data, b.data)
        return Tensor(a.data * b.data, False, (a, b), lambda v, a, b: (v * b, v * a), saved)

    def pow(self, n):
        saved = (self.data,)
        return Tensor(self.data**n, False, (self,), lambda v, x: (v * n * x ** (n - 1),), saved)

    def t(self):
        return Tensor(self.data.T, False, (self,), lambda v: (v.T,))

    def __matmul__(self, b):
        saved = (self.data, b.data)
        return Tensor(self.data @ b.data, False, (self, b), matmul_rule, saved)

    def sum(self, axis=None):
        kept = self.data.sum(axis, keepdims=True).shape

        def rule(v):
            return (v.reshape(kept) + np.zeros(self.shape),)

        return Tensor(self.data.sum(axis), False, (self,), rule)

    def __getitem__(self, index):
        def rule(v):
            return (index_rule(v, self.shape, index),)

        return Tensor(self.data[index], False, (self,), rule)

    def backward(self, v=None, retain_graph=False):
        if v is None and self.data.size != 1:
            raise RuntimeError(f"{self.shape} entries, no one gradient: give v of that shape")
        v = np.ones(self.shape) if v is None else np.array(v, dtype=np.float64)
        if v.shape != self.shape:
            raise RuntimeError(f"v has shape {v.shape}, the output has {self.shape}")
        for leaf, cotangent in sweep(self, v, retain_graph).items():
            leaf.grad = deposit(leaf.grad, cotangent)


def constant(value):
    return value if isinstance(value, Tensor) else Tensor(value)


# %% [markdown]
# `order`, `sweep` and `deposit` are missing: the engine proper, and yours to write.
#
# ## The order
#
# A node may run only when **everything** that was made from it has run: only then is its cotangent
# complete. Take `y = x * x + x`: x is used at two depths.

# %% predict order [markdown]
# **Predict.** `p = x * x`, `y = p + x`. Walk back from y to its parents p and x. When may x be
# dealt with?
#
# - a) at once, since y has sent it a cotangent
# - b) only after p, which sends x another two contributions

# %% reveal order
x = torch.tensor(3.0, requires_grad=True)
p = x * x
y = p + x
(complete,) = torch.autograd.grad(y, x)
lesson.reveal("order", a=complete == 1, b=complete == 7)

# %% exercise order [markdown]
# **Exercise.** Write `order(root)`: a list of `root` and all nodes behind it (their `.parents`)
# that have `requires_grad`, each once, every node **before** its parents. Programs may be thousands
# of operations deep, so do not recurse.


# %% solution order
def order(root):
    visited, finished, stack = set(), [], [(root, False)]
    while stack:
        node, parents_done = stack.pop()
        if parents_done:
            finished.append(node)
        elif node not in visited:
            visited.add(node)
            stack.append((node, True))
            stack.extend((p, False) for p in node.parents if p.requires_grad)
    return finished[::-1]


# %% check order
lesson.check("order", order)

# %% [markdown]
# ## The sweep
#
# A dictionary `waiting` holds what has arrived at each node. Visit the nodes in order. A leaf keeps
# what arrived. Any other node asks its rule, `node.rule(upstream, *node.saved)`, and the results go
# to its parents: first summed down to the parent's shape, then **added** to what waits there.
#
# When a node that saved something is done, its `saved` becomes None: it has been freed. A node that
# finds `saved` to be None cannot run, and says so. `retain_graph=True` frees nothing. A node that
# never saved anything, `saved == ()`, can always run again; torch does it in the same way.

# %% exercise sweep [markdown]
# **Exercise.** Write `sweep(root, v, retain_graph=False)`: send `v` from `root` to the leaves, and
# return a dictionary from each leaf that requires grad to what arrived. Leave `v` as it is.


# %% solution sweep
def sweep(root, v, retain_graph=False):
    waiting, arrived = {root: v}, {}
    for node in order(root):
        upstream = waiting.pop(node)
        if node.rule is None:
            arrived[node] = upstream
            continue
        if node.saved is None:
            raise RuntimeError("freed by an earlier backward; pass retain_graph=True to that one")
        for parent, cotangent in zip(node.parents, node.rule(upstream, *node.saved), strict=True):
            if parent.requires_grad:
                part = unbroadcast(cotangent, parent.shape)
                waiting[parent] = waiting[parent] + part if parent in waiting else part
        if node.saved and not retain_graph:
            node.saved = None
    return arrived


# %% check sweep
lesson.check("sweep", sweep)

# %% [markdown]
# ## The deposit
#
# What arrived at a leaf is added to its `.grad`. If that is None, the cotangent becomes the
# `.grad`: a copy of it, or else two leaves, or the leaf and your v, would share their numbers.

# %% exercise deposit [markdown]
# **Exercise.** Write `deposit(grad, cotangent)`: the new `.grad`; `grad` is the old one, or None.


# %% solution deposit
def deposit(grad, cotangent):
    return cotangent.copy() if grad is None else grad + cotangent


# %% check deposit
lesson.check("deposit", deposit)

# %% exercise engine [markdown]
# ## The whole engine against torch
#
# **Exercise.** One operation is missing: `a - b`. Give the class `Engine`, a `Tensor` that can do
# it (from operations that are there, no new rule is needed). The check then runs programs in it and
# in torch: values, gradients, second calls, zeroing, broadcasting, and what is refused.


# %% solution engine
class Engine(Tensor):
    def __sub__(self, other):
        return self + constant(other) * -1.0


# %% check engine
lesson.check("engine", Engine)

# %% [markdown]
# The first lesson's program, in both (once the check above has passed):

# %% code tutorial
if lesson.outcomes["engine"].ok:
    ours = Tensor(np.eye(4, 5), requires_grad=True)
    theirs = torch.eye(4, 5, requires_grad=True)
    for inp, ones in ((ours, np.ones((5, 4))), (theirs, torch.ones(5, 4))):
        out = (inp + 1).pow(2).t()
        out.backward(ones, retain_graph=True)
        out.backward(ones)
        print("after two calls:", inp.grad, sep="\n")
    ours.grad.fill(0)
    out = (ours + 10).pow(3).t()
    out.backward([[1, 1, 1, 1]] + 4 * [[0, 0, 0, 0]])
    print("the exercise, first row of out:", ours.grad, sep="\n")

# %% proof tutorial
if lesson.outcomes["engine"].ok:
    assert ours.grad.T.tolist() == [[363, 300, 300, 300]] + 4 * [[0, 0, 0, 0]]
    assert torch.equal(theirs.grad, 4 + 4 * torch.eye(4, 5))
keys = ("tensor", "matmul-rule", "index-rule", "unbroadcast", "order", "sweep", "deposit")
pieces = [c.text for c in lesson.source.cells if c.key in keys and c.role in ("code", "solution")]
assert 75 <= len([line for line in "\n".join(pieces).splitlines() if line.strip()]) <= 95

# %% [markdown]
# ## Your own program
#
# Any program of `+`, `*`, `@`, `.pow(n)`, `.t()`, `.sum(axis)` and `[...]`, with any cotangent. It
# runs in torch, and in your engine once that is right.

# %% yours
own_data = [[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]]
own_v = [[1.0, 0.0], [0.0, -2.0]]


def own_program(x):
    return (x * x.sum(0)) @ x.t()


# %% code own-program
theirs = torch.tensor(own_data, requires_grad=True)
own_program(theirs).backward(torch.tensor(own_v))
gradients = {"torch": theirs.grad}
if lesson.outcomes["engine"].ok:
    ours = Tensor(own_data, requires_grad=True)
    own_program(ours).backward(own_v)
    gradients["yours"] = torch.tensor(ours.grad, dtype=torch.float32)
    print("largest gap:", float((gradients["yours"] - gradients["torch"]).abs().max()))
lesson.show(gradients)

# %% [markdown]
# ## Your own operation
#
# An operation is a forward function and a rule. Invent one, `my_forward(x)` from array to array and
# `my_rule(v, x)` from cotangent to cotangent, and a point `my_x` to try it at. No autograd tells
# you whether the rule is right; the adjoint identity of lesson 8 does, with differences in the
# place of J t.

# %% exercise own-op [markdown]
# **Exercise.** Give `my_forward`, `my_rule` and `my_x`. Anything smooth: a softmax, a running sum,
# a norm, a rotation.


# %% solution own-op
def my_forward(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def my_rule(v, x):
    y = my_forward(x)
    return y * (v - (v * y).sum())


my_x = np.array([0.5, -1.0, 2.0])

# %% check own-op
lesson.check("own-op", (my_forward, my_rule, my_x))

# %% [markdown]
# ## What to keep
#
# - A rule turns one upstream cotangent into one per operand. That is all that autograd knows of
#   mathematics; no derivative of the whole program exists anywhere.
# - A copy forward is a sum backward: broadcasting, repeated indices, a tensor used twice.
# - The order is "after everything that was made from it". Contributions are added, never replaced.
# - What is saved is what a rule reads, and freeing it is what makes a second backward fail.
# - `.grad` is added to, and is nobody else's array.
# - Torch adds hundreds of rules, views, writes in place, devices and hooks to this skeleton.

# %%
lesson.summary()
