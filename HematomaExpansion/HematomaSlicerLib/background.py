"""An engine command in its own process: the window stays responsive, and Cancel really stops the command."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import qt

PATIENCE_MS = 5000
"""How long a canceled worker has to end by itself."""

_LINES_KEPT = 30
_UNEXPECTED = "The computation ended unexpectedly. The application log holds its last messages."


@dataclass(frozen=True)
class Outcome:
    """How a command ended: ``sentence`` for the user, empty on success; ``log``: its last messages."""

    finished: bool
    canceled: bool
    sentence: str
    log: str


class BackgroundCommand:
    """Runs ``hematoma <arguments>`` with Slicer's own Python.

    ``progress`` gets the stage's name and a number from 0 to 1; ``ended`` gets the ``Outcome``, once. Both are
    called from Qt's event loop.
    """

    _under_way: ClassVar[set[BackgroundCommand]] = set()  # kept alive even if nothing else refers to them

    def __init__(
        self,
        arguments: Sequence[str],
        progress: Callable[[str, float], None],
        ended: Callable[[Outcome], None],
    ) -> None:
        self._progress, self._ended = progress, ended
        self._unread = ""
        self._messages: list[str] = []
        self._canceled = False
        self._over = False
        self._worker: int | None = None  # its process ID
        self._process = qt.QProcess()
        self._process.setProcessEnvironment(_environment())
        self._process.readyReadStandardOutput.connect(self._read_progress)
        self._process.readyReadStandardError.connect(self._read_messages)
        self._process.connect("finished(int,QProcess::ExitStatus)", self._on_finished)
        self._process.connect("errorOccurred(QProcess::ProcessError)", self._on_error)
        self._under_way.add(self)
        self._process.start(_python(), ["-m", "HematomaExpansionLib.cli.worker", *arguments])

    @property
    def is_over(self) -> bool:
        """Whether the command has ended and ``ended`` has been called."""
        return self._over

    def cancel(self) -> None:
        """Stop the command; ``ended`` is called when it has stopped.

        The worker ends when its standard input closes, which works even behind Slicer's launcher. A worker that
        hangs, for instance in a library, is killed after a few seconds.
        """
        if not self._canceled:
            self._canceled = True
            self._process.closeWriteChannel()
            qt.QTimer.singleShot(PATIENCE_MS, self._kill)

    def wait(self, seconds: float) -> None:
        """Block until the command has ended, for when the panel closes; kill it if it takes longer."""
        if not self._process.waitForFinished(round(1000 * seconds)):
            self._kill()
            self._process.waitForFinished(1000)  # otherwise ``ended`` is not called and the job's files stay

    def _kill(self) -> None:
        """Kill the worker, then its launcher; killing the launcher alone would leave the worker running."""
        if self._over:
            return
        if self._worker is not None:
            with suppress(OSError):  # it is already gone
                os.kill(self._worker, getattr(signal, "SIGKILL", signal.SIGTERM))  # Windows has only SIGTERM
        self._process.kill()

    def _read_progress(self) -> None:
        self._unread += _text(self._process.readAllStandardOutput())
        *lines, self._unread = self._unread.split("\n")
        for line in lines:
            self._worker = self._worker or parse_worker(line)
            stage = parse_progress(line)
            if stage is not None and not self._over:
                self._progress(*stage)

    def _read_messages(self) -> None:
        lines = _text(self._process.readAllStandardError()).splitlines()
        self._messages = [*self._messages, *lines][-_LINES_KEPT:]

    def _on_finished(self, status: int, _kind: int) -> None:
        if self._over:
            return
        self._end()
        self._read_messages()
        log = "\n".join(self._messages)
        if self._canceled:
            self._ended(Outcome(False, True, "", log))
        elif status == 0 and self._process.exitStatus() == qt.QProcess.NormalExit:
            self._ended(Outcome(True, False, "", log))
        else:
            self._ended(Outcome(False, False, sentence_of(self._messages), log))

    def _on_error(self, _error: int) -> None:
        # This is the only error that the process's finished signal does not follow.
        if self._process.error() == qt.QProcess.FailedToStart and not self._over:
            self._end()
            self._ended(Outcome(False, False, "Slicer's Python could not be started.", ""))

    def _end(self) -> None:
        self._over = True
        self._under_way.discard(self)


def parse_progress(line: str) -> tuple[str, float] | None:
    """Stage and fraction in a line of ``--json-progress``; None for anything else a library may have printed."""
    try:
        report = json.loads(line)
        return str(report["stage"]), float(report["fraction"])
    except (ValueError, TypeError, KeyError):
        return None


def parse_worker(line: str) -> int | None:
    """The worker's process ID, from the line that reports it; None for any other line."""
    try:
        number = json.loads(line)["process"]
    except (ValueError, TypeError, KeyError):
        return None
    return number if isinstance(number, int) and number > 0 else None


def sentence_of(messages: Sequence[str]) -> str:
    """The engine's own sentence for the user, found in what it wrote to standard error."""
    prefix = "hematoma: "
    told = [line[len(prefix) :] for line in messages if line.startswith(prefix)]
    return told[-1] if told else _UNEXPECTED


def _text(data: qt.QByteArray) -> str:
    return bytes(data.data()).decode("utf-8", errors="replace")


def _python() -> str:
    return shutil.which("PythonSlicer") or sys.executable


def _environment() -> qt.QProcessEnvironment:
    """The window's environment, extended so that the child finds the same libraries as the window."""
    environment = qt.QProcessEnvironment.systemEnvironment()
    known = environment.value("PYTHONPATH")
    environment.insert("PYTHONPATH", os.pathsep.join(filter(None, [*_library_folders(), known])))
    environment.insert("PYTHONUTF8", "1")
    environment.insert("PYTHONSAFEPATH", "1")  # import nothing from the folder where Slicer was started
    return environment


def _library_folders() -> list[str]:
    """Folders of the engine and of other libraries whose names suggest that they add commands."""
    folders = dict.fromkeys(filter(None, sys.path))
    return [folder for folder in folders if any(Path(folder).glob("Hematoma*Lib/__init__.py"))]
