"""Measures what a GPU gives, in under five minutes: ``python3 Testing/gpu.py``, for
``Testing/benchmarks/RESULTS.md``.

Checks that a prediction on the GPU equals that on the CPU, and that the CPU takes over when the GPU runs out of
memory. Times each stage of a prediction, and a training step of each published network in full and in mixed
precision, with its memory. Exit status 1 if a check fails, 0 with a sentence if there is no GPU.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from environment import TESTING, continue_in_environment

if TYPE_CHECKING:
    import torch
    from HematomaExpansionLib.prediction import Prediction

    Batch = dict[str, torch.Tensor]
    Loss = Callable[[torch.nn.Module, Batch], dict[str, torch.Tensor]]

NO_GPU = "There is no GPU that torch can use on this computer, so there is nothing to check."
MAX_DIFFERENCE_ML, MIN_DICE, GOAL_S = 0.1, 0.99, 2.0
MAX_DIFFERENCE_OF_LOSS = 0.05
"""Between full and mixed precision, as a share of the loss."""


@dataclass(frozen=True)
class Agreement:
    """How far two predictions of one scan agree; volumes in mL, of the follow-up's masks."""

    first_ml: float
    second_ml: float
    dice_baseline: float
    dice_followup: float

    @property
    def holds(self) -> bool:
        """Whether a reader could mistake one for the other."""
        return (
            abs(self.first_ml - self.second_ml) <= MAX_DIFFERENCE_ML
            and min(self.dice_baseline, self.dice_followup) >= MIN_DICE
        )


@dataclass(frozen=True)
class TrainingStep:
    """A network at its published size with random weights, what it sees in one step, and its loss."""

    name: str
    architecture: str
    arguments: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    loss: Loss


@dataclass(frozen=True)
class StepCost:
    """Cost of one training step: seconds, peak memory in GiB (None on a CPU), and its initial loss."""

    seconds: float
    peak_gib: float | None
    loss: float


def published_steps() -> Iterator[TrainingStep]:
    """The networks of the papers and the shipped ones, each with its own batch."""
    from functools import partial

    from HematomaExpansionLib.training.growth import samples as growth_samples
    from HematomaExpansionLib.training.growth import training as growth_training
    from HematomaExpansionLib.training.risk import networks as risk_network_training
    from HematomaExpansionLib.training.segmentation import (
        slices as slice_training,
    )
    from HematomaExpansionLib.training.segmentation import (
        training as segmentation_training,
    )

    for name in ("paper", "compact"):
        growth = growth_samples.PRESETS[name]
        shape = (growth.fit.batch_size, 1, *reversed(growth.patch))
        keys = ("ct", "mask", "confinement", "followup_ct", "followup_mask")
        loss = partial(growth_training.growth_loss, growth)
        shapes = dict.fromkeys(keys, shape)
        yield TrainingStep(f"growth, {name}", growth.architecture, growth.arguments, shapes, loss)
    module = segmentation_training
    shape = (module.FIT.batch_size, 1, *reversed(module.PATCH))
    arguments = {"channels": list(module.CHANNELS)}
    shapes = dict.fromkeys(("ct", "mask"), shape)
    yield TrainingStep("segmentation, compact", "segmentation-unet", arguments, shapes, module.segmentation_loss)
    for network, channels in slice_training.MASK_NETWORKS.items():
        size, count = slice_training.PRESET.size, slice_training.PRESET.fit.batch_size
        shapes = dict.fromkeys(("ct", "mask"), (count, 1, *reversed(size)))
        arguments = {"network": network, "channels": list(channels)}
        yield TrainingStep(
            f"segmentation, slices, {network}", "slice-segmentation", arguments, shapes, slice_training.mask_loss
        )
    for name, network_of_slices in (
        ("two-output", None),
        *(("slices", c) for c in risk_network_training.CLASSIFIERS),
    ):
        risk = risk_network_training.risk_preset(name, network_of_slices, (), ())
        x, y, z = risk.view.size
        count = risk.fit.batch_size
        shape = (count, 1, z, y, x) if risk.finds_masks else (count, 1, y, x)
        shapes = {"ct": shape, "expanded": (count, 1)} | ({"mask": shape} if risk.finds_masks else {})
        loss = risk_network_training.two_output_loss if risk.finds_masks else risk_network_training.slice_loss
        title = "risk, two-output" if network_of_slices is None else f"risk, slices, {network_of_slices}"
        yield TrainingStep(title, risk.view.architecture, risk.arguments, shapes, loss)


def step_cost(step: TrainingStep, device: torch.device, *, mixed: bool, times: int = 3) -> StepCost:
    """The median of several Adam steps, after one to warm up; both precisions use the same weights and input.

    Raises:
        torch.cuda.OutOfMemoryError: the GPU does not have enough memory.
    """
    import torch
    from HematomaExpansionLib.models.networks.build import build_network

    torch.manual_seed(0)
    network = build_network(step.architecture, step.arguments).to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    batch = {name: torch.rand(shape).to(device) for name, shape in step.shapes.items()}
    for name in batch.keys() & {"mask", "followup_mask", "expanded"}:
        batch[name] = (batch[name] > 0.5).float()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    measured, losses = [], []
    for _ in range(times + 1):
        _wait_for(device)
        start = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            total = torch.stack(list(step.loss(network, batch).values())).sum()
        total.backward()
        optimizer.step()
        _wait_for(device)
        measured.append(time.perf_counter() - start)
        losses.append(float(total.detach()))
    peak = torch.cuda.max_memory_allocated(device) / 1024**3 if device.type == "cuda" else None
    return StepCost(statistics.median(measured[1:]), peak, losses[0])


