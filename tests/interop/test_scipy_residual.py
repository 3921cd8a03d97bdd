"""``residual`` and ``ode``: what SciPy's solvers find with them, and the border of numpy and torch."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import NonlinearConstraint, least_squares, minimize, root
from scipy.optimize._numdiff import approx_derivative
from scipy.sparse.linalg import gmres
from torch import Tensor

import pullback as pb
from pullback.interop.scipy import ode, residual


def banded(x: Tensor) -> Tensor:
    """Broyden's tridiagonal equations, one unknown more than equations lost at both ends."""
    left = torch.nn.functional.pad(x[:-1], (1, 0))
    right = torch.nn.functional.pad(x[1:], (0, 1))
    return (3 - 2 * x) * x - left - 2 * right + 1


def chain(x: Tensor) -> Tensor:
    return torch.cat([10 * (x[1:] - x[:-1] ** 2), 1 - x[:-1]])


def brusselator(n: int) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor]:
    at = torch.arange(n, dtype=torch.float64) / n
    start = torch.stack(
        [(22 * at * (1 - at) ** 1.5).expand(n, n), (27 * at * (1 - at) ** 1.5).expand(n, n).T]
    )

    def rate(t: Tensor, state: Tensor) -> Tensor:
        u, v = state
        beside = state.roll(1, 1) + state.roll(-1, 1) + state.roll(1, 2) + state.roll(-1, 2)
        heat = 5.0 * (t >= 0.5)
        reaction = torch.stack([1 + u**2 * v - 4.4 * u + heat, 3.4 * u - u**2 * v])
        return reaction + n**2 / 10 * (beside - 4 * state)

    return rate, start


def differences(fun: Callable[..., Any], x: np.ndarray) -> np.ndarray:
    return approx_derivative(fun, x, method="3-point", rel_step=1e-5)


