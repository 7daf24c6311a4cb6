"""Single simulated scans in which each voxel's kind of blood is known, and training on them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from HematomaExpansionLib.anatomy.bleeds import VENTRICLES, Kind
from HematomaExpansionLib.cli.main import main as hematoma
from HematomaExpansionLib.models.description import CLASSES
from HematomaExpansionLib.models.networks.build import build_network
from HematomaExpansionLib.models.package import find_package, open_package
from HematomaExpansionLib.scan.grid import Grid, image_on
from HematomaExpansionLib.scan.mask import Mask
from HematomaExpansionLib.training.data.labelled import LabelledScan, read_labelled, split_by_head
from HematomaExpansionLib.training.segmentation.blood_volumes import shift_blood
from HematomaExpansionLib.training.segmentation.kinds import classes_on, kinds_loss, prepare_labelled
from HematomaExpansionLib.training.segmentation.training import hematoma_logit, segmentation_loss
from HematomaSynthesisLib.simulation import blood_elsewhere, findings
from HematomaSynthesisLib.simulation.anatomy import Anatomy
from HematomaSynthesisLib.simulation.artifacts import Slices
from HematomaSynthesisLib.simulation.canvas import Canvas
from HematomaSynthesisLib.simulation.labelled_scan import (
    ARTIFACTS,
    BLEEDS,
    CHANGES,
    HEMATOMA,
    ScanOptions,
    simulate_scan,
)
from HematomaSynthesisLib.simulation.mass_effect import move, push_from
from phantoms import BRAIN_SEMI_AXES, STRAIGHT, head_hu, positions
from torch import nn

TURNED = (0.96, -0.28, 0.0, 0.28, 0.96, 0.0, 0.0, 0.0, 1.0)
FLIPPED = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
VENTRICLE_CENTERS, VENTRICLE_AXES = ((-14.0, 8.0, 12.0), (14.0, 8.0, 12.0)), (8.0, 32.0, 10.0)
VENTRICLES_ML = 2 * 4 / 3 * np.pi * np.prod(VENTRICLE_AXES) / 1000


def phantom(
    spacing: tuple[float, float, float] = (2.0, 2.0, 4.0), direction: tuple[float, ...] = STRAIGHT
) -> Anatomy:
    """A head of known shape: an ellipsoid brain with two ellipsoid ventricles, as a real scan on any grid."""
    size = [round(extent / step) for extent, step in zip((180.0, 210.0, 160.0), spacing, strict=True)]
    grid = Grid((1, 1, 1), spacing, (0.0, 0.0, 0.0), direction).centered_at(np.zeros(3), size, spacing)
    points = positions(grid)
    hu = head_hu(points)
    x, y, z = np.moveaxis(points, -1, 0)
    inside = sum((v / a) ** 2 for v, a in zip((x, y, z), BRAIN_SEMI_AXES, strict=True)) <= 1
    ventricles = np.zeros(inside.shape, bool)
    for center in VENTRICLE_CENTERS:
        ventricles |= (
            sum(((v - c) / a) ** 2 for v, c, a in zip((x, y, z), center, VENTRICLE_AXES, strict=True)) <= 1
        )
    hu[ventricles] = 6.0
    return Anatomy(
        image_on(grid, hu),
        Mask.on(grid, inside),
        image_on(grid, (inside & ~ventricles).astype(np.float32)),
        image_on(grid, ventricles.astype(np.float32)),
        0.0,
        from_scan=True,
        template_to_head=sitk.AffineTransform(3),
    )


@pytest.fixture(scope="module")
def head() -> Anatomy:
    return phantom()


def only(*names: str) -> ScanOptions:
    """Scans that show these findings, and nothing else."""
    share = 1.0 if HEMATOMA in names else 0.0
    return ScanOptions(findings=frozenset(names), always=frozenset(names), hematoma_share=share)


def ml_of(labels: sitk.Image, value: int) -> float:
    return float((sitk.GetArrayViewFromImage(labels) == value).sum()) * Grid.of(labels).voxel_volume_ml


def changed(scan: sitk.Image, head: Anatomy) -> np.ndarray:
    return sitk.GetArrayFromImage(scan).astype(float) - sitk.GetArrayFromImage(head.ct)


def test_a_head_as_it_is(head: Anatomy) -> None:
    scan = simulate_scan(1, 1, only(), head)
    assert np.abs(changed(scan.ct, head)).max() <= 0.5
    assert set(np.unique(sitk.GetArrayViewFromImage(scan.labels))) == {0, VENTRICLES}
    assert ml_of(scan.labels, VENTRICLES) == pytest.approx(VENTRICLES_ML, rel=0.06)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("epidural", Kind.EXTRAAXIAL),
        ("subdural", Kind.EXTRAAXIAL),
        ("falcine", Kind.EXTRAAXIAL),
        ("intraventricular", Kind.INTRAVENTRICULAR),
        (HEMATOMA, Kind.INTRAPARENCHYMAL),
    ],
)
def test_each_bleed_alone_is_where_its_truth_says(head: Anatomy, name: str, kind: Kind) -> None:
    scans = [simulate_scan(5, number, only(name), head) for number in (1, 2)]
    assert max(ml_of(scan.labels, kind) for scan in scans) > 0.3
    for scan in scans:
        labels = sitk.GetArrayFromImage(scan.labels)
        assert set(np.unique(labels)) <= {0, VENTRICLES, kind}
        marked, change = labels == kind, np.abs(changed(scan.ct, head))
        assert np.mean(change[marked] > 4) > 0.8 if marked.any() else True
        # Beyond a voxel from what is marked, hardly anything has changed.
        near = sitk.BinaryDilate(sitk.GetImageFromArray(marked.astype(np.uint8)), [2, 2, 2])
        far = sitk.GetArrayFromImage(near) == 0
        assert np.quantile(change[far], 0.999) < 12


def test_ventricular_blood_stays_in_the_ventricles_and_sinks(head: Anatomy) -> None:
    canvas = Canvas.of(head)
    drawn = blood_elsewhere.paint_ventricular(canvas, np.random.default_rng(3))
    blood = canvas.labels == Kind.INTRAVENTRICULAR
    assert blood.any()
    assert np.mean(canvas.ventricles[blood] > 0.4) > 0.95
    rest = canvas.labels == VENTRICLES
    if not drawn["cast"]:  # patients lie on their backs: blood lies below CSF, toward +y
        assert np.argwhere(blood)[:, 1].mean() > np.argwhere(rest)[:, 1].mean()


def test_extra_axial_blood_lies_beneath_the_skull(head: Anatomy) -> None:
    canvas = Canvas.of(head)
    drawn = blood_elsewhere.paint_epidural(canvas, np.random.default_rng(2))
    blood = canvas.labels == Kind.EXTRAAXIAL
    assert canvas.depth[blood].min() > -1
    assert canvas.depth[blood].max() < drawn["thickness_mm"] + 3


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_changes_are_no_blood(head: Anatomy, name: str) -> None:
    canvas = Canvas.of(head)
    CHANGES[name][1](canvas, np.random.default_rng(11))
    assert set(np.unique(canvas.labels)) <= {0, VENTRICLES}
    assert not np.array_equal(canvas.hu, canvas.original)


@pytest.mark.parametrize("name", sorted(ARTIFACTS))
def test_artifacts_change_the_values_alone(head: Anatomy, name: str) -> None:
    hu = sitk.GetArrayFromImage(head.ct)
    slices = Slices(hu, head.inside_skull.voxels, head.inside_skull.grid.spacing)
    after, drawn = ARTIFACTS[name][1](slices, np.random.default_rng(4))
    assert after.shape == hu.shape
    assert drawn
    assert not np.array_equal(after, hu)
    assert np.array_equal(hu, sitk.GetArrayFromImage(head.ct))  # what was given is unchanged
    if name not in {"cut-view", "streaks"}:
        assert abs(float(np.median((after - hu)[slices.inside]))) < 15


def test_metal_beside_a_bleed_marks_no_blood(head: Anatomy) -> None:
    canvas = Canvas.of(head)
    canvas.labels[:] = Kind.INTRAPARENCHYMAL
    findings.paint_metal(canvas, np.random.default_rng(1))
    assert (canvas.labels == 0).any()


def test_the_same_numbers_give_the_same_scan(head: Anatomy) -> None:
    first, again = (simulate_scan(9, 3, ScanOptions(), head) for _ in range(2))
    assert np.array_equal(sitk.GetArrayFromImage(first.ct), sitk.GetArrayFromImage(again.ct))
    assert np.array_equal(sitk.GetArrayFromImage(first.labels), sitk.GetArrayFromImage(again.labels))


def test_every_finding_has_a_switch(head: Anatomy) -> None:
    everything = simulate_scan(9, 4, ScanOptions(always=frozenset({*BLEEDS, *CHANGES, *ARTIFACTS})), head)
    assert {*BLEEDS, *CHANGES, *ARTIFACTS} <= set(everything.description["findings"])
    nothing = simulate_scan(9, 4, only(), head)
    assert not nothing.description["findings"]


@pytest.mark.parametrize("direction", [STRAIGHT, TURNED, FLIPPED])
@pytest.mark.parametrize("spacing", [(2.0, 2.0, 4.0), (1.5, 2.5, 2.0)])
def test_bleeds_lie_in_space_not_in_voxels(
    direction: tuple[float, ...], spacing: tuple[float, float, float]
) -> None:
    """On any grid, painted blood is dense where its label says, and has the volume it was drawn with."""
    head = phantom(spacing, direction)
    scan = simulate_scan(21, 1, only(HEMATOMA), head)
    drawn = scan.description["findings"][HEMATOMA]
    assert ml_of(scan.labels, Kind.INTRAPARENCHYMAL) == pytest.approx(drawn["volume_ml"], rel=0.15, abs=0.3)
    marked = sitk.GetArrayFromImage(scan.labels) == Kind.INTRAPARENCHYMAL
    assert np.median(changed(scan.ct, head)[marked]) > 12


def test_mass_effect_pushes_outward_and_leaves_the_skull(head: Anatomy) -> None:
    canvas = Canvas.of(head)
    z, y, x = np.indices(canvas.grid.shape)
    points = np.moveaxis(np.stack([x, y, z]), 0, -1) @ canvas.grid.axes.T + np.array(canvas.grid.origin)
    body = np.linalg.norm(points - (34.0, 8.0, 12.0), axis=-1) < 12  # beside the left ventricle
    wall = canvas.ventricles > 0.5
    before = points[wall & (points[..., 0] > 0)][:, 0].mean()
    shell = canvas.depth < 0
    skull = canvas.hu[shell].copy()
    move(canvas, push_from(canvas, body, 6.0, 20.0))
    after = points[(canvas.ventricles > 0.5) & (points[..., 0] > 0)][:, 0].mean()
    assert after < before - 1.0  # the ventricle moved away, toward the midline
    assert np.abs(canvas.hu[shell] - skull).mean() < 1.0


def test_half_of_two_kinds_is_blood_not_background() -> None:
    """A voxel of the model grid that two kinds of blood share is blood, of the kind that has more of it."""
    grid = Grid((8, 8, 8), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), STRAIGHT)
    labels = np.full(grid.shape, int(Kind.INTRAVENTRICULAR), np.uint8)
    labels[:, :, :5] = Kind.INTRAPARENCHYMAL
    image = image_on(grid, labels)
    scan = LabelledScan("two", image, Mask.on(grid, np.ones(grid.shape, bool)), image)
    coarse = classes_on(scan, grid.with_spacing((4.0, 4.0, 4.0)))
    assert (coarse[..., 0] == Kind.INTRAPARENCHYMAL).all()
    assert (coarse[..., 1] == Kind.INTRAVENTRICULAR).all()


class Known(nn.Module):
    """A network that returns the logits it was made with."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, _x: torch.Tensor) -> torch.Tensor:
        return self.logits


