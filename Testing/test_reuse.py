"""A result is reused only if it was made from the same contents, options, seed and versions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from HematomaExpansionLib.anatomy.mask_source import MaskSource
from HematomaExpansionLib.cli.main import main
from HematomaExpansionLib.errors import InputError
from HematomaExpansionLib.scan.grid import Array, image_on
from HematomaExpansionLib.training.data.cohort import case_folders
from HematomaExpansionLib.training.growth import study
from HematomaExpansionLib.training.growth import training as growth_training
from HematomaExpansionLib.training.growth.samples import PRESETS
from HematomaExpansionLib.training.growth.study import run_study
from HematomaExpansionLib.training.risk import evaluation as risk_evaluation
from HematomaExpansionLib.training.risk import networks as risk_network_training
from HematomaExpansionLib.training.risk.logistic import RiskSample
from HematomaExpansionLib.training.risk.networks import RiskImages
from HematomaExpansionLib.training.segmentation import adaptation, evaluation
from HematomaExpansionLib.training.segmentation import slices as slice_training
from HematomaExpansionLib.training.segmentation import training as segmentation_training
from HematomaExpansionLib.training.segmentation.evaluation import SegmentationRow
from test_adaptation import network_of, package_of
from test_training import ML_GRID, growing_balls


def make_cohort(folder: Path, count: int) -> Path:
    """Cases with placeholder scans that differ as those of patients do; every second hematoma expanded."""
    for number in range(count):
        case = folder / f"case-{number:02d}"
        case.mkdir(parents=True)
        for scan, slices in (("baseline", 8), ("followup", 8 if number % 2 == 0 else 16)):
            (case / f"{scan}.nii.gz").write_text(f"{scan} of patient {number}")
            mask = np.zeros(ML_GRID.shape, np.uint8)
            mask[:slices, :10, :10] = 1
            sitk.WriteImage(image_on(ML_GRID, mask), str(case / f"{scan}-mask.nii.gz"))
        (case / "case.json").write_text(json.dumps({"source": "simulated", "registered": True}))
    return folder


def scans_of(_: object) -> list[dict[str, Array]]:
    """What a segmentation network sees of a case that consists of a ball."""
    z, y, x = np.ogrid[-16:16, -32:32, -32:32]
    ball = z**2 + y**2 + x**2 < 8**2
    ct, mask = (0.3 + 0.4 * ball)[None].astype(np.float16), ball[None].astype(np.uint8)
    return [{"ct": ct, "mask": mask, "bone": np.zeros_like(ct)}]


def images_of(cases: Sequence[Path]) -> dict[Path, RiskImages]:
    """What a slice-based risk network sees of these heads, every second of which expanded."""
    images = np.random.default_rng(0).normal(size=(len(cases), 3, 1, 64, 64)).astype(np.float16)
    return {case: RiskImages(images[k], None, k % 2 == 0) for k, case in enumerate(cases)}


@dataclass(frozen=True)
class Training:
    """A training command without its cohort and output, and the module whose case preparation is replaced."""

    name: str
    arguments: tuple[str, ...]
    module: object
    prepare: str


SLICES_OF_RISK = ("--preset", "slices", "--network", "resnet18", "--size", "64,64", "--channels", "2,2,4,4")

TRAININGS = (
    Training("growth", ("train", "growth", "--channels", "2,4"), growth_training, "prepare_growth_samples"),
    Training(
        "segmentation", ("train", "segmentation", "--channels", "4,4,8,8"), segmentation_training, "prepare_parts"
    ),
    Training(
        "slices",
        ("train", "segmentation", "--preset", "slices", "--size", "64,64", "--channels", "2,2,2,2,2"),
        slice_training,
        "prepare_parts",
    ),
    Training(
        "risk",
        ("train", "risk", *SLICES_OF_RISK),
        risk_network_training,
        "prepare_images",
    ),
    Training("adaptation", ("adapt", "MODEL", "--rank", "1"), adaptation, "prepare_parts"),
)


@dataclass
class Command:
    """A training on a small cohort; ``prepared`` counts how often its cases were prepared."""

    cohort: Path
    package: Path
    arguments: list[str]
    prepared: int = 0

    def run(self, *options: str, cohort: Path | None = None, output: Path | None = None) -> int:
        """Run it and return the exit status."""
        places = ["--cohort", str(cohort or self.cohort), "-o", str(output or self.package)]
        return main([*self.arguments, *places, "--epochs", "2", "--seed", "3", *options])

    def checkpoint(self) -> bytes:
        """The checkpoint from which a run resumes."""
        return (self.package / "training" / "last.ckpt").read_bytes()


@pytest.fixture(params=TRAININGS, ids=lambda training: training.name)
def training(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Each command that trains a network, on cases that need no reading."""
    chosen: Training = request.param
    model = package_of(tmp_path / "model", network_of()).folder
    command = Command(
        make_cohort(tmp_path / "cohort", 6),
        tmp_path / "package",
        [str(model) if word == "MODEL" else word for word in chosen.arguments],
    )

    def prepared(*given: object) -> object:
        command.prepared += 1
        if chosen.prepare == "prepare_growth_samples":
            return growing_balls(given[2])
        if chosen.prepare == "prepare_images":
            return images_of(given[-1])
        return [[scan for case in part for scan in scans_of(case)] for part in given[1:]]

    monkeypatch.setattr(chosen.module, chosen.prepare, prepared)
    return command


