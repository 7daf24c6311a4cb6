"""Training of the growth network (Abramova 2024, sections 2.3 and 2.4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.losses import DiceLoss
from torch import Tensor, nn

from ...growth.field import confined_displacement, warp
from ...models.description import INTEGRATION_STEPS, MEAN_GROWTH, package_name
from ...models.networks.described import DescribedNetwork, ensemble_of
from ...models.package import TRAINING_FOLDER, ModelPackage, write_package
from ..data.cohort import has_expanded, split_by_case, with_variants
from ..data.each_case import prepare_each
from ..fitting import Batch, FitOptions, PatchPairs, fit, initial_network
from ..runs import begin_run, made_from
from ..steps import training_steps
from .samples import GrowthPreset, GrowthSample, Samples, patch_transform, prepare_growth_samples

_ALL_EXPANDED, _BOTH_MASKS = "all of whom expanded", "from their own masks and automatic ones"
"""How a package describes its training cases."""


def growth_loss(preset: GrowthPreset, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The preset's terms of the loss, with equal weights.

    The paper's: ``dice`` of the mask, ``image`` (L1), ``smoothness`` (L2 of the field's spatial gradient). Ours:
    ``growth``, the Dice of the growth area over the batch, and ``volume``, the Huber loss of the follow-up volume
    in units of 10 mL, quadratic up to an error of 10 mL, so that the network learns the mean and not the median.
    All of the paper's patients expand; where most do not, the Dice of the whole mask is highest with hardly any
    growth predicted for anybody.
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
            # Squared, because surface voxels hold fractions and equal masks must give zero loss.
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
    output: Path,
    preset: GrowthPreset,
    *,
    use_variants: bool = True,
    only_expanded: bool = False,
    segmenter: ModelPackage | None = None,
    start: Sequence[ModelPackage] = (),
    prepared: Samples | None = None,
) -> ModelPackage:
    """Train on the cases of a cohort and write the package; checkpoints and log go to ``output/training``.

    A fifth of the cases is held out to choose the weights. ``use_variants``: also learn from the training cases'
    synthetic variants, if any. ``only_expanded``: leave out patients who did not expand, as in the paper's cohort.
    ``segmenter``: also begin from each scan's automatic mask. ``start``: begin from this model's weights, or the
    ensemble of several models, instead of random weights. ``prepared``: samples of all cases, if already at hand.

    Raises:
        InputError: the folder's name is no valid model name, or it holds a model or checkpoints made differently
            (``runs.py``).
        ModelPackageError: ``start`` holds another network than the preset's.
    """
    name, seed = package_name(output), preset.fit.seed
    members = [
        initial_network(preset.architecture, preset.arguments, start, seed + number)
        for number in range(preset.members)
    ]
    if only_expanded:
        kinds = prepare_each(has_expanded, cases, "Reading masks")
        cases = [
            case for case, kind in zip(cases, kinds, strict=True) if kind
        ]  # unreadable cases are reported later
    training, validation = split_by_case(cases, 0.2, seed)
    learned_from = with_variants(training) if use_variants else training
    sources = growth_sources(cases, preset, use_variants=use_variants, segmenter=segmenter, start=start)
    if (made := begin_run(output, sources)) is not None:
        return made
    if prepared is None:
        prepared = prepare_growth_samples(preset, segmenter, [*learned_from, *validation])
    learned, unseen = (
        [sample for folder in folders for sample in prepared[folder]] for folders in (learned_from, validation)
    )
    model, results = _fit_members(preset, members, learned, unseen, output / TRAINING_FOLDER)
    originals = [prepared[folder][0] for folder in training]
    relative = [sample.followup_ml / sample.baseline_ml - 1 for sample in originals]
    details = [*([_ALL_EXPANDED] if only_expanded else []), *([_BOTH_MASKS] if segmenter is not None else [])]
    trained_on = training_steps(cases, len(training), len(validation), seed, start, details=details)
    results[MEAN_GROWTH] = round(float(np.mean(relative)), 4)
    settings = {INTEGRATION_STEPS: preset.integration_steps}
    description = model.described(name, "growth", preset.grid, trained_on, results, settings)
    return write_package(output, description, model.network, sources)


def growth_sources(
    cases: Sequence[Path],
    preset: GrowthPreset,
    *,
    use_variants: bool = True,
    segmenter: ModelPackage | None = None,
    start: Sequence[ModelPackage] = (),
) -> dict[str, Any]:
    """What ``train_growth`` makes its package from; ``cases``: the ones it does not leave out."""
    return made_from(
        "growth",
        {"preset": asdict(preset), "variants": use_variants},
        learned=cases,
        start=start,
        models={"segmenter": segmenter},
        variants=use_variants,
    )


def _fit_members(
    preset: GrowthPreset,
    members: Sequence[DescribedNetwork],
    learned: Sequence[GrowthSample],
    unseen: Sequence[GrowthSample],
    folder: Path,
) -> tuple[DescribedNetwork, dict[str, float]]:
    """The trained network, or the ensemble of several, and its validation losses."""

    arrays = [sample.arrays for sample in learned], [sample.arrays for sample in unseen]

    def fitted(member: DescribedNetwork, options: FitOptions, folder: Path) -> dict[str, float]:
        own = replace(preset, fit=options)
        patches = PatchPairs.of(arrays, partial(patch_transform, own), options.seed, own.patches_per_case)
        return fit(member.network, partial(growth_loss, own), patches, options, folder)

    if len(members) == 1:
        return members[0], fitted(members[0], preset.fit, folder)
    for number, member in enumerate(members):
        options = replace(preset.fit, seed=preset.fit.seed + number)
        fitted(member, options, folder / f"member-{number + 1}")
    model = ensemble_of([member.network for member in members], preset.architecture, preset.arguments)
    return model, fitted(model, replace(preset.fit, epochs=0), folder / "all")
