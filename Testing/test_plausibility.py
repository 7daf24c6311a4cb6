"""A scan as a whole: the impossible is refused, what may be partial or another kind of blood is reported."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from HematomaExpansionLib.anatomy.bleeds import Bleeds, Kind, labels_on
from HematomaExpansionLib.anatomy.brain import Brain, extract_brain
from HematomaExpansionLib.anatomy.plausibility import check_plausibility
from HematomaExpansionLib.anatomy.segmentation import segment_by_threshold
from HematomaExpansionLib.cli.main import main
from HematomaExpansionLib.errors import InputError
from HematomaExpansionLib.output.report import summary_rows
from HematomaExpansionLib.scan.grid import Grid, image_on
from HematomaExpansionLib.scan.head_ct import HeadCT
from HematomaExpansionLib.scan.mask import Mask
from HematomaSlicerLib.result_card import card
from phantoms import BRAIN_SEMI_AXES, head_grid, head_image, positions, sample, without_flap

GRID = head_grid((1.5, 1.5, 4.0))
POINTS = positions(GRID)
INSIDE = np.linalg.norm(POINTS / BRAIN_SEMI_AXES, axis=-1) <= 1
NOTHING = np.zeros(GRID.shape, bool)


def ball(center: tuple[float, float, float], radius: float) -> np.ndarray:
    return (np.linalg.norm(POINTS - center, axis=-1) <= radius) & INSIDE


def within(layer_mm: float) -> np.ndarray:
    """The outer ``layer_mm`` of the inside of the skull."""
    axes = np.array(BRAIN_SEMI_AXES) - layer_mm
    return INSIDE & (np.linalg.norm(POINTS / axes, axis=-1) > 1)


def head(*blood: np.ndarray, hu: float = 65.0) -> sitk.Image:
    values = sitk.GetArrayFromImage(head_image(GRID)).astype(np.float32)
    for where in blood:
        values[where] += hu - 33.0
    return image_on(GRID, values)


@cache
def brain_of_the_head() -> Brain:
    return extract_brain(head())


@cache
def sample_brain_and_hematoma() -> tuple[Brain, Bleeds]:
    """The inside of the sample's skull, and its hematoma."""
    brain = extract_brain(sample())
    return brain, Bleeds.of_hematoma(segment_by_threshold(sample(), brain.mask))


def notes(
    image: sitk.Image, mask: np.ndarray = NOTHING, brain: Brain | None = None, *, drawn: bool = False
) -> str:
    """What is said about the head with a mask, as one text; the inside of its skull is already known."""
    bleeds = Bleeds.of_hematoma(Mask.on(Grid.of(image), mask))
    return " ".join(check_plausibility(HeadCT(image), brain or brain_of_the_head(), bleeds, drawn=drawn))


def notes_of_sample(image: sitk.Image) -> str:
    brain, bleeds = sample_brain_and_hematoma()
    return " ".join(check_plausibility(HeadCT(image), brain, bleeds, drawn=False))


def changed(slices: slice, change: float, *, to: float | None = None) -> sitk.Image:
    """The sample with some slices' values shifted, or all set to one."""
    hu = sitk.GetArrayFromImage(sample())
    hu[slices] = hu[slices] + change if to is None else to
    return image_on(Grid.of(sample()), hu)


def test_a_whole_scan_is_not_questioned() -> None:
    deep, lobar = ball((25, 10, 5), 16), ball((46, 0, 10), 20)
    assert notes(head()) == ""
    for bleed in (deep, lobar):
        assert notes(head(bleed), bleed) == ""
        assert notes(head(bleed), bleed, drawn=True) == ""
    assert notes_of_sample(sample()) == ""


@pytest.mark.parametrize(
    ("side", "sentence"),
    [(POINTS[..., 0] > 0, "thicker on the left side"), (POINTS[..., 0] < 0, "thicker on the right side")],
    ids=["left", "right"],
)
def test_a_thin_layer_of_blood_along_one_side_of_the_skull_is_reported(side: np.ndarray, sentence: str) -> None:
    thin = within(6.0) & side & (POINTS[..., 2] > -20)
    assert sentence in notes(head(thin))


