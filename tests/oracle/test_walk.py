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
from tests.agreement import Bar, asset, bracket, check_outcome, flat, near, scenarios, scene, tape
from tests.cases import PortfolioCase, Tape
from tests.option_cases import OptionCase
from tests.oracle import Event, Outcome, simulate

NAN = math.nan
FREE = [bracket(0.0, 100.0)]
"""No maintenance: an account fails where nothing is left."""
WIDE = [flat(100), flat(100), (100, 110, 90, 100)]
REST = {"fill": "limit", "offset": 0.02}
COARSE = {"*": {"contract": {"tick": 0.5}, "brackets": [bracket(0.05, 16.0)]}}


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


def hedged(size: float) -> Outcome:
    """Long spot, short the perpetual, 10 % either way: 100 (size - 1) worse of 1,000."""
    spot = {"contract": {"kind": "spot", "haircut": 0.0, "borrow_rate": 0.0}}
    tapes = {"SPOT": tape(WIDE, (0.5, NAN)), "PERP": tape(WIDE, (0.5 * size, NAN))}
    return walk(scene(tapes, {"SPOT": 1.0, "PERP": -1.0}, venues={"SPOT": spot}))


def short_of_half(**terms: Any) -> Outcome:
    """A short of 1,000 that may lose 100."""
    return walk(scene({"A": tape(WIDE, (0.5, NAN))}, {"A": -1.0}, **terms))


def with_puts(rule: Any) -> Outcome:
    """A coin and three puts of 100: 20 more at 90, 10 more at 110, where longs count."""
    puts = option(WIDE, -1, 100.0, [NAN, 3.0], quotes=(0.0, 0.0))
    plain = scene({"A": tape(WIDE, (1.0, NAN))}, {"A": 1.0}, capital=100.0, requirement=rule)
    return walk(OptionCase(**vars(plain), options=(puts,)))


# coins of 1,000 that lose 150 at their low
COIN = (asset("COIN", 20.0, rate=0.9), tape([flat(50), flat(50), (50, 57.5, 42.5, 50)]))
CHOICES: dict[str, tuple[Callable[[], Outcome], bool]] = {
    # lows: -250 + 300 = +50; highs: +250 - 300 = -50. The loss of the short counts in full, though
    # it can lose no more than its margin of 100
    "the example goes to the highs": (long_and_short, True),
    "a hedge goes to the lows": (lambda: hedged(1.0), False),
    "rounding does not count": (lambda: hedged(1 + 1e-9), False),
    "more than rounding does": (lambda: hedged(1 + 1e-7), True),
    "a lone short goes to the highs": (short_of_half, True),
    "collateral counts": (lambda: short_of_half(collateral=[COIN], negative_limit=0.0), False),
    "options that back the account count": (lambda: with_puts(BY_SCENARIOS), True),
    "options that do not are not there": (lambda: with_puts(PER_OPTION), False),
}


@pytest.mark.parametrize(("run", "is_high_first"), [*CHOICES.values()], ids=[*CHOICES])
def test_the_worse_extremes_come_first(run, is_high_first):
    assert run().paths["walked: highs first"] == is_high_first


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
    return walk(scene(tapes, dict.fromkeys(tapes, 1.0), venues={"*": venue}, capital=1.0))


def test_the_crash_of_2025_liquidates_three_coins_that_fall_together():
    """At a share x of the way to the mark lows 1 + Σ q (P - entry) = .5 % of Σ q P."""
    out = crash()
    q = {name: 3.8 / 3 / rows[1][0] for name, rows in CRASH.items()}

    def surplus(x: float) -> tuple[float, float]:
        prices = {n: rows[2][4] + x * (rows[2][6] - rows[2][4]) for n, rows in CRASH.items()}
        equity = 1 + sum(q[n] * (prices[n] - CRASH[n][1][0]) for n in q)
        return equity, equity - 0.005 * sum(q[n] * prices[n] for n in q)

    first = surplus(0.0)[1]
    last = surplus(1.0)[1]
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
    rng = np.random.default_rng(5)
    failed = 0
    for _ in range(60):
        tapes = {}
        signal = {}
        for name in "ABC":
            up, down, close = rng.uniform(0.0, 0.2, 3)
            bar = (100, 100 * (1 + up), 100 * (1 - down), 100 * (1 - down + close * (up + down)))
            tapes[name] = tape([flat(100), flat(100), bar], (rng.uniform(1.0, 6.0), NAN))
            signal[name] = float(rng.choice([-1.0, 1.0]))
        path, worst = (walk(scene(tapes, signal, intrabar=kind)) for kind in ("path", "worst"))
        failed += path.count("liquidation") > 0
        assert worst.count("liquidation") >= (path.count("liquidation") > 0)
    assert 10 < failed < 50


def one(*bars: Bar, target: float, signal: float = 1.0, **changes: Any) -> Outcome:
    """One position, bought at 100."""
    case = scene({"A": tape([flat(100), *bars], (target, NAN))}, {"A": signal}, **changes)
    return walk(case).alone()


