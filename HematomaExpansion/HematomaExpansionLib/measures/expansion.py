"""Growth, and when it counts as expansion."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

DETECTABLE_GROWTH_ML = 3.8
"""Smallest change that one rater can tell from measurement error, for hematomas without intraventricular blood
(Rodriguez-Luna 2016)."""

_REVISED = "growth >= 6 mL or >= 33 % of baseline"
_REVISED_ASSESSED = f"{_REVISED} or new intraventricular blood"


class ExpansionDefinition(Enum):
    """When growth counts as expansion; the values are the names used on the command line.

    ``SIX_ML_ALONE`` is the outcome of the BRAIN score (Wang 2015).
    """

    SIX_ML = "6ml"
    TWELVE_AND_A_HALF_ML = "12.5ml"
    REVISED = "revised"
    SIX_ML_ALONE = "6ml-alone"

    @property
    def text(self) -> str:
        """The definition in words, as written beside every answer."""
        return {
            ExpansionDefinition.SIX_ML: "growth > 6 mL or > 33 % of baseline",
            ExpansionDefinition.TWELVE_AND_A_HALF_ML: "growth > 12.5 mL or > 33 % of baseline",
            ExpansionDefinition.REVISED: f"{_REVISED} (new intraventricular blood not assessed)",
            ExpansionDefinition.SIX_ML_ALONE: "growth >= 6 mL",
        }[self]


SELECTABLE = (
    ExpansionDefinition.SIX_ML,
    ExpansionDefinition.TWELVE_AND_A_HALF_ML,
    ExpansionDefinition.REVISED,
)
"""The definitions from which a user chooses."""

_LIMIT_ML = {
    ExpansionDefinition.SIX_ML: 6.0,
    ExpansionDefinition.TWELVE_AND_A_HALF_ML: 12.5,
    ExpansionDefinition.REVISED: 6.0,
    ExpansionDefinition.SIX_ML_ALONE: 6.0,
}
_LIMIT_SHARE = 0.33


def expansion_limit_ml(definition: ExpansionDefinition, baseline_ml: float) -> float:
    """The follow-up volume in mL beyond which a hematoma of ``baseline_ml`` has expanded."""
    absolute = _LIMIT_ML[definition]
    if definition is ExpansionDefinition.SIX_ML_ALONE:
        return baseline_ml + absolute
    return baseline_ml + min(absolute, _LIMIT_SHARE * baseline_ml)


def is_new(before_ml: float | None, after_ml: float | None) -> bool | None:
    """Whether there is something at follow-up and was nothing at baseline, from two volumes in mL; None where they
    do not tell, because one was not measured.
    """
    if after_ml == 0 or (before_ml is not None and before_ml > 0):
        return False
    return None if before_ml is None or after_ml is None else True


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


def measure_growth(
    baseline_ml: float,
    followup_ml: float,
    definition: ExpansionDefinition,
    new_intraventricular: bool | None = None,
) -> GrowthMeasures:
    """Growth from two volumes in mL; the baseline volume must be above zero.

    ``new_intraventricular``: whether the follow-up has blood in the ventricles and the baseline had none; None if
    that is not known. Only the revised definition asks for it.
    """
    absolute = followup_ml - baseline_ml
    relative = absolute / baseline_ml
    expansion = {
        ExpansionDefinition.SIX_ML: absolute > 6.0 or relative > 0.33,
        ExpansionDefinition.TWELVE_AND_A_HALF_ML: absolute > 12.5 or relative > 0.33,
        ExpansionDefinition.REVISED: absolute >= 6.0 or relative >= 0.33 or bool(new_intraventricular),
        ExpansionDefinition.SIX_ML_ALONE: absolute >= 6.0,
    }[definition]
    is_assessed = definition is ExpansionDefinition.REVISED and new_intraventricular is not None
    words = _REVISED_ASSESSED if is_assessed else definition.text
    return GrowthMeasures(absolute, relative, expansion, words, abs(absolute) > DETECTABLE_GROWTH_ML)
