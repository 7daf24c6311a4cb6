"""Probability of expansion: its statistics against known answers, its training on patients with a known rule."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from HematomaExpansionLib.anatomy.mask_source import MaskSource
from HematomaExpansionLib.cli.main import main
from HematomaExpansionLib.errors import InputError, ModelPackageError
from HematomaExpansionLib.forecast.probability import measurements, models_used, predict_risk
from HematomaExpansionLib.markers.scores import ClinicalData, brain_score, brain_text
from HematomaExpansionLib.models.package import find_package, open_package, write_package
from HematomaExpansionLib.output.report import summary_rows
from HematomaExpansionLib.training.risk import logistic as risk_training
from HematomaExpansionLib.training.risk.evaluation import (
    BAT,
    MODEL,
    VOLUME,
    RiskRow,
    cross_validate_risk,
    draw_risk_figures,
    summarize_risk,
)
from HematomaExpansionLib.training.risk.logistic import FEATURES, RiskSample, fit_risk, risk_of, train_risk
from HematomaExpansionLib.training.statistics import at_threshold, auc, compare_auc
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score

pytestmark = pytest.mark.usefixtures("each_brain_found_once")

TRUE_MASKS = MaskSource("true", torch.device("cpu"))


def test_auc_counts_the_pairs_in_the_right_order() -> None:
    expanded = np.array([True, True, True, False, False])
    assert auc(expanded, np.array([5.0, 4.0, 3.0, 2.0, 1.0])).value == 1.0
    assert auc(expanded, np.array([5.0, 1.0, 2.0, 2.0, 0.0])).value == pytest.approx((2 + 1 + 1.5) / 6)


def scores(patients: int, signal: float, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Who expanded, a score that says something about it, and another that says as much, half of it the same."""
    expanded = random.random(patients) < 0.3
    shared = random.normal(size=patients)
    first, second = (signal * expanded + shared + random.normal(size=patients) for _ in range(2))
    return expanded, first, second


def test_the_interval_of_the_auc_holds_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    expanded, score, _ = scores(200_000, 1.0, random)
    truth = roc_auc_score(expanded, score)
    intervals = [auc(*scores(120, 1.0, random)[:2]) for _ in range(400)]
    held = np.mean([interval.low <= truth <= interval.high for interval in intervals])
    assert 0.91 < held < 0.98


def test_delongs_test_errs_as_often_as_it_says_and_sees_a_difference() -> None:
    random = np.random.default_rng(2)
    same = [compare_auc(*scores(120, 1.0, random)) for _ in range(400)]
    assert 0.02 < np.mean(np.array(same) < 0.05) < 0.09
    expanded, score, _ = scores(300, 1.5, random)
    assert compare_auc(expanded, score, random.normal(size=300)) < 0.001
    assert compare_auc(expanded, score, score) == 1.0


@pytest.mark.parametrize("patients", [(2, 2), (5, 9), (40, 60)])
def test_no_score_is_reported_as_certain(patients: tuple[int, int]) -> None:
    """DeLong's variance is zero for a score that is the same for all, and for one that separates both groups."""
    expanded = np.repeat([True, False], patients)
    same = auc(expanded, np.full(len(expanded), 0.3))
    assert (same.value, same.low, same.high) == (0.5, 0.0, 1.0), "it tells nothing"
    perfect, worst = auc(expanded, expanded.astype(float)), auc(expanded, 1.0 - expanded)
    assert (perfect.value, perfect.high, worst.value, worst.low) == (1.0, 1.0, 0.0, 0.0)
    assert worst.high == pytest.approx(1 - perfect.low, abs=1e-6)
    assert {2: 0.3, 5: 0.6, 40: 0.95}[patients[0]] < perfect.low < {2: 0.75, 5: 0.85, 40: 0.98}[patients[0]]
    assert compare_auc(expanded, np.ones(len(expanded)), expanded.astype(float)) is None, "no p of 0"


def test_the_interval_of_a_score_that_separates_few_patients_holds_the_truth() -> None:
    """A score whose AUC is 0.9 may separate them by chance."""
    random = np.random.default_rng(5)
    expanded, held, perfect = np.repeat([True, False], [6, 6]), 0, 0
    for _ in range(2000):
        interval = auc(expanded, random.normal(1.8124 * expanded, 1.0))
        if interval.value == 1.0:
            perfect += 1
            held += interval.low <= 0.9
    assert perfect > 200
    assert held == perfect


def test_a_single_patient_of_a_kind_gives_no_p() -> None:
    expanded = np.array([True, False, False, False])
    assert compare_auc(expanded, np.array([3.0, 2.0, 1.0, 0.0]), np.array([3.0, 5.0, 1.0, 0.0])) is None


