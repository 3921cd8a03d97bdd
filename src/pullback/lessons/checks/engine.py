"""Lesson 13's engine as a whole, program by program beside torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ..checking import CrashedError, Outcome, Own, UnansweredError, right, wrong
from ..values import difference, shown

Array = npt.NDArray[np.float64]


class Program(NamedTuple):
    """A function of its operands that is written alike for torch and for the learner's engine."""

    text: str
    run: Callable[..., Any]
    operands: tuple[Array, ...]


def _programs() -> list[Program]:
    eye, drawn = np.eye(4, 5), np.random.default_rng(1).normal(size=(3, 4))
    column, row = np.array([[1.0], [2.0], [-1.0]]), np.array([0.5, -2.0, 3.0, 1.0])
    return [
        Program("(inp + 1).pow(2).t(), inp = eye(4, 5)", lambda x: (x + 1).pow(2).t(), (eye,)),
        Program("(inp + 10).pow(3).t(), inp = eye(4, 5)", lambda x: (x + 10).pow(3).t(), (eye,)),
        Program("x * x + x", lambda x: x * x + x, (drawn,)),
        Program("a * k + r, broadcast", lambda a, k, r: a * k + r, (drawn, column, row)),
        Program("a - r * 2", lambda a, r: a - r * 2, (drawn, row)),
        Program("a @ b.t()", lambda a, b: a @ b.t(), (drawn, drawn[:2] * 2)),
        Program("(x + 1).pow(2).t() @ x", lambda x: (x + 1).pow(2).t() @ x, (eye,)),
        Program("x[[0, 0, 2]] * x[1]", lambda x: x[[0, 0, 2]] * x[1], (drawn,)),
        Program("x.sum(0) * x.sum()", lambda x: x.sum(0) * x.sum(), (drawn,)),
        Program("x.pow(2).sum(1)", lambda x: x.pow(2).sum(1), (drawn,)),
    ]


def judge_engine(answer: Any, own: Own) -> Outcome:
    if not isinstance(answer, type):
        raise CrashedError(TypeError("the answer is the class Engine"), "The check")
    _is_whole(answer)
    for program in _programs():
        found = _beside_torch(answer, program)
        if found is not None:
            return found
    return _refusals(answer) or right(
        f"{len(_programs())} programs: values, gradients, second calls and zeroing as in torch."
    )


def _is_whole(engine: Any) -> None:
    """A piece that is still a stub returns None, where something is then asked of it."""
    try:
        x = engine([1.0, 2.0], requires_grad=True)
        (x * x).backward([1.0, 1.0])
        (x - x).backward([1.0, 1.0])
    except (AttributeError, TypeError) as error:
        if "NoneType" in str(error):
            raise UnansweredError from None
        raise CrashedError(error, "(x * x).backward([1, 1]) or (x - x).backward([1, 1])") from error
    except Exception as error:
        raise CrashedError(error, "(x * x).backward([1, 1]) or (x - x).backward([1, 1])") from error


def _both(engine: Any, program: Program) -> tuple[list[Any], list[torch.Tensor]]:
    ours = [engine(operand.copy(), requires_grad=True) for operand in program.operands]
    theirs = [torch.tensor(operand, requires_grad=True) for operand in program.operands]
    return ours, theirs


def _guarded(call: Callable[[], Any], text: str) -> Any:
    try:
        return call()
    except Exception as error:
        raise CrashedError(error, text) from error


def _beside_torch(engine: Any, program: Program) -> Outcome | None:
    ours, theirs = _both(engine, program)
    mine = _guarded(lambda: program.run(*ours), f"On {program.text}, the engine")
    there = program.run(*theirs)
    value = difference(getattr(mine, "data", None), there)
    if value:
        return wrong("the forward pass itself is wrong.", f"{program.text}: {value}")
    v = np.arange(1.0, there.numel() + 1).reshape(tuple(there.shape))
    for call in ("the first call", "the second call", "a call after .grad = None"):
        if call == "a call after .grad = None":
            for x in (*ours, *theirs):
                x.grad = None
        _guarded(lambda: mine.backward(v.copy(), retain_graph=True), f"{program.text}: {call}")
        there.backward(torch.tensor(v), retain_graph=True)
        for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            apart = difference(a.grad, b.grad)
            if apart:
                told = f"{program.text}, operand {k}, {call}:\n"
                told += f"  yours  {shown(a.grad)}\n  torch  {shown(b.grad)}\n  {apart}"
                return wrong(_hint(call, a.grad, b.grad), told)
    return None


def _hint(call: str, mine: Any, right_one: torch.Tensor | None) -> str:
    if call == "the second call" and right_one is not None and not difference(2 * mine, right_one):
        return "the second call did not add to .grad: it replaced it."
    if call != "the first call":
        return (
            "something is left over from the call before: is an array shared or changed in place?"
        )
    return (
        "a piece that passed alone goes wrong together with the others, or a rule of the class was "
        "changed. Which operations does this program have that the ones before it had not?"
    )


def _refusals(engine: Any) -> Outcome | None:
    def raised(make: Callable[[Any], Any]) -> bool:
        try:
            make(engine([[1.0, 2.0]], requires_grad=True))
        except Exception:
            return True
        return False

    for text, make, hint in _REFUSED:
        if not raised(make):
            return wrong(hint, f"Not refused: {text}.")
    one = engine([[2.0, 3.0]], requires_grad=True)
    _guarded(lambda: (one * one).sum().backward(), "(x * x).sum().backward(), without v,")
    if difference(one.grad, np.array([[4.0, 6.0]])):
        return wrong("one entry needs no v: 1 is meant.", f"(x * x).sum(): {shown(one.grad)}")
    return None


def _twice(x: Any) -> None:
    y = x * x
    y.backward([[1.0, 1.0]])
    y.backward([[1.0, 1.0]])


_REFUSED: tuple[tuple[str, Callable[[Any], Any], str], ...] = (
    (
        "y.backward() where y has 2 entries",
        lambda x: (x * x).backward(),
        "v may be left out only where the output has one entry.",
    ),
    (
        "v of shape (2,) for an output of shape (1, 2)",
        lambda x: (x * x).backward([1.0, 1.0]),
        "v has the shape of the output, exactly.",
    ),
    ("a second call, graph not retained", _twice, "a second call must fail once it is freed."),
)
