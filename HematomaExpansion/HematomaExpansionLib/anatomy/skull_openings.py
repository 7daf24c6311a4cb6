"""Finds where the skull is open: a bone flap was removed, or part of the head lies outside the field of view.

Rays go out from the middle of the head in all directions. A ray that leaves the head without meeting bone leaves
through an opening. Orbits, nose and neck, where every skull is open, are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..scan.grid import Array
from ..scan.intensities import AIR_HU

_STEP_DEGREES = 4.0
_MIN_DEGREES, _MIN_IN_FRONT_DEGREES, _MIN_DEGREES_OF_ORBITS = -44.0, 2.0, -20.0
_IN_FRONT = 0.7  # cosine between a direction and straight ahead, in the axial plane
_NEAREST_MM, _FARTHEST_MM = 20.0, 170.0
_VERTEX_TO_CENTER_MM, _CENTER_SLAB_MM, _MIN_VERTEX_CM2 = 75.0, 40.0, 20.0
BONE_HU = 120.0
"""Denser than a clot, whose density rises with its hematocrit (New and Aronow 1976, Radiology 121:635). A voxel
that is only part bone counts, as where bone is thin, soft as an infant's, or slants through a thick slice."""
_SKIN_HU = -300.0
_MIN_OPENING_CM2 = 6.0
_SHELL_MM = 3.0
_MAX_BULGE_MM = 10.0
_SCALP_MM = (3.0, 15.0)
_SMOOTHING_STEPS = 400


@dataclass(frozen=True)
class Openings:
    """Openings of the skull, on the grid of the search.

    Attributes:
        shell: a shell that stands in for missing bone: under the scalp, or at the edge of the field of view.
        beyond: the shell and everything outside it.
        under: what lies between the middle of the head and the shell, and so inside the skull. Where the skull is
            open at the top, no bone on a slice says so.
        missing_cm2: area without bone.
        unseen_cm2: area outside the field of view.
    """

    shell: Array
    beyond: Array
    under: Array
    missing_cm2: float
    unseen_cm2: float


def find_openings(hu: Array, head: Array, spacing_mm: float, margin: int) -> Openings | None:
    """The skull's openings that are larger than a burr hole; None if there are none.

    Args:
        hu: CT (z, y, x) in HU, axes nearest superior, posterior, left, isotropic voxels.
        head: mask of the head in it.
        spacing_mm: edge length of a voxel.
        margin: number of voxels at each edge of the axial plane that lie outside the field of view.
    """
    center = _center(head, spacing_mm)
    if center is None:
        return None
    height, turn = _directions()
    ways = np.stack([np.sin(height), np.cos(height) * np.sin(turn), np.cos(height) * np.cos(turn)], axis=-1)
    radii = np.arange(_NEAREST_MM, _FARTHEST_MM, spacing_mm)
    points = np.moveaxis(center + ways[..., None, :] * (radii / spacing_mm)[:, None], -1, 0)
    values = ndimage.map_coordinates(np.where(head, hu, AIR_HU), points, order=1, cval=AIR_HU)
    in_stack, in_plane = _seen(points, hu.shape, margin)
    in_head = in_stack & in_plane & (values > _SKIN_HU)
    bone = in_head & (values > BONE_HU)
    last = _last(in_head)
    after = np.minimum(last + 1, len(radii) - 1)[..., None]
    ends, unseen = (~np.take_along_axis(seen, after, axis=-1)[..., 0] for seen in (in_stack, in_plane))
    hard = bone.any(axis=-1)
    in_front, degrees = -np.sin(turn) > _IN_FRONT, np.degrees(height)
    open_there = in_head.any(axis=-1) & ~hard & ~ends
    # An opening only a ray or two wide is a suture, the channel of a vessel, or a burr hole.
    opening = _all_around(ndimage.binary_opening, open_there & (~in_front | (degrees >= _MIN_IN_FRONT_DEGREES)))
    area = opening * np.cos(height) * np.radians(_STEP_DEGREES) ** 2 * radii[last] ** 2 / 100
    if area.sum() < _MIN_OPENING_CM2 or not hard.any():
        return None
    outer_table = radii[_last(bone)]
    table = _continued(outer_table, hard)
    # Scalp and muscle are as thick as on the other side, or else as around the opening.
    scalp = np.clip(_continued(radii[last] - outer_table, hard), *_SCALP_MM)
    radius = np.where(unseen, radii[last] + spacing_mm, np.minimum(radii[last] - scalp, table + _MAX_BULGE_MM))
    radius = np.where(ends, np.minimum(radii[last] + spacing_mm, table), radius)
    # An opening that reaches the last slice or the orbits continues there.
    opening = _continues(opening, ends & ~hard & (degrees > 0))
    wider = _continues(opening, open_there & in_front & (degrees >= _MIN_DEGREES_OF_ORBITS))
    wider |= _all_around(ndimage.binary_dilation, wider) & ~hard  # so that the shell meets the bone
    row, column, distance = _as_seen_from(center, hu.shape, spacing_mm, wider.shape)
    outward, known = distance - radius[row, column], row >= 0
    in_opening = known & wider[row, column]
    return Openings(
        in_opening & (np.abs(outward) <= _SHELL_MM),
        in_opening & (outward >= -_SHELL_MM),
        known & opening[row, column] & (outward < -_SHELL_MM),
        float(area[~unseen].sum()),
        float(area[unseen].sum()),
    )


