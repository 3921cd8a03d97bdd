"""``pb.jacobian`` without a plan: dense, as ``torch.func.jacrev`` gives it, on functions that vmap
refuses as well."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.profiler import ProfilerActivity, profile
from torch.utils import _pytree as pytree

import pullback as pb
from pullback.sparse import session
from pullback.sparse.study import study

Func = Callable[..., Any]
torch.manual_seed(0)
D = torch.float64
X, Y = torch.rand(5, dtype=D) + 0.1, torch.rand(3, dtype=D) + 0.1
M = torch.rand(3, 3, dtype=D) + 3 * torch.eye(3, dtype=D)
W = torch.rand(4, 5, dtype=D)
NET = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)).double().requires_grad_(False)
INDEX = torch.tensor([2, 0, 0, 4])

FUNCS: dict[str, tuple[Func, tuple[Any, ...]]] = {
    "elementwise": (torch.sin, (X,)),
    "matmul": (lambda x: W @ x, (X,)),
    "outer": (lambda x: torch.outer(x, x), (X,)),
    "a number out": (lambda x: x.prod(), (X,)),
    "a number in": (lambda s: s * torch.arange(4.0, dtype=D), (X[0],)),
    "a number to a number": (torch.exp, (X[0],)),
    "index": (lambda x: x[INDEX] ** 2, (X,)),
    "where": (lambda x: torch.where(x > 0.5, x, x * x), (X,)),
    "softmax": (lambda x: x.softmax(0), (X,)),
    "logsumexp": (lambda x: x.logsumexp(0), (X,)),
    "cumsum": (lambda x: x.cumsum(0).log(), (X,)),
    "sort": (lambda x: x.sort().values * torch.arange(5, dtype=D), (X,)),
    "max": (lambda x: x.max(), (X,)),
    "solve": (lambda y: torch.linalg.solve(M, y), (Y,)),
    "inverse": (torch.linalg.inv, (M,)),
    "determinant": (torch.linalg.det, (M,)),
    "cholesky": (lambda m: torch.linalg.cholesky(m @ m.T), (M,)),
    "norm": (torch.linalg.norm, (X,)),
    "fft": (lambda x: torch.fft.rfft(x).abs(), (X,)),
    "network": (NET, (X,)),
    "conv": (lambda x: F.conv1d(x.view(1, 1, 5), W[:1, :3].reshape(1, 1, 3)), (X,)),
    "layer norm": (lambda x: F.layer_norm(x, (5,)), (X,)),
    "two outputs": (lambda x: (x[:2] * 2, x.sum()), (X,)),
    "a dict out": (lambda x: {"a": x[:2], "b": [x.exp()]}, (X,)),
    "a dict in": (lambda p: p["u"].sum() * p["v"], ({"u": X, "v": Y},)),
    "a constant part": (lambda x: torch.cat([x, torch.ones(2, dtype=D)]), (X,)),
    "detach": (lambda x: x.detach() * x, (X,)),
    "nested grad": (torch.func.grad(lambda x: (x**3).sum()), (X,)),
    "tall": (lambda y: torch.cat([y * k for k in range(1, 7)]).sin(), (Y,)),
    "no outputs": (lambda x: x[:0], (X,)),
    "no inputs": (lambda x: torch.cat([x, x.new_ones(2)]), (X[:0],)),
    "a list in": (lambda p: p[0] * p[1].sum(), ([X, Y],)),
}


def same(found: Any, expected: Any) -> None:
    assert pytree.tree_structure(found) == pytree.tree_structure(expected)
    for one, other in zip(pytree.tree_leaves(found), pytree.tree_leaves(expected), strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", FUNCS)
def test_it_is_jacrev(name: str) -> None:
    func, args = FUNCS[name]
    jac = pb.jacobian(func)
    for k in range(5):  # from the third call on it may be replayed
        point = pytree.tree_map(lambda t, k=k: t * (1 + k / 100), args)
        same(jac(*point), torch.func.jacrev(func)(*point))
        assert jac.plan is None


@pytest.mark.parametrize("argnums", [0, 1, (0,), (1, 0), (0, 1), -1])
def test_argnums(argnums: Any) -> None:
    func = lambda a, b: a.sum() * b  # noqa: E731
    chosen = 1 if argnums == -1 else argnums
    same(pb.jacobian(func, argnums)(X, Y), torch.func.jacrev(func, chosen)(X, Y))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_dtype_is_jacrevs(dtype: torch.dtype) -> None:
    func = lambda x: x * 2  # noqa: E731
    found = pb.jacobian(func)(X.to(dtype))
    assert found.dtype == torch.func.jacrev(func)(X.to(dtype)).dtype


def in_place(x: Tensor) -> Tensor:
    y = x.clone()
    y[1:] *= x[:-1]
    y.add_(x)
    return y


def with_item(x: Tensor) -> Tensor:
    return x * x.sum().item()


def branching(x: Tensor) -> Tensor:
    return x.sin() if x.sum() > 0 else x.cos()


def looping(x: Tensor) -> Tensor:
    total, y = x * 0, x
    while float(y.detach().sum()) > 0.1:
        total, y = total + y, y * 0.5
    return total


def masked(x: Tensor) -> Tensor:
    y = x * 2
    y[x > 0.5] = 0
    return torch.cat([y, x[x > 0.4].sum()[None]])


class Square(torch.autograd.Function):
    """Without a vmap rule, and with NumPy inside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.from_numpy(x.detach().numpy() ** 2)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return torch.from_numpy(2 * ctx.saved_tensors[0].numpy() * g.numpy())


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g


