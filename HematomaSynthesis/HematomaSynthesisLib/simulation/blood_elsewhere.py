"""Blood that is not in the brain's tissue: in the ventricles, and between brain and skull.

Shapes and densities are textbook knowledge, varied beyond what is usual, as Billot 2023 (SynthSeg) does with all
appearance: a network that has seen more than there is takes reality for one more variation. Each function paints
on a canvas, marks its kind there, and returns what it drew.
"""

from __future__ import annotations

import numpy as np
from HematomaExpansionLib.anatomy.bleeds import Kind
from HematomaExpansionLib.scan.grid import Array
from HematomaExpansionLib.scan.shapes import bounding_box
from scipy.ndimage import gaussian_filter

from .canvas import Canvas, Drawn, Part, smooth_noise, soft

_CISTERNS = ((0.0, -8.0, -22.0), (0.0, 18.0, -22.0), (34.0, -6.0, -8.0), (40.0, 4.0, 4.0))
"""Centers of the suprasellar and ambient cisterns and the Sylvian fissure, ICBM152 space (LPS mm)."""

_TENTORIUM_TOP, _TENTORIUM_SLOPE = (0.0, 40.0, 4.0), (0.42, 0.35)
"""Its apex in ICBM152 space (LPS mm), and how far it falls toward the sides and the back, in mm per mm."""


def paint_ventricular(canvas: Canvas, random: np.random.Generator) -> Drawn:
    """Blood in the lateral ventricles: a level in the dependent horns, or a cast of one or both ventricles."""
    inside = canvas.ventricles > 0.5
    if not inside.any():
        return {}
    first, size = bounding_box(inside)
    part = canvas.part(first - 2, first + size + 2)
    share, points = canvas.ventricles[part.slices], part.points
    within = share > 0.5
    middle = canvas.template_point(np.array([0.0, 20.0, 10.0]))[0]
    side = random.choice(["both", "left", "right"], p=[0.5, 0.25, 0.25])
    if side != "both":
        own = (points[..., 0] > middle) if side == "left" else (points[..., 0] < middle)
        within &= own
    if not within.any():
        return {}
    is_cast = bool(random.random() < 0.45)
    filled = float(random.uniform(0.6, 1.0) if is_cast else random.uniform(0.04, 0.5))
    height = points[..., 1] + (random.uniform(2, 8) * smooth_noise(share.shape, 6, random) if is_cast else 0.0)
    level = float(np.quantile(height[within], 1 - filled))
    hu = random.uniform(48, 75) if is_cast else random.uniform(42, 68)
    texture = random.uniform(1, 5) * smooth_noise(share.shape, 3, random)
    blood = share * soft(height - level) * gaussian_filter(within.astype(np.float32), 0.7)
    canvas.paint(part, np.clip(blood, 0, 1), hu + texture, Kind.INTRAVENTRICULAR)
    return {"filled": filled, "cast": is_cast, "side": str(side), "hu": float(hu)}


def paint_epidural(canvas: Canvas, random: np.random.Generator) -> Drawn:
    """A lens between dura and skull, 10 to 90 mm across and up to 30 mm thick."""
    thickness, reach = float(random.uniform(6, 30)), float(random.uniform(16, 45))
    center = at_skull(canvas, random, lowest=-30.0)
    part = canvas.around(center, reach + 5)
    depth, distance = canvas.depth[part.slices], part.distance_from(center)
    edge = thickness * (1 - (distance / reach) ** 2) + 0.8 * smooth_noise(depth.shape, 5, random)
    return _layer(canvas, part, edge - depth, "epidural", thickness, random)


def paint_subdural(canvas: Canvas, random: np.random.Generator) -> Drawn:
    """A crescent over one hemisphere, 2 to 15 mm thick; it ends at the falx."""
    thickness = float(np.exp(random.uniform(np.log(2.5), np.log(15))))
    reach = float(random.uniform(35, 90))
    center = at_skull(canvas, random, lowest=-15.0)
    part = canvas.around(center, reach + 5)
    depth, points = canvas.depth[part.slices], part.points
    distance = part.distance_from(center)
    profile = np.clip(1 - (distance / reach) ** 2, 0, 1) ** 0.6
    edge = thickness * profile * (1 + 0.15 * smooth_noise(depth.shape, 8, random)) - 0.3
    middle = canvas.template_point(np.array([0.0, 20.0, 30.0]))[0]
    side = np.sign(center[0] - middle) or 1.0
    from_falx = side * (points[..., 0] - middle) - 1.0
    return _layer(canvas, part, np.minimum(edge - depth, from_falx), "subdural", thickness, random)


