"""How many products a lift takes, for programs whose numbers theory gives, and that it is right.

Where the nonlinearity is pointwise between shifts, gathers and sums, one product is enough however
wide the stencil is: the differentiated part is diagonal. Where each term couples k components of
its own, k products are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.testing import assert_close

import pullback as pb

from ..programs import PROGRAMS, brusselator, mesh_edges, random_edges, shallow_water, spring_mesh
from ..soundness.reference import CSR, matrix_of, whole


@dataclass(frozen=True)
class Case:
    func: Callable[..., Any]
    args: tuple[Tensor, ...]
    products: int
    factors: int = 1
    argnums: Any = 0


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def gather_scatter() -> Callable[[Tensor], Tensor]:
    tail, head = torch.from_numpy(random_edges(12, 30))
    weight = normal(30)

    def residual(x: Tensor) -> Tensor:
        flow = weight * torch.tanh(x[tail] - x[head])
        return x**3 + torch.zeros_like(x).index_add(0, tail, flow).index_add(0, head, -flow)

    return residual


def edge_flows() -> Callable[[Tensor], Tensor]:
    """AC power at nodes: each node's voltage times the conjugate sum of complex line currents."""
    edges = torch.from_numpy(mesh_edges(9))
    admittance = torch.view_as_complex(normal(edges.shape[1], 2))
    nodes = int(edges.max()) + 1

    def power(x: Tensor) -> Tensor:
        v = torch.polar(x[0], x[1])
        flow = admittance * (v[edges[0]] - v[edges[1]])
        into = torch.zeros(nodes, dtype=v.dtype).index_add(0, edges[0], flow)
        into = into.index_add(0, edges[1], -flow)
        return torch.view_as_real(v * into.conj())

    return power


def runge_kutta(state: Tensor) -> Tensor:
    k1 = brusselator(state)
    k2 = brusselator(state + 0.005 * k1)
    k3 = brusselator(state + 0.005 * k2)
    k4 = brusselator(state + 0.01 * k3)
    return state + 0.01 / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


