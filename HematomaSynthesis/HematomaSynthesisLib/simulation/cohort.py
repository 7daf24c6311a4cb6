"""A cohort of simulated patients on disk, in the layout that training reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import as_completed
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from HematomaExpansionLib.progress import Progress, silent
from HematomaExpansionLib.volume_files import write_image
from HematomaExpansionLib.workers import case_workers, use_one_torch_thread

from .anatomy import Anatomy, anatomy_from_scan
from .causal_model import SimulationOptions
from .patient import SimulatedPatient, simulate_patient

if TYPE_CHECKING:
    from HematomaExpansionLib.head_ct import HeadCT

# Set once in each worker process: a real scan's anatomy is too large to send with every patient.
_anatomy: Anatomy | None = None


def write_case(patient: SimulatedPatient, folder: Path) -> None:
    """Write one case; the folder appears whole or not at all."""
    unfinished = folder.with_name(f".unfinished-{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    images = {
        "baseline": patient.baseline,
        "baseline-mask": patient.baseline_mask,
        "followup": patient.followup,
        "followup-mask": patient.followup_mask,
    }
    for name, image in images.items():
        write_image(image, unfinished / f"{name}.nii.gz")
    (unfinished / "case.json").write_text(json.dumps(patient.description, indent=2) + "\n", encoding="utf-8")
    unfinished.rename(folder)


def simulate_cohort(
    output: Path,
    count: int,
    seed: int,
    options: SimulationOptions,
    scan: HeadCT | None = None,
    jobs: int = 0,
    progress: Progress = silent,
) -> Iterator[Path]:
    """Simulate patients 1 to ``count`` on all cores (or ``jobs``) and yield each case's folder when it is there.

    Cases already in ``output`` are kept as they are. With ``scan`` the bleeds lie in that real head. ``progress``
    is told of the stages where just one patient is to be made, and of the patients otherwise.
    """
    output.mkdir(parents=True, exist_ok=True)
    folders = {number: output / f"simulated-{seed}-{number:04d}" for number in range(1, count + 1)}
    missing = [number for number, folder in folders.items() if not folder.exists()]
    yield from (folder for folder in folders.values() if folder.exists())
    if len(missing) == 1:
        anatomy = None if scan is None else anatomy_from_scan(scan)
        write_case(simulate_patient(seed, missing[0], options, anatomy, progress), folders[missing[0]])
        yield folders[missing[0]]
        return
    with case_workers(len(missing), jobs, _start_worker, (scan,)) as pool:
        simulate = partial(_simulate_case, seed, options)
        patients = [pool.submit(simulate, number, folders[number]) for number in missing]
        for made, done in enumerate(as_completed(patients), start=1):
            yield done.result()
            progress("patients", made / len(missing))


def _start_worker(scan: HeadCT | None) -> None:
    global _anatomy  # noqa: PLW0603
    use_one_torch_thread()
    _anatomy = None if scan is None else anatomy_from_scan(scan)


def _simulate_case(seed: int, options: SimulationOptions, number: int, folder: Path) -> Path:
    write_case(simulate_patient(seed, number, options, _anatomy), folder)
    return folder
