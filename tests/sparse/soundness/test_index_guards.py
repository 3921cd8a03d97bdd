"""Rules 8 and 10: an index or a mask that a pattern relies on is checked by content."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pullback as pb

from .reference import CSR, assert_right, matrix_of, whole


def both_ways(
    func: Callable[..., Any], change: Callable[[], object], *args: Any, name: str = ""
) -> None:
    """An own plan is made anew after ``change``; the caller's is refused with the remedy."""
    own = pb.jacobian(func, layout=CSR)
    given = pb.jacobian(func, plan=pb.plan_jacobian(func, *args))
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            assert_right(own, func, *args)
            assert_right(given, func, *args)
    change()
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            assert_right(own, func, *args)
            with pytest.raises(pb.ArgumentError, match=f"{name}.*Plan again for it"):
                given(*args)
    assert_right(pb.jacobian(func, plan=pb.plan_jacobian(func, *args)), func, *args)


def test_an_index_is_written_in_place() -> None:
    index = torch.tensor([0, 1, 2])
    both_ways(lambda x: x[index] ** 2, lambda: index.__setitem__(0, 3), torch.rand(4), name="index")


def test_an_index_is_written_behind_the_version_counter() -> None:
    index = torch.tensor([0, 1, 2])
    both_ways(lambda x: x[index] ** 2, lambda: index.data.fill_(3), torch.rand(4))


def test_an_index_is_written_through_numpy() -> None:
    array = np.array([0, 1, 2])
    index = torch.from_numpy(array)
    both_ways(lambda x: x[index] ** 2, lambda: array.__setitem__(0, 3), torch.rand(4))


def test_an_array_that_becomes_an_index_inside() -> None:
    array = np.array([0, 1, 2])
    both_ways(
        lambda x: x[torch.from_numpy(array)] ** 2, lambda: array.__setitem__(0, 3), torch.rand(4)
    )


def test_a_list_of_numbers_as_an_index() -> None:
    places = [0, 1, 2]
    both_ways(lambda x: x[places] ** 2, lambda: places.__setitem__(0, 3), torch.rand(4))


def test_an_index_is_rebound() -> None:
    index = torch.tensor([0, 1, 2])

    def rebind() -> None:
        nonlocal index
        index = torch.tensor([3, 3, 0])

    both_ways(lambda x: x[index] ** 2, rebind, torch.rand(4))


def test_a_mask() -> None:
    mask = torch.tensor([True, False, True, False])
    both_ways(
        lambda x: torch.where(mask, x, x.flip(0)) ** 2,
        lambda: mask.data.__setitem__(1, True),
        torch.rand(4),
    )


def test_an_index_argument() -> None:
    index = torch.tensor([0, 1, 2])
    both_ways(
        lambda x, i: x[i] ** 2, lambda: index.__setitem__(0, 3), torch.rand(4), index, name="`i`"
    )


def test_another_index_in_every_call() -> None:
    def func(x: Tensor, i: Tensor) -> Tensor:
        return x[i] ** 2

    jac = pb.jacobian(func, layout=CSR)
    x = torch.rand(4)
    for places in ([0, 1, 2], [3, 3, 3], [2, 1, 0], [0, 1, 2]):
        assert_right(jac, func, x, torch.tensor(places))


def test_scatter_and_accumulate() -> None:
    index = torch.tensor([0, 0, 2, 1])
    both_ways(
        lambda x: torch.zeros(3).index_add(0, index, x**2),
        lambda: index.__setitem__(3, 2),
        torch.rand(4),
    )


def test_trusted_indices_are_checked_by_identity_and_version() -> None:
    index = torch.tensor([0, 1, 2])

    def func(x: Tensor, i: Tensor) -> Tensor:
        return x[i] ** 2

    x = torch.rand(4)
    plan = pb.plan_jacobian(func, x, index)
    given = pb.jacobian(func, plan=plan, trust_indices=True)
    own = pb.jacobian(func, layout=CSR, trust_indices=True)
    assert_right(given, func, x, index)
    assert_right(own, func, x, index)
    index[0] = 3
    assert_right(own, func, x, index)
    for i in (index, torch.tensor([3, 3, 1])):
        with pytest.raises(pb.ArgumentError):
            given(x, i)
    assert_right(own, func, x, torch.tensor([3, 3, 1]))


def test_zeros_of_weights_are_no_facts() -> None:
    W = torch.zeros(3, 4)

    def func(x: Tensor) -> Tensor:
        return W @ x**2

    plan = pb.plan_jacobian(func, torch.rand(4))
    assert plan.pattern.nnz == 12
    jac = pb.jacobian(func, plan=plan)
    assert_right(jac, func, torch.rand(4))
    W.normal_()
    assert_right(jac, func, torch.rand(4))


