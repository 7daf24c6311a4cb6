"""Volume, ABC/2 and growth on shapes whose answer is known by hand."""

import numpy as np
import pytest
from HematomaExpansionLib.measures.abc2 import EllipsoidEstimate, abc2
from HematomaExpansionLib.measures.expansion import (
    SELECTABLE,
    ExpansionDefinition,
    expansion_limit_ml,
    measure_growth,
)
from HematomaExpansionLib.scan.grid import Grid
from HematomaExpansionLib.scan.mask import Mask
from phantoms import volume_ml

STRAIGHT = (1.0, 0, 0, 0, 1, 0, 0, 0, 1)


def ellipsoid(
    semi_axes: tuple[float, float, float], spacing: tuple[float, float, float], turn: float = 0.0
) -> Mask:
    """Mask of an ellipsoid, semi-axes (x, y, z) in mm, turned about z by ``turn`` radians."""
    half = np.ceil(1.5 * max(semi_axes) / np.array(spacing)).astype(int)
    z, y, x = np.meshgrid(
        *[np.arange(-n, n + 1) * s for n, s in zip(half[::-1], spacing[::-1], strict=True)], indexing="ij"
    )
    along, across = np.cos(turn) * x + np.sin(turn) * y, -np.sin(turn) * x + np.cos(turn) * y
    a, b, c = semi_axes
    inside = (along / a) ** 2 + (across / b) ** 2 + (z / c) ** 2 <= 1
    size = tuple(int(2 * n + 1) for n in half)
    return Mask.on(Grid((size[0], size[1], size[2]), spacing, (3.0, -8, 11), STRAIGHT), inside)


def box(size: tuple[int, int, int], spacing: tuple[float, float, float]) -> Mask:
    """Mask of a box of that many voxels (x, y, z)."""
    array = np.zeros((size[2] + 4, size[1] + 4, size[0] + 4), np.uint8)
    array[2:-2, 2:-2, 2:-2] = 1
    return Mask.on(Grid((array.shape[2], array.shape[1], array.shape[0]), spacing, (0.0, 0, 0), STRAIGHT), array)


@pytest.mark.parametrize("turn", [0.0, 0.5, 1.2])
def test_abc2_of_an_ellipsoid_is_its_three_axes(turn: float) -> None:
    # Semi-axes of a whole number of voxels plus a half: along the grid's axes the voxels' outline is then exact.
    half_a, half_b, half_c = 23.75, 14.75, 9.75
    mask = ellipsoid((half_a, half_b, half_c), (0.5, 0.5, 0.5), turn)
    estimate = abc2(mask)
    assert estimate.a_mm == pytest.approx(2 * half_a, abs=0.5)
    assert estimate.b_mm == pytest.approx(2 * half_b, abs=0.5)
    # A slice at height z has 1 - (z/c)² of the largest area: above 75 % up to c/2, above 25 % up to c·√3/2.
    assert estimate.c_mm == pytest.approx(half_c + 0.5 * (np.sqrt(3) - 1) * half_c, abs=0.5)
    assert estimate.simplified_volume_ml == pytest.approx(half_a * half_b * half_c * 4 / 1000, rel=0.03)
    assert volume_ml(mask) == pytest.approx(4 / 3 * np.pi * half_a * half_b * half_c / 1000, rel=0.01)


def test_abc2_of_a_box_is_exact() -> None:
    estimate = abc2(box((40, 1, 6), (0.5, 0.5, 5.0)))
    assert estimate.a_mm == pytest.approx(20.0)
    assert estimate.b_mm == pytest.approx(0.5, abs=0.15)
    assert estimate.c_mm == pytest.approx(30.0)


def test_diameters_are_physical_on_anisotropic_pixels() -> None:
    mask = ellipsoid((20.0, 12.0, 9.0), (0.4, 0.8, 3.0), 0.7)
    estimate = abc2(mask)
    assert estimate.a_mm == pytest.approx(40.0, abs=0.8)
    assert estimate.b_mm == pytest.approx(24.0, abs=0.8)


def slab_areas(areas: list[int]) -> Mask:
    """Slices whose areas are those numbers of voxels in one row."""
    array = np.zeros((len(areas), 5, max(areas) + 4), np.uint8)
    for k, area in enumerate(areas):
        array[k, 2, 2 : 2 + area] = 1
    return Mask.on(Grid((array.shape[2], 5, len(areas)), (1.0, 1.0, 5.0), (0.0, 0, 0), STRAIGHT), array)


