"""A cohort on disk: one folder per case with baseline and follow-up, CT and mask."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import SimpleITK as sitk

from ..brain import extract_brain
from ..device import choose_device
from ..errors import HematomaError, InputError
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
from ..scores import is_onset
from ..segmentation import segment
from ..workers import available_cores, each_result, local_workers

Sample = TypeVar("Sample")

LEARNED_FROM, CALIBRATED_ON, CORRECTED_ON = "learned from", "calibrated on", "volumes corrected on"
"""Steps on the way to a model (``TrainingStep.what``)."""

_MOST_SOURCES, _LONGEST_SOURCE = 5, 60
"""What a package says of whose cases they were is to stay readable."""

CASE = "case"
"""The kind of folder that a case is, as its provenance says."""

_FEW_CASES = 6
"""So many are done sooner than workers have started."""

_UNFORESEEN = "Its computation failed in a way that was not foreseen; the terminal shows how."
_LITTLE_MEMORY = "Its computation ended unexpectedly, most likely for lack of memory."

_IS_RIGHT: dict[str, Callable[[Any], bool]] = {
    "registered": lambda value: value is None or isinstance(value, bool),
    "onset_hours": lambda value: value is None or is_onset(value),
    "source": lambda value: isinstance(value, str),
    "masks": lambda value: isinstance(value, str),
}
"""Of what ``case.json`` says, what is read here."""


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


@dataclass(frozen=True)
class LeftOut:
    """A case that could not be used, and why: a sentence."""

    case: str
    reason: str

    def __str__(self) -> str:
        return f"{self.case} was left out. {self.reason}"


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
    home = _home(folder)
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
        name=_name(folder),
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
    return lasting_steps([step for package in models for step in package.description.trained_on])


def lasting_steps(steps: Sequence[TrainingStep]) -> tuple[TrainingStep, ...]:
    """Each of them once, without those that fitted something to a network's outputs."""
    return tuple(dict.fromkeys(step for step in steps if step.what not in {CALIBRATED_ON, CORRECTED_ON}))


def note_on_registration(cases: Sequence[Path]) -> str | None:
    """What is to be told where it is not said whether follow-ups lie on their baselines."""
    unsaid = sum(description.get("registered") is None for description in _readable_descriptions(cases))
    if not unsaid:
        return None
    return (
        f"In {unsaid} of {len(cases)} cases case.json does not say whether the follow-up is registered: it is "
        "measured, and where it does not lie on the baseline, it is registered."
    )


def kind_of_cases(cases: Sequence[Path]) -> str:
    """Whether they are simulated patients or real ones, where from, and how many have masks that nobody drew."""
    found = {str(read_description(folder).get("source", "unknown source")) for folder in cases}
    automatic = sum(has_automatic_masks(folder) for folder in cases)
    masks = f", {automatic} of them with masks found automatically" if automatic else ""
    if found == {"simulated"}:
        return f"simulated patients, no real ones{masks}"
    sources = [source[:_LONGEST_SOURCE] for source in sorted(found)]
    more = len(sources) - _MOST_SOURCES
    named = ", ".join(sources[:_MOST_SOURCES]) + (f" and {more} more" if more > 0 else "")
    return f"patients ({named}){masks}"


def has_automatic_masks(folder: Path) -> bool:
    """Whether `hematoma prepare` found a mask of the case itself, or both, for want of ones that somebody drew.

    Of a cohort made otherwise nothing is known, and its masks count as drawn.
    """
    return _says_automatic(read_description(_home(folder)))


def _says_automatic(description: Mapping[str, Any]) -> bool:
    return "automatic" in description.get("masks", "")


def check_drawn(folder: Path) -> None:
    """Refuse a case whose masks nobody drew, where a segmentation is to be measured against them.

    Raises:
        InputError: ``has_automatic_masks``.
    """
    if has_automatic_masks(folder):
        raise InputError("A mask was found automatically and drawn by nobody, so nothing can be measured by it.")


def note_on_masks(cases: Sequence[Path]) -> str | None:
    """What is to be told where masks that nobody drew stand in for the truth."""
    found = sum(map(_says_automatic, _readable_descriptions(cases)))
    if not found:
        return None
    return (
        f"In {found} of {len(cases)} cases a mask was found automatically and drawn by nobody: what is learned or "
        "measured here is agreement with the automatic segmentation there, not with the truth."
    )


def _readable_descriptions(cases: Sequence[Path]) -> list[dict[str, Any]]:
    """To tell something of a cohort before the work, which will name the cases whose own is damaged."""
    read = [_attempt(read_description, folder) for folder in cases]
    return [description for description in read if not isinstance(description, LeftOut)]


