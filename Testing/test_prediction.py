"""The pipeline from file to folder, as a user runs it."""

from __future__ import annotations

import gzip
import json
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from HematomaExpansionLib.cli.main import main
from HematomaExpansionLib.errors import DeviceError
from HematomaExpansionLib.growth.warping import smallest_jacobian, warp_mask
from HematomaExpansionLib.measures.agreement import dice
from HematomaExpansionLib.models.package import find_package
from HematomaExpansionLib.prediction import PredictionOptions
from HematomaExpansionLib.prediction import predict as predict_scan
from HematomaExpansionLib.scan.grid import Grid, image_on
from HematomaExpansionLib.scan.head_ct import read_head_ct
from HematomaExpansionLib.scan.mask import Mask
from HematomaExpansionLib.scan.mask_files import read_mask
from phantoms import volume_ml

if TYPE_CHECKING:
    from HematomaSynthesisLib.simulation.patient import SimulatedPatient

pytestmark = pytest.mark.usefixtures("each_brain_found_once")

FILES = {
    "growth-probability.nii.gz",
    "prediction.json",
    "baseline-mask.nii.gz",
    "bleeds.nii.gz",
    "followup-mask.nii.gz",
    "followup-ct.nii.gz",
    "displacement.nii.gz",
    "overlay.png",
    "report.pdf",
    "provenance.json",
}


def predict(scan: Path, output: Path, *options: str) -> dict[str, Any]:
    """Run the command and return its result."""
    assert main(["predict", "-i", str(scan), "-o", str(output), *options]) == 0
    result: dict[str, Any] = json.loads((output / "prediction.json").read_text())
    return result


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must end with status 2; returns its one sentence."""
    assert main(list(arguments)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("hematoma: ")
    assert lines[0].endswith(".")
    return lines[0]


def array(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


@pytest.fixture(scope="module")
def predicted(case_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result for the simulated patient from the true mask."""
    output = tmp_path_factory.mktemp("predicted") / "result"
    predict(case_folder / "baseline.nii.gz", output, "--mask", str(case_folder / "baseline-mask.nii.gz"))
    return output


def test_every_file_is_there_and_lies_on_the_scans_own_grid(predicted: Path, case_folder: Path) -> None:
    assert {path.name for path in predicted.iterdir()} == FILES
    assert list(predicted.parent.iterdir()) == [predicted]
    scan = Grid.of(sitk.ReadImage(str(case_folder / "baseline.nii.gz")))
    for name in FILES:
        if name.endswith(".nii.gz"):
            assert Grid.of(sitk.ReadImage(str(predicted / name))).is_same(scan), name


def test_the_result_says_what_the_files_hold(predicted: Path) -> None:
    result = json.loads((predicted / "prediction.json").read_text())
    assert result["research_use_only"] is True
    assert set(result) >= {
        "software", "input", "baseline", "bleeds", "forecast", "followup", "growth", "risk", "markers", "scores",
        "models", "timing_s", "device"
    }  # fmt: skip
    assert result["format"] == 2
    assert set(result["timing_s"]) >= {"read", "brain", "segmentation", "growth", "total"}
    baseline, followup = (
        sitk.ReadImage(str(predicted / f"{name}-mask.nii.gz")) for name in ("baseline", "followup")
    )
    assert result["baseline"]["volume_ml"] == pytest.approx(volume_ml(baseline))
    assert result["followup"]["volume_ml"] == pytest.approx(volume_ml(followup))
    growth = result["growth"]
    assert growth["absolute_ml"] == pytest.approx(volume_ml(followup) - volume_ml(baseline))
    assert growth["relative"] == pytest.approx(volume_ml(followup) / volume_ml(baseline) - 1)
    assert growth["absolute_ml"] > 6 or growth["relative"] > 0.33, "it is the outcome if the hematoma expands"
    forecast = result["forecast"]
    assert set(forecast) >= {
        "probability_of_expansion", "probability_low", "probability_high", "source", "definition", "evidence",
        "volume_ml", "if_expands"
    }  # fmt: skip
    assert list(forecast["volume_ml"]) == ["10", "25", "50", "75", "90"]
    voxel_ml = float(np.prod(baseline.GetSpacing())) / 1000
    assert forecast["if_expands"]["volume_ml"] == pytest.approx(result["followup"]["volume_ml"], abs=voxel_ml)
    probability = array(predicted / "growth-probability.nii.gz")
    assert probability.sum(dtype=np.float64) * voxel_ml == pytest.approx(forecast["expected_ml"], rel=2e-3)
    if_expands = array(predicted / "followup-mask.nii.gz") > 0
    assert probability[if_expands].min() > probability[~if_expands].max() - 1e-6, (
        "larger outcomes hold smaller ones"
    )
    for task in ("segmentation", "growth", "forecast"):
        assert set(result["models"][task]) >= {"name", "version", "sha256"}
    assert result["models"]["segmentation"]["name"] == "user mask"
    assert {"hypodensity", "swirl", "blend", "island"} <= set(result["markers"])
    assert {"present", "probability", "evidence", "place_mm"} == set(result["markers"]["swirl"])
    assert result["scores"]["bat"]["total"] is None, "the onset was not told"


