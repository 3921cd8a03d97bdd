"""Masked reads and writes in where-form: one capture for any number of masked entries."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import pullback as pb

N = 12


def reference(func: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    y = func(x).reshape(-1)
    rows = [torch.autograd.grad(y[k], x, retain_graph=True)[0].reshape(-1) for k in range(len(y))]
    return torch.stack(rows)


def squared(x: Tensor) -> Tensor:
    y = x.clone()
    mask = x > 0
    y[mask] = y[mask] ** 2
    return y


def both_sides(x: Tensor) -> Tensor:
    y = x.clone()
    mask = x > 0.2
    y[mask] = torch.exp(y[mask]) * 2 + 1
    y[~mask] = y[~mask].sin()
    return y * x.roll(1)


def rows(x: Tensor) -> Tensor:
    y = x.reshape(4, 3).clone()
    mask = y[:, 0] > 0
    y[mask] = y[mask] * torch.arange(3.0, dtype=x.dtype) + y[mask].tanh()
    return y


def two_sources(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    mask = x > 0
    y[mask] = x[mask] * x.roll(1)[mask]
    return y


def filled(x: Tensor) -> Tensor:
    y = x * 3
    y[x > 0] = 0.5
    return y


def filled_with_a_sum(x: Tensor) -> Tensor:
    y = x.clone()
    y[x > 0] = x.sum()
    return y


def summed(x: Tensor) -> Tensor:
    return (x * 2)[x > 0].sum() * x


def scaled_by_the_count(x: Tensor) -> Tensor:
    y = x.clone()
    picked = y[x > 0]
    y[x > 0] = picked * picked.shape[0]
    return y


def centered(x: Tensor) -> Tensor:
    y = x.clone()
    mask = x > 0
    y[mask] = y[mask] - y[mask].mean()
    return y


def normalised(x: Tensor) -> Tensor:
    y = x.clone()
    mask = x > 0
    y[mask] = torch.softmax(y[mask], 0)
    return y


def of_two_masks(x: Tensor) -> Tensor:
    y = x.clone()
    low, high = x < -0.5, x > 0.5
    if int(low.sum()) == int(high.sum()):
        y[low] = y[high] * 2
    return y


REWRITTEN: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "squared": (squared, N),
    "both sides": (both_sides, 2 * N),
    "rows": (rows, N),
    "two sources": (two_sources, 2 * N),
    "filled": (filled, N),
    "filled with a sum": (filled_with_a_sum, N * N),
    "summed": (summed, N * N),
}
RESISTING = (scaled_by_the_count, centered, normalised, of_two_masks)


def points() -> list[Tensor]:
    torch.manual_seed(0)
    drawn = [torch.randn(N, dtype=torch.float64) for _ in range(4)]
    return [*drawn, drawn[0].abs(), -drawn[1].abs()]


@pytest.mark.parametrize("name", REWRITTEN)
def test_one_capture_holds_at_every_count(name: str) -> None:
    func, nnz = REWRITTEN[name]
    here = points()
    assert len({int((x > 0).sum()) for x in here}) > 3
    for lift in ("auto", False):
        plan = pb.plan_jacobian(func, here[0], lift=lift)
        assert (plan.pattern.nnz, plan.notes) == (nnz, ())
        jac = pb.jacobian(func, plan=plan)
        for x in here:
            torch.testing.assert_close(jac(x).to_dense(), reference(func, x))
            assert jac.engine == "replay"


@pytest.mark.parametrize("func", RESISTING, ids=lambda f: f.__name__)
def test_what_has_no_where_form_runs_itself_and_is_right(func: Callable[[Tensor], Tensor]) -> None:
    here = points()
    jac = pb.jacobian(func, layout=torch.sparse_csr)
    for x in here:
        torch.testing.assert_close(jac(x).to_dense(), reference(func, x))
        assert jac.engine == "function"


def test_a_sample_whose_count_never_changes_is_not_trusted() -> None:
    """All entries equal: no point made of them has another count."""
    jac = pb.jacobian(squared, plan=pb.plan_jacobian(squared, torch.zeros(3, dtype=torch.float64)))
    for x in points():
        torch.testing.assert_close(jac(x[:3]).to_dense(), reference(squared, x[:3]))


def tenfold_where_nothing_is_picked(x: Tensor) -> Tensor:
    mask = x > 0
    if x[mask].numel() == 0:
        return x * 10
    y = x.clone()
    y[mask] = y[mask] ** 2
    return y


def by_length(x: Tensor) -> Tensor:
    y = x.clone()
    mask = x > 0
    y[mask] = x[mask] * (3.0 if len(x[mask]) > 8 else 1.0)
    return y


def by_shape(x: Tensor) -> Tensor:
    picked = x[x > 0]
    return x * 2 if picked.shape[0] == 0 else x * picked.sum()


def of_integers(x: Tensor) -> Tensor:
    places = torch.arange(N)
    mask = x > 0
    places[mask] = N - 1 - places[mask]
    return x[places] * x


def of_ones_and_twos(x: Tensor) -> Tensor:
    y = x.clone()
    mask = x > 0
    y[mask] = torch.ones_like(y[mask])
    y[~mask] = torch.full_like(y[~mask], 2.0) * y[~mask]
    return y * x


def over_their_sum(x: Tensor) -> Tensor:
    y = x.clone()
    mask = x > 0.1
    y[mask] = y[mask] / y[mask].sum()
    return y


AWKWARD = (
    tenfold_where_nothing_is_picked,
    by_length,
    by_shape,
    of_integers,
    of_ones_and_twos,
    over_their_sum,
)


@pytest.mark.parametrize("func", AWKWARD, ids=lambda f: f.__name__)
def test_a_program_that_looks_at_the_count_or_mixes_masks_is_right(
    func: Callable[[Tensor], Tensor],
) -> None:
    here = points()
    for start in here[:2]:
        jac = pb.jacobian(func, layout=torch.sparse_csr)
        jac(start)
        for x in here:
            torch.testing.assert_close(jac(x).to_dense(), reference(func, x))


def rooted_four_times(x: Tensor) -> Tensor:
    y = x.clone()
    y[x > 2] = (y[x > 2] + 1).sqrt()
    return torch.cat([y, y * x.roll(1), y * y, y.roll(1) * 2])


def test_nan_of_the_branch_not_taken_stays_out() -> None:
    """Rows outnumber columns, so columns would be cheaper: but a transposed choice spreads nan."""
    x = torch.tensor([3.0, 0.5, 4.0, 0.1], dtype=torch.float64)
    plan = pb.plan_jacobian(rooted_four_times, x)
    assert plan.mode == "rev"
    with pytest.raises(pb.UnsupportedError, match="what a mask leaves out may be nan"):
        pb.plan_jacobian(rooted_four_times, x, mode="fwd")
    there = torch.tensor([3.0, -5, 4.0, 0.1], dtype=torch.float64)
    found = pb.jacobian(rooted_four_times, plan=plan)(there).to_dense()
    torch.testing.assert_close(found, reference(rooted_four_times, there))


def with_a_gap(x: Tensor) -> Tensor:
    gap = x - 1.0
    y = x**2
    mask = gap > 0
    y[mask] = y[mask] + 100 * gap[mask] * x.roll(1)[mask]
    return y


def test_a_plan_of_one_point_is_not_refused_by_its_own_function() -> None:
    plan = pb.plan_jacobian(with_a_gap, torch.linspace(-0.9, 0.5, 8, dtype=torch.float64))
    there = torch.linspace(-2, 3, 8, dtype=torch.float64)
    found = pb.jacobian(with_a_gap, plan=plan)(there).to_dense()
    torch.testing.assert_close(found, reference(with_a_gap, there))


def by_printed_text(x: Tensor) -> Tensor:
    return x * (2.0 if f"{x[0]:.2f}".startswith("-") else 1.0)


def test_text_made_of_values_is_a_read() -> None:
    jac = pb.jacobian(by_printed_text, layout=torch.sparse_csr)
    x = points()[0].abs() + 0.1
    for at in (x, -x):
        torch.testing.assert_close(jac(at).to_dense(), reference(by_printed_text, at))
