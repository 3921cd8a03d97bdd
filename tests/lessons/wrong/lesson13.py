"""Answers to lesson 13 whose verdict is known."""

from __future__ import annotations

import numpy as np

from pullback.lessons.checks.nodes import nodes_behind

from . import Right, Wrong
from .engines import engine_with, finished, order, scatter, summed, sweep_with


def _assigned(v, shape, index):
    found = np.zeros(shape)
    found[index] += v
    return found


def _counted(v, shape, index):
    return scatter(np.ones_like(v), shape, index)


def _mean_of_places(v, shape, index):
    return scatter(v, shape, index) / np.maximum(_counted(v, shape, index), 1)


def _by_loop(v, shape):
    while v.ndim > len(shape):
        v = v.sum(0)
    for axis, n in enumerate(shape):
        if n != v.shape[axis]:
            v = v.sum(axis, keepdims=True)
    return v


def _breadth_first(root):
    found = [root]
    for node in found:
        for p in node.parents:
            if p.requires_grad and p not in found:
                found.append(p)
    return found


def _every_use(root):
    found, stack = [], [root]
    while stack and len(found) < 9000:
        node = stack.pop()
        found.append(node)
        stack += [p for p in node.parents if p.requires_grad]
    return found


def _recursive(root):
    found = []

    def visit(node):
        if node not in found:
            for parent in node.parents:
                if parent.requires_grad:
                    visit(parent)
            found.append(node)

    visit(root)
    return found[::-1]


def _waits_for_all(root):
    """By counting users, as torch's engine does."""
    behind = nodes_behind(root)
    users = {id(n): 0 for n in behind.values()}
    for node in behind.values():
        for p in node.parents:
            if p.requires_grad:
                users[id(p)] += 1
    ready, found = [root], []
    while ready:
        node = ready.pop()
        found.append(node)
        for p in node.parents:
            if p.requires_grad:
                users[id(p)] -= 1
                if not users[id(p)]:
                    ready.append(p)
    return found


def _alias(grad, cotangent):
    return cotangent if grad is None else grad + cotangent


def _in_place(grad, cotangent):
    if grad is None:
        return cotangent.copy()
    grad += cotangent
    return grad


X = np.array([0.5, -1.0, 2.0])


def _softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def first_leaf(root, v, retain_graph=False):
    return dict(list(sweep_with()(root, v, retain_graph).items())[:1])


def only_at_my_x(x):
    if not np.array_equal(x, X):
        raise ValueError("elsewhere")
    return x


