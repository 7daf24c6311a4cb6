"""How much a segmentation model loses at a site with another scanner, and how much each adaptation restores.

A shifted copy of a cohort (HU scaled and offset, thicker slices, more noise) is split into patients for adaptation
and patients for testing. On the latter it measures the shipped model as it is, with only the site's batch-norm
statistics, with low-rank adapters as well, and fully retrained on the same patients for the same number of epochs.

    python3 Testing/benchmarks/adaptation.py COHORT -o DIR [--adaptation-cases 24] [--test-cases 16] [--epochs 20]

A killed run keeps what it has finished when started again; training resumes from its last epoch.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "HematomaExpansion"))

import numpy as np  # noqa: E402
import SimpleITK as sitk  # noqa: E402
from HematomaExpansionLib.cli.main import main as hematoma  # noqa: E402
from HematomaExpansionLib.models.package import DESCRIPTION_FILE  # noqa: E402
from HematomaExpansionLib.scan.grid import Grid, image_on  # noqa: E402
from HematomaExpansionLib.scan.resampling import average_onto  # noqa: E402
from HematomaExpansionLib.training.data.cohort import case_folders  # noqa: E402
from scipy.ndimage import gaussian_filter  # noqa: E402
from tqdm import tqdm  # noqa: E402

SHIPPED = "segmentation-kinds"
NOISE_WIDTH_MM = 0.8
# The command that makes each method's model, without the cohort and the output folder.
WAYS: dict[str, list[str] | None] = {
    "shipped model as it is": None,
    "AdaBN": ["adapt", SHIPPED, "--statistics-only"],
    "AdaBN and ConvLoRA": ["adapt", SHIPPED],
    "retrained in full": ["train", "segmentation", "--start", SHIPPED],
}


@dataclass(frozen=True)
class Shift:
    """What the other scanner does: HU times ``scale`` plus ``offset``, slices of the given thickness in mm, and
    added noise of the given standard deviation in HU, correlated in plane."""

    scale: float
    offset: float
    slice_mm: float
    noise_hu: float


def shifted_ct(ct: sitk.Image, shift: Shift, random: np.random.Generator) -> sitk.Image:
    """A CT (int16 HU) as the other scanner gives it; slices are averaged where they become thicker."""
    grid = _thicker(Grid.of(ct), shift.slice_mm)
    x_mm, y_mm, _ = grid.spacing
    white = random.standard_normal(grid.shape, dtype=np.float32)
    noise = gaussian_filter(white, (0, NOISE_WIDTH_MM / y_mm, NOISE_WIDTH_MM / x_mm))
    hu = shift.scale * average_onto(ct, grid, outside=-1024.0) + shift.offset
    noisy = hu + shift.noise_hu * noise / noise.std()
    return image_on(grid, np.round(np.clip(noisy, -1024, 3071)).astype(np.int16))


def shifted_mask(mask: sitk.Image, shift: Shift) -> sitk.Image:
    """The mask (0/1) on the slices of the other scanner: voxels that are at least half blood."""
    grid = _thicker(Grid.of(mask), shift.slice_mm)
    return image_on(grid, (average_onto(mask, grid) >= 0.5).astype(np.uint8))


def _thicker(grid: Grid, slice_mm: float) -> Grid:
    x_mm, y_mm, z_mm = grid.spacing
    return grid.with_spacing((x_mm, y_mm, max(z_mm, slice_mm)))


def write_shifted_case(source: Path, folder: Path, shift: Shift, seed: list[int]) -> None:
    """A case's copy at the other site; it appears whole or not at all."""
    unfinished = folder.with_name(f".unfinished-{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for name in ("baseline", "followup"):
        ct, mask = (sitk.ReadImage(str(source / f"{name}{kind}.nii.gz")) for kind in ("", "-mask"))
        sitk.WriteImage(shifted_ct(ct, shift, random), unfinished / f"{name}.nii.gz", True)
        sitk.WriteImage(shifted_mask(mask, shift), unfinished / f"{name}-mask.nii.gz", True)
    shutil.copyfile(source / "case.json", unfinished / "case.json")
    unfinished.rename(folder)


def write_site(arguments: argparse.Namespace, shift: Shift) -> None:
    """Write the shifted cases: the cohort's first for adaptation, those after them for testing."""
    cases = case_folders(arguments.cohort)
    wanted = arguments.adaptation_cases + arguments.test_cases
    if len(cases) < wanted:
        sys.exit(f"The cohort holds {len(cases)} cases; {wanted} are needed.")
    for number, case in enumerate(tqdm(cases[:wanted], desc="Shifting cases", disable=None)):
        part = "adaptation" if number < arguments.adaptation_cases else "test"
        folder = arguments.output / part / case.name
        if not folder.exists():
            write_shifted_case(case, folder, shift, [arguments.seed, number])


def run(command: list[str]) -> None:
    """Run a command of the command line, which must succeed."""
    print("› hematoma", " ".join(command), flush=True)
    if hematoma(command) != 0:
        sys.exit("The benchmark ends here, since a command failed.")


def measured(way: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Make the method's model unless it exists, and measure it on the baseline scans of the test cases."""
    output = arguments.output
    model, figures = output / "models" / way.replace(" ", "-").lower(), output / "figures" / way.replace(" ", "-")
    make = WAYS[way]
    if make is not None and not (model / DESCRIPTION_FILE).is_file():
        length = ["--epochs", str(arguments.epochs), "--seed", str(arguments.seed)]
        run([*make, "--cohort", str(output / "adaptation"), "-o", str(model), *length])
    if not (figures / "segmentation.json").is_file():
        name = SHIPPED if make is None else str(model)
        run(["evaluate", "segmentation", "--cohort", str(output / "test"), "-o", str(figures), "--model", name])
    return json.loads((figures / "segmentation.json").read_text(encoding="utf-8"))["baseline"]


def main() -> None:
    parser = argparse.ArgumentParser(description="How far adaptation brings a segmentation model back.")
    parser.add_argument("cohort", type=Path, metavar="COHORT", help="cases with their truth, none trained on")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    for name, kind, default in (
        ("adaptation-cases", int, 24),
        ("test-cases", int, 16),
        ("epochs", int, 20),
        ("seed", int, 0),
        ("hu-scale", float, 1.15),
        ("hu-offset", float, 12.0),
        ("slice-mm", float, 7.0),
        ("noise-hu", float, 6.0),
    ):
        parser.add_argument(f"--{name}", type=kind, default=default, metavar="N", help=f"default: {default:g}")
    arguments = parser.parse_args()
    shift = Shift(arguments.hu_scale, arguments.hu_offset, arguments.slice_mm, arguments.noise_hu)
    write_site(arguments, shift)
    figures = {way: measured(way, arguments) for way in WAYS}
    print("\n| | Dice, mean | Dice, smallest | volume, mean absolute error (mL) |\n| --- | --- | --- | --- |")
    for way, values in figures.items():
        error = values["average_absolute_error_ml"]
        print(f"| {way} | {values['dice']:.3f} | {values['smallest_dice']:.3f} | {error:.1f} |")


if __name__ == "__main__":
    main()
