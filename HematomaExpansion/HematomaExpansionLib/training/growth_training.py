"""Training of the growth network (Abramova 2024, section 2.4.1), in its compact form.

One patch on a coarse grid covers the lesion and where it may grow.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.data import Dataset
from monai.losses import DiceLoss
from monai.transforms import (
    CenterSpatialCropd,
    Compose,
    EnsureTyped,
    RandFlipd,
    RandGaussianNoised,
    RandRotate90d,
    RandShiftIntensityd,
    RandSpatialCropd,
)
from torch import Tensor, nn

from ..grid import Array
from ..growth import INTEGRATION_STEPS, confined_displacement, growth_channels, growth_region, warp
from ..measures import volume_ml
from ..model_package import ModelDescription, ModelPackage, write_package
from ..networks import build_network
from .cohort import case_folders, describe_cohort, prepare_all, read_case, split_by_case
from .fitting import Batch, FitOptions, fit

SPACING_MM = (2.0, 2.0, 2.0)
PATCH = (48, 48, 48)
WINDOW_HU = (0.0, 100.0)
STEPS = 4
# Voxels around a patch within which it may lie off center in training.
_SHIFT = 5
_KEYS = ("ct", "mask", "confinement", "followup_ct", "followup_mask")


@dataclass(frozen=True)
class GrowthSample:
    """One case on the model grid: ``arrays`` (1, z, y, x) in half precision by name, and its volumes in mL."""

    arrays: dict[str, Array]
    baseline_ml: float
    followup_ml: float


def prepare_growth_sample(folder: Path) -> GrowthSample:
    """Bring a case onto the model grid around its hematoma."""
    case = read_case(folder)
    x, y, z = (n + 2 * _SHIFT for n in PATCH)
    grid = growth_region(case.baseline_mask, SPACING_MM, (x, y, z))
    baseline = growth_channels(case.baseline, case.baseline_mask, case.inside_skull, grid, WINDOW_HU)
    followup = growth_channels(case.followup, case.followup_mask, case.inside_skull, grid, WINDOW_HU)
    channels = np.concatenate([baseline, followup[:2]]).astype(np.float16)
    return GrowthSample(
        {key: channel[None] for key, channel in zip(_KEYS, channels, strict=True)},
        volume_ml(case.baseline_mask),
        volume_ml(case.followup_mask),
    )


def training_transform(seed: int) -> Compose:
    """A patch at random around the lesion, mirrored, turned and varied in brightness and noise."""
    return Compose(
        [
            EnsureTyped(_KEYS, dtype=torch.float32, track_meta=False),
            RandSpatialCropd(_KEYS, PATCH[::-1], random_size=False),
            *[RandFlipd(_KEYS, prob=0.5, spatial_axis=axis) for axis in range(3)],
            RandRotate90d(_KEYS, prob=0.5, spatial_axes=(1, 2)),
            RandShiftIntensityd("ct", offsets=0.03, prob=0.5),
            RandGaussianNoised("ct", prob=0.5, std=0.02),
        ]
    ).set_random_state(seed)


def validation_transform() -> Compose:
    """The patch centered on the lesion, unchanged."""
    return Compose(
        [EnsureTyped(_KEYS, dtype=torch.float32, track_meta=False), CenterSpatialCropd(_KEYS, PATCH[::-1])]
    )


def growth_loss(network: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The terms, with equal weights: ``dice`` of the mask, ``image`` (L1), ``smoothness`` (L2 of the gradient),
    and ``growth``, the Dice of the growth area over the batch.

    The last is not in the paper, whose patients all expand. Among patients of whom most do not, the Dice of
    the whole mask is highest where hardly any growth is predicted for anybody.
    """
    inputs, followup_mask = torch.cat([batch["ct"], batch["mask"]], dim=1), batch["followup_mask"]
    field = network(inputs.contiguous(memory_format=torch.channels_last_3d)).float()
    with torch.autocast(inputs.device.type, enabled=False):  # half precision would round positions
        displacement = confined_displacement(field, batch["confinement"], STEPS)
        moved_ct, moved_mask = warp(inputs, displacement).split(1, dim=1)
        growth, true_growth = ((mask - batch["mask"]).relu() for mask in (moved_mask, followup_mask))
        # Squared, because voxels on the surface hold fractions: equal masks must give no loss.
        return {
            "dice": DiceLoss(squared_pred=True)(moved_mask, followup_mask),
            "growth": DiceLoss(squared_pred=True, batch=True)(growth, true_growth),
            "image": nn.functional.l1_loss(moved_ct, batch["followup_ct"]),
            "smoothness": roughness(displacement),
        }


def roughness(displacement: Tensor) -> Tensor:
    """Mean square of a field's spatial gradient; (batch, 3, z, y, x) in voxels."""
    return torch.stack(torch.gradient(displacement, dim=(2, 3, 4))).square().mean()


def train_growth(cohort: Path, package: Path, channels: tuple[int, ...], options: FitOptions) -> ModelPackage:
    """Train on a cohort and write the package; checkpoints and log lie in ``package/training``."""
    training, validation = split_by_case(case_folders(cohort), 0.2, options.seed)
    samples = prepare_all(prepare_growth_sample, [*training, *validation], "Preparing cases")
    learned, unseen = samples[: len(training)], samples[len(training) :]
    arguments = {"channels": list(channels)}
    torch.manual_seed(options.seed)
    network = build_network("displacement-unet", arguments)
    results = fit(
        network,
        growth_loss,
        Dataset([sample.arrays for sample in learned], training_transform(options.seed)),
        Dataset([sample.arrays for sample in unseen], validation_transform()),
        options,
        package / "training",
    )
    relative = [sample.followup_ml / sample.baseline_ml - 1 for sample in learned]
    description = ModelDescription(
        name=package.name,
        version="1",
        task="growth",
        architecture="displacement-unet",
        arguments=arguments,
        spacing_mm=SPACING_MM,
        patch_size=PATCH,
        window_hu=WINDOW_HU,
        trained_on=describe_cohort(cohort, len(training), len(validation), options.seed),
        results={**results, "training_mean_relative_growth": round(float(np.mean(relative)), 4)},
        license="Apache-2.0",
        intended_use="Research on prediction of hematoma expansion. Not for diagnosis or treatment.",
        settings={INTEGRATION_STEPS: STEPS},
    )
    return write_package(package, description, network)
