"""The nodes of a simulated patient: both scans, and their true hematomas."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import SimpleITK as sitk
import slicer
from HematomaSlicerLib.node_files import Segment
from HematomaSlicerLib.node_images import use_brain_window, volume_from_image
from HematomaSlicerLib.prediction_display import jump_to_largest_slice
from HematomaSlicerLib.scene_nodes import AFTER_COLOR, BEFORE_COLOR, add_segments, move_to_folder

BASELINE, FOLLOWUP = "True hematoma (baseline)", "True hematoma (follow-up)"
_KNOWN, _PATIENT = "HematomaSynthesis.Case", "HematomaSynthesis.Patient"


@dataclass(frozen=True)
class SimulatedPair:
    """Baseline and follow-up on one grid, with the true hematoma of each in one segmentation."""

    baseline: slicer.vtkMRMLScalarVolumeNode
    followup: slicer.vtkMRMLScalarVolumeNode
    segmentation: slicer.vtkMRMLSegmentationNode
    baseline_hematoma: Segment
    followup_hematoma: Segment


def add_patient(case: Path) -> SimulatedPair:
    """Make the nodes of a simulated case (DESIGN section 6), in a folder of the tree."""
    description = json.loads((case / "case.json").read_text(encoding="utf-8"))
    images = {path.name: sitk.ReadImage(str(path)) for path in sorted(case.glob("*.nii.gz"))}
    name = slicer.mrmlScene.GenerateUniqueName(f"Simulated patient {description['seed']}")
    baseline, followup = (
        _volume(images[f"{kind}.nii.gz"], f"{name} {title}", name, description)
        for kind, title in (("baseline", "baseline"), ("followup", "follow-up"))
    )
    masks = {
        BASELINE: (images["baseline-mask.nii.gz"], BEFORE_COLOR),
        FOLLOWUP: (images["followup-mask.nii.gz"], AFTER_COLOR),
    }
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{name} true hematoma")
    add_segments(segmentation, masks, baseline)
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    folder = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), name)
    move_to_folder([baseline, followup, segmentation], folder)
    return SimulatedPair(
        baseline, followup, segmentation, _segment(segmentation, BASELINE), _segment(segmentation, FOLLOWUP)
    )


def look_at(pair: SimulatedPair) -> None:
    """Center every slice view on the largest slice of the baseline hematoma."""
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        composite.SetBackgroundVolumeID(pair.baseline.GetID())
    jump_to_largest_slice(pair.segmentation, pair.baseline_hematoma.segment_id)


def known_of(volume: slicer.vtkMRMLScalarVolumeNode) -> dict[str, Any]:
    """What ``case.json`` says about the simulated patient of this scan; empty for a scan not made here."""
    return json.loads(volume.GetAttribute(_KNOWN) or "{}")


def show_same_patient(first: slicer.vtkMRMLScalarVolumeNode, second: slicer.vtkMRMLScalarVolumeNode) -> bool:
    """Whether two scans show the same simulated patient and so need no registration."""
    return first.GetAttribute(_PATIENT) is not None and first.GetAttribute(_PATIENT) == second.GetAttribute(
        _PATIENT
    )


def _volume(image: sitk.Image, title: str, patient: str, known: dict[str, Any]) -> slicer.vtkMRMLScalarVolumeNode:
    volume = volume_from_image(image, title)
    volume.SetAttribute(_KNOWN, json.dumps(known))
    volume.SetAttribute(_PATIENT, patient)
    use_brain_window(volume)
    return volume


def _segment(segmentation: slicer.vtkMRMLSegmentationNode, name: str) -> Segment:
    return Segment(segmentation, segmentation.GetSegmentation().GetSegmentIdBySegmentName(name))
