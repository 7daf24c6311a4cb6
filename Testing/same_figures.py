"""Every figure of a fixed set of cases, to compare two versions of the software to the last digit.

    python3 Testing/same_figures.py -o before.json              the version in this checkout
    python3 Testing/same_figures.py -o after.json --against before.json

Runs the commands as a user does, and keeps a checksum of what each leaves: voxels and grids of images, JSON and
CSV without times and checksums, pixels of pictures, weights of models. ``--scans FOLDER`` adds the scans in a
folder. Two runs on one machine give the same figures; another machine may round differently.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from environment import REPOSITORY, continue_in_environment, variables

SAMPLE = REPOSITORY / "HematomaExpansion" / "Resources" / "SampleData" / "simulated-patient-baseline.nii.gz"
NO_FIGURES = {"timing_s", "seconds", "sha256"}
"""Times, and checksums of files, which change with their compression."""
PATIENTS, SEED = 12, 4100


def main() -> int:
    """Compute the figures, and compare them if there are others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="JSON")
    parser.add_argument("--against", type=Path, metavar="JSON", help="figures of another version")
    parser.add_argument("--scans", type=Path, metavar="FOLDER", help="predict the scans in this folder too")
    chosen = parser.parse_args()
    continue_in_environment(__file__, "requirements.txt")
    with tempfile.TemporaryDirectory() as name:
        figures = _figures(Path(name), chosen.scans)
    chosen.output.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(f"{len(figures)} figures in {chosen.output}")
    return 0 if chosen.against is None else _compare(json.loads(chosen.against.read_text()), figures)


def _compare(before: dict[str, str], after: dict[str, str]) -> int:
    other = [name for name in before if name in after and before[name] != after[name]]
    missing, new = sorted(before.keys() - after.keys()), sorted(after.keys() - before.keys())
    for title, names in (("differ", other), ("are missing", missing), ("are new", new)):
        if names:
            print(f"{len(names)} figures {title}:", *names, sep="\n  ")
    print(f"{len(before) - len(other) - len(missing)} of {len(before)} figures are the same to the last digit.")
    return 1 if other or missing or new else 0


