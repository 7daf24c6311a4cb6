"""Which connected components of a mask count as hematoma."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import find_objects

from ..scan.grid import Array
from ..scan.mask import Mask
from ..scan.shapes import distance_map

SMALLEST_HEMATOMA_ML = 1.0
"""Components below this are noise, calcification or partial volume rather than a hematoma."""

SMALLEST_SATELLITE_ML, SATELLITE_NEAR_MM = 0.03, 12.0
"""Smaller ones count, from 4 mm across, so near to a hematoma: its satellites."""

SMALLEST_AT_FORAMEN_MAGNUM_ML = 3.0
"""The same near the foramen magnum, where beam hardening by the bone around makes the medulla look as dense."""

SHALLOW_MM = 8.0
"""Venous sinuses, dura and the partial volume of bone, all as dense as blood, hardly reach deeper than this."""

_FORAMEN_MAGNUM_CM2, _NEAR_FORAMEN_MAGNUM_MM = 12.0, 10.0
"""Larger than its area in adults, and how far above it the medulla lies."""


def keep_hematomas(mask: Mask, inside_skull: Mask) -> Mask:
    """The connected components of ``mask`` that count as hematoma, both on one grid.

    Such a component is large enough, and at least a tenth of it lies deep enough inside the skull. At the foramen
    magnum and below it must be larger. A small one counts if it is a satellite of a larger one.
    """
    grid = mask.grid
    min_voxels = int(np.ceil(SMALLEST_SATELLITE_ML / grid.voxel_volume_ml))
    labels = sitk.RelabelComponent(sitk.ConnectedComponent(mask.image), minimumObjectSize=min_voxels)
    depth_mm = sitk.GetArrayFromImage(distance_map(inside_skull.image, is_positive_inside=True))
    array, low_slices = sitk.GetArrayFromImage(labels), _slices_at_foramen_magnum(inside_skull)
    large: list[int] = []
    small: list[int] = []
    for label, box in enumerate(find_objects(array), start=1):
        where = array[box] == label
        if np.quantile(depth_mm[box][where], 0.9) < SHALLOW_MM:
            continue
        size = int(np.count_nonzero(where))
        low = int(np.count_nonzero(where[: max(0, low_slices - box[0].start)]))
        smallest_ml = SMALLEST_HEMATOMA_ML if low <= size / 2 else SMALLEST_AT_FORAMEN_MAGNUM_ML
        (large if size * grid.voxel_volume_ml >= smallest_ml else small).append(label)
    hematomas = np.isin(array, large)
    if large and small:
        near = _near(Mask.on(grid, hematomas), SATELLITE_NEAR_MM)
        hematomas |= np.isin(array, np.intersect1d(small, array[near]))
    return Mask.on(grid, hematomas)


def _near(mask: Mask, distance_mm: float) -> Array:
    """Voxels (z, y, x) no farther than that from a mask that is not empty."""
    first, size = mask.box
    margin = np.ceil(distance_mm / np.array(mask.grid.spacing)).astype(int)
    low, high = np.maximum(first - margin, 0), np.minimum(first + size + margin, mask.grid.size)
    distance = distance_map(sitk.RegionOfInterest(mask.image, (high - low).tolist(), low.tolist()))
    near = np.zeros(mask.grid.shape, bool)
    near[tuple(slice(a, b) for a, b in zip(low[::-1], high[::-1], strict=True))] = (
        sitk.GetArrayViewFromImage(distance) <= distance_mm
    )
    return near


def _slices_at_foramen_magnum(inside_skull: Mask) -> int:
    """How many slices, counted from the feet, lie near the foramen magnum or below; 0 where it is not in view."""
    x_mm, y_mm, z_mm = inside_skull.grid.spacing
    square_cm = inside_skull.voxels.sum(axis=(1, 2)) * x_mm * y_mm / 100
    narrow = np.flatnonzero(square_cm[: square_cm.argmax()] < _FORAMEN_MAGNUM_CM2)
    return int(narrow[-1]) + 1 + round(_NEAR_FORAMEN_MAGNUM_MM / z_mm) if len(narrow) else 0
