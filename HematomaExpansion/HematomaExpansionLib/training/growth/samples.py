"""What a growth network learns from: presets, samples on the model grid, and patches of these.

``PRESETS``: ``paper`` follows Abramova 2024 (2.3 and 2.4.1); ``compact`` is what ships, small enough to train and
use without a GPU: one patch on a coarse grid covers the lesion and where it may grow, and the network's field is
integrated as a velocity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import (
    CenterSpatialCropd,
    Compose,
    EnsureTyped,
    RandAffined,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandGaussianNoised,
    RandRotate90d,
    RandShiftIntensityd,
    RandSpatialCropd,
    SelectItemsd,
)

from ...anatomy.mask_source import MaskSource
from ...growth.field import growth_channels, growth_region
from ...models.description import ModelGrid
from ...models.package import ModelPackage
from ...scan.grid import Array, Grid
from ...scan.subject import Subject
from ..data.cohort import Case, given_baseline, read_case
from ..data.each_case import prepare_all
from ..fitting import FitOptions

_TURN, _SCALE = 0.25, 0.1
"""Limits of the augmentation: rotation about each axis in radians, and relative change of size."""

_KEYS = ("ct", "mask", "confinement", "followup_ct", "followup_mask")


@dataclass(frozen=True)
class GrowthPreset:
    """What a growth model looks like and how it is trained; ``spacing_mm`` and ``patch`` are (x, y, z).

    Attributes:
        patches_per_case: patches drawn from each case in each epoch.
        growth_share: share of the patches centered in the growth area; the others are centered elsewhere in the
            brain. None: all patches hold the whole hematoma, off center by up to ``shift`` voxels.
        integration_steps: squaring steps that integrate the field as a velocity; 0 for a plain displacement.
        terms: terms of the loss; see ``training.growth_loss``.
        augmented: whether patches are flipped, rotated, and varied in brightness and noise.
        members: number of networks, trained separately with consecutive seeds; the model averages their fields.
    """

    architecture: str
    spacing_mm: tuple[float, float, float]
    patch: tuple[int, int, int]
    window_hu: tuple[float, float]
    patches_per_case: int
    growth_share: float | None
    shift: int
    channels: tuple[int, ...]
    norm: str | None
    integration_steps: int
    terms: tuple[str, ...]
    augmented: bool
    fit: FitOptions
    members: int = 1

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of the network."""
        return {"channels": list(self.channels), "norm": self.norm}

    @property
    def grid(self) -> ModelGrid:
        """The grid and the window in which the network sees a scan."""
        return ModelGrid(self.spacing_mm, self.patch, self.window_hu)


_COMPACT = GrowthPreset(
    architecture="displacement-unet",
    spacing_mm=(3.0, 3.0, 3.0),
    patch=(32, 32, 32),
    window_hu=(20.0, 80.0),
    patches_per_case=1,
    growth_share=None,
    shift=3,
    channels=(16, 32, 64, 128),
    norm="BATCH",
    integration_steps=4,
    terms=("dice", "growth", "volume", "image", "smoothness"),
    augmented=True,
    fit=FitOptions(epochs=90, batch_size=8, learning_rate=2e-3, patience=90, seed=0, annealed=True),
)

PRESETS: dict[str, GrowthPreset] = {
    # The paper leaves the voxel size open: with 1 mm, 64 voxels cover most growth areas, as it says they do.
    "paper": GrowthPreset(
        architecture="displacement-unet",
        spacing_mm=(1.0, 1.0, 1.0),
        patch=(64, 64, 64),
        window_hu=(0.0, 100.0),
        patches_per_case=500,
        growth_share=0.8,
        shift=0,
        channels=(64, 128, 256, 512),
        norm=None,
        integration_steps=0,
        terms=("dice", "image", "smoothness"),
        augmented=False,
        fit=FitOptions(epochs=150, batch_size=8, learning_rate=1e-4, patience=10, seed=0),
    ),
    "compact": _COMPACT,
    # A rival for evaluations: the compact model with its field reduced to one matrix.
    "affine": replace(_COMPACT, architecture="affine-regressor", integration_steps=0),
}


