"""Where bleeds and other findings are painted: a head on voxels of 1 mm, with the truth beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import SimpleITK as sitk
from HematomaExpansionLib.anatomy.bleeds import VENTRICLES
from HematomaExpansionLib.scan.grid import Array, Grid, box_slices, image_on
from HematomaExpansionLib.scan.resampling import average_onto
from HematomaExpansionLib.scan.shapes import distance_map_on
from scipy.ndimage import gaussian_filter

from .anatomy import Anatomy

_CANVAS_MM = 1.0
_MARGIN_MM = 12


Drawn = dict[str, Any]
"""What was drawn, for a scan's description."""


@dataclass(frozen=True)
class Part:
    """A box of a canvas: its slices (z, y, x) in the canvas's arrays, and its own grid."""

    slices: tuple[slice, ...]
    grid: Grid

    @cached_property
    def points(self) -> Array:
        """LPS positions in mm of its voxels, (z, y, x, 3)."""
        z, y, x = np.meshgrid(*[np.arange(n) for n in self.grid.shape], indexing="ij")
        return np.stack([x, y, z], axis=-1) @ self.grid.axes.T + np.array(self.grid.origin)

    def distance_from(self, point: Array) -> Array:
        """Distance in mm of each voxel from ``point`` (LPS mm)."""
        distance: Array = np.linalg.norm(self.points - point, axis=-1)
        return distance


@dataclass(eq=False)
class Canvas:
    """A head to paint on; all arrays are (z, y, x) on ``grid``.

    Attributes:
        original: HU before anything was painted.
        hu: HU so far.
        covered: share of each voxel, 0 to 1, that paint replaced.
        labels: class of each voxel so far (``anatomy.bleeds``): kinds of bleeds, and the ventricles' CSF.
        depth: mm below the inside of the skull, negative outside.
        ventricles, tissue: share of lateral ventricle and of gray or white matter, 0 to 1.
        anatomy: the head.
    """

    grid: Grid
    original: Array
    hu: Array
    covered: Array
    labels: Array
    depth: Array
    ventricles: Array
    tissue: Array
    anatomy: Anatomy

    @classmethod
    def of(cls, anatomy: Anatomy) -> Canvas:
        """A fresh canvas over the inside of a head's skull, and a margin for the bone."""
        inside_skull = anatomy.inside_skull
        box = inside_skull.box_grid().with_spacing((_CANVAS_MM,) * 3)
        grid = box.cropped((-_MARGIN_MM,) * 3, [n + 2 * _MARGIN_MM for n in box.size])
        inside = average_onto(inside_skull.image, grid) >= 0.5
        depth = distance_map_on(grid, inside, is_positive_inside=True)
        hu = average_onto(anatomy.ct, grid, outside=-1000.0)
        ventricles = np.zeros(grid.shape, np.float32)
        if anatomy.ventricles is not None:
            ventricles = average_onto(anatomy.ventricles, grid)
        labels = np.where(ventricles > 0.5, VENTRICLES, 0).astype(np.uint8)
        return cls(
            grid=grid,
            original=hu,
            hu=hu.copy(),
            covered=np.zeros(grid.shape, np.float32),
            labels=labels,
            depth=depth,
            ventricles=ventricles,
            tissue=average_onto(anatomy.parenchyma, grid),
            anatomy=anatomy,
        )

    def copy(self) -> Canvas:
        """A canvas of the same head, to be painted on by itself."""
        changing = ("original", "hu", "covered", "labels", "ventricles", "tissue")
        return replace(self, **{name: getattr(self, name).copy() for name in changing})

    @property
    def whole(self) -> Part:
        """All of it."""
        return Part(tuple(slice(0, n) for n in self.grid.shape), self.grid)

    def around(self, point: Array, reach_mm: float) -> Part:
        """The box within ``reach_mm`` of a point (LPS mm), as far as the canvas has voxels."""
        axes = self.grid.axes
        index = np.linalg.solve(axes, point - np.array(self.grid.origin))
        reach = reach_mm / np.array(self.grid.spacing)
        low = np.clip(np.floor(index - reach).astype(int), 0, np.array(self.grid.size) - 1)
        return self.part(low, np.maximum(np.ceil(index + reach).astype(int) + 1, low + 1))

    def part(self, first: Array, end: Array) -> Part:
        """The box of voxels from ``first`` to before ``end`` (x, y, z), as far as the canvas has them."""
        low, high = np.maximum(first, 0), np.minimum(end, self.grid.size)
        return Part(box_slices(low, high - low), self.grid.cropped(low.tolist(), (high - low).tolist()))

    def template_point(self, position: Array) -> Array:
        """LPS position in mm in this head of a position in ICBM152 space (LPS mm)."""
        return np.array(self.anatomy.template_to_head.TransformPoint([float(value) for value in position]))

    def value_at(self, array: Array, point: Array) -> float:
        """The value of one of the arrays at the voxel nearest to a point (LPS mm)."""
        index = np.round(np.linalg.solve(self.grid.axes, point - np.array(self.grid.origin))).astype(int)
        x, y, z = np.clip(index, 0, np.array(self.grid.size) - 1)
        return float(array[z, y, x])

    def paint(self, part: Part, share: Array, hu: Array | float, label: int | None = None) -> None:
        """Replace that share (0 to 1) of each voxel of ``part`` by ``hu``.

        ``label``: what a voxel becomes of which half or more was replaced; by default its class stays.
        """
        box = part.slices
        self.hu[box] = self.hu[box] * (1 - share) + np.float32(hu) * share
        self.covered[box] = 1 - (1 - self.covered[box]) * (1 - share)
        if label is not None:
            self.labels[box][share >= 0.5] = label

    def image(self, array: Array) -> sitk.Image:
        """One of the arrays as an image."""
        return image_on(self.grid, array)


def smooth_noise(shape: tuple[int, ...], width: float, random: np.random.Generator) -> Array:
    """Noise of that width in voxels, with mean 0 and standard deviation 1."""
    coarse = max(1, int(width // 2))
    small = tuple(-(-n // coarse) + 1 for n in shape)
    noise = gaussian_filter(random.standard_normal(small, dtype=np.float32), width / coarse)
    if coarse > 1:
        for axis in range(3):
            noise = noise.repeat(coarse, axis=axis)
        noise = gaussian_filter(noise, coarse / 2)
    noise = noise[tuple(slice(0, n) for n in shape)]
    return (noise - noise.mean()) / max(float(noise.std()), 1e-6)


def soft(signed_mm: Array, width_mm: float = 1.0) -> Array:
    """Share of a voxel inside a surface, 0 to 1, from its signed distance (positive inside)."""
    return np.clip(signed_mm / width_mm + 0.5, 0.0, 1.0).astype(np.float32)
