"""Training and evaluation: the loss does what it should, cases stay in their split, a small model learns."""

import csv
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from HematomaExpansionLib.anatomy.segmentation import segment
from HematomaExpansionLib.cli.main import main
from HematomaExpansionLib.errors import InputError, ModelPackageError
from HematomaExpansionLib.measures.agreement import dice, growth_dice
from HematomaExpansionLib.models.description import ModelDescription, TrainingStep
from HematomaExpansionLib.models.networks.build import build_network
from HematomaExpansionLib.models.package import ModelPackage, find_package, open_package, write_package
from HematomaExpansionLib.scan.grid import Grid, image_on
from HematomaExpansionLib.scan.mask import Mask
from HematomaExpansionLib.scan.subject import Subject
from HematomaExpansionLib.training import fitting
from HematomaExpansionLib.training.data.cohort import case_folders, read_case, split_by_case, with_variants
from HematomaExpansionLib.training.fitting import FitOptions, Patches, PatchPairs, fit, initial_network
from HematomaExpansionLib.training.growth import training as growth_training
from HematomaExpansionLib.training.growth.evaluation import GrowthRow, summarize_growth
from HematomaExpansionLib.training.growth.figures import expansion_table, growth_table
from HematomaExpansionLib.training.growth.samples import (
    PRESETS,
    GrowthSample,
    Samples,
    growth_samples,
    patch_transform,
)
from HematomaExpansionLib.training.growth.training import growth_loss, roughness
from HematomaExpansionLib.training.rivals import uniform_dilation
from HematomaExpansionLib.training.segmentation.training import (
    RandBrightenNearBone,
    bone_around,
    segmentation_loss,
)
from HematomaExpansionLib.training.segmentation.training import patch_transform as segmentation_patch_transform
from HematomaExpansionLib.training.steps import training_steps
from monai.transforms import Compose, EnsureTyped, RandFlipd
from phantoms import volume_ml
from torch import nn

pytestmark = pytest.mark.usefixtures("each_brain_found_once")

COMPACT, PAPER = PRESETS["compact"], PRESETS["paper"]


