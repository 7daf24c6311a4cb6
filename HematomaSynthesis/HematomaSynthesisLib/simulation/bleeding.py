"""The baseline hematoma: where it lies, its shape, its texture, and the signs of where it is still bleeding."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import SimpleITK as sitk
from HematomaExpansionLib.scan.grid import Array, Grid, image_on
from HematomaExpansionLib.scan.resampling import resample
from HematomaExpansionLib.scan.shapes import distance_map, largest_component
from scipy.ndimage import gaussian_filter

from .anatomy import Anatomy, crop
from .template import STRAIGHT

# Site -> share of patients, and centers in ICBM152 space (LPS mm) with their scatter, for one of the two sides.
SITES: dict[str, tuple[float, tuple[tuple[float, float, float], ...], float]] = {
    "deep": (0.60, ((26.0, 4.0, 3.0), (14.0, 19.0, 8.0)), 3.5),
    "lobar": (0.28, ((34.0, -30.0, 22.0), (44.0, 32.0, 28.0), (46.0, 24.0, -2.0), (26.0, 68.0, 18.0)), 6.0),
    "cerebellar": (0.12, ((22.0, 62.0, -34.0),), 4.0),
}
_GRID_MM = 1.0
_EDEMA_HU = 25.0
_RIM_MM, _MIN_POCKET_MM, _CLEARANCE = 2.0, 3.0, 1.15
"""Thickness of clot over a swirl and around a pocket; radius of the smallest pocket visible in a 5 mm slice; how
far each keeps the others from its center, in radii."""
MIN_SWIRL_MM, _SHRINK_FACTOR = 4.0, 0.85
"""Radius of the smallest swirl visible in a 5 mm slice; factor by which a swirl shrinks to make room for a
pocket."""
_ENCLOSED = ("black_hole_mm", "pocket_mm", "decoy_mm")
"""The enclosed pockets, in the order in which they get room; the last two exclude each other."""
_BLACK_HOLE_DROP_HU = 38.0
"""At its center, so that more than the criterion's 28 HU remain in a 5 mm slice."""
_SATELLITE_MM, _SATELLITE_SHARE = (2.8, 4.8), 0.45
"""Range of radii: smaller satellites would vanish between two 5 mm slices, larger ones would not be satellites.
And the largest radius as a share of the whole bleed's."""
_APART_MM = 2.0
_FLAT = np.array([1.0, 1.0, 0.3])
"""Satellites lie beside the bleed rather than above or below: thick slices would join them to it."""


@dataclass(frozen=True)
class BleedingParameters:
    """What is drawn for one bleed before any image is made; volumes in mL, lengths in mm, densities in HU.

    Attributes:
        irregularity: how much the margin varies, as a fraction of the radius.
        lobes: number of rounded parts on the main one.
        swirl_mm: radius of the ragged hypodense region just beneath the bleeding edge; 0 for none.
        pocket_mm: radius of an enclosed hypodense pocket near the bleeding edge; 0 for none.
        black_hole_mm: radius of an enclosed, round, much darker pocket; 0 for none.
        decoy_mm: radius of an enclosed hypodense pocket on any side, which means nothing; 0 for none.
        blend_share: share of the bleed, on the bleeding side, that is less dense, with a sharp border.
        fluid_share: share of the bleed that is less dense, above a horizontal border.
        part_drop_hu: how much less dense those two parts are.
        satellites: number of small separate bleeds nearby, most of them on the bleeding side.
        scatter: how far the signs stray from the bleeding direction (radians, roughly).
    """

    site: str
    volume_ml: float
    irregularity: float
    lobes: int
    hu: float
    texture_hu: float
    hypodense_hu: float
    swirl_mm: float
    pocket_mm: float
    black_hole_mm: float
    decoy_mm: float
    blend_share: float
    fluid_share: float
    part_drop_hu: float
    satellites: int
    scatter: float
    edema_mm: float

    @property
    def radius_mm(self) -> float:
        """Radius of a ball of this volume."""
        return float((3 * 1000 * self.volume_ml / (4 * np.pi)) ** (1 / 3))


