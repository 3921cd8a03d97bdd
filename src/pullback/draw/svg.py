"""Pictures as inline SVG."""

from pullback.draw._svg_diagram import diagram_svg as diagram_svg
from pullback.draw._svg_heatmap import heatmap_svg as heatmap_svg

__all__ = ["diagram_svg", "heatmap_svg"]
