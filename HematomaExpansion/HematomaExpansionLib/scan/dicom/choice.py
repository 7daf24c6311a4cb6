"""Which files in a folder make up the intended CT series, and what was left out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.uid import UID

from ...errors import InputError
from .files import ONE_SERIES, dicom_header, is_dicom, is_named_dicom, number, number_or_none, words

_NOT_IMAGES = {"SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "PR", "SR", "KO", "REG", "DOC"}
_MAX_LISTED = 6

# What is left out, in words for the user.
_OTHER, _LOCALIZER, _PICTURE = "image of another modality", "localizer image", "screen save or report"
_MISNAMED, _EMPTY = "file that is not DICOM despite its name", "empty file"
_PLURALS = {
    _OTHER: "images of other modalities",
    _LOCALIZER: "localizer images",
    _PICTURE: "screen saves or reports",
    _MISNAMED: "files that are not DICOM despite their names",
    _EMPTY: "empty files",
}


@dataclass(frozen=True)
class DicomImage:
    """A DICOM image's file, and its header without the pixels."""

    path: Path
    header: pydicom.Dataset

    @property
    def series(self) -> str:
        """The UID of its series."""
        return words(self.header, "SeriesInstanceUID")


@dataclass(frozen=True)
class CTSeries:
    """The images of one CT series in no particular order, and sentences for the user."""

    images: list[DicomImage]
    notes: list[str]


def choose_ct_series(files: Sequence[Path]) -> CTSeries:
    """The one CT series among ``files``; localizers, screen saves and the like are left out, with a note.

    Raises:
        InputError: there is no series or more than one, or a file is empty, is damaged or cannot be opened.
    """
    images, left_out = _images(files)
    if not images:
        raise InputError(_no_images(files, left_out[_MISNAMED]))
    ct_series = {image.series for image in images if _modality(image) == "CT"}
    if not ct_series:
        modality = re.sub(r"\W", "", _modality(images[0]))[:8] or "unknown"
        raise InputError(f"The scan is not a CT (its modality is {modality}). Give a head CT.")
    placed = {image.series for image in images if _is_placed(image) and not _is_picture(image)}
    chosen = []
    for image in images:
        if image.series not in ct_series:
            left_out[_OTHER] += 1
        elif "LOCALIZER" in words(image.header, "ImageType").upper():
            left_out[_LOCALIZER] += 1
        elif _is_picture(image) or (placed and image.series not in placed and not _is_multiframe(image)):
            left_out[_PICTURE] += 1
        else:
            chosen.append(image)
    _check_one_series(chosen, left_out)
    return CTSeries(chosen, [_left_out_sentence(left_out)] if left_out.total() else [])


def _images(files: Sequence[Path]) -> tuple[list[DicomImage], Counter[str]]:
    """The DICOM images among ``files``, and how many other files are named like DICOM images."""
    images, empty, left_out = [], [], Counter[str]()
    for path in files:
        if is_dicom(path):
            image = DicomImage(path, dicom_header(path))
            if _is_image(image):
                images.append(image)
        elif path.stat().st_size == 0:
            empty.append(path)
        elif is_named_dicom(path):
            left_out[_MISNAMED] += 1
    # An empty file named like the images was one of them, or may have been.
    suffixes = {image.path.suffix.lower() for image in images}
    if any(path.suffix.lower() in suffixes - {""} or is_named_dicom(path) for path in empty):
        raise InputError("A DICOM file is empty. Copy or export the series again.")
    if unsure := sum(path.suffix.lower() in suffixes for path in empty):
        left_out[_EMPTY] = unsure
    return images, left_out


def _no_images(files: Sequence[Path], misnamed: int) -> str:
    """Why there are no images."""
    if not files:
        return "The folder is empty: it holds no DICOM images. Give the folder of the head CT series."
    if any(map(is_dicom, files)):
        return (
            "There are no DICOM images, only other objects such as reports or masks. "
            "Give the folder of the head CT series."
        )
    if misnamed:
        return "There are no DICOM images: the files are DICOM in name only. Export the series again."
    return "The folder holds no DICOM images. Give the folder of the head CT series."


def _check_one_series(chosen: Sequence[DicomImage], left_out: Counter[str]) -> None:
    if not chosen and left_out[_LOCALIZER] > left_out[_PICTURE]:
        raise InputError("The folder holds only a localizer (scout view). Give the folder of the head CT series.")
    if not chosen:
        raise InputError(
            "The scan holds 8-bit pictures that are already windowed, not Hounsfield units. "
            "Export the original CT series."
        )
    counts = Counter(image.series for image in chosen)
    if len(counts) > 1:
        firsts = {image.series: image for image in reversed(chosen)}.values()
        ordered = sorted(firsts, key=lambda image: number_or_none(image.header, "SeriesNumber") or 0)
        listed = [_series_line(image, counts[image.series]) for image in ordered[:_MAX_LISTED]]
        more = f" and {len(counts) - _MAX_LISTED} more" if len(counts) > _MAX_LISTED else ""
        raise InputError(f"The folder holds {len(counts)} series: {', '.join(listed)}{more}. {ONE_SERIES}")


def _series_line(image: DicomImage, count: int) -> str:
    """Number, size, slice thickness and kernel of a series; its description could reveal the patient's name."""
    name = (
        f"number {value:.0f}"
        if (value := number_or_none(image.header, "SeriesNumber")) is not None
        else "one unnumbered"
    )
    traits = [f"{count} image{'s' * (count != 1)}"]
    if thickness := number_or_none(image.header, "SliceThickness"):
        traits.append(f"{thickness:g} mm")
    if kernel := re.sub(r"[^A-Za-z0-9+-]+", " ", words(image.header, "ConvolutionKernel")).strip()[:16]:
        traits.append(f"kernel {kernel}")
    return f"{name} ({', '.join(traits)})"


def _left_out_sentence(left_out: Counter[str]) -> str:
    def counted(what: str, count: int) -> str:
        return f"{count} {what if count == 1 else _PLURALS[what]}"

    return f"Left out of the series: {', '.join(counted(*item) for item in sorted((+left_out).items()))}."


def _modality(image: DicomImage) -> str:
    return words(image.header, "Modality")


def _is_image(image: DicomImage) -> bool:
    """Whether an object is an image; one that should be but has no size was cut off."""
    if "Rows" in image.header:
        return _modality(image) not in _NOT_IMAGES
    kind = words(image.header, "SOPClassUID") or words(image.header.file_meta, "MediaStorageSOPClassUID")
    if not kind or UID(kind).name.endswith("Image Storage"):
        raise InputError("A DICOM file is damaged or cut off. Export the series again.")
    return False


def _is_placed(image: DicomImage) -> bool:
    return bool(words(image.header, "ImagePositionPatient") and words(image.header, "ImageOrientationPatient"))


def _is_multiframe(image: DicomImage) -> bool:
    return (number(image.header, "NumberOfFrames") or 1) > 1


def _is_picture(image: DicomImage) -> bool:
    """Whether an image is in color or windowed to 8 bits, like screen saves and dose reports."""
    samples, bits = number(image.header, "SamplesPerPixel") or 1, number(image.header, "BitsAllocated") or 16
    return samples > 1 or bits <= 8
