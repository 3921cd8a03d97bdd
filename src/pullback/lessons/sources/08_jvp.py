# %% [markdown]
# # 8. Jacobian-vector products
#
# So far the question went backwards: *how does a weighted sum of the outputs depend on each input?*
# That is `v' J`, a **VJP**: weights on the rows of J. There is a second question: *if the input
# moves a little in this direction, how does each output move?* That is `J t`, a **JVP**: weights
# `t` on the columns. `t` is called a **tangent**; it has the shape of the input, and `J t` that of
# the output.

# %%
import torch
from matplotlib.figure import Figure

import pullback as pb
from pullback.lessons import open_lesson

lesson = open_lesson(8)


# %% code tangent
def f(t):
    return (t + 10).pow(3).t()


inp = torch.eye(4, 5)
tangent = torch.zeros(4, 5)
tangent[1, 0] = 1.0

# %% predict where [markdown]
# **Predict.** Only `inp[1, 0]` moves, with speed 1. Which entries of `out = f(inp)`, of shape (5,
# 4), move?
#
# - a) `out[0, 1]` alone
# - b) the whole row 0 of `out`
# - c) all of them

# %% reveal where
out, moved = pb.jvp(f, (inp,), (tangent,))
print(moved)
out, pull = pb.vjp(f, inp)
J = pull.batched(pb.cotangents.basis(out))[0].reshape(20, 20)
print("equal to column 5 of J:", torch.equal(moved.reshape(-1), J[:, 5]))
alone = bool(moved[0, 1] != 0 and moved.count_nonzero() == 1)
row_0 = bool((moved[0] != 0).all() and (moved[1:] == 0).all())
lesson.reveal("where", a=alone, b=row_0, c=bool((moved != 0).all()))

# %% proof
assert moved[0, 1] == 300
assert torch.equal(moved.reshape(-1), J[:, 5])

# %% [markdown]
# `out[0, 1]`, with speed 300. A one-hot tangent gives a **column** of J, as a one-hot cotangent
# gives a row. Read J by rows and you do backward passes; read it by columns and you do forward
# ones. It is the same matrix.

# %% exercise column [markdown]
# **Exercise.** Write `column(f, x, index)`: how every entry of `f(x)` moves when `x[index]` alone
# moves, with speed 1. The result has the shape of `f(x)`.


# %% solution column
def column(f, x, index):
    tangent = torch.zeros_like(x)
    tangent[index] = 1
    return pb.jvp(f, (x,), (tangent,))[1]


# %% check column
lesson.check("column", column)

# %% [markdown]
# ## A JVP needs no graph
#
# Forward mode carries each value together with its speed: `(x, t)` becomes `(x ** 3, 3 * x ** 2 *
# t)`, and so on to the output. What has been used can be forgotten. Backward has to find the way
# back, so it saves operands on the way there; that is what `retain_graph` keeps, and what a second
# backward misses. Count what each of them saves:


# %% code saved
def saved_by(run):
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        run()
    return len(kept)


print("forward mode:", saved_by(lambda: torch.func.jvp(f, (inp,), (tangent,))))
print("the graph for backward:", saved_by(lambda: f(inp.clone().requires_grad_())))

# %% proof
assert saved_by(lambda: torch.func.jvp(f, (inp,), (tangent,))) == 0
assert saved_by(lambda: f(inp.clone().requires_grad_())) > 0

# %% [markdown]
# ## Linear, and two sides of one matrix
#
# A JVP is linear in its tangent, as a VJP is in its cotangent:

# %%
draw = torch.Generator().manual_seed(0)
s, t = torch.randn(2, 4, 5, generator=draw, dtype=torch.float64)
x = inp.double()


def push(tangent):
    return pb.jvp(f, (x,), (tangent,))[1]


print(torch.allclose(push(2 * s - 3 * t), 2 * push(s) - 3 * push(t)))

# %% proof
assert torch.allclose(push(2 * s - 3 * t), 2 * push(s) - 3 * push(t))

