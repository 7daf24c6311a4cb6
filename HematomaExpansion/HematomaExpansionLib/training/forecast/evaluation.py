"""How well forecasts do on a cohort with known follow-ups: whether, how much, and where.

Beside them stand rivals that forecast one volume for sure: no growth, uniform dilation by the growth model's mean,
and uniform dilation that is told the true volume.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from sklearn.model_selection import LeaveOneOut, StratifiedKFold

from ...anatomy.mask_source import MaskSource
from ...errors import InputError
from ...forecast.forecast import Circumstances, Forecast, ForecastModel, make_forecast
from ...growth.outcomes import Outcomes, mask_of_outcome
from ...growth.probability_map import share_with_blood
from ...growth.warping import with_part
from ...measures.agreement import growth_dice
from ...models.description import MEAN_GROWTH
from ...models.package import ModelPackage
from ...scan.grid import Array, Grid
from ...scan.mask import Mask
from ..data.case_description import kind_of_cases
from ..data.cohort import Case, case_folders
from ..data.each_case import LeftOut, prepare_each, reasons
from ..rivals import MEAN_DILATION, NO_GROWTH, TRUE_VOLUME_DILATION, uniform_dilation
from ..statistics import auc
from .calibration import calibrated
from .samples import ForecastSample, measure_cohort, sample_of
from .whether import how_well

CALIBRATED = "calibrated"
"""The method of forecasts that were fitted anew on the other folds."""

MAP_BINS = 10
_DRAWS = 200
# Voxels that are certain, by the map, would drown all others.
_UNCERTAIN = (0.01, 0.99)


@dataclass(frozen=True)
class ForecastRow:
    """One case, forecast by one method; volumes in mL, None where a method says nothing.

    Attributes:
        probability: of expansion.
        low_ml, high_ml: 80 % range among all outcomes.
        if_expands_ml, if_expands_low_ml, if_expands_high_ml: median and 80 % range if it expands.
        crps_ml: continuous ranked probability score of the volume; of one volume for sure, its absolute error.
        growth_dice: of the outcome "if it expands" (or of the rival's only one); None if nothing grew.
    """

    case: str
    method: str
    masks: str
    expanded: bool
    baseline_ml: float
    given_ml: float
    followup_ml: float
    probability: float | None
    expected_ml: float
    low_ml: float | None
    high_ml: float | None
    if_expands_ml: float | None
    if_expands_low_ml: float | None
    if_expands_high_ml: float | None
    crps_ml: float
    growth_dice: float | None


_OF_FORECASTS = (
    "probability",
    "low_ml",
    "high_ml",
    "if_expands_ml",
    "if_expands_low_ml",
    "if_expands_high_ml",
)
"""What rivals do not tell."""


@dataclass(frozen=True)
class MapBins:
    """What a map said and what came, by tenths of its probability: mL of tissue, of blood expected, of blood
    found.
    """

    method: str
    tissue_ml: tuple[float, ...]
    expected_ml: tuple[float, ...]
    found_ml: tuple[float, ...]


@dataclass(frozen=True)
class ForecastEvaluation:
    """What to evaluate: forecasts by name, and the growth model and masks that they begin from."""

    growth: ModelPackage
    source: MaskSource
    forecasts: Mapping[str, ForecastModel]


@dataclass
class ForecastFigures:
    """The rows and maps of a cohort."""

    rows: list[ForecastRow] = field(default_factory=list)
    maps: list[MapBins] = field(default_factory=list)


def evaluate_forecast(cohort: Path, evaluation: ForecastEvaluation, left_out: list[LeftOut]) -> ForecastFigures:
    """The forecasts and their rivals on every case of a cohort."""
    return _figures(dict.fromkeys(case_folders(cohort), evaluation), evaluation.source, left_out)


def cross_validate_forecast(
    cohort: Path, evaluation: ForecastEvaluation, folds: int, seed: int, left_out: list[LeftOut]
) -> ForecastFigures:
    """The same, and beside them the first forecast calibrated on the other folds; ``folds`` 0 leaves one out.

    Raises:
        InputError: the cohort cannot be divided so.
    """
    cases = case_folders(cohort)
    samples = measure_cohort(cases, evaluation.growth, evaluation.source, left_out)
    by_name = {sample.case: sample for sample in samples}
    used = [case for case in cases if case.name in by_name]
    expanded = np.array([by_name[case.name].expanded for case in used], bool)
    if min(np.count_nonzero(expanded), np.count_nonzero(~expanded)) < max(folds, 1):
        raise InputError(f"The cohort cannot be divided into {folds} folds: each needs patients of both kinds.")
    first, whose = next(iter(evaluation.forecasts.values())), kind_of_cases(cases)
    of_case: dict[Path, ForecastEvaluation] = {}
    division = StratifiedKFold(folds, shuffle=True, random_state=seed) if folds else LeaveOneOut()
    for kept, unseen in division.split(used, expanded):
        anew = calibrated(first, [by_name[used[k].name] for k in kept], whose)
        both = {**evaluation.forecasts, CALIBRATED: anew}
        in_fold = ForecastEvaluation(evaluation.growth, evaluation.source, both)
        of_case |= {used[k]: in_fold for k in unseen}
    return _figures(of_case, evaluation.source, left_out)


def _figures(
    of_case: Mapping[Path, ForecastEvaluation], source: MaskSource, left_out: list[LeftOut]
) -> ForecastFigures:
    done = prepare_each(partial(_of_case, of_case), sorted(of_case), "Evaluating", source.device)
    failed = [each for each in done if isinstance(each, LeftOut)]
    if len(failed) == len(done):
        raise InputError(f"None of the cases can be evaluated. {reasons(failed)}")
    left_out += failed
    figures = ForecastFigures()
    for each in done:
        if not isinstance(each, LeftOut):
            figures.rows += each.rows
            figures.maps += each.maps
    return figures


def _of_case(of_case: Mapping[Path, ForecastEvaluation], folder: Path) -> ForecastFigures:
    evaluation = of_case[folder]
    sample, case, outcomes = sample_of(folder, evaluation.growth, evaluation.source)
    figures = ForecastFigures()
    for method, model in evaluation.forecasts.items():
        forecast = forecast_of(model, sample)
        figures.rows.append(_row_of_forecast(method, sample, case, outcomes, forecast))
        figures.maps.append(_bins(method, case, outcomes, forecast))
    subject = outcomes.subject
    mean = 1 + evaluation.growth.description.result(MEAN_GROWTH)
    volumes = {
        NO_GROWTH: subject.hematoma.volume_ml,
        MEAN_DILATION: mean * subject.hematoma.volume_ml,
        TRUE_VOLUME_DILATION: sample.followup_ml,
    }
    for method, volume in volumes.items():
        dilated = uniform_dilation(subject, volume)
        figures.rows.append(_row_of_rival(method, sample, case, subject.hematoma, dilated))
    return figures


def forecast_of(model: ForecastModel, sample: ForecastSample) -> Forecast:
    """The forecast of a sample."""
    around = Circumstances(masks=sample.masks, network_growth=sample.network_growth, largest_ml=sample.largest_ml)
    return make_forecast(model, sample.facts, around)


def _identity(method: str, sample: ForecastSample, case: Case) -> dict[str, Any]:
    """What a row says of its case, whatever the method."""
    return {
        "case": sample.case,
        "method": method,
        "masks": sample.masks,
        "expanded": sample.expanded,
        "baseline_ml": case.baseline.hematoma.volume_ml,
        "given_ml": sample.facts.volume_ml,
        "followup_ml": sample.followup_ml,
    }


def _row_of_forecast(
    method: str, sample: ForecastSample, case: Case, outcomes: Outcomes, forecast: Forecast
) -> ForecastRow:
    from scoringrules import crps_ensemble

    distribution, told = forecast.distribution, forecast.described
    draws = np.array([distribution.quantile(share) for share in (np.arange(_DRAWS) + 0.5) / _DRAWS])
    predicted = _on_scan(mask_of_outcome(outcomes.order, forecast.if_expands_ml), outcomes)
    volumes, if_expands = told["volume_ml"], told["if_expands"]
    return ForecastRow(
        **_identity(method, sample, case),
        probability=told["probability_of_expansion"],
        expected_ml=told["expected_ml"],
        low_ml=volumes["10"],
        high_ml=volumes["90"],
        if_expands_ml=if_expands["volume_ml"],
        if_expands_low_ml=if_expands["low"],
        if_expands_high_ml=if_expands["high"],
        crps_ml=float(crps_ensemble(np.float64(sample.followup_ml), draws)),
        growth_dice=_growth_dice(case, outcomes.subject.hematoma, predicted),
    )


def _row_of_rival(
    method: str, sample: ForecastSample, case: Case, hematoma: Mask, predicted: Array
) -> ForecastRow:
    volume = np.count_nonzero(predicted) * hematoma.grid.voxel_volume_ml
    untold: dict[str, Any] = dict.fromkeys(_OF_FORECASTS)
    return ForecastRow(
        **_identity(method, sample, case),
        **untold,
        expected_ml=volume,
        crps_ml=abs(volume - sample.followup_ml),
        growth_dice=_growth_dice(case, hematoma, predicted),
    )


def _growth_dice(case: Case, given: Mask, predicted: Array) -> float | None:
    score = growth_dice(given.voxels, predicted, case.baseline.hematoma.voxels, case.followup.hematoma.voxels)
    return None if np.isnan(score) else score


def _on_scan(part: Mask, outcomes: Outcomes) -> Array:
    """A mask on part of the scan's grid as booleans (z, y, x) on all of it."""
    return Mask(with_part(outcomes.subject.hematoma.image * 0, part.image)).voxels


def _bins(method: str, case: Case, outcomes: Outcomes, forecast: Forecast) -> MapBins:
    """The map against the true follow-up, where the map is not certain."""
    grid = Grid.of(outcomes.order)
    probability = sitk.GetArrayFromImage(share_with_blood(outcomes.order, forecast.distribution))
    truth = case.followup.hematoma.within(grid).voxels
    low, high = _UNCERTAIN
    uncertain = (probability > low) & (probability < high)
    said, came = probability[uncertain], truth[uncertain]
    number = np.minimum((said * MAP_BINS).astype(int), MAP_BINS - 1)

    def summed(weights: Array | None = None) -> tuple[float, ...]:
        counts = np.bincount(number, weights, minlength=MAP_BINS) * grid.voxel_volume_ml
        return tuple(float(each) for each in counts)

    return MapBins(method, summed(), summed(said), summed(came.astype(float)))


# --- summary --------------------------------------------------------------------------------------------


def summarize_forecast(figures: ForecastFigures) -> dict[str, dict[str, float]]:
    """For each method, whether, how much and where.

    ``crps_ml`` with ``p_crps``, and ``growth_dice`` (of those who expanded) with ``p_growth_dice``: paired t-tests
    against the first method. ``coverage``: share of the true volumes in the 80 % range; ``coverage_if_expands``:
    the same of those who expanded and the range if it expands. ``map_error``: expected calibration error of the
    map, over all tissue of which it is not certain.
    """
    from scipy.stats import ttest_rel

    rows = figures.rows
    methods = list(dict.fromkeys(row.method for row in rows))
    first = [row for row in rows if row.method == methods[0]]
    summary: dict[str, dict[str, float]] = {}
    for method in methods:
        own = [row for row in rows if row.method == method]
        expanded = np.array([row.expanded for row in own])
        entry: dict[str, float] = {"cases": len(own), "expanders": int(expanded.sum())}
        entry["crps_ml"] = float(np.mean([row.crps_ml for row in own]))
        entry["error_ml"] = float(np.mean([row.expected_ml - row.followup_ml for row in own]))
        pairs = [
            (mine.growth_dice, theirs.growth_dice)
            for mine, theirs in zip(own, first, strict=True)
            if mine.expanded and mine.growth_dice is not None and theirs.growth_dice is not None
        ]
        if pairs:
            entry["growth_dice"] = float(np.mean([mine for mine, _ in pairs]))
        if method != methods[0] and len(own) > 2:
            entry["p_crps"] = float(ttest_rel([row.crps_ml for row in own], [row.crps_ml for row in first]).pvalue)
            if len(pairs) > 2:
                entry["p_growth_dice"] = float(ttest_rel(*zip(*pairs, strict=True)).pvalue)
        entry |= _of_probability(own, expanded)
        maps = [bins for bins in figures.maps if bins.method == method]
        if maps:
            entry["map_error"] = map_error(maps)
        summary[method] = {name: value for name, value in entry.items() if np.isfinite(value)}
    return summary


def _of_probability(own: Sequence[ForecastRow], expanded: Array) -> dict[str, float]:
    """Figures of the methods that tell a probability and a range."""
    if any(row.probability is None for row in own):
        return {}

    def column(name: str) -> Array:
        return np.array([getattr(row, name) for row in own], float)

    true, probability, low, high = (column(name) for name in ("followup_ml", "probability", "low_ml", "high_ml"))
    entry = {
        "mean_probability": float(probability.mean()),
        "brier": float(np.mean((probability - expanded) ** 2)),
        "coverage": float(np.mean((low <= true) & (true <= high))),
        "width_ml": float(np.mean(high - low)),
    }
    if expanded.any():
        held = (column("if_expands_low_ml") <= true) & (true <= column("if_expands_high_ml"))
        entry["coverage_if_expands"] = float(held[expanded].mean())
    if expanded.any() and not expanded.all():
        area = auc(expanded, probability)
        entry |= {"auc": area.value, "auc_low": area.low, "auc_high": area.high}
        entry["slope"] = how_well(probability, expanded).slope
    return entry


def map_error(maps: Sequence[MapBins]) -> float:
    """Expected calibration error: by tenths of the map, how far the share of blood found is from the one expected,
    weighted by tissue."""
    tissue, expected, found = (
        np.sum([getattr(bins, name) for bins in maps], axis=0) for name in ("tissue_ml", "expected_ml", "found_ml")
    )
    return float(np.abs(expected - found).sum() / max(float(tissue.sum()), 1e-9))
