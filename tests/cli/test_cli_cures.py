"""What is wrong is answered at the command line in flags, in Python in Python."""

import ast
import inspect
import json
import pickle
import re
from functools import lru_cache
from pathlib import Path

import pytest

import backtest as bt
from backtest.base.errors import Argument, Either, Phrase, Place, join_phrases
from backtest.cli.app import app
from backtest.cli.cures import (
    EXPERIMENT_FLAGS,
    IMPORT,
    OTHER_FLAGS,
    SET_FIELDS,
    CommandLine,
    find_command,
    render_place,
    render_text,
)
from backtest.live.replay import Replay
from backtest.market.fetch import fetch_market, read_request
from backtest.market.tables.repairs import parse_repairs
from tests.commands import call
from tests.fast_cases import every_nth
from tests.market.bad_frames import CASES
from tests.market.good_frames import good
from tests.project.test_hostile_files import HOSTILE

DAYS = bt.Market.sample(bars=72).bars().to_csv(index_label="time")
PYTHON = re.compile(r"\w=['(\[{]|\w=(?:True|None)\b|\bframe\b|\w\(\)|\.astype|\.fillna|\bbt\.")
"""What is only typed in Python."""


def list_cures(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.lstrip().startswith("cure:")]


COMMANDS = (
    *(("run",), ("sweep",), ("tune",), ("compare",), ("liq",)),
    *(("data", "import"), ("data", "fetch"), ("data", "inspect")),
    *(("validate", "walk-forward"), ("risk",), ("options", "chain"), ("options", "surface")),
)
FLAGS = {pair for words in COMMANDS for pair in find_command(app, words).flags.items()}


@lru_cache
def read_calls() -> list[tuple[str, ast.Call]]:
    """Return the calls in the package that name arguments."""
    texts = [path.read_text() for path in Path(bt.__file__).parent.rglob("*.py")]
    trees = [tree for tree in map(ast.parse, texts) if names_arguments(tree)]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [(getattr(node.func, "id", ""), node) for node in calls]


