"""Finding DICOM files by their content, not their names, and reading them however they were stored."""

from __future__ import annotations

import math
import os
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
from pydicom.filereader import read_partial
from pydicom.multival import MultiValue
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from ...errors import InputError
from ..volume_files import quiet_libraries

ONE_SERIES = "Give a folder that holds the files of one head CT series only."
_MAX_FILES = 20_000
_SUFFIXES = (".dcm", ".dicom", ".ima")
_BEGINNINGS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")
"""First bytes of a file without a preamble: groups 0002 and 0008, and 0008 in the other byte order."""

_BEGINNING_BYTES, _LAST_SOUGHT = 4096, 0x00080060  # SOP class and modality lie within


def files_below(folder: Path, subfolders: bool = True) -> list[Path]:
    """Every file in a folder, with or without its subfolders, except hidden ones.

    Raises:
        InputError: one of the folders cannot be opened, or there are far too many files.
    """

    def refuse(error: OSError) -> None:
        raise InputError("A folder of the scan cannot be opened. Check that you may read it.") from None

    files: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if subfolders and not name.startswith(".")]
        paths = [Path(place, name) for name in names if not name.startswith(".")]
        files += [path for path in paths if path.is_file()]
        if len(files) > _MAX_FILES:
            raise InputError(f"The folder holds more than {_MAX_FILES} files. {ONE_SERIES}")
    return sorted(files)


def is_dicom(path: Path) -> bool:
    """Whether a file holds a DICOM object, with or without the standard preamble; an index (DICOMDIR) is not one.

    Raises:
        InputError: the file cannot be opened.
    """
    if path.name.upper() == "DICOMDIR":
        return False
    try:
        with path.open("rb") as file:
            head = file.read(132)
            if head[128:] == b"DICM":
                return True
            if not head.startswith(_BEGINNINGS):
                return False
            head += file.read(_BEGINNING_BYTES)
    except OSError:
        raise InputError("A file of the scan cannot be opened. Check that you may read it.") from None
    try:
        with quiet_libraries():
            header = read_partial(BytesIO(head), lambda tag, _vr, _length: tag > _LAST_SOUGHT, force=True)
            return "SOPClassUID" in header or "Modality" in header
    except Exception:  # other files start with the same two bytes
        return False


def is_named_dicom(path: Path) -> bool:
    """Whether a file claims to be DICOM by its suffix."""
    return path.suffix.lower() in _SUFFIXES


def may_be_dicom(path: Path) -> bool:
    """Whether a search for scans must not silently skip a file: DICOM, named like it, or impossible to open."""
    try:
        return path.is_file() and (is_named_dicom(path) or is_dicom(path))
    except (InputError, OSError):
        return True


def dicom_header(path: Path) -> pydicom.Dataset:
    """A DICOM file's elements before the pixels.

    Raises:
        InputError: the file cannot be opened, or is damaged.
    """
    try:
        return _read(path, stop_before_pixels=True)
    except Exception as error:
        raise unreadable(error) from None


def dicom_object(path: Path) -> pydicom.Dataset:
    """A whole DICOM file; any error is raised as is, for ``unreadable`` to convert."""
    return _read(path, stop_before_pixels=False)


def unreadable(error: Exception) -> InputError:
    """The error for a DICOM file that could not be read."""
    if isinstance(error, InputError):
        return error
    if isinstance(error, PermissionError):
        return InputError("A file of the scan cannot be opened. Check that you may read it.")
    return InputError("A DICOM file is damaged or cut off. Export the series again.")


def _read(path: Path, stop_before_pixels: bool) -> pydicom.Dataset:
    with quiet_libraries():
        read = pydicom.dcmread(path, stop_before_pixels=stop_before_pixels, force=True)
    if "TransferSyntaxUID" not in read.file_meta:  # a bare data set, whose encoding pydicom detects
        is_implicit, is_little = read.original_encoding
        explicit = ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian
        read.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else explicit
    if not read.file_meta.TransferSyntaxUID.is_transfer_syntax:
        raise ValueError("no transfer syntax")
    return read


def values(header: pydicom.Dataset, keyword: str) -> list[Any]:
    """An element's values; an empty list if it is absent or empty.

    Raises:
        InputError: the header is damaged.
    """
    try:
        with quiet_libraries():
            value = header.get(keyword)  # pydicom parses an element on first access
    except Exception as error:
        raise unreadable(error) from None
    if isinstance(value, MultiValue | pydicom.Sequence):
        return list(value)
    return [] if value is None or str(value).strip() == "" else [value]


def words(header: pydicom.Dataset, keyword: str) -> str:
    """An element's values as text; raises as ``values`` does."""
    return "; ".join(str(value).strip() for value in values(header, keyword))


def numbers(header: pydicom.Dataset, keyword: str) -> list[float]:
    """An element's values as finite numbers; raises as ``values`` does."""
    try:
        found = [float(value) for value in values(header, keyword)]
    except (TypeError, ValueError) as error:
        raise unreadable(error) from None
    if not all(map(math.isfinite, found)):
        raise unreadable(ValueError("no finite number"))
    return found


def number(header: pydicom.Dataset, keyword: str) -> float | None:
    """An element's first value as a finite number, or None if there is none; raises as ``values`` does."""
    found = numbers(header, keyword)
    return found[0] if found else None


def number_or_none(header: pydicom.Dataset, keyword: str) -> float | None:
    """An element's first value as a finite number; None if absent or damaged, for what a scan can do without."""
    try:
        return number(header, keyword)
    except InputError:
        return None
