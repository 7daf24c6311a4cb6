"""A displacement field shown at a slider's scale, and what moves with it.

The field's own node stays at full scale, because Slicer saves a grid transform at its current scale; a second node
shares its grid and is scaled. Only the first is saved with the scene.
"""

from __future__ import annotations

import SimpleITK as sitk
import slicer
import vtk

from .node_group import NodeGroup
from .node_images import grid_transform_from_image, sharing_the_grid
from .scene_nodes import add_surface

SHOWN = "Shown"
"""The name by which a group refers to its scaled node."""

_ARROW_SPACING_MM, _ARROW_DIAMETER_MM = 4.0, 1.2
_ARROW_PERCENT = 200.0
"""Shifts of a few millimeters are drawn at twice their length; otherwise they would be invisible in a head."""

_STILL_VOXELS = 3
"""Around what moves, so that cubic interpolation, too, moves nothing beyond the grid."""

_COMPRESSED = "nii.gz"
"""The one format of Slicer's for transforms that is compressed; its own default is not."""


def add_field(displacement: sitk.Image, name: str) -> slicer.vtkMRMLGridTransformNode:
    """A new node of a pull-back displacement (vectors in LPS mm); it keeps the part that moves."""
    from HematomaExpansionLib.growth.warping import moving_part

    transform = grid_transform_from_image(moving_part(displacement, _STILL_VOXELS))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode", name)
    node.SetAndObserveTransformFromParent(transform)
    node.AddDefaultStorageNode()
    node.GetStorageNode().SetDefaultWriteFileExtension(_COMPRESSED)
    return node


def field_of(node: slicer.vtkMRMLGridTransformNode) -> slicer.vtkOrientedGridTransform:
    """The pull-back displacement of a node."""
    return node.GetTransformFromParentAs("vtkOrientedGridTransform", False, True)


def show_share(
    group: NodeGroup,
    field: slicer.vtkMRMLGridTransformNode,
    share: float,
    *moved: slicer.vtkMRMLTransformableNode,
) -> None:
    """Move nodes by a share (0 to 1) of a field: by the group's scaled node, whatever field that showed before."""
    scaled = group.node(SHOWN) or _add_scaled(group)
    transform, whole = field_of(scaled), field_of(field)
    if transform is None or transform.GetDisplacementGrid() is not whole.GetDisplacementGrid():
        # In an earlier version's scene, the scaled node holds the field as it was shown, not at full scale.
        transform = sharing_the_grid(whole)
        scaled.SetAndObserveTransformFromParent(transform)
    transform.SetDisplacementScale(share)
    transform.Modified()
    for node in moved:
        node.SetAndObserveTransformNodeID(scaled.GetID())


def _add_scaled(group: NodeGroup) -> slicer.vtkMRMLGridTransformNode:
    """The group's scaled node; it is not saved, since it would hold a field once more, so the tree has no item for
    it, which would be saved.
    """
    scaled = slicer.vtkMRMLGridTransformNode()
    scaled.SetName(slicer.mrmlScene.GenerateUniqueName(f"{group.table.GetName()}: change shown"))
    scaled.SetSaveWithScene(False)
    scaled.SetHideFromEditors(True)
    slicer.mrmlScene.AddNode(scaled)  # only now, since the tree takes what is not hidden when it is added
    group.refer(SHOWN, scaled)
    return scaled


def add_moving_surface(
    segmentation: slicer.vtkMRMLSegmentationNode, segment_id: str, name: str
) -> slicer.vtkMRMLModelNode:
    """The surface of a segment, to be moved by ``show_share``; it is also drawn in the slices."""
    segmentation.CreateClosedSurfaceRepresentation()
    polydata = vtk.vtkPolyData()
    segmentation.GetClosedSurfaceRepresentation(segment_id, polydata)
    return add_surface(polydata, name)


def use_arrows(display: slicer.vtkMRMLTransformDisplayNode, min_length_mm: float) -> None:
    """Set the spacing and size of a field's arrows; those shorter than ``min_length_mm`` are not drawn."""
    display.SetGlyphSpacingMm(_ARROW_SPACING_MM)
    display.SetGlyphDiameterMm(_ARROW_DIAMETER_MM)
    display.SetGlyphScalePercent(_ARROW_PERCENT)
    display.SetGlyphDisplayRangeMinMm(min_length_mm)
