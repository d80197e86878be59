"""What is wrong with data is answered at the command line in flags, in Python in Python."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import backtest as bt
from backtest.cli.cures import IMPORT, type_cure, type_place
from tests.commands import call
from tests.test_bad_data import CASES, good
from tests.test_import import HOSTILE

PYTHON = re.compile(
    r"\w=['(\[{]|\w=(?:True|None)\b|\bframe\b|\w\(\)|\.astype|\.fillna|\bbt\."
    r"|(?<!-)\b\w+=(?=[ ,;]|$)"
)
"""What only Python says: keywords with texts or pairs, methods, names of this package."""

DAYS = bt.Market.sample(bars=72).bars().to_csv(index_label="time")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


def list_cures(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.lstrip().startswith("cure:")]


# ----------------------------------------------------------------------------------- no Python


def is_storable(case) -> bool:
    """Tell whether what is wrong with a frame is wrong with a Parquet file too."""
    return case.name not in {
        "one column twice", "text among prices", "columns without names", "a misspelt column",
        "stamps with and without a zone",
    }  # fmt: skip


STORABLE = [case for case in CASES if is_storable(case)]


@pytest.mark.parametrize("case", STORABLE, ids=[case.name for case in STORABLE])
def test_a_run_on_bad_data_is_told_what_to_type(capsys, folder: Path, case):
    frames = good()
    case.spoil(frames)
    for name, frame in frames.items():
        frame.to_parquet(folder / f"{name}.parquet")
    code, _, err = call(capsys, "run", "--data", folder, "--no-compile", "--no-save")
    assert code == 2
    assert case.rule.replace("as interval= says", "as was said") in err
    cures = list_cures(err)
    assert cures
    assert not [cure for cure in cures if PYTHON.search(cure)], cures


@pytest.mark.parametrize(("name", "write", "rule"), HOSTILE, ids=[each[0] for each in HOSTILE])
def test_an_import_of_a_hostile_file_is_told_what_to_type(capsys, folder, name, write, rule):
    path = write(folder)
    code, _, err = call(capsys, "data", "import", path, "--out", "out")
    assert code == 2
    assert re.search(rule, err)
    assert not (folder / "out").exists()
    assert not [cure for cure in list_cures(err) if PYTHON.search(cure)], err


# -------------------------------------------------------------------------- what is typed instead

TYPED = [
    ("cut them, between=('2021-01-01 08:00', '2022-01-01')",
     "cut them, --from 2021-01-01T08:00 --to 2022-01-01", "cut them, --from 2021-01-01T08:00"),
    ("give mark_gaps='last' there", "give --mark-gaps last there",
     "give --repair mark-gaps=last there"),
    ("give funding_gaps='zero'", "give --funding-gaps zero", "give --repair funding-gaps=zero"),
    ("or give sessions=True if", "or give --sessions if", "or give --sessions if"),
    ("give interval='1h', or more", "give --interval 1h, or more", "give --interval 1h"),
    ("give interval= if", "give --interval if", "give --interval if"),
    ("give timezone='UTC' if", "give --timezone UTC if", "give --timezone UTC"),
    ("the loader asks for timezone=", "the loader asks for --timezone", "--timezone"),
    ("say which: instrument='BTC/USDT'", "say which: --instrument BTC/USDT", "--instrument BTC"),
    ("sort them: frame.sort_index()", "sort them: backtest data import FILE --repair sort",
     "sort them: --repair sort"),
    ("say: columns={'time': 0, 'open': 1, ...}",
     "say: backtest data import FILE --columns time=0,open=1,...",
     "say: --columns time=0,open=1,..."),
    ("bt.import_market(..., decimal=',')", "backtest data import FILE --decimal ,", "--decimal ,"),
    ("bt.import_market(..., repair='settle-once') keeps one",
     "backtest data import FILE --repair settle-once keeps one", "--repair settle-once keeps one"),
    ("give for example margin_call=0.8 and top_up_to=0.5, or leave reserve out",
     "give for example --margin-call 0.8 and --top-up-to 0.5, or leave reserve out", "--top-up-to"),
    ("correct the cell", "correct the cell", "correct the cell"),
]  # fmt: skip


@pytest.mark.parametrize("said", [said for said, typed, _ in TYPED if said != typed])
def test_what_is_looked_for_above_is_found_in_python(said):
    assert PYTHON.search(said) or re.search(r"=\d", said)


@pytest.mark.parametrize(("said", "run", "imported"), TYPED)
def test_each_keyword_has_its_flag_and_what_only_an_import_can_do_names_it(said, run, imported):
    assert type_cure(said, command="run --data") == run
    assert imported in type_cure(said, command=IMPORT)
    assert "data import FILE" not in type_cure(said, command=IMPORT)


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


def test_the_cures_of_sessions_and_of_repairs_can_be_typed(capsys, folder: Path):
    lines = DAYS.splitlines()
    (folder / "shut.csv").write_text("\n".join([*lines[:20], *lines[22:]]))
    how = ("--no-compile", "--no-save", "--instrument", "BTCUSDT")
    code, _, err = call(capsys, "run", "--data", "shut.csv", "--sessions", *how)
    assert code == 2
    assert "cure:  pass --calendar 252" in err
    how = (*how, "--calendar", "252")
    code, out, _ = call(capsys, "run", "--data", "shut.csv", "--sessions", *how)
    assert code == 0
    assert "70 bars of 1h" in out
    (folder / "bars.csv").write_text("\n".join([lines[0], lines[2], lines[1], *lines[3:]]))
    assert "--repair sort" in call(capsys, "data", "import", "bars.csv", "--out", "x")[2]
    assert call(capsys, "data", "import", "bars.csv", "--out", "x", "--repair", "sort")[0] == 0


@pytest.mark.parametrize(("where", "words", "said"), [
    ("between, start", ["run", "--from", "x"], "--from"),
    ("between, start", ["run", "--start=x"], "--start"),
    ("between, for bars.csv", ["run", "--from", "1", "--to", "2"], "--from, --to, for bars.csv"),
    ("between, for bars.csv", ["run", "mine.toml"], "between, for bars.csv"),
    ("interval", ["data", "import", "x", "--interval", "1x"], "--interval"),
    ("intervals.csv, line 3", ["run", "--interval", "1h"], "intervals.csv, line 3"),
    ("mark_gaps", ["run", "--mark-gaps", "x"], "--mark-gaps"),
    ("bt.run, start", ["run", "--start", "x"], "--start"),
    ("bt.run, start", ["run", "mine.toml"], "bt.run, start"),
    ("resample('30m')", ["data", "import", "x", "--resample", "30m"], "--resample"),
    ("without", ["data", "fetch", "X", "--without", "x"], "--without"),
])  # fmt: skip
def test_a_place_is_the_flag_that_was_typed(where, words, said):
    assert type_place(where, words) == said


def test_python_is_told_in_python(folder: Path):
    (folder / "bars.csv").write_text(DAYS.replace("+00:00", ""))
    with pytest.raises(bt.DataError) as refused:
        bt.Market.load("bars.csv")
    assert "timezone='UTC'" in refused.value.cure


# ------------------------------------------------------------------------------- lines of a file


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
    assert "was '30000,0' in 72 of 72 cells" in err
    assert "for decimal commas: --decimal ," in err
    code, _, err = call(capsys, "data", "import", "eu.csv", "--out", "x", "--decimal", ",")
    assert (code, err) == (0, "")
    assert bt.Market.load("x").bars().equals(bt.Market.sample(bars=72).bars())
    report = bt.quality("eu.csv", decimal=",")
    assert report.fit_for("loading") == "yes"
    with pytest.raises(bt.ParameterError, match=r"decimal must be '\.' or ',', was 'x'"):
        bt.import_market("eu.csv", decimal="x")


def test_a_comma_that_divides_a_number_is_told_apart_from_a_damaged_row(capsys, folder: Path):
    (folder / "bars.csv").write_text(cell(6, 4, "30,5"))
    _, _, err = call(capsys, "data", "import", "bars.csv", "--out", "x")
    assert "as many cells as the header, 6, found 7" in err
    assert "put semicolons between the cells: --decimal ," in err
    (folder / "bars.csv").write_text(DAYS + "2023-01-04 00:00:00+00:00,1.0\n")
    _, _, err = call(capsys, "data", "import", "bars.csv", "--out", "x")
    assert "6, found 2" in err
    assert "line 74" in err
    assert "--decimal" not in err


# -------------------------------------------------------------------------------- the inspection


def test_an_inspection_lists_cells_that_cannot_be_read_and_trusts_no_price_of_theirs(
    capsys, folder: Path
):
    (folder / "bars.csv").write_text(cell(4, 4, "abc"))
    code, out, _ = call(capsys, "data", "inspect", "bars.csv")
    assert code == 0
    assert "close must be numbers, was 'abc' in 1 of 72 cells (bars.csv, line 4)" in out
    assert re.search(r"cannot be read +close", out)
    assert re.search(r"liquidation +no +close of bars cannot be read", out)
    assert re.search(r"loading +no +1 defect", out)
    (folder / "bars.csv").write_text(cell(4, 0, "noon"))
    out = call(capsys, "data", "inspect", "bars.csv")[1]
    assert re.search(r"minutes +no +no bars *$", out, re.MULTILINE)  # and nothing of their length


def test_an_inspection_speaks_in_flags_on_screen_and_as_json(capsys, folder: Path):
    (folder / "bars.csv").write_text(DAYS.replace("+00:00", ""))
    out = call(capsys, "data", "inspect", "bars.csv")[1]
    assert "give --timezone UTC" in out
    assert "the loader asks for --timezone" in out
    found = json.loads(call(capsys, "data", "inspect", "bars.csv", "--json")[1])
    assert "--timezone UTC" in found["defects"][0]["cure"]
    assert found["bars"]["unread"] == []


def test_cells_of_several_lines_stand_at_the_top_of_their_row(capsys, folder: Path):
    lines = DAYS.splitlines()
    (folder / "bars.csv").write_text("\n".join([*lines[:4], *lines[5:9], lines[8], *lines[9:]]))
    out = call(capsys, "data", "inspect", "bars.csv")[1].splitlines()
    first = next(n for n, line in enumerate(out) if line.startswith("liquidation"))
    assert "1 bar missing" in out[first]
    assert out[first + 1].startswith(" " * 12)
