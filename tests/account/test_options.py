"""Options in the account: premiums, marks, fills, expiry, the walk and liquidations, by hand."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.account.ledger import BAD_DEBT, EQUITY_STOPPED, LIQUIDATED
from backtest.account.records import EXPIRED, UNQUOTED, OptionFeed, make_option_feed
from backtest.engine import batch, inputs
from backtest.engine.run_closes import measure_closes
from backtest.engine.run_setup import set_up
from tests.kit import Once, flat, make_venue

HOUR_YEARS = 1.0 / (365.0 * 24.0)
STANDARD = bt.Standard(initial=0.15, least=0.1, maintenance=0.075)
FREE = {"rates": 0.0, "fee_rates": 0.0, "delivery_rates": 0.0, "ticks": 0.0, "fee_caps": np.inf}
FREE |= {"delivery_caps": np.inf, "half_spreads": 0.0, "are_listed": 1, "bases_open": 1.0}
FREE |= {"bases_close": 1.0}


def make_feed(
    contracts: list[dict[str, Any]], n_bars: int, *, volatility: float = 0.6, **more: Any
) -> OptionFeed:
    """Return the feed of contracts at one volatility, which are sold and bought at the mark.

    A contract has sign, strike, the hour of its expiry, and targets by bar.
    """
    hours = np.arange(n_bars)
    feed = make_option_feed(len(contracts), n_bars)
    feed.pairs[:] = np.arange(len(contracts))
    for k, each in enumerate(contracts):
        hour = each["expiry"]
        feed.signs[k], feed.strikes[k], feed.sizes[k] = each["sign"], each["strike"], 1.0
        feed.expiries[k] = int(2 * hour)
        feed.expiry_bars[k] = int(hour) if hour < n_bars else -1
        feed.are_inside[k] = 0 if hour == int(hour) else 1
        feed.expiry_spots[k] = each.get("spot", np.nan)
        feed.years_open[:, k] = np.maximum(hour - hours, 0.0) * HOUR_YEARS
        feed.years_close[:, k] = np.maximum(hour - hours - 1.0, 0.0) * HOUR_YEARS
        for bar, quantity in each.get("targets", {}).items():
            feed.targets[bar, k] = quantity
    feed.expiries[:] = np.unique(feed.expiries, return_inverse=True)[1]
    given = FREE | {"volatilities_open": volatility, "volatilities_close": volatility} | more
    for name, value in given.items():
        getattr(feed, name)[:] = value
    return feed


def make_rows(rows: Any) -> bt.Market:
    """Return an hourly market of rows (open, high, low, close)."""
    index = pd.date_range("2024-01-01", periods=len(rows), freq="1h", tz="UTC")
    bars = pd.DataFrame(rows, columns=["open", "high", "low", "close"], index=index, dtype=float)
    bars["volume"] = 1e6
    return bt.Market.from_frames(bars)


def run_options(
    rows: Any,
    feed: OptionFeed,
    *,
    rule: Any = STANDARD,
    level: float = 0.0,
    capital: float = 1000.0,
    venue: dict[str, Any] | None = None,
    kind: str = "linear",
    partial: str = "",
    compiled: bool = False,
    **account: Any,
) -> Any:
    """Return the outcome of an account that holds the options of a feed on its only instrument.

    ``level`` is the leverage of the instrument, decided at the first close.
    """
    given = make_venue(**(venue or {})).override({"contract.kind": kind})
    if partial:
        steps = {"mode": "partial", "step": 0.5, "full_below": 1.0, "order": partial}
        given = given.override({f"liquidation.{name}": value for name, value in steps.items()})
    kept = inputs.read_option_feed
    inputs.read_option_feed = lambda *_: feed
    try:
        setup = set_up(
            bt.Markets({"BTC": make_rows(rows)}),
            Once(level=level),
            venue=given,
            account=bt.Account(capital=capital, requirement=rule, **account),
            signal=None,
            overlay=None,
            sampling="1h",
            start=None,
        )
        out = batch.run_account(setup, is_compiled=compiled, progress=None)
        closes = measure_closes(setup, out, slice(None), is_whole=True)
        return out._replace(record=out.record._replace(closes=closes))
    finally:
        inputs.read_option_feed = kept


def list_events(out: Any, kind: int) -> list[list[float]]:
    """Return bar, value, quantity, fee and owner of the events of a kind."""
    return [row[[0, 2, 3, 5, 8]].tolist() for row in out.entries if row[1] == kind]


# -------------------------------------------------------------------------------------------- held
PUT = {"sign": -1.0, "strike": 100.0, "expiry": 4, "spot": 90.0}
CALL = {"sign": 1.0, "strike": 100.0, "expiry": 720}
FLAT = [flat(100)] * 3
SCENARIOS = bt.ScenarioMargin(moves={"BTC": [(-0.2, 1.0, 0.0), (0.2, 1.0, 0.0)]})


def price(kind, index, hours, strike=100.0, volatility=0.6):
    return bt.options.price(kind, index, strike, hours * HOUR_YEARS, volatility)


def is_near(value, expected):
    return value == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_a_put_is_paid_marked_and_settled():
    """Bought at 100 an hour in, marked at 95, and worth 10 at its expiry at 90."""
    rows = [flat(100), flat(100), (100, 100, 95, 95), flat(95), flat(90), flat(90)]
    out = run_options(rows, make_feed([{**PUT, "targets": {1: 2.0}}], 6))
    premium, record = price("put", 100.0, 3.0), out.record
    assert is_near(record.account.cash[1], 1000 - 2 * premium)
    assert is_near(record.closes.balance[1], 1000 - 2 * premium)
    assert record.options.quantity[:, 0].tolist() == [0, 2, 2, 2, 0, 0]
    mark = price("put", 95.0, 1.0)
    assert is_near(record.options.value[2, 0], mark)
    assert is_near(record.account.equity[2], 1000 + 2 * (mark - premium))
    assert is_near(record.account.equity[4], 1000 + 2 * (10 - premium))
    assert is_near(np.sum(record.options.price_pnl), 2 * (10 - premium))
    assert list_events(out, EXPIRED) == [[4.0, 10.0, -2.0, 0.0, 1.0]]


@pytest.mark.parametrize("held", [3.0, -3.0])
@pytest.mark.parametrize("expiry", [3, 3.5])
def test_it_expires_at_its_settlement_price_less_a_capped_fee(held, expiry):
    """A call of 100 settles at 130: 30 each; 0.5 % of 130 is under the cap of 12.5 % of 30."""
    contract = {**CALL, "expiry": expiry, "spot": 130.0, "targets": {1: held}}
    fees = {"delivery_rates": 0.005, "delivery_caps": 0.125}
    out = run_options([flat(100)] * 5, make_feed([contract], 5, **fees))
    premium, account = price("call", 100.0, expiry - 1.0), out.record.account
    assert is_near(account.equity[3], 1000 + held * (30 - premium) - 3 * 0.65)
    assert is_near(account.cash[4], account.equity[4])
    assert is_near(account.price_pnl[3] - account.fees[3], account.equity[3] - account.equity[2])


def test_an_expiry_that_pays_nothing_is_an_event_and_drops_the_order():
    contract = {**CALL, "expiry": 3, "spot": 90.0, "targets": {1: 1.0, 3: 5.0}}
    out = run_options([flat(100)] * 5, make_feed([contract], 5))
    assert list_events(out, EXPIRED) == [[3.0, 0.0, -1.0, 0.0, 1.0]]
    assert out.record.options.quantity[3:, 0].tolist() == [0, 0]


def test_a_coin_settled_call_pays_in_coins():
    """An inverse account of 10 coins: (130 - 100) / 130 coins each."""
    contract = {**CALL, "expiry": 3, "spot": 130.0, "targets": {1: 2.0}}
    out = run_options(
        [flat(100)] * 5, make_feed([contract], 5, are_coin=True), kind="inverse", capital=10
    )
    premium = price("call", 100.0, 2.0) / 100.0
    assert is_near(out.record.account.equity[4], 10 + 2 * (30 / 130 - premium))


def test_fills_are_half_of_the_spread_in_volatility_from_the_mark():
    """Bought at 60 + 2 points; the distance to the mark is slippage, and 0.03 % of 100 a fee."""
    feed = make_feed(
        [{**CALL, "targets": {1: 2.0}}], 3, half_spreads=0.02, fee_rates=0.0003, fee_caps=0.125
    )
    account = run_options(FLAT, feed).record.account
    paid, mark = price("call", 100.0, 719.0, volatility=0.62), price("call", 100.0, 719.0)
    assert is_near(account.cash[1], 1000 - 2 * paid - 2 * 0.03)
    assert is_near(account.slippage[1], 2 * (paid - mark))
    assert is_near(account.fees[1], 0.06)


def test_a_fill_is_a_tick_from_the_mark_at_least_and_a_sale_not_under_zero():
    worthless = {"sign": 1.0, "strike": 1000.0, "expiry": 5}
    orders = [{**CALL, "targets": {1: 1.0}}, {**worthless, "targets": {1: -1.0}}]
    out = run_options(FLAT, make_feed(orders, 3, ticks=0.5), capital=10_000)
    slippage = out.record.options.slippage[1]
    assert is_near(slippage[0], 0.5)
    assert is_near(slippage[1], 0.0)  # its mark is 0


def test_where_volatility_says_nothing_the_spread_of_the_price_is_kept():
    """A call of 400 has no vega; the one of 100 is bought at 60 + 2 points all the same."""
    far = {**CALL, "strike": 400.0, "targets": {1: 1.0}}
    feed = make_feed([far, {**CALL, "targets": {1: 1.0}}], 3, half_spreads=0.02, half_prices=0.3)
    slippage = run_options(FLAT, feed).record.options.slippage[1]
    paid, mark = price("call", 100.0, 719.0, volatility=0.62), price("call", 100.0, 719.0)
    assert is_near(slippage[0], 0.3)
    assert is_near(slippage[1], paid - mark)


@pytest.mark.parametrize(("wanted", "paid"), [(1.0, 8.0), (-1.0, 5.0)])
def test_a_row_of_the_open_is_traded_at_its_ask_and_bid(wanted, paid):
    feed = make_feed([{**CALL, "targets": {1: wanted}}], 3, has_quotes=1, asks=8.0, bids=5.0)
    assert is_near(run_options(FLAT, feed).record.account.cash[1], 1000 - wanted * paid)


@pytest.mark.parametrize("wanted", [1.0, -1.0])
def test_a_side_without_a_quote_is_not_traded(wanted):
    feed = make_feed([{**CALL, "targets": {1: wanted}}], 3, has_quotes=1)
    out = run_options(FLAT, feed)
    assert out.record.options.quantity[-1, 0] == 0
    assert [each[0] for each in list_events(out, UNQUOTED)] == [1.0]


def test_what_nothing_values_is_not_traded():
    """Ordered before its first surface and after its expiry: at no price, so not for a tick."""
    contract = {**CALL, "expiry": 3, "spot": 90.0, "targets": {1: 1.0, 4: 1.0}}
    feed = make_feed([contract], 6)
    feed.volatilities_open[:3] = feed.volatilities_close[:3] = np.nan
    out = run_options([flat(100)] * 6, feed)
    assert [each[0] for each in list_events(out, UNQUOTED)] == [1.0, 4.0]
    assert is_near(out.record.account.cash[-1], 1000.0)


def test_a_quoted_mark_takes_the_place_of_the_model_and_moves_with_it():
    """Quoted 1 over the model at the open, and not quoted at the close."""
    feed = make_feed([{**CALL, "targets": {1: 1.0}}], 3)
    feed.marks_open[1] = price("call", 100.0, 719.0) + 1.0
    account = run_options(FLAT, feed).record.account
    assert is_near(account.cash[1], 1000 - price("call", 100.0, 719.0) - 1.0)
    assert is_near(account.equity[1] - account.cash[1], price("call", 100.0, 718.0))


def test_shorts_are_scaled_to_the_initial_margin():
    """w + n p >= n (0.15 x 100 + p): 1,000 / 15 calls at the money."""
    feed = make_feed([{**CALL, "targets": {1: -300.0}}], 3)
    out = run_options(FLAT, feed)
    assert is_near(out.record.options.quantity[1, 0], -1000 / 15)


def test_increases_of_all_kinds_share_the_margin():
    """10x of 1,000 needs 500; 100 shorts need 1,500 besides: both get one half."""
    feed = make_feed([{**CALL, "targets": {1: -100.0}}], 3)
    out = run_options(FLAT, feed, level=10.0)
    assert is_near(out.record.options.quantity[1, 0], -50.0)
    assert is_near(out.record.positions.quantity[1, 0], 50.0)


def test_reductions_fill_first_and_a_flip_closes_what_is_held():
    """From 5 long to 300 short: the five are closed whatever the margin allows."""
    feed = make_feed([{**CALL, "targets": {1: 5.0, 2: -300.0}}], 4)
    out = run_options([flat(100)] * 4, feed)
    record = out.record
    assert record.options.quantity[1, 0] == 5.0
    free = record.account.cash[1] + 5 * price("call", 100.0, 718.0)
    assert is_near(record.options.quantity[2, 0], -free / 15)


RULES = {
    "standard": STANDARD,
    "standard that counts longs": bt.Standard(
        initial=0.15, least=0.1, maintenance=0.075, option_value="long"
    ),
    "scenarios": SCENARIOS,
    **{name: name for name in ("reg-t", "cboe-index", "occ-tims", "derive")},
    **{name: name for name in ("deribit-standard", "deribit-portfolio", "okx-standard-btc")},
}
IN_COINS = ("deribit", "okx")


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("held", [2.0, -2.0])
@pytest.mark.parametrize("contract", [CALL, {**PUT, "expiry": 720}])
def test_a_trade_at_the_mark_changes_free_margin_by_what_it_requires(name, held, contract):
    """M - R falls by the requirement, less a mark in it, and by what is withheld of a long."""
    rule, coin = RULES[name], name.startswith(IN_COINS)
    feed = make_feed([{**contract, "targets": {1: held}}], 3, are_coin=coin)
    record = run_options(FLAT, feed, rule=rule, kind="inverse" if coin else "linear").record
    mark = record.options.value[1, 0]
    option = bt.Option(
        kind="call" if contract["sign"] > 0 else "put",
        strike=100.0,
        expiry="2024-01-31",
        underlying="BTC",
        settlement="coin" if coin else "cash",
    )
    own = bt.OptionPosition(option, held, 100.0, "2024-01-01 02:00", volatility=0.6)
    needed = bt.margin.requirement({}, {}, {}, rule, options=own)
    counted = bt.margin.option_value(own, rule)
    assert is_near(record.closes.requirement[1], needed)
    before = 1000 + record.account.price_pnl[1]
    assert is_near(record.closes.backing[1], before - (held * mark - counted))


@pytest.mark.parametrize("intrabar", ["path", "worst"])
@pytest.mark.parametrize("rule", [bt.Brackets(), STANDARD])
def test_longs_that_count_none_are_walked_as_if_they_were_not_there(rule, intrabar):
    """512 of 1,024 buy a call; the rest is liquidated as 512 alone are, bit for bit."""
    rows = [flat(128), flat(128), (128, 131, 127, 130), (130, 133, 60, 64), flat(64)]
    call = {**CALL, "strike": 128.0, "targets": {1: 1.0}}
    bought = make_feed([call], 5, has_quotes=1, asks=512.0, bids=500.0)
    given = {"rule": rule, "intrabar": intrabar}
    alone = run_options(rows, make_feed([], 5), level=4.0, capital=512.0, **given)
    beside = run_options(rows, bought, level=2.0, capital=1024.0, **given)
    assert len(list_events(alone, LIQUIDATED)) == 1
    assert list_events(beside, LIQUIDATED) == list_events(alone, LIQUIDATED)
    for name in ("cash", "liquidation_loss", "fees"):
        one, other = (getattr(each.record.account, name)[1:] for each in (alone, beside))
        assert one.tobytes() == other.tobytes()
    quantities = [each.record.positions.quantity for each in (alone, beside)]
    assert quantities[0].tobytes() == quantities[1].tobytes()
    assert beside.record.options.quantity[-1, 0] == 1.0


# -------------------------------------------------------------------------------------- liquidated
MONTH = 720
STRANGLE = [
    {"sign": 1.0, "strike": 110.0, "expiry": MONTH, "targets": {1: -10.0}},
    {"sign": -1.0, "strike": 90.0, "expiry": MONTH, "targets": {1: -10.0}},
]
RALLY = [flat(100), flat(100), (100, 125, 100, 120), flat(120)]


def price_of(sign, index, strike, hours, volatility=0.6):
    kind = "call" if sign > 0 else "put"
    return bt.options.price(kind, index, strike, hours * HOUR_YEARS, volatility)


def is_close(value, expected, rel=1e-9):
    return value == pytest.approx(expected, rel=rel, abs=1e-9)


def value_strangle(index, hours, volatility=0.6):
    return sum(
        price_of(each["sign"], index, each["strike"], hours, volatility) for each in STRANGLE
    )


def find_failure(cash, hours=MONTH - 2):
    """Bisect w = 10 (c + p + 2 x 0.075 S) for the price_of above 100."""
    low, high = 100.0, 125.0
    for _ in range(100):
        middle = 0.5 * (low + high)
        needed = 10 * (value_strangle(middle, hours) + 0.15 * middle)
        low, high = (low, middle) if cash <= needed else (middle, high)
    return high


def test_it_is_bought_back_over_the_mark_and_pays_fees():
    """At 60 + 1 points of half-spread + 2 of slippage; 0.03 % of the price_of each as a fee."""
    feed = make_feed(STRANGLE, 4, half_spreads=0.01, fee_rates=0.0003)
    venue = {"liquidation_slippage": 0.02}
    account = run_options(RALLY, feed, capital=250.0, venue=venue).record.account
    sold = value_strangle(100.0, MONTH - 1, 0.59)
    cash = 250 + 10 * sold - 20 * 0.0003 * 100
    assert is_close(account.cash[1], cash)
    failure = find_failure(cash)
    lost = 10 * (value_strangle(failure, MONTH - 2, 0.63) - value_strangle(failure, MONTH - 2))
    lost += 20 * 0.0003 * failure
    assert is_close(account.liquidation_loss[2], lost)
    assert is_close(account.equity[2], cash - 10 * value_strangle(failure, MONTH - 2) - lost)


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
    assert is_close(out.record.account.bad_debt[2], debt)
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


def test_an_equity_stop_closes_options_too():
    """Half of the highest equity is left: the ten calls are sold at the marks there."""
    call = {"sign": 1.0, "strike": 100.0, "expiry": MONTH, "targets": {1: 10.0}}
    rows = [flat(100), flat(100), (100, 100, 80, 80), flat(80)]
    out = run_options(rows, make_feed([call], 4), capital=100.0, equity_stop=0.4)
    assert is_close(out.record.account.equity[2], 60.0, rel=1e-6)
    assert out.record.options.quantity[2, 0] == 0.0
    assert len(list_events(out, EQUITY_STOPPED)) == 1
