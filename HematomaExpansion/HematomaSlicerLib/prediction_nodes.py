"""The nodes of one prediction in the scene; the table of measures carries ``prediction.json`` in an attribute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import slicer
from HematomaExpansionLib.markers.scores import overrule
from HematomaExpansionLib.scan.grid import Grid
from HematomaExpansionLib.scan.resampling import resample

from .node_group import NodeGroup, member
from .node_images import (
    NodeError,
    image_from_grid_transform,
    image_from_segment,
    image_from_volume,
    labelmap_from_image,
    use_brain_window,
    volume_from_image,
)
from .scaled_field import add_field, add_moving_surface, add_scaled, field_of
from .scene_nodes import (
    AFTER_COLOR,
    BEFORE_COLOR,
    add_segments,
    folder_of,
    move_to_folder,
    remove_nodes,
    set_columns,
)

BASELINE, PREDICTED, GROWTH = "Hematoma (baseline)", "Hematoma (predicted)", "Predicted growth"
TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE = "Predicted rightly", "Predicted too much", "Missed"
_GROWTH_COLOR, _SKULL_COLOR = (0.75, 0.35, 0.95), (0.45, 0.7, 0.95)
_COMPARISON = "HematomaExpansion.Comparison"


class PredictionRun(NodeGroup):
    """One prediction. Nodes that exist only if a hematoma was found may be None.

    Attributes:
        segmentation: baseline, prediction and growth.
        skull: the inside of the skull, if intermediate results were kept.
        predicted: the predicted follow-up CT.
        field: the displacement from baseline to prediction; it moves no node.
        shown: the same field at the slider's scale; it moves the baseline's surface.
        surface: that surface.
        followup: the real follow-up CT, registered, if one was compared.
        agreement: where the prediction was right, where too much, and what it missed.
    """

    ATTRIBUTE = "HematomaExpansion.Result"
    PREFIX = "HematomaExpansion"

    skull = member("Skull")
    predicted = member("Predicted")
    field = member("Field")
    shown = member("Shown")
    surface = member("Surface")
    followup = member("FollowUp")
    agreement = member("Agreement")

    @property
    def parts(self) -> list[Any]:
        of_prediction = [self.skull, self.segmentation, self.predicted, self.field, self.shown, self.surface]
        return [*of_prediction, self.followup, self.agreement]

    @property
    def result(self) -> dict[str, Any]:
        """What ``prediction.json`` holds."""
        return json.loads(self.table.GetAttribute(self.ATTRIBUTE))

    @property
    def comparison(self) -> dict[str, Any] | None:
        """What ``comparison.json`` holds, if a real follow-up was compared."""
        text = self.table.GetAttribute(_COMPARISON)
        return json.loads(text) if text else None

    def overrule_marker(self, name: str, present: bool) -> None:
        """Record a reader's decision on a CT marker in the result, and the scores that follow from it."""
        self.table.SetAttribute(self.ATTRIBUTE, json.dumps(overrule(self.result, name, present)))


def add_prediction(folder: Path, scan: slicer.vtkMRMLScalarVolumeNode) -> PredictionRun:
    """Make the nodes of the prediction in ``folder`` (DESIGN section 5), which was made from ``scan``.

    All or nothing: if a file cannot be read, the scene stays as it was.
    """
    result = json.loads((folder / "prediction.json").read_text(encoding="utf-8"))
    name = scan.GetName()
    attributes = {PredictionRun.ATTRIBUTE: json.dumps(result)}
    with PredictionRun.making(scan, f"{name} hematoma measures", attributes, f"{name} hematoma expansion") as run:
        _fill_table(run.table, result)
        _add_images(run, folder, name)
    return run


