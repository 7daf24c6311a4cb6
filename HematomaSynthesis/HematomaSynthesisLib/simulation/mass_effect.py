"""Tissue that makes room: for a bleed, or for wide ventricles."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
import torch
from HematomaExpansionLib.scan.grid import Array, Grid, image_on
from HematomaExpansionLib.scan.resampling import average_onto
from HematomaExpansionLib.scan.shapes import distance_map_on
from scipy.ndimage import gaussian_filter
from torch import nn

from .canvas import Canvas

_COARSE_MM = 4.0
_FIXED_MM = 14.0
"""Tissue nearer than this to the skull moves less, and not at all beside it."""


def push_from(canvas: Canvas, body: Array, push_mm: float, reach_mm: float) -> sitk.Image:
    """Displacement that pushes tissue away from a nonempty body (booleans on the canvas's grid).

    A pull-back field in LPS mm on a coarse grid: what lies at x comes from x + u(x). Tissue at the body's surface
    moves by ``push_mm``; farther away it fades with the distance, within ``reach_mm`` to about a third.
    """
    grid = canvas.grid.with_spacing((_COARSE_MM,) * 3)
    share = average_onto(canvas.image(body.astype(np.float32)), grid)
    inside = share >= min(0.5, float(share.max()))
    distance = distance_map_on(grid, inside)
    depth = average_onto(canvas.image(canvas.depth), grid, outside=-50.0)
    slope = np.stack(np.gradient(gaussian_filter(distance, 1.0), _COARSE_MM))[::-1]
    outward = slope / np.maximum(np.linalg.norm(slope, axis=0), 0.3)
    deepest = max(float(-distance.min()), _COARSE_MM)
    fading = np.where(distance > 0, np.exp(-distance / reach_mm), np.clip(1 + distance / deepest, 0, 1))
    size = push_mm * fading * np.clip(depth / _FIXED_MM, 0, 1)
    along = np.array(grid.direction).reshape(3, 3)
    return image_on(grid, np.moveaxis(np.tensordot(along, -size * outward, 1), 0, -1).astype(np.float64))


def move(canvas: Canvas, field: sitk.Image) -> None:
    """Warp everything on the canvas but the skull by a pull-back field (LPS mm)."""
    where = _sampling(canvas.grid, field)
    smooth = [canvas.original, canvas.hu, canvas.covered, canvas.ventricles, canvas.tissue]
    stacked = torch.from_numpy(np.stack(smooth))[None]
    moved = nn.functional.grid_sample(stacked, where, padding_mode="border", align_corners=True)[0].numpy()
    canvas.original, canvas.hu, canvas.covered, canvas.ventricles, canvas.tissue = moved
    labels = torch.from_numpy(canvas.labels.astype(np.float32))[None, None]
    nearest = nn.functional.grid_sample(labels, where, mode="nearest", align_corners=True)
    canvas.labels = nearest[0, 0].numpy().round().astype(np.uint8)


def _sampling(grid: Grid, field: sitk.Image) -> torch.Tensor:
    """Where to sample for each voxel, in torch's coordinates, (1, z, y, x, 3)."""
    coarse = Grid.of(field)
    displacement = torch.from_numpy(np.moveaxis(sitk.GetArrayFromImage(field), -1, 0).astype(np.float32))[None]
    # Both grids are parallel: each fine axis runs through the coarse one at even steps.
    start = np.linalg.solve(coarse.axes, np.array(grid.origin) - np.array(coarse.origin))
    steps = np.array(grid.spacing) / np.array(coarse.spacing)
    lines = [
        torch.from_numpy(2 * (start[k] + steps[k] * np.arange(grid.size[k])) / (coarse.size[k] - 1) - 1).float()
        for k in range(3)
    ]
    z, y, x = torch.meshgrid(lines[2], lines[1], lines[0], indexing="ij")
    fine = nn.functional.grid_sample(
        displacement, torch.stack([x, y, z], dim=-1)[None], padding_mode="border", align_corners=True
    )[0]
    in_voxels = torch.einsum("ij,jzyx->izyx", torch.from_numpy(np.linalg.inv(grid.axes)).float(), fine)
    axes = [torch.arange(n, dtype=torch.float32) for n in grid.shape]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    size = grid.size
    parts = [
        2 * (own + moved) / (size[k] - 1) - 1
        for k, (own, moved) in enumerate(zip((x, y, z), in_voxels, strict=True))
    ]
    return torch.stack(parts, dim=-1)[None]
