"""Births in the backward pass: of what the first bad contribution is the product."""

from __future__ import annotations

import cmath
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .. import _torch
from .birth import Birth
from .birth_fix import Fix, fix_of, for_overflow, in_words
from .birth_words import evidence_of, text_of
from .birthlog import Sender, Sighting
from .graph import Port
from .sighting import Facts, facts_of
from .zeros import ZeroSource, zero_source


class Hooks(NamedTuple):
    """The user's hooks around the node of a sighting."""

    before: tuple[str, ...]
    after: tuple[str, ...]


def backward_birth(
    seen: Sighting, hooks: Hooks, sent_by: Mapping[Port, Sequence[Sender]], also: tuple[str, ...]
) -> Birth:
    """The certificate of the first contribution that is not finite."""
    facts = facts_of(seen)
    zero = _zero(seen, facts, sent_by)
    code = _code(seen, facts, hooks)
    fix = _fix(code, facts, seen)
    return Birth(
        code,
        facts.name,
        facts.bad.kind,
        facts.position,
        facts.bad.element,
        facts.bad.count,
        text_of(code, facts, seen, zero, _names(code, seen, hooks)),
        call=facts.call,
        upstream=facts.upstream,
        operands=facts.operands,
        derivative=facts.derivative,
        formula=facts.formula,
        evidence=evidence_of(facts, zero, _names(code, seen, hooks)),
        fix=fix.text,
        proof=fix.proof,
        rewrite=fix.lines,
        also=also,
    )


def _zero(
    seen: Sighting, facts: Facts, sent_by: Mapping[Port, Sequence[Sender]]
) -> ZeroSource | None:
    given = seen.received[0] if seen.received is not None and len(seen.received) == 1 else None
    if facts.upstream != 0 or facts.inner is None or given is None:
        return None
    return zero_source(seen.senders.get(0, ()), sent_by, tuple(given.shape), facts.inner)


def _code(seen: Sighting, facts: Facts, hooks: Hooks) -> str:
    if seen.received is None:
        several = len(seen.senders.get(seen.slot, ())) > 1
        return "overflow" if several and not hooks.before else "hook"
    if _torch.is_compiled_region(seen.node):
        return "compiled_region"
    if facts.name.startswith("BackwardHookFunction") or (facts.alone_is_finite and hooks.after):
        return "hook"  # the first is torch's own, for the backward hooks of modules
    if _torch.custom_function(seen.node) is not None:
        return "custom_function"
    if facts.alone_is_finite is None or facts.alone_is_finite:
        return "unknown"
    return _code_by_entry(facts) if facts.derivative is not None else _code_of_whole(facts)


def _code_by_entry(facts: Facts) -> str:
    """By the three numbers at the entry: operands, derivative, upstream."""
    slope = facts.derivative
    assert slope is not None
    operands = [v for v in facts.operands.values() if not isinstance(v, tuple)]
    if any(map(cmath.isnan, operands)):
        return "born_in_forward"
    if cmath.isfinite(slope):
        return "overflow"
    if not facts.defined:
        return "outside_domain"
    if cmath.isnan(slope) and not cmath.isinf(slope):  # complex inf may have a part that is nan
        return "born_in_forward" if any(map(cmath.isinf, operands)) else "zero_over_zero"
    if facts.upstream == 0:
        return "zero_times_infinity"
    if facts.regular:
        return "overflow"
    return "born_in_forward" if _is_made_of_inf(facts) else "infinite_derivative"


def _is_made_of_inf(facts: Facts) -> bool:
    operands = [v for v in facts.operands.values() if not isinstance(v, tuple)]
    return facts.name.startswith(("Mul", "Exp", "Expm1")) and any(map(cmath.isinf, operands))


def _code_of_whole(facts: Facts) -> str:
    if facts.halvings:
        return "overflow"
    if facts.nan_saved:
        return "born_in_forward"
    if facts.for_zero:
        if facts.upstream == 0:
            return "zero_times_infinity"
        return "zero_over_zero" if facts.bad.kind == "nan" else "infinite_derivative"
    return "unknown"


def _names(code: str, seen: Sighting, hooks: Hooks) -> tuple[str, ...]:
    """The hooks that may have made it."""
    if code not in ("hook", "custom_function"):
        return ()
    return hooks.before if seen.received is None else hooks.after


def _fix(code: str, facts: Facts, seen: Sighting) -> Fix:
    if code == "overflow" and not facts.regular_and_infinite:
        return Fix(for_overflow(facts.dtype, facts.halvings))
    given = seen.received[0] if seen.received is not None and len(seen.received) == 1 else None
    if given is None or code in _ELSEWHERE:
        return Fix(_ELSEWHERE.get(code, "") or in_words(facts.name))
    found = fix_of(facts.rerun, given, facts.position, facts.call)
    if not found.text and code == "overflow":
        return found._replace(text=for_overflow(facts.dtype, 0))
    return found if found.text else found._replace(text=in_words(facts.name))


_ELSEWHERE = {
    "custom_function": (
        "Look at its backward: run torch.autograd.gradcheck on the function at these operands in "
        "float64."
    ),
    "hook": "Print in the hook what it receives and returns, or remove it and look again.",
    "compiled_region": "Run the same function without torch.compile, and look again.",
}
