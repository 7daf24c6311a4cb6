"""Where blood goes, from the smallest to the largest growth: every outcome that a patient's field can lead to.

Outcomes are nested: a larger one contains all smaller ones. So one number per voxel says it all, namely the volume
of the smallest outcome that reaches the voxel. Its order comes from the strength of the field at which blood
arrives there; beyond what the field can reach without folding, blood spreads evenly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from ..models.package import ModelPackage
from ..scan.grid import Array, Grid, image_on
from ..scan.mask import Mask
from ..scan.resampling import average_onto, crop_to, resample
from ..scan.shapes import distance_map_on, signed_distance
from ..scan.subject import Subject
from .field import Flow, flow_of
from .growth import Growth
from .warping import field_on, on_whole_grid, smallest_jacobian, warp_ct, with_part

if TYPE_CHECKING:
    import torch

STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""Strengths at which the field is integrated; between them, outcomes are interpolated."""

NEVER_ML = 10_000.0
"""The volume at which blood reaches a voxel that it never reaches."""

_WORK_MM = 1.5
"""Movement is computed on voxels of at least this size; it changes little from one to the next."""

_EVEN_MM = 10.0
"""Even spread beyond the strongest field: that many mm count as one unit of strength."""

_FAR_OUTSIDE_MM = -1000.0
"""Deeper outside the hematoma than anything in a head."""

_LARGEST_RATIO, _LARGEST_GROWTH_ML = 6.5, 220.0
"""Larger outcomes than these are not needed (see ``forecast.distribution``)."""


@dataclass(frozen=True)
class Outcomes:
    """The outcomes of one subject.

    Attributes:
        flow: the field that leads there.
        strengths, volumes_ml: strengths without folds, from 0 on, and the volume that each gives.
        order: for each voxel of a box of the scan's grid, the volume in mL of the smallest outcome that reaches
            it.
    """

    subject: Subject
    flow: Flow
    strengths: Array
    volumes_ml: Array
    order: sitk.Image

    @property
    def own_strength(self) -> float:
        """The strength with which the network was trained, 1, or the strongest without folds."""
        return min(1.0, float(self.strengths[-1]))

    @property
    def own_ml(self) -> float:
        """The volume that the field gives at its own strength."""
        return float(np.interp(self.own_strength, self.strengths, self.volumes_ml))

    @property
    def network_growth(self) -> float:
        """Natural logarithm of follow-up over baseline volume at the field's own strength."""
        return math.log(self.own_ml / self.volumes_ml[0])

    @property
    def largest_ml(self) -> float:
        """Volume of the largest outcome."""
        values = sitk.GetArrayViewFromImage(self.order)
        return float(values.max(where=values < NEVER_ML, initial=0.0))

    @property
    def reach_ml(self) -> float:
        """The largest volume that the field reaches; beyond it, the outcomes spread evenly."""
        return float(self.volumes_ml[-1])

    def strength_for(self, volume_ml: float) -> float:
        """The least strength of the field that gives this volume, at most the strongest without folds."""
        rises = np.diff(self.volumes_ml, prepend=-np.inf) > 0
        return float(np.interp(volume_ml, self.volumes_ml[rises], self.strengths[rises]))

    def growth_to(self, volume_ml: float) -> Growth:
        """The outcome of this volume, on the scan's grid."""
        return self._growth(volume_ml, self.strength_for(volume_ml))

    def at_own_strength(self) -> Growth:
        """The outcome at the field's own strength, on the scan's grid."""
        return self._growth(self.own_ml, self.own_strength)

    def _growth(self, volume_ml: float, strength: float) -> Growth:
        ct, hematoma = self.subject.ct, self.subject.hematoma
        displacement = field_on(ct, self.flow.displacement(strength))
        grown = mask_of_outcome(self.order, volume_ml)
        return Growth(
            on_whole_grid(ct, displacement),
            with_part(ct, warp_ct(ct, hematoma, grown, displacement)),
            Mask(with_part(hematoma.image, grown.image)),
            self.order,
        )


def mask_of_outcome(order: sitk.Image, volume_ml: float) -> Mask:
    """The outcome of this volume, on the grid of ``order``."""
    grid = Grid.of(order)
    return Mask.on(grid, sitk.GetArrayViewFromImage(order) <= volume_ml + grid.voxel_volume_ml / 2)


