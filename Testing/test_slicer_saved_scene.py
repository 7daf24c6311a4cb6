"""A saved scene is small, and moves every point as before; Slicer's real MRML libraries save and open it."""

from __future__ import annotations

import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from HematomaExpansionLib.models.package import find_package
from HematomaExpansionLib.output.prediction_folder import write_prediction
from HematomaExpansionLib.prediction import PredictionOptions, predict
from HematomaExpansionLib.scan.grid import Grid, image_on
from HematomaExpansionLib.scan.head_ct import read_head_ct
from phantoms import SAMPLE, positions
from slicer_scene import (
    DIRECTIONS,
    ct,
    grid,
    growth_field,
    overlap,
    save_scene,
    segment_image,
    write_earlier_result,
)

slicer = pytest.importorskip("slicer")
pytest.importorskip("trame_slicer.core")

import vtk  # noqa: E402
from HematomaSlicerLib import node_images, prediction_display, prediction_nodes, scaled_field  # noqa: E402
from HematomaSlicerLib.prediction_nodes import BASELINE, PREDICTED, PredictionRun  # noqa: E402

ORIENTATIONS = list(DIRECTIONS)
_TO_RAS = np.array([-1.0, -1.0, 1.0])


def moved(transform: Any, points: np.ndarray) -> np.ndarray:
    """Where a transform takes points, RAS mm."""
    return np.array([transform.TransformPoint(point) for point in points])


def points_around(where: Grid) -> np.ndarray:
    """Points within a grid and beyond its sides, RAS mm."""
    shares = np.random.default_rng(0).uniform(-0.3, 1.3, (600, 3))
    return np.array([where.point(share * where.size) for share in shares]) * _TO_RAS


@pytest.mark.parametrize("reach_mm", [20.0, 30.0], ids=["inside the grid", "to its sides"])
@pytest.mark.parametrize("direction", ORIENTATIONS)
def test_a_field_cut_to_what_moves_moves_every_point_as_the_whole(
    scene: Any, direction: str, reach_mm: float
) -> None:
    where = grid(direction)
    field = growth_field(where, reach_mm)
    kept = scaled_field.field_of(scaled_field.add_field(field, "field"))
    data = kept.GetDisplacementGrid()
    assert data.GetScalarTypeAsString() == "float"
    moving = np.argwhere(sitk.GetArrayViewFromImage(field).any(axis=-1))
    assert np.all(data.GetDimensions()[::-1] <= np.minimum(np.ptp(moving, axis=0) + 7, where.shape))
    whole = node_images.grid_transform_from_image(field)
    for shown, expected in ((kept, whole), tuple(map(node_images.sharing_the_grid, (kept, whole)))):
        points = points_around(where)
        np.testing.assert_allclose(moved(shown, points), moved(expected, points), atol=1e-5)
    voxels, vectors = (
        array.reshape(-1, 3)[::7] for array in (positions(where), sitk.GetArrayViewFromImage(field))
    )
    np.testing.assert_allclose(moved(kept, voxels * _TO_RAS), (voxels + vectors) * _TO_RAS, atol=1e-5)


def test_a_field_that_moves_nothing_is_kept(scene: Any) -> None:
    where = grid("oblique")
    still = scaled_field.add_field(image_on(where, np.zeros((*where.shape, 3))), "field")
    points = points_around(where)
    np.testing.assert_array_equal(moved(scaled_field.field_of(still), points), points)


@pytest.mark.parametrize("direction", ORIENTATIONS)
def test_a_saved_field_moves_every_point_as_before(scene: Any, direction: str, tmp_path: Path) -> None:
    where = grid(direction)
    field = scaled_field.add_field(growth_field(where, 20.0), "field")
    points = points_around(where)
    forward, back = (
        moved(side, points) for side in (field.GetTransformFromParent(), field.GetTransformToParent())
    )
    assert np.abs(forward - points).max() > 3
    assert save_scene(scene, tmp_path / "scene.mrb")
    scene.Clear(0)
    assert scene.ReadFromMRB(str(tmp_path / "scene.mrb"))
    again = slicer.util.getNode("field")
    np.testing.assert_allclose(moved(again.GetTransformFromParent(), points), forward, atol=1e-4)
    np.testing.assert_allclose(moved(again.GetTransformToParent(), points), back, atol=1e-4)


def files_of(scene: Path) -> dict[str, zipfile.ZipInfo]:
    """What a saved scene holds, by file name."""
    with zipfile.ZipFile(scene) as files:
        return {Path(file.filename).name: file for file in files.infolist()}


