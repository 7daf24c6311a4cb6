"""How well a model does on a cohort whose truth is known.

Growth is measured as in Abramova 2024, section 3: Dice of the growth area, average error and average absolute
error of the follow-up volume, Dice of the lesion. Beside the model stand the rivals that need none: copy of the
baseline, uniform dilation by the training cohort's mean growth, and the same with the true volume told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ...anatomy.mask_source import MaskSource
from ...errors import InputError
from ...forecast.followup_range import told_range
from ...forecast.strength import growth_strength, may_follow, unfollowed
from ...growth.growth import predict_growth
from ...growth.warping import smallest_jacobian
from ...measures.agreement import dice, growth_dice
from ...measures.expansion import ExpansionDefinition, measure_growth
from ...models.description import GROWTH_BY_PROBABILITY, MEAN_GROWTH
from ...models.package import ModelPackage
from ...scan.grid import Array
from ...scan.shapes import signed_distance
from ...scan.subject import Subject
from ..data.cohort import Case, case_folders, read_case
from ..data.each_case import LeftOut, rows_of_all
from .samples import expansion_probability

NO_GROWTH, MEAN_DILATION, TOLD_DILATION = "no growth", "uniform dilation", "uniform dilation, true volume told"


@dataclass(frozen=True)
class GrowthRow:
    """One case and one way to predict it; volumes in mL. ``given_ml`` is that of the mask it began from."""

    case: str
    method: str
    baseline_ml: float
    followup_ml: float
    given_ml: float
    predicted_ml: float
    growth_dice: float
    lesion_dice: float
    low_ml: float | None = None
    high_ml: float | None = None
    smallest_jacobian: float | None = None

    @property
    def expanded(self) -> bool:
        """Whether the true hematoma grew by more than 6 mL or a third."""
        return measure_growth(self.baseline_ml, self.followup_ml, ExpansionDefinition.SIX_ML).expansion

    @property
    def error_ml(self) -> float:
        """Predicted minus true follow-up volume."""
        return self.predicted_ml - self.followup_ml

    @property
    def range_ml(self) -> tuple[float, float] | None:
        """Where the follow-up volume of 80 % of patients lies, by a model that tells it."""
        return None if self.low_ml is None or self.high_ml is None else (self.low_ml, self.high_ml)

    @property
    def expansion_score(self) -> float:
        """Predicted growth in units of what counts as expansion, by whichever of its two limits is nearer."""
        growth = self.predicted_ml - self.given_ml
        return max(growth / 6.0, growth / (0.33 * self.given_ml)) if self.given_ml else 0.0


@dataclass(frozen=True)
class GrowthEvaluation:
    """What to evaluate: growth packages, the first of which lends its training mean to the dilation, and from
    which masks they begin. ``risk`` tells the probability of expansion to those whose growth follows it; None
    leaves them without.
    """

    packages: tuple[ModelPackage, ...]
    source: MaskSource
    risk: ModelPackage | None = None

    def told(self, package: ModelPackage, probability: float | None) -> float | None:
        """The probability as one of the packages is told it: not that of a model it was not fitted to."""
        if self.risk is None or not may_follow(package.description, self.risk.identity):
            return None
        return probability

    @property
    def notes(self) -> list[str]:
        """What there is to know of the figures: whose growth does not follow the probability, though it could."""
        if self.risk is None:
            return []
        described, risk = [package.description for package in self.packages], self.risk.identity
        return [unfollowed(description, risk) for description in described if not may_follow(description, risk)]


def uniform_dilation(subject: Subject, wanted_ml: float) -> Array:
    """The hematoma dilated evenly in mm, inside the skull, to that volume; (z, y, x). An empty one stays empty."""
    mask = subject.hematoma
    if mask.is_empty:
        return mask.voxels
    distance = -sitk.GetArrayFromImage(signed_distance(mask.image))
    allowed = (subject.inside_skull | mask).voxels
    nearest = np.argsort(distance[allowed], kind="stable")[: round(wanted_ml / mask.grid.voxel_volume_ml)]
    chosen = np.zeros(np.count_nonzero(allowed), bool)
    chosen[nearest] = True
    dilated = np.zeros_like(allowed)
    dilated[allowed] = chosen
    return dilated


def given_baseline(case: Case, source: MaskSource) -> Subject:
    """A case's baseline with the mask from which its prediction begins."""
    if not source.is_automatic:
        return case.baseline
    return replace(case.baseline, hematoma=source.find(case.baseline.ct, case.baseline.inside_skull))


def evaluate_growth_case(evaluation: GrowthEvaluation, folder: Path) -> list[GrowthRow]:
    """The models and their rivals on one case."""
    case = read_case(folder)
    given = given_baseline(case, evaluation.source)
    probability = given_probability(case, given, evaluation)
    rows = [
        _model_row(case, given, evaluation.told(package, probability), package, evaluation.source)
        for package in evaluation.packages
    ]
    mean = 1 + evaluation.packages[0].description.result(MEAN_GROWTH)
    wanted = {
        NO_GROWTH: given.hematoma.volume_ml,
        MEAN_DILATION: mean * given.hematoma.volume_ml,
        TOLD_DILATION: case.followup.hematoma.volume_ml,
    }
    for method, volume in wanted.items():
        rows.append(_row(case, given, method, uniform_dilation(given, volume)))
    return rows


