"""The batch on a Dask cluster of two local workers, one of which is killed halfway."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import SimpleITK as sitk
from bad_input import BALL_MM
from HematomaExpansionLib.batch.cases import BatchCase
from HematomaExpansionLib.batch.cluster import connect
from HematomaExpansionLib.batch.rows import DONE, WORKER_DIED, CaseRow
from HematomaExpansionLib.batch.run import run_batch
from HematomaExpansionLib.cli.main import main
from HematomaExpansionLib.errors import InputError
from HematomaExpansionLib.prediction import PredictionOptions
from phantoms import head_grid, head_image
from test_batch import options
from test_prediction import FILES, refused

CASES = 12


@pytest.fixture
def address() -> Iterator[str]:
    """The address of a scheduler with two workers, which gives up a case after its second worker has died."""
    import dask
    from distributed import LocalCluster

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
    ):
        yield str(cluster.scheduler_address)


def short_case(options: PredictionOptions, output: Path, case: BatchCase) -> CaseRow:
    """Stands in for a prediction, and marks its start and its end."""
    began = output / f"{case.name}.{os.getpid()}.began"
    again = any(output.glob(f"{case.name}.*.began"))
    began.touch()
    if case.name == "deadly" or (case.name == "deadly once" and not again):
        # A worker holds a result until it is fetched; wait until this worker's others have been.
        while not {path.name.split(".")[0] for path in output.glob(f"*.{os.getpid()}.ended")} <= listed(output):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.1)
    began.rename(began.with_suffix(".ended"))
    return CaseRow(case.name, DONE)


def listed(output: Path) -> set[str]:
    """The cases in the table of a batch."""
    with (output / "results.csv").open(newline="") as file:
        return {row["case"] for row in csv.DictReader(file)}


def test_workers_of_several_threads_are_refused() -> None:
    from distributed import LocalCluster

    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=2,
            processes=False,
            protocol="tcp",
            dashboard_address=None,
            host="127.0.0.1",
        ) as cluster,
        pytest.raises(InputError, match="--nthreads 1"),
        connect(str(cluster.scheduler_address)),
    ):
        pass


@pytest.mark.skipif(os.name == "nt", reason="signals differ")
def test_all_cases_end_once_each_though_a_worker_is_killed(address: str, tmp_path: Path) -> None:
    names = [f"P{number:02}" for number in range(CASES)]
    names[CASES // 2] = "deadly once"
    cases = [BatchCase(name, tmp_path) for name in names]
    with connect(address) as workers:
        assert workers.jobs == 2
        rows = run_batch(cases, tmp_path, options(), workers, predict_one=short_case)
    assert [(row.case, row.status) for row in rows] == [(name, DONE) for name in names]
    ended = [path.name.split(".")[:2] for path in tmp_path.glob("*.ended")]
    assert sorted(name for name, _ in ended) == sorted(names), "once each"
    ((name, killed, _),) = (path.name.split(".") for path in tmp_path.glob("*.began"))
    assert name == "deadly once"
    assert ["deadly once", killed] not in ended, "another worker ended it"
    assert listed(tmp_path) == set(names)


@pytest.mark.skipif(os.name == "nt", reason="signals differ")
def test_a_case_that_kills_every_worker_is_a_failed_row(address: str, tmp_path: Path) -> None:
    cases = [BatchCase(name, tmp_path) for name in ("P1", "deadly", "P2")]
    with connect(address) as workers:
        rows = run_batch(cases, tmp_path, options(), workers, predict_one=short_case)
    assert [row.status for row in rows] == [DONE, "failed", DONE]
    assert rows[1].reason == WORKER_DIED


def test_the_command_hands_its_cases_to_the_scheduler(address: str, tmp_path: Path) -> None:
    scans, output = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    sitk.WriteImage(head_image(head_grid(), BALL_MM), str(scans / "head.nii.gz"))
    arguments = ["batch", "-i", str(scans), "-o", str(output), "--segmenter", "threshold", "--device", "cpu"]
    assert main([*arguments, "--scheduler", address]) == 0
    (case,) = [folder for folder in output.iterdir() if folder.is_dir()]
    assert {path.name for path in case.iterdir()} == FILES
    result = json.loads((case / "prediction.json").read_text())
    assert result["baseline"]["volume_ml"] == pytest.approx(24.4, rel=0.1)


def test_a_scheduler_that_is_not_there_gets_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from HematomaExpansionLib.batch import cluster as module

    monkeypatch.setattr(module, "_TIMEOUT_S", 1)
    sitk.WriteImage(head_image(head_grid(), BALL_MM), str(tmp_path / "head.nii.gz"))
    arguments = ["batch", "-i", str(tmp_path), "-o", str(tmp_path / "out")]
    for address in ("tcp://127.0.0.1:1", "nowhere"):
        assert "No Dask scheduler answers" in refused(capsys, *arguments, "--scheduler", address)
    assert "leave out --jobs" in refused(capsys, *arguments, "--scheduler", "tcp://127.0.0.1:1", "--jobs", "2")


def test_a_scheduler_without_workers_gets_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import LocalCluster
    from HematomaExpansionLib.batch import cluster as module

    monkeypatch.setattr(module, "_TIMEOUT_S", 1)
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=None) as idle,
        pytest.raises(InputError, match="has no workers"),
        connect(idle.scheduler_address),
    ):
        pass


def test_a_scheduler_that_goes_away_gets_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import LocalCluster
    from HematomaExpansionLib.batch import cluster as module

    monkeypatch.setattr(module, "_TIMEOUT_S", 2)  # how long to wait for it
    here = LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None)
    cases = [BatchCase(f"P{number}", tmp_path) for number in range(50)]

    def close(stage: str, fraction: float) -> None:
        if fraction > 0.05:
            here.close()

    with pytest.raises(InputError, match="scheduler is gone"), connect(here.scheduler_address) as workers:
        run_batch(cases, tmp_path, options(), workers, close, short_case)
    with (tmp_path / "results.csv").open(newline="") as file:
        assert all(row["status"] == DONE for row in csv.DictReader(file))
