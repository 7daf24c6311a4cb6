"""No command removes a file that is not its own: it refuses before its work begins."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import SimpleITK as sitk
from environment import variables
from HematomaExpansionLib.batch.cases import BatchCase
from HematomaExpansionLib.batch.run import predict_case, run_batch
from HematomaExpansionLib.batch.workers import Workers
from HematomaExpansionLib.cli.main import main
from HematomaExpansionLib.errors import InputError
from HematomaExpansionLib.files.csv_tables import write_rows
from HematomaExpansionLib.files.folders import check_output_folder
from HematomaExpansionLib.models.package import find_package
from HematomaExpansionLib.prediction import PredictionOptions
from phantoms import head_grid, head_image
from test_batch import only_named
from test_folders import OWNER
from test_prediction import refused

if TYPE_CHECKING:
    from HematomaSynthesisLib.simulation.patient import SimulatedPatient

pytestmark = pytest.mark.usefixtures("each_brain_found_once")


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def write(path: Path, text: str = "somebody's") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("head") / "scan.nii.gz"
    sitk.WriteImage(head_image(head_grid((4.0, 4.0, 8.0)), 20.0), str(path))
    return path


def test_preparing_beside_the_raw_scans_leaves_them(
    head: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folders of the raw scans are named like the cases."""
    studies = tmp_path / "studies"
    for name in ("baseline.nii.gz", "followup.nii.gz"):
        (studies / "P1").mkdir(parents=True, exist_ok=True)
        shutil.copy(head, studies / "P1" / name)
    write(studies / "list.csv", "case,baseline,followup\nP1,P1/baseline.nii.gz,P1/followup.nii.gz\n")
    before = files(studies)
    arguments = ["prepare", "--pairs", str(studies / "list.csv"), "-o", str(studies)]
    assert "holds other files" in refused(capsys, *arguments, "--segmenter", "threshold")
    assert files(studies) == before


