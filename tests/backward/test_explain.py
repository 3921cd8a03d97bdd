"""Each sentence of ``pb.explain`` against what is true of the tensors it speaks about."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pullback as pb
from pullback.backward.accumulation import multiple
from pullback.backward.meanings import meaning_of
from pullback.backward.regions import moving_region, region_of, region_text


def tutorial() -> tuple[Tensor, Tensor]:
    inp = torch.eye(4, 5, requires_grad=True)
    return inp, (inp + 1).pow(2).t()


def texts(told: pb.Explanation, topic: str) -> list[str]:
    return [statement.text for statement in told.about(topic)]


def evidence(told: pb.Explanation, topic: str) -> dict[str, str]:
    return dict(told.about(topic)[0].evidence)


def test_the_tutorials_questions() -> None:
    inp, out = tutorial()
    told = pb.explain(out, torch.ones_like(out), inputs={"inp": inp})
    assert texts(told, "cotangent") == [
        "out holds 20 numbers, and each has a gradient of its own: together, the Jacobian. "
        "backward(v) needs a cotangent v of shape (5, 4) to say with which weights to add them up, "
        "and computes the vector-Jacobian product v . J without forming J."
    ]
    assert texts(told, "meaning") == [
        "Here v for out is all ones, which asks for the gradient of out.sum()."
    ]
    assert evidence(told, "meaning") == {
        "kind": "ones",
        "v . out": "32",
        "weights that are not 0": "20",
    }
    assert texts(told, "deposits") == [
        "inp would receive a gradient of its own shape (4, 5); the largest entry is 4 at [0, 0]."
    ]
    assert evidence(told, "deposits") == {
        "norm": "11.31",
        "sum": "48",
        "entries that are not 0": "20 of 20",
    }
    assert texts(told, "grad") == [
        "out.grad stays None: out was computed, and backward writes only to the leaves it came from "
        "(inp). out.retain_grad(), called beforehand, would make it keep v."
    ]
    assert texts(told, "retain_graph") == [
        "1 node saved tensors that backward frees when it is done; a second backward then fails at "
        "PowBackward0, which needs self. retain_graph=True keeps them. It has nothing to do with "
        "the need for v."
    ]
    assert texts(told, "rows") == [
        "At this point, row i of out depends on inp[:, i] and on nothing else of inp, in each of its 5 "
        "rows."
    ]


def test_nothing_is_touched() -> None:
    inp, out = tutorial()
    state = torch.get_rng_state()
    out.retain_grad()
    pb.explain(out, torch.ones_like(out))
    assert inp.grad is None
    assert out.grad is None
    assert torch.equal(torch.get_rng_state(), state)


def test_accumulation_is_read_off_grad() -> None:
    inp, out = tutorial()
    v = torch.ones_like(out)

    def now() -> str:
        (text,) = texts(pb.explain(out, v, inputs={"inp": inp}), "accumulation")
        return text.partition(";")[0].partition(",")[0]

    assert now() == "inp: .grad is None now. The next backward puts this deposit there"
    out.backward(v, retain_graph=True)
    assert now() == "inp: .grad already holds 1 time this deposit"
    out.backward(v, retain_graph=True)
    assert now() == "inp: .grad already holds 2 times this deposit"
    assert inp.grad is not None
    inp.grad.zero_()
    assert now() == "inp: .grad holds zeros"
    out.backward(v.tril(), retain_graph=True)
    assert now().startswith("inp: .grad already holds something that is no whole multiple")


def test_retain_graph_is_not_needed_where_nothing_is_saved() -> None:
    x = torch.ones(2, 3, requires_grad=True)
    out = (x + 1).t()
    told = pb.explain(out, torch.ones(3, 2))
    assert texts(told, "retain_graph") == [
        "No node of this graph saved a tensor, so backward can run again on it even without "
        "retain_graph=True."
    ]
    out.backward(torch.ones(3, 2))
    out.backward(torch.ones(3, 2))  # as said


def test_a_scalar_needs_no_cotangent() -> None:
    told = pb.explain(torch.ones(2, requires_grad=True).sum())
    assert texts(told, "cotangent") == [
        "outputs is a single number, so it has one gradient; its cotangent is 1 unless another "
        "weight is wanted."
    ]
    assert texts(told, "rows") == []


def test_outputs_that_keep_their_gradient() -> None:
    x = torch.ones(2, requires_grad=True)
    h = x.exp()
    h.retain_grad()
    assert texts(pb.explain(h, torch.ones(2)), "grad") == [
        "h was computed, but retains its gradient: backward adds v to h.grad."
    ]
    assert texts(pb.explain(x, torch.ones(2)), "grad") == [
        "x is itself a leaf: backward adds v to its own .grad."
    ]


def rows_text(func: Any, x: Tensor) -> str:
    out = func(x)
    (text,) = texts(pb.explain(out, torch.ones_like(out), inputs={"x": x}), "rows")
    return text


def leaf(*shape: int) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(*shape, requires_grad=True)


@pytest.mark.parametrize(
    ("func", "shape", "text"),
    [
        (lambda x: x.t().exp(), (3, 4), "At this point, row i of out depends on x[:, i]"),
        (lambda x: x.flip(0).exp(), (4, 2), "At this point, row i of out depends on x[3 - i, :]"),
        (lambda x: x[1:] * x[:-1], (5,), "At this point, row i of out depends on x[i:i + 2]"),
        (lambda x: x[2:].exp(), (5, 2), "At this point, row i of out depends on x[i + 2, :]"),
        (lambda x: x.reshape(3, 2), (6,), "At this point, row i of out depends on x[2*i:2*i + 2]"),
        (
            lambda x: x.softmax(0),
            (4, 2),
            "At this point, out depends on every entry of x in each of its 4 rows.",
        ),
        (
            lambda x: x[:, :1] * torch.ones(4, 3),
            (4, 2),
            "At this point, row i of out depends on x[i, 0]",
        ),
        (
            lambda x: x.cumsum(0),
            (3, 2),
            "At this point, in out: row 0 on x[0, :]; row 1 on x[0:2, :]; row 2 on every entry of x.",
        ),
        (
            lambda x: x * 0,
            (3,),
            "At this point, out does not depend on x in each of its 3 rows: the derivatives are 0.",
        ),
        (
            lambda x: torch.stack([x[0, 0] + x[1, 1], x[0, 1]]),
            (2, 2),
            "At this point, in out: row 0 on 2 of the 4 entries of x[:, :]; row 1 on x[0, 1].",
        ),
    ],
)
def test_where_rows_land(func: Any, shape: tuple[int, ...], text: str) -> None:
    assert rows_text(func, leaf(*shape)).startswith(text)


def test_where_rows_land_is_checked_against_the_jacobian() -> None:
    """The regions, for a program with no structure to speak of, from the dense Jacobian."""
    from pullback.backward.graph import Port, walk
    from pullback.backward.reach import reach_of_rows

    x = leaf(3, 4)

    def func(t: Tensor) -> Tensor:
        return torch.stack([t[0].sum() * t[2, 1], t[1, 1:3].prod(), t[0, 0] + t[2, 3], t[1, 0]])

    out = func(x)
    graph = walk([out])
    node = next(node for node, _ in graph.leaves())
    (reach,), engine = reach_of_rows(out, [x], [Port(node, 0)], graph)
    dense = torch.func.jacrev(func)(x.detach()) != 0
    assert engine == "vmap"
    assert reach.regions == tuple(region_of(row.numpy()) for row in dense)


def test_rows_of_a_large_output_are_sampled_and_it_is_said() -> None:
    x = leaf(1000, 2)
    out = x.exp()
    told = pb.explain(out, torch.ones_like(out), inputs={"x": x})
    assert evidence(told, "rows")["rows tried"] == "64 of 1000"
    assert texts(told, "rows")[0].startswith("At this point, in out: row 0 on x[0, :]; row 16 on")


def test_a_backward_that_refuses_batches_is_looped() -> None:
    class Stubborn(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.t() * 2

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            assert float(grad.abs().max().item()) > 0
            return grad.t() * 2

    x = leaf(3, 4)
    out = Stubborn.apply(x)
    told = pb.explain(out, torch.ones_like(out), inputs={"x": x})
    assert texts(told, "rows")[0].startswith("At this point, row i of out depends on x[:, i]")
    assert evidence(told, "rows")["products of row masks by"] == "loop"


def test_zeros_are_called_zeros() -> None:
    x = leaf(2, 3)
    told = pb.explain(x * 0, torch.ones(2, 3), inputs={"x": x})
    assert texts(told, "deposits") == [
        "x would receive a gradient of its own shape (2, 3), all zeros."
    ]


def test_complex_deposits_are_told() -> None:
    z = torch.tensor([1 + 1j, 2.0], requires_grad=True)
    told = pb.explain(z * z, torch.ones(2, dtype=torch.complex64), inputs={"z": z})
    # torch gives conj(2 z) for z * z.
    assert texts(told, "deposits") == [
        "z would receive a gradient of its own shape (2,); the largest entry is 4+0j at [1]."
    ]


def test_a_leaf_that_is_written_by_a_hook_afterwards() -> None:
    x = leaf(2)

    def emptied(tensor: Tensor) -> None: ...

    x.register_post_accumulate_grad_hook(emptied)
    (text,) = texts(pb.explain(x.exp(), torch.ones(2), inputs={"x": x}), "accumulation")
    assert text.endswith(
        "Then test_a_leaf_that_is_written_by_a_hook_afterwards.emptied runs on it, and may change it."
    )


def test_computed_inputs_are_not_called_leaves() -> None:
    x = leaf(2)
    h = x * 2
    told = pb.explain(h * 3, torch.ones(2), inputs={"h": h})
    assert texts(told, "accumulation") == [
        "h: it was computed, so a plain backward keeps no gradient for it; retain_grad(), or "
        "backward(..., inputs=...), would write this deposit to its .grad."
    ]
    assert "(x)" in texts(told, "grad")[0] or "(leaf 0)" in texts(told, "grad")[0]


def test_outputs_that_feed_each_other() -> None:
    x = leaf(2)
    h = x.exp()
    told = pb.explain({"h": h, "out": h * 3}, {"h": torch.ones(2), "out": torch.ones(2)})
    assert (
        "would make it keep v and what flows back from the other outputs." in texts(told, "grad")[0]
    )
    assert texts(told, "grad")[1].endswith("would make it keep v.")


def test_the_node_that_fails_is_the_one_that_is_named() -> None:
    x = leaf(2)
    a, b = x.exp(), x.sin()
    out = (a + b).sum()
    (text,) = texts(pb.explain(out), "retain_graph")
    assert "a second backward then fails at SinBackward0, which needs self." in text
    out.backward()
    with pytest.raises(pb.GraphError, match="SinBackward0 needs what it had saved"):
        pb.record(out)


def test_nan_hides_where_rows_land() -> None:
    x = torch.tensor([[0.0, 1.0], [1.0, 1.0]], requires_grad=True)
    out = x.sqrt()
    assert texts(pb.explain(out, torch.ones(2, 2), inputs={"x": x}), "rows") == [
        "Where rows of out land in x cannot be told: the products hold nan."
    ]


def test_complex_outputs_have_rows_too() -> None:
    x = leaf(3)
    assert rows_text(lambda t: 1j * t, x).startswith("At this point, row i of out depends on x[i]")


def test_sampled_rows_are_not_called_every_row() -> None:
    m = torch.zeros(1000, 3)
    m[:, 0] = 1
    z = leaf(3, 1)
    out = m @ z
    (text,) = texts(pb.explain(out, torch.ones(1000, 1), inputs={"z": z}), "rows")
    assert text == "At this point, out depends on z[0, :] in each of the 64 rows tried."


def test_a_hook_of_the_users_never_meets_a_batch() -> None:
    x = leaf(3)
    h = x.exp()
    seen: list[Tensor] = []
    h.register_hook(seen.append)
    told = pb.explain(h * 2, torch.ones(3), inputs={"x": x})
    assert evidence(told, "rows")["products of row masks by"] == "loop"
    assert all(torch.isfinite(grad).all() and grad.shape == (3,) for grad in seen)


@pytest.mark.parametrize(
    ("grad", "deposit", "times"),
    [
        ([2.0, 4.0], [1.0, 2.0], 2),
        ([0.0, 0.0], [1.0, 2.0], 0),
        ([2.0, 4.1], [1.0, 2.0], None),
        ([12345.5, 0.0], [1.0, 0.0], None),
        ([1000.0, 0.05], [1000.0, 0.01], None),
        ([1.0, 0.0], [0.0, 0.0], None),
        ([-1.0, -2.0], [1.0, 2.0], None),
    ],
)
def test_multiples(grad: list[float], deposit: list[float], times: int | None) -> None:
    assert multiple(torch.tensor(grad), torch.tensor(deposit)) == times


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_multiples_as_autograd_adds_them(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    deposit = torch.randn(50, dtype=dtype)
    grad = torch.zeros(50, dtype=dtype)
    for k in range(1, 8):
        grad += deposit
        assert multiple(grad, deposit) == k


def test_many_leaves_are_summed_up() -> None:
    model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(6)])
    out = model(torch.ones(3, 2))
    told = pb.explain(out, torch.ones_like(out), inputs=model)
    assert len(texts(told, "deposits")) == 9
    assert texts(told, "deposits")[-1] == "4 more leaves receive a gradient; the record lists them."


def test_the_refusals_are_those_of_record() -> None:
    _, out = tutorial()
    with pytest.raises(pb.CotangentError, match="^pb.explain: `out` has shape"):
        pb.explain(out)
    with pytest.raises(
        pb.CotangentError, match="^pb.explain: the cotangent `cotangents` has shape"
    ):
        pb.explain(out, torch.ones(4, 5))


def test_it_prints() -> None:
    inp, out = tutorial()
    printed = str(pb.explain(out, torch.ones_like(out), inputs={"inp": inp}))
    assert printed.startswith("What backward does from out\n")
    assert "    kind: ones\n" in printed


OUT = torch.zeros(5, 4)


def ones_at(*rows: int, value: float = 1.0) -> Tensor:
    v = torch.zeros(5, 4)
    v[list(rows)] = value
    return v


@pytest.mark.parametrize(
    ("v", "code", "words"),
    [
        (torch.ones(5, 4), "ones", "all ones, which asks for the gradient of y.sum()"),
        (
            torch.ones(5, 4) / 20,
            "mean",
            "1/20 everywhere, which asks for the gradient of y.mean()",
        ),
        (
            torch.full((5, 4), 3.0),
            "constant",
            "3 everywhere, which asks for the gradient of y.sum() times 3",
        ),
        (torch.zeros(5, 4), "zeros", "all zeros: every gradient will be 0"),
        (
            ones_at(0) * torch.eye(1, 4),
            "one_hot",
            "one-hot, which asks for one row of the Jacobian: the gradient of y[0, 0] alone",
        ),
        (
            ones_at(2, value=-2) * torch.eye(1, 4),
            "one_entry",
            "-2 in one entry, which asks for that times the gradient of y[2, 0]",
        ),
        (
            ones_at(1),
            "rows",
            "0 outside of row 1 and 1 inside, which asks for the gradient of their sum",
        ),
        (ones_at(0, 3, value=0.5), "rows", "0 outside of rows 0, 3, so no other entry of y counts"),
        (
            torch.arange(20.0).reshape(5, 4) / 190,
            "average",
            "weights that add up to 1, which ask for the gradient of a weighted average of y",
        ),
        (
            torch.arange(20.0).reshape(5, 4),
            "weights",
            "weights, which ask for the gradient of (v * y).sum()",
        ),
        (
            torch.full((5, 4), float("nan")),
            "non-finite",
            "inf or nan in 20 entries, which will spread",
        ),
        (torch.ones(()), "ones", "1, which asks for the gradient of y itself"),
        (
            torch.full((1000,), 1e-3, dtype=torch.float16).fill_(1.5e-3)
            + torch.eye(1, 1000)[0].half() * 1e-3,
            "weights",
            "weights, which ask for the gradient of (v * y).sum()",
        ),
        (torch.zeros(0, 3), "empty", "empty, as the output is: nothing flows back"),
        (
            torch.tensor([1j, 2, 3]),
            "weights",
            "complex weights, which ask for the gradient of (v.conj() * y).sum().real",
        ),
    ],
)
def test_meanings(v: Tensor, code: str, words: str) -> None:
    assert meaning_of(v, "y") == (code, words)


@pytest.mark.parametrize("seed", range(5))
def test_every_meaning_is_true(seed: int) -> None:
    """The number whose gradient the words promise has that gradient."""
    torch.manual_seed(seed)
    x = torch.randn(5, 4, requires_grad=True)
    promised = {
        "ones": lambda y: y.sum(),
        "mean": lambda y: y.mean(),
        "one_hot": lambda y: y[0, 0],
        "rows": lambda y: y[1].sum(),
    }
    for v in (torch.ones(5, 4), torch.ones(5, 4) / 20, ones_at(0) * torch.eye(1, 4), ones_at(1)):
        y = x.sin() * x.roll(1, 0)
        (found,) = torch.autograd.grad(y, x, v, retain_graph=True)
        (expected,) = torch.autograd.grad(promised[meaning_of(v, "y").code](y), x)
        torch.testing.assert_close(found, expected)


def test_complex_weights_mean_what_is_said() -> None:
    z = torch.randn(3, dtype=torch.complex64, requires_grad=True)
    v = torch.randn(3, dtype=torch.complex64)
    y = z * z
    (found,) = torch.autograd.grad(y, z, v, retain_graph=True)
    (expected,) = torch.autograd.grad((v.conj() * y).sum().real, z)
    torch.testing.assert_close(found, expected)


def test_region_texts() -> None:
    mask = torch.zeros(4, 6, dtype=torch.bool)
    assert region_text(region_of(mask.numpy()), "x") == "nothing of x"
    mask[1, [0, 2, 5]] = True
    assert region_text(region_of(mask.numpy()), "x") == "x[1, [0, 2, 5]]"
    mask[:] = True
    assert region_text(region_of(mask.numpy()), "x") == "every entry of x"
    scalar = torch.ones((), dtype=torch.bool)
    assert region_text(region_of(scalar.numpy()), "x") == "x"


def test_moving_regions_are_never_overstated() -> None:
    """A subscript is only given if it reproduces every region it stands for."""
    eye = [region_of(row.numpy()) for row in torch.eye(4, dtype=torch.bool)]
    assert moving_region(eye, "x") == "x[i]"
    assert moving_region([eye[1], eye[0], eye[2], eye[3]], "x") is None
    both = [region_of(torch.eye(3, dtype=torch.bool)[k].diag().numpy()) for k in range(3)]
    assert moving_region(both, "x") is None
    assert moving_region(eye[:1], "x") is None
