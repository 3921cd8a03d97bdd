# %% [markdown]
# # 10. Sensitivity of a real model
#
# What does a prediction rest on? Everything so far was about small formulas. Now a neural network
# is trained on noisy measurements, and then questioned: which input matters, to which output, by
# how much, and can we trust the answer? The questions are cotangents, the answers are VJPs. The
# hard part is to ask so that the answers can be compared.

# %%
import torch

import pullback as pb
from pullback.lessons import open_lesson

lesson = open_lesson(10)

# %% [markdown]
# ## The law, the data, the model
#
# A car has to stop. Until the driver reacts it goes on: `speed * delay` metres. Then it brakes:
# `speed ** 2 / (2 g grip)` metres. Speed is in m/s, delay in seconds, grip has no unit (0.8 is a
# dry road, 0.4 a wet one). The network sees 400 measurements with 2 % noise, and never the law. We
# know the law, so we can judge what we find.


# %% code law
def law(x):
    speed, delay, grip = x.unbind(-1)
    return torch.stack([speed * delay, speed**2 / (2 * 9.81 * grip)], -1)


low = torch.tensor([5.0, 0.5, 0.3], dtype=torch.float64)
high = torch.tensor([40.0, 2.0, 1.0], dtype=torch.float64)
draw = torch.Generator().manual_seed(1)
inputs = low + (high - low) * torch.rand(400, 3, generator=draw, dtype=torch.float64)
noise = 1 + 0.02 * torch.randn(400, 2, generator=draw, dtype=torch.float64)
measured = law(inputs) * noise

# %% code train
torch.manual_seed(1)
net = torch.nn.Sequential(
    *(torch.nn.Linear(3, 16), torch.nn.Tanh()),
    *(torch.nn.Linear(16, 16), torch.nn.Tanh()),
    torch.nn.Linear(16, 2),
).double()
scale = measured.std(0)


def model(x):
    return net(2 * (x - low) / (high - low) - 1) * scale


def loss():
    optimizer.zero_grad()
    error = ((model(inputs) - measured) / scale).square().mean()
    error.backward()
    return error


optimizer = torch.optim.LBFGS(net.parameters(), max_iter=150, line_search_fn="strong_wolfe")
threads = torch.get_num_threads()
torch.set_num_threads(1)  # matrices this small are done before a second thread has woken up
optimizer.step(loss)
torch.set_num_threads(threads)
net.requires_grad_(False)
missed = (model(inputs) - law(inputs)).square().mean(0).sqrt()
print(f"reaction is off by {missed[0]:.2f} m, braking by {missed[1]:.2f} m (root mean square)")

# %% proof train
assert missed[0] < 0.6
assert missed[1] < 2

# %% [markdown]
# The parameters are frozen now: in training, the gradient went to them; from here on it goes to the
# *inputs*. We ask about five situations at once, so the output has shape (5, 2).

# %% code situations
names = ("speed", "delay", "grip")
situations = torch.tensor(
    [[20, 1, 0.8], [20, 1, 0.4], [30, 1, 0.8], [30, 1, 0.4], [36, 1.5, 0.8]], dtype=torch.float64
)
leaves = {name: situations[:, k].clone().requires_grad_() for k, name in enumerate(names)}
out = model(torch.stack(list(leaves.values()), -1))
print("reaction:", [round(d, 1) for d in out[:, 0].tolist()], "m")
print("braking: ", [round(d, 1) for d in out[:, 1].tolist()], "m")

# %% [markdown]
# ## Questions with names
#
# Ten outputs, and many sensible questions. Each is a v of shape (5, 2), and gets a name. With
# weights that add up to 1, it asks about a mean.

# %% code questions
wet = situations[:, 2] < 0.6
reaction, braking = torch.zeros_like(out), torch.zeros_like(out)
reaction[:, 0], braking[:, 1] = 1, 1
questions = {
    "reaction": pb.cotangents.normalized(reaction),
    "braking": pb.cotangents.normalized(braking),
    "wet": pb.cotangents.normalized(wet[:, None] * torch.ones_like(out)),
}
asked = pb.sensitivity(out, leaves, questions)
print(asked)

