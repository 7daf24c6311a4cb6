"""A stand-in for Slicer's window: the panels' own code on Qt and the real MRML scene, without the application.

Widgets come from the panels' .ui files through another binding of the same Qt, wrapped so that they behave as
under PythonQt: properties are attributes, signals are connected by their signature, and a name that Qt does not
know is an error. The parameter node and the node selectors are our own and behave like Slicer's: values are kept
in the scene's node and reread when it changes, whoever changed it; a selector without a "none" entry chooses the
first node added. Errors in functions that Qt and VTK call are collected; both would only print them. What only
Slicer itself does cannot be seen here.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pathlib
import sys
import traceback
import types
import typing
import unittest
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import slicer
import slicer_panel
import slicer_scene
import vtk
from PySide6 import QtCore, QtWidgets

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


failures: list[str] = []
"""Tracebacks of what went wrong in slots and observers."""


def collected(called: Callable[..., Any]) -> Callable[..., Any]:
    """The same callable, with its errors recorded; Qt and VTK carry on after one."""

    def calling(*arguments: Any) -> None:
        try:
            called(*arguments)
        except Exception:
            failures.append(traceback.format_exc())

    return calling


_observed: list[tuple[Any, int]] = []


def observe(observed: Any, event: Any, callback: Callable[..., None]) -> None:
    """Have the stand-in's own callback called on an event, until the window is closed."""
    collecting = collected(callback)
    if hasattr(callback, "CallDataType"):
        collecting.CallDataType = callback.CallDataType  # type: ignore[attr-defined]
    _observed.append((observed, observed.AddObserver(event, collecting)))


def trimmed(slot: Callable[..., None]) -> Callable[..., None]:
    """A slot as PythonQt calls it: with as many of the signal's arguments as it has parameters."""
    code = slot.__code__
    if code.co_flags & inspect.CO_VARARGS:
        return slot
    most = code.co_argcount - int(inspect.ismethod(slot))
    return lambda *arguments: slot(*arguments[:most])


class Wrapped:
    """A Qt object as PythonQt shows it."""

    def __init__(self, qobject: Any) -> None:
        object.__setattr__(self, "qobject", qobject)

    def __getattr__(self, name: str) -> Any:
        if self.qobject.metaObject().indexOfProperty(name) >= 0:
            return self.qobject.property(name)
        if name in _DELETING and self.qobject.property("changing"):
            raise AssertionError(f"{name}() would delete the item whose change Qt is just telling")
        return getattr(self.qobject, name)

    def __setattr__(self, name: str, value: Any) -> None:
        assert self.qobject.metaObject().indexOfProperty(name) >= 0, f"Qt knows no property {name}"
        self.qobject.setProperty(name, value)

    def connect(self, signal: str, slot: Callable[..., None]) -> None:
        if signal in getattr(self.qobject, "own_signals", {}):
            self.qobject.own_signals[signal].connect(collected(slot))
            return
        told = collected(self._item_kept(signal, trimmed(slot)))
        # This binding passes as many arguments as it sees parameters.
        passing = (lambda: told()) if signal.endswith("()") else (lambda argument: told(argument))  # noqa: PLW0108
        checked_signal(self.qobject, signal).connect(passing)

    def _item_kept(self, signal: str, slot: Callable[..., None]) -> Callable[..., None]:
        """A slot during which the changed item must not be deleted, since one of the item's methods calls it."""
        if not signal.startswith("itemChanged("):
            return slot

        def called(item: Any) -> None:
            self.qobject.setProperty("changing", True)
            try:
                slot(item)
            finally:
                self.qobject.setProperty("changing", False)

        return called


_DELETING = {"setItem", "setRowCount", "setColumnCount", "clear", "clearContents", "removeRow", "takeItem"}


def checked_signal(qobject: Any, signature: str) -> Any:
    """The signal of that signature; PythonQt only prints a line where there is none."""
    normal = bytes(QtCore.QMetaObject.normalizedSignature(signature).data()).decode()
    assert qobject.metaObject().indexOfSignal(normal) >= 0, f"Qt knows no signal {signature}"
    return getattr(qobject, signature.partition("(")[0])


