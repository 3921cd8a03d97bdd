"""What ``pb.record`` promises beyond the laws: traces, names, notes, options, size."""

from __future__ import annotations

import gc
import weakref
from dataclasses import astuple
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import pullback as pb


def ones(*shape: int) -> Tensor:
    return torch.ones(*shape, requires_grad=True)


def test_the_tutorials_example() -> None:
    # d(out.sum())/d(inp) = 2 (inp + 1): 4 where inp is 1, 2 elsewhere.
    inp = torch.eye(4, 5, requires_grad=True)
    out = (inp + 1).pow(2).t()
    record = pb.record(out, torch.ones_like(out), inputs={"inp": inp})
    assert torch.equal(record.deposits["inp"], 2 * (torch.eye(4, 5) + 1))
    assert [node.name for node in record.nodes] == [
        "TBackward0",
        "PowBackward0",
        "AddBackward0",
        "AccumulateGrad",
    ]
    assert inp.grad is None


def test_the_second_call_doubles_and_zeroing_starts_again() -> None:
    inp = torch.eye(4, 5, requires_grad=True)
    out = (inp + 1).pow(2).t()
    v = torch.ones_like(out)
    first = pb.record(out, v, accumulate=True, retain_graph=True).deposits[0]
    second = pb.record(out, v, accumulate=True, retain_graph=True).deposits[0]
    assert torch.equal(first, second)
    assert inp.grad is not None
    assert torch.equal(inp.grad, 2 * first)
    inp.grad.zero_()
    pb.record(out, v, accumulate=True)
    assert torch.equal(inp.grad, first)


def test_upstreams_and_contributions_of_a_double_edge() -> None:
    # x * x at x = 3: each of the two edges carries v * 3, and the leaf receives 6.
    x = torch.tensor([3.0], requires_grad=True)
    record = pb.record(x * x, torch.ones(1))
    mul, leaf = record.nodes
    assert [edge.contribution.values.item() for edge in mul.edges if edge.contribution] == [3, 3]
    assert leaf.upstream[0] is not None
    assert leaf.upstream[0].stats.max == 6
    assert record.incoming()[leaf.index] == list(mul.edges)


def test_multi_output_nodes_have_a_slot_per_output() -> None:
    x = torch.arange(6.0).reshape(3, 2).requires_grad_()
    first, _, last = x.unbind()
    record = pb.record((first, last), (torch.ones(2), 2 * torch.ones(2)))
    (unbind, _) = record.nodes
    shapes = [None if c is None else c.shape for c in unbind.upstream]
    assert shapes == [(2,), None, (2,)]
    assert torch.equal(record.deposits[0], torch.tensor([[1.0, 1], [0, 0], [2, 2]]))


