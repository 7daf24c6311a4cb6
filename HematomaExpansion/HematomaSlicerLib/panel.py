"""What the panels of both modules share: their lifecycle, parameters, hematomas and work.

Slicer runs each module's file at startup, so this file imports nothing but Slicer itself. It can be imported
whichever module comes first: Slicer registers all modules, which puts their folders on Python's path, before it
loads any.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin


class Panel(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel of a module.

    A subclass names its ``library``. Its ``setup`` begins with ``_load``, sets ``logic`` and ends with ``_begin``;
    ``_show_parameters`` shows what was chosen, and ``_on_running`` disables buttons while a command runs. Its .ui
    file has ``progressBar``, ``cancelButton``, ``statusLabel`` and ``exportButton``, and two segment selectors,
    ``hematomaSelector`` and ``followupHematomaSelector``.
    """

    library: ClassVar[str]
    """The package to reload with the module."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: Any = None
        self._parameters: Any = None
        self._gui_tag: Any = None
        self._work: Any = None
        self._missing = ""
        self._updating = False

    # --- panel lifecycle --------------------------------------------------------------------------------

    def _load(self, results: str, attribute: str) -> None:
        """Load the widgets of the .ui file; the selector ``results`` offers the tables that have the attribute."""
        from .panel_work import PanelWork

        ScriptedLoadableModuleWidget.setup(self)
        panel = slicer.util.loadUI(self.resourcePath(f"UI/{self.moduleName}.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        getattr(self.ui, results).addAttribute("vtkMRMLTableNode", attribute)
        panel.setMRMLScene(slicer.mrmlScene)
        self._work = PanelWork(self.ui, self._on_running)

    def _begin(self) -> None:
        """Observe the scene and the segment selectors, and show the parameters for the first time."""
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self._on_scene_start_close)
        self.addObserver(scene, scene.EndCloseEvent, self._on_scene_changed)
        self.addObserver(scene, scene.StartImportEvent, self._on_scene_start_import)
        self.addObserver(scene, scene.EndImportEvent, self._on_scene_changed)
        for selector in (self.ui.hematomaSelector, self.ui.followupHematomaSelector):
            selector.connect("currentNodeChanged(vtkMRMLNode*)", self._read_segments)
            selector.connect("currentSegmentChanged(QString)", self._read_segments)
        self._open_parameters()

    def cleanup(self) -> None:
        """Slicer closes the panel."""
        self._work.end()
        self._set_parameters(None)
        self.removeObservers()

    def enter(self) -> None:
        """The user opens the panel."""
        self._open_parameters()

    def exit(self) -> None:
        """The user leaves the panel."""
        self._leave_parameters()

    def onReload(self) -> None:
        """Reload the module, with its library."""
        # Imported again when next needed; reloaded one by one, they would keep using each other's old classes.
        for name in [name for name in sys.modules if name.startswith(f"{self.library}.")]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def _on_scene_start_close(self, _caller: Any, _event: Any) -> None:
        self._work.cancel()
        self._leave_parameters()

    def _on_scene_start_import(self, _caller: Any, _event: Any) -> None:
        # Once the nodes are in, selectors choose some by themselves, which must not count as the user's choice.
        self._leave_parameters()

    def _on_scene_changed(self, _caller: Any, _event: Any) -> None:
        if self.parent.isEntered:
            self._open_parameters()

    # --- parameters -------------------------------------------------------------------------------------

    def _open_parameters(self) -> None:
        self._set_parameters(self.logic.getParameterNode())

    def _leave_parameters(self) -> None:
        self._set_parameters(None)

    def _set_parameters(self, parameters: Any) -> None:
        """Show these parameters and no others, or none."""
        if self._parameters is not None:
            self._parameters.disconnectGui(self._gui_tag)
            self.removeObserver(self._parameters, vtk.vtkCommand.ModifiedEvent, self._on_parameters)
        self._parameters = parameters
        if parameters is not None:
            self._gui_tag = parameters.connectGui(self.ui)
            self.addObserver(parameters, vtk.vtkCommand.ModifiedEvent, self._on_parameters)
            self._show_unbound()
            self._on_parameters()

    def _on_parameters(self, _caller: Any = None, _event: Any = None) -> None:
        if self._parameters is not None and not self._updating:
            self._show_parameters()

    def _show_parameters(self) -> None:
        """Make the panel and the scene match the parameters."""
        raise NotImplementedError

    def _show_unbound(self) -> None:
        """Make the widgets that Slicer cannot bind to parameters match them."""
        parameters = self._parameters
        with self._quietly():
            for selector, node, segment_id in (
                (self.ui.hematomaSelector, parameters.hematoma, parameters.hematomaSegment),
                (self.ui.followupHematomaSelector, parameters.followupHematoma, parameters.followupSegment),
            ):
                selector.setCurrentNode(node)
                selector.setCurrentSegmentID(segment_id)

    def _read_segments(self, *_arguments: Any) -> None:
        parameters = self._parameters
        if parameters is None or self._updating:
            return
        with self._quietly():
            hematoma = _chosen_segment(self.ui.hematomaSelector, parameters.hematoma)
            followup = _chosen_segment(self.ui.followupHematomaSelector, parameters.followupHematoma)
            parameters.hematoma, parameters.hematomaSegment = hematoma
            parameters.followupHematoma, parameters.followupSegment = followup
        self._on_parameters()

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Mark changes made meanwhile as the panel's, not the user's."""
        self._updating = True
        try:
            yield
        finally:
            self._updating = False

    # --- work -------------------------------------------------------------------------------------------

    def isRunning(self) -> bool:
        """Whether a command is under way."""
        return self._work.is_running

    def _on_running(self, running: bool) -> None:
        """A command has begun, or ended."""
        raise NotImplementedError

    def _start(self, start: Callable[..., Any], added: Callable[[Any], None], done: str) -> None:
        """Install what is missing, and run a command in the background.

        ``start`` is called with the parameters, progress and end; for the other arguments see ``PanelWork.run``.
        """
        with self._work.sentences():
            self.logic.ensureInstalled()
            self._work.run(partial(start, self._parameters), added, done)

    def onExport(self, _checked: bool = False) -> None:
        """Write what is shown to files."""
        self._start(self.logic.startExport, self._on_exported, _("Exported."))

    def _on_exported(self, folder: Any) -> None:
        if folder is not None:
            self._work.tell(_("Written to {folder}").format(folder=folder))


def _chosen_segment(selector: Any, before: Any) -> tuple[Any, str]:
    """Segmentation and segment ID of a selector; the ID is empty if there is no segment.

    If the segmentation is not ``before``, the one chosen earlier, and has a single segment, that one is chosen.
    """
    node = selector.currentNode()
    if node is not None and (before is None or before.GetID() != node.GetID()):
        segments = node.GetSegmentation().GetSegmentIDs()
        if len(segments) == 1:
            selector.setCurrentSegmentID(segments[0])
    return node, selector.currentSegmentID() or ""
