"""Builders of cotangents: which weighted sum of an output's entries is differentiated.

A cotangent has the shape of its output, one weight per entry; the VJP with it is the gradient of
the weighted sum. Every builder takes the output (for ``normalized``, a cotangent) and returns a
new tensor of its dtype, on its device, without a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from . import _checks
from ._trees import Tree, map_leaves


def ones(out: Tree) -> Tree:
    """Weight 1 everywhere: the gradient of ``out.sum()``. A pytree of outputs gives a pytree.

    Raises:
        ArgumentError: ``out`` has an integer or boolean dtype.

    >>> import torch, pullback as pb
    >>> pb.cotangents.ones(torch.zeros(2, 3))
    tensor([[1., 1., 1.],
            [1., 1., 1.]])
    """
    return _leaf_by_leaf("ones", out, torch.ones_like)


def random(out: Tree, generator: torch.Generator | None = None) -> Tree:
    """Independent standard normal weights: with them ``<v, J t>`` probes all of J at once.

    ``generator`` must be on the device of ``out``; None draws from torch's global state. A pytree
    of outputs gives a pytree.

    Raises:
        ArgumentError: ``out`` has an integer or boolean dtype.

    >>> import torch, pullback as pb
    >>> v = pb.cotangents.random(torch.zeros(2, 3), torch.Generator().manual_seed(0))
    >>> v.shape
    torch.Size([2, 3])
    """

    def draw(t: Tensor) -> Tensor:
        return torch.empty_like(t, requires_grad=False).normal_(generator=generator)

    return _leaf_by_leaf("random", out, draw)


def one_hot(out: Tensor, index: int | tuple[int, ...]) -> Tensor:
    """Weight 1 at one entry: the gradient of ``out[index]``, a row of the Jacobian.

    ``index`` has one number per axis of ``out``, negative ones counted from the end; a bare
    number does for one axis, ``()`` for none.

    Raises:
        ArgumentError: the index does not name an entry, or ``out`` has an integer dtype.
        TreeError: ``out`` is not a tensor.

    >>> import torch, pullback as pb
    >>> pb.cotangents.one_hot(torch.zeros(2, 3), (0, -1))
    tensor([[0., 0., 1.],
            [0., 0., 0.]])
    """
    like = _single("one_hot", out)
    place = index if isinstance(index, tuple) else (index,)
    _checks.entry("cotangents.one_hot", like, place)
    cotangent = torch.zeros_like(like)
    cotangent[place] = 1
    return cotangent


def rows(out: Tensor, weights: Mapping[int, float | Tensor]) -> Tensor:
    """Weights along axis 0, zero elsewhere: as in ``{0: 1.0, 2: 0.5}``.

    A weight is a number for the whole row, or a tensor of the row's shape, ``out.shape[1:]``.
    Row numbers may be negative.

    Raises:
        ArgumentError: ``out`` has no axis 0 or an integer dtype; a row does not exist or is named
            twice; a weight has another shape than a row.
        TreeError: ``out`` is not a tensor.

    >>> import torch, pullback as pb
    >>> pb.cotangents.rows(torch.zeros(3, 2), {0: 1.0, -1: torch.tensor([2.0, 3.0])})
    tensor([[1., 1.],
            [0., 0.],
            [2., 3.]])
    """
    like = _single("rows", out)
    _checks.rows_of("cotangents.rows", like, weights)
    cotangent = torch.zeros_like(like)
    for row, weight in weights.items():
        cotangent[row] = weight.detach() if isinstance(weight, Tensor) else weight
    return cotangent


def mask(out: Tensor, chosen: Tensor) -> Tensor:
    """Weight 1 where ``chosen`` is True: the gradient of ``out[chosen].sum()``.

    ``chosen`` is a boolean tensor of the shape of ``out``.

    Raises:
        ArgumentError: ``chosen`` has another shape, dtype or device, or ``out`` an integer dtype.
        TreeError: ``out`` is not a tensor.

    >>> import torch, pullback as pb
    >>> out = torch.tensor([[1.0, -2.0], [-3.0, 4.0]])
    >>> pb.cotangents.mask(out, out > 0)
    tensor([[1., 0.],
            [0., 1.]])
    """
    like = _single("mask", out)
    _checks.boolean_mask("cotangents.mask", like, chosen)
    return torch.zeros_like(like).masked_fill_(chosen, 1)


def normalized(v: Tensor) -> Tensor:
    """``v / v.sum()``: the weights of a weighted mean, which add up to 1.

    Raises:
        ArgumentError: the sum is zero or not finite, or ``v`` has an integer dtype.
        TreeError: ``v`` is not a tensor.

    >>> import torch, pullback as pb
    >>> pb.cotangents.normalized(torch.tensor([1.0, 3.0]))
    tensor([0.2500, 0.7500])
    """
    weights = _single("normalized", v, "v")
    total = weights.sum()
    _checks.usable_sum("cotangents.normalized", total)
    return weights / total


def basis(out: Tensor) -> Tensor:
    """Every one-hot cotangent of ``out`` in C order: shape ``(out.numel(), *out.shape)``.

    ``pull.batched(basis(out))`` is the Jacobian, one row per entry of the output.

    Raises:
        ArgumentError: ``out`` has an integer or boolean dtype.
        TreeError: ``out`` is not a tensor.

    >>> import torch, pullback as pb
    >>> pb.cotangents.basis(torch.zeros(2, 1))
    tensor([[[1.],
             [0.]],
    <BLANKLINE>
            [[0.],
             [1.]]])
    """
    like = _single("basis", out)
    n = like.numel()
    return torch.eye(n, dtype=like.dtype, device=like.device).reshape(n, *like.shape)


def _single(builder: str, out: Tree, argument: str = "out") -> Tensor:
    like = _checks.one_tensor(f"cotangents.{builder}", argument, out)
    return like.detach()


def _leaf_by_leaf(builder: str, out: Tree, build: Callable[[Tensor], Tensor]) -> Tree:
    _checks.cotangent_targets(f"cotangents.{builder}", "out", out)
    return map_leaves(lambda t: build(t.detach()), out)
