"""The ``pullback`` command: parse, call, print."""

from __future__ import annotations

import io
import sys
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

_Pass = Annotated[
    str,
    typer.Argument(
        metavar="[FILE.py:FUNC]",
        help="The function, run at what FUNC_sample() or sample() of its file returns. Left out: "
        "the tutorial's example.",
    ),
]
_At = Annotated[
    Path | None,
    typer.Option(metavar="x.pt", help="Arguments that torch.save wrote, instead of a sample."),
]
_Traceback = Annotated[
    bool, typer.Option("--traceback", help="On an error, show the whole traceback.")
]


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


@app.command()
def jacobian(
    target: Annotated[str, typer.Argument(metavar="FILE.py:FUNC", help="The function.")],
    at: Annotated[
        Path | None,
        typer.Option(
            metavar="x.pt",
            help="Arguments that torch.save wrote: a tensor, a tuple or list of all of them, or a "
            "dict by name. Without it, what FUNC_sample() or sample() of FILE.py returns.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="J.npz", help="Write the matrix: .npz (SciPy), .pt (torch), .mtx."),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(metavar="plan.npz", help="Use the plan in this file; made where it is not."),
    ] = None,
    spy: Annotated[
        Path | None,
        typer.Option(
            metavar="spy.png", help="Draw the pattern: .png, .svg or .pdf. [default: beside --out]"
        ),
    ] = None,
    layout: Annotated[
        str, typer.Option(help="Of the matrix: csr, coo, or strided (dense, in jacrev's shape).")
    ] = "csr",
    mode: Annotated[
        str, typer.Option(help="The products: auto, fwd (JVPs), rev (VJPs), mixed or dense.")
    ] = "auto",
    argnums: Annotated[
        str, typer.Option(help="The argument to differentiate, from 0; or several: 0,2.")
    ] = "0",
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare with autograd on random vectors.")
    ] = False,
    traceback: _Traceback = False,
) -> None:
    """Plan the sparse Jacobian of a function in a file, compute it, and write it down.

    Exit code: 0 done; 1 the function failed, or --verify found the plan wrong; 2 refused.
    """
    from .commands.jacobian import Request, run

    raise typer.Exit(
        run(Request(target, at, out, plan, spy, layout, mode, argnums, verify, traceback))
    )


@app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
    }
)
def run(
    context: typer.Context,
    script: Annotated[Path, typer.Argument(metavar="SCRIPT", help="A Python file.")],
    quiet: Annotated[bool, typer.Option("--quiet", help="Print no summary at the end.")] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the summary to a file, too.")
    ] = None,
) -> None:
    """Run a script, unmodified, and say what happened to its gradients.

    Whatever follows SCRIPT is its own. Its output, its exceptions and its exit code stay as they
    are; to standard error are added: under a traceback that autograd caused, the diagnosis; at the
    end, a summary of leaves without a gradient, reads of .grad that gave None, gradients that
    were not zeroed or not finite, and graphs that stay in memory.

    Exit code: that of the script; 2 where it cannot be read.
    """
    from .commands.run import Request
    from .commands.run import run as run_script

    raise typer.Exit(run_script(Request(script, context.args, quiet, report, stays=True)))


@app.command()
def explore(
    target: _Pass = "",
    at: _At = None,
    port: Annotated[int, typer.Option(help="Of 127.0.0.1; 0 for a free one.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
    traceback: _Traceback = False,
) -> None:
    """Look at a backward pass in the browser: edit v, and every gradient follows.

    Served to this machine alone, with torch behind it for what the page cannot hold.

    Exit code: 0 done; 1 the function failed; 2 refused.
    """
    from .commands.explore import Request, run

    raise typer.Exit(run(Request(target, at, port, browser, traceback)))


@app.command()
def step(
    target: _Pass = "",
    at: _At = None,
    traceback: _Traceback = False,
) -> None:
    """Walk through a backward pass node by node: look, go back, edit a cotangent, go on.

    Orders are read from standard input, one a line; h lists them.

    Exit code: 0 done; 1 the function failed; 2 refused.
    """
    from .commands.step import Request, run

    raise typer.Exit(run(Request(target, at, traceback)))


@app.command()
def bench(
    problem: Annotated[
        str,
        typer.Argument(
            metavar="[PROBLEM]",
            help="brusselator, burgers, heat, mlp, transpose or springs, all if left out; or "
            "FILE.py:FUNC, at what FUNC_sample() or sample() of the file returns.",
        ),
    ] = "",
    peers: Annotated[
        str, typer.Option(help="Measured beside pullback: some of torch.func,asdex.")
    ] = "torch.func,asdex",
    threads: Annotated[int, typer.Option(help="Threads of torch.")] = 1,
    traceback: _Traceback = False,
) -> None:
    """Time one Jacobian in every way there is: plain, lifted, compiled, torch.func, asdex.

    Medians of interleaved rounds in one process; a time is shown only where the matrix agrees.

    Exit code: 0 done; 1 the function failed; 2 refused.
    """
    from .commands.bench import Request, run

    raise typer.Exit(run(Request(problem, peers, threads, traceback)))


@app.command()
def learn(
    lesson: Annotated[
        int | None, typer.Argument(metavar="[LESSON]", help="Its number; the list if left out.")
    ] = None,
    notebook: Annotated[
        bool, typer.Option("--notebook", help="Write the notebook (of every lesson, if left out).")
    ] = False,
    worked: Annotated[
        bool, typer.Option("--worked", help="With all solutions and outputs; nothing is asked.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the notebook. [default: here]")
    ] = None,
) -> None:
    """List the lessons; run one here: predict, see, answer, be checked; or write its notebook.

    Exit code: 0 done; 1 a cell of the lesson failed; 2 refused.
    """
    from .commands.learn import Request, run

    raise typer.Exit(run(Request(lesson, notebook, worked, out)))


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a character of a drawing gets a "?" for it, not an error.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    app()
