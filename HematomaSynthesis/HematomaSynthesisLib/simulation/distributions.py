"""How a simulated cohort is distributed, drawn beside what the literature reports for patients."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk
from HematomaExpansionLib import RESEARCH_USE
from HematomaExpansionLib.errors import InputError
from HematomaExpansionLib.files.folders import check_output_folder, whole_or_nothing
from HematomaExpansionLib.files.provenance import Provenance
from HematomaExpansionLib.measures.expansion import ExpansionDefinition, measure_growth
from HematomaExpansionLib.output.drawing import draw_each, new_figure
from HematomaExpansionLib.scan.grid import Array
from HematomaExpansionLib.training.data.case_description import read_description
from HematomaExpansionLib.training.data.cohort import case_folders, read_case

from .bleeding import SITES
from .causal_model import SIGNS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Low, high: HU from the textbooks; blood and edema as reported for intracerebral hemorrhage.
_TISSUE_HU = {"CSF": (0, 12), "edema": (24, 31), "white": (27, 32), "gray": (37, 41), "blood": (50, 70)}
_MAX_SCANS = 30

DISTRIBUTIONS = "distributions"
"""The kind of folder, as recorded in its provenance."""


def describe_cohort(cohort: Path, output: Path) -> tuple[dict[str, float], list[str]]:
    """Draw ``distributions.png`` and write ``distributions.json`` into ``output``; returns the content of the
    latter, and a sentence if the picture could not be made.

    Raises:
        InputError: the cohort was not made by ``hematoma simulate``, or the folder cannot be written.
    """
    check_output_folder(output, DISTRIBUTIONS)
    folders = case_folders(cohort)
    cases = [read_description(folder) for folder in folders]
    if not all("parameters" in case and "signs" in case["parameters"] for case in cases):
        raise InputError("This cohort was not made by this version of `hematoma simulate`.")
    figures = _figures(cases)
    with whole_or_nothing(output, Provenance(DISTRIBUTIONS)) as scratch:
        failed = draw_each({"distributions.png": partial(_draw, folders, cases, figures)}, scratch)
        (scratch / "distributions.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return figures, failed


def _draw(folders: Sequence[Path], cases: Sequence[dict[str, Any]], figures: dict[str, float], path: Path) -> None:
    figure = new_figure(14, 8, "white")
    axes = figure.subplots(2, 3).ravel()
    _draw_volumes(axes[0], cases)
    _draw_growth(axes[1], cases, figures)
    _draw_sites(axes[2], cases)
    _draw_signs(axes[3], axes[4], figures)
    _draw_densities(axes[5], folders)
    figure.suptitle(f"{len(cases)} simulated patients. {RESEARCH_USE}", fontsize=11)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def _figures(cases: Sequence[dict[str, Any]]) -> dict[str, float]:
    volumes, growth = _volumes(cases), _growth(cases)
    share = {}
    for definition in (ExpansionDefinition.SIX_ML, ExpansionDefinition.TWELVE_AND_A_HALF_ML):
        expanded = _expanded(cases, definition)
        share[f"expanding_share_{definition.value}"] = float(expanded.mean())
    expanded = _expanded(cases, ExpansionDefinition.SIX_ML)
    figures = {
        "patients": len(cases),
        "baseline_median_ml": float(np.median(volumes)),
        "baseline_lower_quartile_ml": float(np.quantile(volumes, 0.25)),
        "baseline_upper_quartile_ml": float(np.quantile(volumes, 0.75)),
        **share,
        "growth_of_expanders_mean_ml": float(growth[expanded].mean()) if expanded.any() else 0.0,
        "growth_of_others_mean_ml": float(growth[~expanded].mean()) if not expanded.all() else 0.0,
        "growth_of_others_sd_ml": float(growth[~expanded].std(ddof=1)) if (~expanded).sum() > 1 else 0.0,
        "intraventricular_share": float(np.mean([case["intraventricular"]["baseline"] for case in cases])),
    }
    for sign in SIGNS:
        there = np.array([case["parameters"]["signs"][sign] for case in cases])
        # Half a patient more in each cell, since a small cohort may leave one empty.
        cells = [np.count_nonzero(a & b) + 0.5 for a in (there, ~there) for b in (expanded, ~expanded)]
        figures[f"{sign}_prevalence"] = float(there.mean())
        figures[f"{sign}_odds_ratio"] = float(cells[0] * cells[3] / (cells[1] * cells[2]))
    return figures


def _volumes(cases: Sequence[dict[str, Any]]) -> Array:
    return np.array([case["baseline_ml"] for case in cases])


def _growth(cases: Sequence[dict[str, Any]]) -> Array:
    return np.array([case["followup_ml"] - case["baseline_ml"] for case in cases])


def _expanded(cases: Sequence[dict[str, Any]], definition: ExpansionDefinition) -> Array:
    return np.array(
        [measure_growth(case["baseline_ml"], case["followup_ml"], definition).expansion for case in cases]
    )


def _draw_volumes(axes: Axes, cases: Sequence[dict[str, Any]]) -> None:
    axes.hist(_volumes(cases), bins=list(np.geomspace(1, 100, 22)), color="#2c7fb8")
    axes.set_xscale("log")
    for value, style in ((5.6, ":"), (10.7, "-"), (18.7, ":")):
        axes.axvline(value, color="#c0392b", linestyle=style)
    axes.set_xlabel("baseline volume (mL)\nred: median and quartiles of INTERACT2 (10.7; 5.6, 18.7)")
    axes.set_ylabel("patients")


def _draw_growth(axes: Axes, cases: Sequence[dict[str, Any]], figures: dict[str, float]) -> None:
    growth, expanded = _growth(cases), _expanded(cases, ExpansionDefinition.SIX_ML)
    bins = list(np.arange(-8, 62, 2.0))
    axes.hist([growth[~expanded], growth[expanded]], bins=bins, stacked=True, color=["#2c7fb8", "#c0392b"])
    axes.set_yscale("symlog")
    axes.set_xlabel(
        f"growth (mL); red: expanded, {100 * figures['expanding_share_6ml']:.0f} % by > 6 mL or > 33 %\n"
        f"({100 * figures['expanding_share_12.5ml']:.0f} % by > 12.5 mL or > 33 %; literature: 22–30 %)\n"
        f"others {figures['growth_of_others_mean_ml']:+.1f} ± {figures['growth_of_others_sd_ml']:.1f} mL "
        "(literature: 0 ± 1.4)"
    )


def _draw_sites(axes: Axes, cases: Sequence[dict[str, Any]]) -> None:
    sites = [case["parameters"]["bleeding"]["site"] for case in cases]
    literature = {"deep": (55, 65), "lobar": (21, 30), "cerebellar": (5, 15)}
    for k, site in enumerate(SITES):
        axes.bar(k, 100 * sites.count(site) / len(sites), color="#2c7fb8")
        _band(axes, k, *literature[site])
    blood = 100 * np.mean([case["intraventricular"]["baseline"] for case in cases])
    axes.bar(len(SITES), blood, color="#7fcdbb")
    _band(axes, len(SITES), 37, 40)
    axes.set_xticks(range(len(SITES) + 1), [*SITES, "blood in\nventricles"])
    axes.set_ylabel("% of patients")
    axes.set_xlabel("red: INTERACT2 and other cohorts")


def _draw_signs(left: Axes, right: Axes, figures: dict[str, float]) -> None:
    names = [sign.replace("_", " ") for sign in SIGNS]
    for k, (sign, (prevalence, odds_ratio)) in enumerate(SIGNS.items()):
        left.bar(k, 100 * figures[f"{sign}_prevalence"], color="#2c7fb8")
        _band(left, k, 100 * prevalence, 100 * prevalence)
        right.bar(k, figures[f"{sign}_odds_ratio"], color="#2c7fb8")
        _band(right, k, odds_ratio, odds_ratio)
    for axes, label in ((left, "prevalence (%)"), (right, "odds ratio for expansion")):
        axes.set_xticks(range(len(names)), names, rotation=35, ha="right")
        axes.set_ylabel(label)
        axes.set_xlabel("red: Zhong 2021 and pooled figures of reviews")
    right.set_yscale("log")


def _band(axes: Axes, x: float, low: float, high: float) -> None:
    axes.plot([x - 0.42, x + 0.42], [low, low], color="#c0392b")
    axes.plot([x - 0.42, x + 0.42], [high, high], color="#c0392b")


def _draw_densities(axes: Axes, folders: Sequence[Path]) -> None:
    """HU of brain and hematoma in some of the scans, with most of the noise removed."""
    brain, blood = [], []
    for folder in folders[:: max(1, len(folders) // _MAX_SCANS)]:
        case = read_case(folder)
        hu = sitk.GetArrayFromImage(sitk.DiscreteGaussian(case.baseline.ct, 4.0))
        mask = case.baseline.hematoma.voxels
        inside = case.baseline.inside_skull.voxels & ~mask
        brain.append(hu[inside][::50])
        blood.append(hu[mask][::10])
    bins = list(np.arange(-5, 90, 1.5))
    axes.hist(
        [np.concatenate(brain), np.concatenate(blood)], bins=bins, density=True, color=["#7f8c8d", "#c0392b"]
    )
    for (tissue, (low, high)), height in zip(_TISSUE_HU.items(), (1, 0.9, 0.8, 1, 1), strict=True):
        top = height * axes.get_ylim()[1]
        axes.plot([low, high], [top, top], color="black", linewidth=3)
        axes.text((low + high) / 2, top, tissue, ha="center", va="bottom", fontsize=8)
    axes.set_xlabel(f"HU of brain (gray) and hematoma (red), {len(brain)} scans\nblack: textbook ranges")
