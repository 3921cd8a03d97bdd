"""The arithmetic of the benchmarks' tables: ratios, geometric means, sums, reasons."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch
from benchmarks.peers.agreement import check_product, disagreement
from benchmarks.peers.turns import QUICK, single, take_turns, timed, total
from benchmarks.report import _section
from benchmarks.timing import Ratio, Row, Table, Timing

ROWS = (
    Row("first", (single("a", 1.0), single("b", 4.0), single("c", 2.0))),
    Row("second", (single("a", 1.0), "refused, and the reason is long", single("c", 32.0))),
    Row("third", ("no", single("b", 1.0), single("c", 1.0))),
)
RATIO = Ratio("others ÷ a", ("b", "c"), ("a",))


def test_a_ratio_is_of_the_fastest_of_each() -> None:
    table = Table("t", ("a", "b", "c"), ROWS, ratios=(RATIO,))
    assert [table.ratio(RATIO, row) for row in ROWS] == [2.0, 32.0, None]
    mean = table.mean(RATIO)
    assert mean is not None
    assert mean[0] == pytest.approx(8.0)
    assert mean[1] == 2


def test_without_ratios_every_column_is_compared_with_the_first() -> None:
    table = Table("t", ("a", "b", "c"), ROWS)
    assert [ratio.heading for ratio in table.compared] == ["× b", "× c"]
    assert Table("t", ("a", "b"), (), compare=False).compared == ()


def test_a_long_reason_stands_under_the_table() -> None:
    table = Table("t", ("a", "b", "c"), ROWS, "Note.", (RATIO,), spread=False, means=True)
    lines = _section("s", [table], "command").splitlines()
    assert "| second | 1 s | – a | 32 s | 32.00 |" in lines
    assert "| third | no | 1 s | 1 s |  |" in lines
    assert "| geometric mean |  |  |  | 8.00 (of 2) |" in lines
    assert lines[-1] == "a: refused, and the reason is long"


def test_a_sum_needs_all_of_its_parts() -> None:
    whole = total("w", [single("a", 1.0), single("b", 2.0)])
    assert isinstance(whole, Timing)
    assert whole.median == 3.0
    assert total("w", [single("a", 1.0), "refused"]) == "refused"


def test_a_candidate_that_raises_is_shown_with_its_reason() -> None:
    def fails() -> None:
        raise ValueError("too large")

    cells = take_turns({"a": timed(lambda: None), "b": timed(fails), "c": "left out"}, QUICK)
    assert isinstance(cells["a"], Timing)
    assert cells["b"] == "ValueError: too large"
    assert cells["c"] == "left out"


def test_a_wrong_matrix_is_told() -> None:
    ours = scipy.sparse.csr_array(np.array([[1.0, 0.0], [0.0, 2.0]]))
    dense = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert disagreement(ours, dense) == ""
    assert disagreement(ours, ours * 1.0) == ""
    assert disagreement(ours, dense + torch.tensor([[0.0, 1.0], [0.0, 0.0]])).startswith("WRONG")
    assert disagreement(ours, ours * 1.5).startswith("WRONG: entry (1, 1) is 1.00e+00")
    assert disagreement(ours, ours * float("nan")).startswith("WRONG")
    assert disagreement(ours, dense[:1]).startswith("WRONG: its shape is (1, 2)")


def test_a_product_that_is_not_autograds_is_told() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    slopes = scipy.sparse.diags_array(2 * x.reshape(-1).numpy()).tocsr()
    check_product(torch.square, x, slopes)
    slopes.data[3] *= 1.001
    with pytest.raises(
        ArithmeticError, match=r"v J is not that of autograd: WRONG: entry \(0, 3\)"
    ):
        check_product(torch.square, x, slopes)
