"""Worker processes: they divide up the cases, and end with the program that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
from environment import variables
from HematomaExpansionLib.batch.run import default_jobs
from HematomaExpansionLib.batch.workers import available_cores, case_workers, each_result
from HematomaExpansionLib.errors import InputError
from HematomaExpansionLib.training.data import each_case
from HematomaExpansionLib.training.data.each_case import LeftOut, prepare_all, prepare_each
from worker_tasks import number_of, square, square_or_die


def test_every_case_is_done_once() -> None:
    with case_workers(5, jobs=2) as pool:
        assert list(pool.map(square, range(5))) == [0, 1, 4, 9, 16]


class Counted:
    """Counts the cases that have been handed over but not yet returned."""

    def __init__(self) -> None:
        self.now, self.most, self._lock = 0, 0, threading.Lock()

    def change(self, by: int) -> None:
        with self._lock:
            self.now += by
            self.most = max(self.most, self.now)


class CountingExecutor(ThreadPoolExecutor):
    def __init__(self, counted: Counted) -> None:
        super().__init__(2)
        self._counted = counted

    def submit(self, *arguments: object, **named: object) -> object:  # type: ignore[override]
        self._counted.change(1)
        return super().submit(*arguments, **named)  # type: ignore[arg-type]


def test_no_more_cases_are_handed_over_than_asked_for() -> None:
    counted = Counted()

    def open_workers(left: int) -> Executor:
        assert left == 50
        return CountingExecutor(counted)

    results = {}
    for number, result in each_result(square, range(50), open_workers, max_running=4):
        counted.change(-1)
        results[number] = result
    assert results == {number: number * number for number in range(50)}
    assert counted.most == 4


def test_who_stops_asking_stops_the_work() -> None:
    counted = Counted()
    results = each_result(square, range(50), lambda left: CountingExecutor(counted), max_running=4)
    next(results)
    results.close()
    assert counted.most == 4


@pytest.mark.parametrize("always", [True, False])
def test_only_a_case_whose_worker_dies_twice_has_no_result(always: bool, tmp_path: Path) -> None:
    function = partial(square_or_die, always, tmp_path / "died")
    results = dict(each_result(function, range(12), partial(case_workers, jobs=2), max_running=4))
    expected: dict[int, int | None] = {number: number * number for number in range(12)}
    if always:
        expected[5] = None
    assert results == expected


@pytest.mark.parametrize("few", [100, 6], ids=["here", "in workers"])
def test_whatever_goes_wrong_with_a_case_is_told_with_its_name(
    few: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(each_case, "_FEW_CASES", few)
    folders = [tmp_path / str(number) for number in range(8)]
    done = prepare_each(number_of, folders, "Cases")
    assert [done[k] for k in (0, 1, 2, 6, 7)] == [0, 1, 2, None, 7]
    reasons = [result.reason for result in done[3:6] if isinstance(result, LeftOut)]
    assert len(reasons) == 3
    assert all(
        word in reason for word, reason in zip(("failed unexpectedly", "memory", "sentence"), reasons, strict=True)
    )
    assert "RuntimeError: not foreseen" in capfd.readouterr().err
    with pytest.raises(InputError, match=r"3 of 8 cases .* 3: .* 4: .* 5: A sentence\."):
        prepare_all(number_of, folders, "Cases")


@pytest.mark.skipif(os.name == "nt", reason="signals differ")
def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "many_cases.py"
    script.write_text(
        "import os, time\n"
        "from pathlib import Path\n"
        "from HematomaExpansionLib.batch.workers import case_workers\n"
        "def case(number):\n"
        "    Path(f'worker-{os.getpid()}').touch()\n"
        "    time.sleep(1)\n"
        "if __name__ == '__main__':\n"
        "    with case_workers(100, jobs=2) as pool:\n"
        "        list(pool.map(case, range(100)))\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)], cwd=tmp_path, env=variables())
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("worker-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    workers = [int(path.name.partition("-")[2]) for path in tmp_path.glob("worker-*")]
    assert len(workers) == 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 10
    while any(is_alive(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(is_alive(worker) for worker in workers)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")  # a process that nobody waited for has ended all the same
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system ties no process to cores")
def test_no_more_workers_are_started_than_the_process_has_cores() -> None:
    """A scheduler may give it one core of many."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert available_cores() == 1
        assert default_jobs(torch.device("cpu")) == 1
        with case_workers(9) as pool:
            assert pool._max_workers == 1
    finally:
        os.sched_setaffinity(0, before)
    assert available_cores() == len(before)
