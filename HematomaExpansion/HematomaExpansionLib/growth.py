"""Growth of a hematoma: baseline CT and mask -> displacement field -> predicted follow-up CT and mask.

After Abramova 2024, sections 2.4 and 2.4.1: a U-Net gives a dense field, a spatial transformer warps the
baseline with it. The field is a pull-back in mm, LPS: ``predicted(x) = baseline(x + u(x))``.

Three additions. The network's output may be a velocity that is integrated by scaling and squaring, so that
the displacement cannot fold. The field is confined: it fades to zero at the inside of the skull and at the edge
of the region, so a flow along it can carry no blood through bone. And it may be stronger or weaker by a
probability of expansion, which another model tells from signs that a network on a coarse grid sees less well.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import SimpleITK as sitk

from .errors import DeviceError
from .grid import Array, Grid, average_onto, bounding_box, crop_to, image_on, resample, signed_distance
from .model_description import (
    GROWTH_BY_PROBABILITY,
    INTEGRATION_STEPS,
    PROBABILITY_FROM,
    VOLUME_RANGE,
    ModelDescription,
)
from .model_package import ModelPackage

if TYPE_CHECKING:
    import torch

GROWTH_MARGIN_MM = 25.0
"""How far from the baseline hematoma growth is looked for."""

# Over what distance the field fades out toward bone, and over how many voxels toward the region's edge.
_FADE_MM, _FADE_VOXELS = 4.5, 3
# Of the eight voxels that are interpolated, where so little is of a kind, its value is not known.
_LEAST_WEIGHT = 1e-3
# Depths in mm and shares that differ by less are equal.
_SAME_DEPTH_DIGITS = 4
# Beyond what any distance within a head is.
_OUTSIDE_MM = 1000.0


@dataclass(frozen=True)
class Growth:
    """A predicted growth, all three on the baseline scan's grid.

    ``displacement`` is a vector image in mm, LPS; ``followup_ct`` in HU; ``followup_mask`` 0 or 1.
    """

    displacement: sitk.Image
    followup_ct: sitk.Image
    followup_mask: sitk.Image

    def mapped(self, function: Callable[[sitk.Image], sitk.Image]) -> Growth:
        """``function`` applied to each image."""
        return Growth(function(self.displacement), function(self.followup_ct), function(self.followup_mask))


def growth_region(
    hematoma: sitk.Image,
    spacing: tuple[float, float, float],
    patch: tuple[int, int, int],
    margin_mm: float = GROWTH_MARGIN_MM,
) -> Grid:
    """Model grid around the hematoma with a margin, at least one patch large, along the scan's axes.

    ``spacing`` in mm and ``patch`` in voxels, both (x, y, z); ``hematoma`` a mask that is not empty.
    """
    grid = Grid.of(hematoma)
    first, size = bounding_box(sitk.GetArrayViewFromImage(hematoma) > 0)
    wanted = size * np.array(grid.spacing) + 2 * margin_mm
    voxels = np.maximum(np.ceil(wanted / spacing), patch).astype(int)
    return grid.centered_at(grid.point(first + (size - 1) / 2), voxels, spacing)


def scale_window(hu: Array, window_hu: tuple[float, float]) -> Array:
    """HU to 0..1 over a window, clipped."""
    low, high = window_hu
    return np.clip((hu - low) / (high - low), 0.0, 1.0).astype(np.float32)


def growth_channels(
    ct: sitk.Image, hematoma: sitk.Image, inside_skull: sitk.Image, grid: Grid, window_hu: tuple[float, float]
) -> Array:
    """What the network sees, (3, z, y, x) on ``grid``: windowed CT, hematoma, and where a field may be.

    The first two are the network's input; the third multiplies its output (see ``confine``).
    """
    inside = average_onto(inside_skull, grid)
    brain = scale_window(average_onto(ct, grid, outside=-1024.0), window_hu) * inside
    return np.stack([brain, average_onto(hematoma, grid), confinement_of(inside, grid.spacing)])


def confinement_of(inside: Array, spacing: tuple[float, float, float]) -> Array:
    """Factor from 1 deep inside the skull to 0 at bone, (z, y, x); ``spacing`` (x, y, z) in mm."""
    within = sitk.GetImageFromArray((inside > 0.5).astype(np.uint8))
    within.SetSpacing(spacing)
    distance = sitk.GetArrayFromImage(
        sitk.SignedMaurerDistanceMap(within, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)
    )
    return np.clip(distance / _FADE_MM, 0.0, 1.0).astype(np.float32)


def _edge_window(shape: tuple[int, ...]) -> Array:
    """Factor from 1 within a region to 0 on its outermost voxels, (z, y, x)."""
    ramps = [np.minimum(np.arange(n), np.arange(n)[::-1]) / _FADE_VOXELS for n in shape]
    return np.clip(
        np.minimum(np.minimum(ramps[0][:, None, None], ramps[1][None, :, None]), ramps[2][None, None, :]),
        0,
        1,
    ).astype(np.float32)


def confined_displacement(field: torch.Tensor, confinement: torch.Tensor, integration_steps: int) -> torch.Tensor:
    """Displacement in voxels from a network's field, both (batch, 3, z, y, x), components in that order.

    ``confinement`` (batch, 1, z, y, x) is multiplied onto the field before the integration: a flow that
    stands still at bone cannot cross it, whereas scaling a displacement afterward could fold it.
    """
    import torch
    from monai.networks.blocks import DVF2DDF

    edge = torch.from_numpy(_edge_window(tuple(field.shape[2:]))).to(field)
    field = field * confinement * edge
    if integration_steps == 0:
        return field
    with _quiet_monai():
        return DVF2DDF(num_steps=integration_steps)(field)


def warp(image: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
    """Spatial transformer: ``image(x + displacement(x))``, linear; (batch, channel, z, y, x), in voxels."""
    from monai.networks.blocks import Warp

    with _quiet_monai():
        return Warp()(image, displacement)


@contextmanager
def _quiet_monai() -> Iterator[None]:
    """MONAI says at each use that its compiled warp is absent; torch's own is what is wanted here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="monai.networks.blocks.Warp")
        yield


