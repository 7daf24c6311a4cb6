"""How well a probability of expansion does, compared with volume and BAT score (tables of Zhong 2021)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss
from sklearn.model_selection import LeaveOneOut, StratifiedKFold

from ...anatomy.brain import extract_brain
from ...anatomy.mask_source import MaskSource
from ...errors import InputError
from ...forecast.probability import predict_risk, predict_risk_of_scan
from ...markers.scores import HIGH_BAT
from ...models.description import MARKER_LOGISTIC
from ...models.package import ModelPackage
from ...output.drawing import new_figure
from ...scan.grid import Array
from ...scan.subject import Subject
from ..data.cohort import case_folders, has_expanded, read_baseline
from ..data.each_case import LeftOut, readable, rows_of_all
from ..statistics import at_threshold, auc, compare_auc
from .logistic import MIN_OF_A_KIND, NOTHING_FOUND, Learner, RiskSample, learn_markers, measure_case, measure_cases

MODEL, VOLUME, BAT = "model", "volume", "BAT"

_FIFTHS = 5
_ONE_KIND = "The cohort needs patients whose hematoma expanded and others whose did not."
_COLORS = {MODEL: "#c02040", VOLUME: "#406090", BAT: "#60a040"}


@dataclass(frozen=True)
class RiskRow:
    """One patient: whether the hematoma expanded, and what each predictor says.

    ``volume_probability`` and ``bat_probability``: from logistic models of volume or BAT alone, fitted on the
    other folds; None without cross-validation.
    """

    case: str
    expanded: bool
    probability: float
    volume_ml: float
    bat: int
    volume_probability: float | None = None
    bat_probability: float | None = None


def evaluate_risk(
    cohort: Path, package: ModelPackage, source: MaskSource, left_out: list[LeftOut] | None = None
) -> list[RiskRow]:
    """Evaluate a package on a cohort that it has not seen; ``left_out`` as in ``each_case.rows_of_all``, including
    cases in which no hematoma is found.

    Raises:
        InputError: the cohort does not have patients of both kinds.
    """
    judge = partial(_rows_of, package, source)
    return _both_kinds(rows_of_all(judge, case_folders(cohort), source.device, left_out))


def _rows_of(package: ModelPackage, source: MaskSource, folder: Path) -> list[RiskRow]:
    scan, mask = read_baseline(folder, source)
    if mask.is_empty:
        raise InputError(NOTHING_FOUND)
    sample = measure_case(scan.image, mask, folder)
    if package.description.architecture == MARKER_LOGISTIC:  # no need to find the brain
        risk = predict_risk(sample.measured, package)
    else:
        subject = Subject(scan.image, extract_brain(scan.image).mask, mask)
        risk = predict_risk_of_scan(subject, sample.measured, package, source.device)
    return [RiskRow(sample.case, sample.expanded, risk.probability, sample.volume_ml, sample.bat)]


def cross_validate_risk(
    cohort: Path,
    folds: int,
    source: MaskSource,
    seed: int,
    learner: Learner | None = None,
    left_out: list[LeftOut] | None = None,
) -> list[RiskRow]:
    """Cross-validate by patient, training anew in each fold; ``folds`` 0 leaves one patient out at a time.

    ``learner``: the training; by default, logistic regression on CT markers. ``left_out`` collects the cases in
    which no hematoma is found.

    Raises:
        InputError: see ``check_folds``; or a case is damaged.
    """
    learn = learner or learn_markers(seed)
    samples = measure_cases(case_folders(cohort), source, left_out)
    expanded = np.array([sample.expanded for sample in samples], bool)
    check_folds(expanded, folds)
    division = StratifiedKFold(folds, shuffle=True, random_state=seed) if folds else LeaveOneOut()
    rows: list[RiskRow] = []
    for fold, parts in enumerate(division.split(samples, expanded), start=1):
        learned, unseen = ([samples[k] for k in part] for part in parts)
        probability = learn(fold, learned, unseen)
        alone = [_alone(measure, learned, unseen) for measure in (_log_volume, _bat)]
        for k, sample in enumerate(unseen):
            rows.append(
                RiskRow(
                    sample.case,
                    sample.expanded,
                    float(probability[k]),
                    sample.volume_ml,
                    sample.bat,
                    float(alone[0][k]),
                    float(alone[1][k]),
                )
            )
    return rows


def check_cohort(cohort: Path, folds: int | None) -> None:
    """Check, before the work, that a cohort has the patients for an evaluation, by its own masks; ``folds`` as in
    ``check_folds``, or None without cross-validation. Ignores cases that cannot be read.

    Raises:
        InputError: the cohort lacks the patients.
    """
    expanded = np.array(readable(has_expanded, case_folders(cohort)), bool)
    if folds is not None:
        check_folds(expanded, folds)
    elif len(np.unique(expanded)) < 2 and len(expanded) > 0:
        raise InputError(_ONE_KIND)


def check_folds(expanded: Array, folds: int) -> None:
    """Check that the patients can be divided so that each fold has both kinds and the others still have at least
    two of each to learn from. ``expanded`` gives each patient's kind; ``folds`` 0 leaves one out at a time.

    Raises:
        InputError: they cannot.
    """
    counts = int(expanded.sum()), int((~expanded).sum())
    fewest = min(counts)
    if fewest == 0:
        raise InputError(_ONE_KIND)
    if folds > fewest:
        raise InputError(f"The cohort cannot be divided into {folds} folds: each needs patients of both kinds.")
    if fewest - (math.ceil(fewest / folds) if folds else 1) < MIN_OF_A_KIND:
        raise InputError(
            f"The hematoma expanded in {counts[0]} patients of the cohort and did not in {counts[1]}: in "
            f"{f'{folds} folds' if folds else 'leaving one out'} too few of a kind are left to learn from. "
            "Give a larger cohort, or choose another number of folds."
        )


def _both_kinds(patients: list[RiskRow]) -> list[RiskRow]:
    if len({patient.expanded for patient in patients}) < 2:
        raise InputError(_ONE_KIND)
    return patients


def _log_volume(samples: Sequence[RiskSample]) -> Array:
    return np.log([[sample.volume_ml] for sample in samples])


def _bat(samples: Sequence[RiskSample]) -> Array:
    return np.array([[sample.bat] for sample in samples], float)


def _alone(
    measure: Callable[[Sequence[RiskSample]], Array], learned: Sequence[RiskSample], unseen: Sequence[RiskSample]
) -> Array:
    model = LogisticRegression().fit(measure(learned), [sample.expanded for sample in learned])
    return model.predict_proba(measure(unseen))[:, 1]


def summarize_risk(rows: Sequence[RiskRow], threshold: float) -> dict[str, dict[str, float]]:
    """For each predictor: AUC with its 95 % interval, p of DeLong's test against the model, threshold figures.

    The model predicts expansion from ``threshold`` on, BAT from 3 points on. Brier scores where there is a
    probability.
    """
    expanded = np.array([row.expanded for row in rows])
    scores = _scores(rows)
    called = {MODEL: scores[MODEL] >= threshold, BAT: scores[BAT] >= HIGH_BAT}
    probabilities: dict[str, list[float | None]] = {
        MODEL: [row.probability for row in rows],
        VOLUME: [row.volume_probability for row in rows],
        BAT: [row.bat_probability for row in rows],
    }
    summary: dict[str, dict[str, float]] = {}
    for way, score in scores.items():
        area = auc(expanded, score)
        entry: dict[str, float] = {"cases": len(rows), "expanders": int(expanded.sum())}
        entry |= {"auc": area.value, "auc_low": area.low, "auc_high": area.high}
        p = None if way == MODEL else compare_auc(expanded, score, scores[MODEL])
        if p is not None:
            entry["p"] = p
        if way in called:
            entry |= at_threshold(expanded, called[way])
        known = [value for value in probabilities[way] if value is not None]
        if len(known) == len(rows):
            entry["brier"] = float(brier_score_loss(expanded, np.array(known)))
        summary[way] = entry
    return summary


def _scores(rows: Sequence[RiskRow]) -> dict[str, Array]:
    return {
        MODEL: np.array([row.probability for row in rows]),
        VOLUME: np.array([row.volume_ml for row in rows]),
        BAT: np.array([float(row.bat) for row in rows]),
    }


def draw_risk_figures(rows: Sequence[RiskRow], path: Path) -> None:
    """ROC curves of model, volume and BAT, and the calibration of the model's probability in fifths."""
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import roc_curve

    expanded = np.array([row.expanded for row in rows])
    figure = new_figure(10, 4.8, "white")
    curves, calibrated = figure.subplots(1, 2)
    for way, score in _scores(rows).items():
        alarms, hits, _ = roc_curve(expanded, score)
        curves.plot(alarms, hits, color=_COLORS[way], lw=2, label=f"{way}: {auc(expanded, score)}")
    curves.set(xlabel="1 - specificity", ylabel="sensitivity", title="Expansion, AUC (95 % interval)")
    curves.legend(loc="lower right", fontsize=9)
    probabilities = np.array([row.probability for row in rows])
    shares, predicted = calibration_curve(expanded, probabilities, n_bins=_FIFTHS, strategy="quantile")
    calibrated.plot(predicted, shares, "o-", color=_COLORS[MODEL], lw=2)
    calibrated.set(xlabel="probability by the model", ylabel="share who expanded", title="Calibration, in fifths")
    for axes in (curves, calibrated):
        axes.plot([0, 1], [0, 1], color="#aaaaaa", lw=1, ls="--")
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
    figure.tight_layout()
    figure.savefig(path, dpi=110)
