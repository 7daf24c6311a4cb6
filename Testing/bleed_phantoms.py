"""Heads in which every kind of bleed has a known place and volume, as a network of all classes would see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from HematomaExpansionLib.anatomy import segmentation
from HematomaExpansionLib.anatomy.bleeds import VENTRICLES, Kind
from HematomaExpansionLib.models.description import CLASSES, ModelDescription
from HematomaExpansionLib.models.networks.build import build_network
from HematomaExpansionLib.models.package import ModelPackage, find_package, write_package
from HematomaExpansionLib.scan.grid import Grid, image_on
from HematomaExpansionLib.scan.mask import Mask
from phantoms import BRAIN_SEMI_AXES, head_image, positions

MODEL_SPACING = (1.5, 1.5, 2.5)
_SOFT_MM = 0.6
"""How far a network's probability needs to fall."""


@dataclass(frozen=True)
class Ball:
    """The part of a ball on one side of a plane through its middle.

    ``center``: LPS mm; ``side``: the direction to which it lies, or none for the whole ball.
    """

    center: tuple[float, float, float]
    radius: float
    side: tuple[float, float, float] | None = None

    @property
    def volume_ml(self) -> float:
        whole = 4 / 3 * np.pi * self.radius**3 / 1000
        return whole if self.side is None else whole / 2

    def likely(self, points: np.ndarray, soft_mm: float) -> np.ndarray:
        """How probable it is that positions (…, 3) lie inside; both sides of a ball add up to the whole."""
        offsets = points - np.asarray(self.center)
        within = _rising(self.radius - np.linalg.norm(offsets, axis=-1), soft_mm)
        return within if self.side is None else within * _rising(offsets @ np.asarray(self.side), soft_mm)


def _rising(depth_mm: np.ndarray, soft_mm: float) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-np.clip(depth_mm / soft_mm, -30, 30)))


Shapes = Mapping[Kind, Sequence[Ball]]

LEFT, RIGHT = (1.0, 0.0, 0.0), (-1.0, 0.0, 0.0)
MIDDLE = (0.4, 0.0, 0.0)
"""Not on a voxel, where two kinds could be equally likely."""
HALVES: Shapes = {
    Kind.INTRAPARENCHYMAL: [Ball(MIDDLE, 18.0, LEFT)],
    Kind.INTRAVENTRICULAR: [Ball(MIDDLE, 18.0, RIGHT)],
}
"""A ball of blood that a ventricle's wall divides."""


def class_probabilities(grid: Grid, shapes: Shapes) -> list[sitk.Image]:
    """Probability of each class on ``grid``: where blood of two kinds meets, both are equally likely.

    Edema is what its balls have beyond all blood.
    """
    points = positions(grid)
    likely = {
        kind: np.max([ball.likely(points, _SOFT_MM) for ball in balls], axis=0) for kind, balls in shapes.items()
    }
    classes = np.zeros((CLASSES, *grid.shape), np.float32)
    for kind, share in likely.items():
        if kind is not Kind.EDEMA:
            classes[kind] = share
    blood = classes.sum(axis=0)
    classes /= np.maximum(blood, 1.0)
    blood = np.minimum(blood, 1.0)
    if Kind.EDEMA in likely:
        classes[Kind.EDEMA] = np.maximum(likely[Kind.EDEMA] - blood, 0.0)
    classes[VENTRICLES] = 0.0
    classes[0] = 1.0 - classes.sum(axis=0)
    return [image_on(grid, of_class) for of_class in classes]


def scan_with(grid: Grid, shapes: Shapes) -> sitk.Image:
    """The phantom's head, int16 HU, with these bleeds in it: blood of 65 HU, edema of 22."""
    hu = sitk.GetArrayFromImage(head_image(grid))
    points = positions(grid)
    for kind in sorted(shapes, reverse=True):  # edema first: blood lies over it
        for ball in shapes[kind]:
            hu[ball.likely(points, 1e-3) > 0.5] += -11 if kind is Kind.EDEMA else 32
    return image_on(grid, np.clip(hu, -1024, 1500))


def six_class_package(folder: Path) -> ModelPackage:
    """A package that tells all kinds apart, untrained: ``see`` says what it finds."""
    arguments = {"channels": [4, 8], "classes": CLASSES}
    shipped = find_package(None, "segmentation").description
    described = replace(shipped, name="six-classes", arguments=arguments, spacing_mm=MODEL_SPACING, settings={})
    return write_package(folder, described, build_network("segmentation-unet", arguments))


def see(monkeypatch: pytest.MonkeyPatch, shapes: Shapes) -> None:
    """Make every network of all classes find these bleeds."""

    def found(
        _ct: sitk.Image, inside: Mask, description: ModelDescription, _network: object, _device: object
    ) -> list[sitk.Image]:
        return class_probabilities(segmentation.brain_region(inside, description.spacing_mm), shapes)

    monkeypatch.setattr(segmentation, "class_probabilities", found)


def inside_of(grid: Grid) -> Mask:
    """The inside of the phantom's skull."""
    return Mask.on(grid, np.linalg.norm(positions(grid) / BRAIN_SEMI_AXES, axis=-1) <= 1)
