"""Whether the installed torch tells of autograd nodes what the rest of pullback reads from them."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch

from ._torch import (
    Slot,
    engine_arguments,
    first_freed,
    freed_tensor,
    graph_task,
    handle_hooks,
    leaf_of,
    next_sequence_number,
    notes_of,
    overwritten,
    refused_parameters,
    run_alone,
    run_first,
    saved_values,
    sequence_number,
    slot_device,
    slots,
    traced_frames,
    watched_tensors,
    without_tensor_hooks,
)


def probe_leaf() -> bool:
    x = torch.ones(1, requires_grad=True)
    return leaf_of((2 * x).grad_fn.next_functions[0][0]) is x  # type: ignore[union-attr, arg-type]


def probe_sequence() -> bool:
    x = torch.ones(1, requires_grad=True)
    before = next_sequence_number()
    y = x.exp()
    assert y.grad_fn is not None
    return before <= sequence_number(y.grad_fn) < next_sequence_number()


def probe_metadata() -> bool:
    y = torch.ones(2, 3, requires_grad=True).exp()
    assert y.grad_fn is not None
    notes_of(y.grad_fn)["probe"] = 1
    gc.collect()
    return notes_of(y.grad_fn).get("probe") == 1


def probe_slots() -> bool:
    y = torch.ones(2, 3, requires_grad=True).exp()
    assert y.grad_fn is not None
    return slots(y.grad_fn) == (Slot((2, 3), torch.float32),)


def probe_hooks() -> bool:
    y = torch.ones(2, requires_grad=True).exp()
    assert y.grad_fn is not None

    def probe(grad_outputs: Any) -> None: ...

    y.grad_fn.register_prehook(probe)
    handle = y.grad_fn.register_prehook(lambda grad_outputs: None)
    return probe in handle_hooks(handle)


def probe_freed() -> bool:
    y = torch.ones(2, requires_grad=True).exp()
    assert y.grad_fn is not None
    fresh = freed_tensor(y.grad_fn)
    y.sum().backward()
    return fresh is None and freed_tensor(y.grad_fn) == "result"


def probe_first_freed() -> bool:
    kept = torch.ones(2, requires_grad=True).exp()
    freed = kept.sin() + 1
    assert kept.grad_fn is not None
    assert freed.grad_fn is not None
    sine = freed.grad_fn.next_functions[0][0]
    assert sine is not None
    fresh = first_freed([freed.grad_fn, sine, kept.grad_fn])
    torch.autograd.grad(freed.sum(), kept)
    found = first_freed([freed.grad_fn, sine, kept.grad_fn])
    return fresh is None and found is not None and found is sine


def probe_single_nodes() -> bool:
    x = torch.ones(2, requires_grad=True)
    seen: list[str] = []
    x.register_hook(lambda grad: seen.append("tensor"))
    y = x.exp()
    assert y.grad_fn is not None
    y.grad_fn.register_prehook(lambda grads: seen.append("late"))
    handle = y.grad_fn.register_prehook(lambda grads: seen.append("early"))
    run_first(handle)
    with without_tensor_hooks(x):
        y.sum().backward()
    x.grad = None
    return seen == ["early", "late"] and slot_device(y.grad_fn, 0) == x.device


def _raised(call: Callable[[], Any]) -> BaseException:
    try:
        call()
    except (RuntimeError, ValueError) as error:
        return error
    raise AssertionError("nothing was raised")


def probe_engine_frames() -> bool:
    x = torch.ones(2, requires_grad=True)
    y, v = torch.ones(1).sum(), torch.ones(1)
    first = engine_arguments(traced_frames(_raised(lambda: y.backward(inputs=[x]))))
    second = engine_arguments(traced_frames(_raised(lambda: torch.autograd.grad(x * 2, x, v))))
    if first is None or second is None:
        return False
    same = first.outputs[0] is y and first.inputs[0] is x
    return same and second.inputs[0] is x and second.cotangents[0] is v


def probe_overwritten() -> bool:
    y = torch.ones(2, requires_grad=True).exp()
    node = y.grad_fn
    assert node is not None
    fresh = overwritten(node)
    y += 1
    found = overwritten(node)
    return not fresh and [(f.name, f.expected, f.found) for f in found] == [("result", 0, 1)]


def probe_refused() -> bool:
    w = torch.ones(2, requires_grad=True) * 2
    error = _raised(lambda: torch.optim.SGD([w]))
    return [id(t) for t in refused_parameters(traced_frames(error))] == [id(w)]


def probe_retaining() -> bool:
    h = torch.ones(2, requires_grad=True).exp()
    h.retain_grad()
    assert h.grad_fn is not None
    return any(tensor is h for tensor, _ in watched_tensors({h.grad_fn}).retaining)


def probe_task() -> bool:
    seen: list[int] = []
    y = torch.ones(2, requires_grad=True).exp()
    assert y.grad_fn is not None
    y.grad_fn.register_hook(lambda grad_inputs, grad_outputs: seen.append(graph_task()))
    y.sum().backward(retain_graph=True)
    y.sum().backward()
    return len(set(seen)) == 2


def probe_alone() -> bool:
    x = torch.tensor([[1.0], [4.0]], requires_grad=True)
    root, product = x.sqrt(), x * torch.ones(2, 3)
    assert root.grad_fn is not None
    assert product.grad_fn is not None
    sent = run_alone(root.grad_fn, (torch.ones(2, 1),))
    summed = run_alone(product.grad_fn, (torch.ones(2, 3),))
    saved = saved_values(root.grad_fn)
    return (
        sent is not None
        and sent[0] is not None
        and sent[0].tolist() == [[0.5], [0.25]]
        and summed is not None
        and summed[0] is not None
        and summed[0].shape == (2, 3)
        and torch.equal(saved["result"], root.detach())
        and saved_values(x.softmax(-1).grad_fn)["dim"] == -1  # type: ignore[arg-type]
    )
