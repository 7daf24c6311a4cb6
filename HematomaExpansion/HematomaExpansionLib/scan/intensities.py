"""Hounsfield units: air, windows, and the pixel type used to store a CT."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from .grid import Array

AIR_HU = -1024.0


def scale_window(hu: Array, window_hu: tuple[float, float]) -> Array:
    """HU scaled to 0..1 over a window, clipped."""
    low, high = window_hu
    return np.clip((hu - low) / (high - low), 0.0, 1.0).astype(np.float32)


def as_int16(ct: sitk.Image) -> sitk.Image:
    """A CT (HU) in the pixel type used to store it."""
    return sitk.Cast(sitk.Clamp(sitk.Round(ct), sitk.sitkFloat32, -32768, 32767), sitk.sitkInt16)
