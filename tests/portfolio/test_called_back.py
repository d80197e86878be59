"""Policies that numba refuses, which the compiled loop of several positions calls back."""

import os
import signal
from typing import Annotated

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from tests.kit import Once, make_venue, simulate_pair

pytestmark = [
    pytest.mark.slow,
    pytest.mark.compiled,
    pytest.mark.filterwarnings("ignore:.*runs in plain Python"),
    pytest.mark.filterwarnings("ignore:the history of BBB ends"),
]


class Tabled(bt.Policy):
    """Look up the direction of the bar in a dict."""

    def observe(self, market):
        return {"rise": np.sign(market.close - market.open)}

    def leverage(self, bar, account):
        table = {1.0: [2.0], -1.0: [0.5 + account.drawdown]}
        return table.get(bar.rise, [float("nan")])[0]


class Averaged(bt.Policy):
    """Ask pandas, and leave the position alone on the first days."""

    def leverage(self, bar, account):
        if account.days < 3.0:
            return float("nan")
        return float(pd.Series([bar.close, 100.0]).mean() / bar.close)


class Bracketed(bt.Policy):
    """Keep the whole view in a list, and read the brackets."""

    def leverage(self, bar, account):
        kept = [account]
        rates = pd.Series(kept[0].venue.rates)
        return 40.0 * float(rates.iloc[0]) * kept[0].venue.multiplier


def live(policy, **more):
    account = bt.Account(capital=10_000.0)
    return bt.run(simulate_pair(400), policy, venue=make_venue(taker=1e-3), account=account, **more)


@pytest.mark.parametrize(
    "policy",
    [Tabled(), Averaged(), Bracketed(), {"AAA": Tabled(), "BBB": Once()}],
    ids=["dict", "pandas", "view", "beside a compiled one"],
)
def test_a_policy_called_back_has_the_bits_of_plain_python(policy):
    called, plain = live(policy), live(policy, compile=False)
    assert "test_called_back.py, line" in called.manifest["compiled"]
    pd.testing.assert_frame_equal(called.bars, plain.bars, check_exact=True)
    pd.testing.assert_frame_equal(called.trades, plain.trades, check_exact=True)


def test_an_overlay_is_called_back_too():
    called, plain = (live(Averaged(), overlay=Tabled(), compile=each) for each in (True, False))
    pd.testing.assert_frame_equal(called.bars, plain.bars, check_exact=True)


class Failing(bt.Policy):
    """Find no word in a table on the fifth day."""

    def leverage(self, bar, account):
        return {True: 1.0}[account.days < 5.0]


class Falling(bt.Policy):
    """Fall below zero on the fifth day."""

    def leverage(self, bar, account):
        return {True: 1.0, False: -1.0}.get(account.days < 5.0, [1.0][0])


@pytest.mark.parametrize("kind", [Failing, Falling])
def test_what_is_wrong_is_placed_as_in_plain_python(kind):
    told = []
    for is_compiled in (True, False):
        with pytest.raises(bt.PolicyError, match="at the close of bar 1") as caught:
            live(kind(), compile=is_compiled)
        told.append(str(caught.value))
    assert told[0] == told[1]


class Interrupted(bt.Policy):
    """Press Ctrl-C on the fifth day."""

    def leverage(self, bar, account):
        if account.days > 5.0:
            os.kill(os.getpid(), signal.SIGINT)
        return [1.0][0]


def test_ctrl_c_ends_the_run_at_once():
    with pytest.raises(KeyboardInterrupt):
        live(Interrupted())


class Loud(bt.Policy):
    """Raise where a parameter says so."""

    least: Annotated[float, bt.Range(-5.0, 5.0)] = 1.0

    def leverage(self, bar, account):
        if self.least > 4.0:
            raise ValueError("too loud")
        return self.least


@pytest.mark.slow
@pytest.mark.compiled
@pytest.mark.parametrize("n", [1, 2])
def test_what_a_compiled_rule_raises_ends_the_run(n):
    market = bt.Market.sample(bars=60)
    markets = bt.Markets(dict.fromkeys("AB"[:n], market))
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT")
    with pytest.raises(bt.PolicyError, match="ValueError: too loud"):
        bt.run(markets, Loud(4.5), venue=venue, account=bt.Account())