class _Timers:
    """``qt.QTimer``: makes timers, and has the function that calls once."""

    singleShot = staticmethod(QtCore.QTimer.singleShot)  # noqa: N815

    def __call__(self) -> Wrapped:
        return Wrapped(QtCore.QTimer())


class Signal:
    """A signal whose argument type Qt does not know."""

    def __init__(self) -> None:
        self._slots: list[Callable[..., None]] = []

    def connect(self, slot: Callable[..., None]) -> None:
        self._slots.append(slot)

    def emit(self, *arguments: Any) -> None:
        for slot in self._slots:
            slot(*arguments)


class NodeBox(QtWidgets.QWidget):
    """A selector of nodes, as far as the panels use it."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._node: Any = None
        self._offered: list[Any] = []
        self._attribute = ""
        self.node_changed = Signal()
        self.own_signals = {"currentNodeChanged(vtkMRMLNode*)": self.node_changed}

    @QtCore.Slot("vtkMRMLScene*")
    def setMRMLScene(self, scene: Any) -> None:  # noqa: N802
        for event, slot in ((scene.NodeAddedEvent, self._on_added), (scene.NodeRemovedEvent, self._on_removed)):

            @vtk.calldata_type(vtk.VTK_OBJECT)
            def told(_scene: Any, _event: Any, node: Any, slot: Callable[[Any], None] = slot) -> None:
                slot(node)

            observe(scene, event, told)
        observe(scene, scene.EndImportEvent, lambda _scene, _event: self._on_imported())
        self._list(scene)

    def addAttribute(self, kind: str, attribute: str) -> None:  # noqa: N802
        self._attribute = attribute

    def currentNode(self) -> Any:  # noqa: N802
        return self._node

    def setCurrentNode(self, node: Any) -> None:  # noqa: N802
        if node is not self._node:
            self._node = node
            self._choose_segment()
            self.node_changed.emit(node)

    def _choose_segment(self) -> None: ...

    def _kinds(self) -> list[str]:
        return list(self.property("nodeTypes") or [])

    def _is_offered(self, node: Any) -> bool:
        exactly = self.property("showChildNodeTypes") is False
        kinds = self._kinds()
        known = node.GetClassName() in kinds if exactly else any(node.IsA(kind) for kind in kinds)
        return known and (not self._attribute or node.GetAttribute(self._attribute) is not None)

    def _list(self, scene: Any) -> None:
        everything = [scene.GetNthNode(k) for k in range(scene.GetNumberOfNodes())]
        self._offered = [node for node in everything if self._is_offered(node)]

    def _on_imported(self) -> None:
        """Rebuild the list, only once an opened scene is complete; the user's choice is lost."""
        self._list(slicer.mrmlScene)
        none = self.property("noneEnabled") is not False or not self._offered
        self.setCurrentNode(None if none else self._offered[0])

    def _on_added(self, node: Any) -> None:
        if self._is_offered(node) and not slicer.mrmlScene.IsImporting():
            self._offered.append(node)
            # An empty combo box chooses what is added first; with "none" or commands in its list it is not empty.
            empty = self.property("noneEnabled") is False and not self.property("renameEnabled")
            if empty and len(self._offered) == 1 and self._node is None:
                self.setCurrentNode(node)

    def _on_removed(self, node: Any) -> None:
        if node in self._offered:
            self._offered.remove(node)
            if node is self._node:
                none = self.property("noneEnabled") is not False or not self._offered
                self.setCurrentNode(None if none else self._offered[-1])


