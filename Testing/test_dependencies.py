"""What the Slicer modules install, that they ask first, and that what Slicer has stays as it is."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.metadata
import os
import subprocess
import sys
import sysconfig
import time
import types
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

slicer = pytest.importorskip("slicer")

from HematomaSlicerLib import dependencies  # noqa: E402

LIMITS = ["--only-binary", ":all:", "--constraint"]


class Slicer:
    """Remembers what was asked and installed; ``agrees`` is the user's answer."""

    def __init__(self, agrees: bool) -> None:
        self.agrees = agrees
        self.asked: list[str] = []
        self.installed: list[str] = []
        self.rehearsed: list[list[str]] = []
        self.options: list[dict[str, Any]] = []

    def ask(self, text: str, title: str) -> bool:
        self.asked.append(text)
        return self.agrees

    def install(self, arguments: list[str], **options: Any) -> None:
        rehearsal = arguments[0] == "--dry-run"
        limits, packages = arguments[rehearsal : rehearsal + 3], arguments[rehearsal + 4 :]
        assert limits == LIMITS
        if rehearsal:
            self.rehearsed.append(packages)
            self.options.append(options)
        else:
            assert not options
            self.installed += packages

    def has(self, name: str) -> bool:
        return any(line.startswith(f"{name}==") for line in self.installed)


def put_in_place(monkeypatch: pytest.MonkeyPatch, agrees: bool, packaging: bool) -> Slicer:
    user = Slicer(agrees)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", user.ask, raising=False)
    monkeypatch.setattr(slicer.util, "pip_install", user.install, raising=False)
    monkeypatch.setattr(dependencies, "_is_installed", user.has)
    if packaging:
        module: Any = types.ModuleType("slicer.packaging")
        module.__spec__ = importlib.machinery.ModuleSpec("slicer.packaging", None)
        monkeypatch.setitem(sys.modules, "slicer.packaging", module)
    return user


@pytest.fixture
def requirements(tmp_path: Path) -> Path:
    path = tmp_path / "requirements.txt"
    path.write_text("# a comment\nmonai==1.0\n\npicsl_greedy==2.0\n")
    return path


@pytest.mark.parametrize("packaging", [False, True], ids=["5.10", "5.12"])
def test_missing_packages_are_installed_after_asking(
    requirements: Path, monkeypatch: pytest.MonkeyPatch, packaging: bool
) -> None:
    user = put_in_place(monkeypatch, agrees=True, packaging=packaging)
    dependencies.ensure_installed(requirements, "Tests")
    assert len(user.asked) == 1
    assert "monai==1.0" in user.asked[0]
    # Greedy requires SimpleITK: its dependencies are not installed, or they would replace Slicer's own build.
    assert user.installed == ["monai==1.0", "--no-deps", "picsl_greedy==2.0"]
    assert user.rehearsed == [["monai==1.0"], ["--no-deps", "picsl_greedy==2.0"]]
    # Slicer 5.12 would show a failure in a window of its own.
    assert user.options == 2 * [{"show_progress": False} if packaging else {}]
    dependencies.ensure_installed(requirements, "Tests")
    assert len(user.asked) == 1, "asked again though nothing is missing"


@pytest.mark.parametrize("packaging", [False, True], ids=["5.10", "5.12"])
def test_nothing_is_installed_for_a_user_who_declines(
    requirements: Path, monkeypatch: pytest.MonkeyPatch, packaging: bool
) -> None:
    user = put_in_place(monkeypatch, agrees=False, packaging=packaging)
    with pytest.raises(dependencies.DependencyError, match="not installed"):
        dependencies.ensure_installed(requirements, "Tests")
    assert user.installed == user.rehearsed == []


@pytest.mark.parametrize("packaging", [False, True], ids=["5.10", "5.12"])
def test_a_failure_of_pip_gets_a_sentence(
    requirements: Path, monkeypatch: pytest.MonkeyPatch, packaging: bool
) -> None:
    put_in_place(monkeypatch, agrees=True, packaging=packaging)

    def fail(*_arguments: Any, **_options: Any) -> None:
        raise subprocess.CalledProcessError(1, "pip install")

    monkeypatch.setattr(slicer.util, "pip_install", fail)
    with pytest.raises(dependencies.DependencyError, match="could not be installed"):
        dependencies.ensure_installed(requirements, "Tests")