class Killed(BaseException):
    """Ends a run as a signal would: nothing is cleaned up afterward."""


def kill_when_first_epoch_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    from HematomaExpansionLib.training.fitting import LossModule

    def end(self: object) -> None:
        if self.current_epoch == 1:  # type: ignore[attr-defined]
            raise Killed

    monkeypatch.setattr(LossModule, "on_train_epoch_start", end)


def test_a_finished_training_stays_as_it_is_and_is_taken_for_no_other(
    training: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert training.run() == 0
    first = capsys.readouterr().out
    files = {path: path.stat().st_mtime_ns for path in training.package.rglob("*") if path.is_file()}
    assert training.run() == 0
    again = capsys.readouterr()
    assert first.endswith(again.out)
    assert again.out.startswith("{")
    assert "nothing was trained again" in again.err
    assert {path: path.stat().st_mtime_ns for path in training.package.rglob("*") if path.is_file()} == files
    model, checkpoint = (training.package / "model.json").read_bytes(), training.checkpoint()
    prepared = training.prepared
    other = make_cohort(tmp_path / "other", 7)
    for changed in (
        lambda: training.run("--seed", "4"),
        lambda: training.run("--learning-rate", "0.01"),
        lambda: training.run("--epochs", "3"),
        lambda: training.run(cohort=other),
    ):
        assert changed() == 2
        assert "new folder" in capsys.readouterr().err
    assert training.prepared == prepared, "refused after the cases were prepared"
    masks = [training.cohort / "case-01" / f"{scan}-mask.nii.gz" for scan in ("baseline", "followup")]
    masks[0].write_bytes(masks[1].read_bytes())
    assert training.run() == 2, "other contents under the same names"
    assert ((training.package / "model.json").read_bytes(), training.checkpoint()) == (model, checkpoint)


def test_a_killed_training_goes_on_where_it_was_but_never_as_another(
    training: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        kill_when_first_epoch_ends(patched)
        with pytest.raises(Killed):
            training.run()
    checkpoint = training.checkpoint()
    assert not (training.package / "model.json").exists()
    assert training.run("--seed", "4") == 2
    assert training.checkpoint() == checkpoint
    assert training.run() == 0
    assert training.run(output=tmp_path / "straight") == 0
    weights = [
        (folder / "weights.safetensors").read_bytes() for folder in (training.package, tmp_path / "straight")
    ]
    assert weights[0] == weights[1]


# --- folds --------------------------------------------------------------------------------------------


def test_folds_are_not_used_again_after_the_cohort_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training would have used patients of the test part."""
    prepared: list[int] = []

    def prepare(_: object, __: object, cases: Sequence[Path]) -> object:
        prepared.append(len(cases))
        return growing_balls(cases)

    monkeypatch.setattr(study, "prepare_growth_samples", prepare)
    monkeypatch.setattr(study, "rows_of_all", lambda *_: [])
    small = replace(PRESETS["compact"], channels=(2, 4), fit=replace(PRESETS["compact"].fit, epochs=1))
    cohort, output = make_cohort(tmp_path / "cohort", 6), tmp_path / "study"

    def run(preset: object = small) -> None:
        run_study(cohort, output, preset, 2, MaskSource("true", torch.device("cpu")))  # type: ignore[arg-type]

    def written() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (output / "folds").rglob("*") if path.is_file()}

    run()
    first = written()
    assert {path.parent.name for path in first if path.name == "model.json"} == {"original", "augmentation"}
    run()
    assert prepared == [6], "the very same study was made again"
    shutil.copytree(cohort / "case-05", cohort / "case-01a")
    (cohort / "case-01a" / "baseline.nii.gz").write_text("one patient more")
    with pytest.raises(InputError, match="new folder"):
        run()
    shutil.rmtree(cohort / "case-01a")
    mask = cohort / "case-02" / "followup-mask.nii.gz"
    drawn = mask.read_bytes()
    mask.write_bytes((cohort / "case-03" / "followup-mask.nii.gz").read_bytes())
    with pytest.raises(InputError, match="new folder"):
        run()
    mask.write_bytes(drawn)
    with pytest.raises(InputError, match="new folder"):
        run(replace(small, spacing_mm=(2.0, 2.0, 2.0)))
    assert prepared == [6], "refused after hours of preparation"
    run()
    assert written() == first


@pytest.mark.usefixtures("cases_in_this_process")
def test_folds_of_a_risk_network_are_not_used_again_after_the_cohort_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(cases: Sequence[Path], *_: object) -> list[RiskSample]:
        return [RiskSample(case.name, {}, 10.0 + k, k % 3, k % 2 == 0) for k, case in enumerate(cases)]

    monkeypatch.setattr(risk_evaluation, "measure_cases", measured)
    monkeypatch.setattr(risk_network_training, "prepare_images", lambda *given: images_of(given[-1]))
    cohort, output = make_cohort(tmp_path / "cohort", 8), tmp_path / "out"
    command = ["evaluate", "risk", "--cohort", str(cohort), "-o", str(output), "--folds", "2", "--epochs", "1"]
    command += SLICES_OF_RISK
    assert main(command) == 0
    models = {path: path.read_bytes() for path in output.glob("folds/*/model.json")}
    assert len(models) == 2
    assert main(command) == 0
    assert {path: path.read_bytes() for path in models} == models
    (cohort / "case-02" / "baseline.nii.gz").write_text("scanned anew")
    assert main(command) == 2
    assert "new folder" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in models} == models


# --- cases that a model has seen ----------------------------------------------------------------------


def test_evaluating_a_model_on_its_training_cases_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def prepare(_: object, *parts: Sequence[Path]) -> object:
        return [[scan for case in part for scan in scans_of(case)] for part in parts]

    def rows(cohort: Path, *_: object) -> list[SegmentationRow]:
        return [SegmentationRow(case.name, "baseline", 9.0, 9.0, 0.9, 0.9, 0.9) for case in case_folders(cohort)]

    monkeypatch.setattr(segmentation_training, "prepare_parts", prepare)
    monkeypatch.setattr(evaluation, "evaluate_segmentation", rows)
    learned, test = make_cohort(tmp_path / "learned", 4), tmp_path / "test"
    train = ["train", "segmentation", "--channels", "4,4,8,8", "--epochs", "1"]
    assert main([*train, "--cohort", str(learned), "-o", str(tmp_path / "first")]) == 0
    others = make_cohort(tmp_path / "others", 7)
    for number in (4, 5):
        shutil.copytree(others / f"case-0{number}", test / f"x{number}")
    tuned = [*train, "--cohort", str(others), "-o", str(tmp_path / "tuned"), "--start", str(tmp_path / "first")]

    def told(model: str) -> list[str]:
        arguments = ["--cohort", str(test), "-o", str(tmp_path / "out"), "--model", str(tmp_path / model)]
        assert main(["evaluate", "segmentation", *arguments]) == 0
        notes = json.loads((tmp_path / "out" / "segmentation.json").read_text()).get("notes", [])
        printed = capsys.readouterr().err
        assert all(note in printed for note in notes)
        return list(notes)

    assert told("first") == []
    shutil.copytree(learned / "case-01", test / "under-another-name")
    (note,) = told("first")
    assert "trained on 1 of them" in note
    assert "'first'" in note
    assert main(tuned) == 0
    (note,) = told("tuned")
    assert "trained on 3 of them" in note, "what a model began from has seen, it has seen too"
