"""The modules' nodes in Slicer's real MRML scene, and what its real views draw of them."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from HematomaExpansionLib.anatomy.kinds import BESIDE_HEMATOMA, LOOKS, Kind
from HematomaExpansionLib.files.folders import OWNER_FILE
from HematomaExpansionLib.markers.scores import ClinicalData
from HematomaExpansionLib.scan.grid import Grid
from HematomaExpansionLib.scan.head_ct import head_ct_from_image, read_head_ct
from HematomaExpansionLib.scan.mask_files import mask_on_scan
from phantoms import head_grid, head_image, volume_ml
from slicer_scene import (
    DIRECTIONS,
    add_bleeds,
    added_by,
    ct,
    drawn,
    end_of,
    grid,
    growth_field,
    nodes,
    overlap,
    segment_image,
    sphere,
    write_earlier_result,
    write_result,
)

slicer = pytest.importorskip("slicer")
pytest.importorskip("trame_slicer.core")

import vtk  # noqa: E402
from HematomaSlicerLib import (  # noqa: E402
    node_images,
    outcome_nodes,
    outcome_slider,
    prediction_display,
    prediction_nodes,
)
from HematomaSlicerLib.prediction_nodes import BASELINE, GROWTH, PREDICTED, PredictionRun  # noqa: E402

ORIENTATIONS = list(DIRECTIONS)


def same_place(first: sitk.Image, second: sitk.Image) -> bool:
    return Grid.of(first).is_same(Grid.of(second))


# --- nodes and images -----------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ORIENTATIONS)
def test_a_volume_keeps_its_voxels_and_its_place(scene: Any, direction: str) -> None:
    image = ct(grid(direction))
    node = node_images.volume_from_image(image, "scan")
    back = node_images.image_from_volume(node)
    assert same_place(back, image)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(image))
    # Slicer itself puts the ball's center in the right place.
    point = np.array(image.TransformIndexToPhysicalPoint((10, 20, 5))) * (-1, -1, 1)
    matrix = vtk.vtkMatrix4x4()
    node.GetRASToIJKMatrix(matrix)
    np.testing.assert_allclose(matrix.MultiplyPoint([*point, 1.0])[:3], (10, 20, 5), atol=1e-6)


def sheared(image: sitk.Image) -> sitk.Image:
    """The same voxels on a grid whose slices are shifted relative to one another, as under a tilted gantry."""
    direction = np.array(image.GetDirection()).reshape(3, 3)
    direction[:, 2] += 0.3 * direction[:, 1]
    tilted = sitk.Image(image)
    tilted.SetDirection((direction / np.linalg.norm(direction, axis=0)).ravel().tolist())
    return tilted


@pytest.mark.parametrize("direction", [*ORIENTATIONS, "sheared"])
def test_a_scan_gives_the_same_volume_by_node_as_by_file(scene: Any, tmp_path: Path, direction: str) -> None:
    straight = "LPS" if direction == "sheared" else direction
    where = head_grid((2.0, 2.0, 5.0), grid(straight).direction)
    image = sitk.Cast(head_image(where, sphere_mm=18.0), sitk.sitkInt16)
    image = sheared(image) if direction == "sheared" else image
    sitk.WriteImage(image, tmp_path / "scan.nrrd")
    by_file = read_head_ct(tmp_path / "scan.nrrd")
    by_node = head_ct_from_image(node_images.image_from_volume(node_images.volume_from_image(image, "scan")))
    assert same_place(by_node.image, by_file.image)
    blood = [sitk.And(scan.image > 52, scan.image < 90) for scan in (by_file, by_node)]
    assert volume_ml(blood[1]) == pytest.approx(volume_ml(blood[0]), rel=1e-6)
    assert volume_ml(blood[0]) > 10


@pytest.mark.parametrize("direction", ORIENTATIONS)
def test_a_segment_drawn_in_slicer_lies_where_it_was_drawn(scene: Any, direction: str) -> None:
    mask = sphere(grid(direction))
    segment = drawn(scene, mask)
    segment.node.GetSegmentation().CollapseBinaryLabelmaps(True)  # as the Segment Editor leaves it: cropped
    found = node_images.image_from_segment(segment.node, segment.segment_id)
    assert volume_ml(found) == pytest.approx(volume_ml(mask))
    assert overlap(found, mask) == 1.0


def test_an_empty_segment_is_refused_with_a_sentence(scene: Any) -> None:
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    segment = segmentation.GetSegmentation().AddEmptySegment("blood")
    with pytest.raises(node_images.NodeError, match="empty"):
        node_images.image_from_segment(segmentation, segment)


def transformed(scene: Any, node: Any, matrix: np.ndarray) -> None:
    linear = vtk.vtkMatrix4x4()
    linear.DeepCopy(matrix.ravel().tolist())
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(linear)
    node.SetAndObserveTransformNodeID(transform.GetID())


def region(scene: Any, center: tuple[float, float, float], size: tuple[float, float, float]) -> Any:
    """A region of interest, in RAS mm."""
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    node.SetCenter(center)
    node.SetSize(size)
    return node


def test_a_box_drawn_in_slicer_surrounds_the_same_place(scene: Any) -> None:
    """In RAS there, in LPS here; under a transform too, and turned by it."""
    node = region(scene, (10, 20, 30), (6, 8, 12))
    box = node_images.box_from_roi(node)
    assert box.values == pytest.approx([-13, -24, 24, -7, -16, 36])
    turned = np.eye(4)
    turned[:2, :2] = [[0, -1], [1, 0]]  # a quarter turn from right to front
    turned[:3, 3] = (100, 0, 0)
    transformed(scene, node, turned)  # now around (80, 10, 30)
    assert node_images.box_from_roi(node).values == pytest.approx([-84, -13, 24, -76, -7, 36])


def test_an_empty_box_is_refused_with_a_sentence(scene: Any) -> None:
    with pytest.raises(node_images.NodeError, match="The box is empty: draw it around the hematoma"):
        node_images.box_from_roi(scene.AddNewNodeByClass("vtkMRMLMarkupsROINode"))


def test_a_scan_under_a_linear_transform_is_read_where_it_is_seen(scene: Any) -> None:
    image = ct(grid("oblique"))
    node = node_images.volume_from_image(image, "scan")
    shift = np.eye(4)
    shift[:3, 3] = (5.0, -7.0, 11.0)  # RAS
    transformed(scene, node, shift)
    moved = node_images.image_from_volume(node)
    np.testing.assert_allclose(np.subtract(moved.GetOrigin(), image.GetOrigin()), (-5.0, 7.0, 11.0), atol=1e-6)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(moved), sitk.GetArrayFromImage(image))
    assert node.GetParentTransformNode() is not None, "the user's node is as it was"


def test_a_scan_under_a_warping_transform_is_straightened(scene: Any) -> None:
    where = grid("LPS")
    node = node_images.volume_from_image(ct(where), "scan")
    transform = scene.AddNewNodeByClass("vtkMRMLGridTransformNode")
    transform.SetAndObserveTransformFromParent(node_images.grid_transform_from_image(growth_field(where)))
    node.SetAndObserveTransformNodeID(transform.GetID())
    straight = node_images.image_from_volume(node)
    ball = sitk.Cast(straight > 50, sitk.sitkUInt8)
    assert volume_ml(ball) == pytest.approx(4 / 3 * np.pi * (12.0 / 0.75) ** 3 / 1000, rel=0.06)


def test_a_segment_under_a_transform_goes_with_it(scene: Any) -> None:
    mask = sphere(grid("oblique"))
    segment = drawn(scene, mask)
    shift = np.eye(4)
    shift[:3, 3] = (4.0, 0.0, 0.0)
    transformed(scene, segment.node, shift)
    moved = node_images.image_from_segment(segment.node, segment.segment_id)
    expected = sitk.Image(mask)
    expected.SetOrigin(tuple(np.add(mask.GetOrigin(), (-4.0, 0.0, 0.0))))
    assert overlap(moved, expected) == 1.0


@pytest.mark.parametrize("direction", ORIENTATIONS)
def test_a_field_survives_the_way_into_the_scene_and_back(scene: Any, direction: str) -> None:
    field = growth_field(grid(direction))
    back = node_images.image_from_grid_transform(node_images.grid_transform_from_image(field))
    assert same_place(back, field)
    np.testing.assert_allclose(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(field), atol=1e-5)


# --- a run ----------------------------------------------------------------------------------------------


def added(write: Any, folder: Path, request: pytest.FixtureRequest) -> Any:
    """The prediction that ``write`` puts into a folder, in the scene."""
    direction = getattr(request, "param", "oblique")
    write(folder, direction)
    scan = node_images.volume_from_image(ct(grid(direction)), "scan")
    return prediction_nodes.add_prediction(folder, scan)


@pytest.fixture
def run(scene: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    return added(write_result, tmp_path / "result", request)


@pytest.fixture
def earlier_run(scene: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    """A prediction from before there was one forecast."""
    return added(write_earlier_result, tmp_path / "earlier", request)


def carried_baseline(scene: Any, run: Any) -> sitk.Image:
    """The baseline segment, moved by Slicer as the slider moves it."""
    moved = drawn(scene, segment_image(run, BASELINE))
    moved.node.SetAndObserveTransformNodeID(run.shown.GetID())
    image = node_images.image_from_segment(moved.node, moved.segment_id)
    scene.RemoveNode(moved.node)
    return image


def carried_by_simpleitk(run: Any) -> sitk.Image:
    mask, field = segment_image(run, BASELINE), prediction_nodes.prediction_of(run).growth.displacement
    transform = sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))
    return sitk.Resample(mask, segment_image(run, PREDICTED), transform, sitk.sitkNearestNeighbor)


@pytest.mark.parametrize("earlier_run", ORIENTATIONS, indirect=True)
def test_the_slider_carries_the_baseline_onto_an_earlier_versions_prediction(scene: Any, earlier_run: Any) -> None:
    run = earlier_run
    prediction_display.show_outcome(run, 0.5)
    carried = carried_baseline(scene, run)
    # Exactly as SimpleITK warps it, voxel by voxel; the truth is drawn finer than 3 mm voxels can be moved.
    assert overlap(carried, carried_by_simpleitk(run)) >= 0.995
    assert overlap(carried, segment_image(run, PREDICTED)) >= 0.96
    prediction_display.show_outcome(run, 1.0)
    assert overlap(carried_baseline(scene, run), carried) == 1.0, "no more was predicted"
    prediction_display.show_outcome(run, 0.0)
    assert overlap(carried_baseline(scene, run), segment_image(run, BASELINE)) == 1.0
    prediction_display.show_outcome(run, 0.25)
    half = volume_ml(carried_baseline(scene, run))
    assert volume_ml(segment_image(run, BASELINE)) * 1.2 < half < volume_ml(segment_image(run, PREDICTED)) * 0.9


def enclosed_ml(surface: Any) -> float:
    measured = vtk.vtkMassProperties()
    measured.SetInputData(surface)
    measured.Update()
    return float(measured.GetVolume()) / 1000


def middle_of(surface: Any) -> np.ndarray:
    """The middle of a surface's bounds, LPS mm."""
    bounds = np.array(surface.GetBounds()).reshape(3, 2)
    return bounds.mean(axis=1) * (-1, -1, 1)


