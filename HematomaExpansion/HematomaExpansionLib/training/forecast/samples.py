"""What a forecast is fitted on and measured with: pairs of scans, each reduced to a few numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ...anatomy.mask_source import MaskSource
from ...errors import InputError
from ...forecast.facts import Facts
from ...growth.outcomes import Outcomes, predict_outcomes
from ...markers.markers import describe_markers
from ...models.package import ModelPackage
from ...scan.mask import MaskKind
from ...scan.subject import Subject
from ..data.case_description import read_description
from ..data.cohort import Case, given_baseline, has_expanded, read_case
from ..data.each_case import LeftOut, prepare_each
from .how_much import GrowthPair

NOTHING_FOUND = "No hematoma was found in its baseline scan."


@dataclass(frozen=True)
class ForecastSample:
    """One patient of a cohort, from one kind of mask.

    Attributes:
        facts: what was known at baseline.
        masks: whether the hematoma was drawn or found automatically.
        network_growth: natural logarithm of the growth that the growth model's own field gives.
        largest_ml: the largest volume that the head has room for.
        followup_ml: true volume at follow-up.
        expanded: whether it truly grew by more than 6 mL or a third.
    """

    case: str
    facts: Facts
    masks: MaskKind
    network_growth: float
    largest_ml: float
    followup_ml: float
    expanded: bool

    @property
    def pair(self) -> GrowthPair:
        """What ``how_much`` looks at."""
        return GrowthPair(self.facts.volume_ml, self.followup_ml, self.network_growth, self.expanded)


def facts_of_case(folder: Path, subject: Subject) -> Facts:
    """The facts about a case at baseline, for a nonempty hematoma: measured on the scan, or told by
    ``case.json``.
    """
    told = read_description(folder)
    markers = describe_markers(subject.ct, subject.hematoma)
    known: dict[str, Any] = {name: told.get(name) for name in ("gcs", "warfarin", "recurrent")}
    ventricular = told.get("intraventricular")
    if isinstance(ventricular, dict):  # simulated patients tell it for both scans
        ventricular = ventricular.get("baseline")
    if isinstance(ventricular, bool):
        known["intraventricular"] = ventricular
    return Facts.of(subject.hematoma.volume_ml, told.get("onset_hours"), markers, known)


def sample_of(folder: Path, growth: ModelPackage, source: MaskSource) -> tuple[ForecastSample, Case, Outcomes]:
    """The numbers of a case, the case, and the outcomes that the growth model leads to.

    Raises:
        InputError: no hematoma is found.
    """
    case = read_case(folder)
    given = given_baseline(case, source)
    if given.hematoma.is_empty:
        raise InputError(NOTHING_FOUND)
    outcomes = predict_outcomes(given, growth, source.device)
    sample = ForecastSample(
        case=case.name,
        facts=facts_of_case(folder, given),
        masks=source.kind,
        network_growth=outcomes.network_growth,
        largest_ml=outcomes.largest_ml,
        followup_ml=case.followup.hematoma.volume_ml,
        expanded=has_expanded(folder),
    )
    return sample, case, outcomes


def measure_cohort(
    cases: Sequence[Path], growth: ModelPackage, source: MaskSource, left_out: list[LeftOut]
) -> list[ForecastSample]:
    """The samples of a cohort; ``left_out`` collects the cases that cannot be used, and why."""
    measure = partial(_only_numbers, growth, source)
    done = prepare_each(measure, cases, f"Measuring cases from {source.kind} masks", source.device)
    left_out += [each for each in done if isinstance(each, LeftOut)]
    return [each for each in done if not isinstance(each, LeftOut)]


def _only_numbers(growth: ModelPackage, source: MaskSource, folder: Path) -> ForecastSample:
    return sample_of(folder, growth, source)[0]
