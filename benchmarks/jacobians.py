"""Sparse Jacobians: ``pb.plan_jacobian`` and ``pb.jacobian`` beside asdex and ``torch.func``.

asdex runs in a process and an environment of its own, see ``benchmarks.peers.client``. All
candidates differentiate the same function of the same float64 numbers, and a problem's times are
shown only where their matrices agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

import scipy.sparse
import torch
from rich.console import Console
from torch import Tensor

import pullback as pb

from .peers.agreement import disagreement
from .peers.client import INSTALL, Asdex, PeerError, interpreter
from .peers.dense import CHUNK, jacfwd, jacrev
from .peers.in_torch import Func, build
from .peers.problems import FULL, QUICK, Problem
from .peers.turns import Timed, reason, take_turns, timed
from .timing import Row, Table, Timing

DENSE_BYTES = 2**30
SET_UP = ("pb.plan_jacobian", "asdex")
FIRST = ("pullback", "asdex")
EVALUATION = ("pb.jacobian", "jacrev", "jacfwd", "asdex, values", "asdex, BCOO")
FORMS = ("values", "bcoo")
NOTES = (
    "asdex: `jacobian_coloring`. Both in a process that has planned before, with Python's garbage "
    "collector on.",
    "The plan, what is captured or compiled at the first call, and one evaluation (asdex: to its "
    "values under `jax.jit`, which compiles in less time than to BCOO).",
    "With a plan, to a CSR tensor, under `no_grad`; asdex compiled, to its values alone and to "
    f"BCOO. `jacrev` and `jacfwd` are dense, in chunks of {CHUNK}, and left out above 1 GiB.",
)


@dataclass(frozen=True)
class Case:
    """One problem with our plan for it, and the peer, or why there is none."""

    problem: Problem
    func: Func
    x: Tensor
    plan: pb.Plan
    peer: Asdex | str

    def asked(self, what: str) -> Timed | str:
        """The peer's candidate of that name."""
        if isinstance(self.peer, str):
            return self.peer
        candidate: Timed = getattr(self.peer, what)
        return candidate

    def dense(self, how: Callable[[Func, Tensor], Tensor]) -> Callable[[], Tensor] | str:
        m, n = self.plan.pattern.shape
        size = m * n * self.x.element_size()
        if size > DENSE_BYTES:
            return f"{size / 2**30:,.0f} GiB"
        return partial(how, self.func, self.x)


def run(quick: bool) -> list[Table]:
    log = Console(stderr=True)
    python = interpreter()
    absent = f"jax and asdex are not installed: `{INSTALL}`"
    if python is None:
        log.print(absent, style="bold red")
    kinds: tuple[list[Row], list[Row], list[Row]] = ([], [], [])
    peer_process = None if python is None else Asdex(python, torch.get_num_threads())
    with peer_process or nullcontext() as peer:
        against = absent if peer is None else f"In a process of its own: {peer.versions()}."
        for problem in QUICK if quick else FULL:
            log.print(problem.name, style="dim")
            for rows, row in zip(kinds, _rows(problem, peer, quick, log), strict=True):
                rows.append(row)
    titles = (
        "Set-up: capture, detection, coloring",
        "From a function to its first matrix",
        "One evaluation",
    )
    return [
        Table(title, columns, tuple(rows), " ".join((note, against, *_once(columns, rows))))
        for title, columns, rows, note in zip(
            titles, (SET_UP, FIRST, EVALUATION), kinds, NOTES, strict=True
        )
    ]