def names_arguments(tree: ast.Module) -> bool:
    """Return whether a file imports what names an argument; a loop has places of its own."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    of_base = [node for node in imports if str(node.module).startswith("backtest.base")]
    return any(each.name in ("Argument", "Place") for node in of_base for each in node.names)


def find_calls(name: str) -> list[ast.Call]:
    return [call for function, call in read_calls() if function == name]


def find_names(name: str) -> set[str]:
    """Return the first arguments of the calls of a name, where they are written out."""
    firsts = [node.args[0] for node in find_calls(name)]
    words = [word for first in firsts for word in getattr(first, "elts", [first])]
    return {word.value for word in words if isinstance(word, ast.Constant)}


def find_public_arguments() -> set[str]:
    """Return the names of the arguments of everything public, and of its methods."""
    returned = [fetch_market, read_request, Replay]
    public = [*returned, *(getattr(bt, name) for name in bt.__all__)]
    members = [each for one in public if inspect.isclass(one) for each in vars(one).values()]
    methods = [each for each in members if not inspect.isclass(each)]
    known = set()
    for each in (*public, *(getattr(method, "__func__", method) for method in methods)):
        is_own = str(getattr(each, "__module__", "")).startswith("backtest")
        is_class = inspect.isclass(each) and not issubclass(each, Exception)
        if inspect.isfunction(each) or (is_own and is_class):
            known |= {*inspect.signature(each).parameters}
    return known


@pytest.mark.slow
def test_every_argument_that_an_error_names_is_one_of_a_public_function():
    named = find_names("Argument") | find_names("Place")
    assert len(named) > 40
    assert not named - find_public_arguments()


def test_every_argument_that_a_cure_names_is_a_flag():
    named = find_names("Argument")
    assert not named - {*OTHER_FLAGS, *SET_FIELDS, *EXPERIMENT_FLAGS, *(name for name, _ in FLAGS)}
    others = {flag for flags in OTHER_FLAGS.values() for flag in flags}
    assert not others - {flag for _, flag in FLAGS}


def test_every_repair_that_a_cure_names_is_one():
    calls = [node for node in find_calls("Argument") if ast.unparse(node.args[0]) == "'repair'"]
    names = [ast.literal_eval(node.args[1]) for node in calls]
    assert [str(parse_repairs([name], where="test")[0]) for name in names] == names
    assert len(names) == 4


def test_a_text_is_python_and_is_typed_as_flags_of_the_command():
    text = Phrase("give {} or {}", Argument("mark_gaps", "last"), Argument("sessions", True))
    assert text == "give mark_gaps='last' or sessions=True"
    assert render_text(text, CommandLine()) == "give --mark-gaps last or --sessions"
    imported = find_command(app, ["data", "import", "x.csv"])
    assert imported.command == IMPORT
    assert render_text(text, imported) == "give --repair mark-gaps=last or --sessions"


def test_what_only_an_import_can_do_names_it():
    text = Phrase("sort it: {}", Either("frame.sort_index()", Argument("repair", "sort")))
    assert text == "sort it: frame.sort_index()"
    assert render_text(text, CommandLine()) == f"sort it: {IMPORT} FILE --repair sort"
    assert render_text(text, find_command(app, ["data", "import"])) == "sort it: --repair sort"


def test_texts_are_joined_and_sent_to_other_processes_with_their_arguments():
    joined = join_phrases("; ", [Phrase("give {}", Argument("interval", "1h")), "or not", "or not"])
    again = pickle.loads(
        pickle.dumps(bt.BacktestError("p", where=Place("end", of="f"), cure=joined))
    )
    assert again.cure == "give interval='1h'; or not"
    assert render_text(again.cure, CommandLine()) == "give --interval 1h; or not"
    assert render_place(again.where, CommandLine(["--to"], "", {"end": "--to"})) == "--to"


def is_storable(case) -> bool:
    """Tell whether what is wrong with a frame is wrong with a Parquet file too."""
    return case.name not in {
        "one column twice", "text among prices", "columns without names", "a misspelt column",
        "stamps with and without a zone",
    }  # fmt: skip


STORABLE = [case for case in CASES if is_storable(case)]


@pytest.mark.parametrize("case", every_nth(STORABLE, 3), ids=[case.name for case in STORABLE])
def test_a_run_on_bad_data_is_told_what_to_type(capsys, folder: Path, case):
    frames = good()
    case.spoil(frames)
    for name, frame in frames.items():
        frame.to_parquet(folder / f"{name}.parquet")
    code, _, err = call(capsys, "run", "--data", folder, "--no-compile", "--no-save")
    assert code == 2
    assert case.rule in err
    assert not [cure for cure in list_cures(err) if PYTHON.search(cure)], err


@pytest.mark.parametrize(
    ("name", "write", "rule"), every_nth(HOSTILE, 4), ids=[each[0] for each in HOSTILE]
)
def test_an_import_of_a_hostile_file_is_told_what_to_type(capsys, folder, name, write, rule):
    path = write(folder)
    code, _, err = call(capsys, "data", "import", path, "--out", "out")
    assert code == 2
    assert re.search(rule, err)
    assert not (folder / "out").exists()
    assert not [cure for cure in list_cures(err) if PYTHON.search(cure)], err


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


@pytest.mark.slow
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


@pytest.mark.parametrize(("where", "words", "typed"), [
    (Place("between", "start"), ["run", "--from", "x"], "--from"),
    (Place("between", "start"), ["run", "--start=x"], "--start"),
    (Place("between", "for a.csv"), ["run", "--from", "1", "--to", "2"], "--from, --to, for a.csv"),
    (Place("between", "for a.csv"), ["run", "mine.toml"], "between, for a.csv"),
    (Place("interval"), ["data", "import", "x", "--interval", "1x"], "--interval"),
    ("interval.csv, line 3", ["run", "--interval", "1h"], "interval.csv, line 3"),
    (Place("start", of="bt.run"), ["run", "--start", "x"], "--start"),
    (Place("start", of="bt.run"), ["run", "mine.toml"], "bt.run, start"),
    (Place("start"), ["data", "fetch", "X", "--from", "x"], "--from"),
    (Place("without"), ["data", "fetch", "X", "--without", "x"], "--without"),
])  # fmt: skip
def test_a_place_is_the_flag_that_was_typed(where, words, typed):
    assert render_text(where, find_command(app, words)) == typed


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


def test_an_inspection_lists_cells_that_cannot_be_read_and_trusts_no_price_of_theirs(
    capsys, folder: Path
):
    (folder / "bars.csv").write_text(cell(4, 4, "abc"))
    code, out, _ = call(capsys, "data", "inspect", "bars.csv")
    assert code == 0
    assert "close must be numbers, got 'abc' in 1 of 72 cells (bars.csv, line 4)" in out
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
