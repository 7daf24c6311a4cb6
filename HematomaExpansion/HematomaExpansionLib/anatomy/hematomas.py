"""Which connected components of a mask count as a bleed."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import find_objects

from ..scan.grid import Array, box_slices
from ..scan.mask import Mask
from ..scan.shapes import distance_map
from .kinds import Kind

MIN_HEMATOMA_ML = 1.0
"""Components below this are noise, calcification or partial volume rather than a hematoma."""

MIN_ML_OF = {Kind.INTRAPARENCHYMAL: 0.5, Kind.INTRAVENTRICULAR: 0.2, Kind.EXTRAAXIAL: 1.0}
"""Smaller connected components are calcification, or partial volume of bone, rather than blood, where the kinds of
bleeds are told apart: whatever does that takes sinuses, dura and the medulla for a hematoma far less often.
"""

MIN_SATELLITE_ML, SATELLITE_NEAR_MM = 0.03, 12.0
"""Smaller components of at least this volume (4 mm across) count this near a hematoma: its satellites."""

MIN_AT_FORAMEN_MAGNUM_ML = 3.0
"""The minimum near the foramen magnum: beam hardening by bone makes the medulla look as dense as blood there."""

SHALLOW_MM = 8.0
"""Venous sinuses, dura and the partial volume of bone, all as dense as blood, rarely reach deeper than this."""

TOUCHING_MM = 3.0
"""Edema that lies no farther from a hematoma than this belongs to it; old infarcts are as dark but lie apart."""

_FORAMEN_MAGNUM_CM2, _NEAR_FORAMEN_MAGNUM_MM = 12.0, 10.0
"""More than the area of the foramen magnum in adults, and how far above it the medulla extends."""


def keep_hematomas(mask: Mask, inside_skull: Mask) -> Mask:
    """The connected components of ``mask`` that count as hematoma, if no other blood was looked for; both masks
    lie on one grid.

    Such a component is large enough, and at least a tenth of it lies deep enough inside the skull. At or below the
    foramen magnum, it must be larger. A small one counts if it is a satellite of a larger one.
    """
    if mask.is_empty:
        return mask
    first, size = mask.box
    depth_mm = _depth_mm(inside_skull, first + size)[box_slices(first, size)]
    low_slices = _slices_at_foramen_magnum(inside_skull) - int(first[2])

    def min_ml(part: tuple[slice, ...], where: Array) -> float:
        if np.quantile(depth_mm[part][where], 0.9) < SHALLOW_MM:
            return math.inf
        low = int(np.count_nonzero(where[: max(0, low_slices - part[0].start)]))
        return MIN_HEMATOMA_ML if low <= np.count_nonzero(where) / 2 else MIN_AT_FORAMEN_MAGNUM_ML

    return _keep_with_satellites(mask, min_ml)


def keep_told_hematomas(mask: Mask) -> Mask:
    """The connected components of ``mask`` that count as hematoma, if it was told apart from blood of other kinds:
    those that are large enough, and their satellites.
    """
    return mask if mask.is_empty else _keep_with_satellites(mask, lambda *_: MIN_ML_OF[Kind.INTRAPARENCHYMAL])


def _keep_with_satellites(mask: Mask, min_ml: Callable[[tuple[slice, ...], Array], float]) -> Mask:
    """Components with at least as many mL as ``min_ml`` asks of them, and satellites of these.

    ``min_ml`` gets a component as a part of the mask's box and the voxels (z, y, x) in it; infinite: it is never a
    hematoma, nor a satellite of one.
    """
    grid, hematomas = mask.grid, np.zeros(mask.grid.shape, bool)
    min_voxels = int(np.ceil(MIN_SATELLITE_ML / grid.voxel_volume_ml))
    box = box_slices(*mask.box)
    labels = sitk.RelabelComponent(sitk.ConnectedComponent(mask.cropped().image), minimumObjectSize=min_voxels)
    array = sitk.GetArrayFromImage(labels)
    large: list[int] = []
    small: list[int] = []
    for label, part in enumerate(find_objects(array), start=1):
        where = array[part] == label
        limit_ml = min_ml(part, where)
        if limit_ml < math.inf:
            own_ml = int(np.count_nonzero(where)) * grid.voxel_volume_ml
            (large if own_ml >= limit_ml else small).append(label)
    hematomas[box] = np.isin(array, large)
    if large and small:
        beside = array[_near(Mask.on(grid, hematomas), SATELLITE_NEAR_MM)[box]]
        hematomas[box] |= np.isin(array, np.intersect1d(small, beside))
    return Mask.on(grid, hematomas)


def keep_large(mask: Mask, min_ml: float) -> Mask:
    """The connected components of ``mask`` that have at least this volume."""
    if mask.is_empty:
        return mask
    min_voxels = max(1, int(np.ceil(min_ml / mask.grid.voxel_volume_ml)))
    labels = sitk.RelabelComponent(sitk.ConnectedComponent(mask.image), minimumObjectSize=min_voxels)
    return Mask(sitk.Cast(labels > 0, sitk.sitkUInt8))


def keep_touching(mask: Mask, other: Mask) -> Mask:
    """The connected components of ``mask`` that reach within ``TOUCHING_MM`` of ``other``, on the same grid."""
    if mask.is_empty or other.is_empty:
        return Mask.empty(mask.grid)
    labels = sitk.ConnectedComponent(mask.image)
    array = sitk.GetArrayViewFromImage(labels)
    beside = np.unique(array[_near(other, TOUCHING_MM)])
    return Mask.on(mask.grid, np.isin(array, beside[beside > 0]))


def _depth_mm(inside_skull: Mask, end: Array) -> Array:
    """Depth of voxels (z, y, x) inside the skull, for those before ``end`` (x, y, z) and some beyond it.

    Depths are exact up to ``SHALLOW_MM`` plus one voxel, enough to tell shallow from deep; greater depths may be
    too large. The part begins where the scan does because the filter's rounding depends on voxel indices.
    """
    spacing = np.array(inside_skull.grid.spacing)
    reach = np.ceil((SHALLOW_MM + spacing.max()) / spacing).astype(int)
    size = np.minimum(end + reach + 1, inside_skull.grid.size)
    part = sitk.RegionOfInterest(inside_skull.image, size.tolist(), (0, 0, 0))
    return sitk.GetArrayFromImage(distance_map(part, is_positive_inside=True))


def _near(mask: Mask, distance_mm: float) -> Array:
    """Voxels (z, y, x) within ``distance_mm`` of a nonempty mask."""
    first, size = mask.box
    margin = np.ceil(distance_mm / np.array(mask.grid.spacing)).astype(int)
    low, high = np.maximum(first - margin, 0), np.minimum(first + size + margin, mask.grid.size)
    distance = distance_map(sitk.RegionOfInterest(mask.image, (high - low).tolist(), low.tolist()))
    near = np.zeros(mask.grid.shape, bool)
    near[box_slices(low, high - low)] = sitk.GetArrayViewFromImage(distance) <= distance_mm
    return near


def _slices_at_foramen_magnum(inside_skull: Mask) -> int:
    """Number of slices, counted from the feet, near or below the foramen magnum; 0 if it is not in view."""
    x_mm, y_mm, z_mm = inside_skull.grid.spacing
    square_cm = inside_skull.voxels.sum(axis=(1, 2)) * x_mm * y_mm / 100
    narrow = np.flatnonzero(square_cm[: square_cm.argmax()] < _FORAMEN_MAGNUM_CM2)
    return int(narrow[-1]) + 1 + round(_NEAR_FORAMEN_MAGNUM_MM / z_mm) if len(narrow) else 0
