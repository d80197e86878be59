"""bounds() of several instruments: against all orders one by one, by hand, and against one."""

import itertools
import math
from typing import Annotated

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.risk.bounds import bounds_run
from backtest.risk.bounds.bar_orders import low_first_probability
from backtest.risk.bounds.bounds_portfolio import PortfolioOrders
from tests.risk.accounts import Hold, free_account, free_venue
from tests.risk.test_bounds import FLAT, bars_of

WIDE = (100, 106, 94, 100)
OF_BENCHMARK = (
    "alpha",
    "alpha_error",
    "beta",
    "beta_error",
    "break_even_drift",
    "break_even_leverage",
)
STOPS = {"stop_loss": 0.05, "take_profit": 0.05}


class Once(bt.Policy):
    """Open a position at the close of one bar, and leave it."""

    lever: Annotated[float, bt.Range(0, 50, "turns")] = 4.0
    bar: Annotated[int, bt.Range(0, 50, "bars")] = 0

    def observe(self, market):
        return {"target": np.where(np.arange(market.n_bars) == self.bar, self.lever, np.nan)}

    def leverage(self, bar, account):
        return bar.target


def bound(markets, policy, signal=None, depth=12, **terms):
    return bt.bounds(
        markets, policy, venue=free_venue(), account=free_account(**terms), signal=signal,
        depth=depth, compile=False,
    )  # fmt: skip


def draw_rows(rng, wide: tuple[int, ...], n: int = 6) -> list[tuple[float, ...]]:
    """Return bars that follow each other, and move far where they are wide."""
    rows, last = [], 100.0
    for t in range(n):
        spread = 0.06 if t in wide else 0.0005
        close = last * math.exp(spread * rng.uniform(-0.7, 0.7))
        high, low = (max(last, close), min(last, close))
        rows.append((last, high * (1 + spread * rng.uniform()), low * (1 - spread * rng.uniform()),
                     close))  # fmt: skip
        last = close
    return rows


def split(rows, low_first: dict[int, bool]) -> list[tuple[float, ...]]:
    """Return three bars for each, along its extremes in an order."""
    found = []
    for t, (start, high, low, close) in enumerate(rows):
        is_low_first = low_first.get(t, close >= start)
        ends = [start, low, high, close] if is_low_first else [start, high, low, close]
        found += [(a, max(a, b), min(a, b), b) for a, b in itertools.pairwise(ends)]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "lever", "short", "terms"), [
    (0, 8.0, 0.8, {"stop_loss": 0.03, "take_profit": 0.03}),
    (1, 12.0, -0.9, {}),
    (4, 8.0, 0.8,
     {"margin": {"A": "isolated", "B": "cross"}, "venue_leverage": 20.0, "take_profit": 0.03}),
])  # fmt: skip
def test_all_orders_one_by_one_on_three_times_finer_bars(seed, lever, short, terms):
    """Two instruments and six bars, three of them wide: 64 runs, each along its own path."""
    rng, wide = np.random.default_rng(seed), (2, 3, 5)
    rows = {name: draw_rows(rng, wide) for name in "AB"}
    weights = {"A": 1.0, "B": short}
    found = bound(
        bt.Markets({name: bars_of(each) for name, each in rows.items()}), Once(lever, 0),
        weights, **terms,
    )  # fmt: skip
    equities, chances = [], []
    for order in itertools.product((True, False), repeat=6):
        low_first = {"A": dict(zip(wide, order[:3], strict=True)),
                     "B": dict(zip(wide, order[3:], strict=True))}  # fmt: skip
        fine = bt.Markets({
            name: bars_of(split(rows[name], low_first[name]), freq="20min") for name in "AB"
        })  # fmt: skip
        result = bt.run(
            fine, Once(lever, 2), venue=free_venue(), account=free_account(**terms),
            signal=weights, compile=False,
        )  # fmt: skip
        equities.append(result.metrics["final_equity"])
        chances.append(math.prod(
            p if is_first else 1.0 - p
            for name in "AB"
            for t, is_first in low_first[name].items()
            for p in [low_first_probability(*rows[name][t])]
        ))  # fmt: skip
    row = found.table.loc["final_equity"]
    assert len(found.bars) > 0
    assert row["worst"] == pytest.approx(min([*equities, row["as_run"]]), rel=1e-9)
    assert row["best"] == pytest.approx(max([*equities, row["as_run"]]), rel=1e-9)
    assert row["expected"] == pytest.approx(float(np.dot(equities, chances)), rel=1e-6)
    assert not found.is_inner


def test_two_stops_and_take_profits_in_one_bar_by_hand():
    # half of 2x of 1000 in each at 100: 10 contracts; a stop at 95 loses 50, a profit earns 50
    markets = bt.Markets({"A": bars_of([FLAT, FLAT, WIDE, FLAT]),
                          "B": bars_of([FLAT, FLAT, (100, 107, 93, 100), FLAT])})  # fmt: skip
    found = bound(markets, Hold(2.0), **STOPS)
    row = found.table.loc["final_equity"]
    assert row.tolist() == pytest.approx([900.0, 900.0, 1100.0, 1000.0], abs=3.0)
    bar = found.bars.iloc[0]
    assert bar["events"] == "stop or take-profit (A, B)"
    assert bar["states"] == 4
    assert found.lives == 4
    assert "1 bar is ambiguous" in found.verdict


