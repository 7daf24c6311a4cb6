"""The script that measures what is called blood where there is none."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import false_blood
from false_blood import Called, findings_without_blood, read_rows, table_of
from HematomaExpansionLib.files.csv_tables import write_rows
from HematomaSynthesisLib.simulation.labelled_scan import BLEEDS, EDEMA, FINDINGS, HEMATOMA, MASS_EFFECT


def test_every_finding_without_blood_is_tried() -> None:
    with_blood = {*BLEEDS, HEMATOMA, EDEMA, MASS_EFFECT}
    assert set(findings_without_blood()) == (FINDINGS - with_blood) | {false_blood.NOTHING}


def test_the_table_counts_scans_below_the_limit(tmp_path: Path) -> None:
    rows = [Called(head, "metal", ml, None, 0.0) for head, ml in enumerate([0.0, 0.4, 0.6, 3.0])]
    rows.append(Called(9, "air", 0.0, 0.3, 0.0))
    write_rows(Called, rows, tmp_path / "scans.csv")
    read = read_rows(tmp_path / "scans.csv")
    assert [asdict(row) for row in read] == [asdict(row) for row in rows]
    lines = table_of(read).splitlines()
    assert lines[2].startswith("| metal | 4 | 50% |")
    assert "| 3.0 | 0 |" in lines[2]
    assert lines[3] == "| air | 1 | 100% | 0.00 | 0.0 | 1 |"
