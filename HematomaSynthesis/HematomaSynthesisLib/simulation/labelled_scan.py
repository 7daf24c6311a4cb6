"""One simulated scan in which each voxel's kind of blood is known, with what makes real scans hard to read.

Unlike ``patient.py``, nothing here grows and no sign means anything: these scans are for learning and testing
which blood is where. Every finding has its own switch (``FINDINGS``); what is drawn goes beyond what is realistic
(domain randomization, Billot 2023).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache

import numpy as np
import SimpleITK as sitk
from HematomaExpansionLib.anatomy.bleeds import VENTRICLES, Kind, class_of_most
from HematomaExpansionLib.growth.warping import field_on, warp_image
from HematomaExpansionLib.scan.grid import Array, Grid, image_on
from HematomaExpansionLib.scan.intensities import as_int16
from HematomaExpansionLib.scan.resampling import average_onto, resample
from scipy.ndimage import gaussian_filter

from . import artifacts, blood_elsewhere, findings
from .anatomy import Anatomy, icbm_anatomy, with_ventricles
from .artifacts import Slices
from .bleeding import make_hematoma
from .canvas import Canvas, Drawn, Part, smooth_noise
from .causal_model import SimulationOptions, draw_parameters
from .mass_effect import move, push_from
from .scanner import ScannerParameters, acquire_clean, scan_grid

Painter = Callable[[Canvas, np.random.Generator], Drawn]
Artifact = Callable[[Slices, np.random.Generator], tuple[Array, Drawn]]

BLEEDS: dict[str, tuple[float, Painter]] = {
    "epidural": (0.08, blood_elsewhere.paint_epidural),
    "subdural": (0.14, blood_elsewhere.paint_subdural),
    "falcine": (0.07, blood_elsewhere.paint_falcine),
    "subarachnoid": (0.15, blood_elsewhere.paint_subarachnoid),
    "intraventricular": (0.28, blood_elsewhere.paint_ventricular),
    "contusions": (0.10, findings.paint_contusions),
}
"""Blood other than the hematoma: name -> share of scans, and what paints it."""

CHANGES: dict[str, tuple[float, Painter]] = {
    "infarct": (0.15, findings.paint_infarct),
    "pale-white-matter": (0.30, findings.paint_pale_white_matter),
    "calcifications": (0.45, findings.paint_calcifications),
    "bone-ridges": (0.60, findings.paint_bone_ridges),
    "missing-bone": (0.08, findings.paint_missing_bone),
    "metal": (0.08, findings.paint_metal),
    "air": (0.06, findings.paint_air),
}
"""Changes of the head that are no blood, likewise."""

ARTIFACTS: dict[str, tuple[float, Artifact]] = {
    "beam-hardening": (0.60, artifacts.add_beam_hardening),
    "ripple": (0.40, artifacts.add_ripple),
    "streaks": (0.15, artifacts.add_streaks),
    "bands": (0.30, artifacts.add_bands),
    "kernel": (0.60, artifacts.filter_kernel),
    "noise": (1.00, artifacts.add_noise),
    "cut-view": (0.04, artifacts.cut_view),
    "saturated": (0.30, artifacts.saturate),
}
"""What the scanner adds, likewise, in the order in which it does."""

HEMATOMA, EDEMA, MASS_EFFECT, WIDE_VENTRICLES = "hematoma", "edema", "mass-effect", "wide-ventricles"
FINDINGS = frozenset({*BLEEDS, *CHANGES, *ARTIFACTS, HEMATOMA, EDEMA, MASS_EFFECT, WIDE_VENTRICLES})
"""The names of all switches."""

_HEMATOMA_SHARE = 0.45
_WITH_HEMATOMA = {"intraventricular": 0.45, "contusions": 0.05, "epidural": 0.03, "falcine": 0.05}
"""Shares in scans that hold a hematoma, where they differ."""
_OF_REAL_SCAN = {
    "noise": 0.4,
    "kernel": 0.3,
    "beam-hardening": 0.2,
    "bands": 0.1,
    "bone-ridges": 0.0,
    "saturated": 0.0,
}
"""Shares in real scans, which have their own."""

SCANS_PER_HEAD, _ATROPHIC_SHARE = 3, 0.35
_SLICES_MM = ((1.0, 0.1), (2.5, 0.2), (5.0, 0.6), (7.0, 0.1))
_SUBSLICE_MM = 1.0
_GRAIN_MM = 1.2


@dataclass(frozen=True)
class ScanOptions:
    """What is fixed for all scans.

    ``matrix``: pixels per side of a slice, in fully simulated scans. ``findings``: the switches that are on.
    ``hematoma_share``: share of scans with a hematoma. ``always``: switches that are on in every scan rather than
    in their share of scans.
    """

    matrix: int = 256
    findings: frozenset[str] = FINDINGS
    hematoma_share: float = _HEMATOMA_SHARE
    always: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, eq=False)
class LabelledScan:
    """A CT (HU, int16) and, on its grid, the class of each voxel (``anatomy.bleeds``: kinds, and ventricles)."""

    ct: sitk.Image
    labels: sitk.Image
    description: Drawn


def simulate_scan(seed: int, number: int, options: ScanOptions, head: Anatomy | None = None) -> LabelledScan:
    """Scan ``number`` of a set with that seed; the same for the same numbers and options.

    ``head``: that of a real scan without blood; by default a variation of ICBM152.
    """
    random = np.random.default_rng([seed, number, 2])
    drawn: Drawn = {}
    chance = _Chance(options, random)
    has_hematoma = HEMATOMA in options.findings and bool(random.random() < options.hematoma_share)
    shares = _WITH_HEMATOMA if has_hematoma else {}
    anatomy = _simulated_head(seed, head_number(number)) if head is None else _with_ventricles(head)
    if head is not None:
        shares = {**shares, **_OF_REAL_SCAN}
    canvas, fields = _blank(anatomy).copy(), []
    if chance.says(WIDE_VENTRICLES, 0.25) and (canvas.ventricles > 0.5).any():
        field = push_from(canvas, canvas.ventricles > 0.5, float(random.uniform(1, 7)), 25.0)
        move(canvas, field)
        fields.append(field)
    for name, (share, paint) in CHANGES.items():
        if chance.says(name, shares.get(name, share)):
            drawn[name] = paint(canvas, random)
    if has_hematoma:
        drawn[HEMATOMA] = _bleed(canvas, fields, chance, random)
    for name, (share, paint) in BLEEDS.items():
        if chance.says(name, shares.get(name, share)):
            drawn[name] = paint(canvas, random)
    ct, grid = _scanned(canvas, fields, options, random)
    labels = _labels_on(canvas, grid)
    slices = Slices(ct, average_onto(anatomy.inside_skull.image, grid) > 0.5, grid.spacing)
    for name, (share, add) in ARTIFACTS.items():
        if slices.inside.any() and chance.says(name, shares.get(name, share)):
            hu, drawn[name] = add(slices, random)
            slices = replace(slices, hu=hu)
    description = {
        "research_use_only": True,
        "source": "simulated" if head is None else "simulated bleeds in a real scan",
        "seed": seed,
        "number": number,
        "findings": drawn,
        "volumes_ml": {
            kind.name.lower(): int(np.count_nonzero(labels == kind)) * grid.voxel_volume_ml for kind in Kind
        },
    }
    return LabelledScan(
        as_int16(image_on(grid, slices.hu.astype(np.float32))), image_on(grid, labels), description
    )


def head_number(number: int) -> int:
    """Which simulated head a scan shows: heads take longer to make than all that is painted on them, so each
    serves several scans.
    """
    return number // SCANS_PER_HEAD


@lru_cache(maxsize=1)
def _simulated_head(seed: int, number: int) -> Anatomy:
    random = np.random.default_rng([seed, number, 3])
    return icbm_anatomy(random, (0.0, 0.95) if random.random() < _ATROPHIC_SHARE else (0.0, 0.35))


@lru_cache(maxsize=1)
def _with_ventricles(head: Anatomy) -> Anatomy:
    return with_ventricles(head)


@lru_cache(maxsize=1)
def _blank(anatomy: Anatomy) -> Canvas:
    return Canvas.of(anatomy)


@dataclass(frozen=True)
class _Chance:
    options: ScanOptions
    random: np.random.Generator

    def says(self, name: str, share: float) -> bool:
        """Whether a finding is drawn; the same numbers are drawn whether its switch is on or not."""
        lucky = bool(self.random.random() < share)
        return name in self.options.findings and (lucky or name in self.options.always)


def _bleed(canvas: Canvas, fields: list[sitk.Image], chance: _Chance, random: np.random.Generator) -> Drawn:
    """Paint a hematoma that pushes tissue aside, with its edema; it ends at the ventricle's wall."""
    parameters = draw_parameters(random, SimulationOptions(volume_ml=_volume_ml(random))).bleeding
    in_parts = parameters.blend_share > 0 or parameters.fluid_share > 0
    hu = random.uniform(70, 80) if in_parts else random.uniform(52, 78)  # the less dense part differs from brain
    parameters = replace(parameters, hu=float(hu), texture_hu=float(random.uniform(1, 7)))
    hematoma = make_hematoma(canvas.anatomy, parameters, random)
    box = canvas.around(hematoma.center, 2.6 * parameters.radius_mm + 20)
    level = sitk.GetArrayFromImage(resample(hematoma.level, box.grid, outside=-60.0))
    if chance.says(MASS_EFFECT, 0.8):
        body = np.zeros(canvas.grid.shape, bool)
        body[box.slices] = level > 0
        if body.any():
            push_mm = float(random.uniform(0.1, 0.5)) * parameters.radius_mm
            field = push_from(canvas, body, min(push_mm, 7.0), float(random.uniform(12, 30)))
            move(canvas, field)
            fields.append(field)
    # What the ventricle holds is not in the tissue.
    level = np.minimum(level, np.where(canvas.ventricles[box.slices] > 0.5, -1.0, 60.0))
    edema_mm = 0.0
    if chance.says(EDEMA, 0.75):
        edema_mm = float(np.clip(random.gamma(2.0, 2.5), 0.5, 16.0))
        _paint_edema(canvas, box, level, edema_mm, random)
    hu = sitk.GetArrayFromImage(resample(hematoma.hu, box.grid, outside=float(parameters.hu)))
    canvas.paint(box, np.clip(level + 0.5, 0, 1).astype(np.float32), hu, Kind.INTRAPARENCHYMAL)
    return {**asdict(hematoma.drawn), "edema_mm": edema_mm}


