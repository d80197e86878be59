"""The portfolio index is the price of one unit of equity that holds the weights of a signal."""

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.base.errors import DataError, ParameterError
from backtest.market.weight_frame import read_weights, weights_to_frame
from tests.kit import check_refused, every_nth, make_market

START = pd.Timestamp("2024-01-01", tz="UTC")


A = [(100, 100, 100, 100), (100, 120, 90, 110), (110, 121, 99, 99), (99, 99, 99, 99)]
B = [(50, 50, 50, 50), (50, 55, 40, 45), (45, 54, 45, 54), (54, 54, 54, 54)]
PAIR = bt.Markets({"A": make_market(A), "B": make_market(B)})


def test_the_index_by_hand():
    index = PAIR.index({"A": 0.5, "B": 0.5})
    # Bar 0 holds nothing. Bar 1: A closes up, so it goes open, low, high, close: 1, .9, 1.2, 1.1
    # of its open; B closes down: 1, 1.1, .8, .9. The halves add up to 1, 1, 1, 1.
    # Bar 2: A goes down from 110: 1, 1.1, .9, .9; B up from 45: 1, 1, 1.2, 1.2 -> 1, 1.05, 1.05,
    # 1.05. Bar 3 is flat at 1.05.
    np.testing.assert_allclose(index.open, [1.0, 1.0, 1.0, 1.05], rtol=1e-15)
    np.testing.assert_allclose(index.high, [1.0, 1.0, 1.05, 1.05], rtol=1e-15)
    np.testing.assert_allclose(index.low, [1.0, 1.0, 1.0, 1.05], rtol=1e-15)
    np.testing.assert_allclose(index.close, [1.0, 1.0, 1.05, 1.05], rtol=1e-15)
    assert np.isnan(index.volume).all()
    assert not index.has_mark
    np.testing.assert_array_equal(index.mark_low, index.low)
    assert index.instrument == "portfolio"


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_an_index_of_a_part_is_the_part_of_the_index(n):
    flat = make_market([(10, 10, 10, 10)] * 6)
    rising = [(100, 100, 100, 100), (110, 110, 110, 110), (121, 121, 121, 121)]
    markets = bt.Markets({"X": flat, "Y": make_market(rising, start="2024-01-01 01:00")})
    whole, part = markets.index(), markets.prefix(n).index()
    np.testing.assert_array_equal(part.close, whole.close[:n])
    np.testing.assert_array_equal(part.mark_high, whole.mark_high[:n])


def test_an_index_that_reaches_zero_is_an_error():
    # In bar 1, A at its high and B at its low: 1 + 5 x 0.2 - 12 x 0.2.
    words = "stay over 0, falls to -0.4 with weights of 17 in total in bar 1, 2024-01-01 01:00 UTC"
    check_refused(lambda: PAIR.index({"A": 5.0, "B": 12.0}), words, DataError)
    check_refused(lambda: PAIR.index({"B": -10.0}), "stay over 0", DataError)


def frame(**changes: object) -> pd.DataFrame:
    return pd.DataFrame({"A": 0.5, "B": -0.5} | changes, index=PAIR.times)


def test_weights_are_read_by_time_and_name():
    given = frame().iloc[::-1][["B", "A"]]
    np.testing.assert_array_equal(read_weights(given, PAIR), [[0.5] * 4, [-0.5] * 4])
    given = frame().tz_convert("Asia/Tokyo").iloc[1:3]
    np.testing.assert_array_equal(read_weights(given, PAIR)[0], [0.0, 0.5, 0.5, 0.0])
    only = frame(B=np.nan)
    np.testing.assert_array_equal(read_weights(only, PAIR)[1], [0.0] * 4)
    np.testing.assert_array_equal(read_weights(frame()[["A"]], PAIR)[1], [0.0] * 4)
    wider = frame().reindex(PAIR.times.union(PAIR.times + pd.Timedelta("4h"))).fillna(0.25)
    np.testing.assert_array_equal(read_weights(wider, PAIR), read_weights(frame(), PAIR))
    back = weights_to_frame(read_weights(given, PAIR), PAIR)
    assert back.columns.tolist() == ["A", "B"]
    np.testing.assert_array_equal(read_weights(back, PAIR), read_weights(given, PAIR))


def test_weights_of_the_whole_are_weights_of_a_part():
    late = make_market(B[2:], start="2024-01-01 02:00")
    markets = bt.Markets({"A": make_market(A), "L": late})
    given = pd.DataFrame({"A": 0.5, "L": 0.5}, index=markets.times)
    part = markets.prefix(2)
    assert part.names == ("A",)
    np.testing.assert_array_equal(read_weights(given, part), [[0.5, 0.5]])
    np.testing.assert_array_equal(read_weights({"A": 1.0, "L": 1.0}, part), [[1.0, 1.0]])


