"""Segmentation of bleeds: by a 3D U-Net with squeeze-and-excitation blocks (after Abramova 2021), or by threshold
and connected components, which needs no weights and finds the hematoma alone.

Both take a CT in HU and the inside of the skull on one orthogonal grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from .. import __version__
from ..device import gpu_memory_errors
from ..models.description import BLAST_CT, NNUNET, PRESENCE, ModelDescription, classes_of
from ..models.package import ModelPackage, find_package
from ..progress import Share, unheard
from ..scan.box import Box
from ..scan.grid import Array, Grid, box_slices, image_on
from ..scan.intensities import AIR_HU, scale_window
from ..scan.mask import Mask
from ..scan.resampling import average_onto, resample, where_at_least
from ..scan.shapes import bounding_box
from .bleeds import DRAWN_BOX, NO_BOX, VENTRICLES, Bleeds, labels_on
from .elsewhere import blast_ct_probabilities, nnunet_probabilities
from .hematomas import MIN_ML_OF, keep_hematomas, keep_large, keep_told_hematomas, keep_touching
from .kinds import BLOOD, Kind
from .midline import find_midline
from .presence import presence_of
from .prompted import box_around, check_prompt, mask_in_box

if TYPE_CHECKING:
    import torch
    from torch import nn

# How a result names the source of a mask that no model package made.
USER_MASK: dict[str, str | None] = {"name": "user mask", "version": None, "sha256": None, "trained_on": None}

THRESHOLD: dict[str, str | None] = {
    "name": "threshold",
    "version": __version__,
    "sha256": None,
    "trained_on": None,
}


def identity_of_segmenter(package: ModelPackage | None) -> dict[str, str | None]:
    """What a result says about the method that ``segment`` uses."""
    return THRESHOLD if package is None else dict(package.identity)


def segment(ct: sitk.Image, inside_skull: Mask, package: ModelPackage | None, device: torch.device) -> Mask:
    """Mask of the intraparenchymal hematoma alone (see ``find_bleeds``); empty if there is none."""
    return find_bleeds(ct, inside_skull, package, device).hematoma


def find_bleeds(
    ct: sitk.Image,
    inside_skull: Mask,
    package: ModelPackage | None,
    device: torch.device,
    box: Box | None = None,
    progress: Share = unheard,
) -> Bleeds:
    """The bleeds in a scan by a model package, or the hematoma by threshold without one.

    ``box``: where a model that looks in boxes should look; by default around what the shipped model finds. Such a
    model tells ``progress`` how far it is.

    Raises:
        ModelPackageError: the package's weights do not fit.
        DeviceError: the GPU runs out of memory.
        InputError: the box lies outside of the scan, or the model does not look in boxes.
    """
    check_prompt(package, box)
    if package is not None and package.description.is_promptable:
        return _find_in_box(ct, inside_skull, package, device, box, progress)
    if package is None:
        return Bleeds.of_hematoma(segment_by_threshold(ct, inside_skull))
    probability = class_probabilities(ct, inside_skull, package.description, package.load(), device)
    bleeds = replace(bleeds_from(probability, inside_skull), is_mixed=package.description.is_mixed)
    if (coefficients := package.description.settings.get(PRESENCE)) is None:
        return bleeds
    presence = presence_of(probability[Kind.INTRAPARENCHYMAL], bleeds.hematoma, coefficients)
    return replace(bleeds, presence=presence)


def _find_in_box(
    ct: sitk.Image,
    inside_skull: Mask,
    package: ModelPackage,
    device: torch.device,
    box: Box | None,
    progress: Share,
) -> Bleeds:
    if box is not None:
        where, source, presence = box.on(inside_skull.grid), DRAWN_BOX, None
    else:
        finder = find_package(None, "segmentation")
        first = find_bleeds(ct, inside_skull, finder, device)
        if first.hematoma.is_empty:
            return replace(Bleeds.of_hematoma(first.hematoma), is_mixed=True, box_from=NO_BOX)
        where, source, presence = box_around(first.hematoma), finder.description.name, first.presence
    hematoma = mask_in_box(ct, inside_skull, package, where, device, progress)
    bleeds = Bleeds.of_hematoma(hematoma)
    return replace(bleeds, presence=presence, is_mixed=True, box_from=source)


def brain_region(inside_skull: Mask, spacing: tuple[float, float, float]) -> Grid:
    """Grid with that spacing (x, y, z) in mm over the bounding box of a nonempty mask."""
    return inside_skull.box_grid().with_spacing(spacing)


def segmentation_channels(
    ct: sitk.Image, inside_skull: Mask, grid: Grid, window_hu: tuple[float, float], *, whole_head: bool = False
) -> Array:
    """The network's input, (1, z, y, x) on ``grid``: windowed CT, zero outside the skull unless ``whole_head``."""
    windowed = scale_window(average_onto(ct, grid, outside=AIR_HU), window_hu)
    if whole_head:
        return windowed[None]
    return (windowed * average_onto(inside_skull.image, grid))[None]


