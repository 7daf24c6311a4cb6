"""Whether a scan, the inside of its skull and the hematoma are plausible.

A damaged, incomplete or rescaled scan gives itself away when viewed as a whole. What cannot be trusted is
rejected; what may be incomplete or of another kind gets a sentence that stands beside every number. The limits lie
well outside the range of 17 real heads without a bleed and of simulated patients.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial import ConvexHull

from ..errors import InputError
from ..scan.grid import Array
from ..scan.head_ct import HeadCT
from ..scan.shapes import largest_component
from ..scan.subject import Subject
from .bleeds import Bleeds
from .brain import Brain
from .coarse_view import CoarseView
from .hematoma_checks import check_hematoma

_TISSUE_HU = 15.0  # less is CSF
_BRAIN_HU, _USUAL_BRAIN_HU = (22.0, 52.0), (28.0, 46.0)
_AIR_HU = -950.0
_SOFT_HU = (0.0, 80.0)
_SOME_CM2, _MAX_JUMP_HU = 40.0, 11.5
_MANY_CM2, _MAX_CHANGE = 60.0, 1.4
_TOP_CM2, _BOTTOM_CM2 = 60.0, 45.0
_MIN_SHARE_OF_HULL, _HEAD_CM2, _MIN_SHARE_OF_HEAD, _MAX_EMPTY_MM = 0.82, 90.0, 0.25, 20.0
_BLOOD_HU, _DENSER_HU = (52.0, 95.0), 110.0
_BLOOD_LEFT_ML, _BLOOD_OUTSIDE_ML, _DENSER_ML, _DEEP_MM = 3.5, 1.0, 1.5, 8.0
_BESIDE_BLOOD_MM = 6.0
# A layer along the skull: its depth, its part of the brain's height, and how much denser than brain it is. Partial
# volume of bone is similar on both sides: they differ by at most 2 mL in 17 heads without a bleed, and by 15 mL
# with a 5 mm subdural hematoma on one side.
_LAYER_MM, _LAYER_HEIGHT, _LAYER_HU, _MAX_ONE_SIDED_ML = (4.0, 12.0), (0.35, 0.85), 18.0, 5.0
_NOISE_VOXELS, _COMPACT_VOXELS = 0.75, 2


@dataclass(frozen=True)
class _Slices:
    """A scan slice by slice, from the lowest up.

    ``hu``: (z, y, x). ``brain``: the inside of the skull. ``areas_cm2``: its area on each slice.
    """

    hu: Array
    brain: Array
    pixel_cm2: float
    slice_mm: float

    @property
    def areas_cm2(self) -> Array:
        areas: Array = np.count_nonzero(self.brain, axis=(1, 2)) * self.pixel_cm2
        return areas


def check_plausibility(scan: HeadCT, brain: Brain, bleeds: Bleeds, *, drawn: bool) -> list[str]:
    """What the user must know about a scan, the inside of its skull, and the hematoma, one sentence each.

    ``bleeds`` lies on the scan's grid; ``drawn``: the user gave the hematoma. Other kinds of blood are guessed
    from density and shape only where they were not looked for.

    Raises:
        InputError: a result from this scan or mask could not be trusted.
    """
    x_mm, y_mm, z_mm = scan.grid.spacing
    slices = _Slices(sitk.GetArrayViewFromImage(scan.image), brain.mask.voxels, x_mm * y_mm / 100, z_mm)
    subject = Subject(scan.image, brain.mask, bleeds.hematoma)
    view = CoarseView.of(subject, bleeds.blood)
    guess = not bleeds.tells_kinds_apart
    return [
        *_density(slices),
        *_neighbors(slices, even=not scan.resampled),
        *_ends(slices, bleeds.hematoma.voxels),
        *_skull(brain),
        *_gaps(slices, view),
        *_dense_elsewhere(view, guess=guess),
        *check_hematoma(subject, view, drawn=drawn, guess=guess),
    ]


def _density(slices: _Slices) -> list[str]:
    """The median density of the brain without CSF, and of air."""
    brain = slices.hu[slices.brain]
    tissue = brain[brain > _TISSUE_HU]
    median = float(np.median(tissue)) if len(tissue) else -1000.0
    low, high = _BRAIN_HU
    if not low <= median <= high or np.mean(brain > _TISSUE_HU) < 0.5:
        overall = float(np.median(brain))
        raise InputError(
            f"The brain's median density is {overall:.0f} HU, where a CT without contrast agent has about 35. "
            "The scan's values are shifted or rescaled, or it holds contrast agent: export the original series."
        )
    notes = []
    low, high = _USUAL_BRAIN_HU
    if not low <= median <= high:
        notes.append(
            f"The brain's median density of {median:.0f} HU is unusual (about 35): check the scan's values. "
            "Volumes may be wrong."
        )
    is_air = slices.hu < -500
    # If more than half of the air is this dark, so is its median, which is slow to compute for millions of voxels.
    if 2 * np.count_nonzero(slices.hu <= _AIR_HU) <= np.count_nonzero(is_air) > 0:
        air_hu = float(np.median(slices.hu[is_air]))
        if air_hu > _AIR_HU:
            notes.append(
                f"Air has {air_hu:.0f} HU in this scan instead of -1000: its values were rescaled or shifted. "
                "Volumes may be wrong: export the original series."
            )
    return notes


def _neighbors(slices: _Slices, *, even: bool) -> list[str]:
    """Slices that do not fit their neighbors; ``even``: none were interpolated."""
    hu = slices.hu[:, ::2, ::2]
    soft = (hu > _SOFT_HU[0]) & (hu < _SOFT_HU[1])
    for k in range(1, len(hu) - 1):
        tissue = soft[k - 1] & soft[k + 1]
        if np.count_nonzero(tissue) * 4 * slices.pixel_cm2 < _SOME_CM2:
            continue
        # A large bleed shifts the median of a slice; a different scale shifts all its quartiles.
        below, here, above = (np.percentile(part[tissue], (25, 50, 75)) for part in hu[k - 1 : k + 2])
        jump = here - (below + above) / 2
        is_other = jump.min() > _MAX_JUMP_HU or jump.max() < -_MAX_JUMP_HU
        if is_other and not _is_bone(hu[k - 1 : k + 2], here[1]):
            raise InputError(
                f"Slice {k + 1} of {len(hu)}, counted from the feet, does not fit those beside it: it is blank, "
                "or its values are on another scale. Export the series again."
            )
    if not even:
        return []
    areas = slices.areas_cm2
    changes = np.array([_difference(first, second) for first, second in pairwise(hu)])
    for k in range(1, len(changes) - 1):
        usual = max(changes[k - 1], changes[k + 1])
        if min(areas[k], areas[k + 1]) >= _MANY_CM2 and changes[k] > _MAX_CHANGE * usual:
            return [
                f"Slices {k + 1} and {k + 2}, counted from the feet, differ more than others do: slices may be "
                "missing between them, or the patient moved. Volumes may be wrong."
            ]
    return []


def _is_bone(hu: Array, median_hu: float) -> bool:
    """Whether the middle of three slices may hold bone where its neighbors do not: its air matches theirs."""
    air = (hu[0] < _AIR_HU) & (hu[2] < _AIR_HU)
    return median_hu > _DENSER_HU and air.any() and float(np.median(hu[1][air])) < _AIR_HU


def _difference(first: Array, second: Array) -> float:
    """Mean absolute difference of two slices in HU where either holds the head, with bone and air clipped."""
    one, other = (np.clip(part, -200, 200) for part in (first, second))
    head = (one > -150) | (other > -150)
    return float(np.abs(one - other)[head].mean()) if head.any() else 0.0


def _ends(slices: _Slices, hematoma: Array) -> list[str]:
    """Brain or bleed cut off by the first or last slice."""
    areas, notes = slices.areas_cm2, []
    cut = [
        name
        for name, area, most in (("top", areas[-1], _TOP_CM2), ("bottom", areas[0], _BOTTOM_CM2))
        if area > most
    ]
    if cut:
        notes.append(
            f"The scan ends within the brain (at the {' and the '.join(cut)}): what lies beyond was not looked at."
        )
    if hematoma[0].any() or hematoma[-1].any():
        notes.append(
            "The hematoma reaches the end of the scan, where slanting bone is easily taken for blood: check it. "
            "If it is blood, the part out of view is missing from its volume."
        )
    return notes


def _skull(brain: Brain) -> list[str]:
    notes = []
    if brain.missing_bone_cm2:
        notes.append(
            f"Bone is missing over about {brain.missing_bone_cm2:.0f} cm² of the skull, as after a craniectomy or "
            "in an infant. The edge of the brain is a guess there: check that no scalp or muscle counts as blood."
        )
    if brain.unseen_skull_cm2:
        notes.append(
            f"About {brain.unseen_skull_cm2:.0f} cm² of the skull lies outside the field of view and was not "
            "examined."
        )
    return notes


def _gaps(slices: _Slices, view: CoarseView) -> list[str]:
    """Whether the inside of the skull is much smaller than its hull, or ends early."""
    if (
        np.count_nonzero(view.inside) >= _MIN_SHARE_OF_HULL * view.hull.volume
        and _empty_mm(slices) <= _MAX_EMPTY_MM
    ):
        return []
    return [
        "Parts of the brain may not have been looked at: what was found inside the skull has gaps. Check it with "
        "--keep-intermediate (in Slicer: Keep intermediate results)."
    ]


def _dense_elsewhere(view: CoarseView, *, guess: bool) -> list[str]:
    """Regions as dense as blood, or denser, that do not count as blood; ``guess``: say what they may be."""
    smooth, voxel_ml = ndimage.gaussian_filter(view.hu, _NOISE_VOXELS), view.grid.voxel_volume_ml
    low, high = _BLOOD_HU
    dense = (smooth > low) & (smooth < high) & (view.from_blood_mm > _BESIDE_BLOOD_MM)
    left = _largest_compact(dense & view.inside)
    outside = _largest_compact(_within(view.hull, dense & ~view.inside))
    denser = (smooth > _DENSER_HU) & (view.depth_inside_mm > _DEEP_MM)
    denser_ml = np.count_nonzero(denser) * voxel_ml
    notes = []
    if np.count_nonzero(left) * voxel_ml > _BLOOD_LEFT_ML:
        min_ml = np.count_nonzero(_with_margin(left, dense & view.inside)) * voxel_ml
        notes.append(
            f"At least {min_ml:.0f} mL inside the skull is as dense as blood but does not count as hematoma: "
            "check for blood outside of the brain (epidural, subdural, subarachnoid), which this tool is not made "
            "for."
            if guess
            else f"At least {min_ml:.0f} mL inside the skull is as dense as blood but was not taken for blood: "
            "check it on the scan."
        )
    elif guess:
        notes += _layer(view, smooth)
    if np.count_nonzero(outside) * voxel_ml > _BLOOD_OUTSIDE_ML:
        min_ml = np.count_nonzero(_with_margin(outside, dense)) * voxel_ml
        notes.append(
            f"At least {min_ml:.0f} mL in the head, outside the region examined, is as dense as blood: check "
            "the scan for a bleed there."
        )
    if denser_ml > _DENSER_ML:
        notes.append(
            f"{denser_ml:.0f} mL within the brain is denser than blood: contrast agent, or calcification. If the "
            "scan was made with contrast agent, use one without."
        )
    return notes


def _layer(view: CoarseView, smooth: Array) -> list[str]:
    """A layer of blood along the skull, so thin that only the other side of the head tells it from bone.

    ``smooth``: the view's CT with its noise smoothed.
    """
    inside, (low, high) = view.inside, _LAYER_MM
    brain_hu = float(np.median(smooth[inside & (smooth > _TISSUE_HU)]))
    dense = (smooth > brain_hu + _LAYER_HU) & (smooth < _BLOOD_HU[1])
    depth = view.depth_inside_mm
    layer = dense & (depth > low) & (depth < high) & (view.from_blood_mm > _BESIDE_BLOOD_MM)
    slices = np.flatnonzero(inside.any(axis=(1, 2)))
    first, last = (round(slices[0] + part * np.ptp(slices)) for part in _LAYER_HEIGHT)
    middle = round(np.argwhere(inside)[:, 2].mean())
    right_ml, left_ml = (
        np.count_nonzero(half) * view.grid.voxel_volume_ml
        for half in (layer[first:last, :, : middle + 1], layer[first:last, :, middle + 1 :])
    )
    if abs(left_ml - right_ml) > _MAX_ONE_SIDED_ML:
        side = "left" if left_ml > right_ml else "right"
        return [
            f"Along the skull, what is as dense as blood is thicker on the {side} side (at least "
            f"{abs(left_ml - right_ml):.0f} mL more): check for epidural or subdural blood, which this tool is "
            "not made for."
        ]
    return []


def _within(hull: ConvexHull, mask: Array) -> Array:
    """The voxels of a mask that lie within a hull."""
    points = np.argwhere(mask)
    inside = (points @ hull.equations[:, :3].T + hull.equations[:, 3] <= 0).all(axis=1)
    part = np.zeros_like(mask)
    part[tuple(points[inside].T)] = True
    return part


def _empty_mm(slices: _Slices) -> float:
    """Height in mm of the head above the brain's widest slice where hardly any brain was found."""
    areas = slices.areas_cm2
    above = slice(int(areas.argmax()), None)
    head = [ndimage.binary_opening(part > -300, np.ones((5, 5))) for part in slices.hu[above]]
    head_cm2 = np.count_nonzero(head, axis=(1, 2)) * slices.pixel_cm2
    empty = (head_cm2 > _HEAD_CM2) & (areas[above] < _MIN_SHARE_OF_HEAD * head_cm2)
    return float(np.count_nonzero(empty)) * slices.slice_mm


def _largest_compact(where: Array) -> Array:
    """The largest part of ``where`` that is more than about 8 mm thick."""
    return largest_component(ndimage.binary_opening(where, iterations=_COMPACT_VOXELS))


def _with_margin(part: Array, of: Array) -> Array:
    """What an opening left, with the margin it removed."""
    whole: Array = ndimage.binary_dilation(part, iterations=2 * _COMPACT_VOXELS, mask=of)
    return whole
