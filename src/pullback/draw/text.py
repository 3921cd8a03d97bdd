"""The page as plain text: no color codes, no wrapped cells, nothing cut."""

import shutil
import sys
from collections import Counter
from typing import assert_never

from rich.cells import cell_len
from rich.text import Text

from ._printable import printable, printable_lines
from ._text_heatmap import grid_lines, heatmap_lines
from ._text_outline import outline_lines
from ._text_table import plain_console, table_lines
from .page import (
    Block,
    Code,
    Diagram,
    Grid,
    Heading,
    Heatmap,
    Outline,
    Page,
    Sentence,
    Table,
)

_DEFAULT_WIDTH = 100
_LEAST_WIDTH = 20


def to_text(page_or_block: Page | Block, width: int | None = None) -> str:
    """Lower a page or one block to plain text without a final newline.

    `width` is where sentences wrap, in characters: by default the terminal's, or 100 where
    standard output is not a terminal. A row that cannot be narrower than that runs past it.

    >>> print(to_text(Sentence("The rows sum to one.", (("largest error", "1.2e-7"),))))
    The rows sum to one.
        largest error: 1.2e-7
    """
    columns = max(_LEAST_WIDTH, _reader_width() if width is None else width)
    blocks: tuple[Block, ...] = (
        (Heading(page_or_block.title, 1), *page_or_block.blocks)
        if isinstance(page_or_block, Page)
        else (page_or_block,)
    )
    lines: list[str] = []
    for before, block in zip((None, *blocks), blocks, strict=False):
        both_claims = isinstance(before, Sentence) and isinstance(block, Sentence)
        if lines and not both_claims:
            lines.append("")
        lines += _block_lines(block, columns)
    return "\n".join(line.rstrip() for line in lines)


def _reader_width() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _DEFAULT_WIDTH


def _block_lines(block: Block, width: int) -> list[str]:
    match block:
        case Heading():
            return _heading_lines(block)
        case Sentence():
            return _sentence_lines(block, width)
        case Table():
            return table_lines(block, width)
        case Heatmap():
            return heatmap_lines(block, width)
        case Grid():
            return grid_lines(block, width)
        case Outline():
            return outline_lines(block, width)
        case Diagram():
            return _diagram_lines(block)
        case Code():
            return [f"    {line}" for line in printable_lines(block.text)]
        case _:
            assert_never(block)


def _heading_lines(heading: Heading) -> list[str]:
    text = printable(heading.text)
    if heading.level > 2:
        return [text]
    return [text, ("=" if heading.level == 1 else "-") * cell_len(text)]


def _sentence_lines(sentence: Sentence, width: int) -> list[str]:
    lines = _wrapped(sentence.text, width, first="", later="  ")
    for name, value in sentence.evidence:
        lines += _wrapped(f"{name}: {value}", width, first="    ", later="      ")
    return lines


def _wrapped(text: str, width: int, first: str, later: str) -> list[str]:
    console = plain_console(width)
    pieces = Text(printable(text)).wrap(console, width - len(later), overflow="fold")
    return [f"{later if i else first}{piece.plain}" for i, piece in enumerate(pieces)] or [first]


def _diagram_lines(diagram: Diagram) -> list[str]:
    names = _box_names(diagram)
    joined = {key for arrow in diagram.arrows for key in (arrow.source, arrow.target)}
    lines = [printable(diagram.title)] if diagram.title else []
    for arrow in diagram.arrows:
        label = f"  {printable(arrow.label)}" if arrow.label else ""
        source, target = (names.get(key, key) for key in (arrow.source, arrow.target))
        lines.append(f"  {source} -> {target}{label}")
    return lines + [f"  {names[box.key]}" for box in diagram.boxes if box.key not in joined]


def _box_names(diagram: Diagram) -> dict[str, str]:
    """Name each box by its first line, and by its key too where boxes share that line."""
    firsts = {box.key: printable(box.lines[0] if box.lines else box.key) for box in diagram.boxes}
    uses = Counter(firsts.values())
    return {
        key: first if uses[first] == 1 else f"{first} [{printable(key)}]"
        for key, first in firsts.items()
    }