def test_zeros_that_the_caller_froze() -> None:
    W = torch.eye(4)

    def func(x: Tensor) -> Tensor:
        return W @ x**2

    plan = pb.plan_jacobian(func, torch.rand(4), freeze=["W"])
    assert plan.pattern.nnz == 4
    jac = pb.jacobian(func, plan=plan)
    assert_right(jac, func, torch.rand(4))
    W.data[0, 1] = 1.0
    with pytest.raises(pb.ArgumentError, match="`W`.*changed at \\[0, 1\\]"):
        jac(torch.rand(4))


def test_a_loaded_plan_checks_the_content_too(tmp_path: Path) -> None:
    index = torch.tensor([0, 1, 2])

    def func(x: Tensor) -> Tensor:
        return x[index] ** 2

    pb.plan_jacobian(func, torch.rand(4)).save(tmp_path / "plan")
    assert_right(pb.jacobian(func, plan=pb.Plan.load(tmp_path / "plan")), func, torch.rand(4))
    index[0] = 3
    with pytest.raises(pb.ArgumentError, match="Plan again for it"):
        pb.jacobian(func, plan=pb.Plan.load(tmp_path / "plan"))(torch.rand(4))


def test_a_plan_and_another_function(tmp_path: Path) -> None:
    def func(x: Tensor) -> Tensor:
        return x * x.roll(1)

    def read(x: Tensor) -> float:
        return float(x.detach().sum())

    plan = pb.plan_jacobian(func, torch.rand(4))
    plan.save(tmp_path / "plan")
    for used in (plan, pb.Plan.load(tmp_path / "plan")):
        assert_right(pb.jacobian(lambda x: 3 * x, plan=used), lambda x: 3 * x, torch.rand(4))
        assert_right(
            pb.jacobian(lambda x: x.roll(1) ** 2 * read(x), plan=used),
            lambda x: x.roll(1) ** 2 * read(x),
            torch.rand(4),
        )
        with pytest.raises(pb.ArgumentError, match="the plan does not fit `func`"):
            pb.jacobian(lambda x: x * x.roll(2), plan=used)(torch.rand(4))
        other = pb.jacobian(lambda x: x * x.roll(2) * read(x), plan=used)
        assert_right(other, lambda x: x * x.roll(2) * read(x), torch.rand(4))
        for wrong in (lambda x: (x * x.roll(1))[:3], lambda x: (x * x.roll(1)).float()):
            with pytest.raises(pb.ArgumentError, match="the plan was made for `output` of"):
                pb.jacobian(wrong, plan=used)(torch.rand(4))
        with pytest.raises(pb.ArgumentError, match="the plan was made for `x` of shape"):
            pb.jacobian(func, plan=used)(torch.rand(5))


@pytest.mark.parametrize("layout", [CSR, torch.sparse_coo, "scipy"])
def test_out_must_have_the_same_pattern(layout: Any) -> None:
    index = torch.tensor([0, 1, 2])

    def func(x: Tensor) -> Tensor:
        return x[index] ** 2

    jac = pb.jacobian(func, layout=layout)
    x = torch.rand(4)
    M = jac(x)
    assert whole(jac(x + 1, out=M)).equal(matrix_of(func, x + 1))
    index[0] = 3
    with pytest.raises(pb.ArgumentError, match="`out`"):
        jac(x, out=M)
    assert whole(jac(x)).equal(matrix_of(func, x))


def test_a_result_shares_nothing_that_a_later_call_reads() -> None:
    def func(x: Tensor) -> Tensor:
        return x * x.roll(1)

    x = torch.rand(4)
    for layout in (CSR, torch.sparse_coo, "scipy", torch.strided):
        jac = pb.jacobian(func, plan=pb.plan_jacobian(func, x), layout=layout)
        first = jac(x)
        before = whole(first).clone()
        jac(x + 1)
        assert whole(first).equal(before)
        if layout == "scipy":
            first.data[:] = 0
            first.indices[:] = 0
        elif layout is torch.strided:
            first.zero_()
        else:
            (first.values() if layout is CSR else first._values()).zero_()
        assert whole(jac(x)).equal(before)


def test_verify_names_an_entry_that_is_missing() -> None:
    def func(x: Tensor) -> Tensor:
        return x * x.roll(1)

    for x in (torch.rand(4) + 0.5, torch.zeros(4)):
        pb.verify(func, x, plan=pb.plan_jacobian(func, x))
        short = pb.plan_jacobian(func, x, pattern=torch.eye(4, dtype=torch.bool))
        with pytest.raises(pb.ArgumentError, match="the plan is wrong at entry") as caught:
            pb.verify(func, x, plan=short)
        row, column = eval(str(caught.value).partition("at entry ")[2].partition(":")[0])
        assert (column - row) % 4 in (0, 3)
