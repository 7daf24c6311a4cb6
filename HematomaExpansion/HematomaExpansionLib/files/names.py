"""File names as the imaging libraries accept them."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError


def library_name(path: Path) -> str:
    """A path as text for a library that wants UTF-8; in ITK, anything else ends the whole process.

    Raises:
        InputError: a name in it is not valid text, as in files from old systems and archives.
    """
    text = str(path)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(
            "The name of a file or folder holds characters that are not valid (not UTF-8): rename it."
        ) from None
    return text
