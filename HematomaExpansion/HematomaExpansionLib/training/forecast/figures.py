"""Table and picture of an evaluation of forecasts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ... import RESEARCH_USE
from ...output.drawing import new_figure
from ...scan.grid import Array
from ..statistics import Auc
from .evaluation import MAP_BINS, ForecastFigures

_FIFTHS = 5
_COLORS = ("#c0392b", "#2c7fb8", "#60a040", "#8e44ad")


def forecast_table(summary: Mapping[str, Mapping[str, float]]) -> str:
    """The figures of ``summarize_forecast`` as Markdown: how much and where, then whether."""
    lines = [
        "| method | CRPS, mL (p) | 80 % range holds | its width, mL | if it expands, holds | error of the map "
        "| growth Dice if it expands (p) |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for method, entry in summary.items():
        crps = f"{entry['crps_ml']:.2f}{_p(entry, 'p_crps')}"
        dice = f"{entry['growth_dice']:.3f}{_p(entry, 'p_growth_dice')}" if "growth_dice" in entry else ""
        cells = [
            f"{entry[name]:{form}}" if name in entry else ""
            for name, form in (
                ("coverage", ".2f"),
                ("width_ml", ".1f"),
                ("coverage_if_expands", ".2f"),
                ("map_error", ".3f"),
            )
        ]
        lines.append(f"| {method} | {crps} | {' | '.join(cells)} | {dice} |")
    lines += [
        "",
        "| method | AUC (95 %) | Brier score | slope | mean probability | expanded |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for method, entry in summary.items():
        if "brier" not in entry:
            continue
        area = str(Auc(entry["auc"], entry["auc_low"], entry["auc_high"])) if "auc" in entry else ""
        slope = f"{entry['slope']:.2f}" if "slope" in entry else ""
        mean, share = entry["mean_probability"], entry["expanders"] / entry["cases"]
        lines.append(f"| {method} | {area} | {entry['brier']:.3f} | {slope} | {mean:.2f} | {share:.2f} |")
    return "\n".join(lines) + "\n"


def _p(entry: Mapping[str, float], name: str) -> str:
    if name not in entry:
        return ""
    return " (< 0.001)" if entry[name] < 0.001 else f" ({entry[name]:.3f})"


def draw_forecast_figures(figures: ForecastFigures, path: Path) -> None:
    """Reliability of the probability of expansion and of the map, and the ranges of the first method against the
    true volumes."""
    figure = new_figure(14.0, 4.8, "white")
    left, middle, right = figure.subplots(1, 3)
    methods = list(dict.fromkeys(row.method for row in figures.rows if row.probability is not None))
    for method, color in zip(methods, _COLORS, strict=False):
        own = [row for row in figures.rows if row.method == method]
        probability = np.array([row.probability for row in own], float)
        expanded = np.array([row.expanded for row in own], float)
        left.plot(*_by_fifths(probability, expanded), "o-", color=color, label=method)
        maps = [bins for bins in figures.maps if bins.method == method]
        tissue, expected, found = (
            np.sum([getattr(bins, name) for bins in maps], axis=0)
            for name in ("tissue_ml", "expected_ml", "found_ml")
        )
        some = tissue > 0
        middle.plot(expected[some] / tissue[some], found[some] / tissue[some], "o-", color=color, label=method)
    left.set(xlabel="probability of expansion", ylabel="share who expanded", title="Whether, in fifths")
    middle.set(
        xlabel="probability in the map", ylabel="share with blood at follow-up", title=f"Where, in {MAP_BINS} bins"
    )
    for axes in (left, middle):
        axes.plot([0, 1], [0, 1], color="#aaaaaa", lw=1, ls="--")
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(fontsize=8)
    own = [row for row in figures.rows if row.method == methods[0]]
    for row in own:
        color = _COLORS[0] if row.expanded else _COLORS[1]
        right.plot([row.followup_ml] * 2, [row.low_ml or 0.0, row.high_ml or 0.0], color=color, lw=1.2, alpha=0.7)
    top = 1.05 * max(max(row.followup_ml, row.high_ml or 0.0) for row in own)
    right.plot([0, top], [0, top], color="#aaaaaa", lw=1, ls="--")
    right.set(
        xlabel="true follow-up volume (mL)",
        ylabel=f"80 % range of {methods[0]} (mL)",
        title="How much; red: expanded",
        xlim=(0, top),
        ylim=(0, top),
    )
    figure.text(0.5, 0.005, RESEARCH_USE, ha="center", fontsize=8, color="0.4")
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(path, dpi=110)


def _by_fifths(probability: Array, expanded: Array) -> tuple[list[float], list[float]]:
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, _FIFTHS) if len(part)]
    return [float(probability[part].mean()) for part in parts], [float(expanded[part].mean()) for part in parts]
