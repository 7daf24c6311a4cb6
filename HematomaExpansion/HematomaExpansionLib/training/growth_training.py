"""Training of the growth network (Abramova 2024, sections 2.3 and 2.4.1).

``PRESETS``: ``paper`` does what the paper says; ``compact`` is what ships, small enough to be trained and used
without a GPU: one patch on a coarse grid covers the lesion and where it may grow, and a velocity is integrated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import SimpleITK as sitk
import torch
from monai.losses import DiceLoss
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
from torch import Tensor, nn

from ..errors import InputError
from ..grid import Array, Grid
from ..growth import (
    INTEGRATION_STEPS,
    Masks,
    confined_displacement,
    growth_channels,
    growth_region,
    warp,
)
from ..measures import volume_ml
from ..model_package import VOLUME_RANGE, ModelDescription, ModelPackage, write_package
from ..segmentation import segment
from .cohort import Case, describe_cases, kind_of_cases, prepare_all, read_case, split_by_case, with_variants
from .fitting import Batch, DescribedNetwork, FitOptions, Patches, ensemble_of, fit, initial_network
from .volume_range import FEWEST_PATIENTS, fit_volume_range

_TURN, _SCALE = 0.25, 0.1
"""Of the augmentation: turns about each axis in radians, and change of size, at most."""
_KEYS = ("ct", "mask", "confinement", "followup_ct", "followup_mask")
_RANGE_FROM, _BOTH_MASKS = "; range of the volume from ", ", from their own masks and automatic ones"
"""What a package says of it."""


@dataclass(frozen=True)
class GrowthPreset:
    """What a growth model looks like and how it is trained; ``spacing_mm`` and ``patch`` are (x, y, z).

    Attributes:
        patches_per_case: drawn from each case in each epoch.
        growth_share: share of the patches that are centered in the growth area, the others elsewhere in the
            brain; None for patches that all hold the whole hematoma, off center by up to ``shift`` voxels.
        integration_steps: squarings in the integration of the field as a velocity; 0 for a plain displacement.
        terms: of the loss; see ``growth_loss``.
        augmented: whether patches are mirrored, turned, and varied in brightness and noise.
        members: networks, trained apart from seeds that follow each other; the model is the mean of their fields.
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
    # The paper leaves the voxel size open: 64 voxels of 1 mm cover most growth areas, as it says they do.
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
"""By case folder: from the case's own mask, and where asked for from the automatic one too, in this order."""


def prepare_growth_samples(
    preset: GrowthPreset, segmenter: ModelPackage | None, folders: Sequence[Path]
) -> Samples:
    """The samples of these cases, made on all cores with a progress bar."""
    prepare = partial(growth_samples, preset, segmenter)
    return dict(zip(folders, prepare_all(prepare, folders, "Preparing cases"), strict=True))


def growth_samples(preset: GrowthPreset, segmenter: ModelPackage | None, folder: Path) -> list[GrowthSample]:
    """Bring a case onto the model grid, around its hematoma or with all of its brain.

    The first sample begins from the case's own mask. With a segmenter a second one begins from the automatic mask,
    unless that is empty; both are to end at the true follow-up.
    """
    case = read_case(folder)
    samples = [_sample(case, case.baseline_mask, preset)]
    if segmenter is not None:
        found = segment(case.baseline, case.inside_skull, segmenter, torch.device("cpu"))
        if volume_ml(found) > 0:
            samples.append(_sample(case, found, preset))
    return samples


def _sample(case: Case, hematoma: sitk.Image, preset: GrowthPreset) -> GrowthSample:
    grid = _sample_grid(case, hematoma, preset)
    baseline = growth_channels(case.baseline, hematoma, case.inside_skull, grid, preset.window_hu)
    followup = growth_channels(case.followup, case.followup_mask, case.inside_skull, grid, preset.window_hu)
    channels = np.concatenate([baseline, followup[:2]]).astype(np.float16)
    arrays: dict[str, Array] = {key: channel[None] for key, channel in zip(_KEYS, channels, strict=True)}
    if preset.growth_share is not None:
        growth = (arrays["followup_mask"][0] >= 0.5) & (arrays["mask"][0] < 0.5)
        brain = (arrays["confinement"][0] > 0) & ~growth
        arrays |= {"growth_places": np.flatnonzero(growth), "other_places": np.flatnonzero(brain)}
    return GrowthSample(arrays, volume_ml(hematoma), volume_ml(case.followup_mask))


def _sample_grid(case: Case, hematoma: sitk.Image, preset: GrowthPreset) -> Grid:
    x, y, z = (n + 2 * preset.shift for n in preset.patch)
    if preset.growth_share is None:
        return growth_region(hematoma, preset.spacing_mm, (x, y, z))
    return growth_region(case.inside_skull, preset.spacing_mm, (x, y, z), margin_mm=0.0)


