"""Pages of sentences, tables, heatmaps and diagrams, and the media they are lowered to."""

from pullback.draw.figures import bars_figure as bars_figure
from pullback.draw.figures import heatmaps_figure as heatmaps_figure
from pullback.draw.html import to_html as to_html
from pullback.draw.layout import Layout as Layout
from pullback.draw.layout import PlacedArrow as PlacedArrow
from pullback.draw.layout import PlacedBox as PlacedBox
from pullback.draw.layout import place as place
from pullback.draw.matrix import as_matrix as as_matrix
from pullback.draw.numbers import count as count
from pullback.draw.numbers import number as number
from pullback.draw.numbers import percent as percent
from pullback.draw.numbers import shape as shape
from pullback.draw.page import Arrow as Arrow
from pullback.draw.page import Block as Block
from pullback.draw.page import Box as Box
from pullback.draw.page import Code as Code
from pullback.draw.page import Diagram as Diagram
from pullback.draw.page import Grid as Grid
from pullback.draw.page import Heading as Heading
from pullback.draw.page import Heatmap as Heatmap
from pullback.draw.page import Outline as Outline
from pullback.draw.page import OutlineRow as OutlineRow
from pullback.draw.page import Page as Page
from pullback.draw.page import Sentence as Sentence
from pullback.draw.page import Table as Table
from pullback.draw.svg import diagram_svg as diagram_svg
from pullback.draw.svg import heatmap_svg as heatmap_svg
from pullback.draw.text import to_text as to_text

__all__ = [
    "Arrow",
    "Block",
    "Box",
    "Code",
    "Diagram",
    "Grid",
    "Heading",
    "Heatmap",
    "Layout",
    "Outline",
    "OutlineRow",
    "Page",
    "PlacedArrow",
    "PlacedBox",
    "Sentence",
    "Table",
    "as_matrix",
    "bars_figure",
    "count",
    "diagram_svg",
    "heatmap_svg",
    "heatmaps_figure",
    "number",
    "percent",
    "place",
    "shape",
    "to_html",
    "to_text",
]
