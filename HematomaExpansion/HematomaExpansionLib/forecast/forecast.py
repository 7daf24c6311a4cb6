"""The forecast: whether a hematoma expands, and how large it is at follow-up, from one distribution.

``prediction.json`` holds it in a form from which it can be made anew at once, when a reader overrules a sign or
the hours from onset become known, without the scan and without a network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..measures.expansion import ExpansionDefinition
from ..models.description import EVIDENCE_SOURCE, SPREAD
from ..models.forecast_numbers import ForecastNumbers, read_numbers
from ..models.package import ModelPackage
from .brain import probability_from_brain
from .distribution import FollowupDistribution, Spread
from .evidence import Probability, probability_from_evidence
from .facts import Facts

if TYPE_CHECKING:
    from ..scan.mask import MaskKind  # needs SciPy, which a panel that makes a forecast anew does not

EVIDENCE, BRAIN, RISK_MODEL = "evidence", "brain", "risk model"
"""What tells whether the hematoma expands: the forecast package's regression, the BRAIN score, or a risk
package."""

QUANTILES = (10, 25, 50, 75, 90)
"""Percentiles of the follow-up volume that a result holds; the outer ones are its 80 % range."""

_PROBABILITIES = ("probability_of_expansion", "probability_low", "probability_high")

COLUMNS = (
    *_PROBABILITIES,
    *(f"volume_ml_{share}" for share in QUANTILES),
    "if_expands_ml",
    "if_expands_ml_low",
    "if_expands_ml_high",
)
"""Names of a forecast's figures in a table."""

_LAST_HOURS, _LARGEST_ML = 24.0, 115.0
"""None of the patients behind the shipped regression was scanned later, or had a larger hematoma."""


@dataclass(frozen=True)
class ForecastModel:
    """What a forecast package knows.

    Attributes:
        numbers: its regressions.
        spreads: how volumes spread, by the kind of mask from which a prediction begins.
        source: whose patients tell whether a hematoma expands, in words for the user.
    """

    numbers: ForecastNumbers
    spreads: Mapping[MaskKind, Spread]
    source: str

    @classmethod
    def of(cls, package: ModelPackage) -> ForecastModel:
        """The model in a package.

        Raises:
            ModelPackageError: it is another kind of package, or damaged.
        """
        numbers, settings = read_numbers(package), package.description.settings
        return cls(
            numbers,
            {kind: Spread(**values) for kind, values in settings[SPREAD].items()},
            str(settings.get(EVIDENCE_SOURCE) or package.description.training_sources),
        )

    def spread(self, masks: MaskKind) -> Spread:
        """How volumes spread, for predictions that begin from such masks; of the other kind if it knows only
        that.
        """
        return self.spreads.get(masks) or next(iter(self.spreads.values()))


@dataclass(frozen=True)
class Circumstances:
    """What a forecast needs beside the facts about a patient.

    Attributes:
        masks: whether the hematoma was drawn or found automatically.
        definition: when growth counts as expansion.
        network_growth: natural logarithm of the growth that the network's own field gives; None without a scan.
        largest_ml: the largest volume that the head has room for.
        whether: one of ``EVIDENCE``, ``BRAIN`` and ``RISK_MODEL``.
        likelihood_ratio: the sign of the hypodensity family to count as well (``evidence.LIKELIHOOD_RATIOS``).
    """

    masks: MaskKind = "true"
    definition: ExpansionDefinition = ExpansionDefinition.SIX_ML
    network_growth: float | None = None
    largest_ml: float = math.inf
    whether: str = EVIDENCE
    likelihood_ratio: str | None = None


@dataclass(frozen=True)
class Forecast:
    """A forecast: the probability by its source, and the distribution that everything is read from."""

    facts: Facts
    circumstances: Circumstances
    told: Probability
    distribution: FollowupDistribution
    low: FollowupDistribution | None
    high: FollowupDistribution | None

    @property
    def probability(self) -> float:
        """Probability of expansion by the chosen definition."""
        return self.distribution.probability(self.circumstances.definition)

    @property
    def if_expands_ml(self) -> float:
        """Median follow-up volume of those who expand."""
        return self.distribution.quantile_if_expands(0.5, self.circumstances.definition)

    @property
    def described(self) -> dict[str, Any]:
        """The ``forecast`` of ``prediction.json``."""
        around, distribution = self.circumstances, self.distribution
        low, high = (None if end is None else end.probability(around.definition) for end in (self.low, self.high))
        described = {
            "probability_of_expansion": self.probability,
            "probability_low": low,
            "probability_high": high,
            "source": self.told.source,
            "definition": around.definition.text,
            "evidence": self.told.steps,
            "volume_ml": {str(share): distribution.quantile(share / 100) for share in QUANTILES},
            "if_expands": {
                "volume_ml": self.if_expands_ml,
                "low": distribution.quantile_if_expands(0.1, around.definition),
                "high": distribution.quantile_if_expands(0.9, around.definition),
            },
            "expected_ml": distribution.expected_ml,
            "circumstances": {
                "masks": around.masks,
                "definition": around.definition.value,
                "network_growth": around.network_growth,
                "largest_ml": around.largest_ml if math.isfinite(around.largest_ml) else None,
                "whether": around.whether,
                "likelihood_ratio": around.likelihood_ratio,
            },
            "distribution": distribution.parameters,
        }
        return {**described, "text": headline(self.facts.volume_ml, described)}


