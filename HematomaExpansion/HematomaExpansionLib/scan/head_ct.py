"""Reading and checking a non-contrast head CT.

Whatever the file format, a scan ends up as a ``HeadCT``: Hounsfield units on a regular grid with
orthogonal axes, at its true position in the patient. Gantry tilt and uneven slice spacing are corrected
here, once, so no later step needs to know about them. Anything that would make a prediction
meaningless is refused with an ``InputError`` that says what is wrong and what to do.

Coordinates are LPS millimeters, arrays are (z, y, x), intensities are HU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..errors import InputError
from .dicom.files import files_below, is_dicom
from .dicom.series import MIN_SLICES, read_dicom_series
from .grid import Array, Grid, oriented
from .intensities import AIR_HU
from .mask import Mask
from .resampling import average_onto
from .shapes import largest_component
from .straight_grid import straightened
from .volume import check_size, scalar_volume
from .volume_files import read_volume, stored_sha256, volume_stem

MIN_EXTENT_MM = 60.0
_MAX_LABELS = 10
_SPACING_RANGE_MM = (0.1, 15.0)


@dataclass(frozen=True)
class HeadCT:
    """A checked head CT.

    Attributes:
        image: float32 HU on a regular orthogonal grid in LPS mm. Its axes are the stored ones, permuted and
            flipped to be nearest to left, posterior, superior, so array axis 0 points up.
        stored_orientation: three-letter DICOM code of the scan's stored axis order.
        resampled: whether the scan was resampled because its voxels were not on a regular orthogonal grid.
        warnings: plain sentences for the user.
        sha256: of the file, or of the files in the folder, that the scan was read from; None if there is none.
        is_position_certain: whether the file states unambiguously where in the patient the scan lies.
        dicom_files: the files of its DICOM series; empty if it comes from elsewhere.
    """

    image: sitk.Image
    stored_orientation: str = "LPS"
    resampled: bool = False
    warnings: tuple[str, ...] = ()
    sha256: str | None = None
    is_position_certain: bool = True
    dicom_files: tuple[Path, ...] = ()

    @property
    def grid(self) -> Grid:
        """The grid of ``image``."""
        return Grid.of(self.image)

    def restore(self, image: sitk.Image) -> sitk.Image:
        """``image``, which is on this scan's grid, in the stored axis order; voxel values are unchanged.

        Vector components stay in LPS mm, whatever the axis order.
        """
        return oriented(image, self.stored_orientation)

    def restore_mask(self, mask: Mask) -> Mask:
        """The same for a mask."""
        return Mask(self.restore(mask.image))


def read_head_ct(path: str | Path, *, subfolders: bool = True) -> HeadCT:
    """The scan in a DICOM folder or in a NIfTI, NRRD, MHA or MHD file.

    A folder is searched with or without its subfolders; files that are not DICOM are skipped.

    Raises:
        InputError: the scan cannot be read, or is not a single non-contrast head CT.
    """
    path = Path(path)
    if path.is_dir():
        files = files_below(path, subfolders)
        _check_no_image_files(files)
        scan = _from_dicom(files)
    elif path.is_file() and is_dicom(path):
        scan = _from_dicom([path])
    else:
        volume = read_volume(path, "scan")
        scan = replace(
            head_ct_from_image(volume.image, volume.notes), is_position_certain=volume.is_position_certain
        )
    return replace(scan, sha256=stored_sha256(path, subfolders))


def head_ct_from_image(image: sitk.Image, warnings: Sequence[str] = ()) -> HeadCT:
    """The scan in ``image``: HU on any grid in LPS mm, even oblique, flipped, left-handed or sheared.

    ``warnings`` from the caller come first among the result's warnings.

    Raises:
        InputError: the image is not a single non-contrast head CT.
    """
    image = scalar_volume(image, "scan")
    _check_grid(Grid.of(image))
    values = sitk.GetArrayViewFromImage(image)
    _check_values(values)
    image = sitk.Maximum(sitk.Cast(image, sitk.sitkFloat32), AIR_HU)
    straight, sentence = straightened(image, AIR_HU)
    notes = (*warnings, sentence) if sentence else tuple(warnings)
    return _checked(straight, resampled=bool(sentence), warnings=notes)


def _check_no_image_files(files: Sequence[Path]) -> None:
    """Refuse a folder that holds scans in other formats instead of a DICOM series."""
    others = sum(volume_stem(file) is not None for file in files)
    if others and not any(is_dicom(file) for file in files):
        raise InputError(
            f"The folder holds no DICOM images but {others} NIfTI, NRRD, MHA or MHD file{'s' * (others > 1)}. "
            "Give one of these; `hematoma batch` takes them all."
        )


def _from_dicom(files: Sequence[Path]) -> HeadCT:
    scan = read_dicom_series(files)
    _check_values(sitk.GetArrayViewFromImage(scan.image))
    checked = _checked(scan.image, resampled=scan.resampled, warnings=scan.warnings)
    return replace(checked, dicom_files=tuple(scan.files))


# --- checks -------------------------------------------------------------------------------------------


def _checked(image: sitk.Image, *, resampled: bool, warnings: Sequence[str]) -> HeadCT:
    """A ``HeadCT`` from an image on an orthogonal grid, after the checks that need the voxels."""
    grid = Grid.of(image)
    _check_grid(grid)
    stored = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(grid.direction)
    upright = oriented(image, "LPS")
    extent = Grid.of(upright).size[2] * Grid.of(upright).spacing[2]
    if extent < MIN_EXTENT_MM:
        raise InputError(
            f"The scan covers only {extent:.0f} mm from bottom to top, too little of a head. "
            "Choose the series that covers the whole brain."
        )
    _check_head(upright)
    return HeadCT(upright, stored, resampled, tuple(warnings))


def _check_grid(grid: Grid) -> None:
    check_size(grid.size)
    low, high = _SPACING_RANGE_MM
    if not all(math.isfinite(s) and low <= s <= high for s in grid.spacing):
        sizes = " × ".join(f"{s:g}" for s in grid.spacing)
        raise InputError(
            f"The scan's voxel size of {sizes} mm is not possible for a head CT. Export the scan again."
        )
    if min(grid.size) < MIN_SLICES:
        raise InputError(
            f"The scan has only {min(grid.size)} slices; at least {MIN_SLICES} are needed. "
            "Choose the series that covers the whole brain."
        )
    if not np.isfinite(np.array([*grid.origin, *grid.direction])).all() or grid.voxel_volume_ml <= 0:
        raise InputError("The scan's position in space is not readable. Export the scan again.")


def _check_values(values: Array) -> None:
    """Refuse anything that cannot be a CT in HU: invalid numbers, windowed pictures, MR values."""
    if not np.isfinite(values).all():
        raise InputError("The scan holds invalid numbers (NaN or infinity). Export it again from the source.")
    lowest, highest = float(values.min()), float(values.max())
    if lowest == highest:
        raise InputError("The scan is blank: all its voxels are equal. Choose another series.")
    if lowest >= 0 and highest <= 255:
        if len(np.unique(values)) <= _MAX_LABELS:
            raise InputError("The scan has only a few distinct values, like a mask. Give the CT itself.")
        raise InputError(
            "The scan holds gray values from 0 to 255, an already windowed picture, not Hounsfield units. "
            "Export the original CT series."
        )
    air = float(np.mean(values < -800))
    soft = float(np.mean((values > -20) & (values < 100)))
    if air < 0.01 or soft < 0.01:
        raise InputError(
            "The scan's values are not Hounsfield units (no air near -1000 or no soft tissue near 40), "
            "so it is not a CT or its scale was changed. Export the original CT series."
        )


def _check_head(image: sitk.Image) -> None:
    """Refuse what is clearly not a head; ``brain.extract_brain`` later looks for the skull itself."""
    coarse = Grid.of(image).with_spacing((4.0, 4.0, 4.0))
    hu = average_onto(image, coarse, outside=AIR_HU)
    # The opening removes the thin shells of the table and head holder.
    body = largest_component(ndimage.binary_opening(hu > -300))
    if not body.any():
        raise InputError("There is no head in view, only air. Choose the series of the head.")
    areas = np.count_nonzero(body, axis=(1, 2)) * 0.16  # in cm²
    occupied = areas[areas > 10]
    liters = np.count_nonzero(body) * coarse.voxel_volume_ml / 1000
    bone_ml = np.count_nonzero(body & (hu > 200)) * coarse.voxel_volume_ml
    if liters < 0.5 or occupied.size * 4 < 0.75 * MIN_EXTENT_MM:
        raise InputError("There is no head in view: the body is too small. Choose the series of the head.")
    if np.median(occupied) > 500:
        raise InputError("The body in view is too large for a head. Choose the series of the head.")
    if bone_ml < 30:
        raise InputError("There is no skull in view. Choose the series of the head.")
