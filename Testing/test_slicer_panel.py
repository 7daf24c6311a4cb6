"""The panels as far as they can be judged without Slicer: files, names, texts."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import subprocess
import sys
import time
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from HematomaExpansionLib import RESEARCH_USE
from HematomaExpansionLib.forecast.evidence import steps_text
from HematomaExpansionLib.forecast.facts import Facts
from HematomaExpansionLib.forecast.forecast import Circumstances, ForecastModel, make_forecast
from HematomaExpansionLib.markers.scores import NO_CLINICAL_DATA, ClinicalData, overrule, scores_of
from HematomaExpansionLib.models.package import find_package
from HematomaSlicerLib.result_card import card, comparison_text, marker_rows, notice, scores_text, training_text

REPOSITORY = Path(__file__).resolve().parent.parent
MODULES = [path.stem for path in sorted(REPOSITORY.glob("Hematoma*/Resources/UI/*.ui"))]
# What Slicer's parameterNodeWrapper can bind to which widget (5.10).
BINDABLE = {
    "vtkMRMLScalarVolumeNode": {"qMRMLNodeComboBox"},
    "vtkMRMLTableNode": {"qMRMLNodeComboBox"},
    "vtkMRMLMarkupsROINode": {"qMRMLNodeComboBox"},
    "vtkMRMLSegmentationNode": {"qMRMLNodeComboBox"},
    "bool": {"QCheckBox"},
    "int": {"QSpinBox", "QSlider"},
    "float": {"QDoubleSpinBox", "ctkSliderWidget"},
    "str": {"QComboBox", "QLineEdit"},
    "Path": {"ctkDirectoryButton", "ctkPathLineEdit"},
}


# What the panels may set on Slicer's own widgets (5.10): a missing property is silently skipped.
PROPERTIES = {
    "qMRMLWidget": set[str](),
    "qMRMLNodeComboBox": {
        "nodeTypes",
        "showChildNodeTypes",
        "noneEnabled",
        "noneDisplay",
        "addEnabled",
        "removeEnabled",
        "renameEnabled",
    },
    "qMRMLSegmentSelectorWidget": {"noneEnabled"},
    "ctkCollapsibleButton": {"text", "collapsed"},
    "ctkDirectoryButton": set[str](),
    "ctkSliderWidget": {"decimals", "singleStep", "minimum", "maximum", "value", "suffix"},
}


def ui_file(module: str) -> Path:
    return REPOSITORY / module / "Resources" / "UI" / f"{module}.ui"


def source(module: str) -> str:
    return (REPOSITORY / module / f"{module}.py").read_text(encoding="utf-8")


def widgets(module: str) -> dict[str, tuple[str, dict[str, str]]]:
    pytest.importorskip("PySide6.QtUiTools", exc_type=ImportError)
    import slicer_panel

    return slicer_panel.widgets(ui_file(module))


def parameters(module: str) -> dict[str, str]:
    """Name -> type of the fields of the module's parameter node."""
    (node,) = (
        item
        for item in ast.parse(source(module)).body
        if isinstance(item, ast.ClassDef) and item.name == f"{module}ParameterNode"
    )
    fields = {}
    for item in node.body:
        if isinstance(item, ast.AnnAssign):
            text = ast.unparse(item.annotation)
            inner = re.match(r"Annotated\[(\w+)", text)
            fields[ast.unparse(item.target)] = inner.group(1) if inner else text.split(".")[-1]
    return fields


@pytest.mark.parametrize("module", MODULES)
def test_the_panel_loads_in_qt(module: str) -> None:
    pytest.importorskip("PySide6.QtUiTools", exc_type=ImportError)
    import slicer_panel

    slicer_panel.application()
    panel = slicer_panel.load_panel(ui_file(module))
    panel.resize(400, 900)
    assert panel.minimumSizeHint().width() <= 400
    assert panel.findChild(slicer_panel.Slider) is not None
    if "PANEL_PICTURES" in os.environ:
        panel.grab().save(str(Path(os.environ["PANEL_PICTURES"]) / f"{module}.png"))


