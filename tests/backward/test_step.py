"""``pb.step`` at a prompt: where it stops, what it shows, what it refuses, what it leaves alone."""

from __future__ import annotations

import inspect
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import pullback as pb


def refused(kind: type[Exception], text: str, call: Callable[[], Any]) -> None:
    with pytest.raises(kind, match=f"^{re.escape(text)}$") as caught:
        call()
    assert isinstance(caught.value, pb.PullbackError)


def ones(n: int = 3) -> Tensor:
    return torch.ones(n, requires_grad=True)


def names(places: Any) -> list[str]:
    return [place.name.removesuffix("Backward0") for place in places]


def diamond() -> tuple[Tensor, Tensor]:
    """x -> exp -> (sin, cos) -> mul -> sum: exp waits for two."""
    x = ones()
    h = x.exp()
    return x, (h.sin() * h.cos()).sum()


def test_next_tells_what_a_node_did() -> None:
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    s = pb.step((w * w).sum(), inputs={"w": w})
    first, second, third = s.next(), s.next(), s.next()
    assert first.node.label == "SumBackward0 #0"
    assert first.upstream[0].tolist() == 1.0
    assert [c.tensor.tolist() for c in first.contributions] == [[1.0, 1.0]]
    assert [c.tensor.tolist() for c in second.contributions] == [[1.0, 2.0]] * 2
    assert {c.target.label for c in second.contributions} == {"w (leaf) #2"}
    assert (third.contributions, third.deposit.tolist()) == ((), [2.0, 4.0])
    assert s.done
    assert s.node is None
    assert s.contributions == ()
    assert s.deposits["w"].tolist() == [2.0, 4.0]
    assert w.grad is None


def test_ready_and_pending() -> None:
    _, out = diamond()
    s = pb.step(out)
    assert names(s.ready) == ["Sum"]
    s.until(op="mul")
    s.next()
    assert names(s.ready) == ["Cos", "Sin"]
    assert s.pending == ()
    s.next()
    assert names(s.ready) == ["Sin"]
    assert names(s.pending) == ["Exp"]
    assert len(s.nodes) == 6


def test_upstream_of_what_ran_and_of_what_is_to_come() -> None:
    _, out = diamond()
    s = pb.step(out)
    s.until(op="Sin")
    exp = next(place for place in s.nodes if place.name == "ExpBackward0")
    cos = s.upstream(2)
    partial = s.upstream(exp)
    assert s.upstream(-1) is None
    sine = s.next()
    total = s.upstream(exp)
    assert torch.equal(total, partial + sine.contributions[0].tensor)
    assert torch.equal(s.upstream(2), cos)
    assert [c.source.name for c in s.contributions] == ["CosBackward0", "SinBackward0"]


def test_what_is_handed_out_is_a_copy() -> None:
    x, out = diamond()
    expected = torch.autograd.grad(out, x, retain_graph=True)[0]
    s = pb.step(out, inputs={"x": x})
    while not s.done:
        for c in s.contributions:
            c.tensor.zero_()
        s.upstream().zero_()
        taken = s.next()
        taken.upstream[0].zero_()
        s.back()
        s.next()
        if taken.deposit is not None:
            taken.deposit.zero_()
    s.deposits["x"].zero_()
    assert torch.equal(s.finish()["x"], expected)


def test_the_users_edit_is_copied_too() -> None:
    x, out = diamond()
    s = pb.step(out, inputs={"x": x})
    s.until(op="Exp")
    mine = torch.ones(3)
    s.edit(mine)
    mine.zero_()
    assert torch.equal(s.finish()["x"], x.detach().exp())


def test_back_undoes_edits_and_steps_one_by_one() -> None:
    x, out = diamond()
    expected = torch.autograd.grad(out, x, retain_graph=True)[0]
    s = pb.step(out, inputs={"x": x})
    s.until(op="Exp")
    arrived = s.upstream()
    s.edit(lambda t: t * 2)
    s.edit(torch.zeros(3))
    assert s.next().edited
    assert torch.equal(s.finish()["x"], torch.zeros(3))
    s.back()
    assert s.back().name == "ExpBackward0"
    assert torch.equal(s.upstream(), torch.zeros(3))
    s.back()
    assert torch.equal(s.upstream(), arrived * 2)
    s.back()
    assert torch.equal(s.upstream(), arrived)
    assert not s.next().edited
    assert torch.equal(s.finish()["x"], expected)


