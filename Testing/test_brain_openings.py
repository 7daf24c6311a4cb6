"""The inside of an open, thin or incomplete skull, in simulated heads whose inside is known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import SimpleITK as sitk
from HematomaExpansionLib.anatomy.brain import Brain, extract_brain
from HematomaExpansionLib.errors import InputError
from HematomaExpansionLib.scan.grid import Grid, image_on
from phantoms import STRAIGHT

SCALP_HU, BLOOD_HU = 30.0, 65.0


@dataclass(frozen=True)
class Head:
    """Noise-free ``hu`` (z, y, x), and the ``depth`` of its voxels: mm outside the inside of the skull."""

    spacing_mm: float
    hu: np.ndarray
    depth: np.ndarray

    @property
    def inside(self) -> np.ndarray:
        return self.depth <= 0

    def from_center(self) -> tuple[np.ndarray, ...]:
        """Positions z, y, x in mm from the middle of the brain, to be broadcast."""
        middle = np.argwhere(self.inside).mean(axis=0)
        axes = np.ogrid[tuple(slice(n) for n in self.hu.shape)]
        return tuple(self.spacing_mm * (axis - place) for axis, place in zip(axes, middle, strict=True))


@pytest.fixture(scope="module")
def head() -> Head:
    """The head that all tests here share: the one of the simulated patients, at 1.8 mm."""
    from HematomaSynthesisLib.simulation.template import MEAN_SCALE, template

    depth = MEAN_SCALE * sitk.GetArrayFromImage(template())[::2, ::2, ::2, 3]
    depth = np.pad(depth, 4, mode="edge")
    hu = np.where(depth <= 0, np.float32(33.0), np.float32(-1000.0))
    return with_skull(Head(2 * MEAN_SCALE, hu, depth), thickness_mm=6.0, bone_hu=1000.0)


def with_skull(head: Head, thickness_mm: float, bone_hu: float) -> Head:
    """The same inside within another skull, and a scalp of 5 mm."""
    hu = np.where(head.inside, head.hu, -1000.0)
    hu[(head.depth > 0) & (head.depth <= thickness_mm + 5.0)] = SCALP_HU
    hu[(head.depth > 0) & (head.depth <= thickness_mm)] = bone_hu
    return replace(head, hu=hu)


def opened(head: Head, where: np.ndarray) -> Head:
    """The head without its bone in a region."""
    return replace(head, hu=np.where(where & (head.depth > 0) & (head.hu > 100), SCALP_HU, head.hu))


def infant(head: Head, suture_mm: float, scale: float = 0.75, thickness_mm: float = 2.0) -> Head:
    """A small head, its skull thin, soft and open: sagittal and coronal suture, and a fontanelle where they meet.

    ``suture_mm``: their width; 0 for a closed skull. Lengths are those of the small head.
    """
    soft = with_skull(head, thickness_mm / scale, bone_hu=400.0)
    z, y, x = (scale * axis for axis in head.from_center())
    suture = (np.abs(x) < suture_mm / 2) | (np.abs(y + 15) < suture_mm / 2)
    fontanelle = (np.hypot(x, y + 15) < 15) & (suture_mm > 0)
    return replace(opened(soft, (suture | fontanelle) & (z > 10)), spacing_mm=scale * head.spacing_mm)


def averaged(voxels: np.ndarray, count: int) -> np.ndarray:
    """Means of ``count`` slices each."""
    slices = len(voxels) // count
    return voxels[: slices * count].reshape(slices, count, *voxels.shape[1:]).mean(axis=1)


def scanned(head: Head, count: int = 3) -> tuple[Brain, np.ndarray]:
    """What is found in a CT whose slices are ``count`` voxels thick, and the true inside on its grid."""
    hu = averaged(head.hu, count)
    slices, rows, columns = hu.shape
    in_plane = head.spacing_mm
    grid = Grid((columns, rows, slices), (in_plane, in_plane, count * in_plane), (0.0, 0.0, 0.0), STRAIGHT)
    noise = np.random.default_rng(0).normal(0, 4, hu.shape)
    return extract_brain(image_on(grid, (hu + noise).astype(np.float32))), averaged(head.inside, count) > 0.5


def dice(found: np.ndarray, true: np.ndarray) -> float:
    return 2 * np.count_nonzero(found & true) / (np.count_nonzero(found) + np.count_nonzero(true))


@pytest.mark.parametrize(
    ("suture_mm", "count", "open_cm2"), [(0.0, 3, (0, 20)), (10.0, 2, (20, 60)), (20.0, 3, (50, 110))]
)
def test_an_infants_thin_and_open_skull_holds_all_of_the_brain(
    head: Head, suture_mm: float, count: int, open_cm2: tuple[float, float]
) -> None:
    brain, true = scanned(infant(head, suture_mm), count)
    assert dice(brain.mask.voxels, true) > 0.97
    assert open_cm2[0] <= brain.missing_bone_cm2 <= open_cm2[1]


@pytest.mark.parametrize(
    ("thickness_mm", "sentence"), [(2.0, "not for an infant's small, open skull"), (0.0, "too thin and open")]
)
def test_a_newborn_is_refused_with_a_sentence_that_fits(head: Head, thickness_mm: float, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        scanned(infant(head, 10.0, scale=0.6, thickness_mm=thickness_mm))


def test_a_bleed_under_a_flap_that_the_last_slice_cuts_is_inside(head: Head) -> None:
    """A flap of 12 cm at the vertex, a bleed of 20 mL under it, and the last 16 mm of the head out of view."""
    z, y, x = head.from_center()
    from_axis = np.hypot(x, y)
    top = z[head.inside.any(axis=(1, 2))].max()
    blood = (np.hypot(from_axis, z - (top - 20)) < 17) & head.inside
    whole = opened(replace(head, hu=np.where(blood, BLOOD_HU, head.hu)), (from_axis < 60) & (z > 10))
    seen = z.ravel() <= z[(head.hu > -500).any(axis=(1, 2))].max() - 16
    brain, true = scanned(replace(whole, hu=whole.hu[seen], depth=whole.depth[seen]))
    assert brain.missing_bone_cm2 > 15
    found, bleed = brain.mask.voxels, averaged(blood[seen], 3) > 0.5
    assert dice(found, true) > 0.96
    assert np.count_nonzero(found & bleed) >= 0.95 * np.count_nonzero(bleed)