def test_what_a_network_tells_of_other_blood_is_neither_doubled_nor_contradicted() -> None:
    """A subdural layer that looks like one by its shape, beside a hematoma."""
    deep, layer = ball((25, 10, 5), 16), within(16.0) & (POINTS[..., 0] < -30) & (POINTS[..., 2] > -20)
    scan, brain = HeadCT(head(deep, layer)), brain_of_the_head()

    def told(looked_for: frozenset[Kind], *parts: tuple[Kind, np.ndarray]) -> str:
        bleeds = Bleeds(labels_on(GRID, parts), looked_for)
        return " ".join(check_plausibility(scan, brain, bleeds, drawn=False))

    alone = frozenset({Kind.INTRAPARENCHYMAL})
    assert "check for blood outside of the brain" in told(alone, (Kind.INTRAPARENCHYMAL, deep))
    assert "looks like epidural or subdural" in told(alone, (Kind.INTRAPARENCHYMAL, layer))
    every = frozenset(Kind)
    assert told(every, (Kind.EXTRAAXIAL, layer), (Kind.INTRAPARENCHYMAL, deep)) == ""
    assert "looks like" not in told(every, (Kind.INTRAPARENCHYMAL, layer))
    missed = told(every, (Kind.INTRAPARENCHYMAL, deep))
    assert "was not taken for blood: check it on the scan" in missed
    assert "epidural" not in missed


def test_blood_that_fills_most_of_a_slice_is_no_other_scale() -> None:
    notes(head(within(6.0) & (POINTS[..., 2] > -20)))


@pytest.mark.parametrize("shift", [24.0, -24.0], ids=["denser", "less dense"])
def test_values_that_are_shifted_are_refused(shift: float) -> None:
    with pytest.raises(InputError, match="shifted or rescaled"):
        notes_of_sample(changed(slice(None), shift))


def test_values_that_were_rescaled_are_reported() -> None:
    assert "Air has -900 HU" in notes_of_sample(sample() * 0.9)


@pytest.mark.parametrize(
    ("slices", "change", "to"),
    [
        (slice(15, 16), 1024.0, None),
        (slice(15, 16), 24.0, None),
        (slice(20, 22), -24.0, None),
        (slice(15, 16), 0.0, 0.0),
        (slice(20, 21), 0.0, -1024.0),
    ],
    ids=["no intercept", "another intercept", "two of another", "blank", "air"],
)
def test_a_slice_that_does_not_fit_its_neighbors_is_refused(
    slices: slice, change: float, to: float | None
) -> None:
    with pytest.raises(InputError, match=r"Slice \d+ of 33, counted from the feet, does not fit"):
        notes_of_sample(changed(slices, change, to=to))


def test_missing_slices_are_told_where_slices_are_the_scanners_own() -> None:
    left = [k for k in range(33) if k not in (15, 16)]

    def without(image: sitk.Image) -> sitk.Image:
        kept = image_on(Grid.of(image[:, :, : len(left)]), sitk.GetArrayFromImage(image)[left])
        return sitk.Cast(kept, image.GetPixelID())

    brain, bleeds = sample_brain_and_hematoma()
    hematoma = Mask(without(bleeds.hematoma.image))
    parts = Brain(Mask(without(brain.mask.image))), Bleeds.of_hematoma(hematoma)
    assert "slices may be missing" in " ".join(
        check_plausibility(HeadCT(without(sample())), parts[0], parts[1], drawn=False)
    )
    interpolated = HeadCT(without(sample()), resampled=True)
    assert "missing" not in " ".join(check_plausibility(interpolated, *parts, drawn=False))


