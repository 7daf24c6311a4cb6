"""The command line: ``hematoma`` and ``python -m HematomaExpansionLib``.

Exit status 0: done; 2: something that the user can put right, said in one sentence on standard error;
143: told to end (SIGTERM); 1: anything else.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from .. import __version__
from ..errors import HematomaError, file_fault, is_file_fault
from ..stopping import STOPPED_STATUS, Stopped, clean_stop
from . import adapt, batch, compare, evaluate, forecast, models, predict, prepare, segment, train
from .extensions import command_groups

_GROUPS = (predict, batch, forecast, segment, compare, models, prepare, train, adapt, evaluate)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    try:
        with clean_stop():
            chosen = _parser().parse_args(arguments)
            run: Callable[[argparse.Namespace], int] = chosen.run
            return run(chosen)
    except HematomaError as error:
        print(f"hematoma: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if not is_file_fault(error):
            raise
        print(f"hematoma: {file_fault(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except Stopped as stopped:
        print(f"hematoma: Stopped on request, before the work was done. {stopped}".rstrip(), file=sys.stderr)
        return STOPPED_STATUS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hematoma",
        description="Predicts the expansion of an intracerebral hematoma from the first head CT. Research use "
        "only. Not for diagnosis or treatment.",
        epilog="`hematoma COMMAND --help` explains the options of a command.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in (*_GROUPS, *command_groups()):
        group.add_commands(commands)
    for command in commands.choices.values():
        command.allow_abbrev = False  # --device, which train lacks, would be taken for its --devices
    return parser
