"""Registration finds a known motion, and a comparison measures what is known."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import SimpleITK as sitk
from HematomaExpansionLib.brain import extract_brain
from HematomaExpansionLib.commands import main
from HematomaExpansionLib.errors import InputError
from HematomaExpansionLib.grid import Grid
from HematomaExpansionLib.head_ct import head_ct_from_image
from HematomaExpansionLib.measures import dice, volume_ml
from HematomaExpansionLib.registration import register
from HematomaExpansionLib.training.cohort import case_folders, read_case, read_description
from HematomaExpansionLib.training.preparation import read_pairs

if TYPE_CHECKING:
    from HematomaSynthesisLib.simulation.patient import SimulatedPatient


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
    """CT and mask of the follow-up, where the patient has moved."""
    mask = sitk.Cast(moved(sitk.Cast(patient.followup_mask, sitk.sitkFloat32), motion, 0.0) >= 0.5, sitk.sitkUInt8)
    return moved(patient.followup, motion, -1024.0), mask


def test_a_known_motion_is_found_although_the_hematoma_grew(
    patient: SimulatedPatient, followup: tuple[sitk.Image, sitk.Image], motion: sitk.Transform
) -> None:
    scans = [head_ct_from_image(image).image for image in (patient.baseline, followup[0])]
    inside = [extract_brain(scan).mask for scan in scans]
    found = register(scans[0], inside[0], scans[1], inside[1])
    assert found.overlap > 0.95
    points = np.argwhere(sitk.GetArrayFromImage(inside[0]) > 0)[::997, ::-1]
    grid = Grid.of(inside[0])
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
    half = sitk.GetArrayFromImage(inside)
    half[:, :, half.shape[2] // 2 :] = 0  # what is left of another brain
    other = sitk.GetImageFromArray(half)
    other.CopyInformation(inside)
    assert grid.size == inside.GetSize()
    with pytest.raises(InputError, match="same patient"):
        register(scan, inside, scan, other)


def test_compare_measures_the_prediction_against_the_real_followup(
    patient: SimulatedPatient, followup: tuple[sitk.Image, sitk.Image], tmp_path: Path
) -> None:
    write_pair(tmp_path, patient, followup)
    prediction = tmp_path / "prediction"
    prediction.mkdir()
    sitk.WriteImage(patient.followup_mask, prediction / "followup-mask.nii.gz")  # a perfect one
    scans = [
        f"--{name}={tmp_path / name}.nii.gz" for name in ("baseline", "baseline-mask", "followup", "followup-mask")
    ]
    output = tmp_path / "out"
    assert main(["compare", *scans, "--prediction", str(prediction), "-o", str(output)]) == 0
    result = json.loads((output / "comparison.json").read_text())
    assert result["research_use_only"] is True
    assert result["baseline"]["volume_ml"] == pytest.approx(volume_ml(patient.baseline_mask))
    assert result["followup"]["volume_ml"] == pytest.approx(volume_ml(patient.followup_mask), rel=0.05)
    assert result["prediction"]["lesion_dice"] > 0.88
    registered = sitk.ReadImage(str(output / "followup-mask.nii.gz"))
    assert Grid.of(registered).is_same(Grid.of(patient.baseline))
    arrays = [sitk.GetArrayFromImage(mask) > 0 for mask in (registered, patient.followup_mask)]
    assert dice(*arrays) == pytest.approx(result["prediction"]["lesion_dice"], abs=1e-6)
    assert (output / "comparison.png").stat().st_size > 30_000
    transform = sitk.ReadTransform(str(output / "baseline-to-followup.tfm"))
    center = Grid.of(patient.baseline).center
    assert np.linalg.norm(np.array(transform.TransformPoint(center.tolist())) - center) > 5


def write_pair(folder: Path, patient: SimulatedPatient, followup: tuple[sitk.Image, sitk.Image]) -> None:
    for name, image in (
        ("baseline", patient.baseline),
        ("baseline-mask", patient.baseline_mask),
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
    assert Grid.of(case.followup).is_same(Grid.of(case.baseline))
    masks = [
        sitk.GetArrayFromImage(mask) > 0
        for mask in (case.followup_mask, head_ct_mask(patient.followup_mask, case.baseline))
    ]
    assert dice(*masks) > 0.88
    assert read_description(cohort / "P1")["registered"] is True


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
