"""Markers of expansion on non-contrast CT, each measured by its published criterion (Morotti 2019).

Every answer comes with the numbers and the place behind it, so that a radiologist can check and overrule it, and
with how probable it is in view of measurement error. Densities are in HU, lengths in mm, areas in mm², places in
LPS mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..scan.grid import Array, Grid, image_on
from ..scan.mask import Mask
from ..scan.shapes import largest_component, signed_distance
from .texture import (
    ENCLOSING_HU,
    IN_PLANE,
    LEVEL_DEGREES,
    NOTHING_HU,
    Clot,
    Parts,
    around,
    disc,
    enclosed_hu,
    find_clots,
    two_parts,
)

BLACK_HOLE_HU, BLEND_HU = 28.0, 18.0
"""Density differences that the black hole and blend criteria require."""

_HYPODENSE_MM2, _SWIRL_MM2 = 9, 21
"""Area over which a hypodense region must be that dark: 3 mm and 5 mm across."""

_ISODENSE_HU, _ISODENSE_SHARE = 20.5, 0.7
"""How far above brain all of a swirl may be and still look like brain beside the blood around it: in HU, and as a
share of how far the clot is."""

_TWO_PARTS, _TWO_LEVEL_PARTS, _NEARLY = 0.35, 0.3, 0.7
"""Minimum share of the density variance that two parts explain (the second: parts with a level border; the third:
as a share of what the best border explains)."""

_LEVEL_HU = 14.0
_HETEROGENEOUS_HU, _MIN_DENSE = 3.6, 12
"""Threshold for the robust SD of the clot's density, and minimum number of voxels to measure it."""

_IRREGULARITY = 1 / 8
"""How far the outline must leave its ellipse to count as an irregularity, as a share of the radius."""

_NEAR_LARGEST = 0.65
"""Slices with at least this share of the largest area show the outline too; one alone depends on where it lies."""

_SATELLITE_ACROSS_MM, _SATELLITE_NEAR_MM, _SATELLITE_FAR_MM, _SPECK_MM = 10.0, 1.0, 20.0, 2.5
"""Limits of a satellite; what is smaller than a ball of the last diameter may be noise of the mask."""

_ISLANDS = 3
_OUTLINE_SMOOTH_MM, _OUTLINE_MM, _MIN_IN_OUTLINE = 0.6, 0.5, 20

SPREADS = {
    "enclosed_hu": 1.5,
    "black_hole_hu": 1.9,
    "swirl_hu": 1.1,
    "parts_hu": 1.3,
    "explained_share": 0.05,
    "level_degrees": 4.0,
    "deviation_hu": 0.55,
    "depth_of_radius": 0.012,
    "across_mm": 0.7,
    "away_mm": 0.5,
    "speck_mm": 0.5,
}
"""Measurement error of what decides each marker, as its SD over 18 scans of the same patient (slices of 5, 2.5 and
1 mm, matrix 256 and 512, shifted by half a voxel, more noise): rounded from 30 simulated patients, seed 5600 of
``Testing/benchmarks/test_retest.py``. Those of degrees and of the millimeters of satellites are assumptions."""

_ABSENT = -8.0
"""Criterion that is surely not met, in SDs."""


@dataclass(frozen=True)
class Marker:
    """One marker: whether it is present, how probable that is, what was measured, and where.

    ``probability``: that the sign would be found without measurement error, 0 to 1; present from a half.
    ``evidence``: numbers by name, with the unit at the end of the name. ``place_mm``: None if nothing was found.
    """

    present: bool
    probability: float
    evidence: dict[str, float]
    place_mm: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class _Reading:
    """What one reading of a scan says on a marker.

    ``score``: how far the weakest criterion lies above its threshold, in SDs of its measurement error.
    """

    score: float
    evidence: dict[str, float]
    place_mm: tuple[float, float, float] | None = None


def find_markers(ct: sitk.Image, mask: Mask) -> dict[str, Marker]:
    """All markers by name, for a CT in HU and a nonempty mask on its grid (axes nearest LPS)."""
    clots = find_clots(ct, mask)
    readings = [_read(clot) for clot in clots]
    satellites = _satellites(mask)
    return {
        **{name: _marker([reading[name] for reading in readings]) for name in readings[0]},
        "irregular": _irregular(clots),
        "satellite": _marker_of_satellites(satellites, 1),
        "island": _marker_of_satellites(satellites, _ISLANDS),
    }


