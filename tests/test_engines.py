"""The engine ladder: which rung runs, what it says, and that it hides no error."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from pullback import _engines
from pullback._engines import batched_gradients, climb_down, gradients


class Doubled(torch.autograd.Function):
    """Twice x, with a backward that looks at its cotangent as a Python number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        assert grad.sum().item() < 10
        return 2 * grad


def leaf(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()


def test_gradients_skip_outputs_without_a_graph() -> None:
    x = leaf(3)
    found = gradients([x.sin(), torch.ones(2)], [x], [torch.ones_like(x), torch.ones(2)])
    assert_close(found, (x.cos().detach(),))
    assert gradients([torch.ones(2)], [x], [torch.ones(2)]) == (None,)


def test_the_fastest_engine_needs_no_reason() -> None:
    x = leaf(3)
    batch = batched_gradients([x.sin()], [x], [torch.eye(3).double()])
    assert_close(batch.gradients[0], torch.diag(x.cos().detach()))
    assert (batch.engine, batch.reasons) == (_engines.ORDER[0], ())


def test_python_that_reads_a_cotangent_ends_in_the_loop_with_two_reasons() -> None:
    x = leaf(3)
    batch = batched_gradients([Doubled.apply(x)], [x], [torch.eye(3).double()])
    assert_close(batch.gradients[0], 2 * torch.eye(3).double())
    assert batch.engine == "loop"
    left = [f"{name} was left" for name in _engines.ORDER[:-1]]
    assert [reason.partition(": ")[0] for reason in batch.reasons] == left
    assert not any("\n" in reason for reason in batch.reasons)


def test_a_hook_that_reads_a_cotangent_ends_in_the_loop() -> None:
    x = leaf(3)
    y = x.sin()
    y.register_hook(lambda grad: grad * (2 if float(grad.sum()) > 0 else 3))  # type: ignore[no-untyped-call]
    batch = batched_gradients([y], [x], [torch.diag(torch.tensor([1.0, -1.0, 1.0]).double())])
    expected = x.cos().detach() * torch.tensor([2.0, -3.0, 2.0]).double()
    assert_close(batch.gradients[0], torch.diag(expected))
    assert batch.engine == "loop"


def test_a_checkpoint_that_draws_runs_under_vmap() -> None:
    x = leaf(8)
    torch.manual_seed(0)
    y = checkpoint(lambda t: torch.nn.functional.dropout(t.sin(), 0.5), x, use_reentrant=False)
    batch = batched_gradients([y], [x], [torch.eye(8).double()])
    assert batch.engine == "vmap"
    singles = [gradients([y], [x], [row])[0] for row in torch.eye(8).double()]
    assert_close(batch.gradients[0], torch.stack([s for s in singles if s is not None]))


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 4, 100])
def test_chunks_join_to_the_whole_batch(chunk_size: int) -> None:
    x = leaf(4)
    outputs, eye = [x.sin() * x[0]], torch.eye(4).double()
    whole = batched_gradients(outputs, [x], [eye])
    cut = batched_gradients(outputs, [x], [eye], chunk_size)
    assert_close(cut.gradients, whole.gradients)


def test_the_default_chunk_keeps_to_the_byte_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_engines, "BYTES_AT_ONCE", 3 * 2 * 4 * 8)
    sizes: list[int] = []

    def vmapped(product: Any, batch: Sequence[Tensor]) -> tuple[Tensor, ...]:
        sizes.append(batch[0].shape[0])
        return (batch[0],)

    monkeypatch.setattr(_engines, "_vmapped", vmapped)
    x = leaf(4).detach()
    climb_down(lambda cotangents: (cotangents[0],), [torch.ones(7, 4).double()], [x])
    assert sizes == [3, 3, 1]


def test_an_unused_input_gets_zeros_and_an_empty_batch_nothing() -> None:
    x, unused = leaf(3), leaf(2)
    batch = batched_gradients([x.sin()], [x, unused], [torch.eye(3).double()], chunk_size=2)
    assert_close(batch.gradients[1], torch.zeros(3, 2).double())
    none = batched_gradients([x.sin()], [x, unused], [torch.zeros(0, 3).double()])
    assert [t.shape for t in none.gradients] == [(0, 3), (0, 2)]


def test_a_freed_graph_is_reported_as_torch_reports_it() -> None:
    x = leaf(3)
    y = x.sin()
    torch.autograd.grad(y.sum(), x)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        batched_gradients([y], [x], [torch.eye(3).double()])


def test_an_error_of_the_users_hook_comes_out_as_it_is() -> None:
    x = leaf(3)
    y = x.sin()

    def broken(grad: Tensor) -> Tensor:
        raise KeyError("mine")

    y.register_hook(broken)  # type: ignore[no-untyped-call]
    with pytest.raises(KeyError, match="mine"):
        batched_gradients([y], [x], [torch.eye(3).double()])


def test_a_performance_drop_is_a_reason_and_not_a_warning() -> None:
    rows, x = torch.eye(3), torch.ones(3)
    batch = climb_down(lambda cotangents: (torch.histc(cotangents[0], 3),), [rows], [x], 2)
    assert batch.engine == "vmap"
    assert batch.reasons == ("torch has no batching rule for aten::histc and loops over it.",)
    assert_close(batch.gradients[0], torch.tensor([2.0, 0.0, 1.0]).expand(3, 3))


def test_every_other_warning_is_passed_on() -> None:
    def product(cotangents: Sequence[Tensor]) -> tuple[Tensor, ...]:
        warnings.warn("mine", UserWarning, stacklevel=1)
        return (2 * cotangents[0],)

    with pytest.warns(UserWarning, match="^mine$"):
        batch = climb_down(product, [torch.eye(3)], [torch.ones(3)])
    assert batch.engine == "vmap"


def test_torch_still_words_its_performance_warning_like_that() -> None:
    with pytest.warns(UserWarning, match="^There is a performance drop.*batching rule for aten::"):
        torch.func.vmap(torch.histc)(torch.ones(2, 3))
