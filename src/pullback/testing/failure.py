"""A broken contract in words: which tensors or places, the verdict on each, what mends it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .._errors import GradientAssertionError
from ..backward.verdict import Verdict


def failure(
    headline: str, verdicts: Mapping[str, Verdict], hint: str = ""
) -> GradientAssertionError:
    """Those with the same verdict stand together; one may be said of a name, written ``ANY``."""
    groups: dict[Verdict, list[str]] = {}
    for name, verdict in verdicts.items():
        groups.setdefault(verdict, []).append(name)
    parts = [headline, *(_told(names, verdict) for verdict, names in groups.items())]
    named = {name: named_for(name, verdict) for name, verdict in verdicts.items()}
    return GradientAssertionError("\n\n".join([*parts, hint] if hint else parts), named)


# Stands for the name of the tensor while verdicts are compared; no source holds it.
ANY = "\ue000"


def named_for(name: str, verdict: Verdict) -> Verdict:
    evidence = tuple((key, value.replace(ANY, name)) for key, value in verdict.evidence)
    text, fix = verdict.text.replace(ANY, name), verdict.fix.replace(ANY, name)
    return replace(verdict, text=text, evidence=evidence, fix=fix)


def _told(names: list[str], verdict: Verdict) -> str:
    told = named_for(names[0], verdict)
    lines = [f"{', '.join(names)}: {told.code.replace('_', ' ')}", f"    {told.text}"]
    lines += [f"    {key}: {value}" for key, value in told.evidence]
    if told.fix:
        first, *rest = told.fix.splitlines()
        lines += [f"    Fix: {first}", *(f"    {line}" for line in rest)]
    return "\n".join(lines)
