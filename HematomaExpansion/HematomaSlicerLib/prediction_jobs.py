"""Prediction and comparison as jobs in the background."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import slicer
from HematomaExpansionLib.forecast.forecast import EVIDENCE
from HematomaExpansionLib.markers.scores import NO_CLINICAL_DATA, ClinicalData
from HematomaExpansionLib.progress import Progress

from .background import BackgroundCommand, Outcome
from .jobs import belonging_to, start_job
from .node_files import Segment, write_segment, write_volume
from .node_images import NodeError, box_from_roi
from .prediction_display import Look, apply_look
from .prediction_nodes import BASELINE, PREDICTED, PredictionRun, add_comparison, add_prediction


@dataclass(frozen=True)
class PredictionRequest:
    """What to predict from; ``hematoma`` None: find it automatically. Empty names mean the shipped models.

    ``box``: where a segmentation model that looks in a box should look; None for around what is found.
    ``whether``: what tells the probability, as ``--risk`` takes it.
    """

    baseline: slicer.vtkMRMLScalarVolumeNode
    hematoma: Segment | None = None
    box: slicer.vtkMRMLMarkupsROINode | None = None
    onset_hours: float | None = None
    clinical: ClinicalData = NO_CLINICAL_DATA
    growth_model: str = ""
    segmentation_model: str = ""
    forecast_model: str = ""
    whether: str = EVIDENCE
    device_name: str = "auto"
    expansion_definition: str = "6ml"
    replace_previous: bool = True
    keep_intermediate: bool = False


def start_prediction(
    request: PredictionRequest, progress: Progress, ended: Callable[[Outcome, PredictionRun | None], None]
) -> BackgroundCommand:
    """Predict in the background; ``ended`` gets the run, whose nodes are then in the scene, or None.

    Raises:
        NodeError: the scan, the segment or the box is empty.
    """
    add = belonging_to(request.baseline, partial(_add_run, replace=request.replace_previous))
    return start_job(partial(_prediction_arguments, request), add, progress, ended)


def start_comparison(
    run: PredictionRun,
    followup: slicer.vtkMRMLScalarVolumeNode,
    hematoma: Segment | None,
    progress: Progress,
    ended: Callable[[Outcome, None], None],
) -> BackgroundCommand:
    """Register the real follow-up and measure the prediction against it, in the background.

    Raises:
        NodeError: a scan or a segment is empty, or the run's scan was removed.
    """
    if run.background is None or not run.segment_id(PREDICTED):
        raise NodeError("There is no prediction to compare.")
    add = belonging_to(run.table, lambda folder, _table: add_comparison(run, folder / "result"))
    return start_job(partial(_comparison_arguments, run, followup, hematoma), add, progress, ended)


def _prediction_arguments(request: PredictionRequest, folder: Path) -> list[str]:
    arguments = ["predict", "-i", write_volume(request.baseline, folder / "scan.nrrd")]
    if request.hematoma is not None:
        arguments += ["--mask", write_segment(request.hematoma, folder / "mask.nrrd")]
    if request.box is not None:
        arguments += ["--box", ",".join(f"{value:.4f}" for value in box_from_roi(request.box).values)]
    if request.onset_hours is not None:
        arguments += ["--onset-hours", str(request.onset_hours)]
    for name, answer in asdict(request.clinical).items():
        if isinstance(answer, bool):
            arguments.append(f"--{name}" if answer else f"--no-{name}")
        elif answer is not None:
            arguments += [f"--{name}", str(answer)]
    models = {
        "--growth": request.growth_model,
        "--segmenter": request.segmentation_model,
        "--forecast": request.forecast_model,
        "--risk": request.whether,
    }
    for option, name in models.items():
        if name:
            arguments += [option, name]
    if request.keep_intermediate:
        arguments.append("--keep-intermediate")
    arguments.append("--keep-outcomes")
    arguments += ["--device", request.device_name, "--expansion-definition", request.expansion_definition]
    return [*arguments, "-o", str(folder / "result")]


def _comparison_arguments(
    run: PredictionRun, followup: slicer.vtkMRMLScalarVolumeNode, hematoma: Segment | None, folder: Path
) -> list[str]:
    from HematomaExpansionLib.output.prediction_folder import RESULT_FILE

    assert run.background is not None
    prediction = folder / "prediction"
    prediction.mkdir()
    write_segment(Segment(run.segmentation, run.segment_id(PREDICTED)), prediction / "followup-mask.nii.gz")
    (prediction / RESULT_FILE).write_text(json.dumps(run.result), encoding="utf-8")
    arguments = [
        "compare",
        "--baseline",
        write_volume(run.background, folder / "baseline.nrrd"),
        "--baseline-mask",
        write_segment(Segment(run.segmentation, run.segment_id(BASELINE)), folder / "baseline-mask.nrrd"),
        "--followup",
        write_volume(followup, folder / "followup.nrrd"),
        "--prediction",
        str(prediction),
        "-o",
        str(folder / "result"),
    ]
    if hematoma is not None:
        arguments += ["--followup-mask", write_segment(hematoma, folder / "followup-mask.nrrd")]
    return arguments


def _add_run(folder: Path, scan: slicer.vtkMRMLScalarVolumeNode, replace: bool) -> PredictionRun:
    runs = PredictionRun.in_scene()
    earlier = [run for run in runs if run.scan is not None and run.scan.GetID() == scan.GetID()]
    added = add_prediction(folder / "result", scan)
    apply_look(added, Look())
    if replace:
        name = earlier[0].table.GetName() if earlier else added.table.GetName()
        for run in earlier:
            run.remove()
        added.table.SetName(name)
    return added
