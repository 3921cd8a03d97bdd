"""Every measured number that the pages tell is one of RESULTS.md."""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")


def told(page: str) -> str:
    return " ".join((ROOT / "docs" / page).read_text(encoding="utf-8").split())


def column(title: str, name: str) -> list[str]:
    """The cells of a column of the first table under a title, top to bottom."""
    lines = RESULTS.partition(f"### {title}\n")[2].lstrip().splitlines()
    table = takewhile(lambda line: line.startswith("|"), lines)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return [row[rows[0].index(name)] for row in rows[2:]]


def test_what_watching_costs_is_what_was_measured() -> None:
    title = "Training steps, plain and watched (4 at a time)"
    traced, kept = (
        column(title, f"× {name}") for name in ("under trace", "under trace and ledger")
    )
    run = column("A script's training loop, by python and by pullback run", "× pullback run")
    page = told("how-to/keep-a-ledger.md")
    assert f"{traced[0]} times as long under a trace and {kept[0]} under a ledger" in page
    assert f"four layers 1,024 wide {traced[1]} and {kept[1]}" in page
    assert f"took {float(kept[2]):.1f} times as long" in page
    assert f"200 steps, took {run[0]} times as long" in told("how-to/run-a-script.md")


def numbers(cells: list[str]) -> list[float]:
    found = [cell.replace(",", "") for cell in cells]
    return [float(cell) for cell in found if re.fullmatch(r"[\d.]+", cell)]


@pytest.mark.parametrize(
    ("row", "title", "name"),
    [
        ("one evaluation, compiled where", "One evaluation", "asdex ÷ pullback"),
        ("set-up (", "Set-up: capture, detection, coloring", "asdex ÷ pullback"),
        ("from a function", "From a function to its first matrix", "asdex ÷ pullback"),
        ("one evaluation: fastest", "One evaluation", "torch.func ÷ pullback"),
        ("`pb.jacobian(f)` without a plan", "One evaluation", "torch.func ÷ no plan"),
        ("one evaluation: pullback ÷ deriv", "One evaluation", "pullback ÷ by hand"),
        ("a Hessian, compiled where", "One Hessian", "asdex ÷ pullback"),
        ("set-up of a H", "Hessians, set-up: capture, detection, coloring", "asdex ÷ pullback"),
        (
            "from a function to its first H",
            "From a function to its first Hessian",
            "asdex ÷ pullback",
        ),
        ("a Hessian: fastest of", "One Hessian", "torch.func ÷ pullback"),
        ("a Hessian: pullback ÷ second", "One Hessian", "pullback ÷ by hand"),
    ],
)
def test_the_table_of_times_is_that_of_the_results(row: str, title: str, name: str) -> None:
    cells = column(title, name)
    mean, count = re.fullmatch(r"([\d.]+) \(of (\d+)\)", cells[-1]).groups()  # type: ignore[union-attr]
    problems = numbers(cells)
    assert len(problems) == int(count)
    shown = float(mean) if float(mean) < 100 else round(float(mean))
    line = rf"\| {re.escape(row)}[^|]*\| {shown:g} \| ([\d.]+) to ([\d.,]+) \|"
    found = re.search(line, told("comparison.md"))
    assert found is not None, f"{shown:g} | {min(problems):.2f} to {max(problems):.2f}"
    low, high = (float(number.replace(",", "")) for number in found.groups())
    assert (low, high) == pytest.approx((min(problems), max(problems)), rel=5e-3)
    assert f"({count} problems" in found[0] or count == "38"


@pytest.mark.parametrize(
    ("problem", "row"),
    [
        ("brusselator2d", "reaction and diffusion"),
        ("shallow_water", "shallow water"),
        ("conv_tanh 32", "a convolution of 8 to 8"),
        ("conv_relu_conv", "two convolutions"),
        ("persample_mlp", "per-sample network"),
        ("gather_scatter", "residual on a random graph"),
        ("fem_p1", "finite elements"),
        ("springs3d", "mass-spring mesh"),
        ("bundle", "bundle adjustment"),
    ],
)
def test_the_products_are_those_of_the_results(problem: str, row: str) -> None:
    rows = [line.split("|") for line in RESULTS.partition("### Problems")[2].splitlines()[:45]]
    mine = [cells for cells in rows if len(cells) > 5 and cells[1].strip().startswith(problem)]
    spans = []
    for place in (4, 5):
        counts = sorted({int(cells[place].split()[0]) for cells in mine})
        spans.append(str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}")
    assert re.search(
        rf"\| {row}[^|]*\| {spans[0]} \| {spans[1]} \|", told("explanation/lifting.md")
    ), spans


def share(title: str, name: str) -> list[float]:
    return [1 / ratio for ratio in numbers(column(title, name))]


def test_the_sentences_about_products() -> None:
    vjp = share("One forward and one VJP", "× torch.func.vjp")
    text = f"One forward and one VJP take {min(vjp):.2f} to {max(vjp):.2f} of the time"
    assert text in told("comparison.md"), text
    jvp = sorted(share("One forward and one JVP", "× torch.func.jvp"))
    text = (
        f"take {jvp[0]:.2f} to {jvp[-2]:.2f} of `torch.func.jvp` on four of them, and {jvp[-1]:.2f}"
    )
    assert text in told("comparison.md"), text


def test_the_sentences_about_records() -> None:
    title = "A backward pass, plain and recorded"
    *networks, chain = numbers(column(title, "× record, accumulate"))
    text = f"takes {min(networks):.1f} to {max(networks):.1f} times as long as a plain one"
    assert text in told("explanation/record.md"), text
    assert f"and {chain:.1f} times on the chain" in told("explanation/record.md")
    *networks, chain = numbers(column("A forward pass, plain and traced", "× forward under trace"))
    text = f"{min(networks):.2f} to {max(networks):.2f} times the time of a forward pass"
    assert text in told("explanation/record.md"), text
    assert f"{chain:.1f} times on 5,000" in told("explanation/record.md")


def test_the_peak_of_a_large_plan() -> None:
    title = "Bundle adjustment, from a plan to its evaluations"
    peaks = dict(zip(column(title, "entries"), column(title, "its peak"), strict=True))
    text = f"29 million nonzeros its peak is {peaks['29,000,000']}"
    assert text in told("how-to/memory.md"), text
