"""The head for a simulated hematoma: from the ICBM152 tissue maps, or a real scan.

What the maps lack is added here: CSF, skull, scalp, falx, venous sinuses, calcifications, a head holder, and
beam-hardening artifacts. Tissue densities are textbook values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
import torch
from HematomaExpansionLib.scan.grid import Array, Grid, image_on
from HematomaExpansionLib.scan.mask import Mask
from HematomaExpansionLib.scan.resampling import average_onto, resample
from HematomaExpansionLib.scan.shapes import distance_map_on
from scipy.ndimage import binary_opening, gaussian_filter, label
from torch import nn

from .template import MEAN_SCALE, STRAIGHT, template

if TYPE_CHECKING:
    from HematomaExpansionLib.scan.head_ct import HeadCT

AIR_HU = -1000.0
_VENTRICLE_MM, _NEAR_VENTRICLE_MM, _FLUID_HU, _DEEP_MM, _MIN_VENTRICLE_ML = 1.5, 9.0, 20.0, 18.0, 0.5
_HEAD = Grid((216, 232, 168), (1.0, 1.0, 1.0), (-107.5, -110.0, -76.0), STRAIGHT)


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A head without blood.

    Attributes:
        ct: HU, LPS; noise-free, or a real scan.
        inside_skull: on the same grid.
        parenchyma: share of gray and white matter, 0 to 1, on the same grid.
        ventricles: share of lateral ventricle, 0 to 1, on a grid of its own; None if unknown.
        midline_mm: LPS x of the falx at the grid's center.
        from_scan: whether ``ct`` is a real scan, with the noise of its scanner.
        template_to_head: maps positions in ICBM152 space (LPS mm) into the head, roughly.
    """

    ct: sitk.Image
    inside_skull: Mask
    parenchyma: sitk.Image
    ventricles: sitk.Image | None
    midline_mm: float
    from_scan: bool
    template_to_head: sitk.Transform


def icbm_anatomy(random: np.random.Generator, atrophy: tuple[float, float] = (0.0, 0.35)) -> Anatomy:
    """A head at 1 mm with random size, proportions, tilt, shape (and so symmetry) and atrophy (its range)."""
    affine = _random_affine(random)
    gray, white, ventricles, depth = _template_in_head(affine, _random_warp(random))
    depth = MEAN_SCALE * depth - random.uniform(1.0, 3.0)  # subarachnoid space
    inside = depth <= 0
    hu = _skull_and_scalp(depth, random)
    hu[inside] = _brain_hu(gray, white, random, atrophy)[inside]
    midline = affine.TransformPoint((0.0, 20.0, 10.0))[0]
    _add_falx_and_sinuses(hu, gray + white, inside, depth, affine)
    _add_calcifications(hu, affine, random)
    _add_beam_hardening(hu, inside, depth, affine, random)
    _add_holder(hu, random)
    return Anatomy(
        image_on(_HEAD, hu.astype(np.float32)),
        Mask.on(_HEAD, inside),
        image_on(_HEAD, np.clip(gray + white, 0, 1).astype(np.float32)),
        image_on(_HEAD, ventricles * inside),
        midline,
        from_scan=False,
        template_to_head=affine,
    )


def _random_affine(random: np.random.Generator) -> sitk.AffineTransform:
    """Template to head: scale, small rotations (head tilt) and shear."""
    affine = sitk.AffineTransform(3)
    scale = MEAN_SCALE * random.normal(1.0, 0.02) * random.normal(1.0, 0.025, size=3)
    affine.Scale(scale.tolist())
    for first, second in ((0, 1), (0, 2), (1, 2)):
        affine.Rotate(first, second, float(np.deg2rad(random.normal(0.0, 4.0))))
        affine.Shear(first, second, random.normal(0.0, 0.015))
    return affine