@pytest.mark.parametrize(
    ("part", "end", "bleed"),
    [(slice(None, 16), "top", True), (slice(14, None), "bottom", True), (slice(18, None), "bottom", False)],
    ids=["ends in the bleed", "begins in the bleed", "half a brain"],
)
def test_brain_or_bleed_cut_by_the_end_of_the_stack_is_reported(part: slice, end: str, bleed: bool) -> None:
    brain, bleeds = sample_brain_and_hematoma()
    images = (sample(), brain.mask.image, bleeds.hematoma.image)
    scan, inside, mask = (image[:, :, part] for image in images)
    cut = Bleeds.of_hematoma(Mask(mask))
    told = " ".join(check_plausibility(HeadCT(scan), Brain(Mask(inside)), cut, drawn=False))
    assert f"ends within the brain (at the {end})" in told
    assert ("hematoma reaches the end" in told) is bleed


def test_an_open_skull_is_reported() -> None:
    mask = brain_of_the_head().mask
    assert "Bone is missing over about 91 cm²" in notes(head(), brain=Brain(mask, missing_bone_cm2=91.0))
    assert "34 cm² of the skull lies outside" in notes(head(), brain=Brain(mask, unseen_skull_cm2=34.0))


def test_an_inside_with_gaps_and_blood_in_them_is_reported() -> None:
    bleed = ball((35, 0, 20), 14)
    found = brain_of_the_head().mask.voxels
    missed = (POINTS[..., 0] > 8) & (np.abs(POINTS[..., 1]) < 60) & (POINTS[..., 2] > -20)
    part = Brain(Mask.on(GRID, found & ~missed))
    told = notes(head(bleed), brain=part)
    assert "has gaps" in told
    assert "in the head, outside the region examined, is as dense as blood" in told


def test_blood_that_does_not_count_as_hematoma_is_told_with_its_volume() -> None:
    layer = within(11) & (POINTS[..., 0] > 10) & (np.abs(POINTS[..., 2]) < 40)
    layer_ml = layer.sum() * GRID.voxel_volume_ml
    told = notes(head(layer))
    assert "does not count as hematoma: check for blood outside of the brain" in told
    at_least = int(told.removeprefix("At least ").split(" mL")[0])
    assert 0.5 * layer_ml < at_least < layer_ml  # the margin at the bone holds some of that
    assert "do not count" not in notes(head(layer), layer)


def test_vessels_full_of_contrast_agent_are_reported() -> None:
    x, y, z = np.moveaxis(POINTS, -1, 0)
    vessels = INSIDE & (np.abs(z) < 30) & (np.hypot(np.abs(x) - 25, y) < 3)
    assert "denser than blood: contrast agent" in notes(head(vessels, hu=220))


def test_a_mask_of_another_patient_is_refused() -> None:
    with pytest.raises(InputError, match="not mark fresh blood: it measures 33 HU, the brain around it 33 HU"):
        notes(head(), ball((25, 10, 5), 16), drawn=True)


def test_what_is_hardly_denser_than_the_brain_is_reported() -> None:
    faint = ball((25, 10, 5), 16)
    assert "hardly denser than the brain around it (43 and 33 HU)" in notes(head(faint, hu=43), faint)
    assert "hardly denser" in notes(head(faint, hu=43), faint, drawn=True)


def test_a_mask_with_a_strip_to_the_bone_or_on_it_is_reported() -> None:
    bleed = ball((25, 10, 5), 16)
    strip = INSIDE & (POINTS[..., 0] > 25) & (np.abs(POINTS[..., 1] - 10) < 4) & (np.abs(POINTS[..., 2] - 5) < 3)
    assert "A thin part of the mask" in notes(head(bleed), bleed | strip, drawn=True)
    outside = (np.linalg.norm(POINTS - (52, 0, 10), axis=-1) <= 20) & ~INSIDE
    lobar = ball((52, 0, 10), 20)
    assert "of the mask lies on bone or outside the skull" in notes(head(lobar), lobar | outside, drawn=True)


