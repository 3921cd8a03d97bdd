"""The problems as JAX functions of one array. Imported in the peer's process only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .problems import Problem, arrays

Func = Callable[[Any], Any]


def build(problem: Problem) -> tuple[Func, Any]:
    """The function of a problem and its argument."""
    constants = arrays(problem)
    x = jnp.asarray(constants.pop("x"))
    return BUILDERS[problem.kind](**constants), x


def _brusselator() -> Func:
    def rate(x: Any) -> Any:
        u, v = x
        beside = jnp.roll(x, 1, 1) + jnp.roll(x, -1, 1) + jnp.roll(x, 1, 2) + jnp.roll(x, -1, 2)
        reaction = jnp.stack([1 + u**2 * v - 4.4 * u, 3.4 * u - u**2 * v])
        return reaction + 0.02 * x.shape[-1] ** 2 * (beside - 4 * x)

    return rate


def _conv(kernel: Any, pad: Any) -> Func:
    padding = [(int(pad), int(pad))] * 2
    weight = jnp.asarray(kernel)
    return lambda x: jnp.tanh(jax.lax.conv_general_dilated(x, weight, (1, 1), padding))


def _mlp(first: Any, second: Any) -> Func:
    first, second = jnp.asarray(first), jnp.asarray(second)
    return lambda x: jnp.tanh(x @ first) @ second


def _elementwise() -> Func:
    return lambda x: ((x + 1) ** 2).T


def _views(cameras: Any, camera_of: Any, point_of: Any, seen: Any) -> Func:
    split = 9 * int(cameras)
    # NumPy arrays stay constants of the trace, which the detection can read.
    camera_of, point_of = np.asarray(camera_of), np.asarray(point_of)

    def residual(x: Any) -> Any:
        camera, point = x[:split].reshape(-1, 9)[camera_of], x[split:].reshape(-1, 3)[point_of]
        turned = point + jnp.cross(camera[:, :3], point) + camera[:, 3:6]
        flat = turned[:, :2] / turned[:, 2:]
        square = (flat**2).sum(1, keepdims=True)
        bent = flat * (1 + camera[:, 7:8] * square + camera[:, 8:9] * square**2)
        return camera[:, 6:7] * bent - seen

    return residual


BUILDERS: dict[str, Callable[..., Func]] = {
    "brusselator": _brusselator,
    "conv": _conv,
    "mlp": _mlp,
    "elementwise": _elementwise,
    "views": _views,
}
