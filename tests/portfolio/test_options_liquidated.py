"""Accounts with options under stress: the walk, liquidation, what protection does."""

import math
from itertools import pairwise

import numpy as np
import pytest

import backtest as bt
from backtest.account.ledger import BAD_DEBT, EQUITY_STOPPED, LIQUIDATED
from tests.kit import flat
from tests.portfolio.option_accounts import (
    HOUR_YEARS,
    STANDARD,
    list_events,
    make_feed,
    run_options,
)

MONTH = 720
STRANGLE = [
    {"sign": 1.0, "strike": 110.0, "expiry": MONTH, "targets": {1: -10.0}},
    {"sign": -1.0, "strike": 90.0, "expiry": MONTH, "targets": {1: -10.0}},
]
RALLY = [flat(100), flat(100), (100, 125, 100, 120), flat(120)]
NET = bt.ScenarioMargin(moves={"BTC": [(-0.15, 1.0, 0.0), (0.15, 1.0, 0.0)]})


def price(sign, index, strike, hours, volatility=0.6):
    kind = "call" if sign > 0 else "put"
    return bt.options.price(kind, index, strike, hours * HOUR_YEARS, volatility)


def near(value, expected, rel=1e-9):
    return value == pytest.approx(expected, rel=rel, abs=1e-9)


def value_strangle(index, hours, volatility=0.6):
    return sum(price(each["sign"], index, each["strike"], hours, volatility) for each in STRANGLE)


def find_failure(cash, hours=MONTH - 2):
    """Bisect w = 10 (c + p + 2 x 0.075 S) for the price above 100."""
    low, high = 100.0, 125.0
    for _ in range(100):
        middle = 0.5 * (low + high)
        needed = 10 * (value_strangle(middle, hours) + 0.15 * middle)
        low, high = (low, middle) if cash <= needed else (middle, high)
    return high


def test_a_short_strangle_is_closed_where_the_cash_is_its_requirement():
    """250 and the premiums of ten strangles; both legs are bought back at the marks there."""
    out = run_options(RALLY, make_feed(STRANGLE, 4), capital=250.0)
    cash = 250 + 10 * value_strangle(100.0, MONTH - 1)
    assert near(out.record.account.cash[1], cash)
    failure = find_failure(cash)
    left = cash - 10 * value_strangle(failure, MONTH - 2)
    assert near(out.record.account.equity[2], left)
    assert near(left, 10 * 0.15 * failure)
    assert [each[2] for each in list_events(out, LIQUIDATED)] == [10.0, 10.0]


def test_it_is_bought_back_over_the_mark_and_pays_fees():
    """At 60 + 1 points of half-spread + 2 of slippage; 0.03 % of the price each as a fee."""
    feed = make_feed(STRANGLE, 4, half_spreads=0.01, fee_rates=0.0003)
    venue = {"liquidation_slippage": 0.02}
    account = run_options(RALLY, feed, capital=250.0, venue=venue).record.account
    sold = value_strangle(100.0, MONTH - 1, 0.59)
    cash = 250 + 10 * sold - 20 * 0.0003 * 100
    assert near(account.cash[1], cash)
    failure = find_failure(cash)
    lost = 10 * (value_strangle(failure, MONTH - 2, 0.63) - value_strangle(failure, MONTH - 2))
    lost += 20 * 0.0003 * failure
    assert near(account.liquidation_loss[2], lost)
    assert near(account.equity[2], cash - 10 * value_strangle(failure, MONTH - 2) - lost)


def test_a_takeover_leaves_nothing_of_options_and_balance():
    out = run_options(RALLY, make_feed(STRANGLE, 4), capital=250.0, venue={"mode": "takeover"})
    assert out.record.account.equity[2] == 0.0
    assert out.record.options.quantity[2].tolist() == [0.0, 0.0]


def test_a_gap_beyond_the_cash_is_bad_debt_once_the_options_are_gone():
    rows = [flat(100), flat(100), flat(200), flat(200)]
    out = run_options(rows, make_feed(STRANGLE, 4), capital=250.0)
    cash = 250 + 10 * value_strangle(100.0, MONTH - 1)
    debt = 10 * value_strangle(200.0, MONTH - 2) - cash
    assert debt > 0
    assert near(out.record.account.bad_debt[2], debt)
    assert len(list_events(out, BAD_DEBT)) == 1
    assert out.record.account.equity[2] == 0.0


@pytest.mark.parametrize("order", ["most_relief", "largest_loss", "largest_notional"])
def test_a_partial_liquidation_reduces_the_leg_that_the_order_names(order):
    """Halves of the call are bought back until the cash is more than the requirement."""
    out = run_options(RALLY, make_feed(STRANGLE, 4), capital=250.0, partial=order)
    record, events = out.record, list_events(out, LIQUIDATED)
    assert events
    first = int(events[0][4]) - 1
    assert events[0][2] == 5.0
    assert first == 0 if order != "largest_notional" else first in {0, 1}
    assert record.options.quantity[2, 0] > -10.0
    assert record.closes.backing[2] > record.closes.requirement[2]


