"""The page in a browser: edits of v against torch, to the last digit that is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.draw.explorer.exercise import DEPOSIT, D, Exercise, Show, V, cells, served, shown
from torch import Tensor, nn

import pullback as pb


def test_the_page_shows_what_was_recorded(show: Show, tmp_path: Path) -> None:
    case = Exercise(tmp_path)
    page = show(case.path)
    assert cells(page, V) == shown(case.v)
    assert cells(page, "out (5, 4)") == shown(case.out)
    assert cells(page, DEPOSIT) == case.grad(case.v)
    assert page.get_by_text("4 nodes ran, 1 deposit").count() == 1
    assert page.get_by_text("v weighs 4 of 20 entries; its weights sum to 4.").count() == 1


def test_a_typed_cell_changes_every_gradient_at_once(show: Show, tmp_path: Path) -> None:
    case = Exercise(tmp_path)
    page = show(case.path)
    v = case.v.clone()
    for flat, text in ((7, "0.3"), (0, "-2.5"), (19, "1e-3")):
        cell = page.get_by_role("grid", name=V).locator("td").nth(flat)
        cell.focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Control+a")
        page.keyboard.type(text)
        page.keyboard.press("Enter")
        v.view(-1)[flat] = float(text)
        assert cells(page, V) == shown(v)
        assert cells(page, DEPOSIT) == case.grad(v)


def test_escape_leaves_a_cell_as_it_was(show: Show, tmp_path: Path) -> None:
    case = Exercise(tmp_path)
    page = show(case.path)
    page.get_by_role("grid", name=V).locator("td").first.focus()
    page.keyboard.type("7")
    page.keyboard.press("Escape")
    assert cells(page, V) == shown(case.v)
    page.keyboard.type("x")
    assert cells(page, V) == shown(case.v)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("all ones", torch.ones(5, 4)),
        ("mean", torch.full((5, 4), 1 / 20)),
        ("first row", torch.eye(5)[0][:, None].expand(5, 4)),
        ("last row", torch.eye(5)[4][:, None].expand(5, 4)),
        ("one entry", torch.eye(5, 4)[0].expand(5, 4) * torch.eye(5)[0][:, None]),
        ("zeros", torch.zeros(5, 4)),
    ],
)
def test_presets(show: Show, tmp_path: Path, name: str, weights: Tensor) -> None:
    case = Exercise(tmp_path)
    page = show(case.path)
    page.get_by_role("button", name=name, exact=True).click()
    v = weights.to(D) if name != "mean" else torch.full((5, 4), 1 / 20, dtype=D)
    assert cells(page, V) == shown(v)
    assert cells(page, DEPOSIT) == case.grad(v)


def test_normalising_rows_undo_and_back_to_the_recorded(show: Show, tmp_path: Path) -> None:
    case = Exercise(tmp_path)
    page = show(case.path)
    page.get_by_label("weight of the brush", exact=True).fill("3")
    page.get_by_role("button", name="[2]", exact=True).click()
    v = case.v.clone()
    v[2] = 3
    assert cells(page, DEPOSIT) == case.grad(v)
    for name, size in (("sum to 1", v.sum()), ("length 1", v.norm()), ("largest 1", v.abs().max())):
        page.get_by_role("button", name=name).click()
        assert cells(page, DEPOSIT) == case.grad(v / size)
        page.get_by_role("button", name="undo").click()
        assert cells(page, DEPOSIT) == case.grad(v)
    page.get_by_role("button", name="as recorded").click()
    assert cells(page, V) == shown(case.v)
    assert cells(page, DEPOSIT) == case.grad(case.v)


def test_a_brush_paints_over_cells(show: Show, tmp_path: Path) -> None:
    case = Exercise(tmp_path)
    page = show(case.path)
    page.get_by_label("weight of the brush", exact=True).fill("-1.5")
    table = page.get_by_role("grid", name=V).locator("td")
    table.nth(9).hover()
    page.mouse.down()
    table.nth(10).hover()
    table.nth(14).hover()
    page.mouse.up()
    table.nth(18).hover()
    v = case.v.clone()
    v.view(-1)[[9, 10, 14]] = -1.5
    assert cells(page, V) == shown(v)
    assert cells(page, DEPOSIT) == case.grad(v)
    page.get_by_role("button", name="undo").click()
    assert cells(page, V) == shown(case.v)


def test_a_row_follows_its_slider(show: Show, tmp_path: Path) -> None:
    case = Exercise(tmp_path)
    page = show(case.path)
    page.get_by_text("row by row").click()
    page.get_by_label("weight of row [3]").fill("0.7")
    v = case.v.clone()
    v[3] = 0.7
    assert cells(page, DEPOSIT) == case.grad(v)


def test_keys_walk_the_table_and_space_paints(show: Show, tmp_path: Path) -> None:
    case = Exercise(tmp_path)
    page = show(case.path)
    page.get_by_role("grid", name=V).locator("td").first.focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "End", "Space"):
        page.keyboard.press(key)
    v = case.v.clone()
    v[1, 3] = 1
    assert cells(page, V) == shown(v)


def test_pointing_at_an_output_marks_the_inputs_it_depends_on(show: Show, tmp_path: Path) -> None:
    case = Exercise(tmp_path)
    page = show(case.path)

    def marked(label: str) -> list[int]:
        table = page.get_by_role("grid", name=label, exact=True)
        places = table.locator("td.pbx-touched").evaluate_all(
            "all => all.map(c => +c.dataset.flat)"
        )
        return sorted(places)

    page.get_by_role("grid", name="out (5, 4)", exact=True).locator("td").nth(2 * 4 + 1).hover()
    assert marked(DEPOSIT) == [1 * 5 + 2]
    page.get_by_role("grid", name=DEPOSIT, exact=True).locator("td").nth(3 * 5 + 4).hover()
    assert marked("out (5, 4)") == [4 * 4 + 3]
    pattern = page.get_by_role("application", name="pattern of the Jacobian")
    pattern.focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    assert (
        page.get_by_text("out[0, 1] may depend on inp[1, 0]; it comes from product 1").count() == 1
    )
    page.keyboard.press("ArrowRight")
    assert page.get_by_text("out[0, 1] does not depend on inp[1, 1]").count() == 1


def test_a_picked_node_tells_what_it_received_and_sent(show: Show, tmp_path: Path) -> None:
    case = Exercise(tmp_path)
    page = show(case.path)
    page.locator(".pbx-box", has_text="PowBackward0").click()
    panel = page.get_by_role("complementary", name="the node that is picked")
    text = panel.inner_text()
    assert "(inp + 10).pow(3)" in text
    assert "exercise.py:" in text
    assert "pow_backward(grad, self, exponent)" in text
    page.get_by_role("button", name="all ones").click()
    received, sent = (
        panel.get_by_role("grid").nth(k).locator("td").all_inner_texts() for k in (0, 1)
    )
    assert received == shown(torch.ones(4, 5))
    assert sent == case.grad(torch.ones(5, 4))
    panel.get_by_role("button", name="AddBackward0").click()
    assert panel.get_by_role("heading", level=3).inner_text() == "AddBackward0"


def test_the_graph_is_walked_with_keys(show: Show, tmp_path: Path) -> None:
    page = show(Exercise(tmp_path).path)
    graph = page.get_by_role("application", name="backward graph")
    graph.focus()
    heading = page.get_by_role("complementary").get_by_role("heading", level=3)
    names = []
    for key in ("Home", "ArrowDown", "ArrowDown", "ArrowDown", "ArrowUp"):
        page.keyboard.press(key)
        names.append(heading.inner_text())
    assert names == ["TBackward0", "PowBackward0", "AddBackward0", "inp (leaf)", "AddBackward0"]
    for key in ("+", "-", "0"):
        page.keyboard.press(key)


def test_the_pass_can_be_stepped_and_scrubbed(show: Show, tmp_path: Path) -> None:
    case = Exercise(tmp_path)
    page = show(case.path)
    page.get_by_label("to the start").click()
    assert page.locator(".pbx-waiting").count() == 4
    assert cells(page, DEPOSIT) == ["0"] * 20
    page.get_by_label("one node on").click()
    assert page.locator(".pbx-waiting").count() == 3
    assert page.get_by_text("1 of 4: TBackward0").count() == 1
    page.get_by_label("how many nodes have run").fill("3")
    assert page.locator(".pbx-waiting").count() == 1
    assert page.get_by_text("its node has not run yet").count() == 1
    page.get_by_label("speed").select_option("fast")
    page.get_by_role("button", name="play").click()
    page.get_by_text("4 of 4: inp").wait_for()
    assert cells(page, DEPOSIT) == case.grad(case.v)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(x).tanh()


def test_nodes_are_put_together_by_module_and_opened(show: Show, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Block(3), Block(3))
    with pb.trace():
        out = model(torch.randn(2, 3))
    page = show(pb.record(out, torch.ones(2, 3), inputs=model).to_html(tmp_path / "page.html"))
    every = page.locator(".pbx-box").count()
    page.get_by_label("put nodes together").select_option("module")
    group = page.locator(".pbx-box-group", has_text="1.up")
    group.wait_for()
    fewer = page.locator(".pbx-box").count()
    assert fewer < every
    group.dblclick()
    group.wait_for(state="detached")
    assert page.locator(".pbx-box").count() > fewer
    page.get_by_label("find a node, a line or a leaf").fill("0.up.weight")
    page.keyboard.press("Enter")
    heading = page.get_by_role("complementary").get_by_role("heading", level=3)
    assert heading.inner_text() == "0.up.weight (leaf)"


def test_chosen_cotangents_are_weighed_by_sliders(show: Show, tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 4, dtype=D, requires_grad=True)
    out = (x @ torch.randn(4, 5000, dtype=D)).sin()
    v = torch.ones(3, 5000, dtype=D)
    record = pb.record(out, v, inputs={"x": x})
    page = show(record.to_html(tmp_path / "page.html", budget=700_000))
    page.get_by_label("weight of out[1]").fill("-0.5")
    v[1] *= -0.5
    (wanted,) = torch.autograd.grad(out, x, v)
    assert cells(page, "x.grad (3, 4)") == shown(wanted)


def test_a_page_that_cannot_follow_says_why(show: Show, tmp_path: Path) -> None:
    page = show(Exercise(tmp_path, editable=False).path)
    note = "v stands as it was recorded: the page was written with editable=False."
    assert page.get_by_text(note).count() == 1
    assert page.get_by_role("button", name="all ones").count() == 0


def test_a_live_page_asks_torch_for_what_it_does_not_hold(show: Show, tmp_path: Path) -> None:
    x = torch.randn(3, 4, dtype=D, requires_grad=True)
    out = x.sin() * x
    record = pb.record(out, torch.ones(3, 4, dtype=D), inputs={"x": x})
    with served(record, editable=False) as server:
        page = show(server.url)
        page.get_by_label("weight of the brush", exact=True).fill("2")
        page.get_by_role("button", name="[1]", exact=True).click()
        v = torch.ones(3, 4, dtype=D)
        v[1] = 2
        (wanted,) = torch.autograd.grad(out, x, v, retain_graph=True)
        page.get_by_role("grid", name="x.grad (3, 4)").get_by_text(shown(wanted)[5]).wait_for()
        assert cells(page, "x.grad (3, 4)") == shown(wanted)
        out.sum().backward()
        page.get_by_role("button", name="[0]", exact=True).click()
        page.get_by_text("No answer for this v").wait_for()
        trouble = page.get_by_role("alert").inner_text()
        assert trouble.endswith(
            "the graph was freed: record with retain_graph=True, or write the page before backward."
        )
        page.get_by_role("button", name="as recorded").click()
        assert page.get_by_role("alert").inner_text() == ""


def test_nothing_moves_when_v_is_edited_or_a_node_is_picked(show: Show, tmp_path: Path) -> None:
    page = show(Exercise(tmp_path).path)
    places = """() => [...document.querySelectorAll('section, .pbx-heatmap, .pbx-scroll td, .pbx-graph-canvas')]
      .filter((e) => !e.closest('.pbx-node'))
      .map((e) => { const b = e.getBoundingClientRect(); return [b.x, b.y + scrollY, b.height, b.width].map(Math.round); })"""
    before = page.evaluate(places)
    page.get_by_role("grid", name=V).locator("td").nth(9).focus()
    page.keyboard.press("Enter")
    assert page.evaluate(places) == before
    page.keyboard.press("Escape")
    page.get_by_role("button", name="mean", exact=True).click()
    page.get_by_role("button", name="first row", exact=True).click()
    page.get_by_role("application", name="backward graph").focus()
    page.keyboard.press("Home")
    page.get_by_label("one node back").click()
    assert page.evaluate(places) == before


@pytest.mark.parametrize("width", [320, 640, 1280])
def test_nothing_is_wider_than_the_window(show: Show, tmp_path: Path, width: int) -> None:
    """320 px are 1,280 at 400 % zoom."""
    page = show(Exercise(tmp_path).path, viewport={"width": width, "height": 800})
    wide = page.evaluate("() => document.documentElement.scrollWidth")
    assert wide <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(show: Show, tmp_path: Path, scheme: str) -> None:
    """At least 4.5 to 1, as WCAG 2.2 asks for text (1.4.3)."""
    page = show(Exercise(tmp_path).path, color_scheme=scheme)
    styles = page.evaluate("""() => {
      const root = getComputedStyle(document.querySelector('.pbx'));
      return Object.fromEntries(['--paper', '--raised', '--ink', '--soft', '--link'].map(n => [n, root.getPropertyValue(n).trim()]));
    }""")
    for text in ("--ink", "--soft", "--link"):
        for ground in ("--paper", "--raised"):
            assert contrast(styles[text], styles[ground]) >= 4.5, (text, ground)


def contrast(first: str, second: str) -> float:
    """The WCAG ratio of two colors in hex."""
    lights = sorted((luminance(first), luminance(second)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(color: str) -> float:
    parts = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_contrast_of_black_on_white() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


def test_the_theme_can_be_chosen(show: Show, tmp_path: Path) -> None:
    page = show(Exercise(tmp_path).path)
    ground = "() => getComputedStyle(document.querySelector('.pbx')).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="theme: auto").click()
    page.get_by_role("button", name="theme: light").click()
    assert page.get_by_role("button", name="theme: dark").count() == 1
    assert page.evaluate(ground) != light


def test_a_frame_of_a_notebook_holds_the_page(show: Show, tmp_path: Path) -> None:
    case = Exercise(tmp_path)
    (tmp_path / "cell.html").write_text(
        f"<h1 class='pbx'></h1><div class='pbx'><h1>cell</h1></div>{case.record._repr_html_()}",
        encoding="utf-8",
    )
    page = show(tmp_path / "cell.html")
    frame = page.frame_locator("iframe")
    frame.get_by_role("button", name="all ones").click()
    table = frame.get_by_role("grid", name=DEPOSIT, exact=True).locator("td")
    assert table.all_inner_texts() == case.grad(torch.ones(5, 4))


def test_two_thousand_nodes_draw_only_what_is_in_view(show: Show, tmp_path: Path) -> None:
    x = torch.ones(3, requires_grad=True)
    out = x
    with pb.trace():
        for _ in range(1000):
            out = (out * 1.001).sin()
    page = show(pb.record(out, torch.ones(3), inputs={"x": x}).to_html(tmp_path / "page.html"))
    assert page.get_by_text("2,001 nodes ran").count() == 1
    assert 0 < page.locator(".pbx-box").count() < 60
    page.get_by_label("how many nodes have run").fill("1500")
    assert 0 < page.locator(".pbx-box").count() < 60
    page.get_by_role("button", name="zeros").click()
    assert cells(page, "x.grad (3,)") == ["0", "0", "0"]


def test_it_prints_on_paper(show: Show, tmp_path: Path) -> None:
    page = show(Exercise(tmp_path).path)
    assert len(page.pdf()) > 10_000
    page.emulate_media(media="print")
    assert page.get_by_role("button", name="all ones").count() == 0
    assert page.get_by_role("grid", name=DEPOSIT).is_visible()
