"""Synthetic variants of a baseline: the hematoma a little smaller or of another shape (Abramova 2024, 2.1.2).

The mask is changed (see ``target_shapes``), the original is registered to it, and the CT is warped with the field.
All of this happens on a crop around the hematoma; beyond 15 mm from its voxels the scan stays as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from HematomaExpansionLib.errors import InputError
from HematomaExpansionLib.growth.warping import smallest_jacobian
from HematomaExpansionLib.measures.agreement import dice
from HematomaExpansionLib.scan.grid import Array, Grid, image_on
from HematomaExpansionLib.scan.mask import Mask
from HematomaExpansionLib.scan.resampling import resample
from HematomaExpansionLib.scan.shapes import distance_map, shape_on, signed_distance

from .mask_registration import register_masks, registration_method
from .target_shapes import Target, TargetOptions, draw_targets

UNTOUCHED_MM = 15.0
"""Farther than this from the nearest voxel of the hematoma, center to center, nothing changes."""

_WORKING_MM = 1.0
_FADE_FROM_MM = 9.0
_FAR_OUTSIDE_MM = -60.0
_BONE_HU = 300.0
"""Denser than any blood, even with partial volume of the skull in thick slices."""


@dataclass(frozen=True)
class Variant:
    """A synthetic baseline on the scan's own grid; CT in HU.

    ``displacement`` (mm, LPS, pull-back) lies on a grid around the hematoma. ``description`` is what
    ``variant.json`` holds.
    """

    ct: sitk.Image
    mask: Mask
    displacement: sitk.Image
    description: dict[str, Any]


def working_grid(mask: Mask, *, in_plane: bool) -> Grid:
    """Grid around a hematoma on which to change it: 1 mm voxels, but the scan's own slices if ``in_plane``.

    Raises:
        InputError: the mask is empty.
    """
    if mask.is_empty:
        raise InputError("The mask is empty: mark the hematoma first.")
    margin = np.ceil((UNTOUCHED_MM + 2) / np.array(mask.grid.spacing)).astype(int)
    height_mm = mask.grid.spacing[2] if in_plane else _WORKING_MM
    return mask.box_grid(margin).with_spacing((_WORKING_MM, _WORKING_MM, height_mm))


def first_target(mask: Mask, options: TargetOptions, seed: int) -> Mask:
    """The target of the first variant with that seed, without registration, on a grid around the hematoma.

    Raises:
        InputError: the mask is empty, or too small to be changed.
    """
    grid = working_grid(mask, in_plane=options.in_plane)
    (target,) = draw_targets(shape_on(mask.image, grid), 1, options, np.random.default_rng(seed))
    return Mask.on(grid, target.mask)


def make_variants(ct: sitk.Image, mask: Mask, count: int, options: TargetOptions, seed: int) -> Iterator[Variant]:
    """Yield variants of a scan (HU) and its hematoma, both on one orthogonal grid; same seed, same variants.

    Raises:
        InputError: the mask is empty, too small to be changed, or touches the skull.
    """
    grid = working_grid(mask, in_plane=options.in_plane)
    _check_clear_of_skull(ct, mask)
    original = shape_on(mask.image, grid)
    random = np.random.default_rng(seed)
    for target in draw_targets(original, count, options, random):
        yield _variant(ct, mask, grid, original, target, options, seed)


def _variant(
    ct: sitk.Image,
    mask: Mask,
    grid: Grid,
    original: Array,
    target: Target,
    options: TargetOptions,
    seed: int,
) -> Variant:
    displacement = _faded(register_masks(original, target.mask, grid), mask, grid, in_plane=options.in_plane)
    transform = sitk.DisplacementFieldTransform(sitk.Cast(displacement, sitk.sitkVectorFloat64))
    level = signed_distance(image_on(grid, original.astype(np.uint8)))
    reached = sitk.GetArrayFromImage(sitk.Resample(level, level, transform, sitk.sitkLinear, _FAR_OUTSIDE_MM)) > 0
    new_ct, new_mask = _moved(ct, mask, displacement), _moved_mask(mask, displacement)
    lengths = np.linalg.norm(sitk.GetArrayViewFromImage(displacement), axis=-1)
    description = {
        "research_use_only": True,
        "source": "synthetic variant of the case's baseline",
        "family": options.family.value,
        "element": target.element,
        "iterations": target.iterations,
        "in_plane": options.in_plane,
        "seed": seed,
        "registration": registration_method(),
        "dice_to_target": dice(reached, target.mask),
        "smallest_jacobian": smallest_jacobian(displacement),
        "largest_displacement_mm": float(lengths.max()),
        "mean_surface_shift_mm": float(lengths[_surface(reached)].mean()),
        "original_ml": mask.volume_ml,
        "volume_ml": new_mask.volume_ml,
    }
    return Variant(new_ct, new_mask, displacement, description)


def _check_clear_of_skull(ct: sitk.Image, mask: Mask) -> None:
    around = sitk.BinaryDilate(mask.image, [1, 1, 0])
    if np.any(sitk.GetArrayViewFromImage(ct)[sitk.GetArrayViewFromImage(around) > 0] > _BONE_HU):
        raise InputError(
            "The hematoma's mask touches the skull, which would be deformed too: remove bone from the mask, or "
            "choose another case."
        )


def _surface(mask: Array) -> Array:
    """Voxels of the mask that touch its outside."""
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    return sitk.GetArrayFromImage(sitk.BinaryContour(image)) > 0


def _faded(displacement: sitk.Image, mask: Mask, grid: Grid, *, in_plane: bool) -> sitk.Image:
    """The field faded to zero between 9 and 14 mm from the hematoma; if ``in_plane``, without its part across
    slices."""
    distance = sitk.GetArrayFromImage(resample(distance_map(mask.image), grid, outside=2 * UNTOUCHED_MM))
    share = np.clip((UNTOUCHED_MM - 1 - distance) / (UNTOUCHED_MM - 1 - _FADE_FROM_MM), 0.0, 1.0)
    field = sitk.GetArrayFromImage(displacement) * (share**2 * (3 - 2 * share))[..., None]
    if in_plane:
        normal = np.array(grid.direction).reshape(3, 3)[:, 2]
        field = field - (field @ normal)[..., None] * normal
    return image_on(grid, field.astype(np.float32))


def _moved(ct: sitk.Image, mask: Mask, displacement: sitk.Image) -> sitk.Image:
    """``ct(x + u(x))``, linear; exactly the scan's values where nothing moves and far from the hematoma."""
    field = resample(displacement, Grid.of(ct))
    transform = sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))
    values = sitk.GetArrayFromImage(ct)
    moved = sitk.GetArrayFromImage(sitk.Resample(sitk.Cast(ct, sitk.sitkFloat32), ct, transform, sitk.sitkLinear))
    still = np.linalg.norm(sitk.GetArrayViewFromImage(field), axis=-1) < 1e-3
    still |= sitk.GetArrayFromImage(distance_map(mask.image)) > UNTOUCHED_MM  # the field's grid may be coarse
    if np.issubdtype(values.dtype, np.integer):
        moved = np.round(moved)
    return image_on(Grid.of(ct), np.where(still, values, moved.astype(values.dtype)))


def _moved_mask(mask: Mask, displacement: sitk.Image) -> Mask:
    """The warped mask, by way of its signed distance, which says more than the mask in thick slices."""
    level = signed_distance(mask.image)
    field = resample(displacement, mask.grid)
    transform = sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))
    moved = sitk.Resample(level, level, transform, sitk.sitkLinear, _FAR_OUTSIDE_MM) > 0
    return Mask(sitk.Cast(moved, sitk.sitkUInt8))