@pytest.mark.parametrize("run", ORIENTATIONS, indirect=True)
def test_the_slider_shows_every_outcome_at_its_size_and_place(scene: Any, run: Any) -> None:
    forecast = run.result["forecast"]
    for position, ml in (
        (0.0, run.result["baseline"]["volume_ml"]),
        (0.5, forecast["if_expands"]["volume_ml"]),
        (1.0, forecast["if_expands"]["high"]),
    ):
        assert outcome_slider.volume_at(run.result, position) == pytest.approx(ml)
        prediction_display.show_outcome(run, position)
        surface = run.surface.GetPolyData()
        assert enclosed_ml(surface) == pytest.approx(ml, rel=0.04)
        predicted = segment_image(run, PREDICTED)
        center = Grid.of(predicted).centroid_of(sitk.GetArrayFromImage(predicted) > 0)
        np.testing.assert_allclose(middle_of(surface), center, atol=1.0)
    assert volume_ml(segment_image(run, PREDICTED)) == pytest.approx(
        forecast["if_expands"]["volume_ml"], abs=0.003
    )


def test_the_slider_moves_smoothly_through_a_large_thin_slice_scan(scene: Any) -> None:
    where = Grid((190, 190, 120), (0.45, 0.45, 0.7), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    from slicer_scene import ball_order

    outcomes = node_images.volume_from_image(ball_order(where), "outcomes")
    outcome_nodes.outcome_surface(outcomes, 20.0)  # the first call imports
    begin = time.perf_counter()
    surface = outcome_nodes.outcome_surface(outcomes, 30.0)
    assert time.perf_counter() - begin < 0.3
    assert enclosed_ml(surface) == pytest.approx(30.0, rel=0.02)


def test_a_surface_that_meets_the_sides_of_its_box_is_closed(scene: Any) -> None:
    everywhere = sitk.Image([8, 8, 8], sitk.sitkFloat32) + 1.0
    surface = outcome_nodes.outcome_surface(node_images.volume_from_image(everywhere, "outcomes"), 2.0)
    edges = vtk.vtkFeatureEdges()
    edges.SetInputData(surface)
    edges.FeatureEdgesOff()
    edges.NonManifoldEdgesOff()
    edges.Update()
    assert surface.GetNumberOfPoints() > 0
    assert edges.GetOutput().GetNumberOfLines() == 0


def test_the_slider_says_what_an_outcome_means(scene: Any, run: Any, earlier_run: Any) -> None:
    said = {position: outcome_slider.meaning(run.result, position) for position in (0.0, 0.05, 0.5, 0.75, 1.0)}
    assert said[0.0] == "7.3 mL: stays"
    assert said[0.05].endswith(": does not count as expansion")
    assert said[0.5].endswith(" mL: half of those who expand grow beyond this")
    assert said[1.0].endswith(" mL: 1 in 10 of those who expand grows beyond this")
    percent = int(said[0.75].split(": ")[1].split(" %")[0])
    assert 10 < percent < 50
    assert outcome_slider.meaning(earlier_run.result, 0.5).endswith("mL: predicted by an earlier version")


def map_values(run: Any) -> np.ndarray:
    return sitk.GetArrayFromImage(node_images.image_from_volume(run.map)) / 100


@pytest.mark.parametrize("run", ORIENTATIONS, indirect=True)
def test_the_map_is_that_of_the_forecast_on_the_box_of_the_outcomes(scene: Any, run: Any, tmp_path: Path) -> None:
    whole = sitk.ReadImage(tmp_path / "result" / "growth-probability.nii.gz")
    box = node_images.image_from_volume(run.map)
    start = whole.TransformPhysicalPointToIndex(box.GetOrigin())
    part = sitk.RegionOfInterest(whole, box.GetSize(), start)
    np.testing.assert_allclose(map_values(run), sitk.GetArrayFromImage(part), atol=1e-6)
    assert box.GetPixelID() == sitk.sitkFloat32
    assert np.prod(box.GetSize()) < np.prod(whole.GetSize())
    voxel_ml = Grid.of(box).voxel_volume_ml
    assert map_values(run).sum() * voxel_ml == pytest.approx(run.result["forecast"]["expected_ml"], rel=0.01)


def test_nothing_is_drawn_where_blood_is_improbable(scene: Any, run: Any) -> None:
    display = run.map.GetDisplayNode()
    assert display.GetApplyThreshold()
    assert 0 < display.GetLowerThreshold() <= 1
    assert display.GetUpperThreshold() >= 100 * map_values(run).max()
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (0, 100)
    assert display.GetColorNode().GetName() == "Plasma"
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(run.map)
    assert "Probability" in legend.GetTitleText()


def test_the_map_comes_and_goes_and_leaves_other_foregrounds_alone(scene: Any, run: Any, tmp_path: Path) -> None:
    view = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    look, without = prediction_display.Look(), prediction_display.Look(map=False)
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(run.map)
    prediction_display.apply_look(run, look)
    assert view.GetForegroundVolumeID() == run.map.GetID()
    assert 0 < view.GetForegroundOpacity() < 1
    assert legend.GetVisibility()
    prediction_display.apply_look(run, without)
    assert not view.GetForegroundVolumeID()
    assert not legend.GetVisibility()
    view.SetForegroundVolumeID(run.predicted.GetID())
    prediction_display.apply_look(run, without)
    assert view.GetForegroundVolumeID() == run.predicted.GetID()
    prediction_display.apply_look(run, look)
    later = prediction_nodes.add_prediction(tmp_path / "result", run.scan)
    prediction_display.show_only(later)
    assert not view.GetForegroundVolumeID(), "that of the earlier prediction is hidden"


# --- more is known --------------------------------------------------------------------------------------


def test_the_forecast_follows_at_once_when_a_sign_is_overruled(scene: Any, run: Any) -> None:
    before, map_before = run.result, map_values(run)
    outline = segment_image(run, PREDICTED)
    begin = time.perf_counter()
    run.overrule_marker("irregular", True)
    assert time.perf_counter() - begin < 0.5
    after = run.result
    chance = [result["forecast"]["probability_of_expansion"] for result in (before, after)]
    assert chance[1] > chance[0] + 0.05
    assert "irregular" in {piece["name"] for piece in after["forecast"]["evidence"]}
    assert after["forecast"]["if_expands"] == pytest.approx(before["forecast"]["if_expands"])
    assert (after["followup"], after["growth"]) == (before["followup"], before["growth"])
    assert overlap(segment_image(run, PREDICTED), outline) == 1.0
    # Voxels that only expansion reaches become more probable by the same factor.
    order = sitk.GetArrayFromImage(node_images.image_from_volume(run.outcomes))
    beyond = (order > before["forecast"]["if_expands"]["low"]) & (map_before > 0.001)
    np.testing.assert_allclose(map_values(run)[beyond] / map_before[beyond], chance[1] / chance[0], rtol=1e-3)
    assert map_values(run).sum() * 4.32e-3 == pytest.approx(after["forecast"]["expected_ml"], rel=0.01)
    rows = {name: value for name, value, _ in table_rows(run)}
    assert rows["Probability of expansion: growth > 6 mL or > 33 % of baseline"] == pytest.approx(100 * chance[1])
    run.overrule_marker("irregular", False)
    assert run.result["forecast"] == before["forecast"]
    np.testing.assert_allclose(map_values(run), map_before, atol=1e-6)


def test_the_forecast_is_that_of_a_prediction_in_which_everything_was_told_before(scene: Any, run: Any) -> None:
    from HematomaExpansionLib.forecast.facts import Facts
    from HematomaExpansionLib.forecast.forecast import Circumstances, ForecastModel, make_forecast
    from HematomaExpansionLib.models.package import find_package

    told = {"onset_hours": 1.5, "gcs": 9.0, "warfarin": True, "recurrent": False, "intraventricular": True}
    begin = time.perf_counter()
    run.retell(told)
    assert time.perf_counter() - begin < 0.5
    result = run.result
    facts = Facts(
        result["baseline"]["volume_ml"],
        irregular=0.0,
        blend=0.0,
        hypodensity=0.0,
        swirl=1.0,
        black_hole=0.0,
        **told,
    )
    largest = result["forecast"]["circumstances"]["largest_ml"]
    model = ForecastModel.of(find_package(None, "forecast"))
    expected = make_forecast(model, facts, Circumstances(network_growth=0.5, largest_ml=largest))
    assert result["forecast"] == expected.described
    assert result["scores"]["bat"]["total"] == 4
    assert result["scores"]["brain"]["total"] == 0 + 0 + 6 + 2 + 4
    run.retell({"whether": "brain"})
    assert run.result["forecast"]["source"].startswith("BRAIN score")
    run.retell({"whether": "evidence", "onset_hours": 48.0})
    (note,) = run.result["input"]["warnings"]
    assert "48 hours after onset" in note
    run.retell({"onset_hours": 1.5})
    assert run.result["forecast"] == expected.described
    assert not run.result["input"]["warnings"]


def test_a_forecast_whose_model_is_not_here_stays_and_a_sentence_says_so(scene: Any, run: Any) -> None:
    before = run.result
    other = {**before["models"], "forecast": {**before["models"]["forecast"], "sha256": "0" * 64}}
    for models in (other, {**other, "forecast": {**other["forecast"], "name": "of-another-hospital"}}):
        run.table.SetAttribute(PredictionRun.ATTRIBUTE, json.dumps({**before, "models": models}))
        for _ in range(2):
            run.overrule_marker("irregular", True)
        result = run.result
        assert result["markers"]["irregular"]["overruled"] is True
        assert result["forecast"] == before["forecast"]
        (note,) = result["input"]["warnings"]
        assert "not on this machine" in note
        assert models["forecast"]["name"] in note
    from HematomaExpansionLib.models.package import find_package

    run.forecast_by(find_package(None, "forecast"))
    assert run.result["models"]["forecast"] == before["models"]["forecast"]
    assert run.result["forecast"] != before["forecast"]
    assert not run.result["input"]["warnings"]


def test_an_earlier_versions_result_keeps_what_it_told(scene: Any, earlier_run: Any) -> None:
    before = earlier_run.result
    earlier_run.overrule_marker("blend", True)
    earlier_run.retell({"onset_hours": 1.0})
    after = earlier_run.result
    assert after["scores"]["bat"]["total"] == 5
    assert "forecast" not in after
    assert (after["risk"], after["followup"]) == (before["risk"], before["followup"])
    rows = {name: value for name, value, _ in table_rows(earlier_run)}
    assert rows["Predicted volume"] == pytest.approx(before["followup"]["volume_ml"])
    assert rows["Predicted volume, lower bound"] == pytest.approx(before["followup"]["volume_ml"] - 2)
    assert rows["Probability by made"] == 70.0


# --- what a run consists of -----------------------------------------------------------------------------


def test_the_segments_say_what_they_are(scene: Any, run: Any) -> None:
    segments = run.segmentation.GetSegmentation()
    assert [segments.GetNthSegment(k).GetName() for k in range(3)] == [BASELINE, PREDICTED, GROWTH]
    colors = {tuple(segments.GetNthSegment(k).GetColor()) for k in range(3)}
    assert len(colors) == 3
    for k in range(3):
        text = vtk.mutable("")
        assert segments.GetNthSegment(k).GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), text)
        assert "SCT^50960005^Hemorrhage" in str(text)
    growth, baseline = segment_image(run, GROWTH), segment_image(run, BASELINE)
    assert overlap(growth, baseline) == 0.0
    assert volume_ml(growth) == pytest.approx(run.result["growth"]["absolute_ml"])


