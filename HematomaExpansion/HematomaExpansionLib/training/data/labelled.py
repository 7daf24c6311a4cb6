"""Single scans in which the class of each voxel is known (``anatomy.bleeds``): kinds of bleeds, and ventricles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ...anatomy.bleeds import VENTRICLES, Bleeds, Kind
from ...anatomy.brain import extract_brain
from ...errors import InputError
from ...scan.grid import Grid, oriented
from ...scan.head_ct import read_head_ct
from ...scan.mask import Mask
from .case_description import read_description

CLASSES_FILE = "baseline-bleeds.nii.gz"
SIMULATED_HEAD = "icbm"
"""How the name of a simulated head begins; a real one is named by the checksum of its scan."""


@dataclass(frozen=True, eq=False)
class LabelledScan:
    """A scan: CT in HU, inside of the skull, and the class of each voxel (uint8), all on one grid."""

    name: str
    ct: sitk.Image
    inside_skull: Mask
    classes: sitk.Image

    @property
    def bleeds(self) -> Bleeds:
        """The bleeds alone."""
        kinds = sitk.Mask(self.classes, self.classes <= int(max(Kind)))
        return Bleeds(kinds, frozenset(Kind))


def is_labelled(folder: Path) -> bool:
    """Whether a case is a single scan with the class of each voxel."""
    return (folder / CLASSES_FILE).is_file()


def read_labelled(folder: Path) -> LabelledScan:
    """Read one such case.

    Raises:
        HematomaError: the scan is faulty, or the classes do not fit it.
    """
    scan = read_head_ct(folder / "baseline.nii.gz")
    try:
        classes = oriented(sitk.Cast(sitk.ReadImage(str(folder / CLASSES_FILE)), sitk.sitkUInt8), "LPS")
    except RuntimeError as error:
        raise InputError(f"{CLASSES_FILE} of the case cannot be read: write it again.") from error
    values = sitk.GetArrayViewFromImage(classes)
    if not Grid.of(classes).is_same(scan.grid) or values.max() > VENTRICLES:
        raise InputError(
            f"{CLASSES_FILE} of the case does not fit its scan: it must lie on the same grid and hold 0 to "
            f"{VENTRICLES}."
        )
    return LabelledScan(folder.name, scan.image, extract_brain(scan.image).mask, classes)


def head_of(folder: Path) -> str:
    """Whose head a scan shows: all scans of one head must stay on the same side of a split."""
    return str(read_description(folder).get("head", folder.name))


def split_by_head(folders: Sequence[Path], validation_share: float, seed: int) -> tuple[list[Path], list[Path]]:
    """Training and validation scans; no head is in both.

    Raises:
        InputError: there are fewer than two heads.
    """
    heads = [head_of(folder) for folder in folders]
    names = list(dict.fromkeys(heads))
    if len(names) < 2:
        raise InputError("Training needs scans of at least two heads: one to learn from, one to validate on.")
    # Real heads are few and simulated ones many: the same share of each.
    chosen: set[str] = set()
    simulated = [name for name in names if name.startswith(SIMULATED_HEAD)]
    for group in ([name for name in names if name not in simulated], simulated):
        order = np.random.default_rng(seed).permutation(len(group))
        chosen |= {group[k] for k in order[: round(validation_share * len(group))]}
    chosen = chosen or {names[0]}
    sides = [head in chosen for head in heads]
    return (
        [folder for folder, aside in zip(folders, sides, strict=True) if not aside],
        [folder for folder, aside in zip(folders, sides, strict=True) if aside],
    )
