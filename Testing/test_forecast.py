"""One forecast: whether, how much and where, which can never contradict each other."""

import csv
import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from HematomaExpansionLib.cli.main import main
from HematomaExpansionLib.errors import InputError, ModelPackageError
from HematomaExpansionLib.forecast.brain import brain_of_points, probability_from_brain
from HematomaExpansionLib.forecast.distribution import FollowupDistribution, Spread
from HematomaExpansionLib.forecast.evidence import (
    LIKELIHOOD_RATIOS,
    bend,
    log_odds,
    probability_from_evidence,
    steps_text,
)
from HematomaExpansionLib.forecast.facts import Facts
from HematomaExpansionLib.forecast.forecast import (
    BRAIN,
    Circumstances,
    ForecastModel,
    distribution_of,
    headline,
    make_forecast,
    renewed,
)
from HematomaExpansionLib.growth.outcomes import NEVER_ML, mask_of_outcome
from HematomaExpansionLib.growth.probability_map import share_with_blood
from HematomaExpansionLib.markers.scores import overrule
from HematomaExpansionLib.measures.expansion import SELECTABLE, ExpansionDefinition, measure_growth
from HematomaExpansionLib.models.package import find_package, install_package
from HematomaExpansionLib.scan.grid import Grid, image_on
from HematomaExpansionLib.training.forecast.calibration import calibrated
from HematomaExpansionLib.training.forecast.how_much import (
    PUBLISHED_RATIOS,
    PUBLISHED_SHARES,
    GrowthPair,
    published_spread,
    renew_spread,
)
from HematomaExpansionLib.training.forecast.patients import Patients, read_patients
from HematomaExpansionLib.training.forecast.samples import ForecastSample
from HematomaExpansionLib.training.forecast.whether import fit_whether, how_well, out_of_fold, renew_whether
from hypothesis import given, settings
from hypothesis import strategies as st
from phantoms import STRAIGHT

pytestmark = pytest.mark.usefixtures("each_brain_found_once")

SIX, TWELVE, REVISED = SELECTABLE
ALONE = ExpansionDefinition.SIX_ML_ALONE
SPREAD = Spread(middle=0.0, deviation=0.12, excess=0.3, by_volume=-0.25, by_network=0.0, shape=1.1)
REAL_PATIENTS = Path(__file__).resolve().parents[2] / "shared" / "data" / "expansion-real" / "patients.csv"

volumes = st.floats(0.3, 150.0)
probabilities = st.floats(0.0, 1.0)


@pytest.fixture(scope="module")
def shipped() -> ForecastModel:
    return ForecastModel.of(find_package(None, "forecast"))


# --- one distribution -----------------------------------------------------------------------------------


@given(volumes, probabilities)
@settings(deadline=None, max_examples=25)
def test_the_probability_is_the_mass_beyond_the_definition(volume_ml: float, probability: float) -> None:
    distribution = FollowupDistribution.of(SPREAD, volume_ml, probability)
    assert distribution.probability(SIX) == pytest.approx(probability, abs=1e-6)
    shares = (np.arange(1000) + 0.5) / 1000
    outcomes = np.array([distribution.quantile(share) for share in shares])
    for definition in (SIX, TWELVE, REVISED, ALONE):
        beyond = np.mean([measure_growth(volume_ml, outcome, definition).expansion for outcome in outcomes])
        assert distribution.probability(definition) == pytest.approx(beyond, abs=2e-3)


@given(volumes, probabilities)
@settings(deadline=None, max_examples=40)
def test_quantiles_rise_and_the_mean_is_theirs(volume_ml: float, probability: float) -> None:
    distribution = FollowupDistribution.of(SPREAD, volume_ml, probability)
    shares = (np.arange(4000) + 0.5) / 4000
    outcomes = np.array([distribution.quantile(share) for share in shares])
    assert (np.diff(outcomes) > 0).all()
    assert distribution.expected_ml == pytest.approx(outcomes.mean(), rel=2e-3)
    if_expands = [distribution.quantile_if_expands(share, SIX) for share in (0.1, 0.5, 0.9)]
    assert if_expands == sorted(if_expands)
    assert all(measure_growth(volume_ml, outcome, SIX).expansion for outcome in if_expands)


