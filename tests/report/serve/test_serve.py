"""``backtest serve``: what the list and the reports show, and the command."""

import gc
import http.client
import os
import queue
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.base.errors import ParameterError
from backtest.cli import main
from backtest.compare import Comparison
from backtest.engine.result import Result
from backtest.report.serve import site
from backtest.report.serve.server import Server
from backtest.store import compare_saved, name_saved
from backtest.strategies import Constant
from tests.report.serve.served import SECRET, VENUE, rows_of

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_the_list_shows_everything_with_its_measures(ask, store, names):
    answer, text = ask("/")
    assert answer.status == 200
    rows = rows_of(text)
    kinds = sorted(row["kind"] for row in rows)
    assert kinds == ["comparison", "run", "run", "run", "sweep"]
    row = next(row for row in rows if names[1] in row["under"])
    metrics = Result.load(store / names[1]).metrics
    assert row["cells"][0] == "Constant(leverage=2.0)"
    assert row["cells"][3] == "2023-01-01\nto 2023-02-10"
    assert row["order"][6] == metrics["sharpe"]
    assert row["cells"][6] == f"{metrics['sharpe']:.2f}"
    assert row["link"] == f"/result/{names[1]}"


def test_the_list_shows_the_best_of_a_sweep_and_of_a_comparison(ask, store, names):
    """A sweep's by Sharpe ratio, a comparison's by growth, as ``backtest results list`` does."""
    rows = {row["kind"]: row for row in rows_of(ask("/")[1]) if row["kind"] != "run"}
    best = bt.Sweep.load(store / names[3]).best("sharpe")
    found = Comparison.load(store / names[4])
    grown = found.table.loc[found.order[0]]
    for kind, measures in (("sweep", best), ("comparison", grown)):
        order = rows[kind]["order"]
        assert order[4:9] == [
            measures[name]
            for name in ("cagr", "volatility", "sharpe", "max_drawdown", "liquidations")
        ]
    assert "those of its best set by Sharpe ratio" in ask("/")[1]


@pytest.mark.slow
def test_every_report_is_that_of_the_command_with_a_way_back(ask, names, store, monkeypatch):
    for name in names:
        answer, text = ask(f"/result/{name}")
        assert answer.status == 200
        assert '<a href="/">All results</a>' in text
        header = answer.headers["Content-Security-Policy"]
        inside = re.search(r'Content-Security-Policy" content="(.*?)"', text)[1]
        assert header == inside.replace("&#39;", "'") + "; frame-ancestors 'none'"
    monkeypatch.setattr(site, "load_saved", lambda folder: pytest.fail("it was made before"))
    assert ask(f"/result/{names[-1]}")[1] == text


@pytest.mark.slow
def test_the_server_reads_no_data_that_a_manifest_names(ask, names, monkeypatch):
    """Whoever wrote a folder of the store says where its data are: that may be any file."""
    for name in ("load", "sample"):
        monkeypatch.setattr(bt.Market, name, lambda *_, **__: pytest.fail("data were read"))
    for name in names:
        answer, text = ask(f"/result/{name}")
        assert answer.status == 200
        assert "The data were not read for this page" in text


def test_a_report_is_made_again_when_its_folder_has_changed(ask, store, names):
    assert ask(f"/result/{names[0]}")[0].status == 200
    with (store / names[0] / "bars.parquet").open("ab") as file:
        file.write(b"x")
    answer, text = ask(f"/result/{names[0]}")
    assert answer.status == 422
    assert "bars.parquet is truncated or not a Parquet file" in text
    assert "Traceback" not in text


def test_few_reports_are_kept_and_the_oldest_go_first(monkeypatch):
    monkeypatch.setattr(site, "MOST_PAGES", 2)
    monkeypatch.setattr(site, "MOST_BYTES", 10)
    cache = site.PageCache()
    made = []

    def make(key, size):
        return cache.get(key, lambda: made.append(key) or bytes(size))

    for key in ("a", "b", "a", "c", "a", "b"):
        make(key, 3)
    assert made == ["a", "b", "c", "b"]
    make("large", 50)
    assert len(cache) == 1
    assert cache.size == 50


def compare_as_served(results):
    return compare_saved(dict(zip(name_saved(results), results, strict=True)), draws=site.DRAWS)


