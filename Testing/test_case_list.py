"""Lists of cases as spreadsheets write them; what would be ignored or misread is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from HematomaExpansionLib.batch.cases import BatchCase, find_cases
from HematomaExpansionLib.errors import InputError
from HematomaExpansionLib.markers.scores import ClinicalData
from HematomaExpansionLib.training.data.preparation import read_pairs


def listed(folder: Path, content: str | bytes, name: str = "list.csv") -> list[BatchCase]:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return find_cases(folder / name, folder / "out")


TEXT = "case,scan,onset_hours,warfarin\nP1,a b.nii,2.5,yes\nP2,c.nii,,\n"


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        TEXT.replace("\n", "\r\n"),
        TEXT.replace(",", ";").replace("2.5", "2,5"),
        TEXT.replace(",", "\t"),
        TEXT.replace("2.5", '"2,5"'),
        TEXT.replace("case,scan,onset_hours", " Case , SCAN ,Onset hours"),
        TEXT.replace("case,scan,onset_hours", '"case","Scan","onset-hours"'),
        TEXT + ",,,\n\n  \n;\n".replace(";", ","),
        TEXT.replace("warfarin", "warfarin,").replace("yes", "yes,"),
        "\n" + TEXT,
        "sep=;\n" + TEXT.replace(",", ";"),
        TEXT.encode("utf-8-sig"),
        TEXT.replace(",", "\t").encode("utf-16"),
        TEXT.replace(",", " ; "),
    ],
    ids=[
        "plain", "Windows", "semicolons", "tabs", "decimal comma", "capitals", "quoted", "empty lines",
        "empty column", "empty first line", "of Excel", "byte order mark", "UTF-16", "spaces",
    ],
)  # fmt: skip
def test_a_list_is_read_however_it_was_saved(content: str | bytes, tmp_path: Path) -> None:
    assert listed(tmp_path, content) == [
        BatchCase("P1", tmp_path / "a b.nii", None, 2.5, ClinicalData(warfarin=True)),
        BatchCase("P2", tmp_path / "c.nii"),
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("case,scan,onset_hour\nP1,a,2\n", r'"onset_hour" of the list is not known\. The columns are case, scan'),
        ("case,scan,Warfarin?\nP1,a,yes\n", 'column "Warfarin\\?" of the list is not known'),
        ("case,scan,mask,Mask\nP1,a,b,c\n", "names the column mask twice"),
        ("case,scan,onset_hours\nP1,a,2,5\n", "Line 2 of the list has more values than there are columns"),
        ("case,scan,onset_hours\nP1,a,nan\n", "Line 2 of the list: onset_hours is not a number"),
        ("case,scan,onset_hours\n\nP1,a,inf\n", "Line 3 of the list: onset_hours is not a number"),
        ("case,scan,\nP1,a,b\n", "Line 2 of the list has a value in a column without a name"),
        ("case,scan\nP1,\n", "Line 2 of the list lacks case or scan"),
        ("P1,/data/doe/scan.nii\nP2,b\n", "first line of the list lacks case or scan"),
        ("case|scan\nP1|a\n", "first line of the list lacks case or scan"),
        ("", "list of cases is empty"),
        ("\n\n", "list of cases is empty"),
        ("case,scan\n,\n", "one line per case"),
        (b"case,scan\nP1,\xfc.nii\n", "CSV in UTF-8"),
        (b"\x00\x01\x02\xff" * 20, "cannot be read|first line"),
    ],
)  # fmt: skip
def test_what_would_be_ignored_or_misread_is_refused(content: str | bytes, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=sentence) as refused:
        listed(tmp_path, content)
    assert "doe" not in str(refused.value)


def test_a_list_of_pairs_is_read_alike(tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text("Case;Baseline;Followup;Followup mask;Onset hours\nP1;a.nii;b.nii;m.nii;2,5\n;;;;\n")
    (pair,) = read_pairs(table)
    assert (pair.case, pair.followup_mask, pair.onset_hours) == ("P1", tmp_path / "m.nii", 2.5)
    table.write_text("case,baseline,followup,mask\nP1,a,b,c\n")
    with pytest.raises(InputError, match='column "mask" of the list is not known'):
        read_pairs(table)
