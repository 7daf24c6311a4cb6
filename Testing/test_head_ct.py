"""Reading scans: true geometry from whatever was stored, and a sentence for whatever is not a head CT."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from HematomaExpansionLib.errors import InputError
from HematomaExpansionLib.scan.grid import Grid, image_on
from HematomaExpansionLib.scan.head_ct import HeadCT, head_ct_from_image, read_head_ct
from HematomaExpansionLib.scan.mask_files import mask_on_scan, read_mask, read_mask_file
from phantoms import (
    STRAIGHT,
    head_grid,
    head_hu,
    head_image,
    positions,
    volume_ml,
    voxels,
    write_dicom_series,
    write_slices,
)

TILT = np.deg2rad(18.5)
SPHERE_MM = 25.0
SPHERE_ML = 4 / 3 * np.pi * SPHERE_MM**3 / 1000
UNEVEN = np.cumsum([0.0] + 14 * [4.22] + [1.14] + 13 * [7.38])


def blood_ml(image: sitk.Image) -> float:
    """Volume of the voxels nearer to the blood's 65 HU than to the brain's 33."""
    hu = sitk.GetArrayViewFromImage(image)
    smooth = sitk.GetArrayFromImage(sitk.DiscreteGaussian(image, 1.0))
    return (
        float(((smooth > 49) & (hu < 200) & (_distance_from_center(image) < 45)).sum())
        * Grid.of(image).voxel_volume_ml
    )


def _distance_from_center(image: sitk.Image) -> np.ndarray:
    return np.linalg.norm(positions(Grid.of(image)), axis=-1)


def tilted_series(folder: Path, along_table: np.ndarray) -> Path:
    """A head with a ball of blood at the origin, scanned with a tilted gantry at those table positions in mm."""
    row = np.array([1.0, 0.0, 0.0])
    column = np.array([0.0, np.cos(TILT), -np.sin(TILT)])
    pixel, size = 1.6, 144
    slices = []
    for z in along_table - along_table.mean():
        corner = np.array([0.0, 0.0, z]) - (row + column) * pixel * (size - 1) / 2
        y, x = np.mgrid[:size, :size] * pixel
        points = corner + x[..., None] * row + y[..., None] * column
        slices.append((corner, head_hu(points, sphere_mm=SPHERE_MM)))
    write_slices(slices, row, column, (pixel, pixel), folder)
    return folder


@pytest.mark.parametrize("along_table", [UNEVEN, np.arange(0, 155, 4.0)], ids=["uneven", "even"])
def test_a_tilted_series_comes_out_in_true_geometry(along_table: np.ndarray, tmp_path: Path) -> None:
    scan = read_head_ct(tilted_series(tmp_path / "series", along_table))
    assert scan.resampled
    assert any("18.5 degrees" in warning for warning in scan.warnings)
    direction = np.array(scan.image.GetDirection()).reshape(3, 3)
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-6)
    assert blood_ml(scan.image) == pytest.approx(SPHERE_ML, rel=0.03)
    hu = sitk.GetArrayFromImage(scan.image)
    blood = (hu > 55) & (hu < 100) & (_distance_from_center(scan.image) < 40)
    points = positions(scan.grid)[blood]
    np.testing.assert_allclose(points.mean(axis=0), 0.0, atol=0.4)
    for axis in np.eye(3):  # equally long in every direction: neither sheared nor stretched
        assert np.ptp(points @ axis) == pytest.approx(2 * SPHERE_MM, abs=4.5)
    for diagonal in ([0, 1, 1], [0, 1, -1]):
        assert (points @ diagonal).std() == pytest.approx(points[:, 0].std() * np.sqrt(2), rel=0.04)


def test_uneven_distances_are_named_and_the_dense_part_keeps_its_spacing(tmp_path: Path) -> None:
    scan = read_head_ct(tilted_series(tmp_path / "series", UNEVEN))
    assert any("1.1 to 7.0 mm" in warning for warning in scan.warnings)
    assert scan.image.GetSpacing()[2] == pytest.approx(4.22 * np.cos(TILT), abs=0.01)


@pytest.mark.parametrize("direction", [STRAIGHT, sitk.Euler3DTransform((0, 0, 0), 0.2, 0.1, -0.2).GetMatrix()])
def test_an_even_series_keeps_every_voxel(direction: tuple[float, ...], tmp_path: Path) -> None:
    image = head_image(head_grid(direction=direction))
    write_dicom_series(image, tmp_path / "series")
    (tmp_path / "series" / "LICENSE.txt").write_text("not an image")
    scan = read_head_ct(tmp_path / "series")
    assert not scan.resampled
    assert scan.warnings == ()
    stored = scan.restore(scan.image)
    assert Grid.of(stored).is_same(Grid.of(image))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(stored), np.maximum(sitk.GetArrayFromImage(image), -1024))


def test_rescaling_and_padding_are_honored(tmp_path: Path) -> None:
    image = head_image(head_grid(), noise_hu=0)
    hu = sitk.GetArrayFromImage(image).astype(np.int32)
    stored = (hu + 1024) // 2
    stored[:, :10, :10] = -1500
    shifted = image_on(Grid.of(image), stored.astype(np.int16))
    write_dicom_series(
        shifted, tmp_path / "series", RescaleSlope=2, RescaleIntercept=-1024, PixelPaddingValue=-1500
    )
    read = sitk.GetArrayFromImage(read_head_ct(tmp_path / "series").image)
    np.testing.assert_allclose(read[:, 12:, 12:], hu[:, 12:, 12:], atol=1)
    assert (read[:, :10, :10] == -1024).all()


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize("orientation", ["LPS", "RAI", "PIR"])
def test_files_of_any_axis_order_are_the_same_scan(suffix: str, orientation: str, tmp_path: Path) -> None:
    direction = sitk.Euler3DTransform((0, 0, 0), 0.1, -0.15, 0.2).GetMatrix()
    image = head_image(head_grid(direction=direction))
    stored = sitk.DICOMOrient(image, orientation)
    sitk.WriteImage(stored, str(tmp_path / f"scan{suffix}"))
    scan = read_head_ct(tmp_path / f"scan{suffix}")
    assert not scan.resampled
    assert scan.grid.is_same(Grid.of(image))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(scan.image), sitk.GetArrayFromImage(image))
    assert Grid.of(scan.restore(scan.image)).is_same(Grid.of(stored))


def test_vectors_come_back_in_the_stored_order() -> None:
    stored = sitk.DICOMOrient(head_image(head_grid()), "PIR")
    scan = head_ct_from_image(stored)
    field = image_on(scan.grid, positions(scan.grid))
    restored = scan.restore(field)
    np.testing.assert_allclose(restored.GetPixel(3, 4, 5), Grid.of(stored).point((3, 4, 5)))


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_sheared_image_is_resolved(mirrored: bool) -> None:
    shear = np.array([[1, 0, 0.0], [0, 1, np.sin(0.3)], [0, 0, np.cos(0.3)]])
    if mirrored:
        shear[:, 2] *= -1
    grid = head_grid(direction=tuple(shear.ravel().tolist()), extent=(200.0, 300.0, 170.0))
    scan = head_ct_from_image(head_image(grid, sphere_mm=SPHERE_MM, noise_hu=0))
    assert scan.resampled
    assert scan.warnings
    direction = np.array(scan.image.GetDirection()).reshape(3, 3)
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-6)
    assert blood_ml(scan.image) == pytest.approx(SPHERE_ML, rel=0.03)


def test_the_real_head_ct(real_head_ct: Path) -> None:
    scan = read_head_ct(real_head_ct)
    assert scan.resampled
    text = " ".join(scan.warnings)
    assert "18.5 degrees" in text
    assert "1.1 to 7.0 mm" in text
    assert scan.image.GetSpacing() == pytest.approx((0.488, 0.488, 4.0), abs=0.01)
    assert float(sitk.GetArrayViewFromImage(scan.image).min()) == -1024
    # From the lowest slice to the highest: 13 × 4.0 + 1.1 + 13 × 7.0 mm along the normal.
    height = (scan.image.GetSize()[2] - 1) * scan.image.GetSpacing()[2]
    assert height == pytest.approx(151.9 * np.cos(TILT), abs=4.0)


# --- what is refused ----------------------------------------------------------------------------------


@pytest.fixture
def series(tmp_path: Path) -> Path:
    write_dicom_series(head_image(head_grid()), tmp_path / "series")
    return tmp_path / "series"


def files_by_position(folder: Path) -> list[Path]:
    return sorted(folder.iterdir(), key=lambda file: float(pydicom.dcmread(file).ImagePositionPatient[2]))


def changed(folder: Path, files: list[Path] | None = None, **tags: object) -> Path:
    for file in files or list(folder.iterdir()):
        header = pydicom.dcmread(file)
        for name, value in tags.items():
            setattr(header, name, value)
        header.save_as(file)
    return folder


def missing(folder: Path) -> Path:
    for file in files_by_position(folder)[12:14]:
        file.unlink()
    return folder


def doubled(folder: Path) -> Path:
    shutil.copy(files_by_position(folder)[12], folder / "copy")
    return folder


def two_series(folder: Path) -> Path:
    return changed(folder, files_by_position(folder)[20:], SeriesInstanceUID="1.2.3")


def two_orientations(folder: Path) -> Path:
    return changed(folder, files_by_position(folder)[:3], ImageOrientationPatient=[0, 1, 0, 0, 0, 1])


def cut_off(folder: Path) -> Path:
    file = files_by_position(folder)[5]
    file.write_bytes(file.read_bytes()[:2000])
    return folder


def emptied(folder: Path) -> Path:
    for file in folder.iterdir():
        file.unlink()
    (folder / "notes.txt").write_text("nothing")
    return folder


def few(folder: Path) -> Path:
    for file in files_by_position(folder)[6:]:
        file.unlink()
    return folder


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: changed(folder, Modality="MR"), "not a CT"),
        (lambda folder: changed(folder, ContrastBolusAgent="OMNIPAQUE 350"), "contrast-enhanced"),
        (lambda folder: changed(folder, SeriesDescription="CTA HEAD"), "contrast-enhanced"),
        (missing, "2 slices are missing"),
        (doubled, "doubled"),
        (two_series, "2 series"),
        (cut_off, "damaged"),
        (emptied, "no DICOM"),
        (few, "only 6 slices"),
        (lambda folder: changed(folder, PixelSpacing=[0, 0]), "pixel size"),
        (two_orientations, "more than one scan"),
    ],
    ids=["MR", "contrast", "angiography", "missing", "doubled", "two", "cut", "none", "few", "spacing", "mixed"],
)  # fmt: skip
def test_a_series_that_cannot_be_right_is_refused(
    damage: Callable[[Path], Path], sentence: str, series: Path
) -> None:
    with pytest.raises(InputError, match=sentence) as refused:
        read_head_ct(damage(series))
    assert str(series) not in str(refused.value)


def array_changed(function: Callable[[np.ndarray], np.ndarray]) -> sitk.Image:
    image = head_image(head_grid())
    return image_on(Grid.of(image), function(sitk.GetArrayFromImage(image).astype(np.float32)))


def windowed(hu: np.ndarray) -> np.ndarray:
    return np.clip((hu + 10) * 255 / 90, 0, 255)


def with_nan(hu: np.ndarray) -> np.ndarray:
    hu[5, 5, 5] = np.nan
    return hu


def without_air(hu: np.ndarray) -> np.ndarray:
    return np.where(hu < -500, 40.0, hu)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (with_nan, "NaN"),
        (windowed, "windowed"),
        (lambda hu: windowed(hu).astype(np.uint8), "windowed"),
        (lambda hu: (hu > 50).astype(np.uint8), "like a mask"),
        (lambda hu: np.abs(hu) * 3 + 20, "not Hounsfield units"),
        (lambda hu: np.full_like(hu, -1000), "blank"),
        (lambda hu: np.where(hu > 300, 40, hu), "no skull"),
        (without_air, "not Hounsfield units"),
        (lambda hu: np.where(np.indices(hu.shape)[2] > 8, -1000, hu), "Hounsfield|no head"),
    ],
    ids=["NaN", "windowed", "8 bits", "mask", "MR", "air", "no bone", "no air", "no head"],
)
def test_values_that_are_no_head_in_hu_are_refused(
    function: Callable[[np.ndarray], np.ndarray], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        head_ct_from_image(array_changed(function))


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (sitk.Image([64, 64, 20, 3], sitk.sitkInt16), "dimensions"),
        (sitk.Image([64, 64, 20], sitk.sitkVectorUInt8, 3), "colors"),
        (sitk.Image([64, 64, 4], sitk.sitkInt16), "only 4 slices"),
        (sitk.Image([64, 64], sitk.sitkInt16), "dimensions"),
    ],
    ids=["4D", "color", "few slices", "2D"],
)
def test_images_of_another_kind_are_refused(image: sitk.Image, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        head_ct_from_image(image)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_head_ct(tmp_path / "absent.nii.gz")
    (tmp_path / "scan.jpg").write_bytes(b"\xff\xd8")
    with pytest.raises(InputError, match="unknown format"):
        read_head_ct(tmp_path / "scan.jpg")
    for name in ("scan.nrrd", "scan.mha", "scan.nii", "scan.nii.gz"):
        sitk.WriteImage(head_image(head_grid()), str(tmp_path / name))
        read_head_ct(tmp_path / name)
        content = (tmp_path / name).read_bytes()
        for part in (0.01, 0.5, 0.98):
            (tmp_path / name).write_bytes(content[: int(part * len(content))])
            with pytest.raises(InputError, match="damaged or cut off"):
                read_head_ct(tmp_path / name)
    (tmp_path / "huge.mhd").write_text(
        "ObjectType = Image\nNDims = 3\nDimSize = 40000 40000 4000\nElementSpacing = 1 1 1\n"
        "ElementType = MET_SHORT\nElementDataFile = none.raw\n"
    )
    with pytest.raises(InputError, match="far more than a head CT"):
        read_head_ct(tmp_path / "huge.mhd")


# --- masks --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scan() -> HeadCT:
    return head_ct_from_image(head_image(head_grid((1.0, 1.0, 4.0))))


def ball_on(grid: Grid, radius: float = 20.0) -> sitk.Image:
    return image_on(grid, (np.linalg.norm(positions(grid), axis=-1) <= radius).astype(np.uint8))


def test_a_mask_on_the_scans_grid_is_used_as_it_is(scan: HeadCT, tmp_path: Path) -> None:
    mask = ball_on(scan.grid)
    sitk.WriteImage(sitk.DICOMOrient(mask, "RIP") * 7, str(tmp_path / "mask.nii.gz"))
    read = read_mask(tmp_path / "mask.nii.gz", scan)
    np.testing.assert_array_equal(voxels(read), voxels(mask))
    own = read_mask_file(tmp_path / "mask.nii.gz")
    assert volume_ml(own) == pytest.approx(volume_ml(mask))


@pytest.mark.parametrize(
    "grid",
    [
        head_grid((0.7, 0.7, 1.0), sitk.Euler3DTransform((0, 0, 0), 0.3, 0.1, 0.2).GetMatrix(), (60.0, 60, 60)),
        head_grid((2.0, 2.0, 2.0), STRAIGHT, (80.0, 80, 80)),
        head_grid((1.0, 1.0, 4.0), (1.0, 0, 0, 0, 1, 0.3, 0, 0, 0.954), (80.0, 80, 80)),
    ],
    ids=["finer and oblique", "coarser", "sheared"],
)
def test_a_mask_on_another_grid_keeps_its_volume_and_place(grid: Grid, scan: HeadCT) -> None:
    mask = ball_on(grid)
    moved = mask_on_scan(mask, scan)
    assert moved.grid.is_same(scan.grid)
    assert volume_ml(moved) == pytest.approx(volume_ml(mask), rel=0.04)
    points = positions(scan.grid)[voxels(moved)]
    np.testing.assert_allclose(points.mean(axis=0), 0.0, atol=0.5)


def test_a_mask_that_cannot_belong_to_the_scan_is_refused(scan: HeadCT) -> None:
    with pytest.raises(InputError, match="empty"):
        mask_on_scan(ball_on(scan.grid, radius=-1), scan)
    shifted = ball_on(scan.grid)
    shifted.SetOrigin([position + 300 for position in shifted.GetOrigin()])
    with pytest.raises(InputError, match="does not belong"):
        mask_on_scan(shifted, scan)
    with pytest.raises(InputError, match="dimensions"):
        mask_on_scan(sitk.Image([8, 8, 8, 2], sitk.sitkUInt8), scan)
