"""The page of a record: what it holds gives back the pass for any cotangent, or is not held."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pullback as pb
from pullback.backward import asking
from pullback.backward.questions import answered
from pullback.sparse.dependence import Dependence
from tests.backward.pages import decoded, expected, followed, weights_of
from tests.backward.programs import PROGRAMS


def as_list(outputs: Any) -> list[Tensor]:
    return (
        [outputs] if isinstance(outputs, Tensor) else list(torch.utils._pytree.tree_leaves(outputs))
    )


def cotangents(outputs: list[Tensor], seed: int) -> list[Tensor]:
    made = torch.Generator().manual_seed(seed)
    return [torch.randn(t.shape, generator=made, dtype=t.real.dtype).to(t.dtype) for t in outputs]


# Short floats round more; the bias before a normalisation receives nothing but rounding.
ROUNDING = {"autocast": 0.05, "dtype_casts": 0.01}
NOISE = {"convolution_with_batch_norm": 1e-4}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_page_follows_every_cotangent_or_says_why_not(name: str) -> None:
    built = PROGRAMS[name]()
    outputs = [t for t in as_list(built.outputs) if t.requires_grad]
    try:
        first = pb.record(outputs, cotangents(outputs, 1), inputs=built.leaves, keep="tensors")
        other = cotangents(outputs, 2)
        second = pb.record(outputs, other, inputs=built.leaves, keep="tensors")
    except (pb.UnsupportedError, pb.GraphError):
        pytest.skip("a look is refused here")
    document = first.document(editable=True)
    json.dumps(document, allow_nan=False)
    if document["basis"]["kind"] == "none":
        assert document["basis"]["reason"]
        assert document["responses"] == {}
        return
    assert document["basis"]["kind"] == "elements"
    found, wanted = followed(document, weights_of(other)), expected(second.document(editable=False))
    assert set(found) == set(range(len(document["quantities"])))
    for number, values in wanted.items():
        scale = np.abs(values).max(initial=1e-30)
        most = ROUNDING.get(name, 2e-4) * scale + NOISE.get(name, 0.0)
        assert np.abs(found[number] - values).max(initial=0.0) <= most, number


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_page_shows_the_deposits_themselves(name: str) -> None:
    built = PROGRAMS[name]()
    outputs = [t for t in as_list(built.outputs) if t.requires_grad]
    try:
        record = pb.record(outputs, cotangents(outputs, 1), inputs=built.leaves)
    except (pb.UnsupportedError, pb.GraphError):
        pytest.skip("a look is refused here")
    document = record.document(editable=False)
    for leaf, told in zip(record.leaves, document["leaves"], strict=True):
        assert (told["deposit"] is None) == (leaf.key not in record.deposits)
        if told["deposit"] is not None:
            found = decoded(document["quantities"][told["deposit"]]["values"])
            deposit = record.deposits[leaf.key].to_dense()
            wanted = deposit.abs() if deposit.is_complex() else deposit
            assert np.array_equal(found, wanted.double().reshape(-1).numpy(), equal_nan=True)


@pytest.mark.parametrize("name", ["convolution_with_batch_norm", "autocast", "dtype_casts"])
def test_rounding_is_not_taken_for_a_backward_that_is_not_linear(name: str) -> None:
    """The bias before a normalisation receives rounding alone; short floats lie on the way."""
    built = PROGRAMS[name]()
    outputs = as_list(built.outputs)
    record = pb.record(outputs, cotangents(outputs, 1), inputs=built.leaves)
    assert record.document()["basis"]["kind"] == "elements"


def test_gradients_that_vanish_are_followed() -> None:
    """After 85 steps they are below the normal numbers of float32, after 100 they are zeros."""
    x = torch.ones(3, requires_grad=True)
    state = x
    for _ in range(100):
        state = (state * 0.35).sin()
    record = pb.record(state, torch.ones(3), inputs={"x": x})
    assert record.document()["basis"]["kind"] == "elements"


class Off(torch.autograd.Function):
    """Linear but for one part in a thousand of its largest entries."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * grad + 2e-3 * grad * (grad.abs() > 50)


def test_what_is_more_than_rounding_is_seen() -> None:
    x = torch.ones(30, requires_grad=True)
    y = Off.apply(x * 1)
    assert "not linear in its cotangent" in reason_of(pb.record(y, torch.ones(30)))


@pytest.mark.parametrize(
    "name", ["tutorial", "broadcasting", "unbind", "in_place", "attention", "custom_function"]
)
def test_usual_programs_are_followed(name: str) -> None:
    """The law above would hold for a page that never follows."""
    built = PROGRAMS[name]()
    outputs = [t for t in as_list(built.outputs) if t.requires_grad]
    seen = pb.record(outputs, cotangents(outputs, 1), inputs=built.leaves)
    assert seen.document(editable=True)["basis"]["kind"] == "elements"


