"""Variants on disk, in the layout that training reads: ``<case>/variants/<k>/``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import SimpleITK as sitk
from HematomaExpansionLib.batch.workers import case_workers
from HematomaExpansionLib.errors import HematomaError, InputError
from HematomaExpansionLib.files.folders import check_output_folder, whole_or_nothing
from HematomaExpansionLib.files.provenance import Provenance, content_sha256, is_made_from
from HematomaExpansionLib.progress import Progress, silent
from HematomaExpansionLib.scan.head_ct import read_head_ct
from HematomaExpansionLib.scan.intensities import as_int16
from HematomaExpansionLib.scan.mask import Mask
from HematomaExpansionLib.scan.mask_files import read_given_mask, read_mask
from HematomaExpansionLib.scan.volume_files import stored_sha256, write_image
from HematomaExpansionLib.training.data.case_description import read_description
from HematomaExpansionLib.training.data.cohort import case_folders

from .mask_registration import registration_method
from .target_shapes import TargetOptions
from .variants import Variant, make_variants

SCANS_AND_MASKS = ("baseline", "baseline-mask", "followup", "followup-mask")
"""The files of a case in the layout, without their suffix."""

_PARTS_FILE, _IMAGES = "parts.json", ("ct", "mask", "displacement")

VARIANTS, OWN_CASE = "variants", "case of own files"
"""The kinds of folder, as recorded in their provenance."""

_SCANS = {"baseline": "Baseline", "followup": "Follow-up"}


@dataclass(frozen=True)
class SynthesizedCase:
    """What became of a case: how many of the requested variants it has now, whether it already had them, or why it
    got none.
    """

    case: str
    variants: int
    had_them: bool = False
    reason: str = ""


def synthesize_case(
    case: Path, count: int, options: TargetOptions, seed: int, progress: Progress = silent
) -> SynthesizedCase:
    """Give a case its variants; all of them appear at once and replace any earlier ones of ours.

    A case that already has exactly these, made from the same scan and mask, is left as it is.

    Raises:
        HematomaError: a sentence for the user.
    """
    folder = case / "variants"
    provenance = Provenance(
        VARIANTS,
        {
            **{name: content_sha256(case / f"{name}.nii.gz") for name in ("baseline", "baseline-mask")},
            "number": count,
            "options": {**asdict(options), "family": options.family.value},
            "seed": seed,
            "registration": registration_method(),
        },
    )
    if is_made_from(folder, provenance):
        return SynthesizedCase(case.name, count, had_them=True)
    check_output_folder(folder, VARIANTS)
    progress("reading", 0.0)
    scan = read_head_ct(case / "baseline.nii.gz")
    mask = read_mask(case / "baseline-mask.nii.gz", scan)
    with whole_or_nothing(folder, provenance) as scratch:
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
        "baseline-mask": variant.mask.image,
        "displacement": variant.displacement,
    }
    for name, image in images.items():
        write_image(image, folder / f"{name}.nii.gz")
    text = json.dumps(variant.description, indent=2)
    (folder / "variant.json").write_text(text + "\n", encoding="utf-8")


def synthesize_cohort(
    cohort: Path, count: int, options: TargetOptions, seed: int, jobs: int = 0
) -> Iterator[SynthesizedCase]:
    """Give every case of a cohort its variants, on all cores (or ``jobs``); yields cases as they finish.

    A case that cannot be changed yields its reason, and the others go on.
    """
    cases = case_folders(cohort)
    synthesize = partial(_reported, count, options, seed)
    with case_workers(len(cases), jobs) as pool:
        for done in as_completed([pool.submit(synthesize, number, case) for number, case in enumerate(cases)]):
            yield done.result()


def _reported(count: int, options: TargetOptions, seed: int, number: int, case: Path) -> SynthesizedCase:
    try:
        # Each case has its own seed: the same elements in the same order would bias what is learned.
        return synthesize_case(case, count, options, seed * 100_003 + number)
    except HematomaError as error:
        older = " Its variants of an earlier run are still there." if (case / "variants").is_dir() else ""
        return SynthesizedCase(case.name, 0, reason=f"{error}{older}")


def make_case(
    files: Sequence[tuple[str, Path]],
    folder: Path,
    variants: Iterable[Variant] = (),
    *,
    labels: Mapping[str, str | None] = MappingProxyType({}),
    known: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Make a case folder from the user's own files, given as (name in the layout, file); it appears whole.

    Scans are brought to their true geometry, as everywhere; the follow-up is not registered to the baseline.
    ``variants`` are written beside them, one by one as they come. ``labels``: the hematoma's label, by the name of
    a mask with several labels. ``known``: what ``case.json`` says about the patient; by default the source is
    patients and the follow-up is not registered. Doubts about the scans are recorded there too.

    Raises:
        HematomaError: a sentence for the user.
    """
    given, images, warnings = dict(files), dict[str, sitk.Image](), list[str]()
    for name, told_as in _SCANS.items():
        if name in given:
            scan = read_head_ct(given[name])
            images[name] = as_int16(scan.image)
            warnings += [f"{told_as}: {warning}" for warning in scan.warnings]
            mask = read_given_mask(given.get(f"{name}-mask"), scan, labels.get(f"{name}-mask"))
            if mask is not None:
                images[f"{name}-mask"] = mask.image
    contents = {name: stored_sha256(path) for name, path in given.items()}
    sources = {"files": contents, "labels": dict(labels), "known": dict(known)}
    with whole_or_nothing(folder, Provenance(OWN_CASE, sources)) as scratch:
        for name, image in images.items():
            write_image(image, scratch / f"{name}.nii.gz")
        for number, variant in enumerate(variants, start=1):
            write_variant(variant, scratch / "variants" / str(number))
        description = {"research_use_only": True, "registered": False, "source": "patients", **known}
        if warnings:
            description["warnings"] = warnings
        (scratch / "case.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def write_parts(known: Mapping[str, Any], variants: Iterable[Variant], folder: Path) -> None:
    """Write what ``make_case_of_parts`` needs besides the scans and masks; fast, without compression.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    descriptions = []
    for number, variant in enumerate(variants):
        images = (variant.ct, variant.mask.image, variant.displacement)
        for name, image in zip(_IMAGES, images, strict=True):
            sitk.WriteImage(image, str(folder / f"{name}-{number}.nrrd"))
        descriptions.append(variant.description)
    values = {"known": dict(known), "descriptions": descriptions}
    (folder / _PARTS_FILE).write_text(json.dumps(values), encoding="utf-8")


def make_case_of_parts(parts: Path, folder: Path, progress: Progress = silent) -> None:
    """``make_case`` from what a panel hands over: scans and masks named as in the layout, and ``write_parts``.

    Raises:
        HematomaError: a sentence for the user.
    """
    files = [(name, parts / f"{name}.nrrd") for name in SCANS_AND_MASKS]
    try:
        values = json.loads((parts / _PARTS_FILE).read_text(encoding="utf-8"))
        for _, path in files:
            path.stat()
        known, descriptions = dict(values["known"]), list(values["descriptions"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            "The folder does not hold the parts of a case that Slicer's Export pairs hands over."
        ) from error

    def variants() -> Iterator[Variant]:
        for number, description in enumerate(descriptions):
            progress("writing", (number + 1) / (len(descriptions) + 1))
            ct, mask, displacement = (sitk.ReadImage(str(parts / f"{name}-{number}.nrrd")) for name in _IMAGES)
            yield Variant(ct, Mask(mask), displacement, description)

    make_case(files, folder, variants(), known=known)


def known_of(files: Mapping[str, Path]) -> dict[str, Any]:
    """What is known about the patient of these files (by name in the layout), if the scan is from a cohort's case:
    all that ``case.json`` says, or, with a mask or follow-up from elsewhere, only the source and the hours from
    onset.
    """
    home = files["baseline"].absolute().parent
    own = {name: path.absolute() == home / f"{name}.nii.gz" for name, path in files.items()}
    description = read_description(home) if own["baseline"] else {}
    if all(own.values()):
        return description
    return {name: description[name] for name in ("source", "onset_hours") if name in description}
