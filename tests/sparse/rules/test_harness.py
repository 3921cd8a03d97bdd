"""The harness itself: it must see a rule that misses, one that is loose, and one that is absent."""

from __future__ import annotations

import pytest
import torch

from pullback._errors import UnsupportedError
from pullback.sparse.rules import RULES
from pullback.sparse.rules.base import Rule

from .harness import check, linear_tensors, rule_of, truth_of


def test_a_rule_that_misses_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = RULES["roll"]
    monkeypatch.setitem(RULES, "roll", Rule(lambda step: step.inputs[0], right.linear))
    with pytest.raises(AssertionError, match="missed 3 entries"):
        check(lambda v: v.roll(1), [(3,)])


def test_a_rule_that_is_loose_is_seen() -> None:
    weight = torch.tensor([1.0, 0.0]).double()
    with pytest.raises(AssertionError, match="loose by 2"):
        check(lambda v, w: v * w, [(2, 2)], lambda: [weight])
    check(lambda v, w: v * w, [(2, 2)], lambda: [weight], exact=False)


def test_an_operator_without_a_rule_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(RULES, "roll")
    with pytest.raises(AssertionError, match="roll"):
        check(lambda v: v.roll(1), [(1,)])
    found = check(lambda v: v.roll(1), [(3,)], pessimistic=True, exact=False)
    assert found.matrix.all()


def test_what_is_not_linear_is_seen() -> None:
    with pytest.raises(AssertionError, match="not linear"):
        truth_of(lambda v: v + 1, linear_tensors([(3,)]))
    with pytest.raises(UnsupportedError):
        rule_of(torch.abs, linear_tensors([(3,)]))


def test_truth_of_complex_arguments_counts_both_parts() -> None:
    v = torch.zeros(2, dtype=torch.complex128)
    assert truth_of(lambda z: torch.view_as_real(z)[..., 1], [v]).tolist() == [
        [True, False],
        [False, True],
    ]


def test_strides_and_several_results() -> None:
    strided = torch.zeros(2, 3).double().t()
    (given,) = linear_tensors([strided])
    assert given.stride() == strided.stride()
    found = check(lambda v: (v[0], v.sum(0)), [strided])
    assert found.matrix.shape == (4, 6)
    assert found.graph.cotangents[0].meta.stride == (1, 3)
