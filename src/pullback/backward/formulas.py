"""torch's own derivative formulas: the entry of ``derivatives.yaml`` behind a node's name."""

from __future__ import annotations

import re
from functools import cache

from .. import _torch

_ENTRY = re.compile(r"^- name: (?P<signature>.+?)\n(?P<body>(?:(?!^- name: ).*\n)*)", re.MULTILINE)
_FORMULA = re.compile(
    r"^(?P<indent> +)(?P<inputs>\w+(?:, \w+)*): (?P<formula>\S.*(?:\n(?P=indent) {2,}\S.*)*)",
    re.MULTILINE,
)
_NO_FORMULA = ("not_differentiable", "non_differentiable")


@cache
def formulas_of(node_name: str) -> tuple[str, ...]:
    """The lines ``input: formula`` of the operator behind ``PowBackward0`` and the like.

    The number at the end of a node's name counts the operator's differentiable overloads in the
    order of the file. Empty where torch ships no formula (custom functions, composite nodes).
    """
    match = re.fullmatch(r"(?P<stem>\w+?Backward)(?P<number>\d+)", node_name)
    if match is None:
        return ()
    entries = _entries().get(match["stem"], ())
    number = int(match["number"])
    return entries[number] if number < len(entries) else ()


@cache
def _entries() -> dict[str, tuple[tuple[str, ...], ...]]:
    found: dict[str, list[tuple[str, ...]]] = {}
    for match in _ENTRY.finditer(_torch.derivatives_yaml() + "\n"):
        lines = _formulas(match["signature"], match["body"])
        if lines:
            operator = re.split(r"[.(]", match["signature"])[0]
            found.setdefault(_stem(operator), []).append(lines)
    return {stem: tuple(entries) for stem, entries in found.items()}


def _stem(operator: str) -> str:
    """The rule by which torch names nodes: ``nll_loss_forward`` makes NllLossBackward."""
    camel = "".join(word.title() for word in operator.split("_"))
    return f"{camel}Backward".replace("ForwardBackward", "Backward")


def _formulas(signature: str, body: str) -> tuple[str, ...]:
    arguments = set(re.findall(r"\w+", signature.rpartition("->")[0]))
    default = body.partition("    AutogradNestedTensor:")[0]
    lines = []
    for match in _FORMULA.finditer(default):
        formula = re.sub(r"\s+", " ", match["formula"]).strip().strip('"')
        if arguments.issuperset(match["inputs"].split(", ")) and formula not in _NO_FORMULA:
            lines.append(f"{match['inputs']}: {formula}")
    return tuple(lines)
