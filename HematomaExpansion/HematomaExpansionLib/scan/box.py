"""A box in which a user says that something lies."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .grid import Array, Grid

_TOLERANCE = 1e-3
"""A box that reaches this far into a voxel, as a share of it, only touches it: positions are rounded."""

_FORM = "six numbers in mm, x0,y0,z0,x1,y1,z1: two opposite corners, as LPS coordinates"


@dataclass(frozen=True)
class IndexBox:
    """Part of a grid: ``first`` and ``last`` are fractional indices (x, y, z), whole at the centers of voxels."""

    first: tuple[float, float, float]
    last: tuple[float, float, float]

    @property
    def slices(self) -> range:
        """The slices (z) whose voxels the box crosses; touching a voxel's face is not enough."""
        lowest = math.floor(self.first[2] + 0.5 + _TOLERANCE)
        return range(lowest, math.ceil(self.last[2] - 0.5 - _TOLERANCE) + 1)


@dataclass(frozen=True)
class Box:
    """A box along the patient's axes; both corners are positions (x, y, z) in LPS mm, ``low`` below ``high``.

    Raises:
        InputError: it has no volume, or its corners are no finite numbers.
    """

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in self.values):
            raise InputError(f"The box is not understood: give {_FORM}.")
        if not all(low < high for low, high in zip(self.low, self.high, strict=True)):
            raise InputError("The box has no volume: its two corners must differ in x, y and z.")

    @classmethod
    def of_text(cls, text: str) -> Box:
        """The box in a text of six numbers, separated by commas; its corners may be any two opposite ones.

        Raises:
            InputError: it is something else, or the box has no volume.
        """
        try:
            one, other = np.array([float(value) for value in text.split(",")]).reshape(2, 3)
        except ValueError as error:
            raise InputError(f"The box is not understood: give {_FORM}.") from error
        return cls(_triple(np.minimum(one, other)), _triple(np.maximum(one, other)))

    @property
    def values(self) -> list[float]:
        """Both corners, as ``of_text`` takes them."""
        return [*self.low, *self.high]

    def on(self, grid: Grid) -> IndexBox:
        """The part of ``grid`` around the box, however its axes lie: the smallest that holds all corners.

        Raises:
            InputError: the box lies outside of the grid.
        """
        corners = np.array(list(itertools.product(*zip(self.low, self.high, strict=True))))
        indices = np.linalg.solve(grid.axes, (corners - np.array(grid.origin)).T).T
        end = np.array(grid.size) - 0.5
        first, last = np.maximum(indices.min(axis=0), -0.5), np.minimum(indices.max(axis=0), end)
        if not (first + 2 * _TOLERANCE < last).all():
            low, high = _extent(grid)
            raise InputError(
                f"The box lies outside of the scan, which reaches from {_listed(low)} to {_listed(high)} mm "
                f"(LPS): give {_FORM}."
            )
        return IndexBox(_triple(first), _triple(last))


def _extent(grid: Grid) -> tuple[Array, Array]:
    """Lowest and highest position (x, y, z) on a grid, voxels included."""
    sides = zip((-0.5, -0.5, -0.5), np.array(grid.size) - 0.5, strict=True)
    corners = np.array([grid.point(index) for index in itertools.product(*sides)])
    return corners.min(axis=0), corners.max(axis=0)


def _listed(point: Array) -> str:
    return ",".join(f"{value:.0f}" for value in point)


def _triple(values: Array) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
