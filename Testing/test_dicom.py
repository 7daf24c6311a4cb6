"""DICOM series as found in the field: read however they are stored, refused if slices or values are lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from HematomaExpansionLib.batch.cases import find_cases
from HematomaExpansionLib.errors import InputError
from HematomaExpansionLib.scan.dicom.checks import check_headers
from HematomaExpansionLib.scan.dicom.files import files_below, is_dicom
from HematomaExpansionLib.scan.dicom.gaps import Stack, check_complete
from HematomaExpansionLib.scan.dicom.series import DicomScan, read_dicom_series
from HematomaExpansionLib.scan.grid import Grid
from HematomaExpansionLib.scan.head_ct import read_head_ct
from phantoms import head_grid, head_hu, head_image, write_dicom_series, write_slices
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

HEAD = head_image(head_grid((4.0, 4.0, 5.0)))
UNEVEN = np.cumsum([0.0] + 14 * [4.22] + [1.14] + 13 * [7.38])
UNEVEN_THICKNESS = np.array([4.2] * 15 + [7.4] * 14)


def read(folder: Path) -> DicomScan:
    return read_dicom_series(files_below(folder))


def edited(files: list[Path], **tags: object) -> None:
    """Put ``tags`` into these files; None removes one."""
    for file in files:
        header = pydicom.dcmread(file)
        for name, value in tags.items():
            if value is None:
                delattr(header, name)
            else:
                setattr(header, name, value)
        header.save_as(file)


@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    """A series of 32 slices, from the lowest to the highest."""
    return write_dicom_series(
        HEAD, tmp_path / "series", SeriesNumber=3, SliceThickness=5, ConvolutionKernel="H31s"
    )


# --- values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("keyword", "count"), [("RescaleIntercept", 1), ("RescaleSlope", 3)])
def test_slices_that_do_not_say_how_they_become_hu_are_not_guessed(
    keyword: str, count: int, series: list[Path]
) -> None:
    edited(series[15 : 15 + count], **{keyword: None})
    with pytest.raises(InputError, match=f"{count} of the 32 slices do(es)? not say how"):
        read(series[0].parent)


def test_a_series_that_says_it_nowhere_holds_hu(series: list[Path]) -> None:
    edited(series, RescaleIntercept=None, RescaleSlope=None)
    assert read(series[0].parent).warnings == []


@pytest.mark.parametrize("stored", [-1024, 0, 40])
@pytest.mark.parametrize("tilt", [0.0, 0.2], ids=["straight", "tilted"])
def test_a_blank_slice_within_the_stack_is_a_lost_one(stored: int, tilt: float, tmp_path: Path) -> None:
    files = slices_at(tmp_path, np.arange(32) * 5.0, tilt=tilt)
    edited(files[16:17], PixelData=np.full((60, 50), stored, np.int16).tobytes())
    with pytest.raises(InputError, match="1 slice is blank in the middle"):
        read(tmp_path)


def test_blank_slices_beyond_the_head_are_air(tmp_path: Path) -> None:
    files = slices_at(tmp_path, np.arange(32) * 5.0)
    edited(files[:2] + files[-3:], PixelData=np.full((60, 50), -1000, np.int16).tobytes())
    assert read(tmp_path).warnings == []


@pytest.mark.parametrize(("usual", "lost"), [(-1024, 0), (0, -1024)])
def test_a_slice_with_an_odd_scale_is_refused(usual: int, lost: int, tmp_path: Path) -> None:
    """Exports that lose a slice's intercept may write 0 for it, or that of another slice's stored values."""
    stored = sitk.Cast(HEAD, sitk.sitkInt16) - usual
    files = write_dicom_series(stored, tmp_path, RescaleIntercept=usual)
    assert read(tmp_path).warnings == []
    edited(files[16:17], RescaleIntercept=lost)
    with pytest.raises(InputError, match="1 of the 32 slices has another scale"):
        read(tmp_path)


def test_slices_on_scales_of_their_own_are_read(tmp_path: Path) -> None:
    files = write_dicom_series(HEAD, tmp_path)
    before = sitk.GetArrayFromImage(read(tmp_path).image)
    for index in (3, 16, 17):
        stored = sitk.GetArrayFromImage(HEAD)[index].astype(np.int32)
        edited([files[index]], RescaleIntercept=-2048, PixelData=(stored + 2048).astype(np.int16).tobytes())
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read(tmp_path).image), before)


@pytest.mark.parametrize("quantity", ["MGML", "Z_EFF"])
def test_dual_energy_maps_are_refused(quantity: str, series: list[Path]) -> None:
    edited(series, RescaleType=quantity)
    with pytest.raises(InputError, match="dual-energy"):
        read(series[0].parent)


# --- missing slices -----------------------------------------------------------------------------------


def slices_at(
    folder: Path,
    along: np.ndarray,
    thickness: np.ndarray | None = None,
    numbers: np.ndarray | None = None,
    tilt: float = 0.0,
) -> list[Path]:
    """A head's slices at those heights in mm, of that thickness and with those instance numbers."""
    row, column = np.array([1.0, 0, 0]), np.array([0.0, np.cos(tilt), -np.sin(tilt)])
    slices = []
    for z in along - np.mean(along):
        corner = np.array([0.0, 0.0, z]) - row * 98 - column * 118
        y, x = np.mgrid[:60, :50] * 4.0
        slices.append((corner, head_hu(corner + x[..., None] * row + y[..., None] * column)))
    files = write_slices(slices, row, column, (4.0, 4.0), folder)
    for index, file in enumerate(files):
        tags: dict[str, Any] = {} if thickness is None else {"SliceThickness": float(thickness[index])}
        edited([file], **tags, InstanceNumber=index + 1 if numbers is None else int(numbers[index]))
    return files


