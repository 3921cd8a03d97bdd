"""Entries read from their mirrors: where that may be done, and that it gives the same matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import pullback as pb
from pullback.sparse import capture
from pullback.sparse.arguments import arguments_for
from pullback.sparse.choice import symmetric_choices
from pullback.sparse.detect import Detection
from pullback.sparse.gradient import Gradient
from pullback.sparse.pattern import SparsityPattern
from pullback.sparse.study import Study, study

from .functions import (
    PATTERNS,
    Func,
    arrowhead,
    banded_quartic,
    first_row_and_column,
    minimal_surface,
    quotient,
    rosenbrock,
)
from .test_hessian import N, of_torch, point

SYMMETRIC = ("star", "acyclic")


def studied(func: Callable[..., Any], x: Tensor) -> Study:
    gradient = Gradient("test", func, 0)
    return study("test", gradient, arguments_for("test", (x,), 0, gradient))


@pytest.mark.parametrize("mode", ["auto", "fwd", "rev", "star", "acyclic", "dense"])
@pytest.mark.parametrize("func", PATTERNS, ids=lambda f: f.__name__)
def test_every_mode_gives_the_same_matrix(func: Func, mode: str) -> None:
    x = point()
    plan = pb.plan_hessian(func, torch.rand_like(x), mode=mode, lift=False)
    hess = pb.hessian(func, plan=plan)
    for _ in range(4):  # the last calls by one straight line
        torch.testing.assert_close(hess(x).to_dense(), of_torch(func)(x))


def banded(width: int) -> Func:
    return lambda x: (x.unfold(0, width + 1, 1).sum(1) ** 4).sum()


@pytest.mark.parametrize("half", [1, 2, 3, 5])
def test_bands_take_as_many_colors_as_theory_says(half: int) -> None:
    """Gebremedhin et al. (2009): a band of rho diagonals off the main one takes 2 floor(rho/2) + 1
    colors as stars, floor(rho/2) + 1 as trees."""
    found = {
        mode: pb.plan_hessian(banded(half), point(60), mode=mode, lift=False).num_products
        for mode in SYMMETRIC
    }
    assert found == {"star": 2 * half + 1, "acyclic": half + 1}


def test_an_arrow_takes_two_products_and_a_cross_one() -> None:
    arrow = pb.plan_hessian(arrowhead, point(50), lift=False)
    assert (arrow.num_products, arrow.coloring.kind, arrow.mode) == (2, "star", "rev")
    assert "50 VJPs would cover the rows" in arrow.reason
    assert pb.plan_hessian(quotient, point(50), lift=False).num_products == 1


def test_what_is_solved_for_must_save_much() -> None:
    """Nine products or five: half as many again is what rounding more costs."""
    plan = pb.plan_hessian(banded(4), point(50_000), lift=False)
    assert (plan.num_products, plan.coloring.kind) in [(9, "rows"), (5, "acyclic")]
    small = pb.plan_hessian(rosenbrock, point(50), lift=False)
    assert small.coloring.kind == "rows"


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad


def rounded(x: Tensor) -> Tensor:
    return (StraightThrough.apply(x[1:]) * x[:-1] ** 2).sum()


def detached(x: Tensor) -> Tensor:
    return (x[0].detach() * x[0] * x[1:] ** 2).sum()


def through_data(x: Tensor) -> Tensor:
    return (x[0].data * x[0] * x[1:] ** 2).sum()


def without_graph(x: Tensor) -> Tensor:
    with torch.no_grad():
        scale = x[:1] ** 2
    return (scale * x[0] * x[1:] ** 2).sum()


def hooked(x: Tensor) -> Tensor:
    y = x[1:] ** 2
    y.register_hook(lambda grad: grad * x[0])
    return (y * x[0]).sum()


CUTTING = {
    rounded: "while no graph is recorded",
    detached: "detaches",
    through_data: r"takes \.data",
    without_graph: "while no graph is recorded",
    hooked: "hooks",
}


def jacobian_of_the_gradient(func: Func, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(func(x), x, create_graph=True)
    rows = [torch.autograd.grad(g, x, retain_graph=True, allow_unused=True)[0] for g in gradient]
    return torch.stack([torch.zeros_like(x) if row is None else row for row in rows])


@pytest.mark.parametrize("func", CUTTING, ids=lambda f: f.__name__)
def test_a_function_that_cuts_its_gradients_is_taken_as_it_is(func: Func) -> None:
    x = point(6) * 3
    plan = pb.plan_hessian(func, x, lift=False)
    assert not plan.coloring.is_symmetric
    (note,) = plan.notes
    assert "may not be symmetric" in note
    assert "test_symmetry.py" in note
    found = pb.hessian(func, plan=plan)(x).to_dense()
    torch.testing.assert_close(found, jacobian_of_the_gradient(func, x))
    with pytest.raises(pb.UnsupportedError, match=CUTTING[func]):
        pb.plan_hessian(func, x, lift=False, mode="star")


def test_a_hook_of_a_module_is_a_cut() -> None:
    net = torch.nn.Linear(6, 6, dtype=torch.float64)
    net.register_full_backward_hook(lambda module, given, sent: (given[0] * 2,))  # type: ignore[arg-type]

    def func(x: Tensor) -> Tensor:
        return (net(x) ** 2 * x.roll(1)).sum()

    plan = pb.plan_hessian(func, point(6), lift=False)
    assert not plan.coloring.is_symmetric
    with torch.no_grad():
        found = pb.hessian(func, plan=plan)(3 * point(6)).to_dense()
    torch.testing.assert_close(found, jacobian_of_the_gradient(func, 3 * point(6)))
    with pytest.raises(pb.UnsupportedError, match="not known to be symmetric"):
        pb.plan_hessian(func, point(6), lift=False, mode="star")


def test_products_alone_tell_an_asymmetric_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = jacobian_of_the_gradient(hooked, point(6))
    assert not torch.allclose(matrix, matrix.T)
    monkeypatch.setattr(capture, "first_cut", lambda tape: "")
    assert "differ" in studied(hooked, point(6)).asymmetry


@pytest.mark.parametrize(
    "func",
    [
        rosenbrock,
        minimal_surface,
        lambda x: torch.logsumexp(x * x.flip(0), 0),
        lambda x: checkpoint(lambda y: (y.sin() * y.roll(1)).sum(), x, use_reentrant=False),
        lambda x: torch.nn.functional.scaled_dot_product_attention(*(x.view(1, 4, 4),) * 3).sum(),
        lambda x: x.clone().mul_(x).cumsum(0).prod(),
        lambda x: torch.linalg.det(x.reshape(4, 4)),
    ],
)
def test_what_torch_differentiates_is_symmetric(func: Func) -> None:
    assert studied(func, point()).asymmetry == ""


def test_attention_has_second_derivatives_on_cpu() -> None:
    """torch's fast kernel has none: the gradient is taken through the plain one."""

    def func(x: Tensor) -> Tensor:
        q = x.view(1, 4, 4)
        return torch.nn.functional.scaled_dot_product_attention(q, 2 * q, q.sin()).square().sum()

    def written_out(x: Tensor) -> Tensor:
        q = x.view(4, 4)
        return ((q @ (2 * q).T / 2).softmax(1) @ q.sin()).square().sum()

    torch.testing.assert_close(pb.hessian(func)(point()), of_torch(written_out)(point()))


