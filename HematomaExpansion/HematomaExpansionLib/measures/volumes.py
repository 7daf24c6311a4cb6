"""What is measured on a hematoma: volume, ABC/2, growth, expansion, and how far two masks agree.

Masks are 0/1 images whose slices (array axis 0) are axial. Lengths in mm, volumes in mL.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import SimpleITK as sitk

from ..scan.grid import Grid

_LARGEST_CORRECTION = 2.0
"""A mask that is too small or too large by more than this factor is wrong, not biased."""


def volume_ml(mask: sitk.Image) -> float:
    """Volume of the true voxels in mL."""
    return int(np.count_nonzero(sitk.GetArrayViewFromImage(mask))) * Grid.of(mask).voxel_volume_ml


def corrected_volume(correction: Mapping[str, float], measured_ml: float) -> float:
    """A segmenter's volume in mL without its bias: ``constant_ml`` + ``slope`` × measured (Guo 2024, III.D).

    ``correction`` is a package's. Below ``smallest_ml`` and above ``largest_ml``, between which it was fitted, the
    factor by which a volume is corrected stays what it is there. It lies between 1/2 and 2, so that no volume
    becomes negative, and a larger one always stays the larger.
    """
    known = min(max(measured_ml, correction["smallest_ml"]), correction["largest_ml"])
    factor = (correction["constant_ml"] + correction["slope"] * known) / known
    return measured_ml * min(max(factor, 1 / _LARGEST_CORRECTION), _LARGEST_CORRECTION)