def patch_transform(preset: GrowthPreset, *, training: bool) -> Compose:
    """From a sample to one patch, (1, z, y, x) each; all randomness of training is in here."""
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
            RandSpatialCropd(_KEYS, (z, y, x), random_size=False)
            if training
            else CenterSpatialCropd(_KEYS, (z, y, x))
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
            *(varied if training and preset.augmented else []),
        ]
    )


def growth_loss(preset: GrowthPreset, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The preset's terms of the loss, with equal weights.

    The paper's: ``dice`` of the mask, ``image`` (L1), ``smoothness`` (L2 of the field's spatial gradient). Ours:
    ``growth``, the Dice of the growth area over the batch, and ``volume``, the error of the follow-up volume in
    units of 10 mL, squared up to there (Huber), so that the mean is learned and not the median. All of the paper's
    patients expand; among patients of whom most do not, the Dice of the whole mask is highest where hardly any
    growth is predicted for anybody.
    """
    inputs, followup_mask = torch.cat([batch["ct"], batch["mask"]], dim=1), batch["followup_mask"]
    field = network(inputs.contiguous(memory_format=torch.channels_last_3d)).float()
    with torch.autocast(inputs.device.type, enabled=False):  # half precision would round positions
        displacement = confined_displacement(field, batch["confinement"], preset.integration_steps)
        moved_ct, moved_mask = warp(inputs, displacement).split(1, dim=1)
        growth, true_growth = ((mask - batch["mask"]).relu() for mask in (moved_mask, followup_mask))
        per_10_ml = float(np.prod(preset.spacing_mm)) / 10_000
        volumes = [mask.sum(dim=(1, 2, 3, 4)) * per_10_ml for mask in (moved_mask, followup_mask)]
        terms = {
            # Squared, because voxels on the surface hold fractions: equal masks must give no loss.
            "dice": DiceLoss(squared_pred=True)(moved_mask, followup_mask),
            "growth": DiceLoss(squared_pred=True, batch=True)(growth, true_growth),
            "volume": nn.functional.huber_loss(volumes[0], volumes[1]),
            "image": nn.functional.l1_loss(moved_ct, batch["followup_ct"]),
            "smoothness": roughness(displacement),
        }
    return {name: terms[name] for name in preset.terms}


def roughness(displacement: Tensor) -> Tensor:
    """Mean square of a field's spatial gradient; (batch, 3, z, y, x) in voxels."""
    return torch.stack(torch.gradient(displacement, dim=(2, 3, 4))).square().mean()


def train_growth(
    cases: Sequence[Path],
    package: Path,
    preset: GrowthPreset,
    *,
    use_variants: bool = True,
    segmenter: ModelPackage | None = None,
    start: Sequence[ModelPackage] = (),
    prepared: Samples | None = None,
) -> ModelPackage:
    """Train on the cases of a cohort and write the package; checkpoints and log lie in ``package/training``.

    A fifth of the cases chooses the weights. ``use_variants``: learn from the training cases' synthetic variants
    too, where there are any. ``segmenter``: begin from each scan's automatic mask too. ``start``: go on from the
    weights of this model instead of random ones, of several from their ensemble; with no epochs they stay.
    ``prepared``: samples of all of them that are at hand already.

    Raises:
        ModelPackageError: ``start`` holds another network than the preset.
    """
    seed = preset.fit.seed
    members = [
        initial_network(preset.architecture, _arguments(preset), start, seed + number)
        for number in range(preset.members)
    ]
    training, validation = split_by_case(cases, 0.2, seed)
    learned_from = with_variants(training) if use_variants else training
    if prepared is None:
        prepared = prepare_growth_samples(preset, segmenter, [*learned_from, *validation])
    learned, unseen = (
        [sample for folder in folders for sample in prepared[folder]] for folders in (learned_from, validation)
    )
    model, results = _fit_members(preset, members, learned, unseen, package / "training")
    settings: dict[str, Any] = {INTEGRATION_STEPS: preset.integration_steps}
    if preset.growth_share is None and len(validation) >= FEWEST_PATIENTS:  # such patches hold whole hematomas
        settings[VOLUME_RANGE] = _volume_range(model.network, [prepared[folder] for folder in validation], preset)
    originals = [prepared[folder][0] for folder in training]
    relative = [sample.followup_ml / sample.baseline_ml - 1 for sample in originals]
    if start and preset.fit.epochs == 0:
        models = "; and ".join(package.description.trained_on for package in start)
        trained_on = f"{models}{_RANGE_FROM}{len(validation)} {kind_of_cases(cases)}"
    else:
        trained_on = describe_cases(cases, len(training), len(validation), seed, start)
    if segmenter is not None:
        trained_on += _BOTH_MASKS
    description = ModelDescription(
        name=package.name,
        version="1",
        task="growth",
        architecture=model.architecture,
        arguments=model.arguments,
        spacing_mm=preset.spacing_mm,
        patch_size=preset.patch,
        window_hu=preset.window_hu,
        trained_on=trained_on,
        results={**results, "training_mean_relative_growth": round(float(np.mean(relative)), 4)},
        license="Apache-2.0",
        intended_use="Research on prediction of hematoma expansion. Not for diagnosis or treatment.",
        settings=settings,
    )
    return write_package(package, description, model.network)