def test_an_edit_fills_a_slot_where_nothing_arrived() -> None:
    x = torch.arange(6.0).reshape(2, 3).requires_grad_()
    a, _ = x.unbind()
    s = pb.step(a.sum(), inputs={"x": x})
    s.until(op="unbind")
    assert s.upstream(slot=1) is None
    refused(
        pb.ArgumentError,
        "stepper.edit: nothing has arrived at slot 1 of UnbindBackward0 #1, so there is nothing for "
        "a function to change. Pass a tensor.",
        lambda: s.edit(lambda t: t * 2, slot=1),
    )
    s.edit(torch.full((3,), 5.0), slot=1)
    assert s.finish()["x"].tolist() == [[1.0] * 3, [5.0] * 3]


def test_until_nonfinite_stops_where_it_was_born() -> None:
    x = torch.tensor([0.0, 1.0], requires_grad=True)
    out = ((x * 1).sqrt() * torch.tensor([0.0, 1.0])).exp().sum()
    s = pb.step(out)
    assert s.until(nonfinite=True)
    assert s.last.node.name == "SqrtBackward0"
    assert s.last.nonfinite == 1
    assert "sent (2,), norm nan, 1 of 2 not finite to MulBackward0" in str(s.last)
    s.back()
    s.edit(torch.zeros(2).index_fill(0, torch.tensor(1), 1.0) * s.upstream()[1])
    s.back()
    assert not pb.step(diamond()[1]).until(nonfinite=True)


def test_until_norm_ratio_grows_or_shrinks() -> None:
    x = ones(1)
    out = ((x * 3) * 100).mul(0.001)
    s = pb.step(out)
    assert s.until(norm_ratio=50.0)
    assert s.last.norm_ratio == pytest.approx(100.0)
    s = pb.step(out)
    assert s.until(norm_ratio=0.5)
    assert s.last.node.index == 0
    assert s.until(norm_ratio=2)
    assert s.until(norm_ratio=2)
    assert s.last.norm_ratio == pytest.approx(3.0)
    assert not s.until(norm_ratio=2)
    assert s.done


def test_until_op_stops_before_each() -> None:
    x = ones()
    s = pb.step(x.exp().sin().exp().sum())
    found = []
    while s.until(op="exp"):
        found.append(s.node.index)
    assert found == [1, 3]
    assert s.node.index == 3  # none is left: it stays
    assert s.until(op="AccumulateGrad")


def test_until_line_stops_before_the_first_node_of_the_line() -> None:
    x = ones()
    with pb.trace():
        h = x.exp()
        out = (h * 2).sin().sum()
    here = inspect.currentframe().f_lineno - 2
    for line in (here, str(here), f"test_step.py:{here}", f"{__file__}:{here}"):
        s = pb.step(out)
        assert s.until(line=line)
        assert s.node.name == "ExpBackward0"
    part_of_a_name = f"step.py:{here}"
    with pytest.raises(pb.ArgumentError, match=f"made at '{part_of_a_name}'; lines are test_step"):
        s.until(line=part_of_a_name)


def test_until_a_function_of_the_step() -> None:
    _, out = diamond()
    s = pb.step(out)
    assert s.until(lambda step: len(step.contributions) == 2)
    assert s.last.node.name == "MulBackward0"
    assert s.until(lambda step: False, op="Exp")
    assert s.node.name == "ExpBackward0"
    assert not s.until(lambda step: False)


def test_hooks_run_once_a_step() -> None:
    seen: list[str] = []
    x = ones()
    h = x.exp()
    h.register_hook(lambda g: seen.append("h"))
    x.register_hook(lambda g: seen.append("x"))
    s = pb.step((h * h).sum())
    s.until(op="Exp")
    assert seen == []
    s.next()
    assert seen == ["h"]
    s.back()
    s.next()
    assert seen == ["h", "h"]
    s.finish()
    assert seen == ["h", "h", "x"]


