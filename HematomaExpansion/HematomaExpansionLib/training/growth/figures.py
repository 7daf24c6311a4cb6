"""Tables and figures of a growth evaluation, in the form of Abramova 2024 (Table 1, Figures 4 and 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ... import RESEARCH_USE
from ...growth.outcomes import predict_outcomes
from ...models.package import ModelPackage
from ...output.drawing import (
    BASELINE_COLOR,
    axial_array,
    axial_mask,
    draw_agreement,
    draw_outline,
    draw_slice,
    head_box,
    new_figure,
)
from ...scan.grid import Array
from ...scan.subject import Subject
from ..data.cohort import given_baseline, read_case
from ..statistics import Auc
from .evaluation import GrowthEvaluation, GrowthRow

if TYPE_CHECKING:
    import torch


def growth_table(summary: Mapping[str, Mapping[str, float]], label: str = "_expanders") -> str:
    """The paper's Table 1 as Markdown, from ``summarize_growth``; ``label`` "" for all cases.

    The paper's cohort consists of patients who expanded.
    """
    lines = [
        "| method | growth Dice | AEV, mL | AAEV, mL | lesion Dice | p |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for method, entry in summary.items():
        if f"lesion_dice{label}" not in entry:
            continue
        score = "nothing grew"
        if f"growth_dice{label}" in entry:
            score = _with_deviation(entry, f"growth_dice{label}", f"growth_dice_sd{label}", ".3f")
        p = entry.get(f"p{label}")
        p_text = "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
        lines.append(
            f"| {method} | {score} "
            f"| {_with_deviation(entry, f'average_error_ml{label}', f'average_error_sd_ml{label}', '+.2f')} "
            f"| {entry[f'average_absolute_error_ml{label}']:.2f} | {entry[f'lesion_dice{label}']:.3f} | {p_text} |"
        )
    return "\n".join(lines) + "\n"


def _with_deviation(entry: Mapping[str, float], mean: str, deviation: str, form: str) -> str:
    """A mean, with its standard deviation if there is one."""
    spread = f" ± {entry[deviation]:{form.lstrip('+')}}" if deviation in entry else ""
    return f"{entry[mean]:{form}}{spread}"


def expansion_table(summary: Mapping[str, Mapping[str, float]]) -> str:
    """What the paper's Table 1 leaves out about the models, as Markdown: AUC of the predicted growth for
    expansion, and whether the field folds."""
    lines = [
        "| method | AUC for expansion (95 %) | smallest Jacobian |",
        "| --- | --- | --- |",
    ]
    for method, entry in summary.items():
        if "smallest_jacobian" not in entry:
            continue
        area = ""
        if "expansion_auc" in entry:
            area = str(Auc(*(entry[f"expansion_auc{end}"] for end in ("", "_low", "_high"))))
        lines.append(f"| {method} | {area} | {entry['smallest_jacobian']:.5f} |")
    return "\n".join(lines) + "\n"


def draw_growth_figures(rows: Sequence[GrowthRow], path: Path) -> None:
    """For the cases that expanded, violin plots of the growth Dice and box plots of the volume error by method;
    for all cases, the first method's predicted growth against the true growth."""
    methods = list(dict.fromkeys(row.method for row in rows))
    expanded = [row for row in rows if row.expanded] or list(rows)
    figure = new_figure(13.5, 4.8, "white")
    left, middle, right = figure.subplots(1, 3)
    scores = [[row.growth_dice for row in expanded if row.method == method] for method in methods]
    left.violinplot([np.array(values)[np.isfinite(values)] for values in scores], showmedians=True)
    left.set_ylabel("Dice of the growth area")
    left.set_ylim(0, 1)
    errors = [[row.error_ml for row in expanded if row.method == method] for method in methods]
    middle.boxplot(errors)
    middle.axhline(0, color="0.6", linewidth=0.8)
    middle.set_ylabel("Predicted minus true follow-up volume (mL)")
    for axes in (left, middle):
        axes.set_xticks(range(1, len(methods) + 1), [method.replace(", ", ",\n") for method in methods])
        for label in axes.get_xticklabels():
            label.set(rotation=25, ha="right", rotation_mode="anchor")
        axes.set_title(f"{len(expanded) // len(methods)} cases that expanded", fontsize=10)
    own = [row for row in rows if row.method == methods[0]]
    growth = np.array([(row.followup_ml - row.baseline_ml, row.predicted_ml - row.given_ml) for row in own])
    colors = ["#c0392b" if row.expanded else "#2c7fb8" for row in own]
    right.scatter(*growth.T, s=14, c=colors, zorder=3)
    limits = [min(0.0, float(growth.min())) - 1, float(growth.max()) + 1]
    right.plot(limits, limits, color="0.6", linewidth=0.8)
    right.set_xlabel("True growth (mL)")
    right.set_ylabel(f"Growth predicted by {methods[0]} (mL)")
    right.set_title(f"{len(own)} cases; red: expanded", fontsize=10)
    figure.text(0.5, 0.005, RESEARCH_USE, ha="center", fontsize=8, color="0.4")
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(path, dpi=130)


