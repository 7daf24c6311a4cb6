"""The table of a batch: a row for each case, made of what ``predict`` left for it or of why it left nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import __version__
from .batch_cases import RESULTS_FILE, BatchCase
from .errors import InputError
from .folders import check_output_folder, make_folder
from .prediction import PredictionOptions
from .prediction_folder import RESULT_FILE
from .scores import markers_text
from .segmentation import USER_MASK, identity_of_segmenter

DONE, FAILED = "done", "failed"

LITTLE_MEMORY = (
    "The computation ended unexpectedly, most likely for lack of memory. "
    "Close other programs, or use fewer --jobs, and run again with --resume."
)
UNFORESEEN = (
    "The computation failed in a way that was not foreseen. Run `hematoma predict` on this scan alone to see how."
)


@dataclass(frozen=True)
class CaseRow:
    """One line of ``results.csv``; volumes in mL, None where nothing was predicted. The fields are its columns.

    ``corrected_baseline_ml``: without the segmenter's bias, where its package knows that.
    ``bat_low``, ``bat_high``: the BAT score; they differ where the time from onset is not known.
    """

    case: str
    status: str
    reason: str = ""
    baseline_ml: float | None = None
    corrected_baseline_ml: float | None = None
    abc2_ml: float | None = None
    followup_ml: float | None = None
    followup_ml_low: float | None = None
    followup_ml_high: float | None = None
    growth_ml: float | None = None
    growth_relative: float | None = None
    expansion: bool | None = None
    definition: str = ""
    detectable: bool | None = None
    probability: float | None = None
    markers: str = ""
    bat_low: int | None = None
    bat_high: int | None = None
    brain: int | None = None
    onset_hours: float | None = None
    mask: str = ""
    warnings: str = ""
    seconds: float | None = None

    @property
    def unforeseen(self) -> bool:
        """Whether it failed for no reason that lies in the input."""
        return self.reason in (LITTLE_MEMORY, UNFORESEEN)


def failed_row(case: BatchCase, reason: str, seconds: float | None = None) -> CaseRow:
    """The row of a case that has no result, and why."""
    return CaseRow(
        case.name, FAILED, reason, onset_hours=case.onset_hours, mask=_mask_origin(case), seconds=seconds
    )


def predicted_row(case: BatchCase, result: dict[str, Any]) -> CaseRow:
    """The row of what ``prediction.json`` holds."""
    followup, growth = result["followup"] or {}, result["growth"] or {}
    bat = (result["scores"] or {}).get("bat", {"total": None})
    low, high = (
        bat.get(f"total_if_{when}") if bat["total"] is None else bat["total"] for when in ("late", "early")
    )
    return CaseRow(
        case=case.name,
        status=DONE,
        baseline_ml=result["baseline"]["volume_ml"],
        corrected_baseline_ml=result["baseline"].get("corrected_volume_ml"),
        abc2_ml=result["baseline"]["abc2_ml"],
        followup_ml=followup.get("volume_ml"),
        followup_ml_low=followup.get("volume_ml_low"),
        followup_ml_high=followup.get("volume_ml_high"),
        growth_ml=growth.get("absolute_ml"),
        growth_relative=growth.get("relative"),
        expansion=growth.get("expansion"),
        definition=growth.get("definition", ""),
        detectable=growth.get("detectable"),
        probability=(result["risk"] or {}).get("probability"),
        markers="" if result["markers"] is None else markers_text(result["markers"]),
        bat_low=low,
        bat_high=high,
        brain=((result["scores"] or {}).get("brain") or {}).get("total"),
        onset_hours=case.onset_hours,
        mask=_mask_origin(case),
        warnings=" ".join(result["input"]["warnings"]),
        seconds=result["timing_s"]["total"],
    )


def _mask_origin(case: BatchCase) -> str:
    return "automatic" if case.mask is None else "given"


def finished_rows(cases: Sequence[BatchCase], output: Path, options: PredictionOptions) -> dict[str, CaseRow]:
    """The rows, by name, of the cases that have a result in ``output``."""
    rows = {}
    for case in cases:
        result = _read_result(output / case.name)
        if result is None:
            continue
        if not _is_made_so(result, case, options):
            raise InputError(
                "Cases in the output folder were made with another model, definition, mask, time from onset, "
                "clinical data or version of this software. Resume with the same, or name a new folder."
            )
        rows[case.name] = predicted_row(case, result)
    return rows


def _read_result(folder: Path) -> Any:
    """What ``prediction.json`` there holds; None where there is none, or a damaged one."""
    try:
        return json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _is_made_so(result: Any, case: BatchCase, options: PredictionOptions) -> bool:
    segmenter = USER_MASK if case.mask is not None else identity_of_segmenter(options.segmenter)
    try:
        risk = None if options.risk is None or result["markers"] is None else options.risk.identity
        return (
            result["software"]["version"] == __version__
            and result["models"] == {"segmentation": segmenter, "growth": options.growth.identity}
            and (result["risk"] or {}).get("model") == risk
            and result["input"]["onset_hours"] == case.onset_hours
            and result["input"]["clinical"] == asdict(case.clinical)
            and (result["growth"] is None or result["growth"]["definition"] == options.expansion_definition.text)
        )
    except (KeyError, TypeError):
        return False


def check_batch_folder(output: Path, resume: bool) -> None:
    """Raise ``InputError`` where a batch cannot be written, before anything is computed."""
    earlier = (output / RESULTS_FILE).exists() or any(output.glob(f"*/{RESULT_FILE}"))
    if earlier and not resume:
        raise InputError(
            "The output folder holds the results of an earlier run: add --resume to go on with it, "
            "or name a new folder."
        )
    if not earlier:
        check_output_folder(output, "batch")
    make_folder(output)
