"""Result folders: each appears whole or not at all, and no one else's file is ever removed.

Unfinished work is kept in a hidden scratch folder beside the result (or in the result's own folder, if that
exists). The run that owns it holds a lock in it until the run ends, on any computer. A killed run's lock is free,
and the next command that writes there removes what the run left behind. On a disk without locks, it stays.
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
"""Lock in a scratch folder, held by the process that owns the folder."""

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
_MAX_TRIES = 10
_TRIAL_BYTES = 1 << 20
_LOCK_TIMEOUT_S = 10.0  # with another process of the same run, say, that writes the same result

# Some systems would grant a process a lock that it already holds.
_own: set[Path] = set()


def check_output_folder(folder: Path, kind: str, keep: Collection[str] = ()) -> None:
    """Raise ``InputError`` if a result cannot be written: tries it before anything is computed.

    The folder may be new, be empty, or hold an unchanged result of that kind, which will be replaced. Anything
    named in ``keep`` may be in it too, and stays. Leftovers of killed runs are removed.
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
    """Make a folder if it does not exist, and remove leftovers of killed runs from it.

    Raises:
        InputError: the folder cannot be made, or nothing can be written there.
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
    """A scratch folder whose files are moved to ``folder``, with their provenance, if the block succeeds.

    All commands replace folders only here, and only an unchanged result of the same kind. Anything named in
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
                        raise  # otherwise another run has made it in the meantime
            with alone_in(folder, _LOCK_TIMEOUT_S):
                if holds_foreign_files(folder, provenance.kind, keep):
                    raise InputError(_FOREIGN)
                _replace(folder, made, scratch / "old", keep)
    except OSError as error:
        raise file_fault(error, _NOT_WRITTEN) from error


def check_output_file(path: Path) -> None:
    """Raise ``InputError`` if a single file cannot be written, before anything is computed.

    An existing file is never replaced, since nothing says whose it is.
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
    """Why a file could not be written when the library does not say: tries again, and removes what was there."""
    try:
        with path.open("wb") as file:
            file.write(bytes(_TRIAL_BYTES))
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
    """The path of a scratch file to write, which replaces ``path`` if the block succeeds.

    Raises:
        OSError: it cannot be written.
    """
    with own_scratch(path.parent) as scratch:
        yield scratch / path.name
        (scratch / path.name).replace(path)


@contextmanager
def alone_in(folder: Path, timeout_s: float = 0.0) -> Iterator[None]:
    """Keep other runs from writing to a folder during a block; a killed run no longer holds it.

    Raises:
        InputError: another run is still writing there after ``timeout_s`` seconds.
    """
    try:
        lock = _acquired(folder / LOCK_FILE, timeout_s)
    except _HeldByAnotherError:
        raise InputError(
            "Another run is writing to that folder: wait until it ends, or name another folder."
        ) from None
    try:
        yield
    finally:
        with suppress(OSError):  # some systems do not remove open files
            (folder / LOCK_FILE).unlink()
        if lock is not None:
            lock.release()


@contextmanager
def own_scratch(parent: Path) -> Iterator[Path]:
    """A hidden folder in ``parent``, for this user only, that is removed when the block ends.

    Raises:
        OSError: the folder cannot be made.
    """
    scratch, lock = _owned_scratch(parent)
    try:
        yield scratch
    finally:
        with suppress(OSError):
            _remove(scratch, lock)
        _own.discard(scratch)


def remove_unfinished(parent: Path) -> None:
    """Remove leftovers of killed runs from ``parent``; what a live run keeps there stays, and so does anything
    that has such a name by chance."""
    for left in parent.glob(f"{SCRATCH_PREFIX}*"):
        if left.absolute() in _own or left.is_symlink() or not left.is_dir():
            continue
        with suppress(OSError, _HeldByAnotherError):  # another user's cannot be opened
            if not (left / OWNER_FILE).exists():
                left.rmdir()  # killed before it began
            elif (lock := _acquired(left / OWNER_FILE)) is not None:
                _remove(left, lock)


class _HeldByAnotherError(Exception):
    """Another process holds the lock."""


def _acquired(path: Path, timeout_s: float = 0.0) -> FileLock | None:
    """The lock on a file, now held; None on a disk without locks.

    Raises:
        OSError: the file cannot be made.
    """
    from filelock import FileLock, Timeout  # Slicer's panels open before it is installed

    lock = FileLock(path, timeout=timeout_s)
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
    for _ in range(_MAX_TRIES):
        scratch = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=parent)).absolute()
        _own.add(scratch)
        # Another run that is cleaning up right now may hold the lock or may already have removed the folder.
        with suppress(_HeldByAnotherError, FileNotFoundError):
            lock = _acquired(scratch / OWNER_FILE)
            if scratch.is_dir() and (lock is None or (scratch / OWNER_FILE).exists()):
                return scratch, lock
            if lock is not None:
                lock.release()
        _own.discard(scratch)
    raise InputError("Another run keeps removing files there: choose another place.")


def _remove(scratch: Path, lock: FileLock | None) -> None:
    """Remove a scratch folder whose lock is held; the lock goes last, or the rest would seem to have no owner."""
    for path in scratch.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != OWNER_FILE:
            path.unlink(missing_ok=True)
    if lock is not None:
        lock.release()
    shutil.rmtree(scratch, ignore_errors=True)


def _place_of_scratch(folder: Path) -> Path:
    """Where a folder's scratch goes: inside it if it exists, since it may be a mount point or in use."""
    return folder if folder.exists() else folder.parent


def _replace(folder: Path, made: Path, old: Path, keep: Collection[str]) -> None:
    """Replace what is in the folder with what was made. At any moment, the folder holds files of only one result,
    and never without their provenance file."""
    old.mkdir()
    stays = {*keep, LOCK_FILE}
    before = [p for p in folder.iterdir() if p.name not in stays and not p.name.startswith(SCRATCH_PREFIX)]
    moves = [(path, old / path.name) for path in _provenance_last(before)]
    moves += [(path, folder / path.name) for path in reversed(_provenance_last(list(made.iterdir())))]
    done: list[tuple[Path, Path]] = []
    try:
        for source, target in moves:
            source.rename(target)
            done.append((source, target))
    except BaseException:  # even if the user stops it
        for source, target in reversed(done):
            target.rename(source)
        raise


def _provenance_last(paths: Sequence[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: (path.name == PROVENANCE_FILE, path.name))
