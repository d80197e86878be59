"""Options in the account: premiums, marks, fills, expiry and the balance of every bar."""

import numpy as np
import pytest

import backtest as bt
from backtest.account.ledger import LIQUIDATED
from backtest.account.pool_liquidation import CAUSED
from backtest.account.records import EXPIRED, UNQUOTED
from tests.kit import flat
from tests.portfolio.option_accounts import (
    HOUR_YEARS,
    STANDARD,
    list_events,
    make_feed,
    run_options,
)

PUT = {"sign": -1.0, "strike": 100.0, "expiry": 4, "spot": 90.0}
CALL = {"sign": 1.0, "strike": 100.0, "expiry": 720}
FLAT = [flat(100)] * 3
SCENARIOS = bt.ScenarioMargin(moves={"BTC": [(-0.2, 1.0, 0.0), (0.2, 1.0, 0.0)]})


def price(kind, index, hours, strike=100.0, volatility=0.6):
    return bt.options.price(kind, index, strike, hours * HOUR_YEARS, volatility)


def near(value, expected):
    return value == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_a_put_is_paid_marked_and_settled():
    """Bought at 100 an hour in, marked at 95, and worth 10 at its expiry at 90."""
    rows = [flat(100), flat(100), (100, 100, 95, 95), flat(95), flat(90), flat(90)]
    out = run_options(rows, make_feed([{**PUT, "targets": {1: 2.0}}], 6))
    premium, record = price("put", 100.0, 3.0), out.record
    assert near(record.account.cash[1], 1000 - 2 * premium)
    assert near(record.closes.balance[1], 1000 - 2 * premium)
    assert record.options.quantity[:, 0].tolist() == [0, 2, 2, 2, 0, 0]
    mark = price("put", 95.0, 1.0)
    assert near(record.options.value[2, 0], mark)
    assert near(record.account.equity[2], 1000 + 2 * (mark - premium))
    assert near(record.account.equity[4], 1000 + 2 * (10 - premium))
    assert near(np.sum(record.options.price_pnl), 2 * (10 - premium))
    assert list_events(out, EXPIRED) == [[4.0, 10.0, -2.0, 0.0, 1.0]]


@pytest.mark.parametrize("held", [3.0, -3.0])
@pytest.mark.parametrize("expiry", [3, 3.5])
def test_it_expires_at_its_settlement_price_less_a_capped_fee(held, expiry):
    """A call of 100 settles at 130: 30 each; 0.5 % of 130 is under the cap of 12.5 % of 30."""
    contract = {**CALL, "expiry": expiry, "spot": 130.0, "targets": {1: held}}
    fees = {"delivery_rates": 0.005, "delivery_caps": 0.125}
    out = run_options([flat(100)] * 5, make_feed([contract], 5, **fees))
    premium, account = price("call", 100.0, expiry - 1.0), out.record.account
    assert near(account.equity[3], 1000 + held * (30 - premium) - 3 * 0.65)
    assert near(account.cash[4], account.equity[4])
    assert near(account.price_pnl[3] - account.fees[3], account.equity[3] - account.equity[2])


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
    assert near(out.record.account.equity[4], 10 + 2 * (30 / 130 - premium))


def test_fills_are_half_of_the_spread_in_volatility_from_the_mark():
    """Bought at 60 + 2 points; the distance to the mark is slippage, and 0.03 % of 100 a fee."""
    feed = make_feed(
        [{**CALL, "targets": {1: 2.0}}], 3, half_spreads=0.02, fee_rates=0.0003, fee_caps=0.125
    )
    account = run_options(FLAT, feed).record.account
    paid, mark = price("call", 100.0, 719.0, volatility=0.62), price("call", 100.0, 719.0)
    assert near(account.cash[1], 1000 - 2 * paid - 2 * 0.03)
    assert near(account.slippage[1], 2 * (paid - mark))
    assert near(account.fees[1], 0.06)


def test_a_fill_is_a_tick_from_the_mark_at_least_and_a_sale_not_under_zero():
    worthless = {"sign": 1.0, "strike": 1000.0, "expiry": 5}
    orders = [{**CALL, "targets": {1: 1.0}}, {**worthless, "targets": {1: -1.0}}]
    out = run_options(FLAT, make_feed(orders, 3, ticks=0.5), capital=10_000)
    slippage = out.record.options.slippage[1]
    assert near(slippage[0], 0.5)
    assert near(slippage[1], 0.0)  # its mark is 0


