"""The inside of the skull: of known volume in a made head, plausible in the real one."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from HematomaExpansionLib.brain import extract_brain
from HematomaExpansionLib.errors import InputError
from HematomaExpansionLib.grid import Grid, image_on
from HematomaExpansionLib.head_ct import read_head_ct
from phantoms import BRAIN_ML, BRAIN_SEMI_AXES, STRAIGHT, head_grid, head_image, positions

OBLIQUE = sitk.Euler3DTransform((0, 0, 0), 0.15, -0.1, 0.2).GetMatrix()


def in_brain(grid: Grid) -> np.ndarray:
    return np.linalg.norm(positions(grid) / BRAIN_SEMI_AXES, axis=-1) <= 1


@pytest.mark.parametrize(
    ("spacing", "direction"),
    [
        ((0.9, 0.9, 5.0), STRAIGHT),
        ((1.5, 1.5, 1.5), STRAIGHT),
        ((1.2, 1.2, 2.5), OBLIQUE),
        ((1.5, 1.5, 7.0), OBLIQUE),
    ],
    ids=["thick slices", "isotropic", "oblique", "very thick"],
)
def test_the_brain_is_found_whole_and_nothing_else(
    spacing: tuple[float, float, float], direction: tuple[float, ...]
) -> None:
    grid = head_grid(spacing, direction)
    brain = extract_brain(head_image(grid, sphere_mm=20.0))
    assert brain.volume_ml == pytest.approx(BRAIN_ML, rel=0.05)
    found, true = sitk.GetArrayFromImage(brain.mask) > 0, in_brain(grid)
    assert Grid.of(brain.mask) == grid
    assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.96
    far = np.linalg.norm(positions(grid) / (np.array(BRAIN_SEMI_AXES) + 8), axis=-1) > 1
    assert (found & far).sum() * grid.voxel_volume_ml < 10.0, "eyes, scalp, table or neck were taken along"


def test_blood_at_the_inner_table_and_calcifications_are_inside() -> None:
    grid = head_grid((1.0, 1.0, 5.0))
    image = head_image(grid)
    hu = sitk.GetArrayFromImage(image)
    points = positions(grid)
    blood = (np.linalg.norm(points - (50.0, 0, 0), axis=-1) < 18) & in_brain(grid)
    calcification = np.linalg.norm(points - (0.0, 10, 0), axis=-1) < 4
    hu[blood], hu[calcification] = 68, 400
    found = sitk.GetArrayFromImage(extract_brain(image_on(grid, hu)).mask) > 0
    assert found[blood].mean() > 0.95
    assert found[calcification].all()


def test_a_body_without_a_skull_full_of_brain_is_refused() -> None:
    grid = head_grid((2.0, 2.0, 4.0))
    hu = sitk.GetArrayFromImage(head_image(grid))
    hu[in_brain(grid)] = -700  # a shell of bone around air: a chest, more or less
    with pytest.raises(InputError, match="No brain was found"):
        extract_brain(image_on(grid, hu))


def test_the_real_head(real_head_ct: Path) -> None:
    scan = read_head_ct(real_head_ct)
    brain = extract_brain(scan.image)
    assert 1300 < brain.volume_ml < 1600
    mask, hu = sitk.GetArrayFromImage(brain.mask) > 0, sitk.GetArrayFromImage(scan.image)
    assert (hu[mask] < -20).mean() < 0.01, "fat of the orbits or the scalp, or air of the sinuses, is inside"
    assert (hu[mask] > 160).mean() < 0.01, "bone is inside"
    depth = sitk.GetArrayFromImage(
        sitk.SignedMaurerDistanceMap(
            scan.image > -300, insideIsPositive=True, squaredDistance=False, useImageSpacing=True
        )
    )
    above_the_sinuses = slice(15, None)
    assert depth[above_the_sinuses][mask[above_the_sinuses]].min() > 3.0, "the mask comes to the skin"
