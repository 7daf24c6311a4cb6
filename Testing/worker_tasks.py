"""What worker processes are given to do in the tests, apart from modules that take seconds to import."""

from __future__ import annotations

import os
from pathlib import Path

from HematomaExpansionLib.errors import InputError


def square(number: int) -> int:
    return number * number


def square_or_die(always: bool, file: Path, number: int) -> int:
    """Ends its worker at 5, always or the first time."""
    if number == 5 and (always or not file.exists()):
        file.touch()
        os._exit(1)
    return number * number


def number_of(folder: Path) -> int | None:
    number = int(folder.name)
    if number == 3:
        raise RuntimeError("not foreseen")
    if number == 4:
        raise MemoryError
    if number == 5:
        raise InputError("A sentence.")
    return None if number == 6 else number
