"""The builders of cotangents: their numbers, their dtypes, and every refusal."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import pullback as pb
from pullback import cotangents

OUT = torch.arange(6.0, dtype=torch.float64).reshape(2, 3).requires_grad_() * 1

BUILT: dict[str, Callable[[Tensor], Tensor]] = {
    "ones": cotangents.ones,
    "random": cotangents.random,
    "one_hot": lambda out: cotangents.one_hot(out, (0,) * out.ndim),
    "rows": lambda out: cotangents.rows(out, {0: 1.0}),
    "mask": lambda out: cotangents.mask(out, out.real > 0),
    "normalized": lambda out: cotangents.normalized(out + 1),
    "basis": cotangents.basis,
}


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.complex64])
def test_every_builder_keeps_dtype_and_shape_and_makes_no_graph(
    name: str, dtype: torch.dtype
) -> None:
    out = OUT.to(dtype)
    built = BUILT[name](out)
    assert (built.dtype, built.device, built.requires_grad) == (dtype, out.device, False)
    assert built.shape == ((6, 2, 3) if name == "basis" else (2, 3))


def test_ones_and_random_take_a_pytree_of_outputs() -> None:
    built = cotangents.ones({"a": OUT, "b": (OUT[0],)})
    assert_close(built, {"a": torch.ones(2, 3).double(), "b": (torch.ones(3).double(),)})
    assert cotangents.random([OUT, OUT[0]])[1].shape == (3,)


def test_random_is_standard_normal_and_repeats_with_its_generator() -> None:
    out = torch.zeros(100, 100)
    first = cotangents.random(out, torch.Generator().manual_seed(0))
    assert torch.equal(first, cotangents.random(out, torch.Generator().manual_seed(0)))
    assert abs(float(first.mean())) < 0.05
    assert abs(float(first.std()) - 1) < 0.05
    torch.manual_seed(1)
    drawn = cotangents.random(out)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.randn(100, 100))


@pytest.mark.parametrize("index", [(0, 0), (1, 2), (-1, -3)])
def test_one_hot_picks_a_row_of_the_jacobian(index: tuple[int, int]) -> None:
    x = OUT.detach()
    _, pull = pb.vjp(torch.square, x)
    expected = torch.zeros(2, 3).double()
    expected[index] = 2 * x[index]
    assert_close(pull(cotangents.one_hot(x, index))[0], expected)


def test_one_hot_of_one_axis_and_of_none() -> None:
    assert_close(cotangents.one_hot(torch.zeros(3), -1), torch.tensor([0.0, 0.0, 1.0]))
    assert_close(cotangents.one_hot(torch.zeros(()), ()), torch.tensor(1.0))


def test_rows_take_numbers_and_tensors() -> None:
    built = cotangents.rows(OUT, {0: 0.5, -1: torch.tensor([1.0, 2.0, 3.0])})
    assert_close(built, torch.tensor([[0.5, 0.5, 0.5], [1.0, 2.0, 3.0]]).double())
    assert_close(cotangents.rows(torch.zeros(2), {1: torch.tensor(4.0)}), torch.tensor([0.0, 4.0]))
    assert_close(cotangents.rows(OUT, {}), torch.zeros(2, 3).double())


def test_mask_is_the_gradient_of_the_chosen_sum() -> None:
    x = OUT.detach().requires_grad_()
    y = x**2
    chosen = y > 4
    (expected,) = torch.autograd.grad(y[chosen].sum(), x, retain_graph=True)
    (found,) = torch.autograd.grad(y, x, cotangents.mask(y, chosen))
    assert_close(found, expected)


def test_normalized_weights_add_up_to_one() -> None:
    assert_close(cotangents.normalized(OUT).sum(), torch.tensor(1.0).double())
    assert_close(cotangents.normalized(torch.tensor([2.0, -1.0])), torch.tensor([2.0, -1.0]))


def test_a_batch_with_the_basis_is_the_jacobian() -> None:
    x = OUT.detach()
    _, pull = pb.vjp(torch.square, x)
    rows = pull.batched(cotangents.basis(x))[0]
    assert_close(rows.reshape(2, 3, 2, 3), torch.func.jacrev(torch.square)(x))
    assert cotangents.basis(torch.zeros(0, 2)).shape == (0, 0, 2)


def refuses(kind: type[Exception], text: str, call: Callable[[], object]) -> None:
    with pytest.raises(kind, match=f"^{re.escape(text)}$"):
        call()


@pytest.mark.parametrize("name", BUILT)
def test_every_builder_refuses_integers(name: str) -> None:
    argument = "v" if name == "normalized" else "out"
    refuses(
        pb.ArgumentError,
        f"cotangents.{name}: `{argument}` has dtype int64, and only floating point and complex "
        f"tensors have cotangents. Convert it with .float() or .double().",
        lambda: BUILT[name](torch.arange(6).reshape(2, 3)),
    )


@pytest.mark.parametrize("name", ["one_hot", "rows", "mask", "normalized", "basis"])
@pytest.mark.parametrize(
    ("outputs", "kind"), [((OUT,), "a tuple"), ([OUT], "a list"), ({"a": OUT}, "a dict")]
)
def test_builders_that_address_entries_refuse_a_pytree(name: str, outputs: Any, kind: str) -> None:
    argument = "v" if name == "normalized" else "out"
    second: dict[str, Any] = {"one_hot": 0, "rows": {0: 1.0}, "mask": OUT > 0}
    arguments = [outputs, *([second[name]] if name in second else [])]
    refuses(
        pb.TreeError,
        f"cotangents.{name}: `{argument}` is {kind}, not a tensor. Build one cotangent per output "
        f"and put them into {kind} like the outputs.",
        lambda: getattr(cotangents, name)(*arguments),
    )


def test_refusals_of_what_is_no_output() -> None:
    refuses(
        pb.TreeError,
        "cotangents.basis: `out` is a float, not a tensor. Pass the output itself.",
        lambda: cotangents.basis(2.0),  # type: ignore[arg-type]
    )
    refuses(
        pb.TreeError,
        "cotangents.ones: `out[1]` is a float, not a tensor. Pass a tensor, or a tuple, list or "
        "dict of tensors.",
        lambda: cotangents.ones((OUT, 2.0)),
    )


def test_refusals_of_an_index() -> None:
    more = "Use cotangents.rows or cotangents.mask to weigh more than one entry."
    index: Any
    for index, text in (
        (
            0,
            "`index` has 1 number, but `out` has 2 axes (shape (2, 3)); an entry is named by one "
            f"number per axis. {more}",
        ),
        (
            (0, 0, 0),
            "`index` has 3 numbers, but `out` has 2 axes (shape (2, 3)); an entry is named by one "
            f"number per axis. {more}",
        ),
        (
            (0, 3),
            "`index` is 3 at axis 1, but `out` has shape (2, 3). Use a number from -3 to 2 there.",
        ),
        (
            (-3, 0),
            "`index` is -3 at axis 0, but `out` has shape (2, 3). Use a number from -2 to 1 there.",
        ),
        (
            (slice(None), 0),
            "`index` holds slice(None, None, None) at axis 0; it must be a whole number. " + more,
        ),
    ):
        refuses(
            pb.ArgumentError,
            f"cotangents.one_hot: {text}",
            lambda index=index: cotangents.one_hot(OUT, index),
        )
    refuses(
        pb.ArgumentError,
        "cotangents.one_hot: `index` is 0 at axis 0, but `out` has shape (0,). Axis 0 is empty: "
        "there is no entry to name.",
        lambda: cotangents.one_hot(torch.zeros(0), 0),
    )


def test_refusals_of_rows() -> None:
    weights: Any
    for weights, text in (
        ([1.0], "`weights` is a list, not a mapping. Write {row: weight}, such as {0: 1.0}."),
        ({"a": 1.0}, "`weights` names row 'a'; a row is named by a whole number."),
        (
            {2: 1.0},
            "`weights` names row 2, but `out` has shape (2, 3). Use a number from -2 to 1 there.",
        ),
        ({1: 1.0, -1: 2.0}, "`weights` names one row as 1 and as -1. Give their sum once."),
        (
            {0: torch.ones(2)},
            "the weight of row 0 has shape (2,), but a row of `out` has shape (3,). Give one "
            "weight per entry of the row, or a number for all of it.",
        ),
    ):
        refuses(
            pb.ArgumentError,
            f"cotangents.rows: {text}",
            lambda weights=weights: cotangents.rows(OUT, weights),
        )
    refuses(
        pb.ArgumentError,
        "cotangents.rows: `out` has shape (), so it has no rows. Use cotangents.ones(out) and "
        "scale it.",
        lambda: cotangents.rows(torch.tensor(1.0), {0: 1.0}),
    )


def test_refusals_of_a_mask() -> None:
    chosen: Any
    for chosen, text in (
        (
            torch.ones(2, 3),
            "`chosen` has dtype float32; it must be a boolean tensor. Write a comparison, such as "
            "out > 0, or chosen.bool().",
        ),
        (
            [True],
            "`chosen` is a list; it must be a boolean tensor. Write a comparison, such as out > 0, "
            "or chosen.bool().",
        ),
        (
            torch.ones(3, 2) > 0,
            "`chosen` has shape (3, 2), but `out` has shape (2, 3); the two are paired entry by "
            "entry. They differ at axis 0 (3 against 2) and axis 1 (2 against 3). Write chosen.t() "
            "if its rows are the columns of `out`, or chosen.reshape((2, 3)) if its entries are "
            "already in C order.",
        ),
    ):
        refuses(
            pb.ArgumentError,
            f"cotangents.mask: {text}",
            lambda chosen=chosen: cotangents.mask(OUT, chosen),
        )


@pytest.mark.parametrize(
    ("weights", "total"), [([1.0, -1.0], "0.0"), ([1.0, float("inf")], "inf"), ([], "0.0")]
)
def test_refusals_of_weights_that_cannot_be_scaled(weights: list[float], total: str) -> None:
    refuses(
        pb.ArgumentError,
        f"cotangents.normalized: the weights of `v` add up to {total}, and cannot be scaled to add "
        f"up to 1. Divide by v.abs().sum() or v.norm() if the size of v is what matters.",
        lambda: cotangents.normalized(torch.tensor(weights)),
    )
