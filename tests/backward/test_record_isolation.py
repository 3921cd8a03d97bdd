"""A record keeps to its own pass: other passes, other threads and other objects are left alone."""

from __future__ import annotations

import functools
import gc
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import pullback as pb


def ones(n: int = 3) -> Tensor:
    return torch.ones(n, requires_grad=True)


def chain(x: Tensor, length: int) -> Tensor:
    for _ in range(length):
        x = x.sin()
    return x


def in_threads(count: int, work: Callable[[int], None]) -> None:
    failed: list[BaseException] = []

    def guarded(k: int) -> None:
        try:
            work(k)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(k,)) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


INNOCENT = """
import sys, threading, torch, pullback as pb
sys.setswitchinterval(1e-5)
stop, errors, made = False, [], 0
def innocent():
    global made
    while not stop:
        try:
            tuple(k + 0 for k in range(300))
            made += 1
        except SystemError as error:
            errors.append(error)
thread = threading.Thread(target=innocent)
thread.start()
x = torch.ones(3, requires_grad=True)
for _ in range(60):
    pb.record(x.exp().sum())
stop = True
thread.join()
print(len(errors), made > 0)
"""


def test_looks_do_not_break_half_built_tuples_of_other_threads() -> None:
    """Whoever refers to a tuple that a thread is still building makes that thread fail."""
    done = subprocess.run(
        [sys.executable, "-c", INNOCENT], capture_output=True, text=True, check=True, timeout=100
    )
    assert done.stdout.split() == ["0", "True"]


def test_objects_of_unhashable_classes_are_passed_over() -> None:
    class Meta(type):
        def __eq__(cls, other: object) -> bool:
            return cls is other

    class Unhashable(metaclass=Meta):
        def __init__(self) -> None:
            self.inside: dict[str, int] = {}

    kept = Unhashable()
    assert pb.record(ones().exp().sum()).conserved
    assert kept.inside == {}


def test_records_in_many_threads_do_not_mix() -> None:
    def work(k: int) -> None:
        x = ones(k + 2)
        for _ in range(5):
            record = pb.record(chain(x, 20 + k).sum())
            assert len(record.nodes) == 22 + k
            assert record.conserved

    in_threads(4, work)


def test_records_of_one_graph_in_many_threads_do_not_mix() -> None:
    x = ones()
    out = chain(x, 40).sum()
    expected = torch.autograd.grad(out, x, retain_graph=True)[0]

    def work(k: int) -> None:
        for _ in range(5):
            if k % 2:
                torch.autograd.grad(out, x, retain_graph=True)
                continue
            record = pb.record(out)
            assert len(record.nodes) == 42
            assert record.conserved
            assert record.hooks == ()
            assert torch.equal(record.deposits[0], expected)

    in_threads(4, work)


def test_a_nested_backward_in_a_users_hook_is_another_pass() -> None:
    x = ones()
    c = x.exp()
    h = c * 2
    inner = (c * 7).sum()

    def nested(grad: Tensor) -> None:
        torch.autograd.grad(inner, x, retain_graph=True)

    h.register_hook(nested)
    record = pb.record(h.sum())
    assert [node.name for node in record.nodes] == [
        "SumBackward0",
        "MulBackward0",
        "ExpBackward0",
        "AccumulateGrad",
    ]
    assert record.conserved
    assert torch.equal(record.deposits[0], 2 * x.detach().exp())


def test_a_nested_pass_that_builds_a_graph_is_passed_over() -> None:
    """Its cotangents require gradients; measuring them would warn, and hold their graph."""
    x = ones(5000)
    c = x.exp()
    h = c * 2
    inner = (c * c).sum()
    h.register_hook(lambda grad: (torch.autograd.grad(inner, x, create_graph=True), None)[1])
    record = pb.record(h.sum())
    assert len(record.nodes) == 4
    assert record.conserved


def test_what_a_reentrant_checkpoint_writes_is_not_this_pass() -> None:
    w, x = ones(), ones()
    out = (checkpoint(lambda a: (a * w).sin(), x * 1, use_reentrant=True) * w).sum()
    record = pb.record(out, accumulate=True, inputs=None)
    key = next(
        k for k, leaf in enumerate(record.leaves) if leaf.shape == (3,) and k in record.deposits
    )
    assert record.conserved
    sums = {float(d[0]) for d in record.deposits.values()}
    # d/dw of sin(x w) * w at 1: the outer pass gives sin(1) to w, the inner one cos(1).
    assert any(value == pytest.approx(float(torch.tensor(1.0).sin())) for value in sums), key
    assert w.grad is not None
    assert float(w.grad[0]) == pytest.approx(
        float(torch.tensor(1.0).sin() + torch.tensor(1.0).cos())
    )


def test_grad_written_elsewhere_during_a_look_stays() -> None:
    x, z = ones(), ones()
    other = x * 2
    other.retain_grad()
    loss = other.sum()
    h = z * 3
    h.register_hook(lambda grad: in_threads(1, lambda k: loss.backward()))
    pb.record(h.sum())
    assert other.grad is not None
    assert torch.equal(other.grad, torch.ones(3))


@pytest.mark.usefixtures("frozen_objects_count")
def test_frozen_objects_are_said_to_be_out_of_sight() -> None:
    assert pb.record((ones() * 2).sum()).notes == ()
    h = ones() * 2
    gc.freeze()
    try:
        notes = pb.record(h.sum()).notes
    finally:
        gc.unfreeze()
    assert notes == (
        "gc.freeze() hides the tensors made before it: where one of them retains its gradient this "
        "look has added to it, and hooks on them are not named.",
    )


