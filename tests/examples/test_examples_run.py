"""The example programs: their formulas against other sources, and each of them run as a user would."""

from __future__ import annotations

import importlib.util
import re
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

import pullback as pb

Csr: TypeAlias = scipy.sparse.csr_array
EXAMPLES = Path(__file__).parents[2] / "examples"
needs_plans = pytest.mark.skipif(
    not hasattr(pb, "plan_jacobian"), reason="pullback.plan_jacobian is not there yet"
)
# The opening of a problem in the file format: sizes, a camera, a point, a weight, a feature.
PROBLEM = """4 7 40
-0.75 -1.1 -0.85 34.5 39.6 53.8 419.2 5.9 -8.5 0.087 0.0027
7.2 0.0011 3.02
0.417
271.8 834.2
"""


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def dense(func: Callable[..., Tensor], argnums: tuple[int, ...]) -> Callable[..., Csr]:
    """The Jacobian of a vector function as a CSR array, by dense reverse mode."""

    def jac(*args: Tensor) -> Csr:
        parts = torch.func.jacrev(func, argnums=argnums)(*args)
        rows = func(*args).numel()
        return scipy.sparse.csr_array(torch.cat([p.reshape(rows, -1) for p in parts], 1).numpy())

    return jac


def float64(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_every_example_says_how_to_run_it() -> None:
    for path in EXAMPLES.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert f"python examples/{path.name}" in text, path.name
        assert text.count("\n") < 120, path.name


@pytest.mark.parametrize("length", [0.0, 1e-9, 1e-5, 1e-4, 2e-4, 0.1, 1.0, 3.0, 6.0])
def test_rotation_is_that_of_scipy(length: float) -> None:
    axis = torch.nn.functional.normalize(float64(5, 3), dim=1) * length
    x = float64(5, 3, seed=1)
    expected = Rotation.from_rotvec(axis.numpy()).apply(x.numpy())
    np.testing.assert_allclose(load("bundle_adjustment").rotate(axis, x), expected, atol=1e-14)


def test_rotation_at_zero_has_the_derivative_of_the_cross_product() -> None:
    x = float64(3)
    J = torch.func.jacrev(load("bundle_adjustment").rotate)(torch.zeros(3, dtype=torch.float64), x)
    expected = torch.linalg.cross(torch.eye(3, dtype=torch.float64), x.expand(3, 3)).T
    torch.testing.assert_close(J, expected)


@pytest.mark.parametrize("length", [0.9e-4, 1.1e-4, 0.5])
def test_the_derivative_of_rotation_is_right_on_both_sides_of_the_series(length: float) -> None:
    rotate, x = load("bundle_adjustment").rotate, float64(3)
    axis = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64) * length
    J, h = torch.func.jacrev(rotate)(axis, x), 1e-6
    for k in range(3):
        side = torch.zeros(3, dtype=torch.float64)
        side[k] = h
        turned = [Rotation.from_rotvec((axis + s * side).numpy()).apply(x.numpy()) for s in (1, -1)]
        np.testing.assert_allclose(J[:, k], (turned[0] - turned[1]) / (2 * h), atol=1e-8)


@pytest.mark.parametrize("length", [0.9e-4, 1.1e-4])
def test_a_small_turn_moves_a_perpendicular_point_by_its_sine(length: float) -> None:
    axis, x = torch.eye(3, dtype=torch.float64)[2] * length, torch.eye(3, dtype=torch.float64)[0]
    turned = load("bundle_adjustment").rotate(axis, x)
    np.testing.assert_allclose(turned[1], np.sin(length), rtol=1e-13)


def test_projection_follows_the_camera_model_number_by_number() -> None:
    camera, point = float64(11), float64(3, seed=1) + torch.tensor([0.0, 0.0, 5.0])
    r, center, f, middle, (k1, k2) = np.split(camera.numpy(), [3, 6, 7, 9])
    x, y, z = Rotation.from_rotvec(r).apply(point.numpy() - center)
    square = (x / z) ** 2 + (y / z) ** 2
    expected = np.array([x / z, y / z]) * (1 + k1 * square + k2 * square**2) * f + middle
    found = load("bundle_adjustment").project(camera[None], point[None])[0]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_problem_file_is_read_and_repeated(tmp_path: Path) -> None:
    path = tmp_path / "problem.txt"
    path.write_text(PROBLEM, encoding="utf-8")
    example = load("bundle_adjustment")
    (cameras, points, weights), features = example.read(path)
    shapes = [tuple(t.shape) for t in (cameras, points, weights, features)]
    assert shapes == [(4, 11), (7, 3), (40,), (40, 2)]
    assert cameras[3, 6] == 419.2
    assert points[6].tolist() == [7.2, 0.0011, 3.02]
    assert weights[-1] == 0.417
    assert features[-1].tolist() == [271.8, 834.2]
    error = example.residual(cameras, points, weights, features)
    assert error.shape == (120,)
    np.testing.assert_allclose(error[80:], 1 - 0.417**2)


