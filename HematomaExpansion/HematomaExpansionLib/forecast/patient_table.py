"""Patients in a table, one per line: reading what is known of each."""

from __future__ import annotations

import math
from typing import Any

from ..errors import InputError
from ..files.csv_tables import Row
from .facts import SIGNS, Facts, in_range

NUMBERS = ("onset_hours", "gcs")
ANSWERS = ("warfarin", "recurrent", "intraventricular")
FACTS = (*NUMBERS, *SIGNS, *ANSWERS)
"""Columns that may be left out or empty; ``volume_ml`` may not."""

_YES, _NO = {"1", "yes", "true", "y", "1.0"}, {"0", "no", "false", "n", "0.0"}


def facts_of_row(row: Row) -> tuple[Facts, list[str]]:
    """The facts in a line of a table, in which what is empty is not known; and a sentence for each value that is
    out of range and so counts as unknown.

    Raises:
        InputError: a value cannot be understood, or the volume is missing or out of range; the line is named.
    """
    volume = number(row, "volume_ml")
    if volume is None:
        raise InputError(f"Line {row.number} has no volume_ml, without which there is no forecast.")
    values: dict[str, float | None] = {name: number(row, name) for name in NUMBERS}
    notes = []
    for name in NUMBERS:
        if values[name] is not None and not in_range(name, float(values[name] or 0.0)):
            notes.append(f"Line {row.number}: {name} {values[name]:g} is out of range and counts as unknown.")
            values[name] = None
    further: dict[str, Any] = {name: _share(row, name) for name in SIGNS}
    further |= {name: answer(row, name) for name in ANSWERS}
    try:
        return Facts(volume, **{**values, **further}), notes
    except InputError as error:
        raise InputError(f"Line {row.number}: {error}") from None


def number(row: Row, column: str) -> float | None:
    """The number in a column; None if it is empty."""
    text = row.values[column]
    if not text or text.casefold() in {"na", "nan", "unknown"}:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if not math.isfinite(value):
        raise InputError(f"Line {row.number} has a {column} that is not a number: correct it, or leave it empty.")
    return value


def _share(row: Row, column: str) -> float | None:
    """Yes or no, or a probability from 0 to 1."""
    text = row.values[column].casefold()
    if text in _YES | _NO:
        return float(text in _YES)
    value = number(row, column)
    if value is not None and not 0 <= value <= 1:
        raise InputError(f"Line {row.number}: {column} is 1 or yes, 0 or no, or a probability between them.")
    return value


def answer(row: Row, column: str) -> bool | None:
    """Yes or no in a column; None if it is empty."""
    value = _share(row, column)
    if value not in (None, 0.0, 1.0):
        raise InputError(f"Line {row.number}: {column} is 1 or yes, 0 or no.")
    return None if value is None else bool(value)
