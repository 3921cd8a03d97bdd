"""Pages of sentences, tables, heatmaps and diagrams, and the media they are lowered to.

``draw.html`` and ``draw.figures`` are imported where a page or a figure is asked for: they bring
jinja2 and matplotlib with them.
"""

from .braille import Places as Places
from .braille import braille_lines as braille_lines
from .braille import places_facts as places_facts
from .layout import Layout as Layout
from .layout import PlacedArrow as PlacedArrow
from .layout import PlacedBox as PlacedBox
from .layout import place as place
from .matrix import as_matrix as as_matrix
from .numbers import count as count
from .numbers import number as number
from .numbers import percent as percent
from .numbers import shape as shape
from .page import Arrow as Arrow
from .page import Block as Block
from .page import Box as Box
from .page import Code as Code
from .page import Diagram as Diagram
from .page import Grid as Grid
from .page import Heading as Heading
from .page import Heatmap as Heatmap
from .page import Outline as Outline
from .page import OutlineRow as OutlineRow
from .page import Page as Page
from .page import Sentence as Sentence
from .page import Table as Table
from .svg import diagram_svg as diagram_svg
from .svg import heatmap_svg as heatmap_svg
from .text import to_text as to_text

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
    "Places",
    "Sentence",
    "Table",
    "as_matrix",
    "braille_lines",
    "count",
    "diagram_svg",
    "heatmap_svg",
    "number",
    "percent",
    "place",
    "places_facts",
    "shape",
    "to_text",
]