def class_probabilities(
    ct: sitk.Image, inside_skull: Mask, description: ModelDescription, network: nn.Module, device: torch.device
) -> dict[int, sitk.Image]:
    """Probability of each class that a network tells apart, all on one grid around the brain.

    Raises:
        DeviceError: the GPU runs out of memory.
    """
    compute = _OF_ARCHITECTURE.get(description.member, _on_model_grid)
    return compute(ct, inside_skull, description, network, device)


def _on_model_grid(
    ct: sitk.Image, inside_skull: Mask, description: ModelDescription, network: nn.Module, device: torch.device
) -> dict[int, sitk.Image]:
    import torch
    from monai.inferers import sliding_window_inference

    region = brain_region(inside_skull, description.spacing_mm)
    whole_head = description.sees_whole_head
    seen = segmentation_channels(ct, inside_skull, region, description.window_hu, whole_head=whole_head)
    inputs = torch.from_numpy(seen)[None]
    x, y, z = description.patch_size
    with gpu_memory_errors("to segment"), torch.inference_mode():
        network.to(device)
        logits = sliding_window_inference(inputs.to(device), (z, y, x), 2, network, overlap=0.25, mode="gaussian")
        if logits.shape[1] == 1:  # the hematoma against everything else
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        probability = torch.softmax(logits.float(), dim=1)[0].cpu().numpy()
    classes = classes_of(description.labels) if description.labels else range(len(probability))
    return {number: image_on(region, of_class) for number, of_class in zip(classes, probability, strict=True)}


_OF_ARCHITECTURE = {BLAST_CT: blast_ct_probabilities, NNUNET: nnunet_probabilities}
"""How networks made elsewhere compute the same."""


