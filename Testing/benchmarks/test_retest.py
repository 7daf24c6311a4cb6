"""Do volume and signs hold still when the same patient is scanned again, in another way?

    python3 Testing/benchmarks/test_retest.py -o figures [--patients N] [--seed N] [--automatic]

Each simulated patient is one head with one bleed, scanned 18 times: at slices of 5, 2.5 and 1 mm, with a matrix of
256 and 512 over the same field of view, and each of these six once as they are, once shifted by half a voxel along
every axis, and once with 1.5 times the noise. Only what lies within 35 mm of the bleed is rendered, and the mask
is the true one. ``--automatic`` renders whole heads instead, and lets the shipped segmentation find the bleed;
that takes a minute or more for each scan.

The folder then holds ``retest.md``, ``retest.csv`` and ``retest.json``. For each sign: in how many scans it is
present; in how many it is unsure (a probability from 0.2 to 0.8); Cohen's kappa over pairs of scans of the same
patient (all pairs, and those that differ in slice thickness, matrix, position or noise alone). For the volume: how
many scans lie within 4 % of their patient's median, and how far the farthest lies from it. For the probability
of expansion, by the shipped forecast for a scan two hours after onset: how many lie within 5 points of their
patient's median. What was measured on each scan lies in ``patients/``; a run that was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "HematomaExpansion"), str(ROOT / "HematomaSynthesis")]

import numpy as np  # noqa: E402
import SimpleITK as sitk  # noqa: E402
import torch  # noqa: E402
from HematomaExpansionLib.anatomy.brain import extract_brain  # noqa: E402
from HematomaExpansionLib.anatomy.segmentation import segment  # noqa: E402
from HematomaExpansionLib.forecast.evidence import probability_from_evidence  # noqa: E402
from HematomaExpansionLib.forecast.facts import SIGNS, Facts  # noqa: E402
from HematomaExpansionLib.forecast.forecast import ForecastModel  # noqa: E402
from HematomaExpansionLib.markers.markers import find_markers  # noqa: E402
from HematomaExpansionLib.markers.scores import UNSURE  # noqa: E402
from HematomaExpansionLib.models.package import find_package  # noqa: E402
from HematomaExpansionLib.scan.grid import Grid  # noqa: E402
from HematomaExpansionLib.scan.mask import Mask  # noqa: E402
from HematomaExpansionLib.scan.resampling import resample  # noqa: E402
from HematomaExpansionLib.scan.shapes import bounding_box  # noqa: E402
from HematomaSynthesisLib.simulation.anatomy import Anatomy, icbm_anatomy  # noqa: E402
from HematomaSynthesisLib.simulation.bleeding import Hematoma, make_hematoma, paint, paint_ventricles  # noqa: E402
from HematomaSynthesisLib.simulation.causal_model import (  # noqa: E402
    PatientParameters,
    SimulationOptions,
    as_drawn,
    draw_parameters,
)
from HematomaSynthesisLib.simulation.scanner import (  # noqa: E402
    ScannerParameters,
    acquire,
    acquire_mask,
    scan_grid,
)
from sklearn.metrics import cohen_kappa_score  # noqa: E402
from tqdm import tqdm  # noqa: E402

THICKNESSES_MM, MATRICES, REPEATS = (5.0, 2.5, 1.0), (512, 256), ("plain", "shifted", "noisy")
NOISE_FACTOR = 1.5
AROUND_MM = 35
WITHIN, WITHIN_POINTS = 0.04, 0.05
HOURS = 2.0
VOLUME = "volume_ml"
Measured = dict[str, float]
Segmenter = Callable[[sitk.Image], Mask]


@dataclass(frozen=True)
class Protocol:
    """How a patient is scanned; ``repeat`` is one of ``REPEATS``."""

    slice_mm: float
    matrix: int
    repeat: str


@dataclass(frozen=True)
class Patient:
    """A head, the bleed in it, and all that was drawn for them."""

    head: Anatomy
    hematoma: Hematoma
    parameters: PatientParameters


PROTOCOLS = [Protocol(*chosen) for chosen in product(THICKNESSES_MM, MATRICES, REPEATS)]


def make_patient(seed: int, number: int) -> Patient:
    """Patient ``number`` of that seed, before any scan."""
    random = np.random.default_rng([seed, number])
    parameters = draw_parameters(random, SimulationOptions(slice_mm=THICKNESSES_MM[0]))
    head = icbm_anatomy(random)
    hematoma = make_hematoma(head, parameters.bleeding, random)
    return Patient(head, hematoma, as_drawn(parameters, hematoma.drawn))


def part_around(patient: Patient) -> Grid:
    """The head's voxels within ``AROUND_MM`` of the bleed."""
    level = resample(patient.hematoma.level, Grid.of(patient.head.ct), outside=-60.0)
    first, size = bounding_box(sitk.GetArrayFromImage(level) > 0)
    return Grid.of(patient.head.ct).cropped((first - AROUND_MM).tolist(), (size + 2 * AROUND_MM).tolist())


