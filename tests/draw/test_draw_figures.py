"""The matplotlib figures: panels, texts, and nothing that warns."""

import io
import sys

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from pullback.draw import Heatmap, Places
from pullback.draw.figures import Tints, _rgb, heatmaps_figure, spy_figure


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


def places_of(mask: np.ndarray) -> Places:
    indptr = np.concatenate(([0], np.cumsum(mask.sum(axis=1))))
    return Places(mask.shape, indptr, np.nonzero(mask)[1])


def squares(axes: Axes) -> tuple[np.ndarray, np.ndarray]:
    """The centers, as (row, column), and the colors of the drawn squares."""
    (collection,) = axes.collections
    assert isinstance(collection, PolyCollection)
    corners = [path.vertices[:4] for path in collection.get_paths()]
    centers = np.array([corner.mean(axis=0)[::-1] for corner in corners]).reshape(-1, 2)
    return centers, collection.get_facecolors()[:, :3]


def test_a_small_pattern_is_a_square_per_entry() -> None:
    mask = np.tri(7, 5, 1, dtype=bool)
    (axes,) = rendered(spy_figure(places_of(mask), "J")).axes
    centers, faces = squares(axes)
    np.testing.assert_allclose(centers, np.argwhere(mask))
    assert len(np.unique(faces, axis=0)) == 1
    assert (axes.get_xlim(), axes.get_ylim()) == ((-0.5, 4.5), (6.5, -0.5))
    assert axes.get_title(loc="left") == "J"
    assert axes.get_ylabel() == "row"
    assert axes.get_xlabel() == "column\n7 × 5, 29 nonzeros\ndensity 83 %, 2 to 5 per row"
    assert axes.get_aspect() == 1


def test_a_full_pattern_is_drawn_without_its_places() -> None:
    centers, _ = squares(rendered(spy_figure(Places((2, 3)))).axes[0])
    assert len(centers) == 6
    (axes,) = rendered(spy_figure(Places((10**7, 10**7)))).axes
    assert axes.images[0].get_array().min() == 1


@pytest.mark.parametrize("by", ["columns", "rows"])
@pytest.mark.parametrize("full", [False, True])
def test_squares_take_the_colors_of_their_columns_or_rows(by: str, full: bool) -> None:
    mask = np.ones((6, 4), dtype=bool) if full else np.tri(6, 4, dtype=bool)
    colors = np.arange(4 if by == "columns" else 6) % 3 - 1
    places = Places((6, 4)) if full else places_of(mask)
    (axes,) = rendered(spy_figure(places, tints=Tints(colors, by))).axes
    centers, faces = squares(axes)
    which = colors[centers[:, 1 if by == "columns" else 0].round().astype(int)]
    assert len(np.unique(faces, axis=0)) == 3
    for color in (-1, 0, 1):
        assert len(np.unique(faces[which == color], axis=0)) == 1
    neutral = int((colors == -1).sum())
    assert axes.get_xlabel().endswith(f"2 colors, {neutral} neutral (gray)")


def test_a_large_pattern_shows_how_full_its_blocks_are() -> None:
    mask = np.zeros((900, 900), dtype=bool)
    mask[:3, :3] = True
    mask[-1, -1] = mask[450, 450] = True
    figure = rendered(spy_figure(places_of(mask)))
    (axes,) = panels(figure)
    step = int(axes.get_xlabel().split()[-4])
    assert axes.get_xlabel().endswith(f"cells: filled shares of blocks of {step} × {step} entries")
    shares = axes.images[0].get_array()
    assert shares.shape == (-(-900 // step),) * 2
    assert shares[0, 0] == mask[:step, :step].mean()
    assert shares[-1, -1] == 1 / (900 - (len(shares) - 1) * step) ** 2
    assert np.ma.getmaskarray(shares).sum() == shares.size - shares.count()
    assert shares.count() == 3
    bar = next(other for other in figure.axes if other is not axes)
    assert [label.get_text() for label in bar.get_yticklabels()][-1] == "100 %"


@pytest.mark.parametrize("by", ["columns", "rows"])
@pytest.mark.parametrize("full", [False, True])
def test_a_block_takes_the_color_of_one_of_its_entries(by: str, full: bool) -> None:
    mask = np.ones((400, 500), dtype=bool)
    if not full:
        mask[:] = np.random.default_rng(0).random((400, 500)) < 0.02
    colors = np.arange(mask.shape[1 if by == "columns" else 0]) % 3 - 1
    places = Places(mask.shape) if full else places_of(mask)
    (axes,) = rendered(spy_figure(places, tints=Tints(colors, by))).axes
    image = np.asarray(axes.images[0].get_array())
    step = int(axes.get_xlabel().split()[-4])
    assert step > 1
    spread = np.broadcast_to(colors if by == "columns" else colors[:, np.newaxis], mask.shape)
    tint = {color: _rgb(np.array(color)) for color in (-2, -1, 0, 1)}
    for i, j in np.ndindex(image.shape[:2]):
        rows, columns = slice(i * step, (i + 1) * step), slice(j * step, (j + 1) * step)
        there = set(spread[rows, columns][mask[rows, columns]].tolist()) or {-2}
        assert any(np.array_equal(image[i, j], tint[color]) for color in there)


def test_a_hundred_colors_are_a_hundred_tints() -> None:
    tints = _rgb(np.arange(-2, 100))
    assert tints.shape == (102, 3)
    assert ((tints >= 0) & (tints <= 1)).all()
    assert len(np.unique(tints.round(6), axis=0)) == 102


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
def test_a_pattern_without_entries_says_so(shape: tuple[int, int]) -> None:
    (axes,) = rendered(spy_figure(Places(shape))).axes
    assert written(axes) == [f"{shape[0]} × {shape[1]}, no entries"]


@pytest.mark.parametrize("shape", [(1, 1), (80, 80), (81, 81), (1, 3000), (3000, 2), (2000, 700)])
def test_an_empty_pattern_of_any_shape_draws_without_a_warning(shape: tuple[int, int]) -> None:
    (axes,) = rendered(spy_figure(places_of(np.zeros(shape, dtype=bool)))).axes
    assert "0 nonzeros" in axes.get_xlabel()


@pytest.mark.parametrize("size", [1.0, 3.0, 8.0])
def test_no_cell_is_smaller_than_a_pixel(size: float) -> None:
    figure = Figure((size, size), dpi=100)
    spy_figure(places_of(np.eye(1000, dtype=bool)), axes=figure.add_subplot())
    rendered(figure)
    (axes,) = panels(figure)
    assert axes.images[0].get_array().shape[0] <= max(24, axes.get_window_extent().height)


def test_given_axes_are_drawn_in_and_their_figure_returned() -> None:
    figure = Figure()
    inner = figure.subfigures(1, 2)[1]
    assert spy_figure(Places((2, 2)), axes=figure.add_subplot()) is figure
    axes = inner.add_subplot()
    assert spy_figure(Places((2, 2)), axes=axes) is figure
    assert len(squares(axes)[0]) == 4
