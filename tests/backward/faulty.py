"""Custom Functions that are right, and others with one known fault each."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


class Cube(Function):
    """x^3, its slope computed in backward from the input that was saved."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return 3 * x**2 * v


class Apart(Function):
    """The same, with forward and setup_context apart."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x**3

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * x**2 * v


class Exp(Function):
    """An output saved, as it should be."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = x.exp()
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        return out * v


class Gain(Function):
    """a x^2 s, of a tensor for each row and a number; backward asks what is needed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, s: Tensor, a: float) -> Tensor:
        ctx.save_for_backward(x, s)
        ctx.a = a
        return a * x**2 * s[:, None]

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, s = ctx.saved_tensors
        of_x = 2 * ctx.a * x * s[:, None] * v if ctx.needs_input_grad[0] else None
        return of_x, (ctx.a * x**2 * v).sum(1) if ctx.needs_input_grad[1] else None, None


class Polar(Function):
    """Two outputs, and a third that carries no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(x, y)
        sign = y > 0
        ctx.mark_non_differentiable(sign)
        return (x**2 + y**2).sqrt(), torch.atan2(y, x), sign

    @staticmethod
    def backward(ctx: Any, r: Tensor, phi: Tensor, _: Any) -> tuple[Tensor, Tensor]:
        x, y = ctx.saved_tensors
        square = x**2 + y**2
        return (
            x / square.sqrt() * r - y / square * phi,
            y / square.sqrt() * r + x / square * phi,
        )


class Absolute(Function):
    """|z|^2 of complex numbers, real."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return (z * z.conj()).real

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        return 2 * z * v


class Dirty(Function):
    """Doubles its input in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        return x.mul_(2)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Tensor:
        return 2 * v


class Positive(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return v * (x > 0)


class Once(Cube):
    """No second derivative, and says so."""

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> Any:
        return Cube.backward(ctx, v)


class Doubled(Cube):
    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        return 2 * Cube.backward(ctx, v)


class OneEntry(Cube):
    """Wrong at one place alone: d out[1, 2] / d x[0, 0] is taken for 5."""

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        grad = Cube.backward(ctx, v).clone()
        grad[0, 0] += 5 * v[1, 2]
        return grad


class Unmoved(Function):
    """The transpose is forgotten: shapes agree where the matrix is square."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.t() * 1

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Tensor:
        return v


class RowScale(Function):
    """The sum over each row is forgotten."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, s: Tensor) -> Tensor:
        ctx.save_for_backward(x, s)
        return x * s[:, None]

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, Tensor]:
        x, s = ctx.saved_tensors
        return v * s[:, None], v * x


class Shift(Function):
    """The sum of a broadcast is left to torch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, b: Tensor) -> Tensor:
        return x + b

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, Tensor]:
        return v, v


class Widened(Cube):
    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        return Cube.backward(ctx, v).double()


class TooFew(RowScale):
    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        return v * ctx.saved_tensors[1][:, None]


class Number(Cube):
    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        return 1.0


class Raises(Cube):
    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        raise ZeroDivisionError("no slope")


class Forgets(Function):
    """x y, and None for y."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        return x * y

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        return ctx.saved_tensors[1] * v, None


class Wasteful(Forgets):
    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        x, y = ctx.saved_tensors
        return y * v, x * v


class Zeros(Function):
    """Only the shape of `like` matters."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, like: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return 2 * x.expand_as(like)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * v, torch.zeros_like(v)


class Clipped(Cube):
    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        return Cube.backward(ctx, v.clamp(-1, 1))


class Normed(Cube):
    """Homogeneous for a > 0, and not even that: v and 1000 v give the same."""

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        return Cube.backward(ctx, v / v.norm())


class Rectified(Cube):
    """Homogeneous for every a > 0, not linear: the negative part of v is lost."""

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        return Cube.backward(ctx, v.clamp(min=0))


class Redraws(Function):
    """Dropout that draws again in backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * (torch.rand_like(x) < 0.5)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Tensor:
        return v * (torch.rand_like(v) < 0.5)


class Dropped(Function):
    """Dropout that keeps its draw."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        mask = torch.rand_like(x) < 0.5
        ctx.save_for_backward(mask)
        return x * mask

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Tensor:
        return v * ctx.saved_tensors[0]


class IntoCotangent(Cube):
    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return v.mul_(3 * x**2)


class IntoSaved(Cube):
    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return x.detach().pow_(2).mul_(3) * v


class Kept(Function):
    """The input on ctx, not saved."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.x = x
        return x**3

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Tensor:
        x: Tensor = ctx.x
        return 3 * x**2 * v


class KeptOutput(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.out = x.exp()
        out: Tensor = ctx.out
        return out

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Tensor:
        out: Tensor = ctx.out
        return out * v


class Slope(Function):
    """An intermediate saved: to torch the slope is a constant."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(3 * x**2)
        return x**3

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Tensor:
        slope: Tensor = ctx.saved_tensors[0]
        return slope * v


class InNumpy(Function):
    """A linear map that NumPy applies: even its backward's derivative in v is lost."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.from_numpy(np.cumsum(x.detach().numpy()))

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Tensor:
        return torch.from_numpy(np.cumsum(v.detach().numpy()[::-1])[::-1].copy())


class Rounded(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Tensor:
        return v


class Sign(Function):
    """Of an entry beyond 1 nothing is handed on."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sign()

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return v * (x.abs() <= 1)


class Reversed(Function):
    """The identity forward, and minus it backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 1

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Tensor:
        return -v
