"""From one voxel grid to another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk

from .grid import Array, Grid


def resample(
    image: sitk.Image, grid: Grid, *, interpolator: int = sitk.sitkLinear, outside: float = 0.0
) -> sitk.Image:
    """``image`` on another grid; where it has no voxels the result is ``outside``.

    Pixel type and units are the image's. Going to a coarser grid does not average: see ``smooth_for``.
    """
    if Grid.of(image).is_same(grid):
        return image
    return sitk.Resample(
        image,
        grid.size,
        sitk.Transform(),
        interpolator,
        grid.origin,
        grid.spacing,
        grid.direction,
        outside,
        image.GetPixelID(),
    )


def smooth_for(image: sitk.Image, spacing: Sequence[float]) -> sitk.Image:
    """``image`` low-pass filtered along those axes on which ``spacing`` (x, y, z, mm) is coarser.

    The Gaussian's width is that of the voxel's blur which is missing, so noise is averaged as a scanner
    with larger voxels would average it.
    """
    current = np.asarray(image.GetSpacing())
    missing = np.maximum(np.asarray(spacing, dtype=float) ** 2 - current**2, 0.0)
    variance = missing / 12.0  # of a box as wide as the voxel
    if not (variance > 0).any():
        return image
    return sitk.DiscreteGaussian(sitk.Cast(image, sitk.sitkFloat32), variance.tolist(), 32, 0.01, True)


def crop_to(image: sitk.Image, grid: Grid, margin_mm: float = 10.0) -> sitk.Image:
    """The part of ``image`` that covers ``grid`` and a margin; the whole image if they do not meet."""
    own = Grid.of(image)
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in grid.size])).reshape(3, -1)
    points = grid.axes @ corners + np.array(grid.origin)[:, None]
    indices = np.linalg.solve(own.axes, points - np.array(own.origin)[:, None])
    margin = margin_mm / np.array(own.spacing)
    first = np.clip(np.floor(indices.min(axis=1) - margin), 0, own.size).astype(int)
    last = np.clip(np.ceil(indices.max(axis=1) + margin) + 1, 0, own.size).astype(int)
    if (last <= first).any():
        return image
    return sitk.RegionOfInterest(image, (last - first).tolist(), first.tolist())


def average_onto(image: sitk.Image, grid: Grid, *, outside: float = 0.0) -> Array:
    """``image`` as a float32 array (z, y, x) on ``grid``, low-pass filtered where that grid is coarser."""
    near = sitk.Cast(crop_to(image, grid), sitk.sitkFloat32)
    return sitk.GetArrayFromImage(resample(smooth_for(near, grid.spacing), grid, outside=outside))
