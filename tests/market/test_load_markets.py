"""Markets are loaded from folders of several layouts, under the names that a user expects."""

from pathlib import Path

import pandas as pd
import pytest

import backtest as bt
from tests.kit import check_refused, every_nth

HOURS = pd.date_range("2023-01-01", periods=48, freq="h", tz="UTC")


def make_bars(start: int = 0, stop: int = 48, price: float = 100.0) -> pd.DataFrame:
    closes = [price + (hour % 7) for hour in range(start, stop)]
    columns = {"open": closes, "high": closes, "low": closes, "close": closes, "volume": 1.0}
    return pd.DataFrame(columns, index=HOURS[start:stop])


def write_pair(folder: Path, pair: str, bars: pd.DataFrame) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rates = pd.DataFrame(0.0, index=HOURS[::8], columns=["open", "high", "low", "close", "volume"])
    for kind, frame in (("1h-futures", bars), ("8h-funding_rate", rates.assign(open=1e-4))):
        frame.rename_axis("date").reset_index().to_feather(folder / f"{pair}-{kind}.feather")


def save_own(folder: Path, name: str = "", **span: int) -> None:
    bt.Market.from_frames(make_bars(**span), instrument=name).save(folder)


def test_a_folder_of_saved_markets_is_loaded_by_the_names_of_its_folders(tmp_path):
    save_own(tmp_path / "ETHUSDT", start=24)
    save_own(tmp_path / "BTCUSDT")
    (tmp_path / "notes").mkdir()
    (tmp_path / ".hidden").mkdir()
    markets = bt.Markets.load(tmp_path)
    assert markets.names == ("BTCUSDT", "ETHUSDT")
    assert markets.currency == "USDT"
    assert markets.spans.tolist() == [[0, 48], [24, 48]]
    again = bt.Markets.load(str(tmp_path), instruments=["ETHUSDT", "BTCUSDT"])
    assert again.names == ("ETHUSDT", "BTCUSDT")
    assert again["BTCUSDT"] == markets["BTCUSDT"] == bt.Market.load(tmp_path / "BTCUSDT")


def test_freqtrades_pairs_are_loaded_by_instrument_or_by_pair(tmp_path):
    write_pair(tmp_path, "BTC_USDT_USDT", make_bars())
    write_pair(tmp_path, "ETH_USDT_USDT", make_bars(start=8))
    markets = bt.Markets.load(tmp_path)
    assert markets.names == ("BTCUSDT", "ETHUSDT")
    assert markets.currency == "USDT"
    assert markets["ETHUSDT"].funding_rate[0] == 1e-4
    chosen = bt.Markets.load(tmp_path, instruments=["ETH/USDT:USDT", "BTC_USDT_USDT"])
    assert chosen.names == ("ETH/USDT:USDT", "BTC_USDT_USDT")
    assert chosen["ETH/USDT:USDT"] == markets["ETHUSDT"]


def test_several_paths_are_named_after_their_folders_and_what_they_hold(tmp_path):
    save_own(tmp_path / "btc", "BTCUSDT")
    write_pair(tmp_path / "eth", "ETH_USDT_USDT", make_bars())
    write_pair(tmp_path / "rest", "LTC_USDT_USDT", make_bars())
    write_pair(tmp_path / "rest", "XRP_USDT_USDT", make_bars())
    paths = [tmp_path / name for name in ("btc", "eth", "rest")]
    assert bt.Markets.load(*paths).names == ("btc", "eth", "LTCUSDT", "XRPUSDT")
    wanted = ["ETHUSDT", "BTCUSDT"]
    assert bt.Markets.load(*paths, instruments=wanted).names == ("ETHUSDT", "BTCUSDT")
    assert bt.Markets.load(paths[0]).names == ("BTCUSDT",)


def test_a_span_is_cut_before_the_checks_and_may_reach_beyond_one_instrument(tmp_path):
    save_own(tmp_path / "A")
    save_own(tmp_path / "B", start=10, stop=20)
    markets = bt.Markets.load(tmp_path, between=("2023-01-01T04:00", "2023-01-02T08:00"))
    assert markets.spans.tolist() == [[0, 28], [6, 16]]
    assert markets.tradable()[1].sum() == 9
    assert repr(markets["A"]).endswith("between=('2023-01-01 04:00', '2023-01-02 08:00'))")
    span = "between=('2023-01-01 04:00', '2023-01-02 08:00')"
    assert markets.source == f"Markets.load({str(tmp_path)!r}, {span})"


def write_bad(folder: Path) -> dict[str, Path]:
    """Write folders with bad panels, and return them by name."""
    found = {name: folder / name for name in ("empty", "own", "twins", "coins", "apart")}
    for path in found.values():
        path.mkdir()
    for name in ("A", "B"):
        save_own(found["own"] / name)
        save_own(found["twins"] / name / "btc")
    write_pair(found["coins"], "BTC_USDT_USDT", make_bars())
    write_pair(found["coins"], "ETH_USD_ETH", make_bars())
    save_own(found["apart"] / "A", stop=10)
    save_own(found["apart"] / "B", start=30)
    return found


LOAD = bt.Markets.load
BAD = {
    "unknown": (lambda at: LOAD(at["own"], instruments=["A", "b"]), "be among the data, got 'b'"),
    "two places": (lambda at: LOAD(at["own"], at["apart"], instruments=["A", "B"]),
        "'A' is in 2 places"),
    "no overlap": (lambda at: LOAD(at["apart"]), "spans of the instruments must overlap"),
}  # fmt: skip


@pytest.mark.parametrize("case", every_nth(BAD, 4))
def test_bad_panels_on_disk_are_refused(case, tmp_path):
    load, words = BAD[case]
    check_refused(lambda: load(write_bad(tmp_path)), words)
