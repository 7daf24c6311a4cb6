"""Registers a follow-up scan to its baseline: two rigid stages, then affine (Abramova 2024, section 2.1.1)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from ..scan.grid import Grid, image_on
from ..scan.intensities import AIR_HU
from ..scan.mask import Mask
from ..scan.resampling import average_onto, resample
from ..scan.shapes import distance_map

MIN_OVERLAP = 0.9
"""Dice of the two ``inside_skull`` masks; below it, the scans are not of the same head."""

MIN_SIMILARITY = 0.9
"""Below this ``similarity``, two scans are not aligned, or not of the same head.

On real heads: at least 0.97 for one head rotated, shifted and made noisier, once aligned; 0.51 to 0.81 for two
different heads, whose overlap reached 0.96; 0.25 to 0.53 for one head rotated by 17 degrees and not aligned, whose
overlap was 0.89.
"""

_SPACING_MM = 2.0
# Bone and soft tissue both count; the window keeps dense bone from dominating.
_WINDOW_HU = (-100.0, 300.0)
_SAMPLED_SHARE = 0.2
_SKULL_MM = 10.0


@dataclass(frozen=True)
class Registration:
    """``transform`` maps positions in the baseline (LPS mm) to the same places in the follow-up.

    ``overlap``: Dice of the two insides of the skull once aligned; ``similarity``: see the function of that name.
    """

    transform: sitk.Transform
    overlap: float
    similarity: float

    def bring(self, image: sitk.Image, grid: Grid, *, outside: float = AIR_HU) -> sitk.Image:
        """A follow-up image (HU) on the baseline's grid, interpolated linearly."""
        return resample(image, grid, transform=self.transform, outside=outside)

    def bring_mask(self, mask: Mask, grid: Grid) -> Mask:
        """A follow-up mask on the baseline's grid, interpolated linearly and cut at one half."""
        moved = self.bring(sitk.Cast(mask.image, sitk.sitkFloat32), grid, outside=0.0)
        return Mask(sitk.Cast(moved >= 0.5, sitk.sitkUInt8))


def register(
    baseline: sitk.Image,
    baseline_inside: Mask,
    followup: sitk.Image,
    followup_inside: Mask,
    seed: int = 0,
) -> Registration:
    """Align a follow-up CT with its baseline (HU, each on its own grid, with the inside of its skull).

    The first rigid stage is coarse and uses the whole head; the second is fine and, like the affine one, uses only
    skull and brain, so that jaw, neck and head holder have no influence. The same seed gives the same transform.

    Raises:
        InputError: the scans are not of the same head, or one of them shows too little of it.
    """
    with _one_thread():
        affine = _aligned(baseline, baseline_inside, followup, followup_inside, seed)
    overlap = _overlap(affine, baseline_inside, followup_inside)
    if overlap < MIN_OVERLAP:
        raise InputError(
            f"The follow-up could not be aligned with the baseline (their brains overlap by {overlap:.0%}): check "
            "that both scans are of the same patient and show the whole head."
        )
    return Registration(affine, overlap, similarity(affine, baseline, baseline_inside, followup))


def lies_on(baseline: sitk.Image, baseline_inside: Mask, followup: sitk.Image) -> bool:
    """Whether a follow-up CT (HU) already lies on its baseline: on the same grid, and similar there."""
    if not Grid.of(baseline).is_same(Grid.of(followup)):
        return False
    return similarity(sitk.AffineTransform(3), baseline, baseline_inside, followup) >= MIN_SIMILARITY


