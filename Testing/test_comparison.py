"""Registration finds a known motion, and a comparison measures what is known."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from HematomaExpansionLib import comparison
from HematomaExpansionLib.anatomy.bleeds import Bleeds, Presence
from HematomaExpansionLib.anatomy.brain import extract_brain
from HematomaExpansionLib.anatomy.registration import Registration, register, similarity
from HematomaExpansionLib.cli.main import main
from HematomaExpansionLib.comparison import FoundAutomatically, doubt_of_growth
from HematomaExpansionLib.errors import InputError
from HematomaExpansionLib.measures.agreement import dice
from HematomaExpansionLib.scan.grid import Grid
from HematomaExpansionLib.scan.head_ct import HeadCT, head_ct_from_image, read_head_ct
from HematomaExpansionLib.scan.mask import Mask
from HematomaExpansionLib.training.data import cohort
from HematomaExpansionLib.training.data.case_description import note_on_registration, read_description
from HematomaExpansionLib.training.data.cohort import case_folders, read_case
from HematomaExpansionLib.training.data.preparation import read_pairs
from phantoms import head_grid, head_image, positions, volume_ml, voxels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from HematomaSynthesisLib.simulation.patient import SimulatedPatient


pytestmark = pytest.mark.usefixtures("each_brain_found_once")


def moved(image: sitk.Image, transform: sitk.Transform, outside: float) -> sitk.Image:
    """The image of a patient who lies elsewhere: ``result(x) = image(transform(x))``, on another grid."""
    grid = Grid.of(image)
    other = grid.centered_at(
        np.array(transform.GetInverse().TransformPoint(grid.center.tolist())),
        (200, 210, grid.size[2] + 2),
        (1.15, 1.15, grid.spacing[2]),
    )
    return sitk.Resample(
        image, other.size, transform, sitk.sitkLinear, other.origin, other.spacing, other.direction, outside
    )


@pytest.fixture(scope="module")
def motion() -> sitk.Euler3DTransform:
    return sitk.Euler3DTransform((0.0, 20.0, 10.0), 0.08, -0.06, 0.15, (9.0, -14.0, 6.0))


@pytest.fixture(scope="module")
def followup(patient: SimulatedPatient, motion: sitk.Transform) -> tuple[sitk.Image, sitk.Image]:
    """CT and mask of the follow-up, after the patient has moved."""
    mask = sitk.Cast(
        moved(sitk.Cast(patient.followup_mask.image, sitk.sitkFloat32), motion, 0.0) >= 0.5, sitk.sitkUInt8
    )
    return moved(patient.followup, motion, -1024.0), mask


def test_a_known_motion_is_found_although_the_hematoma_grew(
    patient: SimulatedPatient, followup: tuple[sitk.Image, sitk.Image], motion: sitk.Transform
) -> None:
    scans = [head_ct_from_image(image).image for image in (patient.baseline, followup[0])]
    inside = [extract_brain(scan).mask for scan in scans]
    found = register(scans[0], inside[0], scans[1], inside[1])
    assert found.overlap > 0.95
    assert found.similarity > 0.9
    assert similarity(sitk.AffineTransform(3), scans[0], inside[0], scans[1]) < 0.8
    points = np.argwhere(voxels(inside[0]))[::997, ::-1]
    grid = inside[0].grid
    errors = []
    for index in points:
        here = grid.point(index)
        there = np.array(found.transform.TransformPoint(here.tolist()))
        errors.append(np.linalg.norm(there - np.array(motion.GetInverse().TransformPoint(here.tolist()))))
    assert np.mean(errors) < 0.8, "mm over the brain, in slices of 5 mm"
    assert max(errors) < 2.0
    again = register(scans[0], inside[0], scans[1], inside[1])
    np.testing.assert_array_equal(found.transform.GetParameters(), again.transform.GetParameters())


def test_scans_of_different_heads_are_refused(patient: SimulatedPatient) -> None:
    scan = head_ct_from_image(patient.baseline).image
    inside = extract_brain(scan).mask
    grid = Grid.of(scan)
    half = inside.voxels.copy()
    half[:, :, half.shape[2] // 2 :] = False  # what is left of another brain
    other = Mask.on(inside.grid, half)
    assert grid.size == inside.grid.size
    with pytest.raises(InputError, match="same patient"):
        register(scan, inside, scan, other)


def test_compare_measures_the_prediction_against_the_real_followup(
    patient: SimulatedPatient,
    followup: tuple[sitk.Image, sitk.Image],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_pair(tmp_path, patient, followup)
    doubtful: Any = nibabel.load(tmp_path / "followup.nii.gz")
    doubtful.set_qform(doubtful.affine + np.eye(4, k=3) * 9.0)
    nibabel.save(doubtful, tmp_path / "followup.nii.gz")
    prediction = tmp_path / "prediction"
    prediction.mkdir()
    sitk.WriteImage(patient.followup_mask.image, prediction / "followup-mask.nii.gz")  # a perfect one
    scans = [
        f"--{name}={tmp_path / name}.nii.gz" for name in ("baseline", "baseline-mask", "followup", "followup-mask")
    ]
    output = tmp_path / "out"
    assert main(["compare", *scans, "--prediction", str(prediction), "-o", str(output)]) == 0
    result = json.loads((output / "comparison.json").read_text())
    assert result["research_use_only"] is True
    (warning,) = result["warnings"]
    assert warning.startswith("Follow-up: The scan's header gives two positions, up to 9.0 mm apart")
    assert f"Note: {warning}" in capsys.readouterr().out
    assert result["baseline"]["volume_ml"] == pytest.approx(volume_ml(patient.baseline_mask))
    assert result["followup"]["volume_ml"] == pytest.approx(volume_ml(patient.followup_mask), rel=0.05)
    assert result["prediction"]["lesion_dice"] > 0.88
    registered = sitk.ReadImage(str(output / "followup-mask.nii.gz"))
    assert Grid.of(registered).is_same(Grid.of(patient.baseline))
    arrays = [voxels(mask) for mask in (registered, patient.followup_mask)]
    assert dice(*arrays) == pytest.approx(result["prediction"]["lesion_dice"], abs=1e-6)
    assert (output / "comparison.png").stat().st_size > 30_000
    transform = sitk.ReadTransform(str(output / "baseline-to-followup.tfm"))
    center = Grid.of(patient.baseline).center
    assert np.linalg.norm(np.array(transform.TransformPoint(center.tolist())) - center) > 5


def write_pair(folder: Path, patient: SimulatedPatient, followup: tuple[sitk.Image, sitk.Image]) -> None:
    for name, image in (
        ("baseline", patient.baseline),
        ("baseline-mask", patient.baseline_mask.image),
        ("followup", followup[0]),
        ("followup-mask", followup[1]),
    ):
        sitk.WriteImage(image, folder / f"{name}.nii.gz")


def test_prepare_makes_a_cohort_and_says_what_became_of_each_pair(
    patient: SimulatedPatient, followup: tuple[sitk.Image, sitk.Image], tmp_path: Path
) -> None:
    write_pair(tmp_path, patient, followup)
    (tmp_path / "pairs.csv").write_text(
        "case,baseline,followup,baseline_mask,followup_mask,onset_hours\n"
        "P1,baseline.nii.gz,followup.nii.gz,baseline-mask.nii.gz,followup-mask.nii.gz,3.5\n"
        "P2,baseline.nii.gz,absent.nii.gz,,,\n"
    )
    cohort = tmp_path / "cohort"
    assert main(["prepare", "--pairs", str(tmp_path / "pairs.csv"), "-o", str(cohort)]) == 0
    with (cohort / "prepared.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["prepared"] for line in lines] == ["True", "False"]
    assert lines[0]["within_12_hours"] == "True"
    assert lines[0]["at_least_5_ml"] == str(volume_ml(patient.baseline_mask) >= 5)
    assert lines[1]["reason"]
    assert [folder.name for folder in case_folders(cohort)] == ["P1"]
    case = read_case(cohort / "P1")
    assert case.followup.grid.is_same(case.baseline.grid)
    masks = [
        voxels(mask)
        for mask in (case.followup.hematoma, head_ct_mask(patient.followup_mask.image, case.baseline.ct))
    ]
    assert dice(*masks) > 0.88
    assert read_description(cohort / "P1")["registered"] is True


BLEED_MM = 18.0
"""Radius of the hematoma of the phantom."""


def ball_mask(grid: Grid, radius_mm: float, center: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Mask:
    inside = np.linalg.norm(positions(grid) - np.array(center), axis=-1) <= radius_mm
    return Mask.on(grid, inside)


def compare_found(
    found: Sequence[Mask | Bleeds],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *options: str,
    similarity: float = 0.97,
) -> dict[str, Any]:
    """What `compare` says about two aligned scans of the phantom in which these masks are found."""
    grid = head_grid()
    for name in ("baseline", "followup"):
        sitk.WriteImage(head_image(grid, BLEED_MM), folder / f"{name}.nii.gz")
    bleeds = iter(Bleeds.of_hematoma(each) if isinstance(each, Mask) else each for each in found)
    identity = Registration(sitk.AffineTransform(3), 1.0, similarity)
    monkeypatch.setattr(comparison, "find_bleeds", lambda *_: next(bleeds))
    monkeypatch.setattr(comparison, "register", lambda *_: identity)
    scans = [f"--{name}={folder / name}.nii.gz" for name in ("baseline", "followup")]
    assert main(["compare", *scans, *options, "-o", str(folder / "out")]) == 0
    return json.loads((folder / "out" / "comparison.json").read_text())


def test_the_growth_of_a_doubtful_hematoma_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Bleeds.of_hematoma(ball_mask(head_grid(), BLEED_MM))
    doubtful = replace(found, presence=Presence(0.3, 20))
    result = compare_found((found, doubtful), tmp_path, monkeypatch)
    assert result["growth"] is None
    assert "doubtful whether what was found in the follow-up is a hematoma" in result["warnings"][-1]


@pytest.mark.parametrize(
    ("radius", "center", "sentence"),
    [
        (0.0, (0.0, 0.0, 0.0), "No hematoma was found in the follow-up"),
        (12.0, (0.0, 0.0, 0.0), "less than half of the one in the baseline"),
        (18.0, (0.0, 45.0, 0.0), "lie apart once the scans are aligned"),
    ],
)
def test_what_was_not_found_again_is_not_known_to_be_gone(
    radius: float,
    center: tuple[float, float, float],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """This used to give a growth of −24 mL and "no expansion"."""
    grid = head_grid()
    (tmp_path / "prediction").mkdir()
    sitk.WriteImage(ball_mask(grid, 21.0).image, tmp_path / "prediction" / "followup-mask.nii.gz")
    found = ball_mask(grid, BLEED_MM), ball_mask(grid, radius, center) if radius else Mask.empty(grid)
    result = compare_found(found, tmp_path, monkeypatch, "--prediction", str(tmp_path / "prediction"))
    assert result["growth"] is None
    assert sentence in result["warnings"][-1]
    assert "growth is not known" in result["warnings"][-1]
    assert (result["followup"]["volume_ml"] is None) == (radius == 0.0)
    prediction = result["prediction"]
    assert prediction.pop("volume_ml") > 30
    assert set(prediction.values()) == {None}
    said = capsys.readouterr().out
    assert sentence in said
    assert re.search(r"Growth +not known", said)
    assert "expansion" not in said
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 10_000


def test_what_was_found_again_is_measured_and_warnings_of_both_scans_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = head_grid()
    found = ball_mask(grid, 18.0), ball_mask(grid, 20.0)

    def read(path: Path, **_: object) -> HeadCT:
        scan = read_head_ct(path)
        return replace(scan, warnings=(*scan.warnings, f"This is odd in the {path.name[0]}-scan."))

    monkeypatch.setattr(comparison, "read_head_ct", read)
    result = compare_found(found, tmp_path, monkeypatch)
    assert result["growth"]["absolute_ml"] == pytest.approx(volume_ml(found[1]) - volume_ml(found[0]))
    told = ["Baseline: This is odd in the b-scan.", "Follow-up: This is odd in the f-scan."]
    assert [told for told in result["warnings"] if "odd" in told] == told
    said = capsys.readouterr().out
    assert all(sentence in said for sentence in told)


def test_scans_that_look_unlike_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Even the insides of two different skulls overlap by 0.9 or more once one is stretched onto the other."""
    grid = head_grid()
    found = ball_mask(grid, 18.0), ball_mask(grid, 20.0)
    result = compare_found(found, tmp_path, monkeypatch, similarity=0.81)
    assert "same patient" in result["warnings"][-1]
    assert "same patient" in capsys.readouterr().out


