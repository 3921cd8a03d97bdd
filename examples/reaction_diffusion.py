"""Implicit time steps of a reaction-diffusion system, with a sparse Jacobian planned once.

The Brusselator on a torus, in two species u and v:

    u' = 1 + u^2 v - 4.4 u + alpha lap u        v' = 3.4 u - u^2 v + alpha lap v

is too stiff for explicit steps of a useful size. Backward Euler solves, at each step, the
nonlinear system ``residual(new, old, dt) = 0`` by Newton's method; each Newton iteration needs the
Jacobian of the residual, which has six nonzeros per row however fine the grid.

Run it with ``python examples/reaction_diffusion.py [N]``: an N x N grid, 32 unless told.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from scipy.sparse.linalg import spsolve
from torch import Tensor

import pullback as pb

ALPHA = 0.02


def brusselator(state: Tensor) -> Tensor:
    """The rate of change of ``state``, shape ``(2, N, N)``, on the unit torus."""
    u, v = state
    n = state.shape[-1]
    beside = state.roll(1, 1) + state.roll(-1, 1) + state.roll(1, 2) + state.roll(-1, 2)
    reaction = torch.stack([1 + u**2 * v - 4.4 * u, 3.4 * u - u**2 * v])
    return reaction + ALPHA * n**2 * (beside - 4 * state)


def residual(new: Tensor, old: Tensor, dt: Tensor) -> Tensor:
    """Zero where ``new`` is the backward Euler step of length ``dt`` from ``old``.

    What changes from step to step, ``old`` and ``dt``, is an argument: one plan serves all steps.
    """
    return new - old - dt * brusselator(new)


def newton_step(
    jac: Callable[..., Any], old: Tensor, dt: Tensor, tolerance: float = 1e-9
) -> tuple[Tensor, list[float]]:
    """The new state, and the largest residual before each Newton update and after the last."""
    new, sizes = old.clone(), []
    for _ in range(20):
        left = residual(new, old, dt)
        sizes.append(left.abs().max().item())
        if sizes[-1] < tolerance:
            return new, sizes
        update = spsolve(jac(new, old, dt).tocsc(), left.reshape(-1).numpy())
        new = new - torch.from_numpy(update).view(new.shape)
    raise ArithmeticError(f"Newton's method did not converge: residuals {sizes}")


def start(n: int) -> Tensor:
    """A smooth initial state of shape ``(2, n, n)``."""
    at = torch.arange(n, dtype=torch.float64) / n
    u = 22 * at[None, :] * (1 - at[None, :]) ** 1.5
    v = 27 * at[:, None] * (1 - at[:, None]) ** 1.5
    return torch.stack([u.expand(n, n), v.expand(n, n)])


def main(n: int = 32, steps: int = 5) -> None:
    state, dt = start(n), torch.tensor(0.02, dtype=torch.float64)
    plan = pb.plan_jacobian(residual, state, state, dt)
    rows, cols = plan.pattern.shape
    print(f"Jacobian of the residual: {rows} x {cols}, {plan.pattern.nnz} nonzeros")
    print(f"one evaluation costs {plan.num_products} products instead of {rows}")
    print(f"the plan: mode {plan.mode}, lifted {plan.lifted}; {plan.reason}")

    jac = pb.jacobian(residual, plan=plan, layout="scipy")
    for step in range(1, steps + 1):
        state, sizes = newton_step(jac, state, dt)
        drops = " -> ".join(f"{size:.1e}" for size in sizes)
        print(f"t = {step * dt.item():.2f}: largest residual {drops}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
