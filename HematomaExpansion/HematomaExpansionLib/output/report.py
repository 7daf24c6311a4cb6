"""What people look at: the picture of the slices with both outlines, and the one-page report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import RESEARCH_USE
from ..anatomy.kinds import LOOKS, Kind
from ..forecast.evidence import steps_text
from ..forecast.forecast import milliliters
from ..forecast.probability import models_used
from ..markers.scores import bat_text, brain_text, markers_text, ventricles_of
from ..prediction import Prediction
from ..scan.grid import Array, Grid, oriented
from .drawing import (
    FOLLOWUP_COLOR,
    axial_array,
    axial_mask,
    axial_spacing,
    draw_midline,
    draw_outline,
    draw_probability,
    draw_probability_scale,
    draw_slice,
    head_box,
    new_figure,
    slices_through,
)
from .findings import NONE_FOUND, findings, first_line, is_doubtful, kinds_found, likely_text, scope_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_SLICES = 12
_COLUMNS = 4
_LEGEND_INCHES = 0.42


def summary_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    """The result as the rows of a table, (label, value), for both terminal and report."""
    baseline, followup, growth = result["baseline"], result["followup"], result["growth"]
    rows = [("Hematoma now", _hematoma_now(result))]
    rows += [(finding.title, finding.value) for finding in findings(result)]
    if scope := scope_text(result):
        rows.append(("Looked for", scope))
    if growth is not None:
        rows = [*_forecast_rows(result), *rows]
        rows += [
            (
                "ABC/2 now",
                f"{baseline['abc2_ml']:.1f} mL ({baseline['a_mm']:.0f} × {baseline['b_mm']:.0f} × "
                f"{baseline['c_mm']:.0f} mm; simplified {baseline['abc2_simplified_ml']:.1f} mL); a bedside "
                "estimate to compare with: rely on the volume above, which counts voxels",
            ),
            ("ABC/2 if it expands", f"{followup['abc2_ml']:.1f} mL"),
        ]
    if result.get("markers"):
        rows += [
            ("Signs on CT", markers_text(result["markers"])),
            ("BAT score", bat_text(result["scores"]["bat"])),
        ]
        if result["scores"].get("brain"):
            rows.append(("BRAIN score", brain_text(result["scores"]["brain"], ventricles_of(result))))
    return [*rows, *_model_rows(result)]


def _hematoma_now(result: dict[str, Any]) -> str:
    """Its volume, or that it is doubtful, or that none was found; and how probable it is."""
    baseline, likely = result["baseline"], likely_text(result)
    if is_doubtful(result):
        return f"{first_line(result)} ({likely})"
    if result["growth"] is None:
        return f"none found{likely and f' ({likely})'}, which does not rule out a bleed"
    corrected = baseline.get("corrected_volume_ml")  # a scene saved by an earlier version has none
    beside = [] if corrected is None else [f"{corrected:.1f} mL corrected for the segmenter's bias"]
    beside += [likely] if likely else []
    return f"{baseline['volume_ml']:.1f} mL" + (f" ({'; '.join(beside)})" if beside else "")


def _forecast_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Whether, how much and where; for an earlier version's result, what it said."""
    growth, forecast = result["growth"], result.get("forecast")
    if not forecast:
        risk = result.get("risk")
        chance = "" if risk is None else f", {100 * risk['probability']:.0f} % chance of expansion"
        return [("Forecast", f"{result['followup']['volume_ml']:.1f} mL{chance} (by an earlier version)")]
    detectable = "" if growth["detectable"] else ", below what repeated measurement can tell apart"
    grown = f"{growth['absolute_ml']:+.1f} mL ({100 * growth['relative']:+.0f} %){detectable}"
    first, *others = forecast_rows(forecast)
    return [first, ("If it expands", grown), *others]


def forecast_rows(forecast: dict[str, Any]) -> list[tuple[str, str]]:
    """A forecast as rows of a table, its headline first."""
    evidence, outcomes = steps_text(forecast["evidence"]), outcomes_text(forecast["volume_ml"])
    return [
        ("Forecast", forecast["text"]),
        ("All outcomes", f"{outcomes} mL: 8 in 10 patients like this one fall in this range"),
        ("Expansion means", forecast["definition"]),
        ("Evidence", f"{evidence} ({forecast['source']})" if evidence else forecast["source"]),
    ]


def outcomes_text(volumes: Mapping[str, float]) -> str:
    """The middle and the 80 % range of all outcomes, ``19 (17–31)``."""
    low, middle, high = (milliliters(volumes[share]) for share in ("10", "50", "90"))
    return f"{middle} ({low}–{high})"


def _model_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    """The models used, and one line on whose cases they were trained on."""
    models = models_used(result)
    names = [" ".join(filter(None, (model["name"], model["version"]))) for model in models.values()]
    trained = {model["name"]: model["trained_on"] for model in models.values() if model["trained_on"] is not None}
    rows = [("Models", ", ".join(names))]
    if len(set(trained.values())) == 1:
        rows.append(("Trained on", next(iter(trained.values()))))
    elif trained:
        rows.append(("Trained on", "; ".join(f"{name}: {whom}" for name, whom in trained.items())))
    return rows


