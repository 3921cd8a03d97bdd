"""``pb.jacobian_of``: tensors that have a graph already."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import pullback as pb

D = torch.float64


def leaf(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape) + len(shape))
    return torch.rand(shape, dtype=D, generator=generator).requires_grad_()


def by_rows(outputs: Any, inputs: Any) -> Tensor:
    """The (m, n) matrix, a backward per element."""
    leaves = pytree.tree_leaves(inputs)
    rows = []
    for out in pytree.tree_leaves(outputs):
        for k in range(out.numel()):
            grads = torch.autograd.grad(
                out.reshape(-1)[k], leaves, retain_graph=True, materialize_grads=True
            ) if out.requires_grad else [torch.zeros_like(t) for t in leaves]  # fmt: skip
            rows.append(torch.cat([g.reshape(-1) for g in grads]))
    return torch.stack(rows)


def right(outputs: Any, inputs: Any) -> None:
    expected = by_rows(outputs, inputs)
    for layout in (None, torch.sparse_csr, torch.sparse_coo):
        torch.testing.assert_close(pb.jacobian_of(outputs, inputs, layout).to_dense(), expected)
    found = pb.jacobian_of(outputs, inputs, "scipy").toarray()
    torch.testing.assert_close(torch.from_numpy(found), expected)


def test_one_output_and_one_input() -> None:
    x = leaf(6)
    right((x[1:] - x[:-1]) ** 2, x)


def test_numbers() -> None:
    x = leaf()
    right(x.sin(), x)
    y = leaf(4)
    right(y.prod(), y)


def test_several_outputs_and_inputs() -> None:
    a, b = leaf(3, 2), leaf(2)
    right({"p": a * b, "q": [b.exp(), a.sum()]}, (a, {"b": b}))


def test_an_input_that_is_no_leaf() -> None:
    x = leaf(5)
    y = x.sin()
    z = y * y.roll(1)
    right(z, y)
    right((z, y), (y,))
    right(z * x, (x, y))


def test_an_output_that_is_an_input() -> None:
    x = leaf(3)
    right(x, x)


def test_parameters_of_a_module() -> None:
    net = nn.Linear(3, 2).double()
    right(net(leaf(4, 3).detach()), list(net.parameters()))


def test_strided_is_the_structure_of_jacrev() -> None:
    a, b = leaf(3, 2), leaf(2)
    func = lambda p: {"p": p[0] * p[1]["b"], "q": (p[1]["b"].exp(),)}  # noqa: E731
    inputs = (a, {"b": b})
    found = pb.jacobian_of(func(inputs), inputs, torch.strided)
    expected = torch.func.jacrev(func)(inputs)
    assert pytree.tree_structure(found) == pytree.tree_structure(expected)
    torch.testing.assert_close(found, expected)


def test_an_input_that_is_not_reached_gives_zero_columns() -> None:
    x, y = leaf(3), leaf(2)
    found = pb.jacobian_of(x * 2, (x, y))
    assert found.shape == (3, 5)
    assert found._nnz() == 3
    torch.testing.assert_close(
        found.to_dense(), torch.cat([2 * torch.eye(3), torch.zeros(3, 2)], 1).to(D)
    )


def test_an_output_without_a_graph_beside_others_gives_zero_rows() -> None:
    x = leaf(3)
    found = pb.jacobian_of((x.sin(), torch.ones(2, dtype=D)), x)
    assert found.shape == (5, 3)
    torch.testing.assert_close(
        found.to_dense(), torch.cat([torch.diag(x.detach().cos()), torch.zeros(2, 3).to(D)])
    )


def test_the_pattern_is_sparse_and_the_products_few() -> None:
    x = leaf(200)
    passes = []
    y = x * 1
    y.register_hook(lambda g: passes.append(1))
    found = pb.jacobian_of((y[1:] - y[:-1]) ** 2, x)
    assert found._nnz() == 398
    # Some to find the pattern, two for its colors: far fewer than the 199 rows.
    assert len(passes) < 12


def test_the_graph_is_kept() -> None:
    x = leaf(4)
    y = x.exp() * x
    first = pb.jacobian_of(y, x)
    torch.testing.assert_close(pb.jacobian_of(y, x).to_dense(), first.to_dense())
    y.sum().backward()
    assert x.grad is not None


def test_grad_is_not_touched() -> None:
    x = leaf(4)
    y = x.exp()
    x.grad = torch.full_like(x, 7)
    held = x.grad
    pb.jacobian_of(y, x)
    assert x.grad is held
    assert torch.equal(held, torch.full_like(held, 7))


def test_accumulating_parameters_elsewhere_are_not_touched() -> None:
    weight, x = leaf(3), leaf(3)
    pb.jacobian_of(weight * x, x)
    assert weight.grad is None
    assert x.grad is None


def test_hooks_count_as_they_behave() -> None:
    x = leaf(3)
    y = x * 2
    y.register_hook(lambda g: 10 * g)
    right(y * 1, x)
    torch.testing.assert_close(pb.jacobian_of(y * 1, x).to_dense(), 20 * torch.eye(3, dtype=D))


def test_a_custom_function_counts_as_it_behaves() -> None:
    class Round(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.round()

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return g

    x = leaf(3)
    torch.testing.assert_close(pb.jacobian_of(Round.apply(x), x).to_dense(), torch.eye(3, dtype=D))


def test_it_is_the_jacobian_of_this_very_point() -> None:
    """Values computed from the input choose the branch and the places: this graph holds one of each."""
    x = leaf(6)
    y = x[x.argsort()] if float(x.detach().sum()) > 0 else x
    right(y * y[0], x)
    z = x * 1
    z[x > 0.5] = 0
    right(z, x)


def test_in_place_after_the_fact_is_autograds_error() -> None:
    x = leaf(3)
    y = x.exp()
    z = y * 2
    y.add_(1)
    w = y * y
    y.mul_(2)
    with pytest.raises(RuntimeError):
        pb.jacobian_of((z, w), x)


def test_chunks_change_nothing() -> None:
    x = leaf(8)
    y = x.cumsum(0).sin()
    expected = by_rows(y, x)
    for chunk in (1, 3, None):
        torch.testing.assert_close(pb.jacobian_of(y, x, chunk_size=chunk).to_dense(), expected)


def test_the_generator_is_left_alone() -> None:
    x = leaf(4)
    y = x.sin()
    before = torch.get_rng_state()
    pb.jacobian_of(y, x)
    assert torch.equal(torch.get_rng_state(), before)


X = leaf(3)
REFUSED: dict[str, tuple[Any, Any, type[Exception], str]] = {
    "no graph": (torch.ones(3), X, pb.GraphError, "jacobian_of: "),
    "an input in no graph": (X.sin(), torch.ones(3), pb.PullbackError, "jacobian_of: "),
    "an output that is no tensor": (3.0, X, pb.TreeError, "jacobian_of: "),
    "an input that is no tensor": (X.sin(), [X, 2], pb.TreeError, "jacobian_of: "),
    "complex": (torch.complex(X, X), X, pb.UnsupportedError, "jacobian_of: `"),
    "integers": (X.sin(), torch.arange(3), pb.PullbackError, "jacobian_of: "),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_begin_with_the_caller(name: str) -> None:
    outputs, inputs, kind, start = REFUSED[name]
    with pytest.raises(kind, match="^" + re.escape(start)):
        pb.jacobian_of(outputs, inputs)


def test_options_are_refused() -> None:
    with pytest.raises(pb.ArgumentError) as caught:
        pb.jacobian_of(X.sin(), X, "csr")
    assert str(caught.value) == (
        "jacobian_of: `layout` is 'csr'; it must be torch.strided, torch.sparse_csr, "
        "torch.sparse_coo or 'scipy'."
    )
    with pytest.raises(pb.ArgumentError, match=r"^jacobian_of: `chunk_size` is 0; "):
        pb.jacobian_of(X.sin(), X, chunk_size=0)


def test_a_freed_graph_is_refused() -> None:
    x = leaf(3)
    y = x.exp()
    y.sum().backward()
    with pytest.raises(RuntimeError):
        pb.jacobian_of(y, x)


def test_a_backward_that_is_not_linear_is_refused() -> None:
    x = leaf(3)
    y = x * 2
    y.register_hook(lambda g: g.clamp(-0.1, 0.1))
    with pytest.raises(pb.UnsupportedError, match=r"^jacobian_of: the backward is not linear"):
        pb.jacobian_of(y * 1, x)


def test_a_tensor_that_retains_its_gradient_keeps_the_one_it_has() -> None:
    x = torch.randn(5, requires_grad=True)
    hidden = x.sin()
    hidden.retain_grad()
    y = hidden * x
    pb.jacobian_of(y, x)
    assert hidden.grad is None
    y.sum().backward(retain_graph=True)
    assert hidden.grad is not None
    before = hidden.grad.clone()
    pb.jacobian_of(y, x)
    assert torch.equal(hidden.grad, before)
