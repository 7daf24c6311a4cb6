"""Training of networks that predict the probability of expansion from the scan itself.

``PRESETS``: ``two-output`` is the 3D network of Zhong 2021, which also finds the mask; ``slices`` is the 2D
classifier of JPM 12:779, sections 2.5 and 3.3, whose probabilities for a patient's slices are averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.losses import DiceLoss
from monai.transforms import Affine, Compose, EnsureTyped, Randomizable
from monai.transforms.utils import create_rotate, create_scale
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from ...anatomy.brain import extract_brain
from ...anatomy.mask_source import MaskSource
from ...errors import InputError
from ...forecast.probability import network_probability
from ...forecast.probability_inputs import RiskView, risk_inputs, view_grid
from ...models.description import SHARE_EXPANDED, package_name
from ...models.networks.risk import expansion_logits
from ...models.package import TRAINING_FOLDER, ModelPackage, write_package
from ...scan.grid import Array
from ...scan.resampling import average_onto
from ...scan.subject import Subject
from ..data.cohort import has_expanded, read_baseline, split_by_case
from ..data.each_case import prepare_all
from ..fitting import Batch, FitOptions, PatchPairs, fit, initial_network
from ..runs import begin_run, made_from
from ..segmentation.slices import vary_slices
from ..steps import training_steps
from .logistic import Learner, RiskSample, check_kinds

MASK_WEIGHT, EXPANSION_WEIGHT = 0.9, 0.1
"""Weights of the two terms of the two-output network's loss, 9 : 1."""

CLASSIFIERS = {
    "resnet34": (64, 128, 256, 512),
    "resnet18": (64, 128, 256, 512),
    "vgg16": (64, 128, 256, 512, 512),
}
"""The slice classifiers that JPM 12:779 compared, best first, with the channels of their levels."""

_SCALE, _SHIFT, _TURN = 0.1, 0.1, np.deg2rad(5.0)


@dataclass(frozen=True)
class RiskNetworkPreset:
    """What a network looks like, what it sees, and how it is trained.

    ``draws_per_case``: how often each patient or slice is drawn per epoch, with new variation each time.
    """

    view: RiskView
    arguments: dict[str, Any]
    draws_per_case: int
    fit: FitOptions

    @property
    def finds_masks(self) -> bool:
        """Whether the mask is a second output of the network."""
        return self.view.architecture == "two-output-unet"


PRESETS = {
    # The paper's 256 × 256 × 32 voxels in "112 × 112 × 160 mm" would cut off half the brain; doubled in plane.
    "two-output": RiskNetworkPreset(
        view=RiskView("two-output-unet", (0.875, 0.875, 5.0), (256, 256, 32), (0.0, 100.0)),
        arguments={"channels": [16, 32, 64, 128]},
        draws_per_case=10,
        fit=FitOptions(epochs=40, batch_size=1, learning_rate=1e-4, patience=40, seed=0, milestones=(20, 30)),
    ),
    # The paper's 10,000 steps of 64 slices amount to 400 epochs of its 1,588 training slices.
    "slices": RiskNetworkPreset(
        view=RiskView("slice-classifier", (0.5, 0.5, 5.0), (512, 512, 1), (-1000.0, 400.0)),
        arguments={"network": "resnet34", "channels": list(CLASSIFIERS["resnet34"])},
        draws_per_case=1,
        fit=FitOptions(epochs=400, batch_size=64, learning_rate=1e-5, patience=400, seed=0, weight_decay=1e-3),
    ),
}


