"""What scanners and reconstructions add to a CT, slice by slice; arrays are (z, y, x) in HU.

The amounts are varied beyond what is usual (see ``blood_elsewhere``). Each function returns the changed CT and
what it drew. ``spacing`` is (x, y, z) in mm; ``inside``, of the same shape, is where the skull's inside lies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from HematomaExpansionLib.scan.grid import Array
from scipy.ndimage import gaussian_filter, gaussian_filter1d, map_coordinates

from .canvas import Drawn

_BONE_HU = 300.0
_AIR_HU = -1000.0


@dataclass(frozen=True)
class Slices:
    """A CT as a stack of slices: ``hu`` and ``inside`` (z, y, x), and ``spacing`` (x, y, z) in mm."""

    hu: Array
    inside: Array
    spacing: tuple[float, float, float]

    @property
    def bony(self) -> Array:
        """Indices of the slices that hold some brain."""
        return np.flatnonzero(self.inside.any(axis=(1, 2)))

    def offsets(self, y: float, x: float) -> tuple[Array, Array]:
        """Distances in mm along y and x of each pixel from a pixel, as arrays (y, x)."""
        rows, columns = np.mgrid[: self.hu.shape[1], : self.hu.shape[2]]
        return (rows - y) * self.spacing[1], (columns - x) * self.spacing[0]


def add_streaks(slices: Slices, random: np.random.Generator) -> tuple[Array, Drawn]:
    """Rays from metal: bright and dark streaks around a point at the skull or in the head, in a few slices."""
    hu = slices.hu.copy()
    count = int(random.integers(1, 4))
    for _ in range(count):
        middle = int(random.choice(slices.bony))
        on_slice = np.argwhere(slices.inside[middle])
        y, x = on_slice[random.integers(len(on_slice))]
        if random.random() < 0.7:  # most metal is outside of the brain
            edge = np.argwhere(slices.hu[middle] > _BONE_HU)
            if len(edge):
                y, x = edge[random.integers(len(edge))]
        rows, columns = slices.offsets(float(y), float(x))
        angle, distance = np.arctan2(rows, columns), np.hypot(rows, columns)
        rays = np.zeros(rows.shape)
        for wave in random.integers(2, 30, size=6):
            rays += random.normal() * np.cos(wave * angle + random.uniform(0, 2 * np.pi))
        rays *= np.exp(-distance / random.uniform(15, 70))
        strength, spread = random.uniform(10, 90), random.uniform(1, 7)
        for k in range(len(hu)):
            near = np.exp(-(((k - middle) * slices.spacing[2] / (4 * spread)) ** 2))
            if near > 0.05:
                hu[k] += (slices.hu[k] > -500) * strength * near * rays
    return hu, {"count": count}


def add_bands(slices: Slices, random: np.random.Generator) -> tuple[Array, Drawn]:
    """Bright and dark bands between dense bones, as between the petrous bones or behind the frontal bone."""
    hu = slices.hu.copy()
    rows = slices.bony
    count = int(random.integers(1, 7))
    for _ in range(count):
        low_half = rows[: max(1, len(rows) // 2)] if random.random() < 0.7 else rows
        k = int(random.choice(low_half))
        on_slice = np.argwhere(slices.inside[k])
        y, x = on_slice[random.integers(len(on_slice))]
        dy, dx = slices.offsets(float(y), float(x))
        angle = random.uniform(0, np.pi)
        across, along = dy * np.cos(angle) - dx * np.sin(angle), dy * np.sin(angle) + dx * np.cos(angle)
        across = across + random.uniform(-0.01, 0.01) * along**2
        band = np.exp(-((across / random.uniform(1.5, 9)) ** 2) - (along / random.uniform(15, 60)) ** 2)
        strength = random.uniform(8, 40) * random.choice([-1, 1])
        reach = max(0.5, random.uniform(2, 8) / slices.spacing[2])
        for other in range(max(0, k - 3), min(len(hu), k + 4)):
            fading = np.exp(-(((other - k) / reach) ** 2))
            hu[other] += slices.inside[other] * strength * fading * band
    return hu, {"count": count}


def add_beam_hardening(slices: Slices, random: np.random.Generator) -> tuple[Array, Drawn]:
    """The brain is brighter beside bone, more so where bone surrounds it, as at the base and the vertex."""
    spacing = np.array(slices.spacing[::-1])
    reach, strength = float(random.uniform(3, 14)), float(random.uniform(5, 45))
    bone = gaussian_filter((slices.hu > _BONE_HU).astype(np.float32), reach / spacing)
    hu = slices.hu + slices.inside * strength * bone
    shadow = gaussian_filter1d((slices.hu > _BONE_HU).astype(np.float32), 25 / spacing[2], axis=2)
    shadow *= random.uniform(0, 30)
    return hu - slices.inside * (shadow - shadow[slices.inside].mean()), {"reach_mm": reach, "hu": strength}


def add_ripple(slices: Slices, random: np.random.Generator) -> tuple[Array, Drawn]:
    """Slow changes of brightness across the head: cupping, and a scanner out of calibration."""
    coarse = random.normal(size=(4, 5, 5))
    rows = [np.linspace(0, n - 1, m) for n, m in zip(coarse.shape, slices.hu.shape, strict=True)]
    field = map_coordinates(coarse, np.meshgrid(*rows, indexing="ij"), order=1)
    strength = float(random.uniform(0.5, 4))
    return slices.hu + slices.inside * strength * field, {"hu": strength}


def filter_kernel(slices: Slices, random: np.random.Generator) -> tuple[Array, Drawn]:
    """A smooth or a sharp reconstruction kernel; the sharp one overshoots beside bone."""
    width = float(random.uniform(0.3, 1.3))
    sigma = (0.0, width / slices.spacing[1], width / slices.spacing[0])
    smooth = gaussian_filter(slices.hu, sigma)
    if random.random() < 0.5:
        return smooth, {"smooth_mm": width}
    sharper = float(random.uniform(0.2, 1.2))
    return slices.hu + sharper * (slices.hu - smooth), {"sharp_mm": width, "amount": sharper}


def add_noise(slices: Slices, random: np.random.Generator) -> tuple[Array, Drawn]:
    """Noise that is stronger where more bone lies around, correlated within slices."""
    deviation, width = float(random.uniform(1.0, 9.0)), float(random.uniform(0.3, 1.1))
    sigma = (0.0, width / slices.spacing[1], width / slices.spacing[0])
    noise = gaussian_filter(random.standard_normal(slices.hu.shape, dtype=np.float32), sigma)
    noise /= noise.std()
    bone = (slices.hu > _BONE_HU).mean(axis=(1, 2))
    more = 1 + random.uniform(0, 1) * bone / max(float(bone.max()), 1e-6)
    return slices.hu + deviation * more[:, None, None] * noise, {"hu": deviation, "width_mm": width}


def saturate(slices: Slices, random: np.random.Generator) -> tuple[Array, Drawn]:
    """Values as an export through a window leaves them: cut off, and in coarse steps."""
    low, high = float(random.uniform(-60, -10)), float(random.uniform(90, 200))
    step = float(random.choice([0.5, 1.0, 2.0]))
    soft = np.round(np.clip(slices.hu, low, high) / step) * step
    coarse = np.round(slices.hu / 12.5) * 12.5
    return np.where((slices.hu < low) | (slices.hu > high), coarse, soft), {"window": [low, high], "step": step}


def cut_view(slices: Slices, random: np.random.Generator) -> tuple[Array, Drawn]:
    """A field of view that ends within the skull at one side: voxels beyond hold air."""
    hu = slices.hu.copy()
    y, x = np.flatnonzero(slices.inside.any(axis=(0, 2))), np.flatnonzero(slices.inside.any(axis=(0, 1)))
    side = str(random.choice(["left", "right", "front", "back"]))
    cut = int(random.uniform(0, 6) / slices.spacing[0])
    if side in {"left", "right"}:
        part = (slice(None), slice(None), slice(0, x[0] + cut) if side == "right" else slice(x[-1] - cut, None))
    else:
        part = (slice(None), slice(0, y[0] + cut) if side == "front" else slice(y[-1] - cut, None), slice(None))
    hu[part] = _AIR_HU
    return hu, {"side": side, "cut_voxels": cut}
