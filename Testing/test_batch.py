"""Many scans in one run: what is found in a folder, what each row says, and what a kill or a crash leaves."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from environment import variables
from HematomaExpansionLib.batch.cases import BatchCase, find_cases
from HematomaExpansionLib.batch.rows import DONE, UNEXPECTED, WORKER_DIED, CaseRow
from HematomaExpansionLib.batch.run import predict_case, run_batch
from HematomaExpansionLib.batch.workers import Workers, local_workers
from HematomaExpansionLib.cli.main import main
from HematomaExpansionLib.errors import InputError
from HematomaExpansionLib.files.folders import OWNER_FILE
from HematomaExpansionLib.markers.scores import ClinicalData, markers_text
from HematomaExpansionLib.models.package import find_package
from HematomaExpansionLib.prediction import PredictionOptions
from phantoms import head_grid, head_image, write_dicom_series, write_slices
from test_prediction import FILES

GRID = head_grid((4.0, 4.0, 8.0))
Table = dict[str, dict[str, str]]


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "HematomaExpansionLib", *map(str, arguments)]


def batch(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command in its own process, with the segmentation method that needs no weights."""
    return subprocess.run(
        command("batch", *arguments, "--segmenter", "threshold"),
        env=variables(),
        capture_output=True,
        text=True,
        check=False,
    )


