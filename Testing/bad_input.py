"""A corpus of damaged, wrong and unusual scans and masks, generated from a seed.

    python3 Testing/bad_input.py DIR [SEED]    writes all of it, with list.csv

Every scan is the head of ``phantoms.py`` with a ball of blood of known volume, or what is left of it.
"""

from __future__ import annotations

import csv
import gzip
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
import pydicom
import SimpleITK as sitk
from HematomaExpansionLib.scan.grid import Grid, image_on
from phantoms import STRAIGHT, head_grid, head_hu, head_image, positions, write_dicom_series
from pydicom.uid import ExplicitVRBigEndian

Expected = Literal["right", "refused", "right or refused", "no crash"]

BALL_MM = 18.0
BALL_ML = 4 / 3 * np.pi * BALL_MM**3 / 1000

_SPACING = (2.0, 2.0, 4.0)
_TURNED = sitk.Euler3DTransform((0, 0, 0), 0.2, -0.15, 0.3).GetMatrix()
_HEADER_BYTES = {".nii": 348, ".nrrd": 400, ".mha": 300}


@dataclass(frozen=True)
class Input:
    """One case of the corpus.

    Attributes:
        name: name of its folder.
        scan: file or folder to give to ``predict``; the folder holds nothing else.
        mask: mask to give too, or None.
        expected: ``right``: the ball's volume and place; ``refused``: status 2 with a sentence; ``right or
            refused``; ``no crash``: nobody could tell, such as when one plausible spacing replaces another.
        center_mm: where the ball lies, LPS mm.
    """

    name: str
    scan: Path
    mask: Path | None
    expected: Expected
    center_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)


def make_bad_input(folder: Path, seed: int = 1) -> Iterator[Input]:
    """Write the corpus case by case into ``folder``."""
    random = np.random.default_rng(seed)
    makers = (_damaged_files, _flipped_headers, _no_images, _wrong_values, _wrong_shapes, _other_bodies)
    for make in (*makers, _same_scan, _damaged_series, _wrong_headers, _same_series, _masks):
        yield from make(folder, random)


# --- the head ------------------------------------------------------------------------------------------


def _head() -> sitk.Image:
    return head_image(head_grid(_SPACING), BALL_MM)


def _saved(image: sitk.Image, folder: Path, name: str, suffix: str = ".nrrd") -> Path:
    path = folder / name / f"scan{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path), useCompression=suffix == ".nrrd")
    return path


def _with_values(change: Callable[[np.ndarray], np.ndarray]) -> sitk.Image:
    head = _head()
    return image_on(Grid.of(head), change(sitk.GetArrayFromImage(head).astype(np.float32)))


def _put(folder: Path, name: str, suffix: str, content: bytes) -> Path:
    path = folder / name / f"scan{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# --- files ---------------------------------------------------------------------------------------------


def _damaged_files(folder: Path, random: np.random.Generator) -> Iterator[Input]:
    for suffix in (".nii", ".nii.gz", ".nrrd", ".mha"):
        whole = _saved(_head(), folder, f"whole{suffix}", suffix)
        yield Input(f"whole{suffix}", whole, None, "right")
        content = whole.read_bytes()
        for share in (0.0, 0.001, 0.05, 0.3, 0.7, 0.95, 0.999):
            name = f"cut-at-{share}{suffix}"
            path = _put(folder, name, suffix, content[: int(share * len(content))])
            yield Input(name, path, None, "refused")
        first = len(content) // 3  # past every header
        for number in range(4):
            name = f"flipped-voxel-bit-{number}{suffix}"
            path = _put(folder, name, suffix, _flip(content, random, first, len(content)))
            yield Input(name, path, None, "right or refused")
    little = bytearray((folder / "whole.nii" / "scan.nii").read_bytes())
    start = int(np.frombuffer(bytes(little[108:112]), "<f4")[0])
    voxels = np.frombuffer(bytes(little[start:]), "<i2")
    swapped = bytes(little[:start]) + voxels.astype(">i2").tobytes()
    plain: Any = nibabel.load(folder / "whole.nii" / "scan.nii")
    hu = np.asanyarray(plain.dataobj)
    big_endian = nibabel.Nifti1Image(hu.astype(">i2"), plain.affine, plain.header.as_byteswapped(">"))
    images: dict[str, Any] = {
        "big-endian-nifti": big_endian,
        "second-nifti": nibabel.Nifti2Image(hu, plain.affine),
    }
    for name, image in images.items():
        path = _put(folder, name, ".nii", b"")
        nibabel.save(image, path)
        yield Input(name, path, None, "right")
    yield Input("voxels-swapped", _put(folder, "voxels-swapped", ".nii", swapped), None, "refused")


