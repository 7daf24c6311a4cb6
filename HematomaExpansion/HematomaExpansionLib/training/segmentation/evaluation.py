"""How well a segmentation does on a cohort whose masks were not found automatically."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...anatomy.segmentation import segment
from ...measures.agreement import cohen_kappa, dice, mean_iou
from ...models.package import ModelPackage
from ..data.case_description import check_drawn
from ..data.cohort import case_folders, read_case
from ..data.each_case import LeftOut, rows_of_all

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class SegmentationRow:
    """One scan; volumes in mL. ``mean_iou`` averages hematoma and background."""

    case: str
    scan: str
    true_ml: float
    found_ml: float
    dice: float
    mean_iou: float
    cohen_kappa: float


def evaluate_segmentation_case(
    package: ModelPackage | None, device: torch.device, folder: Path
) -> list[SegmentationRow]:
    """Rows for both scans of one case; without a package, segmentation is by threshold.

    Raises:
        InputError: a mask of the case was found automatically.
    """
    check_drawn(folder)
    case = read_case(folder)
    rows = []
    for name, subject in (("baseline", case.baseline), ("follow-up", case.followup)):
        truth, found = subject.hematoma, segment(subject.ct, subject.inside_skull, package, device)
        masks = found.voxels, truth.voxels
        agreement = dice(*masks), mean_iou(*masks), cohen_kappa(*masks)
        rows.append(SegmentationRow(case.name, name, truth.volume_ml, found.volume_ml, *agreement))
    return rows


def summarize_segmentation(rows: Sequence[SegmentationRow]) -> dict[str, dict[str, float]]:
    """For each scan: mean and smallest Dice, mean IoU (of hematoma and background, as in JPM 12:779), mean Cohen's
    kappa, and mean absolute volume error in mL.
    """
    summary: dict[str, dict[str, float]] = {}
    for scan in dict.fromkeys(row.scan for row in rows):
        own = [row for row in rows if row.scan == scan]
        summary[scan] = {
            "cases": len(own),
            "dice": float(np.mean([row.dice for row in own])),
            "smallest_dice": min(row.dice for row in own),
            "mean_iou": float(np.mean([row.mean_iou for row in own])),
            "cohen_kappa": float(np.mean([row.cohen_kappa for row in own])),
            "average_absolute_error_ml": float(np.mean([abs(row.found_ml - row.true_ml) for row in own])),
        }
    return summary


def evaluate_segmentation(
    cohort: Path, package: ModelPackage | None, device: torch.device, left_out: list[LeftOut] | None = None
) -> list[SegmentationRow]:
    """Rows for every scan of a cohort; ``left_out`` as in ``each_case.rows_of_all``, including cases with
    automatic masks.
    """
    evaluate = partial(evaluate_segmentation_case, package, device)
    return rows_of_all(evaluate, case_folders(cohort), device, left_out)