def test_figures_at_a_threshold_have_their_textbook_values() -> None:
    expanded = np.repeat([True, True, False, False], [9, 1, 12, 28])
    called = np.repeat([True, False, True, False], [9, 1, 12, 28])
    figures = at_threshold(expanded, called)
    assert figures["sensitivity"] == pytest.approx(0.9)
    assert figures["specificity"] == pytest.approx(0.7)
    assert figures["accuracy"] == pytest.approx(37 / 50)
    assert figures["precision"] == pytest.approx(9 / 21)
    assert figures["f1"] == pytest.approx(2 * 9 / (2 * 9 + 12 + 1))
    assert figures["likelihood_ratio_positive"] == pytest.approx(3.0)
    assert figures["weighted_likelihood_ratio_positive"] == pytest.approx(0.25 * 3.0)
    assert figures["likelihood_ratio_negative"] == pytest.approx(0.1 / 0.7)
    everybody = at_threshold(expanded, np.ones(50, bool))
    assert "likelihood_ratio_negative" not in everybody, "no one is told no"


def test_brier_scores_are_those_of_known_probabilities() -> None:
    rows = [RiskRow("a", True, 0.8, 20.0, 4), RiskRow("b", False, 0.4, 10.0, 1)]
    summary = summarize_risk(rows, 0.5)
    assert summary[MODEL]["brier"] == pytest.approx((0.04 + 0.16) / 2)
    assert "brier" not in summary[BAT], "a score is no probability"


def patients(number: int, seed: int) -> list[RiskSample]:
    """Patients who expand by a known rule: the share of low density, and how early the scan was, where known."""
    random = np.random.default_rng(seed)
    samples = []
    for k in range(number):
        share, hours = random.beta(2, 6), random.uniform(0.5, 6)
        known = random.random() < 0.7
        chance = 1 / (1 + np.exp(-(14 * (share - 0.25) - 0.5 * (hours - 3))))
        measured = dict.fromkeys(FEATURES, 0.0) | {
            "swirl.low_density_share": share,
            "swirl.lowest_hu": float(random.normal(40, 3)),
            "log_volume_ml": float(random.normal(2.4, 0.9)),
            "onset_hours": hours if known else np.nan,
        }
        volume = float(np.exp(measured["log_volume_ml"]))
        samples.append(RiskSample(f"p{k}", measured, volume, int(random.integers(0, 6)), random.random() < chance))
    return samples


def test_what_tells_expansion_is_learned_and_a_missing_onset_is_no_obstacle() -> None:
    learned, unseen = patients(400, 1), patients(2000, 2)
    probability = risk_of(fit_risk(learned, seed=0), unseen)
    expanded = np.array([sample.expanded for sample in unseen])
    assert auc(expanded, probability).value > 0.75
    for share, mean in zip(*calibration_curve(expanded, probability, n_bins=5, strategy="quantile"), strict=True):
        assert share == pytest.approx(mean, abs=0.08)


def test_a_risk_package_says_what_its_training_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learned, unseen = patients(200, 1), patients(50, 2)
    monkeypatch.setattr(risk_training, "measure_cases", lambda *_arguments: learned)
    cases = [tmp_path / sample.case for sample in learned]
    package = train_risk(cases, tmp_path / "risk-made", TRUE_MASKS, 0)
    probability = risk_of(fit_risk(learned, seed=0), unseen)
    for sample, expected in zip(unseen, probability, strict=True):
        risk = predict_risk(sample.measured, package)
        assert risk.probability == pytest.approx(expected, abs=0.01), "half precision"
        assert risk.model["name"] == "risk-made"
    share = np.mean([sample.expanded for sample in learned])
    assert package.description.results["training_share_expanded"] == pytest.approx(share, abs=1e-4)
    assert open_package(tmp_path / "risk-made").description.task == "risk"


def test_the_table_sets_the_model_beside_volume_and_bat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from HematomaExpansionLib.training.risk import evaluation as risk_evaluation

    monkeypatch.setattr(risk_evaluation, "measure_cases", lambda *_arguments: patients(300, 3))
    monkeypatch.setattr(risk_evaluation, "case_folders", lambda cohort: [cohort])
    rows = cross_validate_risk(tmp_path, 5, TRUE_MASKS, 0)
    assert sorted(row.case for row in rows) == sorted(f"p{k}" for k in range(300))
    summary = summarize_risk(rows, 0.4)
    assert summary[MODEL]["auc"] > summary[VOLUME]["auc"] + 0.1
    assert summary[VOLUME]["p"] < 0.01
    assert "p" not in summary[MODEL]
    assert summary[MODEL]["brier"] < summary[BAT]["brier"]
    assert {"sensitivity", "specificity", "f1"} <= set(summary[BAT])
    draw_risk_figures(rows, tmp_path / "risk.png")
    assert (tmp_path / "risk.png").stat().st_size > 10_000
    with pytest.raises(InputError, match="folds"):
        cross_validate_risk(tmp_path, 400, TRUE_MASKS, 0)


def test_a_cohort_where_nobody_expands_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from HematomaExpansionLib.training.risk import evaluation as risk_evaluation

    still = [sample for sample in patients(50, 3) if not sample.expanded]
    monkeypatch.setattr(risk_evaluation, "measure_cases", lambda *_arguments: still)
    monkeypatch.setattr(risk_evaluation, "case_folders", lambda cohort: [cohort])
    with pytest.raises(InputError, match="did not"):
        cross_validate_risk(tmp_path, 2, TRUE_MASKS, 0)


