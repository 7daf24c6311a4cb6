"""The target outline of the first variant, shown over the scan while the user adjusts the controls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import slicer
from HematomaSlicerLib.node_files import Segment
from HematomaSlicerLib.node_images import image_from_segment, labelmap_from_image
from HematomaSlicerLib.scene_nodes import remove_nodes

if TYPE_CHECKING:
    from HematomaSynthesisLib.target_shapes import TargetOptions

_NAME = "Preview of the target"
_ATTRIBUTE = "HematomaSynthesis.Preview"
_COLOR = (1.0, 1.0, 1.0)


def show_target(hematoma: Segment, options: TargetOptions, seed: int) -> slicer.vtkMRMLSegmentationNode:
    """Show the target, replacing the one shown before; returns its node, which is not saved with the scene.

    Raises:
        NodeError: the segment is empty.
        InputError: the hematoma is too small to be changed.
    """
    from HematomaExpansionLib.scan.grid import oriented
    from HematomaExpansionLib.scan.mask import Mask
    from HematomaSynthesisLib.variants import first_target

    mask = Mask(oriented(image_from_segment(hematoma.node, hematoma.segment_id), "LPS"))
    target = first_target(mask, options, seed)
    node = _node()
    node.GetSegmentation().RemoveAllSegments()
    node.AddSegmentFromBinaryLabelmapRepresentation(labelmap_from_image(target.image), _NAME, _COLOR)
    return node


def hide_target() -> None:
    """Remove the preview, if there is one."""
    remove_nodes(_found())


def _found() -> list[slicer.vtkMRMLNode]:
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return [node for node in nodes if node.GetAttribute(_ATTRIBUTE)]


def _node() -> slicer.vtkMRMLSegmentationNode:
    found = _found()
    if found:
        return found[0]
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", _NAME)
    node.SetAttribute(_ATTRIBUTE, "1")
    node.SetSaveWithScene(False)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetSaveWithScene(False)
    display.SetVisibility2DFill(False)
    display.SetVisibility3D(False)
    display.SetSliceIntersectionThickness(2)
    return node