class SegmentBox(NodeBox):
    """A selector of a segment, as far as the panels use it."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._segment = ""
        self.segment_changed = Signal()
        self.own_signals["currentSegmentChanged(QString)"] = self.segment_changed

    def currentSegmentID(self) -> str:  # noqa: N802
        return self._segment  # the previous node's, if there is no node

    def setCurrentSegmentID(self, segment: str) -> None:  # noqa: N802
        if segment != self._segment and segment in ("", *self._segments()) and self._segments():
            self._segment = segment
            self.segment_changed.emit(segment)

    def _choose_segment(self) -> None:
        if self._segment and self._segments() and self._segment not in self._segments():
            self.setCurrentSegmentID(self._segments()[0])

    def _segments(self) -> list[str]:
        return [] if self._node is None else list(self._node.GetSegmentation().GetSegmentIDs())

    def _kinds(self) -> list[str]:
        return ["vtkMRMLSegmentationNode"]


class Slider(QtWidgets.QDoubleSpinBox):
    """A slider with its value beside it: a spin box has the same properties."""


class Panel(QtWidgets.QWidget):
    """The panel itself."""

    mrmlSceneChanged = QtCore.Signal("vtkMRMLScene*")  # noqa: N815

    def setMRMLScene(self, scene: Any) -> None:  # noqa: N802
        for box in self.findChildren(NodeBox):
            box.setMRMLScene(scene)


class DirectoryButton(QtWidgets.QPushButton):
    """A button that names a folder."""

    directoryChanged = QtCore.Signal("QString")  # noqa: N815

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._folder = ""

    def _set(self, folder: str) -> None:
        if folder != self._folder:
            self._folder = folder
            self.directoryChanged.emit(folder)

    directory = QtCore.Property(str, lambda self: self._folder, _set)


_WIDGETS = {
    "qMRMLWidget": Panel,
    "qMRMLNodeComboBox": NodeBox,
    "qMRMLSegmentSelectorWidget": SegmentBox,
    "ctkSliderWidget": Slider,
    "ctkDirectoryButton": DirectoryButton,
}


# --- the parameter node -----------------------------------------------------------------------------------


class WithinRange:
    """A validator: a number from ``low`` to ``high``."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def check(self, value: Any) -> None:
        if not self.low <= value <= self.high:
            raise ValueError(f"{value} is not within {self.low} and {self.high}")


class Choice:
    """A validator: one of several values."""

    def __init__(self, choices: list[Any]) -> None:
        self.choices = choices

    def check(self, value: Any) -> None:
        if value not in self.choices:
            raise ValueError(f"{value} is not one of {self.choices}")