@dataclass(frozen=True)
class Hematoma:
    """A bleed on a fine grid around it.

    Attributes:
        level: signed distance in mm to its surface, positive inside; LPS.
        hu: density of the blood, on the same grid.
        center: its center of mass, LPS mm.
        bleeding_direction: unit vector from the center to where it is still bleeding.
        drawn: its parameters, with satellites, swirl and pockets reduced to what there was room for.
    """

    level: sitk.Image
    hu: sitk.Image
    center: Array
    bleeding_direction: Array
    drawn: BleedingParameters


def make_hematoma(anatomy: Anatomy, parameters: BleedingParameters, random: np.random.Generator) -> Hematoma:
    """A bleed of the requested volume within gray and white matter."""
    seed = _seed_point(anatomy, parameters.site, random)
    grid = _grid_around(seed, parameters.radius_mm)
    inside, tissue = crop(anatomy, grid)
    allowed = (inside > 0.9) & (gaussian_filter(tissue, 1.0) > 0.4)
    direction = _bleeding_direction(seed, grid, inside, random)
    points = _positions(grid)
    if parameters.site != "cerebellar":  # the falx keeps a bleed in its hemisphere
        side = np.sign(seed[0] - anatomy.midline_mm) or 1.0
        allowed &= side * (points[..., 0] - anatomy.midline_mm) > -1.0
    level, satellites = _level(points, seed, allowed, direction, parameters, random)
    center = points[level > 0].mean(axis=0)
    hu, drawn = _blood_hu(level, points, center, direction, parameters, random)
    drawn = replace(drawn, satellites=satellites)
    return Hematoma(image_on(grid, level), image_on(grid, hu), center, direction, drawn)


def _seed_point(anatomy: Anatomy, site: str, random: np.random.Generator) -> Array:
    """A point of the site, on a random side, that lies well within brain tissue."""
    _, centers, scatter = SITES[site]
    best, most = np.zeros(3), -1.0
    for _ in range(20):
        template = np.array(centers[random.integers(len(centers))]) + random.normal(0, scatter, size=3)
        template[0] *= random.choice([-1.0, 1.0])
        point = np.array(anatomy.template_to_head.TransformPoint(template.tolist()))
        cube = Grid((9, 9, 9), (2.0, 2.0, 2.0), tuple((point - 8.0).tolist()), STRAIGHT)
        inside, share = crop(anatomy, cube)
        amount = float((inside * share).mean())
        if amount > most:
            best, most = point, amount
        if amount > 0.85:
            break
    return best


def _grid_around(point: Array, radius: float) -> Grid:
    half = int(np.ceil(2.2 * radius + 12))
    origin = np.round(point) - half * _GRID_MM
    size = 2 * half + 1
    return Grid(
        (size, size, size), (_GRID_MM,) * 3, (float(origin[0]), float(origin[1]), float(origin[2])), STRAIGHT
    )


def _positions(grid: Grid) -> Array:
    """LPS positions (z, y, x, 3) of a straight grid's voxels."""
    axes = [np.arange(n) * s + o for n, s, o in zip(grid.size, grid.spacing, grid.origin, strict=True)]
    z, y, x = np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    return np.stack([x, y, z], axis=-1)


def _bleeding_direction(seed: Array, grid: Grid, inside: Array, random: np.random.Generator) -> Array:
    """A direction with room to bleed: the best of a few."""
    candidates = random.normal(size=(4, 3)) * (1.0, 1.0, 0.7)
    candidates /= np.linalg.norm(candidates, axis=1, keepdims=True)
    ahead = seed + 28.0 * candidates
    index = np.round((ahead - grid.origin) / _GRID_MM).astype(int)
    index = np.clip(index, 0, np.array(grid.size) - 1)
    room = inside[index[:, 2], index[:, 1], index[:, 0]]
    return candidates[int(room.argmax())]