# %% [markdown]
# And the two belong together. Write `<a, b>` for the sum of all entries of `a * b`, and `J'` for J
# transposed; `J' w` is what a backward with w gives. Weigh the moved outputs with w: `<w, J t>`. Or
# send w back first and see how it meets the motion: `<J' w, t>`. Both are the one number `w' J t`,
# with the brackets set differently. This is the **adjoint identity**. It needs no J, one product of
# each kind, and it catches nearly every mistake in a hand-written derivative: lesson 12 lives on
# it.

# %% predict adjoint [markdown]
# **Predict.** `w` is a random cotangent, `t` a random tangent. By how much do `<w, J t>` and `<J'
# w, t>` differ?
#
# - a) by a thousandth or so, since both are approximations
# - b) by rounding alone
# - c) they are different numbers, as v' J and J t are

# %% reveal adjoint
out, pull = pb.vjp(f, x)
w = torch.randn(out.shape, generator=draw, dtype=torch.float64)
there = (w * push(t)).sum()
back = (pull(w)[0] * t).sum()
gap = float((there - back).abs() / there.abs())
print(float(there), float(back), f"{gap:.1e} apart, relative")
lesson.reveal("adjoint", a=1e-12 < gap < 1e-2, b=gap <= 1e-12, c=gap >= 1e-2)

# %% [markdown]
# ## Tall and wide
#
# To know all of J, (m, n), you need n columns or m rows. So count:
#
# - **wide**, n > m: few outputs, many inputs, a loss and its million parameters. m VJPs. This is
#   why deep learning means reverse mode.
# - **tall**, m > n: many outputs, few inputs, a simulation's whole trajectory and its three
#   parameters. n JVPs.
#
# Where m and n are alike, neither wins by counting. Forward mode then saves the memory of the
# graph; which one is faster depends on the program, and is quickly measured.
#
# Take a tall one: a swing that dies away, at 200 times, made by three numbers. (Change them, or the
# formula.)

# %% yours
times = torch.linspace(0, 4, 200, dtype=torch.float64)


def trajectory(p):
    """A damped swing at 200 times; p = (height, damping, speed)."""
    return p[0] * torch.exp(-p[1] * times) * torch.cos(p[2] * times)


p = torch.tensor([2.0, 0.5, 3.0], dtype=torch.float64)

# %% predict products [markdown]
# **Predict.** The Jacobian of `trajectory` has shape (200, 3), and no entry of it is always 0. How
# many products give all of it?
#
# - a) 1 JVP
# - b) 3 JVPs, or 200 VJPs
# - c) 200 JVPs, or 3 VJPs

# %% reveal products
counts = {
    mode: pb.plan_jacobian(trajectory, p, mode=mode, lift=False).num_products
    for mode in ("fwd", "rev")
}
print(counts)
columns = [pb.jvp(trajectory, (p,), (e,))[1] for e in torch.eye(3, dtype=torch.float64)]
J = torch.stack(columns, dim=1)
print(tuple(J.shape), "as autograd has it:", torch.allclose(J, pb.jacobian(trajectory)(p)))
lesson.reveal(
    "products",
    a=counts["fwd"] == 1,
    b=counts == {"fwd": 3, "rev": 200},
    c=counts == {"fwd": 200, "rev": 3},
)

# %% proof products
assert torch.allclose(J, torch.func.jacrev(trajectory)(p))
assert J.shape == (200, 3)
assert (J != 0).any(dim=0).all()

# %% [markdown]
# Each column of J is a curve: how the whole trajectory moves when one of the three numbers does.
# This is what a JVP shows at a glance, and 200 VJPs would hide.

# %% code curves
figure = Figure(figsize=(7, 3), layout="constrained")
axes = figure.subplots()
axes.plot(times, trajectory(p), color="black", label="trajectory")
for name, column_curve in zip(("height", "damping", "speed"), J.T, strict=True):
    axes.plot(times, column_curve, label=f"moved by {name}")
axes.set_xlabel("time")
figure.legend(loc="outside right upper")
lesson.show(figure)

