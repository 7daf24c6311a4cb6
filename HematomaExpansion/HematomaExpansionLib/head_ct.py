"""Reading and checking a non-contrast head CT, and a hematoma mask drawn on it.

Whatever the file format, a scan ends up as a ``HeadCT``: Hounsfield units on a regular grid with
orthogonal axes, at its true place in the patient. A tilted gantry or unevenly spaced slices are resolved
here, once, so that no later step has to know of them. Anything that would make a prediction
meaningless is refused with an ``InputError`` whose sentence says what is wrong and what to do.

Coordinates are LPS millimeters, arrays are (z, y, x), intensities are HU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from .components import largest_component
from .dicom_series import AIR_HU, MIN_SLICES, files_below, is_dicom, read_dicom_series
from .errors import InputError
from .grid import Array, Grid, average_onto, image_on, resample, shape_on
from .volume_files import check_size, read_volume

MIN_EXTENT_MM = 60.0
_SPACING_RANGE_MM = (0.1, 15.0)

_SHEAR_TOLERANCE = 1e-3  # cosine between two axes


@dataclass(frozen=True)
class HeadCT:
    """A checked head CT.

    Attributes:
        image: float32 HU on a regular orthogonal grid in LPS mm; its axes are, among the permutations and
            flips of the stored ones, nearest to left, posterior, superior, so array axis 0 goes upward.
        stored_orientation: three-letter DICOM code of the axis order in which the scan is stored.
        resampled: whether the scan's own voxels were not on a regular orthogonal grid.
        warnings: plain sentences for the user.
    """

    image: sitk.Image
    stored_orientation: str = "LPS"
    resampled: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def grid(self) -> Grid:
        """The grid of ``image``."""
        return Grid.of(self.image)

    def restore(self, image: sitk.Image) -> sitk.Image:
        """``image``, which lies on this scan's grid, in the stored axis order; voxels are not touched.

        Vectors keep their components, which are in LPS mm whatever the axis order.
        """
        return sitk.DICOMOrient(image, self.stored_orientation)


def read_head_ct(path: str | Path, *, subfolders: bool = True) -> HeadCT:
    """The scan in a DICOM folder or in a NIfTI, NRRD, MHA or MHD file.

    A folder is searched with its subfolders, or alone; files that are not DICOM are passed over.

    Raises:
        InputError: the scan cannot be read, or is not one non-contrast CT of a head.
    """
    path = Path(path)
    if path.is_dir():
        return _from_dicom(files_below(path, subfolders))
    if path.is_file() and is_dicom(path):
        return _from_dicom([path])
    return head_ct_from_image(read_volume(path, "scan"))


def head_ct_from_image(image: sitk.Image, warnings: Sequence[str] = ()) -> HeadCT:
    """The scan in ``image``: HU on any grid in LPS mm, also oblique, flipped, left-handed or sheared.

    ``warnings`` are what the caller already knows; they come first in the result's.

    Raises:
        InputError: the image is not one non-contrast CT of a head.
    """
    image = _three_dimensional(image, "scan")
    if not _is_scalar(image):
        raise InputError("The scan holds colors, not Hounsfield units. Export the original CT series.")
    _check_grid(Grid.of(image))
    values = sitk.GetArrayViewFromImage(image)
    _check_values(values)
    image = sitk.Maximum(sitk.Cast(image, sitk.sitkFloat32), AIR_HU)
    straight, sentence = _unsheared(image)
    notes = (*warnings, sentence) if sentence else tuple(warnings)
    return _checked(straight, resampled=bool(sentence), warnings=notes)


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
    if not _is_sheared(mask):
        oriented = sitk.DICOMOrient(mask, "LPS")
        if Grid.of(oriented).is_same(scan.grid):
            return image_on(scan.grid, sitk.GetArrayFromImage(oriented))
    inside = shape_on(mask, scan.grid)
    if not inside.any():
        raise InputError("The mask is smaller than the scan's voxels. Draw it on the scan itself.")
    return image_on(scan.grid, inside.astype(np.uint8))


def _from_dicom(files: Sequence[Path]) -> HeadCT:
    scan = read_dicom_series(files)
    _check_values(sitk.GetArrayViewFromImage(scan.image))
    return _checked(scan.image, resampled=scan.resampled, warnings=scan.warnings)


# --- checks -------------------------------------------------------------------------------------------


def _checked(image: sitk.Image, *, resampled: bool, warnings: Sequence[str]) -> HeadCT:
    """The ``HeadCT`` of an image on an orthogonal grid, after the checks that need the voxels."""
    grid = Grid.of(image)
    _check_grid(grid)
    stored = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(grid.direction)
    oriented = sitk.DICOMOrient(image, "LPS")
    extent = Grid.of(oriented).size[2] * Grid.of(oriented).spacing[2]
    if extent < MIN_EXTENT_MM:
        raise InputError(
            f"The scan covers only {extent:.0f} mm from bottom to top, too little of a head. "
            "Choose the series that covers the whole brain."
        )
    _check_head(oriented)
    return HeadCT(oriented, stored, resampled, tuple(warnings))


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
    """Refuse what cannot be a CT in HU: invalid numbers, windowed pictures, MR values."""
    if not np.isfinite(values).all():
        raise InputError("The scan holds invalid numbers (NaN or infinity). Export it again from the source.")
    lowest, highest = float(values.min()), float(values.max())
    if lowest == highest:
        raise InputError("The scan is blank: all its voxels are equal. Choose another series.")
    if lowest >= 0 and highest <= 255:
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
    """Refuse what is plainly no head; ``brain.extract_brain`` later looks for the skull itself."""
    coarse = Grid.of(image).with_spacing((4.0, 4.0, 4.0))
    hu = average_onto(image, coarse, outside=AIR_HU)
    # The opening cuts off the thin shells of table and head holder.
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
    image = _three_dimensional(image, "mask")
    if not _is_scalar(image):
        raise InputError("The mask has several values per voxel. Export it as one label map.")
    return sitk.Cast(sitk.Cast(image, sitk.sitkFloat32) > 0.5, sitk.sitkUInt8)


def _is_scalar(image: sitk.Image) -> bool:
    """Whether each voxel holds one real number."""
    return image.GetNumberOfComponentsPerPixel() == 1 and "complex" not in image.GetPixelIDTypeAsString()


def _three_dimensional(image: sitk.Image, what: str) -> sitk.Image:
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        return image[:, :, :, 0]
    if image.GetDimension() != 3:
        raise InputError(
            f"The {what} has {image.GetDimension()} dimensions; one three-dimensional volume is needed. "
            "Export a single volume."
        )
    return image


# --- geometry -----------------------------------------------------------------------------------------


def _is_sheared(image: sitk.Image) -> bool:
    direction = np.array(image.GetDirection()).reshape(3, 3)
    return bool(np.abs(direction.T @ direction - np.eye(3)).max() > _SHEAR_TOLERANCE)


def _unsheared(image: sitk.Image) -> tuple[sitk.Image, str]:
    """``image`` on an orthogonal grid around its box, and a sentence if that took resampling.

    The two axes nearest to a right angle, among equals those of the finest voxels, are kept: the image
    plane. The third becomes perpendicular to them.
    """
    if not _is_sheared(image):
        return image, ""
    grid = Grid.of(image)
    steps = grid.axes / np.linalg.norm(grid.axes, axis=0)

    def rank(pair: tuple[int, int]) -> tuple[float, float]:
        i, j = pair
        return round(abs(float(steps[:, i] @ steps[:, j])), 3), grid.spacing[i] * grid.spacing[j]

    i, j = min(((0, 1), (0, 2), (1, 2)), key=rank)
    k = 3 - i - j
    direction = np.zeros((3, 3))
    direction[:, i] = steps[:, i]
    second = steps[:, j] - (steps[:, j] @ steps[:, i]) * steps[:, i]
    direction[:, j] = second / np.linalg.norm(second)
    normal = np.cross(direction[:, i], direction[:, j])
    direction[:, k] = normal * np.sign(normal @ steps[:, k])

    spacing = np.einsum("ij,ij->j", direction, grid.axes)  # each old step along its new axis
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in grid.size])).reshape(3, -1)
    extents = direction.T @ (grid.axes @ corners)  # mm along the new axes, from the old origin
    size = np.ceil((extents.max(axis=1) - extents.min(axis=1)) / spacing - 1e-3).astype(int) + 1
    origin = np.array(grid.origin) + direction @ extents.min(axis=1)
    straight = Grid(
        (int(size[0]), int(size[1]), int(size[2])),
        (float(spacing[0]), float(spacing[1]), float(spacing[2])),
        (float(origin[0]), float(origin[1]), float(origin[2])),
        tuple(float(v) for v in direction.ravel()),
    )
    check_size(straight.size)
    angle = math.degrees(math.acos(min(1.0, float(direction[:, k] @ steps[:, k]))))
    sentence = f"The scan's grid was tilted by {angle:.1f} degrees; it was resampled onto a straight grid."
    return resample(image, straight, outside=AIR_HU), sentence
