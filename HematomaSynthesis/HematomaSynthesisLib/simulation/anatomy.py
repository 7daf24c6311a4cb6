"""The head in which a simulated hematoma bleeds: from the ICBM152 tissue maps, or a real scan.

The ICBM152 2009 maps of gray and white matter come with the ``nilearn`` package; what they lack is added
here: subarachnoid CSF, skull, scalp, falx, venous sinus, calcifications. Tissue densities are textbook
values.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from HematomaExpansionLib.errors import MissingLibraryError
from HematomaExpansionLib.grid import Array, Grid, average_onto, image_on
from scipy.ndimage import gaussian_filter

if TYPE_CHECKING:
    from HematomaExpansionLib.head_ct import HeadCT

AIR_HU = -1000.0
_STRAIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
# The ICBM152 brain is larger than people's (filled, 1,890 mL against about 1,450 mL).
_MEAN_SCALE = 0.915
# Half the width in mm of fissures that the skull does not follow.
_BRIDGED_MM = 14.0


@dataclass(frozen=True)
class Anatomy:
    """A head without blood.

    Attributes:
        ct: HU, LPS; free of noise, or a real scan.
        inside_skull: mask (0/1) on the same grid.
        parenchyma: share of gray and white matter, 0 to 1, on the same grid.
        midline_mm: LPS x of the falx at the grid's center.
        from_scan: whether ``ct`` is a real scan, with the noise of its scanner.
        template_to_head: maps positions in ICBM152 space (LPS mm) into the head, roughly.
    """

    ct: sitk.Image
    inside_skull: sitk.Image
    parenchyma: sitk.Image
    midline_mm: float
    from_scan: bool
    template_to_head: sitk.Transform


@cache
def _tissue_maps() -> sitk.Image:
    """Gray matter, white matter, brain: one vector image in LPS, 1 mm."""
    try:
        from nilearn import datasets
    except ImportError as error:
        raise MissingLibraryError(
            "Simulation needs nilearn for its anatomy: run `pip install hematoma-expansion[sim]`."
        ) from error
    maps = [
        datasets.load_mni152_gm_template(resolution=1),
        datasets.load_mni152_wm_template(resolution=1),
        datasets.load_mni152_brain_mask(resolution=1),
    ]
    # nilearn's arrays are (x, y, z) toward right, anterior, superior.
    channels = [np.asarray(image.dataobj, dtype=np.float32)[::-1, ::-1, :].transpose(2, 1, 0) for image in maps]
    last = (np.array(maps[0].shape) - 1) @ maps[0].affine[:3, :3].T + maps[0].affine[:3, 3]
    size = maps[0].shape
    grid = Grid(
        (int(size[0]), int(size[1]), int(size[2])),
        (1.0, 1.0, 1.0),
        (float(-last[0]), float(-last[1]), float(maps[0].affine[2, 3])),
        _STRAIGHT,
    )
    return image_on(grid, np.stack(channels, axis=-1))


def icbm_anatomy(random: np.random.Generator) -> Anatomy:
    """A head varied at random in size, proportions, tilt, shape and atrophy, at 1 mm."""
    affine = _random_affine(random)
    grid = Grid((216, 232, 168), (1.0, 1.0, 1.0), (-107.5, -110.0, -76.0), _STRAIGHT)
    warp = sitk.DisplacementFieldTransform(_random_warp(grid, random))
    head_to_template = sitk.CompositeTransform([affine.GetInverse(), warp])
    maps = sitk.Resample(
        _tissue_maps(),
        grid.size,
        head_to_template,
        sitk.sitkLinear,
        grid.origin,
        grid.spacing,
        grid.direction,
    )
    gray, white, brain = np.moveaxis(sitk.GetArrayFromImage(maps), -1, 0)
    depth = _distance_from(_distance_from(brain > 0.5) <= _BRIDGED_MM) + _BRIDGED_MM
    depth -= random.uniform(1.0, 3.0)  # subarachnoid space
    inside = depth <= 0
    hu = _skull_and_scalp(depth, random)
    hu[inside] = _brain_hu(gray, white, random)[inside]
    midline = affine.TransformPoint((0.0, 20.0, 10.0))[0]
    _add_falx_and_sinus(hu, gray + white, inside, depth, grid, affine)
    _add_calcifications(hu, grid, affine, random)
    _add_holder(hu, grid, random)
    return Anatomy(
        image_on(grid, hu.astype(np.float32)),
        image_on(grid, inside.astype(np.uint8)),
        image_on(grid, np.clip(gray + white, 0, 1).astype(np.float32)),
        midline,
        from_scan=False,
        template_to_head=affine,
    )


def _distance_from(mask: Array) -> Array:
    """Distance in voxels to the mask's surface, negative inside."""
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    return sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(image, squaredDistance=False))


def _random_affine(random: np.random.Generator) -> sitk.AffineTransform:
    """Template to head: scale, small rotations (head tilt) and shear."""
    affine = sitk.AffineTransform(3)
    scale = _MEAN_SCALE * random.normal(1.0, 0.02) * random.normal(1.0, 0.025, size=3)
    affine.Scale(scale.tolist())
    for first, second in ((0, 1), (0, 2), (1, 2)):
        affine.Rotate(first, second, float(np.deg2rad(random.normal(0.0, 4.0))))
        affine.Shear(first, second, random.normal(0.0, 0.015))
    return affine