# vmap, or the tracing of torch.func, stops at each; the Jacobian is known by hand.
STUBBORN: dict[str, tuple[Func, Func]] = {
    "in place": (in_place, lambda x: by_rows(in_place, x)),
    "item": (with_item, lambda x: x.sum() * torch.eye(5, dtype=D)),
    "a branch": (branching, lambda x: torch.diag(x.cos())),
    "a loop": (looping, lambda x: by_rows(looping, x)),
    "a mask": (masked, lambda x: by_rows(masked, x)),
    "NumPy in a Function": (Square.apply, lambda x: torch.diag(2 * x)),
    "straight-through": (StraightThrough.apply, lambda x: torch.eye(5, dtype=D)),
    "a Function in a product": (lambda x: Square.apply(x) * x, lambda x: torch.diag(3 * x * x)),
}


def by_rows(func: Func, x: Tensor) -> Tensor:
    x = x.detach().clone().requires_grad_()
    y = func(x)
    return torch.stack([torch.autograd.grad(y[k], x, retain_graph=True)[0] for k in range(len(y))])


@pytest.mark.parametrize("name", STUBBORN)
def test_it_runs_what_vmap_refuses(name: str) -> None:
    func, truth = STUBBORN[name]
    same(pb.jacobian(func)(X), truth(X))


@pytest.mark.parametrize(
    "name",
    STUBBORN,
)
@pytest.mark.parametrize("layout", [torch.sparse_csr, "scipy"])
def test_so_do_the_sparse_layouts(name: str, layout: Any) -> None:
    func, truth = STUBBORN[name]
    found = pb.jacobian(func, layout=layout)(X)
    dense = found.to_dense() if isinstance(found, Tensor) else torch.from_numpy(found.toarray())
    same(dense, truth(X))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tall_is_jacfwd_and_goes_along_the_columns() -> None:
    func = lambda y: torch.cat([y * k for k in range(1, 40)]).sin()  # noqa: E731
    expected = torch.func.jacfwd(func)(Y)
    same(pb.jacobian(func)(Y), expected)
    assert pb.jacobian(func)(Y).shape == (117, 3)


def test_the_order_of_the_sides_does_not_show() -> None:
    """The same matrix by rows and by columns: a tall one, its wide transpose, a square one."""
    A = torch.rand(7, 3, dtype=D)
    for matrix in (A, A.T.contiguous(), A[:3]):
        x = torch.rand(matrix.shape[1], dtype=D)
        same(pb.jacobian(lambda x, m=matrix: m @ x)(x), matrix)


@pytest.mark.parametrize("chunk", [1, 2, 5, 100])
def test_chunks_change_nothing(chunk: int) -> None:
    for name in ("outer", "tall", "two outputs"):
        func, args = FUNCS[name]
        same(pb.jacobian(func, chunk_size=chunk)(*args), torch.func.jacrev(func)(*args))


