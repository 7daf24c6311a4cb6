"""Training of the logistic regression that predicts expansion from CT markers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from ...anatomy.mask_source import MaskSource
from ...errors import InputError
from ...forecast.probability import measurements
from ...markers.markers import describe_markers
from ...markers.scores import bat_score, present_markers
from ...models.description import MARKER_LOGISTIC, NO_GRID, SHARE_EXPANDED, TrainingStep, package_name
from ...models.networks.described import DescribedNetwork
from ...models.networks.risk import MarkerLogistic
from ...models.package import ModelPackage, write_package
from ...scan.grid import Array
from ...scan.mask import Mask
from ..data.case_description import kind_of_cases, read_description
from ..data.cohort import has_expanded, read_baseline
from ..data.each_case import LeftOut, prepare_all
from ..runs import made_before, made_from
from ..steps import LEARNED_FROM

FEATURES = (
    "log_volume_ml",
    "onset_hours",
    "hypodensity.present",
    "hypodensity.area_mm2",
    "hypodensity.difference_hu",
    "swirl.present",
    "swirl.area_mm2",
    "swirl.lowest_hu",
    "swirl.difference_hu",
    "swirl.low_density_share",
    "swirl.darkest_above_brain_hu",
    "swirl.below_dense_clot_hu",
    "black_hole.present",
    "black_hole.difference_hu",
    "blend.present",
    "blend.difference_hu",
    "blend.explained_share",
    "fluid_level.present",
    "fluid_level.explained_share",
    "heterogeneous.deviation_hu",
    "heterogeneous.whole_deviation_hu",
    "irregular.irregularities",
    "irregular.second_depth_of_radius",
    "satellite.separate_bleeds",
)
"""The model's inputs; see ``forecast.probability.measurements``."""

_REGULARIZATIONS = np.logspace(-2.5, 0.5, 7)
_FOLDS = 5

MIN_OF_A_KIND = 2
"""Training needs at least this many patients who expanded and this many who did not."""

NOTHING_FOUND = "No hematoma was found in its baseline scan."


@dataclass(frozen=True)
class RiskSample:
    """One patient: what was measured on the baseline, the BAT score, and whether the hematoma expanded.

    ``bat``: if the onset is not known, the score for a late scan.
    """

    case: str
    measured: dict[str, float]
    volume_ml: float
    bat: int
    expanded: bool


Learner = Callable[[int, Sequence[RiskSample], Sequence[RiskSample]], Array]
"""In cross-validation: takes the fold's number, the patients to learn from and the unseen patients; returns the
probabilities of the unseen ones.
"""


def measure_cases(
    cases: Sequence[Path], source: MaskSource, left_out: list[LeftOut] | None = None
) -> list[RiskSample]:
    """Measure each case from its true mask or an automatic one; ``left_out`` collects the cases in which no
    hematoma is found.
    """
    measured = prepare_all(partial(_measure, source), cases, "Measuring cases", source.device)
    if left_out is not None:
        pairs = zip(cases, measured, strict=True)
        left_out += [LeftOut(case.name, NOTHING_FOUND) for case, sample in pairs if sample is None]
    return [sample for sample in measured if sample is not None]


def _measure(source: MaskSource, folder: Path) -> RiskSample | None:
    scan, mask = read_baseline(folder, source)
    return None if mask.is_empty else measure_case(scan.image, mask, folder)


def measure_case(ct: sitk.Image, mask: Mask, folder: Path) -> RiskSample:
    """Measure a case on its baseline ``ct`` (HU) from a nonempty mask on the same grid."""
    onset_hours = read_description(folder).get("onset_hours")
    markers = describe_markers(ct, mask)
    score = bat_score(present_markers(markers), onset_hours)
    return RiskSample(
        case=folder.name,
        measured=measurements(markers, mask.volume_ml, onset_hours),
        volume_ml=mask.volume_ml,
        bat=score.total_if_late if score.total is None else score.total,
        expanded=has_expanded(folder),
    )


def check_kinds(expanded: Sequence[bool]) -> None:
    """Check that there are enough patients of both kinds to learn from; ``expanded`` gives each patient's kind.

    Raises:
        InputError: there are fewer than two of a kind.
    """
    if min(sum(expanded), len(expanded) - sum(expanded)) < MIN_OF_A_KIND:
        raise InputError(
            f"The cohort needs at least {MIN_OF_A_KIND} patients whose hematoma expanded and {MIN_OF_A_KIND} "
            f"whose hematoma did not: {sum(expanded)} of {len(expanded)} expanded."
        )


def fit_risk(samples: Sequence[RiskSample], seed: int) -> MarkerLogistic:
    """Logistic regression with the regularization that predicts best in cross-validation: five folds, or fewer if
    there are fewer than five patients of a kind.

    Raises:
        InputError: there are fewer than two patients of a kind.
    """
    expanded = np.array([sample.expanded for sample in samples], bool)
    check_kinds(expanded.tolist())
    network = MarkerLogistic(FEATURES)
    values = feature_values(samples)
    network.mean.copy_(torch.from_numpy(np.nanmean(values, axis=0)))
    network.deviation.copy_(torch.from_numpy(np.maximum(np.nanstd(values, axis=0), 1e-3)))
    with torch.inference_mode():
        standardized = network.standardized(torch.from_numpy(values).float()).numpy()
    fewest = min(int(expanded.sum()), int((~expanded).sum()))
    folds = StratifiedKFold(min(_FOLDS, fewest), shuffle=True, random_state=seed)
    search = GridSearchCV(
        LogisticRegression(max_iter=5000), {"C": _REGULARIZATIONS}, scoring="neg_log_loss", cv=folds
    )
    model = search.fit(standardized, expanded).best_estimator_
    with torch.no_grad():
        network.linear.weight.copy_(torch.from_numpy(model.coef_))
        network.linear.bias.copy_(torch.from_numpy(model.intercept_))
    return network.eval()


def learn_markers(seed: int) -> Learner:
    """The logistic regression, for cross-validation."""
    return lambda _fold, learned, unseen: risk_of(fit_risk(learned, seed), unseen)


def risk_of(network: MarkerLogistic, samples: Sequence[RiskSample]) -> Array:
    """The probability of each sample."""
    with torch.inference_mode():
        return torch.sigmoid(network(torch.from_numpy(feature_values(samples)).float())).numpy()


def feature_values(samples: Sequence[RiskSample]) -> Array:
    """The features of each sample, (samples, features); NaN for features that were not measured."""
    return np.array([[sample.measured.get(name, np.nan) for name in FEATURES] for sample in samples], float)


def train_risk(cases: Sequence[Path], output: Path, source: MaskSource, seed: int) -> ModelPackage:
    """Train on the cases of a cohort and write the package.

    Raises:
        InputError: the folder's name is no valid model name, or it holds a model made differently (``runs.py``).
    """
    name, details = package_name(output), f"from {source.kind} masks, seed {seed}"
    options, models = {"masks": source.kind, "seed": seed}, {"segmenter": source.segmenter}
    sources = made_from("risk", options, learned=cases, models=models)
    if (made := made_before(output, sources)) is not None:
        return made
    samples = measure_cases(cases, source)
    network = fit_risk(samples, seed)
    expanded = [sample.expanded for sample in samples]
    results = {SHARE_EXPANDED: round(float(np.mean(expanded)), 4)}
    trained_on = (TrainingStep(LEARNED_FROM, len(samples), kind_of_cases(cases), details),)
    model = DescribedNetwork(network, MARKER_LOGISTIC, {"features": list(FEATURES)})
    return write_package(output, model.described(name, "risk", NO_GRID, trained_on, results), network, sources)
