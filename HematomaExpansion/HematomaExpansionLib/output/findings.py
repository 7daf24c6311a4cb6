"""The first line of a result, and what was found beside the hematoma, in words.

Made from ``prediction.json`` alone, so that report, terminal and panel say the same. Earlier versions' results
have neither ``bleeds`` nor, some, ``scope``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..anatomy.kinds import BESIDE_HEMATOMA, LOOKS, Kind
from ..forecast.forecast import milliliters

NONE_FOUND = "No hematoma found"


@dataclass(frozen=True)
class Finding:
    """One thing found, or looked for and not found; ``kind``: whose color marks it, if it is drawn."""

    title: str
    value: str
    kind: Kind | None = None


def findings(result: Mapping[str, Any]) -> list[Finding]:
    """What was looked for beside the hematoma, and how much of it there is."""
    bleeds = _bleeds(result)
    told = [
        Finding(LOOKS[kind].title, f"{milliliters(volume_ml)} mL", kind)
        if volume_ml
        else Finding(LOOKS[kind].title, "none found")
        for kind in BESIDE_HEMATOMA
        if (volume_ml := bleeds.get(kind.key)) is not None
    ]
    shift_mm = bleeds.get("midline_shift_mm")
    return told if shift_mm is None else [*told, Finding("Midline shift", f"{shift_mm:.1f} mm")]


def kinds_found(result: Mapping[str, Any]) -> list[Kind]:
    """The kinds found beside the hematoma."""
    return [kind for kind in BESIDE_HEMATOMA if _bleeds(result).get(kind.key)]


def is_doubtful(result: Mapping[str, Any]) -> bool:
    """Whether what was found is too improbable to be a hematoma for predicting its growth."""
    return bool(_bleeds(result).get("doubtful"))


def first_line(result: Mapping[str, Any]) -> str:
    """What a user reads first: the forecast, or why there is none."""
    baseline_ml = result["baseline"]["volume_ml"]
    if is_doubtful(result):
        return f"{milliliters(baseline_ml)} mL doubtful: look at slice {result['bleeds']['slice']}"
    if result["growth"] is None:
        blood = [kind for kind in kinds_found(result) if kind is not Kind.EDEMA]
        others = [f"{LOOKS[kind].title} {milliliters(result['bleeds'][kind.key])} mL" for kind in blood]
        return " · ".join([NONE_FOUND, *others])
    if forecast := result.get("forecast"):
        return str(forecast["text"])
    return f"Hematoma {baseline_ml:.1f} mL  →  predicted {result['followup']['volume_ml']:.1f} mL"


def likely_text(result: Mapping[str, Any]) -> str:
    """How probable a hematoma is, ``97 % likely to be a hematoma``; empty if that is not known."""
    probability = _bleeds(result).get("probability_of_hematoma")
    what = "to be a hematoma" if result["baseline"]["volume_ml"] > 0 else "that there is one"
    return "" if probability is None else f"{100 * probability:.0f} % likely {what}"


def new_blood_text(result: Mapping[str, Any]) -> str:
    """Whether a comparison shows new blood in the ventricles, the user's word first; empty if nobody knows."""
    new = result.get("new_intraventricular") or {
        "told": None,
        "found": None,
    }  # none in an earlier version's result
    told, found = (None if new[who] is None else "yes" if new[who] else "no" for who in ("told", "found"))
    if found is not None:
        volumes = [result[scan]["intraventricular_ml"] for scan in ("baseline", "followup")]
        before, after = ("not known" if ml is None else f"{ml:.1f} mL" if ml else "none" for ml in volumes)
        found += f" (baseline {before}, follow-up {after})"
    if told is None:
        return found or ""
    return f"{told}, as told{(found and f'; found: {found}') or ''}"


def scope_text(result: Mapping[str, Any]) -> str:
    """What was looked for, and what was not; empty for a mask that the user gave."""
    scope = result.get("scope")
    if not scope:
        return ""
    without = scope["not_looked_for"]
    return f"{scope['looked_for']}; not for {without}" if without else str(scope["looked_for"])


def _bleeds(result: Mapping[str, Any]) -> Mapping[str, Any]:
    return result.get("bleeds") or {}
