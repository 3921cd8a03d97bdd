"""``JacobianOperator``: its shape, its products in every spelling, its engines, its refusals."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from torch import Tensor
from torch.testing import assert_close

import pullback as pb
from pullback import _engines, _torch

_torch.load_forward_mode()


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def residual(x: Tensor) -> Tensor:
    return x[1:] * x[:-1].sin()


def test_the_matrix_view_is_rows_by_columns_in_c_order() -> None:
    x = rand(2, 3)
    J = pb.JacobianOperator(lambda x: (x + 1).pow(2).t(), x)
    assert (J.shape, J.dtype) == ((6, 6), torch.float64)
    expected = torch.func.jacrev(lambda x: (x + 1).pow(2).t())(x).reshape(6, 6)
    assert_close(J.to_dense(), expected)


@pytest.mark.parametrize("argnums", [0, 1, -1, (1,), (0, 1), (1, 0)])
def test_argnums_mean_what_they_mean_in_jacrev(argnums: int | tuple[int, ...]) -> None:
    x, y = rand(3), rand(2, seed=1)

    def func(x: Tensor, y: Tensor) -> Tensor:
        return torch.outer(x, y).exp()

    blocks = torch.func.jacrev(func, argnums)(x, y)
    blocks = blocks if isinstance(blocks, tuple) else (blocks,)
    expected = torch.cat([block.reshape(6, -1) for block in blocks], dim=1)
    assert_close(pb.JacobianOperator(func, x, y, argnums=argnums).to_dense(), expected)


def test_pytrees_are_flattened_in_order_and_other_arguments_may_be_anything() -> None:
    params = {"w": rand(2, 3), "b": rand(2, seed=1)}

    def func(p: dict[str, Tensor], x: Tensor, mode: str) -> dict[str, Tensor]:
        return {"y": p["w"] @ x + p["b"], mode: p["b"].sum()}

    J = pb.JacobianOperator(func, params, rand(3, seed=2), "total")
    assert J.shape == (3, 8)
    t = torch.cat([rand(2, 3, seed=3).reshape(-1), rand(2, seed=4)])
    y = rand(2, 3, seed=3) @ rand(3, seed=2) + rand(2, seed=4)
    assert_close(J @ t, torch.cat([y, rand(2, seed=4).sum().reshape(1)]))


def test_every_spelling_of_a_product() -> None:
    x = rand(4)
    J, dense = pb.JacobianOperator(residual, x), torch.func.jacrev(residual)(x)
    t, v, T, V = rand(4, seed=1), rand(3, seed=2), rand(4, 5, seed=3), rand(5, 3, seed=4)
    for ours, theirs in (
        (J @ t, dense @ t),
        (J.matvec(t), dense @ t),
        (J @ T, dense @ T),
        (v @ J, v @ dense),
        (J.rmatvec(v), v @ dense),
        (V @ J, V @ dense),
        (torch.matmul(V, J), V @ dense),
        (torch.matmul(J, t), dense @ t),
        (J.T @ v, dense.T @ v),
        (t @ J.T, dense @ t),
        (J.T @ V.T, dense.T @ V.T),
        (T.T @ J.T, T.T @ dense.T),
        (J.T.matvec(v), v @ dense),
        (J.T.rmatvec(t), dense @ t),
        (J.to_dense(), dense),
        (J.to_dense(chunk_size=2), dense),
        (J.T.to_dense(), dense.T),
        (J @ T[:, :0], dense @ T[:, :0]),
    ):
        assert_close(ours, theirs)
    assert J.T.T is J
    assert J.T.shape == (4, 3)


@pytest.mark.parametrize("sizes", [(7, 3), (3, 7), (0, 2), (2, 0)])
def test_tall_wide_and_empty_matrices(sizes: tuple[int, int]) -> None:
    m, n = sizes
    A = rand(m, n)
    assert_close(pb.JacobianOperator(lambda x: A @ x, rand(n)).to_dense(), A)


def test_a_function_that_ignores_its_argument_is_the_zero_matrix() -> None:
    J = pb.JacobianOperator(lambda x: torch.ones(2).double(), rand(3))
    assert_close(J @ rand(3), torch.zeros(2).double())
    assert_close(J.to_dense(), torch.zeros(2, 3).double())


def test_mixed_dtypes_are_promoted() -> None:
    x, y = rand(2).float(), rand(2, seed=1)
    J = pb.JacobianOperator(lambda x, y: (x * 2, y.float()), x, y, argnums=(0, 1))
    assert J.dtype == torch.float64
    assert_close(J.to_dense(), torch.diag(torch.tensor([2.0, 2.0, 1.0, 1.0]).double()))


def test_scipy_sees_the_same_matrix_in_the_same_dtype() -> None:
    for dtype in (torch.float32, torch.float64):
        x = rand(4).to(dtype)
        J = pb.JacobianOperator(residual, x)
        A, dense = J.to_scipy(), J.to_dense().numpy()
        assert isinstance(A, scipy.sparse.linalg.LinearOperator)
        assert (A.shape, A.dtype) == (J.shape, dense.dtype)
        t, v = np.arange(4.0), np.arange(3.0)
        T, V = np.arange(8.0).reshape(4, 2), np.arange(6.0).reshape(3, 2)
        products = (A.matvec(t), A.rmatvec(v), A.matmat(T), A.rmatmat(V), A.T @ v, A @ t[:, None])
        expected = (dense @ t, dense.T @ v, dense @ T, dense.T @ V, dense.T @ v, dense @ t[:, None])
        for ours, theirs in zip(products, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5)
            assert ours.dtype == dense.dtype


def test_scipy_solves_with_it() -> None:
    x, b = rand(5), rand(5, seed=1)
    J = pb.JacobianOperator(lambda x: 3 * x + x.roll(1).sin(), x)
    solution = scipy.sparse.linalg.lsmr(J.to_scipy(), b.numpy(), atol=1e-12, btol=1e-12)[0]
    assert_close(J @ torch.from_numpy(solution), b, rtol=1e-6, atol=1e-6)


def test_products_are_differentiable_in_what_requires_grad() -> None:
    x, t = rand(4).requires_grad_(), rand(4, seed=1).requires_grad_()
    J = pb.JacobianOperator(residual, x)
    dense = torch.func.jacrev(residual)(x)
    for ours, theirs in ((J @ t, dense @ t), (t[:3] @ J, t[:3] @ dense)):
        assert_close(
            torch.autograd.grad(ours.square().sum(), (x, t), retain_graph=True),
            torch.autograd.grad(theirs.square().sum(), (x, t), retain_graph=True),
        )
    assert not (pb.JacobianOperator(residual, x.detach()) @ t.detach()).requires_grad


def test_the_point_stays_what_it_was_when_a_primal_moves_on() -> None:
    x = rand(4)
    J = pb.JacobianOperator(lambda x: 2 * x, x)
    x.add_(1)
    assert_close(J @ x, 2 * x)


class Hidden(torch.autograd.Function):
    """A square whose backward leaves autograd; forward mode is right, or wrong by ``factor``."""

    factor = 1.0

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x**2

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0].detach() * grad.detach()

    @staticmethod
    def jvp(ctx: Any, t: Tensor) -> Tensor:
        return 2 * Hidden.factor * ctx.saved_tensors[0] * t


def noisy(x: Tensor) -> Tensor:
    return Hidden.apply(x) * torch.rand(4, dtype=x.dtype)


def test_forward_mode_stands_in_with_the_draws_of_the_one_forward() -> None:
    x, t, v = rand(4), rand(4, seed=1), rand(4, seed=2)
    J = pb.JacobianOperator(noisy, x)
    state = torch.get_rng_state()
    assert J.engine == "torch.func.jvp"
    assert J.notes[0].startswith("double VJP was left: a part of the backward pass does not show")
    for _ in range(2):
        assert_close(v @ (J @ t), (v @ J) @ t)
        assert_close(J @ torch.stack([t, v], 1), torch.stack([J @ t, J @ v], 1))
    assert torch.equal(state, torch.get_rng_state())
    assert_close(J.to_dense() @ t, J @ t)


def test_forward_mode_with_another_jacobian_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hidden, "factor", 2.0)
    x = rand(4)
    J = pb.JacobianOperator(Hidden.apply, x)
    assert J.engine == "none"
    refuses(
        pb.UnsupportedError,
        "JacobianOperator: torch can push this tangent through `func` neither way.\n"
        "  Through the backward pass: a part of the backward pass does not show up when it is "
        "differentiated again; a backward that computes outside autograd, or one that is not "
        "linear in its cotangent, does that.\n"
        "  Through forward mode: it gives another Jacobian than the backward pass: <v, J t> and "
        "<J' v, t> differ at a random v and t.\n"
        "Write the backward of custom Functions with differentiable torch operations, or give them "
        "a static method jvp.",
        lambda: J @ x,
    )
    assert_close(x @ J, 2 * x * x)
    assert_close(J.to_dense(), torch.diag(2 * x))


class ReadsItsCotangent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        assert grad.sum().item() < 10
        return 2 * grad


def test_notes_tell_why_a_batch_was_looped() -> None:
    J = pb.JacobianOperator(ReadsItsCotangent.apply, rand(3))
    assert J.notes == ()
    assert_close(J.to_dense(), 2 * torch.eye(3).double())
    left = [f"{name} was left" for name in _engines.ORDER[:-1]]
    assert [note.partition(": ")[0] for note in J.notes] == left


def test_repr() -> None:
    J = pb.JacobianOperator(lambda x: (x[1:], x.sum()), torch.ones(4))
    text = (
        "JacobianOperator(shape=(4, 4), dtype=float32, outputs=2, inputs=1, "
        "J t by double VJP, J' v by VJP)"
    )
    assert repr(J) == text
    assert repr(J.T) == f"{text}.T"


def refuses(kind: type[Exception], text: str, call: Callable[[], object]) -> None:
    with pytest.raises(kind, match=f"^{re.escape(text)}$"):
        call()


def test_refusals_of_operands() -> None:
    J = pb.JacobianOperator(residual, rand(4))
    flatten = "Flatten pytrees and tensors in C order: torch.cat([t.reshape(-1) for t in ...])."
    for call, name, shape, wanted, per in (
        (lambda: J @ rand(3), "t", "(3,)", "(n,) or (n, k)", "column"),
        (lambda: J @ rand(3, 4), "t", "(3, 4)", "(n,) or (n, k)", "column"),
        (lambda: J @ rand(4, 1, 1), "t", "(4, 1, 1)", "(n,) or (n, k)", "column"),
        (lambda: J @ torch.tensor(1.0), "t", "()", "(n,) or (n, k)", "column"),
        (lambda: rand(4) @ J, "v", "(4,)", "(m,) or (k, m)", "row"),
        (lambda: J.matvec(rand(4, 1)), "t", "(4, 1)", "(n,)", "column"),
        (lambda: J.rmatvec(rand(1, 3)), "v", "(1, 3)", "(m,)", "row"),
    ):
        refuses(
            pb.ArgumentError,
            f"JacobianOperator: `{name}` has shape {shape}, but the matrix has shape (3, 4), so "
            f"`{name}` must have shape {wanted}, with one entry per {per}. {flatten}",
            call,
        )
    refuses(
        pb.ArgumentError,
        "JacobianOperator: `t` has dtype float32, but the matrix has dtype float64. Write "
        "t.to(torch.float64).",
        lambda: J @ rand(4).float(),
    )
    array = "JacobianOperator: `{}` is a ndarray, not a tensor. Pass a tensor, or use .to_scipy() "
    array += "for numpy arrays."
    refuses(pb.ArgumentError, array.format("t"), lambda: J @ np.ones(4))
    refuses(pb.ArgumentError, array.format("v"), lambda: np.ones(3) @ J)
    refuses(
        pb.ArgumentError,
        "JacobianOperator.to_dense: `chunk_size` is -1; it must be a positive whole number, or "
        "None for all products at once.",
        lambda: J.to_dense(chunk_size=-1),
    )
    refuses(
        pb.UnsupportedError,
        "JacobianOperator.to_scipy: the matrix has dtype bfloat16, which numpy does not have. "
        "Build the operator at float32 primals.",
        pb.JacobianOperator(residual, rand(4).bfloat16()).to_scipy,
    )


def test_refusals_at_construction() -> None:
    x = rand(4)
    refuses(
        pb.ArgumentError,
        "JacobianOperator: `argnums` asks for argument 1, but `func` was given 1 argument. Count "
        "from 0, or from -1 at the end.",
        lambda: pb.JacobianOperator(residual, x, argnums=1),
    )
    refuses(
        pb.ArgumentError,
        "JacobianOperator: `argnums` is 'x'; it must be the position of an argument, or a tuple of "
        "positions.",
        lambda: pb.JacobianOperator(residual, x, argnums="x"),  # type: ignore[arg-type]
    )
    for argnums in ((), (0, -2)):
        refuses(
            pb.ArgumentError,
            f"JacobianOperator: `argnums` is {argnums!r}; it must name at least one argument, and "
            f"none twice.",
            lambda argnums=argnums: pb.JacobianOperator(torch.mul, x, x, argnums=argnums),
        )
    refuses(
        pb.ArgumentError,
        "JacobianOperator: `primals[0]` has dtype int64, and only floating point and complex "
        "tensors can be differentiated. Convert it with .float() or .double(), or close over it: "
        "lambda x: func(x, primals[0]).",
        lambda: pb.JacobianOperator(residual, torch.arange(4)),
    )
    refuses(
        pb.ArgumentError,
        "JacobianOperator: `out`, an output of `func`, has dtype int64, and only floating point "
        "and complex tensors have derivatives. Return it as aux with has_aux=True, or return the "
        "values before they were rounded or compared.",
        lambda: pb.JacobianOperator(lambda x: x.argsort(), x),
    )
    for func, name, what, primal in (
        (lambda x: torch.fft.fft(x), "out", "output", x),
        (torch.view_as_real, "primals[0]", "input", x * 1j),
    ):
        refuses(
            pb.UnsupportedError,
            f"JacobianOperator: `{name}`, an {what} of `func`, has dtype complex128, and the "
            f"matrix is real. Write func with pairs of reals: torch.view_as_complex on the way in, "
            f"torch.view_as_real on the way out.",
            lambda func=func, primal=primal: pb.JacobianOperator(func, primal),
        )
    refuses(
        pb.UnsupportedError,
        "JacobianOperator: called inside a running torch.func.vmap, whose graph torch keeps to "
        "itself and takes apart when it returns. Call JacobianOperator on tensors outside the "
        "transform, or take products inside it with pb.vjp.",
        lambda: torch.func.vmap(lambda x: pb.JacobianOperator(residual, x) @ x)(rand(2, 4)),
    )
