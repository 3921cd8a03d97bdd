"""A block for each sample: what it is, how it is called again, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils._pytree import tree_map

import pullback as pb
from tests.parts.functions import Func, counted, rand


def per_sample(func: Func, x: Any) -> Any:
    """By torch's own means: one sample at a time."""

    def alone(one: Any) -> Any:
        batch = tree_map(lambda t: t[None], one)
        return tree_map(lambda t: t[0], func(batch))

    count = len(x["a"]) if isinstance(x, dict) else len(x)
    found = [torch.func.jacrev(alone)(tree_map(lambda t, k=k: t[k], x)) for k in range(count)]
    return tree_map(lambda *parts: torch.stack(parts), *found)


def double(module: nn.Module) -> nn.Module:
    return module.double().requires_grad_(False)


torch.manual_seed(0)
INDEPENDENT: dict[str, tuple[Func, Any]] = {
    "network": (
        double(nn.Sequential(nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 8))), rand(5, 16)
    ),
    "pointwise": (torch.sin, rand(7, 4)),
    "layer norm": (double(nn.LayerNorm(3)), rand(5, 3)),
    "group norm": (double(nn.GroupNorm(2, 4)), rand(5, 4, 3)),
    "instance norm": (double(nn.InstanceNorm1d(4)), rand(5, 4, 3)),
    "batch norm, evaluating": (double(nn.BatchNorm1d(3)).eval(), rand(5, 3)),
    "convolution": (double(nn.Conv2d(2, 3, 3, padding=1)), rand(2, 2, 5, 4)),
    "not full": (lambda x: (x[:, 1:] ** 2).roll(1, 1), rand(4, 5)),
    "scalars": (lambda x: x.square().sum((1, 2)), rand(4, 3, 2)),
    "one sample": (lambda x: x.softmax(1), rand(1, 4)),
    "two outputs": (lambda x: {"y": x.sin(), "z": x.sum(1)}, rand(4, 5)),
    "two inputs": (lambda p: p["a"] * p["b"].sum(1, keepdim=True), {
        "a": rand(4, 3), "b": rand(4, 2, seed=1)
    }),
    "no graph": (lambda x: torch.ones(len(x), 2, dtype=x.dtype), rand(4, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", INDEPENDENT)
def test_blocks_are_the_jacobians_of_single_samples(name: str) -> None:
    func, x = INDEPENDENT[name]
    jac = pb.jacobian(func, layout="block_diagonal")
    for seed in range(5):  # the third call is replayed in another way than the second
        x = tree_map(lambda t, seed=seed: rand(*t.shape, seed=seed), x)
        assert_close(jac(x), per_sample(func, x))


@pytest.mark.parametrize("name", INDEPENDENT)
def test_the_operator_has_the_blocks_as_flat_matrices(name: str) -> None:
    func, x = INDEPENDENT[name]
    J = pb.JacobianOperator(func, x)
    found = per_sample(func, x)
    outputs = list(found.values()) if name == "two outputs" else [found]
    rows = []
    for of_output in outputs:
        blocks = list(of_output.values()) if name == "two inputs" else [of_output]
        count = len(blocks[0])
        widths = [t[0].numel() for t in (x.values() if isinstance(x, dict) else [x])]
        flat = [b.reshape(count, -1, w) for b, w in zip(blocks, widths, strict=True)]
        rows.append(torch.cat(flat, dim=2))
    assert_close(J.block_diagonal(), torch.cat(rows, dim=1))


def test_as_many_products_as_one_sample_has_outputs() -> None:
    func, x = INDEPENDENT["network"]
    J = pb.JacobianOperator(func, x)
    assert J.cost_of("block_diagonal").products == 8
    assert J.cost_of("block_diagonal").whole == 40
    assert counted(J, J.block_diagonal) == 8


def test_a_batch_of_none_and_outputs_of_nothing() -> None:
    for shape in ((0, 3), (3, 0)):
        x = rand(*shape)
        assert pb.jacobian(torch.sin, layout="block_diagonal")(x).shape == (*shape, shape[1])
        assert pb.JacobianOperator(torch.sin, x).block_diagonal().shape == (*shape, shape[1])


def test_shapes_are_planned_once_each() -> None:
    jac = pb.jacobian(lambda x: x.sin() * x, layout="block_diagonal")
    plans = {}
    for size in (3, 5, 3, 5, 3, 5, 3, 5):
        x = rand(size, 2, seed=1)
        assert_close(jac(x), torch.diag_embed(x.cos() * x + x.sin()))
        assert jac.engine == "replay"
        assert plans.setdefault(size, jac.plan) is jac.plan


def test_a_plan_that_is_given_is_proven_too() -> None:
    net, x = INDEPENDENT["network"]
    plan = pb.plan_jacobian(net, x)
    jac = pb.jacobian(net, plan=plan, layout="block_diagonal")
    assert_close(jac(x), per_sample(net, x))
    joined = pb.plan_jacobian(lambda x: x - x.mean(0), x)
    with pytest.raises(pb.UnsupportedError, match="samples 0 and 1 are not independent"):
        pb.jacobian(lambda x: x - x.mean(0), plan=joined, layout="block_diagonal")(x)


def test_blocks_are_differentiable_and_can_be_written_to_again() -> None:
    x = rand(4, 3).requires_grad_()
    jac = pb.jacobian(lambda x: x**3, layout="block_diagonal")
    (gradient,) = torch.autograd.grad(jac(x).sum(), x)
    assert_close(gradient, 6 * x.detach())
    with torch.no_grad():
        kept = jac(x)
        assert jac(2 * x.detach(), out=kept) is kept
        assert_close(kept, torch.diag_embed(12 * x.detach() ** 2))


def test_complex_elements_count_as_pairs() -> None:
    x = torch.complex(rand(3, 2), rand(3, 2, seed=1))
    found = pb.jacobian(lambda x: x * x, layout="block_diagonal")(x)
    whole = pb.jacobian(lambda x: x * x)(x)
    expected = torch.stack([whole[b, :, :, b] for b in range(3)])
    assert found.shape == (3, 2, 2, 2, 2)
    assert_close(found, expected)
    holomorphic = pb.jacobian(lambda x: x * x, layout="block_diagonal", holomorphic=True)(x)
    assert_close(holomorphic, torch.diag_embed(2 * x))


def test_a_function_that_runs_itself_is_proven_at_every_point() -> None:
    def func(x: Tensor) -> Tensor:
        return x * x if float(x.detach().sum()) > 0 else x * x[0]

    jac = pb.jacobian(func, layout="block_diagonal")
    x = rand(3, 2).abs()
    assert_close(jac(x), torch.diag_embed(2 * x))
    with pytest.raises(pb.UnsupportedError, match="are not independent"):
        jac(-x)


def test_hessians_of_a_sum_over_samples() -> None:
    net = double(nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)))
    hess = pb.hessian(lambda x: net(x).sum(), layout="block_diagonal")
    for seed in range(5):
        x = rand(6, 2, seed=seed)
        expected = torch.func.vmap(torch.func.hessian(lambda t: net(t).sum()))(x)
        assert_close(hess(x), expected)
    assert_close(pb.HessianOperator(lambda x: net(x).sum(), x).block_diagonal(), expected)