def describe_markers(ct: sitk.Image, mask: Mask) -> dict[str, dict[str, Any]]:
    """The result of ``find_markers`` as ``prediction.json`` holds it."""
    return {name: asdict(marker) for name, marker in find_markers(ct, mask).items()}


_NO_REGION, _NO_PARTS = _Reading(_ABSENT, {"area_mm2": 0.0}), _Reading(_ABSENT, {"difference_hu": 0.0})


def _read(clot: Clot) -> dict[str, _Reading]:
    """The markers of density in one reading."""
    parts = two_parts(clot)
    depth, enclosed = enclosed_hu(clot)
    return {
        "hypodensity": _hypodensity(clot, depth, enclosed),
        "swirl": _swirl(clot, enclosed),
        "black_hole": _black_hole(clot, depth),
        "blend": _blend(clot, parts),
        "fluid_level": _fluid_level(clot, parts),
        "heterogeneous": _heterogeneous(clot, parts),
    }


def _marker(readings: Sequence[_Reading]) -> Marker:
    """The readings' mean, with the numbers and the place of the one that lies nearest to it."""
    score = float(np.mean([reading.score for reading in readings]))
    nearest = min(readings, key=lambda reading: abs(reading.score - score))
    return _scored(score, nearest.evidence, nearest.place_mm)


def _scored(score: float, evidence: dict[str, float], place_mm: tuple[float, float, float] | None) -> Marker:
    probability = NormalDist().cdf(max(score, _ABSENT))
    present = probability >= 0.5
    return Marker(present, probability, evidence, place_mm if present else None)


def _above(what: str, value: float, threshold: float) -> float:
    """How far a value lies above its threshold, in SDs of its measurement error."""
    return max((value - threshold) / SPREADS[what], _ABSENT)


def _hypodensity(clot: Clot, depth: Array, enclosed: Array) -> _Reading:
    """Any region that is less dense than the blood enclosing it."""
    if not clot.inner.any():
        return _NO_REGION
    over = np.where(clot.inner, depth, NOTHING_HU)
    over = ndimage.grey_opening(over, footprint=disc(_HYPODENSE_MM2))
    place = np.unravel_index(int(over.argmax()), over.shape)
    region = _region(depth >= max(float(over[place]) / 2, 1.0), place)
    score = _above("enclosed_hu", float(over[place]), ENCLOSING_HU)
    return _Reading(
        score, _evidence_of(clot, region, float(enclosed[region].max())), clot.grid.centroid_of(region)
    )


def _swirl(clot: Clot, enclosed: Array) -> _Reading:
    """A region about as dense as brain or less; it need not be enclosed."""
    values = clot.hu[clot.core]
    of_all = {
        "low_density_share": float((clot.low & clot.core).sum()) / len(values),
        "darkest_above_brain_hu": float(np.percentile(values, 5)) - clot.brain_hu,
        "below_dense_clot_hu": clot.clot_hu - float(values.mean()),
    }
    if not clot.inner.any():
        return replace(_NO_REGION, evidence=_NO_REGION.evidence | of_all)
    lightest = ndimage.maximum_filter(np.where(clot.inner, clot.hu, -NOTHING_HU), footprint=disc(_SWIRL_MM2))
    place = np.unravel_index(int(lightest.argmin()), lightest.shape)
    region = _region(clot.low & clot.inner, place)
    above_brain = float(lightest[place]) - clot.brain_hu
    evidence = _evidence_of(clot, region, float(enclosed[region].mean())) | of_all
    limit = min(_ISODENSE_HU, _ISODENSE_SHARE * (clot.clot_hu - clot.brain_hu))
    return _Reading(_above("swirl_hu", -above_brain, -limit), evidence, clot.grid.centroid_of(region))


