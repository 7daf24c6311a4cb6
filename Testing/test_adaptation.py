"""Adaptation to another site: what is learned and what is not, and that it restores a network."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from HematomaExpansionLib.cli.main import main
from HematomaExpansionLib.errors import InputError, ModelPackageError
from HematomaExpansionLib.measures.agreement import dice
from HematomaExpansionLib.models.description import VOLUME_CORRECTION, TrainingStep
from HematomaExpansionLib.models.networks.build import build_network
from HematomaExpansionLib.models.networks.risk import MarkerLogistic
from HematomaExpansionLib.models.package import ModelPackage, find_package, open_package, write_package
from HematomaExpansionLib.scan.grid import image_on
from HematomaExpansionLib.training.data import each_case
from HematomaExpansionLib.training.fitting import FitOptions
from HematomaExpansionLib.training.segmentation import adaptation
from HematomaExpansionLib.training.segmentation.adaptation import (
    FIT,
    RANK,
    adapt,
    adapt_statistics,
    add_adapters,
    merge_adapters,
    reestimate_statistics,
    trained_share,
)
from HematomaExpansionLib.training.segmentation.training import segmentation_loss
from phantoms import head_grid, head_image, positions
from torch import nn

SHAPE = (32, 64, 64)
ARGUMENTS = {"channels": [4, 8]}
Sample = dict[str, np.ndarray]


def network_of(arguments: dict[str, list[int]] = ARGUMENTS, seed: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return build_network("segmentation-unet", arguments)


def package_of(folder: Path, network: nn.Module, settings: dict[str, object] | None = None) -> ModelPackage:
    description = find_package(None, "segmentation").description
    described = replace(
        description,
        name="tiny",
        arguments=ARGUMENTS,
        trained_on=(TrainingStep("learned from", 9, "patients (site A)"),),
        settings=settings or {},
    )
    return write_package(folder, described, network)


def shaken(network: nn.Module) -> nn.Module:
    """The network with adapters that have learned something, and with its own statistics."""
    for name, parameter in network.named_parameters():
        if name.endswith(".b"):
            parameter.data.normal_(std=0.2)
    for name, statistics in network.named_buffers():
        if statistics.is_floating_point():
            statistics.data += 0.1 if name.endswith("mean") else 0.5
    return network.eval()


def test_adapters_that_have_learned_nothing_change_nothing() -> None:
    network, patch = network_of().eval(), torch.rand(2, 1, 16, 16, 16)
    with torch.inference_mode():
        before = network(patch)
        add_adapters(network, rank=3)
        assert torch.equal(network(patch), before)
        merge_adapters(network)
        assert torch.equal(network(patch), before)
    assert network.state_dict().keys() == network_of().state_dict().keys()


def test_the_update_of_a_kernel_has_the_rank_of_its_adapter() -> None:
    network = network_of()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    add_adapters(network, rank=2)
    merge_adapters(shaken(network))
    for name in ("encoder.0.1.conv.weight", "encoder.1.1.conv.weight", "decoder.0.0.conv.weight"):
        update = (network.state_dict()[name] - before[name]).flatten(1)
        values = torch.linalg.svdvals(update)
        assert values[1] > 1e-3
        assert values[2] < 1e-5


def test_only_the_adapters_learn_and_they_are_fewer_than_3_percent() -> None:
    network = find_package(None, "segmentation").load()
    own = sum(parameter.numel() for parameter in network.parameters())
    add_adapters(network, RANK)
    patch = {"ct": torch.rand(1, 1, 16, 16, 16), "mask": torch.zeros(1, 1, 16, 16, 16)}
    patch["mask"][..., 4:9, 4:9, 4:9] = 1
    torch.stack(list(segmentation_loss(network, patch).values())).sum().backward()
    moved = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert moved == {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert {name.rpartition(".")[2] for name in moved} == {"a", "b"}
    learned = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    assert trained_share(network) == pytest.approx(learned / own)
    assert 0.01 < trained_share(network) < 0.03


# A site in memory: what `prepare_segmentation_samples` gives for phantoms of brain with one ball of blood.


def scan(seed: int, scale: float = 1.0, offset: float = 0.0, bone: bool = False) -> Sample:
    """A ball of blood in brain, as a fraction of the window, scaled and shifted by the site's scanner; optionally
    with a margin of bone, which is brighter."""
    random = np.random.default_rng(seed)
    z, y, x = np.ogrid[:32, :64, :64]
    center, radius = random.uniform((14, 18, 18), (18, 46, 46)), random.uniform(7, 11)
    blood = (1.6 * (z - center[0])) ** 2 + (y - center[1]) ** 2 + (x - center[2]) ** 2 <= radius**2
    ct = np.where(blood, 0.65, 0.33) + random.normal(0, 0.03, SHAPE)
    ct[..., -8:] += 0.6 * bone
    return {
        "ct": np.clip(scale * ct + offset, 0, 1)[None].astype(np.float16),
        "mask": blood[None].astype(np.uint8),
        "bone": np.zeros((1, *SHAPE), np.float16),
    }


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """A tiny network that knows the first site."""
    network = network_of().train()
    adam = torch.optim.Adam(network.parameters(), lr=0.03)
    for seed in range(100, 128):
        batch = {name: torch.from_numpy(array[None]).float() for name, array in scan(seed).items()}
        adam.zero_grad()
        torch.stack(list(segmentation_loss(network, batch).values())).sum().backward()
        adam.step()
    reestimate_statistics(network, [scan(seed) for seed in range(4)], seed=0)
    return network


def mean_dice(network: nn.Module, scans: Sequence[Sample]) -> float:
    with torch.inference_mode():
        found = [network(torch.from_numpy(s["ct"])[None].float())[0].numpy() > 0 for s in scans]
    return float(np.mean([dice(mask, s["mask"] > 0) for mask, s in zip(found, scans, strict=True)]))


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], Sample]], list[Path]]:
    """Makes six cases of scans in memory."""

    def of(make: Callable[[int], Sample]) -> list[Path]:
        def prepare_all(prepare: object, folders: Sequence[Path], title: str) -> list[list[Sample]]:
            return [[make(int(folder.name))] for folder in folders]

        for module in (adaptation, each_case):
            monkeypatch.setattr(module, "prepare_all", prepare_all)
        return [Path(str(number)) for number in range(6)]

    return of


def test_the_merged_package_computes_what_the_network_with_adapters_did(
    trained: nn.Module, tmp_path: Path
) -> None:
    network, patch = deepcopy(trained), torch.from_numpy(scan(1)["ct"])[None].float()
    add_adapters(network, RANK)
    shaken(network)
    with torch.inference_mode():
        adapted = network(patch)
        assert float((adapted - trained(patch)).abs().mean()) > 0.3
        merge_adapters(network)
        torch.testing.assert_close(network(patch), adapted)
        read = package_of(tmp_path / "tiny", network).load()(patch)
    assert float((read - adapted).abs().max()) < 0.01 * float(adapted.abs().max()), "kernels are of half precision"


def test_statistics_of_the_new_site_bring_the_network_back(
    trained: nn.Module, tmp_path: Path, site: Callable[..., list[Path]]
) -> None:
    def shifted(seed: int) -> Sample:
        return scan(seed, scale=0.7, offset=0.35)

    unseen = [shifted(50 + k) for k in range(4)]
    source = package_of(tmp_path / "source", trained, {VOLUME_CORRECTION: None, "kept": 1})
    at_home, fallen = mean_dice(trained, [scan(50 + k) for k in range(4)]), mean_dice(trained, unseen)
    package = adapt_statistics(site(shifted), tmp_path / "adapted", source, seed=0)
    regained = mean_dice(package.load(), unseen)
    assert at_home > 0.9
    assert fallen < 0.6
    assert regained > at_home - 0.05
    assert package.description.results["trained_share"] == 0
    assert package.description.settings == {"kept": 1}, "the correction was of other masks"
    first, own = package.description.trained_on
    assert first.source == "patients (site A)"
    assert own.text.startswith("batch-norm statistics of 6 patients")
    assert own.details.endswith("weights of tiny")
    for (name, kernel), own in zip(package.load().named_parameters(), source.load().parameters(), strict=True):
        assert torch.equal(kernel, own), name


def test_adapters_learn_what_statistics_cannot(
    trained: nn.Module, tmp_path: Path, site: Callable[..., list[Path]]
) -> None:
    """They learn that something brighter than blood is not blood."""

    def with_bone(seed: int) -> Sample:
        return scan(seed, bone=True)

    unseen = [with_bone(50 + k) for k in range(4)]
    source, cases = package_of(tmp_path / "source", trained), site(with_bone)
    by_statistics = adapt_statistics(cases, tmp_path / "statistics", source, seed=0).load()
    options = FitOptions(epochs=5, batch_size=2, learning_rate=0.05, patience=20, seed=0, annealed=True)
    package = adapt(cases, tmp_path / "adapted", source, rank=2, options=options)
    assert max(mean_dice(trained, unseen), mean_dice(by_statistics, unseen)) < 0.5
    assert mean_dice(package.load(), unseen) > 0.75
    about = package.description
    first, own = about.trained_on
    assert first.source == "patients (site A)"
    assert own.text.startswith("adapted to 5 patients")
    assert own.details.startswith("ConvLoRA of rank 2, AdaBN")
    assert own.details.endswith("began from tiny")
    assert (about.architecture, about.arguments) == (source.description.architecture, ARGUMENTS)
    assert 0 < about.results["trained_share"] < 1
    assert about.results["validation_loss"] < 1

    weights = package.folder / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ModelPackageError, match="checksum"):
        open_package(package.folder)


def test_the_statistics_stay_while_the_adapters_learn(
    trained: nn.Module, tmp_path: Path, site: Callable[..., list[Path]]
) -> None:
    source, cases = package_of(tmp_path / "source", trained), site(scan)
    options = replace(FIT, epochs=1, batch_size=4)
    package = adapt(cases, tmp_path / "adapted", source, 1, options)
    learned, _ = adaptation.split_by_case(cases, 0.2, options.seed)
    expected = source.load()
    reestimate_statistics(expected, [scan(int(case.name)) for case in learned], options.seed)
    for (name, read), buffer in zip(package.load().named_buffers(), expected.buffers(), strict=True):
        torch.testing.assert_close(read, buffer, msg=name)
    kernels = (network.state_dict()["encoder.0.0.conv.weight"] for network in (package.load(), source.load()))
    assert not torch.equal(*kernels)


def test_statistics_are_of_the_scans_and_of_nothing_before() -> None:
    network = network_of()
    first = next(module for module in network.modules() if isinstance(module, nn.BatchNorm3d))
    assert first.running_mean is not None
    first.running_mean += 100
    constant = {"ct": np.full((1, *SHAPE), 0.5, np.float16)}
    reestimate_statistics(network, [constant], seed=0)
    with torch.inference_mode():
        activations = network.encoder[0][0].conv(torch.full((1, 1, *SHAPE), 0.5))  # type: ignore[index, union-attr]
    torch.testing.assert_close(first.running_mean, activations.mean(dim=(0, 2, 3, 4)), atol=1e-4, rtol=1e-3)
    assert not network.training
    assert first.momentum == 0.1


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepare cases in this process, since processes take longer to start than these cases need."""

    def prepare_all(prepare: Callable[[Path], object], folders: Sequence[Path], title: str) -> list[object]:
        return [prepare(folder) for folder in folders]

    for module in (adaptation, each_case):
        monkeypatch.setattr(module, "prepare_all", prepare_all)


