"""Groups of commands that other packages add to the command line."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
from importlib.metadata import entry_points
from types import ModuleType

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


def _libraries() -> list[str]:
    found = {module.name for module in pkgutil.iter_modules() if module.ispkg and _LIBRARY.fullmatch(module.name)}
    return sorted(found - {__name__.partition(".")[0]})