# %% exercise weigh [markdown]
# **Exercise.** Write `wet_braking(out, wet)`: the v that asks about the mean *braking* distance
# (column 1 of `out`) over those situations in which `wet` is True. `out` has shape (n, 2), `wet` is
# a boolean tensor of n entries, at least one of them True.


# %% solution weigh
def wet_braking(out, wet):
    v = torch.zeros_like(out)
    v[wet, 1] = 1
    return pb.cotangents.normalized(v)


# %% check weigh
lesson.check("weigh", wet_braking)

# %% [markdown]
# ## Metres per what?
#
# Look at the shares in the table. They compare metres per m/s with metres per second and metres per
# one whole unit of grip.

# %% predict units [markdown]
# **Predict.** Take the whole way to a stop at 30 m/s on a dry road. Which input has the largest
# derivative (in absolute value), and which one moves the result most if it changes by 1 %?
#
# - a) speed, and speed
# - b) grip, and speed
# - c) delay, and grip

# %% reveal units
dry = situations[2]
slope = pb.jacobian(lambda x: model(x).sum())(dry)
percent = slope * dry / 100
for k, name in enumerate(names):
    print(f"{name:6} derivative {slope[k]:7.2f}   for 1 %: {percent[k]:5.2f} m")
steepest, strongest = (names[int(each.abs().argmax())] for each in (slope, percent))
lesson.reveal(
    "units",
    a=(steepest, strongest) == ("speed", "speed"),
    b=(steepest, strongest) == ("grip", "speed"),
    c=(steepest, strongest) == ("delay", "grip"),
)

# %% [markdown]
# A derivative has units. Grip has the steepest slope because one whole unit of grip is more than
# any road has to offer. Measure speed in km/h, and its derivative shrinks by 3.6, though nothing
# about the road has changed. Two ways to compare fairly:
#
# - the **scaled** sensitivity, `x * dy/dx`: metres for a change by 100 % at this slope;
# - the **elasticity**, `(x / y) * dy/dx`: per cent of y for one per cent of x. It has no unit at
#   all.

# %% code elastic
J = pb.jacobian(model)(dry)
elasticity = J * dry / model(dry)[:, None]
print("rows: reaction, braking; columns:", ", ".join(names))
lesson.show({"derivatives": J})
lesson.show({"elasticities": elasticity})

# %% proof elastic
truth = torch.tensor([[1.0, 1.0, 0.0], [2.0, 0.0, -1.0]], dtype=torch.float64)
for situation in situations:
    found = pb.jacobian(model)(situation) * situation / model(situation)[:, None]
    assert float((found - truth).abs().max()) < 0.25
in_kmh = pb.jacobian(lambda x: model(x / torch.tensor([3.6, 1.0, 1.0])))
faster = dry * torch.tensor([3.6, 1.0, 1.0])
assert torch.allclose(in_kmh(faster)[:, 0], J[:, 0] / 3.6)
assert torch.allclose(in_kmh(faster) * faster, J * dry)

# %% [markdown]
# Now the law shows through. In a product of powers, the elasticities *are* the exponents: 1, 1 and
# 0 for `speed * delay`; 2, 0 and -1 for `speed ** 2 / grip`. The network was never told, and has
# them nearly right.

# %% exercise elasticity [markdown]
# **Exercise.** Write `elasticities(f, x)`: f takes a vector of n entries and returns one of m; the
# result is the (m, n) matrix of `(x[j] / y[i]) * dy[i]/dx[j]`, signs kept. No entry of y is 0.


# %% solution elasticity
def elasticities(f, x):
    return pb.jacobian(f)(x) * x / f(x)[:, None]


# %% check elasticity
lesson.check("elasticity", elasticities)

