"""Time and memory of a prediction, stage by stage, and the least time its multiply-adds could take.

python3 Testing/benchmarks/speed.py --ratio > Testing/benchmarks/RESULTS.md

The scan is the sample patient, resampled onto the named grids. Each whole run is its own process, so that imports
and peak memory count; a warm run follows another in the same process. ``--ratio`` also times the published method,
which takes minutes.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "HematomaExpansion"), str(Path(__file__).parent)]

import numpy as np  # noqa: E402
import SimpleITK as sitk  # noqa: E402
import torch  # noqa: E402
from HematomaExpansionLib.anatomy.brain import extract_brain  # noqa: E402
from HematomaExpansionLib.anatomy.segmentation import brain_region  # noqa: E402
from HematomaExpansionLib.growth.outcomes import predict_outcomes  # noqa: E402
from HematomaExpansionLib.models.package import ModelPackage, find_package  # noqa: E402
from HematomaExpansionLib.output.prediction_folder import write_prediction  # noqa: E402
from HematomaExpansionLib.prediction import PredictionOptions, predict  # noqa: E402
from HematomaExpansionLib.progress import Stages  # noqa: E402
from HematomaExpansionLib.scan.grid import Grid  # noqa: E402
from HematomaExpansionLib.scan.head_ct import HeadCT, read_head_ct  # noqa: E402
from HematomaExpansionLib.scan.mask import Mask  # noqa: E402
from HematomaExpansionLib.scan.resampling import resample  # noqa: E402
from HematomaExpansionLib.scan.subject import Subject  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

SAMPLE = ROOT / "HematomaExpansion" / "Resources" / "SampleData" / "simulated-patient-baseline.nii.gz"
THICK, THIN = (512, 512, 30), (512, 512, 160)
CPU = torch.device("cpu")


def scan_of(size: tuple[int, int, int]) -> sitk.Image:
    """The sample patient's CT with ``size`` voxels over the same box, as int16 HU."""
    sample = read_head_ct(SAMPLE).image
    grid = Grid.of(sample)
    spacing = [n * s / m for n, s, m in zip(grid.size, grid.spacing, size, strict=True)]
    fine = grid.with_spacing((spacing[0], spacing[1], spacing[2]))
    return sitk.Cast(sitk.Round(resample(sample, fine, outside=-1024.0)), sitk.sitkInt16)


def options(device: str) -> PredictionOptions:
    return PredictionOptions(
        growth=find_package(None, "growth"),
        segmenter=find_package(None, "segmentation"),
        forecast=find_package(None, "forecast"),
        device_name=device,
    )