def predict_growth(
    ct: sitk.Image,
    hematoma: sitk.Image,
    inside_skull: sitk.Image,
    package: ModelPackage,
    probability: float | None,
    device: torch.device,
) -> Growth:
    """Predicted growth of ``hematoma`` (0/1, not empty) in ``ct`` (HU); all on one orthogonal grid.

    ``probability`` of expansion, or None where none is told: see ``growth_strength``.

    Raises:
        ModelPackageError: the package's weights do not fit.
        DeviceError: the GPU's memory does not suffice.
    """
    description = package.description
    region = growth_region(hematoma, description.spacing_mm, description.patch_size)
    channels = growth_channels(ct, hematoma, inside_skull, region, description.window_hu)
    strength = growth_strength(description, probability)
    voxels = _network_displacement(channels, package, strength, device)
    displacement = field_on(ct, image_on(region, to_millimeters(voxels, region)))
    still = sitk.Image(ct.GetSize(), displacement.GetPixelID(), 3)
    still.CopyInformation(ct)
    grown = warp_mask(hematoma, displacement)
    return Growth(
        with_part(still, displacement),
        with_part(ct, warp_ct(ct, hematoma, grown, displacement)),
        with_part(hematoma, grown),
    )


def field_on(image: sitk.Image, displacement: sitk.Image) -> sitk.Image:
    """The displacement on that part of the image's grid where it lies: around it, in most of it, nothing moves."""
    return resample(displacement, Grid.of(crop_to(image, Grid.of(displacement), margin_mm=0.0)))


def with_part(whole: sitk.Image, part: sitk.Image) -> sitk.Image:
    """``whole`` with the voxels of ``part``, which lies on a part of its grid."""
    return sitk.Paste(
        whole, part, part.GetSize(), (0, 0, 0), whole.TransformPhysicalPointToIndex(part.GetOrigin())
    )


def growth_strength(description: ModelDescription, probability: float | None) -> float:
    """Factor on a growth network's field: ``exp(constant + slope * log odds)`` of the probability of expansion,
    within bounds; 1 without a probability, and by a model whose growth does not follow one.
    """
    coefficients = description.settings.get(GROWTH_BY_PROBABILITY)
    if coefficients is None or probability is None:
        return 1.0
    wanted = coefficients["constant"] + coefficients["slope"] * float(log_odds(probability))
    return min(max(math.exp(wanted), coefficients["smallest"]), coefficients["largest"])


