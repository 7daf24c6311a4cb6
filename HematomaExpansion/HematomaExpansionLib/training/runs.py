"""What a model is made from, and whose scans it has seen.

Training resumes from checkpoints, or takes an existing model as its result, only if they were made from the same
sources: cases (by content), options, seed, starting models, and versions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files.folders import check_output_folder
from ..files.provenance import Provenance, content_sha256, is_made_from, read_provenance, write_provenance
from ..models.package import DESCRIPTION_FILE, PACKAGE, TRAINING_FOLDER, ModelPackage, open_package

CHECKPOINTS = "training"
"""The kind of a checkpoint folder in its provenance."""

LEARNED, CALIBRATED = "learned", "calibrated"
"""What cases were used for: learning or choosing the weights; fitting something else."""

_LIBRARIES = ("torch", "monai", "numpy")
_SCANS = ("baseline.nii.gz", "followup.nii.gz")
_BESIDE_SCANS = ("baseline-mask.nii.gz", "followup-mask.nii.gz", "baseline-bleeds.nii.gz", "case.json")
_OF_VARIANTS = ("variants/*/baseline.nii.gz", "variants/*/baseline-mask.nii.gz")

_DIFFERENCES = (
    "from other cases, with other options, another seed or start, or by another version of this software. Repeat "
    "the original command, or choose a new folder."
)


def made_from(
    task: str,
    options: Mapping[str, Any],
    *,
    learned: Sequence[Path] = (),
    calibrated: Sequence[Path] = (),
    start: Sequence[ModelPackage] = (),
    models: Mapping[str, ModelPackage | None] | None = None,
    variants: bool = False,
) -> dict[str, Any]:
    """What a model is made from, for its provenance.

    Args:
        task: what is done.
        options: all options, with the seed.
        learned: case folders to learn from and to choose the weights on; their order decides which is which.
        calibrated: other case folders, on which something is fitted afterward.
        start: the models it starts from; the new model counts as having seen what they have seen.
        models: other models that influence it, by purpose.
        variants: whether the synthetic variants of the ``learned`` cases are used.
    """
    return {
        "task": task,
        "options": dict(options),
        "cases": {
            LEARNED: [_contents(case, variants=variants) for case in learned],
            CALIBRATED: [_contents(case, variants=False) for case in calibrated],
        },
        "start": [package.sha256 for package in start],
        "seen_by_start": {
            purpose: sorted({scan for package in start for scan in scans_seen(package, purpose)})
            for purpose in (LEARNED, CALIBRATED)
        },
        "models": {name: None if model is None else model.sha256 for name, model in (models or {}).items()},
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def made_before(folder: Path, sources: Mapping[str, Any]) -> ModelPackage | None:
    """The package in ``folder`` if it was made from the same ``sources`` (see ``made_from``), else None.

    Raises:
        InputError: the folder holds a package made from other sources, or something else, or cannot be written.
    """
    if is_made_from(folder, Provenance(PACKAGE, sources)):
        return open_package(folder)
    if (folder / DESCRIPTION_FILE).exists():
        raise InputError(f"The output folder holds a model that was made differently: {_DIFFERENCES}")
    check_output_folder(folder, PACKAGE, keep=[TRAINING_FOLDER])
    return None


def begin_run(folder: Path, sources: Mapping[str, Any]) -> ModelPackage | None:
    """As ``made_before``; if there is no package, prepare its checkpoint folder, where an earlier start of the
    same training may have left checkpoints to resume from.

    Raises:
        InputError: as for ``made_before``, or the checkpoints belong to another training.
    """
    package = made_before(folder, sources)
    if package is not None:
        return package
    checkpoints, own = folder / TRAINING_FOLDER, Provenance(CHECKPOINTS, sources)
    if any(checkpoints.glob("**/*.ckpt")):
        if read_provenance(checkpoints) != own:
            raise InputError(f"The output folder holds a training that began differently: {_DIFFERENCES}")
        return None
    checkpoints.mkdir(parents=True, exist_ok=True)
    write_provenance(checkpoints, own)
    return None


def scans_seen(package: ModelPackage, purpose: str) -> set[str]:
    """Checksums of the scans that a model, or one it started from, has seen for this purpose; empty if its package
    does not say.
    """
    provenance = read_provenance(package.folder)
    if provenance is None:
        return set()
    try:
        own = {str(scan) for case in provenance.made_from["cases"][purpose] for scan in case["scans"]}
        return own | {str(scan) for scan in provenance.made_from["seen_by_start"][purpose]}
    except (LookupError, TypeError):
        return set()


def notes_on_seen_cases(packages: Sequence[ModelPackage | None], cases: Sequence[Path]) -> list[str]:
    """A sentence for each package known to have seen some of these cases while it was made.

    Its figures on them do not hold for new patients.
    """
    scans = {case: set(_scans(case)) for case in cases}
    notes = []
    for package in {package.sha256: package for package in packages if package is not None}.values():
        counts = {
            purpose: sum(not own.isdisjoint(scans_seen(package, purpose)) for own in scans.values())
            for purpose in (LEARNED, CALIBRATED)
        }
        if any(counts.values()):
            notes.append(
                f"Model {package.description.name!r} has seen some of the {len(cases)} cases before: it was "
                f"trained on {counts[LEARNED]} of them and calibrated on {counts[CALIBRATED]}. Its figures here "
                "are better than on new patients."
            )
    return notes


def has_learned_from(package: ModelPackage, cases: Sequence[Path]) -> bool:
    """Whether the model, or one it started from, is known to have learned from any of the cases."""
    return not scans_seen(package, LEARNED).isdisjoint(scan for case in cases for scan in _scans(case))


def _contents(case: Path, *, variants: bool) -> dict[str, Any]:
    """Checksums of what training reads of a case: one for each scan, and one for all the rest."""
    patterns = (*_BESIDE_SCANS, *(_OF_VARIANTS if variants else ()))
    rest = sorted(file for pattern in patterns for file in case.glob(pattern))
    texts = [f"{file.relative_to(case).as_posix()} {_checksum(file)}" for file in rest]
    return {"scans": _scans(case), "rest": hashlib.sha256("\n".join(texts).encode()).hexdigest()}


def _scans(case: Path) -> list[str]:
    return [_checksum(case / name) for name in _SCANS if (case / name).is_file()]


def _checksum(file: Path) -> str:
    """As ``content_sha256``, computed only once for an unchanged file."""
    status = file.stat()
    return _checksum_of(file.resolve(), status.st_size, status.st_mtime_ns)


@cache
def _checksum_of(file: Path, _size: int, _changed: int) -> str:
    return content_sha256(file)