def scanner_of(patient: Patient, protocol: Protocol, part: Grid) -> ScannerParameters:
    """The patient's scanner set to the protocol, with as many of its pixels as cover ``part`` (1 mm)."""
    drawn = patient.parameters.scanner
    # Thinner slices are noisier, as in a simulated cohort.
    noise = drawn.noise_hu * (drawn.slice_mm / protocol.slice_mm) ** 0.25
    pixels = 2 * int(np.ceil(max(part.size[:2]) / drawn.pixel_mm / 2))
    return replace(
        drawn,
        matrix=pixels * protocol.matrix // drawn.matrix,
        pixel_mm=drawn.pixel_mm * drawn.matrix / protocol.matrix,
        slice_mm=protocol.slice_mm,
        noise_hu=noise * (NOISE_FACTOR if protocol.repeat == "noisy" else 1.0),
    )


def scan_patient(
    patient: Patient, protocol: Protocol, part: Grid, random: np.random.Generator
) -> tuple[sitk.Image, Mask]:
    """CT (HU) and true mask of ``part`` (1 mm) of the patient's head."""
    scanner = scanner_of(patient, protocol, part)
    if protocol.repeat == "shifted":  # the scanner's slices are centered on what it is given
        half = scan_grid(part, scanner).axes @ np.full(3, 0.5)
        part = part.centered_at(part.center + half, part.size, part.spacing)
    head, parameters = patient.head, patient.parameters
    ct = resample(head.ct, part, outside=-1000.0)
    if parameters.ventricular.baseline and head.ventricles is not None:
        # The whole ventricles, since their dependent part fills.
        filled = paint_ventricles(
            head.ct, head.ventricles, parameters.ventricular.filled, parameters.ventricular.hu
        )
        ct = resample(filled, part, outside=-1000.0)
    painted = paint(ct, patient.hematoma, parameters.bleeding.edema_mm, keep_noise=False)
    level = resample(patient.hematoma.level, part, outside=-60.0)
    return acquire(painted, scanner, random), acquire_mask(level, scanner)


def scans_of(seed: int, number: int, *, whole: bool) -> Iterator[tuple[Protocol, sitk.Image, Mask]]:
    """Every scan of a patient with its true mask, the same for the same numbers; ``whole``: of the whole head."""
    patient = make_patient(seed, number)
    part = Grid.of(patient.head.ct) if whole else part_around(patient)
    for k, protocol in enumerate(PROTOCOLS):
        yield protocol, *scan_patient(patient, protocol, part, np.random.default_rng([seed, number, k]))


def measure(ct: sitk.Image, mask: Mask) -> Measured:
    """What should be the same on every scan of a patient: volume, and the probability of each sign."""
    if mask.is_empty:
        return {VOLUME: 0.0}
    signs = {name: marker.probability for name, marker in find_markers(ct, mask).items()}
    return {VOLUME: mask.volume_ml, **signs}


