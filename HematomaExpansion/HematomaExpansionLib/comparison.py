"""Compares a prediction, or the baseline alone, with the real follow-up of the same patient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from . import __version__
from .anatomy.bleeds import Bleeds
from .anatomy.brain import extract_brain
from .anatomy.kinds import Kind
from .anatomy.plausibility import check_plausibility
from .anatomy.registration import MIN_SIMILARITY, Registration, register
from .anatomy.scope import notes_on_box, notes_on_extraaxial
from .anatomy.segmentation import USER_MASK, find_bleeds, identity_of_segmenter
from .measures.agreement import dice, growth_dice
from .measures.expansion import ExpansionDefinition, is_new, measure_growth
from .models.package import ModelPackage
from .progress import Stages
from .scan.head_ct import HeadCT, read_head_ct
from .scan.mask import Mask
from .scan.mask_files import read_given_mask
from .scan.resampling import resample

if TYPE_CHECKING:
    import torch

_MIN_LEFT = 0.5
"""Minimum share of a hematoma still visible days later, unless it was evacuated."""

SCANS_DIFFER = (
    "The two scans look unlike once they are aligned: check that both are of the same patient, and that the "
    "registered follow-up lies on the baseline."
)

_AGREEMENT = ("error_ml", "growth_dice", "lesion_dice", "lesion_dice_without_growth")
"""Measures of a prediction against the truth."""


@dataclass(frozen=True)
class ScanWithMask:
    """A scan and its hematoma on the scan's own grid; a missing mask will be segmented.

    ``intraventricular_ml``: blood in the ventricles, if that is known beside a given mask.
    """

    scan: HeadCT
    mask: Mask | None = None
    intraventricular_ml: float | None = None

    @classmethod
    def read(cls, path: Path, mask: Path | None, label: str | None) -> ScanWithMask:
        """The scan at ``path`` with the user's mask, if given; ``label`` chooses the hematoma in it.

        Raises:
            InputError, MissingLibraryError: as in ``read_head_ct`` and ``read_given_mask``.
        """
        scan = read_head_ct(path)
        return cls(scan, read_given_mask(mask, scan, label))


@dataclass(frozen=True)
class Comparison:
    """A comparison; every image lies on the baseline scan's own grid, CTs in HU.

    ``predicted_mask`` is None if no prediction was given. ``result`` holds the contents of ``comparison.json``. If
    the truth is unknown, its ``growth`` and the prediction's agreement with the truth are None, and its
    ``warnings`` say why.
    """

    baseline_ct: sitk.Image
    baseline_mask: Mask
    followup_ct: sitk.Image
    followup_mask: Mask
    predicted_mask: Mask | None
    registration: Registration
    result: dict[str, Any]


@dataclass(frozen=True)
class FoundAutomatically:
    """Which scans' hematomas were found automatically; for the others, a mask was given."""

    baseline: bool
    followup: bool


@dataclass(frozen=True)
class Doubt:
    """Why a growth is doubtful, for the user; ``forbids``: it is too doubtful to report."""

    sentence: str
    forbids: bool


def doubt_of_growth(
    baseline_ml: float, followup_ml: float, they_touch: bool, found: FoundAutomatically
) -> Doubt | None:
    """Reasons to doubt the growth between two hematomas; ``they_touch``: once the scans are aligned.

    A hematoma that was not found may still be there, and one found automatically may be something else. A mask
    that a person gave is taken as it is.
    """
    for name, volume in (("baseline", baseline_ml), ("follow-up", followup_ml)):
        if volume == 0:
            return Doubt(
                f"No hematoma was found in the {name}, which does not mean that there is none: the growth is not "
                "known. Draw it, and give its mask.",
                forbids=True,
            )
    if not they_touch:
        if not (found.baseline or found.followup):
            return Doubt("The two masks lie apart once the scans are aligned: check both.", forbids=False)
        return Doubt(
            "The hematomas found in the two scans lie apart once the scans are aligned, so one of them is "
            "something else: the growth is not known. Check both, and give their masks.",
            forbids=True,
        )
    if found.followup and followup_ml < _MIN_LEFT * baseline_ml:
        return Doubt(
            f"The hematoma found in the follow-up ({followup_ml:.1f} mL) is less than half of the one in the "
            f"baseline ({baseline_ml:.1f} mL), and parts of it may have been missed: the growth is not known. "
            "Check it, and give its mask.",
            forbids=True,
        )
    return None


def _doubt_of_presence(found: Mapping[str, Bleeds]) -> Doubt | None:
    """A hematoma found automatically, by the name of its scan, may be none."""
    for name, bleeds in found.items():
        if bleeds.is_doubtful:
            return Doubt(
                f"It is doubtful whether what was found in the {name.lower()} is a hematoma: the growth is not "
                "known. Check it, and give its mask.",
                forbids=True,
            )
    return None


