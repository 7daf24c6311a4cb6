"""How sure it is that a scan shows a hematoma at all."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import label

from ..models.description import PRESENCE_NUMBERS
from ..scan.grid import Array, Grid
from ..scan.mask import Mask
from ..scan.resampling import average_onto
from .bleeds import Presence

EVIDENCE = PRESENCE_NUMBERS[1:]
"""What the probability is judged by: the logarithm of the expected mL, and the logit of the mean probability of
the most likely half mL."""

_PEAK_ML, _LIMIT = 0.5, 9.0
_FAINT = 0.2


def evidence_of(probability: sitk.Image, hematoma: Mask) -> tuple[float, float]:
    """``EVIDENCE`` of the hematoma, or if none was found, of the most likely place.

    ``probability`` of a hematoma, 0 to 1, lies on the model grid; ``hematoma`` on the scan's.
    """
    grid = Grid.of(probability)
    values = sitk.GetArrayFromImage(probability)
    where = average_onto(hematoma.image, grid) > 0.5
    if not where.any():
        where = _most_likely_part(values)
    within = np.sort(values[where])[::-1] if where.any() else np.zeros(1)
    expected_ml = float(within.sum()) * grid.voxel_volume_ml
    peak = float(within[: max(1, round(_PEAK_ML / grid.voxel_volume_ml))].mean())
    return math.log(expected_ml + 0.05), _logit(peak)


def presence_of(probability: sitk.Image, hematoma: Mask, coefficients: Mapping[str, float]) -> Presence:
    """The probability that there is a hematoma, by a segmentation package's own ``coefficients``.

    They were fitted to scans with and without one (``training.segmentation.presence``).
    """
    evidence = dict(zip(EVIDENCE, evidence_of(probability, hematoma), strict=True))
    odds = coefficients["constant"] + sum(coefficients[name] * evidence[name] for name in EVIDENCE)
    number = None
    if not hematoma.is_empty:
        number = int(np.count_nonzero(hematoma.voxels, axis=(1, 2)).argmax()) + 1
    return Presence(1 / (1 + math.exp(-odds)), number)


def _most_likely_part(values: Array) -> Array:
    labels, count = label(values > _FAINT)
    if count == 0:
        return np.zeros(values.shape, bool)
    sums = np.bincount(labels.ravel(), weights=values.ravel())[1:]
    return labels == 1 + int(sums.argmax())


def _logit(probability: float) -> float:
    clipped = min(max(probability, 1e-6), 1 - 1e-6)
    return float(np.clip(math.log(clipped / (1 - clipped)), -_LIMIT, _LIMIT))
