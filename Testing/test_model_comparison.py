"""Segmentation models side by side, beside masks and beside what readers saw in each slice."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from HematomaExpansionLib.anatomy.kinds import Kind
from HematomaExpansionLib.cli.main import main as hematoma
from HematomaExpansionLib.errors import InputError
from HematomaExpansionLib.scan.grid import image_on
from HematomaExpansionLib.training.data.reader_labels import ReadSlice, read_labels
from phantoms import head_grid, head_image, positions


def test_labels_are_read_with_the_kinds_of_blood_in_each_slice(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("scan,slice,intraparenchymal,subdural\na,0,0,0\na,1,1,1\nb,0,0,1\n")
    labels = read_labels(table)
    assert labels == [
        ReadSlice("a", 0, ()),
        ReadSlice("a", 1, ("intraparenchymal", "subdural")),
        ReadSlice("b", 0, ("subdural",)),
    ]
    assert labels[1].kinds == {Kind.INTRAPARENCHYMAL, Kind.EXTRAAXIAL}


@pytest.mark.parametrize("line", ["a,-1,0", "a,one,0", "a,1,2", "a,1,yes"])
def test_labels_that_are_not_understood_are_refused(tmp_path: Path, line: str) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(f"scan,slice,intraparenchymal\n{line}\n")
    with pytest.raises(InputError, match="Line 2"):
        read_labels(table)


GRID = head_grid((2.0, 2.0, 5.0))


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head with a ball of blood, and one without, whose slices are labeled."""
    folder = tmp_path_factory.mktemp("scans")
    sitk.WriteImage(head_image(GRID, sphere_mm=18.0), str(folder / "bleed.nii.gz"))
    sitk.WriteImage(head_image(GRID, sphere_mm=0.0), str(folder / "none.nii.gz"))
    ball = np.linalg.norm(positions(GRID), axis=-1) <= 18.0
    lines = ["scan,slice,intraparenchymal"]
    for number, bloody in enumerate(ball.any(axis=(1, 2))):
        lines += [f"bleed,{number},{int(bloody)}", f"none,{number},0"]
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_models_beside_what_readers_saw(scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["models", "compare", "--models", "threshold", "--labels", str(scans / "labels.csv")]
    assert hematoma([*command, "-o", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    summary = json.loads((tmp_path / "out" / "models.json").read_text())["threshold"]
    ball = np.linalg.norm(positions(GRID), axis=-1) <= 18.0
    slices = int(ball.any(axis=(1, 2)).sum())
    assert summary["intraparenchymal_slices"] == slices
    assert summary["intraparenchymal_found"] >= slices - 2  # the outermost show little of the ball
    assert summary["slices_without"] == 2 * len(ball) - slices
    assert summary["called_hematoma"] == summary["called_blood"] == 0
    assert f"{summary['intraparenchymal_found']} of {slices}" in out
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["bleed.png", "none.png"]
    with (tmp_path / "out" / "scans.csv").open() as file:
        rows = {row["scan"]: row for row in csv.DictReader(file)}
    expected = 4 / 3 * np.pi * 1.8**3
    assert float(rows["bleed"]["intraparenchymal_ml"]) == pytest.approx(expected, rel=0.15)
    assert float(rows["none"]["intraparenchymal_ml"]) == 0
    assert rows["bleed"]["extraaxial_ml"] == ""  # not looked for, hence not zero


def test_models_beside_masks(scans: Path, tmp_path: Path) -> None:
    case = tmp_path / "cohort" / "case-1"
    case.mkdir(parents=True)
    (case / "case.json").write_text("{}")
    for name in ("baseline", "followup"):
        (case / f"{name}.nii.gz").write_bytes((scans / "bleed.nii.gz").read_bytes())
        ball = (np.linalg.norm(positions(GRID), axis=-1) <= 18.0).astype(np.uint8)
        sitk.WriteImage(image_on(GRID, ball), str(case / f"{name}-mask.nii.gz"))
    command = ["models", "compare", "--models", "threshold", "--cohort", str(tmp_path / "cohort")]
    assert hematoma([*command, "-o", str(tmp_path / "out")]) == 0
    summary = json.loads((tmp_path / "out" / "models.json").read_text())["threshold"]
    assert summary["dice"] > 0.9
    assert summary["missed"] == 0


def test_what_cannot_be_compared_is_refused(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["-o", str(tmp_path / "out")]
    assert hematoma(["models", "compare", "--models", "threshold", *output]) == 2
    assert "either --cohort or --labels" in capsys.readouterr().err
    labels = ["--labels", str(scans / "labels.csv")]
    assert hematoma(["models", "compare", "--models", "threshold,threshold", *labels, *output]) == 2
    assert "each model once" in capsys.readouterr().err
    far = tmp_path / "labels.csv"
    far.write_text("scan,slice,intraparenchymal\nnone,900,0\n")
    (tmp_path / "none.nii.gz").write_bytes((scans / "none.nii.gz").read_bytes())
    assert hematoma(["models", "compare", "--models", "threshold", "--labels", str(far), *output]) == 2
    assert "number 900" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
