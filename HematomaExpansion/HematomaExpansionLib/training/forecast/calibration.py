"""Fits a forecast anew on a hospital's own pairs of scans, shrunk toward the one that it starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import get_args

import numpy as np

from ...anatomy.mask_source import MaskSource
from ...errors import InputError
from ...forecast.forecast import ForecastModel
from ...models.description import EVIDENCE_SOURCE, SHARE_EXPANDED, SPREAD, TrainingStep, package_name
from ...models.package import ModelPackage
from ...scan.mask import MaskKind
from ..data.case_description import kind_of_cases
from ..data.each_case import LeftOut
from ..runs import has_learned_from, made_before, made_from
from ..steps import CALIBRATED_ON, lasting_steps
from .how_much import renew_spread
from .patients import Patients
from .samples import ForecastSample, measure_cohort
from .training import write_forecast
from .whether import PRIOR_CONSTANT, PRIOR_SLOPES, renew_whether

MIN_PAIRS = 20
"""With fewer pairs, the shipped forecast stays as it is."""


def calibrated(model: ForecastModel, samples: Sequence[ForecastSample], whose: str) -> ForecastModel:
    """The forecast fitted anew on these samples; ``whose`` names the patients, in words that follow their number.

    Whether is fitted on each patient once, from the drawn mask where there is one; how much, for each kind of
    mask.

    Raises:
        InputError: there are fewer than ``MIN_PAIRS`` patients.
    """
    once = {sample.case: sample for sample in sorted(samples, key=lambda each: each.masks)}
    if len(once) < MIN_PAIRS:
        raise InputError(
            f"A forecast is calibrated on at least {MIN_PAIRS} pairs of scans: here are {len(once)}. Until there "
            "are more, use the one that ships."
        )
    patients = Patients(
        [sample.facts for sample in once.values()],
        np.array([sample.expanded for sample in once.values()], bool),
    )
    kinds: tuple[MaskKind, ...] = get_args(MaskKind)
    of_kind = {kind: [sample.pair for sample in samples if sample.masks == kind] for kind in kinds}
    return ForecastModel(
        renew_whether(model.numbers, patients),
        {
            kind: renew_spread(model.spread(kind), pairs) if len(pairs) >= MIN_PAIRS else model.spread(kind)
            for kind, pairs in of_kind.items()
        },
        f"{len(once)} {whose}, starting from {model.source}",
    )


def calibrate_forecast(
    start: ModelPackage,
    cases: Sequence[Path],
    output: Path,
    growth: ModelPackage,
    sources: Sequence[MaskSource],
    left_out: list[LeftOut],
) -> ModelPackage:
    """Write the forecast package ``start``, calibrated on the cases of a cohort, from which the growth model must
    not have learned; ``sources``: the masks from which the predictions begin.

    Raises:
        InputError: there are too few cases, the growth model has learned from some, the folder's name is no valid
            model name, or it holds a model made differently (``runs.py``).
    """
    name = package_name(output)
    if has_learned_from(growth, cases):
        raise InputError(
            f"Model {growth.description.name!r} has learned from some of these cases, so its growth in them says "
            "little about new patients: give other cases."
        )
    segmenters = {source.kind: source.segmenter for source in sources}
    made = made_from(
        "calibration of a forecast",
        {"masks": sorted(segmenters)},
        calibrated=cases,
        start=[start],
        models={"growth": growth, **{f"segmenter for {kind} masks": each for kind, each in segmenters.items()}},
    )
    if (before := made_before(output, made)) is not None:
        return before
    samples = [sample for source in sources for sample in measure_cohort(cases, growth, source, left_out)]
    whose = kind_of_cases(cases)
    model = calibrated(ForecastModel.of(start), samples, whose)
    count = len({sample.case for sample in samples})
    step = TrainingStep(
        CALIBRATED_ON,
        count,
        whose,
        f"whether and how much, from {' and '.join(sorted(segmenters))} masks, with {growth.description.name} "
        f"{growth.description.version}; prior: standard deviation {PRIOR_CONSTANT:g} of the constant, "
        f"{PRIOR_SLOPES:g} of the standardized coefficients",
    )
    description = start.description
    described = replace(
        description,
        name=name,
        trained_on=(*lasting_steps(description.trained_on), step),
        results={
            SHARE_EXPANDED: round(
                float(np.mean(list({sample.case: sample.expanded for sample in samples}.values()))), 4
            )
        },
        settings={
            **description.settings,
            SPREAD: {kind: asdict(each) for kind, each in model.spreads.items()},
            EVIDENCE_SOURCE: model.source,
        },
    )
    return write_forecast(output, described, model.numbers, made)
