"""Voxel grids in space: which point of the patient a voxel is, and how to get from one grid to another.

Everything here is in LPS millimeters. Grid sizes and spacings are in SimpleITK order (x, y, z),
arrays in numpy order (z, y, x).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

Array = npt.NDArray[Any]

# Below this share of a voxel two grids are the same; NIfTI headers store single precision.
_GRID_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Grid:
    """Size (x, y, z) in voxels, spacing and origin (x, y, z) in LPS mm, direction row-major 3×3."""

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, ...]

    @classmethod
    def of(cls, image: sitk.Image) -> Grid:
        """The grid on which ``image`` lies."""
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (z, y, x) of an array on this grid."""
        return self.size[2], self.size[1], self.size[0]

    @property
    def axes(self) -> Array:
        """3×3 matrix whose columns are the steps in mm from one voxel to the next along x, y, z."""
        return np.array(self.direction).reshape(3, 3) * np.array(self.spacing)

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in mL, right for sheared grids too."""
        return float(abs(np.linalg.det(self.axes))) / 1000.0

    def point(self, index: Sequence[float] | Array) -> Array:
        """LPS position in mm of a (fractional) voxel index (x, y, z)."""
        return np.array(self.origin) + self.axes @ np.asarray(index, dtype=float)

    def middle_of(self, where: Array) -> tuple[float, float, float]:
        """LPS position in mm of the middle of the true voxels of ``where`` (z, y, x), not all of them false."""
        x, y, z = self.point(np.argwhere(where).mean(axis=0)[::-1])
        return float(x), float(y), float(z)

    def is_same(self, other: Grid) -> bool:
        """Whether both grids put every voxel at the same place, within a thousandth of a voxel."""
        if self.size != other.size:
            return False
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.size])).reshape(3, -1)
        here = self.axes @ corners + np.array(self.origin)[:, None]
        there = other.axes @ corners + np.array(other.origin)[:, None]
        return bool(np.abs(here - there).max() <= _GRID_TOLERANCE * min(self.spacing))

    def cropped(self, start: Sequence[int], size: Sequence[int]) -> Grid:
        """The part of this grid that begins at voxel ``start`` (x, y, z) and has ``size`` voxels."""
        origin = self.point(start)
        return Grid(
            (int(size[0]), int(size[1]), int(size[2])),
            self.spacing,
            (float(origin[0]), float(origin[1]), float(origin[2])),
            self.direction,
        )

    def centered_at(self, point: Array, size: Sequence[int], spacing: Sequence[float]) -> Grid:
        """A grid of that size and spacing along this one's axes, whose middle lies at ``point`` (LPS mm)."""
        direction = np.array(self.direction).reshape(3, 3)
        origin = point - direction @ ((np.asarray(size) - 1) / 2 * np.asarray(spacing))
        return Grid(
            (int(size[0]), int(size[1]), int(size[2])),
            (float(spacing[0]), float(spacing[1]), float(spacing[2])),
            (float(origin[0]), float(origin[1]), float(origin[2])),
            self.direction,
        )

    @property
    def center(self) -> Array:
        """LPS position in mm of the grid's middle."""
        return self.point((np.array(self.size) - 1) / 2)

    def with_spacing(self, spacing: Sequence[float]) -> Grid:
        """A grid of another spacing that covers the same box, voxel edges included, axes unchanged."""
        new = np.asarray(spacing, dtype=float)
        old = np.asarray(self.spacing)
        extent = old * np.asarray(self.size)
        size = np.maximum(1, np.ceil(extent / new - 1e-6)).astype(int)
        # Centered on the old box, so that no side loses more than the other.
        first = (extent - size * new) / 2 + new / 2 - old / 2
        origin = np.array(self.origin) + np.array(self.direction).reshape(3, 3) @ first
        return Grid(
            (int(size[0]), int(size[1]), int(size[2])),
            (float(new[0]), float(new[1]), float(new[2])),
            (float(origin[0]), float(origin[1]), float(origin[2])),
            self.direction,
        )


def image_on(grid: Grid, array: Array) -> sitk.Image:
    """Image of ``array`` (z, y, x), or (z, y, x, channel) for vectors, lying on ``grid``.

    Raises:
        ValueError: the array's shape is not the grid's.
    """
    if array.shape[:3] != grid.shape:
        raise ValueError(f"array of shape {array.shape} does not fit a grid of shape {grid.shape}")
    image = sitk.GetImageFromArray(array, isVector=array.ndim == 4)
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    return image


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


def bounding_box(mask: Array) -> tuple[Array, Array]:
    """First index and size, both (x, y, z), of the box around the true voxels of ``mask`` (z, y, x).

    Raises:
        ValueError: the mask is empty.
    """
    if not mask.any():
        raise ValueError("an empty mask has no bounding box")
    first, size = [], []
    for axis in (2, 1, 0):
        present = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        first.append(int(present[0]))
        size.append(int(present[-1] - present[0] + 1))
    return np.array(first), np.array(size)


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


def signed_distance(mask: sitk.Image) -> sitk.Image:
    """Distance in mm from each voxel to the surface of a mask (0/1), positive inside.

    The surface runs half way between voxels inside and outside.
    """
    # The filter's zero lies on the outermost voxels inside: of both views the mean.
    outward, inward = (
        sitk.SignedMaurerDistanceMap(view, squaredDistance=False, useImageSpacing=True)
        for view in (mask, mask == 0)
    )
    return (inward - outward) / 2


def shape_on(mask: sitk.Image, grid: Grid) -> Array:
    """Where on ``grid`` a mask's shape is, as booleans (z, y, x); the mask is not empty.

    The signed distance to its surface is interpolated, not its voxels: between two slices lies the shape
    between theirs, and the volume is kept.
    """
    first, size = bounding_box(sitk.GetArrayViewFromImage(mask) > 0)
    margin = [3] * 3
    padded = sitk.ConstantPad(sitk.RegionOfInterest(mask, size.tolist(), first.tolist()), margin, margin, 0)
    return sitk.GetArrayFromImage(resample(signed_distance(padded), grid, outside=-1000.0)) >= 0