def write_overlay(prediction: Prediction, path: Path) -> None:
    """Picture of the slices through the hematoma in a brain window, with the map of where blood may be at
    follow-up, the outlines of the hematoma now and if it expands, and a legend.

    Slices are shown as radiologists view them: the patient's right on the left side of the picture.
    """
    slices = _chosen_slices(prediction)
    columns = min(_COLUMNS, len(slices))
    rows = -(-len(slices) // columns)
    width = max(9.0, 3.2 * columns)
    legend = 0.6 + _LEGEND_INCHES * _legend_rows(prediction)
    height = rows * 1.03 * width / columns * _shape_of_a_slice(slices, prediction) + legend + 0.7
    figure = new_figure(width, height, "black")
    _draw_montage(figure, prediction, slices, bottom=legend / height, top=1 - 0.7 / height, left=0.01, right=0.99)
    figure.suptitle(_title(prediction.result), color="white", fontsize=15, y=1 - 0.2 / height)
    if notes := prediction.result["input"]["warnings"]:
        told = "1 note" if len(notes) == 1 else f"{len(notes)} notes"
        figure.text(
            0.98, 0.4 / height, f"{told} in the report", color="#ffb020", ha="right", va="center", fontsize=10
        )
    figure.text(0.98, 0.2 / height, RESEARCH_USE, color="#bbbbbb", ha="right", va="center", fontsize=9)
    _draw_legend(figure, prediction, 0.02, 0.28 / height, "white")
    figure.savefig(path, dpi=100)


def write_report(prediction: Prediction, path: Path) -> None:
    """One page (A4): the table, the warnings, the picture."""
    figure = new_figure(8.27, 11.69, "white")
    figure.text(0.08, 0.945, "Predicted hematoma expansion", fontsize=20, weight="bold")
    figure.text(0.08, 0.922, RESEARCH_USE, fontsize=11, color="#b00020", weight="bold")
    y = 0.895
    for label, value in summary_rows(prediction.result):
        text = fill(value, 75)
        figure.text(0.08, y, label, fontsize=9.5, va="top", color="#555555")
        figure.text(0.3, y, text, fontsize=9.5, va="top")
        y -= 0.0165 * (1 + text.count("\n")) + 0.003
    for warning in prediction.result["input"]["warnings"]:
        text = fill("Note: " + warning, 95)
        figure.text(0.08, y, text, fontsize=9, va="top", color="#8a5a00")
        y -= 0.0155 * (1 + text.count("\n")) + 0.003
    y -= _LEGEND_INCHES * _legend_rows(prediction) / figure.get_figheight()
    _draw_legend(figure, prediction, 0.08, y - 0.025, "#444444")
    slices = _chosen_slices(prediction)
    _draw_montage(figure, prediction, slices, bottom=0.05, top=y - 0.05, left=0.08, right=0.92)
    software = prediction.result["software"]
    figure.text(0.08, 0.025, f"{software['name']} {software['version']}", fontsize=8, color="#777777")
    figure.savefig(path, metadata={"CreationDate": None})


def _title(result: dict[str, Any]) -> str:
    line = first_line(result)
    return f"{line}; this does not rule out a bleed" if line == NONE_FOUND else line


@dataclass(frozen=True)
class _Slice:
    """An axial slice, numbered from 1 at the feet: CT, label map of bleeds, hematoma if it expands, and the
    probability of blood at follow-up, if known. ``midline``: on one slice, the ends of the ideal midline and the
    septum, (3, x y) in pixels.
    """

    number: int
    ct: Array
    bleeds: Array
    followup: Array
    probability: Array | None
    midline: Array | None = None


def _chosen_slices(prediction: Prediction) -> list[_Slice]:
    """Up to twelve axial slices, top of the head last, through what was found or, if that is nothing, the head; of
    a doubtful hematoma, through that alone, the slice to look at among them.
    """
    ct, bleeds = axial_array(prediction.baseline_ct), axial_array(prediction.bleeds.labels)
    hematoma = bleeds == Kind.INTRAPARENCHYMAL
    followup = hematoma if prediction.growth is None else axial_mask(prediction.growth.followup_mask)
    doubtful, presence = prediction.bleeds.is_doubtful, prediction.bleeds.presence
    shown = slices_through(hematoma if doubtful else followup | (bleeds > 0), _MAX_SLICES)
    if doubtful and presence is not None and presence.slice_number is not None:
        to_look_at = presence.slice_number - 1
        shown[np.abs(shown - to_look_at).argmin()] = to_look_at
    chance = None if prediction.growth_probability is None else axial_array(prediction.growth_probability)
    slices = [_Slice(k + 1, ct[k], bleeds[k], followup[k], None if chance is None else chance[k]) for k in shown]
    return slices if prediction.bleeds.midline is None else _with_midline(slices, prediction, ct, bleeds, followup)


def _with_midline(
    slices: list[_Slice], prediction: Prediction, ct: Array, bleeds: Array, followup: Array
) -> list[_Slice]:
    """The slices with the one at the level of the septum among them, and the midline on it."""
    midline, grid = prediction.bleeds.midline, Grid.of(oriented(prediction.baseline_ct, "LPS"))
    if midline is None:
        return slices
    points = np.array([midline.front, midline.back, midline.septum]) - np.array(grid.origin)
    index = np.linalg.solve(grid.axes, points.T).T
    level = int(np.clip(np.round(index[2, 2]), 0, len(ct) - 1))
    numbers = [each.number - 1 for each in slices]
    if level not in numbers and len(slices) < _MAX_SLICES:
        slices = sorted([*slices, _Slice(level + 1, ct[level], bleeds[level], followup[level], None)], key=_number)
    return [replace(each, midline=index[:, :2]) if each.number - 1 == level else each for each in slices]


def _number(each: _Slice) -> int:
    return each.number


def _draw_montage(
    figure: Figure,
    prediction: Prediction,
    slices: list[_Slice],
    *,
    bottom: float,
    top: float,
    left: float,
    right: float,
) -> None:
    columns = min(_COLUMNS, len(slices))
    rows = -(-len(slices) // columns)
    spacing = axial_spacing(prediction.baseline_ct)
    view = head_box([each.ct for each in slices])
    page_width, page_height = figure.get_size_inches()
    cell_width = (right - left) / columns * page_width / page_height
    row_height = 1.03 * cell_width * _shape_of_a_slice(slices, prediction)
    bottom = max(bottom, top - rows * row_height)  # rows stay close together, however few there are
    cells = figure.add_gridspec(
        rows, columns, bottom=bottom, top=top, left=left, right=right, wspace=0.02, hspace=0.02
    )
    for number, each in enumerate(slices):
        axes = figure.add_subplot(cells[divmod(number, columns)], anchor="N")
        draw_slice(axes, each.ct[view], spacing[1] / spacing[0])
        axes.set_title(f"slice {each.number}", color="#bbbbbb", fontsize=8, loc="right", y=0.99, pad=-8)
        hematoma = each.bleeds == Kind.INTRAPARENCHYMAL
        if each.probability is not None:
            around = np.where(hematoma, 0.0, each.probability)  # the clot itself is to be seen
            draw_probability(axes, around[view], spacing[1] / spacing[0])
        for kind in kinds_found(prediction.result):
            look = LOOKS[kind]
            draw_outline(axes, (each.bleeds == kind)[view], look.color, 1.4, look.dashes)
        draw_outline(axes, hematoma[view], LOOKS[Kind.INTRAPARENCHYMAL].color, 2.2)
        if prediction.growth is not None:
            draw_outline(axes, each.followup[view], FOLLOWUP_COLOR, 1.2)
        if each.midline is not None:
            draw_midline(axes, each.midline - (view[1].start, view[0].start))


def _draw_legend(figure: Figure, prediction: Prediction, x: float, y: float, color: str) -> None:
    """Outlines and, beside them, the scale of the map; above, the kinds found beside the hematoma. ``color`` is
    that of the scale's words.
    """
    width, height = figure.get_size_inches()
    if kinds := kinds_found(prediction.result):
        looks = [LOOKS[kind] for kind in kinds]
        lines = [(look.title.lower(), look.color, look.dashes) for look in looks]
        _draw_lines(figure, lines, x, y + _LEGEND_INCHES / height)
    if prediction.baseline_mask.is_empty:
        return
    now = LOOKS[Kind.INTRAPARENCHYMAL]
    lines = [("hematoma now", now.color, now.dashes)]
    if prediction.growth is not None:
        lines.append(("if it expands", FOLLOWUP_COLOR, "solid"))
    _draw_lines(figure, lines, x, y)
    if prediction.growth_probability is not None:
        scale = figure.add_axes((x + 2.9 / width, y - 0.05 / height, 1.8 / width, 0.1 / height))
        draw_probability_scale(scale, color)


def _draw_lines(figure: Figure, lines: list[tuple[str, str, str]], x: float, y: float) -> None:
    """A row of lines, each with its label, color and dashes, on a dark ground like the scan's."""
    from matplotlib.lines import Line2D

    figure.legend(
        handles=[Line2D([], [], color=color, ls=dashes, lw=2.5, label=label) for label, color, dashes in lines],
        loc="center left",
        bbox_to_anchor=(x, y),
        borderaxespad=0,
        ncols=len(lines),
        fontsize=9,
        facecolor="#222222",
        edgecolor="none",
        labelcolor="white",
    )


def _legend_rows(prediction: Prediction) -> int:
    """How many rows ``_draw_legend`` takes beyond its first."""
    return int(bool(kinds_found(prediction.result)))


def _shape_of_a_slice(slices: list[_Slice], prediction: Prediction) -> float:
    """Height divided by width, both in mm, of the part shown."""
    rows, columns = slices[0].ct[head_box([each.ct for each in slices])].shape
    spacing = axial_spacing(prediction.baseline_ct)
    return float(rows * spacing[1] / (columns * spacing[0]))