def predict_outcomes(subject: Subject, package: ModelPackage, device: torch.device) -> Outcomes:
    """The outcomes for a subject whose hematoma is not empty; the network runs once.

    Raises:
        ModelPackageError: the package's weights do not fit.
        DeviceError: the GPU runs out of memory.
    """
    return outcomes_of(subject, flow_of(subject, package, device))


def outcomes_of(subject: Subject, flow: Flow) -> Outcomes:
    """The outcomes that a field leads to."""
    box = Grid.of(crop_to(subject.ct, flow.region, margin_mm=0.0))
    hematoma, inside_skull = (mask.within(box) for mask in (subject.hematoma, subject.inside_skull))
    arrival, strengths, ratios = _arrival(hematoma, flow)
    volumes = np.maximum.accumulate(subject.hematoma.volume_ml * np.array(ratios))
    order = _order(hematoma, inside_skull, arrival)
    return Outcomes(subject, flow, np.array(strengths), volumes, order)


def _arrival(hematoma: Mask, flow: Flow) -> tuple[Array, list[float], list[float]]:
    """When blood arrives at each voxel (z, y, x) of the hematoma's grid; the strengths without folds; and the
    volume at each, relative to the baseline's.

    It arrives at the strength at which the depth within it, the distance to its surface, rises above zero. Voxels
    of the hematoma come before zero, the deepest first. The depth is that of the scan's own voxels; its change,
    which is smooth, is computed on coarser ones.
    """
    grid = hematoma.grid
    work = grid.with_spacing([max(step, _WORK_MM) for step in grid.spacing])
    share, depth = image_on(work, average_onto(hematoma.image, work)), signed_distance(hematoma.image)
    coarse_start, start = resample(depth, work), sitk.GetArrayFromImage(depth)
    before, arrival = start, np.where(hematoma.voxels, -start, np.inf)
    strengths, volumes = [0.0], [_sum_of(share)]
    for strength in STRENGTHS:
        displacement = flow.displacement(strength)
        if smallest_jacobian(displacement) <= 0:
            break
        transform = sitk.DisplacementFieldTransform(sitk.Cast(displacement, sitk.sitkVectorFloat64))
        coarse = resample(depth, work, transform=transform, outside=_FAR_OUTSIDE_MM)
        now = start + sitk.GetArrayFromImage(resample(coarse - coarse_start, grid))
        reached = np.isinf(arrival) & (now >= 0)
        passed = before[reached] / (before[reached] - now[reached])
        arrival[reached] = strengths[-1] + passed * (strength - strengths[-1])
        strengths.append(strength)
        volumes.append(_sum_of(resample(share, work, transform=transform)))
        before = now
    beyond = np.isinf(arrival)
    arrival[beyond] = strengths[-1] + distance_map_on(grid, ~beyond)[beyond] / _EVEN_MM
    return arrival, strengths, [volume / volumes[0] for volume in volumes]


def _sum_of(image: sitk.Image) -> float:
    return float(sitk.GetArrayViewFromImage(image).sum(dtype=np.float64))


def _order(hematoma: Mask, inside_skull: Mask, arrival: Array) -> sitk.Image:
    """The volume in mL at which blood reaches each voxel of the grid of both masks, in the order of its arrival
    (z, y, x); never outside the skull, except for the hematoma itself.
    """
    grid, baseline = hematoma.grid, hematoma.voxel_count
    voxel_ml, places = grid.voxel_volume_ml, (inside_skull | hematoma).voxels
    arrivals = _jittered(arrival[places])
    count = min(len(arrivals), round(min(_LARGEST_RATIO * baseline, baseline + _LARGEST_GROWTH_ML / voxel_ml)))
    first = np.argpartition(arrivals, count - 1)[:count]
    first = first[np.argsort(arrivals[first], kind="stable")]
    reached = np.full(len(arrivals), NEVER_ML, np.float32)
    reached[first] = np.arange(1, count + 1) * voxel_ml
    order = np.full(grid.shape, NEVER_ML, np.float32)
    order[places] = reached
    return image_on(grid, order)


def _jittered(values: Array) -> Array:
    """The values with equal ones in a random but fixed order, so that no side of a hematoma is preferred."""
    return values + 1e-4 * np.random.default_rng(0).random(len(values), dtype=np.float32)