class TestResidual:
    def test_value_and_jacobian_are_those_of_numpy_and_finite_differences(self) -> None:
        r = residual(banded, np.zeros(12))
        for seed in range(5):
            x = np.random.default_rng(seed).standard_normal(12)
            shifted = np.r_[0, x[:-1]], np.r_[x[1:], 0]
            np.testing.assert_allclose(
                r.fun(x), (3 - 2 * x) * x - shifted[0] - 2 * shifted[1] + 1, atol=1e-14
            )
            np.testing.assert_allclose(r.jac(x).toarray(), differences(r.fun, x), atol=1e-8)

    def test_least_squares_goes_the_way_of_finite_differences(self) -> None:
        x0 = np.full(20, -1.0)
        r = residual(chain, x0)
        options: Any = {"tr_solver": "lsmr", "x_scale": "jac", "method": "trf", "xtol": 1e-14}
        ours = least_squares(r.fun, x0, jac=r.jac, **options)
        theirs = least_squares(r.fun, x0, jac_sparsity=r.jac_sparsity, **options)
        np.testing.assert_allclose(ours.x, np.ones(20), atol=1e-8)
        np.testing.assert_allclose(theirs.x, ours.x, atol=1e-6)
        assert scipy.sparse.issparse(ours.jac)

    @pytest.mark.parametrize("together", [False, True])
    def test_root_takes_the_dense_matrix(self, together: bool) -> None:
        x0 = np.full(15, -1.0)
        r = residual(banded, x0, dense=True, together=together)
        separate = root(r.fun, x0, jac=r.jac, tol=1e-12)
        at_once = root(r.both, x0, jac=True, tol=1e-12)
        without = root(r.fun, x0, tol=1e-12)
        for found in (separate, at_once):
            assert found.success
            np.testing.assert_allclose(found.x, without.x, atol=1e-10)

    @pytest.mark.parametrize("loss", ["soft_l1", "huber"])
    def test_a_robust_loss_scales_the_matrices_in_place_and_harms_nobody(self, loss: str) -> None:
        x0 = np.full(8, -1.0)
        for together in (False, True):
            r = residual(chain, x0, together=together)
            found = least_squares(r.fun, x0, jac=r.jac, loss=loss, tr_solver="lsmr")
            expected = least_squares(r.fun, x0, loss=loss)
            np.testing.assert_allclose(found.x, expected.x, atol=1e-6)
            np.testing.assert_allclose(
                r.jac(x0).toarray(), differences(residual(chain, x0).fun, x0), atol=1e-8
            )

    def test_newton_by_a_sparse_factorization(self) -> None:
        r = residual(banded, np.zeros(300))
        x = np.full(300, -1.0)
        for _ in range(8):
            x = x - scipy.sparse.linalg.spsolve(r.jac(x).tocsc(), r.fun(x))
        assert abs(r.fun(x)).max() < 1e-13

    def test_the_operator_multiplies_as_the_matrix_does(self) -> None:
        x = np.linspace(-1, 1, 9)
        r = residual(chain, x)
        J, matrix = r.linear_operator(x), r.jac(x)
        t, v = np.random.default_rng(0).standard_normal((2, 9))
        np.testing.assert_allclose(J @ t, matrix @ t, atol=1e-13)
        np.testing.assert_allclose(
            J.rmatvec(np.r_[v, v[:7]]), matrix.T @ np.r_[v, v[:7]], atol=1e-13
        )
        square = residual(banded, x)
        step, failed = gmres(square.linear_operator(x), square.fun(x), rtol=1e-10)
        assert not failed
        np.testing.assert_allclose(square.jac(x) @ step, square.fun(x), atol=1e-8)

    def test_the_hessian_of_a_constraint(self) -> None:
        x = np.array([0.5, -0.3, 0.8, 0.1])
        r = residual(lambda x: torch.stack([(x**2).sum(), x[0] * x[1] ** 3]), x)
        expected = 2 * np.eye(4) * 3 + 0.5 * np.array(
            [
                [0, 3 * x[1] ** 2, 0, 0],
                [3 * x[1] ** 2, 6 * x[0] * x[1], 0, 0],
                [0, 0, 0, 0],
                [0, 0, 0, 0],
            ]
        )
        found = r.hess(x, np.array([3.0, 0.5]))
        np.testing.assert_allclose(found.toarray(), expected, atol=1e-14)
        ball = residual(lambda x: (x**2).sum().reshape(1), x)
        limit = NonlinearConstraint(ball.fun, -np.inf, 1.0, jac=ball.jac, hess=ball.hess)
        least = minimize(
            lambda x: -x.sum(), x, jac=lambda x: -np.ones(4), hess=lambda x: np.zeros((4, 4)),
            constraints=[limit], method="trust-constr", options={"gtol": 1e-9, "xtol": 1e-10},
        )  # fmt: skip
        np.testing.assert_allclose(least.x, np.full(4, 0.5), atol=1e-4)

    def test_a_plan_made_before(self) -> None:
        plan = pb.plan_jacobian(banded, torch.zeros(6, dtype=torch.float64))
        r = residual(banded, np.zeros(6), plan=plan)
        assert r.plan is plan
        assert (r.jac_sparsity.toarray() != 0).sum() == 16
        with pytest.raises(pb.ArgumentError, match="the plan was made for"):
            residual(banded, np.zeros(7), plan=plan)

    def test_says_what_it_is(self) -> None:
        assert repr(residual(banded, np.zeros(6))) == (
            "residual(banded): Jacobian 6 × 6, 16 nonzeros, 1 product"
        )


