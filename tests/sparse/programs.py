"""Functions whose Jacobian pattern theory gives: a predicate on (output index, input index) each.

No pattern here comes from running a detector: each rule says, from the definition of the function
alone, which outputs read which inputs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

Func: TypeAlias = Callable[..., Any]
Args: TypeAlias = tuple[Any, ...]
Bools: TypeAlias = npt.NDArray[np.bool_]
Places: TypeAlias = Callable[[], Bools]
Draw: TypeAlias = Callable[[torch.Generator], Args]
Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """A function, points to evaluate it at, and what is known of its Jacobian.

    ``pattern`` is what a detector must find exactly. Where a looser pattern will do, it is None;
    then ``inside`` (if known) is the least that must be found and ``nnz_at_most`` the most.
    ``max_products`` bounds a plan that colors J itself, ``lifted_products`` one that colors F.
    ``points`` is how many random points it takes until every place has been nonzero once; 0 where
    the values at hand hide some places for good.
    """

    name: str
    func: Callable[[], Func]
    draw: Draw
    pattern: Places | None
    inside: Places | None = None
    argnums: int | tuple[int, ...] = 0
    has_aux: bool = False
    nnz: int | None = None
    nnz_at_most: int | None = None
    max_products: int | None = None
    lifted_products: int | None = None
    points: int = 3
    notes: str = ""

    def make(self) -> tuple[Func, Args]:
        """The function, built anew, and the point to plan at."""
        return self.func(), self.at(0)

    def other(self) -> Args:
        """Another point, drawn apart from that of ``make``."""
        return self.at(1)

    def at(self, seed: int) -> Args:
        return self.draw(torch.Generator().manual_seed(seed))

    @property
    def truth(self) -> Places | None:
        return self.pattern or self.inside


PROGRAMS: list[Program] = []


def built(name: str, func: Callable[[], Func], draw: Draw, pattern: Places, **known: Any) -> None:
    """Add a program made by a factory: it closes over something of its own."""
    if "nnz_at_most" in known:
        PROGRAMS.append(Program(name, func, draw, None, inside=pattern, **known))
    else:
        PROGRAMS.append(Program(name, func, draw, pattern, **known))


def add(name: str, func: Func, draw: Draw, pattern: Places, **known: Any) -> None:
    built(name, lambda: func, draw, pattern, **known)


def entries(out: Shape, inn: Shape, rule: Callable[[Any, Any], Any]) -> Places:
    """Row-major places where ``rule(o, i)`` holds: ``o[k]``, ``i[k]`` are coordinates along dim k."""

    def coordinates(shape: Shape, *fold: int) -> list[npt.NDArray[np.int64]]:
        return [c.reshape(fold) for c in np.indices(shape)]

    def places() -> Bools:
        found = np.asarray(rule(coordinates(out, -1, 1), coordinates(inn, 1, -1)), dtype=bool)
        m, n = int(np.prod(out)), int(np.prod(inn))
        return np.broadcast_to(found, (m, n)).copy()

    return places


def along(shape: Shape, *dims: int) -> Places:
    """Same-shape places that agree in every dim but ``dims``: dense along those."""
    kept = [d for d in range(len(shape)) if d not in dims]
    return agree(shape, shape, *kept)


def agree(out: Shape, inn: Shape, *dims: int) -> Places:
    """Places whose output and input coordinates are equal along each of ``dims``."""
    return entries(out, inn, lambda o, i: every(o[d] == i[d] for d in dims))


def diagonal(*shape: int) -> Places:
    return along(shape)


def everything(out: Shape, inn: Shape) -> Places:
    return entries(out, inn, lambda o, i: True)


def nothing(out: Shape, inn: Shape) -> Places:
    return entries(out, inn, lambda o, i: False)


def every(conditions: Any) -> Any:
    result: Any = True
    for condition in conditions:
        result = result & condition
    return result


def grid(rows: list[list[Places]]) -> Places:
    """Places of a block matrix."""
    return lambda: np.block([[block() for block in row] for row in rows])


def normal(*shape: int, dtype: torch.dtype = torch.float64) -> Draw:
    return lambda g: (torch.randn(shape, generator=g, dtype=torch.float64).to(dtype),)


def together(*draws: Draw) -> Draw:
    return lambda g: tuple(itertools.chain.from_iterable(draw(g) for draw in draws))


def changed(draw: Draw, by: Callable[[Tensor], Any]) -> Draw:
    """Points of ``draw`` passed through ``by``: other strides, a pytree, a positive range."""
    return lambda g: tuple(by(tensor) for tensor in draw(g))


def fixed(*shape: int, seed: int = 7) -> Tensor:
    """A closed-over constant, the same at each building."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g, dtype=torch.float64)


