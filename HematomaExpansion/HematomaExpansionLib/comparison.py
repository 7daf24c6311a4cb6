"""A prediction, or the baseline alone, against the real follow-up of the same patient."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk

from . import __version__
from .brain import extract_brain
from .device import choose_device
from .grid import resample
from .head_ct import HeadCT
from .measures import ExpansionDefinition, dice, growth_dice, measure_growth, volume_ml
from .model_package import ModelPackage
from .progress import Stages
from .registration import Registration, register
from .segmentation import USER_MASK, identity_of_segmenter, segment


@dataclass(frozen=True)
class ScanWithMask:
    """A scan and its hematoma (0/1, on the scan's own grid); without one it will be segmented."""

    scan: HeadCT
    mask: sitk.Image | None = None


@dataclass(frozen=True)
class Comparison:
    """Everything on the baseline scan's own grid: CTs in HU, masks 0 or 1.

    ``predicted_mask`` is None where no prediction was given. ``result`` is what ``comparison.json`` holds.
    """

    baseline_ct: sitk.Image
    baseline_mask: sitk.Image
    followup_ct: sitk.Image
    followup_mask: sitk.Image
    predicted_mask: sitk.Image | None
    registration: Registration
    result: dict[str, Any]


def compare(
    baseline: ScanWithMask,
    followup: ScanWithMask,
    predicted: sitk.Image | None,
    segmenter: ModelPackage | None,
    device: str,
    definition: ExpansionDefinition = ExpansionDefinition.SIX_ML,
    stages: Stages | None = None,
) -> Comparison:
    """Register the follow-up, find the hematomas that were not given, and measure.

    ``predicted``: mask (0/1) of a prediction made from this baseline, on any grid of its space. Volumes are
    measured on each scan's own grid, before any registration.

    Raises:
        HematomaError: a sentence for the user (see ``errors.py``).
    """
    stages = stages or Stages()
    chosen = choose_device(device)
    with stages("brain", 0.1):
        insides = [extract_brain(scan.scan.image).mask for scan in (baseline, followup)]
    with stages("segmentation", 0.3):
        masks = [
            segment(scan.scan.image, inside, segmenter, chosen) if scan.mask is None else scan.mask
            for scan, inside in zip((baseline, followup), insides, strict=True)
        ]
    with stages("registration", 0.5):
        registration = register(baseline.scan.image, insides[0], followup.scan.image, insides[1])
    grid = baseline.scan.grid
    moved_ct = registration.bring(followup.scan.image, grid)
    moved_mask = registration.bring_mask(masks[1], grid)
    predicted = None if predicted is None else resample(predicted, grid, interpolator=sitk.sitkNearestNeighbor)
    arrays = [sitk.GetArrayFromImage(mask) > 0 for mask in (masks[0], moved_mask)]
    before, after = volume_ml(masks[0]), volume_ml(masks[1])
    result: dict[str, Any] = {
        "research_use_only": True,
        "software": {"name": "HematomaExpansion", "version": __version__},
        "registration": {"overlap": registration.overlap},
        "baseline": {"volume_ml": before},
        "followup": {"volume_ml": after},
        "growth": None if before == 0 else asdict(measure_growth(before, after, definition)),
        "prediction": None,
        "models": {
            name: USER_MASK if scan.mask is not None else identity_of_segmenter(segmenter)
            for name, scan in (("baseline_mask", baseline), ("followup_mask", followup))
        },
    }
    if predicted is not None:
        guess = sitk.GetArrayFromImage(predicted) > 0
        overlap = growth_dice(arrays[0], guess, *arrays)
        result["prediction"] = {
            "volume_ml": volume_ml(predicted),
            "error_ml": volume_ml(predicted) - after,
            "growth_dice": None if np.isnan(overlap) else overlap,
            "lesion_dice": dice(guess, arrays[1]),
            "lesion_dice_without_growth": dice(*arrays),
        }
    restore = baseline.scan.restore
    return Comparison(
        baseline_ct=restore(baseline.scan.image),
        baseline_mask=restore(masks[0]),
        followup_ct=restore(moved_ct),
        followup_mask=restore(moved_mask),
        predicted_mask=None if predicted is None else restore(predicted),
        registration=registration,
        result=result,
    )
