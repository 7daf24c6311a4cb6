"""Options of the command line: what does not apply is refused and not ignored, and numbers are numbers."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
from HematomaExpansionLib.cli import main as commands
from HematomaExpansionLib.cli.main import main
from HematomaExpansionLib.cli.train_options import PRESETS, TABLE

ALWAYS = {"help", "task", "source", "cohort", "output"}
COMMANDS = {
    "train": (*PRESETS, "forecast"),
    "evaluate": ("segmentation", "growth", "markers", "risk", "forecast"),
    "adapt": ("",),
}


def parsers(parser: argparse.ArgumentParser | None = None) -> dict[str, argparse.ArgumentParser]:
    """Each command's parser, by name."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in (parser or commands._parser())._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, own in action.choices.items():
                found |= {name: own} | {f"{name} {inner}": it for inner, it in parsers(own).items()}
    return found


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_option_stands_in_the_table_with_the_tasks_that_its_help_names(command: str) -> None:
    actions = {action.dest: action for action in parsers()[command]._actions}
    lines = [line for line in TABLE if line.command.split()[0] == command]
    assert set(actions) - ALWAYS == {name for line in lines for name in line.names}
    assert {line.command for line in lines} == {f"{command} {task}".strip() for task in COMMANDS[command]}
    for name in set(actions) - ALWAYS:
        assert actions[name].default is None, f"whether --{name} was given could not be told"
        taking = {line.command.partition(" ")[2] for line in lines if name in line.names}
        text = actions[name].help or ""
        named = (
            {task for task in COMMANDS[command] if re.search(rf"\b{task}\b[^;]*:", text)}
            if taking != {""}
            else {""}
        )
        assert named == taking or (not named and taking == set(COMMANDS[command])), f"--{name}: {text}"
    for others in set(actions["task"].choices or ()) if "task" in actions else ():
        assert others in COMMANDS[command]


def test_help_names_no_option_that_the_command_lacks() -> None:
    for name, parser in parsers().items():
        own = {option for action in parser._actions for option in action.option_strings}
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", parser.format_help()))
        assert named <= own, name


COHORT = ["--cohort", "cohort", "-o", "out"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("evaluate segmentation --folds 3", "`hematoma evaluate segmentation` does not take --folds"),
        ("evaluate segmentation --masks automatic", "does not take --masks"),
        ("evaluate segmentation --rival growth-compact", "does not take --rival"),
        ("evaluate segmentation --epochs 3", "does not take --epochs"),
        ("evaluate segmentation --segmenter threshold", "does not take --segmenter"),
        (
            "evaluate risk --folds 3 --model risk-compact",
            "In `hematoma evaluate risk`, --model applies only without",
        ),
        ("evaluate risk --rival risk-compact", "does not take --rival"),
        ("evaluate risk --segmenter threshold", "only with --masks automatic"),
        ("evaluate risk --preset slices", "only with --folds"),
        ("evaluate risk --folds 3 --network vgg16", "only with --folds and with --preset slices"),
        ("evaluate risk --folds 3 --epochs 2", "only with --folds and with --preset two-output or slices"),
        ("evaluate risk --folds 3 --preset two-output --network vgg16", "with --preset slices: leave out"),
        ("evaluate growth --folds 3 --rival growth-compact", "only without --folds"),
        ("evaluate growth --channels 2,4", "only with --folds"),
        ("evaluate growth --segmenter threshold", "only with --masks automatic"),
        ("evaluate markers --folds 3", "does not take --folds"),
        ("evaluate markers --model growth-compact", "does not take --model"),
        ("train segmentation --masks both", "does not take --masks"),
        ("train segmentation --segmenter threshold", "does not take --segmenter"),
        ("train segmentation --size 64,64", "only with --preset slices"),
        ("train risk --epochs 3", "only with --preset two-output or slices"),
        ("train risk --channels 2,4", "only with --preset two-output or slices"),
        ("train risk --segmenter threshold", "only with --masks automatic"),
        ("train growth --segmenter segmentation-compact", "only with --masks both"),
        ("adapt segmentation-compact --statistics-only --epochs 3", "only without --statistics-only"),
        ("adapt segmentation-compact --statistics-only --rank 3", "only without --statistics-only"),
    ],
)
def test_options_that_do_not_apply_are_refused_before_anything_is_read(
    arguments: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments.split(), *COHORT]) == 2
    message = capsys.readouterr().err
    assert sentence in message
    assert "leave out --" in message


@pytest.mark.parametrize("folds", ["0", "1", "-2", "two", "2.5", ""])
def test_a_number_of_folds_that_divides_nothing_is_refused(
    folds: str, case_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for task in ("growth", "risk"):
        given = ["--cohort", str(case_folder.parent), "-o", str(tmp_path / "out"), f"--folds={folds}"]
        assert main(["evaluate", task, *given]) == 2
        assert "--folds takes a whole number of 2 or more" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        "train growth --device 2",
        "train growth --risk evidence",
        "train growth --calibration other",
        "evaluate growth --risk evidence",
        "evaluate segmentation --mask true",
        "adapt segmentation-compact --stat",
    ],
)
def test_an_option_that_a_command_lacks_is_not_taken_for_another(
    arguments: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*arguments.split(), *COHORT])
    assert f"unrecognized arguments: {arguments.split()[2]}" in capsys.readouterr().err


FLOATS = [
    ("predict -i scan -o out", ["--onset-hours", "--gcs"]),
    ("forecast", ["--volume", "--onset-hours", "--gcs"]),
    ("synthesize -i scan -o out", ["--onset-hours"]),
    ("train growth --cohort cohort -o out", ["--learning-rate", "--max-minutes"]),
    ("evaluate growth --cohort cohort -o out", ["--learning-rate", "--max-minutes"]),
    ("adapt segmentation-compact --cohort cohort -o out", ["--learning-rate", "--max-minutes"]),
    ("simulate -o out -n 1 --seed 1", ["--slice-thickness", "--noise", "--volume", "--growth", "--irregularity"]),
]


def test_what_is_not_finite_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    for command, options in FLOATS:
        for option in options:
            for value in ("nan", "inf", "-inf", "1e999", "three"):
                with pytest.raises(SystemExit) as ended:
                    main([*command.split(), f"{option}={value}"])
                assert ended.value.code == 2
                assert f"{option}: '{value}' is not a finite number" in capsys.readouterr().err


def test_every_number_of_the_command_line_is_checked_so() -> None:
    asked = {(command.split()[0], option) for command, options in FLOATS for option in options}
    for name, parser in parsers().items():
        for action in parser._actions:
            assert action.type is not float, f"{name} takes nan for {action.option_strings}"
            if getattr(action.type, "__name__", "") == "finite":
                assert (name, action.option_strings[0]) in asked