def test_preparing_again_replaces_its_own_cases_alone(
    head: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = tmp_path / "cohort"
    write(tmp_path / "list.csv", f"case,baseline,followup\nP1,{head},{head}\n")
    arguments = ["prepare", "--pairs", str(tmp_path / "list.csv"), "-o", str(cohort), "--segmenter", "threshold"]
    assert main(arguments) == 0
    assert main([*arguments, "--source", "tests"]) == 0
    assert json.loads((cohort / "P1" / "case.json").read_text())["source"] == "tests"
    shutil.copy(head, cohort / "P1" / "baseline-mask.nii.gz")  # corrected by hand
    before = files(cohort)
    assert "changed since they were written" in refused(capsys, *arguments)
    shutil.rmtree(cohort / "P1")
    write(cohort / "prepared.csv", "case,prepared,comment\nP1,True,mine\n")
    assert "prepared.csv" in refused(capsys, *arguments)
    assert (cohort / "prepared.csv").read_text().endswith("mine\n")
    assert before.keys() - files(cohort).keys() == {name for name in before if name.startswith("P1/")}


@dataclass(frozen=True)
class Row:
    case: str
    value: int


def test_a_table_replaces_one_of_its_kind_alone(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    for value in (1, 2):
        write_rows(Row, [Row("P1", value)], table)
    with table.open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"case": "P1", "value": "2"}]
    for other in ("case,value,comment\nP1,1,mine\n", "", "\xff\xfe"):
        table.write_text(other, encoding="latin-1")
        with pytest.raises(InputError, match=r"a different table\.csv"):
            write_rows(Row, [], table)
        assert table.read_text(encoding="latin-1") == other
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_a_batch_leaves_folders_that_are_not_its_own(
    head: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    studies = tmp_path / "studies"
    (studies / "P1").mkdir(parents=True)
    shutil.copy(head, studies / "P1" / "scan.nii.gz")
    write(studies / "list.csv", "case,scan\nP1,P1/scan.nii.gz\n")
    before = files(studies)
    for resume in ((), ("--resume",)):
        arguments = ["batch", "-i", str(studies / "list.csv"), "-o", str(studies), *resume]
        assert "other files" in refused(capsys, *arguments)
    options = PredictionOptions(
        find_package(None, "growth"), None, find_package(None, "forecast"), device_name="cpu"
    )
    row = predict_case(options, studies, BatchCase("P1", studies / "P1" / "scan.nii.gz"))
    assert row.status == "failed"
    assert "other files" in row.reason
    assert files(studies) == before


def test_a_batch_leaves_the_scratch_of_another_run_that_is_alive(tmp_path: Path) -> None:
    """Such as that of a prediction into a folder beside its cases."""
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    with subprocess.Popen(
        command, env=variables(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        scratch = Path(other.stdout.readline().strip())
        run_batch(
            [BatchCase("P1", tmp_path)],
            tmp_path,
            PredictionOptions(find_package(None, "growth"), None, find_package(None, "forecast")),
            Workers(1, ThreadPoolExecutor),
            predict_one=only_named,
        )
        assert (scratch / "ct.nii.gz").is_file()
        other.kill()
    check_output_folder(tmp_path / "new", "prediction")
    assert [path.name for path in tmp_path.iterdir()] == ["results.csv"]


def test_a_table_of_results_that_somebody_has_extended_is_not_written_over(
    head: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write(tmp_path / "out" / "results.csv", "case,status,comment\nP1,done,look again\n")
    write(tmp_path / "list.csv", f"case,scan\nP1,{head}\n")
    arguments = ["batch", "-i", str(tmp_path / "list.csv"), "-o", str(tmp_path / "out"), "--resume"]
    assert "a different results.csv" in refused(capsys, *arguments)
    assert "look again" in table.read_text()


def test_a_mask_is_not_written_over_a_file_that_is_there(
    head: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = Path(shutil.copy(head, tmp_path / "scan.nii.gz"))
    before = files(tmp_path)
    assert "exists already" in refused(capsys, "segment", "-i", str(scan), "-o", str(scan))
    assert "must end in" in refused(capsys, "segment", "-i", str(scan), "-o", str(tmp_path / "mask.png"))
    below = str(scan / "mask.nii.gz")
    assert "a file is in the way" in refused(capsys, "segment", "-i", str(scan), "-o", below)
    assert files(tmp_path) == before


def test_a_comparison_does_not_replace_a_prediction(
    case_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note = write(tmp_path / "result" / "prediction.json")
    scans = [
        "--baseline",
        str(case_folder / "baseline.nii.gz"),
        "--followup",
        str(case_folder / "followup.nii.gz"),
    ]
    assert "other files" in refused(capsys, "compare", *scans, "-o", str(note.parent))
    assert note.is_file()


Command = Callable[[str], list[str]]


@pytest.mark.parametrize(
    "command",
    [
        lambda cohort: ["train", "segmentation", "--cohort", cohort, "--epochs", "1"],
        lambda cohort: ["train", "growth", "--cohort", cohort, "--epochs", "1"],
        lambda cohort: ["train", "risk", "--cohort", cohort],
        lambda cohort: ["adapt", "segmentation-compact", "--cohort", cohort, "--statistics-only"],
        lambda cohort: ["correct", "segmentation-compact", "--cohort", cohort],
        lambda cohort: ["evaluate", "growth", "--cohort", cohort],
        lambda cohort: ["evaluate", "segmentation", "--cohort", cohort],
        lambda cohort: ["evaluate", "risk", "--cohort", cohort],
        lambda cohort: ["evaluate", "markers", "--cohort", cohort],
        lambda cohort: ["distributions", "--cohort", cohort],
        lambda cohort: [
            "synthesize", "-i", f"{cohort}/patient/baseline.nii.gz",
            "--mask", f"{cohort}/patient/baseline-mask.nii.gz",
        ],
    ],
)  # fmt: skip
def test_a_folder_with_other_files_is_refused_before_the_work(
    command: Command, case_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    thesis = write(tmp_path / "mine" / "thesis.txt")
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "patient").symlink_to(case_folder)
    sentence = refused(capsys, *command(str(tmp_path / "cohort")), "-o", str(thesis.parent))
    assert "holds other files" in sentence
    assert list(files(thesis.parent)) == ["thesis.txt"]


def test_variants_that_somebody_made_are_left(
    case_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = shutil.copytree(case_folder, tmp_path / "cohort" / "P1")
    write(case / "variants" / "1" / "baseline.nii.gz")
    before = files(case)
    assert main(["synthesize", "--cohort", str(case.parent), "--variants", "1", "--jobs", "1"]) == 0
    assert "P1: left unchanged. The output folder holds other files" in capsys.readouterr().out
    assert files(case) == before


def test_simulated_patients_of_other_options_replace_each_other_and_nothing_else(
    patient: SimulatedPatient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from HematomaSynthesisLib.simulation import cohort

    made: list[int] = []

    def once_made(seed: int, number: int, *options: object) -> SimulatedPatient:
        made.append(number)
        return replace(patient, description={"made": len(made)})

    monkeypatch.setattr(cohort, "simulate_patient", once_made)
    arguments = ["simulate", "-n", "1", "--seed", "1", "-o", str(tmp_path), "--matrix"]
    case = tmp_path / "simulated-1-0001"
    for matrix, times in (("96", 1), ("96", 1), ("64", 2)):
        assert main([*arguments, matrix]) == 0
        assert json.loads((case / "case.json").read_text()) == {"made": times}
    write(case / "note.txt")
    before = files(case)
    assert "other files" in refused(capsys, *arguments, "96")
    assert files(case) == before
    assert len(made) == 2
