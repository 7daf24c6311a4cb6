"""The nodes of one prediction in the scene: made, found again after the scene was saved and reopened, and removed.

The table of measures stands for the run: it refers to the run's other nodes and carries ``prediction.json`` in an
attribute, so a saved scene holds everything.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import slicer
from HematomaExpansionLib.markers.scores import overrule

from .node_images import (
    NodeError,
    grid_transform_from_image,
    image_from_grid_transform,
    image_from_segment,
    image_from_volume,
    labelmap_from_image,
    use_brain_window,
    volume_from_image,
)
from .scaled_field import add_moving_surface, add_scaled, field_of
from .scene_nodes import (
    add_segments,
    add_table,
    folder_of,
    move_to_folder,
    new_folder_beside,
    remove_group,
    remove_nodes,
    set_columns,
    tables_with,
)

BASELINE, PREDICTED, GROWTH = "Hematoma (baseline)", "Hematoma (predicted)", "Predicted growth"
TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE = "Predicted rightly", "Predicted too much", "Missed"
BASELINE_COLOR, PREDICTED_COLOR, GROWTH_COLOR = (1.0, 0.82, 0.12), (1.0, 0.30, 0.37), (0.75, 0.35, 0.95)
_SHOWN_COLOR, _SKULL_COLOR = (1.0, 0.55, 0.1), (0.45, 0.7, 0.95)
RESULT_ATTRIBUTE = "HematomaExpansion.Result"
_SCAN = "HematomaExpansion.Scan"
_COMPARISON = "HematomaExpansion.Comparison"
_OWN = ("Baseline", "Skull", "Segmentation", "Predicted", "Field", "Shown", "Surface")
_OF_COMPARISON = ("FollowUp", "Agreement")


@dataclass(frozen=True)
class PredictionRun:
    """One prediction. ``scan`` and the nodes that only exist where a hematoma was found may be None.

    Attributes:
        table: measures; refers to all the others.
        scan: the user's volume.
        baseline: the scan on whose grid the results lie, where that is not the user's volume: it was tilted,
            uneven, or under a transform.
        skull: its inside, where intermediate results were to be kept.
        segmentation: baseline, prediction and growth.
        predicted: the predicted follow-up CT.
        field: the displacement from baseline to prediction; nothing is under it.
        shown: the same field at the scale that the slider chose, with the baseline's surface under it.
        surface: that surface.
        followup: the real follow-up CT, registered, where one was compared.
        agreement: where the prediction was right, too much, or missed it.
    """

    table: slicer.vtkMRMLTableNode

    @property
    def result(self) -> dict[str, Any]:
        """What ``prediction.json`` holds."""
        return json.loads(self.table.GetAttribute(RESULT_ATTRIBUTE))

    @property
    def scan(self) -> slicer.vtkMRMLScalarVolumeNode | None:
        return self.table.GetNodeReference(_SCAN)

    @property
    def baseline(self) -> slicer.vtkMRMLScalarVolumeNode | None:
        return self._node("Baseline")

    @property
    def skull(self) -> Any:
        return self._node("Skull")

    @property
    def segmentation(self) -> Any:
        return self._node("Segmentation")

    @property
    def predicted(self) -> Any:
        return self._node("Predicted")

    @property
    def field(self) -> Any:
        return self._node("Field")

    @property
    def shown(self) -> Any:
        return self._node("Shown")

    @property
    def surface(self) -> Any:
        return self._node("Surface")

    @property
    def comparison(self) -> dict[str, Any] | None:
        """What ``comparison.json`` holds, where a real follow-up was compared."""
        text = self.table.GetAttribute(_COMPARISON)
        return json.loads(text) if text else None

    @property
    def followup(self) -> slicer.vtkMRMLScalarVolumeNode | None:
        return self._node("FollowUp")

    @property
    def agreement(self) -> slicer.vtkMRMLSegmentationNode | None:
        return self._node("Agreement")

    @property
    def background(self) -> slicer.vtkMRMLScalarVolumeNode | None:
        """The volume over which the results are to be looked at."""
        return self.baseline or self.scan

    @property
    def nodes(self) -> list[slicer.vtkMRMLNode]:
        """All nodes that belong to the run, the user's scan not being one."""
        own = [self._node(name) for name in (*_OWN, *_OF_COMPARISON)]
        return [*(node for node in own if node is not None), self.table]

    def overrule_marker(self, name: str, present: bool) -> None:
        """Note a reader's word on a CT marker in the result, with the scores that follow."""
        self.table.SetAttribute(RESULT_ATTRIBUTE, json.dumps(overrule(self.result, name, present)))

    def segment_id(self, name: str) -> str:
        """The ID of one of its three segments; empty where there is none of that name."""
        return self.segmentation.GetSegmentation().GetSegmentIdBySegmentName(name) if self.segmentation else ""

    def _node(self, name: str) -> Any:
        return self.table.GetNodeReference(_role(name))


def add_prediction(folder: Path, scan: slicer.vtkMRMLScalarVolumeNode) -> PredictionRun:
    """Make the nodes of the prediction in ``folder`` (DESIGN section 5), made from ``scan``.

    All or none: if a file cannot be read, the scene is left as it was.
    """
    result = json.loads((folder / "prediction.json").read_text(encoding="utf-8"))
    name = scan.GetName()
    table = add_table(f"{name} hematoma measures", {RESULT_ATTRIBUTE: json.dumps(result)})
    run = PredictionRun(table)
    try:
        table.SetNodeReferenceID(_SCAN, scan.GetID())
        _fill_table(table, result)
        _add_images(run, folder, scan)
        move_to_folder(run.nodes, new_folder_beside(scan, f"{name} hematoma expansion"))
    except Exception:
        remove_run(run)
        raise
    return run


