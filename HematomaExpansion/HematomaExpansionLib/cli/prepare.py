"""The command ``hematoma prepare``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..device import choose_device
from ..files.csv_tables import write_rows
from .options import Commands, add_command, add_device, add_output, add_segmenter, find_segmenter


def add_commands(commands: Commands) -> None:
    """Add it to the command line."""
    prepare = add_command(commands, "prepare", "make a cohort from a hospital's pairs of scans")
    prepare.add_argument(
        "--pairs",
        type=Path,
        required=True,
        metavar="LIST.csv",
        help="list with the columns case, baseline and followup and, if known, baseline_mask, followup_mask, "
        "onset_hours, baseline_label, followup_label (of the hematoma, if the mask has several)",
    )
    add_output(prepare, "COHORT", "cohort folder to write")
    prepare.add_argument(
        "--source",
        default="patients",
        help="whose scans these are, as recorded in every case and in every model trained on them "
        "(default: patients)",
    )
    add_segmenter(prepare)
    add_device(prepare)
    prepare.set_defaults(run=_prepare)


def _prepare(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from ..training.data.preparation import (
        REPORT_FILE,
        PreparedCase,
        check_cohort_folder,
        prepare_cohort,
        read_pairs,
    )

    pairs, segmenter = read_pairs(arguments.pairs), find_segmenter(arguments.segmenter)
    check_cohort_folder(pairs, arguments.output)
    cases = prepare_cohort(pairs, arguments.output, arguments.source, segmenter, choose_device(arguments.device))
    lines = list(tqdm(cases, total=len(pairs), desc="Preparing pairs", disable=None))
    write_rows(PreparedCase, lines, arguments.output / REPORT_FILE)
    for line in lines:
        if not line.prepared:
            print(f"{line.case}: left out. {line.reason}")
    prepared = sum(line.prepared for line in lines)
    found = sum("automatic" in line.masks for line in lines)
    if found:
        print(
            f"Note: In {found} of them a mask was found automatically. Correct it by hand before you take it for "
            "the truth."
        )
    print(f"{prepared} of {len(lines)} pairs prepared; {REPORT_FILE} says what became of each. Research use only.")
    return 0
