"""How well a model does on a cohort whose truth is known.

Growth is measured as in Abramova 2024, section 3: Dice of the growth area, average error and average absolute
error of the follow-up volume; beside it the rivals that need no model: copy of the baseline and uniform
dilation by the training cohort's mean growth.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..device import choose_device
from ..errors import ModelPackageError
from ..grid import Array
from ..growth import predict_growth, smallest_jacobian
from ..measures import volume_ml
from ..model_package import ModelPackage
from ..segmentation import segment
from .cohort import Case, case_folders, read_case


def dice(first: Array, second: Array) -> float:
    """Dice coefficient of two masks; 1 if both are empty."""
    total = np.count_nonzero(first) + np.count_nonzero(second)
    return 1.0 if total == 0 else 2.0 * np.count_nonzero(first & second) / total


def growth_dice(baseline: Array, predicted: Array, true: Array) -> float:
    """Dice of the growth areas: predicted without baseline against true follow-up without baseline."""
    return dice(predicted & ~baseline, true & ~baseline)


@dataclass(frozen=True)
class GrowthRow:
    """One case and one way to predict it; volumes in mL."""

    case: str
    method: str
    baseline_ml: float
    followup_ml: float
    predicted_ml: float
    growth_dice: float
    lesion_dice: float
    smallest_jacobian: float | None


@dataclass(frozen=True)
class SegmentationRow:
    """One scan; volumes in mL."""

    case: str
    scan: str
    true_ml: float
    found_ml: float
    dice: float


def uniform_dilation(case: Case, volume_factor: float) -> Array:
    """The baseline mask dilated evenly in mm, inside the skull, to that multiple of its volume; (z, y, x)."""
    distance = sitk.GetArrayFromImage(
        sitk.SignedMaurerDistanceMap(
            case.baseline_mask, insideIsPositive=False, squaredDistance=False, useImageSpacing=True
        )
    )
    allowed = _array(case.inside_skull) | _array(case.baseline_mask)
    voxels = round(np.count_nonzero(_array(case.baseline_mask)) * volume_factor)
    order = np.sort(distance[allowed])
    return allowed & (distance <= order[min(voxels, len(order)) - 1])


def evaluate_growth_case(package: ModelPackage, device: str, folder: Path) -> list[GrowthRow]:
    """The model and its rivals on one case, from the true baseline mask."""
    case = read_case(folder)
    growth = predict_growth(case.baseline, case.baseline_mask, case.inside_skull, package, choose_device(device))
    factor = 1 + float(package.description.results["training_mean_relative_growth"])
    predictions = {
        package.description.name: _array(growth.followup_mask),
        "no growth": _array(case.baseline_mask),
        "uniform dilation": uniform_dilation(case, factor),
    }
    baseline, followup = _array(case.baseline_mask), _array(case.followup_mask)
    per_voxel = volume_ml(case.baseline_mask) / np.count_nonzero(baseline)
    return [
        GrowthRow(
            case=case.name,
            method=method,
            baseline_ml=volume_ml(case.baseline_mask),
            followup_ml=volume_ml(case.followup_mask),
            predicted_ml=np.count_nonzero(predicted) * per_voxel,
            growth_dice=growth_dice(baseline, predicted, followup),
            lesion_dice=dice(predicted, followup),
            smallest_jacobian=(
                smallest_jacobian(growth.displacement) if method == package.description.name else None
            ),
        )
        for method, predicted in predictions.items()
    ]


def evaluate_segmentation_case(package: ModelPackage | None, device: str, folder: Path) -> list[SegmentationRow]:
    """Both scans of one case; without a package by threshold."""
    case = read_case(folder)
    pairs = {
        "baseline": (case.baseline, case.baseline_mask),
        "follow-up": (case.followup, case.followup_mask),
    }
    rows = []
    for name, (ct, truth) in pairs.items():
        found = segment(ct, case.inside_skull, package, choose_device(device))
        rows.append(
            SegmentationRow(
                case.name, name, volume_ml(truth), volume_ml(found), dice(_array(found), _array(truth))
            )
        )
    return rows


def summarize_growth(rows: Sequence[GrowthRow]) -> dict[str, dict[str, float]]:
    """Means by method: growth Dice (of all, and of cases that grew by more than a third or 6 mL), lesion Dice,
    AEV and AAEV in mL, and the smallest Jacobian determinant of any field."""
    summary: dict[str, dict[str, float]] = {}
    for method in dict.fromkeys(row.method for row in rows):
        own = [row for row in rows if row.method == method]
        errors = np.array([row.predicted_ml - row.followup_ml for row in own])
        expanded = [
            row.growth_dice
            for row in own
            if row.followup_ml - row.baseline_ml > 6 or row.followup_ml > 1.33 * row.baseline_ml
        ]
        jacobians = [row.smallest_jacobian for row in own if row.smallest_jacobian is not None]
        summary[method] = {
            "cases": len(own),
            "growth_dice": float(np.mean([row.growth_dice for row in own])),
            "growth_dice_expanders": float(np.mean(expanded)) if expanded else float("nan"),
            "lesion_dice": float(np.mean([row.lesion_dice for row in own])),
            "average_error_ml": float(errors.mean()),
            "average_absolute_error_ml": float(np.abs(errors).mean()),
            **({"smallest_jacobian": min(jacobians)} if jacobians else {}),
        }
    return summary


def summarize_segmentation(rows: Sequence[SegmentationRow]) -> dict[str, dict[str, float]]:
    """Mean and smallest Dice and mean absolute volume error in mL, by scan."""
    summary: dict[str, dict[str, float]] = {}
    for scan in dict.fromkeys(row.scan for row in rows):
        own = [row for row in rows if row.scan == scan]
        summary[scan] = {
            "cases": len(own),
            "dice": float(np.mean([row.dice for row in own])),
            "smallest_dice": min(row.dice for row in own),
            "average_absolute_error_ml": float(np.mean([abs(row.found_ml - row.true_ml) for row in own])),
        }
    return summary


def evaluate_growth(cohort: Path, package: ModelPackage, device: str) -> list[GrowthRow]:
    """Rows for every case of a cohort.

    Raises:
        ModelPackageError: the package does not say the mean growth of its training cohort.
    """
    if "training_mean_relative_growth" not in package.description.results:
        raise ModelPackageError(
            f"Model {package.description.name!r} does not say the mean growth it was trained on, which the "
            "comparison needs: train it with `hematoma train growth`."
        )
    return _each_case(partial(evaluate_growth_case, package, device), cohort)


def evaluate_segmentation(cohort: Path, package: ModelPackage | None, device: str) -> list[SegmentationRow]:
    """Rows for every scan of a cohort."""
    return _each_case(partial(evaluate_segmentation_case, package, device), cohort)


def _each_case(evaluate: Callable[[Path], list[Any]], cohort: Path) -> list[Any]:
    from tqdm import tqdm

    return [row for folder in tqdm(case_folders(cohort), desc="Cases", disable=None) for row in evaluate(folder)]


def write_rows(rows: Sequence[GrowthRow] | Sequence[SegmentationRow], path: Path) -> None:
    """One line per row, as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(asdict(rows[0])))
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def _array(mask: sitk.Image) -> Array:
    return sitk.GetArrayFromImage(mask) > 0
