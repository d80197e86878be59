"""The benchmark: the index of what is traded, or what is given; one account given as several."""

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.base.errors import ParameterError
from backtest.engine.run_record import index_traded, read_prices, spread_weights
from tests.kit import Hold, flat, make_market, make_venue, simulate_pair

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

PAIR = simulate_pair(200, 3)
TERMS = [{}, {"margin": "isolated", "venue_leverage": 10.0}]
OF_BENCHMARK = ("alpha", "beta")


def run(markets, level=4.0, *, venue=None, account=None, **more):
    account = account or bt.Account(capital=1_000.0)
    venue = venue or make_venue(taker=0.0005, slippage=0.0002)
    return bt.run(markets, Hold(level), venue=venue, account=account, compile=False, **more)


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("kind", ["linear", "inverse"])
def test_a_weight_of_0_in_a_second_instrument_changes_no_measure(terms, kind):
    """All measures: benchmark and margin ratio included."""
    account = bt.Account(capital=1_000.0, **terms)
    venue = make_venue(taker=0.0005).override({"contract": {"kind": kind}})
    one = run(PAIR["AAA"], 7.0, venue=venue, account=account)
    two = run(PAIR, 7.0, venue=venue, account=account, signal={"AAA": 1.0, "BBB": 0.0})
    assert one.metrics["peak_margin_ratio"] > 0.3
    assert (one.metrics["liquidations"] > 0) == bool(terms)
    found = {name: two.metrics[name] for name in one.metrics}
    assert found == pytest.approx(dict(one.metrics), rel=1e-9, nan_ok=True)


def test_the_money_for_new_orders_of_cross_and_isolated_positions():
    """10,000 hold A at 2x in cross and B at 1x in isolated margin, with leverages of 20 and 4.

    B posts 10,000 / 4 = 2,500. A at 100 -> 110 gains 2,000, half of which backs orders. The pool
    has 10,000 - 2,500 + 2,000 = 9,500, the initial margin of A is 22,000 / 20 = 1,100.
    """
    prices = [flat(100), flat(100), (100, 110, 100, 110)]
    markets = bt.Markets({"A": make_market(prices), "B": make_market([flat(50)] * 3)})
    account = bt.Account(
        capital=10_000.0, margin={"A": "cross", "B": "isolated"},
        venue_leverage={"A": 20.0, "B": 4.0},
    )  # fmt: skip
    venue = make_venue().override({"profit_counts": 0.5})
    policy = {"A": Hold(2.0), "B": Hold(1.0)}
    signal = {"A": 1.0, "B": 1.0}
    done = bt.run(markets, policy, venue=venue, account=account, signal=signal, compile=False)
    free = [1.0, (7_500 - 1_000) / 10_000, (9_500 - 1_000 - 1_100) / 12_000]
    assert (done.bars["available"] / done.bars["equity"]).tolist() == pytest.approx(free)
    # cross: 5 % of 20,000 over 7,500; isolated: 500 over 2,500
    assert done.metrics["peak_margin_ratio"] == pytest.approx(0.2)


def test_weights_of_the_index_of_what_is_traded():
    """Rows are shares of |s|; rows without a signal keep the last, and the first has no earlier."""
    markets = bt.Markets({"A": make_market([flat(1)] * 5), "B": make_market([flat(1)] * 5)})
    signal = np.array([[0.0, 0.5, 0.0, -0.2, 0.0], [0.0, -1.5, 0.0, 0.0, 0.0]])
    expected = [[0.25, 0.25, 0.25, 1.0, 1.0], [0.75, 0.75, 0.75, 0.0, 0.0]]
    assert spread_weights(signal, markets).tolist() == expected
    assert spread_weights(np.zeros((2, 5)), markets).tolist() == [[0.5] * 5] * 2
    # A ends after bar 2, and cannot be bought in it
    ended = bt.Markets({"A": make_market([flat(1)] * 3), "B": make_market([flat(1)] * 5)})
    found = spread_weights(np.array([[1.0] * 5, [1.0] * 5]), ended)
    assert found.tolist() == [[0.5, 0.5, 0.0, 0.0, 0.0], [0.5, 0.5, 1.0, 1.0, 1.0]]


