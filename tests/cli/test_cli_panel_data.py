"""``backtest data fetch`` of several symbols, and ``data inspect`` of several markets."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from tests.kit import call
from tests.replay import Replay

HOURS = pd.date_range("2023-01-01", periods=24 * 30, freq="h", tz="UTC")


@pytest.fixture
def two_symbols():
    pytest.importorskip("httpx", reason="downloads need httpx")
    server = Replay().publish("2024-01")
    server.files |= Replay("ETHUSDT").publish("2024-01").files
    with server.serve():
        yield server


def test_several_symbols_are_fetched_into_folders_of_their_own(capsys, folder: Path, two_symbols):
    flags = ("--from", "2024-01-01", "--to", "2024-02-01", "--interval", "1h", "--out", "data")
    flags += ("--base-url", two_symbols.url)
    code, out, err = call(capsys, "data", "fetch", "BTCUSDT", "ETHUSDT", *flags)
    assert (code, err) == (0, "")
    assert out.count("93 funding, 744 mark, 744 bars") == 2
    assert out.endswith("backtest run --data data/BTCUSDT --data data/ETHUSDT\n")
    markets = bt.Markets.load("data")
    assert markets.names == ("BTCUSDT", "ETHUSDT")
    assert markets["ETHUSDT"].instrument == "ETHUSDT"
    code, out, _ = call(capsys, "data", "fetch", "BTCUSDT", "ETHUSDT", *flags, "--json")
    found = json.loads(out)
    assert found["folder"] == "data"
    assert [each["is_new"] for each in found["markets"]] == [False, False]
    code, _, err = call(capsys, "data", "fetch", "BTCUSDT", "NOPEUSDT", *flags)
    assert code == 2
    assert "NOPEUSDT" in err
    assert not (folder / "data" / "NOPEUSDT").exists()
    code, _, err = call(
        capsys, "data", "fetch", "BTCUSDT", "ETHUSDT", *flags[:-4], "--out", "data/BTCUSDT"
    )
    assert code == 2
    assert "holds one market" in err
    assert sorted(path.name for path in (folder / "data").iterdir()) == ["BTCUSDT", "ETHUSDT"]


def save(name: str, hours: pd.DatetimeIndex, seed: int) -> None:
    """Write a market of a random walk."""
    moves = np.random.default_rng(seed).normal(0.0, 0.01, len(HOURS))
    close = pd.Series(100.0 * np.exp(np.cumsum(moves)), index=HOURS).loc[hours]
    frame = pd.DataFrame({"open": close, "high": close, "low": close, "close": close})
    Path(name).mkdir(parents=True)
    frame.rename_axis("time").to_csv(Path(name) / "bars.csv")


def test_one_market_of_a_folder_of_folders_is_inspected_alone(capsys, folder: Path):
    save("data/A", HOURS[:72], seed=0)
    save("data/B", HOURS[:48], seed=1)
    code, out, err = call(capsys, "data", "inspect", "data", "--instrument", "B")
    assert (code, err) == (0, "")
    assert out == call(capsys, "data", "inspect", "data/B")[1]
