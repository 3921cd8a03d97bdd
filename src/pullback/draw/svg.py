"""Pictures as inline SVG."""

from ._svg_diagram import diagram_svg as diagram_svg
from ._svg_heatmap import heatmap_svg as heatmap_svg

__all__ = ["diagram_svg", "heatmap_svg"]
