"""Programs whose ``.grad`` is not what their author expected; ``pb.why`` is asked at the end.

Each names ``x`` (the tensor asked about), leaves its verdict in ``verdict``, and marks the line that
is to blame with ``# <-``. ``fix`` is the change of the program that the verdict proposes; after it
``x.grad`` is ``expected`` (for x = [1, 2] unless a program says otherwise).
"""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import dedent


@dataclass(frozen=True)
class Case:
    source: str
    code: str
    fix: tuple[tuple[str, str], ...] = ()
    expected: tuple[float, ...] = ()
    says: str = ""
    pain: int | None = None
    stays: bool = False  # the code is right after the fix, too

    @property
    def fixed(self) -> str:
        text = self.source
        for old, new in self.fix:
            assert text.count(old) == 1, (old, text.count(old))
            text = text.replace(old, new)
        return text


def case(source: str, code: str, *fix: tuple[str, str], **rest: object) -> Case:
    return Case(
        "import torch\nimport pullback as pb\n" + dedent(source).lstrip(), code, fix, **rest
    )


X = "x = torch.tensor([1.0, 2.0], requires_grad=True)\n"

CASES: dict[str, Case] = {
    "detached": case(
        X + """
with pb.trace():
    hidden = x.detach()  # <-
    w = torch.ones(2, requires_grad=True)
    out = (hidden * w).sum()
out.backward()
verdict = pb.why(x, out)
""",
        "cut", ("x.detach()", "x"), expected=(1.0, 1.0), says="Leave the detach out", pain=8,
    ),
    "detached twice on the way": case(
        X + """
w = torch.ones(2, requires_grad=True)
with pb.trace():
    first = (x * 1).detach()  # <-
    second = (first * w).detach()
    out = (second * w).sum()
out.backward()
verdict = pb.why(x, out)
""",
        "cut", ("(x * 1).detach()", "x * 1"), ("(first * w).detach()", "first * w"),
        expected=(1.0, 1.0), says="1 more cut", pain=8,
    ),
    "data": case(
        X + """
w = torch.ones(2, requires_grad=True)
with pb.trace():
    out = (x.data * w).sum()  # <-
out.backward()
verdict = pb.why(x, out)
""",
        "cut", ("x.data * w", "x * w"), expected=(1.0, 1.0), says="Leave .data out", pain=8,
    ),
    "read out with item": case(
        X + """
w = torch.ones(2, requires_grad=True)
with pb.trace():
    total = x.sum().item()  # <-
    out = (w * total).sum()
out.backward()
verdict = pb.why(x, out)
""",
        "cut", ("x.sum().item()", "x.sum()"), expected=(2.0, 2.0), says="plain numbers", pain=8,
    ),
    "copied by torch.tensor": case(
        X + """
import warnings
warnings.simplefilter("ignore")
w = torch.ones(2, requires_grad=True)
with pb.trace():
    out = (torch.tensor(x) * w).sum()  # <-
out.backward()
verdict = pb.why(x, out)
""",
        "cut", ("torch.tensor(x)", "x.clone()"), expected=(1.0, 1.0), says=".clone()", pain=8,
    ),
    "through numpy": case(
        X + """
w = torch.ones(2, requires_grad=True)
with pb.trace():
    values = torch.from_numpy(x.detach().numpy() * 2)  # <-
    out = (w * values).sum()
out.backward()
verdict = pb.why(x, out)
""",
        "cut", ("torch.from_numpy(x.detach().numpy() * 2)", "x * 2"), expected=(2.0, 2.0),
        pain=8,
    ),
    "argmax": case(
        X + """
w = torch.ones(2, requires_grad=True)
with pb.trace():
    best = x.argmax()  # <-
    out = w[best]
out.backward()
verdict = pb.why(x, out)
""",
        "cut", ("x.argmax()", "x.softmax(0)"), ("out = w[best]", "out = (w * best).sum()"),
        expected=(0.0, 0.0), says="has no derivative", pain=6,
    ),
    "the indices of a sort": case(
        X + """
w = torch.tensor([1.0, 3.0], requires_grad=True)
with pb.trace():
    _, order = x.sort()  # <-
    out = (w * order).sum()
out.backward()
verdict = pb.why(x, out)
""",
        "cut", ("_, order = x.sort()", "order, _ = x.sort()"), expected=(1.0, 3.0),
        says="has no derivative",
    ),
    "a comparison": case(
        X + """
w = torch.ones(2, requires_grad=True)
with pb.trace():
    mask = (x > 1.5).float()  # <-
    out = (w * mask).sum()
out.backward()
verdict = pb.why(x, out)
""",
        "cut", ("(x > 1.5).float()", "torch.sigmoid(x - 1.5)"),
        expected=(0.2350037, 0.2350037), says="has no derivative",
    ),
    "an integer cast": case(
        X + """
w = torch.ones(2, requires_grad=True)
with pb.trace():
    rounded = x.long()  # <-
    out = (w * rounded).sum()
out.backward()
verdict = pb.why(x, out)
""",
        "cut", ("x.long()", "x"), expected=(1.0, 1.0), pain=6,
    ),
    "under no_grad": case(
        X + """
w = torch.ones(2, requires_grad=True)
with pb.trace():
    with torch.no_grad():
        features = x * 3  # <-
    out = (features * w).sum()
out.backward()
verdict = pb.why(x, out)
""",
        "cut", ("with torch.no_grad():", "if True:"), expected=(3.0, 3.0),
        says="Move it out of the no_grad block", pain=6,
    ),
    "the output under no_grad": case(
        X + """
with pb.trace(), torch.no_grad():
    out = (x * 3).sum()  # <-
if out.requires_grad:
    out.backward()
verdict = pb.why(x, out)
""",
        "cut", ("with pb.trace(), torch.no_grad():", "with pb.trace():"), expected=(3.0, 3.0),
        says="no_grad", pain=6,
    ),
    "made under no_grad": case(
        """
w = torch.tensor([1.0, 2.0], requires_grad=True)
with pb.trace():
    with torch.no_grad():
        x = w * 1  # <-
    out = (x * w).sum()
out.backward()
verdict = pb.why(x, out)
""",
        "no_grad", ("with torch.no_grad():", "if True:"), ("out = ", "x.retain_grad(); out = "),
        expected=(1.0, 2.0), says="no_grad", pain=6,
    ),
    "made under inference_mode": case(
        """
w = torch.tensor([1.0, 2.0], requires_grad=True)
with pb.trace():
    with torch.inference_mode():
        x = w * 1  # <-
    out = (w * w).sum()
out.backward()
verdict = pb.why(x, out)
""",
        "inference_mode", ("    with torch.inference_mode():\n        x = w * 1", "    x = w * 1"),
        ("(w * w).sum()", "(x * x).sum()"), ("out.backward()", "x.retain_grad(); out.backward()"),
        expected=(2.0, 4.0),
    ),
    "an integer tensor": case(
        """
x = torch.tensor([1, 2])
out = (x * torch.ones(2, requires_grad=True)).sum()
out.backward()
verdict = pb.why(x, out)
""",
        "integer_dtype", ("torch.tensor([1, 2])", "torch.tensor([1, 2]).float().requires_grad_()"),
        expected=(1.0, 1.0), says=".float().requires_grad_()",
    ),
    "an argmax itself": case(
        """
w = torch.tensor([1.0, 2.0], requires_grad=True)
with pb.trace():
    x = w.argmax()  # <-
verdict = pb.why(x)
""",
        "integer_dtype", says="int64",
    ),
    "without requires_grad": case(
        """
x = torch.tensor([1.0, 2.0])
out = (x * torch.ones(2, requires_grad=True)).sum()
out.backward()
verdict = pb.why(x, out)
""",
        "no_requires_grad",
        ("x = torch.tensor([1.0, 2.0])", "x = torch.tensor([1.0, 2.0]).requires_grad_()"),
        expected=(1.0, 1.0), says="x.requires_grad_()",
    ),
    "a frozen parameter": case(
        """
layer = torch.nn.Linear(2, 1)
torch.nn.init.ones_(layer.weight)
x = layer.weight
x.requires_grad_(False)
out = layer(torch.tensor([[1.0, 2.0]])).sum()
out.backward()
verdict = pb.why(x, out)
""",
        "frozen", ("requires_grad_(False)", "requires_grad_(True)"), expected=(1.0, 2.0),
        says="x.requires_grad_(True)", pain=6,
    ),
    "the fake fix": case(
        """
w = torch.ones(2, requires_grad=True)
x = w
with pb.trace(), torch.no_grad():
    loss = (w * torch.tensor([1.0, 2.0])).sum()  # <-
if not loss.requires_grad:
    loss.requires_grad = True
loss.backward()
verdict = pb.why(x, loss)
""",
        "cut", ("with pb.trace(), torch.no_grad():", "with pb.trace():"), expected=(1.0, 2.0),
        pain=6,
    ),
    "re-bound by to": case(
        X + """
with pb.trace():
    x = x.to(torch.float64)  # <-
    out = (x * x).sum()
out.backward()
verdict = pb.why(x)
""",
        "rebound",
        ("x = x.to(torch.float64)", "x = (x.to(torch.float64)).detach().requires_grad_()"),
        expected=(2.0, 4.0), says="x = (x.to(torch.float64)).detach().requires_grad_()", pain=5,
    ),
    "re-bound by view": case(
        X + """
with pb.trace():
    x = x.view(2, 1)  # <-
    out = (x * x).sum()
verdict = pb.why(x, out)
out.backward()
""",
        "rebound", ("x = x.view(2, 1)", "x = (x.view(2, 1)).detach().requires_grad_()"),
        expected=(2.0, 4.0), says="[[2.0], [4.0]]", pain=5,
    ),
    "scaled where it is made": case(
        """
with pb.trace():
    x = torch.ones(2, requires_grad=True) * 0.5  # <-
    out = (x * x).sum()
out.backward()
verdict = pb.why(x)
""",
        "rebound",
        ("torch.ones(2, requires_grad=True) * 0.5", "(torch.ones(2) * 0.5).requires_grad_()"),
        expected=(1.0, 1.0), says="(torch.ones(2) * 0.5).requires_grad_()", pain=7,
    ),
    "computed, and not retained": case(
        """
w = torch.tensor([1.0, 2.0], requires_grad=True)
with pb.trace():
    x = w * 2  # <-
    out = (x * x).sum()
verdict = pb.why(x, out)
out.backward()
""",
        "non_leaf", ("out = (x * x)", "x.retain_grad(); out = (x * x)"), expected=(4.0, 8.0),
        says="[4.0, 8.0]", pain=4,
    ),
    "not an ancestor": case(
        X + """
w = torch.ones(2, requires_grad=True)
out = (w * 2).sum()
out.backward()
verdict = pb.why(x, out)
""",
        "not_reached", ("(w * 2)", "(w * x)"), expected=(1.0, 1.0), pain=16,
    ),
    "a copy went into the forward": case(
        """
import copy
model = torch.nn.Linear(2, 1, bias=False)
x = model.weight
other = copy.deepcopy(model)
out = other(torch.tensor([[1.0, 2.0]])).sum()
out.backward()
verdict = pb.why(x, out)
""",
        "different_object", ("out = other(", "out = model("), expected=(1.0, 2.0),
        says="holds equal values",
    ),
    "a layer of its own, filled with the same ones": case(
        """
used, unused = torch.nn.LayerNorm(2), torch.nn.LayerNorm(2)
torch.nn.init.ones_(used.bias)
x = unused.weight
out = used(torch.tensor([[0.0, 1.0]])).square().sum()
out.backward()
verdict = pb.why(x, out)
""",
        "not_reached",
    ),
    "inputs= left it out": case(
        X + """
w = torch.ones(2, requires_grad=True)
with pb.ledger({"x": x}):
    out = (x * w).sum()
    out.backward(inputs=[w])  # <-
verdict = pb.why(x)
""",
        "inputs_left_out", ("inputs=[w]", "inputs=[w, x]"), expected=(1.0, 1.0),
        says="Add x to inputs=",
    ),
    "autograd.grad hands back": case(
        X + """
with pb.ledger({"x": x}):
    out = (x * x).sum()
    torch.autograd.grad(out, x)  # <-
verdict = pb.why(x)
""",
        "autograd_grad", ("torch.autograd.grad(out, x)", "out.backward()"), expected=(2.0, 4.0),
        says="backward()",
    ),
    "a Function that returns None": case(
        X + """
class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value):
        return value * 2

    @staticmethod
    def backward(ctx, upstream):
        return None

with pb.trace():
    out = Twice.apply(x).sum()
verdict = pb.why(x, out)
out.backward()
""",
        "function_returned_none", ("return None", "return upstream * 2"), expected=(2.0, 2.0),
        says="Twice.backward", pain=22,
    ),
    "zeroed before it was read": case(
        X + """
optimizer = torch.optim.SGD([x], lr=0.1)
with pb.ledger({"x": x}):
    (x * x).sum().backward()
    optimizer.zero_grad()  # <-
verdict = pb.why(x)
""",
        "zeroed_after", ("    optimizer.zero_grad()", "    pass"), expected=(2.0, 4.0),
        says="Read x.grad between",
    ),
    "filled with zeros": case(
        X + """
optimizer = torch.optim.SGD([x], lr=0.1)
with pb.ledger({"x": x}):
    (x * x).sum().backward()
    optimizer.zero_grad(set_to_none=False)  # <-
verdict = pb.why(x)
""",
        "zeroed_after", ("    optimizer.zero_grad(set_to_none=False)", "    pass"),
        expected=(2.0, 4.0), says="zeros",
    ),
    "emptied, and only traced": case(
        X + """
with pb.trace():
    out = (x * x).exp().sum()
    out.backward()  # <-
    x.grad = None
verdict = pb.why(x, out)
""",
        "zeroed_after", ("    x.grad = None\n", ""), expected=(5.4365637, 218.3926),
        says="something has set it to None",
    ),
    "an empty tensor": case(
        """
x = torch.zeros(0, 3, requires_grad=True)
out = (x * 2).sum()
out.backward(retain_graph=True)
verdict = pb.why(x, out)
""",
        "arrived", says="empty",
    ),
    "no backward ran": case(
        X + """
with pb.ledger({"x": x}):
    out = (x * x).sum()
verdict = pb.why(x)
""",
        "no_backward", ("    out = (x * x).sum()", "    (x * x).sum().backward()"),
        expected=(2.0, 4.0),
    ),
    "no backward ran, with the output": case(
        X + """
out = (x * x).sum()
verdict = pb.why(x, out)
""",
        "no_backward", ("verdict =", "out.backward(); verdict ="), expected=(2.0, 4.0),
        says="[2.0, 4.0]",
    ),
    "two backwards": case(
        X + """
with pb.ledger({"x": x}):
    for _ in range(2):
        (x * x).sum().backward()  # <-
verdict = pb.why(x)
""",
        "accumulated", ("        (x * x)", "        x.grad = None; (x * x)"), expected=(2.0, 4.0),
        says="x.grad = None", pain=9,
    ),
    "two backwards, nobody watched": case(
        X + """
out = (x * x).sum()
out.backward(retain_graph=True)
out.backward(retain_graph=True)
verdict = pb.why(x, out)
""",
        "accumulated", ("retain_graph=True)\nverdict", "retain_graph=True)\nx.grad /= 2\nverdict"),
        expected=(2.0, 4.0), says="exactly 2 times", pain=9,
    ),
    "four micro-batches, not divided": case(
        """
layer = torch.nn.Linear(2, 1, bias=False)
torch.nn.init.ones_(layer.weight)
x = layer.weight
with pb.ledger(layer):
    for _ in range(4):
        loss = layer(torch.tensor([[1.0, 2.0]])).mean()
        loss.backward()  # <-
verdict = pb.why(x)
""",
        "accumulated", ("mean()", "mean() / 4"), expected=(1.0, 2.0), says="4 deposits", pain=9,
        stays=True,
    ),
    "scaled by a GradScaler": case(
        X + """
optimizer = torch.optim.SGD([x], lr=0.1)
scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
with pb.ledger({"x": x}):
    scaler.scale((x * x).sum()).backward()  # <-
verdict = pb.why(x)
""",
        "loss_scaled", ("backward()  # <-", "backward(); scaler.unscale_(optimizer)"),
        expected=(2.0, 4.0), says="1024", pain=22,
    ),
    "stale after a step": case(
        X + """
optimizer = torch.optim.SGD([x], lr=0.25)
with pb.ledger({"x": x}):
    (x * x).sum().backward()
    optimizer.step()  # <-
verdict = pb.why(x)
""",
        "stale", ("    optimizer.step()", "    optimizer.step(); x.grad = None; (x * x).sum().backward()"),
        expected=(1.0, 2.0), says="from before SGD.step",
    ),
    "of another output": case(
        X + """
(x * x).sum().backward()
out = (x * x * x).sum()
verdict = pb.why(x, out)
""",
        "stale", ("verdict =", "x.grad = None; out.backward(); verdict ="), expected=(3.0, 12.0),
    ),
    "nan": case(
        """
x = torch.tensor([0.0, 4.0], requires_grad=True)
out = (x.sqrt() * torch.tensor([0.0, 1.0])).sum()
out.backward()
verdict = pb.why(x)
""",
        "nonfinite", ("x.sqrt()", "x.clamp_min(1e-12).sqrt()"), expected=(0.0, 0.25),
        says="find_nonfinite", pain=15,
    ),
    "inf": case(
        """
x = torch.tensor([0.0, 4.0], requires_grad=True)
out = x.sqrt().sum()
out.backward()
verdict = pb.why(x)
""",
        "nonfinite", ("x.sqrt()", "x.clamp_min(1e-12).sqrt()"), expected=(0.0, 0.25),
        says="1 inf", pain=14,
    ),
    "nan, with the graph at hand": case(
        """
x = torch.tensor([0.0, 4.0], requires_grad=True)
with pb.trace():
    out = (x.sqrt() * torch.tensor([0.0, 1.0])).sum()  # <-
out.backward(retain_graph=True)
verdict = pb.why(x, out)
""",
        "nonfinite",
        ("x.sqrt()", "torch.where(x > 0, torch.where(x > 0, x, 1.0).sqrt(), 0.0)"),
        expected=(0.0, 0.25), says="torch.where(x > 0, torch.where(x > 0, x, 1.0).sqrt(), 0.0)",
        pain=15,
    ),
    "inside a compiled region": case(
        X + """
w = torch.ones(2, requires_grad=True)
function = torch.compile(lambda t: (t * x.detach()).sum(), backend="aot_eager")
out = function(w)
out.backward(retain_graph=True)
verdict = pb.why(x, out)
""",
        "opaque", ("x.detach()", "x"), expected=(1.0, 1.0), says="torch.compile", pain=21,
    ),
    "rounded": case(
        X + """
with pb.trace():
    out = torch.round(x).sum()  # <-
out.backward()
verdict = pb.why(x, out)
""",
        "structural_zero", ("torch.round(x)", "(x + (torch.round(x) - x).detach())"),
        expected=(1.0, 1.0), says="x + (torch.round(x) - x).detach()",
    ),
    "rounded where it is not linear": case(
        """
x = torch.tensor([-1.0, -2.0], requires_grad=True)
with pb.trace():
    out = torch.where(x > 0, x, torch.round(x)).sum()  # <-
out.backward(retain_graph=True)
verdict = pb.why(x, out)
""",
        "numeric_zero", ("[-1.0, -2.0]", "[1.0, 2.0]"), expected=(1.0, 1.0),
    ),
    "overwritten where it is negative": case(
        """
x = torch.tensor([-1.0, -2.0], requires_grad=True)
with pb.trace():
    hidden = x * 1
    hidden[x < 0] = 0.0  # <-
    out = hidden.sum()
out.backward(retain_graph=True)
verdict = pb.why(x, out)
""",
        "numeric_zero", ("[-1.0, -2.0]", "[1.0, 2.0]"), expected=(1.0, 1.0),
    ),
    "a dead unit": case(
        """
x = torch.tensor([-1.0, -2.0], requires_grad=True)
with pb.trace():
    out = x.relu().sum()  # <-
out.backward(retain_graph=True)
verdict = pb.why(x, out)
""",
        "numeric_zero", ("x.relu()", "torch.nn.functional.leaky_relu(x, 0.5)"),
        expected=(0.5, 0.5), says="no missing gradient",
    ),
    "times zero": case(
        X + """
with pb.trace():
    out = (x * torch.zeros(2)).sum()  # <-
out.backward(retain_graph=True)
verdict = pb.why(x, out)
""",
        "numeric_zero", ("torch.zeros(2)", "torch.ones(2)"), expected=(1.0, 1.0),
    ),
    "underflow": case(
        X + """
out = ((x * 1e-30) * 1e-30).sum()
out.backward(retain_graph=True)
verdict = pb.why(x, out)
""",
        "underflow", ("1e-30) * 1e-30", "1e-10) * 1e-10"), expected=(1e-20, 1e-20),
        says="too small for its dtype",
    ),
    "as it should be": case(
        X + """
out = (x * x).sum()
out.backward(retain_graph=True)
verdict = pb.why(x, out)
""",
        "arrived", expected=(2.0, 4.0),
    ),
    "written through NumPy": case(
        X + """
with pb.ledger({"x": x}):
    (x * x).sum().backward()
    x.grad.numpy()[0] = 7.0
verdict = pb.why(x)
""",
        "unlogged_write", ("    x.grad.numpy()[0] = 7.0", "    pass"), expected=(2.0, 4.0),
    ),
    "zero, and the graph is gone": case(
        X + """
out = (x * torch.zeros(2)).sum()
out.backward()
verdict = pb.why(x, out)
""",
        "zero", ("torch.zeros(2)", "torch.ones(2)"), expected=(1.0, 1.0),
        says="while their graph is there",
    ),
    "freed by an earlier backward": case(
        X + """
hidden = (x * x).exp()
hidden.sum().backward()
x.grad = None
out = hidden.mean()
verdict = pb.why(x, out)
""",
        "freed_graph", ("backward()\nx.grad", "backward(retain_graph=True)\nx.grad"),
        ("verdict =", "out.backward(); verdict ="), expected=(2.7182817, 109.1963), pain=2,
        says="retain_graph=True",
    ),
    "a failed backward": case(
        X + """
out = x * x
with pb.ledger({"x": x}):
    try:
        out.backward()  # <-
    except RuntimeError:
        pass
verdict = pb.why(x)
""",
        "backward_failed", ("out.backward()", "out.backward(torch.ones(2))"), expected=(2.0, 4.0),
        says="scalar outputs", pain=1,
    ),
    "a reentrant checkpoint of inputs without gradients": case(
        X + """
import warnings
from torch.utils.checkpoint import checkpoint
warnings.simplefilter("ignore")
with pb.trace():
    out = checkpoint(lambda t: (t * x).sum(), torch.ones(2), use_reentrant=True)  # <-
if out.requires_grad:
    out.backward()
verdict = pb.why(x, out)
""",
        "cut", ("use_reentrant=True", "use_reentrant=False"), expected=(1.0, 1.0), pain=20,
    ),
    "unknown": case(
        X + """
verdict = pb.why(x)
""",
        "unknown", ("verdict =", "(x * x).sum().backward(); verdict ="), expected=(2.0, 4.0),
        says="pb.ledger(x)",
    ),
}  # fmt: skip
