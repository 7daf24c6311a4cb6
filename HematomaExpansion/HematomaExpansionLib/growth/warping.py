"""Warps scans and masks with a displacement field."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from ..scan.grid import Array, Grid, image_on
from ..scan.intensities import AIR_HU
from ..scan.mask import Mask
from ..scan.resampling import crop_to, resample
from ..scan.shapes import bounding_box, signed_distance
from .field import GROWTH_MARGIN_MM

# Where less than this share of the eight interpolated voxels is of one kind, its value is unknown.
_MIN_WEIGHT = 1e-3
# Depths in mm and shares that agree to this many digits count as equal.
_SAME_DEPTH_DIGITS = 4
# More than any distance within a head.
_OUTSIDE_MM = 1000.0


def field_on(image: sitk.Image, displacement: sitk.Image) -> sitk.Image:
    """The displacement on the part of the image's grid that it covers; nothing moves outside that part."""
    return resample(displacement, Grid.of(crop_to(image, Grid.of(displacement), margin_mm=0.0)))


def with_part(whole: sitk.Image, part: sitk.Image) -> sitk.Image:
    """``whole`` with the voxels of ``part``, which covers part of its grid."""
    return sitk.Paste(
        whole, part, part.GetSize(), (0, 0, 0), whole.TransformPhysicalPointToIndex(part.GetOrigin())
    )


def moving_part(displacement: sitk.Image, margin: int) -> sitk.Image:
    """The part of a displacement outside which nothing moves, with a margin in voxels as far as its grid goes."""
    vectors = sitk.GetArrayViewFromImage(displacement)
    moves = (vectors[..., 0] != 0) | (vectors[..., 1] != 0) | (vectors[..., 2] != 0)
    if not moves.any():
        return displacement
    first, size = bounding_box(moves)
    start = np.maximum(first - margin, 0)
    end = np.minimum(first + size + margin, displacement.GetSize())
    return sitk.RegionOfInterest(displacement, (end - start).tolist(), start.tolist())


def on_whole_grid(image: sitk.Image, displacement: sitk.Image) -> sitk.Image:
    """A displacement on a part of the image's grid, on the whole of it; nothing moves outside that part."""
    still = sitk.Image(image.GetSize(), displacement.GetPixelID(), 3)
    still.CopyInformation(image)
    return with_part(still, displacement)


def _as_transform(displacement: sitk.Image) -> sitk.DisplacementFieldTransform:
    return sitk.DisplacementFieldTransform(sitk.Cast(displacement, sitk.sitkVectorFloat64))


def warp_image(image: sitk.Image, displacement: sitk.Image) -> sitk.Image:
    """``image(x + u(x))`` on the displacement's grid, linear; ``u`` in mm, LPS."""
    moved = sitk.Resample(image, displacement, _as_transform(displacement), sitk.sitkLinear, AIR_HU)
    return sitk.Cast(moved, image.GetPixelID())


def warp_ct(ct: sitk.Image, mask: Mask, grown: Mask, displacement: sitk.Image) -> sitk.Image:
    """``ct(x + u(x))`` in HU on the displacement's grid, with the border of blood where ``grown`` has it.

    ``mask`` lies on the CT's grid; ``grown`` is the result of ``warp_mask`` for it. Interpolation is linear among
    voxels of one kind: those of the hematoma within ``grown``, the others around it. If it crossed the border,
    blood that moves by less than half a slice would only brighten the next slice a little, and with a cut halfway
    between brain and clot, the CT would show up to 10 % less blood than the mask in 5 mm slices. So CT and mask
    agree where they do at baseline; where a mask reaches beyond the blood that the CT shows (automatic masks
    include the fringe of partial volume), it still does.
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

    A cut at one half would lose movements of less than half a slice: about 15 % of the growth in 5 mm slices. So
    the mask takes as many voxels as the interpolated mask sums to, the innermost ones by its interpolated signed
    distance. Ties go to voxels with the larger share of the mask, and then to a fixed random order, so that no
    side of the hematoma is preferred.
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
    """The ``count`` voxels (z, y, x) with the largest ``depth``, as booleans; see ``warp_mask`` for ties."""
    if count == 0:
        return np.zeros(depth.shape, bool)
    rounded = np.round(depth, _SAME_DEPTH_DIGITS)  # interpolated ties differ in their last bits
    last = np.partition(rounded.ravel(), -count)[-count]
    chosen = rounded > last
    equals = np.flatnonzero(rounded == last)
    lot = np.random.default_rng(0).permutation(len(equals))
    order = np.lexsort((lot, -np.round(share.ravel()[equals], _SAME_DEPTH_DIGITS)))
    chosen.ravel()[equals[order[: count - np.count_nonzero(chosen)]]] = True
    return chosen


def smallest_jacobian(displacement: sitk.Image) -> float:
    """Smallest Jacobian determinant of ``x + u(x)`` over the grid; above zero, nothing folds."""
    # ITK differentiates along the grid's axes, whatever their direction, so the components must be along them too.
    to_axes = np.linalg.inv(np.array(displacement.GetDirection()).reshape(3, 3))
    vectors = sitk.GetArrayViewFromImage(displacement).astype(np.float64)
    along_axes = sitk.GetImageFromArray(vectors @ to_axes.T, isVector=True)
    along_axes.SetSpacing(displacement.GetSpacing())
    determinant = sitk.DisplacementFieldJacobianDeterminant(along_axes)
    return float(sitk.GetArrayViewFromImage(determinant).min())
