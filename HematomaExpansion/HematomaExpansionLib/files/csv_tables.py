"""CSV files as spreadsheets write them: any delimiter, UTF-8 or UTF-16, headers in any style, empty lines."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, file_fault
from .folders import whole_file

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


_DELIMITERS = ",;\t"

_EXCEL_SEPARATOR_LINE = re.compile(r"sep=(.)\s*", re.IGNORECASE)  # Excel's optional first line
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Row:
    """A nonempty line of a table: its line number in the file, the text in each column, and the columns of the
    file.
    """

    number: int
    values: dict[str, str]
    columns: tuple[str, ...] = ()


def read_table(
    path: Path, required: Sequence[str], optional: Sequence[str], *, of: str, others: bool = False
) -> list[Row]:
    """The rows of a CSV file below a line that names the columns, in any order, with capitals or spaces allowed.

    ``of`` says in error messages what the rows are (in the plural). Each row has every known column, empty if the
    file lacks it. ``others``: whether there may be further columns, under the file's own names.

    Raises:
        InputError: the file cannot be read, a required column is missing, a column is unknown or named twice, or
            a row has a value in no column.
    """
    try:
        lines = _lines(_text(path))
    except OSError as error:
        raise file_fault(error, f"The list of {of} cannot be read") from None
    except (UnicodeError, csv.Error):
        raise InputError(f"The list of {of} cannot be read: save it as CSV in UTF-8.") from None
    if not lines:
        raise InputError(f"The list of {of} is empty: its first line must name the columns.")
    (_, header), *rest = lines
    known = (*required, *optional)
    columns = [_column(name) if not others or _column(name) in known else name for name in header]
    _check_columns(columns, header, required, columns if others else optional)
    rows = []
    for number, cells in rest:
        if any(cells[len(columns) :]):
            raise InputError(
                f"Line {number} of the list has more values than there are columns: put a value that holds the "
                "delimiter, such as a number with a comma, in quotation marks."
            )
        if any(cell for name, cell in zip(columns, cells, strict=False) if not name):
            raise InputError(f"Line {number} of the list has a value in a column without a name.")
        found = dict(zip(columns, cells, strict=False))
        values = {name: found.get(name, "") for name in (*columns, *known) if name}
        rows.append(Row(number, values, tuple(filter(None, columns))))
    return rows


def _text(path: Path) -> str:
    content = path.read_bytes()
    return content.decode("utf-16" if content.startswith(_UTF16) else "utf-8-sig")


def _lines(text: str) -> list[tuple[int, list[str]]]:
    """Line number and cells of each nonempty line."""
    first, _, rest = text.partition("\n")
    skipped = 0
    if told := _EXCEL_SEPARATOR_LINE.fullmatch(first):
        text, skipped, delimiter = rest, 1, told[1]
    else:
        delimiter = _delimiter_of(text.lstrip().partition("\n")[0])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    cells = ((reader.line_num + skipped, [cell.strip() for cell in row]) for row in reader)
    return [(number, row) for number, row in cells if any(row)]


def _delimiter_of(header: str) -> str:
    """The delimiter between the column names; a comma if there is only one column."""
    try:
        return csv.Sniffer().sniff(header, _DELIMITERS).delimiter
    except csv.Error:
        return ","


def _column(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.strip().casefold())


def _check_columns(
    columns: Sequence[str], header: Sequence[str], required: Sequence[str], optional: Sequence[str]
) -> None:
    known = f"The columns are {', '.join(required)}, plus {', '.join(optional)} if known."
    if not set(required) <= set(columns):
        # Do not quote what is there instead: it may name a patient's scan.
        raise InputError(f"The first line of the list lacks {' or '.join(required)}. {known}")
    if doubled := [name for name, count in Counter(columns).items() if count > 1 and name]:
        raise InputError(f"The list names the column {doubled[0]} twice. {known}")
    for name, column in zip(header, columns, strict=True):
        if column and column not in (*required, *optional):
            raise InputError(f'The column "{name[:40]}" of the list is not known. {known}')


def check_table(kind: type[DataclassInstance], path: Path) -> None:
    """Raise ``InputError`` if the file exists but is not a table of such rows: it is someone else's."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            is_ours = next(csv.reader(file), None) == [field.name for field in fields(kind)]
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError, csv.Error):
        is_ours = False
    if not is_ours:
        raise InputError(
            f"The output folder holds a different {path.name}, or one with different columns: rename it, or "
            "name a new folder."
        )


def write_rows(kind: type[DataclassInstance], rows: Sequence[DataclassInstance], path: Path) -> None:
    """Write rows of a dataclass as CSV, one per line; the file is replaced whole or not at all.

    Raises:
        InputError: the file cannot be written, or it exists but is not such a table.
    """
    check_table(kind, path)
    write_table([field.name for field in fields(kind)], [asdict(row) for row in rows], path)


def write_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows as CSV, one per line, with these columns; the file is replaced whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        with whole_file(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=columns)
            writer.writeheader()
            writer.writerows(rows)
    except PermissionError as error:
        raise InputError(
            f"{path.name} could not be written: it is open in another program, or you have no permission there. "
            "Close it, or choose another place."
        ) from error
    except OSError as error:
        raise file_fault(error, f"{path.name} could not be written") from error
