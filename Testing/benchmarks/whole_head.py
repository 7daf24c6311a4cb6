"""How much faster the shipped growth model is than the paper's way, on the same scan.

The paper's way: the published network (22.4 million parameters; its weights do not matter for the time) in
windows of 64³ with overlap 0.6 over the whole head. Ours: one patch around the hematoma.

    python3 Testing/benchmarks/whole_head.py [CT]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "HematomaExpansion"))

import torch  # noqa: E402
from HematomaExpansionLib.brain import extract_brain  # noqa: E402
from HematomaExpansionLib.growth import growth_channels, growth_region, predict_growth  # noqa: E402
from HematomaExpansionLib.head_ct import read_head_ct  # noqa: E402
from HematomaExpansionLib.model_package import find_package  # noqa: E402
from HematomaExpansionLib.networks import displacement_unet  # noqa: E402
from HematomaExpansionLib.segmentation import segment  # noqa: E402
from monai.inferers import sliding_window_inference  # noqa: E402

SAMPLE = ROOT / "HematomaExpansion" / "Resources" / "SampleData" / "simulated-patient-baseline.nii.gz"
WINDOW, OVERLAP, SPACING_MM = (64, 64, 64), 0.6, (1.0, 1.0, 1.0)


def compare(path: Path) -> None:
    """Print the times of both ways on that scan, and their ratio."""
    scan = read_head_ct(path)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    inside = extract_brain(scan.image).mask
    hematoma = segment(scan.image, inside, find_package(None, "segmentation"), device)
    start = time.perf_counter()
    predict_growth(scan.image, hematoma, inside, find_package(None, "growth"), device)
    ours = time.perf_counter() - start
    print(f"shipped model, around the hematoma: {ours:.1f} s", flush=True)
    grid = growth_region(inside, SPACING_MM, WINDOW, margin_mm=0.0)
    channels = growth_channels(scan.image, hematoma, inside, grid, (0.0, 100.0))
    inputs = torch.from_numpy(channels[:2])[None].to(device)
    network = displacement_unet().eval().to(device)
    start = time.perf_counter()
    with torch.inference_mode():
        sliding_window_inference(inputs, WINDOW, 1, network, overlap=OVERLAP, mode="gaussian", progress=True)
    theirs = time.perf_counter() - start
    print(f"published network, whole head: {theirs:.1f} s; ratio {theirs / ours:.0f}")


if __name__ == "__main__":
    compare(Path(sys.argv[1]) if len(sys.argv) > 1 else SAMPLE)
