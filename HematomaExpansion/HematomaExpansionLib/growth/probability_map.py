"""For each voxel, the probability that it holds blood at follow-up."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import SimpleITK as sitk

from ..scan.grid import Array, Grid, image_on
from .warping import with_part


class VolumeDistribution(Protocol):
    """What is known of the follow-up volume (``forecast.distribution.FollowupDistribution``)."""

    def share_beyond(self, volume_ml: Array) -> Array:
        """Share of the outcomes larger than each of these."""
        ...


def share_with_blood(order: sitk.Image, volumes: VolumeDistribution) -> sitk.Image:
    """The map on the grid of ``order``: the share of outcomes large enough to reach each voxel.

    Its sum, in voxels, is the expected volume, because a voxel is reached by every outcome larger than its own.
    """
    grid = Grid.of(order)
    reached_ml = sitk.GetArrayFromImage(order) - grid.voxel_volume_ml / 2
    return image_on(grid, volumes.share_beyond(reached_ml).astype(np.float32))


def probability_map(order: sitk.Image, volumes: VolumeDistribution, scan: sitk.Image) -> sitk.Image:
    """The same on the whole grid of ``scan``, of which ``order`` covers a box; zero outside it."""
    nothing = sitk.Image(scan.GetSize(), sitk.sitkFloat32)
    nothing.CopyInformation(scan)
    return with_part(nothing, share_with_blood(order, volumes))
