"""What ``case.json`` says about a case."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...markers.scores import is_gcs, is_onset

_MAX_SOURCES, _MAX_SOURCE_LETTERS = 5, 60
"""Limits that keep a package's list of case sources readable."""

_IS_RIGHT: dict[str, Callable[[Any], bool]] = {
    "registered": lambda value: value is None or isinstance(value, bool),
    "onset_hours": lambda value: value is None or is_onset(value),
    "gcs": lambda value: value is None or is_gcs(value),
    "warfarin": lambda value: value is None or isinstance(value, bool),
    "recurrent": lambda value: value is None or isinstance(value, bool),
    "source": lambda value: isinstance(value, str),
    "masks": lambda value: isinstance(value, str),
}
"""The entries of ``case.json`` that are read here, with a check of each."""

_SIMULATED = {
    "simulated": "simulated patients",
    "simulated bleeds in a real scan": "simulated bleeds in real heads",
}
"""What the sources named by the simulator are, in words."""


def note_on_registration(cases: Sequence[Path]) -> str | None:
    """A note on cases whose ``case.json`` does not say whether the follow-up is registered; None without any."""
    unsaid = sum(description.get("registered") is None for description in _readable_descriptions(cases))
    if not unsaid:
        return None
    return (
        f"In {unsaid} of {len(cases)} cases, case.json does not say whether the follow-up is registered: this is "
        "checked, and the follow-up is registered where it does not lie on the baseline."
    )


def kind_of_cases(cases: Sequence[Path]) -> str:
    """Whether the patients are simulated or real, where they come from, and how many have automatic masks."""
    found = {str(read_description(folder).get("source", "unknown source")) for folder in cases}
    automatic = sum(has_automatic_masks(folder) for folder in cases)
    masks = f", {automatic} of them with masks found automatically" if automatic else ""
    if found == {"simulated"}:
        return f"simulated patients, no real ones{masks}"
    if found <= _SIMULATED.keys():
        return " and ".join(_SIMULATED[source] for source in sorted(found)) + masks
    sources = [source[:_MAX_SOURCE_LETTERS] for source in sorted(found)]
    more = len(sources) - _MAX_SOURCES
    named = ", ".join(sources[:_MAX_SOURCES]) + (f" and {more} more" if more > 0 else "")
    return f"patients ({named}){masks}"


def has_automatic_masks(folder: Path) -> bool:
    """Whether `hematoma prepare` had to find one or both of the case's masks itself, because none were given.

    In cohorts made any other way nothing is known about the masks, and they count as drawn.
    """
    return _says_automatic(read_description(home_of(folder)))


def _says_automatic(description: Mapping[str, Any]) -> bool:
    return "automatic" in description.get("masks", "")


def check_drawn(folder: Path) -> None:
    """Refuse a case with automatic masks, against which no segmentation can be measured.

    Raises:
        InputError: the case has automatic masks.
    """
    if has_automatic_masks(folder):
        raise InputError("A mask was found automatically, so nothing can be measured against it.")


def note_on_masks(cases: Sequence[Path]) -> str | None:
    """A note on cases where automatic masks stand in for the truth; None without any."""
    found = sum(map(_says_automatic, _readable_descriptions(cases)))
    if not found:
        return None
    return (
        f"In {found} of {len(cases)} cases a mask was found automatically: what is learned or measured there is "
        "agreement with the automatic segmentation, not with the truth."
    )


def _readable_descriptions(cases: Sequence[Path]) -> list[dict[str, Any]]:
    """The readable descriptions, for notes before the work; the work itself will report the damaged ones."""
    descriptions = []
    for folder in cases:
        with suppress(InputError):
            descriptions.append(read_description(folder))
    return descriptions


def read_description(folder: Path) -> dict[str, Any]:
    """The ``case.json`` of a case; empty if there is none.

    Raises:
        InputError: it cannot be read or holds an impossible value.
    """
    path = folder / "case.json"
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        wrong = [name for name, is_right in _IS_RIGHT.items() if name in values and not is_right(values[name])]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError("The case.json of the case is damaged: fix or remove it.") from error
    if not isinstance(values, dict):
        raise InputError("The case.json of the case holds no description: fix or remove it.")
    if wrong:
        raise InputError(f"The case.json of the case holds impossible values ({', '.join(wrong)}): fix it.")
    return values


def home_of(folder: Path) -> Path:
    """The case that a folder belongs to: itself, or for a synthetic variant, its case."""
    return folder.parent.parent if folder.parent.name == "variants" else folder


def name_of(folder: Path) -> str:
    return str(folder.relative_to(home_of(folder).parent))
