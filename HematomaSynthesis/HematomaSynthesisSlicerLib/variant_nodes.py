"""The nodes of one set of synthetic variants: made, found again after the scene was reopened, and removed.

The table of measures stands for the set: it refers to the other nodes and carries what ``variant.json`` says of
each variant in an attribute, so a saved scene holds everything.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import SimpleITK as sitk
import slicer
from HematomaExpansionLib.scan.grid import Grid
from HematomaSlicerLib.node_images import (
    grid_transform_from_image,
    image_from_volume,
    use_brain_window,
    volume_from_image,
)
from HematomaSlicerLib.scaled_field import add_moving_surface, add_scaled
from HematomaSlicerLib.scene_nodes import (
    add_segments,
    add_table,
    move_to_folder,
    new_folder_beside,
    remove_group,
    set_columns,
    tables_with,
)

ORIGINAL = "Hematoma (original)"
ORIGINAL_COLOR, VARIANT_COLOR, MOVING_COLOR = (1.0, 0.82, 0.12), (1.0, 0.30, 0.37), (1.0, 0.55, 0.1)
VARIANTS_ATTRIBUTE = "HematomaSynthesis.Variants"
_KEPT = "HematomaSynthesis.Kept"
_OWN = ("Segmentation", "Shown", "Moving", "Outline")


@dataclass(frozen=True)
class Measure:
    """A column of the table of measures: title, heading where there is little room, unit, and entry in
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


@dataclass(frozen=True)
class VariantSet:
    """Synthetic variants of one baseline.

    Attributes:
        table: measures; refers to all the others.
        scan: the user's volume; None when it was removed.
        baseline: the scan on whose grid the variants lie, where that is not the user's volume.
        segmentation: the original hematoma and that of each variant.
        shown: the field of the variant that is looked at, at the scale that the slider chose.
        moving: the baseline under it.
        outline: the surface of the original hematoma under it.
    """

    table: slicer.vtkMRMLTableNode

    @property
    def descriptions(self) -> list[dict[str, Any]]:
        """What ``variant.json`` says, for each variant."""
        return json.loads(self.table.GetAttribute(VARIANTS_ATTRIBUTE))

    @property
    def kept(self) -> list[bool]:
        """Which variants the user has not rejected."""
        return json.loads(self.table.GetAttribute(_KEPT))

    @property
    def scan(self) -> slicer.vtkMRMLScalarVolumeNode | None:
        return self._node("Scan")

    @property
    def baseline(self) -> slicer.vtkMRMLScalarVolumeNode | None:
        return self._node("Baseline")

    @property
    def background(self) -> Any:
        """The original scan on the grid of the variants; None when it was removed."""
        return self.baseline or self.scan

    @property
    def segmentation(self) -> Any:
        return self._node("Segmentation")

    @property
    def shown(self) -> Any:
        return self._node("Shown")

    @property
    def moving(self) -> Any:
        return self._node("Moving")

    @property
    def outline(self) -> Any:
        return self._node("Outline")

    def volume(self, index: int) -> Any:
        """The CT of a variant."""
        return self._node(f"Volume{index}")

    def field(self, index: int) -> Any:
        """The transform of a variant: its displacement, at full scale."""
        return self._node(f"Field{index}")

    def segment_id(self, name: str) -> str:
        """The ID of one of its segments; empty where there is none of that name."""
        return self.segmentation.GetSegmentation().GetSegmentIdBySegmentName(name) if self.segmentation else ""

    @property
    def nodes(self) -> list[slicer.vtkMRMLNode]:
        """All nodes that belong to the set, the user's scan not being one."""
        own = [self.baseline, *self._parts, self.table]
        return [node for node in own if node is not None]

    @property
    def is_whole(self) -> bool:
        """Whether all of its nodes are still in the scene."""
        return all(node is not None for node in (self.background, *self._parts))

    def keep(self, index: int, kept: bool) -> None:
        """Keep a variant, or reject it; a rejected one stays in the scene, but is not exported."""
        self.table.SetAttribute(_KEPT, json.dumps([*self.kept[:index], kept, *self.kept[index + 1 :]]))

    @property
    def _parts(self) -> list[Any]:
        """What every set has; None in place of a node that was removed."""
        made = [node for k in range(len(self.descriptions)) for node in (self.volume(k), self.field(k))]
        return [*(self._node(name) for name in _OWN), *made]

    def _node(self, name: str) -> Any:
        return self.table.GetNodeReference(_role(name))


def variant_name(index: int) -> str:
    """The name of a variant's segment; variants are counted from 1 for the user."""
    return f"Variant {index + 1}"


def measures_of(description: dict[str, Any]) -> list[str]:
    """What a table of variants says of one, in the order of ``MEASURES``."""
    return [f"{description[measure.entry]:.3g}" for measure in MEASURES]


