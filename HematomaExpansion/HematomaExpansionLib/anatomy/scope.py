"""What was looked for in a scan, and what the user must know of the bleeds found, in sentences."""

from __future__ import annotations

from .bleeds import DOUBTFUL, DRAWN_BOX, NO_BOX, Bleeds
from .hematomas import MIN_HEMATOMA_ML, MIN_ML_OF
from .kinds import Kind

LARGE_EXTRAAXIAL_ML = 10.0
"""From this volume on, or from more than the hematoma's, blood outside of the brain is the disease."""

_OUTSIDE = "outside of the brain (epidural, subdural, subarachnoid)"
_PLACES = {
    Kind.INTRAVENTRICULAR: "in the ventricles",
    Kind.EXTRAAXIAL: _OUTSIDE,
}
_EDEMA = "edema around the hematoma"


def scope_of(bleeds: Bleeds) -> dict[str, str | None]:
    """The ``scope`` of ``prediction.json``: what was looked for in a scan, and what was not."""
    if bleeds.box_from == NO_BOX:
        return {"looked_for": _hematoma(bleeds), "not_looked_for": _not_looked_for(bleeds)}
    if bleeds.box_from is not None:
        return {"looked_for": f"blood in {_box_of(bleeds)}", "not_looked_for": "blood elsewhere, or its kind"}
    if bleeds.is_mixed:
        return {"looked_for": "blood anywhere inside the skull, from 1 mL", "not_looked_for": "which kind it is"}
    told = [
        f"{where}, from {MIN_ML_OF[kind]:g} mL" for kind, where in _PLACES.items() if kind in bleeds.looked_for
    ]
    looked_for = ", ".join([_hematoma(bleeds), *told[:-1]]) + (f", and {told[-1]}" if told else "")
    if Kind.EDEMA in bleeds.looked_for:
        looked_for += f"; {_EDEMA}"
    return {"looked_for": looked_for, "not_looked_for": _not_looked_for(bleeds)}


def _hematoma(bleeds: Bleeds) -> str:
    """What counts as hematoma."""
    min_ml = MIN_ML_OF[Kind.INTRAPARENCHYMAL] if bleeds.tells_kinds_apart else MIN_HEMATOMA_ML
    return f"blood inside the brain, from {min_ml:g} mL"


def _not_looked_for(bleeds: Bleeds) -> str | None:
    missing = [where for kind, where in _PLACES.items() if kind not in bleeds.looked_for]
    return f"blood {' or '.join(reversed(missing))}" if missing else None


def notes_on_bleeds(bleeds: Bleeds) -> list[str]:
    """What the user must know of the bleeds in a scan, one sentence each, the most important first."""
    notes = notes_on_box(bleeds)
    if bleeds.hematoma.is_empty and not notes:
        notes.append(_no_hematoma(bleeds))
    if bleeds.is_doubtful:
        notes.append(_doubtful(bleeds))
    if bleeds.is_mixed and not bleeds.hematoma.is_empty:
        notes.append(_MIXED)
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


_MIXED = (
    "The segmentation model knows blood, but not which kind: blood in the ventricles or outside of the brain may "
    "be part of this hematoma, and of all volumes."
)


def _box_of(bleeds: Bleeds) -> str:
    return "the box" if bleeds.box_from == DRAWN_BOX else f"the box around what {bleeds.box_from} found"


def notes_on_box(bleeds: Bleeds) -> list[str]:
    """A sentence if the hematoma was looked for only in a box."""
    if bleeds.box_from is None:
        return []
    if bleeds.box_from == NO_BOX:
        return [
            "The segmentation model looks only in a box: none was given, and the shipped model found no hematoma "
            "to put one around. This does not rule out a bleed: if you see one, give a box (--box)."
        ]
    if bleeds.hematoma.is_empty:
        return [f"No hematoma was found in {_box_of(bleeds)}. This does not rule out a bleed there or elsewhere."]
    return [f"The segmentation model looked only in {_box_of(bleeds)}: blood elsewhere is not in this result."]


def _no_hematoma(bleeds: Bleeds) -> str:
    missing = None if bleeds.is_mixed else _not_looked_for(bleeds)
    others = "" if missing is None else f", and {missing} was not looked for"
    return (
        f"No hematoma was found ({_hematoma(bleeds)}). This does not rule out a bleed: a small or faint one can "
        f"be missed{others}."
    )


def _doubtful(bleeds: Bleeds) -> str:
    assert bleeds.presence is not None, "what is doubtful has a probability"
    return (
        f"It is doubtful whether this is a hematoma ({100 * bleeds.presence.probability:.0f} % likely; below "
        f"{100 * DOUBTFUL:.0f} %, no growth is predicted): look at slice {bleeds.presence.slice_number}, counted "
        "from the feet. If it is one, draw it and predict again from its mask."
    )
