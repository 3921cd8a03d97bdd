"""What is told of the place where a gradient stopped being finite, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

from .. import draw
from .events import UserCall
from .finite import Index, Value
from .verdict import Evidence, Verdict, fix_blocks

Shown = Value | tuple[Value, ...]


@dataclass(frozen=True)
class Proof:
    """A rewrite, run on the operands of this pass and on what its node had received.

    - ``original``, ``rewrite``: both as they were run; ``a`` and ``b`` are the operands.
    - ``before``, ``after``: entries of the gradients that are not finite, of each.
    - ``compared``: entries in which the original is not nan; ``same``: whether the rewrite has
      exactly these values there.
    - ``upstream``: what was sent back, ``"of this pass"``; or ``"ones"``, for a birth in the
      forward pass. Then an inf of the original is no value to be kept, and is not compared.
    - ``recovered``: how the operands were found, where the node has not saved them themselves.
    """

    original: str
    rewrite: str
    before: int
    after: int
    compared: int
    same: bool
    upstream: str = "of this pass"
    recovered: str = ""

    @property
    def holds(self) -> bool:
        return self.before > 0 and self.after == 0 and self.same

    @property
    def text(self) -> str:
        alone = self.upstream == "ones"
        what = f"operands {self.recovered}" if self.recovered else "the operands of this pass"
        sent = "ones as their upstream" if alone else "the upstream of this pass"
        number = "finite" if alone else "not nan"
        entries = f"{draw.count(self.compared)} entr{'y' if self.compared == 1 else 'ies'}"
        forward = (
            f"the forward {'equals' if self.same else 'does NOT equal'} the original in the "
            f"{entries} where that is {number}"
        )
        if self.compared == 0:
            forward = f"no entry of the original is {number}"
        return (
            f"Tried on {what}, with {sent}: {forward}; its gradients have "
            f"{draw.count(self.after)} entries that are not finite, before {self.before:,}."
        )


@dataclass(frozen=True)
class Birth:
    """The first place of a backward pass that received finite numbers and sent others.

    ``code`` is one of

    - ``"zero_times_infinity"``: the upstream is exactly 0 there and the local derivative infinite
      (a mask on the result of an operation does not protect its derivative);
    - ``"infinite_derivative"``: the upstream is not 0, and the derivative infinite at this operand;
    - ``"zero_over_zero"``: the derivative has no value at this operand (0 / 0), whatever arrives;
    - ``"outside_domain"``: the derivative has no value because the operand is outside of the domain
      of the function behind it (the logarithm of a negative base);
    - ``"overflow"``: all factors are finite, and their product, or the sum of several
      contributions, is beyond the largest number of the dtype;
    - ``"born_in_forward"``: a value of the forward pass was not finite already; then ``node`` made
      it, ``position`` and ``element`` are those of that value, and ``upstream`` is None;
    - ``"poisoned_cotangent"``: the cotangent that the pass was given is not finite;
    - ``"custom_function"``: an ``autograd.Function`` of the user's sent it;
    - ``"hook"``: a hook of the user's made it;
    - ``"compiled_region"``: inside of a ``torch.compile`` region, which cannot be looked into;
    - ``"unknown"``: this node, and no more is known.

    The other fields:

    - ``node``: the name of the autograd node; ``call``: the user's call that made it, if traced.
    - ``kind``: ``"nan"`` or ``"inf"``, of the entry ``element`` of contribution ``position``, the
      first of ``count`` entries of that tensor that are not finite.
    - ``upstream``: what the node had received at that entry, where entries correspond.
    - ``operands``: the saved operands at that entry (for reductions: along the slice that it lies
      in), by the names in ``formula``. Empty unless a rerun of the operation on them gives what
      the node sent.
    - ``derivative``: the local derivative there, measured by sending 1 to the node alone.
    - ``formula``: torch's own formula of that gradient.
    - ``also``: further nodes that received finite numbers and sent others.
    - ``proof``: how ``fix`` fared on the tensors of this pass; None where no rewrite is known.
    - ``rewrite``: the rewrite that was tried, in the names of ``call.code``, which the last of its
      lines replaces; the lines before it, if any, name an operand. Empty where none held.

    ``print(birth)`` shows all of it.
    """

    code: str
    node: str
    kind: str
    position: int
    element: Index
    count: int
    text: str
    call: UserCall | None = None
    upstream: Value | None = None
    operands: Mapping[str, Shown] = field(default_factory=dict)
    derivative: Value | None = None
    formula: str = ""
    evidence: Evidence = ()
    fix: str = ""
    proof: Proof | None = None
    rewrite: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The same as a `Verdict`: code, text, evidence, fix."""
        return Verdict(self.code, self.text, self.evidence, self.fix)

    def page(self) -> draw.Page:
        """The certificate as a page of ``draw``."""
        blocks: list[draw.Block] = [draw.Sentence(self.text, self.evidence)]
        if self.fix:
            blocks += [draw.Heading("Fix", 2), *fix_blocks(self.fix)]
        if self.also:
            blocks.append(draw.Heading("Born elsewhere in the same pass", 2))
            blocks += [draw.Sentence(place) for place in self.also]
        kind = "NaN" if self.kind == "nan" else "Inf"
        return draw.Page(f"{kind}: {self.code.replace('_', ' ')}", tuple(blocks))

    def __str__(self) -> str:
        return draw.to_text(self.page())


def place_of(call: UserCall | None) -> str:
    """``model.py:12  x.sqrt()``, or nothing."""
    if call is None:
        return ""
    code = call.code if len(call.code) <= 60 else call.code[:57] + "..."
    return f"{PurePath(call.file).name}:{call.line}  {code or call.function}"


def value_text(value: Shown) -> str:
    if isinstance(value, tuple):
        shown = ", ".join(map(value_text, value[:8]))
        return f"[{shown}{', ...' if len(value) > 8 else ''}]"
    if isinstance(value, complex):
        sign = "-" if value.imag < 0 else "+"
        return f"{draw.number(value.real)}{sign}{draw.number(abs(value.imag))}j"
    return draw.number(value)
