"""``SparsityPattern.why``: chains that exist, link by link, and the call that made a pattern dense."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pullback as pb
from pullback.sparse.story import Chain, Link

X = torch.linspace(0.2, 1.0, 6, dtype=torch.float64)


def differences(x: Tensor) -> Tensor:
    return (x[1:] - x[:-1]) ** 2


def mixed_up(x: Tensor) -> Tensor:
    y = x.view(2, 3).t().reshape(-1).sin()
    return torch.cat([y[::2] * y[1::2], y.sum()[None]])


def convolved(x: Tensor) -> Tensor:
    return torch.nn.functional.conv1d(x.view(1, 1, 6), torch.ones(1, 1, 3).double()).reshape(-1)


FUNCS: dict[str, Callable[..., Any]] = {
    "differences": differences,
    "mixed up": mixed_up,
    "convolved": convolved,
    "matmul": lambda x: x.view(2, 3) @ x.view(3, 2),
    "softmax": lambda x: x.view(2, 3).softmax(1),
    "sort": lambda x: x.view(2, 3).sort(1).values,
    "a number": lambda x: x.sin().sum(),
    "nothing": lambda x: torch.zeros(2) * x.detach()[:2],
    "itself": lambda x: x,
}


@pytest.mark.parametrize("name", FUNCS)
def test_a_chain_exists_where_the_pattern_has_an_entry_and_nowhere_else(name: str) -> None:
    pattern = pb.plan_jacobian(FUNCS[name], X).pattern
    places = pattern.to_scipy().toarray()
    for i, j in itertools.product(*map(range, pattern.shape)):
        chain = pattern.why(i, j)
        assert isinstance(chain, Chain)
        assert (chain.row, chain.col) == (i, j)
        assert chain.exists == bool(places[i, j])
        if not chain.exists:
            assert chain.links == ()
            assert re.fullmatch(r"output.* does not depend on .*\.", str(chain))


@pytest.mark.parametrize("name", FUNCS)
def test_every_link_names_an_element_that_is_there(name: str) -> None:
    pattern = pb.plan_jacobian(FUNCS[name], X).pattern
    for i, j in zip(pattern.rows.tolist(), pattern.cols.tolist(), strict=True):
        for link in pattern.why(i, j).links:
            assert len(link.index) == len(link.shape)
            assert all(0 <= k < size for k, size in zip(link.index, link.shape, strict=True))


def test_the_links_lead_from_the_input_to_the_output() -> None:
    """Each pointwise link stands at the place that the elements before and after it give it."""
    chain = pb.plan_jacobian(lambda x: (2 * x[1:].sin()).flip(0), X).pattern.why(1, 4)
    calls = [link.call for link in chain.links]
    # x[4] is element 3 of x[1:], of its sine and of the product, and element 1 of the flipped.
    assert calls[-1] == "flip"
    at_sine = [link.index for link in chain.links if link.shape == (5,)]
    assert set(at_sine) == {(3,)}
    assert chain.links[0].shape == (6,)
    assert chain.links[0].index == (4,)


def test_each_link_reads_the_next_one() -> None:
    """Following a permutation by hand: every link's element is where the move puts it."""
    chain = pb.plan_jacobian(lambda x: x.roll(2).flip(0).roll(1), X).pattern
    for i in range(6):
        (j,) = np.flatnonzero(chain.to_scipy().toarray()[i])
        links = chain.why(i, int(j)).links
        place = int(j)
        assert links[0].index == (place,)
        by_hand = {place, (place + 2) % 6, 5 - (place + 2) % 6}
        assert {link.index[0] for link in links} <= by_hand
        assert (5 - (place + 2) % 6 + 1) % 6 == i


def test_the_text_of_a_chain() -> None:
    text = str(pb.plan_jacobian(differences, X).pattern.why(2, 3))
    lines = text.splitlines()
    assert lines[0] == "output[2] may depend on x[3], through the backward of:"
    assert len(lines) > 1
    for line in lines[1:]:
        assert re.fullmatch(r"  \w+.*: element (\(\d+,\) of \(\d+,\)|scalar)", line), line
    assert repr(pb.plan_jacobian(differences, X).pattern.why(2, 3)) == text


