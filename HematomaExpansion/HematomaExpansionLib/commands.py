"""The command line: ``hematoma`` and ``python -m HematomaExpansionLib``.

Exit status 0: done; 2: something that the user can put right, said in one sentence on standard error;
143: told to end (SIGTERM); 1: anything else.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import __version__
from .command_options import (
    Commands,
    add_definition,
    add_device,
    add_json_progress,
    add_label,
    add_risk,
    add_scan,
    add_segmenter,
    find_risk,
    find_segmenter,
    finite,
    print_table,
    reporting,
)
from .errors import HematomaError, InputError, ModelPackageError, file_fault, is_file_fault
from .model_package import (
    DESCRIPTION_FILE,
    ModelPackage,
    available_packages,
    find_package,
    install_package,
    locate_package,
)
from .progress import Stages
from .scores import ClinicalData
from .stopping import STOPPED_STATUS, Stopped, stopped_in_order
from .training.commands import add_training_commands

if TYPE_CHECKING:
    from .prediction import PredictionOptions
    from .workers import Workers

# Packages that add commands of their own where they are present; the engine does not need them.
_COMMAND_PACKAGES = ("HematomaSynthesisLib",)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    try:
        with stopped_in_order():
            chosen = _parser().parse_args(arguments)
            run: Callable[[argparse.Namespace], int] = chosen.run
            return run(chosen)
    except HematomaError as error:
        print(f"hematoma: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if not is_file_fault(error):
            raise
        print(f"hematoma: {file_fault(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except Stopped as stopped:
        print(f"hematoma: Told to end, it stopped before the work was done. {stopped}".rstrip(), file=sys.stderr)
        return STOPPED_STATUS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hematoma",
        description="Prediction of intracerebral hematoma expansion from a head CT. Research use only.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_predict(commands)
    _add_batch(commands)
    _add_segment(commands)
    _add_measure(commands)
    _add_compare(commands)
    _add_export(commands)
    _add_models(commands)
    add_training_commands(commands)
    for name in _COMMAND_PACKAGES:
        if importlib.util.find_spec(name) is not None:
            importlib.import_module(f"{name}.commands").add_commands(commands)
    for command in commands.choices.values():
        command.allow_abbrev = False  # --device, which train lacks, would be taken for its --devices
    return parser


def _add_predict(commands: Commands) -> None:
    parser = commands.add_parser("predict", help="predict the follow-up hematoma of one scan")
    add_scan(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder for the result")
    parser.add_argument(
        "--mask", type=Path, help="the hematoma's mask, used as it is (as for CT, or .seg.nrrd or DICOM SEG)"
    )
    add_label(parser)
    parser.add_argument("--onset-hours", type=finite, metavar="H", help="hours from onset to scan")
    for name, what in (
        ("recurrent", "an earlier intracerebral hemorrhage"),
        ("warfarin", "taken at onset"),
        ("intraventricular", "blood in the ventricles too"),
    ):
        parser.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, help=f"{what}; for BRAIN")
    _add_prediction_options(parser)
    parser.add_argument(
        "--keep-intermediate", action="store_true", help="write the inside of the skull, found on the way, too"
    )
    add_json_progress(parser)
    parser.set_defaults(run=_predict)


def _add_prediction_options(parser: argparse.ArgumentParser) -> None:
    """What is the same for one scan and for many."""
    add_segmenter(parser)
    parser.add_argument("--growth", metavar="NAME|PATH", help="growth model")
    add_risk(parser)
    add_device(parser)
    add_definition(parser)


def _prediction_options(arguments: argparse.Namespace) -> PredictionOptions:
    from .prediction import PredictionOptions

    return PredictionOptions(
        growth=find_package(arguments.growth, "growth"),
        risk=find_risk(arguments.risk),
        segmenter=find_segmenter(arguments.segmenter),
        expansion_definition=arguments.expansion_definition,
        device=arguments.device,
    )


def _predict(arguments: argparse.Namespace) -> int:
    from .folders import check_output_folder
    from .head_ct import read_head_ct
    from .masks import read_given_mask
    from .prediction import predict
    from .prediction_folder import PREDICTION, prediction_sources, write_prediction
    from .report import new_figure, summary_rows

    check_output_folder(arguments.output, PREDICTION)
    new_figure(1, 1, "white")  # what the report needs is missing now, not after the computation
    options = replace(
        _prediction_options(arguments),
        onset_hours=arguments.onset_hours,
        clinical=ClinicalData(arguments.recurrent, arguments.warfarin, arguments.intraventricular),
        keep_intermediate=arguments.keep_intermediate,
    )
    with reporting(arguments.json_progress) as progress:
        stages = Stages(progress)
        with stages("read", 0.0):
            scan = read_head_ct(arguments.input)
            mask = read_given_mask(arguments.mask, scan, arguments.label)
        prediction = predict(scan, options, mask, stages)
        progress("write", 0.8)
        sources = prediction_sources(scan.sha256, arguments.mask, arguments.label, options)
        result = write_prediction(prediction, arguments.output, sources)
        progress("done", 1.0)
    if not arguments.json_progress:
        for warning in result["input"]["warnings"]:
            print(f"Note: {warning}")
        print_table(summary_rows(result))
        print(f"Pictures and report: overlay.png and report.pdf in {arguments.output}")
        print("Research use only.")
    return 0


def _add_batch(commands: Commands) -> None:
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
    _add_prediction_options(parser)
    add_json_progress(parser)
    parser.set_defaults(run=_batch)


def _batch(arguments: argparse.Namespace) -> int:
    from .batch import run_batch
    from .batch_cases import RESULTS_FILE, find_cases
    from .batch_rows import FAILED, check_batch_folder
    from .case_numbers import PRIVATE_FILE
    from .report import new_figure
    from .segmentation import LOOKED_FOR

    if arguments.jobs < 0:
        raise InputError("The number of jobs must not be negative.")
    if arguments.jobs and arguments.scheduler:
        raise InputError("The scheduler knows how many cases its workers take: leave out --jobs.")
    output = arguments.output.absolute()  # a worker may be at home elsewhere
    check_batch_folder(output, arguments.resume)
    new_figure(1, 1, "white")  # as in predict
    options = _prediction_options(arguments)
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
    from .batch import default_jobs
    from .cluster import connect
    from .device import choose_device
    from .workers import local_workers

    if arguments.scheduler:
        return connect(arguments.scheduler)
    return nullcontext(local_workers(arguments.jobs or default_jobs(choose_device(arguments.device))))


def _add_segment(commands: Commands) -> None:
    parser = commands.add_parser("segment", help="find the hematoma and write its mask")
    add_scan(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="MASK", help="new mask file")
    add_segmenter(parser)
    add_device(parser)
    parser.set_defaults(run=_segment)


def _segment(arguments: argparse.Namespace) -> int:
    from .brain import extract_brain
    from .device import choose_device
    from .head_ct import read_head_ct
    from .measures import volume_ml
    from .plausibility import check_plausibility
    from .segmentation import NO_HEMATOMA, segment
    from .volume_files import check_volume_output, write_volume

    check_volume_output(arguments.output)
    segmenter, device = find_segmenter(arguments.segmenter), choose_device(arguments.device)
    with reporting() as progress:
        stages = Stages(progress)
        with stages("read", 0.0):
            scan = read_head_ct(arguments.input)
        with stages("brain", 0.3):
            brain = extract_brain(scan.image)
        with stages("segmentation", 0.6):
            mask = segment(scan.image, brain.mask, segmenter, device)
            notes = [*scan.warnings, *check_plausibility(scan, brain, mask, drawn=False)]
        write_volume(scan.restore(mask), arguments.output)
    if not volume_ml(mask):
        notes.append(NO_HEMATOMA)
    for note in notes:
        print(f"Note: {note}")
    print(f"Hematoma: {volume_ml(mask):.1f} mL. Research use only.")
    return 0


def _add_measure(commands: Commands) -> None:
    parser = commands.add_parser("measure", help="volumes and ABC/2 of a mask, as JSON")
    parser.add_argument("-i", "--input", type=Path, required=True, metavar="MASK", help="the hematoma's mask")
    add_label(parser)
    parser.set_defaults(run=_measure)


def _measure(arguments: argparse.Namespace) -> int:
    from .masks import read_mask_volume
    from .measures import abc2, volume_ml

    volume = read_mask_volume(arguments.input, arguments.label)
    mask = volume.image
    estimate = abc2(mask)
    measures = {
        "research_use_only": True,
        "volume_ml": volume_ml(mask),
        "abc2_ml": estimate.volume_ml,
        "abc2_simplified_ml": estimate.simplified_volume_ml,
        "a_mm": estimate.a_mm,
        "b_mm": estimate.b_mm,
        "c_mm": estimate.c_mm,
        "warnings": list(volume.notes),
    }
    print(json.dumps(measures, indent=2))
    return 0


def _add_compare(commands: Commands) -> None:
    parser = commands.add_parser("compare", help="a prediction against the real follow-up scan")
    for name in ("baseline", "followup"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="CT", help=f"the {name} scan")
        parser.add_argument(
            f"--{name}-mask", type=Path, metavar="MASK", help="its hematoma (default: found automatically)"
        )
        add_label(parser, f"--{name}-mask")
    parser.add_argument("--prediction", type=Path, metavar="DIR", help="what predict left for this baseline")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder for the result")
    add_segmenter(parser)
    add_definition(parser)
    add_device(parser)
    add_json_progress(parser)
    parser.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace) -> int:
    from .comparison import ScanWithMask, compare
    from .comparison_folder import COMPARISON, comparison_rows, write_comparison
    from .folders import check_output_folder
    from .head_ct import read_head_ct
    from .masks import read_given_mask, read_mask_file

    check_output_folder(arguments.output, COMPARISON)

    def read(path: Path, mask: Path | None, label: str | None) -> ScanWithMask:
        scan = read_head_ct(path)
        return ScanWithMask(scan, read_given_mask(mask, scan, label))

    with reporting(arguments.json_progress) as progress:
        stages = Stages(progress)
        with stages("read", 0.0):
            baseline = read(arguments.baseline, arguments.baseline_mask, arguments.baseline_label)
            followup = read(arguments.followup, arguments.followup_mask, arguments.followup_label)
            predicted = None
            if arguments.prediction is not None:
                predicted = read_mask_file(arguments.prediction / "followup-mask.nii.gz")
        comparison = compare(
            baseline,
            followup,
            predicted,
            find_segmenter(arguments.segmenter),
            arguments.device,
            arguments.expansion_definition,
            stages,
        )
        progress("write", 0.9)
        failed = write_comparison(comparison, arguments.output)
        progress("done", 1.0)
    if not arguments.json_progress:
        for sentence in [*comparison.result["warnings"], *failed]:
            print(f"Note: {sentence}")
        print_table(comparison_rows(comparison))
        print(f"Picture and registered follow-up: in {arguments.output}. Research use only.")
    return 0


def _add_export(commands: Commands) -> None:
    parser = commands.add_parser("export", help="what predict leaves, from a prediction in Slicer's scene")
    parser.add_argument("-i", "--input", type=Path, required=True, metavar="DIR", help="what Slicer hands over")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder for the result")
    add_json_progress(parser)
    parser.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> int:
    from .folders import check_output_folder
    from .prediction_folder import PREDICTION, read_parts, write_prediction

    check_output_folder(arguments.output, PREDICTION)
    with reporting(arguments.json_progress) as progress:
        stages = Stages(progress)
        with stages("read", 0.1):
            prediction = read_parts(arguments.input)
        with stages("write", 0.3):
            write_prediction(prediction, arguments.output)
        progress("done", 1.0)
    return 0


def _add_models(commands: Commands) -> None:
    parser = commands.add_parser("models", help="list, show, install and verify model packages")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    actions.add_parser("list", help="the models at hand").set_defaults(run=_list_models)
    show = actions.add_parser("show", help="everything a model says about itself")
    show.add_argument("name", metavar="NAME")
    show.set_defaults(run=_show_model)
    install = actions.add_parser("install", help="install a model package from a folder")
    install.add_argument("path", type=Path, metavar="PATH")
    install.set_defaults(run=_install_model)
    actions.add_parser("verify", help="check every model's checksum").set_defaults(run=_verify_models)


def _list_models(arguments: argparse.Namespace) -> int:
    for package in available_packages():
        if isinstance(package, ModelPackage):
            description = package.description
            kind = f"{description.name} {description.version} ({description.task})"
            print(f"{kind}, trained on {description.trained_on_whom}")
        else:
            print(f"damaged: {package}")
    return 0


def _show_model(arguments: argparse.Namespace) -> int:
    package = locate_package(arguments.name)
    print((package.folder / DESCRIPTION_FILE).read_text(encoding="utf-8"), end="")
    return 0


def _install_model(arguments: argparse.Namespace) -> int:
    package = install_package(arguments.path)
    print(f"Installed {package.description.name} {package.description.version}.")
    return 0


def _verify_models(arguments: argparse.Namespace) -> int:
    """Loads every package, so that a weight that does not fit is found too; the first fault ends it."""
    for package in available_packages():
        if isinstance(package, ModelPackageError):
            raise package
        package.load()
        print(f"{package.description.name} {package.description.version}: intact, sha256 {package.sha256}")
    return 0
