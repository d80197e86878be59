"""Fetching from the public archive: what arrives, what is kept, refused and said."""

import io
import json
import os
import signal
import zipfile
from pathlib import Path

import numpy as np
import pytest

import backtest as bt
from backtest.base import hold_lock_file
from backtest.base.errors import DataError
from backtest.base.units import HOUR
from backtest.cli import main
from backtest.market import fetch as module
from backtest.market.fetch import clear, read_archive_rows
from tests.commands import override
from tests.fast_cases import every_nth
from tests.kills import count_steps, die_at
from tests.market.fetches import at, call, content, fetch
from tests.refusals import check_refused
from tests.replay import HEADER, Replay, epoch, kline_text, klines, settlements

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
    mine.pop("fetch.json")
    assert mine == content(tmp_path / "saved")


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
    fetch(tmp_path / "mended", server)
    assert content(tmp_path / "mended")["bars.parquet"] == calm["bars.parquet"]


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
        (b"", "bars run from 2024-01-01 to 2024-02-01, not from 2024-01-01 to 2024-03-01"),
        (HEADER.encode() + b"\n", "bars run from 2024-01-01 to 2024-02-01"),
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
    assert "24 of 1437 bars have none" in " ".join(err.split())
    assert "2024-01-05 03:00" in err
    code, out, _ = call(capsys, *flags, "--accept-gaps")
    assert code == 0
    assert "gaps, accepted and not filled" in out


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


# gaps


def test_gaps_are_named_all_at_once_and_nothing_is_stored(tmp_path, torn):
    with pytest.raises(DataError) as caught:
        fetch(tmp_path / "btc", torn)
    text = str(caught.value)
    assert "3 missing in 1 gap (bars, first gap from 2024-01-05 03:00 to 2024-01-05 06:00" in text
    assert "every bar must have a mark bar, 24 of 1437 bars have none" in text
    assert "2 missing in 1 gap (funding, first gap from 2024-02-03 16:00" in text
    assert {path.name for path in (tmp_path / "btc").iterdir()} == {".partial"}


def test_accepted_gaps_are_stored_as_they_are_and_noted(tmp_path, torn):
    facts = fetch(tmp_path / "btc", torn, accept_gaps=True).facts
    assert "3 missing in 1 gap" in " ".join(facts["gaps"])
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


def test_a_month_before_the_listing_costs_one_answer_not_thirty(tmp_path, server):
    with pytest.raises(DataError, match="bars run from 2024-01-01 to 2024-03-01, not from 2023-10"):
        fetch(tmp_path / "btc", server, "2023-10-01", "2024-03-01")
    assert not any("/daily/klines/" in path for path in server.asked)


@pytest.mark.slow
def test_what_no_venue_has_is_said_so(tmp_path, server):
    with pytest.raises(DataError, match="has no bars and no mark and no funding there"):
        fetch(tmp_path / "btc", server, symbol="NOPE")
    assert not (tmp_path / "btc").exists()
    with pytest.raises(DataError, match="has no funding"):
        fetch(tmp_path / "btc", server, "2024-03-01", "2024-03-05")


# a folder that has data


@pytest.mark.slow
def test_a_longer_fetch_asks_for_what_is_new_only_and_equals_a_fresh_one(tmp_path, server):
    fetch(tmp_path / "btc", server, "2024-01-10", "2024-02-01")
    server.asked.clear()
    fetch(tmp_path / "btc", server, "2024-01-10", "2024-03-01")
    assert not any("-2024-01" in path for path in server.asked)
    fetch(tmp_path / "fresh", server, "2024-01-10", "2024-03-01")
    assert content(tmp_path / "btc") == content(tmp_path / "fresh")
    fetch(tmp_path / "btc", server, "2024-01-01", "2024-03-01")
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
        fetch(tmp_path / "btc", server)
    part = tmp_path / "btc" / ".partial" / "bars.parquet"
    part.write_bytes(part.read_bytes()[:999])
    fetch(tmp_path / "btc", server)
    assert content(tmp_path / "btc") == calm


def test_a_folder_of_something_else_is_left_alone(tmp_path, server):
    bt.Market.sample(bars=48).save(tmp_path / "mine")
    before = content(tmp_path / "mine")
    with pytest.raises(DataError, match="needs a folder of its own, this one holds"):
        fetch(tmp_path / "mine", server)
    assert content(tmp_path / "mine") == before
    fetch(tmp_path / "btc", server)
    for how, words in (
        ({"symbol": "ETHUSDT"}, "this one holds symbol BTCUSDT, not symbol ETHUSDT"),
        ({"interval": "8h"}, "this one holds interval 1h, not interval 8h"),
    ):
        check_refused(lambda how=how: fetch(tmp_path / "btc", server, **how), words)
    assert not (tmp_path / "btc" / ".partial").exists()