def test_slices_count_by_their_share_of_the_largest() -> None:
    # shares .24, .25, .75, .76, 1.0 -> 0, 1/2, 1/2, 1, 1
    mask = slab_areas([24, 25, 75, 76, 100])
    assert abc2(mask).c_mm == pytest.approx(5.0 * 3.0)
    assert abc2(mask).simplified_volume_ml == pytest.approx(abc2(mask).volume_ml * 5 / 3)


def test_uneven_slices_count_with_their_physical_height() -> None:
    mask = slab_areas([100, 100, 100, 100])
    # Heights: 4, (4+1)/2, (1+7)/2, 7
    assert abc2(mask, [0.0, 4.0, 5.0, 12.0]).c_mm == pytest.approx(4 + 2.5 + 4 + 7)
    assert abc2(mask, [12.0, 5.0, 4.0, 0.0]).c_mm == pytest.approx(4 + 2.5 + 4 + 7)
    with pytest.raises(ValueError, match="slice positions"):
        abc2(mask, [0.0, 4.0])


def test_sheared_slices_keep_their_true_distance() -> None:
    angle = np.deg2rad(18.5)
    direction = (1.0, 0, 0, 0, 1, float(np.sin(angle)), 0, 0, float(np.cos(angle)))
    array = np.zeros((6, 20, 20), np.uint8)
    array[1:5, 5:15, 5:15] = 1
    mask = Mask.on(Grid((20, 20, 6), (1.0, 1.0, 5.0), (0.0, 0, 0), direction), array)
    assert volume_ml(mask) == pytest.approx(4 * 100 * 5 * np.cos(angle) / 1000)
    assert abc2(mask).c_mm == pytest.approx(4 * 5 * np.cos(angle))
    assert abc2(mask).a_mm == pytest.approx(np.hypot(10, 10), abs=1.0)


def test_single_voxel_and_empty_mask() -> None:
    single = abc2(box((1, 1, 1), (0.5, 0.5, 5.0)))
    assert single.a_mm == pytest.approx(0.5, abs=0.01)
    assert single.c_mm == pytest.approx(5.0)
    empty = Mask.empty(Grid((4, 4, 4), (1.0, 1, 1), (0.0, 0, 0), STRAIGHT))
    assert abc2(empty) == EllipsoidEstimate(0, 0, 0, 0, 0)
    assert volume_ml(empty) == 0


@pytest.mark.parametrize(
    ("baseline", "followup", "six", "twelve", "revised"),
    [
        (10.0, 13.2, False, False, False),
        (10.0, 13.4, True, True, True),  # > 33 %
        (100.0, 106.0, False, False, True),  # exactly 6 mL: > against >=
        (100.0, 106.1, True, False, True),
        (100.0, 112.6, True, True, True),
        (100.0, 133.0, True, True, True),
        (10.0, 8.0, False, False, False),
    ],
)
def test_expansion(baseline: float, followup: float, six: bool, twelve: bool, revised: bool) -> None:
    answers = [measure_growth(baseline, followup, definition).expansion for definition in SELECTABLE]
    assert answers == [six, twelve, revised]
    alone = measure_growth(baseline, followup, ExpansionDefinition.SIX_ML_ALONE)
    assert alone.expansion == (followup - baseline >= 6.0)


@pytest.mark.parametrize("definition", list(ExpansionDefinition))
@pytest.mark.parametrize("baseline", [1.0, 12.0, 18.3, 60.0])
def test_the_limit_is_where_expansion_begins(definition: ExpansionDefinition, baseline: float) -> None:
    limit = expansion_limit_ml(definition, baseline)
    assert measure_growth(baseline, limit + 1e-6, definition).expansion
    assert not measure_growth(baseline, limit - 1e-6, definition).expansion


def test_growth_below_what_measurement_can_tell_is_marked() -> None:
    assert not measure_growth(20.0, 23.7, ExpansionDefinition.SIX_ML).detectable
    grown = measure_growth(20.0, 23.9, ExpansionDefinition.SIX_ML)
    assert grown.detectable
    assert grown.absolute_ml == pytest.approx(3.9)
    assert grown.relative == pytest.approx(0.195)
    assert "> 6 mL" in grown.definition