def test_an_entry_without_its_mirror_is_none() -> None:
    found = studied(rosenbrock, point(5))
    assert found.detection is not None
    truth = found.detection.pattern
    wider = np.asarray(truth.to_scipy().toarray())
    wider[0] = True
    found.detection = replace(found.detection, pattern=SparsityPattern.from_scipy(wider))
    assert found.pattern.contains(truth)
    assert found.pattern.nnz == truth.nnz
    cutting = studied(detached, point(5))
    cutting.detection = Detection(SparsityPattern.from_scipy(wider))
    assert cutting.pattern.nnz == wider.sum()


@pytest.mark.parametrize("mode", SYMMETRIC)
def test_saved_and_loaded(mode: str, tmp_path: Path) -> None:
    path, x = tmp_path / "plan.npz", point()
    pb.plan_hessian(banded_quartic, x, mode=mode, lift=False).save(path)
    plan = pb.Plan.load(path)
    assert plan.coloring.kind == mode
    found = pb.hessian(banded_quartic, plan=plan)(x).to_dense()
    torch.testing.assert_close(found, of_torch(banded_quartic)(x))


def test_a_loaded_coloring_must_show_every_entry(tmp_path: Path) -> None:
    plan = pb.plan_hessian(banded_quartic, point(), mode="acyclic", lift=False)
    assert plan.colored is not None
    plan.colored = replace(plan.colored, kind="star")
    plan.save(tmp_path / "plan.npz")
    with pytest.raises(pb.RecordFormatError):
        pb.Plan.load(tmp_path / "plan.npz")


