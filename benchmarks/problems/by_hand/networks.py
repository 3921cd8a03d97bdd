"""Hand-written Jacobians of layers and of elementwise functions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Places = NDArray[np.int64]
Values = Callable[[Tensor], Tensor]


def persample_mlp(x: Tensor, first: Tensor, second: Tensor) -> tuple[Places, Places, Values]:
    (batch, inputs), outputs = x.shape, second.shape[1]
    shape = (batch, outputs, inputs)
    rows = np.broadcast_to(np.arange(batch * outputs).reshape(batch, outputs, 1), shape)
    cols = np.broadcast_to(np.arange(batch * inputs).reshape(batch, 1, inputs), shape)
    # d y_o / d x_i = Σ_h (1 - t_h²) second_ho first_ih: one product with all pairs (o, i).
    pairs = (second[:, :, None] * first.t()[:, None, :]).reshape(len(second), -1)

    def values(x: Tensor) -> Tensor:
        bent = (x @ first).tanh()
        return ((1 - bent * bent) @ pairs).view(-1)

    return rows, cols, values


def mlp(x: Tensor, first: Tensor, second: Tensor) -> tuple[Places, Places, Values]:
    rows, cols = np.indices((second.shape[1], len(first)))

    def values(x: Tensor) -> Tensor:
        bent = (x @ first).tanh()
        return ((second.t() * (1 - bent * bent)) @ first.t()).view(-1)

    return rows, cols, values


def transpose(x: Tensor) -> tuple[Places, Places, Values]:
    cols = np.arange(x.numel()).reshape(x.shape).T

    def values(x: Tensor) -> Tensor:
        return (2 * x + 2).t().reshape(-1)

    return np.arange(x.numel()), cols, values


def conv_tanh(x: Tensor, kernel: Tensor, pad: Tensor) -> tuple[Places, Places, Values]:
    """The matrix of the convolution, made beforehand, its rows times the slopes of tanh."""
    out, channels, height, width = kernel.shape
    padding = int(pad)
    around = ((0, 0), (padding, padding), (padding, padding))
    ids = np.pad(np.arange(x.numel()).reshape(x.shape[1:]), around, constant_values=-1)
    windows = np.lib.stride_tricks.sliding_window_view(ids, (height, width), (1, 2))
    patch = windows.transpose(1, 2, 0, 3, 4).reshape(-1, channels * height * width)
    cols = np.broadcast_to(patch, (out, *patch.shape)).reshape(-1)
    rows = np.repeat(np.arange(out * len(patch)), patch.shape[1])
    weights = np.repeat(kernel.reshape(out, 1, -1).numpy(), len(patch), 1).reshape(-1)
    inside = cols >= 0
    row, weight = torch.from_numpy(rows[inside]), torch.from_numpy(weights[inside])

    def values(x: Tensor) -> Tensor:
        bent = torch.conv2d(x, kernel, padding=padding).tanh().view(-1)
        return (1 - bent * bent)[row] * weight

    return rows[inside], cols[inside], values
