"""``python -m benchmarks [name ...]``: run, show, and write the results down.

Only a whole run replaces its section of RESULTS.md; ``--quick``, ``--only`` and ``--peers`` show
what they measure and write it where ``--out`` says.
"""

from __future__ import annotations

import argparse
import importlib
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from .options import PEERS, Options
from .report import RESULTS, environment, save, show

MODULES = (
    "jacobians",
    "hessians",
    "products",
    "recording",
    "watching",
    "explorer",
    "solvers",
)


def main() -> None:
    names, options = _parsed()
    torch.set_num_threads(options.threads)
    console = Console()
    console.print(environment())
    for name in names:
        tables = importlib.import_module(f"benchmarks.{name}").run(options)
        show(tables, console)
        if options.whole:
            save(_section(name, options), tables, _command(name, options))


def _parsed() -> tuple[list[str], Options]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("names", nargs="*", metavar="name", help=f"of {', '.join(MODULES)}; all if left out")
    add("--quick", action="store_true", help="small problems, few rounds; not saved")
    add("--threads", type=int, default=1, help="threads of torch and of the peers; 1 if left out")
    add("--only", nargs="+", default=[], metavar="NAME", help="problems whose names contain NAME")
    add("--peers", nargs="+", default=PEERS, choices=PEERS, help="what is measured beside pullback")
    add("--memory", action="store_true", help="peaks of memory too, each in a process of its own")
    add("--bundle", type=Path, metavar="FOLDER", help="GradBench's input files, such as ba1_*.txt")
    add("--out", type=Path, metavar="FOLDER", help="where JSON and plots of the matrices go")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in MODULES]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there is {', '.join(MODULES)}")
    if given.bundle is not None and not given.bundle.is_dir():
        parser.error(f"--bundle {given.bundle} is no folder")
    options = Options(
        given.quick,
        given.threads,
        tuple(given.only),
        tuple(given.peers),
        given.memory,
        given.bundle,
        given.out,
    )
    if options.whole and options.out is None:
        folder = RESULTS.parent / "results" / f"threads-{options.threads}"
        options = replace(options, out=folder)
    return given.names or list(MODULES), options


def _section(name: str, options: Options) -> str:
    return name if options.threads == 1 else f"{name}, {options.threads} threads"


def _command(name: str, options: Options) -> str:
    memory = " --memory" if options.memory else ""
    bundle = " --bundle FOLDER" if options.bundle else ""
    return f"python -m benchmarks {name} --threads {options.threads}{memory}{bundle}"


if __name__ == "__main__":
    main()