@given(volumes, st.floats(0.01, 0.99), st.floats(0.01, 0.99))
@settings(deadline=None, max_examples=40)
def test_what_happens_if_it_expands_does_not_depend_on_whether(volume_ml: float, one: float, other: float) -> None:
    for share in (0.1, 0.5, 0.9):
        first, second = (
            FollowupDistribution.of(SPREAD, volume_ml, probability).quantile_if_expands(share, SIX)
            for probability in (one, other)
        )
        assert first == pytest.approx(second, rel=1e-3)


def test_in_the_limits_it_stays_or_expands_for_sure() -> None:
    stays, expands = (FollowupDistribution.of(SPREAD, 20.0, probability) for probability in (0.0, 1.0))
    assert stays.quantile(0.999) < 26.0 < expands.quantile(0.001)
    assert stays.quantile_if_expands(0.5, SIX) == pytest.approx(expands.quantile_if_expands(0.5, SIX), rel=1e-3)
    assert stays.quantile(0.5) == pytest.approx(20.0, rel=0.01)


def test_the_median_growth_of_those_who_expand_is_the_one_in_the_package() -> None:
    """0.3 in the natural logarithm beyond the limit of a third, at 12 mL."""
    expands = FollowupDistribution.of(SPREAD, 12.0, 0.4)
    assert expands.quantile_if_expands(0.5, SIX) == pytest.approx(12.0 * 1.33 * math.exp(0.3), rel=0.02)


@given(volumes, st.floats(0.02, 0.9))
@settings(deadline=None, max_examples=40)
def test_a_source_with_another_outcome_keeps_its_own_probability(volume_ml: float, probability: float) -> None:
    """The BRAIN score tells growth by 6 mL; small bleeds also expand by a third of less."""
    distribution = FollowupDistribution.of(SPREAD, volume_ml, probability, ALONE)
    assert distribution.probability(ALONE) == pytest.approx(probability, abs=1e-6)
    assert distribution.probability(SIX) >= probability - 1e-6
    if volume_ml > 6.0 / 0.33:
        assert distribution.probability(SIX) == pytest.approx(probability, abs=1e-6)


def test_no_outcome_is_larger_than_the_head_has_room_for() -> None:
    distribution = FollowupDistribution.of(SPREAD, 20.0, 0.9, largest_ml=30.0)
    assert distribution.quantile(1.0) == pytest.approx(30.0)
    assert distribution.probability(SIX) == pytest.approx(0.9, abs=1e-6)


def test_a_stored_distribution_comes_back_the_same() -> None:
    for made in (
        FollowupDistribution.of(SPREAD, 7.0, 0.3),
        FollowupDistribution.of(SPREAD, 7.0, 0.3, ALONE, network_growth=0.4),
    ):
        again = FollowupDistribution.from_parameters(json.loads(json.dumps(made.parameters)))
        assert again == made
        assert again.quantile(0.7) == made.quantile(0.7)


# --- the map --------------------------------------------------------------------------------------------


def grid_of(spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Grid:
    return Grid((60, 60, 60), spacing, (3.0, -4.0, 5.0), STRAIGHT)


def ordered_ball(spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> sitk.Image:
    """Volumes at which blood that spreads evenly from a point reaches each voxel."""
    grid = grid_of(spacing)
    z, y, x = np.indices(grid.shape)
    center = (np.array(grid.size) - 1) / 2
    away = np.sqrt(sum(((axis - c) * s) ** 2 for axis, c, s in zip((x, y, z), center, spacing, strict=True)))
    ranks = np.empty(away.size, np.float32)
    ranks[np.argsort(away, axis=None, kind="stable")] = np.arange(1, away.size + 1)
    order = (ranks * grid.voxel_volume_ml).reshape(away.shape).astype(np.float32)
    return image_on(grid, order)


@pytest.mark.parametrize("probability", [0.0, 0.27, 1.0])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 0.9, 2.0)])
def test_the_map_sums_to_the_expected_volume(probability: float, spacing: tuple[float, float, float]) -> None:
    order = ordered_ball(spacing)
    distribution = FollowupDistribution.of(SPREAD, 12.0, probability)
    image = share_with_blood(order, distribution)
    values = sitk.GetArrayFromImage(image)
    voxel_ml = float(np.prod(spacing)) / 1000
    assert values.sum(dtype=np.float64) * voxel_ml == pytest.approx(distribution.expected_ml, rel=1e-3)
    assert values.max() == 1.0
    assert values.min() == 0.0
    if probability in (0.0, 1.0):
        outcome = distribution.quantile(0.0005 if probability else 0.9995)
        certain = sitk.GetArrayFromImage(mask_of_outcome(order, outcome).image) > 0
        assert (values[certain] > 0.999).all() if probability else (values[~certain] < 0.001).all()


