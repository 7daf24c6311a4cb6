"""Worker processes that share many cases, one core each, and end with the program that started them.

``each_result`` runs cases on them, with only a few in memory at a time, and survives workers that die.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from multiprocessing import connection, get_context, parent_process
from typing import Any, TypeVar

import SimpleITK as sitk

Case = TypeVar("Case")
Result = TypeVar("Result")


def available_cores() -> int:
    """Number of cores this process may use; a scheduler may have limited it to a few of the computer's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Workers:
    """Where cases run: ``jobs`` at a time; ``open`` makes an executor for the given number of cases."""

    jobs: int
    open: Callable[[int], Executor]


def local_workers(jobs: int) -> Workers:
    """``jobs`` processes on this computer, each with one torch thread."""
    return Workers(jobs, partial(case_workers, jobs=jobs, prepare=use_one_torch_thread))


def case_workers(
    cases: int, jobs: int = 0, prepare: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()
) -> ProcessPoolExecutor:
    """As many workers as cores (or ``jobs``), but no more than cases; each first calls ``prepare``."""
    count = max(1, min(jobs or available_cores(), cases))
    return ProcessPoolExecutor(
        count, mp_context=get_context("spawn"), initializer=_start, initargs=(prepare, arguments)
    )


def use_one_torch_thread() -> None:
    """For workers that use torch: together they already fill the cores."""
    import torch

    torch.set_num_threads(1)


def _start(prepare: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    if prepare is not None:
        prepare(*arguments)


def _end_with_parent() -> None:
    """End a worker whose parent was killed; otherwise it would wait forever."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def each_result(
    function: Callable[[Case], Result],
    cases: Iterable[Case],
    open_workers: Callable[[int], Executor],
    max_running: int,
) -> Iterator[tuple[Case, Result | None]]:
    """Yield each case with its result as it finishes, with at most ``max_running`` handed out at a time.

    ``open_workers`` is given the number of cases left. If a worker dies, the cases handed out are retried once,
    each with its own worker, and the others go on; the result is None for a case whose worker dies again.
    """
    waiting = deque(cases)
    while waiting:
        suspects = []
        with open_workers(len(waiting)) as workers:
            for case, future in _as_done(function, waiting, workers, max_running):
                if isinstance(future.exception(), BrokenExecutor):
                    suspects.append(case)
                else:
                    yield case, future.result()
        for case in suspects:
            with open_workers(1) as worker:
                future = worker.submit(function, case)
                lost = isinstance(future.exception(), BrokenExecutor)
            yield case, None if lost else future.result()


def _as_done(
    function: Callable[[Case], Result], waiting: deque[Case], workers: Executor, max_running: int
) -> Iterator[tuple[Case, Future[Result]]]:
    """Run cases from ``waiting`` as long as the workers accept them, and yield each when it is done."""
    running: dict[Future[Result], Case] = {}
    accepting = True
    try:
        while True:
            while accepting and waiting and len(running) < max_running:
                try:
                    running[workers.submit(function, waiting[0])] = waiting[0]
                    waiting.popleft()
                except BrokenExecutor:
                    accepting = False
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future
    finally:  # the caller has given up: start no other case
        for future in running:
            future.cancel()
