"""Parts of a Jacobian: what they are, what they cost, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import pullback as pb
from tests.parts.functions import Func, arrow, banded, counted, rand

W = rand(12, 12, seed=7)
mlp = nn.Sequential(nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 8)).double()


def scan(x: Tensor) -> Tensor:
    """A full triangle, and a corner."""
    return (x.roll(1) * x).cumsum(0)


FUNCTIONS: dict[str, tuple[Func, tuple[int, ...]]] = {
    "diagonal": (torch.sin, (12,)),
    "tridiagonal": (lambda x: x.roll(1) * x * x.roll(-1), (12,)),
    "banded": (banded(3), (20,)),
    "arrow": (arrow, (15,)),
    "softmax": (lambda x: x.softmax(0), (9,)),
    "matrix": (lambda x: W @ x.sin(), (12,)),
    "scan": (scan, (12,)),
    "tall": (lambda x: torch.cat([x, x * x.roll(1), x.sum()[None]]), (6,)),
    "wide": (lambda x: x[1:4] * x[-3:], (11,)),
    "images": (lambda x: x.square().flip(2) + x[:, :1], (2, 3, 4)),
    "no graph": (lambda x: torch.ones(3, 2, dtype=x.dtype), (4,)),
    "no rows": (lambda x: x[:0], (4,)),
    "no columns": (lambda x: torch.cat([x, torch.ones(2, dtype=x.dtype)]), (0,)),
    "network": (mlp, (5, 16)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_parts_are_those_of_the_dense_matrix(name: str) -> None:
    func, shape = FUNCTIONS[name]
    x = rand(*shape)
    J = pb.JacobianOperator(func, x)
    m, n = J.shape
    dense = torch.func.jacrev(func)(x).reshape(m, n) if m and n else x.new_zeros(m, n)
    odd = range(1, m, 2), range(1, n, 2)
    for ours, expected in (
        (J.diagonal(max_products=1000), dense.diagonal()),
        (J.trace(max_products=1000), dense.diagonal().sum()),
        (J.row_sums(), dense.sum(1)),
        (J.rows(range(m)), dense),
        (J.rows(odd[0]), dense[1::2]),
        (J.columns(range(n)), dense),
        (J.columns(odd[1]), dense[:, 1::2]),
        (J.rows([]), dense[:0]),
        (J.columns([]), dense[:, :0]),
    ):
        assert_close(ours, expected)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_blocks_by_number_are_cut_from_the_dense_matrix(name: str, count: int) -> None:
    func, shape = FUNCTIONS[name]
    J = pb.JacobianOperator(func, rand(*shape))
    m, n = J.shape
    if m % count or n % count:
        with pytest.raises(pb.ArgumentError, match="cannot be cut into that many blocks"):
            J.block_diagonal(count)
        return
    cut = J.to_dense().reshape(count, m // count, count, n // count)
    expected = torch.stack([cut[b, :, b] for b in range(count)])
    assert_close(J.block_diagonal(count, max_products=1000), expected)


@pytest.mark.parametrize("seed", range(40))
def test_parts_of_random_structures(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    m, n = (int(k) for k in torch.randint(1, 30, (2,), generator=draw))
    density = float(torch.rand((), generator=draw)) * 0.4
    mask = torch.rand(m, n, generator=draw) < density
    if seed % 4 == 0:
        mask[0], mask[:, 0] = True, True
    rows, cols = mask.nonzero(as_tuple=True)
    weight = rand(len(rows), seed=seed)

    def func(x: Tensor) -> Tensor:
        return torch.zeros(m, dtype=x.dtype).index_add(0, rows, weight * x[cols].sin())

    x = rand(n, seed=seed)
    J = pb.JacobianOperator(func, x)
    dense = torch.zeros(m, n, dtype=x.dtype)
    dense[rows, cols] = weight * x[cols].cos()
    some = torch.randint(-m, m, (5,), generator=draw), torch.randint(-n, n, (5,), generator=draw)
    for ours, expected in (
        (J.diagonal(max_products=99), dense.diagonal()),
        (J.rows(some[0]), dense[some[0]]),
        (J.columns(some[1]), dense[:, some[1]]),
        (J.rows(range(m)), dense),
    ):
        assert_close(ours, expected)
    for count in range(2, 6):
        if m % count == n % count == 0:
            cut = dense.reshape(count, m // count, count, n // count)
            blocks = torch.stack([cut[b, :, b] for b in range(count)])
            assert_close(J.block_diagonal(count, max_products=99), blocks)


@pytest.mark.parametrize(
    ("func", "n", "products"),
    [
        (torch.sin, 50, 1),
        (lambda x: x.roll(1) + x, 50, 2),
        (lambda x: x[0] * x, 50, 2),
        (lambda x: x.roll(1) * x * x.roll(-1), 50, 2),
        (lambda x: x.roll(1) * x * x.roll(-1), 51, 3),  # a ring of odd length
        (banded(1), 60, 2),
        (banded(2), 60, 3),
        (banded(5), 60, 6),
        (arrow, 60, 2),
        (lambda x: x.flip(0), 50, 2),
        (lambda x: x[1:], 50, 0),
    ],
)
def test_the_diagonal_takes_what_theory_says(func: Func, n: int, products: int) -> None:
    x = rand(n)
    J = pb.JacobianOperator(func, x)
    diagonal = torch.autograd.functional.jacobian(func, x).diagonal()
    if not diagonal.any() and products:
        products = 0  # an entry that is not in the pattern takes none
    assert J.cost_of("diagonal").products == J.cost_of("trace").products == products
    assert counted(J, J.diagonal) == products
    assert_close(J.diagonal(), diagonal)


def test_a_grid_of_five_points_has_a_diagonal_of_two_products() -> None:
    def laplace(u: Tensor) -> Tensor:
        wide = torch.nn.functional.pad(u, (1, 1, 1, 1))
        return wide[2:, 1:-1] + wide[:-2, 1:-1] + wide[1:-1, 2:] + wide[1:-1, :-2] - u**3

    J = pb.JacobianOperator(laplace, rand(12, 17))
    assert J.cost_of("diagonal").products == 2
    assert_close(J.diagonal(), -3 * rand(12, 17).reshape(-1) ** 2)


def test_rows_and_columns_take_no_more_products_than_they_are() -> None:
    J = pb.JacobianOperator(banded(2), rand(60))
    assert J.cost_of("rows", [7]).products == 1
    assert J.cost_of("rows", [0, 10, 20, 30]).products == 1
    assert J.cost_of("rows", [10, 11, 12]).products == 3
    assert J.cost_of("columns", range(60)).products == 5
    assert counted(J, lambda: J.rows([10, 11, 12])) == 3
    full = pb.JacobianOperator(lambda x: x.softmax(0), rand(30))
    for indices in ([3], [3, 4], range(5)):
        assert full.cost_of("rows", indices).products == len(indices)
        assert full.cost_of("columns", indices).products == len(indices)
        assert counted(full, lambda indices=indices: full.columns(indices)) == len(indices)
    assert full.cost_of("row_sums").products == 1


def test_products_are_as_many_backward_passes() -> None:
    passes = 0

    def note(grad: Tensor) -> None:
        nonlocal passes
        batched = torch._C._functorch.is_batchedtensor(grad)
        passes += len(torch._C._functorch.get_unwrapped(grad)) if batched else 1

    def func(x: Tensor) -> Tensor:
        out = x.roll(1) * x * x.roll(-1)
        out.register_hook(note)
        return out

    J = pb.JacobianOperator(func, rand(50))
    for part, needed in (
        (J.diagonal, 2),
        (lambda: J.rows([0, 4, 8]), 1),
        (lambda: J.rows([0, 1]), 2),
    ):
        part()  # the first of all looks at the structure, and tries a batch out
        passes = 0
        part()
        assert passes == needed


def test_a_mixture_reads_an_arrow() -> None:
    J = pb.JacobianOperator(arrow, rand(60))
    cost = J.cost_of("rows", range(60))
    assert (cost.products, cost.whole) == (3, 60)
    assert counted(J, lambda: J.rows(range(60))) == 3


def test_indices_repeat_and_count_from_the_end() -> None:
    J = pb.JacobianOperator(banded(1), rand(8))
    dense = J.to_dense()
    assert_close(J.rows([-1, 2, 2, 0]), dense[[-1, 2, 2, 0]])
    assert_close(J.columns(torch.tensor([-1, 2, 2, 0])), dense[:, [-1, 2, 2, 0]])


def test_a_lift_gives_what_no_coloring_can() -> None:
    for func in (lambda x: W @ x.sin(), lambda x: x.square().cumsum(0)):
        x = rand(12)
        J = pb.JacobianOperator(func, x)
        cost = J.cost_of("diagonal")
        assert cost.products == 1
        assert cost.reason == "1 VJP of the part that varies; 12 without lifting"
        assert_close(J.diagonal(), torch.autograd.functional.jacobian(func, x).diagonal())


def test_a_lift_is_left_where_derivatives_of_the_part_are_wanted() -> None:
    x = rand(12).requires_grad_()
    J = pb.JacobianOperator(lambda x: W @ x.sin(), x)
    with pytest.raises(pb.UnsupportedError, match="it needs 12 products"):
        J.diagonal()
    with torch.no_grad():
        assert J.cost_of("diagonal").products == 1
        plain = J.diagonal()
    found = J.diagonal(max_products=12)
    assert_close(found.detach(), plain)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    assert_close(gradient, -W.diagonal() * x.detach().sin())


def test_a_lift_is_left_where_the_point_has_moved_on() -> None:
    x = rand(12)
    scale = torch.ones(12, dtype=torch.float64)
    J = pb.JacobianOperator(lambda x: W @ (x.sin() * scale), x)
    expected = J.to_dense().diagonal()
    assert J.cost_of("diagonal").products == 1
    x.add_(1)
    assert J.cost_of("diagonal").products == 12
    x = rand(12)
    J = pb.JacobianOperator(lambda x: W @ (x.sin() * scale), x)
    scale = 2 * scale  # another tensor in the closure than the one that the operator saw
    assert J.cost_of("diagonal").products == 12
    assert_close(J.diagonal(max_products=12), expected)


def test_a_lift_is_left_where_the_function_draws() -> None:
    J = pb.JacobianOperator(lambda x: W @ (x.sin() * torch.rand(12, dtype=x.dtype)), rand(12))
    dense = J.to_dense()
    assert J.cost_of("diagonal").products == 12
    assert_close(J.diagonal(max_products=12), dense.diagonal())


def test_pytrees_and_argnums() -> None:
    params = {"w": rand(3, 3), "b": rand(3, seed=1)}

    def func(p: dict[str, Tensor], x: Tensor, name: str) -> dict[str, Tensor]:
        return {"y": p["b"] * x, name: p["w"].sin()}

    J = pb.JacobianOperator(func, params, rand(3, seed=2), "z", argnums=(1, 0))
    dense = J.to_dense()
    assert dense.shape == (12, 15)
    assert_close(J.diagonal(), dense.diagonal())
    assert_close(J.rows([0, 5, 11]), dense[[0, 5, 11]])
    assert_close(J.columns([0, 5, 14]), dense[:, [0, 5, 14]])
    assert_close(J.row_sums(), dense.sum(1))


def test_parts_have_the_dtype_of_the_matrix() -> None:
    for dtype in (torch.float32, torch.float64):
        J = pb.JacobianOperator(torch.sin, rand(4).to(dtype))
        for part in (J.diagonal(), J.rows([0]), J.columns([0]), J.trace(), J.row_sums()):
            assert part.dtype is dtype


def test_parts_are_differentiable() -> None:
    x = rand(6).requires_grad_()
    J = pb.JacobianOperator(lambda x: x**3 + x.roll(1), x)
    for part, power in ((J.diagonal, 1), (J.rows, 1)):
        found = part(range(6)) if part == J.rows else part()  # type: ignore[call-arg]
        (gradient,) = torch.autograd.grad(found.sum(), x)
        assert_close(gradient, 6 * x.detach() ** power)


def test_a_function_that_hides_from_double_backward_has_no_products_forward() -> None:
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x**2

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return 2 * ctx.saved_tensors[0].detach() * grad.detach()

    J = pb.JacobianOperator(Square.apply, rand(5))
    assert J.engine == "none"
    assert_close(J.diagonal(), 2 * rand(5))
    assert_close(J.columns([1, 3]), torch.diag(2 * rand(5))[:, [1, 3]])
    assert J.cost_of("columns", [1, 3]).products == 1
    with pytest.raises(pb.UnsupportedError, match="torch can push this tangent"):
        J.row_sums()


class Reads(torch.autograd.Function):
    """Its backward reads its cotangent, so that nothing is known of its structure."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        assert grad.sum().item() < 1e9
        return 2 * grad


