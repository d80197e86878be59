"""``backtest serve``: what is answered, what is refused, and that nothing gets out of the store."""

from __future__ import annotations

import dataclasses
import gc
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.base.atomic_files import LOCK
from backtest.base.bounded_reads import read_small
from backtest.base.errors import ParameterError
from backtest.base.file_lock import hold_lock_file
from backtest.cli import main
from backtest.compare import Comparison
from backtest.engine.result import Result
from backtest.serve import server, site
from backtest.serve.live_study import find_state
from backtest.serve.server import Server
from backtest.store import card, compare_saved, list_results, listing, name_saved
from backtest.store.entry import take_stamp
from backtest.store.kinds import hash_manifest
from backtest.store.listing import ServedList
from backtest.strategies import Constant
from backtest.tune.journal import Batch, Journal
from backtest.tune.study_folder import OUTCOME, STUDY, TRIALS
from tests.tuning import seek, stand_in

ROOT = Path(__file__).parents[2]
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
HOSTILE = "<script>alert(1)<|script>\u202e'\" {{ 7 * 7 }} %2e%2e%2f-00112233445566aa"
SECRET = "the secret outside"


def live(leverage, days=40, venue=VENUE):
    market = bt.Market.sample(bars=24 * days)
    policy = Constant(leverage=leverage)
    return bt.run(market, policy, venue=venue, account=bt.Account(), compile=False)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a store of two runs that can be compared, one that cannot, a sweep, a comparison."""
    store = tmp_path_factory.mktemp("saved") / "results"
    market = bt.Market.sample(bars=24 * 40)
    terms = {"venue": VENUE, "account": bt.Account(), "compile": False}
    calm, bold, other = live(0.5), live(2.0), live(2.0, days=35)
    folders = [each.save(store).name for each in (calm, bold, other)]
    sweep = bt.sweep(market, Constant, {"leverage": [0.5, 1.0]}, **terms)
    both = bt.compare(market, {"calm": calm, "bold": bold}, draws=99, confidence=0.9, **terms)
    return store, [*folders, sweep.save(store).name, both.save(store).name]


@pytest.fixture
def store(saved, tmp_path):
    """Return a copy of the store, to be spoiled."""
    shutil.copytree(saved[0], tmp_path / "results")
    (tmp_path / "secret.txt").write_text(SECRET)
    return tmp_path / "results"


@pytest.fixture
def names(saved):
    return saved[1]


@pytest.fixture
def ask(store):
    """Return how to ask a server of the store; it listens on a free port of loopback."""
    with serving(store) as asked:
        yield asked


class serving:  # noqa: N801 - a context manager
    def __init__(self, root, host="127.0.0.1"):
        self.server = Server(root, host, 0)

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self.ask

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()

    def ask(self, path, method="GET", **headers):
        port = self.server.server_port
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            line.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in {"Host": f"127.0.0.1:{port}", **headers}.items():
                if value is not None:
                    line.putheader(name, value)
            line.endheaders()
            answer = line.getresponse()
            return answer, answer.read().decode()
        finally:
            line.close()

    def send(self, content):
        """Return the first line of the answer to bytes that may be no HTTP."""
        with socket.create_connection(self.server.server_address[:2], timeout=10) as line:
            line.sendall(content)
            line.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: line.recv(65_536), b"")).partition(b"\r\n")[0].decode()


def rows_of(text):
    """Return the rows of the list by the names of the folders that stand in them."""
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(data[1])["rows"]


# ---------------------------------------------------------------------------------- what is shown


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


@pytest.mark.slow
def test_the_risk_free_rate_of_a_saved_run_is_that_of_its_comparison():
    venue = dataclasses.replace(VENUE, interest_on="balance", cash_rate=0.05)
    results = [live(each, venue=venue) for each in (0.5, 2.0)]
    market = bt.Market.sample(bars=24 * 40)
    told = bt.compare(
        market, results, venue=venue, account=bt.Account(), draws=99, confidence=0.9, compile=False
    )
    np.testing.assert_array_equal(compare_as_served(results).risk_free, told.risk_free)
    assert told.risk_free.iloc[-1] > 0.0


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ((0, 2), "differs from Constant leverage=0.5 in market"),
        ((0,), "1 was chosen"),
        ((), "0 were chosen"),
        ((0, 0), "1 was chosen"),
        ((0, 3), "is a sweep"),
        ((0, "../../secret.txt"), "is not in the store"),
    ],
)
def test_what_cannot_be_compared_is_said(ask, names, chosen, words):
    keys = [quote(names[each] if isinstance(each, int) else each, safe="") for each in chosen]
    answer, text = ask("/compare?" + "&".join(f"run={key}" for key in keys))
    assert answer.status == 422
    assert words in text
    assert SECRET not in text


def test_a_loaded_comparison_is_reported(store, names, tmp_path):
    path = Comparison.load(store / names[4]).report(tmp_path / "page.md")
    assert path.read_text().startswith("# ")
    assert "calm against bold" in path.read_text()


# ------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt", "/result/../../secret.txt", "/result/..%2f..%2fsecret.txt",
        "/result/%2e%2e/%2e%2e/secret.txt", "/result/..%252f..%252fsecret.txt",
        "/result/%2fetc%2fpasswd", "/result//etc/passwd", "/result/..", "/result/.", "/result/",
        "/result", "/result/%00", "/result/{name}/manifest.json", "/result/{name}%2fmanifest.json",
        "/result/{name}/..", "/result/{name}%00", "/live/..%2f..%2fsecret.txt",
        "/progress/..%5c..%5csecret.txt", "/results", "/static/x.js", "/result/%ff%fe%80",
    ],
)  # fmt: skip
def test_no_address_leads_out_of_the_list(ask, names, path):
    answer, text = ask(path.replace("{name}", names[0]))
    assert answer.status == 404
    assert SECRET not in text
    assert "root:" not in text
    assert "Traceback" not in text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
def test_nothing_but_reading_is_answered(ask, method):
    answer, text = ask("/", method)
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD"
    assert "Only GET and HEAD" in text


def test_a_head_is_that_of_the_page_without_it(ask):
    answer, text = ask("/", "HEAD")
    assert (answer.status, text) == (200, "")
    assert int(answer.headers["Content-Length"]) > 1000
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("LOCALHOST:80", 200), ("127.0.0.1", 200), ("[::1]:9", 200),
        ("127.0.0.2", 200), ("evil.example", 421), ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421), ("evil@localhost", 421), ("192.168.0.1", 421),
        ("localhost:x", 421), ("localhost/x", 421), ("", 421), (None, 421), ("[::1", 421),
    ],
)  # fmt: skip
def test_only_the_names_of_loopback_are_answered(ask, host, status):
    """A name elsewhere may lead here (DNS rebinding); its pages must not read ours."""
    answer, text = ask("/", Host=host)
    assert answer.status == status
    if status == 421:
        assert "Constant" not in text


def test_bound_elsewhere_it_answers_numbers_and_its_own_name_only(saved, monkeypatch):
    server = Server(saved[0], "0.0.0.0", 0)
    server.server_close()
    assert server.allows("192.168.0.7:8642")
    assert server.allows("localhost")
    assert server.allows(socket.gethostname())
    assert not server.allows("evil.example")


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", 421),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", 413),
        (b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET x HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET http://[x/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 505),
        (b"\x00\xff\xfe nonsense\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_of_ours_is_refused(store, content, status):
    asked = serving(store)
    with asked:
        line = asked.send(content)
        assert line.split()[1] == str(status), line
        assert asked.ask("/")[0].status == 200


def test_a_mistake_of_ours_is_a_page_without_its_inner_things(ask, names, monkeypatch, capsys):
    monkeypatch.setattr(site, "load_saved", lambda folder: 1 / 0)
    answer, text = ask(f"/result/{names[0]}")
    assert answer.status == 500
    assert "ZeroDivisionError" in text
    assert "Traceback" not in text
    assert "line " not in text
    assert capsys.readouterr().err == "error: ZeroDivisionError: division by zero\n"


# ---------------------------------------------------------------------- damaged and hostile folders


def spoil(store, name, file, content):
    (store / name / file).write_bytes(content)


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("manifest.json", b'{"kind', "manifest.json must be JSON"),
        ("manifest.json", b"[]", "manifest.json must hold a JSON object, was a list"),
        ("manifest.json", b"{}", "manifest.json is of format None, not 2"),
        ("manifest.json", b'{"files": {}, "kind": "x"}', "manifest.json must have a known kind"),
        ("manifest.json", b'{"files": {}, "policy": 3}', "manifest.json is of format None, not 2"),
        ("manifest.json", b"[" * 100_000, "manifest.json must be JSON"),
        ("manifest.json", b"\xff\xfe\x00", "manifest.json must be JSON"),
        ("metrics.json", b"", "metrics.json is empty"),
        ("metrics.json", b'{"sharpe": 9.0}', "metrics.json was changed"),
        ("bars.parquet", None, "bars.parquet is missing"),
        ("manifest.json", None, "it holds no manifest.json and no study.json"),
    ],
)
def test_a_damaged_folder_is_listed_with_the_reason(ask, store, names, file, content, reason):
    if content is None:
        (store / names[0] / file).unlink()
    else:
        spoil(store, names[0], file, content)
    rows = [row for row in rows_of(ask("/")[1]) if row["kind"] == "damaged"]
    assert [row["cells"][0] for row in rows] == [names[0]]
    assert rows[0]["under"].startswith(reason)
    assert rows[0]["link"] == rows[0]["key"] == ""
    for path in (f"/result/{names[0]}", f"/compare?run={names[0]}&run={names[1]}"):
        answer, text = ask(path)
        assert answer.status == 422
        assert "the folder is damaged" in text


def test_links_are_not_followed(ask, store, names, tmp_path):
    outside = tmp_path / "outside-00112233445566aa"
    shutil.move(store / names[0], outside)
    (store / "link-00112233445566aa").symlink_to(outside)
    (store / "other").symlink_to(tmp_path)
    for file in ("manifest.json", "metrics.json"):
        (store / names[1] / file).unlink()
        (store / names[1] / file).symlink_to(tmp_path / "secret.txt")
    rows = {row["cells"][0]: row for row in rows_of(ask("/")[1]) if row["kind"] == "damaged"}
    assert set(rows) == {"link-00112233445566aa", "other", names[1]}
    assert all("is a link, which is not followed" in row["under"] for row in rows.values())
    for name in rows:
        answer, text = ask(f"/result/{name}")
        assert answer.status in (404, 422)
        assert SECRET not in text


def test_a_pipe_in_a_folder_does_not_hold_the_list_up(ask, store, names):
    (store / names[0] / "manifest.json").unlink()
    os.mkfifo(store / names[0] / "manifest.json")
    row = next(row for row in rows_of(ask("/")[1]) if row["kind"] == "damaged")
    assert row["under"] == "manifest.json must be a plain file, was a folder, a pipe or a device"


@pytest.mark.slow
def test_hostile_names_are_text(ask, store, names):
    manifest = json.loads((store / names[0] / "manifest.json").read_text())
    manifest["policy"]["text"] = HOSTILE + "x" * 10_000 + "\ud800"
    manifest["data"]["instrument"] = HOSTILE
    manifest["id"] = hash_manifest(manifest, "run")
    spoil(store, names[0], "manifest.json", json.dumps(manifest).encode())
    (store / names[0] / "provenance.json").unlink()
    (store / names[0]).rename(store / HOSTILE)
    odd = os.fsdecode(b"odd\xff-00112233445566bb")
    shutil.copytree(store / names[1], store / odd)
    _, text = ask("/")
    assert "<script>alert" not in text
    assert "\u202e" not in text
    assert "{{ 7" in text
    assert max(map(len, re.findall(r"x+", text))) <= 300
    for name, status in ((HOSTILE, 200), (odd, 422)):
        answer, page = ask("/result/" + quote(os.fsencode(name), safe=""))
        assert answer.status == status
        assert "<script>alert" not in page
    assert "the name of the folder is not UTF-8" in page
    assert "the name of the folder is not UTF-8" in [row["under"] for row in rows_of(text)]
    keys = [row["key"] for row in rows_of(text) if row["key"]]
    assert quote(HOSTILE, safe="") in keys
    query = "&".join(f"run={quote(key, safe='')}" for key in (names[1], quote(HOSTILE, safe="")))
    answer, page = ask(f"/compare?{query}")
    assert answer.status == 200
    assert "<script>alert" not in page
    assert "\u202e" not in page


def test_drafts_files_and_the_record_of_looks_are_not_listed(ask, store):
    for name in ("holdout-looks", ".saving-abc"):
        (store / name).mkdir()
    (store / ".saving-abc" / "manifest.json").write_text("{}")
    (store / "file-00112233445566aa").write_text("x")
    assert len(rows_of(ask("/")[1])) == 5
    assert ask("/result/.saving-abc")[0].status == 404


def test_the_list_follows_the_folders(ask, store, names):
    before = rows_of(ask("/")[1])
    shutil.rmtree(store / names[0])
    after = rows_of(ask("/")[1])
    assert len(after) == len(before) - 1
    assert ask(f"/result/{names[0]}")[0].status == 404
    shutil.rmtree(store)
    answer, text = ask("/")
    assert answer.status == 422
    assert "the folder of results does not exist" in text


def test_a_folder_is_read_again_only_when_it_has_changed(store, names, monkeypatch):
    listed = ServedList(store)
    first = listed.read()
    monkeypatch.setattr(listing, "read_entry", lambda *_, **__: pytest.fail("read again"))
    assert listed.read() == first


def test_the_list_is_that_of_the_terminal(store, names):
    (store / names[0] / "bars.parquet").write_bytes(b"cut")
    (store / "notes").mkdir()
    served = {name: note.entry for name, note in ServedList(store).read().items()}
    assert repr([served[name] for name in sorted(served)]) == repr(list_results(store))


def test_each_result_is_read_once_for_any_number_of_lists(store, names, tmp_path, monkeypatch):
    many = tmp_path / "many"
    many.mkdir()
    for k in range(200):
        folder = many / f"constant-{k:016x}"
        folder.mkdir()
        for file in (store / names[0]).iterdir():
            os.link(file, folder / file.name)
    read = []
    monkeypatch.setattr(card, "read_small", lambda path: read.append(path) or read_small(path))
    listed = ServedList(many)
    assert len(listed.read()) == 200
    first = len(read)
    assert 200 <= first <= 800
    assert len(listed.read()) == 200
    assert len(read) == first


# ------------------------------------------------------------------------------- a running study


def batch_of(scores, seconds, stage="search", errors=None):
    n = len(scores)
    numbers = np.array(scores, dtype=float)
    sets = {"x": np.arange(n, dtype=float) + seconds}
    metrics = {"sharpe": numbers}
    lines = errors or [""] * n
    return Batch(stage, seconds, sets, metrics, numbers[:, None], np.zeros(n), lines)


@pytest.fixture
def study(store, monkeypatch, tmp_path):
    """Return the folder of a study that has begun, its journal, and how to finish it at once.

    We are its process.
    """
    stand_in(put=monkeypatch.setattr)
    finished = seek(store=store, trials=40)
    folder = finished.folder
    aside = shutil.copytree(folder, tmp_path / "aside")
    shutil.rmtree(folder / TRIALS)
    (folder / OUTCOME).unlink()

    def finish():
        shutil.rmtree(folder / TRIALS)
        for part in (TRIALS, OUTCOME):
            (aside / part).rename(folder / part)
        return finished

    with hold_lock_file(folder / LOCK):
        yield folder, Journal(folder, finished.facts["id"]), finish


def test_a_running_study_is_followed_batch_by_batch(ask, study):
    folder, journal, finish = study

    def progress():
        answer, text = ask(f"/progress/{folder.name}")
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("application/json")
        return json.loads(text)

    row = next(row for row in rows_of(ask("/")[1]) if row["kind"] == "study")
    assert row["link"] == f"/live/{folder.name}"
    assert row["under"].startswith("running, ")
    now = progress()
    assert (now["state"], now["sets"], now["best"], now["rate"]) == ("running", 0, None, 0.0)
    journal.append(batch_of([1.0, 3.0, 2.0], 2.0))
    now = progress()
    assert (now["sets"], now["rate"], now["asked"]) == (3, 1.5, 40)
    assert now["best"]["score"] == 3.0
    assert now["best"]["values"] == {"x": 3.0}
    journal.append(batch_of([np.nan, 2.5], 4.0, errors=["it failed", ""]))
    journal.append(batch_of([9.0], 5.0, stage="part"))
    journal.append(batch_of([4.0], 8.0, stage="neighbour"))
    now = progress()
    assert (now["sets"], now["failed"], now["stage"]) == (6, 1, "neighbour")
    assert now["points"] == [[2, 3.0], [6, 4.0]]
    assert now["best"]["score"] == 4.0
    page = ask(f"/live/{folder.name}")
    assert page[0].status == 200
    assert "connect-src 'self'" in page[0].headers["Content-Security-Policy"]
    row = next(row for row in rows_of(ask("/")[1]) if row["kind"] == "study")
    assert row["order"][6] == 4.0, "the best so far stands in the list"
    best = finish().best
    assert progress()["state"] == "finished"
    row = next(row for row in rows_of(ask("/")[1]) if row["kind"] == "study")
    assert row["link"] == f"/result/{folder.name}"
    assert row["order"][6] == best["sharpe"]


def test_a_file_that_vanishes_while_it_is_listed_damages_nothing(study, monkeypatch):
    """A batch is written under another name and renamed: it may be gone when it is looked at."""
    folder, journal, _ = study
    journal.append(batch_of([1.0], 1.0))

    class Gone:
        name = ".draft-of-a-batch"

        def stat(self, follow_symlinks):
            raise FileNotFoundError(self.name)

    class Listing:
        def __init__(self, path):
            self.found = real(path)

        def __enter__(self):
            return iter([Gone(), *self.found])

        def __exit__(self, *error):
            self.found.close()

    real = os.scandir
    monkeypatch.setattr("backtest.store.entry.os.scandir", Listing)
    marks = take_stamp(folder)
    assert {STUDY, f"{TRIALS}/000000.parquet"} <= {name for name, *_ in marks}


def test_a_study_whose_process_has_ended_is_not_running(ask, study):
    folder, _, _ = study
    assert find_state(folder) == "running"
    (folder / LOCK).unlink()
    assert find_state(folder) == "stopped"
    for text in (f"{os.getpid()}\n", "", "nonsense"):  # whoever it names, nobody holds it
        (folder / LOCK).write_text(text)
        assert find_state(folder) == "stopped"
    answer, text = ask(f"/result/{folder.name}")
    assert answer.status == 422
    assert "must have evaluated a set to be reported" in text


def test_a_damaged_batch_is_said(ask, study):
    folder, journal, _ = study
    journal.append(batch_of([1.0], 1.0))
    path = folder / TRIALS / "000000.parquet"
    path.write_bytes(path.read_bytes()[:100])
    answer, text = ask(f"/progress/{folder.name}")
    assert answer.status == 422
    assert "a batch of trials is not a readable Parquet file" in json.loads(text)["error"]
    assert ask(f"/live/{folder.name}")[0].status == 422


def test_trials_that_were_deleted_are_read_again(ask, study):
    folder, journal, _ = study
    journal.append(batch_of([1.0, 5.0], 1.0))
    journal.append(batch_of([6.0], 2.0))
    assert json.loads(ask(f"/progress/{folder.name}")[1])["sets"] == 3
    (folder / TRIALS / "000001.parquet").unlink()
    now = json.loads(ask(f"/progress/{folder.name}")[1])
    assert (now["sets"], now["best"]["score"]) == (2, 5.0)


def test_only_studies_are_followed(ask, names):
    answer, text = ask(f"/live/{names[0]}")
    assert answer.status == 422
    assert "only a study can be followed, this is a run" in text


# ------------------------------------------------------------------------------------ the command


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
    opened = []

    def interrupt(server):
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "serve_forever", interrupt)
    monkeypatch.setattr("webbrowser.open", opened.append)
    was = gc.isenabled()
    flags = ("--results", str(saved[0]), "--port", "0", "--host", "0.0.0.0", "--open")
    assert main(["serve", *flags]) == 0
    assert gc.isenabled() >= was
    out, err = capsys.readouterr()
    assert "warning: everyone who reaches 0.0.0.0" in err
    assert "http://0.0.0.0:" in out
    for _ in range(100):
        if opened:
            break
        time.sleep(0.01)
    assert opened[0].startswith("http://127.0.0.1:")


def test_an_address_of_another_machine_is_refused(saved):
    with pytest.raises(ParameterError, match="must be free and of this machine"):
        Server(saved[0], "192.0.2.1", 0)


# ---------------------------------------------------------------------------- returns for others


@pytest.mark.slow
def test_the_daily_returns_of_the_manual_are_what_quantstats_takes():
    """One per day, by dates without a zone; of their mean and deviation comes our Sharpe ratio."""
    text = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    code = text.partition("days = result.returns")[2].partition("\n\nimport quantstats")[0]
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


# ------------------------------------------------------------------------- deletion, slow clients


@pytest.mark.parametrize("lost", ["has_ends", "read_small"])
def test_a_result_that_is_being_deleted_takes_no_other_page_with_it(
    ask, store, names, monkeypatch, lost
):
    """Before: 500 for the list and for every other result until the last file was gone."""
    gone = store / names[0]

    def vanish(path, *rest, **how):
        if gone in Path(path).parents:
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return real(path, *rest, **how)

    real = getattr(card, lost)
    monkeypatch.setattr(card, lost, vanish)
    monkeypatch.setattr(card, "is_untouched", lambda _: False)
    answer, text = ask("/")
    assert answer.status == 200
    assert {row["kind"] for row in rows_of(text)} >= {"run", "damaged"}
    assert ask(f"/result/{names[1]}")[0].status == 200
    assert ask(f"/result/{names[0]}")[0].status == 422


def test_a_result_that_goes_while_its_report_is_made_is_not_found(ask, store, names, monkeypatch):
    def load(folder):
        shutil.rmtree(folder)
        raise FileNotFoundError(2, "No such file or directory", str(folder))

    monkeypatch.setattr("backtest.serve.site.load_saved", load)
    assert ask(f"/result/{names[0]}")[0].status == 404
    assert ask("/")[0].status == 200


def test_a_study_that_is_deleted_while_it_runs_takes_no_other_page_with_it(ask, study):
    folder, _, _ = study
    assert ask("/")[0].status == 200
    (folder / STUDY).unlink()
    assert ask("/")[0].status == 200
    shutil.rmtree(folder)
    assert ask("/")[0].status == 200
    assert ask(f"/live/{folder.name}")[0].status == 404


def test_slow_clients_hold_only_so_many_threads(store, monkeypatch):
    """Before: a thread for every connection that says nothing, without end."""
    monkeypatch.setattr(server, "MOST_CLIENTS", 4)
    before = threading.active_count()
    with serving(store) as ask:
        slow = [socket.create_connection(ask.__self__.server.server_address) for _ in range(12)]
        for each in slow:
            each.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        told = [each.makefile("rb").readline() for each in slow[4:]]
        assert {line.split()[1] for line in told} == {b"503"}
        assert threading.active_count() <= before + 1 + 4
        answer, text = ask("/")
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert "Busy" in text
        ask.__self__.server.end_late(time.monotonic() + server.PATIENCE + 1)
        assert [each.makefile("rb").read() for each in slow[:4]] == [b""] * 4
        assert wait_for_an_answer(ask) == 200
        for each in slow:
            each.close()


def wait_for_an_answer(ask) -> int:
    """Return the status of the list once a thread is free."""
    for _ in range(500):
        status = ask("/")[0].status
        if status != 503:
            return status
        time.sleep(0.01)
    return 503


def test_a_client_that_has_sent_its_request_is_not_late(store):
    with serving(store) as ask:
        line = socket.create_connection(ask.__self__.server.server_address)
        line.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert line.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"
        line.close()
