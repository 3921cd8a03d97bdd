"""The demo as one page: printed to the terminal and written as a self-contained file."""

from __future__ import annotations

from pathlib import Path

from ..backward import views
from ..backward.explain import Explanation
from ..draw import Block, Grid, Heading, Page, Sentence, to_text
from ..draw.html import to_html
from .network import Trained, trained_network
from .tutorial import Exercise, FirstSteps, exercise, first_steps

_TITLE = "backward(v) on a tensor: what it computed, and why"


def run(out: Path) -> Path:
    """Run every program, print what happened, and write ``report.html`` into ``out``."""
    steps, weighed, network = first_steps(), exercise(), trained_network()
    for page in (_steps_text(steps), _exercise_text(weighed), _network_text(network)):
        print(to_text(page), end="\n\n")
    out.mkdir(parents=True, exist_ok=True)
    target = out / "report.html"
    blocks = (*_steps_blocks(steps), *_exercise_blocks(weighed), *_network_blocks(network))
    target.write_text(to_html(Page(_TITLE, blocks)), encoding="utf-8")
    return target


def _sentences(explanation: Explanation) -> list[Block]:
    return [Sentence(s.text, s.evidence) for s in explanation.statements]


def _calls(steps: FirstSteps) -> Grid:
    return Grid(
        (
            views.heatmap("inp.grad after the first call", steps.first_call),
            views.heatmap("after the second call: twice as much", steps.second_call),
            views.heatmap("after zeroing and one more call", steps.after_zeroing),
        ),
        shared=True,
    )


def _doubled(steps: FirstSteps) -> Sentence:
    doubled = bool((steps.second_call == 2 * steps.first_call).all())
    same = bool((steps.after_zeroing == steps.first_call).all())
    return Sentence(
        "Gradients add up: the second call doubled inp.grad, and zeroing it first gave the first "
        "call's gradient again.",
        (("second == 2 * first", str(doubled)), ("after zeroing == first", str(same))),
    )


def _steps_text(steps: FirstSteps) -> Page:
    tree = views.tree_page(steps.record, formulas=False, limit=50)
    told = _sentences(steps.explanation)
    title = "1. out = (inp + 1).pow(2).t(), weighed with ones"
    return Page(title, (*tree.blocks, *told, _calls(steps), _doubled(steps)))


def _steps_blocks(steps: FirstSteps) -> list[Block]:
    return [
        Heading("A tensor output, weighed with ones"),
        *_sentences(steps.explanation),
        views.diagram(steps.record),
        Grid(tuple(views.heatmaps(steps.record)), shared=False),
        views.node_table(steps.record),
        Heading("A second call, and zeroing"),
        _calls(steps),
        _doubled(steps),
    ]


def _first_row(weighed: Exercise) -> Sentence:
    column = weighed.first_row[:, 0].tolist()
    rest = float(weighed.first_row[:, 1:].abs().max())
    return Sentence(
        "With weight on the first row of out only, only the first column of inp receives a "
        "gradient: 3 (inp + 10)^2, which is largest where inp is 1.",
        (("inp.grad[:, 0]", str(column)), ("largest other entry", str(rest))),
    )


def _exercise_text(weighed: Exercise) -> Page:
    title = "2. The exercise: out = (inp + 10).pow(3).t(), row by row"
    return Page(title, (_first_row(weighed), *weighed.weighed.page().blocks))


def _exercise_blocks(weighed: Exercise) -> list[Block]:
    panels = [
        views.heatmap(f"{name}: inp.grad", found["inp"])
        for name, found in weighed.weighed.by_input.items()
    ]
    return [
        Heading("The exercise: weight on some rows"),
        _first_row(weighed),
        Grid((views.heatmap("v on the first row: inp.grad", weighed.first_row),), shared=False),
        *weighed.weighed.page().blocks,
        Grid(tuple(panels), shared=True),
    ]


def _fit_sentence(network: Trained) -> Sentence:
    before, after = network.losses
    (rows, columns), gap = network.operator
    return Sentence(
        f"A network of two hidden layers was fitted to (sin 3x, cos 2x); its output at 8 points is "
        f"an 8 x 2 tensor, so its Jacobian with respect to the points is {rows} x {columns}.",
        (
            ("loss", f"{before:.3g} -> {after:.3g}"),
            ("relative gap of <J t, v> and <t, J' v>", f"{gap:.1g}"),
        ),
    )


def _network_text(network: Trained) -> Page:
    tree = views.tree_page(network.record, formulas=False, limit=50)
    rows = [Sentence(s.text, s.evidence) for s in network.explanation.about("rows")[:1]]
    blocks = (_fit_sentence(network), *tree.blocks, *rows, *network.weighed.page().blocks)
    return Page("3. A trained network's tensor output, left half against right half", blocks)


def _network_blocks(network: Trained) -> list[Block]:
    panels = [
        views.heatmap(f"{name}: x.grad", found["x"])
        for name, found in network.weighed.by_input.items()
    ]
    return [
        Heading("A trained network's tensor output"),
        _fit_sentence(network),
        views.diagram(network.record),
        *_sentences(network.explanation),
        Heading("Left half against right half", 3),
        Grid(tuple(panels), shared=True),
        *network.weighed.page().blocks,
    ]
