"""Training of 2D mask networks on axial slices (JPM 12:779, sections 2.2, 2.4 and 3.2).

The paper trains only on slices with blood; here half of the slices hold none, since the network will run on whole
scans. Loss and packages are those of the 3D network (``segmentation.training``): the paper names no loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from monai.transforms import (
    Compose,
    EnsureTyped,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandGaussianSmoothd,
    RandRotated,
    SpatialPadd,
    SqueezeDimd,
    Transform,
)
from torch import Tensor, nn

from ...anatomy.segmentation import brain_region
from ...errors import InputError
from ...models.description import ModelGrid, package_name
from ...models.package import TRAINING_FOLDER, ModelPackage, write_package
from ...scan.grid import Array
from ..data.cohort import read_case, split_by_case
from ..data.each_case import prepare_parts
from ..fitting import Batch, FitOptions, PatchPairs, fit, initial_network
from ..runs import begin_run, made_from
from ..steps import training_steps
from .training import segmentation_loss, segmentation_sample

MASK_NETWORKS = {
    "attention-unet": (64, 128, 256, 512, 1024),
    "unet": (64, 128, 256, 512, 512),
    "unet++": (32, 64, 128, 256, 512),
}
"""The networks that the paper compared, best first, with the channels of their five levels."""

_FIELD_OF_VIEW_MM = 256.0
_SLICES_PER_SCAN = 16
_TURN = np.deg2rad(10.0)
_KEYS = ("ct", "mask")


@dataclass(frozen=True)
class SlicePreset:
    """A 2D mask network and how it is trained; ``size`` (x, y) in voxels; ``window_hu`` is scaled to 0..1."""

    network: str
    channels: tuple[int, ...]
    size: tuple[int, int]
    window_hu: tuple[float, float]
    fit: FitOptions

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Spacing of the model grid, (x, y, z): slices of any size cover the whole head and are 5 mm apart."""
        x, y = self.size
        return _FIELD_OF_VIEW_MM / x, _FIELD_OF_VIEW_MM / y, 5.0

    @property
    def patch_size(self) -> tuple[int, int, int]:
        """One slice, (x, y, z)."""
        return *self.size, 1

    @property
    def grid(self) -> ModelGrid:
        """The grid and the window in which the network sees a scan."""
        return ModelGrid(self.spacing_mm, self.patch_size, self.window_hu)


# The paper does not say how long it trained.
PRESET = SlicePreset(
    network="attention-unet",
    channels=MASK_NETWORKS["attention-unet"],
    size=(512, 512),
    window_hu=(-1000.0, 400.0),
    fit=FitOptions(
        epochs=100, batch_size=2, learning_rate=1e-4, patience=20, seed=0, momentum=0.9, weight_decay=3e-4
    ),
)


def mask_preset(network: str | None, channels: tuple[int, ...], size: tuple[int, ...]) -> SlicePreset:
    """The preset with another network, other channels or another size (x, y), where given.

    Raises:
        InputError: the network cannot halve the size four times, or the network is unknown.
    """
    chosen = network or PRESET.network
    if chosen not in MASK_NETWORKS:
        raise InputError(f"The mask networks of slices are {', '.join(MASK_NETWORKS)}: there is no {chosen!r}.")
    if size and len(size) != 2:
        raise InputError("The size of a slice is two numbers, such as 96,96.")
    x, y = size or PRESET.size
    if x % 16 or y % 16 or not (64 <= x <= 512 and 64 <= y <= 512):
        raise InputError("The size of a slice for a mask network must be multiples of 16 from 64 to 512.")
    return replace(PRESET, network=chosen, channels=channels or MASK_NETWORKS[chosen], size=(x, y))


def vary_slices(keys: Sequence[str]) -> list[Transform]:
    """The paper's augmentation of slices (channel, y, x): flips, rotation, blur; the amounts are ours."""
    return [
        RandFlipd(keys, prob=0.5, spatial_axis=1),
        RandRotated(keys, range_x=_TURN, prob=0.5, padding_mode="border"),
        RandGaussianSmoothd("ct", prob=0.2, sigma_x=(0.3, 0.8), sigma_y=(0.3, 0.8)),
    ]


def prepare_scans(preset: SlicePreset, folder: Path) -> list[dict[str, Array]]:
    """A case's two scans on the model grid, each (1, z, y, x): windowed CT and mask."""
    case = read_case(folder)
    grid = brain_region(case.baseline.inside_skull, preset.spacing_mm)
    return [segmentation_sample(subject, grid, preset.window_hu) for subject in (case.baseline, case.followup)]


def slice_transform(preset: SlicePreset, *, vary: bool) -> Compose:
    """From a scan to a random slice, (1, y, x); half of the slices pass through blood."""
    x, y, z = preset.patch_size
    return Compose(
        [
            EnsureTyped(_KEYS, dtype=torch.float32, track_meta=False),
            SpatialPadd(_KEYS, (z, y, x)),
            RandCropByPosNegLabeld(_KEYS, "mask", (z, y, x), pos=1, neg=1),
            SqueezeDimd(_KEYS, dim=1),
            *(vary_slices(_KEYS) if vary else []),
        ]
    )


def mask_loss(network: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The loss of the 3D network, for slices (batch, 1, y, x)."""
    return segmentation_loss(network, {name: tensor[:, :, None] for name, tensor in batch.items()})


def train_slice_segmentation(cases: Sequence[Path], output: Path, preset: SlicePreset) -> ModelPackage:
    """Train on the cases of a cohort and write the package; checkpoints and log go to ``output/training``.

    Raises:
        InputError: the folder's name is no valid model name, or it holds a model or checkpoints made differently
            (``runs.py``).
    """
    name, options = package_name(output), preset.fit
    arguments = {"network": preset.network, "channels": list(preset.channels)}
    initial = initial_network("slice-segmentation", arguments, (), options.seed)
    training, validation = split_by_case(cases, 0.2, options.seed)
    sources = made_from("segmentation of slices", asdict(preset), learned=cases)
    if (made := begin_run(output, sources)) is not None:
        return made
    samples = prepare_parts(partial(prepare_scans, preset), training, validation)
    patches = PatchPairs.of(samples, partial(slice_transform, preset), options.seed, _SLICES_PER_SCAN)
    results = fit(initial.network, mask_loss, patches, options, output / TRAINING_FOLDER)
    trained_on = training_steps(cases, len(training), len(validation), options.seed)
    description = initial.described(name, "segmentation", preset.grid, trained_on, results)
    return write_package(output, description, initial.network, sources)
