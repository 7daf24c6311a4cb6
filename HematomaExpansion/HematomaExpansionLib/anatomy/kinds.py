"""The kinds of bleeds, and how pictures, panels and files tell them apart: names, colors and standard codes.

Pure Python, so that a panel can show a result before anything is installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Kind(IntEnum):
    """A kind of bleed, or what a bleed causes, with its value in the label map."""

    INTRAPARENCHYMAL = 1
    INTRAVENTRICULAR = 2
    EXTRAAXIAL = 3
    EDEMA = 4

    @property
    def key(self) -> str:
        """The name of its volume in results and tables."""
        return f"{self.name.lower()}_ml"


BLOOD = (Kind.INTRAPARENCHYMAL, Kind.INTRAVENTRICULAR, Kind.EXTRAAXIAL)

BESIDE_HEMATOMA = (Kind.INTRAVENTRICULAR, Kind.EXTRAAXIAL, Kind.EDEMA)
"""What is told beside the hematoma; only the hematoma is measured by ABC/2, carries markers and grows."""


@dataclass(frozen=True)
class Code:
    """A concept of SNOMED CT, with its meaning as DICOM prints it."""

    value: str
    meaning: str


@dataclass(frozen=True)
class Look:
    """How a kind is told apart.

    Attributes:
        title: its name.
        color: of its outline, ``#rrggbb``; all colors stay apart for color-blind readers.
        dashes: how its outline is broken, as matplotlib names it, for readers who see no color at all.
        concept, region: what it is and where, from DICOM's lists of segmentation types and anatomic regions.
    """

    title: str
    color: str
    dashes: str
    concept: Code
    region: Code


CATEGORY = Code("49755003", "Morphologically Altered Structure")
"""Under which DICOM lists all of them (CID 7150)."""

_HEMORRHAGE, _EDEMA = Code("50960005", "Hemorrhage"), Code("79654002", "Edema")
_BRAIN = Code("12738006", "Brain")

LOOKS = {
    Kind.INTRAPARENCHYMAL: Look("Hematoma", "#ffd21f", "solid", _HEMORRHAGE, _BRAIN),
    Kind.INTRAVENTRICULAR: Look(
        "Blood in the ventricles", "#33b2cc", "solid", _HEMORRHAGE, Code("35764002", "Brain ventricle")
    ),
    Kind.EXTRAAXIAL: Look(
        "Blood outside of the brain", "#b266ff", "dashed", _HEMORRHAGE, Code("1231004", "Meninges")
    ),
    Kind.EDEMA: Look("Edema", "#cef3ce", "dotted", _EDEMA, _BRAIN),
}
