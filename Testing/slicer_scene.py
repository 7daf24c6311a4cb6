"""Slicer's real MRML scene without the application, and predictions of known truth to put into it."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from HematomaExpansionLib.anatomy.bleeds import Bleeds, Kind, Presence
from HematomaExpansionLib.anatomy.midline import Midline
from HematomaExpansionLib.forecast.facts import Facts
from HematomaExpansionLib.forecast.forecast import Circumstances, ForecastModel, make_forecast
from HematomaExpansionLib.growth.outcomes import NEVER_ML, mask_of_outcome
from HematomaExpansionLib.growth.probability_map import probability_map
from HematomaExpansionLib.growth.warping import with_part
from HematomaExpansionLib.models.package import find_package
from HematomaExpansionLib.scan.grid import Grid, image_on
from phantoms import positions, volume_ml

RADIUS_MM, GROWN = 12.0, 1 / 0.75
_BOX_MARGIN = (3, 2, 1)
"""Voxels of the scan's grid on each side that the image of outcomes does not cover."""

DIRECTIONS: dict[str, Sequence[float]] = {
    "LPS": (1, 0, 0, 0, 1, 0, 0, 0, 1),
    "RAS": (-1, 0, 0, 0, -1, 0, 0, 0, 1),
    "left-handed": (1, 0, 0, 0, 1, 0, 0, 0, -1),
    "axes exchanged": (0, 0, 1, 1, 0, 0, 0, 1, 0),
    "oblique": (0.936, -0.275, 0.218, 0.289, 0.956, -0.037, -0.199, 0.098, 0.975),
}


def grid(direction: str) -> Grid:
    """48 × 44 × 20 voxels of 1.2 × 1.2 × 3 mm, somewhere in the patient."""
    first, _, third = np.linalg.svd(np.array(DIRECTIONS[direction], dtype=float).reshape(3, 3))
    straight = (first @ third).ravel().tolist()
    return Grid((48, 44, 20), (1.2, 1.2, 3.0), (11.0, -35.0, 60.0), tuple(straight))


def sphere(where: Grid, radius: float = RADIUS_MM) -> sitk.Image:
    """A 0/1 ball in the middle of the grid."""
    return image_on(where, (_offsets(where, np.zeros(3)) < radius).astype(np.uint8))


def ct(where: Grid) -> sitk.Image:
    """Brain with that ball of blood in it, and noise, in HU."""
    noise = np.random.default_rng(0).normal(scale=3, size=where.shape)
    return image_on(where, (35 + 30 * (_offsets(where, np.zeros(3)) < RADIUS_MM) + noise).astype(np.int16))


def growth_field(where: Grid, reach_mm: float = 30.0) -> sitk.Image:
    """Pull-back in LPS mm that makes the ball 1/0.75 as wide and fades out beyond it; by default, as far as the
    grid's sides."""
    offset = positions(where) - _middle(where)
    distance = np.linalg.norm(offset, axis=-1, keepdims=True)
    fading = np.clip((reach_mm - distance) / (reach_mm - RADIUS_MM * GROWN), 0, 1)
    return image_on(where, (1 / GROWN - 1) * offset * fading)


def ball_order(where: Grid) -> sitk.Image:
    """Outcomes that are all balls, on a box of the grid: the volume in mL of the smallest that reaches a voxel."""
    size = [n - 2 * margin for n, margin in zip(where.size, _BOX_MARGIN, strict=True)]
    offsets = sitk.RegionOfInterest(image_on(where, _offsets(where, np.zeros(3))), size, _BOX_MARGIN)
    distance = sitk.GetArrayFromImage(offsets)
    ranks = np.empty(distance.size, np.float32)
    ranks[np.argsort(distance, axis=None, kind="stable")] = np.arange(1, distance.size + 1)
    order = ranks.reshape(distance.shape) * where.voxel_volume_ml
    sides = np.ones(distance.shape, bool)
    sides[1:-1, 1:-1, 1:-1] = False
    order[distance >= distance[sides].min()] = NEVER_ML  # only whole balls
    return image_on(Grid.of(offsets), order)


