"""The structure of the SVG pictures."""

from xml.etree import ElementTree

import numpy as np
import pytest

from pullback.draw import Arrow, Box, Diagram, Heatmap, diagram_svg, heatmap_svg

HOSTILE = "<script>alert('x')</script> & \"quote\" \x1b\x00"
SHOWN = "<script>alert('x')</script> & \"quote\" ␛␀"


def parse(svg: str) -> ElementTree.Element:
    assert not any(word in svg for word in ("http", "src=", "href=", "url(", "<script"))
    root = ElementTree.fromstring(svg)
    assert (root.tag, root.get("role"), root[0].tag) == ("svg", "img", "title")
    return root


def of_class(root: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [e for e in root.iter() if name in (e.get("class") or "").split()]


def texts(elements: list[ElementTree.Element]) -> list[str]:
    return ["".join(e.itertext()) for e in elements]


def test_a_small_heatmap_writes_every_value_in_its_own_cell() -> None:
    root = parse(
        heatmap_svg(Heatmap("J", np.array([[1, 2.5, -3], [0, np.nan, np.inf]]), unit="mm"))
    )
    cells = of_class(root, "pb-cell")
    assert len(cells) == 6
    assert len({(c.get("x"), c.get("y")) for c in cells}) == 6
    assert texts(of_class(root, "pb-value")) == ["1", "2.5", "-3", "0", "nan", "inf"]
    assert texts(of_class(root, "pb-axis")) == ["column", "row"]
    assert texts(of_class(root, "pb-tick")) == ["0", "1", "2", "0", "1", "-3", "0", "3"]
    assert root[0].text == "J: 2 × 3, from -3 to 2.5 mm, 1 nan, 1 inf"


def test_strength_and_hue_say_value_and_sign() -> None:
    cells = of_class(parse(heatmap_svg(Heatmap("", np.array([[0, 1, -4, np.nan]])))), "pb-cell")
    zero, quarter, full, broken = cells
    assert [c.get("fill-opacity") for c in cells] == ["0", "0.25", "1", "0.12"]
    assert quarter.get("fill") != full.get("fill")
    assert "pb-broken" in broken.get("class", "")
    assert "pb-broken" not in zero.get("class", "")


def test_a_given_limit_sets_the_scale() -> None:
    root = parse(heatmap_svg(Heatmap("", np.array([[1.0]])), limit=4.0))
    assert of_class(root, "pb-cell")[0].get("fill-opacity") == "0.25"
    assert texts(of_class(root, "pb-tick"))[-3:] == ["-4", "0", "4"]


@pytest.mark.parametrize(("shape", "cells"), [((13, 13), 169), ((64, 64), 4096), ((65, 640), 2112)])
def test_a_large_heatmap_has_colors_only(shape: tuple[int, int], cells: int) -> None:
    root = parse(heatmap_svg(Heatmap("J", np.ones(shape))))
    assert len(of_class(root, "pb-cell")) == cells
    assert of_class(root, "pb-value") == []
    shrunk = "each cell stands for 2 × 10 entries and shows the one of largest modulus"
    assert (shrunk in texts(list(root))) == (shape == (65, 640))


def test_a_large_heatmap_crosses_out_what_is_not_finite() -> None:
    values = np.zeros((20, 20))
    values[3, 4] = np.nan
    root = parse(heatmap_svg(Heatmap("J", values)))
    assert len(of_class(root, "pb-broken")) == 1
    assert len(list(root.iter("path"))) == 1


@pytest.mark.parametrize("values", [np.zeros((0, 3)), np.zeros((20, 0)), np.array(7.0)])
def test_edge_shapes_are_drawn(values: np.ndarray) -> None:
    assert len(of_class(parse(heatmap_svg(Heatmap("J", values))), "pb-cell")) == values.size


def test_a_diagram_shows_every_box_once_and_every_arrow() -> None:
    boxes = (
        Box("o", ("loss", "()"), "output"),
        Box("n", ("sum",)),
        Box("w", ("w", "(4,)"), "leaf"),
        Box("x", ("unused",), "note"),
    )
    arrows = (Arrow("o", "n", "norm 1"), Arrow("n", "w"), Arrow("n", "w", "twice"), Arrow("o", "w"))
    root = parse(diagram_svg(Diagram("Graph", boxes, arrows)))
    drawn = of_class(root, "pb-box")
    assert [texts(e.findall("text")) for e in drawn] == [
        ["loss", "()"],
        ["sum"],
        ["w", "(4,)"],
        ["unused"],
    ]
    assert [e.get("class") for e in drawn] == [
        "pb-box pb-output",
        "pb-box pb-node",
        "pb-box pb-leaf",
        "pb-box pb-note",
    ]
    lines = [e[0].get("d") for e in of_class(root, "pb-arrow")]
    assert len(set(lines)) == 4
    assert texts(of_class(root, "pb-label")) == ["norm 1", "twice"]


def test_long_lines_are_cut_and_told_in_full_by_the_title() -> None:
    root = parse(diagram_svg(Diagram("", (Box("a", ("x" * 100,)),), ())))
    (box,) = of_class(root, "pb-box")
    assert box.findtext("text") == "x" * 43 + "…"
    assert box.findtext("title") == "x" * 100


def test_hostile_text_is_inert() -> None:
    root = parse(heatmap_svg(Heatmap(HOSTILE, np.zeros((1, 1)), HOSTILE, HOSTILE, HOSTILE)))
    assert texts(of_class(root, "pb-name") + of_class(root, "pb-axis")) == [SHOWN] * 3
    diagram = Diagram(HOSTILE, (Box("a", (HOSTILE,)), Box("b", ())), (Arrow("a", "b", HOSTILE),))
    root = parse(diagram_svg(diagram))
    assert root[0].text == SHOWN
    assert {e.tag for e in root.iter()} == {"svg", "title", "g", "rect", "path", "text"}


def test_an_empty_heatmap_is_no_wider_than_a_full_one() -> None:
    root = parse(heatmap_svg(Heatmap("J", np.zeros((0, 100_000)))))
    assert float(root.get("width", "inf")) < 1000
    assert texts(of_class(root, "pb-fact")) == ["0 × 100000, no entries"]