def _black_hole(clot: Clot, depth: Array) -> _Reading:
    """An enclosed region of any size, over 28 HU less dense than the clot."""
    below, inner = clot.clot_hu - clot.hu, clot.inner
    if not inner.any():
        return _NO_PARTS
    darker = (below - BLACK_HOLE_HU) / SPREADS["black_hole_hu"]
    enclosed = (depth - ENCLOSING_HU) / SPREADS["enclosed_hu"]
    scores = np.where(inner, np.minimum(darker, enclosed), NOTHING_HU)
    place = np.unravel_index(int(scores.argmax()), scores.shape)
    difference = float(below[place])
    region = _region(inner & (below >= difference / 2), place)
    evidence = {
        "difference_hu": difference,
        "lowest_hu": float(clot.hu[place]),
        "area_mm2": float(region.sum()) * clot.pixel_mm2,
    }
    return _Reading(max(float(scores[place]), _ABSENT), evidence, clot.grid.centroid_of(region))


def _region(where: Array, place: tuple[Any, ...]) -> Array:
    """What is connected to a place in its slice, and at least the place itself, as booleans (z, y, x)."""
    region = np.zeros(where.shape, bool)
    region[place] = True
    return region | ndimage.binary_propagation(region & where, IN_PLANE, mask=where)


def _evidence_of(clot: Clot, region: Array, enclosed: float) -> dict[str, float]:
    lowest = float(clot.hu[region].min())
    return {
        "area_mm2": float(region.sum()) * clot.pixel_mm2,
        "lowest_hu": lowest,
        "difference_hu": around(clot, region) - lowest,
        "enclosed_share": enclosed,
        "brain_hu": clot.brain_hu,
    }


def _blend(clot: Clot, parts: Parts | None) -> _Reading:
    """Two parts more than 18 HU apart; a level border with the denser part below is a fluid level instead."""
    if parts is None:
        return _NO_PARTS
    tilt = float(np.degrees(np.arccos(np.clip(parts.toward_dense[1], -1, 1))))
    score = min(
        _above("parts_hu", parts.difference_hu, BLEND_HU),
        _above("explained_share", parts.explained, _TWO_PARTS),
        _above("level_degrees", tilt, LEVEL_DEGREES),
    )
    return _of_parts(clot, parts, score)


def _fluid_level(clot: Clot, parts: Parts | None) -> _Reading:
    """A less dense part above a level border that splits the density nearly as well as the best border."""
    leveled = two_parts(clot, level=True)
    if parts is None or leveled is None:
        return _NO_PARTS
    score = min(
        _above("parts_hu", leveled.difference_hu, _LEVEL_HU),
        _above("explained_share", leveled.explained, max(_TWO_LEVEL_PARTS, _NEARLY * parts.explained)),
    )
    return _of_parts(clot, leveled, score if leveled.toward_dense[1] > 0 else _ABSENT)


def _of_parts(clot: Clot, parts: Parts, score: float) -> _Reading:
    evidence = {
        "difference_hu": parts.difference_hu,
        "explained_share": parts.explained,
        "lighter_share": parts.light_share,
    }
    return _Reading(score, evidence, clot.grid.centroid_of(parts.light))


def _heterogeneous(clot: Clot, parts: Parts | None) -> _Reading:
    """Varying density within the clot outside hypodense regions, or within each part of a clot of two parts.

    Measured on the denser half alone, since hypodense regions and the margin spread the other half.
    """
    blood = ndimage.binary_erosion(clot.mask, IN_PLANE)
    dense = blood & ~ndimage.binary_dilation(clot.low & blood, IN_PLANE, iterations=2)
    if dense.sum() < _MIN_DENSE:
        return _Reading(_ABSENT, {"deviation_hu": 0.0})
    light = dense & parts.light if parts is not None and parts.explained > _TWO_PARTS else np.zeros_like(dense)
    sides = [clot.hu[side] for side in (light, dense & ~light) if side.any()]
    values = np.concatenate([side - np.median(side) for side in sides])
    middle, high = np.percentile(values, (50, 90))
    deviation = float(high - middle) / 1.2816  # the 90th percentile of a normal distribution
    evidence = {"deviation_hu": deviation, "whole_deviation_hu": float(clot.hu[clot.core].std())}
    return _Reading(_above("deviation_hu", deviation, _HETEROGENEOUS_HU), evidence)


