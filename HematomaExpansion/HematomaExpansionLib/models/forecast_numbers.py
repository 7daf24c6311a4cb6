"""The numbers of a forecast package: regressions for each pattern of what is known, and how volumes spread.

Reading them needs neither torch nor a network, so that a panel can judge anew at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ModelPackageError
from .description import EVIDENCE_LOGISTIC, SPREAD

if TYPE_CHECKING:
    from .package import ModelPackage

KNOWN = ("onset_hours", "irregular", "blend", "gcs")
"""What may be known beside the volume."""

FEATURES = (
    "constant",
    "log_volume",
    "log_volume_bend",
    "log_hours",
    "irregular",
    "blend",
    "gcs",
    "gcs_bend",
)
"""Inputs of the regressions: natural logarithms of mL and hours; a ``bend`` is the second term of a spline."""

FEATURES_OF = {
    "onset_hours": ("log_hours",),
    "irregular": ("irregular",),
    "blend": ("blend",),
    "gcs": ("gcs", "gcs_bend"),
}

PATTERNS = 2 ** len(KNOWN)

Knots = tuple[float, float, float]
"""Where a spline bends."""


@dataclass(frozen=True)
class ForecastNumbers:
    """Coefficients (patterns, features) and their covariance (patterns, features, features); knots of the splines
    in log mL and points of the Glasgow Coma Scale.
    """

    coefficients: Any
    covariance: Any
    volume_knots: Knots
    gcs_knots: Knots

    @staticmethod
    def pattern(known: Sequence[str]) -> int:
        """The number of the regression for what is known beside the volume."""
        return sum(1 << place for place, name in enumerate(KNOWN) if name in known)


def used_features(pattern: int) -> list[int]:
    """Places of the features that the regression of this pattern looks at."""
    names = {"constant", "log_volume", "log_volume_bend"}
    for place, name in enumerate(KNOWN):
        if pattern >> place & 1:
            names.update(FEATURES_OF[name])
    return [place for place, name in enumerate(FEATURES) if name in names]


def read_numbers(package: ModelPackage) -> ForecastNumbers:
    """The numbers of a forecast package.

    Raises:
        ModelPackageError: it is another kind of package, or damaged.
    """
    import safetensors
    from safetensors.numpy import load_file

    from .package import WEIGHTS_FILE

    description = package.description
    if description.architecture != EVIDENCE_LOGISTIC:
        raise ModelPackageError(
            f"Model {description.name!r} is not a forecast model: choose another with --forecast."
        )
    shapes = {"coefficients": (PATTERNS, len(FEATURES)), "covariance": (PATTERNS, len(FEATURES), len(FEATURES))}
    try:
        arrays = load_file(package.folder / WEIGHTS_FILE)
        if {name: array.shape for name, array in arrays.items()} != shapes:
            raise ValueError("other shapes")
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise ValueError("not numbers")
        if not description.settings.get(SPREAD):
            raise ValueError("no spread")
        volume_knots, gcs_knots = (_knots(description.arguments[name]) for name in ("volume_knots", "gcs_knots"))
    except (OSError, ValueError, LookupError, TypeError, safetensors.SafetensorError) as error:
        raise ModelPackageError(f"Model {description.name!r} is damaged: install the package again.") from error
    return ForecastNumbers(
        arrays["coefficients"].astype(float), arrays["covariance"].astype(float), volume_knots, gcs_knots
    )


def _knots(values: Any) -> Knots:
    first, middle, last = map(float, values)
    if not first < middle < last:
        raise ValueError("no knots")
    return first, middle, last
