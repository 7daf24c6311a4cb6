"""Which options a command takes for which task, in one table: what does not apply is refused, not ignored.

Parsers leave options that were not given at None, so that what was given can be told from what is the default.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError


@dataclass(frozen=True)
class When:
    """A condition on what was given, and how a sentence names it: an option "applies only ``text``"."""

    text: str
    holds: Callable[[argparse.Namespace], bool]


@dataclass(frozen=True)
class Takes:
    """A line of a table: ``command``, with its task if it has any, takes ``options`` where all of ``when`` holds.

    Options are named as by ``argparse``, without dashes in front, and with spaces between them.
    """

    command: str
    options: str
    when: tuple[When, ...] = ()

    @property
    def names(self) -> list[str]:
        """The options, one by one."""
        return self.options.split()


def check_options(
    table: Sequence[Takes], command: str, arguments: argparse.Namespace, defaults: Mapping[str, Any]
) -> None:
    """Refuse options that were given and do not apply; those that were not given get their ``defaults``.

    Raises:
        InputError: an option of the table was given that ``command`` does not take, or not with the others given.
    """
    known = dict.fromkeys(name for line in table for name in line.names)
    given = [name for name in known if getattr(arguments, name, None) is not None]
    for name, value in defaults.items():
        if getattr(arguments, name, None) is None:
            setattr(arguments, name, value)
    for name in given:
        lines = [line for line in table if line.command == command and name in line.names]
        if any(all(condition.holds(arguments) for condition in line.when) for line in lines):
            continue
        option = f"--{name.replace('_', '-')}"
        if not lines:
            raise InputError(f"`hematoma {command}` does not take {option}: leave out {option}.")
        where = ", or ".join(" and ".join(condition.text for condition in line.when) for line in lines)
        raise InputError(f"In `hematoma {command}`, {option} applies only {where}: leave out {option}.")


def tasks_taking(table: Sequence[Takes], command: str, option: str) -> list[str]:
    """The tasks for which ``command`` takes ``option``, in the order of the table."""
    lines = [line.command.partition(" ") for line in table if option in line.names]
    return list(dict.fromkeys(task for name, _, task in lines if name == command))
