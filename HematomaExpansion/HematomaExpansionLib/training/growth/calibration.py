"""What is fitted on patients from whom a growth network has not learned: how its growth follows the probability of
expansion, and how wrong its volumes are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import nn

from ...errors import InputError
from ...forecast.strength import growth_strength, log_odds
from ...growth.field import confined_displacement, warp
from ...models.description import (
    GROWTH_BY_PROBABILITY,
    PROBABILITY_FROM,
    VOLUME_RANGE,
    ModelDescription,
    TrainingStep,
    package_name,
)
from ...models.package import ModelPackage, write_package
from ...scan.grid import Array
from ...scan.mask import MaskKind
from ..data.case_description import kind_of_cases
from ..fitting import Patches, initial_network
from ..runs import has_learned_from, have_scans_in_common, made_before, made_from
from ..steps import CALIBRATED_ON, lasting_steps
from .samples import GrowthPreset, GrowthSample, Samples, patch_transform, prepare_growth_samples
from .volume_range import MIN_PATIENTS, fit_volume_range

BOTH_MASKS = "from their own masks and automatic ones"
"""How a package describes training on both kinds of masks."""

LADDER = np.linspace(-2.5, 1.5, 21)
"""Logarithms of the strengths to try; overlaps are interpolated between them."""

_CONSTANTS, _SLOPES = np.linspace(-1.0, 1.0, 21), np.linspace(0.0, 1.0, 21)


@dataclass(frozen=True)
class _Outcomes:
    """Predictions for samples at several strengths; arrays are (sample, strength), the first two (sample,).

    ``overlap`` and ``extent``: numerator and denominator of the Dice of the growth area.
    """

    baseline_ml: Array
    true_ml: Array
    predicted_ml: Array
    overlap: Array
    extent: Array


@dataclass(frozen=True)
class Calibration:
    """The cases to calibrate on after training, and the risk model whose probability the growth should follow."""

    cases: Sequence[Path]
    risk: ModelPackage | None


def calibrate_growth(
    model: ModelPackage,
    cases: Sequence[Path],
    output: Path,
    preset: GrowthPreset,
    segmenter: ModelPackage | None = None,
    risk: ModelPackage | None = None,
) -> ModelPackage:
    """Write the same model, calibrated on all of these cases, from which it must not have learned.

    ``risk``: let the growth follow this model's probability of expansion; this model must not have learned from
    the cases either. Without it, growth follows no probability. The range of the volume is fitted last.
    ``segmenter``: calibrate on each scan's automatic mask too.

    Raises:
        InputError: there are too few cases, a model has learned from some of them, the folder's name is no valid
            model name, or it holds a model made differently (``runs.py``).
        ModelPackageError: ``model`` is another network than the preset's.
    """
    name = package_name(output)
    check_calibration(cases, models=[model, *([] if risk is None else [risk])])
    network = initial_network(preset.architecture, preset.arguments, [model], preset.fit.seed).network
    options, models = {"preset": asdict(preset)}, {"segmenter": segmenter, "risk": risk}
    sources = made_from("calibration of growth", options, calibrated=cases, start=[model], models=models)
    if (made := made_before(output, sources)) is not None:
        return made
    prepared = prepare_growth_samples(preset, segmenter, cases, risk)
    named = replace(model.description, name=name)
    described = calibrated(named, network, prepared, preset, segmenter, risk)
    return write_package(output, described, network, sources)


def calibrated(
    description: ModelDescription,
    network: nn.Module,
    prepared: Samples,
    preset: GrowthPreset,
    segmenter: ModelPackage | None,
    risk: ModelPackage | None,
) -> ModelDescription:
    """The model's description with the settings fitted on the prepared cases, as in ``calibrate_growth``."""
    cases, patients = list(prepared), list(prepared.values())
    by_probability = {GROWTH_BY_PROBABILITY, PROBABILITY_FROM}
    settings = {name: value for name, value in description.settings.items() if name not in by_probability}
    if risk is not None:
        samples = [sample for own in patients for sample in own]
        settings[GROWTH_BY_PROBABILITY] = _growth_by_probability(network, samples, preset)
        settings[PROBABILITY_FROM] = {key: risk.identity[key] for key in ("name", "version", "sha256")}
    description = replace(description, settings=settings)
    settings[VOLUME_RANGE] = volume_range(network, patients, preset, description)
    details = [] if segmenter is None else [BOTH_MASKS]
    if risk is not None:
        details.append(f"with the probability of {risk.description.name} {risk.description.version}")
    step = TrainingStep(CALIBRATED_ON, len(cases), kind_of_cases(cases), ", ".join(details))
    return replace(description, trained_on=(*lasting_steps(description.trained_on), step))


