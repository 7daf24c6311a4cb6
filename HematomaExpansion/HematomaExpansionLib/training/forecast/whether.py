"""Fits whether hematomas expand: a logistic regression for each pattern of what may be known of a patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score
from sklearn.model_selection import RepeatedStratifiedKFold

from ...errors import InputError
from ...forecast.evidence import features, judged, log_odds
from ...forecast.facts import Facts
from ...models.forecast_numbers import FEATURES, KNOWN, PATTERNS, ForecastNumbers, Knots, used_features
from ...scan.grid import Array
from .patients import Patients

MIN_OF_A_KIND = 20
"""A regression for a pattern needs this many patients who expanded and as many who did not."""

_KNOTS = (0.1, 0.5, 0.9)
"""Quantiles at which the splines bend (Harrell, Regression Modeling Strategies, Table 2.3)."""

_PENALTY = 1.0
"""Of the standardized coefficients, squared, as scikit-learn's ``C``; it matters little with hundreds of
patients."""

_FOLDS, _REPEATS = 10, 10

PRIOR_CONSTANT, PRIOR_SLOPES = 1.0, 0.3
"""Standard deviations by which a hospital's patients are expected to differ from those of the shipped regression:
of the constant, and of the other coefficients, per standard deviation of each input.
"""


def fit_whether(patients: Patients, patterns: Sequence[int] = range(PATTERNS)) -> ForecastNumbers:
    """A regression for each pattern (or some), on the patients of whom all that it looks at is known.

    Raises:
        InputError: there are too few patients.
    """
    numbers = ForecastNumbers(
        np.zeros((PATTERNS, len(FEATURES))),
        np.zeros((PATTERNS, len(FEATURES), len(FEATURES))),
        *_knots_of(patients.facts),
    )
    rows = design(numbers, patients.facts)
    for pattern in patterns:
        chosen, used = _where_known(patients, pattern), np.array(used_features(pattern))
        _check_kinds(patients.expanded[chosen])
        fitted, spread = _fit(rows[np.ix_(chosen, used)], patients.expanded[chosen])
        numbers.coefficients[pattern, used] = fitted
        numbers.covariance[pattern][np.ix_(used, used)] = spread
    return numbers


def renew_whether(numbers: ForecastNumbers, patients: Patients) -> ForecastNumbers:
    """The regressions, fitted anew on other patients and shrunk toward what they were.

    The most probable coefficients, and their spread, given the patients and a normal prior around the former
    coefficients (``PRIOR_CONSTANT``, ``PRIOR_SLOPES``). A pattern of which there are no patients takes over the
    mean change in log odds of the pattern that looks at the volume alone.
    """
    renewed = ForecastNumbers(
        numbers.coefficients.copy(), numbers.covariance.copy(), numbers.volume_knots, numbers.gcs_knots
    )
    moved, rows = 0.0, design(numbers, patients.facts)
    for pattern in range(PATTERNS):
        chosen, used = _where_known(patients, pattern), np.array(used_features(pattern))
        before = numbers.coefficients[pattern, used]
        if not len(chosen):
            renewed.coefficients[pattern, used[0]] += moved
            continue
        after, spread = most_probable(rows[np.ix_(chosen, used)], patients.expanded[chosen], before)
        renewed.coefficients[pattern, used] = after
        renewed.covariance[pattern][np.ix_(used, used)] = spread
        if pattern == 0:
            moved = float(np.mean(rows[:, used] @ (after - before)))
    return renewed


def design(numbers: ForecastNumbers, facts: Sequence[Facts]) -> Array:
    """Inputs of the regressions, (patients, features); a sign that is unsure counts as its probability."""
    return np.array([sum(weight * row for weight, row in features(numbers, each)) for each in facts])


def most_probable(rows: Array, expanded: Array, before: Array) -> tuple[Array, Array]:
    """Coefficients (features,) and their covariance, given inputs (patients, features), the first a constant.

    Newton's method; scikit-learn has no prior that is not centered at zero.
    """
    standardized, middle, scale = _standardized(rows)
    # In standardized inputs, the constant is the log odds of the average patient.
    start = before * scale
    start[0] = before[0] + float(before[1:] @ middle[1:])
    precision = np.full(len(before), PRIOR_SLOPES**-2)
    precision[0] = PRIOR_CONSTANT**-2
    beta = start.copy()
    for _ in range(50):
        probability = expit(standardized @ beta)
        gradient = standardized.T @ (expanded - probability) - precision * (beta - start)
        curvature = (standardized * (probability * (1 - probability))[:, None]).T @ standardized
        step = np.linalg.solve(curvature + np.diag(precision), gradient)
        beta = beta + step
        if np.abs(step).max() < 1e-9:
            break
    covariance = np.linalg.inv(curvature + np.diag(precision))
    return _raw(beta, covariance, middle, scale)


def _standardized(rows: Array) -> tuple[Array, Array, Array]:
    """Inputs (patients, features) in standard deviations from their means, and both; what is the same for
    everybody, as the constant is, stays as it is.
    """
    spread = rows.std(axis=0)
    varies = spread > 1e-6
    middle, scale = np.where(varies, rows.mean(axis=0), 0.0), np.where(varies, spread, 1.0)
    return (rows - middle) / scale, middle, scale


def _raw(beta: Array, covariance: Array, middle: Array, scale: Array) -> tuple[Array, Array]:
    """Coefficients of standardized inputs as those of the inputs themselves; the first is the constant."""
    back = np.diag(1.0 / scale)
    back[0, 0] = 1.0
    back[0, 1:] = -middle[1:] / scale[1:]
    return back @ beta, back @ covariance @ back.T


def _fit(rows: Array, expanded: Array) -> tuple[Array, Array]:
    standardized, middle, scale = _standardized(rows)
    model = LogisticRegression(C=1.0 / _PENALTY, max_iter=1000, tol=1e-8).fit(standardized[:, 1:], expanded)
    beta = np.concatenate([model.intercept_, model.coef_[0]])
    probability = model.predict_proba(standardized[:, 1:])[:, 1]
    curvature = (standardized * (probability * (1 - probability))[:, None]).T @ standardized
    curvature[1:, 1:] += _PENALTY * np.eye(len(beta) - 1)
    return _raw(beta, np.linalg.inv(curvature), middle, scale)


def _knots_of(facts: Sequence[Facts]) -> tuple[Knots, Knots]:
    scores = [each.gcs for each in facts if each.gcs is not None]
    found = []
    for values, usual in (
        (np.log([each.volume_ml for each in facts]), (1.0, 2.8, 3.8)),
        (np.array(scores), (8.0, 12.0, 14.0)),
    ):
        first, middle, last = np.quantile(values, _KNOTS).round(4).tolist() if len(values) else usual
        found.append((first, middle, last) if first < middle < last else usual)
    return found[0], found[1]


def _where_known(patients: Patients, pattern: int) -> Array:
    """Places of the patients of whom all that a pattern looks at is known."""
    needed = [name for place, name in enumerate(KNOWN) if pattern >> place & 1]
    known = [all(getattr(each, name) is not None for name in needed) for each in patients.facts]
    return np.flatnonzero(known)


def _check_kinds(expanded: Array) -> None:
    fewest = min(np.count_nonzero(expanded), np.count_nonzero(~expanded))
    if fewest < MIN_OF_A_KIND:
        raise InputError(
            f"A forecast is fitted on at least {MIN_OF_A_KIND} patients whose hematoma expanded and as many whose "
            f"did not, with hours from onset, irregular, blend and gcs known: here there are {fewest} of a kind."
        )


# --- how well it does ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Whether:
    """How well probabilities tell who expands: area under the ROC curve, Brier score, and the slope and constant
    of the outcome's log odds on theirs (1 and 0 if they are right).
    """

    auc: float
    brier: float
    slope: float
    constant: float


def how_well(probability: Array, expanded: Array) -> Whether:
    """The figures of probabilities (patients,) for booleans (patients,), in which both kinds occur."""
    odds = log_odds(probability)[:, None]
    if np.ptp(odds) < 1e-9:
        return Whether(0.5, float(brier_score_loss(expanded, probability)), 0.0, 0.0)
    line = LogisticRegression(C=1e9, max_iter=1000).fit(odds, expanded)
    return Whether(
        float(roc_auc_score(expanded, probability)),
        float(brier_score_loss(expanded, probability)),
        float(line.coef_[0, 0]),
        float(line.intercept_[0]),
    )


def out_of_fold(patients: Patients, known: Sequence[str], seed: int = 0) -> Array:
    """Probabilities (repeats, patients) of each patient by regressions that have not seen the patient."""
    division = RepeatedStratifiedKFold(n_splits=_FOLDS, n_repeats=_REPEATS, random_state=seed)
    found = np.zeros((_REPEATS, len(patients.facts)))
    for number, (kept, left_out) in enumerate(division.split(np.zeros(len(patients.facts)), patients.expanded)):
        learned = Patients([patients.facts[k] for k in kept], patients.expanded[kept])
        numbers = fit_whether(learned, [ForecastNumbers.pattern(known)])
        found[number // _FOLDS, left_out] = [judged(numbers, patients.facts[k], known)[0] for k in left_out]
    return found


def mean_of(figures: Sequence[Whether]) -> Whether:
    """The mean of each figure."""
    return Whether(*np.mean([astuple(each) for each in figures], axis=0).tolist())
