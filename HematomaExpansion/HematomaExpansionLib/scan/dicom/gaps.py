"""Slices missing within a stack, as opposed to protocols that change the slice distance on purpose; and stacks
that mix two passes over the same part of the head."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from ...errors import InputError
from ..grid import Array

_WIDER = 1.4  # times a neighboring distance: more than protocols and rounded headers account for
_COVERED = 1.25  # times the slice thickness
_PASS = 4  # slices in a row
_OVERLAP_MM = 20.0  # of two ranges; an overlap of a slice or two where they meet is common


@dataclass(frozen=True)
class Stack:
    """Slices from lowest to highest.

    Attributes:
        gaps: distance from each slice to the next along the stack, in mm; one fewer than there are slices.
        thickness: slice thickness in mm, 0 where the header does not say.
        numbers: the slices' instance numbers; None if any slice has none.
    """

    gaps: Array
    thickness: Array
    numbers: Array | None


def check_complete(stack: Stack) -> list[str]:
    """A warning if slices may be missing within the stack.

    Sequential protocols change the distance, often to a multiple. Their wide gaps extend to one end of the stack
    or are filled by thicker slices, and the slices are numbered without breaks.

    Raises:
        InputError: slices are definitely missing.
    """
    gaps = stack.gaps
    mean_thickness = (stack.thickness[1:] + stack.thickness[:-1]) / 2
    is_known = np.minimum(stack.thickness[1:], stack.thickness[:-1]) > 0
    is_open = ~is_known | (gaps > _COVERED * mean_thickness)
    skipped = _skipped_numbers(stack.numbers, len(gaps))
    reference = np.array([_neighboring_distance(gaps, skipped > 0, index) for index in range(len(gaps))])

    is_enclosed = np.array([_is_enclosed(gaps, index) for index in range(len(gaps))])
    is_lost = np.array([_is_sum_of_neighbors(gaps, index) for index in range(len(gaps))])
    # If a number is skipped too, it is enough that a gap is wider than its neighbors and than the slices.
    wide = np.where(is_known, np.maximum(1.1 * reference, _WIDER * mean_thickness), _WIDER * reference)
    missing = is_open & ((is_enclosed & is_lost) | ((skipped > 0) & (gaps > wide)))
    if missing.any():
        by_distance = np.maximum(np.round(gaps / reference) - 1, 1)
        count = int(np.where(skipped > 0, skipped, by_distance)[missing].sum())
        raise InputError(
            f"At least {count} slice{' is' if count == 1 else 's are'} missing in the middle of the scan. "
            "Export the whole series again."
        )
    is_covered_elsewhere = np.mean(is_known & ~is_open) > 0.5
    doubtful = (is_known & (gaps > _WIDER * mean_thickness) & is_covered_elsewhere) | (is_open & is_enclosed)
    doubtful |= (skipped > 0) & (gaps > _WIDER * reference)
    for edge, inner in ((0, 1), (-1, -2)):
        doubtful[edge] |= is_open[edge] and gaps[edge] > _WIDER * gaps[inner]
    if doubtful.any():
        return [
            f"Slices may be missing: neighboring slices are up to {gaps[doubtful].max():.1f} mm apart, more than "
            "their thickness or the distances beside them explain. Volumes may be wrong."
        ]
    return []


def check_passes(stack: Stack) -> None:
    """Refuse slices of two passes over the same part of the head: the patient may have moved in between.

    Each pass is numbered along the stack. Numbers in random order say nothing.

    Raises:
        InputError: two passes overlap.
    """
    if stack.numbers is None:
        return
    along = np.concatenate([[0.0], np.cumsum(stack.gaps)])[np.argsort(stack.numbers, kind="stable")]
    passes, direction = [[along[0]]], 0.0
    for before, here in pairwise(along):
        step = np.sign(here - before)
        if direction in (0.0, step):
            passes[-1].append(here)
            direction = step
        else:
            passes.append([here])
            direction = 0.0
    if min(map(len, passes)) < _PASS:
        return
    for one, other in combinations(passes, 2):
        if min(max(one), max(other)) - max(min(one), min(other)) > _OVERLAP_MM:
            raise InputError(
                "The series holds two passes over the same part of the head. Export them as separate series, "
                "and give one."
            )


def _skipped_numbers(numbers: Array | None, count: int) -> Array:
    """How many instance numbers are skipped in each gap; 0 if the numbers do not follow the stack."""
    if numbers is None:
        return np.zeros(count)
    steps = np.diff(numbers)
    if not ((steps > 0).all() or (steps < 0).all()):
        return np.zeros(count)
    steps = np.abs(steps)
    return np.maximum(np.round(steps / np.median(steps)) - 1, 0)


def _neighboring_distance(gaps: Array, left_out: Array, index: int) -> float:
    """The larger of the nearest distances on either side of a gap, skipping those in ``left_out``."""
    kept = ~left_out
    before, after = gaps[:index][kept[:index]], gaps[index + 1 :][kept[index + 1 :]]
    return float(max([*before[-1:], *after[:1]], default=gaps[index]))


def _is_enclosed(gaps: Array, index: int) -> bool:
    """Whether slices lie much closer on both sides of a gap; a single pair where ranges overlap does not count."""
    closer = gaps * _WIDER <= gaps[index]
    before, after = closer[:index], closer[index + 1 :]
    return all(side.sum() >= min(2, side.size) and side.size > 0 for side in (before, after))


def _is_sum_of_neighbors(gaps: Array, index: int) -> bool:
    """Whether a gap is as wide as the nearest narrower gaps on both sides combined: a slice was lost there."""
    closer = gaps * _WIDER <= gaps[index]
    before, after = gaps[:index][closer[:index]], gaps[index + 1 :][closer[index + 1 :]]
    return bool(before.size and after.size and gaps[index] > 0.9 * (before[-1] + after[0]))
