"""Operations whose derivative can fail to be finite: how to run one again from what its node saved,
and what to write instead.

Every entry is source text, so that the lines that are offered are the lines that are tried. ``a``
and ``b`` stand for the operands; what the node saved is known by torch's own names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Guard:
    """``torch.where(kept, <call with torch.where(kept, operand, safe)>, otherwise)``.

    ``kept`` says where the derivative exists. ``outer`` is the same for the result, where that has
    another shape; ``otherwise`` None stands for the original, detached. ``position`` restricts the
    guard to one gradient of the node, ``when`` to what it has saved.
    """

    kept: str
    safe: str
    at: str = "a"
    otherwise: str | None = "0.0"
    outer: str = ""
    position: int | None = None
    when: str = "True"


@dataclass(frozen=True)
class Operation:
    """``call`` on ``operands`` is what the node differentiates, entry by entry, or along the dims
    ``along`` of its one operand.

    ``name`` is what a program calls it, ``sign`` the class of the operator in Python's grammar, and
    ``sides`` the operands on its two sides. ``domain`` says where the call is defined;
    ``by_pairs``: an entry of the result has a row of each operand behind it.
    """

    name: str
    operands: Mapping[str, str]
    call: str
    guards: tuple[Guard, ...] = ()
    along: str = ""
    sign: str = ""
    sides: tuple[str, str] = ("a", "b")
    domain: str = ""
    by_pairs: bool = False

    @property
    def recovered(self) -> str:
        """How an operand that was not saved is found; empty where it was."""
        if not any("result" in text for text in self.operands.values()):
            return ""
        if self.along:
            return "that give the saved result (of -inf, where a slice of it is nan)"
        return "computed back from the saved result"


_BOTH = {"a": "ones if self is None else self", "b": "ones if other is None else other"}
_POSITIVE = (Guard("a > 0", "1.0"),)
_NONZERO = (Guard("a != 0", "1.0"),)
_INSIDE = "a.abs() < 1"
_LIVE = "(a > -torch.inf).any(dim, keepdim=True)"
_LIVE_ROWS = (Guard(_LIVE, "0.0"),)


def _of_self(name: str, guards: tuple[Guard, ...] = (), domain: str = "") -> Operation:
    return Operation(name, {"a": "self"}, f"a.{name}()", guards, domain=domain)


OPERATIONS: dict[str, Operation] = {
    "SqrtBackward0": Operation("sqrt", {"a": "result * result"}, "a.sqrt()", _POSITIVE),
    "RsqrtBackward0": Operation("rsqrt", {"a": "1 / (result * result)"}, "a.rsqrt()", _POSITIVE),
    "LogBackward0": _of_self("log", _POSITIVE, "a >= 0"),
    "Log2Backward0": _of_self("log2", _POSITIVE, "a >= 0"),
    "Log10Backward0": _of_self("log10", _POSITIVE, "a >= 0"),
    "Log1PBackward0": _of_self("log1p", (Guard("a > -1", "0.0"),), "a >= -1"),
    "ReciprocalBackward0": Operation(
        "reciprocal", {"a": "1 / result"}, "a.reciprocal()", _NONZERO, sign="Div", sides=("", "a")
    ),
    "DivBackward0": Operation("div", _BOTH, "a / b", (Guard("b != 0", "1.0", at="b"),), sign="Div"),
    "MulBackward0": Operation(
        "mul",
        _BOTH,
        "a * b",
        (
            Guard("b.isfinite()", "0.0", at="b", position=0),
            Guard("a.isfinite()", "0.0", at="a", position=1),
        ),
        sign="Mult",
    ),
    "PowBackward0": Operation(
        "pow",
        {"a": "self"},
        "a ** exponent",
        (
            Guard("a != 0", "1.0", otherwise=None, when="float(exponent).is_integer()"),
            Guard("a > 0", "1.0", otherwise=None),
        ),
        sign="Pow",
        domain="(a >= 0) | float(exponent).is_integer()",
    ),
    "PowBackward1": Operation(
        "pow",
        {"a": "self", "b": "exponent"},
        "a ** b",
        (
            Guard("a > 0", "1.0", otherwise="a ** b.detach()", position=1),
            Guard("a > 0", "1.0", otherwise=None),
            Guard("a != 0", "1.0", otherwise=None),
        ),
        sign="Pow",
        domain="a >= 0",
    ),
    "PowBackward2": Operation("pow", {"a": "exponent"}, "self ** a", sign="Pow", sides=("", "a")),
    "ExpBackward0": Operation(
        "exp", {"a": "result.log()"}, "a.exp()", (Guard("a < limit", "0.0"),)
    ),
    "Expm1Backward0": Operation(
        "expm1", {"a": "result.log1p()"}, "a.expm1()", (Guard("a < limit", "0.0"),)
    ),
    "AcosBackward0": _of_self("acos", (Guard(_INSIDE, "0.0", otherwise=None),), "a.abs() <= 1"),
    "AsinBackward0": _of_self("asin", (Guard(_INSIDE, "0.0", otherwise=None),), "a.abs() <= 1"),
    "AcoshBackward0": _of_self("acosh", (Guard("a > 1", "2.0"),), "a >= 1"),
    "AtanhBackward0": _of_self("atanh", (Guard(_INSIDE, "0.0"),), "a.abs() <= 1"),
    "ErfinvBackward0": _of_self("erfinv", (Guard(_INSIDE, "0.0"),), "a.abs() <= 1"),
    "LogitBackward0": Operation(
        "logit",
        {"a": "self"},
        "a.logit(eps)",
        (Guard("(a > 0) & (a < 1)", "0.5"),),
        domain="(a >= 0) & (a <= 1)",
    ),
    "SpecialEntrBackward0": Operation(
        "entr", {"a": "self"}, "torch.special.entr(a)", _POSITIVE, domain="a >= 0"
    ),
    "LgammaBackward0": _of_self("lgamma"),
    "DigammaBackward0": _of_self("digamma"),
    "HypotBackward0": Operation(
        "hypot",
        {"a": "self", "b": "other"},
        "torch.hypot(a, b)",
        (Guard("(a != 0) | (b != 0)", "1.0"),),
    ),
    "XlogyBackward0": Operation(
        "xlogy", _BOTH, "torch.xlogy(a, b)", (Guard("b > 0", "1.0", at="b"),), domain="b >= 0"
    ),
    "LogaddexpBackward0": Operation(
        "logaddexp",
        {"a": "self", "b": "other"},
        "torch.logaddexp(a, b)",
        (Guard("(a > -torch.inf) | (b > -torch.inf)", "0.0"),),
    ),
    "Atan2Backward0": Operation(
        "atan2",
        {"a": "self", "b": "other"},
        "torch.atan2(a, b)",
        (Guard("(a != 0) | (b != 0)", "1.0", at="b"),),
    ),
    "SoftmaxBackward0": Operation(
        "softmax",
        {"a": "torch.where(result.isnan(), -torch.inf, result.log())"},
        "a.softmax(dim)",
        _LIVE_ROWS,
        along="dim",
    ),
    "LogSoftmaxBackward0": Operation(
        "log_softmax",
        {"a": "torch.where(result.isnan(), -torch.inf, result)"},
        "a.log_softmax(dim)",
        _LIVE_ROWS,
        along="dim",
    ),
    "LogsumexpBackward0": Operation(
        "logsumexp",
        {"a": "self"},
        "a.logsumexp(dim, keepdim)",
        (Guard(_LIVE, "0.0", outer="(a > -torch.inf).any(dim, keepdim)"),),
        along="dim",
    ),
    "LogcumsumexpBackward0": Operation(
        "logcumsumexp", {"a": "self"}, "a.logcumsumexp(dim)", along="dim"
    ),
    "CumprodBackward0": Operation("cumprod", {"a": "self"}, "a.cumprod(dim)", along="dim"),
    "ProdBackward0": Operation("prod", {"a": "self"}, "a.prod()", along="None"),
    "ProdBackward1": Operation("prod", {"a": "self"}, "a.prod(dim, keepdim)", along="dim"),
    "LinalgVectorNormBackward0": Operation(
        "norm",
        {"a": "self"},
        "torch.linalg.vector_norm(a, ord, dim, keepdim)",
        along="dim",
    ),
    "StdBackward0": Operation(
        "std",
        {"a": "self"},
        "a.std(dim, correction=1 if correction is None else correction, keepdim=keepdim)",
        along="dim",
    ),
    "VarBackward0": Operation(
        "var",
        {"a": "self"},
        "a.var(dim, correction=1 if correction is None else correction, keepdim=keepdim)",
        along="dim",
    ),
    "CdistBackward0": Operation(
        "cdist", {"a": "x1", "b": "x2"}, "torch.cdist(a, b, p)", by_pairs=True
    ),
}
