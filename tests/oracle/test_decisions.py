"""Policies that are asked once their columns are known (§4): by hand, oracle and engine alike.

Prices stand still at 100 and nothing costs, so the equity stays 1,000 and a leverage of 1 is 10
contracts. What is decided at a close is held from the next bar on.
"""

from dataclasses import replace
from math import inf, nan

import numpy as np
import pytest

from tests.agreement import FLAT, assert_agrees, make_scene, play_case

N = 6
STILL = [FLAT] * N


def observe(targets, *, n=N, first=0, **columns):
    """Return a leg whose policy observes columns beside its targets."""
    return STILL[:n], targets, (), first, columns


def check_held(out, expected):
    """Compare contracts by bar and instrument."""
    held = [[float(quantity) for quantity in row] for row in out.quantity]
    np.testing.assert_allclose(held, expected, rtol=1e-12)


LATE = [nan, nan, 7.0, nan, 7.0, 7.0]
LATER = [nan, nan, nan, 0.0, nan, nan]
NEVER = [nan] * N
HAND = {
    # asked from the close of bar 2 on; what is unknown later is the formula's own affair
    "nothing is decided before the first value": (
        make_scene(observe([2.0], slow=LATE)), [0, 0, 0, 20, 20, 20]),
    "a value of 0 is a value": (
        make_scene(observe([2.0], slow=LATER)), [0, 0, 0, 0, 20, 20]),
    "an infinite value is a value": (
        make_scene(observe([2.0], slow=[nan, inf, nan, nan, nan, nan])), [0, 0, 20, 20, 20, 20]),
    "the last of the columns to begin counts": (
        make_scene(observe([nan, 2.0], slow=LATE)), [0, 0, 0, 20, 20, 20]),
    "a column that never has a value is no reason to wait": (
        make_scene(observe([2.0], never=NEVER)), [0, 20, 20, 20, 20, 20]),
    "beside it the others still are": (
        make_scene(observe([2.0], slow=LATE, never=NEVER)), [0, 0, 0, 20, 20, 20]),
    "a least leverage is none of a policy that is not asked": (
        make_scene(observe([0.0], slow=LATE), min_leverage=1.0), [0, 0, 0, 10, 10, 10]),
    "a fill at the close of the decision comes in the bar after": (
        make_scene(observe([2.0], slow=LATE), fill="same_close"), [0, 0, 0, 20, 20, 20]),
    # the fill of bar t is at its close then: decided at 2, filled at the close of 3
    "a fill at the next close too": (
        make_scene(observe([2.0], slow=LATE), fill="next_close"), [0, 0, 0, 20, 20, 20]),
    # 6 over the number of times that it was asked: 6, 3, 2
    "the memory stays as it was": (
        replace(make_scene(observe([6.0], slow=LATE)), counts=True), [0, 0, 0, 60, 30, 20]),
    "a policy whose columns are known counts from the first close": (
        replace(make_scene(observe([6.0], never=NEVER)), counts=True), [0, 60, 30, 20, 15, 12]),
}  # fmt: skip


@pytest.mark.parametrize(("case", "held"), HAND.values(), ids=list(HAND))
def test_a_policy_is_asked_once_its_columns_are_known(case, held):
    out = play_case(case)
    check_held(out, [[contracts] for contracts in held])


def test_each_instrument_waits_for_its_own_columns():
    """B is listed in bar 2 and its column begins in its second bar: it holds from bar 4 on."""
    case = make_scene(
        observe([2.0], slow=[1.0] * N), observe([3.0], n=4, first=2, slow=[nan, 5.0, nan, 5.0])
    )
    held = [[0, 0], [20, 0], [20, 0], [20, 0], [20, 30], [20, 30]]
    check_held(play_case(case), held)


def test_a_setting_of_margin_waits_with_the_leverage():
    """By hand: 2 is decided at the close of bar 2, where the setting is 4: 500 are posted. Before
    that the setting that the account gives, 5, would have posted 400."""
    case = make_scene(
        observe([2.0], setting=[nan, nan, 4.0, nan, nan, nan]), margin="isolated",
        venue_leverage=5.0,
    )  # fmt: skip
    out = play_case(case)
    check_held(out, [[0], [0], [0], [20], [20], [20]])
    margins = [float(margin) for (margin,) in out.margin]
    assert margins == pytest.approx([0, 0, 0, 500, 500, 500], rel=1e-12)


@pytest.mark.compiled
def test_compiled_code_waits_too():
    case = replace(make_scene(observe([6.0], slow=LATE, never=NEVER)), counts=True)
    out = assert_agrees(case, "compiled", is_compiled=True)
    check_held(out, [[0], [0], [0], [60], [30], [20]])