def _volume_ml(random: np.random.Generator) -> float:
    """Log-normal, from a bleed of less than 1 mL to one that fills half a hemisphere."""
    return float(np.clip(np.exp(random.normal(np.log(9.0), 1.25)), 0.4, 130.0))


def _paint_edema(canvas: Canvas, box: Part, level: Array, edema_mm: float, random: np.random.Generator) -> None:
    """A rim of uneven width in the tissue around a bleed; ``level``: mm to its surface, positive inside."""
    wavering = edema_mm * (1 + 0.4 * smooth_noise(level.shape, 6, random))
    from_surface = -gaussian_filter(level, 1.0)
    tissue = np.clip(2 * canvas.tissue[box.slices] - 0.3, 0, 1) * (canvas.depth[box.slices] > 1)
    share = np.clip((wavering - from_surface) / random.uniform(1.0, 3.0), 0, 1) * tissue
    canvas.paint(box, 0.95 * share.astype(np.float32), random.uniform(16, 28), Kind.EDEMA)


def _scanned(
    canvas: Canvas, fields: list[sitk.Image], options: ScanOptions, random: np.random.Generator
) -> tuple[Array, Grid]:
    """The painted head as a stack of slices in HU (z, y, x), without the artifacts, and its grid."""
    anatomy = canvas.anatomy
    if not anatomy.from_scan:
        thickness = float(random.choice([mm for mm, _ in _SLICES_MM], p=[share for _, share in _SLICES_MM]))
        parameters = ScannerParameters(
            matrix=options.matrix,
            pixel_mm=float(random.uniform(0.39, 0.56)) * 512 / options.matrix,
            slice_mm=thickness,
            tilt_degrees=float(random.uniform(-25, 25)) if random.random() < 0.4 else 0.0,
            noise_hu=0.0,
            noise_width_mm=0.5,
        )
        return acquire_clean(_pasted(anatomy.ct, canvas), parameters), scan_grid(Grid.of(anatomy.ct), parameters)
    scan = sitk.Cast(anatomy.ct, sitk.sitkFloat32)
    for pull in fields:
        scan = warp_image(scan, field_on(scan, pull))
    grid = Grid.of(scan)
    hu = sitk.GetArrayFromImage(scan)
    covered = average_onto(canvas.image(canvas.covered), grid)
    added = average_onto(canvas.image(canvas.hu - (1 - canvas.covered) * canvas.original), grid)
    x, y = _GRAIN_MM / grid.spacing[0], _GRAIN_MM / grid.spacing[1]
    soft = np.clip(hu, -100, 200)
    grain = np.clip(soft - gaussian_filter(soft, (0, y, x)), -15, 15)
    return hu * (1 - covered) + added + grain * covered, grid


