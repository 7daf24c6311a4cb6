"""Simulated patients: the same for the same seed, with the requested volume, growing as tissue can."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import SimpleITK as sitk
from HematomaExpansionLib.cli.main import main
from HematomaExpansionLib.growth.warping import warp_image
from HematomaExpansionLib.measures.agreement import dice
from HematomaExpansionLib.scan.grid import Grid, image_on
from HematomaExpansionLib.scan.head_ct import read_head_ct
from HematomaExpansionLib.scan.mask import Mask
from HematomaExpansionLib.scan.resampling import resample
from HematomaExpansionLib.scan.shapes import signed_distance
from HematomaSynthesisLib.simulation.anatomy import Anatomy, anatomy_from_scan, crop, icbm_anatomy
from HematomaSynthesisLib.simulation.bleeding import (
    BleedingParameters,
    Hematoma,
    make_hematoma,
    paint,
    paint_ventricles,
)
from HematomaSynthesisLib.simulation.causal_model import (
    SIGNS,
    PatientParameters,
    SimulationOptions,
    as_drawn,
    draw_parameters,
)
from HematomaSynthesisLib.simulation.cohort import write_case
from HematomaSynthesisLib.simulation.growth import GrowthParameters, grow
from HematomaSynthesisLib.simulation.patient import simulate_patient
from HematomaSynthesisLib.simulation.scanner import ScannerParameters, acquire, acquire_mask, scan_grid
from phantoms import volume_ml
from scipy.ndimage import binary_dilation, label
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

if TYPE_CHECKING:
    from HematomaSynthesisLib.simulation.patient import SimulatedPatient

BLEED = BleedingParameters(
    site="deep",
    volume_ml=15.0,
    irregularity=0.15,
    lobes=1,
    hu=62.0,
    texture_hu=3.0,
    hypodense_hu=40.0,
    swirl_mm=6.0,
    pocket_mm=0.0,
    black_hole_mm=0.0,
    decoy_mm=0.0,
    blend_share=0.0,
    fluid_share=0.0,
    part_drop_hu=20.0,
    satellites=0,
    scatter=0.2,
    edema_mm=2.0,
)
GROWTH = GrowthParameters(9.0, base=0.1, concentration=3.0, unevenness=0.2)


def array(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image.image if isinstance(image, Mask) else image)


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
    toward, away = values[along > 0], values[along < 0]
    assert (toward < 45).mean() > 2 * (away < 45).mean(), "the swirl lies toward where it bleeds"
    depth = level[level > 0]
    dark = (values < 45) & (depth > 1)  # nearer to the surface it is mixed with edema
    assert np.median(depth[dark]) > 3, "beneath a rim of clot"


def test_signs_are_painted_where_they_belong(anatomy: Anatomy) -> None:
    def made(**signs: float) -> tuple[Hematoma, np.ndarray, np.ndarray, np.ndarray]:
        plain = replace(BLEED, swirl_mm=0.0, texture_hu=1.0, edema_mm=0.0)
        bleed = make_hematoma(anatomy, replace(plain, **signs), np.random.default_rng(12))
        level = array(bleed.level)
        grid = Grid.of(bleed.level)
        indices = np.argwhere(level > 0)[:, ::-1]
        offsets = indices * grid.spacing + np.array(grid.origin) - bleed.center
        return bleed, level, array(bleed.hu)[level > 0], offsets

    _, _, even, _ = made()
    assert np.ptp(np.percentile(even, (2, 98))) < 6
    bleed, _, blend, offsets = made(blend_share=0.3)
    low = blend < 52
    assert low.mean() == pytest.approx(0.3, abs=0.03)
    assert np.median(blend[~low]) - np.median(blend[low]) > 18
    along = offsets @ bleed.bleeding_direction
    assert along[low].mean() > along[~low].mean() + 5
    _, _, fluid, offsets = made(fluid_share=0.4)
    assert offsets[fluid < 52][:, 1].max() < offsets[fluid >= 52][:, 1].min() + 1.01, "the border is horizontal"
    _, level, hole, _ = made(black_hole_mm=4.0)
    assert (hole < 62 - 28).sum() > 30, "more than 28 HU below its surroundings"
    assert level[level > 0][hole < 62 - 28].min() > 1.0, "enclosed"
    bleed, level, _, _ = made(satellites=4)
    painted, far = array(paint(anatomy.ct, bleed, 4.0, keep_noise=False)), signed_distance(bleed.level > 0)
    away = array(resample(far, Grid.of(anatomy.ct), outside=-60.0)) < -8
    np.testing.assert_array_equal(
        painted[away], array(anatomy.ct)[away], "edema lies around blood, and nowhere else"
    )
    labels, count = label(level > 0)
    sizes = np.sort(np.bincount(labels.ravel())[1:])[::-1]
    assert count == 1 + bleed.drawn.satellites == 5
    assert (sizes[1:] <= 4 / 3 * np.pi * 5**3).all(), "at most 10 mm across"
    assert (level > 0).sum() * 0.001 == pytest.approx(15.0, rel=0.02), "satellites count in the volume"


def test_a_pocket_has_dense_clot_all_around_or_is_not_drawn(anatomy: Anatomy) -> None:
    signs = replace(BLEED, hu=70.0, texture_hu=1.0, swirl_mm=6.0, blend_share=0.3, pocket_mm=3.5)
    large = make_hematoma(anatomy, replace(signs, volume_ml=30.0), np.random.default_rng(12))
    hu, level = array(large.hu), array(large.level)
    dark, count = label((hu < 50) & (level > 1))
    around = [np.median(hu[binary_dilation(dark == n, iterations=3) & ~(dark == n)]) for n in range(1, count + 1)]
    assert large.drawn.pocket_mm == 3.5
    assert any(density > 65 for density in around), "the pocket lies in the dense part, apart from the swirl"
    parameters = draw_parameters(np.random.default_rng(1), SimulationOptions())
    small = make_hematoma(anatomy, replace(signs, volume_ml=2.5), np.random.default_rng(12))
    assert small.drawn == replace(signs, volume_ml=2.5, pocket_mm=0.0), "no room"
    with_signs = replace(parameters, signs=parameters.signs | {"hypodensity": True, "swirl": True})
    seen = as_drawn(with_signs, small.drawn)
    assert (seen.signs["hypodensity"], seen.signs["swirl"], seen.bleeding) == (False, True, small.drawn)
    without_swirl = as_drawn(with_signs, replace(small.drawn, pocket_mm=3.5, swirl_mm=0.0))
    assert (without_swirl.signs["hypodensity"], without_swirl.signs["swirl"]) == (True, False)


def test_a_large_swirl_makes_room_for_a_pocket(anatomy: Anatomy) -> None:
    wanted = replace(BLEED, volume_ml=12.0, irregularity=0.05, lobes=0, swirl_mm=10.0, pocket_mm=3.5)
    drawn = make_hematoma(anatomy, wanted, np.random.default_rng(12)).drawn
    assert drawn.pocket_mm >= 3.0
    assert 4.0 <= drawn.swirl_mm < 10.0
    alone = make_hematoma(anatomy, replace(wanted, pocket_mm=0.0), np.random.default_rng(12)).drawn
    assert alone.swirl_mm == 10.0, "smaller only where it is in the way"


def test_where_swirl_and_pocket_do_not_both_fit_either_may_be_drawn(anatomy: Anatomy) -> None:
    both = replace(BLEED, volume_ml=3.0, irregularity=0.05, lobes=0, swirl_mm=4.0, pocket_mm=3.5)
    drawn = [make_hematoma(anatomy, both, np.random.default_rng(seed)).drawn for seed in range(24)]
    assert all(bleed.swirl_mm > 0 or bleed.pocket_mm > 0 for bleed in drawn)
    pocket = np.mean([bleed.pocket_mm > 0 for bleed in drawn])
    swirl = np.mean([bleed.swirl_mm > 0 for bleed in drawn])
    assert 0.25 < pocket < 0.85, "a patient who has both signs keeps the pocket as often as the swirl"
    assert 0.25 < swirl < 0.85
    without_meaning = replace(both, pocket_mm=0.0, decoy_mm=both.pocket_mm)
    others = [make_hematoma(anatomy, without_meaning, np.random.default_rng(k)).drawn for k in range(24)]
    decoy = np.mean([bleed.decoy_mm > 0 for bleed in others])
    assert decoy == pytest.approx(pocket, abs=0.2), "so does a patient whose pocket means nothing"


def test_a_pocket_that_means_nothing_lies_on_any_side_and_never_beside_one_that_does(anatomy: Anatomy) -> None:
    drawn = [draw_parameters(np.random.default_rng(k), SimulationOptions()) for k in range(600)]
    assert not any(patient.bleeding.decoy_mm > 0 and patient.signs["hypodensity"] for patient in drawn)
    without = [patient.bleeding.decoy_mm > 0 for patient in drawn if not patient.signs["hypodensity"]]
    assert 0.22 < np.mean(without) < 0.45

    def toward_the_bleeding(name: str) -> list[float]:
        """Cosine of the angle between the bleeding direction and where the pocket lies."""
        wanted = replace(BLEED, volume_ml=20.0, irregularity=0.05, lobes=0, texture_hu=0.1, swirl_mm=0.0, hu=70.0)
        cosines = []
        for k in range(6):
            bleed = make_hematoma(anatomy, replace(wanted, **{name: 4.5}), np.random.default_rng(k))
            dark = (array(bleed.hu) < 55) & (array(bleed.level) > 2)
            grid = Grid.of(bleed.hu)
            middle = np.argwhere(dark).mean(axis=0)[::-1] * grid.spacing + grid.origin - bleed.center
            cosines.append(float(middle @ bleed.bleeding_direction / np.linalg.norm(middle)))
        return cosines

    toward = toward_the_bleeding("pocket_mm")
    assert min(toward) > 0.2
    assert np.median(toward) > 0.7
    sides = toward_the_bleeding("decoy_mm")
    assert min(sides) < -0.2 < 0.2 < max(sides)


@pytest.mark.parametrize("growth_ml", [9.0, -1.0])
def test_growth_hits_its_volume_without_folding_and_stays_inside(
    growth_ml: float, anatomy: Anatomy, hematoma: Hematoma
) -> None:
    growth = grow(anatomy, hematoma, replace(GROWTH, growth_ml=growth_ml), np.random.default_rng(3))
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
    growth = grow(anatomy, hematoma, replace(GROWTH, growth_ml=8.0), np.random.default_rng(3))
    grid = Grid.of(anatomy.ct)
    level = resample(hematoma.level, grid, outside=-60.0)
    new = (array(warp_image(level, resample(growth.displacement, grid))) > 0) & (array(level) <= 0)
    offsets = np.argwhere(new)[:, ::-1] * grid.spacing + np.array(grid.origin) - hematoma.center
    assert (offsets @ hematoma.bleeding_direction > 0).mean() > 0.7


def test_csf_gives_way_more_than_tissue(anatomy: Anatomy) -> None:
    bleed = make_hematoma(anatomy, replace(BLEED, site="deep"), np.random.default_rng(12))
    growth = grow(anatomy, bleed, replace(GROWTH, growth_ml=12.0, base=1.0), np.random.default_rng(3))
    grid = Grid.of(growth.displacement)
    field = sitk.Cast(growth.displacement, sitk.sitkVectorFloat64)
    squeezed = array(sitk.DisplacementFieldJacobianDeterminant(field)) - 1
    level = array(resample(bleed.level, grid, outside=-60.0))
    inside, tissue = crop(anatomy, grid)
    near = (level < -6) & (level > -25) & (inside > 0.95)
    in_csf, in_tissue = (np.average(squeezed, weights=near * share) for share in (inside - tissue, tissue))
    assert in_csf > 0.01
    assert in_csf > in_tissue + 0.005


@pytest.fixture(scope="module")
def drawn() -> list[PatientParameters]:
    return [draw_parameters(np.random.default_rng([1, k]), SimulationOptions()) for k in range(4000)]


def expanded(drawn: list[PatientParameters]) -> np.ndarray:
    return np.array([p.growth.growth_ml > min(6.0, 0.33 * p.bleeding.volume_ml) for p in drawn])


def test_the_drawn_cohort_has_the_literatures_proportions(drawn: list[PatientParameters]) -> None:
    volumes = np.array([p.bleeding.volume_ml for p in drawn])
    growth = np.array([p.growth.growth_ml for p in drawn])
    grown = expanded(drawn)
    assert np.quantile(volumes, (0.25, 0.5, 0.75)) == pytest.approx((5.6, 10.7, 18.7), rel=0.15)
    assert 0.30 < grown.mean() < 0.36
    assert 8 < growth[grown].mean() < 16
    assert abs(growth[~grown].mean()) < 0.3
    assert growth[~grown].std() < 1.5
    sites = [p.bleeding.site for p in drawn]
    assert 0.55 < sites.count("deep") / len(sites) < 0.65
    assert 0.35 < np.mean([p.ventricular.baseline for p in drawn]) < 0.42


@pytest.mark.parametrize("sign", list(SIGNS))
def test_signs_have_the_prevalence_and_odds_ratio_of_the_literature(
    sign: str, drawn: list[PatientParameters]
) -> None:
    prevalence, odds_ratio = SIGNS[sign]
    there, grown = np.array([p.signs[sign] for p in drawn]), expanded(drawn)
    cells = [np.count_nonzero(a & b) for a in (there, ~there) for b in (grown, ~grown)]
    assert there.mean() == pytest.approx(prevalence, abs=0.03)
    assert cells[0] * cells[3] / (cells[1] * cells[2]) == pytest.approx(odds_ratio, rel=0.3)


def test_who_reads_all_the_true_signs_does_not_know_the_answer(drawn: list[PatientParameters]) -> None:
    seen = np.array(
        [
            [
                *p.signs.values(),
                p.bleeding.swirl_mm / p.bleeding.radius_mm,
                p.bleeding.satellites,
                p.bleeding.irregularity,
                p.bleeding.texture_hu,
                p.bleeding.hypodense_hu if p.signs["hypodensity"] or p.signs["swirl"] else 60.0,
                np.log(p.bleeding.volume_ml),
                p.onset_hours,
            ]
            for p in drawn
        ]
    )
    reader = HistGradientBoostingClassifier(max_depth=3, max_iter=60, random_state=0)
    probability = cross_val_predict(reader, seen, expanded(drawn), cv=5, method="predict_proba")[:, 1]
    assert 0.8 < roc_auc_score(expanded(drawn), probability) < 0.9


def test_what_the_user_fixes_is_kept_and_nothing_else_changes() -> None:
    wanted = SimulationOptions(site="lobar", irregularity=0.3, growth_ml=-2.0, noise_hu=7.0)
    for number in range(20):
        free, fixed = (
            draw_parameters(np.random.default_rng(number), options) for options in (SimulationOptions(), wanted)
        )
        assert (fixed.bleeding.site, fixed.bleeding.irregularity) == ("lobar", 0.3)
        assert (fixed.growth.growth_ml, fixed.scanner.noise_hu) == (-2.0, 7.0)
        assert (
            replace(fixed.bleeding, site=free.bleeding.site, irregularity=free.bleeding.irregularity)
            == free.bleeding
        )
        assert replace(fixed.scanner, noise_hu=free.scanner.noise_hu) == free.scanner
        assert fixed.signs == free.signs
    larger = draw_parameters(np.random.default_rng(1), SimulationOptions(volume_ml=33.0))
    assert larger.bleeding.volume_ml == 33.0


def test_early_scans_expand_more(drawn: list[PatientParameters]) -> None:
    early = np.array([p.onset_hours < 2.5 for p in drawn])
    grown = expanded(drawn)
    assert grown[early].mean() > grown[~early].mean() + 0.05


@pytest.mark.parametrize("tilt", [0.0, 17.0])
def test_the_scanner_keeps_places_and_volumes(tilt: float) -> None:
    head = Grid((120, 130, 110), (1.0, 1.0, 1.0), (-60.0, -40.0, -50.0), (1.0, 0, 0, 0, 1, 0, 0, 0, 1))
    z, y, x = np.ogrid[:110, :130, :120]
    center = np.array([10.0, 30.0, 5.0])
    distance = np.sqrt((x - 60 - center[0]) ** 2 + (y - 40 - center[1]) ** 2 + (z - 50 - center[2]) ** 2)
    level = image_on(head, (15 - distance).astype(np.float32))
    ct = image_on(head, np.where(distance < 15, 60.0, 30.0).astype(np.float32))
    parameters = ScannerParameters(
        matrix=128, pixel_mm=1.1, slice_mm=5.0, tilt_degrees=tilt, noise_hu=4.0, noise_width_mm=0.5
    )
    mask, scan = acquire_mask(level, parameters), acquire(ct, parameters, np.random.default_rng(1))
    assert mask.grid.is_same(Grid.of(scan))
    assert Grid.of(scan) == scan_grid(head, parameters)
    assert volume_ml(mask) == pytest.approx(4 / 3 * np.pi * 15**3 / 1000, rel=0.03)
    found = mask.grid.point(np.argwhere(array(mask) > 0)[:, ::-1].mean(axis=0))
    np.testing.assert_allclose(found, center, atol=0.6)
    normal = np.array(scan.GetDirection()).reshape(3, 3)[:, 2]
    assert np.degrees(np.arccos(normal[2])) == pytest.approx(tilt, abs=1e-6)
    within = np.argwhere(array(mask) > 0)[:, ::-1]
    assert array(scan)[array(mask) > 0].mean() == pytest.approx(60.0, abs=3.0)
    assert len(within) > 100


def test_ventricles_fill_from_their_dependent_part(anatomy: Anatomy) -> None:
    assert anatomy.ventricles is not None
    share = array(anatomy.ventricles)
    assert 5 < share.sum() / 1000 < 60, "mL of the lateral ventricles"
    painted = array(paint_ventricles(anatomy.ct, anatomy.ventricles, filled=0.3, hu=55.0))
    changed = np.abs(painted - array(anatomy.ct)) > 5
    y = np.nonzero(changed)[1]
    untouched = np.nonzero((share > 0.9) & ~changed)[1]
    assert y.min() >= untouched.max() - 1, "blood lies posteriorly"
    assert (share[changed] > 0).all()


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
    noise = array(patient.baseline)[2:-2, 2:8, 2:8].std()
    assert noise == pytest.approx(description["parameters"]["scanner"]["noise_hu"], rel=0.35)
    assert not np.array_equal(baseline, array(patient.followup))


SIMULATE = ["simulate", "--seed", "9", "--matrix", "96"]


@pytest.fixture(scope="module")
def cohort_of_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort with its first patient, as the command makes it."""
    cohort, said = tmp_path_factory.mktemp("simulated") / "cohort", io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main([*SIMULATE, "-n", "1", "-o", str(cohort), "--jobs", "1"]) == 0
    assert "made before" not in said.getvalue()
    return cohort


