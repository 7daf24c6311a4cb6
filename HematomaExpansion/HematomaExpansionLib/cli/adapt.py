"""The commands ``hematoma adapt`` and ``correct``."""

from __future__ import annotations

import argparse
import json

from ..device import choose_device
from ..files.folders import check_output_folder
from ..models.description import VOLUME_CORRECTION, package_name
from ..models.package import PACKAGE, TRAINING_FOLDER, find_package
from .options import Commands, add_cohort, add_command, add_device, add_output
from .presets import fit_options
from .train_options import add_adapt_options, check
from .training_notes import note_masks, note_registration, package_in, report_training


def add_commands(commands: Commands) -> None:
    """Add both to the command line."""
    adapt = add_command(commands, "adapt", "adapt a segmentation model to another site's scans")
    _add_source_and_output(adapt)
    add_adapt_options(adapt)
    adapt.set_defaults(run=_adapt)
    correct = add_command(commands, "correct", "correct a segmentation model's volumes for its bias")
    _add_source_and_output(correct)
    add_device(correct)
    correct.set_defaults(run=_correct)


def _add_source_and_output(parser: argparse.ArgumentParser) -> None:
    """A model, a cohort, and the model that comes of both."""
    parser.add_argument("source", metavar="PACKAGE", help="segmentation model to start from, by name or folder")
    add_cohort(parser)
    add_output(parser, "NEWPACKAGE", "model package to write")


def _adapt(arguments: argparse.Namespace) -> int:
    from ..training.data.cohort import case_folders
    from ..training.segmentation.adaptation import adapt, adapt_statistics, defaults_for

    check("adapt", arguments)
    package_name(arguments.output)
    source, cases = find_package(arguments.source, "segmentation"), case_folders(arguments.cohort)
    default_rank, preset = defaults_for(source)
    options = fit_options(arguments, preset)
    check_output_folder(arguments.output, PACKAGE, keep=[TRAINING_FOLDER])
    if not arguments.statistics_only:
        note_masks(cases)
    before = package_in(arguments.output)
    if arguments.statistics_only:
        package = adapt_statistics(cases, arguments.output, source, options.seed)
    else:
        note_registration(cases)
        rank = default_rank if arguments.rank is None else arguments.rank
        package = adapt(cases, arguments.output, source, rank, options)
    report_training(package, before)
    return 0


def _correct(arguments: argparse.Namespace) -> int:
    from ..training.data.cohort import case_folders
    from ..training.runs import notes_on_seen_cases
    from ..training.segmentation.volume_correction import correct_volumes

    package_name(arguments.output)
    source = find_package(arguments.source, "segmentation")
    check_output_folder(arguments.output, PACKAGE, keep=[TRAINING_FOLDER])
    package = correct_volumes(arguments.cohort, arguments.output, source, choose_device(arguments.device))
    correction = package.description.settings[VOLUME_CORRECTION]
    print(json.dumps(correction, indent=2))
    for note in notes_on_seen_cases([source], case_folders(arguments.cohort)):
        print(f"Note: {note}")
    if correction["corrected_error_ml"] >= correction["error_ml"]:
        print("Note: In patients left out of the fit, the corrected volumes are no better than the measured ones.")
    return 0
