"""Margin of options by hand: a trade at its mark under every preset, scenarios, strategies."""

import json
import math

import pytest

import backtest as bt
from backtest.base.errors import BacktestError
from backtest.venue.margin_presets import list_presets
from backtest.venue.requirement_rule import MarginRule
from tests.option_books import FREE, SHARES, hold, stock_option


def free_margin(rule, options, cash):
    """M - R of money and options alone."""
    backing = cash + bt.margin.option_value(options, rule)
    return backing - bt.margin.requirement({}, {}, {}, rule, options=options)


ITM = {"kind": "call", "strike": 50_000.0, "days": 0.0}  # 10,000 in the money at expiry
ATM = {"kind": "call", "strike": 60_000.0, "days": 0.0}
PUT = {"strike": 60_000.0, "index": 50_000.0, "mark": 0.21, "settlement": "coin"}
STOCK = {"strike": 80.0, "index": 95.0, "mark": 2.0, "size": 100.0}
LEAPS = STOCK | {"days": 300.0}
BY_HAND = {
    # preset, day, option, sold: M - R changes by what the sale requires without the mark
    "deribit-standard": ("deribit-standard", None, PUT, -1, -0.075),  # max(.075, .075 * .21)
    "okx-standard-btc": ("okx-standard-btc", None, PUT, -1, -0.03),
    "okx-standard-eth": ("okx-standard-eth", None, PUT, -1, -0.05),
    "reg-t": ("reg-t", None, STOCK, -1, -800.0),  # max(.2 * 95 - 15, .1 * 80) * 100
    "cboe-index": ("cboe-index", None, STOCK, -1, -800.0),  # max(.15 * 95 - 15, .1 * 80) * 100
    "occ-tims": ("occ-tims", None, ITM, -1, -9_000.0),  # 69,000 - 60,000
    "derive": ("derive", None, ATM, -1, -8_820.0),  # .8 * .18 * 60,000 + .3 % of 60,000
    # 9,600 / 69,600 coins and the charge on a delta of one half; tails are relieved
    "deribit-portfolio": (
        "deribit-portfolio", None, ATM | {"settlement": "coin"}, -1,
        -0.8 * (9_600 / 69_600 + 0.5 * 0.01),
    ),
    "deribit-portfolio 2019": (
        "deribit-portfolio", "2019-06-01", ATM | {"settlement": "coin"}, -1,
        -(6_000 / 66_000 + 0.01),
    ),
    # bought: M - R falls by the value that is withheld, and by what the purchase requires
    "a long that counts none": ("deribit-standard", None, PUT, 1, -0.21),
    "a long of strategies": ("reg-t", None, STOCK, 1, -200.0),
    "a long over nine months": ("reg-t", None, LEAPS, 1, -150.0),  # 75 % of it
    "a long that counts": ("occ-tims", None, ITM, 1, -9_000.0),  # from 10,000 to 1,000
    # .95 of 10,000 is left where nothing moves, 0.95 * 1,000 at -13.5 %... the worst is -18 %
    "a long that is discounted": ("derive", None, ITM, 1, -0.8 * 10_000.0),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_a_trade_at_the_mark_changes_free_margin_by_what_it_requires(name):
    preset, day, terms, quantity, expected = BY_HAND[name]
    rule = bt.PresetMargin(preset=preset, at=day)
    option = hold(quantity, **terms)
    priced = hold(1.0, **terms)
    long = bt.margin.option_value(priced, bt.ScenarioMargin(moves=[0.1])) if "mark" not in terms \
        else terms["mark"] * terms.get("size", 1.0)  # fmt: skip
    change = free_margin(rule, option, 100.0 - quantity * long) - 100.0
    assert change == pytest.approx(expected, rel=1e-12)


def test_every_preset_with_options_is_traded_by_hand():
    traded = {preset for preset, *_ in BY_HAND.values()}
    with_options = set()
    for each in list_presets():
        try:
            bt.margin.requirement({}, {}, {}, each.name, options=hold(1.0))
        except BacktestError as error:
            if "coins" in str(error):
                with_options.add(each.name)
            continue
        with_options.add(each.name)
    assert traded == with_options


def test_longs_that_count_are_in_the_backing_once():
    """B2: a mark is never in M and in R together."""
    rule = bt.Standard(initial=0.15, least=0.1, maintenance=0.075, option_value="long")
    long = hold(2.0, mark=0.03, settlement="coin")
    assert bt.margin.option_value(long, rule) == 0.06
    assert bt.margin.requirement({}, {}, {}, rule, options=long) == 0.0
    short = hold(-2.0, mark=0.03, settlement="coin")
    assert bt.margin.option_value(short, rule) == 0.0
    assert bt.margin.requirement({}, {}, {}, rule, options=short) == pytest.approx(0.21)


def test_moves_of_volatility_have_the_tenor_of_the_published_rule():
    """38 % at 30 days, .38 * 2^.3 at 15; at half a day that of one day; a floor where it rises."""
    shocks = bt.OptionShocks(power=(0.3, 0.13), least_volatility=0.5)

    def value(volatility, days):
        return bt.options.price("put", 60_000.0, 50_000.0, days / 365.0, volatility)

    for days, scale in ((30.0, 1.0), (15.0, 2.0**0.3), (0.5, 30.0**0.3), (60.0, 0.5**0.13)):
        rule = bt.ScenarioMargin(moves=[(0.0, 1.0, 0.38)], options=shocks)
        needed = bt.margin.requirement({}, {}, {}, rule, options=hold(-1.0, days=days))
        moved = 0.6 * (1.0 + 0.38 * scale)
        assert needed == pytest.approx(value(moved, days) - value(0.6, days), rel=1e-9)
        low = bt.margin.requirement({}, {}, {}, rule, options=hold(-1.0, days=days, volatility=0.1))
        floor = max(0.5, 0.1 * (1.0 + 0.38 * scale))
        assert low == pytest.approx(value(floor, days) - value(0.1, days), rel=1e-9)


def test_span_like_scenarios_by_hand():
    """Sixteen rows, of which the last two move twice as far and count a third; ours, not SPAN's."""
    thirds = [k / 3 * 0.1 for k in (0, 1, -1, 2, -2, 3, -3)]
    rows = bt.margin.scenario_grid(thirds, [0.2, -0.2], [(0.2, 0.33), (-0.2, 0.33)])
    assert len(rows) == 16
    rule = bt.ScenarioMargin(moves=rows, options=bt.OptionShocks(short_charge=(0.01, 0.01)))
    short = hold(-1.0, "call", 60_000.0, days=0.0)
    # 6,000 at +10 %, 12,000 * .33 at +20 %; 1 % of 60,000
    assert bt.margin.requirement({}, {}, {}, rule, options=short) == pytest.approx(6_600.0)


def test_futures_hedge_options_of_their_group():
    """A short call at expiry and a future: the loss of one is the gain of the other."""
    rule = bt.ScenarioMargin(moves=[-0.1, 0.1], groups={"BTC": ["F"]})
    short = hold(-1.0, **ITM)
    alone = bt.margin.requirement({}, {}, {}, rule.override(groups={"BTC": ["F"]}).override(
        {"groups": None}), options=short)  # fmt: skip
    assert alone == pytest.approx(6_000.0)
    hedged = bt.margin.requirement(FREE, {"F": 1.0}, {"F": 60_000.0}, rule, options=short)
    assert hedged == pytest.approx(0.0)
    apart = bt.ScenarioMargin(moves=[-0.1, 0.1])
    both = bt.margin.requirement(FREE, {"F": 1.0}, {"F": 60_000.0}, apart, options=short)
    assert both == pytest.approx(12_000.0)


def test_a_conversion_and_a_reversal_need_a_tenth_of_the_strike():
    """LEAN's figures without options that lock the price: 25 % of the shares."""
    held, prices = {"XYZ": 100.0}, {"XYZ": 110.0}
    call, put = (
        stock_option("call", 100.0, -1, 12.0, 110.0),
        stock_option("put", 100.0, 1, 1.0, 110.0),
    )
    covered = bt.margin.requirement(SHARES, held, prices, "reg-t", options=call)
    assert covered == pytest.approx(2_750.0 + 1_000.0)  # 25 % and what it is in the money
    locked = bt.margin.requirement(SHARES, held, prices, "reg-t", options=[call, put])
    assert locked == pytest.approx(1_000.0 + 1_000.0)


def test_calculate_book_counts_options_in_equity_and_moves_them():
    """A short put at expiry under TIMS owes m more after a fall of m, and needs 15 %."""
    option = hold(-1.0, strike=60_000.0, days=0.0)
    found = bt.calculate_book({}, {}, {}, balance=30_000.0, rule="occ-tims", options=option)
    assert (found.equity, found.backing, found.option_value) == (30_000.0, 30_000.0, 0.0)
    assert found.requirement == pytest.approx(9_000.0)
    assert found.options_leverage == pytest.approx(1.0)  # half a coin of 60,000
    ((name, _, down, up),) = found.moves
    # 30,000 - 60,000 m = .15 * 60,000 (1 - m)
    assert (name, down) == ("index BTC", pytest.approx(-21_000 / 51_000))
    assert math.isnan(up)
    assert found.to_dict()["options"][0]["delta"] == 0.5


@pytest.mark.parametrize("name", ["derive", "deribit-portfolio", "reg-t", "deribit-standard"])
def test_rules_and_options_are_stored_and_read(name):
    rule = bt.margin_preset(name, ["BTC-PERPETUAL"]).requirement
    stored = json.loads(json.dumps(rule.to_dict()))
    assert MarginRule.from_dict(stored) == rule
    option = hold(-1.0, mark=0.1)
    assert bt.OptionPosition.from_dict(json.loads(json.dumps(option.to_dict()))) == option
