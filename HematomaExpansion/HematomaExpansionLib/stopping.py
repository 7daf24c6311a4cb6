"""Ends a command cleanly and within seconds on SIGTERM, as sent by a scheduler or ``kill``."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import active_children
from types import FrameType

STOPPED_STATUS = 128 + signal.SIGTERM
"""Exit status of a command that SIGTERM ended, as shells report it."""

_SECONDS_FOR_ORDER = 10.0


class Stopped(BaseException):
    """The process was told to end; its text, if any, says what to do now.

    Not an ``Exception``, so that nothing mistakes it for a fault of one case.
    """


@contextmanager
def clean_stop() -> Iterator[None]:
    """Within the block, SIGTERM ends the worker processes and raises ``Stopped`` in the main thread.

    Unfinished folders are then removed; if that takes too long, the process ends anyway. Nothing changes on
    Windows, which has no such signal, outside the main thread, or if SIGTERM already has a handler.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if os.name == "nt" or not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    heard, told = os.pipe()
    os.set_blocking(told, False)
    over = threading.Event()
    threading.Thread(target=_force_exit, args=[heard, over], daemon=True).start()
    signal.signal(signal.SIGTERM, _stop)
    before = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.close(told)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt the cleanup
    for child in active_children():
        child.terminate()
    raise Stopped


def _force_exit(heard: int, over: threading.Event) -> None:
    """End the process some time after the signal.

    The main thread notices the signal only between two steps of Python, and one step of a large network may take
    minutes.
    """
    while arrived := os.read(heard, 64):
        if signal.SIGTERM in arrived and not over.wait(_SECONDS_FOR_ORDER):
            for child in active_children():
                child.kill()
            os._exit(STOPPED_STATUS)
    os.close(heard)
