"""NIfTI files as found in the field: both versions, packed or not, scaled, turned, sheared, self-contradictory."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from HematomaExpansionLib.cli.main import main
from HematomaExpansionLib.errors import InputError
from HematomaExpansionLib.scan.grid import Grid, image_on
from HematomaExpansionLib.scan.head_ct import HeadCT, read_head_ct
from HematomaExpansionLib.scan.mask_files import read_mask
from HematomaExpansionLib.scan.nifti_files import write_compressed_nifti
from HematomaExpansionLib.scan.volume_files import read_volume
from phantoms import head_grid, head_hu, head_image, positions, volume_ml

SPHERE_MM = 20.0
SPHERE_ML = 4 / 3 * np.pi * SPHERE_MM**3 / 1000
SPACING = (2.0, 2.0, 4.0)
_LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def affine_of(grid: Grid) -> np.ndarray:
    """From voxel indices (x, y, z) to RAS mm."""
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = grid.axes, grid.origin
    return _LPS_FROM_RAS @ affine


def head_at(affine: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """HU (x, y, z) of the head with a ball of blood at the origin, as voxels at that place see it."""
    indices = np.moveaxis(np.indices(shape), 0, -1).astype(float)
    points = indices @ (_LPS_FROM_RAS @ affine)[:3, :3].T + (_LPS_FROM_RAS @ affine)[:3, 3]
    return np.round(head_hu(points, sphere_mm=SPHERE_MM)).astype(np.int16)


@pytest.fixture(scope="module")
def head() -> nibabel.Nifti1Image:
    grid = head_grid(SPACING)
    hu = sitk.GetArrayFromImage(head_image(grid, SPHERE_MM, noise_hu=0)).T
    image = nibabel.Nifti1Image(hu, affine_of(grid))
    image.set_qform(image.affine, 1)
    image.set_sform(image.affine, 1)
    return image


def saved(image: Any, path: Path, **fields: Any) -> Path:
    """Save to disk, then overwrite those header fields, which nibabel itself would correct."""
    buffer = io.BytesIO()
    image.to_stream(buffer)
    buffer.seek(0)
    header = type(image.header).from_fileobj(buffer, check=False)
    for name, value in fields.items():
        header[name] = value
    content = bytearray(buffer.getvalue())
    content[: len(header.binaryblock)] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(content), 1) if path.suffix == ".gz" else bytes(content))
    return path


def check_ball(scan: HeadCT) -> None:
    """The ball of blood (65 HU in brain of 33) has its volume and lies at the origin."""
    blood = (sitk.GetArrayFromImage(scan.image) - 33.0) / (65.0 - 33.0)
    points = positions(scan.grid)
    near = np.linalg.norm(points, axis=-1) < SPHERE_MM + 8
    assert blood[near].sum() * scan.grid.voxel_volume_ml == pytest.approx(SPHERE_ML, rel=0.03)
    np.testing.assert_allclose(np.average(points[near], axis=0, weights=blood[near]), 0.0, atol=0.1)


# --- versions and packing ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
@pytest.mark.parametrize("is_packed", [True, False])
def test_both_versions_are_read_whatever_the_name_says_of_packing(
    kind: Any, name: str, is_packed: bool, head: nibabel.Nifti1Image, tmp_path: Path
) -> None:
    path = saved(kind(np.asanyarray(head.dataobj), head.affine), tmp_path / f"x{'.gz' * is_packed}")
    scan = read_head_ct(path.rename(tmp_path / name))
    check_ball(scan)
    assert scan.warnings == ()


def test_bytes_in_the_other_order_are_read(head: nibabel.Nifti1Image, tmp_path: Path) -> None:
    hu = np.asanyarray(head.dataobj).astype(">i2")
    image = nibabel.Nifti1Image(hu, head.affine, head.header.as_byteswapped(">"))
    check_ball(read_head_ct(saved(image, tmp_path / "scan.nii")))


def test_a_packed_file_whose_checksum_is_wrong_is_refused(head: nibabel.Nifti1Image, tmp_path: Path) -> None:
    path = saved(head, tmp_path / "scan.nii.gz")
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # in the checksum, which follows all voxels
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match="damaged or cut off"):
        read_head_ct(path)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_no_bit_of_a_header_crashes_the_reader(
    kind: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image = kind(np.zeros((10, 12, 9), np.int16), np.diag([2.0, 2, 4, 1]))
    image.set_sform(image.affine, 1)
    image.set_qform(image.affine, 1)
    content = saved(image, tmp_path / "scan.nii").read_bytes()
    refused = 0
    for bit in range(0, 8 * len(image.header.binaryblock), 11):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / "scan.nii").write_bytes(flipped)
        try:
            read_volume(tmp_path / "scan.nii", "scan")
        except InputError:
            refused += 1
    assert refused > 10
    assert capfd.readouterr() == ("", "")


def zip_file() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("scan.nii", b"0" * 1000)
    return buffer.getvalue()


def nrrd_file(folder: Path) -> bytes:
    sitk.WriteImage(head_image(head_grid(SPACING)), str(folder / "other.nrrd"))
    return (folder / "other.nrrd").read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("scan.nii.gz", lambda folder: zip_file(), "is named .nii.gz but is a ZIP archive"),
        ("scan.nii", nrrd_file, "is named .nii but is a NRRD file"),
        ("scan.nrrd", lambda folder: b"%PDF-1.7 " * 200, "is named .nrrd but is a PDF document"),
        ("scan.mha", lambda folder: b"Patient moved, scan repeated.\n" * 40, "is a text file"),
        ("scan.nii.gz", lambda folder: gzip.compress(b"no image at all " * 100), "is a text file"),
        ("scan.nii.gz", lambda folder: b"\x1f\x8b" + b"\1" * 500, "damaged or cut off"),
        ("scan.nii", lambda folder: bytes(range(255, 0, -1)) * 9, "damaged or cut off"),
    ],
    ids=["zip", "NRRD", "PDF", "text", "packed text", "broken gzip", "noise"],
)
def test_a_file_of_another_kind_is_called_what_it_is(
    name: str, content: Callable[[Path], bytes], sentence: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content(tmp_path))
    with pytest.raises(InputError, match=sentence):
        read_head_ct(tmp_path / name)


def test_a_header_without_its_voxels_says_so(tmp_path: Path) -> None:
    for name in ("scan.mhd", "scan.nhdr"):
        sitk.WriteImage(head_image(head_grid(SPACING)), str(tmp_path / name))
        read_head_ct(tmp_path / name)
        (voxels,) = (file for file in tmp_path.iterdir() if file.suffix != Path(name).suffix)
        voxels.unlink()
        with pytest.raises(InputError, match="the file beside it that holds its voxels"):
            read_head_ct(tmp_path / name)
        (tmp_path / name).unlink()


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.nrrd"])
def test_a_file_that_may_not_be_read_is_not_called_damaged(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user running the tests may be allowed to read everything."""
    sitk.WriteImage(head_image(head_grid(SPACING)), str(tmp_path / name))

    def deny(*_arguments: Any) -> None:
        raise PermissionError(13, "Permission denied")

    def fail(*_arguments: Any) -> None:
        raise RuntimeError("ITK ERROR: Could not open file for reading")

    monkeypatch.setattr("HematomaExpansionLib.scan.volume_files.os.access", lambda *_arguments: False)
    monkeypatch.setattr("HematomaExpansionLib.scan.volume_files.read_nifti", deny)
    monkeypatch.setattr("HematomaExpansionLib.scan.volume_files._read_by_itk", fail)
    with pytest.raises(InputError, match="cannot be opened"):
        read_head_ct(tmp_path / name)


