"""A picture that cannot be drawn costs a warning, never the numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from HematomaExpansionLib.anatomy.registration import Registration
from HematomaExpansionLib.cli import evaluate as commands
from HematomaExpansionLib.cli.evaluate import Evaluated
from HematomaExpansionLib.cli.main import main
from HematomaExpansionLib.comparison import Comparison
from HematomaExpansionLib.output import comparison_folder
from HematomaExpansionLib.output.drawing import draw_each
from HematomaExpansionLib.scan.mask import Mask


def half_drawn(*arguments: object) -> None:
    assert isinstance(arguments[-1], Path)
    arguments[-1].write_bytes(b"half")
    raise ValueError("the library stumbles")


def test_what_can_be_drawn_is_drawn_and_the_rest_told(tmp_path: Path) -> None:
    pictures = {"a.png": half_drawn, "b.png": lambda path: path.write_bytes(b"whole")}
    told = draw_each(pictures, tmp_path)
    assert told == ["a.png could not be made; the numbers are not affected."]
    assert [path.name for path in tmp_path.iterdir()] == ["b.png"]


def test_a_comparison_is_written_without_its_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ct = sitk.GetImageFromArray(np.zeros((9, 10, 11), np.float32))
    mask = Mask(sitk.Cast(ct, sitk.sitkUInt8))
    registration = Registration(sitk.TranslationTransform(3), 1.0, 1.0)
    monkeypatch.setattr(comparison_folder, "draw_comparison", half_drawn)
    comparison = Comparison(ct, mask, ct, mask, None, registration, {"baseline": {"volume_ml": 3.0}})
    told = comparison_folder.write_comparison(comparison, tmp_path / "result")
    assert told == ["comparison.png could not be made; the numbers are not affected."]
    assert json.loads((tmp_path / "result" / "comparison.json").read_text())["baseline"] == {"volume_ml": 3.0}
    assert not (tmp_path / "result" / "comparison.png").exists()


def test_an_evaluation_is_written_without_its_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluated = Evaluated(
        {"model": {"dice": 0.9}},
        lambda folder: (folder / "markers.csv").write_text("case\n") and None,
        pictures={"markers.png": half_drawn},
    )
    monkeypatch.setattr(commands, "_evaluate_markers", lambda arguments: evaluated)
    output = tmp_path / "out"
    assert main(["evaluate", "markers", "--cohort", str(tmp_path), "-o", str(output)]) == 0
    told = "markers.png could not be made; the numbers are not affected."
    assert json.loads((output / "markers.json").read_text()) == {"model": {"dice": 0.9}, "notes": [told]}
    assert f"Note: {told}" in capsys.readouterr().err
    assert {path.name for path in output.iterdir()} == {"markers.csv", "markers.json", "provenance.json"}