def _random_warp(random: np.random.Generator) -> Array:
    """Smooth random displacement of a few mm (x, y, z first), on a coarse grid that covers the head's grid."""
    shape = tuple(n // 8 for n in _HEAD.shape)
    field = np.stack([gaussian_filter(random.normal(size=shape), 2.5, mode="wrap") for _ in range(3)])
    return field / field.std() * random.uniform(1.0, 2.2)


def _template_in_head(affine: sitk.AffineTransform, warp: Array) -> Array:
    """The template's channels on the head's grid, (channel, z, y, x): at ``affine^-1(x + warp(x))``.

    Uses torch, because SimpleITK takes four times as long for a composite transform.
    """
    inverse = sitk.AffineTransform(affine.GetInverse())
    matrix = torch.tensor(np.array(inverse.GetMatrix()).reshape(3, 3), dtype=torch.float32)
    shift = torch.tensor(inverse.TransformPoint((0.0, 0.0, 0.0)), dtype=torch.float32)
    moved = nn.functional.interpolate(torch.from_numpy(warp).float()[None], _HEAD.shape, mode="trilinear")[0]
    for axis, positions in enumerate(_head_positions()):
        moved[axis] += torch.from_numpy(positions).float()
    image = template()
    size = torch.tensor(image.GetSize())
    index = torch.einsum("ij,jzyx->zyxi", matrix, moved) + (shift - torch.tensor(image.GetOrigin()))
    channels = torch.from_numpy(np.moveaxis(sitk.GetArrayFromImage(image), -1, 0).copy())
    return nn.functional.grid_sample(
        channels[None], (2 * index / (size - 1) - 1)[None], padding_mode="border", align_corners=True
    )[0].numpy()


def _brain_hu(gray: Array, white: Array, random: np.random.Generator, atrophy_range: tuple[float, float]) -> Array:
    """HU of the mixture of gray matter, white matter and CSF."""
    atrophy = random.uniform(*atrophy_range)
    gray, white = np.clip(gray, 0, 1), np.clip(white, 0, 1)
    share = np.clip((gray + white - 0.5 * atrophy) / (1 - 0.5 * atrophy), 0, 1)
    share = share / np.maximum(gray + white, 1e-3)
    gray, white = gray * share, white * share
    csf = np.clip(1 - gray - white, 0, 1)
    return (gray * random.uniform(36, 41) + white * random.uniform(27, 32) + csf * random.uniform(3, 12)).astype(
        np.float32
    )


def _skull_and_scalp(depth: Array, random: np.random.Generator) -> Array:
    """HU of skull and scalp, by the distance in mm from the inside of the skull."""
    thickness, scalp = random.uniform(5.0, 8.0), random.uniform(4.0, 8.0)
    table = 1.8
    rough = 1.0 + 0.1 * gaussian_filter(random.normal(size=tuple(-(-n // 4) for n in depth.shape)), 1.5)
    rough = np.kron(rough, np.ones((4, 4, 4)))[: depth.shape[0], : depth.shape[1], : depth.shape[2]]
    hu = np.full(depth.shape, AIR_HU, np.float32)
    hu[depth <= thickness + scalp] = random.uniform(-40, 30)
    hu[depth <= thickness + 0.5 * scalp] = random.uniform(20, 50)
    bone = depth <= thickness
    diploe = bone & (depth > table) & (depth < thickness - table)
    hu[bone] = (random.uniform(1000, 1500) * rough)[bone]
    hu[diploe] = (random.uniform(400, 800) * rough)[diploe]
    return hu


def _head_positions() -> tuple[Array, Array, Array]:
    """LPS x, y and z of the head's voxels, as arrays that broadcast against each other."""
    z, y, x = np.ogrid[tuple(slice(n) for n in _HEAD.shape)]
    return x + _HEAD.origin[0], y + _HEAD.origin[1], z + _HEAD.origin[2]


def _add_falx_and_sinuses(
    hu: Array, tissue: Array, inside: Array, depth: Array, affine: sitk.AffineTransform
) -> None:
    """Add the falx between the hemispheres, and venous sinuses where falx and tentorium meet the bone."""
    normal = np.array(affine.TransformVector((1.0, 0.0, 0.0), (0.0, 0.0, 0.0)))
    center = np.array(affine.TransformPoint((0.0, 0.0, 0.0)))
    normal /= np.linalg.norm(normal)
    x, y, z = _head_positions()
    off_midline = np.abs((x - center[0]) * normal[0] + (y - center[1]) * normal[1] + (z - center[2]) * normal[2])
    above = z > center[2] + 25 * MEAN_SCALE
    hu[inside & (off_midline < 0.8) & above & (tissue < 0.75)] = 48.0
    behind = above & ((y > center[1]) | (z > center[2] + 50))
    sagittal = off_midline + 0.8 * np.abs(depth) < 4.0
    hu[inside & sagittal & behind] = 52.0
    side = np.array(affine.TransformPoint((0.0, 75.0, -18.0)))
    transverse = np.hypot(z - side[2], 0.8 * depth) < 4.0
    hu[inside & transverse & (y > side[1] - 55)] = 52.0


def _add_calcifications(hu: Array, affine: sitk.AffineTransform, random: np.random.Generator) -> None:
    """Add pineal gland and choroid plexus, calcified in most adults: dense and small, but not blood."""
    x, y, z = _head_positions()
    for spot in ((0.0, 25.0, 2.0), (-20.0, 38.0, 10.0), (20.0, 38.0, 10.0)):
        if random.random() < 0.65:
            center = np.array(affine.TransformPoint(spot)) + random.normal(0, 2, size=3)
            squared = (x - center[0]) ** 2 + (y - center[1]) ** 2 + (z - center[2]) ** 2
            hu[squared <= random.uniform(1.2, 3.2) ** 2] = random.uniform(80, 250)


def _add_beam_hardening(
    hu: Array, inside: Array, depth: Array, affine: sitk.AffineTransform, random: np.random.Generator
) -> None:
    """Add brightness that rises toward bone, and dark and bright bands between the petrous bones at the base."""
    hu += inside * random.uniform(0.0, 10.0) * np.exp(np.minimum(depth, 0.0) / random.uniform(3.0, 6.0))
    _, y, z = _head_positions()
    base = np.array(affine.TransformPoint((0.0, 22.0, -38.0)))
    below = np.exp(-(((z - base[2]) / 9.0) ** 2))
    ripple = np.cos((y - base[1]) / random.uniform(3.0, 6.0)) * np.exp(-(((y - base[1]) / 22.0) ** 2))
    hu -= inside * (random.uniform(3.0, 14.0) * below * ripple)


def _add_holder(hu: Array, random: np.random.Generator) -> None:
    """Add a head holder, a thin curved shell behind the head, in two thirds of the scans."""
    if random.random() < 1 / 3:
        return
    behind = np.flatnonzero((hu > -500).any(axis=(0, 2)))[-1]
    radius, middle = random.uniform(100, 130), _HEAD.size[0] / 2
    y, x = np.ogrid[: _HEAD.size[1], : _HEAD.size[0]]
    distance = np.hypot(x - middle, y - (behind + random.uniform(3, 7) - radius))
    shell = (np.abs(distance - radius) < 1.5) & (y > behind - 40)
    hu[:, shell] = np.maximum(hu[:, shell], random.uniform(-100, 150))


def anatomy_from_scan(scan: HeadCT) -> Anatomy:
    """A real head CT without a bleed, unchanged; ICBM152 space is fitted to its brain's bounding box."""
    from HematomaExpansionLib.anatomy.brain import extract_brain

    inside = extract_brain(scan.image).mask
    hu = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(scan.image, 1.2))
    within = inside.voxels
    parenchyma = within & (hu > 22) & (hu < 55)
    indices = np.argwhere(within)[:, ::-1]
    low, high = np.percentile(indices, 0.5, axis=0), np.percentile(indices, 99.5, axis=0)
    center = scan.grid.point((low + high) / 2)
    # The template's brain: 136 × 174 × 140 mm around (0, 18, 8) in LPS, without cerebellar tonsils.
    extent = (high - low) * np.array(scan.grid.spacing)
    direction = np.array(scan.grid.direction).reshape(3, 3)
    matrix = direction @ np.diag(np.array(extent) / (136.0, 174.0, 140.0))
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(matrix.ravel().tolist())
    affine.SetTranslation((center - matrix @ np.array([0.0, 18.0, 8.0])).tolist())
    return Anatomy(
        scan.image,
        inside,
        image_on(scan.grid, parenchyma.astype(np.float32)),
        None,
        float(affine.TransformPoint((0.0, 20.0, 10.0))[0]),
        from_scan=True,
        template_to_head=affine,
    )


def with_ventricles(anatomy: Anatomy) -> Anatomy:
    """The head with its lateral ventricles, as they were found if they were not known: CSF where the template's
    ventricles, mapped into the head, lie within a centimeter."""
    if anatomy.ventricles is not None:
        return anatomy
    grid = Grid.of(anatomy.ct)
    near = grid.with_spacing((_VENTRICLE_MM,) * 3)
    maps = template()
    share = sitk.VectorIndexSelectionCast(maps, 2)
    expected = resample(share, near, transform=anatomy.template_to_head.GetInverse())
    likely = sitk.GetArrayFromImage(expected) > 0.5
    around = distance_map_on(near, likely) <= _NEAR_VENTRICLE_MM
    hu = gaussian_filter(average_onto(anatomy.ct, near, outside=AIR_HU), 0.5)
    inside = average_onto(anatomy.inside_skull.image, near) > 0.5
    depth = distance_map_on(near, inside, is_positive_inside=True)
    fluid = binary_opening((hu > -8) & (hu < _FLUID_HU) & around & (depth > _DEEP_MM))
    labels, count = label(fluid)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:] * near.voxel_volume_ml
    touching = np.unique(labels[likely & fluid])
    large = np.isin(labels, [k for k in touching if k > 0 and sizes[k - 1] >= _MIN_VENTRICLE_ML])
    smooth = gaussian_filter(large.astype(np.float32), 0.5)
    return replace(anatomy, ventricles=image_on(near, smooth))


def crop(anatomy: Anatomy, grid: Grid) -> tuple[Array, Array]:
    """Inside of the skull, and parenchyma: shares from 0 to 1 as arrays (z, y, x) on ``grid``."""
    return average_onto(anatomy.inside_skull.image, grid), average_onto(anatomy.parenchyma, grid)
