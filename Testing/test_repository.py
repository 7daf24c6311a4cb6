"""The repository itself: what the extension installs, and where links lead."""

import argparse
import re
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
import tomllib
from HematomaExpansionLib.cli.main import _parser

REPOSITORY = Path(__file__).resolve().parent.parent
MODULES = ("HematomaExpansion", "HematomaSynthesis")
ENGINE = REPOSITORY / "HematomaExpansion" / "HematomaExpansionLib"


def test_the_engine_runs_without_slicer_ever_being_imported() -> None:
    code = (
        "import sys, HematomaExpansionLib.cli.main, HematomaExpansionLib.prediction;"
        "import HematomaExpansionLib.models.networks.build;"
        "print(sorted({'slicer', 'qt', 'ctk', 'vtk'} & set(sys.modules)))"
    )
    environment = {"PYTHONPATH": str(ENGINE.parent)}
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert printed.stdout.strip() == "[]"


@pytest.mark.parametrize("module", MODULES)
def test_cmake_lists_every_file_that_is_to_be_installed(module: str) -> None:
    folder = REPOSITORY / module
    listed = set(re.findall(r"^\s+(\S+\.\w+)$", (folder / "CMakeLists.txt").read_text(), re.MULTILINE))
    files = [*folder.glob("*.py"), *folder.glob("*Lib/**/*.py"), *folder.glob("Scripts/*.py")]
    files += [
        file
        for file in folder.glob("Resources/**/*")
        if file.is_file() and "training" not in file.relative_to(folder).parts
    ]
    assert listed == {file.relative_to(folder).as_posix() for file in files}


@pytest.mark.parametrize("file", sorted(REPOSITORY.glob("*/Resources/*-requirements.txt")), ids=lambda f: f.stem)
def test_slicer_installs_the_versions_that_are_tested(file: Path) -> None:
    pinned = (REPOSITORY / "Testing" / "requirements.txt").read_text().splitlines()
    wanted = file.read_text().splitlines()
    lines = [line for line in wanted if line and not line.startswith("#")]
    assert lines
    # Where the version that is tested does not fit what Slicer has, pip takes an older one.
    newest = {re.sub(r">=[\d.]+,<=", "==", line) for line in lines}
    assert newest <= set(pinned)


def test_the_requirements_pin_every_library_of_the_project() -> None:
    pinned = (REPOSITORY / "Testing" / "requirements.txt").read_text().lower()
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    libraries = {re.match(r"[\w-]+", text)[0].lower() for text in wanted} - {project["name"]}  # type: ignore[index]
    assert len(libraries) >= 16
    libraries -= {"nnunetv2"}  # asks for another torch than the tests'; its tests run where it is installed
    for library in sorted(libraries):
        assert re.search(rf"^{library}==\d", pinned, re.MULTILINE), library


def test_cmake_keeps_to_policies_under_which_slicer_finds_its_python() -> None:
    text = (REPOSITORY / "CMakeLists.txt").read_text()
    newest = re.search(r"cmake_minimum_required\(VERSION [\d.]+?\.\.\.(\d+)\.(\d+)", text)
    assert newest is not None
    assert (int(newest[1]), int(newest[2])) < (3, 27), "CMP0148 removes FindPythonInterp"


PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    *(page.relative_to(REPOSITORY).as_posix() for page in sorted(REPOSITORY.glob("docs/*.md"))),
    "HematomaExpansion/Resources/Models/README.md",
    "Testing/benchmarks/RESULTS.md",
)


def code_of(text: str) -> list[str]:
    """Pieces of code on a page: the lines of its blocks, with continued lines joined, and inline code."""
    blocks = re.findall(r"^```.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return lines + re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def anchors_of(page: Path) -> set[str]:
    """What a link may name after #, as GitHub derives it from the headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_lead_somewhere(page: str) -> None:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (REPOSITORY / page).parent / path if path else REPOSITORY / page
        assert file.exists(), target
        assert not anchor or anchor in anchors_of(file), target


def _options_of(parser: argparse.ArgumentParser) -> set[str]:
    """The options of a command, and of its own commands."""
    options = {name for action in parser._actions for name in action.option_strings}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            options |= set().union(*map(_options_of, action.choices.values()))
    return options


@pytest.mark.parametrize("page", PAGES)
def test_pages_name_commands_and_options_that_exist(page: str) -> None:
    (commands,) = (action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    for code in code_of((REPOSITORY / page).read_text(encoding="utf-8")):
        words = re.fullmatch(r"hematoma ([a-z][\w-]*)(.*)", code)
        if words is None:
            continue
        assert words[1] in commands.choices, code
        options = _options_of(commands.choices[words[1]])
        assert set(re.findall(r"(?<!\S)--?[a-z][\w-]*", words[2])) <= options, code


def test_the_pages_name_every_command() -> None:
    (commands,) = (action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    named = {
        page: (REPOSITORY / page).read_text(encoding="utf-8") for page in ("README.md", "docs/command-line.md")
    }
    for command in commands.choices:
        assert re.search(rf"`hematoma {command}\b", named["docs/command-line.md"]), command
        for_slicer = command in {"export", "export-pairs"}
        assert for_slicer or re.search(rf"`hematoma {command}\b", named["README.md"]), command


@pytest.mark.parametrize("page", PAGES)
def test_pages_name_source_files_that_exist(page: str) -> None:
    homes = (REPOSITORY, ENGINE, *(REPOSITORY / module for module in MODULES))
    for code in code_of((REPOSITORY / page).read_text(encoding="utf-8")):
        for name in re.findall(r"(?<!\S)(?:[\w.-]+/)+[\w.-]+\.(?:py|toml|ui)\b", code):
            assert "NAME" in name or any((home / name).is_file() for home in homes), name
