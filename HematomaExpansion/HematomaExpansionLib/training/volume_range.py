"""A range for the follow-up volume, from how wrong a model was on patients it had not learned from."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..grid import Array
from ..growth import followup_range

RANGE_SHARE = 0.8
"""Share of patients whose true volume should lie in the range."""

FEWEST_PATIENTS = 10
"""Below this no range can be told."""

_TAILS = ((1 - RANGE_SHARE) / 2, (1 + RANGE_SHARE) / 2)


def fit_volume_range(baseline: Array, predicted: Array, true: Array, patients: Array) -> dict[str, list[float]]:
    """Coefficients for ``growth.followup_range``; volumes in mL, and of which patient (a number) each is.

    A patient may come more than once, with masks from several sources; at least ``FEWEST_PATIENTS`` are needed.

    Conformalized quantile regression (Romano 2019): the 10 % and 90 % quantiles of the true growth, linear in a
    constant, the baseline and the predicted growth; then both are moved so far that the range held its share of
    the patients who had been left out of the fit, one fifth at a time.
    """
    from sklearn.model_selection import GroupKFold

    features, growth = np.column_stack([baseline, predicted - baseline]), true - baseline
    outside = np.empty(len(growth))
    for kept, left_out in GroupKFold(5).split(features, groups=patients):
        low, high = (_quantile(features[kept], growth[kept], quantile) for quantile in _TAILS)
        below = low.predict(features[left_out]) - growth[left_out]
        outside[left_out] = np.maximum(below, growth[left_out] - high.predict(features[left_out]))
    margin = float(np.quantile(outside, min(1.0, RANGE_SHARE * (1 + 1 / len(np.unique(patients))))))
    coefficients = {}
    for name, quantile, shift in zip(("low", "high"), _TAILS, (-margin, margin), strict=True):
        model = _quantile(features, growth, quantile)
        values = (model.intercept_ + shift, *model.coef_)
        coefficients[name] = [round(float(value), 4) for value in values]
    return coefficients


def _quantile(features: Array, growth: Array, quantile: float) -> Any:
    from sklearn.linear_model import QuantileRegressor

    return QuantileRegressor(quantile=quantile, alpha=0.0, solver="highs").fit(features, growth)


def range_coverage(coefficients: dict[str, list[float]], baseline: Array, predicted: Array, true: Array) -> float:
    """Share of patients whose true volume lies in their range."""
    ranges = [followup_range(coefficients, b, p) for b, p in zip(baseline, predicted, strict=True)]
    return float(np.mean([low <= volume <= high for (low, high), volume in zip(ranges, true, strict=True)]))