def test_the_shipped_model_rates_signs_as_the_literature_does() -> None:
    package = find_package(None, "risk")
    even = {
        "hypodensity": {"present": False, "evidence": {"area_mm2": 0.0}},
        "swirl": {
            "present": False,
            "evidence": {
                "area_mm2": 0.0, "low_density_share": 0.0, "darkest_above_brain_hu": 22.0,
                "below_dense_clot_hu": 2.5,
            },
        },
        "heterogeneous": {"present": False, "evidence": {"deviation_hu": 2.0, "whole_deviation_hu": 2.2}},
        "satellite": {"present": False, "evidence": {"separate_bleeds": 0.0}},
    }  # fmt: skip
    dark = {
        **even,
        "hypodensity": {"present": True, "evidence": {"area_mm2": 80.0, "difference_hu": 25.0}},
        "swirl": {
            "present": True,
            "evidence": {
                "area_mm2": 120.0, "lowest_hu": 36.0, "difference_hu": 25.0, "low_density_share": 0.2,
                "darkest_above_brain_hu": 4.0, "below_dense_clot_hu": 7.0,
            },
        },
        "heterogeneous": {"present": True, "evidence": {"deviation_hu": 4.0, "whole_deviation_hu": 8.0}},
        "satellite": {"present": True, "evidence": {"separate_bleeds": 4.0}},
    }  # fmt: skip
    low, high = (
        predict_risk(measurements(markers, 12.0, hours), package).probability
        for markers, hours in ((even, 6.0), (dark, 1.0))
    )
    assert 0 <= low < 0.3
    assert 0.5 < high <= 1


def test_prediction_tells_the_probability_of_a_risk_model_if_one_is_named(
    case_folder: Path, tmp_path: Path
) -> None:
    given = ["-i", str(case_folder / "baseline.nii.gz"), "--mask", str(case_folder / "baseline-mask.nii.gz")]
    record = ["--onset-hours", "3", "--warfarin", "--no-recurrent", "--no-intraventricular"]
    for name, more in (("with", ["--risk", "risk-compact"]), ("without", record)):
        assert main(["predict", *given, "-o", str(tmp_path / name), *more]) == 0
    told, untold = (json.loads((tmp_path / name / "prediction.json").read_text()) for name in ("with", "without"))
    assert untold["risk"] is None
    assert set(models_used(untold)) == {"segmentation", "growth", "forecast"}
    assert told["risk"]["model"]["name"] == "risk-compact"
    assert models_used(told)["risk"] == told["risk"]["model"]
    measured = measurements(told["markers"], told["baseline"]["volume_ml"], None)
    expected = predict_risk(measured, find_package(None, "risk")).probability
    assert told["risk"]["probability"] == pytest.approx(expected)
    assert told["forecast"]["probability_of_expansion"] == pytest.approx(expected, abs=1e-6)
    assert told["scores"]["brain"] is None, "nothing was told of the patient"
    brain = brain_score(untold["baseline"]["volume_ml"], 3.0, ClinicalData(False, True, False))
    assert brain is not None
    assert untold["scores"]["brain"] == asdict(brain)
    assert ("BRAIN score", brain_text(asdict(brain))) in summary_rows(untold)


@pytest.mark.usefixtures("cases_in_this_process")
def test_risk_is_trained_and_evaluated_by_one_command_each(
    case_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = tmp_path / "cohort"
    baseline = sitk.ReadImage(str(case_folder / "baseline-mask.nii.gz"))
    for k in range(12):
        shutil.copytree(case_folder, cohort / f"case-{k}")
        followup = sitk.BinaryDilate(baseline, [6, 6, 1]) if k % 2 else baseline
        sitk.WriteImage(followup, str(cohort / f"case-{k}" / "followup-mask.nii.gz"))
    package = tmp_path / "risk-small"
    assert main(["train", "risk", "--cohort", str(cohort), "-o", str(package)]) == 0
    evaluate = ["evaluate", "risk", "--cohort", str(cohort), "-o", str(tmp_path / "out"), "--model", str(package)]
    assert main(evaluate) == 0
    summary = json.loads((tmp_path / "out" / "risk.json").read_text())
    assert summary["model"]["auc"] == 0.5, "all baselines are the same"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "risk.json", "risk.csv", "risk.png", "provenance.json",
    }  # fmt: skip
    assert main(["train", "risk", "--cohort", str(cohort), "-o", str(package), "--masks", "both"]) == 2
    assert "true or automatic" in capsys.readouterr().err


def test_a_model_of_measurements_is_no_model_of_voxels(tmp_path: Path) -> None:
    package = find_package(None, "risk")
    claimed = replace(package.description, task="growth")
    with pytest.raises(ModelPackageError, match="out of range"):
        write_package(tmp_path / "claimed", claimed, package.load())
