"""Which outcome a position of the slider stands for, and what it means; from ``prediction.json`` alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from HematomaExpansionLib.forecast.forecast import distribution_of, milliliters
from HematomaExpansionLib.measures.expansion import ExpansionDefinition, expansion_limit_ml

STAYS, IF_EXPANDS, LARGE = 0.0, 0.5, 1.0
"""Positions: the hematoma now; the median of those who expand; what one in ten of those exceeds."""

_NOBODY = 1e-6


def volume_at(result: Mapping[str, Any], position: float) -> float:
    """The volume in mL of the outcome at a position of the slider."""
    now, forecast = result["baseline"]["volume_ml"], result.get("forecast")
    if forecast:
        grown, large = forecast["if_expands"]["volume_ml"], forecast["if_expands"]["high"]
    else:  # an earlier version predicted one volume
        grown = large = result["followup"]["volume_ml"]
    return float(np.interp(position, (STAYS, IF_EXPANDS, LARGE), (now, grown, large)))


def meaning(result: Mapping[str, Any], position: float) -> str:
    """The outcome at a position of the slider in words: ``28 mL: half of those who expand grow beyond this``."""
    volume_ml = volume_at(result, position)
    told = f"{milliliters(volume_ml)} mL"
    if position <= STAYS:
        return f"{told}: stays"
    distribution = distribution_of(result)
    if distribution is None:
        return f"{told}: predicted by an earlier version" if position >= IF_EXPANDS else told
    definition = ExpansionDefinition(result["forecast"]["circumstances"]["definition"])
    if volume_ml <= expansion_limit_ml(definition, distribution.baseline_ml):
        return f"{told}: does not count as expansion"
    expanding = distribution.probability(definition)
    if expanding < _NOBODY:
        return told
    percent = round(100 * float(distribution.share_beyond(np.array([volume_ml]))[0]) / expanding)
    share = {50: "half", 10: "1 in 10"}.get(percent, f"{percent} %")
    grow = "grows" if percent == 10 else "grow"
    return f"{told}: {share} of those who expand {grow} beyond this"
