"""Outcomes in the scene: their image, the surface of one of them, and each voxel's probability to hold blood.

One image holds them all: for each voxel of a box of the scan's grid, the volume in mL of the smallest outcome that
reaches it (``HematomaExpansionLib.growth.outcomes``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import SimpleITK as sitk
import slicer
import vtk

from .node_images import fill_volume, image_from_volume, volume_from_image

_COLORS = "vtkMRMLColorTableNodeFilePlasma.txt"
_LEAST_PERCENT = 1.0
"""Less probable voxels stay transparent."""

_LEGEND = "Probability of blood (%)"


def outcome_surface(outcomes: slicer.vtkMRMLScalarVolumeNode, volume_ml: float) -> vtk.vtkPolyData:
    """The surface (RAS mm) of the outcome of this volume."""
    from HematomaExpansionLib.growth.outcomes import NEVER_ML

    matrix = vtk.vtkMatrix4x4()
    outcomes.GetIJKToRASMatrix(matrix)
    extent = outcomes.GetImageData().GetExtent()
    padded = vtk.vtkImageConstantPad()  # so that a surface that meets the box's side is closed
    padded.SetInputData(outcomes.GetImageData())
    padded.SetOutputWholeExtent(*(end + (1 if side % 2 else -1) for side, end in enumerate(extent)))
    padded.SetConstant(NEVER_ML)
    limit_ml = volume_ml + abs(matrix.Determinant()) / 2000  # half a voxel
    clipped = vtk.vtkImageThreshold()  # beside bone, the surface would stick to the last voxels inside
    clipped.SetInputConnection(padded.GetOutputPort())
    clipped.ThresholdByLower(2 * limit_ml)
    clipped.SetOutValue(2 * limit_ml)
    contour = vtk.vtkFlyingEdges3D()
    contour.SetInputConnection(clipped.GetOutputPort())
    contour.SetValue(0, limit_ml)
    contour.ComputeScalarsOff()
    to_ras = vtk.vtkTransform()
    to_ras.SetMatrix(matrix)
    moved = vtk.vtkTransformPolyDataFilter()
    moved.SetInputConnection(contour.GetOutputPort())
    moved.SetTransform(to_ras)
    moved.Update()
    return moved.GetOutput()


def add_map(
    outcomes: slicer.vtkMRMLScalarVolumeNode, result: Mapping[str, Any], name: str
) -> slicer.vtkMRMLScalarVolumeNode:
    """A new volume, over the box of ``outcomes``, of each voxel's probability in percent, with its legend."""
    node = volume_from_image(_percent(outcomes, result), name)
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID(_COLORS)
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(0.0, 100.0)
    display.SetThreshold(_LEAST_PERCENT, 100.0)
    display.SetApplyThreshold(True)
    legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(node)
    legend.SetTitleText(_LEGEND)
    legend.SetLabelFormat("%.0f")
    legend.SetVisibility(False)
    return node


def fill_map(
    node: slicer.vtkMRMLScalarVolumeNode, outcomes: slicer.vtkMRMLScalarVolumeNode, result: Mapping[str, Any]
) -> None:
    """Make a map follow from the forecast of ``result``."""
    fill_volume(node, _percent(outcomes, result))


def show_map(node: slicer.vtkMRMLScalarVolumeNode, shown: bool, opacity: float) -> None:
    """Lay a map over the scan in every slice view, or take it away; other foregrounds stay when it goes."""
    for view in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        if shown:
            view.SetForegroundVolumeID(node.GetID())
            view.SetForegroundOpacity(opacity)
        elif view.GetForegroundVolumeID() == node.GetID():
            view.SetForegroundVolumeID(None)
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(node)
    if legend is not None:
        legend.SetVisibility(shown)


def order_from_masks(
    baseline: sitk.Image, baseline_ml: float, followup: sitk.Image, followup_ml: float
) -> sitk.Image:
    """The image of outcomes where only two are known, for a prediction by an earlier version."""
    from HematomaExpansionLib.growth.outcomes import NEVER_ML

    now, later = (sitk.GetArrayViewFromImage(mask) > 0 for mask in (baseline, followup))
    order = np.where(now, baseline_ml, np.where(later, followup_ml, NEVER_ML)).astype(np.float32)
    image = sitk.GetImageFromArray(order)
    image.CopyInformation(baseline)
    return image


def _percent(outcomes: slicer.vtkMRMLScalarVolumeNode, result: Mapping[str, Any]) -> sitk.Image:
    from HematomaExpansionLib.forecast.forecast import distribution_of
    from HematomaExpansionLib.growth.probability_map import share_with_blood

    distribution = distribution_of(result)
    assert distribution is not None, "results with outcomes have a forecast"
    return share_with_blood(image_from_volume(outcomes), distribution) * 100.0
