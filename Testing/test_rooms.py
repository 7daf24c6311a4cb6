"""The rooms of the engine: which of its packages may import which, and what each says of itself."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomllib
from environment import variables

REPOSITORY = Path(__file__).resolve().parent.parent
ENGINE = REPOSITORY / "HematomaExpansion" / "HematomaExpansionLib"
PROJECT = ("HematomaExpansionLib", "HematomaSlicerLib", "HematomaSynthesisLib", "HematomaSynthesisSlicerLib")

STEPS = {"anatomy", "markers", "growth", "forecast"}
GROUND = {"files", "scan", "measures", "models"}
PIPELINES = {"prediction", "comparison"}
COHORTS = GROUND | STEPS | PIPELINES | {"output", "batch", "training/data"}

MAY_IMPORT: dict[str, set[str]] = {
    "files": set(),
    "models": {"files"},
    "scan": {"files"},
    "measures": {"scan"},
    "anatomy": {"scan", "models"},
    "markers": {"scan"},
    "growth": {"scan", "models"},
    "forecast": {"files", "scan", "markers", "models", "measures"},
    "prediction": GROUND | STEPS,
    "comparison": GROUND | STEPS,
    "output": GROUND | STEPS | PIPELINES,
    "batch": GROUND | STEPS | PIPELINES | {"output"},
    "training/data": COHORTS - {"training/data"},
    "training": COHORTS,
    "training/growth": COHORTS | {"training"},
    "training/segmentation": COHORTS | {"training"},
    "training/risk": COHORTS | {"training", "training/segmentation"},
    "training/forecast": COHORTS | {"training"},
    "cli": COHORTS
    | {"training", "training/growth", "training/segmentation", "training/risk", "training/forecast"},
    "__main__": {"cli"},
}
"""From the ground up. Modules beside the rooms serve all of them."""

LIBRARIES = {
    "HematomaExpansionLib": set(),
    "HematomaSlicerLib": {"HematomaExpansionLib"},
    "HematomaSynthesisLib": {"HematomaExpansionLib"},
    "HematomaSynthesisSlicerLib": {"HematomaExpansionLib", "HematomaSlicerLib", "HematomaSynthesisLib"},
}


def room_of(module: tuple[str, ...]) -> str:
    """The room in which a module of the engine lies, given the parts of its name below the engine's."""
    within_training = module[0] == "training" and len(module) > 1 and (ENGINE / "training" / module[1]).is_dir()
    return "/".join(module[: 2 if within_training else 1])


def imported_modules(file: Path) -> Iterator[tuple[str, ...]]:
    """Parts of the full names of the project's own modules that a file imports, at any depth of its code."""
    library = next(parent for parent in file.parents if parent.name in PROJECT)
    package = (library.name, *file.relative_to(library).parent.parts)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            parts = (*base, *(node.module.split(".") if node.module else ()))
            yield from ((*parts, alias.name) for alias in node.names)


def rooms() -> dict[str, list[Path]]:
    """The files of each room, and modules at the top that are rooms of their own."""
    found: dict[str, list[Path]] = {}
    for file in sorted(ENGINE.rglob("*.py")):
        found.setdefault(room_of(file.relative_to(ENGINE).with_suffix("").parts), []).append(file)
    return found


SERVE_ALL = {"__init__", "errors", "progress", "device", "stopping", "RESEARCH_USE", "__version__"}


def test_every_room_has_its_place() -> None:
    assert set(rooms()) - SERVE_ALL == set(MAY_IMPORT)


@pytest.mark.parametrize("room", [*MAY_IMPORT, *sorted(SERVE_ALL - {"RESEARCH_USE", "__version__"})])
def test_arrows_between_rooms_point_one_way(room: str) -> None:
    allowed = SERVE_ALL if room in SERVE_ALL else MAY_IMPORT[room] | SERVE_ALL | {room}
    wrong = {
        f"{file.relative_to(ENGINE)} imports {'.'.join(module[1:])}"
        for file in rooms()[room]
        for module in imported_modules(file)
        if module[0] == "HematomaExpansionLib" and len(module) > 1 and room_of(module[1:]) not in allowed
    }
    assert not wrong


def test_no_two_rooms_may_import_each_other() -> None:
    seen: set[str] = set()
    for room, allowed in MAY_IMPORT.items():
        assert allowed <= seen, f"{room} may import what lies above it"
        seen.add(room)


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
    assert not {module[0] for module in imported_modules(file)} & forbidden


@pytest.mark.parametrize("library", PROJECT)
def test_the_libraries_import_only_those_below_them(library: str) -> None:
    files = list(REPOSITORY.glob(f"*/{library}/**/*.py"))
    assert files
    names = {module[0] for file in files for module in imported_modules(file)}
    assert names & set(PROJECT) - {library} <= LIBRARIES[library]


@pytest.mark.parametrize("folder", sorted({file.parent for file in ENGINE.rglob("*.py")}), ids=lambda f: f.name)
def test_every_room_says_what_lives_there_and_who_may_use_it(folder: Path) -> None:
    told = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
    assert told is not None
    if folder != ENGINE:
        assert len(told.splitlines()) >= 3
        assert "use" in told.lower()


def test_the_python_package_holds_every_room() -> None:
    packages = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    libraries = [folder for name in PROJECT for folder in REPOSITORY.glob(f"*/{name}") if "Slicer" not in name]
    folders = {
        ".".join(file.parent.relative_to(library.parent).parts)
        for library in libraries
        for file in library.rglob("*.py")
    }
    assert folders | {"HematomaExpansionLib.models.shipped"} == set(packages)


def test_the_pipeline_starts_without_torch() -> None:
    """It takes seconds to import; where it is missing, a sentence says so when it is needed."""
    code = "import sys, HematomaExpansionLib.prediction; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=variables(), check=False).returncode == 0
