"""Margin of random books with options: the package against the oracle, which prices by itself."""

import math
from decimal import Context, localcontext
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from tests import black_76
from tests.option_books import NOW
from tests.oracle.numbers import ONE, exact
from tests.oracle.option_margin import Holding, Moment, option_rule
from tests.oracle.requirement import Brackets, Leg

VENUE = bt.Venue.simple(
    taker=0.0, slippage=0.0, maintenance_rate=0.05, max_leverage=10, liquidation_fee=0.0
)
ANY = Moment(0, False)
DAYS = (3, 10, 40, 100, 300)


class Quote(NamedTuple):
    """An option at one moment."""

    underlying: str
    sign: int
    strike: float
    size: float
    is_coin: bool
    days: int
    sigma: float
    basis: float
    rate: float
    quantity: float

    def years(self, moment: Moment) -> float:
        return self.days / 365

    def volatility(self, moment: Moment) -> float:
        return self.sigma

    def forward(self, moment: Moment, index: float) -> float:
        return index * self.basis

    def delta(self, moment: Moment, index: float) -> float:
        forward = index * self.basis
        return black_76.delta(self.sign, forward, self.strike, self.days / 365, self.sigma)

    def value(self, moment: Moment, index: float, volatility: float | None) -> float:
        forward, sigma = index * self.basis, self.sigma if volatility is None else volatility
        price = black_76.price(self.sign, forward, self.strike, self.days / 365, sigma, self.rate)
        return self.size * (price / forward if self.is_coin else price)


class Drawn(NamedTuple):
    """A book, and its rule for both."""

    kind: str
    indices: dict[str, float]
    held: dict[str, float]
    options: list[Quote]
    rule: SimpleNamespace
    rule_of_package: Any


def draw_rule(rng: np.random.Generator, kind: str, index: float) -> tuple[dict[str, Any], Any]:
    """Draw the figures of a rule, and its class."""
    if kind == "standard":
        maintenance = float(rng.uniform(0.02, 0.1))
        return {
            "initial": float(rng.uniform(0.1, 0.3)),
            "least": maintenance * float(rng.uniform(1, 1.5)),
            "maintenance": maintenance,
            "of_mark": float(rng.choice([0, 0.075])),
            "factor": float(rng.choice([1, 1.2])),
            "option_value": str(rng.choice(["none", "long"])),
        }, bt.Standard
    if kind == "strategy":
        return {
            "naked": float(rng.uniform(0.1, 0.25)),
            "least_call": float(rng.uniform(0.05, 0.1)),
            "least_put": float(rng.uniform(0.05, 0.1)),
            "covered_itm": bool(rng.random() < 0.5),
            "conversion": 0.0,
            "loan_value": 0.25,
            "loan_days": 273.0,
        }, bt.Strategy
    columns = (
        rng.choice([-0.2, -0.1, 0, 0.1, 0.2], 6),
        rng.uniform(0.7, 1, 6),
        rng.choice([0.5, 0, -0.3], 6),
        rng.choice([0, 0, index * 0.05], 6),
    )
    charge = float(rng.choice([0, 0.003]))
    across = str(rng.choice(["independent", "same row"]))
    shocks = {
        "power": tuple(float(x) for x in rng.choice([0, 0.3, 0.13], 2)),
        "days": 30.0,
        "least_days": 1.0,
        "least_volatility": float(rng.choice([0, 0.5])),
        "short_charge": (charge, charge * 1.5),
        "delta_charge": (float(rng.choice([0, 0.01])), float(rng.choice([0, 0.075]))),
        "futures_range": float(rng.choice([math.inf, 0.15])),
    }
    return {
        "moves": {"*": [tuple(map(float, row)) for row in zip(*columns, strict=True)]},
        "groups": None,
        "products": None,
        "across": across,
        "offset": float(rng.uniform(0, 1)) if across == "same row" else 0.0,
        "factor": float(rng.uniform(0.7, 1)),
        "minimum": 0.0,
        "contingency": float(rng.choice([0, 0.02])),
        "pair_contingency": float(rng.choice([0, 0.03])),
        "initial": (1.1, 0.04),
        "options": SimpleNamespace(**shocks),
    }, bt.ScenarioMargin


