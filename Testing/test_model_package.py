"""Model packages: what is damaged, foreign or dangerous is refused with a sentence."""

import json
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from HematomaExpansionLib.cli.main import main
from HematomaExpansionLib.errors import ModelPackageError
from HematomaExpansionLib.models.description import (
    ARCHITECTURES_OF,
    CLASSES,
    ENSEMBLE,
    EVIDENCE_LOGISTIC,
    PRESENCE,
    SPREAD_NUMBERS,
    ModelDescription,
    TrainingStep,
    package_name,
)
from HematomaExpansionLib.models.measurement_names import MEASUREMENTS
from HematomaExpansionLib.models.networks.build import ARCHITECTURES, build_network
from HematomaExpansionLib.models.networks.risk import MarkerLogistic
from HematomaExpansionLib.models.package import (
    ModelPackage,
    available_packages,
    find_package,
    install_package,
    open_package,
    shipped_models_folder,
    write_package,
)
from HematomaExpansionLib.training.risk.logistic import FEATURES

SPREAD = dict.fromkeys(SPREAD_NUMBERS, 0.5)


@pytest.fixture
def package(tmp_path: Path) -> ModelPackage:
    description = ModelDescription(
        name="small",
        version="3",
        task="growth",
        architecture="displacement-unet",
        arguments={"channels": [4, 8]},
        spacing_mm=(2.0, 2.0, 2.5),
        patch_size=(32, 32, 16),
        window_hu=(0.0, 100.0),
        trained_on=(TrainingStep("learned from", 3, "a test"),),
        results={"validation_loss": 0.5},
        license="Apache-2.0",
        intended_use="test",
        settings={"integration_steps": 6},
    )
    torch.manual_seed(1)
    return write_package(tmp_path / "small", description, build_network("displacement-unet", {"channels": [4, 8]}))


@pytest.fixture(autouse=True)
def own_models_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEMATOMA_MODELS", str(tmp_path / "installed"))
    return tmp_path / "installed"


def test_what_is_written_is_read_again(package: ModelPackage) -> None:
    again = open_package(package.folder)
    assert again == package
    assert json.loads((package.folder / "model.json").read_text())["research_use_only"] is True
    torch.manual_seed(1)
    original = build_network("displacement-unet", {"channels": [4, 8]})
    for name, tensor in again.load().state_dict().items():
        torch.testing.assert_close(tensor, original.state_dict()[name], atol=1e-3, rtol=1e-2)
        assert not tensor.is_floating_point() or tensor.dtype == torch.float32


def test_variances_beyond_half_precision_survive(package: ModelPackage, tmp_path: Path) -> None:
    """As infinity they would silence their channels, and the shipped network would not be the trained one."""
    arguments = {"channels": [4, 8], "norm": "BATCH"}
    torch.manual_seed(2)
    network = build_network("displacement-unet", arguments)
    variances = [tensor for name, tensor in network.state_dict().items() if name.endswith("running_var")]
    assert variances
    for variance in variances:
        variance.fill_(2e5)
    for parameter in network.parameters():
        parameter.data *= 40
    written = write_package(tmp_path / "wide", replace(package.description, arguments=arguments), network)
    patch = torch.randn(1, 2, 16, 16, 16)
    with torch.inference_mode():
        expected, read = network.eval()(patch), written.load()(patch)
    assert float(expected.abs().max()) > 0.01
    torch.testing.assert_close(read, expected, rtol=0.01, atol=0.01 * float(expected.abs().max()))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(package: ModelPackage, tmp_path: Path, value: float) -> None:
    network = package.load()
    next(network.parameters()).data.view(-1)[3] = value
    with pytest.raises(ModelPackageError, match="do not fit"):
        write_package(tmp_path / "broken", package.description, network).load()


def test_a_changed_weight_is_refused(package: ModelPackage) -> None:
    weights = package.folder / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ModelPackageError, match="checksum"):
        open_package(package.folder)


