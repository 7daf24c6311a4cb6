"""Scans and masks moved by a displacement field."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from ..scan.grid import Array, Grid, image_on
from ..scan.intensities import AIR_HU
from ..scan.mask import Mask
from ..scan.resampling import crop_to, resample
from ..scan.shapes import signed_distance
from .field import GROWTH_MARGIN_MM

# Of the eight voxels that are interpolated, where so little is of a kind, its value is not known.
_MIN_WEIGHT = 1e-3
# Depths in mm and shares that differ by less are equal.
_SAME_DEPTH_DIGITS = 4
# Beyond what any distance within a head is.
_OUTSIDE_MM = 1000.0


def field_on(image: sitk.Image, displacement: sitk.Image) -> sitk.Image:
    """The displacement on that part of the image's grid where it lies: around it, in most of it, nothing moves."""
    return resample(displacement, Grid.of(crop_to(image, Grid.of(displacement), margin_mm=0.0)))


def with_part(whole: sitk.Image, part: sitk.Image) -> sitk.Image:
    """``whole`` with the voxels of ``part``, which lies on a part of its grid."""
    return sitk.Paste(
        whole, part, part.GetSize(), (0, 0, 0), whole.TransformPhysicalPointToIndex(part.GetOrigin())
    )


def _as_transform(displacement: sitk.Image) -> sitk.DisplacementFieldTransform:
    return sitk.DisplacementFieldTransform(sitk.Cast(displacement, sitk.sitkVectorFloat64))


def warp_image(image: sitk.Image, displacement: sitk.Image) -> sitk.Image:
    """``image(x + u(x))`` on the displacement's grid, linear; ``u`` in mm, LPS."""
    moved = sitk.Resample(image, displacement, _as_transform(displacement), sitk.sitkLinear, AIR_HU)
    return sitk.Cast(moved, image.GetPixelID())


def warp_ct(ct: sitk.Image, mask: Mask, grown: Mask, displacement: sitk.Image) -> sitk.Image:
    """``ct(x + u(x))`` in HU on the displacement's grid, with the border of blood where ``grown`` has it.

    ``mask`` lies on the CT's grid, ``grown`` is what ``warp_mask`` made of it. Linear among voxels of one
    kind: within ``grown`` among those of the hematoma, around it among the others. Interpolated across its border,
    blood that moves by less than half a slice would only brighten the next one a little, and cut half way between
    brain and clot the CT would show up to 10 % less blood than the mask in slices of 5 mm. So both agree where
    they do at baseline; a mask that reaches beyond what the CT shows there (automatic ones hold the fringe of
    partial volume) goes on to do so.
    """
    transform, hu = _as_transform(displacement), sitk.Cast(ct, sitk.sitkFloat32)
    inside = sitk.Cast(mask.image, sitk.sitkFloat32)

    def moved(image: sitk.Image, outside: float) -> Array:
        return sitk.GetArrayFromImage(sitk.Resample(image, displacement, transform, sitk.sitkLinear, outside))

    whole, blood, share = moved(hu, AIR_HU), moved(hu * inside, 0.0), moved(inside, 0.0)
    is_blood = grown.voxels
    part, weight = np.where(is_blood, blood, whole - blood), np.where(is_blood, share, 1 - share)
    known = weight > _MIN_WEIGHT
    values = np.where(known, part / np.where(known, weight, 1.0), whole)
    return sitk.Cast(image_on(Grid.of(displacement), values.astype(np.float32)), ct.GetPixelID())


def warp_mask(mask: Mask, displacement: sitk.Image) -> Mask:
    """``mask(x + u(x))`` on the displacement's grid, with the volume that the field gives it.

    Cut at the half-way surface, what moves by less than half a slice would be lost: some 15 % of the growth in
    slices of 5 mm. So as many voxels as the interpolated mask sums to are taken, the innermost by its interpolated
    signed distance; among equals those with the larger share of the mask, and then by lot (always the same), so
    that no side of the hematoma is preferred.
    """
    near = crop_to(mask.image, Grid.of(displacement), margin_mm=GROWTH_MARGIN_MM)
    transform = _as_transform(displacement)
    share, depth = (
        sitk.GetArrayFromImage(
            sitk.Resample(sitk.Cast(image, sitk.sitkFloat32), displacement, transform, sitk.sitkLinear, outside)
        )
        for image, outside in ((near, 0.0), (signed_distance(near), -_OUTSIDE_MM))
    )
    count = round(float(share.sum(dtype=np.float64)))
    return Mask.on(Grid.of(displacement), _innermost(depth, share, count))


def _innermost(depth: Array, share: Array, count: int) -> Array:
    """So many voxels (z, y, x), as booleans, of the largest ``depth``; see ``warp_mask`` for equals."""
    if count == 0:
        return np.zeros(depth.shape, bool)
    rounded = np.round(depth, _SAME_DEPTH_DIGITS)  # interpolation does not give equals to the last bit
    last = np.partition(rounded.ravel(), -count)[-count]
    chosen = rounded > last
    equals = np.flatnonzero(rounded == last)
    lot = np.random.default_rng(0).permutation(len(equals))
    order = np.lexsort((lot, -np.round(share.ravel()[equals], _SAME_DEPTH_DIGITS)))
    chosen.ravel()[equals[order[: count - np.count_nonzero(chosen)]]] = True
    return chosen


def smallest_jacobian(displacement: sitk.Image) -> float:
    """Smallest Jacobian determinant of ``x + u(x)`` over the grid; above zero nothing is folded."""
    determinant = sitk.DisplacementFieldJacobianDeterminant(sitk.Cast(displacement, sitk.sitkVectorFloat64))
    return float(sitk.GetArrayViewFromImage(determinant).min())
