"""From a head without noise to a CT as a scanner gives it: thick slices, fine pixels, correlated noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from HematomaExpansionLib.grid import Array, Grid, image_on, resample
from scipy.ndimage import gaussian_filter, uniform_filter1d


@dataclass(frozen=True)
class ScannerParameters:
    """Matrix in pixels, in-plane spacing and slice thickness in mm, noise as SD in HU and its width in mm."""

    matrix: int
    pixel_mm: float
    slice_mm: float
    noise_hu: float
    noise_width_mm: float


def scan_grid(head: Grid, parameters: ScannerParameters) -> Grid:
    """Axial slices over the whole head, centered on it in plane."""
    count = int(head.size[2] * head.spacing[2] / parameters.slice_mm)
    center = head.point((np.array(head.size) - 1) / 2)
    half = np.array([parameters.matrix - 1, parameters.matrix - 1, count - 1]) / 2
    spacing = (parameters.pixel_mm, parameters.pixel_mm, parameters.slice_mm)
    origin = center - half * spacing
    return Grid(
        (parameters.matrix, parameters.matrix, count),
        spacing,
        (float(origin[0]), float(origin[1]), float(origin[2])),
        head.direction,
    )


def acquire(
    head: sitk.Image, grid: Grid, parameters: ScannerParameters, random: np.random.Generator
) -> sitk.Image:
    """CT (int16 HU) of a head at 1 mm."""
    slices = sitk.GetArrayFromImage(resample(_slice_average(head, parameters.slice_mm), grid, outside=-1000.0))
    noise = np.stack([_noise(parameters, random) for _ in range(grid.size[2])])
    return image_on(grid, np.round(np.clip(slices + noise, -1024, 3071)).astype(np.int16))


def acquire_mask(level: sitk.Image, grid: Grid, slice_mm: float) -> sitk.Image:
    """Mask (0/1): voxels of which more than half is blood; ``level`` is a signed distance in mm at 1 mm."""
    share = image_on(Grid.of(level), np.clip(sitk.GetArrayFromImage(level) + 0.5, 0, 1).astype(np.float32))
    sampled = sitk.GetArrayFromImage(resample(_slice_average(share, slice_mm), grid))
    return image_on(grid, (sampled > 0.5).astype(np.uint8))


def _slice_average(image: sitk.Image, slice_mm: float) -> sitk.Image:
    """Averaged over the slice's thickness along z."""
    grid = Grid.of(image)
    voxels = max(1, round(slice_mm / grid.spacing[2]))
    return image_on(grid, uniform_filter1d(sitk.GetArrayFromImage(image), voxels, axis=0, mode="nearest"))


def _noise(parameters: ScannerParameters, random: np.random.Generator) -> Array:
    white = random.standard_normal((parameters.matrix, parameters.matrix), dtype=np.float32)
    noise = gaussian_filter(white, parameters.noise_width_mm / parameters.pixel_mm)
    return parameters.noise_hu * noise / noise.std()
