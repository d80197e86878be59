"""Fetches from an archive that fails: what is tried again, for how long, and what is said."""

import errno
import socket
import threading
from dataclasses import replace

import pytest

from backtest.base.errors import DataError
from backtest.market.fetch import RetryPolicy
from backtest.market.fetch.download import Canceled, Retrier, TransientFailure, find_unreachable
from tests.fast_cases import every_nth
from tests.market.fetches import QUICK, content, fetch
from tests.refusals import check_refused
from tests.replay import Replay

pytest.importorskip("httpx", reason="downloads need httpx: pip install 'leverage-backtest[fetch]'")


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
    policy = replace(QUICK, deadline=3.0) if fault.startswith("slow") else QUICK
    fetched = fetch(tmp_path / "rough", server, policy=policy)
    assert fetched.retries == 4
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
    with pytest.raises(DataError, match=f"the download failed 4 times.*{said}") as caught:
        fetch(tmp_path / "btc", server, parallel=1)
    assert "2024-02" in str(caught.value)
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
    check_refused(lambda: fetch(tmp_path / "btc", server, parallel=1), "got 403")
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


def test_a_body_or_a_wait_without_end_is_cut_off(tmp_path, server, monkeypatch):
    monkeypatch.setattr("backtest.market.fetch.binance_archive.LARGEST_ZIP", 100_000)
    server.faults[server.path("bars", "2024-01")] = ["huge:200000"]
    check_refused(lambda: fetch(tmp_path / "btc", server), "at most 100,000 bytes")
    server.faults[server.path("bars", "2024-01")] = ["429:3600"]
    check_refused(lambda: fetch(tmp_path / "btc", server), "a wait of 3600 s")
