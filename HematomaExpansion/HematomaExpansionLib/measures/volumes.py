"""Volumes in mL, corrected for the bias of the segmentation method."""

from __future__ import annotations

from collections.abc import Mapping

_MAX_CORRECTION = 2.0
"""A mask that is too small or too large by more than this factor is wrong, not biased."""


def corrected_volume(correction: Mapping[str, float], measured_ml: float) -> float:
    """A segmenter's volume in mL without its bias: ``constant_ml`` + ``slope`` × measured (Guo 2024, III.D).

    ``correction`` comes from a model package. It was fitted between ``smallest_ml`` and ``largest_ml``; outside
    that range, the correction factor stays at its value at the nearer end. The factor lies between 1/2 and 2, so
    no volume becomes negative, and a larger volume always stays larger.
    """
    known = min(max(measured_ml, correction["smallest_ml"]), correction["largest_ml"])
    factor = (correction["constant_ml"] + correction["slope"] * known) / known
    return measured_ml * min(max(factor, 1 / _MAX_CORRECTION), _MAX_CORRECTION)