def test_moves_of_the_index_by_hand():
    """Half each; in bar 1 A goes from 100 to 110, and B from 50 to 60 at the open, then to 54."""
    a, b = [flat(100), (100, 110, 100, 110), flat(110)], [flat(50), (60, 60, 54, 54), flat(54)]
    markets = bt.Markets({"A": make_market(a), "B": make_market(b)})
    found = index_traded(markets, dict.fromkeys("AB", make_venue()), np.full((2, 3), -0.3), 0)
    assert found.text == "index of what is traded: A, B"
    # the first close is the base; B gaps by 20 % (index 1.1), then A +10 %, B -10 %
    assert found.moves == pytest.approx([0.0, 0.1, 0.0])
    linear, coin = make_venue(), make_venue().override({"contract": {"kind": "inverse"}})
    only = np.array([[0.0] * 3, [1.0] * 3])
    assert index_traded(markets, {"A": linear, "B": linear}, only, 0).moves[1] == pytest.approx(
        0.08
    )
    assert index_traded(markets, {"A": linear, "B": coin}, only, 0).moves[1] == pytest.approx(
        1 - 50 / 54
    )


@pytest.mark.parametrize("one", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_benchmark_is_an_instrument_weights_or_prices(one, tmp_path):
    if one:
        markets, given = bt.Markets({"AAA": PAIR["AAA"]}), {"AAA": 1.0}
    else:
        markets, given = PAIR, {"AAA": 0.0, "BBB": 1.0}
    name = next(n for n, weight in given.items() if weight)
    frame = pd.DataFrame(given, index=markets.times)
    prices = pd.Series(
        markets[name].mark_close, index=pd.to_datetime(markets[name].time, utc=True), name="mark"
    )
    prices = prices.reindex(markets.times).bfill().ffill()
    found = [run(markets, benchmark=each) for each in (name, frame, given, prices)]
    for result in found[1:]:
        expected = {each: found[0].metrics[each] for each in OF_BENCHMARK}
        assert {each: result.metrics[each] for each in OF_BENCHMARK} == pytest.approx(expected)
    assert len({each.manifest["id"] for each in found[1:]}) == 2  # a mapping is a frame
    loaded = type(found[3]).load(found[3].save(tmp_path))
    assert dict(loaded.metrics) == pytest.approx(dict(found[3].metrics), rel=0, nan_ok=True)


def test_another_benchmark_moves_only_the_measures_that_compare_with_it():
    plain = run(PAIR["AAA"])
    other = run(PAIR["AAA"], benchmark=pd.Series(
        np.exp(np.cumsum(PAIR["AAA"].close % 0.01)), index=PAIR.times))  # fmt: skip
    moved = {name for name, value in plain.metrics.items() if other.metrics[name] != value}
    assert {*OF_BENCHMARK} <= moved - {name for name in moved if np.isnan(plain.metrics[name])}


def test_the_first_return_is_that_since_the_close_before_only_in_a_resumed_run():
    prices = pd.Series(np.arange(1.0, 201.0), index=PAIR.times)
    begun = run(PAIR, start=PAIR.times[100], benchmark=prices)
    assert begun.market_returns[:2].tolist() == pytest.approx([0.0, 1 / 101])
    before = run(PAIR.prefix(100), benchmark=prices)
    resumed = run(PAIR, resume=before, benchmark=prices)
    assert resumed.market_returns[0] == pytest.approx(1 / 100)


@pytest.mark.parametrize(("given", "message"), [
    ("CCC", "benchmark must be an instrument of the run, .*got 'CCC'"),
    (1.5, "benchmark must be .*got float"),
    ({"CCC": 1.0}, "got one of 'CCC'"),
    (pd.Series([1.0], index=[0]), "must be indexed by time"),
    (pd.Series(1.0, index=PAIR.times[:150]), "50 of 200 have none, the first at 2024-01-07"),
])  # fmt: skip
def test_bad_input_is_refused(given, message):
    with pytest.raises(ParameterError, match=message):
        run(PAIR, benchmark=given)


def test_prices_are_matched_by_the_opens_of_bars():
    prices = pd.Series([5.0, 1.0, 2.0, 3.0], index=PAIR.times[[50, 0, 1, 2]])
    assert read_prices(prices, PAIR.prefix(3), 0).tolist() == [0.0, 1.0, 0.5]
