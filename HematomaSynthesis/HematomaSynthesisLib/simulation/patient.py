"""One simulated patient: baseline and follow-up CT with their true masks.

The causal model, which is an invention for making and testing software and no finding about people:

* A hidden *propensity* to expand, normally distributed, drives both what is seen and what happens.
* Seen: the size of a hypodense pocket of fresh blood at one edge of the hematoma, and a bulge of the margin
  there. Half of the pocket's variance is noise; a third of the patients have another pocket deep in the clot
  that means nothing.
* Happens: the third of the patients with the highest propensity (plus noise of its own) expand, by a
  heavy-tailed volume that rises with the propensity; the others change by 0 ± 1.4 mL. Growth is strongest
  toward the edge with the pocket.
* Volume, site, shape, density and scanner are independent of the propensity.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from HematomaExpansionLib.errors import HematomaError
from HematomaExpansionLib.grid import Grid, image_on, resample
from HematomaExpansionLib.growth import warp_image
from HematomaExpansionLib.measures import volume_ml

from .anatomy import Anatomy, icbm_anatomy
from .bleeding import SITES, BleedingParameters, Hematoma, make_hematoma, paint
from .growth import GrowthParameters, grow
from .scanner import ScannerParameters, acquire, acquire_mask, scan_grid

_SMALLEST_ML, _LARGEST_ML = 2.0, 70.0


@dataclass(frozen=True)
class SimulationOptions:
    """What is fixed for a cohort: matrix in pixels and slice thickness in mm of the scans (ICBM anatomy)."""

    matrix: int = 512
    slice_mm: float = 5.0


@dataclass(frozen=True)
class PatientParameters:
    """Everything drawn for a patient before any image is made."""

    propensity: float
    onset_hours: float
    bleeding: BleedingParameters
    growth: GrowthParameters
    scanner: ScannerParameters


@dataclass(frozen=True)
class SimulatedPatient:
    """CTs in HU and true masks (0/1), all on one grid; ``description`` is what ``case.json`` holds."""

    baseline: sitk.Image
    baseline_mask: sitk.Image
    followup: sitk.Image
    followup_mask: sitk.Image
    description: dict[str, Any]


def draw_parameters(random: np.random.Generator, options: SimulationOptions) -> PatientParameters:
    """Draw a patient from the causal model (see the module's text)."""
    propensity = float(random.normal())
    baseline_ml = float(np.clip(np.exp(random.normal(np.log(11.0), 0.95)), _SMALLEST_ML, _LARGEST_ML))
    radius = (3 * 1000 * baseline_ml / (4 * np.pi)) ** (1 / 3)
    sign = float(np.sqrt(0.5) * (propensity + random.normal()))
    pocket = float(np.clip(0.30 + 0.12 * sign, 0.0, 0.55)) * radius if sign > -0.6 else 0.0
    bleeding = BleedingParameters(
        site=str(random.choice(list(SITES), p=[share for share, _, _ in SITES.values()])),
        volume_ml=baseline_ml,
        irregularity=float(random.uniform(0.05, 0.25)),
        lobes=int(random.choice([0, 1, 2, 3], p=[0.45, 0.3, 0.15, 0.1])),
        hu=float(random.uniform(57, 68)),
        texture_hu=float(random.uniform(2, 5)),
        pocket_mm=max(pocket, 2.5) if pocket > 0 else 0.0,
        pocket_hu=float(random.uniform(36, 45)),
        decoy_mm=float(random.uniform(0.15, 0.3)) * radius if random.random() < 1 / 3 else 0.0,
        edema_mm=float(random.uniform(1.0, 4.0)),
    )
    return PatientParameters(
        propensity=propensity,
        onset_hours=float(np.round(random.uniform(0.5, 8.0), 2)),
        bleeding=bleeding,
        growth=_draw_growth(propensity, baseline_ml, random),
        scanner=ScannerParameters(
            matrix=options.matrix,
            pixel_mm=float(random.uniform(0.39, 0.5)) * 512 / options.matrix,
            slice_mm=options.slice_mm,
            noise_hu=float(random.uniform(2.5, 5.0) * np.sqrt(5.0 / options.slice_mm)),
            noise_width_mm=float(random.uniform(0.35, 0.7)),
        ),
    )


def _draw_growth(propensity: float, baseline_ml: float, random: np.random.Generator) -> GrowthParameters:
    """A third expands (more than 6 mL or 33 %); see the module's text."""
    expands = 0.85 * propensity + np.sqrt(1 - 0.85**2) * random.normal() > 0.43  # the upper third
    heavy = float(np.exp(random.normal(np.log(7.0) + 0.3 * propensity, 0.6)))
    still = float(np.clip(random.normal(0.0, 1.4), -0.1 * baseline_ml, min(5.9, 0.3 * baseline_ml)))
    growth = max(min(heavy, 1.5 * baseline_ml, 45.0), min(6.5, 0.36 * baseline_ml)) if expands else still
    return GrowthParameters(
        growth_ml=growth, base=float(random.uniform(0.05, 0.2)), concentration=float(random.uniform(2.0, 4.0))
    )


def simulate_patient(
    seed: int, number: int, options: SimulationOptions, anatomy: Anatomy | None = None
) -> SimulatedPatient:
    """Patient ``number`` of a cohort with that seed; the same for the same two numbers and options.

    ``anatomy``: a real scan's; by default one varied from ICBM152.
    """
    random = np.random.default_rng([seed, number])
    parameters = draw_parameters(random, options)
    head = anatomy or icbm_anatomy(random)
    hematoma = make_hematoma(head, parameters.bleeding, random)
    growth = grow(head, hematoma, parameters.growth)
    if growth.smallest_jacobian <= 0:
        raise HematomaError("The simulated growth folds tissue; this should not happen.")
    make = _scan_anew if not head.from_scan else _paint_into_scan
    baseline, baseline_mask, followup, followup_mask = make(
        head, hematoma, growth.displacement, parameters, random
    )
    description = {
        "research_use_only": True,
        "source": "simulated" if not head.from_scan else "simulated bleed in a real scan",
        "registered": True,
        "seed": seed,
        "number": number,
        "onset_hours": parameters.onset_hours,
        "baseline_ml": volume_ml(baseline_mask),
        "followup_ml": volume_ml(followup_mask),
        "smallest_jacobian": growth.smallest_jacobian,
        "parameters": asdict(parameters),
    }
    return SimulatedPatient(baseline, baseline_mask, followup, followup_mask, description)


_Scans = tuple[sitk.Image, sitk.Image, sitk.Image, sitk.Image]


def _scan_anew(
    head: Anatomy,
    hematoma: Hematoma,
    displacement: sitk.Image,
    parameters: PatientParameters,
    random: np.random.Generator,
) -> _Scans:
    """Both scans by the simulated scanner, with noise of their own."""
    scanner = parameters.scanner
    grid = scan_grid(Grid.of(head.ct), scanner)
    first = paint(head.ct, hematoma, parameters.bleeding.edema_mm, keep_noise=False)
    field = resample(displacement, Grid.of(head.ct))
    second = warp_image(first, field)
    level = resample(hematoma.level, Grid.of(head.ct), outside=-60.0)
    return (
        acquire(first, grid, scanner, random),
        acquire_mask(level, grid, scanner.slice_mm),
        acquire(second, grid, scanner, random),
        acquire_mask(_warped_level(level, field), grid, scanner.slice_mm),
    )


def _paint_into_scan(
    head: Anatomy,
    hematoma: Hematoma,
    displacement: sitk.Image,
    parameters: PatientParameters,
    random: np.random.Generator,
) -> _Scans:
    """Both scans from the real one, on its own grid; the follow-up is the baseline moved."""
    grid = Grid.of(head.ct)
    first = paint(head.ct, hematoma, parameters.bleeding.edema_mm, keep_noise=True)
    field = resample(displacement, grid)
    second = warp_image(first, field)
    level = resample(hematoma.level, grid, outside=-60.0)
    masks = [sitk.Cast(image > 0, sitk.sitkUInt8) for image in (level, _warped_level(level, field))]
    scans = [sitk.Cast(sitk.Round(image), sitk.sitkInt16) for image in (first, second)]
    return scans[0], masks[0], scans[1], masks[1]


def _warped_level(level: sitk.Image, field: sitk.Image) -> sitk.Image:
    """The signed distance carried along by the displacement; no longer a distance, but of the right sign."""
    return image_on(Grid.of(level), sitk.GetArrayFromImage(warp_image(level, field)))