class ShiftAlongX(nn.Module):
    """A network with one parameter: everything flows along x."""

    def __init__(self, voxels: float = 0.0) -> None:
        super().__init__()
        self.voxels = nn.Parameter(torch.tensor(voxels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        field = torch.zeros(len(x), 3, *x.shape[2:])
        field[:, 2] = self.voxels
        return field


def shifted_pair(voxels: int) -> dict[str, torch.Tensor]:
    """A patch whose follow-up is its baseline, moved by ``voxels`` toward larger x."""
    baseline = torch.zeros(1, 1, *COMPACT.patch[::-1])
    baseline[..., 10:20, 10:20, 10:20] = 1.0
    baseline[..., 9, :, :] = 0.5 * baseline[..., 10, :, :]  # a surface with fractions
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
    terms = {shift: growth_loss(COMPACT, ShiftAlongX(shift), batch) for shift in (2.0, 0.0, -1.0, -2.0, -3.0)}
    for name in ("dice", "growth", "image"):
        values = {shift: term[name].item() for shift, term in terms.items()}
        assert min(values, key=values.__getitem__) == -2.0, "predicted(x) = baseline(x + u): blood moves against u"
        assert values[-2.0] < 0.01 * values[0.0]


class ShiftOfOneHalf(nn.Module):
    """A field that no single matrix can represent: the lower half flows along x, the upper half stands still."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        field = torch.zeros(len(x), 3, *x.shape[2:])
        field[:, 2, :15] = -2.0
        return field


def test_the_dense_field_itself_moves_the_blood() -> None:
    """No single matrix replaces it, and it is not ignored."""
    batch = shifted_pair(2)
    for name in ("ct", "mask"):
        still, moved = batch[name], torch.roll(batch[name], 2, dims=-1)
        target = torch.cat([moved[:, :, :15], still[:, :, 15:]], dim=2)
        batch[{"ct": "followup_ct", "mask": "followup_mask"}[name]] = target
    preset = replace(COMPACT, integration_steps=0)
    dense = growth_loss(preset, ShiftOfOneHalf(), batch)
    whole = {shift: growth_loss(preset, ShiftAlongX(shift), batch) for shift in (0.0, -1.0, -2.0)}
    for name in ("dice", "growth", "image"):
        assert dense[name].item() < 1e-3
        assert min(terms[name].item() for terms in whole.values()) > 0.003


@pytest.mark.parametrize(
    ("slices", "loss"),
    [(4, 1.08 - 0.5), (2, 0.54**2 / 2)],  # linear beyond 10 mL, half the square up to there
)
def test_the_volume_term_is_of_the_missing_volume_in_units_of_10_ml(slices: int, loss: float) -> None:
    batch = shifted_pair(0)
    batch["followup_mask"] = batch["mask"].clone()
    batch["followup_mask"][..., 20 : 20 + slices, 10:20, 10:20] = 1.0  # of 100 voxels of 27 mm³ each
    assert growth_loss(COMPACT, ShiftAlongX(0.0), batch)["volume"].item() == pytest.approx(loss)


def test_every_term_of_the_loss_reaches_the_weights() -> None:
    for name in ("dice", "growth", "image", "smoothness"):
        network = ShiftAlongX(-1.3)
        growth_loss(COMPACT, network, shifted_pair(2))[name].backward()
        assert network.voxels.grad is not None
        assert float(network.voxels.grad.abs()) > 0, f"the {name} loss is detached from the network"


def test_roughness_is_the_mean_square_of_the_gradient() -> None:
    field = torch.zeros(1, 3, 8, 8, 8)
    field[:, 0] = 0.5 * torch.arange(8.0).view(1, 1, 8)
    assert float(roughness(field)) == pytest.approx(0.25 / 9)
    assert float(roughness(torch.ones(1, 3, 8, 8, 8))) == 0.0


def test_growth_dice_is_of_what_was_added() -> None:
    baseline, predicted, true = (np.zeros(10, bool) for _ in range(3))
    baseline[:5], predicted[:7], true[:8] = True, True, True
    assert growth_dice(baseline, predicted, baseline, true) == pytest.approx(2 * 2 / (2 + 3))
    assert growth_dice(baseline, baseline, baseline, true) == 0.0
    shrunk = baseline.copy()
    shrunk[0] = False  # a shrunken prediction has no growth, not a negative one
    assert growth_dice(baseline, shrunk, baseline, true) == 0.0
    assert np.isnan(growth_dice(baseline, predicted, baseline, baseline)), "there is no growth to be found"
    given = np.zeros(10, bool)
    given[:6] = True  # an automatic mask: what it holds was not predicted to grow
    assert growth_dice(given, predicted, baseline, true) == pytest.approx(2 * 1 / (1 + 3))
    assert dice(np.zeros(3, bool), np.zeros(3, bool)) == 1.0


def growth_row(case: str, predicted: float, followup: float, score: float, method: str = "model") -> GrowthRow:
    return GrowthRow(case, method, 10.0, followup, 10.0, predicted, score, 0.8, 0.4)


def test_summary_means_are_those_of_the_paper() -> None:
    rows = [growth_row("a", 12.0, 20.0, 0.4), growth_row("b", 15.0, 11.0, 0.0)]
    summary = summarize_growth(rows)["model"]
    assert summary["average_error_ml"] == pytest.approx((-8 + 4) / 2)
    assert summary["average_absolute_error_ml"] == pytest.approx(6)
    assert summary["growth_dice"] == pytest.approx(0.2)
    assert summary["growth_dice_expanders"] == pytest.approx(0.4)
    assert summary["average_absolute_error_ml_expanders"] == pytest.approx(8)
    assert summary["expansion_auc"] == 0.0, "the case that did not expand was predicted to grow more"
    assert (summary["expansion_auc_low"], summary["expansion_auc_high"]) == (0.0, 1.0), "two patients tell nothing"
    assert summary["expanders"] == 1


def test_deviations_are_those_of_a_sample() -> None:
    """Divided by n instead of n - 1, they would describe these patients alone, and be zero for a single one."""
    rows = [growth_row("a", 12.0, 20.0, 0.4), growth_row("b", 15.0, 21.0, 0.6)]
    summary = summarize_growth(rows)
    assert summary["model"]["average_error_sd_ml"] == pytest.approx(np.std([-8, -6], ddof=1))
    assert summary["model"]["growth_dice_sd_expanders"] == pytest.approx(np.sqrt(0.02))
    assert "| 0.500 ± 0.141 | -7.00 ± 1.41 |" in growth_table(summary)
    alone = summarize_growth(rows[:1])
    assert not [name for name in alone["model"] if "sd" in name]
    assert "| 0.400 | -8.00 |" in growth_table(alone)


def test_growth_that_differs_by_the_same_in_all_has_no_p() -> None:
    rows = [
        growth_row(str(k), 15.0, 20.0, score, name) for name, score in (("a", 0.5), ("b", 0.25)) for k in range(4)
    ]
    assert "p" not in summarize_growth(rows)["b"], "nothing tells by how much it could differ by chance"


def test_rivals_are_tested_in_pairs_and_cases_without_growth_are_left_out() -> None:
    own = [growth_row(str(k), 15.0, 20.0, 0.5 + 0.01 * k) for k in range(5)]
    other = [growth_row(str(k), 15.0, 20.0, 0.3 + 0.02 * k, "rival") for k in range(5)]
    without = [growth_row("x", 10.0, 10.0, float("nan"), method) for method in ("model", "rival")]
    summary = summarize_growth([*own, *other, *without])
    assert summary["model"]["growth_dice"] == pytest.approx(0.52)
    assert summary["rival"]["p"] < 0.01
    assert summary["rival"]["p_expanders"] == pytest.approx(summary["rival"]["p"])
    assert "p" not in summary["model"]
    still = [growth_row(f"s{k}", 15.0, 11.0, 0.2 + 0.1 * k, name) for name in ("model", "rival") for k in (0, 1)]
    summary = summarize_growth([*own, *other, *still])
    assert summary["rival"]["p_expanders"] < summary["rival"]["p"], "those who did not expand are in it"
    lines = expansion_table(summary).splitlines()
    assert lines[2] == "| model | 0.50 (0.00–1.00) | 0.40000 |", "the same for all: it tells nothing"
    assert growth_table(summary).splitlines()[3].endswith("| < 0.001 |")
    assert growth_table(summary, "").splitlines()[3].endswith("| 0.009 |")


def test_uniform_dilation_reaches_the_wanted_volume_evenly() -> None:
    grid = Grid((60, 60, 12), (1.0, 1.0, 5.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1, 0, 0, 0, 1))
    z, y, x = np.ogrid[:12, :60, :60]
    distance = np.sqrt((5 * (z - 6)) ** 2 + (y - 30) ** 2 + (x - 30) ** 2)
    ct, mask = image_on(grid, np.zeros(grid.shape)), Mask.on(grid, distance <= 10)
    inside = np.ones(grid.shape, np.uint8)
    inside[:, :, :24] = 0
    grown = uniform_dilation(Subject(ct, Mask.on(grid, inside), mask), 12.0)
    assert grown.sum() * grid.voxel_volume_ml == pytest.approx(12.0, rel=0.05)
    assert not (grown & (inside == 0) & (distance > 10)).any(), "bone was dilated into"
    assert distance[grown & (inside == 1)].max() - distance[~grown & (inside == 1)].min() < 5.1
    nothing = Subject(ct, Mask.on(grid, inside), Mask.empty(grid))
    assert not uniform_dilation(nothing, 12.0).any()


def growing_balls(cases: Sequence[Path]) -> Samples:
    z, y, x = np.ogrid[-19:19, -19:19, -19:19]
    distance = np.sqrt(z**2 + y**2 + x**2)
    samples = {}
    for number, case in enumerate(cases):
        radius = 4 + 0.2 * number
        balls = {"mask": distance <= radius, "followup_mask": distance <= radius * (1.1 + 0.05 * (number % 3))}
        arrays = {key: balls.get(key, distance < 18)[None].astype(np.float16) for key in shifted_pair(0)}
        samples[case] = [GrowthSample(arrays, radius**3, (1.2 * radius) ** 3)]
    return samples


def test_a_loss_in_the_paper_preset_has_the_papers_terms_alone() -> None:
    assert set(growth_loss(PAPER, ShiftAlongX(1.0), shifted_pair(2))) == {"dice", "image", "smoothness"}


def growth_arrays(shape: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """A sample for the paper preset: a cube of blood that grows along x within a brain of that shape."""
    arrays = {name: np.zeros((1, *shape), np.float16) for name in ("ct", "mask", "followup_ct", "followup_mask")}
    z, y, x = (n // 2 for n in shape)
    arrays["mask"][0, z - 6 : z + 6, y - 6 : y + 6, x - 6 : x + 6] = 1
    arrays["followup_mask"][0, z - 6 : z + 6, y - 6 : y + 6, x - 6 : x + 16] = 1
    arrays["confinement"] = np.ones((1, *shape), np.float16)
    growth = (arrays["followup_mask"] > arrays["mask"])[0]
    arrays["ct"][0] = np.arange(shape[2]) / shape[2]  # shows where a patch came from
    return arrays | {"growth_places": np.flatnonzero(growth), "other_places": np.flatnonzero(~growth)}


def test_the_paper_preset_draws_its_500_patches_and_four_fifths_where_blood_grows() -> None:
    arrays = growth_arrays((96, 96, 160))
    patches = Patches([arrays], patch_transform(PAPER, vary=True), seed=1, per_sample=PAPER.patches_per_case)
    assert len(patches) == 500
    centers = []
    for k in range(200):
        patch = patches[k]
        assert patch["ct"].shape == (1, 64, 64, 64)
        centers.append(float(patch["followup_mask"][0, 32, 32, 32] - patch["mask"][0, 32, 32, 32]))
    assert 0.7 < np.mean(centers) < 0.9
    assert len({float(patches[k]["ct"][0, 0, 0, 0]) for k in range(40)}) > 8, (
        "the same few patches again and again"
    )


def test_a_scan_of_few_slices_gives_whole_patches(case_folder: Path) -> None:
    assert sitk.ReadImage(str(case_folder / "baseline.nii.gz")).GetSize()[2] < 64
    (sample,) = growth_samples(PAPER, None, case_folder)
    assert all(side >= 64 for side in sample.arrays["ct"].shape[1:])
    patches = Patches([sample.arrays], patch_transform(PAPER, vary=True), seed=1, per_sample=4)
    assert all(patches[k]["followup_ct"].shape == (1, 64, 64, 64) for k in range(4))
    places = sample.arrays["other_places"]
    assert (sample.arrays["confinement"].ravel()[places] > 0).all(), "patches are centered in the brain"


def test_a_sample_may_begin_from_the_automatic_mask_and_ends_at_the_truth(case_folder: Path) -> None:
    segmenter = find_package("segmentation-compact", "segmentation")
    own, automatic = growth_samples(COMPACT, segmenter, case_folder)
    case = read_case(case_folder)
    found = segment(case.baseline.ct, case.baseline.inside_skull, segmenter, torch.device("cpu"))
    for sample, given in ((own, case.baseline.hematoma), (automatic, found)):
        voxel_ml = 0.027
        assert sample.baseline_ml == given.volume_ml
        assert sample.arrays["mask"].sum(dtype=float) * voxel_ml == pytest.approx(volume_ml(given), rel=0.02)
        followup_ml = sample.arrays["followup_mask"].sum(dtype=float) * voxel_ml
        assert followup_ml == pytest.approx(volume_ml(case.followup.hematoma), rel=0.02)
    assert own.baseline_ml != automatic.baseline_ml


def test_patches_depend_on_seed_epoch_and_position_alone() -> None:
    def drawn(seed: int, index: int) -> torch.Tensor:
        patches = Patches([growth_arrays((96, 96, 96))], patch_transform(PAPER, vary=True), seed, per_sample=9)
        return patches[index]["ct"]

    assert torch.equal(drawn(1, 4), drawn(1, 4))
    assert not torch.equal(drawn(1, 4), drawn(1, 4 + 9)), "every epoch draws the same"
    assert not torch.equal(drawn(1, 4), drawn(2, 4))


class Falling(nn.Module):
    """A weight that overshoots its best value: the loss falls, then rises."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1, 1, 1, 1))


def toy_loss(network: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """In training the weight is always pushed up; in validation 2.5 is best."""
    weight: torch.Tensor = network.weight.sum()  # type: ignore[operator, assignment]
    return {"toy": -weight * (1 + 0.1 * batch["x"].mean()) if network.training else (weight - 2.5) ** 2}


def toy_fit(
    folder: Path, epochs: int, loss: Any = toy_loss, **options: float
) -> tuple[nn.Module, dict[str, float]]:
    samples = [{"x": np.full((1, 2, 2, 2), k, np.float32)} for k in range(6)]
    vary = Compose([EnsureTyped("x", track_meta=False), RandFlipd("x", prob=0.5)])
    patches = Patches(samples, vary, seed=3)
    network = Falling()
    settings = FitOptions(epochs=epochs, batch_size=2, learning_rate=0.3, patience=50, seed=3, **options)  # type: ignore[arg-type]
    return network, fit(network, loss, PatchPairs(patches, patches), settings, folder)


def test_the_best_weights_are_kept_and_not_the_last(tmp_path: Path) -> None:
    network, results = toy_fit(tmp_path, epochs=8)
    assert float(network.weight.sum()) == pytest.approx(2.5, abs=0.5)  # type: ignore[operator]
    assert results["validation_loss"] < 0.25


def test_a_run_that_was_stopped_and_resumed_ends_like_one_that_was_not(tmp_path: Path) -> None:
    straight, _ = toy_fit(tmp_path / "straight", epochs=3)
    toy_fit(tmp_path / "halting", epochs=1)
    resumed, _ = toy_fit(tmp_path / "halting", epochs=3)
    assert torch.equal(straight.weight, resumed.weight)  # type: ignore[arg-type]
    last = [torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("straight", "halting")]
    assert torch.equal(*(checkpoint["state_dict"]["network.weight"] for checkpoint in last))


def test_patches_drawn_in_processes_beside_a_gpu_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, losses = toy_fit(tmp_path / "alone", epochs=2)
    monkeypatch.setattr(fitting, "_patch_workers", lambda: 2)
    beside, same_losses = toy_fit(tmp_path / "beside", epochs=2)
    assert torch.equal(alone.weight, beside.weight)  # type: ignore[arg-type]
    assert losses == same_losses


class NotFinite(torch.autograd.Function):
    """Passes values on, and returns NaN as their gradient where they exceed 1."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(values)
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (values,) = ctx.saved_tensors
        return torch.where(values > 1, torch.nan, gradients[0])


def test_in_half_precision_a_step_without_a_finite_gradient_is_left_out(tmp_path: Path) -> None:
    def loss(network: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        weight: torch.Tensor = NotFinite.apply(network.weight)  # type: ignore[no-untyped-call]
        return {"toy": (weight.sum() - 2.5) ** 2}

    network, _ = toy_fit(tmp_path, epochs=4, loss=loss, half_precision=True)
    assert 1 < float(network.weight.sum()) < 1.5, "one step beyond 1, and none after it"  # type: ignore[operator]
    with next(tmp_path.glob("log/*/metrics.csv")).open(newline="", encoding="utf-8") as file:
        left_out = [float(row["left_out_steps"]) for row in csv.DictReader(file) if row["left_out_steps"]]
    assert 0 < sum(left_out) < 12
    assert left_out[-1] == 3


def test_the_learning_rate_anneals_to_nothing(tmp_path: Path) -> None:
    toy_fit(tmp_path, epochs=6, annealed=True)
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.0, abs=1e-9)


def small_segmenter(folder: Path) -> ModelPackage:
    arguments = {"channels": [4, 4, 8, 8]}
    description = replace(find_package(None, "segmentation").description, name="small", arguments=arguments)
    torch.manual_seed(8)
    return write_package(folder, description, build_network(description.architecture, arguments))


def test_training_goes_on_from_the_weights_of_a_package_of_the_same_network(tmp_path: Path) -> None:
    start = small_segmenter(tmp_path)
    kind, arguments = start.description.architecture, start.description.arguments
    weights = start.load().state_dict()
    begun = initial_network(kind, arguments, [start], seed=1).network
    assert begun.training
    assert all(torch.equal(value, weights[name]) for name, value in begun.state_dict().items())
    anew = initial_network(kind, arguments, [], seed=1).network
    assert not torch.equal(next(anew.parameters()), next(begun.parameters()))
    with pytest.raises(ModelPackageError, match="another network"):
        initial_network(kind, {"channels": [4, 4, 8, 16]}, [start], seed=1)


def test_members_are_trained_apart_and_make_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth_training, "prepare_growth_samples", lambda _, __, cases: growing_balls(cases))
    command = ["train", "growth", "--cohort", str(make_cases(tmp_path / "cohort", 6))]
    command += ["--epochs", "1", "--channels", "2,4", "--seed", "3"]
    assert main([*command, "-o", str(tmp_path / "two"), "--members", "2"]) == 0
    assert main([*command, "-o", str(tmp_path / "one")]) == 0
    two, one = open_package(tmp_path / "two"), open_package(tmp_path / "one")
    assert (two.description.architecture, two.description.arguments["count"]) == ("ensemble", 2)
    first, second = (list(member.parameters()) for member in two.load().members)
    assert all(torch.equal(a, b) for a, b in zip(first, one.load().parameters(), strict=True)), "the same seed"
    assert not torch.equal(first[0], second[0])
    assert two.description.settings == {"integration_steps": 4}, "how much grows is the forecast's business"


ML_GRID = Grid((12, 12, 20), (2.0, 2.0, 2.5), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1, 0, 0, 0, 1))
"""A hundred voxels of it hold 1 mL."""


def test_a_model_may_learn_from_those_who_expanded_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = make_cases(tmp_path / "cohort", 6)
    folders = case_folders(cohort)
    for number, folder in enumerate(folders):  # 8 mL, and twice as much in every other one
        for scan, slices in (("baseline", 8), ("followup", 8 if number % 2 == 0 else 16)):
            mask = np.zeros((20, 12, 12), np.uint8)
            mask[:slices, :10, :10] = 1
            sitk.WriteImage(image_on(ML_GRID, mask), str(folder / f"{scan}-mask.nii.gz"))
    learned: list[Path] = []

    def prepared(_: object, __: object, cases: Sequence[Path]) -> Samples:
        learned.extend(cases)
        return growing_balls(cases)

    monkeypatch.setattr(growth_training, "prepare_growth_samples", prepared)
    options = ["--epochs", "1", "--channels", "2,4", "--only-expanded", "-o", str(tmp_path / "model")]
    assert main(["train", "growth", "--cohort", str(cohort), *options]) == 0
    assert set(learned) == set(folders[1::2])
    trained_on = open_package(tmp_path / "model").description.trained_on
    (step,) = trained_on
    assert step.text.startswith(
        "learned from 2 simulated patients, no real ones (all of whom expanded, 1 more chose"
    )


def test_several_models_are_gone_on_from_as_their_ensemble(tmp_path: Path) -> None:
    description = find_package(None, "growth").description
    description = replace(description, architecture="displacement-unet", arguments={"channels": [2, 4]})
    networks = []
    for seed in range(2):
        torch.manual_seed(seed)
        networks.append(build_network("displacement-unet", {"channels": [2, 4]}).eval())
    start = [
        write_package(tmp_path / name, description, network) for name, network in zip("AB", networks, strict=True)
    ]
    begun = initial_network("displacement-unet", {"channels": [2, 4]}, start, seed=1)
    described = replace(description, architecture=begun.architecture, arguments=begun.arguments)
    package = write_package(tmp_path / "both", described, begun.network)
    x = torch.rand(1, 2, 8, 8, 8)
    with torch.inference_mode():
        mean = sum(network(x) for network in networks) / 2
        torch.testing.assert_close(package.load()(x), mean, rtol=1e-2, atol=1e-5)
    again = initial_network("displacement-unet", {"channels": [2, 4]}, [package, start[0]], seed=1)
    assert (again.architecture, again.arguments["count"]) == ("ensemble", 3)
    for count in (1, 10**9):
        with pytest.raises(ModelPackageError, match="ensemble"):
            build_network("ensemble", {"member": "displacement-unet", "arguments": {}, "count": count})
    with pytest.raises(ModelPackageError, match="ensemble"):
        build_network("ensemble", {"member": "ensemble", "arguments": {}, "count": 2})


def test_in_segmentation_a_small_bleed_weighs_as_much_as_a_large_one() -> None:
    masks = torch.zeros(3, 1, 32, 64, 64)
    masks[0, :, 4:28, 8:56, 8:56], masks[1, :, 14:18, 30:34, 30:34] = 1, 1  # the third holds no blood
    terms = []
    for missed in (0, 1):
        seen = masks.clone()
        seen[missed] = 0
        loss = segmentation_loss(nn.Identity(), {"ct": 40.0 * seen - 20.0, "mask": masks})
        terms.append(float(loss["each_dice"]))
    assert terms == pytest.approx([0.5, 0.5], abs=0.01)
    assert loss["dice_ce"] < 0.1  # by this alone, the small one would hardly be missed


def test_brightness_varies_slowly_over_the_patches_of_segmentation() -> None:
    """As with cupping: a network that had seen only uniform brain took the bright rim of a real one for blood."""
    even = {"ct": np.full((1, 32, 64, 64), 0.33, np.float32), "mask": np.zeros((1, 32, 64, 64), np.uint8)}
    even["mask"][:, 10:20, 20:40, 20:40] = 1
    even["bone"] = np.zeros((1, 32, 64, 64), np.float32)
    vary = segmentation_patch_transform(vary=True)
    slopes = []
    for seed in range(24):
        vary.set_random_state(seed)
        ct = vary(even)[0]["ct"][0].double()
        slopes.append(float((ct[:, :, :16].mean() - ct[:, :, -16:].mean()).abs()) * 100)
    assert 0.2 < np.mean(np.array(slopes) > 1.0) < 0.8, "HU from side to side, in about half of the patches"
    assert max(slopes) < 25


def test_beam_hardening_brightens_most_where_bone_is_all_around() -> None:
    """As in the medulla: a network that had seen brain brighten only toward the skull took that for blood."""
    z, y, x = np.ogrid[-24:24, -48:48, -48:48]  # of 2.5 × 1.5 × 1.5 mm
    head, canal = 2.5**2 * z**2 + 1.5**2 * (y**2 + x**2) < 60**2, (1.5**2 * (y**2 + x**2) < 15**2) & (z < 0)
    inside = (head & (z > -12)) | canal
    bone = bone_around(inside.astype(np.float32), (1.5, 1.5, 2.5))
    middle, cord, edge = bone[34, 48, 48], bone[4, 48, 48], bone[24, 48, 48 + 39]
    assert middle < 0.05 < edge < 0.6
    assert cord > 0.35
    assert not bone[~inside].any()
    patch = {"ct": torch.full((1, 48, 96, 96), 0.35), "bone": torch.from_numpy(bone)[None]}
    brighter = RandBrightenNearBone()
    added = []
    for seed in range(40):
        brighter.set_random_state(seed)
        added.append(float((brighter(patch)["ct"] - patch["ct"])[0, 4, 48, 48]))
    assert min(added) == 0.0
    assert 0.3 < np.mean(np.array(added) > 0) < 0.7
    assert 0.08 < max(added) < 0.3, "some 8 to 30 HU"


def test_with_no_epochs_the_weights_stay_and_are_validated(tmp_path: Path) -> None:
    network, results = toy_fit(tmp_path, epochs=0)
    assert float(network.weight.sum()) == 0.0  # type: ignore[operator]
    assert results["validation_loss"] == pytest.approx(2.5**2)


def small_model(folder: Path, architecture: str, arguments: dict[str, Any]) -> ModelPackage:
    """A growth model that has learned nothing."""
    description = ModelDescription(
        name=folder.name,
        version="1",
        task="growth",
        architecture=architecture,
        arguments=arguments,
        spacing_mm=(3.0, 3.0, 3.0),
        patch_size=(32, 32, 32),
        window_hu=(0.0, 100.0),
        trained_on=(TrainingStep("nothing"),),
        results={},
        license="Apache-2.0",
        intended_use="test",
    )
    return write_package(folder, description, build_network(architecture, arguments))


def make_cases(folder: Path, count: int) -> Path:
    for number in range(count):
        case = folder / f"case-{number}"
        case.mkdir(parents=True)
        (case / "baseline.nii.gz").write_text(str(case))
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


def test_what_cannot_be_trained_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cohort, package = str(make_cases(tmp_path / "cohort", 3)), str(tmp_path / "package")
    for arguments, sentence in (
        (["growth", "--epochs", "0"], "at least one epoch"),
        (["segmentation", "--epochs", "-1"], "at least one epoch"),
        (["growth", "--start", "segmentation-compact"], "for segmentation, not for growth"),
        (["growth", "--start", "growth-compact", "--channels", "4,8"], "another network"),
        (["growth", "--start", "growth-compact", "--epochs", "0"], "at least one epoch"),
        (["growth", "--masks", "automatic"], "--masks true or both"),
        (["growth", "--members", "0"], "--members takes a number from 1 on"),
        (["growth", "--members", "2", "--start", "growth-compact"], "leave out --start"),
        (["segmentation", "--members", "2"], "`hematoma train segmentation` does not take --members"),
        (["risk", "--start", "risk-compact"], "leave out --start"),
    ):
        assert main(["train", *arguments, "--cohort", cohort, "-o", package]) == 2
        assert sentence in capsys.readouterr().err
    assert not Path(package).exists()


def test_variants_stay_with_their_case(tmp_path: Path) -> None:
    folders = case_folders(make_cases(tmp_path, 5))
    for folder in folders:
        (folder / "variants" / "1").mkdir(parents=True)
        (folder / "variants" / "1" / "baseline.nii.gz").touch()
    assert case_folders(tmp_path) == folders, "a variant is no case of its own"
    training, validation = split_by_case(folders, 0.2, seed=3)
    learned = with_variants(training)
    assert len(learned) == 8
    assert not any(folder.is_relative_to(case) for folder in learned for case in validation)


def test_a_package_says_whom_it_was_trained_on(tmp_path: Path) -> None:
    cases = case_folders(make_cases(tmp_path, 3))
    (step,) = training_steps(cases, 2, 1, 5)
    assert step.text == "learned from 2 simulated patients, no real ones (1 more chose the weights, seed 5)"
    start = small_segmenter(tmp_path / "start")
    *before, own = training_steps(cases, 2, 1, 5, [start])
    assert tuple(before) == start.description.trained_on
    assert own.details.endswith("began from small")
    learned, fitted = TrainingStep("learned from", 9), TrainingStep("calibrated on", 20)
    described = replace(start.description, trained_on=(learned, fitted))
    *before, _ = training_steps(cases, 2, 1, 5, [replace(start, description=described)])
    assert before == [learned], "what it was calibrated on no longer counts"
    (tmp_path / "case-0" / "case.json").write_text('{"source": "Hospital A"}')
    assert "no real ones" not in training_steps(cases, 2, 1, 5)[0].text
    with pytest.raises(InputError, match="no case"):
        case_folders(tmp_path / "case-0")


def test_the_study_trains_each_arm_and_tests_every_case_once(case_folder: Path, tmp_path: Path) -> None:
    cohort = tmp_path / "cohort"
    for number in range(4):
        shutil.copytree(case_folder, cohort / f"case-{number}")
    for case in ("case-0", "case-1", "case-2", "case-3"):
        variant = cohort / case / "variants" / "1"
        variant.mkdir(parents=True)
        for name in ("baseline.nii.gz", "baseline-mask.nii.gz"):
            shutil.copyfile(cohort / case / name, variant / name)
    study = ["evaluate", "growth", "--cohort", str(cohort), "-o", str(tmp_path / "study"), "--folds", "2"]
    assert main([*study, "--channels", "2,4", "--epochs", "1"]) == 0
    with (tmp_path / "study" / "growth.csv").open() as file:
        rows = list(csv.DictReader(file))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    assert methods[:3] == ["original", "augmentation", "synthesis"]
    assert {"no growth", "uniform dilation", "uniform dilation to the true volume"} == set(methods[3:])
    for method in methods:
        assert sorted(row["case"] for row in rows if row["method"] == method) == [f"case-{k}" for k in range(4)]
    told = [row for row in rows if row["method"].endswith("told")]
    assert all(float(row["predicted_ml"]) == pytest.approx(float(row["followup_ml"]), rel=0.02) for row in told)
    assert (tmp_path / "study" / "growth.png").stat().st_size > 20_000
    table = (tmp_path / "study" / "growth.md").read_text()
    assert "| synthesis |" in table
    assert main([*study[:-1], "9"]) == 2


def test_models_are_measured_beside_each_other_and_drawn(case_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(case_folder, tmp_path / "cohort" / "case-0")
    shutil.copytree(case_folder, tmp_path / "cohort" / "case-1")
    rival = small_model(tmp_path / "rival", "affine-regressor", {"channels": [2, 4], "norm": None})
    evaluate = ["evaluate", "growth", "--cohort", str(tmp_path / "cohort"), "-o", str(tmp_path / "figures")]
    assert main([*evaluate, "--rival", str(rival.folder)]) == 0
    summary = json.loads((tmp_path / "figures" / "growth.json").read_text())
    assert list(summary)[:2] == ["growth-compact", "rival"]
    assert summary["growth-compact"]["smallest_jacobian"] > 0
    assert summary["rival"]["lesion_dice"] == pytest.approx(summary["no growth"]["lesion_dice"]), "it stands still"
    for picture in ("growth.png", "examples.png"):
        assert (tmp_path / "figures" / picture).stat().st_size > 20_000
    assert main([*evaluate, "--rival", "growth-compact"]) == 2, "two models of one name"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("epochs", [-1]),
        ("batch-size", [0, -2]),
        ("learning-rate", [0.0, -1.0, float("nan"), float("inf")]),
        ("patience", [0]),
        ("max-minutes", [0.0, -1.0, float("nan"), float("inf")]),
        ("devices", [0, -1]),
        ("nodes", [0]),
        ("seed", [-1, 2**32]),
    ],
)
def test_numbers_with_which_nothing_can_be_trained_are_refused(name: str, values: list[float]) -> None:
    options = FitOptions(epochs=1, batch_size=1, learning_rate=1.0, patience=1, seed=0)
    for value in values:
        with pytest.raises(InputError, match=f"--{name} must be"):
            replace(options, **{name.replace("-", "_"): value})  # type: ignore[arg-type]


def test_a_part_of_a_minute_is_a_part_of_a_minute(tmp_path: Path) -> None:
    """0.5 became 0: nothing was learned."""
    toy_fit(tmp_path / "half", epochs=4, max_minutes=0.5)
    assert torch.load(tmp_path / "half" / "last.ckpt", weights_only=True)["epoch"] == 3
    begun = time.monotonic()
    toy_fit(tmp_path / "moment", epochs=100_000, max_minutes=0.02)
    assert time.monotonic() - begun < 20


def test_losses_are_called_losses_in_log_and_results(tmp_path: Path) -> None:
    """A Dice of 0.97 would mean a network that finds everything; this one finds nothing."""
    _, results = toy_fit(tmp_path, epochs=1)
    assert set(results) == {"validation_toy_loss", "validation_loss"}
    (log,) = tmp_path.glob("log/*/metrics.csv")
    with log.open() as file:
        columns = set(next(csv.reader(file))) - {"epoch", "step"}
    assert columns == {"train_loss", "train_toy_loss", "validation_loss", "validation_toy_loss"}
    for task in ("segmentation", "growth"):
        names = [name for name in find_package(None, task).description.results if name.startswith("validation")]
        assert names
        assert all(name.endswith("_loss") for name in names)


def test_a_loss_that_does_not_stay_finite_makes_no_model(tmp_path: Path) -> None:
    patches = Patches([{"x": np.ones((1, 2, 2, 2), np.float32)}], Compose([EnsureTyped("x")]), seed=1)
    with pytest.raises(InputError, match="smaller --learning-rate"):
        fit(
            Falling(),
            lambda network, _: {"toy": network.weight.sum() * torch.nan},  # type: ignore[operator, union-attr]
            PatchPairs(patches, patches),
            FitOptions(epochs=2, batch_size=1, learning_rate=0.1, patience=5, seed=1),
            tmp_path,
        )


@pytest.mark.parametrize("channels", ["0,0,0,0", "2,2,4,4", "-4,8,8,8", "16,32,x"])
def test_channels_that_make_no_network_are_refused(
    channels: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort, package = make_cases(tmp_path / "cohort", 3), tmp_path / "package"
    given = ["--cohort", str(cohort), "-o", str(package), f"--channels={channels}"]
    assert main(["train", "segmentation", *given]) == 2
    assert "channels" in capsys.readouterr().err
    assert not package.exists()
