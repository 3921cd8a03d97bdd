"""``template + A f``, in every form, dtype and number of threads, is the dense product."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

from pullback.sparse import assemble
from pullback.sparse.assemble import Assembler, PairAssembler, in_blocks, multiply
from pullback.sparse.lift.codes import encoded
from pullback.sparse.lift.factor import Terms, with_blocks
from pullback.sparse.lift.pairs import pairs_of
from pullback.sparse.pattern import SparsityPattern

SIZE = 30
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
CPU = torch.device("cpu")


def terms(counts: Any, weighed: bool, template: bool, seed: int = 0) -> Terms:
    rng = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    total = int(starts[-1])
    sources = rng.integers(SIZE, size=total).astype(np.int32)
    weights = rng.integers(1, 4, total) * rng.choice([-0.5, 1.0], total)
    constant = rng.integers(-2, 3, len(counts)).astype(np.float64)
    return Terms(starts, sources, weights if weighed else None, constant if template else None)


def product(given: Terms, f: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    weights = given.weight
    rows = given.starts.size - 1
    A = scipy.sparse.csr_array((weights, given.sources, given.starts), shape=(rows, f.size))
    found = A @ f
    return found if given.template is None else found + given.template


ONES = np.ones(40, dtype=np.int64)
SOME = np.random.default_rng(1).integers(0, 4, 40)
FEW = np.where(np.arange(40) % 5 == 0, SOME + 1, 0)
FORMS = {
    "gather": (ONES, False, False),
    "pick": (ONES, True, False),
    "pick, with a constant": (ONES, True, True),
    "pick, a constant alone": (ONES, False, True),
    "sums": (SOME, True, False),
    "sums, plain": (SOME, False, False),
    "sums onto template": (SOME, True, True),
    "sums onto template, few": (FEW, True, True),
    "sums onto template, plain": (FEW, False, True),
    "pick onto template": (np.minimum(FEW, 1), True, True),
    "pick onto template, plain": (np.minimum(FEW, 1), False, True),
    "sums onto template, nothing varies": (0 * ONES, False, True),
    "sums, nothing at all": (0 * ONES, False, False),
}


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    monkeypatch.setattr(assemble, "BLOCK", 7)
    monkeypatch.setattr(assemble.in_blocks, "__defaults__", (7,))
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_the_dense_product(name: str, dtype: torch.dtype, threads: int) -> None:
    given = terms(*FORMS[name])
    size = SIZE
    assembler = Assembler(given, size, dtype, CPU)
    native = dtype in (torch.float32, torch.float64)
    assert assembler.form == (name.partition(",")[0] if native else "index_add")
    for seed in (0, 1):
        f = torch.from_numpy(np.random.default_rng(seed).integers(-4, 5, size) / 4).to(dtype)
        before = f.clone()
        found = assembler(f)
        assert found.dtype is dtype
        expected = torch.from_numpy(product(given, f.double().numpy())).to(dtype)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
        into = torch.full_like(found, torch.nan)
        assert assembler(f, into) is into
        assert torch.equal(into, found)
        assert torch.equal(f, before)


@pytest.mark.parametrize("name", FORMS)
def test_weights_too_many_for_a_table_are_read_in_order(
    name: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assemble, "_TABLE", 1)
    given = terms(*FORMS[name])
    assembler = Assembler(given, SIZE, torch.float64, CPU)
    f = torch.randn(SIZE, dtype=torch.float64)
    torch.testing.assert_close(assembler(f), torch.from_numpy(product(given, f.numpy())))
    codes = assembler._coded(given)[0]
    assert (codes is None) == (np.unique(given.weight).size > 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", FORMS)
def test_few_terms_are_put_together_by_tensor_calls_as_well(name: str, dtype: torch.dtype) -> None:
    given = terms(*FORMS[name])
    assembler = Assembler(given, SIZE, dtype, CPU)
    assert assembler.is_traceable
    f = torch.randn(SIZE, dtype=dtype)
    torch.testing.assert_close(assembler.traceable(f), assembler(f))
    # What a value does not read may be anything.
    f[:] = torch.inf
    f[given.sources[: given.starts[1]]] = 1.0
    assert bool(assembler.traceable(f)[0].isfinite())
    many = Terms(np.arange(20_001, dtype=np.int32), np.zeros(20_000, np.int32), None, None)
    assert not Assembler(many, SIZE, dtype, CPU).is_traceable


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [n for n, (_, weighed, _) in FORMS.items() if weighed])
def test_weights_may_be_codes(name: str, dtype: torch.dtype, threads: int) -> None:
    given = terms(*FORMS[name])
    assert given.weights is not None
    codes, table = encoded(given.weights)
    short = dataclasses.replace(given, weights=table, codes=codes)
    assert np.array_equal(short.weight, given.weight)
    assert short.nbytes < given.nbytes
    f = torch.randn(SIZE).to(dtype)
    one, other = (Assembler(t, SIZE, dtype, CPU) for t in (given, short))
    assert one.form == other.form
    assert torch.equal(one(f), other(f))


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_that_are_in_order_are_handed_on(dtype: torch.dtype) -> None:
    whole = np.arange(SIZE)
    given = Terms(np.arange(SIZE + 1, dtype=np.int32), whole.astype(np.int32), None, None)
    f = torch.randn(SIZE).to(dtype)
    assert Assembler(given, SIZE, dtype, CPU).form == "in order"
    assert torch.equal(Assembler(given, SIZE, dtype, CPU)(f), f)
    # One entry more than there are values, or one out of order, and they are not.
    for size, sources in ((SIZE + 1, whole), (SIZE, whole[::-1])):
        other = Terms(given.starts, sources.astype(np.int32).copy(), None, None)
        longer = torch.randn(size).to(dtype)
        assembler = Assembler(other, size, dtype, CPU)
        assert assembler.form != "in order"
        assert torch.equal(assembler(longer), longer[torch.from_numpy(sources.copy())])


def test_dims_in_another_order_are_permuted() -> None:
    shape = (3, 4, 5)
    places = np.arange(60).reshape(shape)
    f = torch.randn(60, dtype=torch.float64)
    for order in itertools.permutations(range(3)):
        sources = places.transpose(order).reshape(-1)
        given = Terms(np.arange(61, dtype=np.int32), sources.astype(np.int32), None, None)
        assembler = Assembler(given, 60, torch.float64, CPU)
        assert assembler.form == ("in order" if order == (0, 1, 2) else "permuted")
        assert torch.equal(assembler(f), f[torch.from_numpy(sources)])


@pytest.mark.parametrize("spoil", ["swap", "repeat", "skip"])
def test_what_is_no_order_of_dims_is_gathered(spoil: str) -> None:
    sources = np.arange(60).reshape(5, 12).T.reshape(-1).astype(np.int32)
    size = 60
    if spoil == "swap":
        sources[[7, 31]] = sources[[31, 7]]
    elif spoil == "repeat":
        sources[59] = sources[58]
    else:
        sources, size = sources + 1, 61
    given = Terms(np.arange(61, dtype=np.int32), sources, None, None)
    f = torch.randn(size, dtype=torch.float64)
    assembler = Assembler(given, size, torch.float64, CPU)
    assert assembler.form == "gather"
    assert torch.equal(assembler(f), f[torch.from_numpy(sources).long()])


@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_blocks_are_one_product(dtype: torch.dtype, weighed: bool) -> None:
    rng = np.random.default_rng(0)
    count, height, width = 6, 5, 4
    lengths = rng.integers(1, 4, height)
    first = np.concatenate([rng.choice(width, n, replace=False) for n in lengths])
    sources = (first + width * np.arange(count)[:, None]).reshape(-1).astype(np.int32)
    starts = np.concatenate([[0], np.cumsum(np.tile(lengths, count))]).astype(np.int32)
    weights = np.tile(rng.integers(1, 9, first.size) / 4, count) if weighed else None
    given = with_blocks(Terms(starts, sources, weights, None), [2, count, 7], count * width)
    assert given.blocks is not None
    assert given.blocks[0] == count
    assembler = Assembler(given, count * width, dtype, CPU)
    assert assembler.form == "blocks"
    f = torch.from_numpy(rng.integers(-4, 5, count * width) / 4).to(dtype)
    expected = torch.from_numpy(product(given, f.double().numpy())).to(dtype)
    torch.testing.assert_close(assembler(f), expected)
    assert torch.equal(assembler(f, torch.empty_like(expected)), assembler(f))
    # One term that differs, and the blocks are not equal.
    other = sources.copy()
    other[-1] = sources[-lengths[-1] - 1] if lengths[-1] > 1 else (sources[-1] - 1)
    assert with_blocks(Terms(starts, other, weights, None), [count], count * width).blocks is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("table", [1, 4096])
def test_two_factors_multiplied_out(
    dtype: torch.dtype, threads: int, table: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assemble, "_TABLE", table)
    rng = np.random.default_rng(0)
    patterns = [SparsityPattern.from_scipy(rng.random(shape) < 0.3) for shape in ((8, 6), (6, 9))]
    factors = [terms(rng.integers(0, 3, p.nnz), True, k == 0) for k, p in enumerate(patterns)]
    dense = []
    f = [torch.from_numpy(rng.integers(-4, 5, SIZE) / 4).to(dtype) for _ in factors]
    for pattern, given, flat in zip(patterns, factors, f, strict=True):
        matrix = np.zeros(pattern.shape)
        matrix[pattern.rows, pattern.cols] = product(given, flat.double().numpy())
        dense.append(matrix)
    whole = SparsityPattern.full((8, 9))
    found = pairs_of(factors, patterns, [SIZE, SIZE], whole)
    assert found is not None
    assert found.ones == (True, False)
    left = torch.cat([f[0], torch.ones(1, dtype=dtype)])
    values = PairAssembler(found, dtype)(left, f[1])
    assert torch.equal(PairAssembler(found, dtype)(left, f[1], torch.empty_like(values)), values)
    expected = torch.from_numpy((dense[0] @ dense[1]).reshape(-1)).to(dtype)
    torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-5)


def test_a_template_is_never_written_to() -> None:
    given = terms(*FORMS["sums onto template"])
    for dtype in DTYPES:
        assembler = Assembler(given, SIZE, dtype, CPU)
        f = torch.randn(SIZE).to(dtype)
        first = assembler(f)
        kept = first.clone()
        first.fill_(9)
        assert torch.equal(assembler(f), kept)


@pytest.mark.parametrize("dtype", DTYPES)
def test_long_sums_keep_their_digits(dtype: torch.dtype) -> None:
    count = 100_000 if dtype.itemsize > 2 else 2_000
    given = Terms(np.array([0, count], np.int32), np.arange(count, dtype=np.int32), None, None)
    f = torch.rand(count, dtype=torch.float64).to(dtype)
    found = float(Assembler(given, count, dtype, CPU)(f))
    assert found == pytest.approx(
        float(f.double().sum()), rel=max(2 * torch.finfo(dtype).eps, 1e-12)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_of_factors(dtype: torch.dtype, threads: int) -> None:
    rng = np.random.default_rng(0)
    a, b = (scipy.sparse.random_array(s, density=0.2, rng=rng, format="csr", dtype=np.float64)
            for s in ((40, 9), (9, 20)))  # fmt: skip
    marks = scipy.sparse.csr_array(abs(a @ b) + scipy.sparse.eye_array(40, 20))
    for m in (a, b, marks):
        m.sort_indices()
    ends = [(m.indptr.astype(np.int64), m.indices.astype(np.int32)) for m in (a, b, marks)]
    values = [torch.from_numpy(m.data).to(dtype) for m in (a, b)]
    found = multiply(ends[0], values[0], ends[1], values[1], ends[2], 20)
    assert found.dtype is dtype
    filled = scipy.sparse.csr_array((found.numpy(), marks.indices, marks.indptr), shape=(40, 20))
    np.testing.assert_allclose(filled.toarray(), (a @ b).toarray(), atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 6, 7, 8, 100])
def test_blocks_cover_everything_once(count: int, threads: int) -> None:
    seen = np.zeros(count, dtype=int)

    def run(first: int, last: int) -> None:
        seen[first:last] += 1

    in_blocks(count, run)
    assert (seen == 1).all()


def test_a_failure_in_a_block_is_raised(threads: int) -> None:
    def run(first: int, last: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        in_blocks(100, run)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_has_threads_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        in_blocks(100, lambda a, b: None, 7)
        child = os.fork()
        if child == 0:
            import signal

            signal.alarm(10)
            in_blocks(100, lambda a, b: None, 7)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        torch.set_num_threads(before)
