"""Multipliers of initial and of maintenance margin."""

import backtest as bt
from tests.scenes import INF, NAN, account_of, is_, isolated, play, series, venue_of


def leverage_of(result):
    return result.bars["leverage"].tolist()


def test_the_initial_multiplier_divides_leverage_and_leaves_maintenance():
    result = play(100, 100, targets=INF, venue=venue_of(initial_multiplier=2.0))
    # 16 / 2 = 8 turns; the requirement of 8,000 stays 5 %: 400 of an equity of 1,000
    assert leverage_of(result)[-1] == is_(8.0)
    assert result.bars["margin_ratio"].iloc[-1] == is_(0.4)


def test_the_maintenance_multiplier_scales_the_requirement_and_leaves_orders():
    result = play(100, 100, targets=INF, venue=venue_of(maintenance_multiplier=0.5))
    # 16 turns as without it; 0.5 x 5 % of 16,000 = 400
    assert leverage_of(result)[-1] == is_(16.0)
    assert result.bars["margin_ratio"].iloc[-1] == is_(0.4)


def test_a_rising_initial_multiplier_never_closes_what_is_held():
    venue = venue_of(initial_multiplier=series({0: 1.0, 3: 4.0}))
    result = play(*[100] * 5, targets=(10.0, NAN, NAN, INF), venue=venue)
    # 16 / 4 = 4 turns are allowed from bar 3 on; the 10 held stay, also where all is asked for
    assert leverage_of(result)[1:] == [is_(10.0)] * 4


def test_a_withdrawal_leaves_the_initial_margin_under_its_multiplier():
    venue = venue_of(initial_multiplier=series({0: 1.0, 2: 2.0}))
    account = account_of(flows=series({2: -900.0}))
    result = play(*[100] * 3, targets=(4.0, NAN), venue=venue, account=account)
    # 4,000 x 2 / 16 = 500 must stay
    assert result.bars["equity"].iloc[-1] == is_(500.0)


def test_isolated_margin_is_posted_under_the_initial_multiplier():
    result = play(
        100, 100, targets=2.0, venue=venue_of(initial_multiplier=4.0), account=isolated(10.0)
    )
    # 16 / 4 = 4 is the largest setting: 2,000 posts 500, of which 5 % x 2,000 = 100 are required
    assert result.bars["margin"].iloc[-1] == is_(500.0)
    assert result.bars["margin_ratio"].iloc[-1] == is_(0.2)


def test_a_policy_sees_both_multipliers():
    class Looks(bt.Policy):
        def leverage(self, bar, account):
            most = bt.margin.largest_notional(account.venue, account.equity)
            needed = bt.margin.maintenance(account.venue, 1000.0)
            x = account.venue.multiplier + 10.0 * account.venue.initial_multiplier
            return x + 1e-3 * needed + 1e-7 * most

    venue = venue_of(initial_multiplier=4.0, maintenance_multiplier=2.0)
    result = play(100, 100, venue=venue, policy=Looks())
    # 2 + 40; MM = 2 x 5 % of 1,000 = 100; 16 / 4 turns of 1,000
    assert result.bars["target"].iloc[0] == is_(42.0 + 0.1 + 4e-4)


def test_margin_multiplier_is_both_to_the_bit():
    x = series({0: 1.0, 2: 1.7, 5: 0.9})
    bars = [100, 99, 97.5, 96, 98, 94, 90, 91]
    one = play(*bars, targets=7.0, venue=venue_of(margin_multiplier=x))
    two = play(*bars, targets=7.0, venue=venue_of(initial_multiplier=x, maintenance_multiplier=x))
    assert one.record.values.tobytes() == two.record.values.tobytes()
