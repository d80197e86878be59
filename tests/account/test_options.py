"""Options in the account: premiums, marks, fills, expiry, the walk and liquidations, by hand."""

import math
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.account.ledger import EQUITY_STOPPED, LIQUIDATED
from backtest.account.records import UNQUOTED, OptionFeed, make_option_feed
from backtest.engine import batch, inputs
from backtest.engine.run_data import measure_closes
from backtest.engine.run_setup import set_up
from tests.agreement import assert_agrees, bracket, near, scene, tape
from tests.draws import DAY, HOUR, START
from tests.kit import Once, flat, make_venue
from tests.option_cases import COSTS, OptionCase, OptionTape, make_option_case
from tests.oracle import Outcome, simulate

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
        closes = measure_closes(setup, out, slice(None))
        return out._replace(record=out.record._replace(closes=closes))
    finally:
        inputs.read_option_feed = kept


def list_events(out: Any, kind: int) -> list[list[float]]:
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


def test_an_equity_stop_closes_options_too():
    """Half of the highest equity is left: the ten calls are sold at the marks there."""
    call = {"sign": 1.0, "strike": 100.0, "expiry": MONTH, "targets": {1: 10.0}}
    rows = [flat(100), flat(100), (100, 100, 80, 80), flat(80)]
    out = run_options(rows, make_feed([call], 4), capital=100.0, equity_stop=0.4)
    assert is_close(out.record.account.equity[2], 60.0, rel=1e-6)
    assert out.record.options.quantity[2, 0] == 0.0
    assert len(list_events(out, EQUITY_STOPPED)) == 1


# ------------------------------------------------------------------------------------ by the oracle


NAN = math.nan
YEAR = 365 * DAY
PER_OPTION = {
    "level": 1.0, "initial": 0.15, "least": 0.1, "maintenance": 0.075, "of_mark": 0.0,
    "option_value": "none",
}  # fmt: skip
SHOCKS = SimpleNamespace(
    power=(0.0, 0.0), days=30.0, least_days=1.0, least_volatility=0.0, short_charge=(0.0, 0.0),
    delta_charge=(0.0, 0.0), futures_range=math.inf,
)  # fmt: skip
BY_SCENARIOS = {
    "level": 1.0, "moves": {"*": [(-0.01, 1.0), (0.01, 1.0)]}, "groups": None, "products": None,
    "across": "independent", "offset": 0.0, "factor": 1.0, "minimum": 0.0, "contingency": 0.0,
    "pair_contingency": 0.0, "initial": None, "options": SHOCKS,
}  # fmt: skip


def option(
    bars: list[Any], sign: int, strike: float, held: list[float], expiry_bar: int = -1, **given: Any
) -> OptionTape:
    """An option without volatility: worth what it would pay, and asked and bid at ``quotes``.

    ``held`` are the contracts from the open of each bar on.
    """
    n = len(bars)
    stamps = START + HOUR * np.arange(n)
    expiry = START + HOUR * expiry_bar if expiry_bar >= 0 else START + DAY
    ask, bid = given.pop("quotes", (NAN, NAN))
    rows = {
        "years_open": np.maximum(expiry - stamps, 0) / YEAR,
        "years_close": np.maximum(expiry - stamps - HOUR, 0) / YEAR,
        "half_spread": np.zeros(n),
        "half_price": np.full(n, NAN),
        "has_quote": np.full(n, not math.isnan(ask) or not math.isnan(bid)),
        "ask": np.full(n, ask),
        "bid": np.full(n, bid),
        "targets": np.array([*held, *[NAN] * (n - len(held))]),
    }
    volatility = given.pop("volatility", 0.0)
    for name, place in (("open", 0), ("close", 3)):
        rows |= {
            f"volatilities_{name}": np.full(n, volatility),
            f"bases_{name}": np.ones(n),
            f"marks_{name}": np.full(n, NAN),
            f"index_{name}": np.array([bar[place] for bar in bars], dtype=float),
        }
    plain = {
        "name": "O", "underlying": "A", "size": 1.0, "is_coin": False, "rate": 0.0,
        "fees": (0.0, 1.0, 0.0, 1.0), "tick": 0.0, "is_inside": False,
        "expiry_spot": bars[expiry_bar][0],
    }  # fmt: skip
    terms = plain | given
    return OptionTape(
        sign=sign, strike=strike, expiry_time=expiry, expiry_bar=expiry_bar, rows=rows, **terms
    )


