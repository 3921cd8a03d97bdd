"""Laws that every layout keeps."""

import random
import time
from itertools import combinations, pairwise

import pytest

from pullback.draw import Arrow, Box, Diagram, Layout, place


def diagram(size: int, edges: list[tuple[int, int]], label: str = "") -> Diagram:
    boxes = tuple(Box(str(i), (f"node {i}", "(5, 4)")[: 1 + i % 2]) for i in range(size))
    return Diagram("", boxes, tuple(Arrow(str(a), str(b), label) for a, b in edges))


def random_edges(size: int, extra: int, seed: int) -> list[tuple[int, int]]:
    rng = random.Random(seed)
    tree = [(rng.randrange(max(0, i - 9), i), i) for i in range(1, size)]
    more = [sorted(rng.sample(range(size), 2)) for _ in range(extra)]
    return tree + [(a, b) for a, b in more]


DIAGRAMS = {
    "nothing": diagram(0, []),
    "one box": diagram(1, []),
    "chain with skips": diagram(6, [(i, i + 1) for i in range(5)] + [(0, 5), (1, 4)], "norm 1"),
    "double arrow": diagram(2, [(0, 1), (0, 1)], "twice"),
    "double long arrow": diagram(4, [(0, 1), (1, 2), (2, 3), (0, 3), (0, 3)]),
    "pieces": diagram(9, [(0, 1), (2, 3), (3, 4), (6, 5)], "a label of some length"),
    "fan": diagram(40, [(0, i) for i in range(1, 40)], "norm 1.25"),
    "random": diagram(120, random_edges(120, 60, seed=1), "(5, 4)"),
}
every_diagram = pytest.mark.parametrize("given", DIAGRAMS.values(), ids=DIAGRAMS.keys())


def boxes_overlap(placed: Layout) -> bool:
    return any(
        a.x < b.x + b.w and b.x < a.x + a.w and a.y < b.y + b.h and b.y < a.y + a.h
        for a, b in combinations(placed.boxes, 2)
    )


@every_diagram
def test_no_two_boxes_overlap(given: Diagram) -> None:
    assert not boxes_overlap(place(given))


def test_the_overlap_test_can_fail() -> None:
    placed = place(diagram(1, []))
    assert boxes_overlap(Layout(0, 0, placed.boxes * 2, ()))


@every_diagram
def test_every_arrow_goes_down_from_its_source_to_its_target(given: Diagram) -> None:
    placed = place(given)
    at = {p.box.key: p for p in placed.boxes}
    assert [p.arrow for p in placed.arrows] == list(given.arrows)
    for arrow in placed.arrows:
        source, target = at[arrow.arrow.source], at[arrow.arrow.target]
        assert source.layer < target.layer
        assert all(above[1] < below[1] for above, below in pairwise(arrow.knots))
        (x0, y0), (x1, y1) = arrow.knots[0], arrow.knots[-1]
        assert y0 == pytest.approx(source.y + source.h)
        assert y1 == pytest.approx(target.y)
        assert source.x < x0 < source.x + source.w
        assert target.x < x1 < target.x + target.w


@every_diagram
def test_every_layer_is_the_longest_path_to_it(given: Diagram) -> None:
    layer = {p.box.key: p.layer for p in place(given).boxes}
    for box in given.boxes:
        above = [layer[a.source] for a in given.arrows if a.target == box.key]
        assert layer[box.key] == max(above, default=-1) + 1


@every_diagram
def test_everything_lies_inside_the_picture(given: Diagram) -> None:
    placed = place(given)
    assert all(p.x >= 0 and p.x + p.w <= placed.width for p in placed.boxes)
    assert all(p.y >= 0 and p.y + p.h <= placed.height for p in placed.boxes)
    assert all(0 <= x <= placed.width for arrow in placed.arrows for x, _ in arrow.knots)


@every_diagram
def test_a_layout_is_deterministic(given: Diagram) -> None:
    assert place(given) == place(given)


@every_diagram
def test_no_two_arrows_share_a_path_and_no_two_labels_a_place(given: Diagram) -> None:
    arrows = place(given).arrows
    assert len({arrow.knots for arrow in arrows}) == len(arrows)
    labels = [arrow.label_at for arrow in arrows if arrow.label_at is not None]
    assert len(labels) == sum(bool(arrow.label) for arrow in given.arrows)
    assert len(set(labels)) == len(labels)


def test_a_chain_runs_straight_down() -> None:
    placed = place(diagram(5, [(i, i + 1) for i in range(4)]))
    assert len({round(p.x + p.w / 2, 6) for p in placed.boxes}) == 1


def test_a_tree_has_no_crossing() -> None:
    placed = place(diagram(7, [(0, 1), (0, 2), (1, 5), (1, 6), (2, 3), (2, 4)]))
    center = {p.box.key: p.x + p.w / 2 for p in placed.boxes}
    assert (center["1"] < center["2"]) == (
        max(center["5"], center["6"]) < min(center["3"], center["4"])
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            diagram(3, [(0, 1), (1, 2), (2, 1)]),
            "Diagram: the arrows run in a cycle that box '1' lies on or behind; "
            "layers need arrows without one.",
        ),
        (
            diagram(1, [(0, 0)]),
            "Diagram: the arrows run in a cycle that box '0' lies on or behind; "
            "layers need arrows without one.",
        ),
        (diagram(1, [(0, 7)]), "Diagram: an arrow names the key '7', but no box has it."),
        (
            Diagram("", (Box("a", ("1",)), Box("a", ("2",))), ()),
            "Diagram: two boxes have the key 'a'; keys must differ.",
        ),
    ],
    ids=["cycle", "loop", "missing box", "same key"],
)
def test_refusals(given: Diagram, words: str) -> None:
    with pytest.raises(ValueError) as refusal:
        place(given)
    assert str(refusal.value) == words


@pytest.mark.parametrize(
    "edges",
    [
        random_edges(2000, 500, seed=2),
        [(i, i + 1) for i in range(1999)] + [(i, 1999) for i in range(1990)],
        [(0, i) for i in range(1, 2000)],
        [],
    ],
    ids=["random", "chain with long skips", "fan", "alone"],
)
def test_two_thousand_boxes_take_less_than_two_seconds(edges: list[tuple[int, int]]) -> None:
    given = diagram(2000, edges, "norm 1")
    began = time.process_time()
    placed = place(given)
    assert time.process_time() - began < 2
    assert len(placed.boxes) == 2000
