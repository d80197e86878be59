"""Phases of a run add up, keep their labels, and are measured as the page says."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.core import DAY
from backtest.report import build_page
from backtest.report.render import write_html
from backtest.results.phases import LEAST_MONTHS, find_turns, measure_market
from backtest.strategies import Constant
from tests.kit import AT_BINANCE, bars_market, check_refused, live, market_of, walk
from tests.scenes import account_of, venue_of

MONTHS = Path(__file__).parents[1] / "data" / "us_months.json"
SUMS = ("bars", "share", "log_growth", "funding", "fees", "liquidations")
RATIOS = ("volatility", "sharpe", "sharpe_error", "max_drawdown", "mean_leverage")
CLOSES = np.array([100.0, 110.0, 99.0, 99.0, 120.0, 108.0])


def live_on(closes=CLOSES, freq="1h", leverage=2.0, **columns):
    market = market_of(closes, freq).with_columns(**columns)
    policy = Constant(leverage=leverage)
    return bt.run(market, policy, venue=venue_of(), account=account_of(), compile=False)


def test_a_bar_belongs_to_the_label_known_at_its_open_and_phases_add_up():
    """Labels 3 7 3 7 7 3 at closes: of bars 1 to 5 those of 0 to 4, so 3 has bars 1 and 3."""
    result = live_on(heat=[3, 7, 3, 7, 7, 3])
    unit = result.bars["unit"].to_numpy()
    growth = np.log(unit / np.append(1.0, unit[:-1]))

    table = result.measures_by("heat")

    assert table.index.tolist() == [3, 7, "not yet known"]
    assert table["bars"].tolist() == [2, 3, 1]
    of_three = growth[1] + growth[3]
    of_seven = growth[2] + growth[4] + growth[5]
    assert table["log_growth"].tolist() == pytest.approx([of_three, of_seven, growth[0]])

    # 7 holds bar 2 alone, then 4 and 5: the deeper of two falls from the close before
    falls = [1.0 - unit[2] / unit[1], 1.0 - unit[5] / unit[4]]
    assert table.loc[7, "max_drawdown"] == pytest.approx(max(falls))

    for name in ("funding", "fees", "liquidations"):
        assert table[name].sum() == pytest.approx(result.metrics[name], abs=1e-12)
    assert table["share"].sum() == pytest.approx(1.0)


def test_one_phase_has_the_measures_of_the_run():
    market = bt.Market.sample(bars=24 * 60).with_columns(one=np.ones(24 * 60))
    terms = AT_BINANCE | {"account": bt.Account(capital=10_000.0)}
    start = str(market.times[24 * 5])

    result = bt.run(market, Constant(leverage=3.0), start=start, **terms)
    row = result.measures_by("one").loc[1]
    for name in (*RATIOS, "funding", "fees", "liquidations"):
        assert row[name] == pytest.approx(result.metrics[name], rel=1e-12), name
    assert row["log_growth"] == pytest.approx(math.log(1.0 + result.metrics["total_return"]))
    assert math.isnan(row["p_value"])


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["a", "b", "A", "a", "b", "a"], ["A", "a", "b"]),
        ([True, False, True, True, False, True], [False, True]),
        ([1, "1", True, 1.0, "1", 1], [True, 1, "1"]),
        ([0.0, -1.0, 1.0, None, 0.0, 1.0], [-1, 0, 1]),
        (pd.Categorical(["x", "y", "x", "y", "y", "y"]), ["x", "y"]),
    ],
)
def test_labels_are_never_merged(values, names):
    result = live_on()
    labels = pd.Series(values, index=result.bars.index)
    if labels.dtype == np.float64:
        labels = labels.astype("Float64")
    table = result.measures_by(labels)

    found = table.index.drop("not yet known").tolist()
    assert found == names
    assert [type(x) for x in found] == [type(x) for x in names]


def test_thirteen_whole_numbers_are_cut_and_twelve_are_not():
    closes = 100.0 + np.arange(40.0)
    result = live_on(closes, few=np.arange(40) % 12, many=np.arange(40) % 13)

    assert len(result.measures_by("few")) == 13

    assert result.measures_by("many").index.tolist() == ["low", "middle", "high", "not yet known"]
    assert len(result.measures_by("many", bins=5)) == 6


def test_built_in_phases_are_measured_as_they_are_said():
    """A price that moves by e^±.01 a day: a volatility of .01 sqrt(365) but for n - 1."""
    n = 120
    closes = DAY * np.arange(1, 121)
    logs = 0.01 * (np.arange(n) % 2) + np.where(np.arange(n) >= 100, 0.3, 0.0)
    price = np.exp(logs)
    sigma = measure_market(closes, price, "volatility")
    assert np.isnan(sigma[:30]).all()
    of_thirty_days = np.std(np.diff(logs[10:41]), ddof=1)
    assert sigma[40] == pytest.approx(of_thirty_days * math.sqrt(365))

    trend = measure_market(closes, price, "trend")
    assert np.isnan(trend[:90]).all()
    deviation = sigma[110] / math.sqrt(365) * math.sqrt(90)
    assert trend[110] == pytest.approx((logs[110] - logs[20]) / deviation)

    drawdown = measure_market(closes, price, "drawdown")
    assert drawdown[98] == pytest.approx(1 - math.exp(-0.01))


def month_opens(first, n):
    months = np.datetime64(first) + np.arange(n)
    return months.astype("datetime64[ns]").astype(np.int64)


@pytest.mark.parametrize("seed", range(8))
def test_turning_points_are_those_of_the_phases_that_a_price_was_made_of(seed):
    """Bull and bear markets of 9 to 40 months by turns, in which every month moves the same way.

    A peak is the highest price of the 8 months on either side because no phase is shorter than 9;
    every cycle has at least 18 months, and no price before the first turn, or after the last, is
    beyond it.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(9, 41, size=rng.integers(4, 12))
    lengths[[0, -1]] = 24
    signs = np.where((np.arange(len(lengths)) + rng.integers(2)) % 2 == 0, 1.0, -1.0)
    steps = np.repeat(signs, lengths)

    size = np.repeat(rng.uniform(0.1, 0.6, len(lengths)) / lengths, lengths)
    size *= rng.uniform(0.5, 1.5, size=len(steps))
    logs = np.cumsum(np.append(0.0, steps * size))

    table = bt.measures.turning_points(month_opens("1950-01", len(logs)), np.exp(logs))

    turned = table.index.tz_localize(None).to_numpy().astype("datetime64[M]")
    made = np.datetime64("1950-01") + np.cumsum(lengths)[:-1]
    assert turned.tolist() == made.tolist()
    assert table["kind"].tolist() == np.where(signs[:-1] > 0.0, "peak", "trough").tolist()