def _flipped_headers(folder: Path, random: np.random.Generator) -> Iterator[Input]:
    for suffix, length in _HEADER_BYTES.items():
        content = _saved(_head(), folder, f"plain{suffix}", suffix).read_bytes()
        for number in range(8):
            name = f"flipped-header-bit-{number}{suffix}"
            yield Input(name, _put(folder, name, suffix, _flip(content, random, 0, length)), None, "no crash")


def _flip(content: bytes, random: np.random.Generator, first: int, last: int) -> bytes:
    """One bit flipped between two offsets."""
    changed = bytearray(content)
    changed[int(random.integers(first, last))] ^= 1 << int(random.integers(8))
    return bytes(changed)


def _no_images(folder: Path, random: np.random.Generator) -> Iterator[Input]:
    contents = {
        "noise": random.bytes(5000),
        "text": b"Patient moved, scan repeated.\n" * 40,
        "picture": b"\x89PNG\r\n\x1a\n" + random.bytes(2000),
        "archive": b"PK\x03\x04" + random.bytes(2000),
        "packed-text": gzip.compress(b"no image" * 100),
    }
    for kind, content in contents.items():
        for suffix in (".nii", ".nii.gz", ".nrrd", ".mha", ".dcm"):
            path = _put(folder, f"{kind}{suffix}", suffix, content)
            yield Input(f"{kind}{suffix}", path, None, "refused")
    yield Input("unknown-suffix", _put(folder, "unknown-suffix", ".img2", b"?"), None, "refused")
    empty = folder / "empty-folder" / "scan"
    empty.mkdir(parents=True)
    yield Input("empty-folder", empty, None, "refused")
    yield Input("nowhere", folder / "nowhere" / "scan.nii.gz", None, "refused")
    pixels = "NRRD0004\ntype: short\ndimension: 3\nsizes: 60000 60000 60000\nencoding: raw\nendian: little\n\n"
    yield Input("huge-on-paper", _put(folder, "huge-on-paper", ".nrrd", pixels.encode()), None, "refused")
    elsewhere = "NRRD0004\ntype: short\ndimension: 3\nsizes: 90 90 40\nencoding: raw\ndata file: ../../../secret\n"
    yield Input("data-elsewhere", _put(folder, "data-elsewhere", ".nhdr", elsewhere.encode()), None, "refused")


# --- values --------------------------------------------------------------------------------------------


def _wrong_values(folder: Path, random: np.random.Generator) -> Iterator[Input]:
    def with_one(value: float) -> Callable[[np.ndarray], np.ndarray]:
        def change(hu: np.ndarray) -> np.ndarray:
            hu.flat[int(random.integers(hu.size))] = value
            return hu

        return change

    refused: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "one-nan": with_one(np.nan),
        "one-infinity": with_one(np.inf),
        "one-negative-infinity": with_one(-np.inf),
        "all-nan": lambda hu: np.full_like(hu, np.nan),
        "blank": np.zeros_like,
        "all-air": lambda hu: np.full_like(hu, -1000) + random.normal(0, 3, hu.shape).astype(np.float32),
        "all-water": lambda hu: random.normal(0, 3, hu.shape).astype(np.float32),
        "windowed": lambda hu: np.clip((hu + 10) / 90 * 255, 0, 255).astype(np.uint8),
        "windowed-as-float": lambda hu: np.clip((hu + 10) / 90 * 255, 0, 255).round(),
        "scaled-to-one": lambda hu: (hu + 1024) / 4095,
        "stored-values": lambda hu: hu + 1024,
        "like-mr": lambda hu: np.abs(hu + 1000) * 0.7,
        "upside-down": lambda hu: -hu,
        "in-thousandths": lambda hu: hu / 1000,
    }
    for name, change in refused.items():
        yield Input(name, _saved(_with_values(change), folder, name), None, "refused")
    right: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "metal-in-the-scalp": _metal,
        "padding-of-3024": lambda hu: np.where(hu < -900, -3024, hu),
        "one-hot-voxel": with_one(30000.0),
        "as-double": lambda hu: hu.astype(np.float64),
        "as-long": lambda hu: hu.astype(np.int32),
    }
    for name, change in right.items():
        yield Input(name, _saved(_with_values(change), folder, name), None, "right")


