"""Reading a hematoma's mask, and bringing it onto the scan on which it was drawn.

Coordinates are LPS millimeters, arrays are (z, y, x).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .errors import InputError
from .grid import Grid, image_on, shape_on
from .head_ct import HeadCT
from .straight_grid import is_sheared
from .volume_files import is_scalar, read_volume, three_dimensional


def read_mask(path: str | Path, scan: HeadCT) -> sitk.Image:
    """The hematoma mask in a NIfTI, NRRD, MHA or MHD file as uint8 0/1 on ``scan.image``'s grid.

    Raises:
        InputError: the mask cannot be read, is empty, or does not belong to this scan.
    """
    return mask_on_scan(read_volume(Path(path), "mask"), scan)


def read_mask_file(path: Path) -> sitk.Image:
    """A mask file as uint8 0/1 on its own grid, axes in the order nearest LPS.

    Raises:
        InputError: the file cannot be read, or holds no mask.
    """
    mask = _binary(read_volume(path, "mask"))
    if not np.any(sitk.GetArrayViewFromImage(mask)):
        raise InputError("The mask is empty. Draw the hematoma in it.")
    return sitk.DICOMOrient(mask, "LPS")


def mask_on_scan(image: sitk.Image, scan: HeadCT) -> sitk.Image:
    """A hematoma mask on any grid as uint8 0/1 on ``scan.image``'s grid.

    Every voxel above 0.5 is hematoma, whatever its label. A mask on the scan's own grid, in whichever
    axis order, is taken voxel for voxel; any other is resampled so that its volume is kept.

    Raises:
        InputError: the mask is empty, not three-dimensional, or does not belong to this scan.
    """
    mask = _binary(image)
    _check_mask_place(mask, scan.grid)
    if not is_sheared(mask):
        oriented = sitk.DICOMOrient(mask, "LPS")
        if Grid.of(oriented).is_same(scan.grid):
            return image_on(scan.grid, sitk.GetArrayFromImage(oriented))
    inside = shape_on(mask, scan.grid)
    if not inside.any():
        raise InputError("The mask is smaller than the scan's voxels. Draw it on the scan itself.")
    return image_on(scan.grid, inside.astype(np.uint8))


def _check_mask_place(mask: sitk.Image, grid: Grid) -> None:
    """Refuse an empty mask, and one of which more than a tenth lies outside the scan's box."""
    inside_mask = np.argwhere(sitk.GetArrayViewFromImage(mask))[:, ::-1]
    if len(inside_mask) == 0:
        raise InputError("The mask is empty. Draw the hematoma, or leave the mask out.")
    own = Grid.of(mask)
    points = own.axes @ inside_mask.T + np.array(own.origin)[:, None]
    indices = np.linalg.solve(grid.axes, points - np.array(grid.origin)[:, None])
    last = np.array(grid.size)[:, None] - 0.5
    outside = ((indices < -0.5) | (indices > last)).any(axis=0)
    if outside.mean() > 0.1:
        raise InputError(
            f"The mask does not belong to this scan: {outside.mean():.0%} of it lies outside. "
            "Give the mask that was drawn on this scan."
        )


def _binary(image: sitk.Image) -> sitk.Image:
    """Every voxel above 0.5, whatever its label, as uint8 0/1."""
    image = three_dimensional(image, "mask")
    if not is_scalar(image):
        raise InputError("The mask has several values per voxel. Export it as one label map.")
    return sitk.Cast(sitk.Cast(image, sitk.sitkFloat32) > 0.5, sitk.sitkUInt8)