def read_table(output: Path) -> Table:
    with (output / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert not rows or list(rows[0]) == [field.name for field in fields(CaseRow)]
    return {row["case"]: row for row in rows}


def write_head(path: Path, sphere_mm: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(head_image(GRID, sphere_mm), str(path))
    return path


def write_cut_off(path: Path, whole: Path) -> None:
    path.write_bytes(whole.read_bytes()[:2000])


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Run ``hematoma batch``, which must end with status 2; returns its one sentence."""
    assert main(["batch", *map(str, arguments)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].endswith(".")
    return lines[0]


# --- a folder of mixed scans --------------------------------------------------------------------------

# By path, in alphabetical order.
WITHOUT_BLEED, CUT, GARBAGE, ONE, THREE, TWO = (f"case-000{number}" for number in range(1, 7))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scans of all kinds and files that are not scans, with an earlier prediction among them."""
    folder = tmp_path_factory.mktemp("batch") / "scans"
    scan = write_head(folder / "one" / "baseline CT.nii.gz", 20.0)
    write_dicom_series(head_image(GRID, 20.0), folder / "two", PatientName="Doe^Jane", PatientID="4711")
    series = folder / "MÜLLER-archive" / "Erika_1950-02-01"
    write_dicom_series(
        head_image(GRID), series, PatientName="Mueller^Erika", PatientID="ID-471108", PatientBirthDate="19500201"
    )
    write_head(folder / "three" / "head.mha", 20.0)
    ball = head_image(GRID, 15.0, noise_hu=0.0) == 65
    sitk.WriteImage(ball, str(folder / "three" / "head-mask.nrrd"))
    write_cut_off(folder / "cut.nii.gz", scan)
    (folder / "garbage.mha").write_bytes(b"no image at all")
    (folder / "notes.txt").write_text("passed over")
    write_head(folder / ".hidden" / "scan.nii.gz", 20.0)
    return folder


@pytest.fixture(scope="module")
def mixed_run(mixed: Path) -> tuple[subprocess.CompletedProcess[str], Path]:
    """The run over that folder, with the output inside the input."""
    predicted = mixed / "one" / "predicted"
    options = ["--segmenter", "threshold", "--expansion-definition", "12.5ml"]
    assert main(["predict", "-i", str(mixed / "one" / "baseline CT.nii.gz"), "-o", str(predicted), *options]) == 0
    output = mixed / "results"
    return batch("-i", mixed, "-o", output, "--jobs", "2", "--expansion-definition", "12.5ml"), output


MixedRun = tuple[subprocess.CompletedProcess[str], Path]


def test_each_scan_has_its_row_and_its_folder(mixed_run: MixedRun) -> None:
    done, output = mixed_run
    assert done.returncode == 0, done.stderr
    table = read_table(output)
    expected = {
        WITHOUT_BLEED: "done",
        CUT: "failed",
        GARBAGE: "failed",
        ONE: "done",
        THREE: "done",
        TWO: "done",
    }
    assert {name: row["status"] for name, row in table.items()} == expected
    assert {path.name for path in output.iterdir()} == {
        "results.csv", "cases-private.csv", *(name for name, status in expected.items() if status == "done")
    }  # fmt: skip
    for name in (ONE, TWO, THREE):
        assert {path.name for path in (output / name).iterdir()} == FILES
    assert "damaged or cut off" in table[CUT]["reason"]
    for name in (CUT, GARBAGE):
        assert f"{name}: {table[name]['reason']}" in done.stdout
    assert "cases-private.csv says which case is which scan. Keep it private" in done.stdout
    assert "4 of 6 cases predicted, 0 of them more likely to expand than not; 2 failed." in done.stdout
    assert done.stdout.endswith("Research use only.\n")


def test_the_volumes_are_those_of_predict(mixed_run: MixedRun, mixed: Path) -> None:
    row = read_table(mixed_run[1])[ONE]
    result = json.loads((mixed / "one" / "predicted" / "prediction.json").read_text())
    for column, value in {
        "baseline_ml": result["baseline"]["volume_ml"],
        "abc2_ml": result["baseline"]["abc2_ml"],
        "followup_ml": result["followup"]["volume_ml"],
        "probability_of_expansion": result["forecast"]["probability_of_expansion"],
        "probability_low": result["forecast"]["probability_low"],
        "volume_ml_10": result["forecast"]["volume_ml"]["10"],
        "volume_ml_90": result["forecast"]["volume_ml"]["90"],
        "if_expands_ml": result["forecast"]["if_expands"]["volume_ml"],
        "if_expands_ml_high": result["forecast"]["if_expands"]["high"],
        "growth_ml": result["growth"]["absolute_ml"],
        "growth_relative": result["growth"]["relative"],
    }.items():
        assert float(row[column]) == pytest.approx(value, rel=1e-4), column
    assert row["definition"] == result["forecast"]["definition"] == "growth > 12.5 mL or > 33 % of baseline"
    assert row["probability_source"] == result["forecast"]["source"]
    assert row["detectable"] == str(result["growth"]["detectable"])
    assert row["markers"] == markers_text(result["markers"])
    bat = result["scores"]["bat"]
    assert (row["bat_low"], row["bat_high"]) == (str(bat["total_if_late"]), str(bat["total_if_early"]))
    assert (row["mask"], row["onset_hours"], row["warnings"]) == ("automatic", "", "")
    assert float(row["seconds"]) > 0
    two = read_table(mixed_run[1])[TWO]
    assert float(two["baseline_ml"]) == pytest.approx(float(row["baseline_ml"]), rel=0.01)


def test_a_mask_beside_its_scan_is_used(mixed_run: MixedRun, mixed: Path) -> None:
    row = read_table(mixed_run[1])[THREE]
    voxels = np.count_nonzero(sitk.GetArrayFromImage(sitk.ReadImage(str(mixed / "three" / "head-mask.nrrd"))))
    assert row["mask"] == "given"
    assert float(row["baseline_ml"]) == pytest.approx(voxels * 0.128)


def test_a_head_without_a_bleed_is_done_and_says_so(mixed_run: MixedRun) -> None:
    row = read_table(mixed_run[1])[WITHOUT_BLEED]
    assert row["status"] == DONE
    assert float(row["baseline_ml"]) == 0
    assert {
        row[name]
        for name in (
            "followup_ml",
            "growth_ml",
            "probability_of_expansion",
            "volume_ml_50",
            "definition",
            "markers",
        )
    } == {""}
    assert "No hematoma was found" in row["warnings"]


def test_nothing_written_or_printed_names_the_patient_or_a_path(mixed_run: MixedRun, mixed: Path) -> None:
    done, output = mixed_run
    everything = [done.stdout.replace(str(output), "").encode(), done.stderr.encode()]
    for path in output.rglob("*"):
        if path.name == "cases-private.csv":
            assert path.stat().st_mode & 0o077 == 0
            assert "MÜLLER-archive/Erika_1950-02-01" in path.read_text(encoding="utf-8")
            continue
        everything.append(str(path.relative_to(output)).encode())
        if path.is_file():
            content = path.read_bytes()
            everything.append(gzip.decompress(content) if path.suffix == ".gz" else content)
    secrets = ("mueller", "m\u00fcller", "erika", "471108", "19500201", "1950-02-01", str(mixed.parent).lower())
    hashed = [hashlib.sha256(name.encode()).hexdigest()[:8] for name in ("MÜLLER-archive/Erika_1950-02-01", "two")]
    for secret in (*secrets, "baseline ct", "baseline_ct", "three-head", *hashed):
        assert not any(secret.encode() in content.lower() for content in everything), secret


# --- finding the cases --------------------------------------------------------------------------------


def write_series(folder: Path, **tags: str) -> None:
    plane = np.zeros((4, 4), np.int16)
    write_slices([(np.zeros(3), plane)], np.eye(3)[0], np.eye(3)[1], (1.0, 1.0), folder, **tags)


def names(cases: Sequence[BatchCase]) -> list[str]:
    return [case.name for case in cases]


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_cases_of_a_folder_are_numbered_and_keep_their_numbers(tmp_path: Path) -> None:
    scans, output = tmp_path / "scans", tmp_path / "out"
    for place in ("Doe_Jane/b.nii", "a-b.nrrd", "山田.nii", f"{'l' * 120}.nii", 'comma, "quote"\nline.nii'):
        touch(scans / place)
    output.mkdir()
    found = find_cases(scans, output)
    assert names(found) == [f"case-000{number}" for number in range(1, 6)]
    assert found == find_cases(scans, output)  # nothing has been written yet
    run_batch(found, output, options(), Workers(1, ThreadPoolExecutor), predict_one=only_named)
    (scans / "a-b.nrrd").unlink()
    touch(scans / "Aaron.nii")  # the first by path
    again = find_cases(scans, output)
    places = {case.place: case.name for case in found}
    assert {case.place: case.name for case in again} == {
        **{place: name for place, name in places.items() if place != "a-b.nrrd"},
        "Aaron.nii": "case-0006",
    }
    run_batch(again, output, options(), Workers(1, ThreadPoolExecutor), predict_one=only_named)
    touch(scans / "a-b.nrrd")
    assert {case.place: case.name for case in find_cases(scans, output)} == {**places, "Aaron.nii": "case-0006"}


def test_numbers_that_are_lost_or_changed_are_not_given_to_others(tmp_path: Path) -> None:
    scans, output = tmp_path / "scans", tmp_path / "out"
    for name in ("a.nii", "b.nii"):
        touch(scans / name)
    output.mkdir()
    cases = find_cases(scans, output)
    run_batch(cases, output, options(), Workers(1, ThreadPoolExecutor), predict_one=only_named)
    private = output / "cases-private.csv"
    kept = private.read_text()
    for changed in ("", kept.replace("case-0002", "case-two"), kept.replace("b.nii", "a.nii")):
        private.write_text(changed)
        with pytest.raises(InputError, match="was changed"):
            find_cases(scans, output)
    private.unlink()
    touch(output / "case-0002" / "prediction.json")
    with pytest.raises(InputError, match="is missing there"):
        find_cases(scans, output)
    private.write_text(kept.replace("a.nii", "c.nii"))
    with pytest.raises(InputError, match="numbered the cases in that folder in the meantime"):
        run_batch(cases, output, options(), Workers(1, ThreadPoolExecutor), predict_one=only_named)


def test_masks_are_no_cases(tmp_path: Path) -> None:
    for name in (
        "x.nii.gz",
        "x-mask.nii.gz",
        "y.nrrd",
        "y_Mask.mha",
        "z-mask.nii",
        "-mask.nii",
        "v.nii",
        "v.seg.nrrd",
    ):
        touch(tmp_path / name)
    write_series(tmp_path / "series")
    touch(tmp_path / "series-mask.nii.gz")
    cases = {case.scan.name: case.mask and case.mask.name for case in find_cases(tmp_path, tmp_path / "out")}
    assert cases == {
        "x.nii.gz": "x-mask.nii.gz",
        "y.nrrd": "y_Mask.mha",
        "z-mask.nii": None,
        "-mask.nii": None,
        "series": "series-mask.nii.gz",
        "v.nii": "v.seg.nrrd",
    }


def test_every_folder_with_dicom_files_is_a_case(tmp_path: Path) -> None:
    write_series(tmp_path / "a")
    write_series(tmp_path / "a" / "scout")
    touch(tmp_path / "a" / "predicted" / "prediction.json")
    touch(tmp_path / "a" / "predicted" / "followup-ct.nii.gz")
    (tmp_path / "a" / "again").symlink_to(tmp_path, target_is_directory=True)
    cases = find_cases(tmp_path, tmp_path / "out")
    assert [case.place for case in cases] == ["a", "a/scout"]
    assert not any(case.subfolders for case in cases)
    assert [case.place for case in find_cases(tmp_path / "a", tmp_path / "out")] == [".", "scout"]


def test_dicom_files_are_known_by_what_they_hold(tmp_path: Path) -> None:
    """Even without preamble, meta header and suffix; a file that merely begins like DICOM is not one."""
    for name in ("without-preamble", "data-set-alone"):
        write_series(tmp_path / name)
        (file,) = (tmp_path / name).iterdir()
        content = file.read_bytes()
        group_bytes = 144 + int.from_bytes(content[140:144], "little")  # its first element gives its length
        skipped = 132 if name == "without-preamble" else group_bytes
        file.rename(file.with_name("IM0")).write_bytes(content[skipped:])
    for name, content in (("text", b"notes of a study"), ("bytes", b"\x08\x00 no such thing"), ("nothing", b"")):
        touch(tmp_path / name / "IM0")
        (tmp_path / name / "IM0").write_bytes(content)
    found = find_cases(tmp_path, tmp_path / "out")
    assert [case.place for case in found] == ["data-set-alone", "without-preamble"]


def test_a_list_names_its_cases(tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    table.write_text(
        "case,scan,mask,onset_hours,warfarin,recurrent\nP1,a.nii,m.nii,2.5,Yes,no\nP2,series,,,,\n",
        encoding="utf-8-sig",
    )
    assert find_cases(table, tmp_path / "out") == [
        BatchCase("P1", tmp_path / "a.nii", tmp_path / "m.nii", 2.5, ClinicalData(False, True, None)),
        BatchCase("P2", tmp_path / "series"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,scan\n", "list of cases is empty"),
        ("case,path\nP1,a.nii\n", "lacks case or scan"),
        ("case,scan\nJohn Doe,a\n", "should not be the patient's"),
        ("case,scan\n../P1,a\n", "should not be the patient's"),
        ("case,scan\nP1,a\np1,b\n", "same case"),
        ("case,scan,warfarin\nP1,a,perhaps\n", "neither yes nor no"),
        ("case,scan,onset_hours\nP1,a,soon\n", "not a number"),
        ("case,scan\nResults.csv,a\n", "rename it"),
    ],
)
def test_a_faulty_list_gets_a_sentence(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        find_cases(tmp_path / "list.csv", tmp_path / "out")


def test_what_cannot_be_right_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scans, output = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    arguments = ("-i", scans, "-o", output)
    assert "holds no scans" in refused(capsys, *arguments)
    assert "does not exist" in refused(capsys, "-i", tmp_path / "absent", "-o", output)
    touch(tmp_path / "scan.nii.gz")
    assert "hematoma predict" in refused(capsys, "-i", tmp_path / "scan.nii.gz", "-o", output)
    assert "jobs" in refused(capsys, *arguments, "--jobs", "-1")
    assert "no device" in refused(capsys, *arguments, "--device", "gpu")
    assert "other files" in refused(capsys, "-i", scans, "-o", tmp_path)
    assert "is a file" in refused(capsys, "-i", scans, "-o", tmp_path / "scan.nii.gz")
    touch(output / "P1" / "prediction.json")
    assert "--resume" in refused(capsys, *arguments)
    touch(output / "results.csv")
    assert "--resume" in refused(capsys, *arguments)


# --- resuming -----------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="signals differ")
def test_a_killed_run_is_resumed_where_it_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = write_head(tmp_path / "head.nii.gz", 0.0)
    write_cut_off(tmp_path / "bad.nii.gz", head)
    cases = {"bad": "bad.nii.gz", **{f"P{number}": head.name for number in range(1, 5)}}
    listed = "".join(f"{case},{scan},3,yes,no,no\n" for case, scan in cases.items())
    columns = "case,scan,onset_hours,warfarin,recurrent,intraventricular\n"
    (tmp_path / "list.csv").write_text(columns + listed)
    output = tmp_path / "out"
    arguments = ["-i", str(tmp_path / "list.csv"), "-o", str(output), "--jobs", "1"]
    with subprocess.Popen(
        command("batch", *arguments, "--segmenter", "threshold"), env=variables(), stdout=subprocess.DEVNULL
    ) as run:
        deadline = time.monotonic() + 120
        while not (output / "P2").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
    killed = read_table(output)
    assert list(killed) in (["bad", "P1"], ["bad", "P1", "P2"])  # in order, and complete
    assert killed["bad"]["status"] == "failed"
    finished = {path: path.stat().st_mtime_ns for path in output.glob("P*/*")}
    assert finished
    touch(output / ".unfinished-1" / "new" / "prediction.json")
    touch(output / ".unfinished-1" / OWNER_FILE)
    shutil.copy(head, tmp_path / "bad.nii.gz")  # exported again
    sentence = "Resume with the same"
    resume = (*arguments, "--resume")
    assert sentence in refused(capsys, *resume)  # another segmenter
    for other in (",,yes", ",3,no"):  # another time from onset, other clinical data
        (tmp_path / "list.csv").write_text(columns + listed.replace(",3,yes", other))
        assert sentence in refused(capsys, *resume, "--segmenter", "threshold")
    (tmp_path / "list.csv").write_text(columns + listed)

    done = batch(*resume, "--json-progress")
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert {path.name for path in output.iterdir()} == {"results.csv", *cases}
    table = read_table(output)
    assert list(table) == list(cases)
    assert {(row["status"], row["onset_hours"]) for row in table.values()} == {("done", "3.0")}
    assert {name: table[name] for name in killed if name != "bad"} == {
        name: row for name, row in killed.items() if name != "bad"
    }
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["stage"] for line in lines} == {"cases", "done"}
    fractions = [line["fraction"] for line in lines]
    assert fractions == sorted(fractions)
    assert fractions[0] >= 0.2
    assert fractions[-1] == 1


# --- running ------------------------------------------------------------------------------------------


def options() -> PredictionOptions:
    return PredictionOptions(
        growth=find_package(None, "growth"),
        segmenter=None,
        forecast=find_package(None, "forecast"),
        device_name="cpu",
    )


def only_named(options: PredictionOptions, output: Path, case: BatchCase) -> CaseRow:
    """Stands in for a prediction; one case ends its worker."""
    if case.name == "deadly":
        (output / ".unfinished-deadly").mkdir(exist_ok=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return CaseRow(case.name, DONE)


@pytest.mark.skipif(os.name == "nt", reason="signals differ")
def test_a_worker_that_dies_takes_no_other_case_along(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    found = ["P0", "P1", "deadly", "P3", "P4", "P5"]
    cases = [BatchCase(name, tmp_path) for name in found]
    rows = run_batch(cases, output, options(), local_workers(2), predict_one=only_named)
    assert [row.case for row in rows] == found
    assert [row.case for row in rows if row.status != DONE] == ["deadly"]
    assert rows[2].reason == WORKER_DIED
    assert rows[2].unforeseen
    assert list(read_table(output)) == found
    assert [path.name for path in output.iterdir()] == ["results.csv"]


def started_again(options: PredictionOptions, output: Path, case: BatchCase) -> CaseRow:
    """Stands in for a prediction, during which someone starts the same run again."""
    with pytest.raises(InputError, match="Another run is writing"):
        run_batch([case], output, options, local_workers(1), predict_one=only_named)
    return CaseRow(case.name, DONE)


def test_two_runs_into_one_folder_do_not_destroy_each_other(tmp_path: Path) -> None:
    cases = [BatchCase("P0", tmp_path)]
    for _ in range(2):  # the first leaves nothing in the way of the second
        (row,) = run_batch(cases, tmp_path, options(), local_workers(1), predict_one=started_again)
        assert (row.case, row.status) == ("P0", DONE)
        assert [path.name for path in tmp_path.iterdir()] == ["results.csv"]


def test_workers_of_another_kind_can_be_used(tmp_path: Path) -> None:
    cases = [BatchCase(f"P{number}", tmp_path) for number in range(5)]
    output = tmp_path / "out"
    output.mkdir()
    rows = run_batch(cases, output, options(), Workers(1, ThreadPoolExecutor), predict_one=only_named)
    assert [row.case for row in rows] == [f"P{number}" for number in range(5)]


def test_a_table_that_is_open_elsewhere_is_written_when_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables: list[Sequence[CaseRow]] = []

    def write_rows(kind: type, rows: Sequence[CaseRow], path: Path) -> None:
        tables.append(rows)
        if len(tables) in (2, 3):
            raise InputError("The table could not be written.")

    monkeypatch.setattr("HematomaExpansionLib.batch.run.write_rows", write_rows)
    cases = [BatchCase("P1", tmp_path), BatchCase("P2", tmp_path)]
    rows = run_batch(cases, tmp_path, options(), Workers(1, ThreadPoolExecutor), predict_one=only_named)
    assert tables[-1] == rows == [CaseRow("P1", DONE), CaseRow("P2", DONE)]


def test_an_error_that_nobody_foresaw_is_a_row_without_its_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("Mueller^Erika /home/archive")

    def need_memory(*arguments: object, **options: object) -> None:
        raise MemoryError

    case = BatchCase("P1", tmp_path / "scan.nii.gz", onset_hours=2.0)
    for failure, reason in ((fail, UNEXPECTED), (need_memory, WORKER_DIED)):
        monkeypatch.setattr("HematomaExpansionLib.batch.run.read_head_ct", failure)
        row = predict_case(options(), tmp_path, case)
        assert (row.status, row.reason, row.onset_hours, row.mask) == ("failed", reason, 2.0, "automatic")
    row = predict_case(options(), tmp_path, BatchCase("P1", tmp_path, onset_hours=-1.0))
    assert "between 0 and 336" in row.reason


def test_a_run_in_which_nothing_succeeds_has_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list.csv").write_text("case,scan\nP1,absent.nii.gz\nP2,.\n")
    output = tmp_path / "out"
    assert "None of the cases" in refused(capsys, "-i", tmp_path / "list.csv", "-o", output, "--jobs", "1")
    table = read_table(output)
    assert "does not exist" in table["P1"]["reason"]
    assert "no DICOM" in table["P2"]["reason"]


# --- endurance ----------------------------------------------------------------------------------------


def predict_and_weigh(options: PredictionOptions, output: Path, case: BatchCase) -> CaseRow:
    """Predict, and write beside the result the worker's peak memory so far, in KiB."""
    import resource

    row = predict_case(options, output, case)
    with (output.parent / "memory.txt").open("a") as file:
        file.write(f"{os.getpid()} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}\n")
    return row


@pytest.mark.slow
def test_memory_stays_flat_over_many_scans(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    heads = [write_head(tmp_path / f"{sphere_mm}.nii.gz", sphere_mm) for sphere_mm in (0.0, 14.0, 18.0, 22.0)]
    cases = [BatchCase(f"P{number:03d}", heads[number % len(heads)]) for number in range(200)]
    output = tmp_path / "out"
    output.mkdir()
    rows = run_batch(cases, output, options(), local_workers(2), predict_one=predict_and_weigh)
    assert {row.status for row in rows} == {DONE}
    assert len(read_table(output)) == len(list(output.glob("P*/prediction.json"))) == 200
    memory = defaultdict(list)
    for number, line in enumerate((tmp_path / "memory.txt").read_text().splitlines()):
        worker, kib = line.split()
        memory[worker].append((number, int(kib)))
    assert len(memory) == 2
    for weights in memory.values():
        after_50 = max(kib for number, kib in weights if number < 50)
        assert weights[-1][1] < 1.1 * after_50
