"""What the tool finds in real scans: ``python3 Testing/real_scans.py FOLDER [-o DIR] [--segmenter NAME|PATH]``.

``FOLDER`` holds scans (``NAME.nii.gz``) and ``labels.csv``, which says for each slice, counted from 0, feet first,
which kinds of blood two readers saw in it: the columns ``scan``, ``slice`` and one per kind (0 or 1). Each scan
goes through ``hematoma predict``; its pictures and files stay in ``DIR`` if one is given.

A slice counts as called if the hematoma's mask has a voxel in it, and as told if the label map of bleeds shows
blood of the kind that readers saw in it; of slices without blood, those count as told that show any. Only blood in
the brain's tissue and in the ventricles is to be called or told; every other slice called is one too many.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from environment import continue_in_environment

if TYPE_CHECKING:
    from HematomaExpansionLib.training.data.reader_labels import ReadSlice

NO_BLOOD = "no blood"
BLOOD = {1, 2, 3}
_NAMES = {2: "intraventricular", 3: "extra-axial", 4: "edema"}


@dataclass(frozen=True)
class ScanResult:
    """What ``predict`` made of a scan: ``slice_ml`` is the volume of the hematoma in each slice, feet first. It is
    empty if the scan was refused, and ``sentence`` says why. ``kinds``: the values of the label map in each slice.
    """

    scan: str
    status: int
    slice_ml: tuple[float, ...] = ()
    kinds: tuple[frozenset[int], ...] = ()
    warnings: tuple[str, ...] = ()
    sentence: str = ""


@dataclass(frozen=True)
class KindCount:
    """Slices that hold a kind of blood: how many there are, how many were called, in how many that kind was told,
    and which were neither.
    """

    kind: str
    slices: int
    called: int
    told: int
    missed: tuple[ReadSlice, ...]


def count_by_kind(labels: Sequence[ReadSlice], results: Iterable[ScanResult]) -> list[KindCount]:
    """For each kind of blood, and for slices without any; slices of a scan that was refused count as not called.

    Raises:
        ValueError: the labels name a slice that a scan does not have.
    """
    by_scan = {result.scan: result for result in results}
    kinds = sorted({kind for label in labels for kind in label.seen})
    counts = []
    for kind in (*kinds, NO_BLOOD):
        own = [label for label in labels if (kind in label.seen if kind != NO_BLOOD else not label.seen)]
        called = [_is_called(label, by_scan[label.scan]) for label in own]
        told = [_is_told(label, kind, by_scan[label.scan]) for label in own]
        missed = tuple(label for label, *found in zip(own, called, told, strict=True) if not any(found))
        counts.append(KindCount(kind, len(own), sum(called), sum(told), missed))
    return counts


def _is_called(label: ReadSlice, result: ScanResult) -> bool:
    if not result.slice_ml:
        return False
    if label.number >= len(result.slice_ml):
        raise ValueError(
            f"{label.scan} has {len(result.slice_ml)} slices, but the labels name number {label.number}."
        )
    return result.slice_ml[label.number] > 0


def _is_told(label: ReadSlice, kind: str, result: ScanResult) -> bool:
    """Whether a kind of blood, or without one any, is in the label map of a slice."""
    from HematomaExpansionLib.training.data.reader_labels import KINDS_READ

    values = result.kinds[label.number] if result.kinds else frozenset()
    return bool(values & (BLOOD if kind == NO_BLOOD else {int(KINDS_READ[kind])}))


def predict_scan(scan: Path, name: str, output: Path, segmenter: str | None = None) -> ScanResult:
    """Send a scan through the command, and measure what it left in ``output``."""
    import numpy as np
    import SimpleITK as sitk
    from HematomaExpansionLib.cli.main import main as hematoma

    told, errors = StringIO(), StringIO()
    with redirect_stdout(told), redirect_stderr(errors):
        chosen = [] if segmenter is None else ["--segmenter", segmenter]
        status = hematoma(["predict", "-i", str(scan), "-o", str(output), *chosen])
    if status != 0:
        return ScanResult(name, status, sentence=errors.getvalue().strip())
    result = json.loads((output / "prediction.json").read_text(encoding="utf-8"))
    mask = sitk.DICOMOrient(sitk.ReadImage(str(output / "baseline-mask.nii.gz")), "LPS")
    x, y, z = mask.GetSpacing()
    voxels = (sitk.GetArrayViewFromImage(mask) > 0).sum(axis=(1, 2))
    slice_ml = tuple(float(count) * x * y * z / 1000 for count in voxels)
    labels = sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(str(output / "bleeds.nii.gz")), "LPS"))
    kinds = tuple(frozenset(int(value) for value in np.unique(part)) for part in labels)
    return ScanResult(name, status, slice_ml, kinds, tuple(result["input"]["warnings"]))


def print_result(result: ScanResult, labels: Sequence[ReadSlice]) -> None:
    """Print a line per scan, with the volume in slices where no reader saw blood, and what the tool said."""
    own = {label.number: label.seen for label in labels if label.scan == result.scan}
    seen = ", ".join(sorted({kind for kinds in own.values() for kind in kinds})) or NO_BLOOD
    if not result.slice_ml:
        print(f"{result.scan} ({seen}): exit {result.status}, {result.sentence}", flush=True)
        return
    without = sum(ml for number, ml in enumerate(result.slice_ml) if not own.get(number))
    others = sorted({kind for value in result.kinds for kind in value} - {0, 1})
    told = f"; also {', '.join(_NAMES[value] for value in others)}" if others else ""
    print(
        f"{result.scan} ({seen}): {sum(result.slice_ml):.1f} mL found, {without:.1f} mL of it in slices without "
        f"blood{told}",
        flush=True,
    )
    for warning in result.warnings:
        print(f"    {warning}", flush=True)


def print_counts(counts: Sequence[KindCount]) -> None:
    """Print a table, and where blood inside the brain was missed."""
    print("\n| slices with | slices | called hematoma | kind told | neither |")
    print("| --- | --- | --- | --- | --- |")
    for count in counts:
        print(f"| {count.kind} | {count.slices} | {count.called} | {count.told} | {len(count.missed)} |")
    for count in counts:
        if count.kind != NO_BLOOD and count.missed:
            places: dict[str, list[str]] = {}
            for label in count.missed:
                places.setdefault(label.scan, []).append(str(label.number))
            text = "; ".join(f"{scan} {', '.join(numbers)}" for scan, numbers in places.items())
            print(f"\nNot called, {count.kind}: {text}")


def main(arguments: Sequence[str]) -> int:
    """Process every scan that the labels name; exit status 1 if any of them ended without a result."""
    parser = argparse.ArgumentParser(description="What the tool finds in real scans whose slices were labeled.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="scans NAME.nii.gz and labels.csv")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="keep results and pictures here")
    parser.add_argument("--segmenter", metavar="NAME|PATH", help="the model (default: the one that ships)")
    chosen = parser.parse_args(arguments)
    table = chosen.folder / "labels.csv"
    if not table.is_file():
        parser.error("The folder holds no labels.csv.")
    from HematomaExpansionLib.training.data.reader_labels import read_labels

    labels = read_labels(table)
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        output = chosen.output or Path(scratch)
        output.mkdir(parents=True, exist_ok=True)
        for name in dict.fromkeys(label.scan for label in labels):
            scan = chosen.folder / f"{name}.nii.gz"
            results.append(predict_scan(scan, name, output / name, chosen.segmenter))
            print_result(results[-1], labels)
    print_counts(count_by_kind(labels, results))
    return int(any(result.status != 0 for result in results))


if __name__ == "__main__":
    continue_in_environment(__file__, "requirements.txt")
    sys.exit(main(sys.argv[1:]))
