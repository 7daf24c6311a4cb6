"""What the commands that train say before the work and after it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import ModelPackageError
from ..models.package import ModelPackage, open_package


def note_registration(cases: Sequence[Path]) -> None:
    """Tell before the work where it is to be measured whether follow-ups lie on their baselines."""
    from ..training.data.case_description import note_on_registration

    _print_note(note_on_registration(cases))


def note_masks(cases: Sequence[Path]) -> None:
    """Tell before the work where masks that nobody drew are to be learned from."""
    from ..training.data.case_description import note_on_masks

    _print_note(note_on_masks(cases))


def _print_note(note: str | None) -> None:
    if note is not None:
        print(f"Note: {note}", file=sys.stderr)


def package_in(folder: Path) -> ModelPackage | None:
    try:
        return open_package(folder)
    except ModelPackageError:
        return None


def report_training(package: ModelPackage, before: ModelPackage | None) -> None:
    """Print the results of a training into a folder that held the package ``before``."""
    print(json.dumps(package.description.results, indent=2))
    if package == before:
        print("Note: This very training had finished before, so nothing was trained again.", file=sys.stderr)
