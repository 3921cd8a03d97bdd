"""What a run was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PEERS = ("forward", "hand", "dense", "asdex", "sparsejac")


@dataclass(frozen=True)
class Options:
    """All but ``quick`` and ``threads`` are for the Jacobians and Hessians.

    ``only``: parts of problems' names; ``peers``: what is measured beside pullback; ``memory``:
    peaks of memory too; ``bundle``: a folder with GradBench's input files; ``out``: where figures
    and times go.
    """

    quick: bool = False
    threads: int = 1
    only: tuple[str, ...] = ()
    peers: tuple[str, ...] = PEERS
    memory: bool = False
    bundle: Path | None = None
    out: Path | None = None

    @property
    def whole(self) -> bool:
        """Whether the results may stand for those of all problems."""
        return not self.quick and not self.only and set(self.peers) == set(PEERS)
