"""``pb.trace``: which user call made which node, and what it costs."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

import pullback as pb
from pullback.backward.provenance import parameter_name


def calls_of(record: pb.BackwardRecord) -> list[tuple[str, str] | None]:
    return [
        (node.call.function, node.call.code) if node.call else None
        for node in record.nodes
        if node.leaf is None
    ]


def test_every_node_knows_its_expression() -> None:
    x = torch.ones(3, requires_grad=True)
    with pb.trace():
        y = (x * 2 + 1).exp()
        out = torch.cat([y, -y]).sum()
    assert calls_of(pb.record(out)) == [
        ("sum", "torch.cat([y, -y]).sum()"),
        ("cat", "torch.cat([y, -y])"),
        ("neg", "-y"),
        ("exp", "(x * 2 + 1).exp()"),
        ("add", "x * 2 + 1"),
        ("mul", "x * 2"),
    ]


def test_lines_and_files() -> None:
    x = torch.ones(3, requires_grad=True)
    with pb.trace():
        y = x.exp()
    call = pb.record(y, torch.ones(3)).nodes[0].call
    assert call is not None
    assert call.file == __file__
    assert "y = x.exp()" in Path(__file__).read_text().splitlines()[call.line - 1]


def test_internal_nodes_belong_to_the_users_call() -> None:
    """Evidence: one call of a library function may make many nodes; all are the user's one call."""
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    with pb.trace():
        out = model(torch.randn(2, 5, 8))
    record = pb.record(out, torch.ones_like(out))
    inner = [node for node in record.nodes if node.leaf is None]
    assert len(inner) > 20
    assert {node.call.code for node in inner if node.call} == {"model(torch.randn(2, 5, 8))"}
    assert all(node.call for node in inner)


def test_in_place_and_views() -> None:
    x = torch.ones(2, 3, requires_grad=True)
    with pb.trace():
        y = x * 1
        y[0] = 5.0
        y.t()[1].mul_(3)
    functions = {c[0] for c in calls_of(pb.record(y, torch.ones(2, 3))) if c}
    assert {"__setitem__", "mul_", "mul"} <= functions


def test_properties_are_named() -> None:
    x = torch.ones(2, 3, requires_grad=True)
    with pb.trace():
        y = x.mT
    assert calls_of(pb.record(y, torch.ones(3, 2))) == [("mT", "x.mT")]


def test_multi_line_expressions_quote_their_first_line() -> None:
    x = torch.ones(3, requires_grad=True)
    with pb.trace():
        y = torch.add(
            x,
            x,
        )
    assert calls_of(pb.record(y, torch.ones(3))) == [("add", "torch.add( ...")]


def test_columns_count_bytes() -> None:
    x = torch.ones(3, requires_grad=True)
    with pb.trace():
        größe, y = "ä", x.exp()
    assert größe
    assert calls_of(pb.record(y, torch.ones(3))) == [("exp", "x.exp()")]


def test_values_do_not_change_and_blocks_nest() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, requires_grad=True)
    plain = torch.nn.functional.dropout(x.sin(), 0.5).sum()
    torch.manual_seed(0)
    y = torch.randn(4).copy_(x.detach()).requires_grad_()
    with pb.trace(), pb.trace():
        traced = torch.nn.functional.dropout(y.sin(), 0.5).sum()
    assert torch.equal(plain, traced)
    assert len(calls_of(pb.record(traced))) == len(calls_of(pb.record(plain)))


def test_parameters_get_the_name_of_the_outermost_module() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 1)))
    with pb.trace():
        out = model(torch.ones(1, 2))
    record = pb.record(out)
    assert set(record.deposits) == {"0.weight", "0.bias", "1.0.weight", "1.0.bias"}
    assert parameter_name(model[0].weight) == "0.weight"


def test_nothing_stays_after_the_block() -> None:
    before = len(nn.modules.module._global_forward_pre_hooks)
    with pytest.raises(ZeroDivisionError), pb.trace():
        _ = 1 / 0
    assert len(nn.modules.module._global_forward_pre_hooks) == before
    x = torch.ones(3, requires_grad=True)
    assert calls_of(pb.record(x.exp(), torch.ones(3))) == [None]


def test_threads_trace_their_own_calls() -> None:
    x = torch.ones(3, requires_grad=True)
    found = []

    def other() -> None:
        y = torch.ones(3, requires_grad=True).exp()
        found.append(calls_of(pb.record(y, torch.ones(3))))

    with pb.trace():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        y = x.exp()
    assert found == [[None]]
    assert calls_of(pb.record(y, torch.ones(3))) == [("exp", "x.exp()")]