def _figures(folder: Path, scans: Path | None) -> dict[str, str]:
    for name, arguments in _commands(folder, scans):
        print(f"› {name}", flush=True)
        command = [sys.executable, "-m", "HematomaExpansionLib", *arguments]
        ended = subprocess.run(command, env=variables(), capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            sys.exit(f"{name}: the command ended with status {ended.returncode}.\n{ended.stderr[-2000:]}")
    return {
        file.relative_to(folder).as_posix(): _checksum(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and _counts(file.relative_to(folder))
    }


def _counts(path: Path) -> bool:
    """Whether a file counts as a figure: not the inputs, a training log, or a list of file checksums."""
    return path.parts[0] != "input" and "training" not in path.parts and path.name != "provenance.json"


def _commands(folder: Path, scans: Path | None) -> Iterator[tuple[str, list[str]]]:
    inputs = _make_inputs(folder / "input")
    for name, path in inputs.items():
        yield f"predict {name}", ["predict", "-i", str(path), "-o", str(folder / name), "--keep-intermediate"]
    known = ["--onset-hours", "1.5", "--warfarin", "--no-recurrent", "--intraventricular"]
    definition = ["--expansion-definition", "revised"]
    yield "predict known", ["predict", "-i", str(SAMPLE), "-o", str(folder / "known"), *known, *definition]
    for method in ("threshold", "segmentation-compact"):
        mask = folder / f"{method}.nrrd"
        yield f"segment {method}", ["segment", "-i", str(SAMPLE), "-o", str(mask), "--segmenter", method]
    cohort = folder / "cohort"
    simulated = ["-n", str(PATIENTS), "--seed", str(SEED), "--matrix", "128", "--slice-thickness", "5"]
    yield "simulate", ["simulate", "-o", str(cohort), *simulated]
    yield "synthesize", ["synthesize", "--cohort", str(cohort), "--variants", "1", "--in-plane"]
    first = sorted(cohort.iterdir())[0]
    masks = ["--mask", str(first / "baseline-mask.nii.gz")]
    predicted = folder / "masked"
    yield "predict masked", ["predict", "-i", str(first / "baseline.nii.gz"), *masks, "-o", str(predicted)]
    pair = ["--baseline", str(first / "baseline.nii.gz"), "--followup", str(first / "followup.nii.gz")]
    prediction = ["--prediction", str(predicted), "-o", str(folder / "compared")]
    yield "compare", ["compare", *pair, "--baseline-mask", masks[1], *prediction]
    yield "batch", ["batch", "-i", str(cohort / first.name), "-o", str(folder / "batch"), "--jobs", "1"]
    yield from _trainings(folder, ["--cohort", str(cohort)])
    for scan in [] if scans is None else sorted(scans.glob("*.nii.gz")):
        name = scan.name.removesuffix(".nii.gz")
        yield f"predict {name}", ["predict", "-i", str(scan), "-o", str(folder / "scans" / name)]


def _trainings(folder: Path, cohort: list[str]) -> Iterator[tuple[str, list[str]]]:
    one = ["--epochs", "1"]
    for name, task, options in (
        ("growth-small", "growth", ["--channels", "4,8,16,32", *one]),
        ("segmentation-small", "segmentation", ["--channels", "4,8,16,32", *one]),
        ("risk-small", "risk", []),
        (
            "slices-small",
            "segmentation",
            ["--preset", "slices", "--size", "64,64", "--channels", "2,4,8,16,16", *one],
        ),
        (
            "two-output-small",
            "risk",
            ["--preset", "two-output", "--size", "32,32,16", "--channels", "2,4,8,16", *one],
        ),
    ):
        yield f"train {name}", ["train", task, *cohort, *options, "-o", str(folder / name)]
    adapted = [*cohort, "-o", str(folder / "adapted"), *one]
    yield "adapt", ["adapt", "segmentation-compact", *adapted]
    yield "correct", ["correct", "segmentation-compact", *cohort, "-o", str(folder / "corrected")]
    for task in ("growth", "segmentation", "markers", "risk"):
        yield f"evaluate {task}", ["evaluate", task, *cohort, "-o", str(folder / f"evaluated-{task}")]
    folds = ["--folds", "3", "-o", str(folder / "evaluated-folds")]
    yield "evaluate risk folds", ["evaluate", "risk", *cohort, *folds]
    yield "distributions", ["distributions", *cohort, "-o", str(folder / "distributions")]


def _make_inputs(folder: Path) -> dict[str, Path]:
    """The sample patient as it is, on grids that are turned, flipped, sheared, thick and thin, and with air for a
    bone flap."""
    import numpy as np
    import SimpleITK as sitk

    folder.mkdir()
    sample = sitk.ReadImage(str(SAMPLE))
    turned = sitk.Image(sample)
    angle = np.radians(12.0)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    turned.SetDirection((turn @ np.array(sample.GetDirection()).reshape(3, 3)).ravel().tolist())
    sheared = sitk.Image(sample)
    direction = np.array(sample.GetDirection()).reshape(3, 3)
    tilted = direction[:, 2] + 0.15 * direction[:, 1]
    direction[:, 2] = tilted / np.linalg.norm(tilted)
    sheared.SetDirection(direction.ravel().tolist())
    images = {
        "sample": sample,
        "turned": turned,
        "flipped": sitk.DICOMOrient(sample, "RSA"),
        "sagittal": sitk.DICOMOrient(sample, "PIL"),
        "sheared": sheared,
        "thick": _resized(sample, (256, 256, 24)),
        "fine": _resized(sample, (512, 512, 80)),
    }
    paths = {name: folder / f"{name}.nrrd" for name in images}
    for name, image in images.items():
        sitk.WriteImage(image, str(paths[name]), useCompression=True)
    return paths


def _resized(image: Any, size: tuple[int, int, int]) -> Any:
    import SimpleITK as sitk

    spacing = [s * n / m for s, n, m in zip(image.GetSpacing(), image.GetSize(), size, strict=True)]
    linear, direction = sitk.sitkLinear, image.GetDirection()
    return sitk.Resample(
        image, size, sitk.Transform(), linear, image.GetOrigin(), spacing, direction, -1024, image.GetPixelID()
    )


def _checksum(file: Path) -> str:
    return hashlib.sha256(_content(file)).hexdigest()[:16]


def _content(file: Path) -> bytes:
    """What counts in a file: not its compression, and neither times nor checksums."""
    import SimpleITK as sitk

    if file.name.endswith((".nii.gz", ".nrrd")):
        image = sitk.ReadImage(str(file))
        grid = (image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection(), image.GetPixelID())
        return repr(grid).encode() + sitk.GetArrayFromImage(image).tobytes()
    if file.suffix == ".json":
        return json.dumps(_lasting(json.loads(file.read_text(encoding="utf-8"))), sort_keys=True).encode()
    if file.suffix == ".csv":
        with file.open(newline="", encoding="utf-8") as lines:
            return json.dumps(_lasting(list(csv.DictReader(lines)))).encode()
    if file.suffix == ".png":
        return sitk.GetArrayFromImage(sitk.ReadImage(str(file))).tobytes()
    return file.read_bytes()


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lasting(own) for key, own in value.items() if key not in NO_FIGURES}
    return [_lasting(own) for own in value] if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main())