def test_notes_that_are_not_those_of_a_fetch_are_refused(tmp_path, server):
    fetch(tmp_path / "btc", server, "2024-01-01", "2024-02-01")
    for text in ("{}", "[]", '{"source": 1}', "{"):
        (tmp_path / "btc" / "fetch.json").write_text(text)
        check_refused(lambda: fetch(tmp_path / "btc", server), "fetch.json", DataError)


def test_a_second_process_is_told_which_one_is_at_work(tmp_path, server):
    with (
        hold_lock_file(tmp_path / "btc" / ".partial" / "lock"),
        pytest.raises(DataError, match=rf"another process \({os.getpid()}\)"),
    ):
        fetch(tmp_path / "btc", server)
    fetch(tmp_path / "btc", server)


def test_a_folder_that_cannot_be_written_is_said_so(tmp_path, server):
    (tmp_path / "file").write_text("")
    check_refused(lambda: fetch(tmp_path / "file" / "btc", server), "cannot write to the folder")


def test_only_the_files_of_a_fetch_are_removed(tmp_path):
    partial = tmp_path / ".partial"
    partial.mkdir()
    for name in ("lock", "fetch.json", "bars.parquet", "thesis.pdf", "my.draft"):
        (partial / name).write_text("")
    clear(partial)
    assert sorted(path.name for path in partial.iterdir()) == ["my.draft", "thesis.pdf"]


# kills


@pytest.mark.slow
def test_killed_at_any_step_on_the_disk_it_leaves_the_market_of_before_or_after(
    tmp_path, server, monkeypatch
):
    """The step of each file that is written, moved or removed is the last one once."""
    monkeypatch.setattr(module, "STORE_EVERY", 0.0)
    span = ("2024-01-10", "2024-03-01")
    for name, end in (("before", "2024-02-01"), ("after", "2024-03-01")):
        fetch(tmp_path / name, server, "2024-01-10", end)
    known = {bt.Market.load(tmp_path / name).content_hash for name in ("before", "after")}
    start = (tmp_path / "before").rename(tmp_path / "kept")

    def begin(name: str) -> Path:
        for path in [start, *start.rglob("*")]:
            place = tmp_path / name / path.relative_to(start)
            place.mkdir(parents=True) if path.is_dir() else place.write_bytes(path.read_bytes())
        return tmp_path / name

    steps = count_steps(lambda: fetch(begin("whole"), server, *span))
    assert steps > 20
    for step in range(0, steps, 2):
        folder = begin(f"at-{step}")
        assert die_at(step, lambda folder=folder: fetch(folder, server, *span)) == -signal.SIGKILL
        assert bt.Market.load(folder).content_hash in known
        fetch(folder, server, *span)
        assert content(folder) == content(tmp_path / "after")


# failures


@pytest.mark.parametrize(
    "fault", every_nth(["429:0", "429", "500", "503", "truncated", "checksum", "garbage"], 3)
)
def test_a_failure_that_passes_changes_nothing(tmp_path, server, calm, fault):
    beside = ".CHECKSUM" if fault == "checksum" else ""
    for kind in ("bars", "funding"):
        server.faults[server.path(kind, "2024-02") + beside] = [fault, fault]
    fetch(tmp_path / "rough", server)
    assert content(tmp_path / "rough") == calm


@pytest.mark.parametrize(("fault", "said"), [
    ("500", "the HTTP status was 500"),
    ("truncated", "RemoteProtocolError"),
    ("checksum", "its checksum says"),
    ("garbage", "its checksum says"),
])  # fmt: skip
def test_a_failure_that_stays_is_told_and_what_has_arrived_is_kept(
    tmp_path, server, calm, fault, said
):
    path = server.path("bars", "2024-02") + (".CHECKSUM" if fault == "checksum" else "")
    server.faults[path] = [fault] * 99
    with pytest.raises(DataError, match=said) as caught:
        fetch(tmp_path / "btc", server)
    assert "2024-02" in str(caught.value)
    assert {path.name for path in (tmp_path / "btc").iterdir()} == {".partial"}
    server.faults.clear()
    server.asked.clear()
    fetch(tmp_path / "btc", server)
    assert not any("klines/BTCUSDT/1h/BTCUSDT-1h-2024-01.zip" in path for path in server.asked)
    assert content(tmp_path / "btc") == calm


