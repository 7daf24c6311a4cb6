"""The command ``hematoma models compare``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..device import choose_device
from ..errors import InputError
from ..files.csv_tables import write_rows
from ..files.folders import check_output_folder, whole_or_nothing
from ..files.provenance import Provenance
from ..output.drawing import draw_each
from .options import THRESHOLD_SEGMENTER, Commands, add_cohort, add_command, add_device, add_output, find_segmenter

if TYPE_CHECKING:
    import torch

    from ..training.segmentation.model_comparison import FoundRow, FoundScan, Models

_KIND = "comparison of models"


def add_compare(actions: Commands) -> None:
    """Add it to the actions of ``hematoma models``."""
    compare = add_command(
        actions, "compare", "compare segmentation models on scans about which something is known"
    )
    compare.add_argument(
        "--models",
        required=True,
        metavar="A,B,…",
        help=f"models by name or folder; {THRESHOLD_SEGMENTER} is one too",
    )
    add_cohort(compare, required=False)
    compare.add_argument(
        "--labels",
        type=Path,
        metavar="CSV",
        help="in place of a cohort: which kinds of blood readers saw in which slice; the scans lie beside it",
    )
    add_device(compare)
    add_output(compare, "DIR", "folder for tables and pictures")
    compare.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace) -> int:
    from ..output.model_overlays import draw_models
    from ..training.segmentation.model_comparison import FoundRow, comparison_table, summarize_models

    if (arguments.cohort is None) == (arguments.labels is None):
        raise InputError("Name the scans to compare on: either --cohort or --labels.")
    check_output_folder(arguments.output, _KIND)
    models = _models(arguments.models)
    device = choose_device(arguments.device)
    rows: list[FoundRow] = []
    notes: list[str] = []
    with whole_or_nothing(arguments.output, Provenance(_KIND)) as folder:
        for of_scan, found in _found(arguments, models, device):
            rows += of_scan
            for row in of_scan:
                print(f"{row.scan}, {row.model}: {row.intraparenchymal_ml:.1f} mL", file=sys.stderr, flush=True)
            stored = found.scan.restore(found.scan.image)
            picture = {
                f"{of_scan[0].scan}.png": lambda path, ct=stored, own=found.bleeds: draw_models(ct, own, path)
            }
            notes += draw_each(picture, folder)
        summary = summarize_models(rows, models)
        table = comparison_table(summary)
        write_rows(FoundRow, rows, folder / "scans.csv")
        (folder / "models.md").write_text(table, encoding="utf-8")
        (folder / "models.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print(f"{table}\nResearch use only.")
    for note in notes:
        print(f"Note: {note}", file=sys.stderr)
    return 0


def _models(text: str) -> Models:
    names = [name.strip() for name in text.split(",") if name.strip()]
    models = {Path(name).name: find_segmenter(name) for name in names}
    if len(models) < len(names) or not names:
        raise InputError("Name each model once, by names that differ: --models A,B.")
    return models


def _found(
    arguments: argparse.Namespace, models: Models, device: torch.device
) -> Iterator[tuple[list[FoundRow], FoundScan]]:
    from ..training.data.cohort import case_folders
    from ..training.data.reader_labels import read_labels
    from ..training.segmentation.model_comparison import compare_on_cohort, compare_on_labels

    if arguments.cohort is not None:
        return compare_on_cohort(case_folders(arguments.cohort), models, device)
    return compare_on_labels(read_labels(arguments.labels), arguments.labels.parent, models, device)
