"""The numbers of bundle adjustment: GradBench's input files, or a seeded problem like them.

A file holds the numbers of cameras, points and observations (n, m, p), then one camera [rotation
(3), center (3), focal length, principal point (2), distortion (2)], one point (3), one weight and
one observed place (2). All cameras are that camera, and so on; observation k is of point k mod m
by camera k mod n.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.generic]]
CAMERA = 11


def from_file(path: Path) -> Arrays:
    words = path.read_text(encoding="ascii").split()
    cameras, points, views = map(int, words[:3])
    numbers = np.array(words[3:], dtype=np.float64)
    if numbers.size != CAMERA + 3 + 1 + 2:
        raise ValueError(f"{path}: {numbers.size} numbers after the sizes, not {CAMERA + 6}")
    camera, point, weight, place = np.split(numbers, np.cumsum([CAMERA, 3, 1]))
    return _arrays(
        np.tile(camera, (cameras, 1)),
        np.tile(point, (points, 1)),
        np.full(views, weight[0]),
        np.tile(place, (views, 1)),
    )


def drawn(draw: np.random.Generator, cameras: int, points: int, views: int) -> Arrays:
    """Cameras that look along z at a cloud of points around the origin, six units away."""
    middle = np.array([0.0] * 5 + [-6.0] + [1.0] + [0.0] * 4)
    spread = np.array([0.1] * 3 + [0.2] * 3 + [0.1] + [0.05] * 2 + [0.01] * 2)
    return _arrays(
        middle + spread * draw.standard_normal((cameras, CAMERA)),
        draw.uniform(-1, 1, (points, 3)),
        draw.uniform(0.5, 1.5, views),
        draw.standard_normal((views, 2)),
    )


def _arrays(
    cameras: NDArray[np.float64],
    points: NDArray[np.float64],
    weights: NDArray[np.float64],
    seen: NDArray[np.float64],
) -> Arrays:
    view = np.arange(len(weights))
    return {
        "x": np.concatenate([cameras.reshape(-1), points.reshape(-1), weights]),
        "camera_of": view % len(cameras),
        "point_of": view % len(points),
        "cameras": np.asarray(len(cameras)),
        "points": np.asarray(len(points)),
        "seen": seen,
    }
