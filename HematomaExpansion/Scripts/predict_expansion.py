"""The command line in Slicer's batch mode, and the same without Slicer:

Slicer --no-main-window --python-script predict_expansion.py -- -i CT -o DIR [options of `hematoma predict`]
python predict_expansion.py -i CT -o DIR [options of `hematoma predict`]

Another command's name may come first: batch, compare, synthesize or simulate.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

_MODULE = Path(__file__).resolve().parent.parent
_COMMANDS = ("predict", "batch", "compare", "synthesize", "simulate")
_MISSING = (
    "hematoma: The Python package {name} is missing. In Slicer, open the module Hematoma Expansion once and click "
    "Predict expansion, which installs what is needed; elsewhere, install the project with pip."
)


def run(arguments: list[str]) -> int:
    """Run the command and return its exit status; without a command name it is `predict`."""
    for folder in (_MODULE, _MODULE.parent / "HematomaSynthesis"):
        if folder.is_dir() and str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    if not arguments or arguments[0] not in _COMMANDS:
        arguments = ["predict", *arguments]
    try:
        from HematomaExpansionLib.cli.main import main

        return main(arguments)
    except SystemExit as stop:  # argparse: --help or invalid arguments
        return stop.code if isinstance(stop.code, int) else 2
    except ModuleNotFoundError as error:
        print(_MISSING.format(name=error.name), file=sys.stderr)
        return 2
    except Exception:
        traceback.print_exc()
        return 1


def end(status: int) -> None:
    """Exit with that status; this also closes Slicer, which would otherwise stay open."""
    try:
        import slicer
    except ImportError:
        sys.exit(status)
    if hasattr(slicer, "app"):
        slicer.util.exit(status)
    else:  # Slicer's libraries without the application
        sys.exit(status)


if __name__ == "__main__":
    end(run([argument for argument in sys.argv[1:] if argument != "--"]))
