"""Which voxels of a mask are the hematoma: one of several labels, chosen by number or name, never merged.

Image files name their segments only if Slicer wrote them as ``.seg.nrrd``; there, overlapping segments are on
separate layers, stored as several values per voxel.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from .grid import Array, Grid
from .mask import Mask
from .volume import scalar_volume

_SEGMENT_KEY = re.compile(r"Segment(\d+)_(?:ID|Name|LabelValue|Layer)")
_MAX_LABELS = 200  # the most detailed brain maps have this many; a scan has more distinct values
_LISTED = 8
_ROUNDING = 1e-3


@dataclass(frozen=True)
class Segment:
    """One label of a mask: its number in the file, and its name if it has one."""

    number: int
    name: str = ""

    def is_called(self, label: str) -> bool:
        """Whether ``label`` is its number, or its name in any case."""
        is_name = self.name != "" and label.casefold() == self.name.strip().casefold()
        return is_name or label.removesuffix(".0") == str(self.number)

    def __str__(self) -> str:
        return f"{self.number} ({self.name})" if self.name else str(self.number)


def hematoma_in(image: sitk.Image, label: str | None = None) -> Mask:
    """The hematoma in a mask of any kind, on the same grid; it may be empty.

    If there is only one label, it is the hematoma, whatever its number; if there are several, ``label`` names the
    hematoma by number or segment name. Probabilities from 0 to 1 count above 0.5.

    Raises:
        InputError: there are several labels and none is named, the named one is not there, or this is not a mask.
    """
    if drawn := _slicer_segments(image):
        chosen = choose_segment([segment for segment, _ in drawn], label)
        layer = _layer(image, next(layer for segment, layer in drawn if segment is chosen))
        return Mask.on(Grid.of(layer), sitk.GetArrayViewFromImage(layer) == chosen.number)
    image = scalar_volume(image, "mask")
    grid, values = Grid.of(image), sitk.GetArrayViewFromImage(image)
    labels = _labels(values)
    if labels is None:
        if label is not None:
            raise InputError("The mask holds probabilities, not labels: leave out the label.")
        if not (values > 0.5).any():
            raise InputError(
                f"The mask is empty: none of its probabilities is above 0.5 (the highest is {values.max():.2g}). "
                "Draw the hematoma, or leave the mask out."
            )
        return Mask.on(grid, values > 0.5)
    if not labels and label is None:
        return Mask.on(grid, values > 0)
    chosen = choose_segment([Segment(number) for number in labels], label)
    return Mask.on(grid, np.abs(values - chosen.number) < _ROUNDING)


def choose_segment(segments: Sequence[Segment], label: str | None) -> Segment:
    """The only segment, or the one that ``label`` names.

    Raises:
        InputError: none of several is named, or the named one is not there; the message lists those that are.
    """
    held = ", ".join(map(str, segments[:_LISTED])) + ", …" * (len(segments) > _LISTED)
    if label is None:
        if len(segments) == 1:
            return segments[0]
        raise InputError(
            f"The mask holds {len(segments)} labels: {held}. Say which one is the hematoma, by number or name "
            "(--label, or for two scans --baseline-label and --followup-label; in a list, the column of that "
            "name)."
        )
    text = label.strip()
    found = [segment for segment in segments if segment.is_called(text)]
    if len(found) > 1:
        raise InputError(
            f'The label "{text}" matches several labels in the mask: {held}. Use another number or name.'
        )
    if not found:
        raise InputError(f'The mask has no label "{text}"; it holds {held or "none"}.')
    return found[0]


def _labels(values: Array) -> list[int] | None:
    """The nonzero numbers in a label map; None for probabilities from 0 to 1.

    Raises:
        InputError: the values are neither, such as those of a scan.
    """
    lowest, highest = float(values.min()), float(values.max())
    if not np.isfinite([lowest, highest]).all():
        raise InputError("The mask holds invalid numbers (NaN or infinity). Export it again.")
    if lowest < -_ROUNDING:
        raise InputError(
            f"The mask holds values from {lowest:.0f} to {highest:.0f}, as a scan does. Give the hematoma's mask."
        )
    if values.dtype.kind == "f" and (np.abs(values - np.rint(values)) > _ROUNDING).any():
        if highest <= 1 + _ROUNDING:
            return None
        raise InputError(
            f"The mask's values, up to {highest:.4g}, are neither labels nor probabilities from 0 to 1. "
            "Give the hematoma's mask."
        )
    labels = [int(number) for number in np.unique(np.rint(values[values > 0.5]))]
    if len(labels) > _MAX_LABELS:
        raise InputError(
            f"The mask holds {len(labels)} different values, as a scan does. Give the hematoma's mask."
        )
    return labels


def _slicer_segments(image: sitk.Image) -> list[tuple[Segment, int]]:
    """The segments that Slicer describes in a file's header, each with its layer; empty for other files.

    Before Slicer 4.11, each segment had its own layer of 0 and 1.
    """
    keys = image.GetMetaDataKeys()
    indices = {int(match[1]) for key in keys if (match := _SEGMENT_KEY.fullmatch(key))}

    def value(index: int, key: str, default: str) -> str:
        name = f"Segment{index}_{key}"
        return image.GetMetaData(name).strip() if name in keys else default

    try:
        return [
            (
                Segment(int(value(index, "LabelValue", "1")), value(index, "Name", "")),
                int(value(index, "Layer", str(index))),
            )
            for index in sorted(indices)
        ]
    except ValueError:
        raise InputError("The segments in the mask's header are not readable. Save it again.") from None


def _layer(image: sitk.Image, layer: int) -> sitk.Image:
    if image.GetNumberOfComponentsPerPixel() == 1:
        return scalar_volume(image, "mask")
    if not 0 <= layer < image.GetNumberOfComponentsPerPixel():
        raise InputError("The segments in the mask's header do not fit its voxels. Save it again.")
    return scalar_volume(sitk.VectorIndexSelectionCast(image, layer), "mask")