@pytest.mark.parametrize("module", MODULES)
def test_the_panel_sets_only_what_its_widgets_have(module: str) -> None:
    found = widgets(module)
    import slicer_panel
    from PySide6 import QtWidgets

    slicer_panel.application()
    for name, (kind, properties) in found.items():
        of_qt = getattr(QtWidgets, "QWidget" if kind in PROPERTIES else kind)()
        others = set(properties) - PROPERTIES.get(kind, set()) - {"SlicerParameterName"}
        assert not [other for other in others if of_qt.metaObject().indexOfProperty(other) < 0], name


@pytest.mark.parametrize("module", MODULES)
def test_every_widget_that_the_code_uses_is_in_the_panel(module: str) -> None:
    shared = [
        REPOSITORY / "HematomaExpansion" / "HematomaSlicerLib" / name for name in ("panel.py", "panel_work.py")
    ]
    for file in (REPOSITORY / module / f"{module}.py", *shared):
        used = set(re.findall(r"\bself\._?ui\.(\w+)", file.read_text(encoding="utf-8")))
        assert used
        assert used <= set(widgets(module))


@pytest.mark.parametrize("module", MODULES)
def test_every_bound_parameter_exists_and_can_be_bound(module: str) -> None:
    fields = parameters(module)
    bound = {
        properties["SlicerParameterName"]: kind
        for kind, properties in widgets(module).values()
        if "SlicerParameterName" in properties
    }
    assert bound
    for name, kind in bound.items():
        assert kind in BINDABLE[fields[name]], name


@pytest.mark.parametrize("module", MODULES)
def test_every_selector_of_nodes_hears_of_the_scene(module: str) -> None:
    text = ui_file(module).read_text(encoding="utf-8")
    selectors = {name for name, (kind, _) in widgets(module).items() if kind.startswith("qMRML")} - {module}
    heard = re.findall(r"<receiver>(\w+)</receiver>\s*<slot>setMRMLScene\(vtkMRMLScene\*\)</slot>", text)
    assert set(heard) == selectors


def imported_at_start(text: str) -> set[str]:
    """What a file imports as soon as it is imported itself; relative imports count as "."."""
    at_start = [node for node in ast.parse(text).body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in at_start if isinstance(node, ast.Import) for alias in node.names}
    return names | {
        node.module if node.level == 0 else "." for node in at_start if isinstance(node, ast.ImportFrom)
    }


@pytest.mark.parametrize("module", MODULES)
def test_the_module_imports_nothing_heavy_when_slicer_starts(module: str) -> None:
    names = imported_at_start(source(module))
    shared = {name for name in names if name.startswith("HematomaSlicerLib.")}
    assert shared, "of what both panels share"
    for name in shared:
        file = REPOSITORY / "HematomaExpansion" / f"{name.replace('.', '/')}.py"
        names |= imported_at_start(file.read_text(encoding="utf-8"))
    of_slicer = {"qt", "slicer", "vtk", "ctk"}
    assert {name.split(".")[0] for name in names - shared} <= of_slicer | set(sys.stdlib_module_names)
    assert "from __future__ import annotations" not in source(module), "the parameter node needs real types"


EARLIER_RESULT = {
    "input": {"warnings": ["The scan's grid was tilted by 18.5 degrees."]},
    "baseline": {"volume_ml": 18.24, "abc2_ml": 17.0},
    "followup": {"volume_ml": 31.04, "volume_ml_low": 27.2, "volume_ml_high": 36.4, "abc2_ml": 29.0},
    "growth": {
        "absolute_ml": 12.8,
        "relative": 0.7018,
        "expansion": True,
        "definition": "growth > 6 mL or > 33 % of baseline",
        "detectable": True,
    },
    "risk": {"probability": 0.2, "model": {"name": "risk-compact", "trained_on": None}},
    "models": {
        "segmentation": {"name": "threshold", "trained_on": None},
        "growth": {"name": "growth-<b>", "trained_on": "384 simulated patients"},
    },
}
"""As a scene saved before there was one forecast holds it."""