@pytest.mark.slow
def test_runs_are_compared_as_bt_compare_does(ask, store, names):
    calm, bold = (Result.load(store / name) for name in names[:2])
    found = compare_as_served([calm, bold])
    market = bt.Market.sample(bars=24 * 40)
    told = bt.compare(
        market, [calm, bold], venue=VENUE, account=bt.Account(), draws=found.draws, compile=False
    )
    pd.testing.assert_frame_equal(found.pairs, told.pairs)
    pd.testing.assert_frame_equal(found.table, told.table)
    assert dict(found.manifest) == dict(told.manifest)
    answer, text = ask(f"/compare?run={names[0]}&run={names[1]}")
    assert answer.status == 200
    assert "Constant leverage=0.5 against Constant leverage=2.0" in text
    assert "writes this report from" not in text


@pytest.mark.parametrize(("chosen", "words"), [
    ((0, 2), "differs from Constant leverage=0.5 in market"),
    ((0,), "1 was chosen"),
    ((), "0 were chosen"),
    ((0, 0), "1 was chosen"),
    ((0, 3), "is a sweep"),
    ((0, "../../secret.txt"), "is not in the store"),
])  # fmt: skip
def test_what_cannot_be_compared_is_said(ask, names, chosen, words):
    keys = [quote(names[each] if isinstance(each, int) else each, safe="") for each in chosen]
    answer, text = ask("/compare?" + "&".join(f"run={key}" for key in keys))
    assert answer.status == 422
    assert words in text
    assert SECRET not in text


def start(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "backtest", "serve", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


@pytest.mark.slow
def test_the_command_serves_until_it_is_interrupted(saved):
    process = start("--results", str(saved[0]), "--port", "0")
    try:
        line = process.stdout.readline()
        port = int(re.search(r"http://127\.0\.0\.1:(\d+)/", line)[1])
        asked = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        asked.request("GET", "/")
        assert asked.getresponse().status == 200
        asked.close()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err) == (0, "", "")
    finally:
        process.kill()


@pytest.mark.slow
def test_a_taken_port_and_a_missing_folder_are_said(saved, tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--results", str(saved[0]), "--port", str(port)]) == 2
    err = capsys.readouterr().err
    assert f"127.0.0.1:{port} is not: Address already in use" in err
    assert "choose another --port" in err
    assert main(["serve", "--results", str(tmp_path / "none")]) == 2
    assert "the folder of results must exist" in capsys.readouterr().err
    for flags in (["--port", "70000"], ["--host", "no such host"]):
        assert main(["serve", "--results", str(saved[0]), *flags]) == 2
        assert flags[0] in capsys.readouterr().err


def test_bound_elsewhere_it_warns(saved, monkeypatch, capsys):
    opened = queue.SimpleQueue()

    def interrupt(server):
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "serve_forever", interrupt)
    monkeypatch.setattr("webbrowser.open", opened.put)
    was = gc.isenabled()
    flags = ("--results", str(saved[0]), "--port", "0", "--host", "0.0.0.0", "--open")
    assert main(["serve", *flags]) == 0
    assert gc.isenabled() >= was
    out, err = capsys.readouterr()
    assert "warning: everyone who reaches 0.0.0.0" in err
    assert "http://0.0.0.0:" in out
    assert opened.get(timeout=60).startswith("http://127.0.0.1:")


def test_an_address_of_another_machine_is_refused(saved):
    with pytest.raises(ParameterError, match="must be free and of this machine"):
        Server(saved[0], "192.0.2.1", 0)


@pytest.mark.slow
def test_the_daily_returns_of_the_manual_are_what_quantstats_takes():
    """One per day, by dates without a zone; of their mean and deviation comes our Sharpe ratio."""
    text = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    code = text.partition("days = result.returns")[2].partition("\n```")[0]
    market = bt.Market.sample(bars=24 * 40)
    terms = {"venue": VENUE, "account": bt.Account(), "compile": False}
    made = []
    for sampling in ("1d", "4h"):
        result = bt.run(market, Constant(leverage=2.0), sampling=sampling, **terms)
        names = {"result": result}
        exec("days = result.returns" + code, names)  # what the manual says
        made.append(names["daily"])
    whole = bt.run(market, Constant(leverage=2.0), **terms)
    daily = made[0]
    assert daily.index.tz is None
    assert daily.index.equals(pd.date_range("2023-01-01", periods=40, unit=daily.index.unit))
    assert daily.mean() / daily.std() * np.sqrt(365.0) == pytest.approx(whole.metrics["sharpe"])
    pd.testing.assert_series_equal(*made, check_freq=False)
