"""One problem: every candidate is compared with pullback's matrix, then timed beside the others."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import scipy.sparse
from torch import Tensor

import pullback as pb

from ..options import Options
from ..peers import dense
from ..peers.agreement import check_product, disagreement
from ..peers.client import JaxPeers, PeerError
from ..peers.turns import COLD, QUICK, WARM, Timed, once, reason, take_turns, timed, total
from ..problems import by_hand
from ..problems.catalogue import Problem
from ..timing import Cell, Timing
from .ours import (
    COMPILED,
    IN_PLACE,
    LIFTED,
    NAMES,
    NO_PLAN,
    PLAIN,
    Ours,
    prepare,
    without_graph,
)  # fmt: skip

DENSE_BYTES = 2**30
QUICK_DENSE_BYTES = 2**26
TOO_LONG = 3.0  # seconds
FORMS = {"asdex values": "values", "asdex BCOO": "bcoo", "asdex CSR": "csr"}
Cells = dict[str, Cell]


@dataclass
class Result:
    """What was measured on a problem. ``wrong`` names candidates whose matrices differ."""

    problem: Problem
    facts: dict[str, Any]
    set_up: Cells = field(default_factory=dict)
    cold: Cells = field(default_factory=dict)
    warm: Cells = field(default_factory=dict)
    memory: dict[str, int | str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)


def measure(problem: Problem, jax: JaxPeers | str, options: Options) -> Result:
    ours = prepare(problem)
    derivative, func, x = ours.derivative, ours.func, ours.x
    truth = derivative.matrix(func, plan=ours.plain, layout="scipy")(x)
    check_product(derivative.first(func), x, truth)
    result = Result(problem, _facts(ours))
    if not isinstance(jax, str):
        jax = _opened(jax, problem)
    candidates = _ours(ours, truth, result)
    if "forward" in options.peers:
        candidates["forward"] = timed(partial(without_graph, func, x))
    if "hand" in options.peers:
        candidates["by hand"] = _by_hand(problem, x, truth, result)
    best = Dense("", "")
    if "dense" in options.peers:
        best = _best_dense(ours, truth, options.quick, result)
        candidates["torch.func"] = best.run
    with_jax = _JaxTurns(jax, options, result)
    result.set_up = _set_up(ours, with_jax)
    candidates |= with_jax.evaluations(truth)
    result.cold = _cold(ours, with_jax, result.set_up)
    withheld = {name: result.wrong.get(name, run) for name, run in candidates.items()}
    result.warm = take_turns(withheld, QUICK if options.quick else WARM)
    cell = result.warm.get("torch.func")
    if isinstance(cell, Timing):
        result.warm["torch.func"] = replace(cell, note=best.name)
    return result


def _facts(ours: Ours) -> dict[str, Any]:
    plain, chosen = ours.plain, ours.chosen
    m, n = plain.pattern.shape
    return {
        "rows": m,
        "columns": n,
        "nnz": plain.pattern.nnz,
        "plain": f"{plain.num_products} {_way(plain)}",
        "chosen": f"{chosen.num_products} {'lifted' if chosen.lifted else chosen.mode}",
        "reason": chosen.reason,
        "colors": {
            kind: pb.color(plain.pattern, kind).num_colors for kind in ours.derivative.colorings
        },
    }


def _way(plain: pb.Plan) -> str:
    kind: str = plain.coloring.kind
    return kind if kind in ("star", "acyclic") else plain.mode


def _opened(jax: JaxPeers, problem: Problem) -> JaxPeers | str:
    try:
        jax.open(problem)
    except PeerError as error:
        return reason(error)
    return jax


def _ours(ours: Ours, truth: scipy.sparse.csr_array, result: Result) -> dict[str, Timed | str]:
    candidates: dict[str, Timed | str] = {}
    for name in (*NAMES, IN_PLACE, NO_PLAN):
        run = ours.evaluations[name]
        candidates[name] = ours.warm(name)
        if not isinstance(run, str):
            try:
                found = without_graph(run, ours.x)
            except Exception as error:  # shown, as a peer's would be
                candidates[name] = reason(error)
                continue
            _compare(name, truth, found if name == NO_PLAN else _to_scipy(found), result)
    return candidates


def _compare(name: str, truth: scipy.sparse.csr_array, found: Any, result: Result) -> None:
    if text := disagreement(truth, found):
        result.wrong[name] = text


def _to_scipy(found: Tensor) -> scipy.sparse.csr_array:
    parts = (found.values(), found.col_indices(), found.crow_indices())
    return scipy.sparse.csr_array(tuple(part.numpy() for part in parts), shape=tuple(found.shape))


def _by_hand(
    problem: Problem, x: Tensor, truth: scipy.sparse.csr_array, result: Result
) -> Timed | str:
    written = by_hand.build(problem)
    if written is None:
        return "nobody wrote one"
    entries = (written.values(x).numpy(), (written.rows, written.cols))
    matrix = scipy.sparse.coo_array(entries, shape=truth.shape).tocsr()
    _compare("by hand", truth, matrix, result)
    return timed(partial(without_graph, written.values, x))


@dataclass(frozen=True)
class Dense:
    """The fastest way of torch.func by a first look, or why there is none, and its name."""

    run: Timed | str
    name: str


def _best_dense(ours: Ours, truth: scipy.sparse.csr_array, quick: bool, result: Result) -> Dense:
    m, n = truth.shape
    size = m * n * ours.x.element_size()
    if size > (QUICK_DENSE_BYTES if quick else DENSE_BYTES):
        return Dense(f"dense: {size / 2**30:,.1f} GiB", "")
    looks: dict[str, tuple[float, Callable[[], Tensor]]] = {}
    matrix, refusal = None, ""
    for name, way in dense.variants(size, result.problem.matrix).items():
        run: Callable[[], Tensor] = partial(way, ours.func, ours.x)
        try:
            seconds, found = _look(run)
        except Exception as error:  # one mode may lack a formula that another has
            refusal = reason(error)
            continue
        if not looks or seconds < min(looks.values(), key=lambda look: look[0])[0]:
            matrix = found
        looks[name] = (seconds, run)
        if seconds > TOO_LONG and len(looks) == 2:
            break  # both modes were seen, and a third look takes as long
    if matrix is None:
        return Dense(refusal, "")
    _compare("torch.func", truth, matrix, result)
    best = min(looks, key=lambda name: looks[name][0])
    seconds, run = looks[best]
    result.facts["dense"] = {name: look[0] for name, look in looks.items()}
    if seconds > (QUICK if quick else WARM).slow:
        return Dense(lambda calls: seconds, best)  # the look was its one call
    return Dense(timed(run), best)


def _look(run: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Seconds of one call, of the second where the first is quick."""
    for _ in range(2):
        start = time.perf_counter()
        found = run()
        seconds = time.perf_counter() - start
        if seconds > 0.5:
            break
    return seconds, found


