"""One simulated patient: baseline and follow-up CT with their true masks (see ``causal_model``)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import SimpleITK as sitk
from HematomaExpansionLib.growth.warping import field_on, warp_image, with_part
from HematomaExpansionLib.progress import Progress, silent
from HematomaExpansionLib.scan.grid import Grid
from HematomaExpansionLib.scan.mask import Mask
from HematomaExpansionLib.scan.resampling import resample

from .anatomy import Anatomy, icbm_anatomy
from .bleeding import Hematoma, make_hematoma, paint, paint_ventricles
from .causal_model import PatientParameters, SimulationOptions, as_drawn, draw_parameters
from .growth import GrowthParameters, grow
from .scanner import acquire, acquire_mask

# Below this Jacobian determinant, tissue would nearly tear: growth is made gentler.
_MIN_JACOBIAN = 0.002
# Concentration of a bleeding edge as wide as half the hematoma; if that is not enough, growth is reduced.
_MIN_CONCENTRATION = 0.5


@dataclass(frozen=True)
class SimulatedPatient:
    """CTs in HU and true masks, all on one grid; ``description`` is what ``case.json`` holds."""

    baseline: sitk.Image
    baseline_mask: Mask
    followup: sitk.Image
    followup_mask: Mask
    description: dict[str, Any]


def simulate_patient(
    seed: int,
    number: int,
    options: SimulationOptions,
    anatomy: Anatomy | None = None,
    progress: Progress = silent,
) -> SimulatedPatient:
    """Patient ``number`` of a cohort with that seed; the same for the same two numbers and options.

    ``anatomy``: that of a real scan; by default a variation of ICBM152.
    """
    random = np.random.default_rng([seed, number])
    parameters = draw_parameters(random, options)
    progress("anatomy", 0.0)
    head = anatomy or icbm_anatomy(random)
    progress("bleeding", 0.3)
    hematoma = make_hematoma(head, parameters.bleeding, random)
    parameters = as_drawn(parameters, hematoma.drawn)
    progress("growth", 0.33)
    growth = grow(head, hematoma, parameters.growth, random)
    while growth.smallest_jacobian < _MIN_JACOBIAN:
        parameters = replace(parameters, growth=_gentler(parameters.growth))
        growth = grow(head, hematoma, parameters.growth, random)
    progress("scans", 0.8)
    make = _simulate_scans if not head.from_scan else _paint_into_scan
    baseline, baseline_mask, followup, followup_mask = make(
        head, hematoma, growth.displacement, parameters, random
    )
    ventricular = parameters.ventricular
    known = head.ventricles is not None
    description = {
        "research_use_only": True,
        "source": "simulated" if not head.from_scan else "simulated bleed in a real scan",
        "registered": True,
        "seed": seed,
        "number": number,
        "onset_hours": parameters.onset_hours,
        "baseline_ml": baseline_mask.volume_ml,
        "followup_ml": followup_mask.volume_ml,
        "intraventricular": {
            "baseline": known and ventricular.baseline,
            "followup": known and ventricular.followup,
        },
        "smallest_jacobian": growth.smallest_jacobian,
        "parameters": asdict(parameters),
    }
    return SimulatedPatient(baseline, baseline_mask, followup, followup_mask, description)


def _gentler(growth: GrowthParameters) -> GrowthParameters:
    if growth.concentration > _MIN_CONCENTRATION:
        return replace(growth, concentration=growth.concentration / 2)
    return replace(growth, growth_ml=0.8 * growth.growth_ml)


_Scans = tuple[sitk.Image, Mask, sitk.Image, Mask]


def _simulate_scans(
    head: Anatomy,
    hematoma: Hematoma,
    displacement: sitk.Image,
    parameters: PatientParameters,
    random: np.random.Generator,
) -> _Scans:
    """Both scans from the simulated scanner, each with its own noise."""
    scanner = parameters.scanner
    field = field_on(head.ct, displacement)
    level = resample(hematoma.level, Grid.of(head.ct), outside=-60.0)
    first = _painted(head, hematoma, parameters, ventricles=parameters.ventricular.baseline)
    before = first
    if parameters.ventricular.followup != parameters.ventricular.baseline:
        before = _painted(head, hematoma, parameters, ventricles=True)
    return (
        acquire(first, scanner, random),
        acquire_mask(level, scanner),
        acquire(_moved(before, field), scanner, random),
        acquire_mask(_moved(level, field), scanner),
    )


def _painted(head: Anatomy, hematoma: Hematoma, parameters: PatientParameters, *, ventricles: bool) -> sitk.Image:
    ct = head.ct
    if ventricles and head.ventricles is not None:
        ct = paint_ventricles(ct, head.ventricles, parameters.ventricular.filled, parameters.ventricular.hu)
    return paint(ct, hematoma, parameters.bleeding.edema_mm, keep_noise=False)


def _paint_into_scan(
    head: Anatomy,
    hematoma: Hematoma,
    displacement: sitk.Image,
    parameters: PatientParameters,
    random: np.random.Generator,
) -> _Scans:
    """Both scans from the real one, on its own grid; the follow-up is the deformed baseline."""
    grid = Grid.of(head.ct)
    first = paint(head.ct, hematoma, parameters.bleeding.edema_mm, keep_noise=True)
    field = field_on(head.ct, displacement)
    second = _moved(first, field)
    level = resample(hematoma.level, grid, outside=-60.0)
    masks = [Mask(sitk.Cast(image > 0, sitk.sitkUInt8)) for image in (level, _moved(level, field))]
    scans = [sitk.Cast(sitk.Round(image), sitk.sitkInt16) for image in (first, second)]
    return scans[0], masks[0], scans[1], masks[1]


def _moved(image: sitk.Image, field: sitk.Image) -> sitk.Image:
    """The image warped by the displacement; a signed distance then keeps only its sign."""
    return with_part(image, warp_image(image, field))