def test_hooks_that_cannot_be_named_are_not_passed_off_as_conservation() -> None:
    def net(x: Tensor) -> Tensor:
        h = x * 2
        h.register_hook(lambda grad: grad * 10)
        return (h * 3).sum()

    x = ones()
    record = pb.record(net(x))
    assert not record.conserved
    assert record.conservation_error == pytest.approx(0.9)
    assert "one on a tensor that is gone" in str(record).replace("\n  ", " ")
    assert torch.equal(record.deposits[0], torch.full((3,), 60.0))


def test_prehooks_of_nodes_are_named_where_they_change_something() -> None:
    h = ones() * 2
    assert h.grad_fn is not None

    def tripled(grads: Any) -> Any:
        return (grads[0] * 3,)

    h.grad_fn.register_prehook(tripled)
    record = pb.record(h.sum())
    assert record.nodes[1].hooks == (
        "test_prehooks_of_nodes_are_named_where_they_change_something.tripled",
    )
    assert record.nodes[1].changed_by_hooks
    assert record.conserved


def test_hooks_after_a_node_are_told_apart() -> None:
    h = ones() * 2
    assert h.grad_fn is not None

    def swollen(grad_inputs: Any, grad_outputs: Any) -> Any:
        return (grad_inputs[0] * 100, None)

    h.grad_fn.register_hook(swollen)
    record = pb.record(h.sum())
    here = "test_hooks_after_a_node_are_told_apart.swollen"
    assert record.nodes[1].hooks == ()
    assert record.nodes[1].sending_hooks == (here,)
    assert record.hooks == (f"{here} on MulBackward0",)
    assert f"Hooks on MulBackward0 ran after it and may have changed what it sent: {here}." in str(
        record
    ).replace("\n  ", " ")


def test_the_same_input_twice() -> None:
    a = ones()
    h = a * 3
    record = pb.record(h.sum(), inputs=[a, a, h, h])
    assert record.conserved
    assert [float(d[0]) for d in record.deposits.values()] == [3, 3, 1, 1]
    assert len(record.nodes) == 3


def test_deposits_share_no_memory_with_the_user() -> None:
    buffer = torch.full((3,), 7.0)
    x = ones()
    h = x + 0
    h.register_hook(lambda grad: buffer)
    record = pb.record((h * 2).sum(), inputs={"x": x})
    buffer.zero_()
    assert torch.equal(record.deposits["x"], torch.full((3,), 7.0))


def test_a_look_keeps_the_users_cotangent_from_custom_backwards() -> None:
    class Doubles(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return grad.mul_(2)

    v = torch.ones(3)
    told = pb.explain(Doubles.apply(ones()), v)
    assert torch.equal(v, torch.ones(3))
    assert told.about("meaning")[0].text.startswith("Here v for outputs is all ones")


def test_names_that_collide_fall_back_to_positions() -> None:
    a, b = ones(), ones()
    record = pb.record((a * b).sum(), inputs={"a": {"b": a}, "a['b']": b})
    assert list(record.deposits) == ["a['b']", 1]
    quoted = pb.record((a * b).sum(), inputs={"x'\"y": a, "<script>": b})
    assert list(quoted.deposits) == ["x'\"y", "<script>"]


def test_the_name_of_another_function_is_not_taken() -> None:
    out = ones().exp()
    weights = torch.ones(3)
    look = functools.partial(pb.record, out)
    assert look(weights).outputs[0].name == "outputs"
    assert pb.record(out, weights).outputs[0].name == "out"


def test_many_leaves_take_linear_time() -> None:
    """Counted, not timed: no work per leaf may look at all events."""
    leaves = [ones(1) for _ in range(3000)]
    record = pb.record(torch.cat(leaves).sum())
    assert len(record.deposits) == 3000
    assert record.conserved
    assert len(pb.record(torch.cat(leaves).sum()).plot().axes) <= 2 * 24 + 1


def test_sparse_gradients_are_compared_without_being_filled() -> None:
    table = nn.Embedding(1_000_000, 64, sparse=True)  # dense: 256 MB for each of several copies
    out = table(torch.tensor([1, 7])).sum() + table(torch.tensor([7, 9])).sum()
    record = pb.record(out)
    assert record.conserved
    deposit = record.deposits[0]
    assert deposit.is_sparse
    assert sorted(deposit.coalesce().indices()[0].tolist()) == [1, 7, 9]


def test_inside_inference_mode_and_under_another_default_device() -> None:
    x = ones()
    out = (x * x).exp()
    v = torch.ones(3)
    with torch.inference_mode():
        assert pb.record(out, v).conserved
    with torch.device("meta"):
        told = pb.explain(out, v, inputs={"x": x})
        weighed = pb.sensitivity(out, x, {"v": v})
    assert told.about("rows")[0].text.startswith("At this point, row i of out depends on x[i]")
    assert weighed.row_sum_range[0] == pytest.approx(2 * 2.71828, rel=1e-4)


def test_a_trace_object_may_be_entered_twice() -> None:
    before = len(nn.modules.module._global_forward_pre_hooks)
    block = pb.trace()
    with block, block:
        ones().exp()
    with block:
        ones().exp()
    assert len(nn.modules.module._global_forward_pre_hooks) == before


def test_post_accumulate_hooks_are_mentioned_by_a_look() -> None:
    x = ones()

    def stepped(tensor: Tensor) -> None: ...

    x.register_post_accumulate_grad_hook(stepped)
    record = pb.record(x.exp().sum(), inputs={"x": x})
    assert record.notes == (
        "A look does not write .grad, so the hooks that run after x got its own did not run: "
        "test_post_accumulate_hooks_are_mentioned_by_a_look.stepped.",
    )


def test_records_compare_by_identity() -> None:
    x = ones()
    a, b = pb.record(x.exp().sum()), pb.record(x.exp().sum())
    assert a == a
    assert a != b
