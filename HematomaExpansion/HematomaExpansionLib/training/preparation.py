"""A hospital's pairs of scans made into a cohort: read, registered, masks carried along, checked.

After Abramova 2024, section 2.1: patients within 12 hours of onset, baseline hematoma of at least 5 mL without
blood in the ventricles, supratentorial, expanded. What can be measured is checked and reported; no case is left
out for it, since training needs patients of both kinds.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import SimpleITK as sitk

from ..comparison import Comparison, ScanWithMask, compare
from ..errors import HematomaError, InputError
from ..head_ct import read_head_ct, read_mask
from ..measures import volume_ml
from ..model_package import ModelPackage
from ..prediction_folder import as_int16, whole_or_nothing

COLUMNS = ("case", "baseline", "followup", "baseline_mask", "followup_mask", "onset_hours")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LATEST_HOURS, _SMALLEST_ML = 12.0, 5.0


@dataclass(frozen=True)
class PreparedCase:
    """One line of the report; volumes in mL. The checks are None where they cannot be made.

    ``within_12_hours``, ``at_least_5_ml`` and ``expanded`` are the paper's criteria; that the bleed is
    supratentorial and spares the ventricles has to be checked by eye.
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


@dataclass(frozen=True)
class Pair:
    """One line of the list: the two scans of a patient, and their masks where they are known."""

    case: str
    baseline: Path
    followup: Path
    baseline_mask: Path | None
    followup_mask: Path | None
    onset_hours: float | None


def read_pairs(table: Path) -> list[Pair]:
    """The lines of a CSV file with the columns case, baseline, followup, and if known baseline_mask,
    followup_mask, onset_hours. Paths are relative to the file.

    Raises:
        InputError: a column or value is missing or wrong, or two cases have one name.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError("The list of pairs cannot be read: give a CSV file in UTF-8.") from error
    pairs = [_pair(row, number, table.parent) for number, row in enumerate(rows, start=2)]
    if not pairs:
        raise InputError("The list of pairs is empty: below the names of the columns comes one line per patient.")
    names = [pair.case for pair in pairs]
    if len(set(names)) < len(names):
        raise InputError("Two lines of the list name the same case: each needs a name of its own.")
    return pairs


def _pair(row: Mapping[str, str | None], number: int, folder: Path) -> Pair:
    values = {name: (row.get(name) or "").strip() for name in COLUMNS}
    if not all(values[name] for name in ("case", "baseline", "followup")):
        raise InputError(f"Line {number} of the list lacks case, baseline or followup.")
    if not _NAME.fullmatch(values["case"]):
        raise InputError(
            f"Line {number} of the list: a case's name may hold letters, digits, dot, dash and underscore only, "
            "and should not be the patient's."
        )
    try:
        hours = float(values["onset_hours"]) if values["onset_hours"] else None
    except ValueError as error:
        raise InputError(f"Line {number} of the list: onset_hours is not a number.") from error
    return Pair(
        case=values["case"],
        baseline=folder / values["baseline"],
        followup=folder / values["followup"],
        baseline_mask=folder / values["baseline_mask"] if values["baseline_mask"] else None,
        followup_mask=folder / values["followup_mask"] if values["followup_mask"] else None,
        onset_hours=hours,
    )


def prepare_cohort(
    pairs: list[Pair], output: Path, source: str, segmenter: ModelPackage | None, device: str
) -> Iterator[PreparedCase]:
    """Prepare each pair and yield its line of the report; cases already in ``output`` are done anew.

    A pair that cannot be used is a line with its reason.
    """
    output.mkdir(parents=True, exist_ok=True)
    for pair in pairs:
        try:
            yield _prepared(pair, output, source, segmenter, device)
        except HematomaError as error:
            yield PreparedCase(pair.case, False, str(error))


def _prepared(pair: Pair, output: Path, source: str, segmenter: ModelPackage | None, device: str) -> PreparedCase:
    baseline, followup = (_read(pair.baseline, pair.baseline_mask), _read(pair.followup, pair.followup_mask))
    comparison = compare(baseline, followup, None, segmenter, device)
    result, growth = comparison.result, comparison.result["growth"]
    if growth is None or volume_ml(comparison.followup_mask) == 0:
        raise InputError("No hematoma was found in one of the scans: give its mask.")
    given = [mask is not None for mask in (pair.baseline_mask, pair.followup_mask)]
    line = PreparedCase(
        case=pair.case,
        prepared=True,
        baseline_ml=result["baseline"]["volume_ml"],
        followup_ml=result["followup"]["volume_ml"],
        masks="given" if all(given) else "automatic" if not any(given) else "one given, one automatic",
        overlap=comparison.registration.overlap,
        within_12_hours=None if pair.onset_hours is None else pair.onset_hours <= _LATEST_HOURS,
        at_least_5_ml=result["baseline"]["volume_ml"] >= _SMALLEST_ML,
        expanded=growth["expansion"],
    )
    _write(comparison, output / pair.case, {**asdict(line), "onset_hours": pair.onset_hours, "source": source})
    return line


def _read(scan: Path, mask: Path | None) -> ScanWithMask:
    read = read_head_ct(scan)
    return ScanWithMask(read, None if mask is None else read_mask(mask, read))


def _write(comparison: Comparison, folder: Path, description: dict[str, object]) -> None:
    images = {
        "baseline": as_int16(comparison.baseline_ct),
        "baseline-mask": comparison.baseline_mask,
        "followup": as_int16(comparison.followup_ct),
        "followup-mask": comparison.followup_mask,
    }
    with whole_or_nothing(folder) as scratch:
        for name, image in images.items():
            sitk.WriteImage(image, scratch / f"{name}.nii.gz", useCompression=True, compressionLevel=1)
        values = {"research_use_only": True, "registered": True, **description}
        (scratch / "case.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def write_report(lines: list[PreparedCase], path: Path) -> None:
    """All lines as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(asdict(lines[0])))
        writer.writeheader()
        writer.writerows(asdict(line) for line in lines)