def _random_warp(grid: Grid, random: np.random.Generator) -> sitk.Image:
    """Smooth random displacement of a few mm, on a coarse grid that covers ``grid``."""
    coarse = grid.with_spacing((8.0, 8.0, 8.0))
    field = np.stack(
        [gaussian_filter(random.normal(size=coarse.shape), 2.5, mode="wrap") for _ in range(3)], axis=-1
    )
    return image_on(coarse, field / field.std() * random.uniform(1.0, 2.2))


def _brain_hu(gray: Array, white: Array, random: np.random.Generator) -> Array:
    """HU of the mixture of gray matter, white matter and CSF."""
    atrophy = random.uniform(0.0, 0.35)
    gray, white = np.clip(gray, 0, 1), np.clip(white, 0, 1)
    share = np.clip((gray + white - 0.5 * atrophy) / (1 - 0.5 * atrophy), 0, 1)
    share = share / np.maximum(gray + white, 1e-3)
    gray, white = gray * share, white * share
    csf = np.clip(1 - gray - white, 0, 1)
    return (gray * random.uniform(36, 41) + white * random.uniform(27, 32) + csf * random.uniform(3, 12)).astype(
        np.float32
    )


def _skull_and_scalp(depth: Array, random: np.random.Generator) -> Array:
    """HU outside of the skull's inside, by the distance from it in mm."""
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


def _add_falx_and_sinus(
    hu: Array, tissue: Array, inside: Array, depth: Array, grid: Grid, affine: sitk.AffineTransform
) -> None:
    """Falx in the fissure between the hemispheres, and the superior sagittal sinus where it meets the bone."""
    normal = np.array(affine.TransformVector((1.0, 0.0, 0.0), (0.0, 0.0, 0.0)))
    center = np.array(affine.TransformPoint((0.0, 0.0, 0.0)))
    normal /= np.linalg.norm(normal)
    z, y, x = np.ogrid[tuple(slice(n) for n in grid.shape)]
    x, y, z = x + grid.origin[0], y + grid.origin[1], z + grid.origin[2]
    off_midline = np.abs((x - center[0]) * normal[0] + (y - center[1]) * normal[1] + (z - center[2]) * normal[2])
    above = z > center[2] + 25 * _MEAN_SCALE
    hu[inside & (off_midline < 0.8) & above & (tissue < 0.75)] = 48.0
    behind = above & ((y > center[1]) | (z > center[2] + 50))
    sinus = inside & (off_midline + 0.8 * np.abs(depth) < 4.0) & behind
    hu[sinus] = 52.0


def _add_calcifications(hu: Array, grid: Grid, affine: sitk.AffineTransform, random: np.random.Generator) -> None:
    """Pineal gland and choroid plexus, calcified in most adults: dense, small, and no blood."""
    for template in ((0.0, 25.0, 2.0), (-20.0, 38.0, 10.0), (20.0, 38.0, 10.0)):
        if random.random() < 0.65:
            center = np.array(affine.TransformPoint(template)) + random.normal(0, 2, size=3)
            _paint_ball(hu, grid, center, random.uniform(1.2, 3.2), random.uniform(80, 250))


def _paint_ball(hu: Array, grid: Grid, center: Array, radius: float, value: float) -> None:
    z, y, x = np.ogrid[tuple(slice(n) for n in grid.shape)]
    squared = (
        (x + grid.origin[0] - center[0]) ** 2
        + (y + grid.origin[1] - center[1]) ** 2
        + (z + grid.origin[2] - center[2]) ** 2
    )
    hu[squared <= radius**2] = value


def _add_holder(hu: Array, grid: Grid, random: np.random.Generator) -> None:
    """A head holder: a thin curved shell behind the head, in two thirds of the scans."""
    if random.random() < 1 / 3:
        return
    behind = np.flatnonzero((hu > -500).any(axis=(0, 2)))[-1]
    radius, middle = random.uniform(100, 130), grid.size[0] / 2
    y, x = np.ogrid[: grid.size[1], : grid.size[0]]
    distance = np.hypot(x - middle, y - (behind + random.uniform(3, 7) - radius))
    shell = (np.abs(distance - radius) < 1.5) & (y > behind - 40)
    hu[:, shell] = np.maximum(hu[:, shell], random.uniform(-100, 150))


def anatomy_from_scan(scan: HeadCT) -> Anatomy:
    """A real head CT without a bleed, as it is; positions in ICBM152 space are fitted to its brain's box."""
    from HematomaExpansionLib.brain import extract_brain

    inside = extract_brain(scan.image).mask
    hu = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(scan.image, 1.2))
    within = sitk.GetArrayFromImage(inside) > 0
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
        float(affine.TransformPoint((0.0, 20.0, 10.0))[0]),
        from_scan=True,
        template_to_head=affine,
    )


def crop(anatomy: Anatomy, grid: Grid) -> tuple[Array, Array]:
    """Inside of the skull and parenchyma, shares from 0 to 1 as arrays (z, y, x) on ``grid``."""
    return average_onto(anatomy.inside_skull, grid), average_onto(anatomy.parenchyma, grid)
