"""An engine command as a job: nodes to files, the command in the background, files to nodes.

A job's files lie in a temporary folder. It is removed when the job ends, however it ends, or, if Slicer crashed,
when the next job begins.
"""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import slicer
from HematomaExpansionLib.progress import Progress

from .background import BackgroundCommand, Outcome
from .node_images import NodeError

Added = TypeVar("Added")

_SCAN_REMOVED = "The scan was removed from the scene while the computation ran: nothing was added."
_NOT_ADDED = "The result could not be put into the scene. The application log says why."


def belonging_to(node: slicer.vtkMRMLNode, add: Callable[[Path, Any], Added]) -> Callable[[Path], Added]:
    """For ``start_job``: ``add`` gets the job's folder and the node that the result belongs to.

    If the node was removed while the command ran, ``add`` is not called and the job ends with a sentence.
    """
    node_id = node.GetID()

    def add_to_node(folder: Path) -> Added:
        found = slicer.mrmlScene.GetNodeByID(node_id)
        if found is None:
            raise NodeError(_SCAN_REMOVED)
        return add(folder, found)

    return add_to_node


def start_job(
    arguments: Callable[[Path], Sequence[str]],
    add: Callable[[Path], Added],
    progress: Progress,
    ended: Callable[[Outcome, Added | None], None],
) -> BackgroundCommand:
    """Run an engine command in the background and add its results to the scene.

    ``arguments`` gets the job's folder, writes the command's input there, and returns the command's arguments.
    ``add`` gets the folder when the command has succeeded; what it returns goes to ``ended``, which is called
    once, whatever happens.

    Raises:
        NodeError: from ``arguments``: a node cannot be used.
    """
    from HematomaExpansionLib.files.folders import own_scratch, remove_unfinished

    temporary = Path(tempfile.gettempdir())
    remove_unfinished(temporary)
    files = ExitStack()
    folder = files.enter_context(own_scratch(temporary))

    def finish(outcome: Outcome) -> None:
        added = None
        try:
            if outcome.finished:
                added = add(folder)
        except NodeError as error:
            outcome = Outcome(False, False, str(error), outcome.log)
        except Exception:  # whatever it was, the panel must not wait forever
            outcome = Outcome(False, False, _NOT_ADDED, f"{outcome.log}\n{traceback.format_exc()}")
        finally:
            files.close()
        ended(outcome, added)

    try:
        return BackgroundCommand(arguments(folder), progress, finish)
    except BaseException:
        files.close()
        raise
