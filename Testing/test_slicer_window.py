"""The modules' own self-tests, which Slicer runs in its window, over a stand-in for that window."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def window(scene: Any, qt_loop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    import slicer
    import slicer_window

    window = slicer_window.Window(scene, tmp_path)
    for name, module in window.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    for name, value in window.attributes().items():
        monkeypatch.setattr(slicer, name, value, raising=False)
    for name, value in window.utilities().items():
        monkeypatch.setattr(slicer.util, name, value, raising=False)
    yield window
    window.close()


def test_a_prediction_clicked_through(window: Any) -> None:
    test = window.load("HematomaExpansion").HematomaExpansionTest("runTest")
    test.runTest()


def test_synthesis_clicked_through(window: Any) -> None:
    test = window.load("HematomaSynthesis").HematomaSynthesisTest("runTest")
    test.runTest()