def _irregular(clots: Sequence[Clot]) -> Marker:
    """In the slices of nearly the largest area, the outline leaves the ellipse of the same moments in at least two
    places; the mean of those slices."""
    outlines = [_outline(area) for clot in clots for area in _large_areas(clot)]
    depths = [_depths(outline) for outline in outlines if outline.sum() >= _MIN_IN_OUTLINE]
    if not depths:
        return _scored(_ABSENT, {"irregularities": 0.0}, None)
    second = float(np.mean([ranked[1] for ranked in depths]))
    evidence = {
        "irregularities": float(np.mean([sum(depth > _IRREGULARITY for depth in ranked) for ranked in depths])),
        "second_depth_of_radius": second,
    }
    clot = clots[0]
    return _scored(_above("depth_of_radius", second, _IRREGULARITY), evidence, clot.grid.centroid_of(clot.mask))


def _large_areas(clot: Clot) -> list[Array]:
    """The blood's share of each pixel (y, x) in the slices of nearly the largest area."""
    sizes = clot.mask.sum(axis=(1, 2))
    return [clot.share[k] for k in np.flatnonzero(sizes >= _NEAR_LARGEST * sizes.max())]


def _outline(share: Array) -> Array:
    """The largest part of a slice's blood, smoothed, in pixels of ``_OUTLINE_MM``."""
    smooth = ndimage.gaussian_filter(share, _OUTLINE_SMOOTH_MM)
    return largest_component(ndimage.zoom(smooth, 1 / _OUTLINE_MM, order=1) >= min(0.5, float(smooth.max())))


def _depths(outline: Array) -> list[float]:
    """How far the outline leaves its ellipse in each place, as shares of the radius; largest first, at least 2."""
    points = np.argwhere(outline) * _OUTLINE_MM
    spread = np.cov((points - points.mean(axis=0)).T) + 1e-6 * np.eye(2)
    offset = np.moveaxis(np.indices(outline.shape), 0, -1) * _OUTLINE_MM - points.mean(axis=0)
    ellipse = np.einsum("...i,ij,...j", offset, np.linalg.inv(spread), offset) < 4
    distance = np.where(ellipse, *(ndimage.distance_transform_edt(side) for side in (ellipse, ~ellipse)))
    labels, count = ndimage.label(outline ^ ellipse)
    radius = float(np.sqrt(outline.sum() / np.pi))
    depths = [float(ndimage.maximum(distance, labels, n)) / radius for n in range(1, count + 1)]
    return [*sorted(depths, reverse=True), 0.0, 0.0]


@dataclass(frozen=True)
class _Satellite:
    """A separate bleed: how well it meets the limits of a satellite, its distance to the main one, its place."""

    score: float
    away_mm: float
    place_mm: tuple[float, float, float]


def _satellites(mask: Mask) -> list[_Satellite]:
    """Each separate bleed of the mask, the one that meets the limits best first."""
    near = mask.cropped().image
    labels = sitk.RelabelComponent(sitk.ConnectedComponent(near))
    grid, array = Grid.of(near), sitk.GetArrayFromImage(labels)
    distance = -sitk.GetArrayFromImage(signed_distance(image_on(grid, (array == 1).astype(np.uint8))))
    found = []
    for number in range(2, int(array.max()) + 1):
        part = array == number
        away = float(distance[part].min())
        across = 2 * np.sqrt(part.sum(axis=(1, 2)).max() * grid.spacing[0] * grid.spacing[1] / np.pi)
        ball = (6 * 1000 * grid.voxel_volume_ml * part.sum() / np.pi) ** (1 / 3)
        score = min(
            _above("across_mm", -across, -_SATELLITE_ACROSS_MM),
            _above("away_mm", away, _SATELLITE_NEAR_MM),
            _above("away_mm", -away, -_SATELLITE_FAR_MM),
            _above("speck_mm", ball, _SPECK_MM),
        )
        found.append(_Satellite(score, away, grid.centroid_of(part)))
    return sorted(found, key=lambda satellite: -satellite.score)


def _marker_of_satellites(satellites: Sequence[_Satellite], needed: int) -> Marker:
    """Satellite sign: one small bleed nearby; island sign: at least three."""
    there = [satellite for satellite in satellites if satellite.score >= 0]
    evidence = {"separate_bleeds": float(len(there))}
    if there:
        evidence["nearest_mm"] = min(satellite.away_mm for satellite in there)
    score = satellites[needed - 1].score if len(satellites) >= needed else _ABSENT
    place = min(there, key=lambda satellite: satellite.away_mm).place_mm if there else None
    return _scored(score, evidence, place)
