"""What the reader does to v, and when: typed numbers, pulls, strokes, undo, answers that are late."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.draw.explorer.exercise import (
    DEPOSIT,
    D,
    Exercise,
    Show,
    V,
    cells,
    served,
    shown,
    type_into,
)
from torch import Tensor

import pullback as pb


@pytest.mark.parametrize("text", ["12", "-2.5", ".25", "1e-3", "+7"])
def test_a_number_is_typed_from_left_to_right(show: Show, tmp_path: Path, text: str) -> None:
    case = Exercise(tmp_path)
    page = show(case.path)
    type_into(page, 5, text)
    v = case.v.clone()
    v.view(-1)[5] = float(text)
    assert cells(page, V) == shown(v)
    assert cells(page, DEPOSIT) == case.grad(v)


def test_a_cell_that_is_opened_and_left_is_not_rounded(show: Show, tmp_path: Path) -> None:
    x = torch.ones(2, 2, dtype=D, requires_grad=True)
    out = x * 1e4
    v = torch.full((2, 2), 0.123456789, dtype=D)
    page = show(pb.record(out, v, inputs={"x": x}).to_html(tmp_path / "page.html"))
    page.get_by_role("grid", name=V).locator("td").first.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert page.get_by_role("button", name="undo").is_disabled()


def test_a_typed_number_is_taken_when_another_cell_is_clicked(show: Show, tmp_path: Path) -> None:
    case = Exercise(tmp_path)
    page = show(case.path)
    table = page.get_by_role("grid", name=V).locator("td")
    table.nth(4).focus()
    page.keyboard.type("35")
    table.nth(9).click()
    v = case.v.clone()
    v.view(-1)[[4, 9]] = torch.tensor([35.0, 1.0], dtype=D)
    assert cells(page, V) == shown(v)
    assert table.nth(9).evaluate("cell => cell === document.activeElement")


@pytest.mark.parametrize("text", ["1,5", "1e999", "-", "0x"])
def test_what_is_no_number_is_told(show: Show, tmp_path: Path, text: str) -> None:
    case = Exercise(tmp_path)
    page = show(case.path)
    type_into(page, 4, text)
    assert page.get_by_text(f'"{text}" is no finite number: v[1, 0] stays').count() == 1
    assert cells(page, V) == shown(case.v)
    assert page.get_by_role("button", name="undo").is_disabled()


def test_numbers_that_leave_the_range_are_counted(show: Show, tmp_path: Path) -> None:
    x = torch.ones(3, dtype=D, requires_grad=True)
    out = x * 100
    page = show(
        pb.record(out, torch.ones(3, dtype=D), inputs={"x": x}).to_html(tmp_path / "p.html")
    )
    facts = page.locator(".pbx-leaf .pbx-facts")
    type_into(page, 0, "1e308")
    assert cells(page, "x.grad (3,)") == ["inf", "100", "100"]
    assert facts.inner_text() == "norm inf, from 100 to inf, sum inf; 1 entry not finite"
    type_into(page, 1, "-1e308")
    assert facts.inner_text() == "norm inf, from -inf to inf, sum nan; 2 entries not finite"


def test_a_recorded_infinity_is_shown_as_one(show: Show, tmp_path: Path) -> None:
    x = torch.tensor([0.0, 1.0, 4.0], requires_grad=True)
    out = x.sqrt()
    page = show(pb.record(out, torch.ones(3), inputs={"x": x}).to_html(tmp_path / "page.html"))
    facts = page.locator(".pbx-leaf .pbx-facts")
    assert facts.inner_text() == "norm inf, from 0.25 to inf, sum inf; 1 entry not finite"


def test_back_to_the_recorded_is_told_where_not_everything_follows(
    show: Show, tmp_path: Path
) -> None:
    """With the deposits alone a box says that its number is the recorded one, while it is; a
    leaf's box follows, as its deposit does."""
    x = torch.randn(80, 80, requires_grad=True)
    out = x.tanh() * x
    record = pb.record(out, torch.ones(80, 80), inputs={"x": x})
    page = show(record.to_html(tmp_path / "page.html"))
    told = page.locator(".pbx-box text.pbx-soft")
    before = told.all_text_contents()
    for back in ("as recorded", "undo"):
        page.get_by_role("button", name="zeros").click()
        assert [text[:12] for text in told.all_text_contents()] == [
            *["as recorded:"] * (len(before) - 1),
            "(80, 80) nor",
        ]
        page.get_by_role("button", name=back).click()
        assert told.all_text_contents() == before


