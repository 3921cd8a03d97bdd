"""Formulas quoted from torch belong to the node that quotes them."""

from __future__ import annotations

import pytest
import torch

from pullback.backward.formulas import formulas_of


@pytest.mark.parametrize(
    ("func", "formula"),
    [
        (torch.sqrt, "self: grad / (2 * result.conj())"),
        (torch.sin, "self: grad * self.cos().conj()"),
        (torch.t, "self: grad.t()"),
        (lambda x: x**2, "self: pow_backward(grad, self, exponent)"),
        (lambda x: x.sum(), "self: grad.expand_symint(self.sym_sizes())"),
        (lambda x: x.sum(0), "self: sum_backward(grad, self.sym_sizes(), dim, keepdim)"),
        (lambda x: x.max(), "self: evenly_distribute_backward(grad, self, result)"),
        (lambda x: x.tanh(), "self: tanh_backward(grad, result)"),
        (lambda x: x.relu(), "self: threshold_backward(grad, result, 0)"),
        (lambda x: x[0], "self: select_backward_symint(grad, self.sym_sizes(), dim, index)"),
        (lambda x: x.mm(x), "mat2: mm_mat2_backward(grad, self, mat2.sym_sizes(), "
                            "mat2.sym_strides(), mat2.layout(), 1)"),
        (lambda x: x.unbind()[0], "self: unbind_backward(grads, dim)"),
    ],
)  # fmt: skip
def test_live_nodes_find_their_formula(func: object, formula: str) -> None:
    node = func(torch.rand(3, 3, requires_grad=True)).grad_fn  # type: ignore[operator]
    assert formula in formulas_of(node.name())


@pytest.mark.parametrize(
    "name",
    ["AccumulateGrad", "CopySlices", "MyFunctionBackward", "NoSuchBackward0", "SinBackward7"],
)
def test_no_formula_is_invented(name: str) -> None:
    assert formulas_of(name) == ()


def test_most_of_torchs_table_is_read() -> None:
    from pullback.backward.formulas import _entries

    assert len(_entries()) > 450
