"""A resumed batch keeps what was made from the same scans, masks, options and models, and nothing else."""

from __future__ import annotations

import hashlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import SimpleITK as sitk
from HematomaExpansionLib.batch.cases import BatchCase
from HematomaExpansionLib.batch.run import run_batch
from HematomaExpansionLib.batch.workers import Workers
from HematomaExpansionLib.errors import InputError
from HematomaExpansionLib.models.package import find_package
from HematomaExpansionLib.prediction import PredictionOptions
from phantoms import head_grid, head_image, write_dicom_series

pytestmark = pytest.mark.usefixtures("each_brain_found_once")

COARSE = head_grid((4.0, 4.0, 8.0))


def write_head(path: Path, sphere_mm: float = 0.0, noise_hu: float = 3.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(head_image(COARSE, sphere_mm, noise_hu), str(path))
    return path


def write_ball(path: Path, radius_mm: float) -> Path:
    sitk.WriteImage(head_image(COARSE, radius_mm, noise_hu=0.0) == 65, str(path))
    return path


@dataclass(frozen=True)
class Batch:
    """Three cases, one a DICOM folder and one with a mask, and what was predicted of them."""

    cases: tuple[BatchCase, ...]
    output: Path
    options: PredictionOptions

    def run(self, **changes: object) -> dict[str, str]:
        """Run or resume; returns the status of each case."""
        options = replace(self.options, **changes)  # type: ignore[arg-type]
        rows = run_batch(self.cases, self.output, options, Workers(1, ThreadPoolExecutor))
        return {row.case: row.status for row in rows}

    def results(self) -> dict[str, tuple[int, str]]:
        """For each case, when its result was written, and the checksum of its scan that it records."""
        return {
            path.parent.name: (path.stat().st_mtime_ns, json.loads(path.read_text())["input"]["sha256"])
            for path in self.output.glob("*/prediction.json")
        }


@pytest.fixture(scope="module")
def finished_batch(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    folder = tmp_path_factory.mktemp("batch")
    write_dicom_series(head_image(COARSE), folder / "dicom")
    cases = (
        BatchCase("file", write_head(folder / "file.nii.gz")),
        BatchCase("dicom", folder / "dicom"),
        BatchCase("masked", write_head(folder / "masked.nii.gz", 20.0), write_ball(folder / "mask.nrrd", 15.0)),
    )
    output = folder / "out"
    output.mkdir()
    growth = find_package(None, "growth")
    batch = Batch(
        cases, output, PredictionOptions(growth, None, find_package(None, "forecast"), device_name="cpu")
    )
    assert set(batch.run().values()) == {"done"}
    return batch


@pytest.fixture
def batch(finished_batch: Batch, tmp_path: Path) -> Batch:
    """A copy of the finished batch, elsewhere and under other names."""
    shutil.copytree(finished_batch.output.parent, tmp_path / "moved")

    def moved(path: Path | None) -> Path | None:
        return None if path is None else tmp_path / "moved" / path.name

    cases = [replace(case, scan=moved(case.scan), mask=moved(case.mask)) for case in finished_batch.cases]
    for number, file in enumerate(sorted((tmp_path / "moved" / "dicom").iterdir())):
        file.rename(file.with_name(f"other{number}.dcm"))
    return replace(finished_batch, cases=tuple(cases), output=tmp_path / "moved" / "out")


def test_a_result_tells_the_content_of_its_scan_and_not_where_it_lay(batch: Batch) -> None:
    before = batch.results()
    (file, _, masked), (_, (_, sha256)) = batch.cases, (None, before["file"])
    assert sha256 == hashlib.sha256(file.scan.read_bytes()).hexdigest()
    assert before["masked"][1] == hashlib.sha256(masked.scan.read_bytes()).hexdigest()
    assert len(before["dicom"][1]) == 64
    assert set(batch.run().values()) == {"done"}
    assert batch.results() == before, "the same contents elsewhere were predicted again"


@pytest.mark.parametrize("changed", ["file", "dicom", "masked"])
def test_a_case_whose_scan_or_mask_was_replaced_is_predicted_again(batch: Batch, changed: str) -> None:
    before = batch.results()
    case = next(case for case in batch.cases if case.name == changed)
    if changed == "file":
        write_head(case.scan, noise_hu=2.0)
    elif changed == "masked":
        assert case.mask is not None
        write_ball(case.mask, 12.0)
    else:
        (_, last) = sorted(case.scan.iterdir())[-2:]
        content = bytearray(last.read_bytes())
        content[-2] ^= 1  # one bit of one voxel
        last.write_bytes(content)
    assert set(batch.run().values()) == {"done"}
    after = batch.results()
    assert {name for name in after if after[name][0] != before[name][0]} == {changed}
    assert (after[changed][1] != before[changed][1]) == (changed != "masked")
    volume = json.loads((batch.output / changed / "prediction.json").read_text())["baseline"]["volume_ml"]
    assert (volume < 10) == (changed == "masked") or volume == 0
    again = batch.results()
    assert set(batch.run().values()) == {"done"}
    assert batch.results() == again


def test_with_other_options_nothing_is_resumed(batch: Batch) -> None:
    before = batch.results()
    with pytest.raises(InputError, match=r"Resume with the same"):
        batch.run(segmenter=find_package(None, "segmentation"))
    with pytest.raises(InputError, match=r"Resume with the same"):
        batch.run(risk=find_package(None, "risk"))
    assert batch.results() == before


def test_a_result_that_somebody_has_changed_is_neither_taken_nor_replaced(batch: Batch) -> None:
    corrected = write_ball(batch.output / "masked" / "baseline-mask.nii.gz", 10.0).read_bytes()
    with pytest.raises(InputError, match=r"masked.*changed since"):
        batch.run()
    assert (batch.output / "masked" / "baseline-mask.nii.gz").read_bytes() == corrected
