"""Worker processes that share out many cases, one core each, and that end with the program that started them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import connection, get_context, parent_process
from typing import Any

import SimpleITK as sitk


def case_workers(
    cases: int, jobs: int = 0, prepare: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()
) -> ProcessPoolExecutor:
    """As many workers as cores (or ``jobs``), and no more than cases; each calls ``prepare`` before its first."""
    count = max(1, min(jobs or os.cpu_count() or 1, cases))
    return ProcessPoolExecutor(
        count, mp_context=get_context("spawn"), initializer=_start, initargs=(prepare, arguments)
    )


def use_one_torch_thread() -> None:
    """For workers that compute with torch: their number fills the cores already."""
    import torch

    torch.set_num_threads(1)


def _start(prepare: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    if prepare is not None:
        prepare(*arguments)


def _end_with_parent() -> None:
    """A worker whose parent was killed would otherwise go on, and wait for ever after."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
