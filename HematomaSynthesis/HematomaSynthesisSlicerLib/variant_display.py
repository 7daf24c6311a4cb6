"""How a variant is shown: beside the original and its deformation, and between the original and itself."""

from __future__ import annotations

import slicer
from HematomaSlicerLib.node_images import NodeError, use_brain_window
from HematomaSlicerLib.prediction_display import jump_to_largest_slice
from HematomaSlicerLib.scaled_field import show_share, use_arrows

from .side_by_side import DEFORMATION_VIEW, ORIGINAL_VIEW, VARIANT_VIEW
from .variant_nodes import ORIGINAL, VariantSet, variant_name

_GRID_SPACING_MM, _GRID_LINE_MM = 5.0, 0.5
_MIN_ARROW_MM = 0.3


def show_variant(variants: VariantSet, index: int, share: float, *, grid: bool) -> None:
    """Show one variant between the original (share 0) and itself (1), its deformation as a grid or arrows.

    Raises:
        NodeError: some of the set's nodes were removed from the scene.
    """
    if not variants.is_whole:
        raise NodeError("Some of these variants' nodes were removed from the scene: make the variants again.")
    show_share(variants, variants.field(index), share, variants.moving, variants.outline)
    # At share 1, show the variant itself, not another interpolation of it.
    shown = variants.volume(index) if share >= 1 else variants.moving
    _show_segments(variants, index)
    variants.outline.GetDisplayNode().SetVisibility(share < 1)
    for number in range(len(variants.descriptions)):
        _show_deformation(variants, number, shown=number == index, grid=grid)
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        original = composite.GetLayoutName() in (ORIGINAL_VIEW, DEFORMATION_VIEW)
        composite.SetBackgroundVolumeID((variants.background if original else shown).GetID())


def look_at(variants: VariantSet) -> None:
    """Set the brain window, and center every slice view on the largest slice of the original hematoma."""
    if variants.background is None or variants.segmentation is None:
        return
    use_brain_window(variants.background)
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        if composite.GetLayoutName() in (ORIGINAL_VIEW, VARIANT_VIEW, DEFORMATION_VIEW):
            composite.SetLinkedControl(True)
            composite.SetHotLinkedControl(True)
    jump_to_largest_slice(variants.segmentation, variants.segment_id(ORIGINAL))


def _show_segments(variants: VariantSet, index: int) -> None:
    display = variants.segmentation.GetDisplayNode()
    for number in range(len(variants.descriptions)):
        segment_id = variants.segment_id(variant_name(number))
        display.SetSegmentVisibility(segment_id, number == index)
        display.SetSegmentOpacity3D(segment_id, 0.5)
    display.SetSegmentOpacity3D(variants.segment_id(ORIGINAL), 0.3)


def _show_deformation(variants: VariantSet, index: int, *, shown: bool, grid: bool) -> None:
    """Draw a field only in the deformation's own view; without such a view, it would cover all the others."""
    field = variants.field(index)
    if shown and field.GetDisplayNode() is None:
        _add_display(field, variants.segmentation)
    display = field.GetDisplayNode()
    if display is not None:
        modes = slicer.vtkMRMLTransformDisplayNode
        display.SetVisualizationMode(modes.VIS_MODE_GRID if grid else modes.VIS_MODE_GLYPH)
        display.SetVisibility(shown)


def _add_display(field: slicer.vtkMRMLGridTransformNode, region: slicer.vtkMRMLSegmentationNode) -> None:
    views = [
        node.GetID()
        for node in slicer.util.getNodesByClass("vtkMRMLSliceNode")
        if node.GetLayoutName() == DEFORMATION_VIEW
    ]
    if not views:
        return
    display = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformDisplayNode")
    for view in views:  # before the field gets it: only then do views decide whether to draw it
        display.AddViewNodeID(view)
    display.SetGridSpacingMm(_GRID_SPACING_MM)
    display.SetGridLineDiameterMm(_GRID_LINE_MM)
    use_arrows(display, _MIN_ARROW_MM)
    display.SetVisibility2D(True)
    display.SetVisibility3D(False)
    display.SetAndObserveRegionNode(region)
    field.SetAndObserveDisplayNodeID(display.GetID())
