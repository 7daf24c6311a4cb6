"""Names for cases that were found in a folder: each can name a folder, and none tells who the patient is."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pydicom

from .dicom_files import files_below, is_dicom
from .errors import InputError
from .volume_files import quiet_libraries, volume_stem

_LONGEST_NAME = 100
_SHORTEST_PART = 3  # of a patient's name or ID, to be sought within words too
_PATIENT = ("PatientName", "PatientID", "PatientBirthDate")


def case_names(root: Path, scans: Sequence[Path], taken: str) -> list[str]:
    """A name for each scan, a file or a DICOM folder below ``root``, from its path there; none is ``taken``.

    A name that would tell the name, ID or birth date in a DICOM folder's headers is ``scan-`` and a number. A path
    has the same name in every run, whatever lies beside it, save where another path has come to share its name.
    """
    places = [scan.relative_to(root).as_posix() for scan in scans]
    names = [
        f"scan-{_digest(place)}"
        if scan.is_dir() and _tells_patient(place, scan)
        else _safe_name(Path(place), scan)
        for place, scan in zip(places, scans, strict=True)
    ]
    uses = Counter(name.casefold() for name in [*names, taken])  # some file systems do not tell P1 from p1
    return [
        name
        if uses[name.casefold()] == 1 and len(name) <= _LONGEST_NAME
        else f"{name[: _LONGEST_NAME - 9]}-{_digest(place)}"
        for name, place in zip(names, places, strict=True)
    ]


def _safe_name(place: Path, scan: Path) -> str:
    parts = place.parts if scan.is_dir() else (*place.parts[:-1], volume_stem(place) or place.name)
    return re.sub(r"[^A-Za-z0-9._-]", "_", "-".join(parts)).strip("._-") or "scan"


def _digest(place: str) -> str:
    return hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def _tells_patient(place: str, folder: Path) -> bool:
    """Whether a path holds what the DICOM headers in ``folder`` say of the patient, however it is written."""
    name, number, birth = (_plain(value) for value in _patient(folder))
    secrets = {*_words(name), _letters(number)} - {""}
    if re.fullmatch(r"\d{8}", date := _letters(birth)):
        year, month, day = date[:4], date[4:6], date[6:]
        secrets |= {date, day + month + year, month + day + year}
    words, letters = _words(_plain(place)), _letters(_plain(place))
    return any(secret in (letters if len(secret) >= _SHORTEST_PART else words) for secret in secrets)


def _patient(folder: Path) -> list[str]:
    """Name, ID and birth date in the first readable header in ``folder``, empty where it does not say."""
    tags = ["SOPClassUID", *_PATIENT]
    with quiet_libraries(), suppress(InputError):
        for path in files_below(folder, subfolders=False):
            try:
                if is_dicom(path):
                    header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=tags)
                    if header:
                        return [str(header.get(tag) or "") for tag in _PATIENT]
            except Exception:  # noqa: S112  a damaged file is refused, with its sentence, when the scan is read
                continue
    return ["" for _ in _PATIENT]


def _plain(text: str) -> str:
    """Without accents and capitals."""
    return "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))


def _words(text: str) -> set[str]:
    return set(re.split(r"[\W_]+", text))


def _letters(text: str) -> str:
    """Letters and digits alone."""
    return re.sub(r"[\W_]", "", text)