def compare(
    baseline: ScanWithMask,
    followup: ScanWithMask,
    predicted: Mask | None,
    segmenter: ModelPackage | None,
    device: torch.device,
    definition: ExpansionDefinition = ExpansionDefinition.SIX_ML,
    stages: Stages | None = None,
    new_intraventricular: bool | None = None,
) -> Comparison:
    """Register the follow-up, find the hematomas that were not given, and measure.

    ``predicted``: mask of a prediction made from this baseline, on any grid in its space. Volumes are measured on
    each scan's own grid, before any registration. ``new_intraventricular``: whether the follow-up has blood in the
    ventricles and the baseline had none, if the user knows; otherwise as found in both.

    Raises:
        HematomaError: a sentence for the user (see ``errors.py``).
    """
    stages = stages or Stages()
    named = {"Baseline": baseline, "Follow-up": followup}
    with stages("brain", 0.1):
        brains = [extract_brain(scan.scan.image) for scan in (baseline, followup)]
        insides = [brain.mask for brain in brains]
    with stages("segmentation", 0.3):
        found = {
            name: find_bleeds(scan.scan.image, inside, segmenter, device)
            if scan.mask is None
            else Bleeds.of_hematoma(scan.mask)
            for (name, scan), inside in zip(named.items(), insides, strict=True)
        }
        masks = [bleeds.hematoma for bleeds in found.values()]
        # Blood on a late follow-up may be no denser than the brain; that is no reason to reject its mask.
        notes = [
            [
                *notes_on_box(bleeds),
                *notes_on_extraaxial(bleeds),
                *check_plausibility(scan.scan, brain, bleeds, drawn=scan is baseline and scan.mask is not None),
            ]
            for scan, brain, bleeds in zip((baseline, followup), brains, found.values(), strict=True)
        ]
    with stages("registration", 0.5):
        registration = register(baseline.scan.image, insides[0], followup.scan.image, insides[1])
    grid = baseline.scan.grid
    moved_ct = registration.bring(followup.scan.image, grid)
    moved_mask = registration.bring_mask(masks[1], grid)
    if predicted is not None:
        predicted = Mask(resample(predicted.image, grid, interpolator=sitk.sitkNearestNeighbor))
    arrays = [masks[0].voxels, moved_mask.voxels]
    before, after = masks[0].volume_ml, masks[1].volume_ml
    automatic = FoundAutomatically(*(scan.mask is None for scan in (baseline, followup)))
    touch = bool((arrays[0] & arrays[1]).any())
    doubt = _doubt_of_presence(found) or doubt_of_growth(before, after, touch, automatic)
    ventricles = [
        bleeds.volume_ml(Kind.INTRAVENTRICULAR) if scan.mask is None else scan.intraventricular_ml
        for scan, bleeds in zip((baseline, followup), found.values(), strict=True)
    ]
    found_new = is_new(*ventricles)
    is_new_there = found_new if new_intraventricular is None else new_intraventricular
    growth = None if doubt and doubt.forbids else measure_growth(before, after, definition, is_new_there)
    warnings = [
        f"{name}: {told}"
        for (name, scan), seen in zip(named.items(), notes, strict=True)
        for told in (*scan.scan.warnings, *seen)
    ]
    if registration.similarity < MIN_SIMILARITY:
        warnings.append(SCANS_DIFFER)
    result: dict[str, Any] = {
        "research_use_only": True,
        "software": {"name": "HematomaExpansion", "version": __version__},
        "registration": {"overlap": registration.overlap, "similarity": registration.similarity},
        "warnings": [*warnings, *([doubt.sentence] if doubt else [])],
        "baseline": {"volume_ml": before or None, "intraventricular_ml": ventricles[0]},
        "followup": {"volume_ml": after or None, "intraventricular_ml": ventricles[1]},
        "new_intraventricular": {"told": new_intraventricular, "found": found_new},
        "growth": None if growth is None else asdict(growth),
        "prediction": None,
        "models": {
            name: USER_MASK if scan.mask is not None else identity_of_segmenter(segmenter)
            for name, scan in (("baseline_mask", baseline), ("followup_mask", followup))
        },
    }
    if predicted is not None:
        guess = predicted.voxels
        result["prediction"] = {"volume_ml": predicted.volume_ml, **dict.fromkeys(_AGREEMENT)}
        if result["growth"] is not None:
            overlap = growth_dice(arrays[0], guess, *arrays)
            measured = (
                predicted.volume_ml - after,
                None if np.isnan(overlap) else overlap,
                dice(guess, arrays[1]),
                dice(*arrays),
            )
            result["prediction"] |= dict(zip(_AGREEMENT, measured, strict=True))
    scan = baseline.scan
    return Comparison(
        baseline_ct=scan.restore(scan.image),
        baseline_mask=scan.restore_mask(masks[0]),
        followup_ct=scan.restore(moved_ct),
        followup_mask=scan.restore_mask(moved_mask),
        predicted_mask=None if predicted is None else scan.restore_mask(predicted),
        registration=registration,
        result=result,
    )
