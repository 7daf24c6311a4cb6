"""Growth of a simulated hematoma: a flow that pushes tissue aside, most where it is still bleeding.

The flow is a stationary velocity, outward from the hematoma's surface, stronger toward the bleeding edge,
fading with distance into the brain, stopped by bone and nearly so by the falx. Its integral cannot fold:
tissue is displaced, never overwritten. Its strength is found by bisection so that the follow-up has the
wanted volume.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch
from HematomaExpansionLib.grid import Array, Grid, average_onto, image_on, resample
from HematomaExpansionLib.growth import (
    confined_displacement,
    confinement_of,
    growth_region,
    smallest_jacobian,
    to_millimeters,
    warp,
)
from scipy.ndimage import gaussian_filter

from .anatomy import Anatomy
from .bleeding import Hematoma

_SPACING_MM = (1.5, 1.5, 1.5)
_STEPS = 7
_MASS_EFFECT_MM = 14.0
"""Distance from the hematoma over which the displacement of tissue falls to 1/e."""
_STRONGEST = 12.0


@dataclass(frozen=True)
class GrowthParameters:
    """How a hematoma grows: volume in mL (negative: shrinks), and how much the bleeding edge dominates."""

    growth_ml: float
    base: float
    concentration: float


@dataclass(frozen=True)
class SimulatedGrowth:
    """``displacement``: pull-back in mm, LPS, on a grid around the hematoma; the smallest Jacobian of it."""

    displacement: sitk.Image
    smallest_jacobian: float


def grow(anatomy: Anatomy, hematoma: Hematoma, parameters: GrowthParameters) -> SimulatedGrowth:
    """The displacement that gives the hematoma its follow-up volume."""
    mask = image_on(Grid.of(hematoma.level), (sitk.GetArrayFromImage(hematoma.level) > 0).astype(np.uint8))
    region = growth_region(mask, _SPACING_MM, (48, 48, 48))
    level = sitk.GetArrayFromImage(resample(hematoma.level, region, outside=-60.0))
    inside = average_onto(anatomy.inside_skull, region)
    velocity = torch.from_numpy(_velocity(level, hematoma, parameters, region))[None]
    confinement = torch.from_numpy(confinement_of(inside) * _falx(region, anatomy.midline_mm))[None, None]
    blood = torch.from_numpy(level)[None, None]
    wanted = _volume(blood, region) + parameters.growth_ml

    def at(strength: float) -> torch.Tensor:
        return confined_displacement(strength * velocity, confinement.float(), _STEPS)

    low, high = (0.0, _STRONGEST) if parameters.growth_ml > 0 else (-_STRONGEST, 0.0)
    for _ in range(12):
        strength = (low + high) / 2
        if _volume(warp(blood, at(strength)), region) < wanted:
            low = strength
        else:
            high = strength
    displacement = image_on(region, to_millimeters(at((low + high) / 2)[0].numpy(), region))
    return SimulatedGrowth(displacement, smallest_jacobian(displacement))


def _velocity(level: Array, hematoma: Hematoma, parameters: GrowthParameters, region: Grid) -> Array:
    """Pull-back velocity (3, z, y, x) in voxels, components z, y, x: inward, so that blood moves outward."""
    smooth = gaussian_filter(level, 2.0)
    outward = -np.stack(np.gradient(smooth))
    outward /= np.maximum(np.linalg.norm(outward, axis=0), 0.3)
    axes = [np.arange(n) * s + o for n, s, o in zip(region.size, region.spacing, region.origin, strict=True)]
    z, y, x = np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    offset = np.stack([x, y, z]) - hematoma.center[:, None, None, None]
    cosine = np.tensordot(hematoma.bleeding_direction, offset, 1) / np.maximum(np.linalg.norm(offset, axis=0), 1.0)
    weight = parameters.base + (1 - parameters.base) * np.exp(parameters.concentration * (cosine - 1))
    fade = np.exp(-np.maximum(-level, 0) / _MASS_EFFECT_MM) * np.clip(1 - level / 20.0, 0.2, 1)
    velocity = -outward * weight * fade
    return np.stack([gaussian_filter(component, 1.5) for component in velocity]).astype(np.float32)


def _falx(region: Grid, midline_mm: float) -> Array:
    """Factor that all but stops the flow at the midline plane."""
    x = np.arange(region.size[0]) * region.spacing[0] + region.origin[0]
    factor = 1 - 0.85 * np.exp(-(((x - midline_mm) / 4.0) ** 2))
    return np.broadcast_to(factor, region.shape).astype(np.float32)


def _volume(level: torch.Tensor, grid: Grid) -> float:
    """Volume in mL of the positive part of a signed distance, counting voxels on the surface in part."""
    width = 2 * grid.spacing[0]
    return float((level / width + 0.5).clamp(0, 1).sum()) * grid.voxel_volume_ml
