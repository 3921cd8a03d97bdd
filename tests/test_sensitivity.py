"""``pb.sensitivity`` against plain autograd, theory, and the numbers of the exercise."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pullback as pb


def exercise() -> tuple[Tensor, Tensor]:
    inp = torch.eye(4, 5, requires_grad=True)
    return inp, (inp + 10).pow(3).t()


def test_the_exercise() -> None:
    inp, out = exercise()
    first, last = (pb.cotangents.rows(out, {row: 1.0}) for row in (0, -1))
    s = pb.sensitivity(
        out,
        inp,
        {
            "as asked": first,
            "uniform": pb.cotangents.normalized(pb.cotangents.ones(out)),
            "first row": pb.cotangents.normalized(first),
            "last row": pb.cotangents.normalized(last),
        },
    )
    # d(x + 10)^3 = 3 (x + 10)^2: 363 where inp is 1, 300 elsewhere; row 0 of out is column 0 of inp.
    expected = torch.zeros(4, 5)
    expected[:, 0] = torch.tensor([363.0, 300, 300, 300])
    assert torch.equal(s.grads["as asked"], expected)
    assert s.totals["uniform"] == pytest.approx(312.6, rel=1e-6)
    assert s.totals["first row"] == 315.75
    assert s.totals["last row"] == 300
    assert s.row_sum_range == (300.0, 363.0)
    assert s.top("as asked", 2) == [(0, (0, 0), 363.0), (0, (1, 0), 300.0)]
    assert s.engine == "vmap"
    assert s.way == "J 1 by double VJP"
    assert inp.grad is None


def program() -> tuple[Any, dict[str, Tensor]]:
    torch.manual_seed(0)
    a, b = torch.randn(3, 4, requires_grad=True), torch.randn(4, requires_grad=True)
    return {"p": (a @ b).tanh(), "q": (a * b).sum(0)}, {"a": a, "b": b}


def cotangents_for(outputs: Any, seed: int) -> Any:
    torch.manual_seed(seed)
    return {name: torch.rand_like(t) for name, t in outputs.items()}


def test_gradients_are_those_of_separate_passes() -> None:
    outputs, inputs = program()
    named = {f"v{k}": cotangents_for(outputs, k) for k in range(3)}
    s = pb.sensitivity(outputs, inputs, named)
    for name, v in named.items():
        expected = torch.autograd.grad(
            list(outputs.values()), list(inputs.values()), list(v.values()), retain_graph=True
        )
        for key, gradient in zip(inputs, expected, strict=True):
            torch.testing.assert_close(s.grads[name][key], gradient)
        total = sum(float(g.double().sum()) for g in expected)
        assert s.totals[name] == pytest.approx(total, rel=1e-5)
        sizes = [float(g.abs().sum()) for g in expected]
        assert list(s.shares[name].values()) == pytest.approx([x / sum(sizes) for x in sizes])
    flat = [torch.cat([g.reshape(-1) for g in s.grads[n].values()]) for n in ("v0", "v1")]
    cosine = torch.nn.functional.cosine_similarity(flat[0], flat[1], dim=0)
    assert s.cosines["v0"]["v1"] == pytest.approx(float(cosine), rel=1e-5)
    assert s.cosines["v0"]["v0"] == pytest.approx(1)


def test_the_total_is_v_times_the_row_sums() -> None:
    """Theory: 1' (v J) = v (J 1). The row sums come from the dense Jacobian here."""
    outputs, inputs = program()
    rows = []
    for t in outputs.values():
        for k in range(t.numel()):
            one_hot = torch.zeros_like(t)
            one_hot.view(-1)[k] = 1
            grads = torch.autograd.grad(t, list(inputs.values()), one_hot, retain_graph=True)
            rows.append(sum(float(g.sum()) for g in grads))
    v = cotangents_for(outputs, 7)
    s = pb.sensitivity(outputs, inputs, {"v": v})
    torch.testing.assert_close(
        s.row_sums, torch.tensor(rows, dtype=torch.float64), rtol=1e-5, atol=1e-5
    )
    weights = torch.cat([t.reshape(-1) for t in v.values()]).double()
    assert s.totals["v"] == pytest.approx(float(weights @ s.row_sums), rel=1e-5)


@pytest.mark.parametrize("seed", range(10))
def test_normalized_totals_lie_within_the_row_sums(seed: int) -> None:
    outputs, inputs = program()
    v = cotangents_for(outputs, seed)
    weight = sum(float(t.sum()) for t in v.values())
    s = pb.sensitivity(outputs, inputs, {"v": {name: t / weight for name, t in v.items()}})
    low, high = s.row_sum_range
    assert low <= s.totals["v"] <= high


