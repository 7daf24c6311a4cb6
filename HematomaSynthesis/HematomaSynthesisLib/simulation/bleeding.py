"""The baseline hematoma: where it lies, its shape, its texture, and where it is still bleeding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from HematomaExpansionLib.grid import Array, Grid, image_on, resample
from scipy.ndimage import gaussian_filter, label

from .anatomy import Anatomy, crop

# Site -> share of patients, and centers in ICBM152 space (LPS mm) with their scatter; one side of two.
SITES: dict[str, tuple[float, tuple[tuple[float, float, float], ...], float]] = {
    "deep": (0.60, ((26.0, 4.0, 3.0), (14.0, 19.0, 8.0)), 3.5),
    "lobar": (0.28, ((34.0, -30.0, 22.0), (44.0, 32.0, 28.0), (46.0, 24.0, -2.0), (26.0, 68.0, 18.0)), 6.0),
    "cerebellar": (0.12, ((22.0, 62.0, -34.0),), 4.0),
}
_GRID_MM = 1.0


@dataclass(frozen=True)
class BleedingParameters:
    """What is drawn for one bleed before any image is made; volumes in mL, lengths in mm.

    ``pocket_mm`` is the radius of the hypodense pocket at the bleeding edge (0: none), ``decoy_mm`` that of
    a pocket elsewhere which means nothing.
    """

    site: str
    volume_ml: float
    irregularity: float
    lobes: int
    hu: float
    texture_hu: float
    pocket_mm: float
    pocket_hu: float
    decoy_mm: float
    edema_mm: float


@dataclass(frozen=True)
class Hematoma:
    """A bleed on a fine grid around it.

    Attributes:
        level: signed distance in mm to its surface, positive inside; LPS.
        hu: density of the blood, on the same grid.
        center: its center of mass, LPS mm.
        bleeding_direction: unit vector from the center to where it is still bleeding.
    """

    level: sitk.Image
    hu: sitk.Image
    center: Array
    bleeding_direction: Array


def make_hematoma(anatomy: Anatomy, parameters: BleedingParameters, random: np.random.Generator) -> Hematoma:
    """A bleed of the wanted volume within gray and white matter."""
    seed = _seed_point(anatomy, parameters.site, random)
    grid = _grid_around(seed, parameters.volume_ml)
    inside, tissue = crop(anatomy, grid)
    allowed = (inside > 0.9) & (gaussian_filter(tissue, 1.0) > 0.4)
    direction = _bleeding_direction(seed, grid, inside, random)
    level = _level(grid, seed, allowed, direction, parameters, random)
    points = _positions(grid)
    center = points[level > 0].mean(axis=0)
    hu = _blood_hu(level, points, center, direction, parameters, random)
    return Hematoma(image_on(grid, level), image_on(grid, hu), center, direction)


def _seed_point(anatomy: Anatomy, site: str, random: np.random.Generator) -> Array:
    """A point of the site, on a random side, that lies well within brain tissue."""
    _, centers, scatter = SITES[site]
    best, most = np.zeros(3), -1.0
    for _ in range(20):
        template = np.array(centers[random.integers(len(centers))]) + random.normal(0, scatter, size=3)
        template[0] *= random.choice([-1.0, 1.0])
        point = np.array(anatomy.template_to_head.TransformPoint(template.tolist()))
        cube = Grid((9, 9, 9), (2.0, 2.0, 2.0), tuple((point - 8.0).tolist()), (1.0, 0, 0, 0, 1, 0, 0, 0, 1))
        inside, share = crop(anatomy, cube)
        amount = float((inside * share).mean())
        if amount > most:
            best, most = point, amount
        if amount > 0.85:
            break
    return best


def _grid_around(point: Array, volume_ml: float) -> Grid:
    radius = (3 * 1000 * volume_ml / (4 * np.pi)) ** (1 / 3)
    half = int(np.ceil(2.2 * radius + 12))
    origin = np.round(point) - half * _GRID_MM
    size = 2 * half + 1
    return Grid(
        (size, size, size),
        (_GRID_MM,) * 3,
        (float(origin[0]), float(origin[1]), float(origin[2])),
        (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    )


def _positions(grid: Grid) -> Array:
    """LPS positions (z, y, x, 3) of a straight grid's voxels."""
    axes = [np.arange(n) * s + o for n, s, o in zip(grid.size, grid.spacing, grid.origin, strict=True)]
    z, y, x = np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    return np.stack([x, y, z], axis=-1)


def _bleeding_direction(seed: Array, grid: Grid, inside: Array, random: np.random.Generator) -> Array:
    """A direction in which there is room: the best of a few."""
    candidates = random.normal(size=(4, 3)) * (1.0, 1.0, 0.7)
    candidates /= np.linalg.norm(candidates, axis=1, keepdims=True)
    ahead = seed + 28.0 * candidates
    index = np.round((ahead - grid.origin) / _GRID_MM).astype(int)
    index = np.clip(index, 0, np.array(grid.size) - 1)
    room = inside[index[:, 2], index[:, 1], index[:, 0]]
    return candidates[int(room.argmax())]


def _smooth_noise(shape: tuple[int, ...], width: float, random: np.random.Generator) -> Array:
    noise = gaussian_filter(random.normal(size=shape), width)
    return noise / noise.std()


