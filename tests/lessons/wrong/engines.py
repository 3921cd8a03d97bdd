"""Pieces of lesson 13's engine, right by default, with one thing wrong on request."""

from __future__ import annotations

import numpy as np


def scatter(v, shape, index):
    found = np.zeros(shape)
    np.add.at(found, index, v)
    return found


def summed(v, shape):
    v = v.sum(tuple(range(v.ndim - len(shape))))
    return v.sum(tuple(k for k, n in enumerate(shape) if n == 1), keepdims=True)


def finished(root, constants=False):
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


def order(root):
    return finished(root)[::-1]


def sweep_with(
    order=order, add="add", shrink=summed, free="saved", check=True, constants=False, inner=False
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


def deposit(grad, cotangent):
    return cotangent.copy() if grad is None else grad + cotangent


def engine_with(
    sweep=None,
    deposit=deposit,
    mul=None,
    power=None,
    total=None,
    sizes=True,
    shapes=True,
    pick=scatter,
    minus=None,
):
    """The lesson's class, with a piece replaced."""
    sweep = sweep or sweep_with()

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
            if v is None and self.data.size != 1 and sizes:
                raise RuntimeError("give v")
            v = np.ones(self.shape) if v is None else np.array(v, dtype=np.float64)
            if v.shape != self.shape and shapes:
                raise RuntimeError("shape of v")
            for leaf, cotangent in sweep(self, v, retain_graph).items():
                leaf.grad = deposit(leaf.grad, cotangent)

    return Tensor