def test_longs_are_sold_as_far_as_the_balance_is_negative():
    """Ten times long with puts that count nothing: the long closes, and a part of the puts pays."""
    put = {"sign": -1.0, "strike": 95.0, "expiry": MONTH, "targets": {1: 60.0}}
    rows = [flat(100), flat(100), flat(86), flat(86)]
    out = run_options(rows, make_feed([put], 4), level=8.0)
    record = out.record
    cash = 1000 - 60 * price(-1.0, 100.0, 95.0, MONTH - 1) - 80 * 14
    assert cash < 0
    mark = price(-1.0, 86.0, 95.0, MONTH - 2)
    assert near(record.options.quantity[2, 0], 60 + cash / mark)
    assert near(record.account.cash[2], 0.0)
    assert near(record.account.equity[3], (60 + cash / mark) * record.options.value[3, 0])


def test_protection_saves_an_account_where_it_counts_and_not_where_it_does_not():
    """Ten long at 100, ten puts of 95, capital 190: a fall to 70 costs at most 50 and the premium.

    What is left, 140 less the premium, is more than the largest requirement on the path: the loss
    of the pair at +-15 %, in the end 105 of the long alone. Where longs count none the long is
    closed where 190 - premium - 10 (100 - S) is 5 % of 10 S, though the puts gain on the way.
    """
    put = {"sign": -1.0, "strike": 95.0, "expiry": 5, "spot": 70.0, "targets": {1: 10.0}}
    rows = [flat(100), flat(100), (100, 100, 70, 70), flat(70), flat(70), flat(70)]
    premium = 10 * price(-1.0, 100.0, 95.0, 4)
    level = 1000.0 / 190.0
    kept = run_options(rows, make_feed([put], 6), rule=NET, level=level, capital=190.0)
    assert not list_events(kept, LIQUIDATED)
    assert near(kept.record.account.equity[5], 190 - 300 + 250 - premium)
    lost = run_options(rows, make_feed([put], 6), level=level, capital=190.0)
    ((bar, failure, quantity, _, owner),) = list_events(lost, LIQUIDATED)
    assert (bar, owner) == (2, 0)
    assert near(quantity, -10.0)
    assert near(failure, (1000 - 190 + premium) / 9.5)
    after = 190 - premium - 10 * (100 - failure)
    assert near(lost.record.account.cash[4], after)
    assert near(lost.record.account.equity[5], after + 250)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "intrabar"), [(STANDARD, "path"), (NET, "worst"), (bt.Strategy(), "path")]
)
def test_passing_over_parts_changes_nothing(rule, intrabar, monkeypatch):
    """The bound proves parts sound that a test of all 16 finds sound, too."""
    rng = np.random.default_rng(5)
    steps = 100 * np.exp(np.cumsum(rng.normal(0.0, 0.02, 25)))
    rows = [(a, 1.04 * max(a, b), 0.96 * min(a, b), b) for a, b in pairwise(steps)]
    contracts = [
        {"sign": float(s), "strike": k, "expiry": e, "spot": 100.0, "targets": {1: q, 10: q, 18: q}}
        for s, k, e, q in ((1, 108.0, 15, -6.0), (-1, 92.0, 70, -6.0), (1, 120.0, 70, 3.0))
    ]
    tested = []
    found = []
    from backtest.account import option_liquidation  # noqa: PLC0415 - patched here

    plain = option_liquidation.compute_left

    def count(*given):
        tested[-1] += 1
        return plain(*given)

    for bound in (option_liquidation.bound_fall, lambda *_: math.inf):
        tested.append(0)
        monkeypatch.setattr(option_liquidation, "compute_left", count)
        monkeypatch.setattr(option_liquidation, "bound_fall", bound)
        found.append(
            run_options(rows, make_feed(contracts, 24), rule=rule, level=2.0, intrabar=intrabar)
        )
    one, other = found
    assert one.entries.tobytes() == other.entries.tobytes()
    assert one.record.account.equity.tobytes() == other.record.account.equity.tobytes()
    shown = [each.record.closes.failure for each in found]
    np.testing.assert_allclose(*shown, rtol=1e-12)
    assert np.isfinite(shown[0]).any()
    assert tested[0] < 0.6 * tested[1]


def test_an_equity_stop_closes_options_too():
    """Half of the highest equity is left: the ten calls are sold at the marks there."""
    call = {"sign": 1.0, "strike": 100.0, "expiry": MONTH, "targets": {1: 10.0}}
    rows = [flat(100), flat(100), (100, 100, 80, 80), flat(80)]
    out = run_options(rows, make_feed([call], 4), capital=100.0, equity_stop=0.4)
    assert near(out.record.account.equity[2], 60.0, rel=1e-6)
    assert out.record.options.quantity[2, 0] == 0.0
    assert len(list_events(out, EQUITY_STOPPED)) == 1