def prediction_of(run: PredictionRun) -> Any:
    """The run as the engine's ``Prediction``, from its nodes alone.

    Raises:
        NodeError: the scan was removed from the scene.
    """
    from HematomaExpansionLib.growth.growth import Growth
    from HematomaExpansionLib.prediction import Prediction
    from HematomaExpansionLib.scan.mask import Mask

    if run.background is None:
        raise NodeError("The scan of this prediction is no longer in the scene.")
    ct = image_from_volume(run.background)
    growth = None
    if run.field is not None:
        growth = Growth(
            followup_ct=sitk.Cast(image_from_volume(run.predicted), sitk.sitkFloat32),
            followup_mask=Mask(_mask_on(ct, run, PREDICTED)),
            displacement=sitk.Cast(image_from_grid_transform(field_of(run.field)), sitk.sitkVectorFloat32),
        )
    return Prediction(
        baseline_ct=sitk.Cast(ct, sitk.sitkFloat32),
        baseline_mask=Mask(_mask_on(ct, run, BASELINE)),
        growth=growth,
        resampled=run.baseline is not None,
        result=run.result,
    )


def add_comparison(run: PredictionRun, folder: Path) -> None:
    """Add the nodes of the comparison in ``folder`` to the run, replacing those of an earlier one.

    If the truth is unknown, there are no areas of right or wrong prediction.
    """
    remove_nodes([node for node in (run.followup, run.agreement) if node is not None])
    name = run.table.GetName() if run.scan is None else run.scan.GetName()
    result = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    ct, true = (sitk.ReadImage(str(folder / f"followup-{kind}.nii.gz")) for kind in ("ct", "mask"))
    followup = volume_from_image(ct, f"{name} real follow-up CT, registered")
    run.refer("FollowUp", followup)
    run.table.SetAttribute(_COMPARISON, json.dumps(result))
    _fill_table(run.table, run.result, result)
    move_to_folder([followup], folder_of(run.table))
    if result["growth"] is None:
        return
    predicted = sitk.Cast(_mask_on(ct, run, PREDICTED), sitk.sitkUInt8)
    true = sitk.Cast(true, sitk.sitkUInt8)
    areas = {
        TRUE_POSITIVE: (sitk.And(predicted, true), (0.88, 0.13, 0.13)),
        FALSE_POSITIVE: (sitk.And(predicted, sitk.Equal(true, 0)), (0.13, 0.75, 0.13)),
        FALSE_NEGATIVE: (sitk.And(true, sitk.Equal(predicted, 0)), (0.19, 0.38, 1.0)),
    }
    agreement = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{name} prediction and truth")
    run.refer("Agreement", agreement)
    add_segments(agreement, areas, followup)
    agreement.GetDisplayNode().SetVisibility2DFill(True)
    agreement.GetDisplayNode().SetOpacity2DFill(0.5)
    move_to_folder([agreement], folder_of(run.table))


def measures(result: dict[str, Any], comparison: dict[str, Any] | None = None) -> list[tuple[str, float, str]]:
    """The numbers of a prediction, and of its comparison with the truth, as rows (measure, value, unit)."""
    baseline, followup, growth = result["baseline"], result["followup"], result["growth"]
    rows = [
        ("Baseline volume", baseline["volume_ml"], "mL"),
        ("Baseline volume, corrected for the segmenter's bias", baseline.get("corrected_volume_ml"), "mL"),
        ("Baseline ABC/2", baseline["abc2_ml"], "mL"),
        ("Baseline ABC/2, simplified", baseline["abc2_simplified_ml"], "mL"),
        ("A", baseline["a_mm"], "mm"),
        ("B", baseline["b_mm"], "mm"),
        ("C", baseline["c_mm"], "mm"),
    ]
    if growth is not None:
        rows += [
            ("Predicted volume", followup["volume_ml"], "mL"),
            ("Predicted volume, lower bound", followup["volume_ml_low"], "mL"),
            ("Predicted volume, upper bound", followup["volume_ml_high"], "mL"),
            ("Predicted ABC/2", followup["abc2_ml"], "mL"),
            ("Growth", growth["absolute_ml"], "mL"),
            ("Relative growth", 100 * growth["relative"], "%"),
            (f"Expansion: {growth['definition']}", float(growth["expansion"]), "1 = yes"),
        ]
    if result.get("risk"):
        rows.append(("Probability of expansion", 100 * result["risk"]["probability"], "%"))
    if comparison is not None:
        rows.append(("True follow-up volume", comparison["followup"]["volume_ml"], "mL"))
        if comparison["prediction"] is not None:
            rows += [
                ("Error of the predicted volume", comparison["prediction"]["error_ml"], "mL"),
                ("Growth Dice", comparison["prediction"]["growth_dice"], ""),
                ("Lesion Dice", comparison["prediction"]["lesion_dice"], ""),
            ]
    return [(name, float(value), unit) for name, value, unit in rows if value is not None]