def test_the_text_of_no_chain() -> None:
    pattern = pb.plan_jacobian(differences, X).pattern
    assert str(pattern.why(0, 5)) == "output[0] does not depend on x[5]."


def test_elements_are_named_in_their_own_tensors() -> None:
    func = lambda state, dt: {"new": state["u"] * dt, "sum": state["u"].sum()}  # noqa: E731
    pattern = pb.plan_jacobian(
        func, {"u": torch.rand(2, 3)}, torch.rand(()), argnums=(0, 1)
    ).pattern
    assert str(pattern.why(4, 4)).startswith("output['new'][1, 1] may depend on state['u'][1, 1], ")
    assert str(pattern.why(6, 5)).startswith("output['sum'] may depend on state['u'][1, 2], ")
    assert str(pattern.why(0, 6)).startswith("output['new'][0, 0] may depend on dt, ")
    assert str(pattern.why(6, 6)) == "output['sum'] does not depend on dt."


def test_a_line_of_the_users_program_is_named() -> None:
    links = pb.plan_jacobian(differences, X).pattern.why(0, 0).links
    lines = {link.line for link in links if link.line}
    assert all("test_story.py" in line for line in lines)


DENSE: dict[str, tuple[Callable[..., Any], str]] = {
    "softmax": (lambda x: (2 * x).softmax(0).sin(), "softmax"),
    "matmul": (lambda x: torch.ones(6, 6).double() @ x.sin(), "m[mv]|t$"),
    "fft": (lambda x: torch.fft.fft(x.sin()).real, "fft"),
    "cumsum": (lambda x: x.sin().cumsum(0), "cumsum|flip"),
}


@pytest.mark.parametrize("name", DENSE)
def test_the_call_that_made_it_dense(name: str) -> None:
    func, expected = DENSE[name]
    found = pb.plan_jacobian(func, X).pattern.why()
    assert found.link is not None
    assert re.search(expected, found.link.call), found
    assert found.before == 1
    assert 1 < found.after <= 6
    assert f"{found.link.call}" in str(found)
    assert (
        "made it dense: before it an element depended on 1 of the outputs on average, after it on"
        in str(found)
    )


def test_a_diagonal_was_made_dense_by_nobody() -> None:
    found = pb.plan_jacobian(torch.sin, X).pattern.why()
    assert found.link is None
    assert str(found) == "No call joins what its operands depend on: every element has one output."


def test_patterns_without_a_story_are_refused(tmp_path: Any) -> None:
    plan = pb.plan_jacobian(differences, X)
    plan.save(tmp_path / "plan")
    given = pb.SparsityPattern.from_scipy(np.eye(3, dtype=bool))
    for pattern in (given, pb.Plan.load(tmp_path / "plan").pattern, plan.pattern.T):
        with pytest.raises(pb.UnsupportedError) as caught:
            pattern.why(0, 0)
        assert str(caught.value) == (
            "SparsityPattern.why: this pattern does not know where it comes from: it was given, "
            "loaded or made from another one. Ask the pattern of pb.plan_jacobian(func, *args)."
        )


@pytest.mark.parametrize(("row", "col", "name", "value", "count"), [
    (5, 0, "row", "5", 5), (-1, 0, "row", "-1", 5), (0, 6, "col", "6", 6), (0, None, "col", "None", 6),
    (None, 0, "row", "None", 5), (True, 0, "row", "True", 5), (0.0, 0, "row", "0.0", 5),
])  # fmt: skip
def test_places_outside_are_refused(row: Any, col: Any, name: str, value: str, count: int) -> None:
    with pytest.raises(pb.ArgumentError) as caught:
        pb.plan_jacobian(differences, X).pattern.why(row, col)
    assert str(caught.value) == (
        f"SparsityPattern.why: `{name}` is {value}; the matrix has {count} {name}s, counted from 0. "
        f"Give both places, or neither to ask which call made the pattern dense."
    )


def test_a_link_prints_what_it_knows() -> None:
    assert str(Link("mul", "grad * self", "a.py:3", (1, 2), (3, 4))) == (
        "mul, in grad * self at a.py:3: element (1, 2) of (3, 4)"
    )
    assert str(Link("sum", "", "", (), ())) == "sum: element scalar"