def bleeds_from(probability: Mapping[int, sitk.Image], inside_skull: Mask) -> Bleeds:
    """The bleeds where the probabilities of classes, on one grid, say so; of missing classes, none is told.

    A voxel belongs to a bleed if blood of any kind is likelier than not, and then to the likeliest kind, so that
    no gap opens where two kinds meet, as at a ventricle's wall.
    """
    grid, coarse = inside_skull.grid, Grid.of(probability[Kind.INTRAPARENCHYMAL])
    looked_for = frozenset(kind for kind in Kind if kind in probability)
    bloody = [kind for kind in BLOOD if kind in looked_for]
    shares = {kind: sitk.GetArrayFromImage(probability[kind]) for kind in looked_for}
    any_blood = np.sum([shares[kind] for kind in bloody], axis=0)
    blood = where_at_least(0.5, image_on(coarse, any_blood), grid) & inside_skull.voxels
    kinds = np.array([0, *bloody], np.uint8)[_likeliest(blood, [probability[kind] for kind in bloody], grid)]
    own = Mask.on(grid, kinds == Kind.INTRAPARENCHYMAL)
    hematoma = keep_told_hematomas(own) if looked_for.issuperset(BLOOD) else keep_hematomas(own, inside_skull)
    found = [
        (kind, keep_large(Mask.on(grid, kinds == kind), MIN_ML_OF[kind]))
        for kind in bloody
        if kind != Kind.INTRAPARENCHYMAL
    ]
    if Kind.EDEMA in looked_for:
        swollen = where_at_least(0.5, image_on(coarse, any_blood + shares[Kind.EDEMA]), grid)
        edema = Mask.on(grid, swollen & inside_skull.voxels & ~blood)
        found.insert(0, (Kind.EDEMA, keep_touching(edema, hematoma)))
    parts = [*found, (Kind.INTRAPARENCHYMAL, hematoma)]
    midline = None
    if VENTRICLES in probability:
        horns = sitk.GetArrayViewFromImage(probability[VENTRICLES]) + shares[Kind.INTRAVENTRICULAR] > 0.5
        midline = find_midline(average_onto(inside_skull.image, coarse) > 0.5, horns, coarse)
    return Bleeds(labels_on(grid, [(kind, mask.voxels) for kind, mask in parts]), looked_for, midline=midline)


def _likeliest(where: Array, probability: Sequence[sitk.Image], grid: Grid) -> Array:
    """Number, from 1, of the image with the highest value at each voxel (z, y, x) of ``where``; 0 elsewhere."""
    numbers = np.zeros(grid.shape, np.uint8)
    if where.any():
        first, size = bounding_box(where)
        box, part = box_slices(first, size), grid.cropped(first.tolist(), size.tolist())
        values = [sitk.GetArrayFromImage(resample(image, part)) for image in probability]
        numbers[box] = (np.argmax(values, axis=0) + 1) * where[box]
    return numbers


def segment_by_threshold(ct: sitk.Image, inside_skull: Mask) -> Mask:
    """Hematoma mask without weights: voxels as dense as clotted blood, in compact components.

    The smoothed CT must reach 55 HU somewhere in a component and 47 HU throughout it; an opening removes falx,
    tentorium and the rim of bone, which are as dense but thin.
    """
    spacing = (1.5, 1.5, 1.5)
    region = brain_region(inside_skull, spacing)
    hu = image_on(region, average_onto(ct, region, outside=AIR_HU))
    inside = image_on(region, (average_onto(inside_skull.image, region) > 0.5).astype(np.uint8))
    smooth = sitk.SmoothingRecursiveGaussian(hu, 1.5)
    away_from_bone = sitk.BinaryErode(inside, [2, 2, 2])
    dense = sitk.And(sitk.BinaryThreshold(smooth, 47.0, 110.0), away_from_bone)
    cores = sitk.And(sitk.BinaryThreshold(smooth, 55.0, 95.0), sitk.BinaryMorphologicalOpening(dense, [3, 3, 3]))
    body = sitk.BinaryMorphologicalOpening(dense, [2, 2, 2])
    blood = sitk.BinaryReconstructionByDilation(sitk.And(cores, body), body)
    # The opening removed the margin too: grow back to halfway between clot and brain.
    margin = sitk.And(sitk.SmoothingRecursiveGaussian(hu, 1.0) > 44.0, inside)
    filled = sitk.BinaryFillhole(sitk.And(sitk.BinaryDilate(blood, [2, 2, 2]), margin))
    return _found(sitk.Cast(filled, sitk.sitkFloat32), inside_skull)


def _found(probability: sitk.Image, inside_skull: Mask) -> Mask:
    """The hematomas where a probability, on its own grid, is at least one half."""
    likely = where_at_least(0.5, probability, inside_skull.grid) & inside_skull.voxels
    return keep_hematomas(Mask.on(inside_skull.grid, likely), inside_skull)
