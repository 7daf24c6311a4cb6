"""The commands ``hematoma predict`` and ``export``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..markers.scores import ClinicalData
from ..models.package import find_package
from ..progress import Stages
from .options import (
    Commands,
    add_box,
    add_command,
    add_definition,
    add_device,
    add_export,
    add_forecast,
    add_json_progress,
    add_label,
    add_output,
    add_risk,
    add_scan,
    add_segmenter,
    find_risk,
    find_segmenter,
    finite,
    given_box,
    print_table,
    reporting,
)

if TYPE_CHECKING:
    from ..prediction import PredictionOptions


READERS_SIGNS = ("irregular", "blend")
"""Signs on which a reader may decide beforehand; they weigh most in the forecast."""


def add_commands(commands: Commands) -> None:
    """Add both to the command line."""
    _add_predict(commands)
    add_export(
        commands,
        "export",
        "write the result folder of a prediction made in Slicer",
        "folder for the result",
        _export,
    )


def _add_predict(commands: Commands) -> None:
    parser = add_command(commands, "predict", "predict the follow-up hematoma from one scan")
    add_scan(parser)
    add_output(parser, "DIR", "folder for the result")
    parser.add_argument(
        "--mask",
        type=Path,
        help="the hematoma's mask, used as it is: NIfTI, NRRD, MHA, .seg.nrrd or DICOM SEG "
        "(default: the hematoma is found automatically)",
    )
    add_label(parser)
    add_box(parser)
    parser.add_argument("--onset-hours", type=finite, metavar="H", help="hours from symptom onset to the scan")
    for name, what in (
        ("recurrent", "whether the patient had an earlier intracerebral hemorrhage"),
        ("warfarin", "whether the patient was taking warfarin at onset"),
        ("intraventricular", "whether there is blood in the ventricles too"),
    ):
        parser.add_argument(
            f"--{name}",
            action=argparse.BooleanOptionalAction,
            help=f"{what}, for the forecast and the BRAIN score",
        )
    parser.add_argument("--gcs", type=finite, metavar="SCORE", help="Glasgow Coma Scale, 3 to 15")
    for name in READERS_SIGNS:
        parser.add_argument(
            f"--{name}",
            action=argparse.BooleanOptionalAction,
            help=f"decide on the sign {name!r} yourself (default: as found in the scan)",
        )
    add_prediction_options(parser)
    parser.add_argument(
        "--keep-intermediate", action="store_true", help="also write the mask of the inside of the skull"
    )
    parser.add_argument(
        "--keep-outcomes",
        action="store_true",
        help="also write outcomes.nii.gz: for each voxel around the hematoma, the volume in mL of the smallest "
        "outcome that reaches it",
    )
    parser.add_argument(
        "--dicom",
        action="store_true",
        help="also write the bleeds as a DICOM segmentation, bleeds.dcm, to file with the scan; like the scan's "
        "own files, it names the patient",
    )
    add_json_progress(parser)
    parser.set_defaults(run=_predict)


def add_prediction_options(parser: argparse.ArgumentParser) -> None:
    """What is the same for one scan and for many."""
    add_segmenter(parser)
    parser.add_argument(
        "--growth", metavar="NAME|PATH", help="model that predicts the growth (default: the shipped one)"
    )
    add_forecast(parser)
    add_risk(parser)
    add_device(parser)
    add_definition(parser)


def prediction_options(arguments: argparse.Namespace) -> PredictionOptions:
    from ..prediction import PredictionOptions

    whether, risk = find_risk(arguments)
    return PredictionOptions(
        growth=find_package(arguments.growth, "growth"),
        forecast=find_package(arguments.forecast, "forecast"),
        whether=whether,
        likelihood_ratio=arguments.likelihood_ratio,
        risk=risk,
        segmenter=find_segmenter(arguments.segmenter),
        expansion_definition=arguments.expansion_definition,
        device_name=arguments.device,
    )


def _predict(arguments: argparse.Namespace) -> int:
    from ..files.folders import check_output_folder
    from ..output.dicom_bleeds import check_dicom_output
    from ..output.drawing import new_figure
    from ..output.prediction_folder import PREDICTION, prediction_sources, write_prediction
    from ..output.report import summary_rows
    from ..prediction import predict
    from ..scan.head_ct import read_head_ct
    from ..scan.mask_files import read_given_mask

    check_output_folder(arguments.output, PREDICTION)
    new_figure(1, 1, "white")  # what the report needs is missing now, not after the computation
    box = given_box(arguments)
    if box is not None and arguments.mask is not None:
        raise InputError("A box is where the hematoma is looked for, and --mask says what it is: leave out one.")
    options = replace(
        prediction_options(arguments),
        box=box,
        onset_hours=arguments.onset_hours,
        clinical=ClinicalData(arguments.recurrent, arguments.warfarin, arguments.intraventricular, arguments.gcs),
        decisions={
            name: bool(getattr(arguments, name)) for name in READERS_SIGNS if getattr(arguments, name) is not None
        },
        keep_intermediate=arguments.keep_intermediate,
        keep_outcomes=arguments.keep_outcomes,
    )
    with reporting(arguments.json_progress) as progress:
        stages = Stages(progress)
        with stages("read", 0.0):
            scan = read_head_ct(arguments.input)
            mask = read_given_mask(arguments.mask, scan, arguments.label)
            if arguments.dicom:
                check_dicom_output(scan.dicom_files)
        prediction = predict(scan, options, mask, stages)
        progress("write", 0.8)
        sources = prediction_sources(scan.sha256, arguments.mask, arguments.label, options)
        dicom_files = scan.dicom_files if arguments.dicom else ()
        result = write_prediction(prediction, arguments.output, sources, dicom_files)
        progress("done", 1.0)
    if not arguments.json_progress:
        for warning in result["input"]["warnings"]:
            print(f"Note: {warning}")
        print_table(summary_rows(result))
        print(f"Picture and report: overlay.png and report.pdf in {arguments.output}")
        print("Research use only.")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from ..files.folders import check_output_folder
    from ..output.prediction_folder import PREDICTION, read_parts, write_prediction

    check_output_folder(arguments.output, PREDICTION)
    with reporting(arguments.json_progress) as progress:
        stages = Stages(progress)
        with stages("read", 0.1):
            prediction = read_parts(arguments.input)
        with stages("write", 0.3):
            write_prediction(prediction, arguments.output)
        progress("done", 1.0)
    return 0
