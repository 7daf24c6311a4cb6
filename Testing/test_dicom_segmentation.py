"""Masks in DICOM SEG: the named segment in its place, whatever the frames' order and whichever are left out."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from HematomaExpansionLib.errors import InputError, MissingLibraryError
from HematomaExpansionLib.scan.grid import Grid
from HematomaExpansionLib.scan.head_ct import read_head_ct
from HematomaExpansionLib.scan.mask_files import read_mask, read_mask_file
from phantoms import head_grid, head_hu, head_image, positions, volume_ml, voxels, write_dicom_series, write_slices

highdicom = pytest.importorskip("highdicom")

SPACING = (2.0, 2.0, 4.0)
BALL_MM = 18.0
BALL_ML = 4 / 3 * np.pi * BALL_MM**3 / 1000
CENTER = (12.0, -6.0, 4.0)
TILT = np.radians(18.5)
_TURNED = sitk.Euler3DTransform((0, 0, 0), 0.3, -0.2, 0.4).GetMatrix()
GRIDS = {
    "straight": head_grid(SPACING),
    "oblique": head_grid(SPACING, _TURNED, (240.0, 280.0, 220.0)),
    "flipped": head_grid(SPACING, (-1.0, 0, 0, 0, 1, 0, 0, 0, -1)),
}
_PATIENT = {"PatientID": "", "PatientName": "", "PatientBirthDate": "", "PatientSex": "", "AccessionNumber": ""}
_STUDY = {"StudyID": "", "StudyDate": "", "StudyTime": "", "ReferringPhysicianName": "", "SliceThickness": 4.0}


def ball(points: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(points - np.array(CENTER), axis=-1) <= BALL_MM)


def write_segmentation(
    files: list[Path], segments: Mapping[str, np.ndarray], path: Path, kind: str = "BINARY", shuffle: bool = False
) -> Path:
    """Segments (slice, row, column) on a series' slices; empty frames are left out."""
    code = highdicom.sr.CodedConcept
    segmentation = highdicom.seg.Segmentation(
        source_images=[pydicom.dcmread(file) for file in files],
        pixel_array=np.stack([*segments.values()], axis=-1).astype(np.uint8),
        segmentation_type=kind,
        segment_descriptions=[
            highdicom.seg.SegmentDescription(
                segment_number=number,
                segment_label=name,
                segmented_property_category=code("49755003", "SCT", "Morphologically Altered Structure"),
                segmented_property_type=code("35566002", "SCT", "Hematoma"),
                algorithm_type="MANUAL",
            )
            for number, name in enumerate(segments, start=1)
        ],
        series_instance_uid=highdicom.UID(),
        series_number=2,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="none",
        manufacturer_model_name="none",
        software_versions="1",
        device_serial_number="1",
    )
    if shuffle:
        order = np.random.default_rng(0).permutation(segmentation.NumberOfFrames)
        frames = segmentation.pixel_array[order]
        groups = segmentation.PerFrameFunctionalGroupsSequence
        segmentation.PerFrameFunctionalGroupsSequence = pydicom.Sequence([groups[int(i)] for i in order])
        segmentation.PixelData = pydicom.pixels.pack_bits(frames)
    segmentation.save_as(path)
    return path


def write_series(grid: Grid, folder: Path) -> list[Path]:
    return write_dicom_series(head_image(grid), folder, **_PATIENT, **_STUDY)


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> tuple[Grid, list[Path]]:
    grid = GRIDS["straight"]
    return grid, write_series(grid, tmp_path_factory.mktemp("series") / "scan")


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_the_named_segment_lies_where_it_was_drawn(grid: Grid, kind: str, tmp_path: Path) -> None:
    files = write_series(grid, tmp_path / "scan")
    points = positions(grid)
    hematoma = ball(points)
    around = ~hematoma & (np.linalg.norm(points - np.array(CENTER), axis=-1) < 27)
    segments = {"edema": around, "Hematoma": hematoma}
    path = write_segmentation(files, segments, tmp_path / "mask.dcm", kind, shuffle=kind == "BINARY")
    scan = read_head_ct(tmp_path / "scan")
    with pytest.raises(InputError, match=r"2 labels: 1 \(edema\), 2 \(Hematoma\)\."):
        read_mask(path, scan)
    for label in ("hematoma", "2"):
        read = read_mask(path, scan, label)
        assert voxels(read).sum() == hematoma.sum()
        np.testing.assert_array_equal(voxels(read), ball(positions(scan.grid)))
    assert volume_ml(read_mask_file(path, "hematoma")) == pytest.approx(hematoma.sum() * grid.voxel_volume_ml)


def test_segments_that_overlap_are_kept_apart(series: tuple[Grid, list[Path]], tmp_path: Path) -> None:
    grid, files = series
    inside = ball(positions(grid))
    everything = np.ones_like(inside)
    path = write_segmentation(files, {"head": everything, "hematoma": inside}, tmp_path / "mask.dcm")
    read = read_mask(path, read_head_ct(files[0].parent), "hematoma")
    np.testing.assert_array_equal(voxels(read), inside)


