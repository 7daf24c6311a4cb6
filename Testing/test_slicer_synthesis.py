"""Synthetic variants and simulated patients in Slicer's real MRML scene."""

from __future__ import annotations

import json
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from HematomaExpansionLib.cli.main import main
from HematomaExpansionLib.errors import InputError
from HematomaExpansionLib.scan.grid import Grid, image_on
from HematomaExpansionLib.scan.shapes import signed_distance
from HematomaExpansionLib.training.data.cohort import read_case, with_variants
from slicer_scene import added_by, drawn, end_of, nodes, overlap, save_scene, segment_image

slicer = pytest.importorskip("slicer")
pytest.importorskip("trame_slicer.core")

import vtk  # noqa: E402
from HematomaSlicerLib import node_images  # noqa: E402
from HematomaSlicerLib.node_files import Segment  # noqa: E402
from HematomaSlicerLib.scene_nodes import folder_of  # noqa: E402
from HematomaSynthesisLib.target_shapes import TargetOptions  # noqa: E402
from HematomaSynthesisSlicerLib import patient_nodes, target_preview, variant_display, variant_nodes  # noqa: E402
from HematomaSynthesisSlicerLib.variant_nodes import ORIGINAL, VariantSet, add_variants, variant_name  # noqa: E402
from phantoms import volume_ml  # noqa: E402

pytestmark = pytest.mark.usefixtures("each_brain_found_once")


