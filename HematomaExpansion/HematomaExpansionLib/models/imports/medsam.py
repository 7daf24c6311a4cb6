"""Imports MedSAM (Ma 2024), or another network of its architecture: Segment Anything with the encoder ViT-B."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import InputError, ModelPackageError
from ...files.provenance import content_sha256
from ..description import LABELS, LEARNED_ELSEWHERE, MEDSAM, ModelGrid, TrainingStep, package_name
from ..networks.described import DescribedNetwork
from ..networks.promptable import MedSAM
from ..package import ModelPackage, write_package
from .checkpoints import fill, license_of, read_checkpoint

OUTPUTS = ("background", "hemorrhage")
"""What it tells apart: whatever is in the box is only known to be blood because the box was drawn around it."""

VIT_B: dict[str, Any] = {
    "image_size": 1024, "patch": 16, "width": 768, "depth": 12, "heads": 12, "global_blocks": [2, 5, 8, 11],
    "window": 14, "prompt_width": 256, "decoder_width": 2048,
}  # fmt: skip
"""The sizes of its parts (Kirillov 2023)."""

TRAINED_ON = "1.57 million pairs of image and mask from ten imaging modalities (Ma 2024)"
"""What its published weights were trained on."""

GRID = ModelGrid((0.25, 0.25, 5.0), (1024, 1024, 1), (0.0, 80.0))
"""MedSAM's window for the brain (Ma 2024, Methods). A slice of any size fills the picture, which is why the
spacing, that of a slice of 256 mm, only tells how finely it sees."""

_LITE = "image_encoder.layers."
_PARALLEL = "module."


def import_medsam(file: Path, output: Path, trained_on: str | None = None) -> ModelPackage:
    """A package of a checkpoint of MedSAM, as published or as its training program writes it.

    Args:
        file: the checkpoint.
        output: folder of the package, which gives its name.
        trained_on: what it was trained on, if not as published.

    Raises:
        ModelPackageError: the file is refused or damaged, or holds another network, such as LiteMedSAM.
        MissingLibraryError: the library segment-anything is not installed.
        InputError: there is no such file, or the folder holds something else or cannot be written.
    """
    name = package_name(output)
    if not file.is_file():
        raise InputError("There are no weights to import: name MedSAM's checkpoint, such as medsam_vit_b.pth.")
    arguments = {LABELS: list(OUTPUTS), **VIT_B}
    network = MedSAM(**arguments)
    weights = _plain(read_checkpoint(file))
    if isinstance(weights, Mapping) and any(str(key).startswith(_LITE) for key in weights):
        raise ModelPackageError(
            "These are weights of LiteMedSAM, whose image encoder (TinyViT) this software does not have: choose "
            "a checkpoint of MedSAM with the encoder ViT-B."
        )
    fill(network, weights, "MedSAM (with the encoder ViT-B)")
    step = TrainingStep(LEARNED_ELSEWHERE, None, trained_on or TRAINED_ON)
    description = DescribedNetwork(network, MEDSAM, arguments).described(name, "segmentation", GRID, (step,), {})
    made_from = {"imported": MEDSAM, "files": [content_sha256(file)]}
    license_text = license_of("segment-anything")
    return write_package(output, description, network, made_from, exact=True, license_text=license_text)


def _plain(checkpoint: Any) -> Any:
    """The weights themselves: a checkpoint made in training holds more, and one made on several GPUs prefixes
    their names.
    """
    if not isinstance(checkpoint, Mapping):
        return checkpoint
    weights = checkpoint.get("model", checkpoint)
    if not isinstance(weights, Mapping):
        return weights
    return {str(key).removeprefix(_PARALLEL): value for key, value in weights.items()}