@pytest.mark.parametrize("direction", ORIENTATIONS)
def test_each_kind_of_bleed_is_a_segment_with_its_color_and_code(
    scene: Any, tmp_path: Path, direction: str
) -> None:
    write_result(tmp_path / "result", direction)
    labels = add_bleeds(tmp_path / "result", direction)
    scan = node_images.volume_from_image(ct(grid(direction)), "scan")
    run = prediction_nodes.add_prediction(tmp_path / "result", scan)
    segments = run.segmentation.GetSegmentation()
    names = [segments.GetNthSegment(k).GetName() for k in range(segments.GetNumberOfSegments())]
    assert names == [BASELINE, PREDICTED, GROWTH, *(LOOKS[kind].title for kind in BESIDE_HEMATOMA)]
    for kind in BESIDE_HEMATOMA:
        look, segment = LOOKS[kind], segments.GetSegment(run.segment_id(LOOKS[kind].title))
        found, text = segment_image(run, look.title), vtk.mutable("")
        assert volume_ml(found) == pytest.approx(volume_ml(labels == int(kind)))
        assert overlap(found, labels == int(kind)) == 1.0
        assert "#" + "".join(f"{round(255 * part):02x}" for part in segment.GetColor()) == look.color
        assert segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), text)
        for code in (look.concept, look.region):
            assert f"~SCT^{code.value}^{code.meaning}~" in str(text)
    prediction_display.apply_look(run, prediction_display.Look())
    display = run.segmentation.GetDisplayNode()
    shown = {kind: display.GetSegmentVisibility3D(run.segment_id(LOOKS[kind].title)) for kind in BESIDE_HEMATOMA}
    assert shown == {Kind.INTRAVENTRICULAR: True, Kind.EXTRAAXIAL: True, Kind.EDEMA: False}
    assert ("Midline shift", pytest.approx(3.4), "mm") in table_rows(run)
    assert ("Probability of a hematoma", pytest.approx(97.0), "%") in table_rows(run)
    back = prediction_nodes.prediction_of(run).bleeds
    np.testing.assert_array_equal(sitk.GetArrayFromImage(back.labels), sitk.GetArrayFromImage(labels))
    assert back.described == run.result["bleeds"]