HOURS = PAIR.times
BAD = {
    "unknown": (frame(C=1.0), "got 'C'"),
    "two columns": (frame()[["A", "A"]], "'A' has several"),
    "no zone": (frame().tz_localize(None), "in UTC, have no time zone"),
    "between bars": (frame().set_axis(HOURS + pd.Timedelta("30min")), "the open of a bar, 4"),
    "infinite": (
        frame(A=[0.0, np.inf, 0.0, 0.0]),
        "1 of 8 are not, first that of 'A' at 2024-01-01 01:00",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_weights_are_refused(case):
    signal, words = BAD[case]
    check_refused(lambda: PAIR.index(signal), words, ParameterError)


N = 40


def draw_market(rng: np.random.Generator, first: int, stop: int) -> bt.Market:
    """Return a market of random hours, with marks and a settlement every four of them."""
    n = stop - first
    last = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.02, n)))
    opens = last * np.exp(rng.normal(0.0, 0.01, n))
    wick = np.exp(np.abs(rng.normal(0.0, 0.01, (2, n))))
    high, low = np.maximum(opens, last) * wick[0], np.minimum(opens, last) / wick[1]
    index = START + pd.to_timedelta(np.arange(first, stop), unit="h")
    columns = ["open", "high", "low", "close"]
    bars = pd.DataFrame(np.transpose([opens, high, low, last]), index, columns)
    hours = [hour for hour in range(first, stop) if hour % 4 == 0]
    jitter = pd.to_timedelta(rng.integers(0, 20, len(hours)), unit="ms")
    stamps = START + pd.to_timedelta(hours, unit="h") + jitter
    return bt.Market.from_frames(
        bars,
        mark=bars * (1.0 + rng.normal(0.0, 1e-3)),
        funding=pd.Series(rng.normal(0.0, 1e-3, len(hours)), index=stamps),
        funding_gaps="zero",
    )


def draw_panel(seed: int) -> tuple[bt.Markets, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    spans = {"A": (0, N), "B": (int(rng.integers(0, 15)), int(rng.integers(25, N))), "C": (5, N)}
    markets = bt.Markets({name: draw_market(rng, *span) for name, span in spans.items()})
    weights = pd.DataFrame(
        rng.normal(0.0, 0.4, (N, 3)), index=markets.times, columns=[*markets.names]
    )
    return markets, weights.where(rng.uniform(size=weights.shape) < 0.8)


def follow(markets: bt.Markets, weights: pd.DataFrame) -> pd.DataFrame:
    """Return open, high, low and close of the index, last and mark, and its funding, by bar.

    A weight of the close before is held from an open to the next one, or to the last close.
    """
    times, rows = markets.times, {}
    tables = {"": {}, "mark_": {}}
    for name, market in markets.items():
        tables[""][name] = market.bars().reindex(times)
        tables["mark_"][name] = market.mark().reindex(times)
    panels = {
        f"{lead}{point}": pd.DataFrame({name: each[point] for name, each in of.items()})
        for lead, of in tables.items()
        for point in ("open", "high", "low", "close")
    }
    has_bar = panels["open"].notna()
    held = weights.shift(1).where(has_bar & has_bar.shift(1, fill_value=False)).fillna(0.0)
    before = held.shift(1, fill_value=0.0)
    following = panels["open"].fillna(panels["close"].shift(1))
    gains = before * (following / panels["open"].shift(1) - 1.0)
    value = (1.0 + gains.sum(axis=1)).cumprod()
    rises = panels["close"] >= panels["open"]
    for lead in ("", "mark_"):
        low, high = panels[f"{lead}low"], panels[f"{lead}high"]
        way = (panels[f"{lead}open"], low.where(rises, high), high.where(rises, low),
               panels[f"{lead}close"])  # fmt: skip
        points = [1.0 + (held * (each / panels["open"] - 1.0)).sum(axis=1) for each in way]
        together = value.to_numpy() * np.stack(points)
        rows |= {f"{lead}open": together[0], f"{lead}close": together[3]}
        rows |= {f"{lead}high": together.max(axis=0), f"{lead}low": together.min(axis=0)}
    rates = {name: each.funding()["rate"] for name, each in markets.items()}
    hourly = {name: rate.groupby(rate.index.floor("h")).sum() for name, rate in rates.items()}
    paid = before * pd.DataFrame(hourly).reindex(times)
    return pd.DataFrame({**rows, "funding": paid.sum(axis=1).to_numpy()})


@pytest.mark.parametrize("seed", every_nth(range(8), 4))
def test_the_index_is_that_of_tables(seed):
    markets, weights = draw_panel(seed)
    index, expected = markets.index(weights), follow(markets, weights)
    names = ("open", "high", "low", "close")
    for name in (*names, *(f"mark_{each}" for each in names)):
        np.testing.assert_allclose(getattr(index, name), expected[name], rtol=1e-12, err_msg=name)
    paid = expected["funding"].to_numpy()[::4]
    np.testing.assert_allclose(index.funding_rate, paid, rtol=1e-9, atol=1e-18)