def _metal(hu: np.ndarray) -> np.ndarray:
    points = positions(head_grid(_SPACING))
    hu[np.linalg.norm(points - (-73.0, 0.0, 20.0), axis=-1) < 5] = 3071
    return hu


# --- shapes --------------------------------------------------------------------------------------------


def _wrong_shapes(folder: Path, random: np.random.Generator) -> Iterator[Input]:
    head = _head()
    middle = head.GetSize()[2] // 2
    refused = {
        "two-volumes": sitk.JoinSeries([head, head]),
        "one-slice": head[:, :, middle : middle + 1],
        "flat": head[:, :, middle],
        "three-slices": head[:, :, middle : middle + 3],
        "five-centimeters": head[:, :, middle - 6 : middle + 6],
        "colors": sitk.Compose([sitk.Cast(head / 8 + 128, sitk.sitkUInt8)] * 3),
        "complex": sitk.RealAndImaginaryToComplex(
            sitk.Cast(head, sitk.sitkFloat32), sitk.Cast(head, sitk.sitkFloat32)
        ),
    }
    for name, image in refused.items():
        yield Input(name, _saved(image, folder, name), None, "refused")
    for name, spacing in {
        "huge-voxels": (40.0, 40.0, 80.0),
        "minute-voxels": (0.01, 0.01, 0.02),
        "in-meters": (0.002, 0.002, 0.004),
        "wide-slices": (2.0, 2.0, 40.0),
    }.items():
        changed = sitk.Image(head)
        changed.SetSpacing(spacing)
        yield Input(name, _saved(changed, folder, name), None, "refused")
    plain = _saved(head, folder, "spacing", ".nii").read_bytes()
    for name, value in {"zero": 0.0, "negative": -4.0, "nan": np.nan, "infinite": np.inf}.items():
        changed_header = bytearray(plain)
        changed_header[88:92] = np.array([value], "<f4").tobytes()  # pixdim[3]
        path = _put(folder, f"{name}-spacing", ".nii", bytes(changed_header))
        yield Input(f"{name}-spacing", path, None, "refused")


def _other_bodies(folder: Path, random: np.random.Generator) -> Iterator[Input]:
    grid = head_grid(_SPACING)
    points = positions(grid)

    def noise(shape: tuple[int, ...]) -> np.ndarray:
        return random.normal(0, 3, shape)

    without_skull = head_hu(points, sphere_mm=BALL_MM)
    without_skull[without_skull > 200] = 40
    phantom = np.where(np.linalg.norm(points[..., :2], axis=-1) < 90, 0.0, -1000.0)
    bodies = {
        "no-skull": without_skull,
        "water-phantom": phantom,
        "small-animal": head_hu(points * 4, sphere_mm=BALL_MM),
        "table-alone": np.where(np.abs(points[..., 1] - 100) < 3, 150.0, -1000.0),
    }
    for name, hu in bodies.items():
        image = image_on(grid, (hu + noise(grid.shape)).astype(np.float32))
        yield Input(name, _saved(image, folder, name), None, "refused")
    wide = head_grid((4.0, 4.0, 4.0), extent=(480.0, 400.0, 300.0))
    places = positions(wide)
    trunk = (places[..., 0] / 200) ** 2 + (places[..., 1] / 140) ** 2 <= 1
    spine = np.hypot(places[..., 0], places[..., 1] - 80) < 20
    torso = np.where(spine, 400.0, np.where(trunk, 40.0, -1000.0)) + noise(wide.shape)
    yield Input("torso", _saved(image_on(wide, torso.astype(np.float32)), folder, "torso"), None, "refused")
    for name, scale in (("giant", 0.5), ("half-size", 2.0)):
        hu = head_hu(positions(head_grid((4.0,) * 3, extent=(480.0, 480.0, 400.0))) * scale, sphere_mm=BALL_MM)
        large = image_on(head_grid((4.0,) * 3, extent=(480.0, 480.0, 400.0)), hu + noise(hu.shape))
        yield Input(name, _saved(sitk.Cast(large, sitk.sitkFloat32), folder, name), None, "refused")