def risk_preset(
    name: str, network: str | None, channels: tuple[int, ...], size: tuple[int, ...]
) -> RiskNetworkPreset:
    """A preset with another network, other channels or another size (x, y and, in 3D, z), where given.

    Another size changes the voxel spacing, so that the network sees as much of the head as before.

    Raises:
        InputError: a given value does not fit the preset.
    """
    preset = PRESETS[name]
    arguments = dict(preset.arguments)
    if network is not None:
        if preset.finds_masks:
            raise InputError("The two-output network comes in one kind: leave out --network.")
        if network not in CLASSIFIERS:
            raise InputError(f"The classifiers of slices are {', '.join(CLASSIFIERS)}: there is no {network!r}.")
        arguments = {"network": network, "channels": list(CLASSIFIERS[network])}
    if channels:
        levels = len(arguments["channels"])
        if len(channels) != levels or min(channels) < 1:
            raise InputError(f"This network has {levels} levels: give {levels} channels, each at least 1.")
        arguments["channels"] = list(channels)
    if not size:
        return replace(preset, arguments=arguments)
    if len(size) != (3 if preset.finds_masks else 2):
        raise InputError(
            "The size is that of a volume with --preset two-output (96,96,16), of a slice with slices (96,96)."
        )
    if preset.finds_masks and any(sides % 4 for sides in size):
        raise InputError("The size for the two-output network must be multiples of 4, such as 96,96,16.")
    if not all(8 <= sides <= 512 for sides in size):
        raise InputError("The size must be from 8 to 512 voxels along each axis.")
    view = preset.view
    x, y, z = (*size, 1)[:3]
    spacing = [mm * old / new for mm, old, new in zip(view.spacing_mm, view.size, (x, y, z), strict=True)]
    resized = replace(view, size=(x, y, z), spacing_mm=(spacing[0], spacing[1], spacing[2]))
    return replace(preset, view=resized, arguments=arguments)


@dataclass(frozen=True)
class RiskImages:
    """What a network sees of one patient and should predict.

    ``inputs``: (part, 1, …) in half precision, as ``risk_inputs`` returns them; ``masks``: same shape, 0 or 1, if
    the network should find them.
    """

    inputs: Array
    masks: Array | None
    expanded: bool


Images = dict[Path, RiskImages]
"""By case folder."""


def prepare_images(preset: RiskNetworkPreset, source: MaskSource, cases: Sequence[Path]) -> Images:
    """What the network sees of each case; cases in which no hematoma is found are left out."""
    prepare = partial(_images_of, preset, source)
    prepared = zip(cases, prepare_all(prepare, cases, "Preparing cases", source.device), strict=True)
    return {case: images for case, images in prepared if images is not None}


def _images_of(preset: RiskNetworkPreset, source: MaskSource, folder: Path) -> RiskImages | None:
    scan, hematoma = read_baseline(folder, _source_for(preset, source))
    if hematoma.is_empty:
        return None
    subject = Subject(scan.image, extract_brain(scan.image).mask, hematoma)
    inputs = risk_inputs(subject, preset.view)
    targets = None
    if preset.finds_masks:
        shares = average_onto(hematoma.image, view_grid(subject.inside_skull, preset.view))
        targets = (shares >= 0.5)[None, None].astype(np.uint8)
    return RiskImages(inputs.astype(np.float16), targets, has_expanded(folder))


def _source_for(preset: RiskNetworkPreset, source: MaskSource) -> MaskSource:
    """A network that finds masks learns the true ones, whatever masks the scores are measured with."""
    return MaskSource("true", source.device) if preset.finds_masks else source


