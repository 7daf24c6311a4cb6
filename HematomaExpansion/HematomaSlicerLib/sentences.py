"""Errors that carry a sentence for the user, told in the panel instead of a pop-up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .dependencies import DependencyError
from .node_images import NodeError


@contextmanager
def told_to(tell: Callable[[str], None]) -> Iterator[None]:
    """Tell the sentence of an error that is meant for the user; any other error goes on its way."""
    from HematomaExpansionLib.errors import HematomaError

    try:
        yield
    except (HematomaError, DependencyError, NodeError) as error:
        tell(str(error))