# --- the same scan, stored differently -----------------------------------------------------------------


def _same_scan(folder: Path, random: np.random.Generator) -> Iterator[Input]:
    head = _head()
    codes = ("RAS", "LPI", "RPI", "LAS", "PIR", "ASL", "SRP", "IAL", "PSR", "SLA", "ARI", "RIP")
    for number, code in enumerate(codes):
        suffix = (".nii.gz", ".nrrd", ".mha")[number % 3]
        path = _saved(sitk.DICOMOrient(head, code), folder, f"stored-{code}", suffix)
        yield Input(f"stored-{code}", path, None, "right")
    for number, direction in enumerate((_TURNED, (-1.0, 0, 0, 0, 1, 0, 0, 0, 1), (1, 0, 0, 0, -1, 0, 0, 0, 1))):
        image = head_image(head_grid(_SPACING, tuple(map(float, direction)), (240.0, 280.0, 220.0)), BALL_MM)
        for suffix in (".nii.gz", ".nrrd"):
            name = f"direction-{number}{suffix}"
            yield Input(name, _saved(image, folder, name, suffix), None, "right")
    for number, shear in enumerate((0.2, -0.3)):
        direction = np.array([[1, 0, 0], [0, 1, shear], [0, 0, 1]])
        direction[:, 2] /= np.linalg.norm(direction[:, 2])
        grid = head_grid(_SPACING, tuple(map(float, direction.ravel())), (200.0, 300.0, 160.0))
        name = f"sheared-{number}"
        yield Input(name, _saved(head_image(grid, BALL_MM), folder, name), None, "right")
    for spacing in ((1.0, 1.0, 2.0), (1.0, 1.0, 5.0), (0.8, 1.3, 5.0), (2.0, 2.0, 2.0), (3.0, 3.0, 3.0)):
        name = "spacing-" + "-".join(map(str, spacing))
        yield Input(name, _saved(head_image(head_grid(spacing), BALL_MM), folder, name), None, "right")
    for number in range(4):
        shift = random.uniform(-800, 800, 3)
        moved = sitk.Image(head)
        moved.SetOrigin((np.array(head.GetOrigin()) + shift).tolist())
        center = float(shift[0]), float(shift[1]), float(shift[2])
        yield Input(f"moved-{number}", _saved(moved, folder, f"moved-{number}"), None, "right", center)
    yield Input("cropped", _saved(head[10:-10, 8:-4, 2:], folder, "cropped"), None, "right")
    padded = sitk.ConstantPad(head, [20, 5, 4], [3, 30, 1], -1000)
    yield Input("padded", _saved(padded, folder, "padded"), None, "right")
    single = sitk.JoinSeries([head])
    yield Input("one-volume-in-4d", _saved(single, folder, "one-volume-in-4d"), None, "right")


# --- DICOM ---------------------------------------------------------------------------------------------


def _series(folder: Path, name: str, **tags: Any) -> tuple[Path, list[Path]]:
    """A series in a folder of that name, its files from the lowest slice up."""
    path = folder / name / "scan"
    return path, write_dicom_series(_head(), path, **tags)


