"""Shapes of voxels: the box around one, distances to its surface, its largest part."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import find_objects, label

from .grid import Array, Grid, image_on
from .resampling import resample

_NO_PLACE_MM = -1000.0
"""Deeper outside than anything within a head."""


def bounding_box(voxels: Array) -> tuple[Array, Array]:
    """First index and size, both (x, y, z), of the box around the true voxels (z, y, x).

    Raises:
        ValueError: there are none.
    """
    boxes = find_objects(voxels.view(np.uint8))
    if not boxes:
        raise ValueError("an empty mask has no bounding box")
    along_xyz = boxes[0][::-1]
    return np.array([box.start for box in along_xyz]), np.array([box.stop - box.start for box in along_xyz])


def distance_map(shape: sitk.Image, *, is_positive_inside: bool = False) -> sitk.Image:
    """Distance in mm from each voxel to the outermost voxels inside a shape (0/1), of the other sign within it.

    By default the distance is positive outside. Of an empty shape it is not defined.
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

    The surface runs half way between voxels inside and outside.
    """
    # The zero of a distance map lies on the outermost voxels inside: of both views the mean.
    outward, inward = distance_map(shape), distance_map(shape == 0)
    return (inward - outward) / 2


def shape_on(shape: sitk.Image, grid: Grid) -> Array:
    """Where on ``grid`` a shape (0/1) is, as booleans (z, y, x); it is not empty.

    The signed distance to its surface is interpolated, not its voxels: between two slices lies the shape
    between theirs, and the volume is kept.
    """
    first, size = bounding_box(sitk.GetArrayFromImage(shape) > 0)
    margin = [3] * 3
    padded = sitk.ConstantPad(sitk.RegionOfInterest(shape, size.tolist(), first.tolist()), margin, margin, 0)
    return sitk.GetArrayFromImage(resample(signed_distance(padded), grid, outside=_NO_PLACE_MM)) >= 0


def largest_component(voxels: Array) -> Array:
    """The largest part of a shape (booleans) whose voxels touch by their faces; an empty one stays empty."""
    labels, count = label(voxels)
    return voxels if count == 0 else labels == 1 + int(np.bincount(labels.ravel())[1:].argmax())
