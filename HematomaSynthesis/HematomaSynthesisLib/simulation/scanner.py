"""Turns a noise-free head into a CT as a scanner gives it: thick slices, fine pixels, correlated noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from HematomaExpansionLib.scan.grid import Array, Grid, image_on
from HematomaExpansionLib.scan.mask import Mask
from HematomaExpansionLib.scan.resampling import resample
from scipy.ndimage import gaussian_filter, uniform_filter1d


@dataclass(frozen=True)
class ScannerParameters:
    """Matrix in pixels, in-plane spacing and slice thickness in mm, tilt of the slices about the left-right axis
    in degrees, noise as SD in HU and its width in mm."""

    matrix: int
    pixel_mm: float
    slice_mm: float
    tilt_degrees: float
    noise_hu: float
    noise_width_mm: float


def scan_grid(head: Grid, parameters: ScannerParameters) -> Grid:
    """Parallel slices over the whole head, centered on it and stacked along their own normal."""
    frame = _scan_frame(head, parameters)
    slices = int(frame.size[2] * frame.spacing[2] / parameters.slice_mm)
    return frame.centered_at(
        frame.center,
        (parameters.matrix, parameters.matrix, slices),
        (parameters.pixel_mm, parameters.pixel_mm, parameters.slice_mm),
    )


def _scan_frame(head: Grid, parameters: ScannerParameters) -> Grid:
    """The head's grid, turned with the slices and tall enough for most of the head."""
    angle = np.deg2rad(parameters.tilt_degrees)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    direction = np.array(head.direction).reshape(3, 3) @ turn
    taller = round(0.6 * head.size[1] * abs(np.sin(angle)))
    return replace(head, direction=tuple(direction.ravel().tolist())).centered_at(
        head.center, (head.size[0], head.size[1], head.size[2] + taller), head.spacing
    )


def acquire(head: sitk.Image, parameters: ScannerParameters, random: np.random.Generator) -> sitk.Image:
    """CT (int16 HU) of a head at 1 mm."""
    grid = scan_grid(Grid.of(head), parameters)
    slices = acquire_clean(head, parameters)
    noise = np.stack([_noise(parameters, random) for _ in range(grid.size[2])])
    return image_on(grid, np.round(np.clip(slices + noise, -1024, 3071)).astype(np.int16))


def acquire_clean(head: sitk.Image, parameters: ScannerParameters) -> Array:
    """HU (z, y, x) on ``scan_grid`` of a head at 1 mm, without noise."""
    grid = scan_grid(Grid.of(head), parameters)
    return sitk.GetArrayFromImage(resample(_slices(head, parameters, -1000.0), grid, outside=-1000.0))


def acquire_mask(level: sitk.Image, parameters: ScannerParameters) -> Mask:
    """Voxels that are more than half blood; ``level`` is a signed distance in mm at 1 mm."""
    share = image_on(Grid.of(level), np.clip(sitk.GetArrayFromImage(level) + 0.5, 0, 1).astype(np.float32))
    grid = scan_grid(Grid.of(level), parameters)
    sampled = sitk.GetArrayFromImage(resample(_slices(share, parameters, 0.0), grid))
    return Mask.on(grid, sampled > 0.5)


def _slices(image: sitk.Image, parameters: ScannerParameters, outside: float) -> sitk.Image:
    """The image averaged over the thickness of the scanner's slices, along their normal."""
    if parameters.tilt_degrees:
        image = resample(image, _scan_frame(Grid.of(image), parameters), outside=outside)
    grid = Grid.of(image)
    voxels = max(1, round(parameters.slice_mm / grid.spacing[2]))
    return image_on(grid, uniform_filter1d(sitk.GetArrayFromImage(image), voxels, axis=0, mode="nearest"))


def _noise(parameters: ScannerParameters, random: np.random.Generator) -> Array:
    """Noise of one slice: filtered back-projection leaves little of the lowest and highest frequencies."""
    white = random.standard_normal((parameters.matrix, parameters.matrix), dtype=np.float32)
    width = parameters.noise_width_mm / parameters.pixel_mm
    noise = gaussian_filter(white, width) - 0.5 * gaussian_filter(white, 3 * width)
    return parameters.noise_hu * noise / noise.std()
