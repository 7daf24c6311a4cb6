"""A stand-in for Slicer's window: the panels' own code over Qt and the real MRML scene, without the application.

Widgets come from the panels' .ui files through another binding of the same Qt, wrapped so that they behave as
under PythonQt: properties are attributes, signals are connected by their signature, and a name that Qt does not
know is an error. The parameter node is one of our own with the behavior that Slicer documents. What only Slicer
itself does cannot be seen here.
"""

from __future__ import annotations

import importlib
import importlib.util
import pathlib
import sys
import types
import typing
import unittest
from collections.abc import Callable
from typing import Any

import slicer
import slicer_panel
from PySide6 import QtCore, QtWidgets

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


class Wrapped:
    """A Qt object as PythonQt shows it."""

    def __init__(self, qobject: Any) -> None:
        object.__setattr__(self, "qobject", qobject)

    def __getattr__(self, name: str) -> Any:
        if self.qobject.metaObject().indexOfProperty(name) >= 0:
            return self.qobject.property(name)
        return getattr(self.qobject, name)

    def __setattr__(self, name: str, value: Any) -> None:
        assert self.qobject.metaObject().indexOfProperty(name) >= 0, f"Qt knows no property {name}"
        self.qobject.setProperty(name, value)

    def connect(self, signal: str, slot: Callable[..., None]) -> None:
        if signal in getattr(self.qobject, "own_signals", {}):
            self.qobject.own_signals[signal].connect(slot)
            return
        normal = bytes(QtCore.QMetaObject.normalizedSignature(signal).data()).decode()
        assert self.qobject.metaObject().indexOfSignal(normal) >= 0, f"Qt knows no signal {signal}"
        getattr(self.qobject, signal.partition("(")[0]).connect(slot)


class Signal:
    """A signal whose argument Qt does not know."""

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
        self.node_changed = Signal()
        self.own_signals = {"currentNodeChanged(vtkMRMLNode*)": self.node_changed}

    @QtCore.Slot("vtkMRMLScene*")
    def setMRMLScene(self, scene: Any) -> None: ...  # noqa: N802

    def addAttribute(self, kind: str, attribute: str) -> None: ...  # noqa: N802

    def currentNode(self) -> Any:  # noqa: N802
        return self._node

    def setCurrentNode(self, node: Any) -> None:  # noqa: N802
        if node is not self._node:
            self._node = node
            self.node_changed.emit(node)


