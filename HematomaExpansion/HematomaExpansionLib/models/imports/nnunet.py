"""Imports what nnU-Net (version 2) trained: the folder of a model, with plans, data set and one or more folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ModelPackageError
from ...files.provenance import content_sha256
from ..description import LABELS, LEARNED_ELSEWHERE, NNUNET, ModelGrid, TrainingStep, package_name
from ..networks.described import ensemble_of
from ..networks.elsewhere import NNUNet
from ..package import ModelPackage, write_package
from .checkpoints import fill, json_in, read_checkpoint
from .labels import names_of_outputs

_CHECKPOINT = "checkpoint_final.pth"
_OF_PLANS = (
    "dataset_name",
    "plans_name",
    "image_reader_writer",
    "transpose_forward",
    "transpose_backward",
    "experiment_planner_used",
    "label_manager",
    "foreground_intensity_properties_per_channel",
)
"""What nnU-Net needs of its plans beside the configuration."""

_SCALAR = np.float64(0).__reduce__()[0]
# What nnU-Net puts into a checkpoint beside the weights: numbers of numpy, under their old name and their new.
_ALLOWED = [
    np.dtype,
    *{type(np.dtype(kind)) for kind in (np.float16, np.float32, np.float64, np.int32, np.int64)},
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
]


def import_nnunet(
    folder: Path, output: Path, kinds: Mapping[str, str], trained_on: str | None = None
) -> ModelPackage:
    """A package of a trained nnU-Net; the logits of several folds are averaged, as nnU-Net does.

    Args:
        folder: the model's folder, with ``plans.json``, ``dataset.json`` and ``fold_*/checkpoint_final.pth``.
        output: folder of the package, which gives its name.
        kinds: which of nnU-Net's labels is which kind of blood (``description.CLASS_NAMES``); all others are
            background.
        trained_on: what it was trained on, in a few words.

    Raises:
        ModelPackageError: a file is missing, refused or damaged, or the network is none that works here.
        MissingLibraryError: the library nnunetv2 is not installed.
        InputError: a label does not exist, or the folder holds something else, or cannot be written.
    """
    name = package_name(output)
    plans, dataset = _json_of(folder, "plans.json"), _json_of(folder, "dataset.json")
    checkpoints = _folds_of(folder)
    read = [read_checkpoint(file, _ALLOWED) for file in checkpoints]
    configuration, mirroring = _how_trained(read)
    labels = _names_of_outputs(dataset, kinds)
    arguments: dict[str, Any] = {
        "plans": _trimmed(plans, configuration),
        "dataset": {key: dataset[key] for key in ("channel_names", "labels", "file_ending")},
        LABELS: labels,
        "mirroring": mirroring,
    }
    networks = []
    for checkpoint in read:
        network = NNUNet(**arguments)
        fill(network.unet, checkpoint["network_weights"], "the network in nnU-Net's plans")
        networks.append(network)
    made = ensemble_of(networks, NNUNET, arguments)
    source = trained_on or f"cases unknown here (nnU-Net, data set {str(dataset.get('name', 'unnamed'))[:40]})"
    steps = (TrainingStep(LEARNED_ELSEWHERE, dataset.get("numTraining"), source),)
    description = made.described(name, "segmentation", _grid_of(arguments["plans"]), steps, {})
    made_from = {
        "imported": NNUNET,
        "files": [content_sha256(file) for file in checkpoints],
        "labels": dict(kinds),
    }
    return write_package(output, description, made.network, made_from, exact=True)


def _json_of(folder: Path, name: str) -> dict[str, Any]:
    return json_in(
        folder / name, "name the folder that nnU-Net trained into, with plans.json, dataset.json and fold_0"
    )


def _folds_of(folder: Path) -> list[Path]:
    folds = sorted(path for path in folder.glob("fold_*") if path.is_dir())
    missing = [fold.name for fold in folds if not (fold / _CHECKPOINT).is_file()]
    if missing or not folds:
        what = f"{missing[0]} has no {_CHECKPOINT}" if missing else "The folder has no trained fold (fold_0)"
        raise ModelPackageError(
            f"{what}: its training has not ended, or it was not copied. Add it, or remove the folder of that fold."
        )
    return [fold / _CHECKPOINT for fold in folds]


def _how_trained(checkpoints: Sequence[Any]) -> tuple[str, list[int] | None]:
    """The configuration that the folds were trained in, and the axes along which they may be mirrored."""
    try:
        found = {
            (checkpoint["init_args"]["configuration"], tuple(checkpoint["inference_allowed_mirroring_axes"] or ()))
            for checkpoint in checkpoints
        }
    except (LookupError, TypeError) as error:
        raise ModelPackageError("A checkpoint is none that nnU-Net (version 2) wrote: choose another.") from error
    if len(found) > 1:
        raise ModelPackageError("The folds were trained in different ways: import those of one configuration.")
    configuration, axes = found.pop()
    return str(configuration), list(axes) or None


def _trimmed(plans: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    """The plans with that one configuration alone, with what it inherits.

    Raises:
        ModelPackageError: it is none that works here.
    """
    try:
        chain = [dict(plans["configurations"][configuration])]
        while (parent := chain[-1].get("inherits_from")) is not None and len(chain) < 8:
            chain.append(dict(plans["configurations"][parent]))
        own: dict[str, Any] = {}
        for part in reversed(chain):
            own.update(part)
        own.pop("inherits_from", None)
        own.pop("next_stage", None)
        schemes, dimensions = own["normalization_schemes"], len(own["patch_size"])
        trimmed = {key: plans[key] for key in _OF_PLANS if key in plans}
        intensities = plans["foreground_intensity_properties_per_channel"]["0"]
    except (LookupError, TypeError, ValueError) as error:
        raise ModelPackageError("The plans are none that nnU-Net (version 2) wrote: copy them again.") from error
    if dimensions != 3 or own.get("previous_stage") is not None:
        raise ModelPackageError(
            f"The configuration {configuration} works on slices or needs another network before it, which this "
            "software does not run: import 3d_fullres or 3d_lowres."
        )
    if list(schemes) != ["CTNormalization"]:
        raise ModelPackageError("The network was not trained on CT alone: choose one whose only channel is a CT.")
    trimmed["foreground_intensity_properties_per_channel"] = {"0": intensities}
    return {**trimmed, "configurations": {configuration: own}}


def _names_of_outputs(dataset: Mapping[str, Any], kinds: Mapping[str, str]) -> list[str]:
    """The name of each output, in the order of nnU-Net's labels."""
    own = dataset.get("labels", {})
    if not isinstance(own, dict) or not all(isinstance(value, int) for value in own.values()):
        raise ModelPackageError(
            "The network tells regions that overlap, not labels, which this software does not run: choose another."
        )
    return names_of_outputs(sorted((label for label in own if label != "ignore"), key=own.__getitem__), kinds)


def _grid_of(plans: Mapping[str, Any]) -> ModelGrid:
    """The grid of its configuration, and the window to which nnU-Net clips HU."""
    configuration = next(iter(plans["configurations"].values()))
    place = np.argsort(plans["transpose_forward"])  # from nnU-Net's axes to z, y, x
    spacing = np.array(configuration["spacing"], float)[place][::-1]
    patch = np.array(configuration["patch_size"], int)[place][::-1]
    intensities = plans["foreground_intensity_properties_per_channel"]["0"]
    return ModelGrid(
        (float(spacing[0]), float(spacing[1]), float(spacing[2])),
        (int(patch[0]), int(patch[1]), int(patch[2])),
        (float(intensities["percentile_00_5"]), float(intensities["percentile_99_5"])),
    )
