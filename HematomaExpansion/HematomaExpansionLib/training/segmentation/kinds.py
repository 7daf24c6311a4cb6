"""Training of a segmentation network that tells the kinds of bleeds apart.

It learns from single scans in which the class of each voxel is known: simulated ones, and real heads without
blood, as they are and with bleeds painted into them. Patches are centered in each class in turn. Loss:
cross-entropy, in which rare classes weigh more, and the Dice of each class over the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from monai.losses import DiceLoss
from monai.networks import one_hot
from monai.transforms import Compose, DeleteItemsd, EnsureTyped, RandCropByLabelClassesd, SpatialPad
from monai.transforms.utils import map_classes_to_indices
from torch import Tensor, nn

from ...anatomy.bleeds import BLOOD, VENTRICLES, Kind, class_of_most
from ...anatomy.segmentation import brain_region, segmentation_channels
from ...models.description import CLASSES, PRESENCE, package_name
from ...models.networks.described import DescribedNetwork
from ...models.package import TRAINING_FOLDER, ModelPackage, write_package
from ...scan.grid import Array, Grid
from ...scan.resampling import average_onto
from ..data.each_case import prepare_parts
from ..data.labelled import LabelledScan, read_labelled, split_by_head
from ..fitting import Batch, FitOptions, PatchPairs, fit, initial_network
from ..runs import begin_run, made_from
from ..steps import training_steps
from .blood_volumes import shift_blood
from .presence import fit_presence
from .training import GRID, PATCH, SPACING_MM, WINDOW_HU, bone_around, variations

FIT = FitOptions(epochs=20, batch_size=4, learning_rate=2e-3, patience=20, seed=0, annealed=True)

_PATCHES_PER_SCAN, _PATCHES_TO_VALIDATE = 4, 2
_KEYS, _CENTERS = ("ct", "classes", "bone"), "centers"
_MAX_CENTERS = 5000
"""Of each class in a scan, evenly spaced: to look for them anew costs more than all else that a patch needs."""
_LEFT_RIGHT = (2,)
"""Patches are mirrored left to right alone: what is above and in front says which blood is where."""
_CENTERED_IN = (5.0, 3.0, 3.0, 3.0, 1.0, 0.5)
"""How often a patch is centered in each class, background first."""
_LESS_LIKELY = 1.5
"""How much less likely, as a logit, the new classes are at first when training starts from one class."""
_WEIGHTS = (1.0, 1.0, 2.0, 2.0, 1.5, 1.0)
"""Weight of each class in the cross-entropy. The Dice alone does not teach a class: where its probability is near
zero, the Dice has no slope."""


def prepare_labelled(folder: Path) -> list[dict[str, Any]]:
    """A labelled scan on the model grid, each (1, z, y, x): windowed CT, classes, and amount of bone nearby; with
    where patches can be centered.
    """
    scan = read_labelled(folder)
    grid = brain_region(scan.inside_skull, SPACING_MM)
    inside = average_onto(scan.inside_skull.image, grid)
    sample = {
        "ct": segmentation_channels(scan.ct, scan.inside_skull, grid, WINDOW_HU).astype(np.float16),
        "classes": classes_on(scan, grid)[None],
        "bone": bone_around(inside, SPACING_MM)[None].astype(np.float16),
    }
    return [with_centers(sample)]


def with_centers(sample: dict[str, Array]) -> dict[str, Any]:
    """A sample as large as a patch or larger, with the voxels in which patches can be centered: for each class,
    their flat indices.
    """
    pad = SpatialPad(PATCH[::-1])
    large = {name: np.pad(volume, pad.compute_pad_width(volume.shape[1:])) for name, volume in sample.items()}
    centers = map_classes_to_indices(large["classes"], CLASSES, large["ct"], max_samples_per_class=_MAX_CENTERS)
    return {**large, _CENTERS: centers}


def classes_on(scan: LabelledScan, grid: Grid) -> Array:
    """The class of most of each voxel of a coarser grid, uint8 (z, y, x)."""
    share = np.zeros((CLASSES, *grid.shape), np.float32)
    present = np.unique(sitk.GetArrayViewFromImage(scan.classes))
    for value in present[present > 0]:
        share[value] = average_onto(scan.classes == int(value), grid)
    return class_of_most(share)


def kinds_transform(*, vary: bool) -> Compose:
    """Draws a random patch, centered in a random class that the scan holds; ``vary`` as for the hematoma alone."""
    return Compose(
        [
            EnsureTyped(_KEYS, dtype=torch.float32, track_meta=False),
            RandCropByLabelClassesd(
                _KEYS,
                "classes",
                PATCH[::-1],
                ratios=list(_CENTERED_IN),
                num_classes=CLASSES,
                num_samples=1,
                indices_key=_CENTERS,
                warn=False,
            ),
            DeleteItemsd(_CENTERS),
            *(variations(_KEYS, _LEFT_RIGHT) if vary else []),
        ]
    )


def kinds_loss(network: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """``ce``: weighted cross-entropy. ``dice``: one minus the mean Dice over the batch, of the classes that it
    holds.
    """
    logits = network(batch["ct"].contiguous(memory_format=torch.channels_last_3d)).float()
    with torch.autocast(logits.device.type, enabled=False):
        truth = one_hot(batch["classes"], CLASSES)
        probability = torch.softmax(logits, dim=1)
        dice = DiceLoss(include_background=False, batch=True, reduction="none")(probability, truth).flatten()
        present = truth[:, 1:].flatten(2).any(dim=2).any(dim=0)
        weights = torch.tensor(_WEIGHTS, device=logits.device)
        return {
            "ce": nn.functional.cross_entropy(logits, batch["classes"][:, 0].long(), weights),
            "dice": (dice * present).sum() / present.sum().clamp(min=1),
        }


def train_kinds(
    cases: Sequence[Path],
    output: Path,
    channels: tuple[int, ...],
    options: FitOptions,
    start: Sequence[ModelPackage] = (),
) -> ModelPackage:
    """Train on labelled scans and write the package; checkpoints and log go to ``output/training``.

    ``start``: begin from the weights of this model. In one that finds the hematoma alone, other blood looks like a
    hematoma at first.

    Raises:
        InputError: the folder's name is no valid model name, or it holds a model or checkpoints made differently
            (``runs.py``).
        ModelPackageError: ``start`` has other channels.
    """
    name = package_name(output)
    initial = _initial(channels, start, options.seed)
    training, validation = split_by_head(cases, 0.2, options.seed)
    chosen = {"channels": list(channels), "fit": asdict(options)}
    sources = made_from("segmentation of kinds", chosen, learned=cases, start=start)
    if (made := begin_run(output, sources)) is not None:
        return made
    samples = prepare_parts(prepare_labelled, training, validation)
    patches = PatchPairs.of(samples, kinds_transform, options.seed, _PATCHES_PER_SCAN, _PATCHES_TO_VALIDATE)
    results = fit(initial.network, kinds_loss, patches, options, output / TRAINING_FOLDER)
    results["blood_shift"] = shift_blood(initial.network, samples[1])
    trained_on = training_steps(cases, len(training), len(validation), options.seed, start)
    description = initial.described(name, "segmentation", GRID, trained_on, results)
    presence = fit_presence(validation, description, initial.network)
    if presence is not None:
        description = replace(description, settings={**description.settings, PRESENCE: presence})
    return write_package(output, description, initial.network, sources)


def _initial(channels: tuple[int, ...], start: Sequence[ModelPackage], seed: int) -> DescribedNetwork:
    arguments = {"channels": list(channels), "classes": CLASSES}
    if not start or start[0].description.classes == CLASSES:
        return initial_network("segmentation-unet", arguments, start, seed)
    narrow = initial_network("segmentation-unet", {"channels": list(channels)}, start, seed)
    wide = initial_network("segmentation-unet", arguments, (), seed)
    weights, blood = wide.network.state_dict(), list(BLOOD)
    for key, value in narrow.network.state_dict().items():
        if key.startswith("head."):
            weights[key][blood] = value[0]  # other blood looks like a hematoma; where it lies is to be learned
        else:
            weights[key] = value
    weights["head.bias"][blood[1:]] -= _LESS_LIKELY
    weights["head.bias"][[int(Kind.EDEMA), VENTRICLES]] = -_LESS_LIKELY
    wide.network.load_state_dict(weights)
    return wide