def test_a_hook_that_raises_leaves_the_stepper_where_it_was() -> None:
    x = ones()
    angry = [True]

    def hook(grad: Tensor) -> Tensor:
        grad.mul_(2)
        if angry[0]:
            raise KeyError("mine")
        return grad

    h = x.exp()
    h.register_hook(hook)
    s = pb.step((h * 1).sum(), inputs={"x": x})
    s.until(op="Exp")
    with pytest.raises(KeyError, match="mine"):
        s.next()
    assert s.node.name == "ExpBackward0"
    angry[0] = False
    assert torch.equal(s.finish()["x"], 2 * x.detach().exp())


def test_passes_of_other_threads_over_the_same_nodes_go_on() -> None:
    x, out = diamond()
    expected = torch.autograd.grad(out, x, retain_graph=True)[0]
    failed: list[BaseException] = []
    stop = threading.Event()

    def other() -> None:
        try:
            while not stop.is_set():
                assert torch.equal(torch.autograd.grad(out, x, retain_graph=True)[0], expected)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    try:
        for _ in range(20):
            assert torch.equal(pb.step(out).finish()[0], expected)
    finally:
        stop.set()
        thread.join()
    assert failed == []


def test_a_backward_within_a_hook_is_another_pass() -> None:
    x = ones()
    c = x.exp()
    inner = (c * 7).sum()
    h = c * 2
    h.register_hook(lambda g: (torch.autograd.grad(inner, x, retain_graph=True), None)[1])
    assert torch.equal(pb.step(h.sum()).finish()[0], 2 * x.detach().exp())


def test_anomaly_mode_reports_nothing() -> None:
    x, out = diamond()
    with torch.autograd.set_detect_anomaly(True, check_nan=False):
        s = pb.step(out)
        s.finish()
    assert s.done
    assert x.grad is None


def test_inside_inference_mode() -> None:
    x, out = diamond()
    expected = torch.autograd.grad(out, x, retain_graph=True)[0]
    with torch.inference_mode():
        s = pb.step(out, inputs={"x": x})
        s.until(op="Exp")
        s.edit(lambda t: t * 1)
        assert torch.equal(s.finish()["x"], expected)


def test_a_checkpoint_is_recomputed_once_however_many_nodes_it_has() -> None:
    runs: list[int] = []

    def block(t: Tensor) -> Tensor:
        runs.append(1)
        return t.exp().sin().exp()

    x = ones()
    out = checkpoint(block, x, use_reentrant=False).sum()
    assert len(runs) == 1
    s = pb.step(out)
    s.finish()
    assert len(runs) == 2
    s.back()
    s.back()
    s.finish()
    assert len(runs) == 3


def test_retained_grads_are_filled_when_asked_only() -> None:
    x = ones()
    h, k = x.exp(), x.exp()
    for tensor in (h, k):
        tensor.retain_grad()
    s = pb.step((h * h).sum())
    s.finish()
    assert h.grad is None
    s.finish(accumulate=True)
    (k * k).sum().backward()
    assert torch.equal(h.grad, k.grad)


def test_accumulate_at_an_inner_input_is_what_backward_does() -> None:
    def built() -> tuple[Tensor, Tensor, Tensor]:
        x = ones()
        h = x.exp()
        h.register_hook(lambda g: g * 3)
        return x, h, h.sin().sum()

    for inner_only in (True, False):
        x, h, out = built()
        y, k, theirs = built()
        torch.autograd.backward(theirs, inputs=[k] if inner_only else [k, y])
        pb.step(out, inputs=[h] if inner_only else [h, x]).finish(accumulate=True)
        assert torch.equal(h.grad, k.grad)
        assert (x.grad is None) == inner_only
        assert x.grad is None or torch.equal(x.grad, y.grad)


def test_hooks_that_wait_for_grad_run_when_it_is_written() -> None:
    x = ones()
    seen: list[Tensor] = []
    x.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.clone()))
    s = pb.step(x.exp().sum())
    s.finish()
    assert seen == []
    s.finish(accumulate=True)
    assert torch.equal(seen[0], x.detach().exp())


