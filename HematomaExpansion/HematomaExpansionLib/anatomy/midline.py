"""Midline shift at the level of the septum pellucidum, between the frontal horns of the lateral ventricles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt, map_coordinates
from scipy.optimize import minimize

from ..scan.grid import Array, Grid

_MAX_SEPTUM_MM = 12.0
"""Horns farther apart than this do not border the septum pellucidum."""
_FRONTAL_SHARE = 0.4
"""The front part of the ventricles, where the septum lies between their horns."""
_MIN_ROWS, _MIN_WIDTH_MM = 4, 5.0
_UPPER_FROM = 0.35
"""Share of the skull's height above which left and right are mirror images."""
_SHELL_MM, _SHELL_POINTS, _AROUND = 4.0, 2000, 8
"""How near to the inner skull voxels are compared with their mirror images, and how many; voxels added around."""
_MAX_ASYMMETRY_MM = 6.0
_STARTS = np.array([[0, 0, 0], [0.12, 0, 0], [-0.12, 0, 0], [0, 0.12, 0], [0, -0.12, 0]])
"""Yaw, roll (radians) and shift (mm) to begin from: a head that is not quite symmetrical misleads a single one."""


@dataclass(frozen=True)
class Midline:
    """Where the septum pellucidum lies, and where it should; positions in LPS mm.

    Attributes:
        shift_mm: distance of the septum from the ideal midline, 0 or more.
        septum: its middle.
        front, back: the ends of the ideal midline on its axial slice.
    """

    shift_mm: float
    septum: tuple[float, float, float]
    front: tuple[float, float, float]
    back: tuple[float, float, float]

    @property
    def described(self) -> dict[str, Any]:
        """What a result says of it."""
        points = {name: list(getattr(self, name)) for name in ("septum", "front", "back")}
        return {"shift_mm": self.shift_mm, **points}

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Midline:
        """The midline in a result, where lists stand for tuples."""
        points = {name: tuple(described[name]) for name in ("septum", "front", "back")}
        return cls(shift_mm=float(described["shift_mm"]), **points)


def find_midline(inside_skull: Array, ventricles: Array, grid: Grid) -> Midline | None:
    """The midline by the lateral ventricles, blood in them included; None if they do not show the septum.

    Booleans (z, y, x) on ``grid``, whose axes are closest to LPS. The ideal midline is the plane in which the
    inside of the skull is most nearly its own mirror image.
    """
    found = _septum(ventricles, grid.spacing)
    if found is None or not inside_skull.any():
        return None
    z, rows, columns = found
    spacing = np.array(grid.spacing)
    normal, offset = _mirror_plane(inside_skull, spacing)
    points = np.stack([columns, rows, np.full(len(rows), z)], axis=1) * spacing
    shift = float(np.median(points @ normal - offset))
    on_slice = np.flatnonzero(inside_skull[z].any(axis=1))

    def ideal(row: float) -> tuple[float, float, float]:
        y, height = row * spacing[1], z * spacing[2]
        return _point(grid, (offset - normal[1] * y - normal[2] * height) / normal[0] / spacing[0], row, z)

    septum = _point(grid, float(np.median(columns)), float(np.median(rows)), z)
    return Midline(abs(shift), septum, ideal(float(on_slice[0])), ideal(float(on_slice[-1])))


def _point(grid: Grid, x: float, y: float, z: float) -> tuple[float, float, float]:
    a, b, c = grid.point((x, y, z))
    return float(a), float(b), float(c)


def _mirror_plane(inside_skull: Array, spacing: Array) -> tuple[Array, float]:
    """Unit normal (x, y, z) and offset in mm, along the grid's axes, of the plane that mirrors the skull best."""
    inside = np.pad(inside_skull, _AROUND)
    depth = distance_transform_edt(inside, sampling=spacing[::-1])
    depth -= distance_transform_edt(~inside, sampling=spacing[::-1])
    first = round(np.quantile(np.flatnonzero(inside.any(axis=(1, 2))), _UPPER_FROM))
    near = np.argwhere(np.abs(depth[first:]) <= _SHELL_MM)
    near = near[:: max(1, len(near) // _SHELL_POINTS)] + np.array([first, 0, 0])
    # Off the voxels' centers, or a plane that maps these onto each other would seem better than it is.
    voxels = near + np.random.default_rng(0).uniform(-0.5, 0.5, near.shape)
    own = map_coordinates(depth, voxels.T, order=1, mode="nearest")
    points, center = voxels[:, ::-1] * spacing, voxels.mean(axis=0)[::-1] * spacing

    def plane(parameters: Array) -> tuple[Array, float]:
        yaw, roll, shift = parameters
        normal = np.array([1.0, np.tan(yaw), np.tan(roll)])
        normal /= np.linalg.norm(normal)
        return normal, float(center @ normal + shift)

    def asymmetry(parameters: Array) -> float:
        normal, offset = plane(parameters)
        mirrored = points - 2 * np.outer(points @ normal - offset, normal)
        away = map_coordinates(depth, (mirrored / spacing).T[::-1], order=1, mode="nearest") - own
        return float(np.minimum(np.abs(away), _MAX_ASYMMETRY_MM).mean())

    found = [minimize(asymmetry, start, method="Nelder-Mead", options=_around(start)) for start in _STARTS]
    normal, offset = plane(min(found, key=lambda one: one.fun).x)
    return normal, float(offset - _AROUND * spacing @ normal)


def _around(start: Array) -> dict[str, Any]:
    steps = np.array([[0, 0, 0], [0.06, 0, 0], [0, 0.06, 0], [0, 0, 3.0]])
    return {"initial_simplex": start + steps, "xatol": 1e-3, "fatol": 1e-3}


def _septum(ventricles: Array, spacing: tuple[float, float, float]) -> tuple[int, Array, Array] | None:
    """The slice that shows the most of the septum, and there the rows, and its x in each, in voxels."""
    best: tuple[int, Array, Array] | None = None
    for z in np.flatnonzero(ventricles.any(axis=(1, 2))):
        rows = np.flatnonzero(ventricles[z].any(axis=1))
        frontal = rows[rows <= rows[0] + _FRONTAL_SHARE * (rows[-1] - rows[0])]
        middles = [(row, _middle_of(np.flatnonzero(ventricles[z, row]), spacing[0])) for row in frontal]
        seen = [(row, middle) for row, middle in middles if middle is not None]
        if len(seen) >= _MIN_ROWS and (best is None or len(seen) > len(best[1])):
            best = int(z), np.array([row for row, _ in seen]), np.array([middle for _, middle in seen])
    return best


def _middle_of(columns: Array, spacing_mm: float) -> float | None:
    """Middle of the gap between the two horns on a row, or of both where the septum is too thin to be seen."""
    gaps = np.diff(columns)
    wide = np.flatnonzero(gaps > 1)
    if len(wide) == 1 and (gaps[wide[0]] - 1) * spacing_mm <= _MAX_SEPTUM_MM:
        return float(columns[wide[0]] + columns[wide[0] + 1]) / 2
    if len(wide) == 0 and len(columns) * spacing_mm >= 2 * _MIN_WIDTH_MM:
        return float(columns[0] + columns[-1]) / 2
    return None