def result_of(**told: Any) -> dict[str, Any]:
    """A result with the forecast by the shipped package for 18.24 mL and what else is told."""
    facts = Facts(18.24, **{"irregular": 1.0, "blend": 0.0, **told})
    forecast = make_forecast(ForecastModel.of(find_package(None, "forecast")), facts, Circumstances())
    grown = forecast.if_expands_ml
    growth = {"absolute_ml": grown - 18.24, "relative": grown / 18.24 - 1, "detectable": True}
    return {
        **EARLIER_RESULT,
        "forecast": forecast.described,
        "followup": {"volume_ml": grown, "abc2_ml": 29.0},
        "growth": growth,
        "risk": None,
    }


RESULT = result_of()


def plain(text: str) -> str:
    """What a user reads of rich text."""
    return unescape(re.sub(r"<[^>]*>", " ", text)).replace("\N{NO-BREAK SPACE}", " ")


def test_the_card_begins_with_the_headline_and_gives_its_reasons() -> None:
    forecast = RESULT["forecast"]
    text = plain(card(RESULT))
    assert text.strip().startswith(forecast["text"])
    assert steps_text(forecast["evidence"]) in text
    assert "→ irregular:" in text
    low, middle, high = (f"{forecast['volume_ml'][share]:.0f}" for share in ("10", "50", "90"))
    assert f"All outcomes {middle} mL ({low}–{high})" in text
    assert "Expansion means growth > 6 mL or > 33 % of baseline" in text
    assert "ABC/2 17.0 mL, if it expands 29.0 mL" in text
    assert "tilted by 18.5 degrees" in text
    assert "earlier version" not in text
    assert "outline" not in text


def test_the_cards_headline_is_broken_only_between_its_parts() -> None:
    first = re.sub(r"<[^>]*>", "", card(RESULT).partition("</p>")[0])
    assert [part.rstrip("\N{NO-BREAK SPACE}·") for part in first.split(" ")] == [
        part.replace(" ", "\N{NO-BREAK SPACE}") for part in RESULT["forecast"]["text"].split(" · ")
    ]


def test_the_card_says_where_the_outline_is_no_longer_that_of_the_forecast() -> None:
    drawn = {**RESULT["followup"], "volume_ml": RESULT["followup"]["volume_ml"] - 2.0}
    assert "red outline still has" in plain(card({**RESULT, "followup": drawn}))


def test_what_an_earlier_version_told_is_marked_as_such() -> None:
    text = plain(card(EARLIER_RESULT))
    assert "18.2 mL → 31.0 mL (27–36)" in text
    assert "by an earlier version" in text
    assert "Growth +12.8 mL (+70 %)" in text
    assert "Expansion: yes" in text
    assert "Expansion means growth > 6 mL or > 33 % of baseline" in text
    assert "Probability of expansion 20 %" in text
    assert "tilted by 18.5 degrees" in text


def test_the_card_invents_nothing_where_no_hematoma_was_found() -> None:
    result = json.loads(json.dumps(RESULT)) | {"growth": None, "followup": None}
    text = card(result)
    assert "No hematoma found" in text
    assert "mL" not in text


def test_research_use_and_training_data_are_always_in_view() -> None:
    assert notice(None) == RESEARCH_USE
    text = notice(EARLIER_RESULT)
    assert RESEARCH_USE in text
    assert "384 simulated patients" in text
    assert training_text(None) == ""
    assert "growth-<b>: 384 simulated patients" in training_text(EARLIER_RESULT), "plain text"
    models = {"growth": {"name": "own", "trained_on": "9 patients of <A>; began from others"}}
    text = notice(RESULT | {"models": models})
    assert text.endswith("<small>Growth trained on 9 patients of &lt;A&gt; …</small>")
    assert "began from others" in training_text(RESULT | {"models": models})


