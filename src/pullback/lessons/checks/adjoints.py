"""Lesson 13's rules: of a matrix product, of indexing, of broadcasting."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checking import Case, Exercise, Misconception, Own, same_function
from .nodes import Array, shrunk
from .several import fresh


def _matrices(own: Own) -> list[Case]:
    draw = np.random.default_rng(13)
    cases = []
    for m, k, n in ((2, 3, 4), (3, 3, 3), (1, 5, 2)):
        v, a, b = (draw.integers(-4, 5, shape) * 1.0 for shape in ((m, n), (m, k), (k, n)))
        text = f"v ({m}, {n}), a ({m}, {k}), b ({k}, {n})"
        cases.append(Case(text, fresh(v, a, b)))
    return cases


MATMUL_RULE = Exercise(
    same_function(
        _matrices,
        lambda v, a, b: (v @ b.T, a.T @ v),
        (
            Misconception(
                lambda v, a, b: (a.T @ v, v @ b.T),
                "right, in the wrong order: first the cotangent of a, then that of b.",
            ),
        ),
        hint="y moves by da @ b, so a gets v @ b.T; y moves by a @ db, so b gets a.T @ v.",
        praise="Shapes leave one way, and it is the right one.",
    ),
    crashes=(
        (
            "matmul",
            "the shapes do not meet. a is (m, k), b is (k, n), v is (m, n): only v @ b.T is "
            "(m, k), and only a.T @ v is (k, n).",
        ),
    ),
)

_PICKS: tuple[tuple[tuple[int, ...], Any, str], ...] = (
    ((4,), [0, 0, 2], "[0, 0, 2]"),
    ((4,), 1, "1"),
    ((5,), slice(1, 4), "slice(1, 4)"),
    ((3, 2), [2, 2, 2, 0], "[2, 2, 2, 0]"),
    ((3, 4), (slice(None), [1, 1]), "(slice(None), [1, 1])"),
)


def _index_cases(own: Own) -> list[Case]:
    cases = []
    for shape, index, text in _PICKS:
        v = np.arange(1.0, np.zeros(shape)[index].size + 1).reshape(np.zeros(shape)[index].shape)
        told = f"index {text} into shape {shape}, v = 1, 2, 3..."
        cases.append(Case(told, fresh(v, shape, index)))
    return cases


def _scattered(v: Array, shape: tuple[int, ...], index: Any) -> Array:
    """The truth without scatter: number the places, and add up what each number got."""
    picked = np.arange(np.prod(shape)).reshape(shape)[index]
    weights = np.broadcast_to(v, picked.shape).ravel()
    found = np.bincount(picked.ravel(), weights, int(np.prod(shape)))
    return found.astype(np.float64).reshape(shape)


def _set(v: Array, shape: tuple[int, ...], index: Any) -> Array:
    found = np.zeros(shape)
    found[index] = v
    return found


def _marked(v: Array, shape: tuple[int, ...], index: Any) -> Array:
    return np.sign(_scattered(np.ones_like(v), shape, index))


INDEX_RULE = Exercise(
    same_function(
        _index_cases,
        _scattered,
        (
            Misconception(
                _set,
                "of an entry that was picked twice, only the last place counts in yours. Both "
                "copies moved with it: add them up. (g[index] += v does not; np.add.at does.)",
            ),
            Misconception(
                lambda v, shape, index: _scattered(np.ones_like(v), shape, index),
                "that counts how often each entry was picked: v has not been used.",
            ),
            Misconception(_marked, "that marks what was picked: v has not been used."),
            Misconception(
                lambda v, shape, index: (
                    _scattered(v, shape, index)
                    / np.maximum(_scattered(np.ones_like(v), shape, index), 1)
                ),
                "that is the mean over the places of an entry; its contributions are summed.",
            ),
        ),
        hint="zeros of that shape; at each place that was picked, add what the copies got.",
        praise="Gather forward, scatter-add backward.",
    )
)

_BROADCASTS = (
    ((3, 4), (3, 1)),
    ((3, 4), (4,)),
    ((3, 4), ()),
    ((2, 3, 4), (1, 4)),
    ((3, 3), (3, 1)),
    ((2, 3), (2, 3)),
    ((4, 1, 2), (1, 1, 2)),
)


def _broadcast_cases(own: Own) -> list[Case]:
    cases = []
    for big, small in _BROADCASTS:
        v = np.arange(1.0, np.prod(big) + 1).reshape(big)
        text = f"v = 1, 2, 3... of shape {big}, shape = {small}"
        cases.append(Case(text, fresh(v, small)))
    return cases


def _averaged(v: Array, shape: tuple[int, ...]) -> Array:
    return np.asarray(shrunk(v, shape) * (np.prod(shape) / v.size))


def _front_only(v: Array, shape: tuple[int, ...]) -> Array:
    return np.asarray(v.sum(tuple(range(v.ndim - len(shape)))))


def _first_copy(v: Array, shape: tuple[int, ...]) -> Array:
    picked = v[(0,) * (v.ndim - len(shape))]
    return np.asarray(picked[tuple(slice(0, n) for n in shape)])


def _squeezed(v: Array, shape: tuple[int, ...]) -> Array:
    return shrunk(v, shape).squeeze()


UNBROADCAST = Exercise(
    same_function(
        _broadcast_cases,
        shrunk,
        (
            Misconception(_averaged, "that is the mean over the copies. Contributions are summed."),
            Misconception(
                _front_only,
                "axes in front are summed; axes of length 1 that were stretched are still long. "
                "Sum them, too, with keepdims=True.",
            ),
            Misconception(
                _squeezed,
                "the axes of length 1 are gone: keepdims=True leaves them, and the shape is that "
                "of the operand.",
            ),
            Misconception(
                _first_copy, "that is what one copy got. All copies moved with the entry: sum them."
            ),
            Misconception(
                lambda v, shape: np.full(shape, v.sum()),
                "that is the sum of everything; sum only over what broadcasting repeated.",
            ),
        ),
        hint="sum over the v.ndim - len(shape) axes in front, then over axes where `shape` has 1, "
        "keeping those.",
        praise="A copy forward is a sum backward.",
    ),
    crashes=(
        ("reshape", "reshaping adds nothing up; the copies have to be summed."),
        ("broadcast", "the shapes shrink on the way back: sum, do not broadcast again."),
    ),
)