def write_phantoms(cohort: Path, count: int) -> Path:
    """A cohort of phantoms with a ball of blood that grows."""
    grid = head_grid((2.0, 2.0, 4.0))
    distance = np.linalg.norm(positions(grid), axis=-1)
    for number in range(count):
        folder = cohort / f"case-{number}"
        folder.mkdir(parents=True)
        for name, radius in (("baseline", 14.0 + number), ("followup", 17.0 + number)):
            sitk.WriteImage(head_image(grid, sphere_mm=radius), folder / f"{name}.nii.gz")
            sitk.WriteImage(image_on(grid, (distance <= radius).astype(np.uint8)), folder / f"{name}-mask.nii.gz")
        (folder / "case.json").write_text(json.dumps({"source": "simulated"}))
    return cohort


@pytest.mark.usefixtures("one_process")
def test_the_command_adapts_and_the_package_segments(
    tmp_path: Path, trained: nn.Module, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort, source = write_phantoms(tmp_path / "cohort", 2), package_of(tmp_path / "source", trained)
    output = tmp_path / "adapted"
    command = ["adapt", str(source.folder), "--cohort", str(cohort), "-o", str(output)]
    assert main([*command, "--rank", "1", "--epochs", "1"]) == 0
    assert '"trained_share": 0.1' in capsys.readouterr().out, "of a network as tiny as this"
    assert "1 simulated patients, no real ones" in open_package(output).description.trained_on[-1].text
    scan_file, mask = cohort / "case-0" / "baseline.nii.gz", tmp_path / "mask.nii.gz"
    assert main(["segment", "-i", str(scan_file), "-o", str(mask), "--segmenter", str(output)]) == 0
    assert mask.is_file()


@pytest.mark.usefixtures("one_process")
def test_statistics_alone_need_no_masks_and_no_followup(tmp_path: Path, trained: nn.Module) -> None:
    cohort, source = write_phantoms(tmp_path / "cohort", 2), package_of(tmp_path / "source", trained)
    for name in ("baseline-mask", "followup-mask", "followup"):
        for file in cohort.glob(f"*/{name}.nii.gz"):
            file.unlink()
    command = ["adapt", str(source.folder), "--cohort", str(cohort), "-o", str(tmp_path / "adapted")]
    assert main([*command, "--statistics-only"]) == 0
    assert open_package(tmp_path / "adapted").description.results == {"trained_share": 0.0, "scans": 2}


def test_what_cannot_be_adapted_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cohort = tmp_path / "cohort"
    (cohort / "case-0").mkdir(parents=True)
    output = tmp_path / "adapted"

    def refused(source: str, *options: str) -> str:
        assert main(["adapt", source, "--cohort", str(cohort), "-o", str(output), *options]) == 2
        return capsys.readouterr().err

    assert "holds no case" in refused("segmentation-compact")
    (cohort / "case-0" / "baseline.nii.gz").touch()
    assert "for growth, not for segmentation" in refused("growth-compact")
    assert "no model 'absent'" in refused("absent")
    assert "at least two cases" in refused("segmentation-compact")
    assert "rank of the adapters must be at least 1" in refused("segmentation-compact", "--rank", "0")

    description = find_package(None, "segmentation").description
    assert "for risk, not for segmentation" in refused("risk-compact")
    flat = replace(description, name="flat", architecture="slice-segmentation", patch_size=(64, 64, 1),
                   arguments={"network": "unet", "channels": [4, 4, 4, 4, 4]})  # fmt: skip
    folder = write_package(tmp_path / "flat", flat, build_network(flat.architecture, flat.arguments)).folder
    assert "works on slices" in refused(str(folder))
    assert not output.exists()


def test_a_network_without_convolutions_takes_no_adapters() -> None:
    with pytest.raises(ModelPackageError, match="no convolutions to adapt"):
        add_adapters(MarkerLogistic(["volume_ml"]), rank=1)


def test_a_network_without_batch_normalization_has_no_statistics() -> None:
    network = build_network("displacement-unet", {"channels": [2, 4], "in_channels": 1})
    with pytest.raises(ModelPackageError, match="no batch normalization"):
        reestimate_statistics(network, [scan(1)], seed=0)


def test_one_case_is_too_few_to_learn_and_choose_from(tmp_path: Path, trained: nn.Module) -> None:
    with pytest.raises(InputError, match="at least two cases"):
        adapt([tmp_path], tmp_path / "adapted", package_of(tmp_path / "source", trained), 1, FIT)
