"""What the review of Slicer's Extensions Index asks for, and what CMake packs."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
MODULES = ("HematomaExpansion", "HematomaSynthesis")
ENTRY = REPOSITORY / "HematomaExpansion.json"

# What Schemas/slicer-extension-catalog-entry-schema-v1.0.2.json in Slicer's repository says of an entry.
SCHEMA = "https://raw.githubusercontent.com/Slicer/Slicer/main/Schemas/slicer-extension-catalog-entry-schema-v1.0.2.json#"
KINDS = {
    "$schema": str,
    "category": str,
    "scm_url": str,
    "scm_revision": str,
    "scm_type": str,
    "build_dependencies": list,
    "dicom_support_rule": str,
    "build_subdirectory": str,
    "enabled": bool,
    "tier": int,
}
NEEDED = {"$schema", "category", "scm_url"}


def faults(entry: dict[str, Any]) -> set[str]:
    """The keys of a catalog entry that are missing, unknown or have a value that the schema does not allow."""
    wrong = {key for key, value in entry.items() if type(value) is not KINDS.get(key)}
    if any(not isinstance(name, str) for name in entry.get("build_dependencies", [])):
        wrong.add("build_dependencies")
    if entry.get("scm_type", "git") not in {"git", "local"}:
        wrong.add("scm_type")
    if not 1 <= entry.get("tier", 1) <= 5:
        wrong.add("tier")
    return wrong | (NEEDED - entry.keys())


def test_the_catalog_entry_follows_slicers_schema() -> None:
    text = ENTRY.read_bytes()
    assert b"\r" not in text
    entry = json.loads(text)
    assert entry["$schema"] == SCHEMA
    assert faults(entry) == set()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"category": None}, "category"),
        ({"homepage": "https://slicer.org"}, "homepage"),
        ({"tier": 6}, "tier"),
        ({"tier": True}, "tier"),
        ({"scm_type": "svn"}, "scm_type"),
        ({"build_dependencies": "PyTorch"}, "build_dependencies"),
        ({"build_dependencies": [1]}, "build_dependencies"),
    ],
)
def test_an_entry_against_the_schema_is_noticed(change: dict[str, Any], fault: str) -> None:
    entry = {key: value for key, value in {**json.loads(ENTRY.read_text()), **change}.items() if value is not None}
    assert faults(entry) == {fault}


def metadata() -> dict[str, str]:
    """The extension's metadata as the review reads them: plain strings, no variables."""
    text = (REPOSITORY / "CMakeLists.txt").read_text(encoding="utf-8")
    return dict(re.findall(r'^set\(EXTENSION_(\w+) "([^"]+)"\)$', text, re.MULTILINE))


def test_cmake_and_the_catalog_entry_say_the_same() -> None:
    entry, about = json.loads(ENTRY.read_text()), metadata()
    project = re.search(r"^project\((\w+)\)$", (REPOSITORY / "CMakeLists.txt").read_text(), re.MULTILINE)
    assert project is not None
    assert project[1] == ENTRY.stem
    assert re.fullmatch(rf"https://github\.com/[\w-]+/Slicer{ENTRY.stem}", entry["scm_url"])
    assert about["HOMEPAGE"] == entry["scm_url"]
    assert about["CATEGORY"] == entry["category"]
    assert about["DEPENDS"].split() == entry["build_dependencies"] == ["PyTorch"]
    assert about["DESCRIPTION"].endswith("Research use only.")
    assert about["CONTRIBUTORS"]


def size_of(picture: Path) -> tuple[int, int]:
    """Width and height of a PNG, which stand at the beginning of the file."""
    start = picture.read_bytes()[:24]
    assert start.startswith(b"\x89PNG\r\n\x1a\n"), picture.name
    width, height = struct.unpack(">II", start[16:])
    return width, height


def test_icon_and_screenshots_are_pictures_of_this_repository() -> None:
    about, entry = metadata(), json.loads(ENTRY.read_text())
    raw = entry["scm_url"].replace("github.com", "raw.githubusercontent.com") + f"/{entry['scm_revision']}/"
    icon, *screenshots = [about["ICONURL"], *about["SCREENSHOTURLS"].split()]
    assert screenshots
    assert all(url.startswith(raw) for url in (icon, *screenshots))
    assert size_of(REPOSITORY / icon.removeprefix(raw)) == (128, 128)
    for screenshot in screenshots:
        assert min(size_of(REPOSITORY / screenshot.removeprefix(raw))) > 128, screenshot


def test_the_readme_has_what_a_reviewer_looks_for() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert text.startswith(f"# {ENTRY.stem}\n")
    assert re.search(r"^!\[.+\]\(Resources/Screenshots/", text, re.MULTILINE)
    for module in ("**Hematoma Expansion**", "**Hematoma Synthesis**"):
        assert module in sections["Modules"]
    assert "Research use only" in text
    assert "docs/tutorial.md" in sections["Use in Slicer"]
    assert "sends nothing" in sections["Privacy"]
    assert re.search(r"\d{4};\d+", sections["Publications"])
    assert "Apache-2.0" in sections["License"]
    assert "Apache License" in (REPOSITORY / "LICENSE").read_text()
    assert "https://discourse.slicer.org" in sections["Contact"]


def test_pip_is_never_asked_for_torch() -> None:
    files = sorted(REPOSITORY.glob("*/Resources/*-requirements.txt"))
    assert len(files) == len(MODULES)
    for file in files:
        assert not re.search(r"^(torch|monai\[)", file.read_text(), re.MULTILINE), file.name