def shipped_segmentation(ct: sitk.Image) -> Mask:
    """The mask that the shipped package finds."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return segment(ct, extract_brain(ct).mask, find_package(None, "segmentation"), device)


def measure_patient(seed: int, number: int, segmenter: Segmenter | None) -> list[Measured]:
    """What is measured on each scan, in the order of ``PROTOCOLS``."""
    return [
        measure(ct, segmenter(ct) if segmenter else mask)
        for _, ct, mask in scans_of(seed, number, whole=segmenter is not None)
    ]


def measure_patients(output: Path, seed: int, count: int, segmenter: Segmenter | None) -> list[list[Measured]]:
    """For each patient what is measured on each scan, as far as possible from an earlier run."""
    folder = output / "patients"
    folder.mkdir(parents=True, exist_ok=True)
    patients = []
    for number in tqdm(range(1, count + 1), desc="Scanning patients", disable=None):
        kept = folder / f"{'automatic' if segmenter else 'true'}-{seed}-{number:04d}.json"
        if not kept.exists():
            kept.write_text(json.dumps(measure_patient(seed, number, segmenter)))
        patients.append(json.loads(kept.read_text()))
    return patients


def pairs_of(part: str | None) -> list[tuple[int, int]]:
    """Pairs of scans that differ in nothing but that part of the protocol; without one, all pairs."""

    def differ(first: Protocol, second: Protocol) -> set[str]:
        names = asdict(first)
        return {name for name in names if getattr(first, name) != getattr(second, name)}

    pairs = combinations(range(len(PROTOCOLS)), 2)
    if part is None:
        return list(pairs)
    if part in REPEATS:
        sides = {"plain", part}
        return [
            (i, j)
            for i, j in pairs
            if differ(PROTOCOLS[i], PROTOCOLS[j]) == {"repeat"}
            and {PROTOCOLS[i].repeat, PROTOCOLS[j].repeat} == sides
        ]
    return [(i, j) for i, j in pairs if differ(PROTOCOLS[i], PROTOCOLS[j]) == {part}]


PAIRS = {
    "kappa": pairs_of(None),
    "kappa_thickness": pairs_of("slice_mm"),
    "kappa_matrix": pairs_of("matrix"),
    "kappa_shift": pairs_of("shifted"),
    "kappa_noise": pairs_of("noisy"),
}
"""Name of a column -> the pairs of scans that it compares."""


def kappa(present: np.ndarray, pairs: Sequence[tuple[int, int]]) -> float:
    """Cohen's kappa of a sign (patients, scans) over pairs of scans; NaN if it is always or never present.

    Which scan of a pair comes first means nothing, so each pair counts both ways.
    """
    if present.all() or not present.any():
        return float("nan")
    first, second = np.array(pairs).T
    one, other = present[:, first].ravel(), present[:, second].ravel()
    return float(cohen_kappa_score(np.concatenate([one, other]), np.concatenate([other, one])))


def summarize(patients: Sequence[Sequence[Measured]]) -> list[dict[str, Any]]:
    """A row for each sign, and one for the volume."""
    names = [name for name in max((scan for scans in patients for scan in scans), key=len) if name != VOLUME]
    rows: list[dict[str, Any]] = []
    for name in names:
        probability = np.array([[scan.get(name, 0.0) for scan in scans] for scans in patients])
        present = probability >= 0.5
        unsure = (probability >= UNSURE[0]) & (probability <= UNSURE[1])
        row = {"what": name, "present": float(present.mean()), "unsure": float(unsure.mean())}
        rows.append(row | {column: kappa(present, pairs) for column, pairs in PAIRS.items()})
    volume = np.array([[scan[VOLUME] for scan in scans] for scans in patients])
    median = np.maximum(np.median(volume, axis=1, keepdims=True), 1e-6)
    away = np.abs(volume / median - 1)
    rows.append({"what": VOLUME, "within": float((away <= WITHIN).mean()), "worst": float(away.max())})
    model = ForecastModel.of(find_package(None, "forecast"))
    chance = np.array([[probability_of(model, scan) for scan in scans] for scans in patients if _all_found(scans)])
    away = np.abs(chance - np.median(chance, axis=1, keepdims=True))
    told = {"within": float((away <= WITHIN_POINTS).mean()), "worst": float(away.max())}
    return [*rows, {"what": "probability of expansion"} | told]


def _all_found(scans: Sequence[Measured]) -> bool:
    return all(scan[VOLUME] > 0 for scan in scans)


def probability_of(model: ForecastModel, scan: Measured) -> float:
    """The probability of expansion by the shipped forecast, for a scan ``HOURS`` after onset."""
    facts = Facts(scan[VOLUME], HOURS, **{name: scan[name] for name in SIGNS})
    return probability_from_evidence(model.numbers, facts, model.source).value


def write_tables(rows: Sequence[dict[str, Any]], output: Path) -> None:
    """The rows as CSV, Markdown and JSON."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    (output / "retest.json").write_text(json.dumps(rows, indent=2) + "\n")
    with (output / "retest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    cells = [["" if name not in row else _cell(row[name]) for name in columns] for row in rows]
    lines = [
        " | ".join(line) for line in ([name.replace("_", " ") for name in columns], ["---"] * len(columns), *cells)
    ]
    (output / "retest.md").write_text("".join(f"| {line} |\n" for line in lines))


def _cell(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}"


def main() -> None:
    """Measure, and write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the tables")
    parser.add_argument("--patients", type=int, default=60, help="number of patients (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=9300, help="seed of the patients (default: %(default)s)")
    parser.add_argument("--automatic", action="store_true", help="whole heads, and automatic masks; slow")
    given = parser.parse_args()
    segmenter = shipped_segmentation if given.automatic else None
    rows = summarize(measure_patients(given.output, given.seed, given.patients, segmenter))
    write_tables(rows, given.output)
    print((given.output / "retest.md").read_text())


if __name__ == "__main__":
    main()
