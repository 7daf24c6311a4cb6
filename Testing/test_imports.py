"""Networks made elsewhere: imported safely, and computed as those who made them do."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from HematomaExpansionLib.anatomy.bleeds import Bleeds, Kind
from HematomaExpansionLib.anatomy.scope import notes_on_bleeds, scope_of
from HematomaExpansionLib.anatomy.segmentation import bleeds_from, class_probabilities
from HematomaExpansionLib.cli.main import main as hematoma
from HematomaExpansionLib.models.imports.blast_ct import OUTPUTS
from HematomaExpansionLib.models.networks.elsewhere import by_class
from HematomaExpansionLib.models.package import open_package
from HematomaExpansionLib.scan.grid import Array, Grid, image_on
from HematomaExpansionLib.scan.mask import Mask
from monai.networks.nets import SegResNet
from phantoms import STRAIGHT

deepmedic = pytest.importorskip("blast_ct.models.deepmedic")
CPU = torch.device("cpu")


def network_at_random(seed: int) -> torch.nn.Module:
    """BLAST-CT's network, with weights at random whose outputs differ from voxel to voxel."""
    torch.manual_seed(seed)
    network = deepmedic.DeepMedic(1, len(OUTPUTS))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    with torch.no_grad():
        network.fully_connected[-1].conv.weight.mul_(5)
    return network.eval()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two weight files as BLAST-CT writes them."""
    folder = tmp_path_factory.mktemp("weights")
    for number in (1, 2):
        torch.save(network_at_random(number).state_dict(), folder / f"model_{number}.pt")
    return folder


@pytest.fixture(scope="module")
def package(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages") / "blast"
    assert hematoma(["models", "import", "blast-ct", str(weights), "-o", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def scan() -> tuple[sitk.Image, Mask]:
    """A small anisotropic scan whose inside touches its first slice."""
    grid = Grid((52, 48, 14), (0.8, 0.8, 2.5), (5.0, -3.0, 7.0), STRAIGHT)
    hu = np.random.default_rng(0).normal(35, 12, grid.shape).astype(np.float32)
    hu[:, :6] = -1000
    return image_on(grid, hu), Mask.on(grid, hu > -500)


def as_published(ct: sitk.Image, networks: Sequence[torch.nn.Module]) -> Array:
    """Mean probabilities, (class, z, y, x), of the whole scan at 1 mm, by BLAST-CT's own code, patch by patch."""
    rescale = pytest.importorskip("blast_ct.nifti.rescale").rescale
    samplers = pytest.importorskip("blast_ct.nifti.patch_samplers")
    windows = pytest.importorskip("blast_ct.nifti.transformation")
    hu = sitk.GetArrayFromImage(rescale([1.0, 1.0, 1.0], ct))
    window = windows.IntensityWindowNormalization(-15.0, 100.0)
    image, _, _ = window(hu[None].copy(), None, np.ones_like(hu))
    sampler = samplers.PatchSampler((110,) * 3, (30,) * 3)
    whole = np.zeros((len(OUTPUTS), *(size - size % 30 + 30 for size in hu.shape)))
    for center in itertools.product(*((30 * i + 15 for i in range(size // 30 + 1)) for size in hu.shape)):
        patch = torch.from_numpy(sampler.get_image_patch(image, center).astype(np.float32))[None]
        with torch.no_grad():
            told = [torch.softmax(network(patch)[0], dim=1)[0].numpy() for network in networks]
        place, _ = samplers.get_patch_and_padding(whole.shape[1:], (30,) * 3, center)
        whole[(slice(None), *place)] = np.mean(told, axis=0)
    return whole[(slice(None), *(slice(0, size) for size in hu.shape))]


def test_blast_ct_is_computed_as_published(scan: tuple[sitk.Image, Mask], package: Path) -> None:
    """Two networks, averaged: every voxel around the brain, with BLAST-CT's classes in our order."""
    ct, inside = scan
    opened = open_package(package)
    told = class_probabilities(ct, inside, opened.description, opened.load(), CPU)
    published = as_published(ct, [network_at_random(1), network_at_random(2)])
    assert sorted(told) == [0, 1, 2, 3, 4]
    region = Grid.of(told[Kind.INTRAPARENCHYMAL])
    first = np.round(np.array(region.origin) - np.array(ct.GetOrigin())).astype(int)[::-1]
    size = np.minimum(region.shape, np.array(published.shape[1:]) - first)
    box = tuple(slice(start, start + count) for start, count in zip(first, size, strict=True))
    for name, number in (("background", 0), *((kind.name.lower(), int(kind)) for kind in Kind)):
        own = sitk.GetArrayFromImage(told[number])[tuple(slice(0, count) for count in size)]
        expected = published[OUTPUTS.index(name)][box]
        assert expected.std() > 1e-3  # the test can fail
        np.testing.assert_allclose(own, expected, atol=1e-5)
    covered = np.zeros(published.shape[1:], bool)
    covered[box] = True
    whole = Grid(tuple(reversed(covered.shape)), (1.0, 1.0, 1.0), ct.GetOrigin(), STRAIGHT)  # type: ignore[arg-type]
    inside_at_1mm = sitk.Resample(inside.image, image_on(whole, covered.astype(np.uint8)))
    assert covered[sitk.GetArrayFromImage(inside_at_1mm) > 0].all()


def test_what_a_package_of_blast_ct_says(package: Path, weights: Path) -> None:
    values = json.loads((package / "model.json").read_text())
    assert values["architecture"]["name"] == "ensemble"
    assert values["trained_on"] == [
        {"what": "learned elsewhere from", "source": "real head CTs of several hospitals (Monteiro 2020)"}
    ]
    assert "Apache License" in (package / "LICENSE.txt").read_text()
    made_from = json.loads((package / "provenance.json").read_text())["made_from"]
    assert len(made_from["files"]) == 2
    assert str(weights) not in (package / "provenance.json").read_text()


def test_a_package_of_blast_ct_is_installed_and_verified(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEMATOMA_MODELS", str(tmp_path))
    assert hematoma(["models", "install", str(package)]) == 0
    assert (tmp_path / "blast" / "LICENSE.txt").is_file()
    assert hematoma(["models", "verify"]) == 0
    assert "blast 1: intact" in capsys.readouterr().out


class RunsWhenOpened:
    """What a hostile weight file holds."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_file_is_refused_and_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], zipped: bool
) -> None:
    file, trace = tmp_path / "model.pt", tmp_path / "was-run"
    hostile = {"weights": RunsWhenOpened(trace)}
    torch.save(hostile, file) if zipped else file.write_bytes(pickle.dumps(hostile))
    assert hematoma(["models", "import", "blast-ct", str(file), "-o", str(tmp_path / "made")]) == 2
    assert "would run a program" in capsys.readouterr().err
    assert not trace.exists()
    assert not (tmp_path / "made").exists()


def refused(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The sentence with which a file is refused."""
    capsys.readouterr()
    assert hematoma(["models", "import", "blast-ct", str(path), "-o", str(tmp_path / "made")]) == 2
    assert not (tmp_path / "made").exists()
    return capsys.readouterr().err


def test_faulty_files_are_refused(tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence each: missing, cut short, no weights, another network, numbers that are none."""
    file = tmp_path / "model.pt"
    assert "no weights to import" in refused(file, tmp_path, capsys)
    whole = (weights / "model_1.pt").read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert "damaged" in refused(file, tmp_path, capsys)
    file.write_text("a letter")
    assert "damaged" in refused(file, tmp_path, capsys)
    torch.save({"epoch": 3}, file)
    assert "no weights of BLAST-CT" in refused(file, tmp_path, capsys)
    torch.save(torch.nn.Conv3d(1, 2, 3).state_dict(), file)
    assert "of another network" in refused(file, tmp_path, capsys)
    broken = network_at_random(1).state_dict()
    next(iter(broken.values()))[0] = torch.nan
    torch.save(broken, file)
    assert "no numbers" in refused(file, tmp_path, capsys)


def test_without_the_library_the_extra_is_named(
    package: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "blast_ct.models.deepmedic", None)
    assert "hematoma-expansion[blast]" in refused(weights, tmp_path, capsys)
    assert hematoma(["predict", "-i", str(tmp_path), "-o", str(tmp_path / "p"), "--segmenter", str(package)]) != 0


def test_outputs_of_one_class_are_added_up() -> None:
    """The probability of a class is the sum of those of its outputs."""
    labels = ("background", "extraaxial", "intraparenchymal", "extraaxial")
    logits = torch.randn(2, 4, 3, 3, 3)
    own, ours = torch.softmax(logits, dim=1), torch.softmax(by_class(logits, labels), dim=1)
    torch.testing.assert_close(ours[:, 0], own[:, 0])
    torch.testing.assert_close(ours[:, 1], own[:, 2])
    torch.testing.assert_close(ours[:, 2], own[:, 1] + own[:, 3])


def test_classes_that_a_network_does_not_tell_are_unknown() -> None:
    """Without edema and ventricles, those are not zero but unknown."""
    grid = Grid((40, 40, 40), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), STRAIGHT)
    z, y, x = np.indices(grid.shape)
    ball = ((z - 20) ** 2 + (y - 20) ** 2 + (x - 20) ** 2 < 144).astype(np.float32)
    blood = {number: image_on(grid, 0.9 * ball * (x < 20) if number == 1 else 0.9 * ball * (x >= 20))
             for number in (1, 3)}  # fmt: skip
    bleeds = bleeds_from(blood, Mask.on(grid, np.ones(grid.shape, bool)))
    assert bleeds.looked_for == {Kind.INTRAPARENCHYMAL, Kind.EXTRAAXIAL}
    expected = np.count_nonzero(ball) / 1000
    assert bleeds.volume_ml(Kind.EDEMA) is None
    assert bleeds.volume_ml(Kind.INTRAPARENCHYMAL) == pytest.approx(np.count_nonzero(ball * (x < 20)) / 1000)
    assert bleeds.blood.volume_ml == pytest.approx(expected)
    assert bleeds.midline is None


_SEGRESNET = {"_target_": "SegResNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 3, "init_filters": 8,
              "blocks_down": [1, 1], "blocks_up": [1]}  # fmt: skip


def write_bundle(folder: Path, **changes: object) -> Path:
    """A bundle of MONAI with weights at random; ``changes``: of its configuration."""
    transforms = [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
        {"_target_": "Spacingd", "keys": "image", "pixdim": "@pixdim"},
        {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": 0, "a_max": 80, "b_min": -1, "b_max": 1},
    ]
    configuration = {
        "imports": ["$import os"],
        "pixdim": [1.5, 1.5, 3.0],
        "network_def": _SEGRESNET,
        "preprocessing": {"_target_": "Compose", "transforms": transforms},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [32, 32, 16], "overlap": 0.25},
        **changes,
    }
    outputs = {"pred": {"channel_def": {"0": "background", "1": "other", "2": "hemorrhage"}}}
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(configuration))
    (folder / "configs" / "metadata.json").write_text(json.dumps({"network_data_format": {"outputs": outputs}}))
    torch.save(segresnet().state_dict(), folder / "models" / "model.pt")
    return folder


def segresnet() -> torch.nn.Module:
    """The bundle's network."""
    torch.manual_seed(0)
    network = SegResNet(**{key: value for key, value in _SEGRESNET.items() if key != "_target_"})
    return network.eval()


def test_a_bundle_of_monai_sees_a_scan_along_its_own_axes(tmp_path: Path) -> None:
    """From left to right, posterior to anterior, in the order x, y, z, scaled to -1 to 1."""
    bundle = write_bundle(tmp_path / "bundle")
    command = ["models", "import", "monai", str(bundle), "-o", str(tmp_path / "made"), "--label", "hemorrhage"]
    assert hematoma(command) == 0
    package = open_package(tmp_path / "made")
    description = package.description
    assert (description.spacing_mm, description.patch_size) == ((1.5, 1.5, 3.0), (32, 32, 16))
    assert description.window_hu == (0.0, 80.0)
    assert description.is_mixed
    hu = 80 * torch.rand(1, 1, 16, 32, 32)
    theirs = (hu / 40 - 1).permute(0, 1, 4, 3, 2).flip(2, 3)
    with torch.no_grad():
        expected = torch.softmax(segresnet()(theirs), dim=1).flip(2, 3).permute(0, 1, 4, 3, 2)
        own = torch.softmax(package.load()(hu / 80), dim=1)
    assert not torch.allclose(expected, expected.flip(4), atol=1e-3)  # the test can fail
    torch.testing.assert_close(own[:, 1], expected[:, 2])
    torch.testing.assert_close(own[:, 0], expected[:, 0] + expected[:, 1])


def test_faulty_bundles_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence each; no expression of a configuration is evaluated."""

    def refused_bundle(bundle: Path, label: str = "hemorrhage") -> str:
        capsys.readouterr()
        command = ["models", "import", "monai", str(bundle), "-o", str(tmp_path / "made"), "--label", label]
        assert hematoma(command) == 2
        assert not (tmp_path / "made").exists()
        return capsys.readouterr().err

    assert "has no inference.json" in refused_bundle(tmp_path)
    bundle = write_bundle(tmp_path / "bundle")
    assert "no label 'blood'" in refused_bundle(bundle, "blood")
    torch.save(torch.nn.Conv3d(1, 2, 3).state_dict(), bundle / "models" / "model.pt")
    assert "of another network" in refused_bundle(bundle)
    (bundle / "models" / "model.pt").unlink()
    assert "no models/model.pt" in refused_bundle(bundle)
    trace = tmp_path / "was-run"
    computed = {**_SEGRESNET, "init_filters": f"$__import__('os').mkdir({str(trace)!r})"}
    assert "plain numbers" in refused_bundle(write_bundle(tmp_path / "computed", network_def=computed))
    assert not trace.exists()
    other = {**_SEGRESNET, "_target_": "VNet"}
    assert "names no SegResNet" in refused_bundle(write_bundle(tmp_path / "other", network_def=other))
    blind = write_bundle(tmp_path / "blind", inferer={"_target_": "SimpleInferer"})
    assert "in which patches" in refused_bundle(blind)


def test_a_result_says_that_other_blood_may_be_in_the_hematoma() -> None:
    """A network that knows only blood: a note, the scope, and what a file gives back."""
    grid = Grid((10, 10, 10), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0), STRAIGHT)
    hematoma = Bleeds.of_hematoma(Mask.on(grid, np.ones(grid.shape, bool)))
    mixed = replace(hematoma, is_mixed=True)
    assert any("may be part of this hematoma" in note for note in notes_on_bleeds(mixed))
    assert not any("may be part of this hematoma" in note for note in notes_on_bleeds(hematoma))
    assert scope_of(mixed)["not_looked_for"] == "which kind it is"
    assert Bleeds.of_result(mixed.labels, mixed.described).is_mixed
    assert not Bleeds.of_result(hematoma.labels, hematoma.described).is_mixed
