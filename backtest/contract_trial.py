"""What a policy is checked in: a market, and accounts that differ in what the engine compiles."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from backtest.account.account import Account
from backtest.base.units import FloatArray, format_time
from backtest.engine.lookahead.causality import observe
from backtest.engine.result import Result
from backtest.engine.run import run
from backtest.market.market import Market
from backtest.policy.policy import Policy
from backtest.venue.venue import Bracket, Contract, Fees, Liquidation, Slippage, Venue

SAMPLES = (600, 2400, 8760)
"""Bars of the sample market: the first of these on which the policy is warm half of the time."""

ACCOUNTS = ("cross", "isolated", "inverse")
"""First words of the accounts a policy is tried in."""


class BrokenContractError(Exception):
    """A policy breaks its contract; the message says where and what to do."""


class Situation(NamedTuple):
    """An account at a venue, and the direction it trades: None, or signals of shape (n_bars,)."""

    name: str
    venue: Venue
    account: Account
    signal: FloatArray | None


@dataclass(frozen=True, eq=False)
class Trial:
    """A policy with its defaults, the market it is checked on, and the accounts it is tried in."""

    cls: type[Policy]
    market: Market
    accounts: tuple[str, ...] = ACCOUNTS

    @cached_property
    def policy(self) -> Policy:
        """The policy with its defaults."""
        return self.cls()

    @cached_property
    def columns(self) -> dict[str, FloatArray]:
        """What it observes."""
        return observe(self.policy, self.market)

    @cached_property
    def is_warm(self) -> npt.NDArray[np.bool_]:
        """Whether all columns are known at each bar's close."""
        is_warm = np.ones(self.market.n_bars, dtype=np.bool_)
        for column in self.columns.values():
            is_warm &= np.isfinite(column)
        return is_warm

    @cached_property
    def situations(self) -> tuple[Situation, ...]:
        """The accounts it is tried in."""
        every = make_situations(self.market.n_bars)
        return tuple(each for each in every if each.name.split()[0] in self.accounts)

    @cached_property
    def plain(self) -> Result:
        """Its run in the first situation, in plain Python."""
        return self.live(self.market, self.situations[0])

    def live(self, market: Market, situation: Situation, *, is_compiled: bool = False) -> Result:
        """Return a run of the policy."""
        signal = situation.signal
        return run(
            market,
            self.policy,
            venue=situation.venue,
            account=situation.account,
            signal=None if signal is None else signal[: market.n_bars],
            calendar="252" if market.sessions else "365",
            compile=is_compiled,
        )

    def place(self, t: int) -> str:
        """Return where bar t is, for messages."""
        return f"bar {t}, {format_time(int(self.market.time[t]))}"


def make_situations(n_bars: int) -> tuple[Situation, ...]:
    """Return accounts that differ in what the engine compiles: margin, direction, contract."""
    venue = Venue.preset("binance-usdm", "BTCUSDT")
    coin = Venue(
        contract=Contract(kind="inverse", size=100.0, lot=1.0, tick=0.1, min_notional=0.0),
        brackets=[Bracket(0.0, 5.0, 100.0, 0.005), Bracket(5.0, 1e6, 50.0, 0.01)],
        fees=Fees(taker=5e-4, maker=1e-4),
        slippage=Slippage(rate=1e-4),
        liquidation=Liquidation(mode="partial", fee=0.005, slippage=0.002),
    )
    flips = np.array([1.0, -1.0, 0.5, 0.0])[np.arange(n_bars) // 37 % 4]
    isolated = Account(margin="isolated", venue_leverage=20.0, band=0.05)
    return (
        Situation("cross margin", venue, Account(), None),
        Situation("isolated margin, signal with flips", venue, isolated, flips),
        Situation("inverse contract", coin, Account(capital=1.0), None),
    )


def choose_market(policy_class: type[Policy], market: Market | None) -> Market:
    """Return the market to check on: the one given, or the shortest sample that is enough."""
    if market is not None:
        return market.prefix(min(market.n_bars, SAMPLES[-1]))
    for bars in SAMPLES:
        trial = Trial(policy_class, make_sample(bars))
        try:
            is_enough = trial.is_warm.mean() >= 0.5
        except (Exception, SystemExit):  # the checks will say what is wrong
            break
        if is_enough:
            return trial.market
    return make_sample(bars)


def make_sample(bars: int) -> Market:
    """Return the sample market with what options would imply, for policies that look at it."""
    market = Market.sample(bars=bars)
    return market.with_columns(implied_volatility=0.5 + 10.0 * np.log(market.high / market.low))
