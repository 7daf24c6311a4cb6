"""The house itself: what the extension installs, what the engine may import, and which way arrows point."""

import ast
import re
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
import tomllib

REPOSITORY = Path(__file__).resolve().parent.parent
MODULES = ("HematomaExpansion", "HematomaSynthesis")
ENGINE = REPOSITORY / "HematomaExpansion" / "HematomaExpansionLib"


def imported_names(file: Path) -> set[str]:
    """Top-level names of everything a file imports, at whatever depth of it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("file", sorted(ENGINE.rglob("*.py")), ids=lambda file: file.name)
def test_the_engine_imports_nothing_of_slicer_and_no_pickle(file: Path) -> None:
    forbidden = {
        "slicer",
        "qt",
        "ctk",
        "vtk",
        "pickle",
        "HematomaSynthesisLib",
        "socket",
        "urllib",
        "requests",
    }
    assert not imported_names(file) & forbidden


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
    assert set(lines) <= set(pinned)


def test_the_requirements_pin_every_library_of_the_project() -> None:
    pinned = (REPOSITORY / "Testing" / "requirements.txt").read_text().lower()
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    libraries = {re.match(r"[\w-]+", text)[0].lower() for text in wanted} - {project["name"]}  # type: ignore[index]
    assert len(libraries) >= 16
    for library in sorted(libraries):
        assert re.search(rf"^{library}==\d", pinned, re.MULTILINE), library


def test_cmake_keeps_to_policies_under_which_slicer_finds_its_python() -> None:
    text = (REPOSITORY / "CMakeLists.txt").read_text()
    newest = re.search(r"cmake_minimum_required\(VERSION [\d.]+?\.\.\.(\d+)\.(\d+)", text)
    assert newest is not None
    assert (int(newest[1]), int(newest[2])) < (3, 27), "CMP0148 removes FindPythonInterp"