class RandAffineInMillimeters(Randomizable):
    """Random scaling and shift by up to a tenth and rotation by up to 5° about each axis (Zhong 2021, supplement).

    Rotation is in mm: in anisotropic voxels it would shear the patient. ``spacing_mm`` is (x, y, z).
    """

    def __init__(self, spacing_mm: tuple[float, float, float]) -> None:
        self._scaling = np.diag([*reversed(spacing_mm), 1.0])

    def __call__(self, patch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same patch with ``ct`` and ``mask``, (1, z, y, x), moved alike; zero outside the input."""
        turn, shift = self.R.uniform(-_TURN, _TURN, 3), self.R.uniform(-_SHIFT, _SHIFT, 3)
        scale = 1 + self.R.uniform(-_SCALE, _SCALE)
        in_mm = create_rotate(3, turn.tolist()) @ create_scale(3, [scale] * 3)
        matrix = np.linalg.inv(self._scaling) @ in_mm @ self._scaling
        matrix[:3, 3] = shift * np.array(patch["ct"].shape[1:])
        move = Affine(affine=matrix, padding_mode="zeros", image_only=True)
        ct, mask = move(torch.cat([patch["ct"], patch["mask"]]))
        return {**patch, "ct": ct[None], "mask": mask[None]}


def risk_transform(preset: RiskNetworkPreset, *, vary: bool) -> Compose:
    """From a patient, or one slice, to the network's input; all randomness of training is in here."""
    keys = ("ct", "mask", "expanded") if preset.finds_masks else ("ct", "expanded")
    variations = [RandAffineInMillimeters(preset.view.spacing_mm)] if preset.finds_masks else vary_slices(["ct"])
    return Compose([EnsureTyped(keys, dtype=torch.float32, track_meta=False), *(variations if vary else [])])


def two_output_loss(network: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """``dice`` of the mask and ``cross_entropy`` of expansion, 9 : 1."""
    mask, expansion = network(batch["ct"])
    with torch.autocast(mask.device.type, enabled=False):
        return {
            "dice": MASK_WEIGHT * DiceLoss(sigmoid=True)(mask.float(), batch["mask"]),
            "cross_entropy": EXPANSION_WEIGHT
            * binary_cross_entropy_with_logits(expansion.float(), batch["expanded"]),
        }


def slice_loss(network: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """``cross_entropy`` of expansion, treating each slice as a patient."""
    logits = expansion_logits(network, batch["ct"])
    with torch.autocast(logits.device.type, enabled=False):
        return {"cross_entropy": binary_cross_entropy_with_logits(logits.float(), batch["expanded"][:, 0])}


def train_risk_network(
    cases: Sequence[Path],
    output: Path,
    preset: RiskNetworkPreset,
    source: MaskSource,
    prepared: Images | None = None,
) -> ModelPackage:
    """Train on the cases of a cohort and write the package; checkpoints and log go to ``output/training``.

    A fifth of the patients is held out to choose the weights. ``source``: the source of the masks that determine
    the slices. ``prepared``: what the network sees of these cases, and maybe of others, if already at hand.

    Raises:
        InputError: there are fewer than two patients of a kind, the folder's name is no valid model name, or it
            holds a model or checkpoints made differently (``runs.py``).
    """
    name, seed = package_name(output), preset.fit.seed
    options, models = {"preset": asdict(preset), "masks": source.kind}, {"segmenter": source.segmenter}
    sources = made_from("risk network", options, learned=cases, models=models)
    if (made := begin_run(output, sources)) is not None:
        return made
    if prepared is None:
        prepared = prepare_images(preset, source, cases)
    images = {case: prepared[case] for case in cases if case in prepared}
    cases = list(images)
    check_kinds([images[case].expanded for case in cases])
    splits = (split_by_case(cases, 0.2, other_seed) for other_seed in count(seed))
    # Chance may hold out all patients of the rarer kind: then try the next split.
    training, validation = next(
        split for split in splits if len({images[case].expanded for case in split[0]}) == 2
    )
    share = float(np.mean([images[case].expanded for case in training]))
    initial = initial_network(preset.view.architecture, preset.arguments, (), seed)
    loss: Callable[[nn.Module, Batch], dict[str, Tensor]] = two_output_loss if preset.finds_masks else slice_loss
    learned, unseen = ([part for case in some for part in _parts(images[case])] for some in (training, validation))
    transform, draws = partial(risk_transform, preset), preset.draws_per_case
    patches = PatchPairs.of((learned, unseen), transform, seed, draws, unseen_per_sample=1)
    results = fit(initial.network, loss, patches, preset.fit, output / TRAINING_FOLDER)
    counts, details = (len(training), len(validation)), [f"from {source.kind} masks"]
    trained_on = training_steps(cases, *counts, seed, details=details)
    results[SHARE_EXPANDED] = round(share, 4)
    description = initial.described(name, "risk", preset.view.grid, trained_on, results)
    return write_package(output, description, initial.network, sources)


def _parts(images: RiskImages) -> list[dict[str, Array]]:
    expanded = np.array([images.expanded], np.float32)
    parts = [{"ct": part, "expanded": expanded} for part in images.inputs]
    if images.masks is None:
        return parts
    return [{**part, "mask": mask} for part, mask in zip(parts, images.masks, strict=True)]


def network_learner(images: Images, folds: Path, preset: RiskNetworkPreset, source: MaskSource) -> Learner:
    """For cross-validation: trains a separate network in each fold and writes its package to ``folds/<fold>``.

    An existing package made from the same sources is not trained again.
    """
    by_name, seen = {case.name: case for case in images}, _source_for(preset, source)

    def learn(fold: int, learned: Sequence[RiskSample], unseen: Sequence[RiskSample]) -> Array:
        known = [by_name[sample.case] for sample in learned]
        package = train_risk_network(known, folds / str(fold), preset, seen, images)
        network = package.load()
        return np.array(
            [network_probability(network, images[by_name[sample.case]].inputs, source.device) for sample in unseen]
        )

    return learn
