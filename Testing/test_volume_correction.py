"""Correction of a segmenter's volumes: a known bias is found, and nothing gets worse than it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from HematomaExpansionLib.batch.cases import BatchCase
from HematomaExpansionLib.batch.rows import predicted_row
from HematomaExpansionLib.cli.main import main
from HematomaExpansionLib.errors import InputError, ModelPackageError
from HematomaExpansionLib.measures.volumes import corrected_volume
from HematomaExpansionLib.models.package import ModelPackage, find_package, open_package, write_package
from HematomaExpansionLib.output.report import summary_rows
from HematomaExpansionLib.prediction import corrected_baseline
from HematomaExpansionLib.scan.grid import image_on
from HematomaExpansionLib.training.segmentation import volume_correction
from HematomaExpansionLib.training.segmentation.evaluation import SegmentationRow
from HematomaExpansionLib.training.segmentation.volume_correction import fit_volume_correction
from phantoms import head_grid, head_image, positions

pytestmark = pytest.mark.usefixtures("each_brain_found_once")

LINE = {"constant_ml": 1.5, "slope": 1.2, "smallest_ml": 3.0, "largest_ml": 60.0}


def biased(patients: int, noise_ml: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Measured and true volumes and patients, two scans of each: the true ones are 1.5 mL + 1.2 × the measured."""
    random = np.random.default_rng(5)
    measured = random.uniform(4, 60, 2 * patients)
    true = 1.5 + 1.2 * measured + noise_ml * random.laplace(size=2 * patients)
    return measured, true, np.repeat(np.arange(patients), 2)


def test_a_linear_bias_is_found_and_taken_off() -> None:
    measured, true, patients = biased(12)
    correction = fit_volume_correction(measured, true, patients)
    assert correction["constant_ml"] == pytest.approx(1.5, abs=1e-3)
    assert correction["slope"] == pytest.approx(1.2, abs=1e-4)
    assert (correction["smallest_ml"], correction["largest_ml"]) == pytest.approx(
        (measured.min(), measured.max()), abs=1e-4
    )
    assert correction["patients"] == 12
    assert correction["error_ml"] == pytest.approx(np.mean(true - measured), abs=1e-3)
    assert correction["corrected_error_ml"] < 0.05 * correction["error_ml"]
    for volume, wanted in zip(measured, true, strict=True):
        assert corrected_volume(correction, volume) == pytest.approx(wanted, abs=1e-2)


def test_noise_remains_and_one_wild_mask_does_not_tilt_the_line() -> None:
    measured, true, patients = biased(100, noise_ml=2.0)
    correction = fit_volume_correction(measured, true, patients)
    assert correction["slope"] == pytest.approx(1.2, abs=0.03)
    noise = np.abs(true - 1.5 - 1.2 * measured).mean()
    assert correction["corrected_error_ml"] == pytest.approx(noise, rel=0.05)
    true[:2] = 300.0
    assert fit_volume_correction(measured, true, patients)["slope"] == pytest.approx(correction["slope"], abs=0.02)


def test_the_reported_error_is_from_left_out_patients() -> None:
    """One of ten patients, each with twenty scans, is unlike the rest: some of his scans would give him away."""
    volumes = np.append(np.linspace(10, 11, 9), 50.0)
    measured, true = np.tile(volumes, 20), np.tile(np.append(volumes[:9], 80.0), 20)
    correction = fit_volume_correction(measured, true, np.tile(np.arange(10), 20))
    assert abs(corrected_volume(correction, 50.0) - 80.0) < 1, "of all ten the fit knows all ten"
    assert correction["corrected_error_ml"] > 30 / 10


@pytest.mark.parametrize(
    ("correction", "measured", "corrected"),
    [
        (LINE, 10.0, 13.5),
        (LINE, 3.0, 5.1),
        (LINE, 1.0, 1.7),  # below the range: the factor at its end
        (LINE, 60.0, 73.5),
        (LINE, 120.0, 147.0),  # and above it
        (LINE, 0.0, 0.0),
        (LINE | {"constant_ml": -10.0}, 4.0, 2.0),  # never less than half, nor negative
        (LINE | {"constant_ml": 30.0}, 4.0, 8.0),  # nor more than double
    ],
)
def test_a_volume_is_corrected_within_the_range_that_is_known(
    correction: dict[str, float], measured: float, corrected: float
) -> None:
    assert corrected_volume(correction, measured) == pytest.approx(corrected)


@pytest.mark.parametrize("constant", [-20.0, -1.0, 0.0, 4.0])
def test_the_larger_volume_stays_the_larger(constant: float) -> None:
    volumes = np.linspace(0.1, 100, 300)
    corrected = [corrected_volume(LINE | {"constant_ml": constant}, volume) for volume in volumes]
    assert (np.diff(corrected) > 0).all()
    assert min(corrected) > 0


