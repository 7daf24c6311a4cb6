"""The inside of the skull: of known volume in a synthetic head, plausible in the real one."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from HematomaExpansionLib.anatomy.brain import extract_brain
from HematomaExpansionLib.errors import InputError
from HematomaExpansionLib.scan.grid import Grid, image_on
from HematomaExpansionLib.scan.head_ct import read_head_ct
from phantoms import (
    BRAIN_ML,
    BRAIN_SEMI_AXES,
    STRAIGHT,
    head_grid,
    head_image,
    positions,
    sample,
    voxels,
    without_flap,
)

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
    assert brain.mask.volume_ml == pytest.approx(BRAIN_ML, rel=0.05)
    found, true = voxels(brain.mask), in_brain(grid)
    assert brain.mask.grid == grid
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
    found = voxels(extract_brain(image_on(grid, hu)).mask)
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
    assert 1300 < brain.mask.volume_ml < 1600
    mask, hu = voxels(brain.mask), sitk.GetArrayFromImage(scan.image)
    assert (hu[mask] < -20).mean() < 0.01, "fat of the orbits or the scalp, or air of the sinuses, is inside"
    assert (hu[mask] > 160).mean() < 0.01, "bone is inside"
    depth = sitk.GetArrayFromImage(
        sitk.SignedMaurerDistanceMap(
            scan.image > -300, insideIsPositive=True, squaredDistance=False, useImageSpacing=True
        )
    )
    above_the_sinuses = slice(15, None)
    assert depth[above_the_sinuses][mask[above_the_sinuses]].min() > 3.0, "the mask comes to the skin"


def without_bone(where: np.ndarray) -> sitk.Image:
    """The shipped sample with part of its bone removed."""
    hu = sitk.GetArrayFromImage(sample())
    hu[where & (hu > 100)] = 20
    return image_on(Grid.of(sample()), hu)


def craniectomy(kind: str) -> sitk.Image:
    z, y, x = np.indices(Grid.of(sample()).shape)
    if kind == "bone flap":
        return without_flap(sample())
    if kind == "hemicraniectomy":
        return without_bone((x < 105) & (z > 8) & (z < 27))
    return without_bone((y < 95) & (z > 12) & (z < 27))


@pytest.mark.parametrize("kind", ["bone flap", "hemicraniectomy", "bifrontal craniectomy"])
def test_the_inside_does_not_end_where_bone_is_missing(kind: str) -> None:
    whole = extract_brain(sample())
    assert whole.missing_bone_cm2 == whole.unseen_skull_cm2 == 0
    scan = craniectomy(kind)
    brain = extract_brain(scan)
    assert brain.missing_bone_cm2 > 50
    assert brain.unseen_skull_cm2 == 0
    before, found = (voxels(mask) for mask in (whole.mask, brain.mask))
    assert (found & before).sum() > 0.99 * before.sum()
    bone_that_was = sitk.GetArrayFromImage(sample()) > 100
    voxel_ml = Grid.of(scan).voxel_volume_ml
    assert (found & ~before & ~bone_that_was).sum() * voxel_ml < 15, "scalp, orbits or neck were taken along"


def test_the_inside_does_not_end_where_the_skull_is_out_of_view() -> None:
    whole = voxels(extract_brain(sample()).mask)[..., 65:]
    brain = extract_brain(sample()[65:, :, :])
    assert brain.unseen_skull_cm2 > 20
    assert brain.missing_bone_cm2 == 0
    found = voxels(brain.mask)
    assert (found & whole).sum() > 0.98 * whole.sum()
    assert (found & ~whole).sum() * brain.mask.grid.voxel_volume_ml < 15


def test_a_stack_that_ends_in_the_head_is_no_opening() -> None:
    for part in (sample()[:, :, :27], sample()[:, :, 4:]):
        brain = extract_brain(part)
        assert brain.missing_bone_cm2 == brain.unseen_skull_cm2 == 0


def test_a_burr_hole_is_no_missing_bone() -> None:
    z, y, x = np.indices(Grid.of(sample()).shape)
    brain = extract_brain(without_bone((np.hypot(y - 129, (z - 20) * 5) < 8) & (x < 128)))
    assert brain.missing_bone_cm2 == 0


def test_too_little_brain_is_refused_with_the_reason_that_fits() -> None:
    with pytest.raises(InputError, match=r"the scan ends within it: choose the series that covers the whole head"):
        extract_brain(sample()[:, :, 20:])
    small = sample()
    small.SetSpacing([0.68 * step for step in small.GetSpacing()])
    with pytest.raises(InputError, match=r"made for adults, not for an infant's"):
        extract_brain(small)
    with pytest.raises(InputError, match="No brain was found inside a skull"):
        extract_brain(sample()[:, :, 27:])