def test_a_pull_of_a_slider_is_one_step_of_undo(show: Show, tmp_path: Path) -> None:
    case = Exercise(tmp_path)
    page = show(case.path)
    page.get_by_text("row by row").click()
    slider = page.get_by_label("weight of row [3]")
    box = slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    for share in (0.6, 0.7, 0.8, 0.9):
        page.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
    page.mouse.up()
    assert cells(page, V) != shown(case.v)
    page.get_by_role("button", name="undo").click()
    assert cells(page, V) == shown(case.v)
    assert page.get_by_role("button", name="undo").is_disabled()


def test_nothing_is_divided_by_a_sum_of_zero(show: Show, tmp_path: Path) -> None:
    case = Exercise(tmp_path)
    page = show(case.path)
    sum_to_1 = page.get_by_role("button", name="sum to 1")
    assert sum_to_1.is_enabled()
    for flat, text in enumerate(("0.1", "0.2", "-0.3", "0")):
        type_into(page, flat, text)
    assert sum_to_1.is_disabled()
    assert page.get_by_role("button", name="length 1").is_enabled()


def test_a_stroke_on_a_canvas_begins_on_it(show: Show, tmp_path: Path) -> None:
    x = torch.ones(30, 30, requires_grad=True)
    out = x * 2
    record = pb.record(out, torch.zeros(30, 30), inputs={"x": x})
    page = show(record.to_html(tmp_path / "page.html"))
    canvas = page.get_by_role("application", name=V)
    box = canvas.bounding_box()
    page.mouse.move(box["x"] - 20, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.up()
    assert page.get_by_role("button", name="undo").is_disabled()
    page.mouse.down()
    page.mouse.move(box["x"] + 40, box["y"] + 5, steps=8)
    page.mouse.up()
    told = page.get_by_text("v weighs").first.inner_text()
    assert told == "v weighs 5 of 900 entries; its weights sum to 5."
    page.get_by_role("button", name="undo").click()
    assert page.get_by_text("v is all zeros: every gradient is 0.").count() == 1


def test_a_number_alone_is_named(show: Show, tmp_path: Path) -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    loss = x.square().sum()
    page = show(pb.record(loss, inputs={"x": x}).to_html(tmp_path / "page.html"))
    assert page.get_by_text("v is 1: the gradient of loss itself.").count() == 1
    type_into(page, 0, "-3", label="the cotangent of loss")
    assert page.get_by_text("v is -3: -3 times the gradient of loss itself.").count() == 1
    assert cells(page, "x.grad (2,)") == ["-6", "-12"]


def test_several_outputs_of_many_shapes_are_weighed_together(show: Show, tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, dtype=D, requires_grad=True)
    unused = torch.ones(2, dtype=D, requires_grad=True)
    outputs = {"a": x.sin().sum(), "b": (x @ x.t()).reshape(2, 1, 2), "c": x[:, :0]}
    v = {name: torch.randn(tuple(out.shape), dtype=D) for name, out in outputs.items()}
    record = pb.record(outputs, v, inputs={"x": x, "again": x, "unused": unused})
    page = show(record.to_html(tmp_path / "page.html"))
    type_into(page, 0, "-0.5", label="the cotangent of a")
    type_into(page, 3, "12", label="the cotangent of b")
    v["a"] = torch.tensor(-0.5, dtype=D)
    v["b"].view(-1)[3] = 12
    (wanted,) = torch.autograd.grad(list(outputs.values()), x, list(v.values()))
    assert cells(page, "x.grad (2, 3)") == cells(page, "again.grad (2, 3)") == shown(wanted)
    assert page.get_by_text("not reached: no deposit, its .grad stays as it is").count() == 1


class Late:
    """A server's answers, held back until they are let go; the first of them can fail."""

    def __init__(self, server: Any, *, fails: bool = False) -> None:
        self.let_go, self.asked, self.fails = threading.Event(), threading.Event(), fails
        self.application = server._http.app
        self.answer_now = self.application.answer
        self.application.answer = self

    def __call__(self, body: bytes) -> Any:
        first = not self.asked.is_set()
        self.asked.set()
        assert self.let_go.wait(20)
        return (400, {"error": "once"}) if first and self.fails else self.answer_now(body)


def case_with_torch(**options: Any) -> tuple[Tensor, Tensor, Any]:
    torch.manual_seed(0)
    x = torch.randn(2, 3, dtype=D, requires_grad=True)
    out = x.sin() * 2
    record = pb.record(out, torch.ones(2, 3, dtype=D), inputs={"x": x})
    return x, out, served(record, **options)


def test_a_late_answer_does_not_close_the_cell_that_is_typed_into(show: Show) -> None:
    x, out, serving = case_with_torch(editable=False)
    with serving as server:
        late = Late(server)
        page = show(server.url)
        type_into(page, 0, "2")
        page.get_by_role("grid", name=V).locator("td").nth(1).focus()
        page.keyboard.type("3")
        assert late.asked.wait(20)
        late.let_go.set()
        page.locator(".pbx-leaf .pbx-dim").wait_for(state="detached")
        page.keyboard.type("4")
        page.keyboard.press("Enter")
        v = torch.ones(2, 3, dtype=D)
        v[0, :2] = torch.tensor([2.0, 34.0], dtype=D)
        assert cells(page, V) == shown(v)
        (wanted,) = torch.autograd.grad(out, x, v, retain_graph=True)
        page.locator(".pbx-leaf .pbx-dim").wait_for(state="detached")
        assert cells(page, "x.grad (2, 3)") == shown(wanted)


def test_a_refused_question_does_not_keep_the_next_from_being_asked(show: Show) -> None:
    x, out, serving = case_with_torch(editable=False)
    with serving as server:
        late = Late(server, fails=True)
        page = show(server.url)
        type_into(page, 0, "2")
        assert late.asked.wait(20)
        type_into(page, 1, "5")
        late.let_go.set()
        page.locator(".pbx-leaf .pbx-dim").wait_for(state="detached")
        v = torch.ones(2, 3, dtype=D)
        v[0, :2] = torch.tensor([2.0, 5.0], dtype=D)
        (wanted,) = torch.autograd.grad(out, x, v, retain_graph=True)
        assert cells(page, "x.grad (2, 3)") == shown(wanted)
        assert page.get_by_role("alert").inner_text() == ""


def test_with_torch_behind_it_a_page_of_few_cotangents_follows_any_v(show: Show) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 4, dtype=D, requires_grad=True)
    out = (x @ torch.randn(4, 5000, dtype=D)).sin()
    record = pb.record(out, torch.ones(3, 5000, dtype=D), inputs={"x": x})
    with served(record, budget=700_000) as server:
        page = show(server.url)
        assert page.get_by_text("torch computes what the page does not hold").count() == 1
        page.get_by_role("button", name="first row").click()
        v = torch.zeros(3, 5000, dtype=D)
        v[0] = 1
        (wanted,) = torch.autograd.grad(out, x, v, retain_graph=True)
        page.locator(".pbx-leaf .pbx-dim").wait_for(state="detached")
        assert cells(page, "x.grad (3, 4)") == shown(wanted)


def test_a_complex_v_is_not_edited_as_if_it_were_real(show: Show) -> None:
    x = torch.ones(3, dtype=torch.complex64, requires_grad=True)
    out = x * x
    with served(pb.record(out, torch.full((3,), 1 + 1j), inputs={"x": x})) as server:
        page = show(server.url)
        assert page.get_by_text("linear over the reals only").count() == 1
        assert page.get_by_role("button", name="zeros").count() == 0
