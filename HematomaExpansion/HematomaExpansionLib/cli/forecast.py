"""The commands ``hematoma forecast`` and ``calibrate``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files.csv_tables import Row, read_table, write_table
from ..files.folders import check_output_file, check_output_folder
from ..forecast.facts import SIGNS, Facts
from ..forecast.forecast import (
    BRAIN,
    COLUMNS,
    EVIDENCE,
    QUANTILES,
    Circumstances,
    ForecastModel,
    columns_of,
    make_forecast,
    milliliters,
    notes_on,
)
from ..forecast.patient_table import ANSWERS, FACTS, facts_of_row
from ..models.description import package_name
from ..models.package import PACKAGE, find_package
from .options import (
    Commands,
    add_cohort,
    add_command,
    add_definition,
    add_device,
    add_forecast,
    add_likelihood_ratio,
    add_output,
    add_segmenter,
    check_likelihood_ratio,
    find_segmenter,
    finite,
    print_table,
)
from .training_notes import note_masks, note_registration, package_in, report_training

_RESULTS = (*COLUMNS, "note")
"""Columns that a forecast adds to a table."""

_PRECISION = 6


def add_commands(commands: Commands) -> None:
    """Add both to the command line."""
    forecast = add_command(commands, "forecast", "forecast from numbers alone, without a scan")
    forecast.add_argument("--volume", type=finite, metavar="ML", help="volume of the hematoma now")
    forecast.add_argument("--onset-hours", type=finite, metavar="H", help="hours from symptom onset to the scan")
    forecast.add_argument("--gcs", type=finite, metavar="SCORE", help="Glasgow Coma Scale, 3 to 15")
    for name in (*SIGNS, *ANSWERS):
        forecast.add_argument(
            f"--{name.replace('_', '-')}",
            choices=["yes", "no"],
            help=f"{name.replace('_', ' ')} (default: unknown)",
        )
    forecast.add_argument(
        "--table",
        type=Path,
        metavar="CSV",
        help=f"many patients, one per line: column volume_ml, and any of {', '.join(FACTS)}, empty where unknown",
    )
    forecast.add_argument(
        "-o", "--output", type=Path, metavar="CSV", help="with --table: table to write, which must not exist yet"
    )
    forecast.add_argument(
        "--risk",
        choices=[EVIDENCE, BRAIN],
        default=EVIDENCE,
        help="what the probability of expansion comes from (default: evidence)",
    )
    add_likelihood_ratio(forecast)
    add_forecast(forecast)
    add_definition(forecast)
    forecast.set_defaults(run=_forecast)
    calibrate = add_command(commands, "calibrate", "fit a forecast anew on a hospital's own pairs of scans")
    add_cohort(calibrate)
    add_output(calibrate, "FORECAST", "forecast package to write")
    add_forecast(calibrate, "start from this ")
    calibrate.add_argument("--growth", metavar="NAME|PATH", help="growth model (default: the shipped one)")
    calibrate.add_argument(
        "--masks",
        choices=["both", "true", "automatic"],
        default="both",
        help="masks from which predictions begin: the cases' own, automatic ones, or both (default)",
    )
    add_segmenter(calibrate)
    add_device(calibrate)
    calibrate.set_defaults(run=_calibrate)


def _forecast(arguments: argparse.Namespace) -> int:
    around = Circumstances(
        definition=arguments.expansion_definition,
        whether=arguments.risk,
        likelihood_ratio=arguments.likelihood_ratio,
    )
    check_likelihood_ratio(arguments)
    model = ForecastModel.of(find_package(arguments.forecast, "forecast"))
    given = {name: getattr(arguments, name) for name in FACTS}
    if arguments.table is not None:
        if arguments.volume is not None or any(value is not None for value in given.values()):
            raise InputError("With --table, the patients are those of the table: leave out the options of one.")
        if arguments.output is None:
            raise InputError("With --table, name the table to write with -o.")
        return _forecast_table(arguments.table, arguments.output, model, around)
    if arguments.output is not None:
        raise InputError("Use -o only with --table: a single forecast is printed.")
    if arguments.volume is None:
        raise InputError("Give the volume of the hematoma in mL with --volume, or many patients with --table.")
    _check_counted(given, around)
    answers = {name: given[name] == "yes" for name in (*SIGNS, *ANSWERS) if given[name] is not None}
    signs = {name: float(answers[name]) for name in SIGNS if name in answers}
    known: dict[str, Any] = {**answers, **signs}
    facts = Facts(arguments.volume, arguments.onset_hours, gcs=arguments.gcs, **known)
    _print_forecast(model, facts, around)
    return 0


def _check_counted(given: dict[str, Any], around: Circumstances) -> None:
    """Raise ``InputError`` for something given that the forecast would not count."""
    by_score = {"onset_hours", *ANSWERS}
    by_evidence = {*by_score, "irregular", "blend", "gcs", around.likelihood_ratio}
    counted = by_score if around.whether == BRAIN else by_evidence
    ignored = [name for name, value in given.items() if value is not None and name not in counted]
    if ignored:
        option = f"--{ignored[0].replace('_', '-')}"
        how = (
            f"the BRAIN score does not look at it: leave it out, or use --risk {EVIDENCE}"
            if around.whether == BRAIN
            else f"it counts only with --likelihood-ratio {ignored[0]}"
        )
        raise InputError(f"{option} would not count: {how}.")


def _print_forecast(model: ForecastModel, facts: Facts, around: Circumstances) -> None:
    from ..output.report import forecast_rows

    told = make_forecast(model, facts, around).described
    for note in notes_on(facts, around.whether):
        print(f"Note: {note}")
    print_table(forecast_rows(told))
    percentiles = ", ".join(f"{share} %: {milliliters(told['volume_ml'][str(share)])}" for share in QUANTILES)
    print(f"Follow-up volume in mL, by percentile: {percentiles}")
    print("Research use only.")


def _forecast_table(table: Path, output: Path, model: ForecastModel, around: Circumstances) -> int:
    check_output_file(output)
    rows = read_table(table, ("volume_ml",), FACTS, of="patients", others=True)
    if not rows:
        raise InputError("The table holds no patients: the line with the names of the columns is its only one.")
    columns = [name for name in rows[0].columns if name not in _RESULTS]
    done = [{**{name: row.values[name] for name in columns}, **_result(row, model, around)} for row in rows]
    write_table([*columns, *_RESULTS], done, output)
    without = [each for each in done if each["probability_of_expansion"] == ""]
    for each in done:
        if each["note"]:
            print(f"Note: {each['note']}", file=sys.stderr)
    print(f"{len(done) - len(without)} of {len(done)} patients forecast. Research use only.")
    if len(without) == len(done):
        raise InputError("No patient of the table could be forecast. Its column note says why, line by line.")
    return 0


def _result(row: Row, model: ForecastModel, around: Circumstances) -> dict[str, str]:
    """What a forecast adds to a line of a table; a line that cannot be forecast says why."""
    result = dict.fromkeys(_RESULTS, "")
    try:
        facts, notes = facts_of_row(row)
    except InputError as error:
        return {**result, "note": str(error)}
    numbers = columns_of(make_forecast(model, facts, around).described)
    rounded = {name: "" if value is None else f"{value:.{_PRECISION}g}" for name, value in numbers.items()}
    return {**result, **rounded, "note": " ".join([*notes, *notes_on(facts, around.whether)])}


def _calibrate(arguments: argparse.Namespace) -> int:
    from typing import get_args

    from ..anatomy.mask_source import MaskSource
    from ..device import choose_device
    from ..scan.mask import MaskKind
    from ..training.data.cohort import case_folders
    from ..training.data.each_case import LeftOut
    from ..training.forecast.calibration import calibrate_forecast

    package_name(arguments.output)  # report an invalid name before the work begins
    cases, device = case_folders(arguments.cohort), choose_device(arguments.device)
    if arguments.masks == "true" and arguments.segmenter is not None:
        raise InputError("--segmenter finds automatic masks: leave it out with --masks true.")
    start, growth = find_package(arguments.forecast, "forecast"), find_package(arguments.growth, "growth")
    check_output_folder(arguments.output, PACKAGE)
    note_registration(cases)
    note_masks(cases)
    sources = [
        MaskSource(kind, device, find_segmenter(arguments.segmenter) if kind == "automatic" else None)
        for kind in get_args(MaskKind)
        if arguments.masks in (kind, "both")
    ]
    left_out: list[LeftOut] = []
    before = package_in(arguments.output)
    package = calibrate_forecast(start, cases, arguments.output, growth, sources, left_out)
    for line in left_out:
        print(f"Note: {line}", file=sys.stderr)
    report_training(package, before)
    return 0
