"""A ledger of a whole program: of every leaf that its graphs turn out to be made of."""

from __future__ import annotations

import math
import sys
from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .. import _torch
from .._errors import PullbackError
from . import noting, origins
from .accounts import Account
from .birth import Birth
from .births import find_nonfinite
from .bookkeeper import Bookkeeper
from .booktext import by_words
from .enginecalls import Asked, EngineCall
from .events import UserCall
from .graph import Graph, walk
from .growth import Growth, Holder, count_in, largest_holder
from .provenance import parameter_name, trace
from .question import Question
from .sites import Site, call_at
from .verdict import Verdict
from .watch import posthook_names, prehook_names
from .whynone import of_missing

_CALLER = "pullback run"
_LIMIT = 200
_MOST_ACCOUNTS = 5000
_MOST_SIGHTINGS = 20


@dataclass
class Sightings:
    """What a program did to its gradients, beside the entries of the ledger."""

    missing: dict[Account, Verdict] = field(default_factory=dict)
    none_reads: dict[tuple[str, int, str], tuple[UserCall, Verdict]] = field(default_factory=dict)
    births: list[tuple[EngineCall, Birth]] = field(default_factory=list)
    nonfinite: dict[str, EngineCall] = field(default_factory=dict)
    holders: list[tuple[EngineCall, int, Holder | None]] = field(default_factory=list)
    unasked: str = ""


class Overseer(Bookkeeper):
    """The `Listener` of ``pullback run``: accounts come into being with the leaves."""

    holds = False

    def __init__(self, tracing: trace) -> None:
        super().__init__({}, contents=False, limit=_LIMIT)
        self._trace = tracing
        self.seen = Sightings()
        self.finished_calls = 0
        self.gone = Counter[str]()
        self._growth = Growth()
        self._asked_at: set[tuple[str, int]] = set()
        self._ask_again = False

    def start(self) -> None:
        origins.on_new_leaf.append(self._leaf_was_used)
        noting.on_new_node.append(count_in)

    def stop(self, call: UserCall) -> None:
        origins.on_new_leaf.remove(self._leaf_was_used)
        noting.on_new_node.remove(count_in)
        self._look_for_missing(finally_=True)
        self.close(call)

    def _leaf_was_used(self, leaf: Tensor) -> None:
        """Told once for every node that writes to a leaf: it needs hooks of its own."""
        known = self._account_of(leaf)
        if known is not None:
            self._watch(known)
            return
        if len(self.accounts) >= _MOST_ACCOUNTS:
            return
        account = Account(name_of(leaf), leaf, self.limit, contents=False)
        self.accounts.append(account)
        self._of_tensor[id(leaf)] = account
        self._open(account)

    def engine_begins(self, call: EngineCall, asked: Asked) -> None:
        super().engine_begins(call, asked)
        place = (call.call.file, call.call.line)
        first = place not in self._asked_at
        if call.writes and (first or self._ask_again or _spoiled(asked)):
            self._asked_at.add(place)
            self._ask_for_births(call, asked)

    def _ask_for_births(self, call: EngineCall, asked: Asked) -> None:
        """Look once at a line's first backward, and again after a gradient was not finite."""
        outputs = [output for output in asked.outputs if output.requires_grad]
        if len(self.seen.births) >= _MOST_SIGHTINGS or len(outputs) != len(asked.outputs):
            return
        if any(_torch.is_transform_tensor(output) for output in outputs):
            return
        if runs_python(walk(outputs)):
            self.seen.unasked = by_words(call.call)
            return
        weights = [
            torch.ones_like(output) if weight is None else weight
            for output, weight in zip(outputs, asked.cotangents, strict=True)
        ]
        try:
            birth = find_nonfinite(outputs, weights)
        except (PullbackError, RuntimeError):
            return  # the call itself will say what is wrong
        self._ask_again = False
        known = {(b.node, b.call) for _, b in self.seen.births}
        if birth is not None and (birth.node, birth.call) not in known:
            self.seen.births.append((call, birth))

    def engine_ended(self, call: EngineCall) -> None:
        super().engine_ended(call)
        if call.error:
            return
        for account in self.accounts:
            last = account.entries[-1] if account.entries else None
            if last is None or last.engine_call is not call or last.amount is None:
                continue
            if not math.isfinite(last.amount):
                self.seen.nonfinite.setdefault(account.name, call)
                self._ask_again = True
        if call.writes:
            self.finished_calls += 1
            self._look_for_missing(finally_=False)
            if self._growth.grown(call):
                self.seen.holders.append((call, self.finished_calls, largest_holder()))
        self._close_what_is_gone()

    def _close_what_is_gone(self) -> None:
        """Leaves of one iteration: counted, and kept only where there is something to tell."""
        kept = []
        for account in self.accounts:
            if account.tensor() is None and not (account.reused or account.counts["unlogged"]):
                self.gone["leaves"] += 1
                self.gone["deposits"] += account.counts["deposit"]
                self._hooks.pop(account, None)
                self._incoming.pop(account, None)
            else:
                kept.append(account)
        if len(kept) < len(self.accounts):
            self.accounts = kept
            self._of_tensor = {k: a for k, a in self._of_tensor.items() if a.tensor() is not None}
            self._of_memory = {k: a for k, a in self._of_memory.items() if a.tensor() is not None}

    def _look_for_missing(self, *, finally_: bool) -> None:
        """Ask while the tensors are there: at the second backward, and at the end."""
        if not finally_ and self.finished_calls not in (2, 8):
            return
        for parameter in self._trace.parameters():
            if parameter.requires_grad:
                self._leaf_was_used(parameter)
        for account in self.accounts:
            tensor = account.tensor()
            if account.counts["deposit"] or tensor is None or not tensor.requires_grad:
                continue
            if not self.calls:
                continue
            account.name = name_of(tensor, account.name)
            question = Question.about(_CALLER, account.name, tensor, None)
            self.seen.missing[account] = of_missing(question)

    def grad_was_none(self, owner: Tensor, where: Site) -> None:
        call = call_at(where, "grad")
        place = (call.file, call.line, call.code)
        full = len(self.seen.none_reads) >= _MOST_SIGHTINGS
        if where.entered is not None or place in self.seen.none_reads or full or not call.line:
            return
        with torch.inference_mode(False):
            question = Question.about(_CALLER, name_of(owner), owner, None)
            self.seen.none_reads[place] = (call, of_missing(question))


def _spoiled(asked: Asked) -> bool:
    """Whether the numbers to be differentiated are not finite to begin with."""
    return any(
        output.numel() == 1 and not math.isfinite(float(output.detach().real))
        for output in asked.outputs
        if output.device.type == "cpu" and not _torch.is_transform_tensor(output)
    )


def runs_python(graph: Graph) -> bool:
    """Whether a look would run code of the user's once more: in hooks, Functions, checkpoints."""
    for node in graph.nodes:
        leaf = _torch.leaf_of(node)
        if leaf is not None and leaf._backward_hooks:
            return True
        if leaf is None and (
            _torch.custom_function(node) is not None
            or prehook_names(node)
            or posthook_names(node)
            or _torch.has_packed(node)
        ):
            return True
    return bool(_torch.watched_tensors(graph.children_of).hooked)


def name_of(tensor: Tensor, otherwise: str = "") -> str:
    """What a module or the program's own top level calls the tensor."""
    known = parameter_name(tensor)
    if known is not None:
        return known
    main = vars(sys.modules["__main__"])
    for name, value in list(main.items()):
        if value is tensor and not name.startswith("_"):
            return name
    return otherwise or f"a tensor of shape {tuple(tensor.shape)}"