def write_result(folder: Path, direction: str) -> dict[str, Any]:
    """The folder that ``hematoma predict`` would leave; returns its ``prediction.json``."""
    where = grid(direction)
    folder.mkdir()
    order, baseline = ball_order(where), sphere(where)
    result = _result(where, baseline)
    result |= {"format": 2, "risk": None}
    values = sitk.GetArrayViewFromImage(order)
    around = Circumstances(network_growth=0.5, largest_ml=float(values[values < NEVER_ML].max()))
    package = find_package(None, "forecast")
    forecast = make_forecast(ForecastModel.of(package), Facts.of_result(result), around)
    followup = with_part(baseline, mask_of_outcome(order, forecast.if_expands_ml).image)
    before, after = volume_ml(baseline), volume_ml(followup)
    result |= {
        "forecast": forecast.described,
        "followup": {"volume_ml": after, "abc2_ml": 16.0},
        "growth": {"absolute_ml": after - before, "relative": after / before - 1, "detectable": True},
        "models": {**result["models"], "forecast": package.identity},
    }
    sitk.WriteImage(order, folder / "outcomes.nii.gz")
    probability = probability_map(order, forecast.distribution, baseline)
    sitk.WriteImage(probability, folder / "growth-probability.nii.gz")
    _write_images(folder, where, baseline, followup)
    (folder / "prediction.json").write_text(json.dumps(result))
    return result


def add_bleeds(folder: Path, direction: str) -> sitk.Image:
    """Let a result hold all kinds of bleeds, as balls beside the hematoma; returns the label map."""
    where = grid(direction)
    hematoma = sitk.GetArrayFromImage(sphere(where)) > 0
    labels = np.zeros(where.shape, np.uint8)
    shifts = {Kind.INTRAVENTRICULAR: (20.0, 0.0, 0.0), Kind.EXTRAAXIAL: (0.0, -18.0, 0.0)}
    labels[_offsets(where, np.zeros(3)) < RADIUS_MM + 3] = Kind.EDEMA
    for kind, shift in shifts.items():
        labels[_offsets(where, np.array(shift)) < 7.0] = kind
    labels[hematoma] = Kind.INTRAPARENCHYMAL
    midline = Midline(3.4, (3.4, 0.0, 0.0), (0.0, -60.0, 0.0), (0.0, 60.0, 0.0))
    bleeds = Bleeds(image_on(where, labels), frozenset(Kind), Presence(0.97, 10), midline)
    sitk.WriteImage(bleeds.labels, folder / "bleeds.nii.gz")
    result = json.loads((folder / "prediction.json").read_text())
    (folder / "prediction.json").write_text(json.dumps({**result, "bleeds": bleeds.described}))
    return bleeds.labels


def write_earlier_result(folder: Path, direction: str) -> dict[str, Any]:
    """The folder that ``hematoma predict`` left before there was one forecast; returns its ``prediction.json``."""
    where = grid(direction)
    folder.mkdir()
    moved = np.linalg.norm(
        positions(where) + sitk.GetArrayFromImage(growth_field(where)) - _middle(where), axis=-1
    )
    baseline, followup = sphere(where), image_on(where, (moved < RADIUS_MM).astype(np.uint8))
    before, after = volume_ml(baseline), volume_ml(followup)
    result = _result(where, baseline)
    result |= {
        "followup": {
            "volume_ml": after,
            "abc2_ml": 16.0,
            "volume_ml_low": after - 2,
            "volume_ml_high": after + 3,
        },
        "growth": {
            "absolute_ml": after - before,
            "relative": after / before - 1,
            "expansion": True,
            "definition": 'growth > 6 mL or > 33 % of baseline: "; & <',
            "detectable": True,
        },
        "risk": {"probability": 0.7, "model": result["models"]["growth"]},
    }
    _write_images(folder, where, baseline, followup)
    (folder / "prediction.json").write_text(json.dumps(result))
    return result


def _write_images(folder: Path, where: Grid, baseline: sitk.Image, followup: sitk.Image) -> None:
    for name, content in {
        "baseline-mask": baseline,
        "followup-mask": followup,
        "followup-ct": ct(where),
        "displacement": growth_field(where),
    }.items():
        sitk.WriteImage(content, folder / f"{name}.nii.gz")