def test_what_cannot_be_looked_into_is_priced_as_dense() -> None:
    J = pb.JacobianOperator(Reads.apply, rand(4))
    assert J.cost_of("diagonal").products == 4
    with pytest.raises(pb.UnsupportedError, match="the structure of the matrix is not known"):
        J.diagonal()
    assert_close(J.diagonal(max_products=4), torch.full((4,), 2.0, dtype=torch.float64))


def refuses(kind: type[Exception], text: str, call: Callable[[], object]) -> None:
    with pytest.raises(kind, match=f"^{re.escape(text)}$"):
        call()


def test_the_price_is_in_the_refusal_and_can_be_paid() -> None:
    J = pb.JacobianOperator(lambda x: x.softmax(0), rand(40))
    line = test_the_price_is_in_the_refusal_and_can_be_paid.__code__.co_firstlineno + 1
    why = (
        f"every entry of a row may be nonzero, first made dense by the backward of "
        f"_softmax_backward_data in SoftmaxBackward0 at test_parts.py:{line}"
    )
    for part, instead in (
        ("diagonal", "or estimate it: the mean of v * (J @ v) over a few v of random signs"),
        ("trace", "or estimate it: the mean of v * (J @ v) over a few v of random signs"),
    ):
        refuses(
            pb.UnsupportedError,
            f"JacobianOperator.{part}: it needs 40 products, as many as the whole matrix: {why}. "
            f"Pay for them with max_products=40; {instead}.",
            getattr(J, part),
        )
    refuses(
        pb.UnsupportedError,
        f"JacobianOperator.block_diagonal: it needs 40 products, as many as the whole matrix: "
        f"{why}. Pay for them with max_products=40; or take some of it, J.rows(indices).",
        lambda: J.block_diagonal(8),
    )
    refuses(
        pb.UnsupportedError,
        f"JacobianOperator.rows: it needs 3 products, more than max_products=2: {why}. Pay for "
        f"them with max_products=3; or ask for fewer at a time.",
        lambda: J.rows([1, 2, 3], max_products=2),
    )
    assert_close(J.diagonal(max_products=40), J.to_dense().diagonal())
    assert_close(J.rows([1, 2, 3], max_products=3), J.to_dense()[1:4])
    assert_close(J.block_diagonal(1)[0], J.to_dense())  # one block is the matrix itself
    with pytest.raises(pb.UnsupportedError, match="more than max_products=0"):
        J.row_sums(max_products=0)


