"""Inputs of the networks that predict the probability of expansion from a scan.

Arrays are (part, 1, z, y, x) or (part, 1, y, x), float32: the parts of one patient, over which the probability is
averaged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from ..models.description import ModelDescription, ModelGrid
from ..scan.grid import Array, Grid
from ..scan.intensities import AIR_HU, scale_window
from ..scan.mask import Mask
from ..scan.resampling import average_onto
from ..scan.subject import Subject


@dataclass(frozen=True)
class RiskView:
    """How a network sees a scan: spacing in mm and size in voxels, both (x, y, z), and window in HU.

    A size of 1 along z stands for single slices, as many as there are.
    """

    architecture: str
    spacing_mm: tuple[float, float, float]
    size: tuple[int, int, int]
    window_hu: tuple[float, float]

    @property
    def grid(self) -> ModelGrid:
        """The same, as model packages store it."""
        return ModelGrid(self.spacing_mm, self.size, self.window_hu)

    @classmethod
    def of(cls, description: ModelDescription) -> RiskView:
        """The view of a model package."""
        return cls(description.architecture, description.spacing_mm, description.patch_size, description.window_hu)


def risk_inputs(subject: Subject, view: RiskView) -> Array:
    """The network's input for a subject whose masks are not empty."""
    return _INPUTS[view.architecture](subject, view)


def view_grid(inside_skull: Mask, view: RiskView) -> Grid:
    """The model grid, centered on the inside of the skull and, for single slices, as high as that."""
    grid, (_, size) = inside_skull.grid, inside_skull.box
    x, y, z = view.size
    if z == 1:
        z = int(np.ceil(size[2] * grid.spacing[2] / view.spacing_mm[2] - 1e-6))
    return grid.centered_at(inside_skull.box_center, (x, y, z), view.spacing_mm)


def whole_brain(subject: Subject, view: RiskView) -> Array:
    """The whole brain, (1, 1, z, y, x), as in Zhong 2021, supplement.

    It is skull-stripped, resampled, windowed and standardized, with negative values set to zero. Interpolation is
    linear after a low-pass filter, not bicubic.
    """
    grid, inside_skull = view_grid(subject.inside_skull, view), subject.inside_skull.image
    inside = average_onto(inside_skull, grid)
    # The mean over the part of a voxel inside the skull: bone in the rest would be brighter than any blood.
    hu = average_onto(sitk.Mask(sitk.Cast(subject.ct, sitk.sitkFloat32), inside_skull), grid) / np.maximum(
        inside, 0.5
    )
    return standardized(scale_window(hu, view.window_hu), inside)[None, None]


def standardized(values: Array, inside: Array) -> Array:
    """Values in standard deviations above the mean inside the skull; zero below it and outside; all (z, y, x).

    ``inside``: share of each voxel inside the skull, 0 to 1, somewhere at least one half.
    """
    brain = values[inside >= 0.5]
    scaled = (values - brain.mean()) / max(float(brain.std()), 1e-3)
    return (np.maximum(scaled, 0.0) * inside).astype(np.float32)


def hematoma_slices(subject: Subject, view: RiskView) -> Array:
    """The axial slices through the hematoma, (slices, 1, y, x), windowed, not masked (JPM 12:779, section 2.2).

    If the hematoma fills no voxel of the model grid by half, this is the slice with the fullest voxel.
    """
    grid = view_grid(subject.inside_skull, view)
    most = average_onto(subject.hematoma.image, grid).max(axis=(1, 2))
    chosen = most >= min(0.5, float(most.max()))
    windowed = scale_window(average_onto(subject.ct, grid, outside=AIR_HU), view.window_hu)
    return windowed[chosen][:, None]


_INPUTS: dict[str, Callable[[Subject, RiskView], Array]] = {
    "two-output-unet": whole_brain,
    "slice-classifier": hematoma_slices,
}
