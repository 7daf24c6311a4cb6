"""What is measured on a hematoma: volume, ABC/2, growth, expansion, and how far two masks agree.

Masks are 0/1 images whose slices (array axis 0) are axial. Lengths in mm, volumes in mL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import map_coordinates
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist, squareform

from .grid import Array, Grid

DETECTABLE_GROWTH_ML = 3.8
"""Smallest change that one rater can tell from measurement error, hematoma without intraventricular blood
(Rodriguez-Luna 2016)."""

_LARGEST_CORRECTION = 2.0
"""A mask that is too small or too large by more than this factor is wrong, not biased."""

_SAMPLES_PER_VOXEL = 4


def volume_ml(mask: sitk.Image) -> float:
    """Volume of the true voxels in mL."""
    return int(np.count_nonzero(sitk.GetArrayViewFromImage(mask))) * Grid.of(mask).voxel_volume_ml


def corrected_volume(correction: Mapping[str, float], measured_ml: float) -> float:
    """A segmenter's volume in mL without its bias: ``constant_ml`` + ``slope`` × measured (Guo 2024, III.D).

    ``correction`` is a package's. Below ``smallest_ml`` and above ``largest_ml``, between which it was fitted, the
    factor by which a volume is corrected stays what it is there. It lies between 1/2 and 2, so that no volume
    becomes negative, and a larger one always stays the larger.
    """
    known = min(max(measured_ml, correction["smallest_ml"]), correction["largest_ml"])
    factor = (correction["constant_ml"] + correction["slope"] * known) / known
    return measured_ml * min(max(factor, 1 / _LARGEST_CORRECTION), _LARGEST_CORRECTION)


@dataclass(frozen=True)
class EllipsoidEstimate:
    """The bedside estimate of volume, A × B × C / 2, and its three lengths.

    ``volume_ml`` is the original form (Kothari 1996), ``simplified_volume_ml`` counts every slice in full.
    """

    a_mm: float
    b_mm: float
    c_mm: float
    volume_ml: float
    simplified_volume_ml: float


def abc2(mask: sitk.Image, slice_positions_mm: Sequence[float] | None = None) -> EllipsoidEstimate:
    """ABC/2 of a mask, after Kothari 1996.

    A is the largest diameter on the slice of largest area, B the largest one perpendicular to it there, C the
    height: each slice counts with its distance to its neighbors times 1, 1/2 or 0 if its area is above 75 %,
    25 to 75 %, or below 25 % of the largest.

    Args:
        mask: 0/1 image; slices are array axis 0, on an orthogonal or sheared grid.
        slice_positions_mm: where each slice lies along the slices' normal, for a stack of uneven spacing;
            by default the grid's own even spacing.
    """
    array = sitk.GetArrayViewFromImage(mask) > 0
    areas = array.sum(axis=(1, 2)).astype(float)
    if not areas.any():
        return EllipsoidEstimate(0.0, 0.0, 0.0, 0.0, 0.0)
    axes = Grid.of(mask).axes
    largest = int(areas.argmax())
    a, b = _diameters(array[largest], axes[:, :2])
    heights = _slice_heights(len(areas), axes, slice_positions_mm)
    share = areas / areas.max()
    weights = np.where(share > 0.75, 1.0, np.where(share >= 0.25, 0.5, 0.0))
    c = float((weights * heights).sum())
    every_slice = float(heights[areas > 0].sum())
    return EllipsoidEstimate(a, b, c, a * b * c / 2000.0, a * b * every_slice / 2000.0)


def _slice_heights(count: int, axes: Array, positions_mm: Sequence[float] | None) -> Array:
    """Height in mm that each slice stands for: half way to either neighbor."""
    if positions_mm is None or count == 1:
        normal = np.cross(axes[:, 0], axes[:, 1])
        return np.full(count, abs(float(axes[:, 2] @ normal)) / float(np.linalg.norm(normal)))
    if len(positions_mm) != count:
        raise ValueError(f"{len(positions_mm)} slice positions for {count} slices")
    gaps = np.abs(np.diff(np.asarray(positions_mm, dtype=float)))
    before, after = np.r_[gaps[0], gaps], np.r_[gaps, gaps[-1]]
    return (before + after) / 2


def _diameters(area: Array, axes: Array) -> tuple[float, float]:
    """Largest diameter of a plane area (y, x), and the longest extent perpendicular to it, in mm.

    ``axes`` is 3×2: the steps in mm along x and y. The outline runs half way between voxels inside and
    outside, as a caliper on the displayed image would be set.
    """
    y, x = np.nonzero(area)
    half_steps = np.array([(0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5)])
    outline = (np.stack([x, y], axis=1)[:, None, :] + half_steps).reshape(-1, 2)
    points = outline @ _plane_basis(axes).T
    points = points[_hull(points)]
    distances = squareform(pdist(points))
    first, second = np.unravel_index(int(distances.argmax()), distances.shape)
    along = (points[second] - points[first]) / distances[first, second]
    return float(distances.max()), _longest_chord(area, axes, np.array([-along[1], along[0]]))


def _plane_basis(axes: Array) -> Array:
    """2×2 matrix that takes voxel indices (x, y) to millimeters in the slice's plane, for 3×2 ``axes``."""
    first = axes[:, 0] / np.linalg.norm(axes[:, 0])
    rest = axes[:, 1] - (axes[:, 1] @ first) * first
    second = rest / np.linalg.norm(rest)
    return np.stack([first @ axes, second @ axes])


