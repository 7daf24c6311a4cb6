"""Fits how much hematomas grow: the spread of follow-up volumes of those who expand and of those who do not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize
from scipy.stats import norm

from ...forecast.distribution import Spread
from ...measures.expansion import ExpansionDefinition, expansion_limit_ml
from ...scan.grid import Array

PUBLISHED_SHARES = (0.10, 0.25, 0.50, 0.75, 0.90)
PUBLISHED_RATIOS = (1.29, 1.36, 1.60, 1.98, 2.82)
"""Follow-up over baseline volume of 32 patients who expanded, of 122 with a follow-up within 48 hours, at these
shares of them: the open table of a modeling contest."""

PUBLISHED_DEVIATION, PUBLISHED_CORRELATION = 0.41, -0.46
"""Among the 32: standard deviation of the log ratio, and its correlation with the log of the baseline volume."""

STAYED_DEVIATION = 0.12
"""Standard deviation of the log ratio of the other 90, from the quartiles of the ratio (0.91 and 1.07): a tenth of
them shrink by more than a normal distribution says, since some were operated on."""

AUTOMATIC_DEVIATION = 0.10
"""What an automatic mask adds to that, as the standard deviation of its log volume over the true one."""

_DRAWS = 40_000

# Standard deviations by which a hospital's patients may differ from what ships: of the middle and of the powers,
# and as factors (natural logarithm) of deviation, excess and shape.
_PRIOR = {"middle": 0.1, "deviation": 0.5, "excess": 0.5, "by_volume": 0.3, "by_network": 0.5, "shape": 0.25}
_FACTORS = ("deviation", "excess", "shape")
_FITTED = tuple(_PRIOR)
_SMALLEST_EXCESS = 0.005


@dataclass(frozen=True)
class GrowthPair:
    """One patient: the volume at which the prediction began, the true one at follow-up, in mL; the natural
    logarithm of the ratio that the network's own field gives, where there is one; and whether the hematoma
    expanded.
    """

    baseline_ml: float
    followup_ml: float
    network_growth: float | None
    expanded: bool


def published_spread(volumes_ml: Array, seed: int = 0) -> Spread:
    """The spread that fits the published figures, for patients who expand from these baseline volumes.

    The table tells ratios, not volumes: the 32 are taken to begin from such volumes.
    """
    random = np.random.default_rng(seed)
    baseline = random.choice(volumes_ml, _DRAWS)
    share = (np.arange(_DRAWS) + 0.5) / _DRAWS
    random.shuffle(share)
    limit = _log_limit(baseline)

    def misfit(values: Array) -> float:
        spread = Spread(0.0, 1.0, math.exp(values[0]), values[1], 0.0, math.exp(values[2]))
        median = spread.median_excess(baseline, None)
        ratio = limit + median * (-np.log2(1.0 - share)) ** (1.0 / spread.shape)
        quantiles = np.quantile(ratio, PUBLISHED_SHARES) - np.log(PUBLISHED_RATIOS)
        others = (
            ratio.std() - PUBLISHED_DEVIATION,
            np.corrcoef(ratio, np.log(baseline))[0, 1] - PUBLISHED_CORRELATION,
        )
        return float(np.square([*quantiles, *others]).sum())

    best = minimize(misfit, np.array([math.log(0.2), -0.3, math.log(0.9)]), method="Nelder-Mead").x
    return Spread(
        middle=0.0,
        deviation=STAYED_DEVIATION,
        excess=round(math.exp(best[0]), 4),
        by_volume=round(float(best[1]), 4),
        by_network=0.0,
        shape=round(math.exp(best[2]), 4),
    )


def of_automatic_masks(spread: Spread) -> Spread:
    """The same for predictions that begin from automatic masks, whose volumes have an error of their own."""
    return replace(spread, deviation=round(math.hypot(spread.deviation, AUTOMATIC_DEVIATION), 4))


def renew_spread(spread: Spread, pairs: Sequence[GrowthPair]) -> Spread:
    """The spread most probable given a hospital's pairs and a prior around what it was (``_PRIOR``)."""
    known = [pair.network_growth for pair in pairs if pair.network_growth is not None]
    if spread.by_network == 0.0 and known:  # what is typical has no meaning yet
        spread = replace(spread, network_growth=round(float(np.median(np.maximum(known, 0.02))), 4))
    start = np.array([_to_fit(spread, name) for name in _FITTED])
    widths = np.array([_PRIOR[name] for name in _FITTED])
    measured = _Measured.of(pairs)

    def minus_log_probability(values: Array) -> float:
        return -_log_likelihood(_with(spread, values), measured) + 0.5 * float(
            (((values - start) / widths) ** 2).sum()
        )

    best = minimize(minus_log_probability, start, method="Nelder-Mead", options={"maxiter": 4000, "fatol": 1e-6}).x
    return _with(spread, best, digits=4)


def _to_fit(spread: Spread, name: str) -> float:
    value = float(getattr(spread, name))
    return math.log(value) if name in _FACTORS else value


def _with(spread: Spread, values: Array, digits: int | None = None) -> Spread:
    found = {
        name: math.exp(min(max(value, -6.0), 3.0)) if name in _FACTORS else float(value)
        for name, value in zip(_FITTED, values, strict=True)
    }
    return replace(
        spread, **{name: value if digits is None else round(value, digits) for name, value in found.items()}
    )


def _log_limit(baseline_ml: Array) -> Array:
    """Natural logarithm of the ratio beyond which a hematoma has expanded."""
    limits = [expansion_limit_ml(ExpansionDefinition.SIX_ML, float(each)) for each in baseline_ml]
    return np.log(np.array(limits) / baseline_ml)


@dataclass(frozen=True)
class _Measured:
    """Pairs as arrays (pairs,): volumes in mL, log growth of the network's own field (or None), whether each
    expanded, the log ratio, and the log of the limit of expansion.
    """

    baseline_ml: Array
    network_growth: Array | None
    expanded: Array
    ratio: Array
    limit: Array

    @classmethod
    def of(cls, pairs: Sequence[GrowthPair]) -> _Measured:
        baseline = np.array([pair.baseline_ml for pair in pairs])
        expanded = np.array([pair.expanded for pair in pairs], bool)
        limit = _log_limit(baseline)
        ratio = np.log(np.maximum([pair.followup_ml for pair in pairs], 1e-3) / baseline)
        # A mask's error may put a patient on the other side: then the patient counts as just beyond the limit.
        ratio = np.where(expanded, np.maximum(ratio, limit + _SMALLEST_EXCESS), np.minimum(ratio, limit))
        told = [pair.network_growth for pair in pairs]
        network = None if None in told else np.array(told, float)
        return cls(baseline, network, expanded, ratio, limit)


def _log_likelihood(spread: Spread, pairs: _Measured) -> float:
    stayed, grew = ~pairs.expanded, pairs.expanded
    whole = norm.logcdf(pairs.limit[stayed], spread.middle, spread.deviation)
    of_stayed = norm.logpdf(pairs.ratio[stayed], spread.middle, spread.deviation) - whole
    network = None if pairs.network_growth is None else pairs.network_growth[grew]
    excess = (pairs.ratio - pairs.limit)[grew]
    share = math.log(2.0) * (excess / spread.median_excess(pairs.baseline_ml[grew], network)) ** spread.shape
    return float(of_stayed.sum() + (np.log(spread.shape * share / excess) - share).sum())
