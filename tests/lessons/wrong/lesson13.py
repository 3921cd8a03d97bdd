"""Answers to lesson 13 whose verdict is known."""

from __future__ import annotations

import numpy as np

from pullback.lessons.checks.nodes import nodes_behind

from . import Right, Wrong


def _scatter(v, shape, index):
    found = np.zeros(shape)
    np.add.at(found, index, v)
    return found


def _assigned(v, shape, index):
    found = np.zeros(shape)
    found[index] += v
    return found


def _counted(v, shape, index):
    return _scatter(np.ones_like(v), shape, index)


def _mean_of_places(v, shape, index):
    return _scatter(v, shape, index) / np.maximum(_counted(v, shape, index), 1)


def _summed(v, shape):
    v = v.sum(tuple(range(v.ndim - len(shape))))
    return v.sum(tuple(k for k, n in enumerate(shape) if n == 1), keepdims=True)


def _by_loop(v, shape):
    while v.ndim > len(shape):
        v = v.sum(0)
    for axis, n in enumerate(shape):
        if n != v.shape[axis]:
            v = v.sum(axis, keepdims=True)
    return v


def _finished(root, constants=False):
    """From the leaves to the root, each node once."""
    seen, found, stack = set(), [], [(root, False)]
    while stack:
        node, done = stack.pop()
        if done:
            found.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(p, False) for p in node.parents if constants or p.requires_grad]
    return found


def _order(root):
    return _finished(root)[::-1]


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


def _sweep(
    order=_order, add="add", shrink=_summed, free="saved", check=True, constants=False, inner=False
):
    """A sweep with one thing wrong."""

    def sweep(root, v, retain_graph=False):
        waiting, arrived = {root: v}, {}
        for node in order(root):
            upstream = waiting.pop(node) if node in waiting else np.zeros(node.shape)
            if node.rule is None or inner:
                arrived[node] = upstream
            if node.rule is None:
                continue
            if node.saved is None:
                if check:
                    raise RuntimeError("freed")
                continue
            for parent, part in zip(node.parents, node.rule(upstream, *node.saved), strict=True):
                if not (parent.requires_grad or constants):
                    continue
                part = shrink(part, parent.shape)
                if parent not in waiting or add == "replace":
                    waiting[parent] = part
                elif add == "in place":
                    waiting[parent] += part
                else:
                    waiting[parent] = waiting[parent] + part
            if free == "always" or (free == "saved" and node.saved and not retain_graph):
                node.saved = None
            if free == "all" and not retain_graph:
                node.saved = None
        if constants:
            arrived |= waiting
        return arrived

    return sweep


def _alias(grad, cotangent):
    return cotangent if grad is None else grad + cotangent


def _in_place(grad, cotangent):
    if grad is None:
        return cotangent.copy()
    grad += cotangent
    return grad


def _deposit(grad, cotangent):
    return cotangent.copy() if grad is None else grad + cotangent


def make_engine(
    sweep=None,
    deposit=_deposit,
    mul=None,
    power=None,
    total=None,
    refuse=True,
    pick=_scatter,
    minus=None,
):
    """The lesson's class, with a piece replaced."""
    sweep = sweep or _sweep()

    class Tensor:
        def __init__(self, data, requires_grad=False, parents=(), rule=None, saved=()):
            self.data = np.array(data, dtype=np.float64)
            self.parents, self.rule, self.saved = parents, rule, saved
            self.requires_grad = requires_grad or any(p.requires_grad for p in parents)
            self.grad = None
            self.shape = self.data.shape

        def _made(self, data, parents, rule, saved=()):
            return Tensor(data, False, parents, rule, saved)

        def __add__(self, other):
            other = other if isinstance(other, Tensor) else Tensor(other)
            return self._made(self.data + other.data, (self, other), lambda v: (v, v))

        def __mul__(self, other):
            other = other if isinstance(other, Tensor) else Tensor(other)
            rule = mul or (lambda v, a, b: (v * b, v * a))
            saved = (self.data, other.data)
            return self._made(self.data * other.data, (self, other), rule, saved)

        def __sub__(self, other):
            other = other if isinstance(other, Tensor) else Tensor(other)
            rule = minus or (lambda v: (v, -v))
            return self._made(self.data - other.data, (self, other), rule)

        def pow(self, n):
            rule = power or (lambda n, v, x: (v * n * x ** (n - 1),))
            return self._made(self.data**n, (self,), lambda v, x: rule(n, v, x), (self.data,))

        def t(self):
            return self._made(self.data.T, (self,), lambda v: (v.T,))

        def __matmul__(self, b):
            saved = (self.data, b.data)
            rule = lambda v, a, b: (v @ b.T, a.T @ v)  # noqa: E731
            return self._made(self.data @ b.data, (self, b), rule, saved)

        def sum(self, axis=None):
            kept = self.data.sum(axis, keepdims=True).shape
            rule = total or (lambda v: (v.reshape(kept) + np.zeros(self.shape),))
            return self._made(self.data.sum(axis), (self,), rule)

        def __getitem__(self, index):
            return self._made(self.data[index], (self,), lambda v: (pick(v, self.shape, index),))

        def backward(self, v=None, retain_graph=False):
            if v is None and self.data.size != 1 and refuse:
                raise RuntimeError("give v")
            v = np.ones(self.shape) if v is None else np.array(v, dtype=np.float64)
            if v.shape != self.shape and refuse:
                raise RuntimeError("shape of v")
            for leaf, cotangent in sweep(self, v, retain_graph).items():
                leaf.grad = deposit(leaf.grad, cotangent)

    return Tensor


