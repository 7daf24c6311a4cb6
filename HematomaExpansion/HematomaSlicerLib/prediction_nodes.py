"""The nodes of one prediction in the scene; the table of measures carries ``prediction.json`` in an attribute."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import slicer
from HematomaExpansionLib.anatomy.kinds import BESIDE_HEMATOMA, LOOKS, Kind
from HematomaExpansionLib.output.findings import kinds_found
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
from .outcome_nodes import add_map, fill_map, order_from_masks, outcome_surface
from .renewal import forecast_by, overruled, retold
from .scaled_field import SHOWN, add_field, add_moving_surface, field_of
from .scene_nodes import (
    AFTER_COLOR,
    BEFORE_COLOR,
    add_segments,
    add_surface,
    color_of,
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
        segmentation: baseline, prediction (the outcome if the hematoma expands) and growth, and each kind of bleed
            found beside the hematoma.
        skull: the inside of the skull, if intermediate results were kept.
        predicted: the predicted follow-up CT.
        field: the displacement from baseline to prediction; it moves no node.
        outcomes: for each voxel of a box, the volume in mL of the smallest outcome that reaches it.
        map: over the same box, each voxel's probability in percent to hold blood at follow-up.
        surface: of the outcome at the slider.
        shown: instead of outcomes and map in an earlier version's scene: the field at the slider's scale, which
            moves the baseline's surface.
        followup: the real follow-up CT, registered, if one was compared.
        agreement: where the prediction was right, where too much, and what it missed.
    """

    ATTRIBUTE = "HematomaExpansion.Result"
    PREFIX = "HematomaExpansion"

    skull = member("Skull")
    predicted = member("Predicted")
    field = member("Field")
    outcomes = member("Outcomes")
    map = member("Map")
    shown = member(SHOWN)
    surface = member("Surface")
    followup = member("FollowUp")
    agreement = member("Agreement")

    @property
    def parts(self) -> list[Any]:
        of_growth = [self.predicted, self.field, self.outcomes, self.map, self.shown, self.surface]
        return [self.skull, self.segmentation, *of_growth, self.followup, self.agreement]

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
        """Record a reader's decision on a CT marker; scores and forecast follow."""
        self._take(overruled(self.result, name, present))

    def retell(self, changes: Mapping[str, Any]) -> None:
        """Record that some of ``renewal.told_in`` is known to be otherwise; scores and forecast follow."""
        self._take(retold(self.result, changes))

    def forecast_by(self, package: Any) -> None:
        """Make the forecast by another ``ModelPackage``.

        Raises:
            ModelPackageError: the package is damaged.
        """
        self._take(forecast_by(self.result, package))

    def _take(self, result: dict[str, Any]) -> None:
        """Replace the result by one with a newer forecast; measures and map follow, the images stay."""
        forecast = self.result.get("forecast")
        self.table.SetAttribute(self.ATTRIBUTE, json.dumps(result))
        if result.get("forecast") != forecast:
            _fill_table(self.table, result, self.comparison)
            if self.map is not None and self.outcomes is not None:
                fill_map(self.map, self.outcomes, result)


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
    from HematomaExpansionLib.anatomy.bleeds import Bleeds, labels_on
    from HematomaExpansionLib.forecast.forecast import distribution_of
    from HematomaExpansionLib.growth.growth import Growth
    from HematomaExpansionLib.growth.probability_map import probability_map
    from HematomaExpansionLib.growth.warping import field_on, on_whole_grid
    from HematomaExpansionLib.prediction import Prediction
    from HematomaExpansionLib.scan.mask import Mask

    if run.background is None:
        raise NodeError("The scan of this prediction is no longer in the scene.")
    ct, result = image_from_volume(run.background), run.result
    baseline = _mask_on(ct, run, BASELINE)
    masks = {kind: _mask_on(ct, run, LOOKS[kind].title) for kind in kinds_found(result)}
    masks[Kind.INTRAPARENCHYMAL] = baseline
    parts = [(kind, sitk.GetArrayViewFromImage(mask) > 0) for kind, mask in masks.items()]
    growth, probability, distribution = None, None, distribution_of(result)
    if run.field is not None:
        followup = _mask_on(ct, run, PREDICTED)
        growth = Growth(
            followup_ct=sitk.Cast(image_from_volume(run.predicted), sitk.sitkFloat32),
            followup_mask=Mask(followup),
            displacement=on_whole_grid(ct, field_on(ct, image_from_grid_transform(field_of(run.field)))),
            order=_order_of(run, baseline, followup),
        )
        if distribution is not None:
            probability = probability_map(growth.order, distribution, ct)
    return Prediction(
        baseline_ct=sitk.Cast(ct, sitk.sitkFloat32),
        bleeds=Bleeds.of_result(labels_on(Grid.of(ct), parts), result.get("bleeds")),
        growth=growth,
        growth_probability=probability,
        resampled=run.baseline is not None,
        result=result,
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
        *_bleed_rows(result.get("bleeds") or {}),
    ]
    if growth is not None:
        rows += _forecast_rows(result) if result.get("forecast") else _earlier_rows(result)
        rows += [
            ("ABC/2 if it expands", followup["abc2_ml"], "mL"),
            ("Growth if it expands", growth["absolute_ml"], "mL"),
            ("Relative growth if it expands", 100 * growth["relative"], "%"),
        ]
    if result.get("risk"):
        risk = result["risk"]
        rows.append((f"Probability by {risk['model']['name']}", 100 * risk["probability"], "%"))
    if comparison is not None:
        rows.append(("True follow-up volume", comparison["followup"]["volume_ml"], "mL"))
        if comparison["prediction"] is not None:
            rows += [
                ("Error of the predicted volume", comparison["prediction"]["error_ml"], "mL"),
                ("Growth Dice", comparison["prediction"]["growth_dice"], ""),
                ("Lesion Dice", comparison["prediction"]["lesion_dice"], ""),
            ]
    return [(name, float(value), unit) for name, value, unit in rows if value is not None]


