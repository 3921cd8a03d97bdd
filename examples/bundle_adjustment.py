"""Levenberg-Marquardt steps on a bundle adjustment problem, with a sparse Jacobian planned once.

Observation i sees point ``i mod m`` through camera ``i mod n``. Its residuals are the weighted
reprojection error ``w_i * (project(camera, point) - feature_i)`` and ``1 - w_i^2``. The unknowns
are n cameras of 11 numbers [rotation vector (3), center (3), focal length, principal point (2),
radial distortion (2)], m points of 3 numbers and p weights: J is ``3p x (11n + 3m + p)``.

Run it with ``python examples/bundle_adjustment.py [FILE]``. A file holds ``n m p``, one camera, one
point, one weight and one feature, the last four repeated n, m, p and p times (the format of the
GradBench and ADBench problems). Without a file a synthetic problem is made up.
"""

from __future__ import annotations

import sys
from pathlib import Path

import scipy.sparse
import torch
from scipy.sparse.linalg import spsolve
from torch import Tensor

import pullback as pb

Unknowns = tuple[Tensor, Tensor, Tensor]  # cameras (n, 11), points (m, 3), weights (p,)


def rotate(rotation: Tensor, x: Tensor) -> Tensor:
    """``x`` turned about the axis ``rotation`` by its length: Rodrigues' formula, smooth at 0."""
    square = (rotation**2).sum(-1, keepdim=True)
    small = square < 1e-8
    angle = torch.where(small, 1.0, square).sqrt()  # no sqrt of 0: its derivative is infinite
    sine = torch.where(small, 1 - square / 6, angle.sin() / angle)
    cosine = torch.where(small, 0.5 - square / 24, 2 * ((angle / 2).sin() / angle) ** 2)
    once = torch.linalg.cross(rotation, x)
    return x + sine * once + cosine * torch.linalg.cross(rotation, once)


def project(cameras: Tensor, points: Tensor) -> Tensor:
    """Image coordinates ``(k, 2)`` of points ``(k, 3)``, each through its camera ``(k, 11)``."""
    seen = rotate(cameras[:, :3], points - cameras[:, 3:6])
    flat = seen[:, :2] / seen[:, 2:]
    square = (flat**2).sum(1, keepdim=True)
    bent = flat * (1 + cameras[:, 9:10] * square + cameras[:, 10:] * square**2)
    return bent * cameras[:, 6:7] + cameras[:, 7:9]


def residual(cameras: Tensor, points: Tensor, weights: Tensor, features: Tensor) -> Tensor:
    """``(3p,)``: two reprojection errors per observation, then one error per weight."""
    turn = torch.arange(len(weights))
    image = project(cameras[turn % len(cameras)], points[turn % len(points)])
    return torch.cat([(weights[:, None] * (image - features)).reshape(-1), 1 - weights**2])


def read(path: str | Path) -> tuple[Unknowns, Tensor]:
    """The unknowns and the features ``(p, 2)`` of a problem file."""
    words = Path(path).read_text(encoding="utf-8").split()
    n, m, p = map(int, words[:3])
    camera, point, weight, feature = torch.tensor(
        list(map(float, words[3:20])), dtype=torch.float64
    ).split([11, 3, 1, 2])
    return (camera.repeat(n, 1), point.repeat(m, 1), weight.repeat(p)), feature.repeat(p, 1)


def synthetic(n: int = 6, m: int = 55, p: int = 330) -> tuple[Unknowns, Tensor]:
    """Cameras around a cloud of points, started away from where the features were taken."""
    g = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64)

    middle = torch.tensor([0, 0, 0, 0, 0, -8, 500, 320, 240, 0, 0], dtype=torch.float64)
    spread = torch.tensor([0.1] * 3 + [0.5] * 3 + [5.0] * 3 + [0.01] * 2, dtype=torch.float64)
    cameras, points, turn = middle + spread * noise(n, 11), noise(m, 3), torch.arange(p)
    features = project(cameras[turn % n], points[turn % m]) + 0.1 * noise(p, 2)
    start = (cameras + 0.05 * spread * noise(n, 11), points + 0.05 * noise(m, 3))
    return (*start, torch.ones(p, dtype=torch.float64)), features


def damped_step(J: scipy.sparse.csr_array, error: Tensor, damping: float) -> Tensor:
    """The Levenberg-Marquardt step: ``(J'J + damping * diag(J'J)) step = -J' error``."""
    normal = J.T @ J
    diagonal = normal.diagonal()
    damped = normal + scipy.sparse.diags_array(damping * diagonal + 1e-12 * diagonal.max())
    return torch.from_numpy(spsolve(damped.tocsc(), -(J.T @ error.numpy())))


def moved(unknowns: Unknowns, step: Tensor) -> Unknowns:
    parts = step.split([x.numel() for x in unknowns])
    cameras, points, weights = (
        x + part.view(x.shape) for x, part in zip(unknowns, parts, strict=True)
    )
    return cameras, points, weights


def main(path: str | None = None, steps: int = 5) -> None:
    unknowns, features = read(path) if path else synthetic()
    plan = pb.plan_jacobian(residual, *unknowns, features, argnums=(0, 1, 2))
    rows, cols = plan.pattern.shape
    print(f"J is {rows} x {cols} with {plan.pattern.nnz} nonzeros: {plan.num_products} products")
    jac = pb.jacobian(residual, argnums=(0, 1, 2), plan=plan, layout="scipy")

    damping, error = 1e-3, residual(*unknowns, features)
    print(f"start:  sum of squares {error.square().sum():.6g}")
    for k in range(1, steps + 1):
        tried = moved(unknowns, damped_step(jac(*unknowns, features), error, damping))
        new_error = residual(*tried, features)
        better = bool(new_error.square().sum() < error.square().sum())
        damping = damping / 10 if better else damping * 10
        if better:
            unknowns, error = tried, new_error
        print(f"step {k}: sum of squares {error.square().sum():.6g}, damping {damping:.0e}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