@pytest.mark.parametrize("told", ["numbers and thickness", "numbers", "thickness", "neither"])
@pytest.mark.parametrize(
    ("lost", "count"),
    [([6], 1), ([6, 7], 2), ([22], 1), ([21, 22, 23], 3), ([4, 22], 2), ([13, 14, 15], 1), ([6, 8, 10], 3)],
    ids=str,
)
def test_slices_lost_in_an_unevenly_spaced_stack_are_missed(lost: list[int], count: int, told: str) -> None:
    kept = np.delete(np.arange(len(UNEVEN)), lost)
    stack = Stack(
        np.diff(UNEVEN[kept]),
        UNEVEN_THICKNESS[kept] if "thickness" in told else np.zeros(len(kept)),
        kept + 1 if "numbers" in told else np.arange(len(kept)) + 1,
    )
    with pytest.raises(InputError, match=r"At least \d slices? (is|are) missing") as refused:
        check_complete(stack)
    assert int(str(refused.value).split()[2]) in ([count] if lost != [13, 14, 15] else [1, 3])


@pytest.mark.parametrize("tilt", [0.0, 0.3])
@pytest.mark.parametrize("numbered", [True, False])
def test_slices_lost_from_files_are_missed(numbered: bool, tilt: float, tmp_path: Path) -> None:
    kept = np.delete(np.arange(len(UNEVEN)), [20, 21])
    slices_at(tmp_path, UNEVEN[kept], UNEVEN_THICKNESS[kept], kept + 1 if numbered else None, tilt)
    with pytest.raises(InputError, match="At least 2 slices are missing"):
        read(tmp_path)


def test_every_second_slice_lost_up_to_the_end_is_missed_by_the_numbers(tmp_path: Path) -> None:
    kept = np.array([*range(16), *range(17, 32, 2)])
    slices_at(tmp_path, kept * 5.0, numbers=kept + 1)
    with pytest.raises(InputError, match="At least 8 slices are missing"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("gaps", "thickness"),
    [
        (14 * [4.0] + 13 * [8.0], 15 * [4.0] + 13 * [8.0]),
        (14 * [4.0] + 9 * [8.0], None),
        (10 * [3.0] + 8 * [6.0] + 10 * [3.0], 10 * [3.0] + 9 * [6.0] + 10 * [3.0]),
        (8 * [6.0] + 12 * [3.0] + 8 * [6.0], None),
        (30 * [5.0], 31 * [10.0]),
        (24 * [7.0], 25 * [5.0]),
        (8 * [5.0] + [2.0] + 8 * [5.0] + [2.0] + 12 * [5.0], 31 * [5.0]),
        (60 * [2.5], 61 * [0.6]),
        (8 * [3.0] + 8 * [5.0] + 16 * [3.0], None),
    ],
    ids=["twice", "twice, untold", "thick middle", "thin middle", "overlap", "apart", "ranges", "thin", "own"],
)
def test_protocols_that_change_the_distance_are_read(
    gaps: list[float], thickness: list[float] | None, tmp_path: Path
) -> None:
    along = np.cumsum([0.0, *gaps])
    slices_at(tmp_path, along, None if thickness is None else np.array(thickness))
    scan = read(tmp_path)
    spacing, size = scan.image.GetSpacing()[2], scan.image.GetSize()[2]
    assert (size - 1) * spacing == pytest.approx(along[-1], abs=spacing)


