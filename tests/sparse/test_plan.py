"""Plans: what they say, what they hold, and how many bytes an evaluation along one takes."""

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import pullback as pb
from pullback.sparse.plan import Plan

Func = Callable[..., Any]


def differences(x: Tensor) -> Tensor:
    return (x[1:] - x[:-1]) ** 2


def arrow(x: Tensor) -> Tensor:
    return torch.cat([x.square().sum()[None], x[0] * x[1:].sin()])


MODES = {
    "rev": (lambda x: torch.stack([x.sum(), (x * x).sum()]) * x[0], 2),
    "fwd": (lambda x: x[0] * torch.arange(9.0) + x[1], 2),
}


@pytest.mark.parametrize("mode", ["auto", "fwd", "rev", "mixed", "dense"])
@pytest.mark.parametrize("func", [differences, arrow])
def test_every_mode_gives_the_same_matrix(func: Func, mode: str) -> None:
    x = torch.rand(12, dtype=torch.float64)
    plan = pb.plan_jacobian(func, x, mode=mode)
    assert mode in ("auto", plan.mode)
    found = pb.jacobian(func, plan=plan, layout=torch.strided)(x)
    torch.testing.assert_close(found, torch.func.jacrev(func)(x))


def test_an_arrow_is_planned_with_three_products() -> None:
    plan = pb.plan_jacobian(arrow, torch.rand(60), lift=False)
    assert (plan.mode, plan.num_products) == ("mixed", 3)
    rows, columns = plan.coloring.split
    said = [int(n) for n in re.findall(r"\d+", plan.reason)]
    assert said == [rows, columns, 60, 60]


def test_a_full_jacobian_is_dense_and_never_expanded() -> None:
    x = torch.rand(300)
    plan = pb.plan_jacobian(lambda x: x.softmax(0), x)
    assert (plan.mode, plan.num_products) == ("dense", 300)
    assert plan.pattern.is_full
    pb.jacobian(lambda x: x.softmax(0), plan=plan, layout=torch.strided)(x)
    repr(plan)
    assert plan.bytes.values == 300 * 300 * 4
    assert plan.pattern._indices is None


def test_lift_is_an_option_and_plans_say_whether_it_was_taken() -> None:
    for lift in (True, "auto"):
        plan = pb.plan_jacobian(differences, torch.rand(5), lift=lift)
        assert (plan.lifted, plan.num_products) == (True, 1)
        assert plan.reason == (
            "1 VJP of the part that varies; at least 2 products without lifting; "
            "each value is one entry of a product"
        )
    plan = pb.plan_jacobian(differences, torch.rand(5), lift=False)
    assert (plan.lifted, plan.num_products) == (False, 2)


@pytest.mark.parametrize(
    ("func", "said"),
    [
        (lambda x: x.roll(1) ** 2, "each value is one entry of a product"),
        (lambda x: x**2 + x.roll(1), "each value is one entry of a product; 5 of 10 are constant"),
        (lambda x: (x**2).cumsum(0).roll(1) + x**2, "each value is a sum of up to 2 entries"),
        (lambda x: (x.roll(1) ** 2).sin().roll(1), "each value is one entry of a product"),
    ],
)
def test_the_reason_says_how_the_values_follow_from_the_products(func: Any, said: str) -> None:
    plan = pb.plan_jacobian(func, torch.rand(5), lift=True)
    assert plan.reason.endswith(f"without lifting; {said}")


def test_the_repr_tells_products_reason_and_pattern() -> None:
    plan = pb.plan_jacobian(differences, torch.rand(50))
    assert repr(plan).startswith("Plan 49 × 50: 1 product instead of 49, mode rev, lifted\n")
    plan = pb.plan_jacobian(differences, torch.rand(50), lift=False)
    text = repr(plan).splitlines()
    assert text[0] == "Plan 49 × 50: 2 products instead of 49, mode rev"
    assert text[1] == f"  {plan.reason}"
    assert text[2].startswith("SparsityPattern 49 × 50, 98 nonzeros, density 4 %")
    assert "\n".join(text[2:]) == repr(plan.pattern)


@pytest.mark.parametrize(("mode", "side"), [("rev", 5), ("fwd", 8), ("mixed", 5), ("dense", 5)])
def test_the_repr_compares_with_the_products_that_the_mode_would_take(mode: str, side: int) -> None:
    plan = pb.plan_jacobian(lambda x: x[:5] * x[3:], torch.rand(8), mode=mode)
    assert repr(plan).startswith(f"Plan 5 × 8: {plan.num_products} product")
    assert f" instead of {side}, mode {mode}" in repr(plan).splitlines()[0]


