"""How well a number tells who will expand: the tables of Zhong 2021 and of the slice-wise classifier's paper.

AUC with its confidence interval, and the test of one against another on the same patients, after DeLong 1988.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from ..grid import Array

_CONFIDENCE = 0.95
_CALIBRATION_BINS = 5


@dataclass(frozen=True)
class Auc:
    """Area under the ROC curve with its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f}–{self.high:.2f})"


def auc(expanded: Array, score: Array) -> Auc:
    """AUC of a score; ``expanded`` holds a boolean a patient, both kinds being there.

    Of a single patient of one kind nothing is known of the spread: the interval is then all of 0 to 1.
    """
    if min(np.count_nonzero(expanded), np.count_nonzero(~expanded)) < 2:
        return Auc(float(roc_auc_score(expanded, score)), 0.0, 1.0)
    values, covariance = _delong(expanded, [score])
    margin = float(norm.ppf((1 + _CONFIDENCE) / 2) * np.sqrt(covariance[0, 0]))
    return Auc(values[0], max(0.0, values[0] - margin), min(1.0, values[0] + margin))


def compare_auc(expanded: Array, first: Array, second: Array) -> float:
    """Two-sided p of DeLong's test that two scores of the same patients have the same AUC."""
    values, covariance = _delong(expanded, [first, second])
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    difference = abs(values[0] - values[1])
    if variance <= 1e-12:
        return 1.0 if difference < 1e-12 else 0.0
    return float(2 * norm.sf(difference / np.sqrt(variance)))


def _delong(expanded: Array, scores: Sequence[Array]) -> tuple[list[float], Array]:
    """AUCs and their covariance, from each patient's share of the comparisons won (DeLong 1988, section 3)."""
    positive, negative = [], []
    for score in scores:
        won = score[expanded][:, None] - score[~expanded][None, :]
        kernel = (won > 0) + 0.5 * (won == 0)
        positive.append(kernel.mean(axis=1))
        negative.append(kernel.mean(axis=0))
    spread = [np.atleast_2d(np.cov(np.stack(shares))) / len(shares[0]) for shares in (positive, negative)]
    return [float(share.mean()) for share in positive], spread[0] + spread[1]


def at_threshold(expanded: Array, called: Array) -> dict[str, float]:
    """What is made of a yes or no: sensitivity, specificity, accuracy, precision, F1, and likelihood ratios.

    ``weighted`` likelihood ratios are multiplied by the odds of expansion, as in Zhong 2021; the usual ones are
    not. A ratio whose denominator is zero is left out.
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


def brier(expanded: Array, probability: Array) -> float:
    """Mean squared error of a probability."""
    return float(np.mean((probability - expanded) ** 2))


def calibration(
    expanded: Array, probability: Array, bins: int = _CALIBRATION_BINS
) -> list[tuple[float, float, int]]:
    """Mean probability, share who expanded, and number of patients, in groups of like probability."""
    groups = np.array_split(np.argsort(probability, kind="stable"), bins)
    return [
        (float(probability[group].mean()), float(expanded[group].mean()), len(group))
        for group in groups
        if len(group)
    ]
