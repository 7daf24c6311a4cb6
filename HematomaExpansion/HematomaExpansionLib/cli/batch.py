"""The command ``hematoma batch``."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from ..errors import InputError
from .options import Commands, add_command, add_input, add_json_progress, add_output, reporting
from .predict import add_prediction_options, prediction_options

if TYPE_CHECKING:
    from ..batch.workers import Workers


def add_commands(commands: Commands) -> None:
    """Add it to the command line."""
    parser = add_command(
        commands, "batch", "predict every scan in a folder or list, with one table of all results"
    )
    add_input(
        parser,
        "FOLDER|LIST.csv",
        "folder, searched for scans at any depth, or list with the columns case, scan and, if known, mask, "
        "label (of the hematoma, if the mask has several), box (for a segmenter that looks in one), onset_hours, "
        "recurrent, warfarin, intraventricular",
    )
    add_output(parser, "DIR", "folder for the results")
    parser.add_argument(
        "--jobs",
        type=int,
        default=0,
        metavar="N",
        help="number of processes (default: one per core, at most 4; one with a GPU)",
    )
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="address of a Dask cluster that does the work, such as tcp://host:8786",
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue an earlier run: keep what is finished, do the rest"
    )
    add_prediction_options(parser)
    add_json_progress(parser)
    parser.set_defaults(run=_batch)


def _batch(arguments: argparse.Namespace) -> int:
    from ..batch.case_numbers import PRIVATE_FILE
    from ..batch.cases import RESULTS_FILE, find_cases
    from ..batch.rows import FAILED, check_batch_folder
    from ..batch.run import run_batch
    from ..output.drawing import new_figure

    if arguments.jobs < 0:
        raise InputError("The number of jobs must not be negative.")
    if arguments.jobs and arguments.scheduler:
        raise InputError(
            "With --scheduler, the cluster's workers decide how many cases run at once: leave out --jobs."
        )
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
        likely = sum((row.probability_of_expansion or 0.0) >= 0.5 for row in rows)
        none_found = sum(row.baseline_ml == 0 for row in rows)
        print(
            f"{len(rows) - len(failed)} of {len(rows)} cases predicted, {likely} of them more likely to expand "
            f"than not; {len(failed)} failed."
        )
        if none_found:
            print(
                f"No hematoma was found in {none_found} of them. Each result says what was looked for; "
                "finding none does not rule out a bleed."
            )
        if doubtful := sum(bool(row.doubtful) for row in rows):
            print(f"In {doubtful} of them it is doubtful whether there is a hematoma: look at these scans.")
        print(f"One folder per case, and one table of all, {RESULTS_FILE}, in {arguments.output}")
        if any(case.place is not None for case in cases):
            print(f"{PRIVATE_FILE} says which case is which scan. Keep it private: it may name patients.")
        print("Research use only.")
    if any(row.unforeseen for row in failed):
        return 1
    if len(failed) == len(rows):
        raise InputError(f"None of the cases could be predicted. {RESULTS_FILE} says why, case by case.")
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
