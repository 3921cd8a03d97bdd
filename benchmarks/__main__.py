"""``python -m benchmarks [name ...] [--quick]``: run, show, and write the results down."""

from __future__ import annotations

import argparse
import importlib
from importlib.util import find_spec

import torch
from rich.console import Console

from .report import environment, save, show

MODULES = ("jacobians", "products", "recording")


def main() -> None:
    available = [name for name in MODULES if find_spec(f"benchmarks.{name}")]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(available)}")
    parser.add_argument("--quick", action="store_true", help="fewer, shorter rounds; not saved")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch; 1 if left out")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.names if name not in available]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there is {', '.join(available)}")
    torch.set_num_threads(chosen.threads)
    console = Console()
    console.print(environment())
    for name in chosen.names or available:
        tables = importlib.import_module(f"benchmarks.{name}").run(chosen.quick)
        show(tables, console)
        if not chosen.quick:
            save(name, tables, f"python -m benchmarks {name} --threads {chosen.threads}")


if __name__ == "__main__":
    main()