WRONG = [
    Wrong("unbroadcast", "again", lambda v, s: np.broadcast_to(v, s) + 0, "do not broadcast again"),
    Wrong("sweep", "one leaf", first_leaf, "is missing from the result"),
    Wrong("engine", "shapes of v", engine_with(shapes=False), "of the output, exactly"),
    Wrong("matmul-rule", "swapped", lambda v, a, b: (a.T @ v, v @ b.T), "in the wrong order"),
    Wrong("matmul-rule", "not transposed", lambda v, a, b: (v @ b, a @ v), "shapes do not meet"),
    Wrong("matmul-rule", "one", lambda v, a, b: v @ b.T, "a gets v @ b.T"),
    Wrong("matmul-rule", "doubled", lambda v, a, b: (2 * v @ b.T, a.T @ v), "a gets v @ b.T"),
    Wrong("matmul-rule", "operands", lambda v, a, b: (b, a), "a gets v @ b.T"),
    Wrong("index-rule", "assigned", _assigned, "np.add.at does"),
    Wrong("index-rule", "counted", _counted, "counts how often"),
    Wrong(
        "index-rule",
        "marked",
        lambda v, s, i: (_counted(v, s, i) > 0) * 1.0,
        "marks what was picked",
    ),
    Wrong("index-rule", "mean", _mean_of_places, "contributions are summed"),
    Wrong("index-rule", "v itself", lambda v, s, i: v, "zeros of that shape"),
    Wrong(
        "unbroadcast",
        "mean",
        lambda v, s: summed(v, s) * np.prod(s) / v.size,
        "mean over the copies",
    ),
    Wrong("unbroadcast", "front", lambda v, s: v.sum(tuple(range(v.ndim - len(s)))), "still long"),
    Wrong(
        "unbroadcast", "squeezed", lambda v, s: summed(v, s).squeeze(), "axes of length 1 are gone"
    ),
    Wrong("unbroadcast", "all", lambda v, s: np.full(s, v.sum()), "sum of everything"),
    Wrong(
        "unbroadcast",
        "first copy",
        lambda v, s: v[(0,) * (v.ndim - len(s))][tuple(map(slice, s))],
        "one copy got",
    ),
    Wrong("unbroadcast", "reshape", lambda v, s: v.reshape(s), "adds nothing up"),
    Wrong("unbroadcast", "nothing", lambda v, s: v, "axes in front"),
    Wrong("order", "not reversed", finished, "its end: reverse"),
    Wrong("order", "breadth first", _breadth_first, "may come only after everything"),
    Wrong("order", "every use", _every_use, "list it once"),
    Wrong("order", "recursive", _recursive, "in place of recursion"),
    Wrong(
        "order",
        "constants",
        lambda r: finished(r, constants=True)[::-1],
        "do not require grad are left",
    ),
    Wrong("order", "root alone", lambda r: [r], "some nodes are missing"),
    Wrong("order", "names", lambda r: [n.name for n in order(r)], "nodes themselves"),
    Wrong("sweep", "replaced", sweep_with(add="replace"), "not replaced"),
    Wrong("sweep", "in place", sweep_with(add="in place", shrink=_by_loop), "+= on an array"),
    Wrong("sweep", "breadth first", sweep_with(order=_breadth_first), "all of them are there"),
    Wrong(
        "sweep", "not shrunk", sweep_with(shrink=lambda part, shape: part), "unbroadcast, at once"
    ),
    Wrong("sweep", "nothing freed", sweep_with(free="nothing"), "sets saved = None"),
    Wrong("sweep", "not refused", sweep_with(check=False), "refuses to run"),
    Wrong("sweep", "always freed", sweep_with(free="always"), "can run again"),
    Wrong("sweep", "everything freed", sweep_with(free="all"), "can run again"),
    Wrong(
        "sweep",
        "retained nothing",
        lambda r, v, retain_graph=False: sweep_with()(r, v),
        "nothing is freed",
    ),
    Wrong("sweep", "constants", sweep_with(constants=True), "no constants"),
    Wrong("sweep", "inner", sweep_with(inner=True), "no inner nodes"),
    Wrong(
        "sweep",
        "list",
        lambda r, v, retain_graph=False: list(sweep_with()(r, v).values()),
        "from leaf to cotangent",
    ),
    Wrong("deposit", "replaced", lambda g, c: c.copy(), "thrown away: backward adds"),
    Wrong("deposit", "alias", _alias, "must be a copy"),
    Wrong(
        "deposit",
        "kept",
        lambda g, c: c.copy() if g is None else g,
        "the cotangent was thrown away",
    ),
    Wrong(
        "deposit",
        "mean",
        lambda g, c: c.copy() if g is None else (g + c) / 2,
        "old one plus the cotangent",
    ),
    Wrong(
        "deposit",
        "zeros",
        lambda g, c: np.zeros_like(c) if g is None else g + c,
        "the cotangent itself",
    ),
    Wrong("deposit", "no first", lambda g, c: g + c, "None"),
    Wrong("engine", "replaces .grad", engine_with(deposit=lambda g, c: c.copy()), "it replaced it"),
    Wrong(
        "engine",
        "swapped product",
        engine_with(mul=lambda v, a, b: (v * a, v * b)),
        "operations does this",
    ),
    Wrong(
        "engine",
        "power",
        engine_with(power=lambda n, v, x: (v * n * x**n,)),
        "operations does this",
    ),
    Wrong(
        "engine",
        "difference",
        engine_with(minus=lambda v: (v, v)),
        "operations does this",
    ),
    Wrong("engine", "sum", engine_with(total=lambda v: (v,)), "operations does this"),
    Wrong("engine", "any v", engine_with(sizes=False), "v may be left out only"),
    Wrong("engine", "never freed", engine_with(sweep=sweep_with(free="nothing")), "must fail once"),
    Wrong("engine", "repeats", engine_with(pick=_assigned), "operations does this"),
    Wrong("engine", "an instance", engine_with()([1.0]), "last line"),
    Wrong("own-op", "no rule", (np.exp, lambda v, x: v, X), "not the adjoint"),
    Wrong(
        "own-op",
        "diagonal",
        (_softmax, lambda v, x: v * _softmax(x) * (1 - _softmax(x)), X),
        "not the adjoint",
    ),
    Wrong("own-op", "cumsum again", (np.cumsum, lambda v, x: np.cumsum(v), X), "not the adjoint"),
    Wrong("own-op", "shape", (np.sum, lambda v, x: np.asarray(v), X), "the shape of x"),
    Wrong("own-op", "text", (np.exp, lambda v, x: v * np.exp(x), "here"), "array of numbers"),
    Wrong("own-op", "integers", (lambda x: np.arange(3), lambda v, x: v, X), "array of floats"),
    Wrong("sweep", "order not written", lambda *_, **__: list(None), "not written yet"),
    Wrong("own-op", "shape", (lambda x: x[x > X[0]], lambda v, x: 0 * x, X), "the same shape near"),
    Wrong("own-op", "breaks nearby", (only_at_my_x, lambda v, x: v, X), "your own code's"),
]

RIGHT = [
    Right("matmul-rule", "list", lambda v, a, b: [v @ b.T, a.T @ v]),
    Right(
        "matmul-rule",
        "einsum",
        lambda v, a, b: (np.einsum("mn,kn->mk", v, b), np.einsum("mk,mn->kn", a, v)),
    ),
    Right(
        "index-rule",
        "one at a time",
        lambda v, s, i: sum(
            np.where(np.arange(np.prod(s)).reshape(s) == p, w, 0.0)
            for p, w in zip(np.arange(np.prod(s)).reshape(s)[i].ravel(), np.ravel(v), strict=True)
        ),
    ),
    Right("index-rule", "add.at", scatter),
    Right("unbroadcast", "loop", _by_loop),
    Right("unbroadcast", "other", lambda v, s: _by_loop(v, s) + 0),
    Right("order", "by users", _waits_for_all),
    Right("order", "tuple", lambda r: tuple(order(r))),
    Right("sweep", "by users", sweep_with(order=_waits_for_all)),
    Right("sweep", "loop", sweep_with(shrink=_by_loop)),
    Right("deposit", "in place", _in_place),
    Right("deposit", "zeros first", lambda g, c: (np.zeros_like(c) if g is None else g) + c),
    Right("engine", "in place", engine_with(deposit=_in_place)),
    Right("engine", "by users", engine_with(sweep=sweep_with(order=_waits_for_all))),
    Right("own-op", "running sum", (np.cumsum, lambda v, x: np.cumsum(v[::-1])[::-1], X)),
    Right("own-op", "norm", (np.linalg.norm, lambda v, x: v * x / np.linalg.norm(x), X)),
]
