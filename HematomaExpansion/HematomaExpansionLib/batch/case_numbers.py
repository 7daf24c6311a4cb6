"""Numbers the cases found in a folder, since a path may reveal who the patient is.

One private file beside the results records which path has which number. Paths appear nowhere else: in no name,
table or message, and not as a hash, which anyone who guesses a path could check.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import InputError, file_fault
from ..files.folders import whole_file

PRIVATE_FILE = "cases-private.csv"
_COLUMNS = ["case", "PRIVATE: path below the input folder, which may name the patient; do not pass on"]
_NAME = re.compile(r"case-(\d{4,})")


def case_names(places: Sequence[str], output: Path) -> list[str]:
    """The name of the case at each place, a path below the input folder: "case-" and a number.

    A place that an earlier run into ``output`` numbered keeps its number; others get the next ones, in order.
    Nothing is written.

    Raises:
        InputError: the private file of the earlier run is damaged or gone.
    """
    known = _read(output)
    if not known and any(_NAME.fullmatch(folder.name) for folder in output.glob("case-*")):
        raise InputError(
            f"{PRIVATE_FILE}, which maps the cases in the output folder to scans, is missing there: "
            "put it back, or name a new folder."
        )
    names = dict(known)
    last = max(map(_number, known.values()), default=0)
    for place in places:
        if place not in names:
            last += 1
            names[place] = f"case-{last:04d}"
    return [names[place] for place in places]


def keep_case_names(names: Mapping[str, str], output: Path) -> None:
    """Write the private file, which only the user may read, adding ``names`` (by place) to those of earlier runs.

    Raises:
        InputError: it cannot be written, or another run has numbered the cases differently in the meantime.
    """
    known = _read(output)
    merged = {**known, **names}
    if any(merged[place] != name for place, name in known.items()) or len(set(merged.values())) < len(merged):
        raise InputError("Another run has numbered the cases in that folder in the meantime: start again.")
    if merged == known:
        return
    try:
        with whole_file(output / PRIVATE_FILE) as path:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
                writer = csv.writer(file)
                writer.writerow(_COLUMNS)
                for place, name in sorted(merged.items(), key=lambda item: _number(item[1])):
                    writer.writerow([name, place])
    except OSError as error:
        raise file_fault(error, f"{PRIVATE_FILE} could not be written") from error


def _read(output: Path) -> dict[str, str]:
    """Place to name, as numbered by an earlier run; empty if there was none."""
    try:
        with (output / PRIVATE_FILE).open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            header, *rows = csv.reader(file)
        names = {place: name for name, place in rows}
        if header != _COLUMNS or len(names) < len(rows) or not all(map(_NAME.fullmatch, names.values())):
            raise ValueError("not ours")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, csv.Error):
        raise InputError(
            f"{PRIVATE_FILE} in the output folder cannot be read, or was changed: put it back as it was, or name "
            "a new folder."
        ) from None
    return names


def _number(name: str) -> int:
    return int(name.removeprefix("case-"))