MATRIX = normal(5, 4)
LAPLACE = torch.tensor([[[[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]]], dtype=torch.float64)


def two_stencils(u: Tensor) -> Tensor:
    y = torch.sin(F.conv2d(u[None, None], LAPLACE, padding=1))
    return F.conv2d(y * y * y, LAPLACE, padding=1)[0, 0] * u


def rosenbrock(x: Tensor) -> Tensor:
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def banded_quartic(x: Tensor) -> Tensor:
    return sum((x[k:] + x[: len(x) - k]).pow(4).sum() for k in range(1, 5))  # type: ignore[return-value]


def arrowhead(x: Tensor) -> Tensor:
    return torch.cos(x[1:] + x[0]).sum() + torch.sin(x).sum()


def minimal_surface(z: Tensor) -> Tensor:
    a, b = z[1:, 1:] - z[:-1, :-1], z[1:, :-1] - z[:-1, 1:]
    return torch.sqrt(1 + a * a + b * b).sum()


def hessian_of(func: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return torch.func.grad(func)


CASES = {
    "Brusselator": Case(brusselator, (normal(2, 6, 6),), 1),
    "shallow water": Case(shallow_water, (normal(3, 6, 6) + 4,), 1),
    "gather and scatter": Case(gather_scatter(), (normal(12),), 1),
    "mass and spring mesh": Case(spring_mesh(), (normal(9, 3) * 4,), 6, 3),
    "Rosenbrock Hessian": Case(hessian_of(rosenbrock), (normal(9),), 2),
    "banded quartic Hessian": Case(hessian_of(banded_quartic), (normal(12),), 1),
    "arrowhead Hessian": Case(hessian_of(arrowhead), (normal(9),), 1),
    "minimal surface Hessian": Case(hessian_of(minimal_surface), (normal(5, 5),), 2),
    "complex edge flows": Case(edge_flows(), (normal(2, 81),), 6, 3),
    "a Runge-Kutta step": Case(runge_kutta, (normal(2, 8, 8),), 4, 4),
    "two stencils": Case(two_stencils, (normal(9, 9),), 2, 2),
    "elementwise and transposed": Case(lambda x: (x * x).t() * 3, (normal(4, 5),), 1),
    "a fixed matrix": Case(lambda x: torch.sin(x) @ MATRIX, (normal(3, 5),), 1),
    "a fixed convolution": Case(
        lambda x: F.conv2d(torch.tanh(x), LAPLACE, padding=1), (normal(1, 1, 7, 6),), 1
    ),
}


def moved(args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(a * 1.3 + 0.21 for a in args)


@pytest.mark.parametrize("name", CASES)
def test_products_and_values(name: str) -> None:
    case = CASES[name]
    plan = pb.plan_jacobian(case.func, *case.args, argnums=case.argnums, lift=True)
    assert plan.lifted, plan.notes
    assert plan.num_products <= case.products
    assert plan.lift is not None
    assert len(plan.lift.factors) <= case.factors
    jac = pb.jacobian(case.func, argnums=case.argnums, plan=plan)
    for args in (case.args, moved(case.args)):
        expected = matrix_of(case.func, *args, argnums=case.argnums)
        for chunk in (None, 1):
            jac = pb.jacobian(case.func, argnums=case.argnums, plan=plan, chunk_size=chunk)
            assert_close(whole(jac(*args)), expected, rtol=1e-9, atol=1e-9)
            assert jac.engine == "replay"


@pytest.mark.parametrize("name", CASES)
def test_plans_agree_whether_they_are_lifted_or_not(name: str) -> None:
    case = CASES[name]
    plans = [
        pb.plan_jacobian(case.func, *case.args, argnums=case.argnums, lift=lift)
        for lift in (True, False, "auto")
    ]
    for plan in plans[1:]:
        assert torch.equal(plan.pattern.rows, plans[0].pattern.rows)
        assert torch.equal(plan.pattern.cols, plans[0].pattern.cols)
    assert not plans[1].lifted
    found = [
        pb.jacobian(case.func, argnums=case.argnums, plan=p)(*case.args).values() for p in plans
    ]
    for values in found[1:]:
        assert_close(values, found[0], rtol=1e-9, atol=1e-9)


def test_bundle_adjustment_takes_two() -> None:
    program = next(p for p in PROGRAMS if p.lifted_products == 2)
    func, args = program.make()
    plan = pb.plan_jacobian(func, *args, argnums=program.argnums, lift=True)
    assert plan.lifted
    assert plan.num_products == 2


@pytest.mark.parametrize("mode", ["rev", "fwd"])
def test_the_mode_is_that_of_the_differentiated_part(mode: str) -> None:
    for name in ("Brusselator", "gather and scatter", "two stencils"):
        case = CASES[name]
        plan = pb.plan_jacobian(case.func, *case.args, lift=True, mode=mode)
        assert plan.lifted
        assert plan.mode == mode
        jac = pb.jacobian(case.func, plan=plan)
        for args in (case.args, moved(case.args)):
            assert_close(whole(jac(*args)), matrix_of(case.func, *args), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", ["mixed", "dense"])
def test_other_modes_color_the_whole(mode: str) -> None:
    case = CASES["Brusselator"]
    plan = pb.plan_jacobian(case.func, *case.args, lift=True, mode=mode)
    assert not plan.lifted
    assert plan.notes[-1].endswith(f"nothing is lifted: mode '{mode}' was asked for")


def test_nothing_to_lift_is_said() -> None:
    x = normal(4)
    for func in (torch.sin, lambda x: x):
        plan = pb.plan_jacobian(func, x, lift=True)
        assert not plan.lifted
        assert "nothing but its differentiated part would be left" in plan.notes[-1]
    given = pb.plan_jacobian(
        lambda x: x.roll(1) ** 2, x, lift=True, pattern=torch.ones(4, 4).bool()
    )
    assert not given.lifted
    assert "the pattern was given" in given.notes[-1]
    nothing = pb.plan_jacobian(lambda x: x.detach(), x, lift=True)
    assert "the Jacobian has no entry" in nothing.notes[-1]


def test_a_whole_linear_function_takes_no_product_and_no_seeds() -> None:
    x = normal(6)
    func = lambda x: 3 * x.roll(1) - x.flip(0) / 7  # noqa: E731
    plan = pb.plan_jacobian(func, x, lift=True)
    assert (plan.lifted, plan.num_products) == (True, 0)
    jac = pb.jacobian(func, plan=plan)
    assert_close(whole(jac(x)), matrix_of(func, x))
    assert_close(whole(pb.jacobian(func, layout=CSR)(x)), matrix_of(func, x))
