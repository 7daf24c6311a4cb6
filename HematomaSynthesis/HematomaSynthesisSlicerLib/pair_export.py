"""The kept variants with their original and its follow-up, written as a case for training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import SimpleITK as sitk
import slicer
from HematomaExpansionLib.progress import Progress
from HematomaSlicerLib.background import BackgroundCommand, Outcome
from HematomaSlicerLib.jobs import start_job
from HematomaSlicerLib.node_files import Segment, write_segment, write_volume
from HematomaSlicerLib.node_images import (
    NodeError,
    image_from_grid_transform,
    image_from_segment,
    image_from_volume,
)
from HematomaSlicerLib.scaled_field import field_of

from .patient_nodes import known_of, show_same_patient
from .variant_nodes import ORIGINAL, VariantSet, variant_name

if TYPE_CHECKING:
    from HematomaSynthesisLib.variants import Variant


def start_export(
    variants: VariantSet,
    followup: slicer.vtkMRMLScalarVolumeNode,
    followup_hematoma: Segment,
    cohort: Path,
    progress: Progress,
    ended: Callable[[Outcome, Path | None], None],
) -> BackgroundCommand:
    """Write a case into a cohort's folder (DESIGN section 6), under a new number, in the background; ``ended``
    gets the case's folder.

    Raises:
        NodeError: no variant was kept, or a node is missing or empty.
    """
    from HematomaSynthesisLib.variant_folders import write_parts

    background = variants.background
    if background is None or variants.segmentation is None:
        raise NodeError("The scan of these variants is no longer in the scene.")
    if not any(variants.kept):
        raise NodeError("No variant is kept: check the ones to export.")
    names = (f"case-{number:03d}" for number in count(1))
    target = next(cohort / name for name in names if not (cohort / name).exists())
    original = Segment(variants.segmentation, variants.segment_id(ORIGINAL))

    def arguments(folder: Path) -> list[str]:
        write_volume(background, folder / "baseline.nrrd")
        write_segment(original, folder / "baseline-mask.nrrd")
        write_volume(followup, folder / "followup.nrrd")
        write_segment(followup_hematoma, folder / "followup-mask.nrrd")
        write_parts(_known(variants.scan or background, followup), _kept(variants), folder)
        return ["export-pairs", "-i", str(folder), "-o", str(target)]

    return start_job(arguments, lambda _folder: target, progress, ended)


def _known(scan: slicer.vtkMRMLScalarVolumeNode, followup: slicer.vtkMRMLScalarVolumeNode) -> dict[str, Any]:
    """All that is known about a simulated patient; with another's follow-up, only what holds for the scan."""
    known = known_of(scan)
    if show_same_patient(scan, followup):
        return known
    return {name: known[name] for name in ("source", "onset_hours") if name in known}


def _kept(variants: VariantSet) -> Iterator[Variant]:
    from HematomaExpansionLib.scan.grid import Grid
    from HematomaExpansionLib.scan.mask import Mask
    from HematomaExpansionLib.scan.resampling import resample
    from HematomaSynthesisLib.variants import Variant

    kept = variants.kept
    for index, description in enumerate(variants.descriptions):
        if not kept[index]:
            continue
        if variants.volume(index) is None or variants.field(index) is None:
            raise NodeError(f"{variant_name(index)} is incomplete in the scene: reject it, or make it again.")
        ct = sitk.Cast(image_from_volume(variants.volume(index)), sitk.sitkFloat32)
        mask = image_from_segment(variants.segmentation, variants.segment_id(variant_name(index)))
        displacement = image_from_grid_transform(field_of(variants.field(index)))
        yield Variant(
            ct=ct,
            mask=Mask(resample(mask, Grid.of(ct), interpolator=sitk.sitkNearestNeighbor)),
            displacement=sitk.Cast(displacement, sitk.sitkVectorFloat32),
            description=description,
        )