def play(
    bars: list[Any], options: list[OptionTape], leverage: float = 0.0, **changes: Any
) -> Outcome:
    """Run an account of one instrument, A, and options; the engine is held to it."""
    case = scene({"A": tape(bars, (leverage, NAN))}, {"A": 1.0}, **changes)
    case.venues["A"]["venue"] |= {"option_costs": COSTS}
    return assert_agrees(OptionCase(**vars(case), options=tuple(options)), "by hand")


FALL = [flat(100), flat(100), (100, 100, 85, 85), flat(85), flat(85)]


def protected(requirement: dict[str, Any], **venue: Any) -> Outcome:
    """10 of capital, one unit long at 100, a put of strike 95 for 2."""
    put = option(FALL, -1, 95.0, [NAN, 1.0], expiry_bar=4, quotes=(2.0, 0.0))
    safe = {"*": {"brackets": [bracket(0.01, 50.0)]} | venue}
    return play(FALL, [put], 10.0, capital=10.0, requirement=requirement, venues=safe)


def test_a_put_saves_the_account_where_options_count_net():
    """10 - 2 - 15 + 10 at 85: never under 10 - 5 - 2, the largest requirement 1 % of 100."""
    out = protected(BY_SCENARIOS)
    assert not out.of_kind("liquidation")
    assert near(out.equity[2], 3)
    # the put paid 10 at the open of bar 4
    assert near(out.cash[4], 10 - 2 - 100 + 10)
    assert near(out.equity[4], 3)
    assert near(out.slippage[1], 2)
    assert near(out.total("expiry"), 10)


def test_the_same_put_does_not_save_it_where_longs_count_none():
    """8 + S - 100 = 1 % of S: closed at 92/.99 though the put is worth 95 - 92/.99 more by then."""
    out = protected(PER_OPTION)
    at = Fraction(9200, 99)
    assert near(out.of_kind("liquidation")[0].amount, at)
    assert near(out.cash[2], 8 + at - 100)
    # the put is kept, B is over 0: it is worth 10 in the end, and the account has lost the coin
    assert near(out.equity[4], 8 + at - 100 + 10)
    assert near(out.option_quantity[2][0], 1)


def test_longs_are_sold_as_far_as_the_balance_is_negative():
    """A liquidation slippage of 2 % leaves B = 8 + .98 S - 100 < 0: the put sells for that."""
    out = protected(PER_OPTION, liquidation={"slippage": 0.02})
    at = Fraction(9200, 99)
    debt = 100 - 8 - Fraction(98, 100) * at
    sold = debt / (95 - at)
    assert near(out.option_quantity[2][0], 1 - sold)
    assert near(out.cash[2], 0)
    assert out.count("bad_debt") == 0


@pytest.mark.parametrize(("is_coin", "paid"), [(False, 10), (True, Fraction(10, 110))])
def test_a_short_call_pays_at_expiry_and_its_fee_is_capped(is_coin, paid):
    """One call of strike 100 sold for a bid of 3 (or .03 coins), settled at 110.

    The fee of expiry is the less of 1 % of 110 (or of a coin) and 5 % of what it pays.
    """
    bars = [flat(100), flat(100), flat(105), flat(110)]
    bid = 0.03 if is_coin else 3.0
    call = option(
        bars, 1, 100.0, [NAN, -1.0], expiry_bar=3, quotes=(1.0, bid), is_coin=is_coin,
        fees=(0.0, 1.0, 0.01, 0.05),
    )  # fmt: skip
    contract = {"contract": {"kind": "inverse" if is_coin else "linear"}}
    capital = 1.0 if is_coin else 100.0
    out = play([*bars], [call], capital=capital, requirement=PER_OPTION, venues={"*": contract})
    fee = Fraction(5, 100) * paid
    unit = Fraction(1) if is_coin else Fraction(110)
    assert fee < unit / 100
    assert near(out.cash[1], capital + bid)
    assert near(out.cash[3], Fraction(capital) + Fraction(bid) - paid - fee)
    assert near(out.equity[3], out.cash[3])
    assert near(out.fees[3], fee)
    assert [e.kind for e in out.events] == ["fill", "slippage", "expiry", "fee"]


def test_a_short_strangle_is_bought_back_where_it_fails():
    """A put 90 and a call 110 sold at 100 for 1 each with 20: at S > 110 the call is S - 110.

    M = 22; R = .075 S + S - 110 of the call and .075 S of the put: S = 132/1.15.
    """
    bars = [flat(100), flat(100), (100, 120, 100, 120), flat(120)]
    sold = [
        option(bars, sign, strike, [NAN, -1.0], quotes=(NAN, 1.0), name=name)
        for sign, strike, name in ((-1, 90.0, "P"), (1, 110.0, "C"))
    ]
    out = play(bars, sold, capital=20.0, requirement=PER_OPTION)
    at = Fraction(13200, 115)
    assert [e.instrument for e in out.of_kind("liquidation")] == ["P", "C"]
    assert near(out.cash[2], 22 - (at - 110))
    assert near(out.equity[3], out.cash[2])
    # what it received counts once: sold at its mark of 0 for 1, both fill, 15 of 22 are needed
    assert near(out.margin_ratio[1], Fraction(15, 22))


