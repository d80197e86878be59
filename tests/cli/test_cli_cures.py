"""Errors about files name the line, at the command line as in Python."""

import json
from pathlib import Path

import pytest

import backtest as bt
from tests.commands import call
from tests.refusals import check_refused

DAYS = bt.Market.sample(bars=72).bars().to_csv(index_label="time")


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
    check_refused(lambda: bt.Market.load("bars.csv"), f"({where})", bt.DataError)


def test_decimal_commas_are_recognised_and_read_when_that_is_said(capsys, folder: Path):
    (folder / "eu.csv").write_text(DAYS.replace(",", ";").replace(".", ","))
    code, _, err = call(capsys, "data", "import", "eu.csv", "--out", "x")
    assert code == 2
    assert "got '30000,0' in 72 of 72 cells" in err
    assert "decimal=','" in err
    code, _, err = call(capsys, "data", "import", "eu.csv", "--out", "x", "--decimal", ",")
    assert (code, err) == (0, "")
    assert bt.Market.load("x").bars().equals(bt.Market.sample(bars=72).bars())
    report = bt.quality("eu.csv", decimal=",")
    assert report.fit_for("loading") == "yes"
    with pytest.raises(bt.ParameterError, match=r"decimal must be '\.' or ',', got 'x'"):
        bt.import_market("eu.csv", decimal="x")


def test_an_inspection_lists_what_is_refused_on_screen_and_as_json(capsys, folder: Path):
    (folder / "bars.csv").write_text(DAYS.replace("+00:00", ""))
    out = call(capsys, "data", "inspect", "bars.csv")[1]
    assert "stamps must have a time zone" in out
    assert "the loader asks for timezone" in out
    found = json.loads(call(capsys, "data", "inspect", "bars.csv", "--json")[1])
    assert "timezone='UTC'" in found["defects"][0]
    assert found["bars"]["unread"] == []
