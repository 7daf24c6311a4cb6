"""Simulated patients: the same for the same seed, of the wanted volume, growing as tissue can."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import SimpleITK as sitk
from HematomaExpansionLib.commands import main
from HematomaExpansionLib.grid import Grid, resample
from HematomaExpansionLib.growth import warp_image
from HematomaExpansionLib.head_ct import read_head_ct
from HematomaExpansionLib.measures import volume_ml
from HematomaExpansionLib.training.evaluation import dice
from HematomaSynthesisLib.simulation.anatomy import Anatomy, anatomy_from_scan, icbm_anatomy
from HematomaSynthesisLib.simulation.bleeding import BleedingParameters, Hematoma, make_hematoma, paint
from HematomaSynthesisLib.simulation.growth import GrowthParameters, grow
from HematomaSynthesisLib.simulation.patient import SimulationOptions, draw_parameters, simulate_patient

if TYPE_CHECKING:
    from HematomaSynthesisLib.simulation.patient import SimulatedPatient

BLEED = BleedingParameters(
    site="deep",
    volume_ml=15.0,
    irregularity=0.15,
    lobes=1,
    hu=62.0,
    texture_hu=3.0,
    pocket_mm=6.0,
    pocket_hu=40.0,
    decoy_mm=0.0,
    edema_mm=2.0,
)


def array(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image)


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return icbm_anatomy(np.random.default_rng(11))


@pytest.fixture(scope="module")
def hematoma(anatomy: Anatomy) -> Hematoma:
    return make_hematoma(anatomy, BLEED, np.random.default_rng(12))


def test_the_anatomy_is_a_head(anatomy: Anatomy) -> None:
    hu, inside, tissue = array(anatomy.ct), array(anatomy.inside_skull) > 0, array(anatomy.parenchyma)
    assert 1200 < volume_ml(anatomy.inside_skull) < 1800
    assert 25 < np.median(hu[tissue > 0.95]) < 42
    assert np.median(hu[inside & (tissue < 0.05)]) < 15
    assert (hu[inside] < 300).all()
    assert (hu > 700).sum() * 0.001 > 200  # mL of bone
    assert np.median(hu) == -1000


def test_the_bleed_has_the_wanted_volume_within_tissue(anatomy: Anatomy, hematoma: Hematoma) -> None:
    level = array(hematoma.level)
    assert (level > 0).sum() * Grid.of(hematoma.level).voxel_volume_ml == pytest.approx(15.0, rel=0.02)
    on_head = array(resample(hematoma.level, Grid.of(anatomy.ct), outside=-60.0)) > 0
    assert (array(anatomy.inside_skull)[on_head] > 0).all()
    assert array(anatomy.parenchyma)[on_head].mean() > 0.85


def test_the_bleed_is_dense_with_a_pocket_at_its_bleeding_edge(anatomy: Anatomy, hematoma: Hematoma) -> None:
    painted = paint(anatomy.ct, hematoma, BLEED.edema_mm, keep_noise=False)
    grid = Grid.of(painted)
    level = array(resample(hematoma.level, grid, outside=-60.0))
    hu, before = array(painted), array(anatomy.ct)
    np.testing.assert_array_equal(hu[level < -20], before[level < -20])
    assert np.median(hu[level > 2]) == pytest.approx(62.0, abs=4.0)
    indices = np.argwhere(level > 0)[:, ::-1]
    offsets = indices * grid.spacing + np.array(grid.origin) - hematoma.center
    along = offsets @ hematoma.bleeding_direction
    values = hu[level > 0]
    assert values[along > 0.7 * along.max()].mean() < values[along < 0.3 * along.min()].mean() - 6


@pytest.mark.parametrize("growth_ml", [9.0, -1.0])
def test_growth_hits_its_volume_without_folding_and_stays_inside(
    growth_ml: float, anatomy: Anatomy, hematoma: Hematoma
) -> None:
    growth = grow(anatomy, hematoma, GrowthParameters(growth_ml, base=0.1, concentration=3.0))
    assert growth.smallest_jacobian > 0
    grid = Grid.of(anatomy.ct)
    field = resample(growth.displacement, grid)
    before = array(resample(hematoma.level, grid, outside=-60.0)) > 0
    after = array(warp_image(resample(hematoma.level, grid, outside=-60.0), field)) > 0
    assert (after.sum() - before.sum()) * grid.voxel_volume_ml == pytest.approx(growth_ml, abs=0.5)
    assert (array(anatomy.inside_skull)[after] > 0).all()
    bone = array(anatomy.inside_skull) == 0
    assert np.abs(array(field)[bone]).max() < 0.5, "bone was moved"


def test_growth_is_strongest_toward_the_bleeding_edge(anatomy: Anatomy, hematoma: Hematoma) -> None:
    growth = grow(anatomy, hematoma, GrowthParameters(8.0, base=0.1, concentration=3.0))
    grid = Grid.of(anatomy.ct)
    level = resample(hematoma.level, grid, outside=-60.0)
    new = (array(warp_image(level, resample(growth.displacement, grid))) > 0) & (array(level) <= 0)
    offsets = np.argwhere(new)[:, ::-1] * grid.spacing + np.array(grid.origin) - hematoma.center
    assert (offsets @ hematoma.bleeding_direction > 0).mean() > 0.7


def test_the_drawn_cohort_has_the_literatures_proportions() -> None:
    drawn = [draw_parameters(np.random.default_rng([1, k]), SimulationOptions()) for k in range(600)]
    volumes = np.array([p.bleeding.volume_ml for p in drawn])
    growth = np.array([p.growth.growth_ml for p in drawn])
    assert 9 < np.median(volumes) < 13
    assert 0.28 < ((growth > 6) | (growth > 0.33 * volumes)).mean() < 0.40
    still = growth[(growth <= 6) & (growth <= 0.33 * volumes)]
    assert abs(still.mean()) < 0.3
    sites = [p.bleeding.site for p in drawn]
    assert 0.5 < sites.count("deep") / 600 < 0.7


def test_the_pair_shows_what_its_description_says(patient: SimulatedPatient) -> None:
    description = patient.description
    assert description["research_use_only"] is True
    assert description["source"] == "simulated"
    assert volume_ml(patient.baseline_mask) == pytest.approx(description["baseline_ml"])
    wanted = description["parameters"]["bleeding"]["volume_ml"]
    assert volume_ml(patient.baseline_mask) == pytest.approx(wanted, rel=0.08)
    grown = volume_ml(patient.followup_mask) - volume_ml(patient.baseline_mask)
    assert grown == pytest.approx(description["parameters"]["growth"]["growth_ml"], abs=0.8)
    baseline, mask = array(patient.baseline), array(patient.baseline_mask) > 0
    assert 50 < np.median(baseline[mask]) < 75
    noise = array(patient.baseline)[:, 2:20, 2:20].std()
    assert noise == pytest.approx(description["parameters"]["scanner"]["noise_hu"], rel=0.35)
    assert not np.array_equal(baseline, array(patient.followup))


def checksums(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_cohort_is_the_same_for_its_seed_and_resumes(tmp_path: Path) -> None:
    simulate = ["simulate", "-n", "2", "--seed", "9", "--matrix", "96"]
    assert main([*simulate, "-o", str(tmp_path / "once"), "--jobs", "2"]) == 0
    assert main([*simulate[:1], "-n", "1", *simulate[3:], "-o", str(tmp_path / "again"), "--jobs", "1"]) == 0
    (tmp_path / "again" / "simulated-9-0001" / "mine.txt").touch()
    assert main([*simulate, "-o", str(tmp_path / "again"), "--jobs", "1"]) == 0
    again = checksums(tmp_path / "again")
    assert again.pop("simulated-9-0001/mine.txt"), "a case that was there was made anew"
    assert checksums(tmp_path / "once") == again
    assert len(again) == 2 * 5
    cases = [json.loads(path.read_text()) for path in sorted((tmp_path / "once").glob("*/case.json"))]
    assert cases[0]["baseline_ml"] != cases[1]["baseline_ml"]


def test_arguments_that_cannot_be_right_are_refused(tmp_path: Path) -> None:
    for wrong in (
        ["-n", "0", "--seed", "1"],
        ["-n", "1", "--seed", "-1"],
        ["-n", "1", "--seed", "1", "--matrix", "9"],
    ):
        assert main(["simulate", *wrong, "-o", str(tmp_path / "cohort")]) == 2
    assert not (tmp_path / "cohort").exists()


def test_a_bleed_in_the_real_head_changes_nothing_far_from_it(real_head_ct: Path) -> None:
    scan = read_head_ct(real_head_ct)
    made = simulate_patient(1, 1, SimulationOptions(), anatomy_from_scan(scan))
    assert made.description["source"] == "simulated bleed in a real scan"
    assert Grid.of(made.baseline).is_same(scan.grid)
    mask = array(made.baseline_mask) > 0
    distance = array(sitk.SignedMaurerDistanceMap(made.baseline_mask, squaredDistance=False, useImageSpacing=True))
    before, after = array(scan.image), array(made.baseline)
    np.testing.assert_allclose(after[distance > 25], before[distance > 25], atol=0.51)
    assert 48 < np.median(after[mask]) < 75
    still = np.std((after - array(sitk.SmoothingRecursiveGaussian(made.baseline, 1.2)))[mask])
    there = np.std((before - array(sitk.SmoothingRecursiveGaussian(scan.image, 1.2)))[mask])
    assert still == pytest.approx(there, rel=0.5), "the scan's own noise was painted over"
    assert dice(mask, array(made.followup_mask) > 0) > 0.5