def test_skipped_numbers_without_a_gap_are_not_missing_slices(tmp_path: Path) -> None:
    slices_at(tmp_path, np.arange(32) * 5.0, numbers=np.arange(32) * 2 + (np.arange(32) > 12) * 20 + 7)
    assert read(tmp_path).warnings == []


@pytest.mark.parametrize(
    ("gaps", "thickness"),
    [
        ([10.0] + 28 * [5.0], None),
        (28 * [5.0] + [10.0], 30 * [5.0]),
        (20 * [4.0] + 8 * [8.0], 29 * [4.0]),
        (14 * [5.0] + [8.0] + 14 * [5.0], 30 * [5.0]),
    ],
    ids=["first", "last", "thin slices far apart", "between ranges"],
)
def test_gaps_that_may_be_lost_slices_are_reported(
    gaps: list[float], thickness: list[float] | None, tmp_path: Path
) -> None:
    slices_at(tmp_path, np.cumsum([0.0, *gaps]), None if thickness is None else np.array(thickness))
    assert any("may be missing" in warning for warning in read(tmp_path).warnings)


@pytest.mark.parametrize("backward", [False, True])
def test_two_passes_over_the_same_part_are_not_mixed(backward: bool, tmp_path: Path) -> None:
    first, second = np.arange(32) * 5.0, np.arange(10, 24) * 5.0 + 2.0
    along = np.concatenate([first, second[::-1] if backward else second])
    order = np.argsort(along)
    slices_at(tmp_path, along[order], numbers=order + 1)
    with pytest.raises(InputError, match="two passes"):
        read(tmp_path)


@pytest.mark.parametrize("numbered", ["two ranges", "at random"])
def test_ranges_that_meet_are_no_second_pass(numbered: str, tmp_path: Path) -> None:
    along = np.concatenate([np.arange(16) * 5.0, np.arange(14, 30) * 5.0 + 1.0])
    order = np.argsort(along)
    numbers = order + 1 if numbered == "two ranges" else np.random.default_rng(0).permutation(32)
    slices_at(tmp_path, along[order], numbers=numbers)
    assert all("unevenly" in warning for warning in read(tmp_path).warnings)


# --- contrast medium ----------------------------------------------------------------------------------


def header_with(**tags: Any) -> pydicom.Dataset:
    header = pydicom.Dataset()
    for name, value in tags.items():
        setattr(header, name, value)
    return header


@pytest.mark.parametrize(
    "tags",
    [
        {"SeriesDescription": "post contrast"},
        {"SeriesDescription": "HEAD C+"},
        {"SeriesDescription": "CT VENOGRAM"},
        {"SeriesDescription": "Perfusion 5.0"},
        {"SeriesDescription": "CTA HEAD", "ContrastBolusAgent": "NONE"},
        {"ProtocolName": "Neuro^HeadAngio"},
        {"ProtocolName": "Head with contrast", "SeriesDescription": "AXIAL 5mm"},
        {"ImageType": ["DERIVED", "SECONDARY", "ANGIO"]},
        {"ContrastBolusAgent": "Ultravist 370"},
        {"ContrastBolusVolume": 80},
        {"ContrastBolusAgent": "Omnipaque", "SeriesDescription": "HEAD W/O"},
    ],
    ids=str,
)
def test_a_contrast_series_is_refused(tags: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="contrast-enhanced"):
        check_headers([header_with(**tags)])


