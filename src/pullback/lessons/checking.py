"""Judging an answer: any right one passes, a wrong one is told the input that shows it.

A judge takes the learner's answer and the learner's own tensors, and returns an `Outcome`. Most
are made by `same_function`: the answer is called on several inputs and compared with an
independent truth. A wrong result is compared with what known misconceptions would give, so that
the hint names the one that was made.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from .values import difference, shown

Own: TypeAlias = tuple[Any, ...]
Judge: TypeAlias = Callable[[Any, Own], "Outcome"]
State: TypeAlias = Literal["right", "wrong", "unanswered"]

_UNTOUCHED = "write your answer in place of the `...`, then check again."
_RETURNS_NONE = "the function gives back None. It gives back what follows `return`."


@dataclass(frozen=True)
class Outcome:
    """``text``: what was right, or a hint; ``counterexample``: the input that shows a wrong one."""

    state: State
    text: str
    counterexample: str = ""

    @property
    def ok(self) -> bool:
        return self.state == "right"

    def __str__(self) -> str:
        if self.state == "unanswered":
            return self.text
        if self.ok:
            return f"Right. {self.text}".rstrip()
        parts = ("Not yet.", self.counterexample, f"Hint: {self.text}")
        return "\n".join(part for part in parts if part)


def right(text: str = "") -> Outcome:
    return Outcome("right", text)


def wrong(hint: str, counterexample: str) -> Outcome:
    return Outcome("wrong", hint, counterexample)


class UnansweredError(Exception):
    """The answer is still the stub, or gives nothing back; the message says which."""


class CrashedError(Exception):
    """The answer raised; ``error`` is what."""

    def __init__(self, error: BaseException, call: str) -> None:
        super().__init__(call)
        self.error, self.call = error, call


def crash_text(crash: CrashedError) -> str:
    first = (str(crash.error).strip().splitlines() or ["no message"])[0]
    return f"{crash.call} raised {type(crash.error).__name__}: {first}"


@dataclass(frozen=True)
class Exercise:
    """A judge, and the hints for errors that an answer may raise: (part of the text, hint)."""

    judge: Judge
    crashes: tuple[tuple[str, str], ...] = ()

    def check(self, answer: Any, own: Own = ()) -> Outcome:
        """Judge ``answer``; whatever it does, an `Outcome` comes back."""
        try:
            if is_open(answer):
                raise UnansweredError(_UNTOUCHED)
            return self.judge(answer, own)
        except UnansweredError as none:
            return Outcome("unanswered", f"Not answered yet: {none}")
        except CrashedError as crash:
            return wrong(self._crash_hint(str(crash.error)), crash_text(crash))

    def _crash_hint(self, text: str) -> str:
        for part, hint in (*self.crashes, *_CRASHES):
            if part in text:
                return hint
        return "read the error's last line; it is your own code's, raised on the input above."


_CRASHES = (
    (
        "grad can be implicitly created only for scalar outputs",
        "backward on a tensor of several entries needs a cotangent v of the same shape.",
    ),
    (
        "backward through the graph a second time",
        "the first backward freed what this graph had saved; pass retain_graph=True to it, or "
        "compute the output anew.",
    ),
    (
        "does not require grad and does not have a grad_fn",
        "the output has no graph: something on the way was detached, or was made without "
        "requires_grad=True.",
    ),
    (
        "Mismatch in shape",
        "v must have exactly the shape of the output that it weighs, entry by entry.",
    ),
    (
        "'NoneType'",
        "something is None there: a .grad is None until a backward has written to it.",
    ),
    (
        "modified by an inplace operation",
        "a write in place changed numbers that backward needs; make a new tensor instead: write "
        "y = y + 1, not y += 1.",
    ),
)


def is_open(value: Any) -> bool:
    """Whether a value is the stub's: ``...``, or None, which a function with ``...`` returns."""
    return value is None or value is ...


