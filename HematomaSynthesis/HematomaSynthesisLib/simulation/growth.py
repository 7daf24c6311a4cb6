"""Growth of a simulated hematoma: a flow that pushes tissue aside, most where it is still bleeding.

The flow is a stationary velocity field, outward from the hematoma's surface. It is stronger toward the bleeding
edge, with some further unevenness; it fades with distance into the brain, and faster through CSF, which gives way;
bone stops it, and the falx nearly does. Its integral cannot fold: tissue is displaced, never overwritten. Its
strength is chosen so that the follow-up has the requested volume.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import SimpleITK as sitk
import torch
from HematomaExpansionLib.growth.field import (
    confined_displacement,
    confinement_of,
    growth_region,
    to_millimeters,
    warp,
)
from HematomaExpansionLib.growth.warping import smallest_jacobian
from HematomaExpansionLib.scan.grid import Array, Grid, image_on
from HematomaExpansionLib.scan.mask import Mask
from HematomaExpansionLib.scan.resampling import resample
from HematomaExpansionLib.scan.shapes import distance_map_on, largest_component
from scipy.ndimage import gaussian_filter
from scipy.optimize import brentq

from .anatomy import Anatomy, crop
from .bleeding import Hematoma
from .template import STRAIGHT

_SPACING_MM = (1.5, 1.5, 1.5)
_FINER = 2
_STEPS = 7
_MASS_EFFECT_MM = 14.0
"""Distance from the hematoma over which the displacement of tissue falls to 1/e."""
_CSF_MASS_EFFECT_MM = 3.0
"""The same where it crosses CSF."""
_START_VELOCITY, _MAX_VELOCITY = 1.75, 110.0
"""Velocity in voxels at the bleeding edge: enough for a patient who hardly changes, and more than any patient
needs."""
_DIGITS = 2
"""Decimal places to which that velocity is determined."""


@dataclass(frozen=True)
class GrowthParameters:
    """How a hematoma grows.

    Attributes:
        growth_ml: added volume in mL; negative if it shrinks.
        base: flow away from the bleeding edge, as a fraction of the flow at the edge.
        concentration: how narrow the bleeding edge is (concentration of a von Mises-Fisher distribution).
        unevenness: logarithmic SD of the flow along the surface, which nothing in the baseline shows.
    """

    growth_ml: float
    base: float
    concentration: float
    unevenness: float


@dataclass(frozen=True)
class SimulatedGrowth:
    """``displacement``: pull-back in mm, LPS, on a grid around the hematoma, and its smallest Jacobian."""

    displacement: sitk.Image
    smallest_jacobian: float


def grow(
    anatomy: Anatomy, hematoma: Hematoma, parameters: GrowthParameters, random: np.random.Generator
) -> SimulatedGrowth:
    """The displacement that gives the hematoma its follow-up volume."""
    mask = Mask.on(Grid.of(hematoma.level), sitk.GetArrayFromImage(hematoma.level) > 0)
    region = growth_region(mask, _SPACING_MM, (48, 48, 48))
    level = sitk.GetArrayFromImage(resample(hematoma.level, region, outside=-60.0))
    inside, tissue = crop(anatomy, region)
    main = _main_part(level)
    velocity = torch.from_numpy(
        _velocity(main, _mass_effect(main, inside - tissue), hematoma, parameters, region, random)
    )[None]
    confinement = torch.from_numpy(confinement_of(inside, region) * _falx(region, anatomy.midline_mm))[None, None]
    x, y, z = region.spacing
    fine = region.with_spacing((x / _FINER, y / _FINER, z / _FINER))
    blood = torch.from_numpy(sitk.GetArrayFromImage(resample(hematoma.level, fine, outside=-60.0)))[None, None]
    wanted = _volume(blood, fine) + parameters.growth_ml

    def at(strength: float) -> torch.Tensor:
        return confined_displacement(strength * velocity, confinement.float(), _STEPS)

    @cache
    def missing(strength: float) -> float:
        # Satellites are too small for the flow's grid, so the blood is measured on a finer one.
        displacement = _FINER * torch.nn.functional.interpolate(
            at(strength), scale_factor=_FINER, mode="trilinear", align_corners=False
        )
        return wanted - _volume(warp(blood, displacement), fine)

    direction = 1 if parameters.growth_ml > 0 else -1
    weak, strong = 0.0, direction * _START_VELOCITY
    while abs(strong) < _MAX_VELOCITY and direction * missing(strong) > 0:
        weak, strong = strong, 2 * strong
    enough = direction * missing(strong) <= 0
    # Rounded, because the last bits of sums depend on the number of threads: same seed, same patient.
    strength = round(float(brentq(missing, weak, strong, xtol=10**-_DIGITS)), _DIGITS) if enough else strong
    displacement = image_on(region, to_millimeters(at(strength)[0].numpy(), region))
    return SimulatedGrowth(displacement, smallest_jacobian(displacement))


def _main_part(level: Array) -> Array:
    """Signed distance in mm to the largest part alone: satellites do not grow, they are pushed."""
    grid = Grid(level.shape[::-1], _SPACING_MM, (0.0, 0.0, 0.0), STRAIGHT)
    return distance_map_on(grid, largest_component(level > 0), is_positive_inside=True)


def _mass_effect(level: Array, csf: Array) -> Array:
    """Factor by which displacement fades with the distance from the hematoma's surface; 1 within it."""
    fading_per_mm = np.where(level > 0, 1e-3, 1 / _MASS_EFFECT_MM + np.clip(csf, 0, 1) / _CSF_MASS_EFFECT_MM)
    speed = sitk.GetImageFromArray((1 / fading_per_mm).astype(np.float32))
    speed.SetSpacing(_SPACING_MM)
    marching = sitk.FastMarchingImageFilter()
    marching.SetTrialPoints(np.argwhere(level > 0)[:, ::-1].tolist())
    marching.SetStoppingValue(6.0)
    return np.exp(-np.minimum(sitk.GetArrayFromImage(marching.Execute(speed)), 6.0))