def test_the_record_of_an_order_has_nothing_of_the_order_before():
    markets = bt.Markets({"A": bars_of([FLAT, FLAT, WIDE, FLAT]),
                          "B": bars_of([FLAT, FLAT, (100, 107, 93, 100), FLAT])})  # fmt: skip
    run = bt.run(markets, Hold(2.0), venue=free_venue(), account=free_account(**STOPS),
                 compile=False)  # fmt: skip
    orders = PortfolioOrders(run, None, 12)
    lane = orders.begin()
    for t in range(2):
        lane = lane._replace(state=orders.take(lane.state, t, orders.inputs).state)
    found = orders.pass_bar(lane, 2)
    profits = [each.state.record.account.price_pnl.tolist() for each in found.others]
    assert profits == [[each.ledger.price_pnl] for each in found.others]
    assert [0.0] in profits


def test_a_second_instrument_without_weight_changes_nothing():
    market = bars_of([FLAT, FLAT, WIDE, FLAT, WIDE, FLAT])
    one = bound(market, Hold(2.0), **STOPS)
    two = bound(bt.Markets({"A": market, "B": market}), Hold(2.0), {"A": 1.0, "B": 0.0}, **STOPS)
    names = ["final_equity", "max_drawdown", "stops", "total_return"]
    pd.testing.assert_frame_equal(one.table.loc[names], two.table.loc[names], rtol=1e-9)
    assert one.lives == two.lives


def test_the_same_market_twice_has_one_order():
    market = bars_of([FLAT, FLAT, WIDE, FLAT])
    found = bound(bt.Markets(dict.fromkeys("AB", market)), Hold(2.0), **STOPS)
    assert found.bars["states"].tolist() == [2]
    assert found.table.loc["final_equity", "expected"] == pytest.approx(1000.0, abs=5.0)


def test_more_ambiguous_instruments_than_the_depth_are_told():
    markets = bt.Markets({
        name: bars_of([FLAT, FLAT, (100, 106 + k, 94, 100), FLAT]) for k, name in enumerate("ABC")
    })  # fmt: skip
    wide, narrow = (bound(markets, Hold(3.0), depth=depth, **STOPS) for depth in (3, 2))
    assert not wide.is_inner
    assert not wide.limits
    assert narrow.is_inner
    assert "in 1 bar only the order of the 2 largest positions was varied" in narrow.summary()
    assert "between at least" in narrow.verdict
    low, high = (each.table.loc["final_equity"] for each in (wide, narrow))
    assert low["worst"] <= high["worst"] <= high["as_run"] <= high["best"] <= low["best"]


def test_merging_equal_states_changes_no_bound(monkeypatch):
    markets = bt.Markets({"A": bars_of([FLAT, FLAT, WIDE, FLAT, WIDE]),
                          "B": bars_of([FLAT, FLAT, FLAT, WIDE, WIDE])})  # fmt: skip
    merged = bound(markets, Hold(2.0), **STOPS).table
    monkeypatch.setattr(bounds_run, "merge", lambda lanes, _: lanes)
    pd.testing.assert_frame_equal(merged, bound(markets, Hold(2.0), **STOPS).table, rtol=1e-9)


def test_finer_bars_are_for_one_instrument():
    market = bars_of([FLAT] * 3)
    with pytest.raises(bt.ParameterError, match="refine is for one position"):
        bt.bounds(bt.Markets(dict.fromkeys("AB", market)), Hold(2.0), venue=free_venue(),
                  account=free_account(), refine=market, compile=False)  # fmt: skip


@pytest.mark.slow
def test_bounds_are_the_same_compiled_and_plain(monkeypatch):
    monkeypatch.setenv("BACKTEST_COMPILE", "now")
    markets = bt.Markets({"A": bars_of([FLAT, FLAT, WIDE, FLAT]),
                          "B": bars_of([FLAT, FLAT, (100, 107, 93, 100), FLAT])})  # fmt: skip
    tables = [
        bt.bounds(
            markets, Hold(2.0), venue=free_venue(), account=free_account(**STOPS), compile=compiled
        ).table
        for compiled in (True, False)
    ]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_a_result_of_several_counts_its_ambiguous_bars():
    markets = bt.Markets({"A": bars_of([FLAT, FLAT, WIDE, FLAT]), "B": bars_of([FLAT] * 4)})
    result = bt.run(
        markets, Hold(2.0), venue=free_venue(), account=free_account(**STOPS), compile=False
    )
    assert result.ambiguous == 1


def test_what_acts_on_closes_and_fee_tiers_are_in_the_bounds():
    """Margin calls, equity stops, fills at the close and fee tiers: the account's own bar."""
    markets = bt.Markets({"A": bars_of([FLAT, FLAT, WIDE, FLAT, FLAT]),
                          "B": bars_of([FLAT, FLAT, FLAT, WIDE, FLAT])})  # fmt: skip
    tiers = free_venue().override({"fees.tiers": [bt.FeeTier(1e3, 1e-4, 0.0)]})
    given = [
        ({"equity_stop": 0.04}, free_venue()),
        ({"fill": "next_close", **STOPS}, free_venue()),
        ({"margin_call": 0.5, "reserve": 100.0, "top_up_to": 0.3, **STOPS}, free_venue()),
        (STOPS, tiers),
    ]  # fmt: skip
    for terms, venue in given:
        found = bt.bounds(
            markets, Hold(2.0), venue=venue, account=free_account(**terms), compile=False
        )
        row = found.table.loc["final_equity"]
        assert row["worst"] <= row["as_run"] <= row["best"]
        assert found.result.metrics["final_equity"] == row["as_run"]
        alone, beside = (
            bt.bounds(each, Hold(2.0), venue=venue, account=free_account(**terms), compile=False,
                      signal=signal).table
            for each, signal in ((markets["A"], None), (markets, {"A": 1.0, "B": 0.0}))
        )  # fmt: skip
        columns = ["worst", "as_run", "best", "expected"]
        beside = beside.loc[[name for name in alone.index if name not in OF_BENCHMARK], columns]
        alone = alone.loc[beside.index, columns]
        np.testing.assert_allclose(alone, beside, rtol=1e-9, atol=1e-12)