class _JaxTurns:
    """asdex and sparsejac on the open problem, as candidates that time themselves."""

    def __init__(self, jax: JaxPeers | str, options: Options, result: Result) -> None:
        self._jax, self._result = jax, result
        self.limits = QUICK if options.quick else COLD
        self.asdex, self.sparsejac = "asdex" in options.peers, "sparsejac" in options.peers

    def step(self, do: str, **request: Any) -> Timed | str:
        jax = self._jax
        return jax if isinstance(jax, str) else lambda n: jax.seconds(do, n, **request)

    def evaluations(self, truth: scipy.sparse.csr_array) -> dict[str, Timed | str]:
        """Those of every form, after their matrices were compared; they are compiled then."""
        forms = dict(FORMS) if self.asdex else {}
        if self.sparsejac:
            forms["sparsejac"] = "sparsejac"
        found: dict[str, Timed | str] = {}
        for name, form in forms.items():
            found[name] = self.step("evaluate", form=form)
            if isinstance(self._jax, str):
                continue
            try:
                _compare(name, truth, self._jax.matrix(form), self._result)
            except PeerError as error:
                found[name] = reason(error)
        return found

    def tell_facts(self) -> None:
        if not isinstance(self._jax, str):
            try:
                self._result.facts["asdex"] = self._jax.facts()
            except PeerError as error:
                self._jax = reason(error)


def _set_up(ours: Ours, jax: _JaxTurns) -> Cells:
    """asdex detects and colors once more than it is timed: sparsejac is given its pattern."""
    candidates: dict[str, Timed | str] = {
        PLAIN: ours.planning(False),
        LIFTED: ours.planning("auto"),
    }
    if jax.asdex:
        candidates |= {name: jax.step(do) for name, do in STEPS.items()}
    cells = take_turns(candidates, jax.limits)
    if jax.asdex or jax.sparsejac:
        jax.tell_facts()
    if jax.asdex:
        cells["asdex"] = total("asdex", [cells[name] for name in STEPS])
    if jax.sparsejac:
        step = jax.step("color_sparsejac")
        cells["sparsejac coloring"] = step if isinstance(step, str) else once("sparsejac", step)
    return cells


STEPS = {"asdex detection": "detect", "asdex coloring": "color"}


def _cold(ours: Ours, jax: _JaxTurns, set_up: Cells) -> Cells:
    candidates: dict[str, Timed | str] = {"pullback": ours.first()}
    if jax.asdex:
        candidates["asdex compilation"] = jax.step("compile", form="values")
    cells = take_turns(candidates, jax.limits)
    cells[COMPILED] = ours.first_compiled
    if jax.asdex:
        cells["asdex"] = total("asdex", [set_up["asdex"], cells["asdex compilation"]])
    return cells
