"""Worker processes that share out many cases, one core each, and that end with the program that started them;
and the way through more cases than are to be in memory at once, with workers that may die."""

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
    """Those that this process may use: a scheduler may have given it a few of the computer's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Workers:
    """Where cases are worked on: ``jobs`` at a time; ``open`` makes an executor for that many cases."""

    jobs: int
    open: Callable[[int], Executor]


def local_workers(jobs: int) -> Workers:
    """So many processes on this computer, each with one thread of torch."""
    return Workers(jobs, partial(case_workers, jobs=jobs, prepare=use_one_torch_thread))


def case_workers(
    cases: int, jobs: int = 0, prepare: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()
) -> ProcessPoolExecutor:
    """As many workers as cores (or ``jobs``), and no more than cases; each calls ``prepare`` before its first."""
    count = max(1, min(jobs or available_cores(), cases))
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


def each_result(
    function: Callable[[Case], Result],
    cases: Iterable[Case],
    open_workers: Callable[[int], Executor],
    max_running: int,
) -> Iterator[tuple[Case, Result | None]]:
    """Yield each case with its result as it is done, at most ``max_running`` being handed over at a time.

    ``open_workers`` is told how many cases are left. Where a worker dies, those handed over are tried once more,
    each with a worker of its own, and the others go on; the result is None for a case whose worker died again.
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
    """Takes cases from ``waiting`` for as long as the workers accept them."""
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
    finally:  # the one who asked has given up: begin no other case
        for future in running:
            future.cancel()
