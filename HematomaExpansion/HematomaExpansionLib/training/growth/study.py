"""The growth paper's study on any cohort: three ways to train, cross-validated by patient (Abramova 2024, 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from sklearn.model_selection import KFold

from ...anatomy.mask_source import MaskSource
from ...errors import InputError
from ...models.package import ModelPackage
from ..data.cohort import case_folders, with_variants
from ..data.each_case import rows_of_all
from ..runs import made_before
from .evaluation import GrowthEvaluation, GrowthRow, evaluate_growth_case
from .samples import GrowthPreset, Samples, prepare_growth_samples
from .training import growth_sources, train_growth


@dataclass(frozen=True)
class Arm:
    """One way to train: with or without augmented patches, with or without the cases' synthetic variants."""

    name: str
    augmented: bool
    variants: bool


ARMS = (Arm("original", False, False), Arm("augmentation", True, False), Arm("synthesis", False, True))


def run_study(
    cohort: Path,
    output: Path,
    preset: GrowthPreset,
    folds: int,
    source: MaskSource,
) -> list[GrowthRow]:
    """Train each arm on all folds but one and evaluate it on that one; rows by arm, then those of the rivals.

    ``folds`` 0 leaves one case out at a time. Packages go to ``output/folds/<fold>/<arm>``; existing ones made
    from the same sources are not trained again. The arm with synthetic variants needs some in the cohort.

    Raises:
        InputError: there are too few cases for the folds, or an existing package was made differently.
    """
    cases = case_folders(cohort)
    count = folds or len(cases)
    if not 2 <= count <= len(cases) or len(cases) < 4:
        raise InputError(f"{len(cases)} cases cannot be divided into {count} folds: at least 4 cases, 2 folds.")
    arms = [arm for arm in ARMS if not arm.variants or len(with_variants(cases)) > len(cases)]
    splits = list(KFold(count, shuffle=True, random_state=0).split(cases))
    folders = [output / "folds" / str(number) for number in range(1, count + 1)]
    samples: Samples = {}
    # Checks all of them, so that a package made differently is reported before the work begins.
    made = [
        _made_before(folder / arm.name, [cases[k] for k in kept], preset, arm)
        for folder, (kept, _) in zip(folders, splits, strict=True)
        for arm in arms
    ]
    if not all(made):
        samples = prepare_growth_samples(preset, None, with_variants(cases))
    evaluations: dict[Path, GrowthEvaluation] = {}
    for folder, (kept, left_out) in zip(folders, splits, strict=True):
        packages = [_package(folder / arm.name, [cases[k] for k in kept], preset, arm, samples) for arm in arms]
        evaluation = GrowthEvaluation(tuple(packages), source)
        evaluations |= {cases[k]: evaluation for k in left_out}
    rows: dict[str, list[GrowthRow]] = {}
    for row in rows_of_all(partial(_evaluate_left_out, evaluations), list(evaluations), source.device):
        rows.setdefault(row.method, []).append(row)
    return [row for method in rows.values() for row in method]


def _evaluate_left_out(evaluations: Mapping[Path, GrowthEvaluation], case: Path) -> list[GrowthRow]:
    return evaluate_growth_case(evaluations[case], case)


def _made_before(folder: Path, cases: Sequence[Path], preset: GrowthPreset, arm: Arm) -> bool:
    sources = growth_sources(cases, replace(preset, augmented=arm.augmented), use_variants=arm.variants)
    return made_before(folder, sources) is not None


def _package(
    folder: Path, cases: Sequence[Path], preset: GrowthPreset, arm: Arm, samples: Samples
) -> ModelPackage:
    arm_preset = replace(preset, augmented=arm.augmented)
    return train_growth(cases, folder, arm_preset, use_variants=arm.variants, prepared=samples)
