"""The modules' own self-tests, which Slicer runs in its window, on a stand-in for that window."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
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


def opened_panel(window: Any) -> Any:
    import slicer

    window.load("HematomaExpansion")
    slicer.util.selectModule("HematomaExpansion")
    return slicer.modules.hematomaexpansion.widgetRepresentation().self()


def added_prediction(tmp_path: Path, name: str, write: Callable[..., Any] | None = None) -> Any:
    """A prediction of a scan of that name, as if the panel had just made it."""
    from HematomaSlicerLib.node_images import volume_from_image
    from HematomaSlicerLib.prediction_nodes import add_prediction
    from slicer_scene import ct, grid, write_result

    (write or write_result)(tmp_path / name, "LPS")
    return add_prediction(tmp_path / name, volume_from_image(ct(grid("LPS")), name))


def probability_of(run: Any) -> float:
    return float(run.result["forecast"]["probability_of_expansion"])


def test_the_forecast_shown_follows_what_is_told_of_its_own_patient_only(window: Any, tmp_path: Path) -> None:
    panel = opened_panel(window)
    first, second = (added_prediction(tmp_path, name) for name in ("first", "second"))
    parameters = panel.logic.getParameterNode()
    parameters.baseline, parameters.result = first.scan, first.table
    before = probability_of(first)
    panel.ui.gcsSpinBox.value = 6
    assert first.result["input"]["clinical"]["gcs"] == 6
    assert probability_of(first) != before
    assert "GCS 6" in panel.ui.cardLabel.text
    panel.ui.warfarinComboBox.currentText = "yes"
    assert probability_of(first) > before
    told = probability_of(first)

    parameters.baseline, parameters.result = second.scan, second.table
    assert panel.ui.gcsSpinBox.value == 2, "unknown of the second patient"
    assert panel.ui.warfarinComboBox.currentText == "unknown"
    assert probability_of(second) == before
    parameters.result = first.table
    panel.ui.onsetSpinBox.value = 1.0
    assert first.result["input"]["onset_hours"] is None, "told of the second patient, whose scan is chosen"
    parameters.baseline = first.scan
    assert panel.ui.gcsSpinBox.value == 6
    assert panel.ui.onsetSpinBox.value == 0.0
    assert probability_of(first) == told

    panel.ui.probabilityFromComboBox.currentText = "BRAIN score"
    assert first.result["forecast"]["source"].startswith("BRAIN score")
    assert "BRAIN" in panel.ui.cardLabel.text
    panel.ui.definitionComboBox.currentText = "12.5ml"
    assert "12.5 mL" in first.result["forecast"]["definition"]


def test_a_forecast_model_chosen_makes_the_forecast_anew(
    window: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from HematomaExpansionLib.models.package import installed_models_folder, shipped_models_folder

    theirs = installed_models_folder() / "forecast-theirs"
    shutil.copytree(shipped_models_folder() / "forecast-evidence", theirs)
    described = json.loads((theirs / "model.json").read_text()) | {"name": "forecast-theirs"}
    (theirs / "model.json").write_text(json.dumps(described))
    panel = opened_panel(window)
    run = added_prediction(tmp_path, "scan")
    parameters = panel.logic.getParameterNode()
    parameters.baseline, parameters.result = run.scan, run.table
    assert panel.ui.forecastModelComboBox.currentText == "forecast-evidence"
    panel.ui.forecastModelComboBox.currentText = "forecast-theirs"
    assert parameters.forecastModel == "forecast-theirs"
    assert run.result["models"]["forecast"]["name"] == "forecast-theirs"
    shutil.rmtree(theirs)
    stored = probability_of(run)
    panel.ui.gcsSpinBox.value = 6
    assert probability_of(run) == stored
    assert "not on this machine" in panel.ui.cardLabel.text


def test_the_slider_says_what_it_shows_and_an_earlier_versions_prediction_still_opens(
    window: Any, tmp_path: Path
) -> None:
    from slicer_scene import write_earlier_result

    panel = opened_panel(window)
    run, earlier = added_prediction(tmp_path, "scan"), added_prediction(tmp_path, "old", write_earlier_result)
    parameters = panel.logic.getParameterNode()
    parameters.baseline, parameters.result = run.scan, run.table
    assert panel.ui.outcomeLabel.text.endswith("half of those who expand grow beyond this")
    panel.ui.growthSlider.value = 100
    assert panel.ui.outcomeLabel.text.endswith("1 in 10 of those who expand grows beyond this")
    panel.ui.playButton.checked = True
    panel._next_frame()
    assert panel.ui.outcomeLabel.text.endswith("stays")
    panel.ui.playButton.checked = False
    parameters.baseline, parameters.result = earlier.scan, earlier.table
    assert "by an earlier version" in panel.ui.cardLabel.text
    panel.ui.onsetSpinBox.value = 5.0
    assert "forecast" not in earlier.result


def test_a_click_decides_on_a_sign_that_was_unsure(window: Any, tmp_path: Path) -> None:
    import qt

    panel = opened_panel(window)
    run = added_prediction(tmp_path, "scan")
    result = run.result
    result["markers"]["irregular"] |= {"present": True, "probability": 0.63}
    run.table.SetAttribute(run.ATTRIBUTE, json.dumps(result))
    parameters = panel.logic.getParameterNode()
    parameters.baseline, parameters.result = run.scan, run.table
    row = list(result["markers"]).index("irregular")
    item = panel.ui.markersTable.item(row, 0)
    assert (item.text(), item.checkState()) == ("Irregular (63 % likely)", qt.Qt.PartiallyChecked)
    item.setCheckState(qt.Qt.Unchecked)
    assert item.text() == "Irregular"
    assert run.result["markers"]["irregular"]["overruled"] is False
    assert "not irregular" in panel.ui.cardLabel.text


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