def _astray(direction: Array, scatter: float, random: np.random.Generator) -> Array:
    """A unit vector near ``direction``."""
    strayed = direction + scatter * random.normal(size=3)
    return strayed / np.linalg.norm(strayed)


def _smooth_noise(shape: tuple[int, ...], width: float, random: np.random.Generator) -> Array:
    noise = gaussian_filter(random.normal(size=shape), width)
    return noise / noise.std()


def _level(
    points: Array,
    seed: Array,
    allowed: Array,
    direction: Array,
    parameters: BleedingParameters,
    random: np.random.Generator,
) -> tuple[Array, int]:
    """Signed distance in mm, positive inside, of a shape with exactly the requested volume; satellite count."""
    radius = parameters.radius_mm
    offset = points - seed
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
    if parameters.swirl_mm > 0:  # the edge bulges where it bleeds
        bulge = offset - 0.85 * radius * direction
        shape += 0.35 * np.exp(-((np.linalg.norm(bulge, axis=-1) / (0.45 * radius)) ** 2))
    shape += parameters.irregularity * _smooth_noise(shape.shape, max(3.0, 0.3 * radius), random)
    wanted = round(1000 * parameters.volume_ml / _GRID_MM**3)
    main = _distance_inside(_connected_top(np.where(allowed, shape, -np.inf), wanted))
    satellites, count = _satellites(main, points, seed, allowed, direction, parameters, random)
    rest = wanted - int(np.count_nonzero(satellites > 0))
    smooth = gaussian_filter(main, 0.8)
    smooth -= np.partition(smooth.ravel(), -rest)[-rest]
    return np.maximum(smooth, satellites).astype(np.float32), count


def _distance_inside(mask: Array) -> Array:
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    return sitk.GetArrayFromImage(distance_map(image, is_positive_inside=True))


def _connected_top(shape: Array, voxels: int) -> Array:
    """The connected set of about that many voxels where ``shape`` is largest."""
    count = voxels
    largest = np.zeros(shape.shape, bool)
    for _ in range(6):
        count = min(count, int(np.isfinite(shape).sum()))
        top = shape >= np.partition(shape.ravel(), -count)[-count]
        largest = largest_component(top)
        if largest.sum() >= 0.97 * voxels:
            break
        count += voxels - int(largest.sum())
    return largest


def _satellites(
    main: Array,
    points: Array,
    seed: Array,
    allowed: Array,
    direction: Array,
    parameters: BleedingParameters,
    random: np.random.Generator,
) -> tuple[Array, int]:
    """Small bleeds at most 10 mm across, 2 to 9 mm from the main one, within tissue.

    Returns their signed distance, and how many there was room for.
    """
    level = np.full(main.shape, -60.0)
    surface = points[(main > 0) & (main <= 1.5)]
    away = (surface - seed) / np.linalg.norm(surface - seed, axis=1, keepdims=True)
    low, high = points[0, 0, 0], points[-1, -1, -1]
    smallest, largest = _SATELLITE_MM
    largest = min(largest, max(smallest, _SATELLITE_SHARE * parameters.radius_mm))
    half = int(np.ceil(largest / _GRID_MM)) + 1
    placed = 0
    for _ in range(40 * parameters.satellites):
        side = _FLAT * _astray(direction, 2 * parameters.scatter, random)
        start = int((away @ side).argmax())
        radius = random.uniform(smallest, largest)
        aside = _FLAT * _astray(away[start], 0.3, random)
        center = surface[start] + (radius + random.uniform(2.0, 9.0)) * aside / np.linalg.norm(aside)
        if np.any(center < low + 6) or np.any(center > high - 6):
            continue
        middle = np.round((center - low) / _GRID_MM).astype(int)[::-1]
        around = tuple(slice(k - half, k + half + 1) for k in middle)
        inside = np.linalg.norm(points[around] - center, axis=-1) < radius
        apart = (np.maximum(main[around], level[around])[inside] < -_APART_MM).all()
        if apart and allowed[around][inside].mean() > 0.95:
            ball = radius - np.linalg.norm(points - center, axis=-1)
            level = np.maximum(level, np.where(allowed, ball, np.minimum(ball, -1.0)))
            placed += 1
        if placed == parameters.satellites:
            break
    return level, placed


