"""The problems as torch functions of one tensor; those with a Hessian return one number."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from torch.nn.functional import pad as padded

from .catalogue import Problem
from .numbers import arrays

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


def _burgers() -> Func:
    def rate(u: Tensor) -> Tensor:
        around = padded(u, (1, 1))
        left, right = around[:-2], around[2:]
        return 0.1 * (left - 2 * u + right) - u * (right - left) / 2

    return rate


def _heat() -> Func:
    def rate(u: Tensor) -> Tensor:
        around = padded(u, (1, 1, 1, 1))
        down, across = around[:, 1:-1], around[1:-1]
        south = _flow(down[1:], down[:-1])
        east = _flow(across[:, 1:], across[:, :-1])
        return south[1:] - south[:-1] + east[:, 1:] - east[:, :-1]

    return rate


def _flow(here: Tensor, before: Tensor) -> Tensor:
    middle = (here + before) / 2
    return (1 + middle**2) * (here - before)


def _shallow_water() -> Func:
    def along(x: Tensor, dim: int) -> Tensor:
        return (x.roll(-1, dim) - x.roll(1, dim)) / 2

    def rate(x: Tensor) -> Tensor:
        h, u, v = x
        return torch.stack(
            [
                -along(h * u, 0) - along(h * v, 1),
                -u * along(u, 0) - v * along(u, 1) - 9.81 * along(h, 0),
                -u * along(v, 0) - v * along(v, 1) - 9.81 * along(h, 1),
            ]
        )

    return rate


def _conv_tanh(kernel: Tensor, pad: Tensor) -> Func:
    padding = int(pad)
    return lambda x: torch.conv2d(x, kernel, padding=padding).tanh()


def _conv_relu_conv(first: Tensor, second: Tensor) -> Func:
    return lambda x: torch.conv2d(torch.conv2d(x, first, padding=1).relu(), second, padding=1)


def _mlp(first: Tensor, second: Tensor) -> Func:
    return lambda x: (x @ first).tanh() @ second


def _transpose() -> Func:
    return lambda x: (x + 1).pow(2).t()


def _gather_scatter(tail: Tensor, head: Tensor, weight: Tensor) -> Func:
    def residual(x: Tensor) -> Tensor:
        flow = weight * (x[head] - x[tail]).tanh()
        return (x**3).index_add(0, tail, flow).index_add(0, head, -flow)

    return residual


def _attention(query: Tensor, key: Tensor, value: Tensor, later: Tensor) -> Func:
    def attend(x: Tensor) -> Tensor:
        scores = (x @ query) @ (x @ key).t() / query.shape[1] ** 0.5
        attended: Tensor = scores.masked_fill(later, float("-inf")).softmax(1) @ (x @ value)
        return attended

    return attend


def _fem_p1(triangles: Tensor, stiffness: Tensor) -> Func:
    corners = triangles.reshape(-1)

    def residual(u: Tensor) -> Tensor:
        local = u[triangles]
        coefficient = 1 + local.mean(1, keepdim=True) ** 2
        force = coefficient * (stiffness @ local.unsqueeze(2)).squeeze(2)
        return torch.zeros_like(u).index_add(0, corners, force.reshape(-1))

    return residual


def _springs3d(tail: Tensor, head: Tensor, rest: Tensor) -> Func:
    def force(x: Tensor) -> Tensor:
        apart = x[head] - x[tail]
        length = (apart**2).sum(1).sqrt()
        pull = (1 - rest / length).unsqueeze(1) * apart
        return torch.zeros_like(x).index_add(0, tail, pull).index_add(0, head, -pull)

    return force


def _bundle(
    camera_of: Tensor, point_of: Tensor, cameras: Tensor, points: Tensor, seen: Tensor
) -> Func:
    end_of_cameras = 11 * int(cameras)
    end_of_points = end_of_cameras + 3 * int(points)

    def residual(x: Tensor) -> Tensor:
        camera = x[:end_of_cameras].view(-1, 11)[camera_of]
        point = x[end_of_cameras:end_of_points].view(-1, 3)[point_of]
        weight = x[end_of_points:]
        turned = _turned(camera[:, :3], point - camera[:, 3:6])
        flat = turned[:, :2] / turned[:, 2:]
        square = (flat**2).sum(1, keepdim=True)
        bent = flat * (1 + camera[:, 9:10] * square + camera[:, 10:11] * square**2)
        place = camera[:, 6:7] * bent + camera[:, 7:9]
        off = weight.unsqueeze(1) * (place - seen)
        return torch.cat([off.reshape(-1), 1 - weight**2])

    return residual


def _turned(rotation: Tensor, point: Tensor) -> Tensor:
    """Rodrigues' formula: ``rotation`` is the axis times the angle."""
    angle = (rotation**2).sum(1, keepdim=True).sqrt()
    axis = rotation / angle
    along = (axis * point).sum(1, keepdim=True) * (1 - angle.cos())
    crossed: Tensor = torch.linalg.cross(axis, point)
    return point * angle.cos() + crossed * angle.sin() + axis * along


def _squares(build: Callable[..., Func]) -> Callable[..., Func]:
    """The sum of the squares of another problem's outputs."""

    def squared(**constants: Tensor) -> Func:
        func = build(**constants)
        return lambda x: func(x).square().sum()

    return squared


def _rosenbrock() -> Func:
    return lambda x: (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def _arrowhead() -> Func:
    return lambda x: ((x[:-1] ** 2 + x[-1] ** 2) ** 2 - 4 * x[:-1]).sum()


def _band_quartic() -> Func:
    def energy(x: Tensor) -> Tensor:
        window = x[:-4] + x[1:-3] + x[2:-2] + x[3:-1] + x[4:]
        return (window**4).sum()

    return energy


def _broyden() -> Func:
    def residual(x: Tensor) -> Tensor:
        around = padded(x, (1, 1))
        return (3 - 2 * x) * x - around[:-2] - 2 * around[2:] + 1

    return residual


def _minimal_surface() -> Func:
    """The area over every cell, by its two diagonals."""

    def area(u: Tensor) -> Tensor:
        along = u[1:, 1:] - u[:-1, :-1]
        across = u[1:, :-1] - u[:-1, 1:]
        return (1 + (along**2 + across**2) / 2).sqrt().sum()

    return area


def _graph_quartic(first: Tensor, second: Tensor, third: Tensor, weight: Tensor) -> Func:
    return lambda x: (weight * (x[first] * x[second] - x[third]) ** 2).sum()


def _spring_energy(tail: Tensor, head: Tensor, rest: Tensor) -> Func:
    def energy(x: Tensor) -> Tensor:
        length = ((x[head] - x[tail]) ** 2).sum(1).sqrt()
        return ((length - rest) ** 2).sum() / 2

    return energy


def _logsumexp_rows(mix: Tensor) -> Func:
    return lambda x: (x @ mix).logsumexp(1).sum()


def _logistic(signed: Tensor) -> Func:
    """Logistic regression: the loss, and a quadratic term that keeps the weights small."""
    return lambda x: (x**2).sum() / 2 - logsigmoid(signed @ x).sum()


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
