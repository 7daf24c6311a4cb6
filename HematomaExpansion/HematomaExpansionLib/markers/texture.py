"""A hematoma as a radiologist sees it: slice by slice, and without the margin where blood and brain mix.

Every scan is brought to pixels of 1 mm, slices of 5 mm and one smoothness, so that densities and shapes mean the
same on each. Slices thicker than that stay as they are. Densities are in HU, arrays (z, y, x), slices axial.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..scan.grid import Array, Grid, image_on
from ..scan.intensities import AIR_HU
from ..scan.mask import Mask
from ..scan.resampling import crop_to, resample
from ..scan.shapes import largest_component

_PIXEL_MM, _SLICE_MM, _THICK_MM, _AROUND_MM = 1.0, 5.0, 4.5, 12.0
_PHASES = (-0.25, 0.25)
"""Where slices of 5 mm made of thinner ones lie, in slices: two readings, since signs depend a little on it."""

_SMOOTH_MM = 1.2
"""SD of the smoothness in plane: wider than the blur of a pixel of 1 mm, narrower than the smallest sign."""

_MARGIN_PIXELS = 2
_LOW = 0.55
_ISODENSE_HU, _DARK_MARGIN_PIXELS = 8.0, 3
LEVEL_DEGREES = 20.0
"""How far from level a border may be, since the head may be tilted a little."""

IN_PLANE = np.ones((1, 3, 3), bool)
_USUAL_BRAIN_HU, _BRAIN_RANGE_HU, _MIN_BRAIN_VOXELS = 35.0, (20.0, 50.0), 30
_MIN_IN_CORE, _MIN_IN_PARTS, _MIN_BESIDE_PLANE, _MIN_PART, _MIN_CLOTTED = 20, 40, 6, 0.18, 0.25
_BORDER_MM, _PURE = 1.0, 70
_CSF_RANGE_HU, _CSF_MARGIN_PIXELS = (-50.0, 15.0), 3
_DIRECTIONS, _REACH_PIXELS, _ENCLOSED = 24, 12, 0.7
ENCLOSING_HU = 10.0
"""How much denser than a hypodense region the clot in a direction must be to enclose it there."""

NOTHING_HU = -1000.0
"""Where there is no blood to measure."""


@dataclass(frozen=True)
class Clot:
    """A hematoma on the grid used to measure its texture and its outline.

    Attributes:
        hu: the CT, smoothed.
        share: how much of each voxel is blood, of all parts of the hematoma.
        mask: the hematoma's largest part, holes filled.
        core: ``mask`` without the margin where blood and brain share a voxel.
        clot_hu: density of the dense part of the core.
        brain_hu: density of the brain 5 to 11 mm from the hematoma.
    """

    grid: Grid
    hu: Array
    share: Array
    mask: Array
    core: Array
    clot_hu: float
    brain_hu: float

    @property
    def low(self) -> Array:
        """Where blood is clearly less dense than dense clot, about halfway to brain."""
        return self.hu < self.brain_hu + _LOW * (self.clot_hu - self.brain_hu)

    @property
    def clotted(self) -> Array:
        """The core without regions about as dark as brain and their margin."""
        dark = self.hu < self.brain_hu + _ISODENSE_HU
        return self.core & ~ndimage.binary_dilation(dark & self.core, IN_PLANE, iterations=_DARK_MARGIN_PIXELS)

    @property
    def inner(self) -> Array:
        """The core away from CSF: what shares voxels with a ventricle or sulcus, in its slice or through it, is no
        hypodense blood."""
        low, high = _CSF_RANGE_HU
        csf = (self.hu > low) & (self.hu < high)
        through = ndimage.binary_dilation(csf, np.ones((3, 1, 1), bool))
        return self.core & ~ndimage.binary_dilation(through, IN_PLANE, iterations=_CSF_MARGIN_PIXELS)

    @property
    def pixel_mm2(self) -> float:
        """Area of a pixel."""
        return self.grid.spacing[0] * self.grid.spacing[1]


def find_clots(ct: sitk.Image, mask: Mask) -> list[Clot]:
    """The clot of a nonempty mask on the grid of the CT (HU), axes nearest LPS, once for each reading.

    A scan of thick slices is read once, one of thin slices twice.
    """
    phases = (0.0,) if mask.grid.spacing[2] > _THICK_MM else _PHASES
    return [_find_clot(ct, mask, working_grid(mask, phase)) for phase in phases]


def _find_clot(ct: sitk.Image, mask: Mask, grid: Grid) -> Clot:
    hu = slices_onto(ct, grid, _SMOOTH_MM, outside=AIR_HU)
    share = slices_onto(mask.image, grid, 0.0)
    whole = share >= min(0.5, float(share.max()))
    filled = np.stack([ndimage.binary_fill_holes(part) for part in whole])
    main = largest_component(filled)
    core = _core(main)
    near, wide = (ndimage.binary_dilation(filled, IN_PLANE, iterations=n) for n in (5, 11))
    low, high = _BRAIN_RANGE_HU
    brain = hu[wide & ~near & (hu > low) & (hu < high)]
    brain_hu = float(np.median(brain)) if len(brain) >= _MIN_BRAIN_VOXELS else _USUAL_BRAIN_HU
    return Clot(grid, hu, share, main, core, float(np.percentile(hu[core], 80)), brain_hu)


def working_grid(mask: Mask, phase: float = 0.0) -> Grid:
    """Pixels of 1 mm, and slices of 5 mm or the scan's own thicker ones, around a nonempty mask.

    Slices made of thinner ones lie around the mask's center of mass, wherever the scan's slices begin, and
    ``phase`` slices above it.
    """
    x_mm, y_mm, z_mm = mask.grid.spacing
    around = np.array([_AROUND_MM, _AROUND_MM, 2 * _SLICE_MM])
    if z_mm > _THICK_MM:
        box = mask.box_grid(np.ceil(around / (x_mm, y_mm, z_mm)).astype(int))
        return box.with_spacing((_PIXEL_MM, _PIXEL_MM, z_mm))
    _, size = mask.box
    spacing = (_PIXEL_MM, _PIXEL_MM, _SLICE_MM)
    count = 2 * np.ceil((size * mask.grid.spacing + 2 * around) / spacing / 2).astype(int) + 1
    x, y, z = np.argwhere(mask.voxels).mean(axis=0)[::-1]
    return mask.grid.centered_at(mask.grid.point((x, y, z + phase * _SLICE_MM / z_mm)), count.tolist(), spacing)


def slices_onto(image: sitk.Image, grid: Grid, smooth_mm: float, *, outside: float = 0.0) -> Array:
    """``image`` as a float32 array (z, y, x) on a grid with parallel axes: averaged over that grid's
    thick slices and smoothed in plane by a Gaussian, so that resolution does not depend on the scan's voxels.

    ``smooth_mm``: SD of the Gaussian; interpolation blurs too, and counts.
    """
    near = crop_to(image, grid)
    own = Grid.of(near)
    array = sitk.GetArrayFromImage(near).astype(np.float32)
    to_own = np.linalg.inv(np.array(own.direction).reshape(3, 3)) @ (np.array(grid.origin) - own.origin)
    centers = float(to_own[2]) + grid.spacing[2] * np.arange(grid.size[2])
    weights = _overlaps(centers, grid.spacing[2], own.spacing[2], own.size[2])
    covered = weights.sum(axis=1)
    thick = np.tensordot(weights / np.maximum(covered, 1e-6)[:, None], array, axes=1)
    thick[covered < 0.5] = outside
    pixel = np.array(own.spacing[:2])[::-1]
    missing = np.sqrt(np.maximum(smooth_mm**2 - pixel**2 / 6, 0)) / pixel
    smooth = ndimage.gaussian_filter(thick, (0, *missing))
    stack = Grid(
        (own.size[0], own.size[1], grid.size[2]),
        (own.spacing[0], own.spacing[1], grid.spacing[2]),
        tuple((np.array(own.origin) + np.array(own.direction).reshape(3, 3)[:, 2] * centers[0]).tolist()),
        own.direction,
    )
    return sitk.GetArrayFromImage(resample(image_on(stack, smooth.astype(np.float32)), grid, outside=outside))


def _overlaps(centers: Array, thick_mm: float, slice_mm: float, count: int) -> Array:
    """Share of each thick slice (rows; centers in mm from the first slice's) that lies in each slice (columns)."""
    middle = slice_mm * np.arange(count)
    low = np.maximum(centers[:, None] - thick_mm / 2, middle - slice_mm / 2)
    high = np.minimum(centers[:, None] + thick_mm / 2, middle + slice_mm / 2)
    return np.clip(high - low, 0, None) / thick_mm


def _core(main: Array) -> Array:
    """A mask without its margin, as far as that leaves enough to measure."""
    for pixels in range(_MARGIN_PIXELS, 0, -1):
        core = ndimage.binary_erosion(main, IN_PLANE, iterations=pixels)
        if core.sum() >= _MIN_IN_CORE:
            return core
    return main


def enclosed_hu(clot: Clot) -> tuple[Array, Array]:
    """How far each pixel of the core lies below the clot around it in its slice, in HU (z, y, x), far below zero
    elsewhere; and the share of the directions in which the clot is at least ``ENCLOSING_HU`` denser.

    Looks in 24 directions, 12 mm far, for the densest clot. In 7 of 10 of them it is at least this much denser: a
    few gaps in a thin rim, which noise or the slice's thickness may open, count for little.
    """
    deeper = _densest_around(clot) - clot.hu[clot.core]
    depth, share = np.full(clot.hu.shape, NOTHING_HU), np.zeros(clot.hu.shape)
    depth[clot.core] = np.percentile(deeper, 100 * (1 - _ENCLOSED), axis=0)
    share[clot.core] = (deeper >= ENCLOSING_HU).mean(axis=0)
    return depth, share


def _densest_around(clot: Clot) -> Array:
    """The densest clot in each direction from each pixel of the core, in HU, (direction, pixel)."""
    reach = ((0, 0), (_REACH_PIXELS, _REACH_PIXELS), (_REACH_PIXELS, _REACH_PIXELS))
    blood = np.pad(np.where(clot.mask, clot.hu, NOTHING_HU), reach, constant_values=NOTHING_HU)
    z, y, x = (np.argwhere(clot.core) + np.array([0, _REACH_PIXELS, _REACH_PIXELS])).T
    angles = 2 * np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
    steps = np.arange(1, _REACH_PIXELS + 1)
    across = np.rint(np.outer(np.cos(angles), steps)).astype(int)
    along = np.rint(np.outer(np.sin(angles), steps)).astype(int)
    return np.stack(
        [
            np.max([blood[z, y + dy, x + dx] for dy, dx in zip(*ways, strict=True)], axis=0)
            for ways in zip(along, across, strict=True)
        ]
    )


def disc(mm2: int) -> Array:
    """The pixels (1, y, x) of a disc of about that area on the working grid, at most 49 mm²."""
    y, x = np.mgrid[-4:5, -4:5]
    order = np.sort((y**2 + x**2).ravel())
    return (y**2 + x**2 <= order[mm2 - 1])[None]


def around(clot: Clot, region: Array) -> float:
    """Density of the clot 2 to 6 mm from a region (z, y, x), or of dense clot if there is none."""
    near, far = (ndimage.binary_dilation(region, IN_PLANE, iterations=n) for n in (2, 6))
    ring = far & ~near & clot.mask & ~clot.low
    return float(np.median(clot.hu[ring])) if ring.any() else clot.clot_hu


@dataclass(frozen=True)
class Parts:
    """The clotted part of the core, split by the plane whose sides differ most in density.

    Attributes:
        difference_hu: between the two sides, away from the plane.
        explained: share of the density variance that the cut explains: 1 for two uniform parts.
        light_share: share that lies on the less dense side.
        toward_dense: unit vector across the plane toward the denser side, LPS.
        light: voxels of the less dense side.
    """

    difference_hu: float
    explained: float
    light_share: float
    toward_dense: Array
    light: Array


def two_parts(clot: Clot, *, level: bool = False) -> Parts | None:
    """The core in two parts; None if it is too small for that.

    ``level``: the border must be level, with the denser part below, in a patient lying supine.
    """
    direction = np.array(clot.grid.direction).reshape(3, 3)
    ways = _half_sphere()
    if level:
        ways = np.concatenate([ways, -ways]) @ direction.T
        ways = ways[ways[:, 1] > np.cos(np.radians(LEVEL_DEGREES))] @ direction
    clotted = clot.clotted
    if clotted.sum() < max(_MIN_IN_PARTS, _MIN_CLOTTED * clot.core.sum()):
        return None
    points = np.argwhere(clotted)[:, ::-1] * np.array(clot.grid.spacing)
    points -= points.mean(axis=0)
    values = clot.hu[clotted].astype(float)
    cuts = (_best_cut(points @ way, values, way) for way in ways)
    between, normal, offset = max(cuts, key=lambda cut: cut[0])
    depth = points @ normal - offset
    dense, light = values[depth > _BORDER_MM], values[depth < -_BORDER_MM]
    if min(len(dense), len(light)) < _MIN_BESIDE_PLANE:
        return None
    where = np.zeros(clotted.shape, bool)
    where[clotted] = depth < 0
    # Not the medians: what lies near the border or a hypodense region holds some of the other density.
    difference = float(np.percentile(dense, _PURE) - np.percentile(light, 100 - _PURE))
    explained = between / max(float(values.var()), 1e-6)
    return Parts(difference, explained, float((depth < 0).mean()), direction @ normal, where)


def _half_sphere(count: int = 200) -> Array:
    """Unit vectors spread evenly over a hemisphere."""
    k = np.arange(count) + 0.5
    polar, turn = np.arccos(1 - k / count), np.pi * (1 + np.sqrt(5)) * k
    return np.stack([np.cos(turn) * np.sin(polar), np.sin(turn) * np.sin(polar), np.cos(polar)], axis=1)


def _best_cut(depth: Array, values: Array, way: Array) -> tuple[float, Array, float]:
    """The best cut across ``way``: variance between its parts, unit vector toward the denser part, offset."""
    order = np.argsort(depth)
    count, total = len(values), np.cumsum(values[order])
    cut = np.arange(int(_MIN_PART * count), int((1 - _MIN_PART) * count))
    below, above = total[cut] / (cut + 1), (total[-1] - total[cut]) / (count - cut - 1)
    between = (above - below) ** 2 * (cut + 1) * (count - cut - 1) / count**2
    best = int(between.argmax())
    sign = 1.0 if above[best] >= below[best] else -1.0
    return float(between[best]), sign * way, sign * float(depth[order][cut[best]])
