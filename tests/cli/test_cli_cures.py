"""What is wrong is answered at the command line in flags, in Python in Python."""

import json
import re
from pathlib import Path

import pytest

import backtest as bt
from tests.commands import call

DAYS = bt.Market.sample(bars=72).bars().to_csv(index_label="time")


def test_the_cure_of_a_span_can_be_typed(capsys, folder: Path):
    lines = DAYS.splitlines()
    (folder / "bars.csv").write_text("\n".join([*lines[:20], *lines[22:]]))
    words = ("run", "--data", "bars.csv", "--no-compile", "--no-save", "--instrument", "BTCUSDT")
    code, _, err = call(capsys, *words)
    assert code == 2
    span = re.search(r"--from \S+ --to [^\s;]+", err)
    assert span is not None, err
    code, out, err = call(capsys, *words, *span[0].split())
    assert (code, err) == (0, "")
    assert "51 bars of 1h" in out


def test_python_is_told_in_python(folder: Path):
    (folder / "bars.csv").write_text(DAYS.replace("+00:00", ""))
    with pytest.raises(bt.DataError) as refused:
        bt.Market.load("bars.csv")
    assert "timezone='UTC'" in refused.value.cure


def cell(line: int, column: int, text: str, table: str = DAYS) -> str:
    """Return a table with another cell; lines count from 1."""
    lines = table.splitlines()
    cells = lines[line - 1].split(",")
    cells[column] = text
    return "\n".join([*lines[: line - 1], ",".join(cells), *lines[line:], ""])


@pytest.mark.parametrize(("text", "where"), [
    (cell(4, 4, "abc"), "bars.csv, line 4"),
    (cell(9, 0, "noon"), "bars.csv, line 9"),
    ("# a comment\n" + cell(4, 4, "abc"), "bars.csv, line 5"),
    (cell(4, 4, "abc").replace("\n", "\r\n"), "bars.csv, line 4"),
    (cell(4, 4, "abc") + "\n\n", "bars.csv, line 4"),
    (cell(6, 4, "30,5"), "bars.csv, line 6"),
    (cell(4, 4, "abc").replace("\n", "\n\n", 1), "bars.csv, row 2"),
], ids=["a cell", "a time", "under a comment", "of Windows", "empty lines below", "a wide row",
        "an empty line above"])  # fmt: skip
def test_the_line_of_the_file_is_named_where_it_is_known(folder: Path, text, where):
    (folder / "bars.csv").write_bytes(text.encode())
    with pytest.raises(bt.DataError) as refused:
        bt.Market.load("bars.csv")
    assert refused.value.where == where


def test_decimal_commas_are_recognised_and_read_when_that_is_said(capsys, folder: Path):
    (folder / "eu.csv").write_text(DAYS.replace(",", ";").replace(".", ","))
    code, _, err = call(capsys, "data", "import", "eu.csv", "--out", "x")
    assert code == 2
    assert "got '30000,0' in 72 of 72 cells" in err
    assert "for decimal commas: --decimal ," in err
    code, _, err = call(capsys, "data", "import", "eu.csv", "--out", "x", "--decimal", ",")
    assert (code, err) == (0, "")
    assert bt.Market.load("x").bars().equals(bt.Market.sample(bars=72).bars())
    report = bt.quality("eu.csv", decimal=",")
    assert report.fit_for("loading") == "yes"
    with pytest.raises(bt.ParameterError, match=r"decimal must be '\.' or ',', got 'x'"):
        bt.import_market("eu.csv", decimal="x")


def test_an_inspection_speaks_in_flags_on_screen_and_as_json(capsys, folder: Path):
    (folder / "bars.csv").write_text(DAYS.replace("+00:00", ""))
    out = call(capsys, "data", "inspect", "bars.csv")[1]
    assert "give --timezone UTC" in out
    assert "the loader asks for --timezone" in out
    found = json.loads(call(capsys, "data", "inspect", "bars.csv", "--json")[1])
    assert "--timezone UTC" in found["defects"][0]["cure"]
    assert found["bars"]["unread"] == []
