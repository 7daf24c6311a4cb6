"""Handles nodes in the scene and its tree, whatever they show: fills them, sorts them into folders, removes
them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import SimpleITK as sitk
import slicer
import vtk

from .node_images import labelmap_from_image

BEFORE_COLOR, AFTER_COLOR = (1.0, 0.82, 0.12), (1.0, 0.30, 0.37)
"""Colors of a hematoma now and of what it becomes."""

_MOVING_COLOR = (1.0, 0.55, 0.1)

_HEMORRHAGE = (
    "Segmentation category and type - DICOM master list"
    "~SCT^49755003^Morphologically Altered Structure~SCT^50960005^Hemorrhage~^^"
    "~Anatomic codes - DICOM master list~SCT^12738006^Brain~^^"
)


def add_segments(
    segmentation: slicer.vtkMRMLSegmentationNode,
    masks: dict[str, tuple[sitk.Image, tuple[float, float, float]]],
    volume: slicer.vtkMRMLScalarVolumeNode,
) -> None:
    """Fill a new segmentation with masks (0/1) by name, each with its color, as outlines over ``volume``."""
    segmentation.CreateDefaultDisplayNodes()
    if volume.GetParentTransformNode() is None:
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for segment_name, (mask, color) in masks.items():
        segment_id = segmentation.AddSegmentFromBinaryLabelmapRepresentation(
            labelmap_from_image(mask), segment_name, color
        )
        segment = segmentation.GetSegmentation().GetSegment(segment_id)
        segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), _HEMORRHAGE)
    display = segmentation.GetDisplayNode()
    display.SetVisibility2DFill(False)
    display.SetSliceIntersectionThickness(2)


def add_surface(polydata: vtk.vtkPolyData, name: str) -> slicer.vtkMRMLModelNode:
    """A new surface (RAS mm) that a slider moves; it is also drawn in the slices."""
    surface = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", name)
    surface.SetAndObservePolyData(polydata)
    surface.CreateDefaultDisplayNodes()
    display = surface.GetDisplayNode()
    display.SetScalarVisibility(False)
    display.SetColor(*_MOVING_COLOR)
    display.SetVisibility2D(True)
    display.SetSliceIntersectionThickness(3)
    return surface


def add_table(name: str, attributes: Mapping[str, str]) -> slicer.vtkMRMLTableNode:
    """A new table that stands for a group of nodes; its attributes say which kind."""
    table = slicer.vtkMRMLTableNode()
    table.SetName(slicer.mrmlScene.GenerateUniqueName(name))
    for attribute, value in attributes.items():
        table.SetAttribute(attribute, value)
    slicer.mrmlScene.AddNode(table)  # only now, since selectors check the attribute when a node is added
    return table


def set_columns(
    table: slicer.vtkMRMLTableNode, columns: Mapping[str, Sequence[str] | Sequence[float]], description: str
) -> None:
    """Replace a table's columns: title -> texts or numbers."""
    table.RemoveAllColumns()
    for title, values in columns.items():
        column = vtk.vtkStringArray() if isinstance(values[0], str) else vtk.vtkDoubleArray()
        column.SetName(title)
        for value in values:
            column.InsertNextValue(value)
        table.AddColumn(column)
    table.SetDescription(description)
    table.SetUseColumnTitleAsColumnHeader(True)


def remove_empty_folder(folder: int) -> None:
    """Remove a folder from the tree if it is empty."""
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    if folder and folder != hierarchy.GetSceneItemID() and hierarchy.GetNumberOfItemChildren(folder) == 0:
        hierarchy.RemoveItem(folder, False, True)


def folder_of(node: slicer.vtkMRMLNode) -> int:
    """The tree item that holds the node; 0 if the node is not in the tree."""
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    item = hierarchy.GetItemByDataNode(node)
    return hierarchy.GetItemParent(item) if item else 0


def new_folder_beside(node: slicer.vtkMRMLNode, name: str) -> int:
    """A new folder in the tree, beside the node."""
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    return hierarchy.CreateFolderItem(folder_of(node) or hierarchy.GetSceneItemID(), name)


def move_to_folder(nodes: Sequence[slicer.vtkMRMLNode], folder: int) -> None:
    """Put nodes into a folder in the tree."""
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    for node in nodes:
        item = hierarchy.GetItemByDataNode(node)
        if item:
            hierarchy.SetItemParent(item, folder)
        else:
            hierarchy.CreateItem(folder, node)


def remove_nodes(nodes: Sequence[slicer.vtkMRMLNode]) -> None:
    """Remove nodes together with their tree items and their display and storage nodes."""
    scene = slicer.mrmlScene
    hierarchy = scene.GetSubjectHierarchyNode()
    for node in nodes:
        item = hierarchy.GetItemByDataNode(node)
        if item:
            hierarchy.RemoveItem(item, False, True)
        companions = []
        if isinstance(node, slicer.vtkMRMLDisplayableNode):
            displays = [node.GetNthDisplayNode(k) for k in range(node.GetNumberOfDisplayNodes())]
            # A transform that has been shown has made its own color node.
            fields = [display for display in displays if isinstance(display, slicer.vtkMRMLTransformDisplayNode)]
            companions += [*displays, *(display.GetColorNode() for display in fields)]
        if isinstance(node, slicer.vtkMRMLStorableNode):
            companions.append(node.GetStorageNode())
        scene.RemoveNode(node)
        for companion in companions:
            if companion is not None and scene.IsNodePresent(companion):
                scene.RemoveNode(companion)
