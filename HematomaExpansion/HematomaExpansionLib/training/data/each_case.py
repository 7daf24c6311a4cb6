"""The same work on every case of a cohort; a faulty case does not stop the others."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ...batch.workers import available_cores, each_result, local_workers
from ...errors import HematomaError, InputError
from .case_description import name_of

if TYPE_CHECKING:
    import torch

Sample = TypeVar("Sample")

_FEW_CASES = 6
"""Up to this many cases are done before workers would have started."""

_UNEXPECTED = "Its computation failed unexpectedly; the terminal shows details."
_WORKER_DIED = "Its computation ended unexpectedly, most likely for lack of memory."


@dataclass(frozen=True)
class LeftOut:
    """A case that could not be used, and why, as a sentence."""

    case: str
    reason: str

    def __str__(self) -> str:
        return f"{self.case} was left out. {self.reason}"


def prepare_all(
    prepare: Callable[[Path], Sample], folders: Sequence[Path], title: str, device: torch.device | None = None
) -> list[Sample]:
    """Apply ``prepare`` to each case folder, like ``prepare_each``, and refuse unusable cases.

    Raises:
        InputError: some cases cannot be used; all of them are named.
    """
    done = prepare_each(prepare, folders, title, device)
    left_out = [result for result in done if isinstance(result, LeftOut)]
    if left_out:
        raise InputError(
            f"{len(left_out)} of {len(folders)} cases cannot be used: fix or remove them. {reasons(left_out)}"
        )
    return [result for result in done if not isinstance(result, LeftOut)]


def readable(read: Callable[[Path], Sample], folders: Sequence[Path]) -> list[Sample]:
    """What ``read`` returns for the cases that can be read, for checks before the work; the work itself will
    report the others.
    """
    done = prepare_each(read, folders, "Reading masks")
    return [result for result in done if not isinstance(result, LeftOut)]


def reasons(left_out: Sequence[LeftOut]) -> str:
    """The cases and why they were left out, as text for a message."""
    return " ".join(f"{case.case}: {case.reason}" for case in left_out)


def prepare_each(
    prepare: Callable[[Path], Sample], folders: Sequence[Path], title: str, device: torch.device | None = None
) -> list[Sample | LeftOut]:
    """Apply ``prepare`` to each case folder, with a progress bar; results are in the given order. Uses all cores,
    unless ``prepare`` runs on a GPU, whose memory fits only one case, or there are few cases. A faulty case does
    not stop the others.
    """
    from tqdm import tqdm

    attempt = partial(_attempt, prepare)
    if len(folders) <= _FEW_CASES:
        return [attempt(folder) for folder in tqdm(folders, desc=title, disable=None)]
    workers = local_workers(1 if device is not None and device.type == "cuda" else available_cores())
    results: dict[Path, Sample | LeftOut] = {}
    ended = each_result(partial(_boxed, attempt), folders, workers.open, 2 * workers.jobs)
    for folder, boxed in tqdm(ended, total=len(folders), desc=title, disable=None):
        results[folder] = LeftOut(name_of(folder), _WORKER_DIED) if boxed is None else boxed[0]
    return [results[folder] for folder in folders]


def _boxed(attempt: Callable[[Path], Sample], folder: Path) -> tuple[Sample]:
    """A boxed result, so that None as a result differs from no result."""
    return (attempt(folder),)


def _attempt(prepare: Callable[[Path], Sample], folder: Path) -> Sample | LeftOut:
    """``prepare``, with a failure turned into ``LeftOut``; called in a worker."""
    try:
        return prepare(folder)
    except HematomaError as error:
        return LeftOut(name_of(folder), str(error))
    except MemoryError:
        return LeftOut(name_of(folder), _WORKER_DIED)
    except Exception:
        traceback.print_exc()
        return LeftOut(name_of(folder), _UNEXPECTED)


def prepare_parts(
    prepare: Callable[[Path], list[Sample]], training: Sequence[Path], validation: Sequence[Path]
) -> tuple[list[Sample], list[Sample]]:
    """The samples that ``prepare`` returns for the case folders: training samples and validation samples.

    Raises:
        InputError: some cases cannot be used; all of them are named.
    """
    prepared = prepare_all(prepare, [*training, *validation], "Preparing cases")
    learned, unseen = prepared[: len(training)], prepared[len(training) :]
    return [sample for own in learned for sample in own], [sample for own in unseen for sample in own]


def rows_of_all(
    evaluate: Callable[[Path], list[Sample]],
    folders: Sequence[Path],
    device: torch.device,
    left_out: list[LeftOut] | None = None,
) -> list[Sample]:
    """The rows that ``evaluate`` returns for all case folders, case after case.

    ``left_out`` collects the cases that cannot be evaluated; without it, a single such case is an error.

    Raises:
        InputError: none of the cases can be evaluated, or, without ``left_out``, some cannot.
    """
    if left_out is None:
        return [row for rows in prepare_all(evaluate, folders, "Cases", device) for row in rows]
    done = prepare_each(evaluate, folders, "Cases", device)
    left_out += [result for result in done if isinstance(result, LeftOut)]
    if len(left_out) == len(folders):
        raise InputError(f"None of the {len(folders)} cases can be used. {reasons(left_out)}")
    return [row for rows in done if not isinstance(rows, LeftOut) for row in rows]
