"""Worker processes: they share out the cases, and end with the program that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from environment import variables
from HematomaExpansionLib.workers import case_workers


def square(number: int) -> int:
    return number * number


def test_every_case_is_done_once() -> None:
    with case_workers(5, jobs=2) as pool:
        assert list(pool.map(square, range(5))) == [0, 1, 4, 9, 16]


@pytest.mark.skipif(os.name == "nt", reason="signals differ")
def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "many_cases.py"
    script.write_text(
        "import os, time\n"
        "from pathlib import Path\n"
        "from HematomaExpansionLib.workers import case_workers\n"
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