def test_the_map_is_the_share_of_outcomes_that_hold_a_voxel() -> None:
    order = ordered_ball()
    distribution = FollowupDistribution.of(SPREAD, 12.0, 0.4)
    shares = (np.arange(500) + 0.5) / 500
    masks = [mask_of_outcome(order, distribution.quantile(share)).voxels for share in shares]
    assert all((larger | smaller == larger).all() for smaller, larger in pairwise(masks))
    image = sitk.GetArrayFromImage(share_with_blood(order, distribution))
    assert np.abs(np.mean(masks, axis=0) - image).max() < 0.01


def test_a_voxel_that_blood_never_reaches_has_no_probability() -> None:
    order = ordered_ball()
    values = sitk.GetArrayFromImage(order)
    values[:10] = NEVER_ML
    distribution = FollowupDistribution.of(SPREAD, 12.0, 1.0)
    image = sitk.GetArrayFromImage(share_with_blood(image_on(grid_of(), values), distribution))
    assert (image[:10] == 0).all()


# --- whether --------------------------------------------------------------------------------------------


def test_evidence_in_words_is_the_nomogram(shipped: ForecastModel) -> None:
    facts = Facts(22.0, 2.0, irregular=1.0, warfarin=True)
    told = probability_from_evidence(shipped.numbers, facts, shipped.source)
    assert steps_text(told.steps) == "volume 22 mL, 2 h: 31 % → irregular: 43 % → warfarin × 3.5: 72 %"
    first, second, third = told.evidence
    assert first.factor is None
    for before, after in ((first, second), (second, third)):
        moved = log_odds(after.probability) - log_odds(before.probability)
        assert after.factor == pytest.approx(math.exp(moved))
    assert third.factor == pytest.approx(math.exp(0.2144 * 6 * (1 - 0.03)))
    assert told.low < told.value < told.high
    assert told.value == third.probability


def test_what_is_not_known_is_no_zero(shipped: ForecastModel) -> None:
    """Without hours, the probability lies between those of an early and of a late scan."""

    def told(**known: float) -> float:
        return probability_from_evidence(shipped.numbers, Facts(15.0, **known), "").value

    assert told(onset_hours=20.0) < told() < told(onset_hours=0.5)
    assert told(irregular=0.0) < told() < told(irregular=1.0)
    assert told(blend=0.0) < told() < told(blend=1.0)


def test_an_unsure_sign_is_taken_both_ways(shipped: ForecastModel) -> None:
    def told(sign: float) -> float:
        return probability_from_evidence(shipped.numbers, Facts(15.0, 2.0, irregular=sign, blend=0.0), "").value

    absent, unsure, present = told(0.0), told(0.3), told(1.0)
    assert unsure == pytest.approx(0.7 * absent + 0.3 * present)
    text = steps_text(probability_from_evidence(shipped.numbers, Facts(15.0, irregular=0.3), "").steps)
    assert "irregular (30 % likely)" in text


def test_a_spline_is_linear_beyond_its_knots() -> None:
    knots = (1.0, 2.0, 4.0)
    assert bend(0.5, knots) == 0.0
    steps = np.diff([bend(value, knots) for value in (4.0, 5.0, 6.0, 7.0)])
    assert np.ptp(steps) < 1e-9
    assert bend(1.5, knots) == pytest.approx(0.5**3 / 9)


