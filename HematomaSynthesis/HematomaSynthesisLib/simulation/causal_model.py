"""What causes what in a simulated patient.

This is an invention for making and testing software, not a finding about people:

* A hidden *propensity* to expand, normally distributed, drives both what is seen and what happens. Nothing else
  links them.
* Seen: the signs that radiologists look for (after Morotti 2019). Each is present when the propensity, mixed with
  its own noise, passes a threshold; threshold and mixture are set so that prevalence and odds ratio for expansion
  are close to the literature (Zhong 2021 and the reviews it cites). The size of a swirl and the darkness of all
  hypodense blood rise with the propensity. Patients scanned early have a higher propensity. A third of those
  without an enclosed hypodense pocket have a meaningless one, on any side, and a tenth of all patients have a
  fluid level.
  Each sign is drawn so that it is visible in 5 mm slices; where there is no room for that, mostly in small bleeds,
  there is no sign. A swirl shrinks to make room for an enclosed pocket; if both do not fit, chance decides which
  one is drawn. A bleed with a blend has no fluid level.
* Where: each hematoma has a bleeding direction. The swirl, enclosed pockets, the less dense part of a blend and
  the satellites lie toward it, off by about 20 degrees; growth is strongest toward it, and otherwise uneven. The
  swirl is as dark as brain, and lies beneath a ragged rim of clot: where the rim is whole, a scan shows where the
  hematoma ends.
* Happens: the third of the patients with the highest propensity (plus its own noise) expand, by a
  heavy-tailed volume that rises with the propensity, the swirl's size and the baseline; the others change by
  0 ± 1.4 mL. Some hematomas that expand break into the ventricles.
* Volume, site, density, edema, anatomy and scanner are independent of the propensity.

A reader of all the true signs reaches an AUC of about 0.89 for expansion (a test measures it); of only those there
was room for, 0.85.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, TypeVar

import numpy as np

from .bleeding import MIN_SWIRL_MM, SITES, BleedingParameters
from .growth import GrowthParameters
from .scanner import ScannerParameters

Drawn = TypeVar("Drawn", BleedingParameters, GrowthParameters, ScannerParameters)

MEDIAN_ML, LOG_SD = 11.0, 0.95
"""Baseline volume, log-normal (INTERACT2: median 10.7 mL, quartiles 5.6 and 18.7 mL)."""

SIGNS: dict[str, tuple[float, float]] = {
    "island": (0.15, 7.9),
    "black_hole": (0.15, 3.7),
    "blend": (0.15, 3.5),
    "hypodensity": (0.65, 3.5),
    "swirl": (0.60, 3.3),
    "heterogeneous": (0.50, 2.7),
    "irregular": (0.56, 2.0),
}
"""Sign -> prevalence and odds ratio for expansion (Zhong 2021; pooled odds ratios of reviews)."""

SLICE_THICKNESSES_MM: dict[float, float] = {5.0: 0.7, 2.5: 0.2, 1.0: 0.1}
"""Slice thickness -> share of scans, in a cohort that mixes them."""

VENTRICULAR_SHARE = {"deep": 0.45, "lobar": 0.2, "cerebellar": 0.3}
"""Site -> share of patients with blood in the ventricles at baseline (37 to 40 % of all)."""

_EXPANDING_SHARE = 1 / 3
_FLUID_LEVEL_SHARE, _DECOY_SHARE = 0.1, 1 / 3
_PROPENSITY_IN_EXPANSION = 0.94
_PROPENSITY_IN_SWIRL_SIZE, _PROPENSITY_IN_DARKNESS = 0.85, 0.75
_MIN_ML, _MAX_ML = 2.0, 70.0
MIN_ISLANDS = 3
"""Number of separate small bleeds that make an island sign."""


@dataclass(frozen=True)
class SimulationOptions:
    """What is fixed for a cohort; everything else is drawn, including what is None here.

    Attributes:
        matrix: pixels per side of a slice, in fully simulated scans.
        slice_mm: slice thickness in mm, in fully simulated scans; None mixes those of ``SLICE_THICKNESSES_MM``.
        site: one of ``SITES``.
        volume_ml: of the baseline hematoma.
        irregularity: of its margin, as a fraction of its radius.
        growth_ml: added until the follow-up; negative if it shrinks.
        noise_hu: SD of the noise, in fully simulated scans.
    """

    matrix: int = 512
    slice_mm: float | None = None
    site: str | None = None
    volume_ml: float | None = None
    irregularity: float | None = None
    growth_ml: float | None = None
    noise_hu: float | None = None


@dataclass(frozen=True)
class VentricularBlood:
    """Blood in the lateral ventricles: in which scans, what share of the ventricles it fills, and its density."""

    baseline: bool
    followup: bool
    filled: float
    hu: float


@dataclass(frozen=True)
class PatientParameters:
    """Everything drawn for a patient before any image is made; ``signs`` as a perfect reader would see them."""

    propensity: float
    onset_hours: float
    signs: dict[str, bool]
    bleeding: BleedingParameters
    growth: GrowthParameters
    ventricular: VentricularBlood
    scanner: ScannerParameters


def draw_parameters(random: np.random.Generator, options: SimulationOptions) -> PatientParameters:
    """Draw a patient (see the module docstring)."""
    propensity = float(random.normal())
    drawn_ml = float(np.clip(np.exp(random.normal(np.log(MEDIAN_ML), LOG_SD)), _MIN_ML, _MAX_ML))
    volume_ml = drawn_ml if options.volume_ml is None else options.volume_ml
    signs = {name: _has_sign(propensity, *figures, random) for name, figures in SIGNS.items()}
    swirl = _mixed(propensity, _PROPENSITY_IN_SWIRL_SIZE, random)
    darkness = _mixed(propensity, _PROPENSITY_IN_DARKNESS, random)
    expands = _mixed(propensity, _PROPENSITY_IN_EXPANSION, random) > _threshold(_EXPANDING_SHARE)
    bleeding = _draw_bleeding(volume_ml, signs, swirl, darkness, random)
    bleeding = _fixed(bleeding, site=options.site, irregularity=options.irregularity)
    onset_hours = float(np.round(np.clip(random.gamma(3.0, 1.0) * np.exp(-0.25 * propensity), 0.4, 12.0), 2))
    growth = _draw_growth(expands, propensity, swirl if signs["swirl"] else 0.0, volume_ml, random)
    ventricular = _draw_ventricular(bleeding.site, expands, random)
    return PatientParameters(
        propensity=propensity,
        onset_hours=onset_hours,
        signs=signs,
        bleeding=bleeding,
        growth=_fixed(growth, growth_ml=options.growth_ml),
        ventricular=ventricular,
        scanner=_fixed(_draw_scanner(options, random), noise_hu=options.noise_hu),
    )


def as_drawn(parameters: PatientParameters, bleeding: BleedingParameters) -> PatientParameters:
    """The parameters with the bleed as it could be drawn: a sign without room is absent."""
    seen = {
        "island": bleeding.satellites >= MIN_ISLANDS,
        "black_hole": bleeding.black_hole_mm > 0,
        "hypodensity": bleeding.pocket_mm > 0,
        "swirl": bleeding.swirl_mm > 0,
    }
    return replace(parameters, bleeding=bleeding, signs=parameters.signs | seen)


def _fixed(drawn: Drawn, **wanted: Any) -> Drawn:
    """The drawn values, replaced where the user fixed one; nothing else changes."""
    return replace(drawn, **{name: value for name, value in wanted.items() if value is not None})


def _mixed(propensity: float, share: float, random: np.random.Generator) -> float:
    """A standard normal number whose correlation with the propensity is ``share``."""
    return float(share * propensity + np.sqrt(1 - share**2) * random.normal())


def _threshold(prevalence: float) -> float:
    return NormalDist().inv_cdf(1 - prevalence)


def _has_sign(propensity: float, prevalence: float, odds_ratio: float, random: np.random.Generator) -> bool:
    # Digby's approximation of the tetrachoric correlation from an odds ratio.
    correlation = (odds_ratio**0.75 - 1) / (odds_ratio**0.75 + 1)
    return _mixed(propensity, correlation / _PROPENSITY_IN_EXPANSION, random) > _threshold(prevalence)


def _draw_bleeding(
    volume_ml: float, signs: dict[str, bool], swirl: float, darkness: float, random: np.random.Generator
) -> BleedingParameters:
    radius = (3 * 1000 * volume_ml / (4 * np.pi)) ** (1 / 3)
    satellites = (
        random.integers(MIN_ISLANDS, 6) if signs["island"] else random.choice([0, 1, 2], p=[0.7, 0.2, 0.1])
    )
    fluid_level = bool(random.random() < _FLUID_LEVEL_SHARE) and not signs["blend"]
    in_parts = signs["blend"] or fluid_level  # the less dense part must still differ from brain
    swirl_share = float(np.clip(0.42 + 0.14 * swirl, 0.15, 0.75))
    hu = float(random.uniform(70, 75) if in_parts else random.uniform(60, 70))

    def pocket_mm(min_mm: float) -> float:
        """A fifth to a third of the bleed's radius, but large enough to be visible in a 5 mm slice."""
        return max(min_mm, float(random.uniform(0.2, 0.3)) * radius)

    return BleedingParameters(
        site=str(random.choice(list(SITES), p=[share for share, _, _ in SITES.values()])),
        volume_ml=volume_ml,
        irregularity=float(random.uniform(0.18, 0.28) if signs["irregular"] else random.uniform(0.03, 0.09)),
        lobes=int(random.choice([1, 2, 3], p=[0.5, 0.3, 0.2]) if signs["irregular"] else 0),
        hu=hu,
        texture_hu=float(random.uniform(4.5, 6) if signs["heterogeneous"] else random.uniform(1, 2.5)),
        hypodense_hu=float(np.clip(40.5 - 3.0 * darkness, 34.0, 47.0)),
        swirl_mm=max(MIN_SWIRL_MM, swirl_share * radius) if signs["swirl"] else 0.0,
        pocket_mm=pocket_mm(3.5) if signs["hypodensity"] else 0.0,
        black_hole_mm=pocket_mm(4.0) if signs["black_hole"] else 0.0,
        decoy_mm=pocket_mm(3.5) if random.random() < _DECOY_SHARE and not signs["hypodensity"] else 0.0,
        blend_share=float(random.uniform(0.35, 0.5)) if signs["blend"] else 0.0,
        fluid_share=float(random.uniform(0.3, 0.5)) if fluid_level else 0.0,
        part_drop_hu=float(random.uniform(20.5, 23.5)),
        satellites=int(satellites),
        scatter=0.2,
        edema_mm=float(random.uniform(1.0, 4.0)),
    )


