"""What a file is by its first bytes, whatever its name says."""

from __future__ import annotations

import gzip
import string
import zlib
from pathlib import Path

NIFTI, NRRD, META_IMAGE = "NIfTI file", "NRRD file", "MetaImage file"

_BEGINNINGS = (  # offset, bytes, kind
    (344, b"n+1", NIFTI),
    (344, b"ni1", NIFTI),
    (4, b"n+2", NIFTI),
    (0, b"NRRD0", NRRD),
    (0, b"ObjectType", META_IMAGE),
    (0, b"NDims", META_IMAGE),
    (128, b"DICM", "DICOM file"),
    (0, b"PK\x03\x04", "ZIP archive"),
    (0, b"7z\xbc\xaf", "7z archive"),
    (0, b"Rar!", "RAR archive"),
    (257, b"ustar", "TAR archive"),
    (0, b"%PDF", "PDF document"),
    (0, b"\x89PNG", "PNG picture"),
    (0, b"\xff\xd8\xff", "JPEG picture"),
    (0, b"II*\0", "TIFF picture"),
    (0, b"MM\0*", "TIFF picture"),
    (0, b"\x89HDF", "HDF5 file"),
    (0, b"MATLAB", "MATLAB file"),
)
_START_BYTES = 400
_PRINTABLE = frozenset(string.printable.encode())


def kind_of_file(path: Path) -> str | None:
    """The kind of a file, even inside gzip, in words for the user; None if unknown."""
    try:
        start = _start(path)
    except (OSError, EOFError, zlib.error):
        return None
    for offset, beginning, kind in _BEGINNINGS:
        if start[offset:].startswith(beginning):
            return kind
    return "text file" if start and _PRINTABLE.issuperset(start) else None


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        start = file.read(_START_BYTES)
    if start[:2] != b"\x1f\x8b":
        return start
    with gzip.open(path) as content:
        return content.read(_START_BYTES)