def test_the_users_mask_is_used_as_it_is(predicted: Path, case_folder: Path) -> None:
    np.testing.assert_array_equal(
        array(predicted / "baseline-mask.nii.gz"), array(case_folder / "baseline-mask.nii.gz")
    )


def test_the_written_field_carries_baseline_onto_followup_without_folding(
    predicted: Path, case_folder: Path
) -> None:
    field = sitk.ReadImage(str(predicted / "displacement.nii.gz"))
    moved = warp_mask(Mask(sitk.ReadImage(str(predicted / "baseline-mask.nii.gz"))), field)
    followup = array(predicted / "followup-mask.nii.gz") > 0
    # Outcomes are nested, so the mask keeps blood that the field alone would move away.
    assert dice(moved.voxels, followup) > 0.98
    assert smallest_jacobian(field) > 0
    ct = array(predicted / "followup-ct.nii.gz")
    baseline = array(case_folder / "baseline.nii.gz")
    untouched = (np.abs(sitk.GetArrayFromImage(field)) < 1e-6).all(axis=-1)
    assert untouched.mean() > 0.5
    np.testing.assert_array_equal(ct[untouched], np.maximum(baseline, -1024)[untouched])


def test_pictures_are_drawn(predicted: Path) -> None:
    from matplotlib.image import imread

    picture = imread(predicted / "overlay.png")
    yellow = (picture[..., 0] > 0.9) & (picture[..., 1] > 0.7) & (picture[..., 2] < 0.3)
    red = (picture[..., 0] > 0.9) & (picture[..., 1] < 0.4) & (picture[..., 2] < 0.5)
    assert yellow.sum() > 200
    assert red.sum() > 200
    report = (predicted / "report.pdf").read_bytes()
    assert report.startswith(b"%PDF")
    assert b"/Count 1 " in report