@pytest.mark.parametrize(
    "tags",
    [
        *({"ContrastBolusAgent": agent} for agent in ("N/A", "Non contrast", "without contrast", "ohne", "sans")),
        {"SeriesDescription": "CTA neg; HEAD W/O"},
        {"SeriesDescription": "HEAD W/O CONTRAST", "StudyDescription": "CTA HEAD AND NECK"},
        {"SeriesDescription": "HEAD", "ContrastBolusAgent": "NONE", "StudyDescription": "CT HEAD W/WO CONTRAST"},
        {"ProtocolName": "CTA Stroke", "SeriesDescription": "Kopf nativ"},
        {"ProtocolName": "CTA Stroke", "ContrastBolusAgent": "None"},
        {"SeriesDescription": "HEAD W/WO", "ContrastBolusAgent": "NO"},
        {"ContrastBolusAgent": "", "ContrastBolusVolume": 0, "ContrastBolusRoute": "ORAL"},
    ],
    ids=str,
)
def test_a_series_that_is_said_to_be_without_contrast_is_read(tags: dict[str, Any]) -> None:
    assert check_headers([header_with(**tags)]) == []


@pytest.mark.parametrize(
    "tags",
    [
        {"SeriesDescription": "HEAD W/WO CONTRAST"},
        {"SeriesDescription": "CTA HEAD W/O"},
        {"StudyDescription": "CT HEAD WITH CONTRAST"},
        {"StudyDescription": "CTA", "SeriesDescription": "AXIAL 5mm"},
        {"PerformedProcedureStepDescription": "CT Angio"},
        {"ContrastBolusAgent": "UNKNOWN"},
        {"ContrastBolusRoute": "IV"},
    ],
    ids=str,
)
def test_unclear_contrast_is_reported(tags: dict[str, Any]) -> None:
    assert ["leave open whether contrast" in note for note in check_headers([header_with(**tags)])] == [True]


def test_contrast_warnings_reach_the_reader_of_the_series(series: list[Path]) -> None:
    edited(series, SeriesDescription="HEAD W/O", ContrastBolusAgent="N/A")
    assert read(series[0].parent).warnings == []
    edited(series, SeriesDescription="HEAD W/WO CONTRAST", ContrastBolusAgent="")
    assert "leave open whether contrast" in read(series[0].parent).warnings[0]
    edited(series, SeriesDescription="post contrast")
    with pytest.raises(InputError, match="contrast-enhanced"):
        read(series[0].parent)


def test_one_contrast_slice_among_many_is_enough(series: list[Path]) -> None:
    edited(series[20:21], ContrastBolusAgent="Iodine")
    with pytest.raises(InputError, match="contrast-enhanced"):
        read(series[0].parent)


# --- files of every kind ------------------------------------------------------------------------------


def bare(file: Path, syntax: pydicom.uid.UID) -> None:
    """Store a file as a data set alone, without preamble and meta header."""
    header = pydicom.dcmread(file)
    header.decode()
    if syntax == ExplicitVRBigEndian:
        header.PixelData = np.frombuffer(header.PixelData, "<i2").astype(">i2").tobytes()
    plain = pydicom.Dataset(header)
    pydicom.dcmwrite(
        file,
        plain,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
    )


def without_preamble(file: Path) -> None:
    file.write_bytes(file.read_bytes()[132:])


@pytest.mark.parametrize(
    "store",
    [
        lambda file: bare(file, ImplicitVRLittleEndian),
        lambda file: bare(file, ExplicitVRLittleEndian),
        lambda file: bare(file, ExplicitVRBigEndian),
        without_preamble,
    ],
    ids=["implicit", "explicit", "big endian", "meta header alone"],
)
def test_data_sets_without_a_preamble_are_read(store: Callable[[Path], None], series: list[Path]) -> None:
    folder = series[0].parent
    before = read(folder)
    for file in series:
        store(file)
        assert file.read_bytes()[128:132] != b"DICM"
        assert is_dicom(file)
    after = read(folder)
    assert Grid.of(after.image).is_same(Grid.of(before.image))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(after.image), sitk.GetArrayFromImage(before.image))
    assert [case.scan for case in find_cases(folder.parent, folder.parent / "out")] == [folder]


