"""The problems of the benchmarks: hand-written derivatives, and the files of bundle adjustment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from benchmarks.matrices.derivative import DERIVATIVES
from benchmarks.problems import by_hand, in_torch
from benchmarks.problems.catalogue import (
    FULL,
    HESSIANS,
    QUICK,
    QUICK_HESSIANS,
    Problem,
    chosen,
    with_files,
)
from benchmarks.problems.numbers import DRAWN, arrays

TINY = {
    "brusselator2d": (4,),
    "burgers1d": (7,),
    "heat5": (4,),
    "shallow_water": (4,),
    "conv_tanh": (6, 2, 3, 1),
    "conv_relu_conv": (5, 2),
    "persample_mlp": (3, 4, 5, 2),
    "transpose": (3, 4),
    "gather_scatter": (9, 30),
    "attention": (4, 3),
    "fem_p1": (4,),
    "springs3d": (3,),
    "bundle": (3, 4, 11),
    "dense_mlp": (4, 5, 6),
    "wide_mlp": (9, 3, 2),
    "tall_mlp": (2, 3, 9),
}
TINY_HESSIANS = {
    "rosenbrock": (7,),
    "arrowhead": (6,),
    "band_quartic": (11,),
    "broyden_squares": (7,),
    "minimal_surface": (4,),
    "graph_quartic": (9, 20),
    "spring_energy": (5, 12),
    "logsumexp_rows": (4, 3, 5),
    "attention_energy": (4, 3),
    "mlp_loss": (4, 5, 6),
    "logistic": (4, 9),
}
DENSE = {
    "jacobian": torch.func.jacrev,
    "hessian": lambda func: torch.func.jacrev(torch.func.grad(func)),
}


def problem(kind: str) -> Problem:
    if kind in TINY_HESSIANS:
        return Problem(kind, kind, TINY_HESSIANS[kind], matrix="hessian")
    return Problem(kind, kind, TINY[kind])


def test_every_kind_is_built_and_measured() -> None:
    kinds = set(DRAWN)
    assert kinds == set(TINY) | set(TINY_HESSIANS) == set(in_torch.BUILDERS)
    assert set(by_hand.BUILDERS) < kinds
    for problems, of in ((FULL, TINY), (HESSIANS, TINY_HESSIANS), (QUICK_HESSIANS, TINY_HESSIANS)):
        assert {p.kind for p in problems} == set(of)
    for problems in (QUICK + QUICK_HESSIANS, FULL + HESSIANS):
        assert len({p.name for p in problems}) == len(problems)
        assert all(p.matrix == problem(p.kind).matrix for p in problems)


@pytest.mark.parametrize("kind", TINY | TINY_HESSIANS)
def test_the_plan_and_the_hand_agree_with_dense_autograd(kind: str) -> None:
    func, x = in_torch.build(problem(kind))
    of_func = DENSE[problem(kind).matrix](func)
    dense = of_func(x).reshape(-1, x.numel()).numpy()
    assert np.abs(dense).max() > 1e-3
    ours = DERIVATIVES[problem(kind).matrix].matrix(func, layout="scipy")(x).toarray()
    assert np.allclose(ours, dense, rtol=1e-10, atol=1e-12)
    if (hand := by_hand.build(problem(kind))) is not None:
        assert np.all(np.diff(hand.rows) >= 0)
        places = (hand.rows, hand.cols)
        assert len(set(zip(*places, strict=True))) == len(hand.rows)
        matrix = scipy.sparse.coo_array((hand.values(x).numpy(), places), shape=dense.shape)
        assert np.allclose(matrix.toarray(), dense, rtol=1e-10, atol=1e-12)
        moved = x + 0.01
        there = of_func(moved).reshape(-1, x.numel()).numpy()
        assert np.allclose(hand.values(moved).numpy(), there[places], rtol=1e-10, atol=1e-12)


def test_a_bundle_file_takes_the_place_of_drawn_numbers(tmp_path: Path) -> None:
    camera = "0.1 0.2 0.3 0 0 -6 1.5 0.1 0.2 0.01 0.02"
    text = f"3 4 11\n{camera}\n0.5 0.6 0.7\n0.4\n1.25 2.5\n"
    (tmp_path / "ba9_n3_m4_p11.txt").write_text(text)
    drawn = Problem("bundle ba9", "bundle", (3, 4, 11))
    other = Problem("bundle ba8", "bundle", (3, 4, 12))
    read, kept = with_files([drawn, other], tmp_path)
    assert kept == other
    found = arrays(read)
    assert {name: a.shape for name, a in found.items()} == {
        name: a.shape for name, a in arrays(drawn).items()
    }
    assert found["x"][:11].tolist() == [float(word) for word in camera.split()]
    assert found["x"][33:36].tolist() == [0.5, 0.6, 0.7]
    assert set(found["x"][45:].tolist()) == {0.4}
    assert found["seen"][0].tolist() == [1.25, 2.5]
    assert found["camera_of"].tolist() == [k % 3 for k in range(11)]
    assert found["point_of"].tolist() == [k % 4 for k in range(11)]
    func, x = in_torch.build(read)
    hand = by_hand.build(read)
    assert hand is not None
    dense = torch.func.jacrev(func)(x).numpy()
    assert len(hand.rows) == 29 * 11
    assert np.allclose(hand.values(x).numpy(), dense[hand.rows, hand.cols], rtol=1e-10)


def test_a_bundle_file_of_another_form_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ba9_n3_m4_p11.txt"
    path.write_text("3 4 11\n1 2 3\n")
    with pytest.raises(ValueError, match="3 numbers after the sizes, not 17"):
        arrays(Problem("bundle ba9", "bundle", (3, 4, 11), str(path)))


def test_names_choose_problems() -> None:
    assert {p.kind for p in chosen(FULL, ["brusselator", "heat5"])} == {"brusselator2d", "heat5"}
    assert chosen(FULL, []) == FULL
