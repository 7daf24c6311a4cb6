"""A hematoma as a radiologist sees it: slice by slice, and without the margin where blood and brain mix.

Every scan is resampled to 1 mm pixels and slices of at least 4 mm, with its noise smoothed, so that density
differences mean the same on each. Densities are in HU, arrays (z, y, x), slices axial.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..scan.grid import Array, Grid
from ..scan.intensities import AIR_HU
from ..scan.mask import Mask
from ..scan.resampling import average_onto
from ..scan.shapes import largest_component

_PIXEL_MM, _SLICE_MM, _AROUND_MM = 1.0, 4.0, 12.0
_NOISE_PIXELS = 0.8
_MARGIN_PIXELS = 2
_LOW = 0.55
_ISODENSE_HU, _DARK_MARGIN_PIXELS = 8.0, 3
LEVEL_DEGREES = 20.0
"""How far from level a border may be, since the head may be tilted a little."""

IN_PLANE = np.ones((1, 3, 3), bool)
_USUAL_BRAIN_HU, _BRAIN_RANGE_HU, _MIN_BRAIN_VOXELS = 35.0, (20.0, 50.0), 30
_MIN_IN_CORE, _MIN_IN_PARTS, _MIN_BESIDE_PLANE, _MIN_PART, _MIN_CLOTTED = 20, 40, 6, 0.18, 0.25
_CSF_HU = 15.0


@dataclass(frozen=True)
class Clot:
    """A hematoma on the grid used to measure its texture.

    Attributes:
        hu: the CT, smoothed.
        mask: the hematoma's largest part, holes filled.
        core: ``mask`` without the margin where blood and brain share a voxel.
        clot_hu: density of the dense part of the core.
        brain_hu: density of the brain 5 to 11 mm from the hematoma.
    """

    grid: Grid
    hu: Array
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
    def pixel_mm2(self) -> float:
        """Area of a pixel."""
        return self.grid.spacing[0] * self.grid.spacing[1]


@dataclass(frozen=True)
class LowRegion:
    """A region of low density in one slice of the core.

    Attributes:
        place_mm: its center, LPS.
        area_mm2: its area.
        lowest_hu: its lowest density.
        drop_hu: how far that lies below the density of the clot around it.
        enclosed: share of its surroundings (3 mm wide) that is clot.
    """

    place_mm: tuple[float, float, float]
    area_mm2: float
    lowest_hu: float
    drop_hu: float
    enclosed: float


def find_clot(ct: sitk.Image, mask: Mask) -> Clot:
    """The clot of a nonempty mask on the grid of the CT (HU), axes nearest LPS."""
    grid = _working_grid(mask)
    hu = average_onto(ct, grid, outside=AIR_HU)
    hu = ndimage.gaussian_filter(hu, (0, _NOISE_PIXELS, _NOISE_PIXELS))
    share = average_onto(mask.image, grid)
    whole = share >= min(0.5, float(share.max()))
    filled = np.stack([ndimage.binary_fill_holes(part) for part in whole])
    main = largest_component(filled)
    core = _core(main)
    near, wide = (ndimage.binary_dilation(filled, IN_PLANE, iterations=n) for n in (5, 11))
    low, high = _BRAIN_RANGE_HU
    brain = hu[wide & ~near & (hu > low) & (hu < high)]
    brain_hu = float(np.median(brain)) if len(brain) >= _MIN_BRAIN_VOXELS else _USUAL_BRAIN_HU
    return Clot(grid, hu, main, core, float(np.percentile(hu[core], 80)), brain_hu)


def _working_grid(mask: Mask) -> Grid:
    x_mm, y_mm, z_mm = mask.grid.spacing
    margin = np.ceil([_AROUND_MM / x_mm, _AROUND_MM / y_mm, _SLICE_MM / z_mm]).astype(int)
    return mask.box_grid(margin).with_spacing((_PIXEL_MM, _PIXEL_MM, max(_SLICE_MM, z_mm)))


def _core(main: Array) -> Array:
    """A mask without its margin, as far as that leaves enough to measure."""
    for pixels in range(_MARGIN_PIXELS, 0, -1):
        core = ndimage.binary_erosion(main, IN_PLANE, iterations=pixels)
        if core.sum() >= _MIN_IN_CORE:
            return core
    return main


def low_regions(clot: Clot) -> Iterator[LowRegion]:
    """Every region of low density in the core, slice by slice."""
    low = clot.low
    for k in np.flatnonzero((clot.core & low).any(axis=(1, 2))):
        labels, count = ndimage.label(low[k] & clot.core[k])
        for number in range(1, count + 1):
            region = labels == number
            around = _ring(region, 0, 3)
            surroundings = _ring(region, 2, 6) & clot.mask[k] & ~low[k]
            density = float(np.median(clot.hu[k][surroundings])) if surroundings.any() else clot.clot_hu
            lowest = float(clot.hu[k][region].min())
            if lowest < _CSF_HU:  # a sulcus or ventricle that the bleed surrounds
                continue
            y, x = np.argwhere(region).mean(axis=0)
            middle = clot.grid.point((float(x), float(y), float(k)))
            yield LowRegion(
                place_mm=(float(middle[0]), float(middle[1]), float(middle[2])),
                area_mm2=float(region.sum()) * clot.pixel_mm2,
                lowest_hu=lowest,
                drop_hu=density - lowest,
                enclosed=float((around & ~low[k]).sum() / around.sum()),
            )


def _ring(region: Array, near: int, far: int) -> Array:
    """Pixels more than ``near`` and at most ``far`` steps from a region of a slice."""
    inner = ndimage.binary_dilation(region, iterations=near) if near else region
    return ndimage.binary_dilation(region, iterations=far) & ~inner


@dataclass(frozen=True)
class Parts:
    """The clotted part of the core, split by the plane whose sides differ most in density.

    Attributes:
        difference_hu: between the two sides, within 6 mm of the plane.
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
    dense, light = (values[(side > 2) & (side < 6)] for side in (depth, -depth))
    if min(len(dense), len(light)) < _MIN_BESIDE_PLANE:
        return None
    where = np.zeros(clotted.shape, bool)
    where[clotted] = depth < 0
    # Not the medians: near the border, pixels of each side still hold some of the other.
    difference = float(np.percentile(dense, 65) - np.percentile(light, 35))
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
