"""``pullback doctor``: versions, capabilities probed, what falls back and why."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from . import draw
from ._capabilities import Capability, capabilities
from ._engines import ORDER, batched_gradients
from .backward.stats import one_pass_kernel

_PACKAGES = (
    "pullback",
    "torch",
    "numpy",
    "scipy",
    "numba",
    "rich",
    "matplotlib",
    "typer",
    "jinja2",
)


def report() -> tuple[str, bool]:
    """The text to print, and whether every capability holds."""
    facts = [*capabilities(), _batching(), _kernel()]
    page = draw.Page(
        "pullback doctor",
        (
            draw.Table("Versions", ("package", "version"), tuple(_versions())),
            draw.Table("Hardware", ("what", "found"), tuple(_hardware())),
            draw.Table("Facts of torch", ("fact", "holds", "without it"), tuple(map(_row, facts))),
        ),
    )
    return draw.to_text(page), all(fact.holds for fact in facts)


def _versions() -> list[tuple[str, str]]:
    rows = [("python", platform.python_version())]
    for package in _PACKAGES:
        try:
            rows.append((package, version(package)))
        except PackageNotFoundError:
            rows.append((package, "not installed"))
    return rows


def _hardware() -> list[tuple[str, str]]:
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none that torch can use"
    return [
        ("platform", platform.platform()),
        ("threads of torch", str(torch.get_num_threads())),
        ("CUDA device", cuda),
    ]


def _row(capability: Capability) -> tuple[str, str, str]:
    if capability.holds:
        return capability.name, "yes", ""
    return capability.name, "NO", f"{capability.without} {capability.detail}".strip()


def _kernel() -> Capability:
    return Capability(
        "statistics in one pass (numba)",
        one_pass_kernel() is not None,
        "",
        "large cotangents are measured in several passes",
    )


def _batching() -> Capability:
    """The engine that a batch of products gets on an ordinary graph."""
    x = torch.ones(3, requires_grad=True)
    batch = batched_gradients([x.sin()], [x], [torch.eye(3)])
    return Capability(
        f"batched backward ({ORDER[0]})",
        batch.engine == ORDER[0],
        "; ".join(batch.reasons),
        "batches of products run one by one",
    )
