"""Programs whose backward pass the tests record; each builds leaves and outputs from a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


@dataclass
class Built:
    outputs: Any
    leaves: dict[str, Tensor]
    seen: list[str] = field(default_factory=list)


PROGRAMS: dict[str, Callable[[], Built]] = {}


def program(build: Callable[[], Built]) -> Callable[[], Built]:
    def seeded() -> Built:
        torch.manual_seed(0)
        return build()

    PROGRAMS[build.__name__] = seeded
    return build


def leaf(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


@program
def tutorial() -> Built:
    inp = torch.eye(4, 5, requires_grad=True)
    return Built((inp + 1).pow(2).t(), {"inp": inp})


@program
def scalar_loss() -> Built:
    w = leaf(3, 4)
    return Built((w.sin() * w).sum(), {"w": w})


@program
def broadcasting() -> Built:
    a, b = leaf(4, 1, 3), leaf(5, 1)
    return Built((a * b + b).exp(), {"a": a, "b": b})


@program
def double_edge() -> Built:
    x = leaf(6)
    return Built(x * x, {"x": x})


@program
def three_edges_into_one_node() -> Built:
    x = leaf(7)
    h = x.tanh()
    return Built(h * h.sin() + h, {"x": x})


@program
def unbind() -> Built:
    x = leaf(3, 4)
    a, b, _ = x.unbind()
    return Built({"a": a.exp(), "b": (a * b).sum()}, {"x": x})


@program
def split_and_cat() -> Built:
    x = leaf(6, 2)
    a, b, c = x.split(2)
    return Built(torch.cat([c * 2, a * b]), {"x": x})


@program
def svd() -> Built:
    x = leaf(4, 3, dtype=torch.float64)
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    return Built((s, (u * u).sum() + (v**4).sum()), {"x": x})


@program
def max_and_sort() -> Built:
    x = leaf(5, 4)
    values, _ = x.max(dim=0)
    return Built(values + x.sort(dim=0).values[1], {"x": x})


@program
def same_output_twice() -> Built:
    x = leaf(3)
    y = x.exp()
    return Built((y, y), {"x": x})


@program
def output_inside_another() -> Built:
    x = leaf(3)
    h = x.exp()
    return Built((h, h.sin()), {"x": x})


@program
def leaf_as_output() -> Built:
    x = leaf(3)
    return Built(x, {"x": x})


@program
def one_element_outputs() -> Built:
    x = leaf(3)
    return Built([x.sum(), x.prod().reshape(1, 1)], {"x": x})


@program
def in_place() -> Built:
    x = leaf(4, 4)
    y = x * 2
    y[1] = (y[0] * 1).sin()
    y[:, 2].mul_(3)
    y.relu_()
    return Built(y, {"x": x})


@program
def views() -> Built:
    x = leaf(4, 6)
    return Built(x.view(2, 12)[:, ::3].transpose(0, 1).unfold(0, 2, 1) * 2, {"x": x})


@program
def dtype_casts() -> Built:
    x, y = leaf(4), leaf(4, dtype=torch.float64)
    return Built(x.double() * y + x.half().float(), {"x": x, "y": y})


@program
def complex_numbers() -> Built:
    z = leaf(3, 3, dtype=torch.complex64)
    x = leaf(3)
    return Built(torch.fft.fft(z * x).abs().pow(2) + (z.conj() * z).real, {"z": z, "x": x})


@program
def complex_output() -> Built:
    z = leaf(4, dtype=torch.complex128)
    return Built(z * z.conj().sin(), {"z": z})


@program
def convolution_with_batch_norm() -> Built:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2))
    return Built(model(torch.randn(2, 2, 8, 8)), dict(model.named_parameters()))


@program
def lstm() -> Built:
    model = nn.LSTM(3, 4, num_layers=2)
    out, (h, c) = model(torch.randn(5, 2, 3))
    return Built((out, (h, c)), dict(model.named_parameters()))


@program
def transformer_layer() -> Built:
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
    return Built(model(torch.randn(2, 5, 8)), dict(model.named_parameters()))


@program
def attention() -> Built:
    q, k, v = leaf(2, 6, 4), leaf(2, 6, 4), leaf(2, 6, 4)
    out = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    return Built(out, {"q": q, "k": k, "v": v})


@program
def autocast() -> Built:
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(torch.randn(3, 4))
    return Built(out, dict(model.named_parameters()))


@program
def sparse_embedding() -> Built:
    table = nn.Embedding(10, 3, sparse=True)
    return Built(table(torch.tensor([1, 4, 1])), {"weight": table.weight})


@program
def sparse_and_dense_embedding() -> Built:
    table = nn.Embedding(10, 3, sparse=True)
    out = table(torch.tensor([1, 4, 1])).sum() + (table.weight**2).sum()
    return Built(out, {"weight": table.weight})


@program
def checkpointed() -> Built:
    x, w = leaf(3, 4), leaf(4, 4)
    y = checkpoint(lambda t: torch.dropout((t @ w).tanh(), 0.5, True), x, use_reentrant=False)
    return Built(y * x, {"x": x, "w": w})


@program
def checkpointed_with_a_fresh_draw() -> Built:
    """The recomputation draws from the generator in the backward pass."""
    x = leaf(3, 4)
    y = checkpoint(
        lambda t: t.sin() * torch.rand_like(t),
        x,
        use_reentrant=False,
        preserve_rng_state=False,
    )
    return Built(y, {"x": x})


class OldStyle(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(a, b)
        return a * b, a + b

    @staticmethod
    def backward(ctx: Any, da: Tensor, db: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        return da * b + db, da * a + db


@program
def custom_function() -> Built:
    a, b = leaf(3), leaf(3)
    p, s = OldStyle.apply(a, b)
    return Built((p.sin(), s), {"a": a, "b": b})


class WritesItsCotangent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 3

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.mul_(3)


@program
def custom_function_that_writes_its_cotangent() -> Built:
    x = leaf(3)
    return Built(WritesItsCotangent.apply(x.sin()) * 2, {"x": x})


class ReturnsNone(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        return x * y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


@program
def custom_function_returning_none() -> Built:
    x, y = leaf(3), leaf(3)
    return Built(ReturnsNone.apply(x.exp(), y.exp()), {"x": x, "y": y})


@program
def custom_function_with_a_summed_shape() -> Built:
    """torch sums a gradient of a broadcast shape back to the input's, without a word."""

    class Wide(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return (grad * 2).expand(4, 3)

    x = leaf(3)
    return Built(Wide.apply(x), {"x": x})


@program
def hooks_that_change_values() -> Built:
    x = leaf(4)
    built = Built(None, {"x": x})

    def doubled(grad: Tensor) -> Tensor:
        built.seen.append("doubled")
        return grad * 2

    def clipped_in_place(grad: Tensor) -> None:
        built.seen.append("clipped_in_place")
        grad.clamp_(-0.5, 0.5)

    h = x.exp()
    h.register_hook(doubled)
    x.register_hook(doubled)
    k = h.sin()
    k.register_hook(clipped_in_place)
    built.outputs = k * 3
    built.leaves["h"] = h
    return built


@program
def node_hooks() -> Built:
    x = leaf(4)
    y = x.exp().sin()
    assert y.grad_fn is not None
    y.grad_fn.register_prehook(lambda grads: (grads[0] * 2,))
    y.grad_fn.register_hook(lambda grad_inputs, grads: (grad_inputs[0] + 1,))
    return Built(y, {"x": x})


@program
def module_backward_hook() -> Built:
    model = nn.Linear(3, 2)
    model.register_full_backward_hook(lambda m, gi, go: (gi[0] * 2,))
    x = leaf(4, 3)
    return Built(model(x * 1), {"x": x, **dict(model.named_parameters())})


@program
def empty_tensors() -> Built:
    x = leaf(0, 3)
    return Built((x * 2, x.sum()), {"x": x})


@program
def unreached_branch() -> Built:
    x, y = leaf(3), leaf(3)
    z = x.detach() * y
    return Built(z, {"x": x, "y": y})


@program
def zero_dimensional() -> Built:
    x = torch.tensor(2.0, requires_grad=True)
    return Built(x**3, {"x": x})


@program
def expanded_gradient() -> Built:
    x = leaf(5, 6)
    return Built(x.sum() + x.mean(dim=0).sum(), {"x": x})


@program
def non_contiguous_leaf() -> Built:
    x = torch.randn(4, 5).t().requires_grad_()
    return Built((x @ x.t()).tanh(), {"x": x})
