"""A requirement of one's own: in an account's field, and in the kernels."""

import math

import numpy as np
import pytest

import backtest as bt
from backtest.venue import portfolio_kernels
from backtest.venue.requirement import read_rules
from backtest.venue.requirement_rule import MarginRule, OwnMargin, Requirement, pack_holdings
from tests.portfolios import make_portfolios
from tests.scenes import venue_of

NAMES = ("BTCUSDT", "ETHUSDT", "PLAIN")


class Fifth:
    """A fifth of the gross notional, and a quarter for orders; with a level of its own."""

    level = 1.5

    def requirement(self, positions, prices):
        return 0.2 * sum(abs(quantity) * prices[name] for name, quantity in positions.items())

    def initial(self, positions, prices):
        return 1.25 * self.requirement(positions, prices)


class Mirror:
    """The requirement of a book of the package."""

    def __init__(self, packed):
        self.packed = packed
        self.level = packed.level

    def hold(self, positions, prices):
        quantities = [positions.get(name, 0.0) for name in NAMES]
        return pack_holdings(quantities, [prices[name] for name in NAMES])

    def requirement(self, positions, prices):
        return portfolio_kernels.compute_portfolio_requirement(
            self.packed, self.hold(positions, prices)
        )

    def initial(self, positions, prices):
        return portfolio_kernels.compute_portfolio_initial(
            self.packed, self.hold(positions, prices)
        )


def test_a_field_takes_rules_presets_and_objects():
    field = Requirement()
    rule = bt.Brackets(level=1.2)
    assert field.check("requirement", rule) is rule
    assert field.check("requirement", "okx-portfolio") == bt.PresetMargin(preset="okx-portfolio")
    own = field.check("requirement", Fifth())
    assert isinstance(own, OwnMargin)
    assert own.level == 1.5
    assert own.to_dict() == {"level": 1.5, "own": "Fifth"}
    stored = MarginRule.from_dict(own.to_dict())
    assert stored.to_dict() == own.to_dict()
    assert stored == MarginRule.from_dict(stored.to_dict())
    with pytest.raises(
        bt.ParameterError, match="requirement is not stored with a result: pass the Fifth"
    ):
        bt.margin.requirement(venue_of(), 1.0, 1.0, stored)
    venue = venue_of()
    assert bt.margin.requirement(venue, 2.0, 100.0, own) == 40.0
    assert bt.margin.initial(venue, 2.0, 100.0, own) == 50.0
    assert bt.calculate_book(venue, 2.0, 100.0, balance=100.0, rule=own).distance == 40.0


def test_an_instrument_that_is_not_held_needs_nothing():
    given = ({"A": venue_of(), "B": venue_of()}, {"A": 2.0}, {"A": 100.0, "B": 1000.0})
    assert bt.margin.requirement(*given) == pytest.approx(10.0)  # 5 % of 200
    assert bt.margin.initial(*given) == pytest.approx(12.5)  # a 16th


def test_the_kernels_ask_the_rule():
    """A rule that answers as the package's rules do fails where they do, to the last digits."""
    failures = 0
    for packed, held, cash, rng in make_portfolios(4):
        if len(held.amounts) or packed.level != 1.0:
            continue  # collateral is not told to a rule
        own = OwnMargin(rule=Mirror(packed)).pack({name: read_rules(venue_of()) for name in NAMES})
        assert portfolio_kernels.compute_portfolio_requirement(own, held) == pytest.approx(
            portfolio_kernels.compute_portfolio_requirement(packed, held), rel=1e-14
        )
        shares = np.zeros((2, 3))
        portfolio_kernels.fill_shares(own, held, shares[0])
        portfolio_kernels.fill_shares(packed, held, shares[1])
        assert shares[0] == pytest.approx(shares[1], rel=1e-6, abs=1e-6)
        start = portfolio_kernels.Waypoint(held.values.copy(), held.prices.copy())
        end = portfolio_kernels.Waypoint(
            held.values * np.exp(0.25 * rng.normal(size=3)), held.prices
        )
        path = (held, cash, start, end)
        expected = portfolio_kernels.find_failure(packed, *path)
        assert portfolio_kernels.find_failure(own, *path) == pytest.approx(
            expected, abs=1e-12, nan_ok=True
        )
        failures += 0.0 < expected < 1.0
        room = (held, cash, 0, start, end)
        assert portfolio_kernels.find_failure_ratio(own, *room) == pytest.approx(
            portfolio_kernels.find_failure_ratio(packed, *room), rel=1e-11, nan_ok=True
        )
    assert failures


def test_bad_rules_and_answers_are_errors():
    for given in (5, None, Fifth, object()):
        with pytest.raises(bt.ParameterError, match="must have the methods requirement and initi"):
            Requirement().check("requirement", given)
    rule = Fifth()
    rule.level = math.nan
    with pytest.raises(bt.ParameterError, match="level"):
        OwnMargin(rule=rule)
    rule.level = 1.5
    rule.requirement = lambda positions, prices: math.nan
    own = OwnMargin(rule=rule).pack({name: read_rules(venue_of()) for name in NAMES})
    with pytest.raises(bt.ParameterError, match=r"Fifth\.requirement"):
        portfolio_kernels.compute_portfolio_requirement(
            own, pack_holdings([1.0, 0.0, 0.0], [1.0, 1.0, 1.0])
        )
    rule.requirement = lambda positions, prices: max(positions.values())
    with pytest.raises(bt.ParameterError, match=r"Fifth.requirement must.*given {} it raised Val"):
        portfolio_kernels.compute_portfolio_requirement(
            own, pack_holdings([0.0, 0.0, 0.0], [1.0, 1.0, 1.0])
        )
