"""What was looked for in a scan, and what the user must know of the bleeds found, in sentences."""

from __future__ import annotations

from .bleeds import DOUBTFUL, Bleeds
from .hematomas import MIN_HEMATOMA_ML, MIN_ML_OF
from .kinds import Kind

HEMATOMA = f"blood inside the brain, from {MIN_HEMATOMA_ML:.0f} mL"
"""What counts as hematoma, whatever else is looked for."""

LARGE_EXTRAAXIAL_ML = 10.0
"""From this volume on, or from more than the hematoma's, blood outside of the brain is the disease."""

_OUTSIDE = "outside of the brain (epidural, subdural, subarachnoid)"
_LOOKED_FOR = (
    f"{HEMATOMA}, in the ventricles, from {MIN_ML_OF[Kind.INTRAVENTRICULAR]:g} mL, and {_OUTSIDE}, from "
    f"{MIN_ML_OF[Kind.EXTRAAXIAL]:.0f} mL; edema around the hematoma"
)
_NOT_LOOKED_FOR = f"blood {_OUTSIDE} or in the ventricles"


def scope_of(bleeds: Bleeds) -> dict[str, str | None]:
    """The ``scope`` of ``prediction.json``: what was looked for in a scan, and what was not."""
    if bleeds.tells_kinds_apart:
        return {"looked_for": _LOOKED_FOR, "not_looked_for": None}
    return {"looked_for": HEMATOMA, "not_looked_for": _NOT_LOOKED_FOR}


def notes_on_bleeds(bleeds: Bleeds) -> list[str]:
    """What the user must know of the bleeds in a scan, one sentence each, the most important first."""
    notes = []
    if bleeds.hematoma.is_empty:
        notes.append(_no_hematoma(bleeds))
    elif bleeds.is_doubtful:
        notes.append(_doubtful(bleeds))
    return [*notes, *notes_on_extraaxial(bleeds)]


def notes_on_extraaxial(bleeds: Bleeds) -> list[str]:
    """A sentence if blood outside of the brain is so much that it is the disease."""
    outside_ml = bleeds.volume_ml(Kind.EXTRAAXIAL) or 0.0
    if outside_ml >= LARGE_EXTRAAXIAL_ML or outside_ml > bleeds.hematoma.volume_ml:
        return [
            f"{outside_ml:.0f} mL of blood lie {_OUTSIDE}. From {LARGE_EXTRAAXIAL_ML:.0f} mL on, or if it is more "
            "than the hematoma, that is another disease, which this tool is not made for: do not rely on a "
            "predicted growth."
        ]
    return []


def _no_hematoma(bleeds: Bleeds) -> str:
    others = "" if bleeds.tells_kinds_apart else f", and {_NOT_LOOKED_FOR} was not looked for"
    return (
        f"No hematoma was found ({HEMATOMA}). This does not rule out a bleed: a small or faint one can be "
        f"missed{others}."
    )


def _doubtful(bleeds: Bleeds) -> str:
    assert bleeds.presence is not None, "what is doubtful has a probability"
    return (
        f"It is doubtful whether this is a hematoma ({100 * bleeds.presence.probability:.0f} % likely; below "
        f"{100 * DOUBTFUL:.0f} %, no growth is predicted): look at slice {bleeds.presence.slice_number}, counted "
        "from the feet. If it is one, draw it and predict again from its mask."
    )