def attention(x: Tensor) -> Tensor:
    """Over the samples of the batch, as if it were a sequence."""
    return nn.functional.scaled_dot_product_attention(x[None], x[None], x[None])[0]


NORM = (
    r"through the backward of native_batch_norm_backward in NativeBatchNormBackward0 at {}. That "
    r"is a batch norm in training mode: it takes mean and variance of the whole batch. Put it into "
    r"evaluation mode, module.eval(), or take a LayerNorm or a GroupNorm."
)
JOIN = (
    r"through the backward of {} at {}. A block for each sample would leave that out. Take what "
    r"joins the samples out of the function, or ask for the sparse matrix, pb.jacobian(func, "
    r"layout=torch.sparse_csr)."
)
HERE = r"test_samples.py:\d+"
norm1, norm2 = nn.BatchNorm1d(4).double(), nn.BatchNorm2d(2).double()
linear = double(nn.Linear(3, 4))
COUPLED: dict[str, tuple[Func, tuple[int, ...], tuple[int, int], str]] = {
    "BatchNorm1d": (lambda x: norm1(linear(x)), (5, 3), (0, 1), NORM.format("HERE")),
    "BatchNorm2d": (lambda x: norm2(x), (3, 2, 4, 4), (0, 1), NORM.format("HERE")),
    "mean": (lambda x: x - x.mean(0), (5, 3), (0, 1),
             JOIN.format("expand in MeanBackward1", "HERE")),
    "attention": (attention, (5, 4), (0, 1), JOIN.format("bmm in BmmBackward0", "HERE")),
    "one for all": (lambda x: x * x[2], (4, 3), (0, 2),
                    JOIN.format("select_backward in SelectBackward0", "HERE")),
    "turned": (lambda x: x.flip(0), (4, 3), (0, 3), JOIN.format("flip in FlipBackward0", "HERE")),
}  # fmt: skip


