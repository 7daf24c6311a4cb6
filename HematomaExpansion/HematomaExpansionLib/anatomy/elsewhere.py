"""How networks made elsewhere see a scan: each as it was trained, which differs from how ours do."""

from __future__ import annotations

import itertools
from contextlib import redirect_stdout
from copy import deepcopy
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from ..device import gpu_memory_errors
from ..models.description import CLASS_NAMES, ModelDescription, classes_of
from ..scan.grid import Array, Grid, box_slices, image_on
from ..scan.intensities import scale_window
from ..scan.mask import Mask
from ..scan.resampling import average_onto, resample

if TYPE_CHECKING:
    import torch
    from torch import nn

_MAX_TILE_VOXELS = 45
"""Smaller tiles compute more margin; larger ones need so much memory that handling it costs more."""


def blast_ct_probabilities(
    ct: sitk.Image, inside_skull: Mask, description: ModelDescription, network: nn.Module, device: torch.device
) -> dict[int, sitk.Image]:
    """Probability of each class, on voxels of 1 mm around the brain (Monteiro 2020); several are averaged.

    BLAST-CT computes the whole scan in patches of 30³ voxels, each from 110³. Larger patches on the inside of the
    skull alone give the same values in less time: the coarse paths sample every third and fifth voxel,
    so a patch may begin at any multiple of ``STEP``.

    Raises:
        DeviceError: the GPU runs out of memory.
    """
    import torch

    from ..models.networks.build import members_of
    from ..models.networks.elsewhere import BlastCT

    step, margin = BlastCT.STEP, BlastCT.MARGIN
    whole = _at_spacing(Grid.of(ct), description.spacing_mm)
    lowest = float(sitk.GetArrayViewFromImage(ct).min())
    hu = sitk.GetArrayFromImage(resample(sitk.Cast(ct, sitk.sitkFloat32), whole, outside=lowest))
    inside = average_onto(inside_skull.image, whole) > 0
    tiles = _tiles_over(inside, step)
    low = np.min([first for first, _ in tiles], axis=0)
    high = np.max([end for _, end in tiles], axis=0)
    # The outermost voxels are repeated where a tile sees beyond the scan.
    indices = [
        np.clip(np.arange(a - margin, b + margin), 0, n - 1) for a, b, n in zip(low, high, hu.shape, strict=True)
    ]
    scaled = scale_window(hu[np.ix_(*indices)], description.window_hu)
    classes = classes_of(description.labels)
    probability = np.zeros((len(classes), *(high - low)), np.float32)
    layout = torch.channels_last_3d  # a sixth faster on a CPU
    with gpu_memory_errors("to segment"), torch.inference_mode():
        moved = network.to(device).to(memory_format=layout)  # type: ignore[call-overload]
        networks: list[Any] = members_of(moved)
        for first, end in tiles:
            seen = tuple(slice(a, b + 2 * margin) for a, b in zip(first - low, end - low, strict=True))
            patch = torch.from_numpy(scaled[seen])[None, None].to(device, memory_format=layout)
            told = [torch.softmax(member.of_middle(patch).float(), dim=1) for member in networks]
            own = (slice(None), *(slice(a, b) for a, b in zip(first - low, end - low, strict=True)))
            probability[own] = torch.stack(told).mean(dim=0)[0].cpu().numpy()
    region = whole.cropped(low[::-1].tolist(), (high - low)[::-1].tolist())
    return {number: image_on(region, of_class) for number, of_class in zip(classes, probability, strict=True)}


def nnunet_probabilities(
    ct: sitk.Image, inside_skull: Mask, description: ModelDescription, network: nn.Module, device: torch.device
) -> dict[int, sitk.Image]:
    """Probability of each class on the scan's own grid, by nnU-Net's own predictor; folds are averaged as it does.

    Raises:
        DeviceError: the GPU runs out of memory.
    """
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    from ..models.networks.build import members_of

    folds: list[Any] = members_of(network)
    first, grid = folds[0], Grid.of(ct)
    hu = sitk.GetArrayFromImage(ct)[None].astype(np.float32)
    with gpu_memory_errors("to segment"), redirect_stdout(StringIO()):  # it prints, also where progress lines go
        predictor = nnUNetPredictor(
            device=device, perform_everything_on_device=device.type == "cuda", allow_tqdm=False
        )
        predictor.manual_initialization(
            first.unet,
            first.plans,
            first.configuration,
            [deepcopy(fold.unet.state_dict()) for fold in folds],
            first.dataset,
            "nnUNetTrainer",
            first.mirroring,
        )
        properties = {"spacing": list(grid.spacing[::-1])}
        _, of_outputs = predictor.predict_single_npy_array(hu, properties, None, None, True)
    numbers = np.array([CLASS_NAMES[name] for name in first.labels])
    return {
        number: image_on(grid, np.asarray(of_outputs)[numbers == number].sum(axis=0).astype(np.float32))
        for number in classes_of(first.labels)
    }


def _at_spacing(grid: Grid, spacing: tuple[float, float, float]) -> Grid:
    """The grid of that spacing that begins at the same voxel and ends nearest to the last, as BLAST-CT does."""
    extent = (np.array(grid.size) - 1) * np.array(grid.spacing)
    x, y, z = np.round(extent / np.array(spacing) + 1).astype(int).tolist()
    return Grid((x, y, z), spacing, grid.origin, grid.direction)


def _tiles_over(inside: Array, step: int) -> list[tuple[Array, Array]]:
    """First voxels and ends (z, y, x) of boxes that cover all true voxels; both are multiples of ``step``."""
    per_axis = []
    for axis in range(3):
        along = np.flatnonzero(inside.any(axis=tuple(other for other in range(3) if other != axis)))
        low, high = int(along[0]) // step, int(along[-1]) // step + 1
        count = -(-(high - low) // (_MAX_TILE_VOXELS // step))
        bounds = (low + np.round(np.linspace(0, high - low, count + 1)).astype(int)) * step
        per_axis.append(list(itertools.pairwise(bounds.tolist())))
    tiles = []
    for box in itertools.product(*per_axis):
        first, end = np.array([a for a, _ in box]), np.array([b for _, b in box])
        if inside[box_slices(first[::-1], (end - first)[::-1])].any():
            tiles.append((first, end))
    return tiles
