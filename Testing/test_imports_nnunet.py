"""What nnU-Net trained: imported safely, and computed by nnU-Net's own predictor."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from HematomaExpansionLib.anatomy.bleeds import Kind
from HematomaExpansionLib.anatomy.segmentation import class_probabilities, find_bleeds
from HematomaExpansionLib.cli.main import main as hematoma
from HematomaExpansionLib.models.package import open_package
from HematomaExpansionLib.scan.grid import Grid, image_on
from HematomaExpansionLib.scan.mask import Mask
from phantoms import STRAIGHT
from test_adaptation import write_phantoms

predicting = pytest.importorskip("nnunetv2.inference.predict_from_raw_data")

CPU = torch.device("cpu")
_RESAMPLING = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
_CONFIGURATION = {
    "data_identifier": "nnUNetPlans_3d_fullres",
    "preprocessor_name": "DefaultPreprocessor",
    "batch_size": 2,
    "patch_size": [16, 32, 32],
    "median_image_size_in_voxels": [24, 48, 48],
    "spacing": [3.0, 1.5, 1.5],
    "normalization_schemes": ["CTNormalization"],
    "use_mask_for_norm": [False],
    "resampling_fn_data": "resample_data_or_seg_to_shape",
    "resampling_fn_seg": "resample_data_or_seg_to_shape",
    "resampling_fn_data_kwargs": _RESAMPLING,
    "resampling_fn_seg_kwargs": {**_RESAMPLING, "is_seg": True},
    "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
    "resampling_fn_probabilities_kwargs": _RESAMPLING,
    "architecture": {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 3,
            "features_per_stage": [4, 8, 8],
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * 3,
            "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
            "n_conv_per_stage": [1, 1, 1],
            "n_conv_per_stage_decoder": [1, 1],
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    },
    "batch_dice": True,
}
_LABELS = {"background": 0, "ich": 1, "ivh": 2, "sdh": 3, "edh": 4}
_KINDS = ("ich=intraparenchymal", "ivh=intraventricular", "sdh=extraaxial", "edh=extraaxial")


def write_model(folder: Path, folds: int = 2, **changes: Any) -> Path:
    """A model's folder as nnU-Net leaves it; ``changes``: of its configuration. The weights are made at random."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    configuration = {**_CONFIGURATION, **changes}
    intensities = {"mean": 40.0, "std": 12.0, "percentile_00_5": 0.0, "percentile_99_5": 90.0,
                   "min": -5.0, "max": 110.0, "median": 40.0}  # fmt: skip
    plans = {
        "dataset_name": "Dataset001_Bleeds",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": intensities},
        "configurations": {"2d": {"patch_size": [32, 32]}, "base": configuration,
                           "3d_fullres": {"inherits_from": "base"}},
    }  # fmt: skip
    dataset = {"channel_names": {"0": "CT"}, "labels": _LABELS, "numTraining": 7, "file_ending": ".nii.gz"}
    folder.mkdir()
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    architecture = _CONFIGURATION["architecture"]
    assert isinstance(architecture, dict)
    for fold in range(folds):
        torch.manual_seed(fold)
        network = get_network_from_plans(
            architecture["network_class_name"], architecture["arch_kwargs"], architecture["_kw_requires_import"],
            1, len(_LABELS), deep_supervision=False,
        )  # fmt: skip
        (folder / f"fold_{fold}").mkdir()
        checkpoint = {
            "network_weights": network.state_dict(),
            "logging": {"ema_fg_dice": [np.float64(0.5)]},
            "_best_ema": np.float32(0.5),
            "init_args": {"configuration": "3d_fullres", "fold": fold},
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": (1, 2),
        }
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("nnunet") / "model")


@pytest.fixture(scope="module")
def package(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages") / "ours"
    labels = [text for kind in _KINDS for text in ("--label", kind)]
    assert hematoma(["models", "import", "nnunet", str(model), "-o", str(folder), *labels]) == 0
    return folder


@pytest.fixture(scope="module")
def scan() -> tuple[sitk.Image, Mask]:
    grid = Grid((60, 56, 20), (0.9, 0.9, 4.0), (5.0, -3.0, 7.0), STRAIGHT)
    hu = np.random.default_rng(0).normal(40, 15, grid.shape).astype(np.float32)
    return image_on(grid, hu), Mask.on(grid, np.ones(grid.shape, bool))


def test_the_same_as_nnunets_own_predictor(scan: tuple[sitk.Image, Mask], model: Path, package: Path) -> None:
    """Two folds, mirrored, resampled: the mask voxel for voxel, and the sums of probabilities by kind."""
    ct, inside = scan
    predictor = predicting.nnUNetPredictor(device=CPU, perform_everything_on_device=False, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), (0, 1))
    spacing = list(ct.GetSpacing()[::-1])
    labels, probability = predictor.predict_single_npy_array(
        sitk.GetArrayFromImage(ct)[None], {"spacing": spacing}, None, None, True
    )
    opened = open_package(package)
    told = class_probabilities(ct, inside, opened.description, opened.load(), CPU)
    assert sorted(told) == [0, 1, 2, 3]
    assert len(np.unique(labels)) > 2  # the test can fail
    by_kind = {0: [0], Kind.INTRAPARENCHYMAL: [1], Kind.INTRAVENTRICULAR: [2], Kind.EXTRAAXIAL: [3, 4]}
    for kind, outputs in by_kind.items():
        own = sitk.GetArrayFromImage(told[kind])
        np.testing.assert_allclose(own, probability[outputs].sum(axis=0), atol=1e-6)
        assert Grid.of(told[kind]).is_same(Grid.of(ct))
    ours = np.stack([sitk.GetArrayFromImage(told[kind]) for kind in (0, 1, 2)])
    same = np.argmax(np.stack([*ours, *probability[3:]]), axis=0)
    np.testing.assert_array_equal(same, labels)


