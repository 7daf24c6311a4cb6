"""The inside of the skull: a head CT without table, head holder, scalp, bone and orbits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import rotate

from ..errors import InputError
from ..scan.grid import Array, Grid, image_on
from ..scan.intensities import AIR_HU
from ..scan.mask import Mask
from ..scan.resampling import average_onto, where_at_least
from ..scan.shapes import bounding_box, largest_component
from .skull_openings import BONE_HU, find_openings

PLAUSIBLE_ML = (500.0, 2300.0)
"""Range of the volume inside the skull, from a child's to the largest."""

# Lengths below are in mm, so one grid of that spacing serves thin and thick slices alike.
_SPACING_MM = 2.0
# From fluid to clotted blood; above it is bone, even where bone fills only part of a thick slice.
_SOFT_HU = (-15.0, 130.0)
# The same for the scan's own voxels, with room for their noise; it excludes fat and air.
_SOFT_VOXEL_HU = (-40.0, 160.0)
_SEAL_MM = 8.0
_CUT_MM = 7.0
_HARDLY_ANY_ML, _CUT_CM2 = 100.0, 45.0
_MARGIN = 4  # voxels


@dataclass(frozen=True)
class Brain:
    """``mask``: the inside of the skull (brain, CSF and blood), on the scan's own grid.

    ``missing_bone_cm2``: area where the skull is open; the mask ends under the scalp there. ``unseen_skull_cm2``:
    area where the skull lies outside the field of view; the mask ends at the edge of the view there.
    """

    mask: Mask
    missing_bone_cm2: float = 0.0
    unseen_skull_cm2: float = 0.0


def extract_brain(image: sitk.Image) -> Brain:
    """The inside of the skull in a head CT (HU, orthogonal grid, array axis 0 nearest the body's axis).

    This uses morphology, as in Abramova 2024, section 2.1.1. The largest component is the head. Erosion separates
    what bone surrounds on axial slices from the orbits, nose and neck, and the largest part is grown back. Where
    the skull is open, a shell stands in for the bone.

    Raises:
        InputError: bone encloses nothing the size of an adult brain.
    """
    scan = Grid.of(image)
    coarse = scan.with_spacing((_SPACING_MM,) * 3)
    # Room around the slices: a head cut off by the field of view continues there.
    columns, rows, slices = coarse.size
    grid = coarse.cropped((-_MARGIN, -_MARGIN, 0), (columns + 2 * _MARGIN, rows + 2 * _MARGIN, slices))
    hu = average_onto(image, grid, outside=AIR_HU)
    head = largest_component(hu > -300)
    bone = head & (hu > BONE_HU)
    possible = head & (hu < _SOFT_HU[1])
    openings = find_openings(hu, head, _SPACING_MM, _MARGIN)
    if openings is not None:
        bone |= openings.shell
        possible &= ~openings.beyond
    enclosed = _enclosed(bone) if openings is None else _enclosed(bone) | openings.under
    enclosed &= possible & (hu > _SOFT_HU[0])
    core = largest_component(_eroded(enclosed, _CUT_MM))
    inside = _dilated(core, _CUT_MM + 1.0) & enclosed
    inside = _filled(largest_component(_closed(inside, 6.0) & possible))
    # Up to the bone on the scan's own voxels: coarse voxels at its edge hold some of both.
    mask = _up_to_bone(image, _dilated(inside, _SPACING_MM), grid)
    if not PLAUSIBLE_ML[0] <= mask.volume_ml <= PLAUSIBLE_ML[1]:
        raise InputError(_implausible(mask))
    return Brain(mask) if openings is None else Brain(mask, openings.missing_cm2, openings.unseen_cm2)


def _implausible(mask: Mask) -> str:
    """The message for a mask that is not the size of an adult brain."""
    inside_ml = mask.volume_ml
    if inside_ml < _HARDLY_ANY_ML:
        return (
            f"No brain was found inside a skull ({inside_ml:.0f} mL enclosed by bone): give a CT of an adult's "
            "head. An infant's skull is too thin and open for this tool."
        )
    if inside_ml > PLAUSIBLE_ML[1]:
        return f"What lies inside the skull measures {inside_ml:.0f} mL, more than a brain: give a CT of the head."
    x_mm, y_mm, _ = mask.grid.spacing
    cm2 = np.count_nonzero(mask.voxels, axis=(1, 2)) * x_mm * y_mm / 100
    if max(cm2[0], cm2[-1]) > _CUT_CM2:
        return (
            f"Only {inside_ml:.0f} mL of brain is in view, since the scan ends within it: choose the series that "
            "covers the whole head."
        )
    return (
        f"Only {inside_ml:.0f} mL of brain was found inside the skull. This tool is made for adults, not for an "
        "infant's small, open skull. If it is an adult's, choose the series that covers the whole head."
    )


