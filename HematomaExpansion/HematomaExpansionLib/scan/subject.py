"""What travels together through the pipeline: one head and the hematoma in it."""

from __future__ import annotations

from dataclasses import dataclass

import SimpleITK as sitk

from .grid import Grid
from .mask import Mask


@dataclass(frozen=True)
class Subject:
    """A CT with its intracranial and hematoma masks, all on one orthogonal grid with axes nearest LPS.

    Attributes:
        ct: HU.
        inside_skull: brain, CSF and blood.
        hematoma: as drawn or found; empty if there is none.

    Raises:
        ValueError: they lie on different grids.
    """

    ct: sitk.Image
    inside_skull: Mask
    hematoma: Mask

    def __post_init__(self) -> None:
        if not all(self.grid.is_same(mask.grid) for mask in (self.inside_skull, self.hematoma)):
            raise ValueError("the CT and the masks of a subject lie on different grids")

    @property
    def grid(self) -> Grid:
        """The grid that all three share."""
        return Grid.of(self.ct)
