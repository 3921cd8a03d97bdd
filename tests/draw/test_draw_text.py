"""The text lowering, character by character."""

import io
import sys
import time
from textwrap import dedent

import numpy as np
import pytest

from pullback.draw import (
    Arrow,
    Block,
    Box,
    Code,
    Diagram,
    Grid,
    Heading,
    Heatmap,
    Outline,
    OutlineRow,
    Page,
    Sentence,
    Table,
    to_text,
)


def assert_text(page_or_block: Page | Block, expected: str, width: int = 60) -> None:
    drawn = to_text(page_or_block, width=width)
    assert drawn == dedent(expected).strip("\n")
    assert all(line == line.rstrip() for line in drawn.split("\n"))


def test_the_helper_above_can_fail() -> None:
    with pytest.raises(AssertionError):
        assert_text(Sentence("a"), "b")


def test_a_page() -> None:
    page = Page(
        "Backward of loss",
        (
            Sentence("x received 363 in all.", (("total", "363"), ("share", "25 %"))),
            Sentence("loss weighs every entry of x by the number that stands in its row."),
            Heading("Deposits"),
            Heading("By leaf", 3),
            Code("loss.backward()\n\tpass"),
        ),
    )
    assert_text(
        page,
        """
        Backward of loss
        ================

        x received 363 in all.
            total: 363
            share: 25 %
        loss weighs every entry of x by the number that stands in
          its row.

        Deposits
        --------

        By leaf

            loss.backward()
                pass
        """,
    )


def test_a_table_aligns_numbers_right_and_wraps_prose() -> None:
    table = Table(
        "Deposits",
        ("leaf", "norm", "remark"),
        (("weight", "1.25", ""), ("[bold]b", "363", "a remark that needs more than one line here")),
    )
    assert_text(
        table,
        """
        Deposits
        leaf      norm   remark
        ────────────────────────────────────────
        weight    1.25
        [bold]b    363   a remark that needs
                         more than one line here
        """,
        width=40,
    )


def test_numbers_are_never_cut_even_past_the_width() -> None:
    columns = tuple(f"column {i}" for i in range(12))
    drawn = to_text(Table("", columns, (("-1.234e-10",) * 12,)), width=40)
    assert drawn.count("-1.234e-10") == 12
    assert all(name in drawn for name in columns)


def test_an_outline_indents_only_branches() -> None:
    rows = (
        OutlineRow(0, ("loss", "()", "1")),
        OutlineRow(0, ("sum", "(5, 4)", "20")),
        OutlineRow(1, ("left", "(5, 4)", "5")),
        OutlineRow(2, ("w", "(4,)", "1.5"), "●"),
        OutlineRow(1, ("right", "(5,)", "15")),
        OutlineRow(2, ("v", "(5,)", "15"), "●"),
        OutlineRow(0, ("end", "", "")),
    )
    assert_text(
        Outline(("node", "shape", "norm"), rows),
        """
        node       shape   norm
        loss       ()         1
        sum        (5, 4)    20
        ├─ left    (5, 4)     5
        │  └─ ● w  (4,)     1.5
        └─ right   (5,)      15
           └─ ● v  (5,)      15
        end
        """,
    )


def test_a_long_last_cell_wraps_under_its_guides() -> None:
    rows = (
        OutlineRow(0, ("a", "first")),
        OutlineRow(1, ("b", "a remark which is too long for the width")),
        OutlineRow(1, ("c", "last")),
    )
    assert_text(
        Outline(("", ""), rows),
        """
        a     first
        ├─ b  a remark which is too
        │     long for the width
        └─ c  last
        """,
        width=30,
    )


@pytest.mark.parametrize("depth", [lambda i: i % 7, lambda i: i, lambda i: 0])
def test_fifty_thousand_rows_neither_recurse_nor_linger(depth: object) -> None:
    assert callable(depth)
    rows = tuple(OutlineRow(depth(i), (f"row {i}", str(i))) for i in range(50_000))
    began = time.process_time()
    drawn = to_text(Outline(("name", "number"), rows), width=100)
    assert time.process_time() - began < 2
    assert drawn.count("\n") == 50_000