def make_forecast(
    model: ForecastModel, facts: Facts, around: Circumstances, risk: tuple[float, str] | None = None
) -> Forecast:
    """The forecast of one patient; ``risk``: the probability that a risk model gives, and its name.

    Raises:
        ModelPackageError: the package is damaged.
    """
    if risk is not None:
        value, name = risk
        told = Probability(value, None, None, f"model {name}", ExpansionDefinition.SIX_ML)
        around = replace(around, whether=RISK_MODEL)
    elif around.whether == BRAIN:
        told = probability_from_brain(facts)
    else:
        told = probability_from_evidence(model.numbers, facts, model.source, around.likelihood_ratio)

    def spread_with(probability: float) -> FollowupDistribution:
        spread = model.spread(around.masks)
        return FollowupDistribution.of(
            spread, facts.volume_ml, probability, told.definition, around.network_growth, around.largest_ml
        )

    low, high = (None if end is None else spread_with(end) for end in (told.low, told.high))
    return Forecast(facts, around, told, spread_with(told.value), low, high)


def renewed(result: Mapping[str, Any], model: ForecastModel) -> dict[str, Any]:
    """The contents of ``prediction.json`` with the forecast made anew from the facts in it.

    The follow-up that was drawn stays what it is: the network is not run.
    """
    if not result.get("forecast"):
        return dict(result)
    stored = result["forecast"]["circumstances"]
    largest, risk = stored["largest_ml"], None
    if stored["whether"] == RISK_MODEL:
        risk = (result["risk"]["probability"], result["risk"]["model"]["name"])
    around = Circumstances(
        masks=stored["masks"],
        definition=ExpansionDefinition(stored["definition"]),
        network_growth=stored["network_growth"],
        largest_ml=math.inf if largest is None else largest,
        whether=stored["whether"],
        likelihood_ratio=stored["likelihood_ratio"],
    )
    return {**result, "forecast": make_forecast(model, Facts.of_result(result), around, risk).described}


def distribution_of(result: Mapping[str, Any]) -> FollowupDistribution | None:
    """The distribution behind a result; None if it has no forecast (an earlier format, or no hematoma)."""
    forecast = result.get("forecast")
    return None if not forecast else FollowupDistribution.from_parameters(forecast["distribution"])


def columns_of(forecast: Mapping[str, Any]) -> dict[str, float | None]:
    """The figures of a result's ``forecast`` by ``COLUMNS``; None where its source tells none."""
    if_expands = forecast["if_expands"]
    figures = (
        *(forecast[name] for name in _PROBABILITIES),
        *(forecast["volume_ml"][str(share)] for share in QUANTILES),
        *(if_expands[name] for name in ("volume_ml", "low", "high")),
    )
    return dict(zip(COLUMNS, figures, strict=True))


def headline(baseline_ml: float, forecast: Mapping[str, Any]) -> str:
    """First line of a result: ``19 mL now · 31 % chance of expansion (26–37) · if it expands 28 mL (24–38)``."""
    low, high = forecast["probability_low"], forecast["probability_high"]
    interval = "" if low is None or high is None else f" ({100 * low:.0f}–{100 * high:.0f})"
    if_expands = forecast["if_expands"]
    grown = f"{milliliters(if_expands['volume_ml'])} mL ({_between(if_expands['low'], if_expands['high'])})"
    chance = f"{100 * forecast['probability_of_expansion']:.0f} % chance of expansion{interval}"
    return f"{milliliters(baseline_ml)} mL now · {chance} · if it expands {grown}"


def milliliters(volume_ml: float) -> str:
    """A volume in as many digits as it deserves."""
    return f"{volume_ml:.0f}" if volume_ml >= 9.95 else f"{volume_ml:.1f}"


def _between(low: float, high: float) -> str:
    return f"{milliliters(low)}–{milliliters(high)}"


def notes_on(facts: Facts, whether: str = EVIDENCE) -> Sequence[str]:
    """What the user should know of the probability of such a patient."""
    if whether != EVIDENCE:
        return []
    notes = []
    if facts.onset_hours is not None and facts.onset_hours > _LAST_HOURS:
        notes.append(
            f"The scan was made {facts.onset_hours:g} hours after onset: none of the patients behind the "
            f"probability was scanned later than {_LAST_HOURS:g} hours, and late expansion is rare."
        )
    if facts.volume_ml > _LARGEST_ML:
        notes.append(
            f"None of the patients behind the probability had a hematoma of more than {_LARGEST_ML:g} mL."
        )
    return notes
