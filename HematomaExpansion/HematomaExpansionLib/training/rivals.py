"""Rivals that need no model, with which predictions are compared."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from ..scan.grid import Array
from ..scan.shapes import signed_distance
from ..scan.subject import Subject

NO_GROWTH, MEAN_DILATION, TRUE_VOLUME_DILATION = (
    "no growth",
    "uniform dilation",
    "uniform dilation to the true volume",
)


def uniform_dilation(subject: Subject, wanted_ml: float) -> Array:
    """The hematoma dilated evenly in mm, inside the skull, to this volume; (z, y, x). An empty one stays empty."""
    mask = subject.hematoma
    if mask.is_empty:
        return mask.voxels
    distance = -sitk.GetArrayFromImage(signed_distance(mask.image))
    allowed = (subject.inside_skull | mask).voxels
    nearest = np.argsort(distance[allowed], kind="stable")[: round(wanted_ml / mask.grid.voxel_volume_ml)]
    chosen = np.zeros(np.count_nonzero(allowed), bool)
    chosen[nearest] = True
    dilated = np.zeros_like(allowed)
    dilated[allowed] = chosen
    return dilated
