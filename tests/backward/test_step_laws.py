"""Laws of ``pb.step`` over every program: the engine's bits, the engine's order, and the way back."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import pullback as pb
from pullback import _torch
from pullback.backward.graph import Port

from .programs import PROGRAMS, Built
from .test_record_laws import EVERY, cotangents_of, grads_of, identical, torch_backward

# Hooks of the user act between what arrives and what a node gets, and need not be linear.
HOOKED = ("hooks_that_change_values", "node_hooks", "module_backward_hook")
UNHOOKED = pytest.mark.parametrize("name", [name for name in PROGRAMS if name not in HOOKED])


def leaves_of(built: Built) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in built.leaves.items() if tensor.is_leaf}


def begin(built: Built, cotangents: Any = None, **options: Any) -> pb.Stepper:
    torch.manual_seed(5)  # a checkpoint may draw in its recomputation
    given = cotangents_of(built.outputs) if cotangents is None else cotangents
    return pb.step(built.outputs, given, **options)


def torch_grads(built: Built, cotangents: Any = None) -> dict[str, Tensor | None]:
    outputs = pytree.tree_leaves(built.outputs)
    given = cotangents_of(built.outputs) if cotangents is None else cotangents
    named = leaves_of(built)
    torch.manual_seed(5)
    found = torch.autograd.grad(
        outputs,
        list(named.values()),
        pytree.tree_leaves(given),
        allow_unused=True,
        retain_graph=True,
    )
    return dict(zip(named, found, strict=True))


def assert_same(found: Any, expected: dict[str, Tensor | None]) -> None:
    assert list(found) == [name for name, grad in expected.items() if grad is not None]
    for name, tensor in found.items():
        assert identical(tensor, expected[name]), name


def held(stepper: pb.Stepper) -> dict[Port, Tensor]:
    """Every cotangent on its way."""
    return {port: t.detach().clone() for port, t in stepper._state.arrived.items()}


def assert_stands_alike(one: dict[Port, Tensor], two: dict[Port, Tensor]) -> None:
    assert one.keys() == two.keys()
    assert all(identical(one[port], two[port]) for port in one)


@EVERY
def test_finished_it_has_what_autograd_computes(name: str) -> None:
    built = PROGRAMS[name]()
    found = begin(built, inputs=leaves_of(built)).finish()
    assert_same(found, torch_grads(PROGRAMS[name]()))


@EVERY
@pytest.mark.parametrize("there", [False, True])
def test_accumulated_it_leaves_grad_as_backward_does(name: str, there: bool) -> None:
    theirs, ours = PROGRAMS[name](), PROGRAMS[name]()
    for built in (theirs, ours):
        for tensor in leaves_of(built).values() if there else ():
            if not (tensor.numel() and name.startswith("sparse")):
                tensor.grad = torch.full_like(tensor, 0.1)
    torch_backward(theirs)
    begin(ours).finish(accumulate=True)
    for leaf, grad in grads_of(theirs).items():
        assert identical(grads_of(ours)[leaf], grad), leaf
    assert sorted(theirs.seen) == sorted(ours.seen)


@EVERY
def test_the_order_is_the_engines(name: str) -> None:
    stepped, recorded = PROGRAMS[name](), PROGRAMS[name]()
    record = pb.record(recorded.outputs, cotangents_of(recorded.outputs), accumulate=True)
    expected = [(node.index, node.name, node.leaf) for node in record.nodes]
    assert [(n.index, n.name, n.leaf) for n in begin(stepped).nodes] == expected


@EVERY
def test_every_step_receives_what_a_record_saw(name: str) -> None:
    """But for hooks: a record looks behind them, a stepper before."""
    stepped, recorded = PROGRAMS[name](), PROGRAMS[name]()
    torch.manual_seed(5)
    record = pb.record(
        recorded.outputs, cotangents_of(recorded.outputs), keep="tensors", accumulate=True
    )
    stepper = begin(stepped)
    for node in record.nodes:
        taken = stepper.next()
        for mine, theirs in zip(taken.upstream, node.upstream, strict=True):
            if not node.changed_by_hooks:
                assert (mine is None) == (theirs is None)
                assert theirs is None or identical(mine, theirs.values)
        sent = [None if c.tensor is None else c.tensor for c in taken.contributions]
        edges = [e.contribution and e.contribution.values for e in node.edges]
        assert len(sent) == len(edges)
        assert all(identical(a, b) for a, b in zip(sent, edges, strict=True))


@EVERY
def test_contributions_sum_to_the_next_upstream(name: str) -> None:
    stepper = begin(PROGRAMS[name]())
    while not stepper.done:
        sums: dict[int, Tensor] = {}
        for c in stepper.contributions:
            if c.tensor is not None:
                there = sums.get(c.slot)
                dense_first = there is not None and there.is_sparse and not c.tensor.is_sparse
                if there is None:
                    sums[c.slot] = c.tensor
                else:
                    sums[c.slot] = c.tensor + there if dense_first else there + c.tensor
        taken = stepper.next()
        for slot, value in enumerate(taken.upstream):
            assert identical(sums.get(slot), value)


def turns(count: int) -> list[int]:
    return list(range(count)) if count <= 12 else sorted(random.Random(0).sample(range(count), 8))


@UNHOOKED
def test_an_edit_is_what_a_hook_there_would_have_done(name: str) -> None:
    built = PROGRAMS[name]()
    named = leaves_of(built)
    for turn in turns(len(begin(built).nodes)):
        stepper = begin(built, inputs=named)
        if turn >= len(stepper.nodes):
            continue
        while stepper.node.index < turn:
            stepper.next()
        arrived = [
            slot for slot in range(stepper.node.slots) if stepper.upstream(slot=slot) is not None
        ]
        for slot in arrived:
            stepper.edit(lambda t: t * -3, slot=slot)
        node = stepper._state.node
        leaf = _torch.leaf_of(node)
        if leaf is None:
            handle = node.register_prehook(
                lambda gs: tuple(None if g is None else g * -3 for g in gs)
            )
        else:
            handle = leaf.register_hook(lambda g: None if g is None else g * -3)
        expected = torch_grads(built)
        handle.remove()
        assert_same(stepper.finish(), expected)


# The hook of a module keeps, from the node behind the module to the one before it, what it saw.
STATELESS = pytest.mark.parametrize("name", [n for n in PROGRAMS if n != "module_backward_hook"])


@STATELESS
def test_back_restores_the_state_to_the_bit(name: str) -> None:
    stepper = begin(PROGRAMS[name]())
    while not stepper.done:
        before = held(stepper)
        first = stepper.next()
        after, deposits = held(stepper), dict(stepper.deposits)
        assert stepper.back() is first.node
        assert_stands_alike(held(stepper), before)
        second = stepper.next()
        assert_stands_alike(held(stepper), after)
        assert_same(stepper.deposits, deposits)
        pairs = zip(first.contributions, second.contributions, strict=True)
        assert all(identical(a.tensor, b.tensor) for a, b in pairs)


@EVERY
def test_wandering_about_changes_nothing(name: str) -> None:
    built = PROGRAMS[name]()
    stepper = begin(built, inputs=leaves_of(built))
    walk = random.Random(1)
    for _ in range(3 * len(stepper.nodes)):
        act = walk.random()
        if act < 0.35 and stepper._state.acts:
            stepper.back()
        elif act < 0.45 and not stepper.done and stepper.upstream() is not None:
            stepper.edit(lambda t: t * 7)
            stepper.back()
        elif not stepper.done:
            stepper.next()
    while stepper._state.acts:
        stepper.back()
    assert stepper.node is stepper.nodes[0]
    assert_same(stepper.finish(), torch_grads(PROGRAMS[name]()))


@UNHOOKED
def test_it_is_linear_in_v(name: str) -> None:
    built = PROGRAMS[name]()
    once = begin(built).finish()
    twice = begin(built, pytree.tree_map(lambda t: 2 * t, cotangents_of(built.outputs))).finish()
    assert list(once) == list(twice)
    for key, tensor in once.items():
        assert torch.equal(2 * tensor.to_dense(), twice[key].to_dense())


@EVERY
def test_it_leaves_no_trace(name: str) -> None:
    built = PROGRAMS[name]()
    for tensor in built.leaves.values():
        if not tensor.is_leaf:
            tensor.retain_grad()
    given = cotangents_of(built.outputs)
    before = pytree.tree_map(lambda t: t.clone(), given)
    state = torch.get_rng_state()
    stepper = pb.step(built.outputs, given)
    stepper.finish()
    assert torch.equal(torch.get_rng_state(), state)
    for one, two in zip(pytree.tree_leaves(given), pytree.tree_leaves(before), strict=True):
        assert torch.equal(one, two)
    assert all(t.grad is None for t in built.leaves.values())
    hooks = "hooks" in name or name == "module_backward_hook"
    for node in () if hooks else stepper._state.schedule.order:
        handles = node.register_hook(lambda *_: None), node.register_prehook(lambda _: None)
        assert [len(_torch.handle_hooks(handle)) for handle in handles] == [1, 1]
        for handle in handles:
            handle.remove()
    theirs = PROGRAMS[name]()
    torch_backward(theirs)
    torch_backward(built)  # the graph is still there
    for leaf, grad in grads_of(theirs).items():
        assert identical(grads_of(built)[leaf], grad), leaf


@EVERY
def test_inputs_that_are_not_leaves(name: str) -> None:
    built, twin = PROGRAMS[name](), PROGRAMS[name]()
    for each in (built, twin):
        root = pytree.tree_leaves(each.outputs)[0].grad_fn
        inner = [t for t in each.leaves.values() if not t.is_leaf]
        each.leaves = {f"x{k}": t for k, t in enumerate([*inner, *leaves_of(each).values()][:1])}
        assert root is not None or name == "leaf_as_output"
    found = begin(built, inputs=built.leaves).finish()
    torch.manual_seed(5)
    expected = torch.autograd.grad(
        pytree.tree_leaves(twin.outputs),
        list(twin.leaves.values()),
        pytree.tree_leaves(cotangents_of(twin.outputs)),
        allow_unused=True,
    )
    assert_same(found, dict(zip(twin.leaves, expected, strict=True)))
