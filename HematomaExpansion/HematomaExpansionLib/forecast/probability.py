"""Probability of expansion by a risk package that a user chooses: for research, in place of ``evidence``.

It is a logistic regression on CT markers, volume, and time from onset, or a network that looks at voxels
(``probability_inputs.py``), and as trustworthy as the patients that it learned from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..device import gpu_memory_errors
from ..models.description import MARKER_LOGISTIC
from ..models.measurement_names import LOG_VOLUME, ONSET_HOURS, PRESENT
from ..models.package import ModelPackage

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..scan.grid import Array
    from ..scan.subject import Subject


_PARTS_AT_A_TIME = 8
"""Slices of a patient that are processed together, to limit memory."""


@dataclass(frozen=True)
class Risk:
    """Probability that the hematoma expands, and the model that gave it, as written into a result."""

    probability: float
    model: dict[str, str]


def measurements(
    markers: Mapping[str, Mapping[str, Any]], volume_ml: float, onset_hours: float | None
) -> dict[str, float]:
    """Everything a risk model may use, by name (see ``MEASUREMENTS``); the onset is NaN if unknown.

    ``markers`` are those of ``prediction.json``, as measured: a reader's decisions do not count here.
    """
    values = {
        LOG_VOLUME: math.log(volume_ml),
        ONSET_HOURS: math.nan if onset_hours is None else onset_hours,
    }
    for name, marker in markers.items():
        values[f"{name}.{PRESENT}"] = float(marker["present"])
        values |= {f"{name}.{what}": float(value) for what, value in marker["evidence"].items()}
    return values


def predict_risk(measured: Mapping[str, float], package: ModelPackage) -> Risk:
    """Probability of expansion (more than 6 mL or a third) from a model of measurements.

    A measurement that was not made counts as the mean.

    Raises:
        ModelPackageError: the package's weights do not fit.
    """
    import torch

    network = package.load()
    inputs = torch.tensor([[measured.get(name, math.nan) for name in package.description.arguments["features"]]])
    with torch.inference_mode():
        return Risk(float(torch.sigmoid(network(inputs))[0]), package.identity)


def predict_risk_of_scan(
    subject: Subject, measured: Mapping[str, float], package: ModelPackage, device: torch.device
) -> Risk:
    """Probability of expansion from any risk package; the subject's hematoma is not empty.

    ``measured`` is the result of ``measurements``.

    Raises:
        ModelPackageError: the package's weights do not fit.
        DeviceError: the GPU runs out of memory.
    """
    if package.description.architecture == MARKER_LOGISTIC:
        return predict_risk(measured, package)
    from .probability_inputs import RiskView, risk_inputs  # a panel that shows a result needs none of it

    inputs = risk_inputs(subject, RiskView.of(package.description))
    return Risk(network_probability(package.load(), inputs, device), package.identity)


def network_probability(network: nn.Module, inputs: Array, device: torch.device) -> float:
    """Mean of a network's probabilities for the parts of a patient, (part, 1, …).

    Raises:
        DeviceError: the GPU runs out of memory.
    """
    import torch

    from ..models.networks.risk import expansion_logits

    with gpu_memory_errors("for the risk model"), torch.inference_mode():
        network.to(device)
        parts = torch.from_numpy(inputs).float().split(_PARTS_AT_A_TIME)
        logits = torch.cat([expansion_logits(network, part.to(device)) for part in parts])
        return float(torch.sigmoid(logits).mean())


def models_used(result: Mapping[str, Any]) -> dict[str, Any]:
    """The models behind a result by task, including the risk model."""
    risk = result.get("risk")
    return {**result["models"], **({} if risk is None else {"risk": risk["model"]})}
