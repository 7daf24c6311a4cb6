"""The project's own Python environment for the demo and the tests, made on first use.

Needs nothing but Python 3.11 or newer and a network package index.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import venv
from pathlib import Path

TESTING = Path(__file__).resolve().parent
REPOSITORY = TESTING.parent
_ENVIRONMENT = TESTING / ".environment"
_SOURCES = ("HematomaExpansion", "HematomaSynthesis")


def python_with(*requirements: str) -> Path:
    """The environment's Python, after installing what these files in ``Testing`` pin, if missing."""
    if sys.version_info < (3, 11):
        sys.exit(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}.")
    python = _ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    for name in requirements:
        file, stamp = TESTING / name, _ENVIRONMENT / f"installed-{name}"
        wanted = hashlib.sha256(file.read_bytes() + sys.version.encode()).hexdigest()
        if stamp.is_file() and stamp.read_text() == wanted and python.exists():
            continue
        print(
            f"Installing the libraries pinned in {name} into {_ENVIRONMENT.name} (once, some minutes) …",
            flush=True,
        )
        if name == requirements[0]:
            venv.create(_ENVIRONMENT, clear=True, with_pip=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(file)]
        if subprocess.run([str(python), *install], check=False).returncode != 0:
            sys.exit("The libraries could not be installed: see pip's message above.")
        stamp.write_text(wanted)
    return python


def variables() -> dict[str, str]:
    """Environment variables that make the project's packages importable without installing them."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(REPOSITORY / source) for source in _SOURCES),
        "PYTHONUTF8": "1",
    }


def run(python: Path, *arguments: str) -> int:
    """Run the environment's Python in the repository; returns the exit status."""
    command = [str(python), *arguments]
    return subprocess.run(command, cwd=REPOSITORY, env=variables(), check=False).returncode


def continue_in_environment(script: str, *requirements: str) -> None:
    """Continue here if this Python has the libraries, otherwise in the environment, which is made first."""
    if importlib.util.find_spec("torch") and importlib.util.find_spec("SimpleITK"):
        sys.path[:0] = [str(REPOSITORY / source) for source in _SOURCES]
        return
    command = [str(python_with(*requirements)), script, *sys.argv[1:]]
    sys.exit(subprocess.run(command, env=variables(), check=False).returncode)
