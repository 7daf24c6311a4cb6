"""Results on disk: what they were made from is recorded beside them, and no one else's file is ever removed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from environment import variables
from filelock import FileLock
from HematomaExpansionLib.errors import InputError
from HematomaExpansionLib.files import folders
from HematomaExpansionLib.files.folders import (
    OWNER_FILE,
    alone_in,
    check_output_folder,
    own_scratch,
    remove_unfinished,
    whole_or_nothing,
)
from HematomaExpansionLib.files.provenance import (
    PROVENANCE_FILE,
    Provenance,
    content_sha256,
    is_made_from,
    read_provenance,
)

MADE = Provenance("prediction", {"scan": "ab12", "options": {"seed": 1, "sizes": (1, 2)}})


def make(folder: Path, provenance: Provenance = MADE, text: str = "1", keep: tuple[str, ...] = ()) -> Path:
    with whole_or_nothing(folder, provenance, keep) as scratch:
        (scratch / "result.txt").write_text(text)
        (scratch / "parts").mkdir()
        (scratch / "parts" / "a.txt").write_text(text)
    return folder


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != PROVENANCE_FILE)
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def test_a_result_says_what_it_was_made_from_and_is_used_again_for_the_same_alone(tmp_path: Path) -> None:
    folder = make(tmp_path / "below" / "another" / "result")
    assert read_provenance(folder) == MADE
    assert is_made_from(folder, MADE)
    for other in (
        Provenance("comparison", MADE.made_from),
        Provenance("prediction", {**MADE.made_from, "scan": "cd34"}),
        Provenance("prediction", MADE.made_from, version="0.0"),
    ):
        assert not is_made_from(folder, other)
    values = json.loads((folder / PROVENANCE_FILE).read_text())
    assert values["research_use_only"] is True
    assert set(values["files"]) == {"result.txt", "parts/a.txt"}
    (folder / "note.txt").touch()
    assert is_made_from(folder, MADE)
    (folder / "parts" / "a.txt").write_text("corrected")
    assert not is_made_from(folder, MADE)
    assert not is_made_from(tmp_path, MADE)
    assert read_provenance(tmp_path) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"software": 1}', '{"software": {"name": "Other"}}', "\xff"])
def test_foreign_provenance_is_ignored(text: str, tmp_path: Path) -> None:
    (tmp_path / PROVENANCE_FILE).write_text(text, encoding="latin-1")
    assert read_provenance(tmp_path) is None
    with pytest.raises(InputError, match="other files"):
        check_output_folder(tmp_path, "prediction")


def test_contents_are_told_apart_and_names_are_not(tmp_path: Path) -> None:
    for folder, names, texts in (("a", "xy", "12"), ("b", "zw", "21"), ("c", "xy", "13")):
        (tmp_path / folder / "sub").mkdir(parents=True)
        (tmp_path / folder / names[0]).write_text(texts[0])
        (tmp_path / folder / "sub" / names[1]).write_text(texts[1])
    (tmp_path / "a" / ".hidden").mkdir()
    (tmp_path / "a" / ".hidden" / "file").touch()
    make(tmp_path / "a" / "result")
    sums = [content_sha256(tmp_path / folder) for folder in "abc"]
    assert sums[0] == sums[1] != sums[2]
    assert content_sha256(tmp_path / "a", subfolders=False) == content_sha256(tmp_path / "c", subfolders=False)
    assert content_sha256(tmp_path / "a" / "x") == content_sha256(tmp_path / "c" / "x")


def test_a_result_as_it_was_written_is_replaced(tmp_path: Path) -> None:
    folder = make(tmp_path / "result")
    (folder / ".DS_Store").touch()
    (folder / "parts" / "a.txt").unlink()  # nobody's loss
    check_output_folder(folder, "prediction")
    again = Provenance("prediction", {"scan": "cd34"})
    make(folder, again, "2")
    assert contents(folder) == {"result.txt": "2", "parts/a.txt": "2"}
    assert is_made_from(folder, again)
    assert list(tmp_path.iterdir()) == [folder]


def note(folder: Path) -> None:
    (folder / "note.txt").write_text("somebody's")


def deep_note(folder: Path) -> None:
    (folder / "parts" / "note.txt").write_text("somebody's")


def correction(folder: Path) -> None:
    (folder / "parts" / "a.txt").write_text("somebody's")


def without_mark(folder: Path) -> None:
    (folder / PROVENANCE_FILE).unlink()


def linked(folder: Path) -> None:
    (folder / "more").symlink_to(folder.parent)


def other_kind(folder: Path) -> None:
    shutil.rmtree(folder)
    make(folder, Provenance("comparison"))


def note_beside_a_part(folder: Path) -> None:
    note(make(folder / "variants", Provenance("variants")))


@pytest.mark.parametrize(
    "change", [note, deep_note, correction, without_mark, linked, other_kind, note_beside_a_part]
)
def test_somebodys_file_is_never_removed(change: object, tmp_path: Path) -> None:
    folder = make(tmp_path / "result")
    assert callable(change)
    change(folder)
    before = contents(folder)
    with pytest.raises(InputError, match="holds other files"):
        check_output_folder(folder, "prediction")
    with pytest.raises(InputError, match="holds other files"):
        make(folder, MADE, "2")
    assert contents(folder) == before
    assert list(tmp_path.iterdir()) == [folder]
    assert not list(folder.glob(".*"))


def test_parts_with_a_mark_of_their_own_go_with_their_result_or_stay(tmp_path: Path) -> None:
    folder = make(tmp_path / "result")
    make(folder / "variants", Provenance("variants"))
    assert is_made_from(folder, MADE)
    make(folder, MADE, "2", keep=("variants",))
    assert (folder / "variants" / "result.txt").is_file()
    make(folder, MADE, "3")
    assert contents(folder) == {"result.txt": "3", "parts/a.txt": "3"}
    shutil.rmtree(tmp_path / "result")
    (folder / "training").mkdir(parents=True)
    (folder / "training" / "last.ckpt").write_text("1")
    with pytest.raises(InputError, match="other files"):
        check_output_folder(folder, "prediction")
    check_output_folder(folder, "prediction", keep=["training"])
    make(folder, keep=("training",))
    assert (folder / "training" / "last.ckpt").is_file()


def test_an_empty_folder_is_filled_also_where_it_is_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("1", "2"):
        check_output_folder(Path(), "prediction")
        make(Path(), text=text)
        assert contents(tmp_path) == {"result.txt": text, "parts/a.txt": text}
    assert Path.cwd() == tmp_path
    assert not list(tmp_path.glob(".*"))


def test_a_mount_point_is_filled_and_never_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as that of a container's volume, whose parent may not be writable either."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    rename, mkdtemp = Path.rename, tempfile.mkdtemp

    def rename_below(source: Path, target: Path) -> Path:
        if folder in (source, Path(target)):
            raise OSError(errno.EBUSY, "Device or resource busy")
        return rename(source, target)

    def make_below(*, dir: Path, **options: str) -> str:
        if Path(dir) == tmp_path:
            raise OSError(errno.EACCES, "Permission denied")
        return mkdtemp(dir=dir, **options)

    monkeypatch.setattr(Path, "rename", rename_below)
    monkeypatch.setattr(tempfile, "mkdtemp", make_below)
    for text in ("1", "2"):
        check_output_folder(folder, "prediction")
        make(folder, text=text)
        assert contents(folder) == {"result.txt": text, "parts/a.txt": text}
    with pytest.raises(InputError, match="you have no permission there"):
        check_output_folder(tmp_path / "beside", "prediction")


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "can only be read"),
        (errno.EACCES, "no permission"),
        (errno.EBUSY, "in use"),
        (errno.EIO, "the disk reports a fault"),
        (errno.EPROTO, os.strerror(errno.EPROTO)),
    ],
)
def test_the_true_reason_is_reported(number: int, reason: str, tmp_path: Path) -> None:
    def fail() -> None:
        with whole_or_nothing(tmp_path / "result", MADE):
            raise OSError(number, "of the system")

    with pytest.raises(InputError, match=reason) as raised:
        fail()
    assert str(raised.value).startswith("The result could not be written: ")
    assert ("disk is full" in str(raised.value)) == (number == errno.ENOSPC)


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    folder = make(tmp_path / "result")

    def fail(place: Path) -> None:
        with whole_or_nothing(place, MADE):
            raise ValueError("no")

    for place in (folder, tmp_path / "new"):
        with pytest.raises(ValueError, match="no"):
            fail(place)
    assert is_made_from(folder, MADE)
    assert list(tmp_path.iterdir()) == [folder]


def test_a_move_that_fails_half_way_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path / "result")
    rename, moved = Path.rename, []

    def once_failing(source: Path, target: Path) -> Path:
        moved.append(source)
        if len(moved) == 5:
            raise PermissionError(13, "open in another program")
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", once_failing)
    with pytest.raises(InputError, match="no permission"):
        make(folder, text="2")
    assert is_made_from(folder, MADE)
    assert len(moved) > 5


OWNER = """
import sys
import tempfile
from pathlib import Path
from HematomaExpansionLib.files.folders import own_scratch
with own_scratch(Path(sys.argv[1])) as scratch:
    (scratch / "ct.nii.gz").write_text("a patient's")
    print(scratch, flush=True)
    sys.stdin.read()
