"""Sums over dims, and running sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pullback.sparse.rules import scan

from .harness import check, linear_tensors, rule_of

aten = torch.ops.aten
F64 = torch.float64

SUMS = {
    "all": (lambda v: v.sum(), [(3, 2)]),
    "a dim": (lambda v: v.sum(1), [(3, 2, 2)]),
    "a dim from the end": (lambda v: v.sum(-1), [(3, 2)]),
    "dims kept": (lambda v: v.sum((0, -1), keepdim=True), [(3, 2, 2)]),
    "no dims named": (lambda v: aten.sum.dim_IntList(v, []), [(3, 2)]),
    "no dims": (lambda v: aten.sum.dim_IntList(v, None, True), [(3, 2)]),
    "a number": (lambda v: aten.sum.dim_IntList(v, [0]), [()]),
    "strides": (lambda v: v.mean(0), [torch.empty(4, 3, dtype=F64).t()]),
    "mean": (lambda v: v.mean(), [(2, 3)]),
    "mean of a number": (lambda v: aten.mean.dim(v, [-1], True), [()]),
    "another dtype": (lambda v: v.sum(0, dtype=torch.float32), [(2, 3)]),
    "nansum": (lambda v: v.nansum(1), [(2, 3)]),
    "of nothing": (lambda v: v.sum(0), [(0, 3)]),
    "of nothing to nothing": (lambda v: v.sum(0), [(2, 0)]),
    "size 1": (lambda v: v.sum(1), [(3, 1)]),
    "trace": (lambda v: aten.trace(v), [(3, 4)]),
}
SCANS = {
    "cumsum": (lambda v: v.cumsum(0), [(4, 2)]),
    "cumsum from the end": (lambda v: v.cumsum(-1), [(2, 2, 3)]),
    "of a number": (lambda v: v.cumsum(0), [()]),
    "of nothing": (lambda v: v.cumsum(1), [(2, 0)]),
    "of size 1": (lambda v: v.cumsum(1), [(3, 1)]),
    "of strides": (lambda v: v.cumsum(1), [torch.empty(4, 3, dtype=F64).t()]),
    "backwards": (lambda v: v.flip(0).cumsum(0).flip(0), [(5,)]),
}


@pytest.mark.parametrize("name", SUMS)
def test_sums_are_exact(name: str) -> None:
    g, shapes = SUMS[name]
    check(g, shapes, draws=1)


@pytest.mark.parametrize("name", SCANS)
def test_scans_are_exact(name: str) -> None:
    g, shapes = SCANS[name]
    check(g, shapes, draws=1)


def test_a_scan_too_long_for_a_triangle_reads_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_PAIRS_AT_MOST", 11)
    found = check(lambda v: v.cumsum(0), [(4, 2)], draws=1, exact=False)
    lines = np.kron(np.ones((4, 4)), np.eye(2)).astype(bool)
    assert np.array_equal(found.matrix, lines)


def test_elements_share_the_sets_of_a_long_sum() -> None:
    vs = linear_tensors([(300, 400)])
    assert rule_of(lambda v: v.sum(1), vs).matrix.sum() == 300 * 400
