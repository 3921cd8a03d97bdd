"""Draw the pictures of README and pages: ``python docs/make_images.py [FOLDER]``."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

import pullback as pb
from pullback.backward.views import diagram
from pullback.draw.svg import diagram_svg

IMAGES = Path(__file__).parent / "images"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")


def output() -> tuple[Tensor, Tensor, Tensor]:
    """The input of the tutorial, its output, and a cotangent on the first row of it."""
    inp = torch.eye(4, 5, requires_grad=True)
    with pb.trace():
        out = (inp + 10).pow(3).t()
    return inp, out, pb.cotangents.rows(out, {0: 1.0})


def record() -> Figure:
    inp, out, first = output()
    return pb.record(out, first, inputs={"inp": inp}).plot()


def sensitivity() -> Figure:
    inp, out, first = output()
    weighed = pb.sensitivity(
        out,
        {"inp": inp},
        {
            "uniform": pb.cotangents.normalized(pb.cotangents.ones(out)),
            "first row": pb.cotangents.normalized(first),
            "last row": pb.cotangents.normalized(pb.cotangents.rows(out, {-1: 1.0})),
        },
    )
    return weighed.plot()


def backward() -> str:
    """The graph of a record, as a file of its own on white ground."""
    inp, out, first = output()
    svg = str(diagram_svg(diagram(pb.record(out, first, inputs={"inp": inp}))))
    ground = 'xmlns="http://www.w3.org/2000/svg" style="background:#fff;color:#222"'
    return svg.replace("<svg ", f"<svg {ground} ", 1)


def transpose() -> Figure:
    plan = pb.plan_jacobian(lambda inp: (inp + 1).pow(2).t(), torch.eye(4, 5))
    return plan.pattern.plot(title="(inp + 1).pow(2).t(), inp of shape (4, 5)")


def reaction_diffusion(state: Tensor) -> Tensor:
    u, v = state

    def spread(a: Tensor) -> Tensor:
        return a.roll(1, 0) + a.roll(-1, 0) + a.roll(1, 1) + a.roll(-1, 1) - 4 * a

    return torch.stack(
        [
            1 + u * u * v - 4.4 * u + spread(u) / 10,
            3.4 * u - u * u * v + spread(v) / 10,
        ]
    )


def pattern() -> Figure:
    found = pb.plan_jacobian(reaction_diffusion, torch.rand(2, 6, 6)).pattern
    return found.plot(title="Reaction and diffusion on 6 × 6 points")


def colored() -> Figure:
    plan = pb.plan_jacobian(lambda u: u[:-1] * u[1:], torch.rand(13), lift=False)
    colors = plan.coloring.row_colors
    return plan.pattern.plot(colors=colors, by="rows", title="Rows in two colors")


def arrow() -> Figure:
    places = np.eye(12, dtype=bool)
    places[0], places[:, 0] = True, True
    colors = pb.color(places, "star").colors
    found = pb.SparsityPattern.from_scipy(places)
    return found.plot(colors=colors, title="A symmetric arrow, two star colors")


def lifting() -> Figure:
    """J of a stencil in its colors, beside F in one color and the fixed M: J = F M."""

    def inner(u: Tensor) -> Tensor:
        return torch.cat([u, u.roll(-1) - u.roll(1)])

    def middle(w: Tensor) -> Tensor:
        a, b = w.chunk(2)
        return a * b

    u = torch.linspace(0, 1, 12)
    whole = pb.plan_jacobian(lambda u: middle(inner(u)), u, lift=False)
    varies = pb.plan_jacobian(middle, inner(u), lift=False)
    fixed = pb.plan_jacobian(inner, u, lift=False)
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=[1, 2, 1])
    for ax, plan, name in zip(axes, (whole, varies), ("J", "F"), strict=False):
        color = plan.coloring.row_colors
        products = f"{plan.num_products} product{'s' * (plan.num_products != 1)}"
        plan.pattern.plot(ax, colors=color, by="rows", title=f"{name}: {products}")
    fixed.pattern.plot(axes[2], title="M: fixed")
    return figure


def network(middle: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), middle, nn.Tanh(), nn.Linear(8, 3))


def per_sample() -> Figure:
    plan = pb.plan_jacobian(network(nn.Identity()), torch.rand(16, 6))
    return plan.pattern.plot(title="16 samples, each on its own")


def per_sample_mixed() -> Figure:
    plan = pb.plan_jacobian(network(nn.BatchNorm1d(8)).train(), torch.rand(16, 6))
    return plan.pattern.plot(title="With BatchNorm in training mode")


def explorer() -> bytes | None:
    """The page of a record as Chromium shows it, v edited; None where there is no Chromium."""
    path = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    if path is None:
        return None
    from playwright.sync_api import sync_playwright

    inp, out, first = output()
    record = pb.record(out, first, inputs={"inp": inp})
    with TemporaryDirectory() as folder, sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.goto(record.to_html(Path(folder) / "page.html").as_uri())
        page.get_by_label("weight of the brush", exact=True).fill("-0.5")
        page.get_by_role("button", name="[3]", exact=True).click()
        page.locator(".pbx-box", has_text="PowBackward0").click()
        shot = Image.open(BytesIO(page.screenshot(full_page=True)))
        browser.close()
    small = BytesIO()
    shot.quantize(96).save(small, format="PNG", optimize=True)
    return small.getvalue()


PICTURES: dict[str, Callable[[], Figure | str | bytes | None]] = {
    "explorer.png": explorer,
    "record.png": record,
    "sensitivity.png": sensitivity,
    "backward.svg": backward,
    "transpose.png": transpose,
    "pattern.png": pattern,
    "colored.png": colored,
    "arrow.png": arrow,
    "lifting.png": lifting,
    "per-sample.png": per_sample,
    "per-sample-mixed.png": per_sample_mixed,
}


def main(folder: Path = IMAGES) -> None:
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    for name, draw in PICTURES.items():
        picture = draw()
        if isinstance(picture, Figure):
            picture.savefig(folder / name, dpi=110, bbox_inches="tight")
        elif isinstance(picture, bytes):
            (folder / name).write_bytes(picture)
        elif picture is not None:
            (folder / name).write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
