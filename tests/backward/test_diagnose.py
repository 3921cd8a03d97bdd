"""``pb.diagnose``: every error of the corpus gets its code, its line, and a fix that works."""

from __future__ import annotations

import gc
import re
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, nn
from torch.utils.checkpoint import checkpoint

import pullback as pb
from pullback.backward.errors import modified
from pullback.backward.origins import is_own_leaf

from .corpus.case import (
    Case,
    blocks_of_fix,
    code_lines,
    failure,
    line_to_change,
    run_program,
)
from .corpus.errors import CASES

EACH = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@EACH
def test_the_verdict_names_the_cause_and_the_line(case: Case, tmp_path: Path) -> None:
    verdict = pb.diagnose(failure(case, tmp_path))
    assert verdict.code == case.code
    assert line_to_change(verdict).startswith(f"{case.name}.py:{case.marked_line()}")
    told = " ".join([verdict.text, *(f"{a} {b}" for a, b in verdict.evidence), verdict.fix])
    assert [words for words in case.says if words not in told] == []
    assert verdict.fix


@EACH
def test_the_fix_mends_the_program(case: Case, tmp_path: Path) -> None:
    mended = case.program("mended")
    if not case.in_prose:
        ways = blocks_of_fix(pb.diagnose(failure(case, tmp_path)))
        assert any(way <= code_lines(mended) for way in ways), ways
    space = run_program(mended, tmp_path)
    torch.testing.assert_close(space["answer"], case.expected(space))


@EACH
def test_without_a_trace_the_code_is_the_same(case: Case, tmp_path: Path) -> None:
    assert pb.diagnose(failure(case, tmp_path, traced=False)).code == case.code


@EACH
def test_without_a_traceback_there_is_still_a_verdict(case: Case, tmp_path: Path) -> None:
    error = failure(case, tmp_path)
    bare = type(error)(str(error))
    verdict = pb.diagnose(bare)
    assert verdict.code == case.code
    assert verdict.text
    assert verdict.fix


@EACH
def test_a_verdict_reads_and_changes_nothing(case: Case, tmp_path: Path) -> None:
    error = failure(case, tmp_path)
    first = pb.diagnose(error)
    with pb.trace():
        again = pb.diagnose(error)
    assert again == first


