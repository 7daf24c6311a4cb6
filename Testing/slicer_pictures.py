"""Pictures from Slicer's real slice and 3D views, off screen.

``python Testing/slicer_pictures.py SCAN RESULT PICTURE`` draws what ``hematoma predict`` left in RESULT.
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
_ZOOM = 0.5


def slice_picture(application: Any, run: Any) -> np.ndarray:
    """An axial view at the hematoma, RGB (y, x, 3)."""
    from HematomaSlicerLib.prediction_display import look_at

    view = _view(application, ViewLayoutDefinition.axial_view())
    look_at(run)
    view.fit_view_to_content()
    view.zoom(_ZOOM)
    look_at(run)
    return _picture(view)


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
    view.renderer().SetUseDepthPeeling(False)  # needs what off-screen buffers may lack: transparent things vanish
    view.render()
    capture = vtk.vtkWindowToImageFilter()
    capture.SetInput(view.render_window())
    capture.ReadFrontBufferOff()
    capture.Update()
    image = capture.GetOutput()
    x, y, _ = image.GetDimensions()
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(y, x, -1)[::-1, :, :3]


def draw(scan: Path, result: Path, picture: Path) -> None:
    """An axial view, one with arrows of the deformation, and the growing surface at 0, 50 and 100 %."""
    import SimpleITK as sitk
    import slicer
    from HematomaExpansionLib.report import new_figure
    from HematomaSlicerLib.node_images import volume_from_image
    from HematomaSlicerLib.prediction_display import Look, apply_look, show_growth
    from HematomaSlicerLib.prediction_nodes import add_prediction
    from trame_slicer.core import SlicerApp

    application = SlicerApp()
    slicer.mrmlScene = application.scene
    run = add_prediction(result, volume_from_image(sitk.ReadImage(str(scan)), "scan"))
    panels = {}
    show_growth(run, 1.0)
    for title, look in {
        "now and predicted": Look(),
        "deformation": Look(fill=False, deformation=True),
    }.items():
        apply_look(run, look)
        panels[title] = slice_picture(application, run)
    apply_look(run, Look())
    for percent in (0, 50, 100):
        show_growth(run, percent / 100)
        panels[f"growth {percent} %"] = surface_picture(application, run)
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
    draw(*(Path(argument) for argument in sys.argv[1:4]))