@pytest.mark.parametrize("sign", list(LIKELIHOOD_RATIOS))
def test_a_likelihood_ratio_multiplies_the_odds_only_if_asked(shipped: ForecastModel, sign: str) -> None:
    facts = replace(Facts(15.0, 2.0), **{sign: 1.0})
    plain = probability_from_evidence(shipped.numbers, facts, "")
    counted = probability_from_evidence(shipped.numbers, facts, "", sign)
    assert len(counted.evidence) == len(plain.evidence) + 1
    moved = math.exp(float(log_odds(counted.value) - log_odds(plain.value)))
    assert moved == pytest.approx(LIKELIHOOD_RATIOS[sign][0])
    assert "not validated" in counted.evidence[-1].source


@pytest.mark.parametrize(
    ("points", "percent"), [(0, 3.4), (5, 9.4), (10, 23.1), (12, 31.6), (16, 52.1), (20, 71.9), (24, 85.8)]
)
def test_brain_gives_the_published_probabilities(points: int, percent: float) -> None:
    assert 100 * brain_of_points(points) == pytest.approx(percent, abs=0.15)


def test_brain_sums_over_what_is_not_known() -> None:
    whole = Facts(25.0, 0.8, warfarin=True, recurrent=False, intraventricular=True)
    assert probability_from_brain(whole).value == pytest.approx(brain_of_points(7 + 5 + 6 + 2))
    assert probability_from_brain(whole).low is None
    less = probability_from_brain(replace(whole, warfarin=None))
    assert less.low == pytest.approx(brain_of_points(14))
    assert less.high == pytest.approx(brain_of_points(20))
    assert less.value == pytest.approx(0.97 * brain_of_points(14) + 0.03 * brain_of_points(20))


@pytest.mark.parametrize(
    "wrong", [{"volume_ml": 0.0}, {"volume_ml": 900.0}, {"gcs": 2.0}, {"onset_hours": -1.0}, {"gcs": math.nan}]
)
def test_facts_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="must lie between"):
        Facts(**{"volume_ml": 10.0, **wrong})


# --- the forecast ---------------------------------------------------------------------------------------


def test_the_headline_says_it_all(shipped: ForecastModel) -> None:
    told = make_forecast(shipped, Facts(19.2, 2.0, irregular=0.0, blend=0.0), Circumstances()).described
    chance = 100 * told["probability_of_expansion"]
    low, high = 100 * told["probability_low"], 100 * told["probability_high"]
    grown = told["if_expands"]
    assert told["text"] == (
        f"19 mL now · {chance:.0f} % chance of expansion ({low:.0f}–{high:.0f}) · if it expands "
        f"{grown['volume_ml']:.0f} mL ({grown['low']:.0f}–{grown['high']:.0f})"
    )
    small = {**told, "if_expands": {"volume_ml": 4.21, "low": 3.0, "high": 11.2}, "probability_low": None}
    assert headline(2.04, small).startswith("2.0 mL now")
    assert headline(2.04, small).endswith("4.2 mL (3.0–11)")


@pytest.mark.parametrize("definition", SELECTABLE)
@pytest.mark.parametrize("whether", ["evidence", BRAIN])
def test_no_figure_contradicts_another(
    shipped: ForecastModel, definition: ExpansionDefinition, whether: str
) -> None:
    around = Circumstances(masks="automatic", definition=definition, network_growth=0.5, whether=whether)
    for volume in (1.0, 8.0, 25.0, 90.0):
        told = make_forecast(shipped, Facts(volume, 3.0, irregular=1.0, blend=0.0), around).described
        distribution = distribution_of({"forecast": told})
        assert distribution is not None
        assert told["probability_of_expansion"] == pytest.approx(distribution.probability(definition))
        quantiles = list(told["volume_ml"].values())
        assert quantiles == sorted(quantiles)
        if_expands = told["if_expands"]
        assert if_expands["low"] < if_expands["volume_ml"] < if_expands["high"]
        assert measure_growth(volume, if_expands["low"], definition).expansion
        beyond = float(distribution.share_beyond(np.array([if_expands["volume_ml"]]))[0])
        assert beyond == pytest.approx(told["probability_of_expansion"] / 2, abs=1e-4)
        if told["probability_low"] is not None:
            assert told["probability_low"] <= told["probability_of_expansion"] <= told["probability_high"]


