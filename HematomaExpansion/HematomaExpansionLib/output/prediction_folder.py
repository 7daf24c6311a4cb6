"""A prediction on disk: the folder that appears whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from ..anatomy.bleeds import Bleeds
from ..anatomy.segmentation import USER_MASK, identity_of_segmenter
from ..errors import InputError
from ..files.folders import whole_or_nothing
from ..files.provenance import Provenance
from ..growth.growth import Growth
from ..prediction import Prediction, PredictionOptions
from ..scan.intensities import as_int16
from ..scan.mask import Mask
from ..scan.volume_files import stored_sha256, write_image
from .dicom_bleeds import write_dicom_bleeds
from .drawing import draw_each
from .report import write_overlay, write_report

RESULT_FILE = "prediction.json"
PREDICTION = "prediction"
"""The kind of result, as recorded in its provenance."""

_PARTS_FILE, _BASELINE_CT, _BLEEDS = "parts.json", "baseline_ct", "bleeds"
_GROWTH = ("displacement", "followup_ct", "followup_mask", "outcomes")
_MAP = "growth_probability"

SCAN_AND_MASK = "input"
"""Provenance key of the scan and mask that a prediction was made from."""


def prediction_sources(
    scan_sha256: str | None, mask: Path | None, label: str | None, options: PredictionOptions
) -> dict[str, Any]:
    """What a prediction is made from, for its provenance; ``mask``: the user's own; ``label``: chosen in it.

    Raises:
        OSError: the mask cannot be read.
    """
    return {
        SCAN_AND_MASK: {
            "scan": scan_sha256,
            "mask": None if mask is None else {"sha256": stored_sha256(mask), "label": label},
        },
        "options": {
            "onset_hours": options.onset_hours,
            "clinical": asdict(options.clinical),
            "definition": options.expansion_definition.value,
            "whether": options.whether,
            "likelihood_ratio": options.likelihood_ratio,
            "decisions": dict(options.decisions),
            **({} if options.box is None else {"box_mm": options.box.values}),
        },
        "models": {
            "segmentation": None if mask is not None else identity_of_segmenter(options.segmenter),
            "growth": options.growth.identity,
            "forecast": options.forecast.identity,
            "risk": None if options.risk is None else options.risk.identity,
        },
    }


def write_prediction(
    prediction: Prediction,
    folder: Path,
    made_from: Mapping[str, Any] | None = None,
    dicom_files: Sequence[Path] = (),
) -> dict[str, Any]:
    """Write all files of a prediction; the folder appears whole or not at all.

    A folder left by an earlier prediction is replaced. ``made_from``: what its provenance records, where known;
    ``dicom_files``: of the scan, if its bleeds are wanted in DICOM too.
    Returns the contents of ``prediction.json``: the prediction's result, with a warning for each picture that
    could not be made.

    Raises:
        InputError: the folder holds something else, or cannot be written.
    """
    provenance = Provenance(PREDICTION, made_from or {})
    # Images are compressed while pictures are drawn.
    with whole_or_nothing(folder, provenance) as scratch, ThreadPoolExecutor(1) as beside:
        images_written = beside.submit(_write_images, _images(prediction), scratch)
        for name, write in (("overlay.png", write_overlay), ("report.pdf", write_report)):
            failed = draw_each({name: partial(write, prediction)}, scratch)
            prediction = _with_warnings(prediction, failed)  # the report mentions a failed picture
        (scratch / RESULT_FILE).write_text(json.dumps(prediction.result, indent=2) + "\n", encoding="utf-8")
        if dicom_files:
            found_by = prediction.result["models"]["segmentation"]
            segmenter = None if found_by == USER_MASK else found_by["name"]
            write_dicom_bleeds(prediction.bleeds, dicom_files, segmenter, scratch / "bleeds.dcm")
        images_written.result()
    return prediction.result


def read_result(folder: Path) -> Any:
    """The contents of ``prediction.json`` there; None if it is missing or damaged."""
    try:
        return json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def write_parts(prediction: Prediction, folder: Path) -> None:
    """Write a prediction for ``read_parts``, fast: images as they are, nothing compressed, nothing drawn.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    images = {_BASELINE_CT: prediction.baseline_ct, _BLEEDS: prediction.bleeds.labels}
    if (growth := prediction.growth) is not None:
        images |= dict(
            zip(
                _GROWTH,
                (growth.displacement, growth.followup_ct, growth.followup_mask.image, growth.order),
                strict=True,
            )
        )
    if prediction.growth_probability is not None:
        images[_MAP] = prediction.growth_probability
    for name, image in images.items():
        sitk.WriteImage(image, str(folder / f"{name}.nrrd"))
    values = {"resampled": prediction.resampled, "result": prediction.result}
    (folder / _PARTS_FILE).write_text(json.dumps(values), encoding="utf-8")


def read_parts(folder: Path) -> Prediction:
    """The prediction that ``write_parts`` wrote.

    Raises:
        InputError: the folder holds none.
    """
    try:
        values = json.loads((folder / _PARTS_FILE).read_text(encoding="utf-8"))
        names = (_BASELINE_CT, _BLEEDS, *_GROWTH, _MAP)
        images = {name: sitk.ReadImage(str(path)) for name in names if (path := folder / f"{name}.nrrd").is_file()}
        baseline_ct, labels = images.pop(_BASELINE_CT), images.pop(_BLEEDS)
        probability_map = images.pop(_MAP, None)
        growth = None
        if images:
            displacement, followup_ct, followup_mask, order = (images[name] for name in _GROWTH)
            growth = Growth(displacement, followup_ct, Mask(followup_mask), order)
        return Prediction(
            baseline_ct,
            Bleeds.of_result(labels, values["result"].get("bleeds")),
            growth,
            probability_map,
            bool(values["resampled"]),
            dict(values["result"]),
            keep_outcomes=True,
        )
    except (OSError, RuntimeError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            "The folder does not hold the parts of a prediction that Slicer's Export hands over."
        ) from error


def _with_warnings(prediction: Prediction, warnings: Sequence[str]) -> Prediction:
    told = prediction.result["input"]
    told = {**told, "warnings": [*told["warnings"], *warnings]}
    return replace(prediction, result={**prediction.result, "input": told})


def _write_images(images: dict[str, sitk.Image], folder: Path) -> None:
    for name, image in images.items():
        write_image(image, folder / name)


def _images(prediction: Prediction) -> dict[str, sitk.Image]:
    """File name to image; includes the baseline CT if it was resampled, since the others lie on its new grid.

    The outcomes, if requested, cover a box of that grid.
    """
    images = {"baseline-mask.nii.gz": prediction.baseline_mask.image, "bleeds.nii.gz": prediction.bleeds.labels}
    if prediction.resampled:
        images["baseline-ct.nii.gz"] = as_int16(prediction.baseline_ct)
    if prediction.inside_skull is not None:
        images["inside-skull.nii.gz"] = prediction.inside_skull.image
    if prediction.growth is not None:
        images["followup-mask.nii.gz"] = prediction.growth.followup_mask.image
        images["followup-ct.nii.gz"] = as_int16(prediction.growth.followup_ct)
        images["displacement.nii.gz"] = prediction.growth.displacement
        if prediction.keep_outcomes:
            images["outcomes.nii.gz"] = prediction.growth.order
    if prediction.growth_probability is not None:
        images["growth-probability.nii.gz"] = prediction.growth_probability
    return images
