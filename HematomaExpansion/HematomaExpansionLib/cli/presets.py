"""Presets of networks and of their training, changed as the command line asks."""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from ..errors import InputError
from ..models.description import Task
from ..models.package import ModelPackage, find_package
from .options import find_segmenter
from .train_options import PRESETS, check

if TYPE_CHECKING:
    from ..anatomy.mask_source import MaskSource
    from ..training.fitting import FitOptions
    from ..training.growth.samples import GrowthPreset
    from ..training.risk.networks import RiskNetworkPreset


def check_task(command: str, arguments: argparse.Namespace) -> None:
    """Each task has presets of its own, and takes options of its own."""
    presets = PRESETS.get(arguments.task, ())
    if arguments.preset is not None and presets and arguments.preset not in presets:
        raise InputError(
            f"There is no --preset {arguments.preset} for {arguments.task}: choose {' or '.join(presets)}."
        )
    check(f"{command} {arguments.task}", arguments)


def mask_source(arguments: argparse.Namespace) -> MaskSource:
    """Where masks come from; the model that finds them is looked up only if some are to be found."""
    from ..anatomy.mask_source import MaskSource
    from ..device import choose_device

    segmenter = find_segmenter(arguments.segmenter) if arguments.masks == "automatic" else None
    return MaskSource(arguments.masks, choose_device(getattr(arguments, "device", None) or "cpu"), segmenter)


def starting_models(arguments: argparse.Namespace, task: Task) -> list[ModelPackage]:
    """The models whose weights training starts from."""
    return [find_package(name, task) for name in arguments.start]


def growth_preset(arguments: argparse.Namespace) -> GrowthPreset:
    from ..training.growth.samples import PRESETS

    preset = PRESETS[arguments.preset]
    channels = widths(arguments.channels) or preset.channels
    return replace(preset, channels=channels, fit=fit_options(arguments, preset.fit))


def chosen_risk_preset(arguments: argparse.Namespace) -> RiskNetworkPreset:
    from ..training.risk.networks import risk_preset

    preset = risk_preset(arguments.preset, arguments.network, widths(arguments.channels), size(arguments.size))
    return replace(preset, fit=fit_options(arguments, preset.fit))


def fit_options(arguments: argparse.Namespace, preset: FitOptions) -> FitOptions:
    """The preset's, but for what was given on the command line."""
    if arguments.epochs is not None and arguments.epochs < 1:
        raise InputError("Training needs at least one epoch: with fewer, nothing is learned.")
    given = {field.name: getattr(arguments, field.name, None) for field in fields(preset)}
    return replace(preset, **{name: value for name, value in given.items() if value is not None})


def widths(text: str | None) -> tuple[int, ...]:
    return _whole_numbers(
        text, "--channels takes whole numbers above 0, separated by commas, such as 16,32,64,128."
    )


def size(text: str | None) -> tuple[int, ...]:
    return _whole_numbers(text, "--size takes whole numbers above 0, separated by commas, such as 96,96,16.")


def _whole_numbers(text: str | None, otherwise: str) -> tuple[int, ...]:
    numbers = () if text is None else tuple(text.split(","))
    if not all(number.strip().isdecimal() and int(number) > 0 for number in numbers):
        raise InputError(otherwise)
    return tuple(int(number) for number in numbers)
