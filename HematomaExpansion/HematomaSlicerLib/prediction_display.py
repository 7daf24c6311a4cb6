"""How a prediction is shown: the growing surface, outlines, areas, map and arrows, and where the views point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import slicer
from HematomaExpansionLib.anatomy.kinds import BESIDE_HEMATOMA, BLOOD, LOOKS

from .node_images import image_from_segment, use_brain_window
from .outcome_nodes import outcome_surface, show_map
from .outcome_slider import IF_EXPANDS, volume_at
from .prediction_nodes import BASELINE, GROWTH, PREDICTED, PredictionRun
from .scaled_field import show_share, use_arrows

_CAMERA_DISTANCE = 4.5
"""In hematoma radii; at Slicer's view angle of 30°, the hematoma fills most of the view."""
_SURFACE_OPACITY, _OTHER_OPACITY = 0.3, 0.5
_FILL_OPACITY = 0.35
_MAP_OPACITY = 0.45
_VOLUME_SHOWN = "HematomaExpansion.VolumeShown"
_MIN_ARROW_MM = 0.5


@dataclass(frozen=True)
class Look:
    """What to show of a prediction; ``opacity`` (0 to 1) applies to outlines, areas and map."""

    outline: bool = True
    fill: bool = False
    map: bool = True
    surface: bool = True
    deformation: bool = False
    opacity: float = 1.0


def apply_look(run: PredictionRun, look: Look) -> None:
    """Show what was chosen."""
    if run.segmentation is not None:
        display = run.segmentation.GetDisplayNode()
        display.SetVisibility2DOutline(look.outline)
        display.SetOpacity2DOutline(look.opacity)
        display.SetVisibility2DFill(look.fill)
        display.SetOpacity2DFill(_FILL_OPACITY * look.opacity)
        for name in (BASELINE, PREDICTED, GROWTH):
            segment_id = run.segment_id(name)
            if segment_id:
                # If there is growth to see, the moving surface stands for the baseline.
                in_3d = name == PREDICTED or (name == BASELINE and run.surface is None)
                display.SetSegmentVisibility3D(segment_id, look.surface and in_3d)
                display.SetSegmentOpacity3D(segment_id, _SURFACE_OPACITY if name == PREDICTED else 1.0)
                display.SetSegmentVisibility2DOutline(segment_id, name != GROWTH)
                display.SetSegmentVisibility2DFill(segment_id, name == GROWTH)
        for kind in BESIDE_HEMATOMA:
            if segment_id := run.segment_id(LOOKS[kind].title):
                display.SetSegmentVisibility3D(segment_id, look.surface and kind in BLOOD)  # edema would hide them
                display.SetSegmentOpacity3D(segment_id, _OTHER_OPACITY)
                display.SetSegmentVisibility2DFill(segment_id, False)
    if run.surface is not None:
        display = run.surface.GetDisplayNode()
        display.SetVisibility2D(look.outline)
        display.SetVisibility3D(look.surface)
    if run.map is not None:
        show_map(run.map, look.map, _MAP_OPACITY * look.opacity)
    if run.field is not None:
        _show_deformation(run, look.deformation)


def show_outcome(run: PredictionRun, position: float) -> None:
    """Show the outcome at a position of the slider (``outcome_slider``)."""
    if run.surface is None:
        return
    if run.outcomes is not None:
        shown = f"{volume_at(run.result, position):.3f}"
        if run.surface.GetAttribute(_VOLUME_SHOWN) != shown:
            run.surface.SetAndObservePolyData(outcome_surface(run.outcomes, float(shown)))
            run.surface.SetAttribute(_VOLUME_SHOWN, shown)
    elif run.field is not None:  # by an earlier version, which predicted one outcome
        show_share(run, run.field, min(position / IF_EXPANDS, 1.0), run.surface)


def look_at(run: PredictionRun) -> None:
    """Set the brain window, and center every slice view on the largest slice of the hematoma."""
    volume = run.background
    if volume is None:
        return
    use_brain_window(volume)
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        composite.SetBackgroundVolumeID(volume.GetID())
    name = PREDICTED if run.segment_id(PREDICTED) else BASELINE
    if run.segment_id(name):
        jump_to_largest_slice(run.segmentation, run.segment_id(name))


def look_at_in_3d(run: PredictionRun) -> None:
    """Place the camera of every 3D view at a distance that suits the hematoma's size, keeping its direction."""
    from HematomaExpansionLib.scan.mask import Mask

    segment_id = run.segment_id(PREDICTED) or run.segment_id(BASELINE)
    if not segment_id:
        return
    mask = Mask(image_from_segment(run.segmentation, segment_id))
    center = mask.box_center * (-1, -1, 1)  # cameras are in RAS
    distance = _CAMERA_DISTANCE * float(np.linalg.norm(mask.box[1] * mask.grid.spacing)) / 2
    for camera in slicer.util.getNodesByClass("vtkMRMLCameraNode"):
        away = np.array(camera.GetPosition()) - np.array(camera.GetFocalPoint())
        camera.SetFocalPoint(*center)
        camera.SetPosition(*(center + distance * away / np.linalg.norm(away)))
        camera.ResetClippingRange()


def show_only(run: PredictionRun) -> None:
    """Show this prediction, and hide what the others have in the views."""
    for other in PredictionRun.in_scene():
        shown = other.table.GetID() == run.table.GetID()
        for node in (other.segmentation, other.surface, other.agreement, None if shown else other.field):
            display = None if node is None else node.GetDisplayNode()
            if display is not None:
                display.SetVisibility(shown)
        if other.map is not None and not shown:
            show_map(other.map, False, 0.0)


def jump_to_largest_slice(segmentation: slicer.vtkMRMLSegmentationNode, segment_id: str) -> None:
    """Center every slice view on the middle of the segment's largest slice."""
    jump_to(_center_of_largest_slice(image_from_segment(segmentation, segment_id)))


def jump_to(place: Sequence[float]) -> None:
    """Center every slice view on a position, LPS mm."""
    slicer.vtkMRMLSliceNode.JumpAllSlices(
        slicer.mrmlScene, -place[0], -place[1], place[2], slicer.vtkMRMLSliceNode.CenteredJumpSlice
    )


def _show_deformation(run: PredictionRun, shown: bool) -> None:
    """Arrows of the displacement, in the slices and around the hematoma in 3D."""
    display = run.field.GetDisplayNode()
    if display is None:
        if not shown:
            return
        run.field.CreateDefaultDisplayNodes()
        display = run.field.GetDisplayNode()
        display.SetVisualizationMode(slicer.vtkMRMLTransformDisplayNode.VIS_MODE_GLYPH)
        use_arrows(display, _MIN_ARROW_MM)
        display.SetAndObserveRegionNode(run.segmentation)
    display.SetVisibility(shown)
    display.SetVisibility2D(shown)
    display.SetVisibility3D(shown)


def _center_of_largest_slice(mask: sitk.Image) -> tuple[float, float, float]:
    """LPS position of the middle of the hematoma's largest slice."""
    array = sitk.GetArrayViewFromImage(mask) > 0
    k = int(array.sum(axis=(1, 2)).argmax())
    y, x = np.nonzero(array[k])
    return mask.TransformContinuousIndexToPhysicalPoint((float(x.mean()), float(y.mean()), float(k)))