def test_the_only_segment_is_the_hematoma_even_with_slices_left_out(
    series: tuple[Grid, list[Path]], tmp_path: Path
) -> None:
    grid, files = series
    inside = ball(positions(grid))
    inside[[18, 19, 21]] = False
    path = write_segmentation(files, {"bleed": inside}, tmp_path / "mask.dcm", shuffle=True)
    assert pydicom.dcmread(path).NumberOfFrames == inside.any(axis=(1, 2)).sum()
    read = read_mask(path, read_head_ct(files[0].parent))
    np.testing.assert_array_equal(voxels(read), inside)


def test_a_single_frame_is_enough(series: tuple[Grid, list[Path]], tmp_path: Path) -> None:
    grid, files = series
    inside = ball(positions(grid))
    inside[:20] = inside[21:] = False
    path = write_segmentation(files, {"bleed": inside}, tmp_path / "mask.dcm")
    read = read_mask(path, read_head_ct(files[0].parent))
    np.testing.assert_array_equal(voxels(read), inside)


def test_slices_of_a_tilted_gantry_keep_their_places(tmp_path: Path) -> None:
    row, column = np.array([1.0, 0.0, 0.0]), np.array([0.0, np.cos(TILT), -np.sin(TILT)])
    pixel, size = 1.6, 144
    y, x = np.mgrid[:size, :size] * pixel
    corners = [np.array([0.0, 0.0, z]) - (row + column) * pixel * (size - 1) / 2 for z in np.arange(-76, 77, 4.0)]
    points = [corner + x[..., None] * row + y[..., None] * column for corner in corners]
    slices = [(corner, head_hu(plane)) for corner, plane in zip(corners, points, strict=True)]
    files = write_slices(slices, row, column, (pixel, pixel), tmp_path / "scan", **_PATIENT, **_STUDY)
    inside = np.stack([ball(plane) for plane in points])
    path = write_segmentation(files, {"bleed": inside}, tmp_path / "mask.dcm")
    scan = read_head_ct(tmp_path / "scan")
    assert scan.resampled
    read = read_mask(path, scan)
    assert volume_ml(read) == pytest.approx(BALL_ML, rel=0.04)
    places = positions(scan.grid)[voxels(read)]
    np.testing.assert_allclose(places.mean(axis=0), CENTER, atol=0.4)


def test_unevenly_spaced_slices_are_refused(series: tuple[Grid, list[Path]], tmp_path: Path) -> None:
    grid, files = series
    path = write_segmentation(files, {"bleed": ball(positions(grid))}, tmp_path / "mask.dcm")
    segmentation = pydicom.dcmread(path)
    position = segmentation.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence[0]
    position.ImagePositionPatient[2] += 1.5
    segmentation.save_as(path)
    with pytest.raises(InputError, match="unevenly spaced"):
        read_mask(path, read_head_ct(files[0].parent))


def test_a_folder_is_searched_for_the_one_segmentation(series: tuple[Grid, list[Path]], tmp_path: Path) -> None:
    grid, files = series
    scan = read_head_ct(files[0].parent)
    inside = ball(positions(grid))
    with pytest.raises(InputError, match=r"no segmentation \(SEG\)"):
        read_mask(files[0].parent, scan)
    with pytest.raises(InputError, match="without a DICOM segmentation"):
        read_mask(tmp_path, scan)
    folder = tmp_path / "study"
    folder.mkdir()
    for file in files[:3]:
        (folder / file.name).write_bytes(file.read_bytes())
    write_segmentation(files, {"bleed": inside}, folder / "one.dcm")
    np.testing.assert_array_equal(voxels(read_mask(folder, scan)), inside)
    write_segmentation(files, {"bleed": inside}, folder / "two.dcm")
    with pytest.raises(InputError, match="holds 2 DICOM segmentations"):
        read_mask(folder, scan)


def test_contours_and_damaged_files_are_refused(series: tuple[Grid, list[Path]], tmp_path: Path) -> None:
    grid, files = series
    scan = read_head_ct(files[0].parent)
    path = write_segmentation(files, {"bleed": ball(positions(grid))}, tmp_path / "mask.dcm")
    content = path.read_bytes()
    for part in (0.3, 0.9):
        path.write_bytes(content[: int(part * len(content))])
        with pytest.raises(InputError, match="damaged or cut off"):
            read_mask(path, scan)
    contours = pydicom.dcmread(files[0])
    contours.Modality, contours.SOPClassUID = "RTSTRUCT", "1.2.840.10008.5.1.4.1.1.481.3"
    contours.save_as(path)
    with pytest.raises(InputError, match="RTSTRUCT"):
        read_mask(path, scan)


def test_without_highdicom_the_sentence_says_what_to_install(
    series: tuple[Grid, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, files = series
    path = write_segmentation(files, {"bleed": ball(positions(grid))}, tmp_path / "mask.dcm")
    for name in [name for name in sys.modules if name.partition(".")[0] == "highdicom"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingLibraryError, match=r"hematoma-expansion\[dicom\]"):
        read_mask(path, read_head_ct(files[0].parent))
