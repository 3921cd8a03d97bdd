"""``pb.audit``: right Functions pass, each fault is found by its name, and nothing is left behind."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import Function

import pullback as pb

from . import faulty
from .faulty import Cube

X = torch.tensor([[1.0, 2.0, -0.5], [3.0, 0.25, -4.0]], dtype=torch.float64)
S = torch.tensor([2.0, -3.0], dtype=torch.float64)
SQUARE = torch.arange(1.0, 10.0, dtype=torch.float64).reshape(3, 3)
Z = torch.tensor([1 + 2j, -0.5j, 3 + 0j], dtype=torch.complex128)

RIGHT: dict[str, tuple[type[Function], tuple[Any, ...]]] = {
    "saves its input": (faulty.Cube, (X,)),
    "setup_context": (faulty.Apart, (X,)),
    "saves its output": (faulty.Exp, (X,)),
    "asks what is needed": (faulty.Gain, (X, S, 2.0)),
    "several outputs": (faulty.Polar, (X, X + 6)),
    "complex": (faulty.Absolute, (Z,)),
    "in place": (faulty.Dirty, (X,)),
    "a kink elsewhere": (faulty.Positive, (X,)),
    "one number": (faulty.Cube, (torch.tensor(2.0, dtype=torch.float64),)),
    "no entry": (faulty.Cube, (torch.zeros(0, 3, dtype=torch.float64),)),
    "tiny numbers": (faulty.Cube, (1e-6 * X,)),
    "huge numbers": (faulty.Cube, (1e6 * X,)),
    "float32": (faulty.Cube, (X.float(),)),
    "bfloat16": (faulty.Cube, (X.bfloat16(),)),
    "keeps its draw": (faulty.Dropped, (X,)),
}
WRONG: dict[str, tuple[type[Function], tuple[Any, ...]]] = {
    "gradient_summed": (faulty.RowScale, (SQUARE, SQUARE[0])),
    "gradient_cast": (faulty.Widened, (X.float(),)),
    "gradient_count": (faulty.TooFew, (X, S)),
    "gradient_refused": (faulty.RowScale, (X, S)),
    "backward_raises": (faulty.Raises, (X,)),
    "none_gradient": (faulty.Forgets, (X, X + 1)),
    "wrong_gradient": (faulty.Doubled, (X,)),
    "not_linear": (faulty.Clipped, (X,)),
    "not_deterministic": (faulty.Redraws, (torch.rand(64),)),
    "writes_cotangent": (faulty.IntoCotangent, (X,)),
    "writes_saved": (faulty.IntoSaved, (X,)),
    "input_kept_on_ctx": (faulty.Kept, (X,)),
    "output_kept_on_ctx": (faulty.KeptOutput, (X,)),
    "second_derivative": (faulty.Slope, (X,)),
}
CHOSEN: dict[str, tuple[type[Function], tuple[Any, ...]]] = {
    "straight_through": (faulty.Rounded, (X,)),
    "sum_left_to_torch": (faulty.Shift, (X, X[0])),
    "wasted_gradient": (faulty.Wasteful, (X.clone().requires_grad_(), X)),
    "zeros_gradient": (faulty.Zeros, (X, X)),
}


def of(found: pb.Audit, code: str) -> pb.Verdict:
    return next(finding for finding in found.findings if finding.code == code)


def facts(found: pb.Audit, code: str) -> dict[str, str]:
    return dict(of(found, code).evidence)


@pytest.mark.parametrize(("function", "inputs"), RIGHT.values(), ids=RIGHT.keys())
def test_a_right_function_passes(function: type[Function], inputs: tuple[Any, ...]) -> None:
    found = pb.audit_function(function, *inputs)
    assert (found.findings, found.notes, found.passed) == ((), (), True)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("code", WRONG)
def test_a_fault_is_found_by_its_name(code: str, seed: int) -> None:
    function, inputs = WRONG[code]
    found = pb.audit_function(function, *inputs, seed=seed)
    assert code in [finding.code for finding in found.findings]
    assert not found.passed
    assert of(found, code).fix
    assert function.__name__ in of(found, code).text


@pytest.mark.parametrize("code", CHOSEN)
def test_a_choice_is_told_and_passes(code: str) -> None:
    function, inputs = CHOSEN[code]
    found = pb.audit_function(function, *inputs)
    assert [finding.code for finding in found.findings] == [code]
    assert found.passed


def test_a_factor_of_two_is_shown_at_one_entry() -> None:
    """At x the slope of x^3 is 3 x^2, and this backward takes it for 6 x^2."""
    told = facts(pb.audit_function(faulty.Doubled, X), "wrong_gradient")
    i, j = map(int, re.findall(r"d x\[(\d), (\d)\]", told["entry"])[0])
    assert told["entry"] == f"d output[{i}, {j}] / d x[{i}, {j}]"
    slope = 3 * float(X[i, j]) ** 2
    assert float(told["by differences of forward"]) == pytest.approx(slope, rel=1e-3)
    assert float(told["by backward"]) == pytest.approx(2 * slope, rel=1e-3)
    assert "(2 times as much)" in str(pb.audit_function(faulty.Doubled, X))


@pytest.mark.parametrize("seed", range(4))
def test_a_single_wrong_entry_is_found(seed: int) -> None:
    told = facts(pb.audit_function(faulty.OneEntry, X, seed=seed), "wrong_gradient")
    assert float(told.pop("these may be off by")) < 1e-7
    assert told == {
        "entry": "d output[1, 2] / d x[0, 0]",
        "by differences of forward": "0",
        "by backward": "5",
        "apart by": "5",
    }


def test_the_reversal_of_a_gradient_is_minus_one_times_it() -> None:
    told = of(pb.audit_function(faulty.Reversed, X), "wrong_gradient").text
    assert "is 1, and backward takes it for -1 (-1 times as much)" in told
    assert "unless another one is meant (a reversal, a surrogate)" in told


def test_a_silent_sum_is_told_with_both_shapes_and_a_wrong_entry() -> None:
    """d (x s)[i, j] / d s[i] is x[i, j]; the sum along the leading axis credits s[j] with it."""
    found = pb.audit_function(faulty.RowScale, SQUARE, SQUARE[0])
    assert facts(found, "gradient_summed") == {"returned": "(3, 3)", "expected": "(3,)"}
    assert "torch sums it over axis 0" in of(found, "gradient_summed").text
    assert "grad = grad.sum(dim=(1,))" in of(found, "gradient_summed").fix
    told = facts(found, "wrong_gradient")
    i, j, k = map(int, re.findall(r"\[(\d), (\d)\] / d s\[(\d)\]", told["entry"])[0])
    assert float(told["by differences of forward"]) == (SQUARE[i, j] if k == i else 0)
    assert float(told["by backward"]) == (SQUARE[i, j] if k == j else 0)


def test_none_for_an_input_that_matters() -> None:
    told = facts(pb.audit_function(faulty.Forgets, X, X + 1), "none_gradient")
    assert told["by backward"] == "None"
    i, j = map(int, re.findall(r"d y\[(\d), (\d)\]", told["entry"])[0])
    assert float(told["by differences of forward"]) == float(X[i, j])


def test_what_needs_no_gradient_may_get_none() -> None:
    found = pb.audit_function(faulty.Forgets, X.clone().requires_grad_(), X + 1)
    assert found.findings == ()


@pytest.mark.parametrize("function", [faulty.Clipped, faulty.Normed, faulty.Rectified])
def test_backwards_that_are_not_linear(function: type[Function]) -> None:
    assert [f.code for f in pb.audit_function(function, X).findings] == ["not_linear"]


def test_a_clamped_identity_behind_a_step_is_a_choice() -> None:
    found = pb.audit_function(faulty.Sign, torch.tensor([0.5, -0.25, 3.0], dtype=torch.float64))
    assert [f.code for f in found.findings] == ["straight_through"]
    assert "not the derivative of its forward" in found.findings[0].text


def test_a_kink_at_the_point_is_noted_and_the_rest_is_tried() -> None:
    x = torch.tensor([0.0, 1.0, -2.0], dtype=torch.float64)
    found = pb.audit_function(faulty.Positive, x)
    assert found.findings == ()
    assert found.notes == (
        "Positive: forward has no derivative in `x` at 1 of its output entries, which were left "
        "out.",
    )


def test_second_derivatives_refused_are_noted() -> None:
    found = pb.audit_function(faulty.Once, X)
    assert found.passed
    assert found.notes == (
        "Once: second derivatives through it are refused (once_differentiable).",
    )


def test_a_slope_saved_as_a_number_is_a_constant_to_torch() -> None:
    found = pb.audit_function(faulty.Slope, X)
    assert facts(found, "second_derivative")["by torch"] == "0"
    assert "is a constant to torch in its inputs" in of(found, "second_derivative").text


def test_a_backward_in_numpy_is_a_constant_even_in_its_cotangent() -> None:
    found = pb.audit_function(faulty.InNumpy, X[0])
    assert [f.code for f in found.findings] == ["second_derivative"]
    assert "is a constant to torch in its cotangent" in found.findings[0].text


def test_every_function_of_a_graph_is_tried_at_its_own_point() -> None:
    """x is a leaf; the second Doubled has its input saved; Cube is right."""
    x = X.clone().requires_grad_()
    out = faulty.Doubled.apply(faulty.Doubled.apply(Cube.apply(x)))
    found = pb.audit(out, torch.ones_like(out))
    assert found.functions == (("Doubled", 2), ("Cube", 1))
    assert [f.code for f in found.findings] == ["wrong_gradient"]
    assert facts(found, "wrong_gradient")["calls"] == "2 of 2"


def test_the_real_pass_is_what_is_audited() -> None:
    """The wrong shape comes with the cotangent that arrives, after every hook before it."""
    x, s = SQUARE.clone().requires_grad_(), SQUARE[0].clone().requires_grad_()
    out = faulty.RowScale.apply(x * 1, s)
    found = pb.audit(out.exp().sum())
    assert [f.code for f in found.findings] == ["gradient_summed", "wrong_gradient"]


def test_the_pass_goes_on_where_torch_would_refuse() -> None:
    x = X.clone().requires_grad_()
    found = pb.audit(faulty.Number.apply(Cube.apply(x)).sum())
    assert [f.code for f in found.findings] == ["gradient_refused"]
    assert found.functions == (("Number", 1), ("Cube", 1))
    assert found.notes == ()


def test_arguments_that_are_gone_are_named() -> None:
    x, b = X.clone().requires_grad_(), X[0].clone().requires_grad_()
    found = pb.audit(faulty.Shift.apply(x * 1, b).sum())
    assert found.notes == (
        "Shift: forward was not compared with backward: `x` could not be had: neither saved, nor a "
        "leaf. pb.audit_function(Shift, ...) tries it at arguments of yours.",
    )
    assert [f.code for f in found.findings] == ["gradient_summed"]


def test_none_is_told_where_forward_cannot_be_asked() -> None:
    class Half(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
            return x + y

        @staticmethod
        def backward(ctx: Any, v: Tensor) -> Any:
            return v, None

    x = X.clone().requires_grad_()
    found = pb.audit(Half.apply(x * 1, x * 2).sum())
    assert [f.code for f in found.findings] == ["none_gradient"]


def test_a_graph_without_a_function() -> None:
    found = pb.audit((X.clone().requires_grad_() ** 2).sum())
    assert found == pb.Audit((), (), ())
    assert "There is no custom Function in this graph." in str(found)


def test_random_forwards_of_a_graph_are_not_compared() -> None:
    x = X.clone().requires_grad_()
    found = pb.audit(faulty.Dropped.apply(x).sum())
    assert found.findings == ()
    assert "forward draws random numbers" in found.notes[0]


def test_the_same_seed_finds_the_same() -> None:
    first, second = (pb.audit_function(faulty.OneEntry, X, seed=3) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("function", [Cube, faulty.IntoCotangent, faulty.IntoSaved, faulty.Kept])
def test_an_audit_leaves_no_trace(function: type[Function]) -> None:
    x = X.clone().requires_grad_()
    hidden = x * 1
    hidden.retain_grad()
    out = function.apply(hidden)
    state, version = torch.get_rng_state(), hidden._version
    attributes = dict(vars(out.grad_fn))
    pb.audit(out, torch.ones_like(out))
    assert vars(out.grad_fn) == attributes
    assert torch.equal(torch.get_rng_state(), state)
    assert (x.grad, hidden.grad, hidden._version) == (None, None, version)
    assert torch.equal(hidden, X)
    (grad,) = torch.autograd.grad(out, x, torch.ones_like(out))
    torch.testing.assert_close(grad, 3 * X**2)


def test_the_inputs_of_audit_function_stay_as_they_are() -> None:
    x = X.clone().requires_grad_()
    pb.audit_function(faulty.Dirty, x)
    assert torch.equal(x, X)
    assert x.grad is None


def test_the_nodes_are_freed() -> None:
    x = X.clone().requires_grad_()
    pb.audit(faulty.Doubled.apply(x * 1).sum())
    gc.collect()
    assert not [o for o in gc.get_objects() if type(o).__name__ == "DoubledBackward"]


def refused(kind: type[Exception], message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(kind, match=f"^{re.escape(message)}$"):
        call()


def test_refusals() -> None:
    refused(
        pb.ArgumentError,
        "pb.audit_function: the first argument must be a subclass of torch.autograd.Function; found "
        "apply. Pass the class itself: pb.audit_function(MyFunction, *inputs), not "
        "MyFunction.apply.",
        lambda: pb.audit_function(Cube.apply, X),
    )
    refused(
        pb.ArgumentError,
        "pb.audit_function: no input of Cube is a floating point or complex tensor, so none can "
        "have a gradient. Give the inputs of Cube.apply, one by one.",
        lambda: pb.audit_function(Cube, [X]),
    )

    class Whole(Cube):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.long()

    refused(
        pb.GraphError,
        "pb.audit_function: no output of Whole requires a gradient, so its backward is never "
        "asked. See whether forward marks them non-differentiable, or returns whole numbers.",
        lambda: pb.audit_function(Whole, X),
    )
    with pytest.raises(pb.CotangentError, match="^pb.audit: "):
        pb.audit(Cube.apply(X.clone().requires_grad_()))


def test_it_prints_the_finding_its_facts_and_its_fix() -> None:
    text = str(pb.audit_function(faulty.Reversed, torch.ones(1, dtype=torch.float64)))
    assert text == (
        "Audit of custom Functions\n"
        "=========================\n"
        "\n"
        "Function   calls\n"
        "────────────────\n"
        "Reversed       1\n"
        "\n"
        "Not passed: wrong_gradient.\n"
        "\n"
        "wrong gradient\n"
        "--------------\n"
        "\n"
        "Reversed.backward is not the adjoint of its forward in `x`: d output[0] / d x[0] is 1, and\n"
        "  backward takes it for -1 (-1 times as much). The sign is flipped. Every gradient behind it is\n"
        "  wrong, unless another one is meant (a reversal, a surrogate).\n"
        "    entry: d output[0] / d x[0]\n"
        "    by differences of forward: 1\n"
        "    these may be off by: 1e-10\n"
        "    by backward: -1\n"
        "    apart by: 2\n"
        "\n"
        "Fix\n"
        "---\n"
        "\n"
        "Return J' v, and ask again:\n"
        "\n"
        "    pb.audit_function(Reversed, ...)"
    )


def made_of(forward: Any, backward: Any) -> type[Function]:
    class Made(Function):
        @staticmethod
        def forward(ctx: Any, x: Any, s: Any) -> Any:
            ctx.save_for_backward(x, s)
            return forward(x, s)

        @staticmethod
        def backward(ctx: Any, v: Any) -> Any:
            return backward(v, *ctx.saved_tensors)

    return Made


MISTAKES = {
    "The sign is flipped.": lambda v, x, s: (-2 * x * s * v, (v * x**2).sum(0)),
    "A factor of 2 is missing.": lambda v, x, s: (x * s * v, (v * x**2).sum(0)),
    "A factor of `s` is missing.": lambda v, x, s: (2 * x * v, (v * x**2).sum(0)),
    "A factor of `x` is missing.": lambda v, x, s: (2 * s * v, (v * x**2).sum(0)),
    "a mean over 4 where a sum is due": lambda v, x, s: (2 * x * s * v, (v * x**2).mean(0)),
    "Every entry is zero": lambda v, x, s: (0 * v, (v * x**2).sum(0)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_simple_mistake_is_named(mistake: str, dtype: torch.dtype) -> None:
    made = torch.Generator().manual_seed(0)
    x = torch.rand(4, 3, generator=made, dtype=dtype) + 0.5
    s = torch.rand(3, generator=made, dtype=dtype) + 0.5
    function = made_of(lambda x, s: x**2 * s, MISTAKES[mistake])
    audit = pb.audit_function(function, x, s)
    assert [finding.code for finding in audit.findings] == ["wrong_gradient"]
    finding = audit.findings[0]
    assert mistake in finding.text
    facts = dict(finding.evidence)
    apart = abs(float(facts["by backward"]) - float(facts["by differences of forward"]))
    assert float(facts["apart by"]) == pytest.approx(apart, rel=1e-2, abs=1e-3)
    assert float(facts["these may be off by"]) < 1e-5


def test_a_conjugate_too_few_is_named_at_an_entry() -> None:
    function = made_of(
        lambda x, s: x**2 * s, lambda v, x, s: (2 * x * s * v, (v * x.conj() ** 2).sum())
    )
    z = torch.randn(3, generator=torch.Generator().manual_seed(0), dtype=torch.complex128)
    finding = pb.audit_function(function, z, torch.ones((), dtype=torch.complex128)).findings[0]
    assert "It is the conjugate" in finding.text
    assert ".imag" in dict(finding.evidence)["entry"]


def test_a_cotangent_that_is_not_used_is_said_to_be() -> None:
    function = made_of(lambda x, s: x**2 * s, lambda v, x, s: (2 * x * s, (x**2).sum(0)))
    audit = pb.audit_function(function, torch.rand(4, 3), torch.rand(3))
    assert audit.findings[0].code == "not_linear"
    assert "does not use its cotangent" in audit.findings[0].text


def test_more_is_told_than_by_gradcheck() -> None:
    """torch prints both matrices whole, and neither the entry nor the mistake."""
    x, s = torch.rand(4, 3, dtype=torch.float64) + 0.5, torch.rand(3, dtype=torch.float64) + 0.5
    right = lambda x, s: x**2 * s  # noqa: E731
    function = made_of(right, lambda v, x, s: (2 * x * s * v, (v * x).sum(0)))
    leaves = (x.clone().requires_grad_(), s.clone().requires_grad_())
    with pytest.raises(RuntimeError) as caught:
        torch.autograd.gradcheck(function.apply, leaves)
    finding = pb.audit_function(function, x, s).findings[0]
    entry = dict(finding.evidence)["entry"]
    assert re.fullmatch(r"d output\[\d, (\d)\] / d s\[\1\]", entry)
    assert entry not in str(caught.value)
    assert len(finding.text) < len(str(caught.value))