def _level(
    grid: Grid,
    seed: Array,
    allowed: Array,
    direction: Array,
    parameters: BleedingParameters,
    random: np.random.Generator,
) -> Array:
    """Signed distance in mm, positive inside, of a shape with exactly the wanted volume."""
    radius = (3 * 1000 * parameters.volume_ml / (4 * np.pi)) ** (1 / 3)
    offset = _positions(grid) - seed
    axes = radius * np.exp(random.normal(0, 0.22, size=3))
    axes[2] *= 0.9
    turn = sitk.Euler3DTransform((0, 0, 0), *random.uniform(-0.4, 0.4, size=2), random.uniform(-np.pi, np.pi))
    turned = offset @ np.array(turn.GetMatrix()).reshape(3, 3)
    shape = 1 - np.linalg.norm(turned / axes, axis=-1)
    for _ in range(parameters.lobes):
        aside = random.normal(size=3)
        center = 0.8 * radius * aside / np.linalg.norm(aside)
        lobe = random.uniform(0.45, 0.65) * radius
        shape = np.maximum(shape, (lobe - np.linalg.norm(offset - center, axis=-1)) / radius)
    if parameters.pocket_mm > 0:  # the edge bulges where it bleeds
        bulge = offset - 0.85 * radius * direction
        shape += 0.35 * np.exp(-((np.linalg.norm(bulge, axis=-1) / (0.45 * radius)) ** 2))
    shape += parameters.irregularity * _smooth_noise(grid.shape, max(3.0, 0.3 * radius), random)
    binary = _connected_top(np.where(allowed, shape, -np.inf), round(1000 * parameters.volume_ml / _GRID_MM**3))
    distance = sitk.GetArrayFromImage(
        sitk.SignedMaurerDistanceMap(
            image_on(grid, binary.astype(np.uint8)), insideIsPositive=True, squaredDistance=False
        )
    )
    smooth = gaussian_filter(distance, 0.8)
    wanted = round(1000 * parameters.volume_ml / _GRID_MM**3)
    return (smooth - np.partition(smooth.ravel(), -wanted)[-wanted]).astype(np.float32)


def _connected_top(shape: Array, voxels: int) -> Array:
    """The connected set of about that many voxels where ``shape`` is largest."""
    count = voxels
    largest = np.zeros(shape.shape, bool)
    for _ in range(6):
        count = min(count, int(np.isfinite(shape).sum()))
        top = shape >= np.partition(shape.ravel(), -count)[-count]
        labels, number = label(top)
        sizes = np.bincount(labels.ravel(), minlength=number + 1)[1:]
        largest = labels == 1 + int(sizes.argmax())
        if sizes.max() >= 0.97 * voxels:
            break
        count += voxels - int(sizes.max())
    return largest


def _blood_hu(
    level: Array,
    points: Array,
    center: Array,
    direction: Array,
    parameters: BleedingParameters,
    random: np.random.Generator,
) -> Array:
    """Density of the blood: clot with a smooth texture, and pockets of fresh, less dense blood."""
    hu = parameters.hu + parameters.texture_hu * _smooth_noise(level.shape, 2.5, random)
    if parameters.pocket_mm > 0:
        surface = points[(level > 0) & (level < 1.5)]
        aligned = (surface - center) @ direction / np.linalg.norm(surface - center, axis=1)
        edge = surface[int(aligned.argmax())] - 0.6 * parameters.pocket_mm * direction
        hu = _pocket(hu, points, edge, parameters.pocket_mm, parameters.pocket_hu, random)
    if parameters.decoy_mm > 0:
        deep = points[level > 0.5 * level.max()]
        spot = deep[random.integers(len(deep))]
        hu = _pocket(hu, points, spot, parameters.decoy_mm, parameters.pocket_hu, random)
    return hu.astype(np.float32)


def _pocket(
    hu: Array, points: Array, center: Array, radius: float, pocket_hu: float, random: np.random.Generator
) -> Array:
    ragged = 0.25 * _smooth_noise(hu.shape, 2.0, random)
    share = 1 / (1 + np.exp(6 * (np.linalg.norm(points - center, axis=-1) / radius - 1 + ragged)))
    return hu * (1 - share) + pocket_hu * share


def paint(ct: sitk.Image, hematoma: Hematoma, edema_mm: float, *, keep_noise: bool) -> sitk.Image:
    """``ct`` (HU) with the hematoma in it and a rim of edema around it.

    ``keep_noise``: the scan is a real one, and its fine grain is kept on top of the new densities.
    """
    grid = Grid.of(ct)
    level = sitk.GetArrayFromImage(resample(hematoma.level, grid, outside=-1000.0))
    near = level > -(edema_mm + 12)
    blood_share = np.clip(level + 0.5, 0, 1)
    edema_share = 0.75 * np.clip(1 + level / max(edema_mm, 0.5), 0, 1) * (edema_mm > 0)
    hu = sitk.GetArrayFromImage(ct).astype(np.float32)
    tissue = hu
    if keep_noise:
        tissue = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(ct, 1.2))
    grain = hu - tissue
    blood = sitk.GetArrayFromImage(resample(hematoma.hu, grid))
    parenchyma = (tissue > 15) & (tissue < 60)
    base = np.where(parenchyma, tissue * (1 - edema_share) + 23.0 * edema_share, tissue)
    painted = base * (1 - blood_share) + blood * blood_share + grain
    return image_on(grid, np.where(near, painted, hu).astype(np.float32))
