"""The functions that every law of products is held against, filled by a decorator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pullback import _torch

_torch.load_forward_mode()

Make = Callable[[], tuple[Any, ...]]


@dataclass(frozen=True)
class Case:
    """A function, primals for it, and what torch.func cannot do with it."""

    name: str
    func: Callable[..., Any]
    make: Make
    torch_vjp: bool = True
    torch_jvp: bool = True


CASES: list[Case] = []


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def case(
    *shapes: tuple[int, ...], torch_vjp: bool = True, torch_jvp: bool = True
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(func: Callable[..., Any]) -> Callable[..., Any]:
        def make() -> tuple[Any, ...]:
            return tuple(draw(*shape, seed=k) for k, shape in enumerate(shapes))

        CASES.append(Case(func.__name__, func, make, torch_vjp, torch_jvp))
        return func

    return register


@case((4, 5))
def tutorial(x: Tensor) -> Tensor:
    return (x + 1).pow(2).t()


@case((3, 4), (4,))
def broadcast_matmul(a: Tensor, b: Tensor) -> Tensor:
    return a @ b + b.sum()


@case((2, 3, 4), (4, 2))
def batched_matmul(a: Tensor, b: Tensor) -> Tensor:
    return torch.matmul(a, b).tanh()


@case((3,), (3,))
def named_outputs(x: Tensor, y: Tensor) -> dict[str, Any]:
    return {"sum": x + y, "rest": (x * y, [y.exp()])}


@case((3, 4))
def unbound(x: Tensor) -> tuple[Tensor, ...]:
    return tuple(row.sin() for row in x.unbind(0))


@case((4, 3))
def singular_values(x: Tensor) -> Tensor:
    return torch.linalg.svdvals(x)


@case((6, 2))
def split_and_swapped(x: Tensor) -> Tensor:
    first, second = x.split(3)
    return torch.cat((second * first, first))


@case((1, 2, 5, 5), (3, 2, 3, 3))
def convolved(image: Tensor, kernel: Tensor) -> Tensor:
    return torch.nn.functional.conv2d(image, kernel, padding=1).relu()


@case((6,))
def running_sum(x: Tensor) -> Tensor:
    return x.cumsum(0) * x


@case((2, 3))
def written_in_place(x: Tensor) -> Tensor:
    y = x.clone()
    y[0] *= 3
    y.sin_()
    y[1, 1:] = x[0, :2] ** 2
    return y


@case((5,))
def gathered(x: Tensor) -> Tensor:
    return x[torch.tensor([0, 0, 3])] * x[1:4]


class _OldCube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * x**2 * grad


@case((4,), torch_vjp=False, torch_jvp=False)
def old_custom_function(x: Tensor) -> Tensor:
    return _OldCube.apply(x) + x


class _NewCube(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x**3

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * x**2 * grad


@case((4,), torch_jvp=False)
def new_custom_function(x: Tensor) -> Tensor:
    return _NewCube.apply(x) * x


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


@case((4,), torch_vjp=False, torch_jvp=False)
def straight_through_function(x: Tensor) -> Tensor:
    return _Round.apply(2 * x)


@case((4,))
def straight_through_detached(x: Tensor) -> Tensor:
    return x + (x.round() - x).detach()


@case((3, 3), torch_vjp=False, torch_jvp=False)
def checkpointed(x: Tensor) -> Tensor:
    return checkpoint(lambda t: (t @ t).tanh(), x, use_reentrant=False)


@case((6,))
def complex_inside(x: Tensor) -> Tensor:
    z = torch.view_as_complex(x.reshape(3, 2))
    return torch.view_as_real(torch.fft.fft(z * z.conj() + z)).reshape(-1)


@case((20,))
def dropped_out(x: Tensor) -> Tensor:
    torch.manual_seed(5)
    return torch.nn.functional.dropout(x.sin(), 0.5)


def _module() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2)
        return torch.nn.Sequential(*layers).double()


MODULE = _module()


@case((5, 4))
def closed_over_module(x: Tensor) -> Tensor:
    return MODULE(x)


@case((3,), (2,))
def one_primal_unused(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return x.exp(), torch.ones(2, dtype=x.dtype)


@case((3,))
def unchanged(x: Tensor) -> tuple[Tensor, Tensor]:
    return x, x


@case((0, 3))
def empty(x: Tensor) -> Tensor:
    return x.sin()


@case(())
def scalar_to_vector(x: Tensor) -> Tensor:
    return x * torch.arange(3.0, dtype=x.dtype)


@case((4,))
def floor_and_line(x: Tensor) -> Tensor:
    return x.floor() + 2 * x