def _pasted(head: sitk.Image, canvas: Canvas) -> sitk.Image:
    """The head at 1 mm with what the canvas shows of it."""
    grid = Grid.of(head)
    start = np.round(np.linalg.solve(grid.axes, np.array(canvas.grid.origin) - np.array(grid.origin))).astype(int)
    hu = sitk.GetArrayFromImage(head)
    low, high = np.maximum(start, 0), np.minimum(start + canvas.grid.size, grid.size)
    target = tuple(slice(a, b) for a, b in zip(low[::-1], high[::-1], strict=True))
    own = tuple(slice(a, b) for a, b in zip((low - start)[::-1], (high - start)[::-1], strict=True))
    hu[target] = canvas.hu[own]
    return image_on(grid, hu)


def _labels_on(canvas: Canvas, grid: Grid) -> Array:
    """The class of most of each voxel of thick slices, uint8 (z, y, x)."""
    labels = canvas.image(canvas.labels)
    normal = grid.axes[:, 2]
    count = max(1, round(float(np.linalg.norm(normal)) / _SUBSLICE_MM))
    votes = np.zeros((VENTRICLES + 1, *grid.shape), np.uint8)
    for k in range(count):
        shift = normal * ((k + 0.5) / count - 0.5)
        origin = np.array(grid.origin) + shift
        moved = replace(grid, origin=(float(origin[0]), float(origin[1]), float(origin[2])))
        sampled = sitk.GetArrayFromImage(resample(labels, moved, interpolator=sitk.sitkNearestNeighbor))
        for value in range(1, VENTRICLES + 1):
            votes[value] += sampled == value
    return class_of_most(votes / np.float32(count))
