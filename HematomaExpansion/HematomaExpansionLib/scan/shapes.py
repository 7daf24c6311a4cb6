"""Voxel shapes: their bounding boxes, distances to their surfaces, and their largest components."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import find_objects, label

from .grid import Array, Grid, image_on
from .resampling import resample

_FAR_OUTSIDE_MM = -1000.0
"""Farther outside than anything in a head."""


def bounding_box(voxels: Array) -> tuple[Array, Array]:
    """First index and size, both (x, y, z), of the box around the true voxels (z, y, x).

    Raises:
        ValueError: there are no true voxels.
    """
    boxes = find_objects(voxels.view(np.uint8))
    if not boxes:
        raise ValueError("an empty mask has no bounding box")
    along_xyz = boxes[0][::-1]
    return np.array([box.start for box in along_xyz]), np.array([box.stop - box.start for box in along_xyz])


def distance_map(shape: sitk.Image, *, is_positive_inside: bool = False) -> sitk.Image:
    """Signed distance in mm from each voxel to the outermost voxels inside a shape (0/1).

    Positive outside by default. Undefined for an empty shape.
    """
    return sitk.SignedMaurerDistanceMap(
        shape, insideIsPositive=is_positive_inside, squaredDistance=False, useImageSpacing=True
    )


def distance_map_on(grid: Grid, voxels: Array, *, is_positive_inside: bool = False) -> Array:
    """``distance_map`` of booleans (z, y, x) on ``grid``, as an array."""
    image = image_on(grid, voxels.astype(np.uint8))
    return sitk.GetArrayFromImage(distance_map(image, is_positive_inside=is_positive_inside))


def signed_distance(shape: sitk.Image) -> sitk.Image:
    """Distance in mm from each voxel to the surface of a shape (0/1), positive inside.

    The surface runs halfway between voxels inside and outside.
    """
    # A distance map is zero on the outermost voxels inside, so average the maps from both sides.
    outward, inward = distance_map(shape), distance_map(shape == 0)
    return (inward - outward) / 2


def shape_on(shape: sitk.Image, grid: Grid) -> Array:
    """A nonempty shape (0/1) on ``grid``, as booleans (z, y, x).

    Interpolates the signed distance to its surface, not its voxels, so the shape changes gradually from slice
    to slice and its volume is preserved.
    """
    first, size = bounding_box(sitk.GetArrayFromImage(shape) > 0)
    margin = [3] * 3
    padded = sitk.ConstantPad(sitk.RegionOfInterest(shape, size.tolist(), first.tolist()), margin, margin, 0)
    return sitk.GetArrayFromImage(resample(signed_distance(padded), grid, outside=_FAR_OUTSIDE_MM)) >= 0


def largest_component(voxels: Array) -> Array:
    """The largest face-connected component of a shape (booleans); an empty shape stays empty."""
    labels, count = label(voxels)
    return voxels if count == 0 else labels == 1 + int(np.bincount(labels.ravel())[1:].argmax())
