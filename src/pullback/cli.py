"""The ``pullback`` command: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="pullback",
    help="What a tensor's backward pass computes, weighs and explains.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _root() -> None:
    """Several commands, not one: typer would otherwise run a lone command without its name."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for report.html.")] = Path("pullback-demo"),
) -> None:
    """Run the examples on real tensors, print what happened, write one HTML report."""
    from .demo.report import run

    if out.exists() and not out.is_dir():
        typer.echo(f"pullback demo: --out {out} is a file; name a folder.", err=True)
        raise typer.Exit(2)
    typer.echo(f"Report written to {run(out)}")


@app.command()
def doctor() -> None:
    """Show versions, which facts of torch hold here, and what falls back without them."""
    from .doctor import report

    text, sound = report()
    typer.echo(text)
    raise typer.Exit(0 if sound else 1)


def main() -> None:
    app()
