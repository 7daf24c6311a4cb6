"""A deformation that carries one mask onto another: Greedy, or SimpleITK where Greedy is not installed."""

from __future__ import annotations

import importlib.util

import numpy as np
import SimpleITK as sitk
from HematomaExpansionLib.scan.grid import Array, Grid, image_on
from HematomaExpansionLib.scan.shapes import signed_distance

# Signed distances are clipped here: farther away nothing needs to move.
_REACH_MM = 4.0
_ITERATIONS = ("100", "60", "40")
"""Greedy's iterations, from the coarsest level to the finest."""


def greedy_is_installed() -> bool:
    """Whether ``picsl_greedy`` can be used."""
    return importlib.util.find_spec("picsl_greedy") is not None


def registration_method() -> str:
    """The name of the method used here."""
    return "greedy" if greedy_is_installed() else "diffeomorphic demons"


def register_masks(source: Array, target: Array, grid: Grid) -> sitk.Image:
    """Displacement (vector image in mm, LPS, on ``grid``) with ``target(x) ≈ source(x + u(x))``.

    ``source`` and ``target`` are masks (z, y, x) on ``grid``. Their signed distances are compared, not the masks
    themselves, so that every layer around the surface moves alike and nothing tears.
    """
    fixed, moving = (_distance(mask, grid) for mask in (target, source))
    register = _greedy if greedy_is_installed() else _demons
    return image_on(grid, sitk.GetArrayFromImage(register(fixed, moving)).astype(np.float32))


def _distance(mask: Array, grid: Grid) -> sitk.Image:
    """Signed distance in mm to the mask's surface, clipped."""
    distance = signed_distance(image_on(grid, mask.astype(np.uint8)))
    return sitk.Clamp(distance, sitk.sitkFloat32, -_REACH_MM, _REACH_MM)


def _greedy(fixed: sitk.Image, moving: sitk.Image) -> sitk.Image:
    from picsl_greedy import Greedy3D

    # Each level halves the image, and Greedy needs four voxels to smooth: thick slices allow fewer levels.
    levels = max(1, sum(min(fixed.GetSize()) >= fewest for fewest in (4, 8, 16)))
    iterations = "x".join(_ITERATIONS[:levels])
    greedy = Greedy3D()
    greedy.execute(
        f"-d 3 -threads 1 -m SSD -i target source -o warp -n {iterations} -s 3.0vox 1.0vox -V 0",
        target=fixed,
        source=moving,
        warp=None,
    )
    return greedy["warp"]


def _demons(fixed: sitk.Image, moving: sitk.Image) -> sitk.Image:
    demons = sitk.DiffeomorphicDemonsRegistrationFilter()
    demons.SetNumberOfIterations(120)
    demons.SetStandardDeviations(1.5)
    return demons.Execute(fixed, moving)