# %% [markdown]
# ## Let the leaf be the per cent
#
# There is a neat way to have the scaling done by autograd. Write each input as `x * exp(z)` with z
# = 0, and make z the leaf. The derivative by z is `x * dy/dx`. Every gradient is in metres now, so
# shares, totals and row sums add up what can be added.

# %% code relative
z = {name: torch.zeros(5, dtype=torch.float64, requires_grad=True) for name in names}
scaled = situations * torch.stack(list(z.values()), -1).exp()
relative = pb.sensitivity(model(scaled), z, questions)
print(relative)
print("rows: the five situations; columns:", ", ".join(names))
lesson.show({k: torch.stack([found[n] for n in names], -1) for k, found in relative.grads.items()})

# %% [markdown]
# `J 1`, the row sums, now say how each output moves when *all* inputs grow together, in the same
# proportion. A total is `v . (J 1)`: the mean of that over the outputs that were asked about.

# %% predict together [markdown]
# **Predict.** Speed, delay and grip all grow by 1 %. How much longer do the two distances get?
#
# - a) both by 1 %
# - b) reaction by 2 %, braking by 3 %
# - c) reaction by 2 %, braking by 1 %

# %% reveal together
growth = (relative.row_sums.reshape(5, 2) / out.detach()).mean(0)
print(f"for 1 %: reaction {growth[0]:.2f} %, braking {growth[1]:.2f} %")


def near(*percents):
    return bool(((growth - torch.tensor(percents)).abs() < 0.3).all())


lesson.reveal("together", a=near(1, 1), b=near(2, 3), c=near(2, 1))

# %% proof together
weighed = (questions["wet"].reshape(-1) * relative.row_sums).sum()
assert abs(float(weighed) - relative.totals["wet"]) < 1e-9
by_grip = relative.grads["reaction"]["grip"].abs().sum()
assert by_grip < 0.1 * relative.grads["reaction"]["speed"].abs().sum()
assert int(relative.grads["braking"]["grip"].abs().argmax()) == 3

# %% [markdown]
# The exponents add up: 1 + 1 in the one, 2 - 1 in the other. (This is Euler's theorem on
# homogeneous functions.) And the picture says from where each metre comes: grip does next to
# nothing for the reaction, and most for braking at 30 m/s on the wet road.

# %% [markdown]
# ## Is it so? Two different questions
#
# First: are these the derivatives of the *model*? Central differences share no code with autograd.

# %% code confirm
v, h = questions["wet"], 1e-5
wiggled = torch.zeros(3, 5, dtype=torch.float64)
for k in range(3):
    for i in range(5):
        up, down = situations.clone(), situations.clone()
        up[i, k] *= 1 + h
        down[i, k] *= 1 - h
        wiggled[k, i] = (v * (model(up) - model(down))).sum() / (2 * h)
by_autograd = torch.stack([relative.grads["wet"][name] for name in names])
print("largest gap:", float((wiggled - by_autograd).abs().max()), "m")

# %% proof confirm
assert float((wiggled - by_autograd).abs().max()) < 1e-6

# %% [markdown]
# Second: how far may we go with them? A derivative is the slope *here*.

# %% predict wet [markdown]
# **Predict.** The elasticity of braking by grip is about -1. Rain halves the grip, from 0.8 to 0.4,
# a change by -50 %. How much longer does the model brake, at 30 m/s?
#
# - a) 25 % longer
# - b) 50 % longer: -1 times -50 %
# - c) 100 % longer

# %% reveal wet
before, after = float(model(situations[2])[1]), float(model(situations[3])[1])
longer = after / before - 1
print(f"{before:.1f} m -> {after:.1f} m: {longer:.0%} longer")
lesson.reveal("wet", a=0 < longer < 0.4, b=0.4 <= longer < 0.7, c=longer >= 0.7)

# %% [markdown]
# `1 / grip` is curved: half the grip is twice the distance. A slope answers for small changes, and
# a half is not small. For large ones, run the model twice.