def given_probability(case: Case, given: Subject, evaluation: GrowthEvaluation) -> float | None:
    """The probability of expansion from the given mask, where there is a model of it and one that follows it."""
    if evaluation.risk is None or given.hematoma.is_empty:
        return None
    identity, described = evaluation.risk.identity, [package.description for package in evaluation.packages]
    if not any(GROWTH_BY_PROBABILITY in model.settings and may_follow(model, identity) for model in described):
        return None
    return expansion_probability(given, case.onset_hours, evaluation.risk, evaluation.source.device)


def _model_row(
    case: Case, given: Subject, probability: float | None, package: ModelPackage, source: MaskSource
) -> GrowthRow:
    description = package.description
    if given.hematoma.is_empty:
        return _row(case, given, description.name, given.hematoma.voxels)
    growth = predict_growth(given, package, growth_strength(description, probability), source.device)
    row = _row(case, given, description.name, growth.followup_mask.voxels)
    ends = told_range(description, source.kind, probability, row.given_ml, row.predicted_ml)
    if ends is not None:
        row = replace(row, low_ml=ends[0], high_ml=ends[1])
    return replace(row, smallest_jacobian=smallest_jacobian(growth.displacement))


def _row(case: Case, given: Subject, method: str, predicted: Array) -> GrowthRow:
    baseline, followup, hematoma = case.baseline.hematoma, case.followup.hematoma, given.hematoma
    return GrowthRow(
        case=case.name,
        method=method,
        baseline_ml=baseline.volume_ml,
        followup_ml=followup.volume_ml,
        given_ml=hematoma.volume_ml,
        predicted_ml=np.count_nonzero(predicted) * hematoma.grid.voxel_volume_ml,
        growth_dice=growth_dice(hematoma.voxels, predicted, baseline.voxels, followup.voxels),
        lesion_dice=dice(predicted, followup.voxels),
    )


def summarize_growth(rows: Sequence[GrowthRow]) -> dict[str, dict[str, float]]:
    """By method, as in the paper's Table 1, and what it leaves out; the first method is what others are tested
    against.

    Volume errors in mL, over all cases and over those that expanded, of which alone the paper's cohort consists.
    ``expansion_auc``: of the predicted growth, with its 95 % interval. ``range_coverage``: share of true volumes
    in their ranges, of the cases that have one; ``range_width_ml``: mean width of these.
    ``p``: paired t-test of the growth Dice against the first method's. Deviations (``sd``) are those of the
    patients from whom these were drawn; of a single case there is none.
    """
    from scipy.stats import ttest_1samp

    from ..statistics import auc, deviation

    methods = list(dict.fromkeys(row.method for row in rows))
    scores = {method: np.array([row.growth_dice for row in rows if row.method == method]) for method in methods}
    summary: dict[str, dict[str, float]] = {}
    for method in methods:
        own = [row for row in rows if row.method == method]
        expanded = np.array([row.expanded for row in own])
        errors = np.array([row.error_ml for row in own])
        entry: dict[str, float | None] = {"cases": len(own), "expanders": int(expanded.sum())}
        for label, chosen in (("", np.ones(len(own), bool)), ("_expanders", expanded)):
            if not chosen.any():
                continue
            entry |= {
                f"lesion_dice{label}": float(np.mean([row.lesion_dice for row in own], where=chosen)),
                f"average_error_ml{label}": float(errors[chosen].mean()),
                f"average_error_sd_ml{label}": deviation(errors[chosen]),
                f"average_absolute_error_ml{label}": float(np.abs(errors[chosen]).mean()),
            }
            grown = scores[method][chosen & np.isfinite(scores[method])]
            if len(grown):
                entry |= {
                    f"growth_dice{label}": float(grown.mean()),
                    f"growth_dice_sd{label}": deviation(grown),
                }
            both = chosen & np.isfinite(scores[method]) & np.isfinite(scores[methods[0]])
            differences = scores[method][both] - scores[methods[0]][both]
            if method != methods[0] and both.sum() > 2 and np.ptp(differences) > 0:
                entry[f"p{label}"] = float(ttest_1samp(differences, 0.0).pvalue)
        if expanded.any() and not expanded.all():
            area = auc(expanded, np.array([row.expansion_score for row in own]))
            entry |= {
                "expansion_auc": area.value,
                "expansion_auc_low": area.low,
                "expansion_auc_high": area.high,
            }
        ranges = [(row.followup_ml, *row.range_ml) for row in own if row.range_ml is not None]
        if ranges:
            entry["range_coverage"] = float(np.mean([low <= true <= high for true, low, high in ranges]))
            entry["range_width_ml"] = float(np.mean([high - low for _, low, high in ranges]))
        if any(row.smallest_jacobian is not None for row in own):
            entry["smallest_jacobian"] = min(
                row.smallest_jacobian for row in own if row.smallest_jacobian is not None
            )
        summary[method] = {
            name: value for name, value in entry.items() if value is not None and np.isfinite(value)
        }
    return summary


def evaluate_growth(
    cohort: Path, evaluation: GrowthEvaluation, left_out: list[LeftOut] | None = None
) -> list[GrowthRow]:
    """Rows for every case of a cohort; ``left_out`` as in ``cohort.rows_of_all``.

    Raises:
        ModelPackageError: the package does not say the mean growth of its training cohort.
        InputError: two of the packages have one name.
    """
    evaluation.packages[0].description.result(MEAN_GROWTH)  # or it would be missed at the first case
    names = [package.description.name for package in evaluation.packages]
    if len(set(names)) < len(names):
        raise InputError("Two of the models have the same name, and the table could not tell them apart.")
    evaluate = partial(evaluate_growth_case, evaluation)
    return rows_of_all(evaluate, case_folders(cohort), evaluation.source.device, left_out)
