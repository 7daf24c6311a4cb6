"""Voxel grids in space: where each voxel lies in the patient, and how to get from one grid to another.

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

# Grids that differ by less than this fraction of a voxel are the same; NIfTI headers store single precision.
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
        """The grid of ``image``."""
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
        """Volume of one voxel in mL, correct for sheared grids too."""
        return float(abs(np.linalg.det(self.axes))) / 1000.0

    def point(self, index: Sequence[float] | Array) -> Array:
        """LPS position in mm of a (fractional) voxel index (x, y, z)."""
        return np.array(self.origin) + self.axes @ np.asarray(index, dtype=float)

    def centroid_of(self, where: Array) -> tuple[float, float, float]:
        """LPS position in mm of the centroid of the true voxels in ``where`` (z, y, x), which has at least one."""
        x, y, z = self.point(np.argwhere(where).mean(axis=0)[::-1])
        return float(x), float(y), float(z)

    def is_same(self, other: Grid) -> bool:
        """Whether both grids put every voxel in the same position, to within a thousandth of a voxel."""
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
        """A grid of the given size and spacing along this one's axes, centered at ``point`` (LPS mm)."""
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
        """LPS position in mm of the grid's center."""
        return self.point((np.array(self.size) - 1) / 2)

    def with_spacing(self, spacing: Sequence[float]) -> Grid:
        """A grid of the given spacing along the same axes that covers the same box, voxel edges included."""
        new = np.asarray(spacing, dtype=float)
        old = np.asarray(self.spacing)
        extent = old * np.asarray(self.size)
        size = np.maximum(1, np.ceil(extent / new - 1e-6)).astype(int)
        # Centered on the old box, so no side loses more than the other.
        first = (extent - size * new) / 2 + new / 2 - old / 2
        origin = np.array(self.origin) + np.array(self.direction).reshape(3, 3) @ first
        return Grid(
            (int(size[0]), int(size[1]), int(size[2])),
            (float(new[0]), float(new[1]), float(new[2])),
            (float(origin[0]), float(origin[1]), float(origin[2])),
            self.direction,
        )


def image_on(grid: Grid, array: Array) -> sitk.Image:
    """``array`` (z, y, x), or (z, y, x, channel) for vectors, as an image on ``grid``.

    Raises:
        ValueError: the array and the grid differ in shape.
    """
    if array.shape[:3] != grid.shape:
        raise ValueError(f"array of shape {array.shape} does not fit a grid of shape {grid.shape}")
    image = sitk.GetImageFromArray(array, isVector=array.ndim == 4)
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    return image


def box_slices(first: Array, size: Array) -> tuple[slice, ...]:
    """The slices (z, y, x) of an array that hold the box with that first index and size, both (x, y, z)."""
    return tuple(slice(start, start + count) for start, count in zip(first[::-1], size[::-1], strict=True))


def oriented(image: sitk.Image, orientation: str) -> sitk.Image:
    """``image`` in the axis order of a three-letter DICOM code such as LPS; itself if already in that order."""
    own = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
    return image if own == orientation else sitk.DICOMOrient(image, orientation)
