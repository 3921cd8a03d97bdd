"""Every claim of a first tutorial on tensor gradients is shown by a cell that computes it."""

from __future__ import annotations

import pytest

from pullback.lessons.catalogue import source_of

from .claims import CLAIMS, Claim

COMPUTES = {"proof": "assert", "reveal": "lesson.reveal(", "check": "lesson.check("}


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda c: f"{c.lesson}-{c.text[:40]}")
def test_a_cell_computes_it(claim: Claim) -> None:
    role, key = claim.place.split()
    assert COMPUTES[role] in source_of(claim.lesson).cell(role, key).text


def test_the_claims_are_spread_over_the_first_six_lessons() -> None:
    """The claims are spread over all six, and none is written down twice."""
    assert {claim.lesson for claim in CLAIMS} >= {1, 2, 3, 4, 5, 6}
    assert len({claim.text for claim in CLAIMS}) == len(CLAIMS)


def test_a_claim_without_a_cell_would_fail() -> None:
    with pytest.raises(StopIteration):
        test_a_cell_computes_it(Claim("the moon is made of tensors", 1, "proof moon"))