# %% exercise cheaper [markdown]
# **Exercise.** Write `cheaper(m, n)`: `"forward"` or `"reverse"`, whichever gives a dense Jacobian
# of m rows and n columns with fewer products. Where both take as many, either is right.


# %% solution cheaper
def cheaper(m, n):
    return "forward" if n <= m else "reverse"


# %% check cheaper
lesson.check("cheaper", cheaper)

# %% [markdown]
# ## A JVP out of two VJPs
#
# A custom `autograd.Function` often has a backward and no forward mode. There is a way around it:
# `u -> J' u` is linear in u, so *its* Jacobian with respect to u is J', whatever u is. A VJP of
# that map, with weights t, is J' transposed once more, times t: `J t` (J. Townsend, "A new trick
# for calculating Jacobian vector products", 2017). Two backward passes make one forward product,
# and the product is sure to belong to the J of *backward*, custom or not. `pb.jvp` and
# `pb.JacobianOperator` compute `J t` in this way, and fall back on forward mode where a backward
# cannot be differentiated.

# %% exercise double [markdown]
# **Exercise.** Write `jvp_by_vjps(f, x, t)`: `J t` by two VJPs. (`torch.func.jvp` would be right,
# and you will learn more without it.) `torch.autograd.grad` needs `create_graph=True` in one place.


# %% solution double
def jvp_by_vjps(f, x, t):
    x = x.detach().requires_grad_()
    out = f(x)
    u = torch.zeros_like(out, requires_grad=True)
    (back,) = torch.autograd.grad(out, x, u, create_graph=True)
    (there,) = torch.autograd.grad(back, u, t)
    return there


# %% check double
lesson.check("double", jvp_by_vjps)

# %% [markdown]
# ## Forward over reverse
#
# The gradient g of a scalar function is itself a tensor-valued function, and its Jacobian is the
# **Hessian** H: square, symmetric. One JVP of g is `H t`: how the gradient changes as you walk
# along t. It costs about as much as a few gradients, and H is never formed. Newton's method and
# curvature estimates of large networks are made of this.


# %%
def energy(x):
    return (x[1:] - x[:-1] ** 2).square().sum() + x.cos().sum()


x = torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64)
t = torch.tensor([1.0, 0.0, 0.0, -1.0], dtype=torch.float64)
gradient, change = pb.jvp(torch.func.grad(energy), (x,), (t,))
H = torch.func.hessian(energy)(x)
print(change)
print("equal to H t:", torch.allclose(change, H @ t))

# %% proof
assert torch.allclose(change, H @ t)
assert torch.allclose(H, H.T)

# %% exercise hvp [markdown]
# **Exercise.** Write `hvp(f, x, t)`: the Hessian of the scalar function `f` at `x`, times `t`, with
# the shape of `x`; without forming H.


# %% solution hvp
def hvp(f, x, t):
    return torch.func.jvp(torch.func.grad(f), (x,), (t,))[1]


# %% check hvp
lesson.check("hvp", hvp)

# %% [markdown]
# ## Your own
#
# A function of yours, a float64 point, and the mode that you would choose for its whole Jacobian.
# The check counts rows and columns, and tries the adjoint identity on your function.

# %% exercise mine [markdown]
# **Exercise.** Give `my_f`, `my_x` and `my_mode` (`"forward"` or `"reverse"`).


# %% solution mine
def my_f(x):
    return torch.outer(x, x.sin()).cumsum(0)


my_x = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
my_mode = "forward"  # 9 outputs, 3 inputs

# %% check mine
lesson.check("mine", (my_f, my_x, my_mode))


# %% [markdown]
# ## What to keep
#
# | | VJP, `v' J` | JVP, `J t` |
# |---|---|---|
# | asks | how do weighed outputs depend on each input? | how do outputs move with the input? |
# | weights | cotangent v, shape of the output | tangent t, shape of the input |
# | one-hot gives | a row of J | a column of J |
# | all of J, (m, n) | m products | n products |
# | on the way | saves operands for the way back | saves nothing |

# %%
lesson.summary()
