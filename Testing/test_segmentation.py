"""Which dense structures count as a hematoma."""

import time

import numpy as np
import SimpleITK as sitk
from HematomaExpansionLib.anatomy.hematomas import keep_hematomas, keep_told_hematomas
from HematomaExpansionLib.anatomy.segmentation import segment_by_threshold
from HematomaExpansionLib.scan.mask import Mask
from phantoms import BRAIN_SEMI_AXES, head_grid, head_image, positions
from scipy.ndimage import label

GRID = head_grid((1.0, 1.0, 4.0))
POINTS = positions(GRID)
DEPTH = 1 - np.linalg.norm(POINTS / BRAIN_SEMI_AXES, axis=-1)
BRAIN = Mask.on(GRID, DEPTH >= 0)


def ball(center: tuple[float, float, float], radius: float) -> np.ndarray:
    return np.linalg.norm(POINTS - center, axis=-1) <= radius


def kept(mask: np.ndarray, inside: Mask = BRAIN) -> np.ndarray:
    return keep_hematomas(Mask.on(GRID, mask), inside).voxels


def test_a_layer_on_the_skull_and_specks_are_no_hematoma() -> None:
    sinus = (DEPTH >= 0) & (DEPTH < 0.08) & (POINTS[..., 1] > 40) & (np.abs(POINTS[..., 2]) < 20)
    speck = ball((-20.0, 0.0, 0.0), 4.0)
    deep = ball((25.0, 10.0, 5.0), 12.0)
    assert sinus.sum() * GRID.voxel_volume_ml > 5
    np.testing.assert_array_equal(kept(sinus | speck | deep), deep)
    assert not kept(sinus).any()
    assert not kept(np.zeros_like(sinus)).any()


def test_satellites_of_a_hematoma_are_kept() -> None:
    deep, far = ball((25.0, 10.0, 5.0), 12.0), ball((-20.0, 0.0, 0.0), 4.0)
    beside, dot = ball((25.0, -12.0, 5.0), 3.5), ball((44.0, 10.0, 5.0), 1.2)
    assert 0.1 < beside.sum() * GRID.voxel_volume_ml < 0.3
    np.testing.assert_array_equal(kept(deep | beside | far | dot), deep | beside)
    assert not kept(beside).any(), "alone it is a speck"


def test_a_lobar_hematoma_that_reaches_the_skull_is_kept() -> None:
    lobar = ball((50.0, 0.0, 0.0), 16.0) & (DEPTH >= 0)
    np.testing.assert_array_equal(kept(lobar), lobar)


def test_a_small_lobar_hematoma_under_the_skull_is_kept() -> None:
    small = ball((55.0, 0.0, 0.0), 8.5) & (DEPTH >= 0)
    assert 1.5 < small.sum() * GRID.voxel_volume_ml < 3
    np.testing.assert_array_equal(kept(small), small)


def test_a_small_dense_spot_at_the_foramen_magnum_is_no_hematoma() -> None:
    canal = (np.hypot(POINTS[..., 0], POINTS[..., 1]) <= 16.0) & (POINTS[..., 2] < 0)
    inside = Mask.on(GRID, (DEPTH >= 0) | canal)
    foramen = float(POINTS[DEPTH >= 0][:, 2].min())
    for above in (-10.0, 4.0):  # in the spinal canal, and the medulla
        assert not kept(ball((0.0, 0.0, foramen + above), 8.0), inside).any()
    large, higher = ball((0.0, 0.0, foramen + 4.0), 11.0), ball((0.0, 0.0, foramen + 30.0), 8.0)
    assert 1.5 < higher.sum() * GRID.voxel_volume_ml < 3.0 < large.sum() * GRID.voxel_volume_ml
    np.testing.assert_array_equal(kept(large, inside), large)
    np.testing.assert_array_equal(kept(higher, inside), higher)


def test_told_apart_from_other_blood_small_and_shallow_hematomas_are_kept() -> None:
    contusion = ball((-58.0, 0.0, 0.0), 6.0) & (DEPTH >= 0)
    beside = ball((-44.0, 0.0, 0.0), 2.5)
    speck = ball((20.0, 0.0, 0.0), 4.0)
    assert 0.5 < contusion.sum() * GRID.voxel_volume_ml < 1.0
    assert 0.03 < beside.sum() * GRID.voxel_volume_ml < speck.sum() * GRID.voxel_volume_ml < 0.5
    told = keep_told_hematomas(Mask.on(GRID, contusion | beside | speck))
    np.testing.assert_array_equal(told.voxels, contusion | beside)
    assert not kept(contusion | beside | speck).any()


def test_many_specks_cost_little_more_than_few() -> None:
    z, y, x = np.indices(GRID.shape)
    deep = ball((25.0, 10.0, 5.0), 12.0)
    away = BRAIN.voxels & (np.linalg.norm(POINTS - (25.0, 10.0, 5.0), axis=-1) > 26)
    specks = away & (x % 6 < 3) & (y % 6 < 3) & (z % 3 == 0)

    def seconds(mask: np.ndarray) -> float:
        start = time.perf_counter()
        np.testing.assert_array_equal(kept(mask), deep)
        return time.perf_counter() - start

    kept(deep)
    assert label(specks)[1] > 2000
    assert seconds(deep | specks) < 5 * seconds(deep) + 1


def test_the_threshold_method_measures_a_ball_of_blood() -> None:
    found = segment_by_threshold(sitk.Cast(head_image(GRID, sphere_mm=18.0), sitk.sitkFloat32), BRAIN)
    assert found.grid == GRID
    true = ball((0.0, 0.0, 0.0), 18.0)
    mask = found.voxels
    assert 2 * (mask & true).sum() / (mask.sum() + true.sum()) > 0.93
    nothing = segment_by_threshold(sitk.Cast(head_image(GRID), sitk.sitkFloat32), BRAIN)
    assert nothing.is_empty
