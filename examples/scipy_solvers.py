"""SciPy's solvers with Jacobians that nobody wrote and that are sparse by themselves.

Three problems: a reaction on a grid is followed in time by ``solve_ivp``, a heated plate is brought
into balance by Newton's method around a sparse factorization, and the balance found is
differentiated with respect to the heating, through the root and not through the solver.

Run it with ``python examples/scipy_solvers.py [N]``: N x N grids, 24 unless told.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.sparse.linalg import splu
from torch import Tensor
from torch.nn.functional import pad

import pullback as pb
from pullback.interop.scipy import Residual, ode, residual


def reaction(t: Tensor, state: Tensor) -> Tensor:
    """The Brusselator with diffusion, ``state`` of shape ``(2, n, n)``, driven in time."""
    u, v = state
    beside = state.roll(1, 1) + state.roll(-1, 1) + state.roll(1, 2) + state.roll(-1, 2)
    rate = torch.stack([1 + u**2 * v - 4.4 * u + torch.sin(t), 3.4 * u - u**2 * v])
    return rate + state.shape[-1] ** 2 / 10 * (beside - 4 * state)


def balance(u: Tensor, heating: Tensor) -> Tensor:
    """Zero where a plate with a cold edge, heated by ``heating * exp(u)``, is in balance."""
    around = pad(u, (1, 1, 1, 1))
    beside = around[2:, 1:-1] + around[:-2, 1:-1] + around[1:-1, 2:] + around[1:-1, :-2]
    return (beside - 4 * u) * (u.shape[-1] + 1) ** 2 + heating * u.exp()


def newton(
    problem: Residual, x: NDArray[np.float64], tolerance: float = 1e-8
) -> NDArray[np.float64]:
    for step in range(20):
        left = problem.fun(x)
        print(f"  step {step}: largest residual {abs(left).max():.1e}")
        if abs(left).max() < tolerance:
            return x
        x = x - splu(problem.jac(x).tocsc(), permc_spec="MMD_AT_PLUS_A").solve(left)
    raise ArithmeticError("Newton's method did not converge")


def main(n: int = 24) -> None:
    start = 1 + torch.rand(2, n, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    system = ode(reaction, start)
    print(system)
    found = solve_ivp(system.fun, (0.0, 5.0), start.flatten(), method="BDF", jac=system.jac)
    print(f"  {found.nfev} evaluations, {found.njev} Jacobians, {found.nlu} factorizations")

    heating = torch.full((n, n), 5.0, dtype=torch.float64, requires_grad=True)
    plate = residual(balance, np.zeros((n, n)), args=(heating,))
    print(plate)
    u = newton(plate, np.zeros(n * n))

    root = pb.implicit_vjp(balance, torch.from_numpy(u).view(n, n), heating)
    root.max().backward()
    assert heating.grad is not None
    place = divmod(int(heating.grad.argmax()), n)
    print(f"hottest: {root.max().item():.4f}, and heat counts most for it at {place}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
