"""``pb.audit``: every custom ``torch.autograd.Function`` behind some outputs, put to the test."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .. import _checks, _torch, draw
from .._checks import Leaves
from .._names import CallerNames
from .._trees import Tree
from .audit_adjoint import adjoint
from .audit_call import Argument, Call, call_of
from .audit_forward import Forward, NoForward, forward_of
from .audit_returns import as_the_engine_wants, returns
from .audit_second import second
from .audit_state import drawn_like, normal_like, state
from .audit_sums import with_right_sums
from .graph import walk
from .outcome import Job
from .recorder import output_leaves, run_pass, weighed_outputs
from .targets import find_targets
from .verdict import Verdict

CHOICES = frozenset({"straight_through", "sum_left_to_torch", "wasted_gradient", "zeros_gradient"})
_ENDS_IT = frozenset({"backward_raises", "gradient_count", "gradient_refused"})
_ONE, _ALL = "pb.audit_function", "pb.audit"


@dataclass(frozen=True)
class Audit:
    """What ``pb.audit`` found out about the custom Functions of a graph.

    - ``functions``: name of each Function, and how many of its calls are in the graph.
    - ``findings``: `Verdict`s, one for each Function and kind of fault, in the order of the graph.
    - ``notes``: what could not be tried, and why.
    - ``passed``: no finding says that a gradient is, or may silently become, wrong. Choices
      (``"straight_through"``) and wasted work (``"wasted_gradient"``, ``"zeros_gradient"``,
      ``"sum_left_to_torch"``) do not count against it.

    ``print(audit)`` shows all of it.
    """

    functions: tuple[tuple[str, int], ...]
    findings: tuple[Verdict, ...]
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return all(finding.code in CHOICES for finding in self.findings)

    def __str__(self) -> str:
        rows = tuple((name, draw.count(calls)) for name, calls in self.functions)
        blocks: list[draw.Block] = [draw.Table("", ("Function", "calls"), rows)] if rows else []
        blocks.append(draw.Sentence(self._summary()))
        for finding in self.findings:
            blocks += [draw.Heading(finding.code.replace("_", " "), 2), *finding.blocks()]
        if self.notes:
            blocks.append(draw.Heading("Notes", 2))
            blocks += [draw.Sentence(note) for note in self.notes]
        return draw.to_text(draw.Page("Audit of custom Functions", tuple(blocks)))

    def _summary(self) -> str:
        if not self.functions:
            return "There is no custom Function in this graph."
        if not self.findings:
            return "Nothing was found."
        said = "Passed, with findings that are choices or waste" if self.passed else "Not passed"
        return f"{said}: {', '.join(f.code for f in self.findings)}."


def audit(outputs: Tree, cotangents: Tree = None, *, seed: int = 0) -> Audit:
    """Try the backward of every custom ``torch.autograd.Function`` behind ``outputs``.

    One look runs the real pass, and sees what each backward returns before torch sums, casts or
    refuses it. Then each backward is called a few more times, at the point where it stands: is it
    linear in its cotangent, the same twice, does it write into what is not its own? Where all
    arguments of its forward can be had (saved tensors and leaves), forward is run again, too: does
    ``<J u, v> = <u, J' v>`` hold, with J u from differences of forward alone? And are second
    derivatives right, refused, or silently wrong? Changes nothing: no ``.grad``, no random state,
    no graph.

    Args:
        outputs: a tensor with a graph, or a pytree of them.
        cotangents: the same structure and shapes, for the real pass; None for outputs of one
            element.
        seed: of the random u and v.

    Returns:
        An `Audit`: its ``findings`` name one entry of J that is wrong, and the smallest fix.

    Raises:
        ArgumentError, CotangentError, GraphError, TreeError, UnsupportedError: as in ``pb.record``.

    Example:
        >>> import torch, pullback as pb
        >>> class Doubled(torch.autograd.Function):
        ...     @staticmethod
        ...     def forward(ctx, x):
        ...         ctx.save_for_backward(x)
        ...         return x**2
        ...     @staticmethod
        ...     def backward(ctx, v):
        ...         return 4 * ctx.saved_tensors[0] * v
        >>> x = torch.tensor([1.0, 3.0], requires_grad=True)
        >>> told = pb.audit(Doubled.apply(x), torch.ones(2))
        >>> told.passed, told.findings[0].code, told.findings[0].evidence[0]
        (False, 'wrong_gradient', ('entry', 'd output[0] / d x[0]'))

    Source: the dot-product test of adjoint codes (J. Claerbout, "Earth Soundings Analysis", 1992).
    """
    names = CallerNames(_ALL)
    out, values = weighed_outputs(_ALL, outputs, cotangents, names)
    return _audited(_ALL, out, values, names, seed, lambda call: call)


def audit_function(function: type[Function], *inputs: Any, seed: int = 0) -> Audit:
    """Audit one custom Function at given inputs, with all that ``pb.audit`` asks.

    ``function.apply`` runs on copies of ``inputs``. Of the tensors, those that require a gradient
    get one; if none does, every floating point or complex one.

    Args:
        function: a subclass of ``torch.autograd.Function``.
        inputs: what ``function.apply`` takes. float64, with axes of different lengths, shows most.
        seed: of the random cotangents and directions.

    Returns:
        An `Audit`.

    Raises:
        ArgumentError: ``function`` is no Function, or no input can have a gradient.
        GraphError: no output has a graph.

    Example:
        >>> import torch, pullback as pb
        >>> class Cube(torch.autograd.Function):
        ...     @staticmethod
        ...     def forward(ctx, x):
        ...         ctx.save_for_backward(x)
        ...         return x**3
        ...     @staticmethod
        ...     def backward(ctx, v):
        ...         return 3 * ctx.saved_tensors[0] ** 2 * v
        >>> pb.audit_function(Cube, torch.rand(3, dtype=torch.float64)).passed
        True

    Source: as for ``pb.audit``.
    """
    _checks.custom_function(_ONE, function, inputs)
    given = _copies(inputs)
    draws = torch.get_rng_state()
    with torch.enable_grad():
        outputs = function.apply(*given)
    torch.set_rng_state(draws)
    named = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
    tensors = [t for t in named if isinstance(t, Tensor) and t.requires_grad]
    _checks.differentiable_call(_ONE, function.__name__, tensors)
    made = torch.Generator().manual_seed(seed)
    values = tuple(normal_like(t.detach(), made) for t in tensors)
    names = CallerNames(_ONE)
    out = output_leaves(_ONE, tensors, names)

    def with_inputs(call: Call) -> Call:
        filled = [_with(a, v) for a, v in zip(call.arguments, given, strict=True)]
        return replace(call, arguments=tuple(filled), draws=draws)

    return _audited(_ONE, out, values, names, seed, with_inputs)


def _copies(inputs: Sequence[Any]) -> list[Any]:
    """Copies, none of them a leaf: forward may write into one."""
    asked = [isinstance(t, Tensor) and t.requires_grad for t in inputs]
    if not any(asked):
        asked = [isinstance(t, Tensor) and _checks.can_carry_gradients(t.dtype) for t in inputs]
    with torch.enable_grad():
        return [
            (t.detach().clone().requires_grad_(wanted).clone() if wanted else t.detach().clone())
            if isinstance(t, Tensor)
            else t
            for t, wanted in zip(inputs, asked, strict=True)
        ]


def _with(argument: Argument, value: Any) -> Argument:
    return replace(argument, value=value)


def _audited(
    caller: str,
    out: Leaves,
    values: tuple[Tensor, ...],
    names: CallerNames,
    seed: int,
    filled: Callable[[Call], Call],
) -> Audit:
    graph = walk(out.tensors)
    calls = []
    for node in graph.nodes:
        function = _torch.custom_function(node)
        if function is not None and not function.__module__.startswith("torch."):
            calls.append(filled(call_of(node, function)))
    targets = find_targets(caller, graph, None, names)
    made = torch.Generator().manual_seed(seed)
    with _torch.untouched(graph.children_of):
        with contextlib.ExitStack() as listening:
            for call in calls:
                listening.enter_context(_torch.overheard(call.node, _heard(call)))
            run_pass(Job(caller, graph, out, values, targets))
        found = [(call, list(_examined(call, made))) for call in calls]
    counted = Counter(call.name for call in calls)
    notes = dict.fromkeys(f"{call.name}: {note}." for call, _ in found for note in call.notes)
    return Audit(tuple(counted.items()), tuple(_merged(found, counted)), tuple(notes))


def _heard(call: Call) -> _torch.Heard:
    """Note what arrives at ``call`` and what it returns; let the pass go on whatever that is."""

    def heard(cotangents: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if call.ran:  # a pass inside the pass
            return run()
        call.given = tuple(t.clone() if isinstance(t, Tensor) else t for t in cotangents)
        arrived = [(f"cotangent {k}", t) for k, t in enumerate(cotangents) if isinstance(t, Tensor)]
        held = [*arrived, *call.holds()]
        try:
            with _torch.unwritten([t for _, t in held]) as written:
                call.returned = _detached(run())
        except Exception as error:
            call.error = error
            return (None,) * len(call.arguments)
        call.written += [held[k][0] for k in written]
        return as_the_engine_wants(call)

    return heard


def _detached(returned: Any) -> Any:
    """Copies, since a backward may return what it wrote into, and that is undone."""
    if isinstance(returned, tuple):
        return tuple(map(_detached, returned))
    return returned.clone() if isinstance(returned, Tensor) else returned


def _examined(call: Call, made: torch.Generator) -> Iterator[Verdict]:
    if not call.ran:
        call.notes.append("no cotangent arrived, so its backward did not run")
        return
    said = list(returns(call))
    like = call.likes()
    if _ENDS_IT & {finding.code for finding in said} or all(t is None for t in like):
        yield from said
        return
    v, w = drawn_like(like, made), drawn_like(like, made)
    try:
        said += state(call, v, w)
        said = _tried_at_the_point(call, said, v, made)
    except NoForward as reason:
        call.notes.append(f"forward was not compared with backward: {reason}")
        said += _silent_none(call)
    except Exception as error:  # a user's code fails in any way
        call.notes.append(f"calling it again raised {type(error).__name__}: {error}")
    yield from said


def _tried_at_the_point(
    call: Call, said: list[Verdict], v: Any, made: torch.Generator
) -> list[Verdict]:
    codes = {finding.code for finding in said}
    if "not_deterministic" in codes:
        raise NoForward("backward is another one each time")
    forward: Forward = forward_of(call, call.likes())
    linear = "not_linear" not in codes
    wrong = list(adjoint(forward, v, made, linear))
    if wrong:
        said = list(with_right_sums(said, forward, v, made))
    elif linear:
        wrong += second(forward, v, made)
        said = [_confirmed(finding) for finding in said]
    return said + wrong


def _confirmed(finding: Verdict) -> Verdict:
    """A sum that torch made is a choice once it is known to be the derivative."""
    if finding.code != "gradient_summed":
        return finding
    head = finding.text.partition(" torch sums it")[0]
    text = f"{head} torch sums it, and here that is the derivative: forward broadcasts."
    return replace(finding, code="sum_left_to_torch", text=text)


def _silent_none(call: Call) -> Iterator[Verdict]:
    found = call.returned if isinstance(call.returned, tuple) else (call.returned,)
    for grad, argument in zip(found, call.arguments, strict=False):
        if grad is None and argument.needs_gradient:
            yield Verdict(
                "none_gradient",
                f"{call.name}.backward returns None for `{argument.name}`, which needs a "
                "gradient. Nothing arrives there: if it is a leaf, its .grad stays as it was. "
                "Right only where the output does not depend on it.",
                fix="Return a gradient for it, unless it is a constant to forward.",
            )


def _merged(found: Sequence[tuple[Call, list[Verdict]]], calls: Counter[str]) -> Iterator[Verdict]:
    """One finding for all calls of a Function that it is found in."""
    merged: dict[tuple[str, str, str], tuple[Verdict, int]] = {}
    for call, findings in found:
        for finding in findings:
            key = (call.name, finding.code, finding.fix)
            first, count = merged.get(key, (finding, 0))
            merged[key] = first, count + 1
    for (name, _, _), (finding, count) in merged.items():
        told = (("calls", f"{count} of {calls[name]}"),) if calls[name] > 1 else ()
        yield replace(finding, evidence=(*finding.evidence, *told))