def reason_of(record: pb.BackwardRecord, **options: Any) -> str:
    document = record.document(**options)
    assert document["basis"]["kind"] == "none"
    return str(document["basis"]["reason"])


def test_a_gone_output_is_named_with_its_remedy() -> None:
    x = torch.ones(3, requires_grad=True)
    y = x.exp()
    record = pb.record(y, torch.ones(3))
    del y
    assert reason_of(record) == (
        "the outputs no longer exist: keep them in a variable until the page is written"
    )


def test_a_freed_graph_is_named_with_its_remedy() -> None:
    x = torch.ones(3, requires_grad=True)
    y = x.exp()
    record = pb.record(y, torch.ones(3), accumulate=True)
    assert reason_of(record) == (
        "the graph was freed: record with retain_graph=True, or write the page before backward"
    )


def test_a_tensor_written_to_since_is_seen() -> None:
    x = torch.ones(3, requires_grad=True)
    z = x * 1
    y = z * z
    record = pb.record(y, torch.ones(3))
    with torch.no_grad():
        z.mul_(2)
    assert reason_of(record) == ("a tensor that the backward needs was written to in place since")


def test_a_tensor_changed_behind_autograd_is_seen() -> None:
    x = torch.ones(3, requires_grad=True)
    z = x * 1
    y = z * z
    record = pb.record(y, torch.ones(3))
    z.data.mul_(2)
    assert "do not add up to the pass" in reason_of(record)


class Clipped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return (2 * grad).clamp(-3, 3)


def test_a_backward_that_is_not_linear_is_not_followed() -> None:
    """With unit cotangents and with ones nothing is clipped: only the trial shows it."""
    x = torch.ones(3, requires_grad=True)
    y = Clipped.apply(x * 1)
    assert "not linear in its cotangent" in reason_of(pb.record(y, torch.ones(3)))


def test_hooks_do_not_run_again_unless_asked() -> None:
    x = torch.ones(3, requires_grad=True)
    y = x.exp()
    calls: list[int] = []
    y.register_hook(lambda grad: calls.append(1))
    record = pb.record(y, torch.ones(3))
    assert "would run again for every cotangent" in reason_of(record)
    assert len(calls) == 1
    assert record.document(editable=True)["basis"]["kind"] == "elements"
    assert len(calls) > 3
    assert reason_of(record, editable=False) == "the page was written with editable=False"


def test_an_infinite_derivative_is_not_followed() -> None:
    x = torch.zeros(3, requires_grad=True)
    y = x.sqrt()
    assert reason_of(pb.record(y, torch.ones(3))) == (
        "a local derivative is not finite here, and 0 times it is not 0"
    )


def test_complex_tensors_are_not_followed() -> None:
    x = torch.ones(3, dtype=torch.complex64, requires_grad=True)
    y = x * x
    assert "linear over the reals only" in reason_of(pb.record(y, torch.ones_like(y)))


def test_what_is_complex_on_the_way_stays_as_recorded() -> None:
    """The page shows moduli, which do not add up; the real tensors at both ends are followed."""
    torch.manual_seed(0)
    x = torch.randn(4, requires_grad=True)
    y = torch.fft.fft(x).abs()
    record = pb.record(y, torch.ones(4), inputs={"x": x})
    document = record.document()
    assert document["basis"]["kind"] == "elements"
    held = {int(number) for number in document["responses"]}
    dtypes = [quantity["dtype"] for quantity in document["quantities"]]
    assert held == {number for number, dtype in enumerate(dtypes) if "complex" not in dtype}
    v = torch.tensor([1.0, -2.0, 0.5, 3.0])
    (wanted,) = torch.autograd.grad(y, x, v, retain_graph=True)
    deposit = document["leaves"][0]["deposit"]
    found = followed(document, weights_of([v]))[deposit]
    torch.testing.assert_close(torch.from_numpy(found).float(), wanted)
    answer = answered(record, {"v": [[1.0] * 4]})["values"]
    for number, values in expected(document).items():
        assert np.allclose(decoded(answer[str(number)]), values, rtol=1e-5, atol=1e-6)


def test_a_record_read_from_a_file_has_no_graph() -> None:
    x = torch.ones(3, requires_grad=True)
    y = x.exp()
    read = pb.BackwardRecord.from_json(pb.record(y, torch.ones(3)).to_json())
    assert reason_of(read) == "this record was read from a file: it has no graph"


