"""The exercises of lesson 13: rules, order, sweep and deposit of a reverse-mode engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..checking import (
    Exercise,
    Outcome,
    Own,
    called,
    right,
    wrong,
)
from ..values import difference, shown
from .adjoints import INDEX_RULE, MATMUL_RULE, UNBROADCAST
from .engine import judge_engine
from .nodes import Array, Node, diamond, nodes_behind, programs, reference_sweep
from .several import given


def _judge_order(answer: Any, own: Own) -> Outcome:
    for text, root in programs():
        came = called(answer, (root,), f"On {text}, it")
        hint, told = _order_of(came, root)
        if hint:
            return wrong(hint, f"On {text}: {told}")
    return right("Every node after everything that was made from it.")


def _order_of(came: Any, root: Node) -> tuple[str, str]:
    """A hint and what shows it, or two empty texts."""
    if not isinstance(came, list | tuple) or not all(isinstance(n, Node) for n in came):
        return "return a list of the nodes themselves.", f"it gave {shown(came)[:60]}."
    names = " ".join(node.name for node in came[:12]) + (" ..." if len(came) > 12 else "")
    wanted = nodes_behind(root)
    place = {id(node): k for k, node in enumerate(came)}
    extra = [node for node in came if id(node) not in wanted]
    if extra:
        return (
            "nodes that do not require grad are left out: nothing is sent to them.",
            f"it gave {names}; {extra[0].name} does not require grad.",
        )
    if len(came) != len(place):
        return (
            "a node that is used twice is still one node: list it once, when everything that was "
            "made from it has been listed.",
            f"it gave {names}; {len(came)} entries for {len(wanted)} nodes.",
        )
    lost = [node for key, node in wanted.items() if key not in place]
    if lost:
        return "some nodes are missing.", f"it gave {names}; {lost[0].name} is missing."
    for node in wanted.values():
        for parent in node.parents:
            if id(parent) in wanted and place[id(parent)] < place[id(node)]:
                return _too_early(came, root), (
                    f"it gave {names}; {parent.name} comes before {node.name}, which still has a "
                    f"contribution for it."
                )
    return "", ""


def _too_early(came: Sequence[Node], root: Node) -> str:
    if came[-1] is root:
        return "that is the order of the forward program; backward runs it from its end: reverse."
    return (
        "a node may come only after everything that was made from it. Finish all parents of a node "
        "before you write it down, and turn the list around at the end."
    )


_ORDER = Exercise(
    _judge_order,
    crashes=(
        (
            "recursion depth",
            "Python gives up at a thousand calls within calls, and programs are deeper: keep a "
            "list of nodes still to do, in place of recursion.",
        ),
    ),
)


def _judge_sweep(answer: Any, own: Own) -> Outcome:
    for text, make in _sweeps():
        root, v = make()
        before = v.copy()
        came = called(answer, (root, v), f"On {text}, it")
        expected = reference_sweep(make()[0], before)
        if not isinstance(came, dict) or not all(isinstance(key, Node) for key in came):
            return wrong("return a dictionary from leaf to cotangent.", f"On {text}: {shown(came)}")
        if not np.array_equal(v, before):
            return wrong(
                "v has changed: += on an array that others hold changes theirs as well. Write "
                "waiting[parent] = waiting[parent] + part.",
                f"On {text}: v was {shown(before)}, and is {shown(v)} now.",
            )
        found = {node.name: value for node, value in came.items()}
        apart = difference(found, expected)
        if apart:
            told = f"On {text}:\n  it gave   {shown(found)}\n  right is  {shown(expected)}"
            return wrong(_sweep_hint(found, expected), f"{told}\n  {apart}")
    return _judge_freeing(answer)


def _sweeps() -> list[tuple[str, Callable[[], tuple[Node, Array]]]]:
    def case(k: int, text: str, v: Array) -> tuple[str, Callable[[], tuple[Node, Array]]]:
        return text, lambda: (programs()[k][1], v.copy())

    found = []
    for k, (text, root) in enumerate(programs()):
        v = np.arange(1.0, root.data.size + 1).reshape(root.shape)
        found.append(case(k, f"{text}, v = {shown(v)}", v))
    return found


def _sweep_hint(found: dict[str, Any], expected: dict[str, Array]) -> str:
    if set(found) - set(expected):
        return "only leaves that require grad belong in the result: no constants, no inner nodes."
    if set(expected) - set(found):
        return "a leaf that requires grad is missing from the result."
    shapes = {name: np.shape(value) for name, value in found.items()}
    if any(shapes[name] != value.shape for name, value in expected.items()):
        return "a contribution must be summed down to the parent's shape, by unbroadcast, at once."
    return (
        "contributions that meet at one node are added: not replaced, and each of them once; and a "
        "node runs only when all of them are there (order)."
    )


def _judge_freeing(answer: Any) -> Outcome:
    def swept(root: Node, **options: Any) -> Exception | None:
        try:
            answer(root, np.ones(root.shape), **options)
        except Exception as error:
            return error
        return None

    for text, saves, options, fails in (
        ("y = x * x, swept twice", True, {}, True),
        ("y = x + x, which saved nothing, swept twice", False, {}, False),
        (
            "y = x * x, swept with retain_graph=True, then again",
            True,
            {"retain_graph": True},
            False,
        ),
    ):
        root = diamond(saves)
        first = swept(root, **options)
        second = first or swept(root)
        if first is not None or (second is not None) != fails:
            state = f"raised {type(second).__name__}: {second}" if second else "ran again"
            return wrong(_freeing_hint(fails, options), f"On {text}: it {state}.")
    return right("Added up, freed when done, and v left alone.")


def _freeing_hint(fails: bool, options: dict[str, bool]) -> str:
    if fails:
        return (
            "a node that saved something sets saved = None when it is done, and a node whose saved "
            "is None refuses to run."
        )
    if options:
        return "with retain_graph=True nothing is freed, so a second sweep runs."
    return "a node that saved nothing, saved == (), has nothing to free, and can run again."


def _judge_deposit(answer: Any, own: Own) -> Outcome:
    first, second = np.array([1.0, -2.0]), np.array([10.0, 20.0])
    came = called(answer, (None, first.copy()), "On grad None, cotangent [1, -2], it")
    told = f"On grad None, cotangent [1, -2], it gave {shown(came)}."
    if difference(came, first):
        return wrong("the first deposit is the cotangent itself.", told)
    came = called(answer, (second.copy(), first.copy()), "On grad [10, 20], cotangent [1, -2], it")
    told = f"On grad [10, 20], cotangent [1, -2], it gave {shown(came)}; right is [11, 18]."
    if not difference(came, first):
        return wrong("the old .grad was thrown away: backward adds to it.", told)
    if not difference(came, second):
        return wrong("the cotangent was thrown away; it is added to what is there.", told)
    if difference(came, first + second):
        return wrong("the new .grad is the old one plus the cotangent.", told)
    return _alone(answer)


def _alone(answer: Any) -> Outcome:
    cotangent = np.array([1.0, -2.0])
    kept = np.asarray(called(answer, (None, cotangent), "On grad None, cotangent [1, -2], it"))
    if not np.shares_memory(kept, cotangent):
        return right("Added, and nobody else's array.")
    kept += [10.0, 20.0]
    return wrong(
        "the first .grad must be a copy: another leaf, or the caller's v, may hold this array.",
        f"[10, 20] added to the first .grad in place makes the cotangent {shown(cotangent)}.",
    )


def _judge_own(answer: Any, own: Own) -> Outcome:
    forward, rule, x = given(answer, "my_forward", "my_rule", "my_x")
    try:
        x = np.array(x, dtype=np.float64)
    except (TypeError, ValueError):
        return wrong("my_x is a NumPy array of numbers.", f"my_x is a {type(x).__name__}.")
    y = np.asarray(called(forward, (x.copy(),), "On my_x, my_forward"))
    if y.dtype.kind != "f":
        return wrong("my_forward returns an array of floats.", f"It gave {shown(y.tolist())}.")
    draw = np.random.default_rng(0)
    for attempt in range(3):
        v, t = draw.normal(size=y.shape), draw.normal(size=x.shape)
        back = np.asarray(called(rule, (v.copy(), x.copy()), "On a random v and my_x, my_rule"))
        if back.shape != x.shape:
            told = f"my_rule gave shape {back.shape}; my_x has {x.shape}."
            return wrong("the cotangent of x has the shape of x.", told)
        h = 1e-5
        up, down = (_moved(forward, x + step * t) for step in (h, -h))
        if up.shape != y.shape or down.shape != y.shape:
            told = f"On my_x shape {y.shape}, {h:g} beside it {up.shape} and {down.shape}."
            return wrong("my_forward gives the same shape near my_x as at it.", told)
        moved = (up - down) / (2 * h)
        there, here = float((v * moved).sum()), float((back * t).sum())
        size = np.linalg.norm(v) * np.linalg.norm(moved) + abs(here)
        if not abs(there - here) <= 1e-6 * size + 1e-9:
            told = f"Attempt {attempt + 1}: <v, J t> = {there:.6g}, <rule(v), t> = {here:.6g}."
            return wrong(
                "the two sides of the adjoint identity differ, so the rule is not the adjoint of "
                "what my_forward does at my_x. Write down how y moves with dx, weigh it with v, "
                "and bring dx to the outside.",
                told,
            )
    return right("<v, J t> = <rule(v), t>, three times. Your rule belongs to your operation.")


def _moved(forward: Any, x: Array) -> Array:
    return np.asarray(called(forward, (x,), "Close to my_x, my_forward"))


EXERCISES = {
    "matmul-rule": MATMUL_RULE,
    "index-rule": INDEX_RULE,
    "unbroadcast": UNBROADCAST,
    "order": _ORDER,
    "sweep": Exercise(
        _judge_sweep,
        crashes=(
            (
                "'NoneType'",
                "something is None there: is `order` or `unbroadcast` above not written yet, or "
                "without a return?",
            ),
        ),
    ),
    "deposit": Exercise(_judge_deposit),
    "engine": Exercise(judge_engine),
    "own-op": Exercise(_judge_own),
}
