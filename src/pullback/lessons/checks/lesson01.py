"""Lesson 1: the size of a Jacobian, and the gradient of one entry."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..checking import Case, Exercise, Misconception, Own, generator, same_function

_SHAPES = (((5, 4), (4, 5)), ((), (3,)), ((2, 3, 4), (7,)), ((1,), ()), ((6,), (2, 0)))


def _shape_cases(own: Own) -> list[Case]:
    def case(pair: tuple[tuple[int, ...], tuple[int, ...]]) -> Case:
        return Case(f"out_shape = {pair[0]}, inp_shape = {pair[1]}", lambda: pair)

    return [case(pair) for pair in _SHAPES]


def _times(out_shape: tuple[int, ...], inp_shape: tuple[int, ...]) -> int:
    return math.prod(out_shape) * math.prod(inp_shape)


_SIZE = Exercise(
    same_function(
        _shape_cases,
        _times,
        (
            Misconception(
                lambda a, b: math.prod(a) + math.prod(b),
                "J is a table, not a list: every entry of the output has a derivative by every "
                "entry of the input, so the two counts are multiplied.",
            ),
            Misconception(
                lambda a, b: math.prod(a),
                "that is the number of rows, one per output entry; each row has an entry per "
                "input entry.",
            ),
            Misconception(
                lambda a, b: math.prod(b),
                "that is the length of one row; there is a row per output entry.",
            ),
            Misconception(
                lambda a, b: a[0] * b[0],
                "count all entries of each shape, not only the first axis: (5, 4) has 20 of them.",
            ),
            Misconception(
                lambda a, b: len(a) * len(b),
                "len of a shape is its number of axes; the number of entries is the product of "
                "its sizes.",
            ),
        ),
        hint="J has a row per output entry and a column per input entry; a shape of no axes, (), "
        "is that of one number.",
    )
)


def _functions() -> list[tuple[str, Callable[[Tensor], Tensor], Tensor, tuple[int, ...]]]:
    eye = torch.eye(4, 5)
    drawn = torch.randn(3, 2, generator=generator(), dtype=torch.float64)
    mixing = torch.randn(4, 3, generator=generator(1), dtype=torch.float64)
    return [
        ("f = (x + 1).pow(2).t(), x = torch.eye(4, 5)", _first, eye, (0, 1)),
        ("f = (x + 1).pow(2).t(), x = torch.eye(4, 5)", _first, eye, (3, 3)),
        ("f = M @ x.sin() with a random M of 4 x 3", lambda x: mixing @ x.sin(), drawn, (3, 1)),
        ("f = x.cumsum(0), x random of 3 x 2", lambda x: x.cumsum(0), drawn, (1, 0)),
        ("f = x.square(), x a vector", lambda x: x.square(), drawn[:, 0], (2,)),
    ]


def _first(x: Tensor) -> Tensor:
    return (x + 1).pow(2).t()


def _entry_cases(own: Own) -> list[Case]:
    def case(text: str, f: Callable[[Tensor], Tensor], x: Tensor, index: tuple[int, ...]) -> Case:
        return Case(f"{text}, index = {index}", lambda: (f, x.clone().requires_grad_(), index))

    return [case(*each) for each in (*_functions(), *_own_function(own))]


def _own_function(
    own: Own,
) -> list[tuple[str, Callable[[Tensor], Tensor], Tensor, tuple[int, ...]]]:
    if len(own) != 2 or not callable(own[0]) or not isinstance(own[1], Tensor):
        return []
    f, x = own[0], own[1].detach()
    try:
        out = f(x.clone().requires_grad_())
        last = tuple(size - 1 for size in out.shape)
        out[last].backward()
    except (RuntimeError, IndexError, TypeError):  # theirs has no gradient to ask for
        return []
    return [("f = your own_function, x = mine", f, x, last)]


def _entry(f: Any, x: Tensor, index: tuple[int, ...]) -> Tensor:
    (found,) = torch.autograd.grad(f(x)[index], x)
    return found


def _of_sum(f: Any, x: Tensor, index: tuple[int, ...]) -> Tensor:
    (found,) = torch.autograd.grad(f(x).sum(), x)
    return found


def _of_row(f: Any, x: Tensor, index: tuple[int, ...]) -> Tensor:
    (found,) = torch.autograd.grad(f(x)[index[0]].sum(), x)
    return found


def _of_input(f: Any, x: Tensor, index: tuple[int, ...]) -> Tensor:
    (found,) = torch.autograd.grad(f(x).sum(), x)
    place = torch.zeros_like(found)
    place[index] = found[index]
    return place


_ENTRY = Exercise(
    same_function(
        _entry_cases,
        _entry,
        (
            Misconception(
                _of_sum,
                "that is the gradient of f(x).sum(), all entries added up; pick f(x)[index] first.",
            ),
            Misconception(
                _of_row,
                "that is the gradient of a whole row added up; index has one number per axis, so "
                "use all of it: f(x)[index].",
            ),
            Misconception(
                lambda f, x, index: _entry(f, x, index[::-1]),
                "the index is turned around; f(x)[index] takes it as it is.",
            ),
            Misconception(
                lambda f, x, index: f(x)[index],
                "that is the value f(x)[index]; its gradient by x is asked for.",
            ),
            Misconception(
                _of_input,
                "index is a place in the output f(x), not in the input x: pick before you "
                "differentiate.",
            ),
            Misconception(
                lambda f, x, index: _of_sum(f, x, index)[index],
                "that is one entry of the sum's gradient; the gradient of one entry of f(x) has "
                "the whole shape of x.",
            ),
        ),
        hint="f(x)[index] is a single number: call backward on it, and read x.grad.",
    )
)

EXERCISES = {"size": _SIZE, "entry": _ENTRY}
