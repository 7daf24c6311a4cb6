"""What a segmentation model calls blood where there is none: ``python3 Testing/false_blood.py -o DIR [-n 100]``.

For each of ``-n`` simulated heads without blood, each change of the head and each artifact of the scanner is drawn
alone (``hematoma simulate --single --findings none --always NAME``), and the scan is segmented. ``DIR/scans.csv``
gets a line per scan, so that an interrupted run resumes; ``DIR/findings.md`` is the table: share of scans in which
less than half a mL was called hematoma, 95th percentile and maximum, and how many show any other blood.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from environment import continue_in_environment

SEED, LIMIT_ML = 5000, 0.5
NOTHING = "nothing"
_MATRIX = 256


@dataclass(frozen=True)
class Called:
    """What was called in a scan without blood, in mL; None for kinds that the model does not look for."""

    head: int
    finding: str
    hematoma_ml: float
    ventricular_ml: float | None
    extraaxial_ml: float | None


def findings_without_blood() -> list[str]:
    """Nothing at all, and each switch of the simulator that draws no blood."""
    from HematomaSynthesisLib.simulation.labelled_scan import ARTIFACTS, CHANGES, WIDE_VENTRICLES

    return [NOTHING, WIDE_VENTRICLES, *CHANGES, *ARTIFACTS]


def called_in_head(segmenter: str | None, head: int) -> list[Called]:
    """All findings in one simulated head; a scan that is refused counts as nothing called."""
    import torch
    from HematomaExpansionLib.anatomy.bleeds import Kind
    from HematomaExpansionLib.anatomy.brain import extract_brain
    from HematomaExpansionLib.anatomy.segmentation import find_bleeds
    from HematomaExpansionLib.cli.options import find_segmenter
    from HematomaExpansionLib.errors import HematomaError
    from HematomaSynthesisLib.simulation.labelled_scan import SCANS_PER_HEAD, ScanOptions, simulate_scan

    package, rows = find_segmenter(segmenter), []
    for name in findings_without_blood():
        drawn = frozenset() if name == NOTHING else frozenset({name})
        options = ScanOptions(matrix=_MATRIX, findings=drawn, always=drawn)
        scan = simulate_scan(SEED, head * SCANS_PER_HEAD, options)
        try:
            inside = extract_brain(scan.ct).mask
        except HematomaError:
            rows.append(Called(head, name, 0.0, None, None))
            continue
        bleeds = find_bleeds(scan.ct, inside, package, torch.device("cpu"))
        volumes = [bleeds.volume_ml(kind) for kind in (Kind.INTRAVENTRICULAR, Kind.EXTRAAXIAL)]
        rows.append(Called(head, name, bleeds.hematoma.volume_ml, *volumes))
    return rows


def read_rows(path: Path) -> list[Called]:
    """The lines of ``scans.csv``, if there are any."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Called(
                int(row["head"]),
                row["finding"],
                float(row["hematoma_ml"]),
                *(float(row[name]) if row[name] else None for name in ("ventricular_ml", "extraaxial_ml")),
            )
            for row in csv.DictReader(file)
        ]


def table_of(rows: Sequence[Called]) -> str:
    """The table in Markdown, a line for each finding."""
    import numpy as np

    lines = [
        f"| finding | scans | hematoma < {LIMIT_ML} mL | 95th percentile, mL | most, mL | other blood called |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in dict.fromkeys(row.finding for row in rows):
        own = [row for row in rows if row.finding == name]
        ml = np.array([row.hematoma_ml for row in own])
        elsewhere = sum(bool(row.ventricular_ml) or bool(row.extraaxial_ml) for row in own)
        share, high = np.mean(ml < LIMIT_ML), np.percentile(ml, 95)
        lines.append(f"| {name} | {len(own)} | {share:.0%} | {high:.2f} | {ml.max():.1f} | {elsewhere} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Segment what is missing in ``scans.csv``, and write the table."""
    from functools import partial

    from HematomaExpansionLib.batch.workers import case_workers, use_one_torch_thread
    from tqdm import tqdm

    parser = argparse.ArgumentParser(description="What a model calls blood where there is none.")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="table and lines")
    parser.add_argument("-n", "--number", type=int, default=100, metavar="N", help="heads (default: 100)")
    parser.add_argument("--segmenter", metavar="NAME|PATH", help="the model (default: the one that ships)")
    chosen = parser.parse_args(arguments)
    chosen.output.mkdir(parents=True, exist_ok=True)
    file = chosen.output / "scans.csv"
    rows = read_rows(file)
    missing = sorted(set(range(1, chosen.number + 1)) - {row.head for row in rows})
    if missing:
        is_new = not rows
        with (
            case_workers(len(missing), prepare=use_one_torch_thread) as pool,
            file.open("a", newline="", encoding="utf-8") as lines,
        ):
            writer = csv.DictWriter(lines, [field.name for field in fields(Called)])
            if is_new:
                writer.writeheader()
            work = pool.map(partial(called_in_head, chosen.segmenter), missing)
            for of_head in tqdm(work, total=len(missing), desc="Heads", disable=None):
                writer.writerows(asdict(row) for row in of_head)
                lines.flush()
                rows += of_head
    table = table_of(rows)
    (chosen.output / "findings.md").write_text(table, encoding="utf-8")
    print(table)
    return 0


if __name__ == "__main__":
    continue_in_environment(__file__, "requirements.txt")
    sys.exit(main(sys.argv[1:]))
