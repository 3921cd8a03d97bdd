"""Small programs, as graphs, on which an order and a sweep are tried."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

DEEP = 3000


class Node:
    """What lesson 13's Tensor is to an order and a sweep: numbers, and how they were made."""

    def __init__(
        self,
        name: str,
        data: Any,
        requires_grad: bool = False,
        parents: tuple[Node, ...] = (),
        rule: Callable[..., tuple[Array, ...]] | None = None,
        saved: tuple[Array, ...] = (),
    ) -> None:
        self.name, self.data = name, np.array(data, dtype=np.float64)
        self.parents, self.rule, self.saved = parents, rule, saved
        self.requires_grad: bool = requires_grad or any(p.requires_grad for p in parents)
        self.grad: Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    def __repr__(self) -> str:
        return self.name


def add(name: str, a: Node, b: Node) -> Node:
    return Node(name, a.data + b.data, parents=(a, b), rule=lambda v: (v, v))


def mul(name: str, a: Node, b: Node) -> Node:
    return Node(
        name, a.data * b.data, False, (a, b), lambda v, a, b: (v * b, v * a), (a.data, b.data)
    )


def diamond(saves: bool) -> Node:
    """y = x * x, or y = x + x."""
    x = Node("x", [3.0, -1.0], True)
    return (mul if saves else add)("y", x, x)


def programs() -> list[tuple[str, Node]]:
    """How each is written, and its root; made anew each time."""
    x, w = Node("x", [3.0, -1.0], True), Node("w", [2.0, 5.0], True)
    c = Node("c", [7.0, 1.0])
    p = mul("p", x, x)
    q = add("q", p, x)
    a = add("a", x, w)
    column = Node("k", [[1.0], [2.0], [4.0]], True)
    return [
        ("y = x * x", diamond(True)),
        ("p = x * x, y = p + x", add("y", p, x)),
        ("p = x * x, q = p + x, y = q * p", mul("y", q, p)),
        ("y = x * c, c without grad", mul("y", x, c)),
        ("a = x + w, b = a + x, y = b * a", mul("y", add("b", a, x), a)),
        ("a = x + w, p = x * w, y = p + a", add("y", mul("p", x, w), a)),
        ("a = x + w, y = a + x", add("y", a, x)),
        ("y = k * w, k of shape (3, 1)", mul("y", column, w)),
        (f"{DEEP} additions of x, one after another", _chain()),
        ("x itself", x),
    ]


def _chain() -> Node:
    x = Node("x", [1.0], True)
    y = x
    for k in range(DEEP):
        y = add(f"y{k}", y, x)
    return y


def nodes_behind(root: Node) -> dict[int, Node]:
    """All that require grad, by identity."""
    found: dict[int, Node] = {}
    todo = [root]
    while todo:
        node = todo.pop()
        if id(node) not in found:
            found[id(node)] = node
            todo += [p for p in node.parents if p.requires_grad]
    return found


def reference_sweep(root: Node, v: Array) -> dict[str, Array]:
    """The cotangent of each leaf, by counting for each node how many users it still waits for."""
    behind = nodes_behind(root)
    users = dict.fromkeys(behind, 0)
    for node in behind.values():
        for parent in node.parents:
            if parent.requires_grad:
                users[id(parent)] += 1
    arrived = {key: np.zeros(node.shape) for key, node in behind.items()}
    arrived[id(root)] = v.copy()
    ready, leaves = [root], {}
    while ready:
        node = ready.pop()
        upstream = arrived[id(node)]
        if node.rule is None:
            leaves[node.name] = upstream
            continue
        for parent, part in zip(node.parents, node.rule(upstream, *node.saved), strict=True):
            if parent.requires_grad:
                arrived[id(parent)] = arrived[id(parent)] + shrunk(part, parent.shape)
                users[id(parent)] -= 1
                if users[id(parent)] == 0:
                    ready.append(parent)
    return leaves


def shrunk(part: Array, shape: tuple[int, ...]) -> Array:
    """What broadcasting repeated, added up, copy by copy."""
    numbers = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    copies = np.broadcast_to(numbers, part.shape).ravel()
    return np.bincount(copies, part.ravel(), numbers.size).astype(np.float64).reshape(shape)
