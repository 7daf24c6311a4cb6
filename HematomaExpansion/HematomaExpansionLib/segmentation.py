"""The hematoma's mask: by a 3D U-Net with squeeze-and-excitation blocks (after Abramova 2021), or by threshold
and components, which needs no weights.

Both take a CT in HU and the inside of the skull, on one orthogonal grid, and give a mask (0 or 1) on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import find_objects

from . import __version__
from .errors import DeviceError
from .grid import Array, Grid, average_onto, bounding_box, image_on, resample
from .growth import scale_window
from .model_package import ModelPackage

if TYPE_CHECKING:
    import torch

SMALLEST_HEMATOMA_ML = 1.0
"""Components below this are noise, calcification or partial volume rather than a hematoma."""

SMALLEST_SATELLITE_ML, SATELLITE_NEAR_MM = 0.03, 12.0
"""Smaller ones count, from 4 mm across, so near to a hematoma: its satellites."""

SMALLEST_AT_FORAMEN_MAGNUM_ML = 3.0
"""The same near the foramen magnum, where beam hardening by the bone around makes the medulla look as dense."""

SHALLOW_MM = 8.0
"""Venous sinuses, dura and the partial volume of bone, all as dense as blood, hardly reach deeper than this."""

_FORAMEN_MAGNUM_CM2, _NEAR_FORAMEN_MAGNUM_MM = 12.0, 10.0
"""Larger than its area in adults, and how far above it the medulla lies."""

LOOKED_FOR = f"blood inside the brain, from {SMALLEST_HEMATOMA_ML:.0f} mL"
NOT_LOOKED_FOR = "blood outside of the brain (epidural, subdural, subarachnoid) or in the ventricles"
NO_HEMATOMA = (
    f"No hematoma was found ({LOOKED_FOR}). That excludes no bleed: a small or faint one can be missed, and "
    f"{NOT_LOOKED_FOR} was not looked for."
)

# How a result names the mask's origin when no model package gave it.
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


def segment(
    ct: sitk.Image, inside_skull: sitk.Image, package: ModelPackage | None, device: torch.device
) -> sitk.Image:
    """Hematoma mask by a model package, or without one by threshold; empty where there is no hematoma."""
    if package is None:
        return segment_by_threshold(ct, inside_skull)
    return segment_with_network(ct, inside_skull, package, device)


def brain_region(inside_skull: sitk.Image, spacing: tuple[float, float, float]) -> Grid:
    """Grid of that spacing (x, y, z) in mm over the box of a mask that is not empty."""
    grid = Grid.of(inside_skull)
    first, size = bounding_box(sitk.GetArrayViewFromImage(inside_skull) > 0)
    return grid.cropped(first.tolist(), size.tolist()).with_spacing(spacing)


def segmentation_channels(
    ct: sitk.Image, inside_skull: sitk.Image, grid: Grid, window_hu: tuple[float, float]
) -> Array:
    """What the network sees, (1, z, y, x) on ``grid``: the windowed CT, zero outside of the skull's inside."""
    brain = scale_window(average_onto(ct, grid, outside=-1024.0), window_hu) * average_onto(inside_skull, grid)
    return brain[None]


def segment_with_network(
    ct: sitk.Image, inside_skull: sitk.Image, package: ModelPackage, device: torch.device
) -> sitk.Image:
    """Hematoma mask by a model package.

    Raises:
        ModelPackageError: the package's weights do not fit.
        DeviceError: the GPU's memory does not suffice.
    """
    import torch
    from monai.inferers import sliding_window_inference

    description = package.description
    region = brain_region(inside_skull, description.spacing_mm)
    inputs = torch.from_numpy(segmentation_channels(ct, inside_skull, region, description.window_hu))[None]
    network = package.load()
    x, y, z = description.patch_size
    try:
        network.to(device)
        with torch.inference_mode():
            logits = sliding_window_inference(
                inputs.to(device), (z, y, x), 2, network, overlap=0.25, mode="gaussian"
            )
            probability = torch.sigmoid(logits)[0, 0].float().cpu().numpy()
    except torch.cuda.OutOfMemoryError as error:
        raise DeviceError("The GPU has too little free memory to segment: choose --device cpu.") from error
    on_scan = resample(image_on(region, probability), Grid.of(ct))
    return keep_hematomas(sitk.And(sitk.Cast(on_scan >= 0.5, sitk.sitkUInt8), inside_skull), inside_skull)