def marked(last: Bar, mark: Bar, target: float = 10.0, **terms: Any) -> Outcome:
    """One position bought at 100, in a bar of last prices and one of marks."""
    bars = [flat(100), flat(100)]
    prices = with_marks(tape([*bars, last], (target, NAN)), [*bars, mark])
    return walk(scene({"A": prices}, {"A": 1.0}, **terms)).alone()


def coined(leverage: float) -> Outcome:
    """Inverse, u = -100/P: marks fall from -1 to -1.25, last prices from -1 to -1.2."""
    venues = {"*": {"contract": {"kind": "inverse", "size": 100.0}}}
    terms = {"venues": venues, "capital": 1.0, "stop_loss": 0.08}
    return marked((100, 100, 100 / 1.2, 95), (100, 100, 80, 95), leverage, **terms)


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
    # 10x dies at the mark 94.74, its stop is the last price 95. To a mark low of 90 the first is
    # .526 of the way, to 94 it is .877; to a last low of 90 the stop is .5 of it, to 91 it is .556
    **{
        f"the stop and the liquidation act by their place on the way, {low}": (
            lambda last=last, low=low: marked((100, 100, last, 100), (100, 100, low, 100),
                                              stop_loss=0.05),
            [end], {})
        for low, last, end in ((90, 91, ("liquidation", float(HALF))), (94, 90, ("stop", 95)))
    },
    # the stop at 92 is at .087/.2 = .4348 of the way. L x dies at u = -(1 + L)/(1.05 L): 6x at
    # .1111 of .25 = .4444, 6.14x at .4299. In prices these are .48, .5 and .4853
    "the place is taken in the value of a contract, 3x": (lambda: coined(3.0), [("stop", 92)], {}),
    "the place is taken in the value of a contract, 6x": (lambda: coined(6.0), [("stop", 92)], {}),
    "the place is taken in the value of a contract, 6.14x": (
        lambda: coined(6.14), [("liquidation", 100 * 1.05 * 6.14 / 7.14)], {}),
    # 10x dies at 94.74: its profit at 105 is one of both only where the marks reach that
    "the liquidation price counts as a stop of the marks": (
        lambda: marked((100, 106, 96, 100), (100, 106, 94, 100), take_profit=0.05),
        [("liquidation", float(HALF))], {"both_reached": [False, False, True]}),
    "marks above it do not": (
        lambda: marked((100, 106, 96, 100), (100, 106, 95, 100), take_profit=0.05),
        [("take_profit", 105)], {"both_reached": [False] * 3}),
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
    """20 contracts bought at 98, or sold at 102: 1.96 and 2.04 times the equity of 1000. Where they
    are increased, to 3 % of the equity in contracts, at the same limits."""
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
            {"A": given}, {"A": signal},
            venues={"*": {"brackets": FREE, "contract": {"tick": 0.5}}}, margin=margin,
            venue_leverage=4.0 if margin == "isolated" else None, **REST, **exits,
        )  # fmt: skip
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


def pair(
    bars: Sequence[Bar] = WIDE, sizes: tuple[float, float] = (2.0, -1.0), **changes: Any
) -> Outcome:
    """A 2x long and B 1x short of the same bars."""
    tapes = {name: tape(bars, (abs(size), NAN)) for name, size in zip("AB", sizes, strict=True)}
    return walk(scene(tapes, dict(zip("AB", np.sign(sizes), strict=True)), **changes))


def filled() -> Outcome:
    """A hedge of a short goes to the highs first: the long sells at 105 and buys nothing at 98."""
    tapes = {
        "A": tape([flat(100), (100, 100, 97, 100), (100, 106, 97, 98)], (1.0, 1.5, NAN)),
        "B": tape([flat(100), (100, 103, 100, 100), (100, 110, 99, 100)], (3.0, NAN)),
    }
    terms = REST | {"take_profit": {"A": 0.05, "B": None}, "venues": COARSE}
    return walk(scene(tapes, {"A": 1.0, "B": -1.0}, **terms))


