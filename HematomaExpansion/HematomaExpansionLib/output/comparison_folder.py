"""A comparison on disk: measures, the registered follow-up, and the picture of what was right and wrong."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import SimpleITK as sitk

from .. import RESEARCH_USE
from ..comparison import Comparison
from ..files.folders import whole_or_nothing
from ..files.provenance import Provenance
from ..scan.intensities import as_int16
from ..scan.volume_files import write_image
from .drawing import (
    BASELINE_COLOR,
    FOLLOWUP_COLOR,
    axial_array,
    axial_mask,
    axial_spacing,
    draw_agreement,
    draw_each,
    draw_outline,
    draw_slice,
    head_box,
    new_figure,
    slices_through,
)
from .findings import new_blood_text

COMPARISON_FILE = "comparison.json"
COMPARISON = "comparison"
"""The kind of result, as recorded in its provenance."""

_MAX_SLICES = 6


def write_comparison(comparison: Comparison, folder: Path) -> list[str]:
    """Write all files of a comparison; the folder appears whole or not at all, and replaces an earlier one.

    Returns a sentence for each picture that could not be made.

    Raises:
        InputError: the folder holds something else, or cannot be written.
    """
    images = {
        "baseline-mask.nii.gz": comparison.baseline_mask.image,
        "followup-ct.nii.gz": as_int16(comparison.followup_ct),
        "followup-mask.nii.gz": comparison.followup_mask.image,
    }
    with whole_or_nothing(folder, Provenance(COMPARISON)) as scratch:
        for name, image in images.items():
            write_image(image, scratch / name)
        sitk.WriteTransform(comparison.registration.transform, scratch / "baseline-to-followup.tfm")
        (scratch / COMPARISON_FILE).write_text(json.dumps(comparison.result, indent=2) + "\n", encoding="utf-8")
        return draw_each({"comparison.png": partial(draw_comparison, comparison)}, scratch)


def comparison_rows(comparison: Comparison) -> list[tuple[str, str]]:
    """The result as the rows of a table, (label, value)."""
    result = comparison.result
    growth, prediction = result["growth"], result["prediction"]
    rows = [
        (title, "none found" if volume is None else f"{volume:.1f} mL")
        for title, volume in (
            ("Baseline", result["baseline"]["volume_ml"]),
            ("Follow-up", result["followup"]["volume_ml"]),
        )
    ]
    if growth is None:
        rows.append(("Growth", "not known"))
    else:
        expansion = f"expansion: {'YES' if growth['expansion'] else 'no'} ({growth['definition']})"
        rows.append(
            ("Growth", f"{growth['absolute_ml']:+.1f} mL ({100 * growth['relative']:+.0f} %), {expansion}")
        )
    if new := new_blood_text(result):
        rows.append(("New blood in the ventricles", new))
    if prediction is not None and growth is None:
        rows.append(("Predicted", f"{prediction['volume_ml']:.1f} mL (the truth is not known)"))
    elif prediction is not None:
        overlap = prediction["growth_dice"]
        rows += [
            ("Predicted", f"{prediction['volume_ml']:.1f} mL (error {prediction['error_ml']:+.1f} mL)"),
            ("Growth Dice", "nothing grew" if overlap is None else f"{overlap:.3f}"),
            (
                "Lesion Dice",
                f"{prediction['lesion_dice']:.3f} ({prediction['lesion_dice_without_growth']:.3f} by a copy of "
                "the baseline)",
            ),
        ]
    return rows


def draw_comparison(comparison: Comparison, path: Path) -> None:
    """Draw each slice of the baseline, and below it the registered follow-up.

    The follow-up shows true positives (red), false positives (green) and false negatives (blue) of the predicted
    hematoma, or both outlines if there is no prediction or the truth is unknown.
    """
    before, after = axial_array(comparison.baseline_ct), axial_array(comparison.followup_ct)
    first, second = axial_mask(comparison.baseline_mask), axial_mask(comparison.followup_mask)
    is_known, predicted = comparison.result["growth"] is not None, comparison.predicted_mask
    guess = axial_mask(predicted) if predicted is not None and is_known else None
    either = first | second if guess is None else first | second | guess
    shown = slices_through(either, _MAX_SLICES)
    view = head_box(before[shown])
    spacing = axial_spacing(comparison.baseline_ct)
    figure = new_figure(2.9 * len(shown) + 0.2, 7.4, "black")
    cells = figure.subplots(2, len(shown), squeeze=False)
    for column, k in enumerate(shown):
        upper, lower = cells[:, column]
        draw_slice(upper, before[k][view], spacing[1] / spacing[0])
        draw_outline(upper, first[k][view], BASELINE_COLOR, 1.5)
        draw_slice(lower, after[k][view], spacing[1] / spacing[0])
        if guess is None:
            draw_outline(lower, first[k][view], BASELINE_COLOR, 1.5)
            draw_outline(lower, second[k][view], FOLLOWUP_COLOR, 1.2)
            continue
        draw_agreement(lower, guess[k][view], second[k][view], spacing[1] / spacing[0])
    figure.suptitle(
        "   ".join(f"{label} {value}" for label, value in comparison_rows(comparison)[: 2 if is_known else 3]),
        color="white",
    )
    legend = "top: baseline and its hematoma; bottom: real follow-up"
    if guess is not None:
        legend += ", prediction right (red), too much (green), missed (blue)"
    figure.text(0.01, 0.012, f"{legend}. {RESEARCH_USE}", color="#bbbbbb", fontsize=9)
    figure.subplots_adjust(0.005, 0.04, 0.995, 0.94, 0.02, 0.02)
    figure.savefig(path, dpi=100)