def test_bleeds_go_to_an_export_and_an_earlier_scene_has_the_hematoma_alone(
    scene: Any, run: Any, tmp_path: Path
) -> None:
    from HematomaExpansionLib.output.prediction_folder import read_parts, write_parts

    bleeds = prediction_nodes.prediction_of(run).bleeds
    assert bleeds.looked_for == {Kind.INTRAPARENCHYMAL}
    assert not [row for row in table_rows(run) if row[0] == "Midline shift"]
    write_parts(prediction_nodes.prediction_of(run), tmp_path)
    again = read_parts(tmp_path)
    np.testing.assert_array_equal(again.bleeds.voxels, bleeds.voxels)
    assert again.baseline_mask.volume_ml == pytest.approx(run.result["baseline"]["volume_ml"])


def test_a_doubtful_hematoma_is_a_segment_without_growth(scene: Any, tmp_path: Path) -> None:
    folder = tmp_path / "result"
    result = write_result(folder, "oblique")
    add_bleeds(folder, "oblique")
    for name in ("followup-mask", "followup-ct", "displacement", "outcomes", "growth-probability"):
        (folder / f"{name}.nii.gz").unlink()
    bleeds = json.loads((folder / "prediction.json").read_text())["bleeds"]
    result |= {"bleeds": {**bleeds, "probability_of_hematoma": 0.3, "doubtful": True}}
    result |= dict.fromkeys(("forecast", "followup", "growth", "markers", "scores"))
    (folder / "prediction.json").write_text(json.dumps(result))
    run = prediction_nodes.add_prediction(folder, node_images.volume_from_image(ct(grid("oblique")), "scan"))
    assert run.segment_id(BASELINE)
    assert not run.segment_id(PREDICTED)
    assert run.surface is None
    prediction_display.apply_look(run, prediction_display.Look())
    prediction_display.look_at(run)
    assert prediction_nodes.prediction_of(run).bleeds.is_doubtful


