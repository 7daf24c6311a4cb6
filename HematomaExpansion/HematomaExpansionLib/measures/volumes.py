"""Volumes without the bias of the method that found them, in mL."""

from __future__ import annotations

from collections.abc import Mapping

_MAX_CORRECTION = 2.0
"""A mask that is too small or too large by more than this factor is wrong, not biased."""


def corrected_volume(correction: Mapping[str, float], measured_ml: float) -> float:
    """A segmenter's volume in mL without its bias: ``constant_ml`` + ``slope`` × measured (Guo 2024, III.D).

    ``correction`` is a package's. Below ``smallest_ml`` and above ``largest_ml``, between which it was fitted, the
    factor by which a volume is corrected stays what it is there. It lies between 1/2 and 2, so that no volume
    becomes negative, and a larger one always stays the larger.
    """
    known = min(max(measured_ml, correction["smallest_ml"]), correction["largest_ml"])
    factor = (correction["constant_ml"] + correction["slope"] * known) / known
    return measured_ml * min(max(factor, 1 / _MAX_CORRECTION), _MAX_CORRECTION)
