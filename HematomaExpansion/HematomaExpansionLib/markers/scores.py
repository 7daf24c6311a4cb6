"""Scores from CT markers or clinical data, and a radiologist's decisions on markers.

This works on the contents of ``prediction.json`` and needs only Python, so the panel recomputes a score at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..errors import InputError

HYPODENSITIES = ("hypodensity", "swirl", "black_hole")
"""Markers that BAT counts as hypodensity; any one of them is enough."""

EARLY_HOURS = 2.5
"""BAT gives points if fewer hours than this passed from onset to scan."""

HIGH_BAT = 3
"""BAT score from which the risk of expansion is called high."""


@dataclass(frozen=True)
class BatScore:
    """The BAT score (Morotti 2018): blend 1 point, any hypodensity 2, scan within 2.5 hours of onset 2.

    If the onset is unknown, ``time`` and ``total`` are None, and the last two say what the total would be.
    """

    blend: int
    hypodensity: int
    time: int | None
    total: int | None
    total_if_early: int
    total_if_late: int


def bat_score(present: Mapping[str, bool], onset_hours: float | None) -> BatScore:
    """The BAT score from the markers present and the hours from onset to scan."""
    blend, hypodensity = int(present["blend"]), 2 * int(any(present[name] for name in HYPODENSITIES))
    time = None if onset_hours is None else 2 * int(onset_hours < EARLY_HOURS)
    total = blend + hypodensity
    return BatScore(blend, hypodensity, time, None if time is None else total + time, total + 2, total)


MAX_ONSET_HOURS = 24 * 14

ONSET_RANGE = f"The hours from onset must lie between 0 and {MAX_ONSET_HOURS}."
"""The message for hours out of this range."""


def is_onset(hours: object) -> bool:
    """Whether these are valid hours from onset to scan: a number within two weeks, not nan."""
    return isinstance(hours, (int, float)) and not isinstance(hours, bool) and 0 <= hours <= MAX_ONSET_HOURS


GCS_RANGE = (3, 15)
"""Of the Glasgow Coma Scale."""


def is_gcs(score: object) -> bool:
    """Whether this is a score of the Glasgow Coma Scale."""
    low, high = GCS_RANGE
    return isinstance(score, (int, float)) and not isinstance(score, bool) and low <= score <= high


@dataclass(frozen=True)
class ClinicalData:
    """Facts that are not measured on the CT here; None where unknown.

    ``recurrent``: an earlier intracerebral hemorrhage. ``warfarin``: taken at onset. ``intraventricular``: blood
    in the ventricles too. ``gcs``: Glasgow Coma Scale, 3 to 15.
    """

    recurrent: bool | None = None
    warfarin: bool | None = None
    intraventricular: bool | None = None
    gcs: float | None = None

    def __post_init__(self) -> None:
        """Raise ``InputError`` for a score out of range."""
        if self.gcs is not None and not is_gcs(self.gcs):
            raise InputError("The Glasgow Coma Scale must lie between 3 and 15.")

    def with_found(self, intraventricular_ml: float | None) -> ClinicalData:
        """The same, with blood in the ventricles as found on the scan where nobody has told; None: not looked
        for.
        """
        if self.intraventricular is not None or intraventricular_ml is None:
            return self
        return replace(self, intraventricular=intraventricular_ml > 0)


NO_CLINICAL_DATA = ClinicalData()


@dataclass(frozen=True)
class BrainScore:
    """The BRAIN score (Wang 2015) by its parts, at most 24 points.

    Baseline volume above 10 mL: 5 points, above 20 mL: 7; recurrent hemorrhage: 4; anticoagulation with warfarin:
    6; intraventricular extension: 2; scan within one hour of onset: 5, and one point less for each further hour.
    """

    volume: int
    recurrent: int
    warfarin: int
    intraventricular: int
    time: int
    total: int


BRAIN_POINTS = {"recurrent": 4, "warfarin": 6, "intraventricular": 2}
"""Points of the BRAIN score for what clinical data tell."""


def brain_points_of_volume(baseline_ml: float) -> int:
    """Points of the BRAIN score for the baseline volume."""
    return 7 if baseline_ml > 20 else 5 if baseline_ml > 10 else 0


def brain_points_of_hours(onset_hours: float) -> int:
    """Points of the BRAIN score for the hours from onset to the scan."""
    return max(0, 6 - max(1, math.ceil(onset_hours)))


def brain_score(baseline_ml: float, onset_hours: float | None, clinical: ClinicalData) -> BrainScore | None:
    """The BRAIN score from baseline volume, hours from onset to scan and clinical data; None if any is unknown."""
    if onset_hours is None or None in (clinical.recurrent, clinical.warfarin, clinical.intraventricular):
        return None
    points = {
        "volume": brain_points_of_volume(baseline_ml),
        **{name: points * int(bool(getattr(clinical, name))) for name, points in BRAIN_POINTS.items()},
        "time": brain_points_of_hours(onset_hours),
    }
    return BrainScore(**points, total=sum(points.values()))


def scores_of(
    markers: Mapping[str, Mapping[str, Any]],
    onset_hours: float | None,
    baseline_ml: float,
    clinical: ClinicalData,
) -> dict[str, Any]:
    """The ``scores`` of a result, from its ``markers`` and the other data."""
    brain = brain_score(baseline_ml, onset_hours, clinical)
    return {
        "bat": asdict(bat_score(present_markers(markers), onset_hours)),
        "brain": None if brain is None else asdict(brain),
    }


def present_markers(markers: Mapping[str, Mapping[str, Any]]) -> dict[str, bool]:
    """Which markers are present: as overruled, otherwise as measured."""
    return {name: bool(marker.get("overruled", marker["present"])) for name, marker in markers.items()}


def with_decisions(
    markers: Mapping[str, Mapping[str, Any]], decisions: Mapping[str, bool]
) -> dict[str, dict[str, Any]]:
    """The markers with a reader's decisions on some of them."""
    return {
        name: {**marker, "overruled": decisions[name]} if name in decisions else dict(marker)
        for name, marker in markers.items()
    }


