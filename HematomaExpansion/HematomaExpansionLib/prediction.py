"""The prediction pipeline: head CT -> brain -> hematoma -> markers -> growth -> forecast -> measures.

The command line, Slicer and other Python programs all use ``predict``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import SimpleITK as sitk

from . import __version__
from .anatomy.bleeds import Bleeds
from .anatomy.brain import extract_brain
from .anatomy.kinds import Kind
from .anatomy.plausibility import check_plausibility
from .anatomy.prompted import check_prompt
from .anatomy.scope import notes_on_bleeds, scope_of
from .anatomy.segmentation import USER_MASK, find_bleeds, identity_of_segmenter
from .device import choose_device, compute_on
from .errors import InputError
from .forecast.facts import Facts
from .forecast.forecast import EVIDENCE, Circumstances, Forecast, ForecastModel, make_forecast, notes_on
from .forecast.probability import Risk, measurements, predict_risk_of_scan
from .growth.growth import Growth
from .growth.outcomes import Outcomes, predict_outcomes
from .growth.probability_map import probability_map
from .markers.markers import describe_markers
from .markers.scores import NO_CLINICAL_DATA, ONSET_RANGE, ClinicalData, is_onset, scores_of, with_decisions
from .measures.abc2 import abc2
from .measures.expansion import ExpansionDefinition, measure_growth
from .measures.volumes import corrected_volume
from .models.description import VOLUME_CORRECTION
from .models.package import ModelPackage
from .progress import Stages
from .scan.box import Box
from .scan.grid import Grid
from .scan.head_ct import HeadCT
from .scan.mask import Mask, MaskKind
from .scan.subject import Subject

RESULT_FORMAT = 2
"""Of ``prediction.json``: from 2 on, it holds one forecast; before, a predicted volume and a probability."""


@dataclass(frozen=True)
class PredictionOptions:
    """What the user may choose.

    ``segmenter``: None means the threshold method, which needs no weights. ``box``: where a segmenter that looks
    in boxes should look; None for around what the shipped one finds. ``whether`` and ``likelihood_ratio``:
    see ``forecast.Circumstances``; ``risk``: a package that tells the probability of expansion in their place.
    ``decisions``: the signs that a reader has decided on. ``keep_intermediate``: whether the prediction includes
    the inside of the skull; ``keep_outcomes``: whether its folder holds all outcomes, not just the one if it
    expands.
    """

    growth: ModelPackage
    segmenter: ModelPackage | None
    forecast: ModelPackage
    onset_hours: float | None = None
    clinical: ClinicalData = NO_CLINICAL_DATA
    expansion_definition: ExpansionDefinition = ExpansionDefinition.SIX_ML
    device_name: str = "auto"
    keep_intermediate: bool = False
    keep_outcomes: bool = False
    whether: str = EVIDENCE
    likelihood_ratio: str | None = None
    risk: ModelPackage | None = None
    decisions: Mapping[str, bool] = field(default_factory=dict)
    box: Box | None = None

    def __post_init__(self) -> None:
        """Raise ``InputError`` for hours out of range, or a box that the segmenter does not look in."""
        check_prompt(self.segmenter, self.box)
        if self.onset_hours is not None and not is_onset(self.onset_hours):
            raise InputError(ONSET_RANGE)


@dataclass(frozen=True)
class Prediction:
    """A prediction; every image lies on the baseline scan's own grid.

    ``baseline_ct`` is in HU. ``growth``, the outcome if the hematoma expands, and ``growth_probability``, each
    voxel's probability to hold blood at follow-up, are None if no hematoma was found, or a doubtful one.
    ``resampled``: the scan was
    tilted or unevenly spaced, and its grid is that of ``baseline_ct``, not the file's. ``result`` holds the
    contents of ``prediction.json``. ``inside_skull`` is None unless it was requested; ``keep_outcomes``: whether
    the outcomes were.
    """

    baseline_ct: sitk.Image
    bleeds: Bleeds
    growth: Growth | None
    growth_probability: sitk.Image | None
    resampled: bool
    result: dict[str, Any]
    inside_skull: Mask | None = None
    keep_outcomes: bool = False

    @property
    def baseline_mask(self) -> Mask:
        """The hematoma."""
        return self.bleeds.hematoma


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
            find = partial(
                find_bleeds,
                scan.image,
                brain.mask,
                options.segmenter,
                box=options.box,
                progress=stages.within("segmentation", 0.3, 0.5),
            )
            bleeds, device = compute_on(device, find, warnings)
            segmenter = identity_of_segmenter(options.segmenter)
        else:
            bleeds, segmenter = Bleeds.of_hematoma(drawn), USER_MASK
        warnings[:0] = notes_on_bleeds(bleeds)
        warnings += check_plausibility(scan, brain, bleeds, drawn=drawn is not None)
    hematoma = bleeds.hematoma
    subject = Subject(scan.image, brain.mask, hematoma)
    markers, risk, forecast, growth, map_of_growth = None, None, None, None, None
    with stages("markers", 0.5):
        if not hematoma.is_empty and not bleeds.is_doubtful:
            markers = with_decisions(describe_markers(scan.image, hematoma), options.decisions)
            if options.risk is not None:
                measured = measurements(markers, hematoma.volume_ml, options.onset_hours)
                judge = partial(predict_risk_of_scan, subject, measured, options.risk)
                risk, device = compute_on(device, judge, warnings)
    with stages("growth", 0.65):
        if markers is not None:
            outcomes, device = compute_on(device, partial(predict_outcomes, subject, options.growth), warnings)
            forecast = _forecast(outcomes, markers, bleeds, risk, kind, options)
            growth = outcomes.growth_to(forecast.if_expands_ml)
            map_of_growth = probability_map(growth.order, forecast.distribution, scan.image)
            warnings += _notes(forecast, outcomes)
    return Prediction(
        baseline_ct=scan.restore(scan.image),
        bleeds=bleeds.restored(scan),
        growth=None if growth is None else growth.restored(scan),
        growth_probability=None if map_of_growth is None else scan.restore(map_of_growth),
        resampled=scan.resampled,
        inside_skull=scan.restore_mask(brain.mask) if options.keep_intermediate else None,
        keep_outcomes=options.keep_outcomes,
        result={
            "research_use_only": True,
            "format": RESULT_FORMAT,
            "software": {"name": "HematomaExpansion", "version": __version__},
            "input": _describe_input(scan, options, warnings),
            "scope": None if drawn is not None else scope_of(bleeds),
            "bleeds": bleeds.described,
            "forecast": None if forecast is None else forecast.described,
            **_describe_volumes(hematoma, growth, kind, options),
            **_describe_markers(markers, risk, bleeds, options),
            "models": {
                "segmentation": segmenter,
                "growth": options.growth.identity,
                "forecast": options.forecast.identity,
            },
            "timing_s": stages.timing,
            "device": str(device),
        },
    )


def _forecast(
    outcomes: Outcomes,
    markers: dict[str, Any],
    bleeds: Bleeds,
    risk: Risk | None,
    masks: MaskKind,
    options: PredictionOptions,
) -> Forecast:
    volume_ml, clinical = outcomes.subject.hematoma.volume_ml, asdict(options.clinical)
    facts = Facts.of(volume_ml, options.onset_hours, markers, clinical, bleeds.volume_ml(Kind.INTRAVENTRICULAR))
    around = Circumstances(
        masks=masks,
        definition=options.expansion_definition,
        network_growth=outcomes.network_growth,
        largest_ml=outcomes.largest_ml,
        whether=options.whether,
        likelihood_ratio=options.likelihood_ratio,
    )
    told = None if risk is None else (risk.probability, risk.model["name"])
    return make_forecast(ForecastModel.of(options.forecast), facts, around, told)


def _notes(forecast: Forecast, outcomes: Outcomes) -> list[str]:
    """What the user should know of this forecast."""
    notes = list(notes_on(forecast.facts, forecast.circumstances.whether))
    if forecast.if_expands_ml > outcomes.reach_ml:
        notes.append(
            f"The growth model reaches {outcomes.reach_ml:.0f} mL at most: beyond that, the outline of the "
            "hematoma if it expands is extended evenly."
        )
    return notes


def _describe_input(scan: HeadCT, options: PredictionOptions, warnings: list[str]) -> dict[str, Any]:
    stored = Grid.of(scan.restore(scan.image))
    return {
        "size": list(stored.size),
        "spacing_mm": list(stored.spacing),
        "sha256": scan.sha256,
        "onset_hours": options.onset_hours,
        "clinical": asdict(options.clinical),
        "box_mm": None if options.box is None else options.box.values,
        "warnings": warnings,
    }


def _describe_volumes(
    hematoma: Mask, growth: Growth | None, kind: MaskKind, options: PredictionOptions
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
    measures = measure_growth(baseline_ml, followup_ml, options.expansion_definition)
    return {
        "baseline": baseline,
        "followup": {"volume_ml": followup_ml, "abc2_ml": abc2(growth.followup_mask).volume_ml},
        "growth": {name: getattr(measures, name) for name in ("absolute_ml", "relative", "detectable")},
    }


def corrected_baseline(measured_ml: float, found_by: ModelPackage | None) -> float | None:
    """The volume corrected for the segmenter's bias; None if the bias is unknown, as for the user's own mask."""
    correction = None if found_by is None else found_by.description.settings.get(VOLUME_CORRECTION)
    return corrected_volume(correction, measured_ml) if correction and measured_ml > 0 else None


def _describe_markers(
    markers: dict[str, Any] | None, risk: Risk | None, bleeds: Bleeds, options: PredictionOptions
) -> dict[str, Any]:
    if markers is None:
        return {"risk": None, "markers": None, "scores": None}
    clinical = options.clinical.with_found(bleeds.volume_ml(Kind.INTRAVENTRICULAR))
    scores = scores_of(markers, options.onset_hours, bleeds.hematoma.volume_ml, clinical)
    return {"risk": None if risk is None else asdict(risk), "markers": markers, "scores": scores}
