"""A panel's .ui file, loaded by Qt without Slicer: Slicer's own widgets are replaced by what they are made of."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from PySide6 import QtWidgets
from PySide6.QtCore import Qt
from PySide6.QtUiTools import QUiLoader


class Collapsible(QtWidgets.QFrame):
    """A titled box, closed where the real one is; its layout is below the title."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.setFrameShape(QtWidgets.QFrame.Shape.StyledPanel)


class NodeBox(QtWidgets.QComboBox):
    """A selector of nodes."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.addItem("4: Head CT, 5.0 mm")


class SegmentBox(QtWidgets.QWidget):
    """A selector of a segmentation above one of its segments."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for text in ("Segmentation", "Segment_1"):
            box = QtWidgets.QComboBox()
            box.addItem(text)
            layout.addWidget(box)


class Slider(QtWidgets.QWidget):
    """A slider with its value beside it."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(QtWidgets.QSlider(Qt.Orientation.Horizontal))
        layout.addWidget(QtWidgets.QDoubleSpinBox())


STAND_INS: dict[str, type[QtWidgets.QWidget]] = {
    "qMRMLWidget": QtWidgets.QWidget,
    "ctkCollapsibleButton": Collapsible,
    "qMRMLNodeComboBox": NodeBox,
    "qMRMLSegmentSelectorWidget": SegmentBox,
    "ctkSliderWidget": Slider,
    "ctkDirectoryButton": QtWidgets.QPushButton,
}


def application() -> Any:
    """The Qt application, without a screen."""
    return QtWidgets.QApplication.instance() or QtWidgets.QApplication(["tests", "-platform", "offscreen"])


def load_panel(path: Path, stand_ins: dict[str, type[QtWidgets.QWidget]] = STAND_INS) -> QtWidgets.QWidget:
    """The panel as Qt builds it, Slicer's own widgets replaced."""

    class Loader(QUiLoader):
        def createWidget(self, name: str, parent: Any = None, own: str = "") -> Any:  # noqa: N802
            if name in stand_ins:
                widget = stand_ins[name](parent)
                widget.setObjectName(own)
                return widget
            return super().createWidget(name, parent, own)

    return Loader().load(str(path))


def widgets(path: Path) -> dict[str, tuple[str, dict[str, str]]]:
    """Name -> class and properties (as text) of every widget in a .ui file."""
    found = {}
    for element in ET.parse(path).iter("widget"):
        properties = {p.get("name", ""): "".join(p.itertext()).strip() for p in element.findall("property")}
        found[element.get("name", "")] = (element.get("class", ""), properties)
    return found
