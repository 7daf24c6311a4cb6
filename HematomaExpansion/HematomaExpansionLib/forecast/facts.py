"""What is known of a patient when it is asked whether the hematoma expands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import InputError
from ..markers.scores import GCS_RANGE, MAX_ONSET_HOURS, ClinicalData, found_in_ventricles, ventricles_text

FEWEST_HOURS = 0.25
"""Shorter times from onset count as this: nobody is scanned earlier, and the logarithm needs a limit."""

SIGNS = ("irregular", "blend", "hypodensity", "swirl", "black_hole", "heterogeneous")
"""CT markers that a forecast may use."""

_RANGES = {"volume_ml": (0.01, 300.0), "onset_hours": (0.0, MAX_ONSET_HOURS), "gcs": GCS_RANGE}
_WORDS = {"volume_ml": "volume in mL", "onset_hours": "number of hours from onset", "gcs": "Glasgow Coma Scale"}


@dataclass(frozen=True)
class Facts:
    """One patient; None where something is not known.

    Attributes:
        volume_ml: of the hematoma now.
        onset_hours: from onset to the scan.
        irregular, blend: how probable it is that the sign is present: 0 or 1 if a reader decided.
        gcs: Glasgow Coma Scale, 3 to 15.
        warfarin, recurrent, intraventricular: see ``markers.scores.ClinicalData``.
        ventricles: from whom ``intraventricular`` is known, in words, if the scan was searched for it.
        hypodensity, swirl, black_hole, heterogeneous: like ``irregular``.
    """

    volume_ml: float
    onset_hours: float | None = None
    irregular: float | None = None
    blend: float | None = None
    gcs: float | None = None
    warfarin: bool | None = None
    recurrent: bool | None = None
    intraventricular: bool | None = None
    hypodensity: float | None = None
    swirl: float | None = None
    black_hole: float | None = None
    heterogeneous: float | None = None
    ventricles: str = ""

    def __post_init__(self) -> None:
        """Raise ``InputError`` for a value out of range."""
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not in_range(name, value):
                raise InputError(f"The {_WORDS[name]} must lie between {low:g} and {high:g}.")

    @property
    def hours(self) -> float | None:
        """The hours from onset, as far as the models tell them apart."""
        return None if self.onset_hours is None else max(self.onset_hours, FEWEST_HOURS)

    @classmethod
    def of(
        cls,
        volume_ml: float,
        onset_hours: float | None,
        markers: Mapping[str, Mapping[str, Any]],
        clinical: Mapping[str, Any],
        intraventricular_ml: float | None = None,
    ) -> Facts:
        """The facts in CT markers as ``prediction.json`` holds them, a reader's decisions included, and in
        clinical data by the names of the fields; blood in the ventricles as found on the scan (None: not looked
        for) counts where nobody has told.
        """
        signs = {name: sign_probability(markers[name]) for name in SIGNS if name in markers}
        told = ClinicalData(**clinical)
        known = asdict(told.with_found(intraventricular_ml))
        ventricles = ventricles_text(told.intraventricular, intraventricular_ml)
        return cls(volume_ml, onset_hours, **{**signs, **known}, ventricles=ventricles)

    @classmethod
    def of_result(cls, result: Mapping[str, Any]) -> Facts:
        """The facts in the contents of ``prediction.json``."""
        told = result["input"]
        return cls.of(
            result["baseline"]["volume_ml"],
            told.get("onset_hours"),
            result.get("markers") or {},
            told.get("clinical") or {},
            found_in_ventricles(result),
        )


def in_range(name: str, value: float) -> bool:
    """Whether a number can be what it is said to be."""
    low, high = _RANGES[name]
    return low <= value <= high


def sign_probability(marker: Mapping[str, Any]) -> float:
    """How probable it is that a CT marker is present; a reader's decision is certain."""
    if "overruled" in marker:
        return float(marker["overruled"])
    return float(marker.get("probability", marker["present"]))
