"""Why ``.grad`` holds what it holds: once, several times, scaled, stale, zero, not finite."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from .._errors import PullbackError
from ..draw.numbers import count, number
from .accumulation import multiple
from .birth import Birth
from .births import find_nonfinite
from .booktext import by_words, times
from .formulas import formulas_of
from .question import Question, plainly
from .record import BackwardRecord
from .stats import stats_of
from .verdict import Evidence, Verdict

_POWERS = (40, 100)
_ZERO = re.compile(r": (at::)?zeros(_like|_symint)?\(([^()]|\(\))*\)$")  # the whole formula


def of_held(question: Question, grad: Tensor) -> Verdict:
    """``grad`` is the ``.grad`` of the tensor in question."""
    if grad.numel() == 0:
        return Verdict("arrived", f"{question.name} is empty, and so is its .grad.")
    for verdict in (
        _unlogged(question),
        _nonfinite(question, grad),
        _zeros(question, grad),
        _loss_scaled(question),
        _accumulated(question, grad),
        _stale(question, grad),
    ):
        if verdict is not None:
            return verdict
    return Verdict(
        "arrived",
        f"{question.name}.grad is there, finite and not zero: one backward put it there, as far "
        f"as can be seen.",
        _held(grad),
    )


def _held(grad: Tensor) -> Evidence:
    filled = int((_dense(grad) != 0).sum())
    return (
        (".grad", plainly(grad)),
        ("entries that are not 0", f"{count(filled)} of {count(grad.numel())}"),
        ("norm", number(stats_of(grad).norm)),
    )


def _unlogged(question: Question) -> Verdict | None:
    account = question.account
    found = [e for e in account.since_empty if e.kind == "unlogged"] if account else []
    if not found:
        return None
    return Verdict(
        "unlogged_write",
        f"{question.name}.grad was changed by somebody whom no call shows: {found[-1].note}.",
        (("change", found[-1].note),),
        "Look between these two lines for code that writes to .grad outside of torch: NumPy, an "
        "extension, another thread.",
    )


def _nonfinite(question: Question, grad: Tensor) -> Verdict | None:
    dense = _dense(grad)
    nan, inf = int(dense.isnan().sum()), int(dense.isinf().sum())
    if not nan + inf:
        return None
    what = " and ".join(f"{count(n)} {name}" for n, name in ((nan, "nan"), (inf, "inf")) if n)
    told = f"{question.name}.grad holds {what} among {count(grad.numel())} entries."
    counts = (("nan", count(nan)), ("inf", count(inf)))
    birth = _birth(question)
    if birth is not None:
        return Verdict("nonfinite", f"{told} {birth.text}", (*counts, *birth.evidence), birth.fix)
    return Verdict(
        "nonfinite",
        told,
        counts,
        "Ask where the first of them was born, on the outputs while their graph is there:\n"
        "    print(pb.find_nonfinite(out))",
    )


def _birth(question: Question) -> Birth | None:
    """Where it was born, while the graph of the outputs is there."""
    out = question.differentiable
    if out is None or question.freed:
        return None
    try:
        return find_nonfinite(list(out.tensors), [torch.ones_like(t) for t in out.tensors])
    except (PullbackError, RuntimeError):
        return None


def _zeros(question: Question, grad: Tensor) -> Verdict | None:
    if bool((_dense(grad) != 0).any()):
        return None
    name, account = question.name, question.account
    if account is not None and account.since_empty and account.since_empty[0].kind == "zero":
        first = account.since_empty[0]
        if account.deposits_since_empty == 0:
            return Verdict(
                "zeroed_after",
                f"{name}.grad is zeros because {by_words(first.call)} filled it with zeros, and no "
                f"backward has run since.",
                (("zeroed by", by_words(first.call)), ("code", first.call.code)),
                f"Read {name}.grad between backward() and that line.",
            )
    return of_zero_deposit(question) or Verdict(
        "zero",
        f"{name}.grad is a tensor of zeros: a gradient arrived, and every entry of it is 0.",
        (("entries", count(grad.numel())),),
        "Ask again with the outputs, while their graph is there:\n"
        f"    print(pb.why({name}, outputs=out))",
    )


def of_zero_deposit(question: Question) -> Verdict | None:
    """Why the gradient from the outputs is zero: by rule, at this point, or by underflow."""
    seen = question.look()
    if seen is None or question.name not in seen.deposits:
        return None
    if bool((_dense(seen.deposits[question.name]) != 0).any()):
        return None
    name = question.name
    for power in _POWERS:
        larger = question.look(2.0**power)
        deposit = None if larger is None else larger.deposits.get(name)
        if deposit is not None and bool((_dense(deposit) != 0).any()):
            return Verdict(
                "underflow",
                f"The gradient of {name} is not zero, but too small for its dtype: with cotangents "
                f"2**{power} times as large it is not zero any more.",
                (("cotangents times", f"2**{power}"), ("gradient then", plainly(deposit))),
                "Scale the output up before backward and divide the gradient afterwards "
                "(torch.amp.GradScaler), or compute in a wider dtype.",
            )
    node, formula, by_rule = _where_zero_begins(seen)
    place = "" if node is None else f", at {node}"
    if by_rule:
        return Verdict(
            "structural_zero",
            f"The gradient of {name} is zero for every cotangent and every value: the derivative "
            f"is defined as zero{place}.",
            (("node", node or ""), ("formula", formula)),
            "Replace that operation by one with a derivative, or define one (a straight-through "
            "estimator: x + (torch.round(x) - x).detach()).",
        )
    return Verdict(
        "numeric_zero",
        f"The gradient of {name} is zero at this point{place}: a path is there, and what is "
        f"multiplied along it is 0. It is no missing gradient.",
        (("node", node or "every path"), ("formula", formula or "")),
        "Other values, another initialisation or another output may give a gradient here; check "
        "for dead units, masks and weights that are 0.",
    )


def _where_zero_begins(seen: BackwardRecord) -> tuple[str | None, str, bool]:
    """The first node that received something other than zeros and sent zeros towards the leaf,
    its formula, and whether it is zero by rule: so it is only if it is at every such node."""
    towards = {node.index for node in seen.nodes}
    begins = []
    for node in seen.nodes:
        got = any(c is not None and c.stats.norm != 0 for c in node.upstream)
        sent = [
            e.contribution for e in node.edges if e.contribution is not None and e.target in towards
        ]
        if got and any(c.stats.norm == 0 for c in sent):
            begins.append((node, formulas_of(node.name)))
    if not begins:
        return None, "", False
    by_rule = all(lines and all(map(_ZERO.search, lines)) for _, lines in begins)
    node, lines = next(
        ((n, lines) for n, lines in begins if by_rule or not all(map(_ZERO.search, lines))),
        begins[0],
    )
    place = node.name if node.call is None else f"{node.name} ({by_words(node.call)})"
    return place, "; ".join(lines), by_rule


def _loss_scaled(question: Question) -> Verdict | None:
    account = question.account
    if account is None or any(e.kind == "unscale" for e in account.since_empty):
        return None
    scaled = [
        (e.engine_call.scale, e.call)
        for e in account.since_empty
        if e.engine_call is not None and e.engine_call.scale not in (None, 1.0)
    ]
    if not scaled or scaled[0][0] is None:
        return None
    scale, call = scaled[0]
    return Verdict(
        "loss_scaled",
        f"{question.name}.grad comes from a loss that a GradScaler had multiplied by "
        f"{number(scale)}, and nothing has divided that out yet.",
        (("loss scale", number(scale)), ("deposited by", by_words(call))),
        "Before you read or clip it:\n    scaler.unscale_(optimizer)",
    )


def _accumulated(question: Question, grad: Tensor) -> Verdict | None:
    name, account = question.name, question.account
    fix = (
        "Empty it before each backward that should stand alone:\n"
        f"    {name}.grad = None    # or optimizer.zero_grad()"
    )
    if account is not None:
        deposits = [e for e in account.since_empty if e.kind == "deposit"]
        total = account.deposits_since_empty
        before = account.had_grad_at_start and not any(
            e.kind in ("zero", "none", "set") for e in account.since_empty
        )
        if total + before < 2:
            return None
        lines = list(dict.fromkeys(by_words(e.call) for e in deposits))
        earlier = " on top of what was there when the ledger began" if before else ""
        return Verdict(
            "accumulated",
            f"{name}.grad holds {times(total, 'deposit')}{earlier}: backward adds to .grad, and "
            f"nothing emptied it in between ({', '.join(lines[-4:])}).",
            tuple((f"deposit {e.number}", by_words(e.call)) for e in deposits[-6:]),
            fix,
        )
    seen = question.look()
    deposit = None if seen is None else seen.deposits.get(name)
    many = None if deposit is None else multiple(grad, deposit)
    if many is None or many < 2:
        return None
    return Verdict(
        "accumulated",
        f"{name}.grad is exactly {many} times the gradient of the outputs with cotangents of ones, "
        f"as {many} backwards leave it where nothing empties it in between.",
        (("times", str(many)),),
        fix,
    )


def _stale(question: Question, grad: Tensor) -> Verdict | None:
    """It belongs to values of the tensor that an optimizer has replaced since."""
    account, name = question.account, question.name
    if account is not None:
        kinds = [e.kind for e in account.since_empty]
        if (
            "read" in kinds
            and "deposit" in kinds
            and kinds[::-1].index("read") < kinds[::-1].index("deposit")
        ):
            step = next(e for e in reversed(account.since_empty) if e.kind == "read")
            return Verdict(
                "stale",
                f"{name}.grad is from before {by_words(step.call)}: it belongs to the values that "
                f"{name} had then, and no backward has run since.",
                (("step", by_words(step.call)),),
                f"Empty it after the step, and run backward again:\n    {name}.grad = None",
            )
    seen = question.look()
    deposit = None if seen is None else seen.deposits.get(name)
    if deposit is None or multiple(grad, deposit) == 1:
        return None
    if torch.allclose(_dense(grad), _dense(deposit), rtol=1e-4, atol=0):
        return None
    return Verdict(
        "stale",
        f"{name}.grad is not the gradient of these outputs with cotangents of ones: it was left by "
        f"another backward, or with other cotangents.",
        ((".grad", plainly(grad)), ("gradient of the outputs", plainly(deposit))),
        f"Empty it, then run backward on these outputs:\n    {name}.grad = None",
    )


def _dense(tensor: Tensor) -> Tensor:
    return tensor.detach() if tensor.layout is torch.strided else tensor.detach().to_dense()
