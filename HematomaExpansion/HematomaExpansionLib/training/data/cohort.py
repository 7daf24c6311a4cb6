"""A cohort on disk: one folder per case, with CT and mask of baseline and follow-up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...anatomy.brain import extract_brain
from ...anatomy.mask_source import MaskSource
from ...anatomy.registration import lies_on, register
from ...errors import InputError
from ...measures.expansion import ExpansionDefinition, measure_growth
from ...scan.head_ct import HeadCT, read_head_ct
from ...scan.intensities import AIR_HU
from ...scan.mask import Mask
from ...scan.mask_files import read_mask, read_mask_file
from ...scan.resampling import resample
from ...scan.subject import Subject
from .case_description import home_of, name_of, read_description

CASE = "case"
"""The kind of a case folder in its provenance."""


@dataclass(frozen=True)
class Case:
    """A case in memory: baseline and follow-up with their hematomas, both on the baseline scan's grid.

    Both use the baseline's inside of the skull. Axes are closest to LPS, whatever their order on disk.
    """

    name: str
    baseline: Subject
    followup: Subject
    onset_hours: float | None


def case_folders(cohort: Path) -> list[Path]:
    """The cases of a cohort, sorted by name.

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
    """The cases, followed by their synthetic variants, which must stay in the same split as their case."""
    return [*cases, *(variant for case in cases for variant in sorted(case.glob("variants/*/")))]


def read_case(folder: Path) -> Case:
    """Read one case and find the inside of its skull; register its follow-up if it is not registered yet.

    ``case.json`` says whether it is; if not stated, it is measured.

    A folder ``<case>/variants/<k>`` gives that synthetic baseline with the case's own follow-up.

    Raises:
        HematomaError: a scan or mask is faulty.
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
        followup_ct = resample(followup.image, baseline.grid, outside=AIR_HU)
        followup_mask = read_mask(mask_file, baseline)
    else:
        registration = register(baseline.image, inside_skull, followup.image, extract_brain(followup.image).mask)
        followup_ct = registration.bring(followup.image, baseline.grid)
        followup_mask = registration.bring_mask(read_mask(mask_file, followup), baseline.grid)
    return Case(
        name=name_of(folder),
        baseline=Subject(baseline.image, inside_skull, read_mask(folder / "baseline-mask.nii.gz", baseline)),
        followup=Subject(followup_ct, inside_skull, followup_mask),
        onset_hours=description.get("onset_hours"),
    )


def read_baseline(folder: Path, source: MaskSource) -> tuple[HeadCT, Mask]:
    """The baseline scan of a case and its hematoma on that scan's grid: the true mask, or the automatic one, which
    may be empty.
    """
    scan = read_head_ct(folder / "baseline.nii.gz")
    if source.is_automatic:
        return scan, source.find(scan.image, extract_brain(scan.image).mask)
    return scan, read_mask(folder / "baseline-mask.nii.gz", scan)


def given_baseline(case: Case, source: MaskSource) -> Subject:
    """A case's baseline with the mask that its prediction begins from."""
    if not source.is_automatic:
        return case.baseline
    return replace(case.baseline, hematoma=source.find(case.baseline.ct, case.baseline.inside_skull))


def has_expanded(folder: Path) -> bool:
    """Whether a case's hematoma grew by more than 6 mL or a third, by its own masks."""
    baseline_ml, followup_ml = (
        read_mask_file(folder / f"{name}-mask.nii.gz").volume_ml for name in ("baseline", "followup")
    )
    return measure_growth(baseline_ml, followup_ml, ExpansionDefinition.SIX_ML).expansion


def split_by_case(folders: Sequence[Path], validation_share: float, seed: int) -> tuple[list[Path], list[Path]]:
    """Training and validation cases, at least one of each; no case is in both.

    Raises:
        InputError: there are fewer than two cases.
    """
    order = np.random.default_rng(seed).permutation(len(folders))
    count = min(max(1, round(validation_share * len(folders))), len(folders) - 1)
    if count < 1:
        raise InputError("Training needs at least two cases: one to learn from, one to validate on.")
    return [folders[i] for i in sorted(order[count:])], [folders[i] for i in sorted(order[:count])]
