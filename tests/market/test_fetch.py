"""Fetching from the public archive: what arrives, what is refused, what a killed fetch leaves."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import backtest as bt
from backtest.base import atomic_files
from backtest.base.errors import DataError, ParameterError
from backtest.base.units import DAY, HOUR, MINUTE, to_nanoseconds
from backtest.cli import main
from backtest.cli.progress import Meter
from backtest.market.fetch import RetryPolicy, fetch_market, read_request, target_folder
from backtest.market.fetch.backoff import Canceled, Retrier, TransientFailure
from backtest.market.fetch.binance_archive import months, read_rows, unpack
from backtest.market.fetch.download import check_address, find_unreachable, read_wait
from backtest.market.fetch.gaps import find_bar_gaps, find_end, find_funding_gaps, longest_complete
from backtest.market.fetch.stored_days import list_stored, merge_rows, read_stored
from backtest.market.read.packed_files import Content
from backtest.market.tables.frames import TimedTable
from tests.fast_cases import every_nth
from tests.replay import HEADER, Replay, epoch, kline_text, klines, settlements

pytest.importorskip("httpx", reason="downloads need httpx: pip install 'leverage-backtest[fetch]'")

ROOT = Path(__file__).parents[2]
QUICK = RetryPolicy(attempts=4, first=0.001, longest=0.01, deadline=5.0, silence=2.0)


def at(text: str) -> int:
    return to_nanoseconds(text, where="test")


NOW = at("2024-03-20T15:00")


@pytest.fixture(scope="module")
def quarter() -> Replay:
    """January and February by the month, March by the day; funding by the month only."""
    days = [f"2024-03-{day:02d}" for day in range(1, 20)]
    return Replay().publish("2024-01", "2024-02", *days)


@pytest.fixture
def server(quarter: Replay) -> Iterator[Replay]:
    """The quarter, to be changed at will."""
    replay = Replay()
    replay.files = dict(quarter.files)
    with replay.serve():
        yield replay


def fetch(folder: Path, server: Replay, start="2024-01-01", end="2024-03-01", **how):
    options = {
        name: how.pop(name)
        for name in ("interval", "without", "market", "source", "symbol")
        if name in how
    }
    symbol = options.pop("symbol", "BTCUSDT")
    request = read_request(symbol, start=start, end=end, **{"interval": "1h", **options})
    settings = {"now": NOW, "base_url": server.url, "policy": QUICK, **how}
    return fetch_market(folder, request, **settings)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def asked_for(server: Replay, ending: str = ".zip") -> int:
    return sum(count for path, count in server.asked.items() if path.endswith(ending))


@pytest.fixture(scope="module")
def calm(quarter: Replay, tmp_path_factory) -> dict[str, bytes]:
    """What a fetch of January and February stores when nothing misbehaves."""
    folder = tmp_path_factory.mktemp("calm") / "btc"
    with quarter.serve():
        fetch(folder, quarter)
    return content(folder)


# what arrives


def test_a_fetch_is_a_market_with_every_row_of_the_venue(tmp_path, server):
    fetched = fetch(tmp_path / "btc", server)
    market = bt.Market.load(tmp_path / "btc")
    rows = klines(epoch("2024-01-01"), epoch("2024-03-01"), server.length)
    assert fetched.facts["rows"] == {"bars": 1440, "mark": 1440, "funding": 180}
    assert market.instrument == "BTCUSDT"
    assert market.interval == HOUR
    assert (market.start, market.end) == (at("2024-01-01"), at("2024-03-01"))
    np.testing.assert_array_equal(market.close, np.round(rows[:, 4], 2))
    np.testing.assert_array_equal(market.volume, np.round(rows[:, 5], 3))
    np.testing.assert_array_equal(market.mark_close - market.close, np.full(1440, 3.0).round(2))
    stamps = settlements(epoch("2024-01-01"), epoch("2024-03-01"))
    np.testing.assert_array_equal(market.funding_time, stamps[:, 0].astype(int) * 10**6)
    np.testing.assert_array_equal(market.funding_rate, stamps[:, 1])
    assert market.filled == {}


def test_a_fetch_writes_what_saving_its_market_writes(tmp_path, server):
    fetch(tmp_path / "btc", server)
    bt.Market.load(tmp_path / "btc").save(tmp_path / "saved")
    mine = content(tmp_path / "btc")
    notes = mine.pop("fetch.json")
    assert mine == content(tmp_path / "saved")
    assert json.loads(notes)["sha256"] == {
        name: hashlib.sha256(data).hexdigest() for name, data in mine.items()
    }


def test_the_notes_name_every_file_with_the_hash_that_was_checked(tmp_path, server):
    facts = fetch(tmp_path / "btc", server).facts
    assert len(facts["files"]) == 6
    for file in facts["files"]:
        assert file["sha256"] == hashlib.sha256(server.files[file["path"]]).hexdigest()


def test_nothing_but_what_was_asked_for_is_stored(tmp_path, server):
    fetch(tmp_path / "btc", server, "2024-01-10", "2024-02-05", without=("mark",))
    market = bt.Market.load(tmp_path / "btc")
    assert (market.start, market.end) == (at("2024-01-10"), at("2024-02-05"))
    assert market.funding_time.size == 26 * 3
    assert not market.has_mark
    assert not any("markPrice" in path for path in server.asked)


@pytest.mark.slow
def test_a_month_that_is_not_over_is_taken_by_the_day(tmp_path, server):
    fetch(tmp_path / "btc", server, "2024-02-20", "2024-03-20", without=("funding",))
    assert bt.Market.load(tmp_path / "btc").end == at("2024-03-20")
    assert server.asked[server.path("bars", "2024-03-05")] == 1
    assert not any("-2024-03.zip" in path for path in server.asked)


@pytest.mark.slow
def test_without_an_end_a_fetch_goes_as_far_as_all_kinds_reach(tmp_path, server):
    assert fetch(tmp_path / "all", server, end=None).facts["to"] == "2024-03-01"
    bars = fetch(tmp_path / "bars", server, end=None, without=("funding",))
    assert bars.facts["to"] == "2024-03-20"


def test_days_that_a_month_lacks_come_from_their_own_files(tmp_path, server, calm):
    """As of BTCUSDT in 2022: binance-public-data, issue 346."""
    rows = klines(epoch("2024-01-01"), epoch("2024-02-01"), server.length)
    lacking = rows[(rows[:, 0] < epoch("2024-01-16")) | (rows[:, 0] >= epoch("2024-01-18"))]
    server.put("bars", "2024-01", kline_text(lacking, server.length))
    for day in ("2024-01-16", "2024-01-17"):
        server.put("bars", day, server.text("bars", day))
    fetched = fetch(tmp_path / "mended", server)
    assert content(tmp_path / "mended")["bars.parquet"] == calm["bars.parquet"]
    assert sum("/daily/" in file["path"] for file in fetched.facts["files"]) == 2


def test_stamps_may_go_from_milliseconds_to_microseconds_between_months(tmp_path, server, calm):
    server.put("bars", "2024-02", server.text("bars", "2024-02", factor=1000))
    fetch(tmp_path / "after", server)
    assert content(tmp_path / "after")["bars.parquet"] == calm["bars.parquet"]


def test_stamps_in_two_units_within_one_file_are_refused(tmp_path, server):
    text = server.text("bars", "2024-02").decode().splitlines()
    text[5] = text[5].replace(",", "000,", 1)
    server.put("bars", "2024-02", "\n".join(text).encode())
    with pytest.raises(DataError, match="one unit"):
        fetch(tmp_path / "btc", server)


@pytest.mark.parametrize("change", ["none", "order", "spelling"])
def test_a_header_may_be_absent_or_in_another_order(tmp_path, server, calm, change):
    text = server.text("bars", "2024-02", header=change != "none")
    if change == "order":
        cells = [line.split(",") for line in text.decode().splitlines()]
        text = "\n".join(",".join(row[::-1]) for row in cells).encode()
    if change == "spelling":
        text = text.replace(b"open_time", b"Open Time", 1)
    server.put("bars", "2024-02", text)
    fetch(tmp_path / "after", server)
    assert content(tmp_path / "after")["bars.parquet"] == calm["bars.parquet"]


def test_a_header_with_other_names_is_refused_with_both(tmp_path, server):
    server.put("bars", "2024-02", server.text("bars", "2024-02").replace(b",close,", b",last,", 1))
    with pytest.raises(DataError, match="a column 'close' is needed"):
        fetch(tmp_path / "btc", server)


def test_an_empty_month_is_a_gap_with_its_name(tmp_path, server):
    for text in (b"", HEADER.encode() + b"\n"):
        server.put("bars", "2024-02", text)
        with pytest.raises(DataError, match="696 bars from 2024-02-01 to 2024-03-01"):
            fetch(tmp_path / "btc", server)


# what misbehaves


@pytest.mark.parametrize(
    "fault",
    every_nth(
        ["429:0", "429", "418:0", "500", "503", "truncated", "checksum", "garbage", "slow:0.02"], 3
    ),
)
def test_a_failure_that_passes_changes_nothing(tmp_path, server, calm, fault):
    beside = ".CHECKSUM" if fault == "checksum" else ""
    for kind in ("bars", "funding"):
        server.faults[server.path(kind, "2024-02") + beside] = [fault, fault]
    policy = replace(QUICK, deadline=0.2) if fault.startswith("slow") else QUICK
    fetched = fetch(tmp_path / "rough", server, policy=policy)
    assert fetched.retries == 4
    assert content(tmp_path / "rough") == calm


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("500", "the HTTP status was 500"),
        ("truncated", "RemoteProtocolError"),
        ("checksum", "its checksum says"),
        ("garbage", "its checksum says"),
    ],
)
def test_a_failure_that_stays_is_told_and_what_has_arrived_is_kept(
    tmp_path, server, calm, fault, said
):
    path = server.path("bars", "2024-02") + (".CHECKSUM" if fault == "checksum" else "")
    server.faults[path] = [fault] * 99
    with pytest.raises(DataError, match=f"the download failed 4 times.*{said}") as caught:
        fetch(tmp_path / "btc", server, parallel=1)
    assert "2024-02" in caught.value.where
    assert {path.name for path in (tmp_path / "btc").iterdir()} == {".partial"}
    server.faults.clear()
    server.asked.clear()
    fetch(tmp_path / "btc", server)
    assert not any("-2024-01.zip" in path for path in server.asked)
    assert content(tmp_path / "btc") == calm


def test_retry_after_is_honoured_by_all_threads():
    now, waited = [0.0], []

    def pause(seconds):
        waited.append(seconds)
        now[0] += seconds

    answers = iter([TransientFailure("429", 7.0), TransientFailure("500"), None])

    def ask():
        answer = next(answers)
        if answer is not None:
            raise answer
        return "there"

    policy = RetryPolicy(first=1.0, seed=3)
    retrier = Retrier(policy, pause, lambda: now[0])
    assert retrier.call("a", ask) == "there"
    assert waited == [7.0, policy.delay("a", 1)]
    retrier = Retrier(policy, pause, lambda: now[0])
    retrier._quiet_until = now[0] + 5.0  # another thread was told to wait
    assert retrier.call("b", lambda: 1) == 1
    assert waited[-1] == 5.0


def test_a_venue_that_asks_for_an_hour_is_left_alone(tmp_path, server):
    server.faults[server.path("bars", "2024-01")] = ["429:3600"]
    with pytest.raises(DataError, match="a wait of 3600 s"):
        fetch(tmp_path / "btc", server)


def test_waits_grow_differ_and_repeat():
    policy = RetryPolicy(first=1.0, longest=10.0, seed=1)
    waits = [policy.delay("x", attempt) for attempt in range(6)]
    assert waits == [policy.delay("x", attempt) for attempt in range(6)]
    assert all(2**n / 2 <= wait <= min(2**n, 10.0) for n, wait in enumerate(waits[:4]))
    assert max(waits) <= 10.0
    assert waits != [RetryPolicy(seed=2).delay("x", attempt) for attempt in range(6)]


def test_an_error_of_one_thread_wakes_those_that_wait():
    stop = threading.Event()
    stop.set()
    retrier = Retrier(RetryPolicy(first=60.0), stop.wait)

    def ask():
        raise TransientFailure("500")

    with pytest.raises(Canceled):
        retrier.call("a", ask)


def test_a_refusal_is_not_asked_again(tmp_path, server):
    server.faults[server.path("bars", "2024-01")] = ["403"] * 9
    with pytest.raises(DataError, match="was 403") as caught:
        fetch(tmp_path / "btc", server, parallel=1)
    assert "--base-url" in caught.value.cure
    assert server.asked[server.path("bars", "2024-01")] == 1


def refuse_to_connect() -> None:
    raise TransientFailure("ConnectError: Connection refused", is_away=True)


def test_a_server_that_is_not_there_is_said_so_after_one_more_attempt(tmp_path, server):
    away = Replay()
    away.url = "http://127.0.0.1:9"
    told: list[str] = []
    with pytest.raises(DataError, match=r"cannot reach the server: ConnectError: .*111"):
        fetch(tmp_path / "btc", away, notice=told.append)
    assert not (tmp_path / "btc").exists()
    assert len(told) == 1  # though several files were asked for
    assert told[0].startswith("http://127.0.0.1:9/data/")
    assert "attempt 2 of 2" in told[0]


def test_a_server_that_has_answered_before_is_waited_for():
    told: list[str] = []
    retrier = Retrier(QUICK, pause=lambda _: None, notice=told.append)
    assert retrier.call("a", lambda: 1) == 1
    with pytest.raises(DataError, match="the download failed 4 times: ConnectError"):
        retrier.call("b", refuse_to_connect)
    assert retrier.retries == 3


def test_a_server_that_answers_late_is_no_server_that_is_away():
    answers = iter(
        [
            TransientFailure("the HTTP status was 503"),
            TransientFailure("x", is_away=True),
            TransientFailure("the end"),
        ]
    )

    def ask() -> int:
        answer = next(answers, None)
        if answer is not None:
            raise answer
        return 7

    assert Retrier(QUICK, pause=lambda _: None).call("a", ask) == 7


@pytest.mark.parametrize(("error", "away"), [
    (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), True),
    (socket.gaierror(-2, "Name or service not known"), True),
    (OSError(errno.ENETUNREACH, "Network is unreachable"), True),
    (ConnectionResetError(errno.ECONNRESET, "reset"), False),
    (TimeoutError("slow"), False),
    (OSError(errno.EPIPE, "Broken pipe"), False),
])  # fmt: skip
def test_what_never_reached_a_server_is_told_from_what_broke_on_the_way(error, away):
    wrapped = RuntimeError("of a library")
    wrapped.__cause__ = error
    assert (find_unreachable(wrapped) is not None) is away


def test_each_wait_is_told_with_what_failed_and_how_long_it_is(tmp_path, server):
    server.faults[server.path("bars", "2024-01")] = ["503", "429:0"]
    told: list[str] = []
    fetch(tmp_path / "btc", server, notice=told.append, parallel=1)
    assert len(told) == 2
    assert "the HTTP status was 503; asking again in 0.0 s, attempt 2 of 4" in told[0]
    assert "the HTTP status was 429; asking again in 0.0 s, attempt 3 of 4" in told[1]
    assert all(server.path("bars", "2024-01") in text for text in told)


def test_the_command_tells_what_it_waits_for_and_gives_up_with_code_two(tmp_path, capsys):
    code, out, err = call(
        capsys, "BTCUSDT", "--from", "2024-01-01", "--to", "2024-02-01", "--interval", "1h",
        "--out", tmp_path / "btc", "--base-url", "http://127.0.0.1:9",
    )  # fmt: skip
    assert (code, out) == (2, "")
    assert err.count("asking again in") == 1
    assert err.count("error: cannot reach the server") == 1
    assert "--base-url" in err


def test_the_meter_shows_trouble_until_there_is_progress():
    meter = Meter("fetching", "days", "asking the venue")
    meter.set_note("the HTTP status was 503")
    assert meter.note == "the HTTP status was 503"
    meter.report(0, 31)
    assert meter.note == "the HTTP status was 503"
    meter.report(3, 31)
    assert meter.note == ""


def test_a_body_without_end_is_cut_off(tmp_path, server, monkeypatch):
    monkeypatch.setattr("backtest.market.fetch.binance_archive.LARGEST_ZIP", 100_000)
    server.faults[server.path("bars", "2024-01")] = ["huge:200000"]
    with pytest.raises(DataError, match="at most 100,000 bytes"):
        fetch(tmp_path / "btc", server)


@pytest.mark.parametrize(
    ("checksum", "said"),
    [
        (None, "the archive has no checksum"),
        (b"not a hash  x.zip\n", "must be a SHA-256"),
        (b"0" * 64 + b"  other.zip\n", "must be a SHA-256"),
        (b"0" * 64 + b"  BTCUSDT-1h-2024-01.zip\n", "its checksum says 0000"),
    ],
)
def test_a_file_without_its_own_checksum_is_refused(tmp_path, server, checksum, said):
    path = server.path("bars", "2024-01") + ".CHECKSUM"
    if checksum is None:
        del server.files[path]
    else:
        server.files[path] = checksum
    with pytest.raises(DataError, match=said):
        fetch(tmp_path / "btc", server)


# zip files


def zip_of(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return stream.getvalue()


def rename(content: bytes, old: bytes, new: bytes) -> bytes:
    assert len(old) == len(new)
    return content.replace(old, new)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (zip_of(**{"a.csv": b"1", "b.csv": b"2"}), "found 2: a.csv, b.csv"),
        (zip_of(**{"../../a.csv": b"1"}), "'../../a.csv' leads out of its folder"),
        (zip_of(**{"/etc/passwd": b"1"}), "'/etc/passwd' leads out of its folder"),
        (zip_of(**{"b.csv": b"1"}), "must hold a.csv, holds 'b.csv'"),
        (zip_of(), "found 0: nothing"),
        (zip_of(**{"a.csv": b"1"})[:-5], "not a zip file"),
        (b"", "not a zip file"),
        (b"PK\x05\x06" + bytes(18), "found 0: nothing"),
        (zip_of(**{"a.csv": bytes(1 << 20)}), "at most 0 MiB"),
        (zip_of(**{str(n) * 9: b"" for n in range(2000)}), "has 2000 entries"),
        (zip_of(**{"a.csv": b"x" * 99}).replace(b"a.csv", b"a.csw", 1), "was not"),
    ],
)
def test_a_zip_file_of_anything_but_its_one_member_is_refused(content, said, monkeypatch):
    monkeypatch.setattr("backtest.market.fetch.binance_archive.LARGEST_TEXT", 1000)
    with pytest.raises(DataError, match=said):
        unpack(content, "a.zip", "test")


def test_an_encrypted_or_damaged_member_is_refused():
    content = bytearray(zip_of(**{"a.csv": b"x,y,z\n" * 50}))
    place = content.rfind(b"PK\x01\x02")
    locked = bytearray(content)
    struct.pack_into("<H", locked, place + 8, 1)
    with pytest.raises(DataError, match="needs a password"):
        unpack(bytes(locked), "a.zip", "test")
    content[40] ^= 0xFF
    with pytest.raises(DataError, match="must be whole and readable"):
        unpack(bytes(content), "a.zip", "test")


def test_a_member_that_lies_about_its_size_is_cut_off(monkeypatch):
    monkeypatch.setattr("backtest.market.fetch.binance_archive.LARGEST_TEXT", 1000)
    content = bytearray(zip_of(**{"a.csv": bytes(100_000)}))
    place = content.rfind(b"PK\x01\x02")
    struct.pack_into("<I", content, place + 24, 10)
    with pytest.raises(DataError, match="whole"):
        unpack(bytes(content), "a.zip", "test")


@pytest.mark.slow
def test_a_bomb_in_the_archive_writes_nothing(tmp_path, server):
    path = server.path("bars", "2024-01")
    name = path.rpartition("/")[2].replace(".zip", ".csv")
    server.put_zip(path, zip_of(**{name: bytes(70 << 20)}))
    with pytest.raises(DataError, match=r"at most 64 MiB|unpack to at most"):
        fetch(tmp_path / "btc", server, parallel=1)
    assert not (tmp_path / "btc" / "bars.parquet").exists()


# texts


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1704067200000,1,2,0.5", "as many cells as the header, 12, found 4"),
        ("1704067200000,1,2,0.5,=1+1,3,0,0,0,0,0,0", "close must be numbers, was '=1\\+1'"),
        ("1704067200000,1,2,0.5,,3,0,0,0,0,0,0", "numbers where they are needed, close lacks"),
        ("17,1,2,0.5,1,3,0,0,0,0,0,0", "epochs"),
        ("1704067200000,1,2,0.5,1," + "9" * 2_000_000 + "x,0,0,0,0,0,0", "a line must be at most"),
    ],
)
def test_a_row_that_cannot_be_read_is_refused(line, said):
    with pytest.raises(DataError, match=said):
        read_rows(Content("a.csv", f"{HEADER}\n{line}\n".encode()), "bars", "test")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (klines(epoch("2024-01-31"), epoch("2024-02-03"), 3_600_000), "2024-01-31 in 24 of 72"),
        (klines(epoch("2024-02-01") + 60_000, epoch("2024-02-02"), 3_600_000), "2024-02-01 00:01"),
    ],
)
def test_rows_of_another_month_or_off_the_grid_are_refused(tmp_path, server, rows, said):
    server.put("bars", "2024-02", kline_text(rows, server.length))
    with pytest.raises(DataError, match=said):
        fetch(tmp_path / "btc", server)


def test_rows_that_are_there_twice_count_once_and_may_not_differ(tmp_path, server, calm):
    rows = klines(epoch("2024-02-01"), epoch("2024-03-01"), server.length)
    twice = np.concatenate([rows[:50], rows[20:], rows[-9:]])
    server.put("bars", "2024-02", kline_text(twice, server.length))
    fetch(tmp_path / "twice", server)
    assert content(tmp_path / "twice")["bars.parquet"] == calm["bars.parquet"]
    twice[60, 4] += 1.0
    server.put("bars", "2024-02", kline_text(twice, server.length))
    with pytest.raises(DataError, match=r"one close, 2024-02-02 06:00 UTC has 3\d+\.\d+ and 3"):
        fetch(tmp_path / "torn", server)


def test_bars_that_cannot_be_are_refused_and_nothing_is_stored(tmp_path, server):
    rows = klines(epoch("2024-02-01"), epoch("2024-03-01"), server.length)
    rows[7, 2] = 1.0
    server.put("bars", "2024-02", kline_text(rows, server.length))
    with pytest.raises(DataError, match="high must be at least open and close"):
        fetch(tmp_path / "btc", server)
    assert {path.name for path in (tmp_path / "btc").iterdir()} == {".partial"}


# gaps


@pytest.fixture
def torn(server: Replay) -> Replay:
    """Bars lack hours, mark prices a day, funding two settlements."""
    rows = klines(epoch("2024-01-01"), epoch("2024-02-01"), server.length)
    kept = (rows[:, 0] < epoch("2024-01-05T03:00")) | (rows[:, 0] >= epoch("2024-01-05T06:00"))
    server.put("bars", "2024-01", kline_text(rows[kept], server.length))
    rows = klines(epoch("2024-02-01"), epoch("2024-03-01"), server.length, "mark")
    kept = (rows[:, 0] < epoch("2024-02-02")) | (rows[:, 0] >= epoch("2024-02-03"))
    server.put("mark", "2024-02", kline_text(rows[kept], server.length))
    text = server.text("funding", "2024-02").decode().splitlines()
    server.put("funding", "2024-02", "\n".join([*text[:10], *text[12:]]).encode())
    return server


def test_gaps_are_named_all_at_once_with_the_nearest_whole_span(tmp_path, torn):
    with pytest.raises(DataError) as caught:
        fetch(tmp_path / "btc", torn)
    text = str(caught.value)
    assert "3 bars from 2024-01-05 03:00 to 2024-01-05 06:00" in text
    assert "24 mark bars from 2024-02-02 to 2024-02-03" in text
    assert "2 settlements from 2024-02-04 to 2024-02-04 16:00" in text
    assert "--from 2024-01-06 --to 2024-02-02" in text
    assert "--without" not in text  # bars lack something, too
    torn.asked.clear()
    fetch(tmp_path / "btc", torn, "2024-01-06", "2024-02-02")
    assert torn.asked[torn.path("funding", "2024-01")] == 0
    assert bt.Market.load(tmp_path / "btc").n_bars == 27 * 24


def test_accepted_gaps_are_stored_as_they_are_and_noted(tmp_path, torn):
    facts = fetch(tmp_path / "btc", torn, accept_gaps=True).facts
    assert [gap["kind"] for gap in facts["gaps"]] == ["bars", "mark", "funding"]
    assert facts["rows"] == {"bars": 1437, "mark": 1416, "funding": 178}
    with pytest.raises(DataError, match="3 missing in 1 gap"):
        bt.Market.load(tmp_path / "btc")
    span = ("2024-01-06", "2024-03-01")
    market = bt.Market.load(tmp_path / "btc", between=span, mark_gaps="last", funding_gaps="zero")
    assert market.n_bars == 55 * 24


def test_accepted_gaps_do_not_let_wrong_prices_in(tmp_path, torn):
    rows = klines(epoch("2024-02-01"), epoch("2024-03-01"), torn.length)
    rows[7, 2] = 1.0
    torn.put("bars", "2024-02", kline_text(rows, torn.length))
    with pytest.raises(DataError, match="high must be at least"):
        fetch(tmp_path / "btc", torn, accept_gaps=True)


@pytest.mark.slow
def test_holes_are_asked_for_again_by_the_next_fetch(tmp_path, torn):
    fetch(tmp_path / "btc", torn, accept_gaps=True)
    torn.publish("2024-01", "2024-02")
    torn.asked.clear()
    fetch(tmp_path / "btc", torn)
    assert torn.asked[torn.path("bars", "2024-01")] == 1
    assert torn.asked[torn.path("bars", "2024-02")] == 0
    assert bt.Market.load(tmp_path / "btc").n_bars == 1440


def test_a_month_before_the_listing_costs_two_answers_not_thirty(tmp_path, server):
    with pytest.raises(DataError, match="from 2023-10-01 to 2024-01-01") as caught:
        fetch(tmp_path / "btc", server, "2023-10-01", "2024-03-01")
    assert "--from 2024-01-01 --to 2024-03-01" in caught.value.cure
    assert sum("/daily/klines/" in path for path in server.asked) == 6


@pytest.mark.slow
def test_what_no_venue_has_is_said_so(tmp_path, server):
    with pytest.raises(DataError, match="has no bars and no mark and no funding there"):
        fetch(tmp_path / "btc", server, symbol="NOPE")
    assert not (tmp_path / "btc").exists()
    with pytest.raises(DataError, match="has no funding there") as caught:
        fetch(tmp_path / "btc", server, "2024-03-01", None)
    assert "--without funding" in caught.value.cure


def test_bar_gaps_at_either_end_and_inside():
    time = np.array([1, 2, 5]) * MINUTE
    found = find_bar_gaps("bars", time, MINUTE, 0, 7 * MINUTE)
    assert [(g.start // MINUTE, g.end // MINUTE, g.missing) for g in found] == [
        (0, 1, 1),
        (3, 5, 2),
        (6, 7, 1),
    ]
    assert find_bar_gaps("bars", np.arange(7) * MINUTE, MINUTE, 0, 7 * MINUTE) == []
    assert find_bar_gaps("bars", np.empty(0, np.int64), MINUTE, 0, 7 * MINUTE)[0].missing == 7


def test_funding_gaps_at_either_end_inside_and_altogether():
    whole = np.arange(0, 3 * DAY, 8 * HOUR) + 5_000_000
    assert find_funding_gaps(whole, 0, 3 * DAY) == []
    assert [g.missing for g in find_funding_gaps(whole[3:], 0, 3 * DAY)] == [3]
    assert [g.missing for g in find_funding_gaps(whole[:6], 0, 3 * DAY)] == [3]
    assert [g.missing for g in find_funding_gaps(np.delete(whole, 4), 0, 3 * DAY)] == [1]
    assert [g.missing for g in find_funding_gaps(whole[:0], 0, 3 * DAY)] == [9]
    hourly = np.concatenate([whole[:4], np.arange(DAY + HOUR, 3 * DAY, HOUR)])
    assert find_funding_gaps(hourly, 0, 3 * DAY) == []


def test_data_reach_to_the_last_whole_day():
    assert find_end(np.arange(0, 2 * DAY - HOUR, HOUR), "bars", HOUR, 0) == DAY
    assert find_end(np.arange(0, 2 * DAY, HOUR), "bars", HOUR, 0) == 2 * DAY
    assert find_end(np.arange(0, 2 * DAY, 8 * HOUR) + 7, "funding", HOUR, 0) == 2 * DAY
    assert find_end(np.empty(0, np.int64), "bars", HOUR, 5) == 5
    assert longest_complete(find_funding_gaps(np.empty(0, np.int64), 0, DAY), 0, DAY) is None


def test_months_are_whole_whatever_the_span():
    assert list(months(at("2023-12-31"), at("2024-02-02"))) == [
        (at("2023-12-01"), at("2024-01-01")),
        (at("2024-01-01"), at("2024-02-01")),
        (at("2024-02-01"), at("2024-03-01")),
    ]


# going on


def test_a_kind_with_holes_can_be_left_out_where_bars_have_none(tmp_path, torn):
    with pytest.raises(DataError) as caught:
        fetch(tmp_path / "btc", torn, "2024-02-01")
    assert "--without mark --without funding" in caught.value.cure


def test_the_nearest_span_ends_with_the_last_day_that_is_whole(tmp_path, server):
    with pytest.raises(DataError, match="12 settlements from 2024-03-01 to 2024-03-05") as caught:
        fetch(tmp_path / "btc", server, end="2024-03-05")
    assert "--from 2024-01-01 --to 2024-03-01" in caught.value.cure


@pytest.mark.slow
def test_a_longer_fetch_asks_for_what_is_new_only_and_equals_a_fresh_one(tmp_path, server):
    fetch(tmp_path / "btc", server, "2024-01-10", "2024-02-01")
    server.asked.clear()
    fetch(tmp_path / "btc", server, "2024-01-10", "2024-03-01")
    assert not any("-2024-01" in path for path in server.asked)
    fetch(tmp_path / "fresh", server, "2024-01-10", "2024-03-01")
    assert content(tmp_path / "btc") == content(tmp_path / "fresh")
    fetch(tmp_path / "btc", server, "2024-01-01", "2024-02-05")
    fetch(tmp_path / "early", server, "2024-01-01", "2024-03-01")
    assert content(tmp_path / "btc") == content(tmp_path / "early")


def test_what_is_there_is_not_asked_for_again(tmp_path, server):
    fetch(tmp_path / "btc", server)
    before = content(tmp_path / "btc")
    server.asked.clear()
    again = fetch(tmp_path / "btc", server, "2024-01-05", "2024-02-05")
    assert not again.is_new
    assert again.facts["from"] == "2024-01-01"
    assert not server.asked
    assert content(tmp_path / "btc") == before


def test_a_damaged_part_is_fetched_again(tmp_path, server, calm):
    server.faults[server.path("funding", "2024-02")] = ["403"]
    with pytest.raises(DataError, match="403"):
        fetch(tmp_path / "btc", server, parallel=1)
    part = list_stored(tmp_path / "btc" / ".partial", "bars")[0]
    damaged = bytearray(part.path.read_bytes())
    damaged[len(damaged) // 3] ^= 0x55
    part.path.write_bytes(damaged)
    assert read_stored(part) is None
    (tmp_path / "btc" / ".partial" / "bars-20240201-20240301.draft").write_bytes(b"half")
    fetch(tmp_path / "btc", server)
    assert content(tmp_path / "btc") == calm


def test_a_folder_of_something_else_is_left_alone(tmp_path, server):
    bt.Market.sample(bars=48).save(tmp_path / "mine")
    before = content(tmp_path / "mine")
    with pytest.raises(DataError, match="needs a folder of its own, this one holds"):
        fetch(tmp_path / "mine", server)
    assert content(tmp_path / "mine") == before
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "bars.csv").write_text("time,open\n")
    with pytest.raises(DataError, match=r"folder of its own, this one holds bars\.csv"):
        fetch(tmp_path / "text", server)
    assert [each.name for each in (tmp_path / "text").iterdir()] == ["bars.csv"]
    fetch(tmp_path / "btc", server)
    with pytest.raises(DataError, match="this one holds symbol BTCUSDT, not symbol ETHUSDT"):
        fetch(tmp_path / "btc", server, symbol="ETHUSDT")
    with pytest.raises(DataError, match="this one holds interval 1h, not interval 8h"):
        fetch(tmp_path / "btc", server, interval="8h")
    assert not (tmp_path / "btc" / ".partial").exists()


def test_a_folder_of_a_fetch_that_was_killed_before_anything_arrived_is_free(tmp_path, server):
    partial = tmp_path / "btc" / ".partial"
    partial.mkdir(parents=True)
    other = read_request("ETHUSDT", start="2024-01-01").identity()
    target_folder.write_facts({"format": 1, **other}, partial / "request.json")
    assert fetch(tmp_path / "btc", server).is_new
    assert not partial.exists()


def test_files_that_somebody_changed_are_not_replaced(tmp_path, server):
    fetch(tmp_path / "btc", server, "2024-01-01", "2024-02-01")
    (tmp_path / "btc" / "bars.parquet").write_bytes(b"mine")
    with pytest.raises(DataError, match="files of the fetch were changed"):
        fetch(tmp_path / "btc", server)
    assert (tmp_path / "btc" / "bars.parquet").read_bytes() == b"mine"


def test_notes_of_another_format_are_refused(tmp_path, server):
    fetch(tmp_path / "btc", server, "2024-01-01", "2024-02-01")
    (tmp_path / "btc" / "fetch.json").write_text('{"format": 2}')
    with pytest.raises(DataError, match=r"format of fetch\.json must be 1"):
        fetch(tmp_path / "btc", server)


def test_a_second_process_is_told_which_one_is_at_work(tmp_path, server):
    with (
        target_folder.hold(tmp_path / "btc"),
        pytest.raises(DataError, match=rf"another process \({os.getpid()}\)"),
    ):
        fetch(tmp_path / "btc", server)
    fetch(tmp_path / "btc", server)


def test_a_folder_that_cannot_be_written_is_said_so(tmp_path, server):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write to the folder of the fetch"):
        fetch(tmp_path / "file" / "btc", server)


@pytest.mark.slow
def test_a_crash_at_any_step_leaves_the_market_of_before_or_after(
    tmp_path, server, monkeypatch: pytest.MonkeyPatch
):
    """Every file that is put in its place is the last one once."""
    fetch(tmp_path / "short", server, "2024-01-10", "2024-02-01")
    fetch(tmp_path / "long", server, "2024-01-10", "2024-03-01")
    known = {bt.Market.load(tmp_path / name).content_hash for name in ("short", "long")}
    move_file, steps = atomic_files.move_file, 0

    class Crash(BaseException):
        pass

    for limit in range(40):
        folder = tmp_path / f"at-{limit}"
        shutil.copytree(tmp_path / "short", folder)
        left = [limit]

        def crash(draft: Path, path: Path, left: list[int] = left) -> None:
            if left[0] == 0:
                raise Crash
            left[0] -= 1
            move_file(draft, path)

        with monkeypatch.context() as patch:
            for module in ("base.atomic_files", "market.fetch.publish"):
                patch.setattr(f"backtest.{module}.move_file", crash)
            try:
                fetch(folder, server, "2024-01-10", "2024-03-01", parallel=1)
            except Crash:
                steps += 1
        assert bt.Market.load(folder).content_hash in known
        fetch(folder, server, "2024-01-10", "2024-03-01")
        assert content(folder) == content(tmp_path / "long")
        if steps == limit:
            break
    assert steps >= 12


CHILDREN = """
import os, sys
from pathlib import Path
import httpx
from backtest.market.fetch import fetch_market, read_request
request = read_request("BTCUSDT", start="2024-01-01", end="2024-03-20", interval="1h",
                       without=["funding"])
