"""File names that are not text: such scans are read, or refused with a sentence, and never end the process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import SimpleITK as sitk
from environment import variables
from HematomaExpansionLib.cli.main import main
from HematomaExpansionLib.errors import InputError
from HematomaExpansionLib.files.folders import check_output_folder
from HematomaExpansionLib.scan.head_ct import read_head_ct
from phantoms import head_grid, head_image, write_dicom_series
from test_batch import read_table

NO_TEXT = os.fsdecode(b"M\xfcller")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scans of each kind whose names contain a byte that is not UTF-8."""
    folder = tmp_path_factory.mktemp("names")
    head = head_image(head_grid((4.0, 4.0, 8.0)), 20.0)
    for suffix in (".nii.gz", ".nrrd", ".mha"):
        sitk.WriteImage(head, str(folder / f"plain{suffix}"))
        (folder / f"plain{suffix}").rename(folder / f"{NO_TEXT}{suffix}")
    write_dicom_series(head, folder / "series")
    (folder / "series").rename(folder / NO_TEXT)
    return folder


@pytest.mark.parametrize("name", [f"{NO_TEXT}.nii.gz", NO_TEXT])
def test_nifti_and_dicom_are_read_whatever_their_names(name: str, scans: Path) -> None:
    assert read_head_ct(scans / name).image.GetSize()[2] > 8


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_what_only_itk_reads_is_refused_instead_of_ending_the_process(suffix: str, scans: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "HematomaExpansionLib",
            "predict",
            "-i",
            str(scans / f"{NO_TEXT}{suffix}"),
            "-o",
            str(scans / "out"),
        ],
        env=variables(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "not UTF-8): rename it." in done.stderr


def test_a_batch_names_the_reason_in_a_row_and_goes_on(scans: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    arguments = ["batch", "-i", str(scans), "-o", str(output), "--jobs", "1", "--segmenter", "threshold"]
    assert main(arguments) == 0
    table = read_table(output)
    assert sorted(row["status"] for row in table.values()) == ["done", "done", "failed", "failed"]
    reasons = {row["reason"] for row in table.values() if row["status"] == "failed"}
    assert len(reasons) == 1
    assert "rename it" in reasons.pop()
    assert os.fsencode(NO_TEXT) in (output / "cases-private.csv").read_bytes()
    assert main([*arguments, "--resume"]) == 0
    assert list(read_table(output)) == list(table)


def test_such_a_name_of_the_output_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rename it"):
        check_output_folder(tmp_path / NO_TEXT, "prediction")
