"""What an account refuses beside a venue and a market, and limits of leverage by date."""

from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.account import check_setting
from tests.agreement import assert_agrees
from tests.cases import make_case
from tests.draws import DAY, START, utc
from tests.kit import Hold, check_refused, make_venue, simulate_pair
from tests.scenes import (
    INF,
    NAN,
    Hand,
    account_of,
    by_hand,
    check_numbers,
    later,
    play,
    series,
    venue_of,
)

VENUE = bt.Venue.simple(
    taker=5e-4, slippage=1e-4, maintenance_rate=0.01, max_leverage=50, liquidation_fee=0.0125
)
DATED = series({0: INF, 3: 2.0, 5: 0.0, 7: 4.0})


def fit(venue: bt.Venue = VENUE, **choices: Any) -> None:
    check_setting(bt.Account(**choices), venue)


def test_an_account_cannot_be_changed_and_its_flows_are_its_own() -> None:
    mine = series({0: 100, 24: -50})
    account = bt.Account(flows=mine)
    mine.iloc[0] = 0

    assert account.flows is not None
    assert account.flows.tolist() == [100.0, -50.0]

    with pytest.raises(ValueError, match="read-only"):
        account.flows.iloc[0] = 1.0
    with pytest.raises(FrozenInstanceError, match="cannot assign"):
        account.capital = 1.0  # type: ignore[misc]


def limited(*bars, limit, targets, venue=None, **account):
    """Run bars at 100 under a limit of leverage by hour, when it is called."""
    terms = account_of(max_leverage=series(limit), **account)
    return later(*bars, targets=targets, venue=venue, account=terms)


LEAST = {"contract": {"min_notional": 5.0}}
FALL = [100, 100, 100, (100, 100, 60, 60), 60, 60]
LIMITS: Hand = {
    # the decision of bar 2 fills at the open of bar 3, where 2 is in force; 0 closes; then 4
    "the value in force at the open of the fill limits the target": (
        later(*[100] * 9, targets=5.0, account=account_of(max_leverage=DATED)),
        {"leverage": [0, 5, 5, 2, 2, 0, 0, 4, 4]}),
    "a change between two opens holds from the next open": (
        limited(*[100] * 5, limit={0: INF, 2.5: 2.0}, targets=5.0), {"leverage": [0, 5, 5, 2, 2]}),
    "an infinite leverage asks for the limit": (
        limited(*[100] * 5, limit={0: 3.0, 3: INF}, targets=INF), {"leverage": [0, 3, 3, 16, 16]}),
    "a position that is left alone outlives a limit": (
        limited(*[100] * 6, limit={0: INF, 3: 0.0}, targets=(5.0, NAN)),
        {"leverage": [0, *[5] * 5]}),
    # the fee of closing is a loss, and 0 turns of any wealth are under the least order of 5
    "a ban ruins no flat account": (
        limited(*[100] * 5, limit={0: INF, 2: 0.0, 4: 1.0}, targets=2.0,
                venue=venue_of(**LEAST, fees={"taker": 0.001, "maker": 0.001})),
        {"leverage": [0, 2 / (1 - 0.002), 0, 0, 1 / (1 - 0.001)], "metrics.ruined": 0}),
    **{  # 1,000 at 2 turns, 40 % down: 200 are left, and a limit of 0.02 allows 4 < 5
        f"ruin by the least order uses the limit in force, from bar {bar}": (
            limited(*FALL, limit={0: 2.0, bar: 0.02}, targets=(2.0, NAN), stop_loss=0.4,
                    venue=venue_of(**LEAST)),
            {"metrics.ruined": ruined})
        for bar, ruined in ((3, 1), (4, 0))
    },
}  # fmt: skip


@by_hand(LIMITS)
def test_limits_of_leverage_by_date(run, numbers):
    check_numbers(run(), numbers)


@pytest.mark.parametrize("seed", range(10))
def test_random_accounts_under_a_limit_equal_the_oracle(seed):
    """None, some of the targets, or a ban, by date."""
    case = make_case(seed)
    rng = np.random.default_rng([seed, 3])
    targets = case.tapes["TEST"].bars["target"]
    largest = targets[np.isfinite(targets)].max()

    # Six changes, each a nanosecond after an open, and a value from before the first bar on.
    opens = rng.choice(case.clock.asi8, 6, replace=False)
    stamps = np.r_[START - DAY, np.sort(opens) + 1]
    values = rng.uniform(0.1, 1.0, 7) * largest + 0.01
    values[rng.random(7) < 0.2] = INF
    values[rng.random(7) < 0.15] = 0.0

    limit = pd.Series(values, index=utc(stamps))
    account = case.account | {"max_leverage": limit, "min_leverage": 0.0}
    assert_agrees(replace(case, account=account), f"{seed}")


class Careful(bt.Policy):
    def leverage(self, bar, account):
        return 1.0 if account.liquidation_price > 0.0 else 0.5


def run(**terms: Any) -> Any:
    """Run a pair of markets at 1x, or with terms of its own."""
    settings = {
        "markets": simulate_pair(20),
        "policy": Hold(),
        "venue": make_venue(),
        "account": bt.Account(capital=1e3),
        **terms,
    }
    return bt.run(settings.pop("markets"), **settings)


def run_beside(**terms: Any) -> Any:
    """Run the pair with terms of the second venue alone."""
    return run(venue={"AAA": make_venue(), "BBB": make_venue(**terms)})


ORDER = make_venue(mode="partial").override({"liquidation.order": ["AAA", "BBX"]})
REFUSED = [  # what is called, and words of the refusal
    (lambda: fit(venue_leverage=51), "at most 50, "),
    (lambda: fit(venue_leverage=2, min_leverage=3), "min_leverage must be at most 2, "),
    (lambda: fit(replace(VENUE, call_grace=3)), "call_grace 3 needs a margin_call"),
    (lambda: account_of(max_leverage=DATED, min_leverage=1.0), "max_leverage 0 at its lowest"),
    (lambda: play(100, 100, account=account_of(max_leverage=series({1: 2.0}))),
     "begin by the first bar"),
    (lambda: play(100, 100, venue=venue_of(contract={"tick": 101.0, "round_to_tick": True})),
     "tick must be at most the lowest price, 100"),
    (lambda: run(policy={"AAA": Hold()}), "must be one for all, or one for each of AAA, BBB"),
    (lambda: run(venue={"AAA": make_venue()}), "got none for BBB"),
    (lambda: run_beside(interest_on="loan", borrow_rate=0.1), "interest_on must be the same"),
    (lambda: run_beside(mode="takeover"), "liquidation.mode of cross positions must be the same"),
    (lambda: run(venue=ORDER), "order must name instruments of the markets, AAA, BBB, got an unk"),
    (lambda: run(account=bt.Account(venue_leverage=50.0)), "venue_leverage must be at most 20 for"),
    (lambda: run(account=bt.Account(max_holding={"C": "1d"})), "max_holding must be one value for"),
    (lambda: run(overlay=Careful()), "Careful, which reads account.liquidation_price"),
    (lambda: run(start="2030-01-01"), "start must lie before the last bar"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("call", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_what_does_not_fit_is_refused(call, words):
    check_refused(call, words, bt.ParameterError)