folder, url, now = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for _ in sys.stdin:
    child = os.fork()
    if not child:
        fetch_market(folder, request, now=now, base_url=url, parallel=2)
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""
"""A process that makes one of its own for every line it reads: a fresh one takes a second."""


@pytest.mark.slow
def test_killed_and_resumed_ten_times_equals_never_killed_byte_for_byte(tmp_path, server):
    fetch(tmp_path / "calm", server, end="2024-03-20", without=("funding",))
    server.asked.clear()
    server.delay = 0.02
    folder = tmp_path / "killed"
    with subprocess.Popen(
        [sys.executable, "-c", CHILDREN, str(folder), server.url, str(NOW)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as mother:
        for turn in range(11):
            enough = asked_for(server) + 3
            mother.stdin.write("\n")
            child = int(mother.stdout.readline())
            if turn < 10:
                while asked_for(server) < enough:
                    time.sleep(0.001)
                os.kill(child, signal.SIGKILL)
                assert int(mother.stdout.readline()) == signal.SIGKILL
                assert not list(folder.glob("*.parquet"))
            else:
                server.delay = 0.0
                assert int(mother.stdout.readline()) == 0
        mother.stdin.close()
    assert content(folder) == content(tmp_path / "calm")
    again = [path for path, count in server.asked.items() if count > 1]
    assert len(again) <= 10 * 2 * 2  # what was under way when it was killed, at most


# the command


def call(capsys, *arguments) -> tuple[int, str, str]:
    code = main(["data", "fetch", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.slow
def test_the_command_says_what_it_stored_and_that_it_is_there(tmp_path, server, capsys):
    flags = (
        "BTCUSDT", "--from", "2024-01-01", "--to", "2024-02-01", "--interval", "1h",
        "--out", tmp_path / "btc", "--base-url", server.url,
    )  # fmt: skip
    code, out, err = call(capsys, *flags)
    assert (code, err) == (0, "")
    assert "744 bars, 744 mark, 93 funding" in out
    assert f"backtest run --data {tmp_path / 'btc'}" in out
    code, out, _ = call(capsys, *flags)
    assert "all of it was there already" in out
    code, out, _ = call(capsys, *flags, "--json")
    assert json.loads(out)["rows"]["bars"] == 744
    assert main(["run", "--data", str(tmp_path / "btc"), "--no-compile", "--no-save"]) == 0


@pytest.mark.slow
def test_the_command_takes_the_address_from_the_environment(
    tmp_path, torn, capsys, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("BACKTEST_FETCH_URL", torn.url)
    flags = (
        "BTCUSDT", "--from", "2024-01-01", "--to", "2024-03-01", "--interval", "1h",
        "--out", tmp_path / "btc",
    )  # fmt: skip
    code, _, err = call(capsys, *flags)
    assert code == 2
    assert "24 mark bars from 2024-02-02 to 2024-02-03" in err
    assert "--from 2024-01-06 --to 2024-02-02" in err
    code, out, _ = call(capsys, *flags, "--accept-gaps")
    assert code == 0
    assert "3 gaps, accepted and not filled" in out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("--from", "2024-01-01T05:00"), "start must be a midnight"),
        (("--to", "2023-12-01"), "must end after it starts"),
        (("--to", "2199-01-01"), "stored when it is over"),
        (("--from", "2198-01-01", "--to", "2199-01-01"), "stored when it is over"),
        (("--to", "2999-01-01"), "between the years"),
        (("--interval", "7m"), "must divide a day"),
        (("--source", "binance-archiv"), "did you mean 'binance-archive'"),
        (("--source", "deribit"), "no history of mark"),
        (("--market", "spot"), "market must be one of um, cm"),
        (("--market", "cm", "--source", "bybit"), "market may only be chosen for binance-archive"),
        (("--without", "bars"), "without must be one of mark, funding"),
        (("--base-url", "ftp://x"), "must begin with http"),
        (("--base-url", "file:///etc"), "must begin with http"),
    ],
)
def test_the_command_refuses_what_cannot_be(tmp_path, capsys, change, said):
    flags = ["--from", "2024-01-01", "--to", "2024-02-01", "--interval", "1h"]
    code, _, err = call(capsys, "BTCUSDT", *flags, *change, "--out", tmp_path / "x")
    assert code == 2
    assert said in err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("symbol", ["../../etc", "btcusdt", "BTC/USDT", "BTC%2e", "", "A" * 99])
def test_a_symbol_is_never_a_path(tmp_path, capsys, symbol):
    code, _, err = call(capsys, symbol, "--from", "2024-01-01", "--out", tmp_path / "x")
    assert code == 2
    assert "a symbol of the archive has capital letters" in err


# small rules


def test_a_day_that_is_not_over_is_not_stored(tmp_path, server):
    with pytest.raises(ParameterError, match="when it is over, end was 2024-03-21"):
        fetch(tmp_path / "btc", server, end="2024-03-21")


def test_several_months_are_fetched_at_once_but_not_more_than_asked(tmp_path, server):
    server.delay = 0.02
    fetch(tmp_path / "btc", server, parallel=3)
    assert 2 <= server.most_at_once <= 3


def test_progress_counts_days_of_every_kind(tmp_path, server):
    seen: list[tuple[int, int]] = []
    fetch(tmp_path / "btc", server, report=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 180)
    assert seen[-1] == (180, 180)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_the_meter_waits_for_the_venue_not_for_a_compiler():
    assert Meter("fetching", "days", "asking the venue").describe() == "fetching (asking the venue)"


def test_only_so_many_months_at_once(tmp_path, server):
    with pytest.raises(ParameterError, match="parallel"):
        fetch(tmp_path / "btc", server, parallel=0)


def test_joining_keeps_the_rows_of_any_split(tmp_path):
    time_ = np.arange(100) * HOUR
    columns = {name: np.arange(100.0) for name in ("open", "high", "low", "close", "volume")}
    whole = TimedTable("x", time_, columns)
    pieces = [whole.rows(slice(60, 100)), whole.rows(slice(0, 40)), whole.rows(slice(30, 70))]
    joined = merge_rows(pieces, "bars")
    np.testing.assert_array_equal(joined.time, time_)
    np.testing.assert_array_equal(joined.columns["close"], columns["close"])


def test_retry_after_may_be_seconds_a_date_or_nonsense():
    assert read_wait("3", 0.0) == 3.0
    assert read_wait("Wed, 20 Mar 2024 15:00:05 GMT", NOW / 1e9) == 5.0
    assert read_wait("Wed, 20 Mar 2024 14:00:00 GMT", NOW / 1e9) == 0.0
    assert read_wait("soon", 0.0) is None
    assert read_wait(None, 0.0) is None


@pytest.mark.parametrize("address", ["", "data.binance.vision", "https://", "https://x?y=1"])
def test_an_address_names_a_server(address):
    with pytest.raises(ParameterError, match="must begin with http"):
        check_address(address)
