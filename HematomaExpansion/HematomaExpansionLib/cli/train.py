"""The command ``hematoma train``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from ..errors import InputError
from ..files.folders import check_output_folder
from ..models.description import package_name
from ..models.package import PACKAGE, TRAINING_FOLDER, ModelPackage, find_package
from .extensions import paint_heads
from .options import Commands, add_command
from .presets import (
    check_task,
    chosen_risk_preset,
    fit_options,
    growth_preset,
    mask_source,
    size,
    starting_models,
    widths,
)
from .train_options import SLICES, add_train_options
from .training_notes import note_masks, note_registration, package_in, report_training

PAINTED_FOLDER = "painted"
"""Subfolder of the training with the scans painted into real heads."""


def add_commands(commands: Commands) -> None:
    """Add it to the command line."""
    train = add_command(commands, "train", "train a model on a cohort")
    add_train_options(train)
    train.set_defaults(run=_train)


def _train(arguments: argparse.Namespace) -> int:
    from ..training.data.cohort import case_folders
    from ..training.data.labelled import is_labelled

    check_task("train", arguments)
    package_name(arguments.output)  # report an invalid name before the work begins
    if arguments.task == "forecast":
        return _train_forecast(arguments)
    heads = getattr(arguments, "heads", None)
    if arguments.cohort is None and heads is None:
        raise InputError("Name the cohort to learn from with --cohort.")
    cases = [] if arguments.cohort is None else case_folders(arguments.cohort)
    check_output_folder(arguments.output, PACKAGE, keep=[TRAINING_FOLDER])
    if heads is not None or any(is_labelled(case) for case in cases):
        return _train_kinds(arguments, cases)
    if arguments.task != "risk":  # which looks at baselines alone
        note_registration(cases)
    train = {"growth": _train_growth, "segmentation": _train_segmentation, "risk": _train_risk}
    note_masks(cases)
    before = package_in(arguments.output)
    package = train[arguments.task](arguments, cases)
    report_training(package, before)
    return 0


def _train_forecast(arguments: argparse.Namespace) -> int:
    from ..training.forecast.patients import read_patients
    from ..training.forecast.training import COMBINATIONS, FIGURES, train_forecast

    if arguments.cohort is not None or arguments.patients is None:
        raise InputError(
            "A forecast learns from a table of patients, --patients; on a cohort, use `hematoma calibrate`."
        )
    patients, notes = read_patients(arguments.patients)
    check_output_folder(arguments.output, PACKAGE)
    for note in notes:
        print(f"Note: {note}", file=sys.stderr)
    before = package_in(arguments.output)
    source = arguments.described_as or "patients of a table"
    package = train_forecast(patients, arguments.output, arguments.patients, source, arguments.seed or 0)
    for known in COMBINATIONS:
        told = ", ".join(f"{name} {package.description.result(f'{known}_{name}'):.3f}" for name in FIGURES)
        print(f"{known.replace('_', ' ')}: {told}")
    report_training(package, before)
    return 0


def _train_risk(arguments: argparse.Namespace, cases: list[Path]) -> ModelPackage:
    from ..training.data.cohort import has_expanded
    from ..training.data.each_case import readable
    from ..training.risk.logistic import check_kinds, train_risk

    if arguments.masks == "both":
        raise InputError("A risk model is trained with --masks true or automatic, not with both.")
    source = mask_source(arguments)
    preset = None if arguments.preset == "compact" else chosen_risk_preset(arguments)
    check_kinds(readable(has_expanded, cases))
    if preset is None:
        return train_risk(cases, arguments.output, source, arguments.seed or 0)
    from ..training.risk.networks import train_risk_network

    return train_risk_network(cases, arguments.output, preset, source)


def _train_growth(arguments: argparse.Namespace, cases: list[Path]) -> ModelPackage:
    from ..training.growth.training import train_growth

    if arguments.masks == "automatic":
        raise InputError("A growth model is trained with --masks true or both.")
    segmenter = find_package(arguments.segmenter, "segmentation") if arguments.masks == "both" else None
    start, preset = starting_models(arguments, "growth"), growth_preset(arguments)
    members = 1 if arguments.members is None else arguments.members
    if members < 1 or (members > 1 and start):
        raise InputError(
            "--members takes a number from 1 on; several networks start from random weights: leave out --start."
        )
    return train_growth(
        cases,
        arguments.output,
        replace(preset, members=members),
        only_expanded=bool(arguments.only_expanded),
        segmenter=segmenter,
        start=start,
    )


def _train_segmentation(arguments: argparse.Namespace, cases: list[Path]) -> ModelPackage:
    from ..training.segmentation.training import CHANNELS, FIT, train_segmentation

    if arguments.preset == SLICES:
        return _train_slice_segmentation(arguments, cases)
    channels = widths(arguments.channels) or CHANNELS
    start = starting_models(arguments, "segmentation")
    return train_segmentation(cases, arguments.output, channels, fit_options(arguments, FIT), start)


def _train_kinds(arguments: argparse.Namespace, cases: list[Path]) -> int:
    """A segmentation that tells the kinds of bleeds apart, from labelled scans and real heads without blood."""
    from ..training.data.labelled import is_labelled
    from ..training.segmentation.kinds import FIT, train_kinds
    from ..training.segmentation.training import CHANNELS

    if arguments.task != "segmentation" or arguments.preset == SLICES:
        raise InputError(
            "The cohort holds single scans with kinds of bleeds (baseline-bleeds.nii.gz): they serve to train the "
            "compact segmentation alone."
        )
    unlabelled = [case.name for case in cases if not is_labelled(case)]
    if unlabelled:
        raise InputError(
            f"Of {len(cases)} cases, {len(unlabelled)} do not tell the kinds of bleeds apart (no "
            f"baseline-bleeds.nii.gz, as in {unlabelled[0]}): train on cases that all do, or that none do."
        )
    if arguments.heads is not None:
        per_head = 10 if arguments.painted is None else arguments.painted
        if per_head < 0:
            raise InputError("--painted takes a number from 0 on.")
        painted = arguments.output / TRAINING_FOLDER / PAINTED_FOLDER
        cases = [*cases, *paint_heads(arguments.heads, painted, per_head, arguments.seed or 0)]
    before = package_in(arguments.output)
    channels, start = widths(arguments.channels) or CHANNELS, starting_models(arguments, "segmentation")
    report_training(train_kinds(cases, arguments.output, channels, fit_options(arguments, FIT), start), before)
    return 0


def _train_slice_segmentation(arguments: argparse.Namespace, cases: list[Path]) -> ModelPackage:
    from ..training.segmentation.slices import mask_preset, train_slice_segmentation

    preset = mask_preset(arguments.network, widths(arguments.channels), size(arguments.size))
    return train_slice_segmentation(
        cases, arguments.output, replace(preset, fit=fit_options(arguments, preset.fit))
    )