def add_variants(case: Path, scan: slicer.vtkMRMLScalarVolumeNode) -> VariantSet:
    """Make the nodes of the variants in a case's folder (DESIGN section 6), made from ``scan``.

    All or none: if a file cannot be read, the scene is left as it was.
    """
    folders = sorted(case.glob("variants/*/"), key=lambda folder: int(folder.name))
    descriptions = [json.loads((folder / "variant.json").read_text(encoding="utf-8")) for folder in folders]
    name = scan.GetName()
    attributes = {VARIANTS_ATTRIBUTE: json.dumps(descriptions), _KEPT: json.dumps([True] * len(descriptions))}
    table = add_table(f"{name} variants", attributes)
    variants = VariantSet(table)
    try:
        _refer(variants, "Scan", scan)
        _fill_table(table, descriptions)
        _add_images(variants, case, folders, scan)
        move_to_folder(variants.nodes, new_folder_beside(scan, table.GetName()))
    except Exception:
        remove_variants(variants)
        raise
    return variants


def is_set(table: slicer.vtkMRMLTableNode | None) -> bool:
    """Whether this table stands for a set of variants."""
    return table is not None and bool(table.GetAttribute(VARIANTS_ATTRIBUTE))


def find_sets() -> list[VariantSet]:
    """Every set in the scene, the latest last."""
    return [VariantSet(table) for table in tables_with(VARIANTS_ATTRIBUTE)]


def remove_variants(variants: VariantSet) -> None:
    """Remove the set's nodes, with what only they use, and its folder in the tree."""
    remove_group(variants.table, variants.nodes)


def _add_images(
    variants: VariantSet, case: Path, folders: list[Path], scan: slicer.vtkMRMLScalarVolumeNode
) -> None:
    name = scan.GetName()
    baseline = sitk.ReadImage(str(case / "baseline.nii.gz"))
    if not Grid.of(sitk.DICOMOrient(image_from_volume(scan), "LPS")).is_same(Grid.of(baseline)):
        _refer(variants, "Baseline", volume_from_image(baseline, f"{name} straightened"))
    masks = {ORIGINAL: (sitk.ReadImage(str(case / "baseline-mask.nii.gz")), ORIGINAL_COLOR)}
    for index, folder in enumerate(folders):
        masks[variant_name(index)] = (sitk.ReadImage(str(folder / "baseline-mask.nii.gz")), VARIANT_COLOR)
        ct = sitk.ReadImage(str(folder / "baseline.nii.gz"))
        volume = volume_from_image(ct, f"{name} {variant_name(index).lower()}")
        _refer(variants, f"Volume{index}", volume)
        use_brain_window(volume)
        field = slicer.mrmlScene.AddNewNodeByClass(
            "vtkMRMLGridTransformNode", f"{name} {variant_name(index).lower()} displacement"
        )
        _refer(variants, f"Field{index}", field)
        displacement = sitk.ReadImage(str(folder / "displacement.nii.gz"))
        field.SetAndObserveTransformFromParent(grid_transform_from_image(displacement))
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{name} hematoma, variants")
    _refer(variants, "Segmentation", segmentation)
    add_segments(segmentation, masks, variants.background or scan)
    _add_moving(variants, baseline, name)


def _add_moving(variants: VariantSet, baseline: sitk.Image, name: str) -> None:
    """Under a field that the slider scales: the baseline, and the surface of its hematoma."""
    shown = add_scaled(variants.field(0), f"{name} change shown")
    _refer(variants, "Shown", shown)
    moving = volume_from_image(baseline, f"{name} changing")
    _refer(variants, "Moving", moving)
    use_brain_window(moving)
    moving.SetAndObserveTransformNodeID(shown.GetID())
    outline = add_moving_surface(
        variants.segmentation, variants.segment_id(ORIGINAL), shown, f"{name} changing hematoma", MOVING_COLOR
    )
    _refer(variants, "Outline", outline)


def _fill_table(table: slicer.vtkMRMLTableNode, descriptions: list[dict[str, Any]]) -> None:
    columns: dict[str, list[Any]] = {"Variant": [variant_name(index) for index in range(len(descriptions))]}
    for measure in MEASURES:
        columns[measure.title] = [float(description[measure.entry]) for description in descriptions]
    set_columns(table, columns, "Synthetic variants. Research use only.")
    for measure in MEASURES:
        table.SetColumnUnitLabel(measure.title, measure.unit)


def _refer(variants: VariantSet, name: str, node: slicer.vtkMRMLNode) -> None:
    variants.table.SetNodeReferenceID(_role(name), node.GetID())


def _role(name: str) -> str:
    return f"HematomaSynthesis.{name}"
