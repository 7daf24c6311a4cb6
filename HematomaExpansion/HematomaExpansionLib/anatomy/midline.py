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
_SURFACE_POINTS, _MAX_ASYMMETRY_MM = 2000, 6.0


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
    upper = inside_skull.copy()
    z = np.flatnonzero(inside_skull.any(axis=(1, 2)))
    upper[: round(np.quantile(z, _UPPER_FROM))] = False
    depth = distance_transform_edt(upper, sampling=spacing[::-1])
    depth -= distance_transform_edt(~upper, sampling=spacing[::-1])
    surface = np.argwhere(upper & (depth <= spacing.min()))[:, ::-1] * spacing
    surface = surface[:: max(1, len(surface) // _SURFACE_POINTS)]
    center = surface.mean(axis=0)

    def plane(parameters: Array) -> tuple[Array, float]:
        yaw, roll, shift = parameters
        normal = np.array([1.0, np.tan(yaw), np.tan(roll)])
        normal /= np.linalg.norm(normal)
        return normal, float(center @ normal + shift)

    def asymmetry(parameters: Array) -> float:
        normal, offset = plane(parameters)
        mirrored = surface - 2 * np.outer(surface @ normal - offset, normal)
        away = map_coordinates(depth, (mirrored / spacing).T[::-1], order=1, mode="nearest")
        return float(np.minimum(np.abs(away), _MAX_ASYMMETRY_MM).mean())

    simplex = np.array([[0, 0, 0], [0.15, 0, 0], [0, 0.15, 0], [0, 0, 4.0]])
    best = minimize(
        asymmetry, simplex[0], method="Nelder-Mead", options={"initial_simplex": simplex, "xatol": 1e-3}
    )
    return plane(best.x)


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