def paint_falcine(canvas: Canvas, random: np.random.Generator) -> Drawn:
    """A thin subdural layer along the falx or on the tentorium."""
    thickness = float(random.uniform(2.0, 7.0))
    part = canvas.whole
    points = part.points
    if random.random() < 0.6:
        name, side = "falx", float(random.choice([-1.0, 1.0]))
        middle = canvas.template_point(np.array([0.0, 20.0, 30.0]))[0]
        away = side * (points[..., 0] - middle)
        center = canvas.template_point(np.array([0.0, random.uniform(-50, 85), random.uniform(30, 65)]))
    else:
        name, side = "tentorium", float(random.choice([-1.0, 1.0]))
        top, (aside, back) = canvas.template_point(np.array(_TENTORIUM_TOP)), _TENTORIUM_SLOPE
        surface = top[2] - aside * np.abs(points[..., 0] - top[0]) - back * np.maximum(points[..., 1] - top[1], 0)
        away = points[..., 2] - surface
        center = top + np.array([side * random.uniform(12, 35), random.uniform(5, 40), 0.0])
        center[2] = top[2] - aside * abs(center[0] - top[0]) - back * max(center[1] - top[1], 0.0)
    reach = float(random.uniform(15, 45))
    profile = np.clip(1 - (part.distance_from(center) / reach) ** 2, 0, 1)
    layer = np.minimum(thickness * profile - away - 0.2, away + 0.3)
    level = np.where(profile > 0, np.minimum(layer, canvas.depth), -5.0)
    return _layer(canvas, part, level, name, thickness, random)


def paint_subarachnoid(canvas: Canvas, random: np.random.Generator) -> Drawn:
    """Blood in the CSF around the brain: in the cisterns and Sylvian fissures, or in sulci of the convexity."""
    basal = bool(random.random() < 0.6)
    if basal:
        x, y, z = _CISTERNS[random.integers(len(_CISTERNS))]
        center = canvas.template_point(np.array([random.choice([-1.0, 1.0]) * x, y, z]) + random.normal(0, 4, 3))
    else:
        center = at_skull(canvas, random, lowest=-5.0)
    reach = float(random.uniform(15, 50))
    part = canvas.around(center, reach)
    hu, depth = canvas.hu[part.slices], canvas.depth[part.slices]
    csf = np.clip((24.0 - gaussian_filter(hu, 0.6)) / 12.0, 0, 1) * (depth > 0.5)
    csf *= canvas.ventricles[part.slices] < 0.2
    wavering = part.distance_from(center) * (1 + 0.25 * smooth_noise(hu.shape, 8, random))
    near = np.clip(2.5 * (1 - wavering / reach), 0, 1)
    density = float(random.uniform(42, 68))
    canvas.paint(part, (csf * near).astype(np.float32), density, Kind.EXTRAAXIAL)
    return {"basal": basal, "reach_mm": reach, "hu": density}


def _layer(
    canvas: Canvas, part: Part, level: Array, where: str, thickness: float, random: np.random.Generator
) -> Drawn:
    """Paint extra-axial blood where ``level`` (mm, positive inside) and the inside of the skull say so."""
    inside = np.minimum(level, canvas.depth[part.slices])
    hu = float(random.uniform(52, 78))
    density = hu + random.uniform(0.5, 4) * smooth_noise(level.shape, 4, random)
    kind = str(random.choice(["acute", "mixed", "layered"], p=[0.6, 0.25, 0.15]))
    if kind == "mixed":  # fresh blood among older, or not yet clotted
        older = soft(smooth_noise(level.shape, 7, random), 0.3)
        density = density - random.uniform(5, 22) * older
    elif kind == "layered":  # cells settle at the back of one who lies
        y = part.points[..., 1]
        border = np.quantile(y[inside > 0], random.uniform(0.3, 0.7)) if (inside > 0).any() else 0.0
        density = density - random.uniform(8, 25) * soft(border - y, 6.0)
    canvas.paint(part, soft(inside), density, Kind.EXTRAAXIAL)
    return {"where": where, "thickness_mm": thickness, "hu": hu, "kind": kind}


def at_skull(canvas: Canvas, random: np.random.Generator, lowest: float) -> Array:
    """A point (LPS mm) just inside the skull, above ``lowest`` (mm in ICBM152 space)."""
    middle = canvas.template_point(np.array([0.0, 18.0, 8.0]))
    for _ in range(30):
        ray = random.normal(size=3) * (1.0, 1.0, 0.7)
        ray /= np.linalg.norm(ray)
        steps = np.arange(20.0, 130.0)
        inside = [canvas.value_at(canvas.depth, middle + step * ray) > 0 for step in steps]
        point = middle + steps[int(np.argmin(inside))] * ray
        if point[2] > canvas.template_point(np.array([0.0, 18.0, lowest]))[2]:
            return point
    return point
