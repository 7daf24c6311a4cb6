"""Folders of results: each appears whole or not at all, and nobody else's file is ever removed.

What is under way lies in a scratch folder, hidden beside the result (in the result's own folder where that exists
already). Its owner holds a lock in it for as long as it lives, on whatever computer; the lock of a run that was
killed is free, and the next command that writes there removes what it has left. On a disk without locks it stays.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, file_fault
from .names import library_name
from .provenance import (
    LOCK_FILE,
    PROVENANCE_FILE,
    SCRATCH_PREFIX,
    Provenance,
    holds_foreign_files,
    write_provenance,
)

if TYPE_CHECKING:
    from filelock import FileLock


_NOT_WRITTEN = "The result could not be written"
_NO_PLACE = "The output folder cannot be written"
_FOREIGN = (
    "The output folder holds other files, or results that were changed since they were written: "
    "name a new folder for the result."
)
OWNER_FILE = "hematoma-owner.lock"
"""In a scratch folder: held by the process to which it belongs."""

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
_TRIES = 10
_TRIED_BYTES = 1 << 20
_PATIENCE_S = 10.0  # of a process of the same run, say, that puts the same result there

# Some systems would grant a process the lock that it holds already.
_own: set[Path] = set()


def check_output_folder(folder: Path, kind: str, keep: Collection[str] = ()) -> None:
    """Raise ``InputError`` where a result cannot be written, before anything is computed: it is tried.

    A folder may be new, empty, or hold a result of that kind as it was written, which will be replaced. What is
    named in ``keep`` may be in it too, and stays. What killed runs have left there is removed.
    """
    library_name(folder.absolute())
    try:
        if folder.exists() and not folder.is_dir():
            raise InputError("The output is a file: name a folder for the result.")
        if folder.exists() and holds_foreign_files(folder, kind, keep):
            raise InputError(_FOREIGN)
        folder.parent.mkdir(parents=True, exist_ok=True)
        for place in {folder.parent, _place_of_scratch(folder)}:
            remove_unfinished(place)
        with own_scratch(_place_of_scratch(folder)) as scratch:
            tried = scratch / "new"
            tried.mkdir()
            if not folder.exists():
                tried.rename(folder)
                folder.rename(tried)
    except OSError as error:
        raise file_fault(error, _NO_PLACE) from error


def make_folder(folder: Path) -> None:
    """Make a folder if it is not there, and remove what killed runs have left in it.

    Raises:
        InputError: it cannot be made, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_unfinished(folder)
        with own_scratch(folder):
            pass
    except OSError as error:
        raise file_fault(error, _NO_PLACE) from error