def result_of(model: ForecastModel, facts: Facts, around: Circumstances) -> dict[str, object]:
    markers = {
        name: {"present": bool(getattr(facts, name)), "evidence": {}, "place_mm": None}
        for name in ("irregular", "blend", "hypodensity", "swirl", "black_hole", "heterogeneous")
    }
    clinical = {"recurrent": None, "warfarin": facts.warfarin, "intraventricular": None, "gcs": facts.gcs}
    return {
        "input": {"onset_hours": facts.onset_hours, "clinical": clinical, "warnings": []},
        "baseline": {"volume_ml": facts.volume_ml},
        "markers": markers,
        "scores": {},
        "risk": None,
        "forecast": make_forecast(model, facts, around).described,
    }


def test_a_forecast_is_made_anew_from_its_result(shipped: ForecastModel) -> None:
    signs = dict.fromkeys(("hypodensity", "swirl", "black_hole", "heterogeneous"), 0.0)
    facts = Facts(14.0, 3.0, irregular=1.0, blend=0.0, gcs=12.0, warfarin=False, **signs)
    around = Circumstances(masks="automatic", network_growth=0.6, largest_ml=80.0)
    result = json.loads(json.dumps(result_of(shipped, facts, around)))
    again = renewed(result, shipped)["forecast"]
    assert again == result["forecast"]
    smooth = renewed(overrule(result, "irregular", False), shipped)["forecast"]
    expected = make_forecast(shipped, replace(facts, irregular=0.0), around)
    assert smooth["probability_of_expansion"] == pytest.approx(expected.probability)
    assert smooth["if_expands"] == pytest.approx(result["forecast"]["if_expands"], rel=1e-3)
    later = {**result, "input": {**result["input"], "onset_hours": 20.0}}
    assert renewed(later, shipped)["forecast"]["probability_of_expansion"] < again["probability_of_expansion"]
    old = {**result, "forecast": None}
    assert renewed(old, shipped)["forecast"] is None


def test_a_risk_model_stands_in_place_of_the_evidence(shipped: ForecastModel) -> None:
    forecast = make_forecast(shipped, Facts(14.0), Circumstances(), (0.42, "some-model"))
    assert forecast.probability == pytest.approx(0.42, abs=1e-6)
    assert forecast.described["source"] == "model some-model"
    assert forecast.described["probability_low"] is None


# --- fitting --------------------------------------------------------------------------------------------


def simulated_patients(count: int, seed: int, shift: float = 0.0) -> Patients:
    """Patients whose log odds are known: -1 + log volume's bend, 1.2 irregular, 0.8 blend, less with the hours."""
    random = np.random.default_rng(seed)
    facts, expanded = [], []
    for _ in range(count):
        volume, hours = float(np.exp(random.normal(2.7, 1.0))), float(random.uniform(0.5, 8.0))
        irregular, blend, gcs = float(random.random() < 0.4), float(random.random() < 0.3), random.integers(5, 16)
        odds = -0.6 + shift + 0.5 * (math.log(volume) - 2.7) + 1.2 * irregular + 0.8 * blend
        odds -= 0.5 * math.log(hours)
        facts.append(Facts(min(volume, 200.0), hours, irregular, blend, float(gcs)))
        expanded.append(random.random() < 1 / (1 + math.exp(-odds)))
    return Patients(facts, np.array(expanded, bool))


def test_a_known_law_is_found_again() -> None:
    numbers = fit_whether(simulated_patients(4000, 1))
    known = numbers.coefficients[numbers.pattern(("onset_hours", "irregular", "blend"))]
    assert known[4] == pytest.approx(1.2, abs=0.2)
    assert known[5] == pytest.approx(0.8, abs=0.25)
    assert known[3] == pytest.approx(-0.5, abs=0.15)
    unseen = simulated_patients(4000, 2)
    told = [probability_from_evidence(numbers, replace(facts, gcs=None), "") for facts in unseen.facts]
    figures = how_well(np.array([each.value for each in told]), unseen.expanded)
    assert figures.slope == pytest.approx(1.0, abs=0.12)
    assert figures.constant == pytest.approx(0.0, abs=0.12)