@pytest.mark.parametrize("name", COUPLED)
def test_samples_that_depend_on_each_other_are_refused_by_name(name: str) -> None:
    func, shape, (a, b), ending = COUPLED[name]
    x = rand(*shape)
    zeros = ", ".join("0" for _ in shape[1:])
    said = re.escape(
        f": samples {a} and {b} are not independent: output[{a}, {zeros}] may depend on "
        f"x[{b}, {zeros}], {ending}"
    ).replace("HERE", HERE)
    for caller, call in (
        ("jacobian", lambda: pb.jacobian(func, layout="block_diagonal")(x)),
        ("JacobianOperator.block_diagonal", pb.JacobianOperator(func, x).block_diagonal),
    ):
        with pytest.raises(pb.UnsupportedError, match=f"^{caller}{said}$"):
            call()


@pytest.mark.parametrize("build", [nn.BatchNorm1d(3), nn.Sequential(nn.Linear(3, 3), nn.ReLU())])
def test_what_is_refused_in_training_is_given_in_evaluation(build: nn.Module) -> None:
    net = nn.Sequential(build, nn.BatchNorm1d(3)).double()
    x = rand(6, 3)
    jac = pb.jacobian(net, layout="block_diagonal")
    with pytest.raises(pb.UnsupportedError, match=re.escape("module.eval()")):
        jac(x)
    net.eval()
    assert_close(jac(x).detach(), per_sample(net, x).detach())


def refuses(text: str, call: Callable[[], object]) -> None:
    with pytest.raises(pb.ArgumentError, match=f"^{re.escape(text)}$"):
        call()


def test_a_common_first_axis_is_needed() -> None:
    for caller, call in (
        ("jacobian", lambda f, x: pb.jacobian(f, layout="block_diagonal")(x)),
        (
            "JacobianOperator.block_diagonal",
            lambda f, x: pb.JacobianOperator(f, x).block_diagonal(),
        ),
    ):
        first = "needs a first axis of one length in all outputs and selected inputs, and the"
        refuses(
            f"{caller}: a block for each sample {first} shapes are `x` (4, 2), `output` (3, 2). "
            f"Put the samples first, with x.movedim.",
            lambda call=call: call(lambda x: x[1:], rand(4, 2)),
        )
        refuses(
            f"{caller}: a block for each sample {first} shapes are `x` (4,), `output` (). "
            f"Put the samples first, with x.movedim.",
            lambda call=call: call(lambda x: x.sum(), rand(4)),
        )
    refuses(
        "jacobian: `layout` is 'blocks'; it must be torch.strided, torch.sparse_csr, "
        "torch.sparse_coo, 'scipy' or 'block_diagonal'.",
        lambda: pb.jacobian(torch.sin, layout="blocks"),
    )
