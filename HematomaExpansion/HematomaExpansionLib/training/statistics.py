"""How well a score predicts expansion: the tables of Zhong 2021 and of the slice-wise classifier's paper.

AUC with its confidence interval, and the test of two AUCs on the same patients, after DeLong 1988.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from ..scan.grid import Array

_CONFIDENCE = 0.95
_MARGIN = float(norm.ppf((1 + _CONFIDENCE) / 2))

_NO_VARIANCE = 1e-12


@dataclass(frozen=True)
class Auc:
    """Area under the ROC curve with its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f}–{self.high:.2f})"


def auc(expanded: Array, score: Array) -> Auc:
    """AUC of a score; ``expanded`` holds one boolean per patient and must contain both kinds.

    A single patient of one kind says nothing about the spread, and a score that is the same for everybody says
    nothing at all: the interval is then 0 to 1. Where DeLong's variance is zero, for example because the score
    separates the two kinds (which can happen by chance in few patients), the interval is Newcombe's.
    """
    fewest = min(np.count_nonzero(expanded), np.count_nonzero(~expanded))
    if fewest < 2 or np.ptp(score) == 0:
        return Auc(float(roc_auc_score(expanded, score)), 0.0, 1.0)
    values, covariance = _delong(expanded, [score])
    if covariance[0, 0] <= _NO_VARIANCE:
        return _newcombe(values[0], int(expanded.sum()), int((~expanded).sum()))
    margin = _MARGIN * float(np.sqrt(covariance[0, 0]))
    return Auc(values[0], max(0.0, values[0] - margin), min(1.0, values[0] + margin))


def _newcombe(area: float, positive: int, negative: int) -> Auc:
    """Confidence interval of an AUC from these numbers of patients (Newcombe 2006, method 5); it has a width even
    for an AUC of 0 or 1.
    """
    more = (positive + negative) / 2 - 1

    def excess(value: float) -> float:
        spread = 1 + more * (1 - value) / (2 - value) + more * value / (1 + value)
        variance = value * (1 - value) * spread / (positive * negative)
        return (value - area) ** 2 - _MARGIN**2 * variance

    # Search just beside the area, and just inside 0 and 1, where the variance vanishes as well.
    near, edge = 1e-9, 1e-12
    low = 0.0 if area <= near else brentq(excess, edge, area - near)
    high = 1.0 if area >= 1 - near else brentq(excess, area + near, 1 - edge)
    return Auc(area, float(low), float(high))


def compare_auc(expanded: Array, first: Array, second: Array) -> float | None:
    """Two-sided p of DeLong's test that two scores of the same patients have the same AUC; None where the patients
    are too few, or the scores too similar, to estimate the spread.
    """
    if min(np.count_nonzero(expanded), np.count_nonzero(~expanded)) < 2:
        return None
    values, covariance = _delong(expanded, [first, second])
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    difference = abs(values[0] - values[1])
    if variance <= _NO_VARIANCE:
        return 1.0 if difference < _NO_VARIANCE else None
    return float(2 * norm.sf(difference / np.sqrt(variance)))


def deviation(values: Array) -> float | None:
    """Standard deviation of the population from which these values were drawn; None for fewer than two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _delong(expanded: Array, scores: Sequence[Array]) -> tuple[list[float], Array]:
    """AUCs and their covariance, from each patient's share of won comparisons (DeLong 1988, section 3)."""
    positive, negative = [], []
    for score in scores:
        won = score[expanded][:, None] - score[~expanded][None, :]
        kernel = (won > 0) + 0.5 * (won == 0)
        positive.append(kernel.mean(axis=1))
        negative.append(kernel.mean(axis=0))
    spread = [np.atleast_2d(np.cov(np.stack(shares))) / len(shares[0]) for shares in (positive, negative)]
    return [float(share.mean()) for share in positive], spread[0] + spread[1]


def at_threshold(expanded: Array, called: Array) -> dict[str, float]:
    """Figures of a yes-or-no prediction: sensitivity, specificity, accuracy, precision, F1, likelihood ratios.

    ``weighted`` likelihood ratios are multiplied by the odds of expansion, as in Zhong 2021; the usual ones are
    not. Figures whose denominator is zero are left out.
    """
    hits, misses = np.count_nonzero(called & expanded), np.count_nonzero(~called & expanded)
    alarms, rests = np.count_nonzero(called & ~expanded), np.count_nonzero(~called & ~expanded)
    sensitivity, specificity = hits / (hits + misses), rests / (rests + alarms)
    figures: dict[str, float] = {
        "sensitivity": sensitivity,
        "specificity": specificity,
        "accuracy": (hits + rests) / len(expanded),
    }
    odds = (hits + misses) / (alarms + rests)
    for name, above, below in (
        ("precision", hits, hits + alarms),
        ("f1", 2 * hits, 2 * hits + alarms + misses),
        ("likelihood_ratio_positive", sensitivity, 1 - specificity),
        ("likelihood_ratio_negative", 1 - sensitivity, specificity),
    ):
        if below > 0:
            figures[name] = above / below
            if name.startswith("likelihood"):
                figures[f"weighted_{name}"] = odds * above / below
    return figures
