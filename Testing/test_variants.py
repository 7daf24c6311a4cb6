"""Synthetic variants: the paper's recipe reaches its targets, changes nothing else, and depends only on its
seed."""

from __future__ import annotations

import hashlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from HematomaExpansionLib.cli.main import main
from HematomaExpansionLib.errors import InputError
from HematomaExpansionLib.measures.agreement import dice
from HematomaExpansionLib.scan.grid import Grid, image_on
from HematomaExpansionLib.scan.mask import Mask
from HematomaExpansionLib.scan.shapes import signed_distance
from HematomaExpansionLib.training.data.cohort import read_case
from HematomaSynthesisLib import mask_registration, variant_folders
from HematomaSynthesisLib.target_shapes import Family, TargetOptions, draw_targets, structuring_elements
from HematomaSynthesisLib.variants import UNTOUCHED_MM, Variant, make_variants
from phantoms import volume_ml
from scipy import ndimage

pytestmark = pytest.mark.usefixtures("each_brain_found_once")

STRAIGHT = (1.0, 0, 0, 0, 1, 0, 0, 0, 1)
OBLIQUE = sitk.Euler3DTransform((0, 0, 0), 0.15, -0.1, 0.2).GetMatrix()


def scan_with_bleed(
    spacing: tuple[float, float, float], direction: tuple[float, ...]
) -> tuple[sitk.Image, sitk.Image]:
    """A noisy scan of 110 mm with an irregular bleed of about 14 mL."""
    size = tuple(round(110 / step) for step in spacing)
    grid = Grid((1, 1, 1), (1.0, 1.0, 1.0), (3.0, -20.0, 7.0), direction).centered_at(
        np.array([5.0, -8.0, 11.0]), size, spacing
    )
    points = sitk.GetArrayFromImage(
        sitk.PhysicalPointSource(
            sitk.sitkVectorFloat64, list(grid.size), grid.origin, grid.spacing, grid.direction
        )
    )
    offset = points - grid.center
    balls = [((0, 0, 0), 13.0), ((9, 4, 3), 9.0), ((-6, -8, -5), 8.0)]
    inside = np.any([np.linalg.norm(offset - center, axis=-1) < radius for center, radius in balls], axis=0)
    noise = np.random.default_rng(1).normal(0, 4, inside.shape)
    hu = np.round(np.where(inside, 62.0, 34.0) + noise).astype(np.int16)
    return image_on(grid, hu), Mask.on(grid, inside)


def array(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image.image if isinstance(image, Mask) else image)


@pytest.fixture(scope="module", params=[STRAIGHT, OBLIQUE], ids=["straight", "oblique"])
def isotropic(request: pytest.FixtureRequest) -> tuple[sitk.Image, sitk.Image, list[Variant]]:
    ct, mask = scan_with_bleed((1.0, 1.0, 1.0), request.param)
    return ct, mask, list(make_variants(ct, mask, 5, TargetOptions(), seed=4))


def test_the_papers_recipe_reaches_its_targets(isotropic: tuple[sitk.Image, sitk.Image, list[Variant]]) -> None:
    ct, mask, variants = isotropic
    assert len(variants) == 5
    for variant in variants:
        description = variant.description
        assert description["dice_to_target"] >= 0.95
        assert description["smallest_jacobian"] > 0
        assert 0.6 <= description["volume_ml"] / description["original_ml"] <= 0.99
        assert description["volume_ml"] == pytest.approx(volume_ml(variant.mask))
        assert 0 < description["mean_surface_shift_mm"] < 4
        assert Grid.of(variant.ct).is_same(Grid.of(ct))
        assert variant.mask.grid.is_same(mask.grid)
        # An eroded bleed lies in the original, and what left it now looks like brain.
        assert (array(mask)[array(variant.mask) > 0] > 0).mean() > 0.97
        assert array(variant.ct)[array(variant.mask) > 0].mean() == pytest.approx(62.0, abs=2.5)
    for first, second in combinations(variants, 2):
        assert dice(array(first.mask) > 0, array(second.mask) > 0) < 0.99


