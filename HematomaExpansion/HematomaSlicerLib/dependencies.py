"""Finds the Python packages that the engine needs beyond Slicer's own, and installs them if the user agrees.

Nothing is installed at start-up or at import, only before a computation.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
from pathlib import Path

import slicer

TORCH_REQUIREMENT = ">=2.8"
_INSTALL_PYTORCH = (
    "PyTorch is missing. Install the PyTorch extension with the Extensions Manager (View menu), restart Slicer, "
    "and try again."
)
# They require SimpleITK, and pip would replace Slicer's own build with another.
_ALONE = frozenset({"picsl_greedy"})
_DECLINED = "Nothing was computed: the Python packages that the prediction needs were not installed."
_FAILED = (
    "Nothing was computed: the Python packages that the prediction needs could not be installed. Check "
    "the network connection and free disk space. The application log has details."
)


class DependencyError(Exception):
    """A package is missing and was not installed; the text tells the user what to do."""


def cannot_be_installed() -> str:
    """A sentence naming what this module cannot install by itself; empty if there is nothing."""
    return "" if _is_torch_installed() or _is_pytorch_extension_installed() else _INSTALL_PYTORCH


def ensure_installed(requirements: Path, requester: str) -> None:
    """Install what is missing, after asking.

    Raises:
        DependencyError: the user declined, the PyTorch extension is missing, or pip failed.
    """
    try:
        _ensure_installed(requirements, requester)
    except subprocess.CalledProcessError as error:  # from pip, whichever part of Slicer started it
        raise DependencyError(_FAILED) from error


def _ensure_installed(requirements: Path, requester: str) -> None:
    if not _is_torch_installed():
        if not _is_pytorch_extension_installed():
            raise DependencyError(_INSTALL_PYTORCH)
        from PyTorchUtils import PyTorchUtilsLogic

        PyTorchUtilsLogic().installTorch(askConfirmation=True, torchVersionRequirement=TORCH_REQUIREMENT)
        if not _is_torch_installed():
            raise DependencyError(_DECLINED)
    missing = _missing(requirements)
    if missing:
        _install(missing, requester)
        importlib.invalidate_caches()
    if _missing(requirements):
        raise DependencyError(_DECLINED)


def _install(requirements: list[str], requester: str) -> None:
    alone = [line for line in requirements if _name(line) in _ALONE]
    others = [line for line in requirements if line not in alone]
    if others and importlib.util.find_spec("slicer.packaging") is not None:  # Slicer 5.12 and newer
        from slicer.packaging import pip_ensure

        try:
            pip_ensure(others, requester=requester)  # this asks the user itself
        except RuntimeError as error:
            raise DependencyError(_DECLINED) from error
    else:
        names = ", ".join(requirements)
        question = f"{requester} needs these Python packages:\n\n{names}\n\nInstall them in Slicer?"
        if not slicer.util.confirmOkCancelDisplay(question, requester):
            raise DependencyError(_DECLINED)
        if others:
            slicer.util.pip_install(others)
    if alone:
        slicer.util.pip_install(["--no-deps", *alone])


def _is_torch_installed() -> bool:
    return importlib.util.find_spec("torch") is not None


def _is_pytorch_extension_installed() -> bool:
    return importlib.util.find_spec("PyTorchUtils") is not None


def _missing(requirements: Path) -> list[str]:
    """The lines of the file whose package is not installed at all. A package in another version stays as it is,
    since other extensions may need it."""
    lines = [line.strip() for line in requirements.read_text(encoding="utf-8").splitlines()]
    wanted = [line for line in lines if line and not line.startswith("#")]
    return [line for line in wanted if not _is_installed(_name(line))]


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _name(requirement: str) -> str:
    from packaging.requirements import Requirement  # comes with pip in every Slicer

    return Requirement(requirement).name
