"""Growth: a known displacement moves blood where it should, and never folds or leaves the skull."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from HematomaExpansionLib.growth.field import Flow, confined_displacement, growth_channels, growth_region, warp
from HematomaExpansionLib.growth.growth import Growth
from HematomaExpansionLib.growth.outcomes import (
    Outcomes,
    mask_of_outcome,
    outcomes_of,
    predict_outcomes,
)
from HematomaExpansionLib.growth.warping import smallest_jacobian, warp_ct, warp_image, warp_mask
from HematomaExpansionLib.measures.agreement import dice
from HematomaExpansionLib.models.description import (
    ARCHITECTURES_OF,
    INTEGRATION_STEPS,
    ModelDescription,
    TrainingStep,
)
from HematomaExpansionLib.models.networks.build import ARCHITECTURES, build_network
from HematomaExpansionLib.models.networks.unet import displacement_unet, segmentation_unet
from HematomaExpansionLib.models.package import ModelPackage, write_package
from HematomaExpansionLib.scan.grid import Grid, image_on
from HematomaExpansionLib.scan.mask import Mask
from HematomaExpansionLib.scan.resampling import resample
from HematomaExpansionLib.scan.shapes import signed_distance
from HematomaExpansionLib.scan.subject import Subject
from phantoms import positions, volume_ml
from torch import nn

OBLIQUE = sitk.Euler3DTransform((0, 0, 0), 0.2, -0.15, 0.3).GetMatrix()
STRAIGHT = (1.0, 0, 0, 0, 1, 0, 0, 0, 1)
PERMUTED_FLIP = (0.0, -1.0, 0.0, 0.0, 0.0, 1.0, -1.0, 0.0, 0.0)


def sphere(grid: Grid, center: np.ndarray, radius: float) -> Mask:
    """Mask of a ball in LPS mm on a grid."""
    return Mask.on(grid, np.linalg.norm(positions(grid) - center, axis=-1) <= radius)


def scaling_field(grid: Grid, center: np.ndarray, factor: float) -> sitk.Image:
    """Pull-back that enlarges everything about ``center`` by ``factor``: u(x) = (1/factor - 1)(x - center)."""
    return image_on(grid, (1 / factor - 1) * (positions(grid) - center))


@pytest.mark.parametrize("direction", [STRAIGHT, OBLIQUE, PERMUTED_FLIP], ids=["straight", "oblique", "permuted"])
def test_a_known_field_enlarges_a_sphere_as_it_should(direction: tuple[float, ...]) -> None:
    grid = Grid((80, 80, 40), (1.0, 1.0, 2.0), (-40.0, 10, 3), direction)
    center = grid.point((39.8, 39.3, 19.6))
    before = sphere(grid, center, 14.0)
    after = warp_mask(before, scaling_field(grid, center, 1.3))
    expected = sphere(grid, center, 14.0 * 1.3)
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(after.image, expected.image)
    assert overlap.GetDiceCoefficient() > 0.98
    assert volume_ml(after) == pytest.approx(volume_ml(expected), rel=0.02)


@pytest.mark.parametrize("slice_mm", [1.0, 2.5, 5.0])
@pytest.mark.parametrize("direction", [STRAIGHT, OBLIQUE, PERMUTED_FLIP], ids=["straight", "oblique", "permuted"])
def test_growth_by_less_than_half_a_slice_is_not_lost(direction: tuple[float, ...], slice_mm: float) -> None:
    """The radius grows by 1.2 mm, in slices of up to 5 mm: cut at the halfway surface, the poles would stay."""
    grid = Grid((70, 70, round(70 / slice_mm)), (1.0, 1.0, slice_mm), (-30.0, 5, 12), direction)
    center = grid.point((34.6, 34.2, (round(70 / slice_mm) - 1) / 2 + 0.1))
    before = sphere(grid, center, 12.0)
    after = warp_mask(before, scaling_field(grid, center, 1.1))
    assert volume_ml(after) == pytest.approx(1.1**3 * volume_ml(before), rel=0.02)
    inside, grown = (mask.voxels for mask in (before, after))
    assert (grown | ~inside).all(), "nothing that was blood is lost"
    still = scaling_field(grid, center, 1.0)
    np.testing.assert_array_equal(warp_mask(before, still).voxels, inside)
    assert warp_mask(Mask.empty(grid), still).is_empty


def box(grid: Grid, first: tuple[int, int, int], size: tuple[int, int, int]) -> sitk.Image:
    array = np.zeros(grid.shape, np.uint8)
    array[tuple(slice(a, a + n) for a, n in zip(first[::-1], size[::-1], strict=True))] = 1
    return Mask.on(grid, array)


def shifting_field(grid: Grid, shift_mm: tuple[float, float, float]) -> sitk.Image:
    """Pull-back that moves everything by ``shift_mm``."""
    return image_on(grid, np.tile(-np.array(shift_mm), (*grid.shape, 1)))


@pytest.mark.parametrize("shift_mm", [(0.01, 0.0, 0.0), (0.0, 0.0, 0.01), (0.3, -0.2, 1.1), (0.5, 0.5, 2.5)])
def test_a_box_that_is_moved_keeps_its_volume_to_a_voxel(shift_mm: tuple[float, float, float]) -> None:
    """All voxels of a face are equally deep: if taken together, a shift of 0.01 mm would add 10 %."""
    grid = Grid((40, 40, 16), (1.0, 1.0, 5.0), (0.0, 0, 0), STRAIGHT)
    before = box(grid, (10, 12, 4), (20, 16, 6))
    field = shifting_field(grid, shift_mm)
    after = warp_mask(before, field)
    count = before.voxel_count
    assert abs(after.voxel_count - count) <= 1
    np.testing.assert_array_equal(*(each.voxels for each in (after, warp_mask(before, field))))
    if max(shift_mm) < 0.02:
        np.testing.assert_array_equal(*(each.voxels for each in (after, before)))


def test_equally_deep_voxels_favor_no_side() -> None:
    """After a shift of half a voxel, opposite faces are equally near: half of each is taken."""
    grid = Grid((40, 40, 40), (1.0, 1.0, 1.0), (0.0, 0, 0), STRAIGHT)
    after = warp_mask(box(grid, (10, 10, 10), (20, 20, 20)), shifting_field(grid, (0.5, 0, 0))).voxels
    left, right = int(after[10:30, 10:30, 10].sum()), int(after[10:30, 10:30, 30].sum())
    assert left + right == 400
    assert abs(left - right) < 80


@pytest.mark.parametrize("slice_mm", [1.0, 2.5, 5.0])
@pytest.mark.parametrize("factor", [1.0, 1.1, 1.3])
def test_mask_and_ct_show_the_same_growth(slice_mm: float, factor: float) -> None:
    """Cut halfway between brain and clot, the predicted CT holds as much blood as the predicted mask."""
    grid = Grid((70, 70, round(70 / slice_mm)), (1.0, 1.0, slice_mm), (-30.0, 5, 12), OBLIQUE)
    center = grid.point((34.6, 34.2, (round(70 / slice_mm) - 1) / 2 + 0.1))
    before = sphere(grid, center, 14.0)
    noise = np.random.default_rng(0).normal(0, 2.0, grid.shape)
    hu = np.where(before.voxels, 62.0, 33.0) + noise
    ct, field = image_on(grid, np.round(hu).astype(np.int16)), scaling_field(grid, center, factor)
    after = warp_mask(before, field)
    moved = warp_ct(ct, before, after, field)
    assert moved.GetPixelID() == ct.GetPixelID()
    shown_ml = np.count_nonzero(sitk.GetArrayViewFromImage(moved) > 47.5) * grid.voxel_volume_ml
    assert shown_ml == pytest.approx(volume_ml(after), rel=0.005)
    if factor == 1.0:
        np.testing.assert_array_equal(*(sitk.GetArrayViewFromImage(each) for each in (moved, ct)))


def test_warped_ct_takes_its_values_from_where_the_field_points() -> None:
    grid = Grid((20, 20, 20), (2.0, 1.0, 3.0), (0.0, 0, 0), OBLIQUE)
    ramp = image_on(grid, np.broadcast_to(np.arange(20, dtype=np.float32), grid.shape).copy())
    one_step_along_x = image_on(grid, np.tile(grid.axes[:, 0], (*grid.shape, 1)))
    moved = sitk.GetArrayFromImage(warp_image(ramp, one_step_along_x))
    np.testing.assert_allclose(moved[5:15, 5:15, 5:15], sitk.GetArrayFromImage(ramp)[5:15, 5:15, 6:16], atol=1e-4)


@pytest.mark.parametrize("direction", [STRAIGHT, OBLIQUE, PERMUTED_FLIP], ids=["straight", "oblique", "permuted"])
def test_smallest_jacobian_sees_shrinking_and_folding(direction: tuple[float, ...]) -> None:
    """It is the same whichever way the grid lies: ITK's own would be 0.99 where it is 0.51."""
    grid = Grid((20, 20, 20), (1.0, 1.0, 2.0), (0.0, 0, 0), direction)
    center = grid.point((9.5, 9.5, 9.5))
    assert smallest_jacobian(scaling_field(grid, center, 1.25)) == pytest.approx(0.8**3, rel=0.01)
    assert smallest_jacobian(scaling_field(grid, center, -1.0)) == pytest.approx(-1.0, rel=0.01)


