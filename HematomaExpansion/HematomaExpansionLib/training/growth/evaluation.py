"""How well growth models do on a cohort with known follow-ups.

Growth is measured as in Abramova 2024, section 3: Dice of the growth area, average error and average absolute
error of the follow-up volume, Dice of the lesion. The models are compared with rivals that need no model: a copy
of the baseline, uniform dilation by the training cohort's mean growth, and uniform dilation to the true volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ...anatomy.mask_source import MaskSource
from ...errors import InputError
from ...growth.outcomes import predict_outcomes
from ...growth.warping import smallest_jacobian
from ...measures.agreement import dice, growth_dice
from ...measures.expansion import ExpansionDefinition, measure_growth
from ...models.description import MEAN_GROWTH
from ...models.package import ModelPackage
from ...scan.grid import Array
from ...scan.subject import Subject
from ..data.cohort import Case, case_folders, given_baseline, read_case
from ..data.each_case import LeftOut, rows_of_all
from ..rivals import MEAN_DILATION, NO_GROWTH, TRUE_VOLUME_DILATION, uniform_dilation


@dataclass(frozen=True)
class GrowthRow:
    """One case predicted by one method; volumes in mL. ``given_ml`` is that of the mask it began from."""

    case: str
    method: str
    baseline_ml: float
    followup_ml: float
    given_ml: float
    predicted_ml: float
    growth_dice: float
    lesion_dice: float
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
    def expansion_score(self) -> float:
        """Predicted growth divided by the threshold of expansion, 6 mL or 33 %; the larger of the two ratios."""
        growth = self.predicted_ml - self.given_ml
        return max(growth / 6.0, growth / (0.33 * self.given_ml)) if self.given_ml else 0.0


@dataclass(frozen=True)
class GrowthEvaluation:
    """What to evaluate: growth packages and the masks they begin from. The first package's mean growth in training
    sets the uniform dilation.
    """

    packages: tuple[ModelPackage, ...]
    source: MaskSource


def evaluate_growth_case(evaluation: GrowthEvaluation, folder: Path) -> list[GrowthRow]:
    """The models and their rivals on one case."""
    case = read_case(folder)
    given = given_baseline(case, evaluation.source)
    rows = [_model_row(case, given, package, evaluation.source) for package in evaluation.packages]
    mean = 1 + evaluation.packages[0].description.result(MEAN_GROWTH)
    wanted = {
        NO_GROWTH: given.hematoma.volume_ml,
        MEAN_DILATION: mean * given.hematoma.volume_ml,
        TRUE_VOLUME_DILATION: case.followup.hematoma.volume_ml,
    }
    for method, volume in wanted.items():
        rows.append(_row(case, given, method, uniform_dilation(given, volume)))
    return rows


def _model_row(case: Case, given: Subject, package: ModelPackage, source: MaskSource) -> GrowthRow:
    """The model at its own strength, whoever the patient is."""
    name = package.description.name
    if given.hematoma.is_empty:
        return _row(case, given, name, given.hematoma.voxels)
    growth = predict_outcomes(given, package, source.device).at_own_strength()
    row = _row(case, given, name, growth.followup_mask.voxels)
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
    """For each method, the figures of the paper's Table 1 and more; tests compare the others with the first.

    Volume errors in mL, over all cases and over those that expanded, the only ones in the paper's cohort.
    ``expansion_auc``: AUC of the predicted growth, with its 95 % interval. ``p``: paired t-test of the growth Dice
    against the first method's. Standard deviations (``sd``) estimate the population's; a single case has none.
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
    """Rows for every case of a cohort; ``left_out`` as in ``each_case.rows_of_all``.

    Raises:
        ModelPackageError: the first package does not state the mean growth of its training cohort.
        InputError: two of the packages have the same name.
    """
    evaluation.packages[0].description.result(MEAN_GROWTH)  # fails now instead of at the first case
    names = [package.description.name for package in evaluation.packages]
    if len(set(names)) < len(names):
        raise InputError("Two of the models have the same name, and the table could not tell them apart.")
    evaluate = partial(evaluate_growth_case, evaluation)
    return rows_of_all(evaluate, case_folders(cohort), evaluation.source.device, left_out)
