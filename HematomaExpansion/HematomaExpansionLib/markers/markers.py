"""Markers of expansion on non-contrast CT, each measured by its published criterion (Morotti 2019).

Every answer comes with the numbers and the place behind it, so that a radiologist can check and overrule it.
Densities are in HU, lengths in mm, areas in mm², places in LPS mm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..scan.grid import Array, Grid, image_on
from ..scan.mask import Mask
from ..scan.shapes import largest_component, signed_distance
from .texture import IN_PLANE, LEVEL_DEGREES, Clot, LowRegion, Parts, find_clot, low_regions, two_parts

BLACK_HOLE_HU, BLEND_HU = 28.0, 18.0
"""Density differences that the black hole and blend criteria require."""

_MIN_LOW_MM2, _MIN_DROP_HU = 12.0, 14.0
"""Minimum of a hypodense region: 4 mm across, and well below the clot around it."""

_ENCLOSED = 0.7
"""Minimum share of clot around an enclosed region; noise opens thin rims."""

_ISODENSE_HU, _MIN_SWIRL_MM2 = 12.0, 25.0
"""How far above brain a region within blood may be and still look like brain, and its minimum area.

Neighboring blood raises its density.
"""

_TWO_PARTS, _TWO_LEVEL_PARTS = 0.35, 0.3
"""Minimum share of the density variance that two parts explain (the second: parts with a level border)."""

_NEARLY = 0.7
_HETEROGENEOUS_HU, _MIN_DENSE = 3.1, 30
"""Threshold for the robust SD of the clot's density, and minimum number of voxels to measure it."""

_IRREGULARITY = 1 / 8
"""How far the outline must leave its ellipse to count as an irregularity, as a share of the radius."""

_SATELLITE_ACROSS_MM, _SATELLITE_NEAR_MM, _SATELLITE_FAR_MM = 10.0, 1.0, 20.0
_ISLANDS = 3
_OUTLINE_MM, _MIN_IN_OUTLINE = 0.5, 20


@dataclass(frozen=True)
class Marker:
    """One marker: whether it is present, what was measured, and where.

    ``evidence``: numbers by name, with the unit at the end of the name. ``place_mm``: None if nothing was found.
    """

    present: bool
    evidence: dict[str, float]
    place_mm: tuple[float, float, float] | None = None


def find_markers(ct: sitk.Image, mask: Mask) -> dict[str, Marker]:
    """All markers by name, for a CT in HU and a nonempty mask on its grid (axes nearest LPS)."""
    clot = find_clot(ct, mask)
    regions, parts = list(low_regions(clot)), two_parts(clot)
    satellites = _satellites(mask)
    return {
        "hypodensity": _hypodensity(clot, regions),
        "swirl": _swirl(clot, regions),
        "black_hole": _black_hole(clot, regions),
        "blend": _blend(clot, parts),
        "fluid_level": _fluid_level(clot, parts),
        "heterogeneous": _heterogeneous(clot, parts),
        "irregular": _irregular(mask),
        "satellite": _marker_of_satellites(satellites, 1),
        "island": _marker_of_satellites(satellites, _ISLANDS),
    }


def describe_markers(ct: sitk.Image, mask: Mask) -> dict[str, dict[str, Any]]:
    """The result of ``find_markers`` as ``prediction.json`` holds it."""
    return {name: asdict(marker) for name, marker in find_markers(ct, mask).items()}


_NO_PARTS = Marker(False, {"difference_hu": 0.0})


def _largest(
    clot: Clot, regions: Sequence[LowRegion], min_mm2: float, fits: Callable[[LowRegion], bool]
) -> Marker:
    """Present if the largest region that fits is large enough."""
    found = max(filter(fits, regions), key=lambda region: region.area_mm2, default=None)
    if found is None:
        return Marker(False, {"area_mm2": 0.0})
    evidence = {
        "area_mm2": found.area_mm2,
        "lowest_hu": found.lowest_hu,
        "difference_hu": found.drop_hu,
        "enclosed_share": found.enclosed,
        "brain_hu": clot.brain_hu,
    }
    present = found.area_mm2 >= min_mm2
    return Marker(present, evidence, found.place_mm if present else None)


