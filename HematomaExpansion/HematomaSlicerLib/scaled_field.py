"""A displacement field shown at a scale that a slider chooses, and what moves with it.

The field keeps its own node at full scale, because Slicer saves a grid transform as it is scaled at that moment; a
second node shares its grid and is scaled.
"""

from __future__ import annotations

import slicer
import vtk

from .node_images import sharing_the_grid


def field_of(node: slicer.vtkMRMLGridTransformNode) -> slicer.vtkOrientedGridTransform:
    """The pull-back displacement of a node."""
    return node.GetTransformFromParentAs("vtkOrientedGridTransform", False, True)


def add_scaled(field: slicer.vtkMRMLGridTransformNode, name: str) -> slicer.vtkMRMLGridTransformNode:
    """A second node of the same field, whose scale is its own."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode", name)
    node.SetAndObserveTransformFromParent(sharing_the_grid(field_of(field)))
    return node


def set_scale(
    scaled: slicer.vtkMRMLGridTransformNode, field: slicer.vtkMRMLGridTransformNode, share: float
) -> None:
    """Bring ``scaled`` to a share of ``field``, from 0 to 1, whatever field it showed before."""
    transform, whole = field_of(scaled), field_of(field)
    if transform is None or transform.GetDisplacementGrid() is not whole.GetDisplacementGrid():
        # After the scene was reopened the scaled node holds the field as it was shown, not the whole of it.
        transform = sharing_the_grid(whole)
        scaled.SetAndObserveTransformFromParent(transform)
    transform.SetDisplacementScale(share)
    transform.Modified()


def add_moving_surface(
    segmentation: slicer.vtkMRMLSegmentationNode,
    segment_id: str,
    scaled: slicer.vtkMRMLGridTransformNode,
    name: str,
    color: tuple[float, float, float],
) -> slicer.vtkMRMLModelNode:
    """The surface of a segment, moving with a scaled field, also drawn in the slices."""
    segmentation.CreateClosedSurfaceRepresentation()
    polydata = vtk.vtkPolyData()
    segmentation.GetClosedSurfaceRepresentation(segment_id, polydata)
    surface = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", name)
    surface.SetAndObservePolyData(polydata)
    surface.CreateDefaultDisplayNodes()
    surface.SetAndObserveTransformNodeID(scaled.GetID())
    display = surface.GetDisplayNode()
    display.SetScalarVisibility(False)
    display.SetColor(*color)
    display.SetVisibility2D(True)
    display.SetSliceIntersectionThickness(3)
    return surface
