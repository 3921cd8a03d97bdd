"""The layouts of a result: the same matrix in each, and jacrev's structure in the dense one."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import pullback as pb
from pullback.sparse.layouts import LAYOUTS

X = torch.linspace(0.2, 1.0, 12, dtype=torch.float64)
A, B = torch.rand(3, 2, dtype=torch.float64), torch.rand(2, dtype=torch.float64)

CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...], Any]] = {
    "differences": (lambda x: (x[1:] - x[:-1]) ** 2, (X,), 0),
    "full": (lambda x: x.softmax(0), (X,), 0),
    "matrix to matrix": (lambda a: a.t() * 2, (A,), 0),
    "number to vector": (lambda s: s * torch.arange(3.0).double(), (X[0],), 0),
    "vector to number": (lambda x: x.prod(), (X,), 0),
    "number to number": (lambda s: s.sin(), (X[0],), 0),
    "no outputs": (lambda x: x[:0] * 2, (X,), 0),
    "no inputs": (lambda x: torch.cat([x, x.new_ones(2)]), (X[:0],), 0),
    "no entries": (lambda x: torch.ones(3).double(), (X,), 0),
    "second of two": (lambda a, b: a * b, (A, B), 1),
    "both": (lambda a, b: a * b, (A, B), (0, 1)),
    "turned round": (lambda a, b: a * b, (A, B), (1, 0)),
    "one in a tuple": (lambda a, b: a * b, (A, B), (0,)),
    "dict in, tuple out": (lambda p: (p["a"] * p["b"], p["b"].exp()), ({"a": A, "b": B},), 0),
    "nested": (
        lambda p, q: {"u": [p[0] * q, p[1]["w"].sum()], "v": (q * 2,)},
        ((A, {"w": X}), B), (0, 1),
    ),
    "a list": (lambda p: [p[0] * 2, p[1].sum()], ([A, B],), 0),
    "not contiguous": (lambda a: a.t() * a.t(), (A.t(),), 0),
}  # fmt: skip
EVERY = pytest.mark.parametrize("name", CASES)


def whole(func: Callable[..., Any], args: tuple[Any, ...], argnums: Any) -> Tensor:
    """The (m, n) matrix out of jacrev's blocks: rows by output leaf, columns by input leaf."""
    blocks = pytree.tree_leaves(torch.func.jacrev(func, argnums)(*args))
    outputs = pytree.tree_leaves(func(*args))
    chosen = argnums if isinstance(argnums, tuple) else (argnums,)
    inputs = pytree.tree_leaves([args[k] for k in chosen])
    pieces = iter(blocks)
    rows = [
        torch.cat([next(pieces).reshape(o.numel(), i.numel()) for i in inputs], dim=1)
        for o in outputs
    ]
    return torch.cat(rows)


def as_dense(matrix: Any) -> Tensor:
    if isinstance(matrix, Tensor):
        return matrix.to_dense()
    return torch.from_numpy(matrix.toarray())


@EVERY
def test_every_layout_is_the_same_matrix(name: str) -> None:
    func, args, argnums = CASES[name]
    expected = whole(func, args, argnums)
    for layout in LAYOUTS[1:]:
        found = pb.jacobian(func, argnums, layout=layout)(*args)
        torch.testing.assert_close(as_dense(found), expected)


@EVERY
@pytest.mark.parametrize("planned", [False, True])
def test_strided_is_the_structure_of_jacrev(name: str, planned: bool) -> None:
    func, args, argnums = CASES[name]
    plan = pb.plan_jacobian(func, *args, argnums=argnums) if planned else None
    found = pb.jacobian(func, argnums, plan=plan, layout=torch.strided)(*args)
    expected = torch.func.jacrev(func, argnums)(*args)
    assert pytree.tree_structure(found) == pytree.tree_structure(expected)
    torch.testing.assert_close(found, expected)


@EVERY
def test_the_indices_are_in_order_and_int32(name: str) -> None:
    func, args, argnums = CASES[name]
    plan = pb.plan_jacobian(func, *args, argnums=argnums)
    csr = pb.jacobian(func, argnums, plan=plan)(*args)
    coo = pb.jacobian(func, argnums, plan=plan, layout=torch.sparse_coo)(*args)
    sci = pb.jacobian(func, argnums, plan=plan, layout="scipy")(*args)
    assert csr.layout is torch.sparse_csr
    assert csr.crow_indices().dtype is csr.col_indices().dtype is torch.int32
    assert isinstance(sci, scipy.sparse.csr_array)
    assert sci.indices.dtype == sci.indptr.dtype == np.int32
    assert sci.has_canonical_format
    assert coo.is_coalesced()
    assert torch.equal(coo.indices(), torch.stack([plan.pattern.rows, plan.pattern.cols]))
    assert torch.equal(csr.values(), coo.values())
    assert torch.equal(csr.values(), torch.from_numpy(sci.data))
    assert torch.equal(csr.col_indices(), torch.from_numpy(sci.indices))
    assert csr.shape == coo.shape == sci.shape == plan.pattern.shape


