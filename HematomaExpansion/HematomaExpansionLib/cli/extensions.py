"""What other packages add to the command line: groups of commands, and a painter of simulated bleeds."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from ..errors import MissingLibraryError

ENTRY_POINTS = "hematoma.commands"
"""A package that is installed names a module with a function ``add_commands`` in this group of entry points."""

# Slicer's modules and a checkout lie on Python's path and have no metadata: there the name of the library counts.
_LIBRARY = re.compile(r"Hematoma\w+Lib")
_MODULE = "commands"


def command_groups() -> list[ModuleType]:
    """The modules whose ``add_commands`` is to be called, each once."""
    names = [point.module for point in entry_points(group=ENTRY_POINTS)]
    names += [
        f"{library}.{_MODULE}" for library in _libraries() if importlib.util.find_spec(f"{library}.{_MODULE}")
    ]
    return [importlib.import_module(name) for name in dict.fromkeys(names)]


def paint_heads(heads: Path, output: Path, per_head: int, seed: int) -> list[Path]:
    """Cases, below ``output``, of the real head CTs without blood in ``heads``: each as it is, and ``per_head``
    times with simulated bleeds painted into it. A package that can do so has a function ``paint_heads`` beside its
    commands.

    Raises:
        InputError: the folder holds no heads.
        MissingLibraryError: no package can paint.
    """
    for group in command_groups():
        if (paint := getattr(group, "paint_heads", None)) is not None:
            return list(paint(heads, output, per_head, seed))
    raise MissingLibraryError("Painting bleeds into heads needs the module HematomaSynthesis: install it too.")


def _libraries() -> list[str]:
    found = {module.name for module in pkgutil.iter_modules() if module.ispkg and _LIBRARY.fullmatch(module.name)}
    return sorted(found - {__name__.partition(".")[0]})