def read_description(folder: Path) -> dict[str, Any]:
    """``case.json`` of a case; empty where it has none.

    Raises:
        InputError: it cannot be read, or what it says cannot be.
    """
    path = folder / "case.json"
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        wrong = [name for name, is_right in _IS_RIGHT.items() if name in values and not is_right(values[name])]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError("The case.json of the case is damaged: mend it, or take it away.") from error
    if wrong or not isinstance(values, dict):
        raise InputError(f"The case.json of the case says what cannot be ({', '.join(wrong)}): mend it.")
    return values


def _home(folder: Path) -> Path:
    """The case to which a folder belongs: itself, or that of a synthetic variant."""
    return folder.parent.parent if folder.parent.name == "variants" else folder


def _name(folder: Path) -> str:
    return str(folder.relative_to(_home(folder).parent))


def prepare_all(
    prepare: Callable[[Path], Sample], folders: Sequence[Path], title: str, device: str = "cpu"
) -> list[Sample]:
    """``prepare`` applied to each case folder, as by ``prepare_each``.

    Raises:
        InputError: some cases cannot be used; all of them are named.
    """
    done = prepare_each(prepare, folders, title, device)
    left_out = [result for result in done if isinstance(result, LeftOut)]
    if left_out:
        raise InputError(
            f"{len(left_out)} of {len(folders)} cases cannot be used: mend or remove them. {told(left_out)}"
        )
    return [result for result in done if not isinstance(result, LeftOut)]


def readable(read: Callable[[Path], Sample], folders: Sequence[Path]) -> list[Sample]:
    """What ``read`` gives for the cases that can be read, to look at them before the work; that will name the
    others.
    """
    done = prepare_each(read, folders, "Reading masks")
    return [result for result in done if not isinstance(result, LeftOut)]


def told(left_out: Sequence[LeftOut]) -> str:
    """The cases and why they were left out, for a sentence."""
    return " ".join(f"{case.case}: {case.reason}" for case in left_out)


def prepare_each(
    prepare: Callable[[Path], Sample], folders: Sequence[Path], title: str, device: str = "cpu"
) -> list[Sample | LeftOut]:
    """``prepare`` applied to each case folder, with a progress bar, in the given order; on all cores, unless it
    computes on a GPU, whose memory is for one, or there are few cases. What is wrong with one case does not keep
    the others.
    """
    from tqdm import tqdm

    attempt = partial(_attempt, prepare)
    if len(folders) <= _FEW_CASES:
        return [attempt(folder) for folder in tqdm(folders, desc=title, disable=None)]
    workers = local_workers(available_cores() if choose_device(device).type == "cpu" else 1)
    results: dict[Path, Sample | LeftOut] = {}
    ended = each_result(partial(_boxed, attempt), folders, workers.open, 2 * workers.jobs)
    for folder, boxed in tqdm(ended, total=len(folders), desc=title, disable=None):
        results[folder] = LeftOut(_name(folder), _LITTLE_MEMORY) if boxed is None else boxed[0]
    return [results[folder] for folder in folders]


def _boxed(attempt: Callable[[Path], Sample], folder: Path) -> tuple[Sample]:
    """A result that may be None, told from none."""
    return (attempt(folder),)


def _attempt(prepare: Callable[[Path], Sample], folder: Path) -> Sample | LeftOut:
    """Called in a worker."""
    try:
        return prepare(folder)
    except HematomaError as error:
        return LeftOut(_name(folder), str(error))
    except MemoryError:
        return LeftOut(_name(folder), _LITTLE_MEMORY)
    except Exception:
        traceback.print_exc()
        return LeftOut(_name(folder), _UNFORESEEN)


def prepare_parts(
    prepare: Callable[[Path], list[Sample]], training: Sequence[Path], validation: Sequence[Path]
) -> tuple[list[Sample], list[Sample]]:
    """The samples that ``prepare`` gives for each case folder, those to learn from and those to validate on.

    Raises:
        InputError: some cases cannot be used; all of them are named.
    """
    prepared = prepare_all(prepare, [*training, *validation], "Preparing cases")
    learned, unseen = prepared[: len(training)], prepared[len(training) :]
    return [sample for own in learned for sample in own], [sample for own in unseen for sample in own]


def rows_of_all(
    evaluate: Callable[[Path], list[Sample]],
    folders: Sequence[Path],
    device: str,
    left_out: list[LeftOut] | None = None,
) -> list[Sample]:
    """The rows that ``evaluate`` gives for each case folder, one case after the other.

    ``left_out`` takes the cases that cannot be evaluated; without it, one such case is refused.

    Raises:
        InputError: none of the cases can be evaluated.
    """
    if left_out is None:
        return [row for rows in prepare_all(evaluate, folders, "Cases", device) for row in rows]
    done = prepare_each(evaluate, folders, "Cases", device)
    left_out += [result for result in done if isinstance(result, LeftOut)]
    if len(left_out) == len(folders):
        raise InputError(f"None of the {len(folders)} cases can be used. {told(left_out)}")
    return [row for rows in done if not isinstance(rows, LeftOut) for row in rows]
