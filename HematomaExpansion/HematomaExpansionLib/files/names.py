"""Names of files as the imaging libraries take them."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError


def library_name(path: Path) -> str:
    """A path as text for a library that wants UTF-8; another ends the whole process in ITK.

    Raises:
        InputError: a name in it is no text, as old systems and archives leave them.
    """
    text = str(path)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(
            "The name of a file or folder holds characters that are not valid (not UTF-8): rename it."
        ) from None
    return text