def test_one_product_is_not_products() -> None:
    assert "1 product instead of 4" in repr(pb.plan_jacobian(torch.sin, torch.rand(4)))


def test_notes_are_part_of_the_repr() -> None:
    scale = [2.0]

    def unrecordable(x: Tensor) -> Tensor:
        return x * scale[0] if float(x.detach().sum()) > -1 else x

    plan = pb.plan_jacobian(unrecordable, torch.rand(3))
    assert plan.notes
    for note in plan.notes:
        assert f"  note: {note}" in repr(plan)


@pytest.mark.parametrize(("inputs", "outputs", "values"), [
    (torch.float32, torch.float32, torch.float32),
    (torch.float32, torch.float64, torch.float64),
    (torch.float64, torch.float32, torch.float64),
    (torch.bfloat16, torch.float32, torch.float32),
    (torch.complex64, torch.complex64, torch.float32),
    (torch.complex128, torch.float32, torch.float64),
])  # fmt: skip
def test_the_dtype_of_the_values(
    inputs: torch.dtype, outputs: torch.dtype, values: torch.dtype
) -> None:
    def func(x: Tensor) -> Tensor:
        return (x.real if not outputs.is_complex else x).to(outputs) * 3

    x = torch.ones(4, dtype=inputs)
    plan = pb.plan_jacobian(func, x)
    assert plan.dtype is values
    assert pb.jacobian(func, plan=plan)(x).dtype is values
    assert plan.bytes.values == plan.pattern.nnz * values.itemsize


def test_a_plan_names_its_tensors() -> None:
    plan = pb.plan_jacobian(
        lambda state, dt: {"new": state["u"] * dt, "old": state["v"]},
        {"u": torch.rand(3), "v": torch.rand(2)}, torch.rand(()), argnums=(0, 1),
    )  # fmt: skip
    assert [leaf.name for leaf in plan.inputs] == ["state['u']", "state['v']", "dt"]
    assert [leaf.name for leaf in plan.outputs] == ["output['new']", "output['old']"]
    assert plan.argnums == (0, 1)
    assert plan.pattern.shape == (5, 6)


@pytest.mark.parametrize("lift", [True, False])
def test_a_plan_holds_neither_the_function_nor_its_tensors(lift: bool) -> None:
    class Holder:
        def __init__(self) -> None:
            self.weight = torch.rand(4)

        def __call__(self, x: Tensor) -> Tensor:
            return x * self.weight

    func, x = Holder(), torch.rand(4)
    plan = pb.plan_jacobian(func, x, lift=lift)
    held = [weakref.ref(t) for t in (func, func.weight, x)]
    del func, x
    gc.collect()
    assert [ref() for ref in held] == [None, None, None]
    assert plan.num_products == (0 if lift else 1)  # it is linear: all of it can be taken out


