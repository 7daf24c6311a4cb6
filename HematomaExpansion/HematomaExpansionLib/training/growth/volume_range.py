"""A range for the follow-up volume, from how wrong a model was on patients it had not learned from."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...forecast.followup_range import followup_range
from ...scan.grid import Array

RANGE_SHARE = 0.8
"""Share of patients whose true volume should lie in the range."""

MIN_PATIENTS = 10
"""Below this no range can be told."""

_TAILS = ((1 - RANGE_SHARE) / 2, (1 + RANGE_SHARE) / 2)


def fit_volume_range(
    baseline: Array, predicted: Array, true: Array, patients: Array, masks: Array
) -> dict[str, dict[str, list[float]]]:
    """Coefficients for ``growth.followup_range``, for each kind of mask that the predictions began from.

    Volumes in mL, and of which patient (a number) and from which kind of mask each is; a patient may come with
    both. A kind with fewer than ``MIN_PATIENTS`` gets no range.

    Conformalized quantile regression (Romano 2019): the 10 % and 90 % quantiles of the true growth, linear in a
    constant, the baseline and the predicted growth; then both are moved so far that the range held its share of
    the patients who had been left out of the fit, one fifth at a time. The quantiles are those of all; for each
    kind of mask they are moved by themselves (conformal by groups: Vovk 2012), since automatic ones miss blood.
    """
    from sklearn.model_selection import GroupKFold

    features, growth = np.column_stack([baseline, predicted - baseline]), true - baseline
    outside = np.empty(len(growth))
    for kept, left_out in GroupKFold(5).split(features, groups=patients):
        low, high = (_quantile(features[kept], growth[kept], quantile) for quantile in _TAILS)
        below = low.predict(features[left_out]) - growth[left_out]
        outside[left_out] = np.maximum(below, growth[left_out] - high.predict(features[left_out]))
    models = {name: _quantile(features, growth, tail) for name, tail in zip(("low", "high"), _TAILS, strict=True)}
    ranges = {}
    for kind in np.unique(masks):
        count = len(np.unique(patients[masks == kind]))
        if count < MIN_PATIENTS:
            continue
        margin = float(np.quantile(outside[masks == kind], min(1.0, RANGE_SHARE * (1 + 1 / count))))
        ranges[str(kind)] = {
            name: [round(float(value), 4) for value in (model.intercept_ + shift, *model.coef_)]
            for (name, model), shift in zip(models.items(), (-margin, margin), strict=True)
        }
    return ranges


def _quantile(features: Array, growth: Array, quantile: float) -> Any:
    from sklearn.linear_model import QuantileRegressor

    # The penalty is far below what a mL of error costs, but keeps a model that predicts next to no growth for
    # anybody from getting a factor of thousands for it.
    return QuantileRegressor(quantile=quantile, alpha=1e-4, solver="highs").fit(features, growth)


def range_coverage(coefficients: dict[str, list[float]], baseline: Array, predicted: Array, true: Array) -> float:
    """Share of patients whose true volume lies in their range."""
    ranges = [followup_range(coefficients, b, p) for b, p in zip(baseline, predicted, strict=True)]
    return float(np.mean([low <= volume <= high for (low, high), volume in zip(ranges, true, strict=True)]))
