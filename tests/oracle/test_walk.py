"""The walk inside a bar by hand (RULES 2.7 and 7): the oracle alone, without the engine."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.account.test_options import BY_SCENARIOS, PER_OPTION, option
from tests.agreement import (
    Bar,
    asset,
    bracket,
    check_outcome,
    flat,
    near,
    scenarios,
    scene,
    tape,
)
from tests.cases import PortfolioCase, Tape
from tests.option_cases import OptionCase
from tests.oracle import Event, Outcome, simulate

NAN = math.nan
FREE = [bracket(0.0, 100.0)]
"""No maintenance: an account fails where nothing is left."""
WIDE = [flat(100), flat(100), (100, 110, 90, 100)]


def walk(case: PortfolioCase) -> Outcome:
    return simulate(*case.for_oracle())


def with_marks(last: Tape, marks: Sequence[Bar]) -> Tape:
    return replace(last, mark=tape(marks).bars)


def happened(out: Outcome, bar: int, *kinds: str) -> list[tuple[str, str, float]]:
    names = kinds or (
        "liquidation", "stop", "trailing_stop", "take_profit", "equity_stop", "margin_added",
    )  # fmt: skip
    return [
        (each.kind, each.instrument, round(float(each.price), 9))
        for each in out.events
        if each.bar == bar and each.kind in names
    ]


# ------------------------------------------------------------------- which extremes come first


def long_and_short(
    btc: Bar = (100, 105, 95, 100), eth: Bar = (100, 110, 90, 100), **changes: Any
) -> Outcome:
    """10,000: cross long BTC of 5,000, isolated short ETH of 3,000 at 30x with a margin of 100."""
    return walk(
        scene(
            {
                "BTC": tape([flat(100), flat(100), btc], (0.5, NAN)),
                "ETH": tape([flat(100), flat(100), eth], (0.3, NAN)),
            },
            {"BTC": 1.0, "ETH": -1.0},
            venues={"*": {"brackets": [bracket(0.005, 50.0)]}},
            margin={"BTC": "cross", "ETH": "isolated"},
            venue_leverage={"BTC": None, "ETH": 30.0},
            capital=10_000.0,
            **changes,
        )
    )


def test_the_example_goes_to_the_highs_first():
    """Lows: -250 + 300 = +50. Highs: +250 - 300 = -50, where ETH is liquidated at once.

    At a share x of the way 100 - 300 x = .5 % of (3000 + 300 x): x = 85 / 301.5. The loss of the
    short counts in full in the choice, though it can lose no more than its margin of 100.
    """
    out = long_and_short()
    x = Fraction(85) / Fraction(3015, 10)
    assert out.paths["walked: highs first"] == 1
    (event,) = out.of_kind("liquidation")
    assert (event.bar, event.instrument) == (2, "ETH")
    assert near(event.price, 100 + 10 * x)
    assert near(out.equity[2], 10_000 - 300 * x)


def test_at_the_highs_first_the_short_takes_no_profit_before_it_is_liquidated():
    """At the lows its profit at 95 would have come first; it is a bar that reaches both."""
    profit = {"BTC": None, "ETH": 0.05}
    out = long_and_short(take_profit=profit)
    assert [each[0] for each in happened(out, 2)] == ["liquidation"]
    assert out.both_reached == [False, False, True]
    # up 4 % it loses 120 while BTC gains 250: the lows are worse, and come first
    mild = long_and_short(eth=(100, 104, 90, 100), take_profit=profit)
    assert happened(mild, 2) == [("take_profit", "ETH", 95.0)]


@pytest.mark.parametrize(
    ("size", "is_high_first"), [(1.0, False), (1 + 1e-9, False), (1 + 1e-7, True)]
)
def test_a_hedge_goes_to_the_lows_first_whatever_the_rounding(size, is_high_first):
    """Long spot, short the perpetual, 10 % either way: 100 (size - 1) worse of 1,000."""
    spot = {"contract": {"kind": "spot", "haircut": 0.0, "borrow_rate": 0.0}}
    case = scene(
        {"SPOT": tape(WIDE, (0.5, NAN)), "PERP": tape(WIDE, (0.5 * size, NAN))},
        {"SPOT": 1.0, "PERP": -1.0},
        venues={"SPOT": spot},
    )
    out = walk(case)
    assert out.paths["walked: highs first"] == is_high_first


def test_collateral_counts_in_the_choice():
    """A short of 1,000 that may lose 100, beside coins of 1,000 that lose 150 at their low."""
    coin = tape([flat(50), flat(50), (50, 57.5, 42.5, 50)])
    short = {"A": tape(WIDE, (0.5, NAN))}
    pledged = walk(
        scene(
            short,
            {"A": -1.0},
            collateral=[(asset("COIN", 20.0, rate=0.9), coin)],
            negative_limit=0.0,
        )
    )
    assert pledged.paths["walked: highs first"] == 0
    alone = walk(scene(short, {"A": -1.0}))
    assert alone.paths["walked: highs first"] == 1


@pytest.mark.parametrize(("rule", "is_high_first"), [(BY_SCENARIOS, True), (PER_OPTION, False)])
def test_options_that_back_the_account_count_in_the_choice(rule, is_high_first):
    """A coin and three puts of 100: 20 more at 90, 10 more at 110; longs that count none are not
    there.
    """
    puts = option(WIDE, -1, 100.0, [NAN, 3.0], quotes=(0.0, 0.0))
    plain = scene({"A": tape(WIDE, (1.0, NAN))}, {"A": 1.0}, capital=100.0, requirement=rule)
    out = walk(OptionCase(**vars(plain), options=(puts,)))
    assert out.paths["walked: highs first"] == is_high_first


# ------------------------------------------------------------------------ 2025-10-10, 21:00 UTC

CRASH = {
    "BTC": [
        (0.963567, 0.964566, 0.952601, 0.958853, 0.963566, 0.964566, 0.953034, 0.958852),
        (0.958853, 0.963294, 0.927452, 0.939058, 0.958879, 0.963154, 0.929509, 0.9394),
        (0.939078, 0.946275, 0.834777, 0.931292, 0.939582, 0.946131, 0.837747, 0.931164),
    ],
    "ETH": [
        (0.930647, 0.933109, 0.906741, 0.917587, 0.930663, 0.933045, 0.907505, 0.917536),
        (0.917587, 0.923832, 0.880047, 0.887675, 0.917438, 0.923791, 0.88289, 0.885934),
        (0.887675, 0.9143, 0.780927, 0.905225, 0.887156, 0.909912, 0.786748, 0.902299),
    ],
    "ADA": [
        (0.945857, 0.947934, 0.926913, 0.937424, 0.945979, 0.947801, 0.927897, 0.937546),
        (0.937424, 0.946712, 0.855537, 0.876681, 0.937315, 0.94659, 0.861602, 0.874358),
        (0.876558, 0.889269, 0.335248, 0.75605, 0.87556, 0.88901, 0.337081, 0.752934),
    ],
}
"""19:00, 20:00, 21:00: open, high, low, close of last prices, then of marks (Binance, scaled)."""


def crash(**liquidation: Any) -> Outcome:
    """3.8 times the equity in equal parts, bought at the open of 20:00 and held."""
    tapes = {
        name: with_marks(tape([row[:4] for row in rows], (3.8 / 3, NAN)), [r[4:] for r in rows])
        for name, rows in CRASH.items()
    }
    venue = {"brackets": [bracket(0.005, 100.0)], "liquidation": liquidation}
    signal = dict.fromkeys(tapes, 1.0)
    return walk(scene(tapes, signal, venues={"*": venue}, capital=1.0))


def test_the_crash_of_2025_liquidates_three_coins_that_fall_together():
    """At a share x of the way to the mark lows 1 + Σ q (P - entry) = .5 % of Σ q P."""
    out = crash()
    q = {name: 3.8 / 3 / rows[1][0] for name, rows in CRASH.items()}

    def surplus(x: float) -> tuple[float, float]:
        prices = {n: rows[2][4] + x * (rows[2][6] - rows[2][4]) for n, rows in CRASH.items()}
        equity = 1 + sum(q[n] * (prices[n] - CRASH[n][1][0]) for n in q)
        return equity, equity - 0.005 * sum(q[n] * prices[n] for n in q)

    first, last = surplus(0.0)[1], surplus(1.0)[1]
    x = first / (first - last)
    assert x == pytest.approx(0.8343, abs=5e-5)
    left = surplus(x)[0]
    assert left == pytest.approx(0.0141, abs=5e-5)
    assert [e.instrument for e in out.of_kind("liquidation")] == ["BTC", "ETH", "ADA"]
    for event in out.of_kind("liquidation"):
        rows = CRASH[event.instrument]
        assert event.bar == 2
        assert near(event.price, rows[2][4] + x * (rows[2][6] - rows[2][4]))
    assert float(out.equity[2]) == pytest.approx(left, rel=1e-12)
    # on the rule of before, each by its own bar, ETH stood at its high where the others were low
    tight = {"BTC": CRASH["BTC"][2][6], "ETH": CRASH["ETH"][2][5], "ADA": CRASH["ADA"][2][6]}
    survived = 1 + sum(q[n] * (tight[n] - CRASH[n][1][0]) for n in q)
    assert survived == pytest.approx(0.0182, abs=5e-5)


def test_taken_over_in_the_crash_nothing_is_left():
    """At the same place."""
    out = crash(mode="takeover")
    assert out.equity[2] == 0
    assert near(out.liquidation_loss[2], float(crash().equity[2]))
    assert not any(out.ambiguous)


def test_what_fails_along_the_path_fails_at_worst():
    """Random hedges of three, without stops: the bound is one."""
    rng, failed = np.random.default_rng(5), 0
    for _ in range(60):
        tapes, signal = {}, {}
        for name in "ABC":
            up, down, close = rng.uniform(0.0, 0.2, 3)
            bar = (100, 100 * (1 + up), 100 * (1 - down), 100 * (1 - down + close * (up + down)))
            tapes[name] = tape([flat(100), flat(100), bar], (rng.uniform(1.0, 6.0), NAN))
            signal[name] = float(rng.choice([-1.0, 1.0]))
        path, worst = (walk(scene(tapes, signal, intrabar=kind)) for kind in ("path", "worst"))
        failed += path.count("liquidation") > 0
        assert worst.count("liquidation") >= (path.count("liquidation") > 0)
    assert 10 < failed < 50


# --------------------------------------------------------------------------------- one position


def one(*bars: Bar, target: float, signal: float = 1.0, **changes: Any) -> Outcome:
    """One position, bought at 100."""
    case = scene({"A": tape([flat(100), *bars], (target, NAN))}, {"A": signal}, **changes)
    return walk(case).alone()


@pytest.mark.parametrize(("mark_low", "first"), [(90, "liquidation"), (94, "stop")])
def test_the_stop_and_the_liquidation_act_by_their_place_on_the_way(mark_low, first):
    """10x dies at the mark 94.74, its stop is the last price 95 of a way from 100 to 90.

    To a mark low of 90 the first is .526 of the way, the stop .5; to 94 it is .877. So the last low
    of 88 makes it .417 for the stop, and one of 91 .556.
    """
    last_low = 91.0 if first == "liquidation" else 90.0
    bars = [flat(100), flat(100), (100, 100, last_low, 100)]
    marked = with_marks(tape(bars, (10.0, NAN)), [*bars[:2], (100, 100, mark_low, 100)])
    out = walk(scene({"A": marked}, {"A": 1.0}, stop_loss=0.05))
    assert [each[0] for each in happened(out, 2)] == [first]


@pytest.mark.parametrize(
    ("leverage", "first"), [(3.0, "stop"), (6.0, "stop"), (6.14, "liquidation")]
)
def test_the_place_is_taken_in_the_value_of_a_contract(leverage, first):
    """Inverse, u = -100/P: marks fall from -1 to -1.25, last prices from -1 to -1.2.

    The stop at 92 is at .087/.2 = .4348 of the way. L x dies at u = -(1 + L)/(1.05 L): 6x at .1111
    of .25 = .4444, 6.14x at .4299. In prices these are .48, .5 and .4853.
    """
    bars = [flat(100), flat(100), (100, 100, 100 / 1.2, 95)]
    marked = with_marks(tape(bars, (leverage, NAN)), [*bars[:2], (100, 100, 80, 95)])
    venue = {"contract": {"kind": "inverse", "size": 100.0}}
    out = walk(scene({"A": marked}, {"A": 1.0}, venues={"*": venue}, capital=1.0, stop_loss=0.08))
    assert [each[0] for each in happened(out, 2)] == [first]


# ------------------------------------------------------------------------------ resting orders

REST = {"fill": "limit", "offset": 0.02}
COARSE = {"*": {"contract": {"tick": 0.5}, "brackets": [bracket(0.05, 16.0)]}}


def rest(*bars: Bar, targets: Sequence[float] = (1.0, NAN), **changes: Any) -> Outcome:
    """Limit orders 2 % from the close, from 100."""
    terms = REST | {"venues": COARSE} | changes
    return walk(scene({"A": tape([flat(100), *bars], targets)}, {"A": 1.0}, **terms)).alone()


HALF = 90 / Fraction(95, 100)
"""Where 10x dies."""
FILLED = Fraction(1000, 98)
GROWN = 2000 / Fraction(9604, 100)
DEAR = {"*": COARSE["*"] | {"slippage": {"rate": 0.01}, "fees": {"taker": 1e-3}}}
BOTH = {"stop_loss": 0.05, "take_profit": 0.05}
HAND: dict[str, tuple[Callable[[], Outcome], list[tuple[str, float]], dict[str, Any]]] = {
    # 10x dies at 94.736...; a stop there too is not reached before
    "an equal place is a liquidation": (
        lambda: one(flat(100), (100, 100, 90, 100), target=10.0, stop_loss=1 - 0.9 / 0.95),
        [("liquidation", float(HALF))], {}),
    # a half dies at 90/.95; the other sells at 110
    "what a partial liquidation leaves may take its profit at the second extreme": (
        lambda: one(flat(100), (100, 112, 93, 100), target=10.0, take_profit=0.1,
                    venues={"*": {"liquidation": {"mode": "partial", "step": 0.5}}}),
        [("liquidation", float(HALF)), ("take_profit", 110)],
        {"equity 2": 1000 - 50 * (100 - HALF) + 50 * 10, "both_reached": [False, False, True]}),
    # its stop at 105 acts, though the close is over the open and the low has its profit
    "a lone short goes to its high first": (
        lambda: one(flat(100), (100, 106, 94, 101), target=2.0, signal=-1.0, **BOTH),
        [("stop", 105)], {}),
    # low 96, high 106: nothing at 95, sold at 105
    "a take-profit beyond the adverse extreme acts on the way back": (
        lambda: one(flat(100), (100, 106, 96, 97), target=2.0, **BOTH),
        [("take_profit", 105)], {"both_reached": [False] * 3}),
    # 2x: a tenth of the equity is lost at 95, where the stop is too
    "the equity stop comes before a stop at an equal place": (
        lambda: one(flat(100), (100, 100, 90, 100), target=2.0, stop_loss=0.05, equity_stop=0.1),
        [("equity_stop", 95)], {}),
    # 2x loses a tenth at 95; the bar has 105 too
    "the equity stop does not count as one of both": (
        lambda: one(flat(100), (100, 106, 94, 100), target=2.0, take_profit=0.05, equity_stop=0.1),
        [("equity_stop", 95)], {"both_reached": [False] * 3}),
    # equality counts
    **{
        f"a bar that reaches the stop and the profit is counted, {low} {high}": (
            lambda low=low, high=high: one(flat(100), (100, high, low, 100), target=2.0, **BOTH),
            ends, {"both_reached": [False, False, is_both]})
        for low, high, ends, is_both in ((95.0, 105.0, [("stop", 95)], True),
                                         (95.01, 105.0, [("take_profit", 105)], False),
                                         (95.0, 104.99, [("stop", 95)], False))
    },
    # bought at 98 in a bar from 100 to 97 and 106: the high may have come before the fill
    **{
        f"what an order opened takes its profit at the close alone, {close}": (
            lambda close=close: rest((100, 106, 97, close), take_profit=0.02), ends,
            {"equity 1": 1000 + FILLED * (Fraction(price) - 98), "both_reached": [False, False]})
        for close, price, ends in ((99.0, 99.0, []), (105.0, 99.96, [("take_profit", 99.96)]),
                                   (99.96, 99.96, [("take_profit", 99.96)]))
    },
    # 99.96 less 1 %, and 10 bp of it
    "a late profit is worsened and pays the taker fee": (
        lambda: rest((100, 106, 97, 105), take_profit=0.02, venues=DEAR),
        [("take_profit", 99.96 * 0.99)], {"equity 1": 1000 / 98 * 99.96 * 0.99 * 0.999}),
    # 1000 / 98 bought at 98, up to 2000 / 96.04 at 96.04: 3 % over the mean is under the high
    "what an order increased takes no profit at the extreme": (
        lambda: rest((100, 100, 97, 98), (98, 106, 95, 97), targets=(1.0, 2.0, NAN),
                     take_profit=0.03),
        [], {"entry 2": (1000 + (GROWN - FILLED) * Fraction(9604, 100)) / GROWN}),
    "held from the bar before without an order, it sells at 98 * 1.03": (
        lambda: rest((100, 100, 97, 98), (98, 106, 95, 97), take_profit=0.03),
        [("take_profit", 100.94)], {}),
    # bought at 98 with a high of 106: 5 % under the better of fill and close in the next bar
    **{
        f"the best price of what an order opened is the better of fill and close, {close}": (
            lambda close=close: rest((100, 106, 97, close), (close, 99, 90, 95),
                                     trailing_stop=0.05),
            [("trailing_stop", price)], {})
        for close, price in ((99, 94.05), (97.5, 93.1))
    },
    # the high of 106 in the bar of the increase: 5 % under it is 100.7, over the next open
    "the best price of what an order increased is that of any position": (
        lambda: rest((100, 100, 97, 98), (98, 106, 95, 102), (102, 102, 90, 95),
                     targets=(1.0, 2.0, NAN), trailing_stop=0.05),
        [("trailing_stop", 100.7)], {}),
}  # fmt: skip


@pytest.mark.parametrize(("run", "ends", "numbers"), [*HAND.values()], ids=[*HAND])
def test_one_position_inside_a_bar(run, ends, numbers):
    """What ends it in the last bar, and at which prices."""
    out = run()
    found = [each[::2] for each in happened(out, len(out.equity) - 1)]
    assert found == [(kind, round(price, 9)) for kind, price in ends]
    check_outcome(out, numbers)


def test_a_take_profit_comes_before_a_fill_and_cancels_it():
    """A hedge of a short goes to the highs first: the long sells at 105 and buys nothing at 98."""
    case = scene(
        {
            "A": tape([flat(100), (100, 100, 97, 100), (100, 106, 97, 98)], (1.0, 1.5, NAN)),
            "B": tape([flat(100), (100, 103, 100, 100), (100, 110, 99, 100)], (3.0, NAN)),
        },
        {"A": 1.0, "B": -1.0},
        take_profit={"A": 0.05, "B": None},
        venues=COARSE,
        **REST,
    )
    out = walk(case)
    assert happened(out, 2, "take_profit") == [("take_profit", "A", 102.9)]
    assert [(e.bar, e.instrument) for e in out.of_kind("fill")] == [(1, "A"), (1, "B")]
    assert out.quantity[2][0] == 0


# ------------------------------------------------------------------------------------ mirrored


def mirrored(bars: Sequence[Bar]) -> list[Bar]:
    """Return P -> 200 - P: highs are lows."""
    return [(200 - o, 200 - low, 200 - high, 200 - c) for o, high, low, c in bars]


def distance(multiple: float) -> SimpleNamespace:
    return SimpleNamespace(column="unit", multiple=multiple, unit="price")


PATHS: Mapping[str, list[Bar]] = {
    "the close takes profit": [(100, 108, 97, 106)],
    "the stop of the same bar": [(100, 108, 92, 106)],
    "held, then the stop": [(100, 108, 97, 99), (99, 105, 92, 103)],
    "held, then the profit": [(100, 108, 97, 99), (99, 105, 97, 98)],
    "trailed": [(100, 108, 97, 99), (99, 101.5, 98, 101), (101, 101.5, 93, 100)],
    "no fill": [(100, 108, 98.5, 99), (99, 105, 92, 103)],
    "increased, held": [(100, 100.5, 97, 100), (100, 106, 96, 99)],
    "increased, then the profit": [(100, 100.5, 97, 100), (100, 106, 96, 104)],
    "increased, then the stop": [(100, 100.5, 97, 100), (100, 106, 93, 104)],
}


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("margin", ["cross", "isolated"])
def test_a_short_of_mirrored_prices_has_the_events_of_a_long(name, margin):
    """20 contracts bought at 98, or sold at 102: 1.96 and 2.04 times the equity of 1000.

    Where they are increased, to 3 % of the equity in contracts, at the same limits.
    """
    bars = [flat(100), *PATHS[name]]
    outs = []
    for signal, own in ((1.0, bars), (-1.0, mirrored(bars))):
        price = 100 - 2 * signal
        more = 0.03 * price if name.startswith("increased") else NAN
        given = tape(own, (0.02 * price, more, NAN)[: len(own)])
        given.bars["unit"] = 1.0
        exits = {"stop_loss": distance(4.0), "take_profit": distance(3.0)}
        exits = {"trailing_stop": distance(3.0)} if name == "trailed" else exits
        case = scene(
            {"A": given},
            {"A": signal},
            venues={"*": {"brackets": FREE, "contract": {"tick": 0.5}}},
            margin=margin,
            venue_leverage=4.0 if margin == "isolated" else None,
            **REST,
            **exits,
        )
        outs.append(walk(case).alone())
    buyer, seller = outs
    assert buyer.count("trailing_stop") == (name == "trailed")
    kinds = [(e.bar, e.kind, e.instrument) for e in buyer.events]
    assert [(e.bar, e.kind, e.instrument) for e in seller.events] == kinds
    for one_side, other in zip(buyer.events, seller.events, strict=True):
        assert is_mirrored(one_side, other)
    for t in range(len(bars)):
        assert abs(buyer.equity[t] - seller.equity[t]) <= Decimal("1e-12") * 1000
        assert abs(buyer.quantity[t] + seller.quantity[t]) <= Decimal("1e-12") * 20
    assert buyer.both_reached == seller.both_reached


def is_mirrored(event: Event, other: Event) -> bool:
    """Whether two prices add up to 200."""
    if event.price is None:
        return other.price is None
    return abs(event.price + other.price - 200) <= Decimal("1e-10")


# --------------------------------------------------------------------------------------- worst


def both_ways(intrabar: str, bars: Sequence[Bar] = WIDE, **changes: Any) -> Outcome:
    """A 2x long and B 1x short of the same bars."""
    return walk(
        scene(
            {"A": tape(bars, (2.0, NAN)), "B": tape(bars, (1.0, NAN))},
            {"A": 1.0, "B": -1.0},
            intrabar=intrabar,
            **changes,
        )
    )


def test_worst_goes_on_to_the_opposite_extremes():
    """A to 90 and B to 110, then A to 110 and B to 90, where both take their profit."""
    out = both_ways("worst", take_profit=0.08)
    assert happened(out, 2) == [("take_profit", "A", 108.0), ("take_profit", "B", 92.0)]
    # along the path the lows are worse: there B takes its profit first
    out = both_ways("path", take_profit=0.08)
    assert happened(out, 2) == [("take_profit", "B", 92.0), ("take_profit", "A", 108.0)]


def test_worst_stops_both_before_any_profit():
    """Each at its adverse extreme first; on the path B takes a profit before its stop."""
    exits = {"take_profit": 0.08, "stop_loss": 0.05}
    out = both_ways("worst", **exits)
    assert happened(out, 2) == [("stop", "A", 95.0), ("stop", "B", 105.0)]
    out = both_ways("path", **exits)
    assert happened(out, 2) == [("stop", "A", 95.0), ("take_profit", "B", 92.0)]
    assert out.both_reached == [False, False, True]


GROUP = scenarios(moves={"g": [(-0.01, 1.0), (0.01, 1.0)]}, groups={"g": ["A", "B"]})


def test_worst_keeps_a_group_of_the_scenarios_together():
    """Long 2x, short 1x: both to the lows, where B is up; then both to the highs."""
    out = both_ways("worst", requirement=GROUP, take_profit=0.08, stop_loss={"A": 0.05, "B": 0.05})
    assert happened(out, 2) == [("stop", "A", 95.0), ("take_profit", "B", 92.0)]


def test_worst_lets_an_isolated_position_go_alone():
    """Of the same group, but B is isolated: it is stopped at 105 on the first way."""
    out = both_ways(
        "worst", requirement=GROUP, take_profit=0.08, stop_loss={"A": 0.05, "B": 0.05},
        margin={"A": "cross", "B": "isolated"}, venue_leverage={"A": None, "B": 5.0},
    )  # fmt: skip
    assert happened(out, 2) == [("stop", "A", 95.0), ("stop", "B", 105.0)]


# ------------------------------------------------------------------------------------ counters


@pytest.mark.parametrize(
    ("stop", "is_ambiguous"), [(None, True), ({"A": 0.005, "B": None}, True), (0.02, False)]
)
def test_a_hedge_is_ambiguous_where_each_at_its_worst_would_fail(stop, is_ambiguous):
    """6x long and 6x short, 5 % of 12,000 needed: 10 % against both leaves nothing of 1000.

    Along the path they offset. Stopped at 98 and 102, M is 760 for 600. Stopped at 99.5, A leaves
    370 with B at 110: enough for B, not for both.
    """
    tapes = {name: tape(WIDE, (6.0, NAN)) for name in "AB"}
    terms = {"stop_loss": stop, "venues": {"*": {"brackets": [bracket(0.05, 20.0)]}}}
    out = walk(scene(tapes, {"A": 1.0, "B": -1.0}, **terms))
    assert not out.of_kind("liquidation")
    assert out.ambiguous == [False, False, is_ambiguous]
    worst = walk(scene(tapes, {"A": 1.0, "B": -1.0}, intrabar="worst", **terms))
    assert not any(worst.ambiguous)


def test_a_bar_with_a_liquidation_of_the_pool_is_not_ambiguous():
    """10x long, 1x short: it fails along the path too."""
    tapes = {"A": tape(WIDE, (10.0, NAN)), "B": tape(WIDE, (1.0, NAN))}
    out = walk(scene(tapes, {"A": 1.0, "B": -1.0}))
    assert out.of_kind("liquidation")
    assert not any(out.ambiguous)


@pytest.mark.parametrize("low", [96.0, 92.5, 91.0, 90.5, 88.0])
def test_accounts_that_are_long_throughout_are_never_ambiguous(low):
    """4x and 4x, and coins: the lows are where the path goes first."""
    bars = [flat(100), flat(100), (100, 110, low, 100)]
    coin = tape([flat(50), flat(50), (50, 60, 45, 50)])
    case = scene(
        {"A": tape(bars, (4.0, NAN)), "B": tape(bars, (4.0, NAN))},
        {"A": 1.0, "B": 1.0},
        collateral=[(asset("COIN", 4.0, rate=0.9), coin)],
        negative_limit=0.0,
    )
    assert not any(walk(case).ambiguous)


def test_an_isolated_position_is_never_ambiguous():
    """6x long and 6x short of 1000, 10 % against both, would leave nothing of a pool."""
    out = both_ways("path", margin="isolated", venue_leverage=10.0)
    assert not any(out.ambiguous)


@pytest.mark.parametrize(("mark_low", "is_both"), [(94.0, True), (95.0, False)])
def test_the_liquidation_price_counts_as_a_stop_of_the_marks(mark_low, is_both):
    """10x dies at 94.74; the other positions are where they opened."""
    bars = [flat(100), flat(100), (100, 106, 96, 100)]
    marked = with_marks(tape(bars, (10.0, NAN)), [*bars[:2], (100, 106, mark_low, 100)])
    out = walk(scene({"A": marked}, {"A": 1.0}, take_profit=0.05))
    assert out.both_reached == [False, False, is_both]