def test_another_kind_of_blood_is_reported() -> None:
    x, y, z = np.moveaxis(POINTS, -1, 0)
    crescent = within(10) & (x > 5) & (np.abs(z) < 40)
    lens = ball((78, 0, 10), 30)
    ventricles = (np.abs(np.abs(x) - 20 - np.abs(y) / 8) < 8) & (np.abs(y) < 35) & (np.abs(z - 8) < 9)
    sheets = (np.hypot(x, y + 10) < 38) & (z > -30) & (z < 15)
    sheets &= x > -10
    sheets &= (np.abs(x) < 3) | (np.abs(y + 10 - 0.6 * x) < 3) | (np.abs(y + 10 + 0.6 * x) < 3)
    for blood, kind in (
        (crescent, "epidural or subdural"),
        (lens, "epidural or subdural"),
        (ventricles, "blood in the ventricles"),
        (sheets, "subarachnoid"),
    ):
        assert blood.sum() * GRID.voxel_volume_ml > 10
        told = notes(head(blood), blood)
        assert f"looks like {kind}" in told, kind
        assert "do not rely on the predicted growth" in told


# --- what a user reads ------------------------------------------------------------------------------------


def test_a_bleed_under_a_missing_bone_flap_is_found_and_every_output_tells_of_the_flap(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan, output = tmp_path / "scan.nii.gz", tmp_path / "result"
    sitk.WriteImage(sitk.Cast(without_flap(sample()), sitk.sitkInt16), str(scan))
    assert main(["predict", "-i", str(scan), "-o", str(output)]) == 0
    printed = capsys.readouterr().out
    result = json.loads((output / "prediction.json").read_text(encoding="utf-8"))
    assert result["baseline"]["volume_ml"] == pytest.approx(17.1, abs=0.6)
    told = [note for note in result["input"]["warnings"] if note.startswith("Bone is missing over")]
    assert len(told) == 1
    assert f"Note: {told[0]}" in printed
    assert told[0].replace(">", "&gt;") in card(result)
    assert result["scope"]["looked_for"].startswith("blood inside the brain, from 0.5 mL, in the ventricles")
    rows = dict(summary_rows(result))
    assert "subdural" in rows["Looked for"]
    assert "rely on the volume above" in rows["ABC/2 now"]
    assert "not for blood" not in card(result)
    assert rows["Trained on"].startswith("segmentation-kinds: simulated patients, no real ones, then simulated ")
    assert "; growth-compact: simulated patients, no real ones; " in rows["Trained on"]
    assert "forecast-evidence: real patients" in rows["Trained on"]
    assert len([row for row in rows if "rained" in row or "Model" in row]) == 2


def test_nothing_found_is_no_all_clear(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan, output = tmp_path / "scan.nii.gz", tmp_path / "result"
    sitk.WriteImage(sitk.Cast(head(), sitk.sitkInt16), str(scan))
    options = ["--segmenter", "threshold"]
    assert main(["predict", "-i", str(scan), "-o", str(output), *options]) == 0
    assert main(["segment", "-i", str(scan), "-o", str(tmp_path / "mask.nii.gz"), *options]) == 0
    result = json.loads((output / "prediction.json").read_text(encoding="utf-8"))
    assert dict(summary_rows(result))["Hematoma now"] == "none found, which does not rule out a bleed"
    (told,) = result["input"]["warnings"]
    assert told.startswith(
        "No hematoma was found (blood inside the brain, from 1 mL). This does not rule out a bleed"
    )
    assert "in the ventricles was not looked for" in told
    assert capsys.readouterr().out.count(f"Note: {told}") == 2
    assert "This does not rule out a bleed" in card(result)


def test_a_mask_of_the_users_own_was_not_looked_for(tmp_path: Path) -> None:
    bleed = ball((25, 10, 5), 16)
    scan, mask, output = tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz", tmp_path / "result"
    sitk.WriteImage(sitk.Cast(head(bleed), sitk.sitkInt16), str(scan))
    sitk.WriteImage(image_on(GRID, bleed.astype(np.uint8)), str(mask))
    assert main(["predict", "-i", str(scan), "-o", str(output), "--mask", str(mask)]) == 0
    result = json.loads((output / "prediction.json").read_text(encoding="utf-8"))
    assert result["scope"] is None
    assert "Looked for" not in dict(summary_rows(result))