def test_a_damped_step_lowers_the_residual() -> None:
    example = load("bundle_adjustment")
    unknowns, features = example.synthetic(3, 10, 30)
    args = (*unknowns, features)
    error = example.residual(*args)
    J = dense(example.residual, (0, 1, 2))(*args)
    assert J.shape == (90, 33 + 30 + 30)
    stepped = example.moved(unknowns, example.damped_step(J, error, 1e-3))
    assert example.residual(*stepped, features).norm() < 0.2 * error.norm()


def test_newton_converges_quadratically_on_the_residual() -> None:
    example = load("reaction_diffusion")
    state, dt = example.start(6), torch.tensor(0.02, dtype=torch.float64)
    new, sizes = example.newton_step(dense(example.residual, (0,)), state, dt)
    assert example.residual(new, state, dt).abs().max() < 1e-9
    assert len(sizes) <= 6
    assert sizes[-1] < 1e-3 * sizes[-2]


def run(name: str, *argv: str) -> None:
    began = time.perf_counter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{name}.py", *argv])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert time.perf_counter() - began < 60


@needs_plans
def test_reaction_diffusion_runs(capsys: pytest.CaptureFixture[str]) -> None:
    run("reaction_diffusion", "16")
    printed = capsys.readouterr().out
    assert "512 x 512, 3072 nonzeros" in printed
    assert int(re.search(r"costs (\d+) products", printed)[1]) <= 12  # type: ignore[index]
    ends = re.findall(r"-> (\S+)$", printed, re.MULTILINE)
    assert len(ends) == 5
    assert all(float(end) < 1e-9 for end in ends)


@needs_plans
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")  # torch's own notice
def test_per_sample_network_runs(capsys: pytest.CaptureFixture[str]) -> None:
    run("per_sample_network", "8")
    plain, difference, gains, training, evaluation = capsys.readouterr().out.splitlines()
    assert "64 x 128, 12.5% nonzero, 1 products, samples stay apart" in plain
    assert float(difference.split(": ")[1]) < 1e-12
    assert gains.startswith("largest gain")
    assert "SAMPLES ARE MIXED" in training
    assert "100.0% nonzero" in training
    assert "12.5% nonzero" in evaluation
    assert "samples stay apart" in evaluation


@needs_plans
def test_bundle_adjustment_runs_on_a_made_up_problem(capsys: pytest.CaptureFixture[str]) -> None:
    run("bundle_adjustment")
    printed = capsys.readouterr().out
    assert "J is 990 x 561 with 9570 nonzeros" in printed
    sums = [float(value) for value in re.findall(r"sum of squares (\S+?),?(?: |$)", printed, re.M)]
    assert len(sums) == 6
    assert sums == sorted(sums, reverse=True)
    assert sums[-1] < 0.01 * sums[0]


@needs_plans
def test_bundle_adjustment_runs_on_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "problem.txt"
    path.write_text(PROBLEM, encoding="utf-8")
    run("bundle_adjustment", str(path))
    printed = capsys.readouterr().out
    assert "J is 120 x 105" in printed
    sums = [float(value) for value in re.findall(r"sum of squares (\S+?),?(?: |$)", printed, re.M)]
    assert sums[-1] < sums[0]


def test_scipy_solvers_run(capsys: pytest.CaptureFixture[str]) -> None:
    run("scipy_solvers", "9")
    printed = capsys.readouterr().out
    assert "ode(reaction): Jacobian 162 × 162, 972 nonzeros, 1 product" in printed
    assert "residual(balance): Jacobian 81 × 81, 369 nonzeros, 1 product" in printed
    sizes = [float(size) for size in re.findall(r"largest residual (\S+)", printed)]
    assert sizes[-1] < 1e-8
    assert len(sizes) <= 6
    assert "heat counts most for it at (4, 4)" in printed