@dataclass(frozen=True)
class _Ball:
    """A hypodense region: its center, LPS mm, and its radius in mm."""

    middle: Array
    radius: float


def _blood_hu(
    level: Array,
    points: Array,
    center: Array,
    direction: Array,
    parameters: BleedingParameters,
    random: np.random.Generator,
) -> tuple[Array, BleedingParameters]:
    """Density of the blood: clot with a smooth texture, and the signs in its main part.

    Also returns the parameters, with swirl and pockets reduced to what there was room for.
    """
    satellites = (level > 0) & ~largest_component(level > 0)
    blood = (level > 0) & ~satellites
    texture = _smooth_noise(level.shape, 2.5, random)
    texture = (texture - texture[blood].mean()) / texture[blood].std()  # a small bleed holds few of its waves
    hu = parameters.hu + parameters.texture_hu * texture
    dense = blood.copy()
    if parameters.fluid_share > 0:  # patients lie on their backs: the clot settles posteriorly
        border = np.quantile(points[blood][:, 1], parameters.fluid_share)
        above = points[..., 1] < border
        hu = hu - parameters.part_drop_hu * above
        dense &= ~above
    if parameters.blend_share > 0:
        along = (points - center) @ _astray(direction, parameters.scatter, random)
        part = (along > np.quantile(along[blood], 1 - parameters.blend_share)) & ~satellites
        hu = hu - parameters.part_drop_hu * part
        dense &= ~part
    surface = points[blood & (level < 1.5)]
    balls = _layout_of_signs(dense, surface, points, center, direction, parameters, random)
    for name, ragged in (("black_hole_mm", 0.0), ("pocket_mm", 0.15), ("decoy_mm", 0.15), ("swirl_mm", 0.25)):
        if name in balls:
            value = parameters.hu - _BLACK_HOLE_DROP_HU if name == "black_hole_mm" else parameters.hypodense_hu
            hu = _pocket(hu, points, balls[name], value, ragged, random)
    drawn: dict[str, Any] = dict.fromkeys((*_ENCLOSED, "swirl_mm"), 0.0)
    drawn |= {name: ball.radius for name, ball in balls.items()}
    return hu.astype(np.float32), replace(parameters, **drawn)


def _layout_of_signs(
    dense: Array,
    surface: Array,
    points: Array,
    center: Array,
    direction: Array,
    parameters: BleedingParameters,
    random: np.random.Generator,
) -> dict[str, _Ball]:
    """Where the swirl and the enclosed pockets lie, by parameter name.

    They lie toward the bleeding direction, except for a decoy, and never in another's rim of dense clot.

    If room is short, the swirl is made smaller. If there is no room for both, chance decides which one is drawn:
    if it were always the swirl, patients who keep bleeding, and so have both, would seldom have a pocket.
    """
    sides = {name: _astray(direction, parameters.scatter, random) for name in ("swirl_mm", *_ENCLOSED)}
    sides["decoy_mm"] = _astray(np.zeros(3), 1.0, random)
    outward = (surface - center) / np.linalg.norm(surface - center, axis=1, keepdims=True)
    edge = surface[int((outward @ sides["swirl_mm"]).argmax())]

    def with_swirl(swirl_mm: float) -> dict[str, _Ball]:
        balls: dict[str, _Ball] = {}
        left = dense.copy()
        if swirl_mm > 0:
            balls["swirl_mm"] = _Ball(edge - (swirl_mm + _RIM_MM) * sides["swirl_mm"], swirl_mm)
            left &= _clear_of(points, balls["swirl_mm"])
        for name in _ENCLOSED:
            radius, room = _room_for(getattr(parameters, name), left, points)
            if radius > 0:
                balls[name] = _Ball(room[int(((room - center) @ sides[name]).argmax())], radius)
                left &= _clear_of(points, balls[name])
        return balls

    def pockets(layout: dict[str, _Ball]) -> int:
        return len(layout.keys() & set(_ENCLOSED))

    wanted = sum(getattr(parameters, name) > 0 for name in _ENCLOSED)
    swirl_mm = parameters.swirl_mm
    layout = with_swirl(swirl_mm)
    while pockets(layout) < wanted and swirl_mm > MIN_SWIRL_MM:
        swirl_mm = max(MIN_SWIRL_MM, _SHRINK_FACTOR * swirl_mm)
        layout = max(layout, with_swirl(swirl_mm), key=pockets)  # a tie keeps the larger swirl
    if pockets(layout) < wanted and swirl_mm > 0:
        alone = with_swirl(0.0)
        if pockets(alone) > pockets(layout) and random.random() < 0.5:
            return alone
    return layout


