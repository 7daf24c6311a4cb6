"""MedSAM: imported safely, told in millimeters where to look, and adapted."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import signal
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from HematomaExpansionLib.anatomy import prompted
from HematomaExpansionLib.anatomy.prompted import box_around, picture_of
from HematomaExpansionLib.cli.main import main as hematoma
from HematomaExpansionLib.errors import InputError, ModelPackageError
from HematomaExpansionLib.measures.agreement import dice
from HematomaExpansionLib.models.description import MEDSAM, ModelGrid, TrainingStep
from HematomaExpansionLib.models.imports import medsam
from HematomaExpansionLib.models.networks.described import DescribedNetwork
from HematomaExpansionLib.models.networks.promptable import MedSAM
from HematomaExpansionLib.models.package import ModelPackage, open_package, write_package
from HematomaExpansionLib.scan.box import Box
from HematomaExpansionLib.scan.grid import Array, Grid, image_on
from HematomaExpansionLib.scan.mask import Mask
from HematomaExpansionLib.stopping import STOPPED_STATUS
from HematomaExpansionLib.training.data import each_case
from HematomaExpansionLib.training.fitting import FitOptions
from HematomaExpansionLib.training.segmentation.adaptation import RANK_IN_BOXES, adapt, add_adapters, trained_share
from HematomaExpansionLib.training.segmentation.prompted import PutBox
from phantoms import STRAIGHT, head_grid, head_hu, positions

if importlib.util.find_spec("segment_anything") is None:
    pytest.skip("the library segment-anything is not installed", allow_module_level=True)

pytestmark = pytest.mark.usefixtures("each_brain_found_once")

SIZE = 64
TINY: dict[str, Any] = {
    "image_size": SIZE, "patch": 4, "width": 32, "depth": 1, "heads": 2, "global_blocks": [0], "window": 4,
    "prompt_width": 64, "decoder_width": 32,
}  # fmt: skip
LABELS = ["background", "hemorrhage"]
STEPS = 450

Sample = dict[str, Array]


@pytest.fixture(scope="module")
def library() -> Iterator[Any]:
    """The library's own builder of networks, without the part of it that needs torchvision."""
    spec = importlib.util.find_spec("segment_anything")
    assert spec is not None
    stub = types.ModuleType("segment_anything")
    stub.__path__ = list(spec.submodule_search_locations or ())
    sys.modules["segment_anything"] = stub
    yield importlib.import_module("segment_anything.build_sam")
    del sys.modules["segment_anything"]


# --- a tiny network that finds bright blobs in a box ----------------------------------------------------


def drawn(random: np.random.Generator, count: int, blood: float = 0.81) -> tuple[Array, list[Array]]:
    """A picture of a head with some blobs of blood, as a share of the window, and where each of them lies."""
    y, x = np.mgrid[:SIZE, :SIZE]
    distance = ((x - 32) / random.uniform(19, 27)) ** 2 + ((y - 32) / random.uniform(19, 27)) ** 2
    picture = np.select([distance < 1, distance < 1.2, distance < 1.4], [random.uniform(0.36, 0.46), 1.0, 0.37])
    blobs = []
    for _ in range(count):
        (row, column), (tall, wide) = random.uniform(17, 47, 2), random.uniform(4, 9, 2)
        blobs.append(((y - row) / tall) ** 2 + ((x - column) / wide) ** 2 < 1)
        picture[blobs[-1]] = blood
    return np.clip(picture + random.normal(0, 0.03, picture.shape), 0, 1).astype(np.float32), blobs


