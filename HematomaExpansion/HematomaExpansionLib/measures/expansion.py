"""Growth, and when it counts as expansion."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

DETECTABLE_GROWTH_ML = 3.8
"""Smallest change that one rater can tell from measurement error, for hematomas without intraventricular blood
(Rodriguez-Luna 2016)."""


class ExpansionDefinition(Enum):
    """When growth counts as expansion; the values are the names used on the command line."""

    SIX_ML = "6ml"
    TWELVE_AND_A_HALF_ML = "12.5ml"
    REVISED = "revised"

    @property
    def text(self) -> str:
        """The definition in words, as written beside every answer."""
        return {
            ExpansionDefinition.SIX_ML: "growth > 6 mL or > 33 % of baseline",
            ExpansionDefinition.TWELVE_AND_A_HALF_ML: "growth > 12.5 mL or > 33 % of baseline",
            ExpansionDefinition.REVISED: "growth >= 6 mL or >= 33 % of baseline "
            "(new intraventricular blood not assessed)",
        }[self]


@dataclass(frozen=True)
class GrowthMeasures:
    """Growth in mL and relative to the baseline, and what it means.

    ``detectable``: whether the change is larger than the error of repeated measurement.
    """

    absolute_ml: float
    relative: float
    expansion: bool
    definition: str
    detectable: bool


def measure_growth(baseline_ml: float, followup_ml: float, definition: ExpansionDefinition) -> GrowthMeasures:
    """Growth from two volumes in mL; the baseline volume must be above zero."""
    absolute = followup_ml - baseline_ml
    relative = absolute / baseline_ml
    expansion = {
        ExpansionDefinition.SIX_ML: absolute > 6.0 or relative > 0.33,
        ExpansionDefinition.TWELVE_AND_A_HALF_ML: absolute > 12.5 or relative > 0.33,
        ExpansionDefinition.REVISED: absolute >= 6.0 or relative >= 0.33,
    }[definition]
    return GrowthMeasures(absolute, relative, expansion, definition.text, abs(absolute) > DETECTABLE_GROWTH_ML)
