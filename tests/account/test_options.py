"""Options in the account: premiums, marks, fills, expiry, the walk and liquidations, by hand."""

import math
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import margin
from backtest.account import option_pool, records
from backtest.engine.option_trader import ListedOption
from backtest.margin import option_values
from tests import agreement
from tests.draws import DAY, HOUR, START
from tests.kit import flat
from tests.option_cases import COSTS, OptionCase, OptionTape
from tests.oracle import Outcome
from tests.scenes import Hand, by_hand

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
NAN = math.nan
YEAR = 365 * DAY
FLAT = [flat(100)] * 3
MONTH = 720
"""Hours."""
PER_OPTION = {
    "level": 1.0, "initial": 0.15, "least": 0.1, "maintenance": 0.075, "of_mark": 0.0,
    "option_value": "none",
}  # fmt: skip
SHOCKS = SimpleNamespace(
    power=(0.0, 0.0), days=30.0, least_days=1.0, least_volatility=0.0, short_charge=(0.0, 0.0),
    delta_charge=(0.0, 0.0), futures_range=math.inf,
)  # fmt: skip
BY_SCENARIOS = agreement.scenarios(options=SHOCKS)
RALLY = [flat(100), flat(100), (100, 125, 100, 120), flat(120)]
FALL = [flat(100), flat(100), (100, 100, 85, 85), flat(85), flat(85)]


