"""Greeks of option positions, and their profit explained."""

import numpy as np
import pytest

from backtest import options
from backtest.results.option_profit import (
    EXPLAINED,
    OptionQuotes,
    OptionTerms,
    explain_profit,
    measure_greeks,
)

HOUR = 1.0 / 8760.0


def make_terms(*, coin):
    """Return a put, a call and a longer call on one underlying."""
    return OptionTerms(
        names=("P", "C", "L"), signs=np.array([-1.0, 1.0, 1.0]),
        strikes=np.array([90.0, 108.0, 120.0]), sizes=np.array([1.0, 2.0, 1.0]),
        are_coin=np.full(3, coin), instruments=np.zeros(3, dtype=np.int64),
        expiries=np.zeros(3, dtype=np.int64), rates=np.full(3, 0.02),
    )  # fmt: skip


def make_quotes(terms, n, seed=5):
    """Return quotes of n hours: a random walk of the index and of each volatility."""
    draw = np.random.default_rng(seed)
    steps = 0.006 * draw.standard_normal(n + 1)
    index = np.tile(100.0 * np.exp(np.cumsum(steps))[:, None], 3)
    moves = 0.004 * draw.standard_normal((n + 1, 3))
    volatility = 0.6 * np.exp(np.cumsum(moves, axis=0))
    years = np.array([0.12, 0.09, 0.25]) - HOUR * np.arange(n + 1)[:, None]
    forward = index * np.exp(0.04 * years)

    values = []
    for k, (sign, size) in enumerate(zip(terms.signs, terms.sizes, strict=True)):
        kind = "call" if sign > 0.0 else "put"
        settlement = "coin" if terms.are_coin[k] else "cash"
        price = options.price(
            kind, forward[:, k], terms.strikes[k], years[:, k], volatility[:, k], 0.02, settlement
        )
        values.append(size * price)

    quotes = (index, forward, volatility, years, np.stack(values, axis=1))
    opens = [column[:-1] for column in quotes]
    closes = [column[1:] for column in quotes]
    return OptionQuotes(*opens, *closes)


@pytest.mark.parametrize("coin", [False, True])
def test_parts_add_up_and_leave_little(coin):
    """On hourly bars with over a week to go, at most 2 % of the profits stay unexplained."""
    terms = make_terms(coin=coin)
    quotes = make_quotes(terms, 400)

    held = np.tile([3.0, -2.0, 1.0], (400, 1))
    profit = held * (quotes.value_close - quotes.value_open)
    parts = explain_profit(terms, quotes, held, held, held, profit, np.full(held.shape, np.nan))

    assert list(parts) == list(EXPLAINED)
    np.testing.assert_allclose(sum(parts.values()), profit, rtol=0, atol=1e-15)
    assert np.abs(parts["rest"]).sum() / np.abs(profit).sum() < 0.02

    without = profit - parts["delta"]
    assert np.abs(without).sum() / np.abs(profit).sum() > 0.1  # the others matter


def test_a_closing_inside_a_bar_is_a_move_of_the_price():
    """What is liquidated at 95 inside a bar gained by a fall from 100 to 95, at its volatility."""
    terms = make_terms(coin=False)
    quotes = make_quotes(terms, 1)
    opened = np.array([[-2.0, 0.0, 0.0]])
    closed = np.array([[-0.5, 0.0, 0.0]])
    start = quotes.forward_open[0, 0]
    volatility = quotes.volatility_open[0, 0]
    sold_at = options.price("put", 95.0, 90.0, 0.12, volatility, 0.02)
    moved = quotes.value_close[0, 0] - quotes.value_open[0, 0]
    profit = np.array([[-1.5 * (sold_at - quotes.value_open[0, 0]) - 0.5 * moved, 0.0, 0.0]])
    settled = np.full((1, 3), np.nan)

    parts = explain_profit(terms, quotes, 0.0 * opened, opened, closed, profit, settled)

    # 1.5 were closed at 95, the half that is left moved to the close
    greek = options.greeks("put", start, 90.0, 0.12, volatility, 0.02)
    fall = -1.5 * (95.0 - start) - 0.5 * (quotes.forward_close[0, 0] - start)
    assert parts["delta"][0, 0] == pytest.approx(greek.delta * fall, rel=1e-9)
    assert parts["theta"][0, 0] == pytest.approx(-0.5 * greek.theta * HOUR, rel=1e-9)
    assert sum(parts.values())[0, 0] == pytest.approx(profit[0, 0], rel=1e-12)


def test_an_expiry_is_a_move_to_the_settlement_price():
    """A call that pays 7 at 115 moved there from its open, and all its time passed."""
    terms = make_terms(coin=False)
    quotes = make_quotes(terms, 2)
    held = np.array([[0.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    carried = np.array([[0.0, 4.0, 0.0], [0.0, 4.0, 0.0]])
    profit = np.zeros((2, 3))
    profit[0, 1] = 4.0 * (quotes.value_close[0, 1] - quotes.value_open[0, 1])
    profit[1, 1] = 4.0 * (2.0 * 7.0 - quotes.value_close[0, 1])

    settled = np.full((2, 3), np.nan)
    settled[1, 1] = 115.0
    parts = explain_profit(terms, quotes, carried, carried, held, profit, settled)

    years = quotes.years_open[1, 1]
    volatility = quotes.volatility_open[1, 1]
    forward = quotes.forward_open[1, 1]
    greek = options.greeks("call", forward, 108.0, years, volatility, 0.02)
    # 4 positions of 2 calls
    assert parts["theta"][1, 1] == pytest.approx(8.0 * greek.theta * years, rel=1e-9)
    assert parts["delta"][1, 1] == pytest.approx(8.0 * greek.delta * (115.0 - forward), rel=1e-9)
    assert sum(parts.values())[1, 1] == pytest.approx(profit[1, 1], rel=1e-12)


def test_greeks_of_positions_are_those_in_money():
    """They are those of bt.options.greeks with in_money; 0 where nothing is held."""
    terms = make_terms(coin=True)
    quotes = make_quotes(terms, 3)
    held = np.array([[0.0, -2.0, 0.0], [0.0, -2.0, 1.0], [0.0, 0.0, 0.0]])
    found = measure_greeks(terms, quotes, held)

    expected = options.greeks(
        "call",
        quotes.forward_close[1, 1],
        108.0,
        quotes.years_close[1, 1],
        quotes.volatility_close[1, 1],
        0.02,
        "coin",
        in_money=True,
        quantity=-2.0,
        size=2.0,
        spot=quotes.index_close[1, 1],
    )
    for name, value in expected._asdict().items():
        assert found[name][1, 1] == pytest.approx(value, rel=1e-12)
        assert found[name][2].tolist() == [0.0, 0.0, 0.0]