def _damaged_series(folder: Path, random: np.random.Generator) -> Iterator[Input]:
    for share in (0.0, 0.01, 0.3, 0.9):
        path, files = _series(folder, f"slice-cut-at-{share}")
        content = files[17].read_bytes()
        files[17].write_bytes(content[: int(share * len(content))])
        yield Input(path.parent.name, path, None, "refused" if share >= 0.01 else "right or refused")
    for number in range(8):
        path, files = _series(folder, f"flipped-bit-in-a-header-{number}")
        content = files[17].read_bytes()
        files[17].write_bytes(_flip(content, random, 132, 900))
        yield Input(path.parent.name, path, None, "no crash")
    for number in range(4):
        path, files = _series(folder, f"flipped-bit-in-a-slice-{number}")
        content = files[17].read_bytes()
        files[17].write_bytes(_flip(content, random, 2000, len(content)))
        yield Input(path.parent.name, path, None, "right")
    for number, lost in enumerate(((20,), (12, 13), (9, 25))):
        path, files = _series(folder, f"slices-lost-{number}")
        for index in lost:
            files[index].unlink()
        yield Input(path.parent.name, path, None, "refused")
    path, files = _series(folder, "slice-twice")
    shutil.copyfile(files[11], path / "again")
    yield Input("slice-twice", path, None, "refused")
    path, _ = _series(folder, "two-series")
    write_dicom_series(_head(), path / "other")
    yield Input("two-series", path, None, "refused")
    path, _ = _series(folder, "with-a-cut-through-the-other-plane", SeriesInstanceUID="1.2.3")
    turned = head_grid(_SPACING, (0.0, 0, 1, 1, 0, 0, 0, 1, 0))
    write_dicom_series(head_image(turned, BALL_MM), path / "other", SeriesInstanceUID="1.2.3")
    yield Input(path.parent.name, path, None, "refused")


def _wrong_headers(folder: Path, random: np.random.Generator) -> Iterator[Input]:
    tags: dict[str, dict[str, Any]] = {
        "mr": {"Modality": "MR"},
        "angiography": {"SeriesDescription": "CTA HEAD"},
        "contrast": {"ContrastBolusAgent": "Iodine 300"},
        "localizer": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        "no-pixel-size": {"PixelSpacing": None},
        "zero-pixel-size": {"PixelSpacing": ["0", "0"]},
        "negative-pixel-size": {"PixelSpacing": ["-2", "2"]},
        "no-position": {"ImagePositionPatient": None},
        "one-position": {"ImagePositionPatient": ["0", "0", "0"]},
        "no-orientation": {"ImageOrientationPatient": None},
        "axes-not-at-right-angles": {"ImageOrientationPatient": ["1", "0", "0", "1", "0", "0"]},
        "no-axes": {"ImageOrientationPatient": ["0", "0", "0", "0", "0", "0"]},
        "slope-of-a-thousand": {"RescaleSlope": "1000"},
        "offset-missing": {"RescaleIntercept": "1024"},
        "more-rows-than-pixels": {"Rows": 4000},
        "fewer-bits-than-pixels": {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7},
        "several-frames": {"NumberOfFrames": 36},
    }
    for name, header in tags.items():
        path, _ = _series(folder, name, **header)
        yield Input(name, path, None, "refused")