def test_half_of_a_pair_of_files_is_refused(head: nibabel.Nifti1Image, tmp_path: Path) -> None:
    for magic in (b"ni1", b""):
        with pytest.raises(InputError, match="pair of files"):
            read_head_ct(saved(head, tmp_path / "scan.nii", magic=magic))


def test_a_folder_of_image_files_is_called_so(head: nibabel.Nifti1Image, tmp_path: Path) -> None:
    for name in ("one.nii.gz", "two.nii.gz"):
        saved(head, tmp_path / name)
    with pytest.raises(InputError, match="no DICOM images but 2 NIfTI") as refused:
        read_head_ct(tmp_path)
    assert "one" not in str(refused.value).replace("Give one of", "")


def test_vectors_and_colors_are_refused(head: nibabel.Nifti1Image, tmp_path: Path) -> None:
    vectors = np.zeros((20, 20, 12, 1, 3), np.float32)
    colors = np.zeros((20, 20, 12), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    for values in (vectors, colors, np.zeros((20, 20, 12), np.complex64)):
        with pytest.raises(InputError, match="colors or vectors"):
            read_head_ct(saved(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "scan.nii"))
    with pytest.raises(InputError, match="4 dimensions"):
        read_head_ct(saved(nibabel.Nifti1Image(np.zeros((9, 9, 9, 3)), np.eye(4)), tmp_path / "scan.nii"))


# --- values --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [(slice(5, 6), 5, 5), (slice(None), slice(None), 7)], ids=["voxel", "slice"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_invalid_numbers_are_refused(
    value: float, where: tuple[Any, ...], head: nibabel.Nifti1Image, tmp_path: Path
) -> None:
    hu = np.asanyarray(head.dataobj).astype(np.float32)
    hu[where] = value
    with pytest.raises(InputError, match="NaN"):
        read_head_ct(saved(nibabel.Nifti1Image(hu, head.affine), tmp_path / "scan.nii.gz"))


