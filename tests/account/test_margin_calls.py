"""How margin calls end: met or failed, and whether a liquidation followed. All by hand.

The account of most cases is long 10x from 100 with 1,000: 100 contracts, cash -9,000. At P its
equity is 100 P - 9,000 and its requirement 5 P. So the margin ratio is 0.868 at 95.5, 0.739 at
96.5, 0.693 at 97, and the liquidation price is 9,000 / 95 = 94.74.
"""

import math

import pytest

from tests.scenes import NAN, account_of, at, happened, isolated, play, series, venue_of

TEN = (10.0, NAN)
FALL = (100, (100, 100, 95.5, 95.5))
CALL = {"margin_call": 0.8, "top_up_to": 0.5, "reserve": 500.0}
ENDS = ("margin_call", "call_met", "call_partly_met", "call_failed")


def called(*bars, account=None, venue=None, **more):
    """Run bars after a fall to 95.5, with a call at the close of bar 1."""
    account = account or account_of(margin_call=0.8)
    return play(*FALL, *bars, targets=TEN, account=account, venue=venue, **more)


def ends(result) -> list[tuple[str, int]]:
    """Return calls and their ends, each with its bar."""
    events = result.events[result.events["kind"].isin(ENDS)]
    hours = (events["time"] - at(0)).dt.total_seconds() / 3600
    return list(zip(events["kind"].astype(str), hours.astype(int), strict=True))


def counts(result) -> tuple[float, ...]:
    """Return calls, met, failed, and followed by a liquidation."""
    names = ("margin_calls", "calls_met", "calls_failed", "liquidated_after_call")
    return tuple(result.metrics[name] for name in names)


def test_a_top_up_that_suffices_meets_the_call_at_the_open():
    # 477.5 / 0.5 - 550 = 405 of the reserve: ratio 477.5 / 955
    result = called(95.5, account=account_of(**CALL))
    assert ends(result) == [("margin_call", 1), ("call_met", 2)]
    met = happened(result, "call_met").iloc[0]
    assert met["amount"] == pytest.approx(0.5)
    assert counts(result) == (1.0, 1.0, 0.0, 0.0)


def test_a_top_up_that_does_not_suffice_meets_the_call_partly_and_it_fails():
    # 550 + 20 = 570: ratio 477.5 / 570 = 0.838, still over 0.8
    result = called(95.5, account=account_of(**{**CALL, "reserve": 20.0}))
    assert ends(result) == [("margin_call", 1), ("call_partly_met", 2), ("call_failed", 2)]
    assert happened(result, "call_failed")["amount"].iloc[0] == pytest.approx(477.5 / 570)
    assert counts(result) == (1.0, 0.0, 1.0, 0.0)


def test_a_call_fails_at_once_when_the_reserve_is_empty():
    # the reserve goes at 95.5 (405) and 91.5 (95); at 90 there is nothing left
    result = called(
        95.5, (95.5, 95.5, 91.5, 91.5), 91.5, (91.5, 91.5, 90, 90), 90, account=account_of(**CALL)
    )
    assert ends(result)[2:] == [
        ("margin_call", 3), ("call_met", 4), ("margin_call", 5), ("call_failed", 6),
    ]  # fmt: skip
    assert counts(result) == (3.0, 2.0, 1.0, 0.0)


def test_a_call_without_a_reserve_is_met_at_the_close_that_recovers():
    result = called(95.5, (95.5, 96.5, 95.5, 96.5), 96.5)
    assert ends(result) == [("margin_call", 1), ("call_met", 3)]
    assert happened(result, "call_met")["amount"].iloc[0] == pytest.approx(4.825 / 6.5)


def test_a_call_stays_open_where_decisions_fill_at_their_close():
    account = account_of(margin_call=0.8, fill="same_close")
    result = called(95.5, (95.5, 96.5, 95.5, 96.5), 96.5, account=account)
    assert ends(result) == [("margin_call", 1), ("call_met", 3)]


def test_a_call_that_is_open_at_the_end_has_not_ended():
    assert counts(called(95.5, 95.5)) == (1.0, 0.0, 0.0, 0.0)


def test_a_top_up_that_is_not_due_leaves_the_call_open_to_the_close():
    # the open at 99 has a ratio of 0.55, over the 0.56 to top up to; back at 95.5 at the close
    account = account_of(**{**CALL, "top_up_to": 0.56})
    result = called((99, 99, 95.5, 95.5), (95.5, 99, 95.5, 99), account=account)
    assert ends(result) == [("margin_call", 1), ("call_met", 3)]
    assert happened(result, "top_up").empty


def test_a_position_that_its_owner_closes_meets_the_call():
    result = play(*FALL, 95.5, 95.5, targets=(10.0, NAN, 0.0), account=account_of(margin_call=0.8))
    assert ends(result) == [("margin_call", 1), ("call_met", 3)]
    assert happened(result, "call_met")["amount"].iloc[0] == 0.0