def test_a_large_output_is_followed_at_the_leaves_through_its_sparse_jacobian() -> None:
    x = torch.randn(90, 90, requires_grad=True)
    y = x.tanh() * x.roll(1, 0)
    v = torch.randn(90, 90)
    document = pb.record(y, v, inputs={"x": x}).document()
    assert document["basis"]["kind"] == "elements"
    assert "at the leaves only" in document["basis"]["reason"]
    other = torch.randn(90, 90)
    (found,) = followed(document, weights_of([other])).values()
    (wanted,) = torch.autograd.grad(y, x, other)
    torch.testing.assert_close(torch.from_numpy(found).float(), wanted.reshape(-1))


class ClippedOutOfSight(torch.autograd.Function):
    """NumPy hides from every tracer that it clips."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return torch.from_numpy(np.clip(2 * grad.numpy(), -3, 3))


def test_a_large_backward_that_clips_out_of_sight_is_not_followed() -> None:
    """No unit cotangent is clipped, nor the ones: one pass of many magnitudes shows it."""
    x = torch.ones(2, requires_grad=True)
    y = ClippedOutOfSight.apply(x.repeat(2500) * 1)
    record = pb.record(y, torch.ones(5000), inputs={"x": x})
    assert "not linear in its cotangent" in reason_of(record)


def test_a_dense_large_output_is_followed_row_by_row() -> None:
    torch.manual_seed(0)
    x = torch.randn(20, 40, requires_grad=True)
    y = (x @ x.T.detach() @ torch.randn(20, 300)).tanh()
    v = torch.ones(20, 300)
    document = pb.record(y, v, inputs={"x": x}).document(budget=400_000)
    assert document["basis"]["kind"] == "chosen"
    assert document["basis"]["names"][:2] == ["y[0]", "y[1]"]
    weights = np.zeros(20)
    weights[3] = 2.0
    deposit = document["leaves"][0]["deposit"]
    found = followed(document, weights)[deposit]
    (wanted,) = torch.autograd.grad(y, x, torch.eye(20)[3][:, None] * 2 * v)
    torch.testing.assert_close(torch.from_numpy(found).float(), wanted.reshape(-1))
    vectors = document["basis"]["vectors"]
    assert decoded(vectors["starts"])[1] == 300


LARGE_LEAF = """
import resource, torch, pullback as pb
table = torch.nn.Embedding(5000, 64)
out = table(torch.tensor([7])).exp()
record = pb.record(out, torch.ones_like(out))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert record.document()["basis"]["kind"] == "elements"
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
def test_the_answers_of_a_large_leaf_are_held_without_their_zeros() -> None:
    """64 answers of 320,000 entries, twice: 328 MB where each is held as it comes."""
    command = [sys.executable, "-W", "error", "-c", LARGE_LEAF]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert int(done.stdout) < 160_000


def test_looks_over_too_many_entries_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(20, 20, requires_grad=True)
    y = x[:3, :3].exp()
    record = pb.record(y, torch.ones(3, 3), inputs={"x": x})
    assert "at the leaves only" not in record.document()["basis"]["reason"]
    monkeypatch.setattr(asking, "_ENTRIES", 9 * 400)
    assert "at the leaves only" in record.document()["basis"]["reason"]