def test_the_turning_points_of_a_century_of_stocks_keep_the_rules():
    """Of Mkt-RF + RF: each rule of the algorithm holds between all neighbors."""
    data = json.loads(MONTHS.read_text())
    n = len(data["percent"])
    price = np.cumprod(1.0 + np.array(data["percent"]) / 100.0)

    turns = find_turns(price)

    assert len(turns) > 20
    assert 6 <= turns[0].month < turns[-1].month <= n - 7

    for turn, following in itertools.pairwise(turns):
        assert turn.side == -following.side
        move = abs(price[following.month] / price[turn.month] - 1.0)
        is_long = following.month - turn.month >= 4
        if not is_long:
            assert move > 0.2

    for turn, second in zip(turns, turns[2:], strict=False):
        assert second.month - turn.month >= 16

    for turn in turns:
        around = turn.side * price[max(turn.month - 8, 0) : turn.month + 9]
        assert turn.side * price[turn.month] == around.max()


def test_short_phases_and_cycles_go_unless_the_price_moved_by_a_fifth():
    """Up for 24 months, down for 3, up again: a fall of 10 % goes, one of 30 % stays."""
    for fall, count in ((0.1, 0), (0.3, 2)):
        top = 0.02 * 23
        down = top + math.log(1.0 - fall) * np.arange(1, 4) / 3.0
        logs = np.concatenate((0.02 * np.arange(24), down, down[-1] + 0.03 * np.arange(1, 30)))
        assert len(find_turns(np.exp(logs))) == count

    assert find_turns(np.ones(60)) == []


def test_bull_and_bear_markets_are_known_only_afterwards():
    """Up for 24 months, down for 16, up for 32: the bear market has the months after the peak."""
    steps = np.concatenate((np.arange(24), np.arange(24, 8, -1), np.arange(8, 40)))
    days = pd.date_range("2015-01-01", "2020-12-31", freq="D")
    month = (days.year - 2015) * 12 + days.month - 1
    closes = np.exp(0.02 * steps[month]) * 100.0

    result = live_on(closes, freq="1D", leverage=1.0)
    table = result.measures_by("bull_bear")
    assert result.market is not None

    assert table.index.tolist() == ["bull", "bear"]
    first = result.bars.index[0]
    after = (result.bars.index.year - first.year) * 12 + result.bars.index.month - first.month
    assert table.loc["bear", "bars"] == ((after > 24) & (after <= 40)).sum()
    assert table.attrs["says"][-1].startswith("Known only afterwards")


def test_the_part_of_one_phase_and_the_test_are_said():
    """Days of +2 % and -1 % by turns, by what was known before: growth differs, 1 of 2,000."""
    n = 24 * 300
    day = np.arange(n) // 24
    is_good = day % 2 == 0
    noise = np.random.default_rng(1).normal(0.0, 0.0005, n)
    steps = np.where(is_good, 0.02, -0.01) / 24 + noise
    known = np.where(np.append(is_good[1:], is_good[-1]), 1.0, 0.0)

    market = market_of(100.0 * np.exp(np.cumsum(steps))).with_columns(good=known)
    table = live(market, Constant(leverage=1.0)).measures_by("good")

    assert table.loc[0, "p_value"] == 1 / 2000
    assert table.loc[1, "p_value"] == 1 / 2000

    assert table.loc[1, "log_growth"] > table["log_growth"].sum()
    first, second = table.attrs["says"]
    assert first == (
        "All of the growth came from one phase, 1, in 50 % of the time; the others lost together."
    )
    assert second.startswith("Growth in 0 differs from the rest (p-value 0.001")


