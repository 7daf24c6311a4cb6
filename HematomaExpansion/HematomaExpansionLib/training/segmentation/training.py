"""Training of the segmentation network (after Abramova 2021), in its compact form.

It learns from both baseline and follow-up scans. Half of the patches are centered in a hematoma, half elsewhere
in the brain. Loss: Dice over the batch plus cross-entropy, plus the Dice of each patch by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.losses import DiceCELoss, DiceLoss
from monai.transforms import (
    Compose,
    EnsureTyped,
    RandBiasFieldd,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    Randomizable,
    RandScaleIntensityd,
    RandShiftIntensityd,
    SpatialPadd,
)
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from ...anatomy.kinds import Kind
from ...anatomy.segmentation import brain_region, segmentation_channels
from ...models.description import ModelGrid, package_name
from ...models.package import TRAINING_FOLDER, ModelPackage, write_package
from ...scan.grid import Array, Grid
from ...scan.resampling import average_onto
from ...scan.subject import Subject
from ..data.cohort import read_case, split_by_case
from ..data.each_case import prepare_parts
from ..fitting import Batch, FitOptions, PatchPairs, fit, initial_network
from ..runs import begin_run, made_from
from ..steps import training_steps

SPACING_MM, PATCH, WINDOW_HU = (1.5, 1.5, 2.5), (64, 64, 32), (0.0, 100.0)
GRID = ModelGrid(SPACING_MM, PATCH, WINDOW_HU)

SampleParts = tuple[list[dict[str, Array]], list[dict[str, Array]]]
"""Training samples and validation samples."""


CHANNELS = (16, 32, 64, 128)
FIT = FitOptions(epochs=30, batch_size=8, learning_rate=4e-3, patience=30, seed=0, annealed=True)
_PATCHES_PER_SCAN = 2
_KEYS = ("ct", "mask", "bone")
_BONE_REACH_MM = 12.0
_BRIGHTEST = 0.3
"""Largest brightening by beam hardening where bone surrounds a voxel on all sides, as a share of the window."""


def prepare_segmentation_samples(
    folder: Path, model_grid: ModelGrid = GRID, *, whole_head: bool = False
) -> list[dict[str, Array]]:
    """A case's two scans on the model grid, each (1, z, y, x): windowed CT, mask, and amount of bone nearby."""
    case, spacing = read_case(folder), model_grid.spacing_mm
    grid = brain_region(case.baseline.inside_skull, spacing)
    bone = bone_around(average_onto(case.baseline.inside_skull.image, grid), spacing)[None].astype(np.float16)
    return [
        {**segmentation_sample(subject, grid, model_grid.window_hu, whole_head=whole_head), "bone": bone}
        for subject in (case.baseline, case.followup)
    ]


def segmentation_sample(
    subject: Subject, grid: Grid, window_hu: tuple[float, float], *, whole_head: bool = False
) -> dict[str, Array]:
    """What a segmentation network sees of a subject and should find; both (1, z, y, x) on ``grid``."""
    seen = segmentation_channels(subject.ct, subject.inside_skull, grid, window_hu, whole_head=whole_head)
    return {
        "ct": seen.astype(np.float16),
        "mask": (average_onto(subject.hematoma.image, grid)[None] >= 0.5).astype(np.uint8),
    }


def bone_around(inside: Array, spacing: tuple[float, float, float]) -> Array:
    """How much of each voxel's surroundings is not inside the skull, 0 to 1; 0 for voxels outside it; (z, y, x).

    ``inside``: share of each voxel inside the skull, 0 to 1; ``spacing`` (x, y, z) in mm.
    """
    widths = [_BONE_REACH_MM / mm for mm in reversed(spacing)]
    return (1 - gaussian_filter(inside, widths, mode="constant")) * inside