def _wait_for(device: torch.device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def agreement_of(first: Prediction, second: Prediction) -> Agreement:
    """Compare two predictions of one scan in which a hematoma was found."""
    from HematomaExpansionLib.measures.agreement import dice

    assert first.growth is not None
    assert second.growth is not None
    pairs = [
        (first.baseline_mask, second.baseline_mask),
        (first.growth.followup_mask, second.growth.followup_mask),
    ]
    overlaps = [dice(*(mask.voxels for mask in pair)) for pair in pairs]
    return Agreement(*(mask.volume_ml for mask in pairs[1]), *overlaps)


def check_predictions() -> bool:
    """Check the sample on GPU and CPU, and on a GPU without free memory."""
    import torch
    from HematomaExpansionLib.device import GPU_MEMORY
    from HematomaExpansionLib.prediction import predict
    from HematomaExpansionLib.scan.head_ct import read_head_ct
    from speed import SAMPLE, options

    scan = read_head_ct(SAMPLE)
    on_cpu, on_gpu = (predict(scan, options(device)) for device in ("cpu", "cuda"))
    print("| the sample patient, follow-up | CPU, mL | GPU, mL | Dice now | Dice follow-up | |")
    print("| --- | --- | --- | --- | --- | --- |")
    holds = _print_agreement("on the GPU", agreement_of(on_cpu, on_gpu))
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-4)
    try:
        without_memory = predict(scan, options("cuda"))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    holds &= _print_agreement("its memory full: the CPU takes over", agreement_of(on_cpu, without_memory))
    is_known = GPU_MEMORY in without_memory.result["input"]["warnings"]
    print(f"\nThat the CPU took over is {'told' if is_known else 'NOT TOLD'}: “{GPU_MEMORY}”\n", flush=True)
    return holds and is_known


def _print_agreement(title: str, found: Agreement) -> bool:
    verdict = "equal" if found.holds else "DIFFERENT"
    volumes = f"{found.first_ml:.2f} | {found.second_ml:.2f}"
    print(f"| {title} | {volumes} | {found.dice_baseline:.4f} | {found.dice_followup:.4f} | {verdict} |")
    return found.holds


def print_stages() -> None:
    """Print the seconds of each stage of a warm prediction on the GPU and on the CPU."""
    from speed import THICK, scan_of, warm_run

    with tempfile.TemporaryDirectory() as folder:
        runs = {}
        for device in ("cuda", "cpu"):
            place = Path(folder) / device
            place.mkdir()
            runs[device] = warm_run(scan_of(THICK), place, device)
    print(f"| stage, {' × '.join(map(str, THICK))}, warm | GPU, s | CPU, s |\n| --- | --- | --- |")
    for stage, seconds in runs["cuda"].items():
        print(f"| {stage} | {seconds:.2f} | {runs['cpu'][stage]:.2f} |")
    total = runs["cuda"]["total"]
    missed = "reached" if total <= GOAL_S else f"missed by {total - GOAL_S:.1f} s"
    print(f"\nGoal for the GPU: under {GOAL_S:.0f} s in all ({missed}).\n", flush=True)


def print_training_steps(device: torch.device) -> bool:
    """Print a line for each published network; returns whether both precisions agree wherever both fit."""
    import torch

    print("| training step | full, s | GiB | mixed, s | GiB | loss, full and mixed |")
    print("| --- | --- | --- | --- | --- | --- |")
    holds = True
    for step in published_steps():
        costs = []
        for mixed in (False, True):
            torch.cuda.empty_cache()
            try:
                costs.append(step_cost(step, device, mixed=mixed))
            except torch.cuda.OutOfMemoryError:
                costs.append(None)
        cells = [
            "does not fit | " if cost is None else f"{cost.seconds:.3f} | {cost.peak_gib:.1f}" for cost in costs
        ]
        full, half = costs
        losses = ""
        if full is not None and half is not None:
            agrees = abs(full.loss - half.loss) <= MAX_DIFFERENCE_OF_LOSS * abs(full.loss)
            holds &= agrees
            losses = f"{full.loss:.3f}, {half.loss:.3f}{'' if agrees else ' DIFFERENT'}"
        print(f"| {step.name} | {cells[0]} | {cells[1]} | {losses} |", flush=True)
    return holds


def main() -> int:
    """Run everything on the first GPU."""
    import torch

    if not torch.cuda.is_available():
        print(NO_GPU)
        return 0
    sys.path.insert(0, str(TESTING / "benchmarks"))
    started = time.perf_counter()
    gib = torch.cuda.get_device_properties(0).total_memory / 1024**3
    print(
        f"`python3 Testing/gpu.py`, {torch.cuda.get_device_name(0)} ({gib:.0f} GiB), torch {torch.__version__}.\n"
    )
    holds = check_predictions()
    print_stages()
    holds &= print_training_steps(torch.device("cuda"))
    verdict = "all checks hold" if holds else "CHECKS FAILED"
    print(f"\nAll of it took {time.perf_counter() - started:.0f} s; {verdict}.")
    return 0 if holds else 1


if __name__ == "__main__":
    continue_in_environment(__file__, "requirements.txt")
    sys.exit(main())
