"""A researcher's cohort: masks that nobody drew, damaged cases and too few cases are reported, not ignored."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from HematomaExpansionLib.cli.main import main
from HematomaExpansionLib.errors import InputError
from HematomaExpansionLib.models.package import open_package
from HematomaExpansionLib.scan.grid import image_on
from HematomaExpansionLib.training.data import cohort as cohort_module
from HematomaExpansionLib.training.data import preparation
from HematomaExpansionLib.training.data.case_description import (
    has_automatic_masks,
    kind_of_cases,
    note_on_masks,
    read_description,
)
from HematomaExpansionLib.training.data.each_case import prepare_parts
from HematomaExpansionLib.training.data.preparation import read_pairs
from HematomaExpansionLib.training.growth import evaluation
from HematomaExpansionLib.training.growth import samples as growth_samples
from HematomaExpansionLib.training.risk import evaluation as risk_evaluation
from HematomaExpansionLib.training.risk import logistic as risk_training
from HematomaExpansionLib.training.risk import networks as risk_network_training
from HematomaExpansionLib.training.risk.evaluation import check_folds
from HematomaExpansionLib.training.risk.logistic import fit_risk
from phantoms import head_grid, head_image, positions
from test_risk import TRUE_MASKS, patients

pytestmark = pytest.mark.usefixtures("each_brain_found_once", "cases_in_this_process")

GRID = head_grid((3.0, 3.0, 5.0))


def write_case(folder: Path, followup_mm: float = 19.0, **description: Any) -> Path:
    """A head with a ball of blood of 18 mm that grows to another radius; ``case.json`` holds ``description``."""
    folder.mkdir(parents=True)
    distance = np.linalg.norm(positions(GRID), axis=-1)
    for name, radius in (("baseline", 18.0), ("followup", followup_mm)):
        sitk.WriteImage(head_image(GRID, sphere_mm=radius), str(folder / f"{name}.nii.gz"))
        mask = image_on(GRID, (distance <= radius).astype(np.uint8))
        sitk.WriteImage(mask, str(folder / f"{name}-mask.nii.gz"))
    if description:
        (folder / "case.json").write_text(json.dumps({"source": "Hospital A", "registered": True, **description}))
    return folder


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_case(tmp_path_factory.mktemp("case") / "case", registered=True)


@pytest.fixture
def make_cohort(case: Path, tmp_path: Path) -> Callable[..., Path]:
    def make(count: int, **description: Any) -> Path:
        for number in range(count):
            folder = shutil.copytree(case, tmp_path / "cohort" / f"case-{number}")
            values = {"source": "Hospital A", "registered": True, **description}
            (folder / "case.json").write_text(json.dumps(values))
        return tmp_path / "cohort"

    return make


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


AUTOMATIC = ["automatic", "one given, one automatic"]


def test_only_masks_that_prepare_found_itself_count_as_automatic(make_cohort: Callable[..., Path]) -> None:
    cohort = make_cohort(4)
    folders = sorted(cohort.iterdir())
    for folder, masks in zip(folders, [*AUTOMATIC, "given"], strict=False):
        (folder / "case.json").write_text(json.dumps({"masks": masks}))
    (folders[3] / "case.json").unlink()
    variant = folders[0] / "variants" / "1"
    variant.mkdir(parents=True)
    assert [has_automatic_masks(folder) for folder in [*folders, variant]] == [True, True, False, False, True]
    assert kind_of_cases(folders).endswith(", 2 of them with masks found automatically")
    assert "automatically" not in kind_of_cases(folders[2:])
    note = note_on_masks(folders)
    assert note is not None
    assert note.startswith("In 2 of 4 cases a mask was found automatically")
    assert note_on_masks(folders[2:]) is None


def test_where_simulated_bleeds_lie_is_said(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("head", "painted", "patient")]
    for folder, source in zip(
        folders, ("simulated", "simulated bleeds in a real scan", "Hospital A"), strict=True
    ):
        folder.mkdir()
        (folder / "case.json").write_text(json.dumps({"source": source}))
    assert kind_of_cases(folders[:1]) == "simulated patients, no real ones"
    assert kind_of_cases(folders[1:2]) == "simulated bleeds in real heads"
    assert kind_of_cases(folders[:2]) == "simulated patients and simulated bleeds in real heads"
    assert kind_of_cases(folders[::2]).startswith("patients (Hospital A")


def test_prepare_says_in_how_many_cases_it_found_a_mask_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pairs.csv").write_text("case,baseline,followup\nP1,a,b\nP2,a,b\nP3,a,b\nP4,a,b\n")
    (tmp_path / "cohort").mkdir()
    lines = [preparation.PreparedCase(f"P{k}", True, masks=masks) for k, masks in enumerate([*AUTOMATIC, "given"])]
    monkeypatch.setattr(preparation, "prepare_cohort", lambda *_: lines)
    assert run("prepare", "--pairs", tmp_path / "pairs.csv", "-o", tmp_path / "cohort") == 0
    assert "In 2 of them a mask was found automatically" in capsys.readouterr().out


def test_a_segmentation_is_not_measured_against_masks_that_nobody_drew(
    make_cohort: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The Dice of the network against itself is 1.000."""
    cohort = make_cohort(3, masks="automatic")
    command = ["evaluate", "segmentation", "--cohort", cohort, "-o", tmp_path / "out", "--model", "threshold"]
    assert run(*command) == 2
    assert "None of the 3 cases can be used. case-0: A mask was found automatically" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (cohort / "case-1" / "case.json").write_text(json.dumps({"masks": "given"}))
    assert run(*command) == 0
    summary = json.loads((tmp_path / "out" / "segmentation.json").read_text())
    assert summary["baseline"]["cases"] == 1
    assert set(summary["left_out"]) == {"case-0", "case-2"}