def test_dicom_is_recognized_by_content(series: list[Path], tmp_path: Path) -> None:
    assert is_dicom(series[0].rename(tmp_path / "image.txt"))
    for name in ("ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm", "meta_missing_tsyntax.dcm"):
        assert is_dicom(Path(str(get_testdata_file(name))))
    for content in (
        b"",
        b"called the ward at 3",
        b"\x08\x00",
        b"\x08\x00 and more",
        b"\x02\x00" * 500,
        b"\0" * 500,
    ):
        (tmp_path / "note.dcm").write_bytes(content)
        assert not is_dicom(tmp_path / "note.dcm")


def screen_save(folder: Path, **tags: Any) -> None:
    """An 8-bit picture in its own series, like the dose report that scanners add."""
    folder.mkdir(exist_ok=True)
    values = {
        "SOPClassUID": SecondaryCaptureImageStorage,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "SeriesDescription": "Dose Report",
        "SeriesNumber": 999,
        "ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"],
        "ImagePositionPatient": None,
        "ImageOrientationPatient": None,
    }
    write_dicom_series(HEAD[:, :, :1], folder, **(values | tags))


def test_what_lies_beside_the_series_is_left_out_and_told(series: list[Path]) -> None:
    folder = series[0].parent
    alone = read(folder)
    screen_save(folder / "dose")
    screen_save(folder / "protocol", BitsAllocated=16, BitsStored=16, HighBit=15)
    screen_save(folder / "same", SeriesInstanceUID=pydicom.dcmread(series[0]).SeriesInstanceUID)
    screen_save(folder / "other", Modality="OT")
    write_dicom_series(HEAD[:, :, :2], folder / "scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    (folder / "notes.dcm").write_text("called the ward at 3")
    (folder / "DICOMDIR").write_bytes(series[0].read_bytes())
    (folder / "README.txt").write_text("of the viewer")
    (folder / "LOCKED").write_text("")
    scan = read(folder)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(scan.image), sitk.GetArrayFromImage(alone.image))
    assert scan.warnings == [
        "Left out of the series: 1 empty file, 1 file that is not DICOM despite its name, "
        "1 image of another modality, 2 localizer images, 3 screen saves or reports."
    ]


def test_several_series_are_listed_without_what_may_name_the_patient(series: list[Path]) -> None:
    folder = series[0].parent
    write_dicom_series(HEAD, folder / "bone", SeriesNumber=4, SliceThickness=0.6, ConvolutionKernel=["H60s", "3"])
    write_dicom_series(HEAD[:, :, :1], folder / "one", SeriesDescription="Doe^Jane", SeriesNumber=11)
    screen_save(folder / "dose")
    with pytest.raises(InputError) as refused:
        read(folder)
    assert str(refused.value) == (
        "The folder holds 3 series: number 3 (32 images, 5 mm, kernel H31s), number 4 (32 images, 0.6 mm, "
        "kernel H60s 3), number 11 (1 image). Give a folder that holds the files of one head CT series only."
    )


@pytest.mark.parametrize(
    ("tags", "sentence"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "only a localizer"),
        ({"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}, "already windowed"),
        ({"Modality": "MR"}, "not a CT"),
        ({"NumberOfFrames": 8}, "multi-frame"),
        ({"RescaleSlope": 0}, "slope is zero"),
    ],
    ids=["localizer", "8 bits", "MR", "frames", "slope"],
)
def test_a_folder_without_a_plain_ct_is_refused_for_its_true_reason(
    tags: dict[str, Any], sentence: str, series: list[Path]
) -> None:
    edited(series, **tags)
    with pytest.raises(InputError, match=sentence):
        read(series[0].parent)


def test_a_single_slice_asks_for_its_folder(series: list[Path]) -> None:
    with pytest.raises(InputError, match=r"only one slice.*Give the folder"):
        read_head_ct(series[3])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"1.2.840.10008.1.2.1\0", b"1.2.840.70008.1.2.1\0"),
        (b"\x28\0\x10\0US", b"\x28\0\x10\0U-"),
        (b"\x28\0\x11\0US", b"\x28\0\x12\0US"),
        (b"\x28\0\x02\0US", b"\x28\0\x02\0DS"),
        (b"\x28\0\x20\x01SS", b"\x28\0\x20\x01S-"),
    ],
    ids=["transfer syntax", "unknown type", "columns", "wrong type", "padding"],
)
def test_a_damaged_header_is_a_sentence(old: bytes, new: bytes, tmp_path: Path) -> None:
    file = write_dicom_series(HEAD, tmp_path / "series", PixelPaddingValue=-2000)[9]
    content = file.read_bytes()
    assert old in content
    file.write_bytes(content.replace(old, new))
    with pytest.raises(InputError, match=r"damaged|more than one scan"):
        read(file.parent)