def _draw_growth(
    expands: bool, propensity: float, swirl: float, baseline_ml: float, random: np.random.Generator
) -> GrowthParameters:
    still = float(np.clip(random.normal(0.0, 1.4), -0.1 * baseline_ml, min(5.9, 0.3 * baseline_ml)))
    heavy = float(np.exp(random.normal(np.log(6.0) + 0.35 * propensity + 0.3 * swirl, 0.35)))
    heavy *= (baseline_ml / MEDIAN_ML) ** 0.4
    growth = max(min(heavy, 1.2 * baseline_ml, 60.0), min(6.5, 0.36 * baseline_ml)) if expands else still
    return GrowthParameters(
        growth_ml=growth,
        base=float(random.uniform(0.02, 0.08)),
        concentration=float(random.uniform(3.5, 6.0)),
        unevenness=float(random.uniform(0.15, 0.35)),
    )


def _draw_ventricular(site: str, expands: bool, random: np.random.Generator) -> VentricularBlood:
    baseline = bool(random.random() < VENTRICULAR_SHARE[site])
    breaks_in = bool(random.random() < (0.15 if expands else 0.02))
    return VentricularBlood(
        baseline, baseline or breaks_in, float(random.uniform(0.1, 0.6)), float(random.uniform(48, 62))
    )


def _draw_scanner(options: SimulationOptions, random: np.random.Generator) -> ScannerParameters:
    thicknesses = list(SLICE_THICKNESSES_MM)
    mixed = float(random.choice(thicknesses, p=list(SLICE_THICKNESSES_MM.values())))
    slice_mm = options.slice_mm or mixed
    tilt = float(random.uniform(-20, 20)) if random.random() < 0.3 else 0.0
    return ScannerParameters(
        matrix=options.matrix,
        pixel_mm=float(random.uniform(0.39, 0.56)) * 512 / options.matrix,
        slice_mm=slice_mm,
        tilt_degrees=tilt,
        noise_hu=float(random.uniform(3.0, 5.0) * (5.0 / slice_mm) ** 0.25),
        noise_width_mm=float(random.uniform(0.35, 0.7)),
    )
