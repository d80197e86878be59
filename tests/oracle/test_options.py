"""Options in the account by hand: what is paid, what backs, what expires, what is liquidated."""

import math
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.agreement import assert_agrees, bracket, flat, near, scene, tape
from tests.draws import DAY, HOUR, START
from tests.option_cases import COSTS, OptionCase, OptionTape, make_option_case
from tests.oracle import Outcome, simulate

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
