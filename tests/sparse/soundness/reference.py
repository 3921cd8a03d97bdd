"""What autograd gives, row by row: the truth of this package, in terms of torch alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils import _pytree as pytree

import pullback as pb

CSR = torch.sparse_csr


def matrix_of(
    func: Callable[..., Any],
    *args: Any,
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
) -> Tensor:
    """The Jacobian by one ``torch.autograd.grad`` per output element, after one call of ``func``."""
    given, leaves = list(args), []
    for k in (argnums,) if isinstance(argnums, int) else argnums:
        flat, spec = pytree.tree_flatten(args[k])
        flat = [t.detach().clone().requires_grad_() for t in flat]
        leaves += flat
        given[k] = pytree.tree_unflatten(flat, spec)
    with torch.enable_grad():
        out = func(*given)
        outputs = [as_real(t) for t in pytree.tree_leaves(out[0] if has_aux else out)]
    rows = [row for out in outputs for row in rows_of(out, leaves)]
    width = sum(as_real(leaf).numel() for leaf in leaves)
    return torch.stack(rows) if rows else torch.zeros(0, width)


def rows_of(output: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    rows = []
    for k in range(output.numel()):
        found: Any = (None,) * len(leaves)
        if output.requires_grad:
            v = torch.zeros(output.numel(), dtype=output.dtype)
            v[k] = 1
            found = torch.autograd.grad(
                output, leaves, v.reshape(output.shape), retain_graph=True, allow_unused=True
            )
        pairs = zip(found, leaves, strict=True)
        parts = [as_real(torch.zeros_like(x) if g is None else g) for g, x in pairs]
        rows.append(torch.cat([part.detach().reshape(-1) for part in parts]))
    return rows


def as_real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def whole(matrix: Any) -> Tensor:
    """Any layout of the (m, n) matrix as a dense tensor."""
    if isinstance(matrix, Tensor):
        return matrix.detach().to_dense()
    return torch.from_numpy(matrix.toarray())


def moved(value: Any) -> Any:
    """Another point: every floating point tensor of an argument somewhere else."""

    def other(leaf: Any) -> Any:
        smooth = isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())
        return leaf * 1.3 + 0.11 if smooth else leaf

    return pytree.tree_map(other, value)


def assert_right(
    jac: Any,
    func: Callable[..., Any],
    *args: Any,
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
    close: float = 1e-8,
) -> None:
    """``jac(*args)`` is what autograd gives at this very moment, and draws the same numbers."""
    before = torch.get_rng_state()
    expected = matrix_of(func, *args, argnums=argnums, has_aux=has_aux)
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    found = jac(*args)
    found = whole(found[0] if has_aux else found)
    assert_close(found.to(expected.dtype), expected, rtol=close, atol=close)
    assert torch.equal(torch.get_rng_state(), after), (
        "the generator is not where one forward left it"
    )


def assert_right_everywhere(
    func: Callable[..., Any],
    *args: Any,
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
    close: float = 1e-8,
) -> None:
    """With a plan and without, at the sample and elsewhere, with grad mode on and off."""
    options: Any = {"argnums": argnums, "has_aux": has_aux}
    plan = pb.plan_jacobian(func, *args, **options)
    for jac in (
        pb.jacobian(func, plan=plan, **options),
        pb.jacobian(func, layout=CSR, **options),
    ):
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                for here in (args, tuple(map(moved, args))):
                    assert_right(jac, func, *here, **options, close=close)


def engines(func: Callable[..., Any], *args: Any) -> str:
    """How a call of ``func`` is computed: "replay" of a captured graph, or the "function" itself."""
    jac = pb.jacobian(func, layout=CSR)
    with torch.no_grad():
        jac(*args)
    return jac.engine
