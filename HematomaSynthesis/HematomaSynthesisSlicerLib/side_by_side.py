"""The window's layout with original, variant and deformation side by side.

It imports nothing heavy: Slicer learns of the layout at startup, since a saved scene may use it.
"""

from __future__ import annotations

import slicer

ORIGINAL_VIEW, VARIANT_VIEW, DEFORMATION_VIEW = "HematomaOriginal", "HematomaVariant", "HematomaDeformation"
LAYOUT_ID = 7330
"""Slicer's own layouts are below 100."""

_VIEW = (
    '<item><view class="vtkMRMLSliceNode" singletontag="{tag}">'
    '<property name="orientation" action="default">Axial</property>'
    '<property name="viewlabel" action="default">{label}</property>'
    '<property name="viewcolor" action="default">{color}</property></view></item>'
)
_VIEWS = (
    (ORIGINAL_VIEW, "O", "#E8B820"),
    (VARIANT_VIEW, "V", "#F34A5E"),
    (DEFORMATION_VIEW, "D", "#6EB04B"),
)
LAYOUT = (
    '<layout type="horizontal" split="true">'
    + "".join(_VIEW.format(tag=tag, label=label, color=color) for tag, label, color in _VIEWS)
    + "</layout>"
)
"""Original, variant and deformation side by side."""


def offer_layout() -> None:
    """Make the layout known to the window, if there is one."""
    manager = slicer.app.layoutManager()
    if manager is not None:
        manager.layoutLogic().GetLayoutNode().AddLayoutDescription(LAYOUT_ID, LAYOUT)


def use_layout() -> None:
    """Change the window to the layout, if there is a window."""
    manager = slicer.app.layoutManager()
    if manager is not None:
        offer_layout()
        manager.setLayout(LAYOUT_ID)
        slicer.app.processEvents()  # the new views get their sizes, which fitting needs


def fit_views() -> None:
    """Fit every slice view to what it now shows."""
    if slicer.app.layoutManager() is not None:
        slicer.util.resetSliceViews()
