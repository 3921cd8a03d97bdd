"""One function at one signature: what its plan needs to hold, checked at every call."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from .. import _checks, _settings, _torch
from .._trees import Structure
from .arguments import Arguments
from .backward_graph import content_digest
from .blockwise import Blockwise
from .choice import choose
from .evaluate import values_of
from .layouts import Csr
from .lift.spec import Lift
from .lifted import LiftedRun
from .lifting import LIFTED_MODES, lift_of, unlifted
from .plan import Plan
from .planning import dense_plan, fitting, plan_of
from .products import Function, Replay, Source
from .ready import Ready
from .state import Reading, TensorGuard
from .study import Study, pattern_here, study, tensor_named

# The call at which a program is made one straight line: a few dozen milliseconds, which whoever
# calls once or twice is spared. Where the values take more bytes, passes over memory are all that
# counts, and trying a line out would take more of it.
STRAIGHT_FROM = 3
_STRAIGHT_UP_TO = 2**24
# Products of this many bytes may be one kernel; a bundle of 500,000 observations takes half.
_KERNEL_BYTES = 2**30
# How often a record is tried to be made where its arguments or its tensors are too special.
_ATTEMPTS = 3


class Outcome:
    """The values of one call, the plan that places them, and what else the function returned."""

    def __init__(self, values: Any, plan: Plan, out: Structure, aux: Any) -> None:
        self.values, self.plan, self.out, self.aux = values, plan, out, aux


class Session:
    """Evaluates one function along a plan.

    ``given`` is the caller's plan: where it does not hold, the call is refused. A plan of the
    session's own is made anew instead; with ``dense``, one of a product for every row or column,
    for which no pattern is sought. ``looks`` counts how often the function was captured. ``proof``,
    if set, refuses plans that its owner cannot use.
    """

    def __init__(
        self,
        caller: str,
        func: Callable[..., Any],
        arguments: Arguments,
        has_aux: bool,
        given: Plan | None,
        trust_indices: bool,
        compile: bool = False,
        dense: bool = False,
    ) -> None:
        self._caller, self._func, self._has_aux = caller, func, has_aux
        self._given, self._trust, self._compile = given, trust_indices, compile
        self._dense, self.looks = dense, 0
        self._batches: bool | None = None
        self._rows: Plan | None = None
        self.engine = ""
        self.reasons: tuple[str, ...] = ()
        self.ready: Ready | None = None
        self.proof: Callable[[Plan], object] | None = None
        self._prepare(arguments)

    def _prepare(self, arguments: Arguments) -> None:
        with _torch.outside_transforms():
            self._look(arguments.sample)

    def _look(self, arguments: Arguments) -> None:
        given = self._given
        self.looks += 1
        self.ready = None
        self._may_be_ready = _ATTEMPTS
        frozen = tuple(given.facts) if given is not None else ()
        known = given is not None and given.user_pattern
        self._study: Study = study(
            self._caller,
            self._func,
            arguments,
            has_aux=self._has_aux,
            frozen=[n for n in frozen if n],
            detecting=not known and not self._dense,
            known=given.key if given is not None else "",
        )
        found = self._study
        if self._dense:
            self.plan = dense_plan(self._caller, found, arguments)
        elif given is None:
            self.plan = plan_of(self._caller, found, arguments)
        else:
            self.plan = fitting(self._caller, given, found, arguments)
        self._reading: Reading = found.reading.without_tensors()
        self._plain, self._objects = arguments.plain, arguments.objects
        self._run: LiftedRun | None = None
        self._blocks: Blockwise | None = None
        if found.captured is not None and not self._compile:
            self._blocks = Blockwise.of(self._caller, found.captured, self.plan)
        self._calls = 0
        self._lift_guards: dict[str, TensorGuard] = {}
        self._changing: set[str] = set()
        self._unlifted = ""
        read = found.captured.guards if found.captured is not None else set()
        self._guards = {
            name: TensorGuard.of(name, tensor_named(name, arguments, found.reading))
            for name in {*found.facts, *self.plan.facts, *read}
        }

    def evaluate(self, arguments: Arguments, chunk_size: int | None) -> Outcome:
        """The values at ``arguments``, once everything that the plan relies on was checked."""
        reading = self._checked(arguments)
        if self.proof is not None:
            self.proof(self.plan)  # before anything is computed
        if self._must_run_itself(reading, arguments):
            return self._by_function(arguments, chunk_size)
        found = self._study
        assert found.captured is not None
        tensors = found.tensors(arguments, reading)
        self._make_run(arguments, reading, tensors)
        values, aux = self._replayed(tensors, chunk_size)
        return Outcome(values, self.plan, found.captured.out, self._aux(aux))

    def at_once(
        self,
        tensors: Sequence[Tensor],
        chunk_size: int | None = None,
        into: Tensor | None = None,
    ) -> tuple[Any, Any]:
        """The values and aux, from the inputs of the captured graph; nothing is checked. ``into``,
        contiguous and apart from these, receives the values."""
        if self._run is not None and self._calls > STRAIGHT_FROM:
            found = self._run.at_once(tensors, into)
            if found is not None:
                if into is not None:
                    increment_version(into)  # what writes past torch leaves the count alone
                return found[0], self._aux(found[1:]) if self._has_aux else None
        values, aux = self._replayed(tensors, chunk_size)
        return values if into is None else into.copy_(values), self._aux(aux)

    def _replayed(
        self, tensors: Sequence[Tensor], chunk_size: int | None
    ) -> tuple[Any, list[Tensor]]:
        """The values, of a dense Jacobian perhaps a list of a matrix for each primal, and the
        tensors of aux."""
        captured, chunk = self._study.captured, chunk_size or self.plan.chunk_size
        assert captured is not None
        self._calls += 1
        if self._blocks is not None:
            if (found := self._blocks.matrices(tensors, chunk_size)) is not None:
                self.engine, self.reasons = "replay", ()
                matrices, aux = found
                return matrices if self._dense else self._blocks.values(matrices), aux
            self._blocks = None
        if self._calls == STRAIGHT_FROM:
            self._straighten(tensors, chunk)
        if (run := self._run) is not None:
            values, aux = run.values(tensors, chunk)
            self.engine = "compiled" if run.is_compiled else "replay"
            self.reasons = (*run.reasons, *self._why_unlifted)
            return values, aux
        start = len(captured.owned)
        primals = tensors[start : start + len(captured.graph.gradients)]
        source = Replay(captured, tensors, primals)
        values = self._values(self.plan, source, chunk_size, "replay")
        self.reasons += self._why_unlifted
        return values, source.aux_tensors

    @property
    def _why_unlifted(self) -> tuple[str, ...]:
        return (self._unlifted,) if self._unlifted else ()

    def _kernel_chunk(self) -> int:
        """A kernel keeps nothing between its operations, so more products fit into it."""
        return max(self.plan.chunk_size, _KERNEL_BYTES // max(1, self.plan.bytes_per_product))

    def _straighten(self, tensors: Sequence[Tensor], chunk_size: int) -> None:
        """What is called again and again is worth one straight line of calls."""
        captured, run = self._study.captured, self._run
        assert captured is not None
        size = self.plan.pattern.nnz * self.plan.dtype.itemsize
        if not captured.batches or not 0 < size <= _STRAIGHT_UP_TO:
            return
        if run is None:
            if max(self.plan.coloring.split) > chunk_size:
                return
            lift = unlifted(captured, self.plan)
            if isinstance(lift, str):
                return
            run = LiftedRun(captured, lift, self.plan.dtype)
        if run.straighten(tensors, captured.graph.rounding, chunk_size):
            self._run = run

    def _make_run(self, arguments: Arguments, reading: Reading, tensors: Sequence[Tensor]) -> None:
        """Have ready what evaluates the plan here, if not products of the whole graph.

        A lift was worked out from tensors that the function owns or is given, too. Where one of
        these has changed it is worked out again, without them: they will change again.
        """
        changed = {
            name
            for name, guard in self._lift_guards.items()
            if not self._is_unchanged(guard, tensor_named(name, arguments, reading))
        }
        if (self._run is None and not self._unlifted and self._blocks is None) or changed:
            self._lift_guards = {}
            self._changing |= changed
            self._calls = 0 if changed else self._calls
            self._run = self._made(arguments, reading, tensors)

    def _is_unchanged(self, guard: TensorGuard, tensor: Tensor) -> bool:
        trusted = self._trust and not _checks.can_carry_gradients(tensor.dtype)
        return guard.holds(tensor, trust=trusted)

    def _made(
        self, arguments: Arguments, reading: Reading, tensors: Sequence[Tensor]
    ) -> LiftedRun | None:
        captured = self._study.captured
        assert captured is not None
        lift: Lift | str
        if self.plan.lifted:
            lift = self._lift(arguments, reading)
        elif self._compile:
            lift = unlifted(captured, self.plan)
        else:
            return None
        if isinstance(lift, str):
            self._unlifted = f"the whole graph is replayed: {lift}"
            return None
        run = LiftedRun(captured, lift, self.plan.dtype)
        if self._compile:
            run.compile(
                lift, self.plan.pattern, tensors, captured.graph.rounding, self._kernel_chunk()
            )
        self._lift_guards = {
            name: TensorGuard.of(name, tensor_named(name, arguments, reading))
            for name in lift.facts
            if name not in self._guards
        }
        return run

    def _lift(self, arguments: Arguments, reading: Reading) -> Lift | str:
        """The plan's lift, if it was made of what is here now; else one that is."""
        lift = self.plan.lift
        if lift is not None and self._holds(lift, arguments, reading):
            return lift
        found = replace(self._study, arguments=arguments, reading=reading)
        mode = self.plan.mode if self.plan.mode in LIFTED_MODES else "auto"
        changing = frozenset(self._changing)
        outcome = lift_of(found, arguments, self.plan.pattern, mode, changing)
        return outcome if isinstance(outcome, str) else outcome.spec()

    def _holds(self, lift: Lift, arguments: Arguments, reading: Reading) -> bool:
        known = {*arguments.other_names, *reading.tensors}
        return lift.key == self._study.key and all(
            name in known and content_digest(tensor_named(name, arguments, reading)) == digest
            for name, digest in lift.facts.items()
        )

    @property
    def is_captured(self) -> bool:
        return self._study.captured is not None

    def make_ready(self, args: Sequence[Any], arguments: Arguments) -> None:
        """Record the call just made, if it was replayed and another like it needs few checks."""
        if self._study.captured is None or self.engine == "function":
            return
        if not self._may_be_ready or _settings.device_mode() is ...:
            return
        state = self._study.state
        reading = state.read()
        if state.unseen or reading.changes(self._reading):
            return
        guards = {**self._guards, **self._lift_guards}
        trust = self._trust and not self._lift_guards
        csr = Csr(self.plan, self._study.captured.outputs[0].device)
        ready = Ready(args, arguments, reading, self._study, guards, trust, csr)
        if ready.is_quick:
            self.ready = ready
        else:
            self._may_be_ready -= 1

    def _checked(self, arguments: Arguments) -> Reading:
        state = self._study.state
        reading = state.read()
        if self._study.captured is None:
            return reading  # the function itself runs, and its pattern is checked as it does
        other = self._is_given_others(arguments) or state.unseen
        if other or reading.changes(self._reading) or self._a_guard_breaks(arguments, reading):
            self._prepare(arguments)
            reading = self._study.state.read()
        return reading

    def _is_given_others(self, arguments: Arguments) -> bool:
        """Whether numbers, strings or objects among the arguments are not those of the capture."""
        now = arguments.objects
        same = len(now) == len(self._objects) and all(map(operator.is_, now, self._objects))
        return not same or arguments.plain != self._plain

    def _a_guard_breaks(self, arguments: Arguments, reading: Reading) -> bool:
        """Whether a content that was read or relied on is another; refuses if a given plan did."""
        _checks.indices_in_sight(
            self._caller, arguments.others, arguments.other_names, self._guards
        )
        for name, guard in self._guards.items():
            tensor = tensor_named(name, arguments, reading)
            if not guard.holds(tensor, trust=self._trust):
                if self._given is not None and name in self._given.facts:
                    raise _checks.fact_changed(self._caller, guard.difference(tensor))
                return True
        return False

    def _must_run_itself(self, reading: Reading, arguments: Arguments) -> bool:
        """Whether no replay will do: none was captured, or somebody may differentiate the result.

        Derivatives of a Jacobian come from the function: replayed operators have lost what a
        straight-through estimator or a detach does to them.
        """
        if self._study.captured is None:
            return True
        if not _torch.plain_autograd_sees_everything():
            return True
        if not torch.is_grad_enabled():
            return False
        tensors = (*arguments.primals, *arguments.others, *reading.tensors.values())
        return any(t.requires_grad for t in tensors)

    def _by_function(self, arguments: Arguments, chunk_size: int | None) -> Outcome:
        source = Function(self._caller, self._func, arguments, self._has_aux, self._batches)
        plan = self.plan
        if self._study.captured is None and not plan.user_pattern:
            plan = self._plan_here(source, arguments)
        refusal = source.forward_refusal if plan.coloring.split.columns else self._no_mirrors(plan)
        if refusal:
            plan = self._along_rows(plan, refusal)
        values = self._values(plan, source, chunk_size, "function")
        self._batches = source.batches
        if not torch.is_grad_enabled() and _torch.running_transform() is None:
            values = values.detach()
        return Outcome(values, plan, source.out, source.aux)

    def _no_mirrors(self, plan: Plan) -> str:
        """Why the function itself is to be read without mirrors, if the plan reads them."""
        if not plan.coloring.is_symmetric:
            return ""
        if plan.coloring.kind == "acyclic":
            return "what is solved for has no derivative"
        return self._study.asymmetry

    def _along_rows(self, plan: Plan, refusal: str) -> Plan:
        """The plan with VJPs alone, where the function itself has no JVPs."""
        if self._rows is None or self._rows.pattern is not plan.pattern:
            choice = choose(plan.pattern, "auto", forward=refusal)
            self._rows = replace(
                plan, colored=choice.coloring, mode=choice.mode, reason=choice.reason,
                lifted_products=None, lift=None,
            )  # fmt: skip
        return self._rows

    def _plan_here(self, source: Function, arguments: Arguments) -> Plan:
        """The plan if it holds for the backward of this very point, else one for it alone."""
        detection, key, note = pattern_here(self._caller, source)
        if key and key == self.plan.key:
            return self.plan
        if self.plan.pattern.contains(detection.pattern):
            return self.plan
        found = self._study
        here = Study(
            found.caller, found.func, arguments, found.has_aux, found.state, found.reading,
            None, note or found.reason, tuple(source.returned), key, detection,
        )  # fmt: skip
        return plan_of(self._caller, here, arguments)

    def _values(self, plan: Plan, source: Source, chunk_size: int | None, engine: str) -> Tensor:
        values = values_of(plan.assembly, source, chunk_size or plan.chunk_size, plan.dtype)
        self.engine, self.reasons = engine, tuple(source.reasons)
        return values

    def _aux(self, found: Sequence[Tensor]) -> Any:
        captured = self._study.captured
        assert captured is not None
        if captured.aux is None:
            return None
        tensors = iter(found)
        leaves = [next(tensors) if isinstance(a, Tensor) else a for a in captured.aux_leaves]
        return captured.aux.rebuild(leaves)