def test_what_a_package_of_nnunet_says(package: Path) -> None:
    description = open_package(package).description
    assert description.spacing_mm == (1.5, 1.5, 3.0)
    assert description.patch_size == (32, 32, 16)
    assert description.window_hu == (0.0, 90.0)
    assert description.trained_on[0].cases == 7
    assert not description.is_mixed


def test_a_patch_through_the_package_is_normalized_as_nnunet_does(package: Path) -> None:
    """What an adaptation calls gives what the network gives for nnU-Net's own normalization."""
    opened = open_package(package)
    member: Any = opened.load().members[0]
    hu = torch.rand(1, 1, 16, 32, 32) * 90
    with torch.no_grad():
        own = torch.softmax(member.unet((hu - 40) / 12), dim=1)
        ours = torch.softmax(member(hu / 90), dim=1)
    torch.testing.assert_close(ours[:, 3], own[:, 3] + own[:, 4])
    torch.testing.assert_close(ours[:, 1], own[:, 1])


def test_blood_of_any_kind_says_so(scan: tuple[sitk.Image, Mask], model: Path, tmp_path: Path) -> None:
    command = ["models", "import", "nnunet", str(model), "-o", str(tmp_path / "any"), "--label", "ich"]
    assert hematoma(command) == 0
    package = open_package(tmp_path / "any")
    assert package.description.is_mixed
    bleeds = find_bleeds(*scan, package, CPU)
    assert bleeds.is_mixed
    assert bleeds.looked_for == {Kind.INTRAPARENCHYMAL}


def refused(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], *labels: str) -> str:
    capsys.readouterr()
    command = ["models", "import", "nnunet", str(model), "-o", str(tmp_path / "made")]
    assert hematoma([*command, *(labels or ("--label", "ich"))]) == 2
    assert not (tmp_path / "made").exists()
    return capsys.readouterr().err


def test_faulty_models_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence each."""
    assert "has no plans.json" in refused(tmp_path, tmp_path, capsys)
    model = write_model(tmp_path / "model")
    assert "There is no label 'sah'" in refused(model, tmp_path, capsys, "--label", "sah")
    assert "no kind of blood 'red'" in refused(model, tmp_path, capsys, "--label", "ich=red")
    assert "None of the labels" in refused(model, tmp_path, capsys, "--label", "ivh=intraventricular")
    (model / "fold_1" / "checkpoint_final.pth").unlink()
    assert "fold_1 has no checkpoint_final.pth" in refused(model, tmp_path, capsys)
    torch.save({"network_weights": {}}, model / "fold_1" / "checkpoint_final.pth")
    assert "none that nnU-Net" in refused(model, tmp_path, capsys)
    evil = json.loads(json.dumps(_CONFIGURATION["architecture"]))
    evil["arch_kwargs"]["nonlin"] = "os.system"
    hostile = write_model(tmp_path / "hostile", architecture=evil)
    assert "does not run" in refused(hostile, tmp_path, capsys)
    other = json.loads(json.dumps(_CONFIGURATION["architecture"]))
    other["arch_kwargs"]["features_per_stage"] = [4, 8, 16]
    wrong = write_model(tmp_path / "wrong", architecture=other)
    assert "but of another network" in refused(wrong, tmp_path, capsys)
    of_mr = write_model(tmp_path / "mr", normalization_schemes=["ZScoreNormalization"])
    assert "not trained on CT" in refused(of_mr, tmp_path, capsys)
    cascade = write_model(tmp_path / "cascade", previous_stage="3d_lowres")
    assert "needs another network" in refused(cascade, tmp_path, capsys)


def test_without_the_library_the_extra_is_named(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "nnunetv2.utilities.plans_handling.plans_handler", None)
    assert "hematoma-expansion[nnunet]" in refused(model, tmp_path, capsys)


def test_an_imported_network_is_adapted(package: Path, tmp_path: Path) -> None:
    """On its own grid, with adapters alone, since it has no batch normalization; it stays the same network."""
    cohort, output = write_phantoms(tmp_path / "cohort", 2), tmp_path / "adapted"
    command = ["adapt", str(package), "--cohort", str(cohort), "-o", str(output)]
    assert hematoma([*command, "--epochs", "1", "--rank", "1"]) == 0
    adapted, source = open_package(output), open_package(package)
    assert adapted.description.grid == source.description.grid
    assert adapted.description.arguments == source.description.arguments
    assert "AdaBN" not in adapted.description.trained_on[-1].text
    kernels = [own.load().state_dict()["members.0.unet.encoder.stages.0.0.convs.0.conv.weight"]
               for own in (adapted, source)]  # fmt: skip
    assert not torch.equal(*kernels)
    assert (
        hematoma(["adapt", str(package), "--cohort", str(cohort), "-o", str(tmp_path / "s"), "--statistics-only"])
        == 2
    )
