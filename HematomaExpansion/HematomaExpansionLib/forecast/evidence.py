"""Whether a hematoma expands, by a regression on real patients, one piece of evidence after the other.

For each pattern of what is known there is a regression of its own, so that nothing unknown counts as zero. What a
score knows beyond them, and at most one sign of the hypodensity family, multiplies the odds afterward; that these
factors may be combined was never validated, and each is told with its source.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np

from ..markers.scores import BRAIN_POINTS
from ..measures.expansion import ExpansionDefinition
from ..models.forecast_numbers import FEATURES, ForecastNumbers
from ..scan.grid import Array
from .facts import Facts

INTERVAL = 1.959964
"""Half the width of a 95 % interval, in standard errors."""


@dataclass(frozen=True)
class Evidence:
    """One piece of evidence.

    Attributes:
        name: in words, such as "irregular".
        value: what is known: a number, or how probable a sign is.
        factor: what it multiplies the odds of expansion by; None for the first piece.
        probability: of expansion after it.
        source: whose patients it comes from.
        multiplied: whether the factor was published by itself, and not fitted together with the others.
    """

    name: str
    value: float
    factor: float | None
    probability: float
    source: str
    multiplied: bool = False


@dataclass(frozen=True)
class Probability:
    """The probability of expansion by its source's own ``definition``.

    ``low`` and ``high``: its 95 % interval; for the BRAIN score, the lowest and highest that it could be; or None.
    """

    value: float
    low: float | None
    high: float | None
    source: str
    definition: ExpansionDefinition
    evidence: tuple[Evidence, ...] = ()

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The evidence, as a result stores it."""
        return [asdict(piece) for piece in self.evidence]


BRAIN_SHARES = {"warfarin": 0.03, "recurrent": 0.08, "intraventricular": 0.28}
"""What the BRAIN score asks beyond volume and hours, and how frequent each is among the patients of INTERACT2
(Anderson 2013, Table 1)."""

LOG_ODDS_PER_POINT, LOG_ODDS_AT_ZERO = 0.2144, -3.347
"""Of the BRAIN score: the published probabilities of 0 to 24 points lie on this line (Wang 2015)."""

LIKELIHOOD_RATIOS: dict[str, tuple[float, float, str]] = {
    "hypodensity": (2.0, 0.60, "5 cohorts, 2,157 patients (Yu 2019)"),
    "heterogeneous": (1.70, 0.69, "7 studies, 2,294 patients (World Neurosurg. 2017)"),
    "black_hole": (2.95, 0.80, "sensitivity .28 (Arba 2021), odds ratio 3.7 (Morotti 2020)"),
    "swirl": (1.50, 0.45, "prevalence .6 (Zhong 2021), odds ratio 3.3 (Morotti 2020)"),
}
"""Signs of the hypodensity family: likelihood ratio if present and if absent, and where they come from. They tell
much the same, so at most one of them is used."""

_TITLES = {
    "recurrent": "earlier hemorrhage",
    "intraventricular": "blood in the ventricles",
    "black_hole": "black hole",
    "gcs": "GCS",
}
_CERTAIN = 0.05
"""A sign less probable than this, or absent with no more, is told without its probability."""

_ADJECTIVES = {"irregular", "heterogeneous"}
_BRAIN_SOURCE = "BRAIN score, 964 patients (Wang 2015); in this combination not validated"


def sigmoid(log_odds: float) -> float:
    """The probability with these log odds."""
    return 1.0 / (1.0 + math.exp(-min(max(log_odds, -30.0), 30.0)))


def log_odds(probability: float | Array) -> Array:
    """Natural logarithm of the odds, with probabilities clipped to a millionth from 0 and 1."""
    certain = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.log(certain / (1 - certain))


def features(numbers: ForecastNumbers, facts: Facts) -> list[tuple[float, Array]]:
    """The inputs of the regressions, each (features,) with its weight: a sign that is unsure counts both ways.

    What is not known is zero; the regression of the pattern has no coefficient for it.
    """
    signs = [facts.irregular, facts.blend]
    ways = [[(1.0, 0.0)] if sign is None else [(sign, 1.0), (1.0 - sign, 0.0)] for sign in signs]
    log_volume = math.log(facts.volume_ml)
    found = []
    for (first, irregular), (second, blend) in product(*ways):
        values = dict.fromkeys(FEATURES, 0.0)
        values |= {"constant": 1.0, "log_volume": log_volume, "irregular": irregular, "blend": blend}
        values["log_volume_bend"] = bend(log_volume, numbers.volume_knots)
        if facts.hours is not None:
            values["log_hours"] = math.log(facts.hours)
        if facts.gcs is not None:
            values["gcs"], values["gcs_bend"] = facts.gcs, bend(facts.gcs, numbers.gcs_knots)
        if first * second > 0:
            found.append((first * second, np.array([values[name] for name in FEATURES])))
    return found