def _fit_members(
    preset: GrowthPreset,
    members: Sequence[DescribedNetwork],
    learned: Sequence[GrowthSample],
    unseen: Sequence[GrowthSample],
    folder: Path,
) -> tuple[DescribedNetwork, dict[str, float]]:
    """The trained network, or the ensemble of several, and its validation terms."""

    def fitted(member: DescribedNetwork, options: FitOptions, folder: Path) -> dict[str, float]:
        own = replace(preset, fit=options)
        patches = _patches(learned, own, training=True), _patches(unseen, own, training=False)
        return fit(member.network, partial(growth_loss, own), *patches, options, folder)

    if len(members) == 1:
        return members[0], fitted(members[0], preset.fit, folder)
    for number, member in enumerate(members):
        options = replace(preset.fit, seed=preset.fit.seed + number)
        fitted(member, options, folder / f"member-{number + 1}")
    model = ensemble_of([member.network for member in members], preset.architecture, _arguments(preset))
    return model, fitted(model, replace(preset.fit, epochs=0), folder / "all")


def renew_volume_range(
    model: ModelPackage,
    cases: Sequence[Path],
    package: Path,
    preset: GrowthPreset,
    segmenter: ModelPackage | None = None,
) -> ModelPackage:
    """Write the same model with the range of its volume fitted on all of these cases, from whom it must not have
    learned; ``segmenter``: from each scan's automatic mask too.

    Raises:
        InputError: the cases are too few.
        ModelPackageError: ``model`` is another network than the preset.
    """
    check_calibration(cases)
    network = initial_network(preset.architecture, _arguments(preset), [model], preset.fit.seed).network
    samples = prepare_growth_samples(preset, segmenter, cases)
    trained_on = f"{model.description.trained_on.split(_RANGE_FROM)[0]}{_RANGE_FROM}{len(cases)}"
    description = replace(
        model.description,
        name=package.name,
        trained_on=f"{trained_on} {kind_of_cases(cases)}{_BOTH_MASKS if segmenter is not None else ''}",
        settings={
            **model.description.settings,
            VOLUME_RANGE: _volume_range(network, list(samples.values()), preset),
        },
    )
    return write_package(package, description, network)


def check_calibration(cases: Sequence[Path], learned_from: Sequence[Path] = ()) -> None:
    """Whether these cases can tell how wrong a model is that learned from those.

    Raises:
        InputError: there are too few, or some of them are those.
    """
    if len(cases) < FEWEST_PATIENTS:
        raise InputError(f"A range of the volume needs at least {FEWEST_PATIENTS} cases: there are {len(cases)}.")
    if {case.resolve() for case in cases} & {case.resolve() for case in learned_from}:
        raise InputError("The range of the volume must be fitted on other cases than the model learns from.")


def _arguments(preset: GrowthPreset) -> dict[str, Any]:
    return {"channels": list(preset.channels), "norm": preset.norm}


def _volume_range(
    network: nn.Module, patients: Sequence[Sequence[GrowthSample]], preset: GrowthPreset
) -> dict[str, dict[str, list[float]]]:
    samples = [sample for own in patients for sample in own]
    numbers = np.repeat(np.arange(len(patients)), [len(own) for own in patients])
    masks = np.array([kind for own in patients for kind in get_args(Masks)[: len(own)]])
    return fit_volume_range(*_volumes(network, samples, preset), numbers, masks)


def _patches(samples: Sequence[GrowthSample], preset: GrowthPreset, *, training: bool) -> Patches:
    transform = patch_transform(preset, training=training)
    return Patches([sample.arrays for sample in samples], transform, preset.fit.seed, preset.patches_per_case)


def _volumes(
    network: nn.Module, samples: Sequence[GrowthSample], preset: GrowthPreset
) -> tuple[Array, Array, Array]:
    """Baseline, predicted and true follow-up in mL, on the model grid."""
    patches, voxel_ml = _patches(samples, preset, training=False), float(np.prod(preset.spacing_mm)) / 1000
    device = next(network.parameters()).device
    volumes = []
    with torch.inference_mode():
        for k in range(len(patches)):
            patch = {name: tensor[None].to(device) for name, tensor in patches[k].items()}
            field = network.eval()(torch.cat([patch["ct"], patch["mask"]], dim=1))
            displacement = confined_displacement(field, patch["confinement"], preset.integration_steps)
            masks = patch["mask"], warp(patch["mask"], displacement), patch["followup_mask"]
            volumes.append([float(mask.sum()) * voxel_ml for mask in masks])
    baseline, predicted, true = np.array(volumes).T
    return baseline, predicted, true
