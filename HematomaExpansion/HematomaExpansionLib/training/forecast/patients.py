"""A table of patients, one per line: what was known of each, and whether the hematoma expanded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...files.csv_tables import read_table
from ...forecast.facts import Facts
from ...forecast.patient_table import FACTS, answer, facts_of_row
from ...scan.grid import Array


@dataclass(frozen=True)
class Patients:
    """Patients and, by place, whether the hematoma of each expanded (booleans)."""

    facts: list[Facts]
    expanded: Array


def read_patients(path: Path) -> tuple[Patients, list[str]]:
    """The patients of a table with the columns ``expansion`` and ``volume_ml``, and any of ``FACTS``; and a
    sentence for each value that is out of range and so counts as unknown.

    Raises:
        InputError: a column is missing, or a value cannot be understood; the line is named.
    """
    rows = read_table(path, ("expansion", "volume_ml"), FACTS, of="patients", others=True)
    facts, expanded, notes = [], [], []
    for row in rows:
        told = answer(row, "expansion")
        if told is None:
            raise InputError(f"Line {row.number} does not say whether the hematoma expanded: enter 1 or 0.")
        each, found = facts_of_row(row)
        facts.append(each)
        expanded.append(told)
        notes += found
    return Patients(facts, np.array(expanded, bool)), notes