def test_what_cannot_be_corrected_is_refused() -> None:
    measured, true, patients = biased(9)
    with pytest.raises(InputError, match="found in 9 patients"):
        fit_volume_correction(measured, true, patients)
    measured, true, patients = biased(12)
    with pytest.raises(InputError, match="do not rise"):
        fit_volume_correction(measured, 100 - true, patients)


def rows_of(cohort: Path, package: ModelPackage | None, device: str) -> list[SegmentationRow]:
    """Stands in for an evaluation; in the last patient's scans no hematoma is found."""
    measured, true, patients = biased(12)
    rows = [
        SegmentationRow(f"case-{patient}", "baseline", float(wanted), float(found), 0.9, 0.9, 0.9)
        for found, wanted, patient in zip(measured, true, patients, strict=True)
    ]
    return [*rows, SegmentationRow("case-12", "baseline", 5.0, 0.0, 0.0, 0.5, 0.0)]


@pytest.fixture
def corrected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped segmenter, corrected by the command."""
    monkeypatch.setattr(volume_correction, "evaluate_segmentation", rows_of)
    for number in range(13):
        case = tmp_path / "cohort" / f"case-{number}"
        case.mkdir(parents=True)
        (case / "baseline.nii.gz").touch()
        (case / "case.json").write_text('{"source": "simulated"}')
    command = ["correct", "segmentation-compact", "--cohort", str(tmp_path / "cohort")]
    assert main([*command, "-o", str(tmp_path / "corrected")]) == 0
    return tmp_path / "corrected"


def test_the_corrected_package_holds_the_same_weights(corrected: Path) -> None:
    source, package = find_package("segmentation-compact", "segmentation"), open_package(corrected)
    assert package.sha256 == source.sha256
    assert package.description.name == "corrected"
    assert package.description.settings["volume_correction"]["patients"] == 12
    *before, last = package.description.trained_on
    assert tuple(before) == source.description.trained_on
    assert last.text == "volumes corrected on 13 simulated patients, no real ones"


def test_only_a_mask_of_a_segmenter_with_a_known_bias_is_corrected(corrected: Path) -> None:
    package = open_package(corrected)
    assert corrected_baseline(10.0, package) == pytest.approx(13.5, abs=0.01)
    assert corrected_baseline(10.0, find_package(None, "segmentation")) is None
    assert corrected_baseline(10.0, None) is None, "the user's own mask, or the threshold method"
    assert corrected_baseline(0.0, package) is None, "no hematoma was found"


def test_prediction_tells_the_corrected_volume_beside_the_measured_one(corrected: Path, tmp_path: Path) -> None:
    grid = head_grid()
    ball = np.linalg.norm(positions(grid), axis=-1) <= 18.0
    scan, mask = tmp_path / "head.nii.gz", tmp_path / "ball.nii.gz"
    sitk.WriteImage(head_image(grid, sphere_mm=18.0), scan)
    sitk.WriteImage(image_on(grid, ball.astype(np.uint8)), mask)

    def baseline(name: str, *options: str) -> tuple[dict[str, Any], str]:
        command = ["predict", "-i", str(scan), "-o", str(tmp_path / name)]
        assert main([*command, "--segmenter", str(corrected), *options]) == 0
        result = json.loads((tmp_path / name / "prediction.json").read_text())
        row = predicted_row(BatchCase("one", scan), result)
        assert row.corrected_baseline_ml == result["baseline"]["corrected_volume_ml"]
        return result["baseline"], dict(summary_rows(result))["Hematoma now"]

    values, text = baseline("automatic")
    assert values["corrected_volume_ml"] == pytest.approx(
        corrected_baseline(values["volume_ml"], open_package(corrected))
    )
    assert text.endswith(f"({values['corrected_volume_ml']:.1f} mL corrected for the segmenter's bias)")
    values, text = baseline("own", "--mask", str(mask))
    assert values["corrected_volume_ml"] is None
    assert text == f"{values['volume_ml']:.1f} mL"


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("slope"),
        lambda c: c.update(slope=-1.0),
        lambda c: c.update(smallest_ml=0.0),
        lambda c: c.update(smallest_ml=80.0),
        lambda c: c.update(constant_ml="x"),
        lambda c: c.update(constant_ml=float("nan")),
    ],
)
def test_a_correction_that_cannot_be_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    source = find_package(None, "segmentation")
    values: dict[str, Any] = dict(LINE)
    change(values)
    described = replace(source.description, settings={"volume_correction": values})
    with pytest.raises(ModelPackageError, match="out of range"):
        write_package(tmp_path / "wrong", described, source.load())