def test_a_jacobian_too_large_for_a_page_is_not_written_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An output of 64 x 10 and a million weights have a pattern of 640 million entries."""

    def forbidden(*_: Any) -> None:
        raise AssertionError

    x = torch.randn(80, 80, requires_grad=True)
    y = (x @ x).exp()
    record = pb.record(y, torch.ones(80, 80), inputs={"x": x})
    monkeypatch.setattr(Dependence, "to_flipped_pattern", forbidden)
    document = record.document()
    assert (document["basis"]["kind"], document["structure"]) == ("chosen", None)
    with pytest.raises(AssertionError):
        pb.jacobian_of(y, x)


def test_an_output_that_no_page_draws_is_not_asked_for() -> None:
    x = torch.randn(300, 300, requires_grad=True)
    y = x.tanh() * x
    record = pb.record(y, torch.ones(300, 300), inputs={"x": x}, keep="tensors")
    assert reason_of(record) == "an output has more than 65,536 entries, which no page draws"
    assert record.document()["responses"] == {}


def test_nothing_fits_into_no_bytes() -> None:
    x = torch.randn(4, requires_grad=True)
    y = x.exp()
    document = pb.record(y, torch.ones(4)).document(budget=0)
    assert document["basis"]["kind"] == "none"
    assert document["basis"]["reason"] == "the answers would take more than 0 bytes"


def test_asking_leaves_no_trace() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    hidden = model[0](torch.randn(5, 3))
    hidden.retain_grad()
    y = model[2](model[1](hidden))
    record = pb.record(y, torch.ones(5, 2), inputs=model)
    state = torch.get_rng_state()
    assert record.document()["basis"]["kind"] == "elements"
    assert hidden.grad is None
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    y.sum().backward()


def test_the_pattern_and_its_colors_are_those_of_the_jacobian() -> None:
    inp = torch.eye(4, 5, requires_grad=True)
    out = (inp + 10).pow(3).t()
    structure = pb.record(out, torch.ones_like(out), inputs={"inp": inp}).document()["structure"]
    starts, columns = decoded(structure["starts"]), decoded(structure["columns"])
    pattern = np.zeros((20, 20), bool)
    for row in range(20):
        pattern[row, columns[starts[row] : starts[row + 1]]] = True
    jacobian = pb.jacobian_of(out, inp).to_dense()
    assert np.array_equal(pattern, jacobian.numpy() != 0)
    assert structure["products"] == 1


def test_a_question_is_answered_by_torch_itself() -> None:
    x = torch.randn(3, 4, requires_grad=True)
    y = x.sin() * x
    record = pb.record(y, torch.ones(3, 4), inputs={"x": x})
    v = torch.randn(3, 4)
    answer = answered(record, {"v": [v.reshape(-1).tolist()]})
    deposit = record.document(editable=False)["leaves"][0]["deposit"]
    found = torch.from_numpy(decoded(answer["values"][str(deposit)]).copy())
    (wanted,) = torch.autograd.grad(y, x, v)
    torch.testing.assert_close(found.float(), wanted.reshape(-1), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ({}, 'explore: a question is {"v": [[...], ...]}, with a list for each output.'),
        ([], 'explore: a question is {"v": [[...], ...]}, with a list for each output.'),
        ({"v": [[1.0]]}, "explore: `v` has [1] entries, but the outputs have [3]."),
        ({"v": [[1.0, 2.0, "x"]]}, "explore: `v` holds 'x'; its entries are finite numbers."),
        ({"v": [[1.0, 2.0, True]]}, "explore: `v` holds True; its entries are finite numbers."),
        (
            {"v": [[1.0, 2.0, float("nan")]]},
            "explore: `v` holds nan; its entries are finite numbers.",
        ),
    ],
)
def test_bad_questions_are_refused(question: Any, text: str) -> None:
    x = torch.ones(3, requires_grad=True)
    y = x.exp()
    with pytest.raises(pb.ArgumentError) as refused:
        answered(pb.record(y, torch.ones(3)), question)
    assert str(refused.value) == text


def test_a_question_to_a_graph_that_is_gone_is_refused() -> None:
    x = torch.ones(3, requires_grad=True)
    y = x.exp()
    record = pb.record(y, torch.ones(3))
    del y
    with pytest.raises(pb.GraphError) as refused:
        answered(record, {"v": [[1.0, 1.0, 1.0]]})
    assert str(refused.value) == (
        "record.to_html: the graph of the record cannot be asked again: the outputs no longer "
        "exist: keep them in a variable until the page is written."
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"editable": "yes"},
            "record.to_html: `editable` is 'yes'; it must be True, False, or None to ask the graph "
            "unless the user's own hooks would run again.",
        ),
        (
            {"budget": -1},
            "record.to_html: `budget` is -1; it must be a whole number of bytes, from 0 on.",
        ),
    ],
)
def test_bad_options_are_refused(options: Any, text: str, tmp_path: Any) -> None:
    x = torch.ones(3, requires_grad=True)
    record = pb.record(x.exp(), torch.ones(3))
    with pytest.raises(pb.ArgumentError) as refused:
        record.to_html(tmp_path / "page.html", **options)
    assert str(refused.value) == text


def test_modules_are_named_on_their_nodes() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.up(x).tanh()

    model = nn.Sequential(Block(), Block())
    with pb.trace():
        y = model(torch.ones(1, 2)).exp()
    calls = [n["call"] for n in pb.record(y, torch.ones(1, 2)).document()["nodes"] if n["call"]]
    assert [(c["function"], c["module"]) for c in calls if c["function"] in ("exp", "tanh")] == [
        ("exp", ""),
        ("tanh", "1"),
        ("tanh", "0"),
    ]
    assert {c["module"] for c in calls if c["function"] == "linear"} == {"0.up", "1.up"}


def test_a_module_that_raises_does_not_lend_its_name_to_what_follows() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("no")

    x = torch.ones(2, requires_grad=True)
    with pb.trace():
        with pytest.raises(ValueError, match="no"):
            nn.Sequential(Broken())(x)
        y = x.exp()
    (call,) = [n.call for n in pb.record(y, torch.ones(2)).nodes if n.call]
    assert call.module == ""