class TestState:
    """What ``func`` reads besides x may change between two calls."""

    @pytest.mark.parametrize("together", [False, True])
    def test_other_parameters_are_other_values(self, together: bool) -> None:
        scale, settings, memory = torch.ones(()), {"power": 2}, np.ones(3)
        shared = torch.from_numpy(memory)
        r = residual(
            lambda x, s: s * x ** settings["power"] * shared, np.ones(3), args=(scale,),
            together=together,
        )  # fmt: skip
        x = np.array([1.0, 2.0, 3.0])

        def expected() -> tuple[np.ndarray, np.ndarray]:
            k, s = settings["power"], float(scale)
            return s * x**k * memory, np.diag(s * k * x ** (k - 1) * memory)

        def agrees() -> None:
            value, matrix = expected()
            np.testing.assert_allclose(r.fun(x), value)
            np.testing.assert_allclose(r.jac(x).toarray(), matrix)
            np.testing.assert_allclose(r.fun(x), value)

        agrees()
        scale.fill_(3.0)
        agrees()
        settings["power"] = 3
        agrees()
        memory[:] = [1, 5, 7]  # past torch's count of writes
        agrees()
        r.fun(x)
        memory[1] = -1.0
        np.testing.assert_allclose(r.jac(x).toarray(), expected()[1])

    def test_one_evaluation_serves_both_where_it_is_wanted(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        r, x = residual(banded, np.zeros(5), together=True), np.arange(5.0)
        expected = residual(banded, np.zeros(5)).both(x)

        def refuse(*_: object) -> None:
            raise AssertionError("evaluated again")

        value = r.fun(x)
        with monkeypatch.context() as patch:
            patch.setattr(r, "_valued", refuse)
            matrix = r.jac(x.copy())
            again = r.fun(x)
            with pytest.raises(AssertionError, match="evaluated again"):
                r.jac(x)  # the solver has the matrix, and may have written into it
        for found in (value, again):
            np.testing.assert_array_equal(found, expected[0])
        np.testing.assert_array_equal(matrix.toarray(), expected[1].toarray())

    def test_the_point_is_told_by_content_not_by_identity(self) -> None:
        r = residual(lambda x: x**2, np.ones(2), together=True)
        x = np.array([1.0, 2.0])
        r.fun(x)
        x[:] = [3.0, 4.0]
        np.testing.assert_array_equal(r.jac(x).toarray(), np.diag([6.0, 8.0]))
        np.testing.assert_array_equal(r.fun(x), [9.0, 16.0])
        x[0] = -0.0
        np.testing.assert_array_equal(r.fun(x), [0.0, 16.0])

    @pytest.mark.parametrize("together", [False, True])
    def test_nothing_handed_out_changes_later(self, together: bool) -> None:
        r = residual(banded, np.zeros(7), together=together)
        points = np.random.default_rng(0).standard_normal((8, 7))
        kept = [(r.fun(x), r.jac(x), r.fun(x), r.jac(x)) for x in points]
        fresh = residual(banded, np.zeros(7))
        for x, (value, matrix, again, second) in zip(points, kept, strict=True):
            np.testing.assert_array_equal(value, fresh.fun(x))
            np.testing.assert_array_equal(again, value)
            np.testing.assert_allclose(matrix.toarray(), fresh.jac(x).toarray(), atol=1e-15)
            np.testing.assert_allclose(second.toarray(), matrix.toarray(), atol=1e-15)

    @pytest.mark.parametrize("func", [lambda x: x, lambda x: x.view(-1), lambda x: 2 * x])
    def test_writing_into_what_was_handed_out_changes_nothing(self, func: Any) -> None:
        x = np.arange(4.0)
        r = residual(func, x, together=True)
        expected, matrix = r.fun(x).copy(), r.jac(x).toarray()
        for _ in range(6):
            value, jac = r.both(x)
            value[:], jac.data[:], jac.indices[:] = np.nan, np.nan, 0
            r.fun(x)[:] = np.nan
            r.jac(x).data[:] = np.nan
            np.testing.assert_array_equal(x, np.arange(4.0))
            np.testing.assert_array_equal(r.fun(x), expected)
            np.testing.assert_array_equal(r.jac(x).toarray(), matrix)


class TestBorder:
    def test_func_sees_the_memory_of_the_solver(self) -> None:
        seen: list[int] = []

        def func(x: Tensor) -> Tensor:
            seen.append(x.data_ptr())
            return x * 2

        r = residual(func, np.zeros((2, 3)))
        x = np.arange(6.0)
        np.testing.assert_array_equal(r.fun(x), 2 * x)
        assert seen[-1] == x.ctypes.data

    @pytest.mark.parametrize(
        "array",
        [
            np.arange(6.0)[::-1],
            np.arange(12.0)[::2],
            np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            np.arange(6, dtype=np.float32),
            np.arange(6),
            np.arange(6.0).astype(">f8"),
            [0.0, 1, 2, 3, 4, 5],
        ],
        ids=["backward", "strided", "fortran", "float32", "int", "swapped", "list"],
    )
    def test_arrays_of_every_kind(self, array: Any) -> None:
        r = residual(lambda x: (x**2).flatten(), np.zeros((2, 3)))
        flat = np.asarray(array, dtype=np.float64).reshape(-1)
        np.testing.assert_allclose(r.fun(array), flat**2)
        np.testing.assert_allclose(r.jac(array).toarray(), np.diag(2 * flat))

    def test_arrays_that_may_not_be_written(self) -> None:
        r = residual(lambda x: x**2, np.zeros(3))
        x = np.arange(3.0)
        x.flags.writeable = False
        np.testing.assert_array_equal(r.fun(x), [0, 1, 4])
        np.testing.assert_array_equal(r.jac(x).toarray(), np.diag([0.0, 2, 4]))

    def test_a_function_in_single_precision(self) -> None:
        r = residual(lambda x: x**2, np.zeros(3, dtype=np.float32))
        x = np.array([1.0, 2.0, 3.0])
        assert r.fun(x).dtype == r.jac(x).dtype == np.float32
        found = least_squares(residual(lambda x: x - 2, np.zeros(3, np.float32)).fun, x)
        np.testing.assert_allclose(found.x, 2, atol=1e-4)

    def test_integers_become_float64(self) -> None:
        assert residual(lambda x: x / 2, [1, 2]).fun([1, 2]).dtype == np.float64

    def test_a_function_that_writes_into_its_argument(self) -> None:
        text = "residual: `func` wrote into `x` in place"
        with pytest.raises(pb.ArgumentError, match=text):
            residual(lambda x: x.mul_(0.5).exp(), np.zeros(3))
        late: list[int] = []
        r = residual(lambda x: x.mul_(0.5) if late else x * 0.5, np.zeros(3))
        late.append(1)
        with pytest.raises(pb.ArgumentError, match=text):
            r.fun(np.arange(3.0))
        copying = residual(lambda x: x.clone().mul_(0.5).exp(), np.zeros(3))
        x = np.arange(3.0)
        np.testing.assert_allclose(copying.jac(x).diagonal(), np.exp(x / 2) / 2)
        np.testing.assert_array_equal(x, np.arange(3.0))

    def test_a_size_that_is_not_the_prepared_one(self) -> None:
        r = residual(banded, np.zeros((6,)))
        text = (
            "residual: `x` has 5 elements, shape (5,), but the function was prepared for 6, shape "
            "(6,). Prepare it again with a sample of the new size."
        )
        for call in (r.fun, r.jac, r.both, r.linear_operator):
            with pytest.raises(pb.ArgumentError, match=re.escape(text)):
                call(np.zeros(5))
        with pytest.raises(pb.ArgumentError, match="`v` has 2 elements"):
            r.hess(np.zeros(6), np.zeros(2))

    @pytest.mark.parametrize(
        ("x0", "error", "text"),
        [
            (np.zeros(3, complex), pb.UnsupportedError, "`x` is complex"),
            (torch.zeros(3, dtype=torch.bfloat16), pb.ArgumentError, "has dtype bfloat16"),
            (torch.zeros(3, dtype=torch.int64), pb.ArgumentError, "has dtype int64"),
        ],
    )
    def test_samples_that_no_solver_has(self, x0: Any, error: Any, text: str) -> None:
        with pytest.raises(error, match=text):
            residual(lambda x: x, x0)

    def test_points_that_are_no_numbers(self) -> None:
        r = residual(lambda x: x, np.zeros(2))
        with pytest.raises(pb.ArgumentError, match="it must hold real numbers"):
            r.fun(np.zeros(2, complex))

    def test_a_function_that_returns_a_pair(self) -> None:
        with pytest.raises(pb.TreeError, match="returned a tuple; a solver needs one tensor"):
            residual(lambda x: (x, x), np.zeros(2))

    @pytest.mark.parametrize("dtype", [torch.int64, torch.complex128])
    def test_a_function_that_returns_no_real_numbers(self, dtype: torch.dtype) -> None:
        text = f"`func` returned dtype {str(dtype).removeprefix('torch.')}"
        with pytest.raises(pb.ArgumentError, match=text):
            residual(lambda x: x.to(dtype), np.zeros(2))

    @pytest.mark.parametrize("together", [False, True])
    def test_modes_of_the_caller_change_nothing(self, together: bool) -> None:
        x, weight = np.arange(3.0), torch.ones(3, requires_grad=True)
        for mode in (torch.inference_mode, torch.no_grad, torch.enable_grad):
            with mode():
                r = residual(lambda x: weight * x**2, x, together=together)
                np.testing.assert_array_equal(r.fun(x), x**2)
                np.testing.assert_array_equal(r.jac(x).diagonal(), 2 * x)
                np.testing.assert_array_equal(r.hess(x, x).diagonal(), 2 * x)

    def test_flags_are_flags(self) -> None:
        for name in ("dense", "together", "compile"):
            with pytest.raises(pb.ArgumentError, match=f"`{name}` is 1"):
                residual(lambda x: x, np.zeros(2), **{name: 1})  # type: ignore[arg-type]

    def test_gradients_of_parameters_are_left_alone(self) -> None:
        net = torch.nn.Linear(3, 3).double()
        r = residual(lambda x: net(x).tanh(), np.zeros(3))
        x = np.ones(3)
        expected = differences(r.fun, x)
        np.testing.assert_allclose(r.jac(x).toarray(), expected, atol=1e-8)
        assert all(p.grad is None for p in net.parameters())


class TestOde:
    @pytest.mark.parametrize("method", ["BDF", "Radau"])
    def test_a_stiff_problem_is_solved_as_with_finite_differences(self, method: str) -> None:
        rate, start = brusselator(6)
        s = ode(rate, start)
        options: Any = {"method": method, "rtol": 1e-7, "atol": 1e-9}
        y0 = start.reshape(-1).numpy()
        ours = solve_ivp(s.fun, (0.0, 1.0), y0, jac=s.jac, **options)
        sparse = solve_ivp(s.fun, (0.0, 1.0), y0, jac_sparsity=s.jac_sparsity, **options)
        plain = solve_ivp(s.fun, (0.0, 1.0), y0, **options)
        assert ours.success
        assert s.plan.num_products == 1
        np.testing.assert_allclose(ours.y[:, -1], plain.y[:, -1], rtol=1e-5)
        np.testing.assert_allclose(ours.y[:, -1], sparse.y[:, -1], rtol=1e-5)

    def test_time_is_an_argument_and_no_reason_to_look_again(self) -> None:
        s = ode(lambda t, y: torch.sin(t) * y**2, np.ones(3))
        y = np.array([1.0, 2.0, 3.0])
        for t in np.linspace(0, 3, 12):
            np.testing.assert_allclose(s.jac(t, y).diagonal(), 2 * np.sin(t) * y, atol=1e-15)
            np.testing.assert_allclose(s.fun(t, y), np.sin(t) * y**2)
        sessions = list(s._alone._sessions.values())
        assert len(sessions) == 1
        assert sessions[0].looks == 1

    def test_a_branch_on_time_is_taken_as_it_falls(self) -> None:
        s = ode(lambda t, y: -y if t < 1 else -(y**2), np.ones(2))
        y = np.array([2.0, 3.0])
        for t, diagonal in ((0.5, [-1.0, -1.0]), (1.5, [-4.0, -6.0]), (0.7, [-1.0, -1.0])):
            np.testing.assert_array_equal(s.jac(t, y).diagonal(), diagonal)

    def test_lsoda_takes_the_dense_matrix(self) -> None:
        s = ode(lambda t, y, k: -k * y, np.ones(2), args=(torch.tensor([1.0, 50.0]),), dense=True)
        found = solve_ivp(
            s.fun, (0, 1), np.ones(2), method="LSODA", jac=s.jac, rtol=1e-9, atol=1e-12
        )
        np.testing.assert_allclose(found.y[:, -1], np.exp([-1.0, -50.0]), atol=1e-7)

    def test_a_rate_has_as_many_elements_as_the_state(self) -> None:
        with pytest.raises(pb.ArgumentError, match=re.escape("returned shape (2,) for a state")):
            ode(lambda t, y: y[1:], np.ones(3))

    def test_a_plan_made_before(self) -> None:
        rate, start = brusselator(4)
        plan = pb.plan_jacobian(rate, torch.zeros((), dtype=torch.float64), start, argnums=1)
        assert ode(rate, start, plan=plan).plan is plan
