"""The explorer: making a page, and how fast it answers its reader, in a headless Chromium."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pullback as pb

from .options import Options
from .timing import Cell, Row, Table, Timing

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")
COLUMNS = (
    "writing the page",
    "opening it",
    "an edit of v",
    "a frame of panning",
    "a frame of zooming",
    "a step of the player",
)
# Each work is done once for every frame; a frame lasts until the next one begins.
FRAMES = """async ([work, count]) => {
  const canvas = document.querySelector('.pbx-graph-canvas');
  const box = canvas.getBoundingClientRect();
  const at = (k) => ({ clientX: box.left + 200 + 3 * k, clientY: box.top + 150, bubbles: true });
  const press = (name) => [...document.querySelectorAll('.pbx-button')]
    .find((button) => button.textContent === name).click();
  const works = {
    edit: (k) => press(k % 2 ? 'mean' : 'all ones'),
    pan: (k) => dispatchEvent(new PointerEvent('pointermove', at(k))),
    zoom: (k) => canvas.dispatchEvent(new WheelEvent('wheel', {
      ...at(0), deltaY: k < count / 2 ? 40 : -40, ctrlKey: true, cancelable: true })),
    step: () => document.querySelector('[aria-label="one node back"]').click(),
  };
  const down = new PointerEvent('pointerdown', { ...at(0), button: 0 });
  if (work === 'pan') canvas.dispatchEvent(down);
  const frames = [];
  await new Promise(requestAnimationFrame);
  let last = performance.now();
  for (let k = 0; k < count; k++) {
    works[work](k);
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    frames.push((now - last) / 1000);
    last = now;
  }
  if (work === 'pan') dispatchEvent(new PointerEvent('pointerup', at(0)));
  return frames;
}"""


@dataclass(frozen=True)
class Problem:
    name: str
    build: Callable[[], tuple[Tensor, Any]]


def tutorial() -> tuple[Tensor, Any]:
    inp = torch.eye(4, 5, requires_grad=True)
    with pb.trace():
        return (inp + 10).pow(3).t(), {"inp": inp}


def network() -> tuple[Tensor, Any]:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    with pb.trace():
        return layer(torch.randn(2, 4, 16)), layer


def chain() -> tuple[Tensor, Any]:
    x = torch.ones(8, requires_grad=True)
    out = x
    with pb.trace():
        for _ in range(500):
            out = (out * 1.001 + x.cos() * 0.01).sin()
    return out, {"x": x}


PROBLEMS = (
    Problem("tutorial, 4 nodes", tutorial),
    Problem("transformer layer", network),
    Problem("chain with branches, 2,500 nodes", chain),
)


def run(options: Options) -> list[Table]:
    path = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    problems = PROBLEMS[:2] if options.quick else PROBLEMS
    if path is None:
        rows = tuple(Row(p.name, ("no Chromium",) * len(COLUMNS)) for p in problems)
    else:
        from playwright.sync_api import sync_playwright

        with sync_playwright() as started, tempfile.TemporaryDirectory() as folder:
            browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
            rows = tuple(
                _row(problem, browser, Path(folder), options.quick) for problem in problems
            )
            browser.close()
    note = (
        "A frame lasts at least 17 ms at 60 Hz; Chromium draws without a graphics card here. "
        "Writing asks the graph for its answers; opening ends when the page can be used."
    )
    return [Table("A page and its reader", COLUMNS, rows, note, compare=False)]


def _row(problem: Problem, browser: Any, target: Path, quick: bool) -> Row:
    out, inputs = problem.build()
    record = pb.record(out, torch.ones_like(out), inputs=inputs)
    record.to_html(target)  # the first detection of a process compiles its kernels
    writing = _timed(lambda: record.to_html(target), 1 if quick else 5)
    size = target.stat().st_size
    name = f"{problem.name}: {size / 1e6:.1f} MB, {record.document()['basis']['kind']}"
    page = browser.new_page(viewport={"width": 1440, "height": 900})

    def reopen() -> None:
        page.goto(target.as_uri())
        page.wait_for_selector(".pbx-box")

    opening = _timed(reopen, 1 if quick else 5)
    count = 10 if quick else 60
    works: list[Cell] = []
    for work in ("edit", "pan", "zoom", "step"):
        reopen()
        works.append(_cell(work, page.evaluate(FRAMES, [work, count])))
    page.close()
    return Row(name, (_cell("writing", writing), _cell("opening", opening), *works))


def _timed(work: Callable[[], Any], rounds: int) -> list[float]:
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return found


def _cell(name: str, seconds: list[float]) -> Timing:
    ordered = sorted(seconds)
    quarter = len(ordered) // 4
    return Timing(
        name,
        statistics.median(ordered),
        ordered[quarter],
        ordered[-1 - quarter],
        len(ordered),
        1,
    )
