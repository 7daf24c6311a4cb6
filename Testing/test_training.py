"""Training and evaluation: the loss does what it should, cases stay on their side, a small model learns."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from HematomaExpansionLib.errors import InputError
from HematomaExpansionLib.training.cohort import case_folders, describe_cohort, split_by_case
from HematomaExpansionLib.training.evaluation import (
    GrowthRow,
    dice,
    growth_dice,
    summarize_growth,
)
from HematomaExpansionLib.training.growth_training import PATCH, growth_loss, roughness
from torch import nn


class ShiftAlongX(nn.Module):
    """A network of one number: everything flows along x."""

    def __init__(self, voxels: float = 0.0) -> None:
        super().__init__()
        self.voxels = nn.Parameter(torch.tensor(voxels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        field = torch.zeros(len(x), 3, *x.shape[2:])
        field[:, 2] = self.voxels
        return field


def shifted_pair(voxels: int) -> dict[str, torch.Tensor]:
    """A patch whose follow-up is its baseline, moved by ``voxels`` toward larger x."""
    baseline = torch.zeros(1, 1, *PATCH[::-1])
    baseline[..., 16:32, 16:32, 16:32] = 1.0
    baseline[..., 15, :, :] = 0.5 * baseline[..., 16, :, :]  # a surface with fractions
    followup = torch.roll(baseline, voxels, dims=-1)
    return {
        "ct": baseline * 0.6,
        "mask": baseline,
        "confinement": torch.ones_like(baseline),
        "followup_ct": followup * 0.6,
        "followup_mask": followup,
    }


def test_the_loss_is_lowest_at_the_true_displacement() -> None:
    batch = shifted_pair(2)
    terms = {shift: growth_loss(ShiftAlongX(shift), batch) for shift in (2.0, 0.0, -1.0, -2.0, -3.0)}
    for name in ("dice", "growth", "image"):
        values = {shift: term[name].item() for shift, term in terms.items()}
        assert min(values, key=values.__getitem__) == -2.0, "predicted(x) = baseline(x + u): blood moves against u"
        assert values[-2.0] < 0.01 * values[0.0]


def test_every_term_of_the_loss_reaches_the_weights() -> None:
    for name in ("dice", "growth", "image", "smoothness"):
        network = ShiftAlongX(-1.0)
        growth_loss(network, shifted_pair(2))[name].backward()
        assert network.voxels.grad is not None
        assert float(network.voxels.grad.abs()) > 0, f"the {name} loss is detached from the network"


def test_roughness_is_the_mean_square_of_the_gradient() -> None:
    field = torch.zeros(1, 3, 8, 8, 8)
    field[:, 0] = 0.5 * torch.arange(8.0).view(1, 1, 8)
    assert float(roughness(field)) == pytest.approx(0.25 / 9)
    assert float(roughness(torch.ones(1, 3, 8, 8, 8))) == 0.0


def test_growth_dice_leaves_the_baseline_out() -> None:
    baseline, predicted, true = (np.zeros(10, bool) for _ in range(3))
    baseline[:5], predicted[:7], true[:8] = True, True, True
    assert growth_dice(baseline, predicted, true) == pytest.approx(2 * 2 / (2 + 3))
    assert growth_dice(baseline, baseline, true) == 0.0
    shrunk = baseline.copy()
    shrunk[0] = False  # a shrunken prediction has no growth, and none that is negative
    assert growth_dice(baseline, shrunk, true) == 0.0
    assert dice(np.zeros(3, bool), np.zeros(3, bool)) == 1.0


def test_summary_means_are_those_of_the_paper() -> None:
    def row(case: str, predicted: float, followup: float, score: float) -> GrowthRow:
        return GrowthRow(case, "model", 10.0, followup, predicted, score, 0.8, 0.4)

    summary = summarize_growth([row("a", 12.0, 20.0, 0.4), row("b", 15.0, 11.0, 0.0)])["model"]
    assert summary["average_error_ml"] == pytest.approx((-8 + 4) / 2)
    assert summary["average_absolute_error_ml"] == pytest.approx(6)
    assert summary["growth_dice"] == pytest.approx(0.2)
    assert summary["growth_dice_expanders"] == pytest.approx(0.4)


def make_cases(folder: Path, count: int) -> Path:
    for number in range(count):
        case = folder / f"case-{number}"
        case.mkdir(parents=True)
        (case / "baseline.nii.gz").touch()
        (case / "case.json").write_text(json.dumps({"source": "simulated"}))
    return folder


def test_cases_are_split_whole_and_the_same_way_for_a_seed(tmp_path: Path) -> None:
    folders = case_folders(make_cases(tmp_path, 10))
    training, validation = split_by_case(folders, 0.2, seed=3)
    assert len(training) == 8
    assert len(validation) == 2
    assert set(training) | set(validation) == set(folders)
    assert not set(training) & set(validation)
    assert split_by_case(folders, 0.2, seed=3) == (training, validation)
    assert split_by_case(folders, 0.2, seed=4) != (training, validation)
    with pytest.raises(InputError, match="at least two"):
        split_by_case(folders[:1], 0.2, seed=0)


def test_a_package_says_whom_it_was_trained_on(tmp_path: Path) -> None:
    make_cases(tmp_path, 3)
    assert "simulated patients, no real ones" in describe_cohort(tmp_path, 2, 1, 5)
    (tmp_path / "case-0" / "case.json").write_text('{"source": "Hospital A"}')
    assert "no real ones" not in describe_cohort(tmp_path, 2, 1, 5)
    with pytest.raises(InputError, match="no case"):
        case_folders(tmp_path / "case-0")