# --- making ---------------------------------------------------------------------------------------------


def _add_images(run: PredictionRun, folder: Path, name: str) -> None:
    own_baseline = folder / "baseline-ct.nii.gz"
    if own_baseline.exists():
        run.refer("Baseline", volume_from_image(sitk.ReadImage(str(own_baseline)), f"{name} straightened"))
    if (folder / "inside-skull.nii.gz").exists():
        _add_skull(run, sitk.ReadImage(str(folder / "inside-skull.nii.gz")), f"{name} inside of the skull")
    baseline_mask = sitk.ReadImage(str(folder / "baseline-mask.nii.gz"))
    masks = {BASELINE: (baseline_mask, BEFORE_COLOR)}
    if (folder / "followup-mask.nii.gz").exists():
        followup_mask = sitk.ReadImage(str(folder / "followup-mask.nii.gz"))
        masks[PREDICTED] = (followup_mask, AFTER_COLOR)
        masks[GROWTH] = (sitk.And(followup_mask, sitk.Equal(baseline_mask, 0)), _GROWTH_COLOR)
    elif not np.any(sitk.GetArrayViewFromImage(baseline_mask)):
        return  # no hematoma: the table says so, and there is nothing to show
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{name} hematoma")
    run.refer("Segmentation", segmentation)
    add_segments(segmentation, masks, run.background)
    if PREDICTED not in masks:
        return
    followup_ct = sitk.ReadImage(str(folder / "followup-ct.nii.gz"))
    run.refer("Predicted", volume_from_image(followup_ct, f"{name} predicted follow-up CT"))
    use_brain_window(run.predicted)
    _add_morph(run, sitk.ReadImage(str(folder / "displacement.nii.gz")), name)


def _add_skull(run: PredictionRun, inside: sitk.Image, name: str) -> None:
    """Add the inside of the skull, hidden until the user shows it."""
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    run.refer("Skull", segmentation)
    segmentation.CreateDefaultDisplayNodes()
    segmentation.AddSegmentFromBinaryLabelmapRepresentation(labelmap_from_image(inside), name, _SKULL_COLOR)
    segmentation.GetDisplayNode().SetVisibility(False)


def _add_morph(run: PredictionRun, displacement: sitk.Image, name: str) -> None:
    """Add the field, and a second one that the slider scales and that moves the baseline's surface."""
    run.refer("Field", add_field(displacement, f"{name} displacement"))
    run.refer("Shown", add_scaled(run.field, f"{name} growth shown"))
    surface_name, baseline = f"{name} growing hematoma", run.segment_id(BASELINE)
    run.refer("Surface", add_moving_surface(run.segmentation, baseline, run.shown, surface_name))


def _fill_table(
    table: slicer.vtkMRMLTableNode, result: dict[str, Any], comparison: dict[str, Any] | None = None
) -> None:
    names, values, units = zip(*measures(result, comparison), strict=True)
    models = ", ".join(f"{model['name']}" for model in result["models"].values())
    columns = {"Measure": names, "Value": values, "Unit": units}
    set_columns(table, columns, f"Research use only. Models: {models}.")


def _mask_on(ct: sitk.Image, run: PredictionRun, name: str) -> sitk.Image:
    """One of the run's segments on the grid of ``ct``; its labelmap covers that grid in part or whole."""
    empty = sitk.Cast(ct * 0, sitk.sitkUInt8)
    if not run.segment_id(name):
        return empty
    try:
        mask = image_from_segment(run.segmentation, run.segment_id(name))
    except NodeError:
        return empty
    return resample(mask, Grid.of(ct), interpolator=sitk.sitkNearestNeighbor)