def draw(seed: int) -> Drawn:
    """Draw a book of one to five options on one or two underlyings, with futures of cash."""
    rng = np.random.default_rng([seed, 390])
    kind = str(rng.choice(["standard", "strategy", "scenarios"]))
    is_coin = kind != "strategy" and bool(rng.random() < 0.3)
    names = ["A"] if is_coin else ["A", "B"][: int(rng.integers(1, 3))]
    indices = {name: float(10 ** rng.uniform(1, 4.5)) for name in names}
    figures, make = draw_rule(rng, kind, indices["A"])
    packed = dict(figures)
    if "options" in figures:
        packed["options"] = bt.OptionShocks(**vars(figures["options"]))
    ends = rng.choice(DAYS, 2, replace=False)
    options = []
    for _ in range(int(rng.integers(1, 6))):
        name = str(rng.choice(names))
        options.append(
            Quote(
                underlying=name,
                sign=int(rng.choice([-1, 1])),
                strike=round(indices[name] * float(rng.choice([0.7, 0.8, 0.9, 1, 1.1, 1.25])), 6),
                size=float(rng.choice([1.0, 0.1, 100.0])),
                is_coin=is_coin,
                days=int(rng.choice(ends)),
                sigma=float(rng.uniform(0.2, 1.2)),
                basis=float(rng.uniform(0.97, 1.05)),
                rate=float(rng.choice([0, 0.04])),
                quantity=float(rng.normal()),
            )
        )
    has_futures = not is_coin and rng.random() < 0.7
    held = {name: float(rng.normal() * 2) for name in names} if has_futures else {}
    return Drawn(kind, indices, held, options, SimpleNamespace(**figures), make(**packed))


def by_oracle(drawn: Drawn) -> list[float]:
    """Maintenance, initial margin, and what of the options backs the account."""
    with localcontext(Context(prec=40)):
        row = VENUE.brackets[0]
        table = Brackets(
            (exact(0.0),),
            (exact(1e18),),
            (exact(row.maintenance_rate),),
            (exact(row.max_leverage),),
        )
        legs = [
            Leg(name, exact(q), exact(drawn.indices[name]), exact(0.0), True, table, None, False)
            for name, q in drawn.held.items()
        ]
        held = []
        for each in drawn.options:
            index = drawn.indices[each.underlying]
            mark = exact(each.value(ANY, index, None))
            held.append(Holding(each, exact(each.quantity), exact(index), mark, ANY))
        rule = option_rule(drawn.rule)
        margins = [float(rule.needed(legs, [], held, initial)) for initial in (False, True)]
        return [*margins, float(rule.counted(held) * ONE)]


def by_package(drawn: Drawn) -> list[float]:
    """The same by the public functions."""
    options = []
    for each in drawn.options:
        index = drawn.indices[each.underlying]
        contract = bt.Option(
            kind="call" if each.sign > 0 else "put",
            strike=each.strike,
            expiry=str(NOW + pd.Timedelta(days=each.days)),
            settlement="coin" if each.is_coin else "cash",
            size=each.size,
            underlying=each.underlying,
        )
        forward = index * each.basis
        options.append(
            bt.OptionPosition(
                contract, each.quantity, index, str(NOW),
                volatility=each.sigma, forward=forward, rate=each.rate,
            )
        )  # fmt: skip
    venues = dict.fromkeys(drawn.held, VENUE)
    prices = {name: drawn.indices[name] for name in drawn.held}
    given = (venues, drawn.held, prices, drawn.rule_of_package)
    return [
        bt.margin.requirement(*given, options=options),
        bt.margin.initial(*given, options=options),
        bt.margin.option_value(options, drawn.rule_of_package),
    ]


@pytest.mark.parametrize(
    "first", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in (1000, 2000))]
)
def test_margin_of_random_books(first):
    """Maintenance, initial margin and what counts, to 1e-11 of the notional.

    By strategies the package tries three pairings. They are the cheapest of all in 98 of 100 books,
    and never less than that.
    """
    count, dearer = 1000 if first else 40, 0
    for seed in range(first, first + count):
        drawn = draw(seed)
        mine, theirs = by_oracle(drawn), by_package(drawn)
        scale = sum(
            abs(o.quantity) * o.size * (1.0 if o.is_coin else drawn.indices[o.underlying])
            for o in drawn.options
        )
        off = [got - expected for expected, got in zip(mine, theirs, strict=True)]
        assert min(off) >= -1e-11 * scale, seed
        is_dearer = max(off) > 1e-11 * scale
        assert not is_dearer or drawn.kind == "strategy", seed
        dearer += is_dearer
    assert dearer <= 1 + count // 100
