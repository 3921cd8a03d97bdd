"""Interpolation, sampling and padding, against the operators on a basis."""

from __future__ import annotations

import functools

import pytest
import torch

from pullback.sparse.rules import resampling
from pullback.sparse.rules.base import RULES

from .harness import check, rule_of

A = torch.ops.aten
SIZES = [
    ((4,), (8,)),
    ((5,), (3,)),
    ((4,), (4,)),
    ((1,), (5,)),
    ((6,), (1,)),
    ((3,), (7,)),
    ((3, 4), (6, 4)),
    ((3, 2), (3, 5)),
    ((3, 4), (3, 4)),
    ((2, 3, 2), (3, 6, 1)),
]
NAMES = {
    1: ["nearest1d", "_nearest_exact1d", "linear1d"],
    2: [
        "nearest2d",
        "_nearest_exact2d",
        "bilinear2d",
        "bicubic2d",
        "_bilinear2d_aa",
        "_bicubic2d_aa",
        "_lanczos2d_aa",
    ],
    3: ["nearest3d", "_nearest_exact3d", "trilinear3d"],
}
CASES = [(name, before, after) for before, after in SIZES for name in NAMES[len(before)]]


def normal(*shapes: tuple[int, ...]):
    return lambda: [torch.randn(s, dtype=torch.float64) for s in shapes]


def operators(name: str):
    forward = f"{'_' * name.startswith('_')}upsample_{name.lstrip('_')}"
    return getattr(A, forward).default, getattr(A, f"{forward}_backward").default


def corners_of(name: str) -> list[list[bool]]:
    return [[]] if "nearest" in name else [[False], [True]]


def test_every_interpolation_of_torch_is_known() -> None:
    known = {n for n in torch._C._dispatch_get_all_op_names() if "upsample" in n and "." not in n}
    assert {n.removeprefix("aten::") for n in known} <= RULES.keys()
    assert len(known) == 2 * sum(map(len, NAMES.values()))


@pytest.mark.parametrize("given", [None, 1.3])
@pytest.mark.parametrize(("name", "before", "after"), CASES)
def test_interpolation(name: str, before, after, given: float | None) -> None:
    forward, backward = operators(name)
    exact = "cubic" not in name and "lanczos" not in name
    # A scale that reaches past the input leaves windows empty there, and torch's antialiasing
    # weighs what it did not fill: now zero, now not.
    exact = exact and not (given and name.endswith("_aa"))
    for corners in corners_of(name):
        options = [list(after), *corners, *[given] * len(before)]
        there = functools.partial(run_forward, forward, options)
        back = functools.partial(run_backward, backward, options, [1, 2, *before])
        check(there, [(1, 2, *before)], exact=exact, draws=1)
        check(back, [(1, 2, *after)], exact=exact, draws=1)


def run_forward(operator, options, v):
    return operator(v, *options)


def run_backward(operator, options, shape, v):
    return operator(v, options[0], shape, *options[1:])


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("nearest2d", torch.float32),
        ("nearest2d", torch.bfloat16),
        ("bilinear2d", torch.float32),
        ("bilinear2d", torch.bfloat16),
        ("bicubic2d", torch.float32),
        ("_bilinear2d_aa", torch.float32),
    ],
)
def test_rounding_of_the_weights_is_that_of_the_tensor(name: str, dtype: torch.dtype) -> None:
    forward, backward = operators(name)
    for corners in corners_of(name):
        for size, large in ((9, 27), (10, 7), (6, 41)):
            options = [[3, large], *corners, None, None]
            there = functools.partial(run_forward, forward, options)
            back = functools.partial(run_backward, backward, options, [1, 1, 2, size])
            check(there, [torch.zeros(1, 1, 2, size, dtype=dtype)], exact=False, draws=1)
            check(back, [torch.zeros(1, 1, 3, large, dtype=dtype)], exact=False, draws=1)


def test_a_basis_cut_in_parts_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    _, backward = operators("bilinear2d")

    def run():
        sizes = [5, 7], [1, 1, 3, 4]
        return rule_of(lambda v: backward(v, *sizes, False, None, None), [torch.randn(1, 1, 5, 7)])

    whole = run().matrix
    monkeypatch.setattr(resampling, "_BASIS_AT_MOST", 1)
    assert (run().matrix == whole).all()


@pytest.mark.parametrize("kind", ["reflection", "replication"])
@pytest.mark.parametrize("pads", [(2, 1), (0, 2, 1, 1), (1, 0, 2, 1, 1, 1)])
def test_padding(kind: str, pads: tuple[int, ...]) -> None:
    axes = len(pads) // 2
    shape = (1, 2, *(3, 4, 3)[:axes])
    pad = getattr(A, f"{kind}_pad{axes}d").default
    backward = getattr(A, f"{kind}_pad{axes}d_backward").default
    padded = tuple(pad(torch.zeros(shape), list(pads)).shape)
    check(lambda v: pad(v, list(pads)), [shape])
    check(lambda v, x: backward(v, x, list(pads)), [padded], normal(shape))
    check(lambda v, x: backward(v, x, list(pads)), [padded[1:]], normal(shape[1:]))


def test_padding_with_less_than_nothing() -> None:
    check(lambda v, x: A.replication_pad1d_backward(v, x, [-1, 2]), [(1, 5)], normal((1, 4)))


@pytest.mark.parametrize(
    "options", [[[2, 2], [1, 1], [0, 0], [1, 1]], [[3, 2], [1, 2], [1, 2], [2, 1]]]
)
@pytest.mark.parametrize("batch", [(), (2,)])
def test_folding_windows_up(options, batch: tuple[int, ...]) -> None:
    size = [5, 4]
    columns = A.im2col(torch.zeros(*batch, 2, *size), *options)
    check(lambda v: A.col2im(v, size, *options), [tuple(columns.shape)])


@pytest.mark.parametrize("mode", [0, 1])
@pytest.mark.parametrize("axes", [2, 3])
def test_sampling(axes: int, mode: int) -> None:
    shape, places = (2, 2, *(3, 2, 2)[:axes]), (2, *(2, 3, 1)[:axes])
    name = f"grid_sampler_{axes}d"
    forward, backward = getattr(A, name).default, getattr(A, f"{name}_backward").default

    def others():
        return [torch.randn(shape).double(), torch.rand(*places, axes).double() * 2 - 1]

    check(
        lambda v, x, grid: backward(v, x, grid, mode, 0, False, [True, True]),
        [(2, 2, *places[1:])],
        others,
        exact=mode == 0,
        draws=80,
    )
    check(
        lambda v, x, grid: backward(v, x, grid, mode, 1, True, [False, True])[1],
        [(2, 2, *places[1:])],
        others,
        exact=mode == 0,
        draws=6,
    )
    check(
        lambda v, x, grid: forward(v, grid, mode, 0, False),
        [shape],
        others,
        exact=mode == 0,
        draws=80,
    )
    check(
        lambda v, back, grid: backward(back, v, grid, mode, 0, False, [False, True])[1],
        [shape],
        lambda: [torch.randn(2, 2, *places[1:], dtype=torch.float64), others()[1]],
        exact=False,
        draws=20,
    )