def in_random_boxes(random: np.random.Generator, blobs: Sequence[Array]) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes around each of the blobs, and what of all blobs lies in each."""
    y, x = np.mgrid[:SIZE, :SIZE]
    boxes, masks = [], []
    for blob in blobs:
        rows, columns, away = *np.nonzero(blob), np.round(8 * random.uniform(0, 1, 4) * random.uniform(0, 1) ** 2)
        left, top = columns.min() - away[0], rows.min() - away[1]
        right, bottom = columns.max() + away[2], rows.max() + away[3]
        boxes.append([left, top, right, bottom])
        masks.append(np.any(blobs, axis=0) & (x >= left) & (x <= right) & (y >= top) & (y <= bottom))
    return torch.tensor(boxes).float(), torch.from_numpy(np.array(masks))[:, None].float()


@pytest.fixture(scope="module")
def trained() -> MedSAM:
    """It has the parts of MedSAM, at sizes that learn within a minute."""
    torch.manual_seed(0)
    random, network = np.random.default_rng(0), MedSAM(LABELS, **TINY)
    optimizer = torch.optim.AdamW(network.parameters(), 4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=STEPS, pct_start=0.2)
    for _ in range(STEPS):
        picture, blobs = drawn(random, 6)
        boxes, masks = in_random_boxes(random, blobs)
        coarse = network.in_boxes(network.embedded(torch.from_numpy(picture)[None, None]), boxes)
        logits = torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bilinear")
        found = torch.sigmoid(logits)
        overlap = (2 * (found * masks).sum() + 1) / ((found + masks).sum() + 1)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, masks) + 1 - overlap
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return network.eval()


def package_of(folder: Path, network: MedSAM) -> ModelPackage:
    described = DescribedNetwork(network, MEDSAM, {"labels": LABELS, **TINY})
    grid = ModelGrid((3.0, 3.0, 5.0), (SIZE, SIZE, 1), (0.0, 80.0))
    steps = (TrainingStep("learned from", 600, "drawings"),)
    return write_package(folder, described.described(folder.name, "segmentation", grid, steps, {}), network,
                         exact=True)  # fmt: skip


@pytest.fixture(scope="module")
def package(trained: MedSAM, tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return package_of(tmp_path_factory.mktemp("packages") / "tiny", trained)


@pytest.fixture(autouse=True)
def nothing_remembered() -> None:
    prompted._embeddings.clear()


# --- heads with two bleeds -------------------------------------------------------------------------------

BLEEDS = {"middle": ((0.0, 0.0, 0.0), 21.0), "left": ((38.0, 26.0, 8.0), 15.0)}


def turned(degrees: float, first: int, second: int) -> Array:
    """A rotation in the plane of two axes."""
    matrix = np.eye(3)
    angle = np.deg2rad(degrees)
    matrix[[first, second], [first, second]] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


OBLIQUE = turned(12, 0, 1) @ turned(10, 1, 2)
GRIDS = {
    "straight": head_grid((2.0, 2.0, 4.0)),
    "flipped": head_grid((2.0, 2.0, 4.0), (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)),
    "upside down, axes swapped": head_grid((4.0, 2.0, 2.0), (0.0, 0.0, 1.0, 0.0, 1.0, 0.0, -1.0, 0.0, 0.0),
                                           (160.0, 240.0, 200.0)),
    "oblique": head_grid((2.0, 2.0, 4.0), tuple(OBLIQUE.flatten().tolist())),
    "anisotropic": head_grid((1.0, 2.5, 6.0)),
}  # fmt: skip


def head(grid: Grid, bleeds: Sequence[str] = tuple(BLEEDS)) -> sitk.Image:
    """A head with those bleeds, as int16 HU."""
    points = positions(grid)
    hu = head_hu(points)
    for name in bleeds:
        center, radius = BLEEDS[name]
        hu[np.linalg.norm(points - center, axis=-1) <= radius] = 65.0
    noise = np.random.default_rng(0).normal(0, 2, grid.shape)
    return image_on(grid, np.round(hu + noise).astype(np.int16))


def box_text(name: str, beyond_mm: float = 2.0) -> str:
    center, radius = BLEEDS[name]
    reach = radius + beyond_mm
    return ",".join(f"{value:g}" for value in [*np.subtract(center, reach), *np.add(center, reach)])


def segmented(scan: Path, folder: Path, package: ModelPackage, *options: str) -> sitk.Image:
    """The mask that the command writes."""
    output = folder / f"mask-{len(list(folder.iterdir()))}.nrrd"
    command = ["segment", "-i", str(scan), "-o", str(output), "--segmenter", str(package.folder), *options]
    assert hematoma(command) == 0
    return sitk.ReadImage(str(output))


@pytest.mark.parametrize("name", list(GRIDS))
def test_what_a_box_in_mm_surrounds_is_found_where_it_is(
    name: str, package: ModelPackage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """However the voxels lie, and each bleed by its own box."""
    grid, scan = GRIDS[name], tmp_path / "scan.nrrd"
    sitk.WriteImage(head(grid), str(scan))
    points = positions(grid)
    for bleed, (center, radius) in BLEEDS.items():
        mask = segmented(scan, tmp_path, package, "--box", box_text(bleed))
        assert Grid.of(mask).is_same(grid)
        truth = np.linalg.norm(points - center, axis=-1) <= radius
        assert dice(sitk.GetArrayFromImage(mask) > 0, truth) > 0.75
        said = capsys.readouterr().out
        assert "looked only in the box" in said
        assert "blood in the ventricles or outside of the brain may be part" in said


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """The head with both bleeds, as a file."""
    sitk.WriteImage(head(GRIDS["straight"]), str(tmp_path / "scan.nrrd"))
    return tmp_path / "scan.nrrd"


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures were encoded each time."""
    counts: list[int] = []
    encode = MedSAM.embedded

    def counted(network: MedSAM, pictures: torch.Tensor) -> torch.Tensor:
        if not pictures.is_meta:  # a package is tried once on nothing when it is opened
            counts.append(len(pictures))
        return encode(network, pictures)

    monkeypatch.setattr(MedSAM, "embedded", counted)
    return counts


