"""How strongly a growth model's field follows a probability of expansion."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ..models.description import GROWTH_BY_PROBABILITY, PROBABILITY_FROM, ModelDescription
from ..scan.grid import Array


def growth_strength(description: ModelDescription, probability: float | None) -> float:
    """Factor on a growth network's field: ``exp(constant + slope * log odds)`` of the probability of expansion.

    It stays within bounds. It is 1 without a probability, or if the model's growth does not follow one.
    """
    coefficients = description.settings.get(GROWTH_BY_PROBABILITY)
    if coefficients is None or probability is None:
        return 1.0
    wanted = coefficients["constant"] + coefficients["slope"] * float(log_odds(probability))
    return min(max(math.exp(wanted), coefficients["smallest"]), coefficients["largest"])


def can_use_probability(description: ModelDescription, risk: Mapping[str, str]) -> bool:
    """Whether a growth model may use the probability of a risk model, given by its package's ``identity``.

    A growth model that follows a probability was fitted to one risk model; another model's probability would scale
    growth and range by a rule that was never checked.
    """
    if GROWTH_BY_PROBABILITY not in description.settings:
        return True
    return bool(description.settings.get(PROBABILITY_FROM, {}).get("sha256") == risk["sha256"])


def mismatch_sentence(description: ModelDescription, risk: Mapping[str, str]) -> str:
    """The sentence for a risk model that ``can_use_probability`` rejects."""
    source = description.settings.get(PROBABILITY_FROM)
    fitted = f"that of {source['name']} {source['version']}" if source else "that of another model"
    return (
        f"The growth of model {description.name} was fitted to another probability of expansion ({fitted}) than "
        f"that of {risk['name']} {risk['version']}: it is predicted without that probability, and without a range."
    )


def log_odds(probability: float | Array) -> Array:
    """Natural logarithm of the odds, with probabilities clipped to a millionth from 0 and 1."""
    certain = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.log(certain / (1 - certain))