def _enclosed(bone: Array) -> Array:
    """Voxels that see bone in at least seven of eight directions on their axial slice.

    Full enclosure cannot be required: at the base, the ring of bone is open toward the orbits and nose.
    """
    sealed = _closed(bone, _SEAL_MM)
    turned = rotate(sealed.astype(np.uint8), 45, axes=(1, 2), order=0)
    back = rotate(_rays_that_hit(turned > 0), -45, axes=(1, 2), order=0)
    first = [(n - m) // 2 for n, m in zip(back.shape[1:], bone.shape[1:], strict=True)]
    diagonal = back[:, first[0] : first[0] + bone.shape[1], first[1] : first[1] + bone.shape[2]]
    return _rays_that_hit(sealed) + diagonal >= 7


def _rays_that_hit(bone: Array) -> Array:
    """For each voxel, how many of the four rays along the slice's axes meet bone."""
    hits = np.zeros(bone.shape, np.uint8)
    for axis in (1, 2):
        hits += np.maximum.accumulate(bone, axis=axis)
        hits += np.flip(np.maximum.accumulate(np.flip(bone, axis), axis=axis), axis)
    return hits


def _up_to_bone(image: sitk.Image, coarse: Array, grid: Grid) -> Mask:
    """Soft tissue within a coarse mask on ``grid``, on the scan's own voxels, with holes filled."""
    scan = Grid.of(image)
    mask = np.zeros(scan.shape, bool)
    if coarse.any():
        box = _box_around(coarse)
        near = grid.cropped([part.start for part in box[::-1]], coarse[box].shape[::-1])
        mask = where_at_least(0.5, image_on(near, coarse[box].astype(np.float32)), scan)
    if mask.any():
        box = _box_around(mask)
        hu = sitk.GetArrayViewFromImage(image)[box]
        mask[box] = _filled(mask[box] & (hu >= _SOFT_VOXEL_HU[0]) & (hu <= _SOFT_VOXEL_HU[1]))
    return Mask.on(scan, mask)


def _box_around(mask: Array) -> tuple[slice, ...]:
    """The bounding box of a nonempty mask (z, y, x), one voxel wider on each side where the array has room."""
    first, size = bounding_box(mask)
    return tuple(slice(max(0, a - 1), a + n + 1) for a, n in zip(first[::-1], size[::-1], strict=True))


def _filled(mask: Array) -> Array:
    return sitk.GetArrayFromImage(sitk.BinaryFillhole(sitk.GetImageFromArray(mask.astype(np.uint8)))) > 0


def _dilated(mask: Array, radius_mm: float) -> Array:
    """Voxels within that distance of the mask, from center to center.

    The mask is moved to each row of a ball, as wide as the row: ten times as fast as a map of distances.
    """
    radius = radius_mm / _SPACING_MM
    reach = int(radius)
    widened = [np.pad(mask, reach)]  # by 0, 1, … voxels along the rows
    for _ in range(reach):
        wider = widened[-1].copy()
        wider[..., 1:] |= widened[-1][..., :-1]
        wider[..., :-1] |= widened[-1][..., 1:]
        widened.append(wider)
    dilated = np.zeros(mask.shape, bool)
    for moved in product(range(-reach, reach + 1), repeat=2):
        squared = radius**2 - moved[0] ** 2 - moved[1] ** 2
        if squared >= 0:
            first = (reach + moved[0], reach + moved[1], reach)
            part = tuple(slice(start, start + size) for start, size in zip(first, mask.shape, strict=True))
            dilated |= widened[int(math.sqrt(squared))][part]
    return dilated


def _eroded(mask: Array, radius_mm: float) -> Array:
    """Voxels farther than that from all voxels outside of the mask."""
    return ~_dilated(~mask, radius_mm)


def _closed(mask: Array, radius_mm: float) -> Array:
    """Closing; the array is padded so that its edge closes nothing."""
    room = int(np.ceil(radius_mm / _SPACING_MM)) + 1
    padded = np.pad(mask, room)
    closed = _eroded(_dilated(padded, radius_mm), radius_mm)
    return closed[tuple(slice(room, -room) for _ in range(3))]
