"""Prediction and comparison as jobs: nodes to files, the engine's command, files to nodes.

A job's files lie in a temporary folder that goes when the job ends, however it ends.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk
import slicer

from .background import BackgroundCommand, Outcome
from .node_images import NodeError, image_from_segment, image_from_volume
from .prediction_display import Look, apply_look
from .prediction_nodes import (
    BASELINE,
    PREDICTED,
    PredictionRun,
    add_comparison,
    add_prediction,
    find_runs,
    remove_run,
)

Progress = Callable[[str, float], None]
_SCAN_IS_GONE = "The scan was removed from the scene while the computation ran: nothing was added."


@dataclass(frozen=True)
class Segment:
    """A segment that the user chose as the hematoma."""

    node: slicer.vtkMRMLSegmentationNode
    segment_id: str


@dataclass(frozen=True)
class PredictionRequest:
    """What to predict from; ``hematoma`` None: it is found automatically. Empty names mean the shipped models."""

    baseline: slicer.vtkMRMLScalarVolumeNode
    hematoma: Segment | None = None
    onset_hours: float | None = None
    growth_model: str = ""
    segmentation_model: str = ""
    device: str = "auto"
    expansion_definition: str = "6ml"
    replace_previous: bool = True


def start_prediction(
    request: PredictionRequest, progress: Progress, ended: Callable[[Outcome, PredictionRun | None], None]
) -> BackgroundCommand:
    """Predict in the background; ``ended`` gets the run whose nodes are in the scene then, or None.

    Raises:
        NodeError: the scan or the segment is empty.
    """
    folder = Path(tempfile.mkdtemp(prefix="hematoma-"))
    scan_id = request.baseline.GetID()

    def finish(outcome: Outcome) -> None:
        run = None
        try:
            if outcome.finished:
                scan = slicer.mrmlScene.GetNodeByID(scan_id)
                if scan is None:
                    outcome = Outcome(False, False, _SCAN_IS_GONE, outcome.log)
                else:
                    run = _add_run(folder / "result", scan, request.replace_previous)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        ended(outcome, run)

    try:
        arguments = ["predict", "-o", str(folder / "result"), *_prediction_arguments(request, folder)]
        return BackgroundCommand(arguments, progress, finish)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def start_comparison(
    run: PredictionRun,
    followup: slicer.vtkMRMLScalarVolumeNode,
    hematoma: Segment | None,
    progress: Progress,
    ended: Callable[[Outcome], None],
) -> BackgroundCommand:
    """Register the real follow-up and measure the prediction against it, in the background.

    Raises:
        NodeError: a scan or a segment is empty, or the run's scan was removed.
    """
    if run.background is None or not run.segment_id(PREDICTED):
        raise NodeError("There is no prediction to compare.")
    folder = Path(tempfile.mkdtemp(prefix="hematoma-"))
    table_id = run.table.GetID()

    def finish(outcome: Outcome) -> None:
        try:
            if outcome.finished:
                if slicer.mrmlScene.GetNodeByID(table_id) is None:
                    outcome = Outcome(False, False, _SCAN_IS_GONE, outcome.log)
                else:
                    add_comparison(run, folder / "result")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        ended(outcome)

    try:
        return BackgroundCommand(_comparison_arguments(run, followup, hematoma, folder), progress, finish)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _prediction_arguments(request: PredictionRequest, folder: Path) -> list[str]:
    arguments = ["-i", _write(image_from_volume(request.baseline), folder / "scan.nrrd")]
    if request.hematoma is not None:
        arguments += ["--mask", _write_segment(request.hematoma, folder / "mask.nrrd")]
    if request.onset_hours is not None:
        arguments += ["--onset-hours", str(request.onset_hours)]
    for option, name in (("--growth", request.growth_model), ("--segmenter", request.segmentation_model)):
        if name:
            arguments += [option, name]
    return [*arguments, "--device", request.device, "--expansion-definition", request.expansion_definition]


def _comparison_arguments(
    run: PredictionRun, followup: slicer.vtkMRMLScalarVolumeNode, hematoma: Segment | None, folder: Path
) -> list[str]:
    prediction = folder / "prediction"
    prediction.mkdir()
    _write_segment(Segment(run.segmentation, run.segment_id(PREDICTED)), prediction / "followup-mask.nii.gz")
    arguments = [
        "compare",
        "--baseline",
        _write(image_from_volume(run.background), folder / "baseline.nrrd"),
        "--baseline-mask",
        _write_segment(Segment(run.segmentation, run.segment_id(BASELINE)), folder / "baseline-mask.nrrd"),
        "--followup",
        _write(image_from_volume(followup), folder / "followup.nrrd"),
        "--prediction",
        str(prediction),
        "-o",
        str(folder / "result"),
    ]
    if hematoma is not None:
        arguments += ["--followup-mask", _write_segment(hematoma, folder / "followup-mask.nrrd")]
    return arguments


def _write_segment(segment: Segment, path: Path) -> str:
    return _write(image_from_segment(segment.node, segment.segment_id), path)


def _write(image: sitk.Image, path: Path) -> str:
    sitk.WriteImage(image, str(path))
    return str(path)


def _add_run(folder: Path, scan: slicer.vtkMRMLScalarVolumeNode, replace: bool) -> PredictionRun:
    earlier = [run for run in find_runs() if run.scan is not None and run.scan.GetID() == scan.GetID()]
    added = add_prediction(folder, scan)
    apply_look(added, Look())
    if replace:
        for run in earlier:
            remove_run(run)
    return added