@pytest.mark.parametrize(("fault", "said"), [
    ("403", "got 403"), ("429:3600", "a wait of 3600 s"), ("huge:20000000", "at most 16,777,216"),
])  # fmt: skip
def test_a_refusal_or_a_wait_without_end_is_not_asked_again(tmp_path, server, fault, said):
    server.faults[server.path("bars", "2024-01")] = [fault] * 9
    check_refused(lambda: fetch(tmp_path / "btc", server), said)
    assert server.asked[server.path("bars", "2024-01")] == 1


def test_a_server_that_is_not_there_is_said_so_at_once(tmp_path):
    away = Replay()
    away.url = "http://127.0.0.1:9"
    with pytest.raises(DataError, match=r"cannot reach the server: ConnectError: .*111"):
        fetch(tmp_path / "btc", away)
    assert not (tmp_path / "btc").exists()


# files that are not what they should be


@pytest.mark.parametrize(("checksum", "said"), [
    (None, "the archive has no checksum"),
    (b"not a hash  x.zip\n", "must be a SHA-256"),
    (b"0" * 64 + b"  other.zip\n", "must be a SHA-256"),
    (b"0" * 64 + b"  BTCUSDT-1h-2024-01.zip\n", "its checksum says"),
])  # fmt: skip
def test_a_file_without_its_own_checksum_is_refused(tmp_path, server, checksum, said):
    path = server.path("bars", "2024-01") + ".CHECKSUM"
    if checksum is None:
        del server.files[path]
    else:
        server.files[path] = checksum
    check_refused(lambda: fetch(tmp_path / "btc", server), said, DataError)


def zip_of(text: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", text)
    return stream.getvalue()


@pytest.mark.parametrize(("line", "said"), [
    ("1704067200000,1,2,0.5", "Expected 12 columns, got 4"),
    ("1704067200000,1,2,0.5,=1+1,3,0,0,0,0,0,0", "close must be numbers, got '=1\\+1'"),
    ("17,1,2,0.5,1,3,0,0,0,0,0,0", "epochs"),
])  # fmt: skip
def test_a_row_that_cannot_be_read_is_refused(line, said):
    with pytest.raises(DataError, match=said):
        read_archive_rows(zip_of(f"{HEADER}\n{line}\n"), "bars", "test")


def test_a_bomb_in_the_archive_writes_nothing(tmp_path, server):
    server.put_zip(server.path("bars", "2024-01"), zip_of("0" * (70 << 20)))
    with pytest.raises(DataError, match="at most 67,108,864"):
        fetch(tmp_path / "btc", server)
    assert not (tmp_path / "btc" / "bars.parquet").exists()


FEBRUARY = klines(epoch("2024-02-01"), epoch("2024-03-01"), 3_600_000)
LOW = FEBRUARY.copy()
LOW[7, 2] = 1.0


@pytest.mark.parametrize(("rows", "said"), [
    (klines(epoch("2024-01-31"), epoch("2024-02-03"), 3_600_000), "not from 2024-01-01 to 2024-03"),
    (np.add(FEBRUARY, [60_000, 0, 0, 0, 0, 0]), "open at other times"),
    (LOW, "high must be at least open and close"),
])  # fmt: skip
def test_rows_that_cannot_be_are_refused_and_nothing_is_stored(tmp_path, server, rows, said):
    server.put("bars", "2024-02", kline_text(rows, server.length))
    check_refused(lambda: fetch(tmp_path / "btc", server), said, DataError)
    assert {path.name for path in (tmp_path / "btc").iterdir()} == {".partial"}


def test_rows_that_are_there_twice_count_once_and_may_not_differ(tmp_path, server, calm):
    twice = np.concatenate([FEBRUARY[:50], FEBRUARY[20:], FEBRUARY[-9:]])
    server.put("bars", "2024-02", kline_text(twice, server.length))
    fetch(tmp_path / "twice", server)
    assert content(tmp_path / "twice")["bars.parquet"] == calm["bars.parquet"]
    twice[60, 4] += 1.0
    server.put("bars", "2024-02", kline_text(twice, server.length))
    with pytest.raises(DataError, match="bars must have each time once, 1 of"):
        fetch(tmp_path / "torn", server)
