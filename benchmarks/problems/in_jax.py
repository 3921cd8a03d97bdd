"""The problems as JAX functions of one array. Imported in the peer's process only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .catalogue import Problem
from .numbers import arrays

Func = Callable[[Any], Any]


def build(problem: Problem) -> tuple[Func, Any]:
    """The function of a problem and its argument.

    Index arrays stay NumPy's: constants of the trace, which the detection can read.
    """
    constants = {
        name: jnp.asarray(array) if array.dtype.kind == "f" else array
        for name, array in arrays(problem).items()
    }
    x = constants.pop("x")
    return BUILDERS[problem.kind](**constants), x


def _brusselator() -> Func:
    def rate(x: Any) -> Any:
        u, v = x
        beside = jnp.roll(x, 1, 1) + jnp.roll(x, -1, 1) + jnp.roll(x, 1, 2) + jnp.roll(x, -1, 2)
        reaction = jnp.stack([1 + u**2 * v - 4.4 * u, 3.4 * u - u**2 * v])
        return reaction + 0.02 * x.shape[-1] ** 2 * (beside - 4 * x)

    return rate


def _burgers() -> Func:
    def rate(u: Any) -> Any:
        around = jnp.pad(u, 1)
        left, right = around[:-2], around[2:]
        return 0.1 * (left - 2 * u + right) - u * (right - left) / 2

    return rate


def _heat() -> Func:
    def rate(u: Any) -> Any:
        around = jnp.pad(u, 1)
        down, across = around[:, 1:-1], around[1:-1]
        south = _flow(down[1:], down[:-1])
        east = _flow(across[:, 1:], across[:, :-1])
        return south[1:] - south[:-1] + east[:, 1:] - east[:, :-1]

    return rate


def _flow(here: Any, before: Any) -> Any:
    middle = (here + before) / 2
    return (1 + middle**2) * (here - before)


def _shallow_water() -> Func:
    def along(x: Any, axis: int) -> Any:
        return (jnp.roll(x, -1, axis) - jnp.roll(x, 1, axis)) / 2

    def rate(x: Any) -> Any:
        h, u, v = x
        return jnp.stack(
            [
                -along(h * u, 0) - along(h * v, 1),
                -u * along(u, 0) - v * along(u, 1) - 9.81 * along(h, 0),
                -u * along(v, 0) - v * along(v, 1) - 9.81 * along(h, 1),
            ]
        )

    return rate


def _conv(x: Any, kernel: Any, pad: int) -> Any:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), [(pad, pad)] * 2)


def _conv_tanh(kernel: Any, pad: Any) -> Func:
    padding = int(pad)
    return lambda x: jnp.tanh(_conv(x, kernel, padding))


def _conv_relu_conv(first: Any, second: Any) -> Func:
    return lambda x: _conv(jax.nn.relu(_conv(x, first, 1)), second, 1)


def _mlp(first: Any, second: Any) -> Func:
    return lambda x: jnp.tanh(x @ first) @ second


def _transpose() -> Func:
    return lambda x: ((x + 1) ** 2).T


def _gather_scatter(tail: Any, head: Any, weight: Any) -> Func:
    def residual(x: Any) -> Any:
        flow = weight * jnp.tanh(x[head] - x[tail])
        return (x**3).at[tail].add(flow).at[head].add(-flow)

    return residual


def _attention(query: Any, key: Any, value: Any, later: Any) -> Func:
    def attend(x: Any) -> Any:
        scores = (x @ query) @ (x @ key).T / query.shape[1] ** 0.5
        return jax.nn.softmax(jnp.where(later, -jnp.inf, scores), 1) @ (x @ value)

    return attend


def _fem_p1(triangles: Any, stiffness: Any) -> Func:
    corners = triangles.reshape(-1)

    def residual(u: Any) -> Any:
        local = u[triangles]
        coefficient = 1 + local.mean(1, keepdims=True) ** 2
        force = coefficient * (stiffness @ local[:, :, None])[:, :, 0]
        return jnp.zeros_like(u).at[corners].add(force.reshape(-1))

    return residual


def _springs3d(tail: Any, head: Any, rest: Any) -> Func:
    def force(x: Any) -> Any:
        apart = x[head] - x[tail]
        length = jnp.sqrt((apart**2).sum(1))
        pull = (1 - rest / length)[:, None] * apart
        return jnp.zeros_like(x).at[tail].add(pull).at[head].add(-pull)

    return force


def _bundle(camera_of: Any, point_of: Any, cameras: Any, points: Any, seen: Any) -> Func:
    end_of_cameras = 11 * int(cameras)
    end_of_points = end_of_cameras + 3 * int(points)

    def residual(x: Any) -> Any:
        camera = x[:end_of_cameras].reshape(-1, 11)[camera_of]
        point = x[end_of_cameras:end_of_points].reshape(-1, 3)[point_of]
        weight = x[end_of_points:]
        turned = _turned(camera[:, :3], point - camera[:, 3:6])
        flat = turned[:, :2] / turned[:, 2:]
        square = (flat**2).sum(1, keepdims=True)
        bent = flat * (1 + camera[:, 9:10] * square + camera[:, 10:11] * square**2)
        place = camera[:, 6:7] * bent + camera[:, 7:9]
        off = weight[:, None] * (place - seen)
        return jnp.concatenate([off.reshape(-1), 1 - weight**2])

    return residual


def _turned(rotation: Any, point: Any) -> Any:
    """Rodrigues' formula: ``rotation`` is the axis times the angle."""
    angle = jnp.sqrt((rotation**2).sum(1, keepdims=True))
    axis = rotation / angle
    along = (axis * point).sum(1, keepdims=True) * (1 - jnp.cos(angle))
    return point * jnp.cos(angle) + jnp.cross(axis, point) * jnp.sin(angle) + axis * along


