"""The command ``hematoma batch``."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .options import (
    Commands,
    add_json_progress,
    reporting,
)
from .predict import add_prediction_options, prediction_options

if TYPE_CHECKING:
    from ..batch.workers import Workers


def add_commands(commands: Commands) -> None:
    """Add it to the command line."""
    parser = commands.add_parser("batch", help="predict every scan of a folder or a list, and make one table")
    parser.add_argument(
        "-i",
        "--input",
        type=Path,
        required=True,
        metavar="FOLDER|LIST.csv",
        help="folder with scans anywhere below it, or list: case, scan, and if known mask, label "
        "(of the hematoma in a mask of several), onset_hours, recurrent, warfarin, intraventricular",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--jobs",
        type=int,
        default=0,
        metavar="N",
        help="processes (default: one per core, at most 4; one on a GPU)",
    )
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="of a Dask cluster that does the work, such as tcp://host:8786"
    )
    parser.add_argument("--resume", action="store_true", help="go on with an earlier run; what is finished stays")
    add_prediction_options(parser)
    add_json_progress(parser)
    parser.set_defaults(run=_batch)


def _batch(arguments: argparse.Namespace) -> int:
    from ..anatomy.segmentation import LOOKED_FOR
    from ..batch.case_numbers import PRIVATE_FILE
    from ..batch.cases import RESULTS_FILE, find_cases
    from ..batch.rows import FAILED, check_batch_folder
    from ..batch.run import run_batch
    from ..output.drawing import new_figure

    if arguments.jobs < 0:
        raise InputError("The number of jobs must not be negative.")
    if arguments.jobs and arguments.scheduler:
        raise InputError("The scheduler knows how many cases its workers take: leave out --jobs.")
    output = arguments.output.absolute()  # a worker may be at home elsewhere
    check_batch_folder(output, arguments.resume)
    new_figure(1, 1, "white")  # as in predict
    options = prediction_options(arguments)
    chosen_workers = _workers(arguments)
    cases = find_cases(arguments.input.absolute(), output)
    with chosen_workers as workers, reporting(arguments.json_progress) as progress:
        rows = run_batch(cases, output, options, workers, progress)
        progress("done", 1.0)
    failed = [row for row in rows if row.status == FAILED]
    if not arguments.json_progress:
        for row in failed:
            print(f"{row.case}: {row.reason}")
        expanding = sum(row.expansion is True for row in rows)
        none_found = sum(row.baseline_ml == 0 for row in rows)
        print(
            f"{len(rows) - len(failed)} of {len(rows)} cases predicted, {expanding} of them with expansion; "
            f"{len(failed)} failed."
        )
        if none_found:
            print(f"In {none_found} no hematoma was found ({LOOKED_FOR}), which excludes no bleed.")
        print(f"A folder for each, and one table: {RESULTS_FILE} in {arguments.output}")
        if any(case.place is not None for case in cases):
            print(f"Which case is which scan: {PRIVATE_FILE}, which is private. It may name patients.")
        print("Research use only.")
    if any(row.unforeseen for row in failed):
        return 1
    if len(failed) == len(rows):
        raise InputError("None of the cases could be predicted. The table of results says why, case by case.")
    return 0


def _workers(arguments: argparse.Namespace) -> AbstractContextManager[Workers]:
    """Those of the scheduler, or of this computer."""
    from ..batch.cluster import connect
    from ..batch.run import default_jobs
    from ..batch.workers import local_workers
    from ..device import choose_device

    if arguments.scheduler:
        return connect(arguments.scheduler)
    return nullcontext(local_workers(arguments.jobs or default_jobs(choose_device(arguments.device))))