def turned_case(case_folder: Path, folder: Path, description: dict[str, Any] | None) -> Path:
    """The case with its follow-up turned by 0.3 rad on its own grid, and ``description`` as its case.json."""
    shutil.copytree(case_folder, folder)
    (folder / "case.json").unlink()
    if description is not None:
        (folder / "case.json").write_text(json.dumps(description))
    for name, outside in (("followup", -1024.0), ("followup-mask", 0.0)):
        image = sitk.ReadImage(str(folder / f"{name}.nii.gz"))
        turn = sitk.Euler3DTransform(Grid.of(image).center.tolist(), 0.0, 0.0, 0.3)
        kind = sitk.sitkNearestNeighbor if name.endswith("mask") else sitk.sitkLinear
        sitk.WriteImage(sitk.Resample(image, image, turn, kind, outside), str(folder / f"{name}.nii.gz"))
    return folder


def test_a_followup_that_nobody_calls_registered_is_measured_and_registered(
    case_folder: Path, tmp_path: Path
) -> None:
    """If taken for registered, an unchanged bleed seemed to have grown by 14.7 mL in another place."""
    turned = turned_case(case_folder, tmp_path / "turned", None)
    case, original = read_case(turned), read_case(case_folder)
    first, second = (each.followup.hematoma.voxels for each in (case, original))
    assert dice(first, second) > 0.9
    as_said = read_case(turned_case(case_folder, tmp_path / "said", {"registered": True}))
    assert dice(as_said.followup.hematoma.voxels, second) < 0.5, "what is said counts"