class SegmentBox(NodeBox):
    """A selector of a segment, as far as the panels use it."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._segment = ""
        self.segment_changed = Signal()
        self.own_signals["currentSegmentChanged(QString)"] = self.segment_changed

    def currentSegmentID(self) -> str:  # noqa: N802
        return self._segment

    def setCurrentSegmentID(self, segment: str) -> None:  # noqa: N802
        self._segment = segment
        self.segment_changed.emit(segment)


class Slider(QtWidgets.QDoubleSpinBox):
    """A slider with its value beside it: a spin box has the same properties."""


class Panel(QtWidgets.QWidget):
    """The panel itself."""

    mrmlSceneChanged = QtCore.Signal("vtkMRMLScene*")  # noqa: N815

    def setMRMLScene(self, scene: Any) -> None: ...  # noqa: N802


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

    _observers: typing.ClassVar[list[Callable[..., None]]] = []
    _writers: typing.ClassVar[dict[str, Callable[[Any], None]]] = {}

    def __init__(self, node: Any) -> None:
        object.__setattr__(self, "_node", node)
        object.__setattr__(self, "_fields", typing.get_type_hints(type(self)))
        object.__setattr__(self, "_annotated", typing.get_type_hints(type(self), include_extras=True))

    def __getattr__(self, name: str) -> Any:
        if name not in self._fields:
            raise AttributeError(name)
        kind = self._fields[name]
        if issubclass(kind, slicer.vtkMRMLNode):
            return self._node.GetNodeReference(name)
        text = self._node.GetParameter(name)
        if not text:
            return self._defaults[name]
        return text == "True" if kind is bool else kind(text)

    def __setattr__(self, name: str, value: Any) -> None:
        for check in getattr(self._annotated[name], "__metadata__", ()):  # an unknown name is an error
            check.check(value)
        if getattr(self, name) == value:
            return
        if issubclass(self._fields[name], slicer.vtkMRMLNode):
            self._node.SetNodeReferenceID(name, None if value is None else value.GetID())
        else:
            self._node.SetParameter(name, str(value))
        if name in self._writers:
            self._writers[name](value)
        for callback in list(self._observers):
            callback(self, "ModifiedEvent")

    def connectGui(self, ui: Any) -> str:  # noqa: N802
        for wrapped in vars(ui).values():
            name = wrapped.qobject.property("SlicerParameterName")
            if name:
                self._bind(name, wrapped.qobject)
        return "gui"

    def disconnectGui(self, tag: str) -> None:  # noqa: N802
        self._writers.clear()

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
        signal.connect(lambda *_: setattr(self, name, read()) if name in self._writers else None)


def parameter_node(cls: type) -> type:
    """``parameterNodeWrapper``."""
    hints = dict(cls.__annotations__)
    defaults = {name: getattr(cls, name, None) for name in hints}
    return type(cls.__name__, (ParameterNode,), {"_defaults": defaults, "__annotations__": hints})


# --- the application --------------------------------------------------------------------------------------


class _Widget:
    def __init__(self, parent: Any = None) -> None:
        self.parent, self.layout = parent, types.SimpleNamespace(addWidget=lambda _widget: None)

    def setup(self) -> None: ...

    def onReload(self) -> None: ...  # noqa: N802

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


class _Observations:
    def __init__(self) -> None:
        self._observations: list[tuple[Any, Any, Any]] = []

    def addObserver(self, observed: Any, event: Any, callback: Any) -> None:  # noqa: N802
        if isinstance(observed, ParameterNode):
            observed._observers.append(callback)
            tag = None
        else:
            tag = observed.AddObserver(event, callback)
        self._observations.append((observed, callback, tag))

    def removeObserver(self, observed: Any, event: Any, callback: Any) -> None:  # noqa: N802
        for known in [known for known in self._observations if known[1] == callback]:
            self._observations.remove(known)
            if known[2] is None:
                observed._observers.remove(callback)
            else:
                observed.RemoveObserver(known[2])

    def removeObservers(self) -> None:  # noqa: N802
        for observed, callback, _ in list(self._observations):
            self.removeObserver(observed, None, callback)


class _Module:
    def __init__(self, parent: Any) -> None:
        self.parent = parent


class Window:
    """Slicer as far as the two modules use it."""

    def __init__(self, scene: Any, temporary: pathlib.Path) -> None:
        self.scene, self._temporary = scene, temporary
        self._qt = slicer_panel.application()
        self._panels: dict[str, Any] = {}
        self.samples: dict[str, dict[str, Any]] = {}

    def modules(self) -> dict[str, types.ModuleType]:
        """What an import finds in place of what only the application has; background work's ``qt`` is there."""
        qt = types.ModuleType("qt")
        for name, value in {
            "Qt": QtCore.Qt,
            "QTableWidgetItem": QtWidgets.QTableWidgetItem,
            "QTimer": lambda: Wrapped(QtCore.QTimer()),
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
        """What is found in ``slicer``."""
        application = types.SimpleNamespace(
            processEvents=self._qt.processEvents, layoutManager=lambda: None, connect=lambda _signal, _slot: None
        )
        return {"app": application, "modules": self, "mrmlScene": self.scene}

    def utilities(self) -> dict[str, Any]:
        """What is found in ``slicer.util``."""
        return {
            "VTKObservationMixin": _Observations,
            "loadUI": self._load_ui,
            "childWidgetVariables": self._child_widgets,
            "selectModule": self._select,
            "tempDirectory": lambda: str(self._temporary),
            "saveScene": self._save,
            "loadScene": self.scene.ReadFromMRB,
            "computeChecksum": lambda _algorithm, _path: "0",
        }

    def __getattr__(self, name: str) -> Any:
        panel = next((panel for title, panel in self._panels.items() if title.lower() == name), None)
        if panel is None:
            raise AttributeError(name)
        return types.SimpleNamespace(widgetRepresentation=lambda: types.SimpleNamespace(self=lambda: panel))

    def load(self, name: str) -> types.ModuleType:
        """Load a module as Slicer does, with its panel."""
        path = REPOSITORY / name / f"{name}.py"
        specification = importlib.util.spec_from_file_location(name, path)
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        sys.modules[name] = module
        specification.loader.exec_module(module)
        parent = types.SimpleNamespace(isEntered=False)
        getattr(module, name)(parent)
        panel = getattr(module, f"{name}Widget")(parent)
        panel.setup()
        self._panels[name] = panel
        return module

    def close(self) -> None:
        """The window goes away with its panels."""
        for name, panel in self._panels.items():
            panel.exit()
            panel.cleanup()
            sys.modules.pop(name, None)

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

    def _register(self, **source: Any) -> None:
        self.samples[source["sampleName"]] = source

    def _download(self, name: str) -> Any:
        import SimpleITK as sitk
        from HematomaSlicerLib.node_images import volume_from_image

        path = pathlib.Path(QtCore.QUrl(self.samples[name]["uris"]).toLocalFile())
        return volume_from_image(sitk.ReadImage(str(path)), name)

    def _save(self, path: str) -> bool:
        for index in range(self.scene.GetNumberOfNodes()):
            node = self.scene.GetNthNode(index)
            if node.IsA("vtkMRMLStorableNode") and node.GetSaveWithScene() and node.GetStorageNode() is None:
                node.AddDefaultStorageNode()
        return bool(self.scene.WriteToMRB(path))
