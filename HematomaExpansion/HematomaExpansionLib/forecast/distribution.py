"""How large the hematoma is at follow-up: one distribution, from which every figure of a forecast is read.

It mixes those who expand with those who do not, in the logarithm of follow-up over baseline volume:

* Who does not expand changes by measurement error: normal, cut off where expansion begins.
* Who expands grows beyond that limit by a Weibull-distributed amount.

Because nothing but these two is ever asked, the probability of expansion is the mass beyond its definition, the
quantiles rise, and a map made from it sums to the expected volume. Volumes are in mL.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..measures.expansion import ExpansionDefinition, expansion_limit_ml
from ..scan.grid import Array

SMALLEST_RATIO = 0.3
"""No follow-up volume is less than this share of the baseline."""

LARGEST_RATIO, LARGEST_GROWTH_ML = 6.0, 200.0
"""No hematoma grows to more than this multiple, or by more than this."""

TYPICAL_ML = 12.0
"""The volume to which the amounts of ``Spread`` refer."""

_MIN_ALSO_BEYOND = 0.5
# Steps of the table below and above the limit of expansion.
_STEPS = 1500
_TINY = 1e-9


@dataclass(frozen=True)
class Spread:
    """How follow-up volumes spread, as a forecast package stores it for one kind of mask.

    All refer to the natural logarithm of follow-up over baseline.

    Attributes:
        middle, deviation: of those who do not expand.
        excess: median of the growth beyond the limit of expansion, of those who expand from ``TYPICAL_ML``.
        by_volume: power of the baseline volume with which that falls or rises.
        by_network: power of the growth that the network's own field gives, relative to ``network_growth``.
        shape: of the Weibull distribution; below 1, its tail is heavier than exponential.
        network_growth: typical log growth of the network's own field.
    """

    middle: float
    deviation: float
    excess: float
    by_volume: float
    by_network: float
    shape: float
    network_growth: float = 0.5

    def median_excess(self, baseline_ml: Array | float, network_growth: Array | float | None) -> Any:
        """Median growth beyond the limit, in patients whose field alone gives ``network_growth`` (log ratio)."""
        power = self.by_volume * np.log(baseline_ml / TYPICAL_ML)
        if network_growth is not None:
            power = power + self.by_network * np.log(np.maximum(network_growth, 0.02) / self.network_growth)
        return self.excess * np.exp(np.clip(power, -3.0, 3.0))


@dataclass(frozen=True)
class FollowupDistribution:
    """The distribution of one patient's follow-up volume.

    Attributes:
        baseline_ml: volume now.
        middle, deviation: of the log ratio of those who do not expand.
        excess, shape: median and Weibull shape of the log ratio beyond the limit of those who do.
        expanding: share of patients like this one who grow by more than 6 mL or a third.
        largest_ml: no outcome lies beyond it.
        known_beyond: if a source tells how many grow beyond another limit (mL), that limit and that share.
    """

    baseline_ml: float
    middle: float
    deviation: float
    excess: float
    shape: float
    expanding: float
    largest_ml: float
    known_beyond: tuple[float, float] | None = None

    @classmethod
    def of(
        cls,
        spread: Spread,
        baseline_ml: float,
        probability: float,
        definition: ExpansionDefinition = ExpansionDefinition.SIX_ML,
        network_growth: float | None = None,
        largest_ml: float = math.inf,
    ) -> FollowupDistribution:
        """The distribution of a patient whose hematoma expands with this probability, by this ``definition`` (by
        default, more than 6 mL or a third); ``largest_ml``: what the head has room for.
        """
        base = expansion_limit_ml(ExpansionDefinition.SIX_ML, baseline_ml)
        told = expansion_limit_ml(definition, baseline_ml)
        largest = min(largest_ml, LARGEST_RATIO * baseline_ml, baseline_ml + LARGEST_GROWTH_ML)
        largest = max(largest, 1.05 * max(base, told))
        made = cls(
            baseline_ml=baseline_ml,
            middle=spread.middle,
            deviation=spread.deviation,
            excess=float(spread.median_excess(baseline_ml, network_growth)),
            shape=spread.shape,
            expanding=probability,
            largest_ml=largest,
        )
        if told <= base * (1 + _TINY):
            return made
        # Of those who grow by a third, the share that grows beyond the other limit as well: the others follow.
        share = 1.0 - float(made._grown(np.array([made._log_beyond(told)]))[0])
        expanding = 1.0 - (1.0 - probability) ** (1.0 / max(share, _MIN_ALSO_BEYOND))
        return FollowupDistribution(
            **{**made.parameters, "expanding": expanding}, known_beyond=(told, probability)
        )

    @property
    def parameters(self) -> dict[str, Any]:
        """The fields, as a result stores them."""
        values = asdict(self)
        if self.known_beyond is None:
            del values["known_beyond"]
        return values

    @classmethod
    def from_parameters(cls, values: Mapping[str, Any]) -> FollowupDistribution:
        """The distribution that a result describes."""
        known = values.get("known_beyond")
        return cls(**{**values, "known_beyond": None if known is None else (float(known[0]), float(known[1]))})

    # --- what is read from it ---------------------------------------------------------------------------

    def share_beyond(self, volume_ml: Array) -> Array:
        """Share of patients whose follow-up volume is larger than each of these."""
        volumes, below = self._table
        return 1.0 - np.interp(volume_ml, volumes, below)

    def probability(self, definition: ExpansionDefinition) -> float:
        """Probability that the growth counts as expansion by this definition."""
        return float(self.share_beyond(np.array([expansion_limit_ml(definition, self.baseline_ml)]))[0])

    def quantile(self, share: float) -> float:
        """The volume below which this share of the outcomes lies."""
        volumes, below = self._table
        return float(np.interp(share, below, volumes))

    def quantile_if_expands(self, share: float, definition: ExpansionDefinition) -> float:
        """The volume below which this share of the outcomes lies, among those who expand by this definition."""
        if self.expanding < 1e-6:  # nobody expands: what it would be if somebody did
            return FollowupDistribution(
                **{**self.parameters, "expanding": 0.5, "known_beyond": None}
            ).quantile_if_expands(share, definition)
        beyond = self.probability(definition)
        return self.quantile(1.0 - beyond * (1.0 - share))

    @property
    def expected_ml(self) -> float:
        """Mean follow-up volume."""
        volumes, below = self._table
        beyond = 1.0 - below
        return float(volumes[0] + (beyond[1:] + beyond[:-1]) @ np.diff(volumes) / 2)

    # --- the two kinds of patients ----------------------------------------------------------------------

    @property
    def _limit_ml(self) -> float:
        """Where expansion by more than 6 mL or a third begins, the border between the two kinds."""
        return expansion_limit_ml(ExpansionDefinition.SIX_ML, self.baseline_ml)

    def _log_beyond(self, volume_ml: float) -> float:
        """Natural logarithm of a volume over that limit."""
        return math.log(volume_ml / self._limit_ml)

    @cached_property
    def _table(self) -> tuple[Array, Array]:
        """Volumes, and the share of the outcomes below each; both rise strictly."""
        limit = self._limit_ml
        stays = np.linspace(math.log(SMALLEST_RATIO), math.log(limit / self.baseline_ml), _STEPS)
        top = self._log_beyond(self.largest_ml)
        beyond = top * np.linspace(0.0, 1.0, _STEPS) ** 2  # finest where a heavy-tailed density is steepest
        if self.known_beyond is not None:
            beyond = np.unique(np.append(beyond, self._log_beyond(self.known_beyond[0])))
        below = np.concatenate(
            [(1.0 - self.expanding) * self._stayed(stays), (1.0 - self.expanding) + self._expanded(beyond)[1:]]
        )
        below += np.linspace(0.0, _TINY, len(below))  # no two alike, so that each share has one volume
        volumes = np.concatenate([self.baseline_ml * np.exp(stays), limit * np.exp(beyond[1:])])
        return volumes, np.clip(below / below[-1], 0.0, 1.0)

    def _stayed(self, log_ratio: Array) -> Array:
        """Cumulative distribution of those who do not expand; the last entry is where expansion begins."""
        deviations = (log_ratio - self.middle) / (math.sqrt(2.0) * self.deviation)
        values = np.array([math.erf(each) for each in deviations])  # without SciPy, which a panel may lack
        return (values - values[0]) / (values[-1] - values[0])

    def _grown(self, excess: Array) -> Array:
        """Cumulative distribution of the log growth beyond the limit, of those who expand."""

        def weibull(values: Array) -> Array:
            return 1.0 - np.exp(-math.log(2.0) * (values / self.excess) ** self.shape)

        return weibull(excess) / float(weibull(np.array([self._log_beyond(self.largest_ml)]))[0])

    def _expanded(self, excess: Array) -> Array:
        """Share of all patients who expand by no more than this beyond the limit."""
        grown = self._grown(excess)
        if self.known_beyond is None:
            return self.expanding * grown
        told_ml, told = self.known_beyond
        turn = float(self._grown(np.array([self._log_beyond(told_ml)]))[0])
        between = (self.expanding - told) * np.minimum(grown / max(turn, _TINY), 1.0)
        return between + told * np.maximum(grown - turn, 0.0) / max(1.0 - turn, _TINY)
