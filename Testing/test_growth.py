"""Growth: a known displacement moves blood where it should, and never folds or leaves the skull."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from HematomaExpansionLib.forecast.followup_range import calibrated_range, followup_range
from HematomaExpansionLib.forecast.strength import growth_strength
from HematomaExpansionLib.growth.field import confined_displacement, growth_channels, growth_region, warp
from HematomaExpansionLib.growth.growth import predict_growth
from HematomaExpansionLib.growth.warping import smallest_jacobian, warp_ct, warp_image, warp_mask
from HematomaExpansionLib.models.description import (
    ARCHITECTURES_OF,
    GROWTH_BY_PROBABILITY,
    INTEGRATION_STEPS,
    VOLUME_RANGE,
    ModelDescription,
    TrainingStep,
)
from HematomaExpansionLib.models.networks.build import ARCHITECTURES, build_network
from HematomaExpansionLib.models.networks.unet import displacement_unet, segmentation_unet
from HematomaExpansionLib.models.package import ModelPackage, write_package
from HematomaExpansionLib.scan.grid import Grid, image_on
from HematomaExpansionLib.scan.mask import Mask
from HematomaExpansionLib.scan.subject import Subject
from phantoms import volume_ml
from torch import nn

OBLIQUE = sitk.Euler3DTransform((0, 0, 0), 0.2, -0.15, 0.3).GetMatrix()
STRAIGHT = (1.0, 0, 0, 0, 1, 0, 0, 0, 1)
PERMUTED_FLIP = (0.0, -1.0, 0.0, 0.0, 0.0, 1.0, -1.0, 0.0, 0.0)


def sphere(grid: Grid, center: np.ndarray, radius: float) -> Mask:
    """Mask of a ball in LPS mm on a grid."""
    points = sitk.GetArrayFromImage(
        sitk.PhysicalPointSource(
            sitk.sitkVectorFloat64, list(grid.size), grid.origin, grid.spacing, grid.direction
        )
    )
    return Mask.on(grid, np.linalg.norm(points - center, axis=-1) <= radius)


def scaling_field(grid: Grid, center: np.ndarray, factor: float) -> sitk.Image:
    """Pull-back that enlarges everything about ``center`` by ``factor``: u(x) = (1/factor - 1)(x - center)."""
    points = sitk.GetArrayFromImage(
        sitk.PhysicalPointSource(
            sitk.sitkVectorFloat64, list(grid.size), grid.origin, grid.spacing, grid.direction
        )
    )
    return image_on(grid, (1 / factor - 1) * (points - center))


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


def test_smallest_jacobian_sees_shrinking_and_folding() -> None:
    grid = Grid((20, 20, 20), (1.0, 1.0, 2.0), (0.0, 0, 0), STRAIGHT)
    center = grid.point((9.5, 9.5, 9.5))
    assert smallest_jacobian(scaling_field(grid, center, 1.25)) == pytest.approx(0.8**3, rel=0.01)
    assert smallest_jacobian(scaling_field(grid, center, -1.0)) < 0


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
    growth = predict_growth(Subject(ct, skull, hematoma), outward_package, 1.0, torch.device("cpu"))
    # v = -s·(x - c) for unit time is the pull-back x -> c + (x - c)·exp(-s): radii grow by exp(0.25).
    assert volume_ml(growth.followup_mask) == pytest.approx(4 / 3 * np.pi * 12**3 * np.exp(0.75) / 1000, rel=0.06)
    assert growth.followup_mask.grid == Grid.of(growth.displacement) == Grid.of(growth.followup_ct) == grid
    assert smallest_jacobian(growth.displacement) > 0
    index = (75, 63, 14)
    expected = (np.exp(-0.25) - 1) * (grid.point(index) - center)
    np.testing.assert_allclose(growth.displacement.GetPixel(*index), expected, atol=0.3)


BY_PROBABILITY = {"constant": 0.0, "slope": 0.5, "smallest": 0.1, "largest": 2.0}


def test_growth_is_stronger_by_the_probability_and_bounded(outward_package: ModelPackage) -> None:
    """The flow is constant, so one twice as strong carries twice as far on a log scale."""
    settings = {**outward_package.description.settings, GROWTH_BY_PROBABILITY: BY_PROBABILITY}
    follows = replace(outward_package, description=replace(outward_package.description, settings=settings))
    grid = Grid((110, 110, 74), (1.0, 1.0, 1.5), (-55.0, -55, -55), OBLIQUE)
    center = grid.point((55, 55, 37))
    hematoma, skull = sphere(grid, center, 12.0), sphere(grid, center, 50.0)
    ct = image_on(grid, np.full(grid.shape, 30.0, np.float32))

    def grown_ml(package: ModelPackage, probability: float | None) -> float:
        strength = growth_strength(package.description, probability)
        growth = predict_growth(Subject(ct, skull, hematoma), package, strength, torch.device("cpu"))
        assert smallest_jacobian(growth.displacement) > 0
        return volume_ml(growth.followup_mask)

    ball_ml = 4 / 3 * np.pi * 12**3 / 1000
    for probability, strength in ((0.5, 1.0), (0.8, 2.0), (0.2, 0.5), (0.0, 0.1), (1.0, 2.0), (None, 1.0)):
        expected = ball_ml * np.exp(0.75 * strength)
        assert grown_ml(follows, probability) == pytest.approx(expected, rel=0.03), probability
    assert grown_ml(outward_package, 0.8) == grown_ml(outward_package, None), "this model follows none"


def test_a_range_is_told_with_the_probability_it_was_checked_with(outward_package: ModelPackage) -> None:
    ranges = {"true": {"low": [-1.0, 0.0, 0.5], "high": [2.0, 0.1, 1.5]}}
    plain = replace(outward_package.description, settings={VOLUME_RANGE: ranges})
    follows = replace(plain, settings={**plain.settings, GROWTH_BY_PROBABILITY: BY_PROBABILITY})
    told = followup_range(ranges["true"], 20.0, 24.0)
    assert (
        calibrated_range(plain, "true", None, 20.0, 24.0)
        == calibrated_range(follows, "true", 0.3, 20.0, 24.0)
        == told
    )
    assert calibrated_range(follows, "true", None, 20.0, 24.0) is None
    assert calibrated_range(plain, "automatic", 0.3, 20.0, 24.0) is None


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
