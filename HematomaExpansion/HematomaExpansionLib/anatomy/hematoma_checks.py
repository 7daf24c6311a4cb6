"""Whether a mask looks like a hematoma inside the brain, or like something else.

A hematoma is denser than the brain around it, compact, and mostly away from the skull. A layer or lens along the
skull, a cast of both ventricles, and sheets between the gyri are other kinds of bleeding.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..errors import InputError
from ..scan.grid import Array
from ..scan.mask import Mask
from ..scan.subject import Subject
from .coarse_view import CoarseView

_AROUND_MM, _BRAIN_HU, _USUAL_BRAIN_HU = (4.0, 10.0), (20.0, 50.0), 35.0
_MIN_DENSER_HU, _USUALLY_DENSER_HU = 5.0, 14.0
_BONE_HU, _MAX_OUTSIDE = 160.0, 0.1
_AT_SKULL_MM, _MAX_AT_SKULL = 4.1, 0.28
_STRIP_MM, _MIN_STRIP_ML = 8.0, 0.3
_THICK, _MIN_THICK, _LARGE_ML = 3, 0.3, 8.0
_MIN_SYMMETRY, _VENTRICLES_DEEP_MM, _VENTRICLES_WIDE_MM = 0.6, 25.0, 40.0


def check_hematoma(subject: Subject, view: CoarseView, *, drawn: bool, guess: bool) -> list[str]:
    """Reasons to doubt that a subject's hematoma is one inside the brain, one sentence each.

    ``view`` is of the same subject. ``drawn``: the user gave the mask. ``guess``: tell from its shape whether it
    is another kind of bleeding, which a method that tells them apart knows better.

    Raises:
        InputError: the user's mask lies elsewhere, marks the brain, or is no denser than the brain.
    """
    if subject.hematoma.is_empty:
        return []
    if drawn:
        _check_place(subject.hematoma, subject.inside_skull)
    if not view.bleed.any():  # smaller than a voxel of the view
        return []
    notes = _denser(view, drawn=drawn)
    outside = _share_outside(subject)
    if outside > _MAX_OUTSIDE:
        notes.append(
            f"{100 * outside:.0f} % of the mask lies on bone or outside the skull, so its volume is too large: "
            "check the mask."
        )
    return [*notes, *_strip(view), *(_kind(view, subject.hematoma.volume_ml) if guess else [])]


def _check_place(hematoma: Mask, inside_skull: Mask) -> None:
    whole, skull = hematoma.volume_ml, inside_skull.volume_ml
    inside = (hematoma & inside_skull).volume_ml
    if inside < 0.5 * whole:
        raise InputError(
            f"Only {inside:.1f} of the mask's {whole:.1f} mL lie inside the skull: check that the mask belongs "
            "to this scan and marks the hematoma."
        )
    if inside > 0.5 * skull:
        raise InputError(
            f"The mask fills {inside / skull:.0%} of the skull, so it marks the brain or the head. "
            "Give the mask of the hematoma."
        )


def _denser(view: CoarseView, *, drawn: bool) -> list[str]:
    away = view.from_bleed_mm
    near = view.hu[view.inside & (away > _AROUND_MM[0]) & (away < _AROUND_MM[1])]
    brain = near[(near > _BRAIN_HU[0]) & (near < _BRAIN_HU[1])]
    core = ndimage.binary_erosion(view.bleed)
    own = float(np.median(view.hu[core if core.any() else view.bleed]))
    around = float(np.median(brain)) if len(brain) else _USUAL_BRAIN_HU
    denser = own - around
    if drawn and denser < _MIN_DENSER_HU:
        raise InputError(
            f"The mask does not mark fresh blood: it measures {own:.0f} HU, the brain around it {around:.0f} HU. "
            "Check that it was drawn on this scan."
        )
    if denser < _USUALLY_DENSER_HU:
        return [
            f"The hematoma is hardly denser than the brain around it ({own:.0f} and {around:.0f} HU): it may be "
            "no bleed, or an old one. Check it on the scan."
        ]
    return []


def _share_outside(subject: Subject) -> float:
    """Share of the hematoma that lies on bone or outside the skull."""
    bleed = subject.hematoma.voxels
    hu, inside = sitk.GetArrayViewFromImage(subject.ct)[bleed], subject.inside_skull.voxels[bleed]
    return float(np.mean(~inside | (hu > _BONE_HU)))


def _strip(view: CoarseView) -> list[str]:
    """A thin part that reaches the skull, in a mask that is otherwise thick and deep."""
    depth = view.depth_in_head_mm
    thick = ndimage.binary_opening(view.bleed, iterations=_THICK)
    if not thick.any() or depth[thick].min() <= _STRIP_MM:
        return []
    thin = view.bleed & ~ndimage.binary_dilation(thick, iterations=2)
    labels, count = ndimage.label(thin)
    at_skull = np.setdiff1d(labels[depth <= _AT_SKULL_MM], [0]) if count else np.array([])
    strip_ml = np.count_nonzero(np.isin(labels, at_skull)) * view.grid.voxel_volume_ml
    if strip_ml < _MIN_STRIP_ML:
        return []
    return [f"A thin part of the mask ({strip_ml:.1f} mL) reaches the skull: check whether it is blood."]


def _kind(view: CoarseView, bleed_ml: float) -> list[str]:
    """The other kind of bleeding that the mask looks like, if any."""
    inside, bleed = view.inside, view.bleed
    surface = bleed & ~ndimage.binary_erosion(bleed)
    depth = view.depth_in_head_mm
    if np.mean(depth[surface] <= _AT_SKULL_MM) > _MAX_AT_SKULL:
        return [_looks_like("epidural or subdural blood, since it lies along the skull")]
    across = np.argwhere(bleed)[:, 2]
    wide_mm = float(np.ptp(across)) * view.grid.spacing[0]
    central = wide_mm > _VENTRICLES_WIDE_MM and np.median(depth[bleed]) > _VENTRICLES_DEEP_MM
    if central and _symmetry(inside, bleed) > _MIN_SYMMETRY:
        return [_looks_like("blood in the ventricles, since it lies in the middle and alike on both sides")]
    thick = ndimage.binary_opening(bleed, iterations=_THICK)
    if bleed_ml > _LARGE_ML and thick.sum() < _MIN_THICK * bleed.sum():
        return [_looks_like("subarachnoid blood, a layer, or a vessel, since it is thin")]
    return []


def _looks_like(what: str) -> str:
    return (
        f"What is marked looks like {what}. This tool is made for blood inside the brain: do not rely on the "
        "predicted growth."
    )


def _symmetry(inside: Array, bleed: Array) -> float:
    """Share of a mask that lies within 4 mm of its mirror image on the other side of the head."""
    middle = np.argwhere(inside)[:, 2].mean()
    opposite = np.rint(2 * middle - np.arange(bleed.shape[2])).astype(int)
    there = (opposite >= 0) & (opposite < bleed.shape[2])
    mirrored = np.zeros_like(bleed)
    mirrored[..., there] = bleed[..., opposite[there]]
    return float((bleed & ndimage.binary_dilation(mirrored, iterations=2)).sum() / bleed.sum())
