"""Gradients of losses and embeddings: item by item."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from .harness import check

aten = torch.ops.aten
F64 = torch.float64


@pytest.mark.parametrize("reduction", [0, 1, 2])
@pytest.mark.parametrize("guarded", [[], [1]])
@pytest.mark.parametrize("shape", [(4, 3), (3,), (2, 3, 2, 2)])
def test_nll(reduction: int, guarded: list[int], shape: tuple[int, ...]) -> None:
    items = tuple(s for d, s in enumerate(shape) if d != (1 if len(shape) > 1 else 0))
    torch.manual_seed(0)
    target = torch.randint(3, items)
    loss = aten.nll_loss2d_backward if len(shape) == 4 else aten.nll_loss_backward

    def others() -> list[Tensor]:
        chosen = target if guarded else torch.randint(3, items)
        return [torch.randn(shape, dtype=F64), chosen, torch.rand(()).double() + 1]

    check(
        lambda v, x, t, w: loss(v, x, t, None, reduction, 2, w),
        [items if reduction == 0 else ()],
        others,
        draws=25,
        exact=bool(guarded),
        guarded=guarded,
    )
    loose = check(
        lambda v, x, t, w: loss(v, x, t, None, reduction, -100, w),
        [items if reduction == 0 else ()],
        others,
        draws=25,
        guarded=guarded,
    )
    assert loose.relied == ({"other1"} if guarded else set())


@pytest.mark.parametrize("reduction", [0, 1])
@pytest.mark.parametrize("shape", [(4, 3), (3,)])
def test_margins(reduction: int, shape: tuple[int, ...]) -> None:
    items = shape[:-1]

    def others() -> list[Tensor]:
        return [torch.randn(shape, dtype=F64), torch.randint(3, items)]

    check(
        lambda v, x, t: aten.multi_margin_loss_backward(v, x, t, 1, 1.0, None, reduction),
        [items if reduction == 0 else ()],
        others,
        draws=30,
    )

    def many() -> list[Tensor]:
        target = torch.randint(-1, 3, shape)
        is_target = aten.multilabel_margin_loss_forward(torch.zeros(shape), target, 0)[1]
        return [torch.randn(shape, dtype=F64), target, is_target.double()]

    check(
        lambda v, x, t, a: aten.multilabel_margin_loss_backward(v, x, t, reduction, a),
        [items if reduction == 0 else ()],
        many,
        draws=30,
    )


def test_ctc() -> None:
    lengths = [4, 4], [2, 1]

    def others() -> list[Tensor]:
        return [torch.randn(4, 2, 3, dtype=F64).log_softmax(-1), torch.randint(1, 3, (2, 2))]

    def g(v: Tensor, p: Tensor, t: Tensor) -> Tensor:
        loss, alpha = aten._ctc_loss(p, t, *lengths)
        return aten._ctc_loss_backward(v, p, t, *lengths, loss, alpha, 0)

    check(g, [(2,)], others, draws=10)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_glu(dim: int) -> None:
    shape = [2, 3]
    whole = [2 * s if d == dim % 2 else s for d, s in enumerate(shape)]
    check(
        lambda v, x: aten.glu_backward(v, x, dim),
        [tuple(shape)],
        lambda: [torch.randn(whole, dtype=F64)],
    )


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "prod"])
def test_segments(reduce: str) -> None:
    def others() -> list[Tensor]:
        cut = int(torch.randint(0, 6, ()))
        return [torch.randn(5, 2, dtype=F64), torch.tensor([cut, 5 - cut])]

    def g(v: Tensor, x: Tensor, lengths: Tensor) -> Tensor:
        out = aten.segment_reduce(x, reduce, lengths=lengths, axis=0, initial=0.0)
        return aten._segment_reduce_backward(v, out, x, reduce, lengths=lengths, axis=0)

    check(g, [(2, 2)], others, exact=False, draws=20)


@pytest.mark.parametrize("by_offsets", [False, True])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_fixed_segments(by_offsets: bool, batch: tuple[int, ...]) -> None:
    lengths = torch.tensor([[2, 0, 3], [1, 4, 0]])
    lengths = lengths if batch else lengths[0]
    start = torch.zeros_like(lengths[..., :1])
    offsets = torch.cat([start, lengths.cumsum(-1)], -1)
    given = {"offsets": offsets} if by_offsets else {"lengths": lengths}
    axis = len(batch)

    def g(v: Tensor, x: Tensor) -> Tensor:
        out = aten.segment_reduce(x, "mean", axis=axis, initial=0.0, **given)
        return aten._segment_reduce_backward(v, out, x, "mean", axis=axis, **given)

    check(g, [(*batch, 3, 2)], lambda: [torch.randn(*batch, 5, 2, dtype=F64)])


@pytest.mark.parametrize("by_frequency", [False, True])
@pytest.mark.parametrize("guarded", [[], [0]])
@pytest.mark.parametrize("padding", [-1, 1])
def test_embedding(by_frequency: bool, guarded: list[int], padding: int) -> None:
    torch.manual_seed(0)
    fixed = torch.randint(4, (2, 3))
    check(
        lambda v, i: aten.embedding_dense_backward(v, i, 4, padding, by_frequency),
        [(2, 3, 2)],
        lambda: [fixed if guarded else torch.randint(4, (2, 3))],
        draws=40,
        guarded=guarded,
    )


@pytest.mark.parametrize("mode", [0, 1])
@pytest.mark.parametrize("padding", [-1, 1])
def test_embedding_bags(mode: int, padding: int) -> None:
    def others() -> list[Tensor]:
        return [torch.randn(3, 2, dtype=F64), torch.randint(3, (4,)), torch.tensor([0, 2])]

    def backward(v: Tensor, w: Tensor, i: Tensor, o: Tensor) -> Tensor:
        _, bags, sizes, largest = aten._embedding_bag(
            w, i, o, False, mode, False, None, False, padding
        )
        return aten._embedding_bag_backward(
            v, i, o, bags, sizes, largest, 3, False, mode, False, None, padding
        )

    check(backward, [(2, 2)], others, draws=40)

    def weights(v: Tensor, w: Tensor, i: Tensor, o: Tensor) -> Tensor:
        _, bags, _, _ = aten._embedding_bag(w, i, o, False, 0, False, torch.ones(4).double())
        return aten._embedding_bag_per_sample_weights_backward(v, w, i, o, bags, 0)

    check(weights, [(2, 2)], others, exact=False)
    check(weights, [(2, 2)], others, guarded=[2])


@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize("padding", [-1, 1])
@pytest.mark.parametrize("last", [False, True])
def test_fixed_embedding_bags(mode: int, padding: int, last: bool) -> None:
    offsets = torch.tensor([0, 3, 3, 4] if last else [0, 3, 3])
    indices = torch.tensor([0, 2, 0, 1])

    def g(v: Tensor, w: Tensor) -> Tensor:
        _, bags, sizes, largest = aten._embedding_bag(
            w, indices, offsets, False, mode, False, None, last, padding
        )
        return (
            aten._embedding_bag_dense_backward(
                v, indices, bags, sizes, largest, 3, False, mode, None, padding
            )
            if mode == 2
            else aten._embedding_bag_backward(
                v, indices, offsets, bags, sizes, largest, 3, False, mode, False, None, padding
            )
        )

    check(g, [(3, 2)], lambda: [torch.randn(3, 2, dtype=F64)], exact=mode != 2, draws=20)