@pytest.mark.parametrize("slope", [0.0, np.nan, np.inf])
def test_an_invalid_scale_changes_nothing(slope: float, head: nibabel.Nifti1Image, tmp_path: Path) -> None:
    check_ball(read_head_ct(saved(head, tmp_path / "scan.nii", scl_slope=slope, scl_inter=5.0)))


def test_a_scale_is_applied(head: nibabel.Nifti1Image, tmp_path: Path) -> None:
    stored = nibabel.Nifti1Image((np.asanyarray(head.dataobj) + 1024).astype(np.uint16) * 2, head.affine)
    check_ball(read_head_ct(saved(stored, tmp_path / "scan.nii", scl_slope=0.5, scl_inter=-1024.0)))
    with pytest.raises(InputError, match="scale in its header"):
        read_head_ct(saved(stored, tmp_path / "scan.nii", scl_slope=0.5, scl_inter=np.nan))


# --- place ---------------------------------------------------------------------------------------------


def placed(head: nibabel.Nifti1Image, sform: np.ndarray, qform: np.ndarray, path: Path, **fields: Any) -> Path:
    image = nibabel.Nifti1Image(np.asanyarray(head.dataobj), head.affine)
    image.set_sform(sform, 2)
    image.set_qform(qform, 1)
    return saved(image, path, **fields)


def mirrored(affine: np.ndarray) -> np.ndarray:
    return np.diag([-1.0, 1, 1, 1]) @ affine


def turned(affine: np.ndarray) -> np.ndarray:
    return np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]) @ affine


def wider(affine: np.ndarray) -> np.ndarray:
    return np.diag([1.1, 1, 1, 1]) @ affine


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (mirrored, "left and right are uncertain"),
        (turned, "left and right are uncertain"),
        (wider, "2 × 2 × 4 mm"),
    ],
)
def test_positions_that_contradict_each_other_are_refused(
    change: Callable[[np.ndarray], np.ndarray], sentence: str, head: nibabel.Nifti1Image, tmp_path: Path
) -> None:
    path = placed(head, change(head.affine), head.affine, tmp_path / "scan.nii")
    with pytest.raises(InputError, match=sentence):
        read_head_ct(path)


def test_a_voxel_size_that_the_affine_contradicts_is_refused(head: nibabel.Nifti1Image, tmp_path: Path) -> None:
    path = saved(head, tmp_path / "scan.nii", qform_code=0, pixdim=[1, 2, 2, 5, 0, 0, 0, 0])
    with pytest.raises(InputError, match="2 × 2 × 5 mm, or 2 × 2 × 4 mm"):
        read_head_ct(path)


