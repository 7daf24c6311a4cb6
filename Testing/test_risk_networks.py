"""Networks that predict the probability of expansion, and 2D mask networks: what they are, see and learn."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from HematomaExpansionLib.anatomy import brain
from HematomaExpansionLib.anatomy.mask_source import MaskSource
from HematomaExpansionLib.cli.main import main
from HematomaExpansionLib.errors import InputError, ModelPackageError
from HematomaExpansionLib.forecast.probability import predict_risk_of_scan
from HematomaExpansionLib.forecast.probability_inputs import RiskView, risk_inputs, standardized, view_grid
from HematomaExpansionLib.measures.agreement import cohen_kappa, dice, mean_iou
from HematomaExpansionLib.models.description import ModelDescription, TrainingStep
from HematomaExpansionLib.models.networks.build import build_network
from HematomaExpansionLib.models.networks.risk import TwoOutputUNet, expansion_logits
from HematomaExpansionLib.models.package import ModelPackage, open_package, write_package
from HematomaExpansionLib.scan.grid import image_on
from HematomaExpansionLib.scan.head_ct import read_head_ct
from HematomaExpansionLib.scan.mask import Mask
from HematomaExpansionLib.scan.mask_files import read_mask
from HematomaExpansionLib.scan.subject import Subject
from HematomaExpansionLib.training.fitting import FitOptions, LossModule
from HematomaExpansionLib.training.risk.networks import (
    EXPANSION_WEIGHT,
    MASK_WEIGHT,
    PRESETS,
    RandAffineInMillimeters,
    RiskImages,
    risk_preset,
    slice_loss,
    train_risk_network,
    two_output_loss,
)
from HematomaExpansionLib.training.segmentation.slices import MASK_NETWORKS, mask_preset, slice_transform
from phantoms import head_grid, head_image, positions, volume_ml
from torch import nn

pytestmark = pytest.mark.usefixtures("each_brain_found_once")

CPU = torch.device("cpu")
SMALL_VIEWS = {
    "two-output-unet": RiskView("two-output-unet", (3.5, 3.5, 10.0), (64, 64, 16), (0.0, 100.0)),
    "slice-classifier": RiskView("slice-classifier", (4.0, 4.0, 5.0), (64, 64, 1), (-1000.0, 400.0)),
}
SMALL_ARGUMENTS = {
    "two-output-unet": {"channels": [2, 4, 4, 8]},
    "slice-classifier": {"network": "resnet18", "channels": [2, 4, 4, 8]},
}


def parameters(architecture: str, **arguments: object) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_network(architecture, arguments).parameters())


def test_networks_have_the_parameters_that_their_texts_name() -> None:
    assert parameters("two-output-unet") == 2_191_698
    with torch.device("meta"):
        assert sum(weight.numel() for weight in TwoOutputUNet().classifier.parameters()) == 885_121
    published = {"resnet34": 21_797_672, "resnet18": 11_689_512, "vgg16": 138_357_544}  # 3 channels, 1000 classes
    for network, count in published.items():
        channels = [64, 128, 256, 512, *([512] if network == "vgg16" else [])]
        kernels, features = (64 * 9, 4096) if network == "vgg16" else (64 * 49, 512)
        ours = count - 2 * kernels - 999 * (features + 1)
        assert parameters("slice-classifier", network=network, channels=channels) == ours
    for network, count in {"attention-unet": 31_739_185, "unet": 18_919_041, "unet++": 9_118_756}.items():
        assert parameters("slice-segmentation", network=network, channels=MASK_NETWORKS[network]) == count


def test_the_two_outputs_are_a_mask_and_one_logit_for_each_patient() -> None:
    mask, expansion = TwoOutputUNet([2, 4, 4, 8])(torch.rand(3, 1, 8, 16, 12))
    assert mask.shape == (3, 1, 8, 16, 12)
    assert expansion.shape == (3, 1)
    seen: list[torch.Tensor] = []
    network = TwoOutputUNet([2, 4, 4, 8])
    network.bridge.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    network(torch.rand(1, 1, 8, 16, 12))
    assert seen[0].shape == (1, 8, 2, 4, 3), "two levels down, as published: 256 × 256 × 32 to 64 × 64 × 8"


@pytest.mark.parametrize("network", ["resnet18", "resnet34", "vgg16"])
def test_a_classifier_of_slices_gives_a_logit_for_each(network: str) -> None:
    channels = [2, 2, 4, 4, *([4] if network == "vgg16" else [])]
    classifier = build_network("slice-classifier", {"network": network, "channels": channels})
    assert expansion_logits(classifier, torch.rand(3, 1, 64, 64)).shape == (3,)


@pytest.mark.parametrize("network", list(MASK_NETWORKS))
def test_a_mask_network_of_slices_sees_each_slice_by_itself(network: str) -> None:
    torch.manual_seed(1)
    segmenter = build_network("slice-segmentation", {"network": network, "channels": [2, 2, 4, 4, 4]}).eval()
    volume = torch.rand(2, 1, 3, 32, 48)
    with torch.inference_mode():
        whole, alone = segmenter(volume), segmenter(volume[1:, :, 2:])
    assert whole.shape == volume.shape
    torch.testing.assert_close(whole[1:, :, 2:], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [
        ("slice-classifier", {"network": "resnet99", "channels": [2, 2, 2, 2]}),
        ("slice-classifier", {"network": "resnet18", "channels": [2]}),
        ("slice-segmentation", {"network": "unet", "channels": [2, 2]}),
        ("slice-segmentation", {"network": "os.system", "channels": [2, 2, 2, 2, 2]}),
    ],
)
def test_a_strangers_network_is_refused(architecture: str, arguments: dict[str, object]) -> None:
    with pytest.raises(ModelPackageError, match=r"asks for|five channels"):
        build_network(architecture, arguments)


class Fixed(nn.Module):
    """A network that gives the same output whatever it sees."""

    def __init__(self, mask: torch.Tensor, expansion: torch.Tensor) -> None:
        super().__init__()
        self.mask, self.expansion = mask, expansion

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.mask, self.expansion


def test_mask_and_expansion_weigh_nine_to_one() -> None:
    assert pytest.approx(9) == MASK_WEIGHT / EXPANSION_WEIGHT
    truth = torch.zeros(1, 1, 4, 8, 8)
    truth[..., :4] = 1
    batch = {"ct": truth, "mask": truth, "expanded": torch.ones(1, 1)}
    right, wrong = 200 * truth - 100, 100 - 200 * truth
    missed = two_output_loss(Fixed(wrong, torch.tensor([[100.0]])), batch)
    assert float(missed["dice"]) == pytest.approx(0.9, abs=1e-3)
    assert float(missed["cross_entropy"]) == pytest.approx(0, abs=1e-6)
    misjudged = two_output_loss(Fixed(right, torch.tensor([[-3.0]])), batch)
    assert float(misjudged["dice"]) == pytest.approx(0, abs=1e-6)
    assert float(misjudged["cross_entropy"]) == pytest.approx(0.1 * np.log(1 + np.exp(3)), rel=1e-4)


def test_presets_are_those_of_the_papers() -> None:
    two, slices = PRESETS["two-output"], PRESETS["slices"]
    assert two.view.size == (256, 256, 32)
    assert (two.fit.epochs, two.fit.batch_size, two.fit.learning_rate) == (40, 1, 1e-4)
    assert two.fit.milestones == (20, 30)
    assert slices.view.size == (512, 512, 1)
    assert slices.view.window_hu == (-1000, 400)
    assert (slices.fit.batch_size, slices.fit.learning_rate, slices.fit.weight_decay) == (64, 1e-5, 1e-3)
    masks = mask_preset(None, (), ())
    assert masks.network == "attention-unet"
    assert masks.patch_size == (512, 512, 1)
    assert (masks.fit.momentum, masks.fit.learning_rate, masks.fit.weight_decay) == (0.9, 1e-4, 3e-4)
    assert masks.fit.batch_size == 2


def test_the_learning_rate_falls_at_its_milestones_and_the_optimizer_is_the_papers() -> None:
    options = FitOptions(5, 1, 1e-2, 5, 0, milestones=(2, 3), momentum=0.9, weight_decay=3e-4)
    (optimizer,), (schedule,) = LossModule(nn.Conv3d(1, 1, 1), slice_loss, options).configure_optimizers()
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["momentum"] == 0.9
    rates = []
    for _ in range(5):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([1e-2, 1e-2, 1e-3, 1e-4, 1e-4])
    (adam,), _ = LossModule(nn.Conv2d(1, 1, 1), slice_loss, replace(options, momentum=None)).configure_optimizers()
    assert isinstance(adam, torch.optim.Adam)
    assert adam.defaults["weight_decay"] == 3e-4


def test_turns_keep_angles_in_millimeters_and_the_mask_goes_with_the_scan() -> None:
    """A rod along z, 1 mm thin in plane and sampled at 5 mm: turned as if voxels were cubes, it would lie flat."""
    spacing = (1.0, 1.0, 5.0)
    rod = torch.zeros(1, 33, 97, 97)
    rod[0, 6:27, 47:50, 47:50] = 1
    move = RandAffineInMillimeters(spacing)
    tilts, lengths = [], []
    for seed in range(12):
        move.set_random_state(seed)
        moved = move({"ct": 3 * rod, "mask": rod})
        torch.testing.assert_close(moved["ct"], 3 * moved["mask"])
        where = np.argwhere(moved["mask"][0].numpy() > 0.3) * np.array(spacing[::-1])
        axis = np.linalg.svd(where - where.mean(axis=0), full_matrices=False)[2][0]
        tilts.append(np.degrees(np.arccos(abs(axis[0]))))
        lengths.append(np.ptp(where[:, 0]))
    assert 1 < max(tilts) < np.hypot(5, 5) + 1
    assert 85 < min(lengths) < max(lengths) <= 120
    move.set_random_state(3)
    again = move({"ct": rod, "mask": rod})["mask"]
    move.set_random_state(3)
    assert torch.equal(again, move({"ct": rod, "mask": rod})["mask"])


def write_patient(folder: Path, number: int, expands: bool) -> None:
    """A head with a ball of blood somewhere, and follow-up masks.

    A ball that is to expand is large and holds a pocket dark enough to show even in the slices' wide window.
    """
    random = np.random.default_rng([number, 5])
    grid = head_grid((2.5, 2.5, 5.0))
    offset = positions(grid) - random.uniform(-12, 12, 3)
    distance = np.linalg.norm(offset, axis=-1)
    hu = sitk.GetArrayFromImage(head_image(grid)).astype(float) + random.normal(0, 1.5, grid.shape)
    radius = random.uniform(32, 34) if expands else random.uniform(16, 18)
    ball = distance <= radius
    hu[ball] = 70 + random.normal(0, 3, np.count_nonzero(ball))
    if expands:
        hu[distance <= 20] = -300
    folder.mkdir(parents=True)
    sitk.WriteImage(image_on(grid, np.round(hu).astype(np.int16)), str(folder / "baseline.nii.gz"))
    for name, mask in (("baseline", ball), ("followup", distance <= radius + 4 * expands)):
        sitk.WriteImage(image_on(grid, mask.astype(np.uint8)), str(folder / f"{name}-mask.nii.gz"))
    shutil.copyfile(folder / "baseline.nii.gz", folder / "followup.nii.gz")
    (folder / "case.json").write_text(json.dumps({"source": "simulated", "onset_hours": 3.0}))


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("cohorts")
    for name, first, count in (("learned", 0, 14), ("unseen", 100, 6)):
        for k in range(first, first + count):
            write_patient(folder / name / f"case-{k}", k, expands=k % 2 == 1)
    return {name: folder / name for name in ("learned", "unseen")}


def package_of(folder: Path, architecture: str, seed: int = 1) -> ModelPackage:
    """A randomly initialized network in a package."""
    view, arguments = SMALL_VIEWS[architecture], SMALL_ARGUMENTS[architecture]
    description = ModelDescription(
        name=f"risk-{architecture}",
        version="1",
        task="risk",
        architecture=architecture,
        arguments=arguments,
        spacing_mm=view.spacing_mm,
        patch_size=view.size,
        window_hu=view.window_hu,
        trained_on=(TrainingStep("nothing: a test"),),
        results={"training_share_expanded": 0.5},
        license="Apache-2.0",
        intended_use="test",
    )
    torch.manual_seed(seed)
    return write_package(folder, description, build_network(architecture, arguments))


def scan_of(folder: Path) -> Subject:
    scan = read_head_ct(folder / "baseline.nii.gz")
    hematoma = read_mask(folder / "baseline-mask.nii.gz", scan)
    return Subject(scan.image, brain.extract_brain(scan.image).mask, hematoma)


def test_the_brain_is_standardized_and_nothing_else_is_seen(cohorts: dict[str, Path]) -> None:
    values, inside = np.array([[[10.0, 20.0, 30.0, 90.0]]]), np.array([[[1.0, 1.0, 1.0, 0.0]]])
    deviation = np.std([10, 20, 30])
    np.testing.assert_allclose(standardized(values, inside), [[[0, 0, 10 / deviation, 0]]], rtol=1e-6)
    subject = scan_of(cohorts["unseen"] / "case-100")
    view = SMALL_VIEWS["two-output-unet"]
    inputs = risk_inputs(subject, view)
    assert inputs.shape == (1, 1, 16, 64, 64)
    assert inputs.dtype == np.float32
    assert inputs.min() == 0
    blood = inputs[0, 0] > inputs.max() / 2
    seen_ml = blood.sum() * view_grid(subject.inside_skull, view).voxel_volume_ml
    assert seen_ml == pytest.approx(volume_ml(subject.hematoma), rel=0.35), "the ball, and no bone"


def test_slices_are_those_through_the_hematoma(cohorts: dict[str, Path]) -> None:
    subject = scan_of(cohorts["unseen"] / "case-100")
    view = SMALL_VIEWS["slice-classifier"]
    inputs = risk_inputs(subject, view)
    height_mm = 5 * np.count_nonzero(subject.hematoma.voxels.any(axis=(1, 2)))
    assert inputs.shape[1:] == (1, 64, 64)
    assert len(inputs) == pytest.approx(height_mm / 5, abs=1)
    assert inputs.min() == 0, "air, outside of the head"
    assert inputs.max() == 1, "bone"
    thick = replace(view, spacing_mm=(4.0, 4.0, 10.0))
    middle = view_grid(subject.inside_skull, thick).point((30, 30, 8))  # of one of its slices
    dot = subject.hematoma.image * 0
    dot[dot.TransformPhysicalPointToIndex(middle.tolist())] = 1
    assert len(risk_inputs(replace(subject, hematoma=Mask(dot)), thick)) == 1


@pytest.mark.parametrize("architecture", list(SMALL_VIEWS))
def test_how_a_scan_is_stored_does_not_matter(architecture: str, cohorts: dict[str, Path], tmp_path: Path) -> None:
    source = cohorts["unseen"] / "case-101"
    for name in ("baseline", "baseline-mask"):
        image = sitk.ReadImage(str(source / f"{name}.nii.gz"))
        turned = sitk.PermuteAxes(sitk.Flip(image, [True, False, True]), [1, 0, 2])
        sitk.WriteImage(turned, str(tmp_path / f"{name}.nii.gz"))
    package = package_of(tmp_path / "package", architecture)
    view = RiskView.of(package.description)
    straight, turned = (scan_of(folder) for folder in (source, tmp_path))
    np.testing.assert_allclose(risk_inputs(turned, view), risk_inputs(straight, view), atol=1e-3)
    told = [predict_risk_of_scan(images, {}, package, CPU).probability for images in (straight, turned)]
    assert told[0] == pytest.approx(told[1], abs=1e-4)


def test_a_patients_probability_is_the_mean_over_the_slices(cohorts: dict[str, Path], tmp_path: Path) -> None:
    images = scan_of(cohorts["unseen"] / "case-103")
    package = package_of(tmp_path / "package", "slice-classifier")
    network, slices = package.load(), risk_inputs(images, SMALL_VIEWS["slice-classifier"])
    with torch.inference_mode():
        each = [float(torch.sigmoid(network(torch.from_numpy(one)[None]))) for one in slices]
    assert len(each) > 5
    assert np.ptp(each) > 0
    told = predict_risk_of_scan(images, {}, package, CPU)
    assert told.probability == pytest.approx(np.mean(each), abs=1e-5)
    assert told.model == package.identity


@pytest.mark.parametrize("architecture", list(SMALL_VIEWS))
def test_prediction_fills_in_the_probability_of_the_network(
    architecture: str, cohorts: dict[str, Path], tmp_path: Path
) -> None:
    package, case = package_of(tmp_path / "package", architecture), cohorts["unseen"] / "case-102"
    given = ["-i", str(case / "baseline.nii.gz"), "--mask", str(case / "baseline-mask.nii.gz")]
    assert main(["predict", *given, "-o", str(tmp_path / "out"), "--risk", str(package.folder)]) == 0
    result = json.loads((tmp_path / "out" / "prediction.json").read_text())
    expected = predict_risk_of_scan(scan_of(case), {}, package, CPU)
    assert result["risk"]["probability"] == pytest.approx(expected.probability, abs=1e-6)
    assert result["risk"]["model"]["name"] == package.description.name


def test_without_a_hematoma_there_is_no_probability(tmp_path: Path) -> None:
    package = package_of(tmp_path / "package", "slice-classifier")
    sitk.WriteImage(head_image(head_grid()), str(tmp_path / "scan.nii.gz"))
    command = ["predict", "-i", str(tmp_path / "scan.nii.gz"), "-o", str(tmp_path / "out")]
    assert main([*command, "--segmenter", "threshold", "--risk", str(package.folder)]) == 0
    assert json.loads((tmp_path / "out" / "prediction.json").read_text())["risk"] is None


def test_a_network_that_tells_no_probability_is_refused(tmp_path: Path) -> None:
    description = replace(
        package_of(tmp_path / "good", "two-output-unet").description,
        architecture="displacement-unet",
        arguments={"channels": [2, 4]},
    )
    network = build_network("displacement-unet", {"channels": [2, 4]})
    with pytest.raises(ModelPackageError, match="do not fit together"):
        write_package(tmp_path / "claimed", description, network)
    for change in ({"spacing_mm": (0.0, 0.0, 0.0)}, {"patch_size": (64, 64, 4)}, {"window_hu": (0.0, 0.0)}):
        with pytest.raises(ModelPackageError, match="out of range"):
            write_package(tmp_path / "claimed", replace(description, **change), network)  # type: ignore[arg-type]


@pytest.mark.usefixtures("cases_in_this_process")
@pytest.mark.parametrize(
    ("preset", "options"),
    [
        ("two-output", "--size 32,32,8 --channels 8,8,16,16 --epochs 2 --batch-size 2 --learning-rate 0.004"),
        (
            "slices",
            "--network resnet18 --size 64,64 --channels 4,4,8,8 --epochs 5 --batch-size 8 --learning-rate 0.005",
        ),
    ],
)
def test_a_small_network_learns_what_tells_expansion(
    preset: str, options: str, cohorts: dict[str, Path], tmp_path: Path
) -> None:
    package = tmp_path / "learned"
    train = ["train", "risk", "--cohort", str(cohorts["learned"]), "-o", str(package), "--preset", preset]
    assert main([*train, *options.split()]) == 0
    description = open_package(package).description
    assert description.training_sources == "simulated patients, no real ones"
    assert description.spacing_mm[0] * description.patch_size[0] == pytest.approx(
        224 if preset == "two-output" else 256
    )
    evaluate = ["evaluate", "risk", "--cohort", str(cohorts["unseen"]), "-o", str(tmp_path / "out")]
    assert main([*evaluate, "--model", str(package)]) == 0
    summary = json.loads((tmp_path / "out" / "risk.json").read_text())
    assert set(summary) == {"model", "volume", "BAT"}
    assert summary["model"]["auc"] == 1.0
    assert summary["model"]["cases"] == 6


def test_each_fold_has_a_network_of_its_own_and_each_patient_is_tested_once(
    cohorts: dict[str, Path], tmp_path: Path
) -> None:
    evaluate = [
        "evaluate",
        "risk",
        "--cohort",
        str(cohorts["unseen"]),
        "-o",
        str(tmp_path / "out"),
        "--folds",
        "3",
    ]
    network = ["--preset", "two-output", "--size", "32,32,8", "--channels", "2,2,4,4", "--epochs", "1"]
    assert main([*evaluate, *network]) == 0
    with (tmp_path / "out" / "risk.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["case"] for row in rows) == [f"case-{k}" for k in range(100, 106)]
    assert all(row["volume_probability"] for row in rows)
    folds = sorted((tmp_path / "out" / "folds").iterdir())
    assert [fold.name for fold in folds] == ["1", "2", "3"]
    told = {row["case"]: float(row["probability"]) for row in rows}
    case = next(row["case"] for row in rows[:2])
    said = predict_risk_of_scan(scan_of(cohorts["unseen"] / case), {}, open_package(folds[0]), CPU)
    assert told[case] == pytest.approx(said.probability, abs=1e-3)


def test_a_cohort_of_one_kind_teaches_nothing(tmp_path: Path) -> None:
    preset = risk_preset("two-output", None, (2, 2, 4, 4), (32, 32, 8))
    still = RiskImages(np.zeros((1, 1, 8, 32, 32), np.float16), np.zeros((1, 1, 8, 32, 32), np.uint8), False)
    images = {tmp_path / str(k): still for k in range(4)}
    with pytest.raises(InputError, match="2 whose hematoma did not: 0 of 4 expanded"):
        train_risk_network(
            list(images), tmp_path / "package", preset, MaskSource("true", torch.device("cpu")), images
        )


def test_what_does_not_go_together_is_refused_with_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package, cohort = tmp_path / "package", tmp_path / "cohort"
    (cohort / "P1").mkdir(parents=True)
    (cohort / "P1" / "baseline.nii.gz").touch()  # no case is looked at
    for arguments, sentence in (
        (
            ["growth", "--preset", "two-output"],
            "no --preset two-output for growth: choose compact or paper or affine",
        ),
        (["risk", "--preset", "paper"], "no --preset paper for risk"),
        (["segmentation", "--preset", "affine"], "no --preset affine for segmentation"),
        (["risk", "--size", "64,64,16"], "only with --preset two-output or slices"),
        (["growth", "--network", "resnet34"], "`hematoma train growth` does not take --network"),
        (["risk", "--preset", "two-output", "--network", "resnet34"], "leave out --network"),
        (["risk", "--preset", "two-output", "--masks", "automatic"], "leave out --masks"),
        (["risk", "--preset", "two-output", "--size", "96,96"], "that of a volume"),
        (["risk", "--preset", "two-output", "--size", "96,96,15"], "multiples of 4"),
        (["risk", "--preset", "two-output", "--size", "1024,1024,32"], "from 8 to 512"),
        (["risk", "--preset", "two-output", "--size", "a,b,c"], "whole numbers"),
        (["risk", "--preset", "two-output", "--channels", "4,8"], "has 4 levels"),
        (["risk", "--preset", "slices", "--network", "unet"], "there is no 'unet'"),
        (["risk", "--preset", "slices", "--size", "64,64,1"], "of a slice"),
        (["risk", "--preset", "slices", "--start", "risk-compact"], "leave out --start"),
        (["segmentation", "--preset", "slices", "--network", "resnet34"], "there is no 'resnet34'"),
        (["segmentation", "--preset", "slices", "--size", "100,100"], "multiples of 16"),
        (["segmentation", "--preset", "slices", "--size", "64"], "two numbers"),
        (["segmentation", "--preset", "slices", "--channels", "4,8"], "five channels"),
        (["segmentation", "--preset", "slices", "--start", "segmentation-compact"], "leave out --start"),
    ):
        assert main(["train", *arguments, "--cohort", str(cohort), "-o", str(package)]) == 2, arguments
        assert sentence in capsys.readouterr().err
    assert not package.exists()


def test_every_second_slice_drawn_goes_through_blood() -> None:
    preset = mask_preset("unet", (2, 2, 2, 2, 2), (64, 64))
    scan = {"ct": np.zeros((1, 20, 40, 48), np.float16), "mask": np.zeros((1, 20, 40, 48), np.uint8)}
    scan["mask"][:, 7:9, 10:20, 10:20] = 1
    transform, drawn = slice_transform(preset, vary=True), []
    for seed in range(60):
        transform.set_random_state(seed)
        (patch,) = transform(scan)
        assert patch["ct"].shape == (1, 64, 64)
        drawn.append(bool(patch["mask"].any()))
    assert 0.4 < np.mean(drawn) < 0.75


def test_a_mask_network_of_slices_is_trained_and_used_like_any_other(
    cohorts: dict[str, Path], tmp_path: Path
) -> None:
    package = tmp_path / "slices"
    train = [
        "train",
        "segmentation",
        "--cohort",
        str(cohorts["unseen"]),
        "-o",
        str(package),
        "--preset",
        "slices",
    ]
    small = ["--network", "unet", "--channels", "4,4,8,8,8", "--size", "64,64", "--epochs", "4"]
    assert main([*train, *small, "--batch-size", "4", "--learning-rate", "0.03"]) == 0
    assert open_package(package).description.patch_size == (64, 64, 1)
    evaluate = ["evaluate", "segmentation", "--cohort", str(cohorts["unseen"]), "-o", str(tmp_path / "out")]
    assert main([*evaluate, "--model", str(package)]) == 0
    found = json.loads((tmp_path / "out" / "segmentation.json").read_text())["baseline"]
    assert found["dice"] > 0.1, "it has begun to find blood"
    assert found["dice"] < found["mean_iou"] < 1, "the background lifts it"
    assert found["cohen_kappa"] == pytest.approx(found["dice"], abs=0.01), "in a volume that is all but empty"


def test_iou_and_kappa_have_their_textbook_values() -> None:
    counts = [20, 5, 10, 15]
    first, second = np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)
    assert mean_iou(first, second) == pytest.approx((20 / 35 + 15 / 30) / 2)
    assert cohen_kappa(first, second) == pytest.approx((0.7 - 0.5) / (1 - 0.5))
    nothing = np.zeros(5, bool)
    assert mean_iou(nothing, nothing) == cohen_kappa(nothing, nothing) == dice(nothing, nothing) == 1
    assert cohen_kappa(~nothing, nothing) == 0
