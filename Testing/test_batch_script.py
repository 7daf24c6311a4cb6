"""The scripts for Slicer's batch mode, run without Slicer: the same arguments, files and exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import SimpleITK as sitk
from environment import REPOSITORY
from phantoms import head_grid, head_image

SCRIPT = REPOSITORY / "HematomaExpansion" / "Scripts" / "predict_expansion.py"


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, cwd=cwd, env={"PATH": ""}, capture_output=True, text=True, check=False)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A coarse head with a ball of blood."""
    path = tmp_path / "scan.nii.gz"
    sitk.WriteImage(head_image(head_grid((4.0, 4.0, 8.0)), 20.0), str(path))
    return path


def test_a_prediction_by_the_script_is_that_of_the_command(scan: Path, tmp_path: Path) -> None:
    done = run("--", "-i", str(scan), "-o", "out", "--segmenter", "threshold", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert result["baseline"]["volume_ml"] > 1
    assert "Research use only." in done.stdout


def test_a_batch_by_the_script_is_that_of_the_command(scan: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"case,scan\nP1,{scan}\nP2,absent.nii.gz\n")
    done = run("batch", "-i", "list.csv", "-o", "out", "--segmenter", "threshold", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 of 2 cases predicted" in done.stdout
    assert (tmp_path / "out" / "P1" / "prediction.json").exists()
    assert len((tmp_path / "out" / "results.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-i", "absent.nii.gz", "-o", "out"], "hematoma: The scan does not exist. Check the path."),
        (["-i", "absent.nii.gz"], "-o/--output"),
        (["batch", "-i", "absent", "-o", "out"], "hematoma: The input does not exist. Check the path."),
        (["compare", "--baseline", "a.nii.gz", "--followup", "b.nii.gz", "-o", "out"], "does not exist"),
        (["synthesize", "-i", "a.nii.gz", "--mask", "b.nii.gz", "-o", "out"], "does not exist"),
        (["simulate", "-n", "0", "--seed", "1", "-o", "out"], "at least 1"),
    ],
)
def test_bad_arguments_end_with_status_2_and_a_sentence(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_package_is_named_in_a_sentence(tmp_path: Path) -> None:
    bare = [sys.executable, "-S", str(SCRIPT), "-i", "scan.nii.gz", "-o", "out"]  # -S: no installed packages
    done = subprocess.run(bare, cwd=tmp_path, env={"PATH": ""}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "The Python package" in done.stderr
    assert "click Predict expansion" in done.stderr
    assert "Traceback" not in done.stderr
