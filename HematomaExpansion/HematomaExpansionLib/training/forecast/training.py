"""Writes forecast packages: from a table of real patients, or by calibrating one on a hospital's own pairs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ...forecast.distribution import Spread
from ...models.description import (
    EVIDENCE_LOGISTIC,
    EVIDENCE_SOURCE,
    INTENDED_USE,
    NO_GRID,
    SHARE_EXPANDED,
    SPREAD,
    ModelDescription,
    TrainingStep,
    package_name,
)
from ...models.forecast_numbers import ForecastNumbers
from ...models.package import ModelPackage, write_number_package
from ..runs import made_before
from ..steps import LEARNED_FROM
from .how_much import of_automatic_masks, published_spread
from .patients import Patients
from .whether import Whether, fit_whether, how_well, mean_of, out_of_fold

HOW_MUCH_SOURCE = "published growth of 32 patients who expanded"

COMBINATIONS: dict[str, tuple[str, ...]] = {
    "volume": (),
    "volume_hours": ("onset_hours",),
    "without_hours": ("irregular", "blend"),
    "without_irregular": ("onset_hours", "blend"),
    "without_blend": ("onset_hours", "irregular"),
    "without_gcs": ("onset_hours", "irregular", "blend"),
    "all": ("onset_hours", "irregular", "blend", "gcs"),
}
"""What is known beside the volume, by the name under which a package tells how well that does."""

FIGURES = tuple(field.name for field in fields(Whether))
"""How well each of them does, by the end of the name."""


def train_forecast(patients: Patients, output: Path, table: Path, source: str, seed: int = 0) -> ModelPackage:
    """Fit whether hematomas expand on a table of patients, take how much from published figures, and write the
    package, whose results say how well each combination of inputs does on patients left out of the fit.

    ``source``: whose patients these are, in words that follow their number.

    Raises:
        InputError: there are too few patients, the folder's name is no valid model name, or it holds another
            model.
    """
    name = package_name(output)
    sources = {
        "task": "forecast",
        "options": {"seed": seed, "source": source},
        "table": hashlib.sha256(table.read_bytes()).hexdigest(),
        "libraries": {library: version(library) for library in ("numpy", "scikit-learn", "scipy")},
    }
    if (made := made_before(output, sources)) is not None:
        return made
    numbers = fit_whether(patients)
    expanded = np.array([facts.volume_ml for facts in patients.facts])[patients.expanded]
    spread = published_spread(expanded, seed)
    results: dict[str, Any] = {SHARE_EXPANDED: round(float(patients.expanded.mean()), 4)}
    for combination, known in COMBINATIONS.items():
        found = mean_of([how_well(each, patients.expanded) for each in out_of_fold(patients, known, seed)])
        results |= {f"{combination}_{what}": round(value, 4) for what, value in asdict(found).items()}
    described = describe(
        name,
        numbers,
        {"true": spread, "automatic": of_automatic_masks(spread)},
        f"{len(patients.facts)} {source}",
        (
            TrainingStep(LEARNED_FROM, len(patients.facts), source, "whether; figures are out of fold"),
            TrainingStep("adjusted to", None, HOW_MUCH_SOURCE, "how much"),
        ),
        results,
    )
    return write_forecast(output, described, numbers, sources)


def describe(
    name: str,
    numbers: ForecastNumbers,
    spread: Mapping[str, Spread],
    source: str,
    trained_on: Sequence[TrainingStep],
    results: Mapping[str, Any],
) -> ModelDescription:
    """The description of a forecast package; ``spread`` by kind of mask."""
    return ModelDescription(
        name=name,
        version="1",
        task="forecast",
        architecture=EVIDENCE_LOGISTIC,
        arguments={"volume_knots": list(numbers.volume_knots), "gcs_knots": list(numbers.gcs_knots)},
        spacing_mm=NO_GRID.spacing_mm,
        patch_size=NO_GRID.patch_size,
        window_hu=NO_GRID.window_hu,
        trained_on=tuple(trained_on),
        results=dict(results),
        license="Apache-2.0",
        intended_use=INTENDED_USE["forecast"],
        settings={SPREAD: {kind: asdict(each) for kind, each in spread.items()}, EVIDENCE_SOURCE: source},
    )


def write_forecast(
    output: Path, description: ModelDescription, numbers: ForecastNumbers, sources: Mapping[str, Any]
) -> ModelPackage:
    """Write a forecast package."""
    arrays = {"coefficients": numbers.coefficients, "covariance": numbers.covariance}
    return write_number_package(output, description, arrays, sources)
