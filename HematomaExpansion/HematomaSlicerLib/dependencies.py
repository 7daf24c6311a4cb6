"""Finds the Python packages that the engine needs beyond Slicer's own, and installs them if the user agrees.

Nothing is installed at start-up or at import, only before a computation. What Slicer has stays at its version,
since Slicer and other extensions rely on it; PyTorch comes through its own extension alone.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

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
_CONFLICT = (
    "Nothing was installed or changed: the Python packages that the prediction needs ask for {packages}. Slicer "
    "or another extension relies on what is there. Update Slicer and its extensions, restart Slicer, and try "
    "again."
)


class DependencyError(Exception):
    """A package is missing and was not installed; the text tells the user what to do."""


def cannot_be_installed() -> str:
    """A sentence naming what this module cannot install by itself; empty if there is nothing."""
    return "" if _is_torch_installed() or _is_pytorch_extension_installed() else _INSTALL_PYTORCH


def ensure_installed(requirements: Path, requester: str) -> None:
    """Install what is missing, after asking. No package that is there is replaced.

    Raises:
        DependencyError: the user declined, the PyTorch extension is missing, pip failed, or what is missing needs
            another version of a package that is there.
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
        _ask(missing, requester)
        _install(missing)
        importlib.invalidate_caches()
    if _missing(requirements):
        raise DependencyError(_DECLINED)


def _ask(requirements: list[str], requester: str) -> None:
    names = ", ".join(requirements)
    question = (
        f"{requester} needs these Python packages:\n\n{names}\n\nInstall them in Slicer? The packages that Slicer "
        "has stay as they are."
    )
    if not slicer.util.confirmOkCancelDisplay(question, requester):
        raise DependencyError(_DECLINED)


def _install(requirements: list[str]) -> None:
    alone = [line for line in requirements if _name(line) in _ALONE]
    others = [line for line in requirements if line not in alone]
    present = _present()
    with TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(_constraints(present)), encoding="utf-8")
        # A package without a wheel would run code of its own only to say what it needs.
        limits = ["--only-binary", ":all:", "--constraint", str(constraints)]
        steps = [[*limits, *others]] if others else []
        steps += [[*limits, "--no-deps", *alone]] if alone else []
        try:
            for step in steps:
                _rehearse(step)
        except subprocess.CalledProcessError as error:
            wishes = _wishes(others, present, Path(folder) / "report.json") if others else []
            if not wishes:
                raise
            raise DependencyError(_CONFLICT.format(packages=", and ".join(wishes))) from error
        for step in steps:
            slicer.util.pip_install(step)


def _present() -> dict[str, str]:
    """The version of each package that Slicer's Python finds."""
    from packaging.utils import canonicalize_name

    names = {_name_of(package) for package in importlib.metadata.distributions()}
    # Of two copies, Python takes the first; what pip could not remove is listed too, but not found by its name.
    found = [name for name in names if name and _is_installed(name)]
    return {canonicalize_name(name): importlib.metadata.version(name) for name in found}


def _name_of(package: importlib.metadata.Distribution) -> str | None:
    try:
        return package.metadata["Name"]
    except FileNotFoundError:  # a folder without metadata, found through the package importlib_metadata
        return None


def _constraints(present: dict[str, str]) -> list[str]:
    """Lines for pip's constraints file: of what is there, no other version; of PyTorch, never one from pip."""
    from packaging.version import InvalidVersion, Version

    lines = []
    for name, version in {"torch": "", **present}.items():
        try:
            lines.append(f"{name}=={Version(version)}")
        except InvalidVersion:  # pip would refuse the whole file
            lines.append(f"{name}<0")
    return lines


def _rehearse(arguments: list[str]) -> None:
    """Let pip try without changing anything.

    Raises:
        CalledProcessError: pip would fail.
    """
    # Slicer 5.12 and newer would tell of a failure in a window of its own.
    options = {"show_progress": False} if importlib.util.find_spec("slicer.packaging") is not None else {}
    slicer.util.pip_install(["--dry-run", *arguments], **options)


def _wishes(requirements: list[str], present: dict[str, str], report: Path) -> list[str]:
    """What pip would put in the place of packages that are there, if it were free to."""
    from packaging.utils import canonicalize_name

    _rehearse(["--only-binary", ":all:", "--report", str(report), *requirements])
    planned = [item["metadata"] for item in json.loads(report.read_text(encoding="utf-8"))["install"]]
    names = {canonicalize_name(item["name"]): item["version"] for item in planned}
    kept = {"torch": "the one that is there", **present}
    return [f"{name} {names[name]} in place of {kept[name]}" for name in sorted(names.keys() & kept.keys())]


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