def _same_series(folder: Path, random: np.random.Generator) -> Iterator[Input]:
    path, files = _series(folder, "series")
    yield Input("series", path, None, "right")
    path, _ = _series(folder, "series-with-notes")
    (path / "notes.txt").write_text("called the ward at 3")
    (path / ".DS_Store").write_bytes(random.bytes(100))
    yield Input(path.parent.name, path, None, "right")
    path, files = _series(folder, "series-in-subfolders")
    for number, file in enumerate(files):
        (path / str(number % 5)).mkdir(exist_ok=True)
        file.rename(path / str(number % 5) / file.name)
    yield Input(path.parent.name, path, None, "right")
    path, files = _series(folder, "big-endian")
    for file in files:
        header = pydicom.dcmread(file)
        header.decode()
        header.PixelData = np.frombuffer(header.PixelData, "<i2").astype(">i2").tobytes()
        header.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        pydicom.dcmwrite(file, header, little_endian=False, implicit_vr=False, force_encoding=True)
    yield Input(path.parent.name, path, None, "right")
    path, files = _series(folder, "pixels-swapped")
    for file in files:
        header = pydicom.dcmread(file)
        header.PixelData = np.frombuffer(header.PixelData, "<i2").astype(">i2").tobytes()
        header.save_as(file)
    yield Input(path.parent.name, path, None, "refused")
    for name, direction in {"turned": _TURNED, "from-the-side": (0.0, 0, 1, 1, 0, 0, 0, 1, 0)}.items():
        path = folder / f"series-{name}" / "scan"
        grid = head_grid((2.0, 2.0, 3.0), tuple(map(float, direction)), (260.0, 260.0, 240.0))
        write_dicom_series(head_image(grid, BALL_MM), path)
        yield Input(path.parent.name, path, None, "right")


# --- masks ---------------------------------------------------------------------------------------------


def _masks(folder: Path, random: np.random.Generator) -> Iterator[Input]:
    head = _head()
    grid = Grid.of(head)

    def ball(
        on: Grid, center: tuple[float, float, float] = (0.0, 0.0, 0.0), radius: float = BALL_MM
    ) -> sitk.Image:
        inside = np.linalg.norm(positions(on) - np.array(center), axis=-1) <= radius
        return image_on(on, inside.astype(np.uint8))

    own = ball(grid)
    elsewhere = sitk.Image(own)
    elsewhere.SetOrigin((500.0, 500.0, 500.0))
    one_voxel = sitk.Image(own) * 0
    one_voxel[5, 5, 5] = 1
    finer = head_grid((1.0, 1.0, 1.5), STRAIGHT, (60.0, 60.0, 60.0))
    edema = ball(grid, radius=27.0)
    masks: dict[str, tuple[sitk.Image, Expected]] = {
        "own": (own, "right"),
        "stored-otherwise": (sitk.DICOMOrient(own, "PIR"), "right"),
        "finer": (ball(finer), "right"),
        "turned": (ball(head_grid((1.5, 1.5, 2.0), _TURNED, (80.0, 80.0, 80.0))), "right"),
        "other-label": (sitk.Cast(own, sitk.sitkInt16) * 300, "right"),
        "probability": (sitk.Cast(own, sitk.sitkFloat32) * 0.9, "right"),
        "two-labels": (edema * 2 - own, "refused"),
        "scan": (head, "refused"),
        "empty": (own * 0, "refused"),
        "elsewhere": (elsewhere, "refused"),
        "two-volumes": (sitk.JoinSeries([own, own]), "refused"),
        "flat": (own[:, :, 20], "refused"),
        "colors": (sitk.Compose([own, own, own]), "refused"),
        "table": (ball(grid, (0.0, 100.0, 0.0), 15.0), "refused"),
        "corner-voxel": (one_voxel, "refused"),
        "nan": (sitk.Cast(own, sitk.sitkFloat32) * float("nan"), "refused"),
        "whole-head": (sitk.Cast(sitk.Cast(head, sitk.sitkFloat32) > -300, sitk.sitkUInt8), "refused"),
        "whole-brain": (ball(grid, radius=64.0), "refused"),
    }
    for kind, (mask, expected) in masks.items():
        name = f"mask-{kind}"
        scan = _saved(head, folder, name)
        path = scan.with_name("mask.nrrd")
        sitk.WriteImage(mask, str(path))
        yield Input(name, scan, path, expected)
    scan = _saved(head, folder, "mask-cut")
    content = (folder / "mask-own" / "mask.nrrd").read_bytes()
    cut = scan.with_name("mask.nrrd")
    cut.write_bytes(content[: len(content) // 2])
    yield Input("mask-cut", scan, cut, "refused")


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "list.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in fields(Input))
        writer.writerows(map(astuple, make_bad_input(folder, int(sys.argv[2]) if len(sys.argv) > 2 else 1)))


if __name__ == "__main__":
    main()
