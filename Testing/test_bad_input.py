"""Given anything, ``predict`` returns a right result or a sentence, never a traceback, within time and memory."""

from __future__ import annotations

import contextlib
import io
import json
import resource
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from bad_input import BALL_ML, Input, make_bad_input
from HematomaExpansionLib.batch.workers import case_workers, use_one_torch_thread
from HematomaExpansionLib.cli.main import main
from HematomaExpansionLib.scan.grid import Grid

MAX_SECONDS, MAX_GIB = 120.0, 4.0
VOLUME_TOLERANCE = 0.12
"""Half a voxel of 2 mm on the surface of a ball of 18 mm radius is 15 %."""
PLACE_TOLERANCE_MM = 1.5


@dataclass(frozen=True)
class Outcome:
    """How ``predict`` ended; ``raised`` holds what it should never raise."""

    status: int
    sentence: str
    raised: str
    seconds: float
    peak_gib: float


def run_predict(case: Input, output: Path) -> Outcome:
    arguments = ["predict", "-i", str(case.scan), "-o", str(output), "--segmenter", "threshold"]
    mask = [] if case.mask is None else ["--mask", str(case.mask)]
    said, start, status, raised = io.StringIO(), time.perf_counter(), -1, ""
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            status = main([*arguments, *mask, "--device", "cpu"])
        except BaseException as error:
            raised = repr(error)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    return Outcome(status, said.getvalue().strip(), raised, time.perf_counter() - start, peak)


def fault(case: Input, outcome: Outcome, output: Path) -> str:
    """What is wrong with an outcome, or nothing."""
    if outcome.raised or outcome.status not in (0, 2):
        return f"status {outcome.status}, raised {outcome.raised}"
    if outcome.seconds > MAX_SECONDS or outcome.peak_gib > MAX_GIB:
        return f"{outcome.seconds:.0f} s, {outcome.peak_gib:.1f} GiB"
    if outcome.status == 2:
        return fault_of_refusal(case, outcome.sentence, output)
    if case.expected == "refused":
        return "not refused"
    return "" if case.expected == "no crash" else fault_of_result(case, output)


def fault_of_refusal(case: Input, sentence: str, output: Path) -> str:
    if not sentence.startswith("hematoma: ") or not sentence.endswith(".") or "\n" in sentence:
        return f"not one sentence: {sentence}"
    if output.exists():
        return "refused, and yet a folder was left"
    return f"refused: {sentence}" if case.expected == "right" else ""


def fault_of_result(case: Input, output: Path) -> str:
    result = json.loads((output / "prediction.json").read_text(encoding="utf-8"))
    volume = result["baseline"]["volume_ml"]
    if abs(volume / BALL_ML - 1) > VOLUME_TOLERANCE:
        return f"{volume:.1f} mL in place of {BALL_ML:.1f}"
    mask = sitk.ReadImage(str(output / "baseline-mask.nii.gz"))
    indices = np.argwhere(sitk.GetArrayViewFromImage(mask))[:, ::-1].mean(axis=0)
    distance = float(np.linalg.norm(Grid.of(mask).point(indices) - np.array(case.center_mm)))
    if distance > PLACE_TOLERANCE_MM:
        return f"the hematoma lies {distance:.1f} mm from its place"
    return ""


@pytest.mark.parametrize("step", [6, pytest.param(1, marks=pytest.mark.slow)], ids=["a sixth", "all"])
def test_a_right_result_or_a_sentence(step: int, tmp_path: Path) -> None:
    cases = [*make_bad_input(tmp_path, seed=1)]
    assert len(cases) >= 200
    assert len({case.name for case in cases}) == len(cases)
    chosen = cases[::step]
    outputs = [case.scan.parent / "result" for case in chosen]
    # A damaged file might end the process that reads it. One worker is enough: other tests run beside it.
    with case_workers(len(chosen), jobs=1, prepare=use_one_torch_thread) as pool:
        outcomes = list(pool.map(run_predict, chosen, outputs))
    faults = {
        case.name: text
        for case, outcome, output in zip(chosen, outcomes, outputs, strict=True)
        if (text := fault(case, outcome, output))
    }
    assert not faults, "\n".join(f"{name}: {text}" for name, text in faults.items())
