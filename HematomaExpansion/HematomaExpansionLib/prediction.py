"""The prediction pipeline: head CT -> brain -> hematoma -> markers and probability -> growth -> measures.

The command line, Slicer and other Python programs all use ``predict``.
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
from .forecast.followup_range import calibrated_range
from .forecast.probability import Risk, measurements, predict_risk_of_scan
from .forecast.strength import can_use_probability, growth_strength, mismatch_sentence
from .growth.growth import Growth, predict_growth
from .markers.markers import describe_markers
from .markers.scores import NO_CLINICAL_DATA, ONSET_RANGE, ClinicalData, is_onset, scores_of
from .measures.abc2 import abc2
from .measures.expansion import ExpansionDefinition, measure_growth
from .measures.volumes import corrected_volume
from .models.description import VOLUME_CORRECTION
from .models.package import ModelPackage
from .progress import Stages
from .scan.grid import Grid
from .scan.head_ct import HeadCT
from .scan.mask import Mask, MaskKind
from .scan.subject import Subject


@dataclass(frozen=True)
class PredictionOptions:
    """What the user may choose.

    ``segmenter``: None means the threshold method, which needs no weights. ``risk``: None means no probability of
    expansion. ``keep_intermediate``: whether the prediction includes the inside of the skull.
    """

    growth: ModelPackage
    segmenter: ModelPackage | None
    onset_hours: float | None = None
    clinical: ClinicalData = NO_CLINICAL_DATA
    expansion_definition: ExpansionDefinition = ExpansionDefinition.SIX_ML
    device_name: str = "auto"
    keep_intermediate: bool = False
    risk: ModelPackage | None = None

    def __post_init__(self) -> None:
        """Raise ``InputError`` for hours out of range."""
        if self.onset_hours is not None and not is_onset(self.onset_hours):
            raise InputError(ONSET_RANGE)


@dataclass(frozen=True)
class Prediction:
    """A prediction; every image lies on the baseline scan's own grid.

    ``baseline_ct`` is in HU. ``growth`` is None if no hematoma was found. ``resampled``: the scan was tilted or
    unevenly spaced, and its grid is that of ``baseline_ct``, not the file's. ``result`` holds the contents of
    ``prediction.json``. ``inside_skull`` is None unless it was requested.
    """

    baseline_ct: sitk.Image
    baseline_mask: Mask
    growth: Growth | None
    resampled: bool
    result: dict[str, Any]
    inside_skull: Mask | None = None


def predict(
    scan: HeadCT,
    options: PredictionOptions,
    drawn: Mask | None = None,
    stages: Stages | None = None,
) -> Prediction:
    """Predict the follow-up hematoma.

    Args:
        scan: the baseline CT.
        options: models, device and definitions.
        drawn: the hematoma as the user drew it, on the scan's grid; None to find it automatically.
        stages: reports each stage as it begins; its timing is part of the result.

    Raises:
        HematomaError: a sentence for the user (see ``errors.py``).
    """
    stages = stages or Stages()
    kind: MaskKind = "automatic" if drawn is None else "true"
    device = choose_device(options.device_name)
    warnings = list(scan.warnings)
    with stages("brain", 0.15):
        brain = extract_brain(scan.image)
    with stages("segmentation", 0.3):
        if drawn is None:
            find = partial(segment, scan.image, brain.mask, options.segmenter)
            hematoma, device = compute_on(device, find, warnings)
            segmenter = identity_of_segmenter(options.segmenter)
        else:
            hematoma, segmenter = drawn, USER_MASK
        warnings += check_plausibility(scan, brain, hematoma, drawn=drawn is not None)
    subject = Subject(scan.image, brain.mask, hematoma)
    growth, markers, risk = None, None, None
    with stages("markers", 0.5):
        if not hematoma.is_empty:
            markers = describe_markers(scan.image, hematoma)
            if options.risk is not None:
                measured = measurements(markers, hematoma.volume_ml, options.onset_hours)
                judge = partial(predict_risk_of_scan, subject, measured, options.risk)
                risk, device = compute_on(device, judge, warnings)
    probability = None
    if risk is not None:
        if can_use_probability(options.growth.description, risk.model):
            probability = risk.probability
        else:
            warnings.append(mismatch_sentence(options.growth.description, risk.model))
    with stages("growth", 0.65):
        if not hematoma.is_empty:
            strength = growth_strength(options.growth.description, probability)
            growth, device = compute_on(
                device, partial(predict_growth, subject, options.growth, strength), warnings
            )
        else:
            warnings.append(NO_HEMATOMA)
    return Prediction(
        baseline_ct=scan.restore(scan.image),
        baseline_mask=scan.restore_mask(hematoma),
        growth=None if growth is None else growth.restored(scan),
        resampled=scan.resampled,
        inside_skull=scan.restore_mask(brain.mask) if options.keep_intermediate else None,
        result={
            "research_use_only": True,
            "software": {"name": "HematomaExpansion", "version": __version__},
            "input": _describe_input(scan, options, warnings),
            "scope": None
            if segmenter == USER_MASK
            else {"looked_for": LOOKED_FOR, "not_looked_for": NOT_LOOKED_FOR},
            **_describe_volumes(hematoma, growth, kind, options, probability),
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
    hematoma: Mask,
    growth: Growth | None,
    kind: MaskKind,
    options: PredictionOptions,
    probability: float | None,
) -> dict[str, dict[str, Any] | None]:
    baseline_ml = hematoma.volume_ml
    baseline = {
        "volume_ml": baseline_ml,
        "corrected_volume_ml": corrected_baseline(baseline_ml, options.segmenter if kind == "automatic" else None),
        **abc2(hematoma).described,
    }
    if growth is None:
        return {"baseline": baseline, "followup": None, "growth": None}
    followup_ml = growth.followup_mask.volume_ml
    ends = calibrated_range(options.growth.description, kind, probability, baseline_ml, followup_ml)
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
    """The volume corrected for the segmenter's bias; None if the bias is unknown, as for the user's own mask."""
    correction = None if found_by is None else found_by.description.settings.get(VOLUME_CORRECTION)
    return corrected_volume(correction, measured_ml) if correction and measured_ml > 0 else None


def _describe_markers(
    markers: dict[str, Any] | None, risk: Risk | None, hematoma: Mask, options: PredictionOptions
) -> dict[str, Any]:
    if markers is None:
        return {"risk": None, "markers": None, "scores": None}
    scores = scores_of(markers, options.onset_hours, hematoma.volume_ml, options.clinical)
    return {"risk": None if risk is None else asdict(risk), "markers": markers, "scores": scores}