def test_nothing_far_from_the_hematoma_changes(isotropic: tuple[sitk.Image, sitk.Image, list[Variant]]) -> None:
    ct, mask, variants = isotropic
    far = array(signed_distance(mask.image)) < -UNTOUCHED_MM
    for variant in variants:
        np.testing.assert_array_equal(array(variant.ct)[far], array(ct)[far])
        assert (array(variant.ct) != array(ct)).sum() > 1000


@pytest.mark.parametrize("in_plane", [True, False])
def test_nothing_beyond_15_mm_changes_in_thick_slices_either(in_plane: bool) -> None:
    """Counted from the voxels of the mask, not from a surface between the slices."""
    ct, mask = scan_with_bleed((0.9, 0.9, 5.0), STRAIGHT)
    inside = array(mask) > 0
    far = ndimage.distance_transform_edt(~inside, sampling=(5.0, 0.9, 0.9)) > UNTOUCHED_MM
    assert far.any()
    for variant in make_variants(ct, mask, 2, TargetOptions(in_plane=in_plane), seed=4):
        changed = array(variant.ct) != array(ct)
        assert not (changed & far).any(), f"{np.count_nonzero(changed & far)} voxels"
        assert changed.sum() > 1000


@pytest.mark.parametrize("family", list(Family))
def test_the_mean_shift_is_no_larger_than_the_largest(family: Family) -> None:
    for spacing, in_plane in (((1.5, 1.5, 1.5), False), ((0.9, 0.9, 5.0), True)):
        ct, mask = scan_with_bleed(spacing, STRAIGHT)
        for variant in make_variants(ct, mask, 2, TargetOptions(family, in_plane=in_plane), seed=3):
            description = variant.description
            assert 0 < description["mean_surface_shift_mm"] <= description["largest_displacement_mm"]


def test_thick_slices_are_changed_in_plane() -> None:
    ct, mask = scan_with_bleed((0.9, 0.9, 5.0), STRAIGHT)
    for variant in make_variants(ct, mask, 3, TargetOptions(in_plane=True), seed=4):
        assert variant.description["dice_to_target"] >= 0.92
        assert variant.description["smallest_jacobian"] > 0
        assert np.abs(array(variant.displacement)[..., 2]).max() < 1e-5, "blood moved from slice to slice"
        assert 0.6 <= variant.description["volume_ml"] / volume_ml(mask) <= 0.995


@pytest.mark.parametrize(("spacing", "radius"), [((0.9, 0.9, 5.0), 7.0), ((0.9, 0.9, 10.0), 16.0)])
def test_a_bleed_on_few_thick_slices_is_changed_too(spacing: tuple[float, float, float], radius: float) -> None:
    ct, mask = scan_with_bleed(spacing, STRAIGHT)
    points = np.indices(array(mask).shape) - (np.array(array(mask).shape)[:, None, None, None] - 1) / 2
    ball = np.linalg.norm(points * np.array(spacing[::-1])[:, None, None, None], axis=0) < radius
    few = Mask.on(mask.grid, ball)
    (variant,) = make_variants(ct, few, 1, TargetOptions(in_plane=True), seed=4)
    assert variant.description["dice_to_target"] >= 0.92
    assert variant.description["smallest_jacobian"] > 0


def test_a_mask_that_touches_the_skull_gets_a_sentence() -> None:
    ct, mask = scan_with_bleed((1.0, 1.0, 1.0), STRAIGHT)
    hu, inside = array(ct), array(mask) > 0
    edge = np.argwhere(inside)[:, 2].max()
    hu[:, :, edge + 2 :] = 900
    assert list(make_variants(image_on(Grid.of(ct), hu), mask, 1, TargetOptions(), seed=1))
    hu[:, :, edge + 1 :] = 900
    with pytest.raises(InputError, match="touches the skull"):
        list(make_variants(image_on(Grid.of(ct), hu), mask, 1, TargetOptions(), seed=1))


def test_the_same_seed_gives_the_same_variants() -> None:
    ct, mask = scan_with_bleed((1.5, 1.5, 3.0), STRAIGHT)

    def made(seed: int) -> Variant:
        return next(iter(make_variants(ct, mask, 1, TargetOptions(), seed)))

    first, again, other = made(1), made(1), made(2)
    np.testing.assert_array_equal(array(first.ct), array(again.ct))
    assert first.description == again.description
    assert not np.array_equal(array(first.mask), array(other.mask))


