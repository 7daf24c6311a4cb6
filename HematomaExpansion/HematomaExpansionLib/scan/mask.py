"""Masks: voxel shapes on a grid."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import SimpleITK as sitk

from .grid import Array, Grid, image_on
from .shapes import bounding_box

MaskKind = Literal["true", "automatic"]
"""Where a mask came from: someone drew it, or it was found automatically."""


@dataclass(frozen=True, eq=False)
class Mask:
    """A shape on a voxel grid: ``image`` holds uint8, 0 outside and 1 inside, at its true position (LPS mm).

    Derived values are computed only once. A mask may be empty.

    Raises:
        ValueError: the image holds anything else.
    """

    image: sitk.Image

    def __post_init__(self) -> None:
        if self.image.GetDimension() != 3 or self.image.GetPixelID() != sitk.sitkUInt8:
            raise ValueError(f"a mask is a volume of uint8, not of {self.image.GetPixelIDTypeAsString()}")
        values = sitk.GetArrayViewFromImage(self.image)
        if values.size and values.max() > 1:
            raise ValueError(f"a mask holds 0 and 1, not {values.max()}")

    @classmethod
    def on(cls, grid: Grid, inside: Array) -> Mask:
        """A mask on ``grid`` of the true voxels in ``inside`` (z, y, x)."""
        return cls(image_on(grid, inside.astype(np.uint8)))

    @classmethod
    def empty(cls, grid: Grid) -> Mask:
        """A mask with no voxels inside."""
        return cls.on(grid, np.zeros(grid.shape, np.uint8))

    @cached_property
    def grid(self) -> Grid:
        """The mask's grid."""
        return Grid.of(self.image)

    @cached_property
    def voxels(self) -> Array:
        """Read-only booleans (z, y, x)."""
        voxels: Array = sitk.GetArrayFromImage(self.image).view(bool)
        voxels.flags.writeable = False
        return voxels

    @cached_property
    def voxel_count(self) -> int:
        """Number of voxels inside."""
        return int(np.count_nonzero(self.voxels))

    @property
    def is_empty(self) -> bool:
        """Whether no voxels are inside."""
        return self.voxel_count == 0

    @property
    def volume_ml(self) -> float:
        """Volume in mL, correct for sheared grids too."""
        return self.voxel_count * self.grid.voxel_volume_ml

    @cached_property
    def box(self) -> tuple[Array, Array]:
        """First index and size, both (x, y, z), of the mask's bounding box.

        Raises:
            ValueError: the mask is empty.
        """
        return bounding_box(self.voxels)

    @property
    def box_center(self) -> Array:
        """LPS position in mm of the center of the bounding box."""
        first, size = self.box
        return self.grid.point(first + (size - 1) / 2)

    def box_grid(self, margin: Array | int = 0) -> Grid:
        """The grid of the bounding box and a margin in voxels (x, y, z), which may extend past the mask's grid."""
        first, size = self.box
        return self.grid.cropped((first - margin).tolist(), (size + 2 * np.asarray(margin)).tolist())

    def cropped(self) -> Mask:
        """The same shape on its grid cropped to the bounding box."""
        first, size = self.box
        return Mask(sitk.RegionOfInterest(self.image, size.tolist(), first.tolist()))

    def within(self, box: Grid) -> Mask:
        """The part of the mask in ``box``, a grid that is part of its own."""
        start = self.image.TransformPhysicalPointToIndex(box.origin)
        return Mask(sitk.RegionOfInterest(self.image, box.size, start))

    def __and__(self, other: Mask) -> Mask:
        """The intersection of two masks on the same grid."""
        return Mask(sitk.And(self.image, other.image))

    def __or__(self, other: Mask) -> Mask:
        """The union of two masks on the same grid."""
        return Mask(sitk.Or(self.image, other.image))
