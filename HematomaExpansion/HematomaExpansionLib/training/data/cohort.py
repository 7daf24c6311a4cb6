"""A cohort on disk: one folder per case with baseline and follow-up, CT and mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ...anatomy.brain import extract_brain
from ...anatomy.registration import lies_on, register
from ...anatomy.segmentation import segment
from ...device import choose_device
from ...errors import InputError
from ...forecast.followup_range import Masks
from ...measures.expansion import ExpansionDefinition, measure_growth
from ...measures.volumes import volume_ml
from ...models.package import ModelPackage
from ...scan.head_ct import HeadCT, read_head_ct
from ...scan.masks import read_mask, read_mask_file
from ...scan.resampling import resample
from .case_description import home_of, name_of, read_description

CASE = "case"
"""The kind of folder that a case is, as its provenance says."""


@dataclass(frozen=True)
class Case:
    """A case in memory, all on the baseline scan's grid: CTs in HU, masks 0/1, LPS.

    Axes are in the order nearest LPS, whatever the order on disk.
    """

    name: str
    baseline: sitk.Image
    baseline_mask: sitk.Image
    followup: sitk.Image
    followup_mask: sitk.Image
    inside_skull: sitk.Image
    onset_hours: float | None


def case_folders(cohort: Path) -> list[Path]:
    """The cases of a cohort in the order of their names.

    Raises:
        InputError: the folder holds no case.
    """
    folders = sorted(folder.parent for folder in cohort.glob("*/baseline.nii.gz"))
    if not folders:
        raise InputError(
            "The cohort holds no case: it should have one folder per case with baseline.nii.gz, "
            "baseline-mask.nii.gz, followup.nii.gz and followup-mask.nii.gz."
        )
    return folders


def with_variants(cases: Sequence[Path]) -> list[Path]:
    """The cases and, after them, their synthetic variants, which belong where their case belongs."""
    return [*cases, *(variant for case in cases for variant in sorted(case.glob("variants/*/")))]


def read_case(folder: Path) -> Case:
    """Read one case and find the inside of its skull; its follow-up is registered where it is not yet.

    That it is, ``case.json`` says; where that says nothing, it is measured.

    A folder ``<case>/variants/<k>`` gives that synthetic baseline with the case's own follow-up.

    Raises:
        HematomaError: a scan or a mask is at fault.
    """
    home = home_of(folder)
    baseline = read_head_ct(folder / "baseline.nii.gz")
    followup = read_head_ct(home / "followup.nii.gz")
    inside_skull = extract_brain(baseline.image).mask
    mask_file = home / "followup-mask.nii.gz"
    description = read_description(home)
    registered = description.get("registered")
    if registered is None:
        registered = lies_on(baseline.image, inside_skull, followup.image)
    if registered:
        followup_ct = resample(followup.image, baseline.grid, outside=-1024.0)
        followup_mask = read_mask(mask_file, baseline)
    else:
        registration = register(baseline.image, inside_skull, followup.image, extract_brain(followup.image).mask)
        followup_ct = registration.bring(followup.image, baseline.grid)
        followup_mask = registration.bring_mask(read_mask(mask_file, followup), baseline.grid)
    return Case(
        name=name_of(folder),
        baseline=baseline.image,
        baseline_mask=read_mask(folder / "baseline-mask.nii.gz", baseline),
        followup=followup_ct,
        followup_mask=followup_mask,
        inside_skull=inside_skull,
        onset_hours=description.get("onset_hours"),
    )


def read_baseline(
    folder: Path, masks: Masks, segmenter: ModelPackage | None, device: str
) -> tuple[HeadCT, sitk.Image]:
    """The baseline scan of a case and its hematoma on that scan's grid: the true mask, or the automatic one, which
    may be empty.
    """
    scan = read_head_ct(folder / "baseline.nii.gz")
    if masks == "true":
        return scan, read_mask(folder / "baseline-mask.nii.gz", scan)
    return scan, segment(scan.image, extract_brain(scan.image).mask, segmenter, choose_device(device))


def has_expanded(folder: Path) -> bool:
    """Whether a case's hematoma grew by more than 6 mL or a third, by its own masks."""
    baseline_ml, followup_ml = (
        volume_ml(read_mask_file(folder / f"{name}-mask.nii.gz")) for name in ("baseline", "followup")
    )
    return measure_growth(baseline_ml, followup_ml, ExpansionDefinition.SIX_ML).expansion


def split_by_case(folders: Sequence[Path], validation_share: float, seed: int) -> tuple[list[Path], list[Path]]:
    """Training and validation cases, at least one of each; a case is never on both sides."""
    order = np.random.default_rng(seed).permutation(len(folders))
    count = min(max(1, round(validation_share * len(folders))), len(folders) - 1)
    if count < 1:
        raise InputError("Training needs at least two cases: one to learn from, one to validate on.")
    return [folders[i] for i in sorted(order[count:])], [folders[i] for i in sorted(order[:count])]
