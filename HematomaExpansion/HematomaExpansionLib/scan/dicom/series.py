"""A DICOM series as one image in true geometry: gantry tilt and uneven slice spacing are corrected here.

Coordinates are LPS millimeters, arrays are (z, y, x), intensities are HU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from scipy import ndimage

from ...errors import InputError
from ..grid import Array, Grid, image_on
from ..intensities import AIR_HU
from ..volume import check_size
from ..volume_files import quiet_libraries
from .checks import check_headers
from .choice import choose_ct_series
from .files import ONE_SERIES, number, number_or_none, numbers
from .gaps import Stack, check_complete, check_passes
from .pixels import hounsfield
from .planes import check_planes

MIN_SLICES = 8

# Headers round positions to a tenth of a millimeter or so; below these fractions, nothing needs resampling.
_DRIFT_TOLERANCE = 0.25  # of a pixel, in plane
_SPACING_TOLERANCE = 0.05  # of the slice distance
_SKEW_TOLERANCE = 0.01  # cosine between a slice's axes


@dataclass(frozen=True)
class DicomScan:
    """A series as float32 HU on a regular orthogonal grid, and where it comes from.

    ``resampled``: whether its slices were tilted or unevenly spaced; ``warnings``: for the user.
    """

    image: sitk.Image
    resampled: bool
    warnings: list[str]
    files: list[Path]


@dataclass(frozen=True)
class _Slice:
    """What the header of one CT image says; position and axes in LPS mm."""

    path: Path
    header: pydicom.Dataset
    position: Array
    row: Array  # direction in which the column index grows
    column: Array
    spacing: tuple[float, float]  # (x, y)
    size: tuple[int, int]  # columns and rows


@quiet_libraries()
def read_dicom_series(files: Sequence[Path]) -> DicomScan:
    """The one CT series in ``files``; anything else in them is skipped.

    Raises:
        InputError: there is no series or more than one, it is not a plain CT, or slices are missing or doubled.
    """
    series = choose_ct_series(files)
    notes = [*series.notes, *check_headers([image.header for image in series.images])]
    if len(series.images) == 1:
        raise InputError(
            "There is only one slice: a single CT image was given. Give the folder that holds the whole series."
        )
    slices = [_slice(image.path, image.header) for image in series.images]
    first = slices[0]
    if any(not _fits(s, first) for s in slices):
        raise InputError(
            f"The folder holds images of different orientation or size, so more than one scan. {ONE_SERIES}"
        )
    if len(slices) < MIN_SLICES:
        raise InputError(
            f"The scan has only {len(slices)} slices; at least {MIN_SLICES} are needed. "
            "Choose the series that covers the whole brain."
        )
    check_size((*first.size, len(slices)))
    return _stacked(slices, notes)


def _slice(path: Path, header: pydicom.Dataset) -> _Slice:
    place, axes = numbers(header, "ImagePositionPatient"), numbers(header, "ImageOrientationPatient")
    spacing, size = numbers(header, "PixelSpacing"), (number(header, "Columns"), number(header, "Rows"))
    row, column = np.array(axes[:3]), np.array(axes[3:])
    is_known = (len(place), len(axes), len(spacing)) == (3, 6, 2) and row.any() and column.any()
    if not is_known or abs(row @ column) > _SKEW_TOLERANCE * np.linalg.norm(row) * np.linalg.norm(column):
        raise InputError(
            "The DICOM files do not say where their slices lie (position, orientation or pixel size). "
            "Export the original series."
        )
    if min(spacing) <= 0:
        raise InputError("The scan's pixel size is zero or negative. Export the original series.")
    row = row / np.linalg.norm(row)
    column = column - (row @ column) * row  # headers round, so make the right angle exact
    column = column / np.linalg.norm(column)
    columns, rows = (int(count or 0) for count in size)
    return _Slice(path, header, np.array(place), row, column, (spacing[1], spacing[0]), (columns, rows))


def _fits(one: _Slice, other: _Slice) -> bool:
    return (
        one.size == other.size
        and np.allclose(one.spacing, other.spacing, rtol=1e-3)
        and np.allclose(one.row, other.row, atol=1e-3)
        and np.allclose(one.column, other.column, atol=1e-3)
    )


def _stacked(slices: Sequence[_Slice], notes: Sequence[str]) -> DicomScan:
    """The scan made from slices of one orientation and size, in any order; ``notes`` come before its own."""
    first = slices[0]
    direction = np.stack([first.row, first.column, np.cross(first.row, first.column)], axis=1)
    slices = sorted(slices, key=lambda s: float(s.position @ direction[:, 2]))
    # Columns: offset from the lowest slice along row, column and normal, in mm.
    offsets = np.array([s.position - slices[0].position for s in slices]) @ direction
    gaps = np.diff(offsets[:, 2])
    if (gaps < 0.02).any():
        raise InputError(
            f"The folder holds two slices at one position, {int((gaps < 0.02).sum())} times: "
            f"slices are doubled or two scans are mixed. {ONE_SERIES}"
        )
    stack = _stack(slices, gaps)
    check_passes(stack)
    notes = [*notes, *check_complete(stack), *_stack_warnings(offsets, first)]
    planes = [hounsfield(s.path, s.header) for s in slices]
    check_planes(planes, [s.header for s in slices])
    tilted, uneven = _is_tilted(offsets, first.spacing), _is_uneven(gaps)
    if tilted or uneven:
        image = _straightened(slices, planes, offsets, direction)
    else:
        grid = _grid_at(slices[0].position, first.size, len(slices), first.spacing, gaps.mean(), direction)
        image = image_on(grid, np.stack(planes))
    return DicomScan(image, tilted or uneven, notes, [s.path for s in slices])


def _stack(slices: Sequence[_Slice], gaps: Array) -> Stack:
    thickness = np.array([number_or_none(s.header, "SliceThickness") or 0.0 for s in slices])
    numbers = [number_or_none(s.header, "InstanceNumber") for s in slices]
    told = [n for n in numbers if n is not None]
    return Stack(gaps, thickness, np.array(told) if len(told) == len(numbers) else None)


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


def _is_tilted(offsets: Array, spacing: tuple[float, float]) -> bool:
    return bool((np.abs(offsets[:, :2]) > _DRIFT_TOLERANCE * np.array(spacing)).any())


def _is_uneven(gaps: Array) -> bool:
    regular = np.linspace(0, gaps.sum(), len(gaps) + 1)[1:]
    return bool(np.abs(np.cumsum(gaps) - regular).max() > _SPACING_TOLERANCE * gaps.mean())


def _slice_distance(gaps: Array) -> float:
    """A slice distance in mm that does not coarsen the densest well-represented part of a stack."""
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
    elif abs(number_or_none(first.header, "GantryDetectorTilt") or 0) > 1:
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


def _straightened(
    slices: Sequence[_Slice], planes: Sequence[Array], offsets: Array, direction: Array
) -> sitk.Image:
    """The slices on a regular orthogonal grid, each at its true position; the rest is air."""
    spacing, (columns, rows) = slices[0].spacing, slices[0].size
    shifts = offsets[:, :2] / np.array(spacing)  # in pixels
    low = np.floor(shifts.min(axis=0) + 1e-3).astype(int)
    high = np.ceil(shifts.max(axis=0) - 1e-3).astype(int)
    canvas = (rows + int(high[1] - low[1]), columns + int(high[0] - low[0]))

    def placed(index: int) -> Array:
        plane = np.full(canvas, AIR_HU, np.float32)
        plane[:rows, :columns] = planes[index]
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