def test_no_bias_is_measured_against_masks_that_nobody_drew(
    make_cohort: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = make_cohort(10, masks="automatic")
    assert run("correct", "segmentation-compact", "--cohort", cohort, "-o", tmp_path / "new") == 2
    message = capsys.readouterr().err
    assert "10 of 10 cases cannot be used" in message
    assert "case-0: A mask was found automatically" in message


def test_growth_measured_against_masks_that_nobody_drew_says_so_everywhere(
    make_cohort: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort, out = make_cohort(2, masks="automatic"), tmp_path / "out"
    assert run("evaluate", "growth", "--cohort", cohort, "-o", out) == 0
    note = "In 2 of 2 cases a mask was found automatically"
    assert note in capsys.readouterr().err
    assert json.loads((out / "growth.json").read_text())["notes"][0].startswith(note)
    assert note in (out / "growth.md").read_text(encoding="utf-8")


def test_a_model_learned_from_masks_that_nobody_drew_says_so(
    make_cohort: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = make_cohort(2, masks="automatic")
    options = ["--channels", "4,4,4,4", "--epochs", "1", "-o", tmp_path / "package"]
    assert run("train", "segmentation", "--cohort", cohort, *options) == 0
    assert "Note: In 2 of 2 cases a mask was found automatically" in capsys.readouterr().err
    assert "2 of them with masks found automatically" in str(
        open_package(tmp_path / "package").description.trained_on
    )


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "damaged"),
        ("[]", "holds no description"),
        ("[" * 100_000, "damaged"),
        ('"three"', "holds no description"),
        ('{"onset_hours": "three"}', "onset_hours"),
        ('{"onset_hours": NaN}', "onset_hours"),
        ('{"onset_hours": Infinity}', "onset_hours"),
        ('{"onset_hours": -1}', "onset_hours"),
        ('{"onset_hours": true}', "onset_hours"),
        ('{"registered": "no"}', "registered"),
        ('{"source": 3}', "source"),
        ('{"masks": null}', "masks"),
    ],
)
def test_a_description_that_cannot_be_is_refused(text: str, what: str, tmp_path: Path) -> None:
    (tmp_path / "case.json").write_text(text)
    with pytest.raises(InputError, match=what):
        read_description(tmp_path)
    (tmp_path / "case.json").write_text(
        '{"onset_hours": null, "registered": false, "masks": "given", "more": [1]}'
    )
    assert read_description(tmp_path)["more"] == [1]


