"""The commands ``hematoma prepare``, ``train``, ``adapt``, ``correct`` and ``evaluate``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..case_list import write_rows
from ..command_options import Commands, add_device, add_segmenter, find_risk, find_segmenter
from ..errors import InputError, ModelPackageError
from ..folders import check_output_folder, whole_or_nothing
from ..model_description import SHARE_EXPANDED, VOLUME_CORRECTION, Task, package_name
from ..model_package import PACKAGE, TRAINING_FOLDER, ModelPackage, find_package, open_package
from ..pictures import draw_each
from ..provenance import Provenance
from .options import (
    PRESETS,
    SLICES,
    add_adapt_options,
    add_cohort,
    add_evaluate_options,
    add_train_options,
    check,
)

if TYPE_CHECKING:
    from .cohort import LeftOut
    from .evaluation import GrowthEvaluation, GrowthRow
    from .fitting import FitOptions
    from .growth_samples import GrowthPreset
    from .risk_network_training import RiskNetworkPreset
    from .risk_training import Learner

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


def add_training_commands(commands: Commands) -> None:
    """Add them to the command line."""
    prepare = commands.add_parser("prepare", help="make a cohort of a hospital's pairs of scans")
    prepare.add_argument(
        "--pairs",
        type=Path,
        required=True,
        metavar="LIST.csv",
        help="columns case, baseline, followup, and if known baseline_mask, followup_mask, onset_hours; "
        "baseline_label, followup_label: of the hematoma in a mask of several labels",
    )
    prepare.add_argument("-o", "--output", type=Path, required=True, metavar="COHORT", help="folder for the cases")
    prepare.add_argument("--source", default="patients", help="said in every case and in what is trained on it")
    add_segmenter(prepare)
    add_device(prepare)
    prepare.set_defaults(run=_prepare)

    train = commands.add_parser("train", help="train a model on a cohort")
    add_train_options(train)
    train.set_defaults(run=_train)
    adapt = commands.add_parser("adapt", help="adapt a segmentation model to another site's scans")
    _add_source_and_output(adapt)
    add_adapt_options(adapt)
    adapt.set_defaults(run=_adapt)
    correct = commands.add_parser("correct", help="correct a segmentation model's volumes for its bias")
    _add_source_and_output(correct)
    add_device(correct)
    correct.set_defaults(run=_correct)
    evaluate = commands.add_parser("evaluate", help="measure a model on a cohort whose truth is known")
    add_evaluate_options(evaluate)
    evaluate.set_defaults(run=_evaluate)


def _add_source_and_output(parser: argparse.ArgumentParser) -> None:
    """A model, a cohort, and the model that comes of both."""
    parser.add_argument("source", metavar="PACKAGE", help="segmentation model to begin from, by name or folder")
    add_cohort(parser)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="NEWPACKAGE", help="model package to write"
    )


def _prepare(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from .preparation import REPORT_FILE, PreparedCase, check_cohort_folder, prepare_cohort, read_pairs

    pairs, segmenter = read_pairs(arguments.pairs), find_segmenter(arguments.segmenter)
    check_cohort_folder(pairs, arguments.output)
    cases = prepare_cohort(pairs, arguments.output, arguments.source, segmenter, arguments.device)
    lines = list(tqdm(cases, total=len(pairs), desc="Preparing pairs", disable=None))
    write_rows(PreparedCase, lines, arguments.output / REPORT_FILE)
    for line in lines:
        if not line.prepared:
            print(f"{line.case}: left out. {line.reason}")
    prepared = sum(line.prepared for line in lines)
    found = sum("automatic" in line.masks for line in lines)
    if found:
        print(
            f"Note: in {found} of them a mask was found automatically: correct it by hand before it is the truth."
        )
    print(f"{prepared} of {len(lines)} pairs prepared; {REPORT_FILE} says how each fared. Research use only.")
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from .cohort import case_folders

    _check("train", arguments)
    package_name(arguments.output)  # a name that will not do is told before the work
    cases = case_folders(arguments.cohort)
    check_output_folder(arguments.output, PACKAGE, keep=[TRAINING_FOLDER])
    if arguments.task != "risk":  # which looks at baselines alone
        _tell_of_registration(cases)
    train = {"growth": _train_growth, "segmentation": _train_segmentation, "risk": _train_risk}
    _note_masks(cases)
    before = _package_in(arguments.output)
    package = train[arguments.task](arguments, cases)
    _report(package, before)
    return 0


def _tell_of_registration(cases: Sequence[Path]) -> None:
    """Tell before the work where it is to be measured whether follow-ups lie on their baselines."""
    from .cohort import note_on_registration

    note = note_on_registration(cases)
    if note is not None:
        print(f"Note: {note}", file=sys.stderr)


def _note_masks(cases: Sequence[Path]) -> None:
    """Tell before the work where masks that nobody drew are to be learned from."""
    from .cohort import note_on_masks

    note = note_on_masks(cases)
    if note is not None:
        print(f"Note: {note}", file=sys.stderr)


def _package_in(folder: Path) -> ModelPackage | None:
    try:
        return open_package(folder)
    except ModelPackageError:
        return None


def _report(package: ModelPackage, before: ModelPackage | None) -> None:
    """Print the results of a training into a folder that held the package ``before``."""
    print(json.dumps(package.description.results, indent=2))
    if package == before:
        print("Note: The very same training had ended before: nothing was learned anew.", file=sys.stderr)


def _adapt(arguments: argparse.Namespace) -> int:
    from .adaptation import FIT, RANK, adapt, adapt_statistics
    from .cohort import case_folders

    check("adapt", arguments)
    package_name(arguments.output)
    source, cases = find_package(arguments.source, "segmentation"), case_folders(arguments.cohort)
    options = _fit_options(arguments, FIT)
    check_output_folder(arguments.output, PACKAGE, keep=[TRAINING_FOLDER])
    if not arguments.statistics_only:
        _note_masks(cases)
    before = _package_in(arguments.output)
    if arguments.statistics_only:
        package = adapt_statistics(cases, arguments.output, source, options.seed)
    else:
        _tell_of_registration(cases)
        rank = RANK if arguments.rank is None else arguments.rank
        package = adapt(cases, arguments.output, source, rank, options)
    _report(package, before)
    return 0


def _correct(arguments: argparse.Namespace) -> int:
    from .cohort import case_folders
    from .runs import notes_on_seen_cases
    from .volume_correction import correct_volumes

    package_name(arguments.output)
    source = find_package(arguments.source, "segmentation")
    check_output_folder(arguments.output, PACKAGE, keep=[TRAINING_FOLDER])
    package = correct_volumes(arguments.cohort, arguments.output, source, arguments.device)
    correction = package.description.settings[VOLUME_CORRECTION]
    print(json.dumps(correction, indent=2))
    for note in notes_on_seen_cases([source], case_folders(arguments.cohort)):
        print(f"Note: {note}")
    if correction["corrected_error_ml"] >= correction["error_ml"]:
        print("Note: on patients left out of the fit the corrected volumes are no better than the measured ones.")
    return 0


def _train_risk(arguments: argparse.Namespace, cases: list[Path]) -> ModelPackage:
    from .cohort import has_expanded, readable
    from .risk_training import check_kinds, train_risk

    if arguments.masks == "both":
        raise InputError("A risk model is trained with --masks true or automatic, not with both.")
    segmenter = find_segmenter(arguments.segmenter) if arguments.masks == "automatic" else None
    preset = None if arguments.preset == "compact" else _risk_preset(arguments)
    check_kinds(readable(has_expanded, cases))
    if preset is None:
        return train_risk(cases, arguments.output, arguments.masks, segmenter, "cpu", arguments.seed or 0)
    from .risk_network_training import train_risk_network

    return train_risk_network(cases, arguments.output, preset, arguments.masks, segmenter, "cpu")


def _train_growth(arguments: argparse.Namespace, cases: list[Path]) -> ModelPackage:
    from .cohort import case_folders
    from .growth_calibration import Calibration, calibrate_growth, check_calibration
    from .growth_training import train_growth

    if arguments.masks == "automatic":
        raise InputError("A growth model is trained with --masks true or both.")
    segmenter = find_package(arguments.segmenter, "segmentation") if arguments.masks == "both" else None
    start, preset = _start(arguments, "growth"), _growth_preset(arguments)
    members = 1 if arguments.members is None else arguments.members
    if members < 1 or (members > 1 and start):
        raise InputError("--members takes 1 or more networks, which begin at random: leave out --start.")
    calibration = None
    if arguments.calibration is not None:
        calibration = Calibration(case_folders(arguments.calibration), find_risk(arguments.risk))
        check_calibration(calibration.cases, cases, [*start, *([calibration.risk] if calibration.risk else [])])
    preset = replace(preset, members=members)
    if len(start) == 1 and arguments.epochs == 0:
        return calibrate_growth(start[0], cases, arguments.output, preset, segmenter, find_risk(arguments.risk))
    return train_growth(
        cases,
        arguments.output,
        preset,
        only_expanded=bool(arguments.only_expanded),
        segmenter=segmenter,
        start=start,
        calibration=calibration,
    )


def _train_segmentation(arguments: argparse.Namespace, cases: list[Path]) -> ModelPackage:
    from .segmentation_training import CHANNELS, FIT, train_segmentation

    if arguments.preset == SLICES:
        return _train_slice_segmentation(arguments, cases)
    channels = _widths(arguments.channels) or CHANNELS
    start = _start(arguments, "segmentation")
    return train_segmentation(cases, arguments.output, channels, _fit_options(arguments, FIT), start)


def _train_slice_segmentation(arguments: argparse.Namespace, cases: list[Path]) -> ModelPackage:
    from .slice_training import mask_preset, train_slice_segmentation

    preset = mask_preset(arguments.network, _widths(arguments.channels), _size(arguments.size))
    return train_slice_segmentation(
        cases, arguments.output, replace(preset, fit=_fit_options(arguments, preset.fit))
    )


def _check(command: str, arguments: argparse.Namespace) -> None:
    """Each task has presets of its own, and takes options of its own."""
    presets = PRESETS.get(arguments.task, ())
    if arguments.preset is not None and presets and arguments.preset not in presets:
        raise InputError(
            f"--preset {arguments.preset} is none of {arguments.task}: choose {' or '.join(presets)}."
        )
    check(f"{command} {arguments.task}", arguments)


def _start(arguments: argparse.Namespace, task: Task) -> list[ModelPackage]:
    """The models whose weights are gone on from."""
    if arguments.epochs == 0 and not arguments.start:
        raise InputError("With no epochs nothing is learned: say with --start whose weights are to be kept.")
    return [find_package(name, task) for name in arguments.start]


def _growth_preset(arguments: argparse.Namespace) -> GrowthPreset:
    from .growth_samples import PRESETS

    preset = PRESETS[arguments.preset]
    channels = _widths(arguments.channels) or preset.channels
    return replace(preset, channels=channels, fit=_fit_options(arguments, preset.fit))


def _risk_preset(arguments: argparse.Namespace) -> RiskNetworkPreset:
    from .risk_network_training import risk_preset

    preset = risk_preset(arguments.preset, arguments.network, _widths(arguments.channels), _size(arguments.size))
    return replace(preset, fit=_fit_options(arguments, preset.fit))


def _fit_options(arguments: argparse.Namespace, preset: FitOptions) -> FitOptions:
    """The preset's, but for what was given on the command line."""
    given = {field.name: getattr(arguments, field.name, None) for field in fields(preset)}
    return replace(preset, **{name: value for name, value in given.items() if value is not None})