@pytest.mark.parametrize(
    "size", [None, pytest.param((512, 512, 160), marks=pytest.mark.slow)], ids=["sample", "thin"]
)
def test_a_saved_prediction_is_small_and_opens_fast(
    scene: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int, int] | None
) -> None:
    pytest.importorskip("torch")
    path = SAMPLE
    if size is not None:
        monkeypatch.syspath_prepend(str(Path(__file__).parent / "benchmarks"))
        from speed import scan_of

        path = tmp_path / "scan.nii.gz"
        sitk.WriteImage(scan_of(size), str(path))
    growth, segmenter, forecast = (find_package(None, task) for task in ("growth", "segmentation", "forecast"))
    options = PredictionOptions(growth, segmenter, forecast, device_name="cpu", keep_outcomes=True)
    write_prediction(predict(read_head_ct(path), options), tmp_path / "result")
    scan = node_images.volume_from_image(sitk.ReadImage(str(path)), "scan")
    run = prediction_nodes.add_prediction(tmp_path / "result", scan)
    displacement = prediction_nodes.prediction_of(run).growth.displacement
    written = sitk.ReadImage(str(tmp_path / "result" / "displacement.nii.gz"))
    np.testing.assert_allclose(*map(sitk.GetArrayViewFromImage, (displacement, written)), atol=1e-4)

    saved = tmp_path / "scene.mrb"
    times = [time.process_time()]  # of this process alone, since tests share the cores
    assert save_scene(scene, saved)
    times.append(time.process_time())
    scene.Clear(0)
    assert scene.ReadFromMRB(str(saved))
    times.append(time.process_time())
    assert max(np.diff(times)) < 5
    files = files_of(saved)
    in_all = sum(file.compress_size for file in files.values())
    assert in_all < 10e6 if size is None else in_all - files["scan.nrrd"].compress_size < 100e6
    assert [name for name in files if "displacement" in name] == ["scan displacement.nii.gz"]
    with zipfile.ZipFile(saved) as bundle:
        assert b"encoding: gzip" in bundle.read(files["scan hematoma.seg.nrrd"])[:20_000]
    (again,) = PredictionRun.in_scene()
    restored = prediction_nodes.prediction_of(again).growth.displacement
    np.testing.assert_allclose(*map(sitk.GetArrayViewFromImage, (restored, written)), atol=1e-4)


def test_a_scene_with_the_whole_field_twice_in_double_precision_opens(scene: Any, tmp_path: Path) -> None:
    """As versions saved it that kept the field shown beside the field."""
    where = grid("oblique")
    write_earlier_result(tmp_path / "earlier", "oblique")
    run = prediction_nodes.add_prediction(tmp_path / "earlier", node_images.volume_from_image(ct(where), "scan"))
    predicted = segment_image(run, PREDICTED)
    whole = node_images.grid_transform_from_image(growth_field(where))
    double = vtk.vtkImageCast()
    double.SetInputData(whole.GetDisplacementGrid())
    double.SetOutputScalarTypeToDouble()
    double.Update()
    whole.SetDisplacementGridData(double.GetOutput())
    run.field.SetAndObserveTransformFromParent(whole)
    prediction_display.show_outcome(run, 0.15)
    run.shown.SetSaveWithScene(True)
    run.field.GetStorageNode().SetDefaultWriteFileExtension("h5")
    assert save_scene(scene, tmp_path / "scene.mrb")
    assert sum(name.endswith(".h5") for name in files_of(tmp_path / "scene.mrb")) == 2
    scene.Clear(0)
    assert scene.ReadFromMRB(str(tmp_path / "scene.mrb"))
    (again,) = PredictionRun.in_scene()
    shown = again.shown.GetID()
    prediction_display.show_outcome(again, 0.5)
    assert again.shown.GetID() == shown == again.surface.GetTransformNodeID()
    segment = again.segmentation.GetSegmentation().GetSegmentIdBySegmentName(BASELINE)
    again.segmentation.SetAndObserveTransformNodeID(shown)
    carried = node_images.image_from_segment(again.segmentation, segment)
    again.segmentation.SetAndObserveTransformNodeID(None)
    assert overlap(carried, predicted) >= 0.96
    displacement = prediction_nodes.prediction_of(again).growth.displacement
    np.testing.assert_allclose(
        sitk.GetArrayFromImage(displacement), sitk.GetArrayFromImage(growth_field(where)), atol=1e-4
    )
