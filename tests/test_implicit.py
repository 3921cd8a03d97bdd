"""``implicit_vjp``: against finite differences, an unrolled solver, and closed forms."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import root
from scipy.sparse.linalg import spsolve
from torch import Tensor
from torch.autograd import grad, gradcheck, gradgradcheck

import pullback as pb
from pullback import _factors, _implicit
from pullback.interop.scipy import residual as for_scipy

N = 5
MIX = 0.4 * torch.randn(N, N, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def drawn(*shape: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.rand(shape, dtype=torch.float64, generator=g).requires_grad_()


def coupled(x: Tensor, gains: dict[str, Tensor], shift: Tensor) -> Tensor:
    return x + x**3 + gains["gain"] * torch.tanh(MIX @ x) - shift


def newton(gain: Tensor, shift: Tensor, steps: int = 40) -> Tensor:
    """Differentiable in both: the unrolled iteration."""
    x = torch.zeros(N, dtype=torch.float64)
    for _ in range(steps):
        J = torch.func.jacrev(coupled)(x, {"gain": gain}, shift)
        x = x - torch.linalg.solve(J, coupled(x, {"gain": gain}, shift))
    return x


def solved(gain: Tensor, shift: Tensor, **options: Any) -> Tensor:
    with torch.no_grad():
        x = newton(gain, shift)
    return pb.implicit_vjp(coupled, x, {"gain": gain}, shift, **options)


GAIN, SHIFT = drawn(N, seed=1), drawn(N, seed=2)


class TestDerivatives:
    def test_first_and_second_are_those_of_finite_differences(self) -> None:
        assert gradcheck(solved, (GAIN, SHIFT))
        assert gradgradcheck(solved, (GAIN, SHIFT))

    def test_third_order(self) -> None:
        def first(gain: Tensor, shift: Tensor) -> Tensor:
            (found,) = grad((solved(gain, shift) ** 2).sum(), gain, create_graph=True)
            return found

        assert gradgradcheck(first, (GAIN, SHIFT))

    def test_they_are_those_of_the_unrolled_solver(self) -> None:
        v = drawn(N, seed=3).detach()
        implicit, unrolled = solved(GAIN, SHIFT), newton(GAIN, SHIFT)
        torch.testing.assert_close(implicit, unrolled)
        ours = grad(implicit, (GAIN, SHIFT), v, create_graph=True)
        theirs = grad(unrolled, (GAIN, SHIFT), v, create_graph=True)
        torch.testing.assert_close(ours, theirs)
        second = [grad(sum(t.sin().sum() for t in g), (GAIN, SHIFT)) for g in (ours, theirs)]  # type: ignore[arg-type]
        torch.testing.assert_close(*second)

    def test_a_root_of_scipy(self) -> None:
        gain, shift = GAIN.detach(), SHIFT.detach()
        r = for_scipy(lambda x: coupled(x, {"gain": gain}, shift), np.zeros(N), dense=True)
        found = root(r.fun, np.zeros(N), jac=r.jac, tol=1e-12)
        x = pb.implicit_vjp(coupled, torch.from_numpy(found.x), {"gain": GAIN}, SHIFT)
        torch.testing.assert_close(
            grad(x.sum(), (GAIN, SHIFT)), grad(newton(GAIN, SHIFT).sum(), (GAIN, SHIFT))
        )

    def test_a_linear_system_and_its_closed_form(self) -> None:
        A = (torch.eye(4, dtype=torch.float64) * 3 + drawn(4, 4, seed=4)).detach().requires_grad_()
        b, v = drawn(4, seed=5), drawn(4, seed=6).detach()
        x = pb.implicit_vjp(lambda x, A, b: A @ x - b, torch.linalg.solve(A, b), A, b)
        expected = torch.linalg.solve(A, b)
        torch.testing.assert_close(grad(x, (A, b), v), grad(expected, (A, b), v))

    def test_the_solution_may_have_any_shape(self) -> None:
        a = drawn(2, 3, seed=7)
        x = pb.implicit_vjp(lambda x, a: (x**2 - a).T, a.detach().sqrt(), a)
        assert x.shape == (2, 3)
        torch.testing.assert_close(grad(x.sum(), a)[0], 0.5 / a.detach().sqrt())
        scalar = drawn(seed=8)
        y = pb.implicit_vjp(lambda y, s: y**3 - s, scalar.detach() ** (1 / 3), scalar)
        torch.testing.assert_close(grad(y, scalar)[0], scalar.detach() ** (-2 / 3) / 3)

    def test_a_solution_without_elements(self) -> None:
        a = drawn(0, seed=19)
        x = pb.implicit_vjp(lambda x, a: x - a, a.detach(), a)
        assert grad(x.sum(), a)[0].shape == (0,)

    def test_several_cotangents_factorize_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = []
        real = _implicit.Factors

        def counted(*args: Any) -> Any:
            made.append(1)
            return real(*args)

        monkeypatch.setattr(_implicit, "Factors", counted)
        x = solved(GAIN, SHIFT)
        rows = [grad(x, SHIFT, v, retain_graph=True)[0] for v in torch.eye(N).double()]
        assert made == [1]
        expected = torch.autograd.functional.jacobian(lambda s: newton(GAIN, s), SHIFT)
        torch.testing.assert_close(torch.stack(rows), expected.detach())
        (first,) = grad(x.sum(), SHIFT, create_graph=True)
        grad(first.sum(), SHIFT)
        assert made == [1]

    def test_a_straight_through_estimator_counts_as_it_behaves(self) -> None:
        class Rounded(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, t: Tensor) -> Tensor:
                return t.round()

            @staticmethod
            def backward(ctx: Any, *v: Tensor) -> Any:
                return v[0]

        a = torch.tensor([2.2, 7.9], dtype=torch.float64, requires_grad=True)
        at = a.detach().round() / 2
        x = pb.implicit_vjp(lambda x, a: 2 * x - Rounded.apply(a), at, a)  # type: ignore[no-untyped-call]
        torch.testing.assert_close(grad(x.sum(), a)[0], torch.full_like(a, 0.5))

    def test_the_parameters_of_a_module(self) -> None:
        """A deep equilibrium: x = net(x) + u, differentiated in the weights."""
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh()).double()
        for p in net.parameters():
            p.data *= 0.3
        u = drawn(3, 4, seed=9)

        def equation(x: Tensor, weights: dict[str, Tensor], u: Tensor) -> Tensor:
            return torch.func.functional_call(net, weights, (x,)) + u - x

        x = torch.zeros(3, 4, dtype=torch.float64)
        for _ in range(100):
            x = net(x) + u
        weights = dict(net.named_parameters())
        root = pb.implicit_vjp(equation, x, weights, u)
        wanted = (*weights.values(), u)
        torch.testing.assert_close(grad(root.sum(), wanted), grad(x.sum(), wanted))

    def test_a_matrix_made_by_hand_or_planned_once(self) -> None:
        expected = grad(solved(GAIN, SHIFT).sum(), (GAIN, SHIFT))

        def dense(x: Tensor, gains: dict[str, Tensor], shift: Tensor) -> Tensor:
            return torch.func.jacrev(coupled)(x, gains, shift)

        for jac in (
            pb.jacobian(coupled, layout="scipy"),
            pb.jacobian(coupled, layout=torch.sparse_csr),
            pb.jacobian(coupled, layout=torch.sparse_coo),
            dense,
            lambda *a: dense(*a).numpy(),
        ):
            for _ in range(2):
                found = grad(solved(GAIN, SHIFT, jac=jac).sum(), (GAIN, SHIFT))
                torch.testing.assert_close(found, expected)

    def test_a_large_grid_is_solved_sparsely(self) -> None:
        n = 60
        f = drawn(n, n, seed=10)

        def heat(x: Tensor, f: Tensor) -> Tensor:
            around = torch.nn.functional.pad(x, (1, 1, 1, 1))
            beside = around[2:, 1:-1] + around[:-2, 1:-1] + around[1:-1, 2:] + around[1:-1, :-2]
            return 4 * x - beside + x**3 - f

        jac = pb.jacobian(heat, layout="scipy")
        x = torch.zeros(n, n, dtype=torch.float64)
        with torch.no_grad():
            for _ in range(20):
                step = spsolve(jac(x, f).tocsc(), heat(x, f).reshape(-1).numpy())
                x = x - torch.from_numpy(step).view(n, n)
        found = pb.implicit_vjp(heat, x, f, jac=jac)
        (gradient,) = grad(found.sum(), f)
        # J is symmetric: the gradient of the sum solves J w = 1.
        ones = jac(x, f.detach()) @ gradient.reshape(-1).numpy()
        np.testing.assert_allclose(ones, 1, atol=1e-10)


class TestAsAPartOfOtherFunctions:
    """What comes before and after the root, and all rows at once."""

    @staticmethod
    def response(a: Tensor) -> Tensor:
        """x + x**3 = a * (its neighbour), doubled: the root comes by numpy."""

        def equation(x: Tensor, c: Tensor) -> Tensor:
            return x + x**3 - c

        c = a * a.roll(1)
        x = np.zeros(len(a))
        for _ in range(60):
            x = x - (x + x**3 - c.detach().numpy()) / (1 + 3 * x**2)
        return 2 * pb.implicit_vjp(equation, torch.from_numpy(x), c)

    @staticmethod
    def truth(a: Tensor) -> Tensor:
        x = TestAsAPartOfOtherFunctions.response(a) / 2
        by_c = 2 / (1 + 3 * x**2)
        n = len(a)
        rows = torch.zeros(n, n, dtype=a.dtype)
        for k in range(n):
            rows[k, k] += by_c[k] * a[k - 1]
            rows[k, k - 1] += by_c[k] * a[k]
        return rows

    @pytest.mark.parametrize("layout", [torch.strided, "scipy"])
    def test_a_jacobian_of_it(self, layout: Any) -> None:
        jac = pb.jacobian(self.response, layout=layout)
        for seed in range(5):
            a = drawn(4, seed=seed).detach()
            found = jac(a)
            matrix = found if layout is torch.strided else torch.from_numpy(found.toarray())
            torch.testing.assert_close(matrix, self.truth(a))

    def test_all_rows_are_one_solve(self, monkeypatch: pytest.MonkeyPatch) -> None:
        a = drawn(4, seed=30).detach()
        _, pull = pb.vjp(self.response, a)
        solves = []
        real = _factors.Factors.solve

        def counted(*args: Any) -> Any:
            solves.append(1)
            return real(*args)

        monkeypatch.setattr(_factors.Factors, "solve", counted)
        rows = pull.batched(torch.eye(4, dtype=torch.float64))[0]
        assert pull.engine == "vmap"
        assert solves == [1]
        torch.testing.assert_close(rows, self.truth(a))

    def test_products_along_tangents(self) -> None:
        a, t = drawn(4, seed=31).detach(), drawn(4, seed=32).detach()
        torch.testing.assert_close(pb.jvp(self.response, (a,), (t,))[1], self.truth(a) @ t)

    def test_single_precision_beside_double(self) -> None:
        a = drawn(3, seed=33)
        x = pb.implicit_vjp(lambda x, a: x**2 - a, a.detach().sqrt().float(), a)
        assert x.dtype == torch.float32
        (gradient,) = grad(x.sum(), a)
        assert gradient.dtype == torch.float64
        torch.testing.assert_close(gradient, 0.5 / a.detach().sqrt(), rtol=1e-6, atol=0)


class TestWhatNeedsGradients:
    def test_only_what_requires_grad_receives_one(self) -> None:
        gain = GAIN.detach()
        x = solved(gain, SHIFT)
        x.sum().backward(inputs=[SHIFT])
        assert SHIFT.grad is not None
        SHIFT.grad = None
        assert gain.grad is None

    def test_nothing_requires_grad(self) -> None:
        x = solved(GAIN.detach(), SHIFT.detach())
        assert not x.requires_grad
        with torch.no_grad():
            assert not solved(GAIN, SHIFT).requires_grad

    def test_numbers_and_strings_pass_through(self) -> None:
        a = drawn(3, seed=11)
        x = pb.implicit_vjp(
            lambda x, a, k, how: (x**k - a) if how == "power" else x, a.detach() ** (1 / 3), a, 3,
            "power",
        )  # fmt: skip
        torch.testing.assert_close(grad(x.sum(), a)[0], a.detach() ** (-2 / 3) / 3)

    def test_the_graph_of_the_solution_is_not_followed(self) -> None:
        a = drawn(3, seed=12)
        x = pb.implicit_vjp(lambda x, a: x**2 - a, a.sqrt(), a)
        torch.testing.assert_close(grad(x.sum(), a)[0], 0.5 / a.detach().sqrt())

    def test_the_result_is_memory_of_its_own(self) -> None:
        a = torch.tensor([4.0, 9.0], requires_grad=True)
        solution = a.detach().sqrt()
        x = pb.implicit_vjp(lambda x, a: x**2 - a, solution, a)
        solution.zero_()
        assert x.tolist() == [2.0, 3.0]
        torch.testing.assert_close(grad(x.sum(), a)[0], torch.tensor([0.25, 1 / 6]))

    def test_parameters_with_a_graph_of_their_own(self) -> None:
        t = drawn(3, seed=13)
        a = t.exp()
        x = pb.implicit_vjp(lambda x, a: x**2 - a, a.detach().sqrt(), a)
        torch.testing.assert_close(grad(x.sum(), t)[0], (t.detach() / 2).exp() / 2)


class TestRefusals:
    def test_a_point_that_is_no_root(self) -> None:
        a = torch.tensor([4.0, 9.0], dtype=torch.float64, requires_grad=True)
        equation = lambda x, a: x**2 - a  # noqa: E731
        off = a.detach().sqrt() + 0.01
        text = (
            "implicit_vjp: `solution` is no root of `residual`: |residual| is 0.0601, and a Newton "
            "step from there has length 0.00998, where 1.82e-05 is allowed."
        )
        with pytest.raises(pb.ArgumentError, match=re.escape(text)):
            pb.implicit_vjp(equation, off, a)
        for tolerance in (0.01, float("inf")):
            assert pb.implicit_vjp(equation, off, a, tolerance=tolerance).requires_grad
        with pytest.raises(pb.ArgumentError, match="no root"):
            pb.implicit_vjp(equation, torch.full_like(off, float("nan")), a)

    def test_scales_of_equations_play_no_part(self) -> None:
        a = torch.tensor([4.0, 9.0], dtype=torch.float64, requires_grad=True)
        for scale in (1e-12, 1e12):
            good = pb.implicit_vjp(lambda x, a, s=scale: s * (x**2 - a), a.detach().sqrt(), a)
            torch.testing.assert_close(grad(good.sum(), a)[0], 0.5 / a.detach().sqrt())
            with pytest.raises(pb.ArgumentError, match="no root"):
                pb.implicit_vjp(lambda x, a, s=scale: s * (x**2 - a), a.detach().sqrt() + 0.1, a)

    def test_a_root_that_is_not_isolated(self) -> None:
        a = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
        text = "the residual's Jacobian with respect to the solution is singular"
        for equation in (
            lambda x, a: (x - a) ** 2,
            lambda x, a: x.diff(append=x[:1]) - a.diff(append=a[:1]),
        ):
            with pytest.raises(pb.GraphError, match=text):
                pb.implicit_vjp(equation, a.detach(), a)
            late = pb.implicit_vjp(equation, a.detach(), a, tolerance=float("inf"))
            with pytest.raises(pb.GraphError, match=text):
                late.sum().backward()

    def test_parameters_that_nobody_passed(self) -> None:
        a, hidden = drawn(3, seed=14), drawn(3, seed=15)
        with pytest.raises(pb.ArgumentError, match="requires grad and is none of `params`"):
            pb.implicit_vjp(lambda x, a: x - a * hidden, (a * hidden).detach(), a)

    def test_other_numbers_of_equations(self) -> None:
        a = drawn(3, seed=16)
        with pytest.raises(pb.ArgumentError, match="has 2 elements and `solution` 3"):
            pb.implicit_vjp(lambda x, a: (x - a)[1:], a.detach(), a)

    @pytest.mark.parametrize(
        ("solution", "error", "text"),
        [
            (np.zeros(3), pb.TreeError, "`solution` is a ndarray, not a tensor"),
            (torch.zeros(3, dtype=torch.complex64), pb.UnsupportedError, "`solution` is complex"),
            (torch.zeros(3, dtype=torch.int64), pb.ArgumentError, "`solution` has dtype int64"),
        ],
    )
    def test_solutions_of_other_kinds(self, solution: Any, error: Any, text: str) -> None:
        with pytest.raises(error, match=text):
            pb.implicit_vjp(lambda x, a: x - a, solution, drawn(3, seed=17))

    def test_no_parameters(self) -> None:
        with pytest.raises(pb.ArgumentError, match="`params` is empty"):
            pb.implicit_vjp(lambda x: x, torch.zeros(3))

    def test_a_matrix_of_another_shape(self) -> None:
        a = drawn(3, seed=18)
        with pytest.raises(
            pb.ArgumentError, match=re.escape("`jac` gives a matrix of shape (2, 3)")
        ):
            pb.implicit_vjp(lambda x, a: x - a, a.detach(), a, jac=lambda *_: np.zeros((2, 3)))

    def test_parameters_and_roots_written_to_afterwards(self) -> None:
        a = torch.tensor([4.0, 9.0], requires_grad=True)
        x = pb.implicit_vjp(lambda x, a: x**2 - a, a.detach().sqrt(), a)
        with torch.no_grad():
            a.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            x.sum().backward()
        constant, b = torch.ones(2), torch.tensor([4.0, 9.0], requires_grad=True)
        late = pb.implicit_vjp(
            lambda x, b, c: x**2 - b * c, b.detach().sqrt(), b, constant, tolerance=float("inf")
        )
        constant.mul_(2)
        with pytest.raises(pb.GraphError, match="changed in place after the call"):
            late.sum().backward()

    def test_transforms_of_torch_func(self) -> None:
        a = torch.tensor([4.0, 9.0])
        with pytest.raises(pb.UnsupportedError, match=re.escape("torch.func")):
            torch.func.grad(
                lambda a: pb.implicit_vjp(lambda x, a: x**2 - a, a.detach().sqrt(), a).sum()
            )(a)