@pytest.mark.parametrize("hours", ["nan", "inf", "-1", "1e9"])
def test_hours_that_cannot_be_are_refused_in_a_list_of_pairs(hours: str, tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text(f"case,baseline,followup,onset_hours\nP1,a,b,3\nP2,a,b,{hours}\n")
    with pytest.raises(InputError, match=r"[Ll]ine 3 .*onset"):
        read_pairs(table)


def damaged(cohort: Path) -> list[str]:
    """Two cases of the cohort damaged, each in a different way; returns their names."""
    with (cohort / "case-1" / "followup.nii.gz").open("r+b") as file:
        file.truncate(2000)
    (cohort / "case-3" / "case.json").write_text('{"onset_hours": "three"}')
    return ["case-1", "case-3"]


@pytest.mark.parametrize(
    "options",
    [
        ["segmentation"],
        ["segmentation", "--preset", "slices"],
        ["growth"],
    ],
)
def test_training_names_all_damaged_cases_before_it_learns(
    options: list[str],
    make_cohort: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cohort = make_cohort(4)
    names = damaged(cohort)
    assert run("train", *options, "--cohort", cohort, "-o", tmp_path / "package") == 2
    message = capsys.readouterr().err
    assert "2 of 4 cases cannot be used" in message
    assert all(f"{name}: " in message for name in names)
    assert not (tmp_path / "package" / "model.json").exists()
    assert not list(tmp_path.glob("package/training/**/*.ckpt"))


def test_evaluation_leaves_out_damaged_cases_and_says_so(
    make_cohort: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort, out = make_cohort(4), tmp_path / "out"
    names = damaged(cohort)
    command = ["evaluate", "segmentation", "--cohort", cohort, "-o", out, "--model", "threshold"]
    assert run(*command) == 0
    summary = json.loads((out / "segmentation.json").read_text())
    assert list(summary["left_out"]) == names
    assert summary["baseline"]["cases"] == 2
    with (out / "segmentation.csv").open() as file:
        assert {row["case"] for row in csv.DictReader(file)} == {"case-0", "case-2"}
    told = capsys.readouterr().err
    assert all(f"Note: {name} was left out. {summary['left_out'][name]}" in told for name in names)
    for name in ("case-0", "case-2"):
        (cohort / name / "baseline.nii.gz").write_bytes(b"nothing")
    assert run(*command) == 2
    assert "None of the 4 cases can be used" in capsys.readouterr().err


def test_parts_are_prepared_at_once_and_kept_apart(tmp_path: Path) -> None:
    def own(folder: Path) -> list[str]:
        return [folder.name, folder.name.upper()]

    learned, unseen = prepare_parts(own, [tmp_path / "a", tmp_path / "b"], [tmp_path / "c"])
    assert (learned, unseen) == (["a", "A", "b", "B"], ["c", "C"])


@pytest.mark.parametrize(
    ("expanded", "others", "folds", "sentence"),
    [
        (6, 6, 3, None),
        (3, 9, 3, None),
        (3, 9, 0, None),
        (4, 8, 2, None),
        (2, 10, 2, "too few of a kind"),
        (3, 9, 2, "too few of a kind"),
        (2, 10, 0, "leaving one out"),
        (3, 9, 4, "cannot be divided into 4 folds"),
        (0, 12, 3, "others whose did not"),
        (12, 0, 0, "others whose did not"),
    ],
)
def test_folds_of_a_small_cohort_work_or_are_refused(
    expanded: int, others: int, folds: int, sentence: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each fold chooses the regularization in inner folds; with few patients that raised a traceback."""
    kinds = np.repeat([True, False], [expanded, others])
    samples = patients(400, 5)
    chosen = [*[s for s in samples if s.expanded][:expanded], *[s for s in samples if not s.expanded][:others]]
    monkeypatch.setattr(risk_evaluation, "measure_cases", lambda *_arguments: chosen)
    monkeypatch.setattr(risk_evaluation, "case_folders", lambda cohort: [cohort])
    if sentence is None:
        rows = risk_evaluation.cross_validate_risk(tmp_path, folds, TRUE_MASKS, 0)
        assert sorted(row.case for row in rows) == sorted(sample.case for sample in chosen)
        return
    with pytest.raises(InputError, match=sentence):
        check_folds(kinds, folds)
    with pytest.raises(InputError, match=sentence):
        risk_evaluation.cross_validate_risk(tmp_path, folds, TRUE_MASKS, 0)


def test_a_risk_model_needs_two_patients_of_each_kind() -> None:
    samples = patients(400, 5)
    one = [*[s for s in samples if s.expanded][:1], *[s for s in samples if not s.expanded][:9]]
    with pytest.raises(InputError, match="1 of 10 expanded"):
        fit_risk(one, 0)
    two = [*[s for s in samples if s.expanded][:2], *[s for s in samples if not s.expanded][:2]]
    assert fit_risk(two, 0) is not None


def no_work(*_arguments: object, **_options: object) -> None:
    raise AssertionError("work was begun")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("train risk", "0 of 3 expanded"),
        ("train risk --preset two-output", "0 of 3 expanded"),
        ("evaluate risk", "others whose did not"),
        ("evaluate risk --folds 3", "others whose did not"),
        ("evaluate risk --folds loo", "others whose did not"),
        ("evaluate risk --folds 2 --preset slices", "others whose did not"),
        ("evaluate growth --folds 2", "at least 4 cases"),
        ("evaluate growth --folds loo", "at least 4 cases"),
        ("train growth --only-expanded", "at least two cases"),
        ("correct segmentation-compact", "needs 10"),
    ],
)
def test_a_cohort_too_small_is_refused_before_the_work(
    arguments: str,
    sentence: str,
    make_cohort: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for module in (
        cohort_module,
        evaluation,
        growth_samples,
        risk_evaluation,
        risk_network_training,
        risk_training,
    ):
        for name in ("read_case", "read_baseline"):
            monkeypatch.setattr(module, name, no_work, raising=False)
    assert run(*arguments.split(), "--cohort", make_cohort(3), "-o", tmp_path / "out") == 2
    assert sentence in capsys.readouterr().err