def raised(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_a_missing_cotangent_is_previewed_without_a_trace_in_grad() -> None:
    x = torch.ones(3, requires_grad=True)
    h = x * 2
    h.retain_grad()
    y = h.exp()
    verdict = pb.diagnose(raised(y.backward))
    assert verdict.code == "needs_cotangent"
    assert (x.grad, h.grad) == (None, None)
    y.backward(torch.ones(3))
    assert x.grad is not None
    torch.testing.assert_close(x.grad, 2 * (2 * x.detach()).exp())


def test_what_is_none_of_autograds_is_said_to_be_unknown() -> None:
    for error in (ValueError("no such thing"), KeyError("x"), KeyboardInterrupt(), Warning()):
        verdict = pb.diagnose(error)
        assert verdict.code == "unknown_error"
        assert type(error).__name__ in verdict.text


def test_a_refusal_of_pullback_passes_through() -> None:
    error = raised(lambda: pb.record(torch.ones(2)))
    verdict = pb.diagnose(error)
    assert (verdict.code, verdict.text) == ("refused", str(error))


def test_an_error_raised_from_one_of_autograds_is_read_as_that() -> None:
    def train() -> None:
        try:
            work_in_place()
        except RuntimeError as error:
            raise ValueError("epoch 3 failed") from error

    verdict = pb.diagnose(raised(train))
    assert verdict.code == "modified_in_place"
    assert dict(verdict.evidence)["node"] == "ExpBackward0"


def test_a_call_that_trace_no_longer_keeps_is_said_to_be_out_of_sight() -> None:
    x = torch.ones(2, requires_grad=True)
    with pb.trace():
        y = x.exp()
        y.sum().backward()
        for _ in range(20):
            (x * 2).sum().backward()
        verdict = pb.diagnose(raised(lambda: y.square().sum().backward()))
    assert verdict.code == "freed_graph"
    assert "none of the latest calls" in verdict.text


def work_in_place() -> torch.Tensor:
    x = torch.tensor([0.0, 1.0], requires_grad=True)
    b = x.exp()
    b += 1
    b.sum().backward()
    assert x.grad is not None
    return x.grad


def test_running_again_with_copies_proves_the_cause() -> None:
    error = raised(work_in_place)
    facts = dict(pb.diagnose(error, rerun=work_in_place).evidence)
    expected = torch.tensor([0.0, 1.0]).exp().tolist()
    assert facts["run again with copies of the saved tensors"] == f"passes, gradient = {expected}"


def test_a_second_cause_shows_when_running_again() -> None:
    def work() -> None:
        work_in_place()
        raise ValueError("something else")

    facts = dict(pb.diagnose(raised(work), rerun=work).evidence)
    told = facts["run again with copies of the saved tensors"]
    assert told == "fails with ValueError: something else"


def test_only_errors_of_writes_are_run_again() -> None:
    ran: list[int] = []
    pb.diagnose(ValueError("other"), rerun=lambda: ran.append(1))
    assert ran == []


def test_the_outputs_can_be_given() -> None:
    x = torch.ones(2, requires_grad=True)
    with pb.trace():
        b = x.exp()
        b += 1
        error = raised(lambda: b.sum().backward())
    bare = RuntimeError(str(error))
    assert "ExpBackward0" not in pb.diagnose(bare).text
    for outputs in (b, [b]):
        assert dict(pb.diagnose(bare, outputs).evidence)["node"] == "ExpBackward0"


def test_without_a_trace_it_says_what_trace_adds() -> None:
    error = raised(work_in_place)
    verdict = pb.diagnose(error)
    assert "pb.trace()" in verdict.text
    assert dict(verdict.evidence)["node"] == "ExpBackward0"
    assert dict(verdict.evidence)["version found"] == "1"
    assert line_to_change(verdict).endswith("b += 1")


def test_a_trace_that_has_ended_is_remembered() -> None:
    x = torch.ones(2, requires_grad=True)
    with pb.trace():
        b = x.exp()
        b += 1
    verdict = pb.diagnose(raised(lambda: b.sum().backward()))
    assert line_to_change(verdict).endswith("b += 1")
    assert "`x.exp()`" in verdict.text


def test_writes_in_place_to_one_buffer_in_a_loop() -> None:
    w = torch.tensor([0.5, 1.0], requires_grad=True)
    with pb.trace():
        out = torch.zeros(4, 2)
        for t in range(3):
            out[t + 1] = torch.tanh(out[t] * w + 1)
        verdict = pb.diagnose(raised(lambda: out.sum().backward()))
    assert blocks_of_fix(verdict) == [{"out[t + 1] = torch.tanh(out[t].clone() * w + 1)"}]
    mended, states = torch.zeros(4, 2), [torch.zeros(2)]
    for t in range(3):
        mended[t + 1] = torch.tanh(mended[t].clone() * w + 1)
        states.append(torch.tanh(states[-1] * w + 1))
    total = torch.stack(states).sum()
    grads = [torch.autograd.grad(each, w)[0] for each in (mended.sum(), total)]
    torch.testing.assert_close(*grads)


def test_without_source_the_operation_is_named() -> None:
    space: dict[str, Any] = {"torch": torch}
    code = "x = torch.ones(2, requires_grad=True)\ny = x.exp()\ny += 1\ny.sum().backward()\n"
    with pb.trace():
        error = raised(lambda: exec(compile(code, "<typed>", "exec"), space))
    verdict = pb.diagnose(error)
    assert "`exp` (<typed>:2)" in verdict.text
    assert line_to_change(verdict) == "<typed>:3  add_"


def test_writes_through_data_are_told_apart() -> None:
    """They count versions of their own, and the engine does not complain of them."""
    x = torch.ones(2, requires_grad=True)
    with pb.trace():
        b = x.exp()
        b.data.mul_(2)
        b += 1
        error = raised(lambda: b.sum().backward())
    facts = pb.diagnose(error).evidence
    assert [value.partition("  ")[2] for name, value in facts if name.startswith("write 0")] == [
        "b += 1"
    ]
    behind = [value for name, value in facts if name == "write behind autograd's back"]
    assert [value.partition("  ")[2] for value in behind] == ["b.data.mul_(2)"]


def test_a_recorded_warning_is_read_like_an_error() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        checkpoint(torch.exp, torch.ones(2), use_reentrant=True)
    message = seen[-1].message
    assert isinstance(message, Warning)
    assert pb.diagnose(message).code == "checkpoint_inputs"


def test_the_line_is_the_users_where_a_library_stands_between(tmp_path: Path) -> None:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    source = "def go(loss):\n    loss.backward()\n"
    space: dict[str, Any] = {}
    exec(compile(source, str(folder / "trainer.py"), "exec"), space)
    verdict = pb.diagnose(raised(lambda: space["go"](torch.ones(2, requires_grad=True) * 2)))
    assert line_to_change(verdict).startswith("test_diagnose.py:")


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    yield
    distributed.destroy_process_group()


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(2, 1)
        self.cut = nn.Linear(2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.used(x) + self.cut(x).detach()


@pytest.mark.usefixtures("one_process")
def test_parameters_that_ddp_waits_for_are_named_with_what_cut_them_off() -> None:
    model = nn.parallel.DistributedDataParallel(TwoHeads())
    x = torch.ones(1, 2)

    def train() -> None:
        for _ in range(2):
            model(x).sum().backward()

    with pb.trace():
        error = raised(train)
    verdict = pb.diagnose(error)
    assert verdict.code == "unreduced_parameters"
    missing = [value for name, value in verdict.evidence if name == "without a gradient"]
    assert missing == ["cut.weight", "cut.bias"]
    assert line_to_change(verdict).endswith("self.cut(x).detach()")


def test_a_failed_pass_leaves_nothing_that_the_collector_has_to_find() -> None:
    """A cycle through an error's frames would hold the graph, some of it for ever."""
    seen: list[weakref.ref[torch.Tensor]] = []

    def work() -> None:
        x = torch.ones(2, requires_grad=True)
        seen.append(weakref.ref(x))
        b = x.exp()
        b += 1
        b.sum().backward()

    gc.collect()
    gc.disable()
    try:
        with pb.trace():
            error = raised(work)
        pb.diagnose(error)
        del error
        assert seen[0]() is None
    finally:
        gc.enable()


def test_a_tensor_is_its_own_leaf_when_it_was_only_told_to_require_a_gradient() -> None:
    w = torch.ones(2, requires_grad=True)
    loss = (w * 2).detach().sum()
    assert not is_own_leaf(loss)
    loss.requires_grad = True
    loss.backward()
    assert is_own_leaf(loss)
    assert w.grad is None
    assert not is_own_leaf((w * 2).sum())


def test_a_corpus_case_that_raises_nothing_is_noticed(tmp_path: Path) -> None:
    sound = Case("sound", "", "x = torch.ones(2)  # <- here", "", lambda n: n["x"])
    with pytest.raises(AssertionError, match="sound raises nothing"):
        failure(sound, tmp_path)


def test_a_corpus_case_without_a_mark_is_noticed() -> None:
    with pytest.raises(AssertionError, match="one line carries the mark"):
        Case("blank", "", "x = 1", "", lambda n: n["x"]).marked_line()


def test_every_code_is_in_the_corpus_or_tested_here() -> None:
    codes = {case.code for case in CASES} | {"unreduced_parameters"}
    assert len({case.name for case in CASES}) == len(CASES)
    folder = Path(modified.__file__).parent
    written = {
        code
        for path in folder.glob("*.py")
        for code in re.findall(r'^[A-Z_]+ = "([a-z]+_[a-z_]+)"$', path.read_text(), re.MULTILINE)
    }
    assert written == codes
