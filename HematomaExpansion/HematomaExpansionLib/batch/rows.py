"""The table of a batch: a row for each case, with its prediction or the reason it has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..anatomy.kinds import Kind
from ..errors import InputError
from ..files.folders import check_output_folder, make_folder
from ..files.provenance import Provenance, is_made_from, read_provenance
from ..forecast.forecast import columns_of
from ..markers.scores import markers_text
from ..output.prediction_folder import PREDICTION, RESULT_FILE, SCAN_AND_MASK, prediction_sources, read_result
from ..prediction import PredictionOptions
from ..scan.volume_files import stored_sha256
from .cases import RESULTS_FILE, BatchCase

DONE, FAILED = "done", "failed"
_MAX_NAMED = 5
_OF_BLEEDS = ("probability_of_hematoma", "doubtful", *(kind.key for kind in Kind), "midline_shift_mm")

WORKER_DIED = (
    "The computation ended unexpectedly, most likely for lack of memory. "
    "Close other programs, or use fewer --jobs, and run again with --resume."
)
UNEXPECTED = (
    "The computation failed in a way that was not foreseen. Run `hematoma predict` on this scan alone to see how."
)


@dataclass(frozen=True)
class CaseRow:
    """One line of ``results.csv``; volumes in mL, None where nothing was predicted. The fields are its columns.

    ``probability_of_expansion`` and the volumes are those of the forecast: percentiles among all patients like
    this one, and the median and the 80 % range among those who expand; ``followup_ml`` is that of the mask
    written. ``doubtful``: what was found is too improbable to be a hematoma, so nothing was predicted. The volumes
    of the kinds of bleeds are None where they were not looked for. ``corrected_baseline_ml``: corrected for the
    segmenter's bias, where its package knows it. ``bat_low``, ``bat_high``: the BAT score; they differ if the time
    from onset is unknown.
    """

    case: str
    status: str
    reason: str = ""
    baseline_ml: float | None = None
    corrected_baseline_ml: float | None = None
    abc2_ml: float | None = None
    probability_of_hematoma: float | None = None
    doubtful: bool | None = None
    intraparenchymal_ml: float | None = None
    intraventricular_ml: float | None = None
    extraaxial_ml: float | None = None
    edema_ml: float | None = None
    midline_shift_mm: float | None = None
    followup_ml: float | None = None
    probability_of_expansion: float | None = None
    probability_low: float | None = None
    probability_high: float | None = None
    probability_source: str = ""
    definition: str = ""
    volume_ml_10: float | None = None
    volume_ml_25: float | None = None
    volume_ml_50: float | None = None
    volume_ml_75: float | None = None
    volume_ml_90: float | None = None
    if_expands_ml: float | None = None
    if_expands_ml_low: float | None = None
    if_expands_ml_high: float | None = None
    growth_ml: float | None = None
    growth_relative: float | None = None
    detectable: bool | None = None
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
        """Whether it failed for a reason other than its input."""
        return self.reason in (WORKER_DIED, UNEXPECTED)


def failed_row(case: BatchCase, reason: str, seconds: float | None = None) -> CaseRow:
    """The row of a case that has no result, and why."""
    return CaseRow(
        case.name, FAILED, reason, onset_hours=case.onset_hours, mask=_mask_origin(case), seconds=seconds
    )


def predicted_row(case: BatchCase, result: dict[str, Any]) -> CaseRow:
    """The row for the contents of ``prediction.json``."""
    followup, growth, forecast = (result[name] or {} for name in ("followup", "growth", "forecast"))
    figures: dict[str, Any] = dict(columns_of(forecast)) if forecast else {}
    bleeds = result.get("bleeds") or {}
    figures |= {name: bleeds.get(name) for name in _OF_BLEEDS}
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
        probability_source=forecast.get("source", ""),
        definition=forecast.get("definition", ""),
        **figures,
        growth_ml=growth.get("absolute_ml"),
        growth_relative=growth.get("relative"),
        detectable=growth.get("detectable"),
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


def options_of(case: BatchCase, options: PredictionOptions) -> PredictionOptions:
    """The options for all cases, with the case's own data.

    Raises:
        InputError: its hours from onset are out of range, or the segmenter does not look in its box.
    """
    return replace(options, onset_hours=case.onset_hours, clinical=case.clinical, box=case.box)


def finished_rows(cases: Sequence[BatchCase], output: Path, options: PredictionOptions) -> dict[str, CaseRow]:
    """The rows, by name, of the cases with a result in ``output`` made from the current scan and mask.

    Raises:
        InputError: a result there was made with other options, or has been changed since.
    """
    rows, otherwise, changed = {}, [], []
    for case in cases:
        folder = output / case.name
        result = read_result(folder)
        if result is None:
            continue
        today, then = _provenance_of(case, options), read_provenance(folder)
        if today is None:  # its failure is reported when it is tried
            continue
        if then == today and is_made_from(folder, today):
            rows[case.name] = predicted_row(case, result)
        elif then == today:
            changed.append(case.name)
        elif then is None or not _differ_in_input_alone(then, today):
            otherwise.append(case.name)
    if otherwise:
        raise InputError(
            f"The results of {_listed(otherwise)} were made with another model, definition, time from onset, "
            "clinical data or version of this software. Resume with the same, or name a new folder."
        )
    if changed:
        raise InputError(
            f"The results of {_listed(changed)} were changed since they were written, so they do not count as "
            "finished. Move them elsewhere and resume, or name a new folder."
        )
    return rows


def _provenance_of(case: BatchCase, options: PredictionOptions) -> Provenance | None:
    """The provenance a prediction of the case would have now; None if the case cannot be predicted."""
    try:
        scan = stored_sha256(case.scan, case.subfolders)
        return Provenance(PREDICTION, prediction_sources(scan, case.mask, case.label, options_of(case, options)))
    except (OSError, InputError):
        return None


def _differ_in_input_alone(then: Provenance, today: Provenance) -> bool:
    """Whether only the scan or mask was replaced; if a mask was added or removed, the segmenter may differ too."""

    def rest(provenance: Provenance) -> dict[str, Any]:
        models = {**provenance.made_from["models"], "segmentation": None}
        return {**provenance.made_from, SCAN_AND_MASK: None, "models": models}

    try:
        masked = [provenance.made_from[SCAN_AND_MASK]["mask"] is not None for provenance in (then, today)]
        models = [provenance.made_from["models"]["segmentation"] for provenance in (then, today)]
        same_way = masked[0] != masked[1] or models[0] == models[1]
        return same_way and then.version == today.version and rest(then) == rest(today)
    except (LookupError, TypeError):
        return False


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MAX_NAMED
    return ", ".join(names[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def check_batch_folder(output: Path, resume: bool) -> None:
    """Raise ``InputError`` if a batch cannot be written, before anything is computed."""
    earlier = (output / RESULTS_FILE).exists() or any(output.glob(f"*/{RESULT_FILE}"))
    if earlier and not resume:
        raise InputError(
            "The output folder holds the results of an earlier run: add --resume to go on with it, "
            "or name a new folder."
        )
    if not earlier:
        check_output_folder(output, "batch")
    make_folder(output)
