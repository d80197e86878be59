"""``backtest results``: what it prints, what it refuses, its exit codes."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from backtest.cli import main
from backtest.cli.printing import fold_words
from backtest.cli.results import load_markets, read_data_terms
from tests import kit
from tests.kit import call, override

SHORT = ("--to", "2023-02-05", "--set", "data.resample=4h")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a store of two runs and a sweep, made once."""
    store = tmp_path_factory.mktemp("made")
    terms = (*SHORT, "--results", str(store))
    assert main(["run", *terms]) == 0
    assert main(["run", "--policy", "constant", "--set", "leverage=1.0", *terms]) == 0
    assert main(["sweep", "--vary", "target=0.2,0.4", *terms]) == 0
    return store


@pytest.fixture(autouse=True)
def results(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(made, tmp_path / "results"))


def ask(capsys, *words, code=0):
    return kit.ask(capsys, "results", *words, code=code)


def folder_of(results: Path, start: str) -> Path:
    return next(results.glob(f"{start}-*"))


@pytest.mark.slow
def test_a_list_is_filtered_sorted_and_cut(capsys, results):
    everything = ask(capsys, "list", "--sort", "sharpe")["results"]
    sharpes = [each["metrics"]["sharpe"] for each in everything]
    assert sharpes == sorted(sharpes, reverse=True)

    turned = ask(capsys, "list", "--sort", "sharpe", "--reverse")["results"]
    assert [each["metrics"]["sharpe"] for each in turned] == sharpes[::-1]

    sweeps = ask(capsys, "list", "--kind", "sweep")["results"]
    assert [each["kind"] for each in sweeps] == ["sweep"]
    constants = ask(capsys, "list", "--policy", "constant")["results"]
    assert [each["policy"] for each in constants] == ["Constant(leverage=1.0)"]

    first = ask(capsys, "list", "--sort", "sharpe", "--top", "1")
    assert len(first["results"]) == 1
    assert first["found"] == 3

    assert ask(capsys, "list", "--where", f"sharpe>{sharpes[0]}")["results"] == []
    assert len(ask(capsys, "list", "--since", "1d", "synthetic")["results"]) == 3
    assert ask(capsys, "list", "--since", "2100-01-01")["results"] == []


def test_what_is_damaged_or_left_is_named_in_every_list(capsys, results):
    run = folder_of(results, "voltarget")
    (run / "bars.parquet").unlink()
    (results / ".saving-x").mkdir()

    code, out, _ = call(capsys, "results", "list", "--kind", "sweep")
    assert code == 0
    assert f"{run.name}: bars.parquet" in out
    assert ".saving-x: it was left by a process that died" in out

    found = ask(capsys, "list")
    assert [each["name"] for each in found["not_readable"]] == [".saving-x", run.name]


def test_a_list_of_80_columns_tells_its_rows_apart(capsys, results, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = call(capsys, "results", "list", "--kind", "run")[1]
    assert out.split("\n")[0].split() == ["id", "policy", "market", "day", "return"]
    assert max(map(len, out.splitlines())) <= 80
    for each in ask(capsys, "list", "--kind", "run")["results"]:
        assert each["id"][:8] in out
        assert all(word in out for word in re.findall(r"\w+=[^,)]+", each["policy"]))

    assert "…" not in out
    assert fold_words("Tail(Flat(x=2.0), y=-0.1)", 11) == "Tail(Flat(\nx=2.0),\ny=-0.1)"


def test_hostile_names_and_texts_are_written_out(capsys, results):
    folder_of(results, "voltarget").rename(results / "\x1b[31mred\u202e<script>\nx")
    code, out, _ = call(capsys, "results", "list")
    assert code == 0
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert len([line for line in out.splitlines() if "<script>" in line or "red" in line]) == 1


def test_show_says_what_it_is_and_its_command_makes_it_again(capsys, results):
    run = folder_of(results, "constant")
    code, out, err = call(capsys, "results", "show", run.name[-16:-8])
    assert code == 0
    assert err == ""
    assert "Constant(leverage=1.0)" in out
    assert "source hash" in out
    line = out.rsplit("run again by\n", 1)[1].strip()
    assert "\n" not in line

    shutil.rmtree(run)
    code, _, err = call(capsys, *override(shlex.split(line)[1:], "--results", "results"))
    assert code == 0
    assert err == ""
    assert run.is_dir()

    assert ask(capsys, "show", run.name)["manifest"]["id"] == run.name[-16:]


def test_forecasts_are_scored_on_the_folder_that_has_their_instrument(tmp_path):
    for instrument in ("BTCUSDT", "ETHUSDT"):
        market = kit.market_of(np.full(5, 100.0), terms={"instrument": instrument})
        market.save(tmp_path / instrument[:3].lower())

    def load(*instruments, folders=("btc", "eth")):
        paths = [str(tmp_path / folder) for folder in folders]
        return load_markets(paths, instruments, since=None, until=None)

    assert [*load()] == ["BTCUSDT", "ETHUSDT"]
    assert [*load("ETHUSDT", "BTCUSDT")] == ["ETHUSDT", "BTCUSDT"]
    assert [*load("BTCUSDT", folders=["btc"])] == ["BTCUSDT"]
    kit.check_refused(lambda: load("BTCUSDT"), "each path must hold an instrument that is chosen")


def test_data_of_forecasts_are_read_on_terms_that_are_set():
    assert read_data_terms(["data.mark_gaps=last", "data.sessions=true"]) == {
        "mark_gaps": "last",
        "sessions": True,
    }
    assert read_data_terms([]) == {}

    for text in ("venue.fees.taker=0", "data.path=btc", "target=0.4", "mark_gaps=last"):
        kit.check_refused(lambda text=text: read_data_terms([text]), "can set only data.funding_")


def test_prune_says_what_goes_asks_and_deletes(capsys, results, monkeypatch):
    code, out, _ = call(capsys, "results", "prune", "--keep", "1", "--dry-run")
    assert code == 0
    assert "to delete: " in out

    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    code, out, _ = call(capsys, "results", "prune", "--keep", "1")
    assert code == 0
    assert out.splitlines()[-1] == "nothing was deleted"
    assert len(list(results.glob("*-*"))) == 3

    monkeypatch.setattr("typer.confirm", lambda *_, **__: True)
    code, out, _ = call(capsys, "results", "prune", "--keep", "1")
    assert code == 0
    assert out.splitlines()[-1] == "deleted 2"
    assert len(list(results.glob("*-*"))) == 1

    found = ask(capsys, "prune", "--keep", "0", "--yes")
    assert len(found["deleted"]) == 1
    assert call(capsys, "results", "list")[1] == "no results in results\n"