def described(package: ModelPackage, change: Callable[[dict[str, Any]], object]) -> Path:
    file = package.folder / "model.json"
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))
    return package.folder


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.pop("sha256"),
        lambda v: v.update(spacing_mm=[2, 2]),
        lambda v: v.update(patch_size=["a", 1, 2]),
        lambda v: v.update(architecture="unet"),
        lambda v: v.update(name="../../elsewhere"),
        lambda v: v.update(task="surprise"),
        lambda v: v.update(patch_size=[100000, 100000, 100000]),
        lambda v: v.update(spacing_mm=[0, 2, 2]),
        lambda v: v.update(name="C:\\elsewhere"),
        lambda v: v.update(name="con/../.."),
        lambda v: v.update(patch_size=[1e400, 16, 16]),
        lambda v: v.update(intended_use="everything " * 8000),
        lambda v: v.update(settings={"spread": {}}),
        lambda v: v.update(settings={"spread": {"true": {"middle": 0.0}}}),
        lambda v: v.update(settings={"spread": {"drawn": SPREAD}}),
        lambda v: v.update(settings={"spread": {"true": {**SPREAD, "deviation": 0.0}}}),
        lambda v: v.update(settings={"spread": {"true": {**SPREAD, "shape": "steep"}}}),
        lambda v: v.update(settings={"integration_steps": "six"}),
        lambda v: v.update(settings={"integration_steps": 40}),
        lambda v: v.update(settings={"integration_steps": None}),
        lambda v: v.update(results={"training_mean_relative_growth": "much"}),
        lambda v: v.update(version="1" * 41),
        lambda v: v.update(trained_on=[{"what": 3}]),
        lambda v: v.update(trained_on=[{"what": "learned from", "cases": "many"}]),
        lambda v: v.update(trained_on=[{"who": "everybody"}]),
        lambda v: v.update(trained_on={"what": "learned from"}),
    ],
)
def test_a_description_that_cannot_be_trusted_is_refused(
    package: ModelPackage, change: Callable[[dict[str, Any]], object]
) -> None:
    with pytest.raises(ModelPackageError, match="install the package again"):
        open_package(described(package, change))


def test_settings_of_earlier_versions_are_ignored(package: ModelPackage) -> None:
    """How much grows, and how sure that is, was once told by the growth package."""
    earlier = {
        "volume_range": {"true": {"low": [-1.0, 0.0, 0.5], "high": [2.0, 0.1, 1.5]}},
        "growth_by_probability": {"constant": 0.0, "slope": 0.5, "smallest": 0.1, "largest": 2.0},
        "probability_from": {"name": "risk-compact", "version": "1", "sha256": "0" * 64},
    }
    folder = described(package, lambda v: v.update(settings={"integration_steps": 6, **earlier}))
    assert open_package(folder).load() is not None


def test_no_json_no_file_and_no_link_is_accepted(package: ModelPackage, tmp_path: Path) -> None:
    for text in ("not json", "[" * 10_000, "[]", "3", ""):
        (package.folder / "model.json").write_text(text)
        with pytest.raises(ModelPackageError, match="cannot be understood"):
            open_package(package.folder)
    with pytest.raises(ModelPackageError, match=r"has no model\.json"):
        open_package(tmp_path)
    weights = package.folder / "weights.safetensors"
    shutil.move(weights, tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelPackageError, match=r"has no weights\.safetensors"):
        open_package(package.folder)


def test_weights_of_another_network_are_refused(package: ModelPackage) -> None:
    folder = described(package, lambda v: v["architecture"]["arguments"].update(channels=[4, 16]))
    with pytest.raises(ModelPackageError, match="do not fit"):
        open_package(folder).load()
    for channels in ([1 << 40] * 4, [60_000] * 4, [4] * 3000, [-4, 8], [0, 0], ["4", "8"], "48", None):
        folder = described(package, lambda v, c=channels: v["architecture"]["arguments"].update(channels=c))
        with pytest.raises(ModelPackageError, match=r"do not fit|does not know"):
            open_package(folder).load()
    folder = described(package, lambda v: v["architecture"].update(name="os.system"))
    with pytest.raises(ModelPackageError, match="does not know"):
        open_package(folder).load()


@pytest.mark.parametrize(
    "change",
    [{"patch_size": [32, 32, 15]}, {"patch_size": [33, 32, 16]}, {"task": "segmentation"}, {"task": "risk"}],
)
def test_a_network_that_fits_neither_its_patches_nor_its_task_is_refused(
    package: ModelPackage, change: dict[str, Any]
) -> None:
    folder = described(package, lambda v: v.update(change))
    with pytest.raises(ModelPackageError, match="do not fit"):
        open_package(folder).load()


def test_a_pickle_under_a_safe_name_is_refused(package: ModelPackage) -> None:
    import hashlib

    weights = package.folder / "weights.safetensors"
    torch.save({"weight": torch.zeros(2)}, weights)
    described(package, lambda v: v.update(sha256=hashlib.sha256(weights.read_bytes()).hexdigest()))
    with pytest.raises(ModelPackageError, match="do not fit"):
        open_package(package.folder).load()