def _rows(problem: Problem, peer: Asdex | None, quick: bool, log: Console) -> tuple[Row, Row, Row]:
    case = _case(problem, peer)
    planning = {"ours": timed(partial(pb.plan_jacobian, case.func, case.x))}
    set_up = take_turns(planning | {"asdex": case.asked("plan")}, quick=quick)
    if isinstance(set_up[1], str):
        case = replace(case, peer=set_up[1])
    try:
        wrong = _disagreements(case)
    except PeerError as error:
        case = replace(case, peer=reason(error))
        set_up, wrong = (set_up[0], reason(error)), _disagreements(case)
    name = f"{problem.name}: {_facts(case)}"
    if any(wrong):
        log.print(f"{name}: the matrices differ: {wrong}", style="bold red")
        withheld = "not shown: the matrices differ"
        told = tuple(text or withheld for text in wrong)
        return Row(name, (withheld,) * 2), Row(name, (withheld,) * 2), Row(name, (withheld, *told))
    starting = {"ours": timed(partial(_first, case.func, case.x))}
    first = take_turns(starting | {"asdex": case.asked("first")}, quick=quick)
    return Row(name, set_up), Row(name, first), Row(name, _evaluation(case, quick))


def _case(problem: Problem, peer: Asdex | None) -> Case:
    func, x = build(problem)
    reached: Asdex | str = "not installed" if peer is None else peer
    if peer is not None:
        try:
            peer.open(problem)
        except PeerError as error:
            reached = reason(error)
    plan = pb.plan_jacobian(func, x)
    pb.verify(func, x, plan=plan)
    return Case(problem, func, x, plan, reached)


def _facts(case: Case) -> str:
    plan = case.plan
    nnz, products = f"nnz {plan.pattern.nnz:,}", f"{plan.num_products} {plan.mode}"
    if not isinstance(case.peer, str):
        facts = case.peer.facts()
        nnz += f" / {facts['nnz']:,}"
        products += f" / {facts['products']} {facts['mode']}"
    return f"{nnz}, products {products}"


def _first(func: Func, x: Tensor) -> Tensor:
    return _evaluated(pb.jacobian(func, plan=pb.plan_jacobian(func, x)), x)


def _evaluated(jac: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.no_grad():
        return jac(x)


def _evaluation(case: Case, quick: bool) -> tuple[Timing | str, ...]:
    jac = pb.jacobian(case.func, plan=case.plan)
    _evaluated(jac, case.x)  # captures; the peer compiled when its matrix was compared
    candidates: dict[str, Timed | str] = {"ours": timed(partial(_evaluated, jac, case.x))}
    for how in (jacrev, jacfwd):
        dense = case.dense(how)
        candidates[how.__name__] = dense if isinstance(dense, str) else timed(dense)
    candidates |= {form: case.asked(form) for form in FORMS}
    return take_turns(candidates, quick=quick)


def _disagreements(case: Case) -> tuple[str, ...]:
    """One text for every candidate but ours, empty where it agrees or gives no matrix."""
    ours = pb.jacobian(case.func, plan=case.plan, layout="scipy")(case.x)
    found = []
    for how in (jacrev, jacfwd):
        dense = case.dense(how)
        found.append("" if isinstance(dense, str) else disagreement(ours, dense()))
    return *found, *_peer_disagreements(ours, case.peer)


def _peer_disagreements(ours: scipy.sparse.csr_array, peer: Asdex | str) -> list[str]:
    """A form that the peer refuses is left to its cell; one that refuses all has no matrix."""
    found, refused = [], []
    for form in FORMS:
        try:
            text = "" if isinstance(peer, str) else disagreement(ours, peer.matrix(form))
        except PeerError as error:
            refused.append(error)
            text = ""
        found.append(text)
    if len(refused) == len(FORMS):
        raise refused[0]
    return found


def _once(columns: tuple[str, ...], rows: Sequence[Row]) -> list[str]:
    """Says which cells are a single measurement, so that nobody reads a spread into them."""
    single = [
        f"{column} on {row.problem.partition(':')[0]}"
        for row in rows
        for column, cell in zip(columns, row.timings, strict=True)
        if isinstance(cell, Timing) and cell.rounds == 1
    ]
    return [f"Measured once, being slow: {'; '.join(single)}."] if single else []
