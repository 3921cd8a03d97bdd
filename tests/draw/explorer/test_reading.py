"""Reading the page without a mouse, without sight, or with little of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from tests.draw.explorer.exercise import DEPOSIT, D, Exercise, Show, V, cells, shown
from tests.draw.explorer.test_page import contrast

import pullback as pb


def test_a_table_is_one_stop_of_the_tab_key(show: Show, tmp_path: Path) -> None:
    page = show(Exercise(tmp_path).path)
    for label in (V, DEPOSIT, "out (5, 4)"):
        table = page.get_by_role("grid", name=label, exact=True)
        assert table.locator("[tabindex='0'], button:not([tabindex='-1'])").count() == 1, label


def test_arrow_keys_reach_the_handles_of_the_rows(show: Show, tmp_path: Path) -> None:
    case = Exercise(tmp_path)
    page = show(case.path)
    page.get_by_role("grid", name=V).locator("td").first.focus()
    for key in ("ArrowLeft", "ArrowDown", "ArrowDown", "ArrowUp", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    v = case.v.clone()
    v[2] = 1
    assert cells(page, V) == shown(v)
    page.keyboard.press("ArrowRight")
    flat = page.evaluate("() => document.activeElement.dataset.flat")
    assert flat == str(2 * 4)


SPOKEN = """() => {
  window.spoken = [];
  const live = (e) => e.closest('[aria-live], output, [role=status], [role=alert]');
  new MutationObserver((all) => {
    for (const { target } of all) {
      const at = live(target.nodeType === 1 ? target : target.parentElement);
      if (at && at.getAttribute('aria-live') !== 'off') spoken.push(at.textContent);
    }
  }).observe(document.body, { subtree: true, childList: true, characterData: true });
}"""


def test_what_a_pointer_crosses_is_not_read_aloud(show: Show, tmp_path: Path) -> None:
    x = torch.ones(30, 30, requires_grad=True)
    out = (x * 2).t()
    record = pb.record(out, torch.ones(30, 30), inputs={"x": x})
    page = show(record.to_html(tmp_path / "page.html"))
    page.evaluate(SPOKEN)
    for name in (V, "out (30, 30)", "x.grad (30, 30)", "pattern of the Jacobian"):
        canvas = page.get_by_role("application", name=name)
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        page.mouse.move(box["x"] + 20, box["y"] + 20)
        page.mouse.move(box["x"] + 60, box["y"] + 20, steps=5)
    assert page.evaluate("spoken") == []
    page.get_by_role("application", name="out (30, 30)").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("spoken") == ["out[0, 1] = 2"]


def test_an_edit_says_once_what_v_asks_for(show: Show, tmp_path: Path) -> None:
    page = show(Exercise(tmp_path).path)
    page.get_by_text("row by row").click()
    page.evaluate(SPOKEN)
    page.get_by_role("button", name="all ones").click()
    page.get_by_role("button", name="all ones").click()
    page.wait_for_timeout(100)
    assert page.evaluate("spoken") == ["v is all ones: the gradient of out.sum()."]


def test_a_step_is_told_once_and_play_is_quiet_until_it_ends(show: Show, tmp_path: Path) -> None:
    page = show(Exercise(tmp_path).path)
    page.get_by_label("to the start").click()
    page.evaluate(SPOKEN)
    page.get_by_label("one node on").click()
    page.wait_for_timeout(100)
    assert page.evaluate("spoken") == ["1 of 4: TBackward0"]
    page.get_by_label("speed").select_option("fast")
    page.get_by_role("button", name="play").click()
    page.get_by_role("button", name="play").wait_for()
    page.wait_for_timeout(100)
    assert page.evaluate("spoken") == ["1 of 4: TBackward0", "4 of 4: inp"]


def hexed(color: str) -> str:
    """`rgb(...)` as the browser tells it."""
    parts = [float(x) for x in re.findall(r"[\d.]+", color)[:3]]
    return "#" + "".join(f"{round(x):02x}" for x in parts)


ENTRIES = """(cells) => cells.map((cell) => {
  const paper = getComputedStyle(cell).backgroundColor.match(/[\\d.]+/g).map(Number);
  const [r, g, b, a = 1] = getComputedStyle(cell).backgroundImage.match(/rgba?\\(([^)]*)\\)/)[1]
    .split(',').map(Number);
  const on = [r, g, b].map((part, k) => part * a + paper[k] * (1 - a));
  return [getComputedStyle(cell).color, `rgb(${on})`];
})"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_numbers_stand_out_from_the_colors_of_their_entries(
    show: Show, tmp_path: Path, scheme: str
) -> None:
    x = torch.linspace(-1, 1, 200, dtype=D).reshape(20, 10).requires_grad_()
    out = x * 1
    record = pb.record(out, torch.ones(20, 10, dtype=D), inputs={"x": x})
    page = show(record.to_html(tmp_path / "page.html"), color_scheme=scheme)
    table = page.get_by_role("grid", name="out (20, 10)")
    for text, ground in table.locator("td").evaluate_all(ENTRIES):
        assert contrast(hexed(text), hexed(ground)) >= 4.5, (text, ground)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_number_that_is_typed_stands_out(show: Show, tmp_path: Path, scheme: str) -> None:
    page = show(Exercise(tmp_path).path, color_scheme=scheme)
    page.get_by_role("grid", name=V).locator("td").first.focus()
    page.keyboard.press("Enter")
    text, ground = page.locator("td input").evaluate(
        "e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]"
    )
    assert contrast(hexed(text), hexed(ground)) >= 4.5


def test_marks_remain_where_the_reader_sets_the_colors(show: Show, tmp_path: Path) -> None:
    page = show(Exercise(tmp_path).path, forced_colors="active")
    page.get_by_role("grid", name="out (5, 4)", exact=True).locator("td").nth(9).hover()
    marked = page.get_by_role("grid", name=DEPOSIT).locator("td.pbx-touched")
    assert marked.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"


def test_a_name_does_not_turn_the_numbers_after_it(show: Show, tmp_path: Path) -> None:
    turn = "\u202eout\u2066"
    x = torch.ones(2, requires_grad=True)
    outputs = {turn: x * 12.5}
    record = pb.record(outputs, {turn: torch.ones(2)}, inputs={turn: x})
    path = record.to_html(tmp_path / "page.html")
    page = show(path)
    for text in (page.inner_text("body"), page.locator("noscript").text_content()):
        assert "\ufffdout\ufffd" in text
        assert not re.search("[\u202a-\u202e\u2066-\u2069]", text)


def test_a_pass_without_a_node_is_a_page(show: Show, tmp_path: Path) -> None:
    case = Exercise(tmp_path)
    record = pb.record(case.out, case.v)
    bare = pb.BackwardRecord(
        outputs=tuple(
            type(o)(o.name, o.shape, o.dtype, None, 0, o.cotangent, o.values)
            for o in record.outputs
        ),
        **dict.fromkeys(("seeds", "nodes", "leaves", "notes"), ()),
        deposits=type(record.deposits)({}),
        accumulate=False,
        retain_graph=True,
        keep="stats",
        torch_version=record.torch_version,
        tolerance=0.0,
    )
    page = show(bare.to_html(tmp_path / "bare.html"))
    assert page.get_by_text("No leaf was asked for or reached.").count() == 1
    page.get_by_role("application", name="backward graph").focus()
    for key in ("Home", "End", "ArrowDown", "0", "+"):
        page.keyboard.press(key)
    page.get_by_role("button", name="play").click()