def test_premiums_are_paid_out_of_the_balance():
    """With 10 and no margin to post, two calls at 8 fill to 10/16."""
    bars = [flat(100)] * 3
    calls = [
        option(bars, 1, strike, [NAN, 1.0], quotes=(8.0, NAN), name=f"C{strike}")
        for strike in (91.0, 92.0)
    ]
    out = play(bars, calls, capital=10.0, requirement=PER_OPTION)
    assert [float(q) for q in out.option_quantity[1]] == [0.625, 0.625]
    assert near(out.cash[1], 0)
    assert near(out.equity[1], 0.625 * 17)


@pytest.mark.parametrize(("ask", "left"), [(12, Fraction(76, 10)), (25, Fraction(-2, 10))])
def test_a_turn_closes_whatever_the_balance_buys(ask, left):
    """Six tenths of a put are sold at 8 with 10, and bought back at the ask.

    What is left of 14.8 buys more, or is the bad debt of an account that has nothing else.
    """
    bars = [flat(100)] * 4
    put = option(bars, -1, 108.0, [NAN, -0.6, 5.0], quotes=(12.0, 8.0))
    put.rows["ask"][2:] = float(ask)
    out = play(bars, [put], capital=10.0, requirement=PER_OPTION)
    assert near(out.cash[1], 14.8)
    assert near(out.option_quantity[2][0], max(left, Fraction(0)) / ask)
    assert near(out.cash[2], 0)
    assert near(out.bad_debt[2], max(-left, Fraction(0)))


def test_longs_that_took_the_whole_balance_are_kept():
    """Three calls for all of 0.91 leave -5.6e-17, for which no venue takes an account over."""
    bars = [flat(100)] * 4
    calls = [
        option(bars, 1, strike, [NAN, 9.0], quotes=(ask, ask), name=f"C{ask}")
        for strike, ask in ((92.0, 1.1), (93.0, 0.7), (94.0, 0.3))
    ]
    venue = {"*": {"liquidation": {"mode": "takeover"}}}
    out = play(bars, calls, capital=0.91, requirement=PER_OPTION, venues=venue)
    assert not out.of_kind("liquidation")
    assert near(out.option_quantity[3][0], Fraction(91, 210))


def test_the_fees_of_a_liquidation_are_shared_by_what_asks_for_one():
    """A 10x long and a sold call: at the failure a fee of 60 % takes all that is left."""
    call = option(FALL, 1, 110.0, [NAN, -0.1], quotes=(NAN, 1.0))
    out = play(
        FALL, [call], 10.0, capital=10.0, requirement=PER_OPTION,
        venues={"*": {"liquidation": {"fee": 0.6}}},
    )  # fmt: skip
    assert near(out.equity[2], 0)
    assert out.count("bad_debt") == 0


def test_an_order_that_nobody_quotes_is_no_position():
    """Beside a liquidation, whose causes have numbers of their own."""
    call = option(FALL, 1, 110.0, [NAN, 1.0], quotes=(NAN, 1.0))
    out = play(FALL, [call], 10.0, capital=10.0, requirement=PER_OPTION)
    assert out.count("unquoted") == 1
    assert out.count("liquidation") == 1


@pytest.mark.parametrize("order", [
    ("A",),
    "futures_then_options",
    *(pytest.param(each, marks=pytest.mark.slow) for each in (None, "largest_notional")),
])  # fmt: skip
def test_a_partial_liquidation_names_instruments_before_options(order):
    """A 9x long and a sold put fail together; by name, and futures first, the put is kept."""
    put = option(FALL, -1, 101.0, [NAN, -0.5], quotes=(NAN, 1.0))
    terms = {"mode": "partial", "step": 0.5, "order": order}
    out = play(
        FALL, [put], 9.0, capital=20.0, requirement=PER_OPTION, venues={"*": {"liquidation": terms}}
    )
    first = out.of_kind("liquidation")[0].instrument
    assert first == "A" or order is None


@pytest.mark.parametrize(
    "first", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in range(20, 500, 20))]
)
def test_random_accounts_with_options_balance(first):
    """§6 at every bar to 1e-28, which ``simulate`` asserts."""
    for seed in range(first, first + (20 if first else 3)):
        simulate(*make_option_case(seed).for_oracle())
