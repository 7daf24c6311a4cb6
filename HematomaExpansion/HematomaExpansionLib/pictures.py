"""Pictures beside numbers: one that cannot be drawn costs a warning, never the numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path


def draw_each(pictures: Mapping[str, Callable[[Path], None]], folder: Path) -> list[str]:
    """Draw each picture, by the name of its file in ``folder``; returns a sentence for each that could not be.

    Of those no half file is left.
    """
    failed = []
    for name, draw in pictures.items():
        try:
            draw(folder / name)
        except Exception:  # whatever a drawing library stumbles over
            (folder / name).unlink(missing_ok=True)
            failed.append(f"{name} could not be made; the numbers are not affected.")
    return failed