def segment_by_threshold(ct: sitk.Image, inside_skull: sitk.Image) -> sitk.Image:
    """Hematoma mask without weights: voxels as dense as clotted blood, in compact components.

    The smoothed CT must reach 55 HU somewhere in a component and 47 HU throughout it; an opening takes off
    falx, tentorium and the rim of bone, which are as dense but thin.
    """
    spacing = (1.5, 1.5, 1.5)
    region = brain_region(inside_skull, spacing)
    hu = image_on(region, average_onto(ct, region, outside=-1024.0))
    inside = image_on(region, (average_onto(inside_skull, region) > 0.5).astype(np.uint8))
    smooth = sitk.SmoothingRecursiveGaussian(hu, 1.5)
    away_from_bone = sitk.BinaryErode(inside, [2, 2, 2])
    dense = sitk.And(sitk.BinaryThreshold(smooth, 47.0, 110.0), away_from_bone)
    cores = sitk.And(sitk.BinaryThreshold(smooth, 55.0, 95.0), sitk.BinaryMorphologicalOpening(dense, [3, 3, 3]))
    body = sitk.BinaryMorphologicalOpening(dense, [2, 2, 2])
    blood = sitk.BinaryReconstructionByDilation(sitk.And(cores, body), body)
    # The opening took the margin too: back to half way between clot and brain.
    margin = sitk.And(sitk.SmoothingRecursiveGaussian(hu, 1.0) > 44.0, inside)
    filled = sitk.BinaryFillhole(sitk.And(sitk.BinaryDilate(blood, [2, 2, 2]), margin))
    on_scan = resample(sitk.Cast(filled, sitk.sitkFloat32), Grid.of(ct)) >= 0.5
    return keep_hematomas(sitk.And(sitk.Cast(on_scan, sitk.sitkUInt8), inside_skull), inside_skull)


def keep_hematomas(mask: sitk.Image, inside_skull: sitk.Image) -> sitk.Image:
    """The connected components of ``mask`` (0/1) that are large enough and reach deep enough with their tenth.

    Those that lie for the greater part at the foramen magnum or below are to be larger. Small ones count where
    they are satellites of a larger one.
    """
    grid = Grid.of(mask)
    voxels = int(np.ceil(SMALLEST_SATELLITE_ML / grid.voxel_volume_ml))
    labels = sitk.RelabelComponent(sitk.ConnectedComponent(mask), minimumObjectSize=voxels)
    depth = sitk.GetArrayFromImage(
        sitk.SignedMaurerDistanceMap(
            inside_skull, insideIsPositive=True, squaredDistance=False, useImageSpacing=True
        )
    )
    array, low_slices = sitk.GetArrayFromImage(labels), _slices_at_foramen_magnum(inside_skull)
    large: list[int] = []
    small: list[int] = []
    for label, box in enumerate(find_objects(array), start=1):
        where = array[box] == label
        if np.quantile(depth[box][where], 0.9) < SHALLOW_MM:
            continue
        size = int(np.count_nonzero(where))
        low = int(np.count_nonzero(where[: max(0, low_slices - box[0].start)]))
        smallest_ml = SMALLEST_HEMATOMA_ML if low <= size / 2 else SMALLEST_AT_FORAMEN_MAGNUM_ML
        (large if size * grid.voxel_volume_ml >= smallest_ml else small).append(label)
    hematomas = np.isin(array, large)
    if large and small:
        near = _near(image_on(grid, hematomas.astype(np.uint8)), SATELLITE_NEAR_MM)
        hematomas |= np.isin(array, np.intersect1d(small, array[near]))
    return image_on(grid, hematomas.astype(np.uint8))


def _near(mask: sitk.Image, distance_mm: float) -> Array:
    """Voxels (z, y, x) at most so far from a mask (0/1) that is not empty."""
    first, size = bounding_box(sitk.GetArrayViewFromImage(mask) > 0)
    margin = np.ceil(distance_mm / np.array(mask.GetSpacing())).astype(int)
    low, high = np.maximum(first - margin, 0), np.minimum(first + size + margin, mask.GetSize())
    box = sitk.RegionOfInterest(mask, (high - low).tolist(), low.tolist())
    distance = sitk.SignedMaurerDistanceMap(box, squaredDistance=False, useImageSpacing=True)
    near = np.zeros(mask.GetSize()[::-1], bool)
    near[tuple(slice(a, b) for a, b in zip(low[::-1], high[::-1], strict=True))] = (
        sitk.GetArrayViewFromImage(distance) <= distance_mm
    )
    return near


def _slices_at_foramen_magnum(inside_skull: sitk.Image) -> int:
    """How many slices, counted from the feet, lie near the foramen magnum or below; 0 where it is not in view."""
    x_mm, y_mm, z_mm = inside_skull.GetSpacing()
    square_cm = sitk.GetArrayViewFromImage(inside_skull).sum(axis=(1, 2)) * x_mm * y_mm / 100
    narrow = np.flatnonzero(square_cm[: square_cm.argmax()] < _FORAMEN_MAGNUM_CM2)
    return int(narrow[-1]) + 1 + round(_NEAR_FORAMEN_MAGNUM_MM / z_mm) if len(narrow) else 0