def _bleed_rows(bleeds: Mapping[str, Any]) -> list[tuple[str, float | None, str]]:
    """What was found beside the hematoma, and how probable that is; None for what is not known."""
    probability = bleeds.get("probability_of_hematoma")
    return [
        *[(LOOKS[kind].title, bleeds.get(kind.key), "mL") for kind in BESIDE_HEMATOMA],
        ("Midline shift", bleeds.get("midline_shift_mm"), "mm"),
        ("Probability of a hematoma", None if probability is None else 100 * probability, "%"),
    ]


def _forecast_rows(result: dict[str, Any]) -> list[tuple[str, float | None, str]]:
    """The figures of a forecast; None for the bounds of a probability that has none."""
    forecast = result["forecast"]
    bounds = (forecast["probability_low"], forecast["probability_high"])
    low, high = (None if bound is None else 100 * bound for bound in bounds)
    if_expands = forecast["if_expands"]
    return [
        (f"Probability of expansion: {forecast['definition']}", 100 * forecast["probability_of_expansion"], "%"),
        ("Probability of expansion, lower bound", low, "%"),
        ("Probability of expansion, upper bound", high, "%"),
        *[(f"Follow-up volume, percentile {share}", ml, "mL") for share, ml in forecast["volume_ml"].items()],
        ("Volume if it expands", if_expands["volume_ml"], "mL"),
        ("Volume if it expands, percentile 10", if_expands["low"], "mL"),
        ("Volume if it expands, percentile 90", if_expands["high"], "mL"),
    ]


def _earlier_rows(result: dict[str, Any]) -> list[tuple[str, float | None, str]]:
    """What an earlier version predicted, before there was one forecast."""
    followup, growth = result["followup"], result["growth"]
    return [
        ("Predicted volume", followup["volume_ml"], "mL"),
        ("Predicted volume, lower bound", followup.get("volume_ml_low"), "mL"),
        ("Predicted volume, upper bound", followup.get("volume_ml_high"), "mL"),
        (f"Expansion: {growth['definition']}", float(growth["expansion"]), "1 = yes"),
    ]


# --- making ---------------------------------------------------------------------------------------------