def whole_run(image: sitk.Image, folder: Path) -> tuple[float, float]:
    """Seconds and peak GiB of the command, from its start to its files."""
    scan, output = folder / "scan.nii.gz", folder / "whole"
    sitk.WriteImage(image, str(scan))
    command = [sys.executable, "-m", "HematomaExpansionLib", "predict", "-i", str(scan), "-o", str(output)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "HematomaExpansion")}
    start = time.perf_counter()
    with subprocess.Popen([*command, "--device", "cpu"], env=environment, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = status
    if status != 0:
        sys.exit("The prediction failed.")
    return seconds, usage.ru_maxrss / 1024**2


def warm_run(image: sitk.Image, folder: Path, device: str = "cpu") -> dict[str, float]:
    """Seconds of each stage of a second prediction in this process, with reading and writing."""
    scan = folder / "scan.nii.gz"
    sitk.WriteImage(image, str(scan))
    for name in ("first", "second"):
        stages, start = Stages(), time.perf_counter()
        with stages("read", 0.0):
            head = read_head_ct(scan)
        prediction = predict(head, options(device), stages=stages)
        with stages("write", 0.9):
            write_prediction(prediction, folder / name)
        seconds = dict(stages.timing)
        seconds["total"] = time.perf_counter() - start
    return seconds


def network_passes(scan: HeadCT) -> Iterator[tuple[str, Callable[[], object], float]]:
    """Name, one pass, and the number of passes in a prediction, for both networks."""
    inside = extract_brain(scan.image).mask
    segmenter, growth = find_package(None, "segmentation"), find_package(None, "growth")
    x, y, z = segmenter.description.patch_size
    region = brain_region(inside, segmenter.description.spacing_mm).size
    # Sliding window: patches overlap by a quarter, with one more wherever the last does not reach the end.
    windows = np.prod([np.ceil(max(n - p, 0) / int(0.75 * p)) + 1 for n, p in zip(region, (x, y, z), strict=True)])
    yield "segmentation network", one_pass(segmenter, 1), float(windows)
    yield "growth network", one_pass(growth, 2), 1.0


def one_pass(package: ModelPackage, channels: int) -> Callable[[], object]:
    network, (x, y, z) = package.load(), package.description.patch_size
    patch = torch.zeros(1, channels, z, y, x)
    return lambda: network(patch)


def multiply_adds(compute: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        compute()
    return counter.get_total_flops() / 2


def machine_rate() -> float:
    """Multiply-adds per second of the fastest of several large convolutions."""
    convolution = torch.nn.Conv3d(64, 64, 3, padding=1)
    patch = torch.zeros(1, 64, 48, 48, 48)
    count, best = multiply_adds(lambda: convolution(patch)), np.inf
    with torch.inference_mode():
        for _ in range(8):
            start = time.perf_counter()
            convolution(patch)
            best = min(best, time.perf_counter() - start)
    return count / best


def seconds_of(compute: Callable[[], object], times: int = 5) -> float:
    """Median of several runs, after one to warm up."""
    measured = []
    with torch.inference_mode():
        for _ in range(times + 1):
            start = time.perf_counter()
            compute()
            measured.append(time.perf_counter() - start)
    return float(np.median(measured[1:]))


def ball(grid: Grid, center: np.ndarray, milliliters: float) -> Mask:
    """A ball of blood of that volume around an LPS position, as a mask on ``grid``."""
    radius = (milliliters * 1000 * 3 / 4 / np.pi) ** (1 / 3)
    source = sitk.PhysicalPointSource(
        sitk.sitkVectorFloat32, list(grid.size), grid.origin, grid.spacing, grid.direction
    )
    distance = np.linalg.norm(sitk.GetArrayViewFromImage(source) - center, axis=-1)
    return Mask.on(grid, distance <= radius)


def main() -> None:
    print("# Speed and memory\n")
    print(f"`python3 Testing/benchmarks/speed.py{' --ratio' if '--ratio' in sys.argv else ''}`", end="")
    print(f", {os.cpu_count()} cores ({platform.machine()}), torch {torch.__version__}, no GPU.\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("| the command, from start to files | seconds | peak GiB |\n| --- | --- | --- |")
        for size in (THICK, THIN):
            seconds, peak = whole_run(scan_of(size), folder)
            print(f"| {' × '.join(map(str, size))} | {seconds:.1f} | {peak:.1f} |", flush=True)
        sizes = (THICK, (512, 512, 60), (512, 512, 120), THIN)
        runs = [warm_run(scan_of(size), folder) for size in sizes]
    print("\nWarm, that is a second run in the same process, seconds by number of slices of 512 × 512:\n")
    print("| stage | " + " | ".join(str(size[2]) for size in sizes) + " |\n|" + " --- |" * (len(sizes) + 1))
    for stage in runs[0]:
        print(f"| {stage} | " + " | ".join(f"{run[stage]:.2f}" for run in runs) + " |")

    rate = machine_rate()
    print(f"\nThe machine's measured rate: {rate / 1e9:.0f} billion multiply-adds a second.\n")
    print("| 512 × 512 × 30 | passes | billion multiply-adds | floor, s | measured, s |")
    print("| --- | --- | --- | --- | --- |")
    thick = HeadCT(sitk.Cast(scan_of(THICK), sitk.sitkFloat32))
    for title, compute, passes in network_passes(thick):
        count = multiply_adds(compute) * passes
        measured = seconds_of(compute) * passes
        print(f"| {title} | {passes:.0f} | {count / 1e9:.1f} | {count / rate:.2f} | {measured:.2f} |", flush=True)

    print("\nGrowth with all resampling, by the hematoma's size (512 × 512 × 30):\n")
    print("| mL | seconds |\n| --- | --- |")
    inside = extract_brain(thick.image).mask
    center = thick.grid.point((np.array(thick.grid.size) - 1) / 2)
    package = find_package(None, "growth")
    for milliliters in (2, 20, 60, 120):
        subject = Subject(thick.image, inside, ball(thick.grid, center, milliliters) & inside)

        def grow(subject: Subject = subject) -> object:
            return predict_outcomes(subject, package, CPU).growth_to(1.8 * subject.hematoma.volume_ml)

        print(f"| {milliliters} | {seconds_of(grow, 3):.2f} |", flush=True)
    if "--ratio" in sys.argv:
        import whole_head

        print("\nAgainst the published way (64³ windows, overlap 0.6, 22.4 million parameters, whole head):\n")
        whole_head.compare(SAMPLE)


if __name__ == "__main__":
    main()