class ParameterNode:
    """Typed values of a module, kept in its node of the scene, bound to widgets, observed."""

    def __init__(self, node: Any) -> None:
        object.__setattr__(self, "_node", node)
        object.__setattr__(self, "_fields", typing.get_type_hints(type(self)))
        object.__setattr__(self, "_annotated", typing.get_type_hints(type(self), include_extras=True))
        object.__setattr__(self, "_values", {})
        object.__setattr__(self, "_writers", {})
        object.__setattr__(self, "_writing", [])
        for name in self._fields:
            if not node.HasParameter(name):
                self._store(name, self._defaults[name])
        self._read()
        observe(node, "ModifiedEvent", lambda _caller, _event: self._read())

    def __getattr__(self, name: str) -> Any:
        if name not in self._fields:
            raise AttributeError(name)
        return self._values[name]

    def __setattr__(self, name: str, value: Any) -> None:
        kind = self._fields[name]  # an unknown name is an error
        if not (value is None and issubclass(kind, slicer.vtkMRMLNode)):
            known = (int, float) if kind is float else kind
            assert isinstance(value, known), f"{name} must be of type {known}, is {value!r}"
        for check in getattr(self._annotated[name], "__metadata__", ()):
            check.check(value)
        before = self._node.StartModify()
        self._store(name, value)
        self._values[name] = value
        self._node.EndModify(before)

    def AddObserver(self, event: Any, callback: Any, priority: float = 0.0) -> int:  # noqa: N802
        return self._node.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:  # noqa: N802
        self._node.RemoveObserver(tag)

    def connectGui(self, ui: Any) -> str:  # noqa: N802
        for wrapped in vars(ui).values():
            name = wrapped.qobject.property("SlicerParameterName")
            if name:
                self._bind(name, wrapped.qobject)
        observe(self._node, "ModifiedEvent", lambda _caller, _event: self._show())
        return "gui"

    def disconnectGui(self, tag: str) -> None:  # noqa: N802
        assert tag == "gui"
        self._writers.clear()

    def _store(self, name: str, value: Any) -> None:
        if issubclass(self._fields[name], slicer.vtkMRMLNode):
            self._node.SetParameter(name, "")
            self._node.SetNodeReferenceID(name, None if value is None else value.GetID())
        else:
            self._node.SetParameter(name, str(value))

    def _read(self) -> None:
        for name, kind in self._fields.items():
            if not self._node.HasParameter(name):  # the scene was closed
                self._store(name, self._defaults[name])
            if issubclass(kind, slicer.vtkMRMLNode):
                self._values[name] = self._node.GetNodeReference(name)
            else:
                text = self._node.GetParameter(name)
                self._values[name] = text == "True" if kind is bool else kind(text)

    def _show(self) -> None:
        if not self._writing:
            self._writing.append(True)
            for name, write in list(self._writers.items()):
                write(self._values[name])
            self._writing.clear()

    def _bind(self, name: str, widget: Any) -> None:
        kind = self._annotated[name]
        if isinstance(widget, QtWidgets.QComboBox):
            (choice,) = kind.__metadata__
            widget.clear()
            widget.addItems([str(value) for value in choice.choices])
            signal, read, write = widget.currentTextChanged, widget.currentText, widget.setCurrentText
        elif isinstance(widget, (QtWidgets.QSpinBox, QtWidgets.QDoubleSpinBox)):
            for check in kind.__metadata__:
                widget.setRange(check.low, check.high)
            signal, read, write = widget.valueChanged, widget.value, widget.setValue
        elif isinstance(widget, QtWidgets.QCheckBox):
            signal, read, write = widget.toggled, widget.isChecked, widget.setChecked
        elif isinstance(widget, DirectoryButton):
            signal = widget.directoryChanged
            read, write = lambda: pathlib.Path(widget.directory), lambda value: widget._set(str(value))
        else:
            assert isinstance(widget, NodeBox), widget
            signal, read, write = widget.node_changed, widget.currentNode, widget.setCurrentNode
        write(getattr(self, name))
        self._writers[name] = write

        def changed(*_arguments: Any) -> None:
            if self._writers.get(name) is write and not self._writing:
                setattr(self, name, read())

        signal.connect(collected(changed))


def parameter_node(cls: type) -> type:
    """``parameterNodeWrapper``."""
    hints = dict(cls.__annotations__)
    defaults = {name: getattr(cls, name, None) for name in hints}
    return type(cls.__name__, (ParameterNode,), {"_defaults": defaults, "__annotations__": hints})


# --- the application --------------------------------------------------------------------------------------


class _Widget:
    def __init__(self, parent: Any = None) -> None:
        self.parent, self.layout = parent, types.SimpleNamespace(addWidget=lambda _widget: None)
        self.moduleName = type(self).__name__.removesuffix("Widget")

    def setup(self) -> None: ...

    def onReload(self) -> None:  # noqa: N802
        slicer.util.reloadScriptedModule(self.moduleName)

    def resourcePath(self, name: str) -> str:  # noqa: N802
        return str(pathlib.Path(sys.modules[type(self).__module__].__file__ or "").parent / "Resources" / name)