def _add_images(run: PredictionRun, folder: Path, name: str) -> None:
    own_baseline = folder / "baseline-ct.nii.gz"
    if own_baseline.exists():
        run.refer("Baseline", volume_from_image(sitk.ReadImage(str(own_baseline)), f"{name} straightened"))
    if (folder / "inside-skull.nii.gz").exists():
        _add_skull(run, sitk.ReadImage(str(folder / "inside-skull.nii.gz")), f"{name} inside of the skull")
    baseline_mask = sitk.ReadImage(str(folder / "baseline-mask.nii.gz"))
    masks = {BASELINE: (baseline_mask, BEFORE_COLOR)} if np.any(sitk.GetArrayViewFromImage(baseline_mask)) else {}
    if (folder / "followup-mask.nii.gz").exists():
        followup_mask = sitk.ReadImage(str(folder / "followup-mask.nii.gz"))
        masks[PREDICTED] = (followup_mask, AFTER_COLOR)
        masks[GROWTH] = (sitk.And(followup_mask, sitk.Equal(baseline_mask, 0)), _GROWTH_COLOR)
    others = {LOOKS[kind].title: kind for kind in kinds_found(run.result)}
    if others:
        labels = sitk.ReadImage(str(folder / "bleeds.nii.gz"))
        masks |= {title: (sitk.Equal(labels, int(kind)), color_of(kind)) for title, kind in others.items()}
    if not masks:
        return  # nothing was found: the table says so, and there is nothing to show
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{name} hematoma")
    run.refer("Segmentation", segmentation)
    add_segments(segmentation, masks, run.background, others)
    if PREDICTED not in masks:
        return
    followup_ct = sitk.ReadImage(str(folder / "followup-ct.nii.gz"))
    run.refer("Predicted", volume_from_image(followup_ct, f"{name} predicted follow-up CT"))
    use_brain_window(run.predicted)
    displacement = sitk.ReadImage(str(folder / "displacement.nii.gz"))
    run.refer("Field", add_field(displacement, f"{name} displacement"))
    if (folder / "outcomes.nii.gz").exists():
        _add_outcomes(run, sitk.ReadImage(str(folder / "outcomes.nii.gz")), name)
    else:
        _add_morph(run, name)


def _add_skull(run: PredictionRun, inside: sitk.Image, name: str) -> None:
    """Add the inside of the skull, hidden until the user shows it."""
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    run.refer("Skull", segmentation)
    segmentation.CreateDefaultDisplayNodes()
    segmentation.AddSegmentFromBinaryLabelmapRepresentation(labelmap_from_image(inside), name, _SKULL_COLOR)
    segmentation.GetDisplayNode().SetVisibility(False)


def _add_outcomes(run: PredictionRun, order: sitk.Image, name: str) -> None:
    """Add all outcomes, the map of their probability, and the surface of one of them."""
    result = run.result
    run.refer("Outcomes", volume_from_image(order, f"{name} outcomes (mL)"))
    run.refer("Map", add_map(run.outcomes, result, f"{name} probability of blood (%)"))
    surface = outcome_surface(run.outcomes, result["baseline"]["volume_ml"])
    run.refer("Surface", add_surface(surface, f"{name} growing hematoma"))


def _add_morph(run: PredictionRun, name: str) -> None:
    """Add what an earlier version's result has instead: the baseline's surface, which the field moves."""
    surface_name, baseline = f"{name} growing hematoma", run.segment_id(BASELINE)
    run.refer("Surface", add_moving_surface(run.segmentation, baseline, surface_name))


def _fill_table(
    table: slicer.vtkMRMLTableNode, result: dict[str, Any], comparison: dict[str, Any] | None = None
) -> None:
    names, values, units = zip(*measures(result, comparison), strict=True)
    models = ", ".join(f"{model['name']}" for model in result["models"].values())
    columns = {"Measure": names, "Value": values, "Unit": units}
    set_columns(table, columns, f"Research use only. Models: {models}.")


def _order_of(run: PredictionRun, baseline: sitk.Image, followup: sitk.Image) -> sitk.Image:
    """The image of outcomes; of an earlier version's run, the two that it knows."""
    if run.outcomes is not None:
        return sitk.Cast(image_from_volume(run.outcomes), sitk.sitkFloat32)
    result = run.result
    return order_from_masks(baseline, result["baseline"]["volume_ml"], followup, result["followup"]["volume_ml"])


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