def test_the_markers_say_what_was_measured_and_a_reader_has_the_last_word() -> None:
    evidence = {"area_mm2": 40.4, "lowest_hu": 38.2, "enclosed_share": 0.756, "irregularities": 2.0}
    markers = {
        name: {"present": name == "black_hole", "evidence": evidence, "place_mm": None}
        for name in ("hypodensity", "swirl", "black_hole", "blend")
    }
    result = {
        "input": {"onset_hours": 1.0},
        "markers": markers,
        "scores": scores_of(markers, 1.0, 9.0, NO_CLINICAL_DATA),
    }
    row = marker_rows(result)[2]
    assert (row.title, row.present) == ("Black hole", True)
    assert row.reason == "area 40 mm², lowest 38 HU"
    assert row.measured == "area 40 mm², lowest 38 HU, enclosed 76 %, irregularities 2"
    assert scores_text(result) == "BAT score 4 of 5 (blend 0, hypodensity 2, time 2); high from 3"
    overruled = overrule(result, "black_hole", False)
    assert not any(row.present for row in marker_rows(overruled))
    assert scores_text(overruled) == "BAT score 2 of 5 (blend 0, hypodensity 0, time 2); high from 3"
    assert marker_rows(None) == marker_rows({"markers": None, "scores": None}) == []
    assert scores_text(None) == scores_text({"markers": None, "scores": None}) == ""


def test_a_sign_that_nobody_is_sure_of_says_so_until_a_reader_decides() -> None:
    evidence = {"irregularities": 2.0}
    markers = {
        name: {"present": probability >= 0.5, "probability": probability, "evidence": evidence}
        for name, probability in (("irregular", 0.63), ("black_hole", 0.31), ("blend", 0.9), ("swirl", 0.05))
    }
    rows = {row.name: row for row in marker_rows({"markers": markers})}
    assert [(row.title, row.unsure) for row in rows.values()] == [
        ("Irregular (63 % likely)", True),
        ("Black hole (31 % likely)", True),
        ("Blend", False),
        ("Swirl", False),
    ]
    assert rows["irregular"].present
    assert not rows["black_hole"].present
    markers["irregular"]["overruled"] = False
    (row, *_) = marker_rows({"markers": markers})
    assert (row.title, row.present, row.unsure) == ("Irregular", False, False)


def test_brain_score_is_shown_if_its_inputs_are_known() -> None:
    markers = {
        name: {"present": False, "evidence": {}} for name in ("hypodensity", "swirl", "black_hole", "blend")
    }
    known = ClinicalData(recurrent=False, warfarin=True, intraventricular=False)
    result = {"input": {"onset_hours": 2.0}, "markers": markers, "scores": scores_of(markers, 2.0, 12.0, known)}
    brain = "BRAIN score 15 of 24 (volume 5, recurrent 0, warfarin 6, intraventricular 0, time 4)"
    assert scores_text(result).splitlines()[1] == brain
    assert scores_text(overrule(result, "blend", True)).splitlines()[1] == brain
    assert "BRAIN" not in scores_text({"scores": scores_of(markers, None, 12.0, known)})


def test_the_comparison_says_what_was_true() -> None:
    comparison = {
        "followup": {"volume_ml": 29.0},
        "prediction": {
            "volume_ml": 31.0,
            "error_ml": 2.0,
            "growth_dice": None,
            "lesion_dice": 0.8,
            "lesion_dice_without_growth": 0.7,
        },
    }
    text = re.sub(r"<[^>]*>", "", comparison_text(comparison))
    assert "True follow-up 29.0 mL" in text
    assert "error +2.0 mL" in text
    assert "Nothing grew" in text


def test_the_comparison_says_that_the_truth_is_not_known() -> None:
    sentence = "No hematoma was found in the follow-up: the growth is not known."
    prediction = dict.fromkeys(("error_ml", "growth_dice", "lesion_dice", "lesion_dice_without_growth"))
    comparison = {
        "warnings": [sentence],
        "followup": {"volume_ml": None},
        "growth": None,
        "prediction": {"volume_ml": 31.0, **prediction},
    }
    text = re.sub(r"<[^>]*>", " ", comparison_text(comparison))
    assert "True follow-up  none found" in text
    assert sentence in text
    assert "Dice" not in text


HANGING = """#!{python}
import subprocess, sys
worker = '''
import json, os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(json.dumps(dict(process=os.getpid())), flush=True)
for tick in range(1200):
    print(json.dumps(dict(stage="tick", fraction=0.5)), flush=True)
    with open({ticks!r}, "a") as file:
        file.write(".")
    time.sleep(0.05)
'''
subprocess.Popen([sys.executable, "-c", worker]).wait()
"""
"""Stands in for Slicer's launcher, with a worker behind it that ends only when killed."""