X = Fraction(85) / Fraction(3015, 10)
"""Where the example's short is liquidated: 100 - 300 X = .5 % of (3000 + 300 X)."""
PROFIT = {"take_profit": {"BTC": None, "ETH": 0.05}}
DIES = ("liquidation", "ETH", float(100 + 10 * X))
GROUP = scenarios(moves={"g": [(-0.01, 1.0), (0.01, 1.0)]}, groups={"g": ["A", "B"]})
BOTH_EXITS = {"take_profit": 0.08, "stop_loss": 0.05}
GROUPED = {"requirement": GROUP, "take_profit": 0.08, "stop_loss": {"A": 0.05, "B": 0.05}}
APART = {"margin": {"A": "cross", "B": "isolated"}, "venue_leverage": {"A": None, "B": 5.0}}
PROFIT_OF = {"A": ("take_profit", "A", 108.0), "B": ("take_profit", "B", 92.0)}
STOP_OF = {"A": ("stop", "A", 95.0), "B": ("stop", "B", 105.0)}
PAIRS: dict[str, tuple[Callable[[], Outcome], list[tuple[str, str, float]], dict[str, Any]]] = {
    "the example's short is liquidated at once": (
        long_and_short, [DIES], {"equity 2": 10_000 - 300 * X}),
    # at the lows its profit at 95 would have come first; it is a bar that reaches both
    "at the highs first the short takes no profit before it is liquidated": (
        lambda: long_and_short(**PROFIT), [DIES], {"both_reached": [False, False, True]}),
    # up 4 % it loses 120 while BTC gains 250: the lows are worse, and come first
    "at the lows first it takes its profit": (
        lambda: long_and_short(eth=(100, 104, 90, 100), **PROFIT),
        [("take_profit", "ETH", 95.0)], {}),
    "a take-profit comes before a fill and cancels it": (
        filled, [("take_profit", "A", 102.9)],
        {"fill.bar": [1, 1], "fill.instrument": ["A", "B"], "quantity 2 0": 0}),
    # A to 90 and B to 110, then A to 110 and B to 90, where both take their profit
    "worst goes on to the opposite extremes": (
        lambda: pair(intrabar="worst", take_profit=0.08), [PROFIT_OF["A"], PROFIT_OF["B"]], {}),
    "along the path the lows are worse, where B takes its profit first": (
        lambda: pair(take_profit=0.08), [PROFIT_OF["B"], PROFIT_OF["A"]], {}),
    "worst stops both before any profit": (
        lambda: pair(intrabar="worst", **BOTH_EXITS), [STOP_OF["A"], STOP_OF["B"]], {}),
    "on the path B takes a profit before its stop": (
        lambda: pair(**BOTH_EXITS), [STOP_OF["A"], PROFIT_OF["B"]],
        {"both_reached": [False, False, True]}),
    # both to the lows, where B is up; then both to the highs
    "worst keeps a group of the scenarios together": (
        lambda: pair(intrabar="worst", **GROUPED), [STOP_OF["A"], PROFIT_OF["B"]], {}),
    # it is stopped at 105 on the first way
    "worst lets an isolated position of the group go alone": (
        lambda: pair(intrabar="worst", **GROUPED, **APART), [STOP_OF["A"], STOP_OF["B"]], {}),
}  # fmt: skip


@pytest.mark.parametrize(("run", "ends", "numbers"), [*PAIRS.values()], ids=[*PAIRS])
def test_two_positions_inside_a_bar(run, ends, numbers):
    out = run()
    assert happened(out, 2) == [(kind, name, round(price, 9)) for kind, name, price in ends]
    check_outcome(out, numbers)


SIX = {"sizes": (6.0, -6.0)}
FOUR = {"sizes": (4.0, -4.0)}
AMBIGUOUS: dict[str, tuple[dict[str, Any], bool, str]] = {
    # 5 % of 12,000 needed: 10 % against both leaves nothing of 1000; along the path they offset
    "a hedge that each at its worst would ruin": (SIX, True, ""),
    # A leaves 370 with B at 110: enough for B, not for both
    "stopped at 99.5": (SIX | {"stop_loss": {"A": 0.005, "B": None}}, True, ""),
    # M is 760 for 600
    "stopped at 98 and 102": (SIX | {"stop_loss": 0.02}, False, ""),
    "a liquidation of the pool along the path": ({"sizes": (10.0, -1.0)}, False, "AB"),
    # 10 % against both leaves 200 for 400 in a pool
    "4x and 4x": (FOUR, True, ""),
    "isolated": (FOUR | {"margin": "isolated", "venue_leverage": 8.0}, False, "AB"),
    # 4x and 4x of 1200 with the coins: 442 for 444 at 92.5. The path goes to the lows first
    **{
        f"long throughout, {low}": (
            {"bars": [flat(100), flat(100), (100, 110, low, 100)], "sizes": (4.0, 4.0),
             "negative_limit": 0.0, "collateral": [
                 (asset("COIN", 4.0, rate=0.9), tape([flat(50), flat(50), (50, 60, 45, 50)]))]},
            False, ends)
        for low, ends in ((96.0, ""), (92.5, "AB"), (91.0, "AB"), (90.5, "AB"), (88.0, "AB"))
    },
}  # fmt: skip


@pytest.mark.parametrize(("terms", "is_ambiguous", "ends"), AMBIGUOUS.values(), ids=[*AMBIGUOUS])
def test_a_bar_is_ambiguous_where_each_at_its_worst_would_fail(terms, is_ambiguous, ends):
    out = pair(**terms)
    assert out.ambiguous == [False, False, is_ambiguous]
    assert "".join(each.instrument for each in out.of_kind("liquidation")) == ends
    assert not any(pair(intrabar="worst", **terms).ambiguous)
