"""Slices and boxes from which a network that looks in boxes learns (MedSAM; Ma 2024, Methods)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from monai.transforms import Compose, Randomizable
from scipy import ndimage
from torch import Tensor, nn

from ...anatomy.prompted import MARGIN, picture_of
from ...errors import InputError
from ...models.description import ModelDescription
from ...models.networks.promptable import MedSAM
from ...scan.grid import Array
from ...scan.subject import Subject
from ..data.cohort import read_case
from ..fitting import Batch, FitOptions, PatchPairs
from .training import SampleParts, loss_terms

FIT_IN_BOXES = FitOptions(epochs=20, batch_size=2, learning_rate=2e-3, patience=20, seed=0, annealed=True)

_SLICES_PER_SCAN = 8
_SMALLEST = 1e-4
"""What covers less of the picture is not learned from; in MedSAM's, that is 100 pixels."""


def prepare_slices(seen_by: ModelDescription, folder: Path) -> list[dict[str, Array]]:
    """The slices of a case's two scans that show enough hematoma, at most ``_SLICES_PER_SCAN`` of each, evenly.

    Each has ``ct`` (the picture as the network sees it) and ``mask``, both (1, y, x) of the picture's size.
    """
    case = read_case(folder)
    return [sample for subject in (case.baseline, case.followup) for sample in _slices_of(subject, seen_by)]


def _slices_of(subject: Subject, seen_by: ModelDescription) -> list[dict[str, Array]]:
    hu, size = sitk.GetArrayViewFromImage(subject.ct), seen_by.patch_size[0]
    scale = size / np.array(hu.shape[1:])
    masks = {
        k: ndimage.zoom(one.astype(np.uint8), scale, order=0, mode="nearest", grid_mode=True)
        for k, one in enumerate(subject.hematoma.voxels)
        if one.any()
    }
    shown = [k for k, mask in masks.items() if np.count_nonzero(mask) >= _SMALLEST * size**2]
    count = min(len(shown), _SLICES_PER_SCAN)
    chosen = [shown[i] for i in np.linspace(0, len(shown) - 1, count).round().astype(int)]
    return [
        {"ct": picture_of(hu[k], seen_by.window_hu, size)[None].astype(np.float16), "mask": masks[k][None]}
        for k in chosen
    ]


class PutBox(Randomizable):
    """Puts a box around the mask of a slice, as far from it as MedSAM is used to; with ``vary``, at random."""

    def __init__(self, *, vary: bool) -> None:
        self._vary = vary

    def __call__(self, sample: dict[str, Array]) -> dict[str, Tensor]:
        """The slice with its ``box``: ``ct`` and ``mask`` (1, y, x), ``box`` (4,) as the network takes it."""
        mask = sample["mask"][0]
        size, reach = len(mask), 2 * MARGIN * len(mask)
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        left, top, right, bottom = self.R.uniform(0, reach, 4) if self._vary else np.full(4, reach / 2)
        box = [columns[0] - left, rows[0] - top, columns[-1] + right, rows[-1] + bottom]
        return {
            **{name: torch.from_numpy(array.astype(np.float32)) for name, array in sample.items()},
            "box": torch.tensor(np.clip(box, 0, size - 1), dtype=torch.float32),
        }


def box_pairs(samples: SampleParts, seed: int) -> PatchPairs:
    """The slices, each with a box, of training and validation samples.

    Raises:
        InputError: there is nothing to put a box around in one of both.
    """
    if not all(samples):
        raise InputError(
            "Too few cases have a hematoma to put a box around: at least one is needed to learn from, and one to "
            "validate on."
        )
    return PatchPairs.of(samples, _transform, seed, 1)


def _transform(*, vary: bool) -> Compose:
    return Compose([PutBox(vary=vary)])


def in_box_loss(network: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The loss of the 3D network, for slices with a box each."""
    assert isinstance(network, MedSAM)
    embeddings = network.embedded(batch["ct"])
    # Positions in the box need more digits than half precision has.
    with torch.autocast(embeddings.device.type, enabled=False):
        return loss_terms(network.outlined(embeddings.float(), batch["box"]), batch["mask"])