@dataclass(frozen=True)
class GrowthSample:
    """One case on the model grid: ``arrays`` (1, z, y, x) in half precision by name, and its volumes in mL."""

    arrays: dict[str, Array]
    baseline_ml: float
    followup_ml: float


Samples = dict[Path, list[GrowthSample]]
"""By case folder: a sample from the case's own mask, then, if requested, one from the automatic mask."""


def prepare_growth_samples(
    preset: GrowthPreset, segmenter: ModelPackage | None, folders: Sequence[Path]
) -> Samples:
    """The samples of these cases, made on all cores with a progress bar (see ``growth_samples``)."""
    prepare = partial(growth_samples, preset, segmenter)
    return dict(zip(folders, prepare_all(prepare, folders, "Preparing cases"), strict=True))


def growth_samples(preset: GrowthPreset, segmenter: ModelPackage | None, folder: Path) -> list[GrowthSample]:
    """Bring a case onto the model grid, around its hematoma or with its whole brain.

    The first sample begins from the case's own mask. With a segmenter, a second begins from the automatic mask,
    unless that is empty; both end at the true follow-up.
    """
    case = read_case(folder)
    samples = [_sample(case, case.baseline, preset)]
    if segmenter is not None:
        automatic = given_baseline(case, MaskSource("automatic", torch.device("cpu"), segmenter))
        if not automatic.hematoma.is_empty:
            samples.append(_sample(case, automatic, preset))
    return samples


def _sample(case: Case, baseline: Subject, preset: GrowthPreset) -> GrowthSample:
    """The sample of a case with this baseline, whose hematoma may differ from the case's own."""
    grid = _sample_grid(baseline, preset)
    before, after = (growth_channels(subject, grid, preset.window_hu) for subject in (baseline, case.followup))
    channels = np.concatenate([before, after[:2]]).astype(np.float16)
    arrays: dict[str, Array] = {key: channel[None] for key, channel in zip(_KEYS, channels, strict=True)}
    if preset.growth_share is not None:
        growth = (arrays["followup_mask"][0] >= 0.5) & (arrays["mask"][0] < 0.5)
        brain = (arrays["confinement"][0] > 0) & ~growth
        arrays |= {"growth_places": np.flatnonzero(growth), "other_places": np.flatnonzero(brain)}
    return GrowthSample(arrays, baseline.hematoma.volume_ml, case.followup.hematoma.volume_ml)


def _sample_grid(baseline: Subject, preset: GrowthPreset) -> Grid:
    x, y, z = (n + 2 * preset.shift for n in preset.patch)
    if preset.growth_share is None:
        return growth_region(baseline.hematoma, preset.spacing_mm, (x, y, z))
    return growth_region(baseline.inside_skull, preset.spacing_mm, (x, y, z), margin_mm=0.0)


def patch_transform(preset: GrowthPreset, *, vary: bool) -> Compose:
    """From a sample to one patch, arrays of (1, z, y, x); all randomness of training is in here, with ``vary``."""
    x, y, z = preset.patch
    if preset.growth_share is not None:
        crop: Any = RandCropByPosNegLabeld(
            _KEYS,
            "followup_mask",
            (z, y, x),
            pos=preset.growth_share,
            neg=1 - preset.growth_share,
            fg_indices_key="growth_places",
            bg_indices_key="other_places",
        )
    else:
        crop = (
            RandSpatialCropd(_KEYS, (z, y, x), random_size=False) if vary else CenterSpatialCropd(_KEYS, (z, y, x))
        )
    varied = [
        *[RandFlipd(_KEYS, prob=0.5, spatial_axis=axis) for axis in range(3)],
        RandRotate90d(_KEYS, prob=0.5, spatial_axes=(1, 2)),
        RandAffined(_KEYS, prob=0.5, rotate_range=_TURN, scale_range=_SCALE, padding_mode="border"),
        RandShiftIntensityd("ct", offsets=0.03, prob=0.5),
        RandGaussianNoised("ct", prob=0.5, std=0.02),
    ]
    return Compose(
        [
            EnsureTyped(_KEYS, dtype=torch.float32, track_meta=False),
            crop,
            SelectItemsd(_KEYS),
            *(varied if vary and preset.augmented else []),
        ]
    )
