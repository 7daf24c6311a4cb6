"""Connected components of masks."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import label

from .grid import Array


def largest_component(mask: Array) -> Array:
    """The largest part of a mask (booleans) whose voxels touch by their faces; an empty mask stays empty."""
    labels, count = label(mask)
    return mask if count == 0 else labels == 1 + int(np.bincount(labels.ravel())[1:].argmax())
