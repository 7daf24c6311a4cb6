"""Masks with several labels, with probabilities, in Slicer's files: the hematoma is chosen, never merged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from HematomaExpansionLib.anatomy.mask_source import MaskSource
from HematomaExpansionLib.cli.main import main
from HematomaExpansionLib.errors import InputError
from HematomaExpansionLib.scan.grid import Grid, image_on
from HematomaExpansionLib.scan.head_ct import HeadCT, head_ct_from_image
from HematomaExpansionLib.scan.mask_files import mask_on_scan, read_mask, read_mask_file
from phantoms import head_grid, head_image, positions, volume_ml, voxels

SPACING = (2.0, 2.0, 4.0)
_TURNED = sitk.Euler3DTransform((0, 0, 0), 0.3, -0.2, 0.4).GetMatrix()


def ball(grid: Grid, radius: float, x: float = 0.0) -> np.ndarray:
    """Voxels (z, y, x) of a ball around (x, 0, 0) mm."""
    return np.asarray(np.linalg.norm(positions(grid) - (x, 0.0, 0.0), axis=-1) <= radius)


def labels_on(grid: Grid) -> np.ndarray:
    """1: hematoma, a ball of 18 mm; 2: the edema around it."""
    hematoma = ball(grid, 18.0)
    return np.where(hematoma, 1, np.where(ball(grid, 27.0), 2, 0)).astype(np.uint8)


@pytest.fixture(scope="module")
def scan() -> HeadCT:
    return head_ct_from_image(head_image(head_grid(SPACING)))


@pytest.fixture
def label_map(scan: HeadCT, tmp_path: Path) -> Path:
    path = tmp_path / "mask.nii.gz"
    sitk.WriteImage(image_on(scan.grid, labels_on(scan.grid)), str(path))
    return path


# --- labels --------------------------------------------------------------------------------------------


def test_several_labels_are_refused_unless_one_is_named(label_map: Path, scan: HeadCT) -> None:
    with pytest.raises(InputError, match=r"2 labels: 1, 2\. Say which one is the hematoma"):
        read_mask(label_map, scan)
    with pytest.raises(InputError, match="2 labels"):
        read_mask_file(label_map)
    with pytest.raises(InputError, match="2 labels"):
        mask_on_scan(sitk.ReadImage(str(label_map)), scan)
    expected = labels_on(scan.grid) == 1
    np.testing.assert_array_equal(voxels(read_mask(label_map, scan, "1")), expected)
    assert volume_ml(read_mask_file(label_map, "1")) == volume_ml(image_on(scan.grid, expected.astype(np.uint8)))
    for label in ("3", "hematoma", ""):
        with pytest.raises(InputError, match=r"no label .* it holds 1, 2\."):
            read_mask(label_map, scan, label)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint32, np.float32, np.float64])
def test_labels_of_any_type_are_labels(kind: Any, scan: HeadCT) -> None:
    image = image_on(scan.grid, labels_on(scan.grid).astype(kind))
    with pytest.raises(InputError, match="2 labels: 1, 2"):
        mask_on_scan(image, scan)
    assert volume_ml(mask_on_scan(image, scan, "1")) == pytest.approx(24.4, rel=0.05)


@pytest.mark.parametrize("value", [1, 7, 255, 300])
def test_a_mask_of_one_label_is_the_hematoma_whatever_its_number(value: int, scan: HeadCT) -> None:
    inside = ball(scan.grid, 18.0)
    read = mask_on_scan(image_on(scan.grid, inside.astype(np.int16) * value), scan)
    np.testing.assert_array_equal(voxels(read), inside)
    with pytest.raises(InputError, match=f"it holds {value}"):
        mask_on_scan(image_on(scan.grid, inside.astype(np.int16) * value), scan, "4")


def test_probabilities_are_cut_at_a_half(scan: HeadCT) -> None:
    distance = np.linalg.norm(positions(scan.grid), axis=-1)
    smooth = 1 / (1 + np.exp((distance - 18) / 2)).astype(np.float32)
    read = mask_on_scan(image_on(scan.grid, smooth), scan)
    np.testing.assert_array_equal(voxels(read), distance < 18)
    with pytest.raises(InputError, match="probabilities, not labels"):
        mask_on_scan(image_on(scan.grid, smooth), scan, "1")
    with pytest.raises(InputError, match="none of its probabilities is above"):
        mask_on_scan(image_on(scan.grid, smooth * np.float32(0.4)), scan)
    with pytest.raises(InputError, match="neither labels nor probabilities"):
        mask_on_scan(image_on(scan.grid, smooth * 100), scan)
    smooth[3, 3, 3] = np.nan
    with pytest.raises(InputError, match="NaN"):
        mask_on_scan(image_on(scan.grid, smooth), scan)


@pytest.mark.parametrize("offset", [0, 1024], ids=["HU", "stored values"])
def test_a_scan_given_for_a_mask_is_refused(
    offset: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = head_image(head_grid(SPACING), noise_hu=40.0)
    sitk.WriteImage(head + offset, str(tmp_path / "scan.nii.gz"))
    assert main(["measure", "-i", str(tmp_path / "scan.nii.gz")]) == 2
    said = capsys.readouterr()
    assert "as a scan does. Give the hematoma's mask." in said.err
    assert said.out == ""


# --- Slicer's segmentations ----------------------------------------------------------------------------


def slicer_file(
    path: Path, grid: Grid, segments: Sequence[tuple[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Written by Slicer itself: overlapping segments go into layers, and the file holds only their extent."""
    slicer = pytest.importorskip("slicer")
    from HematomaSlicerLib.node_images import labelmap_from_image

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "segments")
    for name, inside in segments:
        labelmap = labelmap_from_image(image_on(grid, inside.astype(np.uint8)))
        node.AddSegmentFromBinaryLabelmapRepresentation(labelmap, name)
    node.GetSegmentation().CollapseBinaryLabelmaps(False)
    storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(path))
    assert storage.WriteData(node) == 1
    return path