def _room_for(wanted_mm: float, dense: Array, points: Array) -> tuple[float, Array]:
    """The largest radius up to the wanted one that fits in dense clot, or 0; and where its center may lie."""
    depth = _distance_inside(dense) if wanted_mm > 0 else np.zeros(dense.shape)
    radius = min(wanted_mm, float(depth.max()) - _RIM_MM)
    if radius < _MIN_POCKET_MM:
        return 0.0, points[:0]
    return radius, points[depth >= radius + _RIM_MM]


def _clear_of(points: Array, ball: _Ball) -> Array:
    return np.linalg.norm(points - ball.middle, axis=-1) > _CLEARANCE * ball.radius


def _pocket(
    hu: Array,
    points: Array,
    ball: _Ball,
    pocket_hu: float,
    ragged: float,
    random: np.random.Generator,
) -> Array:
    wavering = ragged * _smooth_noise(hu.shape, 2.0, random)
    share = 1 / (1 + np.exp(8 * (np.linalg.norm(points - ball.middle, axis=-1) / ball.radius - 1 + wavering)))
    return hu * (1 - share) + np.minimum(hu, pocket_hu) * share


def paint(ct: sitk.Image, hematoma: Hematoma, edema_mm: float, *, keep_noise: bool) -> sitk.Image:
    """``ct`` (HU) with the hematoma in it and a rim of edema around it.

    ``keep_noise``: the scan is real, and its fine grain stays on top of the new densities.
    """
    grid = Grid.of(ct)
    level = sitk.GetArrayFromImage(resample(hematoma.level, grid, outside=-1000.0))
    near = level > -(edema_mm + 12)
    blood_share = np.clip(level + 0.5, 0, 1)
    edema_share = 0.9 * np.clip(1 + level / max(edema_mm, 0.5), 0, 1) * (edema_mm > 0)
    hu = sitk.GetArrayFromImage(ct).astype(np.float32)
    tissue = hu
    if keep_noise:
        tissue = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(ct, 1.2))
    grain = hu - tissue
    blood = sitk.GetArrayFromImage(resample(hematoma.hu, grid))
    parenchyma = (tissue > 15) & (tissue < 60)
    base = np.where(parenchyma, tissue * (1 - edema_share) + _EDEMA_HU * edema_share, tissue)
    painted = base * (1 - blood_share) + blood * blood_share + grain
    return image_on(grid, np.where(near, painted, hu).astype(np.float32))


def paint_ventricles(ct: sitk.Image, ventricles: sitk.Image, filled: float, hu: float) -> sitk.Image:
    """``ct`` (HU) with blood in the posterior, dependent part of the ventricles, ``filled`` of their volume."""
    share = sitk.GetArrayFromImage(ventricles)
    y = np.broadcast_to(np.arange(share.shape[1])[None, :, None], share.shape)
    inside = share > 0.5
    blood = share * (y > np.quantile(y[inside], 1 - filled)) if inside.any() else 0 * share
    values = sitk.GetArrayFromImage(ct)
    return image_on(Grid.of(ct), (values * (1 - blood) + hu * blood).astype(np.float32))