@contextmanager
def whole_or_nothing(folder: Path, provenance: Provenance, keep: Collection[str] = ()) -> Iterator[Path]:
    """A scratch folder whose files are in ``folder``, with what they were made from, when the block ends well.

    This alone replaces folders, for all commands: a result of the same kind, as it was written. What is named in
    ``keep`` stays beside the new result.

    Raises:
        InputError: the folder holds something else, another run is writing there, or it cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with own_scratch(_place_of_scratch(folder)) as scratch:
            made = scratch / "new"
            made.mkdir()
            yield made
            write_provenance(made, provenance)
            if not folder.exists():
                try:
                    made.rename(folder)
                    return
                except OSError:
                    if not folder.exists():
                        raise  # else another run has made it in the meantime
            with alone_in(folder, _PATIENCE_S):
                if holds_foreign_files(folder, provenance.kind, keep):
                    raise InputError(_FOREIGN)
                _replace(folder, made, scratch / "old", keep)
    except OSError as error:
        raise file_fault(error, _NOT_WRITTEN) from error


def check_output_file(path: Path) -> None:
    """Raise ``InputError`` where a single file cannot be written, before anything is computed.

    A file that is there is never replaced, since nothing says whose it is.
    """
    library_name(path.absolute())
    try:
        if path.exists():
            raise InputError("The output exists already: name a new file.")
        make_folder(path.parent)
        with own_scratch(path.parent) as scratch:
            (scratch / path.name).touch()
    except OSError as error:
        raise file_fault(error, "The output cannot be written") from error


def writing_fault(path: Path) -> OSError:
    """Why a library could not write a file, of which it says nothing: it is tried; what was there is removed."""
    try:
        with path.open("wb") as file:
            file.write(bytes(_TRIED_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error
    finally:
        with suppress(OSError):
            path.unlink()
    return OSError(errno.EIO, "The file could not be written.")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """The path of a file to write, which takes its place as ``path``, replacing what is there, when the block ends
    well.

    Raises:
        OSError: it cannot be written.
    """
    with own_scratch(path.parent) as scratch:
        yield scratch / path.name
        (scratch / path.name).replace(path)


@contextmanager
def alone_in(folder: Path, patience_s: float = 0.0) -> Iterator[None]:
    """Keep other runs from writing into a folder for the length of a block; a killed one holds it no longer.

    Raises:
        InputError: another run is writing there, also after so many seconds.
    """
    try:
        lock = _acquired(folder / LOCK_FILE, patience_s)
    except _HeldByAnotherError:
        raise InputError(
            "Another run is writing to that folder: wait for its end, or name another folder."
        ) from None
    try:
        yield
    finally:
        with suppress(OSError):  # some systems remove no file that is open
            (folder / LOCK_FILE).unlink()
        if lock is not None:
            lock.release()


@contextmanager
def own_scratch(parent: Path) -> Iterator[Path]:
    """A hidden folder in ``parent``, for this user alone, that goes when the block ends.

    Raises:
        OSError: it cannot be made.
    """
    scratch, lock = _owned_scratch(parent)
    try:
        yield scratch
    finally:
        with suppress(OSError):
            _remove(scratch, lock)
        _own.discard(scratch)


def remove_unfinished(parent: Path) -> None:
    """Remove what runs that were killed have left in ``parent``; what a living one keeps there stays, and so does
    what has such a name by chance."""
    for left in parent.glob(f"{SCRATCH_PREFIX}*"):
        if left.absolute() in _own or left.is_symlink() or not left.is_dir():
            continue
        with suppress(OSError, _HeldByAnotherError):  # another user's cannot be opened
            if not (left / OWNER_FILE).exists():
                left.rmdir()  # killed before it had begun
            elif (lock := _acquired(left / OWNER_FILE)) is not None:
                _remove(left, lock)


class _HeldByAnotherError(Exception):
    """Another process holds the lock."""


def _acquired(path: Path, patience_s: float = 0.0) -> FileLock | None:
    """The lock that a file is, held now; None on a disk that has no locks.

    Raises:
        OSError: the file cannot be made.
    """
    from filelock import FileLock, Timeout  # Slicer's panels open before it is installed

    lock = FileLock(path, timeout=patience_s)
    try:
        lock.acquire()
    except Timeout:
        raise _HeldByAnotherError from None
    except NotImplementedError:
        return None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return None
    return lock


def _owned_scratch(parent: Path) -> tuple[Path, FileLock | None]:
    for _ in range(_TRIES):
        scratch = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=parent)).absolute()
        _own.add(scratch)
        # Another run that sweeps at this very moment may have the lock, or has removed the folder by now.
        with suppress(_HeldByAnotherError, FileNotFoundError):
            lock = _acquired(scratch / OWNER_FILE)
            if scratch.is_dir() and (lock is None or (scratch / OWNER_FILE).exists()):
                return scratch, lock
            if lock is not None:
                lock.release()
        _own.discard(scratch)
    raise InputError("Another run is removing files there all the time: choose another place.")


def _remove(scratch: Path, lock: FileLock | None) -> None:
    """Remove a scratch folder whose lock is held: that last, or what is left would seem nobody's."""
    for path in scratch.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != OWNER_FILE:
            path.unlink(missing_ok=True)
    if lock is not None:
        lock.release()
    shutil.rmtree(scratch, ignore_errors=True)


def _place_of_scratch(folder: Path) -> Path:
    """Where scratch for a folder lies: in itself if it is there, since it may be a mount point, or in use."""
    return folder if folder.exists() else folder.parent


def _replace(folder: Path, made: Path, old: Path, keep: Collection[str]) -> None:
    """Put what was made in the place of what is in the folder, which holds at any moment files of one result only,
    and never some without their mark."""
    old.mkdir()
    stays = {*keep, LOCK_FILE}
    before = [p for p in folder.iterdir() if p.name not in stays and not p.name.startswith(SCRATCH_PREFIX)]
    moves = [(path, old / path.name) for path in _mark_last(before)]
    moves += [(path, folder / path.name) for path in reversed(_mark_last(list(made.iterdir())))]
    done: list[tuple[Path, Path]] = []
    try:
        for source, target in moves:
            source.rename(target)
            done.append((source, target))
    except BaseException:  # also where the user stops it
        for source, target in reversed(done):
            target.rename(source)
        raise


def _mark_last(paths: Sequence[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: (path.name == PROVENANCE_FILE, path.name))