def test_positions_that_are_apart_are_reported(head: nibabel.Nifti1Image, tmp_path: Path) -> None:
    moved = head.affine.copy()
    moved[0, 3] += 7.0
    scan = read_head_ct(placed(head, head.affine, moved, tmp_path / "scan.nii"))
    check_ball(scan)  # the sform is the true one
    assert len(scan.warnings) == 1
    assert "7.0 mm apart" in scan.warnings[0]
    moved[0, 3] -= 6.5
    assert read_head_ct(placed(head, head.affine, moved, tmp_path / "scan.nii")).warnings == ()


def test_a_scan_without_a_place_is_read_with_a_word(head: nibabel.Nifti1Image, tmp_path: Path) -> None:
    path = saved(head, tmp_path / "scan.nii", sform_code=0, qform_code=0)
    scan = read_head_ct(path)
    assert scan.grid.spacing == pytest.approx(SPACING)
    assert "does not say which way the head lies" in scan.warnings[0]


def test_a_case_made_of_such_a_scan_says_so(head: nibabel.Nifti1Image, tmp_path: Path) -> None:
    from HematomaSynthesisLib.variant_folders import make_case

    make_case([("baseline", saved(head, tmp_path / "scan.nii", sform_code=0, qform_code=0))], tmp_path / "case")
    (warning,) = json.loads((tmp_path / "case" / "case.json").read_text())["warnings"]
    assert warning.startswith("Baseline: The scan's file does not say which way the head lies")
    make_case([("baseline", saved(head, tmp_path / "scan.nii"))], tmp_path / "other")
    assert "warnings" not in json.loads((tmp_path / "other" / "case.json").read_text())


@pytest.mark.parametrize(
    ("name", "drop", "put"),
    [
        ("scan.nrrd", (b"space:", b"space origin:"), {b"space directions:": b"spacings: 2 2 4"}),
        ("scan.nrrd", (), {b"space:": b"space dimension: 3"}),
        ("scan.nrrd", (), {b"space:": b"space: 3D-right-handed"}),
        ("scan.mha", (b"TransformMatrix",), {}),
    ],
    ids=["no space", "dimension alone", "no patient's space", "MetaImage"],
)
def test_other_formats_without_a_place_are_read_with_a_word(
    name: str, drop: tuple[bytes, ...], put: dict[bytes, bytes], tmp_path: Path
) -> None:
    path = tmp_path / name
    sitk.WriteImage(head_image(head_grid(SPACING)), str(path))
    assert read_head_ct(path).warnings == ()
    end = b"\n\n" if path.suffix == ".nrrd" else b"ElementDataFile"
    header, _, rest = path.read_bytes().partition(end)
    lines = [line for line in header.split(b"\n") if not line.startswith(drop or b"?")]
    lines = [next((new for old, new in put.items() if line.startswith(old)), line) for line in lines]
    path.write_bytes(b"\n".join(lines) + end + rest)
    scan = read_head_ct(path)
    assert scan.grid.spacing == pytest.approx(SPACING)
    assert not scan.is_position_certain
    assert "does not say which way the head lies" in scan.warnings[0]


def test_a_space_of_other_axes_is_a_place(tmp_path: Path) -> None:
    path = tmp_path / "scan.nrrd"
    sitk.WriteImage(head_image(head_grid(SPACING)), str(path))
    path.write_bytes(path.read_bytes().replace(b"left-posterior-superior", b"right-anterior-superior", 1))
    assert read_head_ct(path).is_position_certain