def test_a_plan_evaluates_at_other_points_and_in_other_functions_of_its_structure() -> None:
    plan = pb.plan_jacobian(lambda x: (x[1:] - x[:-1]) ** 2, torch.rand(6))
    again = lambda x: (x[1:] - x[:-1]) ** 2  # noqa: E731
    x = torch.randn(6)
    torch.testing.assert_close(
        pb.jacobian(again, plan=plan)(x).to_dense(), torch.func.jacrev(again)(x)
    )


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "mode": (
        lambda: pb.plan_jacobian(differences, torch.rand(3), mode="up"),
        "plan_jacobian: `mode` is 'up'; it must be 'auto' or 'fwd' or 'rev' or 'mixed' or 'dense'.",
    ),
    "lift": (
        lambda: pb.plan_jacobian(differences, torch.rand(3), lift="yes"),
        "plan_jacobian: `lift` is 'yes'; it must be True, False or 'auto'.",
    ),
    "pattern": (
        lambda: pb.plan_jacobian(differences, torch.rand(3), pattern=np.eye(3, dtype=bool)),
        "plan_jacobian: `pattern` has shape (3, 3), but the Jacobian has shape (2, 3): a row per "
        "output element, a column per element of the selected arguments (two each where they are "
        "complex).",
    ),
    "freeze": (
        lambda: pb.plan_jacobian(differences, torch.rand(3), freeze=["w"]),
        "plan_jacobian: `freeze` names 'w', but `func` reads no tensor of that name. The tensors "
        "that it reads: none.",
    ),
    "integers": (
        lambda: pb.plan_jacobian(differences, torch.arange(3)),
        "plan_jacobian: `x` has dtype int64, and only floating point and complex tensors can be "
        "differentiated. Convert it with .float() or .double(), or close over it: lambda x: "
        "func(x, x).",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    refused, text = REFUSED[name]
    with pytest.raises(pb.ArgumentError, match="^" + re.escape(text) + "$"):
        refused()


def peak_of(run: Callable[[], object]) -> int:
    """The most bytes that torch's allocator held at once during ``run``, above those before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watch:
        result = run()
    assert result is not None
    events = [e for e in watch.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    return max(0, int(np.cumsum(changes).max(initial=0)))


def test_the_byte_counter_counts() -> None:
    def run() -> Tensor:
        for _ in range(3):
            torch.zeros(1000) + torch.ones(1000)
        return torch.zeros(100)

    assert peak_of(run) == 3 * 4000


def activations(func: Func, x: Tensor) -> int:
    return peak_of(lambda: func(x.detach().clone().requires_grad_()))


def stencil(x: Tensor) -> Tensor:
    wide = torch.stack([x.roll(k) for k in range(24)])
    return (wide * wide.sin()).sum(0)


N = 4096


@pytest.mark.parametrize("chunk", [1, 2, 7, None])
@pytest.mark.parametrize("mode", ["rev", "fwd", "mixed", "dense"])
def test_a_call_holds_one_forward_its_values_and_one_chunk(mode: str, chunk: int | None) -> None:
    n = 256 if mode == "dense" else N
    x = torch.rand(n, dtype=torch.float64)
    plan = pb.plan_jacobian(stencil, x, mode=mode, lift=False)
    jac = pb.jacobian(stencil, plan=plan, chunk_size=chunk)
    jac(x)
    step = min(chunk or plan.chunk_size, plan.num_products)
    allowed = activations(stencil, x) + plan.bytes.values + step * plan.bytes_per_product
    assert peak_of(lambda: jac(x)) <= 1.05 * allowed


@pytest.mark.parametrize("mode", ["rev", "fwd"])
def test_a_lifted_call_holds_the_products_that_its_values_are_made_of_too(mode: str) -> None:
    x = torch.rand(N, dtype=torch.float64)
    plan = pb.plan_jacobian(stencil, x, mode=mode, lift=True)
    assert plan.lifted
    jac = pb.jacobian(stencil, plan=plan)
    jac(x)
    # As many numbers as there are values, and for J t once more as tangents.
    products = (1 if mode == "rev" else 2) * plan.bytes.values
    allowed = activations(stencil, x) + plan.bytes.values + plan.bytes.chunk + products
    assert peak_of(lambda: jac(x)) <= 1.05 * allowed


def test_a_chunk_is_less_than_all_products() -> None:
    x = torch.rand(N, dtype=torch.float64)
    plan = pb.plan_jacobian(stencil, x, mode="rev", lift=False)
    assert plan.num_products >= 24
    few, all_ = (pb.jacobian(stencil, plan=plan, chunk_size=c) for c in (1, None))
    few(x), all_(x)
    assert peak_of(lambda: few(x)) < 0.5 * peak_of(lambda: all_(x))


def test_bytes_says_what_is_held() -> None:
    x = torch.rand(N, dtype=torch.float64)
    plan = pb.plan_jacobian(stencil, x, mode="rev", lift=False)
    nnz = 24 * N
    assert plan.pattern.nnz == nnz
    found = plan.bytes
    assert found.values == 8 * nnz
    assert found.chunk == min(plan.chunk_size, plan.num_products) * plan.bytes_per_product
    # CSR columns and places in the products, both int32, the row starts, and the rows' colors.
    assert found.indices == 4 * (2 * nnz + (N + 1) + N)
    pb.jacobian(stencil, plan=plan)(x)
    assert plan.kept.nbytes <= found.indices  # the pattern's own arrays among them


@pytest.mark.parametrize("layout", [torch.sparse_csr, "scipy"])
def test_repeated_calls_keep_nothing(layout: Any) -> None:
    x = torch.rand(N, dtype=torch.float64)
    plan: Plan = pb.plan_jacobian(stencil, x)
    jac = pb.jacobian(stencil, plan=plan, layout=layout)
    jac(x), jac(x)
    third = peak_of(lambda: jac(x))  # which tries out how it can be replayed from then on

    def twice() -> int:
        jac(x), jac(x)
        return 0

    once = peak_of(lambda: jac(x))
    assert third <= 3 * once
    assert peak_of(twice) <= 1.01 * once + 8 * plan.pattern.nnz


def test_planning_leaves_the_graphs_of_others_usable() -> None:
    norm = torch.nn.BatchNorm1d(3)
    x = torch.rand(5, 3)
    out = norm(x)
    pb.plan_jacobian(norm, x)
    out.square().sum().backward()  # autograd refuses what was written to since
    assert norm.weight.grad is not None
