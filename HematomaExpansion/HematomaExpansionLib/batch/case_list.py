"""Reads lists of cases: CSV files with one line per case."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..files.csv_tables import Row, read_table
from ..scan.box import Box

_DECIMAL_COMMA = re.compile(r"(?<=\d),(?=\d+$)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class CaseLine:
    """One line of a list: the text in each of its columns, empty where missing."""

    number: int
    folder: Path
    values: Mapping[str, str]

    @property
    def case(self) -> str:
        """The case's name, which is valid as a folder name."""
        return self.values["case"]

    def path(self, column: str) -> Path:
        """A required file or folder; the list gives its path relative to the list's own folder."""
        return self.folder / self.values[column]

    def optional_path(self, column: str) -> Path | None:
        """A file or folder, or None where the list leaves it out."""
        return self.path(column) if self.values[column] else None

    def optional_text(self, column: str) -> str | None:
        """The text itself, or None where the list leaves it out."""
        return self.values[column] or None

    def optional_number(self, column: str) -> float | None:
        """A number, with a point or a comma, or None where the list leaves it out.

        Raises:
            InputError: it is not a number.
        """
        text = self.values[column]
        try:
            number = float(_DECIMAL_COMMA.sub(".", text)) if text else None
        except ValueError:
            number = math.nan
        if number is not None and not math.isfinite(number):
            raise InputError(f"Line {self.number} of the list: {column} is not a number.")
        return number

    def optional_box(self, column: str) -> Box | None:
        """A box, as six numbers in LPS mm separated by commas, or None where the list leaves it out.

        Raises:
            InputError: it is something else.
        """
        try:
            return Box.of_text(self.values[column]) if self.values[column] else None
        except InputError as error:
            raise InputError(f"Line {self.number} of the list: {error}") from error

    def optional_answer(self, column: str) -> bool | None:
        """Yes or no, or None where the list leaves it out.

        Raises:
            InputError: it is something else.
        """
        answers = {"yes": True, "no": False, "": None}
        text = self.values[column].lower()
        if text not in answers:
            raise InputError(f"Line {self.number} of the list: {column} is neither yes nor no.")
        return answers[text]


def read_case_list(
    table: Path, required: Sequence[str], optional: Sequence[str], *, of: str, each: str
) -> list[CaseLine]:
    """The lines of a CSV file with the column ``case`` and the given columns.

    In error messages, ``of`` names the lines (in the plural) and ``each`` what one line stands for.

    Raises:
        InputError: a column or a value is missing, a column is unknown, a name is not valid as a folder name, or
            two cases have the same name.
    """
    required = ("case", *required)
    rows = read_table(table, required, optional, of=of)
    if not rows:
        raise InputError(f"The list of {of} is empty: below the column names, add one line per {each}.")
    lines = [_line(row, table.parent, required) for row in rows]
    names = {line.case.casefold() for line in lines}  # some file systems do not tell P1 from p1
    if len(names) < len(lines):
        raise InputError("Two lines of the list name the same case: each needs a name of its own.")
    return lines


def _line(row: Row, folder: Path, required: Sequence[str]) -> CaseLine:
    if not all(row.values[name] for name in required):
        raise InputError(f"Line {row.number} of the list lacks {', '.join(required[:-1])} or {required[-1]}.")
    if not _NAME.fullmatch(row.values["case"]):
        raise InputError(
            f"Line {row.number} of the list: a case's name may hold letters, digits, dot, dash and underscore "
            "only, and should not be the patient's."
        )
    return CaseLine(row.number, folder, row.values)
