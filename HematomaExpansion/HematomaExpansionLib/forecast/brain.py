"""The probability that the BRAIN score gives (Wang 2015): growth of at least 6 mL within 24 hours.

Derived on 964 patients of INTERACT2, checked on 346 of INTERACT1. Its 25 published probabilities lie on one line
in log odds. What is not known is summed over how frequent it was there.
"""

from __future__ import annotations

import math
from itertools import product

from ..markers.scores import BRAIN_POINTS, brain_points_of_hours, brain_points_of_volume
from ..measures.expansion import ExpansionDefinition
from .evidence import (
    BRAIN_SHARES,
    LOG_ODDS_AT_ZERO,
    LOG_ODDS_PER_POINT,
    Evidence,
    Probability,
    sigmoid,
)
from .facts import Facts

SOURCE = "BRAIN score, 964 patients (Wang 2015)"

_HOUR_SHARES = {5: 0.18, 4: 0.38, 3: 0.25, 2: 0.11, 1: 0.05, 0: 0.03}
"""Points for the hours from onset, and how frequent each is: read off the median of 1.8 hours and the quartiles of
1.2 and 2.7 of INTERACT2 (Anderson 2013)."""


def brain_of_points(points: float) -> float:
    """Probability of growth by at least 6 mL, for a number of points."""
    return sigmoid(LOG_ODDS_AT_ZERO + LOG_ODDS_PER_POINT * points)


def probability_from_brain(facts: Facts) -> Probability:
    """Probability of growth by at least 6 mL; from the lowest to the highest that it could be where something that
    the score asks for is not known.
    """
    sure = brain_points_of_volume(facts.volume_ml)
    open_questions: list[list[tuple[float, int]]] = []
    if facts.onset_hours is None:
        open_questions.append([(share, points) for points, share in _HOUR_SHARES.items()])
    else:
        sure += brain_points_of_hours(facts.onset_hours)
    for name, points in BRAIN_POINTS.items():
        told = getattr(facts, name)
        if told is None:
            share = BRAIN_SHARES[name]
            open_questions.append([(share, points), (1.0 - share, 0)])
        else:
            sure += points * int(told)
    ways = [
        (math.prod(share for share, _ in way), brain_of_points(sure + sum(points for _, points in way)))
        for way in product(*open_questions)
    ]
    value = sum(share * probability for share, probability in ways)
    words = "known points" if open_questions else "points"
    origin = f" (blood in the ventricles {facts.ventricles})" if facts.ventricles else ""
    return Probability(
        value=value,
        low=min(probability for _, probability in ways) if open_questions else None,
        high=max(probability for _, probability in ways) if open_questions else None,
        source=SOURCE,
        definition=ExpansionDefinition.SIX_ML_ALONE,
        evidence=(Evidence(f"BRAIN, {sure} {words}{origin}", float(sure), None, value, SOURCE),),
    )