def checksums(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_cohort_is_the_same_for_its_seed_and_resumes(cohort_of_one: Path, tmp_path: Path) -> None:
    simulate = [*SIMULATE, "-n", "2"]
    assert main([*simulate, "-o", str(tmp_path / "once"), "--jobs", "2"]) == 0
    shutil.copytree(cohort_of_one, tmp_path / "again")
    (tmp_path / "again" / "simulated-9-0001" / "mine.txt").touch()
    assert main([*simulate, "-o", str(tmp_path / "again"), "--jobs", "1"]) == 0
    again = checksums(tmp_path / "again")
    assert again.pop("simulated-9-0001/mine.txt"), "a case that was there was made anew"
    assert checksums(tmp_path / "once") == again
    assert len(again) == 2 * 6, "two scans, two masks, what is known of the patient and what he was made from"
    cases = [json.loads(path.read_text()) for path in sorted((tmp_path / "once").glob("*/case.json"))]
    assert cases[0]["baseline_ml"] != cases[1]["baseline_ml"]


def test_simulated_patients_made_otherwise_are_not_taken_for_new_ones(
    cohort_of_one: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = shutil.copytree(cohort_of_one, tmp_path / "cohort")
    simulate = [*SIMULATE, "-n", "1", "-o", str(cohort)]
    first = checksums(cohort)
    capsys.readouterr()

    def simulated(*options: str) -> tuple[dict[str, str], str]:
        assert main([*simulate, *options]) == 0
        return checksums(cohort), capsys.readouterr().out

    again, said = simulated()
    assert again == first
    assert "1 of them had been made before" in said
    other, said = simulated("--growth", "20")
    assert other["simulated-9-0001/followup.nii.gz"] != first["simulated-9-0001/followup.nii.gz"]
    assert "made before" not in said
    (mask,) = cohort.glob("*/followup-mask.nii.gz")
    corrected = sitk.ReadImage(str(mask)) * 0
    sitk.WriteImage(corrected, str(mask))
    assert main(simulate) == 2, "somebody's mask would be lost"
    assert not sitk.GetArrayFromImage(sitk.ReadImage(str(mask))).any()


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
    distance = array(
        sitk.SignedMaurerDistanceMap(made.baseline_mask.image, squaredDistance=False, useImageSpacing=True)
    )
    before, after = array(scan.image), array(made.baseline)
    np.testing.assert_allclose(after[distance > 25], before[distance > 25], atol=0.51)
    assert 48 < np.median(after[mask]) < 75
    still = np.std((after - array(sitk.SmoothingRecursiveGaussian(made.baseline, 1.2)))[mask])
    there = np.std((before - array(sitk.SmoothingRecursiveGaussian(scan.image, 1.2)))[mask])
    assert still == pytest.approx(there, rel=0.5), "the scan's own noise was painted over"
    assert dice(mask, array(made.followup_mask) > 0) > 0.5


def test_the_distributions_of_a_cohort_are_drawn(patient: SimulatedPatient, tmp_path: Path) -> None:
    for number in range(3):
        write_case(patient, tmp_path / "cohort" / f"case-{number}")
    output = tmp_path / "picture"
    assert main(["distributions", "--cohort", str(tmp_path / "cohort"), "-o", str(output)]) == 0
    figures = json.loads((output / "distributions.json").read_text())
    assert figures["patients"] == 3
    assert figures["baseline_median_ml"] == pytest.approx(patient.description["baseline_ml"])
    assert (output / "distributions.png").stat().st_size > 20_000
    (tmp_path / "cohort" / "case-0" / "case.json").unlink()
    assert main(["distributions", "--cohort", str(tmp_path / "cohort"), "-o", str(output)]) == 2