def table_rows(run: Any) -> list[tuple[str, float, str]]:
    table = run.table.GetTable()
    rows = range(table.GetNumberOfRows())
    return [
        (
            table.GetValue(r, 0).ToString(),
            table.GetValue(r, 1).ToDouble(),
            table.GetValue(r, 2).ToString(),
        )
        for r in rows
    ]


def test_the_table_holds_the_measures_with_their_units(scene: Any, run: Any) -> None:
    rows, forecast = {name: (value, unit) for name, value, unit in table_rows(run)}, run.result["forecast"]
    expected = {
        "Baseline volume": (run.result["baseline"]["volume_ml"], "mL"),
        "Growth if it expands": (run.result["growth"]["absolute_ml"], "mL"),
        "Probability of expansion, lower bound": (100 * forecast["probability_low"], "%"),
        "Probability of expansion, upper bound": (100 * forecast["probability_high"], "%"),
        "Follow-up volume, percentile 10": (forecast["volume_ml"]["10"], "mL"),
        "Follow-up volume, percentile 50": (forecast["volume_ml"]["50"], "mL"),
        "Volume if it expands": (forecast["if_expands"]["volume_ml"], "mL"),
        "Volume if it expands, percentile 90": (forecast["if_expands"]["high"], "mL"),
    }
    for name, (value, unit) in expected.items():
        assert rows[name] == (pytest.approx(value), unit)
    assert "Research use only" in run.table.GetDescription()


def test_all_nodes_of_a_run_lie_in_one_folder_beside_the_scan(scene: Any, run: Any) -> None:
    hierarchy = scene.GetSubjectHierarchyNode()
    parents = {hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) for node in run.nodes}
    assert len(parents) == 1
    assert hierarchy.GetItemName(parents.pop()) == "scan hematoma expansion"