def test_layout_follows_the_inputs() -> None:
    outputs, inputs = program()
    v = {"v": cotangents_for(outputs, 0)}
    a, b = inputs.values()
    assert pb.sensitivity(outputs, a, v).grads["v"].shape == (3, 4)
    assert [g.shape for g in pb.sensitivity(outputs, (a, b), v).grads["v"]] == [(3, 4), (4,)]
    assert list(pb.sensitivity(outputs, inputs, v).grads["v"]) == ["a", "b"]
    model = nn.Linear(2, 1)
    out = model(torch.ones(3, 2))
    s = pb.sensitivity(out, model, {"v": torch.ones(3, 1)})
    assert list(s.grads["v"]) == ["weight", "bias"]
    assert s.top("v", 1)[0] == ("bias", (0,), 3.0) or s.top("v", 1)[0][2] == 3.0


def test_intermediate_tensors_can_be_inputs() -> None:
    x = torch.ones(3, requires_grad=True)
    h = x * 2
    s = pb.sensitivity(h.exp(), {"h": h}, {"v": torch.ones(3)})
    torch.testing.assert_close(s.grads["v"]["h"], h.detach().exp())


def test_nothing_is_touched() -> None:
    x = torch.ones(3, requires_grad=True)
    h = x.exp()
    h.retain_grad()
    out = h.sin()
    pb.sensitivity(out, x, {"v": torch.ones(3)})
    assert x.grad is None
    assert h.grad is None
    out.backward(torch.ones(3))


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * grad


def test_row_sums_fall_back_to_rows_where_double_vjp_is_refused() -> None:
    x = torch.arange(1.0, 4.0, requires_grad=True)
    s = pb.sensitivity(Once.apply(x), x, {"v": torch.ones(3)}, chunk_size=2)
    assert s.way == "J 1 row by row"
    assert s.row_sums.tolist() == [2, 4, 6]
    assert s.totals["v"] == 12
    assert s.notes[-1].startswith("J 1 was computed row by row and not by double VJP: ")


class Clipped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 1

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.clamp(-1, 1)


def test_a_backward_that_is_not_linear_is_said() -> None:
    x = torch.ones(2, requires_grad=True)
    s = pb.sensitivity(Clipped.apply(x), x, {"v": torch.full((2,), 5.0)})
    assert s.totals["v"] == 2
    assert "not a fixed linear map of its cotangent" in s.notes[-1]