def test_an_installed_model_is_found_by_name(package: ModelPackage, own_models_folder: Path) -> None:
    with pytest.raises(ModelPackageError, match="no model 'small'"):
        find_package("small", "growth")
    install_package(package.folder)
    assert find_package("small", "growth").folder == own_models_folder / "small"
    assert [path.name for path in own_models_folder.iterdir()] == ["small"]
    with pytest.raises(ModelPackageError, match="already"):
        install_package(package.folder)
    with pytest.raises(ModelPackageError, match="for growth, not for segmentation"):
        find_package("small", "segmentation")
    assert find_package(str(package.folder), "growth").sha256 == package.sha256


def test_a_name_that_is_a_folder_here_too_is_not_guessed(
    package: ModelPackage, own_models_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_package(package.folder)
    monkeypatch.chdir(package.folder.parent)
    assert package.folder.name == package.description.name == "small"
    with pytest.raises(ModelPackageError, match=r"write \./small"):
        find_package("small", "growth")
    assert find_package("./small", "growth").folder.resolve() == package.folder.resolve()


def test_a_damaged_package_does_not_hide_the_others(package: ModelPackage, own_models_folder: Path) -> None:
    install_package(package.folder)
    shutil.copytree(own_models_folder / "small", own_models_folder / "damaged")
    (own_models_folder / "damaged" / "model.json").write_text("{}")
    found = [entry for entry in available_packages() if isinstance(entry, ModelPackage)]
    assert "small" in [entry.description.name for entry in found]
    assert sum(isinstance(entry, ModelPackageError) for entry in available_packages()) == 1


@pytest.mark.parametrize("name", ["segmentation-compact", "growth-compact", "risk-compact"])
def test_the_shipped_packages_are_whole_small_and_say_what_they_are(name: str) -> None:
    package = find_package(name, name.split("-", maxsplit=1)[0])  # type: ignore[arg-type]
    package.load()
    assert package.folder.parent == shipped_models_folder()
    assert (package.folder / "weights.safetensors").stat().st_size <= 12e6
    assert package.description.training_sources == "simulated patients, no real ones"
    assert "Not for diagnosis" in package.description.intended_use


def test_the_shipped_network_for_kinds_tells_them_all_apart_and_how_sure() -> None:
    package = find_package(None, "segmentation")
    package.load()
    assert package.description.name == "segmentation-kinds"
    assert (package.folder / "weights.safetensors").stat().st_size <= 12e6
    assert package.description.classes == CLASSES
    assert PRESENCE in package.description.settings
    sources = "simulated patients, no real ones, then simulated patients and simulated bleeds in real heads"
    assert package.description.training_sources == sources


def risk_package(folder: Path, features: Any = FEATURES, results: dict[str, Any] | None = None) -> Path:
    """The shipped risk model's description with other features or results, around weights that fit."""
    shipped = find_package(None, "risk").description
    arguments = {"features": list(features) if isinstance(features, tuple) else features}
    given = shipped.results if results is None else results
    with suppress(ModelPackageError):  # it is read back after writing, and stays for the test
        write_package(folder, replace(shipped, arguments=arguments, results=given), MarkerLogistic(FEATURES))
    return folder


@pytest.mark.parametrize(
    ("features", "sentence"),
    [
        ((*FEATURES[:-1], "shoe_size"), "does not make (shoe_size)"),
        (("log_volume", "onset", "swirl", "blend", "island"), "(log_volume, onset, swirl and 2 more)"),
        ((*FEATURES, FEATURES[0]), "of which one comes twice"),
        ((), "does not say which"),
        ("log_volume_ml", "does not say which"),
        ([1, 2], "does not say which"),
        (None, "does not say which"),
    ],
)
def test_a_risk_package_that_looks_at_what_nobody_measures_is_refused(
    tmp_path: Path, features: Any, sentence: str
) -> None:
    """Each such feature would count as the training patients' mean, and the probability would look sound."""
    with pytest.raises(ModelPackageError, match=re.escape(sentence)):
        open_package(risk_package(tmp_path / "odd", features))


def test_all_that_our_own_training_looks_at_can_be_measured() -> None:
    assert set(FEATURES) <= set(MEASUREMENTS)
    assert len(set(MEASUREMENTS)) == len(MEASUREMENTS)


def test_a_package_may_ask_for_each_network_of_this_version_and_no_other() -> None:
    known = {name for names in ARCHITECTURES_OF.values() for name in names}
    assert (known - {EVIDENCE_LOGISTIC}) | {ENSEMBLE} == set(ARCHITECTURES), "a forecast has no network"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"architecture": {"name": "slice-classifier", "arguments": {}}}, "do not fit together"),
        (
            {"architecture": {"name": "displacement-unet", "arguments": {}}, "patch_size": [32, 32, 1]},
            "do not fit",
        ),
        ({"architecture": {"name": "ensemble", "arguments": {"member": "segmentation-unet"}}}, "do not fit"),
        ({"architecture": {"name": "ensemble", "arguments": {}}}, "does not know"),
        ({"architecture": {"name": "marker-logistic", "arguments": {"features": ["onset_hours"]}}}, "do not fit"),
    ],
)
def test_a_network_for_another_task_is_refused_when_the_package_is_opened(
    package: ModelPackage, change: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ModelPackageError, match=sentence):
        open_package(described(package, lambda v: v.update(change)))