def _directions() -> tuple[Array, Array]:
    """Height above the axial plane and turn in it, from left toward the back, in radians, each (height, turn)."""
    step = np.radians(_STEP_DEGREES)
    heights = np.arange(np.radians(_MIN_DEGREES), np.pi / 2, step)
    height, turn = np.meshgrid(heights, np.arange(round(2 * np.pi / step)) * step, indexing="ij")
    return height, turn


def _center(head: Array, spacing_mm: float) -> Array | None:
    """Index (z, y, x) near the middle of the brain; None if no slice holds enough of a head."""
    areas = np.count_nonzero(head, axis=(1, 2)) * spacing_mm**2 / 100
    wide = np.flatnonzero(areas >= _MIN_VERTEX_CM2)
    if len(wide) == 0:
        return None
    z = max(float(wide[-1]) - _VERTEX_TO_CENTER_MM / spacing_mm, 0.0)
    _, y, x = np.argwhere(head[int(z) : int(z + _CENTER_SLAB_MM / spacing_mm)]).mean(axis=0)
    return np.array([z, y, x])


def _seen(points: Array, shape: tuple[int, ...], margin: int) -> tuple[Array, Array]:
    """Which points (indices, first axis z, y, x) lie within the stack of slices, and which within a slice's edges.

    Beyond the centers of the outermost voxels, values mix with the air that stands in for what was not seen.
    """
    inside = [
        (points[axis] >= border) & (points[axis] <= shape[axis] - border - 1)
        for axis, border in enumerate((0, margin, margin))
    ]
    return inside[0], inside[1] & inside[2]


def _last(along: Array) -> Array:
    """Index of the last true value along the last axis."""
    index: Array = along.shape[-1] - 1 - along[..., ::-1].argmax(axis=-1)
    return index


def _all_around(filtered: Callable[[Array, Array], Array], where: Array) -> Array:
    """A 3 × 3 morphological filter on directions (height, turn), which form a ring that ends at the vertex."""
    wide = np.pad(np.pad(where, ((0, 0), (2, 2)), mode="wrap"), ((2, 2), (0, 0)), mode="edge")
    return filtered(wide, np.ones((3, 3), bool))[2:-2, 2:-2]


def _continued(radius: Array, known: Array) -> Array:
    """Radii (height, turn); unknown ones are taken from the other side, or else smoothly from the known ones."""
    turns = radius.shape[1]
    other = (turns // 2 - np.arange(turns)) % turns
    filled = np.where(known, radius, np.where(known[:, other], radius[:, other], radius[known].mean()))
    fixed = known | known[:, other]
    if fixed.all():
        return filled
    for _ in range(_SMOOTHING_STEPS):
        wide = np.pad(np.pad(filled, ((0, 0), (1, 1)), mode="wrap"), ((1, 1), (0, 0)), mode="edge")
        even = (wide[:-2, 1:-1] + wide[2:, 1:-1] + wide[1:-1, :-2] + wide[1:-1, 2:]) / 4
        filled = np.where(fixed, filled, even)
    return filled


def _continues(opening: Array, beside: Array) -> Array:
    """An opening (height, turn) with the directions in ``beside`` that are connected to it."""
    wider: Array = ndimage.binary_propagation(opening, mask=opening | beside)
    return wider


def _as_seen_from(
    center: Array, shape: tuple[int, ...], spacing_mm: float, directions: tuple[int, ...]
) -> tuple[Array, Array, Array]:
    """For each voxel, the indices (height, turn) of its direction and its distance in mm.

    The height is negative below the lowest direction.
    """
    z, y, x = (
        axis - middle for axis, middle in zip(np.indices(shape, np.float32, sparse=True), center, strict=True)
    )
    in_plane, step = np.hypot(y, x), np.radians(_STEP_DEGREES)
    row = np.rint((np.arctan2(z, in_plane) - np.radians(_MIN_DEGREES)) / step).astype(int)
    column = np.rint(np.arctan2(y, x) / step).astype(int) % directions[1]
    return np.minimum(row, directions[0] - 1), column, np.hypot(in_plane, z) * spacing_mm
