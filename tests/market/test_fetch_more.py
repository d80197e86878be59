"""More of the archive as columns of the bars, and the listing beside them: recorded answers."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import DataError
from backtest.core import to_nanoseconds
from backtest.market import fetch_market, read_request
from backtest.market.fetch_more import join_rows, read_rows
from tests.kit import check_refused
from tests.replay import Replay, pack
from tests.venue.test_listing import ENTRY

pytest.importorskip("httpx", reason="downloads need httpx: pip install 'leverage-backtest[fetch]'")
MINUTE = 60_000_000_000
HEAD = (
    "create_time,symbol,sum_open_interest,sum_open_interest_value,"
    "count_toptrader_long_short_ratio,sum_toptrader_long_short_ratio,count_long_short_ratio,"
    "sum_taker_long_short_vol_ratio"
)


def write_metrics(day: str, minutes: list[int]) -> bytes:
    """Return rows as the archive writes them; open interest is the minute of its stamp."""
    rows = []
    for minute in minutes:
        stamp = pd.Timestamp(day) + pd.Timedelta(minutes=minute, seconds=2)
        rows.append(f"{stamp},BTCUSDT,{minute},{minute * 100.0},1.5,1.2,1.1,0.9")
    return "\n".join([HEAD, *rows, ""]).encode()


def write_premium(day: str) -> bytes:
    start = int(pd.Timestamp(day, tz="UTC").value) // 10**6
    return "\n".join(
        f"{start + hour * 3_600_000},0,0.001,-0.001,{-1e-4 * hour:.8f},0,0,0,0,0,0,0"
        for hour in range(24)
    ).encode()


def publish(server: Replay, path: str, name: str, text: bytes) -> None:
    content = pack(name, text)
    server.files[path] = content
    digest = hashlib.sha256(content).hexdigest()
    server.files[f"{path}.CHECKSUM"] = f"{digest}  {name}\n".encode()


def make_server() -> Replay:
    server = Replay().publish("2024-01-10", "2024-01-11", kinds=("bars", "mark"))
    for day in ("2024-01-10", "2024-01-11"):
        minutes = [m for m in range(0, 1440, 5) if not 295 <= m < 360]
        place = f"data/futures/um/daily/metrics/BTCUSDT/BTCUSDT-metrics-{day}.zip"
        publish(server, place, "a.csv", write_metrics(day, minutes))
        place = f"data/futures/um/daily/premiumIndexKlines/BTCUSDT/1h/BTCUSDT-1h-{day}.zip"
        publish(server, place, "b.csv", write_premium(day))

    entry = {**ENTRY, "symbol": "BTCUSDT"}
    answers = {
        "exchangeInfo": {"symbols": [entry, ENTRY]},
        "fundingInfo": [{"symbol": "BTCUSDT", "fundingIntervalHours": 8,
                         "adjustedFundingRateCap": "0.003"}],
    }  # fmt: skip

    for name, answer in answers.items():
        server.files[f"fapi/v1/{name}"] = json.dumps(answer).encode()
    return server


def fetch(folder: Path, server: Replay, end: str = "2024-01-12", **how: object):
    options = {"without": ["funding"], "with_more": ["metrics", "taker", "premium"], **how}
    request = read_request("BTCUSDT", start="2024-01-10", end=end, interval="1h", **options)
    now = to_nanoseconds("2024-01-20T15:00")
    return fetch_market(folder, request, now=now, base_url=server.url)


def test_columns_are_what_is_known_at_each_close_and_gaps_are_counted(tmp_path):
    """At the close of 01:00 the row of 00:55 is known, five minutes after its stamp; that of 01:00
    is not. From 04:55 to 06:00 rows lack: the close of 05:00 has the row of 04:50 (known at 04:55,
    five minutes old), that of 06:00 has none."""
    with make_server().serve() as server:
        fetched = fetch(tmp_path / "btc", server)
        again = fetch(tmp_path / "btc", server)

    market = bt.Market.load(tmp_path / "btc")
    held = market.columns["open_interest"]
    assert held[:4].tolist() == [55.0, 115.0, 175.0, 235.0]
    assert held[4] == 290.0  # 04:50
    assert np.isnan(held[5])
    assert held[24] == 55.0

    assert market.columns["premium"][:3].tolist() == pytest.approx([0.0, -1e-4, -2e-4])

    missing = fetched.facts["missing"]
    assert missing["open_interest"] == 2  # 06:00 of both days
    assert missing["premium"] == 0
    assert missing["taker_buy_volume"] == 0
    assert again.facts["missing"] == missing

    longer = market.resample("2h")
    assert longer.columns["open_interest"][:2].tolist() == [115.0, 235.0]

    skew = bt.indicators.leverage_skew(market, "account_ratio")
    assert skew[0] == pytest.approx(np.log(1.1))


def test_the_listing_of_the_day_is_saved_beside_the_bars(tmp_path):
    with make_server().serve() as server:
        fetched = fetch(tmp_path / "btc", server)

        bare = make_server()
        bare.files = {name: x for name, x in server.files.items() if "fapi" not in name}
        with bare.serve():
            lacking = fetch(tmp_path / "bare", bare)

    content = json.loads((tmp_path / "btc" / "venue.json").read_text(encoding="utf-8"))
    assert content["time"].startswith("2024-01-20")
    assert content["source"].endswith("/fapi/v1/")
    assert [row["symbol"] for row in content["exchangeInfo"]["symbols"]] == ["BTCUSDT"]
    assert fetched.facts["listing"].startswith("venue.json of 2024-01-20")

    terms = bt.funding.read_terms(content | {"tiers": {"BTCUSDT": []}}, "BTCUSDT")
    assert terms.interval == "8h"
    assert terms.cap == 0.003

    assert not (tmp_path / "bare" / "venue.json").exists()
    assert lacking.facts["listing"].startswith("none: ")


@pytest.mark.parametrize(("kinds", "source", "said"), [
    (["metric"], "binance-archive", "did you mean 'metrics'"),
    (["metrics"], "bybit", "with must be left out of an exchange"),
])  # fmt: skip
def test_what_a_source_does_not_have_is_refused(kinds, source, said):
    options = {"source": source, "with_more": kinds, "without": ["mark"]}
    check_refused(
        lambda: read_request("BTCUSDT", start="2024-01-10", **options), said, bt.ParameterError
    )


def test_files_that_are_not_of_the_archive_are_refused():
    check_refused(lambda: read_rows(b"no zip", "metrics", "x"), "must be a zip file", DataError)

    content = pack("a.csv", b"a,b\n1,2\n")
    said = "rows of metrics cannot be"
    check_refused(lambda: read_rows(content, "metrics", "x"), said, DataError)


def test_old_rows_are_gaps():
    rows = pd.DataFrame({"time": np.array([0], np.int64), "premium": [0.5]})
    closes = np.array([60, 120]) * MINUTE

    joined = join_rows(rows, "premium", closes, 60 * MINUTE)

    assert joined["premium"].tolist()[0] == 0.5
    assert np.isnan(joined["premium"][1])