def test_a_matrix_of_one_product_is_never_refused() -> None:
    J = pb.JacobianOperator(lambda x: x.sum()[None], rand(5))
    assert_close(J.diagonal(), torch.ones(1, dtype=torch.float64))


def test_refusals_of_arguments() -> None:
    J = pb.JacobianOperator(torch.sin, rand(4))
    numbers = "`indices` must be a list, a range or a 1-D tensor of whole numbers: {} numbers"
    for call, text in (
        (
            lambda: J.rows([4]),
            "JacobianOperator.rows: `indices` asks for row 4, but the matrix has 4 rows. Count "
            "from 0, or from -1 at the end.",
        ),
        (
            lambda: J.columns([-5]),
            "JacobianOperator.columns: `indices` asks for column -5, but the matrix has 4 columns. "
            "Count from 0, or from -1 at the end.",
        ),
        (
            lambda: J.rows(2),  # type: ignore[arg-type]
            f"JacobianOperator.rows: `indices` is an int; {numbers.format('row')}.",
        ),
        (
            lambda: J.rows(torch.tensor([True, False])),
            f"JacobianOperator.rows: `indices` has shape (2,) and dtype bool; "
            f"{numbers.format('row')}.",
        ),
        (
            lambda: J.diagonal(max_products=1.5),  # type: ignore[arg-type]
            "JacobianOperator.diagonal: `max_products` is 1.5; it must be a whole number of "
            "products, or None for what the structure gives cheaper than the whole matrix.",
        ),
        (
            lambda: J.block_diagonal(3),
            "JacobianOperator.block_diagonal: `blocks` is 3, and the matrix has shape (4, 4), "
            "which cannot be cut into that many blocks of one shape. Both sides must be multiples "
            "of it.",
        ),
        (
            lambda: J.block_diagonal(0),
            "JacobianOperator.block_diagonal: `blocks` is 0; it must be a number of blocks, or "
            "None for one per sample of a batch.",
        ),
        (
            lambda: J.cost_of("everything"),
            "JacobianOperator.cost_of: `part` is 'everything'; it must be 'row_sums' or 'rows' or "
            "'columns' or 'diagonal' or 'trace' or 'block_diagonal'.",
        ),
    ):
        refuses(pb.ArgumentError, text, call)
    with pytest.raises(pb.UnsupportedError, match="the matrix is real"):
        pb.JacobianOperator(lambda x: x * 1j, rand(4))


def test_looking_leaves_no_trace() -> None:
    norm = nn.BatchNorm1d(3).double()
    x = rand(6, 3)
    J = pb.JacobianOperator(norm, x)
    state = {name: t.clone() for name, t in norm.state_dict().items()}
    draws = torch.get_rng_state()
    with pytest.raises(pb.UnsupportedError):
        J.block_diagonal()
    J.diagonal(max_products=100)
    assert_close(dict(norm.state_dict()), state)
    assert torch.equal(draws, torch.get_rng_state())
    assert all(p.grad is None for p in norm.parameters())
