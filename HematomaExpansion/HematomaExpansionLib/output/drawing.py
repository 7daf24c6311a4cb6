"""Draws axial slices with outlines and areas, for pictures and reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from ..anatomy.kinds import LOOKS, Kind
from ..errors import MissingLibraryError
from ..scan.grid import Array, Grid, oriented
from ..scan.mask import Mask
from ..scan.shapes import bounding_box

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_each(pictures: Mapping[str, Callable[[Path], None]], folder: Path) -> list[str]:
    """Draw each picture to its file in ``folder``; return a sentence for each that could not be drawn.

    A failed picture leaves no partial file.
    """
    failed = []
    for name, draw in pictures.items():
        try:
            draw(folder / name)
        except Exception:  # whatever a drawing library stumbles over
            (folder / name).unlink(missing_ok=True)
            failed.append(f"{name} could not be made; the numbers are not affected.")
    return failed


WINDOW_WIDTH, WINDOW_LEVEL = 80.0, 40.0
# As in Abramova 2024, Figure 5.
TRUE_POSITIVE_COLOR, FALSE_POSITIVE_COLOR, FALSE_NEGATIVE_COLOR = "#e02020", "#20c020", "#3060ff"
BASELINE_COLOR, FOLLOWUP_COLOR = LOOKS[Kind.INTRAPARENCHYMAL].color, "#ff4d5e"


def new_figure(width: float, height: float, face: str) -> Figure:
    """A figure of that size in inches that needs no screen.

    Raises:
        MissingLibraryError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingLibraryError("Pictures and reports need matplotlib: run `pip install matplotlib`.") from error
    figure = Figure(figsize=(width, height), facecolor=face)
    FigureCanvasAgg(figure)
    return figure


def slices_through(mask: Array, max_slices: int) -> Array:
    """Indices of slices to show, spaced evenly through the mask, or through the head if the mask is empty."""
    shown = np.flatnonzero(mask.any(axis=(1, 2))) if mask.any() else np.arange(len(mask))
    if len(shown) <= max_slices:
        return shown
    return shown[np.round(np.linspace(0, len(shown) - 1, max_slices)).astype(int)]


def axial_array(image: sitk.Image) -> Array:
    """Array (z, y, x) with axes toward superior, posterior and left, whatever the stored order."""
    return sitk.GetArrayFromImage(oriented(image, "LPS"))


def axial_spacing(image: sitk.Image) -> tuple[float, float, float]:
    """Spacing (x, y, z) in mm of the voxels of ``axial_array``."""
    corner = sitk.RegionOfInterest(image, (1, 1, 1), (0, 0, 0))  # the rest need not be reoriented for that
    return Grid.of(sitk.DICOMOrient(corner, "LPS")).spacing


def axial_mask(mask: Mask) -> Array:
    """``axial_array`` of a mask, as booleans."""
    return axial_array(mask.image) > 0


def head_box(ct: Sequence[Array] | Array) -> tuple[slice, slice]:
    """The part of axial slices (HU) that holds the head, as slices of (y, x)."""
    first, size = bounding_box(np.stack([hu > -300 for hu in ct]))
    return slice(int(first[1]), int(first[1] + size[1])), slice(int(first[0]), int(first[0] + size[0]))


def draw_slice(axes: Axes, ct: Array, aspect: float) -> None:
    """An axial slice (HU) in the brain window, as radiologists view it; ``aspect`` is pixel height over width."""
    low = WINDOW_LEVEL - WINDOW_WIDTH / 2
    axes.imshow(ct, cmap="gray", vmin=low, vmax=low + WINDOW_WIDTH, aspect=aspect, interpolation="bilinear")
    axes.text(0.02, 0.5, "R", transform=axes.transAxes, color="#bbbbbb", fontsize=9)
    axes.set_axis_off()


def draw_outline(axes: Axes, mask: Array, color: str, width: float, dashes: str = "solid") -> None:
    """The outline of a mask on the slice drawn in ``axes``."""
    if mask.any() and not mask.all():
        axes.contour(mask.astype(float), levels=[0.5], colors=[color], linewidths=width, linestyles=[dashes])


def draw_midline(axes: Axes, points: Array) -> None:
    """The ideal midline, dashed, and how far the septum lies from it; ``points`` (front, back, septum) in pixels
    (x, y).
    """
    front, back, septum = points
    along = (back - front) / np.linalg.norm(back - front)
    foot = front + along * float((septum - front) @ along)
    axes.plot(*np.array([front, back]).T, color="white", linewidth=0.8, linestyle="dashed")
    axes.plot(*np.array([foot, septum]).T, color="white", linewidth=2.0)
    axes.plot(*septum, marker="o", markersize=3, color="white")


PROBABILITY_COLORS = "cool"
"""Color map of the probability of blood at follow-up, from cyan to magenta: unlike both outlines."""

_FAINTEST, _FULL_OPACITY = 0.02, 0.6


def draw_probability(axes: Axes, probability: Array, aspect: float) -> None:
    """Shade the slice in ``axes`` by each voxel's probability of blood at follow-up; what is unlikely stays
    clear.
    """
    from matplotlib import colormaps

    shade = colormaps[PROBABILITY_COLORS](probability)
    shade[..., 3] = np.where(probability < _FAINTEST, 0.0, _FULL_OPACITY * np.sqrt(probability))
    axes.imshow(shade, aspect=aspect, interpolation="nearest")


def draw_probability_scale(axes: Axes, color: str) -> None:
    """The legend of ``draw_probability``, a bar from 0 to 100 %."""
    from matplotlib import colormaps

    share = np.linspace(0.0, 1.0, 100)
    shade = colormaps[PROBABILITY_COLORS](share)[None]
    axes.imshow(shade, aspect="auto", extent=(0, 100, 0, 1))
    axes.set_yticks([])
    axes.set_xticks([0, 50, 100], ["0", "50", "100 %"])
    axes.tick_params(colors=color, labelsize=8, length=2, pad=1)
    axes.set_title("chance of blood at follow-up", fontsize=8.5, color=color, pad=3)


def draw_agreement(axes: Axes, predicted: Array, true: Array, aspect: float) -> None:
    """Shade the slice in ``axes`` where a predicted mask is right (red), too much (green), or missing (blue)."""
    from matplotlib.colors import to_rgba

    shade = np.zeros((*true.shape, 4))
    for area, color in (
        (predicted & true, TRUE_POSITIVE_COLOR),
        (predicted & ~true, FALSE_POSITIVE_COLOR),
        (true & ~predicted, FALSE_NEGATIVE_COLOR),
    ):
        shade[area] = to_rgba(color, 0.55)
    axes.imshow(shade, aspect=aspect)
