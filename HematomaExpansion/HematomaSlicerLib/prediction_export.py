"""Writes the files of a prediction from its nodes; the slow part runs in the background."""

from __future__ import annotations

import csv
from collections.abc import Callable
from itertools import count
from pathlib import Path

from HematomaExpansionLib.progress import Progress

from .background import BackgroundCommand, Outcome
from .jobs import start_job
from .prediction_nodes import PredictionRun, measures, prediction_of

_FOLDER = "hematoma-expansion"


def start_export(
    run: PredictionRun, parent: Path, progress: Progress, ended: Callable[[Outcome, Path | None], None]
) -> BackgroundCommand:
    """Write the files of ``hematoma predict``, and the table as CSV, into a new folder in ``parent``, in the
    background; ``ended`` gets the folder.

    Raises:
        NodeError: the scan was removed from the scene.
    """
    from HematomaExpansionLib.output.prediction_folder import write_parts

    names = (f"{_FOLDER}-{number}" for number in count(1))
    target = next(parent / name for name in names if not (parent / name).exists())
    rows = measures(run.result, run.comparison)

    def arguments(folder: Path) -> list[str]:
        write_parts(prediction_of(run), folder)
        return ["export", "-i", str(folder), "-o", str(target)]

    def add(_folder: Path) -> Path:
        with (target / "measures.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["measure", "value", "unit"])
            writer.writerows(rows)
        return target

    return start_job(arguments, add, progress, ended)
