"""One entry of a derivative that is in doubt: what each way says of it, and what may excuse it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _checks, _torch
from .._adjoint import python_written
from .._differences import bound_text, largest
from .._mistakes import Compared, likely_mistake
from ..draw.numbers import number
from .cutting import coarser_than, cut_of
from .witnesses import Differences, Problem, Reference, Seen, Witness, element

# What two right ways may differ by, relative to the terms that they add up.
_LOOSE = {torch.float64: 1e-6, torch.float32: 2e-2}
# Differences that tell less than this of the largest entry are no witness.
COARSE = 0.05
# Up to this many entries, all of them are asked for, to see what they have in common.
_FEW = 2048
_FEW_COLUMNS = 64


@dataclass
class Findings:
    """What was compared, what could not be, and how finely; and how func cuts its gradients, once
    that was asked."""

    compared: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    resolved: float = 0.0
    cut: str | None = None

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


class Measured(NamedTuple):
    """An entry by differences, how far it may be off, and whether there is a kink: at the entry,
    or in its column."""

    value: float
    error: float
    kinked: bool
    rough: bool


class Entries:
    """The derivative at one point, by plain autograd and by other ways, entry by entry."""

    def __init__(self, problem: Problem, findings: Findings) -> None:
        self.problem, self.findings = problem, findings
        self.reference: Reference = problem.reference()
        self.name = "reverse over reverse" if problem.order > 1 else "reverse mode"
        self.loose = _LOOSE.get(problem.point.dtype, 0.2)
        self.generator = torch.Generator().manual_seed(1)
        self.differences: Differences | None = None
        self.ways: list[Witness] = []

    def _normal(self, like: Tensor) -> Tensor:
        drawn = torch.randn(like.shape, generator=self.generator, dtype=torch.float64)
        return drawn.to(like)

    def _directions(self) -> list[Tensor]:
        """As long as the point: by the largest entry of each tensor, and by every entry itself."""
        uniform = torch.cat([_scale(p).expand(p.numel()) for p in self.problem.primals])
        own = torch.maximum(self.problem.point.abs(), 1e-3 * uniform)
        return [self._normal(uniform) * uniform, self._normal(own) * own]

    def _unit(self, place: int, size: int) -> Tensor:
        unit = self.problem.point.new_zeros(size)
        unit[place] = 1
        return unit

    def _said_by(self, way: Witness | Reference, entry: tuple[int, int]) -> float:
        (i, j), (m, n) = entry, self.reference.shape
        if way.row is not None:
            return float(way.row(self._unit(i, m))[j])
        assert way.along is not None
        return float(way.along(self._unit(j, n))[i])

    def _seen(self, entry: tuple[int, int]) -> Measured | None:
        """By differences; None where they are not asked."""
        if self.differences is None:
            return None
        i, (seen, length) = entry[0], self._column(entry[1])
        claimed = self.reference.along(length * self._unit(entry[1], self.reference.shape[1]))
        scale = max(largest(seen.values), largest(claimed))
        kinks = seen.rough | ~(seen.errors <= COARSE * scale)
        return Measured(
            float(seen.values[i]) / length,
            float(seen.errors[i]) / length,
            bool(kinks[i]),
            bool(kinks.any()),
        )

    def _column(self, j: int) -> tuple[Seen, float]:
        assert self.differences is not None
        point = self.problem.point
        length = float(point[j].abs()) or float(self._directions()[0].abs().amax()) or 1.0
        return self.differences.along(length * self._unit(j, len(point))), length

    def _proves_nothing(self, seen: Measured, *values: float) -> bool:
        """At a kink anything may come out, nan where the column has one somewhere."""
        return seen.kinked or (seen.rough and not all(map(math.isfinite, values)))

    def _apart(self, a: float, b: float, error: float = 0.0) -> bool:
        if not (math.isfinite(a) and math.isfinite(b)):
            return math.isfinite(a) != math.isfinite(b)
        return abs(a - b) > 10 * error + self.loose * (abs(a) + abs(b)) + 1e-300

    def _is_cut(self) -> bool:
        """Whether func hides a part of itself from autograd; noted, once it matters."""
        findings, problem = self.findings, self.problem
        if findings.cut is None:
            with problem.run():
                findings.cut = cut_of(problem.users_function, problem.leaves())
        if findings.cut:
            findings.note(
                f"func cuts gradients by its own means ({findings.cut}), so that differences of "
                f"its values tell another derivative than its backward; that is no fault"
            )
        return bool(findings.cut)

    def _is_surrogate(self, differences: Differences) -> bool:
        """Whether the gradient is none of the function's values: it then may be differentiated by
        the same rules, and differences go by others."""
        problem = self.problem
        if problem.order == 1:
            return False
        gradient = problem.value(problem.point)
        for t in self._directions():
            seen = differences.of_users_function(t)
            apart = float((seen.values - gradient @ t).abs())
            allowed = 10 * float(seen.errors) + self.loose * float(gradient.abs() @ t.abs())
            if not bool(seen.rough) and apart > allowed:
                self.findings.note(
                    "the gradient is not that of func's values (a straight-through estimator, a "
                    "surrogate), so that their differences tell nothing of its derivative; ask "
                    "pb.verify(func, *args) about it"
                )
                return True
        return False

    def _is_coarse(self) -> bool:
        problem = self.problem
        with problem.run():
            coarse = coarser_than(problem.users_function, problem.leaves())
        if coarse:
            self.findings.note(
                f"func computes in {coarse}: what differences contradict there may be its rounding"
            )
        return bool(coarse)

    def _note_kink(self) -> None:
        self.findings.note("entries at kinks, where there is no derivative, were not checked")

    def _names(self, entry: tuple[int, int]) -> tuple[str, str]:
        rows = self.reference.returned
        return element(rows, entry[0]), element(self.problem.inputs, entry[1])

    def _modes_disagree(
        self,
        way: Witness,
        entry: tuple[int, int],
        mine: float,
        its: float,
        seen: Measured | None,
    ) -> Exception:
        values = [(self.name, mine)] + [(w.name, self._said_by(w, entry)) for w in self.ways]
        said = [(name, f"{value:.6g}") for name, value in values]
        verdict = f"They are {number(abs(mine - its))} apart."
        remedy = "Nothing else tells which is right."
        if seen is not None:
            said.append(("finite differences", _measured(seen)))
            right = [name for name, value in values if not self._apart(value, *seen[:2])]
            wrong = [name for name, value in values if name not in right]
            verdict += " " + _supported(right, wrong)
            remedy = _remedy(right, self.problem.order)
        remedy += self._hint()
        names = self._names(entry)
        return _checks.modes_disagree(
            self.problem.caller, self.problem.order, entry, names, said, verdict, remedy
        )

    def _differences_disagree(
        self, entry: tuple[int, int], mine: float, seen: Measured
    ) -> Exception:
        values = [(self.name, mine)] + [(w.name, self._said_by(w, entry)) for w in self.ways]
        said = [(name, f"{value:.6g}") for name, value in values]
        said.append(("finite differences", _measured(seen)))
        said.append(("off by", _off(mine, seen.value)))
        return _checks.differences_disagree(
            self.problem.caller, self.problem.order, entry, self._names(entry), said,
            self._mistake(), self._custom(), self._hint(),
        )  # fmt: skip

    def _custom(self) -> list[str]:
        nodes = python_written(self.problem.users_outputs(self.problem.point))
        names = (node.name().removesuffix("Backward") for node in nodes)
        return list(dict.fromkeys(names))[:2]

    def _hint(self) -> str:
        """What to write where operations are differentiated for symmetric matrices only."""
        nodes = _torch.nodes_behind(self.problem.users_outputs(self.problem.point))
        names = [node.name() for node in nodes]
        if any("Cholesky" in name or "Eigh" in name for name in names):
            return (
                " cholesky, eigh and their kin read one triangle of a matrix, and their "
                "derivatives take it for symmetric: give them (A + A.mT) / 2, or L.tril()."
            )
        return ""

    def _mistake(self) -> str:
        """What the wrong entries have in common, where there are few enough to ask for all."""
        m, n = self.reference.shape
        if self.reference.matrix is None or m * n > _FEW or n > _FEW_COLUMNS:
            return ""
        columns = []
        for j in range(n):
            seen, length = self._column(j)
            errors = torch.where(seen.rough, math.inf, seen.errors / length)
            columns.append(Seen(seen.values / length, errors, seen.rough))
        truth = torch.stack([c.values for c in columns], 1).nan_to_num(0.0)
        errors = torch.stack([c.errors for c in columns], 1)
        compared = Compared(self.reference.matrix.to(truth.dtype), truth, errors)
        values = [("the input", self.problem.point[None])] if m else []
        sizes = [s for leaf in self.problem.inputs for s in leaf.shape]
        sizes += [s for t in self.reference.outputs for s in t.shape]
        paired = (
            all(leaf.dtype.is_complex for leaf in self.reference.returned),
            all(leaf.dtype.is_complex for leaf in self.problem.inputs),
        )
        return likely_mistake(compared, values, sizes, paired)


def _scale(tensor: Tensor) -> Tensor:
    largest = tensor.abs().amax() if tensor.numel() else tensor.new_ones(())
    return torch.where(largest > 0, largest, 1.0)


def _measured(seen: Measured) -> str:
    return f"{seen.value:.6g} ± {bound_text(seen.error)}"


def _off(found: float, truth: float) -> str:
    ratio = f", {number(found / truth)} times as much" if truth and found else ""
    return f"{number(abs(found - truth))}{ratio}"


def _supported(right: Sequence[str], wrong: Sequence[str]) -> str:
    if not right:
        return "Finite differences support none of them."
    return (
        f"Finite differences support {' and '.join(right)}; wrong is what comes by "
        f"{' and '.join(wrong)}."
    )


def _remedy(right: Sequence[str], order: int) -> str:
    if "reverse over reverse" in right:
        return "Take it by pb.hessian(func), which goes that way."
    if "reverse mode" in right:
        return "Take it by pb.jacobian(func) or pb.jvp, which ask the backward."
    if right:
        return f"Do not take it by a backward{' of a backward' if order > 1 else ''}."
    return "Write func with other operations."
