"""Killed at any moment, or on a full disk: no partial result, and the next run succeeds."""

from __future__ import annotations

import errno
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import SimpleITK as sitk
from bad_input import BALL_MM
from environment import variables
from HematomaExpansionLib.cli.main import main
from HematomaExpansionLib.errors import InputError
from HematomaExpansionLib.files import folders
from HematomaExpansionLib.models.package import find_package, write_package
from HematomaExpansionLib.scan.volume_files import write_image
from phantoms import head_grid, head_image
from test_prediction import FILES, refused

if TYPE_CHECKING:
    from HematomaSynthesisLib.simulation.patient import SimulatedPatient

pytestmark = pytest.mark.usefixtures("each_brain_found_once")


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faults") / "scan.nii.gz"
    sitk.WriteImage(head_image(head_grid(), BALL_MM), str(path))
    return path


def arguments(scan: Path, output: Path) -> list[str]:
    return ["predict", "-i", str(scan), "-o", str(output), "--segmenter", "threshold", "--device", "cpu"]


def start(scan: Path, output: Path) -> subprocess.Popen[bytes]:
    """Start the command in its own process; it reports each stage on standard output."""
    command = [sys.executable, "-m", "HematomaExpansionLib", *arguments(scan, output), "--json-progress"]
    return subprocess.Popen(command, env=variables(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_a_run_killed_at_any_moment_leaves_no_half_folder(
    kills: int, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    scan, output = tmp_path_factory.mktemp("coarse") / "scan.nii.gz", tmp_path / "result"
    sitk.WriteImage(head_image(head_grid((4.0, 4.0, 8.0)), BALL_MM), str(scan))
    begun = time.perf_counter()
    assert start(scan, output).wait() == 0
    seconds = time.perf_counter() - begun
    assert {path.name for path in output.iterdir()} == FILES
    killed, moments = 0, random.Random(4)
    for number in range(kills):
        place = tmp_path / f"result-{number}"
        process = start(scan, place)
        # Most of the time goes into imports; half of the kills fall into the stages after them.
        if number % 2:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(moments.uniform(0, 0.5 * seconds))
        else:
            time.sleep(moments.uniform(0, 0.9 * seconds))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        assert not place.exists() or {path.name for path in place.iterdir()} == FILES, f"kill {number}"
        assert start(scan, place).wait() == 0
        assert {path.name for path in place.iterdir()} == FILES
        assert not list(tmp_path.glob(".*")), "the killed run's hidden folder holds the patient's CT"
    assert killed >= kills / 2, "too late to have been in time"


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize("kind", [sitk.sitkUInt8, sitk.sitkInt16, sitk.sitkVectorFloat32])
def test_an_image_is_written_whole_or_not_without_a_word(suffix: str, kind: int, tmp_path: Path) -> None:
    """ITK itself leaves half a NIfTI file on a full disk and says nothing."""
    noise = np.random.default_rng(1).integers(0, 200, (9, 50, 40, *([3] * (kind == sitk.sitkVectorFloat32))))
    image = sitk.Cast(sitk.GetImageFromArray(noise, isVector=noise.ndim == 4), kind)
    with files_no_larger_than(9_000), pytest.raises(OSError, match=r"File too large"):
        write_image(image, tmp_path / f"half{suffix}")
    write_image(image, tmp_path / f"whole{suffix}")
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"whole{suffix}"))), noise)


@pytest.mark.parametrize("largest_file_bytes", [0, 2_000, 40_000])
def test_a_full_disk_gets_a_sentence_and_leaves_nothing(
    largest_file_bytes: int, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A limit on the size of files fails in the middle of a file, as a full disk does."""
    output = tmp_path / "result"
    with files_no_larger_than(largest_file_bytes):
        message = refused(capsys, *arguments(scan, output))
    assert "could not be written" in message
    assert not list(tmp_path.iterdir())
    assert main(arguments(scan, output)) == 0


def test_a_simulation_on_a_full_disk_gets_a_sentence_and_goes_on_afterward(
    patient: SimulatedPatient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from HematomaSynthesisLib.simulation import cohort

    monkeypatch.setattr(cohort, "simulate_patient", lambda *_: patient)
    simulate = ["simulate", "-n", "1", "--seed", "1", "--matrix", "96", "-o", str(tmp_path / "cohort")]
    with files_no_larger_than(2_000):
        assert "The result could not be written: a file would be larger" in refused(capsys, *simulate)
    assert not list((tmp_path / "cohort").glob("[!.]*"))
    assert main(simulate) == 0
    assert [path.name for path in (tmp_path / "cohort").iterdir()] == ["simulated-1-0001"]


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_computed(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(**options: object) -> str:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(folders.tempfile, "mkdtemp", read_only)
    begun = time.perf_counter()
    assert "can only be read" in refused(capsys, *arguments(scan, tmp_path / "result"))
    assert time.perf_counter() - begun < 1
    assert "should be a folder is a file" in refused(capsys, *arguments(scan, scan / "below-a-file" / "result"))


def test_a_package_on_a_full_disk_gets_a_sentence_and_leaves_what_was_there(tmp_path: Path) -> None:
    shipped = find_package("growth-compact", "growth")
    package = write_package(tmp_path / "package", shipped.description, shipped.load())
    before = {path.name: path.read_bytes() for path in package.folder.iterdir()}
    with (
        files_no_larger_than(20_000),
        pytest.raises(InputError, match="a file would be larger"),
    ):
        write_package(tmp_path / "package", shipped.description, shipped.load())
    assert {path.name: path.read_bytes() for path in package.folder.iterdir()} == before
    assert list(tmp_path.iterdir()) == [package.folder]