def check_calibration(
    cases: Sequence[Path], learned_from: Sequence[Path] = (), models: Sequence[ModelPackage] = ()
) -> None:
    """Check that there are enough cases, that none is among those a new model learns from (``learned_from``), and
    that none of the existing ``models`` has learned from them.

    Raises:
        InputError: there are too few cases, or a model learns or has learned from some, whatever their names.
    """
    if len(cases) < MIN_PATIENTS:
        raise InputError(f"A range of the volume needs at least {MIN_PATIENTS} cases: there are {len(cases)}.")
    if have_scans_in_common(cases, learned_from):
        raise InputError("The range of the volume must be fitted on cases that the model does not learn from.")
    for model in models:
        if has_learned_from(model, cases):
            raise InputError(
                f"Model {model.description.name!r} has learned from some of the cases to fit growth and the "
                "range of the volume on: give other cases."
            )


def volume_range(
    network: nn.Module,
    patients: Sequence[Sequence[GrowthSample]],
    preset: GrowthPreset,
    description: ModelDescription | None = None,
) -> dict[str, dict[str, list[float]]]:
    """Coefficients of the range of the volume for each kind of mask, from the samples of each patient.

    ``description``: that of the model, if its growth may follow the samples' probability.
    """
    samples = [sample for own in patients for sample in own]
    numbers = np.repeat(np.arange(len(patients)), [len(own) for own in patients])
    masks = np.array([kind for own in patients for kind in get_args(MaskKind)[: len(own)]])
    strengths = np.ones((len(samples), 1))
    if description is not None:
        strengths[:, 0] = [growth_strength(description, sample.probability) for sample in samples]
    outcomes = _outcomes(network, samples, preset, strengths)
    volumes = outcomes.baseline_ml, outcomes.predicted_ml[:, 0], outcomes.true_ml
    return fit_volume_range(*volumes, numbers, masks)


def _growth_by_probability(
    network: nn.Module, samples: Sequence[GrowthSample], preset: GrowthPreset
) -> dict[str, float]:
    ladder = np.broadcast_to(np.exp(LADDER), (len(samples), len(LADDER)))
    outcomes = _outcomes(network, samples, preset, ladder)
    return fit_strength(np.array([sample.probability for sample in samples]), outcomes.overlap, outcomes.extent)


def fit_strength(probability: Array, overlap: Array, extent: Array) -> dict[str, float]:
    """Coefficients for ``forecast.strength.growth_strength`` that maximize the Dice of the growth area over all
    samples.

    This Dice counts falsely predicted growth as much as missed growth. ``probability`` is that of each sample;
    ``overlap`` and ``extent`` are numerator and denominator of the Dice, (sample, strength), for the strengths of
    ``LADDER``.
    """
    odds = log_odds(probability)
    samples, step = np.arange(len(probability)), LADDER[1] - LADDER[0]

    def growth_dice(constant: float, slope: float, largest: float) -> float:
        place = (np.clip(constant + slope * odds, LADDER[0], largest) - LADDER[0]) / step
        below = np.minimum(place.astype(int), len(LADDER) - 2)
        weight = place - below
        top, bottom = (
            ((1 - weight) * values[samples, below] + weight * values[samples, below + 1]).sum()
            for values in (overlap, extent)
        )
        return float(top / bottom)

    candidates = product(_CONSTANTS, _SLOPES, LADDER[LADDER >= -1e-9])
    constant, slope, largest = max(candidates, key=lambda candidate: growth_dice(*candidate))
    return {
        "constant": round(float(constant), 4),
        "slope": round(float(slope), 4),
        "smallest": round(float(np.exp(LADDER[0])), 4),
        "largest": round(float(np.exp(largest)), 4),
    }


def _outcomes(
    network: nn.Module, samples: Sequence[GrowthSample], preset: GrowthPreset, strengths: Array
) -> _Outcomes:
    """Predictions for the samples on the model grid with these strengths, (sample, strength)."""
    from tqdm import tqdm

    arrays, transform = [sample.arrays for sample in samples], patch_transform(preset, vary=False)
    patches = Patches(arrays, transform, preset.fit.seed, preset.patches_per_case)
    voxel_ml = float(np.prod(preset.spacing_mm)) / 1000
    device = next(network.parameters()).device
    baseline, true, by_strength = [], [], []
    with torch.inference_mode():
        for own, k in zip(strengths, tqdm(range(len(patches)), desc="Calibrating", disable=None), strict=True):
            patch = {name: tensor[None].to(device) for name, tensor in patches[k].items()}
            mask, followup = patch["mask"], patch["followup_mask"]
            field = network.eval()(torch.cat([patch["ct"], mask], dim=1))
            growth, row = (followup - mask).relu(), []
            for strength in own:
                displacement = confined_displacement(
                    float(strength) * field, patch["confinement"], preset.integration_steps
                )
                moved = warp(mask, displacement)
                predicted = (moved - mask).relu()
                overlap, extent = 2 * (predicted * growth).sum(), predicted.square().sum() + growth.square().sum()
                row.append([float(moved.sum()) * voxel_ml, float(overlap), float(extent)])
            baseline.append(float(mask.sum()) * voxel_ml)
            true.append(float(followup.sum()) * voxel_ml)
            by_strength.append(row)
    return _Outcomes(np.array(baseline), np.array(true), *np.moveaxis(np.array(by_strength), 2, 0))