def test_a_backward_that_refuses_vmap_is_looped() -> None:
    class Stubborn(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return grad * (2 if grad.detach().sum().item() is not None else 0)

    x = torch.ones(2, requires_grad=True)
    s = pb.sensitivity(Stubborn.apply(x), x, {"a": torch.ones(2), "b": torch.zeros(2)})
    assert s.engine == "loop"
    assert s.totals == {"a": 4.0, "b": 0.0}
    assert math.isnan(s.cosines["a"]["b"])


class Hidden(torch.autograd.Function):
    """A backward that leaves autograd: its double VJP is silently zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 5

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return torch.from_numpy(grad.detach().numpy() * 5)


def test_row_sums_are_checked_beyond_the_cotangents_at_hand() -> None:
    x = torch.ones(2, requires_grad=True)
    out = torch.cat([x * 2, Hidden.apply(x)])
    s = pb.sensitivity(out, x, {"first": torch.tensor([1.0, 0, 0, 0])})
    assert s.row_sums.tolist() == [2, 2, 5, 5]
    assert s.way == "J 1 row by row"


def test_half_precision_row_sums_do_not_overflow() -> None:
    x = torch.ones(1000, dtype=torch.float16, requires_grad=True)
    out = torch.stack([(x * 100).sum(), x.sum()])
    s = pb.sensitivity(out, x, {"a": torch.tensor([1.0, 0.0]).half()})
    assert s.row_sum_range == (1000.0, 100000.0)


@pytest.mark.parametrize("func", [lambda x: x.softmax(0), lambda x: torch.layer_norm(x, (8,))])
def test_row_sums_that_cancel_accuse_nobody(func: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    x = torch.randn(8, requires_grad=True)
    s = pb.sensitivity(func(x), x, {"uniform": torch.ones(8) / 8, "one": torch.eye(8)[0]})
    assert s.notes == ()
    assert s.way == "J 1 by double VJP"


def test_bfloat16_totals_lie_within_their_row_sums() -> None:
    torch.manual_seed(0)
    x = torch.randn(16, dtype=torch.bfloat16, requires_grad=True)
    out = (torch.randn(16, 16, dtype=torch.bfloat16) @ x).tanh() * 20
    largest = int(pb.sensitivity(out, x, {"v": torch.ones_like(out)}).row_sums.argmax())
    s = pb.sensitivity(out, x, {"v": pb.cotangents.one_hot(out, (largest,))})
    assert " NO " not in str(s)


def test_unreached_inputs_are_said_and_refused() -> None:
    base = torch.randn(4, 4, requires_grad=True)
    other = torch.randn(2, requires_grad=True)
    out = base * 2
    s = pb.sensitivity(out, {"base": base, "other": other}, {"v": torch.ones(4, 4)})
    assert s.notes == ("other is not reached from the outputs: its gradients are 0.",)
    refused(
        pb.GraphError,
        "pb.sensitivity: `out` does not depend on `leaf 0`: no gradient can flow there. Pass "
        "tensors that the outputs were computed from; a slice or copy made afterwards is another "
        "tensor.",
        lambda: pb.sensitivity(out, base[:2], {"v": torch.ones(4, 4)}),
    )


def test_sparse_gradients_are_filled() -> None:
    table = nn.Embedding(10, 3, sparse=True)
    out = table(torch.tensor([1, 4, 1]))
    s = pb.sensitivity(out, table, {"v": torch.ones(3, 3)})
    assert s.totals["v"] == 9
    assert s.top("v", 1)[0][1][0] == 1
    assert s.row_sum_range == (1.0, 1.0)


def test_half_precision_totals_do_not_overflow() -> None:
    x = torch.ones(300, requires_grad=True, dtype=torch.float16)
    s = pb.sensitivity(x * 1000, x, {"v": torch.ones(300, dtype=torch.float16)})
    assert s.totals["v"] == 300_000
    assert s.row_sum_range == (1000.0, 1000.0)


def test_it_prints_a_table() -> None:
    inp, out = exercise()
    first = pb.cotangents.normalized(pb.cotangents.rows(out, {0: 1.0}))
    s = pb.sensitivity(out, {"inp": inp}, {"first row": first, "two": 2 * first})
    assert (
        str(s)
        == """\
Sensitivity to each weighing of the outputs
===========================================

cotangent   sum of v    total   within row sums   largest entry       shares
────────────────────────────────────────────────────────────────────────────────
first row          1   315.75   yes               inp[0, 0] = 90.75   inp: 100 %
two                2    631.5   not an average    inp[0, 0] = 181.5   inp: 100 %

Row sums of J lie in [300, 363] (J 1 by double VJP). A total is v . (J 1): with v >= 0 adding up
  to 1 it is an average of row sums and lies in that range, whatever the weights.

Cosine between gradients
            first row   two
───────────────────────────
first row           1     1
two                 1     1"""
    )


def test_the_plot_shows_every_gradient() -> None:
    inp, out = exercise()
    v = pb.cotangents.rows(out, {0: 1.0})
    figure = pb.sensitivity(out, {"inp": inp}, {"a": v, "b": 2 * v}).plot()
    titles = [axis.get_title(loc="left") or axis.get_title() for axis in figure.axes]
    assert [t for t in titles if t] == ["a: inp (4, 5)", "b: inp (4, 5)"]


def refused(kind: type[Exception], text: str, call: Callable[[], Any]) -> None:
    with pytest.raises(kind, match=f"^{re.escape(text)}$"):
        call()


def test_refusals() -> None:
    inp, out = exercise()
    v = torch.ones_like(out)
    refused(
        pb.TreeError,
        "pb.sensitivity: `cotangents` is a Tensor, not a mapping. Give each cotangent a name: "
        "{'uniform': v1, 'first row': v2}.",
        lambda: pb.sensitivity(out, inp, v),  # type: ignore[arg-type]
    )
    refused(
        pb.ArgumentError,
        "pb.sensitivity: `cotangents` is empty. Name at least one cotangent.",
        lambda: pb.sensitivity(out, inp, {}),
    )
    refused(
        pb.CotangentError,
        "pb.sensitivity: `cotangents['v']` has no cotangent for `out`, which holds 20 numbers. "
        "Write pb.cotangents.ones(out) for the gradient of their sum.",
        lambda: pb.sensitivity(out, inp, {"v": None}),
    )
    refused(
        pb.CotangentError,
        "pb.sensitivity: the cotangent `cotangents['v']` has shape (4, 5), but `out` has shape "
        "(5, 4); the two are paired entry by entry. They differ at axis 0 (4 against 5) and axis 1 "
        "(5 against 4). Write cotangents['v'].t() if its rows are the columns of `out`, or "
        "cotangents['v'].reshape((5, 4)) if its entries are already in C order.",
        lambda: pb.sensitivity(out, inp, {"v": torch.ones(4, 5)}),
    )
    refused(
        pb.ArgumentError,
        "pb.sensitivity: no cotangent is named 'w'; there are 'v'.",
        lambda: pb.sensitivity(out, inp, {"v": v}).top("w"),
    )
    z = torch.ones(2, dtype=torch.complex64, requires_grad=True)
    refused(
        pb.ArgumentError,
        "pb.sensitivity: complex tensors have no row sums to compare. Weigh their real and "
        "imaginary parts: torch.view_as_real(...).",
        lambda: pb.sensitivity(z * 2, z, {"v": torch.ones(2, dtype=torch.complex64)}),
    )