def _widths(text: str | None) -> tuple[int, ...]:
    return _whole_numbers(text, "The channels must be whole numbers above 0 with commas, such as 16,32,64,128.")


def _size(text: str | None) -> tuple[int, ...]:
    return _whole_numbers(text, "The size must be whole numbers above 0 with commas, such as 96,96,16.")


def _whole_numbers(text: str | None, otherwise: str) -> tuple[int, ...]:
    numbers = () if text is None else tuple(text.split(","))
    if not all(number.strip().isdecimal() and int(number) > 0 for number in numbers):
        raise InputError(otherwise)
    return tuple(int(number) for number in numbers)


def _evaluate(arguments: argparse.Namespace) -> int:
    from .cohort import case_folders

    evaluate = {
        "growth": _evaluate_growth,
        "segmentation": _evaluate_segmentation,
        "markers": _evaluate_markers,
        "risk": _evaluate_risk,
    }
    _check("evaluate", arguments)
    provenance = Provenance(f"evaluation of {arguments.task}")
    check_output_folder(arguments.output, provenance.kind, keep=[FOLDS])
    if arguments.task in {"growth", "segmentation"}:  # the others look at baselines alone
        _tell_of_registration(case_folders(arguments.cohort))
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
    from .evaluation import GrowthRow, evaluate_growth, summarize_growth
    from .figures import draw_growth_examples, draw_growth_figures, expansion_table, growth_table

    evaluation = None if arguments.folds is not None else _growth_evaluation(arguments)
    left_out: list[LeftOut] = []
    notes = _notes(arguments, () if evaluation is None else evaluation.packages)
    if evaluation is None:
        rows = _study(arguments)
    else:
        rows = evaluate_growth(arguments.cohort, evaluation, left_out)
        notes += evaluation.notes
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
    from .evaluation import SegmentationRow, evaluate_segmentation, summarize_segmentation

    segmenter = find_segmenter(arguments.model)
    left_out: list[LeftOut] = []
    rows = evaluate_segmentation(arguments.cohort, segmenter, arguments.device, left_out)
    return Evaluated(
        summarize_segmentation(rows),
        lambda folder: write_rows(SegmentationRow, rows, folder / "segmentation.csv"),
        _notes_on_seen(arguments, [segmenter]),
        left_out,
    )


