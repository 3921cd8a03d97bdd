"""The matplotlib figures: panels, texts, and nothing that warns."""

import io
import sys

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pullback.draw import Heatmap
from pullback.draw.figures import heatmaps_figure


def rendered(figure: Figure) -> Figure:
    figure.savefig(io.BytesIO(), format="png", dpi=50)
    return figure


def panels(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]


def written(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_each_heatmap_gets_a_panel_and_a_color_bar() -> None:
    figure = rendered(heatmaps_figure([Heatmap(name, np.eye(3)) for name in "abcde"], "Five"))
    assert [axes.get_title(loc="left") for axes in panels(figure)] == list("abcde")
    assert len(figure.axes) == 10
    assert figure.get_suptitle() == "Five"
    rows = [axes.get_subplotspec().rowspan.start for axes in panels(figure)]  # type: ignore[union-attr]
    assert rows == [0, 0, 0, 0, 1]


def test_the_values_are_written_in_their_cells() -> None:
    values = np.array([[1, 2.5, -3], [0, np.nan, np.inf]])
    (axes,) = panels(rendered(heatmaps_figure([Heatmap("J", values, "out", "in", "mm")])))
    assert written(axes) == ["1", "2.5", "-3", "0", "nan", "inf"]
    assert [text.get_position() for text in axes.texts] == [
        (j, i) for i in (0, 1) for j in (0, 1, 2)
    ]
    assert axes.get_xlabel() == "in\n2 × 3, from -3 to 2.5 mm, 1 nan, 1 inf"
    assert axes.get_ylabel() == "out"
    assert axes.images[0].get_clim() == (-3, 3)
    np.testing.assert_array_equal(
        np.ma.getmaskarray(axes.images[0].get_array()), ~np.isfinite(values)
    )
    assert axes.patch.get_hatch() == "////"


def test_shared_panels_have_one_scale_centred_on_zero() -> None:
    heatmaps = [Heatmap("a", np.array([[1.0]])), Heatmap("b", np.array([[-4.0]]))]
    shared = panels(heatmaps_figure(heatmaps, shared=True))
    assert [axes.images[0].get_clim() for axes in shared] == [(-4, 4), (-4, 4)]
    apart = panels(heatmaps_figure(heatmaps))
    assert [axes.images[0].get_clim() for axes in apart] == [(-1, 1), (-4, 4)]


def test_a_large_heatmap_is_shrunk_but_keeps_its_indices() -> None:
    (axes,) = panels(rendered(heatmaps_figure([Heatmap("J", np.ones((600, 300)))])))
    assert axes.images[0].get_array().shape == (120, 100)
    assert axes.images[0].get_extent() == [-0.5, 299.5, 599.5, -0.5]
    assert written(axes) == []
    assert axes.get_xlabel().endswith("cells: largest of 5 × 3 entries")


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (np.zeros((0, 3)), ["0 × 3, no entries"]),
        (np.zeros((1, 2)), ["0", "0"]),
        (np.full((1, 1), np.nan), ["nan"]),
        (np.array(2.0), ["2"]),
        (np.array([3 + 4j]), ["5"]),
        (np.arange(40.0), []),
        (np.array([1e-310, -1e-320]), ["1e-310", "-1e-320"]),
        (np.array([1.5e308, -1.5e308]), ["1.5e308", "-1.5e308"]),
    ],
    ids=["empty", "zeros", "nan", "scalar", "complex", "long", "tiny", "huge"],
)
def test_edge_cases_draw_without_a_warning(values: np.ndarray, texts: list[str]) -> None:
    (axes,) = panels(rendered(heatmaps_figure([Heatmap("J", values)])))
    assert written(axes) == texts


def test_no_panels_at_all() -> None:
    assert rendered(heatmaps_figure([])).axes == []


def test_names_are_drawn_literally() -> None:
    name = r"$\frac{1 日 \x1b"
    figure = rendered(heatmaps_figure([Heatmap(name, np.eye(1), name, name, name)], name))
    assert figure.axes[0].get_title(loc="left") == r"$\frac{1 � \x1b"


def test_no_window_and_no_global_state() -> None:
    import subprocess

    code = (
        "import sys, numpy; from pullback.draw import Heatmap; from pullback.draw.figures import heatmaps_figure; "
        "heatmaps_figure([Heatmap('J', numpy.eye(2))]); "
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
