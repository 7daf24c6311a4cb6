"""The script for a GPU, as far as it can be tried without one; with one it is run in full."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gpu
import pytest
import torch
from gpu import Agreement, TrainingStep, published_steps, step_cost

CPU = torch.device("cpu")


def test_without_a_gpu_it_says_so_and_ends_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main() == 0
    assert capsys.readouterr().out.strip() == gpu.NO_GPU


def test_predictions_are_equal_up_to_a_tenth_of_a_milliliter_and_a_hundredth_of_dice() -> None:
    same = Agreement(20.0, 20.05, 0.999, 0.995)
    assert same.holds
    assert not replace(same, second_ml=20.2).holds
    assert not replace(same, dice_baseline=0.98).holds
    assert not replace(same, dice_followup=0.98).holds


def test_every_published_network_has_its_published_size_and_batch() -> None:
    steps = {step.name: step for step in published_steps()}
    assert steps["growth, paper"].shapes["ct"] == (8, 1, 64, 64, 64)
    assert steps["growth, paper"].arguments["channels"] == [64, 128, 256, 512]
    assert steps["risk, two-output"].shapes["ct"] == (1, 1, 32, 256, 256)
    assert steps["risk, slices, resnet34"].shapes["ct"] == (64, 1, 512, 512)
    assert steps["segmentation, slices, attention-unet"].shapes["ct"] == (2, 1, 512, 512)
    assert len(steps) == 10


def _narrow(step: TrainingStep) -> TrainingStep:
    """The same step with a few channels and small images, for a CPU."""
    arguments: dict[str, Any] = {**step.arguments, "channels": [4] * len(step.arguments["channels"])}
    sides = {"risk, slices, vgg16": 64}.get(step.name, 32)
    shapes = {name: (2, 1, *(sides for _ in shape[2:])) for name, shape in step.shapes.items()}
    return replace(step, arguments=arguments, shapes=shapes)


@pytest.mark.parametrize("step", list(published_steps()), ids=lambda step: step.name)
def test_each_step_learns_alike_in_full_and_mixed_precision(step: TrainingStep) -> None:
    full, mixed = (step_cost(_narrow(step), CPU, mixed=precision, times=1) for precision in (False, True))
    assert full.peak_gib is None
    assert full.seconds > 0
    assert mixed.loss == pytest.approx(full.loss, rel=gpu.MAX_DIFFERENCE_OF_LOSS)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu_all_checks_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "benchmarks"))
    assert gpu.main() == 0