def overrule(result: Mapping[str, Any], name: str, present: bool) -> dict[str, Any]:
    """The result with a radiologist's decision on one marker, and its scores recomputed.

    The measurements and their probability stay; a decision that agrees with them is recorded only if they are
    unsure, since it makes the sign certain.
    """
    found = {key: value for key, value in result["markers"][name].items() if key != "overruled"}
    agrees = present == found["present"] and not is_unsure(found)
    marker = found if agrees else {**found, "overruled": present}
    markers = {**result["markers"], name: marker}
    bat = bat_score(present_markers(markers), result["input"].get("onset_hours"))
    return {**result, "markers": markers, "scores": {**result["scores"], "bat": asdict(bat)}}


UNSURE = (0.2, 0.8)
"""Between these probabilities, a sign may come out otherwise on a repeated scan."""


def is_unsure(marker: Mapping[str, Any]) -> bool:
    """Whether a marker may come out otherwise on a repeated scan; never if a reader has decided. A result of an
    earlier version does not tell.
    """
    low, high = UNSURE
    return "overruled" not in marker and low <= marker.get("probability", float(marker["present"])) <= high


def markers_text(markers: Mapping[str, Mapping[str, Any]]) -> str:
    """The markers present, in words, noting which a reader decided and which are unsure."""
    words = [
        name.replace("_", " ") + _certainty_text(markers[name])
        for name, there in present_markers(markers).items()
        if there
    ]
    return ", ".join(words) or "none found"


def _certainty_text(marker: Mapping[str, Any]) -> str:
    if "overruled" in marker:
        return " (by the reader)"
    return f" ({100 * marker['probability']:.0f} % likely)" if is_unsure(marker) else ""


def brain_text(score: Mapping[str, int], ventricles: str = "") -> str:
    """A BRAIN score in words; ``ventricles``: from whom blood in them is known (``ventricles_of``)."""
    points = ", ".join(f"{part} {score[part]}" for part in score if part != "total")
    return f"{score['total']} of 24 ({points}{ventricles and f'; blood in the ventricles: {ventricles}'})"


def found_in_ventricles(result: Mapping[str, Any]) -> float | None:
    """Blood in mL found in the ventricles; None if it was not looked for, as in an earlier version's result."""
    return (result.get("bleeds") or {}).get("intraventricular_ml")


def ventricles_of(result: Mapping[str, Any]) -> str:
    """``ventricles_text`` of a result."""
    told = (result["input"].get("clinical") or {}).get("intraventricular")
    return ventricles_text(told, found_in_ventricles(result))


def ventricles_text(told: bool | None, found_ml: float | None) -> str:
    """From whom it is known whether there is blood in the ventricles, the user's word first; empty if nobody has
    looked on the scan.
    """
    if found_ml is None:
        return ""
    found = f"found on the scan, {found_ml:.1f} mL" if found_ml > 0 else "none found on the scan"
    return found if told is None else f"{'present' if told else 'absent'} as told; {found}"


def bat_text(score: Mapping[str, int | None]) -> str:
    """A BAT score in words: its total, or what it would be if the onset is unknown."""
    points = f"blend {score['blend']}, hypodensity {score['hypodensity']}"
    high = f"high from {HIGH_BAT}"
    if score["total"] is not None:
        return f"{score['total']} of 5 ({points}, time {score['time']}); {high}"
    early, late = score["total_if_early"], score["total_if_late"]
    return f"{late} of 5, or {early} if scanned within {EARLY_HOURS:g} h of onset ({points}); {high}"
