"""Where a captured graph finds the tensors of the program again, and what it would miss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from .. import _checks
from .arguments import Arguments
from .captured import NotCaptured, Recorded
from .graph import packet_name
from .reads import Read
from .state import State
from .tape import Tape


def _reads_past_its_own(module: fx.GraphModule, arguments: Arguments) -> bool:
    """as_strided counts from the start of the storage, which a fresh copy has of its own."""
    part = any(
        t.layout is torch.strided
        and (t.storage_offset() or t.untyped_storage().nbytes() > t.numel() * t.element_size())
        for t in (*arguments.primals, *arguments.others)
    )
    return part and any(
        node.op == "call_function" and "as_strided" in packet_name(node)
        for node in module.graph.nodes
    )


def is_masked(read: Read, tape: Tape) -> bool:
    return read in tape.shapes_from_data and read.what in ("index", "_unsafe_index")


def masked_reads(tape: Tape) -> str:
    """Where a mask of varying data sizes a tensor, in words, or nothing."""
    for read in tape.shapes_from_data:
        if read.taint.varies and is_masked(read, tape):
            return f"its shapes follow from data that vary ({read.what} at {read.where})"
    return ""


def what_a_replay_would_miss(
    recorded: Recorded, state: State, arguments: Arguments
) -> tuple[set[str], str]:
    """The names of the tensors whose content must be guarded, and what no guard would catch.

    Picks by a mask are left out: they may be put in another form.
    """
    tape = recorded.tape
    for reason in (*state.unseen, *tape.problems, *tape.draws.problems):
        return set(), reason
    owner = Owners(tape, state, arguments)
    guards: set[str] = set()
    for read in tape.reads + tape.shapes_from_data:
        if read.taint.varies and is_masked(read, tape):
            continue
        if read.taint.varies:
            at = f" at {read.where}" if read.where else ""
            how = "its shapes follow" if read in tape.shapes_from_data else "it reads values"
            return set(), f"{how} from data that vary ({read.what}{at})"
        try:
            guards |= {owner.of(name) for name in read.taint.sources}
        except NotCaptured as refusal:
            return set(), str(refusal)
    if _reads_past_its_own(recorded.module, arguments):
        return set(), "as_strided may reach beyond an argument that is part of a larger tensor"
    return guards, ""


@dataclass
class Owners:
    """Where a tensor of the tape can be read again: an argument's name or a path of the state.

    ``lenient``: the graph is for one look only, and tensors that nobody finds again keep the name
    that the tape gave them.
    """

    tape: Tape
    state: State
    arguments: Arguments
    lenient: bool = False

    def of(self, name: str) -> str:
        if name in self.arguments.other_names:
            return name
        tensor = self.tape.constants[name]
        path = self.state.path_of(tensor)
        if path is None:
            if self.lenient:
                return name
            shape = _checks.shape_text(tensor.shape)
            raise NotCaptured(f"it uses a tensor of shape {shape} that nobody can find again")
        return path

    def is_known(self, path: str) -> bool:
        return path not in self.tape.constants
