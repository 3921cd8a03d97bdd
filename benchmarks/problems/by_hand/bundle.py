"""The hand-written Jacobian of bundle adjustment.

Source of the rotation's derivative: G. Gallego and A. Yezzi, "A compact formula for the derivative
of a 3-D rotation in exponential coordinates", 2015.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Places = NDArray[np.int64]
Values = Callable[[Tensor], Tensor]

WIDTH = 14  # entries of a row: rotation, center, focal, principal, distortion, point, weight


def bundle(
    x: Tensor,
    camera_of: Tensor,
    point_of: Tensor,
    cameras: Tensor,
    points: Tensor,
    seen: Tensor,
) -> tuple[Places, Places, Values]:
    views, end_of_cameras = len(seen), 11 * int(cameras)
    end_of_points = end_of_cameras + 3 * int(points)

    def values(x: Tensor) -> Tensor:
        camera = x[:end_of_cameras].view(-1, 11)
        point = x[end_of_cameras:end_of_points].view(-1, 3)
        weight = x[end_of_points:]
        entries = x.new_empty((2 * WIDTH + 1) * views)
        rotation, twist = _rotations(camera[:, :3])
        _fill(
            entries[: 2 * WIDTH * views].view(views, 2, WIDTH),
            camera[camera_of],
            point[point_of],
            weight,
            seen,
            rotation[camera_of],
            twist[camera_of],
        )
        torch.mul(weight, -2, out=entries[2 * WIDTH * views :])
        return entries

    rows, cols = _places(camera_of.numpy(), point_of.numpy(), end_of_cameras, end_of_points)
    return rows, cols, values


def _rotations(vector: Tensor) -> tuple[Tensor, Tensor]:
    """The matrices R of rotation vectors r, and (r rᵀ + (Rᵀ - 1) [r]ₓ) / |r|², for each camera."""
    unit = torch.eye(3, dtype=vector.dtype)
    crossed = vector.new_zeros(len(vector), 3, 3)
    for k in range(3):
        i, j = (k + 1) % 3, (k + 2) % 3
        crossed[:, i, j], crossed[:, j, i] = -vector[:, k], vector[:, k]
    square = (vector * vector).sum(1).view(-1, 1, 1)
    angle = square.sqrt()
    rotation = (
        unit + crossed * (angle.sin() / angle) + (crossed @ crossed) * ((1 - angle.cos()) / square)
    )
    outer = vector.unsqueeze(2) * vector.unsqueeze(1)
    return rotation, (outer + (rotation.transpose(1, 2) - unit) @ crossed) / square


def _fill(
    entries: Tensor,
    camera: Tensor,
    point: Tensor,
    weight: Tensor,
    seen: Tensor,
    rotation: Tensor,
    twist: Tensor,
) -> None:
    """The two rows of every view."""
    moved = point - camera[:, 3:6]
    turned = (rotation @ moved.unsqueeze(2)).squeeze(2)
    depth = turned[:, 2:]
    flat = turned[:, :2] / depth
    square = (flat * flat).sum(1, keepdim=True)
    focal, near, far = camera[:, 6:7], camera[:, 9:10], camera[:, 10:11]
    weight = weight.unsqueeze(1)
    bend = 1 + near * square + far * square * square
    # By the turned point: weight · focal · (bend 1 + 2 bend' flat flatᵀ) · d flat.
    steep = (2 * near + 4 * far * square).unsqueeze(2) * flat.unsqueeze(2) * flat.unsqueeze(1)
    steep.diagonal(dim1=1, dim2=2).add_(bend)
    steep *= (weight * focal / depth).unsqueeze(2)
    by_depth = -(steep @ flat.unsqueeze(2))
    by_point = torch.cat([steep, by_depth], 2) @ rotation
    by_rotation = torch.linalg.cross(moved.unsqueeze(1).expand_as(by_point), by_point) @ twist
    entries[:, :, 0:3] = by_rotation
    torch.neg(by_point, out=entries[:, :, 3:6])
    entries[:, :, 6] = weight * bend * flat
    entries[:, :, 7] = weight
    entries[:, :, 8] = weight * focal * square * flat
    entries[:, :, 9] = weight * focal * square * square * flat
    entries[:, :, 10:13] = by_point
    entries[:, :, 13] = focal * bend * flat + camera[:, 7:9] - seen


def _places(
    camera_of: Places, point_of: Places, end_of_cameras: int, end_of_points: int
) -> tuple[Places, Places]:
    views = camera_of.size
    cols = np.empty((views, 2, WIDTH), dtype=np.int64)
    of_camera = np.array([[*range(7), 7 + axis, 9, 10] for axis in range(2)])
    cols[:, :, :10] = 11 * camera_of[:, None, None] + of_camera
    cols[:, :, 10:13] = end_of_cameras + 3 * point_of[:, None, None] + np.arange(3)
    of_weight = end_of_points + np.arange(views)
    cols[:, :, 13] = of_weight[:, None]
    rows = np.repeat(np.arange(2 * views), WIDTH)
    last = 2 * views + np.arange(views)
    return np.concatenate([rows, last]), np.concatenate([cols.reshape(-1), of_weight])