def test_guides_of_a_very_deep_row_are_counted() -> None:
    rows = tuple(OutlineRow(i, (f"row {i}",)) for i in range(40))
    last = to_text(Outline(("",), rows), width=100).split("\n")[-1]
    assert last == "   " * 31 + "└─ (39) row 39"


def test_a_small_heatmap_is_written_in_numbers() -> None:
    assert_text(
        Heatmap("J", np.array([[1, 2.5, -3], [0, np.nan, np.inf]]), "output", "input", "mm"),
        r"""
        J  (2 × 3, from -3 to 2.5 mm, 1 nan, 1 inf)
        output \ input  0    1    2
                     0  1  2.5   -3
                     1  0  nan  inf
        """,
    )


def test_a_large_heatmap_is_shaded() -> None:
    values = np.zeros((3, 20))
    values[0, :5] = [1, 2, 3, 4, -4]
    values[2, 19] = np.nan
    assert_text(
        Heatmap("J", values),
        """
        J  (3 × 20, from -4 to 4, 1 nan)
        row down, column across
        │░▒▓██               │
        │                    │
        │                   ?│
        shades of |value|: blank 0, ░▒▓█ in quarters up to 4, ? nan or inf
        """,
    )


def test_a_huge_heatmap_says_what_a_shade_stands_for() -> None:
    drawn = to_text(Heatmap("", np.eye(640)), width=100)
    assert drawn.split("\n")[0] == "640 × 640, from 0 to 1"
    assert drawn.endswith(
        "each cell stands for 20 × 10 entries and shows the one of largest modulus"
    )
    assert max(map(len, drawn.split("\n"))) <= 100


def test_an_empty_heatmap_says_so() -> None:
    assert to_text(Heatmap("J", np.zeros((0, 3)))) == "J  (0 × 3, no entries)"
    assert to_text(Grid(())) == ""


def test_a_grid_sets_panels_side_by_side_and_shares_the_scale() -> None:
    assert_text(
        Grid((Heatmap("a", np.array([1.0, 2.0])), Heatmap("b", np.array([3.0])))),
        """
        a  (1 × 2, from 1 to 2)    b  (1 × 1, all 3)
        axis 0  0  1               axis 0  0
             0  1  2                    0  3
        """,
    )
    faint, full = Heatmap("a", np.full((1, 13), 1.0)), Heatmap("b", np.full((1, 13), 4.0))
    assert "░" * 13 in to_text(Grid((faint, full)), width=100)
    assert "░" * 13 not in to_text(Grid((faint, full), shared=False), width=100)


def test_a_diagram_is_a_list_of_arrows() -> None:
    boxes = (
        Box("1", ("loss", "()"), "output"),
        Box("2", ("add",)),
        Box("3", ("add",)),
        Box("4", ("alone",), "note"),
    )
    arrows = (Arrow("1", "2", "norm 1"), Arrow("1", "3"), Arrow("1", "3", "again"))
    assert_text(
        Diagram("Graph", boxes, arrows),
        """
        Graph
          loss -> add [2]  norm 1
          loss -> add [3]
          loss -> add [3]  again
          alone
        """,
    )


def test_markup_and_control_characters_are_printed_literally() -> None:
    hostile = "[bold]x[/bold] :smile: \x1b[31m\n"
    drawn = to_text(Page(hostile, (Sentence(hostile), Table(hostile, (hostile,), ((hostile,),)))))
    assert drawn.count("[bold]x[/bold] :smile: ␛[31m␊") == 5
    assert "\x1b" not in drawn


def test_the_default_width_is_100_away_from_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setenv("COLUMNS", "30")
    assert max(map(len, to_text(Sentence("word " * 60)).split("\n"))) in range(90, 101)