def test_a_liquidation_fails_an_open_call_and_is_dated():
    # the call is made at the close of bar 1, bar 3 reaches 94.74: two hours
    result = called(95.5, (95.5, 95.5, 94, 94), 94)
    assert ends(result) == [("margin_call", 1), ("call_failed", 3)]
    assert counts(result) == (1.0, 0.0, 1.0, 1.0)
    assert result.metrics["time_to_liquidation_after_call"] == pytest.approx(2 / 24)


def test_a_liquidation_after_a_failed_call_counts_until_the_ratio_has_recovered():
    small = account_of(**{**CALL, "reserve": 20.0})
    # failed at the open of bar 2; with 20 more the liquidation price is 8,980 / 95 = 94.53
    caught = called(95.5, 95.5, (95.5, 95.5, 94, 94), account=small)
    assert counts(caught) == (1.0, 0.0, 1.0, 1.0)
    assert caught.metrics["time_to_liquidation_after_call"] == pytest.approx(3 / 24)
    spared = called(95.5, (95.5, 98, 95.5, 98), (98, 98, 94, 94), account=small)
    assert counts(spared) == (1.0, 0.0, 1.0, 0.0)
    assert spared.metrics["liquidations"] == 1.0
    assert math.isnan(spared.metrics["time_to_liquidation_after_call"])


def test_a_liquidation_in_steps_counts_once_for_its_call():
    # half goes at 94.74, and half of the rest at 9,000 - 50 x 94.74 = 4,263 / 47.5 = 89.75
    venue = venue_of(liquidation={"mode": "partial", "step": 0.5})
    result = called(95.5, (95.5, 95.5, 94, 94), (94, 94, 88, 88), venue=venue)
    assert result.metrics["liquidations"] == 2.0
    assert counts(result)[3] == 1.0
    assert result.metrics["time_to_liquidation_after_call"] == pytest.approx(2 / 24)


def test_a_reduction_by_the_broker_fails_the_call():
    result = called(95.5, 95.5, venue=venue_of(call_grace=0))
    assert ends(result) == [("margin_call", 1), ("call_failed", 2)]
    assert happened(result, "call_failed")["amount"].iloc[0] == pytest.approx(0.8)
    assert counts(result) == (1.0, 0.0, 1.0, 0.0)


def test_a_grace_that_ends_at_an_open_under_the_call_meets_it_and_the_close_may_call_again():
    # at the open of 97 nothing needs to be reduced; the close is at 95.5 again
    result = called((97, 97, 95.5, 95.5), 97, venue=venue_of(call_grace=0))
    assert ends(result) == [
        ("margin_call", 1), ("call_met", 2), ("margin_call", 2), ("call_met", 3),
    ]  # fmt: skip
    assert counts(result) == (2.0, 2.0, 0.0, 0.0)


def test_a_broker_that_can_hardly_sell_fails_the_call_and_a_new_one_begins():
    venue = venue_of(call_grace=0, slippage={"rate": 0.0, "max_participation": 1e-9})
    result = play(
        *FALL, 95.5, targets=TEN, account=account_of(margin_call=0.8), venue=venue,
        volume=[1e12, 1e-3, 1e-3],
    )  # fmt: skip
    # 1e-12 contracts may be sold of 7.9: the ratio stays at 0.868, and is called again at the close
    assert ends(result) == [("margin_call", 1), ("call_failed", 2), ("margin_call", 2)]
    assert counts(result) == (2.0, 0.0, 1.0, 0.0)


def test_ruin_fails_an_open_call_without_a_liquidation():
    # 95.1 leaves 510 of 1,000
    account = account_of(margin_call=0.8, ruin_at=0.52)
    result = called((95.5, 95.5, 95.1, 95.1), account=account)
    assert ends(result) == [("margin_call", 1), ("call_failed", 2)]
    assert counts(result) == (1.0, 0.0, 1.0, 0.0)


def test_an_isolated_call_ends_in_the_same_way():
    account = isolated(**{**CALL, "reserve": 20.0})
    result = called(95.5, (95.5, 95.5, 94, 94), account=account)
    assert ends(result) == [("margin_call", 1), ("call_partly_met", 2), ("call_failed", 2)]
    assert counts(result) == (1.0, 0.0, 1.0, 1.0)


def test_a_withdrawal_may_call_and_a_deposit_meets_the_call():
    # at 95.5 the equity is 550; 100 more make it 650: 477.5 / 650 = 0.735 at the close of bar 3
    account = account_of(margin_call=0.8, flows=series({3: 100.0}))
    result = called(95.5, 95.5, account=account)
    assert ends(result) == [("margin_call", 1), ("call_met", 3)]
