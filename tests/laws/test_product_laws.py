"""Laws of ``vjp``, ``jvp`` and ``JacobianOperator`` over every function in ``functions.py``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils import _pytree as pytree

import pullback as pb

from .functions import CASES, Case

every_function = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def like(tree: Any, seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return pytree.tree_map(
        lambda t: torch.empty_like(t, requires_grad=False).normal_(generator=generator), tree
    )


def flat(tree: Any) -> Tensor:
    return torch.cat([t.detach().reshape(-1) for t in pytree.tree_leaves(tree)])


def combined(a: float, left: Any, b: float, right: Any) -> Any:
    return pytree.tree_map(lambda s, t: a * s + b * t, left, right)


@every_function
def test_the_value_is_what_the_function_returns(case: Case) -> None:
    primals = case.make()
    expected = case.func(*primals)
    assert_close(pb.vjp(case.func, *primals)[0], expected)
    assert_close(pb.jvp(case.func, primals, primals)[0], expected)


@every_function
def test_a_pullback_is_linear(case: Case) -> None:
    out, pull = pb.vjp(case.func, *case.make())
    v, w = like(out, 1), like(out, 2)
    together = pull(combined(2.0, v, -3.0, w))
    assert_close(flat(together), flat(combined(2.0, pull(v), -3.0, pull(w))))


@every_function
def test_a_jvp_is_linear(case: Case) -> None:
    primals = case.make()
    s, t = like(primals, 1), like(primals, 2)
    _, together = pb.jvp(case.func, primals, combined(2.0, s, -3.0, t))
    parts = [pb.jvp(case.func, primals, tangents)[1] for tangents in (s, t)]
    assert_close(flat(together), flat(combined(2.0, parts[0], -3.0, parts[1])))


@every_function
def test_jvp_and_vjp_are_transposes(case: Case) -> None:
    primals = case.make()
    out, pull = pb.vjp(case.func, *primals)
    v, t = like(out, 1), like(primals, 2)
    _, pushed = pb.jvp(case.func, primals, t)
    assert_close(flat(v) @ flat(pushed), flat(pull(v)) @ flat(t))


@every_function
def test_the_chain_rule_holds(case: Case) -> None:
    def after(*primals: Tensor) -> Any:
        return pytree.tree_map(lambda t: t.sin() * 2, case.func(*primals))

    primals = case.make()
    out, pull = pb.vjp(case.func, *primals)
    v = like(out, 1)
    inner = pytree.tree_map(lambda weight, t: 2 * t.cos() * weight, v, out)
    assert_close(flat(pb.vjp(after, *primals)[1](v)), flat(pull(inner)))


@every_function
def test_a_batch_is_its_products_one_by_one(case: Case) -> None:
    out, pull = pb.vjp(case.func, *case.make())
    vs = [like(out, seed) for seed in range(3)]
    batch = pytree.tree_map(lambda *leaves: torch.stack(leaves), *vs)
    for chunk_size in (None, 2):
        together = pull.batched(batch, chunk_size=chunk_size)
        singles = [pull(v) for v in vs]
        for k, gradient in enumerate(together):
            assert_close(gradient, torch.stack([single[k] for single in singles]))


@pytest.mark.parametrize("case", [c for c in CASES if c.torch_vjp], ids=lambda case: case.name)
def test_vjp_equals_torch_func(case: Case) -> None:
    primals = case.make()
    ours, pull = pb.vjp(case.func, *primals)
    theirs, torch_pull = torch.func.vjp(case.func, *primals)
    assert_close(ours, theirs)
    assert flags(ours) == flags(theirs)
    v = like(theirs, 1)
    assert_close(pull(v), torch_pull(v))
    assert flags(pull(v)) == flags(torch_pull(v))


@pytest.mark.parametrize("case", [c for c in CASES if c.torch_jvp], ids=lambda case: case.name)
def test_jvp_equals_torch_func(case: Case) -> None:
    primals = case.make()
    t = like(primals, 1)
    ours, theirs = pb.jvp(case.func, primals, t), torch.func.jvp(case.func, primals, t)
    assert_close(ours, theirs)
    assert flags(ours) == flags(theirs)


def flags(tree: Any) -> list[tuple[bool, torch.dtype, torch.Size]]:
    return [(t.requires_grad, t.dtype, t.shape) for t in pytree.tree_leaves(tree)]


@every_function
def test_the_operator_is_the_matrix_of_the_products(case: Case) -> None:
    primals = case.make()
    J = pb.JacobianOperator(case.func, *primals, argnums=tuple(range(len(primals))))
    dense = J.to_dense()
    assert dense.shape == J.shape
    t, v = flat(like(primals, 1)), flat(like(pb.vjp(case.func, *primals)[0], 2))
    assert_close(J @ t, dense @ t)
    assert_close(v @ J, v @ dense)
    assert_close(J.T @ v, dense.T @ v)
    assert_close(J.T.to_dense(), dense.T)
    assert_close(J @ torch.stack((t, -t), 1), dense @ torch.stack((t, -t), 1))
    assert_close(torch.stack((v, -v)) @ J, torch.stack((v, -v)) @ dense)
    assert_close(pb.jvp(case.func, primals, like(primals, 1))[1], _unflat(case, primals, J @ t))


def _unflat(case: Case, primals: tuple[Any, ...], vector: Tensor) -> Any:
    out = case.func(*primals)
    leaves = pytree.tree_leaves(out)
    pieces = vector.split([leaf.numel() for leaf in leaves])
    shaped = [piece.reshape(leaf.shape) for piece, leaf in zip(pieces, leaves, strict=True)]
    return pytree.tree_unflatten(shaped, pytree.tree_structure(out))
