"""Correction of a segmenter's volumes: regression of true on measured volumes (Guo 2024, section III.D).

It has its own command and is not part of training, since it must be fitted on patients from whom the segmenter
has not learned: on the others, its bias looks smaller than it is.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import InputError
from ...measures.volumes import corrected_volume
from ...models.description import VOLUME_CORRECTION, TrainingStep, package_name
from ...models.package import ModelPackage, write_package
from ...scan.grid import Array
from ..data.case_description import kind_of_cases
from ..data.cohort import case_folders
from ..runs import made_before, made_from
from ..steps import CORRECTED_ON, steps_before
from .evaluation import evaluate_segmentation

if TYPE_CHECKING:
    import torch

MIN_PATIENTS = 10
"""With fewer patients, bias cannot be told from chance."""


def fit_volume_correction(measured: Array, true: Array, patients: Array) -> dict[str, float]:
    """Coefficients for ``measures.volumes.corrected_volume``, and how much they help; volumes in mL;
    ``patients``: the number of each volume's patient.

    Fits a line by least absolute deviations: this minimizes the reported error itself, and a single badly wrong
    mask does not tilt the line. ``error_ml`` and ``corrected_error_ml`` are mean absolute errors, the second on
    patients left out of the fit, one fifth at a time.

    Raises:
        InputError: there are fewer than ``MIN_PATIENTS``, or measured volumes do not rise with true ones.
    """
    from sklearn.model_selection import GroupKFold

    count = len(np.unique(patients))
    if count < MIN_PATIENTS:
        raise InputError(
            f"The hematoma was found in {count} patients; a correction of its volume needs {MIN_PATIENTS} "
            "or more. Give a larger cohort."
        )
    corrected = np.empty(len(measured))
    for kept, left_out in GroupKFold(5).split(measured, groups=patients):
        line = _fit_line(measured[kept], true[kept])
        corrected[left_out] = [corrected_volume(line, volume) for volume in measured[left_out]]
    return {
        **_fit_line(measured, true),
        "patients": count,
        "error_ml": round(float(np.abs(measured - true).mean()), 4),
        "corrected_error_ml": round(float(np.abs(corrected - true).mean()), 4),
    }


def _fit_line(measured: Array, true: Array) -> dict[str, float]:
    from sklearn.linear_model import QuantileRegressor

    line = QuantileRegressor(quantile=0.5, alpha=0.0, solver="highs").fit(measured[:, None], true)
    if line.coef_[0] <= 0:
        raise InputError(
            "The measured volumes do not rise with the true ones, so they cannot be corrected: run "
            "`hematoma evaluate segmentation` to see what is wrong with the masks."
        )
    return {
        "constant_ml": round(float(line.intercept_), 4),
        "slope": round(float(line.coef_[0]), 6),
        "smallest_ml": round(float(measured.min()), 4),
        "largest_ml": round(float(measured.max()), 4),
    }


def correct_volumes(cohort: Path, output: Path, source: ModelPackage, device: torch.device) -> ModelPackage:
    """Write a package with the same network and a correction of its volumes, fitted on both scans of each case.

    Scans in which no hematoma is found say nothing about the bias and are skipped.

    Raises:
        InputError: the cohort is too small, the masks are too bad, the folder's name is no valid model name, or it
            holds a model made differently (``runs.py``).
    """
    name, cases = package_name(output), case_folders(cohort)
    if len(cases) < MIN_PATIENTS:
        raise InputError(
            f"The cohort holds {len(cases)} cases; a correction of volumes needs {MIN_PATIENTS} or more."
        )
    sources = made_from("volume correction", {}, calibrated=cases, start=[source])
    if (made := made_before(output, sources)) is not None:
        return made
    rows = [row for row in evaluate_segmentation(cohort, source, device) if row.found_ml > 0]
    patients = np.unique([row.case for row in rows], return_inverse=True)[1]
    correction = fit_volume_correction(
        np.array([row.found_ml for row in rows]), np.array([row.true_ml for row in rows]), patients
    )
    description = source.description
    described = replace(
        description,
        name=name,
        trained_on=(*steps_before([source]), TrainingStep(CORRECTED_ON, len(cases), kind_of_cases(cases))),
        settings={**description.settings, VOLUME_CORRECTION: correction},
    )
    return write_package(output, described, source.load(), sources)
