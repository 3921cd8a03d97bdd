"""``assert_reaches``, ``assert_no_cut``, ``assert_finite``: seen to fail, and to pass."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pullback as pb
from tests.backward.corpus.whys import CASES
from tests.backward.test_why import marked_line, run

# No gradient is defined at x; after the fix of the program one is.
UNDELIVERED = {
    "cut", "not_reached", "different_object", "function_returned_none", "no_grad", "opaque",
    "inference_mode", "integer_dtype", "no_requires_grad", "frozen",
}  # fmt: skip
ZEROS = {"numeric_zero", "structural_zero", "underflow"}
WITH_OUTPUT = [
    n for n, case in CASES.items() if "out = " in case.source or "loss = " in case.source
]
MISSING = [name for name in WITH_OUTPUT if CASES[name].code in UNDELIVERED]
MENDED = [name for name in MISSING if CASES[name].expected]
ARRIVING = [n for n, case in CASES.items() if "out = " in case.source and n not in MISSING]
CUT = [name for name in MENDED if CASES[name].code == "cut"]
READ_OUT = ("read out with item", "through numpy")


def forward_of(source: str, folder: Path) -> tuple[Any, Any]:
    """The output of a program, its backward left out, and its x."""
    source = re.sub(r"(\w+\.backward|torch\.autograd\.grad)\([^)]*\)", "pass", source)
    names = run(source, folder)
    return names.get("out", names.get("loss")), names["x"]


def broken(assertion: Any, *args: Any, **options: Any) -> pb.GradientAssertionError:
    with pytest.raises(pb.GradientAssertionError) as caught:
        assertion(*args, **options)
    assert isinstance(caught.value, AssertionError)
    return caught.value


def leaf(*shape: int) -> torch.Tensor:
    return torch.ones(shape or (2,), requires_grad=True)


def test_the_corpus_is_large_enough() -> None:
    assert len(MISSING) >= 20
    assert len(CUT) >= 12


@pytest.mark.parametrize("name", MISSING)
def test_reaches_fails_where_no_gradient_is_defined(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    out, x = forward_of(case.source, tmp_path)
    error = broken(pb.assert_reaches, out, {"x": x})
    assert error.verdicts["x"].code == case.code
    assert case.says in str(error)
    line = marked_line(case.source)
    assert line is None or f"program0.py:{line}" in str(error)


@pytest.mark.parametrize("name", MENDED)
def test_reaches_passes_after_the_fix(name: str, tmp_path: Path) -> None:
    pb.assert_reaches(*forward_of(CASES[name].fixed, tmp_path))


@pytest.mark.parametrize("name", ARRIVING)
def test_reaches_asks_for_a_gradient_and_not_for_its_value(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    out, x = forward_of(case.source, tmp_path)
    if case.code == "freed_graph":
        with pytest.raises(pb.GraphError, match="was freed by an earlier backward"):
            pb.assert_reaches(out, {"x": x})
        return
    pb.assert_reaches(out, {"x": x})
    if case.code in ZEROS:
        error = broken(pb.assert_reaches, out, {"x": x}, nonzero=True)
        assert error.verdicts["x"].code == case.code


@pytest.mark.parametrize("name", CUT)
def test_no_cut_fails_at_the_line_that_cuts(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    out, x = forward_of(case.source, tmp_path)
    place = f"program0.py:{marked_line(case.source)}"
    assert place in str(broken(pb.assert_no_cut, out, {"x": x}))
    if name not in READ_OUT:
        assert place in str(broken(pb.assert_no_cut, out))


@pytest.mark.parametrize("name", CUT)
def test_no_cut_passes_after_the_fix(name: str, tmp_path: Path) -> None:
    out, x = forward_of(CASES[name].fixed, tmp_path)
    pb.assert_no_cut(out)
    pb.assert_no_cut(out, {"x": x})


def test_every_missing_tensor_is_named_and_equal_verdicts_stand_together() -> None:
    used, copied, idle = nn.Linear(2, 2), nn.Linear(2, 1), leaf(3)
    with pb.trace():
        hidden = copied(used(torch.ones(1, 2)).detach())
        loss = hidden.sum()
    error = broken(pb.assert_reaches, loss, {"first": used, "second": copied, "idle": idle})
    code = "used(torch.ones(1, 2)).detach()"
    at = f"test_testing.py:{line_of('hidden = copied(used(')} (`{code}`)"
    assert str(error) == "\n".join(
        [
            "pb.assert_reaches: a gradient from `outputs` is missing at 3 of 5 tensors.",
            "",
            "first.weight, first.bias: cut",
            "    No gradient reaches first.weight: the way from the output to it is cut in "
            f"{at}: detach() hands on the values without their graph.",
            f"    cut at: {at}, by detach",
            "    Fix: Leave the detach out; in place of used(torch.ones(1, 2)).detach() write",
            "        used(torch.ones(1, 2))",
            "",
            "idle: not reached",
            "    No gradient reaches idle: the output was not computed from it (its 5 nodes lead "
            "elsewhere).",
            "    leaves behind the output: (1,), (1, 2)",
            "    Fix: Compute the output from idle itself. If you think it was: run the forward "
            "inside `with pb.trace():` and ask again, and the line that cut it off is named.",
        ]
    )
    assert {name: verdict.code for name, verdict in error.verdicts.items()} == {
        "first.weight": "cut", "first.bias": "cut", "idle": "not_reached",
    }  # fmt: skip
    assert "No gradient reaches first.bias" in error.verdicts["first.bias"].text


def line_of(text: str) -> int:
    lines = Path(__file__).read_text().splitlines()
    return next(k for k, line in enumerate(lines, 1) if line.strip().startswith(text))


@pytest.mark.parametrize("how", ["module", "generator", "list", "tuple of modules", "dict"])
def test_what_params_may_be(how: str) -> None:
    net, other = nn.Linear(2, 1), nn.Linear(2, 1)
    params = {
        "module": lambda m: m, "generator": lambda m: m.parameters(),
        "list": lambda m: [m.weight, m.bias], "tuple of modules": lambda m: (m,),
        "dict": lambda m: {"m": m},
    }[how]  # fmt: skip
    loss = net(torch.ones(1, 2)).sum()
    pb.assert_reaches(loss, params(net))
    assert len(broken(pb.assert_reaches, loss, params(other)).verdicts) == 2


def test_frozen_parameters_count_where_they_are_asked_for_by_name() -> None:
    net = nn.Linear(2, 1)
    net.bias.requires_grad_(False)
    loss = net(torch.ones(1, 2)).sum()
    pb.assert_reaches(loss, net)
    assert broken(pb.assert_reaches, loss, [net.bias]).verdicts["params[0]"].code == "frozen"
    net.weight.requires_grad_(False)
    with pytest.raises(pb.ArgumentError) as caught:
        pb.assert_reaches(loss, net)
    assert str(caught.value) == (
        "pb.assert_reaches: `params` is a Linear whose 2 parameters are all frozen (requires_grad "
        "is False), so there is nothing to assert. Thaw it, or pass the tensors that must get a "
        "gradient by name: {'weight': module.weight}."
    )
    with pytest.raises(pb.ArgumentError) as caught:
        pb.assert_reaches(loss, {"act": nn.ReLU()})
    assert str(caught.value) == (
        "pb.assert_reaches: `act` is a ReLU without parameters, so there is nothing to assert. "
        "Pass a module that has some, or tensors."
    )
    with pytest.raises(pb.TreeError):
        pb.assert_reaches(loss, [])


def test_lazy_parameters_must_have_run() -> None:
    net = nn.LazyLinear(3)
    with pytest.raises(pb.ArgumentError) as caught:
        pb.assert_reaches(leaf().sum(), net)
    assert str(caught.value) == (
        "pb.assert_reaches: `weight` and `bias` are not initialized: the lazy module has not run, so "
        "nothing was computed from it. Run the forward pass first."
    )
    pb.assert_reaches(net(torch.ones(1, 2)).sum(), net)


def test_a_freed_graph_is_no_pass() -> None:
    x, other = leaf(), leaf()
    out = x.exp().sum()
    out.backward()
    with pytest.raises(pb.GraphError, match="was freed by an earlier backward"):
        pb.assert_reaches(out, x)
    assert list(broken(pb.assert_reaches, out, {"x": x, "other": other}).verdicts) == ["other"]


def test_weights_of_nonzero_do_not_cancel() -> None:
    """With ones the gradients of softmax and of a centered tensor are zero."""
    x = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    pb.assert_reaches((x - x.mean()) * 1, x, nonzero=True)
    pb.assert_reaches([x.softmax(0), x.sum()], x, nonzero=True)
    broken(pb.assert_reaches, x * 0, x, nonzero=True)


def test_computed_tensors_and_tied_ones() -> None:
    x = leaf()
    hidden = x * 2
    pb.assert_reaches(hidden.sum(), {"hidden": hidden, "x": x, "the same": x})
    assert list(broken(pb.assert_reaches, (x * 3).sum(), {"x": x, "h": hidden}).verdicts) == ["h"]


def test_all_of_many_are_named() -> None:
    many = {f"w{k}": leaf(3) for k in range(60)}
    error = broken(pb.assert_reaches, leaf(2).sum(), many)
    assert list(error.verdicts) == list(many)
    assert {v.code for v in error.verdicts.values()} == {"not_reached", "not_asked"}
    assert "w59" in str(error)


def test_outputs_without_a_graph() -> None:
    with torch.no_grad():
        out = leaf().sum()
    error = broken(pb.assert_reaches, out, {"x": leaf()})
    assert "outputs has no graph (requires_grad is False)" in str(error)


def test_they_look_and_change_nothing() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Linear(2, 1))
    with pb.trace():
        out = net(torch.ones(3, 2))
    before = torch.get_rng_state()
    versions = [p._version for p in net.parameters()]
    pb.assert_reaches(out, net, nonzero=False)
    pb.assert_reaches(out, net[2], nonzero=True)
    pb.assert_no_cut(out, net)
    pb.assert_finite(out, torch.ones(3, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert [p.grad for p in net.parameters()] == [None] * 4
    assert [p._version for p in net.parameters()] == versions
    out.sum().backward()


def test_inside_a_trace_they_are_not_traced() -> None:
    x = leaf()
    with pb.trace():
        out = x.exp().sum()
        pb.assert_reaches(out, x)
        pb.assert_no_cut(out, x)
        pb.assert_finite(out)


def test_an_error_travels_between_processes() -> None:
    error = broken(pb.assert_reaches, leaf().sum(), {"x": leaf()})
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.verdicts) == (str(error), error.verdicts)


def test_every_cut_is_named_those_behind_others_too() -> None:
    x, w = leaf(), leaf()
    with pb.trace():
        first = (x * 1).detach()
        second = (first * w).detach()
        with torch.no_grad():
            third = w * 2
        out = (second * w * third).sum()
    error = broken(pb.assert_no_cut, out)
    assert sorted(v.evidence[0][1] for v in error.verdicts.values()) == [
        "detach", "detach", "no_grad",
    ]  # fmt: skip
    only = broken(pb.assert_no_cut, out, {"x": x}).verdicts
    assert {v.evidence[0][1] for v in only.values()} == {"detach"}
    assert len(only) == 2
    pb.assert_no_cut(out, allow=("detach", "no_grad"))
    left = broken(pb.assert_no_cut, out, allow="detach").verdicts
    (place,) = left
    assert place.startswith(f"test_testing.py:{line_of('third = w * 2')} ")


def test_places_can_be_allowed() -> None:
    x, w = leaf(), leaf()
    with pb.trace():
        out = (x.detach() * w).sum()  # the line
    line = line_of("out = (x.detach() * w).sum()  # the line")
    for name in ("test_testing.py", "tests/test_testing.py", __file__):
        pb.assert_no_cut(out, allow=(f"{name}:{line}",))
    for place in (f"test_testing.py:{line + 1}", f"testing.py:{line}", "data"):
        broken(pb.assert_no_cut, out, allow=[place])


@pytest.mark.parametrize(
    ("allow", "text"),
    [
        (
            ("detatch",),
            "pb.assert_no_cut: `allow` holds 'detatch', which is neither a reason (detach, data, "
            "copied, no_grad, inference_mode, not_differentiable) nor a place such as 'train.py:12'.",
        ),
        (
            3,
            "pb.assert_no_cut: `allow` is an int; it must be a tuple of reasons and places, such "
            "as ('detach', 'train.py:12').",
        ),
    ],
)
def test_what_cannot_be_allowed(allow: Any, text: str) -> None:
    with pytest.raises(pb.ArgumentError, match=f"^{re.escape(text)}$"):
        pb.assert_no_cut(leaf().sum(), allow=allow)


def test_without_a_trace_it_refuses() -> None:
    x = leaf()
    untraced = (x * 2).sum()
    with pytest.raises(pb.GraphError) as caught:
        pb.assert_no_cut(untraced)
    assert str(caught.value) == (
        "pb.assert_no_cut: 2 of the 2 nodes behind `untraced` were not built inside `with "
        "pb.trace():` (SumBackward0, MulBackward0), so what was cut off among them cannot be "
        "known. Put the whole forward pass inside the block."
    )
    hidden = x * 2
    with pb.trace():
        partly = hidden.sum()
    with pytest.raises(pb.GraphError, match=re.escape("1 of the 2 nodes behind `partly`")):
        pb.assert_no_cut(partly)
    plain = torch.ones(2)
    with pytest.raises(pb.GraphError) as caught:
        pb.assert_no_cut([hidden.sum(), plain])
    assert "nodes behind" in str(caught.value) or "no graph" in str(caught.value)
    with pytest.raises(pb.GraphError) as caught:
        pb.assert_no_cut(plain)
    assert str(caught.value) == (
        "pb.assert_no_cut: `plain` has no graph, and nothing is noted of where it was lost, so "
        "cuts cannot be ruled out. Compute it inside `with pb.trace():`, from tensors that require "
        "a gradient."
    )


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        return value * 2

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> torch.Tensor:
        return upstream * 2


def test_functions_and_gradients_of_gradients_are_traced_enough() -> None:
    x = leaf()
    with pb.trace():
        out = Twice.apply(x * 1).sum()
        (grad,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
        out = out + grad.square().sum()
    pb.assert_no_cut(out, {"x": x})


def test_a_network_of_many_kinds_of_layers_has_no_cut() -> None:
    net = nn.Sequential(
        nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.ReLU(inplace=True), nn.MaxPool1d(2),
        nn.Flatten(1, 1), nn.LSTM(3, 4, batch_first=True),
    )  # fmt: skip
    attention = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    with pb.trace():
        out, _ = net(torch.randn(3, 2, 8))
        out = attention(out)[:, -1].square().mean()
    pb.assert_no_cut(out, [net, attention])
    pb.assert_reaches(out, [net, attention])


def test_a_leaf_made_of_a_computed_tensor_is_a_cut() -> None:
    x, w = leaf(), leaf()
    with pb.trace():
        start = (x * 2).detach().requires_grad_()
        out = (start * w).sum()
    assert len(broken(pb.assert_no_cut, out).verdicts) == 1
    assert len(broken(pb.assert_no_cut, start, {"x": x}).verdicts) == 1
    pb.assert_no_cut(out, {"start": start, "w": w})


def test_leaves_that_are_cut_in_one_line_are_told_apart() -> None:
    many, w = [leaf() for _ in range(6)], leaf()
    with pb.trace():
        joined = torch.cat([each.detach() for each in many])
        out = joined.sum() * w.sum() + many[0].sum()
    for each in many:
        assert len(broken(pb.assert_no_cut, out, {"x": each}).verdicts) == 1
    pb.assert_no_cut(out, {"w": w})


def test_an_input_without_any_way_fails() -> None:
    x, w = leaf(3), leaf(2)
    with pb.trace():
        out = (w * 2).sum()
    error = broken(pb.assert_no_cut, out, {"x": x, "w": w})
    assert {name: v.code for name, v in error.verdicts.items()} == {"x": "not_reached"}
    with pytest.raises(pb.ArgumentError, match="`y` in `inputs` does not require a gradient"):
        pb.assert_no_cut(out, {"y": torch.ones(2)})


def test_many_allowed_cuts_hide_no_other_one() -> None:
    """A value keeps no more than sixteen cuts behind it, one of each reason among them."""
    lines = [f"    v = v + w[{k}] * {k}" for k in range(40)]
    source = "\n".join(["def forward(x, w, v):", *lines, "    return v"])
    scope: dict[str, Any] = {}
    exec(compile(source, "/made/up/teacher.py", "exec"), scope)
    x, w, scale = leaf(), [leaf() for _ in range(40)], leaf()
    with pb.trace():
        start = x.detach()
        with torch.no_grad():
            target = scope["forward"](x, w, start)
        out = (scale * target).sum()
    assert "test_testing.py" in str(broken(pb.assert_no_cut, out, allow="no_grad"))
    pb.assert_no_cut(out, allow=("no_grad", "detach"))
    places = tuple(f"teacher.py:{k + 2}" for k in range(40))
    with pytest.raises(pb.UnsupportedError) as caught:
        pb.assert_no_cut(out, allow=(*places, "detach"))
    assert str(caught.value) == (
        "pb.assert_no_cut: behind `out` is a value with more cuts than are noted, and those that "
        "are left out cannot be held against the places in `allow`. Allow their reasons instead "
        "(allow=('no_grad',), say), or assert on a part of the program."
    )


def test_finite() -> None:
    x = torch.tensor([0.0, 4.0], requires_grad=True)
    pb.assert_finite((x + 1).sqrt().sum(), inputs={"x": x})
    pb.assert_finite(x.exp(), torch.ones(2))
    with pb.trace():
        masked = torch.where(x > 0, x.sqrt(), 0 * x).sum()
    error = broken(pb.assert_finite, masked)
    line = line_of("masked = torch.where(x > 0")
    assert list(error.verdicts) == [f"SqrtBackward0 at test_testing.py:{line}  x.sqrt()"]
    assert [v.code for v in error.verdicts.values()] == ["zero_times_infinity"]
    assert f"test_testing.py:{line}" in str(error)
    assert "born_in_forward" in [
        v.code for v in broken(pb.assert_finite, x.log().sum()).verdicts.values()
    ]
    poisoned = broken(pb.assert_finite, x * 2, torch.tensor([1.0, float("nan")]))
    assert [v.code for v in poisoned.verdicts.values()] == ["poisoned_cotangent"]


def test_finite_refuses_as_record_does() -> None:
    x = leaf()
    out = x * 2
    with pytest.raises(pb.CotangentError, match=r"^pb\.assert_finite: `out` has shape \(2,\)"):
        pb.assert_finite(out)
    plain = torch.ones(())
    with pytest.raises(pb.GraphError, match=r"^pb\.assert_finite: `plain` has no autograd graph"):
        pb.assert_finite(plain)


def test_inside_a_transform_they_refuse() -> None:
    def func(x: torch.Tensor) -> torch.Tensor:
        pb.assert_reaches(x.sum(), x)
        return x.sum()

    with pytest.raises(pb.UnsupportedError, match=r"^pb\.assert_reaches: called inside"):
        torch.func.grad(func)(torch.ones(2))
