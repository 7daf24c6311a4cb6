"""The steps by which a model came about, as its package tells them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..models.description import TrainingStep
from ..models.package import ModelPackage
from .data.case_description import kind_of_cases

LEARNED_FROM, CALIBRATED_ON, CORRECTED_ON = "learned from", "calibrated on", "volumes corrected on"
"""Steps on the way to a model (``TrainingStep.what``)."""


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
    """What a model was trained on, for its package: the steps of those it began from, and this one.

    ``details``: what is said of this one besides.
    """
    said = [*details, f"{validation} more chose the weights", f"seed {seed}"]
    if start:
        names = " and ".join(package.description.name for package in start)
        said.append(f"began from {names if len(start) == 1 else f'the ensemble of {names}'}")
    return (*steps_before(start), TrainingStep(what, training, kind_of_cases(cases), ", ".join(said)))


def steps_before(models: Sequence[ModelPackage]) -> tuple[TrainingStep, ...]:
    """How models came about that are gone on from, each step once. What was fitted to their outputs no longer
    counts.
    """
    return lasting_steps([step for package in models for step in package.description.trained_on])


def lasting_steps(steps: Sequence[TrainingStep]) -> tuple[TrainingStep, ...]:
    """Each of them once, without those that fitted something to a network's outputs."""
    return tuple(dict.fromkeys(step for step in steps if step.what not in {CALIBRATED_ON, CORRECTED_ON}))
