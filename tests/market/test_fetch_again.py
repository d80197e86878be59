"""Fetching into a folder that has data: what is kept or refused, and what a kill leaves."""

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import backtest as bt
from backtest.base import atomic_files
from backtest.base.errors import DataError
from backtest.market.fetch import read_request, target_folder
from backtest.market.fetch.target_folder import list_stored, read_stored
from tests.market.fetches import NOW, content, fetch
from tests.refusals import check_refused
from tests.replay import Replay

pytest.importorskip("httpx", reason="downloads need httpx: pip install 'leverage-backtest[fetch]'")
ROOT = Path(__file__).parents[2]


def asked_for(server: Replay, ending: str = ".zip") -> int:
    return sum(count for path, count in server.asked.items() if path.endswith(ending))


def test_a_kind_with_holes_can_be_left_out_where_bars_have_none(tmp_path, torn):
    words = "without=['mark', 'funding']"
    check_refused(lambda: fetch(tmp_path / "btc", torn, "2024-02-01"), words)


def test_the_nearest_span_ends_with_the_last_day_that_is_whole(tmp_path, server):
    words = "start='2024-01-01' and end='2024-03-01'"
    check_refused(lambda: fetch(tmp_path / "btc", server, end="2024-03-05"), words)


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
    check_refused(lambda: fetch(tmp_path / "text", server), "this one holds bars.csv")
    assert [each.name for each in (tmp_path / "text").iterdir()] == ["bars.csv"]
    fetch(tmp_path / "btc", server)
    for how, words in (
        ({"symbol": "ETHUSDT"}, "this one holds symbol BTCUSDT, not symbol ETHUSDT"),
        ({"interval": "8h"}, "this one holds interval 1h, not interval 8h"),
    ):
        check_refused(lambda how=how: fetch(tmp_path / "btc", server, **how), words)
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
    (tmp_path / "btc" / "fetch.json").write_text('{"format": 2}')
    check_refused(lambda: fetch(tmp_path / "btc", server), "format of fetch.json must be 1")


def test_a_second_process_is_told_which_one_is_at_work(tmp_path, server):
    with (
        target_folder.hold(tmp_path / "btc"),
        pytest.raises(DataError, match=rf"another process \({os.getpid()}\)"),
    ):
        fetch(tmp_path / "btc", server)
    fetch(tmp_path / "btc", server)


def test_a_folder_that_cannot_be_written_is_said_so(tmp_path, server):
    (tmp_path / "file").write_text("")
    check_refused(lambda: fetch(tmp_path / "file" / "btc", server), "cannot write to the folder")


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
            server.most_archives = enough if turn < 10 else math.inf  # it ends by the kill alone
            mother.stdin.write("\n")
            child = int(mother.stdout.readline())
            if turn < 10:
                while asked_for(server) < enough:
                    time.sleep(0.001)
                os.kill(child, signal.SIGKILL)
                assert int(mother.stdout.readline()) == signal.SIGKILL
                assert not list(folder.glob("*.parquet"))
            else:
                assert int(mother.stdout.readline()) == 0
        mother.stdin.close()
    assert content(folder) == content(tmp_path / "calm")
    again = [path for path, count in server.asked.items() if count > 1]
    assert len(again) <= 10 * 2 * 2  # what was under way when it was killed, at most
