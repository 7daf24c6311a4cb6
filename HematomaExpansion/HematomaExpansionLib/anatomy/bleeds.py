"""Which blood is where: bleeds of four kinds in one label map (``bleeds.nii.gz``)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
import SimpleITK as sitk

from ..scan.grid import Array, Grid, image_on
from ..scan.mask import Mask
from .midline import Midline


class Kind(IntEnum):
    """A kind of bleed, or what a bleed causes, with its value in the label map."""

    INTRAPARENCHYMAL = 1
    INTRAVENTRICULAR = 2
    EXTRAAXIAL = 3
    EDEMA = 4


BLOOD = (Kind.INTRAPARENCHYMAL, Kind.INTRAVENTRICULAR, Kind.EXTRAAXIAL)

VENTRICLES = 5
"""The class of CSF in the lateral ventricles, which follows the kinds."""


@dataclass(frozen=True)
class Presence:
    """Whether there is a hematoma at all.

    Attributes:
        probability: that there is one, 0 to 1.
        slice_number: the axial slice that shows most of it, counted from 1, feet first; None if none was found.
    """

    probability: float
    slice_number: int | None


@dataclass(frozen=True, eq=False)
class Bleeds:
    """The bleeds in a scan.

    Attributes:
        labels: label map of ``Kind``, uint8, 0 elsewhere, on the scan's grid.
        looked_for: the kinds that were looked for. Volumes of others are unknown, not zero.
        presence: None if a reader drew the hematoma, or the method does not tell.
        midline: where the septum pellucidum lies, and where it should; None if unknown.
    """

    labels: sitk.Image
    looked_for: frozenset[Kind]
    presence: Presence | None = None
    midline: Midline | None = None

    @classmethod
    def of_hematoma(cls, hematoma: Mask) -> Bleeds:
        """The hematoma alone, from a method or a reader that looked for nothing else."""
        return cls(sitk.Mask(hematoma.image, hematoma.image), frozenset({Kind.INTRAPARENCHYMAL}))

    @cached_property
    def hematoma(self) -> Mask:
        """The intraparenchymal hematoma, the only kind that grows here."""
        return self.of_kind(Kind.INTRAPARENCHYMAL)

    @property
    def grid(self) -> Grid:
        """The scan's grid."""
        return Grid.of(self.labels)

    @property
    def midline_shift_mm(self) -> float | None:
        """How far the septum pellucidum lies from the middle of the skull; None if unknown."""
        return None if self.midline is None else self.midline.shift_mm

    @cached_property
    def voxels(self) -> Array:
        """The label map as an array (z, y, x)."""
        return sitk.GetArrayFromImage(self.labels)

    def of_kind(self, kind: Kind) -> Mask:
        """Where one kind lies."""
        return Mask.on(self.grid, self.voxels == kind)

    def volume_ml(self, kind: Kind) -> float | None:
        """Volume of one kind; None if it was not looked for."""
        if kind not in self.looked_for:
            return None
        return int(np.count_nonzero(self.voxels == kind)) * self.grid.voxel_volume_ml

    @property
    def has_intraventricular_blood(self) -> bool | None:
        """None if it was not looked for."""
        volume_ml = self.volume_ml(Kind.INTRAVENTRICULAR)
        return None if volume_ml is None else volume_ml > 0


def labels_on(grid: Grid, parts: Iterable[tuple[Kind, Array]]) -> sitk.Image:
    """The label map of these parts, booleans (z, y, x) on ``grid``; where two overlap, the later one counts."""
    labels = np.zeros(grid.shape, np.uint8)
    for kind, where in parts:
        labels[where] = kind
    return image_on(grid, labels)
