"""Which blood is where, from the network's probabilities to everything a user sees and a file holds of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from bleed_phantoms import (
    HALVES,
    LEFT,
    MIDDLE,
    MODEL_SPACING,
    Ball,
    Shapes,
    class_probabilities,
    inside_of,
    scan_with,
    see,
    six_class_package,
)
from HematomaExpansionLib import prediction
from HematomaExpansionLib.anatomy.bleeds import BLOOD, DOUBTFUL, Bleeds, Kind, Presence
from HematomaExpansionLib.anatomy.kinds import LOOKS
from HematomaExpansionLib.anatomy.midline import Midline
from HematomaExpansionLib.anatomy.presence import evidence_of, presence_of
from HematomaExpansionLib.anatomy.scope import LARGE_EXTRAAXIAL_ML, notes_on_bleeds
from HematomaExpansionLib.anatomy.segmentation import bleeds_from, find_bleeds
from HematomaExpansionLib.cli.main import main
from HematomaExpansionLib.forecast.evidence import steps_text
from HematomaExpansionLib.forecast.forecast import milliliters
from HematomaExpansionLib.measures.expansion import ExpansionDefinition, is_new, measure_growth
from HematomaExpansionLib.output.drawing import FOLLOWUP_COLOR
from HematomaExpansionLib.output.findings import findings, first_line
from HematomaExpansionLib.output.report import summary_rows
from HematomaExpansionLib.scan.dicom.segmentation import read_dicom_segmentation
from HematomaExpansionLib.scan.grid import Grid, image_on
from HematomaExpansionLib.scan.mask import Mask
from HematomaSlicerLib.result_card import card, scores_text
from phantoms import STRAIGHT, head_grid, positions, volume_ml, write_dicom_series
from slicer_scene import DIRECTIONS

# --- from probabilities to a label map ------------------------------------------------------------------

FINE, ANISOTROPIC = (1.0, 1.0, 1.0), (0.7, 0.7, 5.0)
_SHEARED = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.3], [0.0, 0.0, 1.0]])
GRIDS = {
    **{name: head_grid((1.2, 1.2, 2.5), tuple(direction)) for name, direction in DIRECTIONS.items()},
    "fine": head_grid(FINE, STRAIGHT, (150.0, 170.0, 130.0)),
    "anisotropic": head_grid(ANISOTROPIC, STRAIGHT, (150.0, 170.0, 130.0)),
    "sheared": head_grid((1.2, 1.2, 2.5), tuple((_SHEARED / np.linalg.norm(_SHEARED, axis=0)).ravel())),
}
SHAPES: Shapes = {
    **HALVES,
    Kind.EXTRAAXIAL: [Ball((0.0, -60.0, 10.0), 12.0)],
    Kind.EDEMA: [Ball(MIDDLE, 23.0, LEFT), Ball((0.0, 45.0, 0.0), 8.0)],
}


def found_in(grid: Grid, shapes: Shapes) -> Bleeds:
    inside = inside_of(grid)
    return bleeds_from(class_probabilities(inside.box_grid().with_spacing(MODEL_SPACING), shapes), inside)


@pytest.mark.parametrize("name", GRIDS)
def test_each_kind_has_its_volume_on_any_grid(name: str) -> None:
    bleeds = found_in(GRIDS[name], SHAPES)
    assert bleeds.grid.is_same(GRIDS[name])
    assert bleeds.labels.GetPixelID() == sitk.sitkUInt8
    half = HALVES[Kind.INTRAPARENCHYMAL][0].volume_ml
    expected = {
        Kind.INTRAPARENCHYMAL: half,
        Kind.INTRAVENTRICULAR: half,
        Kind.EXTRAAXIAL: SHAPES[Kind.EXTRAAXIAL][0].volume_ml,
        Kind.EDEMA: SHAPES[Kind.EDEMA][0].volume_ml - half,  # without what lies apart from the hematoma
    }
    for kind, true_ml in expected.items():
        assert bleeds.volume_ml(kind) == pytest.approx(true_ml, rel=0.06), kind
        assert (
            bleeds.described[kind.key] == bleeds.volume_ml(kind) == pytest.approx(volume_ml(bleeds.of_kind(kind)))
        )


@pytest.mark.parametrize("name", GRIDS)
def test_no_gap_opens_where_two_kinds_meet_and_neither_changes_the_other(name: str) -> None:
    grid = GRIDS[name]
    together = found_in(grid, HALVES)
    whole = found_in(grid, {Kind.INTRAPARENCHYMAL: [Ball(MIDDLE, 18.0)]})
    np.testing.assert_array_equal(together.blood.voxels, whole.hematoma.voxels)
    alone = found_in(grid, {Kind.INTRAPARENCHYMAL: HALVES[Kind.INTRAPARENCHYMAL]})
    assert alone.described["intraventricular_ml"] == 0.0
    assert together.hematoma.volume_ml == pytest.approx(alone.hematoma.volume_ml, rel=0.04)
    in_common = (together.hematoma & alone.hematoma).volume_ml
    assert in_common > 0.96 * max(together.hematoma.volume_ml, alone.hematoma.volume_ml)


def test_what_was_not_looked_for_is_unknown_and_not_zero() -> None:
    bleeds = Bleeds.of_hematoma(inside_of(head_grid()))
    assert bleeds.volume_ml(Kind.INTRAVENTRICULAR) is None
    described = bleeds.described
    assert described.pop("intraparenchymal_ml") > 1000
    assert set(described.values()) == {None}


def test_a_label_map_and_its_description_are_read_back_as_they_were() -> None:
    bleeds = replace(
        found_in(GRIDS["LPS"], SHAPES),
        presence=Presence(0.93, 12),
        midline=Midline(4.5, (4.5, 0.0, 8.0), (0.0, -70.0, 8.0), (0.0, 80.0, 8.0)),
    )
    again = Bleeds.of_result(bleeds.labels, bleeds.described)
    assert again.described == bleeds.described
    assert (again.looked_for, again.presence) == (bleeds.looked_for, bleeds.presence)
    earlier = Bleeds.of_result(bleeds.hematoma.image, None)
    assert earlier.described == Bleeds.of_hematoma(bleeds.hematoma).described


# --- sentences ------------------------------------------------------------------------------------------


def test_much_blood_outside_of_the_brain_is_told_as_another_disease() -> None:
    def notes(hematoma_mm: float, outside_mm: float) -> str:
        shapes = {
            Kind.INTRAPARENCHYMAL: [Ball(MIDDLE, hematoma_mm)],
            Kind.EXTRAAXIAL: [Ball((0.0, -55.0, 10.0), outside_mm)],
        }
        return " ".join(notes_on_bleeds(found_in(GRIDS["LPS"], shapes)))

    assert Ball(MIDDLE, 14.0).volume_ml > LARGE_EXTRAAXIAL_ML > Ball(MIDDLE, 12.0).volume_ml
    assert "another disease" in notes(18.0, 14.0)
    assert "another disease" in notes(10.0, 12.0), "more than the hematoma"
    assert notes(18.0, 12.0) == ""


def test_the_sentences_say_no_more_than_was_looked_for() -> None:
    nothing = Mask.empty(head_grid())
    (old,) = notes_on_bleeds(Bleeds.of_hematoma(nothing))
    assert "in the ventricles was not looked for" in old
    (new,) = notes_on_bleeds(Bleeds(nothing.image, frozenset(Kind)))
    assert "not looked for" not in new
    assert "does not rule out a bleed" in new


# --- the prediction -------------------------------------------------------------------------------------

SCAN_GRID = head_grid((2.0, 2.0, 4.0))
GANTRY_TILTED = head_grid((2.0, 2.0, 4.0), tuple((_SHEARED / np.linalg.norm(_SHEARED, axis=0)).ravel()))
FACTS = ("--onset-hours", "2", "--no-warfarin", "--no-recurrent")


@pytest.fixture
def package(tmp_path: Path) -> str:
    return str(six_class_package(tmp_path / "package").folder)


def write_scan(folder: Path, shapes: Shapes, orientation: str = "LPS", grid: Grid = SCAN_GRID) -> Path:
    path = folder / "scan.nii.gz"
    sitk.WriteImage(sitk.DICOMOrient(scan_with(grid, shapes), orientation), str(path))
    return path


def with_presence(monkeypatch: pytest.MonkeyPatch, presence: Presence, shift_mm: float | None = None) -> None:
    """Make the prediction know how probable a hematoma is, and the midline's shift."""

    def found(*arguments: Any, **named: Any) -> Bleeds:
        midline = None if shift_mm is None else Midline(shift_mm, (shift_mm, 0, 8), (0, -70, 8), (0, 80, 8))
        return replace(find_bleeds(*arguments, **named), presence=presence, midline=midline)

    monkeypatch.setattr(prediction, "find_bleeds", found)


