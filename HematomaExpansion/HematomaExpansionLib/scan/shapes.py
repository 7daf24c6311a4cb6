"""Masks as shapes: the box around one, the distance to its surface, its connected parts."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import label

from .grid import Array, Grid
from .resampling import resample


def bounding_box(mask: Array) -> tuple[Array, Array]:
    """First index and size, both (x, y, z), of the box around the true voxels of ``mask`` (z, y, x).

    Raises:
        ValueError: the mask is empty.
    """
    if not mask.any():
        raise ValueError("an empty mask has no bounding box")
    first, size = [], []
    for axis in (2, 1, 0):
        present = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        first.append(int(present[0]))
        size.append(int(present[-1] - present[0] + 1))
    return np.array(first), np.array(size)


def signed_distance(mask: sitk.Image) -> sitk.Image:
    """Distance in mm from each voxel to the surface of a mask (0/1), positive inside.

    The surface runs half way between voxels inside and outside.
    """
    # The filter's zero lies on the outermost voxels inside: of both views the mean.
    outward, inward = (
        sitk.SignedMaurerDistanceMap(view, squaredDistance=False, useImageSpacing=True)
        for view in (mask, mask == 0)
    )
    return (inward - outward) / 2


def shape_on(mask: sitk.Image, grid: Grid) -> Array:
    """Where on ``grid`` a mask's shape is, as booleans (z, y, x); the mask is not empty.

    The signed distance to its surface is interpolated, not its voxels: between two slices lies the shape
    between theirs, and the volume is kept.
    """
    first, size = bounding_box(sitk.GetArrayViewFromImage(mask) > 0)
    margin = [3] * 3
    padded = sitk.ConstantPad(sitk.RegionOfInterest(mask, size.tolist(), first.tolist()), margin, margin, 0)
    return sitk.GetArrayFromImage(resample(signed_distance(padded), grid, outside=-1000.0)) >= 0


def largest_component(mask: Array) -> Array:
    """The largest part of a mask (booleans) whose voxels touch by their faces; an empty mask stays empty."""
    labels, count = label(mask)
    return mask if count == 0 else labels == 1 + int(np.bincount(labels.ravel())[1:].argmax())
