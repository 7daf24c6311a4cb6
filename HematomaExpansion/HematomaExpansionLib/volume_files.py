"""Reading and writing image files: what can be said of a file before anything is known of its content."""

from __future__ import annotations

import errno
import gzip
import math
import os
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import SimpleITK as sitk

from .errors import InputError

MAX_SIZE = (1024, 1024, 1200)
_NIFTI_HEADER_BYTES, _NIFTI_OFFSET = 348, 352
_FILE_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep the libraries' own messages, which name files and header values, off the terminal."""
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def volume_stem(path: Path) -> str | None:
    """A file's name without its suffix, if the suffix is that of a NIfTI, NRRD, MHA or MHD file."""
    name = path.name.lower()
    suffix = max((suffix for suffix in _FILE_SUFFIXES if name.endswith(suffix)), key=len, default=None)
    return None if suffix is None else path.name[: -len(suffix)]


def read_volume(path: Path, what: str) -> sitk.Image:
    """The image in a NIfTI, NRRD, MHA or MHD file, its size checked before its voxels are loaded.

    ``what`` names it in the sentences: "scan" or "mask".

    Raises:
        InputError: there is no such file, it is damaged, of another kind, or far too large.
    """
    if not path.exists():
        raise InputError(f"The {what} does not exist. Check the path.")
    if path.is_dir() or not path.name.lower().endswith(_FILE_SUFFIXES):
        kinds = "NIfTI (.nii, .nii.gz), NRRD, MHA or MHD file"
        raise InputError(
            f"The {what} is of an unknown format. Give {'a DICOM folder or ' * (what == 'scan')}a {kinds}."
        )
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        with quiet_libraries():
            reader.ReadImageInformation()
            check_size(reader.GetSize())
            if path.name.lower().endswith((".nii", ".nii.gz")):
                _check_nifti(path, what, reader)
            return reader.Execute()
    except (RuntimeError, OSError, EOFError, struct.error, zlib.error) as error:
        if "orthonormal" in str(error):
            raise InputError(
                f"The {what}'s axes are not at right angles, which NIfTI cannot hold reliably. "
                "Give the DICOM folder, or save it as NRRD."
            ) from None
        raise InputError(f"The {what} cannot be read; the file is damaged or cut off. Export it again.") from None


def _check_nifti(path: Path, what: str, reader: sitk.ImageFileReader) -> None:
    """Refuse what ITK reads without a word: a voxel size of zero (as one), and a file cut off (the rest as zeros).

    Raises:
        InputError: a voxel size is zero, negative or no number.
        EOFError: the file is cut off.
    """
    axes = range(1, 1 + int(reader.GetMetaData("dim[0]")))
    bits = math.prod(int(reader.GetMetaData(f"dim[{axis}]")) for axis in axes) * int(reader.GetMetaData("bitpix"))
    left = int(float(reader.GetMetaData("vox_offset"))) + bits // 8
    with path.open("rb") as file:
        is_compressed = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if is_compressed else path.open("rb") as content:
        header = content.read(_NIFTI_HEADER_BYTES)
        spacing = _nifti_spacing(header)
        if not all(math.isfinite(length) and length > 0 for length in spacing):
            sizes = " × ".join(f"{length:g}" for length in spacing)
            raise InputError(f"The {what}'s voxel size of {sizes} mm is not possible. Export it again.")
        left -= len(header)
        while left > 0:
            count = len(content.read(min(left, 1 << 20)))
            if count == 0:
                raise EOFError
            left -= count


def _nifti_spacing(header: bytes) -> tuple[float, ...]:
    """pixdim[1] to pixdim[3] of a NIfTI-1 header in either byte order; ITK reads no NIfTI-2."""
    order = "<" if header[:4] == struct.pack("<i", _NIFTI_HEADER_BYTES) else ">"
    return struct.unpack_from(f"{order}3f", header, 80)


def write_volume(image: sitk.Image, path: Path) -> None:
    """Write an image in the format that the file's name asks for.

    Raises:
        InputError: the format is unknown, or the place cannot be written.
    """
    if not path.name.lower().endswith(_FILE_SUFFIXES):
        raise InputError("The output's name must end in .nii.gz, .nii, .nrrd or .mha. Name the file so.")
    try:
        with quiet_libraries():
            write_image(image, path)
    except OSError:
        raise InputError("The output cannot be written there. Choose another place.") from None


def write_image(image: sitk.Image, path: Path) -> None:
    """Write an image, compressed where the format can be, and make sure that all of it is there.

    ITK leaves half a NIfTI file without a word when the disk is full.

    Raises:
        OSError: the disk is full, or the place cannot be written.
    """
    try:
        sitk.WriteImage(image, str(path), useCompression=True, compressionLevel=1)
    except RuntimeError as error:
        raise OSError(errno.EIO, "The image could not be written.") from error
    voxel_bytes = image.GetSizeOfPixelComponent() * image.GetNumberOfComponentsPerPixel()
    nifti_bytes = _NIFTI_OFFSET + image.GetNumberOfPixels() * voxel_bytes
    name = path.name.lower()
    is_whole = True
    if name.endswith(".nii.gz"):
        with path.open("rb") as file:  # gzip ends with the length of what it holds
            file.seek(-4, os.SEEK_END)
            is_whole = int.from_bytes(file.read(), "little") == nifti_bytes % (1 << 32)
    elif name.endswith(".nii"):
        is_whole = path.stat().st_size == nifti_bytes
    if not is_whole:
        raise OSError(errno.ENOSPC, "The disk is full.")


def check_size(size: Sequence[int]) -> None:
    """Refuse what is far larger than any head CT, before memory is taken for it."""
    if math.prod(size) > math.prod(MAX_SIZE) or max(size) > 4 * max(MAX_SIZE):
        raise InputError(
            f"The scan has {' × '.join(str(n) for n in size)} voxels, far more than a head CT. "
            "Choose the series of the head."
        )


def is_scalar(image: sitk.Image) -> bool:
    """Whether each voxel holds one real number."""
    return image.GetNumberOfComponentsPerPixel() == 1 and "complex" not in image.GetPixelIDTypeAsString()


def three_dimensional(image: sitk.Image, what: str) -> sitk.Image:
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        return image[:, :, :, 0]
    if image.GetDimension() != 3:
        raise InputError(
            f"The {what} has {image.GetDimension()} dimensions; one three-dimensional volume is needed. "
            "Export a single volume."
        )
    return image