def peak_of(run: Callable[[], object]) -> int:
    """The most bytes that torch's allocator held at once during ``run``, above those before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watch:
        result = run()
    assert result is not None
    events = [e for e in watch.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    return max(0, int(np.cumsum(changes).max(initial=0)))


def test_memory_is_bounded_by_the_chunk() -> None:
    """Thirty steps of 400 numbers: all rows at once would hold thirty matrices of the result's size."""

    def steps(x: Tensor) -> Tensor:
        for _ in range(30):
            x = (x.sin() * x).roll(1)
        return x

    x = torch.rand(400, dtype=D)
    result = 8 * 400 * 400
    few = peak_of(lambda: pb.jacobian(steps, chunk_size=8)(x))
    # The result twice (its pieces, and their concatenation), and a little.
    assert few <= 2.5 * result


def test_has_aux() -> None:
    func = lambda x: (x * 2, {"kept": x + 1, "name": "n"})  # noqa: E731
    found, aux = pb.jacobian(func, has_aux=True)(X)
    expected, known = torch.func.jacrev(lambda x: (x * 2, x + 1), has_aux=True)(X)
    same(found, expected)
    assert torch.equal(aux["kept"], known)
    assert aux["name"] == "n"


def test_the_value_beside_the_jacobian() -> None:
    found, value = pb.jacobian(lambda x: (x.sin(), x.sin()), has_aux=True)(X)
    assert torch.equal(value.detach(), X.sin())
    same(found, torch.diag(X.cos()))


def test_an_output_without_a_graph_gives_zero_rows() -> None:
    found = pb.jacobian(lambda x: (torch.ones(2, dtype=D), x))(X)
    assert torch.equal(found[0], torch.zeros(2, 5, dtype=D))


def test_an_input_that_is_not_reached_gives_zero_columns() -> None:
    found = pb.jacobian(lambda a, b: a * 2, (0, 1))(X, Y)
    assert torch.equal(found[1], torch.zeros(5, 3, dtype=D))


def test_the_result_is_differentiable_where_the_argument_is() -> None:
    x = X.clone().requires_grad_()
    found = pb.jacobian(lambda x: x**3)(x)
    (slope,) = torch.autograd.grad(found.diagonal().sum(), x)
    torch.testing.assert_close(slope, 6 * X)
    assert x.grad is None
    assert not pb.jacobian(lambda x: x**3)(X).requires_grad
    with torch.no_grad():
        assert not pb.jacobian(lambda x: x**3)(x).requires_grad


def test_jacobians_of_jacobians() -> None:
    f = lambda x: (x**3).sum() * x  # noqa: E731
    torch.testing.assert_close(
        pb.jacobian(pb.jacobian(f))(X), torch.func.jacrev(torch.func.jacrev(f))(X)
    )


def test_inside_torch_func() -> None:
    f = lambda x: x.sin() * x.sum()  # noqa: E731
    batch = torch.rand(4, 5, dtype=D)
    torch.testing.assert_close(
        torch.func.vmap(pb.jacobian(f))(batch), torch.func.vmap(torch.func.jacrev(f))(batch)
    )


def test_arguments_are_left_alone() -> None:
    x = X.clone().requires_grad_()
    pb.jacobian(in_place)(x)
    assert x.grad is None
    assert torch.equal(x.detach(), X)
    assert x.grad_fn is None


@pytest.mark.parametrize(("options", "text"), [
    ({"chunk_size": 0}, "jacobian: `chunk_size` is 0; it must be a positive whole number, or None for all products at once."),
    ({"has_aux": 1}, "jacobian: `has_aux` is 1; it must be True or False."),
])  # fmt: skip
def test_options_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(pb.ArgumentError, match="^" + re.escape(text) + "$"):
        pb.jacobian(torch.sin, **options)


@pytest.mark.parametrize(("func", "args", "kind"), [
    (lambda x: x, (torch.arange(3),), pb.ArgumentError),
    (lambda x: x, (3.0,), pb.TreeError),
    (lambda x: 3.0, (X,), pb.TreeError),
    (lambda x: (x, "s"), (X,), pb.TreeError),
    (lambda x: x.long(), (X,), pb.PullbackError),
])  # fmt: skip
def test_what_cannot_be_differentiated_is_refused_by_name(func: Func, args: Any, kind: Any) -> None:
    for layout in (None, torch.sparse_csr):
        with pytest.raises(kind, match=r"^jacobian: "):
            pb.jacobian(func, layout=layout)(*args)


