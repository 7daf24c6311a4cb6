"""Which blood is where: bleeds of four kinds in one label map (``bleeds.nii.gz``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..scan.grid import Array, Grid, image_on
from ..scan.head_ct import HeadCT
from ..scan.mask import Mask
from .kinds import BLOOD, Kind
from .midline import Midline

__all__ = [
    "BLOOD",
    "DOUBTFUL",
    "DRAWN_BOX",
    "NO_BOX",
    "VENTRICLES",
    "Bleeds",
    "Kind",
    "Presence",
    "class_of_most",
    "labels_on",
]

VENTRICLES = 5
"""The class of CSF in the lateral ventricles, which follows the kinds."""

DRAWN_BOX, NO_BOX = "drawn", "none"
"""A box that the user gave, and none at all since no model found anything to put one around (``box_from``)."""

DOUBTFUL = 0.5
"""Where a hematoma is less probable than this, the reader is asked to look, and no growth is predicted."""


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
        is_mixed: blood of any kind was looked for, and counts as hematoma wherever it lies.
        box_from: where the box comes from in which alone the hematoma was looked for: ``DRAWN_BOX``, the name of
            the model that found what it surrounds, or ``NO_BOX``; None if the whole brain was searched.
    """

    labels: sitk.Image
    looked_for: frozenset[Kind]
    presence: Presence | None = None
    midline: Midline | None = None
    is_mixed: bool = False
    box_from: str | None = None

    @classmethod
    def of_hematoma(cls, hematoma: Mask) -> Bleeds:
        """The hematoma alone, from a method or a reader that looked for nothing else."""
        return cls(sitk.Mask(hematoma.image, hematoma.image), frozenset({Kind.INTRAPARENCHYMAL}))

    @classmethod
    def of_result(cls, labels: sitk.Image, described: Mapping[str, Any] | None) -> Bleeds:
        """The bleeds in a label map and in the ``bleeds`` of ``prediction.json``; in an earlier version's result,
        which has none, the hematoma is all that was looked for.
        """
        if not described:
            return cls(labels, frozenset({Kind.INTRAPARENCHYMAL}))
        probability = described["probability_of_hematoma"]
        return cls(
            labels,
            frozenset(kind for kind in Kind if described[kind.key] is not None),
            None if probability is None else Presence(probability, described["slice"]),
            Midline.of(described["midline"]) if described.get("midline") else None,
            bool(described.get("mixed")),
            described.get("box"),
        )

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

    @cached_property
    def blood(self) -> Mask:
        """Where blood of any kind lies."""
        return Mask.on(self.grid, np.isin(self.voxels, BLOOD))

    @property
    def tells_kinds_apart(self) -> bool:
        """Whether blood of every kind was looked for."""
        return self.looked_for >= frozenset(BLOOD)

    @property
    def is_doubtful(self) -> bool:
        """Whether something was found that is too improbable to be a hematoma for predicting its growth."""
        return self.presence is not None and self.presence.probability < DOUBTFUL and not self.hematoma.is_empty

    @property
    def described(self) -> dict[str, Any]:
        """The ``bleeds`` of ``prediction.json``: volumes in mL; None for what is not known."""
        presence = self.presence
        return {
            **{kind.key: self.volume_ml(kind) for kind in Kind},
            "midline_shift_mm": self.midline_shift_mm,
            "midline": None if self.midline is None else self.midline.described,
            "mixed": self.is_mixed or None,
            "box": self.box_from,
            "probability_of_hematoma": None if presence is None else presence.probability,
            "slice": None if presence is None else presence.slice_number,
            "doubtful": None if presence is None else self.is_doubtful,
        }

    def restored(self, scan: HeadCT) -> Bleeds:
        """The same in the scan's stored axis order."""
        return replace(self, labels=scan.restore(self.labels))


def labels_on(grid: Grid, parts: Iterable[tuple[Kind, Array]]) -> sitk.Image:
    """The label map of these parts, booleans (z, y, x) on ``grid``; where two overlap, the later one counts."""
    labels = np.zeros(grid.shape, np.uint8)
    for kind, where in parts:
        labels[where] = kind
    return image_on(grid, labels)


def class_of_most(share: Array) -> Array:
    """The class of most of each voxel, uint8 (z, y, x), from the share of each class, (class, z, y, x).

    Two kinds of blood that share a voxel make it blood, of the kind that has more of it; blood and edema make it
    edema. What fills no half is background. ``segmentation.bleeds_from`` decides by the same rule.
    """
    of_blood = share[list(BLOOD)]
    blood = of_blood.sum(axis=0)
    kind = np.array(BLOOD, np.uint8)[of_blood.argmax(axis=0)]
    swollen = blood + share[Kind.EDEMA] >= 0.5
    rest = np.where(swollen, int(Kind.EDEMA), np.where(share[VENTRICLES] >= 0.5, VENTRICLES, 0))
    return np.where(blood >= 0.5, kind, rest).astype(np.uint8)