def test_what_an_evaluation_needs_of_a_package_is_missed_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from HematomaExpansionLib.training.growth import evaluation
    from HematomaExpansionLib.training.risk import evaluation as risk_evaluation

    (tmp_path / "P1").mkdir()
    (tmp_path / "P1" / "baseline.nii.gz").touch()
    for module in (evaluation, risk_evaluation):
        monkeypatch.setattr(module, "case_folders", lambda _: pytest.fail("the cases were begun with"))
    growth = find_package(None, "growth")
    write_package(tmp_path / "growth", replace(growth.description, results={}), growth.load())
    models = {"growth": tmp_path / "growth", "risk": risk_package(tmp_path / "risk", results={})}
    for task, model in models.items():
        arguments = ["--model", str(model), "--cohort", str(tmp_path), "-o", str(tmp_path / "out")]
        assert main(["evaluate", task, *arguments]) == 2
        assert "does not report 'training" in capsys.readouterr().err


def test_a_name_that_will_not_do_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from HematomaExpansionLib.training.data import cohort
    from HematomaExpansionLib.training.segmentation import volume_correction

    for module in (cohort, volume_correction):
        monkeypatch.setattr(module, "case_folders", lambda _: pytest.fail("the cases were begun with"))
    for command in (
        ["train", "segmentation"],
        ["train", "growth"],
        ["train", "risk"],
        ["adapt", "segmentation-compact"],
        ["correct", "segmentation-compact"],
    ):
        for name in ("Our Model", "-model", "x" * 65, "modèle"):
            assert main([*command, "--cohort", str(tmp_path), "-o", str(tmp_path / name)]) == 2
            assert f"cannot be called {name!r}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_named_after_the_folder_that_a_path_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "our-model" / "deeper").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "our-model" / "deeper")
    assert package_name(Path("..")) == "our-model"
    assert package_name(Path()) == "deeper"
    assert package_name(Path("../../other/")) == "other"


def test_the_one_sentence_of_an_earlier_package_still_opens(package: ModelPackage) -> None:
    """A fine-tuned package nested the sentences of the packages it started from, without end."""
    sentence = "12 simulated patients, no real ones"
    while len(sentence) < 2500:
        sentence = f"12 simulated patients, no real ones; 3 more chose the weights; began from small ({sentence})"
    opened = open_package(described(package, lambda v: v.update(trained_on=sentence)))
    assert opened.description.trained_on == (TrainingStep(sentence),)
    assert opened.identity["trained_on"] == "12 simulated patients, no real ones"
    assert open_package(
        described(package, lambda v: v.update(trained_on=[sentence, {"what": "calibrated on", "cases": 9}]))
    ).description.trained_on == (TrainingStep(sentence), TrainingStep("calibrated on", 9))


def test_a_result_says_in_few_words_whom_a_model_was_trained_on(package: ModelPackage) -> None:
    steps = [TrainingStep("learned from", 9, "simulated patients, no real ones", "seed 1")] * 30
    real = TrainingStep("learned from", 9, "patients (site A)")
    short = replace(package.description, trained_on=(*steps, real)).training_sources
    assert short == "simulated patients, no real ones, then patients (site A)"
    many = tuple(TrainingStep("learned from", 9, f"patients (site {k})") for k in range(40))
    assert len(replace(package.description, trained_on=many).training_sources) <= 120