def _hypodensity(clot: Clot, regions: Sequence[LowRegion]) -> Marker:
    """Any hypodense region enclosed by blood."""

    def fits(region: LowRegion) -> bool:
        return region.enclosed > _ENCLOSED and region.drop_hu > _MIN_DROP_HU

    return _largest(clot, regions, _MIN_LOW_MM2, fits)


def _swirl(clot: Clot, regions: Sequence[LowRegion]) -> Marker:
    """A region as dense as brain or less; it need not be enclosed."""
    limit = clot.brain_hu + _ISODENSE_HU
    marker = _largest(clot, regions, _MIN_SWIRL_MM2, lambda region: region.lowest_hu < limit)
    values = clot.hu[clot.core]
    of_all = {
        "low_density_share": float((clot.low & clot.core).sum()) / len(values),
        "darkest_above_brain_hu": float(np.percentile(values, 5)) - clot.brain_hu,
        "below_dense_clot_hu": clot.clot_hu - float(values.mean()),
    }
    return replace(marker, evidence=marker.evidence | of_all)


def _black_hole(clot: Clot, regions: Sequence[LowRegion]) -> Marker:
    """An enclosed region of any size, over 28 HU less dense than the blood around it; the largest drop counts."""
    enclosed = [region for region in regions if region.enclosed > _ENCLOSED]
    if not enclosed:
        return Marker(False, {"difference_hu": 0.0})
    found = max(enclosed, key=lambda region: region.drop_hu)
    present = found.drop_hu > BLACK_HOLE_HU
    evidence = {"difference_hu": found.drop_hu, "lowest_hu": found.lowest_hu, "area_mm2": found.area_mm2}
    return Marker(present, evidence, found.place_mm if present else None)


def _blend(clot: Clot, parts: Parts | None) -> Marker:
    """Two parts more than 18 HU apart; a level border with the denser part below is a fluid level instead."""
    if parts is None:
        return _NO_PARTS
    level = bool(parts.toward_dense[1] > np.cos(np.radians(LEVEL_DEGREES)))
    return _of_parts(clot, parts, parts.difference_hu > BLEND_HU and parts.explained > _TWO_PARTS and not level)


def _fluid_level(clot: Clot, parts: Parts | None) -> Marker:
    """A less dense part above a level border that splits the density nearly as well as the best border."""
    leveled = two_parts(clot, level=True)
    if parts is None or leveled is None:
        return _NO_PARTS
    apart = leveled.difference_hu > _MIN_DROP_HU and float(leveled.toward_dense[1]) > 0
    explains = leveled.explained > max(_TWO_LEVEL_PARTS, _NEARLY * parts.explained)
    return _of_parts(clot, leveled, apart and explains)


def _of_parts(clot: Clot, parts: Parts, present: bool) -> Marker:
    evidence = {
        "difference_hu": parts.difference_hu,
        "explained_share": parts.explained,
        "lighter_share": parts.light_share,
    }
    return Marker(present, evidence, clot.grid.centroid_of(parts.light) if present else None)


def _heterogeneous(clot: Clot, parts: Parts | None) -> Marker:
    """Varying density within the clot outside hypodense regions, or within each part of a clot of two parts.

    Measured on the denser half alone, since hypodense regions and the margin spread the other half.
    """
    dense = clot.core & ~ndimage.binary_dilation(clot.low & clot.core, IN_PLANE, iterations=2)
    if dense.sum() < _MIN_DENSE:
        return Marker(False, {"deviation_hu": 0.0})
    light = dense & parts.light if parts is not None and parts.explained > _TWO_PARTS else np.zeros_like(dense)
    sides = [clot.hu[side] for side in (light, dense & ~light) if side.any()]
    values = np.concatenate([side - np.median(side) for side in sides])
    middle, high = np.percentile(values, (50, 90))
    deviation = float(high - middle) / 1.2816  # the 90th percentile of a normal distribution
    evidence = {"deviation_hu": deviation, "whole_deviation_hu": float(clot.hu[clot.core].std())}
    return Marker(deviation > _HETEROGENEOUS_HU, evidence)