def test_only_slices_that_the_box_crosses_are_outlined(package: ModelPackage, scan: Path, tmp_path: Path) -> None:
    """A box 10 mm high on slices of 4 mm around z = 2, 6, 10, 14."""
    mask = segmented(scan, tmp_path, package, "--box", "-23,-23,3,23,23,13")
    found = np.flatnonzero(sitk.GetArrayFromImage(mask).any(axis=(1, 2)))
    assert [mask.TransformIndexToPhysicalPoint((0, 0, int(k)))[2] for k in found] == [2.0, 6.0, 10.0, 14.0]


def test_another_box_on_the_same_slices_encodes_nothing_again(
    package: ModelPackage, scan: Path, encoded: list[int], tmp_path: Path
) -> None:
    first = segmented(scan, tmp_path, package, "--box", "-23,-23,0,23,23,12")
    assert encoded == [1, 1, 1]
    other = segmented(scan, tmp_path, package, "--box", "20,9,0,55,43,12")
    assert encoded == [1, 1, 1]
    assert not np.array_equal(*(sitk.GetArrayFromImage(mask) for mask in (first, other)))
    again = segmented(scan, tmp_path, package, "--box", "-23,-23,0,23,23,16")
    assert encoded == [1, 1, 1, 1]
    first_slices = sitk.GetArrayFromImage(first).any(axis=(1, 2))
    assert np.array_equal(*(sitk.GetArrayFromImage(mask)[first_slices] for mask in (first, again)))


def test_another_model_encodes_anew(
    package: ModelPackage, trained: MedSAM, scan: Path, encoded: list[int], tmp_path: Path
) -> None:
    changed = deepcopy(trained)
    changed.image_encoder.neck[3].bias.data += 1e-3
    for of in (package, package_of(tmp_path / "changed", changed)):
        segmented(scan, tmp_path, of, "--box", "-23,-23,0,23,23,8")
    assert encoded == [1] * 4


def test_no_more_than_some_slices_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompted, "_MAX_EMBEDDINGS", 2)
    calls = []

    def encode(picture: torch.Tensor) -> torch.Tensor:
        calls.append(float(picture.max()))
        return picture

    for value in (1, 2, 1, 3, 1, 2):  # 2 is the one not asked for last when 3 comes
        picture = np.full((4, 4), value, np.float32)
        assert torch.equal(
            prompted._embedded(picture, encode, "model", torch.device("cpu"))[0, 0], torch.from_numpy(picture)
        )
    assert calls == [1, 2, 3, 2]