def test_the_loss_falls_to_zero_for_the_truth_and_not_for_another_kind() -> None:
    classes = torch.zeros(2, 1, 8, 8, 8)
    classes[0, 0, 2:6, 2:6, 2:4], classes[0, 0, 2:6, 2:6, 4:6] = 1, 2
    right = 30.0 * nn.functional.one_hot(classes[:, 0].long(), CLASSES).movedim(-1, 1).float()
    swapped = right[:, [0, 2, 1, 3, 4, 5]]
    batch = {"ct": torch.zeros(2, 1, 8, 8, 8), "classes": classes}
    perfect, wrong = (kinds_loss(Known(logits), batch) for logits in (right, swapped))
    assert float(perfect["ce"]) < 1e-3
    assert float(perfect["dice"]) < 1e-3
    assert float(wrong["dice"]) > 0.3


def test_a_class_that_seems_impossible_is_still_learned() -> None:
    """Blood in the ventricles that the network is sure to be hematoma: the loss pulls on its voxels."""
    classes = torch.zeros(1, 1, 8, 8, 8)
    classes[0, 0, 2:6, 2:6, 2:6] = int(Kind.INTRAVENTRICULAR)
    sure = 15.0 * nn.functional.one_hot(classes[:, 0].long() // 2, CLASSES).movedim(-1, 1).float()
    sure.requires_grad_(True)
    loss = kinds_loss(Known(sure), {"ct": torch.zeros(1, 1, 8, 8, 8), "classes": classes})
    torch.stack(list(loss.values())).sum().backward()
    assert sure.grad is not None
    own = classes[0, 0] > 0
    weight_of_its_voxels = 2 * 64 / (2 * 64 + 448)
    assert float(sure.grad[0, int(Kind.INTRAVENTRICULAR)][own].sum()) == pytest.approx(
        -weight_of_its_voxels, rel=0.01
    )


class OfOneVoxel(nn.Module):
    """The input is the logit of a hematoma, against a background of 0."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv3d(1, CLASSES, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.constant_(self.head.bias, -30.0)
        with torch.no_grad():
            self.head.bias[:2] = 0.0
            self.head.weight[1] = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x)


@pytest.mark.parametrize("true_radius", [9.0, 14.0])
def test_outlines_that_are_too_small_or_too_large_are_made_right(true_radius: float) -> None:
    """The logit of a ball falls by 0.3 per voxel and is 0 at a radius of 12: the shift must be 0.3 per voxel."""
    network = OfOneVoxel()
    away = np.linalg.norm(np.indices((32, 64, 64)) - np.array([16, 32, 32])[:, None, None, None], axis=0)
    ball = {"ct": (0.3 * (12.0 - away))[None], "classes": (away < true_radius).astype(np.uint8)[None]}
    nothing = {"ct": np.full_like(ball["ct"], -3.0), "classes": np.zeros_like(ball["classes"])}
    assert shift_blood(network, [nothing]) == 0.0
    shift = shift_blood(network, [ball, nothing, ball])
    assert shift == pytest.approx(0.3 * (true_radius - 12.0), abs=0.1)
    assert network.head.bias.tolist() == pytest.approx([0.0, shift, shift - 30, shift - 30, -30, -30])


def test_from_six_classes_the_hematoma_against_the_rest() -> None:
    """Where only the hematoma is outlined, the odds of it against all other classes are what is learned."""
    logits = torch.randn(2, CLASSES, 3, 3, 3)
    own = torch.softmax(logits, dim=1)[:, 1:2]
    torch.testing.assert_close(torch.sigmoid(hematoma_logit(logits)), own)
    alone = torch.randn(2, 1, 3, 3, 3)
    assert hematoma_logit(alone) is alone
    mask = (torch.rand(2, 1, 32, 32, 32) > 0.5).float()
    network = build_network("segmentation-unet", {"channels": [4, 8], "classes": CLASSES})
    loss = segmentation_loss(network, {"ct": torch.rand(2, 1, 32, 32, 32), "mask": mask})
    torch.stack(list(loss.values())).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three heads without blood."""
    folder = tmp_path_factory.mktemp("heads")
    for number in range(3):
        head = phantom((2.0, 2.0, 5.0))
        noise = np.random.default_rng(number).normal(0, 3, head.inside_skull.grid.shape)
        noisy = sitk.GetArrayFromImage(head.ct) + noise
        image = image_on(head.inside_skull.grid, np.round(noisy).astype(np.int16))
        sitk.WriteImage(image, str(folder / f"head-{number}.nii.gz"))
    return folder


def test_training_with_heads(heads: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Heads are learned from as they are and painted; no head is on both sides; the network tells six classes."""
    package = tmp_path / "kinds"
    command = ["train", "segmentation", "--heads", str(heads), "--painted", "1", "-o", str(package)]
    assert hematoma([*command, "--channels", "4,8", "--epochs", "1", "--seed", "1"]) == 0
    painted = sorted((package / "training" / "painted").iterdir())
    assert len(painted) == 6
    as_they_are = [read_labelled(case) for case in painted[:3]]
    assert all(ml_of(scan.classes, kind) == 0 for scan in as_they_are for kind in Kind)
    learned, unseen = split_by_head(painted, 0.34, 1)
    head = {case: json.loads((case / "case.json").read_text())["head"] for case in painted}
    assert unseen
    assert {head[case] for case in learned}.isdisjoint(head[case] for case in unseen)
    assert "head-" not in "".join((case / "case.json").read_text() for case in painted)  # names may name a patient
    description = open_package(package).description
    assert description.arguments["classes"] == CLASSES
    sample = prepare_labelled(painted[3])[0]
    assert sample["ct"].shape == sample["classes"].shape
    capsys.readouterr()
    assert hematoma(["evaluate", "segmentation", "--cohort", str(painted[0].parent), "--model", str(package), "-o",
                     str(tmp_path / "figures")]) == 0  # fmt: skip
    figures = json.loads(capsys.readouterr().out)
    assert set(figures) >= {kind.name.lower() for kind in Kind}


def test_a_network_of_one_class_grows_to_six(heads: Path) -> None:
    """What a network of one class knows of the hematoma is where training begins."""
    from HematomaExpansionLib.training.segmentation.kinds import _initial

    shipped = find_package("segmentation-compact", "segmentation")
    channels = tuple(shipped.description.arguments["channels"])
    wide = _initial(channels, [shipped], 1).network.eval()
    patch = torch.rand(1, 1, 16, 16, 16)
    with torch.inference_mode():
        assert torch.allclose(wide(patch)[:, 1], shipped.load()(patch)[:, 0], atol=1e-4)


def test_a_mixed_cohort_is_refused(heads: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cohort = tmp_path / "cohort"
    assert (
        hematoma(["simulate", "--single", "-o", str(cohort), "-n", "1", "--seed", "1", "--anatomy", str(heads)])
        == 0
    )
    other = cohort / "other"
    other.mkdir()
    (other / "baseline.nii.gz").write_bytes((heads / "head-0.nii.gz").read_bytes())
    assert hematoma(["train", "segmentation", "--cohort", str(cohort), "-o", str(tmp_path / "model")]) == 2
    assert "do not tell the kinds of bleeds apart" in capsys.readouterr().err


def test_findings_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["simulate", "--single", "-o", str(tmp_path / "scans"), "-n", "1", "--seed", "1"]
    assert hematoma([*command, "--findings", "ufo"]) == 2
    assert "There is no finding 'ufo'" in capsys.readouterr().err
    assert hematoma([*command, "--volume", "20"]) == 2
    assert (
        hematoma(["simulate", "-o", str(tmp_path / "pairs"), "-n", "1", "--seed", "1", "--findings", "air"]) == 2
    )


def test_pairs_in_several_heads(heads: Path, tmp_path: Path) -> None:
    """A cohort of pairs bleeds into the heads of a folder in turn."""
    cohort = tmp_path / "pairs"
    assert (
        hematoma(["simulate", "-o", str(cohort), "-n", "2", "--seed", "1", "--anatomy", str(heads), "--jobs", "1"])
        == 0
    )
    cases = sorted(cohort.iterdir())
    assert len(cases) == 2
    for case, head in zip(cases, sorted(heads.iterdir()), strict=False):
        blood = sitk.GetArrayFromImage(sitk.ReadImage(str(case / "baseline-mask.nii.gz"))) > 0
        change = np.abs(
            sitk.GetArrayFromImage(sitk.ReadImage(str(case / "baseline.nii.gz"))).astype(float)
            - sitk.GetArrayFromImage(sitk.ReadImage(str(head)))
        )
        assert change[blood].mean() > 10
        assert np.median(change) == 0
