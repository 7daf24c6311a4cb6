"""Reading a hematoma mask and bringing it onto the scan it was drawn on.

Coordinates are LPS millimeters, arrays are (z, y, x).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from .dicom.segmentation import is_dicom_mask, read_dicom_segmentation
from .grid import Grid, oriented
from .head_ct import HeadCT
from .mask import Mask
from .mask_labels import hematoma_in
from .shapes import shape_on
from .straight_grid import is_sheared, squared
from .volume import Volume
from .volume_files import read_volume


def read_mask(path: str | Path, scan: HeadCT, label: str | None = None) -> Mask:
    """The hematoma mask in a file, on the scan's grid.

    The file may be NIfTI, NRRD, MHA, MHD, Slicer's ``.seg.nrrd`` or DICOM SEG; ``label`` chooses the
    hematoma among several labels, by number or segment name.

    Raises:
        InputError: the mask cannot be read, is empty, or does not belong to this scan; or ``label`` does not say
            which of its labels is the hematoma.
        MissingLibraryError: the mask is DICOM SEG and highdicom is not installed.
    """
    volume = _read(Path(path), label)
    is_position_certain = volume.is_position_certain and scan.is_position_certain
    if not is_position_certain and _as_stored(Mask(volume.image), scan.grid) is None:
        doubtful = "mask" if scan.is_position_certain else "scan"
        raise InputError(
            f"The {doubtful}'s file does not say clearly where it lies, and the mask's grid differs from the "
            "scan's. Save the mask again on the scan."
        )
    return mask_on_scan(volume.image, scan)


def read_given_mask(path: Path | None, scan: HeadCT, label: str | None = None) -> Mask | None:
    """The user's mask as ``read_mask`` reads it; None if the user gave none.

    Raises:
        InputError, MissingLibraryError: as in ``read_mask``; or there is a label but no mask.
    """
    if path is not None:
        return read_mask(path, scan, label)
    if label is not None:
        raise InputError("A label chooses the hematoma in a mask: give the mask too, or leave the label out.")
    return None


def read_mask_file(path: Path, label: str | None = None) -> Mask:
    """The hematoma mask in a file, on its own grid, with the axes in the order nearest LPS.

    Raises:
        InputError, MissingLibraryError: as in ``read_mask``.
    """
    return Mask(read_mask_volume(path, label).image)


def read_mask_volume(path: Path, label: str | None = None) -> Volume:
    """The same as a volume of 0 and 1, with notes for the user about its position.

    Raises:
        InputError, MissingLibraryError: as in ``read_mask``.
    """
    volume = _read(path, label)
    if not np.any(sitk.GetArrayViewFromImage(volume.image)):
        raise InputError("The mask is empty. Draw the hematoma in it.")
    return replace(volume, image=oriented(volume.image, "LPS"))


def mask_on_scan(image: sitk.Image, scan: HeadCT, label: str | None = None) -> Mask:
    """The hematoma in a mask on any grid, brought onto the scan's grid.

    If there are several labels, ``label`` names the hematoma; probabilities count above 0.5. A mask on the
    scan's own grid, in any axis order, is copied voxel for voxel; any other is resampled so that its volume
    is preserved.

    Raises:
        InputError: the mask is empty, not three-dimensional, or does not belong to this scan; or ``label`` does
            not say which of its labels is the hematoma.
    """
    mask = hematoma_in(image, label)
    _check_mask_place(mask, scan.grid)
    stored = _as_stored(mask, scan.grid)
    if stored is not None:
        return stored
    on_scan = Mask.on(scan.grid, shape_on(mask.image, scan.grid))
    if on_scan.is_empty:
        raise InputError("The mask is smaller than the scan's voxels. Draw it on the scan itself.")
    return on_scan


def _read(path: Path, label: str | None) -> Volume:
    """The hematoma in a mask file, as 0 and 1; it may be empty."""
    if is_dicom_mask(path):
        return Volume(read_dicom_segmentation(path, label).image)
    volume = read_volume(path, "mask")
    return replace(volume, image=hematoma_in(volume.image, label).image)


def _as_stored(mask: Mask, grid: Grid) -> Mask | None:
    """The mask on ``grid``, voxel for voxel, if it is already there in any axis order; else None."""
    if is_sheared(mask.image):
        return None
    upright = Mask(oriented(squared(mask.image), "LPS"))
    return Mask.on(grid, upright.voxels) if upright.grid.is_same(grid) else None


def _check_mask_place(mask: Mask, grid: Grid) -> None:
    """Refuse a mask that is empty, or that has more than a tenth of its voxels outside the scan's box."""
    inside_mask = np.argwhere(mask.voxels)[:, ::-1]
    if len(inside_mask) == 0:
        raise InputError("The mask is empty. Draw the hematoma, or leave the mask out.")
    own = mask.grid
    points = own.axes @ inside_mask.T + np.array(own.origin)[:, None]
    indices = np.linalg.solve(grid.axes, points - np.array(grid.origin)[:, None])
    last = np.array(grid.size)[:, None] - 0.5
    outside = ((indices < -0.5) | (indices > last)).any(axis=0)
    if outside.mean() > 0.1:
        raise InputError(
            f"The mask does not belong to this scan: {outside.mean():.0%} of it lies outside. "
            "Give the mask that was drawn on this scan."
        )
