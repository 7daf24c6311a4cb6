"""The command ``hematoma evaluate``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..device import choose_device
from ..errors import InputError
from ..files.csv_tables import write_rows
from ..files.folders import check_output_folder, whole_or_nothing
from ..files.provenance import Provenance
from ..models.description import SHARE_EXPANDED
from ..models.package import ModelPackage, find_package
from ..output.drawing import draw_each
from .options import Commands, add_command, find_segmenter
from .presets import check_task, chosen_risk_preset, growth_preset, mask_source
from .train_options import add_evaluate_options
from .training_notes import note_registration

if TYPE_CHECKING:
    from ..anatomy.mask_source import MaskSource
    from ..training.data.each_case import LeftOut
    from ..training.growth.evaluation import GrowthEvaluation, GrowthRow
    from ..training.risk.logistic import Learner

Summary = dict[str, dict[str, float]]

FOLDS = "folds"
"""In an evaluation's folder: the packages that were trained for it, which later ones may use again."""


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation has found, and how it is put into a folder.

    ``notes``: what there is to know of the figures; it stands, like the cases left out, in the tables and on the
    terminal. ``pictures``: by file name, what draws each.
    """

    summary: Summary
    write_tables: Callable[[Path], None]
    notes: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    pictures: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)


def add_commands(commands: Commands) -> None:
    """Add it to the command line."""
    evaluate = add_command(commands, "evaluate", "evaluate a model on a cohort whose truth is known")
    add_evaluate_options(evaluate)
    evaluate.set_defaults(run=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> int:
    from ..training.data.cohort import case_folders

    evaluate = {
        "growth": _evaluate_growth,
        "segmentation": _evaluate_segmentation,
        "markers": _evaluate_markers,
        "risk": _evaluate_risk,
        "forecast": _evaluate_forecast,
    }
    check_task("evaluate", arguments)
    provenance = Provenance(f"evaluation of {arguments.task}")
    check_output_folder(arguments.output, provenance.kind, keep=[FOLDS])
    # The other tasks, and single scans, know no follow-ups.
    if arguments.task in {"growth", "segmentation", "forecast"} and not _has_kinds(arguments.cohort):
        note_registration(case_folders(arguments.cohort))
    evaluated = evaluate[arguments.task](arguments)
    left_out = {case.case: case.reason for case in evaluated.left_out}
    with whole_or_nothing(arguments.output, provenance, keep=[FOLDS]) as folder:
        evaluated.write_tables(folder)
        notes = [*evaluated.notes, *draw_each(evaluated.pictures, folder)]
        told: dict[str, Any] = {"notes": notes, "left_out": left_out}
        text = json.dumps(evaluated.summary | {name: value for name, value in told.items() if value}, indent=2)
        (folder / f"{arguments.task}.json").write_text(text + "\n", encoding="utf-8")
    print(text)
    for line in (*notes, *evaluated.left_out):
        print(f"Note: {line}", file=sys.stderr)
    return 0


def _evaluate_growth(arguments: argparse.Namespace) -> Evaluated:
    from ..training.growth.evaluation import GrowthRow, evaluate_growth, summarize_growth
    from ..training.growth.figures import draw_growth_examples, draw_growth_figures, expansion_table, growth_table

    evaluation = None if arguments.folds is not None else _growth_evaluation(arguments)
    left_out: list[LeftOut] = []
    notes = _notes(arguments, () if evaluation is None else evaluation.packages)
    rows = _study(arguments) if evaluation is None else evaluate_growth(arguments.cohort, evaluation, left_out)
    summary = summarize_growth(rows)
    tables = {"Cases that expanded": "_expanders", "All cases": ""}
    parts = [f"{title}\n\n{growth_table(summary, label)}" for title, label in tables.items()]
    lines = [f"{line}\n" for line in (*notes, *map(str, left_out))]
    text = "\n".join([*parts, expansion_table(summary), *lines])

    def write_tables(folder: Path) -> None:
        write_rows(GrowthRow, rows, folder / "growth.csv")
        (folder / "growth.md").write_text(text, encoding="utf-8")

    pictures: dict[str, Callable[[Path], None]] = {"growth.png": partial(draw_growth_figures, rows)}
    if evaluation is not None:
        pictures["examples.png"] = partial(draw_growth_examples, evaluation, arguments.cohort, rows)
    return Evaluated(summary, write_tables, notes, left_out, pictures)


def _evaluate_segmentation(arguments: argparse.Namespace) -> Evaluated:
    from ..training.segmentation.evaluation import SegmentationRow, evaluate_segmentation, summarize_segmentation
    from ..training.segmentation.kinds_evaluation import KindRow, evaluate_kinds, summarize_kinds

    segmenter = find_segmenter(arguments.model)
    left_out: list[LeftOut] = []
    if _has_kinds(arguments.cohort):
        of_kinds = evaluate_kinds(arguments.cohort, segmenter, choose_device(arguments.device), left_out)
        return _with_table(arguments, KindRow, of_kinds, summarize_kinds(of_kinds), [segmenter], left_out)
    rows = evaluate_segmentation(arguments.cohort, segmenter, choose_device(arguments.device), left_out)
    return _with_table(arguments, SegmentationRow, rows, summarize_segmentation(rows), [segmenter], left_out)


def _with_table(
    arguments: argparse.Namespace,
    row: type[Any],
    rows: Sequence[Any],
    summary: Summary,
    models: Sequence[ModelPackage | None],
    left_out: list[LeftOut],
) -> Evaluated:
    """An evaluation whose rows are one table, named after the task; ``models``: those evaluated."""

    def write_table(folder: Path) -> None:
        write_rows(row, rows, folder / f"{arguments.task}.csv")

    return Evaluated(summary, write_table, _notes_on_seen(arguments, models), left_out)


def _has_kinds(cohort: Path) -> bool:
    """Whether a cohort holds single scans with kinds of bleeds."""
    from ..training.data.cohort import case_folders
    from ..training.data.labelled import is_labelled

    return all(is_labelled(case) for case in case_folders(cohort))


def _evaluate_markers(arguments: argparse.Namespace) -> Evaluated:
    from ..training.risk.marker_evaluation import MarkerRow, evaluate_markers, summarize_markers

    left_out: list[LeftOut] = []
    rows = evaluate_markers(arguments.cohort, mask_source(arguments), left_out)
    return _with_table(arguments, MarkerRow, rows, summarize_markers(rows), [], left_out)


def _evaluate_risk(arguments: argparse.Namespace) -> Evaluated:
    from ..training.risk.evaluation import (
        RiskRow,
        check_cohort,
        cross_validate_risk,
        draw_risk_figures,
        evaluate_risk,
        summarize_risk,
    )

    source = mask_source(arguments)
    folds = None if arguments.folds is None else _folds(arguments)
    left_out: list[LeftOut] = []
    measured: list[ModelPackage] = []
    if folds is not None:
        check_cohort(arguments.cohort, folds)
        learner = None if arguments.preset == "compact" else _network_learner(arguments, source)
        rows = cross_validate_risk(arguments.cohort, folds, source, arguments.seed or 0, learner, left_out)
        threshold = sum(row.expanded for row in rows) / len(rows)
    else:
        package = find_package(arguments.model, "risk")
        threshold = package.description.result(SHARE_EXPANDED)  # what is missing is told before the work
        measured.append(package)
        check_cohort(arguments.cohort, folds)
        rows = evaluate_risk(arguments.cohort, package, source, left_out)
    return Evaluated(
        summarize_risk(rows, threshold),
        lambda folder: write_rows(RiskRow, rows, folder / "risk.csv"),
        _notes(arguments, measured),
        left_out,
        {"risk.png": partial(draw_risk_figures, rows)},
    )


def _evaluate_forecast(arguments: argparse.Namespace) -> Evaluated:
    from ..forecast.forecast import ForecastModel
    from ..training.forecast.evaluation import (
        ForecastEvaluation,
        ForecastRow,
        cross_validate_forecast,
        evaluate_forecast,
        summarize_forecast,
    )
    from ..training.forecast.figures import draw_forecast_figures, forecast_table

    packages = [find_package(name, "forecast") for name in [arguments.model, *arguments.rival]]
    growth = find_package(arguments.growth, "growth")
    forecasts = {package.description.name: ForecastModel.of(package) for package in packages}
    if len(forecasts) < len(packages):
        raise InputError("Two of the forecasts have the same name, and the table could not tell them apart.")
    evaluation = ForecastEvaluation(growth, mask_source(arguments), forecasts)
    left_out: list[LeftOut] = []
    if arguments.folds is None:
        figures = evaluate_forecast(arguments.cohort, evaluation, left_out)
    else:
        folds = _folds(arguments)
        figures = cross_validate_forecast(arguments.cohort, evaluation, folds, arguments.seed or 0, left_out)
    summary = summarize_forecast(figures)
    notes = _notes(arguments, [*packages, growth])

    def write_tables(folder: Path) -> None:
        write_rows(ForecastRow, figures.rows, folder / "forecast.csv")
        lines = [forecast_table(summary), *(f"{line}\n" for line in (*notes, *map(str, left_out)))]
        (folder / "forecast.md").write_text("\n".join(lines), encoding="utf-8")

    pictures = {"forecast.png": partial(draw_forecast_figures, figures)}
    return Evaluated(summary, write_tables, notes, left_out, pictures)


def _notes(arguments: argparse.Namespace, packages: Sequence[ModelPackage | None]) -> list[str]:
    """What is to be known of figures that true masks have a say in."""
    from ..training.data.case_description import note_on_masks
    from ..training.data.cohort import case_folders

    note = note_on_masks(case_folders(arguments.cohort))
    return [*([] if note is None else [note]), *_notes_on_seen(arguments, packages)]


def _notes_on_seen(arguments: argparse.Namespace, packages: Sequence[ModelPackage | None]) -> list[str]:
    """Which of the models that were measured, or found the masks, have seen some of the cases before."""
    from ..training.data.cohort import case_folders
    from ..training.runs import notes_on_seen_cases

    finders = [mask_source(arguments).segmenter]
    return notes_on_seen_cases([*packages, *finders], case_folders(arguments.cohort))


def _network_learner(arguments: argparse.Namespace, source: MaskSource) -> Learner:
    from ..training.data.cohort import case_folders
    from ..training.risk.networks import network_learner, prepare_images

    preset = chosen_risk_preset(arguments)
    images = prepare_images(preset, source, case_folders(arguments.cohort))
    return network_learner(images, arguments.output / FOLDS, preset, source)


def _folds(arguments: argparse.Namespace) -> int:
    """How many folds; 0 leaves out one case at a time."""
    if arguments.folds == "loo":
        return 0
    if not arguments.folds.isdecimal() or int(arguments.folds) < 2:
        raise InputError("--folds takes a whole number of 2 or more, or loo to leave out one case at a time.")
    return int(arguments.folds)


def _growth_evaluation(arguments: argparse.Namespace) -> GrowthEvaluation:
    from ..training.growth.evaluation import GrowthEvaluation

    return GrowthEvaluation(
        packages=tuple(find_package(name, "growth") for name in [arguments.model, *arguments.rival]),
        source=mask_source(arguments),
    )


def _study(arguments: argparse.Namespace) -> list[GrowthRow]:
    from ..training.growth.study import run_study

    return run_study(
        arguments.cohort,
        arguments.output,
        growth_preset(arguments),
        _folds(arguments),
        mask_source(arguments),
    )
