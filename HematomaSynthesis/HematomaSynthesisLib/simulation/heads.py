"""Real heads without blood, into which bleeds are painted."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from HematomaExpansionLib.errors import InputError
from HematomaExpansionLib.files.provenance import content_sha256
from HematomaExpansionLib.scan.head_ct import read_head_ct

from .anatomy import Anatomy, anatomy_from_scan

_VOLUMES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")


def heads_in(path: Path) -> list[Path]:
    """The head CTs that ``path`` stands for, sorted by name: itself, if it is a file or a DICOM folder; otherwise
    the volumes and DICOM folders in it.

    Raises:
        InputError: there are none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError("The head or the folder of heads does not exist: check its name.")
    inside = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    volumes = [entry for entry in inside if entry.is_file() and entry.name.lower().endswith(_VOLUMES)]
    folders = [entry for entry in inside if entry.is_dir() and any(entry.iterdir())]
    heads = sorted([*volumes, *folders])
    if not inside:
        raise InputError("The folder of heads holds no scan: put one file or one DICOM folder per head into it.")
    return heads or [path]


def checksums_of(heads: list[Path]) -> list[str]:
    """What identifies each head: its content, since its name may name a patient."""
    return [content_sha256(head) for head in heads]


@lru_cache(maxsize=1)
def head_at(path: Path) -> Anatomy:
    """The head in a scan; the last one is kept, since several bleeds are painted into it.

    Raises:
        HematomaError: the scan cannot be read.
    """
    return anatomy_from_scan(read_head_ct(path))
