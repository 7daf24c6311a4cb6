"""How well the CT markers are found, compared with what the simulator painted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ...anatomy.mask_source import MaskSource
from ...errors import InputError
from ...markers.markers import BLACK_HOLE_HU, find_markers
from ...markers.scores import HYPODENSITIES
from ..data.case_description import read_description
from ..data.cohort import case_folders, read_baseline
from ..data.each_case import LeftOut, rows_of_all

ANY_HYPODENSITY = "any_hypodensity"
"""What the BAT score counts as hypodensity: any of three markers."""


@dataclass(frozen=True)
class MarkerRow:
    """One marker of one case: painted or not, found or not."""

    case: str
    marker: str
    painted: bool
    found: bool


def painted_markers(description: dict[str, Any]) -> dict[str, bool | None]:
    """Which markers a simulated patient has by the wording of the criteria; None where they leave it open.

    A swirl lies under a rim that may or may not be closed, so it may count as enclosed. A pocket is as dense as
    brain, so it may count as a swirl or be dark enough for a black hole.

    Raises:
        InputError: the case was not simulated.
    """
    try:
        bleeding, signs = description["parameters"]["bleeding"], description["parameters"]["signs"]
    except KeyError:
        raise InputError("Markers can be evaluated on simulated patients only: their signs are known.") from None
    pocket = bleeding["pocket_mm"] > 0 or bleeding["decoy_mm"] > 0
    swirl, black_hole = bleeding["swirl_mm"] > 0, bleeding["black_hole_mm"] > 0
    dark = bleeding["hu"] - bleeding["hypodense_hu"] > BLACK_HOLE_HU
    enclosed = pocket or black_hole
    return {
        "hypodensity": True if enclosed else None if swirl else False,
        "swirl": True if swirl else None if enclosed else False,
        "black_hole": True if black_hole else None if (pocket or swirl) and dark else False,
        ANY_HYPODENSITY: enclosed or swirl,
        "blend": bleeding["blend_share"] > 0,
        "fluid_level": bleeding["fluid_share"] > 0,
        "heterogeneous": signs["heterogeneous"],
        "irregular": signs["irregular"],
        "satellite": bleeding["satellites"] >= 1,
        "island": bleeding["satellites"] >= 3,
    }


def evaluate_markers(cohort: Path, source: MaskSource, left_out: list[LeftOut] | None = None) -> list[MarkerRow]:
    """Rows for every case of a cohort of simulated patients; ``left_out`` as in ``each_case.rows_of_all``,
    including cases that were not simulated.

    If the automatic mask is empty, no marker counts as found.
    """
    evaluate = partial(_case_rows, source)
    return rows_of_all(evaluate, case_folders(cohort), source.device, left_out)


def _case_rows(source: MaskSource, folder: Path) -> list[MarkerRow]:
    painted = painted_markers(read_description(folder))
    scan, mask = read_baseline(folder, source)
    markers = {} if mask.is_empty else find_markers(scan.image, mask)
    found = {name: marker.present for name, marker in markers.items()}
    found[ANY_HYPODENSITY] = any(found.get(name, False) for name in HYPODENSITIES)
    return [
        MarkerRow(folder.name, name, there, found.get(name, False))
        for name, there in painted.items()
        if there is not None
    ]


def summarize_markers(rows: Sequence[MarkerRow]) -> dict[str, dict[str, float]]:
    """For each marker: how many cases have it and how many do not, sensitivity, specificity, and their mean."""
    summary: dict[str, dict[str, float]] = {}
    for marker in dict.fromkeys(row.marker for row in rows):
        own = [row for row in rows if row.marker == marker]
        painted, bare = ([row.found for row in own if row.painted is there] for there in (True, False))
        entry: dict[str, float] = {"painted": len(painted), "not_painted": len(bare)}
        if painted and bare:
            entry["sensitivity"], entry["specificity"] = sum(painted) / len(painted), 1 - sum(bare) / len(bare)
            entry["balanced_accuracy"] = (entry["sensitivity"] + entry["specificity"]) / 2
        summary[marker] = entry
    return summary
