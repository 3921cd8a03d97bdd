"""Values that the kernel writes itself: scripts are the assembly, kernels leave nothing unwritten."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx

import pullback as pb
from pullback import _inductor
from pullback.sparse import lifted
from pullback.sparse.coloring import Coloring
from pullback.sparse.compiled import NotCompiled, compiled, trace
from pullback.sparse.compiled.places import Placed, Strided
from pullback.sparse.fused import Fused
from pullback.sparse.lift import runs, strided
from pullback.sparse.lift.factor import Terms
from pullback.sparse.lift.pairs import Pairs
from pullback.sparse.lift.spec import Factor, Lift
from pullback.sparse.lift.strided import Script, script_of
from pullback.sparse.pattern import SparsityPattern

from .compiling import interpreted
from .lift.test_runs import SHAPES, product, repeated
from .programs import PROGRAMS, Program
from .test_compiled import REFUSED, ROUNDED

CPU = torch.device("cpu")


def pattern_of(ptr: Any) -> SparsityPattern:
    """Rows of the lengths that ``ptr`` tells; which columns they hold does not matter here."""
    width = int(np.diff(ptr).max()) + 1
    indices = np.concatenate([np.arange(n) for n in np.diff(ptr)]).astype(np.int32)
    return SparsityPattern((len(ptr) - 1, width), ptr.astype(np.int32), indices)


def lift_of_terms(terms: Terms, pattern: SparsityPattern) -> Lift:
    coloring = Coloring("rows", "natural", (1, 1), torch.zeros(1, dtype=torch.int64), 1)
    return Lift((Factor((), (), coloring, "rev", terms, pattern),), (), "")


def joined(placed: Placed, pieces: Sequence[Tensor]) -> Tensor:
    whole = torch.full((placed.size,), torch.nan, dtype=placed.dtype)
    for place, piece in zip(placed.places, pieces, strict=False):
        if isinstance(place, Tensor):
            assert bool(whole[place].isnan().all())
            whole[place] = piece
        else:
            part = whole.as_strided(place.shape, place.steps, place.start)
            assert bool(part.isnan().all())
            part.copy_(piece)
    assert len(pieces) == len(placed.places) + placed.scratch
    return whole


def values(script: Script, *factors: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    fused = Fused(script, dtype, CPU)
    cut = [
        [f[a:b] for a, b in pairwise(cuts)] for f, cuts in zip(factors, script.cuts, strict=True)
    ]
    return joined(fused.placed, fused.pieces(cut))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_script_is_the_dense_product(shape: str, dtype: torch.dtype) -> None:
    ptr, terms, size = repeated(*SHAPES[shape])
    script = script_of(lift_of_terms(terms, pattern_of(ptr)), pattern_of(ptr), [[0, size]])
    assert script is not None
    f = np.random.default_rng(1).integers(-4, 5, size) / 4
    found = values(script, torch.from_numpy(f).to(dtype), dtype=dtype)
    torch.testing.assert_close(found, torch.from_numpy(product(terms, f)).to(dtype))


def test_rows_that_break_the_run_are_scattered() -> None:
    ptr, terms, size = repeated([3], [1, 2], [1])
    terms.sources[terms.starts[30] : terms.starts[33]] = 5
    script = script_of(lift_of_terms(terms, pattern_of(ptr)), pattern_of(ptr), [[0, size]])
    assert script is not None
    assert script.scattered.entries.size >= 3
    f = np.random.default_rng(2).integers(-4, 5, size) / 4
    torch.testing.assert_close(
        values(script, torch.from_numpy(f)), torch.from_numpy(product(terms, f))
    )


def test_what_a_scattered_entry_does_not_read_may_be_anything() -> None:
    ptr, terms, size = repeated([2], [1, 3], [1])
    terms.sources[: terms.starts[6]] = size - 1
    script = script_of(lift_of_terms(terms, pattern_of(ptr)), pattern_of(ptr), [[0, size]])
    assert script is not None
    f = np.full(size, np.inf)
    f[terms.sources[: terms.starts[6]]] = 1.0
    assert bool(values(script, torch.from_numpy(f))[:6].isfinite().all())


def test_a_walk_over_the_border_of_two_segments_is_no_script() -> None:
    ptr, terms, size = repeated([3], [1], [1])
    pattern = pattern_of(ptr)
    lift = lift_of_terms(terms, pattern)
    assert script_of(lift, pattern, [[0, size]]) is not None
    assert script_of(lift, pattern, [[0, size // 2, size]]) is None


def test_more_writes_than_a_kernel_should_have_are_no_script(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ptr, terms, size = repeated([3], [1], [1])
    monkeypatch.setattr(strided, "_WRITES_AT_MOST", 2)
    assert script_of(lift_of_terms(terms, pattern_of(ptr)), pattern_of(ptr), [[0, size]]) is None


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_two_factors_and_a_long_sum(turns: int) -> None:
    """Entries f[k] g[k], then one that sums ``turns`` kinds of products in turn, some of them with
    the 1 behind the last element."""
    n = 300
    k = np.arange(n)
    kinds = [(k, k, 2.0), (k, np.full(n, n), -1.0), (np.full(n, n), np.full(n, n), 0.5)][:turns]
    sums = [np.stack([kind[at] * np.ones(n) for kind in kinds], 1).reshape(-1) for at in range(3)]
    pairs = Pairs(
        np.concatenate([np.arange(n + 1), [n + sums[0].size]]).astype(np.int32),
        np.concatenate([k, sums[0]]).astype(np.int32),
        np.concatenate([k[::-1], sums[1]]).astype(np.int32),
        np.concatenate([np.full(n, 3.0), sums[2]]),
        (turns > 2, turns > 1),
    )  # fmt: skip
    pattern = pattern_of(np.concatenate([k, [n, n + 1]]))
    script = script_of(Lift((), (), "", pairs), pattern, [[0, n], [0, n]])
    assert script is not None
    f, g = torch.randn(n, dtype=torch.float64), torch.randn(n, dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    a, b = torch.cat([f, one]), torch.cat([g, one])
    total = sum(w * a[torch.from_numpy(i)] * b[torch.from_numpy(j)] for i, j, w in kinds)
    assert isinstance(total, Tensor)
    expected = torch.cat([3 * f * g.flip(0), total.sum().reshape(1)])
    torch.testing.assert_close(values(script, f, g), expected)


def rosenbrock(x: Tensor) -> Tensor:
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def arrowhead(x: Tensor) -> Tensor:
    return ((x[:-1] ** 2 + x[-1] ** 2) ** 2 - 4 * x[:-1]).sum()


def membrane(x: Tensor) -> Tensor:
    u = x.view(24, 24)
    across, down = u[:-1, 1:] - u[:-1, :-1], u[1:, :-1] - u[:-1, :-1]
    return (1 + across**2 + down**2).sqrt().sum()


def wide_band(x: Tensor) -> Tensor:
    return ((x[:-3] + x[1:-2] + x[2:-1] + x[3:]) ** 4).sum()


PROBLEMS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "a band": (rosenbrock, 400),
    "a wide band": (wide_band, 400),
    "two factors": (arrowhead, 4_000),
    "a grid": (membrane, 576),
}


def script_for(f: Any, x: Tensor) -> tuple[Script | None, Any, pb.Plan]:
    plan = pb.plan_hessian(f, x)
    h = pb.hessian(f, plan=plan, compile=True)
    h(x)
    (session,) = h._plain._sessions.values()
    assert session._run is not None
    fused = session._run._fused
    return (None if fused is None else fused._script), h, plan


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", PROBLEMS)
def test_a_kernel_writes_the_values_of_a_replay(
    name: str, dtype: torch.dtype, one_thread: None
) -> None:
    f, n = PROBLEMS[name]
    x = torch.rand(n, dtype=dtype) + 0.5
    script, h, plan = script_for(f, x)
    assert script is not None, h.notes
    assert h.engine == "compiled"
    assert any(len(w.shape) == 2 for w in script.writes) == (name == "a grid")
    assert any(w.summed for w in script.writes) == (name == "two factors")
    replayed = pb.hessian(f, plan=plan)
    matrix = h(x)
    for seed in range(3):
        torch.manual_seed(seed)
        y = torch.randn(n, dtype=dtype)
        if seed == 2:
            y[n // 2] = torch.inf
        expected = replayed(y).values()
        finite = expected[expected.isfinite()].abs().max()
        tolerance = {"rtol": 1e-4, "atol": 1e-5 * float(finite)} if dtype == torch.float32 else {}
        for _ in range(2):
            found = h(y).values()
            torch.testing.assert_close(found, expected, equal_nan=True, **tolerance)
        matrix.values().fill_(7.0)
        assert h(y, out=matrix) is matrix
        torch.testing.assert_close(matrix.values(), found, rtol=0, atol=0, equal_nan=True)


def test_the_values_are_torchs(one_thread: None) -> None:
    x = torch.rand(200, dtype=torch.float64) + 0.5
    script, h, _ = script_for(wide_band, x)
    assert script is not None
    torch.testing.assert_close(h(x).to_dense(), torch.autograd.functional.hessian(wide_band, x))


def test_kernels_of_two_threads_write_all_values() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        x = torch.rand(20_000, dtype=torch.float64) + 0.5
        script, h, plan = script_for(rosenbrock, x)
        assert script is not None, h.notes
        expected = pb.hessian(rosenbrock, plan=plan)(x).values()
        torch.testing.assert_close(h(x).values(), expected)
        torch.set_num_threads(1)
        torch.testing.assert_close(h(x).values(), expected)
        assert h.engine == "compiled"
    finally:
        torch.set_num_threads(before)


def test_a_matrix_without_repeating_rows_is_put_together_outside(one_thread: None) -> None:
    ends = torch.randint(200, (2, 900), generator=torch.Generator().manual_seed(0))
    f = lambda x: ((x[ends[0]] - x[ends[1]]) ** 4).sum()  # noqa: E731
    x = torch.rand(200, dtype=torch.float64)
    script, h, plan = script_for(f, x)
    assert script is None
    torch.testing.assert_close(h(x).values(), pb.hessian(f, plan=plan)(x).values())


CASES = [*((p, "auto") for p in PROGRAMS[::6]), *((p, False) for p in PROGRAMS[1::12])]


@pytest.mark.parametrize(("program", "lift"), CASES, ids=lambda v: getattr(v, "name", str(v)))
def test_programs_that_write_their_values(
    program: Program, lift: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever can be a script is one here, and no script is given up for a difference."""
    monkeypatch.setattr(runs, "_ROWS_AT_LEAST", 2)
    monkeypatch.setattr(runs, "_SHARE", 0.0)
    monkeypatch.setattr(strided, "_LONG", 3)
    monkeypatch.setattr(_inductor, "kernel_of", interpreted)
    monkeypatch.setattr(trace, "worth_compiling", lambda graph: "")
    scripts: list[Script | None] = []

    def spied(*args: Any) -> Script | None:
        scripts.append(script_of(*args))
        return scripts[-1]

    monkeypatch.setattr(lifted, "script_of", spied)
    func, args = program.make()
    options = {"argnums": program.argnums, "has_aux": program.has_aux}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plan = pb.plan_jacobian(func, *args, lift=lift, **options)
        jac = pb.jacobian(func, plan=plan, compile=True, **options)
        plain = pb.jacobian(func, plan=plan, **options)
        with torch.no_grad():
            for at in (args, program.other()):
                found, expected = jac(*at), plain(*at)
                pair = (found[0], expected[0]) if program.has_aux else (found, expected)
                torch.testing.assert_close(pair[0].values(), pair[1].values(), equal_nan=True)
    if not any(scripts):
        pytest.skip("no few writes")
    if jac.engine != "compiled":
        refused = " ".join(jac.notes)
        known = (*REFUSED, "does not yet have a batching rule")
        assert any(r in refused for r in known) or program.name in ROUNDED, refused
        return
    written = [s._run._fused is not None for s in jac._sessions.values() if s._run is not None]
    assert written == [True] or program.name in ROUNDED


