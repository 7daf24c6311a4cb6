"""What a result was made from: one file in every folder that this software writes whole.

``provenance.json`` holds the kind of result, what it was made from (contents by sha256, options, seed, models),
the software version, and every file in the folder with its sha256. Thanks to it, a result is reused only if it
would come out the same, and a folder is replaced only if nothing in it is someone else's.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import __version__

PROVENANCE_FILE = "provenance.json"
SCRATCH_PREFIX = ".unfinished-"
"""Prefix of what a run in progress, or a killed one, keeps beside its results; see ``files.folders``."""

LOCK_FILE = ".running"
"""Held by the one run that may write to a folder; see ``files.folders``."""

_SOFTWARE = "HematomaExpansion"
# File managers make these in every folder they show.
_FILE_MANAGER_FILES = {".DS_Store", "Thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class Provenance:
    """What a result is and what it was made from.

    ``kind``: one or two words, such as "prediction". ``made_from``: everything that affects the result, as JSON
    values: contents as ``content_sha256``, options, the seed, model identities; never a path or a name.
    ``version``: of the software.
    """

    kind: str
    made_from: Mapping[str, Any] = field(default_factory=dict)
    version: str = __version__

    def __post_init__(self) -> None:
        """Put ``made_from`` into the form it has when it is read back."""
        object.__setattr__(self, "made_from", json.loads(json.dumps(self.made_from)))


def content_sha256(path: Path, subfolders: bool = True) -> str:
    """SHA-256 of a file's content, or of all files in a folder, whatever their names.

    Hidden files and folders are left out, and so are result folders inside it.

    Raises:
        OSError: it cannot be read.
    """
    if not path.is_dir():
        return _sha256(path)
    contents = []
    for place, folders, names in os.walk(path, onerror=_raise):
        here = Path(place)
        if here != path and PROVENANCE_FILE in names:
            folders.clear()
            continue
        folders[:] = [name for name in folders if subfolders and not name.startswith(".")]
        files = (here / name for name in names if not name.startswith("."))
        contents += [_sha256(file) for file in files if file.is_file()]
    return hashlib.sha256("".join(sorted(contents)).encode()).hexdigest()


def write_provenance(folder: Path, provenance: Provenance) -> None:
    """Write the provenance file into a folder that already holds the rest of the result.

    Raises:
        OSError: the disk is full, or the folder is not writable.
    """
    files = {name: _sha256(path) for name, path in _files_in(folder) if path.name != PROVENANCE_FILE}
    values = {
        "research_use_only": True,
        "software": {"name": _SOFTWARE, "version": provenance.version},
        "kind": provenance.kind,
        "made_from": provenance.made_from,
        "files": files,
    }
    (folder / PROVENANCE_FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def read_provenance(folder: Path) -> Provenance | None:
    """What the folder says it was made from; None if it says nothing, or nothing that can be understood."""
    mark = _read(folder)
    return None if mark is None else mark[0]


def is_made_from(folder: Path, provenance: Provenance) -> bool:
    """Whether the folder holds that very result, complete: each of its files is there and unchanged."""
    mark = _read(folder)
    if mark is None or mark[0] != provenance:
        return False
    try:
        return all(_sha256(folder / name) == sha256 for name, sha256 in mark[1].items())
    except OSError:
        return False


def holds_foreign_files(folder: Path, kind: str | None, keep: Collection[str] = ()) -> bool:
    """Whether a folder holds anything but an unchanged result of that kind (None: of any kind).

    A note that someone put there is foreign, and so is a mask of ours that someone corrected. Subfolders with
    their own provenance file are ours too if they hold nothing foreign. Anything named in ``keep`` is ignored.

    Raises:
        OSError: something cannot be read.
    """
    mark = _read(folder)
    is_marked = mark is not None and kind in (None, mark[0].kind)
    written = mark[1] if mark is not None and is_marked else {}
    for name, path in _files_in(folder, keep):
        if is_marked and path.name == PROVENANCE_FILE:
            if path.parent != folder and holds_foreign_files(path.parent, None):
                return True
        elif name not in written or not path.is_file() or written[name] != _sha256(path):
            return True
    return False


def _read(folder: Path) -> tuple[Provenance, Mapping[str, str]] | None:
    try:
        values = json.loads((folder / PROVENANCE_FILE).read_text(encoding="utf-8"))
        if values["software"]["name"] != _SOFTWARE:
            return None
        files = {str(name): str(sha256) for name, sha256 in values["files"].items()}
        version = str(values["software"]["version"])
        return Provenance(str(values["kind"]), dict(values["made_from"]), version), files
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _files_in(folder: Path, keep: Collection[str] = ()) -> Iterator[tuple[str, Path]]:
    """Relative name and path of each file; for a subfolder with its own provenance file, only that file.

    Scratch and files left by file managers are skipped. A linked folder counts as a file.
    """
    for place, folders, names in os.walk(folder, onerror=_raise):
        here = Path(place)
        if here != folder and PROVENANCE_FILE in names:
            folders.clear()
            files = [PROVENANCE_FILE]
        else:
            files = [*names, *(name for name in folders if (here / name).is_symlink())]
        folders[:] = sorted(name for name in folders if not _is_passed_over(here / name, folder, keep))
        for name in sorted(files):
            if not _is_passed_over(here / name, folder, keep):
                yield (here / name).relative_to(folder).as_posix(), here / name


def _is_passed_over(path: Path, folder: Path, keep: Collection[str]) -> bool:
    if path.parent == folder and (path.name in keep or path.name == LOCK_FILE):
        return True
    return path.name.startswith(SCRATCH_PREFIX) or path.name in _FILE_MANAGER_FILES


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _raise(error: OSError) -> None:
    raise error