# Stands in for Slicer's build system: where that compiles and packs a module's files, this only installs them.
SLICER_CONFIG = """
foreach(part USE_FILE EXTENSION_GENERATE_CONFIG EXTENSION_CPACK)
  set(Slicer_${part} ${CMAKE_CURRENT_LIST_DIR}/${part}.cmake)
endforeach()
"""
USE_FILE = """
macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MODULE "WITH_GENERIC_TESTS" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MODULE_UNPARSED_ARGUMENTS OR NOT MODULE_WITH_GENERIC_TESTS)
    message(FATAL_ERROR "arguments of ${MODULE_NAME}")
  endif()
  foreach(file ${MODULE_SCRIPTS} ${MODULE_RESOURCES})
    get_filename_component(folder ${file} DIRECTORY)
    install(FILES ${file} DESTINATION ./${folder})
  endforeach()
endmacro()
macro(slicer_add_python_unittest)
  cmake_parse_arguments(TEST "" "SCRIPT" "" ${ARGN})
  file(APPEND ${CMAKE_BINARY_DIR}/self-tests.txt "${TEST_SCRIPT}\\n")
endmacro()
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which CMake packs both modules; beside it the build."""
    if not (shutil.which("cmake") and shutil.which("cc")):
        pytest.skip("CMake and a compiler are not installed")
    folder = tmp_path_factory.mktemp("package")
    slicer = folder / "slicer"
    slicer.mkdir()
    (slicer / "SlicerConfig.cmake").write_text(SLICER_CONFIG)
    (slicer / "USE_FILE.cmake").write_text(USE_FILE)
    for part in ("EXTENSION_GENERATE_CONFIG", "EXTENSION_CPACK"):
        (slicer / f"{part}.cmake").touch()
    options = [f"-DSlicer_DIR={slicer}", "-DBUILD_TESTING=ON", f"-DCMAKE_INSTALL_PREFIX={folder / 'installed'}"]
    for command in (["-S", str(REPOSITORY), "-B", str(folder / "build"), *options], ["--install", "build"]):
        done = subprocess.run(["cmake", *command], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return folder / "installed"


def test_cmake_packs_both_modules_with_their_self_tests(package: Path) -> None:
    packed = {file.relative_to(package).as_posix() for file in package.rglob("*") if file.is_file()}
    listed = [
        line.strip()
        for module in MODULES
        for line in (REPOSITORY / module / "CMakeLists.txt").read_text().splitlines()
        if re.fullmatch(r"\s+\S+\.\w+", line)
    ]
    assert sorted(packed) == sorted(listed), "a file of one module lies where one of the other does"
    self_tests = (package.parent / "build" / "self-tests.txt").read_text().split()
    assert self_tests == [f"{module}.py" for module in MODULES]


def own_imports(file: Path, root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Where the extension's own modules would lie that a file imports, and which names it takes from each."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found = [(root, alias.name, []) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = file.parents[node.level - 1] if node.level else root
            found = [(base, node.module or "", [alias.name for alias in node.names])]
        else:
            continue
        for base, module, names in found:
            if base != root or module.startswith("Hematoma"):
                yield base.joinpath(*module.split(".")), names


def is_packed(place: Path, names: list[str]) -> bool:
    """Whether a module is there, or a folder of modules that has the names, as modules or of its own."""
    if not place.is_dir():
        return place.with_suffix(".py").is_file()
    own = (place / "__init__.py").read_text(encoding="utf-8")
    return all((place / f"{name}.py").is_file() or re.search(rf"\b{name}\b", own) for name in names)


def test_a_package_holds_every_module_that_it_imports(package: Path) -> None:
    imports = [found for file in package.rglob("*.py") for found in own_imports(file, package)]
    assert len(imports) > 800
    assert not [place for place, names in imports if not is_packed(place, names)]


@pytest.mark.parametrize("module", MODULES)
def test_a_package_holds_what_a_module_shows(package: Path, module: str) -> None:
    code = (package / f"{module}.py").read_text(encoding="utf-8")
    resources = re.findall(r'"((?:SampleData/[\w.-]+|[\w-]+-requirements\.txt))"', code)
    resources += [f"Icons/{picture}" for picture in re.findall(r'"(\w+\.png)"', code)]
    assert f"{module}-requirements.txt" in resources
    for resource in (f"UI/{module}.ui", f"Icons/{module}.png", *resources):
        assert (package / "Resources" / resource).is_file(), resource


def test_a_package_computes_with_its_own_models(package: Path, tmp_path: Path) -> None:
    paths = {"PYTHONPATH": str(package), "PYTHONUTF8": "1", "HEMATOMA_MODELS": str(tmp_path / "none")}
    shown = {}
    for command in ("models verify", "forecast --volume 20 --onset-hours 2", "simulate --help"):
        shown[command] = subprocess.run(
            [sys.executable, "-m", "HematomaExpansionLib", *command.split()],
            env={**os.environ, **paths},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=True,
        ).stdout
    models = [file.parent.name for file in (package / "Resources" / "Models").glob("*/model.json")]
    assert len(models) == 5
    assert all(re.search(rf"^{model} \d+: intact", shown["models verify"], re.MULTILINE) for model in models)
    assert "20 mL now" in shown["forecast --volume 20 --onset-hours 2"]
    assert "--anatomy" in shown["simulate --help"], "the second module's library is not found"
