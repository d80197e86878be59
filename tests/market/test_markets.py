"""Markets put several instruments on one clock, keep their spans, and name what does not fit."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.core.units import HOUR, SECOND
from backtest.market import split_pair
from tests.kit import check_refused

START = pd.Timestamp("2023-01-01", tz="UTC")


def make_market(first=0, stop=6, price=100.0, name="", **options: object) -> bt.Market:
    """Return hours ``first`` to ``stop`` after the start; the close of hour t is price + t."""
    hours = np.arange(first, stop)
    close = price + hours
    columns = {"open": close - 0.5, "high": close + 1.0, "low": close - 1.0, "close": close}
    bars = pd.DataFrame(columns, index=START + pd.to_timedelta(hours, unit="h"))

    options = {"interval": "1h"} | options
    return bt.Market.from_frames(bars, instrument=name, **options)  # type: ignore[arg-type]


def funded(*hours: float, rate: float = 1e-4, **options: int) -> bt.Market:
    stamps = START + pd.to_timedelta(hours, unit="h")
    return make_market(**options, funding=pd.Series(rate, index=stamps), funding_gaps="zero")


@pytest.mark.parametrize(("name", "coin", "currency"), [
    ("BNBUSD", "BNB", "USD"), ("DOTUSD", "DOT", "USD"), ("SHIBUSD", "SHIB", "USD"),
    ("XBTUSD", "XBT", "USD"), ("LTCUSD", "LTC", "USD"), ("1000SHIBUSD", "1000SHIB", "USD"),
    ("BNB-USD", "BNB", "USD"), ("DOT/USD", "DOT", "USD"), ("TUSDUSD", "TUSD", "USD"),
    ("BTCTUSD", "BTC", "TUSD"), ("ADABUSD", "ADA", "BUSD"), ("ETHFDUSD", "ETH", "FDUSD"),
    ("BTCUSDT", "BTC", "USDT"), ("TUSDUSDT", "TUSD", "USDT"), ("BTC-USDT-SWAP", "BTC", "USDT"),
    ("QQBUSD", "", ""), ("market", "", ""),
])  # fmt: skip
def test_a_name_is_split_by_the_one_quote_that_fits(name, coin, currency):
    assert split_pair(name) == (coin, currency)


def test_the_clock_is_the_union_of_the_opens_and_spans_lie_on_it():
    assert WHOLE.names == ("A", "B", "C")
    assert tuple(WHOLE) == WHOLE.names
    assert len(WHOLE) == 3
    assert WHOLE.n_bars == 6
    assert WHOLE.interval == HOUR
    assert WHOLE.times.equals(WHOLE["A"].times)
    assert WHOLE.spans.tolist() == [[0, 6], [2, 4], [3, 6]]
    assert WHOLE["B"].close.tolist() == [52.0, 53.0]
    assert not WHOLE.time.flags.writeable


def test_a_panel_is_nan_outside_the_spans():
    panel = WHOLE.panel()

    nan = float("nan")
    np.testing.assert_array_equal(panel.close[1], [nan, nan, 52.0, 53.0, nan, nan])
    np.testing.assert_array_equal(panel.close[2], [nan, nan, nan, 103.0, 104.0, 105.0])
    np.testing.assert_array_equal(panel.mark_low[0], WHOLE["A"].low)
    np.testing.assert_array_equal(panel.volume[1], [nan, nan, 0.0, 0.0, nan, nan])


def test_funding_is_in_the_order_of_the_stamps_and_of_the_instruments():
    one = funded(0, 2, 4.5)
    other = funded(2, 3, rate=2e-4, first=1)

    panel = bt.Markets({"A": one, "B": other}).panel()

    assert panel.funding_instrument.tolist() == [0, 0, 1, 1, 0]
    assert panel.funding_bar.tolist() == [0, 2, 2, 3, 4]  # B's own bars 1 and 2 are 2 and 3 here
    assert panel.funding_is_open.tolist() == [1, 1, 1, 1, 0]
    assert panel.funding_rate.tolist() == [1e-4, 1e-4, 2e-4, 2e-4, 1e-4]

    swapped = bt.Markets({"B": other, "A": one}).panel()
    assert swapped.funding_instrument.tolist() == [1, 0, 1, 0, 1]


def test_the_jitter_says_what_is_paid_at_an_open():
    late = bt.Markets({"A": funded(2 + 30 / 3600, 4)})  # 30 s after 02:00, and at 04:00

    assert late.panel().funding_is_open.tolist() == [1, 1]
    assert late.panel(jitter=SECOND).funding_is_open.tolist() == [0, 1]


def test_an_instrument_is_tradable_in_its_span_but_not_before_it_is_delisted():
    assert WHOLE.tradable().astype(int).tolist() == [
        [1, 1, 1, 1, 1, 1],  # ends with the clock: it may go on
        [0, 0, 1, 0, 0, 0],  # closed in its last bar, so nothing is decided there
        [0, 0, 0, 1, 1, 1],
    ]


@pytest.mark.parametrize("n", [1, 3, 4, 5])
def test_a_part_is_tradable_where_the_whole_is(n):
    part = WHOLE.prefix(n)

    rows = [WHOLE.names.index(name) for name in part.names]
    np.testing.assert_array_equal(part.tradable(), WHOLE.tradable()[rows, :n])

    last = part.slice(n - 1, n)
    rows = [WHOLE.names.index(name) for name in last.names]
    np.testing.assert_array_equal(last.tradable(), WHOLE.tradable()[rows, n - 1 : n])


def test_cuts_leave_out_what_has_no_bar():
    assert WHOLE.prefix(2).names == ("A",)
    assert WHOLE.prefix(3).names == ("A", "B")

    late = WHOLE.slice(4, 6)
    assert late.names == ("A", "C")
    assert late.spans.tolist() == [[0, 2], [0, 2]]
    assert late["C"].close.tolist() == [104.0, 105.0]

    assert WHOLE.between("2023-01-01T04:00").content_hash == late.content_hash
    assert WHOLE.between(None, "2023-01-01T03:00") == WHOLE.prefix(3)


def test_selection_makes_a_panel_of_its_own():
    chosen = WHOLE.select("C", "B")
    assert chosen.names == ("C", "B")
    assert chosen.spans.tolist() == [[1, 4], [0, 2]]
    assert WHOLE.select("B").tradable().tolist() == [[True, True]]  # nothing goes on after it


def test_pickling_keeps_where_the_whole_ends():
    part = WHOLE.prefix(3)
    again = pickle.loads(pickle.dumps(part))

    assert again == part
    assert again.source == part.source
    np.testing.assert_array_equal(again.tradable(), part.tradable())


def test_the_currency_is_read_from_the_names():
    named = bt.Markets({"x": make_market(name="BTCUSDT"), "y": make_market()})
    assert named.currency == "USDT"
    assert bt.Markets({"BTC/USDC:USDC": make_market()}).currency == "USDC"
    assert WHOLE.currency == ""

    both = {"BTCUSDT": make_market(), "ETHUSDC": make_market()}
    assert bt.Markets(both, currency="USD").currency == "USD"
    assert bt.Markets(both, currency="USD").prefix(2).currency == "USD"


def sessions(*missing: int) -> bt.Market:
    """Return six daily sessions without some."""
    days = pd.date_range("2023-01-02", periods=6, freq="D", tz="UTC").delete([*missing])
    prices = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), 10.0), index=days)
    return bt.Market.from_frames(prices, sessions=True)


WHOLE = bt.Markets({"A": make_market(0, 6), "B": make_market(2, 4, 50.0), "C": make_market(3, 6)})
LATER = bt.Market.from_frames(make_market().bars().shift(freq="30min"))
BAD = {
    "one market": (lambda: bt.Markets(make_market()), "mapping of names"),
    "intervals": (lambda: bt.Markets({"A": make_market(), "B": make_market().resample("2h")}),
        "one interval, got 1h for 'A' and 2h for 'B'"),
    "calendars": (lambda: bt.Markets({"A": make_market(), "B": make_market(sessions=True)}),
        "one calendar, got no sessions for 'A' and sessions for 'B'"),
    "apart": (lambda: bt.Markets({"A": make_market(0, 3), "B": make_market(3, 6)}),
        "'B' begins at 2023-01-01 03:00 UTC, after the last bar of 'A' at 2023-01-01 02:00 UTC"),
    "hole": (lambda: bt.Markets({"A": sessions(), "B": sessions(3)}), "'B' lacks 1 of 6, the"),
    "off the grid": (lambda: bt.Markets({"A": make_market(), "B": LATER}), "'A' lacks 5 of 11"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_panels_are_refused(case):
    check_refused(*BAD[case])


def write_pair(folder: Path, pair: str, first: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stamps = pd.date_range(START, periods=6, freq="8h")
    rates = pd.DataFrame(0.0, index=stamps, columns=["open", "high", "low", "close", "volume"])
    bars = make_market(first, 48).bars()
    for kind, frame in (("1h-futures", bars), ("8h-funding_rate", rates.assign(open=1e-4))):
        dated = frame.rename_axis("date").reset_index()
        dated.to_feather(folder / f"{pair}-{kind}.feather")


def save_own(folder: Path, name: str = "", first: int = 0, stop: int = 48) -> None:
    make_market(first, stop, name=name).save(folder)


def test_a_folder_of_saved_markets_is_loaded_by_the_names_of_its_folders(tmp_path):
    save_own(tmp_path / "ETHUSDT", first=24)
    save_own(tmp_path / "BTCUSDT")
    (tmp_path / "notes").mkdir()
    (tmp_path / ".hidden").mkdir()

    markets = bt.Markets.load(tmp_path)
    assert markets.names == ("BTCUSDT", "ETHUSDT")
    assert markets.currency == "USDT"
    assert markets.spans.tolist() == [[0, 48], [24, 48]]

    again = bt.Markets.load(str(tmp_path), instruments=["ETHUSDT", "BTCUSDT"])
    assert again.names == ("ETHUSDT", "BTCUSDT")
    assert again["BTCUSDT"] == markets["BTCUSDT"]
    assert again["BTCUSDT"] == bt.Market.load(tmp_path / "BTCUSDT")


def test_freqtrades_pairs_are_loaded_by_instrument_or_by_pair(tmp_path):
    write_pair(tmp_path, "BTC_USDT_USDT")
    write_pair(tmp_path, "ETH_USDT_USDT", first=8)

    markets = bt.Markets.load(tmp_path)
    assert markets.names == ("BTCUSDT", "ETHUSDT")
    assert markets.currency == "USDT"
    assert markets["ETHUSDT"].funding_rate[0] == 1e-4

    chosen = bt.Markets.load(tmp_path, instruments=["ETH/USDT:USDT", "BTC_USDT_USDT"])
    assert chosen.names == ("ETH/USDT:USDT", "BTC_USDT_USDT")
    assert chosen["ETH/USDT:USDT"] == markets["ETHUSDT"]


def test_several_paths_are_named_after_their_folders_and_what_they_hold(tmp_path):
    save_own(tmp_path / "btc", "BTCUSDT")
    write_pair(tmp_path / "eth", "ETH_USDT_USDT")
    write_pair(tmp_path / "rest", "LTC_USDT_USDT")
    write_pair(tmp_path / "rest", "XRP_USDT_USDT")

    paths = [tmp_path / name for name in ("btc", "eth", "rest")]
    assert bt.Markets.load(*paths).names == ("btc", "ETHUSDT", "LTCUSDT", "XRPUSDT")

    write_pair(tmp_path / "other", "ETH_USDT_USDT")
    assert bt.Markets.load(paths[1], tmp_path / "other").names == ("eth", "other")

    wanted = ["ETHUSDT", "BTCUSDT"]
    assert bt.Markets.load(*paths[:2], instruments=wanted).names == ("ETHUSDT", "BTCUSDT")
    check_refused(
        lambda: bt.Markets.load(*paths, instruments=wanted),
        "has LTCUSDT, XRPUSDT, chosen are ETHUSDT, BTCUSDT; add one of the path's, or leave",
    )

    assert bt.Markets.load(paths[0]).names == ("BTCUSDT",)
    check_refused(lambda: bt.Markets.load(paths), "; bt.Markets.load(*paths) gives")


def test_a_span_is_cut_before_the_checks_and_may_reach_beyond_one_instrument(tmp_path):
    save_own(tmp_path / "A")
    save_own(tmp_path / "B", first=10, stop=20)

    markets = bt.Markets.load(tmp_path, since="2023-01-01T04:00", until="2023-01-02T08:00")

    assert markets.spans.tolist() == [[0, 28], [6, 16]]
    assert markets.tradable()[1].sum() == 9

    assert repr(markets["A"]).endswith("since='2023-01-01 04:00', until='2023-01-02 08:00')")
    span = "since='2023-01-01 04:00', until='2023-01-02 08:00'"
    assert markets.source == f"Markets.load({str(tmp_path)!r}, {span})"


@pytest.mark.parametrize(("folders", "instruments", "words"), [
    (["own"], ["A", "b"], "be among the data, got 'b'"),
    (["own", "apart"], ["A", "B"], "'A' is in 2 places"),
    (["apart"], None, "spans of the instruments must overlap"),
])  # fmt: skip
def test_bad_panels_on_disk_are_refused(tmp_path, folders, instruments, words):
    for name, span in (("A", {"stop": 10}), ("B", {"first": 30})):
        save_own(tmp_path / "own" / name)
        save_own(tmp_path / "apart" / name, **span)

    paths = [tmp_path / name for name in folders]
    check_refused(lambda: bt.Markets.load(*paths, instruments=instruments), words)
