"""Reading and writing image files, before anything is known about their content."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import SimpleITK as sitk

from ..errors import InputError, file_fault
from ..files.folders import check_output_file, whole_file, writing_fault
from ..files.kinds import META_IMAGE, NIFTI, NRRD, kind_of_file
from ..files.names import library_name
from ..files.provenance import content_sha256
from .nifti_files import NIFTI_OFFSET, read_nifti, write_compressed_nifti
from .volume import Volume, check_size, no_position_note

_NIFTI_SUFFIXES = (".nii", ".nii.gz")
_META_AXES = re.compile(rb"^(TransformMatrix|Rotation|Orientation)\s*=", re.MULTILINE)
_META_HEADER_BYTES = 1 << 16
_DETACHED_HEADER_SUFFIXES = (".nhdr", ".mhd")
_FORMATS = {
    "scan": "a DICOM folder or a NIfTI (.nii, .nii.gz), NRRD, MHA or MHD file",
    "mask": "a NIfTI (.nii, .nii.gz), NRRD, MHA or MHD file, or DICOM SEG",
}
_KINDS_OF_SUFFIXES = {
    **dict.fromkeys(_NIFTI_SUFFIXES, NIFTI),
    **dict.fromkeys((".nrrd", ".nhdr"), NRRD),
    **dict.fromkeys((".mha", ".mhd"), META_IMAGE),
}


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
    """A file's name without its NIfTI, NRRD, MHA or MHD suffix; None if it has no such suffix."""
    suffix = _suffix(path)
    return None if suffix is None else path.name[: -len(suffix)]


def _suffix(path: Path) -> str | None:
    name = path.name.lower()
    return max((suffix for suffix in _KINDS_OF_SUFFIXES if name.endswith(suffix)), key=len, default=None)


def read_volume(path: Path, what: str) -> Volume:
    """The image in a NIfTI, NRRD, MHA or MHD file; its size is checked before its voxels are loaded.

    ``what`` names it in sentences for the user: "scan" or "mask".

    Raises:
        InputError: the file does not exist, is damaged, has another format, or is far too large.
    """
    if not path.exists():
        raise InputError(f"The {what} does not exist. Check the path.")
    suffix = _suffix(path)
    if path.is_dir() or suffix is None:
        raise InputError(f"The {what} is of an unknown format. Give {_FORMATS[what]}.")
    try:
        with quiet_libraries():
            return read_nifti(path, what) if suffix in _NIFTI_SUFFIXES else _read_by_itk(path, what)
    except PermissionError:
        raise InputError(f"The {what} cannot be opened. Check that you may read it.") from None
    except (RuntimeError, OSError, EOFError, ValueError, zlib.error):
        raise _unreadable(path, suffix, what) from None


def _unreadable(path: Path, suffix: str, what: str) -> InputError:
    """Why a file could not be read, as far as its first bytes tell."""
    if not os.access(path, os.R_OK):
        return InputError(f"The {what} cannot be opened. Check that you may read it.")
    kind = kind_of_file(path)
    if kind not in (None, _KINDS_OF_SUFFIXES[suffix]):
        return InputError(f"The {what} is named {suffix} but is a {kind}. Export it as NIfTI or NRRD.")
    if suffix in _DETACHED_HEADER_SUFFIXES:
        return InputError(
            f"The {what} cannot be read; it or the file beside it that holds its voxels is damaged, cut off or "
            "missing. Export it again."
        )
    return InputError(f"The {what} cannot be read; the file is damaged or cut off. Export it again.")


def _read_by_itk(path: Path, what: str) -> Volume:
    reader = sitk.ImageFileReader()
    reader.SetFileName(library_name(path))
    reader.ReadImageInformation()
    check_size(reader.GetSize())
    image = reader.Execute()
    return Volume(image) if _says_its_place(path, image) else Volume(image, (no_position_note(what),), False)


def _says_its_place(path: Path, image: sitk.Image) -> bool:
    """Whether an NRRD or MetaImage file gives its axes relative to the patient; if not, ITK assumes LPS."""
    if _KINDS_OF_SUFFIXES[_suffix(path) or ""] == NRRD:
        space = image.GetMetaData("NRRD_space") if "NRRD_space" in image.GetMetaDataKeys() else ""
        return space.startswith("left-posterior-superior")  # also from other spaces, which ITK converts
    with path.open("rb") as file:
        header = file.read(_META_HEADER_BYTES).partition(b"ElementDataFile")[0]
    return _META_AXES.search(header) is not None


def stored_sha256(path: Path, subfolders: bool = True) -> str:
    """SHA-256 of a stored scan or mask, whatever its name: of a file (with its voxels, even if they are in a
    separate file), or of the files in a folder.

    Raises:
        OSError: it cannot be read.
    """
    sha256 = content_sha256(path, subfolders)
    if not path.name.lower().endswith((".mhd", ".nhdr")) or path.is_dir():
        return sha256
    try:
        with quiet_libraries():
            voxels = sitk.GetArrayViewFromImage(sitk.ReadImage(library_name(path)))
    except RuntimeError as error:
        raise OSError(errno.EIO, "The image could not be read.") from error
    return hashlib.sha256(sha256.encode() + voxels.tobytes()).hexdigest()


def check_volume_output(path: Path) -> None:
    """Raise ``InputError`` if an image cannot be written, before anything is computed.

    Possible reasons: the format is unknown, the file already exists, or the path is not writable.
    """
    if _suffix(path) is None:
        raise InputError("The output's name must end in .nii.gz, .nii, .nrrd or .mha.")
    check_output_file(path)


def write_volume(image: sitk.Image, path: Path) -> None:
    """Write an image, whole or not at all, in the format that the file name asks for.

    Raises:
        InputError: the image cannot be written.
    """
    try:
        with quiet_libraries(), whole_file(path) as unfinished:
            write_image(image, unfinished)
    except OSError as error:
        raise file_fault(error, "The output could not be written") from None


def write_image(image: sitk.Image, path: Path) -> None:
    """Write an image, compressed if the format allows it, and make sure that it is complete.

    When the disk is full, ITK silently leaves half a NIfTI file.

    Raises:
        OSError: the disk is full, or the path is not writable.
    """
    try:
        if path.name.lower().endswith(".nii.gz"):
            write_compressed_nifti(image, path)
            return
        sitk.WriteImage(image, library_name(path), useCompression=True, compressionLevel=1)
    except RuntimeError as error:
        raise writing_fault(path) from error
    voxel_bytes = image.GetSizeOfPixelComponent() * image.GetNumberOfComponentsPerPixel()
    nifti_bytes = NIFTI_OFFSET + image.GetNumberOfPixels() * voxel_bytes
    if path.name.lower().endswith(".nii") and path.stat().st_size != nifti_bytes:
        raise writing_fault(path)
