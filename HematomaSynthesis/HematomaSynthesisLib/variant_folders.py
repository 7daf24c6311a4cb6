"""Variants on disk, in the layout that training reads: ``<case>/variants/<k>/``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import SimpleITK as sitk
from HematomaExpansionLib.errors import HematomaError
from HematomaExpansionLib.folders import check_output_folder, whole_or_nothing
from HematomaExpansionLib.head_ct import read_head_ct
from HematomaExpansionLib.masks import read_given_mask, read_mask
from HematomaExpansionLib.prediction_folder import as_int16
from HematomaExpansionLib.progress import Progress, silent
from HematomaExpansionLib.provenance import Provenance
from HematomaExpansionLib.training.cohort import case_folders
from HematomaExpansionLib.volume_files import write_image
from HematomaExpansionLib.workers import case_workers

from .target_shapes import TargetOptions
from .variants import Variant, make_variants

VARIANTS, OWN_CASE = "variants", "case of own files"
"""The kinds of folder, as their provenance says."""


@dataclass(frozen=True)
class SynthesizedCase:
    """What became of a case: how many variants it has now, or why it has none."""

    case: str
    variants: int
    reason: str = ""


def synthesize_case(
    case: Path, count: int, options: TargetOptions, seed: int, progress: Progress = silent
) -> SynthesizedCase:
    """Give a case its variants; all of them appear at once. A case that has as many already is left as it is.

    Raises:
        HematomaError: a sentence for the user.
    """
    folder = case / "variants"
    if len(list(folder.glob("*/variant.json"))) == count:
        return SynthesizedCase(case.name, count)
    check_output_folder(folder, VARIANTS)
    progress("reading", 0.0)
    scan = read_head_ct(case / "baseline.nii.gz")
    mask = read_mask(case / "baseline-mask.nii.gz", scan)
    with whole_or_nothing(folder, Provenance(VARIANTS)) as scratch:
        progress("changing the hematoma", 0.05)
        for number, variant in enumerate(make_variants(scan.image, mask, count, options, seed), start=1):
            write_variant(variant, scratch / str(number))
            progress("changing the hematoma", 0.05 + 0.95 * number / count)
    return SynthesizedCase(case.name, count)


def write_variant(variant: Variant, folder: Path) -> None:
    """The files of one variant: CT and mask on the scan's grid, the displacement around the hematoma."""
    folder.mkdir(parents=True)
    images = {
        "baseline": as_int16(variant.ct),
        "baseline-mask": variant.mask,
        "displacement": variant.displacement,
    }
    for name, image in images.items():
        write_image(image, folder / f"{name}.nii.gz")
    text = json.dumps(variant.description, indent=2)
    (folder / "variant.json").write_text(text + "\n", encoding="utf-8")


def synthesize_cohort(
    cohort: Path, count: int, options: TargetOptions, seed: int, jobs: int = 0
) -> Iterator[SynthesizedCase]:
    """Give every case of a cohort its variants, on all cores (or ``jobs``); yields as cases are done.

    A case that cannot be changed is a line with its reason, and the others go on.
    """
    cases = case_folders(cohort)
    synthesize = partial(_reported, count, options, seed)
    with case_workers(len(cases), jobs) as pool:
        for done in as_completed([pool.submit(synthesize, number, case) for number, case in enumerate(cases)]):
            yield done.result()


def _reported(count: int, options: TargetOptions, seed: int, number: int, case: Path) -> SynthesizedCase:
    try:
        # Cases differ in their seeds: the same elements in the same order would bias what is learned.
        return synthesize_case(case, count, options, seed * 100_003 + number)
    except HematomaError as error:
        return SynthesizedCase(case.name, 0, str(error))


def make_case(
    files: Sequence[tuple[str, Path]],
    folder: Path,
    variants: Iterable[Variant] = (),
    *,
    source: str = "patients",
    registered: bool = False,
    labels: Mapping[str, str | None] = MappingProxyType({}),
) -> None:
    """A case folder of the user's own files: names in the layout, and the file for each; it appears whole.

    Scans are brought to their true geometry as everywhere; the follow-up is not registered to the baseline.
    ``variants`` are written beside it, one by one as they come. ``labels``: for the name of a mask of several
    labels, that of the hematoma.

    Raises:
        HematomaError: a sentence for the user.
    """
    given, images = dict(files), dict[str, sitk.Image]()
    for name in ("baseline", "followup"):
        if name in given:
            scan = read_head_ct(given[name])
            images[name] = as_int16(scan.image)
            mask = read_given_mask(given.get(f"{name}-mask"), scan, labels.get(f"{name}-mask"))
            if mask is not None:
                images[f"{name}-mask"] = mask
    with whole_or_nothing(folder, Provenance(OWN_CASE)) as scratch:
        for name, image in images.items():
            write_image(image, scratch / f"{name}.nii.gz")
        for number, variant in enumerate(variants, start=1):
            write_variant(variant, scratch / "variants" / str(number))
        description = {"research_use_only": True, "registered": registered, "source": source}
        (scratch / "case.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
