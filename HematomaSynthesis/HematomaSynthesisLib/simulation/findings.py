"""What heads hold besides bleeds: old infarcts, calcifications, contusions, missing bone, metal, air.

Densities and sizes are textbook knowledge, varied beyond what is usual. Each function paints on a canvas and
returns what it drew; only contusions are blood.
"""

from __future__ import annotations

import numpy as np
from HematomaExpansionLib.anatomy.bleeds import Kind
from HematomaExpansionLib.scan.grid import Array
from scipy.ndimage import gaussian_filter

from .blood_elsewhere import at_skull
from .canvas import Canvas, Drawn, smooth_noise, soft

_POLES = ((22.0, -58.0, 8.0), (14.0, -48.0, -14.0), (44.0, -14.0, -28.0), (52.0, 8.0, -22.0))
"""Frontal and temporal poles, where brains hit bone; ICBM152 space (LPS mm), for one side."""

_BASAL_GANGLIA = ((18.0, 2.0, 0.0), (24.0, 8.0, 4.0))
_CALCIFIED = {
    "pineal gland": ((0.0, 25.0, 2.0), (1.5, 4.5)),
    "left plexus": ((22.0, 38.0, 10.0), (1.5, 5.0)),
    "right plexus": ((-22.0, 38.0, 10.0), (1.5, 5.0)),
    "falx": ((0.0, -35.0, 45.0), (1.5, 6.0)),
    "left dentate nucleus": ((14.0, 58.0, -32.0), (2.0, 5.0)),
}


def paint_contusions(canvas: Canvas, random: np.random.Generator) -> Drawn:
    """One to five small bleeds with edema at the frontal and temporal poles, some of them spotted."""
    radii = []
    for _ in range(random.integers(1, 6)):
        x, y, z = _POLES[random.integers(len(_POLES))]
        center = canvas.template_point(np.array([random.choice([-1.0, 1.0]) * x, y, z]) + random.normal(0, 6, 3))
        radius = float(random.uniform(3.0, 11.0))
        part = canvas.around(center, radius + 12)
        distance = part.distance_from(center) + 0.25 * radius * smooth_noise(part.grid.shape, 4, random)
        within = np.minimum(canvas.depth[part.slices] - 1.0, 8 * (canvas.tissue[part.slices] - 0.5))
        edema = float(random.uniform(0, 7))
        swollen = soft(np.minimum(radius + edema - distance, within), 3.0)
        canvas.paint(part, 0.9 * swollen, random.uniform(18, 29), Kind.EDEMA if edema > 1 else None)
        spotted = 3.0 * smooth_noise(part.grid.shape, 2.5, random) if random.random() < 0.4 else 5.0
        level = np.minimum(np.minimum(radius - distance, within), spotted)
        canvas.paint(part, soft(level), random.uniform(48, 70), Kind.INTRAPARENCHYMAL)
        radii.append(radius)
    return {"radii_mm": radii}


def paint_infarct(canvas: Canvas, random: np.random.Generator) -> Drawn:
    """An old infarct: a region of tissue that is nearly as dark as CSF, or an older, fainter one."""
    center = _in_tissue(canvas, random)
    radius = float(random.uniform(5, 35))
    part = canvas.around(center, 1.5 * radius)
    distance = part.distance_from(center) + 0.3 * radius * smooth_noise(part.grid.shape, 9, random)
    share = soft(radius - distance, 4.0) * (canvas.tissue[part.slices] > 0.3) * (canvas.depth[part.slices] > 0)
    hu = float(random.uniform(6, 27))
    canvas.paint(part, 0.95 * share, hu)
    return {"radius_mm": radius, "hu": hu}


def paint_pale_white_matter(canvas: Canvas, random: np.random.Generator) -> Drawn:
    """Small-vessel disease: the tissue around the ventricles is darker than elsewhere."""
    drop, reach = float(random.uniform(3, 10)), float(random.uniform(5, 16))
    near = gaussian_filter(canvas.ventricles, reach / 2)
    canvas.hu -= np.float32(drop) * np.clip(3 * near, 0, 1) * canvas.tissue * (canvas.ventricles < 0.5)
    return {"drop_hu": drop, "reach_mm": reach}


def paint_calcifications(canvas: Canvas, random: np.random.Generator) -> Drawn:
    """Calcified pineal gland, plexus, falx, basal ganglia and dentate nuclei: dense, but not blood."""
    spots: list[tuple[Array, float]] = [
        (canvas.template_point(np.array(place) + random.normal(0, 2, 3)), random.uniform(*radii))
        for place, radii in _CALCIFIED.values()
        if random.random() < 0.5
    ]
    if random.random() < 0.35:  # most often on both sides
        size = random.uniform(2, 8)
        spots += [
            (canvas.template_point(np.array([side * x, y, z]) + random.normal(0, 1.5, 3)), size)
            for x, y, z in _BASAL_GANGLIA
            for side in (-1.0, 1.0)
        ]
    hu = float(random.uniform(55, 300))
    for center, radius in spots:
        part = canvas.around(center, radius + 4)
        distance = part.distance_from(center) + 0.3 * radius * smooth_noise(part.grid.shape, 2, random)
        canvas.paint(part, random.uniform(0.5, 1.0) * soft(radius - distance), hu, 0)
    return {"spots": len(spots), "hu": hu}