def test_work_is_stopped_between_two_slices(
    package: ModelPackage,
    scan: Path,
    encoded: list[int],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shares = []

    def tell(stages: object, stage: str, start: float, end: float) -> Callable[[float], None]:
        def share(done: float) -> None:
            shares.append(done)
            if len(shares) == 3:
                signal.raise_signal(signal.SIGTERM)

        return share

    monkeypatch.setattr("HematomaExpansionLib.progress.Stages.within", tell)
    output = tmp_path / "mask.nrrd"
    command = ["segment", "-i", str(scan), "-o", str(output), "--segmenter", str(package.folder)]
    assert hematoma([*command, "--box", "-23,-23,0,23,23,20"]) == STOPPED_STATUS
    assert "Stopped on request" in capsys.readouterr().err
    assert shares == [0.0, 0.2, 0.4]
    assert len(encoded) == 2
    assert not output.exists()


def test_progress_runs_through_the_stage_slice_by_slice(
    package: ModelPackage, scan: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[tuple[str, float]] = []
    monkeypatch.setattr(
        "HematomaExpansionLib.progress.BarProgress.__call__",
        lambda bar, stage, fraction: told.append((stage, round(fraction, 3))),
    )
    segmented(scan, tmp_path, package, "--box", "-23,-23,0,23,23,16")
    assert told[2:] == [("segmentation", fraction) for fraction in (0.6, 0.6, 0.7, 0.8, 0.9)]


# --- without a box ---------------------------------------------------------------------------------------


def test_without_a_box_it_looks_around_what_the_shipped_model_finds(
    package: ModelPackage, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sitk.WriteImage(head(GRIDS["straight"], ["middle"]), str(scan))
    mask = segmented(scan, tmp_path, package)
    center, radius = BLEEDS["middle"]
    truth = np.linalg.norm(positions(GRIDS["straight"]) - center, axis=-1) <= radius
    assert dice(sitk.GetArrayFromImage(mask) > 0, truth) > 0.75
    assert "looked only in the box around what segmentation-kinds found" in capsys.readouterr().out


def test_without_a_box_and_with_nothing_found_it_says_so(
    package: ModelPackage, scan: Path, encoded: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sitk.WriteImage(head(GRIDS["straight"], []), str(scan))
    mask = segmented(scan, tmp_path, package)
    assert not sitk.GetArrayFromImage(mask).any()
    assert not encoded
    said = capsys.readouterr().out
    assert "none was given, and the shipped model found no hematoma to put one around" in said
    assert "Hematoma: 0.0 mL" in said


def test_the_box_around_a_mask_has_the_margin_of_the_training() -> None:
    grid = Grid((1024, 512, 10), (0.5, 0.5, 5.0), (0.0, 0.0, 0.0), STRAIGHT)
    inside = np.zeros(grid.shape, bool)
    inside[3:5, 4:50, 100:201] = True
    box = box_around(Mask.on(grid, inside))
    assert box.first == (90.0, 0.0, 3.0)
    assert box.last == (210.0, 54.0, 4.0)
    assert list(box.slices) == [3, 4]


def test_a_prediction_tells_the_box(package: ModelPackage, scan: Path, tmp_path: Path) -> None:
    folder, box = tmp_path / "result", box_text("middle")
    command = ["predict", "-i", str(scan), "-o", str(folder), "--segmenter", str(package.folder), "--box", box]
    assert hematoma(command) == 0
    result = json.loads((folder / "prediction.json").read_text())
    assert result["input"]["box_mm"] == [-23.0, -23.0, -23.0, 23.0, 23.0, 23.0]
    assert result["bleeds"]["box"] == "drawn"
    assert result["bleeds"]["mixed"] is True
    assert result["bleeds"]["intraventricular_ml"] is None
    assert result["scope"] == {"looked_for": "blood in the box", "not_looked_for": "blood elsewhere, or its kind"}
    assert any("looked only in the box" in warning for warning in result["input"]["warnings"])
    assert result["models"]["segmentation"]["name"] == "tiny"
    assert result["forecast"] is not None
    made_from = json.loads((folder / "provenance.json").read_text())["made_from"]
    assert made_from["options"]["box_mm"] == result["input"]["box_mm"]


def test_a_list_of_cases_gives_each_its_box(
    package: ModelPackage, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "list.csv"
    command = ["batch", "-i", str(table), "-o", str(tmp_path / "results"), "--jobs", "1"]
    table.write_text(f'case,scan,mask,box\na,{scan.name},{scan.name},"0,0,0,9,9,9"\n')
    assert hematoma(command) == 2
    assert "gives a a mask and a box" in capsys.readouterr().err
    table.write_text(f'case,scan,box\na,{scan.name},"0,0,9"\n')
    assert hematoma(command) == 2
    assert "Line 2 of the list: The box is not understood" in capsys.readouterr().err
    table.write_text(f'case,scan,box\na,{scan.name},"{box_text("middle")}"\n')
    assert hematoma(command) == 2
    assert "needs a segmentation model that looks in one" in capsys.readouterr().out
    command[4] = str(tmp_path / "others")
    assert hematoma([*command, "--segmenter", str(package.folder)]) == 0
    result = json.loads((tmp_path / "others" / "a" / "prediction.json").read_text())
    assert result["input"]["box_mm"] == [-23.0, -23.0, -23.0, 23.0, 23.0, 23.0]


# --- boxes that cannot be used ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--box", "1,2,3,4,5"], "The box is not understood: give six numbers in mm"),
        (["--box", "1,2,3,4,5,six"], "The box is not understood"),
        (["--box", "1,2,3,4,5,nan"], "The box is not understood"),
        (["--box", "1,2,3,4,5,3"], "The box has no volume"),
        (["--box", "-200,0,0,-120,9,9"], "outside of the scan, which reaches from -100,-120,-80 to 100,120,80 mm"),
        (["--box", "0,0,0,9,9,9", "--segmenter", "segmentation-compact"], "needs a segmentation model that looks"),
        (["--box", "0,0,0,9,9,9", "--segmenter", "threshold"], "needs a segmentation model that looks in one"),
    ],
)
def test_boxes_that_cannot_be_used_get_a_sentence(
    options: list[str],
    sentence: str,
    package: ModelPackage,
    scan: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "mask.nrrd"
    command = ["segment", "-i", str(scan), "-o", str(output), "--segmenter", str(package.folder)]
    assert hematoma([*command, *options]) == 2
    assert sentence in capsys.readouterr().err
    assert not output.exists()


def test_a_box_and_a_mask_exclude_each_other(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["predict", "-i", str(scan), "-o", str(tmp_path / "r"), "--mask", str(scan), "--box", "0,0,0,9,9,9"]
    assert hematoma(command) == 2
    assert "leave out one" in capsys.readouterr().err


def test_a_box_is_cut_to_the_scan_and_may_be_named_by_any_two_corners() -> None:
    grid = GRIDS["straight"]
    assert Box.of_text("9,-2,30,-5,2,-3") == Box((-5.0, -2.0, -3.0), (9.0, 2.0, 30.0))
    cut = Box.of_text("-999,-999,60,999,999,999").on(grid)
    assert cut.first[:2] == (-0.5, -0.5)
    assert cut.last == (99.5, 119.5, 39.5)
    assert list(cut.slices) == [35, 36, 37, 38, 39]
    thin = Box.of_text("0,0,1.5,9,9,1.6").on(grid)
    assert list(thin.slices) == [20], "thinner than a slice, between two centers"
    with pytest.raises(InputError, match="outside of the scan"):
        Box.of_text("0,0,80,9,9,90").on(grid)


# --- the picture and the network -------------------------------------------------------------------------


def test_a_slice_is_seen_in_whole_grays_of_the_window_stretched_to_a_square() -> None:
    y, x = np.mgrid[:40, :100]
    picture = picture_of(np.where(x < 50, -500.0, 2.0 * y), (0.0, 80.0), 128)
    assert picture.shape == (128, 128)
    assert picture.dtype == np.float32
    assert (picture.min(), picture.max()) == (0.0, 1.0)
    highest = np.floor(255 * 78 / 80)
    np.testing.assert_allclose(picture * highest, np.round(picture * highest), atol=1e-4)
    assert np.all(picture[:, :60] == 0)
    rows = (np.arange(128) + 0.5) * 40 / 128 - 0.5  # where on the slice the picture's rows lie
    np.testing.assert_allclose(picture[8:-8, 100] * highest, (255 * 2 * rows / 80)[8:-8], atol=2.2)
    assert np.all(picture_of(np.full((9, 9), 500.0), (0.0, 80.0), 16) == 0)


def as_published(sam: Any, picture: Array, box: Sequence[float], shape: tuple[int, int]) -> Array:
    """The probability, (y, x) of that shape, by the library's own modules."""
    image = torch.from_numpy(np.repeat(picture[None, None], 3, axis=1))
    with torch.no_grad():
        sparse, dense = sam.prompt_encoder(points=None, boxes=torch.tensor([[list(box)]]), masks=None)
        logits, _ = sam.mask_decoder(
            image_embeddings=sam.image_encoder(image),
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        resized = torch.nn.functional.interpolate(torch.sigmoid(logits), shape, mode="bilinear")
    return resized[0, 0].numpy()


def at_random(network: torch.nn.Module) -> torch.nn.Module:
    """The network with weights at random in the place of those that begin at zero."""
    torch.manual_seed(3)
    for parameter in network.parameters():
        if not parameter.any():
            parameter.data.normal_(std=0.02)
    return network.eval()


@pytest.fixture(scope="module")
def vit_b(library: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """Segment Anything with the encoder ViT-B and weights at random, and a checkpoint as MedSAM's training writes
    it on several GPUs.
    """
    sam = at_random(library.build_sam_vit_b())
    file = tmp_path_factory.mktemp("checkpoint") / "medsam.pth"
    weights = {f"module.{name}": tensor for name, tensor in sam.state_dict().items()}
    torch.save({"model": weights, "optimizer": {"state": {}, "param_groups": []}, "epoch": 3}, file)
    return sam, file


@pytest.fixture(scope="module")
def imported(vit_b: tuple[Any, Path], tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    folder = tmp_path_factory.mktemp("imported") / "medsam"
    assert hematoma(["models", "import", "medsam", str(vit_b[1]), "-o", str(folder)]) == 0
    return open_package(folder)


def test_the_true_architecture_is_imported(vit_b: tuple[Any, Path], imported: ModelPackage) -> None:
    """Each weight of ViT-B, to the last bit, and the same mask from the same embedding."""
    sam, network = vit_b[0], imported.load()
    assert isinstance(network, MedSAM)
    own = network.state_dict()
    assert own.keys() == sam.state_dict().keys()
    assert all(torch.equal(tensor, own[name]) for name, tensor in sam.state_dict().items())
    embedding, box = torch.randn(1, 256, 64, 64), [200.0, 300.0, 500.0, 650.0]
    sam = types.SimpleNamespace(
        image_encoder=lambda image: embedding, prompt_encoder=sam.prompt_encoder, mask_decoder=sam.mask_decoder
    )
    expected = as_published(sam, np.zeros((8, 8), np.float32), box, (256, 256))
    with torch.no_grad():
        ours = torch.sigmoid(network.in_boxes(embedding, torch.tensor([box])))[0, 0].numpy()
    assert expected.std() > 1e-3, "the test can fail"
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_what_a_package_of_medsam_says(imported: ModelPackage) -> None:
    values = json.loads((imported.folder / "model.json").read_text())
    assert values["architecture"] == {"name": "medsam", "arguments": {"labels": LABELS, **medsam.VIT_B}}
    assert values["window_hu"] == [0.0, 80.0]
    assert "Ma 2024" in values["trained_on"][0]["source"]
    assert "Apache License" in (imported.folder / "LICENSE.txt").read_text()
    assert len(json.loads((imported.folder / "provenance.json").read_text())["made_from"]["files"]) == 1
    assert imported.description.is_mixed
    assert imported.description.is_promptable


@pytest.mark.slow
def test_a_slice_is_outlined_as_by_the_library(vit_b: tuple[Any, Path], imported: ModelPackage) -> None:
    """One slice through the whole true network; takes more than a minute on one core."""
    grid = Grid((120, 90, 1), (2.0, 2.0, 5.0), (0.0, 0.0, 0.0), STRAIGHT)
    hu = np.random.default_rng(0).normal(40, 20, grid.shape).astype(np.float32)
    box = Box.of_text("60,40,-2,160,120,2").on(grid)
    whole = Mask.on(grid, np.ones(grid.shape, bool))
    mask = prompted.mask_in_box(image_on(grid, hu), whole, imported, box, torch.device("cpu"))
    scaled = [30 * 1024 / 120, 20 * 1024 / 90, 80 * 1024 / 120, 60 * 1024 / 90]
    expected = as_published(vit_b[0], picture_of(hu[0], (0.0, 80.0), 1024), scaled, (90, 120)) > 0.5
    assert 0 < np.count_nonzero(expected) < expected.size, "the test can fail"
    assert np.array_equal(mask.voxels[0], expected)


def test_a_tiny_network_computes_as_the_library(library: Any) -> None:
    """With blocks that look at windows and at everything, which is how ViT-B is made too."""
    sizes = {**TINY, "depth": 2, "global_blocks": [1], "window": 5}
    network = at_random(MedSAM(LABELS, **sizes))
    assert isinstance(network, MedSAM)
    picture, box = np.random.default_rng(0).random((SIZE, SIZE), np.float32), [9.0, 12.0, 40.0, 33.0]
    expected = as_published(network, picture, box, (SIZE, SIZE))
    boxes = torch.tensor([box, [0.0, 0.0, 63.0, 63.0]])
    with torch.no_grad():
        logits = network(torch.from_numpy(np.stack([picture, 1 - picture]))[:, None, None], boxes)
    assert logits.shape == (2, 2, 1, SIZE, SIZE)
    assert expected.std() > 1e-3, "the test can fail"
    np.testing.assert_allclose(torch.softmax(logits, dim=1)[0, 1, 0].numpy(), expected, atol=1e-5)
    with torch.no_grad():
        whole = network(torch.from_numpy(1 - picture)[None, None, None])
    torch.testing.assert_close(whole[0], logits[1], msg="without a box, the whole picture is the box")


# --- files and packages that cannot be used --------------------------------------------------------------


def refused(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """The sentence with which a file is refused."""
    capsys.readouterr()
    command = ["models", "import", "medsam", str(path), "-o", str(tmp_path / "made"), *options]
    assert hematoma(command) == 2
    assert not (tmp_path / "made").exists()
    return capsys.readouterr().err


class RunsWhenOpened:
    """What a hostile weight file holds."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trace),)


def test_faulty_files_are_refused(
    tmp_path: Path, trained: MedSAM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence each: missing, cut short, hostile, no weights, another network, a lighter one, no numbers."""
    monkeypatch.setattr(medsam, "VIT_B", TINY)
    file = tmp_path / "model.pth"
    assert "no weights to import" in refused(file, tmp_path, capsys)
    torch.save(trained.state_dict(), file)
    assert hematoma(["models", "import", "medsam", str(file), str(file), "-o", str(tmp_path / "made")]) == 2
    assert "Name the one checkpoint" in capsys.readouterr().err
    assert "leave out --label" in refused(file, tmp_path, capsys, "--label", "blood")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert "damaged" in refused(file, tmp_path, capsys)
    torch.save({"model": RunsWhenOpened(tmp_path / "was-run")}, file)
    assert "would run a program" in refused(file, tmp_path, capsys)
    assert not (tmp_path / "was-run").exists()
    torch.save({"model": None, "epoch": 3}, file)
    assert "no weights of MedSAM" in refused(file, tmp_path, capsys)
    torch.save([1, 2], file)
    assert "no weights of MedSAM" in refused(file, tmp_path, capsys)
    torch.save(MedSAM(LABELS, **{**TINY, "width": 16}).state_dict(), file)
    assert "not those of MedSAM (with the encoder ViT-B), but of another" in refused(file, tmp_path, capsys)
    torch.save({"model": {"image_encoder.layers.0.blocks.0.conv1.c.weight": torch.zeros(2)}}, file)
    assert "weights of LiteMedSAM, whose image encoder (TinyViT)" in refused(file, tmp_path, capsys)
    broken = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    next(iter(broken.values()))[0] = torch.nan
    torch.save(broken, file)
    assert "no numbers" in refused(file, tmp_path, capsys)
    torch.save(trained.state_dict(), file)
    command = ["models", "import", "medsam", str(file), "-o", str(tmp_path / "made"), "--trained-on", "drawings"]
    assert hematoma(command) == 0, "and nothing else was wrong with it"
    assert open_package(tmp_path / "made").description.training_sources == "drawings"


def test_without_the_library_the_extra_is_named(
    package: ModelPackage,
    scan: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "segment_anything", None)
    monkeypatch.delitem(sys.modules, "segment_anything.modeling", raising=False)
    assert "hematoma-expansion[medsam]" in refused(scan, tmp_path, capsys)
    output = tmp_path / "mask.nrrd"
    command = ["segment", "-i", str(scan), "-o", str(output), "--segmenter", str(package.folder)]
    assert hematoma([*command, "--box", box_text("middle")]) == 2
    assert "hematoma-expansion[medsam]" in capsys.readouterr().err


def test_a_package_is_installed_and_verified(
    package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEMATOMA_MODELS", str(tmp_path))
    assert hematoma(["models", "install", str(package.folder)]) == 0
    assert hematoma(["models", "verify"]) == 0
    assert "tiny 1: intact" in capsys.readouterr().out
    description = tmp_path / "tiny" / "model.json"
    values = json.loads(description.read_text())
    values["architecture"]["arguments"]["depth"] = 2
    description.write_text(json.dumps(values))
    assert hematoma(["models", "verify"]) == 2
    assert "do not fit together" in capsys.readouterr().err
    one = values["architecture"]
    values["architecture"] = {
        "name": "ensemble",
        "arguments": {"member": one["name"], "arguments": one["arguments"], "count": 2},
    }
    description.write_text(json.dumps(values))
    with pytest.raises(ModelPackageError, match="several networks that each look in a box"):
        open_package(tmp_path / "tiny")


# --- adaptation ------------------------------------------------------------------------------------------


def faint(seed: int) -> Sample:
    """A slice of a site where blood is little brighter than the brain, and one bleed in it."""
    picture, blobs = drawn(np.random.default_rng(seed), 1, blood=0.58)
    return {"ct": picture[None], "mask": blobs[0][None].astype(np.uint8)}


def mean_dice(network: torch.nn.Module) -> float:
    """On slices of that site which no network has seen, each with a box around its bleed."""
    assert isinstance(network, MedSAM)
    agreements = []
    for seed in range(50, 70):
        batch = PutBox(vary=False)(faint(seed))
        with torch.inference_mode():
            logits = network.outlined(network.embedded(batch["ct"][None]), batch["box"][None])
        agreements.append(dice((logits[0, 0] > 0).numpy(), batch["mask"][0].numpy() > 0))
    return float(np.mean(agreements))


def test_adapters_in_the_attention_learn_another_site(
    trained: MedSAM, package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare_all(prepare: object, folders: Sequence[Path], title: str) -> list[list[Sample]]:
        return [[faint(2 * int(folder.name)), faint(2 * int(folder.name) + 1)] for folder in folders]

    monkeypatch.setattr(each_case, "prepare_all", prepare_all)
    cases = [Path(str(number)) for number in range(5)]
    options = FitOptions(epochs=10, batch_size=2, learning_rate=2e-2, patience=20, seed=0, annealed=True)
    before = mean_dice(trained)
    adapted = adapt(cases, tmp_path / "adapted", package, RANK_IN_BOXES, options)
    network = adapted.load()
    assert before < 0.3
    assert mean_dice(network) > 0.7
    own, others = trained.state_dict(), network.state_dict()
    changed = {name for name, tensor in own.items() if not torch.equal(tensor, others[name])}
    assert changed == {"image_encoder.blocks.0.attn.qkv.weight"}
    update = others["image_encoder.blocks.0.attn.qkv.weight"] - own["image_encoder.blocks.0.attn.qkv.weight"]
    values = torch.linalg.svdvals(update)
    assert values[RANK_IN_BOXES - 1] > 1e-4
    assert values[RANK_IN_BOXES] < 1e-6
    about = adapted.description
    assert (about.architecture, about.arguments) == (MEDSAM, {"labels": LABELS, **TINY})
    assert about.trained_on[-1].details.startswith(f"LoRA of rank {RANK_IN_BOXES} in attention")
    assert 0 < about.results["trained_share"] < 0.01


def test_the_share_of_medsam_that_is_learned() -> None:
    with torch.device("meta"):
        network = MedSAM(LABELS, **medsam.VIT_B)
        add_adapters(network, RANK_IN_BOXES)
    learned = {name.rpartition(".parametrizations")[0] for name, parameter in network.named_parameters()
               if parameter.requires_grad}  # fmt: skip
    assert learned == {f"image_encoder.blocks.{k}.attn.qkv" for k in range(12)}
    assert trained_share(network) == pytest.approx(0.0016, abs=5e-5)


def test_boxes_of_the_training_lie_as_far_away_as_medsam_is_used_to() -> None:
    """Each side up to 20 of 1024 pixels outside, and never beyond the picture."""
    mask = np.zeros((1, 1024, 1024), np.uint8)
    mask[0, 5:300, 400:500] = 1
    sample = {"ct": np.zeros(mask.shape, np.float16), "mask": mask}
    assert PutBox(vary=False)(sample)["box"].tolist() == [390.0, 0.0, 509.0, 309.0]
    put = PutBox(vary=True)
    put.set_random_state(0)
    boxes = np.array([put(sample)["box"].tolist() for _ in range(200)])
    away = np.array([400, 5, 0, 0]) - boxes * (1, 1, 0, 0) + (boxes - (0, 0, 499, 299)) * (0, 0, 1, 1)
    assert away.min() >= 0
    assert away.max() <= 20
    assert away[:, 0].std() > 3
    assert boxes[:, 1].min() == 0


def write_cases(cohort: Path, count: int) -> Path:
    """A cohort of heads with a bleed that grows."""
    points = positions(GRIDS["straight"])
    for number in range(count):
        folder = cohort / f"case-{number}"
        folder.mkdir(parents=True)
        for name, radius in (("baseline", 14.0 + number), ("followup", 18.0 + number)):
            blood = np.linalg.norm(points, axis=-1) <= radius
            hu = np.where(blood, 65, head_hu(points)).astype(np.int16)
            sitk.WriteImage(image_on(GRIDS["straight"], hu), str(folder / f"{name}.nii.gz"))
            mask = image_on(GRIDS["straight"], blood.astype(np.uint8))
            sitk.WriteImage(mask, str(folder / f"{name}-mask.nii.gz"))
        (folder / "case.json").write_text(json.dumps({"source": "simulated", "registered": True}))
    return cohort


def test_the_command_adapts_and_the_package_looks_in_boxes(
    package: ModelPackage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort, output = write_cases(tmp_path / "cohort", 2), tmp_path / "adapted"
    command = ["adapt", str(package.folder), "--cohort", str(cohort), "-o", str(output)]
    assert hematoma([*command, "--epochs", "1"]) == 0
    assert "1 simulated patients, no real ones" in open_package(output).description.trained_on[-1].text
    capsys.readouterr()
    assert hematoma([*command[:-1], str(tmp_path / "other"), "--statistics-only"]) == 2
    assert "no batch normalization" in capsys.readouterr().err
    (tmp_path / "masks").mkdir()
    scan = cohort / "case-0" / "followup.nii.gz"
    mask = segmented(scan, tmp_path / "masks", open_package(output), "--box", "-20,-20,-20,20,20,20")
    truth = np.linalg.norm(positions(GRIDS["straight"]), axis=-1) <= 18
    assert dice(sitk.GetArrayFromImage(mask) > 0, truth) > 0.75


def test_cases_without_a_hematoma_cannot_be_learned_from(
    package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(each_case, "prepare_all", lambda prepare, folders, title: [[] for _ in folders])
    options = FitOptions(epochs=1, batch_size=2, learning_rate=2e-2, patience=20, seed=0)
    with pytest.raises(InputError, match="Too few cases have a hematoma"):
        adapt([Path("0"), Path("1")], tmp_path / "adapted", package, 1, options)
