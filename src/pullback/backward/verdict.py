"""A diagnosis: its code, what it says, what proves it, and the smallest change that mends it."""

from __future__ import annotations

from dataclasses import dataclass

from .. import draw

Evidence = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Verdict:
    """What was found out about one tensor, one error, or one backward pass.

    - ``code``: a short name for the finding, such as ``"not_reached"``: made to be compared.
    - ``text``: the finding, in sentences about the user's own tensors and lines.
    - ``evidence``: name and value of every fact that the finding rests on.
    - ``fix``: the smallest change of the program that mends it; empty where nothing is wrong.

    ``print(verdict)`` shows all of it.
    """

    code: str
    text: str
    evidence: Evidence = ()
    fix: str = ""

    def __str__(self) -> str:
        return draw.to_text(draw.Page(self.code.replace("_", " "), tuple(self.blocks())))

    def blocks(self) -> list[draw.Block]:
        """The finding, its evidence and its fix, to stand on a page."""
        found: list[draw.Block] = [draw.Sentence(self.text, self.evidence)]
        if self.fix:
            found += [draw.Heading("Fix", 2), *fix_blocks(self.fix)]
        return found


def fix_blocks(fix: str) -> list[draw.Block]:
    """Indented lines of a fix are code, the others prose."""
    blocks: list[draw.Block] = []
    for line in fix.splitlines():
        last = blocks[-1] if blocks else None
        if line.startswith("    ") and isinstance(last, draw.Code):
            blocks[-1] = draw.Code(f"{last.text}\n{line[4:]}")
        elif line.startswith("    "):
            blocks.append(draw.Code(line[4:]))
        elif line.strip():
            blocks.append(draw.Sentence(line))
    return blocks