class RandBrightenNearBone(Randomizable):
    """Beam hardening: randomly brightens the CT near bone, most in the medulla, which bone surrounds."""

    def __call__(self, patch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same patch with a brightened CT."""
        strength = max(0.0, self.R.uniform(-_BRIGHTEST, _BRIGHTEST))
        return {**patch, "ct": patch["ct"] + strength * patch["bone"]}


def variations(keys: Sequence[str], axes: Sequence[int] = (0, 1, 2)) -> list[Any]:
    """Flips of a patch along some axes (z, y, x), and changes of its CT's brightness, contrast, noise, sharpness.

    Brightness also varies slowly across the patch, as cupping makes the brain brighter toward the skull.
    """
    return [
        *[RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in axes],
        RandBrightenNearBone(),
        RandScaleIntensityd("ct", factors=0.1, prob=0.5),
        RandShiftIntensityd("ct", offsets=0.06, prob=0.5),
        RandBiasFieldd("ct", coeff_range=(-0.1, 0.1), prob=0.5),
        RandGaussianNoised("ct", prob=0.5, std=0.03),
        RandGaussianSmoothd("ct", prob=0.2, sigma_x=(0.3, 0.8), sigma_y=(0.3, 0.8), sigma_z=(0.3, 0.8)),
    ]


def patch_transform(*, vary: bool, patch: tuple[int, int, int] = PATCH) -> Compose:
    """Draws a random patch of that size (x, y, z); with ``vary``, changes it at random."""
    return Compose(
        [
            EnsureTyped(_KEYS, dtype=torch.float32, track_meta=False),
            SpatialPadd(_KEYS, patch[::-1]),
            RandCropByPosNegLabeld(_KEYS, "mask", patch[::-1], pos=1, neg=1, image_key="ct"),
            *(variations(_KEYS) if vary else []),
        ]
    )


def hematoma_logit(logits: Tensor) -> Tensor:
    """The logit of the hematoma against everything else, (batch, 1, z, y, x), of a network of any classes."""
    if logits.shape[1] == 1:
        return logits
    own = int(Kind.INTRAPARENCHYMAL)
    others = torch.cat([logits[:, :own], logits[:, own + 1 :]], dim=1)
    return logits[:, own : own + 1] - torch.logsumexp(others, dim=1, keepdim=True)


def dice_of_each(probability: Tensor, mask: Tensor) -> Tensor:
    """One minus the Dice of each patch by itself, (batch, 1, z, y, x); mean of those whose mask is not empty."""
    bleeding = mask.flatten(1).any(dim=1)
    each = DiceLoss(reduction="none")(probability, mask).flatten()
    return (each * bleeding).sum() / bleeding.sum().clamp(min=1)


def segmentation_loss(network: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The terms of ``loss_terms`` for patches."""
    logits = hematoma_logit(network(batch["ct"].contiguous(memory_format=torch.channels_last_3d)).float())
    return loss_terms(logits, batch["mask"])


def loss_terms(logits: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """``dice_ce``: Dice over the whole batch plus cross-entropy. ``each_dice``: mean Dice of the patches that hold
    blood, where a bleed of 2 mL counts as much as one of 50 mL. Both tensors are (batch, 1, …).
    """
    with torch.autocast(logits.device.type, enabled=False):
        return {
            "dice_ce": DiceCELoss(sigmoid=True, batch=True)(logits, mask),
            "each_dice": dice_of_each(torch.sigmoid(logits), mask),
        }


def train_segmentation(
    cases: Sequence[Path],
    output: Path,
    channels: tuple[int, ...],
    options: FitOptions,
    start: Sequence[ModelPackage] = (),
) -> ModelPackage:
    """Train on the cases of a cohort and write the package; checkpoints and log go to ``output/training``.

    ``start``: begin from the weights of this model instead of random ones; one that tells the kinds of bleeds
    apart keeps doing so, though it learns only what is hematoma and what is not.

    Raises:
        InputError: the folder's name is no valid model name, or it holds a model or checkpoints made differently
            (``runs.py``).
        ModelPackageError: ``start`` has other channels.
    """
    name, arguments = package_name(output), dict[str, Any](channels=list(channels))
    if start and start[0].description.classes > 1:
        arguments["classes"] = start[0].description.classes
    initial = initial_network("segmentation-unet", arguments, start, options.seed)
    network = initial.network
    training, validation = split_by_case(cases, 0.2, options.seed)
    chosen = {"channels": list(channels), "fit": asdict(options)}
    sources = made_from("segmentation", chosen, learned=cases, start=start)
    if (made := begin_run(output, sources)) is not None:
        return made
    samples = prepare_parts(prepare_segmentation_samples, training, validation)
    results = fit(network, segmentation_loss, patch_pairs(samples, options), options, output / TRAINING_FOLDER)
    trained_on = training_steps(cases, len(training), len(validation), options.seed, start)
    description = initial.described(name, "segmentation", GRID, trained_on, results)
    return write_package(output, description, network, sources)


def patch_pairs(samples: SampleParts, options: FitOptions, patch: tuple[int, int, int] = PATCH) -> PatchPairs:
    """The patches (of size x, y, z) that the network sees of the training and validation samples."""
    return PatchPairs.of(samples, partial(patch_transform, patch=patch), options.seed, _PATCHES_PER_SCAN)
