"""Lines of a program, rewritten as a fix proposes."""

from __future__ import annotations

import linecache
from pathlib import Path

import pytest

from pullback.backward.errors import source
from pullback.backward.events import UserCall


def call(tmp_path: Path, line: str, code: str = "") -> UserCall:
    path = tmp_path / "program.py"
    path.write_text(f"import torch\n{line}\n")
    linecache.checkcache(str(path))
    return UserCall("", str(path), 2, code or line)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("b += 1", "b = b + 1"),
        ("self.h *= w @ v", "self.h = self.h * (w @ v)"),
        ("b.add_(1, alpha=2)", "b = b.add(1, alpha=2)"),
        ("b.zero_()", "b = torch.zeros_like(b)"),
        ("b.fill_(3)", "b = torch.full_like(b, 3)"),
        ("b.copy_(c)", "b = c.clone()"),
        ("torch.add(a, 1, out=b)", "b = torch.add(a, 1)"),
        ("y = F.relu(b, inplace=True)", "y = F.relu(b)"),
        ("b.uniform_()", ""),
        ("b[0] = 1", ""),
        ("b[0] += 1", ""),
        ("update(b)", ""),
    ],
)
def test_a_write_becomes_a_new_tensor(tmp_path: Path, line: str, expected: str) -> None:
    assert source.out_of_place(call(tmp_path, line)) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("b += 1", "b"),
        ("b[0, 1:] = 1", "b"),
        ("self.h[0] += 1", "self.h"),
        ("b.mul_(2)", "b"),
        ("torch.relu_(b)", "b"),
        ("F.relu(b, inplace=True)", "b"),
        ("torch.add(a, 1, out=b)", "b"),
        ("rows()[0] = 1", ""),
        ("b = a + 1", ""),
    ],
)
def test_the_written_name_is_read_from_the_line(tmp_path: Path, line: str, expected: str) -> None:
    assert source.written_name(call(tmp_path, line)) == expected


@pytest.mark.parametrize(
    ("line", "code", "operand", "expected"),
    [
        ("y = a * b + c", "a * b", "self", "y = a.clone() * b + c"),
        ("y = a * b + c", "a * b", "other", "y = a * b.clone() + c"),
        ("y = (a + 1) @ w", "(a + 1) @ w", "self", "y = (a + 1).clone() @ w"),
        ("y = a.mm(w)", "a.mm(w)", "mat2", "y = a.mm(w.clone())"),
        ("y = torch.sin(a)", "torch.sin(a)", "self", "y = torch.sin(a.clone())"),
        ("y = x[rows]", "x[rows]", "indices", "y = x[rows.clone()]"),
        ("y = f()", "f()", "self", ""),
    ],
)
def test_an_operand_is_cloned_where_it_is_saved(
    tmp_path: Path, line: str, code: str, operand: str, expected: str
) -> None:
    assert source.with_cloned_operand(call(tmp_path, line, code), operand) == expected


@pytest.mark.parametrize(
    ("line", "code", "operand", "expected"),
    [
        ("b *= w", "b *= w", "self", "b.copy_(b.clone() * w)"),
        ("b *= w", "b *= w", "other", "b.copy_(b * w.clone())"),
        ("b.mul_(w)", "b.mul_(w)", "self", "b.copy_(b.clone().mul(w))"),
        ("b.exp_()", "b.exp_()", "result", "b.copy_(b.exp())"),
        ("b[1:] *= w", "b[1:]", "self", "b[1:] = b[1:].clone() * w"),
        ("b[0] = b[1] * w", "b[1] * w", "self", "b[0] = b[1].clone() * w"),
    ],
)
def test_a_write_that_saves_something_itself_computes_on_copies(
    tmp_path: Path, line: str, code: str, operand: str, expected: str
) -> None:
    assert source.through_a_copy(call(tmp_path, line, code), operand) == expected


def test_a_result_is_cloned_where_it_is_made(tmp_path: Path) -> None:
    made = call(tmp_path, "y = 2 * x.exp()", "x.exp()")
    assert source.with_cloned_result(made) == "y = 2 * x.exp().clone()"
    assert source.with_cloned_result(call(tmp_path, "y = a * b", "a * b")) == "y = (a * b).clone()"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("torch.randn(3, requires_grad=True) * 0.01", "(torch.randn(3) * 0.01).requires_grad_()"),
        ("torch.ones(2, requires_grad=True).cuda()", "torch.ones(2).cuda().requires_grad_()"),
        ("torch.ones(2).requires_grad_() * 2", ""),
        ("w * 2", ""),
    ],
)
def test_the_leaf_is_made_last(code: str, expected: str) -> None:
    assert source.leaf_made_last(code) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("h = (a * b).detach()", "h = a * b"),
        ("h = f(a.data, b.detach_())", "h = f(a, b)"),
        ("h = a * b", ""),
    ],
)
def test_what_takes_the_graph_away_is_left_out(tmp_path: Path, line: str, expected: str) -> None:
    assert source.without_cut(call(tmp_path, line)) == expected


def test_of_several_statements_on_a_line_the_one_with_the_call_counts(tmp_path: Path) -> None:
    assert source.line_of(call(tmp_path, "a = 1; b = f(a); c = 2", "f(a)")) == "b = f(a)"


def test_writes_are_looked_for_in_the_function_of_the_call(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text("b += 1\ndef f(b):\n    b += 2\n    b[0] = 3\n    g(b)\nb.mul_(4)\n")
    inside = UserCall("", str(path), 5, "g(b)")
    outside = UserCall("", str(path), 6, "b.mul_(4)")
    assert [c.line for c in source.writes_to("b", inside)] == [3, 4]
    assert [c.line for c in source.writes_to("b", outside)] == [1, 6]


def test_without_source_nothing_is_made_up() -> None:
    typed = UserCall("exp", "<stdin>", 1, "")
    assert source.line_of(typed) == ""
    assert source.out_of_place(typed) == ""
    assert source.with_cloned_result(typed) == ""
    assert source.writes_to("b", typed) == []