def test_its_interval_holds_the_truth() -> None:
    """In 40 samples of 300 patients, the 95 % interval holds the true probability in about 38."""
    facts = Facts(15.0, 2.0, 1.0, 0.0, 12.0)
    odds = -0.6 + 0.5 * (math.log(15.0) - 2.7) + 1.2 - 0.5 * math.log(2.0)
    true, held = 1 / (1 + math.exp(-odds)), 0
    for seed in range(40):
        numbers = fit_whether(simulated_patients(300, 100 + seed), [7])
        told = probability_from_evidence_of_pattern(numbers, facts)
        held += told[0] <= true <= told[1]
    assert 34 <= held <= 40


def probability_from_evidence_of_pattern(numbers: object, facts: Facts) -> tuple[float, float]:
    from HematomaExpansionLib.forecast.evidence import INTERVAL, judged, sigmoid

    value, error = judged(numbers, facts, ("onset_hours", "irregular", "blend"))
    middle = float(log_odds(value))
    return sigmoid(middle - INTERVAL * error), sigmoid(middle + INTERVAL * error)


def test_a_hospital_with_more_expansion_is_learned_from_few_and_better_from_many() -> None:
    numbers = fit_whether(simulated_patients(3000, 3))
    unseen = simulated_patients(3000, 4, shift=1.5)

    def mean(fitted: object) -> float:
        return float(np.mean([probability_from_evidence(fitted, each, "").value for each in unseen.facts[:500]]))

    true = float(unseen.expanded.mean())
    before = mean(numbers)
    few = mean(renew_whether(numbers, simulated_patients(20, 5, shift=1.5)))
    many = mean(renew_whether(numbers, simulated_patients(400, 6, shift=1.5)))
    assert abs(few - true) < abs(before - true)
    assert abs(many - true) < 0.05 < abs(before - true)


def test_patients_who_tell_nothing_new_change_little() -> None:
    numbers = fit_whether(simulated_patients(3000, 3))
    again = renew_whether(numbers, simulated_patients(60, 9))
    for facts in simulated_patients(30, 8).facts:
        one, other = (probability_from_evidence(each, facts, "").value for each in (numbers, again))
        assert abs(one - other) < 0.2


def test_published_ratios_are_met() -> None:
    random = np.random.default_rng(0)
    baseline = np.exp(random.normal(3.0, 0.9, 300))
    spread = published_spread(baseline)
    ratios = []
    for volume in baseline:
        distribution = FollowupDistribution.of(spread, float(volume), 0.5)
        ratios += [distribution.quantile_if_expands(share, SIX) / volume for share in np.linspace(0.05, 0.95, 10)]
    assert np.quantile(ratios, PUBLISHED_SHARES[1:4]) == pytest.approx(PUBLISHED_RATIOS[1:4], rel=0.08)


def test_the_spread_of_a_hospital_is_found_again() -> None:
    truth = Spread(0.03, 0.06, 0.6, -0.25, 0.8, 1.4, network_growth=0.5)
    random = np.random.default_rng(2)
    pairs = []
    for _ in range(300):
        volume, network = float(np.exp(random.normal(2.6, 0.8))), float(np.exp(random.normal(math.log(0.5), 0.5)))
        expands = bool(random.random() < 0.4)
        distribution = FollowupDistribution.of(truth, volume, 1.0 if expands else 0.0, SIX, network)
        pairs.append(GrowthPair(volume, distribution.quantile(random.random()), network, expands))
    found = renew_spread(SPREAD, pairs)
    assert found.deviation == pytest.approx(0.06, rel=0.2)
    assert found.middle == pytest.approx(0.03, abs=0.02)
    assert found.excess == pytest.approx(0.6, rel=0.25)
    assert found.by_network > 0.4
    few = renew_spread(SPREAD, pairs[:20])
    assert abs(few.by_network) < abs(found.by_network)


# --- packages and commands ------------------------------------------------------------------------------


def test_the_shipped_forecast_says_how_well_it_does(shipped: ForecastModel) -> None:
    package = find_package(None, "forecast")
    results = package.description.results
    assert package.description.task == "forecast"
    assert 0.6 < results["volume_auc"] < results["without_gcs_auc"] < results["all_auc"] < 0.9
    assert "real patients" in shipped.source
    assert shipped.spread("automatic").deviation > shipped.spread("true").deviation


