"""How long one synthetic variant takes on a clinical scan, on the crop around the hematoma and on the whole head.

python3 Testing/benchmarks/variant.py [CT]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "HematomaExpansion"), str(ROOT / "HematomaSynthesis")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from HematomaExpansionLib.anatomy.brain import extract_brain  # noqa: E402
from HematomaExpansionLib.anatomy.segmentation import segment  # noqa: E402
from HematomaExpansionLib.models.package import find_package  # noqa: E402
from HematomaExpansionLib.scan.grid import Grid  # noqa: E402
from HematomaExpansionLib.scan.head_ct import read_head_ct  # noqa: E402
from HematomaExpansionLib.scan.shapes import shape_on  # noqa: E402
from HematomaSynthesisLib.mask_registration import register_masks  # noqa: E402
from HematomaSynthesisLib.target_shapes import TargetOptions, draw_targets  # noqa: E402
from HematomaSynthesisLib.variants import make_variants  # noqa: E402

SAMPLE = ROOT / "HematomaExpansion" / "Resources" / "SampleData" / "simulated-patient-baseline.nii.gz"
SEED = 1


def main() -> None:
    scan = read_head_ct(Path(sys.argv[1]) if len(sys.argv) > 1 else SAMPLE)
    inside = extract_brain(scan.image).mask
    hematoma = segment(scan.image, inside, find_package(None, "segmentation"), torch.device("cpu"))
    print(f"scan of {' × '.join(map(str, scan.image.GetSize()))} voxels")
    for title, options in (("in 3D", TargetOptions()), ("in plane", TargetOptions(in_plane=True))):
        start = time.perf_counter()
        (variant,) = make_variants(scan.image, hematoma, 1, options, SEED)
        dice, seconds = variant.description["dice_to_target"], time.perf_counter() - start
        print(f"one variant {title}, on the crop: {seconds:.1f} s, Dice to target {dice:.3f}", flush=True)
    whole = Grid.of(scan.image).with_spacing((1.0, 1.0, 1.0))
    original = shape_on(hematoma.image, whole)
    (target,) = draw_targets(original, 1, TargetOptions(), np.random.default_rng(SEED))
    start = time.perf_counter()
    register_masks(original, target.mask, whole)
    print(f"registration alone, on the whole head: {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
