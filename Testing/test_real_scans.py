"""The script that measures the tool on real scans: what it counts, and the scans if they are available."""

from __future__ import annotations

import pytest
import real_scans
from conftest import REAL_HEAD_CT
from HematomaExpansionLib.training.data.reader_labels import ReadSlice
from real_scans import NO_BLOOD, ScanResult, count_by_kind


def test_slices_are_counted_for_each_kind_and_those_without_blood() -> None:
    labels = [
        ReadSlice("a", 0, ()),
        ReadSlice("a", 1, ("intraparenchymal",)),
        ReadSlice("a", 2, ("intraparenchymal", "subdural")),
        ReadSlice("b", 0, ()),
        ReadSlice("c", 0, ("subdural",)),
    ]
    refused = ScanResult("c", 2, sentence="The scan is blank.")
    found = ScanResult("a", 0, (0.2, 1.0, 0.0), (frozenset({0, 1}), frozenset({0, 1}), frozenset({0, 3})))
    counts = count_by_kind(labels, [found, ScanResult("b", 0, (0.0,), (frozenset({0}),)), refused])
    told = {
        count.kind: (count.slices, count.called, count.told, [label.number for label in count.missed])
        for count in counts
    }
    assert told == {
        "intraparenchymal": (2, 1, 1, [2]),
        "subdural": (2, 0, 1, [0]),
        NO_BLOOD: (2, 1, 1, [0]),
    }


def test_labels_of_a_slice_that_the_scan_does_not_have_are_an_error() -> None:
    with pytest.raises(ValueError, match="2 slices"):
        count_by_kind([ReadSlice("a", 2, ())], [ScanResult("a", 0, (0.0, 0.0))])


@pytest.mark.slow
def test_every_real_scan_gets_a_result(capsys: pytest.CaptureFixture[str]) -> None:
    folder = REAL_HEAD_CT.parent / "real-bleeds"
    if not folder.is_dir():
        pytest.skip("the real scans are not on this machine")
    assert real_scans.main([str(folder)]) == 0
    assert "| intraparenchymal |" in capsys.readouterr().out