@pytest.mark.skipif(not REAL_PATIENTS.exists(), reason="the table of real patients is not beside the repository")
def test_the_shipped_forecast_is_the_fit_of_the_real_patients(shipped: ForecastModel) -> None:
    patients, notes = read_patients(REAL_PATIENTS)
    assert len(patients.facts) == 555
    assert len(notes) == 1
    assert "gcs 1" in notes[0]
    numbers = fit_whether(patients)
    assert numbers.coefficients == pytest.approx(shipped.numbers.coefficients, abs=1e-6)
    figures = [
        how_well(each, patients.expanded) for each in out_of_fold(patients, ("onset_hours", "irregular", "blend"))
    ]
    assert np.mean([each.auc for each in figures]) == pytest.approx(0.72, abs=0.01)


def test_a_damaged_forecast_is_refused(tmp_path: Path) -> None:
    package = find_package(None, "forecast")
    folder = tmp_path / "forecast-broken"
    folder.mkdir()
    values = json.loads((package.folder / "model.json").read_text(encoding="utf-8"))
    (folder / "weights.safetensors").write_bytes((package.folder / "weights.safetensors").read_bytes())
    for change in (
        {"settings": {**values["settings"], "spread": {"true": {"middle": 0.0}}}},
        {"settings": {**values["settings"], "spread": {}}},
        {"settings": {}},
        {"architecture": {"name": "evidence-logistic", "arguments": {}}},
    ):
        (folder / "model.json").write_text(json.dumps({**values, **change}), encoding="utf-8")
        with pytest.raises(ModelPackageError):
            install_package(folder)


def test_a_forecast_from_numbers_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["forecast", "--volume", "22", "--onset-hours", "2", "--irregular", "yes", "--warfarin", "yes"]) == 0
    )
    said = capsys.readouterr().out
    assert "22 mL now · 72 % chance of expansion" in said
    assert "irregular: 43 % → warfarin × 3.5: 72 %" in said
    assert "Research use only" in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "--volume"),
        (["--volume", "0"], "must lie between"),
        (["--volume", "20", "--gcs", "2"], "Glasgow"),
        (["--table", "x.csv"], "-o"),
        (["--volume", "20", "-o", "x.csv"], "--table"),
        (["--volume", "20", "--table", "x.csv", "-o", "y.csv"], "leave out"),
        (["--volume", "20", "--risk", "brain", "--likelihood-ratio", "swirl"], "--risk evidence"),
    ],
)
def test_what_a_forecast_lacks_is_said(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["forecast", *arguments]) == 2
    assert sentence in capsys.readouterr().err


def test_a_table_of_patients_keeps_its_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, output = tmp_path / "in.csv", tmp_path / "out.csv"
    table.write_text(
        "Patient,volume_ml,onset_hours,irregular,blend,gcs\n"
        "a,22,2,1,0,\nb,22,,,,\nc,5,3,0.4,no,14\nd,,3,1,1,9\ne,12,2,yes,0,1\n",
        encoding="utf-8",
    )
    assert main(["forecast", "--table", str(table), "-o", str(output)]) == 0
    with output.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["Patient"] for row in rows] == list("abcde")
    assert rows[0]["volume_ml"] == "22"
    assert float(rows[0]["probability_of_expansion"]) > float(rows[1]["probability_of_expansion"])
    for row in (*rows[:3], rows[4]):
        told = [float(row[f"volume_ml_{share}"]) for share in (10, 25, 50, 75, 90)]
        assert told == sorted(told)
        assert (
            float(row["probability_low"]) < float(row["probability_of_expansion"]) < float(row["probability_high"])
        )
    assert rows[3]["probability_of_expansion"] == ""
    assert "volume_ml" in rows[3]["note"]
    assert "gcs 1 is out of range" in rows[4]["note"]
    assert "4 of 5" in capsys.readouterr().out
    assert main(["forecast", "--table", str(table), "-o", str(output)]) == 2, "no file is ever replaced"


