"""The expected range of the follow-up volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..models.description import GROWTH_BY_PROBABILITY, VOLUME_RANGE, ModelDescription
from ..scan.mask import MaskKind


def followup_range(
    coefficients: Mapping[str, Sequence[float]], baseline_ml: float, predicted_ml: float
) -> tuple[float, float]:
    """Range in mL that holds the follow-up volume in 80 % of patients like those the model was checked on.

    ``coefficients`` are the package's for the kind of mask that the prediction started from. They give the ``low``
    and ``high`` quantile of the growth as a constant, a factor on the baseline and a factor on the predicted
    growth. The range always includes the prediction itself.
    """
    low, high = (
        baseline_ml + constant + by_baseline * baseline_ml + by_growth * (predicted_ml - baseline_ml)
        for constant, by_baseline, by_growth in (coefficients["low"], coefficients["high"])
    )
    return max(0.0, min(low, predicted_ml)), max(high, predicted_ml)


def calibrated_range(
    description: ModelDescription,
    masks: MaskKind,
    probability: float | None,
    baseline_ml: float,
    predicted_ml: float,
) -> tuple[float, float] | None:
    """``followup_range`` if the model has one, otherwise None.

    A model whose growth follows a probability of expansion was checked with one, and has no range without it.
    """
    coefficients = description.settings.get(VOLUME_RANGE, {}).get(masks)
    if coefficients is None or (probability is None and GROWTH_BY_PROBABILITY in description.settings):
        return None
    return followup_range(coefficients, baseline_ml, predicted_ml)
