"""The pixels of a CT slice in HU.

pydicom decodes what it can; SimpleITK (GDCM) reads the compression formats that pydicom alone cannot.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk

from ...errors import InputError
from ...files.names import library_name
from ..grid import Array
from ..intensities import AIR_HU
from ..volume_files import quiet_libraries
from .files import dicom_object, number, unreadable, values

_STANDARD_ERROR = 2


def hounsfield(path: Path, header: pydicom.Dataset) -> Array:
    """A slice's pixels (row, column) as float32 HU, with padding and anything below air set to air.

    Raises:
        InputError: the pixels cannot be read.
    """
    slope, intercept = number(header, "RescaleSlope"), number(header, "RescaleIntercept")
    slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    hu = _pixels(path, header, slope, intercept)
    if hu.shape != (number(header, "Rows"), number(header, "Columns")):
        raise InputError("A DICOM file is damaged or cut off. Export the series again.")
    padding = _padding_value(header)
    if padding is not None:
        value = padding * slope + intercept
        # Some headers give 0 as padding even though the pixels use it for water.
        if not -500 < value < 3000:
            hu[np.isclose(hu, value, atol=0.01)] = AIR_HU
    return np.maximum(hu, np.float32(AIR_HU))


def _pixels(path: Path, header: pydicom.Dataset, slope: float, intercept: float) -> Array:
    is_compressed = header.file_meta.TransferSyntaxUID.is_compressed
    # The decoders for compressed pixels are C libraries that write straight to the terminal.
    with quiet_libraries(), _muted_standard_error(is_compressed):
        try:
            stored = dicom_object(path).pixel_array
            return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
        except Exception as error:
            if not is_compressed:  # GDCM would make up what is missing
                raise unreadable(error) from None
        try:
            # GDCM applies slope and intercept itself.
            image = sitk.ReadImage(library_name(path), sitk.sitkFloat32, imageIO="GDCMImageIO")
            return sitk.GetArrayFromImage(image).reshape(image.GetSize()[1::-1])
        except Exception as error:
            raise unreadable(error) from None


def _padding_value(header: pydicom.Dataset) -> int | None:
    value = next(iter(values(header, "PixelPaddingValue")), None)
    if not isinstance(value, int):
        return None
    bits = int(number(header, "BitsAllocated") or 16)
    # Scanners write the sign of this element inconsistently.
    if number(header, "PixelRepresentation") == 1:
        return value - (1 << bits) if value >= 1 << (bits - 1) else value
    return value + (1 << bits) if value < 0 else value


@contextmanager
def _muted_standard_error(is_needed: bool) -> Iterator[None]:
    """Let nothing reach the process's standard error, no matter what writes to it."""
    try:
        kept = os.dup(_STANDARD_ERROR) if is_needed else None
    except OSError:  # there is none, as in a windowed application
        kept = None
    if kept is None:
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STANDARD_ERROR)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(kept, _STANDARD_ERROR)
        os.close(kept)