def bend(value: float, knots: Sequence[float]) -> float:
    """The second term of a restricted cubic spline with three knots: cubic between them, linear beyond.

    After Harrell, Regression Modeling Strategies, section 2.4.5.
    """
    first, middle, last = knots

    def above(knot: float) -> float:
        return max(value - knot, 0.0) ** 3

    cubic = above(first) - above(middle) * (last - first) / (last - middle)
    return (cubic + above(last) * (middle - first) / (last - middle)) / (last - first) ** 2


def judged(numbers: ForecastNumbers, facts: Facts, known: Sequence[str]) -> tuple[float, float]:
    """Probability of expansion from the volume and what is named of ``forecast_numbers.KNOWN``, and the standard
    error of its log odds.

    Where a sign is unsure, the probability is the mean over both ways, and its error follows by the delta method.
    """
    pattern = numbers.pattern(known)
    coefficients, covariance = numbers.coefficients[pattern], numbers.covariance[pattern]
    value, slope = 0.0, np.zeros(len(FEATURES))
    for weight, row in features(numbers, facts):  # what is not named has no coefficient
        present = sigmoid(float(row @ coefficients))
        value += weight * present
        slope += weight * present * (1.0 - present) * row
    error = math.sqrt(max(float(slope @ covariance @ slope), 0.0)) / max(value * (1.0 - value), 1e-9)
    return value, error


def probability_from_evidence(
    numbers: ForecastNumbers, facts: Facts, source: str, likelihood_ratio: str | None = None
) -> Probability:
    """Probability of expansion (more than 6 mL or a third) from everything known about a patient.

    ``source``: whose patients the regression comes from; ``likelihood_ratio``: the one sign of
    ``LIKELIHOOD_RATIOS`` to use as well.
    """
    known = [] if facts.onset_hours is None else ["onset_hours"]
    value, error = judged(numbers, facts, known)
    pieces = [Evidence(_beginning(facts), facts.volume_ml, None, value, source)]
    for name in ("irregular", "blend", "gcs"):
        told = getattr(facts, name)
        if told is None:
            continue
        known.append(name)
        after, error = judged(numbers, facts, known)
        factor = math.exp(float(log_odds(after) - log_odds(value)))
        pieces.append(Evidence(_words(name, told), told, factor, after, source))
        value = after
    shift = 0.0
    for name, known_value, factor, origin in _further(facts, likelihood_ratio):
        shift += math.log(factor)
        after = sigmoid(float(log_odds(pieces[-1].probability)) + math.log(factor))
        words = _words(name, known_value)
        if name == "intraventricular" and facts.ventricles:
            words += f" ({facts.ventricles})"
        pieces.append(Evidence(words, known_value, factor, after, origin, multiplied=True))
    middle = float(log_odds(value)) + shift
    return Probability(
        value=pieces[-1].probability,
        low=sigmoid(middle - INTERVAL * error),
        high=sigmoid(middle + INTERVAL * error),
        source=source,
        definition=ExpansionDefinition.SIX_ML,
        evidence=tuple(pieces),
    )


def _further(facts: Facts, likelihood_ratio: str | None) -> list[tuple[str, float, float, str]]:
    """What multiplies the odds beyond the regression: name, value, factor, source."""
    found = []
    for name, share in BRAIN_SHARES.items():
        told = getattr(facts, name)
        if told is not None:
            beyond_mean = BRAIN_POINTS[name] * (float(told) - share)
            found.append((name, float(told), math.exp(LOG_ODDS_PER_POINT * beyond_mean), _BRAIN_SOURCE))
    if likelihood_ratio is not None and (sign := getattr(facts, likelihood_ratio)) is not None:
        present, absent, source = LIKELIHOOD_RATIOS[likelihood_ratio]
        factor = sign * present + (1.0 - sign) * absent
        found.append((likelihood_ratio, sign, factor, f"{source}; in this combination not validated"))
    return found


def _beginning(facts: Facts) -> str:
    hours = "" if facts.onset_hours is None else f", {facts.onset_hours:g} h"
    digits = 0 if facts.volume_ml >= 9.5 else 1
    return f"volume {facts.volume_ml:.{digits}f} mL{hours}"


def _words(name: str, told: float) -> str:
    title = _TITLES.get(name, name)
    if name == "gcs":
        return f"{title} {told:g}"
    if not _CERTAIN < told < 1.0 - _CERTAIN:
        return title if told > 0.5 else f"{'not' if name in _ADJECTIVES else 'no'} {title}"
    return f"{title} ({100 * told:.0f} % likely)"


def steps_text(evidence: Sequence[Mapping[str, Any]]) -> str:
    """The evidence like a nomogram: ``volume 22 mL, 2 h: 31 % → irregular: 43 % → warfarin × 3.5: 72 %``."""
    parts = []
    for piece in evidence:
        factor = f" × {piece['factor']:.1f}" if piece["multiplied"] else ""
        parts.append(f"{piece['name']}{factor}: {100 * piece['probability']:.0f} %")
    return " → ".join(parts)