def test_a_plan_with_mirrors_is_refused_for_a_function_that_may_have_none() -> None:
    def plain(x: Tensor) -> Tensor:
        return (x[0] * x[1:] ** 2).sum()

    plan = pb.plan_hessian(plain, point(6), mode="star", lift=False)
    with pytest.raises(pb.ArgumentError, match=r"detaches.*pb\.plan_hessian"):
        pb.hessian(detached, plan=plan)(point(6))


@pytest.mark.parametrize("mode", SYMMETRIC)
def test_results_have_derivatives(mode: str) -> None:
    x = point(6).requires_grad_()
    hess = pb.hessian(
        arrowhead, plan=pb.plan_hessian(arrowhead, x, mode=mode, lift=False), layout=torch.strided
    )
    (found,) = torch.autograd.grad((hess(x) ** 2).sum(), x)
    truth = torch.func.grad(lambda x: (of_torch(arrowhead)(x) ** 2).sum())(x.detach())
    torch.testing.assert_close(found, truth)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mode", SYMMETRIC)
def test_other_dtypes(mode: str, dtype: torch.dtype) -> None:
    x = point().to(dtype)
    plan = pb.plan_hessian(banded_quartic, x, mode=mode, lift=False)
    found = pb.hessian(banded_quartic, plan=plan)(x).to_dense()
    assert found.dtype == dtype
    truth = of_torch(banded_quartic)(x.double())
    loose = 1e-4 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(found.double(), truth, rtol=loose, atol=loose * float(truth.max()))


def test_chunks_and_out() -> None:
    x = point()
    for mode in SYMMETRIC:
        plan = pb.plan_hessian(banded_quartic, x, mode=mode, lift=False)
        hess = pb.hessian(banded_quartic, plan=plan, chunk_size=2)
        first = hess(x)
        for scale in (2, 3, 4):
            assert hess(scale * x, out=first) is first
            torch.testing.assert_close(first.to_dense(), of_torch(banded_quartic)(scale * x))


def test_choices_are_sound_for_any_symmetric_pattern() -> None:
    rng = np.random.default_rng(0)
    for density in (0.05, 0.2, 0.5):
        half = rng.random((30, 30)) < density
        pattern = SparsityPattern.from_scipy(half | half.T)
        kinds = [c.coloring.kind for c in symmetric_choices(pattern, "auto")]
        assert kinds[0] == "rows"
        assert set(kinds[1:]) <= {"star", "acyclic"}
    empty = SparsityPattern.from_scipy(np.zeros((3, 3), dtype=bool))
    assert symmetric_choices(empty, "auto")[0].num_products == 0
    cross = SparsityPattern.from_scipy(first_row_and_column(N))
    assert symmetric_choices(cross, "auto")[1].num_products == 1