def _irregular(mask: Mask) -> Marker:
    """On the slice of largest area, the outline leaves the ellipse of the same moments in at least two places."""
    array, grid = mask.voxels, mask.grid
    k = int(array.sum(axis=(1, 2)).argmax())
    area = _fine(array[k], grid.spacing[:2])
    if area.sum() < _MIN_IN_OUTLINE:
        return Marker(False, {"irregularities": 0.0})
    outline = largest_component(area)
    points = np.argwhere(outline) * _OUTLINE_MM
    spread = np.cov((points - points.mean(axis=0)).T) + 1e-6 * np.eye(2)
    offset = np.moveaxis(np.indices(outline.shape), 0, -1) * _OUTLINE_MM - points.mean(axis=0)
    ellipse = np.einsum("...i,ij,...j", offset, np.linalg.inv(spread), offset) < 4
    distance = np.where(ellipse, *(ndimage.distance_transform_edt(side) for side in (ellipse, ~ellipse)))
    labels, count = ndimage.label(outline ^ ellipse)
    radius = float(np.sqrt(outline.sum() / np.pi))
    depths = sorted(
        (float(ndimage.maximum(distance, labels, n)) / radius for n in range(1, count + 1)), reverse=True
    )
    irregularities = sum(depth > _IRREGULARITY for depth in depths)
    evidence = {"irregularities": float(irregularities), "second_depth_of_radius": [*depths, 0.0, 0.0][1]}
    where = np.zeros(array.shape, bool)
    where[k] = array[k]
    return Marker(irregularities >= 2, evidence, grid.centroid_of(where) if irregularities >= 2 else None)


def _fine(area: Array, spacing: Sequence[float]) -> Array:
    """A slice's mask (y, x), cropped to its voxels with a margin and resampled to pixels of ``_OUTLINE_MM``."""
    box = ndimage.find_objects(area.astype(int))[0]
    padded = np.pad(area[box], 8).astype(np.float32)
    return ndimage.zoom(padded, np.array(spacing)[::-1] / _OUTLINE_MM, order=1) >= 0.5


def _satellites(mask: Mask) -> list[tuple[float, tuple[float, float, float]]]:
    """Each separate small bleed of the mask: its distance to the main hematoma in mm, and its place."""
    near = mask.cropped().image
    labels = sitk.RelabelComponent(sitk.ConnectedComponent(near))
    grid, array = Grid.of(near), sitk.GetArrayFromImage(labels)
    distance = -sitk.GetArrayFromImage(signed_distance(image_on(grid, (array == 1).astype(np.uint8))))
    found = []
    for number in range(2, int(array.max()) + 1):
        part = array == number
        away = float(distance[part].min())
        across = 2 * np.sqrt(part.sum(axis=(1, 2)).max() * grid.spacing[0] * grid.spacing[1] / np.pi)
        if across <= _SATELLITE_ACROSS_MM and _SATELLITE_NEAR_MM <= away <= _SATELLITE_FAR_MM:
            found.append((away, grid.centroid_of(part)))
    return found


def _marker_of_satellites(satellites: Sequence[tuple[float, tuple[float, float, float]]], needed: int) -> Marker:
    """Satellite sign: one small bleed nearby; island sign: at least three."""
    present = len(satellites) >= needed
    evidence = {"separate_bleeds": float(len(satellites))}
    if satellites:
        evidence["nearest_mm"] = min(distance for distance, _ in satellites)
    return Marker(present, evidence, min(satellites)[1] if present else None)
