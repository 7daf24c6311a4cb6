"""The steps by which a model was made, as its package lists them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..models.description import TrainingStep
from ..models.package import ModelPackage
from .data.case_description import kind_of_cases

LEARNED_FROM, CALIBRATED_ON, CORRECTED_ON = "learned from", "calibrated on", "volumes corrected on"
"""Kinds of steps in making a model (``TrainingStep.what``)."""


def training_steps(
    cases: Sequence[Path],
    training: int,
    validation: int,
    seed: int,
    start: Sequence[ModelPackage] = (),
    *,
    what: str = LEARNED_FROM,
    details: Sequence[str] = (),
) -> tuple[TrainingStep, ...]:
    """What a model was trained on, for its package: the steps of the models it started from, and this one.

    ``details``: further words on this step.
    """
    said = [*details, f"{validation} more chose the weights", f"seed {seed}"]
    if start:
        names = " and ".join(package.description.name for package in start)
        said.append(f"began from {names if len(start) == 1 else f'the ensemble of {names}'}")
    return (*steps_before(start), TrainingStep(what, training, kind_of_cases(cases), ", ".join(said)))


def steps_before(models: Sequence[ModelPackage]) -> tuple[TrainingStep, ...]:
    """The steps by which the starting models were made, each step once, without those fitted to their outputs,
    which no longer count.
    """
    return lasting_steps([step for package in models for step in package.description.trained_on])


def lasting_steps(steps: Sequence[TrainingStep]) -> tuple[TrainingStep, ...]:
    """Each step once, without those that fitted something to a network's outputs."""
    return tuple(dict.fromkeys(step for step in steps if step.what not in {CALIBRATED_ON, CORRECTED_ON}))
