"""The cases of a batch: every scan below a folder, or the lines of a list."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from ..errors import InputError
from ..markers.scores import NO_CLINICAL_DATA, ClinicalData
from ..output.prediction_folder import RESULT_FILE
from ..scan.box import Box
from ..scan.dicom.files import may_be_dicom
from ..scan.volume_files import volume_stem
from .case_list import read_case_list
from .case_numbers import PRIVATE_FILE, case_names

RESULTS_FILE = "results.csv"
_MASK_ENDING = re.compile(r"(?<=.)([-_]mask|([-_]mask)?\.seg)$", re.IGNORECASE)


@dataclass(frozen=True)
class BatchCase:
    """A scan (file or DICOM folder, read with its subfolders or alone) and what is known about it.

    ``label``: the hematoma's label in a mask with several. ``box``: where a segmenter that looks in boxes should
    look. ``place``: the path below the input folder, which is private; None for a case from a list.
    """

    name: str
    scan: Path
    mask: Path | None = None
    onset_hours: float | None = None
    clinical: ClinicalData = NO_CLINICAL_DATA
    subfolders: bool = True
    label: str | None = None
    place: str | None = None
    box: Box | None = None


def find_cases(given: Path, output: Path) -> list[BatchCase]:
    """The cases in a folder or in a list (CSV), in the order of their paths or lines.

    ``output`` is skipped; cases that an earlier run into it numbered keep their numbers.

    Raises:
        InputError: there are none, or the list is faulty.
    """
    if not given.exists():
        raise InputError("The input does not exist. Check the path.")
    if given.is_dir():
        return _cases_below(given.resolve(), output.resolve())
    if given.suffix.lower() not in (".csv", ".tsv"):
        raise InputError(
            "The input is neither a folder nor a list of cases (.csv). "
            "For a single scan there is `hematoma predict`."
        )
    return _listed_cases(given)


def _listed_cases(table: Path) -> list[BatchCase]:
    answers = [field.name for field in fields(ClinicalData) if field.name != "gcs"]
    known = ("mask", "label", "box", "onset_hours", "gcs", *answers)
    lines = read_case_list(table, ("scan",), known, of="cases", each="case")
    cases = [
        BatchCase(
            name=line.case,
            scan=line.path("scan"),
            mask=line.optional_path("mask"),
            label=line.optional_text("label"),
            box=line.optional_box("box"),
            onset_hours=line.optional_number("onset_hours"),
            clinical=ClinicalData(
                **{name: line.optional_answer(name) for name in answers}, gcs=line.optional_number("gcs")
            ),
        )
        for line in lines
    ]
    for case in cases:
        if case.mask is not None and case.box is not None:
            raise InputError(
                f"The list gives {case.name} a mask and a box: a box is where to look, so leave out one."
            )
    for taken in (RESULTS_FILE, PRIVATE_FILE):
        if any(case.name.casefold() == taken for case in cases):
            raise InputError(f"A case of the list is named {taken}, like a file beside the results: rename it.")
    return cases


def _cases_below(root: Path, output: Path) -> list[BatchCase]:
    found = sorted(_scans_below(root, output), key=lambda scan: scan.relative_to(root).as_posix())
    masks = _masks_among(found)
    scans = [scan for scan in found if scan not in masks.values()]
    if not scans:
        raise InputError(
            "The folder holds no scans. Give one with DICOM folders, or NIfTI, NRRD, MHA or MHD files, "
            "anywhere below it."
        )
    places = [scan.relative_to(root).as_posix() for scan in scans]
    return [
        BatchCase(name, scan, masks.get(_without_suffix(scan)), subfolders=False, place=place)
        for name, scan, place in zip(case_names(places, output), scans, places, strict=True)
    ]


def _scans_below(root: Path, output: Path) -> Iterator[Path]:
    """Image files, and folders that contain DICOM files themselves; skips hidden ones and earlier predictions."""
    passed = {output}
    unreadable: list[OSError] = []
    for place, folders, names in os.walk(root, onerror=unreadable.append, followlinks=True):
        folder = Path(place)
        if folder.resolve() in passed or RESULT_FILE in names:
            folders.clear()
            continue
        passed.add(folder.resolve())
        folders[:] = [name for name in folders if not name.startswith(".")]
        files = [folder / name for name in sorted(names) if not name.startswith(".")]
        yield from (file for file in files if volume_stem(file) is not None)
        if any(volume_stem(file) is None and may_be_dicom(file) for file in files):
            yield folder
    # Each becomes a case that fails with a sentence, so that no patient is silently left out.
    yield from (Path(error.filename) for error in unreadable)


def _masks_among(found: list[Path]) -> dict[Path, Path]:
    """Scan (without its suffix) to mask: the file beside it whose name has -mask, _mask or .seg added."""
    places = {_without_suffix(path) for path in found}
    masks: dict[Path, Path] = {}
    for path in found:
        place = _without_suffix(path)
        scan = place.with_name(_MASK_ENDING.sub("", place.name)) if path.is_file() else place
        if scan != place and scan in places:
            masks.setdefault(scan, path)
    return masks


def _without_suffix(path: Path) -> Path:
    stem = None if path.is_dir() else volume_stem(path)
    return path if stem is None else path.with_name(stem)