def rough_velocity(shape: tuple[int, int, int], size: float) -> torch.Tensor:
    """A random field whose neighboring values all but contradict each other."""
    torch.manual_seed(3)
    coarse = torch.randn(1, 3, *(n // 4 for n in shape)) * size
    return nn.functional.interpolate(coarse, size=shape, mode="trilinear", align_corners=True)


def test_an_integrated_velocity_does_not_fold_where_a_plain_field_does() -> None:
    shape = (32, 32, 32)
    velocity, everywhere = rough_velocity(shape, 3.0), torch.ones(1, 1, *shape)
    grid = Grid(shape, (2.0, 2.0, 2.0), (0.0, 0, 0), STRAIGHT)

    def folds(steps: int) -> float:
        displacement = confined_displacement(velocity, everywhere, steps)[0].numpy()
        return smallest_jacobian(image_on(grid, np.moveaxis(displacement[::-1], 0, -1) * 2.0))

    assert folds(0) < 0
    assert folds(7) > 0


def test_a_confined_flow_carries_nothing_out_of_the_skull() -> None:
    shape = (32, 32, 32)
    velocity = torch.zeros(1, 3, *shape)
    velocity[:, 2] = -6.0  # pulls from smaller x: everything drifts toward larger x
    confinement = torch.zeros(1, 1, *shape)
    confinement[..., :20] = 1.0
    blood = torch.zeros(1, 1, *shape)
    blood[..., 10:22, 10:22, 8:16] = 1.0
    moved = warp(blood, confined_displacement(velocity, confinement, 6))
    assert moved[..., 16:20].sum() > 100, "the blood should have moved toward the wall"
    assert float(moved[..., 20:].max()) < 1e-5


def test_the_region_covers_the_hematoma_with_its_margin() -> None:
    grid = Grid((100, 100, 30), (0.9, 0.9, 5.0), (-40.0, -40, 0), OBLIQUE)
    hematoma = sphere(grid, grid.point((60, 40, 14)), 20.0)
    region = growth_region(hematoma, (2.0, 2.0, 2.0), (16, 16, 16))
    center = region.point((np.array(region.size) - 1) / 2)
    assert np.linalg.norm(center - grid.point((60, 40, 14))) < 3.0
    for extent in np.array(region.size) * 2.0:
        assert 2 * (20 + 25) - 6 <= extent <= 2 * (20 + 25) + 8
    assert growth_region(hematoma, (2.0, 2.0, 2.0), (64, 48, 56)).size == (64, 48, 56)


class OutwardFlow(nn.Module):
    """Stands in for a trained network: blood flows out along every axis from the region's center."""

    def __init__(self, speed: float = 0.25) -> None:
        super().__init__()
        self.speed = nn.Parameter(torch.tensor(speed))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        axes = [torch.arange(n, device=x.device, dtype=x.dtype) - (n - 1) / 2 for n in x.shape[2:]]
        return -self.speed * torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(len(x), -1, -1, -1, -1)


@pytest.fixture
def outward_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelPackage:
    monkeypatch.setitem(ARCHITECTURES, "outward-flow", OutwardFlow)
    monkeypatch.setitem(ARCHITECTURES_OF, "growth", ("outward-flow",))
    description = ModelDescription(
        name="outward",
        version="1",
        task="growth",
        architecture="outward-flow",
        arguments={},
        spacing_mm=(2.0, 2.0, 2.0),
        patch_size=(48, 48, 48),
        window_hu=(0.0, 100.0),
        trained_on=(TrainingStep("nothing: a test"),),
        results={},
        license="Apache-2.0",
        intended_use="test",
        settings={INTEGRATION_STEPS: 6},
    )
    return write_package(tmp_path / "outward", description, OutwardFlow())


@pytest.mark.parametrize("direction", [STRAIGHT, OBLIQUE], ids=["straight", "oblique"])
def test_predicted_growth_is_the_networks_flow_on_the_scans_own_grid(
    direction: tuple[float, ...], outward_package: ModelPackage
) -> None:
    grid = Grid((128, 128, 30), (0.9, 0.9, 5.0), (-55.0, -60, -70), direction)
    center = grid.point((63, 63, 14))
    hematoma, skull = sphere(grid, center, 12.0), sphere(grid, center, 50.0)
    ct = image_on(grid, np.full(grid.shape, 30.0, np.float32))
    outcomes = predict_outcomes(Subject(ct, skull, hematoma), outward_package, torch.device("cpu"))
    growth = outcomes.at_own_strength()
    # v = -s·(x - c) for unit time is the pull-back x -> c + (x - c)·exp(-s): radii grow by exp(0.25).
    assert outcomes.network_growth == pytest.approx(0.75, abs=0.06)
    assert volume_ml(growth.followup_mask) == pytest.approx(4 / 3 * np.pi * 12**3 * np.exp(0.75) / 1000, rel=0.06)
    assert growth.followup_mask.grid == Grid.of(growth.displacement) == Grid.of(growth.followup_ct) == grid
    assert smallest_jacobian(growth.displacement) > 0
    index = (75, 63, 14)
    expected = (np.exp(-0.25) - 1) * (grid.point(index) - center)
    np.testing.assert_allclose(growth.displacement.GetPixel(*index), expected, atol=0.3)


# --- outcomes -----------------------------------------------------------------------------------------


FLIPPED = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
GRIDS = {
    "straight": Grid((90, 90, 60), (1.2, 1.2, 1.8), (-50.0, -60, -50), STRAIGHT),
    "oblique": Grid((90, 90, 60), (1.2, 1.2, 1.8), (-50.0, 10, 3), OBLIQUE),
    "permuted": Grid((90, 90, 60), (1.2, 1.2, 1.8), (0.0, 0, 0), PERMUTED_FLIP),
    "thick": Grid((120, 120, 22), (0.9, 0.9, 5.0), (60.0, -50, 70), FLIPPED),
}
TOWARD, WALL = np.array((0.6, -0.64, 0.48)), np.array((0.8, 0.6, 0.0))
"""Directions in LPS: where blood grows in some of the fields, and where bone is near."""

Velocity = Callable[[np.ndarray], np.ndarray]
"""Velocity in mm, LPS, at positions in mm, LPS, from the middle of the hematoma; both (z, y, x, 3)."""


def outward(points: np.ndarray) -> np.ndarray:
    """Everything grows alike: radii by exp(0.25) at strength 1."""
    return -0.25 * points


def directed(points: np.ndarray) -> np.ndarray:
    """Blood grows toward one side only."""
    return -0.35 * np.maximum(points @ TOWARD, 0.0)[..., None] * TOWARD


def rough(points: np.ndarray) -> np.ndarray:
    """Growth on which waves are laid."""
    return outward(points) + 1.5 * np.sin(points[..., [1, 2, 0]] / 5.0)


def crumpled(points: np.ndarray) -> np.ndarray:
    """Used as it is, it folds beyond a strength of 0.6: there, du/dx reaches -1."""
    waves = np.zeros_like(points)
    waves[..., 0] = -6.0 * np.sin(points[..., 0] / 4.0)
    return waves - 0.15 * points


def torn(points: np.ndarray) -> np.ndarray:
    """Used as it is, it folds at any of the strengths."""
    return 40.0 * np.sin(points / 4.0)


def still(points: np.ndarray) -> np.ndarray:
    return np.zeros_like(points)


def sideways(points: np.ndarray) -> np.ndarray:
    """Everything moves by 6 mm, and nothing grows."""
    return np.broadcast_to(-6.0 * TOWARD, points.shape)


@dataclass(frozen=True)
class Patient:
    """A ball of blood of 12 mm in a round skull, whose wall is 18 mm from the hematoma's middle on one side."""

    subject: Subject
    center: np.ndarray

    @classmethod
    def on(cls, grid: Grid) -> "Patient":
        center = grid.point((np.array(grid.size) - 1) / 2)
        hu = np.random.default_rng(0).normal(30.0, 2.0, grid.shape)
        hematoma, skull = sphere(grid, center, 12.0), sphere(grid, center - 22 * WALL, 40.0)
        ct = image_on(grid, np.where(hematoma.voxels, 65.0, hu).astype(np.float32))
        return cls(Subject(ct, skull, hematoma), center)

    def outcomes(self, velocity: Velocity, steps: int = 6) -> Outcomes:
        """The outcomes of a field that no network had to find."""
        region = growth_region(self.subject.hematoma, (2.5, 2.5, 2.5), (24, 24, 24))
        voxels = velocity(positions(region) - self.center) @ np.linalg.inv(region.axes).T
        field = np.moveaxis(voxels, -1, 0)[::-1].astype(np.float32)
        return outcomes_of(
            self.subject, Flow(region, field, growth_channels(self.subject, region, (0.0, 100.0))[2:], steps)
        )


def radii(growth: Growth, center: np.ndarray) -> tuple[float, float]:
    """Distance in mm from the center of the nearest voxel that is no blood, and of the farthest that is."""
    blood = growth.followup_mask.voxels
    distance = np.linalg.norm(positions(growth.followup_mask.grid) - center, axis=-1)
    return float(distance[~blood].min()), float(distance[blood].max())


FIELDS: dict[str, tuple[Velocity, int]] = {
    "outward": (outward, 6),
    "directed": (directed, 6),
    "rough": (rough, 6),
    "crumpled": (crumpled, 0),
    "torn": (torn, 0),
    "still": (still, 6),
    "sideways": (sideways, 6),
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize(("velocity", "steps"), FIELDS.values(), ids=FIELDS)
def test_outcomes_are_nested_and_have_the_volume_asked_for(grid: Grid, velocity: Velocity, steps: int) -> None:
    patient = Patient.on(grid)
    outcomes, hematoma = patient.outcomes(velocity, steps), patient.subject.hematoma
    baseline_ml, voxel_ml = hematoma.volume_ml, grid.voxel_volume_ml
    before = mask_of_outcome(outcomes.order, 0.4 * baseline_ml).voxels
    for ratio in (0.7, 1.0, 1.02, 1.3, 1.33, 2.0, 3.0, 5.0):
        outcome = mask_of_outcome(outcomes.order, ratio * baseline_ml)
        assert outcome.volume_ml == pytest.approx(ratio * baseline_ml, abs=0.51 * voxel_ml)
        assert (outcome.voxels >= before).all(), "a larger outcome contains the smaller"
        before = outcome.voxels
    assert outcomes.largest_ml > 5 * baseline_ml
    np.testing.assert_array_equal(outcomes.growth_to(baseline_ml).followup_mask.voxels, hematoma.voxels)
    for growth in (outcomes.growth_to(1.6 * baseline_ml), outcomes.at_own_strength()):
        grown = growth.followup_mask.voxels
        assert (grown >= hematoma.voxels).all()
        assert not (grown & ~patient.subject.inside_skull.voxels).any(), "blood crossed the bone"
        assert smallest_jacobian(growth.displacement) > 0
        assert Grid.of(growth.followup_ct) == Grid.of(growth.displacement) == growth.followup_mask.grid == grid


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_the_strength_leads_to_the_volume_and_the_displacement_to_the_mask(grid: Grid) -> None:
    patient = Patient.on(grid)
    hematoma = patient.subject.hematoma
    for velocity in (outward, directed, rough):
        outcomes = patient.outcomes(velocity)
        assert outcomes.strengths[-1] >= 2.0, "an integrated velocity folds late, if ever"
        for volume in (1.2 * hematoma.volume_ml, 1.7 * hematoma.volume_ml, outcomes.own_ml):
            growth = outcomes.growth_to(volume)
            warped = warp_mask(hematoma, growth.displacement)
            assert warped.volume_ml == pytest.approx(volume, rel=0.04)
            assert dice(warped.voxels, growth.followup_mask.voxels) > 0.95
            added = [mask & ~hematoma.voxels for mask in (warped.voxels, growth.followup_mask.voxels)]
            assert dice(*added) > 0.8
        for strength in outcomes.strengths:
            assert smallest_jacobian(outcomes.flow.displacement(float(strength))) > 0


def test_the_strength_is_that_of_the_flow() -> None:
    """Until blood nears the bone, a flow of constant divergence enlarges the ball by a known factor."""
    patient = Patient.on(GRIDS["oblique"])
    outcomes, baseline_ml = patient.outcomes(outward), patient.subject.hematoma.volume_ml
    for strength in (0.1, 0.25, 0.4):
        assert outcomes.strength_for(baseline_ml * np.exp(0.75 * strength)) == pytest.approx(strength, abs=0.04)
    own, asked = outcomes.at_own_strength(), outcomes.flow.displacement(1.0)
    assert outcomes.own_strength == 1.0
    index = Grid.of(asked).size[0] // 2 + 3, Grid.of(asked).size[1] // 2, Grid.of(asked).size[2] // 2
    place = own.displacement.TransformPhysicalPointToIndex(asked.TransformIndexToPhysicalPoint(index))
    np.testing.assert_allclose(
        own.displacement.GetPixel(*place),
        -(1 - np.exp(-0.25)) * (Grid.of(own.displacement).point(place) - patient.center),
        atol=0.05,
    )


def test_a_field_that_folds_is_used_only_as_far_as_it_does_not() -> None:
    """Beyond that, blood spreads evenly."""
    patient = Patient.on(GRIDS["straight"])
    baseline_ml = patient.subject.hematoma.volume_ml
    folding = patient.outcomes(crumpled, steps=0)
    assert list(folding.strengths) == [0.0, 0.25, 0.5]
    assert smallest_jacobian(folding.flow.displacement(0.75)) <= 0
    assert folding.own_strength == 0.5
    assert folding.strength_for(3 * baseline_ml) == 0.5
    reach, beyond = (mask_of_outcome(folding.order, volume) for volume in (folding.reach_ml, 2 * baseline_ml))
    from_reach = -sitk.GetArrayFromImage(signed_distance(reach.image))
    inside = sitk.GetArrayFromImage(resample(patient.subject.inside_skull.image, beyond.grid)) > 0
    assert from_reach[beyond.voxels].max() < from_reach[inside & ~beyond.voxels].min() + 2.5


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize(("velocity", "steps"), [(still, 6), (torn, 0)], ids=["still", "torn"])
def test_without_a_field_blood_spreads_evenly(grid: Grid, velocity: Velocity, steps: int) -> None:
    patient = Patient.on(grid)
    outcomes = patient.outcomes(velocity, steps)
    assert outcomes.network_growth == pytest.approx(0.0, abs=1e-6)
    growth = outcomes.growth_to(1.4 * patient.subject.hematoma.volume_ml)
    assert np.abs(sitk.GetArrayViewFromImage(growth.displacement)).max() == pytest.approx(0.0, abs=1e-6)
    nearest_free, farthest = radii(growth, patient.center)
    assert farthest - nearest_free < 1.1 * max(grid.spacing)
    assert farthest == pytest.approx(12 * 1.4 ** (1 / 3), abs=0.6 * max(grid.spacing))


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_blood_grows_where_the_field_points(grid: Grid) -> None:
    patient = Patient.on(grid)
    hematoma = patient.subject.hematoma
    outcomes = patient.outcomes(directed)
    for ratio in (1.1, 1.25, 1.5):
        grown = outcomes.growth_to(ratio * hematoma.volume_ml).followup_mask.voxels
        added = (positions(grid) - patient.center)[grown & ~hematoma.voxels] @ TOWARD
        assert np.mean(added > 0) > 0.99
        assert added.mean() > 9.0


def test_a_field_that_only_moves_blood_makes_nothing_grow() -> None:
    """The baseline's own volume needs no displacement, though the strongest field gives the same."""
    patient = Patient.on(GRIDS["oblique"])
    outcomes = patient.outcomes(sideways)
    assert outcomes.strength_for(outcomes.volumes_ml[0]) == 0.0
    nothing = outcomes.growth_to(patient.subject.hematoma.volume_ml)
    assert np.abs(sitk.GetArrayViewFromImage(nothing.displacement)).max() == 0.0
    own = outcomes.at_own_strength().displacement
    middle = own.TransformPhysicalPointToIndex(patient.center.tolist())
    assert np.dot(own.GetPixel(*middle), -TOWARD) > 4.0


def test_channels_are_windowed_and_confined() -> None:
    grid = Grid((64, 64, 30), (2.0, 2.0, 4.0), (0.0, 0, 0), STRAIGHT)
    center = grid.point((32, 32, 15))
    skull = sphere(grid, center, 40.0)
    ct = image_on(grid, np.where(skull.voxels, 50.0, 900.0).astype(np.float32))
    region = growth_region(sphere(grid, center, 10.0), (2.0, 2.0, 2.0), (48, 48, 48))
    subject = Subject(ct, skull, sphere(grid, center, 10.0))
    brain, mask, confinement = growth_channels(subject, region, (0.0, 100.0))
    middle = tuple(n // 2 for n in brain.shape)
    assert brain[middle] == pytest.approx(0.5, abs=0.02)
    assert mask[middle] == pytest.approx(1.0)
    assert confinement[middle] == 1.0
    assert brain[0, 0, 0] == confinement[0, 0, 0] == 0.0


def test_the_published_network_has_its_published_size() -> None:
    assert sum(parameter.numel() for parameter in displacement_unet().parameters()) == 22_395_651


def test_the_affine_rival_gives_one_matrix_for_all_voxels() -> None:
    network = build_network("affine-regressor", {"channels": [4, 8]})
    assert network(torch.rand(1, 2, 16, 16, 16)).abs().max().item() == 0.0, "untrained, it stands still"
    with torch.no_grad():
        network.head.bias.copy_(torch.tensor([0.0, 0, 0, 1.5, 0, 0, 0, 0, 0, 0, 8.0, 0]))
    field = network(torch.rand(1, 2, 16, 16, 16))
    assert torch.allclose(field[:, 0], torch.tensor(1.5)), "all along z alike"
    assert torch.allclose(field[:, 2, 0, 0], torch.arange(16.0) - 7.5), "along x in proportion to x"


def test_an_untrained_growth_network_all_but_stands_still() -> None:
    torch.manual_seed(0)
    field = displacement_unet((4, 8))(torch.rand(1, 2, 16, 16, 16))
    assert field.shape == (1, 3, 16, 16, 16)
    assert float(field.detach().abs().max()) < 0.05


def test_the_segmentation_network_has_squeeze_and_excitation_at_every_level() -> None:
    from monai.networks.blocks import ChannelSELayer

    network = segmentation_unet((8, 16, 32))
    assert sum(isinstance(module, ChannelSELayer) for module in network.modules()) == 5
    assert network(torch.rand(2, 1, 16, 16, 8)).shape == (2, 1, 16, 16, 8)


def test_networks_are_built_by_name() -> None:
    assert build_network("displacement-unet", {"channels": [4, 8]}) is not None