OTHER_COMMANDS = """
import sys

def add_commands(commands):
    parser = commands.add_parser("greet")
    parser.add_argument("--json-progress", action="store_true")
    parser.set_defaults(run=lambda _: print("Good day", file=sys.stderr) or 0)
"""


def test_a_command_in_the_background_may_come_from_a_library_that_only_the_window_knows(
    qt_loop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from HematomaSlicerLib.background import BackgroundCommand
    from slicer_scene import wait_for

    library = tmp_path / "HematomaOtherLib"
    library.mkdir()
    (library / "__init__.py").touch()
    (library / "commands.py").write_text(OTHER_COMMANDS)
    monkeypatch.syspath_prepend(tmp_path)
    ended: list[Any] = []
    BackgroundCommand(["greet"], lambda *_: None, ended.append)
    wait_for(qt_loop, ended, 60)
    assert ended[0].finished, ended
    assert "Good day" in ended[0].log


@pytest.fixture
def hanging(qt_loop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes commands hang; gives the file that the worker appends to as long as it lives."""
    background = importlib.import_module("HematomaSlicerLib.background")  # again, with this test's Qt
    ticks, launcher = tmp_path / "ticks", tmp_path / "launcher"
    launcher.write_text(HANGING.format(python=sys.executable, ticks=str(ticks)))
    launcher.chmod(0o700)
    monkeypatch.setattr(background, "_python", lambda: str(launcher))
    monkeypatch.setattr(background, "PATIENCE_MS", 300)
    return ticks


def begun_command(qt_loop: Any, ended: list[Any]) -> Any:
    """A command that has begun; its outcome goes to the list."""
    from HematomaSlicerLib.background import BackgroundCommand
    from slicer_scene import wait_for

    begun: list[Any] = []
    command = BackgroundCommand(["predict"], lambda *stage: begun.append(stage), ended.append)
    wait_for(qt_loop, begun, 30)
    return command


def is_dead(ticks: Path) -> bool:
    before = ticks.stat().st_size
    time.sleep(0.4)
    return ticks.stat().st_size == before


def test_a_canceled_command_that_hangs_is_killed_behind_its_launcher(qt_loop: Any, hanging: Path) -> None:
    from slicer_scene import wait_for

    ended: list[Any] = []
    command = begun_command(qt_loop, ended)
    command.cancel()
    command.cancel()  # clicked twice
    wait_for(qt_loop, ended, 30)
    assert [outcome.canceled for outcome in ended] == [True]
    assert command.is_over
    assert is_dead(hanging)


def test_a_panel_that_goes_away_kills_a_command_that_hangs(qt_loop: Any, hanging: Path) -> None:
    ended: list[Any] = []
    command = begun_command(qt_loop, ended)
    command.cancel()
    command.wait(0.2)
    assert len(ended) == 1, "its files would stay"
    assert is_dead(hanging)


def test_the_panels_code_needs_nothing_that_slicer_does_not_bring() -> None:
    """Before anything is installed, the panels open and say what to do."""
    pytest.importorskip("slicer")
    packages = ("HematomaExpansion/HematomaSlicerLib", "HematomaSynthesis/HematomaSynthesisSlicerLib")
    files = [file for package in packages for file in sorted((REPOSITORY / package).glob("[a-z]*.py"))]
    names = [f"{file.parent.name}.{file.stem}" for file in files]
    assert len(names) > 15
    code = f"""
import importlib, sys, types
libraries = "torch monai scipy matplotlib safetensors nilearn lightning pydicom tqdm filelock nibabel"
for name in libraries.split():
    sys.modules[name] = None
sys.modules["qt"] = types.SimpleNamespace(QByteArray=None, QProcessEnvironment=None)
sys.modules["slicer.i18n"] = types.SimpleNamespace(tr=str)
sys.modules["slicer.ScriptedLoadableModule"] = types.SimpleNamespace(
    ScriptedLoadableModuleWidget=type("Widget", (), {{}}), ScriptedLoadableModuleTest=object
)
for name in {[*names, "HematomaExpansionLib.models.package"]}:
    importlib.import_module(name)
"""
    folders = os.pathsep.join(str((REPOSITORY / package).parent) for package in packages)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": folders},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