def seeded(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """A module in float64 with the same random weights at each building."""

    def module() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(11)
            return make().double()

    return module


# Pointwise: the diagonal.

ACTIVATIONS: tuple[Func, ...] = (
    F.relu,
    F.relu6,
    F.leaky_relu,
    F.elu,
    F.selu,
    F.celu,
    F.gelu,
    F.silu,
    F.mish,
    F.softplus,
    F.hardswish,
    F.hardsigmoid,
    F.hardtanh,
    F.softsign,
    F.tanhshrink,
    F.softshrink,
    F.hardshrink,
    F.logsigmoid,
    torch.sigmoid,
    torch.tanh,
    torch.erf,
    torch.abs,
    torch.sinc,
)
for act in ACTIVATIONS:
    add(f"{act.__name__}", act, normal(7), diagonal(7), points=30)
add("gelu, tanh form", lambda x: F.gelu(x, approximate="tanh"), normal(7), diagonal(7))
add("where", lambda x: torch.where(x > 0, x.exp(), x * x), normal(7), diagonal(7))
add("clamp", lambda x: x.clamp(-0.5, 0.5), normal(7), diagonal(7), points=30)
add("three powers", lambda x: x**3 + x.pow(-2) + 2**x, normal(5), diagonal(5))
add(
    "atan2 of two shifts",
    lambda x: torch.atan2(x[1:], x[:-1]),
    normal(7),
    entries((6,), (7,), lambda o, i: (i[0] == o[0]) | (i[0] == o[0] + 1)),
)
add("round", torch.round, normal(6), nothing((6,), (6,)), max_products=0)
add(
    "floor, sign and comparison",
    lambda x: x.floor() + x.sign() + (x > 0).double(),
    normal(6),
    nothing((6,), (6,)),
)
add(
    "straight-through by detach",
    lambda x: x + (x.round() - x).detach(),
    normal(6),
    diagonal(6),
    max_products=1,
)
add("detach in part", lambda x: x * x.flip(0).detach(), normal(6), diagonal(6))
add(
    "half of the output detached",
    lambda x: torch.cat([x**2, x.detach()]),
    normal(4),
    agree((8,), (4,), 0),
)
add("an output without a graph", lambda x: (x**2, x.detach()), normal(4), agree((8,), (4,), 0))
add("a number read from x", lambda x: x * x * float(x.detach().abs().max()), normal(5), diagonal(5))
add(
    "masked set",
    lambda x: torch.where(x > 0, masked_double(x), x * x),
    normal(5),
    diagonal(5),
    nnz_at_most=25,
)


def masked_double(x: Tensor) -> Tensor:
    y = x.clone()
    y[x > 0] = y[x > 0] * 2
    return y


class RoundThrough(torch.autograd.Function):
    """Rounds forward, passes the cotangent on unchanged."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


add(
    "straight-through by a custom Function",
    lambda x: RoundThrough.apply(x) ** 2,
    changed(normal(6), lambda x: 4 * x),
    diagonal(6),
    points=30,
)


# Movement: each output element is one input element.

INDEX = [3, 0, 0, 2, 4, 1]
READS = np.array(INDEX)
add(
    "roll",
    lambda x: x.roll((1, -2), (0, 1)) ** 2,
    normal(3, 5),
    entries((3, 5), (3, 5), lambda o, i: (i[0] == (o[0] - 1) % 3) & (i[1] == (o[1] + 2) % 5)),
    max_products=1,
)
add(
    "flip",
    lambda x: x.flip(1).sin(),
    normal(3, 4),
    entries((3, 4), (3, 4), lambda o, i: (i[0] == o[0]) & (i[1] == 3 - o[1])),
)
add(
    "rot90",
    lambda x: torch.rot90(x) ** 2,
    normal(3, 4),
    entries((4, 3), (3, 4), lambda o, i: (i[0] == o[1]) & (i[1] == 3 - o[0])),
)
add(
    "pad with zeros",
    lambda x: F.pad(x, (2, 1), value=3.0) ** 2,
    normal(5),
    entries((8,), (5,), lambda o, i: i[0] == o[0] - 2),
)
add(
    "pad by reflection",
    lambda x: F.pad(x, (2, 1), mode="reflect") ** 2,
    normal(1, 2, 5),
    entries(
        (1, 2, 8),
        (1, 2, 5),
        lambda o, i: (o[1] == i[1]) & (i[2] == 4 - np.abs(4 - np.abs(o[2] - 2))),
    ),
)
add(
    "pad by replication",
    lambda x: F.pad(x, (2, 1), mode="replicate") ** 2,
    normal(1, 2, 5),
    entries((1, 2, 8), (1, 2, 5), lambda o, i: (o[1] == i[1]) & (i[2] == np.clip(o[2] - 2, 0, 4))),
)
add(
    "pad periodically",
    lambda x: F.pad(x, (2, 1), mode="circular") ** 2,
    normal(1, 2, 5),
    entries((1, 2, 8), (1, 2, 5), lambda o, i: (o[1] == i[1]) & (i[2] == (o[2] - 2) % 5)),
)
add(
    "unfold",
    lambda x: x.unfold(0, 3, 2) ** 2,
    normal(9),
    entries((4, 3), (9,), lambda o, i: i[0] == 2 * o[0] + o[1]),
)
add(
    "overlapping as_strided",
    lambda x: x.as_strided((4, 3), (2, 1)) ** 2,
    normal(9),
    entries((4, 3), (9,), lambda o, i: i[0] == 2 * o[0] + o[1]),
)
add(
    "transpose, reshape",
    lambda x: x.movedim(0, 2).reshape(4, -1).exp(),
    normal(2, 3, 4),
    entries((4, 6), (2, 3, 4), lambda o, i: o[0] * 6 + o[1] == (i[1] * 4 + i[2]) * 2 + i[0]),
)
add("expand", lambda x: x.expand(3, 4).sin(), normal(3, 1), agree((3, 4), (3, 1), 0))
add(
    "repeat_interleave",
    lambda x: x.repeat_interleave(3) ** 2,
    normal(4),
    entries((12,), (4,), lambda o, i: o[0] // 3 == i[0]),
)
add(
    "stack and cat",
    lambda x: torch.cat([torch.stack([x, x * x]), x.expand(1, -1).cos()]),
    normal(4),
    entries((3, 4), (4,), lambda o, i: o[1] == i[0]),
)
add(
    "split in unequal parts",
    lambda x: [p.sin() for p in x.split([1, 3, 2])],
    normal(6),
    diagonal(6),
)
add(
    "lower triangle",
    lambda x: x.tril() ** 2,
    normal(4, 4),
    entries((4, 4), (4, 4), lambda o, i: (o[0] == i[0]) & (o[1] == i[1]) & (o[0] >= o[1])),
)
add(
    "matrix diagonal and back",
    lambda x: torch.diag_embed(x.diagonal() ** 2),
    normal(3, 3),
    entries((3, 3), (3, 3), lambda o, i: (o[0] == i[0]) & (o[1] == i[1]) & (o[0] == o[1])),
)
add(
    "pixel shuffle",
    lambda x: F.pixel_shuffle(x, 2) ** 2,
    normal(1, 4, 2, 3),
    entries(
        (1, 1, 4, 6),
        (1, 4, 2, 3),
        lambda o, i: (
            (i[1] == 2 * (o[2] % 2) + o[3] % 2) & (i[2] == o[2] // 2) & (i[3] == o[3] // 2)
        ),
    ),
)
add(
    "transposed input",
    lambda x: x * x.roll(1, 1),
    changed(normal(4, 3), lambda x: x.T),
    entries(
        (3, 4), (3, 4), lambda o, i: (o[0] == i[0]) & ((i[1] == o[1]) | (i[1] == (o[1] - 1) % 4))
    ),
)
add(
    "every second element as input",
    lambda x: x[1:] * x[:-1],
    changed(normal(12), lambda x: x[::2]),
    entries((5,), (6,), lambda o, i: (i[0] == o[0]) | (i[0] == o[0] + 1)),
)
add(
    "expanded input",
    lambda x: x * x.roll(1, 1),
    changed(normal(4), lambda x: x.expand(2, 4)),
    entries(
        (2, 4), (2, 4), lambda o, i: (o[0] == i[0]) & ((i[1] == o[1]) | (i[1] == (o[1] - 1) % 4))
    ),
)


def with_index(use: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], Func]:
    """``use(x, index)`` with an int64 index of its own closed over."""

    def make() -> Func:
        index = torch.tensor(INDEX)
        return lambda x: use(x, index)

    return make


built(
    "index",
    with_index(lambda x, k: x[k] * x[k.flip(0)]),
    normal(5),
    entries((6,), (5,), lambda o, i: (READS[o[0]] == i[0]) | (READS[5 - o[0]] == i[0])),
)
built(
    "index_select",
    with_index(lambda x, k: x.index_select(1, k) ** 2),
    normal(2, 5),
    entries((2, 6), (2, 5), lambda o, i: (o[0] == i[0]) & (READS[o[1]] == i[1])),
)
built(
    "gather",
    with_index(lambda x, k: x.gather(1, k.view(2, 3)) ** 2),
    normal(2, 5),
    entries((2, 3), (2, 5), lambda o, i: (o[0] == i[0]) & (READS[3 * o[0] + o[1]] == i[1])),
)
built(
    "embedding, summed in bags",
    with_index(lambda w, k: (F.embedding(k.view(2, 3), w) ** 2).sum(1)),
    normal(5, 2),
    entries((2, 2), (5, 2), lambda o, i: (o[1] == i[1]) & in_bag(o[0], i[0])),
)
built(
    "a constant in place of some",
    with_index(lambda x, k: x.index_fill(0, k[1:3], 2.0) ** 2),
    normal(5),
    entries((5,), (5,), lambda o, i: (o[0] == i[0]) & (o[0] != 0)),
)


def in_bag(bag: Any, word: Any) -> Any:
    """Whether ``word`` occurs in ``bag``, the bags being thirds of INDEX."""
    return (READS.reshape(2, 3)[bag] == word[..., None]).any(-1)


# Accumulation: outputs collect several inputs.

built(
    "index_add",
    with_index(lambda x, k: x.new_zeros(5, 2).index_add(0, k, x**2)),
    normal(6, 2),
    entries((5, 2), (6, 2), lambda o, i: (o[1] == i[1]) & (READS[i[0]] == o[0])),
)
built(
    "index_add of a repeated row twice",
    with_index(lambda x, k: x.index_add(0, k, x[k].sin())),
    normal(5),
    diagonal(5),
)
built(
    "scatter_add",
    with_index(lambda x, k: x.new_zeros(2, 5).scatter_add(1, k.view(2, 3), x**2)),
    normal(2, 3),
    entries((2, 5), (2, 3), lambda o, i: (o[0] == i[0]) & (READS[3 * i[0] + i[1]] == o[1])),
)
built(
    "scatter over distinct places",
    with_index(lambda x, k: torch.ones(5, dtype=x.dtype).scatter(0, k[2:5], x**2)),
    normal(3),
    entries((5,), (3,), lambda o, i: READS[i[0] + 2] == o[0]),
)
built(
    "index_put, accumulated",
    with_index(lambda x, k: x.new_zeros(5).index_put((k,), x**3, accumulate=True)),
    normal(6),
    entries((5,), (6,), lambda o, i: READS[i[0]] == o[0]),
)
add(
    "im2col",
    lambda x: F.unfold(x, 2) ** 2,
    normal(1, 2, 4, 4),
    entries(
        (1, 8, 9),
        (1, 2, 4, 4),
        lambda o, i: (
            (i[1] == o[1] // 4)
            & (i[2] == o[2] // 3 + o[1] % 4 // 2)
            & (i[3] == o[2] % 3 + o[1] % 2)
        ),
    ),
    nnz_at_most=72 * 32,
)


# Writes in place.


def written(change: Callable[[Tensor], Tensor | None]) -> Func:
    """``change`` at work on a clone of ``x``."""

    def func(x: Tensor) -> Tensor:
        y = x.clone()
        change(y)
        return y

    return func


def shift_add(y: Tensor) -> None:
    y[1:] += y[:-1].clone() ** 2


def running(y: Tensor) -> None:
    for k in range(1, y.shape[0]):
        y[k] = y[k] + y[k - 1].clone() ** 2


def overwrite(y: Tensor) -> None:
    y[:2] = y[2:4].clone() * y[4:].clone()
    y[3] = 1.0


def through_views(y: Tensor) -> None:
    column = y.view(2, 3)[:, 1]
    column.mul_(column.flip(0).clone())
    y.relu_()


def into_zeros(x: Tensor) -> Tensor:
    out = x.new_zeros(x.shape[0] + 2)
    out[1:-1] = x**2
    return out


add(
    "in place: shifted addition",
    written(shift_add),
    normal(6),
    entries((6,), (6,), lambda o, i: (i[0] == o[0]) | (i[0] == o[0] - 1)),
)
add(
    "in place: a running recurrence",
    written(running),
    normal(6),
    entries((6,), (6,), lambda o, i: i[0] <= o[0]),
)
add(
    "in place: overwritten slices",
    written(overwrite),
    normal(6),
    entries(
        (6,),
        (6,),
        lambda o, i: (
            ((o[0] < 2) & ((i[0] == o[0] + 2) | (i[0] == o[0] + 4)))
            | ((o[0] > 1) & (o[0] != 3) & (i[0] == o[0]))
        ),
    ),
)
add(
    "in place: through two views",
    written(through_views),
    normal(6),
    entries((6,), (6,), lambda o, i: (i[0] == o[0]) | ((o[0] % 3 == 1) & (i[0] % 3 == 1))),
    points=30,
)
add(
    "in place: into fresh zeros",
    into_zeros,
    normal(4),
    entries((6,), (4,), lambda o, i: i[0] == o[0] - 1),
)


# Reductions, scans, and what is dense along a dim.

add("sum along a dim", lambda x: (x**2).sum(1), normal(3, 4), agree((3,), (3, 4), 0))
add("mean of all", lambda x: (x**2).mean(), normal(3, 4), everything((), (3, 4)))
for label, reduce in {
    "logsumexp": lambda x: x.logsumexp(1),
    "variance": lambda x: x.var(1),
    "norm": lambda x: x.norm(dim=1),
    "amax": lambda x: x.amax(1),
    "max": lambda x: x.max(1).values,
    "median": lambda x: x.median(1).values,
    "gather by argmax": lambda x: x.gather(1, x.argmax(1, keepdim=True)).squeeze(1),
}.items():
    add(label, reduce, normal(3, 5), agree((3,), (3, 5), 0), points=80)
add("product", lambda x: x.prod(1), normal(3, 4), agree((3,), (3, 4), 0), nnz_at_most=36)
for label, rowwise in {
    "softmax": lambda x: x.softmax(1),
    "log softmax": lambda x: x.log_softmax(1),
    "normalize": lambda x: F.normalize(x, dim=1),
    "layer norm": lambda x: F.layer_norm(x, (5,)),
    "centered rows": lambda x: (x - x.mean(1, keepdim=True)) ** 2,
    "sort": lambda x: x.sort(1).values,
    "reorder by argsort": lambda x: x.gather(1, x.argsort(1)),
}.items():
    add(label, rowwise, normal(3, 5), along((3, 5), 1), points=80)
add("softmax along the first dim", lambda x: x.softmax(0), normal(3, 5), along((3, 5), 0))
add("index by argsort", lambda x: x[x.argsort()] ** 2, normal(5), along((5,), 0), points=80)
add("top 2", lambda x: x.topk(2, dim=1).values, normal(3, 5), agree((3, 2), (3, 5), 0), points=80)
for label, scan in {
    "cumsum": lambda x: (x**2).cumsum(1),
    "logcumsumexp": lambda x: x.logcumsumexp(1),
}.items():
    add(
        label,
        scan,
        normal(3, 5),
        entries((3, 5), (3, 5), lambda o, i: (o[0] == i[0]) & (i[1] <= o[1])),
        points=80,
    )
add(
    "cummax",
    lambda x: x.cummax(1).values,
    normal(3, 5),
    entries((3, 5), (3, 5), lambda o, i: (o[0] == i[0]) & (i[1] <= o[1])),
    nnz_at_most=75,
    points=80,
)
add(
    "cumprod",
    lambda x: x.cumprod(1),
    normal(3, 4),
    entries((3, 4), (3, 4), lambda o, i: (o[0] == i[0]) & (i[1] <= o[1])),
    nnz_at_most=144,
)
add(
    "max pool",
    lambda x: F.max_pool2d(x, 2),
    normal(1, 2, 6, 6),
    entries(
        (1, 2, 3, 3),
        (1, 2, 6, 6),
        lambda o, i: (o[1] == i[1]) & (i[2] // 2 == o[2]) & (i[3] // 2 == o[3]),
    ),
    points=80,
)
add(
    "max pool, overlapping windows",
    lambda x: F.max_pool2d(x, 3, stride=1, padding=1),
    normal(1, 1, 4, 4),
    entries(
        (1, 1, 4, 4), (1, 1, 4, 4), lambda o, i: (abs(i[2] - o[2]) <= 1) & (abs(i[3] - o[3]) <= 1)
    ),
    points=120,
)
add(
    "average pool of equal shape",
    lambda x: F.avg_pool2d(x, 3, stride=1, padding=1) ** 2,
    normal(1, 1, 4, 4),
    entries(
        (1, 1, 4, 4), (1, 1, 4, 4), lambda o, i: (abs(i[2] - o[2]) <= 1) & (abs(i[3] - o[3]) <= 1)
    ),
)
add(
    "adaptive average pool",
    lambda x: F.adaptive_avg_pool1d(x, 2) ** 2,
    normal(1, 3, 6),
    entries((1, 3, 2), (1, 3, 6), lambda o, i: (o[1] == i[1]) & (o[2] == i[2] // 3)),
    nnz_at_most=6 * 18,
)
add(
    "group norm",
    lambda x: F.group_norm(x, 2),
    normal(2, 4, 3),
    entries((2, 4, 3), (2, 4, 3), lambda o, i: (o[0] == i[0]) & (o[1] // 2 == i[1] // 2)),
)
add(
    "batch norm without buffers",
    lambda x: F.batch_norm(x, None, None, training=True),
    normal(4, 3),
    along((4, 3), 0),
)
built(
    "batch norm in training",
    seeded(lambda: nn.BatchNorm1d(3)),
    normal(4, 3, 2),
    along((4, 3, 2), 0, 2),
)
built(
    "batch norm in evaluation",
    seeded(lambda: nn.BatchNorm1d(3).eval()),
    normal(4, 3, 2),
    diagonal(4, 3, 2),
)
add(
    "a cumsum and a rows sum under vmap",
    lambda x: torch.func.vmap(lambda row: row.cumsum(0) * row.sum())(x),
    normal(3, 4),
    along((3, 4), 1),
)


# Contraction: matrix products and convolutions.


def conv_places(
    out: Shape,
    inn: Shape,
    taps: Shape,
    *,
    groups: int = 1,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> Places:
    """Places of a convolution of ``(batch, channel, *space)``: o * stride + tap * dilation - padding."""

    def rule(o: Any, i: Any) -> Any:
        same_group = o[1] // (out[1] // groups) == i[1] // (inn[1] // groups)
        offsets = [i[d] + padding - o[d] * stride for d in range(2, len(out))]
        reached = (
            (s % dilation == 0) & (s >= 0) & (s < t * dilation)
            for s, t in zip(offsets, taps, strict=True)
        )
        return (o[0] == i[0]) & same_group & every(reached)

    return entries(out, inn, rule)


def weighted(use: Callable[..., Any], *shapes: Shape) -> Callable[[], Func]:
    """``use(x, *weights)`` with fixed dense weights closed over."""

    def make() -> Func:
        weights = [fixed(*shape, seed=k) for k, shape in enumerate(shapes)]
        return lambda x: use(x, *weights)

    return make


built(
    "convolution 3x3 of an image",
    weighted(F.conv2d, (2, 3, 3, 3)),
    normal(1, 3, 28, 28),
    conv_places((1, 2, 26, 26), (1, 3, 28, 28), (3, 3)),
    nnz=36504,
    max_products=18,
    points=2,
)
built(
    "convolution 2x2",
    weighted(F.conv2d, (1, 2, 2, 2)),
    normal(1, 2, 3, 3),
    conv_places((1, 1, 2, 2), (1, 2, 3, 3), (2, 2)),
    nnz=32,
    max_products=4,
)
built(
    "convolution 2x2 and relu",
    weighted(lambda x, w: F.conv2d(x, w).relu(), (1, 2, 2, 2)),
    normal(1, 2, 3, 3),
    conv_places((1, 1, 2, 2), (1, 2, 3, 3), (2, 2)),
    nnz=32,
    max_products=4,
    points=30,
)
built(
    "grouped, strided, dilated convolution",
    weighted(lambda x, w: F.conv1d(x, w, stride=2, padding=1, dilation=2, groups=2), (4, 2, 3)),
    normal(2, 4, 9),
    conv_places((2, 4, 4), (2, 4, 9), (3,), groups=2, stride=2, padding=1, dilation=2),
)
built(
    "depthwise convolution",
    weighted(lambda x, w: F.conv1d(x, w, padding=1, groups=3).tanh(), (3, 1, 3)),
    normal(2, 3, 6),
    conv_places((2, 3, 6), (2, 3, 6), (3,), groups=3, padding=1),
    max_products=3,
)
built(
    "convolution, channels last",
    weighted(lambda x, w: F.conv2d(x.to(memory_format=torch.channels_last), w), (2, 3, 3, 3)),
    normal(1, 3, 5, 5),
    conv_places((1, 2, 3, 3), (1, 3, 5, 5), (3, 3)),
)
built(
    "transposed convolution",
    weighted(lambda x, w: F.conv_transpose1d(x, w, stride=2), (2, 3, 3)),
    normal(1, 2, 4),
    entries((1, 3, 9), (1, 2, 4), lambda o, i: (o[2] >= 2 * i[2]) & (o[2] < 2 * i[2] + 3)),
)
built(
    "convolution as a function of its kernel",
    weighted(lambda w, x: F.conv1d(x, w), (2, 3, 6)),
    normal(2, 3, 3),
    entries((2, 2, 4), (2, 3, 3), lambda o, i: o[1] == i[0]),
)
built(
    "two layers, per sample",
    weighted(lambda x, a, b: (x @ a).tanh() @ b, (16, 12), (12, 8)),
    normal(4, 16),
    agree((4, 8), (4, 16), 0),
    max_products=8,
)
built(
    "a checkpointed block",
    weighted(
        lambda x, a, b: checkpoint(lambda h: (h @ a).tanh() @ b, x, use_reentrant=False),
        (4, 5),
        (5, 3),
    ),
    normal(3, 4),
    agree((3, 3), (3, 4), 0),
    max_products=3,
)
built(
    "einsum with a weight",
    weighted(lambda x, w: torch.einsum("bij,jk->bik", x, w) ** 2, (4, 2)),
    normal(2, 3, 4),
    agree((2, 3, 2), (2, 3, 4), 0, 1),
)
add(
    "einsum of x with itself",
    lambda x: torch.einsum("bi,bj->bij", x, x),
    normal(2, 3),
    entries((2, 3, 3), (2, 3), lambda o, i: (o[0] == i[0]) & ((i[1] == o[1]) | (i[1] == o[2]))),
)
add(
    "a matrix times its transpose",
    lambda x: x @ x.mT,
    normal(2, 3, 2),
    entries((2, 3, 3), (2, 3, 2), lambda o, i: (o[0] == i[0]) & ((i[1] == o[1]) | (i[1] == o[2]))),
)
add(
    "all pairs",
    lambda x: ((x[:, None] + x[None]) ** 2).sum(-1),
    normal(4, 3),
    entries((4, 4), (4, 3), lambda o, i: (i[0] == o[0]) | (i[0] == o[1])),
)
add(
    "a linear layer as a function of its parameters",
    lambda p, x: F.linear(x, p["weight"], p["bias"]),
    together(
        lambda g: (
            {
                "bias": torch.randn(2, generator=g, dtype=torch.float64),
                "weight": torch.randn(2, 3, generator=g, dtype=torch.float64),
            },
        ),
        normal(4, 3),
    ),
    grid(
        [
            [
                entries((4, 2), (2,), lambda o, i: o[1] == i[0]),
                entries((4, 2), (2, 3), lambda o, i: o[1] == i[0]),
            ]
        ]
    ),
    max_products=4,
)
for b, count in ((5, 285), (10, 495), (20, 840)):
    add(
        f"banded matrix, {b} off-diagonals, times x squared",
        lambda x, b=b: torch.ones(50, 50, dtype=x.dtype).triu().tril(b) @ x**2,
        normal(50),
        entries((50,), (50,), lambda o, i, b=b: (i[0] >= o[0]) & (i[0] <= o[0] + b)),
        nnz=count,
        max_products=b + 1,
    )
    add(
        f"band of shifts, {b} off-diagonals, of x squared",
        lambda x, b=b: sum(F.pad(x[k:] ** 2, (0, k)) for k in range(b + 1)),
        normal(50),
        entries((50,), (50,), lambda o, i, b=b: (i[0] >= o[0]) & (i[0] <= o[0] + b)),
        nnz=count,
        max_products=b + 1,
    )


# Attention and recurrence.


def causal_attention(x: Tensor) -> Tensor:
    later = torch.ones(x.shape[-2], x.shape[-2], dtype=torch.bool).triu(1)
    scores = (x @ x.mT).masked_fill(later, -torch.inf)
    return scores.softmax(-1) @ x


def recurrent() -> Func:
    cell = seeded(lambda: nn.LSTMCell(3, 2))()

    def func(x: Tensor) -> Tensor:
        state, hidden = None, []
        for step in x:
            state = cell(step, state)
            hidden.append(state[0])
        return torch.stack(hidden)

    return func


def causal_pairs() -> Func:
    earlier = torch.ones(6, 6, dtype=torch.bool).tril()
    return lambda x: torch.where(earlier, x[:, None] * x[None] ** 2, 0.0).sum(1)


add(
    "attention",
    lambda x: F.scaled_dot_product_attention(x, x, x),
    normal(2, 2, 3, 4),
    along((2, 2, 3, 4), 2, 3),
)
add(
    "causal attention",
    causal_attention,
    normal(2, 4, 3),
    entries(
        (2, 4, 3),
        (2, 4, 3),
        lambda o, i: (o[0] == i[0]) & (i[1] <= o[1]) & ((o[1] > 0) | (o[2] == i[2])),
    ),
    nnz_at_most=288,
)
built(
    "pairs under a closed-over causal mask",
    causal_pairs,
    normal(6),
    entries((6,), (6,), lambda o, i: i[0] <= o[0]),
)
built(
    "a transformer layer, per sample",
    seeded(lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)),
    normal(2, 3, 4),
    along((2, 3, 4), 1, 2),
)
built(
    "an LSTM, causal in time",
    recurrent,
    normal(4, 2, 3),
    entries((4, 2, 2), (4, 2, 3), lambda o, i: (o[1] == i[1]) & (i[0] <= o[0])),
    notes="steps, batch, features",
)
built(
    "a small image network, per sample",
    seeded(
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)
        )
    ),
    normal(2, 1, 6, 6),
    agree((2, 3), (2, 1, 6, 6), 0),
    max_products=3,
    points=40,
)


# Weights that are zero now need not be zero at the next call: the pattern is that of any weight.


def adapted(size: float) -> Callable[[], Func]:
    """A low-rank dense layer whose second factor is scaled by ``size``."""

    def make() -> Func:
        down, up = nn.Parameter(fixed(4, 2, seed=1)), nn.Parameter(size * fixed(2, 3, seed=2))
        return lambda x: x @ down @ up

    return make


def gated(size: float) -> Callable[[], Func]:
    def make() -> Func:
        gate = nn.Parameter(torch.tensor(size, dtype=torch.float64))
        return lambda x: x + gate * x.roll(1).sin()

    return make


for size, points in ((0.0, 0), (0.5, 3)):
    say = "zero" if size == 0 else "woken"
    built(
        f"a low-rank update, {say}",
        adapted(size),
        normal(3, 4),
        agree((3, 3), (3, 4), 0),
        max_products=3,
        points=points,
    )
    built(
        f"a residual branch behind a gate, {say}",
        gated(size),
        normal(5),
        entries((5,), (5,), lambda o, i: (i[0] == o[0]) | (i[0] == (o[0] - 1) % 5)),
        points=points,
    )


# Batched linear algebra: dense within a matrix, never across.


def symmetric(x: Tensor) -> Tensor:
    return (x + x.mT) / 2 + 5 * torch.eye(x.shape[-1], dtype=x.dtype)


def well_conditioned(x: Tensor) -> Tensor:
    return x + 5 * torch.eye(x.shape[-1], dtype=x.dtype)


add(
    "batched Cholesky",
    lambda x: torch.linalg.cholesky(symmetric(x)),
    normal(3, 2, 2),
    entries(
        (3, 2, 2),
        (3, 2, 2),
        lambda o, i: (
            (o[0] == i[0])
            & (o[1] >= o[2])
            & (np.maximum(i[1], i[2]) <= o[1])
            & (np.minimum(i[1], i[2]) <= o[2])
        ),
    ),
    nnz_at_most=48,
)
add(
    "batched inverse",
    lambda x: torch.linalg.inv(well_conditioned(x)),
    normal(3, 2, 2),
    along((3, 2, 2), 1, 2),
)
add(
    "batched eigenvalues",
    lambda x: torch.linalg.eigvalsh(symmetric(x)),
    normal(3, 2, 2),
    agree((3, 2), (3, 2, 2), 0),
    nnz_at_most=6 * 12,
)
add(
    "batched determinant",
    lambda x: torch.linalg.det(well_conditioned(x)),
    normal(3, 2, 2),
    agree((3,), (3, 2, 2), 0),
    nnz_at_most=36,
)
built(
    "batched solve for the right-hand side",
    weighted(lambda x, a: torch.linalg.solve(well_conditioned(a), x), (3, 2, 2)),
    normal(3, 2),
    along((3, 2), 1),
)
built(
    "batched solve as a function of the matrix",
    weighted(lambda x, r: torch.linalg.solve(well_conditioned(x), r), (3, 2, 1)),
    normal(3, 2, 2),
    agree((3, 2, 1), (3, 2, 2), 0),
)
built(
    "batched triangular solve",
    weighted(
        lambda x, a: torch.linalg.solve_triangular(well_conditioned(a).tril(), x, upper=False),
        (3, 3, 3),
    ),
    normal(3, 3, 2),
    entries((3, 3, 2), (3, 3, 2), lambda o, i: (o[0] == i[0]) & (o[2] == i[2]) & (i[1] <= o[1])),
    nnz_at_most=3 * 36,
)


# Complex intermediates, casts, sampling.

add(
    "complex square, pointwise",
    lambda x: torch.view_as_real(torch.view_as_complex(x) ** 2),
    normal(4, 2),
    along((4, 2), 1),
)
add(
    "squared modulus",
    lambda x: (torch.view_as_complex(x).conj() * torch.view_as_complex(x)).real,
    normal(4, 2),
    agree((4,), (4, 2), 0),
)
built(
    "a filter in frequency",
    weighted(
        lambda x, w: torch.fft.ifft(torch.fft.fft(x) * torch.complex(w[0], w[1])).real, (2, 5)
    ),
    normal(3, 5),
    along((3, 5), 1),
)
add(
    "power spectrum", lambda x: torch.fft.rfft(x).abs() ** 2, normal(3, 6), agree((3, 4), (3, 6), 0)
)
add("through single precision", lambda x: x.float().sin().double() * x, normal(6), diagonal(6))
add(
    "many elements through bfloat16",
    lambda x: x.to(torch.bfloat16).to(torch.float64) ** 2,
    normal(2100),
    diagonal(2100),
    points=1,
    max_products=1,
)
add(
    "float32 throughout",
    lambda x: x[1:] * x[:-1],
    normal(6, dtype=torch.float32),
    entries((5,), (6,), lambda o, i: (i[0] == o[0]) | (i[0] == o[0] + 1)),
)


def linear_reads(size: int, coordinate: Any) -> Bools:
    """Which of ``size`` samples a linear interpolation at ``coordinate`` (clamped) weighs."""
    at = np.clip(np.asarray(coordinate, dtype=float), 0, size - 1)
    return np.abs(np.arange(size) - at[..., None]) < 1  # type: ignore[no-any-return]


DOUBLED = linear_reads(3, (np.arange(6) + 0.5) / 2 - 0.5)
add(
    "bilinear interpolation",
    lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False) ** 2,
    normal(1, 2, 3, 3),
    entries(
        (1, 2, 6, 6),
        (1, 2, 3, 3),
        lambda o, i: (o[1] == i[1]) & DOUBLED[o[2], i[2]] & DOUBLED[o[3], i[3]],
    ),
    nnz_at_most=72 * 18,
)
add(
    "nearest interpolation",
    lambda x: F.interpolate(x, scale_factor=2) ** 2,
    normal(1, 2, 3),
    entries((1, 2, 6), (1, 2, 3), lambda o, i: (o[1] == i[1]) & (o[2] // 2 == i[2])),
    nnz_at_most=72,
)


def sampled_places() -> Bools:
    spots = (fixed(1, 3, 3, 2, seed=0).tanh().numpy()[0] + 1) * 1.5
    across, down = linear_reads(4, spots[..., 0]), linear_reads(4, spots[..., 1])
    rule = entries(
        (1, 2, 3, 3),
        (1, 2, 4, 4),
        lambda o, i: (o[1] == i[1]) & down[o[2], o[3], i[2]] & across[o[2], o[3], i[3]],
    )
    return rule()


built(
    "grid sample",
    weighted(lambda x, g: F.grid_sample(x, g.tanh(), align_corners=True), (1, 3, 3, 2)),
    normal(1, 2, 4, 4),
    sampled_places,
    nnz_at_most=18 * 32,
)


# Arguments and results of every kind.

PAIR = together(normal(3), normal(3))
add(
    "a dict of results",
    lambda x: {"doubled": 2 * x, "total": x.sum() ** 2},
    normal(3),
    entries((4,), (3,), lambda o, i: (o[0] == i[0]) | (o[0] == 3)),
)
add("two arguments", lambda x, y: x * y, PAIR, grid([[diagonal(3), diagonal(3)]]), argnums=(0, 1))
add(
    "the second argument alone",
    lambda x, y: x * y.roll(1),
    PAIR,
    entries((3,), (3,), lambda o, i: i[0] == (o[0] - 1) % 3),
    argnums=1,
)
add(
    "arguments in another order",
    lambda x, n, y: (x.sum() * y, x**2),
    lambda g: (PAIR(g)[0], 3, PAIR(g)[1]),
    grid([[diagonal(3), everything((3,), (3,))], [nothing((3,), (3,)), diagonal(3)]]),
    argnums=(2, 0),
)
add(
    "a pytree argument",
    lambda tree: [tree["a"][0] * tree["b"], tree["a"][1].sum()],
    lambda g: ({"a": PAIR(g), "b": PAIR(g)[0]},),
    grid(
        [
            [diagonal(3), nothing((3,), (3,)), diagonal(3)],
            [nothing((1,), (3,)), everything((1,), (3,)), nothing((1,), (3,))],
        ]
    ),
)
add(
    "an unused argument",
    lambda x, y: x**2,
    PAIR,
    grid([[diagonal(3), nothing((3,), (3,))]]),
    argnums=(0, 1),
)
add(
    "with auxiliary output",
    lambda x: (x**2, {"size": x.abs().max().detach()}),
    normal(4),
    diagonal(4),
    has_aux=True,
)
add("a scalar of a scalar", torch.sin, normal(), everything((), ()), max_products=1)
add(
    "a vector of a scalar",
    lambda x: torch.stack([x.sin(), x.cos(), x * 0 + 1]),
    normal(),
    entries((3,), (), lambda o, i: o[0] < 2),
    nnz_at_most=3,
)
add("the argument itself", lambda x: x, normal(4), diagonal(4))
add(
    "a constant",
    lambda x: torch.ones(3, dtype=x.dtype),
    normal(4),
    nothing((3,), (4,)),
    max_products=0,
)
add("no elements at all", lambda x: x**2, normal(0), nothing((0,), (0,)), max_products=0)
add("no rows", lambda x: x[:0] ** 2, normal(3), nothing((0,), (3,)), max_products=0)
add("no columns", lambda x: (x**2).sum(0), normal(0, 3), nothing((3,), (0, 3)), max_products=0)


# Differences, stencils, residuals.


def differences(k: int) -> Func:
    def func(x: Tensor) -> Tensor:
        for _ in range(k):
            x = (x[1:] - x[:-1]) ** 2
        return x

    return func


def near(o: Any, i: Any) -> Any:
    return (i == o) | (i == o + 1)


add(
    "squared differences",
    lambda x: (x[1:] - x[:-1]) ** 2,
    normal(50),
    entries((49,), (50,), lambda o, i: near(o[0], i[0])),
    nnz=98,
    max_products=2,
    lifted_products=1,
)
for n, k in ((10, 1), (10, 2), (10, 3), (30, 5)):
    add(
        f"differences squared {k} times",
        differences(k),
        normal(n),
        entries((n - k,), (n,), lambda o, i, k=k: (i[0] >= o[0]) & (i[0] <= o[0] + k)),
        nnz=(n - k) * (k + 1),
        max_products=k + 1,
    )
for p in (2, 3):
    add(
        f"differences to the power {p}",
        lambda x, p=p: x.diff() ** p,
        normal(6),
        entries((5,), (6,), lambda o, i: near(o[0], i[0])),
        nnz=10,
        max_products=2,
    )
    add(
        f"differences to the power {p} of a matrix",
        lambda x, p=p: x.reshape(-1).diff() ** p,
        normal(2, 3),
        entries((5,), (2, 3), lambda o, i: near(o[0], 3 * i[0] + i[1])),
        nnz=10,
        max_products=2,
    )
add(
    "two powers of differences, side by side",
    lambda x: torch.stack([x.diff() ** 2, x.diff() ** 3], 1),
    normal(6),
    entries((5, 2), (6,), lambda o, i: near(o[0], i[0])),
    nnz=20,
    max_products=2,
)
add(
    "the gradient of a chain energy",
    torch.func.grad(lambda z: (z.diff() ** 4).sum()),
    normal(7),
    entries((7,), (7,), lambda o, i: abs(o[0] - i[0]) <= 1),
    nnz=19,
    max_products=3,
)
add(
    "a product inside",
    lambda x: torch.func.vjp(lambda z: z**3, x)[1](x)[0],
    normal(5),
    diagonal(5),
    nnz=5,
)


def ring(o: Any, i: Any, n: int, *offsets: int) -> Any:
    """Whether ``i - o`` is one of ``offsets`` on a ring of ``n``."""
    return np.isin((i - o) % n, np.array(offsets) % n)


def brusselator(state: Tensor) -> Tensor:
    u, v = state
    spread = sum(state.roll(s, d) for s in (1, -1) for d in (1, 2)) - 4 * state
    reaction = torch.stack([1 + u * u * v - 4.4 * u, 3.4 * u - u * u * v])
    return reaction + 10.0 * spread


def brusselator_places(n: int) -> Places:
    def rule(o: Any, i: Any) -> Any:
        same = (o[1] == i[1]) & (o[2] == i[2])
        beside = (ring(o[1], i[1], n, 1, -1) & (o[2] == i[2])) | (
            (o[1] == i[1]) & ring(o[2], i[2], n, 1, -1)
        )
        return same | ((o[0] == i[0]) & beside)

    return entries((2, n, n), (2, n, n), rule)


for n, colors in ((6, 9), (12, 10), (32, 12)):
    add(
        f"Brusselator {n}x{n}",
        brusselator,
        normal(2, n, n),
        brusselator_places(n),
        nnz=12 * n * n,
        max_products=colors,
        lifted_products=1,
        points=1 if n == 32 else 3,
    )


def heat(u: Tensor) -> Tensor:
    """Div of k(u) grad u on a square with zero walls, k = 1 + u^2 between cells."""
    total: Tensor = torch.zeros_like(u)
    for turned in (False, True):
        w = F.pad(u.T if turned else u, (1, 1))
        flux = (1 + ((w[:, 1:] + w[:, :-1]) / 2) ** 2) * (w[:, 1:] - w[:, :-1])
        change = flux.diff(dim=1)
        total = total + (change.T if turned else change)
    return total


def burgers(u: Tensor) -> Tensor:
    """Upwind transport and diffusion on a ring."""
    left, right = u.roll(1), u.roll(-1)
    return -u * torch.where(u > 0, u - left, right - u) + 0.1 * (left - 2 * u + right)


def shallow_water(state: Tensor) -> Tensor:
    """Central differences of height and two momenta on a torus, with friction."""
    h, p, q = state.unbind(0)

    def dx(f: Tensor) -> Tensor:
        return f.roll(-1, 0) - f.roll(1, 0)

    def dy(f: Tensor) -> Tensor:
        return f.roll(-1, 1) - f.roll(1, 1)

    cross, lift = p * q / h, h * h / 2
    return -torch.stack(
        [
            dx(p) + dy(q),
            dx(p * p / h + lift) + dy(cross) + h * p,
            dx(cross) + dy(q * q / h + lift) + h * q,
        ]
    )


def shallow_places(n: int) -> Places:
    """Which of own cell (0), x-neighbors (1), y-neighbors (2) each equation reads of each field."""
    reads = np.array([["", "1", "2"], ["012", "012", "2"], ["012", "1", "012"]])
    of = np.array([[[str(d) in cell for d in range(3)] for cell in row] for row in reads])

    def rule(o: Any, i: Any) -> Any:
        x, y = (
            (o[1] == i[1], ring(o[1], i[1], n, 1, -1)),
            (o[2] == i[2], ring(o[2], i[2], n, 1, -1)),
        )
        kinds = (x[0] & y[0], x[1] & y[0], x[0] & y[1])
        return sum(of[o[0], i[0], d] & kinds[d] for d in range(3))

    return entries((3, n, n), (3, n, n), rule)


def lorenz(x: Tensor) -> Tensor:
    return (x.roll(-1) - x.roll(2)) * x.roll(1) - x + 8.0


def runge_kutta(x: Tensor) -> Tensor:
    k1 = lorenz(x)
    k2 = lorenz(x + 0.05 * k1)
    k3 = lorenz(x + 0.05 * k2)
    return x + 0.1 / 6 * (k1 + 2 * k2 + 2 * k3 + lorenz(x + 0.1 * k3))


add(
    "heat in a plane",
    heat,
    normal(5, 6),
    entries((5, 6), (5, 6), lambda o, i: abs(o[0] - i[0]) + abs(o[1] - i[1]) <= 1),
    nnz=5 * 30 - 2 * 11,
)
add(
    "Burgers upwind",
    burgers,
    normal(12),
    entries((12,), (12,), lambda o, i: ring(o[0], i[0], 12, -1, 0, 1)),
    nnz=36,
    max_products=3,
    points=30,
)
add(
    "shallow water",
    shallow_water,
    changed(normal(3, 6, 6), lambda s: torch.cat([s[:1].exp(), s[1:]])),
    shallow_places(6),
    lifted_products=1,
)
add(
    "Lorenz 96",
    lorenz,
    normal(12),
    entries((12,), (12,), lambda o, i: ring(o[0], i[0], 12, -2, -1, 0, 1)),
    nnz=48,
    max_products=4,
)
add(
    "a Runge-Kutta step of Lorenz 96",
    runge_kutta,
    normal(26),
    entries((26,), (26,), lambda o, i: ring(o[0], i[0], 26, *range(-8, 5))),
    nnz=338,
    max_products=13,
)
add(
    "the residual of Rosenbrock's chain",
    lambda x: torch.cat([10 * (x[1:] - x[:-1] ** 2), 1 - x[:-1]]),
    normal(8),
    grid([[entries((7,), (8,), lambda o, i: near(o[0], i[0]))], [agree((7,), (8,), 0)]]),
    nnz=21,
    max_products=2,
)


# Graphs: meshes, networks, cameras.


def random_edges(nodes: int = 12, count: int = 20) -> npt.NDArray[np.int64]:
    """Distinct undirected edges (2, count), each from the lower to the higher node."""
    lower, higher = np.triu_indices(nodes, 1)
    chosen = np.random.default_rng(3).permutation(lower.size)[:count]
    return np.stack([lower[chosen], higher[chosen]])


def mesh_edges(across: int = 3) -> npt.NDArray[np.int64]:
    """Horizontal, vertical and one diagonal edge per cell of a square mesh."""
    spots = [(r, c) for r in range(across) for c in range(across)]
    steps = itertools.product(spots, ((0, 1), (1, 0), (1, 1)))
    pairs = [
        (r * across + c, (r + a) * across + c + b)
        for (r, c), (a, b) in steps
        if r + a < across and c + b < across
    ]
    return np.array(pairs).T


def neighbors(edges: npt.NDArray[np.int64], nodes: int) -> Bools:
    """Adjacency of an undirected graph, every node next to itself."""
    near = np.eye(nodes, dtype=bool)
    near[edges[0], edges[1]] = near[edges[1], edges[0]] = True
    return near


def network_flow() -> Func:
    source, sink = torch.from_numpy(random_edges())

    def func(x: Tensor) -> Tensor:
        flow = torch.sin(x[source] - x[sink])
        return x**3 + x.new_zeros(12).index_add(0, sink, flow).index_add(0, source, -flow)

    return func


def spring_mesh() -> Func:
    one, two = torch.from_numpy(mesh_edges())

    def func(x: Tensor) -> Tensor:
        between = x[two] - x[one]
        length = between.norm(dim=1, keepdim=True)
        force = (length - 1) / length * between
        return torch.zeros_like(x).index_add(0, one, force).index_add(0, two, -force)

    return func


def bundle(cameras: int, points: int, seen: int) -> Func:
    camera, point = torch.arange(seen) % cameras, torch.arange(seen) % points

    def func(cams: Tensor, spots: Tensor, weights: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
        cam = cams[camera]
        axis, away = cam[:, :3], spots[point] - cam[:, 3:6]
        angle = axis.norm(dim=1, keepdim=True)
        unit = axis / angle
        along_axis = unit * (unit * away).sum(1, keepdim=True) * (1 - angle.cos())
        turned = away * angle.cos() + torch.linalg.cross(unit, away) * angle.sin() + along_axis
        flat = turned[:, :2] / turned[:, 2:]
        square = (flat * flat).sum(1, keepdim=True)
        bent = flat * (1 + cam[:, 9:10] * square + cam[:, 10:11] * square**2)
        image = bent * cam[:, 6:7] + cam[:, 7:9]
        return weights[:, None] * (image - found), 1 - weights**2

    return func


def bundle_places(n: int, m: int, p: int) -> Places:
    """An image coordinate reads all of its camera but the other coordinate's center, its point and weight."""
    cams = entries((p, 2), (n, 11), lambda o, i: (o[0] % n == i[0]) & (i[1] != 8 - o[1]))
    spots = entries((p, 2), (m, 3), lambda o, i: o[0] % m == i[0])
    weights = entries((p, 2), (p,), lambda o, i: o[0] == i[0])
    return grid(
        [[cams, spots, weights], [nothing((p,), (n, 11)), nothing((p,), (m, 3)), diagonal(p)]]
    )


FLOW, MESH = neighbors(random_edges(), 12), neighbors(mesh_edges(), 9)
built(
    "flow on a random graph",
    network_flow,
    normal(12),
    entries((12,), (12,), lambda o, i: FLOW[o[0], i[0]]),
    nnz=12 + 2 * 20,
    lifted_products=1,
)
built(
    "a mesh of springs in space",
    spring_mesh,
    normal(9, 3),
    entries((9, 3), (9, 3), lambda o, i: MESH[o[0], i[0]]),
    nnz=9 * (9 + 2 * 16),
    lifted_products=6,
)
built(
    "bundle adjustment",
    lambda: bundle(3, 5, 15),
    together(
        normal(3, 11),
        changed(normal(5, 3), lambda x: x + torch.tensor([0.0, 0.0, 9.0], dtype=x.dtype)),
        normal(15),
        normal(15, 2),
    ),
    bundle_places(3, 5, 15),
    argnums=(0, 1, 2),
    nnz=29 * 15,
    lifted_products=2,
)