def _result(where: Grid, baseline: sitk.Image) -> dict[str, Any]:
    """What does not depend on the forecast."""
    model = {"name": "made", "version": "1", "sha256": "0", "trained_on": "nothing"}
    return {
        "research_use_only": True,
        "software": {"name": "HematomaExpansion", "version": "0"},
        "input": {"size": list(where.size), "spacing_mm": list(where.spacing), "warnings": []},
        "baseline": {
            "volume_ml": volume_ml(baseline),
            "abc2_ml": 7.0,
            "abc2_simplified_ml": 8.0,
            "a_mm": 24.0,
            "b_mm": 24.0,
            "c_mm": 24.0,
        },
        "markers": {
            name: {
                "present": name == "swirl",
                "evidence": {"area_mm2": 40.0, "enclosed_share": 0.5},
                "place_mm": [float(value) for value in _middle(where)] if name == "swirl" else None,
            }
            for name in ("hypodensity", "swirl", "black_hole", "blend", "irregular")
        },
        "scores": {
            "bat": {
                "blend": 0,
                "hypodensity": 2,
                "time": None,
                "total": None,
                "total_if_early": 4,
                "total_if_late": 2,
            },
            "brain": None,
        },
        "models": {"segmentation": model, "growth": model},
        "timing_s": {"total": 1.0},
        "device": "cpu",
    }


def complete(scene: Any) -> None:
    """Add to a scene what the application's own module of colors brings: legends, and a color table."""
    import slicer
    from matplotlib import colormaps

    scene.RegisterNodeClass(slicer.vtkMRMLColorLegendDisplayNode())
    table = slicer.vtkMRMLColorTableNode()
    table.SetSingletonTag("FilePlasma.txt")  # which gives its ID
    table.SetName("Plasma")
    table.SetTypeToUser()
    table.SetSaveWithScene(False)
    table.SetNumberOfColors(256)
    for k, color in enumerate(colormaps["plasma"](np.arange(256))):
        table.SetColor(k, str(k), *color[:3], 1.0)
    scene.AddNode(table)


def overlap(first: sitk.Image, second: sitk.Image) -> float:
    """Dice of two masks, the first resampled onto the second's grid."""
    a = sitk.GetArrayFromImage(sitk.Resample(first, second, sitk.Transform(), sitk.sitkNearestNeighbor)) > 0
    b = sitk.GetArrayFromImage(second) > 0
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def nodes(scene: Any) -> Counter[str]:
    """How many nodes of each class are in the scene."""
    return Counter(scene.GetNthNode(k).GetClassName() for k in range(scene.GetNumberOfNodes()))


def drawn(scene: Any, mask: sitk.Image) -> Any:
    """A segment as if the user had drawn it."""
    from HematomaSlicerLib.node_files import Segment
    from HematomaSlicerLib.node_images import labelmap_from_image

    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    segmentation.CreateDefaultDisplayNodes()
    return Segment(
        segmentation, segmentation.AddSegmentFromBinaryLabelmapRepresentation(labelmap_from_image(mask), "blood")
    )


def segment_image(group: Any, name: str) -> sitk.Image:
    """The segment with that name in a prediction or a set of variants."""
    from HematomaSlicerLib.node_images import image_from_segment

    return image_from_segment(group.segmentation, group.segment_id(name))


def save_scene(scene: Any, path: Path) -> bool:
    """Save the scene as an .mrb file, as Slicer's own dialog does."""
    for index in range(scene.GetNumberOfNodes()):
        node = scene.GetNthNode(index)
        if node.IsA("vtkMRMLStorableNode") and node.GetSaveWithScene() and node.GetStorageNode() is None:
            node.AddDefaultStorageNode()
    return bool(scene.WriteToMRB(str(path)))


def end_of(
    application: Any,
    start: Callable[..., Any],
    *arguments: Any,
    told: Callable[..., Any] = lambda _command, _stage, _fraction: None,
) -> tuple[Any, Any]:
    """Start a background job and wait for its end; returns the outcome, and what was added to the scene.

    ``told`` gets the command, and the stage and fraction that it reports.
    """
    ended: list[Any] = []
    command = start(*arguments, lambda *stage: told(command, *stage), lambda *end: ended.append(end))
    assert not command.is_over, "the window would wait for it"
    wait_for(application, ended)
    (end,) = ended
    return end


def added_by(application: Any, start: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What a job that goes well adds to the scene; see ``end_of``."""
    outcome, added = end_of(application, start, *arguments, **options)
    assert outcome.finished, outcome
    return added


def wait_for(application: Any, ended: list[Any], seconds: float = 120) -> None:
    """Process Qt's events until the list holds something."""
    deadline = time.monotonic() + seconds
    while not ended and time.monotonic() < deadline:
        application.processEvents()
        time.sleep(0.01)
    assert ended, "the command did not end"


def _middle(where: Grid) -> np.ndarray:
    return where.point([(n - 1) / 2 for n in where.size])


def _offsets(where: Grid, shift: np.ndarray) -> np.ndarray:
    return np.linalg.norm(positions(where) - _middle(where) - shift, axis=-1)
