"""Fetching from the public archive: what arrives, what the command says, and small rules."""

import hashlib
import json

import numpy as np
import pytest

import backtest as bt
from backtest.base.units import HOUR
from backtest.cli import main
from backtest.market.fetch.download import read_wait
from backtest.market.fetch.target_folder import merge_rows
from backtest.market.tables.timed_table import TimedTable
from tests.commands import override
from tests.market.fetches import NOW, at, call, content, fetch
from tests.refusals import check_refused
from tests.replay import HEADER, epoch, kline_text, klines, settlements

pytest.importorskip("httpx", reason="downloads need httpx: pip install 'leverage-backtest[fetch]'")


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


def test_a_file_that_cannot_be_read_is_refused(tmp_path, server):
    whole = server.text("bars", "2024-02")
    lines = whole.decode().splitlines()
    lines[5] = lines[5].replace(",", "000,", 1)
    for text, words in (
        (b"", "696 bars from 2024-02-01 to 2024-03-01"),
        (HEADER.encode() + b"\n", "696 bars from 2024-02-01 to 2024-03-01"),
        (whole.replace(b",close,", b",last,", 1), "a column 'close' is needed"),
        ("\n".join(lines).encode(), "epochs must all be in one unit"),
    ):
        server.put("bars", "2024-02", text)
        check_refused(lambda: fetch(tmp_path / "btc", server), words)


# the command


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
    assert "2024-01-06" in err
    code, out, _ = call(capsys, *flags, "--accept-gaps")
    assert code == 0
    assert "3 gaps, accepted and not filled" in out


NO_SYMBOLS = ("../../etc", "btcusdt", "BTC/USDT", "BTC%2e", "", "A" * 99)


@pytest.mark.parametrize(("change", "said"), [
    (("--from", "2024-01-01T05:00"), "start must be a midnight"),
    (("--to", "2023-12-01"), "end must be after the start"),
    (("--to", "2199-01-01"), "stored when it is over"),
    (("--interval", "7m"), "interval must divide a day"),
    (("--base-url", "ftp://x"), "base_url must begin with http"),
    *(((symbol,), "symbol must have capital letters") for symbol in NO_SYMBOLS),
])  # fmt: skip
def test_the_command_refuses_what_cannot_be(tmp_path, capsys, change, said):
    flags = ["--from", "2024-01-01", "--to", "2024-02-01", "--interval", "1h"]
    words = override([*["BTCUSDT"] * change[0].startswith("-"), *flags], *change)
    code, _, err = call(capsys, *words, "--out", tmp_path / "x")
    assert code == 2
    assert said in err
    assert not (tmp_path / "x").exists()


# small rules


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
