"""How much faster the shipped growth model is than the paper's method, on the same scan.

The paper's method: the published network (22.4 million parameters; its weights do not matter for the time) in
windows of 64³ with overlap 0.6 over the whole head. Ours: one patch around the hematoma.

    python3 Testing/benchmarks/whole_head.py [CT] [--windows N]

All windows cost the same: with ``--windows N``, only N are computed and timed, and the others are counted.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "HematomaExpansion"))

import torch  # noqa: E402
from HematomaExpansionLib.anatomy.brain import extract_brain  # noqa: E402
from HematomaExpansionLib.anatomy.segmentation import segment  # noqa: E402
from HematomaExpansionLib.growth.field import growth_channels, growth_region  # noqa: E402
from HematomaExpansionLib.growth.outcomes import predict_outcomes  # noqa: E402
from HematomaExpansionLib.models.networks.unet import displacement_unet  # noqa: E402
from HematomaExpansionLib.models.package import find_package  # noqa: E402
from HematomaExpansionLib.scan.head_ct import read_head_ct  # noqa: E402
from HematomaExpansionLib.scan.subject import Subject  # noqa: E402
from monai.inferers import sliding_window_inference  # noqa: E402

SAMPLE = ROOT / "HematomaExpansion" / "Resources" / "SampleData" / "simulated-patient-baseline.nii.gz"
WINDOW, OVERLAP, SPACING_MM = (64, 64, 64), 0.6, (1.0, 1.0, 1.0)


def compare(path: Path, windows: int | None) -> None:
    """Print the times of both methods on that scan, and their ratio; ``windows`` limits how many are computed."""
    scan = read_head_ct(path)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    inside = extract_brain(scan.image).mask
    hematoma = segment(scan.image, inside, find_package(None, "segmentation"), device)
    start = time.perf_counter()
    subject = Subject(scan.image, inside, hematoma)
    predict_outcomes(subject, find_package(None, "growth"), device).growth_to(1.8 * hematoma.volume_ml)
    ours = time.perf_counter() - start
    print(f"shipped model, around the hematoma: {ours:.1f} s", flush=True)
    grid = growth_region(inside, SPACING_MM, WINDOW, margin_mm=0.0)
    channels = growth_channels(subject, grid, (0.0, 100.0))
    inputs = torch.from_numpy(channels[:2])[None].to(device)
    network = displacement_unet().eval().to(device)
    seconds: list[float] = []
    passed = 0

    def timed(window: torch.Tensor) -> torch.Tensor:
        nonlocal passed
        passed += 1
        if windows is not None and len(seconds) == windows:
            return torch.zeros(1, 3, *WINDOW, device=device)
        start = time.perf_counter()
        field = network(window)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        return field

    with torch.inference_mode():
        sliding_window_inference(inputs, WINDOW, 1, timed, overlap=OVERLAP, mode="gaussian", progress=True)
    each = sum(seconds) / len(seconds)
    theirs = each * passed
    print(
        f"published network, whole head: {passed} windows of {each:.2f} s ({len(seconds)} of them timed), "
        f"{theirs:.0f} s; ratio {theirs / ours:.0f}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("scan", type=Path, nargs="?", default=SAMPLE)
    parser.add_argument("--windows", type=int, metavar="N")
    arguments = parser.parse_args()
    compare(arguments.scan, arguments.windows)