# %% exercise predicted [markdown]
# **Exercise.** Write `predicted_change(f, x, v, factors)`: by how much `(v * f(x)).sum()` changes,
# to first order, if x becomes `x * factors`. One VJP at x, and f is not asked anywhere else.
# `factors` has the shape of x; 1.01 is one per cent more, and 1 is no change.


# %% solution predicted
def predicted_change(f, x, v, factors):
    _, pull = pb.vjp(f, x)
    return (pull(v)[0] * x * (factors - 1)).sum()


# %% check predicted
lesson.check("predicted", predicted_change)

# %% [markdown]
# ## The model is not the world
#
# All of this was about the model. The data ended at 40 m/s. Nobody forbids you to ask it about 80.

# %% predict outside [markdown]
# **Predict.** By the law, the elasticity of braking by speed is 2 at every speed. What does the
# model have at 80 m/s, on a dry road?
#
# - a) less than 1.7
# - b) 2, give or take 0.3
# - c) more than 2.3

# %% reveal outside
fast = torch.tensor([80.0, 1.0, 0.8], dtype=torch.float64)
at_80 = float((pb.jacobian(model)(fast) * fast / model(fast)[:, None])[1, 0])
distances = [float(f(fast)[1]) for f in (model, law)]
print(f"elasticity {at_80:.2f}; braking {distances[0]:.0f} m, by the law {distances[1]:.0f} m")
lesson.reveal("outside", a=at_80 < 1.7, b=1.7 <= at_80 <= 2.3, c=at_80 > 2.3)

# %% proof outside
assert distances[0] < 0.95 * distances[1]

# %% [markdown]
# The `tanh` units run into their ends, and the model flattens where the law keeps rising. The
# gradient is exact, and it is the exact gradient of a wrong model. A sensitivity says what the
# *model* rests on. Whether the world does is decided by data.

# %% [markdown]
# ## Your own
#
# Other situations, other weights. Negative weights ask about a difference: this v asks how much
# longer the last way to a stop is than the first.

# %% yours
own_situations = torch.tensor([[10.0, 0.8, 0.8], [25.0, 1.2, 0.5]], dtype=torch.float64)
own_v = torch.tensor([[-1.0, -1.0], [1.0, 1.0]], dtype=torch.float64)

# %% code own
own_z = torch.zeros_like(own_situations).requires_grad_()
own = pb.sensitivity(model(own_situations * own_z.exp()), own_z, {"mine": own_v})
lesson.show(own)
for _, (situation, k), metres in own.top("mine", 3):
    print(f"{names[k]} of situation {situation}: {metres / 100:+.2f} m for 1 %")

# %% exercise mine [markdown]
# **Exercise.** Bring a function that you care about: `my_f` takes a float64 vector and returns a
# tensor; `my_x` is a point without zeros, of at least two entries. Give `my_strongest`: the
# position of the entry of x that moves `my_f(x).sum()` most if it changes by 1 %. The check finds
# it without autograd.


# %% solution mine
def my_f(x):
    """A loan: what is paid back each month, for a sum, a yearly rate, and a number of years."""
    total, rate, years = x
    monthly = rate / 12
    return total * monthly / (1 - (1 + monthly) ** (-12 * years))


my_x = torch.tensor([200_000.0, 0.03, 25.0], dtype=torch.float64)
my_strongest = 0

# %% check mine
lesson.check("mine", (my_f, my_x, my_strongest))

# %% [markdown]
# ## What to keep
#
# - A question about outputs is a v with a name; `pb.sensitivity` answers many at once.
# - Derivatives have units. Compare `x * dy/dx`, or elasticities, `(x / y) * dy/dx`.
# - With `x * exp(z)` and z for the leaf, row sums tell what happens if all grows together.
# - Confirm by differences; mind the curve for large changes; mind the edge of the data.

# %%
lesson.summary()
