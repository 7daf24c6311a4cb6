"""Variants and simulated patients as jobs in the background."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import slicer
from HematomaExpansionLib.progress import Progress
from HematomaSlicerLib.background import BackgroundCommand, Outcome
from HematomaSlicerLib.jobs import belonging_to, start_job
from HematomaSlicerLib.node_files import Segment, write_segment, write_volume

from .patient_nodes import SimulatedPair, add_patient
from .variant_nodes import VariantSet, add_variants


@dataclass(frozen=True)
class VariantRequest:
    """Which variants to make from a scan; ``iterations`` 0 draws one or two for each."""

    baseline: slicer.vtkMRMLScalarVolumeNode
    hematoma: Segment
    number: int = 5
    family: str = "erosion"
    iterations: int = 0
    in_plane: bool = False
    seed: int = 0


@dataclass(frozen=True)
class PatientRequest:
    """Which patient to simulate; ``anatomy`` None means ICBM152, where thickness and noise apply.

    Volumes in mL, ``noise`` in HU, ``slice_thickness`` in mm, ``irregularity`` as a fraction of the radius.
    """

    seed: int
    site: str
    volume: float
    growth: float
    irregularity: float
    noise: float
    slice_thickness: float
    anatomy: slicer.vtkMRMLScalarVolumeNode | None = None


def start_variants(
    request: VariantRequest, progress: Progress, ended: Callable[[Outcome, VariantSet | None], None]
) -> BackgroundCommand:
    """Make variants in the background; ``ended`` gets the set, whose nodes are then in the scene, or None.

    Raises:
        NodeError: the scan or the segment is empty.
    """
    add = belonging_to(request.baseline, lambda folder, scan: add_variants(folder / "case", scan))
    return start_job(partial(_variant_arguments, request), add, progress, ended)


def start_patient(
    request: PatientRequest, progress: Progress, ended: Callable[[Outcome, SimulatedPair | None], None]
) -> BackgroundCommand:
    """Simulate a patient in the background; ``ended`` gets the nodes of both scans, or None.

    Raises:
        NodeError: the anatomy's volume is empty.
    """
    return start_job(
        partial(_patient_arguments, request),
        lambda folder: add_patient(next((folder / "cohort").glob("simulated-*"))),
        progress,
        ended,
    )


def _variant_arguments(request: VariantRequest, folder: Path) -> list[str]:
    arguments = [
        "synthesize",
        "-i",
        write_volume(request.baseline, folder / "scan.nrrd"),
        "--mask",
        write_segment(request.hematoma, folder / "mask.nrrd"),
        "-o",
        str(folder / "case"),
        "--variants",
        str(request.number),
        "--family",
        request.family,
        "--seed",
        str(request.seed),
    ]
    if request.iterations:
        arguments += ["--iterations", str(request.iterations)]
    return [*arguments, "--in-plane"] if request.in_plane else arguments


def _patient_arguments(request: PatientRequest, folder: Path) -> list[str]:
    arguments = ["simulate", "-n", "1", "--seed", str(request.seed), "-o", str(folder / "cohort")]
    if request.anatomy is None:
        arguments += ["--noise", str(request.noise), "--slice-thickness", str(request.slice_thickness)]
    else:
        arguments += ["--anatomy", write_volume(request.anatomy, folder / "anatomy.nrrd")]
    for name in ("site", "volume", "growth", "irregularity"):
        arguments.append(f"--{name}={getattr(request, name)}")
    return arguments
