"""SIGTERM: a command ends within seconds, keeps what a later run can resume from, and leaves nothing half done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from environment import variables
from HematomaExpansionLib.cli.main import main
from HematomaExpansionLib.stopping import STOPPED_STATUS

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals differ")

TRAINING = """
import sys, threading, time
from pathlib import Path
import numpy as np
import torch
from HematomaExpansionLib.cli import main as commands
from HematomaExpansionLib.training.segmentation import training as segmentation_training
from HematomaExpansionLib.training.data import cohort

def samples(folder):
    if sys.argv[2] == "preparing":
        Path(f"{sys.argv[1]}/at-work-{folder.name}").touch()
        time.sleep(120)
    mask = np.zeros((1, 32, 64, 64), np.uint8)
    mask[:, 10:20, 20:40, 20:40] = 1
    scan = {"ct": np.full((1, 32, 64, 64), 0.3, np.float16), "mask": mask, "bone": np.zeros_like(mask)}
    return [scan, scan]

segmentation_training.prepare_segmentation_samples = samples
if __name__ == "__main__":
    arguments = ["train", "segmentation", "--cohort", f"{sys.argv[1]}/cohort", "-o", f"{sys.argv[1]}/package"]
    options = ["--channels", "4,4,8,8", "--epochs", "10000", "--batch-size", "1", "--seed", "3"]
    sys.exit(commands.main([*arguments, *options]))
"""


def start(folder: Path, stage: str, cases: int) -> subprocess.Popen[str]:
    """Start a training on simple shapes in its own process; at the stage ``preparing``, it waits."""
    for number in range(cases):
        case = folder / "cohort" / f"case-{number}"
        case.mkdir(parents=True)
        for name in ("baseline", "baseline-mask", "followup", "followup-mask"):
            (case / f"{name}.nii.gz").touch()
        (case / "case.json").write_text(json.dumps({"source": "simulated"}))
    (folder / "training.py").write_text(TRAINING)
    command = [sys.executable, str(folder / "training.py"), str(folder), stage]
    return subprocess.Popen(command, env=variables(), stderr=subprocess.PIPE, text=True)


def stop(process: subprocess.Popen[str]) -> tuple[float, str]:
    """Tell it to end; returns how many seconds it took, and what it said last."""
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    messages = process.communicate(timeout=60)[1]
    return time.monotonic() - begun, messages.splitlines()[-1]


def wait_for(process: subprocess.Popen[str], folder: Path, pattern: str, count: int) -> None:
    deadline = time.monotonic() + 120
    while process.poll() is None and len(list(folder.glob(pattern))) < count and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(list(folder.glob(pattern))) >= count, process.communicate()


def test_a_stopped_training_ends_at_once_and_can_resume(tmp_path: Path) -> None:
    process = start(tmp_path, "training", cases=2)
    wait_for(process, tmp_path, "package/training/**/last.ckpt", 1)
    seconds, message = stop(process)
    assert process.returncode == STOPPED_STATUS
    assert seconds < 30, "the ten thousand epochs take hours"
    assert message.startswith("hematoma: Stopped on request")
    assert "resumes after the last epoch" in message
    assert not (tmp_path / "package" / "model.json").exists()
    import torch

    (checkpoint,) = (tmp_path / "package").glob("training/**/last.ckpt")
    assert torch.load(checkpoint, weights_only=True)["epoch"] >= 0, "it is whole"


def test_a_preparation_told_to_end_stops_with_its_workers(tmp_path: Path) -> None:
    process = start(tmp_path, "preparing", cases=10)
    wait_for(process, tmp_path, "at-work-*", 2)
    seconds, message = stop(process)
    assert process.returncode == STOPPED_STATUS
    assert seconds < 30, "the cases that were begun take two minutes"
    assert message.startswith("hematoma: Stopped on request")
    assert not (tmp_path / "package" / "model.json").exists()


DEAF = """
import ctypes
from HematomaExpansionLib import stopping

stopping._SECONDS_FOR_ORDER = 0.5
library, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
with stopping.clean_stop():
    print("ready", flush=True)
    for _ in range(2):  # the second waits for ever
        library.pthread_mutex_lock(mutex)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="its C library is used")
def test_a_step_deaf_to_signals_is_ended_anyway() -> None:
    """Such as one step of a large network: Python delivers a signal only after the main thread's current call."""
    process = subprocess.Popen([sys.executable, "-c", DEAF], env=variables(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(1.0)  # until it waits
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == STOPPED_STATUS


def test_within_another_program_the_signal_is_given_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "HematomaExpansionLib.cli.models.available_packages", lambda: os.kill(os.getpid(), signal.SIGTERM)
    )
    assert main(["models", "list"]) == STOPPED_STATUS
    assert "Stopped on request" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
