"""What the values of a series reveal: slices that are blank, or on a different scale than their header says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pydicom

from ...errors import InputError
from ..grid import Array
from .files import number

_TISSUE_HU = -300.0
_DOUBT_HU = 50.0


def check_planes(planes: Sequence[Array], headers: Sequence[pydicom.Dataset]) -> None:
    """Check slices (row, column) in HU, from lowest to highest, and their headers.

    Raises:
        InputError: a slice between others is blank, or its rescale values contradict its neighbors.
    """
    filled = np.flatnonzero([plane.max() > _TISSUE_HU and np.ptp(plane) > 0 for plane in planes])
    blank = int(np.ptp(filled) + 1 - filled.size) if filled.size else 0  # all blank: reported for the whole scan
    if blank:
        raise InputError(
            f"{blank} slice{' is' if blank == 1 else 's are'} blank in the middle of the scan. "
            "Export the whole series again."
        )
    _check_scales(planes, [_scale(header) for header in headers])


def _scale(header: pydicom.Dataset) -> tuple[float, float]:
    slope, intercept = number(header, "RescaleSlope"), number(header, "RescaleIntercept")
    return slope or 1.0, intercept or 0.0


def _check_scales(planes: Sequence[Array], scales: Sequence[tuple[float, float]]) -> None:
    """Refuse slices on an unusual scale if only the usual one makes them match their neighbors.

    Some exports write slope 1 and intercept 0 when the true values were lost.
    """
    usual, count = Counter(scales).most_common(1)[0]
    if count <= len(scales) / 2:
        return
    trusted = np.flatnonzero([scale == usual for scale in scales])
    wrong = 0
    for index in set(range(len(planes))) - set(trusted.tolist()):
        neighbor = planes[trusted[np.abs(trusted - index).argmin()]]
        body = neighbor > _TISSUE_HU
        (slope, intercept), plane = scales[index], planes[index]
        by_usual = (plane - intercept) / slope * usual[0] + usual[1]
        if body.any():
            as_told, as_most = (float(np.abs(hu - neighbor)[body].mean()) for hu in (plane, by_usual))
            wrong += as_told > 2 * as_most + _DOUBT_HU
    if wrong:
        raise InputError(
            f"{wrong} of the {len(planes)} slices {'has' if wrong == 1 else 'have'} another scale than those "
            "next to them, so the values are wrong (rescale slope or intercept). Export the series again."
        )
