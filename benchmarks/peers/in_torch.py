"""The problems as torch functions of one tensor."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .problems import Problem, arrays

Func = Callable[[Tensor], Tensor]


def build(problem: Problem) -> tuple[Func, Tensor]:
    """The function of a problem and its argument."""
    constants = {name: torch.from_numpy(array) for name, array in arrays(problem).items()}
    x = constants.pop("x")
    return BUILDERS[problem.kind](**constants), x


def _brusselator() -> Func:
    def rate(x: Tensor) -> Tensor:
        u, v = x
        beside = x.roll(1, 1) + x.roll(-1, 1) + x.roll(1, 2) + x.roll(-1, 2)
        reaction = torch.stack([1 + u**2 * v - 4.4 * u, 3.4 * u - u**2 * v])
        return reaction + 0.02 * x.shape[-1] ** 2 * (beside - 4 * x)

    return rate


def _conv(kernel: Tensor, pad: Tensor) -> Func:
    padding = int(pad)
    return lambda x: torch.conv2d(x, kernel, padding=padding).tanh()


def _mlp(first: Tensor, second: Tensor) -> Func:
    return lambda x: (x @ first).tanh() @ second


def _elementwise() -> Func:
    return lambda x: (x + 1).pow(2).t()


def _views(cameras: Tensor, camera_of: Tensor, point_of: Tensor, seen: Tensor) -> Func:
    split = 9 * int(cameras)

    def residual(x: Tensor) -> Tensor:
        camera, point = x[:split].view(-1, 9)[camera_of], x[split:].view(-1, 3)[point_of]
        turned = point + torch.linalg.cross(camera[:, :3], point) + camera[:, 3:6]
        flat = turned[:, :2] / turned[:, 2:]
        square = (flat**2).sum(1, keepdim=True)
        bent = flat * (1 + camera[:, 7:8] * square + camera[:, 8:9] * square**2)
        scaled: Tensor = camera[:, 6:7] * bent
        return scaled - seen

    return residual


BUILDERS: dict[str, Callable[..., Func]] = {
    "brusselator": _brusselator,
    "conv": _conv,
    "mlp": _mlp,
    "elementwise": _elementwise,
    "views": _views,
}
