"""Turns a hospital's pairs of scans into a cohort: reads, registers and checks them, with their masks.

After Abramova 2024, section 2.1: patients within 12 hours of onset, baseline hematoma of at least 5 mL without
blood in the ventricles, supratentorial, expanded. Criteria that can be measured are checked and reported, but
exclude no case, since training needs patients of both kinds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...anatomy.registration import MIN_SIMILARITY
from ...batch.case_list import read_case_list
from ...comparison import SCANS_DIFFER, Comparison, ScanWithMask, compare
from ...errors import HematomaError, InputError
from ...files.csv_tables import check_table
from ...files.folders import check_output_folder, make_folder, whole_or_nothing
from ...files.provenance import Provenance
from ...markers.scores import ONSET_RANGE, is_onset
from ...models.package import ModelPackage
from ...scan.intensities import as_int16
from ...scan.volume_files import write_image
from .cohort import CASE

if TYPE_CHECKING:
    import torch

REPORT_FILE = "prepared.csv"

_MAX_HOURS, _MIN_ML = 12.0, 5.0


@dataclass(frozen=True)
class PreparedCase:
    """One line of the report; volumes in mL. The checks are None where they cannot be made.

    ``within_12_hours``, ``at_least_5_ml`` and ``expanded`` are the paper's criteria; check by eye that the
    hematoma is supratentorial and spares the ventricles.
    """

    case: str
    prepared: bool
    reason: str = ""
    baseline_ml: float | None = None
    followup_ml: float | None = None
    masks: str = ""
    overlap: float | None = None
    within_12_hours: bool | None = None
    at_least_5_ml: bool | None = None
    expanded: bool | None = None
    warnings: str = ""


@dataclass(frozen=True)
class Pair:
    """One line of the list: the two scans of a patient, and their masks if known.

    Labels: the hematoma's label in a mask with several labels.
    """

    case: str
    baseline: Path
    followup: Path
    baseline_mask: Path | None
    followup_mask: Path | None
    onset_hours: float | None
    baseline_label: str | None = None
    followup_label: str | None = None


def read_pairs(table: Path) -> list[Pair]:
    """The lines of a CSV file with the columns case, baseline, followup, and if known baseline_mask,
    baseline_label, followup_mask, followup_label, onset_hours. Paths are relative to the file.

    Raises:
        InputError: a column or value is missing or wrong, or two cases have the same name.
    """
    optional = ("baseline_mask", "baseline_label", "followup_mask", "followup_label", "onset_hours")
    lines = read_case_list(table, ("baseline", "followup"), optional, of="pairs", each="patient")
    pairs = [
        Pair(
            case=line.case,
            baseline=line.path("baseline"),
            followup=line.path("followup"),
            baseline_mask=line.optional_path("baseline_mask"),
            followup_mask=line.optional_path("followup_mask"),
            onset_hours=line.optional_number("onset_hours"),
            baseline_label=line.optional_text("baseline_label"),
            followup_label=line.optional_text("followup_label"),
        )
        for line in lines
    ]
    for line, pair in zip(lines, pairs, strict=True):
        if pair.onset_hours is not None and not is_onset(pair.onset_hours):
            raise InputError(f"Line {line.number} of the list: {ONSET_RANGE[0].lower()}{ONSET_RANGE[1:]}")
    return pairs


def check_cohort_folder(pairs: Sequence[Pair], output: Path) -> None:
    """Check, before anything is computed, that the cohort can be written.

    Raises:
        InputError: it cannot.
    """
    make_folder(output)
    check_table(PreparedCase, output / REPORT_FILE)
    for pair in pairs:
        try:
            check_output_folder(output / pair.case, CASE)
        except InputError as error:
            raise InputError(f"{pair.case}: {error}") from error


def prepare_cohort(
    pairs: list[Pair], output: Path, source: str, segmenter: ModelPackage | None, device: torch.device
) -> Iterator[PreparedCase]:
    """Prepare each pair and yield its line of the report; cases already in ``output`` are prepared again.

    A pair that cannot be used yields a line with the reason.
    """
    make_folder(output)
    for pair in pairs:
        try:
            yield _prepared(pair, output, source, segmenter, device)
        except HematomaError as error:
            yield PreparedCase(pair.case, False, str(error))


def _prepared(
    pair: Pair, output: Path, source: str, segmenter: ModelPackage | None, device: torch.device
) -> PreparedCase:
    baseline = ScanWithMask.read(pair.baseline, pair.baseline_mask, pair.baseline_label)
    followup = ScanWithMask.read(pair.followup, pair.followup_mask, pair.followup_label)
    comparison = compare(baseline, followup, None, segmenter, device)
    result, growth = comparison.result, comparison.result["growth"]
    if comparison.registration.similarity < MIN_SIMILARITY:
        raise InputError(SCANS_DIFFER)
    if growth is None:
        raise InputError(result["warnings"][-1])
    given = [mask is not None for mask in (pair.baseline_mask, pair.followup_mask)]
    line = PreparedCase(
        case=pair.case,
        prepared=True,
        baseline_ml=result["baseline"]["volume_ml"],
        followup_ml=result["followup"]["volume_ml"],
        masks="given" if all(given) else "automatic" if not any(given) else "one given, one automatic",
        overlap=comparison.registration.overlap,
        within_12_hours=None if pair.onset_hours is None else pair.onset_hours <= _MAX_HOURS,
        at_least_5_ml=result["baseline"]["volume_ml"] >= _MIN_ML,
        expanded=growth["expansion"],
        warnings=" ".join(result["warnings"]),
    )
    more = {"warnings": result["warnings"], "onset_hours": pair.onset_hours, "source": source}
    _write(comparison, output / pair.case, {**asdict(line), **more})
    return line


def _write(comparison: Comparison, folder: Path, description: dict[str, object]) -> None:
    images = {
        "baseline": as_int16(comparison.baseline_ct),
        "baseline-mask": comparison.baseline_mask.image,
        "followup": as_int16(comparison.followup_ct),
        "followup-mask": comparison.followup_mask.image,
    }
    with whole_or_nothing(folder, Provenance(CASE)) as scratch:
        for name, image in images.items():
            write_image(image, scratch / f"{name}.nii.gz")
        values = {"research_use_only": True, "registered": True, **description}
        (scratch / "case.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