def is_run(table: slicer.vtkMRMLTableNode | None) -> bool:
    """Whether this table stands for a prediction."""
    return table is not None and bool(table.GetAttribute(RESULT_ATTRIBUTE))


def find_runs() -> list[PredictionRun]:
    """Every run in the scene, the latest last."""
    return [PredictionRun(table) for table in tables_with(RESULT_ATTRIBUTE)]


def remove_run(run: PredictionRun) -> None:
    """Remove the run's nodes, with what only they use, and its folder in the tree."""
    remove_group(run.table, run.nodes)


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
    """Add the nodes of the comparison in ``folder`` to the run, in place of those of an earlier one.

    Where the truth is not known, there are no areas that were predicted rightly or wrongly.
    """
    remove_nodes([node for node in (run.followup, run.agreement) if node is not None])
    name = run.table.GetName() if run.scan is None else run.scan.GetName()
    result = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    ct, true = (sitk.ReadImage(str(folder / f"followup-{kind}.nii.gz")) for kind in ("ct", "mask"))
    followup = volume_from_image(ct, f"{name} real follow-up CT, registered")
    run.table.SetNodeReferenceID(_role("FollowUp"), followup.GetID())
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
    run.table.SetNodeReferenceID(_role("Agreement"), agreement.GetID())
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


def _add_images(run: PredictionRun, folder: Path, scan: slicer.vtkMRMLScalarVolumeNode) -> None:
    name, table = scan.GetName(), run.table
    own_baseline = folder / "baseline-ct.nii.gz"
    if own_baseline.exists():
        baseline = volume_from_image(sitk.ReadImage(str(own_baseline)), f"{name} straightened")
        table.SetNodeReferenceID(_role("Baseline"), baseline.GetID())
    if (folder / "inside-skull.nii.gz").exists():
        _add_skull(run, sitk.ReadImage(str(folder / "inside-skull.nii.gz")), f"{name} inside of the skull")
    baseline_mask = sitk.ReadImage(str(folder / "baseline-mask.nii.gz"))
    masks = {BASELINE: (baseline_mask, BASELINE_COLOR)}
    if (folder / "followup-mask.nii.gz").exists():
        followup_mask = sitk.ReadImage(str(folder / "followup-mask.nii.gz"))
        masks[PREDICTED] = (followup_mask, PREDICTED_COLOR)
        masks[GROWTH] = (sitk.And(followup_mask, sitk.Equal(baseline_mask, 0)), GROWTH_COLOR)
    elif not np.any(sitk.GetArrayViewFromImage(baseline_mask)):
        return  # no hematoma: the table says so, and there is nothing to show
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{name} hematoma")
    table.SetNodeReferenceID(_role("Segmentation"), segmentation.GetID())
    add_segments(segmentation, masks, run.background)
    if PREDICTED not in masks:
        return
    predicted = volume_from_image(
        sitk.ReadImage(str(folder / "followup-ct.nii.gz")), f"{name} predicted follow-up CT"
    )
    table.SetNodeReferenceID(_role("Predicted"), predicted.GetID())
    use_brain_window(predicted)
    _add_morph(run, sitk.ReadImage(str(folder / "displacement.nii.gz")), name)


def _add_skull(run: PredictionRun, inside: sitk.Image, name: str) -> None:
    """There to be looked at, but not shown by itself."""
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    run.table.SetNodeReferenceID(_role("Skull"), segmentation.GetID())
    segmentation.CreateDefaultDisplayNodes()
    segmentation.AddSegmentFromBinaryLabelmapRepresentation(labelmap_from_image(inside), name, _SKULL_COLOR)
    segmentation.GetDisplayNode().SetVisibility(False)


def _add_morph(run: PredictionRun, displacement: sitk.Image, name: str) -> None:
    """The field, and under a second one that the slider scales the surface of the baseline."""
    field = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode", f"{name} displacement")
    run.table.SetNodeReferenceID(_role("Field"), field.GetID())
    field.SetAndObserveTransformFromParent(grid_transform_from_image(displacement))
    shown = add_scaled(field, f"{name} growth shown")
    run.table.SetNodeReferenceID(_role("Shown"), shown.GetID())
    surface = add_moving_surface(
        run.segmentation, run.segment_id(BASELINE), shown, f"{name} growing hematoma", _SHOWN_COLOR
    )
    run.table.SetNodeReferenceID(_role("Surface"), surface.GetID())


def _fill_table(
    table: slicer.vtkMRMLTableNode, result: dict[str, Any], comparison: dict[str, Any] | None = None
) -> None:
    names, values, units = zip(*measures(result, comparison), strict=True)
    models = ", ".join(f"{model['name']}" for model in result["models"].values())
    columns = {"Measure": names, "Value": values, "Unit": units}
    set_columns(table, columns, f"Research use only. Models: {models}.")


def _role(name: str) -> str:
    return f"HematomaExpansion.{name}"


def _mask_on(ct: sitk.Image, run: PredictionRun, name: str) -> sitk.Image:
    """One of the run's segments on the grid of ``ct``, of which its labelmap is a part or the whole."""
    empty = sitk.Cast(ct * 0, sitk.sitkUInt8)
    if not run.segment_id(name):
        return empty
    try:
        mask = image_from_segment(run.segmentation, run.segment_id(name))
    except NodeError:
        return empty
    return sitk.Resample(mask, ct, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