def test_undefined_contributions_are_not_zeros() -> None:
    class Half(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
            return x + y

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
            return grad, None

    x, y = ones(2), ones(2)
    record = pb.record(Half.apply(x, y), torch.ones(2), inputs={"x": x, "y": y})
    assert [edge.contribution is None for edge in record.nodes[0].edges] == [False, True]
    assert list(record.deposits) == ["x"]
    assert record.notes == (
        "y is reached, but no gradient is defined there: no deposit (not a zero).",
    )


@pytest.mark.parametrize("accumulate", [False, True])
def test_inputs_restrict_the_pass_as_torch_does(accumulate: bool) -> None:
    x, y, z = ones(3), ones(3), ones(3)
    h = x * y
    out = (h * z).exp()
    record = pb.record(out, torch.ones(3), inputs={"x": x, "h": h}, accumulate=accumulate)
    assert list(record.deposits) == ["x", "h"]
    assert y.grad is None
    assert z.grad is None
    assert (x.grad is not None) == accumulate
    assert torch.equal(record.deposits["h"], out.detach() * z.detach())


def test_unreached_inputs_are_said() -> None:
    x, y = ones(2), ones(2)
    record = pb.record(x.exp(), torch.ones(2), inputs=[x, y])
    assert list(record.deposits) == [0]
    assert record.notes == (
        "leaf 1 is not reached from the outputs: no deposit, its .grad stays as it is.",
    )
    assert record.leaves[1].node is None


def test_a_look_restores_the_grad_of_tensors_that_retain_it() -> None:
    x = ones(3)
    fresh, used = x.exp(), x.sin()
    fresh.retain_grad()
    used.retain_grad()
    (used * 2).sum().backward(retain_graph=True)
    x.grad, before = None, used.grad
    pb.record(fresh * used, torch.ones(3))
    assert fresh.grad is None
    assert used.grad is before


def test_accumulate_fills_the_grad_of_tensors_that_retain_it() -> None:
    x = ones(3)
    h = x.exp()
    h.retain_grad()
    pb.record(h * 2, torch.ones(3), accumulate=True)
    assert torch.equal(h.grad, 2 * torch.ones(3))  # type: ignore[arg-type]


def test_post_accumulate_hooks_run_only_when_grad_is_written() -> None:
    x = ones(3)
    seen: list[str] = []

    def emptied(tensor: Tensor) -> None:
        seen.append("emptied")
        assert tensor.grad is not None
        tensor.grad.zero_()

    x.register_post_accumulate_grad_hook(emptied)
    out = x.exp()
    pb.record(out, torch.ones(3))
    assert seen == []
    record = pb.record(out, torch.ones(3), accumulate=True)
    assert seen == ["emptied"]
    assert torch.equal(record.deposits[0], out.detach())  # not the zeros written over it


def test_hooks_are_named_where_they_are() -> None:
    x = ones(3)

    def doubling(grad: Tensor) -> Tensor:
        return 2 * grad

    def looking(grad: Tensor) -> None: ...

    x.register_hook(looking)
    h = x.exp()
    h.register_hook(doubling)
    record = pb.record(h.sin(), torch.ones(3), inputs={"x": x})
    here = "test_hooks_are_named_where_they_are."
    assert record.hooks == (f"{here}doubling on ExpBackward0", f"{here}looking on x")
    assert [node.changed_by_hooks for node in record.nodes] == [False, True, False]
    assert record.conserved
    assert f"Hooks on ExpBackward0 changed its cotangent: {here}doubling." in str(record).replace(
        "\n  ", " "
    )


def test_hooks_that_a_look_cannot_run_are_said() -> None:
    x = ones(3)
    out = x.exp()
    assert out.grad_fn is not None
    accumulator = out.grad_fn.next_functions[0][0]
    assert accumulator is not None

    def sleeping(grads: Any) -> None: ...

    accumulator.register_prehook(sleeping)
    look = pb.record(out, torch.ones(3))
    assert look.notes == (
        "A look does not write .grad, so the hooks on the node that writes it did not run: "
        "test_hooks_that_a_look_cannot_run_are_said.sleeping.",
    )
    run = pb.record(out, torch.ones(3), accumulate=True)
    assert run.notes == ()
    assert run.nodes[-1].hooks == ("test_hooks_that_a_look_cannot_run_are_said.sleeping",)


def test_no_hook_is_left_over() -> None:
    x = ones(3)
    out = x.exp()
    pb.record(out, torch.ones(3))
    assert out.grad_fn is not None
    handle = out.grad_fn.register_hook(lambda gi, go: None)
    table = handle.hooks_dict_ref()
    assert table is not None
    assert len(table) == 1
    assert x._backward_hooks is None


def test_a_hook_that_raises_leaves_nothing_behind() -> None:
    x = ones(3)
    h = x.exp()
    h.retain_grad()

    def broken(grad: Tensor) -> None:
        raise ValueError("from the user's hook")

    handle = x.register_hook(broken)
    with pytest.raises(ValueError, match="from the user's hook"):
        pb.record(h * 2, torch.ones(3))
    assert h.grad is None
    assert gc.isenabled()
    handle.remove()
    assert pb.record(h * 2, torch.ones(3)).conserved


@pytest.mark.parametrize(
    ("accumulate", "retain_graph", "freed"),
    [
        (False, None, False),
        (False, True, False),
        (False, False, True),
        (True, None, True),
        (True, True, False),
        (True, False, True),
    ],
)
def test_retain_graph(accumulate: bool, retain_graph: bool | None, freed: bool) -> None:
    out = ones(3).exp()
    v = torch.ones(3)
    record = pb.record(out, v, accumulate=accumulate, retain_graph=retain_graph)
    assert record.retain_graph == (not freed)
    if freed:
        with pytest.raises(RuntimeError, match="freed"):
            pb.record(out, v)
    else:
        pb.record(out, v)


def test_a_record_keeps_no_graph_alive() -> None:
    x = ones(3)
    h = x.exp()
    out = h.sin()
    record = pb.record(out, torch.ones(3), keep="tensors")
    alive = weakref.ref(h)
    del h, out
    gc.collect()
    assert alive() is None
    assert record.conserved


def test_a_record_does_not_change_when_the_tensors_do() -> None:
    x, v = ones(3), torch.ones(3)
    out = x * 2
    record = pb.record(out, v, keep="tensors")
    text = record.to_json()
    with torch.no_grad():
        v.zero_()
        x.zero_()
        out.detach().zero_()
    assert record.to_json() == text


def test_small_tensors_are_kept_and_large_ones_measured() -> None:
    x = torch.ones(2000, requires_grad=True)
    small, large = pb.record(x.sum() * 2), pb.record(x.sum() * 2, keep="tensors")
    assert [c.values is None for n in small.nodes for c in n.upstream if c] == [False, False, True]
    assert all(c.values is not None for n in large.nodes for c in n.upstream if c)
    for a, b in zip(small.nodes, large.nodes, strict=True):
        for left, right in zip(a.upstream, b.upstream, strict=True):
            assert left is not None
            assert right is not None
            assert astuple(left.stats) == pytest.approx(astuple(right.stats), rel=1e-6)


def test_a_graph_of_50_000_nodes() -> None:
    x = ones(2)
    out = x
    for _ in range(25_000):
        out = out.neg().clone()
    record = pb.record(out, torch.ones(2))
    assert len(record.nodes) == 50_001
    assert record.conserved
    assert torch.equal(record.deposits[0], torch.ones(2))
    assert "... 49,801 more" in str(record)
    assert len(pb.BackwardRecord.from_json(record.to_json()).nodes) == 50_001


def test_reentrant_checkpoints_are_opaque_and_said() -> None:
    w = ones(3)
    x = ones(3)
    out = checkpoint(lambda t: (t * w).sin(), x, use_reentrant=True)
    record = pb.record(out, torch.ones(3), accumulate=True, inputs=None)
    assert w.grad is not None
    assert record.notes == (
        "CheckpointFunctionBackward is a reentrant checkpoint: it ran a backward of its own, whose "
        "nodes are not seen and whose writes to .grad are not among the deposits.",
    )


def test_names_of_module_parameters() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    out = model(torch.ones(3, 2))
    record = pb.record(out, torch.ones(3, 1), inputs=model)
    assert list(record.deposits) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_deposits_by_name_and_by_position() -> None:
    w = ones(2)
    record = pb.record(w.exp(), torch.ones(2), inputs={"w": w})
    assert record.deposits["w"] is record.deposits[0] is record.deposits[-1]
    with pytest.raises(KeyError, match="no deposit 'u'; the pass left deposits on: 'w'"):
        record.deposits["u"]


def test_scalar_outputs_need_no_cotangent() -> None:
    x = ones(3)
    record = pb.record([x.sum(), x.prod().reshape(1)], [None, None])
    assert torch.equal(record.deposits[0], 2 * torch.ones(3))


def test_amp_keeps_the_dtype_of_every_cotangent() -> None:
    model = nn.Linear(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(torch.ones(1, 2))
    record = pb.record(out, torch.ones_like(out))
    dtypes = {node.name: node.upstream[0].dtype for node in record.nodes if node.upstream[0]}
    assert dtypes["AddmmBackward0"] == "bfloat16"
    assert dtypes["AccumulateGrad"] == "float32"


def test_repr_is_one_line() -> None:
    x = ones(3)
    record = pb.record(x.exp(), torch.ones(3), inputs={"x": x})
    assert repr(record) == "<BackwardRecord of outputs (3,): 2 nodes, 1 deposits, conserved>"
