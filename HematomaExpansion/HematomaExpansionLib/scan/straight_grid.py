"""Grids whose axes are not at right angles, and what to do about them."""

from __future__ import annotations

import math

import numpy as np
import SimpleITK as sitk

from .grid import Grid
from .resampling import resample
from .volume import check_size

_SHEAR_TOLERANCE = 1e-3  # cosine between two axes


def is_sheared(image: sitk.Image) -> bool:
    """Whether the axes of an image are not at right angles."""
    direction = np.array(image.GetDirection()).reshape(3, 3)
    return bool(np.abs(direction.T @ direction - np.eye(3)).max() > _SHEAR_TOLERANCE)


def squared(image: sitk.Image) -> sitk.Image:
    """``image`` with its axes at exact right angles if they are within tolerance; voxel values are unchanged.

    At the edge of a head, this moves a voxel by less than a tenth of a millimeter.
    """
    if is_sheared(image):
        return image
    left, _, right = np.linalg.svd(np.array(image.GetDirection()).reshape(3, 3))
    image = sitk.Image(image)  # shares the voxels
    image.SetDirection((left @ right).ravel().tolist())
    return image


def straightened(image: sitk.Image, outside: float) -> tuple[sitk.Image, str]:
    """``image`` on an orthogonal grid around its box, and a sentence for the user if it was resampled.

    Where it has no voxels, the result is ``outside``. The two axes closest to a right angle are kept as the
    image plane; if pairs tie, the pair with the finest voxels. The third axis becomes perpendicular to them.
    """
    image = squared(image)
    if not is_sheared(image):
        return image, ""
    grid = Grid.of(image)
    steps = grid.axes / np.linalg.norm(grid.axes, axis=0)

    def rank(pair: tuple[int, int]) -> tuple[float, float]:
        i, j = pair
        return round(abs(float(steps[:, i] @ steps[:, j])), 3), grid.spacing[i] * grid.spacing[j]

    i, j = min(((0, 1), (0, 2), (1, 2)), key=rank)
    k = 3 - i - j
    direction = np.zeros((3, 3))
    direction[:, i] = steps[:, i]
    second = steps[:, j] - (steps[:, j] @ steps[:, i]) * steps[:, i]
    direction[:, j] = second / np.linalg.norm(second)
    normal = np.cross(direction[:, i], direction[:, j])
    direction[:, k] = normal * np.sign(normal @ steps[:, k])

    spacing = np.einsum("ij,ij->j", direction, grid.axes)  # each old step along its new axis
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in grid.size])).reshape(3, -1)
    extents = direction.T @ (grid.axes @ corners)  # mm along the new axes, from the old origin
    size = np.ceil((extents.max(axis=1) - extents.min(axis=1)) / spacing - 1e-3).astype(int) + 1
    origin = np.array(grid.origin) + direction @ extents.min(axis=1)
    straight = Grid(
        (int(size[0]), int(size[1]), int(size[2])),
        (float(spacing[0]), float(spacing[1]), float(spacing[2])),
        (float(origin[0]), float(origin[1]), float(origin[2])),
        tuple(float(v) for v in direction.ravel()),
    )
    check_size(straight.size)
    angle = math.degrees(math.acos(min(1.0, float(direction[:, k] @ steps[:, k]))))
    sentence = f"The scan's grid was tilted by {angle:.1f} degrees; it was resampled onto a straight grid."
    return resample(image, straight, outside=outside), sentence
