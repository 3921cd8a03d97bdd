"""What is done otherwise for large Jacobians, to hold less, comes to the same."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch
from torch.testing import assert_close

import pullback as pb
from pullback.sparse import lifting
from pullback.sparse.graph import Meta
from pullback.sparse.lift import decide
from pullback.sparse.lift.linear import LinearMap, identity
from pullback.sparse.pattern import SparsityPattern

from ..soundness.reference import CSR
from .test_linear import dense, starts
from .test_products import CASES


@pytest.mark.parametrize("at_once", [1, 5, 1000])
def test_the_proof_multiplies_run_by_run(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifting, "_ENTRIES_AT_ONCE", at_once)
    rng = np.random.default_rng(0)
    for density in (0.0, 0.2, 0.6, 1.0):
        marks = rng.random((9, 7)) < density
        marks[4] = False
        matrix = scipy.sparse.csr_array(np.where(marks, rng.standard_normal((9, 7)), 0))
        pattern = SparsityPattern.from_scipy(matrix)
        v, values = torch.from_numpy(rng.standard_normal(9)), torch.from_numpy(matrix.data)
        assert_close(lifting._product(v, values, pattern), v @ torch.from_numpy(matrix.toarray()))


@pytest.mark.parametrize("name", CASES)
def test_what_was_let_go_is_found_out_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    plans = []
    for large in (decide._LARGE, 0):
        monkeypatch.setattr(decide, "_LARGE", large)
        plans.append(pb.plan_jacobian(case.func, *case.args, lift=True))
    one, other = plans
    assert (one.reason, one.notes, one.pattern) == (other.reason, other.notes, other.pattern)
    found = [pb.jacobian(case.func, plan=p, layout=CSR)(*case.args).values() for p in plans]
    assert torch.equal(*found)


def test_a_few_rows_leave_a_large_table() -> None:
    wide, other = identity_of(50), starts()[0]
    few = wide.with_ids(np.array([[0], [7], [0], [50]], dtype=np.int32)).scaled(3.0)
    rest = other.with_ids(np.array([[1], [0], [2], [0]], dtype=np.int32)).scaled(3.0)
    both = few.plus(rest)
    assert both.table.count <= 2 + other.table.count
    expected = np.zeros((4, 50))
    expected[[0, 1, 2, 3], [0, 6, 1, 49]] = 3
    np.testing.assert_array_equal(dense(both)[:, :50], expected)


def identity_of(count: int) -> LinearMap:
    return identity([Meta.of(torch.zeros(count, dtype=torch.float64))])[0]