def _velocity(
    level: Array,
    mass_effect: Array,
    hematoma: Hematoma,
    parameters: GrowthParameters,
    region: Grid,
    random: np.random.Generator,
) -> Array:
    """Pull-back velocity (3, z, y, x) in voxels, components z, y, x: inward, so that blood moves outward."""
    smooth = gaussian_filter(level, 3.5)
    outward = -np.stack(np.gradient(smooth))
    outward /= np.maximum(np.linalg.norm(outward, axis=0), 0.6)
    axes = [np.arange(n) * s + o for n, s, o in zip(region.size, region.spacing, region.origin, strict=True)]
    z, y, x = np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    offset = np.stack([x, y, z]) - hematoma.center[:, None, None, None]
    cosine = np.tensordot(hematoma.bleeding_direction, offset, 1) / np.maximum(np.linalg.norm(offset, axis=0), 1.0)
    weight = parameters.base + (1 - parameters.base) * np.exp(parameters.concentration * (cosine - 1))
    uneven = gaussian_filter(random.normal(size=level.shape), 5.0)
    weight = weight * np.exp(parameters.unevenness * uneven / uneven.std())
    velocity = -outward * weight * mass_effect * np.clip(1 - level / level.max(), 0, 1)
    return np.stack([gaussian_filter(component, 1.5) for component in velocity]).astype(np.float32)


def _falx(region: Grid, midline_mm: float) -> Array:
    """Factor that all but stops the flow at the midline plane."""
    x = np.arange(region.size[0]) * region.spacing[0] + region.origin[0]
    factor = 1 - 0.85 * np.exp(-(((x - midline_mm) / 4.0) ** 2))
    return np.broadcast_to(factor, region.shape).astype(np.float32)


def _volume(level: torch.Tensor, grid: Grid) -> float:
    """Volume in mL of the positive part of a signed distance, counting voxels on the surface in part."""
    return float((level / grid.spacing[0] + 0.5).clamp(0, 1).sum()) * grid.voxel_volume_ml
