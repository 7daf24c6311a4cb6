"""What the self-tests of both modules share."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleTest

PATIENCE_S = 180
"""How long a command may take."""


class PanelTest(ScriptedLoadableModuleTest):
    """A test that clicks through a module's panel, starting each time from an empty scene."""

    module: ClassVar[str]

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def open_panel(self) -> Any:
        """The module's panel, shown."""
        slicer.util.selectModule(self.module)
        slicer.app.processEvents()
        return getattr(slicer.modules, self.module.lower()).widgetRepresentation().self()

    def wait_for(self, panel: Any) -> None:
        """Let Slicer work until the panel's command has ended."""
        deadline = time.monotonic() + PATIENCE_S
        while panel.isRunning() and time.monotonic() < deadline:
            slicer.app.processEvents()
            time.sleep(0.02)
        self.assertFalse(panel.isRunning(), "The command did not end.")
