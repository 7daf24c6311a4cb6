"""Several segmentation models on the same scans, beside what is known of them, in one table."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from ...anatomy.bleeds import BLOOD, Bleeds, Kind
from ...anatomy.brain import extract_brain
from ...anatomy.segmentation import find_bleeds
from ...errors import InputError
from ...measures.agreement import dice
from ...models.package import WEIGHTS_FILE, ModelPackage
from ...scan.grid import Array, oriented
from ...scan.head_ct import HeadCT, read_head_ct
from ...scan.mask import Mask
from ...scan.mask_files import read_mask
from ..data.labelled import is_labelled, read_labelled
from ..data.reader_labels import ReadSlice
from .kinds_evaluation import COUNTS_FROM_ML

if TYPE_CHECKING:
    import torch

Models = Mapping[str, ModelPackage | None]
"""Segmentation models by name; None is the one by threshold."""


@dataclass(frozen=True)
class FoundRow:
    """What a model found in a scan, beside the truth; volumes in mL, None for what is not known.

    Where readers labeled slices: how many show a kind of blood, and in how many of those the model found that kind
    (or hematoma, which a reader would not miss); how many show none, and in how many of those it called hematoma,
    or blood of any kind.
    """

    model: str
    scan: str
    seconds: float
    intraparenchymal_ml: float
    intraventricular_ml: float | None
    extraaxial_ml: float | None
    true_ml: float | None = None
    dice: float | None = None
    intraparenchymal_slices: int | None = None
    intraparenchymal_found: int | None = None
    intraventricular_slices: int | None = None
    intraventricular_found: int | None = None
    extraaxial_slices: int | None = None
    extraaxial_told: int | None = None
    slices_without: int | None = None
    called_hematoma: int | None = None
    called_blood: int | None = None


@dataclass(frozen=True, eq=False)
class FoundScan:
    """A scan, and the bleeds that each model found in it, in the scan's stored axis order."""

    scan: HeadCT
    bleeds: Mapping[str, Bleeds]


def compare_on_cohort(
    cases: Sequence[Path], models: Models, device: torch.device
) -> Iterator[tuple[list[FoundRow], FoundScan]]:
    """Each case's baseline scan, beside its mask.

    Raises:
        HematomaError: a case cannot be read.
    """
    for folder in cases:
        scan = read_head_ct(folder / "baseline.nii.gz")
        if is_labelled(folder):
            labelled = read_labelled(folder)
            truth, inside = labelled.bleeds.hematoma, labelled.inside_skull
        else:
            truth, inside = read_mask(folder / "baseline-mask.nii.gz", scan), extract_brain(scan.image).mask
        found, seconds = _find(scan, inside, models, device)
        rows = []
        for name, bleeds in found.items():
            agreement = dice(bleeds.hematoma.voxels, truth.voxels) if truth.volume_ml >= COUNTS_FROM_ML else None
            rows.append(_row(name, folder.name, seconds[name], bleeds, true_ml=truth.volume_ml, dice=agreement))
        yield rows, _stored(scan, found)


def compare_on_labels(
    labels: Sequence[ReadSlice], folder: Path, models: Models, device: torch.device
) -> Iterator[tuple[list[FoundRow], FoundScan]]:
    """Each scan ``NAME.nii.gz`` in ``folder`` that readers labeled, beside their labels.

    Raises:
        InputError: the labels name a slice that a scan does not have.
        HematomaError: a scan cannot be read.
    """
    for name in dict.fromkeys(label.scan for label in labels):
        scan = read_head_ct(folder / f"{name}.nii.gz")
        found, seconds = _find(scan, extract_brain(scan.image).mask, models, device)
        result = _stored(scan, found)
        own = [label for label in labels if label.scan == name]
        rows = [
            _row(model, name, seconds[model], bleeds, **_counts(own, bleeds))
            for model, bleeds in result.bleeds.items()
        ]
        yield rows, result


def _find(
    scan: HeadCT, inside: Mask, models: Models, device: torch.device
) -> tuple[dict[str, Bleeds], dict[str, float]]:
    """What each model finds inside the skull, and the seconds it takes."""
    found, seconds = {}, {}
    for name, package in models.items():
        start = time.perf_counter()
        found[name] = find_bleeds(scan.image, inside, package, device)
        seconds[name] = time.perf_counter() - start
    return found, seconds