def _evaluate_markers(arguments: argparse.Namespace) -> Evaluated:
    from .marker_evaluation import MarkerRow, evaluate_markers, summarize_markers

    segmenter = find_segmenter(arguments.segmenter)
    left_out: list[LeftOut] = []
    rows = evaluate_markers(arguments.cohort, arguments.masks, segmenter, arguments.device, left_out)
    return Evaluated(
        summarize_markers(rows),
        lambda folder: write_rows(MarkerRow, rows, folder / "markers.csv"),
        _notes_on_seen(arguments, []),
        left_out,
    )


def _evaluate_risk(arguments: argparse.Namespace) -> Evaluated:
    from .risk_evaluation import (
        RiskRow,
        check_cohort,
        cross_validate_risk,
        draw_risk_figures,
        evaluate_risk,
        summarize_risk,
    )

    masks, segmenter = arguments.masks, find_segmenter(arguments.segmenter)
    folds = None if arguments.folds is None else _folds(arguments)
    left_out: list[LeftOut] = []
    measured: list[ModelPackage] = []
    if folds is not None:
        check_cohort(arguments.cohort, folds)
        learner = None if arguments.preset == "compact" else _network_learner(arguments, segmenter)
        rows = cross_validate_risk(
            arguments.cohort,
            folds,
            masks,
            segmenter,
            arguments.device,
            arguments.seed or 0,
            learner,
            left_out,
        )
        threshold = sum(row.expanded for row in rows) / len(rows)
    else:
        package = find_package(arguments.model, "risk")
        threshold = package.description.result(SHARE_EXPANDED)  # what is missing is told before the work
        measured.append(package)
        check_cohort(arguments.cohort, folds)
        rows = evaluate_risk(arguments.cohort, package, masks, segmenter, arguments.device, left_out)
    return Evaluated(
        summarize_risk(rows, threshold),
        lambda folder: write_rows(RiskRow, rows, folder / "risk.csv"),
        _notes(arguments, measured),
        left_out,
        {"risk.png": partial(draw_risk_figures, rows)},
    )


