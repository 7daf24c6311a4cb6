"""The files of a prediction, written from its nodes."""

from __future__ import annotations

import csv
from itertools import count
from pathlib import Path

from .prediction_nodes import PredictionRun, measures, prediction_of

_FOLDER = "hematoma-expansion"


def export_run(run: PredictionRun, parent: Path) -> Path:
    """Write what ``hematoma predict`` leaves, and the table as CSV, into a new folder in ``parent``; returns it.

    Raises:
        NodeError: the scan was removed from the scene.
        InputError: the folder cannot be written.
        MissingLibraryError: matplotlib is not installed.
    """
    from HematomaExpansionLib.prediction_folder import write_prediction

    names = (f"{_FOLDER}-{number}" for number in count(1))
    folder = next(parent / name for name in names if not (parent / name).exists())
    write_prediction(prediction_of(run), folder)
    with (folder / "measures.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["measure", "value", "unit"])
        writer.writerows(measures(run.result, run.comparison))
    return folder
