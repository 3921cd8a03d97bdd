"""Programs with a gradient (or an output) that is not finite, and what theory says of each.

The line of the birth ends with ``# here``. ``after`` holds the gradients that the program has, by
hand, once the expression that gave birth is replaced by the rewrite: 0 where the derivative does
not exist, and the analytic one elsewhere. None where no rewrite is known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

inf, nan = math.inf, math.nan


@dataclass(frozen=True)
class Broken:
    name: str
    source: str
    code: str
    node: str
    element: tuple[int, ...]
    derivative: float | None = None
    after: dict[str, list[Any] | float] | None = None
    position: int = 0
    kind: str = "nan"


def leaf(name: str, values: Any, kind: str = "float64") -> str:
    return f"{name} = torch.tensor({values}, dtype=torch.{kind}, requires_grad=True)\n"


X04 = leaf("x", [0.0, 4.0])
X11 = leaf("x", [1.0, 0.5])

BROKEN: list[Broken] = [
    # A mask on the result: upstream exactly 0, derivative infinite.
    Broken("sqrt under where", X04 + "out = torch.where(x > 0, x.sqrt(), 0 * x)  # here",
           "zero_times_infinity", "SqrtBackward0", (0,), inf, {"x": [0, 1 / 4]}),
    Broken("torch.sqrt of an expression", X04 + "out = torch.where(x > 0, torch.sqrt(3 * x), 0 * x)  # here",
           "zero_times_infinity", "SqrtBackward0", (0,), inf, {"x": [0, 3 / (2 * math.sqrt(12))]}),
    Broken("sqrt, masked_fill", X04 + "out = x.sqrt().masked_fill(x <= 0, 0.0)  # here",
           "zero_times_infinity", "SqrtBackward0", (0,), inf, {"x": [0, 1 / 4]}),
    Broken("sqrt times a mask", X04 + "out = x.sqrt() * (x > 0)  # here",
           "zero_times_infinity", "SqrtBackward0", (0,), inf, {"x": [0, 1 / 4]}),
    Broken("sqrt, indexed", X04 + "out = x.sqrt()[x > 0]  # here",
           "zero_times_infinity", "SqrtBackward0", (0,), inf, {"x": [0, 1 / 4]}),
    Broken("sqrt, sliced", X04 + "out = x.sqrt()[1:]  # here",
           "zero_times_infinity", "SqrtBackward0", (0,), inf, {"x": [0, 1 / 4]}),
    Broken("mask far above", X04 + "root = x.sqrt()  # here\nout = torch.where(x > 0, 3 * root.neg(), 0 * x)",
           "zero_times_infinity", "SqrtBackward0", (0,), inf, {"x": [0, -3 / 4]}),
    Broken("log under where", X04 + "out = torch.where(x > 0, x.log(), 0 * x)  # here",
           "zero_times_infinity", "LogBackward0", (0,), inf, {"x": [0, 1 / 4]}),
    Broken("log2 under where", X04 + "out = torch.where(x > 0, x.log2(), 0 * x)  # here",
           "zero_times_infinity", "Log2Backward0", (0,), inf, {"x": [0, 1 / (4 * math.log(2))]}),
    Broken("log10 under where", X04 + "out = torch.where(x > 0, x.log10(), 0 * x)  # here",
           "zero_times_infinity", "Log10Backward0", (0,), inf, {"x": [0, 1 / (4 * math.log(10))]}),
    Broken("log1p under where", leaf("x", [-1.0, 3.0]) + "out = torch.where(x > -1, x.log1p(), 0 * x)  # here",
           "zero_times_infinity", "Log1PBackward0", (0,), inf, {"x": [0, 1 / 4]}),
    Broken("geometric mean", X04 + "out = x.log().mean().exp()  # here",
           "zero_times_infinity", "LogBackward0", (0,), inf, {"x": [0, 0]}),
    Broken("division under where", leaf("x", [1.0, 4.0]) + leaf("y", [0.0, 2.0])
           + "out = torch.where(y > 0, x / y, 0 * x)  # here",
           "zero_times_infinity", "DivBackward0", (0,), inf, {"x": [0, 1 / 2], "y": [0, -1]}),
    Broken("division, broadcast", leaf("x", [[1.0, 4.0]]) + leaf("y", [[2.0], [0.0]])
           + "out = torch.where(y > 0, x / y, 0 * x)  # here",
           "zero_times_infinity", "DivBackward0", (0, 0), inf, {"x": [[0.5, 0.5]], "y": [[-5 / 4], [0]]}),
    Broken("a number divided", X04 + "out = torch.where(x > 0, 3 / x, 0 * x)  # here",
           "zero_times_infinity", "ReciprocalBackward0", (0,), -inf, {"x": [0, -3 / 16]}),
    Broken("reciprocal under where", X04 + "out = torch.where(x > 0, x.reciprocal(), 0 * x)  # here",
           "zero_times_infinity", "ReciprocalBackward0", (0,), -inf, {"x": [0, -1 / 16]}),
    Broken("rsqrt under where", X04 + "out = torch.where(x > 0, x.rsqrt(), 0 * x)  # here",
           "zero_times_infinity", "RsqrtBackward0", (0,), -inf, {"x": [0, -1 / 16]}),
    Broken("a negative power under where", leaf("x", [0.0, 4.0, -2.0]) + "out = torch.where(x != 0, x**-1, 0 * x)  # here",
           "zero_times_infinity", "PowBackward0", (0,), -inf, {"x": [0, -1 / 16, -1 / 4]}),
    Broken("atanh under where", X11 + "out = torch.where(x < 1, x.atanh(), 0 * x)  # here",
           "zero_times_infinity", "AtanhBackward0", (0,), inf, {"x": [0, 4 / 3]}),
    Broken("erfinv under where", X11 + "out = torch.where(x < 1, x.erfinv(), 0 * x)  # here",
           "zero_times_infinity", "ErfinvBackward0", (0,), inf,
           {"x": [0, math.sqrt(math.pi) / 2 * math.exp(0.4769362762044699**2)]}),
    Broken("logit under where", X11 + "out = torch.where(x < 1, x.logit(), 0 * x)  # here",
           "zero_times_infinity", "LogitBackward0", (0,), inf, {"x": [0, 4]}),
    Broken("exp under where", leaf("x", [1000.0, 2.0]) + "out = torch.where(x < 50, x.exp(), 0 * x)  # here",
           "zero_times_infinity", "ExpBackward0", (0,), inf, {"x": [0, math.exp(2)]}),
    Broken("expm1 under where", leaf("x", [1000.0, 2.0]) + "out = torch.where(x < 50, x.expm1(), 0 * x)  # here",
           "zero_times_infinity", "Expm1Backward0", (0,), inf, {"x": [0, math.exp(2)]}),
    Broken("times a mask of -inf", leaf("x", [1.0, 2.0])
           + "m = torch.tensor([1.0, -torch.inf])\nout = torch.where(m > 0, x * m, 0 * x)  # here",
           "zero_times_infinity", "MulBackward0", (1,), -inf, {"x": [1, 0]}),
    Broken("complex sqrt", "z = torch.tensor([0j, 4 + 0j], requires_grad=True)\nout = z.sqrt() * torch.tensor([0.0, 1.0])  # here",
           "zero_times_infinity", "SqrtBackward0", (0,), None, {"z": [0, 1 / 4]}),
    # The upstream is not 0, and the derivative infinite: inf, which anomaly mode does not see.
    Broken("sqrt at 0", X04 + "out = x.sqrt()  # here",
           "infinite_derivative", "SqrtBackward0", (0,), inf, {"x": [0, 1 / 4]}, kind="inf"),
    Broken("length by hand", leaf("x", [0.0, 0.0]) + "out = (x * x).sum().sqrt()  # here",
           "infinite_derivative", "SqrtBackward0", (), inf, {"x": [0, 0]}, kind="inf"),
    Broken("clamped, then sqrt", leaf("x", [-1.0, 4.0]) + "out = x.clamp(min=0).sqrt()  # here",
           "infinite_derivative", "SqrtBackward0", (0,), inf, {"x": [0, 1 / 4]}, kind="inf"),
    Broken("power 0.5", X04 + "out = x**0.5  # here",
           "infinite_derivative", "PowBackward0", (0,), inf, {"x": [0, 1 / 4]}, kind="inf"),
    Broken("torch.pow", X04 + "out = torch.pow(x, 0.5)  # here",
           "infinite_derivative", "PowBackward0", (0,), inf, {"x": [0, 1 / 4]}, kind="inf"),
    Broken("tensor power", X04 + leaf("p", [0.5, 0.5]) + "out = x**p  # here",
           "infinite_derivative", "PowBackward1", (0,), inf,
           {"x": [0, 1 / 4], "p": [0, 2 * math.log(4)]}, kind="inf"),
    Broken("acos at 1", X11 + "out = x.acos()  # here",
           "infinite_derivative", "AcosBackward0", (0,), -inf, {"x": [0, -2 / math.sqrt(3)]}, kind="inf"),
    Broken("asin at -1", leaf("x", [0.5, -1.0]) + "out = torch.asin(x)  # here",
           "infinite_derivative", "AsinBackward0", (1,), inf, {"x": [2 / math.sqrt(3), 0]}, kind="inf"),
    Broken("acosh at 1", leaf("x", [1.0, 2.0]) + "out = x.acosh()  # here",
           "infinite_derivative", "AcoshBackward0", (0,), inf, {"x": [0, 1 / math.sqrt(3)]}, kind="inf"),
    Broken("entropy at 0", leaf("x", [0.0, 0.5]) + "out = torch.special.entr(x)  # here",
           "infinite_derivative", "SpecialEntrBackward0", (0,), inf, {"x": [0, math.log(2) - 1]}, kind="inf"),
    # The derivative has no value.
    Broken("hypot at 0, 0", leaf("x", [0.0, 3.0]) + leaf("y", [0.0, 4.0]) + "out = torch.hypot(x, y)  # here",
           "zero_over_zero", "HypotBackward0", (0,), nan, {"x": [0, 3 / 5], "y": [0, 4 / 5]}),
    Broken("xlogy at 0, 0", leaf("x", [0.0, 3.0]) + leaf("y", [0.0, 4.0]) + "out = torch.xlogy(x, y)  # here",
           "zero_over_zero", "XlogyBackward0", (0,), nan, {"x": [0, math.log(4)], "y": [0, 3 / 4]}, position=1),
    Broken("equal eigenvalues", leaf("x", [2.0, 2.0]) + "out = torch.linalg.eigh(torch.diag(x)).eigenvectors  # here",
           "zero_over_zero", "LinalgEighBackward0", (0, 0)),
    Broken("logsumexp of a masked row", leaf("x", [[1.0, 2.0], [3.0, 3.0]])
           + "s = x.masked_fill(torch.tensor([[True], [False]]), -torch.inf)\nout = s.logsumexp(1).exp()  # here",
           "zero_over_zero", "LogsumexpBackward0", (0, 0), None,
           {"x": [[0, 0], [math.exp(3), math.exp(3)]]}),
    Broken("exponent of a negative base", leaf("x", [-2.0, 4.0]) + leaf("p", [2.0, 2.0]) + "out = x**p  # here",
           "outside_domain", "PowBackward1", (0,), nan,
           {"x": [-4, 8], "p": [0, 16 * math.log(4)]}, position=1),
    # Too large for the dtype.
    Broken("a cast to half", leaf("x", [1.0, 2.0], "float32") + "out = x.half().float() * 1e6  # here",
           "overflow", "ToCopyBackward0", (0,), kind="inf"),
    Broken("a product in half", leaf("x", [1.0, 2.0], "float16") + "out = (x * 300).float() * 300.0  # here",
           "overflow", "MulBackward0", (0,), 300.0, kind="inf"),
    Broken("a sum in half", leaf("x", [1.0], "float16") + "out = x.expand(4, 1) * 20000.0 + 0 * x  # here",
           "overflow", "ExpandBackward0", (0,), kind="inf"),
    Broken("a tiny divisor", leaf("x", [1e-25, 1.0], "float32") + "out = x.reciprocal()  # here",
           "overflow", "ReciprocalBackward0", (0,), -inf, kind="inf"),
    # Born in the forward pass.
    Broken("softmax of a masked row", leaf("x", [[1.0, 2.0], [3.0, 3.0]])
           + "s = x.masked_fill(torch.tensor([[True], [False]]), -torch.inf)\nout = s.softmax(-1)[:, 0]  # here",
           "born_in_forward", "SoftmaxBackward0", (0, 0), None, {"x": [[0, 0], [0.25, -0.25]]}),
    Broken("the same, cleaned afterwards", leaf("x", [[1.0, 2.0], [3.0, 3.0]])
           + "s = x.masked_fill(torch.tensor([[True], [False]]), -torch.inf)\nout = s.softmax(-1)[:, 0].nan_to_num()  # here",
           "born_in_forward", "SoftmaxBackward0", (0, 0), None, {"x": [[0, 0], [0.25, -0.25]]}),
    Broken("log_softmax of a masked row", leaf("x", [[1.0, 2.0], [3.0, 3.0]])
           + "s = x.masked_fill(torch.tensor([[True], [False]]), -torch.inf)\nout = torch.log_softmax(s, dim=-1)[:, 0]  # here",
           "born_in_forward", "LogSoftmaxBackward0", (0, 0), None, {"x": [[0, 0], [0.5, -0.5]]}),
    Broken("log of a sigmoid that is 0", leaf("x", [-1000.0, 0.0]) + "s = torch.sigmoid(x)\nout = torch.log(s)  # here",
           "born_in_forward", "LogBackward0", (0,), None, {"x": [0, 1 / 2]}, kind="inf"),
    Broken("x log x at 0", leaf("x", [0.0, 0.5]) + "out = -x * x.log()  # here",
           "born_in_forward", "LogBackward0", (0,), None, {"x": [0, math.log(2) - 1]}, kind="inf"),
    Broken("the divergence of a 0", leaf("x", [0.0, 1.0])
           + "logs = x.log()  # here\nout = torch.nn.functional.kl_div(logs, torch.tensor([0.0, 1.0]), reduction='sum')",
           "born_in_forward", "LogBackward0", (0,), None, {"x": [0, -1]}, kind="inf"),
    Broken("0 / 0", leaf("x", [0.0, 2.0]) + "out = x / x.abs()  # here",
           "born_in_forward", "DivBackward0", (0,), None, {"x": [0, 0]}),
    Broken("exp overflows", leaf("x", [1000.0, 2.0]) + "out = x.exp()  # here",
           "born_in_forward", "ExpBackward0", (0,), None, {"x": [0, math.exp(2)]}, kind="inf"),
    Broken("the root of a negative number", leaf("x", [-1.0, 4.0]) + "out = x.sqrt()  # here",
           "born_in_forward", "SqrtBackward0", (0,), None, {"x": [0, 1 / 4]}),
    Broken("the mean of nothing", X04 + "out = x[x > 5].mean()  # here",
           "born_in_forward", "MeanBackward0", ()),
    Broken("a product that overflows", leaf("x", [1e200, 1e200, 1.0]) + "out = x.cumprod(0)  # here",
           "born_in_forward", "CumprodBackward0", (1,), kind="inf"),
]  # fmt: skip
