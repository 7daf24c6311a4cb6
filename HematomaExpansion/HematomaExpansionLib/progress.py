"""Progress of long work, reported as a stage and the fraction of the work that is done."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TextIO

Progress = Callable[[str, float], None]
"""Called with the stage's name and a number from 0 to 1: the fraction of the whole work that is done."""


Share = Callable[[float], None]
"""Called with a number from 0 to 1: the fraction of one stage that is done."""


def silent(stage: str, fraction: float) -> None:
    """Report to nobody."""


def unheard(share: float) -> None:
    """Report a stage to nobody."""


class JsonProgress:
    """One JSON object per line, for a program that reads them."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout

    def __call__(self, stage: str, fraction: float) -> None:
        print(json.dumps({"stage": stage, "fraction": round(fraction, 4)}), file=self._stream, flush=True)


class BarProgress:
    """A progress bar on standard error; nothing if standard error is not a terminal."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._bar: Any = tqdm(
            total=100, disable=None, leave=False, bar_format="{desc:<26}|{bar}| {percentage:3.0f}%"
        )

    def __call__(self, stage: str, fraction: float) -> None:
        self._bar.set_description_str(stage)
        self._bar.update(round(100 * fraction) - self._bar.n)

    def __enter__(self) -> BarProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()


class Stages:
    """Reports the start of each stage of long work and records how many seconds each took."""

    def __init__(self, progress: Progress = silent) -> None:
        self._progress = progress
        self._started = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str, fraction: float) -> Iterator[None]:
        self._progress(stage, fraction)
        started = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - started, 3)

    def within(self, stage: str, start: float, end: float) -> Share:
        """Reports how far a stage is that takes from ``start`` to ``end`` of the whole work."""
        return lambda share: self._progress(stage, start + (end - start) * share)

    @property
    def timing(self) -> dict[str, float]:
        """Seconds by stage, and in total since the work began."""
        return {**self.seconds, "total": round(time.perf_counter() - self._started, 3)}
