"""Single simulated scans on disk, each with the class of every voxel: for learning which blood is where.

A case holds ``baseline.nii.gz``, ``baseline-mask.nii.gz`` (the hematoma, empty if there is none),
``baseline-bleeds.nii.gz`` (classes as in ``anatomy.bleeds``, ventricles included) and ``case.json``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from HematomaExpansionLib.anatomy.bleeds import Kind
from HematomaExpansionLib.batch.workers import case_workers, use_one_torch_thread
from HematomaExpansionLib.files.folders import check_output_folder, make_folder, whole_or_nothing
from HematomaExpansionLib.files.provenance import Provenance, is_made_from
from HematomaExpansionLib.progress import Progress, silent
from HematomaExpansionLib.scan.volume_files import write_image
from HematomaExpansionLib.training.data.labelled import SIMULATED_HEAD

from .heads import checksums_of, head_at
from .labelled_scan import LabelledScan, ScanOptions, head_number, simulate_scan

SIMULATED_SCAN = "simulated scan"
"""The kind of folder, as recorded in its provenance."""

_Case = tuple[int, Path, Mapping[str, Any]]
"""Its number, its folder, and what it is made from."""

_AS_IT_IS = ScanOptions(findings=frozenset())
_GROUP = 6
"""Scans that one process makes in a row."""


def write_scan(scan: LabelledScan, folder: Path, made_from: Mapping[str, Any]) -> None:
    """Write one case; the folder appears whole or not at all, and replaces an earlier one.

    Raises:
        InputError: the folder holds something else, or cannot be written.
    """
    hematoma = scan.labels == int(Kind.INTRAPARENCHYMAL)
    with whole_or_nothing(folder, Provenance(SIMULATED_SCAN, made_from)) as scratch:
        write_image(scan.ct, scratch / "baseline.nii.gz")
        write_image(hematoma, scratch / "baseline-mask.nii.gz")
        write_image(scan.labels, scratch / "baseline-bleeds.nii.gz")
        (scratch / "case.json").write_text(json.dumps(scan.description, indent=2) + "\n", encoding="utf-8")


def simulate_scans(
    output: Path,
    count: int,
    seed: int,
    options: ScanOptions,
    heads: list[Path] | None = None,
    jobs: int = 0,
    progress: Progress = silent,
) -> Iterator[Path]:
    """Simulate scans 1 to ``count`` on all cores (or ``jobs``) and yield the folder of each, in order.

    ``heads``: real scans without blood to paint into, in turn; the first time, each is left as it is. Cases
    already in ``output`` that were made from the same inputs are kept; our other cases are replaced.

    Raises:
        InputError: the folder cannot be written, or a folder with a case's name holds something else.
        HematomaError: a head cannot be read.
    """
    heads = heads or []
    make_folder(output)
    checksums = checksums_of(heads)
    chosen = {**asdict(options), "findings": sorted(options.findings), "always": sorted(options.always)}
    if heads:
        del chosen["matrix"]  # a real scan has its own
    sources = [
        {
            "seed": seed,
            "number": number,
            "options": chosen,
            "head": checksums[(number - 1) % len(heads)]
            if heads
            else f"{SIMULATED_HEAD}-{seed}-{head_number(number)}",
        }
        for number in range(1, count + 1)
    ]
    folders = [output / f"scan-{seed}-{number:04d}" for number in range(1, count + 1)]
    missing = [
        k for k, folder in enumerate(folders) if not is_made_from(folder, Provenance(SIMULATED_SCAN, sources[k]))
    ]
    for k in missing:
        if folders[k].exists():
            check_output_folder(folders[k], SIMULATED_SCAN)
    # Scans of one head follow each other in one process, which then makes or reads that head once.
    by_head = sorted(missing, key=lambda k: (k % len(heads), k) if heads else (0, k))
    groups = [by_head[start : start + _GROUP] for start in range(0, len(by_head), _GROUP)]
    make = partial(_simulate_group, seed, options, tuple(heads))
    tasks = [[(k + 1, folders[k], sources[k]) for k in group] for group in groups]
    for done, _ in enumerate(_each(make, tasks, jobs), start=1):
        progress("scans", done / len(tasks))
    yield from folders


def _each(make: Callable[[Sequence[_Case]], None], tasks: Sequence[Sequence[_Case]], jobs: int) -> Iterator[None]:
    """Do each task, in workers unless there is one alone: it is done before a worker would have started."""
    if len(tasks) <= 1:
        yield from map(make, tasks)
        return
    with case_workers(len(tasks), jobs, use_one_torch_thread) as pool:
        yield from pool.map(make, tasks)


def _simulate_group(
    seed: int,
    options: ScanOptions,
    heads: tuple[Path, ...],
    cases: Sequence[_Case],
) -> None:
    for number, folder, made_from in cases:
        head = head_at(heads[(number - 1) % len(heads)]) if heads else None
        chosen = _AS_IT_IS if heads and number <= len(heads) else options
        scan = simulate_scan(seed, number, chosen, head)
        scan.description["head"] = made_from["head"]
        write_scan(scan, folder, made_from)