def last_left_out(module: fx.GraphModule) -> None:
    """Leave a write out."""
    graph = module.graph
    copies = [n for n in graph.nodes if n.target is torch.ops.aten.copy_.default]
    graph.erase_node(copies[-1])
    module.recompile()


def moved(module: fx.GraphModule) -> None:
    """Write a piece one place further on."""
    views = [n for n in module.graph.nodes if n.target is torch.ops.aten.as_strided.default]
    views[-1].args = (*views[-1].args[:3], views[-1].args[3] - 2)
    module.recompile()


@pytest.mark.parametrize("mistake", [last_left_out, moved, None])
def test_a_kernel_that_leaves_a_value_out_is_not_trusted(
    mistake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kernel_of(module: fx.GraphModule, mode: Any, threads: int, last: Any, **_: bool) -> Any:
        def mistaken(module: fx.GraphModule) -> None:
            last(module)
            if mistake is not None:
                mistake(module)

        return interpreted(module, mode, threads, mistaken)

    monkeypatch.setattr(_inductor, "kernel_of", kernel_of)
    index = torch.tensor([1, 3])
    placed = Placed(
        8, torch.float64, CPU, (Strided(0, (2,), (1,)), index, Strided(4, (2,), (2,)),
        Strided(2, (3, 5), (2, 1)), Strided(7, (1,), (1,))), scratch=1,
    )  # fmt: skip

    def pieces(x: Tensor) -> tuple[Tensor, ...]:
        y = x * x
        full = torch.full((1,), 200.0, dtype=x.dtype)
        return y[:1], y[:2], 2 * y[1:], 3 * y[:2].view(2, 1), full, y, x.sum()

    def whole(x: Tensor) -> tuple[Tensor, ...]:
        *parts, _, total = pieces(x)
        return joined(Placed(8, torch.float64, CPU, placed.places), parts), total

    x = torch.rand(3, dtype=torch.float64)
    if mistake is None:
        found = compiled(pieces, [x], loose=1e-8, placed=placed, whole=whole)
        torch.testing.assert_close(tuple(found([x])), whole(x))
        into = torch.zeros(8, dtype=torch.float64)
        assert found([x], into)[0] is into
        return
    with pytest.raises(NotCompiled, match="differs"):
        compiled(pieces, [x], loose=1e-8, placed=placed, whole=whole)


def test_where_the_kernel_cannot_write_the_values_it_makes_the_products(
    monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    def refuse(*_: object) -> None:
        raise NotCompiled("no views of inputs")

    monkeypatch.setattr("pullback.sparse.compiled.engine.write_pieces", refuse)
    x = torch.rand(400, dtype=torch.float64)
    script, h, plan = script_for(rosenbrock, x)
    assert script is None
    assert h.engine == "compiled"
    torch.testing.assert_close(h(x).values(), pb.hessian(rosenbrock, plan=plan)(x).values())
