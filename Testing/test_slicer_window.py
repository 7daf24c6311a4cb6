"""The modules' own self-tests, which Slicer runs in its window, on a stand-in for that window."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def window(scene: Any, qt_loop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    import slicer
    import slicer_window

    window = slicer_window.Window(scene, tmp_path)
    for name, module in window.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    for name, value in window.attributes().items():
        monkeypatch.setattr(slicer, name, value, raising=False)
    for name, value in window.utilities().items():
        monkeypatch.setattr(slicer.util, name, value, raising=False)
    yield window
    window.close()


def test_a_prediction_clicked_through(window: Any) -> None:
    test = window.load("HematomaExpansion").HematomaExpansionTest("runTest")
    test.runTest()


def test_synthesis_clicked_through(window: Any) -> None:
    test = window.load("HematomaSynthesis").HematomaSynthesisTest("runTest")
    test.runTest()


def test_a_scene_that_is_opened_brings_its_own_choices(window: Any, tmp_path: Path) -> None:
    """Selectors choose the first volume added; that must not replace what was saved."""
    import slicer

    window.load("HematomaExpansion")
    slicer.util.selectModule("HematomaExpansion")
    panel = slicer.modules.hematomaexpansion.widgetRepresentation().self()
    for name in ("another", "the scan"):
        slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    parameters = panel.logic.getParameterNode()
    assert parameters.baseline.GetName() == "another", "the selector chose it"
    parameters.baseline = slicer.util.getNode("the scan")
    parameters.warfarin = "yes"
    assert panel.ui.warfarinComboBox.currentText == "yes"
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    assert panel.ui.warfarinComboBox.currentText == "unknown"
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    parameters = panel.logic.getParameterNode()
    assert parameters.baseline.GetName() == "the scan"
    assert panel.ui.baselineSelector.currentNode().GetName() == "the scan"
    assert panel.ui.warfarinComboBox.currentText == "yes"


@pytest.mark.parametrize("name", ["HematomaExpansion", "HematomaSynthesis"])
def test_the_only_segment_of_a_segmentation_is_chosen(name: str, window: Any) -> None:
    import slicer

    window.load(name)
    slicer.util.selectModule(name)
    panel = getattr(slicer.modules, name.lower()).widgetRepresentation().self()
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn")
    segmentation.GetSegmentation().AddEmptySegment("blood", "blood")
    panel.ui.hematomaSelector.setCurrentNode(segmentation)
    parameters = panel.logic.getParameterNode()
    assert (parameters.hematoma.GetName(), parameters.hematomaSegment) == ("drawn", "blood")


def test_a_scene_saved_in_the_side_by_side_layout_opens_before_the_panel_does(window: Any) -> None:
    window.load("HematomaSynthesis")
    from HematomaSynthesisSlicerLib.side_by_side import LAYOUT_ID

    assert window.layouts.node.IsLayoutDescription(LAYOUT_ID)


def test_a_reloaded_panel_is_made_of_classes_that_know_each_other(
    window: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import slicer

    window.load("HematomaExpansion")
    before = slicer.modules.hematomaexpansion.widgetRepresentation().self()
    importlib.import_module("HematomaSlicerLib.prediction_jobs")
    package = sys.modules["HematomaSlicerLib"]
    for name, module in list(sys.modules.items()):  # as they were for the tests that follow
        if name.startswith("HematomaSlicerLib.") and not name.endswith(("background", "jobs")):
            monkeypatch.setitem(sys.modules, name, module)
            monkeypatch.setattr(package, name.rpartition(".")[2], module)
    before.onReload()
    jobs, node_images, panel = (
        importlib.import_module(f"HematomaSlicerLib.{name}") for name in ("jobs", "node_images", "panel")
    )
    assert jobs.NodeError is node_images.NodeError
    after = slicer.modules.hematomaexpansion.widgetRepresentation().self()
    assert isinstance(after, panel.Panel)
    assert not isinstance(before, panel.Panel)
