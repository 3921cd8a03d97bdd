"""Laws of ``pb.record`` over every program: bitwise ``.grad``, conservation, and no traces."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import pullback as pb

from .programs import PROGRAMS, Built

EVERY = pytest.mark.parametrize("name", list(PROGRAMS))


def cotangents_of(outputs: Any) -> Any:
    generator = torch.Generator().manual_seed(1)
    return pytree.tree_map(
        lambda t: torch.randn(t.shape, dtype=t.dtype, generator=generator), outputs
    )


def grads_of(built: Built) -> dict[str, Tensor | None]:
    return {name: t.grad for name, t in built.leaves.items() if t.is_leaf}


def identical(left: Tensor | None, right: Tensor | None) -> bool:
    """Equal to the last bit, nan included, with the same layout and strides."""
    if left is None or right is None:
        return left is right
    if left.layout != right.layout or left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.is_sparse:
        if left.is_coalesced() != right.is_coalesced():
            return False
        return identical(left._indices(), right._indices()) and identical(
            left._values(), right._values()
        )
    bits = (left.contiguous().reshape(-1), right.contiguous().reshape(-1))
    same = torch.equal(*(t.resolve_conj().view(torch.uint8) for t in bits))
    return same and left.stride() == right.stride()


def test_identical_sees_a_single_bit() -> None:
    a = torch.tensor([1.0, float("nan"), 0.0])
    assert identical(a, a.clone())
    assert not identical(a, torch.tensor([1.0, float("nan"), -0.0]))
    assert not identical(a, None)
    assert not identical(torch.ones(2, 3), torch.ones(3, 2).t())


def torch_backward(built: Built, **options: Any) -> None:
    outputs = pytree.tree_leaves(built.outputs)
    values = pytree.tree_leaves(cotangents_of(built.outputs))
    torch.manual_seed(5)  # a checkpoint may draw in its recomputation
    torch.autograd.backward(outputs, values, **options)


@EVERY
def test_accumulate_leaves_grad_bitwise_as_backward_does(name: str) -> None:
    theirs, ours = PROGRAMS[name](), PROGRAMS[name]()
    torch_backward(theirs)
    torch.manual_seed(5)
    pb.record(ours.outputs, cotangents_of(ours.outputs), accumulate=True)
    expected, found = grads_of(theirs), grads_of(ours)
    for leaf_name, grad in expected.items():
        assert identical(found[leaf_name], grad), leaf_name
    assert theirs.seen == ours.seen


@EVERY
def test_accumulate_adds_to_what_is_there(name: str) -> None:
    theirs, ours = PROGRAMS[name](), PROGRAMS[name]()
    for built in (theirs, ours):
        for tensor in built.leaves.values():
            if tensor.is_leaf and not (tensor.numel() and name.startswith("sparse")):
                tensor.grad = torch.full_like(tensor, 0.1)
    torch_backward(theirs)
    torch.manual_seed(5)
    pb.record(ours.outputs, cotangents_of(ours.outputs), accumulate=True)
    for leaf_name, grad in grads_of(theirs).items():
        assert identical(grads_of(ours)[leaf_name], grad), leaf_name


@EVERY
def test_a_look_deposits_what_accumulate_deposits(name: str) -> None:
    looked, added = PROGRAMS[name](), PROGRAMS[name]()
    leaves = {k: t for k, t in looked.leaves.items() if t.is_leaf}
    torch.manual_seed(5)
    look = pb.record(looked.outputs, cotangents_of(looked.outputs), inputs=leaves)
    same = {k: t for k, t in added.leaves.items() if t.is_leaf}
    torch.manual_seed(5)
    added_record = pb.record(
        added.outputs, cotangents_of(added.outputs), inputs=same, accumulate=True
    )
    assert list(look.deposits) == list(added_record.deposits)
    for key, tensor in look.deposits.items():
        assert identical(tensor, added_record.deposits[key]), key


@EVERY
def test_deposits_are_what_autograd_computes(name: str) -> None:
    theirs, ours = PROGRAMS[name](), PROGRAMS[name]()
    torch_backward(theirs)
    leaves = {k: t for k, t in ours.leaves.items() if t.is_leaf}
    torch.manual_seed(5)
    record = pb.record(ours.outputs, cotangents_of(ours.outputs), inputs=leaves)
    for leaf_name, grad in grads_of(theirs).items():
        if grad is None:
            assert leaf_name not in record.deposits
        else:
            found = record.deposits[leaf_name].to_dense()
            assert torch.equal(found, grad.to_dense()), leaf_name


@EVERY
@pytest.mark.parametrize("accumulate", [False, True])
def test_contributions_are_conserved(name: str, accumulate: bool) -> None:
    built = PROGRAMS[name]()
    record = pb.record(built.outputs, cotangents_of(built.outputs), accumulate=accumulate)
    assert record.conserved
    assert record.conservation_error == 0.0
    changed = [node.name for node in record.nodes if node.changed_by_hooks]
    assert bool(changed) == ("hooks_that_change" in name or name in ("node_hooks",))


@EVERY
def test_the_kept_values_themselves_are_conserved(name: str) -> None:
    """The same law, recomputed here from the tensors of the record."""
    built = PROGRAMS[name]()
    record = pb.record(built.outputs, cotangents_of(built.outputs), keep="tensors")
    for index, edges in record.incoming().items():
        node = record.nodes[index]
        if node.changed_by_hooks:
            continue
        for slot, upstream in enumerate(node.upstream):
            parts = [e.contribution for e in edges if e.slot == slot and e.contribution]
            if upstream is None:
                assert not parts
                continue
            total = sum((part.values.to_dense() for part in parts), start=torch.zeros(()))
            assert upstream.values is not None
            torch.testing.assert_close(
                total.to(upstream.values.dtype), upstream.values.to_dense(), equal_nan=True
            )


@EVERY
def test_a_look_leaves_no_trace(name: str) -> None:
    built = PROGRAMS[name]()
    retained = [t for t in built.leaves.values() if not t.is_leaf]
    for tensor in retained:
        tensor.retain_grad()
    versions = {k: (t._version, t.detach().clone()) for k, t in built.leaves.items()}
    outputs = pytree.tree_leaves(built.outputs)
    values = [o.detach().clone() for o in outputs]
    state = torch.get_rng_state()
    pb.record(built.outputs, cotangents_of(built.outputs))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(t.grad is None for t in built.leaves.values() if t.is_leaf or t.retains_grad)
    for key, (version, value) in versions.items():
        assert built.leaves[key]._version == version
        assert torch.equal(built.leaves[key].detach(), value)
    assert all(torch.equal(o.detach(), v) for o, v in zip(outputs, values, strict=True))
    torch_backward(built)  # the graph is still there


@EVERY
def test_a_second_look_sees_the_same(name: str) -> None:
    built = PROGRAMS[name]()
    first = pb.record(built.outputs, cotangents_of(built.outputs))
    second = pb.record(built.outputs, cotangents_of(built.outputs))
    assert first.to_json() == second.to_json()


@EVERY
def test_json_round_trip(name: str) -> None:
    built = PROGRAMS[name]()
    record = pb.record(built.outputs, cotangents_of(built.outputs), keep="tensors")
    again = pb.BackwardRecord.from_json(record.to_json())
    assert again.to_json() == record.to_json()
    assert str(again) == str(record)
    for key, tensor in record.deposits.items():
        assert identical(again.deposits[key].to_dense(), tensor.to_dense().contiguous())


@EVERY
def test_execution_order_is_the_engines(name: str) -> None:
    """A look predicts where leaves run; a pass that accumulates shows it."""
    looked, added = PROGRAMS[name](), PROGRAMS[name]()
    look = pb.record(looked.outputs, cotangents_of(looked.outputs))
    run = pb.record(added.outputs, cotangents_of(added.outputs), accumulate=True)
    inner = [[n.name for n in r.nodes if n.leaf is None] for r in (look, run)]
    assert inner[0] == inner[1]
    assert len(look.nodes) == len(run.nodes)
    for record in (look, run):
        for node in record.nodes:
            assert all(edge.target > node.index for edge in node.edges)