class _Logic:
    def getParameterNode(self) -> Any:  # noqa: N802
        name = type(self).__module__
        node = slicer.mrmlScene.GetSingletonNode(name, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.vtkMRMLScriptedModuleNode()
            node.SetSingletonTag(name)
            node = slicer.mrmlScene.AddNode(node)
        return node


class _Observations(slicer.util.VTKObservationMixin):
    """Slicer's own, with the errors of its callbacks collected."""

    def __init__(self) -> None:
        super().__init__()
        self._collecting: dict[Any, Any] = {}

    def addObserver(self, observed: Any, event: Any, callback: Any) -> None:  # noqa: N802
        with warnings.catch_warnings(action="error"):  # observed already
            super().addObserver(observed, event, self._collecting.setdefault(callback, collected(callback)))

    def removeObserver(self, observed: Any, event: Any, callback: Any) -> None:  # noqa: N802
        with warnings.catch_warnings(action="error"):  # not observed
            super().removeObserver(observed, event, self._collecting[callback])


class _Module:
    def __init__(self, parent: Any) -> None:
        self.parent = parent


class LayoutManager:
    """Layouts and views, as far as the two modules use them: slice views without a picture."""

    def __init__(self, scene: Any) -> None:
        self.node = slicer.vtkMRMLLayoutNode()
        self._scene = scene
        self._views: list[Any] = []

    def layoutLogic(self) -> Any:  # noqa: N802
        return types.SimpleNamespace(GetLayoutNode=lambda: self.node)

    def setLayout(self, layout: int) -> None:  # noqa: N802
        assert self.node.IsLayoutDescription(layout), "Slicer falls back on its own layout"
        description = ET.fromstring(self.node.GetLayoutDescription(layout))
        for tag in [view.get("singletontag") or "" for view in description.iter("view")]:
            view = slicer.vtkMRMLSliceCompositeNode()
            view.SetLayoutName(tag)
            view.SetSingletonTag(tag)
            self._views.append(self._scene.AddNode(view))

    def resetSliceViews(self) -> None:  # noqa: N802
        assert all(view.GetBackgroundVolumeID() for view in self._views), "there is nothing yet to be fitted"


def _executed(name: str) -> types.ModuleType:
    """The module made by running its file."""
    specification = importlib.util.spec_from_file_location(name, REPOSITORY / name / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module


class Window:
    """Slicer as far as the two modules use it."""

    def __init__(self, scene: Any, temporary: pathlib.Path) -> None:
        self.scene, self._temporary = scene, temporary
        self._qt = slicer_panel.application()
        self._panels: dict[str, Any] = {}
        self._when_started: list[Callable[[], None]] = []
        self.layouts = LayoutManager(scene)
        self.samples: dict[str, dict[str, Any]] = {}
        failures.clear()

    def modules(self) -> dict[str, types.ModuleType]:
        """Stand-ins for modules that only the application has; background work's ``qt`` is already there."""
        qt = types.ModuleType("qt")
        for name, value in {
            "Qt": QtCore.Qt,
            "QTableWidgetItem": QtWidgets.QTableWidgetItem,
            "QTimer": _Timers(),
            "QFileDialog": QtWidgets.QFileDialog,
            **{
                name: getattr(sys.modules["qt"], name)
                for name in ("QProcess", "QProcessEnvironment", "QByteArray")
            },
        }.items():
            setattr(qt, name, value)
        translations = types.ModuleType("slicer.i18n")
        translations.tr = lambda text: text  # type: ignore[attr-defined]
        translations.translate = lambda _context, text: text  # type: ignore[attr-defined]
        wrapper = types.ModuleType("slicer.parameterNodeWrapper")
        wrapper.Choice, wrapper.WithinRange = Choice, WithinRange  # type: ignore[attr-defined]
        wrapper.parameterNodeWrapper = parameter_node  # type: ignore[attr-defined]
        bases = types.ModuleType("slicer.ScriptedLoadableModule")
        bases.ScriptedLoadableModule = _Module  # type: ignore[attr-defined]
        bases.ScriptedLoadableModuleWidget = _Widget  # type: ignore[attr-defined]
        bases.ScriptedLoadableModuleLogic = _Logic  # type: ignore[attr-defined]
        bases.ScriptedLoadableModuleTest = unittest.TestCase  # type: ignore[attr-defined]
        samples = types.ModuleType("SampleData")
        samples.SampleDataLogic = lambda: types.SimpleNamespace(  # type: ignore[attr-defined]
            sourceForSampleName=self.samples.get,
            registerCustomSampleDataSource=self._register,
        )
        samples.SampleDataLogic.registerCustomSampleDataSource = self._register  # type: ignore[attr-defined]
        samples.downloadSample = self._download  # type: ignore[attr-defined]
        return {module.__name__: module for module in (qt, translations, wrapper, bases, samples)}

    def attributes(self) -> dict[str, Any]:
        """The attributes of ``slicer``."""
        application = types.SimpleNamespace(
            processEvents=self._qt.processEvents, layoutManager=lambda: self.layouts, connect=self._on_signal
        )
        return {"app": application, "modules": self, "mrmlScene": self.scene}

    def utilities(self) -> dict[str, Any]:
        """The attributes of ``slicer.util``."""
        return {
            "VTKObservationMixin": _Observations,
            "loadUI": self._load_ui,
            "childWidgetVariables": self._child_widgets,
            "selectModule": self._select,
            "reloadScriptedModule": self._reload,
            "tempDirectory": lambda: str(self._temporary),
            "saveScene": self._save,
            "loadScene": self.scene.ReadFromMRB,
        }

    def __getattr__(self, name: str) -> Any:
        panel = next((panel for title, panel in self._panels.items() if title.lower() == name), None)
        if panel is None:
            raise AttributeError(name)
        return types.SimpleNamespace(widgetRepresentation=lambda: types.SimpleNamespace(self=lambda: panel))

    def _on_signal(self, signal: str, slot: Callable[[], None]) -> None:
        assert signal == "startupCompleted()", signal
        self._when_started.append(slot)

    def load(self, name: str) -> types.ModuleType:
        """Load a module as Slicer does when it starts, with its panel."""
        module, parent = _executed(name), types.SimpleNamespace(isEntered=False)
        getattr(module, name)(parent)
        while self._when_started:
            self._when_started.pop()()
        self._open(module, parent)
        return module

    def _reload(self, name: str) -> None:
        module, panel = _executed(name), self._panels[name]
        panel.cleanup()
        self._open(module, panel.parent)

    def _open(self, module: types.ModuleType, parent: Any) -> None:
        name = module.__name__
        self._panels[name] = getattr(module, f"{name}Widget")(parent)
        self._panels[name].setup()

    def close(self) -> None:
        """Close the window with its panels."""
        for name, panel in self._panels.items():
            panel.exit()
            panel.cleanup()
            sys.modules.pop(name, None)
        while _observed:
            observed, tag = _observed.pop()
            observed.RemoveObserver(tag)
        assert not failures, "\n".join(failures)

    def _load_ui(self, path: str) -> Any:
        return Wrapped(slicer_panel.load_panel(pathlib.Path(path), slicer_panel.STAND_INS | _WIDGETS))

    def _child_widgets(self, panel: Any) -> Any:
        children = panel.qobject.findChildren(QtWidgets.QWidget)
        self._shown = panel  # keeps the C++ side alive
        return types.SimpleNamespace(
            **{c.objectName(): Wrapped(c) for c in children if c.objectName().isidentifier()}
        )

    def _select(self, name: str) -> None:
        panel = self._panels[name]
        panel.parent.isEntered = True
        panel.enter()

    def _register(self, **source: str) -> None:
        told = {"category", "sampleName", "uris", "fileNames", "nodeNames", "thumbnailFileName", "checksums"}
        assert source.keys() == told | {"loadFileTypes"}, "the names of registerCustomSampleDataSource"
        assert pathlib.Path(source["thumbnailFileName"]).is_file()
        slicer.util.extractAlgoAndDigest(source["checksums"])
        self.samples[source["sampleName"]] = source

    def _download(self, name: str) -> Any:
        import SimpleITK as sitk
        from HematomaSlicerLib.node_images import volume_from_image

        path = pathlib.Path(QtCore.QUrl(self.samples[name]["uris"]).toLocalFile())
        return volume_from_image(sitk.ReadImage(str(path)), name)

    def _save(self, path: str) -> bool:
        return slicer_scene.save_scene(self.scene, pathlib.Path(path))
