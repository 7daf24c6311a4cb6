"""Resampling from one voxel grid to another."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import SimpleITK as sitk

from .grid import Array, Grid, box_slices, image_on

_WIDEST_KERNEL, _KERNEL_ERROR = 32, 0.01

# Accuracy of positions, in voxels.
_ROUNDING = 1e-6


def resample(
    image: sitk.Image,
    grid: Grid,
    *,
    transform: sitk.Transform | None = None,
    interpolator: int = sitk.sitkLinear,
    outside: float = 0.0,
) -> sitk.Image:
    """``image`` on another grid; where it has no voxels, the result is ``outside``.

    ``transform`` maps positions on the grid (LPS mm) to those in the image; by default they are the same. Keeps
    the pixel type and units. Does not average when going to a coarser grid: see ``smooth_for``.
    """
    if transform is None and Grid.of(image).is_same(grid):
        return image
    return sitk.Resample(
        image,
        grid.size,
        sitk.Transform() if transform is None else transform,
        interpolator,
        grid.origin,
        grid.spacing,
        grid.direction,
        outside,
        image.GetPixelID(),
    )


def smooth_for(image: sitk.Image, spacing: Sequence[float]) -> sitk.Image:
    """``image`` low-pass filtered along the axes on which ``spacing`` (x, y, z, mm) is coarser.

    The Gaussian adds the blur that the finer voxels lack, so noise is averaged as a scanner with larger
    voxels would average it.
    """
    variance = _missing_variance(image, spacing)
    if not (variance > 0).any():
        return image
    return _gaussian(sitk.Cast(image, sitk.sitkFloat32), variance)


def _missing_variance(image: sitk.Image, spacing: Sequence[float]) -> Array:
    """Variance (x, y, z) in mm² of the blur that voxels of ``spacing`` have and those of ``image`` lack."""
    missing = np.maximum(np.asarray(spacing, dtype=float) ** 2 - np.asarray(image.GetSpacing()) ** 2, 0.0)
    return missing / 12.0  # of a box as wide as the voxel


def _gaussian(image: sitk.Image, variance: Array) -> sitk.Image:
    return sitk.DiscreteGaussian(image, variance.tolist(), _WIDEST_KERNEL, _KERNEL_ERROR, True)


def crop_to(image: sitk.Image, grid: Grid, margin_mm: float = 10.0) -> sitk.Image:
    """The part of ``image`` that covers ``grid`` and a margin; the whole image if they do not overlap."""
    first, size = _part_around(Grid.of(image), grid, margin_mm)
    return sitk.RegionOfInterest(image, size.tolist(), first.tolist()) if size.all() else image


def _part_around(own: Grid, grid: Grid, margin_mm: float) -> tuple[Array, Array]:
    """First voxel and size (x, y, z) of the part of ``own`` that covers ``grid`` and a margin; size 0 if none."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in grid.size])).reshape(3, -1)
    points = grid.axes @ corners + np.array(grid.origin)[:, None]
    indices = np.linalg.solve(own.axes, points - np.array(own.origin)[:, None])
    margin = margin_mm / np.array(own.spacing)
    first = np.clip(np.floor(indices.min(axis=1) - margin), 0, own.size).astype(int)
    last = np.clip(np.ceil(indices.max(axis=1) + margin) + 1, 0, own.size).astype(int)
    return first, np.maximum(last - first, 0)


def where_at_least(level: float, image: sitk.Image, grid: Grid) -> Array:
    """Where on ``grid`` the interpolated image reaches a level above zero, as booleans (z, y, x).

    Searches only around the image, so a smaller image is faster.
    """
    reached = np.zeros(grid.shape, bool)
    first, size = _part_around(grid, Grid.of(image), max(image.GetSpacing()))
    if size.all():
        part = resample(image, grid.cropped(first.tolist(), size.tolist()))
        np.greater_equal(sitk.GetArrayViewFromImage(part), level, out=reached[box_slices(first, size)])
    return reached


def average_onto(image: sitk.Image, grid: Grid, *, outside: float = 0.0) -> Array:
    """``image`` as a float32 array (z, y, x) on ``grid``, low-pass filtered where that grid is coarser."""
    near = crop_to(image, grid)
    if Grid.of(near).direction == grid.direction and (_missing_variance(near, grid.spacing) > 0).any():
        near = _smooth_where_read(near, grid)
    else:
        near = smooth_for(sitk.Cast(near, sitk.sitkFloat32), grid.spacing)
    return sitk.GetArrayFromImage(resample(near, grid, outside=outside))


def _smooth_where_read(image: sitk.Image, grid: Grid) -> sitk.Image:
    """``smooth_for``, to the last bit, at the voxels that interpolation on ``grid`` reads; zero elsewhere.

    The axes of both grids are parallel. Along each axis, a grid of large voxels reads only two of many lines, so
    this takes a quarter of the time.
    """
    own = Grid.of(image)
    kernels = [
        _kernel(*of_axis) for of_axis in zip(_missing_variance(image, grid.spacing), own.spacing, strict=True)
    ]
    x, y, z = _lines_read(own, grid)
    array = sitk.GetArrayViewFromImage(image).astype(np.float32, copy=False)
    smooth = np.zeros(array.shape, np.float32)

    def fill(k: int) -> None:
        lines, part = (np.array([k]), y, x), array
        for axis in range(3):  # z first, as ITK does: each step rounds to float32
            part = _filtered(part, kernels[2 - axis], lines[axis], axis)
        smooth[np.ix_(*lines)] = part

    with ThreadPoolExecutor(sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()) as threads:
        list(threads.map(fill, z.tolist()))
    return image_on(own, smooth)


def _kernel(variance: float, spacing: float) -> Array:
    """ITK's smoothing weights along an axis; ``variance`` in mm², ``spacing`` in mm."""
    impulse = sitk.Image((2 * _WIDEST_KERNEL + 1, 1, 1), sitk.sitkFloat64)
    impulse.SetSpacing((float(spacing), 1.0, 1.0))
    impulse[_WIDEST_KERNEL, 0, 0] = 1.0
    weights = sitk.GetArrayFromImage(_gaussian(impulse, np.array([variance, 0.0, 0.0])))[0, 0]
    return weights[np.flatnonzero(weights)]


def _filtered(array: Array, kernel: Array, lines: Array, axis: int) -> Array:
    """The given lines of an array filtered along an axis, with edge values repeated; summed as ITK does."""
    first, total = lines - len(kernel) // 2, np.zeros(())
    for number, weight in enumerate(kernel):
        total = total + np.multiply(array.take(first + number, axis, mode="clip"), weight, dtype=np.float64)
    filtered: Array = total.astype(np.float32)
    return filtered


def _lines_read(own: Grid, grid: Grid) -> list[Array]:
    """Indices along x, y and z of the voxels of ``own`` that linear interpolation on ``grid`` reads."""
    start = np.linalg.solve(own.axes, np.array(grid.origin) - np.array(own.origin))
    lines = []
    for first, step, count, size in zip(
        start, np.array(grid.spacing) / own.spacing, grid.size, own.size, strict=True
    ):
        position = first + step * np.arange(count)
        before = np.concatenate([np.floor(position - _ROUNDING), np.floor(position + _ROUNDING)])
        lines.append(np.unique(np.clip([before, before + 1], 0, size - 1).astype(int)))
    return lines
