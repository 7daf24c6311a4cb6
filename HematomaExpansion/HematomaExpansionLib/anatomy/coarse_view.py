"""A scan, the inside of its skull and the hematoma on one coarse grid, for judging shapes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial import ConvexHull

from ..scan.grid import Array, Grid
from ..scan.intensities import AIR_HU
from ..scan.mask import Mask
from ..scan.resampling import average_onto, crop_to, resample
from ..scan.subject import Subject
from .segmentation import brain_region

_SPACING_MM, _MARGIN = 2.0, 4  # voxels


@dataclass(frozen=True)
class CoarseView:
    """Arrays (z, y, x) on an isotropic ``grid`` around the inside of the skull.

    ``hu``: the CT. ``inside``: the inside of the skull. ``bleed``: the hematoma, all false if there is none.
    ``blood``: that and the other kinds of blood found.
    """

    grid: Grid
    hu: Array
    inside: Array
    bleed: Array
    blood: Array

    @classmethod
    def of(cls, subject: Subject, blood: Mask) -> CoarseView:
        """The view of a subject whose ``inside_skull`` is not empty; ``blood``: of any kind, on its grid."""
        region = brain_region(subject.inside_skull | blood, (_SPACING_MM,) * 3)
        grid = region.cropped([-_MARGIN] * 3, [size + 2 * _MARGIN for size in region.size])
        inside, bleed, any_blood = (
            sitk.GetArrayFromImage(resample(sitk.Cast(crop_to(mask.image, grid), sitk.sitkFloat32), grid)) > 0.5
            for mask in (subject.inside_skull, subject.hematoma, blood)
        )
        return cls(grid, average_onto(subject.ct, grid, outside=AIR_HU), inside, bleed, any_blood)

    @cached_property
    def hull(self) -> ConvexHull:
        """The convex hull of the inside of the skull, in voxels (z, y, x)."""
        return ConvexHull(np.argwhere(self.inside & ~ndimage.binary_erosion(self.inside)))

    @cached_property
    def depth_inside_mm(self) -> Array:
        """Depth of each voxel inside the skull, 0 outside."""
        return _depth_mm(self.inside)

    @cached_property
    def depth_in_head_mm(self) -> Array:
        """The same, but the head does not end with the scan's slices: it continues above and below them."""
        return _depth_mm(self._inside_and_beyond)

    @cached_property
    def from_bleed_mm(self) -> Array:
        """Distance of each voxel from the hematoma, infinite if there is none."""
        return _distance_mm(self.bleed)

    @cached_property
    def from_blood_mm(self) -> Array:
        """The same from blood of any kind."""
        return _distance_mm(self.blood)

    @property
    def _inside_and_beyond(self) -> Array:
        seen = np.flatnonzero((self.hu > AIR_HU + 1).any(axis=(1, 2)))
        nearest = np.clip(np.arange(len(self.hu)), seen[0], seen[-1])
        whole: Array = self.inside[nearest]
        return whole


def _distance_mm(mask: Array) -> Array:
    """Distance of each voxel from a mask, infinite if that is empty."""
    return _depth_mm(~mask) if mask.any() else np.full(mask.shape, np.inf)


def _depth_mm(mask: Array) -> Array:
    """Depth of each voxel inside a mask, 0 outside."""
    depth: Array = ndimage.distance_transform_edt(mask) * _SPACING_MM
    return depth
