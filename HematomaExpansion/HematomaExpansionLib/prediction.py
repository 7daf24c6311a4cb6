"""The one pipeline: head CT -> brain -> hematoma -> markers and probability -> growth -> measures.

``predict`` is used alike by the command line, by Slicer and by other Python programs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import SimpleITK as sitk

from . import __version__
from .anatomy.brain import extract_brain
from .anatomy.plausibility import check_plausibility
from .anatomy.segmentation import (
    LOOKED_FOR,
    NO_HEMATOMA,
    NOT_LOOKED_FOR,
    USER_MASK,
    identity_of_segmenter,
    segment,
)
from .device import choose_device, compute_on
from .errors import InputError
from .forecast.followup_range import Masks, told_range
from .forecast.probability import Risk, measurements, predict_risk_of_scan
from .forecast.strength import may_follow, unfollowed
from .growth.growth import Growth, predict_growth
from .markers.markers import describe_markers
from .markers.scores import NOT_TOLD, ONSET_RANGE, ClinicalData, is_onset, scores_of
from .measures.abc2 import abc2
from .measures.expansion import ExpansionDefinition, measure_growth
from .measures.volumes import corrected_volume, volume_ml
from .models.description import VOLUME_CORRECTION
from .models.package import ModelPackage
from .progress import Stages
from .scan.grid import Grid
from .scan.head_ct import HeadCT


@dataclass(frozen=True)
class PredictionOptions:
    """What the user may choose. ``segmenter`` None means the threshold method, which needs no weights; ``risk``
    None means that no probability of expansion is told.

    ``keep_intermediate``: the inside of the skull, found on the way, is part of the prediction too.
    """

    growth: ModelPackage
    segmenter: ModelPackage | None
    onset_hours: float | None = None
    clinical: ClinicalData = NOT_TOLD
    expansion_definition: ExpansionDefinition = ExpansionDefinition.SIX_ML
    device: str = "auto"
    keep_intermediate: bool = False
    risk: ModelPackage | None = None

    def __post_init__(self) -> None:
        """Raise ``InputError`` for hours that cannot be."""
        if self.onset_hours is not None and not is_onset(self.onset_hours):
            raise InputError(ONSET_RANGE)


@dataclass(frozen=True)
class Prediction:
    """A prediction; every image lies on the baseline scan's own grid.

    ``baseline_ct`` is in HU, ``baseline_mask`` 0 or 1. ``growth`` is None where no hematoma was found.
    ``resampled``: the scan was tilted or uneven, and its grid is that of ``baseline_ct``, not the file's.
    ``result`` is what ``prediction.json`` holds. ``inside_skull``: 0 or 1, where it was asked for.
    """

    baseline_ct: sitk.Image
    baseline_mask: sitk.Image
    growth: Growth | None
    resampled: bool
    result: dict[str, Any]
    inside_skull: sitk.Image | None = None


def predict(
    scan: HeadCT,
    options: PredictionOptions,
    hematoma: sitk.Image | None = None,
    stages: Stages | None = None,
) -> Prediction:
    """Predict the follow-up hematoma.

    Args:
        scan: the baseline CT.
        options: models, device and definitions.
        hematoma: the user's own mask (0/1) on the grid of ``scan.image``, used as it is.
        stages: told of each stage as it begins; its clock is in the result.

    Raises:
        HematomaError: a sentence for the user (see ``errors.py``).
    """
    stages = stages or Stages()
    masks: Masks = "automatic" if hematoma is None else "true"
    device = choose_device(options.device)
    warnings = list(scan.warnings)
    with stages("brain", 0.15):
        brain = extract_brain(scan.image)
        inside_skull = brain.mask
    with stages("segmentation", 0.3):
        if hematoma is None:
            find = partial(segment, scan.image, inside_skull, options.segmenter)
            hematoma, device = compute_on(device, find, warnings)
            segmenter = identity_of_segmenter(options.segmenter)
        else:
            segmenter = USER_MASK
        warnings += check_plausibility(scan, brain, hematoma, drawn=masks == "true")
    growth, markers, risk = None, None, None
    with stages("markers", 0.5):
        if volume_ml(hematoma) > 0:
            markers = describe_markers(scan.image, hematoma)
            if options.risk is not None:
                measured = measurements(markers, volume_ml(hematoma), options.onset_hours)
                judge = partial(predict_risk_of_scan, scan.image, hematoma, inside_skull, measured, options.risk)
                risk, device = compute_on(device, judge, warnings)
    probability = None
    if risk is not None:
        if may_follow(options.growth.description, risk.model):
            probability = risk.probability
        else:
            warnings.append(unfollowed(options.growth.description, risk.model))
    with stages("growth", 0.65):
        if volume_ml(hematoma) > 0:
            grow = partial(predict_growth, scan.image, hematoma, inside_skull, options.growth, probability)
            growth, device = compute_on(device, grow, warnings)
        else:
            warnings.append(NO_HEMATOMA)
    return Prediction(
        baseline_ct=scan.restore(scan.image),
        baseline_mask=scan.restore(hematoma),
        growth=None if growth is None else growth.mapped(scan.restore),
        resampled=scan.resampled,
        inside_skull=scan.restore(inside_skull) if options.keep_intermediate else None,
        result={
            "research_use_only": True,
            "software": {"name": "HematomaExpansion", "version": __version__},
            "input": _describe_input(scan, options, warnings),
            "scope": None
            if segmenter == USER_MASK
            else {"looked_for": LOOKED_FOR, "not_looked_for": NOT_LOOKED_FOR},
            **_describe_volumes(hematoma, growth, masks, options, probability),
            **_describe_markers(markers, risk, hematoma, options),
            "models": {"segmentation": segmenter, "growth": options.growth.identity},
            "timing_s": stages.timing,
            "device": str(device),
        },
    )


def _describe_input(scan: HeadCT, options: PredictionOptions, warnings: list[str]) -> dict[str, Any]:
    stored = Grid.of(scan.restore(scan.image))
    return {
        "size": list(stored.size),
        "spacing_mm": list(stored.spacing),
        "sha256": scan.sha256,
        "onset_hours": options.onset_hours,
        "clinical": asdict(options.clinical),
        "warnings": warnings,
    }


def _describe_volumes(
    hematoma: sitk.Image,
    growth: Growth | None,
    masks: Masks,
    options: PredictionOptions,
    probability: float | None,
) -> dict[str, dict[str, Any] | None]:
    baseline_ml, estimate = volume_ml(hematoma), abc2(hematoma)
    baseline = {
        "volume_ml": baseline_ml,
        "corrected_volume_ml": corrected_baseline(
            baseline_ml, options.segmenter if masks == "automatic" else None
        ),
        "abc2_ml": estimate.volume_ml,
        "abc2_simplified_ml": estimate.simplified_volume_ml,
        "a_mm": estimate.a_mm,
        "b_mm": estimate.b_mm,
        "c_mm": estimate.c_mm,
    }
    if growth is None:
        return {"baseline": baseline, "followup": None, "growth": None}
    followup_ml = volume_ml(growth.followup_mask)
    ends = told_range(options.growth.description, masks, probability, baseline_ml, followup_ml)
    low, high = (None, None) if ends is None else ends
    followup = {
        "volume_ml": followup_ml,
        "abc2_ml": abc2(growth.followup_mask).volume_ml,
        "volume_ml_low": low,
        "volume_ml_high": high,
    }
    measures = measure_growth(baseline_ml, followup_ml, options.expansion_definition)
    return {"baseline": baseline, "followup": followup, "growth": asdict(measures)}


def corrected_baseline(measured_ml: float, found_by: ModelPackage | None) -> float | None:
    """The volume without the segmenter's bias, where that is known; of a mask of the user's own it is not."""
    correction = None if found_by is None else found_by.description.settings.get(VOLUME_CORRECTION)
    return corrected_volume(correction, measured_ml) if correction and measured_ml > 0 else None


def _describe_markers(
    markers: dict[str, Any] | None, risk: Risk | None, hematoma: sitk.Image, options: PredictionOptions
) -> dict[str, Any]:
    if markers is None:
        return {"risk": None, "markers": None, "scores": None}
    scores = scores_of(markers, options.onset_hours, volume_ml(hematoma), options.clinical)
    return {"risk": None if risk is None else asdict(risk), "markers": markers, "scores": scores}