"""


def test_scratch_of_a_living_run_stays_and_that_of_a_dead_one_goes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    with subprocess.Popen(
        command, env=variables(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        scratch = Path(owner.stdout.readline().strip())
        remove_unfinished(tmp_path)
        check_output_folder(tmp_path / "result", "prediction")
        assert (scratch / "ct.nii.gz").is_file()
        owner.kill()
    check_output_folder(tmp_path / "result", "prediction")
    assert not list(tmp_path.iterdir())


def test_own_scratch_stays_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with own_scratch(Path()) as scratch:
        remove_unfinished(tmp_path)
        remove_unfinished(Path())
        assert scratch.is_dir()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes begin otherwise")
def test_a_replacement_killed_at_any_move_leaves_parts_of_one_result_that_the_next_run_replaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename
    new = Provenance("prediction", {"scan": "cd34"})
    states = set()
    for number in range(1, 8):
        folder = make(tmp_path / f"result-{number}")
        child = os.fork()
        if child == 0:
            moves = 0

            def rename_or_die(source: Path, target: Path, last: int = number) -> Path:
                nonlocal moves
                moves += 1
                if moves == last:
                    os._exit(9)
                return rename(source, target)

            Path.rename = rename_or_die  # type: ignore[method-assign, assignment]
            make(folder, new, "2")
            os._exit(0)
        _, status = os.waitpid(child, 0)
        texts = {path.read_text() for path in folder.glob("[!.]*/*") if path.is_file()}
        texts |= {path.read_text() for path in folder.glob("*.txt")}
        assert len(texts) <= 1, "files of two results side by side"
        states.add((os.waitstatus_to_exitcode(status), is_made_from(folder, MADE), is_made_from(folder, new)))
        check_output_folder(folder, "prediction")
        make(folder, new, "2")
        assert is_made_from(folder, new)
        assert not list(folder.glob(".*"))
    assert states == {(9, True, False), (9, False, False), (0, False, True)}


def test_what_merely_bears_such_a_name_stays(tmp_path: Path) -> None:
    notes = tmp_path / ".unfinished-novel" / "chapter.txt"
    notes.parent.mkdir()
    notes.write_text("somebody's")
    (tmp_path / ".unfinished-empty").mkdir()
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".unfinished-novel"]
    assert notes.read_text() == "somebody's"


def test_a_disk_without_locks_is_written_and_scratch_on_it_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(self: FileLock, *arguments: object, **options: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", no_locks)
    for text in ("1", "2"):
        check_output_folder(tmp_path / "result", "prediction")
        make(tmp_path / "result", text=text)
    assert [path.name for path in tmp_path.iterdir()] == ["result"]
    other = tmp_path / ".unfinished-other"
    other.mkdir()
    (other / OWNER_FILE).touch()
    remove_unfinished(tmp_path)
    assert other.is_dir()


def test_two_runs_do_not_replace_one_folder_at_the_same_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "_LOCK_TIMEOUT_S", 0.1)
    folder = make(tmp_path / "result")
    with alone_in(folder), pytest.raises(InputError, match="Another run"):
        make(folder, text="2")
    assert is_made_from(folder, MADE)
    make(folder, text="2")


@pytest.mark.skipif(os.name == "nt", reason="names differ")
def test_a_place_that_cannot_be_is_refused_with_its_reason_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place, reason in (
        (tmp_path / "file", "is a file"),
        (tmp_path / "file" / "result", "a file is in the way"),
        (tmp_path / ("x" * 300), "name is too long"),
        (Path("/proc/result"), "missing|no permission|not permitted|only be read"),
    ):
        with pytest.raises(InputError, match=reason):
            check_output_folder(place, "prediction")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