def test_where_volatility_says_nothing_the_spread_of_the_price_is_kept():
    """A call of 400 has no vega; the one of 100 is bought at 60 + 2 points all the same."""
    far = {**CALL, "strike": 400.0, "targets": {1: 1.0}}
    feed = make_feed([far, {**CALL, "targets": {1: 1.0}}], 3, half_spreads=0.02, half_prices=0.3)
    slippage = run_options(FLAT, feed).record.options.slippage[1]
    paid, mark = price("call", 100.0, 719.0, volatility=0.62), price("call", 100.0, 719.0)
    assert near(slippage[0], 0.3)
    assert near(slippage[1], paid - mark)


@pytest.mark.parametrize(("wanted", "paid"), [(1.0, 8.0), (-1.0, 5.0)])
def test_a_row_of_the_open_is_traded_at_its_ask_and_bid(wanted, paid):
    feed = make_feed([{**CALL, "targets": {1: wanted}}], 3, has_quotes=1, asks=8.0, bids=5.0)
    assert near(run_options(FLAT, feed).record.account.cash[1], 1000 - wanted * paid)


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
    assert near(out.record.account.cash[-1], 1000.0)


def test_a_quoted_mark_takes_the_place_of_the_model_and_moves_with_it():
    """Quoted 1 over the model at the open, and not quoted at the close."""
    feed = make_feed([{**CALL, "targets": {1: 1.0}}], 3)
    feed.marks_open[1] = price("call", 100.0, 719.0) + 1.0
    account = run_options(FLAT, feed).record.account
    assert near(account.cash[1], 1000 - price("call", 100.0, 719.0) - 1.0)
    assert near(account.equity[1] - account.cash[1], price("call", 100.0, 718.0))


def test_premiums_of_a_bar_take_at_most_the_balance():
    """300 calls cost far more than 1,000: as many are bought as the balance pays."""
    feed = make_feed([{**CALL, "targets": {1: 300.0}}], 3)
    out = run_options(FLAT, feed)
    assert near(out.record.options.quantity[1, 0], 1000 / price("call", 100.0, 719.0))
    assert near(out.record.account.cash[1], 0.0)


def test_shorts_are_scaled_to_the_initial_margin():
    """w + n p >= n (0.15 x 100 + p): 1,000 / 15 calls at the money."""
    feed = make_feed([{**CALL, "targets": {1: -300.0}}], 3)
    out = run_options(FLAT, feed)
    assert near(out.record.options.quantity[1, 0], -1000 / 15)


def test_increases_of_all_kinds_share_the_margin():
    """10x of 1,000 needs 500; 100 shorts need 1,500 besides: both get one half."""
    feed = make_feed([{**CALL, "targets": {1: -100.0}}], 3)
    out = run_options(FLAT, feed, level=10.0)
    assert near(out.record.options.quantity[1, 0], -50.0)
    assert near(out.record.positions.quantity[1, 0], 50.0)


def test_reductions_fill_first_and_a_flip_closes_what_is_held():
    """From 5 long to 300 short: the five are closed whatever the margin allows."""
    feed = make_feed([{**CALL, "targets": {1: 5.0, 2: -300.0}}], 4)
    out = run_options([flat(100)] * 4, feed)
    record = out.record
    assert record.options.quantity[1, 0] == 5.0
    free = record.account.cash[1] + 5 * price("call", 100.0, 718.0)
    assert near(record.options.quantity[2, 0], -free / 15)


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
    assert near(record.closes.requirement[1], needed)
    before = 1000 + record.account.price_pnl[1]
    assert near(record.closes.backing[1], before - (held * mark - counted))


@pytest.mark.parametrize("rule", [STANDARD, SCENARIOS])
def test_a_contract_that_is_listed_and_never_held_changes_no_byte(rule):
    rows = [flat(100), (100, 104, 97, 101), (101, 130, 99, 120), (120, 121, 60, 70), flat(70)]
    empty = make_feed([], 5)
    listed = make_feed([{**CALL, "expiry": 3, "spot": 1.0}, {**PUT, "expiry": 720}], 5)
    first, second = (run_options(rows, feed, rule=rule, level=6.0) for feed in (empty, listed))
    booked = [each.entries[each.entries[:, 1] != CAUSED] for each in (first, second)]
    assert booked[0].tobytes() == booked[1].tobytes()
    for one, other in zip(first.record[:3], second.record[:3], strict=True):
        for x, y in zip(one, other, strict=True):
            assert x.tobytes() == y.tobytes()


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
