"""A DICOM series as one image in true geometry: gantry tilt and uneven slice distances are resolved here.

pydicom reads headers and pixels; SimpleITK (GDCM) those pixels whose compression pydicom alone cannot read.
Coordinates are LPS millimeters, arrays are (z, y, x), intensities are HU.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from scipy import ndimage

from .errors import InputError
from .grid import Array, Grid, image_on
from .volume import check_size
from .volume_files import quiet_libraries

AIR_HU = -1024.0
MIN_SLICES = 8
_MAX_FILES = 20_000
_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
_NOT_IMAGES = {"SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "PR", "SR", "KO", "REG", "DOC"}

# Headers round positions to a tenth of a millimeter or so; below these shares nothing needs resampling.
_DRIFT_TOLERANCE = 0.25  # of a pixel, in plane
_SPACING_TOLERANCE = 0.05  # of the slice distance

_NO_CONTRAST = {"", "0", "-", "N", "NO", "NONE", "NOT APPLIED", "NO CONTRAST", "WITHOUT", "W/O", "NATIVE"}
_ANGIOGRAPHY = re.compile(r"\bCTA\b|ANGIO", re.IGNORECASE)

_ONE_SERIES = "Give a folder that holds the files of one head CT series only."


@dataclass(frozen=True)
class DicomScan:
    """A series as float32 HU on a regular orthogonal grid, whether that took resampling, what to tell of it."""

    image: sitk.Image
    resampled: bool
    warnings: list[str]


def files_below(folder: Path, subfolders: bool = True) -> list[Path]:
    """Every file in a folder and its subfolders (or in itself alone), hidden ones left out."""
    files: list[Path] = []
    for path in sorted(folder.glob("**/*" if subfolders else "*")):
        if path.is_file() and not path.name.startswith("."):
            files.append(path)
        if len(files) > _MAX_FILES:
            raise InputError(f"The folder holds more than {_MAX_FILES} files. {_ONE_SERIES}")
    return files


def is_dicom(path: Path) -> bool:
    """Whether a file looks like DICOM from its first bytes or its name."""
    if path.name.upper() == "DICOMDIR":
        return False
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError:
        raise InputError("A file of the scan cannot be opened. Check that you may read it.") from None
    # Old exports lack the preamble and begin with the first element of group 0008.
    return head[128:] == b"DICM" or head[:2] == b"\x08\x00" or path.suffix.lower() in _DICOM_SUFFIXES


@dataclass(frozen=True)
class _Slice:
    """What the header of one CT image says; position and axes in LPS mm."""

    path: Path
    header: pydicom.Dataset
    position: Array
    row: Array  # direction in which the column index grows
    column: Array
    spacing: tuple[float, float]  # (x, y)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        return int(self.header.Columns), int(self.header.Rows)


@quiet_libraries()
def read_dicom_series(files: Sequence[Path]) -> DicomScan:
    """The one CT series that ``files`` hold; those which are no DICOM images are passed over.

    Raises:
        InputError: there is none or more than one, it is no plain CT, or slices are missing or doubled.
    """
    headers = [(path, header) for path in files if is_dicom(path) and (header := _header(path)) is not None]
    if not headers:
        raise InputError("The folder holds no DICOM images. Give the folder of the head CT series.")
    _check_series([header for _, header in headers])
    slices = [_slice(path, header) for path, header in headers]
    first = slices[0]
    if any(not _fits(s, first) for s in slices):
        raise InputError(
            f"The folder holds images of different orientation or size, so more than one scan. {_ONE_SERIES}"
        )
    if len(slices) < MIN_SLICES:
        raise InputError(
            f"The scan has only {len(slices)} slices; at least {MIN_SLICES} are needed. "
            "Choose the series that covers the whole brain."
        )
    check_size((*first.size, len(slices)))
    return _stacked(slices)


def _header(path: Path) -> pydicom.Dataset | None:
    """The header of a DICOM image without its pixels; None for a DICOM object that is no image."""
    try:
        with quiet_libraries():
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            if header.get("Modality") in _NOT_IMAGES or "Rows" not in header:
                if "SOPClassUID" not in header:
                    raise ValueError("no DICOM object")
                return None
            return header
    except Exception:
        raise InputError("A DICOM file is damaged or cut off. Export the series again.") from None


def _check_series(headers: Sequence[pydicom.Dataset]) -> None:
    """Refuse what the headers alone give away."""
    series = {str(h.get("SeriesInstanceUID", "")) for h in headers}
    if len(series) > 1:
        raise InputError(f"The folder holds {len(series)} series. {_ONE_SERIES}")
    first = headers[0]
    modality = re.sub(r"\W", "", str(first.get("Modality", "")))[:8] or "unknown"
    if any(h.get("Modality") != "CT" for h in headers):
        raise InputError(f"The scan is not a CT (its modality is {modality}). Give a head CT.")
    if any(int(h.get("NumberOfFrames") or 1) > 1 for h in headers):
        raise InputError(
            "The scan is stored as a multi-frame (enhanced) DICOM file, which is not supported. "
            "Export it as single-frame CT images, or as NIfTI."
        )
    if any(int(h.get("SamplesPerPixel") or 1) > 1 or int(h.get("BitsAllocated") or 16) <= 8 for h in headers):
        raise InputError(
            "The scan holds 8-bit pictures that are already windowed, not Hounsfield units. "
            "Export the original CT series."
        )
    image_types = {str(word).upper() for h in headers for word in (h.get("ImageType") or ())}
    if "LOCALIZER" in image_types:
        raise InputError(f"The folder holds a localizer (scout view). {_ONE_SERIES}")
    agents = {str(h.get("ContrastBolusAgent") or "").strip().upper() for h in headers}
    description = str(first.get("SeriesDescription") or "")
    if agents - _NO_CONTRAST or any(map(_ANGIOGRAPHY.search, (*image_types, description))):
        raise InputError("The scan is contrast-enhanced. Give the non-contrast head CT.")


def _slice(path: Path, header: pydicom.Dataset) -> _Slice:
    try:
        position = np.array([float(v) for v in header.ImagePositionPatient])
        axes = np.array([float(v) for v in header.ImageOrientationPatient]).reshape(2, 3)
        y, x = (float(v) for v in header.PixelSpacing)
        row = axes[0] / np.linalg.norm(axes[0])
        if abs(row @ axes[1]) > 0.01 or not np.isfinite([*position, *axes.ravel(), x, y]).all():
            raise ValueError("axes are not orthogonal")
    except (AttributeError, TypeError, ValueError, ZeroDivisionError):
        raise InputError(
            "The DICOM files do not say where their slices lie (position, orientation or pixel size). "
            "Export the original series."
        ) from None
    if min(x, y) <= 0:
        raise InputError("The scan's pixel size is zero or negative. Export the original series.")
    column = axes[1] - (row @ axes[1]) * row  # headers round: make the right angle exact
    return _Slice(path, header, position, row, column / np.linalg.norm(column), (x, y))


def _fits(one: _Slice, other: _Slice) -> bool:
    return (
        one.size == other.size
        and np.allclose(one.spacing, other.spacing, rtol=1e-3)
        and np.allclose(one.row, other.row, atol=1e-3)
        and np.allclose(one.column, other.column, atol=1e-3)
    )


def _stacked(slices: Sequence[_Slice]) -> DicomScan:
    """The scan made of slices of one orientation and size, in whatever order."""
    first = slices[0]
    direction = np.stack([first.row, first.column, np.cross(first.row, first.column)], axis=1)
    slices = sorted(slices, key=lambda s: float(s.position @ direction[:, 2]))
    # Columns: offset along row, column and normal from the lowest slice, in mm.
    offsets = np.array([s.position - slices[0].position for s in slices]) @ direction
    gaps = np.diff(offsets[:, 2])
    if (gaps < 0.02).any():
        raise InputError(
            f"The folder holds two slices at one position, {int((gaps < 0.02).sum())} times: "
            f"slices are doubled or two scans are mixed. {_ONE_SERIES}"
        )
    _check_missing(gaps, [float(s.header.get("SliceThickness") or 0) for s in slices])

    notes = _stack_warnings(offsets, first)
    tilted, uneven = _is_tilted(offsets, first.spacing), _is_uneven(gaps)
    if tilted or uneven:
        image = _straightened(slices, offsets, direction)
    else:
        stack = np.stack([_hounsfield(s) for s in slices])
        grid = _grid_at(slices[0].position, first.size, len(slices), first.spacing, gaps.mean(), direction)
        image = image_on(grid, stack)
    return DicomScan(image, tilted or uneven, notes)


def _grid_at(
    origin: Array,
    size: tuple[int, int],
    count: int,
    spacing: tuple[float, float],
    distance: float,
    direction: Array,
) -> Grid:
    return Grid(
        (*size, count),
        (*spacing, float(distance)),
        (float(origin[0]), float(origin[1]), float(origin[2])),
        tuple(float(v) for v in direction.ravel()),
    )


def _check_missing(gaps: Array, thickness: Sequence[float]) -> None:
    """Refuse a stack in which slices are missing between slices of an otherwise constant distance.

    Sequential protocols change the distance once, often to a multiple: those wide gaps reach to the end
    of the stack, or are filled by thicker slices, and are not missing slices.
    """
    usual = float(np.median(gaps))
    ratio = gaps / usual
    normal = np.abs(ratio - 1) < _SPACING_TOLERANCE
    wide = (np.round(ratio) >= 2) & (np.abs(ratio - np.round(ratio)) < 2 * _SPACING_TOLERANCE)
    if not wide.any() or not (normal | wide).all():
        return
    between = np.flatnonzero(normal)
    if between.size == 0:
        return
    mean_thickness = (np.array(thickness[1:]) + np.array(thickness[:-1])) / 2
    filled = (mean_thickness > 0) & (gaps < 1.25 * mean_thickness)
    enclosed = np.arange(len(gaps))
    missing = wide & ~filled & (enclosed > between[0]) & (enclosed < between[-1])
    if missing.any():
        count = int(np.round(ratio[missing] - 1).sum())
        raise InputError(
            f"{count} slice{' is' if count == 1 else 's are'} missing in the middle of the scan. "
            "Export the whole series again."
        )


def _is_tilted(offsets: Array, spacing: tuple[float, float]) -> bool:
    return bool((np.abs(offsets[:, :2]) > _DRIFT_TOLERANCE * np.array(spacing)).any())


def _is_uneven(gaps: Array) -> bool:
    regular = np.linspace(0, gaps.sum(), len(gaps) + 1)[1:]
    return bool(np.abs(np.cumsum(gaps) - regular).max() > _SPACING_TOLERANCE * gaps.mean())


def _slice_distance(gaps: Array) -> float:
    """The distance in mm that does not coarsen the densest well represented part of a stack."""
    return float(np.quantile(gaps, 0.25))


def _stack_warnings(offsets: Array, first: _Slice) -> list[str]:
    notes = []
    gaps = np.diff(offsets[:, 2])
    if _is_tilted(offsets, first.spacing):
        drift = np.linalg.norm(offsets[-1, :2])
        angle = math.degrees(math.atan2(float(drift), float(offsets[-1, 2])))
        notes.append(
            f"The scan was acquired with a gantry tilt of {angle:.1f} degrees; "
            "it was resampled onto a straight grid."
        )
    elif abs(float(first.header.get("GantryDetectorTilt") or 0)) > 1:
        notes.append(
            "The scanner reports a gantry tilt that the slice positions do not show; "
            "the positions were taken as true."
        )
    if _is_uneven(gaps):
        notes.append(
            f"The slices are unevenly spaced ({gaps.min():.1f} to {gaps.max():.1f} mm); "
            f"they were resampled to {_slice_distance(gaps):.1f} mm."
        )
    if gaps.max() > 7.5:
        notes.append(f"The slices are up to {gaps.max():.1f} mm apart; volumes are less certain.")
    return notes


def _straightened(slices: Sequence[_Slice], offsets: Array, direction: Array) -> sitk.Image:
    """The slices on a regular orthogonal grid, each at its true place; what none covers is air."""
    spacing, (columns, rows) = slices[0].spacing, slices[0].size
    shifts = offsets[:, :2] / np.array(spacing)  # in pixels
    low = np.floor(shifts.min(axis=0) + 1e-3).astype(int)
    high = np.ceil(shifts.max(axis=0) - 1e-3).astype(int)
    canvas = (rows + int(high[1] - low[1]), columns + int(high[0] - low[0]))

    def placed(index: int) -> Array:
        plane = np.full(canvas, AIR_HU, np.float32)
        plane[:rows, :columns] = _hounsfield(slices[index])
        x, y = shifts[index] - low
        return ndimage.shift(plane, (y, x), order=1, mode="constant", cval=AIR_HU)

    # Neighboring planes share their slices.
    cached: Callable[[int], Array] = lru_cache(maxsize=2)(placed)
    along = offsets[:, 2]
    distance = _slice_distance(np.diff(along))
    count = round(along[-1] / distance) + 1
    check_size((canvas[1], canvas[0], count))
    stack = np.empty((count, *canvas), np.float32)
    for k in range(count):
        i = int(np.clip(np.searchsorted(along, k * distance, side="right") - 1, 0, len(along) - 2))
        weight = float(np.clip((k * distance - along[i]) / (along[i + 1] - along[i]), 0, 1))
        stack[k] = (1 - weight) * cached(i) + weight * cached(i + 1)
    origin = slices[0].position + direction[:, :2] @ (low * np.array(spacing))
    return image_on(_grid_at(origin, (canvas[1], canvas[0]), count, spacing, distance, direction), stack)


def _hounsfield(one: _Slice) -> Array:
    """The slice's pixels (row, column) as float32 HU, with padding and anything below air set to air."""
    slope = float(one.header.get("RescaleSlope", 1) or 1)
    intercept = float(one.header.get("RescaleIntercept", 0) or 0)
    hu = _pixels(one, slope, intercept)
    if hu.shape != (one.size[1], one.size[0]):
        raise InputError("A DICOM file is damaged or cut off. Export the series again.")
    padding = _padding_value(one.header)
    if padding is not None:
        value = padding * slope + intercept
        # Some headers name 0 as padding although the pixels use it for water.
        if not -500 < value < 3000:
            hu[np.isclose(hu, value, atol=0.01)] = AIR_HU
    return np.maximum(hu, np.float32(AIR_HU))


def _pixels(one: _Slice, slope: float, intercept: float) -> Array:
    with quiet_libraries():
        try:
            stored = pydicom.dcmread(one.path, force=True).pixel_array
            return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
        except Exception:  # compressed in a way that pydicom alone cannot decode, or damaged
            try:
                if not one.header.file_meta.TransferSyntaxUID.is_compressed:  # GDCM would make up what is missing
                    raise
                # GDCM applies slope and intercept itself.
                image = sitk.ReadImage(str(one.path), sitk.sitkFloat32, imageIO="GDCMImageIO")
                return sitk.GetArrayFromImage(image).reshape(image.GetSize()[1::-1])
            except Exception:
                raise InputError("A DICOM file is damaged or cut off. Export the series again.") from None


def _padding_value(header: pydicom.Dataset) -> int | None:
    value: Any = header.get("PixelPaddingValue")
    if not isinstance(value, int):
        return None
    bits = int(header.get("BitsAllocated") or 16)
    # Scanners write the sign of this element inconsistently.
    if header.get("PixelRepresentation") == 1:
        return value - (1 << bits) if value >= 1 << (bits - 1) else value
    return value + (1 << bits) if value < 0 else value
