"""Adaptation of a segmentation package to another site: low-rank adapters on the convolutions, and batch-norm
statistics from the site's own scans.

ConvLoRA and AdaBN (Guo 2024, section III.C; Aleem 2024; AdaBN: Li 2016). First the means and variances of every
batch normalization are re-estimated from the site's scans, which needs no masks. From then on they stay fixed, in
training and in use. With all other weights frozen, each convolution kernel W learns to become W + B·A / rank. The
statistics do not come from the training patches: half of those are centered in a hematoma, and the adapters must
be trained on what `segment` will compute. At the end B·A is merged into the kernels, so the adapted package holds
a network of the same architecture as before.

A model that looks in boxes (MedSAM) has no batch normalization: there the adapters lie on the attention of its
image encoder, and learn from slices (``prompted.py``).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from monai.data import DataLoader
from monai.transforms import Compose, EnsureTyped, RandWeightedCropd, SpatialPadd
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize
from torch.optim.swa_utils import update_bn
from tqdm import tqdm

from ...anatomy.brain import extract_brain
from ...anatomy.segmentation import brain_region, segmentation_channels
from ...device import choose_device
from ...errors import InputError, ModelPackageError
from ...models.description import PRESENCE, VOLUME_CORRECTION, ModelDescription, TrainingStep, package_name
from ...models.networks.promptable import MedSAM, attention_layers
from ...models.package import TRAINING_FOLDER, ModelPackage, write_package
from ...scan.grid import Array
from ...scan.head_ct import read_head_ct
from ..data.case_description import kind_of_cases, read_description
from ..data.cohort import split_by_case
from ..data.each_case import prepare_all, prepare_parts
from ..fitting import FitOptions, Patches, PatchPairs, fit
from ..runs import begin_run, made_before, made_from
from ..steps import steps_before, training_steps
from .prompted import FIT_IN_BOXES, box_pairs, in_box_loss, prepare_slices
from .training import (
    PATCH,
    patch_pairs,
    prepare_segmentation_samples,
    segmentation_loss,
)

RANK, RANK_IN_BOXES = 2, 4
"""The first trains 2.7 % of the shipped network's weights, the second 0.16 % of MedSAM's."""

FIT = FitOptions(epochs=20, batch_size=8, learning_rate=4e-3, patience=20, seed=0, annealed=True)

_PATCHES_FOR_STATISTICS = 4


class LowRankUpdate(nn.Module):
    """Turns a kernel W, (outputs, inputs, …) with the axes of a convolution, if it is one, into W + B·A / rank; W
    itself is not learned.

    A, (rank, inputs × …), computes ``rank`` channels as W computes its outputs; B, (outputs, rank), mixes them.
    B starts at zero, so that nothing changes at first (Hu 2022).
    """

    def __init__(self, kernel: Tensor, rank: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(rank, kernel[0].numel()))
        self.b = nn.Parameter(torch.zeros(len(kernel), rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, kernel: Tensor) -> Tensor:
        """The kernel with its update."""
        return kernel + (self.b @ self.a).view(kernel.shape) / len(self.a)


def add_adapters(network: nn.Module, rank: int) -> None:
    """Freeze the network and put an adapter of this rank on each of its convolutions; in MedSAM, on each layer of
    the image encoder that makes queries, keys and values.

    Raises:
        ModelPackageError: the network has no convolutions.
    """
    layers = _adapted_layers(network)
    if not layers:
        raise ModelPackageError("The model has no convolutions to adapt: choose a segmentation model that has.")
    network.requires_grad_(False)
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", LowRankUpdate(layer.weight, rank))


def trained_share(network: nn.Module) -> float:
    """Number of weights the adapters learn, as a share of the network's own, frozen weights."""
    trained, frozen = (
        sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad is learned)
        for learned in (True, False)
    )
    return trained / frozen


