"""The Gauss-Newton matrix against J' W J of dense matrices, and its promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import pullback as pb
from pullback.sparse.normal import NormalMatrix, SparseProduct
from pullback.sparse.pattern import SparsityPattern

from .test_hessian import of_torch, point


def residual(x: Tensor) -> Tensor:
    return x[2:] * x[1:-1] - x[:-2].sin()


def full(x: Tensor) -> Tensor:
    return torch.stack([x.prod(), x.sum() ** 2])


def jacobian_of(func: Any, x: Tensor) -> Tensor:
    return torch.func.jacrev(func)(x)


@pytest.mark.parametrize(
    "layout", [None, torch.strided, torch.sparse_csr, torch.sparse_coo, "scipy"]
)
@pytest.mark.parametrize("func", [residual, full])
def test_layouts(func: Any, layout: Any) -> None:
    x = point(7)
    found = pb.gauss_newton(func, layout=layout)(x)
    dense = found.toarray() if layout == "scipy" else found.to_dense()
    J = jacobian_of(func, x)
    torch.testing.assert_close(torch.as_tensor(dense), J.T @ J)


WEIGHTS: dict[str, Any] = {
    "vector": point(5) - 1,
    "numpy": (point(5) - 1).numpy(),
    "dense": torch.ones(5, 5, dtype=torch.float64) + torch.diag(point(5)),
    "csr": pb.jacobian(lambda x: x * x, layout=torch.sparse_csr)(point(5)),
    "coo": torch.sparse_coo_tensor(
        [[4, 0, 0], [0, 1, 1]],
        [1.0, 2.0, 3.0],
        (5, 5),
        dtype=torch.float64,
        check_invariants=True,
    ),
    "scipy": scipy.sparse.diags_array([1.0, 2, 3, 4], offsets=1).tocsc(),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights(kind: str) -> None:
    x, given = point(7), WEIGHTS[kind]
    W = torch.as_tensor(given.toarray()) if kind == "scipy" else torch.as_tensor(given)
    W = W.to_dense() if W.layout is not torch.strided else W
    W = torch.diag(W) if W.dim() == 1 else W
    J = jacobian_of(residual, x)
    matrix = pb.gauss_newton(residual)
    for scale in (1.0, 3.0):
        found = matrix(scale * x, weights=given)
        J = jacobian_of(residual, scale * x)
        torch.testing.assert_close(found.to_dense(), J.T @ W @ J)


def test_weights_in_the_structure_of_the_outputs() -> None:
    x = point(4)
    out = {"a": x * 2, "b": x[0] ** 2}
    weights = {"a": point(4), "b": torch.tensor(3.0, dtype=torch.float64)}

    def func(x: Tensor) -> dict[str, Tensor]:
        return {"a": x * 2, "b": x[0] ** 2}

    truth = torch.diag(4 * weights["a"])
    truth[0, 0] += 3 * 4 * x[0] ** 2
    torch.testing.assert_close(pb.gauss_newton(func)(x, weights=weights).to_dense(), truth)
    flat = torch.cat([weights[k].reshape(-1) for k in out])
    torch.testing.assert_close(pb.gauss_newton(func)(x, weights=flat).to_dense(), truth)


def test_it_is_the_hessian_of_a_linear_residual() -> None:
    A = torch.rand(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    b, x, w = point(6), point(4), point(6)
    hessian = of_torch(lambda x: 0.5 * (w * (A @ x - b) ** 2).sum())(x)
    torch.testing.assert_close(
        pb.gauss_newton(lambda x: A @ x - b, layout=torch.strided)(x, weights=w), hessian
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_it_is_symmetric_to_the_last_bit(dtype: torch.dtype) -> None:
    x, w = torch.randn(400).to(dtype), torch.randn(398).to(dtype)
    for func, weights in ((residual, w), (residual, None), (lambda x: full(x[:30] / 9), w[:2])):
        found = pb.gauss_newton(func, layout="scipy")(x, weights=weights)
        assert (found != found.T).nnz == 0


def test_pytrees_and_argnums_are_laid_out_as_a_hessian() -> None:
    def func(a: dict[str, Tensor], b: Tensor) -> Tensor:
        return torch.cat([a["w"] * b, a["u"] ** 2])

    args = ({"w": point(3), "u": point(2)}, point(3))
    for argnums in (0, 1, (0, 1)):
        found = pb.gauss_newton(func, argnums=argnums, layout=torch.strided)(*args)
        J = pb.jacobian(func, argnums=argnums, layout=torch.sparse_csr)(*args).to_dense()
        like = pb.hessian(lambda *args: func(*args).sum(), argnums=argnums)(*args)
        assert pytree.tree_structure(found) == pytree.tree_structure(like)
        leaves = [t.reshape(-1) for t in pytree.tree_leaves(found)]
        assert sum(t.numel() for t in leaves) == J.shape[1] ** 2
        trace = sum(
            t.diagonal().sum() if t.dim() == 2 else 0
            for k, t in enumerate(pytree.tree_leaves(found))
            if k in {0: (0, 3), 1: (0,), (0, 1): (0, 4, 8)}[argnums]
        )
        torch.testing.assert_close(trace, (J**2).sum())


def test_derivatives_go_through() -> None:
    x = point(7).requires_grad_()
    weights = point(5).requires_grad_()
    found = pb.gauss_newton(residual)(x, weights=weights).to_dense()
    ours = torch.autograd.grad((found**2).sum(), [x, weights])
    J = torch.func.jacrev(residual)(x)
    truth = torch.autograd.grad(((J.T @ torch.diag(weights) @ J) ** 2).sum(), [x, weights])
    for a, b in zip(ours, truth, strict=True):
        torch.testing.assert_close(a, b)


def test_aux_out_and_replay() -> None:
    matrix = pb.gauss_newton(lambda x: (residual(x), residual(x)), has_aux=True)
    kept, _ = matrix(point(7))
    for scale in (1.0, 2.0, 3.0, 4.0):
        x = scale * point(7)
        found, aux = matrix(x, out=kept)
        assert found is kept
        J = jacobian_of(residual, x)
        torch.testing.assert_close(found.to_dense(), J.T @ J)
        torch.testing.assert_close(aux, residual(x))
    assert matrix.engine == "replay"
    assert matrix.plan is not None
    assert matrix.plan.pattern.shape == (5, 7)


@pytest.mark.parametrize("weights", [point(4), torch.ones(5, 4), {"a": point(5)}, 2.0, "w"])
def test_weights_that_do_not_fit(weights: Any) -> None:
    with pytest.raises(pb.ArgumentError, match=r"`weights` is .*shape \(5,\)"):
        pb.gauss_newton(residual)(point(7), weights=weights)


def test_products_of_patterns() -> None:
    rng = np.random.default_rng(0)
    for shape in ((7, 5, 6), (1, 4, 3), (3, 0, 2), (0, 3, 3)):
        a = scipy.sparse.random_array(shape[:2], density=0.4, rng=rng, format="csr")
        b = scipy.sparse.random_array(shape[1:], density=0.4, rng=rng, format="csr")
        product = SparseProduct(SparsityPattern.from_scipy(a), SparsityPattern.from_scipy(b))
        values = torch.from_numpy(a.data), torch.from_numpy(b.data)
        for given in (values, tuple(v.clone().requires_grad_() for v in values)):
            dense = np.zeros((shape[0], shape[2]))
            pattern = product.pattern
            dense[pattern.rows, pattern.cols] = product(*given).detach()
            np.testing.assert_allclose(dense, (a @ b).toarray())


def test_a_normal_matrix_without_entries() -> None:
    empty = SparsityPattern.from_scipy(np.zeros((3, 2), dtype=bool))
    normal = NormalMatrix(empty, None)
    assert normal.pattern.shape == (2, 2)
    assert normal.values(torch.zeros(0), None).shape == (0,)