def paint_missing_bone(canvas: Canvas, random: np.random.Generator) -> Drawn:
    """A bone flap removed, or burr holes: soft tissue in place of the bone."""
    flap = bool(random.random() < 0.6)
    radii = []
    for _ in range(1 if flap else random.integers(1, 4)):
        center = at_skull(canvas, random, lowest=-15.0)
        radius = float(random.uniform(22, 55) if flap else random.uniform(5, 9))
        part = canvas.around(center, radius + 4)
        depth = canvas.depth[part.slices]
        bone = np.minimum(radius - part.distance_from(center), np.minimum(-depth + 0.5, 12 + depth))
        canvas.paint(part, soft(bone) * (canvas.hu[part.slices] > 60), random.uniform(15, 55))
        radii.append(radius)
    return {"flap": flap, "radii_mm": radii}


def paint_metal(canvas: Canvas, random: np.random.Generator) -> Drawn:
    """Clips, staples on the skull, fragments, or a drain toward the ventricle: as dense as metal or plastic."""
    kind = str(random.choice(["clip", "staples", "fragments", "drain"]))
    if kind == "drain":
        start = at_skull(canvas, random, lowest=30.0)
        end = canvas.template_point(np.array([0.0, 0.0, 15.0]) + random.normal(0, 5, 3))
        spots = [start + t * (end - start) for t in np.linspace(0, 1, 60)]
        radius, hu = float(random.uniform(1.0, 1.8)), float(random.uniform(120, 400))
    elif kind == "clip":
        spots = [canvas.template_point(np.array([0.0, -8.0, -18.0]) + random.normal(0, 12, 3))]
        radius, hu = float(random.uniform(1.5, 4)), float(random.uniform(1500, 3000))
    else:
        around = at_skull(canvas, random, lowest=-10.0)
        inward = -1.0 if kind == "staples" else 1.0
        middle = canvas.template_point(np.array([0.0, 18.0, 8.0]))
        radius, hu = float(random.uniform(0.8, 2.0)), float(random.uniform(800, 3000))
        spots = []
        for _ in range(random.integers(2, 9)):
            point = around + random.normal(0, 15, 3)
            toward = (middle - point) / np.linalg.norm(middle - point)
            spots.append(point + inward * random.uniform(2, 25) * toward)
    for center in spots:
        part = canvas.around(center, radius + 2)
        canvas.paint(part, soft(radius - part.distance_from(center)), hu, 0)
    return {"kind": kind, "spots": [[float(value) for value in spot] for spot in spots[:9]]}


def paint_air(canvas: Canvas, random: np.random.Generator) -> Drawn:
    """Air in the skull: at the front, below the bone, or as bubbles."""
    top = canvas.template_point(np.array([0.0, random.uniform(-64, -48), random.uniform(-10, 50)]))
    reach = float(random.uniform(8, 35))
    part = canvas.around(top, reach)
    points, depth = part.points, canvas.depth[part.slices]
    height = float(random.uniform(2, 12))
    level = np.minimum(height - depth, reach - part.distance_from(top))
    flat = top[1] + random.uniform(-4, 8) - points[..., 1]  # air rises, and patients lie on their backs
    canvas.paint(part, soft(np.minimum(np.minimum(level, flat), depth)), random.uniform(-1000, -500), 0)
    return {"height_mm": height}


def paint_bone_ridges(canvas: Canvas, random: np.random.Generator) -> Drawn:
    """Bone that rises into the brain at the base, as the petrous bone and the roofs of the orbits do."""
    count = int(random.integers(2, 9))
    for _ in range(count):
        base = np.array([random.uniform(-50, 50), random.uniform(-55, 60), random.uniform(-48, -22)])
        center = canvas.template_point(base)
        part = canvas.around(center, 30)
        turn = random.normal(size=3) * (1.0, 1.0, 0.15)
        turn /= np.linalg.norm(turn)
        offset = part.points - center
        along = offset @ turn
        across = np.linalg.norm(offset - along[..., None] * turn, axis=-1)
        level = random.uniform(2, 7) * np.clip(1 - (along / random.uniform(10, 28)) ** 2, 0, 1) - across
        level = np.minimum(level, random.uniform(4, 14) - canvas.depth[part.slices])
        canvas.paint(part, soft(level), random.uniform(150, 1000), 0)
    return {"count": count}


def _in_tissue(canvas: Canvas, random: np.random.Generator) -> Array:
    """A point (LPS mm) in gray or white matter."""
    z, y, x = np.nonzero((canvas.tissue > 0.7) & (canvas.depth > 3))
    chosen = int(random.integers(len(z)))
    return canvas.grid.point(np.array([x[chosen], y[chosen], z[chosen]]))
