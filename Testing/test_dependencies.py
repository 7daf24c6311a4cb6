"""What the Slicer modules install, and that they ask first."""

from __future__ import annotations

import importlib.machinery
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

slicer = pytest.importorskip("slicer")

from HematomaSlicerLib import dependencies  # noqa: E402


class Slicer:
    """Remembers what was asked and installed; ``agrees`` is the user's answer."""

    def __init__(self, agrees: bool) -> None:
        self.agrees = agrees
        self.asked: list[str] = []
        self.installed: list[str] = []

    def ask(self, text: str, title: str) -> bool:
        self.asked.append(text)
        return self.agrees

    def install(self, arguments: list[str]) -> None:
        self.installed += arguments

    def ensure(self, requirements: list[str], requester: str) -> None:
        """The function of Slicer 5.12, which asks the user itself."""
        self.ask(", ".join(requirements), requester)
        if not self.agrees:
            raise RuntimeError("declined")
        self.install(requirements)

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
        module.pip_ensure = user.ensure
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
    dependencies.ensure_installed(requirements, "Tests")
    assert len(user.asked) == 1, "asked again though nothing is missing"


@pytest.mark.parametrize("packaging", [False, True], ids=["5.10", "5.12"])
def test_nothing_is_installed_for_a_user_who_declines(
    requirements: Path, monkeypatch: pytest.MonkeyPatch, packaging: bool
) -> None:
    user = put_in_place(monkeypatch, agrees=False, packaging=packaging)
    with pytest.raises(dependencies.DependencyError, match="not installed"):
        dependencies.ensure_installed(requirements, "Tests")
    assert user.installed == []


@pytest.mark.parametrize("packaging", [False, True], ids=["5.10", "5.12"])
def test_a_failure_of_pip_gets_a_sentence(
    requirements: Path, monkeypatch: pytest.MonkeyPatch, packaging: bool
) -> None:
    user = put_in_place(monkeypatch, agrees=True, packaging=packaging)

    def fail(*_arguments: Any) -> None:
        raise subprocess.CalledProcessError(1, "pip install")

    monkeypatch.setattr(slicer.util, "pip_install", fail)
    monkeypatch.setattr(user, "install", fail)
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