def test_a_followup_that_lies_on_its_baseline_stays_there(
    case_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cohort, "register", lambda *_: pytest.fail("there was no need"))
    shutil.copytree(case_folder, tmp_path / "case")
    (tmp_path / "case" / "case.json").unlink()
    case, original = read_case(tmp_path / "case"), read_case(case_folder)
    np.testing.assert_array_equal(*(each.followup.hematoma.voxels for each in (case, original)))
    note = note_on_registration([case_folder, tmp_path / "case"])
    assert note is not None
    assert note.startswith("In 1 of 2 cases")
    assert note_on_registration([case_folder]) is None


def test_masks_that_a_person_gave_are_taken_as_they_are() -> None:
    given, automatic = (
        FoundAutomatically(baseline=False, followup=False),
        FoundAutomatically(baseline=True, followup=True),
    )
    assert doubt_of_growth(20.0, 5.0, True, given) is None, "it may have been evacuated"
    apart = doubt_of_growth(20.0, 25.0, False, given)
    assert apart is not None
    assert not apart.forbids
    for volumes in ((0.0, 20.0), (20.0, 0.0), (0.0, 0.0)):
        doubt = doubt_of_growth(*volumes, False, automatic)
        assert doubt is not None
        assert doubt.forbids
    assert doubt_of_growth(20.0, 11.0, True, automatic) is None


def head_ct_mask(mask: sitk.Image, like: sitk.Image) -> sitk.Image:
    return sitk.Resample(mask, like, sitk.Transform(), sitk.sitkNearestNeighbor)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,baseline,followup\n", "empty"),
        ("case,baseline\nP1,a.nii\n", "lacks"),
        ("case,baseline,followup\nJohn Doe,a,b\n", "name"),
        ("case,baseline,followup\nP1,a,b\nP1,c,d\n", "same case"),
        ("case,baseline,followup,onset_hours\nP1,a,b,soon\n", "not a number"),
    ],
)
def test_a_faulty_list_of_pairs_gets_a_sentence(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_pairs(tmp_path / "pairs.csv")