X = np.array([0.5, -1.0, 2.0])


def _softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


WRONG = [
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
        lambda v, s: _summed(v, s) * np.prod(s) / v.size,
        "mean over the copies",
    ),
    Wrong("unbroadcast", "front", lambda v, s: v.sum(tuple(range(v.ndim - len(s)))), "still long"),
    Wrong(
        "unbroadcast", "squeezed", lambda v, s: _summed(v, s).squeeze(), "axes of length 1 are gone"
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
    Wrong("order", "not reversed", _finished, "its end: reverse"),
    Wrong("order", "breadth first", _breadth_first, "may come only after everything"),
    Wrong("order", "every use", _every_use, "list it once"),
    Wrong("order", "recursive", _recursive, "in place of recursion"),
    Wrong(
        "order",
        "constants",
        lambda r: _finished(r, constants=True)[::-1],
        "do not require grad are left",
    ),
    Wrong("order", "root alone", lambda r: [r], "some nodes are missing"),
    Wrong("order", "names", lambda r: [n.name for n in _order(r)], "nodes themselves"),
    Wrong("sweep", "replaced", _sweep(add="replace"), "not replaced"),
    Wrong("sweep", "in place", _sweep(add="in place", shrink=_by_loop), "+= on an array"),
    Wrong("sweep", "breadth first", _sweep(order=_breadth_first), "all of them are there"),
    Wrong("sweep", "not shrunk", _sweep(shrink=lambda part, shape: part), "unbroadcast, at once"),
    Wrong("sweep", "nothing freed", _sweep(free="nothing"), "sets saved = None"),
    Wrong("sweep", "not refused", _sweep(check=False), "refuses to run"),
    Wrong("sweep", "always freed", _sweep(free="always"), "can run again"),
    Wrong("sweep", "everything freed", _sweep(free="all"), "can run again"),
    Wrong(
        "sweep",
        "retained nothing",
        lambda r, v, retain_graph=False: _sweep()(r, v),
        "nothing is freed",
    ),
    Wrong("sweep", "constants", _sweep(constants=True), "no constants"),
    Wrong("sweep", "inner", _sweep(inner=True), "no inner nodes"),
    Wrong(
        "sweep",
        "list",
        lambda r, v, retain_graph=False: list(_sweep()(r, v).values()),
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
    Wrong("engine", "replaces .grad", make_engine(deposit=lambda g, c: c.copy()), "it replaced it"),
    Wrong(
        "engine",
        "swapped product",
        make_engine(mul=lambda v, a, b: (v * a, v * b)),
        "operations does this",
    ),
    Wrong(
        "engine",
        "power",
        make_engine(power=lambda n, v, x: (v * n * x**n,)),
        "operations does this",
    ),
    Wrong(
        "engine",
        "difference",
        make_engine(minus=lambda v: (v, v)),
        "operations does this",
    ),
    Wrong("engine", "sum", make_engine(total=lambda v: (v,)), "operations does this"),
    Wrong("engine", "any v", make_engine(refuse=False), "v may be left out only"),
    Wrong("engine", "never freed", make_engine(sweep=_sweep(free="nothing")), "must fail once"),
    Wrong("engine", "repeats", make_engine(pick=_assigned), "operations does this"),
    Wrong("engine", "an instance", make_engine()([1.0]), "last line"),
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
    Right("index-rule", "add.at", _scatter),
    Right("unbroadcast", "loop", _by_loop),
    Right("unbroadcast", "other", lambda v, s: _by_loop(v, s) + 0),
    Right("order", "by users", _waits_for_all),
    Right("order", "tuple", lambda r: tuple(_order(r))),
    Right("sweep", "by users", _sweep(order=_waits_for_all)),
    Right("sweep", "loop", _sweep(shrink=_by_loop)),
    Right("deposit", "in place", _in_place),
    Right("deposit", "zeros first", lambda g, c: (np.zeros_like(c) if g is None else g) + c),
    Right("engine", "in place", make_engine(deposit=_in_place)),
    Right("engine", "by users", make_engine(sweep=_sweep(order=_waits_for_all))),
    Right("own-op", "running sum", (np.cumsum, lambda v, x: np.cumsum(v[::-1])[::-1], X)),
    Right("own-op", "norm", (np.linalg.norm, lambda v, x: v * x / np.linalg.norm(x), X)),
]
