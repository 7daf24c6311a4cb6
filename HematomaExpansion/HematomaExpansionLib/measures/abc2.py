"""ABC/2: the bedside estimate of hematoma volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist, squareform

from ..scan.grid import Array
from ..scan.mask import Mask

_SAMPLES_PER_VOXEL = 4


@dataclass(frozen=True)
class EllipsoidEstimate:
    """The bedside estimate of volume, A × B × C / 2, and its three lengths.

    ``volume_ml`` is the original form (Kothari 1996); ``simplified_volume_ml`` counts every slice in full.
    """

    a_mm: float
    b_mm: float
    c_mm: float
    volume_ml: float
    simplified_volume_ml: float

    @property
    def described(self) -> dict[str, float]:
        """The estimate as stored in results."""
        return {
            "abc2_ml": self.volume_ml,
            "abc2_simplified_ml": self.simplified_volume_ml,
            "a_mm": self.a_mm,
            "b_mm": self.b_mm,
            "c_mm": self.c_mm,
        }


def abc2(mask: Mask, slice_positions_mm: Sequence[float] | None = None) -> EllipsoidEstimate:
    """ABC/2 of a mask, after Kothari 1996.

    A is the largest diameter on the slice with the largest area, B the largest diameter perpendicular to it on
    that slice, and C the height: each slice adds its distance to its neighbors times 1, 1/2 or 0 if its area is
    above 75%, 25 to 75%, or below 25% of the largest.

    Args:
        mask: has axial slices (array axis 0), on an orthogonal or sheared grid.
        slice_positions_mm: where each slice lies along the slice normal, for unevenly spaced slices;
            by default the grid's own even spacing.
    """
    array = mask.voxels
    areas = array.sum(axis=(1, 2)).astype(float)
    if not areas.any():
        return EllipsoidEstimate(0.0, 0.0, 0.0, 0.0, 0.0)
    axes = mask.grid.axes
    largest = int(areas.argmax())
    a, b = _diameters(array[largest], axes[:, :2])
    heights = _slice_heights(len(areas), axes, slice_positions_mm)
    share = areas / areas.max()
    weights = np.where(share > 0.75, 1.0, np.where(share >= 0.25, 0.5, 0.0))
    c = float((weights * heights).sum())
    every_slice = float(heights[areas > 0].sum())
    return EllipsoidEstimate(a, b, c, a * b * c / 2000.0, a * b * every_slice / 2000.0)


def _slice_heights(count: int, axes: Array, positions_mm: Sequence[float] | None) -> Array:
    """Height in mm that each slice stands for: halfway to either neighbor."""
    if positions_mm is None or count == 1:
        normal = np.cross(axes[:, 0], axes[:, 1])
        return np.full(count, abs(float(axes[:, 2] @ normal)) / float(np.linalg.norm(normal)))
    if len(positions_mm) != count:
        raise ValueError(f"{len(positions_mm)} slice positions for {count} slices")
    gaps = np.abs(np.diff(np.asarray(positions_mm, dtype=float)))
    before, after = np.r_[gaps[0], gaps], np.r_[gaps, gaps[-1]]
    return (before + after) / 2


def _diameters(area: Array, axes: Array) -> tuple[float, float]:
    """Largest diameter of a planar area (y, x), and the longest extent perpendicular to it, in mm.

    ``axes`` is 3×2: the steps in mm along x and y. The outline runs halfway between voxels inside and
    outside, where a reader would set a caliper on the displayed image.
    """
    y, x = np.nonzero(area)
    half_steps = np.array([(0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5)])
    outline = (np.stack([x, y], axis=1)[:, None, :] + half_steps).reshape(-1, 2)
    points = outline @ _plane_basis(axes).T
    points = points[_hull(points)]
    distances = squareform(pdist(points))
    first, second = np.unravel_index(int(distances.argmax()), distances.shape)
    along = (points[second] - points[first]) / distances[first, second]
    return float(distances.max()), _longest_chord(area, axes, np.array([-along[1], along[0]]))


def _plane_basis(axes: Array) -> Array:
    """2×2 matrix that maps voxel indices (x, y) to millimeters in the slice plane, for 3×2 ``axes``."""
    first = axes[:, 0] / np.linalg.norm(axes[:, 0])
    rest = axes[:, 1] - (axes[:, 1] @ first) * first
    second = rest / np.linalg.norm(rest)
    return np.stack([first @ axes, second @ axes])


def _hull(points: Array) -> Array:
    try:
        return ConvexHull(points).vertices
    except QhullError:  # a hematoma only one row of voxels wide
        return np.arange(len(points))


def _longest_chord(area: Array, axes: Array, direction: Array) -> float:
    """Longest extent in mm of ``area`` along lines parallel to ``direction`` (2 components, plane mm)."""
    basis = _plane_basis(axes)
    y, x = np.nonzero(area)
    points = np.stack([x, y], axis=1) @ basis.T
    across = np.array([direction[1], -direction[0]])
    step = float(np.linalg.norm(basis, axis=0).min()) / _SAMPLES_PER_VOXEL
    margin = float(np.linalg.norm(basis, axis=0).max())

    def samples(coordinate: Array) -> Array:
        # Half a step off the voxel positions, so the outline falls between two samples.
        return np.arange(coordinate.min() - margin + step / 2, coordinate.max() + margin + step, step)

    t, s = samples(points @ direction), samples(points @ across)
    plane = t[None, :, None] * direction + s[:, None, None] * across
    index = plane @ np.linalg.inv(basis).T
    inside = map_coordinates(area.astype(np.float32), [index[..., 1], index[..., 0]], order=1) >= 0.5
    hit = inside.any(axis=1)
    first = inside.argmax(axis=1)
    last = inside.shape[1] - 1 - inside[:, ::-1].argmax(axis=1)
    return float(((last - first)[hit].max() + 1) * step) if hit.any() else step