def test_greedy_alone_is_asked_for_too(requirements: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = put_in_place(monkeypatch, agrees=True, packaging=True)
    user.installed.append("monai==0.9")
    dependencies.ensure_installed(requirements, "Tests")
    assert len(user.asked) == 1
    assert user.installed == ["monai==0.9", "--no-deps", "picsl_greedy==2.0"]


def test_without_pytorch_the_user_is_sent_to_its_extension(
    requirements: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = put_in_place(monkeypatch, agrees=True, packaging=False)
    monkeypatch.setattr(dependencies, "_is_torch_installed", lambda: False)
    assert "Extensions Manager" in dependencies.cannot_be_installed()
    with pytest.raises(dependencies.DependencyError, match="PyTorch extension"):
        dependencies.ensure_installed(requirements, "Tests")
    assert user.asked == user.installed == []


class Environment:
    """A Python with packages, and wheels from which pip may install more: all made here, without a network."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder / "python", symlinks=os.name != "nt")
        places = sysconfig.get_paths(
            "venv", vars=dict.fromkeys(("base", "platbase", "installed_base"), str(folder / "python"))
        )
        self._python = Path(places["scripts"]) / ("python.exe" if os.name == "nt" else "python")
        self.packages = Path(places["purelib"])
        self._wheels = folder / "wheels"
        self._wheels.mkdir()
        self.says = ""

    def offer(self, name: str, version: str, *needs: str) -> Path:
        """A wheel with one module and the packages that it needs."""
        wheel, about = self._wheels / f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        files = {
            f"{name}.py": "",
            f"{about}/METADATA": "\n".join([*lines, *(f"Requires-Dist: {need}" for need in needs), ""]),
            f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = "".join(f"{file},,\n" for file in [*files, f"{about}/RECORD"])
        with zipfile.ZipFile(wheel, "w") as archive:
            for file, text in {**files, f"{about}/RECORD": record}.items():
                archive.writestr(file, text)
        return wheel

    def has(self, name: str, version: str, *needs: str) -> None:
        """Put a package where Slicer has its own."""
        wheel = self.offer(name, version, *needs)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(self.packages)
        wheel.unlink()

    def versions(self) -> dict[str, str]:
        found = importlib.metadata.distributions(path=[str(self.packages)])
        return {package.metadata["Name"]: package.version for package in found}

    def files(self) -> dict[Path, bytes]:
        return {file: file.read_bytes() for file in self.packages.rglob("*") if file.is_file()}

    def pip_install(self, arguments: list[str]) -> None:
        command = [sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check"]
        command += ["--python", str(self._python), "install", "--no-index", "--find-links", str(self._wheels)]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        self.says += done.stdout + done.stderr
        done.check_returncode()


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """What Slicer 5.10 has, and what the synthesis module asks for."""
    made = Environment(tmp_path)
    for name, version in {"numpy": "2.0.2", "packaging": "25.0", "requests": "2.32.3"}.items():
        made.has(name, version)
    for name, version in {"numpy": "2.4.6", "packaging": "26.4", "requests": "2.34.2", "torch": "2.13.0"}.items():
        made.offer(name, version)
    made.offer("joblib", "1.6.0")
    made.offer("monai", "1.6.1", "torch>=2.8.0", "numpy>=1.24")
    made.offer("nilearn", "0.13.1", "joblib", "packaging", "requests>=2.30")
    made.offer("nilearn", "0.14.1", "joblib", "packaging>=26.0.0", "requests>=2.33.0")
    made.offer("picsl_greedy", "1.4.0.3", "SimpleITK")
    made.offer("SimpleITK", "2.5.7")
    monkeypatch.setattr(slicer.util, "pip_install", made.pip_install, raising=False)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *_texts: True, raising=False)
    for used in ("requirements", "utils", "version"):  # imported before Python's path ends at this environment
        importlib.import_module(f"packaging.{used}")
    own = [folder for folder in sys.path if "-packages" not in folder]
    monkeypatch.setattr(sys, "path", [*own, str(made.packages)])
    return made


def ensure(folder: Path, *lines: str) -> None:
    path = folder / "wanted.txt"
    path.write_text("\n".join(lines))
    dependencies.ensure_installed(path, "Tests")


def test_a_package_that_would_replace_one_of_slicer_is_refused_by_name(
    environment: Environment, tmp_path: Path
) -> None:
    environment.has("torch", "2.8.0+cu128")
    before = environment.files()
    with pytest.raises(dependencies.DependencyError) as refused:
        ensure(tmp_path, "monai==1.6.1", "nilearn==0.14.1")
    sentence = str(refused.value)
    assert sentence.startswith("Nothing was installed or changed:")
    assert "packaging 26.4 in place of 25.0, and requests 2.34.2 in place of 2.32.3." in sentence
    assert "Update Slicer and its extensions" in sentence
    assert environment.files() == before


def test_what_fits_is_installed_and_leaves_the_rest_as_it_is(environment: Environment, tmp_path: Path) -> None:
    environment.has("torch", "2.8.0+cu128")
    before = environment.files()
    ensure(tmp_path, "monai==1.6.1", "nilearn>=0.13,<=0.14.1", "picsl_greedy==1.4.0.3")
    assert environment.versions() == {
        "numpy": "2.0.2",
        "packaging": "25.0",
        "requests": "2.32.3",
        "torch": "2.8.0+cu128",
        "joblib": "1.6.0",
        "monai": "1.6.1",
        "nilearn": "0.13.1",
        "picsl_greedy": "1.4.0.3",
    }
    assert before.items() <= environment.files().items()


@pytest.mark.parametrize(("version", "named"), [("2.7.1", "2.7.1"), (None, "the one that is there")])
def test_torch_is_never_installed_by_pip(
    environment: Environment, tmp_path: Path, version: str | None, named: str
) -> None:
    """MONAI asks for it; what is there is too old, or was put there without saying its version."""
    if version is None:
        (environment.packages / "torch.py").touch()
    else:
        environment.has("torch", version)
    before = environment.files()
    with pytest.raises(dependencies.DependencyError, match=f"ask for torch 2.13.0 in place of {named}"):
        ensure(tmp_path, "monai==1.6.1", "picsl_greedy==1.4.0.3")
    assert environment.files() == before


def test_what_pip_left_behind_and_second_copies_do_not_count(environment: Environment, tmp_path: Path) -> None:
    environment.has("torch", "2.8.0+cu128")
    about = environment.packages / "numpy-2.0.2.dist-info"
    for copy in (environment.packages / "~umpy-1.0.dist-info", tmp_path / "later" / "numpy-1.0.dist-info"):
        copy.mkdir(parents=True)
        (copy / "METADATA").write_text((about / "METADATA").read_text().replace("2.0.2", "1.0"))
    (environment.packages / "empty-1.0.dist-info").mkdir()
    sys.path.append(str(tmp_path / "later"))
    present = dependencies._present()
    assert present == {
        "numpy": "2.0.2",
        "packaging": "25.0",
        "requests": "2.32.3",
        "torch": "2.8.0+cu128",
    }
    assert sorted(dependencies._constraints(present)) == [f"{name}=={present[name]}" for name in sorted(present)]


def test_a_package_without_metadata_does_not_count_whoever_finds_it(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Emptied:
        """As the package importlib_metadata, once anything has imported it, finds an empty folder."""

        @property
        def metadata(self) -> None:
            raise FileNotFoundError("No package metadata was found.")

    found = list(importlib.metadata.distributions())
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: [Emptied(), *found])
    assert set(dependencies._present()) == {"numpy", "packaging", "requests"}


def test_a_version_that_pip_cannot_read_stays_too(environment: Environment, tmp_path: Path) -> None:
    environment.has("torch", "2.8.0+cu128")
    environment.has("odd", "built.by.hand")
    environment.offer("odd", "1.0")
    environment.offer("nibabel", "5.4.2", "odd")
    before = environment.files()
    ensure(tmp_path, "monai==1.6.1")
    assert environment.versions()["monai"] == "1.6.1"
    with pytest.raises(dependencies.DependencyError):
        ensure(tmp_path, "nibabel==5.4.2")
    assert before.items() <= environment.files().items()
    assert "nibabel" not in environment.versions()


def test_what_cannot_be_had_changes_nothing(environment: Environment, tmp_path: Path) -> None:
    environment.has("torch", "2.8.0+cu128")
    before = environment.files()
    with pytest.raises(dependencies.DependencyError, match="Check the network connection"):
        ensure(tmp_path, "monai==1.6.1", "nibabel==5.4.2")
    assert "nibabel" in environment.says
    assert environment.files() == before


def test_the_check_before_a_run_is_quick(environment: Environment, tmp_path: Path) -> None:
    """In a Slicer with many extensions and packages, the first time."""
    for number in range(300):
        environment.has(f"package{number}", "1.0", *(f"package{other}" for other in range(20)))
    environment.has("torch", "2.8.0+cu128")
    folders = [tmp_path / f"extension{number}" for number in range(60)]
    for folder in folders:
        folder.mkdir()
        (folder / "Module.py").touch()
    sys.path[:0] = map(str, folders)
    importlib.invalidate_caches()
    begun = time.process_time()  # other work on the machine does not count
    assert not dependencies.cannot_be_installed()
    ensure(tmp_path, *(f"package{number}==2.0" for number in range(10)))
    assert time.process_time() - begun < 1
    assert not environment.says, "pip was called"