@pytest.mark.parametrize(("family", "grows"), [(Family.DILATION, True), (Family.SHAPE, None)])
def test_other_families(family: Family, grows: bool | None) -> None:
    ct, mask = scan_with_bleed((1.5, 1.5, 1.5), STRAIGHT)
    variant = next(iter(make_variants(ct, mask, 1, TargetOptions(family), seed=3)))
    assert variant.description["dice_to_target"] > 0.95
    assert variant.description["smallest_jacobian"] > 0
    if grows:
        assert volume_ml(variant.mask) > volume_ml(mask)


def test_without_greedy_simpleitk_takes_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_registration, "greedy_is_installed", lambda: False)
    ct, mask = scan_with_bleed((1.5, 1.5, 1.5), STRAIGHT)
    variant = next(iter(make_variants(ct, mask, 1, TargetOptions(), seed=3)))
    assert variant.description["dice_to_target"] > 0.9
    assert variant.description["smallest_jacobian"] > 0


def test_no_element_is_used_more_than_twice_or_removes_too_much() -> None:
    ball = np.linalg.norm(np.indices((40, 40, 40)) - 20, axis=0) < 9
    targets = list(draw_targets(ball, 12, TargetOptions(max_change=0.25), np.random.default_rng(0)))
    names = [target.element for target in targets]
    assert max(names.count(name) for name in names) <= 2
    assert all(1 - target.mask.sum() / ball.sum() <= 0.25 for target in targets)
    assert all((target.mask <= ball).all() for target in targets)


def test_elements_are_what_their_names_say() -> None:
    elements = structuring_elements(in_plane=False)
    assert len(elements) == 63 + 2
    assert all(element[1, 1, 1] for element in elements.values())
    assert elements["+x"].sum() == 2
    assert elements["+x"][1, 1, 2]
    assert elements["all"].sum() == 27
    assert elements["edges"].sum() == 19
    flat = structuring_elements(in_plane=True)
    assert not any(element[0].any() or element[2].any() for element in flat.values())


@pytest.mark.parametrize(("radius", "message"), [(0.0, "empty"), (1.2, "too small"), (2.6, "by more than 1%")])
def test_a_hematoma_that_cannot_be_eroded_gets_a_sentence(radius: float, message: str) -> None:
    ct, mask = scan_with_bleed((1.0, 1.0, 1.0), STRAIGHT)
    center = np.linalg.norm(np.indices(array(mask).shape) - 55, axis=0)
    small = Mask.on(mask.grid, center < radius)
    options = TargetOptions(max_change=0.01 if radius > 2 else 0.4)
    with pytest.raises(InputError, match=message):
        list(make_variants(ct, small, 1, options, seed=1))


def test_a_cohort_gets_its_variants_and_a_bad_case_does_not_stop_it(case_folder: Path, tmp_path: Path) -> None:
    cohort = tmp_path / "cohort"
    for name in ("good", "bad"):
        shutil.copytree(case_folder, cohort / name)
    empty = sitk.ReadImage(str(cohort / "bad" / "baseline-mask.nii.gz")) * 0
    sitk.WriteImage(empty, str(cohort / "bad" / "baseline-mask.nii.gz"))
    synthesize = ["synthesize", "--cohort", str(cohort), "--variants", "2", "--in-plane", "--seed", "3"]
    assert main([*synthesize, "--jobs", "1"]) == 0
    assert not (cohort / "bad" / "variants").exists()
    description = json.loads((cohort / "good" / "variants" / "2" / "variant.json").read_text())
    variant = read_case(cohort / "good" / "variants" / "2")
    original = read_case(cohort / "good")
    assert volume_ml(variant.baseline.hematoma) == pytest.approx(description["volume_ml"])
    np.testing.assert_array_equal(array(variant.followup.ct), array(original.followup.ct))
    assert not np.array_equal(array(variant.baseline.ct), array(original.baseline.ct))
    written = (cohort / "good" / "variants" / "1" / "baseline.nii.gz").stat().st_mtime_ns
    assert main([*synthesize, "--jobs", "1"]) == 0
    assert (cohort / "good" / "variants" / "1" / "baseline.nii.gz").stat().st_mtime_ns == written, "made anew"