def similarity(
    transform: sitk.Transform, baseline: sitk.Image, baseline_inside: Mask, followup: sitk.Image
) -> float:
    """Correlation of two CTs (HU, in a window of soft tissue and bone) over skull and brain, where both have data.

    ``transform`` maps positions in the baseline to those in the follow-up. Unlike the overlap, which is high for
    any two round heads, it shows whether they are oriented alike and whether they are the same head.
    """
    fixed = _prepared(baseline)
    grid = Grid.of(fixed)
    moving = _prepared(followup)
    moved, reached = (
        sitk.GetArrayFromImage(resample(image, grid, transform=transform, outside=outside))
        for image, outside in ((moving, _WINDOW_HU[0]), (moving * 0 + 1, 0.0))
    )
    here = _head_mask(baseline_inside, grid).voxels & (reached > 0.5)
    values = sitk.GetArrayFromImage(fixed)[here], moved[here]
    if not here.any() or min(float(each.std()) for each in values) == 0:
        return 0.0
    return float(np.corrcoef(*values)[0, 1])


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread: several sum the metric in a different order each time, and the transform varies."""
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def _aligned(
    baseline: sitk.Image,
    baseline_inside: Mask,
    followup: sitk.Image,
    followup_inside: Mask,
    seed: int,
) -> sitk.AffineTransform:
    fixed, moving = _prepared(baseline), _prepared(followup)
    head = _head_mask(baseline_inside, Grid.of(fixed)).image
    start = sitk.CenteredTransformInitializer(
        _as_float(baseline_inside, Grid.of(fixed)),
        _as_float(followup_inside, Grid.of(moving)),
        sitk.Euler3DTransform(),
        sitk.CenteredTransformInitializerFilter.MOMENTS,
    )
    rigid = _optimized(sitk.Euler3DTransform(start), fixed, moving, None, (8, 4, 2), seed)
    rigid = _optimized(sitk.Euler3DTransform(rigid), fixed, moving, head, (2, 1), seed)
    affine = sitk.AffineTransform(3)
    affine.SetCenter(rigid.GetCenter())
    affine.SetMatrix(rigid.GetMatrix())
    affine.SetTranslation(rigid.GetTranslation())
    return sitk.AffineTransform(_optimized(affine, fixed, moving, head, (2, 1), seed))


def _prepared(ct: sitk.Image) -> sitk.Image:
    """The CT, clipped to the window, on an isotropic grid."""
    grid = Grid.of(ct).with_spacing((_SPACING_MM,) * 3)
    return image_on(grid, np.clip(average_onto(ct, grid, outside=AIR_HU), *_WINDOW_HU).astype(np.float32))


def _as_float(mask: Mask, grid: Grid) -> sitk.Image:
    return image_on(grid, average_onto(mask.image, grid).astype(np.float32))


def _head_mask(inside: Mask, grid: Grid) -> Mask:
    """Brain and skull: everything within 1 cm of the inside of the skull."""
    distance = distance_map(_as_float(inside, grid) >= 0.5)
    return Mask(sitk.Cast(distance < _SKULL_MM, sitk.sitkUInt8))


def _optimized(
    start: sitk.Transform,
    fixed: sitk.Image,
    moving: sitk.Image,
    mask: sitk.Image | None,
    levels: tuple[int, ...],
    seed: int,
) -> sitk.Transform:
    """``start`` optimized for the correlation of both scans; shrink factors ``levels`` go from coarse to fine."""
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    if mask is not None:
        method.SetMetricFixedMask(mask)
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentage(_SAMPLED_SHARE, seed + 1)  # 0 would mean the clock
    method.SetInterpolator(sitk.sitkLinear)
    method.SetShrinkFactorsPerLevel(levels)
    method.SetSmoothingSigmasPerLevel([_SPACING_MM * factor / 2 for factor in levels])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 1e-3, 150, 0.6, 1e-6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(start, inPlace=False)
    composite = method.Execute(fixed, moving)
    return composite.GetBackTransform() if isinstance(composite, sitk.CompositeTransform) else composite


def _overlap(transform: sitk.Transform, baseline_inside: Mask, followup_inside: Mask) -> float:
    """Dice of the insides of the skull, where both scans have data."""
    grid, aligned = baseline_inside.grid, Registration(transform, 0.0, 0.0)
    there = aligned.bring_mask(followup_inside, grid).voxels
    reached = aligned.bring_mask(Mask(followup_inside.image * 0 + 1), grid)
    here = baseline_inside.voxels & reached.voxels
    total = np.count_nonzero(here) + np.count_nonzero(there)
    return 2.0 * np.count_nonzero(here & there) / total if total else 0.0
