"""A cohort on disk: one folder per case with baseline and follow-up, CT and mask."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import SimpleITK as sitk

from ..brain import extract_brain
from ..device import choose_device
from ..errors import InputError
from ..grid import resample
from ..growth import Masks
from ..head_ct import HeadCT, read_head_ct
from ..markers import describe_markers
from ..masks import read_mask, read_mask_file
from ..measures import ExpansionDefinition, measure_growth, volume_ml
from ..model_description import TrainingStep
from ..model_package import ModelPackage
from ..registration import lies_on, register
from ..risk import measurements, predict_risk_of_scan
from ..segmentation import segment
from ..workers import case_workers, use_one_torch_thread

Sample = TypeVar("Sample")

LEARNED_FROM, CALIBRATED_ON, CORRECTED_ON = "learned from", "calibrated on", "volumes corrected on"
"""Steps on the way to a model (``TrainingStep.what``)."""

_MOST_SOURCES, _LONGEST_SOURCE = 5, 60
"""What a package says of whose cases they were is to stay readable."""

CASE = "case"
"""The kind of folder that a case is, as its provenance says."""

_FEW_CASES = 6
"""So many are done sooner than workers have started."""


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
    home = folder.parent.parent if folder.parent.name == "variants" else folder
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
        name=str(folder.relative_to(home.parent)),
        baseline=baseline.image,
        baseline_mask=read_mask(folder / "baseline-mask.nii.gz", baseline),
        followup=followup_ct,
        followup_mask=followup_mask,
        inside_skull=inside_skull,
        onset_hours=description.get("onset_hours"),
    )


def expansion_probability(case: Case, hematoma: sitk.Image, package: ModelPackage, device: str) -> float:
    """What a risk model says of the case's baseline scan and a mask of the hematoma in it, 0/1 and not empty."""
    measured = measurements(describe_markers(case.baseline, hematoma), volume_ml(hematoma), case.onset_hours)
    chosen = choose_device(device)
    return predict_risk_of_scan(case.baseline, hematoma, case.inside_skull, measured, package, chosen).probability


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


def training_steps(
    cases: Sequence[Path],
    training: int,
    validation: int,
    seed: int,
    start: Sequence[ModelPackage] = (),
    *,
    what: str = LEARNED_FROM,
    details: Sequence[str] = (),
) -> tuple[TrainingStep, ...]:
    """What a model was trained on, for its package: the steps of those it began from, and this one.

    ``details``: what is said of this one besides.
    """
    said = [*details, f"{validation} more chose the weights", f"seed {seed}"]
    if start:
        names = " and ".join(package.description.name for package in start)
        said.append(f"began from {names if len(start) == 1 else f'the ensemble of {names}'}")
    return (*steps_before(start), TrainingStep(what, training, kind_of_cases(cases), ", ".join(said)))


def steps_before(models: Sequence[ModelPackage]) -> tuple[TrainingStep, ...]:
    """How models came about that are gone on from, each step once. What was fitted to their outputs no longer
    counts.
    """
    steps = [step for package in models for step in package.description.trained_on]
    return tuple(dict.fromkeys(step for step in steps if step.what not in {CALIBRATED_ON, CORRECTED_ON}))


def note_on_registration(cases: Sequence[Path]) -> str | None:
    """What is to be told where it is not said whether follow-ups lie on their baselines."""
    unsaid = sum(read_description(folder).get("registered") is None for folder in cases)
    if not unsaid:
        return None
    return (
        f"In {unsaid} of {len(cases)} cases case.json does not say whether the follow-up is registered: it is "
        "measured, and where it does not lie on the baseline, it is registered."
    )


def kind_of_cases(cases: Sequence[Path]) -> str:
    """Whether they are simulated patients or real ones, and where from."""
    found = {str(read_description(folder).get("source", "unknown source")) for folder in cases}
    if found == {"simulated"}:
        return "simulated patients, no real ones"
    sources = [source[:_LONGEST_SOURCE] for source in sorted(found)]
    more = len(sources) - _MOST_SOURCES
    named = ", ".join(sources[:_MOST_SOURCES]) + (f" and {more} more" if more > 0 else "")
    return f"patients ({named})"


def read_description(folder: Path) -> dict[str, Any]:
    """``case.json`` of a case; empty where it has none."""
    path = folder / "case.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def prepare_all(
    prepare: Callable[[Path], Sample], folders: Sequence[Path], title: str, device: str = "cpu"
) -> list[Sample]:
    """``prepare`` applied to each case folder, with a progress bar, in the given order; on all cores, unless it
    computes on a GPU, whose memory is for one, or there are few cases.
    """
    from tqdm import tqdm

    if len(folders) <= _FEW_CASES:
        return [prepare(folder) for folder in tqdm(folders, desc=title, disable=None)]
    jobs = 0 if choose_device(device).type == "cpu" else 1
    with case_workers(len(folders), jobs, prepare=use_one_torch_thread) as pool:
        return list(tqdm(pool.map(prepare, folders), total=len(folders), desc=title, disable=None))


def prepare_parts(
    prepare: Callable[[Path], list[Sample]], training: Sequence[Path], validation: Sequence[Path]
) -> tuple[list[Sample], list[Sample]]:
    """The samples that ``prepare`` gives for each case folder, those to learn from and those to validate on."""
    learned, unseen = (
        [sample for samples in prepare_all(prepare, part, f"Preparing {name} cases") for sample in samples]
        for name, part in (("training", training), ("validation", validation))
    )
    return learned, unseen


def rows_of_all(evaluate: Callable[[Path], list[Sample]], folders: Sequence[Path], device: str) -> list[Sample]:
    """The rows that ``evaluate`` gives for each case folder, one case after the other."""
    return [row for rows in prepare_all(evaluate, folders, "Cases", device) for row in rows]
