"""How well a segmentation tells the kinds of bleeds apart, on labelled scans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...anatomy.segmentation import find_bleeds
from ...measures.agreement import dice
from ...models.package import ModelPackage
from ..data.cohort import case_folders
from ..data.each_case import LeftOut, rows_of_all
from ..data.labelled import read_labelled

if TYPE_CHECKING:
    import torch

COUNTS_FROM_ML = 1.0
"""Dice is averaged over scans with at least this much of a kind: of less, a voxel more or less decides."""


@dataclass(frozen=True)
class KindRow:
    """One kind of bleed in one scan; volumes in mL. ``probability``: that there is a hematoma, if told."""

    case: str
    kind: str
    true_ml: float
    found_ml: float
    dice: float
    probability: float | None


def evaluate_kinds_case(package: ModelPackage | None, device: torch.device, folder: Path) -> list[KindRow]:
    """A row for each kind that the package looks for."""
    scan = read_labelled(folder)
    found, truth = find_bleeds(scan.ct, scan.inside_skull, package, device), scan.bleeds
    probability = None if found.presence is None else found.presence.probability
    rows = []
    for kind in sorted(found.looked_for):
        own, true = found.of_kind(kind), truth.of_kind(kind)
        agreement = dice(own.voxels, true.voxels)
        name = kind.name.lower()
        rows.append(KindRow(folder.name, name, true.volume_ml, own.volume_ml, agreement, probability))
    return rows


def summarize_kinds(rows: Sequence[KindRow]) -> dict[str, dict[str, float]]:
    """For each kind: mean Dice and absolute error in mL where it is present, share of it found at all, and in
    scans without it the share called and the 95th percentile of the volume called.
    """
    summary: dict[str, dict[str, float]] = {}
    for kind in dict.fromkeys(row.kind for row in rows):
        own = [row for row in rows if row.kind == kind]
        present = [row for row in own if row.true_ml >= COUNTS_FROM_ML]
        absent = [row.found_ml for row in own if row.true_ml == 0]
        figures: dict[str, float] = {"present": len(present), "absent": len(absent)}
        if present:
            figures |= {
                "dice": float(np.mean([row.dice for row in present])),
                "found": float(np.mean([row.found_ml > 0 for row in present])),
                "average_absolute_error_ml": float(np.mean([abs(row.found_ml - row.true_ml) for row in present])),
            }
        if absent:
            figures |= {
                "called_where_absent": float(np.mean(np.array(absent) > 0)),
                "false_ml_95": float(np.percentile(absent, 95)),
            }
        summary[kind] = figures
    return summary


def evaluate_kinds(
    cohort: Path, package: ModelPackage | None, device: torch.device, left_out: list[LeftOut] | None = None
) -> list[KindRow]:
    """Rows for every scan of a cohort; ``left_out`` as in ``each_case.rows_of_all``."""
    return rows_of_all(partial(evaluate_kinds_case, package, device), case_folders(cohort), device, left_out)
