"""A displacement field shown at a slider's scale, and what moves with it.

The field's own node stays at full scale, because Slicer saves a grid transform at its current scale; a second node
shares its grid and is scaled.
"""

from __future__ import annotations

import SimpleITK as sitk
import slicer
import vtk

from .node_images import grid_transform_from_image, sharing_the_grid
from .scene_nodes import add_surface

_ARROW_SPACING_MM, _ARROW_DIAMETER_MM = 4.0, 1.2
_ARROW_PERCENT = 200.0
"""Shifts of a few millimeters are drawn at twice their length; otherwise they would be invisible in a head."""


def add_field(displacement: sitk.Image, name: str) -> slicer.vtkMRMLGridTransformNode:
    """A new node of a pull-back displacement (vectors in LPS mm)."""
    transform = grid_transform_from_image(displacement)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode", name)
    node.SetAndObserveTransformFromParent(transform)
    return node


def field_of(node: slicer.vtkMRMLGridTransformNode) -> slicer.vtkOrientedGridTransform:
    """The pull-back displacement of a node."""
    return node.GetTransformFromParentAs("vtkOrientedGridTransform", False, True)


def add_scaled(field: slicer.vtkMRMLGridTransformNode, name: str) -> slicer.vtkMRMLGridTransformNode:
    """A second node of the same field, with its own scale."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode", name)
    node.SetAndObserveTransformFromParent(sharing_the_grid(field_of(field)))
    return node


def set_scale(
    scaled: slicer.vtkMRMLGridTransformNode, field: slicer.vtkMRMLGridTransformNode, share: float
) -> None:
    """Set ``scaled`` to a share (0 to 1) of ``field``, whatever field it showed before."""
    transform, whole = field_of(scaled), field_of(field)
    if transform is None or transform.GetDisplacementGrid() is not whole.GetDisplacementGrid():
        # In a reopened scene, the scaled node holds the field as it was shown, not at full scale.
        transform = sharing_the_grid(whole)
        scaled.SetAndObserveTransformFromParent(transform)
    transform.SetDisplacementScale(share)
    transform.Modified()


def add_moving_surface(
    segmentation: slicer.vtkMRMLSegmentationNode,
    segment_id: str,
    scaled: slicer.vtkMRMLGridTransformNode,
    name: str,
) -> slicer.vtkMRMLModelNode:
    """The surface of a segment; it moves with a scaled field and is also drawn in the slices."""
    segmentation.CreateClosedSurfaceRepresentation()
    polydata = vtk.vtkPolyData()
    segmentation.GetClosedSurfaceRepresentation(segment_id, polydata)
    surface = add_surface(polydata, name)
    surface.SetAndObserveTransformNodeID(scaled.GetID())
    return surface


def use_arrows(display: slicer.vtkMRMLTransformDisplayNode, min_length_mm: float) -> None:
    """Set the spacing and size of a field's arrows; those shorter than ``min_length_mm`` are not drawn."""
    display.SetGlyphSpacingMm(_ARROW_SPACING_MM)
    display.SetGlyphDiameterMm(_ARROW_DIAMETER_MM)
    display.SetGlyphScalePercent(_ARROW_PERCENT)
    display.SetGlyphDisplayRangeMinMm(min_length_mm)
