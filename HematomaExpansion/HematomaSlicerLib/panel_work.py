"""The one command that a panel runs at a time: progress bar, Cancel and status line."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from HematomaExpansionLib.progress import Progress
from slicer.i18n import tr as _

from .background import BackgroundCommand, Outcome
from .dependencies import DependencyError
from .node_images import NodeError

Ended = Callable[[Outcome, Any], None]


class PanelWork:
    """Runs commands one at a time and shows their progress.

    ``ui`` has ``progressBar``, ``cancelButton`` and ``statusLabel``. ``changed`` is called when a command has
    begun (True) or ended (False).
    """

    def __init__(self, ui: Any, changed: Callable[[bool], None]) -> None:
        self._ui, self._changed = ui, changed
        self._command: BackgroundCommand | None = None
        ui.cancelButton.connect("clicked(bool)", lambda _checked: self.cancel())
        self._show(False)

    @property
    def is_running(self) -> bool:
        """Whether a command is under way."""
        return self._command is not None

    def tell(self, sentence: str) -> None:
        """Show a sentence in the status line."""
        self._ui.statusLabel.text = sentence

    @contextmanager
    def sentences(self) -> Iterator[None]:
        """Show the sentence of an error meant for the user; mention any other error, which goes on to the
        application log."""
        from HematomaExpansionLib.errors import HematomaError

        try:
            yield
        except (HematomaError, DependencyError, NodeError) as error:
            self.tell(str(error))
        except Exception:
            self.tell(_("This did not work. The application log says why."))
            raise

    def run(
        self, start: Callable[[Progress, Ended], BackgroundCommand], added: Callable[[Any], None], done: str
    ) -> None:
        """Start a command; ``added`` gets what it put into the scene, or None; ``done`` is shown on success."""

        def ended(outcome: Outcome, result: Any) -> None:
            self._command = None
            self._show(False)
            self._changed(False)
            self.tell(self._sentence(outcome, done))
            added(result)

        command = start(self.progress, ended)
        if not command.is_over:  # it may have failed at once
            self._command = command
            self._show(True)
            self.tell(_("Starting …"))
            self._changed(True)

    def progress(self, stage: str, fraction: float) -> None:
        """Show how far the work has come, from 0 to 1."""
        self._ui.progressBar.value = round(100 * fraction)
        self.tell(_("Working: {stage} …").format(stage=stage))

    def cancel(self) -> None:
        """Stop what is running; the scene stays as it was."""
        if self._command is not None:
            self._ui.cancelButton.enabled = False
            self._command.cancel()

    def end(self) -> None:
        """Stop what is running and wait for it, for when the panel closes."""
        if self._command is not None:
            self._command.cancel()
            self._command.wait(5.0)

    def _show(self, running: bool) -> None:
        self._ui.progressBar.visible = running
        self._ui.progressBar.value = 0
        self._ui.cancelButton.visible = running
        self._ui.cancelButton.enabled = running

    def _sentence(self, outcome: Outcome, done: str) -> str:
        if outcome.finished:
            return done
        if outcome.canceled:
            return _("Canceled.")
        logging.error(outcome.log)
        return outcome.sentence