def predict(scan: Path, output: Path, *options: str) -> dict[str, Any]:
    assert main(["predict", "-i", str(scan), "-o", str(output), *options]) == 0
    return json.loads((output / "prediction.json").read_text())


@pytest.mark.parametrize("orientation", ["LPS", "RAI"])
def test_the_label_map_lies_on_the_scans_own_grid_and_the_result_says_what_it_holds(
    orientation: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    see(monkeypatch, SHAPES)
    with_presence(monkeypatch, Presence(0.97, 20), 3.46)
    scan, output = write_scan(tmp_path, SHAPES, orientation), tmp_path / "result"
    result = predict(scan, output, "--segmenter", package)
    labels = sitk.ReadImage(str(output / "bleeds.nii.gz"))
    assert Grid.of(labels).is_same(Grid.of(sitk.ReadImage(str(scan))))
    assert labels.GetPixelID() == sitk.sitkUInt8
    for kind in Kind:
        assert result["bleeds"][kind.key] == pytest.approx(volume_ml(labels == int(kind)))
        assert result["bleeds"][kind.key] > 1
    mask = sitk.ReadImage(str(output / "baseline-mask.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(labels == 1), sitk.GetArrayFromImage(mask))
    assert result["baseline"]["volume_ml"] == pytest.approx(result["bleeds"]["intraparenchymal_ml"])
    told = {key: result["bleeds"][key] for key in ("midline_shift_mm", "probability_of_hematoma", "slice")}
    assert told == {"midline_shift_mm": 3.46, "probability_of_hematoma": 0.97, "slice": 20}
    assert result["bleeds"]["doubtful"] is False
    assert result["scope"]["not_looked_for"] is None
    warnings = " ".join(result["input"]["warnings"])
    for guess in ("looks like", "not looked for", "check for blood outside", "check for epidural"):
        assert guess not in warnings
    rows = dict(summary_rows(result))
    assert rows["Hematoma now"].endswith("mL (97 % likely to be a hematoma)")
    assert rows["Midline shift"] == "3.5 mm"
    assert rows["Blood in the ventricles"] == f"{result['bleeds']['intraventricular_ml']:.0f} mL"
    assert "; not for" not in rows["Looked for"]
    text = card(result)
    for finding in findings(result):
        assert f"{finding.title}: {finding.value}" in text
    assert LOOKS[Kind.EDEMA].color in text
    assert "97 % likely to be a hematoma" in text


def test_a_drawn_mask_is_the_only_label_and_nothing_else_is_known(tmp_path: Path) -> None:
    shapes: Shapes = {Kind.INTRAPARENCHYMAL: [Ball((25.0, 0.0, 0.0), 16.0)]}
    bleeds = found_in(SCAN_GRID, shapes)
    sitk.WriteImage(bleeds.hematoma.image, str(tmp_path / "mask.nii.gz"))
    result = predict(write_scan(tmp_path, shapes), tmp_path / "result", "--mask", str(tmp_path / "mask.nii.gz"))
    labels = sitk.ReadImage(str(tmp_path / "result" / "bleeds.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(labels), sitk.GetArrayFromImage(bleeds.hematoma.image))
    told = dict(result["bleeds"])
    assert told.pop("intraparenchymal_ml") == pytest.approx(result["baseline"]["volume_ml"])
    assert set(told.values()) == {None}
    assert findings(result) == []


@pytest.mark.parametrize("kinds_known", [True, False])
def test_where_nothing_is_found_the_map_is_empty_and_unknown_volumes_stay_unknown(
    kinds_known: bool, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    see(monkeypatch, {})
    segmenter = package if kinds_known else "threshold"
    result = predict(write_scan(tmp_path, {}), tmp_path / "result", "--segmenter", segmenter)
    assert not sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "result" / "bleeds.nii.gz"))).any()
    assert result["bleeds"]["intraparenchymal_ml"] == 0.0
    for kind in (Kind.INTRAVENTRICULAR, Kind.EXTRAAXIAL, Kind.EDEMA):
        assert result["bleeds"][kind.key] == (0.0 if kinds_known else None)
    assert first_line(result) == "No hematoma found"
    assert ("none found" in card(result)) is kinds_known


def test_blood_elsewhere_is_in_the_first_line_where_there_is_no_hematoma(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: Shapes = {Kind.EXTRAAXIAL: [Ball((0.0, -55.0, 10.0), 14.0)]}
    see(monkeypatch, shapes)
    result = predict(write_scan(tmp_path, shapes), tmp_path / "result", "--segmenter", package)
    assert first_line(result).startswith("No hematoma found · Blood outside of the brain 1")
    assert result["forecast"] is None
    assert "another disease" in " ".join(result["input"]["warnings"])


@pytest.mark.parametrize("told", [None, True, False])
def test_blood_in_the_ventricles_counts_by_itself_and_the_users_word_wins(
    told: bool | None, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    see(monkeypatch, HALVES)
    word = [] if told is None else ["--intraventricular" if told else "--no-intraventricular"]
    options = ["--segmenter", package, *FACTS, *word]
    result = predict(write_scan(tmp_path, HALVES), tmp_path / "result", *options)
    assert result["input"]["clinical"]["intraventricular"] is told, "what was told stays what was told"
    brain, counts = result["scores"]["brain"], told is not False
    assert brain["intraventricular"] == (2 if counts else 0)
    found = f"found on the scan, {result['bleeds']['intraventricular_ml']:.1f} mL"
    said = found if told is None else f"{'present' if told else 'absent'} as told; {found}"
    evidence = steps_text(result["forecast"]["evidence"])
    assert f"{'' if counts else 'no '}blood in the ventricles ({said})" in evidence
    assert (
        f"intraventricular {brain['intraventricular']}, time 4; blood in the ventricles: {said})"
        in scores_text(result)
    )
    assert said in dict(summary_rows(result))["BRAIN score"]
    by_brain = predict(tmp_path / "scan.nii.gz", tmp_path / "brain", *options, "--risk", "brain")
    assert f"BRAIN, {brain['total']} points (blood in the ventricles {said})" in steps_text(
        by_brain["forecast"]["evidence"]
    )


def test_a_forecast_made_anew_still_counts_what_was_found(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from HematomaSlicerLib.renewal import retold

    see(monkeypatch, HALVES)
    result = predict(write_scan(tmp_path, HALVES), tmp_path / "result", "--segmenter", package, *FACTS)
    later = retold(result, {"onset_hours": 3.0})
    assert later["scores"]["brain"]["intraventricular"] == 2
    assert "found on the scan" in steps_text(later["forecast"]["evidence"])
    against = retold(result, {"intraventricular": False})
    assert against["scores"]["brain"]["intraventricular"] == 0
    assert retold(against, {"intraventricular": None})["forecast"] == result["forecast"]


# --- doubtful -------------------------------------------------------------------------------------------


def test_a_doubtful_hematoma_is_shown_and_nothing_is_predicted_for_it(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes: Shapes = {Kind.INTRAPARENCHYMAL: [Ball((25.0, 0.0, 0.0), 9.0)]}
    see(monkeypatch, shapes)
    with_presence(monkeypatch, Presence(DOUBTFUL - 0.18, 21))
    scan, output = write_scan(tmp_path, shapes), tmp_path / "result"
    result = predict(scan, output, "--segmenter", package, *FACTS)
    assert result["baseline"]["volume_ml"] > 2
    assert result["bleeds"]["doubtful"] is True
    assert {result[name] for name in ("forecast", "growth", "followup", "markers", "scores", "risk")} == {None}
    assert {path.name for path in output.iterdir()} == {
        "prediction.json", "baseline-mask.nii.gz", "bleeds.nii.gz", "overlay.png", "report.pdf", "provenance.json"
    }  # fmt: skip
    assert "look at slice 21, counted from the feet" in result["input"]["warnings"][0]
    assert first_line(result).endswith("mL doubtful: look at slice 21")
    label, text = summary_rows(result)[0]
    assert label == "Hematoma now"
    assert "doubtful: look at slice 21 (32 % likely to be a hematoma)" in text
    assert "doubtful: look at slice 21" in capsys.readouterr().out
    assert "doubtful: look at slice 21" in card(result).partition("</p>")[0]
    assert "No hematoma" not in card(result)


def test_the_picture_of_a_doubtful_hematoma_has_the_slice_to_look_at() -> None:
    from HematomaExpansionLib.output.report import _chosen_slices

    thin = head_grid((4.0, 4.0, 1.0))
    bleeds = found_in(thin, {Kind.INTRAPARENCHYMAL: [Ball((25.0, 0.0, 0.0), 12.0)]})
    ct = scan_with(thin, {})
    for number in range(70, 92):
        doubtful = replace(bleeds, presence=Presence(0.3, number))
        made = prediction.Prediction(ct, doubtful, None, None, False, {"bleeds": doubtful.described})
        numbers = [each.number for each in _chosen_slices(made)]
        assert number in numbers
        assert numbers == sorted(set(numbers))


def test_the_limit_itself_is_not_doubtful() -> None:
    bleeds = found_in(SCAN_GRID, HALVES)
    assert not replace(bleeds, presence=Presence(DOUBTFUL, 20)).is_doubtful
    assert replace(bleeds, presence=Presence(DOUBTFUL - 0.01, 20)).is_doubtful
    nothing = found_in(SCAN_GRID, {})
    assert not replace(nothing, presence=Presence(0.02, None)).is_doubtful, "there is nothing to doubt"


def test_the_table_of_a_batch_has_the_volumes_and_the_doubt(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from HematomaExpansionLib.batch.cases import find_cases
    from HematomaExpansionLib.batch.rows import predicted_row

    see(monkeypatch, SHAPES)
    with_presence(monkeypatch, Presence(0.3, 20), 2.0)
    scan = write_scan(tmp_path, SHAPES)
    result = predict(scan, tmp_path / "result", "--segmenter", package)
    (tmp_path / "list.csv").write_text(f"case,scan\nfirst,{scan}\n")
    (case,) = find_cases(tmp_path / "list.csv", tmp_path / "out")
    row = predicted_row(case, result)
    assert row.status == "done"
    assert (row.doubtful, row.probability_of_hematoma, row.midline_shift_mm) == (True, 0.3, 2.0)
    for kind in Kind:
        assert getattr(row, kind.key) == result["bleeds"][kind.key]
    assert row.if_expands_ml is None
    earlier = predicted_row(case, {**result, "bleeds": None})
    assert (earlier.doubtful, earlier.intraventricular_ml) == (None, None)


# --- segment and compare --------------------------------------------------------------------------------


def test_segment_writes_the_label_map_and_prints_what_it_found(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    see(monkeypatch, SHAPES)
    scan, mask, labels = (tmp_path / name for name in ("scan.nii.gz", "mask.nii.gz", "bleeds.nii.gz"))
    write_scan(tmp_path, SHAPES, "RAI")
    arguments = ["segment", "-i", str(scan), "-o", str(mask), "--bleeds", str(labels), "--segmenter", package]
    assert main(arguments) == 0
    found = sitk.ReadImage(str(labels))
    assert Grid.of(found).is_same(Grid.of(sitk.ReadImage(str(scan))))
    assert set(np.unique(sitk.GetArrayFromImage(found))) == {0, *Kind}
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(found == 1), sitk.GetArrayFromImage(sitk.ReadImage(str(mask)))
    )
    said = capsys.readouterr().out
    for kind in (Kind.INTRAVENTRICULAR, Kind.EXTRAAXIAL, Kind.EDEMA):
        assert f"{LOOKS[kind].title}: {milliliters(volume_ml(found == int(kind)))} mL." in said
    mask.unlink()
    assert main(arguments) == 2, "a file is not written over"
    assert not mask.exists()


def test_new_blood_in_the_ventricles_is_expansion_by_the_revised_definition() -> None:
    revised = ExpansionDefinition.REVISED
    assert measure_growth(20.0, 21.0, revised, True).expansion
    assert measure_growth(20.0, 21.0, revised, True).definition.endswith("or new intraventricular blood")
    assert not measure_growth(20.0, 21.0, revised, False).expansion
    unknown = measure_growth(20.0, 21.0, revised)
    assert not unknown.expansion
    assert unknown.definition.endswith("(new intraventricular blood not assessed)")
    assert not measure_growth(20.0, 21.0, ExpansionDefinition.SIX_ML, True).expansion
    table = {(0.0, 3.0): True, (0.0, 0.0): False, (2.0, 9.0): False, (2.0, None): False, (None, 0.0): False}
    assert {volumes: is_new(*volumes) for volumes in table} == table
    assert is_new(None, 3.0) is None
    assert is_new(0.0, None) is None


@pytest.mark.parametrize("told", [None, False])
def test_compare_finds_new_blood_in_the_ventricles_unless_told_otherwise(
    told: bool | None,
    package: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from HematomaExpansionLib import comparison
    from HematomaExpansionLib.anatomy.registration import Registration

    before: Shapes = {Kind.INTRAPARENCHYMAL: HALVES[Kind.INTRAPARENCHYMAL]}
    for name, shapes in (("baseline", before), ("followup", HALVES)):
        (tmp_path / name).mkdir()
        write_scan(tmp_path / name, shapes)
    seen = iter((before, HALVES))

    def found(*arguments: Any) -> Bleeds:
        see(monkeypatch, next(seen))
        return find_bleeds(*arguments)

    monkeypatch.setattr(comparison, "find_bleeds", found)
    monkeypatch.setattr(comparison, "register", lambda *_: Registration(sitk.AffineTransform(3), 1.0, 0.97))
    scans = [f"--{name}={tmp_path / name / 'scan.nii.gz'}" for name in ("baseline", "followup")]
    options = ["--segmenter", package, "--expansion-definition", "revised"]
    word = [] if told is None else ["--no-new-intraventricular"]
    assert main(["compare", *scans, *options, *word, "-o", str(tmp_path / "out")]) == 0
    result = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert result["baseline"]["intraventricular_ml"] == 0.0
    assert result["followup"]["intraventricular_ml"] > 10
    assert result["new_intraventricular"] == {"told": told, "found": True}
    assert result["growth"]["expansion"] is (told is None)
    assert abs(result["growth"]["absolute_ml"]) < 1
    said = capsys.readouterr().out
    assert "yes (baseline none, follow-up 1" in said
    assert ("no, as told; found: yes" in said) is (told is False)


def test_compare_knows_the_baselines_ventricles_from_its_prediction(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from HematomaExpansionLib import comparison
    from HematomaExpansionLib.anatomy.registration import Registration

    see(monkeypatch, HALVES)
    scan = write_scan(tmp_path, HALVES)
    predict(scan, tmp_path / "result", "--segmenter", package)
    monkeypatch.setattr(comparison, "register", lambda *_: Registration(sitk.AffineTransform(3), 1.0, 0.97))
    arguments = [
        "compare", "--baseline", str(scan), "--baseline-mask", str(tmp_path / "result" / "baseline-mask.nii.gz"),
        "--followup", str(scan), "--prediction", str(tmp_path / "result"), "--segmenter", package,
        "-o", str(tmp_path / "out"),
    ]  # fmt: skip
    assert main(arguments) == 0
    result = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert result["new_intraventricular"] == {"told": None, "found": False}


# --- DICOM ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tilted", [False, True])
def test_every_kind_is_a_segment_with_its_code_in_dicom(
    tilted: bool, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("highdicom")
    import pydicom

    see(monkeypatch, SHAPES)
    grid = GANTRY_TILTED if tilted else SCAN_GRID
    files = write_dicom_series(scan_with(grid, SHAPES), tmp_path / "scan", PatientName="Doe^Jane", PatientID="47")
    result = predict(tmp_path / "scan", tmp_path / "result", "--segmenter", package, "--dicom")
    found = pydicom.dcmread(tmp_path / "result" / "bleeds.dcm")
    assert found.SOPClassUID == pydicom.uid.SegmentationStorage
    assert found.PatientID == "47", "an archive files it with the scan"
    assert found.FrameOfReferenceUID == pydicom.dcmread(files[0]).FrameOfReferenceUID
    for kind, item in zip(Kind, found.SegmentSequence, strict=True):
        look = LOOKS[kind]
        assert item.SegmentLabel == look.title
        assert item.SegmentAlgorithmType == "AUTOMATIC"
        (concept,), (region,) = item.SegmentedPropertyTypeCodeSequence, item.AnatomicRegionSequence
        assert (concept.CodeValue, concept.CodingSchemeDesignator) == (look.concept.value, "SCT")
        assert (region.CodeValue, region.CodeMeaning) == (look.region.value, look.region.meaning)
        mask = read_dicom_segmentation(tmp_path / "result" / "bleeds.dcm", look.title)
        assert mask.volume_ml == pytest.approx(result["bleeds"][kind.key], rel=1e-3)
        labels = sitk.ReadImage(str(tmp_path / "result" / "bleeds.nii.gz")) == int(kind)
        there = sitk.Resample(mask.image, labels, sitk.Transform(), sitk.sitkNearestNeighbor)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(there), sitk.GetArrayFromImage(labels))


def test_dicom_needs_a_scan_in_dicom(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = write_scan(tmp_path, HALVES)
    assert main(["predict", "-i", str(scan), "-o", str(tmp_path / "result"), "--dicom"]) == 2
    assert "--dicom files the result with a scan in DICOM" in capsys.readouterr().err
    assert not (tmp_path / "result").exists()


# --- what is seen ---------------------------------------------------------------------------------------

_RGB = {kind: tuple(int(LOOKS[kind].color[first : first + 2], 16) for first in (1, 3, 5)) for kind in Kind}


def pixels_near(picture: np.ndarray, color: tuple[int, ...], off: int = 40) -> int:
    """How many pixels of a picture (0 to 1) have a color (0 to 255), more or less."""
    distance = np.abs(255 * picture[..., :3] - np.array(color)).max(axis=-1)
    return int(np.count_nonzero(distance < off))


def kept_by(drawn: list[Any], save: Callable[..., None]) -> Callable[..., None]:
    """Saves a figure, and keeps it too."""

    def keep(figure: Any, *arguments: Any, **options: Any) -> None:
        drawn.append(figure)
        save(figure, *arguments, **options)

    return keep


def test_the_picture_draws_each_kind_in_its_color_and_names_it(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure
    from matplotlib.image import imread

    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", kept_by(drawn, Figure.savefig))
    scan = write_scan(tmp_path, SHAPES)
    counts = []
    for name, shapes in (("all", SHAPES), ("one", {Kind.INTRAPARENCHYMAL: HALVES[Kind.INTRAPARENCHYMAL]})):
        see(monkeypatch, shapes)
        predict(scan, tmp_path / name, "--segmenter", package)
        picture = imread(tmp_path / name / "overlay.png")
        counts.append({kind: pixels_near(picture, _RGB[kind]) for kind in Kind})
        named = {LOOKS[kind].title.lower(): LOOKS[kind].color for kind in shapes if kind != Kind.INTRAPARENCHYMAL}
        named |= {"hematoma now": LOOKS[Kind.INTRAPARENCHYMAL].color, "if it expands": FOLLOWUP_COLOR}
        for figure in drawn[-2:]:  # picture and report
            lines = [line for legend in figure.legends for line in legend.get_lines()]
            assert {str(line.get_label()): line.get_color() for line in lines} == named
        assert (tmp_path / name / "report.pdf").read_bytes().count(b"/Count 1 ") == 1
    every, one = counts
    assert min(every.values()) > 200
    for kind in (Kind.INTRAVENTRICULAR, Kind.EXTRAAXIAL):  # the map has some such pixels too
        assert one[kind] < every[kind] / 2, kind


# Severe color-vision deficiencies in linear RGB: Machado, Oliveira and Fernandes 2009, Table 1.
VISION = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def lab(color: str, vision: np.ndarray) -> np.ndarray:
    """A color (#rrggbb) as such eyes see it, in CIELAB under D65."""
    rgb = np.array([int(color[first : first + 2], 16) for first in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(vision @ linear, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ seen / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("eyes", VISION)
def test_the_colors_stay_apart_for_color_blind_readers(eyes: str) -> None:
    colors = {**{kind.name: LOOKS[kind].color for kind in Kind}, "if it expands": FOLLOWUP_COLOR}
    seen = {name: lab(color, VISION[eyes]) for name, color in colors.items()}
    for one, other in combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 30, (one, other)
    for name, color in seen.items():
        assert color[0] > 45, f"{name} is bright enough over a scan"


def test_every_kind_has_a_code_of_its_own() -> None:
    codes = {(look.concept.value, look.region.value) for look in LOOKS.values()}
    assert len(codes) == len(Kind)
    assert {kind for kind in Kind if LOOKS[kind].concept.meaning == "Hemorrhage"} == set(BLOOD)


# --- how sure ------------------------------------------------------------------------------------------

COEFFICIENTS = {"constant": 0.0, "volume": 0.5, "peak": 0.5}


def ball_of(probability: float, radius_mm: float = 12.0) -> tuple[sitk.Image, Mask]:
    """The probability of a hematoma on the model grid, and the mask where it is more likely than not."""
    scan, model = head_grid((1.0, 1.0, 5.0)), head_grid((1.5, 1.5, 2.5))
    inside = [np.linalg.norm(positions(grid) - (10.0, 0.0, 8.0), axis=-1) < radius_mm for grid in (scan, model)]
    image = image_on(model, (probability * inside[1]).astype(np.float32))
    return image, Mask.on(scan, inside[0] & (probability > 0.5))


def test_the_evidence_for_a_hematoma_is_what_can_be_expected_of_it() -> None:
    volume, peak = evidence_of(*ball_of(0.9))
    assert np.exp(volume) == pytest.approx(0.9 * 4 / 3 * np.pi * 1.2**3, rel=0.1)  # slices of 5 mm cut it
    assert peak == pytest.approx(np.log(0.9 / 0.1), abs=0.01)


def test_a_hematoma_is_the_surer_the_larger_and_the_more_likely_it_is() -> None:
    told = [presence_of(*ball_of(*drawn), COEFFICIENTS) for drawn in ((0.99, 14.0), (0.9, 14.0), (0.9, 7.0))]
    assert told[0].probability > told[1].probability > told[2].probability
    faint = presence_of(*ball_of(0.3), COEFFICIENTS)
    nothing = presence_of(*ball_of(0.0), COEFFICIENTS)
    assert told[2].probability > faint.probability > nothing.probability
    assert faint.slice_number is None


def test_the_slice_to_look_at_shows_most_of_it() -> None:
    image, mask = ball_of(0.9)
    number = presence_of(image, mask, COEFFICIENTS).slice_number
    assert number is not None
    height = positions(mask.grid)[number - 1, 0, 0, 2]
    assert height == pytest.approx(8.0, abs=2.6)