def may_follow(description: ModelDescription, risk: Mapping[str, str]) -> bool:
    """Whether a growth model may be told the probability of a risk model, given by its package's ``identity``.

    One whose growth follows a probability was fitted to that of one risk model; the same figure by another would
    scale growth and range by a rule that was never checked.
    """
    if GROWTH_BY_PROBABILITY not in description.settings:
        return True
    return bool(description.settings.get(PROBABILITY_FROM, {}).get("sha256") == risk["sha256"])


def unfollowed(description: ModelDescription, risk: Mapping[str, str]) -> str:
    """The sentence for a risk model that ``may_follow`` denies."""
    source = description.settings.get(PROBABILITY_FROM)
    fitted = f"that of {source['name']} {source['version']}" if source else "that of another model"
    return (
        f"The growth of model {description.name} was fitted to another probability of expansion ({fitted}) than "
        f"that of {risk['name']} {risk['version']}: it is told as if there were none, and without a range."
    )


def log_odds(probability: float | Array) -> Array:
    """Natural logarithm of the odds; nothing counts as more certain than by a millionth."""
    certain = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.log(certain / (1 - certain))


def _network_displacement(channels: Array, package: ModelPackage, strength: float, device: torch.device) -> Array:
    """Displacement in voxels (3, z, y, x), for the channels of ``growth_channels``."""
    import torch
    from monai.inferers import sliding_window_inference

    network = package.load()
    x, y, z = package.description.patch_size
    try:
        network.to(device)
        inputs = torch.from_numpy(channels)[None].to(device)
        with torch.inference_mode():
            field = sliding_window_inference(inputs[:, :2], (z, y, x), 2, network, overlap=0.5, mode="gaussian")
            steps = package.description.settings.get(INTEGRATION_STEPS, 0)
            displacement = confined_displacement(strength * field, inputs[:, 2:], steps)
    except torch.cuda.OutOfMemoryError as error:
        raise DeviceError(
            "The GPU has too little free memory for this prediction: choose --device cpu."
        ) from error
    return displacement[0].float().cpu().numpy()


Masks = Literal["true", "automatic"]
"""What a prediction begins from: a mask that somebody drew, or one that was found."""


def followup_range(
    coefficients: Mapping[str, Sequence[float]], baseline_ml: float, predicted_ml: float
) -> tuple[float, float]:
    """Range in mL in which the follow-up volume lies in 80 % of patients like those the model was checked on.

    ``coefficients`` are a package's for the kind of mask that the prediction began from: ``low`` and ``high``
    quantile of the growth as constant, factor of the baseline and factor of the predicted growth. The range holds
    the prediction itself.
    """
    low, high = (
        baseline_ml + constant + by_baseline * baseline_ml + by_growth * (predicted_ml - baseline_ml)
        for constant, by_baseline, by_growth in (coefficients["low"], coefficients["high"])
    )
    return max(0.0, min(low, predicted_ml)), max(high, predicted_ml)


def told_range(
    description: ModelDescription, masks: Masks, probability: float | None, baseline_ml: float, predicted_ml: float
) -> tuple[float, float] | None:
    """``followup_range`` by a model that tells it; None by another.

    A model whose growth follows a probability of expansion was checked with it, and tells no range without.
    """
    coefficients = description.settings.get(VOLUME_RANGE, {}).get(masks)
    if coefficients is None or (probability is None and GROWTH_BY_PROBABILITY in description.settings):
        return None
    return followup_range(coefficients, baseline_ml, predicted_ml)


def to_millimeters(voxels: Array, grid: Grid) -> Array:
    """Displacement (3, z, y, x) in voxels, components z, y, x, to (z, y, x, 3) in mm, LPS."""
    return np.einsum("pc,czyx->zyxp", grid.axes, voxels[::-1]).astype(np.float32)


def _as_transform(displacement: sitk.Image) -> sitk.DisplacementFieldTransform:
    return sitk.DisplacementFieldTransform(sitk.Cast(displacement, sitk.sitkVectorFloat64))