@pytest.mark.parametrize("layout", [torch.sparse_csr, torch.sparse_coo])
def test_results_pass_torchs_own_checks(layout: torch.layout) -> None:
    found = pb.jacobian(CASES["differences"][0], layout=layout)(X)
    with torch.sparse.check_sparse_tensor_invariants():
        if layout is torch.sparse_csr:
            torch.sparse_csr_tensor(
                found.crow_indices(), found.col_indices(), found.values(), found.shape
            )
        else:
            torch.sparse_coo_tensor(found.indices(), found.values(), found.shape)
    v = torch.rand(12, dtype=torch.float64)
    torch.testing.assert_close(found @ v, torch.func.jacrev(CASES["differences"][0])(X) @ v)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_out_takes_the_values_of_another_point(layout: Any) -> None:
    func = CASES["differences"][0]
    jac = pb.jacobian(func, layout=layout)
    first = jac(X)
    held = memory(first)
    for k in range(6):
        again = jac(X.flip(0) + k, out=first)
        assert again is first
        torch.testing.assert_close(as_dense(first), torch.func.jacrev(func)(X.flip(0) + k))
        assert memory(first) == held


@pytest.mark.parametrize("compile", [False, True])
def test_out_that_lies_in_the_memory_of_an_argument_is_filled_rightly(compile: bool) -> None:
    func = lambda x: x.roll(1) * x + x.roll(2)  # noqa: E731
    plan = pb.plan_jacobian(func, X)
    jac = pb.jacobian(func, plan=plan, compile=compile)
    for _ in range(5):
        matrix = jac(X)
        inside = matrix.values()[: len(X)]
        inside.copy_(X + 1)
        before = inside.clone()
        jac(inside, out=matrix)
        torch.testing.assert_close(as_dense(matrix), torch.func.jacrev(func)(before))


@pytest.mark.parametrize("compile", [False, True])
def test_out_is_written_in_place_and_counted_as_written(compile: bool) -> None:
    func = lambda x: x.roll(1) * x + x.roll(2)  # noqa: E731
    jac = pb.jacobian(func, plan=pb.plan_jacobian(func, X), compile=compile)
    matrix = jac(X)
    for k in range(6):
        values = matrix.values()
        before = values._version
        assert jac(X + k, out=matrix) is matrix
        assert values._version > before or matrix.values()._version > before
        torch.testing.assert_close(as_dense(matrix), torch.func.jacrev(func)(X + k))


def test_out_with_a_graph_of_its_own_or_of_another_plan_is_filled_rightly() -> None:
    func = lambda x: x.roll(1) * x  # noqa: E731
    jac, other = (
        pb.jacobian(func, layout=torch.sparse_csr),
        pb.jacobian(func, layout=torch.sparse_csr),
    )
    theirs = other(X)
    for k in range(5):
        assert jac(X + k, out=theirs) is theirs
        torch.testing.assert_close(as_dense(theirs), torch.func.jacrev(func)(X + k))


def memory(matrix: Any) -> int:
    """Where the values lie."""
    if not isinstance(matrix, Tensor):
        return int(matrix.data.ctypes.data)
    if matrix.layout is torch.strided:
        return matrix.data_ptr()
    values = matrix._values() if matrix.layout is torch.sparse_coo else matrix.values()
    return values.data_ptr()


@pytest.mark.parametrize(("one", "other"), list(itertools.permutations(LAYOUTS, 2)))
def test_out_of_another_layout_is_refused(one: Any, other: Any) -> None:
    func = CASES["differences"][0]
    target = pb.jacobian(func, layout=one)(X)
    with pytest.raises(pb.ArgumentError, match=r"^jacobian: `out` is .*, but the result is "):
        pb.jacobian(func, layout=other)(X, out=target)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_out_of_another_shape_dtype_or_kind_is_refused(layout: Any) -> None:
    func = CASES["differences"][0]
    jac = pb.jacobian(func, layout=layout)
    before = as_dense(jac(X)).clone()
    for target in (jac(X[:7]), jac(X.float()), 3, "J"):
        with pytest.raises(pb.ArgumentError, match=r"^jacobian: `out` is .* or leave out out\.$"):
            jac(X, out=target)
    torch.testing.assert_close(as_dense(jac(X)), before)


@pytest.mark.parametrize("layout", ["scipy", torch.sparse_csr, torch.sparse_coo])
def test_out_of_another_pattern_with_as_many_entries_is_never_filled_wrongly(layout: Any) -> None:
    """Same shape, same number of entries, other places: refused, or filled rightly."""
    target = pb.jacobian(lambda x: x.flip(0) * 2, layout=layout)(X)
    func = lambda x: x.roll(1).sin()  # noqa: E731
    try:
        found = pb.jacobian(func, layout=layout)(X, out=target)
    except pb.ArgumentError:
        return
    torch.testing.assert_close(as_dense(found), torch.func.jacrev(func)(X))


