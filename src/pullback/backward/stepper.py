"""``pb.step``: one backward pass, node by node, forward and back."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from .. import _checks, _torch
from .._names import CallerNames
from .._trees import Tree
from .events import Deposits
from .graph import Port
from .passlog import owned
from .recorder import explain_failure, job_of
from .standing import standing_text
from .stepping import Stepping, Taken
from .steps import Contribution, Place, Step
from .stops import stop_where

_CALLER = "pb.step"


def step(
    outputs: Tree, cotangents: Tree = None, *, inputs: Tree = None, budget: int = 256 << 20
) -> Stepper:
    """Take the backward pass of ``outputs`` step by step, a node at a time.

    The nodes run in the order in which torch's engine runs them, each by the engine itself, and
    what they send is added up as it adds. Finished without an edit, the pass has computed what
    ``torch.autograd.backward(outputs, cotangents)`` computes, to the last bit. Like a look of
    ``pb.record`` it changes no ``.grad`` until ``finish(accumulate=True)`` is asked for, keeps the
    graph, leaves no hook behind and the random state as it was.

    Args:
        outputs: a tensor with a graph, or a pytree of them.
        cotangents: the same structure as ``outputs``, each with the shape, dtype and device of its
            output. None stands for 1 where an output has one element.
        inputs: what to differentiate with respect to: a tensor, a sequence, a mapping of names to
            tensors, or a module (its parameters, by name). None: every leaf of the graph.
        budget: how many bytes of past steps are kept for ``back()``. Beyond what the engine itself
            would hold, a stepper holds a copy of what each remembered step received, and what it
            sent; the oldest are forgotten first. 0: nothing is kept.

    Returns:
        A `Stepper`, before the first node.

    Raises:
        CotangentError: a cotangent is missing, or has another shape, dtype, device or structure.
        GraphError: an output has no graph, or its graph was freed.
        UnsupportedError: inside a torch.func transform; or the graph holds a reentrant checkpoint.
        ArgumentError, TreeError: other arguments that cannot be used.

    Example:
        >>> import torch, pullback as pb
        >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> s = pb.step((w.exp() * w).sum(), inputs={"w": w})
        >>> s.until(op="Exp"), s.node.label, s.upstream()
        (True, 'ExpBackward0 #2', tensor([1., 2.]))
        >>> s.edit(torch.zeros(2))  # what would come of it without this path?
        >>> s.finish()["w"], w.grad
        (tensor([2.7183, 7.3891]), None)

    Source: ``torch.autograd.graph.GradientEdge`` and the hooks of ``Node``; PyTorch documentation,
    "Autograd mechanics".
    """
    _checks.byte_budget(_CALLER, budget)
    job = job_of(_CALLER, outputs, cotangents, inputs, CallerNames(_CALLER))
    state = Stepping(job, budget)
    if any(place.name == "CheckpointFunctionBackward" for place in state.places):
        _checks.reentrant_checkpoint(_CALLER)
    freed = _torch.first_freed(state.schedule.order)
    if freed is not None:
        _checks.graph_is_freed(_CALLER, job.out.names, _torch.node_name(freed))
    return Stepper(state)


class Stepper:
    """A backward pass that waits before each node; made by ``pb.step``.

    - ``nodes``: every node of the pass in the order in which they run (`Place`). ``node``: the one
      about to run, None at the end. ``done``: whether all have run.
    - ``ready``: nodes that wait for nothing but their turn. ``pending``: nodes where something has
      arrived and something is still to come.
    - ``last``: the last `Step` taken. ``steps``: all that are remembered.
    - ``contributions``: what has been sent to the node about to run, in the order of arrival.
    - ``deposits``: what the leaves reached so far are left with.
    - ``notes``: what cannot be seen, and why.

    All tensors handed out are copies. Hooks of the user run when their node does: after ``back()``
    and ``next()`` they have run twice. ``print(stepper)`` shows where it stands.
    """

    def __init__(self, state: Stepping) -> None:
        self._state = state
        self._added = False
        self.notes = tuple(_notes(state))

    @property
    def nodes(self) -> tuple[Place, ...]:
        return self._state.places

    @property
    def node(self) -> Place | None:
        return None if self.done else self.nodes[self._state.position]

    @property
    def done(self) -> bool:
        return self._state.position == len(self.nodes)

    @property
    def ready(self) -> tuple[Place, ...]:
        return tuple(p for p, come, of in self._waiting() if come == of)

    @property
    def pending(self) -> tuple[Place, ...]:
        return tuple(p for p, come, of in self._waiting() if 0 < come < of)

    def _waiting(self) -> list[tuple[Place, int, int]]:
        at, sources = self._state.position, self._state.sources
        rest = self.nodes[at:]
        return [(p, sum(t < at for t in sources[p.index]), len(sources[p.index])) for p in rest]

    @property
    def last(self) -> Step | None:
        return self._state.last

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(act.step for act in self._state.acts if isinstance(act, Taken))

    @property
    def deposits(self) -> Deposits:
        found = self._state.deposits
        items = self._state.job.targets.items
        return Deposits({t.key: owned(found[t.port]) for t in items if t.port in found})

    @property
    def contributions(self) -> tuple[Contribution, ...]:
        """What went into the node about to run. Contributions of forgotten steps are missing."""
        if self.done:
            return ()
        node, last = self.node, self.last
        steps = self.steps
        if last is not None and (not steps or steps[-1] is not last):
            steps = (*steps, last)
        sent = (c for step in steps for c in step.contributions)
        return tuple(c for c in (*self._state.seeds, *sent) if c.target is node)

    def next(self) -> Step:
        """Run one node, and return what it did.

        Raises:
            ArgumentError: all nodes have run.
            GraphError: the graph was freed meanwhile.
        """
        state = self._state
        if self.done:
            raise _checks.pass_is_over("stepper.next", len(self.nodes))
        try:
            return state.forward()
        except RuntimeError as error:
            explain_failure(_CALLER, error, state.job.out, state.job.graph)
            raise

    def back(self) -> Place:
        """Undo the last step, or the last edit if no step came after it; the node about to run.

        Everything is then as it was, to the last bit, but for what the user's own hooks did: a
        backward hook of a module remembers what it saw at the end of the module until the start of
        it, so go back beyond both or neither.

        Raises:
            ArgumentError: nothing is left to undo, or it is forgotten; or the deposits were added
                to ``.grad``.
        """
        if self._added:
            raise _checks.already_added("stepper.back")
        if not self._state.acts:
            raise _checks.nothing_to_undo("stepper.back", self._state.forgotten)
        self._state.back()
        return self.nodes[self._state.position]

    def until(
        self,
        predicate: Callable[[Step], object] | None = None,
        *,
        nonfinite: bool = False,
        norm_ratio: float | None = None,
        op: str | None = None,
        line: str | int | None = None,
    ) -> bool:
        """Take steps, at least one, until one of the criteria is met; whether one was.

        ``op`` and ``line`` stop before such a node, so that it can be looked at and edited. The
        others stop after the step that meets them, which is ``last``.

        Args:
            predicate: a function of the `Step` taken: true to stop.
            nonfinite: a step received or sent an infinite or nan entry.
            norm_ratio: the norm of a contribution is at least so many times that of what the node
                received; below 1, at most so many times.
            op: the name of a node, such as ``"Exp"`` or ``"ExpBackward0"``, in any case.
            line: the line whose call made a node under ``pb.trace()``: ``12``, ``"model.py:12"``.

        Returns:
            False where no criterion was met: the pass is then at its end; or, if only ``op`` or
            ``line`` were asked for and no such node is left, where it was.

        Raises:
            ArgumentError: no criterion, or one that no node of the pass can ever meet.
        """
        places = self.nodes
        stop = stop_where("stepper.until", places, predicate, nonfinite, norm_ratio, op, line)
        if stop.by_name and not any(turn > self._state.position for turn in stop.at):
            return False
        while not self.done:
            taken = self.next()
            if any(met(taken) for met in stop.after) or self._state.position in stop.at:
                return True
        return False

    def upstream(self, node: Place | int | None = None, slot: int = 0) -> Tensor | None:
        """A copy of what a node received in ``slot``, or of what has arrived there so far.

        ``node`` is one of ``nodes``, or its number; None is the node about to run. None comes back
        where nothing has arrived: an undefined gradient is not a zero.

        Raises:
            ArgumentError: there is no such node or slot, or what it received is forgotten.
        """
        caller, place = "stepper.upstream", self.node
        if node is not None:
            place = self.nodes[_checks.place_in_pass(caller, node, len(self.nodes))]
        if place is None:
            raise _checks.pass_is_over(caller, len(self.nodes))
        _checks.slot_of_node(caller, slot, place.label, place.slots)
        if place.index < self._state.position:
            return self._step_at(caller, place).upstream[slot]
        port = Port(self._state.schedule.order[place.index], slot)
        value = self._state.arrived.get(port)
        return None if value is None else owned(value)

    def _step_at(self, caller: str, place: Place) -> Step:
        known = (*self.steps, *([self.last] if self.last is not None else []))
        for taken in known:
            if taken.node is place:
                return taken
        raise _checks.step_is_forgotten(caller, place.label)

    def edit(self, value: Tensor | Callable[[Tensor], Tensor], slot: int = 0) -> None:
        """Replace what the node about to run receives in ``slot``.

        Nothing before it runs again; all that comes after follows. The hooks of the user on that
        cotangent have yet to run, and get the new one. ``back()`` undoes the edit.

        Args:
            value: a tensor of the same shape, dtype and device, or a function from a copy of what
                arrived to one.
            slot: of the node, where it has several.

        Raises:
            ArgumentError: the pass is over, there is no such slot, or nothing arrived there for
                the function to change.
            CotangentError: the tensor does not fit.
        """
        caller, place, state = "stepper.edit", self.node, self._state
        if place is None:
            raise _checks.pass_is_over(caller, len(self.nodes))
        _checks.slot_of_node(caller, slot, place.label, place.slots)
        there = state.arrived.get(Port(state.node, slot))
        if callable(value) and not isinstance(value, Tensor):
            if there is None:
                raise _checks.nothing_to_edit(caller, place.label, slot)
            value = value(owned(there))
        shape, dtype = _torch.slots(state.node)[slot]
        device = _torch.slot_device(state.node, slot)
        checked = _checks.replacement(caller, value, place.label, shape, dtype, device)
        state.edit(slot, checked)

    def finish(self, *, accumulate: bool = False) -> Deposits:
        """Run what is left, and return the deposits: leaf name, or position, to tensor.

        ``accumulate`` also adds them to ``.grad``, bit for bit as ``torch.autograd.backward`` does;
        the hooks that wait for that run then. The graph is kept.

        Raises:
            ArgumentError: the deposits were added before.
        """
        _checks.flag("stepper.finish", "accumulate", accumulate)
        if accumulate and self._added:
            raise _checks.already_added("stepper.finish")
        while not self.done:
            self.next()
        if accumulate:
            self._added = True
            self._state.accumulate()
        return self.deposits

    def __str__(self) -> str:
        return standing_text(self._state, self.notes)

    def __repr__(self) -> str:
        names = ", ".join(self._state.job.out.names)
        at = "at the end" if self.node is None else f"before {self.node.label}"
        return f"<Stepper of {names}: {at}, {self._state.position} of {len(self.nodes)} nodes ran>"


def _notes(state: Stepping) -> list[str]:
    notes = [
        f"{target.label} is not reached from the outputs: no deposit."
        for target in state.job.targets.items
        if target.port is None
    ]
    notes += [
        f"{place.label} is one torch.compile region: one step, and what happens inside it is not "
        f"seen."
        for place in state.places
        if place.name == "CompiledFunctionBackward"
    ]
    return notes