def _squares(build: Callable[..., Func]) -> Callable[..., Func]:
    """The sum of the squares of another problem's outputs."""

    def squared(**constants: Any) -> Func:
        func = build(**constants)
        return lambda x: (func(x) ** 2).sum()

    return squared


def _rosenbrock() -> Func:
    return lambda x: (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def _arrowhead() -> Func:
    return lambda x: ((x[:-1] ** 2 + x[-1] ** 2) ** 2 - 4 * x[:-1]).sum()


def _band_quartic() -> Func:
    def energy(x: Any) -> Any:
        window = x[:-4] + x[1:-3] + x[2:-2] + x[3:-1] + x[4:]
        return (window**4).sum()

    return energy


def _broyden() -> Func:
    def residual(x: Any) -> Any:
        around = jnp.pad(x, 1)
        return (3 - 2 * x) * x - around[:-2] - 2 * around[2:] + 1

    return residual


def _minimal_surface() -> Func:
    """The area over every cell, by its two diagonals."""

    def area(u: Any) -> Any:
        along = u[1:, 1:] - u[:-1, :-1]
        across = u[1:, :-1] - u[:-1, 1:]
        return jnp.sqrt(1 + (along**2 + across**2) / 2).sum()

    return area


def _graph_quartic(first: Any, second: Any, third: Any, weight: Any) -> Func:
    return lambda x: (weight * (x[first] * x[second] - x[third]) ** 2).sum()


def _spring_energy(tail: Any, head: Any, rest: Any) -> Func:
    def energy(x: Any) -> Any:
        length = jnp.sqrt(((x[head] - x[tail]) ** 2).sum(1))
        return ((length - rest) ** 2).sum() / 2

    return energy


def _logsumexp_rows(mix: Any) -> Func:
    return lambda x: jax.nn.logsumexp(x @ mix, 1).sum()


def _logistic(signed: Any) -> Func:
    """Logistic regression: the loss, and a quadratic term that keeps the weights small."""
    return lambda x: (x**2).sum() / 2 - jax.nn.log_sigmoid(signed @ x).sum()


BUILDERS: dict[str, Callable[..., Func]] = {
    "brusselator2d": _brusselator,
    "burgers1d": _burgers,
    "heat5": _heat,
    "shallow_water": _shallow_water,
    "conv_tanh": _conv_tanh,
    "conv_relu_conv": _conv_relu_conv,
    "persample_mlp": _mlp,
    "transpose": _transpose,
    "gather_scatter": _gather_scatter,
    "attention": _attention,
    "fem_p1": _fem_p1,
    "springs3d": _springs3d,
    "bundle": _bundle,
    "dense_mlp": _mlp,
    "wide_mlp": _mlp,
    "tall_mlp": _mlp,
    "rosenbrock": _rosenbrock,
    "arrowhead": _arrowhead,
    "band_quartic": _band_quartic,
    "broyden_squares": _squares(_broyden),
    "minimal_surface": _minimal_surface,
    "graph_quartic": _graph_quartic,
    "spring_energy": _spring_energy,
    "logsumexp_rows": _logsumexp_rows,
    "attention_energy": _squares(_attention),
    "mlp_loss": _squares(_mlp),
    "logistic": _logistic,
}