def called(answer: Any, args: Iterable[Any], call: str) -> Any:
    """What the learner's function returns.

    Raises:
        UnansweredError: it returns nothing: the stub does.
        CrashedError: it raised; ``call`` says on what.
    """
    if not callable(answer):
        kind = type(answer).__name__
        raise CrashedError(TypeError(f"the answer is a function; this is a {kind}"), call)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            came = answer(*args)
    except Exception as error:
        raise CrashedError(error, call) from error
    if is_open(came):
        raise UnansweredError(_UNTOUCHED if _does_nothing(answer) else _RETURNS_NONE)
    return came


def _does_nothing(answer: Any) -> bool:
    """A body that is ``...``, with or without a docstring, names nothing."""
    code = getattr(answer, "__code__", None)
    return code is not None and not code.co_names and len(code.co_varnames) == code.co_argcount


@dataclass(frozen=True)
class Case:
    """An input: ``text`` tells it to the learner, ``make`` builds the arguments anew each time."""

    text: str
    make: Callable[[], tuple[Any, ...]]


@dataclass(frozen=True)
class Misconception:
    """What a wrong idea computes from the same arguments, and the hint against it."""

    wrong: Callable[..., Any]
    hint: str


def same_function(
    cases: Callable[[Own], Sequence[Case]],
    truth: Callable[..., Any],
    misconceptions: Sequence[Misconception] = (),
    *,
    hint: str,
    praise: str = "",
) -> Judge:
    """A judge of functions: on every case the answer must return what ``truth`` returns.

    ``cases`` takes the learner's own tensors and returns the inputs; ``hint`` is given where no
    misconception explains what came.
    """

    def judge(answer: Any, own: Own) -> Outcome:
        tried = cases(own)
        came = [_come(answer, case) for case in tried]
        expected = [truth(*case.make()) for case in tried]
        hinted = partial(_hint_for, misconceptions, tried, came, expected)
        for k, (case, a, b) in enumerate(zip(tried, came, expected, strict=True)):
            if isinstance(a, UnansweredError):
                raise a
            if isinstance(a, CrashedError):
                if known := hinted(crashed=k):
                    return wrong(known, crash_text(a))
                raise a
            if apart := difference(a, b):
                told = f"On {case.text}:\n  it gave   {shown(a)}\n  right is  {shown(b)}\n  {apart}"
                return wrong(hinted() or hint, told)
        return right(praise or f"Tried on {len(tried)} inputs.")

    return judge


def _come(answer: Any, case: Case) -> Any:
    """What the answer gives, or the error that says why it gives nothing."""
    try:
        return called(answer, case.make(), f"On {case.text}, it")
    except (CrashedError, UnansweredError) as failure:
        return failure


def _hint_for(
    misconceptions: Sequence[Misconception],
    cases: Sequence[Case],
    came: Sequence[Any],
    expected: Sequence[Any],
    crashed: int | None = None,
) -> str | None:
    """The misconception that gives what came wherever both give something, and not the truth.

    Where the answer ``crashed``, it must fail as well: else the error tells more than the idea.
    """
    for one in misconceptions:
        given = [_come(one.wrong, case) for case in cases]
        if crashed is not None and not isinstance(given[crashed], Exception):
            continue
        apart = [_apart(g, c) for g, c in zip(given, came, strict=True)]
        false = any(_apart(g, e) != "" for g, e in zip(given, expected, strict=True))
        if false and "" in apart and not any(apart):
            return one.hint
    return None


def _apart(a: Any, b: Any) -> str | None:
    """How two results differ; None where one of them failed."""
    failed = isinstance(a, Exception) or isinstance(b, Exception)
    return None if failed else difference(a, b)


def generator(seed: int = 0) -> torch.Generator:
    """Random inputs of a check are the same each time, so that a hint can be repeated."""
    return torch.Generator().manual_seed(seed)


def own_tensors(own: Own) -> list[Tensor]:
    """The learner's own tensors, without their graphs."""
    return [t.detach() for t in own if isinstance(t, Tensor) and t.is_floating_point()]