def test_traced_under_a_transform() -> None:
    with pb.trace():
        gradient = torch.func.grad(lambda t: t.exp().sum())(torch.ones(3))
    assert torch.equal(gradient, torch.ones(3).exp())


DEEP = """
import contextlib, gc, resource, sys, torch, pullback as pb
resource.setrlimit(resource.RLIMIT_STACK, (2**21, 2**21))
if "unguarded" in sys.argv:
    from pullback.backward import depth
    depth.STRETCH = 10**9
gc.freeze()  # what is imported, or the collections below would take seconds
x = torch.ones(2, requires_grad=True)
with pb.trace() if "trace" in sys.argv else contextlib.nullcontext():
    out = x
    for _ in range(6_250):
        out = out.neg().clone()
if "record" in sys.argv:
    assert len(pb.record(out, torch.ones(2)).nodes) == 12_501
if "exit" not in sys.argv:
    del out
    for _ in range(16):
        gc.collect()
    left = sum(type(o).__name__ in ("NegBackward0", "CloneBackward0") for o in gc.get_objects())
    assert left == 0, left
print("alive")
"""


def deep(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", DEEP, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("what", ["record", "trace", "trace record", "record exit", "trace exit"])
def test_deep_graphs_are_freed_without_overflowing_the_stack(what: str) -> None:
    """torch frees a chain recursively once Python has seen its nodes; see backward/depth.py.

    A stack of 2 MiB overflows at a quarter of the nodes that the usual 8 MiB hold.
    """
    done = deep(*what.split())
    assert (done.returncode, done.stdout.strip()) == (0, "alive"), done.stderr[-2000:]


def test_a_graph_that_nothing_guards_would_overflow_it() -> None:
    done = deep("record", "unguarded")
    assert (done.returncode, done.stdout.strip()) == (-signal.SIGSEGV, "")


def test_ordinary_graphs_are_freed_at_once() -> None:
    x = torch.ones(2, requires_grad=True)
    gc.collect()
    gc.disable()
    try:
        with pb.trace():
            out = x.exp().sin()
        pb.record(out, torch.ones(2))
        node = out.grad_fn
        assert node is not None
        del node, out
        left = [o for o in gc.get_objects() if type(o).__name__ == "SinBackward0"]
        assert left == []
    finally:
        gc.enable()


def test_the_graph_of_a_gradient_belongs_to_the_call_that_asked_for_it() -> None:
    x = torch.ones(3, requires_grad=True)
    with pb.trace():
        (grad,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
        penalty = grad.square().sum()
    own = "torch.autograd.grad((x**3).sum(), x, create_graph=True)"
    told = calls_of(pb.record(penalty))
    assert told[:2] == [("sum", "grad.square().sum()"), ("square", "grad.square()")]
    assert ("grad", own) in told
    assert None not in told


def residual(x: torch.Tensor) -> torch.Tensor:
    return (x * x).sin()[1:] * x[:-1]


def test_planning_and_jacobians_are_the_same_under_a_trace() -> None:
    x = torch.linspace(0, 1, 6, dtype=torch.float64)
    plain = pb.plan_jacobian(residual, x)
    w = torch.ones(2, requires_grad=True)
    with pb.trace(), pb.ledger({"w": w}) as book:
        traced = pb.plan_jacobian(residual, x)
        jac = pb.jacobian(residual, plan=traced)
        found = jac(x)
        pb.verify(residual, x, plan=traced)
    assert (traced.mode, traced.lifted, traced.notes) == (plain.mode, plain.lifted, plain.notes)
    assert torch.equal(traced.pattern.rows, plain.pattern.rows)
    assert torch.equal(traced.pattern.cols, plain.pattern.cols)
    assert torch.equal(found.to_dense(), torch.func.jacrev(residual)(x))
    assert book.calls == ()


def test_looks_are_no_calls_of_the_user() -> None:
    w = torch.ones(2, requires_grad=True)
    h = w * 2
    h.retain_grad()
    with pb.ledger({"w": w, "h": h}) as book:
        out = (h * h).sum()
        pb.record(out)
        pb.why(w, out)
        pb.find_nonfinite(out)
        pb.step(out).finish()
        assert book.calls == ()
        out.backward()
    assert [entry.kind for entry in book.entries] == ["deposit", "deposit"]
    assert book.balanced
