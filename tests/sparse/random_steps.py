"""The steps that random programs are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

Rng = np.random.Generator
Make = Callable[..., Callable[..., Tensor]]


class Unfit(Exception):  # noqa: N818 - it is no error: another step is drawn
    """The values that were drawn do not suit this step."""


@dataclass(frozen=True)
class Kind:
    """``make(rng, *values)`` gives a function of values of these shapes. A ``local`` step keeps
    patterns sparse."""

    name: str
    make: Make
    arity: int
    local: bool


STEPS: dict[str, Kind] = {}


def step(arity: int = 1, *, local: bool = True) -> Callable[[Make], Make]:
    def register(make: Make) -> Make:
        name = make.__name__.strip("_")
        assert name not in STEPS, name
        STEPS[name] = Kind(name, make, arity, local)
        return make

    return register


def simple(name: str, func: Callable[[Tensor], Tensor], *, local: bool = True) -> None:
    STEPS[name] = Kind(name, lambda rng, x: func, 1, local)


def need(condition: bool) -> None:
    if not condition:
        raise Unfit


def dim_of(rng: Rng, x: Tensor) -> int:
    need(x.dim() > 0)
    return int(rng.integers(-x.dim(), x.dim()))


def fixed(rng: Rng, *shape: int) -> Tensor:
    """A tensor that the program closes over, with some zeros."""
    values = torch.from_numpy(rng.standard_normal(shape))
    return values * torch.from_numpy(rng.random(shape) < 0.8)


def mask_like(rng: Rng, x: Tensor, share: float) -> Tensor:
    return torch.from_numpy(np.asarray(rng.random(tuple(x.shape)) < share))


class RoundThrough(torch.autograd.Function):
    """Its backward hands the cotangent on, where the true derivative is zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class Reversed(torch.autograd.Function):
    """Its backward moves the cotangent, which its forward does not show."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad.flip(0) * x.cos() if x.dim() else grad * x.cos()


for _name, _func in {
    "sin": torch.sin,
    "tanh": torch.tanh,
    "square": lambda x: x**2 / 4,
    "bell": lambda x: torch.exp(-x * x),
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "elu": F.elu,
    "gelu": F.gelu,
    "softplus": F.softplus,
    "hardswish": F.hardswish,
    "absolute": torch.abs,
    "clamp": lambda x: x.clamp(-1, 1),
    "root": lambda x: torch.sqrt(1 + x * x),
    "log": lambda x: torch.log1p(x * x),
    "to_float_and_back": lambda x: x.float().double(),
    "half_detached": lambda x: x * x.detach() * 0.5,
    "all_detached": lambda x: x.detach() * 2,
    "zero_factor": lambda x: x * 0 + 1,
    "positive_part": lambda x: torch.where(x > 0, x, 0.1 * x),
    "masked_by_sign": lambda x: x.masked_fill(x < 0, 0.0),
    "round_through": RoundThrough.apply,
    "reversed_backward": Reversed.apply,
    "checkpointed": lambda x: checkpoint(lambda y: torch.tanh(y) * y, x, use_reentrant=False),
    "dropped_out": lambda x: F.dropout(x, 0.3),
    "noisy": lambda x: x * torch.rand_like(x),
    "flatten": lambda x: x.reshape(-1),
    "transposed": lambda x: x.mT if x.dim() > 1 else x,
    "tril": lambda x: x.tril() if x.dim() > 1 else x,
    "negated_view": lambda x: -x.unsqueeze(-1)[..., 0],
    "new_dim": lambda x: x.unsqueeze(0),
    "in_place_math": lambda x: x.clone().mul_(2).add_(1).tanh_(),
}.items():
    simple(_name, _func)

for _name, _func in {
    "sum": lambda x: x.sum(),
    "rfft": lambda x: torch.fft.irfft(torch.fft.rfft(x) * 1.5, n=x.shape[-1]) if x.dim() else x,
    "power_spectrum": lambda x: torch.fft.fft(x).abs().square() / 4 if x.dim() else x,
    "outer_checkpoint": lambda x: checkpoint(
        lambda y: F.dropout(y.cumsum(0), 0.5) if y.dim() else y, x, use_reentrant=False
    ),
}.items():
    simple(_name, _func, local=False)


def _broadcasts(x: Tensor, y: Tensor) -> None:
    try:
        torch.broadcast_shapes(x.shape, y.shape)
    except RuntimeError:
        raise Unfit from None


_PAIRS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "plus": lambda x, y: x + y,
    "minus": lambda x, y: x - 2 * y,
    "times": lambda x, y: x * y / 2,
    "over": lambda x, y: x / (1 + y * y),
    "maximum": torch.maximum,
    "angle": lambda x, y: torch.atan2(x, 1 + y * y),
    "choice": lambda x, y: torch.where(x > y, x, y * 2),
    "mixture": lambda x, y: torch.lerp(x, y, 0.25),
}
for _name, _pair in _PAIRS.items():

    def _make_pair(
        rng: Rng, x: Tensor, y: Tensor, pair: Callable[[Tensor, Tensor], Tensor] = _pair
    ) -> Callable[[Tensor, Tensor], Tensor]:
        _broadcasts(x, y)
        return pair

    STEPS[_name] = Kind(_name, _make_pair, 2, True)


@step()
def _slice(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
    dim = dim_of(rng, x)
    size = x.shape[dim]
    need(size > 1)
    start = int(rng.integers(size - 1))
    length = int(rng.integers(1, size - start + 1))
    return lambda t: t.narrow(dim, start, length)


@step()
def _strided_slice(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
    need(x.dim() > 0 and x.shape[-1] > 2)
    start = int(rng.integers(2))
    return lambda t: t[..., start::2]


@step()
def _select(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
    dim = dim_of(rng, x)
    place = int(rng.integers(-x.shape[dim], x.shape[dim]))
    return lambda t: t.select(dim, place)


@step()
def _roll(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
    dim = dim_of(rng, x)
    return lambda t: t.roll(1, dim) - t


@step()
def _flip(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
    dim = dim_of(rng, x)
    return lambda t: t.flip(dim)


@step()
def _permute(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
    order = tuple(int(k) for k in rng.permutation(x.dim()))
    return lambda t: t.permute(order)


@step()
def _reshape(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
    sizes = [k for k in range(1, x.numel() + 1) if x.numel() % k == 0]
    rows = int(rng.choice(sizes))
    return lambda t: t.reshape(rows, -1)


@step()
def _pad(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
    need(x.dim() > 0)
    before, after = (int(k) for k in rng.integers(0, 3, size=2))
    return lambda t: F.pad(t, (before, after))


@step()
def _circular_pad(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
    need(x.dim() in (2, 3) and x.shape[-1] > 1)
    mode = str(rng.choice(["circular", "reflect", "replicate"]))
    return lambda t: F.pad(t, (1, 1), mode=mode)


@step()
def _windows(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
    dim = dim_of(rng, x)
    need(x.shape[dim] > 2)
    hop = int(rng.integers(1, 3))
    return lambda t: t.unfold(dim, 2, hop)


@step()
def _diagonal(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
    need(x.dim() > 1)
    return lambda t: t.diagonal(dim1=-2, dim2=-1)


@step()
def _expand(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
    count = int(rng.integers(2, 4))
    return lambda t: t.unsqueeze(0).expand(count, *t.shape)


@step()
def _strides(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
    need(x.numel() > 6)
    return lambda t: t.contiguous().as_strided((3, 2), (2, 1), 1)


@step(2)
def _concatenate(rng: Rng, x: Tensor, y: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    need(x.dim() > 0 and x.shape[1:] == y.shape[1:] and y.dim() == x.dim())
    return lambda s, t: torch.cat([s, t])


@step(2)
def _stack(rng: Rng, x: Tensor, y: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    need(x.shape == y.shape)
    dim = int(rng.integers(-x.dim() - 1, x.dim() + 1))
    return lambda s, t: torch.stack([s, t], dim)


@step()
def _fixed_mask(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
    mask = mask_like(rng, x, 0.5)
    return lambda t: torch.where(mask, t * 3, t.tanh())


@step()
def _kept_by_mask(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
    mask = mask_like(rng, x, 0.7)
    return lambda t: t[mask] if bool(mask.any()) else t


@step()
def _index(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
    dim = dim_of(rng, x)
    index = torch.from_numpy(rng.integers(x.shape[dim], size=4))
    return lambda t: t.index_select(dim, index)


@step()
def _fancy_index(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
    need(x.dim() > 1)
    rows = torch.from_numpy(rng.integers(-x.shape[0], x.shape[0], size=(3, 1)))
    columns = torch.from_numpy(rng.integers(x.shape[-1], size=2))
    return lambda t: t[rows, ..., columns]


@step(local=False)
def _random_index(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
    need(x.dim() > 0)
    return lambda t: t[torch.randint(t.shape[0], (3,))]


@step()
def _write_slice(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
    need(x.dim() > 0 and x.shape[0] > 1)

    def written(t: Tensor) -> Tensor:
        y = t.clone()
        y[1:] += y[:-1].clone() * t[1:]
        y[0] = t[-1].tanh()
        return y

    return written


@step(2)
def _write_view(rng: Rng, x: Tensor, y: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    need(x.dim() > 1 and y.dim() > 0 and y.shape[-1] >= x.shape[-2])

    def written(s: Tensor, t: Tensor) -> Tensor:
        z = s.clone(memory_format=torch.contiguous_format)
        row = t.reshape(-1, t.shape[-1])[0]
        z.mT[..., -1, :].mul_(row[: s.shape[-2]])
        z.view(-1)[::2].add_(1)
        return z

    return written


@step()
def _write_mask(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
    mask = mask_like(rng, x, 0.5)

    def written(t: Tensor) -> Tensor:
        y = t * 2
        y[mask] = 0.0
        y[t > 1] = 1.0
        return y

    return written


@step()
def _write_index(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
    need(x.dim() > 0)
    index = torch.from_numpy(rng.permutation(x.shape[0])[:2].copy())

    def written(t: Tensor) -> Tensor:
        y = t.sin()
        y[index] = t[: index.numel()] * 2
        return y

    return written


@step()
def _into_zeros(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
    need(x.dim() > 0)

    def written(t: Tensor) -> Tensor:
        y = torch.zeros(t.shape[0] + 1, *t.shape[1:], dtype=t.dtype)
        y[:-1] = t
        y[1:] += t * t
        return y

    return written


@step(local=False)
def _weights(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
    need(x.dim() > 0)
    weight, bias = fixed(rng, x.shape[-1], 3) / 2, fixed(rng, 3)
    return lambda t: torch.tanh(t @ weight + bias)


@step()
def _scaled(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
    need(x.dim() > 0)
    weight = fixed(rng, x.shape[-1])
    return lambda t: t * weight


@step(2, local=False)
def _matmul(rng: Rng, x: Tensor, y: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    need(x.dim() > 1 and y.dim() > 1 and x.shape[-1] == y.shape[-2])
    _broadcasts(x[..., 0, 0], y[..., 0, 0])
    return lambda s, t: (s @ t) / 4


@step(2, local=False)
def _pair_products(rng: Rng, x: Tensor, y: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    need(x.dim() > 1 and y.dim() > 1 and x.shape[-1] == y.shape[-1])
    return lambda s, t: torch.einsum(
        "...k,...k->...", s[..., :1, :], t[(0,) * (t.dim() - 1)]
    ).tanh()


@step()
def _convolution(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
    need(x.dim() > 1 and x.shape[-1] > 2)
    channels = x.shape[-2]
    weight = fixed(rng, 2, channels, 3)
    return lambda t: F.conv1d(t.reshape(-1, channels, t.shape[-1]), weight, padding=1)


@step()
def _pooled(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
    need(x.dim() in (2, 3) and x.shape[-1] > 2)
    pool = (F.max_pool1d, F.avg_pool1d)[int(rng.integers(2))]
    return lambda t: pool(t, 2, 1)


def along(name: str, func: Callable[[Tensor, int], Tensor]) -> None:
    """A step that mixes along one dim."""

    def make(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
        dim = dim_of(rng, x)
        return lambda t: func(t, dim)

    STEPS[name] = Kind(name, make, 1, False)


for _name, _along in {
    "cumsum": lambda x, d: x.cumsum(d),
    "cumprod": lambda x, d: x.tanh().cumprod(d),
    "logcumsumexp": lambda x, d: x.logcumsumexp(d),
    "cummax": lambda x, d: x.cummax(d).values,
    "sorted": lambda x, d: x.sort(d).values,
    "topk": lambda x, d: x.topk(1, d).values,
    "median": lambda x, d: x.median(d).values,
    "gathered": lambda x, d: x.gather(d, x.argsort(d)),
    "gathered_by_rank": lambda x, d: x.sin().gather(d, x.argsort(d).argsort(d)),
    "scattered": lambda x, d: torch.zeros_like(x).scatter_add(d, x.argsort(d), x * x),
    "placed": lambda x, d: torch.ones_like(x).scatter(d, x.argsort(d), x.tanh()),
    "added_by_rank": lambda x, d: x.index_add(
        d,
        x.sum([k for k in range(x.dim()) if k != d % x.dim()]).argsort()
        if x.dim() > 1
        else x.argsort(),
        x.cos(),
    ),
    "centered": lambda x, d: x - x.mean(d, keepdim=True),
    "scaled_by_norm": lambda x, d: x / (1 + x.square().sum(d, keepdim=True)),
    "amax": lambda x, d: x.amax(d, keepdim=True),
    "logsumexp": lambda x, d: x.logsumexp(d),
    "spread": lambda x, d: x.var(d, unbiased=False, keepdim=True),
    "product": lambda x, d: x.tanh().prod(d),
    "softmax": lambda x, d: x.softmax(d),
    "log_softmax": lambda x, d: x.log_softmax(d),
    "cosine_transform": lambda x, d: torch.fft.fft(x, dim=d).real / 2,
}.items():
    along(_name, _along)


@step(local=False)
def _layer_norm(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
    need(x.dim() > 0 and x.shape[-1] > 1)
    return lambda t: F.layer_norm(t, t.shape[-1:])


@step(local=False)
def _attention(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
    need(x.dim() > 1)
    return lambda t: F.scaled_dot_product_attention(t, t.sin(), t.cos(), is_causal=True)


@step(local=False)
def _solved(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
    need(x.dim() > 1 and x.shape[-1] == x.shape[-2])
    return lambda t: torch.linalg.solve(
        torch.eye(t.shape[-1], dtype=t.dtype) * 3 + t.tanh(), t.sin()
    )


@step()
def _histogram(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
    index = torch.from_numpy(rng.integers(5, size=x.numel()))
    return lambda t: torch.zeros(5, dtype=t.dtype).index_add(0, index, t.reshape(-1).sin())


@step()
def _segment_mean(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
    need(x.dim() > 0)
    index = torch.from_numpy(rng.integers(x.shape[0], size=x.shape[0])).view(
        -1, *[1] * (x.dim() - 1)
    )
    return lambda t: torch.zeros_like(t).scatter_reduce(0, index.expand(t.shape), t, "mean")


@step()
def _accumulated(rng: Rng, x: Tensor) -> Callable[[Tensor], Tensor]:
    need(x.dim() > 0)
    index = torch.from_numpy(rng.integers(x.shape[0], size=x.shape[0]))
    return lambda t: t.index_put((index,), t.exp().clamp(max=9), accumulate=True)


@step(2)
def _masked_scatter(rng: Rng, x: Tensor, y: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    need(x.numel() <= y.numel())
    mask = mask_like(rng, x, 0.5)
    return lambda s, t: s.masked_scatter(mask, t)