def test_the_network_finds_the_hematoma(case_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "mask.nii.gz"
    assert main(["segment", "-i", str(case_folder / "baseline.nii.gz"), "-o", str(output)]) == 0
    assert dice(array(output) > 0, array(case_folder / "baseline-mask.nii.gz") > 0) > 0.85


def test_the_threshold_method_finds_it_without_weights(case_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "mask.nrrd"
    scan = str(case_folder / "baseline.nii.gz")
    assert main(["segment", "-i", scan, "-o", str(output), "--segmenter", "threshold"]) == 0
    assert dice(array(output) > 0, array(case_folder / "baseline-mask.nii.gz") > 0) > 0.7


@pytest.mark.parametrize("orientation", ["RAS", "LPI", "PIR"])
def test_the_stored_order_of_the_axes_changes_nothing(
    orientation: str, predicted: Path, case_folder: Path, tmp_path: Path
) -> None:
    for name in ("baseline", "baseline-mask"):
        image = sitk.DICOMOrient(sitk.ReadImage(str(case_folder / f"{name}.nii.gz")), orientation)
        sitk.WriteImage(image, str(tmp_path / f"{name}.nrrd"))
    output = tmp_path / "result"
    result = predict(tmp_path / "baseline.nrrd", output, "--mask", str(tmp_path / "baseline-mask.nrrd"))
    expected = json.loads((predicted / "prediction.json").read_text())
    measured = {key: value for key, value in expected["baseline"].items() if value is not None}
    assert {key: result["baseline"][key] for key in measured} == pytest.approx(measured, rel=1e-5)
    assert result["followup"]["volume_ml"] == pytest.approx(expected["followup"]["volume_ml"], rel=0.005)
    for name, marker in expected["markers"].items():
        found = result["markers"][name]
        assert found["evidence"] == pytest.approx(marker["evidence"], rel=1e-3, abs=1e-3), name
        assert found["present"] == marker["present"]
        assert (found["place_mm"] is None) or found["place_mm"] == pytest.approx(marker["place_mm"], abs=0.01)
    assert result["input"]["size"] == list(sitk.ReadImage(str(tmp_path / "baseline.nrrd")).GetSize())
    own = sitk.ReadImage(str(output / "followup-mask.nii.gz"))
    assert Grid.of(own).is_same(Grid.of(sitk.ReadImage(str(tmp_path / "baseline.nrrd"))))
    back = sitk.GetArrayFromImage(sitk.DICOMOrient(own, "LPS")) > 0
    assert dice(back, array(predicted / "followup-mask.nii.gz") > 0) > 0.995


@pytest.fixture(scope="module")
def healthy_head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated head without a bleed."""
    from HematomaSynthesisLib.simulation.anatomy import icbm_anatomy
    from HematomaSynthesisLib.simulation.causal_model import SimulationOptions, draw_parameters
    from HematomaSynthesisLib.simulation.scanner import acquire

    random = np.random.default_rng(5)
    scanner = draw_parameters(random, SimulationOptions(matrix=192, slice_mm=5.0)).scanner
    head = icbm_anatomy(random)
    path = tmp_path_factory.mktemp("healthy") / "scan.mha"
    sitk.WriteImage(acquire(head.ct, scanner, random), str(path))
    return path


@pytest.mark.parametrize("segmenter", [[], ["--segmenter", "threshold"]], ids=["network", "threshold"])
def test_no_bleed_is_invented(segmenter: list[str], healthy_head: Path, tmp_path: Path) -> None:
    result = predict(healthy_head, tmp_path / "result", *segmenter)
    assert result["baseline"]["volume_ml"] == 0
    assert result["growth"] is None
    assert result["markers"] is None
    assert result["scores"] is None
    assert any("No hematoma was found" in warning for warning in result["input"]["warnings"])
    names = {path.name for path in (tmp_path / "result").iterdir()}
    assert names == FILES - {
        "followup-mask.nii.gz", "followup-ct.nii.gz", "displacement.nii.gz", "growth-probability.nii.gz"
    }  # fmt: skip


def test_nothing_goes_over_the_network_and_no_pickle_is_read(
    case_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pickle

    def forbidden(what: str) -> Callable[..., None]:
        def fail(*arguments: object, **options: object) -> None:
            raise AssertionError(what)

        return fail

    for name in ("socket", "create_connection"):
        monkeypatch.setattr(socket, name, forbidden("a socket was opened"))
    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, forbidden("a pickle was read"))
    predict(case_folder / "baseline.nii.gz", tmp_path / "result")


def test_progress_comes_as_json_lines(
    case_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = str(case_folder / "baseline-mask.nii.gz")
    predict(case_folder / "baseline.nii.gz", tmp_path / "result", "--mask", mask, "--json-progress")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    stages = [line["stage"] for line in lines]
    assert stages == ["read", "brain", "segmentation", "markers", "growth", "write", "done"]
    fractions = [line["fraction"] for line in lines]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_a_run_that_fails_while_writing_leaves_nothing(
    case_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from HematomaExpansionLib.output import prediction_folder

    def fail(*arguments: object) -> None:
        raise RuntimeError("killed")

    monkeypatch.setattr(prediction_folder, "write_image", fail)
    mask = str(case_folder / "baseline-mask.nii.gz")
    with pytest.raises(RuntimeError, match="killed"):
        main(
            [
                "predict",
                "-i",
                str(case_folder / "baseline.nii.gz"),
                "-o",
                str(tmp_path / "out"),
                "--mask",
                mask,
            ]
        )
    assert not list(tmp_path.iterdir())


def test_a_picture_that_cannot_be_drawn_costs_a_warning_and_not_the_numbers(
    case_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from HematomaExpansionLib.output import prediction_folder

    def fail(prediction: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise ValueError("a text of 2,500 characters does not fit the page")

    monkeypatch.setattr(prediction_folder, "write_overlay", fail)
    monkeypatch.setattr(prediction_folder, "write_report", fail)
    mask = str(case_folder / "baseline-mask.nii.gz")
    result = predict(case_folder / "baseline.nii.gz", tmp_path / "result", "--mask", mask)
    told = [f"{name} could not be made; the numbers are not affected." for name in ("overlay.png", "report.pdf")]
    assert result["input"]["warnings"][-2:] == told
    assert result["followup"]["volume_ml"] > 0
    assert {path.name for path in (tmp_path / "result").iterdir()} == FILES - {"overlay.png", "report.pdf"}
    output = capsys.readouterr().out
    assert all(f"Note: {sentence}" in output for sentence in told)


def test_an_earlier_result_is_replaced_and_other_folders_are_not(
    predicted: Path, case_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = shutil.copytree(predicted, tmp_path / "earlier")
    (earlier / "report.pdf").unlink()
    mask = str(case_folder / "baseline-mask.nii.gz")
    predict(case_folder / "baseline.nii.gz", earlier, "--mask", mask)
    assert {path.name for path in earlier.iterdir()} == FILES
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    capsys.readouterr()
    scan = str(case_folder / "baseline.nii.gz")
    assert "other files" in refused(capsys, "predict", "-i", scan, "-o", str(tmp_path / "mine"))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


Damage = Callable[[sitk.Image], sitk.Image]


def moved_far(mask: sitk.Image) -> sitk.Image:
    mask.SetOrigin([position + 500 for position in mask.GetOrigin()])
    return mask


def in_the_air(mask: sitk.Image) -> sitk.Image:
    values = np.zeros(Grid.of(mask).shape, np.uint8)
    values[10:20, :25, :25] = 1
    return image_on(Grid.of(mask), values)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda mask: mask * 0, "mask is empty"),
        (moved_far, "does not belong"),
        (in_the_air, "inside the skull"),
    ],
    ids=["empty", "elsewhere", "outside the head"],
)
def test_a_mask_that_cannot_be_right_is_refused(
    damage: Damage, sentence: str, case_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sitk.WriteImage(damage(sitk.ReadImage(str(case_folder / "baseline-mask.nii.gz"))), str(tmp_path / "mask.nrrd"))
    scan = str(case_folder / "baseline.nii.gz")
    output = tmp_path / "result"
    message = refused(capsys, "predict", "-i", scan, "-o", str(output), "--mask", str(tmp_path / "mask.nrrd"))
    assert sentence in message
    assert str(tmp_path) not in message
    assert not output.exists()


@pytest.mark.parametrize("command", ["export", "export-pairs"])
def test_what_slicer_did_not_hand_over_is_not_exported(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for content in (None, "{", '{"result": 3}', '{"known": {}, "descriptions": [{}]}'):
        if content is not None:
            (tmp_path / "parts.json").write_text(content)
        message = refused(capsys, command, "-i", str(tmp_path), "-o", str(tmp_path / "out"))
        assert "that Slicer's Export" in message
        assert not (tmp_path / "out").exists()


def test_arguments_that_cannot_be_right_are_refused(
    case_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    scan = ["predict", "-i", str(case_folder / "baseline.nii.gz"), "-o", str(tmp_path / "result")]
    assert "no model 'none'" in refused(capsys, *scan, "--growth", "none")
    assert "for growth, not for segmentation" in refused(capsys, *scan, "--segmenter", "growth-compact")
    assert "no usable GPU" in refused(capsys, *scan, "--device", "cuda:1")
    assert "no device 'gpu'" in refused(capsys, *scan, "--device", "gpu")
    assert "hours" in refused(capsys, *scan, "--onset-hours", "-1")
    absent = ["predict", "-i", str(tmp_path / "absent.nii.gz"), "-o", str(tmp_path / "result")]
    assert "The scan does not exist" in refused(capsys, *absent)
    with pytest.raises(SystemExit) as stopped:
        main([*scan, "--expansion-definition", "7ml"])
    assert stopped.value.code == 2
    assert not (tmp_path / "result").exists()


def test_a_missing_library_and_a_full_gpu_are_named(
    case_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import monai.inferers

    scan = ["predict", "-i", str(case_folder / "baseline.nii.gz"), "-o", str(tmp_path / "result")]

    def full(*arguments: object, **options: object) -> None:
        raise torch.cuda.OutOfMemoryError

    with monkeypatch.context() as patch:
        patch.setattr(monai.inferers, "sliding_window_inference", full)
        assert "too little free memory" in refused(capsys, *scan)
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "torch", None)
        assert "PyTorch is not installed" in refused(capsys, *scan)
    assert not (tmp_path / "result").exists()


def test_a_full_gpu_leaves_the_work_to_the_cpu_and_says_so(
    predicted: Path, case_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from HematomaExpansionLib import prediction

    asked = []

    def full(compute: Callable[..., Any]) -> Callable[..., Any]:
        def on_device(*arguments: Any, **named: Any) -> Any:
            asked.append((compute.__name__, arguments[-1].type))
            if arguments[-1].type == "cuda":
                raise DeviceError("The GPU has too little free memory.")
            return compute(*arguments, **named)

        return on_device

    monkeypatch.setattr(prediction, "choose_device", lambda name: torch.device("cuda"))
    for name in ("find_bleeds", "predict_outcomes"):
        monkeypatch.setattr(prediction, name, full(getattr(prediction, name)))
    scan = read_head_ct(case_folder / "baseline.nii.gz")
    hematoma = read_mask(case_folder / "baseline-mask.nii.gz", scan)
    options = PredictionOptions(find_package(None, "growth"), None, find_package(None, "forecast"))
    result = prediction.predict(scan, options, hematoma).result
    assert asked == [("predict_outcomes", "cuda"), ("predict_outcomes", "cpu")]
    assert result["device"] == "cpu"
    assert [text for text in result["input"]["warnings"] if "GPU had too little free memory" in text]
    expected = json.loads((predicted / "prediction.json").read_text())
    assert result["followup"]["volume_ml"] == pytest.approx(expected["followup"]["volume_ml"], rel=1e-3)
    asked.clear()
    found = prediction.predict(scan, options).result
    assert asked == [("find_bleeds", "cuda"), ("find_bleeds", "cpu"), ("predict_outcomes", "cpu")]
    assert len([text for text in found["input"]["warnings"] if "GPU" in text]) == 1


def test_the_outline_does_not_depend_on_the_probability(case_folder: Path) -> None:
    """Whether and where are told apart: another probability changes range and map, not the outcome if it
    expands.
    """
    scan = read_head_ct(case_folder / "baseline.nii.gz")
    mask = read_mask(case_folder / "baseline-mask.nii.gz", scan)
    options = PredictionOptions(find_package(None, "growth"), None, find_package(None, "forecast"))
    early, late = (predict_scan(scan, replace(options, onset_hours=hours), mask) for hours in (0.5, 20.0))
    first, second = (prediction.result["forecast"] for prediction in (early, late))
    assert first["probability_of_expansion"] > second["probability_of_expansion"] + 0.05
    assert first["volume_ml"]["90"] > second["volume_ml"]["90"]
    assert first["if_expands"] == pytest.approx(second["if_expands"], rel=1e-3)
    assert early.growth is not None
    assert late.growth is not None
    voxels = [prediction.growth.followup_mask.voxels for prediction in (early, late) if prediction.growth]
    assert dice(*voxels) > 0.999
    sums = [
        float(sitk.GetArrayFromImage(prediction.growth_probability).sum(dtype=np.float64))
        * mask.grid.voxel_volume_ml
        for prediction in (early, late)
    ]
    assert sums == pytest.approx([forecast["expected_ml"] for forecast in (first, second)], rel=2e-3)


def test_the_readers_decisions_and_the_chosen_source_count(case_folder: Path, tmp_path: Path) -> None:
    given = ["-i", str(case_folder / "baseline.nii.gz"), "--mask", str(case_folder / "baseline-mask.nii.gz")]
    told = {}
    for name, options in {
        "irregular": ["--irregular", "--no-blend", "--gcs", "9"],
        "smooth": ["--no-irregular", "--no-blend", "--gcs", "9"],
        "brain": ["--risk", "brain", "--onset-hours", "1"],
        "model": ["--risk", "risk-compact"],
    }.items():
        assert main(["predict", *given, "-o", str(tmp_path / name), *options]) == 0
        told[name] = json.loads((tmp_path / name / "prediction.json").read_text())
    irregular, smooth = (told[name]["forecast"] for name in ("irregular", "smooth"))
    assert irregular["probability_of_expansion"] > smooth["probability_of_expansion"]
    assert [piece["name"] for piece in smooth["evidence"]][1:] == ["not irregular", "no blend", "GCS 9"]
    assert told["irregular"]["markers"]["irregular"]["overruled"] is True
    assert told["brain"]["forecast"]["source"].startswith("BRAIN score")
    risk = told["model"]["risk"]
    assert told["model"]["forecast"]["probability_of_expansion"] == pytest.approx(risk["probability"], abs=1e-6)
    assert told["model"]["forecast"]["source"] == "model risk-compact"
    assert told["brain"]["risk"] is None


def test_measure_prints_the_masks_volumes(case_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = case_folder / "baseline-mask.nii.gz"
    assert main(["measure", "-i", str(path)]) == 0
    measures = json.loads(capsys.readouterr().out)
    assert measures["volume_ml"] == pytest.approx(volume_ml(sitk.ReadImage(str(path))))
    assert measures["a_mm"] >= measures["b_mm"] > 0


def test_models_are_listed_shown_and_verified(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    assert "growth-compact" in capsys.readouterr().out
    assert main(["models", "show", "growth-compact"]) == 0
    assert json.loads(capsys.readouterr().out)["task"] == "growth"
    assert main(["models", "verify"]) == 0
    assert capsys.readouterr().out.count("intact") >= 2


def test_nothing_written_names_the_patient_or_a_path(
    case_folder: Path, patient: SimulatedPatient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from phantoms import write_dicom_series

    series = tmp_path / "MUELLER-ARCHIVE"
    write_dicom_series(patient.baseline, series, PatientName="Mueller^Erika", PatientID="ID-471108")
    output = tmp_path / "result"
    predict(series, output)
    printed = capsys.readouterr()
    everything = [printed.out.replace(str(output), "").encode(), printed.err.encode()]
    for path in output.iterdir():
        content = path.read_bytes()
        everything.append(gzip.decompress(content) if path.suffix == ".gz" else content)
    for secret in (b"mueller", b"erika", b"471108", str(tmp_path).lower().encode()):
        assert not any(secret in content.lower() for content in everything), secret


def test_no_hematoma_is_found_in_the_real_head(real_head_ct: Path, tmp_path: Path) -> None:
    result = predict(real_head_ct, tmp_path / "result")
    assert result["baseline"]["volume_ml"] == 0
    assert result["growth"] is None
    warnings = " ".join(result["input"]["warnings"])
    assert "18.5 degrees" in warnings
    assert "unevenly spaced" in warnings
    assert (tmp_path / "result" / "baseline-ct.nii.gz").exists()


@pytest.mark.slow
def test_a_bleed_inserted_into_the_real_head_is_found_and_grows(real_head_ct: Path, tmp_path: Path) -> None:
    cohort = tmp_path / "cohort"
    arguments = ["simulate", "--anatomy", str(real_head_ct), "-n", "3", "--seed", "1", "-o", str(cohort)]
    assert main(arguments) == 0
    for case in sorted(cohort.iterdir()):
        result = predict(case / "baseline.nii.gz", tmp_path / case.name)
        found = array(tmp_path / case.name / "baseline-mask.nii.gz") > 0
        assert dice(found, array(case / "baseline-mask.nii.gz") > 0) >= 0.85
        assert result["followup"]["volume_ml"] > result["baseline"]["volume_ml"]