def _predicted(given: Subject, package: ModelPackage, device: torch.device) -> Array:
    """The predicted hematoma, axial (z, y, x); empty if the given one is empty."""
    if given.hematoma.is_empty:
        return axial_mask(given.hematoma)
    return axial_mask(predict_outcomes(given, package, device).at_own_strength().followup_mask)


def draw_growth_examples(
    evaluation: GrowthEvaluation, cohort: Path, rows: Sequence[GrowthRow], path: Path
) -> None:
    """Like the paper's Figure 5: baseline, follow-up, and each model's hematoma over the follow-up with true
    positives (red), false positives (green) and false negatives (blue), for three cases that expanded: those with
    the first model's worst, median and best growth Dice."""
    first = rows[0].method
    own = [row for row in rows if row.method == first]
    ranked = sorted([row for row in own if row.expanded] or own, key=lambda row: row.growth_dice)
    chosen = [ranked[k] for k in sorted({0, len(ranked) // 2, len(ranked) - 1})]
    names = [package.description.name for package in evaluation.packages]
    figure = new_figure(3.2 * (2 + len(names)), 3.9 * len(chosen) + 0.4, "black")
    cells = figure.subplots(len(chosen), 2 + len(names), squeeze=False)
    for row, line in zip(chosen, cells, strict=True):
        case = read_case(cohort / row.case)
        given = given_baseline(case, evaluation.source)
        before, after = axial_array(case.baseline.ct), axial_array(case.followup.ct)
        start, truth = axial_mask(case.baseline.hematoma), axial_mask(case.followup.hematoma)
        k = int((truth & ~start).sum(axis=(1, 2)).argmax())
        view = head_box(before[k][None])
        spacing = case.baseline.grid.spacing
        for axes, ct in zip(line, [before, *[after] * (1 + len(names))], strict=True):
            draw_slice(axes, ct[k][view], spacing[1] / spacing[0])
        draw_outline(line[0], start[k][view], BASELINE_COLOR, 1.2)
        line[0].set_title(f"{row.baseline_ml:.0f} mL", color="white", fontsize=10)
        line[1].set_title(f"real follow-up, {row.followup_ml:.0f} mL", color="white", fontsize=10)
        for axes, package in zip(line[2:], evaluation.packages, strict=True):
            guess = _predicted(given, package, evaluation.source.device)
            draw_agreement(axes, guess[k][view], truth[k][view], spacing[1] / spacing[0])
            score = next(r for r in rows if r.case == row.case and r.method == package.description.name)
            axes.set_title(f"{score.method}, growth Dice {score.growth_dice:.2f}", color="white", fontsize=10)
    figure.text(
        0.01, 0.006, f"red: right, green: too much, blue: missed. {RESEARCH_USE}", color="#bbbbbb", fontsize=9
    )
    figure.subplots_adjust(0.005, 0.03, 0.995, 0.96, 0.02, 0.09)
    figure.savefig(path, dpi=80)
