"""The calculator of a book of positions: figures, and moves that fail it."""

import math

import pytest

import backtest as bt
from tests.scenes import bracket, venue_of

PLAIN = venue_of(brackets=[bracket(leverage=10.0, rate=0.05)])
TWO = {"A": 100.0, "B": 50.0}


def test_figures_by_hand():
    """10 A bought at 90 and 20 B sold at 50, at 100 and 50, with 300 of money and 2 gold at 40.

    Profit 100. Backing 300 + 100 + .5 * 80 = 440, equity 480. Each notional is 1,000: the
    requirement is 5 % of 2,000, the initial margin 10 %. Gross leverage 2,000 / 480, net 0.
    """
    gold = bt.Collateral("GOLD", 2.0, prices=40.0, rate=0.5)
    found = bt.calculate_book(
        PLAIN, {"A": 10, "B": -20}, TWO, entries={"A": 90, "B": 50}, balance=300, collateral=gold
    )
    assert (found.balance, found.backing, found.equity, found.collateral) == (300, 440, 480, 40)
    assert (found.requirement, found.initial) == pytest.approx((100.0, 200.0))
    assert found.margin_ratio == pytest.approx(100 / 440)
    assert found.distance == pytest.approx(340)
    assert found.gross_leverage == pytest.approx(2_000 / 480)
    assert found.net_leverage == 0.0
    assert [row.share for row in found.positions] == pytest.approx([50.0, 50.0])
    assert not found.is_failing
    # A alone: 440 - 1,000 f = 50 (1 - f) + 50, f = 340 / 950. B alone: 340 = 1,050 f
    a, b = found.positions
    assert a.down == pytest.approx(-340 / 950, rel=1e-12)
    assert math.isnan(a.up)
    assert b.up == pytest.approx(340 / 1050, rel=1e-12)
    assert b.liquidation_price == pytest.approx(50 * (1 + 340 / 1050))
    assert found.first == "B"
    # Together the profits cancel and the requirement moves: 440 = 100 (1 + f)
    (every,) = found.moves
    assert every.name == "all"
    assert every.up == pytest.approx(3.4, rel=1e-12)
    assert math.isnan(every.down)


def test_one_position_has_the_closed_form():
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT")
    for quantity in (2.0, -300.0):
        balance = abs(quantity) * 6_000
        found = bt.calculate_book(venue, quantity, 60_000, balance=balance)
        price = bt.margin.liquidation_price(venue, quantity, 60_000, balance)
        assert found.positions[0].liquidation_price == pytest.approx(price, rel=1e-11)


def test_an_inverse_position_has_the_closed_form():
    venue = bt.Venue.preset("binance-coinm", "BTCUSD_PERP")
    found = bt.calculate_book(venue, -500.0, 50_000, balance=0.3)
    price = bt.margin.liquidation_price(venue, -500.0, 50_000, 0.3)
    assert found.positions[0].liquidation_price == pytest.approx(price, rel=1e-11)


def test_groups_move_together_and_collateral_follows_its_instrument():
    """Long spot-like A against short B of one group, and a coin worth A as collateral.

    10 A of 100 and 20 B of 50 cancel in the group, and the coin counts 80 of its 100. A alone,
    down by f: 230 - 1,080 f is left; needed are 5 % of 2,050 - 1,000 f, more than the 100 f of the
    group and the 5 of C: f = 127.5 / 1,030.
    """
    rule = bt.ScenarioMargin(moves=[-0.1, 0.1], groups={"g": ["A", "B"]}, minimum=0.05)
    coin = bt.Collateral("COIN", 1.0, prices="A", rate=0.8)
    prices = TWO | {"C": 10.0}
    held = {"A": 10.0, "B": -20.0, "C": 5.0}
    found = bt.calculate_book(PLAIN, held, prices, balance=150, rule=rule, collateral=coin)
    assert [move.name for move in found.moves] == ["group g", "all"]
    assert found.collateral == 80.0
    assert found.positions[0].down == pytest.approx(-127.5 / 1_030, rel=1e-10)


def test_a_failing_and_a_flat_book():
    failing = bt.calculate_book(PLAIN, {"A": 10}, {"A": 100}, balance=50)
    assert failing.is_failing
    assert (failing.positions[0].down, failing.positions[0].liquidation_price) == (0.0, 100.0)
    ruined = bt.calculate_book(PLAIN, {"A": 10}, {"A": 100}, balance=-1)
    assert ruined.margin_ratio == math.inf
    flat = bt.calculate_book(PLAIN, {"A": 0}, {"A": 100}, balance=0)
    assert (flat.is_failing, flat.margin_ratio, flat.first) == (False, 0.0, None)
    assert (flat.gross_leverage, flat.moves) == (0.0, ())


def test_collateral_that_cancels_risk_has_its_share_of_the_requirement():
    """A moves by 10 %: 10 A and 5 more as collateral, both at 100, need 100 and 50."""
    found = bt.calculate_book(
        PLAIN, {"A": 10.0}, {"A": 100.0}, balance=300.0, rule=bt.ScenarioMargin(moves=[-0.1, 0.1]),
        collateral=bt.Collateral("C", 5.0, prices="A", rate=1.0, cancels_risk="A"),
    )  # fmt: skip
    assert (found.requirement, found.positions[0].share) == pytest.approx((150.0, 100.0))
    assert found.collateral_share == pytest.approx(50.0)