def test_out_of_another_scipy_format_is_never_filled_wrongly() -> None:
    func = lambda x: x.roll(1) * x.roll(-1) ** 2 * x  # noqa: E731
    jac = pb.jacobian(func, layout="scipy")
    # The pattern is symmetric: columns and rows have the same indices, and only the format differs.
    target = jac(X).tocsc()
    try:
        found = jac(X.flip(0), out=target)
    except pb.ArgumentError:
        return
    torch.testing.assert_close(as_dense(found), torch.func.jacrev(func)(X.flip(0)))


def test_scipy_results_are_the_callers_to_change() -> None:
    func = CASES["differences"][0]
    jac = pb.jacobian(func, layout="scipy")
    first = jac(X)
    first.indices[:] = 0
    first.data[:] = 0
    torch.testing.assert_close(as_dense(jac(X)), torch.func.jacrev(func)(X))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtypes(layout: Any, dtype: torch.dtype) -> None:
    found = pb.jacobian(CASES["differences"][0], layout=layout)(X.to(dtype))
    expected = np.dtype(str(dtype).removeprefix("torch.")) if layout == "scipy" else dtype
    assert found.dtype == expected


@pytest.mark.parametrize("layout", LAYOUTS[:3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(layout: Any, dtype: torch.dtype) -> None:
    func = CASES["differences"][0]
    x = torch.arange(5).to(dtype)
    found = pb.jacobian(func, layout=layout)(x)
    assert found.dtype == dtype
    # Small whole numbers are exact in half precision.
    expected = torch.func.jacrev(func)(x.double())
    rows = torch.zeros(4, 5, dtype=torch.float64)
    if layout is torch.strided:
        rows = found.double()
    else:
        coo = found if layout is torch.sparse_coo else None
        places = coo.indices() if coo is not None else torch.stack([
            torch.repeat_interleave(torch.arange(4), found.crow_indices().diff().long()),
            found.col_indices().long(),
        ])  # fmt: skip
        values = coo.values() if coo is not None else found.values()
        rows[places[0], places[1]] = values.double()
    torch.testing.assert_close(rows, expected)


def real_parts(func: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """The real matrix of a complex function by finite differences: rows and columns (re, im)."""
    pairs = torch.view_as_real(z).reshape(-1)

    def real(pairs: Tensor) -> Tensor:
        out = func(torch.view_as_complex(pairs.reshape(*z.shape, 2)))
        return (torch.view_as_real(out) if out.is_complex() else out).reshape(-1)

    step = 1e-6
    units = torch.eye(len(pairs), dtype=pairs.dtype) * step
    return torch.stack([(real(pairs + u) - real(pairs - u)) / (2 * step) for u in units], dim=1)


COMPLEX: dict[str, Callable[[Tensor], Tensor]] = {
    "holomorphic": lambda z: z * z,
    "conjugate": lambda z: z.conj() * z[0],
    "modulus": lambda z: z.abs(),
    "to real": lambda z: z.real * z.imag,
    "mixed": lambda z: z.roll(1) * z.conj(),
}


@pytest.mark.parametrize("name", COMPLEX)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_complex_is_pairs_of_reals(name: str, layout: Any) -> None:
    z = torch.tensor([1 + 2j, -0.5 + 1j, 2 - 1j], dtype=torch.complex128)
    found = pb.jacobian(COMPLEX[name], layout=layout)(z)
    expected = real_parts(COMPLEX[name], z)
    if layout is torch.strided:
        out = COMPLEX[name](z)
        assert found.shape == ((3, 2, 3, 2) if out.is_complex() else (3, 3, 2))
        found = found.reshape(expected.shape)
    torch.testing.assert_close(as_dense(found), expected, rtol=1e-7, atol=1e-7)


def test_a_real_function_of_real_inputs_into_complex() -> None:
    func = lambda x: torch.complex(x, x * x)  # noqa: E731
    found = pb.jacobian(func, layout="scipy")(X[:3]).toarray()
    x = X[:3].numpy()
    expected = np.zeros((6, 3))
    expected[[0, 2, 4], [0, 1, 2]] = 1
    expected[[1, 3, 5], [0, 1, 2]] = 2 * x
    np.testing.assert_allclose(found, expected)


def test_an_unknown_layout_is_refused() -> None:
    for layout in ("csr", torch.sparse_csc, 3):
        with pytest.raises(pb.ArgumentError) as caught:
            pb.jacobian(lambda x: x, layout=layout)
        assert re.fullmatch(
            r"jacobian: `layout` is .*; it must be torch\.strided, torch\.sparse_csr, "
            r"torch\.sparse_coo, 'scipy' or 'block_diagonal'\.",
            str(caught.value),
        )
