"""Pictures from Slicer's real slice and 3D views, off screen.

``python Testing/slicer_pictures.py SCAN RESULT PICTURE`` draws what ``hematoma predict`` left in RESULT;
``python Testing/slicer_pictures.py CASE PICTURE`` what ``hematoma synthesize`` left in CASE.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import vtk
from trame_slicer.views import DirectViewFactory, ViewLayoutDefinition
from vtk.util.numpy_support import vtk_to_numpy

SIZE = (600, 600)
_ZOOM, _CLOSER = 0.5, 0.6


def slice_picture(application: Any, run: Any) -> np.ndarray:
    """An axial view of the hematoma, RGB (y, x, 3)."""
    from HematomaSlicerLib.prediction_display import look_at

    view = _view(application, ViewLayoutDefinition.axial_view())
    look_at(run)
    view.fit_view_to_content()
    view.zoom(_ZOOM)
    look_at(run)
    return _picture(view)


def variant_pictures(application: Any, variants: Any) -> dict[str, np.ndarray]:
    """The growth paper's Figure 1 for the first variant: mask, target, deformation, original and changed CT."""
    from HematomaSlicerLib.node_files import Segment
    from HematomaSynthesisLib.target_shapes import Family, TargetOptions
    from HematomaSynthesisSlicerLib.target_preview import hide_target, show_target
    from HematomaSynthesisSlicerLib.variant_display import (
        DEFORMATION_VIEW,
        ORIGINAL_VIEW,
        VARIANT_VIEW,
        look_at,
        show_variant,
    )
    from HematomaSynthesisSlicerLib.variant_nodes import ORIGINAL, variant_name

    tags = (ORIGINAL_VIEW, VARIANT_VIEW, DEFORMATION_VIEW)
    views = {tag: _view(application, ViewLayoutDefinition.axial_view(tag)) for tag in tags}
    show_variant(variants, 0, 1.0, grid=False)
    for view in views.values():
        view.fit_view_to_content()
        view.zoom(_CLOSER)
    look_at(variants)
    display = variants.segmentation.GetDisplayNode()
    display.SetVisibility(False)
    pictures = {tag: _picture(view) for tag, view in views.items()}
    display.SetVisibility(True)
    display.SetVisibility2DFill(True)
    display.SetOpacity2DFill(0.7)
    original = variants.segment_id(ORIGINAL)
    display.SetSegmentVisibility(variants.segment_id(variant_name(0)), False)
    masks = [_picture(views[ORIGINAL_VIEW])]
    description = variants.descriptions[0]
    options = TargetOptions(Family(description["family"]), description["iterations"], description["in_plane"])
    target = show_target(Segment(variants.segmentation, original), options, description["seed"])
    target.GetDisplayNode().SetVisibility2DFill(True)
    target.GetDisplayNode().SetOpacity2DFill(1.0)
    masks.append(_picture(views[ORIGINAL_VIEW]))
    hide_target()
    return {
        "A  hematoma": masks[0],
        "B  target": masks[1],
        "C  deformation": pictures[DEFORMATION_VIEW],
        "D  original CT": pictures[ORIGINAL_VIEW],
        "E  variant": pictures[VARIANT_VIEW],
    }


def surface_picture(application: Any, run: Any) -> np.ndarray:
    """The 3D view, RGB (y, x, 3)."""
    view = _view(application, ViewLayoutDefinition.threed_view())
    view.fit_view_to_content()
    return _picture(view)


def _view(application: Any, definition: Any) -> Any:
    manager = application.view_manager
    if not manager.is_view_created(definition.singleton_tag):
        manager.register_factory(DirectViewFactory(do_render_offscreen=True))
        manager.create_view(definition)
    view = manager.get_view(definition.singleton_tag)
    view.render_window().SetSize(*SIZE)
    return view


def _picture(view: Any) -> np.ndarray:
    view.renderer().SetUseDepthPeeling(False)  # off-screen buffers may lack its needs: transparent things vanish
    view.render()
    capture = vtk.vtkWindowToImageFilter()
    capture.SetInput(view.render_window())
    capture.ReadFrontBufferOff()
    capture.Update()
    image = capture.GetOutput()
    x, y, _ = image.GetDimensions()
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(y, x, -1)[::-1, :, :3]


def draw(scan: Path, result: Path, picture: Path) -> None:
    """Draw an axial view, one with the map, one with deformation arrows, and the outcomes along the slider."""
    import SimpleITK as sitk
    import slicer
    from HematomaSlicerLib.node_images import volume_from_image
    from HematomaSlicerLib.prediction_display import Look, apply_look, show_outcome
    from HematomaSlicerLib.prediction_nodes import add_prediction
    from slicer_scene import complete
    from trame_slicer.core import SlicerApp

    application = SlicerApp()
    slicer.mrmlScene = application.scene
    complete(application.scene)
    run = add_prediction(result, volume_from_image(sitk.ReadImage(str(scan)), "scan"))
    panels = {}
    show_outcome(run, 0.0)
    for title, look in {
        "now and if it expands": Look(fill=True, map=False),
        "probability": Look(),
        "deformation": Look(deformation=True, map=False),
    }.items():
        apply_look(run, look)
        panels[title] = slice_picture(application, run)
    apply_look(run, Look())
    for title, position in {"stays": 0.0, "if it expands": 0.5, "1 in 10 beyond": 1.0}.items():
        show_outcome(run, position)
        panels[title] = surface_picture(application, run)
    _save(panels, picture)


def draw_variants(case: Path, picture: Path) -> None:
    """Draw the first variant as in the growth paper's Figure 1."""
    import SimpleITK as sitk
    import slicer
    from HematomaSlicerLib.node_images import volume_from_image
    from HematomaSynthesisSlicerLib.variant_nodes import add_variants
    from trame_slicer.core import SlicerApp

    application = SlicerApp()
    slicer.mrmlScene = application.scene
    scan = volume_from_image(sitk.ReadImage(str(case / "baseline.nii.gz")), "scan")
    _save(variant_pictures(application, add_variants(case, scan)), picture)


def _save(panels: dict[str, np.ndarray], picture: Path) -> None:
    from HematomaExpansionLib.output.drawing import new_figure

    figure = new_figure(4 * len(panels), 4.4, "black")
    for axes, (title, panel) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        axes.imshow(panel)
        axes.set_title(title, color="white", fontsize=15)
        axes.set_axis_off()
    figure.subplots_adjust(0.005, 0.01, 0.995, 0.92, 0.02)
    figure.savefig(picture, dpi=70)


if __name__ == "__main__":
    repository = Path(__file__).resolve().parent.parent
    sys.path[:0] = [str(repository / "HematomaExpansion"), str(repository / "HematomaSynthesis")]
    paths = [Path(argument) for argument in sys.argv[1:]]
    if len(paths) == 2:
        draw_variants(*paths)
    else:
        draw(*paths)
