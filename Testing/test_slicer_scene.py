"""The modules' nodes in Slicer's real MRML scene, and what its real views draw of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from HematomaExpansionLib.files.folders import OWNER_FILE
from HematomaExpansionLib.markers.scores import ClinicalData
from HematomaExpansionLib.scan.grid import Grid
from HematomaExpansionLib.scan.head_ct import head_ct_from_image, read_head_ct
from HematomaExpansionLib.scan.mask_files import mask_on_scan
from phantoms import head_grid, head_image, volume_ml
from slicer_scene import (
    DIRECTIONS,
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
    write_result,
)

slicer = pytest.importorskip("slicer")
pytest.importorskip("trame_slicer.core")

import vtk  # noqa: E402
from HematomaSlicerLib import node_images, prediction_display, prediction_nodes  # noqa: E402
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


@pytest.fixture
def run(scene: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    direction = getattr(request, "param", "oblique")
    write_result(tmp_path / "result", direction)
    scan = node_images.volume_from_image(ct(grid(direction)), "scan")
    return prediction_nodes.add_prediction(tmp_path / "result", scan)


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


@pytest.mark.parametrize("run", ORIENTATIONS, indirect=True)
def test_the_slider_carries_the_baseline_onto_the_prediction(scene: Any, run: Any) -> None:
    prediction_display.show_growth(run, 1.0)
    carried = carried_baseline(scene, run)
    # Exactly as SimpleITK warps it, voxel by voxel; the truth is drawn finer than 3 mm voxels can be moved.
    assert overlap(carried, carried_by_simpleitk(run)) >= 0.995
    assert overlap(carried, segment_image(run, PREDICTED)) >= 0.96
    prediction_display.show_growth(run, 0.0)
    assert overlap(carried_baseline(scene, run), segment_image(run, BASELINE)) == 1.0
    prediction_display.show_growth(run, 0.5)
    half = volume_ml(carried_baseline(scene, run))
    assert volume_ml(segment_image(run, BASELINE)) * 1.2 < half < volume_ml(segment_image(run, PREDICTED)) * 0.9


def test_the_surface_grows_with_the_slider(scene: Any, run: Any) -> None:
    def extent() -> float:
        to_world = vtk.vtkGeneralTransform()
        run.surface.GetParentTransformNode().GetTransformToWorld(to_world)
        moving = vtk.vtkTransformPolyDataFilter()
        moving.SetTransform(to_world)
        moving.SetInputData(run.surface.GetPolyData())
        moving.Update()
        bounds = moving.GetOutput().GetBounds()
        return bounds[1] - bounds[0]

    prediction_display.show_growth(run, 0.0)
    before = extent()
    prediction_display.show_growth(run, 1.0)
    assert before == pytest.approx(24.0, abs=2.0)
    assert extent() == pytest.approx(24.0 / 0.75, abs=2.5)


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


def test_the_table_holds_the_measures_with_their_units(scene: Any, run: Any) -> None:
    table = run.table.GetTable()
    rows = {
        table.GetValue(r, 0).ToString(): table.GetValue(r, 1).ToDouble() for r in range(table.GetNumberOfRows())
    }
    assert rows["Baseline volume"] == pytest.approx(run.result["baseline"]["volume_ml"])
    assert rows["Growth"] == pytest.approx(run.result["growth"]["absolute_ml"])
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
    import json

    result = write_result(tmp_path / "result", "LPS")
    result["growth"] = result["followup"] = None
    (tmp_path / "result" / "prediction.json").write_text(json.dumps(result))
    for name in ("followup-mask", "followup-ct", "displacement"):
        (tmp_path / "result" / f"{name}.nii.gz").unlink()
    empty = sitk.ReadImage(tmp_path / "result" / "baseline-mask.nii.gz") * 0
    sitk.WriteImage(empty, tmp_path / "result" / "baseline-mask.nii.gz")
    scan = node_images.volume_from_image(ct(grid("LPS")), "scan")
    run = prediction_nodes.add_prediction(tmp_path / "result", scan)
    assert run.nodes == [run.table]
    prediction_display.show_growth(run, 0.5)
    prediction_display.apply_look(run, prediction_display.Look())
    prediction_display.look_at(run)


def test_a_saved_scene_shows_its_result_again(scene: Any, run: Any, tmp_path: Path) -> None:
    result, predicted = run.result, segment_image(run, PREDICTED)
    field = sitk.GetArrayFromImage(prediction_nodes.prediction_of(run).growth.displacement)
    prediction_display.show_growth(run, 0.3)  # saved while the slider was elsewhere
    saved = tmp_path / "scene.mrb"
    assert scene.WriteToMRB(str(saved))
    scene.Clear(0)
    assert not PredictionRun.in_scene()
    assert scene.ReadFromMRB(str(saved))
    (again,) = PredictionRun.in_scene()
    assert again.result == result
    assert overlap(segment_image(again, PREDICTED), predicted) == 1.0
    restored = sitk.GetArrayFromImage(prediction_nodes.prediction_of(again).growth.displacement)
    np.testing.assert_allclose(restored, field, atol=1e-4)
    prediction_display.show_growth(again, 1.0)
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
    for name in ("baseline-mask", "followup-mask"):
        written = sitk.ReadImage(folder / f"{name}.nii.gz")
        original = sitk.ReadImage(tmp_path / "result" / f"{name}.nii.gz")
        np.testing.assert_array_equal(sitk.GetArrayFromImage(written), sitk.GetArrayFromImage(original))
        assert same_place(written, original)
    assert {"report.pdf", "overlay.png", "measures.csv", "prediction.json"} <= {f.name for f in folder.iterdir()}
    assert "Growth," in (folder / "measures.csv").read_text()


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
    written = json.loads((exported(run, tmp_path, qt_loop) / "prediction.json").read_text())
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
        clinical=ClinicalData(recurrent=False, warfarin=True, intraventricular=False),
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
    prediction_display.show_growth(run, 0.0)
    flat = slice_picture(application, run)
    small = surface_picture(application, run)
    prediction_display.show_growth(run, 1.0)
    large = surface_picture(application, run)
    red, green, blue = (flat[..., k].astype(int) for k in range(3))
    assert np.count_nonzero((red > 180) & (green > 100) & (blue < 100)) > 50, "the hematoma now"
    assert np.count_nonzero((red > 180) & (green < 110) & (blue < 140)) > 50, "the hematoma as predicted"
    orange = [np.count_nonzero(p[..., 0].astype(int) > p[..., 2].astype(int) + 40) for p in (small, large)]
    assert orange[1] > 1.3 * orange[0]