def _stored(scan: HeadCT, found: Mapping[str, Bleeds]) -> FoundScan:
    return FoundScan(scan, {name: bleeds.restored(scan) for name, bleeds in found.items()})


def _row(model: str, scan: str, seconds: float, bleeds: Bleeds, **known: float | int | None) -> FoundRow:
    return FoundRow(
        model,
        scan,
        seconds,
        bleeds.hematoma.volume_ml,
        bleeds.volume_ml(Kind.INTRAVENTRICULAR),
        bleeds.volume_ml(Kind.EXTRAAXIAL),
        **known,  # type: ignore[arg-type]
    )


def _counts(labels: Sequence[ReadSlice], bleeds: Bleeds) -> dict[str, int]:
    """Slices as in ``FoundRow``; ``bleeds`` in the scan's stored axis order."""
    slices: Array = sitk.GetArrayFromImage(oriented(bleeds.labels, "LPS"))
    beyond = [label for label in labels if label.number >= len(slices)]
    if beyond:
        raise InputError(
            f"{beyond[0].scan} has {len(slices)} slices, but the labels name number {beyond[0].number}, counted "
            "from 0."
        )
    told = {label.number: set(np.unique(slices[label.number]).tolist()) for label in labels}
    hematoma = int(Kind.INTRAPARENCHYMAL)

    def with_kind(kind: Kind) -> list[set[int]]:
        return [told[label.number] for label in labels if kind in label.kinds]

    brain, horns, outside = (with_kind(kind) for kind in BLOOD)
    without = [told[label.number] for label in labels if not label.seen]
    return {
        "intraparenchymal_slices": len(brain),
        "intraparenchymal_found": sum(hematoma in values for values in brain),
        "intraventricular_slices": len(horns),
        "intraventricular_found": sum(bool(values & {hematoma, int(Kind.INTRAVENTRICULAR)}) for values in horns),
        "extraaxial_slices": len(outside),
        "extraaxial_told": sum(int(Kind.EXTRAAXIAL) in values for values in outside),
        "slices_without": len(without),
        "called_hematoma": sum(hematoma in values for values in without),
        "called_blood": sum(bool(values & set(map(int, BLOOD))) for values in without),
    }


def summarize_models(rows: Sequence[FoundRow], models: Models) -> dict[str, dict[str, float]]:
    """For each model: its size in MB, median seconds, and what the rows say, added up or averaged."""
    summary: dict[str, dict[str, float]] = {}
    for name, package in models.items():
        own = [row for row in rows if row.model == name]
        size = 0.0 if package is None else (package.folder / WEIGHTS_FILE).stat().st_size / 1e6
        figures = {"scans": len(own), "mb": size, "seconds": float(np.median([row.seconds for row in own]))}
        agreements = [row.dice for row in own if row.dice is not None]
        if agreements:
            figures["dice"] = float(np.mean(agreements))
            figures["missed"] = sum(value == 0 for value in agreements)
        counted = [row for row in own if row.slices_without is not None]
        for field in _COUNTED if counted else ():
            figures[field] = sum(getattr(row, field) for row in counted)
        summary[name] = figures
    return summary


_COUNTED = (
    "intraparenchymal_slices", "intraparenchymal_found", "intraventricular_slices", "intraventricular_found",
    "extraaxial_slices", "extraaxial_told", "slices_without", "called_hematoma", "called_blood",
)  # fmt: skip


def comparison_table(summary: Mapping[str, Mapping[str, float]]) -> str:
    """The summary as a table in Markdown."""
    some = next(iter(summary.values()))
    columns = {"MB": "{mb:.1f}", "s per scan": "{seconds:.1f}"}
    if "dice" in some:
        columns |= {"Dice": "{dice:.3f}", "missed": "{missed:.0f}"}
    if "slices_without" in some:
        columns |= {
            "slices in the brain: found": "{intraparenchymal_found:.0f} of {intraparenchymal_slices:.0f}",
            "in ventricles: found": "{intraventricular_found:.0f} of {intraventricular_slices:.0f}",
            "outside the brain: told": "{extraaxial_told:.0f} of {extraaxial_slices:.0f}",
            "without blood: called hematoma": "{called_hematoma:.0f} of {slices_without:.0f}",
            "called blood": "{called_blood:.0f}",
        }
    lines = [f"| model | {' | '.join(columns)} |", "| --- |" + " --- |" * len(columns)]
    for name, figures in summary.items():
        cells = " | ".join(text.format_map(figures) for text in columns.values())
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines) + "\n"