def warp_image(image: sitk.Image, displacement: sitk.Image) -> sitk.Image:
    """``image(x + u(x))`` on the displacement's grid, linear; ``u`` in mm, LPS."""
    moved = sitk.Resample(image, displacement, _as_transform(displacement), sitk.sitkLinear, -1024.0)
    return sitk.Cast(moved, image.GetPixelID())


def warp_ct(ct: sitk.Image, mask: sitk.Image, grown: sitk.Image, displacement: sitk.Image) -> sitk.Image:
    """``ct(x + u(x))`` in HU on the displacement's grid, with the border of blood where ``grown`` has it.

    ``mask`` (0/1) lies on the CT's grid, ``grown`` is what ``warp_mask`` made of it. Linear among voxels of one
    kind: within ``grown`` among those of the hematoma, around it among the others. Interpolated across its border,
    blood that moves by less than half a slice would only brighten the next one a little, and cut half way between
    brain and clot the CT would show up to 10 % less blood than the mask in slices of 5 mm. So both agree where
    they do at baseline; a mask that reaches beyond what the CT shows there (automatic ones hold the fringe of
    partial volume) goes on to do so.
    """
    transform, hu = _as_transform(displacement), sitk.Cast(ct, sitk.sitkFloat32)
    inside = sitk.Cast(mask, sitk.sitkFloat32)

    def moved(image: sitk.Image, outside: float) -> Array:
        return sitk.GetArrayFromImage(sitk.Resample(image, displacement, transform, sitk.sitkLinear, outside))

    whole, blood, share = moved(hu, -1024.0), moved(hu * inside, 0.0), moved(inside, 0.0)
    is_blood = sitk.GetArrayViewFromImage(grown) > 0
    part, weight = np.where(is_blood, blood, whole - blood), np.where(is_blood, share, 1 - share)
    known = weight > _LEAST_WEIGHT
    values = np.where(known, part / np.where(known, weight, 1.0), whole)
    return sitk.Cast(image_on(Grid.of(displacement), values.astype(np.float32)), ct.GetPixelID())


def warp_mask(mask: sitk.Image, displacement: sitk.Image) -> sitk.Image:
    """``mask(x + u(x))`` as 0 or 1 on the displacement's grid, with the volume that the field gives it.

    Cut at the half-way surface, what moves by less than half a slice would be lost: some 15 % of the growth in
    slices of 5 mm. So as many voxels as the interpolated mask sums to are taken, the innermost by its interpolated
    signed distance; among equals those with the larger share of the mask, and then by lot (always the same), so
    that no side of the hematoma is preferred.
    """
    near = crop_to(mask, Grid.of(displacement), margin_mm=GROWTH_MARGIN_MM)
    transform = _as_transform(displacement)
    share, depth = (
        sitk.GetArrayFromImage(
            sitk.Resample(sitk.Cast(image, sitk.sitkFloat32), displacement, transform, sitk.sitkLinear, outside)
        )
        for image, outside in ((near, 0.0), (signed_distance(near), -_OUTSIDE_MM))
    )
    count = round(float(share.sum(dtype=np.float64)))
    return image_on(Grid.of(displacement), _innermost(depth, share, count).astype(np.uint8))


def _innermost(depth: Array, share: Array, count: int) -> Array:
    """So many voxels (z, y, x), as booleans, of the largest ``depth``; see ``warp_mask`` for equals."""
    if count == 0:
        return np.zeros(depth.shape, bool)
    rounded = np.round(depth, _SAME_DEPTH_DIGITS)  # interpolation does not give equals to the last bit
    last = np.partition(rounded.ravel(), -count)[-count]
    chosen = rounded > last
    equals = np.flatnonzero(rounded == last)
    lot = np.random.default_rng(0).permutation(len(equals))
    order = np.lexsort((lot, -np.round(share.ravel()[equals], _SAME_DEPTH_DIGITS)))
    chosen.ravel()[equals[order[: count - np.count_nonzero(chosen)]]] = True
    return chosen


def smallest_jacobian(displacement: sitk.Image) -> float:
    """Smallest Jacobian determinant of ``x + u(x)`` over the grid; above zero nothing is folded."""
    determinant = sitk.DisplacementFieldJacobianDeterminant(sitk.Cast(displacement, sitk.sitkVectorFloat64))
    return float(sitk.GetArrayViewFromImage(determinant).min())
