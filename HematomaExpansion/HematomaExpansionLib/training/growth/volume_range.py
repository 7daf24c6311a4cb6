"""A range for the follow-up volume, from a model's errors on patients it had not learned from."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...forecast.followup_range import followup_range
from ...scan.grid import Array

RANGE_SHARE = 0.8
"""Share of patients whose true volume should lie in the range."""

MIN_PATIENTS = 10
"""With fewer patients, no range can be given."""

_TAILS = ((1 - RANGE_SHARE) / 2, (1 + RANGE_SHARE) / 2)


def fit_volume_range(
    baseline: Array, predicted: Array, true: Array, patients: Array, masks: Array
) -> dict[str, dict[str, list[float]]]:
    """Coefficients for ``forecast.followup_range``, for each kind of mask that the predictions began from.

    Volumes in mL; ``patients`` and ``masks`` give each volume's patient (a number) and kind of mask. A patient may
    have both kinds. A kind with fewer than ``MIN_PATIENTS`` gets no range.

    Conformalized quantile regression (Romano 2019): fits the 10 % and 90 % quantiles of the true growth, linear in
    a constant, the baseline and the predicted growth, then shifts both until the range covers its share of the
    patients left out of the fit, one fifth at a time. All masks share the quantiles; the shift is separate for
    each kind of mask (conformal by groups: Vovk 2012), since automatic masks miss blood.
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

    # The penalty is far below the cost of 1 mL of error, but keeps the factor of the predicted growth from running
    # into the thousands for a model that predicts next to no growth for anybody.
    return QuantileRegressor(quantile=quantile, alpha=1e-4, solver="highs").fit(features, growth)


def range_coverage(coefficients: dict[str, list[float]], baseline: Array, predicted: Array, true: Array) -> float:
    """Share of patients whose true volume lies within their range."""
    ranges = [followup_range(coefficients, b, p) for b, p in zip(baseline, predicted, strict=True)]
    return float(np.mean([low <= volume <= high for (low, high), volume in zip(ranges, true, strict=True)]))
