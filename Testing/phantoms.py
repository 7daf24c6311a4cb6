"""Heads and DICOM series made for the tests, with every length and volume known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from HematomaExpansionLib.scan.grid import Grid, image_on
from HematomaExpansionLib.scan.head_ct import read_head_ct
from HematomaExpansionLib.scan.mask import Mask
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

STRAIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
BRAIN_SEMI_AXES = (65.0, 78.0, 60.0)
BRAIN_ML = 4 / 3 * np.pi * 65 * 78 * 60 / 1000

HeadFunction = Callable[[np.ndarray], np.ndarray]


def head_hu(points: np.ndarray, center: Sequence[float] = (0.0, 0.0, 0.0), sphere_mm: float = 0.0) -> np.ndarray:
    """HU at LPS positions (…, 3) of a head around ``center``: an ellipsoid brain in a shell of bone, a scalp,
    eyes and neck outside it, a foramen at the base, a table behind, and a ball of blood of that radius."""
    x, y, z = np.moveaxis(points - np.asarray(center), -1, 0)
    a, b, c = BRAIN_SEMI_AXES

    def shell(extra: float) -> np.ndarray:
        return (x / (a + extra)) ** 2 + (y / (b + extra)) ** 2 + (z / (c + extra)) ** 2

    hu = np.full(x.shape, -1000.0, np.float32)
    hu[np.abs(y - (b + 22)) < 2] = 150.0  # table
    neck = (np.hypot(x, y - 15) < 45) & (z < -40)
    hu[neck] = 50.0
    for side in (-1, 1):  # eyes
        hu[(x - side * 30) ** 2 + (y + b + 12) ** 2 + (z + 25) ** 2 < 12**2] = 15.0
    hu[shell(12) <= 1] = 30.0
    hu[shell(6) <= 1] = 1000.0
    hu[(np.hypot(x, y - 15) < 14) & (z < -45) & neck] = 35.0  # cord in the foramen
    hu[shell(0) <= 1] = 33.0
    if sphere_mm > 0:
        hu[x**2 + y**2 + z**2 <= sphere_mm**2] = 65.0
    return hu


def positions(grid: Grid) -> np.ndarray:
    """LPS positions (z, y, x, 3) of a grid's voxels."""
    source = sitk.PhysicalPointSource(
        sitk.sitkVectorFloat64, list(grid.size), grid.origin, grid.spacing, grid.direction
    )
    return sitk.GetArrayFromImage(source)


def head_grid(
    spacing: tuple[float, float, float] = (2.0, 2.0, 4.0),
    direction: tuple[float, ...] = STRAIGHT,
    extent: tuple[float, float, float] = (200.0, 240.0, 160.0),
) -> Grid:
    """A grid of that spacing and direction, centered on the origin, that holds the head."""
    size = tuple(round(length / step) for length, step in zip(extent, spacing, strict=True))
    grid = Grid((size[0], size[1], size[2]), spacing, (0.0, 0.0, 0.0), direction)
    corner = -grid.point((np.array(size) - 1) / 2)
    return Grid(grid.size, spacing, (float(corner[0]), float(corner[1]), float(corner[2])), direction)


def head_image(grid: Grid, sphere_mm: float = 0.0, noise_hu: float = 3.0) -> sitk.Image:
    """The head around the origin, as int16 HU on any grid."""
    return sitk.Image(_head_image(grid, sphere_mm, noise_hu))


@lru_cache(maxsize=16)
def _head_image(grid: Grid, sphere_mm: float, noise_hu: float) -> sitk.Image:
    noise = np.random.default_rng(0).normal(0, noise_hu, grid.shape)
    return image_on(grid, np.round(head_hu(positions(grid), sphere_mm=sphere_mm) + noise).astype(np.int16))


SAMPLE = (
    Path(__file__).resolve().parent.parent
    / "HematomaExpansion"
    / "Resources"
    / "SampleData"
    / "simulated-patient-baseline.nii.gz"
)


@cache
def _sample() -> sitk.Image:
    return read_head_ct(SAMPLE).image


def sample() -> sitk.Image:
    """The simulated patient that comes with the extension: HU, float32, a bleed of 19 mL around (103, 124, 14)."""
    return sitk.Image(_sample())


def without_flap(
    image: sitk.Image, index: Sequence[float] = (52, 129, 14.7), radius_mm: float = 50.0
) -> sitk.Image:
    """A scan (HU) without the bone within ``radius_mm`` of a voxel (x, y, z)."""
    hu = sitk.GetArrayFromImage(image)
    grid = Grid.of(image)
    near = np.linalg.norm(positions(grid) - grid.point(index), axis=-1) < radius_mm
    hu[near & (hu > 100)] = 20
    return image_on(grid, hu)


def write_dicom_series(image: sitk.Image, folder: Path, **tags: Any) -> list[Path]:
    """An image's slices (array axis 0) as DICOM files; ``tags`` are put into every header."""
    grid = Grid.of(image)
    slices = [(grid.point((0, 0, k)), plane) for k, plane in enumerate(sitk.GetArrayFromImage(image))]
    direction = np.array(grid.direction).reshape(3, 3)
    return write_slices(slices, direction[:, 0], direction[:, 1], grid.spacing[:2], folder, **tags)


def write_slices(
    slices: Sequence[tuple[np.ndarray, np.ndarray]],
    row: np.ndarray,
    column: np.ndarray,
    pixel_mm: tuple[float, float],
    folder: Path,
    **tags: Any,
) -> list[Path]:
    """Write slices given as (LPS position of the first voxel, HU as (y, x)); the file names are in no order."""
    folder.mkdir(parents=True, exist_ok=True)
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    names = np.random.default_rng(1).permutation(len(slices))
    files = []
    for number, (position, hu) in enumerate(slices):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = folder / f"image{names[number]:03d}"
        header = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        values: dict[str, Any] = {
            "SOPClassUID": CTImageStorage,
            "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
            "Modality": "CT",
            "SeriesInstanceUID": series,
            "StudyInstanceUID": study,
            "FrameOfReferenceUID": frame,
            "InstanceNumber": number + 1,
            "ImagePositionPatient": [f"{value:.6f}" for value in position],
            "ImageOrientationPatient": [f"{value:.9f}" for value in (*row, *column)],
            "PixelSpacing": [f"{pixel_mm[1]:.7f}", f"{pixel_mm[0]:.7f}"],
            "Rows": hu.shape[0],
            "Columns": hu.shape[1],
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "BitsAllocated": 16,
            "BitsStored": 16,
            "HighBit": 15,
            "PixelRepresentation": 1,
            "RescaleSlope": 1,
            "RescaleIntercept": 0,
        }
        for name, value in (values | tags).items():
            setattr(header, name, value)
        header.PixelData = np.ascontiguousarray(hu, dtype=np.int16).tobytes()
        header.save_as(path, enforce_file_format=True)
        files.append(path)
    return files


def voxels(shape: sitk.Image | Mask) -> np.ndarray:
    """The voxels of a mask as Booleans (z, y, x); for an image, those above 0."""
    return shape.voxels if isinstance(shape, Mask) else sitk.GetArrayFromImage(shape) > 0


def volume_ml(shape: sitk.Image | Mask) -> float:
    """The volume of those voxels in mL."""
    grid = shape.grid if isinstance(shape, Mask) else Grid.of(shape)
    return float(np.count_nonzero(voxels(shape)) * abs(np.linalg.det(grid.axes)) / 1000)