def test_an_evaluation_measures_forecast_and_rivals(case_folder: Path, tmp_path: Path) -> None:
    output, result = tmp_path / "figures", tmp_path / "result"
    assert main(["evaluate", "forecast", "--cohort", str(case_folder.parent), "-o", str(output)]) == 0
    with (output / "forecast.csv").open(encoding="utf-8") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert list(rows) == [
        "forecast-evidence", "no growth", "uniform dilation", "uniform dilation to the true volume"
    ]  # fmt: skip
    known = json.loads((case_folder / "case.json").read_text(encoding="utf-8"))
    still = rows["no growth"]
    assert float(still["crps_ml"]) == pytest.approx(abs(known["followup_ml"] - known["baseline_ml"]), rel=1e-3)
    assert float(rows["uniform dilation to the true volume"]["crps_ml"]) < 0.01
    scan, mask = (str(case_folder / f"baseline{end}.nii.gz") for end in ("", "-mask"))
    ventricular = "--intraventricular" if known["intraventricular"]["baseline"] else "--no-intraventricular"
    told = ["--onset-hours", str(known["onset_hours"]), ventricular]
    assert main(["predict", "-i", scan, "--mask", mask, "-o", str(result), *told]) == 0
    forecast = json.loads((result / "prediction.json").read_text(encoding="utf-8"))["forecast"]
    own = rows["forecast-evidence"]
    assert float(own["probability"]) == pytest.approx(forecast["probability_of_expansion"])
    assert float(own["if_expands_ml"]) == pytest.approx(forecast["if_expands"]["volume_ml"])
    summary = json.loads((output / "forecast.json").read_text(encoding="utf-8"))
    assert 0 <= summary["forecast-evidence"]["map_error"] < 0.6
    assert (output / "forecast.png").exists()


def test_too_few_pairs_calibrate_nothing(
    case_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "forecast-own"
    assert main(["calibrate", "--cohort", str(case_folder.parent), "-o", str(output), "--masks", "true"]) == 2
    assert "at least 20 pairs of scans: here are 1" in capsys.readouterr().err
    assert not output.exists()


def test_a_cohort_calibrates_what_it_shows(shipped: ForecastModel) -> None:
    """Among forty patients of whom none expands, the probability falls; among as many who all do, it rises."""
    signs = {"irregular": 0.5, "blend": 0.5}
    facts = [Facts(float(volume), 3.0, **signs) for volume in np.linspace(5, 40, 40)]

    def samples(grows: float) -> list[ForecastSample]:
        return [
            ForecastSample(str(k), each, "true", 0.5, 200.0, grows * each.volume_ml, grows > 1.33)
            for k, each in enumerate(facts)
        ]

    before = make_forecast(shipped, facts[20], Circumstances()).probability
    none, all_of_them = (calibrated(shipped, samples(grows), "patients") for grows in (1.0, 1.6))
    assert make_forecast(none, facts[20], Circumstances()).probability < before / 2
    assert make_forecast(all_of_them, facts[20], Circumstances()).probability > before + 0.3
    assert none.spread("true").deviation < shipped.spread("true").deviation
    assert none.spread("automatic") == shipped.spread("automatic"), "no such masks were seen"
    with pytest.raises(InputError, match="at least 20 pairs"):
        calibrated(shipped, samples(1.0)[:19], "patients")


def test_a_table_trains_a_forecast(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, output = tmp_path / "patients.csv", tmp_path / "forecast-own"
    patients = simulated_patients(240, 11)
    lines = ["expansion,volume_ml,onset_hours,irregular,blend,gcs"]
    for facts, expanded in zip(patients.facts, patients.expanded, strict=True):
        known = (facts.volume_ml, facts.onset_hours, facts.irregular, facts.blend, facts.gcs)
        lines.append(f"{int(expanded)},{','.join(map(str, known))}")
    table.write_text("\n".join(lines), encoding="utf-8")
    command = [
        "train",
        "forecast",
        "--patients",
        str(table),
        "-o",
        str(output),
        "--described-as",
        "made-up patients",
    ]
    assert main(command) == 0
    assert "without gcs: auc 0." in capsys.readouterr().out
    package = find_package(str(output), "forecast")
    assert ForecastModel.of(package).source == "240 made-up patients"
    assert package.description.results["training_share_expanded"] == pytest.approx(
        patients.expanded.mean(), abs=1e-3
    )
    assert main(["forecast", "--volume", "20", "--forecast", str(output)]) == 0
    table.write_text("\n".join(lines[:40]), encoding="utf-8")
    assert main([*command[:5], str(tmp_path / "forecast-few")]) == 2
    assert "at least 20 patients whose hematoma expanded" in capsys.readouterr().err
