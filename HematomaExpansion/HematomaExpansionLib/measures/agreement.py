"""How well two masks agree."""

from __future__ import annotations

import numpy as np

from ..scan.grid import Array


def dice(first: Array, second: Array) -> float:
    """Dice coefficient of two masks; 1 if both are empty."""
    total = np.count_nonzero(first) + np.count_nonzero(second)
    return 1.0 if total == 0 else float(2 * np.count_nonzero(first & second) / total)


def mean_iou(first: Array, second: Array) -> float:
    """Intersection over union, averaged over the masks and the background, as in JPM 12:779, 2.6.

    The masks agree on almost all of the background, which raises it far above the value for the masks alone.
    """

    def iou(one: Array, other: Array) -> float:
        union = np.count_nonzero(one | other)
        return 1.0 if union == 0 else float(np.count_nonzero(one & other) / union)

    return (iou(first, second) + iou(~first, ~second)) / 2


def cohen_kappa(first: Array, second: Array) -> float:
    """Cohen's kappa of two masks over all their voxels: agreement beyond chance; 1 if both are empty."""
    shares = float(first.mean()), float(second.mean())
    chance = shares[0] * shares[1] + (1 - shares[0]) * (1 - shares[1])
    return 1.0 if chance == 1.0 else (float(np.mean(first == second)) - chance) / (1 - chance)


def growth_dice(given: Array, predicted: Array, baseline: Array, followup: Array) -> float:
    """Dice of the growth areas: prediction minus the mask it started from, against true follow-up minus baseline.

    NaN if nothing has grown, since there is no area to find.
    """
    true_growth = followup & ~baseline
    return dice(predicted & ~given, true_growth) if true_growth.any() else float("nan")