def test_a_budget_forgets_the_oldest() -> None:
    x = ones(1000)
    out = x.exp().sin().cos().exp().sum()
    s = pb.step(out, budget=30_000)
    s.finish()
    assert 0 < len(s.steps) < len(s.nodes)
    kept = len(s.steps)
    for _ in range(kept):
        s.back()
    forgotten = len(s.nodes) - kept
    refused(
        pb.ArgumentError,
        f"stepper.back: what came before is forgotten ({forgotten} steps and edits): it took more "
        f"than the budget. Begin anew with pb.step(..., budget=...) and more bytes.",
        s.back,
    )
    assert torch.equal(s.finish()[0], torch.autograd.grad(out, x)[0])


def test_without_a_budget_nothing_is_kept_but_the_last_step() -> None:
    x, out = diamond()
    s = pb.step(out, budget=0)
    s.next()
    s.next()
    assert s.steps == ()
    assert s.upstream(1) is not None
    refused(
        pb.ArgumentError,
        "stepper.upstream: what SumBackward0 #0 received is forgotten: it took more than the "
        "budget. Begin anew with pb.step(..., budget=...) and more bytes.",
        lambda: s.upstream(0),
    )
    assert "forgotten" in str(s)
    assert torch.equal(s.finish()[0], torch.autograd.grad(out, x)[0])


def test_a_compiled_region_is_one_step() -> None:
    x = ones()
    out = torch.compile(lambda t: t.exp().sin() * t, backend="aot_eager")(x).sum()
    s = pb.step(out, inputs={"x": x})
    assert len(s.nodes) == 3
    assert s.notes == (
        "CompiledFunctionBackward #1 is one torch.compile region: one step, and what happens "
        "inside it is not seen.",
    )
    assert torch.equal(s.finish()["x"], torch.autograd.grad(out, x)[0])


def test_a_module_names_its_parameters() -> None:
    model = nn.Linear(2, 1)
    s = pb.step(model(torch.ones(1, 2)), inputs=model)
    assert list(s.finish()) == ["weight", "bias"]


STANDING = """\
stepping the backward of out ()
===============================

node                cotangent   norm        from
  SumBackward0 #0   () -> (3,)  1 -> 1.732
  MulBackward0 #1   (3,)        1.732
> CosBackward0 #2   (3,)        0.7115
  SinBackward0 #3   (3,)        1.579
  ExpBackward0 #4
  leaf 0 (leaf) #5

2 of 6 nodes ran."""


def test_print_shows_where_it_stands() -> None:
    _, out = diamond()
    s = pb.step(out)
    s.next()
    s.next()
    assert "\n".join(line.rstrip() for line in str(s).splitlines()) == STANDING
    s.next()
    assert "  ExpBackward0 #4   (3,), 1 of 2  0.2923" in str(s)
    assert repr(s) == "<Stepper of out: before SinBackward0 #3, 3 of 6 nodes ran>"
    s.finish()
    assert repr(s) == "<Stepper of out: at the end, 6 of 6 nodes ran>"


def test_hooks_of_a_node_that_has_received_nothing_are_told_so() -> None:
    """And run in the order in which they were registered, in the second pass, too."""

    class Drops(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> None:
            return None

    def built(seen: list[Any]) -> tuple[Tensor, Tensor]:
        x = ones()
        h = x.exp()
        assert h.grad_fn is not None
        h.grad_fn.register_prehook(lambda grads: seen.append(("first", grads)))
        h.grad_fn.register_prehook(lambda grads: seen.append(("second", grads)))
        h.grad_fn.register_hook(lambda sent, grads: seen.append((sent, grads)))
        return x, Drops.apply(h).sum()

    theirs: list[Any] = []
    ours: list[Any] = []
    built(theirs)[1].backward()
    x, out = built(ours)
    s = pb.step(out)
    assert len(s.finish(accumulate=True)) == 0
    assert ours == theirs
    assert ours[0] == ("first", (None,))
    assert x.grad is None
    pb.step(out).finish()
    assert ours == theirs * 2