def _notes(arguments: argparse.Namespace, packages: Sequence[ModelPackage | None]) -> list[str]:
    """What is to be known of figures that true masks have a say in."""
    from .cohort import case_folders, note_on_masks

    note = note_on_masks(case_folders(arguments.cohort))
    return [*([] if note is None else [note]), *_notes_on_seen(arguments, packages)]


def _notes_on_seen(arguments: argparse.Namespace, packages: Sequence[ModelPackage | None]) -> list[str]:
    """Which of the models that were measured, or found the masks, have seen some of the cases before."""
    from .cohort import case_folders
    from .runs import notes_on_seen_cases

    finders = [find_segmenter(arguments.segmenter)] if arguments.masks == "automatic" else []
    return notes_on_seen_cases([*packages, *finders], case_folders(arguments.cohort))


def _network_learner(arguments: argparse.Namespace, segmenter: ModelPackage | None) -> Learner:
    from .cohort import case_folders
    from .risk_network_training import network_learner, prepare_images

    preset, masks, device = _risk_preset(arguments), arguments.masks, arguments.device
    images = prepare_images(preset, masks, segmenter, device, case_folders(arguments.cohort))
    return network_learner(images, arguments.output / FOLDS, preset, masks, segmenter, device)


def _folds(arguments: argparse.Namespace) -> int:
    """How many folds; 0 leaves out one case at a time."""
    if arguments.folds == "loo":
        return 0
    if not arguments.folds.isdecimal() or int(arguments.folds) < 2:
        raise InputError("--folds takes a whole number from 2, or loo to leave out one case at a time.")
    return int(arguments.folds)


def _growth_evaluation(arguments: argparse.Namespace) -> GrowthEvaluation:
    from .evaluation import GrowthEvaluation

    return GrowthEvaluation(
        packages=tuple(find_package(name, "growth") for name in [arguments.model, *arguments.rival]),
        masks=arguments.masks,
        segmenter=find_segmenter(arguments.segmenter),
        device=arguments.device,
        risk=find_risk(arguments.risk),
    )


def _study(arguments: argparse.Namespace) -> list[GrowthRow]:
    from .study import run_study

    return run_study(
        arguments.cohort,
        arguments.output,
        _growth_preset(arguments),
        _folds(arguments),
        arguments.masks,
        find_segmenter(arguments.segmenter),
        arguments.device,
    )