def _hull(points: Array) -> Array:
    try:
        return ConvexHull(points).vertices
    except QhullError:  # a hematoma of one row of voxels
        return np.arange(len(points))


def _longest_chord(area: Array, axes: Array, direction: Array) -> float:
    """Longest extent in mm of ``area`` along lines parallel to ``direction`` (2 components, plane mm)."""
    basis = _plane_basis(axes)
    y, x = np.nonzero(area)
    points = np.stack([x, y], axis=1) @ basis.T
    across = np.array([direction[1], -direction[0]])
    step = float(np.linalg.norm(basis, axis=0).min()) / _SAMPLES_PER_VOXEL
    margin = float(np.linalg.norm(basis, axis=0).max())

    def samples(coordinate: Array) -> Array:
        # Half a step off the voxels' own positions: the outline then falls between two samples.
        return np.arange(coordinate.min() - margin + step / 2, coordinate.max() + margin + step, step)

    t, s = samples(points @ direction), samples(points @ across)
    plane = t[None, :, None] * direction + s[:, None, None] * across
    index = plane @ np.linalg.inv(basis).T
    inside = map_coordinates(area.astype(np.float32), [index[..., 1], index[..., 0]], order=1) >= 0.5
    hit = inside.any(axis=1)
    first = inside.argmax(axis=1)
    last = inside.shape[1] - 1 - inside[:, ::-1].argmax(axis=1)
    return float(((last - first)[hit].max() + 1) * step) if hit.any() else step


class ExpansionDefinition(Enum):
    """When growth counts as expansion; the values are the names used on the command line."""

    SIX_ML = "6ml"
    TWELVE_AND_A_HALF_ML = "12.5ml"
    REVISED = "revised"

    @property
    def text(self) -> str:
        """The definition in words, as written beside every answer."""
        return {
            ExpansionDefinition.SIX_ML: "growth > 6 mL or > 33 % of baseline",
            ExpansionDefinition.TWELVE_AND_A_HALF_ML: "growth > 12.5 mL or > 33 % of baseline",
            ExpansionDefinition.REVISED: "growth >= 6 mL or >= 33 % of baseline "
            "(new intraventricular blood not assessed)",
        }[self]


@dataclass(frozen=True)
class GrowthMeasures:
    """Growth in mL and relative to the baseline, and what it means.

    ``detectable``: whether the growth is beyond what repeated measurement can tell apart.
    """

    absolute_ml: float
    relative: float
    expansion: bool
    definition: str
    detectable: bool


def measure_growth(baseline_ml: float, followup_ml: float, definition: ExpansionDefinition) -> GrowthMeasures:
    """Growth from two volumes in mL; the baseline's must be above zero."""
    absolute = followup_ml - baseline_ml
    relative = absolute / baseline_ml
    expansion = {
        ExpansionDefinition.SIX_ML: absolute > 6.0 or relative > 0.33,
        ExpansionDefinition.TWELVE_AND_A_HALF_ML: absolute > 12.5 or relative > 0.33,
        ExpansionDefinition.REVISED: absolute >= 6.0 or relative >= 0.33,
    }[definition]
    return GrowthMeasures(absolute, relative, expansion, definition.text, abs(absolute) > DETECTABLE_GROWTH_ML)


def dice(first: Array, second: Array) -> float:
    """Dice coefficient of two masks; 1 if both are empty."""
    total = np.count_nonzero(first) + np.count_nonzero(second)
    return 1.0 if total == 0 else float(2 * np.count_nonzero(first & second) / total)


def mean_iou(first: Array, second: Array) -> float:
    """Intersection over union, averaged over the masks and what lies around them, as in JPM 12:779, 2.6.

    The background, of which all but everything is agreed on, lifts it far above that of the masks alone.
    """

    def iou(one: Array, other: Array) -> float:
        union = np.count_nonzero(one | other)
        return 1.0 if union == 0 else float(np.count_nonzero(one & other) / union)

    return (iou(first, second) + iou(~first, ~second)) / 2


def cohen_kappa(first: Array, second: Array) -> float:
    """Cohen's kappa of two masks over all of their voxels: agreement beyond chance; 1 if both are empty."""
    shares = float(first.mean()), float(second.mean())
    chance = shares[0] * shares[1] + (1 - shares[0]) * (1 - shares[1])
    return 1.0 if chance == 1.0 else (float(np.mean(first == second)) - chance) / (1 - chance)


def growth_dice(given: Array, predicted: Array, baseline: Array, followup: Array) -> float:
    """Dice of the growth areas: predicted without the mask it began from, against true follow-up without baseline.

    Not a number where nothing has grown, since there is no area to find.
    """
    true_growth = followup & ~baseline
    return dice(predicted & ~given, true_growth) if true_growth.any() else float("nan")
