"""Probability of expansion from what was measured: CT markers, volume, and time from onset.

A logistic regression, every input of which a radiologist can check. Where the marker-based scores (BAT: Morotti
2018) give points for a sign that is there, this weighs how large, how dark and how many.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .model_package import ModelPackage


@dataclass(frozen=True)
class Risk:
    """Probability that the hematoma expands, and the model that says so, as written into a result."""

    probability: float
    model: dict[str, str]


def measurements(
    markers: Mapping[str, Mapping[str, Any]], volume_ml: float, onset_hours: float | None
) -> dict[str, float]:
    """What a risk model may look at, by name; NaN where the onset is not known.

    ``markers`` are those of ``prediction.json``, as measured: a reader's word on them does not count here.
    """
    values = {
        "log_volume_ml": math.log(volume_ml),
        "onset_hours": math.nan if onset_hours is None else onset_hours,
    }
    for name, marker in markers.items():
        values[f"{name}.present"] = float(marker["present"])
        values |= {f"{name}.{what}": float(value) for what, value in marker["evidence"].items()}
    return values


def predict_risk(measured: Mapping[str, float], package: ModelPackage) -> Risk:
    """The probability of expansion (more than 6 mL or a third); what was not measured counts as the mean.

    Raises:
        ModelPackageError: the package's weights do not fit.
    """
    import torch

    network = package.load()
    inputs = torch.tensor([[measured.get(name, math.nan) for name in package.description.arguments["features"]]])
    with torch.inference_mode():
        return Risk(float(torch.sigmoid(network(inputs))[0]), package.identity)


def models_used(result: Mapping[str, Any]) -> dict[str, Any]:
    """The models behind a result by task, that of the probability too."""
    risk = result.get("risk")
    return {**result["models"], **({} if risk is None else {"risk": risk["model"]})}
