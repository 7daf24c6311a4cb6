"""The nodes of a set of synthetic variants; the table of measures carries what ``variant.json`` says of each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import SimpleITK as sitk
import slicer
from HematomaExpansionLib.scan.grid import Grid, oriented
from HematomaSlicerLib.node_group import NodeGroup, member
from HematomaSlicerLib.node_images import image_from_volume, use_brain_window, volume_from_image
from HematomaSlicerLib.scaled_field import SHOWN, add_field, add_moving_surface
from HematomaSlicerLib.scene_nodes import AFTER_COLOR, BEFORE_COLOR, add_segments, set_columns

ORIGINAL = "Hematoma (original)"
_KEPT = "HematomaSynthesis.Kept"


@dataclass(frozen=True)
class Measure:
    """A column of the table of measures: title, short heading, unit, and entry in
    ``variant.json``."""

    title: str
    heading: str
    unit: str
    entry: str


MEASURES = (
    Measure("Volume", "mL", "mL", "volume_ml"),
    Measure("Dice to target", "Dice", "", "dice_to_target"),
    Measure("Smallest Jacobian", "Jacobian", "", "smallest_jacobian"),
    Measure("Largest shift", "Max. mm", "mm", "largest_displacement_mm"),
    Measure("Mean shift of the surface", "Mean mm", "mm", "mean_surface_shift_mm"),
)


class VariantSet(NodeGroup):
    """Synthetic variants of one baseline.

    Attributes:
        segmentation: the original hematoma and that of each variant.
        shown: the field of the variant shown, at the slider's scale; made when it is shown, and not saved.
        moving: the baseline, moved by that field.
        outline: the surface of the original hematoma, moved by that field.
    """

    ATTRIBUTE = "HematomaSynthesis.Variants"
    PREFIX = "HematomaSynthesis"

    shown = member(SHOWN)
    moving = member("Moving")
    outline = member("Outline")

    @property
    def parts(self) -> list[Any]:
        return [*self._needed, self.shown]

    @property
    def _needed(self) -> list[Any]:
        """All but the field shown, which is made when it is."""
        made = [node for k in range(len(self.descriptions)) for node in (self.volume(k), self.field(k))]
        return [self.segmentation, self.moving, self.outline, *made]

    @property
    def descriptions(self) -> list[dict[str, Any]]:
        """What ``variant.json`` says about each variant."""
        return json.loads(self.table.GetAttribute(self.ATTRIBUTE))

    @property
    def kept(self) -> list[bool]:
        """Which variants the user has not rejected."""
        return json.loads(self.table.GetAttribute(_KEPT))

    @property
    def is_whole(self) -> bool:
        """Whether all of its nodes are still in the scene."""
        return all(node is not None for node in (self.background, *self._needed))

    def volume(self, index: int) -> Any:
        """The CT of a variant."""
        return self.node(f"Volume{index}")

    def field(self, index: int) -> Any:
        """The transform of a variant: its displacement, at full scale."""
        return self.node(f"Field{index}")

    def keep(self, index: int, kept: bool) -> None:
        """Keep a variant, or reject it; a rejected one stays in the scene, but is not exported."""
        self.table.SetAttribute(_KEPT, json.dumps([*self.kept[:index], kept, *self.kept[index + 1 :]]))


def variant_name(index: int) -> str:
    """The name of a variant's segment; variants are counted from 1 for the user."""
    return f"Variant {index + 1}"


def measures_of(description: dict[str, Any]) -> list[str]:
    """What a table of variants says about one, in the order of ``MEASURES``."""
    return [f"{description[measure.entry]:.3g}" for measure in MEASURES]


def add_variants(case: Path, scan: slicer.vtkMRMLScalarVolumeNode) -> VariantSet:
    """Make the nodes of the variants in a case's folder (DESIGN section 6), which were made from ``scan``.

    All or nothing: if a file cannot be read, the scene stays as it was.
    """
    folders = sorted(case.glob("variants/*/"), key=lambda folder: int(folder.name))
    descriptions = [json.loads((folder / "variant.json").read_text(encoding="utf-8")) for folder in folders]
    attributes = {VariantSet.ATTRIBUTE: json.dumps(descriptions), _KEPT: json.dumps([True] * len(descriptions))}
    with VariantSet.making(scan, f"{scan.GetName()} variants", attributes) as variants:
        _fill_table(variants.table, descriptions)
        _add_images(variants, case, folders, scan)
    return variants


def _add_images(
    variants: VariantSet, case: Path, folders: list[Path], scan: slicer.vtkMRMLScalarVolumeNode
) -> None:
    name = scan.GetName()
    baseline = sitk.ReadImage(str(case / "baseline.nii.gz"))
    if not Grid.of(oriented(image_from_volume(scan), "LPS")).is_same(Grid.of(baseline)):
        variants.refer("Baseline", volume_from_image(baseline, f"{name} straightened"))
    masks = {ORIGINAL: (sitk.ReadImage(str(case / "baseline-mask.nii.gz")), BEFORE_COLOR)}
    for index, folder in enumerate(folders):
        masks[variant_name(index)] = (sitk.ReadImage(str(folder / "baseline-mask.nii.gz")), AFTER_COLOR)
        ct = sitk.ReadImage(str(folder / "baseline.nii.gz"))
        variants.refer(f"Volume{index}", volume_from_image(ct, f"{name} {variant_name(index).lower()}"))
        use_brain_window(variants.volume(index))
        displacement = sitk.ReadImage(str(folder / "displacement.nii.gz"))
        field = add_field(displacement, f"{name} {variant_name(index).lower()} displacement")
        variants.refer(f"Field{index}", field)
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{name} hematoma, variants")
    variants.refer("Segmentation", segmentation)
    add_segments(segmentation, masks, variants.background or scan)
    _add_moving(variants, baseline, name)


def _add_moving(variants: VariantSet, baseline: sitk.Image, name: str) -> None:
    """Add the baseline and the surface of its hematoma, to be moved by a field that the slider scales."""
    variants.refer("Moving", volume_from_image(baseline, f"{name} changing"))
    use_brain_window(variants.moving)
    outline_name, original = f"{name} changing hematoma", variants.segment_id(ORIGINAL)
    variants.refer("Outline", add_moving_surface(variants.segmentation, original, outline_name))


def _fill_table(table: slicer.vtkMRMLTableNode, descriptions: list[dict[str, Any]]) -> None:
    columns: dict[str, list[Any]] = {"Variant": [variant_name(index) for index in range(len(descriptions))]}
    for measure in MEASURES:
        columns[measure.title] = [float(description[measure.entry]) for description in descriptions]
    set_columns(table, columns, "Synthetic variants. Research use only.")
    for measure in MEASURES:
        table.SetColumnUnitLabel(measure.title, measure.unit)