def test_a_mask_without_a_place_fits_its_own_scan_alone(
    head: nibabel.Nifti1Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hu = np.asanyarray(head.dataobj)
    mask = nibabel.Nifti1Image(((hu > 60) & (hu < 70)).astype(np.uint8), head.affine)
    path = saved(mask, tmp_path / "mask.nii", sform_code=0, qform_code=0)
    scan = read_head_ct(saved(head, tmp_path / "scan.nii", sform_code=0, qform_code=0))
    assert volume_ml(read_mask(path, scan)) == pytest.approx(SPHERE_ML, rel=0.05)
    with pytest.raises(InputError, match="does not say clearly where it lies"):
        read_mask(path, read_head_ct(saved(head, tmp_path / "scan.nii")))
    saved(mask, path)
    moved = read_head_ct(saved(head, tmp_path / "scan.nii", sform_code=0, qform_code=0))
    with pytest.raises(InputError, match="The scan's file does not say clearly where it lies"):
        read_mask(path, moved)
    saved(mask, path, sform_code=0, qform_code=0)
    assert main(["measure", "-i", str(path)]) == 0
    (warning,) = json.loads(capsys.readouterr().out)["warnings"]
    assert "which way the head lies" in warning


def test_an_empty_sform_is_ignored(head: nibabel.Nifti1Image, tmp_path: Path) -> None:
    rows = dict.fromkeys(("srow_x", "srow_y", "srow_z"), [0.0] * 4)
    check_ball(read_head_ct(saved(head, tmp_path / "scan.nii", **rows)))


@pytest.mark.parametrize("shear", [3e-4, 2e-3, 1e-2, 0.2])
def test_a_shear_is_resolved_and_told(shear: float, tmp_path: Path) -> None:
    grid = head_grid(SPACING, extent=(200.0, 280.0, 160.0))
    affine = affine_of(grid)
    affine[1, 2] += shear * SPACING[2]
    affine[:3, 3] -= affine[:3, :3] @ ((np.array(grid.size) - 1) / 2) + affine[:3, 3]
    hu = head_at(affine, grid.size)
    image = nibabel.Nifti1Image(hu, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 0, strip_shears=True)
    scan = read_head_ct(saved(image, tmp_path / "scan.nii.gz"))
    check_ball(scan)
    direction = np.array(scan.grid.direction).reshape(3, 3)
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-9)
    is_known = shear > 1e-3
    assert all("resampled onto a straight grid" in warning for warning in scan.warnings)
    assert scan.resampled == bool(scan.warnings) == is_known
    mask = nibabel.Nifti1Image(((hu > 60) & (hu < 70)).astype(np.uint8), affine, image.header)
    read = read_mask(saved(mask, tmp_path / "mask.nii.gz"), scan)
    assert volume_ml(read) == pytest.approx(SPHERE_ML, rel=0.05)
    by_distance = [1, *SPACING, 0, 0, 0, 0]  # between planes, where the sform has it along the sheared axis
    check_ball(read_head_ct(saved(image, tmp_path / "scan.nii.gz", pixdim=by_distance)))
    sitk.WriteImage(scan.restore_mask(read).image, str(tmp_path / "written.nii.gz"))
    assert Grid.of(sitk.ReadImage(str(tmp_path / "written.nii.gz"))).is_same(scan.restore_mask(read).grid)


def test_lengths_in_meters_are_understood(head: nibabel.Nifti1Image, tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.asanyarray(head.dataobj), np.diag([1e-3, 1e-3, 1e-3, 1]) @ head.affine)
    image.set_sform(image.affine, 1)
    image.header.set_xyzt_units("meter")
    check_ball(read_head_ct(saved(image, tmp_path / "scan.nii")))


@pytest.mark.parametrize("kind", [sitk.sitkUInt8, sitk.sitkInt16, sitk.sitkFloat32, sitk.sitkVectorFloat32])
@pytest.mark.parametrize("size", [(40, 50, 19), (30, 20, 1)])
def test_compressed_files_hold_what_itk_writes(kind: int, size: tuple[int, int, int], tmp_path: Path) -> None:
    turned = sitk.Euler3DTransform((0, 0, 0), 0.3, -0.2, 0.4).GetMatrix()
    grid = Grid(size, (0.8, 0.7, 3.0), (-12.0, 30.0, 5.0), turned)
    noise = np.random.default_rng(1).integers(0, 200, (*grid.shape, *([3] * (kind == sitk.sitkVectorFloat32))))
    image = sitk.Cast(image_on(grid, noise.astype(np.float32)), kind)
    write_compressed_nifti(image, tmp_path / "ours.nii.gz")
    sitk.WriteImage(image, str(tmp_path / "itk.nii.gz"))
    ours, theirs = (gzip.decompress((tmp_path / f"{name}.nii.gz").read_bytes()) for name in ("ours", "itk"))
    assert ours == theirs
