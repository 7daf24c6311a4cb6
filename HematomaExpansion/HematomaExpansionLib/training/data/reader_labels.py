"""Which kinds of blood readers saw in which slices: the truth where nobody drew outlines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...anatomy.kinds import Kind
from ...errors import InputError
from ...files.csv_tables import Row, read_table

KINDS_READ = {
    "intraparenchymal": Kind.INTRAPARENCHYMAL,
    "intraventricular": Kind.INTRAVENTRICULAR,
    "epidural": Kind.EXTRAAXIAL,
    "subdural": Kind.EXTRAAXIAL,
    "subarachnoid": Kind.EXTRAAXIAL,
}
"""The columns of such a table, and the kind that each is."""


@dataclass(frozen=True)
class ReadSlice:
    """A slice, counted from 0, feet first, and the kinds of blood (columns) that readers saw in it."""

    scan: str
    number: int
    seen: tuple[str, ...]

    @property
    def kinds(self) -> frozenset[Kind]:
        """The same as kinds of bleeds."""
        return frozenset(KINDS_READ[name] for name in self.seen)


def read_labels(table: Path) -> list[ReadSlice]:
    """The slices in a CSV table with the columns ``scan``, ``slice`` and one (0 or 1) for each of ``KINDS_READ``.

    Raises:
        InputError: the table cannot be read, or a value is not what it should be.
    """
    return [_read_slice(row) for row in read_table(table, ("scan", "slice"), tuple(KINDS_READ), of="slices")]


def _read_slice(row: Row) -> ReadSlice:
    seen = {name: row.values.get(name, "") or "0" for name in KINDS_READ}
    number = row.values["slice"]
    if not number.isdecimal() or not set(seen.values()) <= {"0", "1"}:
        raise InputError(
            f"Line {row.number} of the list of slices is not understood: slices count from 0, and kinds of blood "
            "are 0 or 1."
        )
    return ReadSlice(row.values["scan"], int(number), tuple(name for name, value in seen.items() if value == "1"))
