"""A picture of one scan with what several segmentation models found in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..anatomy.bleeds import Bleeds
from ..anatomy.kinds import LOOKS, Kind
from ..scan.grid import Array
from .drawing import axial_array, axial_spacing, draw_outline, draw_slice, head_box, new_figure

_SLICES, _INCHES = 5, 2.4


def draw_models(ct: sitk.Image, bleeds: Mapping[str, Bleeds], path: Path) -> None:
    """A row of slices for each model, with its bleeds outlined: those in which any model found most.

    Raises:
        MissingLibraryError: matplotlib is not installed.
    """
    hu, found = axial_array(ct), {name: axial_array(own.labels) for name, own in bleeds.items()}
    shown = _most_found(list(found.values()))
    rows, columns = head_box(hu[shown])
    x_mm, y_mm, _ = axial_spacing(ct)
    figure = new_figure(_INCHES * len(shown), _INCHES * len(found) + 0.3, "black")
    axes = figure.subplots(len(found), len(shown), squeeze=False)
    for row, (name, labels) in zip(axes, found.items(), strict=True):
        for place, number in zip(row, shown, strict=True):
            draw_slice(place, hu[number][rows, columns], y_mm / x_mm)
            for kind in Kind:
                look = LOOKS[kind]
                draw_outline(place, labels[number][rows, columns] == kind, look.color, 1.2, look.dashes)
            place.set_title(f"{number}", color="#bbbbbb", fontsize=7, pad=1)
        row[0].text(0.0, 1.08, name, transform=row[0].transAxes, color="white", fontsize=9)
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.95, 0.02, 0.12)
    figure.savefig(path, dpi=110, facecolor=figure.get_facecolor())


def _most_found(labels: list[Array]) -> Array:
    """The slices, from 0, feet first, in which any model found most; the middle one if none found anything."""
    areas = np.count_nonzero(np.any([own > 0 for own in labels], axis=0), axis=(1, 2))
    if not areas.any():
        return np.array([len(areas) // 2])
    return np.sort(np.argsort(-areas, kind="stable")[: min(_SLICES, np.count_nonzero(areas))])