def test_removing_a_run_leaves_the_scene_as_it_was(scene: Any, tmp_path: Path) -> None:
    write_result(tmp_path / "result", "oblique")
    scan = node_images.volume_from_image(ct(grid("oblique")), "scan")
    scene.GetSubjectHierarchyNode()
    before = nodes(scene)
    for _ in range(2):
        run = prediction_nodes.add_prediction(tmp_path / "result", scan)
        prediction_display.apply_look(run, prediction_display.Look(deformation=True))
        run.field.GetDisplayNode().GetColorMap()  # makes its own colors, as a view that draws it does
        assert nodes(scene) - before
        run.remove()
        assert nodes(scene) == before
        hierarchy = scene.GetSubjectHierarchyNode()
        assert hierarchy.GetItemByName("scan hematoma expansion") == 0


def test_a_result_that_cannot_be_read_leaves_the_scene_as_it_was(scene: Any, tmp_path: Path) -> None:
    write_result(tmp_path / "result", "LPS")
    (tmp_path / "result" / "displacement.nii.gz").write_bytes(b"damaged")
    scan = node_images.volume_from_image(ct(grid("LPS")), "scan")
    scene.GetSubjectHierarchyNode()
    before = nodes(scene)
    with pytest.raises(RuntimeError):
        prediction_nodes.add_prediction(tmp_path / "result", scan)
    assert nodes(scene) == before


def test_no_hematoma_gives_a_table_and_nothing_else(scene: Any, tmp_path: Path) -> None:
    result = write_result(tmp_path / "result", "LPS")
    result["growth"] = result["followup"] = result["forecast"] = None
    (tmp_path / "result" / "prediction.json").write_text(json.dumps(result))
    for name in ("followup-mask", "followup-ct", "displacement", "outcomes"):
        (tmp_path / "result" / f"{name}.nii.gz").unlink()
    empty = sitk.ReadImage(tmp_path / "result" / "baseline-mask.nii.gz") * 0
    sitk.WriteImage(empty, tmp_path / "result" / "baseline-mask.nii.gz")
    scan = node_images.volume_from_image(ct(grid("LPS")), "scan")
    run = prediction_nodes.add_prediction(tmp_path / "result", scan)
    assert run.nodes == [run.table]
    prediction_display.show_outcome(run, 0.5)
    prediction_display.apply_look(run, prediction_display.Look())
    prediction_display.look_at(run)


def saved_and_opened(scene: Any, run: Any, path: Path) -> Any:
    """The run from a new scene, into which the saved one was read."""
    from slicer_scene import save_scene

    assert save_scene(scene, path)
    scene.Clear(0)
    assert not PredictionRun.in_scene()
    assert scene.ReadFromMRB(str(path))
    (again,) = PredictionRun.in_scene()
    return again


def test_a_saved_scene_shows_its_result_again(scene: Any, run: Any, tmp_path: Path) -> None:
    run.overrule_marker("irregular", True)
    before, result, predicted = prediction_nodes.prediction_of(run), run.result, segment_image(run, PREDICTED)
    shown = map_values(run)
    prediction_display.show_outcome(run, 0.8)
    again = saved_and_opened(scene, run, tmp_path / "scene.mrb")
    assert again.result == result
    assert overlap(segment_image(again, PREDICTED), predicted) == 1.0
    np.testing.assert_allclose(map_values(again), shown, atol=1e-6)
    after = prediction_nodes.prediction_of(again)
    for name in ("displacement", "order"):
        images = (getattr(prediction.growth, name) for prediction in (after, before))
        np.testing.assert_allclose(*map(sitk.GetArrayFromImage, images), atol=1e-4)
    prediction_display.show_outcome(again, 0.0)
    assert enclosed_ml(again.surface.GetPolyData()) == pytest.approx(result["baseline"]["volume_ml"], rel=0.04)
    again.overrule_marker("irregular", False)
    assert again.result["forecast"]["probability_of_expansion"] < result["forecast"]["probability_of_expansion"]


def test_an_earlier_versions_scene_shows_its_result_again(scene: Any, earlier_run: Any, tmp_path: Path) -> None:
    result, predicted = earlier_run.result, segment_image(earlier_run, PREDICTED)
    field = sitk.GetArrayFromImage(prediction_nodes.prediction_of(earlier_run).growth.displacement)
    prediction_display.show_outcome(earlier_run, 0.15)  # saved while the slider was elsewhere
    again = saved_and_opened(scene, earlier_run, tmp_path / "scene.mrb")
    assert again.result == result
    restored = sitk.GetArrayFromImage(prediction_nodes.prediction_of(again).growth.displacement)
    np.testing.assert_allclose(restored, field, atol=1e-4)
    prediction_display.apply_look(again, prediction_display.Look())
    prediction_display.show_outcome(again, 0.5)
    assert overlap(carried_baseline(scene, again), predicted) >= 0.96


def exported(run: Any, parent: Path, qt_loop: Any) -> Path:
    """The folder to which a background command exported a run."""
    from HematomaSlicerLib.prediction_export import start_export

    return added_by(qt_loop, start_export, run, parent)


