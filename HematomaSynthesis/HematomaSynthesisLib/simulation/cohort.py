"""A cohort of simulated patients on disk, in the layout that training reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import as_completed
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from HematomaExpansionLib.batch.workers import case_workers, use_one_torch_thread
from HematomaExpansionLib.files.folders import check_output_folder, make_folder, whole_or_nothing
from HematomaExpansionLib.files.provenance import Provenance, is_made_from
from HematomaExpansionLib.progress import Progress, silent
from HematomaExpansionLib.scan.volume_files import write_image

from .causal_model import SimulationOptions
from .heads import checksums_of, head_at
from .patient import SimulatedPatient, simulate_patient

SIMULATED_CASE = "simulated case"
"""The kind of folder, as recorded in its provenance."""


def write_case(patient: SimulatedPatient, folder: Path, made_from: Mapping[str, Any] | None = None) -> None:
    """Write one case; the folder appears whole or not at all, and replaces an earlier one. ``made_from``: what its
    provenance records, if known.

    Raises:
        InputError: the folder holds something else, or cannot be written.
    """
    images = {
        "baseline": patient.baseline,
        "baseline-mask": patient.baseline_mask.image,
        "followup": patient.followup,
        "followup-mask": patient.followup_mask.image,
    }
    text = json.dumps(patient.description, indent=2) + "\n"
    with whole_or_nothing(folder, Provenance(SIMULATED_CASE, made_from or {})) as scratch:
        for name, image in images.items():
            write_image(image, scratch / f"{name}.nii.gz")
        (scratch / "case.json").write_text(text, encoding="utf-8")


def simulate_cohort(
    output: Path,
    count: int,
    seed: int,
    options: SimulationOptions,
    heads: list[Path] | None = None,
    jobs: int = 0,
    progress: Progress = silent,
) -> Iterator[Path]:
    """Simulate patients 1 to ``count`` on all cores (or ``jobs``) and yield each case's folder when it is done.

    Cases already in ``output`` that were made from the same inputs are kept; our other cases are replaced. With
    ``heads``, the bleeds lie in these real heads, in turn. ``progress`` gets the stages if just one patient is
    made, and the patients otherwise.

    Raises:
        InputError: the folder cannot be written, or a folder with a case's name holds something else.
    """
    make_folder(output)
    folders = {number: output / f"simulated-{seed}-{number:04d}" for number in range(1, count + 1)}
    checksums = checksums_of(heads) if heads else ["icbm"]
    common = {"seed": seed, "options": asdict(options)}
    sources = {
        number: {**common, "anatomy": checksums[(number - 1) % len(checksums)], "number": number}
        for number in folders
    }
    head_of = {number: heads[(number - 1) % len(heads)] if heads else None for number in folders}
    missing = [
        number
        for number, folder in folders.items()
        if not is_made_from(folder, Provenance(SIMULATED_CASE, sources[number]))
    ]
    for number in missing:
        if folders[number].exists():
            check_output_folder(folders[number], SIMULATED_CASE)
    yield from (folder for number, folder in folders.items() if number not in missing)
    if len(missing) == 1:
        (number,) = missing
        head = head_of[number]
        anatomy = None if head is None else head_at(head)
        write_case(simulate_patient(seed, number, options, anatomy, progress), folders[number], sources[number])
        yield folders[number]
        return
    with case_workers(len(missing), jobs, use_one_torch_thread) as pool:
        simulate = partial(_simulate_case, seed, options)
        patients = [
            pool.submit(simulate, number, head_of[number], folders[number], sources[number]) for number in missing
        ]
        for made, done in enumerate(as_completed(patients), start=1):
            yield done.result()
            progress("patients", made / len(missing))


def _simulate_case(
    seed: int,
    options: SimulationOptions,
    number: int,
    head: Path | None,
    folder: Path,
    made_from: Mapping[str, Any],
) -> Path:
    anatomy = None if head is None else head_at(head)
    write_case(simulate_patient(seed, number, options, anatomy), folder, made_from)
    return folder