def merge_adapters(network: nn.Module) -> None:
    """Merge the updates into the kernels and remove the adapters."""
    for layer in _adapted_layers(network):
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def _adapted_layers(network: nn.Module) -> list[nn.Conv3d] | list[nn.Linear]:
    if isinstance(network, MedSAM):
        return attention_layers(network)
    # Without the up-convolutions: they have few weights, and their kernels order the axes differently.
    return [module for module in network.modules() if isinstance(module, nn.Conv3d)]


def reestimate_statistics(
    network: nn.Module,
    scans: Sequence[dict[str, Array]],
    seed: int,
    patch: tuple[int, int, int] = PATCH,
) -> None:
    """AdaBN: re-estimate means and variances of each batch normalization on patches from anywhere in the brain.

    ``scans`` hold ``ct``, (1, z, y, x), as ``anatomy.segmentation.segmentation_channels`` returns it. Leaves the
    network in evaluation mode, on the CPU.

    Raises:
        ModelPackageError: the network has no batch normalization.
    """
    _check_statistics(network)
    device = choose_device("auto")
    inside_brain = Compose(
        [
            EnsureTyped("ct", dtype=torch.float32, track_meta=False),
            SpatialPadd("ct", patch[::-1]),
            RandWeightedCropd("ct", "ct", patch[::-1]),
        ]
    )
    patches = Patches([{"ct": scan["ct"]} for scan in scans], inside_brain, seed, _PATCHES_FOR_STATISTICS)
    order = np.random.default_rng(seed).permutation(len(patches)).tolist()
    loader = DataLoader(patches, batch_size=FIT.batch_size, sampler=order)
    batches = tqdm(loader, desc="Re-estimating statistics", disable=None)
    update_bn((batch["ct"] for batch in batches), network.to(device), device)
    network.cpu().eval()


def _has_statistics(network: nn.Module) -> bool:
    return any(isinstance(module, _BatchNorm) for module in network.modules())


def _check_statistics(network: nn.Module) -> None:
    if not _has_statistics(network):
        raise ModelPackageError(
            "The model has no batch normalization whose statistics could be estimated again: choose a "
            "segmentation model that has it."
        )


def prepare_scans(seen_by: ModelDescription, folder: Path) -> list[dict[str, Array]]:
    """The scans of a case as a network sees them, without masks: baseline, and follow-up if there is one."""
    read_description(folder)  # fails now if damaged: the package's description needs it later
    paths = (folder / "baseline.nii.gz", folder / "followup.nii.gz")
    return [{"ct": _network_input(seen_by, read_head_ct(path).image)} for path in paths if path.is_file()]


def _network_input(seen_by: ModelDescription, ct: sitk.Image) -> Array:
    inside_skull = extract_brain(ct).mask
    grid = brain_region(inside_skull, seen_by.spacing_mm)
    whole_head = seen_by.sees_whole_head
    seen = segmentation_channels(ct, inside_skull, grid, seen_by.window_hu, whole_head=whole_head)
    return seen.astype(np.float16)


def adapt_statistics(cases: Sequence[Path], output: Path, source: ModelPackage, seed: int) -> ModelPackage:
    """AdaBN alone: write a package with the weights of ``source`` and new statistics; masks are not used.

    Raises:
        InputError: the folder's name is no valid model name, or it holds a model made differently (``runs.py``).
        ModelPackageError: the network has no batch normalization, or works on slices.
    """
    name = package_name(output)
    _check_dimensions(source.description)
    network = source.load()
    _check_statistics(network)
    sources = made_from("batch-norm statistics", {"seed": seed}, learned=cases, start=[source])
    if (made := made_before(output, sources)) is not None:
        return made
    prepare = partial(prepare_scans, source.description)
    scans = [scan for case in prepare_all(prepare, cases, "Preparing scans") for scan in case]
    reestimate_statistics(network, scans, seed, source.description.patch_size)
    details = f"seed {seed}, weights of {source.description.name}"
    step = TrainingStep("batch-norm statistics of", len(cases), kind_of_cases(cases), details)
    results = {"trained_share": 0.0, "scans": len(scans)}
    description = _described(source, name, (*steps_before([source]), step), results)
    return write_package(output, description, network, sources)