def test_what_a_scan_can_do_without_may_be_damaged(series: list[Path]) -> None:
    for file in series[9:12]:
        content = file.read_bytes()
        for old, new in (
            (b"\x18\0\x50\0DS\4\x005.0 ", b"\x18\0\x50\0DS\4\0five"),
            (b"\x20\0\x13\0IS", b"\x20\0\x13\0I-"),
        ):
            assert old in content
            content = content.replace(old, new)
        file.write_bytes(content)
    edited(series[:1], GantryDetectorTilt="")
    assert read(series[0].parent).warnings == []


def test_sentences_on_files_are_true(tmp_path: Path, series: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def sentence(folder: Path) -> str:
        with pytest.raises(InputError) as refused:
            read_head_ct(folder)
        return str(refused.value)

    folder = tmp_path / "folder"
    folder.mkdir()
    assert "The folder is empty" in sentence(folder)
    (folder / "note.dcm").write_text("called the ward at 3")
    assert "are DICOM in name only" in sentence(folder)
    assert [case.scan for case in find_cases(folder, tmp_path / "out")] == [folder]  # a row, not silence
    (folder / "report").write_bytes(Path(str(get_testdata_file("reportsi.dcm"))).read_bytes())
    assert "only other objects such as reports" in sentence(folder)
    (folder / "report").unlink()
    (folder / "note.dcm").write_bytes(b"")
    assert "A DICOM file is empty" in sentence(folder)
    (folder / "note.dcm").rename(folder / "scan.nii")
    assert "1 NIfTI" in sentence(folder)
    (folder / "scan.nii").rename(folder / "scan.txt")
    assert "holds no DICOM images" in sentence(folder)

    file = series[5]
    content = file.read_bytes()
    file.write_bytes(content[:700])
    assert "damaged or cut off" in sentence(file.parent)
    file.write_bytes(content)

    def closed(path: Path, *arguments: Any, **options: Any) -> Any:
        if path == file:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    opened = Path.open
    monkeypatch.setattr(Path, "open", closed)
    assert "cannot be opened" in sentence(file.parent)


def test_a_folder_that_cannot_be_opened_is_not_passed_over(
    series: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    part = series[0].parent / "part"
    part.mkdir()
    series[0].rename(part / "first")
    hidden = series[0].parent / ".trash"
    hidden.mkdir()
    (hidden / "old").write_bytes(series[1].read_bytes())
    assert len(files_below(series[0].parent)) == 32

    def closed(path: Any) -> Any:
        if Path(path) == part:
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    scan = os.scandir
    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(InputError, match="folder of the scan cannot be opened"):
        files_below(series[0].parent)


def test_libraries_that_decode_pixels_write_nothing_to_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Slices in 12-bit JPEG: pydicom's decoders refuse them, each with a message, and GDCM reads them."""
    source = pydicom.dcmread(str(get_testdata_file("JPGExtended.dcm")))
    frame = next(generate_frames(source.PixelData, number_of_frames=1))
    files = write_dicom_series(HEAD[:, :, :9], tmp_path / "series")
    for file in files:
        header = pydicom.dcmread(file)
        for name in ("Rows", "Columns", "BitsStored", "HighBit", "PixelRepresentation"):
            setattr(header, name, source[name].value)
        header.PixelData = encapsulate([frame])
        header["PixelData"].is_undefined_length = True
        header.file_meta.TransferSyntaxUID = source.file_meta.TransferSyntaxUID
        header.save_as(file)
    image = read(tmp_path / "series").image
    assert image.GetSize()[:2] == (source.Columns, source.Rows)
    assert np.ptp(sitk.GetArrayViewFromImage(image)) > 100
    os.write(2, b"heard\n")  # later output is heard
    assert capfd.readouterr() == ("", "heard\n")
