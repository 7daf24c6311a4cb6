"""Grids: every voxel keeps its place in the patient, whatever the axes."""

import numpy as np
import pytest
import SimpleITK as sitk
from HematomaExpansionLib.scan.grid import Grid, image_on
from HematomaExpansionLib.scan.resampling import average_onto, crop_to, resample, smooth_for
from HematomaExpansionLib.scan.shapes import bounding_box

OBLIQUE = sitk.Euler3DTransform((0, 0, 0), 0.3, -0.2, 0.4).GetMatrix()
FLIPPED = (-1.0, 0, 0, 0, 1, 0, 0, 0, -1)
SHEARED = (1.0, 0, 0, 0, 1, 0.31, 0, 0, 0.95)
DIRECTIONS = {
    "straight": (1.0, 0, 0, 0, 1, 0, 0, 0, 1),
    "oblique": OBLIQUE,
    "flipped": FLIPPED,
    "sheared": SHEARED,
}


@pytest.fixture(params=DIRECTIONS, ids=str)
def grid(request: pytest.FixtureRequest) -> Grid:
    return Grid((20, 24, 12), (0.8, 0.7, 3.0), (-12.0, 30.0, 5.0), DIRECTIONS[request.param])


def position_image(grid: Grid) -> sitk.Image:
    """An image whose vectors are the LPS positions of its own voxels, as SimpleITK computes them."""
    return sitk.PhysicalPointSource(
        sitk.sitkVectorFloat64, list(grid.size), grid.origin, grid.spacing, grid.direction
    )


def test_point_agrees_with_simpleitk(grid: Grid) -> None:
    image = position_image(grid)
    for index in [(0, 0, 0), (19, 23, 11), (3, 7, 5)]:
        np.testing.assert_allclose(grid.point(index), image.GetPixel(*index), atol=1e-9)
    assert Grid.of(image).is_same(grid)


def test_voxel_volume_counts_the_shear(grid: Grid) -> None:
    expected = 0.8 * 0.7 * 3.0 / 1000 * abs(np.linalg.det(np.reshape(grid.direction, (3, 3))))
    assert grid.voxel_volume_ml == pytest.approx(expected)


def test_image_on_puts_the_array_on_the_grid(grid: Grid) -> None:
    array = np.arange(20 * 24 * 12, dtype=np.float32).reshape(grid.shape)
    image = image_on(grid, array)
    assert Grid.of(image) == grid
    assert image.GetPixel(2, 3, 4) == array[4, 3, 2]
    with pytest.raises(ValueError, match="does not fit"):
        image_on(grid, array[1:])


def test_cropped_and_crop_to_leave_every_voxel_in_place(grid: Grid) -> None:
    part = grid.cropped((4, 5, 6), (8, 7, 4))
    np.testing.assert_allclose(part.point((0, 0, 0)), grid.point((4, 5, 6)))
    near = crop_to(position_image(grid), part, margin_mm=0.0)
    assert near.GetSize()[0] < grid.size[0]
    for image in (near, sitk.RegionOfInterest(position_image(grid), part.size, (4, 5, 6))):
        np.testing.assert_allclose(image.GetPixel(1, 1, 1), Grid.of(image).point((1, 1, 1)), atol=1e-9)


def test_with_spacing_covers_the_same_box(grid: Grid) -> None:
    other = grid.with_spacing((2.0, 2.0, 2.0))
    center = grid.point((np.array(grid.size) - 1) / 2)
    np.testing.assert_allclose(other.point((np.array(other.size) - 1) / 2), center, atol=1e-9)
    extent, covered = np.array(grid.size) * grid.spacing, np.array(other.size) * other.spacing
    assert (covered >= extent - 1e-6).all()
    assert (covered < extent + 2.0).all()


def test_positions_survive_resampling_to_another_grid(grid: Grid) -> None:
    inner = grid.cropped((5, 6, 3), (10, 12, 6)).with_spacing((1.1, 0.9, 2.0))
    there = resample(position_image(grid), inner)
    np.testing.assert_allclose(there.GetPixel(2, 3, 4), inner.point((2, 3, 4)), atol=1e-6)


def test_smoothing_only_where_the_target_is_coarser() -> None:
    noise = np.random.default_rng(0).normal(size=(20, 40, 40)).astype(np.float32)
    image = image_on(Grid((40, 40, 20), (0.5, 0.5, 5.0), (0.0, 0, 0), DIRECTIONS["straight"]), noise)
    smooth = sitk.GetArrayFromImage(smooth_for(image, (2.0, 2.0, 2.0)))
    assert smooth.std() < 0.5 * noise.std()
    lag_z = (smooth[1:] * smooth[:-1]).mean() / smooth.var()
    assert abs(lag_z) < 0.1, "slices were mixed although the target is finer across them"
    assert smooth_for(image, (0.5, 0.5, 2.0)) is image


def test_average_onto_keeps_the_mean_and_fills_outside() -> None:
    grid = Grid((40, 40, 20), (0.5, 0.5, 5.0), (0.0, 0, 0), DIRECTIONS["straight"])
    image = image_on(grid, np.full(grid.shape, 37.0, np.float32))
    larger = Grid((30, 10, 10), (2.0, 2.0, 2.0), (0.0, 0, 0), DIRECTIONS["straight"])
    values = average_onto(image, larger, outside=-1000.0)
    np.testing.assert_allclose(values[:, :, :9], 37.0, atol=1e-3)
    assert (values[:, :, 12:] == -1000.0).all()


@pytest.mark.parametrize("spacing", [(2.0, 2.0, 2.0), (1.1, 0.5, 5.0), (4.0, 4.0, 4.0)])
def test_average_onto_smooths_as_the_whole_image_is_smoothed(grid: Grid, spacing: tuple[float, ...]) -> None:
    noise = np.random.default_rng(0).normal(0, 500, grid.shape).astype(np.float32)
    image = image_on(grid, noise)
    for target in (grid.with_spacing(spacing), grid.cropped((-3, 4, 2), (12, 30, 6)).with_spacing(spacing)):
        whole = resample(smooth_for(crop_to(image, target), spacing), target, outside=-1000.0)
        np.testing.assert_array_equal(average_onto(image, target, outside=-1000.0), sitk.GetArrayFromImage(whole))


def test_bounding_box() -> None:
    mask = np.zeros((5, 6, 7), bool)
    mask[1:3, 2:6, 4] = True
    first, size = bounding_box(mask)
    assert first.tolist() == [4, 2, 1]
    assert size.tolist() == [1, 4, 2]
    with pytest.raises(ValueError, match="empty"):
        bounding_box(np.zeros((2, 2, 2), bool))