def adapt(
    cases: Sequence[Path], output: Path, source: ModelPackage, rank: int, options: FitOptions
) -> ModelPackage:
    """AdaBN, then ConvLoRA: adapt to the cases of a cohort and write the package; checkpoints and log go to
    ``output/training``. A network made elsewhere that has no batch normalization gets adapters alone, and one that
    looks in boxes learns from the slices with a hematoma.

    Raises:
        InputError: the rank is below 1, there are fewer than two cases, the folder's name is no valid model name,
            or it holds a model or checkpoints made differently (``runs.py``); or a model that looks in boxes finds
            no hematoma to put one around.
        ModelPackageError: the network has no 3D convolutions.
    """
    if rank < 1:
        raise InputError("The rank of the adapters must be at least 1.")
    name = package_name(output)
    _check_dimensions(source.description)
    network, in_boxes = source.load(), source.description.is_promptable
    torch.manual_seed(options.seed)
    add_adapters(network, rank)
    training, validation = split_by_case(cases, 0.2, options.seed)
    sources = made_from("adaptation", {"rank": rank, "fit": asdict(options)}, learned=cases, start=[source])
    if (made := begin_run(output, sources)) is not None:
        return made
    if in_boxes:
        samples = prepare_parts(partial(prepare_slices, source.description), training, validation)
        patches, loss, details = box_pairs(samples, options.seed), in_box_loss, f"LoRA of rank {rank} in attention"
    else:
        patches, details = _patches(network, source.description, training, validation, options)
        loss, details = segmentation_loss, f"ConvLoRA of rank {rank}{details}"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*in eval mode")  # intended: the statistics stay fixed
        results = fit(network, loss, patches, options, output / TRAINING_FOLDER)
    results["trained_share"] = round(trained_share(network), 4)
    merge_adapters(network)
    counts = len(training), len(validation)
    trained_on = training_steps(cases, *counts, options.seed, [source], what="adapted to", details=[details])
    return write_package(output, _described(source, name, trained_on, results), network, sources, exact=in_boxes)


def _patches(
    network: nn.Module,
    seen_by: ModelDescription,
    training: Sequence[Path],
    validation: Sequence[Path],
    options: FitOptions,
) -> tuple[PatchPairs, str]:
    """Patches of the cases' scans as a network sees them, whose statistics are estimated from them if it has any,
    and what was done, in words.
    """
    prepare = partial(prepare_segmentation_samples, model_grid=seen_by.grid, whole_head=seen_by.sees_whole_head)
    samples, patch = prepare_parts(prepare, training, validation), seen_by.patch_size
    has_statistics = _has_statistics(network)
    if has_statistics:
        reestimate_statistics(network, samples[0], options.seed, patch)
    return patch_pairs(samples, options, patch), ", AdaBN" if has_statistics else ""


def defaults_for(source: ModelPackage) -> tuple[int, FitOptions]:
    """The rank of the adapters, and how they are trained, unless the user says otherwise."""
    return (RANK_IN_BOXES, FIT_IN_BOXES) if source.description.is_promptable else (RANK, FIT)


def _check_dimensions(description: ModelDescription) -> None:
    if description.patch_size[2] == 1 and not description.is_promptable:
        raise ModelPackageError(
            f"Model {description.name!r} works on slices, which cannot be adapted: choose a 3D model."
        )


def _described(
    source: ModelPackage, name: str, trained_on: tuple[TrainingStep, ...], results: dict[str, float]
) -> ModelDescription:
    """The source's description for another network, without what was fitted to the outputs of its own."""
    fitted = {VOLUME_CORRECTION, PRESENCE}
    settings = {key: value for key, value in source.description.settings.items() if key not in fitted}
    return replace(
        source.description, name=name, version="1", trained_on=trained_on, results=results, settings=settings
    )
