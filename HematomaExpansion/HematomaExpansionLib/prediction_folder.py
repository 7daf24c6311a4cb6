"""A prediction on disk: the folder that appears whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import SimpleITK as sitk

from .errors import InputError
from .prediction import Prediction
from .report import write_overlay, write_report
from .volume_files import write_image

RESULT_FILE = "prediction.json"
_UNFINISHED = ".unfinished-"


def write_prediction(prediction: Prediction, folder: Path) -> None:
    """Write all files of a prediction; the folder appears whole or not at all.

    A folder left by an earlier prediction is replaced.

    Raises:
        InputError: the folder holds something else, or cannot be written.
        MissingLibraryError: matplotlib is not installed.
    """
    check_output_folder(folder)
    # Compressing the images takes as long as drawing the pictures, and goes on beside it.
    with whole_or_nothing(folder) as scratch, ThreadPoolExecutor(1) as beside:
        images_written = beside.submit(_write_images, _images(prediction), scratch)
        (scratch / RESULT_FILE).write_text(json.dumps(prediction.result, indent=2) + "\n", encoding="utf-8")
        write_overlay(prediction, scratch / "overlay.png")
        write_report(prediction, scratch / "report.pdf")
        images_written.result()


def _write_images(images: dict[str, sitk.Image], folder: Path) -> None:
    for name, image in images.items():
        write_image(image, folder / name)


def _images(prediction: Prediction) -> dict[str, sitk.Image]:
    """File name to image; a scan that was resampled to true geometry is kept beside what lies on its grid."""
    images = {"baseline-mask.nii.gz": prediction.baseline_mask}
    if prediction.resampled:
        images["baseline-ct.nii.gz"] = as_int16(prediction.baseline_ct)
    if prediction.inside_skull is not None:
        images["inside-skull.nii.gz"] = prediction.inside_skull
    if prediction.growth is not None:
        images["followup-mask.nii.gz"] = prediction.growth.followup_mask
        images["followup-ct.nii.gz"] = as_int16(prediction.growth.followup_ct)
        images["displacement.nii.gz"] = prediction.growth.displacement
    return images


def as_int16(ct: sitk.Image) -> sitk.Image:
    """A CT (HU) in the pixel type in which it is stored."""
    return sitk.Cast(sitk.Clamp(sitk.Round(ct), sitk.sitkFloat32, -32768, 32767), sitk.sitkInt16)


def check_output_folder(folder: Path, result_file: str = RESULT_FILE) -> None:
    """Raise ``InputError`` where a result cannot be written, before anything is computed.

    A folder that holds an earlier result, known by its file, may be replaced.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / result_file).is_file():
        raise InputError("The output folder holds other files: name a new folder for the result.")
    if folder.exists() and not folder.is_dir():
        raise InputError("The output is a file: name a folder for the result.")
    make_folder(folder.parent)


def make_folder(folder: Path) -> None:
    """Make a folder if it is not there; raise ``InputError`` where it cannot be made or written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("The output folder cannot be made there: choose another place.") from error
    if not os.access(folder, os.W_OK):
        raise InputError("The output folder cannot be written there: choose another place.")


@contextmanager
def whole_or_nothing(folder: Path) -> Iterator[Path]:
    """A scratch folder beside ``folder`` that takes its name when the block ends well."""
    try:
        with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=folder.parent) as scratch:
            made = Path(scratch) / "new"
            made.mkdir()
            yield made
            if folder.exists():
                folder.rename(Path(scratch) / "old")
            made.rename(folder)
    except OSError as error:
        raise InputError(
            "The result could not be written (disk full or no permission): free space or choose another folder."
        ) from error


def remove_unfinished(folder: Path) -> None:
    """Remove what runs that were killed have left of their results in ``folder``."""
    for left in folder.glob(f"{_UNFINISHED}*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