def test_growth_that_does_not_depend_on_the_label_is_not_told_apart():
    label = np.arange(4800) // 24 % 2
    market = walk(24 * 200, mu=0.3, sigma=0.6, seed=3).with_columns(odd=label)

    table = live(market, Constant(leverage=1.0)).measures_by("odd")

    assert table.loc[0, "p_value"] > 0.2
    assert "by more than chance" in table.attrs["says"][-1]


def test_several_instruments_name_columns_by_instrument(tmp_path):
    one = bt.Market.sample(bars=480).with_columns(state=np.arange(480) % 2)
    two = bt.Market.sample(bars=480).with_columns(state=np.arange(480) % 3)
    markets = bt.Markets({"BTCUSDT": one, "ETHUSDT": two})
    venues = {name: bt.Venue.preset("binance-usdm", name) for name in markets.names}

    book = bt.run(markets, Constant(leverage=1.0), venue=venues, account=bt.Account())
    assert len(book.measures_by("ETHUSDT.state")) == 4
    assert book.measures_by("drawdown")["bars"].sum() == 480
    check_refused(lambda: book.measures_by("state"), "BTCUSDT.state, ETHUSDT.state")

    loaded = bt.Result.load(book.save(tmp_path))
    pd.testing.assert_frame_equal(loaded.measures_by("drawdown"), book.measures_by("drawdown"))
    check_refused(lambda: loaded.measures_by("ETHUSDT.state"), "not a loaded result")


def test_a_ruined_account_has_no_test_of_its_growth():
    closes = np.concatenate((100.0 + np.arange(30.0), [1.0, 1.0, 2.0, 1.0]))
    opens = np.concatenate((closes[:1], closes[:29], closes[30:]))  # a gap to 1
    market = bars_market(opens, closes, "1D").with_columns(odd=np.arange(34) % 2)
    table = live(market, Constant(leverage=5.0)).measures_by("odd")

    assert table["log_growth"].sum() == -math.inf
    assert table["p_value"].isna().all()


@pytest.mark.parametrize(
    ("column", "bins", "words"),
    [
        ("volatilty", None, "did you mean 'volatility'"),
        ("heat", 3, "which are never merged; leave bins out"),
        ("bull_bear", None, f"need {LEAST_MONTHS} month ends"),
        ("bull_bear", 3, "bins is for columns of other numbers"),
        ("volume", None, "column must be one of"),
        ("warm", 1, "bins must be 2 to 100, got 1"),
        (5, None, "column must be text or a Series"),
        ("trend", None, "market.bars()['trend']"),
    ],
)
def test_phases_that_cannot_be_found_are_refused(column, bins, words):
    result = live_on(heat=np.arange(6) % 2, warm=np.arange(6) / 7, trend=np.zeros(6))
    check_refused(lambda: result.measures_by(column, bins), words)


def test_series_that_do_not_fit_the_bars_are_refused():
    result = live_on()
    index = result.bars.index

    check_refused(lambda: result.measures_by(pd.Series("a", index=index[1:])), "lacks 1 of 6")
    check_refused(lambda: result.measures_by(pd.Series([1, 2])), "indexed by time")

    times = pd.Series(index, index=index, name="since")
    check_refused(lambda: result.measures_by(times), "since must have texts")

    daily = result.bars.index.to_series().dt.date.astype(str)[:1]
    cured = daily.shift(1).reindex(index, method="ffill")
    assert result.measures_by(cured).index.tolist() == ["not yet known"]


def test_turning_points_need_positive_prices_and_four_years():
    months = np.arange(np.datetime64("2000-01"), np.datetime64("2006-01"))
    time = months.astype("datetime64[ns]").astype(np.int64)
    price = np.ones(len(time))

    assert len(bt.measures.turning_points(time, price)) == 0
    check_refused(lambda: bt.measures.turning_points(time[:47], price[:47]), "got 47")
    check_refused(lambda: bt.measures.turning_points(time, 0.0 * price), "price must be over 0")
    check_refused(lambda: bt.measures.turning_points(time[:-1], price), "price")


def test_the_page_has_the_phases_with_their_sentence():
    market = bt.Market.sample(bars=24 * 120).with_columns(state=np.arange(24 * 120) // 24 % 2)
    result = bt.run(market, Constant(leverage=2.0), **AT_BINANCE)

    page = write_html(build_page(result))
    assert "Market phases" in page
    assert "Volatility of 30 days" in page
    assert "growth differs from the rest by more than chance" in page