GRIDS = {
    "straight": head_grid(SPACING),
    "oblique": head_grid(SPACING, _TURNED, (160.0, 160.0, 160.0)),
    "flipped": head_grid(SPACING, (-1.0, 0, 0, 0, 1, 0, 0, 0, -1)),
}


@pytest.mark.parametrize("overlap", [False, True], ids=["one layer", "layers"])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_segments_of_slicer_are_read_by_name(
    grid: Grid, overlap: bool, scan: HeadCT, scene: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hematoma = ball(grid, 18.0, x=12.0)
    around = ball(grid, 27.0, x=12.0) & (overlap | ~hematoma)
    path = slicer_file(tmp_path / "s.seg.nrrd", grid, [("edema", around), ("Hematoma", hematoma)], monkeypatch)
    is_layered = sitk.ReadImage(str(path)).GetNumberOfComponentsPerPixel() == 2
    assert is_layered == overlap
    with pytest.raises(InputError, match=r"2 labels: 1 \(edema\), \d \(Hematoma\)\."):
        read_mask(path, scan)
    expected = image_on(grid, hematoma.astype(np.uint8))
    assert volume_ml(read_mask_file(path, "hematoma")) == pytest.approx(volume_ml(expected))
    read = read_mask(path, scan, "hematoma")
    assert volume_ml(read) == pytest.approx(volume_ml(expected), rel=0.03)
    points = positions(scan.grid)[voxels(read)]
    np.testing.assert_allclose(points.mean(axis=0), (12.0, 0.0, 0.0), atol=0.3)
    with pytest.raises(InputError, match='no label "tumor"'):
        read_mask(path, scan, "tumor")
    if grid.is_same(scan.grid):
        np.testing.assert_array_equal(voxels(read), hematoma)
    if overlap:
        with pytest.raises(InputError, match='The label "1" matches several'):
            read_mask(path, scan, "1")


def test_the_only_segment_of_slicer_is_the_hematoma(
    scan: HeadCT, scene: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = ball(scan.grid, 18.0)
    path = slicer_file(tmp_path / "s.seg.nrrd", scan.grid, [("bleed", inside)], monkeypatch)
    np.testing.assert_array_equal(voxels(read_mask(path, scan)), inside)
    np.testing.assert_array_equal(voxels(read_mask(path, scan, "Bleed")), inside)


def test_the_panel_passes_on_the_chosen_segment_alone(
    scan: HeadCT, scene: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Segments that do not overlap share one labelmap in Slicer's memory."""
    import slicer
    from HematomaSlicerLib.node_files import Segment, write_segment

    labels = labels_on(scan.grid)
    slicer_file(
        tmp_path / "s.seg.nrrd", scan.grid, [("edema", labels == 2), ("hematoma", labels == 1)], monkeypatch
    )
    node = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    assert node.GetSegmentation().GetNumberOfLayers() == 1
    segment = Segment(node, node.GetSegmentation().GetSegmentIdBySegmentName("hematoma"))
    read = read_mask(write_segment(segment, tmp_path / "mask.nrrd"), scan)
    np.testing.assert_array_equal(voxels(read), labels == 1)


def test_layers_of_an_old_slicer_are_segments(scan: HeadCT, tmp_path: Path) -> None:
    """Before 4.11, there was no Layer and no LabelValue."""
    inside = [ball(scan.grid, 18.0), ball(scan.grid, 27.0)]
    image = image_on(scan.grid, np.stack(inside, axis=-1).astype(np.uint8))
    for number, name in enumerate(("hematoma", "edema")):
        image.SetMetaData(f"Segment{number}_ID", f"id{number}")
        image.SetMetaData(f"Segment{number}_Name", name)
    sitk.WriteImage(image, str(tmp_path / "old.seg.nrrd"))
    for name, expected in zip(("hematoma", "edema"), inside, strict=True):
        read = read_mask(tmp_path / "old.seg.nrrd", scan, name)
        np.testing.assert_array_equal(voxels(read), expected)


# --- the command line ----------------------------------------------------------------------------------


def test_measure_takes_the_label(label_map: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", "-i", str(label_map)]) == 2
    assert "2 labels: 1, 2" in capsys.readouterr().err
    assert main(["measure", "-i", str(label_map), "--label", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["volume_ml"] == pytest.approx(24.4, rel=0.05)


@pytest.fixture
def files(label_map: Path, tmp_path: Path) -> dict[str, str]:
    """A scan and its mask with two labels, as paths."""
    sitk.WriteImage(head_image(head_grid(SPACING), 18.0), str(tmp_path / "scan.nii.gz"))
    return {"scan": str(tmp_path / "scan.nii.gz"), "mask": str(label_map), "out": str(tmp_path / "out")}


def test_predict_takes_the_label(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["predict", "-i", files["scan"], "-o", files["out"], "--device", "cpu"]
    assert main([*arguments, "--mask", files["mask"]]) == 2
    assert "2 labels: 1, 2" in capsys.readouterr().err
    assert main([*arguments, "--label", "1"]) == 2
    assert "give the mask too" in capsys.readouterr().err
    assert not Path(files["out"]).exists()
    assert main([*arguments, "--mask", files["mask"], "--label", "1"]) == 0
    result = json.loads((Path(files["out"]) / "prediction.json").read_text())
    assert result["baseline"]["volume_ml"] == pytest.approx(24.4, rel=0.05)


@pytest.mark.parametrize(
    "arguments",
    [
        "compare --baseline SCAN --followup SCAN --baseline-mask MASK --baseline-label 9",
        "compare --baseline SCAN --followup SCAN --followup-mask MASK --followup-label 9",
        "synthesize -i SCAN --mask MASK --label 9",
        "synthesize -i SCAN --mask MASK --label 1 --followup SCAN --followup-mask MASK --followup-label 9",
    ],
)
def test_each_command_with_a_mask_takes_its_label(
    arguments: str, files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [files.get(word.lower(), word) for word in arguments.split()]
    assert main([*words, "-o", files["out"]]) == 2
    assert 'no label "9"; it holds 1, 2.' in capsys.readouterr().err


def test_lists_have_columns_for_labels(files: dict[str, str], tmp_path: Path) -> None:
    from HematomaExpansionLib.batch.cases import find_cases
    from HematomaExpansionLib.training.data.preparation import prepare_cohort, read_pairs

    (tmp_path / "list.csv").write_text(f"case,scan,mask,label\nP1,{files['scan']},{files['mask']},Hematoma\n")
    assert [case.label for case in find_cases(tmp_path / "list.csv", tmp_path / "out")] == ["Hematoma"]
    columns = "case,baseline,followup,baseline_mask,baseline_label,followup_mask,followup_label"
    line = "{scan},{scan},{mask},{first},{mask},{second}"
    lines = [line.format(**files, first=first, second=second) for first, second in ((9, 1), (1, 8), ("", 1))]
    lines = [f"P{number},{line}" for number, line in enumerate(lines)]
    (tmp_path / "pairs.csv").write_text("\n".join([columns, *lines]))
    prepared = prepare_cohort(
        read_pairs(tmp_path / "pairs.csv"), tmp_path / "cohort", "tests", None, torch.device("cpu")
    )
    reasons = [case.reason for case in prepared]
    assert 'no label "9"' in reasons[0]
    assert 'no label "8"' in reasons[1]
    assert "holds 2 labels" in reasons[2]


def test_a_mask_of_several_labels_in_a_cohort_is_refused(files: dict[str, str], tmp_path: Path) -> None:
    from HematomaExpansionLib.training.data.cohort import has_expanded, read_baseline, read_case

    case = tmp_path / "cohort" / "P1"
    case.mkdir(parents=True)
    for name in ("baseline", "followup"):
        (case / f"{name}.nii.gz").symlink_to(files["scan"])
        (case / f"{name}-mask.nii.gz").symlink_to(files["mask"])
    for read in (
        read_case,
        has_expanded,
        lambda folder: read_baseline(folder, MaskSource("true", torch.device("cpu"))),
    ):
        with pytest.raises(InputError, match="2 labels: 1, 2"):
            read(case)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--cohort FOLDER --mask MASK", "In `hematoma synthesize`, --mask applies only without --cohort"),
        ("-i SCAN --label 1", "In `hematoma synthesize`, --label applies only without --cohort and with --mask"),
        ("-i SCAN --mask MASK --label 1 --followup-mask MASK", "only without --cohort and with --followup"),
    ],
)
def test_synthesize_ignores_no_option(
    arguments: str, sentence: str, files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [files.get(word.lower(), word) for word in arguments.split()]
    assert main(["synthesize", *words, "-o", files["out"]]) == 2
    assert sentence in capsys.readouterr().err