def option(
    bars: list[Any], sign: int, strike: float, held: list[float], expiry_bar: int = -1, **given: Any
) -> OptionTape:
    """An option without volatility: worth what it would pay, and asked and bid at ``quotes``.
    ``held`` are the contracts from the open of each bar on; it expires after so many ``hours``."""
    n = len(bars)
    times = START + HOUR * np.arange(n)
    hours = given.pop("hours", 24)
    expiry = START + HOUR * (hours if expiry_bar < 0 else expiry_bar)
    ask, bid = given.pop("quotes", (NAN, NAN))
    is_quoted = not (math.isnan(ask) and math.isnan(bid))
    rows = {
        "years_open": np.maximum(expiry - times, 0) / YEAR,
        "years_close": np.maximum(expiry - times - HOUR, 0) / YEAR,
        "half_spread": np.full(n, given.pop("half_spread", 0.0)),
        "half_price": np.full(n, given.pop("half_price", NAN)),
        "has_quote": np.full(n, is_quoted),
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
    return OptionTape(
        sign=sign,
        strike=strike,
        expiry_time=expiry,
        expiry_bar=expiry_bar,
        rows=rows,
        **plain | given,
    )


def model(sign: int, strike: float, *held: float, bars: Any = None, **given: Any) -> OptionTape:
    """An option of a volatility of 60 % that expires in a month, traded at its mark."""
    terms = {"hours": MONTH, "volatility": 0.6} | given
    return option(bars or FLAT, sign, strike, [NAN, *held], **terms)


def price(sign: int, index: float, hours: float, strike=100.0, sigma=0.6) -> float:
    kind = "call" if sign > 0 else "put"
    return bt.options.price(kind, index, strike, hours * HOUR / YEAR, sigma)


def make(bars, options: list[OptionTape], leverage=0.0, name="A", **changes: Any) -> OptionCase:
    """Return an account of one instrument and options."""
    terms = {"requirement": PER_OPTION} | changes
    case = agreement.scene({name: agreement.tape(bars, (leverage, NAN))}, {name: 1.0}, **terms)
    case.venues[name]["venue"] |= {"option_costs": COSTS}
    return OptionCase(**vars(case), options=tuple(options))


def play(*given: Any, **changes: Any) -> Outcome:
    """Run an account; the engine is held to it."""
    return agreement.assert_agrees(make(*given, **changes), "by hand")


def test_what_nothing_values_is_not_traded():
    """Ordered before its first surface and after its expiry: at no price, so not for a tick."""
    bars = [flat(100)] * 6
    call = option(bars, 1, 100.0, [NAN, 1.0, NAN, NAN, 1.0], 3, volatility=0.6, expiry_spot=90.0)
    call.rows["volatilities_open"][:3] = NAN
    call.rows["volatilities_close"][:3] = NAN

    result = agreement.run_engine(make(bars, [call]), is_compiled=False)

    times = result.events.query("kind == 'unquoted'")["time"]
    assert result.bars.index.get_indexer(times).tolist() == [1, 4]
    assert agreement.near(result.bars["cash"].iloc[-1], 1000)


RULES = {  # name of a case: the rule of margin
    "standard": bt.Standard(**{k: v for k, v in PER_OPTION.items() if k != "level"}),
    "standard that counts longs": bt.Standard(
        initial=0.15, least=0.1, maintenance=0.075, option_value="long"
    ),
    "scenarios": bt.ScenarioMargin(moves={"BTC": [(-0.2, 1.0, 0.0), (0.2, 1.0, 0.0)]}),
    **{name: name for name in ("reg-t", "cboe-index", "occ-tims", "derive")},
    **{name: name for name in ("deribit-standard", "deribit-portfolio", "okx-standard-btc")},
}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("held", [2.0, -2.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_trade_at_the_mark_changes_free_margin_by_what_it_requires(name, held, sign):
    """M - R falls by the requirement, less a mark in it, and by what is withheld of a long."""
    rule = RULES[name]
    is_coin = name.startswith(("deribit", "okx"))
    contract = {"contract": {"kind": "inverse" if is_coin else "linear"}}
    traded = model(sign, 100.0, held, is_coin=is_coin, underlying="BTC")
    case = make(FLAT, [traded], name="BTC", venues={"*": contract})
    terms = case.for_engine(bt)
    terms["account"] = replace(terms["account"], requirement=rule)
    with case.feeding():
        result = bt.run(policy=agreement.Scripted(), compile=False, **terms)

    listed = bt.Option(
        kind="call" if sign > 0 else "put",
        strike=100.0,
        expiry="2024-01-31",
        underlying="BTC",
        settlement="coin" if is_coin else "cash",
    )
    position = bt.OptionPosition(listed, held, 100.0, "2024-01-01 02:00", volatility=0.6)
    requirement = bt.margin.requirement({}, {}, {}, rule, options=position)
    counted = bt.margin.option_value(position, rule)
    value = held * result.record.options.value[1, 0]

    bar = result.bars.iloc[1]
    assert agreement.near(bar["requirement"], requirement)
    assert agreement.near(bar["backing"], 1000 + bar["price_pnl"] - (value - counted))


@pytest.mark.parametrize("intrabar", ["path", "worst"])
@pytest.mark.parametrize("rule", [None, PER_OPTION])
def test_longs_that_count_none_are_walked_as_if_they_were_not_there(rule, intrabar):
    """512 of 1,024 buy a call; the rest is liquidated as 512 alone are, bit for bit."""
    bars = [flat(128), flat(128), (128, 131, 127, 130), (130, 133, 60, 64), flat(64)]
    call = model(1, 128.0, 1.0, bars=bars, quotes=(512.0, 500.0))
    idle = model(1, 128.0, bars=bars)
    terms = {"requirement": rule, "intrabar": intrabar}
    without = make(bars, [idle], 4.0, capital=512.0, **terms)
    holding = make(bars, [call], 2.0, capital=1024.0, **terms)
    alone = agreement.run_engine(without, is_compiled=False)
    beside = agreement.run_engine(holding, is_compiled=False)

    hits = alone.events.query("kind == 'liquidation'").to_dict("records")
    assert len(hits) == 1
    assert beside.events.query("kind == 'liquidation'").to_dict("records") == hits

    for name in ("cash", "liquidation_loss", "fees"):
        expected = getattr(alone.record.account, name)[1:]
        assert getattr(beside.record.account, name)[1:].tobytes() == expected.tobytes()

    quantities = alone.record.positions.quantity
    assert beside.record.positions.quantity.tobytes() == quantities.tobytes()
    assert beside.record.options.quantity[-1, 0] == 1.0


def put_strike_on_the_way(strike: float, quantity: float = 1.0) -> SimpleNamespace:
    """Return a bar whose price goes from 100 to 120 at worst, with an option of this strike."""
    brackets = SimpleNamespace(sizes=[1.0], are_inverse=[False])
    terms = SimpleNamespace(
        intrabar=records.WORST,
        rules=SimpleNamespace(brackets=brackets),
        options=SimpleNamespace(instruments=[0]),
    )
    held = SimpleNamespace(strikes=[strike], quantities=[quantity])
    return SimpleNamespace(
        terms=terms,
        state=SimpleNamespace(options=SimpleNamespace(positions=held)),
        scratch=SimpleNamespace(walk=[SimpleNamespace(mark=100.0, mark_end=120.0)]),
    )


@pytest.mark.parametrize(("strike", "quantity", "place"), [
    (105.0, 1.0, 0.25),  # 5 of the 20
    (100.0, 1.0, 0.5),  # the price stands on it: a search that stopped there would never go on
    (110.0, 1.0, 0.5),  # it lies where the search ends anyway
    (95.0, 1.0, 0.5),  # behind
    (115.0, 1.0, 0.5),  # beyond the 110 up to which is searched
    (105.0, 0.0, 0.5),  # not held
])  # fmt: skip
def test_the_walk_stops_at_strikes_before_it_and_never_where_it_stands(strike, quantity, place):
    bar = put_strike_on_the_way(strike, quantity)
    assert option_pool.find_strike(bar, 0.0, 0.5) == place


def test_a_strike_that_was_stopped_at_is_not_stopped_at_again():
    """105 lies at a quarter of the way, from where the next place is that of the part's end."""
    assert option_pool.find_strike(put_strike_on_the_way(105.0), 0.25, 0.5) == 0.5


def test_an_addition_averages_what_a_position_paid():
    # one for 2, and two more for 5 each
    call = quoted(1, 100.0, 1.0, 3.0, quotes=(2.0, 1.0))
    call.rows["ask"][2:] = 5.0

    result = agreement.run_engine(make(QUIET, [call]), is_compiled=False)

    assert agreement.near(result.state.options.paid[0], 4)


def strangle(**given: Any) -> list[OptionTape]:
    """Return a call of 110 and a put of 90, ten of each sold."""
    call = model(1, 110.0, -10.0, bars=RALLY, name="C", **given)
    put = model(-1, 90.0, -10.0, bars=RALLY, name="P", **given)
    return [call, put]


def value_strangle(index: float, hours: float, sigma: float = 0.6) -> float:
    return price(1, index, hours, 110.0, sigma) + price(-1, index, hours, 90.0, sigma)


def find_failure(cash: float, hours: float = MONTH - 2) -> float:
    """Bisect w = 10 (c + p + 2 x 0.075 S) for the price above 100."""
    low = 100.0
    high = 125.0
    for _ in range(100):
        middle = 0.5 * (low + high)
        needed = 10 * (value_strangle(middle, hours) + 0.15 * middle)
        if cash <= needed:
            high = middle
        else:
            low = middle
    return high


def test_a_liquidated_strangle_is_bought_back_over_the_mark_and_pays_fees():
    """At 60 + 1 points of half-spread + 2 of slippage; 0.03 % of the price of each as a fee."""
    options = strangle(half_spread=0.01, fees=(0.0003, np.inf, 0.0, 1.0))
    out = play(RALLY, options, capital=250.0, venues={"*": {"liquidation": {"slippage": 0.02}}})

    # sold an hour before the failure at 60 - 1 points
    cash = 250 + 10 * value_strangle(100.0, MONTH - 1, 0.59) - 20 * 0.0003 * 100
    assert agreement.near(out.cash[1], cash)

    failure = find_failure(cash)
    mark = value_strangle(failure, MONTH - 2)
    fees = 20 * 0.0003 * failure
    lost = 10 * (value_strangle(failure, MONTH - 2, 0.63) - mark) + fees
    assert float(out.liquidation_loss[2]) == pytest.approx(lost, rel=1e-9)
    assert float(out.equity[2]) == pytest.approx(cash - 10 * mark - lost, rel=1e-9)


def test_fees_of_options_beyond_what_is_left_take_that_and_no_more():
    """20 options at 10 % of their price of over 100 ask for over 200, which nothing backs."""
    options = strangle(fees=(0.1, np.inf, 0.0, 1.0))
    out = play(RALLY, options, capital=500.0)

    # sold for fees of 200
    cash = 500 + 10 * value_strangle(100.0, MONTH - 1) - 200
    failure = find_failure(cash)
    left = cash - 10 * value_strangle(failure, MONTH - 2)
    assert 0.0 < left < 20 * 0.1 * failure

    assert float(out.liquidation_loss[2]) == pytest.approx(left, rel=1e-9)
    assert out.equity[2] == 0
    assert out.count("bad_debt") == 0


@pytest.mark.parametrize(
    ("fee", "closed"),
    [
        (0.03, 5.0),  # a step frees 7.5 % of the price for a fee of 3 %
        (0.1, 10.0),  # 10 % are more than it frees: no step helps, so all closes at once
    ],
)
def test_an_option_is_closed_in_steps_only_where_a_step_frees_more_than_its_fee(fee, closed):
    call = model(1, 110.0, -10.0, bars=RALLY, fees=(fee, np.inf, 0.0, 1.0))
    venues = {"*": {"liquidation": {"mode": "partial", "step": 0.5}}}
    out = play(RALLY, [call], capital=200.0 + fee * 10 * 100, venues=venues)

    assert float(out.of_kind("liquidation")[0].quantity) == pytest.approx(closed)


@pytest.mark.parametrize(
    ("settlement", "notional", "delta_notional"),
    [
        ("cash", 0.1 * 100, 0.1 * 0.5 * 104),
        ("coin", 0.1, 0.1 * (0.5 - 0.05)),
    ],
)
def test_what_one_contract_is_on_and_moves_by(settlement, notional, delta_notional):
    """A tenth of a coin at 100, its forward at 104, worth 0.05 of what settles it, delta a half."""
    contract = ListedOption(
        name="C",
        underlying="A",
        kind="call",
        strike=100.0,
        expiry=pd.Timestamp("2024-06-28 08:00", tz="UTC"),
        size=0.1,
        settlement=settlement,
        years=0.25,
        spot=100.0,
        forward=104.0,
        mark=0.05,
        bid=0.04,
        ask=0.06,
        volatility=0.6,
        delta=0.5,
        quantity=0.0,
        leg="",
    )
    assert contract.notional == pytest.approx(notional, rel=1e-12)
    assert contract.delta_notional == pytest.approx(delta_notional, rel=1e-12)
    assert contract.cost == pytest.approx(0.1 * 0.06, rel=1e-12)
    assert contract.is_quoted
    assert not contract._replace(bid=NAN, ask=NAN).is_quoted
    assert contract._replace(bid=NAN).is_quoted


def test_an_equity_stop_closes_options_too():
    """Half of the highest equity is left: the ten calls are sold at the marks there."""
    bars = [flat(100), flat(100), (100, 100, 80, 80), flat(80)]
    call = model(1, 100.0, 10.0, bars=bars)
    case = make(bars, [call], capital=100.0, equity_stop=0.4)
    result = agreement.run_engine(case, is_compiled=False)

    assert result.bars["equity"].iloc[2] == pytest.approx(60.0, rel=1e-6)
    assert result.record.options.quantity[2, 0] == 0.0
    assert result.events["kind"].eq("equity_stop").sum() == 1


def protected(requirement: dict[str, Any], **venue: Any) -> Outcome:
    """10 of capital, one unit long at 100, a put of strike 95 for 2."""
    put = option(FALL, -1, 95.0, [NAN, 1.0], expiry_bar=4, quotes=(2.0, 0.0))
    safe = {"*": {"brackets": [agreement.bracket(0.01, 50.0)]} | venue}
    return play(FALL, [put], 10.0, capital=10.0, requirement=requirement, venues=safe)


def quoted(sign: int, strike: float, *held: float, **terms: Any) -> OptionTape:
    """An option that is quoted, and expires later."""
    return option(terms.pop("bars", QUIET), sign, strike, [NAN, *held], **terms)


def turned(ask: float) -> Outcome:
    """Six tenths of a put are sold at 8 with 10, and bought back at the ask."""
    put = quoted(-1, 108.0, -0.6, 5.0, quotes=(12.0, 8.0))
    put.rows["ask"][2:] = ask
    return play(QUIET, [put], capital=10.0)


def marked(mark: float) -> OptionTape:
    """A call with a mark of the venue at the open of bar 1, and none at its close."""
    call = model(1, 100.0, 1.0)
    call.rows["marks_open"][1] = mark
    return call


def settled(*, is_coin: bool) -> Outcome:
    """One call of strike 100 sold for a bid of 3 (or .03 coins), settled at 110."""
    bars = [flat(100), flat(100), flat(105), flat(110)]
    capital = 100.0
    bid = 3.0
    kind = "linear"
    if is_coin:
        capital = 1.0
        bid = 0.03
        kind = "inverse"

    call = quoted(
        1, 100.0, -1.0, bars=bars, expiry_bar=3, quotes=(1.0, bid), is_coin=is_coin,
        fees=(0.0, 1.0, 0.01, 0.05),
    )  # fmt: skip
    return play(bars, [call], capital=capital, venues={"*": {"contract": {"kind": kind}}})


QUIET = [flat(100)] * 4
RISE = [flat(100), flat(100), (100, 120, 100, 120), flat(120)]
MARK = price(1, 100.0, 719.0)
PAID = price(1, 100.0, 719.0, sigma=0.62)
"""A call at the money 719 hours before it expires: its mark, and its price at 2 points more."""
PUT = price(-1, 100.0, 719.0, 95.0)
WORSE = {"*": {"brackets": [agreement.bracket(0.01, 50.0)], "liquidation": {"slippage": 0.02}}}
TAKEN = {"*": {"liquidation": {"mode": "takeover"}}}
AT = Fraction(9200, 99)
"""Where 8 + S - 100 is 1 % of S."""
DEBT = 100 - 8 - Fraction(98, 100) * AT
HAND: Hand = {
    # bought at 60 + 2 points; the distance to the mark is slippage, and 0.03 % of 100 a fee
    "fills are half of the spread in volatility from the mark": (
        lambda: play(FLAT, [model(1, 100.0, 2.0, half_spread=0.02, fees=(0.0003, 0.125, 0, 1))]),
        {"cash 1": 1000 - 2 * PAID - 2 * 0.03, "slippage 1": 2 * (PAID - MARK), "fees 1": 0.06}),
    # the mark of what is sold is 0
    "a fill is a tick from the mark at least, and a sale not under zero": (
        lambda: play(FLAT, [model(1, 100.0, 1.0, tick=0.5),
                            model(1, 1000.0, -1.0, tick=0.5, hours=5, name="P"),
                            model(1, 110.0, -1.0, tick=0.5, name="Q")], capital=10_000.0),
        {"slippage.instrument": ["O", "Q"], "slippage.amount": [0.5, 0.5]}),
    # a call of 400 has no vega; the one of 100 is bought at 60 + 2 points all the same
    "where volatility says nothing the spread of the price is kept": (
        lambda: play(FLAT, [model(1, 400.0, 1.0, half_spread=0.02, half_price=0.3),
                            model(1, 100.0, 1.0, name="P", half_spread=0.02, half_price=0.3)]),
        {"slippage.instrument": ["O", "P"], "slippage.amount": [0.3, PAID - MARK]}),
    # quoted 1 over the model at the open, and not quoted at the close
    "a quoted mark takes the place of the model and moves with it": (
        lambda: play(FLAT, [marked(MARK + 1.0)]),
        {"cash 1": 1000 - MARK - 1.0,
         "equity 1": 1000 - MARK - 1.0 + price(1, 100.0, 718.0)}),
    # w + n p >= n (0.15 x 100 + p): 1,000 / 15 calls at the money
    "shorts are scaled to the initial margin": (
        lambda: play(FLAT, [model(1, 100.0, -300.0)]), {"option_quantity 1 0": -1000 / 15}),
    # 10x of 1,000 needs 500; 100 shorts need 1,500 besides: both get one half
    "increases of all kinds share the margin": (
        lambda: play(FLAT, [model(1, 100.0, -100.0)], 10.0),
        {"option_quantity 1 0": -50, "quantity 1 0": 50}),
    # from 5 long to 300 short: the five are closed whatever the margin allows; their price is free
    "reductions fill first and a flip closes what is held": (
        lambda: play(QUIET, [model(1, 100.0, 5.0, -300.0, bars=QUIET)]),
        {"option_quantity 1 0": 5,
         "option_quantity 2 0": -(1000 - 5 * MARK + 5 * price(1, 100.0, 718.0)) / 15}),
    "a takeover leaves nothing of options and balance": (
        lambda: play(RALLY, strangle(), capital=250.0, venues=TAKEN),
        {"equity 2": 0, "option_quantity 2": [0, 0]}),
    # 10 - 2 - 15 + 10 at 85: never under 10 - 5 - 2, the largest requirement 1 % of 100. The put
    # paid 10 at the open of bar 4
    "a put saves the account where options count net": (
        lambda: protected(BY_SCENARIOS),
        {"liquidation.n": 0, "equity 2": 3, "cash 4": 10 - 2 - 100 + 10, "equity 4": 3,
         "slippage 1": 2, "expiry.total": 10}),
    # closed at 92/.99 though the put is worth 95 - 92/.99 more by then; it is kept, as B is over 0:
    # it is worth 10 in the end, and the account has lost the coin
    "the same put does not save it where longs count none": (
        lambda: protected(PER_OPTION),
        {"liquidation.amount 0": AT, "cash 2": 8 + AT - 100, "equity 4": 8 + AT - 100 + 10,
         "option_quantity 2 0": 1}),
    # a liquidation slippage of 2 % leaves B = 8 + .98 S - 100 < 0: the put sells for that
    "longs are sold as far as the balance is negative": (
        lambda: protected(PER_OPTION, liquidation={"slippage": 0.02}),
        {"option_quantity 2 0": 1 - DEBT / (95 - AT), "cash 2": 0, "bad_debt.n": 0}),
    # 10 less the put and 100; where S - 90 - PUT is 1 % of S, the coin is sold at .98 S
    "a long is sold at its bid, without the slippage of a liquidation": (
        lambda: play(FALL, [model(-1, 95.0, 1.0, bars=FALL)], 10.0, capital=10.0,
                     venues=WORSE),
        {"option_quantity 2 0": 1 - (90 + PUT) / 99 / price(-1, (90 + PUT) / 0.99, 718.0, 95.0)}),
    # the fee of expiry is the less of 1 % of 110 (or of a coin) and 5 % of what it pays
    **{
        f"a short call pays at expiry and its fee is capped, {unit}": (
            lambda unit=unit: settled(is_coin=unit == "coins"),
            {"cash 1": held, "cash 3": held - paid * 1.05, "equity 3": held - paid * 1.05,
             "fees 3": paid * 0.05, "events.kind": ["fill", "slippage", "expiry", "fee"]})
        for unit, held, paid in (("cash", 100 + 3, 10), ("coins", 1 + 0.03, 10 / 110))
    },
    # a put 90 and a call 110 sold at 100 for 1 each with 20: at S > 110 the call is S - 110. M is
    # 22; R = .075 S + S - 110 of the call and .075 S of the put: S = 132/1.15. What it received
    # counts once: sold at its mark of 0 for 1, both fill, 15 of 22 are needed
    "a short strangle is bought back where it fails": (
        lambda: play(RISE, [quoted(-1, 90.0, -1.0, bars=RISE, quotes=(NAN, 1.0), name="P"),
                            quoted(1, 110.0, -1.0, bars=RISE, quotes=(NAN, 1.0), name="C")],
                     capital=20.0),
        {"liquidation.instrument": ["P", "C"], "cash 2": 22 - (Fraction(13200, 115) - 110),
         "equity 3": 22 - (Fraction(13200, 115) - 110), "margin_ratio 1": Fraction(15, 22)}),
    # with 10 and no margin to post, two calls at 8 fill to 10/16
    "premiums are paid out of the balance": (
        lambda: play(QUIET, [quoted(1, k, 1.0, quotes=(8.0, NAN), name=f"C{k}")
                             for k in (91.0, 92.0)], capital=10.0),
        {"option_quantity 1": [0.625, 0.625], "cash 1": 0, "equity 1": 0.625 * 17}),
    # what is left of 14.8 buys more, or is the bad debt of an account that has nothing else
    **{
        f"a turn closes whatever the balance buys, {ask}": (
            lambda ask=ask: turned(float(ask)),
            {"cash 1": 14.8, "option_quantity 2 0": held, "cash 2": 0, "bad_debt 2": debt})
        for ask, held, debt in ((12, Fraction(76, 120), 0), (25, 0, Fraction(2, 10)))
    },
    # three calls for all of 0.91 leave -5.6e-17, for which no venue takes an account over
    "longs that took the whole balance are kept": (
        lambda: play(QUIET, [quoted(1, k, 9.0, quotes=(ask, ask), name=f"C{ask}")
                             for k, ask in ((92.0, 1.1), (93.0, 0.7), (94.0, 0.3))],
                     capital=0.91, venues=TAKEN),
        {"liquidation.n": 0, "option_quantity 3 0": Fraction(91, 210)}),
    # a 10x long and a sold call: at the failure a fee of 60 % takes all that is left
    "the fees of a liquidation are shared by what asks for one": (
        lambda: play(FALL, [quoted(1, 110.0, -0.1, bars=FALL, quotes=(NAN, 1.0))], 10.0,
                     capital=10.0, venues={"*": {"liquidation": {"fee": 0.6}}}),
        {"equity 2": 0, "bad_debt.n": 0}),
    # beside a liquidation, whose causes have numbers of their own
    "an order that nobody quotes is no position": (
        lambda: play(FALL, [quoted(1, 110.0, 1.0, bars=FALL, quotes=(NAN, 1.0))], 10.0,
                     capital=10.0),
        {"unquoted.n": 1, "liquidation.n": 1}),
}  # fmt: skip


@by_hand(HAND)
def test_options_by_hand(run, numbers):
    agreement.check_outcome(run(), numbers)


@pytest.mark.parametrize("order", [("A",), "futures_then_options", "largest_notional", None])
def test_a_partial_liquidation_names_instruments_before_options(order):
    """A 9x long and a sold put fail together; the put is kept in any order."""
    put = option(FALL, -1, 101.0, [NAN, -0.5], quotes=(NAN, 1.0))
    liquidation = {"mode": "partial", "step": 0.5, "order": order}
    out = play(
        FALL, [put], 9.0, capital=20.0, requirement=PER_OPTION,
        venues={"*": {"liquidation": liquidation}},
    )  # fmt: skip

    assert out.of_kind("liquidation")[0].instrument == "A"


@pytest.mark.parametrize(("is_coin", "gains", "slope"), [
    # In coins: value .1 / 10 x 20 / 10 = .02 a contract; needed .02 + .5 x .02 = .03
    (True, True, 3 * 2 * 0.03), (True, False, 3 * (0.02 + 2 * 0.03)),
    # In cash: value .1; needed .1 + .075 x .1 + .5 x .1 = .1575
    (False, True, 3 * 2 * 0.1575), (False, False, 3 * (0.1 + 2 * 0.1575)),
])  # fmt: skip
def test_the_bound_of_what_an_option_takes_from_its_pool_by_hand(is_coin, gains, slope):
    """3 contracts of .1, sold at strike 20, from a price of 10 on; a level of 2 of a requirement
    of 7.5 % of the underlying and half of the mark. A gain of value takes nothing away."""
    one = {"sizes": 0.1, "quantities": -3.0, "strikes": 20.0, "bases": 1.0, "years": 0.25}
    options = {name: np.array([value]) for name, value in one.items()}
    rates = SimpleNamespace(maintenance=0.075, of_mark=0.5, factor=1.0)
    pool = SimpleNamespace(
        options=SimpleNamespace(**options, rates=np.zeros(1), are_coin=np.array([is_coin])),
        rules=SimpleNamespace(kind=option_values.PER_OPTION, rates=rates),
        packed=SimpleNamespace(level=2.0, scenarios=SimpleNamespace(factor=1.0)),
    )

    assert margin.bound_option_slope(pool, 0, 10.0, gains) == pytest.approx(slope, rel=1e-12)
