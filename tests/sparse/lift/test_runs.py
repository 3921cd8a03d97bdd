"""Rows that repeat are written as runs: the same sums, whatever their places, weights, strides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pullback as pb
from pullback.sparse import assemble
from pullback.sparse.assemble import Assembler
from pullback.sparse.lift.factor import Terms
from pullback.sparse.lift.runs import Runs, runs_of

CPU = torch.device("cpu")
ROWS = 700


def repeated(
    widths: list[int], counts: list[int], strides: list[int], rows: int = ROWS, seed: int = 0
) -> tuple[Any, Terms, int]:
    """``rows`` times the rows of ``widths`` entries, with ``counts`` terms by turns, each term as
    many places on from row to row as its stride says."""
    rng = np.random.default_rng(seed)
    entries = sum(widths)
    lengths = np.resize(counts, entries)
    base = rng.integers(0, 50, lengths.sum())
    stride = np.resize(strides, lengths.sum())
    weight = rng.integers(1, 4, lengths.sum()).astype(float)
    added = rng.integers(0, 2, entries).astype(float)
    sources = (base + stride * np.arange(rows)[:, None]).reshape(-1)
    starts = np.concatenate([[0], np.cumsum(np.tile(lengths, rows))])
    ptr = np.concatenate([[0], np.cumsum(np.tile(widths, rows))])
    terms = Terms(
        starts.astype(np.int32), sources.astype(np.int32), np.tile(weight, rows),
        np.tile(added, rows),
    )  # fmt: skip
    return ptr, terms, int(sources.max()) + 1


def product(terms: Terms, f: np.ndarray) -> np.ndarray:
    entries = np.repeat(np.arange(terms.starts.size - 1), np.diff(terms.starts))
    found = np.bincount(entries, terms.weight * f[terms.sources], terms.starts.size - 1)
    return found + (0 if terms.template is None else terms.template)


def runs(ptr: Any, terms: Terms, dtype: Any = np.float64) -> Runs | None:
    added = np.zeros(terms.starts.size - 1) if terms.template is None else terms.template
    return runs_of(ptr, terms.starts, terms.sources, terms.weight, added, dtype)


SHAPES: dict[str, tuple[list[int], list[int], list[int]]] = {
    "one term": ([3], [1], [1]),
    "two, three, four": ([3], [2, 3, 4], [1]),
    "none, one, five": ([3], [0, 1, 5], [1]),
    "other strides": ([2], [3, 1], [2, 1, 0]),
    "strides that differ within a slot": ([1], [4], [1, 1, 3, 1]),
    "two rows that repeat together": ([2, 3], [1, 2], [4]),
    "four rows": ([1, 2, 1, 3], [1, 2, 3], [1, 2]),
    "one entry": ([1], [7], [1]),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_runs_are_the_dense_product(shape: str, dtype: torch.dtype) -> None:
    ptr, terms, size = repeated(*SHAPES[shape])
    kind = np.float32 if dtype is torch.float32 else np.float64
    found = runs(ptr, terms, kind)
    assert found is not None
    f = np.random.default_rng(1).integers(-4, 5, size) / 4
    out = np.full(terms.starts.size - 1, np.nan, dtype=kind)
    found.fill(0, found.rows.size, f.astype(kind), out)
    np.testing.assert_allclose(out, product(terms, f), rtol=1e-6, atol=1e-6)


def test_rows_that_break_the_run_are_written_apart() -> None:
    ptr, terms, size = repeated([3], [1, 2], [1])
    rng = np.random.default_rng(2)
    sources = terms.sources.copy()
    broken = rng.choice(sources.size, 12, replace=False)
    sources[broken] = rng.integers(0, size, 12)
    given = Terms(terms.starts, sources, terms.weights, terms.template)
    found = runs(ptr, given)
    assert found is not None
    assert found.rest.entry.size > 0
    f = rng.standard_normal(size)
    out = np.full(terms.starts.size - 1, np.nan)
    found.fill(0, found.rows.size, f, out)
    np.testing.assert_allclose(out, product(given, f))


@pytest.mark.parametrize("part", ["sources", "weights", "template"])
def test_no_runs_where_nothing_repeats(part: str) -> None:
    ptr, terms, _ = repeated([3], [1, 2], [1])
    given: dict[str, Any] = {k: getattr(terms, k) for k in ("sources", "weights", "template")}
    given[part] = np.random.default_rng(3).integers(0, 50, given[part].size)
    assert runs(ptr, Terms(terms.starts, **given)) is None


def test_the_long_row_of_an_arrow_is_taken_entry_by_entry() -> None:
    def arrow(x: torch.Tensor) -> torch.Tensor:
        return (x[0] * x[1:] ** 2).sum() + (x**4).sum()

    x = torch.rand(9_000, dtype=torch.float64)
    plan = pb.plan_hessian(arrow, x, lift=True)
    assert plan.lift is not None
    terms = plan.lift.factors[0].terms
    assert runs(plan.pattern.indptr, terms) is not None
    assert plan.pattern.nnz > assemble._FEW
    H = pb.hessian(arrow, plan=plan, layout="scipy")(x)
    v = torch.rand(9_000, dtype=torch.float64)
    truth = torch.autograd.functional.vhp(arrow, x, v)[1]
    np.testing.assert_allclose(H @ v.numpy(), truth.numpy())


@pytest.mark.parametrize("threads", [1, 2])
def test_an_assembler_takes_them(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assemble, "BLOCK", 500)
    monkeypatch.setattr(assemble, "_FEW", 100)
    monkeypatch.setattr("pullback.sparse.lift.runs._PIECE", 64)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        ptr, terms, size = repeated([3], [1, 2, 4], [1, 1, 2])
        assembler = Assembler(terms, size, torch.float64, CPU, rows=ptr)
        assert assembler.form == "runs"
        f = torch.rand(size, dtype=torch.float64)
        found = assembler(f)
        np.testing.assert_allclose(found.numpy(), product(terms, f.numpy()))
        into = torch.full_like(found, torch.nan)
        assert assembler(f, into) is into
        assert torch.equal(into, found)
    finally:
        torch.set_num_threads(before)