def test_the_exported_files_are_those_of_the_command_line(
    scene: Any, run: Any, qt_loop: Any, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    folder = exported(run, tmp_path, qt_loop)
    for name in ("baseline-mask", "followup-mask", "outcomes", "growth-probability"):
        written = sitk.ReadImage(folder / f"{name}.nii.gz")
        original = sitk.ReadImage(tmp_path / "result" / f"{name}.nii.gz")
        np.testing.assert_allclose(sitk.GetArrayFromImage(written), sitk.GetArrayFromImage(original), atol=1e-6)
        assert same_place(written, original)
    assert {"report.pdf", "overlay.png", "measures.csv", "prediction.json"} <= {f.name for f in folder.iterdir()}
    assert "Growth if it expands," in (folder / "measures.csv").read_text()


def test_an_earlier_versions_result_can_be_exported(
    scene: Any, earlier_run: Any, qt_loop: Any, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    folder = exported(earlier_run, tmp_path, qt_loop)
    assert json.loads((folder / "prediction.json").read_text())["followup"] == earlier_run.result["followup"]
    assert not (folder / "growth-probability.nii.gz").exists(), "nobody knows it"
    order = sitk.GetArrayFromImage(sitk.ReadImage(folder / "outcomes.nii.gz"))
    for ml, name in (("baseline", BASELINE), ("followup", PREDICTED)):
        reached = order <= earlier_run.result[ml]["volume_ml"] + 1e-3
        expected = np.count_nonzero(sitk.GetArrayFromImage(segment_image(earlier_run, name)))
        assert np.count_nonzero(reached) == expected


def test_a_second_export_overwrites_nothing_and_a_run_without_its_scan_has_a_sentence(
    scene: Any, run: Any, qt_loop: Any, tmp_path: Path
) -> None:
    from HematomaSlicerLib.prediction_export import start_export

    (tmp_path / "hematoma-expansion-1").mkdir()
    assert exported(run, tmp_path, qt_loop).name == "hematoma-expansion-2"
    scene.RemoveNode(run.background)
    with pytest.raises(node_images.NodeError, match="no longer in the scene"):
        start_export(run, tmp_path, lambda *_: None, lambda *_: pytest.fail("ended"))


def test_a_readers_word_on_a_marker_is_kept_with_the_run_and_exported(
    scene: Any, run: Any, qt_loop: Any, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    assert run.result["scores"]["bat"]["total_if_late"] == 2
    run.overrule_marker("swirl", False)
    run.overrule_marker("blend", True)
    assert run.result["scores"]["bat"]["total_if_late"] == 1
    assert run.result["markers"]["swirl"]["present"], "what was measured stays"
    folder = exported(run, tmp_path, qt_loop)
    written = json.loads((folder / "prediction.json").read_text())
    assert written["forecast"] == run.result["forecast"]
    probability = sitk.GetArrayFromImage(sitk.ReadImage(folder / "growth-probability.nii.gz"))
    assert probability.sum() * 4.32e-3 == pytest.approx(written["forecast"]["expected_ml"], rel=0.01)
    assert written["markers"]["blend"]["overruled"] is True
    assert written["scores"]["bat"]["blend"] == 1


def test_the_views_jump_to_the_hematoma_in_a_brain_window(scene: Any, run: Any, application: Any) -> None:
    slice_node = scene.AddNewNodeByClass("vtkMRMLSliceNode")
    slice_node.SetLayoutName("Red")
    slice_node.SetOrientationToAxial()
    prediction_display.look_at(run)
    where = grid("oblique")
    middle = where.point([(n - 1) / 2 for n in where.size])
    assert slice_node.GetSliceToRAS().GetElement(2, 3) == pytest.approx(middle[2], abs=4.0)
    assert run.scan.GetDisplayNode().GetWindow() == 80
    assert run.scan.GetDisplayNode().GetLevel() == 40


def test_the_cameras_come_near_to_the_hematoma(scene: Any, run: Any) -> None:
    camera = scene.AddNewNodeByClass("vtkMRMLCameraNode")
    camera.SetPosition(0.0, 500.0, 0.0)
    camera.SetFocalPoint(0.0, 0.0, 0.0)
    prediction_display.look_at_in_3d(run)
    mask = segment_image(run, PREDICTED)
    middle = np.array(Grid.of(mask).centroid_of(sitk.GetArrayFromImage(mask) > 0)) * (-1, -1, 1)
    position, focus = np.array(camera.GetPosition()), np.array(camera.GetFocalPoint())
    np.testing.assert_allclose(focus, middle, atol=4.0)
    away = position - focus
    np.testing.assert_allclose(away / np.linalg.norm(away), (0, 1, 0), atol=1e-6, err_msg="from the same side")
    radius = (3 * volume_ml(mask) * 1000 / (4 * np.pi)) ** (1 / 3)
    assert 4 * radius < np.linalg.norm(away) < 10 * radius


def test_one_prediction_is_shown_at_a_time(scene: Any, run: Any, tmp_path: Path) -> None:
    later = prediction_nodes.add_prediction(tmp_path / "result", run.scan)
    for chosen, hidden in ((later, run), (run, later)):
        prediction_display.show_only(chosen)
        for node in (chosen.segmentation, chosen.surface):
            assert node.GetDisplayNode().GetVisibility()
        for node in (hidden.segmentation, hidden.surface):
            assert not node.GetDisplayNode().GetVisibility()


# --- background work ------------------------------------------------------------------------------------


def test_a_prediction_in_the_background_ends_with_its_nodes(
    scene: Any, qt_loop: Any, case_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from HematomaSlicerLib import prediction_jobs

    scan = node_images.volume_from_image(sitk.ReadImage(case_folder / "baseline.nii.gz"), "scan")
    mask = sitk.ReadImage(case_folder / "baseline-mask.nii.gz")
    request = prediction_jobs.PredictionRequest(
        scan,
        drawn(scene, mask),
        onset_hours=2.0,
        clinical=ClinicalData(recurrent=False, warfarin=True, intraventricular=False, gcs=11.0),
        forecast_model="forecast-evidence",
        whether="brain",
        device_name="cpu",
        keep_intermediate=True,
    )
    for _ in range(2):  # the second replaces the first
        stages: list[str] = []
        run = added_by(
            qt_loop,
            prediction_jobs.start_prediction,
            request,
            told=lambda _command, stage, _fraction, to=stages: to.append(stage),
        )
        assert "growth" in stages
        assert run.result["baseline"]["volume_ml"] == pytest.approx(volume_ml(mask), rel=1e-3)
        brain = run.result["scores"]["brain"]
        assert (brain["recurrent"], brain["warfarin"], brain["intraventricular"]) == (0, 6, 0)
        assert run.result["input"]["clinical"]["gcs"] == 11.0
        assert run.result["forecast"]["source"].startswith("BRAIN")
        prediction_display.show_outcome(run, 0.5)
        drawn_ml = enclosed_ml(run.surface.GetPolyData())
        assert drawn_ml == pytest.approx(run.result["followup"]["volume_ml"], rel=0.05)
    assert len(PredictionRun.in_scene()) == 1
    (inside,) = run.skull.GetSegmentation().GetSegmentIDs()
    assert 800 < volume_ml(node_images.image_from_segment(run.skull, inside)) < 2000
    skulls = [node for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if "skull" in node.GetName()]
    assert len(skulls) == 1, "that of the first run went with it"

    followup = node_images.volume_from_image(sitk.ReadImage(case_folder / "followup.nii.gz"), "follow-up")
    true = sitk.ReadImage(case_folder / "followup-mask.nii.gz")
    later = drawn(scene, true)
    for _ in range(2):  # the second takes the place of the first
        added_by(qt_loop, prediction_jobs.start_comparison, run, followup, later)
    assert run.comparison["followup"]["volume_ml"] == pytest.approx(volume_ml(true), rel=1e-3)
    names = [run.agreement.GetSegmentation().GetNthSegment(k).GetName() for k in range(3)]
    right, too_much, missed = (
        volume_ml(node_images.image_from_segment(run.agreement, segment))
        for segment in map(run.agreement.GetSegmentation().GetSegmentIdBySegmentName, names)
    )
    assert right + too_much == pytest.approx(run.result["followup"]["volume_ml"], rel=1e-3)
    assert right + missed == pytest.approx(volume_ml(true), rel=0.02)
    rows = prediction_nodes.measures(run.result, run.comparison)
    assert ("Lesion Dice", pytest.approx(2 * right / (2 * right + too_much + missed), abs=0.01), "") in rows
    scene.RemoveNode(followup)
    expected = mask_on_scan(mask, read_head_ct(case_folder / "baseline.nii.gz"))
    assert overlap(segment_image(run, BASELINE), expected.image) == 1.0


def test_a_canceled_prediction_leaves_scene_and_disk_as_they_were(
    scene: Any, qt_loop: Any, case_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from HematomaSlicerLib import prediction_jobs

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / ".unfinished-crashed").mkdir()
    for name in ("scan.nrrd", OWNER_FILE):  # left by a crashed Slicer
        (tmp_path / ".unfinished-crashed" / name).touch()
    scan = node_images.volume_from_image(sitk.ReadImage(case_folder / "baseline.nii.gz"), "scan")
    before = nodes(scene)
    stages: list[Any] = []
    outcome, run = end_of(
        qt_loop,
        prediction_jobs.start_prediction,
        prediction_jobs.PredictionRequest(scan),
        told=lambda command, *stage: (stages.append(stage), command.cancel()),
    )
    assert stages
    assert outcome.canceled
    assert run is None
    assert nodes(scene) == before
    assert not list(tmp_path.iterdir())


def test_a_box_reaches_the_engine(scene: Any, qt_loop: Any, case_folder: Path, tmp_path: Path) -> None:
    """A network that learned nothing looks in it, the result tells it, and another model refuses it."""
    if importlib.util.find_spec("segment_anything") is None:
        pytest.skip("the library segment-anything is not installed")
    from HematomaSlicerLib import prediction_jobs
    from test_medsam import LABELS, TINY, MedSAM, package_of

    scan = node_images.volume_from_image(sitk.ReadImage(case_folder / "baseline.nii.gz"), "scan")
    package = package_of(tmp_path / "tiny", MedSAM(LABELS, **TINY))
    request = prediction_jobs.PredictionRequest(
        scan, box=region(scene, (10, 20, 0), (40, 40, 20)), segmentation_model=str(package.folder)
    )
    run = added_by(qt_loop, prediction_jobs.start_prediction, request)
    assert run.result["input"]["box_mm"] == [-30.0, -40.0, -10.0, 10.0, 0.0, 10.0]
    assert run.result["bleeds"]["box"] == "drawn"
    outcome, refused = end_of(
        qt_loop, prediction_jobs.start_prediction, replace(request, segmentation_model="segmentation-compact")
    )
    assert refused is None
    assert "needs a segmentation model that looks in one" in outcome.sentence


def test_the_engines_sentence_reaches_the_panel(scene: Any, qt_loop: Any) -> None:
    from HematomaSlicerLib import prediction_jobs

    scan = node_images.volume_from_image(ct(grid("LPS")), "scan")  # a box of brain, no head
    request = prediction_jobs.PredictionRequest(scan)
    outcome, run = end_of(qt_loop, prediction_jobs.start_prediction, request)
    assert not outcome.finished
    assert run is None
    assert outcome.sentence.endswith(".")
    assert "Hounsfield" in outcome.sentence or "head" in outcome.sentence


# --- what is seen ---------------------------------------------------------------------------------------


def test_the_real_views_draw_the_hematoma_now_and_as_predicted(
    new_application: Callable[[], Any], tmp_path: Path
) -> None:
    from slicer_pictures import slice_picture, surface_picture

    application = new_application()
    write_result(tmp_path / "result", "oblique")
    scan = node_images.volume_from_image(ct(grid("oblique")), "scan")
    run = prediction_nodes.add_prediction(tmp_path / "result", scan)
    prediction_display.apply_look(run, prediction_display.Look())
    prediction_display.show_outcome(run, 0.0)
    flat = slice_picture(application, run)
    small = surface_picture(application, run)
    prediction_display.show_outcome(run, 1.0)
    large = surface_picture(application, run)
    red, green, blue = (flat[..., k].astype(int) for k in range(3))
    assert np.count_nonzero((red > 180) & (green > 100) & (blue < 100)) > 50, "the hematoma now"
    assert np.count_nonzero((red > 180) & (green < 110) & (blue < 140)) > 50, "the hematoma as predicted"
    orange = [np.count_nonzero(p[..., 0].astype(int) > p[..., 2].astype(int) + 40) for p in (small, large)]
    assert orange[1] > 1.2 * orange[0]
