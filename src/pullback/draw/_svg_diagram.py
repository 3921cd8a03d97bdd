"""A diagram as SVG."""

from itertools import pairwise

from markupsafe import Markup

from ._markup import tag
from ._sizes import LINE_HEIGHT, PADDING_Y, box_lines, label_text, label_width
from .layout import PlacedArrow, PlacedBox, Point, place
from .page import BoxKind, Diagram
from .palette import BLUE, ORANGE

_MONO = "ui-monospace,'SF Mono',Menlo,Consolas,'DejaVu Sans Mono',monospace"
_INK: dict[BoxKind, str] = {
    "output": f"var(--pb-output, {ORANGE})",
    "node": "currentColor",
    "leaf": f"var(--pb-leaf, {BLUE})",
    "note": "currentColor",
}
_HEAD_LENGTH = 8.0
_HEAD_HALF_WIDTH = 3.6


def diagram_svg(diagram: Diagram) -> str:
    """Draw a diagram as one inline `<svg>` element, colored after the text around it."""
    placed = place(diagram)
    return tag(
        "svg",
        tag("title", diagram.title or "Diagram"),
        *(_arrow(arrow) for arrow in placed.arrows),
        *(_box(box) for box in placed.boxes),
        *(_label(arrow) for arrow in placed.arrows),
        role="img",
        class_="pb-diagram",
        width=placed.width,
        height=placed.height,
        viewBox=f"0 0 {placed.width:.6g} {placed.height:.6g}",
        font_family=_MONO,
        font_size=12,
        fill="currentColor",
        text_anchor="middle",
    )


def _box(placed: PlacedBox) -> Markup:
    middle, first = placed.x + placed.w / 2, placed.y + PADDING_Y + 12.5
    texts = [
        tag(
            "text",
            line,
            x=middle,
            y=first + row * LINE_HEIGHT,
            font_weight=400 if row else 600,
            opacity=0.75 if row else 1,
        )
        for row, line in enumerate(box_lines(placed.box))
    ]
    spoken = tag("title", " · ".join(placed.box.lines or (placed.box.key,)))
    return tag("g", spoken, _frame(placed), *texts, class_=f"pb-box pb-{placed.box.kind}")


def _frame(placed: PlacedBox) -> Markup:
    kind = placed.box.kind
    marked = kind in ("output", "leaf")
    return tag(
        "rect",
        x=placed.x,
        y=placed.y,
        width=placed.w,
        height=placed.h,
        rx=min(placed.h / 2, 18) if kind == "output" else 6,
        fill=_INK[kind],
        fill_opacity=0.14 if marked else 0.04,
        stroke=_INK[kind],
        stroke_opacity=0.9 if marked else 0.4,
        stroke_width=1.3,
        stroke_dasharray="4 3" if kind == "note" else "none",
    )


def _arrow(placed: PlacedArrow) -> Markup:
    x, y = placed.knots[-1]
    head = (
        f"M{x - _HEAD_HALF_WIDTH:.6g} {y - _HEAD_LENGTH:.6g}"
        f"L{x:.6g} {y:.6g}L{x + _HEAD_HALF_WIDTH:.6g} {y - _HEAD_LENGTH:.6g}Z"
    )
    knots = (*placed.knots[:-1], (x, y - _HEAD_LENGTH))
    line = tag("path", d=_curve(knots), fill="none", stroke="currentColor", stroke_width=1.2)
    return tag("g", line, tag("path", d=head), class_="pb-arrow", opacity=0.6)


def _curve(knots: tuple[Point, ...]) -> str:
    """Join the knots by curves that start and end upright, so that they meet without a corner."""
    path = [f"M{knots[0][0]:.6g} {knots[0][1]:.6g}"]
    for (x0, y0), (x1, y1) in pairwise(knots):
        middle = (y0 + y1) / 2
        if abs(x1 - x0) < 0.01:
            path.append(f"V{y1:.6g}")
        else:
            path.append(f"C{x0:.6g} {middle:.6g} {x1:.6g} {middle:.6g} {x1:.6g} {y1:.6g}")
    return "".join(path)


def _label(placed: PlacedArrow) -> Markup:
    if placed.label_at is None:
        return Markup()
    x, y = placed.label_at
    width = label_width(placed.arrow) - 6
    plate = tag(
        "rect",
        x=x - width / 2,
        y=y - 7,
        width=width,
        height=14,
        fill="var(--pb-paper, transparent)",
    )
    words = tag("text", label_text(placed.arrow), x=x, y=y + 4, font_size=11)
    return tag("g", plate, words, class_="pb-label")
