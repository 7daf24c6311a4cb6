"""The command ``hematoma compare``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from ..markers.scores import found_in_ventricles
from ..progress import Stages
from .options import (
    Commands,
    add_command,
    add_definition,
    add_device,
    add_json_progress,
    add_label,
    add_output,
    add_segmenter,
    find_segmenter,
    print_table,
    reporting,
)


def add_commands(commands: Commands) -> None:
    """Add it to the command line."""
    parser = add_command(
        commands, "compare", "measure the growth in a real follow-up scan, and how well it was predicted"
    )
    for name, title in (("baseline", "baseline"), ("followup", "follow-up")):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="CT", help=f"the {title} scan")
        parser.add_argument(
            f"--{name}-mask", type=Path, metavar="MASK", help="mask of its hematoma (default: found automatically)"
        )
        add_label(parser, f"--{name}-mask")
    parser.add_argument(
        "--prediction", type=Path, metavar="DIR", help="folder that `hematoma predict` wrote for this baseline"
    )
    parser.add_argument(
        "--new-intraventricular",
        action=argparse.BooleanOptionalAction,
        help="whether the follow-up has blood in the ventricles and the baseline had none, for the revised "
        "definition (default: as found in both scans)",
    )
    add_output(parser, "DIR", "folder for the result")
    add_segmenter(parser)
    add_definition(parser)
    add_device(parser)
    add_json_progress(parser)
    parser.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace) -> int:
    from ..comparison import ScanWithMask, compare
    from ..device import choose_device
    from ..files.folders import check_output_folder
    from ..output.comparison_folder import COMPARISON, comparison_rows, write_comparison
    from ..output.prediction_folder import read_result
    from ..scan.mask_files import read_mask_file

    check_output_folder(arguments.output, COMPARISON)
    with reporting(arguments.json_progress) as progress:
        stages = Stages(progress)
        with stages("read", 0.0):
            baseline = ScanWithMask.read(arguments.baseline, arguments.baseline_mask, arguments.baseline_label)
            followup = ScanWithMask.read(arguments.followup, arguments.followup_mask, arguments.followup_label)
            predicted = None
            if arguments.prediction is not None:
                predicted = read_mask_file(arguments.prediction / "followup-mask.nii.gz")
                found_ml = found_in_ventricles(read_result(arguments.prediction) or {})
                baseline = replace(baseline, intraventricular_ml=found_ml)
        comparison = compare(
            baseline,
            followup,
            predicted,
            find_segmenter(arguments.segmenter),
            choose_device(arguments.device),
            arguments.expansion_definition,
            stages,
            arguments.new_intraventricular,
        )
        progress("write", 0.9)
        failed = write_comparison(comparison, arguments.output)
        progress("done", 1.0)
    if not arguments.json_progress:
        for sentence in [*comparison.result["warnings"], *failed]:
            print(f"Note: {sentence}")
        print_table(comparison_rows(comparison))
        print(f"The picture and the registered follow-up are in {arguments.output}. Research use only.")
    return 0