class TestCalledAgain:
    """From the third call of one kind on, what can be captured is replayed."""

    def test_it_is_replayed(self) -> None:
        jac = pb.jacobian(lambda x: (W @ x).tanh())
        engines = []
        for k in range(5):
            jac(X + k)
            engines.append(jac.engine)
        assert engines == ["function", "function", "replay", "replay", "replay"]
        assert repr(jac).endswith(": dense")
        jac.refresh()
        jac(X)
        assert jac.engine == "function"

    def test_another_shape_or_dtype_counts_for_itself(self) -> None:
        jac = pb.jacobian(torch.sin)
        for x in (X, X, X, Y, X.float()):
            same(jac(x), torch.diag(x.cos()))
        assert jac.engine == "function"

    def test_what_it_closes_over_is_read_at_every_call(self) -> None:
        scale, weight = 2.0, W.clone()

        def func(x: Tensor) -> Tensor:
            return scale * (weight @ x).sin()

        jac = pb.jacobian(func)
        for k in range(12):
            if k % 4 == 3:
                scale += 1
            if k % 3 == 1:
                weight.mul_(1.5)
            same(jac(X), torch.func.jacrev(func)(X))

    def test_a_function_that_changes_what_it_reads_is_run(self) -> None:
        count = [0.0]

        def func(x: Tensor) -> Tensor:
            count[0] += 1
            return x * count[0]

        jac = pb.jacobian(func)
        for _ in range(5):
            found = jac(X)
            assert jac.engine == "function"
            assert torch.equal(found, torch.eye(5, dtype=D) * count[0])

    def test_a_function_that_is_another_at_every_call_is_captured_a_few_times_only(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looks = []
        monkeypatch.setattr(session, "study", lambda *a, **k: (looks.append(1), study(*a, **k))[1])
        power = 0

        def func(x: Tensor) -> Tensor:
            return x**power

        jac = pb.jacobian(func)
        for _ in range(11):
            power += 1
            same(jac(X), torch.func.jacrev(func)(X))
        assert jac.engine == "function"
        assert len(looks) <= 5

    def test_a_result_that_can_be_differentiated_comes_from_the_function(self) -> None:
        jac = pb.jacobian(lambda x: x**3)
        x = X.clone().requires_grad_()
        for _ in range(4):
            (slope,) = torch.autograd.grad(jac(x).diagonal().sum(), x)
            torch.testing.assert_close(slope, 6 * X)
        weight = W.clone().requires_grad_()
        jac = pb.jacobian(lambda x: weight @ x)
        for _ in range(5):
            jac(X).sum().backward()
        assert weight.grad is not None
        assert torch.equal(weight.grad, torch.full_like(W, 5))

    def test_draws_are_those_of_the_function(self) -> None:
        func = lambda x: F.dropout(x, 0.5) * 2  # noqa: E731
        jac = pb.jacobian(func)
        for seed in range(5):
            torch.manual_seed(seed)
            found = jac(X)
            torch.manual_seed(seed)
            kept = F.dropout(torch.ones_like(X), 0.5) * 2
            torch.testing.assert_close(found, torch.diag(kept))

    def test_inside_a_transform_the_function_runs(self) -> None:
        jac = pb.jacobian(torch.sin)
        for _ in range(4):
            jac(X)
        found = torch.func.vmap(jac)(torch.stack([X, 2 * X]))
        same(found, torch.stack([torch.diag(X.cos()), torch.diag((2 * X).cos())]))

    @pytest.mark.parametrize("chunk", [1, 3])
    def test_chunks_change_nothing(self, chunk: int) -> None:
        for name in ("outer", "tall", "two outputs"):
            func, args = FUNCS[name]
            jac = pb.jacobian(func, chunk_size=chunk)
            for _ in range(5):
                same(jac(*args), torch.func.jacrev(func)(*args))

    def test_aux_is_that_of_the_call(self) -> None:
        jac = pb.jacobian(lambda x: (x * 2, {"kept": x + 1, "name": "n"}), has_aux=True)
        for k in range(5):
            found, aux = jac(X + k)
            same(found, 2 * torch.eye(5, dtype=D))
            assert torch.equal(aux["kept"], X + k + 1)
            assert aux["name"] == "n"

    def test_the_result_is_the_callers_to_write_to(self) -> None:
        jac = pb.jacobian(lambda x: x @ M)
        for _ in range(5):
            found = jac(Y)
            assert torch.equal(found, M.T)
            found.zero_()
