"""Stubs keep what a learner needs to begin, and nothing of the solution."""

from __future__ import annotations

import pytest

from pullback.lessons.catalogue import source_of
from pullback.lessons.stub import names_of, stub_of

from .helpers import NUMBERS

SOLUTION = '''\
import math

# said above


class Square(torch.autograd.Function):
    """Squares."""

    order: int

    @staticmethod
    def forward(ctx, x):
        """Keep x."""
        # secret
        ctx.save_for_backward(x)
        return x * x


v = torch.zeros(
    2,
)
v[0] = 1
a, b = secret(), 2
print(v)
'''
STUB = '''\
import math

# said above


class Square(torch.autograd.Function):
    """Squares."""

    order: int

    @staticmethod
    def forward(ctx, x):
        """Keep x."""
        ...  # your code


v = ...  # your code
a, b = ..., ...  # your code'''


def test_a_stub_keeps_names_signatures_and_docstrings() -> None:
    assert stub_of(SOLUTION) == STUB
    assert names_of(SOLUTION) == ("Square", "v", "a", "b")


def test_marked_lines_alone_are_taken_away() -> None:
    solution = "def f(x):\n    y = 2 * x\n    # your code\n    z = y\n    w = z\n    # end of your code\n    return w"
    assert stub_of(solution) == "def f(x):\n    y = 2 * x\n    ...  # your code\n    return w"


@pytest.mark.parametrize("number", NUMBERS)
def test_stubs_of_the_lessons_are_python_and_not_the_solution(number: int) -> None:
    for cell in source_of(number).cells:
        if cell.role == "solution":
            stub = stub_of(cell.text)
            compile(stub, cell.key, "exec")
            assert "..." in stub
            assert stub != cell.text
            assert names_of(stub) == names_of(cell.text) or "# your code" in cell.text
