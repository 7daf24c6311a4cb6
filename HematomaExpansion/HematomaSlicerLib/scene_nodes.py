"""Handles nodes in the scene and its tree, whatever they show: fills them, sorts them into folders, removes
them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import SimpleITK as sitk
import slicer
import vtk
from HematomaExpansionLib.anatomy.kinds import CATEGORY, LOOKS, Kind

from .node_images import labelmap_from_image

Color = tuple[float, float, float]
"""Red, green and blue from 0 to 1."""


def color_of(kind: Kind) -> Color:
    """The color that marks a kind everywhere."""
    red, green, blue = (int(LOOKS[kind].color[first : first + 2], 16) / 255 for first in (1, 3, 5))
    return red, green, blue


BEFORE_COLOR, AFTER_COLOR = color_of(Kind.INTRAPARENCHYMAL), (1.0, 0.30, 0.37)
"""Colors of a hematoma now and of what it becomes."""

_MOVING_COLOR = (1.0, 0.55, 0.1)


def add_segments(
    segmentation: slicer.vtkMRMLSegmentationNode,
    masks: Mapping[str, tuple[sitk.Image, Color]],
    volume: slicer.vtkMRMLScalarVolumeNode,
    kinds: Mapping[str, Kind] = MappingProxyType({}),
) -> None:
    """Fill a new segmentation with masks (0/1) by name, each with its color, as outlines over ``volume``.

    ``kinds``: which kind of bleed a mask shows, by its name, if it is not a hematoma.
    """
    segmentation.CreateDefaultDisplayNodes()
    if volume.GetParentTransformNode() is None:
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for segment_name, (mask, color) in masks.items():
        segment_id = segmentation.AddSegmentFromBinaryLabelmapRepresentation(
            labelmap_from_image(mask), segment_name, color
        )
        segment = segmentation.GetSegmentation().GetSegment(segment_id)
        kind = kinds.get(segment_name, Kind.INTRAPARENCHYMAL)
        segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), _terminology(kind))
    display = segmentation.GetDisplayNode()
    display.SetVisibility2DFill(False)
    display.SetSliceIntersectionThickness(2)


def _terminology(kind: Kind) -> str:
    """A kind as Slicer's terminology entry; Slicer's DICOM export writes these codes."""
    look = LOOKS[kind]
    category, concept, region = (
        f"SCT^{code.value}^{code.meaning}" for code in (CATEGORY, look.concept, look.region)
    )
    return (
        f"Segmentation category and type - DICOM master list~{category}~{concept}~^^"
        f"~Anatomic codes - DICOM master list~{region}~^^"
    )


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