@pytest.fixture(scope="module")
def variants_case(case_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulated patient's case with two variants."""
    folder = tmp_path_factory.mktemp("variants") / "case"
    arguments = [f"--input={case_folder}/baseline.nii.gz", f"--mask={case_folder}/baseline-mask.nii.gz"]
    assert main(["synthesize", *arguments, "-o", str(folder), "--variants", "2", "--in-plane", "--seed", "3"]) == 0
    return folder


def image(folder: Path, name: str) -> sitk.Image:
    return sitk.ReadImage(str(folder / f"{name}.nii.gz"))


def array(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image)


@pytest.fixture
def variants(scene: Any, variants_case: Path) -> VariantSet:
    return add_variants(variants_case, node_images.volume_from_image(image(variants_case, "baseline"), "scan"))


def test_the_variants_lie_in_the_scene_as_they_were_made(variants: VariantSet, variants_case: Path) -> None:
    assert variants.baseline is None, "they lie on the user's own scan"
    assert len(variants.descriptions) == 2
    original = image(variants_case, "baseline-mask")
    assert overlap(segment_image(variants, ORIGINAL), original) == 1.0
    for index, description in enumerate(variants.descriptions):
        folder = variants_case / "variants" / str(index + 1)
        assert description == json.loads((folder / "variant.json").read_text())
        np.testing.assert_array_equal(
            array(node_images.image_from_volume(variants.volume(index))), array(image(folder, "baseline"))
        )
        found = segment_image(variants, variant_name(index))
        assert overlap(found, image(folder, "baseline-mask")) == 1.0
        assert volume_ml(found) == pytest.approx(description["volume_ml"])
        field = variants.field(index).GetTransformFromParentAs("vtkOrientedGridTransform", False, True)
        stored, kept = image(folder, "displacement"), node_images.image_from_grid_transform(field)
        np.testing.assert_allclose(array(sitk.Resample(kept, stored)), array(stored), atol=1e-6)
    assert variants.table.GetNumberOfRows() == 2
    assert variants.table.GetColumnUnitLabel("Volume") == "mL"


def test_a_scan_whose_grid_was_made_straight_gets_its_own_baseline(scene: Any, variants_case: Path) -> None:
    baseline = image(variants_case, "baseline")
    turned = sitk.DICOMOrient(baseline, "RAS")  # the same voxels, in another order
    assert add_variants(variants_case, node_images.volume_from_image(turned, "turned")).baseline is None
    coarse = sitk.Resample(baseline, [60, 60, 20], sitk.Transform(), sitk.sitkLinear, baseline.GetOrigin())
    made = add_variants(variants_case, node_images.volume_from_image(coarse, "coarse"))
    assert made.background is made.baseline
    assert Grid.of(node_images.image_from_volume(made.baseline)).is_same(Grid.of(baseline))


@pytest.mark.parametrize("index", [0, 1])
def test_the_slider_leads_from_the_original_to_the_variant(
    variants: VariantSet, variants_case: Path, index: int
) -> None:
    baseline, variant = (
        array(image(folder, "baseline")).astype(float)
        for folder in (variants_case, variants_case / "variants" / str(index + 1))
    )
    changed = np.abs(variant - baseline) > 3
    assert changed.sum() > 500
    distance = {}
    for share in (0.0, 0.5, 1.0):
        variant_display.show_variant(variants, index, share, grid=True)
        moved = array(node_images.image_from_volume(variants.moving)).astype(float)
        distance[share] = np.abs(moved - variant)[changed].mean()
    moved_outline = variants.outline.GetTransformNodeID()
    assert moved_outline == variants.shown.GetID()
    assert distance[0.0] > 1.5 * distance[0.5] > 3 * distance[1.0]
    assert distance[1.0] < 1.0, "at its end the way leads to the variant"
    shown = [
        variants.segmentation.GetDisplayNode().GetSegmentVisibility(variants.segment_id(variant_name(k)))
        for k in (0, 1)
    ]
    assert shown == [index == 0, index == 1]


def test_removed_variants_leave_nothing_behind(scene: Any, variants_case: Path) -> None:
    scan = node_images.volume_from_image(image(variants_case, "baseline"), "scan")
    hierarchy = scene.GetSubjectHierarchyNode()
    before, items = nodes(scene), hierarchy.GetNumberOfItems()
    made = add_variants(variants_case, scan)
    variant_display.show_variant(made, 1, 0.5, grid=False)
    assert VariantSet.in_scene() == [made]
    made.remove()
    assert nodes(scene) == before
    assert hierarchy.GetNumberOfItems() == items


def test_a_set_whose_nodes_were_removed_says_so(variants: VariantSet) -> None:
    slicer.mrmlScene.RemoveNode(variants.field(1))
    with pytest.raises(node_images.NodeError, match="removed"):
        variant_display.show_variant(variants, 0, 1.0, grid=True)


def test_a_broken_result_leaves_the_scene_as_it_was(scene: Any, variants_case: Path, tmp_path: Path) -> None:
    shutil.copytree(variants_case, tmp_path / "case")
    (tmp_path / "case" / "variants" / "2" / "displacement.nii.gz").unlink()
    scan = node_images.volume_from_image(image(variants_case, "baseline"), "scan")
    before = nodes(scene)
    with pytest.raises(RuntimeError):
        add_variants(tmp_path / "case", scan)
    assert nodes(scene) == before


def test_a_saved_scene_holds_its_variants(scene: Any, variants: VariantSet, tmp_path: Path) -> None:
    variants.keep(0, False)
    variant_display.show_variant(variants, 1, 0.3, grid=True)
    field = array(
        node_images.image_from_grid_transform(
            variants.field(1).GetTransformFromParentAs("vtkOrientedGridTransform", False, True)
        )
    )
    descriptions = variants.descriptions
    target_preview.show_target(
        Segment(variants.segmentation, variants.segment_id(ORIGINAL)), TargetOptions(in_plane=True), 1
    )
    assert save_scene(scene, tmp_path / "scene.mrb")
    with zipfile.ZipFile(tmp_path / "scene.mrb") as files:
        fields = [name for name in files.namelist() if Path(name).name.endswith((".nii.gz", ".h5"))]
    assert len(fields) == 2, "each variant's own, not the one shown once more"
    scene.Clear(0)
    assert scene.ReadFromMRB(str(tmp_path / "scene.mrb"))
    (again,) = VariantSet.in_scene()
    assert again.descriptions == descriptions
    assert again.kept == [False, True]
    variant_display.show_variant(again, 1, 1.0, grid=True)
    transform = again.field(1).GetTransformFromParentAs("vtkOrientedGridTransform", False, True)
    np.testing.assert_allclose(array(node_images.image_from_grid_transform(transform)), field, atol=1e-4)
    for node in (again.moving, again.outline):
        assert node.GetParentTransformNode() is again.shown
    hierarchy = scene.GetSubjectHierarchyNode()
    children = vtk.vtkIdList()
    hierarchy.GetItemChildren(folder_of(again.table), children)
    inside = [hierarchy.GetItemDataNode(children.GetId(k)) for k in range(children.GetNumberOfIds())]
    assert set(inside) == {node for node in again.nodes if node is not again.shown}, "no item without a node"
    names = [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")]
    assert len(names) == 1, "the preview is not saved"


def clinical_scan() -> tuple[sitk.Image, sitk.Image]:
    """A scan of clinical size with a ball of 20 mL in it: 512 × 512 × 30 voxels of 0.45 × 0.45 × 5 mm."""
    grid = Grid((512, 512, 30), (0.45, 0.45, 5.0), (-115.0, -110.0, 20.0), (1.0, 0, 0, 0, 1, 0, 0, 0, 1))
    z, y, x = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij", sparse=True)
    ball = ((x - 300) * 0.45) ** 2 + ((y - 240) * 0.45) ** 2 + ((z - 14) * 5.0) ** 2 < 16.8**2
    return image_on(grid, (34 + 28 * ball).astype(np.int16)), image_on(grid, ball.astype(np.uint8))


def test_the_target_appears_at_once_and_is_the_one_that_is_aimed_at(scene: Any) -> None:
    _, mask = clinical_scan()
    segment = drawn(scene, mask)
    before = nodes(scene)
    seconds = []
    for seed in range(4):
        started = time.perf_counter()
        node = target_preview.show_target(segment, TargetOptions(iterations=2, in_plane=seed % 2 == 1), seed)
        seconds.append(time.perf_counter() - started)
        (segment_id,) = node.GetSegmentation().GetSegmentIDs()
        target = node_images.image_from_segment(node, segment_id)
        assert 0.6 <= volume_ml(target) / volume_ml(mask) < 1
        outside = sitk.Resample(signed_distance(mask), target) < -2.5  # half a slice
        assert not np.any(array(outside)[array(target) > 0])
    assert min(seconds) < 0.3
    target_preview.hide_target()
    assert nodes(scene) == before


def test_a_hematoma_that_cannot_be_changed_gets_its_sentence_in_the_preview(scene: Any) -> None:
    _, mask = clinical_scan()
    speck = array(mask) * 0
    speck[14, 240, 300] = 1
    with pytest.raises(InputError, match="too small"):
        target_preview.show_target(drawn(scene, image_on(Grid.of(mask), speck)), TargetOptions(), 1)
    target_preview.hide_target()


def exported(variants: VariantSet, case: Path | patient_nodes.SimulatedPair, cohort: Path, qt_loop: Any) -> Path:
    """The case to which a background command exported variants, with a follow-up from files or from the scene."""
    from HematomaSynthesisSlicerLib.pair_export import start_export

    if isinstance(case, Path):
        followup = node_images.volume_from_image(image(case, "followup"), "later")
        hematoma = drawn(slicer.mrmlScene, image(case, "followup-mask"))
    else:
        followup, hematoma = case.followup, case.followup_hematoma
    return added_by(qt_loop, start_export, variants, followup, hematoma, cohort)


def test_the_kept_variants_become_a_case_for_training(
    variants: VariantSet, qt_loop: Any, case_folder: Path, variants_case: Path, tmp_path: Path
) -> None:
    variants.keep(0, False)
    (tmp_path / "case-001").mkdir()
    (tmp_path / "case-001" / "somebody's").touch()
    folder = exported(variants, case_folder, tmp_path, qt_loop)
    assert folder.name == "case-002", "nothing is overwritten"
    original, variant = (read_case(path) for path in with_variants([folder]))
    true = read_case(case_folder)
    np.testing.assert_array_equal(array(original.baseline.ct), array(true.baseline.ct))
    np.testing.assert_array_equal(original.baseline.hematoma.voxels, true.baseline.hematoma.voxels)
    kept = variants_case / "variants" / "2"
    np.testing.assert_array_equal(array(variant.baseline.ct), array(image(kept, "baseline")))
    np.testing.assert_array_equal(variant.baseline.hematoma.voxels, array(image(kept, "baseline-mask")) > 0)
    assert json.loads((folder / "variants" / "1" / "variant.json").read_text()) == variants.descriptions[1]
    assert json.loads((folder / "case.json").read_text())["source"] == "patients"


def test_nothing_kept_is_nothing_exported(
    variants: VariantSet, qt_loop: Any, case_folder: Path, tmp_path: Path
) -> None:
    for index in (0, 1):
        variants.keep(index, False)
    with pytest.raises(node_images.NodeError, match="kept"):
        exported(variants, case_folder, tmp_path, qt_loop)
    variants.keep(0, True)
    slicer.mrmlScene.RemoveNode(variants.volume(0))
    with pytest.raises(node_images.NodeError, match="Variant 1"):
        exported(variants, case_folder, tmp_path, qt_loop)
    assert list(tmp_path.iterdir()) == []


def test_a_simulated_patient_is_known_as_one(scene: Any, case_folder: Path, tmp_path: Path) -> None:
    pair = patient_nodes.add_patient(case_folder)
    for segment, name in ((pair.baseline_hematoma, "baseline"), (pair.followup_hematoma, "followup")):
        found = node_images.image_from_segment(segment.node, segment.segment_id)
        assert overlap(found, image(case_folder, f"{name}-mask")) == 1.0
    known = json.loads((case_folder / "case.json").read_text())
    assert patient_nodes.known_of(pair.baseline) == known
    assert known["source"] == "simulated"
    assert patient_nodes.show_same_patient(pair.baseline, pair.followup)
    other = patient_nodes.add_patient(case_folder)
    assert not patient_nodes.show_same_patient(pair.baseline, other.followup)


def test_an_exported_case_of_a_simulated_patient_says_all_that_is_known_of_it(
    scene: Any, qt_loop: Any, case_folder: Path, variants_case: Path, tmp_path: Path
) -> None:
    pair = patient_nodes.add_patient(case_folder)
    made = variant_nodes.add_variants(variants_case, pair.baseline)
    known = json.loads((case_folder / "case.json").read_text())
    folder = exported(made, pair, tmp_path, qt_loop)
    assert json.loads((folder / "case.json").read_text()) == known
    other = patient_nodes.add_patient(case_folder)
    folder = exported(made, other, tmp_path, qt_loop)
    told = json.loads((folder / "case.json").read_text())
    assert (told["source"], told["onset_hours"]) == ("simulated", known["onset_hours"])
    assert told["registered"] is False, "the follow-up is another patient's"
    assert "followup_ml" not in told


def test_variants_and_patients_are_made_in_the_background(
    scene: Any, qt_loop: Any, case_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from HematomaSynthesisSlicerLib import synthesis_jobs

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    request = synthesis_jobs.PatientRequest(
        seed=5, site="lobar", volume=20.0, growth=9.0, irregularity=0.1, noise=3.0, slice_thickness=10.0
    )
    pair = added_by(qt_loop, synthesis_jobs.start_patient, request)
    before, after = (
        volume_ml(node_images.image_from_segment(segment.node, segment.segment_id))
        for segment in (pair.baseline_hematoma, pair.followup_hematoma)
    )
    assert before == pytest.approx(20.0, rel=0.1)
    assert after - before == pytest.approx(9.0, abs=1.5)
    assert pair.baseline.GetSpacing()[2] == pytest.approx(10.0)
    fractions: list[float] = []
    start = synthesis_jobs.start_variants
    request = synthesis_jobs.VariantRequest(pair.baseline, pair.baseline_hematoma, 1, in_plane=True, seed=2)
    variants = added_by(
        qt_loop, start, request, told=lambda _command, _stage, fraction: fractions.append(fraction)
    )
    assert fractions[-1] == 1.0
    assert variants.descriptions[0]["original_ml"] == pytest.approx(before, rel=0.01)
    present = nodes(scene)
    outcome, added = end_of(qt_loop, start, request, told=lambda command, *_: command.cancel())
    assert outcome.canceled
    assert added is None
    assert nodes(scene) == present
    assert not list(tmp_path.glob(".unfinished-*"))


def test_the_real_views_show_original_variant_and_deformation_each_in_its_own(
    new_application: Callable[[], Any], variants_case: Path
) -> None:
    from slicer_pictures import variant_pictures

    application = new_application()
    scan = node_images.volume_from_image(image(variants_case, "baseline"), "scan")
    pictures = variant_pictures(application, add_variants(variants_case, scan))
    mask, target, deformation, original, variant = (picture.astype(int) for picture in pictures.values())
    assert original.any()

    def colored(picture: np.ndarray) -> int:
        return np.count_nonzero(picture.max(axis=-1) - picture.min(axis=-1) > 40)

    assert colored(original) < 50, "nothing is drawn over the original"
    assert colored(variant) < 50
    assert colored(deformation) > 200, "arrows"
    assert colored(mask) > 1000
    assert colored(target) < 0.7 * colored(mask), "the target covers most of the mask"
    assert np.abs(variant - original).max(axis=-1).mean() > 0.05
