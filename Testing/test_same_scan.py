"""The same scan stored in another way gives the same prediction (properties, with Hypothesis)."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from HematomaExpansionLib.cli.main import main
from HematomaExpansionLib.scan.grid import Grid, image_on
from HematomaExpansionLib.scan.resampling import resample
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from phantoms import head_hu, positions
from scipy import ndimage

GRID = Grid((110, 130, 40), (2.0, 2.0, 4.0), (-109.0, -129.0, -78.0), (1.0, 0, 0, 0, 1, 0, 0, 0, 1))
AIR_AROUND = 8
"""Voxels of air on each side of the head in plane, at least."""

_AXES = ("RL", "AP", "SI")
ORIENTATIONS = sorted("".join(code) for axes in permutations(_AXES) for code in product(*axes))


@dataclass(frozen=True)
class Storage:
    """One way to store a scan; lengths in voxels of the axes left, posterior, superior, and mm."""

    orientation: str
    cropped: tuple[int, int]
    padded: tuple[int, int, int]
    in_plane_mm: float
    shift_mm: tuple[float, float, float]
    suffix: str


STORAGES = st.builds(
    Storage,
    orientation=st.sampled_from(ORIENTATIONS),
    cropped=st.tuples(*[st.integers(0, AIR_AROUND)] * 2),
    padded=st.tuples(*[st.integers(0, 12)] * 3),
    in_plane_mm=st.sampled_from([2.0, 2.0, 1.6, 2.4]),
    shift_mm=st.tuples(*[st.floats(-300, 300)] * 3),
    suffix=st.sampled_from([".nii.gz", ".nii", ".nrrd", ".mha"]),
)


def head() -> sitk.Image:
    """A head with an ellipsoid of blood, uneven enough that no two axes are alike."""
    points = positions(GRID)
    hu = head_hu(points)
    blood = np.linalg.norm((points - (20.0, -10.0, 8.0)) / (14.0, 22.0, 17.0), axis=-1) <= 1
    hu[blood] = 64.0
    hu += np.random.default_rng(2).normal(0, 3, hu.shape)
    return image_on(GRID, hu.astype(np.float32))


def stored(image: sitk.Image, storage: Storage) -> sitk.Image:
    if storage.in_plane_mm != GRID.spacing[0]:
        spacing = (storage.in_plane_mm, storage.in_plane_mm, GRID.spacing[2])
        image = resample(image, Grid.of(image).with_spacing(spacing), outside=-1000.0)
    x, y = storage.cropped
    image = image[x : image.GetSize()[0] - x, y : image.GetSize()[1] - y, :]
    image = sitk.ConstantPad(image, storage.padded, storage.padded[::-1], -1000.0)
    image.SetOrigin((np.array(image.GetOrigin()) + storage.shift_mm).tolist())
    return sitk.Cast(sitk.Round(sitk.DICOMOrient(image, storage.orientation)), sitk.sitkInt16)


def predicted(image: sitk.Image, suffix: str, shift_mm: tuple[float, float, float]) -> tuple[dict[str, Any], Any]:
    """The result, and the predicted mask as (z, y, x) on ``GRID``."""
    with tempfile.TemporaryDirectory() as folder:
        scan, output = Path(folder) / f"scan{suffix}", Path(folder) / "result"
        sitk.WriteImage(image, str(scan))
        arguments = ["predict", "-i", str(scan), "-o", str(output), "--segmenter", "threshold"]
        assert main([*arguments, "--device", "cpu"]) == 0
        mask = sitk.ReadImage(str(output / "followup-mask.nii.gz"))
        result: dict[str, Any] = json.loads((output / "prediction.json").read_text())
    mask.SetOrigin((np.array(mask.GetOrigin()) - shift_mm).tolist())
    return result, sitk.GetArrayFromImage(resample(sitk.Cast(mask, sitk.sitkFloat32), GRID)) >= 0.5


@pytest.fixture(scope="module")
def expected() -> tuple[dict[str, Any], Any]:
    return predicted(sitk.Cast(sitk.Round(head()), sitk.sitkInt16), ".nii.gz", (0.0, 0.0, 0.0))


def check(storage: Storage, expected: tuple[dict[str, Any], Any]) -> None:
    (result, mask), (reference, reference_mask) = (
        predicted(stored(head(), storage), storage.suffix, storage.shift_mm),
        expected,
    )
    resliced = storage.in_plane_mm != GRID.spacing[0]
    tolerance = 0.04 if resliced else 0.01
    assert reference["baseline"]["volume_ml"] == pytest.approx(4 / 3 * np.pi * 14 * 22 * 17 / 1000, rel=0.08)
    for part in ("baseline", "followup"):
        assert result[part]["volume_ml"] == pytest.approx(reference[part]["volume_ml"], rel=tolerance), part
        # A and B are about 12 and 20 voxels long, and each may be one more or less on other voxels. At follow-up,
        # a slice near a quarter or three quarters of the largest may count for half as well, one of 14 halves.
        layer = {"baseline": 0.12, "followup": 0.12 + 1 / 14}[part] if resliced else 0.01
        assert result[part]["abc2_ml"] == pytest.approx(reference[part]["abc2_ml"], rel=layer), part
    growth = reference["growth"]["absolute_ml"]
    assert result["growth"]["absolute_ml"] == pytest.approx(growth, abs=0.3 + tolerance * growth)
    cube = np.ones((3, 3, 3), bool)
    assert not (mask & ~ndimage.binary_dilation(reference_mask, cube)).any(), "more than a layer outside"
    assert not (ndimage.binary_erosion(reference_mask, cube) & ~mask).any(), "more than a layer inside"


QUIET: dict[str, Any] = {
    "deadline": None,
    "derandomize": True,
    "phases": [Phase.generate],  # shrinking would repeat predictions for minutes
    "suppress_health_check": list(HealthCheck),
}


@settings(max_examples=8, **QUIET)
@given(storage=STORAGES)
def test_another_way_of_storing_changes_nothing(storage: Storage, expected: tuple[dict[str, Any], Any]) -> None:
    check(storage, expected)


@pytest.mark.slow
@settings(max_examples=60, **QUIET)
@given(storage=STORAGES)
def test_no_way_of_storing_changes_anything(storage: Storage, expected: tuple[dict[str, Any], Any]) -> None:
    check(storage, expected)
