"""A straight line gives what its program gives, in memory of its own, with fewer calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.utils._python_dispatch import TorchDispatchMode

from pullback.sparse.straight import NotStraight, program, straightened
from pullback.sparse.straight.line import generated

D = torch.float64
W, V = torch.randn(6, 5, dtype=D), torch.randn(5, 6, dtype=D)
X = torch.randn(6, dtype=D)
Run = Callable[..., tuple[Tensor, ...]]


class Calls(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def calls_of(run: Run, *given: Tensor) -> Counter[str]:
    with torch.no_grad(), Calls() as calls:
        run(*given)
    return calls.names


def rows(func: Callable[..., Tensor]) -> Run:
    """All VJPs of ``func`` with respect to its first argument, as one batch of unit seeds."""

    def run(x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        out, pull = torch.func.vjp(lambda x: func(x, *others), x)
        seeds = torch.eye(out.numel(), dtype=x.dtype).view(-1, *out.shape)
        return (torch.func.vmap(pull)(seeds)[0],)

    return run


def columns(func: Callable[..., Tensor]) -> Run:
    """All JVPs by the double VJP, a column of J after the other."""

    def run(x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        out, pull = torch.func.vjp(lambda x: func(x, *others), x)
        push = torch.func.vjp(lambda v: pull(v)[0], torch.zeros_like(out))[1]
        seeds = torch.eye(x.numel(), dtype=x.dtype).view(-1, *x.shape)
        return (torch.func.vmap(push)(seeds)[0],)

    return run


LAYERS: dict[str, tuple[Callable[..., Tensor], int]] = {
    "linear": (lambda x, w, v: x @ w, 0),
    "linear, curved": (lambda x, w, v: (x @ w).tanh(), 1),
    "curved, linear": (lambda x, w, v: x.sin() @ w, 1),
    "two layers": (lambda x, w, v: (x @ w).tanh() @ v, 1),
    "two layers, curved": (lambda x, w, v: ((x @ w).sigmoid() @ v).exp(), 1),
    "gelu": (lambda x, w, v: F.gelu(x @ w) @ v, 1),
    "scaled twice": (lambda x, w, v: (2 * (x @ w)).relu().neg() @ v, 1),
    "divided": (lambda x, w, v: (x @ w) / (1 + w[0] ** 2), 0),
    "residual": (lambda x, w, v: x + (x @ w).tanh() @ v, 2),
    "a matrix": (lambda x, w, v: (x.view(2, 3) @ v[:3]).tanh() @ w, 4),
    "curved first and last": (lambda x, w, v: (x.tanh() @ w).tanh(), 1),
}


@pytest.mark.parametrize("side", [rows, columns])
@pytest.mark.parametrize("name", LAYERS)
def test_products_with_unit_seeds_are_those_of_torch_func(name: str, side: Any) -> None:
    func, most = LAYERS[name]
    run = side(func)
    line = straightened(run, [X, W, V], loose=1e-12)
    for k in range(3):
        torch.manual_seed(k)
        given = [torch.randn_like(t) for t in (X, W, V)]
        truth = torch.func.jacrev(func)(*given)
        truth = truth.movedim(-1, 0) if side is columns else truth
        found = line(*given)[0]
        torch.testing.assert_close(found, truth.reshape(found.shape), rtol=1e-12, atol=1e-13)
    forward = calls_of(lambda *a: (func(*a),), X, W, V)
    mine = calls_of(line, X, W, V)
    matrix_products = mine["mm"] + mine["bmm"] - forward["mm"] - forward["mv"]
    assert matrix_products <= most, mine


def test_the_products_of_other_seeds_are_left_alone() -> None:
    """The unit vectors in another order, or one of them twice, are no identity."""
    func = LAYERS["two layers"][0]
    for order in ([1, 0, 2, 3, 4, 5], [0, 0, 2, 3, 4, 5]):
        seeds = torch.eye(6, dtype=D)[order]

        def run(seeds: Tensor, x: Tensor, w: Tensor, v: Tensor) -> tuple[Tensor, ...]:
            pull = torch.func.vjp(lambda x: func(x, w, v), x)[1]
            return (torch.func.vmap(pull)(seeds)[0],)

        line = straightened(partial(run, seeds), [X, W, V], loose=1e-12)
        truth = torch.func.jacrev(func)(X, W, V)[order]
        torch.testing.assert_close(line(X, W, V)[0], truth)


def test_a_factor_that_differs_along_the_batch_is_no_diagonal() -> None:
    table = torch.randn(6, 6, dtype=D)
    line = straightened(lambda x: ((torch.eye(6, dtype=D) * table * x) @ W,), [X], loose=1e-12)
    torch.testing.assert_close(line(X)[0], (torch.eye(6, dtype=D) * table * X) @ W)


def test_entries_that_zero_times_infinity_would_spoil_are_kept() -> None:
    line = straightened(rows(LAYERS["linear"][0]), [X, W, V], loose=1e-12)
    w = W.clone()
    w[2, 3] = torch.inf
    assert torch.equal(line(X, w, V)[0], w.t())


def test_results_are_in_memory_of_their_own() -> None:
    constant = torch.randn(3, dtype=D)

    def run(x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        return x, x.view(2, 3), w.t(), constant, constant * 1, x * 2

    line = straightened(run, [X, W], loose=1e-12)
    before = [X.clone(), W.clone(), constant.clone()]
    for _ in range(2):
        found = line(X, W)
        for one, other in zip(found, run(X, W), strict=True):
            assert torch.equal(one, other)
            assert one.is_contiguous()
        for tensor in found:
            tensor.zero_()
        assert all(map(torch.equal, (X, W, constant), before))


def test_what_does_not_follow_from_the_arguments_is_computed_once() -> None:
    def run(x: Tensor) -> tuple[Tensor, ...]:
        return (x * torch.arange(6, dtype=D).sin(),)

    line = straightened(run, [X], loose=1e-12)
    assert calls_of(line, X) == {"mul": 1}


def test_views_of_views_and_powers_of_one_are_no_calls() -> None:
    def run(x: Tensor) -> tuple[Tensor, ...]:
        return (x.unsqueeze(0).reshape(3, 2).view(-1).pow(1.0).mul(2).detach(),)

    assert calls_of(straightened(run, [X], loose=1e-12), X) == {"mul": 1}


def test_strides_that_a_fold_changes_do_no_harm() -> None:
    """1 * x.T is in C order, x.T is not: the view that follows must not rely on it."""

    def run(x: Tensor) -> tuple[Tensor, ...]:
        return ((torch.ones(3, 2, dtype=D) * x.view(2, 3).t()).contiguous().view(6),)

    line = straightened(run, [X], loose=1e-12)
    assert torch.equal(line(X)[0], run(X)[0])


@pytest.mark.parametrize("strided", [torch.zeros(6, 5).t(), torch.zeros(10, 6)[::2], W.float()])
def test_any_strides_and_dtypes(strided: Tensor) -> None:
    given = torch.randn(strided.shape, dtype=strided.dtype)
    given = strided.detach().copy_(given)
    line = straightened(lambda w: (w.t() @ w, w.cumsum(0)), [given], loose=1e-4)
    assert torch.equal(line(given)[0], given.t() @ given)
    assert torch.equal(line(given)[1], given.cumsum(0))


def test_complex_and_integer_tensors() -> None:
    z, k = torch.randn(4, dtype=torch.complex128), torch.tensor([2, 0])
    line = straightened(lambda z, k: (z[k].conj() * z[k], k + 1), [z, k], loose=1e-12)
    for one, other in zip(line(z, k), (z[k].conj() * z[k], k + 1), strict=True):
        torch.testing.assert_close(one, other)


def test_special_numbers_are_spelled_right() -> None:
    def run(x: Tensor) -> tuple[Tensor, ...]:
        mask = x > 0
        return x.masked_fill(mask, -torch.inf), x.masked_fill(mask, torch.nan), x * -0.0

    line = straightened(run, [X], loose=1e-12)
    for one, other in zip(line(X), run(X), strict=True):
        torch.testing.assert_close(one, other, equal_nan=True, rtol=0, atol=0)


def _lstm(x: Tensor) -> tuple[Tensor, ...]:
    gates = torch.randn(1, 8, dtype=torch.float32)
    return (x.new_zeros(1) + gates.sum(),)


def test_draws_are_refused_and_nothing_is_drawn() -> None:
    with pytest.raises(NotStraight, match="draws random numbers"):
        straightened(_lstm, [X], loose=1e-3)
    with pytest.raises(NotStraight, match="draws random numbers"):
        straightened(lambda x: (F.dropout(x),), [X], loose=1e-3)


def test_what_cannot_be_traced_is_refused_with_its_reason() -> None:
    with pytest.raises(NotStraight, match="."):
        straightened(lambda x: (x * float(x.sum()),), [X], loose=1e-12)


def test_a_line_that_differs_from_its_program_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(graph: Any, values: Any) -> Any:
        line = generated(graph, values)
        return lambda *given: tuple(t + 1e-3 for t in line(*given))

    monkeypatch.setattr(program, "generated", wrong)
    with pytest.raises(NotStraight, match="other values"):
        straightened(lambda x: (x.sin(),), [X], loose=1e-8)


def test_results_go_as_soon_as_they_are_used() -> None:
    """Nothing is held longer than in the program itself."""
    alive: list[int] = []

    class Watch(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.refs: list[Any] = []

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
        ) -> Any:
            import weakref

            found = func(*args, **(kwargs or {}))
            self.refs.append(weakref.ref(found))
            alive.append(sum(r() is not None for r in self.refs))
            return found

    def run(x: Tensor) -> tuple[Tensor, ...]:
        for _ in range(20):
            x = x.sin()
        return (x,)

    line = straightened(run, [X], loose=1e-12)
    with torch.no_grad(), Watch():
        line(X)
    assert max(alive) <= 2


def test_a_permutation_that_turns_nothing_is_none() -> None:
    square = torch.randn(4, 4, dtype=D)
    form = {"memory_format": torch.contiguous_format}
    for dims in ((0, 1), (1, 0)):
        line = straightened(lambda a, d=dims: ((a @ a.sin()).permute(d).clone(**form),), [square],
                            loose=1e-12)  # fmt: skip
        assert torch.equal(line(square)[0], (square @ square.sin()).permute(dims))


def test_an_identity_read_as_other_numbers_is_none() -> None:
    def run(w: Tensor) -> tuple[Tensor, ...]:
        bits = torch.eye(6, dtype=D).view(torch.int64).view(6, 6)
        return ((bits % 7).to(D) @ w,)

    line = straightened(run, [W], loose=1e-12)
    assert torch.equal(line(W)[0], run(W)[0])


def test_traces_of_several_threads_leave_no_mark() -> None:
    """torch's mark of a running trace is one for all threads."""

    def run(x: Tensor) -> tuple[Tensor, ...]:
        for _ in range(30):
            x = x.sin() * 2
        return (x,)

    with ThreadPoolExecutor(4) as pool:
        lines = list(pool.map(lambda _: straightened(run, [X], loose=1e-12), range(12)))
    assert all(torch.equal(line(X)[0], run(X)[0]) for line in lines)
    assert not torch.fx._symbolic_trace.is_fx_symbolic_tracing()