def test_synthesize_makes_a_case_of_the_users_own_files(case_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    for file in case_folder.glob("*.nii.gz"):
        shutil.copyfile(file, tmp_path / "own" / file.name)
    files = [
        f"--{option}={tmp_path / 'own' / name}.nii.gz"
        for option, name in (
            ("input", "baseline"),
            ("mask", "baseline-mask"),
            ("followup", "followup"),
            ("followup-mask", "followup-mask"),
        )
    ]
    output = tmp_path / "case"
    assert main(["synthesize", *files, "-o", str(output), "--variants", "1", "--in-plane"]) == 0
    assert json.loads((output / "case.json").read_text())["registered"] is False
    case = read_case(output)  # registers the follow-up
    assert dice(case.followup.hematoma.voxels, read_case(case_folder).followup.hematoma.voxels) > 0.9
    assert (output / "variants" / "1" / "baseline.nii.gz").exists()
    (output / "note.txt").write_text("checked by eye")
    assert main(["synthesize", *files, "-o", str(output)]) == 2, "the output holds somebody's note"
    assert (output / "note.txt").read_text() == "checked by eye"
    assert main(["synthesize", "--variants", "3"]) == 2


def descriptions(cohort: Path) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in sorted(cohort.glob("*/variants/*/variant.json"))]


def test_other_variants_are_made_anew_and_the_same_are_kept(
    case_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(variant_folders, "case_workers", lambda *_: ThreadPoolExecutor(1))
    cohort = tmp_path / "cohort"
    for name in ("good", "bad"):
        shutil.copytree(case_folder, cohort / name)
    empty = sitk.ReadImage(str(cohort / "bad" / "baseline-mask.nii.gz")) * 0
    sitk.WriteImage(empty, str(cohort / "bad" / "baseline-mask.nii.gz"))
    synthesize = ["synthesize", "--cohort", str(cohort), "--variants", "1", "--in-plane"]

    def made(*options: str) -> tuple[str, str, int]:
        assert main([*synthesize, *options]) == 0
        (description,) = descriptions(cohort)
        scan = (cohort / "good" / "variants" / "1" / "baseline.nii.gz").read_bytes()
        return hashlib.sha256(scan).hexdigest(), str(description["family"]), int(str(description["seed"]))

    first = made("--seed", "3")
    assert "1 variant in 1 case" in capsys.readouterr().out, "the case that was left out is counted"
    assert made("--seed", "3") == first
    other_seed = made("--seed", "4")
    assert other_seed[2] != first[2]
    assert other_seed[0] != first[0]
    assert made("--seed", "4", "--family", "dilation")[1] == "dilation"
    mask = sitk.ReadImage(str(cohort / "good" / "baseline-mask.nii.gz"))
    sitk.WriteImage(sitk.BinaryErode(mask, [2, 2, 0]), str(cohort / "good" / "baseline-mask.nii.gz"))
    before = descriptions(cohort)[0]["original_ml"]
    made("--seed", "4", "--family", "dilation")
    assert descriptions(cohort)[0]["original_ml"] < before, "the mask was replaced"  # type: ignore[operator]


def test_a_case_made_of_a_cohorts_files_keeps_what_was_known_of_it(case_folder: Path, tmp_path: Path) -> None:
    files = [
        f"--{option}={case_folder / name}.nii.gz"
        for option, name in (
            ("input", "baseline"),
            ("mask", "baseline-mask"),
            ("followup", "followup"),
            ("followup-mask", "followup-mask"),
        )
    ]
    assert main(["synthesize", *files, "-o", str(tmp_path / "case"), "--variants", "1", "--in-plane"]) == 0
    known = json.loads((case_folder / "case.json").read_text())
    told = json.loads((tmp_path / "case" / "case.json").read_text())
    assert told["source"] == "simulated"
    assert told["onset_hours"] == known["onset_hours"]
    assert told == known
    alone = [*files[:2], "--source", "Hospital A", "--onset-hours", "2.5"]
    assert main(["synthesize", *alone, "-o", str(tmp_path / "other"), "--variants", "1", "--in-plane"]) == 0
    told = json.loads((tmp_path / "other" / "case.json").read_text())
    assert (told["source"], told["onset_hours"]) == ("Hospital A", 2.5)
